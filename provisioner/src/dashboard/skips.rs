//! The objects with skipped lines of the last day, read at most once a minute.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::counts::{Records, Skipped};
use crate::error::Error;

/// The age below which they are not read again.
const FRESH: Duration = Duration::from_secs(60);
/// The time that a page waits for them; the next page has them.
const PATIENCE: Duration = Duration::from_millis(400);
const DAY: i64 = 24 * 3600;

/// A reader of the objects with skipped lines.
#[derive(Debug, Clone)]
pub(crate) struct Skips {
    records: Records,
    last: moka::future::Cache<(), Arc<[Skipped]>>,
}

impl Skips {
    pub(crate) fn new(records: Records) -> Self {
        Self { records, last: moka::future::Cache::builder().max_capacity(1).time_to_live(FRESH).build() }
    }

    /// Returns the objects, latest first; `None` if reading takes long, unless the page `waits`.
    ///
    /// # Errors
    /// The failed AWS call.
    pub(crate) async fn read(&self, waits: bool) -> Option<Result<Arc<[Skipped]>, Error>> {
        let Self { records, last } = self.clone();
        let reading = tokio::spawn(async move {
            let now = Timestamp::now().as_second();
            let read = async { records.skips(now - DAY, now).await.map(Arc::from) };
            last.try_get_with((), read).await.map_err(|error| Error::clone(&error))
        });
        let patience = if waits { Duration::MAX } else { PATIENCE };
        tokio::time::timeout(patience, reading).await.ok()?.ok()
    }
}
