//! Proves that a deployment works: a small object goes the way of all objects, and its count comes out.
//!
//! The object has a key of its own under the notification's prefix and one message of a reserved event, in an hour of 1970
//! that nobody asks about. In the end the count is taken back and everything is removed, also after a failure or a signal.
//! What a killed run leaves behind is removed by a later one. Where the count does not come, each link of the chain is
//! looked at.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::types::{AttributeValue, Delete, TransactWriteItem, Update};
use contract::{counts, ledger, verify as reserved};
use flate2::{Compression, write::GzEncoder};
use futures_util::stream::TryStreamExt;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::ledger::Reading;
use super::objects::Object;
use super::{Operator, failed, unless_stopped};
use crate::aws::{Call, Pauses, Waiting, absent_on};
use crate::error::Error;
use crate::kind::Scope;
use crate::resources;
use crate::signal::{Signal, Stop};

/// Another run may be using an object that is younger.
const LEFT_BEHIND: Duration = Duration::from_secs(60 * 60);
/// While nothing is counted, another object is uploaded after so long.
const ANOTHER: Duration = Duration::from_secs(30);
/// Lines of the log that are looked through for the object.
const LINES: i32 = 50;

/// A pipeline that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Verified {
    /// The object's key.
    pub key: String,
    /// Milliseconds from the end of the upload until the count was there.
    pub milliseconds: u64,
}

/// One link of the chain from upload to count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// What it is called.
    pub link: String,
    /// Whether it is as it should be; nothing where that could not be found out.
    pub works: Option<bool>,
    /// What was found.
    pub found: String,
}

/// What is to be counted.
#[derive(Debug, Clone)]
struct Probe {
    id: String,
    key: String,
    kind: String,
    /// What it is counted under.
    event: String,
}

impl Probe {
    fn new(operator: &Operator<'_>) -> Self {
        let pipeline = operator.pipeline;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let id = format!("{now:x}-{:08x}", fastrand::u32(..));
        let key = format!("{}{id}{}", operator.probes(), pipeline.notification.suffix);
        // Track messages are counted under their event's name, all others under their type's.
        let is_track = pipeline.count.iter().any(|kind| kind == "track");
        let kind = if is_track { "track" } else { pipeline.count.first().map_or("track", String::as_str) };
        let event = if is_track { reserved::EVENT } else { kind };
        Self { id, key, kind: kind.to_owned(), event: event.to_owned() }
    }

    fn body(&self) -> Vec<u8> {
        let message = json!({
            "type": self.kind, "event": self.event, "messageId": self.id, "timestamp": reserved::HOUR,
        });
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        // Writing to memory does not fail.
        gzip.write_all(format!("{message}\n").as_bytes()).and_then(|()| gzip.finish()).unwrap_or_default()
    }
}

/// What was uploaded.
struct Sent {
    probe: Probe,
    object: Object,
    /// When the upload was done.
    at: Instant,
}

/// How waiting for the count ended.
enum Waited {
    /// The object with this key was, so long after its upload.
    Counted(String, Duration),
    Late,
    Stopped(Signal),
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

impl Operator<'_> {
    /// What the keys of such objects begin with.
    pub(super) fn probes(&self) -> String {
        format!("{}{}", self.pipeline.notification.prefix, reserved::FOLDER)
    }

    /// Uploads an object, waits until it is counted, and removes both. A bucket may begin to tell of objects only some minutes
    /// after it was set up to, so while none is counted, another is uploaded now and then.
    ///
    /// # Errors
    /// What AWS answered; [`Error::Unverified`], with what was found of each link, where no count comes within `deadline`; a
    /// signal.
    pub async fn verify(&self, deadline: Duration, stop: &Stop) -> Result<Verified, Error> {
        self.sweep().await?;
        let began = SystemTime::now();
        let mut sent = Vec::new();
        let waited = self.wait(&mut sent, deadline, stop).await;
        // Before anything is taken away, or else the chain would look broken for that.
        let links = match (&waited, sent.first()) {
            (Ok(Waited::Late), Some(first)) => self.links(&first.probe, began).await,
            _ => Vec::new(),
        };
        let mut removed = Ok(());
        for Sent { object, .. } in &sent {
            removed = removed.and(self.remove(object).await);
        }
        let left = |removed: Result<(), Error>| match removed {
            Ok(()) => "what was uploaded is removed".to_owned(),
            Err(error) => format!("what was uploaded could not be removed: {error}"),
        };
        match waited? {
            Waited::Counted(key, took) => {
                removed?;
                Ok(Verified { key, milliseconds: u64::try_from(took.as_millis()).unwrap_or(u64::MAX) })
            }
            Waited::Late => {
                let key = sent.into_iter().next().map(|sent| sent.probe.key).unwrap_or_default();
                Err(Error::Unverified { key, seconds: deadline.as_secs(), left: left(removed), links })
            }
            Waited::Stopped(signal) => Err(Error::Interrupted {
                signal,
                what: format!("stopped before the count was there; {}", left(removed)),
                help: "run the command again".to_owned(),
            }),
        }
    }

