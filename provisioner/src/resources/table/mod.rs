//! The DynamoDB tables: the counts, by event and, in an index, by hour; the daily counts; the ledger of counted objects,
//! by object and, in an index, by the hour of counting; and the breakdowns, if there are any.

mod calls;
pub(crate) mod life;
mod state;

use aws_sdk_dynamodb::types::{
    GlobalSecondaryIndex, IndexStatus, PointInTimeRecoveryStatus, SseStatus, SseType, TableStatus, TimeToLiveStatus,
};
use counting::names::{breakdowns, counts, daily, ledger};
use serde_json::{Value as Json, json};

use super::openings;
use crate::aws::{Aws, AwsError, Call, ResourceError, absent_on, resource_in, retry_while, wait_until};
use crate::config::{Billing, dropped_tags};
use crate::reconcile::diff::{Diff, SettingChange, touches};
use crate::reconcile::ownership::{self, Ownership};
use crate::reconcile::protection::Protection;
use crate::reconcile::resource::{IamActions, Refusal, Resource, StepContext};
use crate::resources::{Context, Kind};
use crate::text::counted;

use crate::aws::is_key;
use calls::{TABLE_DEADLINE, is_busy, keys};
pub(super) use state::Table;
use state::{Index, Live, billing_json, keys_json, live_billing_json, live_keys_json, projection_json};

const RECOVERY: Protection = Protection {
    setting: "point_in_time_recovery",
    key: "table.point_in_time_recovery",
    loss: "the table cannot be restored to an earlier time",
};

const DELETION_PROTECTION: Protection =
    Protection { setting: "deletion_protection", key: "table.deletion_protection", loss: "the table can be deleted" };

/// The view types of a stream that have the items as they were written.
const NEW_IMAGE: &str = "NEW_IMAGE";
const BOTH_IMAGES: &str = "NEW_AND_OLD_IMAGES";

impl Kind for Table {
    fn desired(context: &Context<'_>) -> Vec<Self> {
        let declared = &context.pipeline.table;
        let life = context.pipeline.bucket.ledger_ttl_days();
        let table = |name: &str, hash, range, index, ttl: Option<&'static str>| Self {
            name: name.to_owned(),
            arn: context.account.table_arn(name),
            hash,
            range,
            index,
            ttl,
            life: life.filter(|_| ttl.is_some()),
            stream: (name == declared.ledger && context.pipeline.has_ledger_stream()).then_some(NEW_IMAGE),
            billing: declared.billing,
            point_in_time_recovery: declared.point_in_time_recovery,
            deletion_protection: declared.deletion_protection,
            kms_key: declared.kms_key.clone(),
            every_table: context.account.table_arn("*"),
            tags: context.pipeline.tags.clone(),
        };
        let (event, hour) = ((counts::EVENT, "S"), (counts::HOUR, "S"));
        let by_hour = Index { name: counts::BY_HOUR, hash: hour, range: event };
        let by_counted_hour = Index {
            name: ledger::BY_COUNTED_HOUR,
            hash: (ledger::COUNTED_HOUR, "S"),
            range: (ledger::WRITTEN_AT, "N"),
        };
        let (object, chunk) = ((ledger::OBJECT, "S"), (ledger::CHUNK, "N"));
        let mut tables = vec![
            table(&declared.counts, event, hour, Some(by_hour), None),
            table(&declared.daily, (daily::DAY, "S"), event, None, None),
            table(&declared.ledger, object, chunk, Some(by_counted_hour), Some(ledger::EXPIRES_AT)),
        ];
        if !context.pipeline.rollup.by.is_empty() {
            let (breakdown, value) = ((breakdowns::BREAKDOWN, "S"), (breakdowns::HOUR_VALUE, "S"));
            tables.push(table(&declared.breakdowns, breakdown, value, None, None));
        }
        tables
    }

    fn name_from_arn(arn: &str) -> Option<String> {
        let name = resource_in(arn, "dynamodb")?.strip_prefix("table/")?;
        (!name.contains('/')).then(|| name.to_owned())
    }

    fn with_name(context: &Context<'_>, name: &str) -> Option<Self> {
        let like = Self::desired(context).into_iter().next()?;
        Some(Self { name: name.to_owned(), arn: context.account.table_arn(name), ..like })
    }
}

