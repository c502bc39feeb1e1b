//! Plans in files: what was looked at is what is applied, or nothing is.

use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use crate::config::Pipeline;
use crate::error::Error;
use crate::reconcile::document::{FORMAT, PlanDocument};
use crate::reconcile::plan::PlanOptions;

/// A plan in a file. It holds no credentials, nothing about who made it, and of settings that are not the pipeline's
/// the names alone.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedPlan {
    /// [`FORMAT`] of `plan`.
    format: u32,
    /// The version of the program that wrote it.
    provisioner: String,
    /// Digest of what was declared, comments aside.
    declaration_sha256: String,
    /// What was allowed beyond the declaration.
    adopt: bool,
    prune: bool,
    /// The [`PlanDocument`].
    plan: Json,
}

/// Of everything that the file declares, with the environment's part.
fn digest(pipeline: &Pipeline) -> String {
    let text = serde_json::to_string(pipeline).unwrap_or_default();
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl SavedPlan {
    /// What [`SavedPlan::write`] writes.
    ///
    /// # Errors
    /// The document cannot be brought into JSON.
    pub(crate) fn new(pipeline: &Pipeline, allowed: PlanOptions, document: &PlanDocument) -> Result<Self, Error> {
        Ok(Self {
            format: FORMAT,
            provisioner: env!("CARGO_PKG_VERSION").to_owned(),
            declaration_sha256: digest(pipeline),
            adopt: allowed.adopt,
            prune: allowed.prune,
            plan: serde_json::to_value(document).map_err(Error::json)?,
        })
    }

    /// Writes it whole or not at all, for its owner's eyes.
    ///
    /// # Errors
    /// What the file system answers.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let failed = |source| {
            Error::io(format!("write the plan to {}", path.display()), "choose another file with --out", &source)
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let text = serde_json::to_string_pretty(self).map_err(Error::json)?;
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        writeln!(file, "{text}").map_err(failed)?;
        file.persist(path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// Reads one.
    ///
    /// # Errors
    /// It cannot be read, is none, or was written by another version of this program.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| {
            Error::io(format!("read the plan {}", path.display()), "make one with plan --out", &source)
        })?;
        let refused = |why: String| Error::usage(format!("{} {why}", path.display()), "save a plan with plan --out");
        let any: Json = serde_json::from_str(&text).map_err(|error| refused(format!("is not a plan: {error}")))?;
        let written_by = any.get("provisioner").and_then(Json::as_str).unwrap_or_default();
        if !written_by.is_empty() && written_by != env!("CARGO_PKG_VERSION") {
            return Err(refused(format!(
                "was written by version {} of the provisioner, and this is {}",
                written_by.escape_debug(),
                env!("CARGO_PKG_VERSION")
            )));
        }
        Self::deserialize(any).map_err(|error| refused(format!("is not a plan: {error}")))
    }

    /// What was allowed when it was made.
    pub(crate) fn options(&self) -> PlanOptions {
        PlanOptions { adopt: self.adopt, prune: self.prune }
    }

    /// Holds it against the plan as it is now.
    ///
    /// # Errors
    /// Everything that has stale.
    pub(crate) fn ensure_current(&self, pipeline: &Pipeline, now: &PlanDocument) -> Result<(), Error> {
        let now = serde_json::to_value(now).map_err(Error::json)?;
        let mut stale = Vec::new();
        for key in ["pipeline", "environment", "region", "account"] {
            if self.plan[key] != now[key] {
                stale.push(format!("{key}: {} was planned, and this is {}", self.plan[key], now[key]));
            }
        }
        if stale.is_empty() {
            stale.extend(stale_resources(&self.plan, &now));
            if self.declaration_sha256 != digest(pipeline) {
                stale.push("the declaration: it does not say what it said when the plan was made".to_owned());
            }
        }
        if stale.is_empty() {
            return Ok(());
        }
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

/// The same bytes are the same code, whatever revision is checked out now.
fn without_revision(value: &Json) -> Json {
    let mut value = value.clone();
    if let Some(code) = value.as_object_mut().filter(|code| code.contains_key("sha256")) {
        code.remove("revision");
    }
    value
}

fn stale_resources(then: &Json, now: &Json) -> Vec<String> {
    let mut stale = Vec::new();
    let (before, after) = (resources(then), resources(now));
    for old in &before {
        let name = name(old);
        let Some(new) = after.iter().find(|new| self::name(new) == name) else {
            stale.push(format!("{name}: {} was planned, and it is as declared now", old["action"]));
            continue;
        };
        if old["action"] != new["action"] {
            stale.push(format!("{name}: {} was planned, and now it would be {}", old["action"], new["action"]));
            continue;
        }
        stale.extend(stale_settings(&name, &old["changes"], &new["changes"]));
    }
    for new in after.iter().filter(|new| !before.iter().any(|old| name(old) == name(new))) {
        stale.push(format!("{}: nothing was planned, and now it would be {}", name(new), new["action"]));
    }
    stale
}

fn stale_settings(name: &str, then: &Json, now: &Json) -> Vec<String> {
    let settings = |changes: &Json| -> Vec<(String, Json, Json)> {
        let changes = changes.as_array().map(Vec::as_slice).unwrap_or_default();
        let setting = |change: &Json| change["setting"].as_str().unwrap_or_default().to_owned();
        changes.iter().map(|c| (setting(c), without_revision(&c["live"]), without_revision(&c["desired"]))).collect()
    };
    let (then, now) = (settings(then), settings(now));
    let mut stale = Vec::new();
    for (setting, live, desired) in &then {
        match now.iter().find(|(other, ..)| other == setting) {
            None => stale.push(format!("{name}: {setting} is as declared now")),
            Some((_, now_live, _)) if now_live != live => {
                stale.push(format!("{name}: {setting} was {live}, and is {now_live} now"));
            }
            Some((.., now_desired)) if now_desired != desired => {
                stale.push(format!("{name}: {setting} was to become {desired}, and now {now_desired}"));
            }
            Some(_) => {}
        }
    }
    for (setting, ..) in now.iter().filter(|(setting, ..)| !then.iter().any(|(other, ..)| other == setting)) {
        stale.push(format!("{name}: {setting} would change now too"));
    }
    stale
}
