//! Tests of the store against replayed responses of DynamoDB: each must lead to the right decision.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_http_client::test_util::{ReplayEvent, StaticReplayClient};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use serde_json::{Value, json};

use counting::rollup::Limits;

use super::*;

/// Returns the store over a client that replays these responses in order, and nothing after them.
fn tables(answers: &[(u16, Value)]) -> (Tables, StaticReplayClient) {
    let event = |(status, body): &(u16, Value)| {
        let response = HttpResponse::new((*status).try_into().expect("a status"), SdkBody::from(body.to_string()));
        ReplayEvent::new(HttpRequest::new(SdkBody::empty()), response)
    };
    let replay = StaticReplayClient::new(answers.iter().map(event).collect());
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .http_client(replay.clone())
        .build();
    let settings = Settings {
        counts_table: "counts".to_owned(),
        daily_table: "daily".to_owned(),
        ledger_table: "ledger".to_owned(),
        bucket: "bucket".to_owned(),
        bucket_owner: "123456789012".to_owned(),
        count: BTreeSet::new(),
        limits: Limits::default(),
        ledger_ttl_days: Some(97),
    };
    (Tables::new(aws_sdk_dynamodb::Client::from_conf(config), &settings), replay)
}

fn cancelled_for(reasons: &[&str]) -> (u16, Value) {
    let reasons: Vec<Value> = reasons.iter().map(|code| json!({ "Code": code, "Message": "why" })).collect();
    let kind = "com.amazonaws.dynamodb.v20120810#TransactionCanceledException";
    (400, json!({ "__type": kind, "message": "Transaction cancelled", "CancellationReasons": reasons }))
}

