//! Reprocesses the messages in the failure queue.
//!
//! A message is Lambda's record of an invocation that it has given up on: the notification and the last error. The
//! function is invoked again synchronously, so that another failure is reported here and creates no second message. A
//! message is deleted only once the ledger shows all of its objects as counted.

use std::collections::HashSet;

use aws_sdk_lambda::types::InvocationType;
use counting::names::ledger;
use counting::notification::NotifiedObject;
use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;

use super::failed;
use super::failure_queue::{Failure, Received, State, error_in};
use super::ledger::Consistency;
use super::objects::{Object, reading};
use crate::aws::{Call, Session, absent_on};
use crate::error::Error;
use crate::shutdown::{Shutdown, Signal};

/// The visibility timeouts of messages that are reprocessed, and of those that are only inspected, in seconds.
/// Remaining messages become visible at the end of the run; if the process is killed, after this time.
const RETRY_HIDDEN_SECONDS: i32 = 15 * 60;
const INSPECT_HIDDEN_SECONDS: i32 = 60;
/// The number of consecutive empty responses after which the queue is considered empty.
const EMPTY_RESPONSES: u32 = 2;

/// The operation on the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplayMode<'a> {
    /// Report them.
    Inspect,
    /// Invoke the function again, and delete the messages that are counted.
    Run,
    /// Delete the messages with these IDs.
    Delete(&'a HashSet<String>),
}

/// A message with its outcome, and whether it was deleted.
type Handled = Result<(Failure, bool), Error>;

/// The progress of a run.
#[derive(Default)]
struct Found {
    /// The messages with their outcomes.
    failures: Vec<Failure>,
    /// The receipt handles of the messages that remain in the queue.
    remaining: Vec<String>,
}

