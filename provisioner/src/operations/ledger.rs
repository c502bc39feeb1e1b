//! Reads the ledger: the objects that are counted, and their markers.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use counting::item::Item;
use counting::ledger::{Ledger, Marker};
use counting::names::ledger;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::failed;
use super::objects::Object;
use crate::aws::{AwsError, Call, Pauses, Session, Wait};
use crate::error::Error;

/// The maximum number of keys in a BatchGetItem (API reference).
const KEYS_PER_BATCH: usize = 100;
/// The maximum number of concurrent calls.
const AT_ONCE: usize = 16;
/// The time limit for retrying the keys that a throttled table left unprocessed.
const RETRY_LIMIT: Duration = Duration::from_secs(300);

/// The consistency of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consistency {
    /// Sees all earlier writes, at twice the price.
    Strong,
    /// May miss the writes of the last second; sufficient if the function makes the final decision.
    Eventual,
}

fn is_throttle(error: &AwsError) -> bool {
    matches!(
        error.code(),
        Some("ProvisionedThroughputExceededException" | "ThrottlingException" | "RequestLimitExceeded")
    )
}

pub(super) type Attributes = HashMap<String, AttributeValue>;

/// Parses an item of the ledger.
fn item(attributes: Attributes) -> Option<Item> {
    serde_dynamo::from_item(attributes).ok()
}

