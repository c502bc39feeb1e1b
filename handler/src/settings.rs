//! The settings that the provisioner passes to the function in its environment.

use counting::names::env;
use counting::rollup::{Limits, Rules};

/// The function's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the counts table.
    pub counts_table: String,
    /// Name of the daily table.
    pub daily_table: String,
    /// Name of the ledger table.
    pub ledger_table: String,
    /// Name of the breakdowns table, if there are breakdowns.
    pub breakdowns_table: Option<String>,
    /// True if the ledger's markers say what was added.
    pub is_outbox: bool,
    /// Name of the bucket whose objects are counted.
    pub bucket: String,
    /// ID of the account that owns it.
    pub bucket_owner: String,
    /// The rules of counting.
    pub rules: Rules,
    /// Whether objects with the same content count each.
    pub counts_duplicates: bool,
    /// Days after which a claim may expire; `None` if the bucket keeps its objects forever.
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
        let number = |name| {
            let parse = |text: String| text.parse().map_err(|_| SettingsError { name, why: "is not a number" });
            variable(name).map(parse).transpose()
        };
        let list = |name| {
            let parse = |text: String| {
                serde_json::from_str(&text).map_err(|_| SettingsError { name, why: "is not a list of texts" })
            };
            variable(name).map_or(Ok(Vec::new()), parse)
        };
        let by: Vec<String> = list(env::BY)?;
        let limit: Option<u32> = number(env::BY_LIMIT)?;
        Ok(Self {
            counts_table: required(env::COUNTS_TABLE)?,
            daily_table: required(env::DAILY_TABLE)?,
            ledger_table: required(env::LEDGER_TABLE)?,
            breakdowns_table: if by.is_empty() { None } else { Some(required(env::BREAKDOWNS_TABLE)?) },
            is_outbox: variable(env::OUTBOX).is_some_and(|value| value == env::OUTBOX_ON),
            bucket: required(env::BUCKET)?,
            bucket_owner: required(env::BUCKET_OWNER)?,
            rules: Rules {
                types: required(env::COUNT_TYPES)?.split(',').map(str::to_owned).collect(),
                limits: Limits {
                    max_age_days: number(env::MAX_AGE_DAYS)?,
                    max_ahead_hours: number(env::MAX_AHEAD_HOURS)?,
                },
                sums: list(env::SUM)?,
                by,
                by_limit: limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)),
                namer: None,
            },
            counts_duplicates: variable(env::DUPLICATES).is_some_and(|value| value == env::DUPLICATES_COUNT),
            ledger_ttl_days: number(env::LEDGER_TTL_DAYS)?,
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
