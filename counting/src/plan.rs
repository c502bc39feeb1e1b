//! A plan: the totals of one or several contents, cut into chunks of additions.
//!
//! A plan is immutable, and its name is the digest of its bytes. Whoever knows the name can therefore write any of its
//! chunks, whatever totals its own version of the parser finds.

use std::collections::BTreeMap;
use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::amount::Amount;
use crate::names::daily::day_of;
use crate::names::{breakdowns, counts, daily};
use crate::rollup::Totals;

/// Additions in a chunk. DynamoDB allows 100 actions in a transaction (API reference, TransactWriteItems); one of them is
/// the marker.
pub const ADDITIONS_PER_CHUNK: usize = 99;
/// The level of zstd, its default: the bytes of a plan are few beside the units of its additions.
const LEVEL: i32 = 3;

/// A pair of event and hour, with what is added to its items.
pub type Pair = (String, String, Amount);

/// An item that counts, by its keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// Of the counts table.
    Hour {
        /// [`counts::EVENT`]
        event: String,
        /// [`counts::HOUR`]
        hour: String,
    },
    /// Of the daily table.
    Day {
        /// [`daily::DAY`]
        day: String,
        /// [`daily::EVENT`]
        event: String,
    },
    /// Of the breakdowns table.
    Value {
        /// [`breakdowns::BREAKDOWN`]
        breakdown: String,
        /// [`breakdowns::HOUR_VALUE`]
        hour_value: String,
    },
}

impl Item {
    /// Returns the names and values of the partition key and the sort key.
    #[must_use]
    pub fn keys(&self) -> [(&'static str, &str); 2] {
        match self {
            Self::Hour { event, hour } => [(counts::EVENT, event), (counts::HOUR, hour)],
            Self::Day { day, event } => [(daily::DAY, day), (daily::EVENT, event)],
            Self::Value { breakdown, hour_value } => {
                [(breakdowns::BREAKDOWN, breakdown), (breakdowns::HOUR_VALUE, hour_value)]
            }
        }
    }
}

/// An amount that is added to an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addition {
    /// The item.
    pub item: Item,
    /// The amount.
    pub amount: Amount,
}

/// The pairs of a transaction as its marker says them, see [`crate::names::ledger::ADDED`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Added {
    /// JSON.
    Text(String),
    /// JSON that is compressed with zstd, as it would not fit an item.
    Bytes(Vec<u8>),
}

/// The longest JSON that a marker has as a text. An item has at most 400 KB (DynamoDB quotas).
const LONGEST_ADDED: usize = 300 * 1024;

impl Added {
    /// Creates it from the pairs of a chunk.
    ///
    /// # Errors
    /// An error of the compressor; there is none in memory.
    pub fn new(pairs: &[Pair]) -> io::Result<Self> {
        let json = serde_json::to_string(pairs)?;
        if json.len() <= LONGEST_ADDED {
            return Ok(Self::Text(json));
        }
        zstd::encode_all(json.as_bytes(), LEVEL).map(Self::Bytes)
    }

    /// Parses the pairs.
    ///
    /// # Errors
    /// [`PlanError`] if it is damaged.
    pub fn pairs(&self) -> Result<Vec<Pair>, PlanError> {
        match self {
            Self::Text(json) => serde_json::from_str(json).map_err(|error| PlanError(error.to_string())),
            Self::Bytes(bytes) => inflated(bytes),
        }
    }
}

/// The part of a plan that is added for one content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The content's name, see [`crate::names::ledger::content`].
    pub content: String,
    /// The number of the claim that this share belongs to: 0, and one more for each recount.
    pub generation: u32,
    /// The additions, sorted.
    pub pairs: Vec<Pair>,
}

impl Share {
    /// Creates the share that adds the difference between `totals` and the pairs that were added before.
    #[must_use]
    pub fn new(content: String, generation: u32, totals: &Totals, before: &[Pair]) -> Self {
        let mut sums: BTreeMap<(&str, &str), Amount> = BTreeMap::new();
        for ((event, hour), amount) in totals {
            *sums.entry((event, hour)).or_default() += amount;
        }
        for (event, hour, amount) in before {
            *sums.entry((event, hour)).or_default() -= amount;
        }
        Self { content, generation, pairs: pairs(sums) }
    }
}

