//! The plan: a pure function of the desired and the live state.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use crate::config::PIPELINE_TAG;
use crate::reconcile::diff::SettingChange;
use crate::reconcile::ownership::Ownership;
use crate::reconcile::resource::{Address, Observed, Refusal};

/// The action on a resource. The symbols are Terraform's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    /// The resource is in sync, or is kept.
    NoOp,
    /// The resource does not exist.
    Create,
    /// The resource differs from the desired state.
    Update,
    /// The resource is orphaned, or the pipeline is destroyed.
    Delete,
    /// The resource cannot be changed, so the plan is refused as a whole.
    Conflict,
}

impl Action {
    /// Returns the symbol of the action in a plan.
    pub(crate) fn symbol(self) -> char {
        match self {
            Self::NoOp => ' ',
            Self::Create => '+',
            Self::Update => '~',
            Self::Delete => '-',
            Self::Conflict => '!',
        }
    }

    /// Returns the present participle for progress: `creating`.
    pub(crate) fn doing(self) -> &'static str {
        match self {
            Self::NoOp => "leaving",
            Self::Create => "creating",
            Self::Update => "updating",
            Self::Delete => "deleting",
            Self::Conflict => "refusing",
        }
    }

    /// Returns the past participle for progress: `created`.
    pub(crate) fn done(self) -> &'static str {
        match self {
            Self::NoOp => "left",
            Self::Create => "created",
            Self::Update => "updated",
            Self::Delete => "deleted",
            Self::Conflict => "refused",
        }
    }
}

/// A resource of the plan.
pub(crate) struct PlannedResource {
    /// The action on the resource.
    pub(crate) action: Action,
    /// The reason for the conflict.
    pub(crate) refusal: Option<Refusal>,
    /// The resources whose steps must finish first.
    pub(crate) depends_on: Vec<Address>,
    /// The resources that must exist first.
    pub(crate) after: Vec<Address>,
    /// The desired and the live state.
    pub(crate) observed: Box<dyn Observed>,
}

impl PlannedResource {
    fn new(action: Action, observed: Box<dyn Observed>) -> Self {
        Self { action, refusal: None, depends_on: observed.depends_on(), after: observed.after(), observed }
    }

    pub(crate) fn address(&self) -> &Address {
        self.observed.address()
    }

    /// Returns the settings that differ, or none for a deletion.
    pub(crate) fn changes(&self) -> &[SettingChange] {
        match self.action {
            Action::Create | Action::Update | Action::Conflict => self.observed.changes(),
            Action::NoOp | Action::Delete => &[],
        }
    }
}

impl fmt::Debug for PlannedResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action.symbol(), self.address())
    }
}

/// The changes that the user allows beyond those to owned, declared resources.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PlanOptions {
    /// Adopt declared resources that exist and are unmanaged.
    pub(crate) adopt: bool,
    /// Delete orphaned resources that hold no data.
    pub(crate) prune: bool,
}

/// The result of reading AWS.
#[derive(Default)]
pub(crate) struct Found {
    /// The declared resources, in the registry's order.
    pub(crate) declared: Vec<Box<dyn Observed>>,
    /// The orphaned resources: owned by the pipeline, no longer declared.
    pub(crate) orphans: Vec<Box<dyn Observed>>,
    /// Resources that seem to be orphaned and could not be read.
    pub(crate) unread: Vec<Address>,
}

/// The actions on all resources, and notes for the user.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Every declared resource, in the registry's order, including those in sync; then the orphaned ones to delete.
    pub(crate) items: Vec<PlannedResource>,
    /// Faults that the plan does not correct, and with which the pipeline does not work.
    pub(crate) problems: Vec<(Address, Refusal)>,
    /// Resources that this pipeline owns, or seems to own, and that the file no longer declares; the plan keeps them.
    pub(crate) orphans: Vec<Address>,
    /// Remarks, one line each.
    pub(crate) notes: Vec<String>,
}

/// The number of resources by action.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Counts {
    /// Resources to create.
    pub(crate) create: usize,
    /// Resources to update.
    pub(crate) update: usize,
    /// Resources to delete.
    pub(crate) delete: usize,
    /// Conflicts; a plan with a conflict is not applied.
    pub(crate) conflict: usize,
}

/// Returns the conflict that forbids changing the resource, if any.
fn conflict(resource: &dyn Observed, adopt: bool, is_new: bool) -> Option<Refusal> {
    let arn = resource.arn();
    let Some(owner) = resource.ownership() else { return resource.refusal() };
    match owner {
        Ownership::OwnedBy(other) => Some(Refusal::new(
            format!("is owned by the pipeline `{other}` ({arn})"),
            "choose another name in pipeline.toml, or destroy it with the pipeline that owns it",
        )),
        Ownership::Unmanaged if !adopt => Some(resource.refusal().unwrap_or_else(|| {
            Refusal::new(
                format!("exists and is unmanaged ({arn})"),
                "pass --adopt to adopt it with the changes shown here, or choose another name in pipeline.toml",
            )
        })),
        Ownership::Owned if is_new && !adopt && !resource.is_made_by_aws() => Some(resource.refusal().unwrap_or_else(|| {
            Refusal::new(
                format!("existed before this pipeline's first apply, although it has the pipeline's tags ({arn})"),
                "check who made it; pass --adopt if it is yours, for example kept by `destroy`, or choose another name \
                 in pipeline.toml",
            )
        })),
        Ownership::Unmanaged | Ownership::Owned => resource.refusal(),
    }
}

