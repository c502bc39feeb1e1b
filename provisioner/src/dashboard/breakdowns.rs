//! The values of the fields of `rollup.by`, for a page of one event, read at most every five seconds.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::view::View;
use crate::counts::period::Period;
use crate::counts::{Breakdown, Measure, Quantity, Reader};
use crate::error::Error;

/// The age below which they are not read again.
const FRESH: Duration = Duration::from_secs(5);
/// The number of values of a field; the others are taken together.
const VALUES: usize = 10;
/// The maximum number of breakdowns that are kept.
const MOST_KEPT: u64 = 256;
/// The maximum number of breakdowns that are read at the same time, as each may have very many values.
const AT_ONCE: usize = 4;

/// The numbers of the values of a field, largest first.
type Numbers = Arc<[(String, Quantity)]>;
/// The event, the field, the first hour, the last hour, and what is read.
type Key = (String, String, String, String, Measure);

/// The values of a field, or the reason why they are unknown.
#[derive(Debug)]
pub(crate) struct Values {
    pub(crate) path: String,
    pub(crate) numbers: Result<Numbers, Error>,
}

/// A reader of the values.
#[derive(Debug)]
pub(crate) struct Breakdowns {
    reader: Reader,
    /// The paths of `rollup.by`.
    paths: Vec<String>,
    kept: moka::future::Cache<Key, Numbers>,
    places: Semaphore,
}

impl Breakdowns {
    pub(crate) fn new(reader: Reader, paths: Vec<String>) -> Self {
        let kept = moka::future::Cache::builder().max_capacity(MOST_KEPT).time_to_live(FRESH).build();
        Self { reader, paths, kept, places: Semaphore::new(AT_ONCE) }
    }

    /// Returns the values of each field if the view has one event and a period.
    pub(crate) async fn read(&self, view: &View) -> Vec<Values> {
        let ([event], Ok(period)) = (view.events.as_slice(), view.period()) else { return Vec::new() };
        let measure = view.measure();
        let mut all = Vec::with_capacity(self.paths.len());
        for path in &self.paths {
            let numbers = self.numbers(event, path, &period, &measure).await;
            all.push(Values { path: path.clone(), numbers });
        }
        all
    }

    async fn numbers(&self, event: &str, path: &str, period: &Period, measure: &Measure) -> Result<Numbers, Error> {
        let key = (event.to_owned(), path.to_owned(), period.first_hour(), period.last_hour(), measure.clone());
        let read = async {
            // Fails only if the semaphore is closed, which never happens here.
            let _place = self.places.acquire().await.ok();
            let breakdown = Breakdown::new(event, path, &self.paths)?;
            let numbers = self.reader.totals_by_value(&breakdown, period, VALUES, measure).await?;
            Ok::<Numbers, Error>(Arc::from(numbers))
        };
        self.kept.try_get_with(key, read).await.map_err(|error| Error::clone(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn page_without_exactly_one_event_has_no_breakdown() {
        let breakdowns = Breakdowns::new(Reader::example(), vec!["properties.plan".to_owned()]);
        for query in ["last=7d", "last=7d&event=a&event=b", "last=soon&event=a"] {
            assert!(breakdowns.read(&View::of(query)).await.is_empty(), "{query}");
        }
    }
}
