//! The fields of a message that are summed, and those by whose values it is counted.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use bigdecimal::BigDecimal;

use crate::amount::{Amount, NotSummed, Sum, number};
use crate::line::{Field, Paths};
use crate::names::breakdowns::{NONE, OTHER};
use crate::rollup::shortened;

/// The longest value that is counted unchanged, and the bytes that are kept of a longer one. It is a part of a sort key,
/// which has at most 1,024 bytes (DynamoDB quotas).
const LONGEST_VALUE: usize = 200;
const KEPT_OF_LONGER: usize = 160;
/// A generous estimate of the memory that a value of an hour uses in the maps, without its text, and of that of a sum.
pub(crate) const VALUE_BYTES: usize = 96;
pub(crate) const SUM_BYTES: usize = 160;

/// The numbers of a message, each with the number of its field.
type Numbers = Vec<(usize, BigDecimal)>;

/// The sums of some messages, by the number of the field.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sums(BTreeMap<usize, Sum>);

impl Sums {
    pub(crate) fn add(&mut self, numbers: &Numbers) {
        for (field, number) in numbers {
            let sum = self.0.entry(*field).or_default();
            sum.values += 1;
            sum.sum += number;
        }
    }
}

/// The messages of each value: their number and their sums.
type Messages = HashMap<Box<str>, (i64, Sums)>;

/// The values of one event.
#[derive(Debug, Default)]
pub(crate) struct EventValues {
    /// The values of each field so far.
    known: HashMap<usize, HashSet<Box<str>>>,
    /// Those of each hour and field.
    messages: HashMap<(i64, usize), Messages>,
}

/// The fields of the rules, by number, and the statistics of their values.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    paths: Paths,
    /// The distinct paths.
    names: Vec<String>,
    /// The numbers of the fields that are summed, and of those that divide.
    sums: Vec<usize>,
    by: Vec<usize>,
    by_limit: usize,
    skipped: BTreeMap<(usize, NotSummed), u64>,
    limited: BTreeMap<usize, u64>,
}

impl Fields {
    pub(crate) fn new(sums: &[String], by: &[String], by_limit: usize) -> Self {
        let mut names: Vec<String> = Vec::new();
        for name in sums.iter().chain(by) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        let number = |path: &String| names.iter().position(|name| name == path);
        let (sums, by) = (sums.iter().filter_map(number).collect(), by.iter().filter_map(number).collect());
        Self { paths: Paths::new(names.iter().map(String::as_str)), sums, by, by_limit, names, ..Self::default() }
    }

    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Returns the memory that a pair needs for its sums, and to count all of its messages as [`OTHER`].
    pub(crate) fn bytes_of_pair(&self) -> usize {
        let sums = self.sums.len() * SUM_BYTES;
        sums + self.by.len() * (VALUE_BYTES + OTHER.len() + sums)
    }

    /// Returns the number of values that are not summed, by field and reason.
    pub(crate) fn skipped(&self) -> BTreeMap<String, u64> {
        let reason = |((field, reason), count): (&(usize, NotSummed), &u64)| {
            (format!("{}:{}", self.name(*field), reason.name()), *count)
        };
        self.skipped.iter().map(reason).collect()
    }

    /// Returns the number of messages that are counted as [`OTHER`] for a limit, by field.
    pub(crate) fn limited(&self) -> BTreeMap<String, u64> {
        self.limited.iter().map(|(field, count)| (self.name(*field).to_owned(), *count)).collect()
    }

    fn name(&self, field: usize) -> &str {
        self.names.get(field).map(String::as_str).unwrap_or_default()
    }

