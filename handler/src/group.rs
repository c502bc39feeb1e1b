//! Groups of objects that are counted together, so that their shared pairs are written once.

use std::time::Instant;

use counting::names::{self, log_message};
use counting::notification::NotifiedObject;
use counting::protocol::{self, Counted, MOST_OBJECTS, Object, Store, StoreError};
use counting::record::Record;
use counting::rollup::{self, MOST_PAIR_BYTES, Rollup, RollupError, Rules};
use counting::stats::Stats;
use futures_util::stream::{self, StreamExt};
use tracing::{info, warn};

use crate::error::Error;
use crate::s3::{Body, ObjectStream, Objects};
use crate::settings::Settings;

/// The number of objects that are read concurrently. Each needs memory for its pairs.
const READ_AT_ONCE: usize = 4;

/// Counts objects: what it needs for it.
pub(crate) struct Counter<'a, O, S> {
    pub(crate) settings: &'a Settings,
    pub(crate) objects: &'a O,
    pub(crate) store: &'a S,
    /// The time from which no object is opened; `None` for no limit.
    pub(crate) opens_until: Option<Instant>,
}

/// What is known of an object that was read, besides what the protocol counts of it.
struct ReadObject<'a> {
    notified: &'a NotifiedObject,
    stats: Stats,
    /// Whether it belongs to `verify`. It is counted alone, as its counts are taken back.
    is_test: bool,
    began: Instant,
}

/// Objects to count together.
#[derive(Default)]
struct Group<'a> {
    read: Vec<ReadObject<'a>>,
    objects: Vec<Object>,
    /// The memory of their pairs.
    bytes: usize,
}

/// An object that was not counted, and why.
type Failed = (NotifiedObject, Error);

impl<'a, O: Objects, S: Store> Counter<'a, O, S> {
    /// Counts objects in groups that are limited by their number and by the memory of their pairs. Returns those that
    /// failed.
    pub(crate) async fn count(&self, objects: Vec<&'a NotifiedObject>, recount: Option<&str>) -> Vec<Failed> {
        let mut failed = Vec::new();
        let mut group = Group::default();
        let mut reading = stream::iter(objects)
            .map(|object| async move { (object, self.read(object, recount).await) })
            .buffer_unordered(READ_AT_ONCE);
        while let Some((notified, result)) = reading.next().await {
            let (read, object) = match result {
                Ok(Some(read)) => read,
                Ok(None) => continue,
                Err(error) => {
                    failed.push((notified.clone(), error));
                    continue;
                }
            };
            if read.is_test {
                let alone = Group { read: vec![read], objects: vec![object], bytes: 0 };
                failed.extend(self.write(&alone, recount.is_some()).await);
                continue;
            }
            let bytes = rollup::pair_bytes(&object.totals);
            if group.objects.len() == MOST_OBJECTS || group.bytes + bytes > MOST_PAIR_BYTES {
                failed.extend(self.write(&std::mem::take(&mut group), recount.is_some()).await);
            }
            group.bytes += bytes;
            group.read.push(read);
            group.objects.push(object);
        }
        failed.extend(self.write(&group, recount.is_some()).await);
        failed
    }

    /// Reads an object; returns `None` if there is nothing to count.
    async fn read(
        &self,
        object: &'a NotifiedObject,
        recount: Option<&str>,
    ) -> Result<Option<(ReadObject<'a>, Object)>, Error> {
        let began = Instant::now();
        let settings = self.settings;
        let name = format!("{}/{}", object.bucket, object.key);
        let is_test = object.key.contains(names::verify::FOLDER);
        let read_error = |error: StoreError| Error::Read { object: name.clone(), why: error.to_string() };
        let rollup_error = |error: RollupError| match error {
            RollupError::Damaged(error) => Error::Inflate { object: name.clone(), why: error.to_string() },
            RollupError::Format(_) | RollupError::NoMessages(_) => {
                Error::NotMessages { object: name.clone(), why: error.to_string() }
            }
        };

        if object.bucket != settings.bucket {
            return Err(Error::OtherBucket { object: name, bucket: settings.bucket.clone() });
        }
        if self.opens_until.is_some_and(|until| began >= until) {
            return Err(Error::OutOfTime { object: name });
        }
        let Some(opened) = self.objects.open(object).await.map_err(read_error)? else {
            // `verify` removes its objects, and S3 may notify of them late or again.
            if is_test {
                info!(bucket = object.bucket, key = object.key, "{}", log_message::REMOVED);
                return Ok(None);
            }
            return Err(Error::Gone { object: name });
        };
        let ObjectStream { identity, uploaded_at, size, mut body } = opened;
        let ledger_name = names::ledger::object_key(&object.bucket, &object.key, &identity);
        let count_error = |error: StoreError| Error::Count { object: name.clone(), why: error.to_string() };
        let recorded = self.store.recorded(&ledger_name).await.map_err(count_error)?;
        if recorded.is_some() && recount.is_none() {
            info!(bucket = object.bucket, key = object.key, "{}", log_message::COUNTED_BEFORE);
            return Ok(None);
        }

        // The whole file is read before anything is written, so a truncated file adds no counts.
        // The event of `verify` has an hour of its own.
        let rules = match is_test {
            true => &Rules { types: settings.rules.types.clone(), ..Rules::default() },
            false => &settings.rules,
        };
        let mut totals = Rollup::new(rules);
        while let Some(bytes) = body.next().await.map_err(read_error)? {
            totals.push(&bytes).map_err(rollup_error)?;
        }
        let (totals, stats) = totals.finish().map_err(rollup_error)?;
        let own_content = is_test || settings.counts_duplicates;
        let content = match recorded.filter(|record| record.duplicate_of.is_none()) {
            // Another name would be counted in addition, if the setting has changed since.
            Some(record) => record.content,
            None => names::ledger::content(if own_content { &ledger_name } else { &stats.digest }),
        };
        let recount = recount.map(str::to_owned);
        let record = Record { object: ledger_name, content, recount, uploaded_at, size, ..Record::default() };
        let to_count = Object { totals, by: rules.by.clone(), record: record.with_stats(&stats) };
        Ok(Some((ReadObject { notified: object, stats, is_test, began }, to_count)))
    }

