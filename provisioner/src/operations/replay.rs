//! The failure queue: what lies in it, and another try for it.
//!
//! A message is what Lambda says of an invocation that it has given up: the notification, and the last error. The
//! notification is run again, at once and to its end, so that another failure is known here and makes no second message. A
//! message goes only when the ledger says that all of its objects are counted.

use std::collections::HashSet;

use aws_sdk_lambda::types::InvocationType;
use counting::names::ledger;
use counting::notification::NotifiedObject;
use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use serde_json::Value as Json;

use super::failed;
use super::failure_queue::{Failure, Received, State, error_in};
use super::ledger::Consistency;
use super::objects::Object;
use crate::aws::{Call, Session, absent_on};
use crate::error::Error;
use crate::shutdown::{Shutdown, Signal};

/// How long a message that is run again is hidden from others, in seconds; and one that is merely looked at. What stays is given
/// back at the end, unless the process is killed.
const HIDDEN: i32 = 15 * 60;
const HIDDEN_FOR_A_LOOK: i32 = 60;
/// So many empty answers mean that the queue is.
const EMPTY: u32 = 2;

/// What is to be done with what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplayMode<'a> {
    /// Nothing.
    Inspect,
    /// To be run again.
    Run,
    /// To be deleted, if it is among these messages.
    Delete(&'a HashSet<String>),
}

/// What became of a message, and whether it is removed.
type Handled = Result<(Failure, bool), Error>;

/// What was found in the queue.
#[derive(Default)]
struct Found {
    /// The messages, as they are now.
    failures: Vec<Failure>,
    /// What identifies those that are still in the queue to SQS.
    kept: Vec<String>,
}