/// A plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The shares, of different contents.
    pub shares: Vec<Share>,
    /// The number of pairs in each chunk. It is a part of the plan, so that a version with another limit cuts the same.
    cut: Vec<usize>,
    /// The number of values in each of the further chunks, of the breakdowns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    value_cut: Vec<usize>,
}

/// The reason why bytes are not a plan.
#[derive(Debug, thiserror::Error)]
#[error("it is damaged: {0}")]
pub struct PlanError(String);

impl Plan {
    /// Creates the plan of these shares.
    #[must_use]
    pub fn new(mut shares: Vec<Share>) -> Self {
        shares.sort_by(|a, b| a.content.cmp(&b.content));
        let (pairs, values) = divided(merged(&shares));
        let value_cut = values.chunks(ADDITIONS_PER_CHUNK).map(<[_]>::len).collect();
        Self { shares, cut: cut(&pairs), value_cut }
    }

    /// Returns the pairs of each chunk, each event and hour once: first those without their breakdowns, then the
    /// breakdowns.
    #[must_use]
    pub fn chunks(&self) -> Vec<Vec<Pair>> {
        let (pairs, values) = divided(merged(&self.shares));
        let (mut pairs, mut values) = (pairs.into_iter(), values.into_iter());
        let pairs = self.cut.iter().map(|length| pairs.by_ref().take(*length).collect());
        let values = self.value_cut.iter().map(|length| {
            let values: Vec<Pair> = values.by_ref().take(*length).collect();
            sum(&values)
        });
        pairs.chain(values).collect()
    }

    /// Returns the plan as bytes: JSON, compressed with zstd.
    ///
    /// # Errors
    /// An error of the compressor; there is none in memory.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        zstd::encode_all(serde_json::to_vec(self)?.as_slice(), LEVEL)
    }

    /// Parses the bytes of the plan with this name.
    ///
    /// # Errors
    /// [`PlanError`] if they are not its bytes.
    pub fn decode(name: &str, bytes: &[u8]) -> Result<Self, PlanError> {
        if self::name(bytes) != name {
            return Err(PlanError("its digest is not its name".to_owned()));
        }
        inflated(bytes)
    }
}

/// Parses JSON that is compressed with zstd.
fn inflated<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, PlanError> {
    let json = zstd::decode_all(bytes).map_err(|error| PlanError(error.to_string()))?;
    serde_json::from_slice(&json).map_err(|error| PlanError(error.to_string()))
}

/// Returns the pairs that take these back.
#[must_use]
pub fn negated(pairs: &[Pair]) -> Vec<Pair> {
    pairs.iter().map(|(event, hour, amount)| (event.clone(), hour.clone(), amount.negated())).collect()
}

/// Returns the name of the plan with these bytes: the first 128 bits of their SHA-256, in hexadecimal digits.
#[must_use]
pub fn name(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the sums of the shares, sorted, without those that are zero.
fn merged(shares: &[Share]) -> Vec<Pair> {
    sum(shares.iter().flat_map(|share| &share.pairs))
}

fn sum<'a>(pairs: impl IntoIterator<Item = &'a Pair>) -> Vec<Pair> {
    let mut sums: BTreeMap<(&str, &str), Amount> = BTreeMap::new();
    for (event, hour, amount) in pairs {
        *sums.entry((event, hour)).or_default() += amount;
    }
    self::pairs(sums)
}

fn pairs(sums: BTreeMap<(&str, &str), Amount>) -> Vec<Pair> {
    let pair =
        |((event, hour), amount): ((&str, &str), Amount)| (event.to_owned(), hour.to_owned(), amount.without_zeros());
    sums.into_iter().filter(|(_, amount)| !amount.is_zero()).map(pair).collect()
}

