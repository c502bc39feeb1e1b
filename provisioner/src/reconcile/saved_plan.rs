//! Plans in files: a saved plan is applied exactly as it was reviewed, or not at all.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use crate::config::Pipeline;
use crate::error::Error;
use crate::private_file;
use crate::reconcile::document::{FORMAT, PlanDocument};
use crate::reconcile::plan::PlanOptions;
use crate::text::printable;

/// A plan in a file. It holds no credentials, no identity of its author, and only the names of unmanaged settings.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedPlan {
    /// The [`FORMAT`] of `plan`.
    format: u32,
    /// The version of the provisioner that wrote it.
    provisioner: String,
    /// The digest of the declaration, without comments.
    declaration_sha256: String,
    /// The [`PlanOptions`], together with `prune`.
    adopt: bool,
    prune: bool,
    /// The [`PlanDocument`].
    plan: Json,
}

/// Returns the digest of everything that the file declares, overlaid by the environment.
fn digest(pipeline: &Pipeline) -> String {
    let text = serde_json::to_string(pipeline).unwrap_or_default();
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl SavedPlan {
    /// Creates the saved form of a plan.
    ///
    /// # Errors
    /// The document cannot be written as JSON.
    pub(crate) fn new(pipeline: &Pipeline, options: PlanOptions, document: &PlanDocument) -> Result<Self, Error> {
        Ok(Self {
            format: FORMAT,
            provisioner: env!("CARGO_PKG_VERSION").to_owned(),
            declaration_sha256: digest(pipeline),
            adopt: options.adopt,
            prune: options.prune,
            plan: serde_json::to_value(document).map_err(Error::json)?,
        })
    }

    /// Writes the file atomically, readable only by its owner.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let failed = |source| {
            Error::io(format!("write the plan to {}", path.display()), "choose another file with --out", &source)
        };
        let text = serde_json::to_string_pretty(self).map_err(Error::json)? + "\n";
        private_file::write(path, text.as_bytes()).map_err(failed)
    }

    /// Reads a saved plan.
    ///
    /// # Errors
    /// The file cannot be read, is not a plan, or was written by another version of the provisioner.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| {
            Error::io(format!("read the plan {}", path.display()), "save a plan with plan --out", &source)
        })?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Parses the file of this name.
    ///
    /// # Errors
    /// It is not a plan, or was written by another version of the provisioner.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, Error> {
        // The text of the file may be anybody's.
        let refused = |why: String| {
            Error::usage(format!("{} {}", printable(name), printable(&why)), "save a plan with plan --out")
        };
        let any: Json = serde_json::from_str(text).map_err(|error| refused(format!("is not a plan: {error}")))?;
        let written_by = any.get("provisioner").and_then(Json::as_str).unwrap_or_default();
        if !written_by.is_empty() && written_by != env!("CARGO_PKG_VERSION") {
            return Err(refused(format!(
                "was written by version {} of the provisioner, and this is {}",
                written_by,
                env!("CARGO_PKG_VERSION")
            )));
        }
        Self::deserialize(any).map_err(|error| refused(format!("is not a plan: {error}")))
    }

    /// Returns the options with which the plan was made, which must be given again: a plan file does not take over or
    /// delete anything that its user has not asked for.
    ///
    /// # Errors
    /// Other options are given.
    pub(crate) fn options(&self, given: PlanOptions) -> Result<PlanOptions, Error> {
        let flag = |is_set: bool, name: &'static str| is_set.then_some(name);
        let flags = |adopt, prune| -> Vec<&str> {
            [flag(adopt, "--adopt"), flag(prune, "--prune")].into_iter().flatten().collect()
        };
        let (saved, given_flags) = (flags(self.adopt, self.prune), flags(given.adopt, given.prune));
        if saved == given_flags {
            return Ok(given);
        }
        let with = |flags: &[&str]| if flags.is_empty() { "no option".to_owned() } else { flags.join(" and ") };
        Err(Error::usage(
            format!("the plan was saved with {}, but is applied with {}", with(&saved), with(&given_flags)),
            format!("pass {} to apply, if the plan is meant", with(&saved)),
        ))
    }

    /// Compares the saved plan with the current one.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Conflict`] with every difference, if the saved plan is stale.
    pub(crate) fn ensure_current(&self, pipeline: &Pipeline, current: &PlanDocument) -> Result<(), Error> {
        let current = serde_json::to_value(current).map_err(Error::json)?;
        self.ensure_same(&current, self.declaration_sha256 == digest(pipeline))
    }

    /// Compares the saved plan with a document.
    ///
    /// # Errors
    /// As [`SavedPlan::ensure_current`].
    pub(crate) fn ensure_same(&self, current: &Json, is_same_declaration: bool) -> Result<(), Error> {
        let mut stale = Vec::new();
        for key in ["pipeline", "environment", "region", "account"] {
            if self.plan[key] != current[key] {
                stale.push(format!("{key}: the plan is for {}, but this is {}", self.plan[key], current[key]));
            }
        }
        if stale.is_empty() {
            stale.extend(stale_resources(&self.plan, current));
            if !is_same_declaration {
                stale.push("the declaration: pipeline.toml has changed since the plan was saved".to_owned());
            }
        }
        if stale.is_empty() {
            return Ok(());
        }
        // A plan file can have any text in the place of a name or a value.
        let stale: Vec<String> = stale.iter().map(|line| printable(line)).collect();
        Err(Error::conflict(
            format!("the saved plan is stale; nothing was changed:\n  {}", stale.join("\n  ")),
            "save a new plan with plan --out, review it, and apply it",
        ))
    }
}

