//! The live state of a pipeline that another tool made, as far as `pipeline.toml` can describe it.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::{BillingMode, KeyType, SseType, TableDescription};
use aws_sdk_lambda::types::{DestinationConfig, PackageType, TracingMode};
use aws_sdk_s3::types::{
    BucketVersioningStatus, ExpirationStatus, LifecycleRule, LifecycleRuleFilter, ServerSideEncryption,
};
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::Value as Json;

use crate::aws::{Account, Answer, Aws, AwsError, Call, absent_on, log_group_name, policy, resource_in};
use crate::config::{MANAGED_BY, MANAGED_BY_TAG, PIPELINE_TAG};
use crate::error::Error;
use crate::resources::notification;

/// A bucket.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    pub(super) name: String,
    /// True if it keeps versions, or has kept some and may have them still.
    pub(super) versioning: bool,
    pub(super) had_versioning: bool,
    /// The KMS key of the default encryption, by ARN, id or alias.
    pub(super) kms_key: Option<String>,
    /// True if its policy denies plain HTTP.
    pub(super) denies_plain_http: bool,
    /// The rules by which S3 deletes objects.
    pub(super) expirations: Vec<Expiration>,
}

/// A lifecycle rule that deletes objects after some days, whatever their tags and sizes.
#[derive(Debug, Default)]
pub(super) struct Expiration {
    pub(super) id: String,
    pub(super) prefix: String,
    pub(super) days: i32,
    pub(super) noncurrent_days: Option<i32>,
}

/// An entry of the bucket's notification configuration, of new objects.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) id: String,
    /// The ARN of its destination.
    pub(super) destination: String,
    pub(super) prefix: String,
    pub(super) suffix: String,
}

/// A queue that receives the notifications, and the mapping by which a function takes them.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) name: String,
    /// The ARN of the function.
    pub(super) function: Option<String>,
    pub(super) batch_size: Option<i32>,
    pub(super) batch_seconds: Option<i32>,
    pub(super) max_concurrency: Option<i32>,
    pub(super) retries: Option<i32>,
    /// The ARN of the queue of failures.
    pub(super) failures: Option<String>,
}

/// A function.
#[derive(Debug, Default)]
pub(super) struct Function {
    pub(super) name: String,
    /// The name of the pipeline of the provisioner that owns it.
    pub(super) owner: Option<String>,
    pub(super) role: Role,
    pub(super) is_image: bool,
    pub(super) memory_mb: Option<i32>,
    pub(super) timeout_seconds: Option<i32>,
    pub(super) architecture: Option<String>,
    pub(super) kms_key: Option<String>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) max_concurrency: Option<i32>,
    pub(super) retries: Option<i32>,
    pub(super) max_event_age_seconds: Option<i32>,
    /// The ARN of the destination of failed invocations.
    pub(super) failures: Option<String>,
    /// The ARN of the dead-letter queue or topic.
    pub(super) dead_letters: Option<String>,
    pub(super) log_retention_days: Option<i32>,
    pub(super) is_in_vpc: bool,
    pub(super) is_traced: bool,
}

/// A role.
#[derive(Debug, Default)]
pub(super) struct Role {
    pub(super) name: String,
    pub(super) path: String,
    pub(super) boundary: Option<String>,
}

/// A table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// The names of its keys with their types: `event (S), hour (S)`.
    pub(super) keys: String,
    /// The read and write units, if it has any.
    pub(super) units: Option<(i64, i64)>,
    pub(super) kms_key: Option<String>,
}

/// Returns the name of the function at an ARN, which may have a version or an alias.
pub(super) fn function_at(arn: &str) -> Option<&str> {
    resource_in(arn, "lambda")?.strip_prefix("function:")?.split(':').next()
}

/// Adds the operation to the error of a call.
fn reading(what: impl Into<String>) -> impl FnOnce(AwsError) -> Error {
    let what = what.into();
    move |error| error.while_doing(format_args!("read {what}"))
}

