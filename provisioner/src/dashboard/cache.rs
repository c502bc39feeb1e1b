//! A cache of the counts, hour by hour, so that a page of a month is drawn immediately.
//!
//! Every page reads its hours again, except those read within the last few seconds. Pages that need the same hours at
//! the same time share one reading. If it takes longer than [`PATIENCE`] and all hours are cached, the page is drawn from
//! the cache and states the age of the counts; reading continues in the background for up to [`BACKGROUND`], and the
//! next page has the result. A reading that no page waits for any more ends.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt as _, Shared, WeakShared};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use moka::ops::compute::{CompResult, Op};
use moka::policy::EvictionPolicy;
use tokio::sync::Semaphore;

use crate::aws::Aws;
use crate::counts::{AT_ONCE, Reader, memory};
use crate::error::{Error, ErrorKind};

/// The time that a page waits for current counts if all of its hours are cached.
const PATIENCE: Duration = Duration::from_millis(400);
/// The time that a reading continues after its page was drawn from the cache.
const BACKGROUND: Duration = Duration::from_secs(30);
/// The age from which cached counts are no longer shown.
const TOO_OLD: Duration = Duration::from_secs(900);
/// The age below which cached counts are not read again.
const FRESH: Duration = Duration::from_secs(5);
/// [`FRESH`] for past hours if a page refreshes itself: they rarely change, and a page may be open all day.
const FRESH_PAST: Duration = Duration::from_secs(600);
/// The age from which an hour is past.
const PAST: SignedDuration = SignedDuration::from_hours(48);
/// The capacity in bytes: 200 events in each hour of the longest period and of the one before it. The hours used longest
/// ago are evicted first.
const MOST_BYTES: usize = 320 * 1024 * 1024;
/// The most bytes of one hour: about 5,000 events. The less frequent ones are counted together.
const MOST_HOUR_BYTES: usize = 256 * 1024;
/// The most bytes that are read before anybody asks for a page.
const MOST_WARM_BYTES: usize = 32 * 1024 * 1024;
/// The maximum number of different readings at the same time.
const MOST_READINGS: usize = 16;

/// The reason why a page is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Trigger {
    /// The server has just started.
    Start,
    /// A visitor requested the page.
    Visitor,
    /// The page refreshes itself.
    Refresh,
}

/// The counts of one hour.
type Counts = Arc<[(Arc<str>, i64)]>;

/// Hours, with the age of the oldest read among them.
#[derive(Debug)]
pub(crate) struct Hours {
    /// Each hour, in the format of the counts table, with its events.
    pub(crate) counts: Vec<(String, Counts)>,
    /// The time since the oldest read.
    pub(crate) age: Duration,
    /// True if all of them are fresh.
    pub(crate) is_fresh: bool,
    /// The number of hours of which only the most frequent events are known.
    pub(crate) cut: usize,
}

#[derive(Debug, Clone)]
struct Kept {
    read: Instant,
    counts: Counts,
    /// The estimated memory, in bytes.
    bytes: usize,
    /// True if the less frequent events are counted together.
    is_cut: bool,
}

/// The interned names: an event occurs in many hours.
#[derive(Debug, Default)]
struct Names {
    all: HashSet<Arc<str>>,
    /// The number of names after the last removal of unused ones.
    used: usize,
}

impl Names {
    fn intern(&mut self, name: &str) -> Arc<str> {
        if let Some(name) = self.all.get(name) {
            return Arc::clone(name);
        }
        if self.all.len() > 2 * self.used + 1_000 {
            self.all.retain(|name| Arc::strong_count(name) > 1);
            self.used = self.all.len();
        }
        let name: Arc<str> = Arc::from(name);
        self.all.insert(Arc::clone(&name));
        name
    }
}

/// A reading of hours.
type ReadingFuture = BoxFuture<'static, Result<(), Error>>;
/// A reading that several pages can wait for. It goes on while one of them does.
type Reading = Shared<ReadingFuture>;

/// A pipeline's counts and their cached hours.
pub(crate) struct Cache {
    aws: Aws,
    table: String,
    daily: String,
    hours: moka::future::Cache<String, Kept>,
    names: Mutex<Names>,
    /// The limit of concurrent calls of all pages together.
    calls: Semaphore,
    /// The readings that pages wait for, by the hash of their hours.
    readings: Mutex<HashMap<u64, WeakShared<ReadingFuture>>>,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("table", &self.table).finish_non_exhaustive()
    }
}

/// Returns whether an hour read at `read` need not be read again for a page requested at `asked`.
fn is_fresh(hour: &str, read: Instant, asked: Instant, trigger: Trigger) -> bool {
    let is_past = || {
        let hour: Option<Timestamp> = hour.parse().ok();
        hour.is_some_and(|hour| Timestamp::now().duration_since(hour) > PAST)
    };
    let limit = if trigger == Trigger::Refresh && is_past() { FRESH_PAST } else { FRESH };
    asked.saturating_duration_since(read) < limit
}

