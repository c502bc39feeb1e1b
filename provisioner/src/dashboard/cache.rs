//! A cache of the counts, by UTC day and hour, so that a page of a month is drawn immediately.
//!
//! Every page reads its spans again, except those read within the last few seconds. Pages that need the same spans at
//! the same time share one reading. If it takes longer than [`PATIENCE`] and all spans are cached, the page is drawn from
//! the cache and states the age of the counts; reading continues in the background for up to [`BACKGROUND`], and the
//! next page has the result. A reading that no page waits for any more ends.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt as _, Shared, WeakShared};
use jiff::{SignedDuration, Timestamp};
use moka::ops::compute::{CompResult, Op};
use moka::policy::EvictionPolicy;
use tokio::sync::Semaphore;

use crate::counts::period::Span;
use crate::counts::{AT_ONCE, Measure, Progress, Quantity, Reader, memory};
use crate::error::{Error, ErrorKind};

/// The time that a page waits for current counts if all of its spans are cached.
const PATIENCE: Duration = Duration::from_millis(400);
/// The time that a reading continues after its page was drawn from the cache.
const BACKGROUND: Duration = Duration::from_secs(30);
/// The age from which cached counts are no longer shown.
const TOO_OLD: Duration = Duration::from_secs(900);
/// The age below which cached counts are not read again.
const FRESH: Duration = Duration::from_secs(5);
/// [`FRESH`] for past spans if a page refreshes itself: they rarely change, and a page may be open all day.
const FRESH_PAST: Duration = Duration::from_secs(600);
/// The time after its start from which a span is past: a day and what may arrive late.
const PAST: SignedDuration = SignedDuration::from_hours(48);
/// The capacity in bytes: 200 events in each hour of the longest period and of the one before it, if no day of its zone
/// is one of UTC. The spans used longest ago are evicted first.
const MOST_BYTES: usize = 320 * 1024 * 1024;
/// The most bytes of one span: about 5,000 events. The less frequent ones are counted together.
const MOST_SPAN_BYTES: usize = 256 * 1024;
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

/// The counts of one span.
type Counts = Arc<[(Arc<str>, Quantity)]>;
/// A span, and what is read of it.
type Key = (Span, Measure);

/// Spans, with the age of the oldest read among them.
#[derive(Debug)]
pub(crate) struct Spans {
    /// Each span with its events.
    pub(crate) counts: Vec<(Span, Counts)>,
    /// The time since the oldest read.
    pub(crate) age: Duration,
    /// True if all of them are fresh.
    pub(crate) is_fresh: bool,
    /// The number of spans of which only the most frequent events are known.
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

/// The interned names: an event occurs in many spans.
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

/// A reading of spans.
type ReadingFuture = BoxFuture<'static, Result<(), Error>>;
/// A reading that several pages can wait for. It goes on while one of them does.
type Reading = Shared<ReadingFuture>;

/// A pipeline's counts and their cached spans.
pub(crate) struct Cache {
    reader: Reader,
    spans: moka::future::Cache<Key, Kept>,
    names: Mutex<Names>,
    /// The limit of concurrent calls of all pages together.
    calls: Semaphore,
    /// The readings that pages wait for, by the hash of their spans.
    readings: Mutex<HashMap<u64, WeakShared<ReadingFuture>>>,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("reader", &self.reader).finish_non_exhaustive()
    }
}

/// Returns whether a span read at `read` need not be read again for a page requested at `asked`.
fn is_fresh(span: Span, read: Instant, asked: Instant, trigger: Trigger) -> bool {
    let is_past = || Timestamp::now().duration_since(span.start) > PAST;
    let limit = if trigger == Trigger::Refresh && is_past() { FRESH_PAST } else { FRESH };
    asked.saturating_duration_since(read) < limit
}

