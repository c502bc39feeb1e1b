//! `[table]`

use std::ops::Range;

use counting::plan::ADDITIONS_PER_CHUNK;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::check::{Check, Maybe};
use super::key::{Key, key};
use super::rules;
use super::setting::Setting;
use crate::text::grouped;

/// DynamoDB's default quota of capacity units for a table, in every region (DynamoDB quotas).
const MOST_UNITS: i64 = 40_000;
/// The value of `table.billing` for a price per request.
const ON_DEMAND: &str = "on-demand";

/// The tables.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Table {
    /// The name of the counts table.
    pub(crate) counts: String,
    /// The name of the daily table.
    pub(crate) daily: String,
    /// The name of the ledger table.
    pub(crate) ledger: String,
    /// The name of the breakdowns table, which exists if there are breakdowns.
    pub(crate) breakdowns: String,
    /// The billing of the tables and of their indexes.
    pub(crate) billing: Billing,
    /// True if the tables can be restored to any second of the last 35 days.
    pub(crate) point_in_time_recovery: Setting<bool>,
    /// True if DynamoDB refuses to delete the tables.
    pub(crate) deletion_protection: Setting<bool>,
    /// The ARN of the KMS key that encrypts the tables; without one, DynamoDB's own key.
    pub(crate) kms_key: Option<String>,
}

/// The billing of reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Billing {
    /// Per request.
    OnDemand,
    /// Per hour, for a number of capacity units.
    Provisioned {
        /// Read capacity units.
        read: i64,
        /// Write capacity units.
        write: i64,
    },
}

/// The write units of a table that one transaction needs: half of its additions, of two units each.
const UNITS_A_TRANSACTION: i64 = 2 * (ADDITIONS_PER_CHUNK as i64 / 2);
/// The write units of a table for an object of 100 pairs that is counted alone: two for each pair.
const UNITS_ALONE: i64 = 200;
/// The write units of a table for an object in a batch of 50 that share these pairs, at most those of the ledger: two for
/// the claim, one for the record, and a share of the plan (docs/scale.md).
const UNITS_IN_A_BATCH: i64 = 5;
/// The most batches at the same time that conflict rarely (docs/scale.md), and the least that Lambda accepts (API
/// reference, ScalingConfig).
const MOST_BATCHES: i64 = 8;
const LEAST_BATCHES: i64 = 2;
/// The objects a second of a backfill that leave room for new ones.
const MOST_OBJECTS_A_SECOND: i64 = 50;

impl Billing {
    /// Returns the number of batches at the same time that the tables carry.
    pub(crate) fn batches_at_once(self) -> i32 {
        let batches = match self {
            Self::OnDemand => MOST_BATCHES,
            Self::Provisioned { write, .. } => (write / UNITS_A_TRANSACTION).clamp(LEAST_BATCHES, MOST_BATCHES),
        };
        i32::try_from(batches).unwrap_or(i32::MAX)
    }

    /// Returns the objects a second of a backfill that the tables carry.
    pub(crate) fn objects_a_second(self) -> u32 {
        let objects = match self {
            Self::OnDemand => MOST_OBJECTS_A_SECOND,
            Self::Provisioned { write, .. } => (write / UNITS_IN_A_BATCH).clamp(1, MOST_OBJECTS_A_SECOND),
        };
        u32::try_from(objects).unwrap_or(u32::MAX)
    }

