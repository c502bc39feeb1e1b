//! The calls that change a table, each with the wait for its effect.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, UNIX_EPOCH};

use aws_sdk_applicationautoscaling::types::ServiceNamespace;
use aws_sdk_dynamodb::primitives::DateTime;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, CreateGlobalSecondaryIndexAction, DeleteGlobalSecondaryIndexAction,
    GlobalSecondaryIndexUpdate, IndexStatus, KeySchemaElement, KeyType, PointInTimeRecoverySpecification,
    ProvisionedThroughput, ScalarAttributeType, SseSpecification, SseType, StreamSpecification, StreamViewType,
    TableDescription, TableStatus, Tag, TimeToLiveSpecification, UpdateGlobalSecondaryIndexAction,
};
use jiff::Timestamp;
use serde_json::Value as Json;

use crate::aws::{
    Aws, AwsError, Call, Openings, Pauses, ResourceError, Wait, absent_on, policy, retry_while, wait_until,
};
use crate::config::Billing;
use crate::error::Error;
use crate::reconcile::resource::StepContext;

use super::life::{LEDGER_LIFE, Life};
use super::state::{Attribute, Live, Table, billing_json};

/// The time limit in seconds. DynamoDB creates a table, or an index of an empty table, within seconds. An index of a
/// large table may need hours; a later run then finds it.
pub(super) const TABLE_DEADLINE: u64 = 300;

/// The age below which a table may seem to have no tags. DynamoDB lists them within seconds.
const YOUNG: Duration = Duration::from_secs(60);

pub(super) fn keys(hash: Attribute, range: Attribute) -> Result<Vec<KeySchemaElement>, Error> {
    [(hash, KeyType::Hash), (range, KeyType::Range)]
        .into_iter()
        .map(|((name, _), role)| {
            KeySchemaElement::builder().attribute_name(name).key_type(role).build().map_err(Error::from)
        })
        .collect()
}

/// Returns whether another change of the table or of a setting is in flight, which is transient.
pub(super) fn is_busy(error: &AwsError) -> bool {
    match error.code() {
        Some("ResourceInUseException" | "ContinuousBackupsUnavailableException") => true,
        // The limit of tables in the account has the same code but is not transient. Only the message differs.
        Some("LimitExceededException") => error.says("LimitExceededException", "simultaneously"),
        _ => false,
    }
}

impl Table {
    pub(super) fn attributes(&self) -> Result<Vec<AttributeDefinition>, Error> {
        let mut all = vec![self.hash, self.range];
        all.extend(self.index.iter().flat_map(|index| [index.hash, index.range]));
        all.sort_unstable();
        all.dedup();
        let define = |(name, letter): Attribute| {
            let attribute = AttributeDefinition::builder().attribute_name(name);
            attribute.attribute_type(ScalarAttributeType::from(letter)).build().map_err(Error::from)
        };
        all.into_iter().map(define).collect()
    }

    pub(super) fn throughput(&self) -> Result<Option<ProvisionedThroughput>, Error> {
        let Billing::Provisioned { read, write } = self.billing else {
            return Ok(None);
        };
        let units = ProvisionedThroughput::builder().read_capacity_units(read).write_capacity_units(write);
        Ok(Some(units.build()?))
    }

    pub(super) fn billing_mode(&self) -> BillingMode {
        match self.billing {
            Billing::OnDemand => BillingMode::PayPerRequest,
            Billing::Provisioned { .. } => BillingMode::Provisioned,
        }
    }

    /// Returns the desired tags beside the live ones.
    pub(super) fn tags_beside(&self, live: Option<&Live>) -> BTreeMap<String, String> {
        let mut tags = self.tags.clone();
        if self.ttl.is_some() {
            let live = live.and_then(|live| live.tags.get(LEDGER_LIFE));
            let life = Life::beside(self.life, live.map(String::as_str), Timestamp::now());
            tags.extend(life.map(|life| (LEDGER_LIFE.to_owned(), life.to_string())));
        }
        tags
    }

    pub(super) fn aws_tags(&self, live: Option<&Live>) -> Result<Vec<Tag>, Error> {
        let tag = |(key, value)| Tag::builder().key(key).value(value).build().map_err(Error::from);
        self.tags_beside(live).into_iter().map(tag).collect()
    }

