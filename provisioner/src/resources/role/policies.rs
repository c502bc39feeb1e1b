//! The least-privilege policies of the two roles.

use serde_json::{Value as Json, json};

use super::earlier_prefix;
use crate::aws::{log_group_name, policy};
use crate::config::declared_key;
use crate::resources::Context;

/// Returns the least-privilege policy of the function. The handler reads the file, queries the ledger for its markers,
/// and writes one transaction per chunk, with a marker and counts. Lambda itself needs the other two statements.
pub(super) fn function_policy(context: &Context<'_>) -> Json {
    let (pipeline, account) = (context.pipeline, context.account);
    let notification = &pipeline.notification;
    let objects = format!("{}/{}*{}", pipeline.bucket.name, notification.prefix, notification.suffix);
    // Another account could own a bucket of this name one day.
    let in_account = json!({ "StringEquals": { "aws:ResourceAccount": account.id } });
    let log_streams = format!("{}:*", account.log_group_arn(&log_group_name(&pipeline.function.name)));
    let mut counted = vec![account.table_arn(&pipeline.table.counts), account.table_arn(&pipeline.table.daily)];
    counted.extend((!pipeline.rollup.by.is_empty()).then(|| account.table_arn(&pipeline.table.breakdowns)));
    let mut statements = vec![
        // GetObject with a version ID needs another action. The bucket may have versions although the file declares
        // none: somebody may have enabled versioning, or notifications from before its end are in flight.
        json!({
            "Sid": earlier_prefix::READ_SID, "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:GetObjectVersion"], "Resource": account.s3_arn(&objects),
            "Condition": in_account,
        }),
        // Without it, S3 answers for a missing object that access is denied (S3 API reference, GetObject). A call for
        // one object has no prefix.
        json!({
            "Sid": "MissObjects", "Effect": "Allow",
            "Action": "s3:ListBucket", "Resource": account.s3_arn(&pipeline.bucket.name),
            "Condition": {
                "StringEquals": { "aws:ResourceAccount": account.id },
                "StringLikeIfExists": { "s3:prefix": format!("{}*", notification.prefix) },
            },
        }),
        json!({
            "Sid": "MarkObjects", "Effect": "Allow",
            "Action": ["dynamodb:Query", "dynamodb:PutItem"], "Resource": account.table_arn(&pipeline.table.ledger),
        }),
        json!({
            "Sid": "AddCounts", "Effect": "Allow",
            "Action": "dynamodb:UpdateItem",
            "Resource": counted,
        }),
        // Lambda takes notifications from the queue with the permissions of the function's role (developer guide, using
        // Lambda with SQS); the function puts back those for which a batch leaves no time. The statement stays without
        // the queue, so that a change of the way leaves no notification uncounted.
        json!({
            "Sid": "TakeNotifications", "Effect": "Allow",
            "Action": [
                "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:SendMessage",
            ],
            "Resource": account.queue_arn(&notification.queue),
        }),
        // Lambda sends failed events to the queue with the permissions of the function's role.
        json!({
            "Sid": "KeepFailures", "Effect": "Allow",
            "Action": "sqs:SendMessage", "Resource": account.queue_arn(&pipeline.function.failure_queue),
        }),
        json!({
            "Sid": "WriteLog", "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:PutLogEvents"], "Resource": log_streams,
        }),
    ];
    // To read encrypted objects, items and environment variables; to send to an encrypted queue (SQS developer guide,
    // key management).
    let decrypt = ["kms:Decrypt"].as_slice();
    let keys = [
        ("DecryptObjects", declared_key(pipeline.bucket.kms_key.as_deref()), decrypt),
        ("DecryptItems", pipeline.table.kms_key.as_deref(), decrypt),
        ("DecryptVariables", pipeline.function.kms_key.as_deref(), decrypt),
        (
            "EncryptFailures",
            pipeline.function.failure_queue_kms_key.as_deref(),
            &["kms:Decrypt", "kms:GenerateDataKey"],
        ),
    ];
    for (sid, key, actions) in keys {
        statements.extend(key.map(|key| json!({ "Sid": sid, "Effect": "Allow", "Action": actions, "Resource": key })));
    }
    for (i, extra) in pipeline.role.statements.iter().enumerate() {
        statements.push(json!({
            "Sid": format!("Declared{}", i + 1), "Effect": "Allow",
            "Action": extra.actions, "Resource": extra.resources,
        }));
    }
    policy::document(&statements)
}

/// Returns the policy of the role with which Segment writes objects. Uploads in parts also decrypt (AWS knowledge on
/// multipart uploads with KMS keys).
pub(super) fn writer_policy(context: &Context<'_>) -> Json {
    let pipeline = context.pipeline;
    let objects = format!("{}/{}*", pipeline.bucket.name, pipeline.notification.prefix);
    let mut statements = vec![json!({
        "Sid": "WriteObjects", "Effect": "Allow",
        "Action": ["s3:PutObject", "s3:PutObjectAcl"], "Resource": context.account.s3_arn(&objects),
        "Condition": { "StringEquals": { "aws:ResourceAccount": context.account.id } },
    })];
    statements.extend(declared_key(pipeline.bucket.kms_key.as_deref()).map(|key| {
        json!({
            "Sid": "EncryptObjects", "Effect": "Allow",
            "Action": ["kms:GenerateDataKey", "kms:Decrypt"], "Resource": key,
        })
    }));
    policy::document(&statements)
}
