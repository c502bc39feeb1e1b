//! Reads the breakdowns table: the numbers of one event, by the values of a field.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodb::types::AttributeValue;
use counting::names::breakdowns::{self, BREAKDOWN, HOUR_VALUE, SEPARATOR};
use counting::rollup::name_in_table;
use jiff::Timestamp;

use super::period::Period;
use super::quantity::Quantity;
use super::reader::{Measure, Numbers, Ranked, Reader, Series, Top, failed, number, number_of_values, quantity, text};
use crate::aws::{AwsError, Call};
use crate::error::Error;
use crate::text::{counted, grouped, printable};

/// The hours that one reading reads, at least: a week, whose items are few answers.
const HOURS_A_READING: i64 = 7 * 24;
/// The maximum number of readings of a period, about.
const MOST_READINGS: i64 = 128;
/// The maximum number of different values in a period: 100 MB if all of them are as long as they can be.
const MOST_VALUES: usize = 100_000;
/// The maximum number of values times the parts in which they occur.
const MOST_CELLS: usize = 2_000_000;
/// The character after [`SEPARATOR`]: an hour with it is behind all values of the hour.
const BEHIND: char = '$';

/// An event, divided by the values of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Breakdown {
    /// The event's name, as it is in the tables.
    pub(crate) event: String,
    /// The path of the field.
    pub(crate) path: String,
    /// True if the path is in `rollup.by`.
    pub(crate) is_declared: bool,
}

impl Breakdown {
    /// Creates the breakdown of an event by a field; `declared` are the paths of `rollup.by`.
    ///
    /// # Errors
    /// The path is none that `rollup.by` accepts.
    pub(crate) fn new(event: &str, path: &str, declared: &[String]) -> Result<Self, Error> {
        // Such a path could be that of another event's breakdown.
        if path.is_empty() || path.contains(SEPARATOR) {
            let message = format!("`{}` is not the path of a field", printable(path));
            return Err(Error::usage(message, "write keys with dots between them, such as properties.plan"));
        }
        let is_declared = declared.iter().any(|declared| declared == path);
        Ok(Self { event: name_in_table(event).into_owned(), path: path.to_owned(), is_declared })
    }
}

/// The sum of several items of a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sums {
    /// The count or the sum.
    number: Quantity,
    /// The number of messages whose values are summed, if that is needed.
    values: i64,
}

impl Sums {
    fn plus(self, other: Self) -> Self {
        Self { number: self.number.plus(other.number), values: self.values.saturating_add(other.values) }
    }

    fn of(self, measure: &Measure) -> Quantity {
        match measure {
            Measure::Average(_) => self.number.over(self.values),
            Measure::Count | Measure::Sum(_) => self.number,
        }
    }
}

/// The sums of a value, by part; parts without the value are absent.
type Parts = BTreeMap<usize, Sums>;

fn total(parts: &Parts, measure: &Measure) -> Quantity {
    parts.values().copied().fold(Sums::default(), Sums::plus).of(measure)
}

/// The values that were read so far.
#[derive(Debug, Default)]
struct Tally {
    values: HashMap<String, Parts>,
    /// The number of sums in `values`.
    cells: usize,
}

impl Tally {
    /// Adds an item.
    ///
    /// # Errors
    /// There are more values than memory should hold.
    fn add(&mut self, value: &str, part: usize, sums: Sums) -> Result<(), Error> {
        let parts = match self.values.get_mut(value) {
            Some(parts) => parts,
            None => {
                if self.values.len() >= MOST_VALUES {
                    let most = i64::try_from(MOST_VALUES).unwrap_or(i64::MAX);
                    let message = format!("the field has more than {} different values in the period", grouped(most));
                    return Err(Error::usage(message, "choose a shorter period, or a field with fewer values"));
                }
                self.values.entry(value.to_owned()).or_default()
            }
        };
        let before = parts.len();
        let all = parts.entry(part).or_default();
        *all = all.plus(sums);
        self.cells += parts.len() - before;
        if self.cells > MOST_CELLS { Err(too_many_parts()) } else { Ok(()) }
    }

