//! Reads the ledger: which objects are recorded as counted.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
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

impl Session<'_> {
    fn reading(&self) -> String {
        format!("read table {}", self.pipeline.table.ledger)
    }

    /// Returns whether each object is counted, in the order of the objects.
    pub(super) async fn counted<'o>(
        &self,
        objects: impl IntoIterator<Item = &'o Object> + Send,
        consistency: Consistency,
    ) -> Result<Vec<bool>, Error> {
        self.counted_by(None, objects, consistency).await
    }

    /// Returns whether each object is counted, and by this recount if one is given, in the order of the objects.
    pub(super) async fn counted_by<'o>(
        &self,
        recount: Option<&str>,
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
            .map(|batch| self.recorded(batch, recount, consistency))
            .buffer_unordered(AT_ONCE)
            .try_concat()
            .await?
            .into_iter()
            .collect();
        Ok(names.iter().map(|name| counted.contains(name)).collect())
    }

    /// Returns the names of the recorded objects among at most [`KEYS_PER_BATCH`] names; with a recount, of those that it
    /// counted last.
    async fn recorded(
        &self,
        names: &[&String],
        recount: Option<&str>,
        consistency: Consistency,
    ) -> Result<Vec<String>, Error> {
        let table = &self.pipeline.table.ledger;
        let mut keys = KeysAndAttributes::builder()
            .consistent_read(consistency == Consistency::Strong)
            .projection_expression("#object, #recount")
            .expression_attribute_names("#object", ledger::OBJECT)
            .expression_attribute_names("#recount", ledger::RECOUNT);
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
        let name = |mut item: Attributes| match item.remove(ledger::OBJECT) {
            Some(AttributeValue::S(name)) => Ok(name),
            _ => Err(Error::incomplete_answer(self.reading(), "object")),
        };
        let is_wanted = |item: &Attributes| {
            let last = item.get(ledger::RECOUNT).and_then(|last| last.as_s().ok());
            recount.is_none_or(|recount| last.is_some_and(|last| last == recount))
        };
        found.into_iter().filter(is_wanted).map(name).collect()
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

    /// Returns a client and its log of requests. Batch reads return the given responses in order.
    fn scripted_client(answers: Vec<(u16, Json)>) -> (Aws, Arc<Mutex<Vec<Json>>>) {
        let (asked, answers) = (Arc::new(Mutex::new(Vec::new())), Mutex::new(answers.into_iter()));
        let log = Arc::clone(&asked);
        let client = infallible_client_fn(move |request: http::Request<SdkBody>| {
            let asked: Json = request.body().bytes().map(serde_json::from_slice).expect("a body").expect("JSON");
            let (status, body) = answers.lock().expect("answers").next().expect("an answer");
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

    #[tokio::test]
    async fn batch_read_repeats_unprocessed_keys_and_calls_that_a_busy_table_rejects() {
        let record = |key: &str| json!({ "object": { "S": format!("events/{key}#tag") } });
        let key = |key: &str| json!({ "object": { "S": format!("events/{key}#tag") }, "chunk": { "N": "0" } });
        let busy = json!({
            "__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException", "message": "slow down",
        });
        let (aws, asked) = scripted_client(vec![
            (400, busy),
            (
                200,
                json!({
                    "Responses": { "events-ledger": [record("one")] },
                    "UnprocessedKeys": { "events-ledger": { "Keys": [key("two"), key("none")] } },
                }),
            ),
            (200, json!({ "Responses": { "events-ledger": [record("two")] } })),
        ]);
        let text = "[pipeline]\nname = \"events\"\nregion = \"us-east-1\"\naccount = \"123456789012\"";
        let pipeline = config::parse("pipeline.toml", text, None).expect("a pipeline");
        let account = Account::declared(&pipeline).expect("an account");
        let session = Session { aws, account, pipeline: &pipeline };
        let objects = ["one", "other", "two", "none"].map(|key| Object {
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
    }
}
