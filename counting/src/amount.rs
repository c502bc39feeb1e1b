//! An amount: a count of messages, the sums of their fields, and both by the values of other fields.
//!
//! Sums are decimal and exact. A number that is summed has at most 18 digits before the decimal point and 12 after it, so
//! the sum of a hundred million of them fits the 38 digits of a number in DynamoDB (developer guide, data types).

use std::collections::BTreeMap;
use std::ops::{AddAssign, SubAssign};

use bigdecimal::{BigDecimal, ToPrimitive, Zero};
use serde::{Deserialize, Serialize};

use crate::names::counts;

/// The most digits of a summed number after the decimal point, and before it.
pub const DECIMALS: u32 = 12;
const MOST_DECIMALS: i64 = DECIMALS as i64;
const MOST_WHOLE_DIGITS: i64 = 18;
/// The digits of a number in DynamoDB.
const MOST_DIGITS: i64 = 38;
/// The longest text that is read as a number.
const LONGEST_NUMBER: usize = 64;

/// The sum of a field, and the number of messages that have it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// The number of values.
    pub values: i64,
    /// Their sum.
    pub sum: BigDecimal,
}

/// A count of messages, and the sum of each summed field that some of them have, by its path.
///
/// `by` divides the same messages by the value of a field: path, value, amount. The amounts in it are not divided further.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// The number of messages.
    pub count: i64,
    /// The sums.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sums: BTreeMap<String, Sum>,
    /// The breakdowns.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by: BTreeMap<String, BTreeMap<String, Self>>,
}

impl From<i64> for Amount {
    fn from(count: i64) -> Self {
        Self { count, ..Self::default() }
    }
}

impl AddAssign<&Self> for Amount {
    fn add_assign(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        for (field, more) in &other.sums {
            let sum = self.sums.entry(field.clone()).or_default();
            sum.values = sum.values.saturating_add(more.values);
            sum.sum += &more.sum;
        }
        for (path, value, more) in other.values() {
            *self.value_mut(path, value) += more;
        }
    }
}

impl SubAssign<&Self> for Amount {
    fn sub_assign(&mut self, other: &Self) {
        self.count = self.count.saturating_sub(other.count);
        for (field, less) in &other.sums {
            let sum = self.sums.entry(field.clone()).or_default();
            sum.values = sum.values.saturating_sub(less.values);
            sum.sum -= &less.sum;
        }
        for (path, value, less) in other.values() {
            *self.value_mut(path, value) -= less;
        }
    }
}

impl Sum {
    fn is_zero(&self) -> bool {
        self.values == 0 && self.sum.is_zero()
    }
}

impl Amount {
    /// Returns the breakdowns: path, value and amount.
    pub fn values(&self) -> impl Iterator<Item = (&str, &str, &Self)> {
        self.by.iter().flat_map(|(path, values)| {
            values.iter().map(move |(value, amount)| (path.as_str(), value.as_str(), amount))
        })
    }

    /// Returns the amount of a value.
    pub fn value_mut(&mut self, path: &str, value: &str) -> &mut Self {
        self.by.entry(path.to_owned()).or_default().entry(value.to_owned()).or_default()
    }

    /// Returns the same without its breakdowns.
    #[must_use]
    pub fn undivided(&self) -> Self {
        Self { by: BTreeMap::new(), ..self.clone() }
    }

    /// Removes the sums and the values that add nothing.
    #[must_use]
    pub fn without_zeros(mut self) -> Self {
        self.sums.retain(|_, sum| !sum.is_zero());
        for values in self.by.values_mut() {
            *values = std::mem::take(values)
                .into_iter()
                .map(|(value, amount)| (value, amount.without_zeros()))
                .filter(|(_, amount)| !amount.is_zero())
                .collect();
        }
        self.by.retain(|_, values| !values.is_empty());
        self
    }

    /// Returns whether nothing is added.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.is_undivided_zero() && self.values().all(|(_, _, amount)| amount.is_zero())
    }

    /// Returns whether nothing is added but to values.
    #[must_use]
    pub fn is_undivided_zero(&self) -> bool {
        self.count == 0 && self.sums.values().all(Sum::is_zero)
    }

    /// Returns the same with the opposite sign.
    #[must_use]
    pub fn negated(&self) -> Self {
        let mut negated = Self::default();
        negated -= self;
        negated
    }

    /// Returns what is added to each attribute of an item, as DynamoDB's numbers: the count first.
    #[must_use]
    pub fn additions(&self) -> Vec<(String, String)> {
        let sums = self.sums.iter().flat_map(|(field, sum)| {
            [(counts::sum_of(field), plain(&sum.sum)), (counts::values_of(field), sum.values.to_string())]
        });
        std::iter::once((counts::COUNT.to_owned(), self.count.to_string())).chain(sums).collect()
    }
}

/// Formats a number without an exponent and without zeros at the end.
#[must_use]
pub fn plain(number: &BigDecimal) -> String {
    number.normalized().to_plain_string()
}