    /// Returns the numbers to sum of a message, and notes the values that are none.
    pub(crate) fn numbers(&mut self, found: &[Field<'_>]) -> Numbers {
        let mut numbers = Numbers::new();
        for field in &self.sums {
            let parsed = match found.get(*field).copied().unwrap_or_default() {
                Field::Missing | Field::Null => continue,
                Field::Number(digits) => std::str::from_utf8(digits).ok().map_or(Err(NotSummed::NotANumber), number),
                Field::Text(text) => text.decode().map_or(Err(NotSummed::NotANumber), |text| number(&text)),
                Field::Boolean(_) | Field::Other => Err(NotSummed::NotANumber),
                Field::Twice => Err(NotSummed::DuplicateKey),
            };
            match parsed {
                Ok(number) => numbers.push((*field, number)),
                Err(reason) => *self.skipped.entry((*field, reason)).or_default() += 1,
            }
        }
        numbers
    }

    /// Counts a message by its values, which may use so much more memory. Returns the bytes that they use.
    pub(crate) fn divide(
        &mut self,
        values: &mut EventValues,
        hour: i64,
        found: &[Field<'_>],
        numbers: &Numbers,
        most_bytes: usize,
    ) -> usize {
        let mut used = 0;
        for field in &self.by {
            let mut value = value(found.get(*field).copied().unwrap_or_default());
            let messages = values.messages.entry((hour, *field)).or_default();
            if let Some((count, sums)) = messages.get_mut(&*value) {
                *count += 1;
                sums.add(numbers);
                continue;
            }
            // The memory for OTHER is that of the pair.
            if &*value != OTHER {
                let known = values.known.entry(*field).or_default();
                let is_new = &*value != NONE && !known.contains(&*value);
                let copies = if is_new { 2 } else { 1 };
                let bytes = copies * (VALUE_BYTES + value.len()) + self.sums.len() * SUM_BYTES;
                if used + bytes > most_bytes || is_new && known.len() >= self.by_limit {
                    *self.limited.entry(*field).or_default() += 1;
                    value = Cow::Borrowed(OTHER);
                } else {
                    used += bytes;
                    if is_new {
                        known.insert(value.as_ref().into());
                    }
                }
            }
            let (count, sums) = messages.entry(value.as_ref().into()).or_default();
            *count += 1;
            sums.add(numbers);
        }
        used
    }

    /// Adds sums to an amount.
    pub(crate) fn add_sums(&self, amount: &mut Amount, sums: &Sums) {
        for (field, sum) in &sums.0 {
            let all = amount.sums.entry(self.name(*field).to_owned()).or_default();
            all.values += sum.values;
            all.sum += &sum.sum;
        }
    }

    /// Returns the amount of each hour, field and value.
    pub(crate) fn amounts(&self, values: EventValues) -> impl Iterator<Item = (i64, &str, Box<str>, Amount)> {
        values.messages.into_iter().flat_map(move |((hour, field), messages)| {
            messages.into_iter().map(move |(value, (count, sums))| {
                let mut amount = Amount::from(count);
                self.add_sums(&mut amount, &sums);
                (hour, self.name(field), value, amount)
            })
        })
    }

    /// Counts an amount as [`OTHER`] of each field.
    pub(crate) fn add_other(&self, all: &mut Amount, amount: &Amount) {
        for field in &self.by {
            *all.value_mut(self.name(*field), OTHER) += amount;
        }
    }
}

/// Returns the value under which a message with this field is counted: texts, numbers as they are written, and booleans.
fn value(field: Field<'_>) -> Cow<'_, str> {
    let text = match field {
        Field::Missing | Field::Null => None,
        Field::Text(text) => text.decode(),
        Field::Number(digits) => std::str::from_utf8(digits).ok().map(Cow::Borrowed),
        Field::Boolean(is_true) => Some(Cow::Borrowed(if is_true { "true" } else { "false" })),
        Field::Other | Field::Twice => return Cow::Borrowed(OTHER),
    };
    match text.filter(|text| !text.is_empty()) {
        Some(text) => shortened(text, LONGEST_VALUE, KEPT_OF_LONGER),
        None => Cow::Borrowed(NONE),
    }
}

#[cfg(test)]
mod tests;
