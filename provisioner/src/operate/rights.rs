//! The least that IAM must allow to those who read the counts, and to those who run the commands of this module.

use contract::{counts, ledger};
use serde_json::{Value as Json, json};

use crate::kind::Scope;
use crate::policy;
use crate::resources::log_group_name;

fn statement(sid: &str, actions: &[&str], resources: &[String]) -> Json {
    json!({ "Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources })
}

fn table(scope: &Scope<'_>, name: &str) -> String {
    scope.place.arn("dynamodb", &format!("table/{name}"))
}

/// For `query`, `events`, `top` and `dashboard`.
#[must_use]
pub fn reader_policy(scope: &Scope<'_>) -> Json {
    let counts = table(scope, &scope.pipeline.table.counts);
    let index = format!("{counts}/index/{}", counts::BY_HOUR);
    policy::document(&[
        statement("ReadCounts", &["dynamodb:Query"], &[counts.clone(), index]),
        statement("ReadNames", &["dynamodb:Scan"], &[counts]),
    ])
}

/// For `status`, `backfill`, `replay` and `verify`. What is broken where the proof fails, is seen with the rights to plan.
#[must_use]
pub fn operator_policy(scope: &Scope<'_>) -> Json {
    let (place, pipeline) = (scope.place, scope.pipeline);
    let (counted, marked) = (table(scope, &pipeline.table.counts), table(scope, &pipeline.table.ledger));
    let function = place.arn("lambda", &format!("function:{}", pipeline.function.name));
    let group = place.arn("logs", &format!("log-group:{}", log_group_name(&pipeline.function.name)));
    let bucket = place.s3_arn(&pipeline.bucket.name);
    let objects = format!("{bucket}/{}*", pipeline.notification.prefix);
    let probes = format!("{bucket}/{}{}*", pipeline.notification.prefix, contract::verify::FOLDER);
    let queue = place.arn("sqs", &pipeline.function.failure_queue);
    let mut read = vec!["s3:GetObject"];
    if pipeline.bucket.versioning {
        read.push("s3:GetObjectVersion");
    }
    policy::document(&[
        statement("SeeObjects", &["s3:ListBucketVersions", "s3:ListBucket"], &[bucket]),
        // A HEAD, which needs the right to read.
        statement("KnowObjects", &read, &[objects]),
        // In a bucket that has, or once had, versions, a removal is that of a version.
        statement("ProbeObjects", &["s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion"], &[probes]),
        statement(
            "ReadLedger",
            &["dynamodb:Query", "dynamodb:BatchGetItem"],
            &[marked.clone(), format!("{marked}/index/{}", ledger::BY_COUNTED_HOUR)],
        ),
        // What the proof has counted is taken back.
        statement("Unmark", &["dynamodb:DeleteItem"], &[marked]),
        statement("Uncount", &["dynamodb:GetItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"], &[counted]),
        statement("RunFunction", &["lambda:InvokeFunction", "lambda:GetFunction", "lambda:ListTags"], &[function]),
        statement("ReadLog", &["logs:FilterLogEvents"], &[group.clone(), format!("{group}:*")]),
        statement(
            "HandleFailures",
            &[
                "sqs:GetQueueUrl",
                "sqs:GetQueueAttributes",
                "sqs:ReceiveMessage",
                "sqs:DeleteMessage",
                "sqs:ChangeMessageVisibility",
            ],
            &[queue],
        ),
    ])
}