impl Session<'_> {
    /// The object of a notification as it is in the bucket; nothing where it is not there any more.
    async fn head(&self, told: &NotifiedObject) -> Result<Option<Object>, Error> {
        let request = self.aws.s3.head_object().bucket(&told.bucket).key(&told.key);
        let request = request.set_version_id(told.version.clone()).expected_bucket_owner(&self.account.id);
        // An answer to HEAD has no body, and so no code but `NotFound`.
        let answer = absent_on(request.send().await.call("s3:GetObject"), &["NotFound", "NoSuchKey", "NoSuchVersion"]);
        let Some(answer) = answer.map_err(failed(format!("look at object {}", told.key)))? else { return Ok(None) };
        // What the function knows it by: the version that was told of, or else the ETag of what is there.
        let identity = ledger::identity(told.version.as_deref(), answer.e_tag.as_deref());
        let identity =
            identity.ok_or_else(|| Error::incomplete_answer(format!("look at object {}", told.key), "ETag"))?;
        Ok(Some(Object {
            key: told.key.clone(),
            version: told.version.clone(),
            identity,
            size: answer.content_length.unwrap_or_default(),
            uploaded: Timestamp::UNIX_EPOCH,
        }))
    }

    /// Whether all objects of a notification are counted: `Some(key)` of the first that is gone, where one is.
    async fn all_counted(&self, objects: &[NotifiedObject]) -> Result<(bool, Option<String>), Error> {
        let mut there = Vec::with_capacity(objects.len());
        let mut gone = None;
        for told in objects {
            match self.head(told).await? {
                Some(object) => there.push(object),
                None => gone = gone.or_else(|| Some(told.key.clone())),
            }
        }
        let counted = self.counted(&there, Consistency::Strong).await?;
        Ok((gone.is_none() && counted.into_iter().all(|counted| counted), gone))
    }

    /// What becomes of one notification.
    async fn retry(&self, told: &Json, objects: &[NotifiedObject], what: ReplayMode<'_>) -> Result<State, Error> {
        let (counted, gone) = self.all_counted(objects).await?;
        if counted {
            return Ok(State::CountedBefore);
        }
        // Where some of several objects are gone, the others can still be counted, but the message stays.
        let hopeless = gone.is_some() && objects.len() == 1;
        if what != ReplayMode::Run || hopeless {
            return Ok(gone.map_or(State::Waiting, State::Gone));
        }
        let name = &self.pipeline.function.name;
        let answer = self.invoke(told, InvocationType::RequestResponse).await;
        let answer = answer.map_err(failed(format!("run function {name}")))?;
        if answer.function_error.is_some() {
            let payload = answer.payload.map(aws_sdk_lambda::primitives::Blob::into_inner).unwrap_or_default();
            let said = serde_json::from_slice(&payload).ok().and_then(|payload| error_in(&payload));
            return Ok(State::FailedAgain(said.unwrap_or_else(|| "the function gave no reason".to_owned())));
        }
        match self.all_counted(objects).await? {
            (true, _) => Ok(State::Counted),
            (false, Some(gone)) => Ok(State::Gone(gone)),
            (false, None) => {
                Ok(State::FailedAgain("the function ran, but the ledger does not have the object".to_owned()))
            }
        }
    }

    /// Looks at every message of the failure queue, and does with it what is asked. Where messages are run again, counted ones
    /// are removed. `tell` hears of each as soon as it is known. What stays is given back, also where this ends early.
    ///
    /// # Errors
    /// What AWS answered; a signal.
    pub(crate) async fn replay(
        &self,
        what: ReplayMode<'_>,
        shutdown: &Shutdown,
        tell: &mut (dyn FnMut(&Failure) -> Result<(), Error> + Send),
    ) -> Result<Vec<Failure>, Error> {
        let url = self.queue_url().await?;
        let mut found = Found::default();
        let result = self.walk(&url, &mut found, what, shutdown, tell).await;
        self.give_back(&url, &found.kept).await;
        result.map(|()| found.failures)
    }

    async fn walk(
        &self,
        url: &str,
        found: &mut Found,
        what: ReplayMode<'_>,
        shutdown: &Shutdown,
        tell: &mut (dyn FnMut(&Failure) -> Result<(), Error> + Send),
    ) -> Result<(), Error> {
        let hidden = if what == ReplayMode::Inspect { HIDDEN_FOR_A_LOOK } else { HIDDEN };
        let (mut seen, mut empty) = (HashSet::new(), 0);
        let stopped = |signal: Signal, done: usize| {
            Error::interrupted(
                signal.exit_code(),
                format!("{}: {}", signal, format!("stopped after {done} messages")),
                "what is counted is removed and the rest is in the queue: run the command again",
            )
        };
        while empty < EMPTY {
            let messages = shutdown.or_shutdown(self.receive(url, hidden)).await;
            let messages = messages.map_err(|signal| stopped(signal, found.failures.len()))??;
            let bucket = &self.pipeline.bucket.name;
            let fresh: Vec<Received> = messages
                .into_iter()
                .filter_map(|message| Received::of(message, bucket))
                .filter(|received| seen.insert(received.failure.message.clone()))
                .collect();
            empty = if fresh.is_empty() { empty + 1 } else { 0 };
            // What has begun is finished, whatever comes.
            let one = |received: Received| self.handle(url, received, what);
            let done: Vec<(String, Handled)> = stream::iter(fresh).map(one).buffered(self.at_once()).collect().await;
            let mut error = None;
            for (receipt, result) in done {
                match result {
                    Ok((failure, is_removed)) => {
                        if let Err(broken) = tell(&failure) {
                            error = error.or(Some(broken));
                        }
                        found.kept.extend((!is_removed).then_some(receipt));
                        found.failures.push(failure);
                    }
                    Err(failed) => {
                        found.kept.push(receipt);
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

    /// Does with one message what is asked; says what became of it, and whether it is removed.
    async fn handle(&self, url: &str, received: Received, what: ReplayMode<'_>) -> (String, Handled) {
        let Received { receipt, mut failure, notification } = received;
        let result = async {
            if let Some((told, objects)) = &notification {
                // One that cannot be looked at keeps none of the others from being handled, nor itself from being deleted.
                let state = self.retry(told, objects, what).await;
                failure.state = state.unwrap_or_else(|error| State::Unclear(error.summary().to_owned()));
            }
            let is_removed = match what {
                ReplayMode::Inspect => false,
                ReplayMode::Run => failure.state.is_counted(),
                ReplayMode::Delete(these) => these.contains(&failure.message),
            };
            if is_removed {
                self.delete(url, &receipt).await?;
                if !failure.state.is_counted() {
                    failure.state = State::Deleted;
                }
            }
            Ok((failure, is_removed))
        };
        let result = result.await;
        (receipt, result)
    }
}