    pub(super) async fn describe(&self, aws: &Aws) -> Result<Option<TableDescription>, AwsError> {
        let answer = aws.dynamodb.describe_table().table_name(&self.name).send().await;
        let found = absent_on(answer.call("dynamodb:DescribeTable"), &["ResourceNotFoundException"])?;
        Ok(found.and_then(|answer| answer.table))
    }

    pub(super) async fn is_absent_or_deleting(&self, aws: &Aws) -> Result<bool, AwsError> {
        let table = self.describe(aws).await?;
        Ok(table.is_none_or(|table| table.table_status == Some(TableStatus::Deleting)))
    }

    /// Waits until no change of the table or of an index is in flight. A new table may not be found yet (eventual
    /// consistency).
    pub(super) async fn wait_until_active(&self, step: &StepContext<'_>, is_new: bool) -> Result<(), ResourceError> {
        let waiting = step.wait(format!("table {} to become ACTIVE", self.name), TABLE_DEADLINE);
        wait_until(waiting, || async {
            let Some(table) = self.describe(step.aws).await? else {
                if is_new {
                    return Ok(None);
                }
                return Err(Error::conflict(
                    format!("table {} was deleted concurrently by another process", self.name),
                    "wait for the other process to finish, then run the command again",
                )
                .into());
            };
            let indexes = table.global_secondary_indexes();
            let active = table.table_status == Some(TableStatus::Active)
                && indexes.iter().all(|index| index.index_status == Some(IndexStatus::Active));
            Ok(active.then_some(()))
        })
        .await
    }

