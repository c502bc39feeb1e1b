//! A number that is read: a count, or an exact decimal sum.

use std::fmt;
use std::iter::Sum;

use counting::amount::{self, DECIMALS};

use crate::text::grouped_digits;

/// One, in the smallest units.
const ONE: i128 = 10_i128.pow(DECIMALS);
/// The decimals of a quotient.
const QUOTIENT_DECIMALS: u32 = 6;

/// A decimal number with at most [`DECIMALS`] decimals: every number of DynamoDB that the function writes is one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Quantity(i128);

impl From<i64> for Quantity {
    fn from(count: i64) -> Self {
        Self(i128::from(count) * ONE)
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Self::plus)
    }
}

impl fmt::Display for Quantity {
    /// Formats all digits, and none that says nothing: `-1234.5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, decimals) = self.split();
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{whole}{decimals}")
    }
}

impl Quantity {
    /// Parses a number of DynamoDB; `None` if it is none that the function writes.
    pub(crate) fn parse(digits: &str) -> Option<Self> {
        amount::units(digits).map(Self)
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Returns whether it is larger than zero.
    pub(crate) fn is_positive(self) -> bool {
        self.0 > 0
    }

    pub(crate) fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Returns the quotient, rounded to six decimals; zero if there is nothing to divide by.
    pub(crate) fn over(self, count: i64) -> Self {
        if count == 0 {
            return Self::default();
        }
        let step = 10_i128.pow(DECIMALS - QUOTIENT_DECIMALS);
        let (number, count) = (self.0, i128::from(count));
        // Half a step is added away from zero.
        let half = step / 2 * number.signum() * count.signum();
        Self((number / count).saturating_add(half) / step * step)
    }

    /// Returns the ratio to another quantity, for people; zero if that one is zero.
    #[expect(clippy::cast_precision_loss, reason = "a percentage needs no more digits")]
    pub(crate) fn share_of(self, whole: Self) -> f64 {
        if whole.is_zero() { 0.0 } else { self.0 as f64 / whole.0 as f64 }
    }

    /// Returns it as a float, for a drawing.
    #[expect(clippy::cast_precision_loss, reason = "a pixel needs no more digits")]
    pub(crate) fn approximate(self) -> f64 {
        self.0 as f64 / ONE as f64
    }

    /// Formats it with its digits grouped by three: `1,234.5`.
    pub(crate) fn grouped(self) -> String {
        let (whole, decimals) = self.split();
        let sign = if self.0 < 0 { "-" } else { "" };
        format!("{sign}{}{decimals}", grouped_digits(&whole))
    }

    /// Returns the digits before the decimal point, and the point with the digits after it.
    fn split(self) -> (String, String) {
        let units = self.0.unsigned_abs();
        let (whole, rest) = (units / ONE.unsigned_abs(), units % ONE.unsigned_abs());
        let decimals = format!("{rest:0width$}", width = DECIMALS as usize);
        let decimals = decimals.trim_end_matches('0');
        (whole.to_string(), if decimals.is_empty() { String::new() } else { format!(".{decimals}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Quantity {
        Quantity::parse(text).expect("a number")
    }

    #[test]
    fn quantity_is_exact_and_formatted_with_all_digits() {
        for text in ["0", "-1", "19.99", "123456789012345678.000000000001", "-0.5", "99999999999999999999999999"] {
            assert_eq!(of(text).to_string(), text);
        }
        assert_eq!(of("1E+3").to_string(), "1000");
        assert_eq!(of("1.50").to_string(), "1.5");
        assert_eq!(of("1234567.25").grouped(), "1,234,567.25");
        assert_eq!(of("-1234").grouped(), "-1,234");
        assert_eq!(["0.1", "0.2"].into_iter().map(of).sum::<Quantity>(), of("0.3"));
        assert_eq!(of("0.3").minus(of("0.5")), of("-0.2"));
        assert_eq!(Quantity::from(7), of("7"));
        assert!(Quantity::parse("seven").is_none() && Quantity::parse("0.0000000000001").is_none());
    }

    #[test]
    fn quotient_is_rounded_to_six_decimals() {
        assert_eq!(of("10").over(4), of("2.5"));
        assert_eq!(of("2").over(3), of("0.666667"));
        assert_eq!(of("-2").over(3), of("-0.666667"));
        assert_eq!(of("1").over(0), of("0"));
    }
}