    /// Returns the values with the largest numbers, largest first, then by name. The others follow as one value.
    fn largest(self, limit: usize, measure: &Measure) -> Vec<(String, Parts)> {
        let totals = self.values.into_iter().map(|(value, parts)| (total(&parts, measure), value, parts));
        let mut all: Vec<(Quantity, String, Parts)> = totals.collect();
        all.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let others = all.split_off(limit.min(all.len()));
        let mut largest: Vec<(String, Parts)> = all.into_iter().map(|(_, value, parts)| (value, parts)).collect();
        if !others.is_empty() {
            let name = format!("({})", counted(others.len() as u64, "more value"));
            let mut merged = Parts::new();
            for (part, sums) in others.into_iter().flat_map(|(_, _, parts)| parts) {
                let all = merged.entry(part).or_default();
                *all = all.plus(sums);
            }
            largest.push((name, merged));
        }
        largest
    }

    /// Returns the numbers of these values in each of `length` parts.
    ///
    /// # Errors
    /// They are more than memory should hold.
    fn series(self, length: usize, limit: usize, measure: &Measure) -> Result<Vec<Series>, Error> {
        if limit.min(self.values.len()).saturating_mul(length) > MOST_CELLS {
            return Err(too_many_parts());
        }
        let series = |(value, parts): (String, Parts)| {
            let part = |part: usize| parts.get(&part).copied().unwrap_or_default().of(measure);
            let numbers = Numbers { parts: (0..length).map(part).collect(), total: total(&parts, measure) };
            Series { event: value, numbers, before: None }
        };
        Ok(self.largest(limit, measure).into_iter().map(series).collect())
    }

    /// Ranks the values, compared with those of the previous period.
    fn top(self, before: &Self, limit: usize, measure: &Measure) -> Top {
        let sum = |tally: &Self| -> Quantity { tally.values.values().map(|parts| total(parts, measure)).sum() };
        let (distinct, all, total_before) = (self.values.len(), sum(&self), sum(before));
        let earlier = |value: &str| before.values.get(value).map(|parts| total(parts, measure)).unwrap_or_default();
        let ranked =
            |(event, parts): (String, Parts)| Ranked { number: total(&parts, measure), before: earlier(&event), event };
        let mut events: Vec<Ranked> = self.values.into_iter().map(ranked).collect();
        events.sort_unstable_by(|a, b| b.number.cmp(&a.number).then_with(|| a.event.cmp(&b.event)));
        events.truncate(limit);
        Top { events, distinct, total: all, total_before }
    }
}

fn too_many_parts() -> Error {
    let help = "choose a shorter period, longer parts with --by, or fewer values with --limit";
    Error::usage("the values have more parts than can be held", help)
}

impl Reader {
    /// Returns the numbers of the values with the largest ones in each part of the period, and those of the others
    /// together.
    ///
    /// # Errors
    /// An AWS error; the table does not exist; the event was never counted; there are too many values.
    pub(crate) async fn by_value(
        &self,
        breakdown: &Breakdown,
        period: &Period,
        limit: usize,
        measure: &Measure,
    ) -> Result<Vec<Series>, Error> {
        let tally = self.tally(breakdown, period, true, measure).await?;
        if tally.values.is_empty() {
            self.ensure_known(&breakdown.event).await?;
        }
        tally.series(period.len(), limit, measure)
    }

    /// Returns the `limit` values with the largest numbers, with their numbers in the previous period.
    ///
    /// # Errors
    /// As [`Reader::by_value`].
    pub(crate) async fn top_values(
        &self,
        breakdown: &Breakdown,
        period: &Period,
        before: &Period,
        limit: usize,
        measure: &Measure,
    ) -> Result<Top, Error> {
        let current = self.tally(breakdown, period, false, measure);
        let (current, before) = tokio::try_join!(current, self.tally(breakdown, before, false, measure))?;
        if current.values.is_empty() && before.values.is_empty() {
            self.ensure_known(&breakdown.event).await?;
        }
        Ok(current.top(&before, limit, measure))
    }

