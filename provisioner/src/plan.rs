//! What will be done: a pure function of what is declared and what was read.

use std::fmt;

use serde::Serialize;

use crate::change::Change;
use crate::error::Error;
use crate::kind::{Address, Observed};

/// What happens to one resource. The symbols are Terraform's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
        }
    }
}

/// One resource of the plan.
pub struct Item {
    /// What happens to it.
    pub action: Action,
    /// The resource, as declared and as read.
    pub observed: Box<dyn Observed>,
}

impl Item {
    /// The resource's address.
    #[must_use]
    pub fn address(&self) -> &Address {
        self.observed.address()
    }

    /// What differs; of a deletion, nothing is listed.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        match self.action {
            Action::Create | Action::Update => self.observed.changes(),
            Action::Nothing | Action::Delete => &[],
        }
    }
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action.symbol(), self.address())
    }
}

/// Everything that will be done, and what the person should know besides.
#[derive(Debug, Default)]
pub struct Plan {
    /// Every declared resource, those that need nothing included, in the registry's order.
    pub items: Vec<Item>,
    /// Remarks, a line each.
    pub notes: Vec<String>,
}

/// How many of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// To create.
    pub create: usize,
    /// To update.
    pub update: usize,
    /// To delete.
    pub delete: usize,
}

impl Plan {
    /// What brings AWS in line with the declaration.
    ///
    /// # Errors
    /// Every difference that cannot be made up for in place.
    pub fn converge(observed: Vec<Box<dyn Observed>>) -> Result<Self, Error> {
        let refused: Vec<Error> = observed.iter().filter_map(|resource| resource.refusal()).collect();
        if !refused.is_empty() {
            return Err(Error::Several(refused));
        }
        let items = observed.into_iter().map(|observed| {
            let action = match (observed.exists(), observed.changes().is_empty()) {
                (false, _) => Action::Create,
                (true, false) => Action::Update,
                (true, true) => Action::Nothing,
            };
            Item { action, observed }
        });
        Ok(Self { items: items.collect(), notes: Vec::new() })
    }

    /// What takes everything away; what holds data only with `delete_data`.
    #[must_use]
    pub fn destroy(observed: Vec<Box<dyn Observed>>, delete_data: bool) -> Self {
        let mut plan = Self::default();
        for observed in observed {
            let keep = observed.holds_data() && !delete_data;
            if keep && observed.exists() {
                plan.notes.push(format!("{} holds data and stays: --delete-data deletes it too", observed.address()));
            }
            let action = if observed.exists() && !keep { Action::Delete } else { Action::Nothing };
            plan.items.push(Item { action, observed });
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