impl Resource for Table {
    const NAME: &'static str = "table";
    const HOLDS_DATA: bool = true;
    const ESSENTIAL: Option<&'static [&'static str]> = Some(&["key_schema"]);
    type Live = Live;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn arn(&self) -> String {
        self.arn.clone()
    }

    fn iam_actions(&self) -> Vec<IamActions> {
        let mut actions = vec![IamActions {
            resource: self.arn.clone(),
            read: &[
                "dynamodb:DescribeTable",
                "dynamodb:DescribeTimeToLive",
                "dynamodb:DescribeContinuousBackups",
                "dynamodb:ListTagsOfResource",
                "dynamodb:GetResourcePolicy",
            ],
            create: &[
                "dynamodb:CreateTable",
                "dynamodb:TagResource",
                "dynamodb:UpdateTimeToLive",
                "dynamodb:UpdateContinuousBackups",
            ],
            update: &[
                "dynamodb:TagResource",
                "dynamodb:UntagResource",
                "dynamodb:UpdateTable",
                "dynamodb:UpdateTimeToLive",
                "dynamodb:UpdateContinuousBackups",
            ],
            // UpdateTable disables the deletion protection before the deletion.
            delete: &["dynamodb:UpdateTable", "dynamodb:DeleteTable"],
            condition: None,
        }];
        // Proves that a table that was deleted or renamed is absent.
        let read: &[&str] = &["dynamodb:DescribeTable"];
        actions.push(IamActions { resource: self.every_table.clone(), read, ..IamActions::default() });
        if matches!(self.billing, Billing::Provisioned { .. }) {
            let read: &[&str] = &["application-autoscaling:DescribeScalableTargets"];
            actions.push(IamActions { resource: "*".to_owned(), read, ..IamActions::default() });
        }
        // DynamoDB checks the caller's permissions on the key (DynamoDB developer guide, encryption at rest).
        let keys: &[&str] = &[
            "kms:CreateGrant",
            "kms:Decrypt",
            "kms:DescribeKey",
            "kms:Encrypt",
            "kms:GenerateDataKey",
            "kms:ReEncryptFrom",
            "kms:ReEncryptTo",
        ];
        actions.extend(self.kms_key.clone().map(|resource| IamActions {
            resource,
            create: keys,
            update: keys,
            ..IamActions::default()
        }));
        actions
    }

    fn ownership(&self, live: &Live) -> Ownership {
        ownership::by_tags(&live.tags, &self.tags)
    }

    async fn data(&self, aws: &Aws, live: &Live) -> Result<String, ResourceError> {
        let items = self.describe(aws).await?.and_then(|table| table.item_count).unwrap_or_default();
        let items = counted(u64::try_from(items).unwrap_or_default(), "item");
        let protection = if live.deletion_protection { "; its deletion protection is turned off first" } else { "" };
        Ok(format!("about {items} (DynamoDB counts them every six hours){protection}"))
    }

    fn manual_deletion(&self) -> String {
        format!(
            "To delete it: aws dynamodb update-table --table-name {0} --no-deletion-protection-enabled, then \
             aws dynamodb delete-table --table-name {0}",
            self.name
        )
    }

    async fn read(&self, aws: &Aws) -> Result<Option<Live>, ResourceError> {
        let settings = async {
            tokio::try_join!(
                async {
                    let answer = aws.dynamodb.describe_time_to_live().table_name(&self.name).send().await;
                    Ok(answer.call("dynamodb:DescribeTimeToLive")?)
                },
                async {
                    let answer = aws.dynamodb.describe_continuous_backups().table_name(&self.name).send().await;
                    Ok(answer.call("dynamodb:DescribeContinuousBackups")?)
                },
                self.openings(aws),
                async { Ok(self.tags(aws).await?) },
            )
        };
        // All at once; the settings of an absent table do not matter.
        let (table, settings) = tokio::join!(self.describe(aws), settings);
        let Some(table) = table? else { return Ok(None) };
        // A table that is being deleted is still described. It counts as absent; its recreation waits for the deletion.
        if table.table_status == Some(TableStatus::Deleting) {
            return Ok(None);
        }
        let (ttl, backups, openings, tags) = settings?;
        let tags = self.late_tags(aws, tags, table.creation_date_time).await?;
        let attributes = table.attribute_definitions();
        let index = self.index.as_ref().and_then(|wanted| {
            // An index that is being deleted counts as absent; its recreation waits for the deletion.
            table.global_secondary_indexes().iter().find(|index| {
                index.index_name.as_deref() == Some(wanted.name) && index.index_status != Some(IndexStatus::Deleting)
            })
        });
        let index_billing = index.map(|index| match live_billing_json(&table) {
            Json::String(on_demand) => json!(on_demand),
            _ => {
                let units = index.provisioned_throughput.as_ref();
                json!({
                    "read": units.and_then(|u| u.read_capacity_units),
                    "write": units.and_then(|u| u.write_capacity_units),
                })
            }
        });
        let ttl = ttl.time_to_live_description.filter(|ttl| {
            matches!(ttl.time_to_live_status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling))
        });
        let recovery = backups
            .continuous_backups_description
            .and_then(|backups| backups.point_in_time_recovery_description)
            .and_then(|recovery| recovery.point_in_time_recovery_status);
        let billing = live_billing_json(&table);
        let differs = |live: &Json| live.is_object() && *live != billing_json(self.billing);
        let units_differ = differs(&billing) || index_billing.as_ref().is_some_and(differs);
        let is_provisioned = matches!(self.billing, Billing::Provisioned { .. });
        let is_unmanaged = |name: &&str| self.index.as_ref().is_none_or(|index| index.name != *name);
        let names = table.global_secondary_indexes().iter().filter_map(|index| index.index_name.as_deref());
        let sse = table.sse_description.as_ref().filter(|sse| sse.sse_type == Some(SseType::Kms));
        let sse = sse.filter(|sse| !matches!(sse.status, Some(SseStatus::Disabled | SseStatus::Disabling)));
        Ok(Some(Live {
            unmanaged_indexes: names.filter(is_unmanaged).map(str::to_owned).collect(),
            is_scaled: units_differ && is_provisioned && self.is_scaled(aws).await?,
            kms_key: sse.and_then(|sse| sse.kms_master_key_arn.clone()),
            keys: live_keys_json(table.key_schema(), attributes),
            index: index.map(|index| {
                let mut json = live_keys_json(index.key_schema(), attributes);
                json["projection"] = projection_json(index.projection.as_ref());
                json
            }),
            index_billing,
            billing: Some(billing),
            ttl: ttl.and_then(|ttl| ttl.attribute_name),
            point_in_time_recovery: recovery == Some(PointInTimeRecoveryStatus::Enabled),
            deletion_protection: table.deletion_protection_enabled == Some(true),
            openings,
            stream: table
                .stream_specification
                .filter(|stream| stream.stream_enabled)
                .map(|stream| stream.stream_view_type.map_or_else(String::new, |view| view.as_str().to_owned())),
            tags,
        }))
    }

    fn notes(&self, live: &Live) -> Vec<String> {
        let stream = || "its stream, which is undeclared and kept, shows every change to its readers".to_owned();
        let is_undeclared = live.stream.is_some() && self.stream.is_none();
        openings::notes(&live.openings).into_iter().chain(is_undeclared.then(stream)).collect()
    }

    fn problems(&self, live: &Live) -> Vec<Refusal> {
        let key = live.kms_key.as_ref().filter(|_| self.kms_key.is_none());
        let problem = key.map(|key| {
            Refusal::new(
                format!("is encrypted with the KMS key {key}, which the function's role may not use"),
                "declare its ARN as table.kms_key, which adds the permissions",
            )
        });
        problem.into_iter().collect()
    }

    fn compare(&self, live: Option<&Live>) -> Diff {
        let index = self.index.as_ref().map(Index::to_json);
        let billing = billing_json(self.billing);
        let diff = Diff::new().compare("key_schema", live.map(|l| &l.keys), &keys_json(self.hash, self.range)).compare(
            "index",
            live.and_then(|l| l.index.as_ref()),
            index.as_ref(),
        );
        let diff = if live.is_some_and(|live| live.is_scaled) {
            diff.keep("its capacity units are set by Application Auto Scaling, and are kept".to_owned())
        } else {
            diff.compare("billing", live.and_then(|l| l.billing.as_ref()), &billing).compare(
                "index_billing",
                live.and_then(|l| l.index_billing.as_ref()),
                // An absent index is created with the desired billing, so it has no drift of its own.
                live.and_then(|l| l.index_billing.as_ref()).map(|_| &billing),
            )
        };
        let diff = match (live.and_then(|l| l.kms_key.as_ref()), &self.kms_key) {
            (Some(key), None) => diff.keep(format!("kms_key {key} is kept")),
            (Some(live), Some(key)) if is_key(live, key) => diff,
            (live, key) => diff.compare("kms_key", live, key.as_ref()),
        };
        let stream = live.and_then(|l| l.stream.as_deref());
        let diff = match self.stream {
            // It has the new image too.
            Some(_) if stream == Some(BOTH_IMAGES) => diff,
            None => diff,
            desired => diff.compare("stream", stream, desired),
        };
        diff.compare("time_to_live", live.and_then(|l| l.ttl.as_ref()), self.ttl)
            .protected(RECOVERY, live.map(|l| l.point_in_time_recovery), self.point_in_time_recovery)
            .protected(DELETION_PROTECTION, live.map(|l| l.deletion_protection), self.deletion_protection)
            .tags(live.map(|l| &l.tags), &self.tags_beside(live), &[])
    }

    fn refusal(&self, live: &Live) -> Option<Refusal> {
        let other = live.ttl.as_deref().filter(|other| Some(*other) != self.ttl);
        if let (Some(wanted), Some(other)) = (self.ttl, other) {
            return Some(Refusal::new(
                format!(
                    "expires items by the attribute `{other}`, not `{wanted}`; DynamoDB cannot change it in one step"
                ),
                format!(
                    "disable its time to live, wait an hour, then run apply again: aws dynamodb update-time-to-live \
                     --table-name {} --time-to-live-specification Enabled=false,AttributeName={other}",
                    self.name
                ),
            ));
        }
        if let (Some(_), Some(view)) = (self.stream, live.stream.as_deref())
            && ![NEW_IMAGE, BOTH_IMAGES].contains(&view)
        {
            return Some(Refusal::new(
                format!("has a stream of {view}, which does not tell consumers what was added"),
                format!(
                    "move its readers to another one, turn it off, then run apply again: aws dynamodb update-table \
                     --table-name {} --stream-specification StreamEnabled=false",
                    self.name
                ),
            ));
        }
        let desired = keys_json(self.hash, self.range);
        if live.keys != desired {
            return Some(Refusal::new(
                format!("has the keys {}, not {desired}; DynamoDB cannot change keys", live.keys),
                "give the pipeline another table name, or export, delete and re-import the table by hand",
            ));
        }
        let command = "aws dynamodb delete-resource-policy --resource-arn";
        let help = format!("remove them from its policy, or all of it: {command} {}", self.arn);
        openings::refusal(&live.openings, help)
    }

    async fn create(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let index = match &self.index {
            None => None,
            Some(index) => Some(vec![
                GlobalSecondaryIndex::builder()
                    .index_name(index.name)
                    .set_key_schema(Some(keys(index.hash, index.range)?))
                    .projection(index.projection())
                    .set_provisioned_throughput(self.throughput()?)
                    .build()?,
            ]),
        };
        let request = step
            .aws
            .dynamodb
            .create_table()
            .table_name(&self.name)
            .set_attribute_definitions(Some(self.attributes()?))
            .set_key_schema(Some(keys(self.hash, self.range)?))
            .set_global_secondary_indexes(index)
            .billing_mode(self.billing_mode())
            .set_provisioned_throughput(self.throughput()?)
            .deletion_protection_enabled(self.deletion_protection.value)
            .set_sse_specification(self.encryption())
            .set_stream_specification(self.stream_specification()?)
            .set_tags(Some(self.aws_tags(None)?));
        let waiting = step.wait("DynamoDB to accept the new table", TABLE_DEADLINE);
        let is_in_use = |error: &AwsError| error.code() == Some("ResourceInUseException");
        let is_transient =
            |error: &AwsError| is_in_use(error) || error.says("LimitExceededException", "simultaneously");
        retry_while(waiting, is_transient, || async {
            match request.clone().send().await.call("dynamodb:CreateTable") {
                // The name is in use by a table that is being deleted, which is transient, or by an existing one.
                Err(error) if is_in_use(&error) && !self.is_absent_or_deleting(step.aws).await? => {
                    Err(ResourceError::AlreadyExists)
                }
                result => result.map(drop).map_err(ResourceError::from),
            }
        })
        .await?;
        self.wait_until_active(step, true).await?;
        let live = Live::default();
        tokio::try_join!(async { if self.ttl.is_some() { self.put_ttl(step, &live).await } else { Ok(()) } }, async {
            if self.point_in_time_recovery.value { self.put_recovery(step).await } else { Ok(()) }
        },)?;
        Ok(())
    }

    async fn update(
        &self,
        step: &StepContext<'_>,
        live: &Live,
        changes: &[SettingChange],
    ) -> Result<(), ResourceError> {
        self.wait_until_active(step, false).await?;
        if touches(changes, &["tags"]) {
            let dropped = dropped_tags(&live.tags, &self.tags_beside(Some(live)));
            if !dropped.is_empty() {
                let request = step.aws.dynamodb.untag_resource().resource_arn(&self.arn).set_tag_keys(Some(dropped));
                request.send().await.call("dynamodb:UntagResource")?;
            }
            let request =
                step.aws.dynamodb.tag_resource().resource_arn(&self.arn).set_tags(Some(self.aws_tags(Some(live))?));
            request.send().await.call("dynamodb:TagResource")?;
        }
        // DynamoDB accepts one UpdateTable at a time.
        if touches(changes, &["billing", "index_billing"]) {
            self.put_billing(step, live).await?;
        }
        if touches(changes, &["index"]) {
            self.put_index(step, live).await?;
        }
        if touches(changes, &["stream"]) {
            self.put_stream(step).await?;
        }
        if touches(changes, &["kms_key"]) {
            self.put_encryption(step).await?;
        }
        if touches(changes, &["deletion_protection"]) {
            self.put_deletion_protection(step, self.deletion_protection.value).await?;
        }
        if touches(changes, &["point_in_time_recovery"]) {
            self.put_recovery(step).await?;
        }
        if touches(changes, &["time_to_live"]) {
            self.put_ttl(step, live).await?;
        }
        Ok(())
    }

    async fn delete(&self, step: &StepContext<'_>, live: &Live) -> Result<(), ResourceError> {
        let absent = &["ResourceNotFoundException"];
        if live.deletion_protection {
            let waiting = step.wait("the table to accept another change", TABLE_DEADLINE);
            let unprotected = retry_while(waiting, is_busy, || async {
                let request =
                    step.aws.dynamodb.update_table().table_name(&self.name).deletion_protection_enabled(false);
                absent_on(request.send().await.call("dynamodb:UpdateTable"), absent)
            })
            .await?;
            if unprotected.is_none() {
                return Ok(());
            }
        }
        let waiting = step.wait("the table to become deletable", TABLE_DEADLINE);
        let deleted = retry_while(waiting, is_busy, || async {
            let answer = step.aws.dynamodb.delete_table().table_name(&self.name).send().await;
            absent_on(answer.call("dynamodb:DeleteTable"), absent)
        })
        .await?;
        if deleted.is_none() {
            return Ok(());
        }
        wait_until(step.wait("the table to be deleted", TABLE_DEADLINE), || async {
            Ok(self.describe(step.aws).await?.is_none().then_some(()))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::TableDescription;

    use super::*;
    use crate::aws::Openings;
    use crate::resources::tests::{assert_in_sync, declared};

    fn live_of(spec: &Table) -> Live {
        Live {
            openings: Openings::default(),
            stream: spec.stream.map(str::to_owned),
            keys: keys_json(spec.hash, spec.range),
            index: spec.index.as_ref().map(Index::to_json),
            billing: Some(billing_json(spec.billing)),
            index_billing: spec.index.as_ref().map(|_| billing_json(spec.billing)),
            unmanaged_indexes: Vec::new(),
            is_scaled: false,
            kms_key: spec.kms_key.clone(),
            ttl: spec.ttl.map(str::to_owned),
            point_in_time_recovery: spec.point_in_time_recovery.value,
            deletion_protection: spec.deletion_protection.value,
            tags: spec.tags_beside(None),
        }
    }

    #[test]
    fn table_as_created_is_in_sync() {
        assert_in_sync::<Table>(live_of);
    }

    #[test]
    fn table_without_a_billing_mode_summary_is_provisioned() {
        let units = aws_sdk_dynamodb::types::ProvisionedThroughputDescription::builder();
        let units = units.read_capacity_units(5).write_capacity_units(6).build();
        let table = TableDescription::builder().provisioned_throughput(units).build();
        assert_eq!(live_billing_json(&table), json!({ "read": 5, "write": 6 }));
    }

    #[test]
    fn table_with_other_keys_is_refused() {
        let spec = declared::<Table>("").remove(0);
        let live = Live { keys: keys_json(("id", "S"), ("hour", "S")), ..live_of(&spec) };
        assert!(spec.refusal(&live).is_some());
        assert!(spec.refusal(&live_of(&spec)).is_none());
    }

    #[test]
    fn scaled_units_and_undeclared_protection_are_kept() {
        let spec = declared::<Table>("[table]\nbilling = { read = 5, write = 5 }").remove(0);
        let units = Some(json!({ "read": 9, "write": 5 }));
        let live = Live { billing: units.clone(), index_billing: units, ..live_of(&spec) };
        assert_eq!(spec.diff(Some(&live)).len(), 2);
        assert_eq!(spec.diff(Some(&Live { is_scaled: true, ..live })), []);

        let spec = declared::<Table>("[table]\ndeletion_protection = false").remove(0);
        let changes = spec.diff(Some(&Live { deletion_protection: true, ..live_of(&spec) }));
        assert!(changes.len() == 1 && changes[0].weakens.is_some(), "{changes:?}");

        let spec = declared::<Table>("").remove(0);
        let live = Live { kms_key: Some("arn:aws:kms:eu-central-1:123456789012:key/k".to_owned()), ..live_of(&spec) };
        assert_eq!((spec.diff(Some(&live)).len(), spec.problems(&live).len()), (0, 1));
    }

    #[test]
    fn ledger_remembers_the_life_from_before_its_objects_live_longer() {
        let tags = |file: &str, live: &[(&str, &str)]| {
            let spec = declared::<Table>(file).remove(2);
            let live = live.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            spec.tags_beside(Some(&Live { tags: live, ..live_of(&spec) })).remove(life::LEDGER_LIFE)
        };
        assert_eq!(tags("", &[]), None);
        assert_eq!(tags("[bucket]\nexpire_days = 30", &[]).as_deref(), Some("95"));
        let longer = tags("", &[(life::LEDGER_LIFE, "95")]).expect("a memory");
        assert!(longer.starts_with("95 until ") && longer.ends_with(" then forever"), "{longer}");
        assert!(declared::<Table>("[bucket]\nexpire_days = 30").iter().take(2).all(|table| table.life.is_none()));
    }
}