    /// Returns the values with the largest numbers in the period, and the others together.
    ///
    /// # Errors
    /// An AWS error; the table does not exist; there are too many values.
    pub(crate) async fn totals_by_value(
        &self,
        breakdown: &Breakdown,
        period: &Period,
        limit: usize,
        measure: &Measure,
    ) -> Result<Vec<(String, Quantity)>, Error> {
        let values = self.tally(breakdown, period, false, measure).await?.largest(limit, measure);
        Ok(values.into_iter().map(|(value, parts)| (value, total(&parts, measure))).collect())
    }

    /// Reads a breakdown in the period, by its parts or in one part.
    async fn tally(
        &self,
        breakdown: &Breakdown,
        period: &Period,
        is_divided: bool,
        measure: &Measure,
    ) -> Result<Tally, Error> {
        let hours = HOURS_A_READING.max(period.hour_count() / MOST_READINGS + 1);
        let parts = is_divided.then(|| Arc::new(period.clone()));
        // All readings add to the same values, so that memory is bounded by these.
        let tally = Arc::new(Mutex::new(Tally::default()));
        let readings = period.ranges(hours).into_iter().map(|range| {
            let (reader, breakdown, measure) = (self.clone(), breakdown.clone(), measure.clone());
            let (parts, tally) = (parts.clone(), Arc::clone(&tally));
            async move { reader.range(&breakdown, range, parts.as_deref(), &measure, &tally).await }
        });
        self.each_of(readings, |()| Ok(())).await?;
        let all = std::mem::take(&mut *tally.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(all)
    }

    /// Adds the values between two hours, inclusive, to `tally`.
    async fn range(
        &self,
        breakdown: &Breakdown,
        (first, last): (String, String),
        parts: Option<&Period>,
        measure: &Measure,
        tally: &Mutex<Tally>,
    ) -> Result<(), Error> {
        let table = &*self.breakdowns;
        let key = breakdowns::breakdown(&breakdown.path, &breakdown.event);
        let request = self
            .dynamodb
            .query()
            .table_name(table)
            .consistent_read(self.is_consistent)
            .key_condition_expression("#breakdown = :breakdown AND #hour_value BETWEEN :from AND :to")
            .expression_attribute_names("#breakdown", BREAKDOWN)
            .expression_attribute_names("#hour_value", HOUR_VALUE)
            .expression_attribute_values(":breakdown", AttributeValue::S(key))
            .expression_attribute_values(":from", AttributeValue::S(first))
            .expression_attribute_values(":to", AttributeValue::S(format!("{last}{BEHIND}")));
        let mut items = request.into_paginator().items().send();
        while let Some(item) = items.next().await {
            let item = item.call("dynamodb:Query").map_err(|error| self.no_breakdown(breakdown, &error))?;
            // A recount may leave a count of zero.
            if number(table, &item)?.is_none() {
                continue;
            }
            let Some(number) = quantity(table, &item, measure)? else { continue };
            let key = text(table, &item, HOUR_VALUE)?;
            let Some((hour, value)) = breakdowns::split(&key) else { continue };
            let part = match parts {
                Some(period) => hour.parse::<Timestamp>().ok().and_then(|hour| period.part_of(hour)),
                None => Some(0),
            };
            let Some(part) = part else { continue };
            let sums = Sums { number, values: number_of_values(&item, measure) };
            tally.lock().unwrap_or_else(PoisonError::into_inner).add(value, part, sums)?;
        }
        Ok(())
    }

    fn no_breakdown(&self, breakdown: &Breakdown, error: &AwsError) -> Error {
        if !breakdown.is_declared && error.code() == Some("ResourceNotFoundException") {
            return Error::not_found(
                format!("the table {} does not exist", self.breakdowns),
                format!("declare `{}` in rollup.by and run `provisioner apply`", printable(&breakdown.path)),
            );
        }
        failed(&self.breakdowns, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(items: &[(&str, usize, i64, i64)]) -> Tally {
        let mut tally = Tally::default();
        for (value, part, number, values) in items {
            let sums = Sums { number: (*number).into(), values: *values };
            tally.add(value, *part, sums).expect("few values");
        }
        tally
    }

    fn numbers(series: &[Series]) -> Vec<(&str, Vec<Quantity>, Quantity)> {
        series.iter().map(|one| (one.event.as_str(), one.numbers.parts.clone(), one.numbers.total)).collect()
    }

    fn row<const N: usize>(value: &str, parts: [i64; N], total: i64) -> (&str, Vec<Quantity>, Quantity) {
        (value, parts.map(Quantity::from).to_vec(), total.into())
    }

    #[test]
    fn less_frequent_values_are_counted_together() {
        let items = [("free", 0, 1, 0), ("pro", 1, 5, 0), ("free", 0, 1, 0), ("(none)", 2, 2, 0), ("team", 0, 1, 0)];
        let series = |limit| tally(&items).series(3, limit, &Measure::Count).expect("few values");
        let (pro, none, free) = (row("pro", [0, 5, 0], 5), row("(none)", [0, 0, 2], 2), row("free", [2, 0, 0], 2));
        assert_eq!(numbers(&series(1)), [pro.clone(), row("(3 more values)", [3, 0, 2], 5)]);
        assert_eq!(numbers(&series(3)), [pro.clone(), none.clone(), free.clone(), row("(1 more value)", [1, 0, 0], 1)]);
        assert_eq!(numbers(&series(4)), [pro, none, free, row("team", [1, 0, 0], 1)]);
    }

    #[test]
    fn average_of_the_other_values_is_that_of_all_their_messages() {
        let items = [("a", 0, 100, 1), ("b", 0, 10, 1), ("b", 1, 30, 2), ("c", 0, 2, 2)];
        let measure = Measure::Average("properties.revenue".to_owned());
        let series = tally(&items).series(2, 1, &measure).expect("few values");
        // 12 of 3 messages, 30 of 2, and all 42 of 5.
        let mut others = row("(2 more values)", [4, 15], 0);
        others.2 = Quantity::parse("8.4").expect("a number");
        assert_eq!(numbers(&series), [row("a", [100, 0], 100), others]);
    }

    #[test]
    fn values_are_ranked_and_compared_with_the_previous_period() {
        let before = tally(&[("free", 0, 4, 0), ("old", 0, 6, 0)]);
        let top = tally(&[("free", 0, 1, 0), ("pro", 0, 2, 0)]).top(&before, 1, &Measure::Count);
        let pro = Ranked { event: "pro".to_owned(), number: 2.into(), before: 0.into() };
        assert_eq!(top, Top { events: vec![pro], distinct: 2, total: 3.into(), total_before: 10.into() });
    }

    #[test]
    fn field_with_too_many_values_is_refused() {
        let mut all = Tally::default();
        let mut add = |n: usize| all.add(&n.to_string(), 0, Sums::default());
        assert!((0..MOST_VALUES).all(|n| add(n).is_ok()));
        assert!(add(0).is_ok());
        let refused = add(MOST_VALUES).expect_err("too many values");
        assert!(refused.to_string().contains("100,000"), "{refused}");
        assert!(all.series(MOST_CELLS, 2, &Measure::Count).is_err());
    }

    #[test]
    fn path_of_another_breakdown_is_refused() {
        let declared = ["properties.plan".to_owned()];
        let of = |path: &str| Breakdown::new("Signed Up", path, &declared);
        assert!(of("properties.plan").is_ok_and(|breakdown| breakdown.is_declared));
        assert!(of("properties.tier").is_ok_and(|breakdown| !breakdown.is_declared));
        assert!(of("properties.plan#Order").is_err() && of("").is_err());
    }
}