    /// Writes a group. If that fails, each of its objects is tried alone: one of them must not fail the others.
    async fn write(&self, group: &Group<'a>, recounts: bool) -> Vec<Failed> {
        let mut failed = Vec::new();
        let Err(error) = self.write_together(&group.read, &group.objects, recounts).await else { return failed };
        if let [read] = group.read.as_slice() {
            return vec![read.failed(&error)];
        }
        for (read, object) in group.read.iter().zip(group.objects.chunks(1)) {
            let result = self.write_together(std::slice::from_ref(read), object, recounts).await;
            failed.extend(result.err().map(|error| read.failed(&error)));
        }
        failed
    }

    async fn write_together(
        &self,
        read: &[ReadObject<'a>],
        objects: &[Object],
        recounts: bool,
    ) -> Result<(), StoreError> {
        let counted = protocol::count(self.store, objects, recounts).await?;
        for (read, object) in read.iter().zip(objects) {
            read.log(object, &counted, objects.len());
        }
        Ok(())
    }
}

impl ReadObject<'_> {
    fn name(&self) -> String {
        format!("{}/{}", self.notified.bucket, self.notified.key)
    }

    fn failed(&self, error: &StoreError) -> Failed {
        (self.notified.clone(), Error::Count { object: self.name(), why: error.to_string() })
    }

    /// Logs a counted object.
    fn log(&self, to_count: &Object, counted: &Counted, objects_together: usize) {
        let (object, stats) = (self.notified, &self.stats);
        if let Some(first) = counted.duplicates.get(&to_count.record.object) {
            info!(bucket = object.bucket, key = object.key, duplicate_of = first, "{}", log_message::DUPLICATE);
            return;
        }
        info!(
            bucket = object.bucket,
            key = object.key,
            events = stats.events,
            pairs = to_count.totals.len(),
            lines = stats.lines,
            skipped = stats.skipped(),
            skipped_by_reason = stats.reasons(),
            first_skipped = stats.examples(),
            fields_skipped = stats.fields(),
            values_limited = stats.limited(),
            other_types = stats.types(),
            other_times = stats.other_times(),
            beyond_limits = stats.beyond_limits,
            overflowed = stats.overflowed,
            bytes = stats.bytes,
            objects_together,
            transactions = counted.transactions,
            milliseconds = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "{}",
            if self.is_test { log_message::COUNTED_TEST } else { log_message::COUNTED }
        );
        let name = self.name();
        if stats.overflowed > 0 {
            let why = format!("object {name}: {} messages are counted as `{}`", stats.overflowed, rollup::OVERFLOW);
            warn!(error = "PairsOverflowed", why, "{}", log_message::OVERFLOWED);
        }
        if !stats.values_limited.is_empty() {
            let other = names::breakdowns::OTHER;
            let why = format!("object {name}: messages beyond rollup.by_limit count as `{other}`: {}", stats.limited());
            warn!(error = "ValuesLimited", why, "{}", log_message::LIMITED);
        }
        if let Some(summary) = stats.skip_summary() {
            warn!(error = "LinesSkipped", why = format!("object {name}: {summary}"), "{}", log_message::SKIPPED);
        }
    }
}