/// Divides pairs into those without their breakdowns, and those of one value each.
fn divided(pairs: Vec<Pair>) -> (Vec<Pair>, Vec<Pair>) {
    let mut values = Vec::new();
    for (event, hour, amount) in &pairs {
        values.extend(amount.values().map(|(path, value, amount)| {
            let mut of_value = Amount::default();
            *of_value.value_mut(path, value) = amount.clone();
            (event.clone(), hour.clone(), of_value)
        }));
    }
    let undivided = pairs.into_iter().map(|(event, hour, amount)| (event, hour, amount.undivided()));
    (undivided.filter(|(_, _, amount)| !amount.is_zero()).collect(), values)
}

/// Returns the additions of sorted pairs: those to their hours, to their days, and to their values.
#[must_use]
pub fn additions(pairs: &[Pair]) -> Vec<Addition> {
    let hours = pairs.iter().map(|(event, hour, amount)| Addition {
        item: Item::Hour { event: event.clone(), hour: hour.clone() },
        amount: amount.undivided(),
    });
    let days = by_day(pairs).filter_map(|pairs| {
        let (event, hour, _) = pairs.first()?;
        let mut sum = Amount::default();
        for (_, _, amount) in pairs {
            sum += &amount.undivided();
        }
        let item = Item::Day { day: day_of(hour).to_owned(), event: event.clone() };
        Some(Addition { item, amount: sum.without_zeros() })
    });
    let values = pairs.iter().flat_map(|(event, hour, amount)| {
        amount.values().map(move |(path, value, amount)| Addition {
            item: Item::Value {
                breakdown: breakdowns::breakdown(path, event),
                hour_value: breakdowns::hour_value(hour, value),
            },
            amount: amount.clone(),
        })
    });
    let undivided = hours.chain(days).filter(|addition| !addition.amount.is_zero());
    undivided.chain(values).collect()
}

/// Divides sorted pairs by event and day.
fn by_day(pairs: &[Pair]) -> impl Iterator<Item = &[Pair]> {
    pairs.chunk_by(|a, b| a.0 == b.0 && day_of(&a.1) == day_of(&b.1))
}

