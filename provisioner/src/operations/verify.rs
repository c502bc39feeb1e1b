//! Tests a deployment end to end: uploads a small object and waits until it is counted.
//!
//! The object has a unique key under the notification's prefix and one message of a reserved event, in an hour of
//! 1970 that no query includes. Afterwards the object and its count are removed, also after a failure or a signal; a
//! later run removes the leftovers of a killed one. If the object is not counted in time, every resource in the chain
//! is checked.

use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use counting::names::{counts, ledger, log_message, verify as reserved};
use counting::protocol::take_back;
use flate2::{Compression, write::GzEncoder};
use futures_util::stream::TryStreamExt;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::checks::{Check, Passes};
use super::failed;
use super::ledger::Consistency;
use super::objects::Object;
use super::status::seconds;
use super::take_back::hour_key;
use crate::aws::{Call, Pauses, Session, Wait, absent_on};
use crate::counts::Records;
use crate::error::{Error, ErrorKind};
use crate::shutdown::{Shutdown, Signal};

/// The age from which a test object is a leftover; another run may still be using a younger one.
const LEFTOVER_AGE: Duration = Duration::from_secs(60 * 60);
/// The time, in seconds, for which the ledger is searched for counts without objects.
const LEFTOVER_SECONDS: i64 = 48 * 60 * 60;
/// The interval at which another object is uploaded while none is counted.
const UPLOAD_INTERVAL: Duration = Duration::from_secs(30);
/// The subject of the check of the function's log.
const INVOCATION: &str = "invocation";
/// The maximum number of log lines read for the object.
const LINES: i32 = 50;

/// The result of a passed test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Verified {
    /// The object's key.
    pub(crate) key: String,
    /// Milliseconds from the end of the upload to the count.
    pub(crate) milliseconds: u64,
}

/// A test object and its message.
#[derive(Debug, Clone)]
struct Probe {
    id: String,
    key: String,
    kind: String,
    /// The name under which its message is counted.
    event: String,
}

