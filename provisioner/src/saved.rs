//! Plans in files: what was looked at is what is applied, or nothing is.

use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use crate::config::Pipeline;
use crate::document::{Document, FORMAT};
use crate::error::Error;
use crate::plan::Allowed;

/// A plan in a file. It holds no credentials, nothing about who made it, and of settings that are not the pipeline's
/// the names alone.
#[derive(Debug, Serialize, Deserialize)]
pub struct Saved {
    /// [`FORMAT`] of `plan`.
    format: u32,
    /// The version of the program that wrote it.
    provisioner: String,
    /// Digest of what was declared, comments aside.
    declaration_sha256: String,
    /// What was allowed beyond the declaration.
    adopt: bool,
    prune: bool,
    /// The [`Document`].
    plan: Json,
}

/// Of everything that the file declares, with the environment's part.
fn digest(pipeline: &Pipeline) -> String {
    let declared = Pipeline { directory: Default::default(), ..pipeline.clone() };
    Sha256::digest(format!("{declared:?}")).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Saved {
    /// What [`Saved::write`] writes.
    ///
    /// # Errors
    /// The document cannot be brought into JSON.
    pub fn new(pipeline: &Pipeline, allowed: Allowed, document: &Document) -> Result<Self, Error> {
        Ok(Self {
            format: FORMAT,
            provisioner: env!("CARGO_PKG_VERSION").to_owned(),
            declaration_sha256: digest(pipeline),
            adopt: allowed.adopt,
            prune: allowed.prune,
            plan: serde_json::to_value(document).map_err(Error::Json)?,
        })
    }

    /// Writes it whole or not at all, for its owner's eyes.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let failed = |source| Error::Io {
            doing: format!("write the plan to {}", path.display()),
            help: "choose another file with --out".to_owned(),
            source,
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let text = serde_json::to_string_pretty(self).map_err(Error::Json)?;
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        writeln!(file, "{text}").map_err(failed)?;
        file.persist(path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// Reads one.
    ///
    /// # Errors
    /// It cannot be read, is none, or was written by another version of this program.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io {
            doing: format!("read the plan {}", path.display()),
            help: "make one with plan --out".to_owned(),
            source,
        })?;
        let refused = |why: String| Error::Refused {
            what: format!("{} {why}", path.display()),
            help: "make a plan with plan --out".to_owned(),
        };
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
    #[must_use]
    pub fn allowed(&self) -> Allowed {
        Allowed { adopt: self.adopt, prune: self.prune }
    }

    /// Holds it against the plan as it is now.
    ///
    /// # Errors
    /// Everything that has moved.
    pub fn check(&self, pipeline: &Pipeline, now: &Document) -> Result<(), Error> {
        let now = serde_json::to_value(now).map_err(Error::Json)?;
        let mut moved = Vec::new();
        for key in ["pipeline", "environment", "region", "account"] {
            if self.plan[key] != now[key] {
                moved.push(format!("{key}: {} was planned, and this is {}", self.plan[key], now[key]));
            }
        }
        if moved.is_empty() {
            moved.extend(moved_resources(&self.plan, &now));
            if self.declaration_sha256 != digest(pipeline) {
                moved.push("the declaration: it does not say what it said when the plan was made".to_owned());
            }
        }
        if moved.is_empty() {
            return Ok(());
        }
        Err(Error::Refused {
            what: format!("the plan no longer holds, so nothing was done. What has moved:\n  {}", moved.join("\n  ")),
            help: "make a new plan with plan --out, look at it, and apply that".to_owned(),
        })
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

fn moved_resources(then: &Json, now: &Json) -> Vec<String> {
    let mut moved = Vec::new();
    let (before, after) = (resources(then), resources(now));
    for old in &before {
        let name = name(old);
        let Some(new) = after.iter().find(|new| self::name(new) == name) else {
            moved.push(format!("{name}: {} was planned, and it is as declared now", old["action"]));
            continue;
        };
        if old["action"] != new["action"] {
            moved.push(format!("{name}: {} was planned, and now it would be {}", old["action"], new["action"]));
            continue;
        }
        moved.extend(moved_settings(&name, &old["changes"], &new["changes"]));
    }
    for new in after.iter().filter(|new| !before.iter().any(|old| name(old) == name(new))) {
        moved.push(format!("{}: nothing was planned, and now it would be {}", name(new), new["action"]));
    }
    moved
}

fn moved_settings(name: &str, then: &Json, now: &Json) -> Vec<String> {
    let settings = |changes: &Json| -> Vec<(String, Json, Json)> {
        let changes = changes.as_array().map(Vec::as_slice).unwrap_or_default();
        let setting = |change: &Json| change["setting"].as_str().unwrap_or_default().to_owned();
        changes.iter().map(|c| (setting(c), without_revision(&c["live"]), without_revision(&c["desired"]))).collect()
    };
    let (then, now) = (settings(then), settings(now));
    let mut moved = Vec::new();
    for (setting, live, desired) in &then {
        match now.iter().find(|(other, ..)| other == setting) {
            None => moved.push(format!("{name}: {setting} is as declared now")),
            Some((_, now_live, _)) if now_live != live => {
                moved.push(format!("{name}: {setting} was {live}, and is {now_live} now"));
            }
            Some((.., now_desired)) if now_desired != desired => {
                moved.push(format!("{name}: {setting} was to become {desired}, and now {now_desired}"));
            }
            Some(_) => {}
        }
    }
    for (setting, ..) in now.iter().filter(|(setting, ..)| !then.iter().any(|(other, ..)| other == setting)) {
        moved.push(format!("{name}: {setting} would change now too"));
    }
    moved
}
