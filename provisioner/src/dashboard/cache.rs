//! A cache of the counts, hour by hour, so that a page of a month is drawn immediately.
//!
//! Every page reads its hours again, except those read within the last few seconds. Pages that need the same hours at
//! the same time share one reading. If it takes longer than [`PATIENCE`] and all hours are cached, the page is drawn from
//! the cache and states the age of the counts; reading continues in the background for up to [`BACKGROUND`], and the
//! next page has the result. A reading that no page waits for any more ends.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt as _, Shared, WeakShared};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Semaphore;

use crate::aws::Aws;
use crate::counts::{AT_ONCE, Reader};
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
/// The capacity in hours: two of the longest periods, so that the longest can be compared. The hours read longest ago
/// are evicted first.
const MOST_HOURS: usize = 2 * super::view::MOST_HOURS + 5_000;
/// The maximum number of different readings at the same time.
const MOST_READINGS: usize = 16;

/// The reason why a page is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Trigger {
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
}

#[derive(Debug, Clone)]
struct Kept {
    read: Instant,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Memory {
    hours: HashMap<String, Kept>,
    /// Interned event names: an event occurs in many hours.
    names: HashMap<String, Arc<str>>,
}

impl Memory {
    fn keep(&mut self, hour: String, counts: Vec<(String, i64)>, read: Instant) {
        let counts = counts
            .into_iter()
            .map(|(event, count)| {
                let name = self.names.entry(event).or_insert_with_key(|event| Arc::from(event.as_str()));
                (Arc::clone(name), count)
            })
            .collect();
        self.hours.insert(hour, Kept { read, counts });
        if self.hours.len() > MOST_HOURS {
            let mut reads: Vec<Instant> = self.hours.values().map(|kept| kept.read).collect();
            reads.sort_unstable();
            let limit = reads.get(MOST_HOURS / 20).copied();
            self.hours.retain(|_, kept| Some(kept.read) > limit);
            self.names.retain(|_, name| Arc::strong_count(name) > 1);
        }
    }
}

/// A reading of hours.
type ReadingFuture = BoxFuture<'static, Result<(), Error>>;
/// A reading that several pages can wait for. It goes on while one of them does.
type Reading = Shared<ReadingFuture>;

/// A counts table and its cached hours.
pub(crate) struct Cache {
    aws: Aws,
    table: String,
    memory: Mutex<Memory>,
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
    pub(crate) fn new(aws: Aws, table: String) -> Arc<Self> {
        let (memory, readings) = (Mutex::default(), Mutex::default());
        Arc::new(Self { aws, table, memory, calls: Semaphore::new(AT_ONCE), readings })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
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
            Err(_) => match self.known(&hours, asked, trigger).filter(|known| known.age < TOO_OLD) {
                Some(known) => {
                    // The next page has the result.
                    tokio::spawn(tokio::time::timeout(BACKGROUND, reading));
                    return Ok(known);
                }
                None => reading.await?,
            },
        }
        let known = self.known(&hours, asked, trigger);
        known
            .ok_or_else(|| Error::usage("the period has more hours than the cache can hold", "choose a shorter period"))
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
    fn known(&self, hours: &[String], asked: Instant, trigger: Trigger) -> Option<Hours> {
        let memory = self.lock();
        let kept: Option<Vec<&Kept>> = hours.iter().map(|hour| memory.hours.get(hour)).collect();
        let kept = kept?;
        let oldest = kept.iter().map(|kept| kept.read).min().unwrap_or(asked);
        let is_fresh = hours.iter().zip(&kept).all(|(hour, kept)| is_fresh(hour, kept.read, asked, trigger));
        let counts = hours.iter().cloned().zip(kept.iter().map(|kept| Arc::clone(&kept.counts))).collect();
        Some(Hours { counts, age: oldest.elapsed(), is_fresh })
    }

    /// Reads the hours that are not fresh, latest first.
    async fn refresh(self: Arc<Self>, mut hours: Vec<String>, asked: Instant, trigger: Trigger) -> Result<(), Error> {
        hours.sort_unstable_by(|a, b| b.cmp(a));
        let this = &*self;
        let reader = Reader { aws: &this.aws, table: &this.table, is_consistent: false };
        stream::iter(hours)
            .map(|hour| async move {
                // Fails only if the semaphore is closed, which never happens here.
                let _call = this.calls.acquire().await.ok();
                // Another page may have read the hour in the meantime.
                if this.lock().hours.get(&hour).is_some_and(|kept| is_fresh(&hour, kept.read, asked, trigger)) {
                    return Ok(());
                }
                let read = Instant::now();
                let counts = reader.hour(&hour).await?;
                this.lock().keep(hour, counts, read);
                Ok(())
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }
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
        let cache = Cache::new(Aws::new(&config), "counts".to_owned());
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

    #[test]
    fn full_cache_evicts_the_hours_read_longest_ago() {
        let mut memory = Memory::default();
        let began = Instant::now();
        for n in 0..=MOST_HOURS {
            let read = began + Duration::from_millis(u64::try_from(n).expect("a number"));
            memory.keep(n.to_string(), vec![("e".to_owned(), 1)], read);
        }
        assert!(memory.hours.len() < MOST_HOURS && memory.hours.contains_key(&MOST_HOURS.to_string()));
        assert!(!memory.hours.contains_key("0") && memory.names.len() == 1);
        // The longest period and its previous period fit.
        assert!(memory.hours.len() > 2 * crate::dashboard::view::MOST_HOURS);
    }
}