/// Returns the rule if it deletes all objects below a prefix after some days.
fn expiration(rule: &LifecycleRule) -> Option<Expiration> {
    // The old form of a rule has its prefix outside the filter.
    #[expect(deprecated, reason = "S3 returns the old form of rules that were put in it")]
    let old_prefix = rule.prefix();
    let filter = rule.filter();
    let is_narrower = filter.is_some_and(|filter| {
        filter.tag().is_some()
            || filter.and().is_some()
            || filter.object_size_greater_than().is_some()
            || filter.object_size_less_than().is_some()
    });
    let days = rule.expiration().and_then(|expiration| expiration.days())?;
    let prefix = filter.and_then(LifecycleRuleFilter::prefix).or(old_prefix).unwrap_or_default();
    (*rule.status() == ExpirationStatus::Enabled && !is_narrower).then(|| Expiration {
        id: rule.id().unwrap_or("(no id)").to_owned(),
        prefix: prefix.to_owned(),
        days,
        noncurrent_days: rule.noncurrent_version_expiration().and_then(|old| old.noncurrent_days()),
    })
}

/// Returns whether a bucket's policy denies plain HTTP.
fn denies_plain_http(document: &Json) -> bool {
    policy::statements(document).iter().map(policy::canonical_statement).any(|statement| {
        let mut conditions = statement["Condition"]["Bool"].as_object().into_iter().flatten();
        statement["Effect"] == "Deny"
            && conditions.any(|(key, values)| {
                key.eq_ignore_ascii_case("aws:SecureTransport") && values.to_string().contains("false")
            })
    })
}

/// Returns the buckets for which a function's policy lets S3 invoke it.
fn buckets_of(document: &Json) -> Vec<String> {
    let mut buckets = Vec::new();
    for statement in policy::statements(document).iter().map(policy::canonical_statement) {
        let operators = statement["Condition"].as_object().into_iter().flatten();
        for (key, values) in operators.filter_map(|(_, keys)| keys.as_object()).flatten() {
            let arns = values.as_array().into_iter().flatten().filter_map(Json::as_str);
            let is_source = key.eq_ignore_ascii_case("aws:SourceArn");
            buckets.extend(arns.filter(|_| is_source).filter_map(|arn| resource_in(arn, "s3")).map(str::to_owned));
        }
    }
    buckets.sort();
    buckets.dedup();
    buckets
}

fn table(live: &TableDescription) -> Table {
    let letter = |name: &str| {
        let attribute = live.attribute_definitions().iter().find(|attribute| attribute.attribute_name == name);
        attribute.map_or("?", |attribute| attribute.attribute_type.as_str())
    };
    let of = |wanted: KeyType| live.key_schema().iter().filter(move |key| key.key_type == wanted);
    let keys = of(KeyType::Hash).chain(of(KeyType::Range));
    let keys: Vec<String> =
        keys.map(|key| format!("{} ({})", key.attribute_name, letter(&key.attribute_name))).collect();
    let mode = live.billing_mode_summary.as_ref().and_then(|summary| summary.billing_mode.as_ref());
    let units = live.provisioned_throughput.as_ref().filter(|_| mode != Some(&BillingMode::PayPerRequest));
    let sse = live.sse_description.as_ref().filter(|sse| sse.sse_type == Some(SseType::Kms));
    Table {
        keys: keys.join(", "),
        units: units.and_then(|units| units.read_capacity_units.zip(units.write_capacity_units)),
        kms_key: sse.and_then(|sse| sse.kms_master_key_arn.clone()),
    }
}

/// A reader of an account.
pub(super) struct Reader<'a> {
    pub(super) aws: &'a Aws,
    pub(super) account: &'a Account,
}

