//! `examples/`: the built consumer and the built counter of one's own, declared as `docs/extending.md` says.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::{Value, json};
use tests::consumer::{artifact, create_table};
use tests::local_aws::REGION;
use tests::pipeline::{COUNT_TIMEOUT, Pipeline};
use tests::recount::Counts;
use tests::samples::gzip;

use crate::common::{HOUR, track};
use crate::pipeline;

/// Creates a topic and a queue that is subscribed to it; returns the topic's ARN and the queue's URL.
async fn create_topic(pipeline: &Pipeline<'_>) -> Result<(String, String)> {
    let sdk = pipeline.sdk().await?;
    let (sns, sqs) = (aws_sdk_sns::Client::new(&sdk), aws_sdk_sqs::Client::new(&sdk));
    let topic = sns.create_topic().name("alerts").send().await?.topic_arn.context("a topic")?;
    let policy = json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": { "Service": "sns.amazonaws.com" }, "Action": "sqs:SendMessage", "Resource": "*",
    }]});
    let request = sqs.create_queue().queue_name("alerts").attributes(QueueAttributeName::Policy, policy.to_string());
    let url = request.send().await?.queue_url.context("a queue")?;
    let queue = format!("arn:aws:sqs:{REGION}:{}:alerts", pipeline.account);
    sns.subscribe().topic_arn(&topic).protocol("sqs").endpoint(queue).send().await?;
    Ok((topic, url))
}

/// Receives a message of the topic, if there is one within a second.
async fn receive(sqs: &aws_sdk_sqs::Client, url: &str) -> Result<Option<Value>> {
    let answer = sqs.receive_message().queue_url(url).wait_time_seconds(1).send().await?;
    let Some(message) = answer.messages().first() else { return Ok(None) };
    sqs.delete_message().queue_url(url).set_receipt_handle(message.receipt_handle.clone()).send().await?;
    let envelope: Value = serde_json::from_str(message.body().context("a body")?)?;
    Ok(Some(serde_json::from_str(envelope["Message"].as_str().context("a message")?)?))
}

/// Uploads files of three orders each.
async fn upload_orders(pipeline: &Pipeline<'_>, files: std::ops::Range<u32>) -> Result<()> {
    for file in files {
        // The identity of a file's content is its text.
        let line = |n: u32| json!({ "type": "track", "event": "Order Completed", "timestamp": HOUR, "messageId": format!("{file}-{n}") });
        let text = (0..3).map(|n| line(n).to_string()).collect::<Vec<_>>().join("\n");
        let text = format!("{text}\n{}", track("Signed Up"));
        pipeline.upload(&format!("segment-logs/x/1/{file}.gz"), &gzip(text.as_bytes())).await?;
    }
    Ok(())
}

#[tokio::test]
async fn alert_is_published_once_when_an_hour_reaches_its_threshold() -> Result<()> {
    let pipeline = pipeline()?;
    let sdk = pipeline.sdk().await?;
    let (dynamodb, sqs) = (aws_sdk_dynamodb::Client::new(&sdk), aws_sdk_sqs::Client::new(&sdk));
    create_table(&pipeline, "alerts", "id").await?;
    let (topic, url) = create_topic(&pipeline).await?;
    let table = format!("arn:aws:dynamodb:{REGION}:{}:table/alerts", pipeline.account);
    pipeline.declare(&format!(
        "[[consumer]]
        name = \"alert\"
        artifact = \"{}\"
        environment = {{ TABLE = \"alerts\", TOPIC_ARN = \"{topic}\", THRESHOLDS = '{{\"Order Completed\": 8}}' }}
        [[consumer.statement]]
        actions = [\"dynamodb:GetItem\", \"dynamodb:PutItem\", \"dynamodb:UpdateItem\"]
        resources = [\"{table}\"]
        [[consumer.statement]]
        actions = [\"sns:Publish\"]
        resources = [\"{topic}\"]",
        artifact("alert")
    ))?;
    pipeline.expect(0, &["apply", "--yes"])?;

    let id = format!("Order Completed#{HOUR}");
    let wait_for = async |expected: u32| -> Result<()> {
        let started = Instant::now();
        loop {
            let request = dynamodb.get_item().table_name("alerts").key("id", AttributeValue::S(id.clone()));
            let item = request.consistent_read(true).send().await?.item.unwrap_or_default();
            let count = item.get("count").and_then(|count| count.as_n().ok()).map_or("0", String::as_str);
            if count == expected.to_string() {
                return Ok(());
            }
            ensure!(started.elapsed() < COUNT_TIMEOUT, "the consumer has {count} orders, not {expected}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    upload_orders(&pipeline, 0..2).await?;
    wait_for(6).await?;
    ensure!(receive(&sqs, &url).await?.is_none(), "an alert below the threshold");

    upload_orders(&pipeline, 2..3).await?;
    let started = Instant::now();
    let alert = loop {
        if let Some(alert) = receive(&sqs, &url).await? {
            break alert;
        }
        ensure!(started.elapsed() < COUNT_TIMEOUT, "no alert");
    };
    let expected = json!({ "id": id, "event": "Order Completed", "hour": HOUR, "count": 9, "threshold": 8 });
    ensure!(alert == expected, "{alert}");

    upload_orders(&pipeline, 3..6).await?;
    wait_for(18).await?;
    let second = receive(&sqs, &url).await?;
    ensure!(second.is_none(), "{second:?}");
    Ok(())
}

#[tokio::test]
async fn counter_of_ones_own_counts_by_its_names() -> Result<()> {
    let pipeline = pipeline()?;
    let dynamodb = aws_sdk_dynamodb::Client::new(&pipeline.sdk().await?);
    create_table(&pipeline, "products", "product_id").await?;
    for (product, category) in [("p1", "shoes"), ("p2", "hats")] {
        let request = dynamodb.put_item().table_name("products");
        let request = request.item("product_id", AttributeValue::S(product.to_owned()));
        request.item("category", AttributeValue::S(category.to_owned())).send().await?;
    }
    let table = format!("arn:aws:dynamodb:{REGION}:{}:table/products", pipeline.account);
    pipeline.declare(&format!(
        "[function]
        artifact = \"{}\"
        environment = {{ LOOKUP_TABLE = \"products\" }}
        [[role.statement]]
        actions = [\"dynamodb:Scan\"]
        resources = [\"{table}\"]",
        artifact("enrich")
    ))?;
    pipeline.expect(0, &["apply", "--yes"])?;

    let viewed = |properties: Value| {
        json!({ "type": "track", "event": "Product Viewed", "timestamp": HOUR, "properties": properties }).to_string()
    };
    let lines = [
        viewed(json!({ "product_id": "p1" })),
        viewed(json!({ "product_id": "p1", "internal": false })),
        viewed(json!({ "product_id": "p2" })),
        viewed(json!({ "product_id": "p3" })),
        viewed(json!({ "product_id": "p1", "internal": true })),
        track("Signed Up"),
    ];
    pipeline.upload("segment-logs/x/1/a.gz", &gzip(lines.join("\n").as_bytes())).await?;
    let expected = [("Product Viewed: shoes", 2), ("Product Viewed: hats", 1), ("Product Viewed", 1), ("Signed Up", 1)];
    let expected = expected.map(|(event, count)| ((event.to_owned(), HOUR.to_owned()), count));
    pipeline.wait_for_counts(&Counts::from(expected)).await?;
    // Its test message has a name of its own.
    pipeline.expect(0, &["verify"])?;
    Ok(())
}
