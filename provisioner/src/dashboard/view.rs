//! A view: the state of a page, encoded in its address so that every view can be linked to.

use crate::counts::calendar::By;
use crate::counts::period::{Period, PeriodArgs};
use crate::counts::{Measure, add_event};
use crate::error::Error;

/// The default number of rows in the table of events.
pub(crate) const ROWS: usize = 25;
/// The maximum number of rows.
const MOST_ROWS: usize = 10_000;
/// The maximum number of parts: a chart has no more pixels, and a longer table is unreadable.
const MOST_PARTS: usize = 1_500;
/// The maximum number of hours: two years.
pub(crate) const MOST_HOURS: usize = 2 * 366 * 24;

/// The kind of chart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Chart {
    /// A line for each event.
    #[default]
    Lines,
    /// Stacked bars.
    Bars,
}

/// The state of a page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// The chosen events; if empty, the most frequent ones are drawn.
    pub(crate) events: Vec<String>,
    /// The length of a period that ends now.
    pub(crate) last: String,
    /// The start of the period, instead of `last`.
    pub(crate) from: String,
    /// The end of the period, exclusive; now if empty.
    pub(crate) to: String,
    /// The unit of the parts; chosen by the length of the period if empty.
    pub(crate) by: String,
    /// The time zone of the days; UTC if empty.
    pub(crate) tz: String,
    /// True if the previous period is shown too.
    pub(crate) compare: bool,
    /// The field whose sums are shown instead of the counts; empty for the counts.
    pub(crate) sum: String,
    /// The kind of chart.
    pub(crate) chart: Chart,
    /// The number of rows in the table of events.
    pub(crate) rows: usize,
    /// The text that the names in the table of events contain, in any case; empty for all names.
    pub(crate) find: String,
    /// True if the page refreshes itself every minute.
    pub(crate) refresh: bool,
}

