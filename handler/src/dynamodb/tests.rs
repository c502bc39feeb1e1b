//! Tests of the store against replayed responses of DynamoDB: each must lead to the right decision.

use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_http_client::test_util::{ReplayEvent, StaticReplayClient};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use serde_json::{Value, json};

use counting::amount::{Amount, Sum, number};
use counting::rollup::Rules;

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
        breakdowns_table: Some("breakdowns".to_owned()),
        is_outbox: true,
        bucket: "bucket".to_owned(),
        bucket_owner: "123456789012".to_owned(),
        rules: Rules::default(),
        counts_duplicates: false,
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

fn pairs() -> Vec<Pair> {
    vec![("e".to_owned(), "2015-08-04T12:00:00Z".to_owned(), 7.into())]
}

fn claim(content: &str) -> Claim {
    Claim {
        content: format!("content:{content}"),
        generation: 0,
        plan: "plan".to_owned(),
        chunks: 1,
        object: "bucket/key#etag".to_owned(),
        has_expired: false,
    }
}

async fn add(answers: &[(u16, Value)]) -> (Result<Put, StoreError>, usize) {
    let (tables, replay) = tables(answers);
    let result = tables.add("plan", 0, &pairs()).await;
    (result, replay.actual_requests().count())
}

fn body(replay: &StaticReplayClient) -> Value {
    let request = replay.actual_requests().next().expect("one request");
    serde_json::from_slice(request.body().bytes().expect("a body")).expect("JSON")
}

