//! The least-privilege policies of the roles.

use serde_json::{Value as Json, json};

use super::earlier_prefix;
use crate::aws::{log_group_name, policy};
use crate::config::{Function, Source, declared_key};
use crate::resources::Context;

/// Returns the least-privilege policy of the function that counts. The handler reads the file, queries the ledger for its markers,
/// and writes one transaction per chunk, with a marker and counts.
pub(super) fn counter_policy(context: &Context<'_>) -> Json {
    let (pipeline, account) = (context.pipeline, context.account);
    let notification = &pipeline.notification;
    let objects = format!("{}/{}*{}", pipeline.bucket.name, notification.prefix, notification.suffix);
    // Another account could own a bucket of this name one day.
    let in_account = json!({ "StringEquals": { "aws:ResourceAccount": account.id } });
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
    ];
    // To read encrypted objects and items.
    let keys = [
        ("DecryptObjects", declared_key(pipeline.bucket.kms_key.as_deref())),
        ("DecryptItems", pipeline.table.kms_key.as_deref()),
    ];
    for (sid, key) in keys {
        statements.extend(key.map(|key| decrypt(sid, key)));
    }
    statements.extend(of_every_function(context, &pipeline.function));
    policy::document(&statements)
}

/// Returns the least-privilege policy of a consumer: Lambda reads the stream with it (developer guide, using Lambda with
/// DynamoDB and with Kinesis).
pub(super) fn consumer_policy(context: &Context<'_>, consumer: &Function) -> Json {
    let (pipeline, account) = (context.pipeline, context.account);
    let mut statements = Vec::new();
    if let (Source::Stream { .. }, Some(stream)) = (consumer.source, &pipeline.stream) {
        statements.push(json!({
            "Sid": "ReadStream", "Effect": "Allow",
            "Action": [
                "kinesis:DescribeStream", "kinesis:DescribeStreamSummary", "kinesis:GetRecords",
                "kinesis:GetShardIterator", "kinesis:ListShards",
            ],
            "Resource": account.stream_arn(&stream.name),
        }));
        statements.extend(stream.kms_key.as_deref().map(|key| decrypt("DecryptRecords", key)));
    }
    if let Source::Ledger { .. } = consumer.source {
        statements.push(json!({
            "Sid": "ReadStream", "Effect": "Allow",
            "Action": [
                "dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams",
            ],
            "Resource": account.table_stream_arn(&pipeline.table.ledger, "*"),
        }));
        statements.extend(pipeline.table.kms_key.as_deref().map(|key| decrypt("DecryptItems", key)));
    }
    statements.extend(of_every_function(context, consumer));
    policy::document(&statements)
}

fn decrypt(sid: &str, key: &str) -> Json {
    json!({ "Sid": sid, "Effect": "Allow", "Action": "kms:Decrypt", "Resource": key })
}

/// Returns the statements that Lambda itself needs for a function, and the declared ones.
fn of_every_function(context: &Context<'_>, function: &Function) -> Vec<Json> {
    let account = context.account;
    let log_streams = format!("{}:*", account.log_group_arn(&log_group_name(&function.name)));
    let mut statements = vec![
        // Lambda sends failed events, or the places of failed batches, to the queue with the permissions of the role.
        json!({
            "Sid": "KeepFailures", "Effect": "Allow",
            "Action": "sqs:SendMessage", "Resource": account.queue_arn(&function.failure_queue),
        }),
        json!({
            "Sid": "WriteLog", "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:PutLogEvents"], "Resource": log_streams,
        }),
    ];
    statements.extend(function.kms_key.as_deref().map(|key| decrypt("DecryptVariables", key)));
    // To send to an encrypted queue (SQS developer guide, key management).
    statements.extend(function.failure_queue_kms_key.as_deref().map(|key| {
        json!({
            "Sid": "EncryptFailures", "Effect": "Allow",
            "Action": ["kms:Decrypt", "kms:GenerateDataKey"], "Resource": key,
        })
    }));
    for (i, extra) in function.role.statements.iter().enumerate() {
        statements.push(json!({
            "Sid": format!("Declared{}", i + 1), "Effect": "Allow",
            "Action": extra.actions, "Resource": extra.resources,
        }));
    }
    statements
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
