//! A plan as one value that is shown, saved and compared; text, JSON and Markdown render it.

use schemars::JsonSchema;
use serde::Serialize;

use crate::aws::Account;
use crate::config::Pipeline;
use crate::reconcile::diff::SettingChange;
use crate::reconcile::plan::{Action, Counts, Plan};
use crate::reconcile::protection::Refusal;
use crate::reconcile::resource::Address;

/// The version of the JSON format. It increases if a reader of the old format would misread the new one; new members
/// alone do not increase it.
pub(crate) const FORMAT: u32 = 1;

/// An amount per month, in US dollars.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Dollars {
    /// The amount by the price list.
    pub(crate) list: f64,
    /// The amount after the free tier.
    pub(crate) billed: f64,
}

/// The monthly cost of one service.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct ServiceCost {
    /// The service.
    pub(crate) service: String,
    /// The cost of the live pipeline, if it exists.
    pub(crate) current: Option<Dollars>,
    /// The cost of the planned pipeline.
    pub(crate) planned: Dollars,
}

/// The monthly cost of a pipeline, without storage, which grows with the data kept.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Estimate {
    /// The volume in events per month.
    pub(crate) events_per_month: u64,
    /// The volume in files per month.
    pub(crate) files_per_month: u64,
    /// The region and the month of the prices.
    pub(crate) prices: String,
    /// The cost by service.
    pub(crate) services: Vec<ServiceCost>,
    /// The total cost of the live pipeline, if it exists.
    pub(crate) current: Option<Dollars>,
    /// The total cost of the planned pipeline.
    pub(crate) planned: Dollars,
    /// The same with the other way of delivery.
    pub(crate) other_way: OtherWay,
}

/// The cost with the other value of a setting.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct OtherWay {
    /// The value of `notification.via`.
    pub(crate) via: String,
    /// The total cost.
    pub(crate) planned: Dollars,
}

/// A plan as it is shown.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct PlanDocument {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// The pipeline's name, including the suffix of its environment.
    pub(crate) pipeline: String,
    /// The environment that overlays pipeline.toml, if any.
    pub(crate) environment: Option<String>,
    /// The region.
    pub(crate) region: String,
    /// The account's 12 digits.
    pub(crate) account: String,
    /// The number of resources by action.
    pub(crate) counts: Counts,
    /// The resources with an action, in the order shown; resources in sync are omitted.
    pub(crate) resources: Vec<PlanEntry>,
    /// Faults that the plan does not correct, and with which the pipeline does not work.
    pub(crate) problems: Vec<PlanProblem>,
    /// Orphaned resources that the plan keeps: owned by this pipeline, and no longer declared.
    pub(crate) orphans: Vec<PlanOrphan>,
    /// Remarks, one line each.
    pub(crate) notes: Vec<String>,
    /// The cost estimate, if pipeline.toml declares a volume.
    pub(crate) estimate: Option<Estimate>,
}

/// A fault that the plan does not correct.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct PlanProblem {
    /// The kind, such as `bucket`.
    pub(crate) kind: String,
    /// The name on AWS.
    pub(crate) name: String,
    /// The fault; continues the resource's name.
    pub(crate) reason: String,
    /// The way to resolve it.
    pub(crate) help: String,
}

/// An orphaned resource that the plan keeps.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct PlanOrphan {
    /// The kind, such as `queue`.
    pub(crate) kind: String,
    /// The name on AWS.
    pub(crate) name: String,
}

/// A resource of the plan.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct PlanEntry {
    /// The kind, such as `table`.
    pub(crate) kind: String,
    /// The name on AWS.
    pub(crate) name: String,
    /// The action on the resource.
    pub(crate) action: Action,
    /// The reason for the conflict.
    pub(crate) reason: Option<String>,
    /// The way to resolve the conflict.
    pub(crate) help: Option<String>,
    /// The settings that differ; empty for a deletion.
    pub(crate) changes: Vec<SettingChange>,
}

impl PlanDocument {
    /// Creates the document of a plan, for a pipeline in an account.
    pub(crate) fn new(pipeline: &Pipeline, account: &Account, plan: &Plan, estimate: Option<Estimate>) -> Self {
        let resources: Vec<PlanEntry> = plan
            .items
            .iter()
            .filter(|item| item.action != Action::NoOp)
            .map(|item| PlanEntry {
                kind: item.address().kind.to_owned(),
                name: item.address().name.clone(),
                action: item.action,
                reason: item.refusal.as_ref().map(|refusal| refusal.why.clone()),
                help: item.refusal.as_ref().map(|refusal| refusal.help.clone()),
                changes: item.changes().to_vec(),
            })
            .collect();
        let problem = |(address, Refusal { why, help }): &(Address, Refusal)| PlanProblem {
            kind: address.kind.to_owned(),
            name: address.name.clone(),
            reason: why.clone(),
            help: help.clone(),
        };
        let orphan = |address: &Address| PlanOrphan { kind: address.kind.to_owned(), name: address.name.clone() };
        Self {
            format: FORMAT,
            orphans: plan.orphans.iter().map(orphan).collect(),
            problems: plan.problems.iter().map(problem).collect(),
            pipeline: pipeline.name.clone(),
            environment: pipeline.environment.clone(),
            region: account.region.clone(),
            account: account.id.clone(),
            counts: plan.counts(),
            estimate,
            resources,
            notes: plan.notes.clone(),
        }
    }

    /// Returns a one-line summary.
    pub(crate) fn verdict(&self) -> String {
        let Counts { create, update, delete, conflict } = self.counts;
        match conflict {
            0 => {}
            1 => return "Plan refused: 1 conflict. Nothing was changed.".to_owned(),
            _ => return format!("Plan refused: {conflict} conflicts. Nothing was changed."),
        }
        let orphans = match self.orphans.len() {
            0 => String::new(),
            1 => " 1 resource is orphaned.".to_owned(),
            n => format!(" {n} resources are orphaned."),
        };
        if self.resources.is_empty() && self.problems.is_empty() {
            return format!("No changes.{orphans}");
        }
        let changes = self.resources.iter().flat_map(|entry| &entry.changes);
        let lowered = match changes.filter(|change| change.weakens.is_some()).count() {
            0 => String::new(),
            1 => " 1 change lowers protection.".to_owned(),
            n => format!(" {n} changes lower protection."),
        };
        let problems = match self.problems.len() {
            0 => String::new(),
            1 => " 1 problem.".to_owned(),
            n => format!(" {n} problems."),
        };
        format!("Plan: {create} to create, {update} to update, {delete} to delete.{lowered}{problems}{orphans}")
    }
}
