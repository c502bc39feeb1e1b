//! The names, ARNs and addresses of what the file declares.

use serde::Serialize;

use crate::aws::{Account, log_group_name};
use crate::config::Function;
use crate::resources::{self, Context};

/// The folder of a bucket into which Segment writes (Segment's AWS S3 destination documentation).
const SEGMENT_FOLDER: &str = "segment-logs/";

/// All outputs of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Outputs {
    /// The pipeline's name.
    pub(crate) pipeline: String,
    /// The environment, if one is chosen.
    pub(crate) environment: Option<String>,
    pub(crate) region: String,
    pub(crate) account: String,
    /// The bucket.
    pub(crate) bucket: BucketOutput,
    /// The tables by their purpose.
    pub(crate) tables: TableOutputs,
    /// The function that counts.
    pub(crate) function: FunctionOutput,
    /// The functions that are told what was counted.
    pub(crate) consumers: Vec<FunctionOutput>,
    /// The Kinesis stream, if one is declared.
    pub(crate) stream: Option<Named>,
    /// The values for the form of Segment's destination.
    pub(crate) segment: SegmentForm,
    /// Every resource, in the order of plans.
    pub(crate) resources: Vec<ResourceOutput>,
}

/// A name and its ARN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) arn: String,
}

/// The bucket, and the beginning of the keys that are counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct BucketOutput {
    pub(crate) name: String,
    pub(crate) arn: String,
    pub(crate) prefix: String,
}

/// The tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TableOutputs {
    pub(crate) counts: Named,
    pub(crate) daily: Named,
    pub(crate) ledger: Named,
    /// Absent without `rollup.by`.
    pub(crate) breakdowns: Option<Named>,
}

/// A function, and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FunctionOutput {
    pub(crate) name: String,
    pub(crate) arn: String,
    pub(crate) role_arn: String,
    pub(crate) log_group: String,
    pub(crate) failure_queue: Named,
}

/// The values that Segment's AWS S3 destination asks for, and those that belong to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SegmentForm {
    pub(crate) region: String,
    pub(crate) bucket: String,
    /// The role that Segment assumes; absent without `[segment]`.
    pub(crate) role_arn: Option<String>,
    /// The id of the workspace, which the role demands.
    pub(crate) external_id: Option<String>,
    /// The folder into which Segment writes; the form does not ask for it.
    pub(crate) folder: &'static str,
    /// True if the pipeline counts files of that folder.
    pub(crate) is_counted: bool,
}

/// A resource. One that is a part of another has the ARN of that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ResourceOutput {
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) arn: String,
    /// The URL of a queue; absent on a local AWS.
    pub(crate) url: Option<String>,
    /// The page in AWS's console; absent on a local AWS, in some partitions, and for some kinds.
    pub(crate) console_url: Option<String>,
}

/// Returns the address of a resource's page in AWS's console.
fn console_url(account: &Account, kind: &str, name: &str) -> Option<String> {
    match kind {
        "bucket" => account.bucket_page(name),
        "table" => account.table_page(name),
        "function" => account.function_page(name),
        "log group" => account.log_group_page(name),
        "queue" => account.queue_page(name),
        _ => None,
    }
}