    async fn upload(&self, probe: &Probe) -> Result<Object, Error> {
        let bucket = &self.pipeline.bucket.name;
        let doing = format!("upload object {} to bucket {bucket}", probe.key);
        let request = self.aws.s3.put_object().bucket(bucket).key(&probe.key).body(probe.body().into());
        let answer = request.expected_bucket_owner(&self.place.account).send().await.call("s3:PutObject");
        let answer = answer.map_err(failed(doing.clone()))?;
        // Where versions are suspended, it may say `null`; then the object's notification names no version.
        let version = answer.version_id;
        let identity = ledger::identity(version.as_deref(), answer.e_tag.as_deref());
        let identity = identity.ok_or(Error::Answer { doing, missing: "ETag" })?;
        Ok(Object { key: probe.key.clone(), version, identity, size: 0, uploaded: Timestamp::now() })
    }

    async fn wait(&self, sent: &mut Vec<Sent>, deadline: Duration, stop: &Stop) -> Result<Waited, Error> {
        let waiting = Waiting { what: "the count".to_owned(), deadline, tell: &|_, _| {} };
        let mut pauses = Pauses::new(waiting);
        loop {
            if sent.last().is_none_or(|last| last.at.elapsed() > ANOTHER) {
                let probe = Probe::new(self);
                let object = self.upload(&probe).await?;
                sent.push(Sent { probe, object, at: Instant::now() });
            }
            let look = async {
                let objects = sent.iter().map(|sent| &sent.object);
                let counted = self.counted(objects, Reading::UpToNow).await?;
                let Some((first, _)) = sent.iter().zip(counted).find(|(_, counted)| *counted) else { return Ok(None) };
                let is_there = self.count(&first.probe.event).await? > 0;
                Ok::<_, Error>(is_there.then(|| (first.probe.key.clone(), first.at.elapsed())))
            };
            match unless_stopped(stop, look).await {
                Err(signal) => return Ok(Waited::Stopped(signal)),
                Ok(Err(error)) => return Err(error),
                Ok(Ok(Some((key, took)))) => return Ok(Waited::Counted(key, took)),
                Ok(Ok(None)) => {}
            }
            match unless_stopped(stop, pauses.next(None)).await {
                Err(signal) => return Ok(Waited::Stopped(signal)),
                Ok(Err(_)) => return Ok(Waited::Late),
                Ok(Ok(())) => {}
            }
        }
    }

    fn pair(&self, event: &str, hour: &str) -> HashMap<String, AttributeValue> {
        HashMap::from([(counts::EVENT.to_owned(), text(event)), (counts::HOUR.to_owned(), text(hour))])
    }

    /// How often the counts table says that the reserved hour had an event.
    async fn count(&self, event: &str) -> Result<i64, Error> {
        let table = &self.pipeline.table.counts;
        let request = self.aws.dynamodb.get_item().table_name(table).consistent_read(true);
        let answer = request.set_key(Some(self.pair(event, reserved::HOUR))).send().await.call("dynamodb:GetItem");
        let item = answer.map_err(failed(format!("read table {table}")))?.item.unwrap_or_default();
        let number = item.get(counts::COUNT).and_then(|count| count.as_n().ok()).and_then(|digits| digits.parse().ok());
        Ok(number.unwrap_or(0))
    }

    /// Takes the object away, and then its count: a notification that comes late finds nothing to count.
    async fn remove(&self, object: &Object) -> Result<(), Error> {
        let bucket = &self.pipeline.bucket.name;
        let delete = |version: Option<String>| async {
            let request = self.aws.s3.delete_object().bucket(bucket).key(&object.key).set_version_id(version);
            let request = request.expected_bucket_owner(&self.place.account);
            let answer = absent_on(request.send().await.call("s3:DeleteObject"), &["NoSuchKey", "NoSuchVersion"]);
            answer.map_err(failed(format!("remove object {} from bucket {bucket}", object.key)))
        };
        let answer = delete(object.version.clone()).await?;
        // Where versions are suspended, a marker stands in the object's place.
        if let Some(marker) = answer.filter(|answer| answer.delete_marker == Some(true) && object.version.is_none()) {
            delete(marker.version_id).await?;
        }
        self.uncount(&ledger::object_key(bucket, &object.key, &object.identity)).await
    }

