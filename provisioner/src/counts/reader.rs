//! Reads the counts table and the daily table.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use counting::names::counts::{BY_HOUR, COUNT, EVENT, HOUR, sum_of, values_of};
use counting::names::daily;
use counting::rollup::{OVERFLOW, name_in_table};
use jiff::{Timestamp, ToSpan};
use tokio::task::JoinSet;

use super::period::{Period, Span};
use super::quantity::Quantity;
use crate::aws::{Aws, AwsError, Call};
use crate::config::Pipeline;
use crate::error::Error;
use crate::text::printable;

/// The maximum number of concurrent calls.
pub(crate) const AT_ONCE: usize = 16;
/// The number of UTC days, with today, from which the names of recent events are read.
pub(crate) const RECENT_DAYS: i64 = 30;
/// The maximum number of suggestions for an unknown event.
const SUGGESTIONS: usize = 3;
/// The minimum Jaro-Winkler similarity of a suggestion.
const MIN_SIMILARITY: f64 = 0.7;

/// The numbers that are read of the items.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) enum Measure {
    /// The counts.
    #[default]
    Count,
    /// The sums of the field at this path.
    Sum(String),
    /// The averages of the field at this path, over the messages that have it.
    Average(String),
}

/// The numbers of a period.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// The number of each part, including zeros.
    pub(crate) parts: Vec<Quantity>,
    /// The number of the whole period.
    pub(crate) total: Quantity,
}

impl Numbers {
    /// Creates the counts or sums of these parts.
    pub(crate) fn of(parts: Vec<Quantity>) -> Self {
        let total = parts.iter().copied().sum();
        Self { parts, total }
    }
}

/// The numbers of one event, or of one value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Series {
    pub(crate) event: String,
    pub(crate) numbers: Numbers,
    /// The same for the previous period, if requested. The number of parts may differ.
    pub(crate) before: Option<Numbers>,
}

/// The most frequent events, or values of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Top {
    /// Sorted by descending count, then by name.
    pub(crate) events: Vec<Ranked>,
    /// The number of distinct events.
    pub(crate) distinct: usize,
    /// The total of all events.
    pub(crate) total: Quantity,
    /// The total in the previous period.
    pub(crate) total_before: Quantity,
}

/// An event or value among the most frequent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ranked {
    pub(crate) event: String,
    /// Its count or sum in the period.
    pub(crate) number: Quantity,
    /// The same in the previous period.
    pub(crate) before: Quantity,
}

type Item = HashMap<String, AttributeValue>;

fn sum(counts: impl Iterator<Item = i64>) -> i64 {
    counts.fold(0, i64::saturating_add)
}

/// Returns an estimate of the memory that an event's count uses, in bytes.
pub(crate) fn memory(event: &str) -> usize {
    event.len() + 32
}

/// Keeps the most frequent events, within `most` bytes, and adds the counts of the others to `others`. Returns the bytes
/// of those that are kept.
fn keep_most_frequent(counts: &mut Vec<(String, Quantity)>, most: usize, others: &mut Option<Quantity>) -> usize {
    counts.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let (mut bytes, mut kept) = (0, 0);
    for (event, _) in counts.iter() {
        if bytes + memory(event) > most {
            break;
        }
        bytes += memory(event);
        kept += 1;
    }
    let sum = counts.drain(kept..).map(|(_, count)| count).sum();
    *others = Some(others.unwrap_or_default().plus(sum));
    bytes
}

/// Adds an event to a list of names, each of them once and as it is in the counts table: a long name is counted under
/// its short form.
pub(crate) fn add_event(names: &mut Vec<String>, event: &str) {
    let event = name_in_table(event);
    if !names.iter().any(|name| **name == *event) {
        names.push(event.into_owned());
    }
}

/// Returns the names that are most similar to an unknown one, best first.
pub(crate) fn similar<'a>(names: impl Iterator<Item = &'a str>, unknown: &str) -> Vec<&'a str> {
    let unknown = unknown.to_lowercase();
    let mut near: Vec<(f64, &str)> = names
        .map(|name| (strsim::jaro_winkler(&name.to_lowercase(), &unknown), name))
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    near.into_iter().take(SUGGESTIONS).map(|(_, name)| name).collect()
}