impl Session<'_> {
    fn incomplete(&self) -> Error {
        Error::incomplete_answer(format!("read table {}", self.pipeline.table.ledger), "marker")
    }

    fn reading(&self) -> String {
        format!("read table {}", self.pipeline.table.ledger)
    }

    /// Returns whether each object is counted, in the order of the objects.
    pub(super) async fn counted<'o>(
        &self,
        objects: impl IntoIterator<Item = &'o Object> + Send,
        consistency: Consistency,
    ) -> Result<Vec<bool>, Error> {
        let bucket = &self.pipeline.bucket.name;
        let names: Vec<String> =
            objects.into_iter().map(|object| ledger::object_key(bucket, &object.key, &object.identity)).collect();
        // A batch must not contain a key twice.
        let distinct: HashSet<&String> = names.iter().collect();
        let distinct: Vec<&String> = distinct.into_iter().collect();
        let counted: HashSet<String> = stream::iter(distinct.chunks(KEYS_PER_BATCH))
            .map(|batch| self.counted_in_batch(batch, consistency))
            .buffer_unordered(AT_ONCE)
            .try_concat()
            .await?
            .into_iter()
            .collect();
        Ok(names.iter().map(|name| counted.contains(name)).collect())
    }

    /// Returns the ledger keys of the counted objects among at most [`KEYS_PER_BATCH`] objects.
    async fn counted_in_batch(&self, names: &[&String], consistency: Consistency) -> Result<Vec<String>, Error> {
        let first = self.first_markers(names, consistency).await?;
        let check = |(name, marker): (String, Marker)| async move {
            let single = Ledger::new(vec![marker]);
            // Most objects have one chunk; the completeness of the others follows from all of their markers.
            let complete = single.is_complete() || Ledger::new(self.markers(&name).await?).is_complete();
            Ok::<_, Error>(complete.then_some(name))
        };
        let complete: Vec<Option<String>> =
            stream::iter(first).map(check).buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(complete.into_iter().flatten().collect())
    }

    /// Returns the marker of the first chunk of each object that has one.
    async fn first_markers(&self, names: &[&String], consistency: Consistency) -> Result<Vec<(String, Marker)>, Error> {
        let table = &self.pipeline.table.ledger;
        let mut keys = KeysAndAttributes::builder()
            .consistent_read(consistency == Consistency::Strong)
            .projection_expression("#object, #chunk, #run, #first, #end");
        let attributes = [ledger::OBJECT, ledger::CHUNK, ledger::RUN, ledger::FIRST, ledger::END];
        for name in attributes {
            keys = keys.expression_attribute_names(format!("#{name}"), name);
        }
        for name in names {
            keys = keys.keys(HashMap::from([
                (ledger::OBJECT.to_owned(), AttributeValue::S((*name).clone())),
                (ledger::CHUNK.to_owned(), AttributeValue::N("0".to_owned())),
            ]));
        }
        let mut pending = HashMap::from([(table.clone(), keys.build()?)]);
        let mut found = Vec::new();
        let what = format!("table {table} to answer");
        let mut pauses = Pauses::new(Wait { what, deadline: RETRY_LIMIT, on_wait: &|_, _| {} });
        loop {
            let request = self.aws.dynamodb.batch_get_item().set_request_items(Some(pending.clone()));
            let last = match request.send().await.call("dynamodb:BatchGetItem") {
                // Capacity is provisioned per second, and a backfill may need more.
                Err(error) if is_throttle(&error) => Some(error.to_string()),
                Err(error) => return Err(failed(self.reading())(error)),
                Ok(answer) => {
                    found.extend(answer.responses.unwrap_or_default().into_values().flatten());
                    // The next call retries the keys that this one left unprocessed.
                    pending = answer.unprocessed_keys.unwrap_or_default();
                    None
                }
            };
            if pending.is_empty() {
                break;
            }
            pauses.next(last.as_deref()).await?;
        }
        found
            .into_iter()
            .map(|attributes| {
                let item = item(attributes).ok_or_else(|| self.incomplete())?;
                Ok((item.object().to_owned(), item.into_marker_without_pairs()))
            })
            .collect()
    }

    /// Returns all markers of an object, by its key in the ledger.
    pub(super) async fn markers(&self, name: &str) -> Result<Vec<Marker>, Error> {
        let request = self
            .aws
            .dynamodb
            .query()
            .table_name(&self.pipeline.table.ledger)
            .consistent_read(true)
            .key_condition_expression("#object = :object")
            .expression_attribute_names("#object", ledger::OBJECT)
            .expression_attribute_values(":object", AttributeValue::S(name.to_owned()));
        let items: Result<Vec<Attributes>, _> = request.into_paginator().items().send().collect().await;
        let items = items.call("dynamodb:Query").map_err(failed(self.reading()))?;
        let marker = |attributes| item(attributes)?.into_marker();
        items.into_iter().map(|attributes| marker(attributes).ok_or_else(|| self.incomplete())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use aws_config::{BehaviorVersion, Region, SdkConfig};
    use aws_credential_types::Credentials;
    use aws_credential_types::provider::SharedCredentialsProvider;
    use aws_smithy_http_client::test_util::infallible_client_fn;
    use aws_smithy_types::body::SdkBody;
    use jiff::Timestamp;
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::aws::{Account, Aws};
    use crate::config;

    /// Returns a client and its log of requests. Batch reads return the given responses in order; a query returns two
    /// markers for the object "whole" and one for any other.
    fn scripted_client(answers: Vec<(u16, Json)>) -> (Aws, Arc<Mutex<Vec<Json>>>) {
        let (asked, answers) = (Arc::new(Mutex::new(Vec::new())), Mutex::new(answers.into_iter()));
        let log = Arc::clone(&asked);
        let client = infallible_client_fn(move |request: http::Request<SdkBody>| {
            let asked: Json = request.body().bytes().map(serde_json::from_slice).expect("a body").expect("JSON");
            let (status, body) = match asked["ExpressionAttributeValues"][":object"]["S"].as_str() {
                Some(name) if name.contains("whole") => {
                    (200, json!({ "Items": [json_item("whole", 0, 2), json_item("whole", 1, 2)] }))
                }
                Some(_) => (200, json!({ "Items": [json_item("half", 0, 2)] })),
                None => answers.lock().expect("answers").next().expect("an answer"),
            };
            log.lock().expect("a log").push(asked);
            http::Response::builder().status(status).body(body.to_string()).expect("a response")
        });
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::for_tests()))
            .http_client(client)
            .endpoint_url("http://127.0.0.1:9")
            .build();
        (Aws::new(&config), asked)
    }

    fn json_item(key: &str, chunk: u32, end: u32) -> Json {
        json!({
            "object": { "S": format!("events/{key}#tag") }, "chunk": { "N": chunk.to_string() }, "run": { "S": "run" },
            "first": { "N": "0" }, "end": { "N": end.to_string() }, "pairs": { "L": [] },
        })
    }

    #[tokio::test]
    async fn batch_read_repeats_unprocessed_keys_and_checks_all_chunks_of_an_object() {
        let key = |key: &str| json!({ "object": { "S": format!("events/{key}#tag") }, "chunk": { "N": "0" } });
        let busy = json!({
            "__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException", "message": "slow down",
        });
        let (aws, asked) = scripted_client(vec![
            (400, busy),
            (
                200,
                json!({
                    "Responses": { "events-ledger": [json_item("one", 0, 1), json_item("half", 0, 2)] },
                    "UnprocessedKeys": { "events-ledger": { "Keys": [key("whole"), key("none")] } },
                }),
            ),
            (200, json!({ "Responses": { "events-ledger": [json_item("whole", 0, 2)] } })),
        ]);
        let text = "[pipeline]\nname = \"events\"\nregion = \"us-east-1\"\naccount = \"123456789012\"";
        let pipeline = config::parse("pipeline.toml", text, None).expect("a pipeline");
        let account = Account::declared(&pipeline).expect("an account");
        let session = Session { aws, account, pipeline: &pipeline };
        let objects = ["one", "half", "whole", "none"].map(|key| Object {
            key: key.to_owned(),
            version: None,
            identity: "tag".to_owned(),
            size: 0,
            uploaded: Timestamp::UNIX_EPOCH,
            may_be_archived: false,
        });
        let counted = session.counted(&objects, Consistency::Eventual).await.expect("answers");
        assert_eq!(counted, [true, false, true, false]);
        let asked = asked.lock().expect("a log");
        let batches =
            asked.iter().filter_map(|asked| asked["RequestItems"]["events-ledger"]["Keys"].as_array().map(Vec::len));
        assert_eq!(batches.collect::<Vec<_>>(), [4, 4, 2]);
        assert_eq!(asked[1]["RequestItems"]["events-ledger"]["ConsistentRead"], false);
        assert_eq!(asked.iter().filter(|asked| asked["KeyConditionExpression"].is_string()).count(), 2);
    }
}