impl Reader<'_> {
    /// Returns the one bucket for which the function's policy lets S3 invoke it.
    pub(super) async fn bucket_of(&self, function: &str) -> Result<String, Error> {
        let doing = format!("the policy of function {function}");
        let answer = self.aws.lambda.get_policy().function_name(function).send().await.call("lambda:GetPolicy");
        let answer = absent_on(answer, &["ResourceNotFoundException"]).map_err(reading(doing.as_str()))?;
        let document = match answer.and_then(|answer| answer.policy) {
            Some(text) => policy::parse(&text, || format!("read {doing}"))?,
            None => Json::Null,
        };
        match buckets_of(&document).as_slice() {
            [bucket] => Ok(bucket.clone()),
            [] => Err(Error::not_found(
                format!("failed to find the bucket of function {function}: its policy names none"),
                "pass --bucket",
            )),
            several => Err(Error::usage(
                format!("function {function} may be invoked for several buckets: {}", several.join(", ")),
                "pass the one to describe with --bucket",
            )),
        }
    }

    pub(super) async fn bucket(&self, name: &str) -> Result<Bucket, Error> {
        let (s3, owner) = (&self.aws.s3, self.account.id.as_str());
        let what = || format!("bucket {name}");
        let head = s3.head_bucket().bucket(name).expected_bucket_owner(owner).send().await.call("s3:ListBucket");
        // The answer to HEAD has no body, so only the status and the headers tell.
        let region = match &head {
            Ok(found) => found.bucket_region(),
            Err(error) => error.bucket_region(),
        };
        if let Some(region) = region.filter(|region| *region != self.account.region) {
            return Err(Error::usage(
                format!("bucket {name} is in {region}, and the region is {}", self.account.region),
                format!("pass --region {region}"),
            ));
        }
        match head {
            Err(AwsError { answer: Answer::Service { status: 404, .. }, .. }) => {
                return Err(Error::not_found(
                    format!("bucket {name} does not exist"),
                    "check its name and the account",
                ));
            }
            Err(AwsError { answer: Answer::Service { status: 403, .. }, .. }) => {
                return Err(Error::conflict(
                    format!("bucket {name} belongs to another account, or the caller lacks s3:ListBucket on it"),
                    "check its name and the credentials, or allow s3:ListBucket",
                ));
            }
            head => head.map(drop).map_err(reading(what()))?,
        }
        let (versioning, lifecycle, encryption, document) = tokio::try_join!(
            async {
                let answer = s3.get_bucket_versioning().bucket(name).expected_bucket_owner(owner).send().await;
                answer.call("s3:GetBucketVersioning")
            },
            async {
                let request = s3.get_bucket_lifecycle_configuration().bucket(name).expected_bucket_owner(owner);
                absent_on(request.send().await.call("s3:GetLifecycleConfiguration"), &["NoSuchLifecycleConfiguration"])
            },
            async {
                let answer = s3.get_bucket_encryption().bucket(name).expected_bucket_owner(owner).send().await;
                let unset = ["ServerSideEncryptionConfigurationNotFoundError"];
                absent_on(answer.call("s3:GetEncryptionConfiguration"), &unset)
            },
            async {
                let answer = s3.get_bucket_policy().bucket(name).expected_bucket_owner(owner).send().await;
                absent_on(answer.call("s3:GetBucketPolicy"), &["NoSuchBucketPolicy"])
            },
        )
        .map_err(reading(what()))?;
        let document = match document.and_then(|answer| answer.policy) {
            Some(text) => policy::parse(&text, || format!("read the policy of bucket {name}"))?,
            None => Json::Null,
        };
        let rules = lifecycle.and_then(|answer| answer.rules).unwrap_or_default();
        let encryption = encryption
            .and_then(|answer| answer.server_side_encryption_configuration)
            .and_then(|configuration| configuration.rules.into_iter().next())
            .and_then(|rule| rule.apply_server_side_encryption_by_default);
        let with_kms = encryption.filter(|default| {
            matches!(default.sse_algorithm, ServerSideEncryption::AwsKms | ServerSideEncryption::AwsKmsDsse)
        });
        Ok(Bucket {
            name: name.to_owned(),
            versioning: versioning.status == Some(BucketVersioningStatus::Enabled),
            had_versioning: versioning.status.is_some(),
            // The key `aws/s3` is AWS's own, and needs no declaration.
            kms_key: with_kms
                .and_then(|default| default.kms_master_key_id)
                .filter(|key| !key.ends_with("alias/aws/s3")),
            denies_plain_http: denies_plain_http(&document),
            expirations: rules.iter().filter_map(expiration).collect(),
        })
    }

    /// Lists the entries of the bucket that are of new objects.
    pub(super) async fn entries(&self, bucket: &str) -> Result<Vec<Entry>, Error> {
        let request = self.aws.s3.get_bucket_notification_configuration().bucket(bucket);
        let answer = request.expected_bucket_owner(&self.account.id).send().await.call("s3:GetBucketNotification");
        let all = answer.map_err(reading(format!("the notifications of bucket {bucket}")))?;
        let entries = notification::entries(&all).into_iter().filter(|entry| entry.is_of_new_objects());
        let read = entries.map(|entry| Entry {
            id: entry.id.unwrap_or("(no id)").to_owned(),
            destination: entry.destination.to_owned(),
            prefix: entry.prefix(),
            suffix: entry.suffix(),
        });
        Ok(read.collect())
    }

    /// Reads the queue at an ARN; `None` if it is not a queue of this account.
    pub(super) async fn queue(&self, arn: &str) -> Result<Option<Queue>, Error> {
        let Some(name) = resource_in(arn, "sqs").filter(|_| self.is_inside(arn)) else { return Ok(None) };
        let what = format!("queue {name}");
        let url = self.aws.sqs.get_queue_url().queue_name(name).send().await.call("sqs:GetQueueUrl");
        let url = url.map_err(reading(what.as_str()))?.queue_url;
        let request = self.aws.sqs.get_queue_attributes().set_queue_url(url);
        let request = request.attribute_names(QueueAttributeName::RedrivePolicy);
        let answer = request.send().await.call("sqs:GetQueueAttributes").map_err(reading(what.as_str()))?;
        let attributes = answer.attributes.unwrap_or_default();
        let redrive = attributes.get(&QueueAttributeName::RedrivePolicy).map(String::as_str).unwrap_or_default();
        let redrive: Json = serde_json::from_str(redrive).unwrap_or_default();
        // SQS returns the count as it was put, as a number or a text.
        let count = &redrive["maxReceiveCount"];
        let count = count.as_i64().or_else(|| count.as_str()?.parse().ok());
        let request = self.aws.lambda.list_event_source_mappings().event_source_arn(arn);
        let mappings = request.send().await.call("lambda:ListEventSourceMappings").map_err(reading(what))?;
        let mapping = mappings.event_source_mappings.unwrap_or_default().into_iter().next();
        let mapping = mapping.as_ref();
        Ok(Some(Queue {
            name: name.to_owned(),
            function: mapping.and_then(|mapping| mapping.function_arn.clone()),
            batch_size: mapping.and_then(|mapping| mapping.batch_size),
            batch_seconds: mapping.and_then(|mapping| mapping.maximum_batching_window_in_seconds),
            max_concurrency: mapping.and_then(|m| m.scaling_config.as_ref()).and_then(|s| s.maximum_concurrency),
            retries: count.and_then(|count| i32::try_from(count - 1).ok()),
            failures: redrive["deadLetterTargetArn"].as_str().map(str::to_owned),
        }))
    }

    /// Returns whether an ARN is of this account.
    pub(super) fn is_inside(&self, arn: &str) -> bool {
        policy::account_of(arn) == Some(self.account.id.as_str())
    }

    pub(super) async fn function(&self, name: &str) -> Result<Function, Error> {
        let absent = ["ResourceNotFoundException"];
        let what = format!("function {name}");
        let (answer, invoke) = tokio::try_join!(
            async {
                let answer = self.aws.lambda.get_function().function_name(name).send().await;
                absent_on(answer.call("lambda:GetFunction"), &absent)
            },
            async {
                let answer = self.aws.lambda.get_function_event_invoke_config().function_name(name).send().await;
                absent_on(answer.call("lambda:GetFunctionEventInvokeConfig"), &absent)
            },
        )
        .map_err(reading(what.as_str()))?;
        let Some(function) = answer else {
            return Err(Error::not_found(
                format!("{what} does not exist"),
                "check its name, the region and the account",
            ));
        };
        let missing = || Error::incomplete_answer(format!("read {what}"), "configuration");
        let live = function.configuration.ok_or_else(missing)?;
        let tags = function.tags.unwrap_or_default();
        let is_of_provisioner = tags.get(MANAGED_BY_TAG).is_some_and(|by| by == MANAGED_BY);
        let failures = invoke.as_ref().and_then(|invoke| invoke.destination_config.as_ref());
        let failures = failures.and_then(DestinationConfig::on_failure).and_then(|failure| failure.destination.clone());
        let variables = live.environment.and_then(|environment| environment.variables);
        Ok(Function {
            name: name.to_owned(),
            owner: tags.get(PIPELINE_TAG).filter(|_| is_of_provisioner).cloned(),
            role: self.role(live.role.as_deref().unwrap_or_default()).await?,
            is_image: live.package_type == Some(PackageType::Image),
            memory_mb: live.memory_size,
            timeout_seconds: live.timeout,
            architecture: live.architectures.and_then(|all| all.first().map(|first| first.as_str().to_owned())),
            kms_key: live.kms_key_arn.filter(|key| !key.is_empty()),
            environment: variables.unwrap_or_default().into_iter().collect(),
            max_concurrency: function.concurrency.and_then(|c| c.reserved_concurrent_executions),
            retries: invoke.as_ref().and_then(|invoke| invoke.maximum_retry_attempts),
            max_event_age_seconds: invoke.as_ref().and_then(|invoke| invoke.maximum_event_age_in_seconds),
            failures,
            dead_letters: live.dead_letter_config.and_then(|config| config.target_arn).filter(|arn| !arn.is_empty()),
            log_retention_days: self.log_retention_days(&log_group_name(name)).await?,
            is_in_vpc: live.vpc_config.is_some_and(|vpc| !vpc.subnet_ids().is_empty()),
            is_traced: live.tracing_config.is_some_and(|tracing| tracing.mode == Some(TracingMode::Active)),
        })
    }

    async fn log_retention_days(&self, group: &str) -> Result<Option<i32>, Error> {
        let answer = self.aws.logs.describe_log_groups().log_group_name_prefix(group).send().await;
        let answer = answer.call("logs:DescribeLogGroups").map_err(reading(format!("log group {group}")))?;
        // The group itself is the first of those whose names begin with its name.
        let found = answer.log_groups.unwrap_or_default().into_iter().next();
        let found = found.filter(|found| found.log_group_name.as_deref() == Some(group));
        Ok(found.and_then(|found| found.retention_in_days))
    }

    /// Reads the role at an ARN.
    async fn role(&self, arn: &str) -> Result<Role, Error> {
        let name = arn.rsplit('/').next().unwrap_or_default();
        Ok(self.role_named(name).await?.unwrap_or_else(|| Role { name: name.to_owned(), ..Role::default() }))
    }

    /// Reads the role of this name; `None` if there is none.
    pub(super) async fn role_named(&self, name: &str) -> Result<Option<Role>, Error> {
        let answer = self.aws.iam.get_role().role_name(name).send().await.call("iam:GetRole");
        let answer = absent_on(answer, &["NoSuchEntity"]).map_err(reading(format!("role {name}")))?;
        let role = answer.and_then(|answer| answer.role);
        Ok(role.map(|role| Role {
            name: role.role_name,
            path: role.path,
            boundary: role.permissions_boundary.and_then(|boundary| boundary.permissions_boundary_arn),
        }))
    }

    /// Reads the table of this name; `None` if there is none.
    pub(super) async fn table(&self, name: &str) -> Result<Option<Table>, Error> {
        let answer = self.aws.dynamodb.describe_table().table_name(name).send().await.call("dynamodb:DescribeTable");
        let answer = absent_on(answer, &["ResourceNotFoundException"]).map_err(reading(format!("table {name}")))?;
        Ok(answer.and_then(|answer| answer.table).map(|live| table(&live)))
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::{AttributeDefinition, KeySchemaElement, ScalarAttributeType};
    use aws_sdk_s3::types::{LifecycleExpiration, Tag};
    use serde_json::json;

    use super::*;

    #[test]
    fn function_of_an_alias_is_named_without_it() {
        let arn = "arn:aws:lambda:us-east-1:123456789012:function:counter";
        assert_eq!(function_at(arn), Some("counter"));
        assert_eq!(function_at(&format!("{arn}:live")), Some("counter"));
        assert_eq!(function_at("arn:aws:sqs:us-east-1:123456789012:counter"), None);
    }

    #[test]
    fn rule_for_some_objects_is_no_expiration() {
        let rule = |filter: LifecycleRuleFilter, status: ExpirationStatus| {
            let days = LifecycleExpiration::builder().days(30).build();
            let rule = LifecycleRule::builder().id("old").filter(filter).status(status).expiration(days);
            expiration(&rule.build().expect("a rule")).map(|rule| (rule.prefix, rule.days))
        };
        let below = || LifecycleRuleFilter::builder().prefix("logs/").build();
        assert_eq!(rule(below(), ExpirationStatus::Enabled), Some(("logs/".to_owned(), 30)));
        assert_eq!(rule(below(), ExpirationStatus::Disabled), None);
        let tag = Tag::builder().key("class").value("temporary").build().expect("a tag");
        assert_eq!(rule(LifecycleRuleFilter::builder().tag(tag).build(), ExpirationStatus::Enabled), None);
    }

    #[test]
    fn denial_of_plain_http_is_found_by_its_condition() {
        let with = |effect: &str, condition: Json| {
            denies_plain_http(&json!({ "Statement": { "Effect": effect, "Principal": "*", "Action": "s3:*",
                "Resource": "arn:aws:s3:::acme/*", "Condition": condition } }))
        };
        assert!(with("Deny", json!({ "Bool": { "aws:SecureTransport": false } })));
        assert!(with("Deny", json!({ "Bool": { "aws:securetransport": ["false"] } })));
        assert!(!with("Allow", json!({ "Bool": { "aws:SecureTransport": "false" } })));
        assert!(!with("Deny", json!({ "StringEquals": { "aws:SourceAccount": "123456789012" } })));
        assert!(!denies_plain_http(&Json::Null));
    }

    #[test]
    fn buckets_of_a_function_are_the_sources_of_its_policy() {
        let statement = |arn: &str| {
            json!({ "Effect": "Allow", "Principal": { "Service": "s3.amazonaws.com" },
                "Action": "lambda:InvokeFunction", "Condition": { "ArnLike": { "AWS:SourceArn": arn } } })
        };
        let sns = statement("arn:aws:sns:us-east-1:123456789012:topic");
        let policy = json!({ "Statement": [statement("arn:aws:s3:::acme"), statement("arn:aws:s3:::acme"), sns] });
        assert_eq!(buckets_of(&policy), ["acme"]);
        assert_eq!(buckets_of(&Json::Null), [""; 0]);
    }

    #[test]
    fn keys_of_a_table_are_in_their_order_with_their_types() {
        let key = |name: &str, role: KeyType| {
            KeySchemaElement::builder().attribute_name(name).key_type(role).build().expect("a key")
        };
        let attribute = |name: &str, scalar: ScalarAttributeType| {
            AttributeDefinition::builder().attribute_name(name).attribute_type(scalar).build().expect("an attribute")
        };
        let live = TableDescription::builder()
            .key_schema(key("Timestamp", KeyType::Range))
            .key_schema(key("Event", KeyType::Hash))
            .attribute_definitions(attribute("Event", ScalarAttributeType::S))
            .attribute_definitions(attribute("Timestamp", ScalarAttributeType::N));
        let keys = "Event (S), Timestamp (N)".to_owned();
        assert_eq!(table(&live.build()), Table { keys, ..Table::default() });
    }
}
