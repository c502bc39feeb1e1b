//! What DynamoDB may answer, replayed: each answer leads to the right decision.

use std::collections::BTreeSet;

use aws_config::BehaviorVersion;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{Credentials, Region};
use aws_smithy_http_client::test_util::{ReplayEvent, StaticReplayClient};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use serde_json::{Value, json};

use super::*;

/// A client that gets these answers, one after the other, and no more.
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
        ledger_table: "ledger".to_owned(),
        count: BTreeSet::new(),
        ledger_ttl_days: Some(97),
    };
    (Tables::new(aws_sdk_dynamodb::Client::from_conf(config), &settings), replay)
}

fn cancel(reasons: &[&str]) -> (u16, Value) {
    let reasons: Vec<Value> = reasons.iter().map(|code| json!({ "Code": code, "Message": "why" })).collect();
    let kind = "com.amazonaws.dynamodb.v20120810#TransactionCanceledException";
    (400, json!({ "__type": kind, "message": "Transaction cancelled", "CancellationReasons": reasons }))
}

fn refuse(code: &str) -> (u16, Value) {
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
    ObjectId { name: "bucket/key#etag".to_owned(), uploaded_at: Some(1_438_689_296) }
}

async fn put(answers: &[(u16, Value)]) -> (Result<Put, StoreError>, usize) {
    let (tables, replay) = tables(answers);
    let result = tables.put(&object(), &marker()).await;
    (result, replay.actual_requests().count())
}

#[tokio::test]
async fn a_chunk_is_one_transaction_with_its_marker_on_condition() {
    let (tables, replay) = tables(&[(WRITTEN.0, WRITTEN.1())]);
    assert_eq!(tables.put(&object(), &marker()).await, Ok(Put::Written));
    let request = replay.actual_requests().next().expect("one request");
    let body: Value = serde_json::from_slice(request.body().bytes().expect("a body")).expect("JSON");
    let items = body["TransactItems"].as_array().expect("items");
    assert_eq!(items.len(), 2);
    assert_eq!(items[0]["Put"]["TableName"], "ledger");
    assert_eq!(items[0]["Put"]["ConditionExpression"], "attribute_not_exists(#object)");
    assert!(items[0]["Put"]["Item"]["expires_at"]["N"].is_string());
    assert_eq!(items[0]["Put"]["Item"]["uploaded_at"], json!({ "N": "1438689296" }));
    assert!(items[0]["Put"]["Item"]["counted_hour"]["S"].as_str().is_some_and(|hour| hour.ends_with(":00:00Z")));
    assert_eq!(items[1]["Update"]["UpdateExpression"], "ADD #count :count");
    assert_eq!(items[1]["Update"]["ExpressionAttributeValues"][":count"], json!({ "N": "7" }));
}

#[tokio::test]
async fn only_the_last_chunk_of_a_run_says_when_its_object_was_counted() {
    for (end, run, says) in [(1, "run", true), (2, "run", false), (1, "seal", false)] {
        let (tables, replay) = tables(&[(WRITTEN.0, WRITTEN.1())]);
        let marker = Marker { end, run: run.to_owned(), ..marker() };
        assert_eq!(tables.put(&object(), &marker).await, Ok(Put::Written));
        let request = replay.actual_requests().next().expect("one request");
        let body: Value = serde_json::from_slice(request.body().bytes().expect("a body")).expect("JSON");
        let item = &body["TransactItems"][0]["Put"]["Item"];
        assert_eq!((item["counted_hour"].is_object(), item["uploaded_at"].is_object()), (says, says), "{end} {run}");
    }
}

#[tokio::test]
async fn a_marker_that_is_there_is_no_failure_whatever_else_was_in_the_way() {
    for reasons in [["ConditionalCheckStoreError", "None"], ["ConditionalCheckStoreError", "TransactionConflict"]] {
        assert_eq!(put(&[cancel(&reasons)]).await, (Ok(Put::Exists), 1));
    }
}

#[tokio::test]
async fn what_passes_by_itself_is_tried_again() {
    let answers = [
        cancel(&["None", "TransactionConflict"]),
        cancel(&["TransactionConflict", "None"]),
        cancel(&["None", "ThrottlingError"]),
        cancel(&["ProvisionedThroughputExceeded", "TransactionConflict"]),
        refuse("TransactionInProgressException"),
        refuse("ThrottlingException"),
        refuse("ProvisionedThroughputExceededException"),
        (WRITTEN.0, WRITTEN.1()),
    ];
    assert_eq!(put(&answers).await, (Ok(Put::Written), answers.len()));
}

#[tokio::test]
async fn what_does_not_pass_fails_at_once() {
    for answer in [
        cancel(&["None", "ValidationError"]),
        cancel(&["None", "ItemCollectionSizeLimitExceeded"]),
        cancel(&["TransactionConflict", "ValidationError"]),
        cancel(&["None", "None"]),
        refuse("AccessDeniedException"),
        refuse("ResourceNotFoundException"),
        refuse("ValidationException"),
    ] {
        let (result, requests) = put(std::slice::from_ref(&answer)).await;
        assert!(result.is_err(), "{answer:?}");
        assert_eq!(requests, 1, "{answer:?}");
    }
}

#[tokio::test]
async fn markers_are_read_from_every_page_and_read_back_as_written() {
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
async fn an_item_that_is_no_marker_is_an_error() {
    let item = json!({ "object": { "S": "o" }, "chunk": { "N": "0" } });
    let (tables, _) = tables(&[(200, json!({ "Items": [item], "Count": 1, "ScannedCount": 1 }))]);
    assert!(tables.markers("o").await.is_err());
}