fn resources(plan: &Json) -> Vec<&Json> {
    plan["resources"].as_array().map(|all| all.iter().collect()).unwrap_or_default()
}

fn name(resource: &Json) -> String {
    let text = |key: &str| resource[key].as_str().unwrap_or_default().to_owned();
    format!("{} {}", text("kind"), text("name"))
}

/// Removes the revision from code: equal archives are equal code, even if another revision is checked out now.
fn without_revision(value: &Json) -> Json {
    let mut value = value.clone();
    if let Some(code) = value.as_object_mut().filter(|code| code.contains_key("sha256")) {
        code.remove("revision");
    }
    value
}

fn stale_resources(saved: &Json, current: &Json) -> Vec<String> {
    let mut stale = Vec::new();
    let (before, after) = (resources(saved), resources(current));
    for old in &before {
        let name = name(old);
        let Some(new) = after.iter().find(|new| self::name(new) == name) else {
            stale.push(format!("{name}: {} was planned, but the resource is in sync now", old["action"]));
            continue;
        };
        if old["action"] != new["action"] {
            stale.push(format!("{name}: {} was planned, but the action is {} now", old["action"], new["action"]));
            continue;
        }
        stale.extend(stale_settings(&name, &old["changes"], &new["changes"]));
    }
    for new in after.iter().filter(|new| !before.iter().any(|old| name(old) == name(new))) {
        stale.push(format!("{}: no action was planned, but the action is {} now", name(new), new["action"]));
    }
    stale
}

fn stale_settings(name: &str, saved: &Json, current: &Json) -> Vec<String> {
    let settings = |changes: &Json| -> Vec<(String, Json, Json)> {
        let changes = changes.as_array().map(Vec::as_slice).unwrap_or_default();
        let setting = |change: &Json| change["setting"].as_str().unwrap_or_default().to_owned();
        changes.iter().map(|c| (setting(c), without_revision(&c["live"]), without_revision(&c["desired"]))).collect()
    };
    let (saved, current) = (settings(saved), settings(current));
    let mut stale = Vec::new();
    for (setting, live, desired) in &saved {
        match current.iter().find(|(other, ..)| other == setting) {
            None => stale.push(format!("{name}: {setting} is in sync now")),
            Some((_, live_now, _)) if live_now != live => {
                stale.push(format!("{name}: {setting} was {live}, and is {live_now} now"));
            }
            Some((.., desired_now)) if desired_now != desired => {
                stale.push(format!("{name}: {setting} was planned as {desired}, but is declared as {desired_now} now"));
            }
            Some(_) => {}
        }
    }
    for (setting, ..) in current.iter().filter(|(setting, ..)| !saved.iter().any(|(other, ..)| other == setting)) {
        stale.push(format!("{name}: {setting} would change now too"));
    }
    stale
}