/// Names of counted events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// The names, sorted.
    pub(crate) names: BTreeSet<String>,
    /// The selection from all names.
    pub(crate) which: Which,
}

/// The selection of a list from all names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those of the last [`RECENT_DAYS`] days.
    #[default]
    Recent,
    /// The first ones found, since there are no recent ones.
    Some,
    /// All of them.
    All,
}

/// The numbers of partitions of the tables that have been read, and that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Returns the numbers of partitions read and asked for.
    pub(crate) fn now(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}

/// A reader of a pipeline's counts.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(super) dynamodb: Client,
    /// The counts table's name.
    table: Arc<str>,
    /// The daily table's name.
    daily: Arc<str>,
    /// The breakdowns table's name.
    pub(super) breakdowns: Arc<str>,
    pub(super) is_consistent: bool,
    progress: Arc<Progress>,
}

impl Reader {
    /// Creates a reader of a pipeline's tables.
    pub(crate) fn new(aws: &Aws, pipeline: &Pipeline) -> Self {
        Self {
            dynamodb: aws.dynamodb.clone(),
            table: Arc::from(&*pipeline.table.counts),
            daily: Arc::from(&*pipeline.table.daily),
            breakdowns: Arc::from(&*pipeline.table.breakdowns),
            is_consistent: false,
            progress: Arc::default(),
        }
    }

    /// Reads the counts of single events strongly consistently, at twice the price. The index does not support it.
    pub(crate) fn consistent(self, is_consistent: bool) -> Self {
        Self { is_consistent, ..self }
    }