/// Cuts sorted pairs into chunks of at most [`ADDITIONS_PER_CHUNK`] additions to both tables; returns their lengths. The
/// hours of a day, at most 24, stay together: no two chunks, which are written concurrently, then add to the same item.
fn cut(pairs: &[Pair]) -> Vec<usize> {
    let (mut lengths, mut length, mut additions) = (Vec::new(), 0, 0);
    for day in by_day(pairs) {
        if additions + day.len() + 1 > ADDITIONS_PER_CHUNK {
            lengths.push(length);
            (length, additions) = (0, 0);
        }
        additions += day.len() + 1;
        length += day.len();
    }
    if length > 0 {
        lengths.push(length);
    }
    lengths
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn share(content: &str, pairs: Vec<Pair>) -> Share {
        Share { content: content.to_owned(), generation: 0, pairs }
    }

    fn pair(event: usize, day: u32, hour: u32) -> Pair {
        (format!("event {event:03}"), format!("2015-08-{day:02}T{hour:02}:00:00Z"), 1.into())
    }

    #[test]
    fn chunk_has_few_enough_additions_and_divides_no_day() {
        for hours in [1, 2, 7, 23, 24] {
            let mut pairs: Vec<Pair> = Vec::new();
            for (event, day) in (0..40).flat_map(|event| (1..4).map(move |day| (event, day))) {
                pairs.extend((0..hours).map(|hour| pair(event, day, hour)));
            }
            let mut items = BTreeSet::new();
            for chunk in Plan::new(vec![share("a", pairs.clone())]).chunks() {
                let chunk = additions(&chunk);
                assert!(chunk.len() <= ADDITIONS_PER_CHUNK);
                for Addition { item, amount } in chunk {
                    let is_day = matches!(item, Item::Day { .. });
                    assert_eq!(amount, if is_day { i64::from(hours) } else { 1 }.into());
                    assert!(items.insert(item.clone()), "{item:?} is divided");
                }
            }
            let hour = |(event, hour, _): Pair| Item::Hour { event, hour };
            assert!(pairs.into_iter().map(hour).all(|hour| items.remove(&hour)));
            assert_eq!(items.len(), 120);
        }
    }

    #[test]
    fn plan_adds_the_sum_of_its_shares_and_omits_zeros() {
        let (mut a, b, mut c) = (pair(1, 1, 1), pair(2, 1, 1), pair(2, 1, 1));
        (a.2, c.2) = (3.into(), (-1).into());
        let plan = Plan::new(vec![share("b", vec![a.clone(), b]), share("a", vec![a.clone(), c])]);
        a.2 = 6.into();
        assert_eq!(plan.chunks(), [[a]]);
        assert_eq!(plan.shares.iter().map(|share| share.content.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(Plan::new(vec![share("a", Vec::new())]).chunks().is_empty());
    }

    #[test]
    fn values_are_in_chunks_of_their_own() {
        let mut all = pair(1, 1, 1);
        for value in 0..250 {
            *all.2.value_mut("properties.plan", &format!("plan {value}")) = 1.into();
        }
        let chunks = Plan::new(vec![share("a", vec![all.clone()])]).chunks();
        assert_eq!(chunks.iter().map(|chunk| additions(chunk).len()).collect::<Vec<_>>(), [2, 99, 99, 52]);
        assert!(chunks.iter().all(|chunk| chunk.len() == 1), "a pair is in a chunk twice");
        let mut sum = Amount::default();
        for (_, _, amount) in chunks.iter().flatten() {
            sum += amount;
        }
        assert_eq!(sum, all.2);
        let items: BTreeSet<Item> = chunks.iter().flat_map(|chunk| additions(chunk)).map(|one| one.item).collect();
        assert_eq!(items.len(), 252);
        let value = Item::Value {
            breakdown: "properties.plan#event 001".to_owned(),
            hour_value: "2015-08-01T01:00:00Z#plan 7".to_owned(),
        };
        assert!(items.contains(&value));
    }

    #[test]
    fn plan_is_read_as_written_and_a_changed_byte_is_an_error() {
        let plan = Plan::new(vec![share("a", (0..100).map(|event| pair(event, 1, 1)).collect())]);
        let mut bytes = plan.encode().expect("bytes");
        let name = name(&bytes);
        assert_eq!(Plan::decode(&name, &bytes).expect("the plan"), plan);
        bytes[20] ^= 1;
        assert!(Plan::decode(&name, &bytes).is_err());
    }

    #[test]
    fn added_pairs_fit_an_item_whatever_their_names_and_are_read_as_written() {
        for name in ["Order Completed".to_owned(), "\u{1}".repeat(1_024)] {
            let pairs: Vec<Pair> = (0..99).map(|n| (format!("{n}{name}"), pair(0, 1, 1).1, 1.into())).collect();
            let added = Added::new(&pairs).expect("pairs");
            let length = match &added {
                Added::Text(text) => text.len(),
                Added::Bytes(bytes) => bytes.len(),
            };
            assert!(length < 350_000, "{length}");
            assert_eq!(added.pairs().expect("pairs"), pairs);
        }
        assert!(Added::Text("[[]]".to_owned()).pairs().is_err() && Added::Bytes(vec![1]).pairs().is_err());
    }

    #[test]
    fn share_of_a_recount_is_the_difference() {
        let key = |event: &str| (event.to_owned(), "2015-08-04T12:00:00Z".to_owned());
        let totals: Totals = [(key("a"), 3.into()), (key("b"), 1.into())].into();
        let before =
            [("a", 1), ("b", 1), ("c", 2)].map(|(event, count)| (event.to_owned(), key(event).1, Amount::from(count)));
        let share = Share::new("content".to_owned(), 1, &totals, &before);
        let pairs: Vec<(&str, i64)> =
            share.pairs.iter().map(|(event, _, amount)| (event.as_str(), amount.count)).collect();
        assert_eq!(pairs, [("a", 2), ("c", -2)]);
    }
}