impl Cache {
    pub(crate) fn new(reader: Reader) -> Arc<Self> {
        let bytes = |_: &Key, kept: &Kept| u32::try_from(kept.bytes).unwrap_or(u32::MAX);
        let spans = moka::future::Cache::builder()
            .max_capacity(MOST_BYTES as u64)
            .weigher(bytes)
            .eviction_policy(EvictionPolicy::lru())
            .build();
        let (names, readings) = (Mutex::default(), Mutex::default());
        Arc::new(Self { reader, spans, names, calls: Semaphore::new(AT_ONCE), readings })
    }

    /// Returns the progress of all readings.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        self.reader.progress()
    }

    /// Returns the current spans, or cached ones younger than [`TOO_OLD`] if reading takes longer than [`PATIENCE`].
    ///
    /// # Errors
    /// The failed AWS call, or too many concurrent pages.
    pub(crate) async fn read(
        self: &Arc<Self>,
        spans: Vec<Span>,
        measure: &Measure,
        trigger: Trigger,
    ) -> Result<Spans, Error> {
        let asked = Instant::now();
        let spans: Vec<Key> = spans.into_iter().map(|span| (span, measure.clone())).collect();
        let mut reading = self.reading(&spans, asked, trigger)?;
        match tokio::time::timeout(PATIENCE, &mut reading).await {
            Ok(done) => done?,
            Err(_) => match self.known(&spans, asked, trigger).await.filter(|known| known.age < TOO_OLD) {
                Some(known) => {
                    // The next page has the result.
                    tokio::spawn(tokio::time::timeout(BACKGROUND, reading));
                    return Ok(known);
                }
                None => reading.await?,
            },
        }
        // Pages of others may have evicted some spans in the meantime.
        self.known(&spans, asked, trigger).await.ok_or_else(|| too_large("choose a shorter period"))
    }

    /// Joins the reading of the same spans, or begins one.
    fn reading(self: &Arc<Self>, spans: &[Key], asked: Instant, trigger: Trigger) -> Result<Reading, Error> {
        let mut hasher = DefaultHasher::new();
        (spans, trigger).hash(&mut hasher);
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
        let reading = Arc::clone(self).refresh(spans.to_vec(), asked, trigger).boxed().shared();
        readings.extend(reading.downgrade().map(|weak| (key, weak)));
        Ok(reading)
    }

    /// Returns the cached spans, or `None` if one of them is not cached.
    async fn known(&self, spans: &[Key], asked: Instant, trigger: Trigger) -> Option<Spans> {
        let mut kept = Vec::with_capacity(spans.len());
        for key in spans {
            kept.push((key.0, self.spans.get(key).await?));
        }
        let cut = kept.iter().filter(|(_, kept)| kept.is_cut).count();
        let oldest = kept.iter().map(|(_, kept)| kept.read).min().unwrap_or(asked);
        let is_fresh = kept.iter().all(|(span, kept)| is_fresh(*span, kept.read, asked, trigger));
        let counts = kept.into_iter().map(|(span, kept)| (span, kept.counts)).collect();
        Some(Spans { counts, age: oldest.elapsed(), is_fresh, cut })
    }

    /// Reads the spans that are not fresh, latest first. Pages that need the same span share its reading.
    async fn refresh(self: Arc<Self>, mut spans: Vec<Key>, asked: Instant, trigger: Trigger) -> Result<(), Error> {
        spans.sort_unstable_by_key(|(span, _)| std::cmp::Reverse(*span));
        let most = if trigger == Trigger::Start { MOST_WARM_BYTES } else { MOST_BYTES };
        let readings = spans.into_iter().map(|key| Arc::clone(&self).span(key, asked, trigger));
        let mut all: usize = 0;
        self.reader
            .each_of(readings, |bytes| {
                all = all.saturating_add(bytes);
                if all > most { Err(too_large("choose a shorter period")) } else { Ok(()) }
            })
            .await
    }

    /// Reads a span unless it is fresh, and returns its memory in bytes.
    async fn span(self: Arc<Self>, key: Key, asked: Instant, trigger: Trigger) -> Result<usize, Error> {
        let (this, (span, measure)) = (&*self, key.clone());
        let entry = self.spans.entry(key).and_try_compute_with(|kept| async move {
            if kept.is_some_and(|kept| is_fresh(span, kept.value().read, asked, trigger)) {
                return Ok::<_, Error>(Op::Nop);
            }
            // Fails only if the semaphore is closed, which never happens here.
            let _call = this.calls.acquire().await.ok();
            let read = Instant::now();
            let (counts, is_cut) = this.reader.most_frequent(span, &measure, MOST_SPAN_BYTES).await?;
            let bytes = counts.iter().map(|(event, _)| memory(event)).sum();
            let mut names = this.names.lock().unwrap_or_else(PoisonError::into_inner);
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

    fn hour(n: i64) -> Key {
        (Span { start: Timestamp::from_second(n * 3600).expect("a time"), is_day: false }, Measure::Count)
    }

    #[test]
    fn past_spans_stay_fresh_longer_if_a_page_refreshes_itself() {
        let read = Instant::now();
        let span = |ago: i64| {
            let start = Timestamp::now().checked_sub(SignedDuration::from_hours(ago)).expect("a time");
            Span { start, is_day: false }
        };
        let fresh = |ago, seconds, trigger| is_fresh(span(ago), read, read + Duration::from_secs(seconds), trigger);
        assert!(fresh(1, 4, Trigger::Visitor) && fresh(100, 4, Trigger::Visitor));
        assert!(!fresh(1, 6, Trigger::Visitor) && !fresh(100, 6, Trigger::Visitor));
        assert!(
            !fresh(1, 6, Trigger::Refresh) && fresh(100, 599, Trigger::Refresh) && !fresh(100, 601, Trigger::Refresh)
        );
    }

    #[tokio::test]
    async fn pages_of_the_same_spans_share_a_reading_until_none_waits() {
        let cache = Cache::new(Reader::example());
        let reading = |n, trigger| cache.reading(&[hour(n)], Instant::now(), trigger);
        let first = reading(0, Trigger::Visitor).expect("a reading");
        let second = reading(0, Trigger::Visitor).expect("a reading");
        let other = reading(1, Trigger::Visitor).expect("a reading");
        assert!(first.ptr_eq(&second) && !first.ptr_eq(&other));
        let more: Vec<Reading> =
            (2..MOST_READINGS).map(|n| reading(n as i64, Trigger::Visitor).expect("a reading")).collect();
        let refused = reading(-1, Trigger::Visitor).expect_err("too many readings");
        assert_eq!(refused.kind(), ErrorKind::Busy);
        // The same view needs no further reading, and abandoned ones make room.
        assert!(reading(0, Trigger::Visitor).is_ok());
        drop(more);
        assert!(reading(-1, Trigger::Visitor).is_ok());
    }

    #[tokio::test]
    async fn full_cache_evicts_the_spans_used_longest_ago() {
        let cache = Cache::new(Reader::example());
        let mebibyte = 1024 * 1024;
        for n in 0..2 * MOST_BYTES / mebibyte {
            let kept = Kept { read: Instant::now(), counts: Arc::from([]), bytes: mebibyte, is_cut: false };
            cache.spans.insert(hour(n as i64), kept).await;
            cache.spans.run_pending_tasks().await;
            // Used again and again.
            assert!(cache.spans.get(&hour(0)).await.is_some(), "{n}");
        }
        cache.spans.run_pending_tasks().await;
        assert!(cache.spans.weighted_size() <= MOST_BYTES as u64, "{} bytes", cache.spans.weighted_size());
        let last = hour((2 * MOST_BYTES / mebibyte - 1) as i64);
        assert!(cache.spans.get(&hour(1)).await.is_none() && cache.spans.get(&last).await.is_some());
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
