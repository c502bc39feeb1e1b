//! The desired and the live state of a table, in the form in which they are compared and shown.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, Projection, ProjectionType, TableDescription,
};
use serde_json::{Value as Json, json};

use crate::aws::Openings;
use crate::config::{Billing, Setting};

/// A key attribute: its name, and DynamoDB's letter for its type.
pub(super) type Attribute = (&'static str, &'static str);

/// The desired state of a table.
#[derive(Debug, Clone)]
pub(in crate::resources) struct Table {
    pub(super) name: String,
    pub(super) arn: String,
    pub(super) hash: Attribute,
    pub(super) range: Attribute,
    pub(super) index: Option<Index>,
    pub(super) ttl: Option<&'static str>,
    /// The days after which its items expire, if they do.
    pub(super) life: Option<u32>,
    /// The view type of its stream, if functions read it.
    pub(super) stream: Option<&'static str>,
    pub(super) billing: Billing,
    pub(super) point_in_time_recovery: Setting<bool>,
    pub(super) deletion_protection: Setting<bool>,
    /// The ARN of the KMS key that encrypts the table.
    pub(super) kms_key: Option<String>,
    /// The ARN pattern of every table.
    pub(super) every_table: String,
    pub(super) tags: BTreeMap<String, String>,
}

/// A global secondary index of all attributes.
#[derive(Debug, Clone)]
pub(super) struct Index {
    pub(super) name: &'static str,
    pub(super) hash: Attribute,
    pub(super) range: Attribute,
}

impl Index {
    pub(super) fn projection(&self) -> Projection {
        Projection::builder().projection_type(ProjectionType::All).build()
    }

    pub(super) fn to_json(&self) -> Json {
        let mut json = keys_json(self.hash, self.range);
        json["projection"] = projection_json(Some(&self.projection()));
        json
    }
}

pub(super) fn projection_json(projection: Option<&Projection>) -> Json {
    let kind = projection.and_then(|p| p.projection_type.as_ref()).map(ProjectionType::as_str);
    match projection.map(Projection::non_key_attributes).unwrap_or_default() {
        [] => json!(kind),
        some => json!(format!("{} {}", kind.unwrap_or_default(), some.join(", "))),
    }
}

/// The live state of a table.
#[derive(Debug, Default)]
pub(in crate::resources) struct Live {
    pub(super) keys: Json,
    pub(super) index: Option<Json>,
    pub(super) billing: Option<Json>,
    pub(super) index_billing: Option<Json>,
    /// The names of the indexes that the pipeline does not own.
    pub(super) unmanaged_indexes: Vec<String>,
    /// True if Application Auto Scaling sets the units. Read only if the units differ.
    pub(super) is_scaled: bool,
    /// The ARN of the KMS key, if the table is encrypted with one instead of DynamoDB's own.
    pub(super) kms_key: Option<String>,
    pub(super) ttl: Option<String>,
    pub(super) point_in_time_recovery: bool,
    pub(super) deletion_protection: bool,
    pub(super) tags: BTreeMap<String, String>,
    /// The openings of its policy.
    pub(super) openings: Openings,
    /// The view type of its stream, if it has one.
    pub(super) stream: Option<String>,
}

pub(super) fn keys_json(hash: (&str, &str), range: (&str, &str)) -> Json {
    json!({ "partition": format!("{} ({})", hash.0, hash.1), "sort": format!("{} ({})", range.0, range.1) })
}

pub(super) fn live_keys_json(keys: &[KeySchemaElement], attributes: &[AttributeDefinition]) -> Json {
    let of = |role: KeyType| {
        let key = keys.iter().find(|key| key.key_type == role)?;
        let attribute = attributes.iter().find(|a| a.attribute_name == key.attribute_name)?;
        Some(format!("{} ({})", attribute.attribute_name, attribute.attribute_type.as_str()))
    };
    json!({ "partition": of(KeyType::Hash), "sort": of(KeyType::Range) })
}

pub(super) fn billing_json(billing: Billing) -> Json {
    match billing {
        Billing::OnDemand => json!("on-demand"),
        Billing::Provisioned { read, write } => json!({ "read": read, "write": write }),
    }
}

/// Returns the live billing. A table without a summary of its billing mode is provisioned: DynamoDB introduced the
/// summary with on-demand billing.
pub(super) fn live_billing_json(description: &TableDescription) -> Json {
    let on_demand = description
        .billing_mode_summary
        .as_ref()
        .is_some_and(|summary| summary.billing_mode == Some(BillingMode::PayPerRequest));
    if on_demand {
        return json!("on-demand");
    }
    let units = description.provisioned_throughput.as_ref();
    json!({
        "read": units.and_then(|u| u.read_capacity_units),
        "write": units.and_then(|u| u.write_capacity_units),
    })
}