    pub(super) async fn put_ttl(&self, step: &StepContext<'_>, live: &Live) -> Result<(), ResourceError> {
        let (attribute, enabled) = match (self.ttl, &live.ttl) {
            (Some(attribute), _) => (attribute.to_owned(), true),
            (None, Some(attribute)) => (attribute.clone(), false),
            (None, None) => return Ok(()),
        };
        let specification = TimeToLiveSpecification::builder().attribute_name(attribute).enabled(enabled).build()?;
        let answer =
            retry_while(step.wait("the table to accept its time to live", TABLE_DEADLINE), is_busy, || async {
                let request = step.aws.dynamodb.update_time_to_live().table_name(&self.name);
                request.time_to_live_specification(specification.clone()).send().await.call("dynamodb:UpdateTimeToLive")
            })
            .await;
        match answer {
            Ok(_) => Ok(()),
            // Already in sync; DynamoDB has no separate error code for this.
            Err(ResourceError::Call(error)) if error.says("ValidationException", "already") => Ok(()),
            // DynamoDB accepts about one change an hour. No other step depends on it, and the next plan shows it again.
            Err(ResourceError::Call(error)) if error.says("ValidationException", "multiple times") => {
                (step.on_wait)(
                    "DynamoDB to accept another change of its time to live: the next apply retries the change",
                    Duration::ZERO,
                );
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }

    pub(super) async fn put_recovery(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let on = self.point_in_time_recovery.value;
        let specification = PointInTimeRecoverySpecification::builder().point_in_time_recovery_enabled(on).build()?;
        retry_while(step.wait("the table's backups to become available", TABLE_DEADLINE), is_busy, || async {
            let request = step.aws.dynamodb.update_continuous_backups().table_name(&self.name);
            let request = request.point_in_time_recovery_specification(specification.clone());
            request.send().await.call("dynamodb:UpdateContinuousBackups")
        })
        .await?;
        Ok(())
    }

    /// Calls UpdateTable once DynamoDB accepts another change, and waits until that change is complete.
    pub(super) async fn update_table(
        &self,
        step: &StepContext<'_>,
        change: impl Fn(
            aws_sdk_dynamodb::operation::update_table::builders::UpdateTableFluentBuilder,
        ) -> aws_sdk_dynamodb::operation::update_table::builders::UpdateTableFluentBuilder
        + Send
        + Sync,
    ) -> Result<(), ResourceError> {
        retry_while(step.wait("the table to accept another change", TABLE_DEADLINE), is_busy, || async {
            let request = change(step.aws.dynamodb.update_table().table_name(&self.name));
            request.send().await.call("dynamodb:UpdateTable")
        })
        .await?;
        self.wait_until_active(step, false).await
    }

    pub(super) async fn put_billing(&self, step: &StepContext<'_>, live: &Live) -> Result<(), ResourceError> {
        let (throughput, mode) = (self.throughput()?, self.billing_mode());
        let is_changed = |live: &Option<Json>| live.as_ref() != Some(&billing_json(self.billing));
        let mut resized = Vec::new();
        if let Some(index) = self.index.as_ref().filter(|_| live.index.is_some() && is_changed(&live.index_billing)) {
            resized.push(index.name);
        }
        // The change from on-demand to provisioned must name every index of the table (seen in reports of
        // ValidationException). The indexes of others get the units of the table; later, their units are left alone.
        if live.billing == Some(billing_json(Billing::OnDemand)) {
            resized.extend(live.unmanaged_indexes.iter().map(String::as_str));
        }
        let mut resizes = Vec::new();
        for (name, units) in resized.into_iter().zip(std::iter::repeat(&throughput)) {
            let Some(units) = units else { break };
            let update = UpdateGlobalSecondaryIndexAction::builder().index_name(name);
            let update = update.provisioned_throughput(units.clone()).build()?;
            resizes.push(GlobalSecondaryIndexUpdate::builder().update(update).build());
        }
        // DynamoDB refuses an update that does not change the throughput.
        let table = is_changed(&live.billing);
        let resizes = (!resizes.is_empty()).then_some(resizes);
        let updated = self
            .update_table(step, |mut request| {
                if table {
                    request = request.billing_mode(mode.clone()).set_provisioned_throughput(throughput.clone());
                }
                request.set_global_secondary_index_updates(resizes.clone())
            })
            .await;
        match updated {
            // DynamoDB limits the changes of mode and units per day; its error names the limit and the last change.
            Err(ResourceError::Call(error)) if error.code() == Some("LimitExceededException") => Err(Error::conflict(
                format!("DynamoDB limits changes of the billing of table {}: {error}", self.name),
                "run apply again 24 hours after the last change, or revert table.billing until then",
            )
            .into()),
            result => result,
        }
    }

    pub(super) async fn put_index(&self, step: &StepContext<'_>, live: &Live) -> Result<(), ResourceError> {
        let Some(index) = &self.index else {
            return Ok(());
        };
        if live.index.is_some() {
            let delete = DeleteGlobalSecondaryIndexAction::builder().index_name(index.name).build()?;
            let delete = GlobalSecondaryIndexUpdate::builder().delete(delete).build();
            self.update_table(step, |request| request.global_secondary_index_updates(delete.clone())).await?;
            let waiting = step.wait("the old index to be deleted", TABLE_DEADLINE);
            wait_until(waiting, || async {
                let table = self.describe(step.aws).await?;
                let is_deleted = table.is_some_and(|t| {
                    t.global_secondary_indexes().iter().all(|i| i.index_name.as_deref() != Some(index.name))
                });
                Ok(is_deleted.then_some(()))
            })
            .await?;
        }
        let create = CreateGlobalSecondaryIndexAction::builder()
            .index_name(index.name)
            .set_key_schema(Some(keys(index.hash, index.range)?))
            .projection(index.projection())
            .set_provisioned_throughput(self.throughput()?)
            .build()?;
        let create = GlobalSecondaryIndexUpdate::builder().create(create).build();
        let attributes = self.attributes()?;
        self.update_table(step, |request| {
            request.set_attribute_definitions(Some(attributes.clone())).global_secondary_index_updates(create.clone())
        })
        .await
    }

    /// Returns the encryption with the declared KMS key, or `None` for DynamoDB's own key.
    pub(super) fn encryption(&self) -> Option<SseSpecification> {
        let key = self.kms_key.as_ref()?;
        Some(SseSpecification::builder().enabled(true).sse_type(SseType::Kms).kms_master_key_id(key).build())
    }

    pub(super) fn stream_specification(&self) -> Result<Option<StreamSpecification>, Error> {
        let Some(view) = self.stream else { return Ok(None) };
        let stream = StreamSpecification::builder().stream_enabled(true).stream_view_type(StreamViewType::from(view));
        Ok(Some(stream.build()?))
    }

    pub(super) async fn put_stream(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let stream = self.stream_specification()?;
        self.update_table(step, |request| request.set_stream_specification(stream.clone())).await
    }

    pub(super) async fn put_encryption(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        self.update_table(step, |request| request.set_sse_specification(self.encryption())).await
    }

    /// Returns whether Application Auto Scaling sets the units of the table or of its index.
    pub(super) async fn is_scaled(&self, aws: &Aws) -> Result<bool, AwsError> {
        let table = format!("table/{}", self.name);
        let index = self.index.as_ref().map(|index| format!("{table}/index/{}", index.name));
        let ids: Vec<String> = std::iter::once(table).chain(index).collect();
        let request = aws.autoscaling.describe_scalable_targets().service_namespace(ServiceNamespace::Dynamodb);
        let answer = request.set_resource_ids(Some(ids)).send().await;
        let answer = answer.call("application-autoscaling:DescribeScalableTargets");
        // Not every local AWS has this service; an answer without an error code is not from AWS.
        let unknown = ["", "UnknownOperationException", "UnknownOperation", "NotImplemented", "InvalidAction"];
        let targets = absent_on(answer, &unknown)?.and_then(|answer| answer.scalable_targets);
        Ok(targets.is_some_and(|targets| !targets.is_empty()))
    }

    /// Reads the tags again if there are none. DynamoDB may return none for a new table (API reference,
    /// ListTagsOfResource), so they are read until the table is [`YOUNG`] no longer, or is deleted.
    pub(super) async fn late_tags(
        &self,
        aws: &Aws,
        mut tags: BTreeMap<String, String>,
        created: Option<DateTime>,
    ) -> Result<BTreeMap<String, String>, ResourceError> {
        let age = created.map_or(YOUNG, |created| {
            let created = UNIX_EPOCH + Duration::from_secs_f64(created.as_secs_f64().max(0.0));
            created.elapsed().unwrap_or_default()
        });
        let started = Instant::now();
        let wait = Wait { what: format!("the tags of table {}", self.name), deadline: YOUNG, on_wait: &|_, _| {} };
        let mut pauses = Pauses::new(wait);
        while tags.is_empty() && age.saturating_add(started.elapsed()) < YOUNG {
            pauses.next(None).await?;
            let (table, again) = tokio::try_join!(self.describe(aws), self.tags(aws))?;
            if table.is_none() {
                break;
            }
            tags = again;
        }
        Ok(tags)
    }

    /// Reads the openings of the table's policy.
    pub(super) async fn openings(&self, aws: &Aws) -> Result<Openings, ResourceError> {
        let answer = aws.dynamodb.get_resource_policy().resource_arn(&self.arn).send().await;
        let absent = ["PolicyNotFoundException", "ResourceNotFoundException"];
        let answer = absent_on(answer.call("dynamodb:GetResourcePolicy"), &absent)?;
        let Some(text) = answer.and_then(|answer| answer.policy) else { return Ok(Openings::default()) };
        let document = policy::parse(&text, || format!("read the policy of table {}", self.name))?;
        Ok(Openings::of(&document, policy::account_of(&self.arn).unwrap_or_default()))
    }

    /// Reads the tags; those of an absent table are none.
    pub(super) async fn tags(&self, aws: &Aws) -> Result<BTreeMap<String, String>, AwsError> {
        let mut tags = BTreeMap::new();
        let mut token = None;
        loop {
            let request = aws.dynamodb.list_tags_of_resource().resource_arn(&self.arn);
            let page = request.set_next_token(token).send().await.call("dynamodb:ListTagsOfResource");
            // The tags of a new table may not be found yet.
            let Some(page) = absent_on(page, &["ResourceNotFoundException"])? else { return Ok(tags) };
            tags.extend(page.tags.unwrap_or_default().into_iter().map(|tag| (tag.key, tag.value)));
            token = page.next_token;
            if token.is_none() {
                return Ok(tags);
            }
        }
    }

    pub(super) async fn put_deletion_protection(&self, step: &StepContext<'_>, on: bool) -> Result<(), ResourceError> {
        self.update_table(step, |request| request.deletion_protection_enabled(on)).await
    }
}