impl Cache {
    pub(crate) fn new(aws: Aws, table: String, daily: String) -> Arc<Self> {
        let bytes = |_: &String, kept: &Kept| u32::try_from(kept.bytes).unwrap_or(u32::MAX);
        let hours = moka::future::Cache::builder()
            .max_capacity(MOST_BYTES as u64)
            .weigher(bytes)
            .eviction_policy(EvictionPolicy::lru())
            .build();
        let (names, readings) = (Mutex::default(), Mutex::default());
        Arc::new(Self { aws, table, daily, hours, names, calls: Semaphore::new(AT_ONCE), readings })
    }

    /// Returns the current hours, or cached ones younger than [`TOO_OLD`] if reading takes longer than [`PATIENCE`].
    ///
    /// # Errors
    /// The failed AWS call, or too many concurrent pages.
    pub(crate) async fn read(self: &Arc<Self>, hours: Vec<String>, trigger: Trigger) -> Result<Hours, Error> {
        let asked = Instant::now();
        let mut reading = self.reading(&hours, asked, trigger)?;
        match tokio::time::timeout(PATIENCE, &mut reading).await {
            Ok(done) => done?,
            Err(_) => match self.known(&hours, asked, trigger).await.filter(|known| known.age < TOO_OLD) {
                Some(known) => {
                    // The next page has the result.
                    tokio::spawn(tokio::time::timeout(BACKGROUND, reading));
                    return Ok(known);
                }
                None => reading.await?,
            },
        }
        // Pages of others may have evicted some hours in the meantime.
        self.known(&hours, asked, trigger).await.ok_or_else(|| too_large("choose a shorter period"))
    }

    /// Joins the reading of the same hours, or begins one.
    fn reading(self: &Arc<Self>, hours: &[String], asked: Instant, trigger: Trigger) -> Result<Reading, Error> {
        let mut hasher = DefaultHasher::new();
        (hours, trigger).hash(&mut hasher);
        let key = hasher.finish();
        let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        // A finished reading is of no use to a page that is asked for later.
        readings.retain(|_, reading| reading.upgrade().is_some_and(|reading| reading.peek().is_none()));
        if let Some(reading) = readings.get(&key).and_then(WeakShared::upgrade) {
            return Ok(reading);
        }
        if readings.len() >= MOST_READINGS {
            let help = "try again in a moment";
            return Err(Error::new(ErrorKind::Busy, "too many pages are being read at the moment", help));
        }
        let reading = Arc::clone(self).refresh(hours.to_vec(), asked, trigger).boxed().shared();
        readings.extend(reading.downgrade().map(|weak| (key, weak)));
        Ok(reading)
    }

    /// Returns the cached hours, or `None` if one of them is not cached.
    async fn known(&self, hours: &[String], asked: Instant, trigger: Trigger) -> Option<Hours> {
        let mut kept = Vec::with_capacity(hours.len());
        for hour in hours {
            kept.push(self.hours.get(hour).await?);
        }
        let cut = kept.iter().filter(|kept| kept.is_cut).count();
        let oldest = kept.iter().map(|kept| kept.read).min().unwrap_or(asked);
        let is_fresh = hours.iter().zip(&kept).all(|(hour, kept)| is_fresh(hour, kept.read, asked, trigger));
        let counts = hours.iter().cloned().zip(kept.iter().map(|kept| Arc::clone(&kept.counts))).collect();
        Some(Hours { counts, age: oldest.elapsed(), is_fresh, cut })
    }

    /// Reads the hours that are not fresh, latest first. Pages that need the same hour share its reading.
    async fn refresh(self: Arc<Self>, mut hours: Vec<String>, asked: Instant, trigger: Trigger) -> Result<(), Error> {
        hours.sort_unstable_by(|a, b| b.cmp(a));
        let this = &*self;
        let most = if trigger == Trigger::Start { MOST_WARM_BYTES } else { MOST_BYTES };
        stream::iter(hours)
            .map(|hour| this.hour(hour, asked, trigger))
            .buffer_unordered(AT_ONCE)
            .try_fold(0, |all: usize, bytes| async move {
                let all = all.saturating_add(bytes);
                if all > most { Err(too_large("choose a shorter period")) } else { Ok(all) }
            })
            .await
            .map(drop)
    }

