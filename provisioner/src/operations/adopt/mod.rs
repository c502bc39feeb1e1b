//! Describes, as a `pipeline.toml`, a pipeline that another tool made. It reads with the permissions of a planner, and
//! changes nothing.

mod draft;
mod file;
mod live;

use std::collections::{BTreeMap, BTreeSet};

use crate::aws::{Account, Aws, resource_in};
use crate::error::Error;
use draft::Draft;
use file::{Found, named_tables, pipeline_name};
use live::{Entry, Function, Queue, Reader, function_at};

/// The names of what is to be described.
#[derive(Debug)]
pub(crate) struct Target {
    /// The bucket; by default that of the function.
    pub(crate) bucket: Option<String>,
    /// The function; by default that of the bucket.
    pub(crate) function: Option<String>,
    /// The pipeline's name; by default after the function, or after the bucket.
    pub(crate) name: Option<String>,
    /// The region.
    pub(crate) region: String,
}

/// A description of a pipeline.
#[derive(Debug)]
pub(crate) struct Description {
    /// The `pipeline.toml`.
    pub(crate) file: String,
    /// The bucket.
    pub(crate) bucket: String,
    /// The function, if there is one.
    pub(crate) function: Option<String>,
}

/// The notifications of a bucket: the entry of the function, with its queue, and the other entries.
#[derive(Debug)]
struct Delivery {
    entry: Option<Entry>,
    queue: Option<Queue>,
    others: Vec<Entry>,
}

/// Reads the bucket and the function, and all that belongs to them.
///
/// # Errors
/// The bucket or the function does not exist, is not known, or cannot be read.
pub(crate) async fn describe(target: &Target) -> Result<Description, Error> {
    // The names are checked before any call.
    let name = target.name.as_deref().unwrap_or("adopted");
    let stub = Draft::new(name, &target.region, None, target.bucket.as_deref().unwrap_or("adopted"))?.pipeline;
    let aws = Aws::connect(&stub).await?;
    let account = Account::caller_identity(&aws, &stub).await?;
    let reader = Reader { aws: &aws, account: &account };

    let bucket = match (&target.bucket, &target.function) {
        (Some(bucket), _) => bucket.clone(),
        (None, Some(function)) => reader.bucket_of(function).await?,
        (None, None) => {
            return Err(Error::usage("neither bucket nor function is known", "pass --bucket or --function"));
        }
    };
    let bucket = reader.bucket(&bucket).await?;
    let entries = reader.entries(&bucket.name).await?;
    let Delivery { entry, queue, others } = delivery(&reader, entries, target.function.as_deref()).await?;
    let of_entry = || {
        let arn =
            queue.as_ref().map_or(entry.as_ref().map(|entry| &entry.destination), |queue| queue.function.as_ref());
        arn.and_then(|arn| function_at(arn)).map(str::to_owned)
    };
    let function = match target.function.clone().or_else(of_entry) {
        Some(function) => Some(reader.function(&function).await?),
        None => None,
    };
    let owner = function.as_ref().and_then(|function| function.owner.clone());
    let derived = || pipeline_name(function.as_ref().map_or(bucket.name.as_str(), |function| function.name.as_str()));
    let name = target.name.clone().or(owner).unwrap_or_else(derived);

    // The names that the pipeline would have by default.
    let defaults = Draft::new(&name, &target.region, None, &bucket.name)?.pipeline;
    let role = reader.role_named(&defaults.function.role.name).await?;
    let mut names: BTreeSet<String> = [defaults.table.counts, defaults.table.daily, defaults.table.ledger].into();
    names.extend(function.iter().flat_map(|function: &Function| named_tables(&function.environment)));
    let mut tables = BTreeMap::new();
    for name in names {
        let table = reader.table(&name).await?;
        tables.extend(table.map(|table| (name, table)));
    }
    let path_of_default_role = role.map(|role| role.path);
    let found = Found { name, bucket, entry, others, queue, function, path_of_default_role, tables, account };
    Ok(Description {
        file: found.file()?,
        bucket: found.bucket.name,
        function: found.function.map(|function| function.name),
    })
}

/// Chooses the entry of the function, or without one, the entry of the only destination that can be a pipeline's.
async fn delivery(reader: &Reader<'_>, entries: Vec<Entry>, function: Option<&str>) -> Result<Delivery, Error> {
    let (mut candidates, mut others): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|entry| {
        let is_of = |service: &&str| resource_in(&entry.destination, service).is_some();
        reader.is_inside(&entry.destination) && ["lambda", "sqs"].iter().any(is_of)
    });
    let chosen = match function {
        Some(function) => position_of(reader, &candidates, function).await?,
        None => {
            let destinations: BTreeSet<&str> = candidates.iter().map(|entry| entry.destination.as_str()).collect();
            if destinations.len() > 1 {
                let all: Vec<&str> = destinations.into_iter().collect();
                return Err(Error::usage(
                    format!("the bucket notifies several functions or queues: {}", all.join(", ")),
                    "pass the function to describe with --function",
                ));
            }
            (!candidates.is_empty()).then_some(0)
        }
    };
    let entry = chosen.map(|at| candidates.remove(at));
    let queue = match &entry {
        Some(entry) => reader.queue(&entry.destination).await?,
        None => None,
    };
    others.extend(candidates);
    Ok(Delivery { entry, queue, others })
}

/// Returns the position of the entry that notifies the function, directly or through a queue.
async fn position_of(reader: &Reader<'_>, entries: &[Entry], function: &str) -> Result<Option<usize>, Error> {
    let is_direct = |entry: &Entry| function_at(&entry.destination) == Some(function);
    if let Some(at) = entries.iter().position(is_direct) {
        return Ok(Some(at));
    }
    for (at, entry) in entries.iter().enumerate() {
        let queue = reader.queue(&entry.destination).await?;
        let taken_by = queue.as_ref().and_then(|queue| queue.function.as_deref());
        if taken_by.and_then(function_at) == Some(function) {
            return Ok(Some(at));
        }
    }
    Ok(None)
}
