//! A cache of the counts, hour by hour, so that a page of a month is drawn immediately.
//!
//! Every page reads its hours again, except those read within the last few seconds. If reading takes longer than
//! [`PATIENCE`] and all hours are cached, the page is drawn from the cache and states the age of the counts; reading
//! continues in the background, and the next page has the result.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Semaphore, TryAcquireError};

use crate::aws::Aws;
use crate::counts::{AT_ONCE, Reader};
use crate::error::{Error, ErrorKind};

/// The time that a page waits for current counts if all of its hours are cached.
const PATIENCE: Duration = Duration::from_millis(400);
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
/// The maximum number of pages that read concurrently.
const MOST_PAGES: usize = 16;

/// The reason why a page is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// A counts table and its cached hours.
#[derive(Debug)]
pub(crate) struct Cache {
    aws: Aws,
    table: String,
    memory: Mutex<Memory>,
    /// The limit of concurrent calls of all pages together.
    calls: Semaphore,
    pages: Arc<Semaphore>,
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
        let (calls, pages) = (Semaphore::new(AT_ONCE), Arc::new(Semaphore::new(MOST_PAGES)));
        Arc::new(Self { aws, table, memory: Mutex::default(), calls, pages })
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
        let page = Arc::clone(&self.pages).try_acquire_owned().map_err(|_: TryAcquireError| {
            Error::new(ErrorKind::Busy, "too many pages are being read at the moment", "try again in a moment")
        })?;
        // A separate task, so that reading continues if the page does not wait for it.
        let refreshing = Arc::clone(self).refresh(hours.clone(), asked, trigger);
        let mut reading = tokio::spawn(async move {
            let _page = page;
            refreshing.await
        });
        let done = match tokio::time::timeout(PATIENCE, &mut reading).await {
            Ok(done) => done,
            Err(_) => match self.known(&hours, asked, trigger).filter(|known| known.age < TOO_OLD) {
                Some(known) => return Ok(known),
                None => reading.await,
            },
        };
        done.map_err(|error| Error::internal("read the counts", error))??;
        let known = self.known(&hours, asked, trigger);
        known
            .ok_or_else(|| Error::usage("the period has more hours than the cache can hold", "choose a shorter period"))
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