impl Session<'_> {
    /// Returns the current object of a notification, read from the bucket, or `None` if it no longer exists.
    async fn head(&self, notified: &NotifiedObject) -> Result<Option<Object>, Error> {
        let request = self.aws.s3.head_object().bucket(&self.pipeline.bucket.name).key(&notified.key);
        let request = request.set_version_id(notified.version.clone()).expected_bucket_owner(&self.account.id);
        // A response to HEAD has no body, and so no error code other than `NotFound`.
        let answer = absent_on(
            request.send().await.call(reading(notified.version.as_deref())),
            &["NotFound", "NoSuchKey", "NoSuchVersion"],
        );
        let Some(answer) = answer.map_err(failed(format!("read object {}", notified.key)))? else { return Ok(None) };
        // As for the function, S3 says which content it is. The message may lack the version, or be forged.
        let identity = ledger::identity(answer.version_id.as_deref(), answer.e_tag.as_deref());
        let identity =
            identity.ok_or_else(|| Error::incomplete_answer(format!("read object {}", notified.key), "ETag"))?;
        Ok(Some(Object {
            key: notified.key.clone(),
            version: notified.version.clone(),
            identity,
            size: answer.content_length.unwrap_or_default(),
            uploaded: Timestamp::UNIX_EPOCH,
            may_be_archived: false,
        }))
    }

    /// Returns whether all objects of a notification are counted, and by its recount if it asks for one, and the key of the
    /// first one that no longer exists.
    async fn all_counted(
        &self,
        objects: &[NotifiedObject],
        recount: Option<&str>,
    ) -> Result<(bool, Option<String>), Error> {
        let mut present = Vec::with_capacity(objects.len());
        let mut gone = None;
        for notified in objects {
            match self.head(notified).await? {
                Some(object) => present.push(object),
                None => gone = gone.or_else(|| Some(notified.key.clone())),
            }
        }
        let counted = self.counted_by(recount, &present, Consistency::Strong).await?;
        Ok((gone.is_none() && counted.into_iter().all(|counted| counted), gone))
    }

    /// Processes one notification as `mode` requires, and returns the outcome.
    async fn retry(
        &self,
        objects: &[NotifiedObject],
        recount: Option<&str>,
        mode: ReplayMode<'_>,
    ) -> Result<State, Error> {
        let (counted, gone) = self.all_counted(objects, recount).await?;
        if counted {
            return Ok(State::CountedBefore);
        }
        // If only some of several objects no longer exist, the others can still be counted, but the message remains.
        let cannot_count = gone.is_some() && objects.len() == 1;
        if mode != ReplayMode::Run || cannot_count {
            return Ok(gone.map_or(State::Waiting, State::Gone));
        }
        let name = &self.pipeline.function.name;
        // Nothing else of the message is passed on.
        let notification = objects.iter().map(|object| (object.key.as_str(), object.version.as_deref()));
        let answer = self.invoke(&self.notification(notification, recount), InvocationType::RequestResponse).await;
        let answer = answer.map_err(failed(format!("invoke function {name}")))?;
        if answer.function_error.is_some() {
            let payload = answer.payload.map(aws_sdk_lambda::primitives::Blob::into_inner).unwrap_or_default();
            let reason = serde_json::from_slice(&payload).ok().and_then(|payload| error_in(&payload));
            return Ok(State::FailedAgain(reason.unwrap_or_else(|| "the function returned no reason".to_owned())));
        }
        match self.all_counted(objects, recount).await? {
            (true, _) => Ok(State::Counted),
            (false, Some(gone)) => Ok(State::Gone(gone)),
            (false, None) => Ok(State::FailedAgain(
                "the function succeeded, but the ledger does not show the object as counted".to_owned(),
            )),
        }
    }

    /// Processes every message in the failure queue as `mode` requires, and calls `on_message` with each as soon as its
    /// outcome is known. Remaining messages become visible again, even if the run ends early.
    ///
    /// # Errors
    /// An AWS error; an error of `on_message`; a signal.
    pub(crate) async fn replay(
        &self,
        mode: ReplayMode<'_>,
        shutdown: &Shutdown,
        on_message: &mut (dyn FnMut(&Failure) -> Result<(), Error> + Send),
    ) -> Result<Vec<Failure>, Error> {
        let url = self.queue_url().await?;
        let mut found = Found::default();
        let result = self.process_queue(&url, &mut found, mode, shutdown, on_message).await;
        self.make_visible(&url, &found.remaining).await;
        result.map(|()| found.failures)
    }

    async fn process_queue(
        &self,
        url: &str,
        found: &mut Found,
        mode: ReplayMode<'_>,
        shutdown: &Shutdown,
        on_message: &mut (dyn FnMut(&Failure) -> Result<(), Error> + Send),
    ) -> Result<(), Error> {
        let hidden = if mode == ReplayMode::Inspect { INSPECT_HIDDEN_SECONDS } else { RETRY_HIDDEN_SECONDS };
        let (mut seen, mut empty) = (HashSet::new(), 0);
        let stopped = |signal: Signal, done: usize| {
            Error::interrupted(
                signal.exit_code(),
                format!("{signal}: stopped after {done} messages"),
                "run the command again: counted messages were deleted, the others remain in the queue",
            )
        };
        while empty < EMPTY_RESPONSES {
            let messages = shutdown.or_shutdown(self.receive(url, hidden)).await;
            let messages = messages.map_err(|signal| stopped(signal, found.failures.len()))??;
            let bucket = &self.pipeline.bucket.name;
            let new: Vec<Received> = messages
                .into_iter()
                .filter_map(|message| Received::of(message, bucket))
                .filter(|received| seen.insert(received.failure.message.clone()))
                .collect();
            empty = if new.is_empty() { empty + 1 } else { 0 };
            // A signal does not interrupt the messages of this batch.
            let handle = |received: Received| self.handle(url, received, mode);
            let done: Vec<(String, Handled)> = stream::iter(new).map(handle).buffered(self.at_once()).collect().await;
            let mut error = None;
            for (receipt, result) in done {
                match result {
                    Ok((failure, is_deleted)) => {
                        if let Err(broken) = on_message(&failure) {
                            error = error.or(Some(broken));
                        }
                        found.remaining.extend((!is_deleted).then_some(receipt));
                        found.failures.push(failure);
                    }
                    Err(failed) => {
                        found.remaining.push(receipt);
                        error = error.or(Some(failed));
                    }
                }
            }
            if let Some(error) = error {
                return Err(error);
            }
            if let Some(signal) = shutdown.requested() {
                return Err(stopped(signal, found.failures.len()));
            }
        }
        Ok(())
    }

    /// Processes one message; returns its receipt handle and its outcome.
    async fn handle(&self, url: &str, received: Received, mode: ReplayMode<'_>) -> (String, Handled) {
        let Received { receipt, mut failure, objects, recount } = received;
        let result = async {
            if let Some(objects) = &objects {
                // An error here must neither keep the other messages from being processed nor this one from being
                // deleted.
                let state = self.retry(objects, recount.as_deref(), mode).await;
                failure.state = state.unwrap_or_else(|error| State::Unclear(error.summary_with_help()));
            }
            let is_deleted = match mode {
                ReplayMode::Inspect => false,
                ReplayMode::Run => failure.state.is_counted(),
                ReplayMode::Delete(ids) => ids.contains(&failure.message),
            };
            if is_deleted {
                self.delete(url, &receipt).await?;
                if !failure.state.is_counted() {
                    failure.state = State::Deleted;
                }
            }
            Ok((failure, is_deleted))
        };
        let result = result.await;
        (receipt, result)
    }
}