    /// The opposite of counting, by the same rule: each marker goes in one transaction with what it added.
    async fn uncount(&self, name: &str) -> Result<(), Error> {
        let (counted, marked) = (&self.pipeline.table.counts, &self.pipeline.table.ledger);
        let doing = || format!("take back what was counted of {name}");
        for marker in self.markers(name).await? {
            let delete = Delete::builder()
                .table_name(marked)
                .key(ledger::OBJECT, text(name))
                .key(ledger::CHUNK, AttributeValue::N(marker.chunk.to_string()))
                .condition_expression("attribute_exists(#object)")
                .expression_attribute_names("#object", ledger::OBJECT)
                .build()?;
            let mut items = vec![TransactWriteItem::builder().delete(delete).build()];
            for (event, hour, count) in &marker.pairs {
                let update = Update::builder()
                    .table_name(counted)
                    .set_key(Some(self.pair(event, hour)))
                    .update_expression("ADD #count :less")
                    .expression_attribute_names("#count", counts::COUNT)
                    .expression_attribute_values(":less", AttributeValue::N(count.saturating_neg().to_string()))
                    .build()?;
                items.push(TransactWriteItem::builder().update(update).build());
            }
            let request = self.aws.dynamodb.transact_write_items().set_transact_items(Some(items));
            request.send().await.call("dynamodb:TransactWriteItems").map_err(failed(doing()))?;
            for (event, hour, _) in &marker.pairs {
                // Another run may have counted meanwhile.
                let request = self
                    .aws
                    .dynamodb
                    .delete_item()
                    .table_name(counted)
                    .set_key(Some(self.pair(event, hour)))
                    .condition_expression("#count = :zero")
                    .expression_attribute_names("#count", counts::COUNT)
                    .expression_attribute_values(":zero", AttributeValue::N("0".to_owned()));
                let answer = request.send().await.call("dynamodb:DeleteItem");
                absent_on(answer, &["ConditionalCheckFailedException"]).map_err(failed(doing()))?;
            }
        }
        Ok(())
    }

    /// Removes what runs that were killed have left.
    async fn sweep(&self) -> Result<(), Error> {
        let limit = Timestamp::now().checked_sub(LEFT_BEHIND).unwrap_or(Timestamp::UNIX_EPOCH);
        let prefix = self.probes();
        let left = self.pages(&prefix, None);
        left.try_for_each(|page| async move {
            for object in page.iter().filter(|object| object.uploaded < limit) {
                self.remove(object).await?;
            }
            Ok(())
        })
        .await
    }

    /// Looks at each link of the chain, in the order in which an object passes them.
    async fn links(&self, probe: &Probe, began: SystemTime) -> Vec<Link> {
        let scope = Scope { pipeline: self.pipeline, place: &self.place, artifact: None };
        let mut links = Vec::new();
        for kind in ["bucket", "notification", "permission", "function", "role", "log group", "table"] {
            for resource in resources::declared(&scope).into_iter().filter(|r| r.address().kind == kind) {
                let address = resource.address().clone();
                let (works, found) = match resource.observe(&self.aws).await {
                    Err(error) => (None, error.to_string().lines().next().unwrap_or_default().to_owned()),
                    Ok(observed) if !observed.exists() => (Some(false), "is not there".to_owned()),
                    Ok(observed) if observed.changes().is_empty() => (Some(true), "is as declared".to_owned()),
                    Ok(observed) => {
                        let settings: Vec<&str> = observed.changes().iter().map(|change| change.setting).collect();
                        (Some(false), format!("differs from pipeline.toml in {}", settings.join(", ")))
                    }
                };
                links.push(Link { link: address.to_string(), works, found });
            }
        }
        links.push(self.invocation(probe, began).await);
        links
    }

    /// Whether the function was run with the object, by what it has written to its log.
    async fn invocation(&self, probe: &Probe, began: SystemTime) -> Link {
        let link = "invocation".to_owned();
        // In quotes, as the id holds a hyphen (CloudWatch Logs user guide, filter pattern syntax).
        let lines = match self.log(Some(&format!("\"{}\"", probe.id)), began, LINES).await {
            Ok(lines) => lines,
            Err(error) => {
                let found = error.to_string().lines().next().unwrap_or_default().to_owned();
                return Link { link, works: None, found };
            }
        };
        let Some(last) = lines.last() else {
            let found = "the function's log has nothing of the object: it was not run with it".to_owned();
            return Link { link, works: Some(false), found };
        };
        let is_counted = last.message.contains("\"message\":\"counted");
        Link { link, works: Some(is_counted), found: format!("the function's log says: {}", last.message.trim()) }
    }
}