impl Outputs {
    /// Returns the outputs of what the file declares. A local AWS has no console, and its own URLs.
    pub(crate) fn of(context: &Context<'_>, is_local: bool) -> Self {
        let (account, pipeline) = (context.account, context.pipeline);
        let table = |name: &String| Named { name: name.clone(), arn: account.table_arn(name) };
        let function = |function: &Function| FunctionOutput {
            name: function.name.clone(),
            arn: account.function_arn(&function.name),
            role_arn: account.role_arn(&pipeline.name, &function.role.name),
            log_group: log_group_name(&function.name),
            failure_queue: Named {
                name: function.failure_queue.clone(),
                arn: account.queue_arn(&function.failure_queue),
            },
        };
        let resource = |kind: &'static str, name: &str, arn: &str| ResourceOutput {
            kind,
            name: name.to_owned(),
            arn: arn.to_owned(),
            url: (kind == "queue" && !is_local).then(|| account.queue_url(name)),
            console_url: console_url(account, kind, name).filter(|_| !is_local),
        };
        let declared = resources::desired(context);
        let resources = declared.iter().map(|declared| {
            let address = declared.address();
            resource(address.kind, &address.name, declared.arn())
        });
        let prefix = &pipeline.notification.prefix;
        let workspace = pipeline.segment_workspace_id.as_ref();
        Self {
            pipeline: pipeline.name.clone(),
            environment: pipeline.environment.clone(),
            region: account.region.clone(),
            account: account.id.clone(),
            bucket: BucketOutput {
                name: pipeline.bucket.name.clone(),
                arn: account.s3_arn(&pipeline.bucket.name),
                prefix: prefix.clone(),
            },
            tables: TableOutputs {
                counts: table(&pipeline.table.counts),
                daily: table(&pipeline.table.daily),
                ledger: table(&pipeline.table.ledger),
                breakdowns: (!pipeline.rollup.by.is_empty()).then(|| table(&pipeline.table.breakdowns)),
            },
            function: function(&pipeline.function),
            consumers: pipeline.consumers.iter().map(function).collect(),
            stream: pipeline
                .stream
                .as_ref()
                .map(|stream| Named { name: stream.name.clone(), arn: account.stream_arn(&stream.name) }),
            segment: SegmentForm {
                region: account.region.clone(),
                bucket: pipeline.bucket.name.clone(),
                role_arn: workspace.map(|_| account.role_arn(&pipeline.name, &pipeline.segment_role())),
                external_id: workspace.cloned(),
                folder: SEGMENT_FOLDER,
                // A folder in the form's bucket, as in `bucket/folder`, comes before Segment's.
                is_counted: SEGMENT_FOLDER.starts_with(prefix.as_str()) || prefix.contains(SEGMENT_FOLDER),
            },
            resources: resources.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::resources::tests::{FILES, in_context};

    #[test]
    fn every_declared_resource_and_every_named_arn_is_listed() {
        for file in FILES {
            in_context(file, |context| {
                let outputs = Outputs::of(context, false);
                assert_eq!(outputs.resources.len(), resources::desired(context).len());
                let arns: BTreeSet<&str> = outputs.resources.iter().map(|resource| resource.arn.as_str()).collect();
                let TableOutputs { counts, daily, ledger, breakdowns } = &outputs.tables;
                let mut named = vec![&outputs.bucket.arn, &counts.arn, &daily.arn, &ledger.arn];
                named.extend(breakdowns.iter().chain(&outputs.stream).map(|named| &named.arn));
                for function in [&outputs.function].into_iter().chain(&outputs.consumers) {
                    named.extend([&function.arn, &function.role_arn, &function.failure_queue.arn]);
                }
                named.extend(&outputs.segment.role_arn);
                for arn in named {
                    assert!(arns.contains(arn.as_str()), "{arn}");
                }
            });
        }
    }

    #[test]
    fn kinds_with_a_page_in_the_console_are_linked_at_aws_only() {
        in_context("", |context| {
            let of = |outputs: &Outputs| -> Vec<&'static str> {
                let linked = outputs.resources.iter().filter(|resource| resource.console_url.is_some());
                linked.map(|resource| resource.kind).collect()
            };
            let at_aws = Outputs::of(context, false);
            let kinds: BTreeSet<&str> = of(&at_aws).into_iter().collect();
            assert_eq!(kinds, BTreeSet::from(["bucket", "function", "log group", "queue", "table"]));
            let local = Outputs::of(context, true);
            assert_eq!(of(&local), Vec::<&str>::new());
            assert!(local.resources.iter().all(|resource| resource.url.is_none()));
            let group = at_aws.resources.iter().find(|resource| resource.kind == "log group").expect("a log group");
            assert_eq!(
                group.console_url.as_deref(),
                Some(
                    "https://eu-central-1.console.aws.amazon.com/cloudwatch/home?region=eu-central-1\
                     #logsV2:log-groups/log-group/$252Faws$252Flambda$252Fevents-handler"
                )
            );
        });
    }

    #[test]
    fn segment_form_has_a_role_if_the_file_declares_the_workspace() {
        let form = |file: &str| in_context(file, |context| Outputs::of(context, false).segment);
        let with = form("[segment]\nworkspace_id = \"abc123\"");
        let role = "arn:aws:iam::123456789012:role/pipeline/events/events-segment";
        assert_eq!((with.role_arn.as_deref(), with.external_id.as_deref()), (Some(role), Some("abc123")));
        assert!(with.is_counted);
        let without = form("[notification]\nprefix = \"other/\"");
        assert_eq!((without.role_arn, without.external_id, without.is_counted), (None, None, false));
        assert!(form("[notification]\nprefix = \"acme/segment-logs/\"").is_counted);
    }
}
