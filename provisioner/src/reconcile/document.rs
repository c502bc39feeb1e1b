//! A plan as a value that is shown, saved and compared: text, JSON and Markdown are renderings of it.

use schemars::JsonSchema;
use serde::Serialize;

use crate::aws::Account;
use crate::config::Pipeline;
use crate::reconcile::diff::SettingChange;
use crate::reconcile::plan::{Action, Counts, Plan};

/// The version of the JSON form. It rises where a program that reads the old form would misread the new one; members
/// may be added without that.
pub(crate) const FORMAT: u32 = 1;

/// An amount a month, in US dollars.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Dollars {
    /// By the price list.
    pub(crate) list: f64,
    /// After the free tier.
    pub(crate) billed: f64,
}

/// The cost of one service.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct ServiceCost {
    /// The service.
    pub(crate) service: String,
    /// The cost of the live pipeline, if it exists.
    pub(crate) current: Option<Dollars>,
    /// The cost of the planned pipeline.
    pub(crate) planned: Dollars,
}

/// The cost of a pipeline a month, without storage, which grows with what is kept.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Estimate {
    /// The volume: events a month.
    pub(crate) events_per_month: u64,
    /// The volume: files a month.
    pub(crate) files_per_month: u64,
    /// The region and the month of the prices.
    pub(crate) prices: String,
    /// The cost by service.
    pub(crate) services: Vec<ServiceCost>,
    /// The total cost of the live pipeline, if it exists.
    pub(crate) current: Option<Dollars>,
    /// The total cost of the planned pipeline.
    pub(crate) planned: Dollars,
}

/// A plan, as shown.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct PlanDocument {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// The pipeline's name, the environment's included.
    pub(crate) pipeline: String,
    /// The environment that was laid over the declaration.
    pub(crate) environment: Option<String>,
    /// The region.
    pub(crate) region: String,
    /// The account's 12 digits.
    pub(crate) account: String,
    /// How many of each.
    pub(crate) counts: Counts,
    /// What something happens to, in the order shown; what is as declared is left out.
    pub(crate) resources: Vec<PlanEntry>,
    /// Remarks, a line each.
    pub(crate) notes: Vec<String>,
    /// What it will cost a month, where the declaration states a volume.
    pub(crate) estimate: Option<Estimate>,
}

/// One resource.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct PlanEntry {
    /// Its kind: `table`.
    pub(crate) kind: String,
    /// Its name on AWS.
    pub(crate) name: String,
    /// What happens to it.
    pub(crate) action: Action,
    /// Why it is refused, where it is.
    pub(crate) reason: Option<String>,
    /// What to do about that.
    pub(crate) help: Option<String>,
    /// The settings that differ; of a deletion, none.
    pub(crate) changes: Vec<SettingChange>,
}

impl PlanDocument {
    /// The plan of a pipeline in its account.
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
        Self {
            format: FORMAT,
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

    /// What it comes to, in a line.
    pub(crate) fn verdict(&self) -> String {
        let Counts { create, update, delete, conflict } = self.counts;
        match conflict {
            0 if self.resources.is_empty() => "No changes.".to_owned(),
            0 => format!("Plan: {create} to create, {update} to update, {delete} to delete."),
            1 => "Plan refused: 1 conflict. Nothing was changed.".to_owned(),
            _ => format!("Plan refused: {conflict} conflicts. Nothing was changed."),
        }
    }
}