/// Returns a number of DynamoDB in units of the last of [`DECIMALS`] decimals; `None` if it has more, or is no number.
#[must_use]
pub fn units(text: &str) -> Option<i128> {
    let number: BigDecimal = text.parse().ok()?;
    if number.is_zero() {
        return Some(0);
    }
    // DynamoDB's numbers have at most 38 digits, and an exponent of at most 125.
    let number = number.normalized();
    if number.fractional_digit_count() > MOST_DECIMALS || number.fractional_digit_count() < -MOST_DIGITS {
        return None;
    }
    number.with_scale(MOST_DECIMALS).into_bigint_and_exponent().0.to_i128()
}

/// The reason why the value of a field is not summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotSummed {
    /// It is neither a number nor a text that is a number.
    NotANumber,
    /// It has more digits than are summed.
    TooManyDigits,
    /// The field occurs more than once.
    DuplicateKey,
}

impl NotSummed {
    /// Returns the reason's name in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotANumber => "not_a_number",
            Self::TooManyDigits => "too_many_digits",
            Self::DuplicateKey => "duplicate_key",
        }
    }
}

/// Parses a number as JSON writes it (RFC 8259), which a text may also have.
///
/// # Errors
/// [`NotSummed`] if it is none, or has too many digits.
pub fn number(text: &str) -> Result<BigDecimal, NotSummed> {
    if !is_number(text) {
        return Err(NotSummed::NotANumber);
    }
    if text.len() > LONGEST_NUMBER {
        return Err(NotSummed::TooManyDigits);
    }
    let number: BigDecimal = text.parse().map_err(|_| NotSummed::TooManyDigits)?;
    if number.is_zero() {
        return Ok(BigDecimal::zero());
    }
    // Of 1e999999999 too, the digits are few and the decimals negative.
    let (digits, decimals) = (number.normalized().digits(), number.normalized().fractional_digit_count());
    let digits = i64::try_from(digits).unwrap_or(i64::MAX);
    let fits = decimals <= MOST_DECIMALS && digits.saturating_sub(decimals) <= MOST_WHOLE_DIGITS;
    if fits { Ok(number) } else { Err(NotSummed::TooManyDigits) }
}

/// Returns whether a text is a number of JSON.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(m, e)| (m, Some(e)));
    let (whole, decimals) = mantissa.split_once('.').map_or((mantissa, None), |(w, d)| (w, Some(d)));
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && decimals.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(count: i64, sum: &str) -> Amount {
        let sum = Sum { values: count, sum: sum.parse().expect("a number") };
        Amount { count, sums: [("properties.revenue".to_owned(), sum)].into(), ..Amount::default() }
    }

    #[test]
    fn number_is_exact_or_refused_with_its_reason() {
        for text in ["0", "-0.10", "19.99", "123456789012345678.123456789012", "1e3", "1.5E-3", "-7", "0e99999999999"] {
            let number = number(text);
            assert!(number.is_ok(), "{text}: {number:?}");
        }
        assert_eq!(number("1e3").map(|number| number.to_plain_string()), Ok("1000".to_owned()));
        for text in ["", "-", "1,000", "0x10", "NaN", "Infinity", "01", "1.", ".5", " 1", "1 ", "$3", "1e", "٣"] {
            assert_eq!(number(text), Err(NotSummed::NotANumber), "{text}");
        }
        let long = format!("0.{}", "1".repeat(70));
        for text in ["1234567890123456789", "0.1234567890123", "1e18", "1e999999999", "1e-13", &long] {
            assert_eq!(number(text), Err(NotSummed::TooManyDigits), "{text}");
        }
    }

    #[test]
    fn sums_are_decimal() {
        let mut all = Amount::default();
        for _ in 0..10 {
            all += &amount(1, "0.1");
        }
        assert_eq!(all, amount(10, "1"));
        let additions = all.additions();
        let expected = [("count", "10"), ("sum:properties.revenue", "1"), ("values:properties.revenue", "10")];
        assert_eq!(additions, expected.map(|(name, number)| (name.to_owned(), number.to_owned())));
        all -= &amount(10, "1.00");
        assert!(all.is_zero() && all.without_zeros().sums.is_empty());
    }

    #[test]
    fn values_are_added_subtracted_and_omitted_if_zero() {
        let mut all = amount(3, "1");
        *all.value_mut("properties.plan", "pro") += &amount(2, "0.4");
        *all.value_mut("properties.plan", "free") += &amount(1, "0.6");
        let mut twice = all.clone();
        twice += &all;
        assert_eq!(twice.by["properties.plan"]["pro"], amount(4, "0.8"));
        twice -= &all;
        assert_eq!(twice, all);
        *twice.value_mut("properties.plan", "pro") -= &amount(2, "0.4");
        assert_eq!(twice.without_zeros().by["properties.plan"].keys().collect::<Vec<_>>(), ["free"]);
        let mut values_alone = all.clone();
        values_alone -= &amount(3, "1");
        assert!(values_alone.is_undivided_zero() && !values_alone.is_zero());
        values_alone -= &values_alone.clone();
        assert_eq!(values_alone.without_zeros(), Amount::default());
    }

    #[test]
    fn sum_of_the_largest_numbers_fits_dynamodb() {
        let largest = number("999999999999999999.999999999999").expect("a number");
        let sum = &largest * BigDecimal::from(100_000_000);
        assert!(sum.normalized().digits() <= 38, "{sum}");
    }
}
