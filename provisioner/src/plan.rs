//! What will be done: a pure function of what is declared and what was read.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use crate::change::Change;
use crate::cost::Estimate;
use crate::kind::{Address, Observed, Refusal};
use crate::owner::{Owner, PIPELINE_TAG};

/// What happens to one resource. The symbols are Terraform's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is as declared.
    Nothing,
    /// It is not there.
    Create,
    /// It differs.
    Update,
    /// It goes.
    Delete,
    /// It differs, and stays: the whole plan is off.
    Refuse,
}

impl Action {
    /// The plan's symbol.
    #[must_use]
    pub fn symbol(self) -> char {
        match self {
            Self::Nothing => ' ',
            Self::Create => '+',
            Self::Update => '~',
            Self::Delete => '-',
            Self::Refuse => '!',
        }
    }

    /// For progress: `creating`.
    #[must_use]
    pub fn doing(self) -> &'static str {
        match self {
            Self::Nothing => "leaving",
            Self::Create => "creating",
            Self::Update => "updating",
            Self::Delete => "deleting",
            Self::Refuse => "refusing",
        }
    }

    /// For progress: `created`.
    #[must_use]
    pub fn done(self) -> &'static str {
        match self {
            Self::Nothing => "left",
            Self::Create => "created",
            Self::Update => "updated",
            Self::Delete => "deleted",
            Self::Refuse => "refused",
        }
    }
}

/// One resource of the plan.
pub struct Item {
    /// What happens to it.
    pub action: Action,
    /// Why it is refused, where it is.
    pub refusal: Option<Refusal>,
    /// What must be done before.
    pub needs: Vec<Address>,
    /// The resource, as declared and as read.
    pub observed: Box<dyn Observed>,
}

impl Item {
    fn new(action: Action, observed: Box<dyn Observed>) -> Self {
        Self { action, refusal: None, needs: observed.needs().to_vec(), observed }
    }

    /// The resource's address.
    #[must_use]
    pub fn address(&self) -> &Address {
        self.observed.address()
    }

    /// What differs; of a deletion, nothing is listed.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        match self.action {
            Action::Create | Action::Update | Action::Refuse => self.observed.changes(),
            Action::Nothing | Action::Delete => &[],
        }
    }
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action.symbol(), self.address())
    }
}

/// What a person allows beyond the declaration.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowed {
    /// To take over what exists and is nobody's.
    pub adopt: bool,
    /// To delete what the pipeline owns and no longer declares, if it holds no data.
    pub prune: bool,
}

/// What was read.
#[derive(Default)]
pub struct Found {
    /// What is declared, in the registry's order.
    pub declared: Vec<Box<dyn Observed>>,
    /// What the pipeline owns and no longer declares.
    pub orphans: Vec<Box<dyn Observed>>,
    /// What seems to be among these and could not be read.
    pub unread: Vec<Address>,
}

/// Everything that will be done, and what the person should know besides.
#[derive(Debug, Default)]
pub struct Plan {
    /// Every declared resource, those that need nothing included, in the registry's order; then what goes.
    pub items: Vec<Item>,
    /// Remarks, a line each.
    pub notes: Vec<String>,
    /// What it costs, where the declaration states a volume.
    pub estimate: Option<Estimate>,
}

/// How many of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Counts {
    /// To create.
    pub create: usize,
    /// To update.
    pub update: usize,
    /// To delete.
    pub delete: usize,
    /// Refused; nothing at all is done while there is one.
    pub refuse: usize,
}

/// Why a resource that exists may not be touched.
fn in_the_way(resource: &dyn Observed, adopt: bool) -> Option<Refusal> {
    let arn = resource.arn();
    let Some(owner) = resource.owner() else { return resource.refusal() };
    match owner {
        Owner::Another(other) => Some(Refusal::new(
            format!("belongs to the pipeline `{other}` ({arn})"),
            "choose another name in pipeline.toml, or destroy it with the pipeline that owns it",
        )),
        Owner::Nobody if !adopt => Some(resource.refusal().unwrap_or_else(|| {
            Refusal::new(
                format!("exists and is not this pipeline's ({arn})"),
                "--adopt takes it over and makes the changes shown here; otherwise choose another name in pipeline.toml",
            )
        })),
        Owner::Nobody | Owner::Ours => resource.refusal(),
    }
}

impl Plan {
    /// What brings AWS in line with the declaration. What is refused is part of the plan, so that all of it is seen.
    #[must_use]
    pub fn converge(found: Found, allowed: Allowed) -> Self {
        let Found { declared, orphans, unread } = found;
        let mut plan = Self::default();
        let owned: Vec<&Address> = orphans.iter().map(|orphan| orphan.address()).chain(&unread).collect();
        for observed in declared {
            let refusal = in_the_way(observed.as_ref(), allowed.adopt).or_else(|| renamed(observed.as_ref(), &owned));
            let action = match (&refusal, observed.exists(), observed.changes().is_empty()) {
                (Some(_), ..) => Action::Refuse,
                (None, false, _) => Action::Create,
                (None, true, false) => Action::Update,
                (None, true, true) => Action::Nothing,
            };
            plan.notes.extend(observed.notes().into_iter().map(|note| format!("{}: {note}", observed.address())));
            plan.items.push(Item { refusal, ..Item::new(action, observed) });
        }
        let made: Vec<Address> = plan.items.iter().map(|item| item.address().clone()).collect();
        for orphan in orphans {
            let address = orphan.address();
            if orphan.holds_data() {
                plan.notes.push(format!(
                    "{address} is this pipeline's, but no longer declared; it holds data and stays. {}",
                    orphan.delete_by_hand()
                ));
            } else if allowed.prune {
                let mut item = Item::new(Action::Delete, orphan);
                // What takes its place is at work first, so that new files find it there.
                item.needs.extend(made.iter().cloned());
                plan.items.push(item);
            } else {
                plan.notes
                    .push(format!("{address} is this pipeline's, but no longer declared: apply --prune deletes it"));
            }
        }
        plan
    }

    /// What takes away everything that the pipeline owns; what holds data only with `delete_data`.
    #[must_use]
    pub fn destroy(found: Found, delete_data: bool) -> Self {
        let Found { declared, orphans, .. } = found;
        let mut plan = Self::default();
        for observed in declared.into_iter().chain(orphans) {
            let action = match observed.owner() {
                None => Action::Nothing,
                Some(Owner::Nobody | Owner::Another(_)) => {
                    plan.notes.push(format!("{} is not this pipeline's and stays", observed.address()));
                    Action::Nothing
                }
                Some(Owner::Ours) if observed.holds_data() && !delete_data => {
                    plan.notes
                        .push(format!("{} holds data and stays: --delete-data deletes it too", observed.address()));
                    Action::Nothing
                }
                Some(Owner::Ours) => Action::Delete,
            };
            plan.items.push(Item::new(action, observed));
        }
        plan
    }

    /// How many of each there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for item in &self.items {
            match item.action {
                Action::Nothing => {}
                Action::Create => counts.create += 1,
                Action::Update => counts.update += 1,
                Action::Delete => counts.delete += 1,
                Action::Refuse => counts.refuse += 1,
            }
        }
        counts
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
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
