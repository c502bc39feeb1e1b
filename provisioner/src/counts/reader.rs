//! Reads the counts table and the daily table.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::AttributeValue;
use counting::names::counts::{BY_HOUR, COUNT, EVENT, HOUR};
use counting::names::daily;
use counting::rollup::{OVERFLOW, name_in_table};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::period::{Period, Span};
use crate::aws::{Aws, AwsError, Call};
use crate::error::Error;
use crate::text::printable;

/// The maximum number of concurrent calls.
pub(crate) const AT_ONCE: usize = 16;
/// The maximum number of suggestions for an unknown event.
const SUGGESTIONS: usize = 3;
/// The minimum Jaro-Winkler similarity of a suggestion.
const MIN_SIMILARITY: f64 = 0.7;

/// The counts of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Series {
    pub(crate) event: String,
    /// The count in each part of the period, including zeros.
    pub(crate) parts: Vec<i64>,
    /// The same for the previous period, if requested. The number of parts may differ.
    pub(crate) before: Option<Vec<i64>>,
}

impl Series {
    /// Returns the sum of all parts.
    pub(crate) fn total(&self) -> i64 {
        sum(self.parts.iter().copied())
    }

    /// Returns the sum of all parts of the previous period, if requested.
    pub(crate) fn total_before(&self) -> Option<i64> {
        self.before.as_ref().map(|parts| sum(parts.iter().copied()))
    }
}

/// The most frequent events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Top {
    /// Sorted by descending count, then by name.
    pub(crate) events: Vec<Ranked>,
    /// The number of distinct events.
    pub(crate) distinct: usize,
    /// The total count of all events.
    pub(crate) total: i64,
    /// The total count in the previous period.
    pub(crate) total_before: i64,
}

/// An event among the most frequent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ranked {
    pub(crate) event: String,
    /// Its count in the period.
    pub(crate) count: i64,
    /// Its count in the previous period.
    pub(crate) before: i64,
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
fn keep_most_frequent(counts: &mut Vec<(String, i64)>, most: usize, others: &mut Option<i64>) -> usize {
    counts.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let (mut bytes, mut kept) = (0, 0);
    for (event, _) in counts.iter() {
        if bytes + memory(event) > most {
            break;
        }
        bytes += memory(event);
        kept += 1;
    }
    let sum = sum(counts.drain(kept..).map(|(_, count)| count));
    *others = Some(others.unwrap_or(0).saturating_add(sum));
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

/// A reader of a pipeline's counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) aws: &'a Aws,
    /// The counts table's name.
    pub(crate) table: &'a str,
    /// The daily table's name.
    pub(crate) daily: &'a str,
    /// True for strongly consistent reads, at twice the price. The index does not support them.
    pub(crate) is_consistent: bool,
}

