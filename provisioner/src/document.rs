//! A plan as a value that is shown, saved and compared: text, JSON and Markdown are renderings of it.

use schemars::JsonSchema;
use serde::Serialize;

use crate::aws::Place;
use crate::change::Change;
use crate::config::Pipeline;
use crate::cost::Estimate;
use crate::plan::{Action, Counts, Plan};

/// The version of the JSON form. It rises where a program that reads the old form would misread the new one; members
/// may be added without that.
pub const FORMAT: u32 = 1;

/// A plan, as shown.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Document {
    /// [`FORMAT`].
    pub format: u32,
    /// The pipeline's name, the environment's included.
    pub pipeline: String,
    /// The environment that was laid over the declaration.
    pub environment: Option<String>,
    /// The region.
    pub region: String,
    /// The account's 12 digits.
    pub account: String,
    /// How many of each.
    pub counts: Counts,
    /// What something happens to, in the order shown; what is as declared is left out.
    pub resources: Vec<Entry>,
    /// Remarks, a line each.
    pub notes: Vec<String>,
    /// What it will cost a month, where the declaration states a volume.
    pub estimate: Option<Estimate>,
}

/// One resource.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Entry {
    /// Its kind: `table`.
    pub kind: String,
    /// Its name on AWS.
    pub name: String,
    /// What happens to it.
    pub action: Action,
    /// Why it is refused, where it is.
    pub reason: Option<String>,
    /// What to do about that.
    pub help: Option<String>,
    /// The settings that differ; of a deletion, none.
    pub changes: Vec<Change>,
}

impl Document {
    /// The plan of a pipeline in its place.
    #[must_use]
    pub fn new(pipeline: &Pipeline, place: &Place, plan: &Plan) -> Self {
        let resources: Vec<Entry> = plan
            .items
            .iter()
            .filter(|item| item.action != Action::Nothing)
            .map(|item| Entry {
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
            region: place.region.clone(),
            account: place.account.clone(),
            counts: plan.counts(),
            estimate: plan.estimate.clone(),
            resources,
            notes: plan.notes.clone(),
        }
    }

    /// What it comes to, in a line.
    #[must_use]
    pub fn verdict(&self) -> String {
        let Counts { create, update, delete, refuse } = self.counts;
        match refuse {
            0 if self.resources.is_empty() => "No changes.".to_owned(),
            0 => format!("Plan: {create} to create, {update} to update, {delete} to delete."),
            1 => "Refused: 1 resource is in the way, so nothing is done.".to_owned(),
            _ => format!("Refused: {refuse} resources are in the way, so nothing is done."),
        }
    }
}
