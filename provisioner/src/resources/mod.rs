//! The kinds of resources: each has a file or folder, and one line in the registry [`KINDS`].

mod alarm;
mod bucket;
pub(crate) mod cost;
pub(crate) mod discover;
pub(crate) mod event_source_mapping;
pub(crate) mod function;
mod log_group;
mod metric_filter;
pub(crate) mod notification;
mod openings;
mod permission;
mod queue;
pub(crate) mod role;
mod stream;
mod stream_destination;
mod stream_mapping;
mod subscription;
mod table;
mod topic;
pub(crate) use table::life;

use std::collections::BTreeSet;
use std::sync::Arc;

use function::artifact::Artifacts;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::aws::Account;
use crate::config::Pipeline;
use crate::reconcile::resource::{Declared, Resource, declare};

/// The inputs of the desired state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    /// The checked file.
    pub(crate) pipeline: &'a Pipeline,
    /// Account and region.
    pub(crate) account: &'a Account,
    /// The code of each function, by the function's name; absent if the command does not need it, as in destroy.
    pub(crate) artifacts: Option<&'a Artifacts>,
}

/// A kind of resource, with its desired state as a function of the file.
pub(crate) trait Kind: Resource {
    /// Returns the resources of this kind that the file declares.
    fn desired(context: &Context<'_>) -> Vec<Self>;

    /// Returns the name of the resource of this kind that has this ARN or accompanies the resource with this ARN. Used
    /// with [`Kind::with_name`] to find orphaned resources.
    fn name_from_arn(_arn: &str) -> Option<String> {
        None
    }

    /// Returns the desired state under another name.
    fn with_name(_context: &Context<'_>, _name: &str) -> Option<Self> {
        None
    }
}

/// Returns the date so many weeks after the Monday of this week (UTC): the same all week, so that a plan that has it does
/// not change overnight. `None` beyond the calendar.
fn monday_after(now: Timestamp, weeks: i64) -> Option<Date> {
    let date = now.to_zoned_datetime(TimeZone::UTC).date();
    let back = i64::from(date.weekday().to_monday_zero_offset());
    date.checked_add(weeks.weeks()).and_then(|date| date.checked_sub(back.days())).ok()
}

type Resources = Vec<Arc<dyn Declared>>;

struct RegisteredKind {
    desired: fn(&Context<'_>) -> Resources,
    at_arns: fn(&Context<'_>, &[String]) -> Resources,
}

const fn kind<K: Kind>() -> RegisteredKind {
    RegisteredKind { desired: desired_of::<K>, at_arns: at_arns_of::<K> }
}

fn desired_of<K: Kind>(context: &Context<'_>) -> Resources {
    K::desired(context).into_iter().map(declare).collect()
}

fn at_arns_of<K: Kind>(context: &Context<'_>, arns: &[String]) -> Resources {
    let names: BTreeSet<String> = arns.iter().filter_map(|arn| K::name_from_arn(arn)).collect();
    names.iter().filter_map(|name| K::with_name(context, name)).map(declare).collect()
}

/// Every kind, in the order of plans.
const KINDS: [RegisteredKind; 16] = [
    kind::<bucket::Bucket>(),
    kind::<table::Table>(),
    kind::<role::Role>(),
    kind::<log_group::LogGroup>(),
    kind::<queue::Queue>(),
    kind::<stream::Stream>(),
    kind::<stream_destination::StreamDestination>(),
    kind::<function::Function>(),
    kind::<permission::Permission>(),
    kind::<event_source_mapping::EventSourceMapping>(),
    kind::<stream_mapping::StreamMapping>(),
    kind::<notification::Notification>(),
    kind::<topic::Topic>(),
    kind::<subscription::Subscription>(),
    kind::<alarm::Alarm>(),
    kind::<metric_filter::MetricFilter>(),
];

/// Returns every resource that the file declares.
pub(crate) fn desired(context: &Context<'_>) -> Resources {
    KINDS.iter().flat_map(|kind| (kind.desired)(context)).collect()
}

/// Returns the resources at these ARNs, and those that accompany them (see [`Kind::name_from_arn`]).
fn at_arns(context: &Context<'_>, arns: &[String]) -> Resources {
    KINDS.iter().flat_map(|kind| (kind.at_arns)(context, arns)).collect()
}

#[cfg(test)]
mod recorded;
#[cfg(test)]
pub(crate) mod tests;