    /// Returns in words what provisioned capacity carries.
    pub(crate) fn carries(self) -> Option<String> {
        let Self::Provisioned { write, .. } = self else { return None };
        let hourly = |units: i64| grouped(3_600 * write / units);
        let mut text = format!(
            "{} write units a second carry about {} objects of 100 pairs an hour one by one, and {} in batches of 50 with \
             the same pairs; the others wait",
            grouped(write),
            hourly(UNITS_ALONE),
            hourly(UNITS_IN_A_BATCH),
        );
        if write < UNITS_A_TRANSACTION {
            text.push_str(&format!(
                "; a transaction needs up to {UNITS_A_TRANSACTION} at once, which DynamoDB takes from what the last five \
                 minutes have left"
            ));
        }
        Some(text)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    name: Maybe<String>,
    daily_name: Maybe<String>,
    ledger_name: Maybe<String>,
    breakdowns_name: Maybe<String>,
    billing: Maybe<RawBilling>,
    point_in_time_recovery: Option<bool>,
    deletion_protection: Option<bool>,
    kms_key: Maybe<String>,
}

pub(super) const KEYS: &[Key] = &[
    key("table.name", "name = \"segment-events-counts\"", "NAME-counts", "Name of the counts table.")
        .text(rules::TABLE_NAME),
    key("table.daily_name", "daily_name = \"segment-events-daily\"", "NAME-daily", "Name of the daily table.")
        .text(rules::TABLE_NAME),
    key("table.ledger_name", "ledger_name = \"segment-events-ledger\"", "NAME-ledger", "Name of the ledger table.")
        .text(rules::TABLE_NAME),
    key(
        "table.breakdowns_name",
        "breakdowns_name = \"segment-events-breakdowns\"",
        "NAME-breakdowns",
        "Name of the breakdowns table; it exists with `rollup.by`.",
    )
    .text(rules::TABLE_NAME),
    key(
        "table.billing",
        "billing = \"on-demand\"",
        "\"on-demand\"",
        "\"on-demand\", or capacity units for each table and each index: { read = 5, write = 5 }.",
    )
    .capacity(ON_DEMAND, 1, MOST_UNITS),
    key(
        "table.point_in_time_recovery",
        "point_in_time_recovery = true",
        "true",
        "Keep the tables restorable to any second of the last 35 days.",
    ),
    key(
        "table.deletion_protection",
        "deletion_protection = true",
        "true",
        "Make DynamoDB refuse to delete the tables.",
    ),
    key(
        "table.kms_key",
        "kms_key = \"arn:aws:kms:us-east-1:123456789012:key/EXAMPLE\"",
        "DynamoDB's key",
        "ARN of the KMS key with which DynamoDB encrypts the tables.",
    )
    .form(rules::KMS_KEY_FORM),
];

/// `"on-demand"`, or capacity units for each table and each index.
#[derive(Debug)]
enum RawBilling {
    Named(String),
    Provisioned { read: i64, write: i64 },
}

impl<'de> Deserialize<'de> for RawBilling {
    // Implemented by hand, since serde's untagged enums lose the position of a mistake within the value.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Capacity {
            read: i64,
            write: i64,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = RawBilling;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"on-demand\" or { read = 5, write = 5 }")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<RawBilling, E> {
                Ok(RawBilling::Named(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawBilling, A::Error> {
                let Capacity { read, write } = Capacity::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RawBilling::Provisioned { read, write })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Raw {
    pub(super) fn check(self, check: &mut Check<'_>, base: &str, region: Option<&str>) -> Table {
        let mut names: Vec<(String, Maybe<String>, &str, &str)> = Vec::new();
        for (given, key, table) in [
            (self.name, "table.name", "counts"),
            (self.daily_name, "table.daily_name", "daily"),
            (self.ledger_name, "table.ledger_name", "ledger"),
            (self.breakdowns_name, "table.breakdowns_name", "breakdowns"),
        ] {
            let name = check.text(given.clone(), key).unwrap_or_else(|| format!("{base}-{table}"));
            if let Some((_, other_given, other_key, other)) = names.iter().find(|(other, ..)| *other == name) {
                match given {
                    Some(_) => check.duplicate(given.as_ref(), key, &format!("the name of the {other} table")),
                    None => check.duplicate(other_given.as_ref(), other_key, &format!("the name of the {table} table")),
                }
            }
            names.push((name, given, key, table));
        }
        let mut names = names.into_iter().map(|(name, ..)| name);
        let mut name = || names.next().unwrap_or_default();
        let billing = self.billing.map_or(Billing::OnDemand, |billing| {
            let span = billing.span();
            check_billing(check, &span, &billing.into_inner())
        });
        Table {
            counts: name(),
            daily: name(),
            ledger: name(),
            breakdowns: name(),
            billing,
            point_in_time_recovery: Setting::new(self.point_in_time_recovery, true),
            deletion_protection: Setting::new(self.deletion_protection, true),
            kms_key: check.text_by(self.kms_key, "table.kms_key", |arn| rules::kms_key(arn, region)),
        }
    }
}

fn check_billing(check: &mut Check<'_>, span: &Range<usize>, raw: &RawBilling) -> Billing {
    match raw {
        RawBilling::Named(name) if name == ON_DEMAND => Billing::OnDemand,
        RawBilling::Named(name) => {
            let label = format!("`{}` is not a billing mode", name.escape_debug());
            let help = "write billing = \"on-demand\" or billing = { read = 5, write = 5 }";
            check.mistake(span.clone(), "`table.billing` is unknown", label, help);
            Billing::OnDemand
        }
        RawBilling::Provisioned { read, write } => {
            if ![read, write].into_iter().all(|units| (1..=MOST_UNITS).contains(units)) {
                let label = format!("read {read}, write {write}");
                let help = format!("write 1 to {MOST_UNITS} capacity units each");
                check.mistake(span.clone(), "`table.billing` is out of range", label, help);
            }
            Billing::Provisioned { read: *read, write: *write }
        }
    }
}