    /// Returns the progress of all readings of this reader.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Reads several partitions, [`AT_ONCE`] at a time and on all cores, and passes each result to `take`, in the order
    /// in which they end. All readings end when this one does.
    pub(crate) async fn each_of<T: Send + 'static>(
        &self,
        readings: impl ExactSizeIterator<Item = impl Future<Output = Result<T, Error>> + Send + 'static>,
        mut take: impl FnMut(T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.progress.total.fetch_add(readings.len() as u64, Ordering::Relaxed);
        let (mut readings, mut running) = (readings, JoinSet::new());
        loop {
            for reading in readings.by_ref().take(AT_ONCE - running.len()) {
                running.spawn(reading);
            }
            let Some(ended) = running.join_next().await else { return Ok(()) };
            take(ended.map_err(|error| Error::internal("read a table", &error))??)?;
            self.progress.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the numbers of events in each part of the period, and of the previous period if given.
    ///
    /// # Errors
    /// An AWS error; the table does not exist; an event was never counted (with similar names as suggestions).
    pub(crate) async fn series(
        &self,
        events: &[String],
        period: &Period,
        before: Option<&Period>,
        measure: &Measure,
    ) -> Result<Vec<Series>, Error> {
        let readings = events.iter().enumerate().map(|(n, event)| {
            let (reader, event, period, before) = (self.clone(), event.clone(), period.clone(), before.cloned());
            let measure = measure.clone();
            async move {
                let earlier = async {
                    match &before {
                        Some(before) => reader.event(&event, before, &measure).await.map(Some),
                        None => Ok(None),
                    }
                };
                let (numbers, before) = tokio::try_join!(reader.event(&event, &period, &measure), earlier)?;
                Ok((n, Series { event, numbers, before }))
            }
        });
        let mut all = Vec::with_capacity(events.len());
        self.each_of(readings, |one| {
            all.push(one);
            Ok(())
        })
        .await?;
        all.sort_unstable_by_key(|(n, _)| *n);
        let all: Vec<Series> = all.into_iter().map(|(_, series)| series).collect();
        // An event without counts may be misspelled.
        let is_empty = |numbers: &Numbers| numbers.parts.iter().all(|number| number.is_zero());
        let empty = all.iter().filter(|series| is_empty(&series.numbers));
        for series in empty.filter(|series| series.before.as_ref().is_none_or(is_empty)) {
            self.ensure_known(&series.event).await?;
        }
        Ok(all)
    }

    /// Returns the numbers of one event in each part of the period.
    async fn event(&self, event: &str, period: &Period, measure: &Measure) -> Result<Numbers, Error> {
        let request = self
            .dynamodb
            .query()
            .table_name(&*self.table)
            .consistent_read(self.is_consistent)
            .key_condition_expression("#event = :event AND #hour BETWEEN :from AND :last")
            .expression_attribute_names("#event", EVENT)
            .expression_attribute_names("#hour", HOUR)
            .expression_attribute_values(":event", AttributeValue::S(event.to_owned()))
            .expression_attribute_values(":from", AttributeValue::S(period.first_hour()))
            .expression_attribute_values(":last", AttributeValue::S(period.last_hour()));
        let items = request.into_paginator().items().send().collect::<Result<Vec<Item>, _>>().await;
        let items = items.call("dynamodb:Query").map_err(|error| self.failed(&error))?;
        let mut parts = vec![Quantity::default(); period.len()];
        let mut values = vec![0_i64; period.len()];
        for item in &items {
            let hour: Option<Timestamp> = text(&self.table, item, HOUR)?.parse().ok();
            let Some(part) = hour.and_then(|hour| period.part_of(hour)) else { continue };
            let Some(more) = quantity(&self.table, item, measure)? else { continue };
            if let (Some(part), Some(values)) = (parts.get_mut(part), values.get_mut(part)) {
                *part = part.plus(more);
                *values = values.saturating_add(number_of_values(item, measure));
            }
        }
        let numbers = Numbers::of(parts);
        if !matches!(measure, Measure::Average(_)) {
            return Ok(numbers);
        }
        let total = numbers.total.over(sum(values.iter().copied()));
        let parts = numbers.parts.into_iter().zip(values).map(|(part, values)| part.over(values)).collect();
        Ok(Numbers { parts, total })
    }

    /// Fails if an event was never counted.
    pub(super) async fn ensure_known(&self, event: &str) -> Result<(), Error> {
        let request = self
            .dynamodb
            .query()
            .table_name(&*self.table)
            .key_condition_expression("#event = :event")
            .expression_attribute_names("#event", EVENT)
            .expression_attribute_values(":event", AttributeValue::S(event.to_owned()))
            .limit(1);
        let any = request.send().await.call("dynamodb:Query").map_err(|error| self.failed(&error))?;
        if !any.items().is_empty() {
            return Ok(());
        }
        let known = self.names(false).await?;
        let near = similar(known.names.iter().map(String::as_str), event);
        let near: Vec<String> = near.iter().map(|name| format!("`{}`", printable(name))).collect();
        let help = match near.is_empty() {
            true => "run `provisioner events --all` to list all names".to_owned(),
            false => format!("did you mean {}? `provisioner events --all` lists all names", near.join(" or ")),
        };
        Err(Error::not_found(format!("event `{}` was never counted", printable(event)), help))
    }

    /// Returns the names of the events of the last [`RECENT_DAYS`] days, or of all events that were ever counted. If there
    /// are no recent ones, the first page of the daily table has some: at most 1 MB.
    ///
    /// # Errors
    /// An AWS error; the table does not exist.
    pub(crate) async fn names(&self, is_all: bool) -> Result<Names, Error> {
        /// Segments of the table that are scanned concurrently.
        const SEGMENTS: i32 = 4;
        if is_all {
            return Ok(Names { names: self.scan(SEGMENTS, usize::MAX).await?, which: Which::All });
        }
        let today = Timestamp::now();
        let mut names = BTreeSet::new();
        let days = (0..RECENT_DAYS).filter_map(|n| today.checked_sub((24 * n).hours()).ok());
        let days: Vec<Span> = days.map(|start| Span { start, is_day: true }).collect();
        let readings = days.into_iter().map(|day| {
            let reader = self.clone();
            async move { reader.quantities_in(day, &Measure::Count).await }
        });
        self.each_of(readings, |counts| {
            names.extend(counts.into_iter().map(|(event, _)| event));
            Ok(())
        })
        .await?;
        if names.is_empty() {
            return Ok(Names { names: self.scan(1, 1).await?, which: Which::Some });
        }
        Ok(Names { names, which: Which::Recent })
    }

    /// Returns the names in the first pages of each segment of the daily table.
    async fn scan(&self, segments: i32, pages: usize) -> Result<BTreeSet<String>, Error> {
        let readings: Vec<_> = (0..segments).map(|segment| self.clone().segment(segment, segments, pages)).collect();
        let mut all = BTreeSet::new();
        self.each_of(readings.into_iter(), |names| {
            all.extend(names);
            Ok(())
        })
        .await?;
        Ok(all)
    }

    /// Returns the names in the first pages of a segment of the daily table.
    async fn segment(self, segment: i32, segments: i32, most: usize) -> Result<BTreeSet<String>, Error> {
        let request = self
            .dynamodb
            .scan()
            .table_name(&*self.daily)
            .projection_expression("#event")
            .expression_attribute_names("#event", EVENT)
            .segment(segment)
            .total_segments(segments);
        let mut pages = request.into_paginator().send();
        let mut names = BTreeSet::new();
        for _ in 0..most {
            let Some(page) = pages.next().await else { break };
            let page = page.call("dynamodb:Scan").map_err(|error| failed(&self.daily, &error))?;
            for item in page.items() {
                names.insert(text(&self.daily, item, EVENT)?);
            }
            for counter in [&self.progress.done, &self.progress.total] {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(names)
    }

    /// Returns the `limit` most frequent events, or those with the largest sums, with their numbers in the previous period.
    ///
    /// # Errors
    /// An AWS error; the table does not exist.
    pub(crate) async fn top(
        &self,
        period: &Period,
        before: &Period,
        limit: usize,
        measure: &Measure,
    ) -> Result<Top, Error> {
        let (mut current, mut earlier) = (HashMap::<String, Quantity>::new(), HashMap::<String, Quantity>::new());
        let spans: Vec<_> =
            before.spans().map(|span| (false, span)).chain(period.spans().map(|span| (true, span))).collect();
        let readings = spans.into_iter().map(|(is_current, span)| {
            let (reader, measure) = (self.clone(), measure.clone());
            async move { Ok((is_current, reader.quantities_in(span, &measure).await?)) }
        });
        self.each_of(readings, |(is_current, numbers)| {
            let sums = if is_current { &mut current } else { &mut earlier };
            for (event, number) in numbers {
                let sum = sums.entry(event).or_default();
                *sum = sum.plus(number);
            }
            Ok(())
        })
        .await?;
        let (distinct, total) = (current.len(), current.values().copied().sum());
        let total_before = earlier.values().copied().sum();
        let mut events: Vec<Ranked> = current
            .into_iter()
            .map(|(event, number)| Ranked { before: earlier.get(&event).copied().unwrap_or_default(), event, number })
            .collect();
        events.sort_unstable_by(|a, b| b.number.cmp(&a.number).then_with(|| a.event.cmp(&b.event)));
        events.truncate(limit);
        Ok(Top { events, distinct, total, total_before })
    }

    /// Returns the numbers of the events with the largest ones in an hour or day, and whether there are others, which are
    /// taken together as [`OVERFLOW`]. The events use at most `most` bytes of [`memory`].
    ///
    /// # Errors
    /// An AWS error; the table does not exist.
    pub(crate) async fn most_frequent(
        &self,
        span: Span,
        measure: &Measure,
        most: usize,
    ) -> Result<(Vec<(String, Quantity)>, bool), Error> {
        let (mut bytes, mut others) = (0, None);
        let mut counts = self
            .each(span, measure, |counts| {
                bytes += counts.last().map_or(0, |(event, _)| memory(event));
                if bytes > 2 * most {
                    bytes = keep_most_frequent(counts, most, &mut others);
                }
            })
            .await?;
        if bytes > most {
            keep_most_frequent(&mut counts, most, &mut others);
        }
        let is_cut = others.is_some();
        if let Some(others) = others {
            match counts.iter_mut().find(|(event, _)| event == OVERFLOW) {
                Some((_, count)) => *count = count.plus(others),
                None => counts.push((OVERFLOW.to_owned(), others)),
            }
        }
        Ok((counts, is_cut))
    }

    /// Returns the number of each event in an hour or day.
    async fn quantities_in(&self, span: Span, measure: &Measure) -> Result<Vec<(String, Quantity)>, Error> {
        self.each(span, measure, |_| ()).await
    }

    /// Returns the number of each event in an hour or day. After each, `each` may remove some.
    async fn each(
        &self,
        span: Span,
        measure: &Measure,
        mut each: impl FnMut(&mut Vec<(String, Quantity)>),
    ) -> Result<Vec<(String, Quantity)>, Error> {
        let (table, index, key) = match span.is_day {
            true => (&*self.daily, None, daily::DAY),
            false => (&*self.table, Some(BY_HOUR.to_owned()), HOUR),
        };
        let request = self
            .dynamodb
            .query()
            .table_name(table)
            .set_index_name(index)
            .key_condition_expression("#key = :key")
            .expression_attribute_names("#key", key)
            .expression_attribute_values(":key", AttributeValue::S(span.key()));
        let mut items = request.into_paginator().items().send();
        let mut counts = Vec::new();
        while let Some(item) = items.next().await {
            let item = item.call("dynamodb:Query").map_err(|error| failed(table, &error))?;
            if let Some(number) = quantity(table, &item, measure)? {
                counts.push((text(table, &item, EVENT)?, number));
                each(&mut counts);
            }
        }
        Ok(counts)
    }

    fn failed(&self, error: &AwsError) -> Error {
        failed(&self.table, error)
    }
}

/// Returns a text attribute of an item.
pub(super) fn text(table: &str, item: &Item, attribute: &'static str) -> Result<String, Error> {
    let found = item.get(attribute).and_then(|value| value.as_s().ok());
    found.cloned().ok_or_else(|| Error::incomplete_answer(format!("read table {table}"), attribute))
}

/// Returns the count of an item, unless it is zero, as a recount may leave it.
pub(super) fn number(table: &str, item: &Item) -> Result<Option<i64>, Error> {
    let found = item.get(COUNT).and_then(|value| value.as_n().ok()).and_then(|digits| digits.parse().ok());
    let count = found.ok_or_else(|| Error::incomplete_answer(format!("read table {table}"), COUNT))?;
    Ok(Some(count).filter(|count| *count != 0))
}

/// Returns the number of an item; `None` if it has no sum of the field, or a count of zero.
pub(super) fn quantity(table: &str, item: &Item, measure: &Measure) -> Result<Option<Quantity>, Error> {
    let field = match measure {
        Measure::Count => return Ok(number(table, item)?.map(Quantity::from)),
        Measure::Sum(field) | Measure::Average(field) => field,
    };
    let Some(digits) = item.get(&sum_of(field)).and_then(|value| value.as_n().ok()) else { return Ok(None) };
    let sum = Quantity::parse(digits);
    sum.map(Some).ok_or_else(|| Error::incomplete_answer(format!("read table {table}"), "decimal sum"))
}

/// Returns the number of messages whose values an item sums.
pub(super) fn number_of_values(item: &Item, measure: &Measure) -> i64 {
    let Measure::Average(field) = measure else { return 0 };
    let values = item.get(&values_of(field)).and_then(|value| value.as_n().ok());
    values.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Returns the error of a call that reads a table.
pub(super) fn failed(table: &str, error: &AwsError) -> Error {
    if error.code() == Some("ResourceNotFoundException") || error.is_missing_index() {
        return Error::not_found(
            format!("the table {table} or its index does not exist"),
            "run `provisioner apply` first, or check --config, --env and the credentials",
        );
    }
    error.while_doing(format!("read table {table}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_frequent_events_are_counted_together() {
        let mut counts: Vec<(String, Quantity)> = (0..100).map(|n| (format!("event {n:02}"), n.into())).collect();
        let mut others = None;
        let bytes = keep_most_frequent(&mut counts, 10 * memory("event 00"), &mut others);
        assert_eq!((bytes, counts.len()), (10 * memory("event 00"), 10));
        assert_eq!(counts[0], ("event 99".to_owned(), 99.into()));
        assert_eq!(others, Some((0..90).sum::<i64>().into()));
    }
}
