//! The settings that the provisioner passes to the function in its environment.

use std::collections::BTreeSet;

use counting::names::env;

/// The function's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Name of the counts table.
    pub counts_table: String,
    /// Name of the ledger table.
    pub ledger_table: String,
    /// The Segment message types that are counted.
    pub count: BTreeSet<String>,
    /// Days after which a marker may expire; `None` if the bucket keeps its objects forever.
    pub ledger_ttl_days: Option<u32>,
}

/// A variable that is missing or invalid. Apply sets all of them, so the function was changed by hand.
#[derive(Debug, thiserror::Error)]
#[error("the environment variable {name} {why}: run `provisioner apply`")]
pub struct SettingsError {
    name: &'static str,
    why: &'static str,
}

impl Settings {
    /// Reads the settings from the environment variables.
    ///
    /// # Errors
    /// [`SettingsError`] for the first variable that is missing or invalid.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let required = |name| variable(name).filter(|v| !v.is_empty()).ok_or(SettingsError { name, why: "is missing" });
        let ledger_ttl_days = match variable(env::LEDGER_TTL_DAYS) {
            None => None,
            Some(days) => Some(
                days.parse()
                    .map_err(|_| SettingsError { name: env::LEDGER_TTL_DAYS, why: "is not a number of days" })?,
            ),
        };
        Ok(Self {
            counts_table: required(env::COUNTS_TABLE)?,
            ledger_table: required(env::LEDGER_TABLE)?,
            count: required(env::COUNT_TYPES)?.split(',').map(str::to_owned).collect(),
            ledger_ttl_days,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_variable_is_named_in_the_error() {
        let error = Settings::from_variables(|_| None).expect_err("nothing is set");
        assert!(error.to_string().contains(env::COUNTS_TABLE), "{error}");
    }
}