fn rejected_with(code: &str) -> (u16, Value) {
    (400, json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": "why" }))
}

const WRITTEN: (u16, fn() -> Value) = (200, || json!({}));

fn marker() -> Marker {
    Marker {
        chunk: 0,
        run: "run".to_owned(),
        first: 0,
        end: 1,
        pairs: vec![("e".to_owned(), "2015-08-04T12:00:00Z".to_owned(), 7)],
    }
}

fn object() -> ObjectId {
    ObjectId { name: "bucket/key#etag".to_owned(), uploaded_at: Some(1_438_689_296), overflowed: 0 }
}

async fn put(answers: &[(u16, Value)]) -> (Result<Put, StoreError>, usize) {
    let (tables, replay) = tables(answers);
    let result = tables.put(&object(), &marker()).await;
    (result, replay.actual_requests().count())
}

#[tokio::test]
async fn put_of_a_chunk_is_one_transaction_with_a_conditional_marker() {
    let (tables, replay) = tables(&[(WRITTEN.0, WRITTEN.1())]);
    assert_eq!(tables.put(&object(), &marker()).await, Ok(Put::Written));
    let request = replay.actual_requests().next().expect("one request");
    let body: Value = serde_json::from_slice(request.body().bytes().expect("a body")).expect("JSON");
    let items = body["TransactItems"].as_array().expect("items");
    assert_eq!(items.len(), 3);
    assert_eq!(items[0]["Put"]["TableName"], "ledger");
    assert_eq!(items[0]["Put"]["ConditionExpression"], "attribute_not_exists(#object)");
    assert!(items[0]["Put"]["Item"]["expires_at"]["N"].is_string());
    assert_eq!(items[0]["Put"]["Item"]["uploaded_at"], json!({ "N": "1438689296" }));
    assert!(items[0]["Put"]["Item"]["counted_hour"]["S"].as_str().is_some_and(|hour| hour.ends_with(":00:00Z")));
    let keys = [
        ("counts", json!({ "event": { "S": "e" }, "hour": { "S": "2015-08-04T12:00:00Z" } })),
        ("daily", json!({ "day": { "S": "2015-08-04" }, "event": { "S": "e" } })),
    ];
    for (item, (table, key)) in items[1..].iter().zip(keys) {
        let update = &item["Update"];
        assert_eq!((&update["TableName"], &update["Key"]), (&json!(table), &key));
        assert_eq!(update["UpdateExpression"], "ADD #count :count");
        assert_eq!(update["ExpressionAttributeValues"][":count"], json!({ "N": "7" }));
    }
}

#[tokio::test]
async fn put_records_the_counted_hour_only_on_the_last_chunk_of_a_run() {
    for (end, run, recorded) in [(1, "run", true), (2, "run", false), (1, "seal", false)] {
        let (tables, replay) = tables(&[(WRITTEN.0, WRITTEN.1())]);
        let marker = Marker { end, run: run.to_owned(), ..marker() };
        assert_eq!(tables.put(&object(), &marker).await, Ok(Put::Written));
        let request = replay.actual_requests().next().expect("one request");
        let body: Value = serde_json::from_slice(request.body().bytes().expect("a body")).expect("JSON");
        let item = &body["TransactItems"][0]["Put"]["Item"];
        let has = |name: &str| item[name].is_object();
        assert_eq!((has("counted_hour"), has("uploaded_at")), (recorded, recorded), "{end} {run}");
    }
}

#[tokio::test]
async fn put_of_an_existing_marker_is_not_an_error_despite_other_conflicts() {
    for reasons in [["ConditionalCheckFailed", "None"], ["ConditionalCheckFailed", "TransactionConflict"]] {
        assert_eq!(put(&[cancelled_for(&reasons)]).await, (Ok(Put::Exists), 1));
    }
}

#[tokio::test]
async fn put_is_retried_after_transient_errors() {
    let answers = [
        cancelled_for(&["None", "TransactionConflict"]),
        cancelled_for(&["TransactionConflict", "None"]),
        cancelled_for(&["None", "ThrottlingError"]),
        cancelled_for(&["ProvisionedThroughputExceeded", "TransactionConflict"]),
        rejected_with("TransactionInProgressException"),
        rejected_with("ThrottlingException"),
        rejected_with("ProvisionedThroughputExceededException"),
        (WRITTEN.0, WRITTEN.1()),
    ];
    assert_eq!(put(&answers).await, (Ok(Put::Written), answers.len()));
}

#[tokio::test]
async fn put_fails_without_retry_after_a_permanent_error() {
    for answer in [
        cancelled_for(&["None", "ValidationError"]),
        cancelled_for(&["None", "ItemCollectionSizeLimitExceeded"]),
        cancelled_for(&["TransactionConflict", "ValidationError"]),
        cancelled_for(&["None", "None"]),
        rejected_with("AccessDeniedException"),
        rejected_with("ResourceNotFoundException"),
        rejected_with("ValidationException"),
    ] {
        let (result, requests) = put(std::slice::from_ref(&answer)).await;
        assert!(result.is_err(), "{answer:?}");
        assert_eq!(requests, 1, "{answer:?}");
    }
}

#[tokio::test]
async fn markers_on_several_pages_are_read_as_written() {
    let item = |chunk: u32| {
        json!({
            "object": { "S": "o" }, "chunk": { "N": chunk.to_string() }, "run": { "S": "run" },
            "first": { "N": "0" }, "end": { "N": "2" }, "written_at": { "N": "1" },
            "pairs": { "L": [{ "L": [{ "S": "e" }, { "S": "2015-08-04T12:00:00Z" }, { "N": "-3" }] }] },
        })
    };
    let key = json!({ "object": { "S": "o" }, "chunk": { "N": "0" } });
    let (tables, replay) = tables(&[
        (200, json!({ "Items": [item(0)], "Count": 1, "ScannedCount": 1, "LastEvaluatedKey": key })),
        (200, json!({ "Items": [item(1)], "Count": 1, "ScannedCount": 1 })),
    ]);
    let markers = tables.markers("o").await.expect("markers");
    assert_eq!(markers.iter().map(|marker| marker.chunk).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(markers[1].pairs, [("e".to_owned(), "2015-08-04T12:00:00Z".to_owned(), -3)]);
    let first = replay.actual_requests().next().expect("a request");
    let body: Value = serde_json::from_slice(first.body().bytes().expect("a body")).expect("JSON");
    assert_eq!(body["ConsistentRead"], true);
}

#[tokio::test]
async fn markers_with_an_invalid_item_are_an_error() {
    let item = json!({ "object": { "S": "o" }, "chunk": { "N": "0" } });
    let (tables, _) = tables(&[(200, json!({ "Items": [item], "Count": 1, "ScannedCount": 1 }))]);
    assert!(tables.markers("o").await.is_err());
}
