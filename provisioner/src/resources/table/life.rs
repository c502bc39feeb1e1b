//! The life of the ledger's items, and the shortest that it had before.
//!
//! The ledger forgets an object after the object is gone. If `bucket.expire_days` is raised or taken out, objects that
//! were counted before live longer than what the ledger knows of them, and a backfill would count them again. Therefore a
//! tag of the ledger table keeps the shortest life of items written before a date after the change, and a backfill leaves
//! out older objects of that time. The live tag is the only memory of it.

use std::fmt;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::resources::monday_after;

/// The tag's key. A ledger that never forgot has no such tag.
pub(crate) const LEDGER_LIFE: &str = "ledger-life";
/// The weeks from the current Monday to the date until which items may have the earlier life: at least seven days, in
/// which a saved plan can be applied, and the same date all week, so that it does not change overnight.
const WEEKS: i64 = 2;
const FOREVER: &str = "forever";

/// The life of the ledger's items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    /// In days; `None` if they never expire.
    days: Option<u32>,
    /// The shortest earlier life in days, and the end, exclusive, of the time in which items were written with it.
    earlier: Option<(u32, Date)>,
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.days.map_or_else(|| FOREVER.to_owned(), |days| days.to_string());
        match self.earlier {
            None => f.write_str(&days),
            // DynamoDB allows no comma in a tag's value.
            Some((earlier, until)) => write!(f, "{earlier} until {until} then {days}"),
        }
    }
}

impl Life {
    /// Parses the tag's value; returns `None` if somebody has changed it to another form.
    pub(crate) fn of(tag: &str) -> Option<Self> {
        let days = |text: &str| if text == FOREVER { Some(None) } else { text.parse().ok().map(Some) };
        match tag.split(' ').collect::<Vec<_>>().as_slice() {
            [now] => Some(Self { days: days(now)?, earlier: None }),
            [earlier, "until", until, "then", now] => {
                Some(Self { days: days(now)?, earlier: Some((earlier.parse().ok()?, until.parse().ok()?)) })
            }
            _ => None,
        }
    }

    /// Returns the life beside the live tag: the declared days, and the memory of shorter ones. `None` if the ledger never
    /// forgot.
    pub(super) fn beside(declared: Option<u32>, live: Option<&str>, now: Timestamp) -> Option<Self> {
        let Some(live) = live.and_then(Self::of) else {
            return declared.map(|days| Self { days: Some(days), earlier: None });
        };
        let is_longer = |than: u32| declared.is_none_or(|days| days > than);
        let earlier = match live.days.filter(|days| is_longer(*days)) {
            None => live.earlier,
            Some(days) => {
                let until = monday_after(now, WEEKS);
                let shortest = live.earlier.map_or(days, |(earlier, _)| earlier.min(days));
                Some((shortest, until.unwrap_or(Date::MAX)))
            }
        };
        Some(Self { days: declared, earlier })
    }

    /// Returns whether the ledger may have forgotten an object that was uploaded, and perhaps counted, at this time.
    pub(crate) fn has_forgotten(&self, uploaded: Timestamp, now: Timestamp) -> bool {
        let Some((days, until)) = self.earlier else { return false };
        let life = SignedDuration::from_hours(i64::from(days) * 24);
        uploaded.to_zoned_datetime(TimeZone::UTC).date() < until && now.duration_since(uploaded) >= life
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> Timestamp {
        time.parse().expect("a time")
    }

    /// 4 August 2015 is a Tuesday.
    const NOW: &str = "2015-08-04T12:34:56Z";

    fn beside(declared: Option<u32>, live: Option<&str>, now: &str) -> Option<String> {
        Life::beside(declared, live, at(now)).map(|life| life.to_string())
    }

    #[test]
    fn longer_life_keeps_the_memory_of_the_shortest_one() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(beside(None, None, NOW), None);
        assert_eq!(beside(Some(95), None, NOW), some("95"));
        assert_eq!(beside(Some(95), Some("95"), NOW), some("95"));
        assert_eq!(beside(Some(37), Some("95"), NOW), some("37"));
        let longer = some("37 until 2015-08-17 then 95");
        assert_eq!(beside(Some(95), Some("37"), NOW), longer);
        assert_eq!(beside(Some(95), Some("37"), "2015-08-09T23:59:59Z"), longer);
        assert_eq!(beside(None, Some("37"), NOW), some("37 until 2015-08-17 then forever"));
        // The live tag is the memory, so later plans change nothing.
        assert_eq!(beside(Some(95), longer.as_deref(), "2016-01-01T00:00:00Z"), longer);
        assert_eq!(beside(Some(50), longer.as_deref(), NOW), some("37 until 2015-08-17 then 50"));
        assert_eq!(
            beside(None, Some("37 until 2015-08-17 then 50"), "2016-01-01T00:00:00Z"),
            some("37 until 2016-01-11 then forever")
        );
        assert_eq!(beside(Some(95), Some("soon"), NOW), some("95"));
    }

    #[test]
    fn object_is_forgotten_if_it_is_older_than_the_life_at_its_time() {
        let life = Life::of("37 until 2015-08-17 then forever").expect("a life");
        let is = |uploaded: &str, now: &str| life.has_forgotten(at(uploaded), at(now));
        assert!(
            is("2015-07-01T00:00:00Z", "2015-08-07T00:00:00Z") && !is("2015-07-01T00:00:01Z", "2015-08-07T00:00:00Z")
        );
        assert!(
            is("2015-08-16T23:59:59Z", "2016-01-01T00:00:00Z") && !is("2015-08-17T00:00:00Z", "2016-01-01T00:00:00Z")
        );
        assert!(!Life::of("37").expect("a life").has_forgotten(at(NOW), at("2016-01-01T00:00:00Z")));
    }
}