#[tokio::test]
async fn chunk_is_one_transaction_with_a_conditional_marker() {
    let (tables, replay) = tables(&[(WRITTEN.0, WRITTEN.1())]);
    assert_eq!(tables.add("plan", 3, &pairs()).await, Ok(Put::Written));
    let body = body(&replay);
    let items = body["TransactItems"].as_array().expect("items");
    assert_eq!(items.len(), 3);
    let put = &items[0]["Put"];
    assert_eq!(put["TableName"], "ledger");
    assert_eq!(put["ConditionExpression"], "attribute_not_exists(#object)");
    assert_eq!((&put["Item"]["object"], &put["Item"]["chunk"]), (&json!({ "S": "plan:plan" }), &json!({ "N": "3" })));
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
async fn sums_are_added_with_the_count() {
    let (tables, replay) = tables(&[(WRITTEN.0, WRITTEN.1())]);
    let mut amount = Amount::from(2);
    let sum = Sum { values: 1, sum: number("19.990").expect("a number") };
    amount.sums.insert("properties.revenue".to_owned(), sum);
    let pairs = [("e".to_owned(), "2015-08-04T12:00:00Z".to_owned(), amount)];
    assert_eq!(tables.add("plan", 0, &pairs).await, Ok(Put::Written));
    for item in &body(&replay)["TransactItems"].as_array().expect("items")[1..] {
        let update = &item["Update"];
        assert_eq!(update["UpdateExpression"], "ADD #count :count, #sum1 :sum1, #sum2 :sum2");
        assert_eq!(update["ExpressionAttributeNames"]["#sum1"], "sum:properties.revenue");
        assert_eq!(update["ExpressionAttributeValues"][":sum1"], json!({ "N": "19.99" }));
        assert_eq!(update["ExpressionAttributeNames"]["#sum2"], "values:properties.revenue");
        assert_eq!(update["ExpressionAttributeValues"][":sum2"], json!({ "N": "1" }));
    }
}

#[tokio::test]
async fn marker_says_what_its_transaction_adds_to_a_breakdown() {
    let (tables, replay) = tables(&[(WRITTEN.0, WRITTEN.1())]);
    let mut amount = Amount::default();
    *amount.value_mut("properties.plan", "pro") = 2.into();
    let pairs = [("e".to_owned(), "2015-08-04T12:00:00Z".to_owned(), amount)];
    assert_eq!(tables.add("plan", 1, &pairs).await, Ok(Put::Written));
    let body = body(&replay);
    let items = body["TransactItems"].as_array().expect("items");
    assert_eq!(items.len(), 2);
    let added = Added::Text(items[0]["Put"]["Item"]["added"]["S"].as_str().expect("a text").to_owned());
    assert_eq!(added.pairs().expect("pairs"), pairs);
    let update = &items[1]["Update"];
    let key = json!({ "breakdown": { "S": "properties.plan#e" }, "hour_value": { "S": "2015-08-04T12:00:00Z#pro" } });
    assert_eq!((&update["TableName"], &update["Key"]), (&json!("breakdowns"), &key));
    assert_eq!(update["ExpressionAttributeValues"][":count"], json!({ "N": "2" }));
}

#[tokio::test]
async fn claims_are_one_transaction_and_expire_before_the_plan() {
    let (tables, replay) = tables(&[(WRITTEN.0, WRITTEN.1()), (WRITTEN.0, WRITTEN.1())]);
    assert_eq!(tables.claim(&[claim("a"), claim("b")]).await, Ok(Put::Written));
    tables.put_plan("plan", b"bytes").await.expect("a plan");
    let bodies: Vec<Value> = replay
        .actual_requests()
        .map(|request| serde_json::from_slice(request.body().bytes().expect("a body")).expect("JSON"))
        .collect();
    let items = bodies[0]["TransactItems"].as_array().expect("items");
    assert_eq!(items.len(), 2);
    for item in items {
        assert_eq!(item["Put"]["ConditionExpression"], "attribute_not_exists(#object)");
        assert_eq!(item["Put"]["Item"]["plan"], json!({ "S": "plan" }));
    }
    let part = &bodies[1]["Item"];
    assert_eq!((&part["object"], &part["chunk"]), (&json!({ "S": "plan:plan" }), &json!({ "N": "-1" })));
    let expires =
        |item: &Value| item["expires_at"]["N"].as_str().and_then(|text| text.parse::<u64>().ok()).expect("a time");
    let days = (expires(part) - expires(&items[0]["Put"]["Item"])) / DAY_SECONDS;
    assert!((29..=30).contains(&days), "{days}");
}

#[tokio::test]
async fn record_lists_the_object_among_the_recently_counted_ones() {
    let (tables, replay) = tables(&[(WRITTEN.0, WRITTEN.1())]);
    let record = Record {
        object: "bucket/key#etag".to_owned(),
        uploaded_at: Some(1_438_689_296),
        first_skipped: vec![(3, "not_json".to_owned())],
        ..Record::default()
    };
    tables.record(&record).await.expect("a record");
    let item = &body(&replay)["Item"];
    assert_eq!(item["uploaded_at"], json!({ "N": "1438689296" }));
    assert!(item["counted_hour"]["S"].as_str().is_some_and(|hour| hour.ends_with(":00:00Z")));
    assert_eq!(item["first_skipped"], json!({ "L": [{ "L": [{ "N": "3" }, { "S": "not_json" }] }] }));
}

#[tokio::test]
async fn chunk_with_a_marker_is_not_an_error_despite_other_conflicts() {
    for reasons in [["ConditionalCheckFailed", "None"], ["TransactionConflict", "ConditionalCheckFailed"]] {
        assert_eq!(add(&[cancelled_for(&reasons)]).await, (Ok(Put::Exists), 1));
    }
}

#[tokio::test]
async fn chunk_is_retried_after_transient_errors() {
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
    assert_eq!(add(&answers).await, (Ok(Put::Written), answers.len()));
}

#[tokio::test]
async fn chunk_fails_without_retry_after_a_permanent_error() {
    for answer in [
        cancelled_for(&["None", "ValidationError"]),
        cancelled_for(&["None", "ItemCollectionSizeLimitExceeded"]),
        cancelled_for(&["TransactionConflict", "ValidationError"]),
        cancelled_for(&["None", "None"]),
        rejected_with("AccessDeniedException"),
        rejected_with("ResourceNotFoundException"),
        rejected_with("ValidationException"),
    ] {
        let (result, requests) = add(std::slice::from_ref(&answer)).await;
        assert!(result.is_err(), "{answer:?}");
        assert_eq!(requests, 1, "{answer:?}");
    }
}

#[tokio::test]
async fn claims_on_several_pages_are_read_as_written() {
    let item = |generation: u32| {
        json!({
            "object": { "S": "content:a" }, "chunk": { "N": generation.to_string() }, "plan": { "S": "plan" },
            "chunks": { "N": "1" }, "claimed_with": { "S": "bucket/key#etag" }, "written_at": { "N": "1" },
        })
    };
    let key = json!({ "object": { "S": "content:a" }, "chunk": { "N": "0" } });
    let (tables, replay) = tables(&[
        (200, json!({ "Items": [item(0)], "Count": 1, "ScannedCount": 1, "LastEvaluatedKey": key })),
        (200, json!({ "Items": [item(1)], "Count": 1, "ScannedCount": 1 })),
    ]);
    let claims = tables.claims("content:a").await.expect("claims");
    assert_eq!(claims, [claim("a"), Claim { generation: 1, ..claim("a") }]);
    assert_eq!(body(&replay)["ConsistentRead"], true);
}

#[tokio::test]
async fn plan_is_the_parts_in_order() {
    let part = |part: &str| json!({ "part": { "B": part } });
    let (tables, replay) =
        tables(&[(200, json!({ "Items": [part("YQ=="), part("Yg==")], "Count": 2, "ScannedCount": 2 }))]);
    assert_eq!(tables.plan("plan").await, Ok(b"ab".to_vec()));
    assert_eq!(body(&replay)["ScanIndexForward"], false);
}

#[tokio::test]
async fn item_of_another_form_is_an_error() {
    let item = json!({ "object": { "S": "content:a" }, "chunk": { "N": "0" } });
    let answer = (200, json!({ "Items": [item], "Count": 1, "ScannedCount": 1 }));
    assert!(tables(std::slice::from_ref(&answer)).0.claims("content:a").await.is_err());
    assert!(tables(&[answer]).0.plan("plan").await.is_err());
}