    /// Reads an hour unless it is fresh, and returns its memory in bytes.
    async fn hour(&self, hour: String, asked: Instant, trigger: Trigger) -> Result<usize, Error> {
        let reader = Reader { aws: &self.aws, table: &self.table, daily: &self.daily, is_consistent: false };
        let entry = self.hours.entry(hour.clone()).and_try_compute_with(|kept| async move {
            if kept.is_some_and(|kept| is_fresh(&hour, kept.value().read, asked, trigger)) {
                return Ok::<_, Error>(Op::Nop);
            }
            // Fails only if the semaphore is closed, which never happens here.
            let _call = self.calls.acquire().await.ok();
            let read = Instant::now();
            let (counts, is_cut) = reader.most_frequent(&hour, MOST_HOUR_BYTES).await?;
            let bytes = counts.iter().map(|(event, _)| memory(event)).sum();
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            let counts = counts.into_iter().map(|(event, count)| (names.intern(&event), count)).collect();
            Ok(Op::Put(Kept { read, counts, bytes, is_cut }))
        });
        Ok(match entry.await? {
            CompResult::Inserted(entry) | CompResult::ReplacedWith(entry) | CompResult::Unchanged(entry) => {
                entry.value().bytes
            }
            CompResult::Removed(_) | CompResult::StillNone(_) => 0,
        })
    }
}

/// Returns the error for a period that is not shown.
pub(super) fn too_large(help: &str) -> Error {
    Error::usage("the period has more different events than the dashboard can hold", help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_hours_stay_fresh_longer_if_a_page_refreshes_itself() {
        let read = Instant::now();
        let hours =
            |ago: i64| Timestamp::now().checked_sub(SignedDuration::from_hours(ago)).expect("a time").to_string();
        let fresh = |ago, seconds, trigger| is_fresh(&hours(ago), read, read + Duration::from_secs(seconds), trigger);
        assert!(fresh(1, 4, Trigger::Visitor) && fresh(100, 4, Trigger::Visitor));
        assert!(!fresh(1, 6, Trigger::Visitor) && !fresh(100, 6, Trigger::Visitor));
        assert!(
            !fresh(1, 6, Trigger::Refresh) && fresh(100, 599, Trigger::Refresh) && !fresh(100, 601, Trigger::Refresh)
        );
    }

    #[tokio::test]
    async fn pages_of_the_same_hours_share_a_reading_until_none_waits() {
        let config = aws_config::SdkConfig::builder().behavior_version(aws_config::BehaviorVersion::latest()).build();
        let cache = Cache::new(Aws::new(&config), "counts".to_owned(), "daily".to_owned());
        let reading = |hour: &str, trigger| cache.reading(&[hour.to_owned()], Instant::now(), trigger);
        let first = reading("2015-08-04T12:00:00Z", Trigger::Visitor).expect("a reading");
        let second = reading("2015-08-04T12:00:00Z", Trigger::Visitor).expect("a reading");
        let other = reading("2015-08-04T13:00:00Z", Trigger::Visitor).expect("a reading");
        assert!(first.ptr_eq(&second) && !first.ptr_eq(&other));
        let more: Vec<Reading> =
            (2..MOST_READINGS).map(|n| reading(&n.to_string(), Trigger::Visitor).expect("a reading")).collect();
        let refused = reading("one more", Trigger::Visitor).expect_err("too many readings");
        assert_eq!(refused.kind(), ErrorKind::Busy);
        // The same view needs no further reading, and abandoned ones make room.
        assert!(reading("2015-08-04T12:00:00Z", Trigger::Visitor).is_ok());
        drop(more);
        assert!(reading("one more", Trigger::Visitor).is_ok());
    }

    #[tokio::test]
    async fn full_cache_evicts_the_hours_used_longest_ago() {
        let config = aws_config::SdkConfig::builder().behavior_version(aws_config::BehaviorVersion::latest()).build();
        let cache = Cache::new(Aws::new(&config), "counts".to_owned(), "daily".to_owned());
        let mebibyte = 1024 * 1024;
        for n in 0..2 * MOST_BYTES / mebibyte {
            let kept = Kept { read: Instant::now(), counts: Arc::from([]), bytes: mebibyte, is_cut: false };
            cache.hours.insert(n.to_string(), kept).await;
            cache.hours.run_pending_tasks().await;
            // Used again and again.
            assert!(cache.hours.get("0").await.is_some(), "{n}");
        }
        cache.hours.run_pending_tasks().await;
        assert!(cache.hours.weighted_size() <= MOST_BYTES as u64, "{} bytes", cache.hours.weighted_size());
        let last = (2 * MOST_BYTES / mebibyte - 1).to_string();
        assert!(cache.hours.get("1").await.is_none() && cache.hours.get(&last).await.is_some());
    }

    #[test]
    fn unused_names_are_removed() {
        let mut names = Names::default();
        let kept = names.intern("kept");
        for n in 0..10_000 {
            names.intern(&n.to_string());
        }
        assert!(names.all.len() < 2_000, "{}", names.all.len());
        assert!(Arc::ptr_eq(&kept, &names.intern("kept")));
    }
}
