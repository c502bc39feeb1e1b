//! The counts of a period, by event and part. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use super::cache::{Spans, too_large};
use crate::counts::period::Period;
use crate::counts::{Numbers, Quantity, Series};
use crate::error::Error;

/// An event in a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: Arc<str>,
    /// The counts by part.
    pub(crate) parts: Vec<Quantity>,
    /// The sum of `parts`.
    pub(crate) total: Quantity,
    /// The counts of the previous period by part, if it was read.
    pub(crate) before: Option<Vec<Quantity>>,
}

/// All events of a period, most frequent first, then by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The events, including those that occurred only in the previous period.
    pub(crate) events: Vec<Event>,
    /// The total count of all events.
    pub(crate) total: Quantity,
    /// The total count in the previous period, if it was read.
    pub(crate) before: Option<Quantity>,
    /// The number of parts of the period.
    length: usize,
    /// The number of spans of which only the most frequent events are known.
    pub(crate) cut: usize,
}

fn sum(counts: &[Quantity]) -> Quantity {
    counts.iter().copied().sum()
}

/// The maximum number of events times parts. The counts of 5,000 events fit into the longest chart.
const MOST_CELLS: usize = 8_000_000;

fn by_event(spans: &Spans, period: &Period) -> Result<HashMap<Arc<str>, Vec<Quantity>>, Error> {
    let mut events: HashMap<Arc<str>, Vec<Quantity>> = HashMap::new();
    for (span, counts) in &spans.counts {
        let Some(part) = period.part_of(span.start) else { continue };
        for (event, count) in counts.iter() {
            if events.len() * period.len() > MOST_CELLS {
                return Err(too_large("choose a shorter period, or longer parts"));
            }
            let parts = match events.get_mut(event) {
                Some(parts) => parts,
                None => events.entry(Arc::clone(event)).or_insert_with(|| vec![Quantity::default(); period.len()]),
            };
            if let Some(sum) = parts.get_mut(part) {
                *sum = sum.plus(*count);
            }
        }
    }
    Ok(events)
}

impl Event {
    /// Returns the sum of the previous period, if it was read.
    pub(crate) fn total_before(&self) -> Option<Quantity> {
        self.before.as_deref().map(sum)
    }

    /// Merges several events into one with their summed counts.
    pub(crate) fn joined(name: &str, events: &[&Self], length: usize) -> Self {
        let add = |all: &mut Vec<Quantity>, parts: &[Quantity]| {
            for (all, part) in all.iter_mut().zip(parts) {
                *all = all.plus(*part);
            }
        };
        let mut parts = vec![Quantity::default(); length];
        let mut before: Option<Vec<Quantity>> = None;
        for event in events {
            add(&mut parts, &event.parts);
            if let Some(parts) = &event.before {
                let all = before.get_or_insert_with(|| vec![Quantity::default(); parts.len()]);
                add(all, parts);
            }
        }
        Self { name: Arc::from(name), total: sum(&parts), parts, before }
    }
}

impl From<&Event> for Series {
    fn from(event: &Event) -> Self {
        let numbers = |parts: &Vec<Quantity>| Numbers::of(parts.clone());
        Self {
            event: event.name.to_string(),
            numbers: numbers(&event.parts),
            before: event.before.as_ref().map(numbers),
        }
    }
}

impl Frame {
    /// Sums the spans of a period and, for a comparison, of the previous one.
    ///
    /// # Errors
    /// There are too many events.
    pub(crate) fn new(spans: &Spans, period: &Period, before: Option<(&Spans, &Period)>) -> Result<Self, Error> {
        let current = by_event(spans, period)?;
        let sums = |(spans, period): (&Spans, &Period)| Ok::<_, Error>((by_event(spans, period)?, period.len()));
        let mut previous = before.map(sums).transpose()?;
        let mut events: Vec<Event> = current
            .into_iter()
            .map(|(name, parts)| {
                let before = previous
                    .as_mut()
                    .map(|(events, length)| events.remove(&name).unwrap_or_else(|| vec![Quantity::default(); *length]));
                Event { name, total: sum(&parts), parts, before }
            })
            .collect();
        let absent = previous.into_iter().flat_map(|(events, _)| events);
        events.extend(absent.map(|(name, before)| Event {
            name,
            parts: vec![Quantity::default(); period.len()],
            total: Quantity::default(),
            before: Some(before),
        }));
        events.sort_unstable_by(|a, b| b.total.cmp(&a.total).then_with(|| a.name.cmp(&b.name)));
        let total = events.iter().map(|event| event.total).sum();
        let sums = events.iter().filter_map(Event::total_before);
        let before = before.map(|_| sums.sum());
        let cut = spans.cut;
        Ok(Self { events, total, before, length: period.len(), cut })
    }

    /// Returns the number of distinct events in the period.
    pub(crate) fn distinct(&self) -> usize {
        self.events.iter().filter(|event| !event.total.is_zero()).count()
    }

    /// Returns an event by name; its counts are zero if it did not occur.
    pub(crate) fn event(&self, name: &str) -> Event {
        let found = self.events.iter().find(|event| &*event.name == name);
        found.cloned().unwrap_or_else(|| Event {
            name: Arc::from(name),
            parts: vec![Quantity::default(); self.length],
            total: Quantity::default(),
            before: self.before.map(|_| Vec::new()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::counts::period::Span;
    use crate::dashboard::view::View;

    #[test]
    fn events_are_summed_by_part_and_ranked() {
        let period = View::of("from=2015-08-02&to=2015-08-04&by=day").period().expect("a period");
        let previous_period = period.before().expect("a period");
        let spans = |counts: &[(&str, &str, i64)]| Spans {
            counts: counts
                .iter()
                .map(|(hour, event, count)| {
                    let span = Span { start: hour.parse().expect("a time"), is_day: false };
                    (span, Arc::from([(Arc::from(*event), Quantity::from(*count))]))
                })
                .collect(),
            age: Duration::ZERO,
            is_fresh: true,
            cut: 0,
        };
        let current = spans(&[
            ("2015-08-02T00:00:00Z", "a", 1),
            ("2015-08-02T23:00:00Z", "a", 2),
            ("2015-08-03T00:00:00Z", "a", 4),
            ("2015-08-03T05:00:00Z", "b", 9),
            ("2015-08-04T00:00:00Z", "c", 99),
        ]);
        let previous = spans(&[("2015-08-01T00:00:00Z", "a", 5), ("2015-08-01T00:00:00Z", "old", 6)]);
        let frame = Frame::new(&current, &period, Some((&previous, &previous_period))).expect("few events");
        let names: Vec<&str> = frame.events.iter().map(|event| &*event.name).collect();
        assert_eq!(names, ["b", "a", "old"]);
        assert_eq!((frame.total, frame.before, frame.distinct()), (16.into(), Some(11.into()), 2));
        let of = |counts: [i64; 2]| counts.map(Quantity::from).to_vec();
        assert_eq!(frame.event("a").parts, of([3, 4]));
        assert_eq!(frame.event("a").before, Some(of([0, 5])));
        assert_eq!(frame.event("none").parts, of([0, 0]));
        let all: Vec<&Event> = frame.events.iter().collect();
        let joined = Event::joined("all", &all, 2);
        assert_eq!((joined.parts, joined.before), (of([3, 13]), Some(of([0, 11]))));
    }
}