impl View {
    /// Parses the query part of an address; unknown parameters are ignored.
    pub(crate) fn of(query: &str) -> Self {
        let mut view = Self { rows: ROWS, ..Self::default() };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            match name.as_ref() {
                "event" if !value.is_empty() => add_event(&mut view.events, &value),
                "find" => view.find = value,
                "last" => view.last = value,
                "from" => view.from = value,
                "to" => view.to = value,
                "by" => view.by = value,
                "tz" => view.tz = value,
                "sum" => view.sum = value,
                "compare" => view.compare = value == "on",
                "chart" => view.chart = if value == "bars" { Chart::Bars } else { Chart::Lines },
                "rows" => view.rows = value.parse().unwrap_or(ROWS).clamp(1, MOST_ROWS),
                "refresh" => view.refresh = value == "on",
                _ => {}
            }
        }
        if view.last.is_empty() && view.from.is_empty() && view.to.is_empty() {
            view.last = "7d".to_owned();
        }
        // `last` takes precedence: a period that ends now has no other bounds.
        if !view.last.is_empty() {
            view.from.clear();
            view.to.clear();
        }
        view
    }

    /// Creates the view from the arguments of the command line.
    pub(crate) fn asked(events: &[String], period: &PeriodArgs, compare: bool) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let last = match (&period.last, &period.from) {
            (None, None) => "7d".to_owned(),
            (last, _) => text(last),
        };
        let mut view = Self {
            last,
            from: text(&period.from),
            to: text(&period.to),
            by: period.by.map(|by| by.name().to_owned()).unwrap_or_default(),
            tz: text(&period.tz),
            compare,
            rows: ROWS,
            ..Self::default()
        };
        for event in events.iter().filter(|event| !event.is_empty()) {
            add_event(&mut view.events, event);
        }
        view
    }

    /// Returns the query part of the view's address.
    pub(crate) fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for event in &self.events {
            query.append_pair("event", event);
        }
        for (name, value) in [
            ("last", &self.last),
            ("from", &self.from),
            ("to", &self.to),
            ("by", &self.by),
            ("tz", &self.tz),
            ("sum", &self.sum),
            ("find", &self.find),
        ] {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        if self.compare {
            query.append_pair("compare", "on");
        }
        if self.chart == Chart::Bars {
            query.append_pair("chart", "bars");
        }
        if self.rows != ROWS {
            query.append_pair("rows", &self.rows.to_string());
        }
        if self.refresh {
            query.append_pair("refresh", "on");
        }
        query.finish()
    }

    /// Returns whether both bounds fit a date field, which accepts neither words nor times.
    pub(crate) fn has_plain_dates(&self) -> bool {
        let is_plain =
            |text: &String| text.is_empty() || (text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok());
        is_plain(&self.from) && is_plain(&self.to)
    }

    /// Returns what the view shows of the events.
    pub(crate) fn measure(&self) -> Measure {
        if self.sum.is_empty() { Measure::Count } else { Measure::Sum(self.sum.clone()) }
    }

    /// Returns the view with an event added, or removed if the view has it.
    pub(crate) fn toggled(&self, event: &str) -> Self {
        let mut view = self.clone();
        match view.events.iter().position(|other| other == event) {
            Some(at) => drop(view.events.remove(at)),
            None => view.events.push(event.to_owned()),
        }
        view
    }

    /// Returns the view with an event in the place of another one.
    pub(crate) fn replaced(&self, event: &str, other: &str) -> Self {
        let mut view = self.clone();
        view.events.retain(|name| name != event);
        add_event(&mut view.events, other);
        view
    }

    /// Returns the period of the view.
    ///
    /// # Errors
    /// A usage error if a time, a unit or a zone is invalid, or if the period is too long.
    pub(crate) fn period(&self) -> Result<Period, Error> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let by = match self.by.as_str() {
            "" => None,
            "hour" => Some(By::Hour),
            "day" => Some(By::Day),
            "week" => Some(By::Week),
            "month" => Some(By::Month),
            other => {
                return Err(Error::usage(
                    format!("the unit {} cannot be used", other.escape_debug()),
                    "choose hour, day, week or month",
                ));
            }
        };
        if self.from.is_empty() && !self.to.is_empty() {
            return Err(Error::usage(
                format!("the period that ends at {} has no start", self.to.escape_debug()),
                "choose a start",
            ));
        }
        let args =
            PeriodArgs { last: some(&self.last), from: some(&self.from), to: some(&self.to), by, tz: some(&self.tz) };
        let period = Period::of(&args)?;
        let too_long = |message: &str, help: &str| Error::usage(message.to_owned(), help.to_owned());
        if usize::try_from(period.hour_count()).map_or(true, |hours| hours > MOST_HOURS) {
            return Err(too_long("the period is longer than a page can show", "choose at most two years"));
        }
        if period.len() > MOST_PARTS {
            return Err(too_long("the period has more parts than a page can show", "choose a coarser unit"));
        }
        Ok(period)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn view_survives_a_round_trip_through_its_address(
            events in prop::collection::vec(".{1,20}", 0..4), tz in "[A-Za-z/]{0,12}", compare: bool, bars: bool,
            rows in 1_usize..500, refresh: bool, find in ".{0,9}", sum in "[a-z.]{0,9}", from in "[0-9-]{0,10}", to in "[0-9-]{0,10}",
        ) {
            let mut view = View { tz, compare, rows, refresh, find, sum, from, to, ..View::default() };
            view.chart = if bars { Chart::Bars } else { Chart::Lines };
            for event in events {
                if !view.events.contains(&event) {
                    view.events.push(event);
                }
            }
            if view.from.is_empty() && view.to.is_empty() {
                view.last = "30d".to_owned();
            }
            prop_assert_eq!(View::of(&view.query()), view);
        }

        #[test]
        fn arbitrary_address_parses_without_a_panic(query in ".{0,60}") {
            let _ = View::of(&query).period();
        }
    }

    #[test]
    fn default_unit_depends_on_the_length_of_the_period() {
        let by = |query: &str| View::of(query).period().expect("a period").by();
        assert_eq!(
            ["last=24h", "last=48h", "", "last=30d", "last=90d", "last=6mo", "last=12mo"].map(by),
            [By::Hour, By::Hour, By::Day, By::Day, By::Day, By::Week, By::Month]
        );
        assert_eq!(by("last=24h&by=day"), By::Day);
    }

    #[test]
    fn period_of_an_invalid_view_is_refused() {
        for query in
            ["last=5y", "last=1y&by=hour", "by=minute", "to=2015-08-04", "last=soon", "tz=Mars/Olympus", "from=x"]
        {
            assert!(View::of(query).period().is_err(), "{query}");
        }
    }

    #[test]
    fn last_takes_precedence_over_from_and_to() {
        let view = View::of("last=30d&from=2015-08-04&to=2015-08-05");
        assert_eq!((view.last.as_str(), view.from.as_str(), view.to.as_str()), ("30d", "", ""));
        assert!(View::of("from=2015-08-04").has_plain_dates() && !View::of("from=yesterday").has_plain_dates());
        assert!(!View::of("from=2015-08-04T12:00:00Z").has_plain_dates());
    }

    #[test]
    fn toggled_event_is_added_or_removed() {
        let view = View::of("event=a&event=b");
        assert_eq!(view.toggled("a").events, ["b"]);
        assert_eq!(view.toggled("c").events, ["a", "b", "c"]);
        assert_eq!(view.replaced("a", "c").events, ["b", "c"]);
    }

    #[test]
    fn event_with_a_long_name_is_that_of_the_table() {
        let long = "x".repeat(2_000);
        let view = View::of(&format!("event={long}"));
        assert!(view.events[0].len() < 1_100 && view.events[0].contains('…'), "{view:?}");
        assert_eq!(View::of(&view.query()), view);
    }
}