impl Reader<'_> {
    /// Returns the counts of events in each part of the period, and of the previous period if given.
    ///
    /// # Errors
    /// An AWS error; the table does not exist; an event was never counted (with similar names as suggestions).
    pub(crate) async fn series(
        &self,
        events: &[String],
        period: &Period,
        before: Option<&Period>,
    ) -> Result<Vec<Series>, Error> {
        let read = |event: String| async move {
            let parts = self.event(&event, period);
            let earlier = async {
                match before {
                    Some(before) => self.event(&event, before).await.map(Some),
                    None => Ok(None),
                }
            };
            let (parts, before) = tokio::try_join!(parts, earlier)?;
            Ok::<_, Error>(Series { event, parts, before })
        };
        let all: Vec<Series> = stream::iter(events.to_vec()).map(read).buffered(AT_ONCE).try_collect().await?;
        // An event without counts may be misspelled.
        let empty = all.iter().filter(|series| series.parts.iter().all(|count| *count == 0));
        for series in empty.filter(|series| series.total_before().unwrap_or(0) == 0) {
            self.ensure_known(&series.event).await?;
        }
        Ok(all)
    }

    /// Returns the counts of one event in each part of the period.
    async fn event(&self, event: &str, period: &Period) -> Result<Vec<i64>, Error> {
        let request = self
            .aws
            .dynamodb
            .query()
            .table_name(self.table)
            .consistent_read(self.is_consistent)
            .key_condition_expression("#event = :event AND #hour BETWEEN :from AND :last")
            .expression_attribute_names("#event", EVENT)
            .expression_attribute_names("#hour", HOUR)
            .expression_attribute_values(":event", AttributeValue::S(event.to_owned()))
            .expression_attribute_values(":from", AttributeValue::S(period.first_hour()))
            .expression_attribute_values(":last", AttributeValue::S(period.last_hour()));
        let items = request.into_paginator().items().send().collect::<Result<Vec<Item>, _>>().await;
        let items = items.call("dynamodb:Query").map_err(|error| self.failed(&error))?;
        let mut parts = vec![0_i64; period.len()];
        for item in &items {
            let count = self.number(item)?;
            if let Some(part) = period.part_of(&self.text(item, HOUR)?).and_then(|part| parts.get_mut(part)) {
                *part = part.saturating_add(count);
            }
        }
        Ok(parts)
    }

    /// Fails if an event was never counted.
    async fn ensure_known(&self, event: &str) -> Result<(), Error> {
        let request = self
            .aws
            .dynamodb
            .query()
            .table_name(self.table)
            .key_condition_expression("#event = :event")
            .expression_attribute_names("#event", EVENT)
            .expression_attribute_values(":event", AttributeValue::S(event.to_owned()))
            .limit(1);
        let any = request.send().await.call("dynamodb:Query").map_err(|error| self.failed(&error))?;
        if !any.items().is_empty() {
            return Ok(());
        }
        let known = self.events().await?;
        let near = similar(known.iter().map(String::as_str), event);
        let near: Vec<String> = near.iter().map(|name| format!("`{}`", printable(name))).collect();
        let help = match near.is_empty() {
            true => "run `provisioner events` to list all names".to_owned(),
            false => format!("did you mean {}? `provisioner events` lists all names", near.join(" or ")),
        };
        Err(Error::not_found(format!("event `{}` was never counted", printable(event)), help))
    }

    /// Returns the sorted names of all events that were ever counted.
    ///
    /// # Errors
    /// An AWS error; the table does not exist.
    pub(crate) async fn events(&self) -> Result<BTreeSet<String>, Error> {
        /// Segments of the table that are scanned concurrently.
        const SEGMENTS: i32 = 4;
        let segment = |segment: i32| async move {
            let request = self
                .aws
                .dynamodb
                .scan()
                .table_name(self.table)
                .consistent_read(self.is_consistent)
                .projection_expression("#event")
                .expression_attribute_names("#event", EVENT)
                .segment(segment)
                .total_segments(SEGMENTS);
            let mut pages = request.into_paginator().send();
            let mut names = BTreeSet::new();
            while let Some(page) = pages.next().await {
                let page = page.call("dynamodb:Scan").map_err(|error| self.failed(&error))?;
                for item in page.items() {
                    names.insert(self.text(item, EVENT)?);
                }
            }
            Ok::<_, Error>(names)
        };
        stream::iter(0..SEGMENTS)
            .map(segment)
            .buffer_unordered(AT_ONCE)
            .try_fold(BTreeSet::new(), |mut all, names| async move {
                all.extend(names);
                Ok(all)
            })
            .await
    }

    /// Returns the `limit` most frequent events, with their counts in the previous period.
    ///
    /// # Errors
    /// An AWS error; the table does not exist.
    pub(crate) async fn top(&self, period: &Period, before: &Period, limit: usize) -> Result<Top, Error> {
        let (current, earlier) = tokio::try_join!(self.sums(period), self.sums(before))?;
        let (distinct, total) = (current.len(), sum(current.values().copied()));
        let total_before = sum(earlier.values().copied());
        let mut events: Vec<Ranked> = current
            .into_iter()
            .map(|(event, count)| Ranked { before: earlier.get(&event).copied().unwrap_or(0), event, count })
            .collect();
        events.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| a.event.cmp(&b.event)));
        events.truncate(limit);
        Ok(Top { events, distinct, total, total_before })
    }

    /// Returns the total of each event in the period.
    async fn sums(&self, period: &Period) -> Result<HashMap<String, i64>, Error> {
        let read = |span| async move {
            match span {
                Span::Day(day) => self.day(&day).await,
                Span::Hour(hour) => self.each_in_hour(&hour, |_| ()).await,
            }
        };
        stream::iter(period.days_and_hours())
            .map(read)
            .buffer_unordered(AT_ONCE)
            .try_fold(HashMap::<String, i64>::new(), |mut sums, counts| async move {
                for (event, count) in counts {
                    let sum = sums.entry(event).or_default();
                    *sum = sum.saturating_add(count);
                }
                Ok(sums)
            })
            .await
    }

    /// Returns the counts of the most frequent events in one hour, formatted as in the counts table, and whether there
    /// are others, which are counted together as [`OVERFLOW`]. The events use at most `most` bytes of [`memory`].
    ///
    /// # Errors
    /// An AWS error; the table does not exist.
    pub(crate) async fn most_frequent(&self, hour: &str, most: usize) -> Result<(Vec<(String, i64)>, bool), Error> {
        let (mut bytes, mut others) = (0, None);
        let mut counts = self
            .each_in_hour(hour, |counts: &mut Vec<(String, i64)>| {
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
                Some((_, count)) => *count = count.saturating_add(others),
                None => counts.push((OVERFLOW.to_owned(), others)),
            }
        }
        Ok((counts, is_cut))
    }

    /// Returns the count of each event on one UTC day.
    async fn day(&self, day: &str) -> Result<Vec<(String, i64)>, Error> {
        let request = self.aws.dynamodb.query().table_name(self.daily);
        self.each(self.daily, request, (daily::DAY, day), |_| ()).await
    }

    /// Returns the count of each event in one hour. After each, `each` may remove some.
    async fn each_in_hour(
        &self,
        hour: &str,
        each: impl FnMut(&mut Vec<(String, i64)>),
    ) -> Result<Vec<(String, i64)>, Error> {
        let request = self.aws.dynamodb.query().table_name(self.table).index_name(BY_HOUR);
        self.each(self.table, request, (HOUR, hour), each).await
    }

    /// Returns the count of each event in one partition of a table or index. After each, `each` may remove some.
    async fn each(
        &self,
        table: &str,
        request: QueryFluentBuilder,
        (attribute, value): (&str, &str),
        mut each: impl FnMut(&mut Vec<(String, i64)>),
    ) -> Result<Vec<(String, i64)>, Error> {
        let request = request
            .key_condition_expression("#key = :key")
            .expression_attribute_names("#key", attribute)
            .expression_attribute_values(":key", AttributeValue::S(value.to_owned()));
        let mut items = request.into_paginator().items().send();
        let mut counts = Vec::new();
        while let Some(item) = items.next().await {
            let item = item.call("dynamodb:Query").map_err(|error| failed(table, &error))?;
            counts.push((self.text(&item, EVENT)?, self.number(&item)?));
            each(&mut counts);
        }
        Ok(counts)
    }

    fn failed(&self, error: &AwsError) -> Error {
        failed(self.table, error)
    }

    fn text(&self, item: &Item, attribute: &'static str) -> Result<String, Error> {
        let found = item.get(attribute).and_then(|value| value.as_s().ok());
        found.cloned().ok_or_else(|| Error::incomplete_answer(format!("read table {}", self.table), attribute))
    }

    fn number(&self, item: &Item) -> Result<i64, Error> {
        let found = item.get(COUNT).and_then(|value| value.as_n().ok()).and_then(|digits| digits.parse().ok());
        found.ok_or_else(|| Error::incomplete_answer(format!("read table {}", self.table), COUNT))
    }
}

/// Returns the error of a call that reads a table.
fn failed(table: &str, error: &AwsError) -> Error {
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
        let mut counts: Vec<(String, i64)> = (0..100).map(|n| (format!("event {n:02}"), n)).collect();
        let mut others = None;
        let bytes = keep_most_frequent(&mut counts, 10 * memory("event 00"), &mut others);
        assert_eq!((bytes, counts.len()), (10 * memory("event 00"), 10));
        assert_eq!(counts[0], ("event 99".to_owned(), 99));
        assert_eq!(others, Some((0..90).sum()));
    }
}