/// Lets the first resources exist before all others, and deletes them after all others.
fn put_first(items: &mut [PlannedResource], is_first: impl Fn(&PlannedResource) -> bool) {
    let first: Vec<Address> = items.iter().filter(|item| is_first(item)).map(|item| item.address().clone()).collect();
    for item in items.iter_mut().filter(|item| !item.observed.is_first()) {
        item.after.extend(first.iter().cloned());
    }
}

impl Plan {
    /// Returns the plan that brings AWS in sync with the desired state. It contains every conflict, so that all of them
    /// are shown.
    pub(crate) fn reconcile(found: Found, options: PlanOptions) -> Self {
        let Found { declared, orphans, unread } = found;
        let mut plan = Self::default();
        let is_new = !declared.iter().chain(&orphans).any(|observed| observed.proves_apply());
        let orphaned: Vec<&Address> = orphans.iter().map(|orphan| orphan.address()).chain(&unread).collect();
        for observed in declared {
            let refusal = conflict(observed.as_ref(), options.adopt, is_new)
                .or_else(|| rename_conflict(observed.as_ref(), &orphaned));
            let action = match (&refusal, observed.exists(), observed.changes().is_empty()) {
                (Some(_), ..) => Action::Conflict,
                (None, false, _) => Action::Create,
                (None, true, false) => Action::Update,
                (None, true, true) => Action::NoOp,
            };
            plan.notes.extend(observed.notes().into_iter().map(|note| format!("{}: {note}", observed.address())));
            plan.problems.extend(observed.problems().into_iter().map(|problem| (observed.address().clone(), problem)));
            plan.items.push(PlannedResource { refusal, ..PlannedResource::new(action, observed) });
        }
        put_first(&mut plan.items, |item| item.observed.is_first() && item.action == Action::Create);
        plan.orphans = unread;
        let declared: Vec<Address> = plan.items.iter().map(|item| item.address().clone()).collect();
        for orphan in orphans {
            let address = orphan.address().clone();
            if orphan.holds_data() {
                plan.notes.push(format!(
                    "{address} is orphaned (owned by this pipeline, no longer declared); it holds data and is kept. {}",
                    orphan.manual_deletion()
                ));
                plan.orphans.push(address);
            } else if options.prune {
                let mut item = PlannedResource::new(Action::Delete, orphan);
                // The replacement must exist first, so that it receives all new files.
                item.depends_on.extend(declared.iter().cloned());
                plan.items.push(item);
            } else {
                plan.notes.push(format!(
                    "{address} is orphaned (owned by this pipeline, no longer declared); `apply --prune` deletes it"
                ));
                plan.orphans.push(address);
            }
        }
        plan
    }

    /// Returns the plan that deletes every owned resource, those that hold data only with `delete_data`.
    pub(crate) fn destroy(found: Found, delete_data: bool) -> Self {
        let Found { declared, orphans, .. } = found;
        let mut plan = Self::default();
        for observed in declared.into_iter().chain(orphans) {
            let action = match observed.ownership() {
                None => Action::NoOp,
                Some(Ownership::Unmanaged | Ownership::OwnedBy(_)) => {
                    plan.notes.push(format!("{} is not owned by this pipeline and is kept", observed.address()));
                    Action::NoOp
                }
                Some(Ownership::Owned) if observed.holds_data() && !delete_data => {
                    plan.notes.push(format!(
                        "{} holds data and is kept; pass --delete-data to delete it too",
                        observed.address()
                    ));
                    Action::NoOp
                }
                Some(Ownership::Owned) => Action::Delete,
            };
            plan.items.push(PlannedResource::new(action, observed));
        }
        put_first(&mut plan.items, |item| item.observed.is_first());
        plan
    }

    /// Returns the number of resources by action.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for item in &self.items {
            match item.action {
                Action::NoOp => {}
                Action::Create => counts.create += 1,
                Action::Update => counts.update += 1,
                Action::Delete => counts.delete += 1,
                Action::Conflict => counts.conflict += 1,
            }
        }
        counts
    }

    /// Returns whether the plan has neither changes nor conflicts nor problems.
    pub(crate) fn is_empty(&self) -> bool {
        self.counts() == Counts::default() && self.problems.is_empty()
    }
}

/// Returns a conflict if a resource that holds data is absent while one of its kind is orphaned: it was renamed in the
/// file. A new, empty resource would look like data loss.
fn rename_conflict(resource: &dyn Observed, orphaned: &[&Address]) -> Option<Refusal> {
    if resource.exists() || !resource.holds_data() {
        return None;
    }
    let kind = resource.address().kind;
    let old = orphaned.iter().find(|address| address.kind == kind)?;
    Some(Refusal::new(
        format!(
            "does not exist, but {old} is orphaned (owned by this pipeline, no longer declared): a {kind} cannot be \
             renamed"
        ),
        format!(
            "restore the name {} in pipeline.toml; or, to start with an empty {kind}, remove the tag `{PIPELINE_TAG}` \
             from {old}, which makes it unmanaged, and copy its data by hand",
            old.name
        ),
    ))
}
