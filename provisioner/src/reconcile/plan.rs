//! What will be done: a pure function of what is declared and what was read.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use crate::config::PIPELINE_TAG;
use crate::reconcile::diff::SettingChange;
use crate::reconcile::ownership::Ownership;
use crate::reconcile::resource::{Address, Observed, Refusal};

/// What happens to one resource. The symbols are Terraform's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    /// It is as declared.
    NoOp,
    /// It is not there.
    Create,
    /// It differs.
    Update,
    /// It goes.
    Delete,
    /// It differs, and stays: the whole plan is off.
    Conflict,
}

impl Action {
    /// The plan's symbol.
    pub(crate) fn symbol(self) -> char {
        match self {
            Self::NoOp => ' ',
            Self::Create => '+',
            Self::Update => '~',
            Self::Delete => '-',
            Self::Conflict => '!',
        }
    }

    /// For progress: `creating`.
    pub(crate) fn doing(self) -> &'static str {
        match self {
            Self::NoOp => "leaving",
            Self::Create => "creating",
            Self::Update => "updating",
            Self::Delete => "deleting",
            Self::Conflict => "refusing",
        }
    }

    /// For progress: `created`.
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

/// One resource of the plan.
pub(crate) struct PlannedResource {
    /// What happens to it.
    pub(crate) action: Action,
    /// Why it is refused, where it is.
    pub(crate) refusal: Option<Refusal>,
    /// What must be done before.
    pub(crate) depends_on: Vec<Address>,
    /// The resource, as declared and as read.
    pub(crate) observed: Box<dyn Observed>,
}

impl PlannedResource {
    fn new(action: Action, observed: Box<dyn Observed>) -> Self {
        Self { action, refusal: None, depends_on: observed.depends_on().to_vec(), observed }
    }

    /// The resource's address.
    pub(crate) fn address(&self) -> &Address {
        self.observed.address()
    }

    /// What differs; of a deletion, nothing is listed.
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

/// What a person allows beyond the declaration.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PlanOptions {
    /// To take over what exists and is nobody's.
    pub(crate) adopt: bool,
    /// To delete what the pipeline owns and no longer declares, if it holds no data.
    pub(crate) prune: bool,
}

/// What was read.
#[derive(Default)]
pub(crate) struct Found {
    /// What is declared, in the registry's order.
    pub(crate) declared: Vec<Box<dyn Observed>>,
    /// What the pipeline owns and no longer declares.
    pub(crate) orphans: Vec<Box<dyn Observed>>,
    /// What seems to be among these and could not be read.
    pub(crate) unread: Vec<Address>,
}

/// Everything that will be done, and what the person should know besides.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Every declared resource, those that need nothing included, in the registry's order; then what goes.
    pub(crate) items: Vec<PlannedResource>,
    /// Remarks, a line each.
    pub(crate) notes: Vec<String>,
}

/// How many of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Counts {
    /// To create.
    pub(crate) create: usize,
    /// To update.
    pub(crate) update: usize,
    /// To delete.
    pub(crate) delete: usize,
    /// Refused; nothing at all is done while there is one.
    pub(crate) conflict: usize,
}

/// Why a resource that exists may not be touched.
fn in_the_way(resource: &dyn Observed, adopt: bool) -> Option<Refusal> {
    let arn = resource.arn();
    let Some(owner) = resource.ownership() else { return resource.refusal() };
    match owner {
        Ownership::OwnedBy(other) => Some(Refusal::new(
            format!("belongs to the pipeline `{other}` ({arn})"),
            "choose another name in pipeline.toml, or destroy it with the pipeline that owns it",
        )),
        Ownership::Unmanaged if !adopt => Some(resource.refusal().unwrap_or_else(|| {
            Refusal::new(
                format!("exists and is not this pipeline's ({arn})"),
                "--adopt takes it over and makes the changes shown here; otherwise choose another name in pipeline.toml",
            )
        })),
        Ownership::Unmanaged | Ownership::Owned => resource.refusal(),
    }
}

impl Plan {
    /// What brings AWS in line with the declaration. What is refused is part of the plan, so that all of it is seen.
    pub(crate) fn reconcile(found: Found, allowed: PlanOptions) -> Self {
        let Found { declared, orphans, unread } = found;
        let mut plan = Self::default();
        let owned: Vec<&Address> = orphans.iter().map(|orphan| orphan.address()).chain(&unread).collect();
        for observed in declared {
            let refusal = in_the_way(observed.as_ref(), allowed.adopt).or_else(|| renamed(observed.as_ref(), &owned));
            let action = match (&refusal, observed.exists(), observed.changes().is_empty()) {
                (Some(_), ..) => Action::Conflict,
                (None, false, _) => Action::Create,
                (None, true, false) => Action::Update,
                (None, true, true) => Action::NoOp,
            };
            plan.notes.extend(observed.notes().into_iter().map(|note| format!("{}: {note}", observed.address())));
            plan.items.push(PlannedResource { refusal, ..PlannedResource::new(action, observed) });
        }
        let made: Vec<Address> = plan.items.iter().map(|item| item.address().clone()).collect();
        for orphan in orphans {
            let address = orphan.address();
            if orphan.holds_data() {
                plan.notes.push(format!(
                    "{address} is this pipeline's, but no longer declared; it holds data and stays. {}",
                    orphan.manual_deletion()
                ));
            } else if allowed.prune {
                let mut item = PlannedResource::new(Action::Delete, orphan);
                // What takes its place is at work first, so that new files find it there.
                item.depends_on.extend(made.iter().cloned());
                plan.items.push(item);
            } else {
                plan.notes
                    .push(format!("{address} is this pipeline's, but no longer declared: apply --prune deletes it"));
            }
        }
        plan
    }

    /// What takes away everything that the pipeline owns; what holds data only with `delete_data`.
    pub(crate) fn destroy(found: Found, delete_data: bool) -> Self {
        let Found { declared, orphans, .. } = found;
        let mut plan = Self::default();
        for observed in declared.into_iter().chain(orphans) {
            let action = match observed.ownership() {
                None => Action::NoOp,
                Some(Ownership::Unmanaged | Ownership::OwnedBy(_)) => {
                    plan.notes.push(format!("{} is not this pipeline's and stays", observed.address()));
                    Action::NoOp
                }
                Some(Ownership::Owned) if observed.holds_data() && !delete_data => {
                    plan.notes
                        .push(format!("{} holds data and stays: --delete-data deletes it too", observed.address()));
                    Action::NoOp
                }
                Some(Ownership::Owned) => Action::Delete,
            };
            plan.items.push(PlannedResource::new(action, observed));
        }
        plan
    }

    /// How many of each there are.
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

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.counts() == Counts::default()
    }
}

/// A resource that holds data and is missing, while the pipeline owns one of its kind that is no longer declared, was
/// renamed in the file. To make a new, empty one would look as if the data were lost.
fn renamed(resource: &dyn Observed, owned: &[&Address]) -> Option<Refusal> {
    if resource.exists() || !resource.holds_data() {
        return None;
    }
    let kind = resource.address().kind;
    let old = owned.iter().find(|address| address.kind == kind)?;
    Some(Refusal::new(
        format!("is not there, but {old} is this pipeline's and no longer declared: a {kind} cannot be renamed"),
        format!(
            "put the name {} back into pipeline.toml; or, to begin with an empty {kind}, take the tag `{PIPELINE_TAG}` \
             off {old}, which then is nobody's, and copy its data over by hand",
            old.name
        ),
    ))
}