impl Probe {
    fn new(session: &Session<'_>) -> Self {
        let pipeline = session.pipeline;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let id = format!("{now:x}-{:08x}", fastrand::u32(..));
        let key = format!("{}{id}{}", session.probe_prefix(), pipeline.notification.suffix);
        // Track messages are counted under their event's name, all others under their type's.
        let is_track = pipeline.rollup.count.iter().any(|kind| kind == "track");
        let kind = if is_track { "track" } else { pipeline.rollup.count.first().map_or("track", String::as_str) };
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

/// An uploaded test object.
struct Sent {
    probe: Probe,
    object: Object,
    /// The end of the upload.
    at: Instant,
}

/// The outcome of waiting for the count.
enum Waited {
    /// The key of the counted object, and the delay from its upload.
    Counted(String, Duration),
    Late,
    Stopped(Signal),
}

impl Session<'_> {
    /// Returns the key prefix of test objects.
    fn probe_prefix(&self) -> String {
        format!("{}{}", self.pipeline.notification.prefix, reserved::FOLDER)
    }

    /// Uploads an object, waits until it is counted, and removes both. A new bucket may send its first notification
    /// only after some minutes, so while no object is counted, another one is uploaded at intervals.
    ///
    /// # Errors
    /// An AWS error; [`ErrorKind::Timeout`] with the result of each check, if no object is counted within `deadline`;
    /// a signal.
    pub(crate) async fn verify(&self, deadline: Duration, shutdown: &Shutdown) -> Result<Verified, Error> {
        self.remove_leftovers().await?;
        let began = SystemTime::now();
        let mut sent = Vec::new();
        let waited = self.wait(&mut sent, deadline, shutdown).await;
        // Before the removal, which would distort the checks.
        let checks = match (&waited, sent.first()) {
            (Ok(Waited::Late), Some(first)) => self.diagnose(&first.probe, began).await,
            _ => Vec::new(),
        };
        let mut removed = Ok(());
        for Sent { object, .. } in &sent {
            removed = removed.and(self.remove(object).await);
        }
        let cleanup = |removed: Result<(), Error>| match removed {
            Ok(()) => "all uploaded objects were removed".to_owned(),
            Err(error) => format!("the uploaded objects were not all removed: {error}"),
        };
        match waited? {
            Waited::Counted(key, took) => {
                removed?;
                Ok(Verified { key, milliseconds: u64::try_from(took.as_millis()).unwrap_or(u64::MAX) })
            }
            Waited::Late => {
                let key = sent.into_iter().next().map(|sent| sent.probe.key).unwrap_or_default();
                Err(not_verified(&key, deadline, &cleanup(removed), &checks))
            }
            Waited::Stopped(signal) => Err(Error::interrupted(
                signal.exit_code(),
                format!("{signal}: stopped before an object was counted; {}", cleanup(removed)),
                "run the command again",
            )),
        }
    }

    async fn upload(&self, probe: &Probe) -> Result<Object, Error> {
        let bucket = &self.pipeline.bucket.name;
        let doing = format!("upload object {} to bucket {bucket}", probe.key);
        let request = self.aws.s3.put_object().bucket(bucket).key(&probe.key).body(probe.body().into());
        let answer = request.expected_bucket_owner(&self.account.id).send().await.call("s3:PutObject");
        let answer = answer.map_err(failed(doing.clone()))?;
        // With suspended versioning this may be `null`; the object's notification then has no version.
        let version = answer.version_id;
        let identity = ledger::identity(version.as_deref(), answer.e_tag.as_deref());
        let identity = identity.ok_or(Error::incomplete_answer(doing, "ETag"))?;
        Ok(Object {
            key: probe.key.clone(),
            version,
            identity,
            size: 0,
            uploaded: Timestamp::now(),
            may_be_archived: false,
        })
    }

    async fn wait(&self, sent: &mut Vec<Sent>, deadline: Duration, shutdown: &Shutdown) -> Result<Waited, Error> {
        let waiting = Wait { what: "the count".to_owned(), deadline, on_wait: &|_, _| {} };
        let mut pauses = Pauses::new(waiting);
        loop {
            if sent.last().is_none_or(|last| last.at.elapsed() > UPLOAD_INTERVAL) {
                let probe = Probe::new(self);
                let object = self.upload(&probe).await?;
                sent.push(Sent { probe, object, at: Instant::now() });
            }
            let poll = async {
                let objects = sent.iter().map(|sent| &sent.object);
                let counted = self.counted(objects, Consistency::Strong).await?;
                let Some((first, _)) = sent.iter().zip(counted).find(|(_, counted)| *counted) else { return Ok(None) };
                let exists = self.count(&first.probe.event).await? > 0;
                Ok::<_, Error>(exists.then(|| (first.probe.key.clone(), first.at.elapsed())))
            };
            match shutdown.or_shutdown(poll).await {
                Err(signal) => return Ok(Waited::Stopped(signal)),
                Ok(Err(error)) => return Err(error),
                Ok(Ok(Some((key, took)))) => return Ok(Waited::Counted(key, took)),
                Ok(Ok(None)) => {}
            }
            match shutdown.or_shutdown(pauses.next(None)).await {
                Err(signal) => return Ok(Waited::Stopped(signal)),
                Ok(Err(_)) => return Ok(Waited::Late),
                Ok(Ok(())) => {}
            }
        }
    }

    /// Returns the count of an event in the reserved hour.
    async fn count(&self, event: &str) -> Result<i64, Error> {
        let table = &self.pipeline.table.counts;
        let request = self.aws.dynamodb.get_item().table_name(table).consistent_read(true);
        let answer = request.set_key(Some(hour_key(event, reserved::HOUR))).send().await.call("dynamodb:GetItem");
        let item = answer.map_err(failed(format!("read table {table}")))?.item.unwrap_or_default();
        let number = item.get(counts::COUNT).and_then(|count| count.as_n().ok()).and_then(|digits| digits.parse().ok());
        Ok(number.unwrap_or(0))
    }

    /// Takes the count back and removes the object. A notification that comes in between or later finds that its content
    /// is not to be counted, or no object.
    async fn remove(&self, object: &Object) -> Result<(), Error> {
        let bucket = &self.pipeline.bucket.name;
        let name = ledger::object_key(bucket, &object.key, &object.identity);
        take_back(self, &ledger::content(&name), &name).await?;
        let delete = |version: Option<String>| async {
            let request = self.aws.s3.delete_object().bucket(bucket).key(&object.key).set_version_id(version);
            let request = request.expected_bucket_owner(&self.account.id);
            let answer = absent_on(request.send().await.call("s3:DeleteObject"), &["NoSuchKey", "NoSuchVersion"]);
            answer.map_err(failed(format!("delete object {} from bucket {bucket}", object.key)))
        };
        let answer = delete(object.version.clone()).await?;
        // With suspended versioning, the deletion leaves a delete marker.
        if let Some(marker) = answer.filter(|answer| answer.delete_marker == Some(true) && object.version.is_none()) {
            delete(marker.version_id).await?;
        }
        self.forget(&name).await
    }

    /// Removes the counts whose objects are gone: those of a run that was killed, or of a notification that came while
    /// its object was being removed. They are looked for only if the reserved hour has a count.
    async fn remove_orphaned_counts(&self) -> Result<(), Error> {
        if self.count(&Probe::new(self).event).await? <= 0 {
            return Ok(());
        }
        let prefix = format!("{}/{}", self.pipeline.bucket.name, self.probe_prefix());
        let now = Timestamp::now().as_second();
        let limit = now - i64::try_from(LEFTOVER_AGE.as_secs()).unwrap_or_default();
        for counted in Records::new(&self.aws, self.pipeline).between(now - LEFTOVER_SECONDS, now).await? {
            let object = &counted.record.object;
            if object.starts_with(&prefix) && seconds(&counted) < limit {
                take_back(self, &ledger::content(object), object).await?;
                self.forget(object).await?;
            }
        }
        Ok(())
    }

    /// Removes the objects and counts that killed runs left behind.
    async fn remove_leftovers(&self) -> Result<(), Error> {
        self.remove_orphaned_counts().await?;
        let limit = Timestamp::now().checked_sub(LEFTOVER_AGE).unwrap_or(Timestamp::UNIX_EPOCH);
        let prefix = self.probe_prefix();
        let pages = self.pages(&prefix, None);
        pages
            .try_for_each(|page| async move {
                for object in page.iter().filter(|object| object.uploaded < limit) {
                    self.remove(object).await?;
                }
                Ok(())
            })
            .await
    }

    /// Checks every resource and the function's log.
    async fn diagnose(&self, probe: &Probe, began: SystemTime) -> Vec<Check> {
        let (mut checks, _) = self.check_resources().await;
        checks.push(self.invocation(probe, began).await);
        checks
    }

    /// Checks in the function's log whether the function was invoked with the object.
    async fn invocation(&self, probe: &Probe, began: SystemTime) -> Check {
        // In quotes, since the id has a hyphen (CloudWatch Logs user guide, filter pattern syntax).
        let lines = match self.log(Some(&format!("\"{}\"", probe.id)), began, LINES).await {
            Ok(lines) => lines,
            Err(error) => return Check::new(INVOCATION, Passes::Unknown, error.to_string()),
        };
        let Some(last) = lines.last() else {
            let finding = "no log entry for the object: the function was not invoked";
            return Check::new(INVOCATION, Passes::Failed, finding);
        };
        let is_counted = last.message.contains(&format!("\"message\":\"{}", log_message::COUNTED));
        let result = if is_counted { Passes::Ok } else { Passes::Failed };
        Check::new(INVOCATION, result, format!("log entry: {}", last.message.trim()))
    }
}

/// Returns the error for an object that was not counted in time, with a line for each check and a help text for the
/// first failure.
fn not_verified(key: &str, deadline: Duration, cleanup: &str, checks: &[Check]) -> Error {
    let mut detail = String::new();
    for check in checks {
        detail.push_str(&format!("\n  {}", check.line()));
    }
    let drifted = checks.iter().any(|check| check.subject != INVOCATION && check.result == Passes::Failed);
    let help = if drifted {
        "run `provisioner plan` to see the drift and `provisioner apply` to correct it"
    } else {
        "fix the error in the function's log; without a log entry, pass a longer --timeout, since S3 may be late"
    };
    let seconds = deadline.as_secs();
    let message = format!("object {key} was not counted within {seconds} s of its upload; {cleanup}");
    Error::new(ErrorKind::Timeout, message, help).with_detail(detail)
}
