//! Reads every declared resource, many at a time.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};

use crate::aws::Aws;
use crate::error::Error;
use crate::kind::{Observed, Resource};

/// Reads at the same time: all of a pipeline's resources at once, yet bounded whatever the file declares.
const AT_ONCE: usize = 16;

/// Reads them all, in the order given.
///
/// # Errors
/// Every failure, not just the first: a person without rights should see all that is missing.
pub async fn read(aws: &Aws, resources: &[Arc<dyn Resource>]) -> Result<Vec<Box<dyn Observed>>, Error> {
    let reads = resources.iter().map(|resource| Arc::clone(resource).observe(aws));
    let results: Vec<_> = stream::iter(reads).buffered(AT_ONCE).collect().await;
    let mut observed = Vec::new();
    let mut failed = Vec::new();
    for result in results {
        match result {
            Ok(resource) => observed.push(resource),
            Err(error) => failed.push(error),
        }
    }
    match failed.len() {
        0 => Ok(observed),
        1 => Err(failed.remove(0)),
        _ => Err(Error::Several(failed)),
    }
}
