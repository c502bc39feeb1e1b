//! Counts objects that are already in the bucket, by sending the notifications that S3 would have sent.
//!
//! Each object is a message in the queue, or one asynchronous invocation. The ledger is read before and after, so a
//! backfill is idempotent: a run that was stopped, or started twice, neither counts an object twice nor loses one, and the
//! next run sends the missing objects. A recount sends counted objects too; the function adds the difference between
//! what it counts today and what was added before. Memory holds one page of the listing and at most [`WINDOW`] objects in flight.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use aws_sdk_lambda::types::InvocationType;
use aws_sdk_sqs::types::{BatchResultErrorEntry, SendMessageBatchRequestEntry};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value as Json;
use tokio::sync::Mutex;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::failed;
use super::ledger::Consistency;
use super::objects::Object;
use crate::aws::{Call, Pauses, Session, Wait, absent_on, policy};
use crate::config::Via;
use crate::error::{Error, ErrorKind};
use crate::resources::life::{LEDGER_LIFE, Life};
use crate::resources::role::{FUNCTION_POLICY, earlier_prefix};
use crate::shutdown::{Shutdown, Signal};
use crate::text::printable;

/// The maximum number of objects in flight (sent, not counted yet): enough for a few seconds of the rate and for the
/// function's concurrency.
const WINDOW: usize = 500;
/// The number of objects sent between two polls of the ledger.
const BATCH: usize = 50;
/// The maximum number of concurrent invocation requests.
const AT_ONCE: usize = 16;
/// The maximum number of messages in a call (API reference, SendMessageBatch).
const MESSAGES_PER_CALL: usize = 10;
/// The time that counting an object may take beyond the function's timeout, since its invocation may be queued.
const PATIENCE: Duration = Duration::from_secs(60);
/// The number of objects in a poll: one batch read of the ledger.
const POLL_BATCH: usize = 100;
/// The number of consecutive late objects, with no counted one between them, after which the function is considered
/// broken and no more objects are sent.
const LATE_IN_A_ROW: u64 = 100;
/// The maximum number of keys in [`Tally::examples`].
const EXAMPLES: usize = 10;

/// The selection of objects, and the options of the run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The prefix of the keys: the notification's prefix, or longer.
    pub(crate) prefix: String,
    /// Only objects uploaded at or after this time.
    pub(crate) from: Option<Timestamp>,
    /// Only objects uploaded before this time.
    pub(crate) to: Option<Timestamp>,
    /// Only keys after this one.
    pub(crate) after: Option<String>,
    /// The maximum number of objects a second.
    pub(crate) rate: u32,
    /// The name of the recount, to count objects again that are counted.
    pub(crate) recount: Option<String>,
    /// Report the objects without sending them.
    pub(crate) dry_run: bool,
    /// Wait until the sent objects are counted.
    pub(crate) wait: bool,
}

/// The outcome of a run, in numbers of objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    /// Objects under the prefix.
    pub(crate) listed: u64,
    /// Listed objects outside the time range or the notification's filter.
    pub(crate) left_out: u64,
    /// Selected objects that were counted before the run, and that it does not recount.
    pub(crate) counted_before: u64,
    /// Other selected objects that are archived, so that they cannot be read.
    pub(crate) archived: u64,
    /// Other selected objects that the ledger may have forgotten, as its items lived shorter before: they may be counted.
    pub(crate) forgotten: u64,
    /// Keys of some of them.
    pub(crate) forgotten_examples: Vec<String>,
    /// Keys of some archived objects.
    pub(crate) archived_examples: Vec<String>,
    /// The other selected objects: those that were not counted before the run, or all in a recount.
    pub(crate) due: u64,
    /// The size of the due objects in bytes.
    pub(crate) bytes: u64,
    /// Due objects that were sent to the function.
    pub(crate) sent: u64,
    /// Sent objects that are counted now.
    pub(crate) counted: u64,
    /// Keys of some due objects (dry run), or of some that were sent and not counted in time.
    pub(crate) examples: Vec<String>,
    /// The last key whose versions were all processed; `--start-after` continues after it.
    pub(crate) last_key: Option<String>,
}

impl Tally {
    fn add_example(&mut self, key: &str) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(key.to_owned());
        }
    }
}

fn number(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// A callback for the number of finished objects, and for the total once it is known.
pub(crate) type OnProgress<'a> = dyn Fn(u64, Option<u64>) + Send + Sync + 'a;

struct Progress<'a> {
    on_progress: &'a OnProgress<'a>,
    done: AtomicU64,
    /// 0 while unknown.
    total: AtomicU64,
}

impl Progress<'_> {
    fn set_done(&self, done: u64) {
        self.done.store(done, Relaxed);
        self.report();
    }

    fn set_total(&self, total: u64) {
        self.total.store(total, Relaxed);
        self.report();
    }

    fn report(&self) {
        let total = Some(self.total.load(Relaxed)).filter(|total| *total > 0);
        (self.on_progress)(self.done.load(Relaxed), total);
    }
}

/// The state of a run.
struct Run<'a> {
    session: &'a Session<'a>,
    options: &'a Options,
    shutdown: &'a Shutdown,
    progress: &'a Progress<'a>,
    ticks: Mutex<Interval>,
    patience: Duration,
    /// The life of the ledger's items, if they expire or did.
    life: Option<Life>,
    /// The URL of the queue of notifications, unless they go to the function directly.
    queue_url: Option<String>,
    /// Objects that are sent and not counted yet, each with the time of its invocation.
    in_flight: Vec<(Object, Instant)>,
    late: u64,
    late_in_a_row: u64,
    tally: Tally,
}

/// The reason why a run ended early.
enum End {
    Failed(Error),
    Stopped(Signal),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Signal> for End {
    fn from(signal: Signal) -> Self {
        Self::Stopped(signal)
    }
}

impl Session<'_> {
    /// Returns the life of the ledger's items, if they expire or did.
    async fn ledger_life(&self) -> Result<Option<Life>, Error> {
        let table = &self.pipeline.table.ledger;
        let mut request = self.aws.dynamodb.list_tags_of_resource().resource_arn(self.account.table_arn(table));
        loop {
            let answer = request.clone().send().await.call("dynamodb:ListTagsOfResource");
            let page = answer.map_err(failed(format!("read the tags of table {table}")))?;
            if let Some(tag) = page.tags().iter().find(|tag| tag.key == LEDGER_LIFE) {
                return Ok(Life::of(&tag.value));
            }
            match page.next_token {
                Some(token) => request = request.next_token(token),
                None => return Ok(None),
            }
        }
    }

    /// Fails if the function may not read the objects below a prefix: they must be below the notification's prefix, or
    /// below an earlier one that the role still has.
    ///
    /// # Errors
    /// A usage error with the prefixes that can be passed; the role's policy cannot be read.
    pub(crate) async fn ensure_readable(&self, prefix: &str) -> Result<(), Error> {
        let current = &self.pipeline.notification.prefix;
        if prefix.starts_with(current) {
            return Ok(());
        }
        let role = &self.pipeline.function.role.name;
        let request = self.aws.iam.get_role_policy().role_name(role).policy_name(FUNCTION_POLICY).send().await;
        let answer = absent_on(request.call("iam:GetRolePolicy"), &["NoSuchEntity"]);
        let answer = answer.map_err(failed(format!("read the policy of role {role}")))?;
        let live = answer.and_then(|answer| policy::parse(&answer.policy_document, String::new).ok());
        let live = live.map(|live| policy::canonical(&live)).unwrap_or_default();
        let now = Timestamp::now();
        let earlier = earlier_prefix::of(&live).into_iter().filter(|(_, end)| now < *end).map(|(prefix, _)| prefix);
        let readable: Vec<String> = std::iter::once(current.clone()).chain(earlier).collect();
        if readable.iter().any(|other| prefix.starts_with(other)) {
            return Ok(());
        }
        Err(Error::usage(
            format!("--prefix {} is outside the pipeline's notification", prefix.escape_debug()),
            format!("begin it with {}", readable.join(" or ")),
        ))
    }
}

/// Sends the objects that are not counted yet. Returns the tally even if the run ended early.
///
/// # Errors
/// An AWS error; objects that were not counted in time; a signal.
pub(crate) async fn backfill(
    session: &Session<'_>,
    options: &Options,
    on_progress: &OnProgress<'_>,
    shutdown: &Shutdown,
) -> (Tally, Result<(), Error>) {
    let progress = Progress { on_progress, done: AtomicU64::new(0), total: AtomicU64::new(0) };
    let mut ticks = interval(Duration::from_secs(1) / options.rate.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let seconds = u64::try_from(session.pipeline.function.timeout_seconds).unwrap_or_default();
    let mut run = Run {
        session,
        options,
        shutdown,
        progress: &progress,
        ticks: Mutex::new(ticks),
        patience: Duration::from_secs(seconds) + PATIENCE,
        life: None,
        queue_url: None,
        in_flight: Vec::new(),
        late: 0,
        late_in_a_row: 0,
        tally: Tally::default(),
    };
    let ended = {
        // The total is determined concurrently: listing is far faster than sending.
        let mut sizing = pin!(count_listed(session, options, &progress));
        let mut work = pin!(run.run());
        tokio::select! {
            ended = &mut work => ended,
            () = &mut sizing => work.await,
        }
    };
    let Run { tally, late, in_flight, .. } = run;
    let result = match ended {
        Ok(()) if late == 0 => Ok(()),
        Ok(()) => Err(Error::new(
            ErrorKind::Incomplete,
            format!("{late} of {} objects that were sent are not counted", tally.sent),
            "run the same command again to send the missing objects; Lambda retries for some minutes, then sends the \
             notification to the failure queue (`provisioner replay --dry-run` shows it)",
        )),
        Err(End::Failed(error)) => Err(error),
        Err(End::Stopped(signal)) => {
            let (sent, open) = (tally.sent, in_flight.len());
            // A key is any text: it is quoted for a shell, and one that a terminal would interpret is not printed.
            let key = tally.last_key.as_deref().filter(|key| printable(key) == **key);
            let help = match key.and_then(|key| shlex::try_quote(key).ok()) {
                Some(key) => {
                    format!("run the same command again to continue; --start-after {key} skips the objects of this run")
                }
                None => "run the same command again to continue".to_owned(),
            };
            let message =
                format!("{signal}: stopped after sending {sent} objects, of which {open} are not counted yet");
            Err(Error::interrupted(signal.exit_code(), message, help))
        }
    };
    (tally, result)
}

/// Counts the objects under the prefix, for the total of the progress bar. If the listing fails, the run fails with the
/// same error, so it is not reported here.
async fn count_listed(session: &Session<'_>, options: &Options, progress: &Progress<'_>) {
    let pages = session.pages(&options.prefix, options.after.clone());
    let total = pages.try_fold(0, |total, page| async move { Ok(total + number(page.len())) }).await;
    if let Ok(total) = total {
        progress.set_total(total);
    }
}

impl Run<'_> {
    fn is_wanted(&self, object: &Object) -> bool {
        object.key.ends_with(&self.session.pipeline.notification.suffix)
            && self.options.from.is_none_or(|from| object.uploaded >= from)
            && self.options.to.is_none_or(|to| object.uploaded < to)
    }

    fn progress(&self) {
        let Tally { left_out, counted_before, forgotten, archived, due, sent, counted, .. } = self.tally;
        let done = match (self.options.dry_run, self.options.wait) {
            (true, _) => due,
            (false, true) => counted + self.late,
            (false, false) => sent,
        };
        self.progress.set_done(left_out + counted_before + forgotten + archived + done);
    }

    async fn run(&mut self) -> Result<(), End> {
        let (session, options) = (self.session, self.options);
        let notification = &session.pipeline.notification;
        if notification.via == Via::Queue && !options.dry_run {
            self.queue_url = Some(session.url_of(&notification.queue).await?);
        }
        self.life = session.ledger_life().await?;
        let mut pages = pin!(session.pages(&options.prefix, options.after.clone()));
        let mut before: Option<String> = None;
        while let Some(page) = self.shutdown.or_shutdown(pages.next()).await? {
            let mut page = page?;
            self.tally.listed += number(page.len());
            let mut completed = self.tally.last_key.clone();
            for object in &page {
                // A page may end between two versions of a key, so a key is complete only once another one follows.
                if before.as_ref().is_some_and(|before| *before != object.key) {
                    completed = before.take();
                }
                before = Some(object.key.clone());
            }
            page.retain(|object| self.is_wanted(object));
            let wanted = number(page.len());
            let Tally { listed, counted_before, forgotten, archived, due, .. } = self.tally;
            self.tally.left_out = listed - (counted_before + forgotten + archived + due + wanted);
            let recount = options.recount.as_deref();
            let counted = session.counted_by(recount, &page, Consistency::Eventual);
            let counted = self.shutdown.or_shutdown(counted).await??;
            let due: Vec<Object> =
                page.into_iter().zip(counted).filter(|(_, counted)| !counted).map(|(object, _)| object).collect();
            self.tally.counted_before += wanted - number(due.len());
            let due = self.without_forgotten(due);
            let due = self.without_archived(due).await?;
            self.tally.due += number(due.len());
            self.tally.bytes += due.iter().map(|object| u64::try_from(object.size).unwrap_or_default()).sum::<u64>();
            self.progress();
            if options.dry_run {
                due.iter().for_each(|object| self.tally.add_example(&object.key));
            } else {
                self.send_all(due).await?;
            }
            self.tally.last_key = completed;
        }
        self.drain(0).await
    }

    /// Leaves out the objects that may be counted although the ledger does not know them.
    fn without_forgotten(&mut self, due: Vec<Object>) -> Vec<Object> {
        let Some(life) = &self.life else { return due };
        let now = Timestamp::now();
        let (forgotten, due): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|object| life.has_forgotten(object.uploaded, now));
        self.tally.forgotten += number(forgotten.len());
        let more = EXAMPLES.saturating_sub(self.tally.forgotten_examples.len());
        self.tally.forgotten_examples.extend(forgotten.into_iter().take(more).map(|object| object.key));
        due
    }

    /// Leaves out the archived objects: the function could not read them, and their notifications would only fill the
    /// failure queue.
    async fn without_archived(&mut self, due: Vec<Object>) -> Result<Vec<Object>, End> {
        let session = self.session;
        let check = |object: Object| async move {
            let is_archived = object.may_be_archived && session.is_archived(&object).await?;
            Ok::<_, Error>((object, is_archived))
        };
        let checked = stream::iter(due).map(check).buffered(AT_ONCE).try_collect::<Vec<(Object, bool)>>();
        let checked = self.shutdown.or_shutdown(checked).await??;
        let (archived, readable): (Vec<_>, Vec<_>) = checked.into_iter().partition(|(_, is_archived)| *is_archived);
        self.tally.archived += number(archived.len());
        let more = EXAMPLES.saturating_sub(self.tally.archived_examples.len());
        self.tally.archived_examples.extend(archived.into_iter().take(more).map(|(object, _)| object.key));
        Ok(readable.into_iter().map(|(object, _)| object).collect())
    }

    async fn send_all(&mut self, due: Vec<Object>) -> Result<(), End> {
        let mut due = due.into_iter().peekable();
        while due.peek().is_some() {
            let batch: Vec<Object> = due.by_ref().take(BATCH).collect();
            self.drain(WINDOW - BATCH).await?;
            self.send(batch).await?;
            self.poll_ledger().await?;
        }
        Ok(())
    }

    /// Sends a batch, and records the objects whose notifications were accepted.
    async fn send(&mut self, objects: Vec<Object>) -> Result<(), End> {
        let this = &*self;
        let sent: Vec<(Vec<Object>, Result<(), End>)> = match this.queue_url.as_deref() {
            None => {
                let send = |object: Object| async move {
                    let result = this.invoke(&object).await;
                    if result.is_ok() { (vec![object], result) } else { (Vec::new(), result) }
                };
                stream::iter(objects).map(send).buffer_unordered(AT_ONCE).collect().await
            }
            Some(url) => {
                let groups = objects.chunks(MESSAGES_PER_CALL);
                stream::iter(groups).map(|group| this.enqueue(url, group)).buffer_unordered(AT_ONCE).collect().await
            }
        };
        // Accepted notifications are recorded even if others failed.
        let mut ended = Ok(());
        for (accepted, result) in sent {
            self.tally.sent += number(accepted.len());
            if self.options.wait {
                self.in_flight.extend(accepted.into_iter().map(|object| (object, Instant::now())));
            }
            if let Err(end) = result {
                ended = Err(end);
            }
        }
        ended
    }

    async fn invoke(&self, object: &Object) -> Result<(), End> {
        self.shutdown.or_shutdown(async { self.ticks.lock().await.tick().await }).await?;
        let doing = || format!("send object {} to function {}", object.key, self.session.pipeline.function.name);
        let sent = self.session.invoke(&self.notification(object), InvocationType::Event).await;
        sent.map_err(|error| failed(doing())(error))?;
        Ok(())
    }

    /// Puts the notifications of at most [`MESSAGES_PER_CALL`] objects into the queue. Returns the objects whose messages
    /// SQS accepted.
    async fn enqueue(&self, url: &str, objects: &[Object]) -> (Vec<Object>, Result<(), End>) {
        match self.try_enqueue(url, objects).await {
            Err(end) => (Vec::new(), Err(end)),
            Ok(refused) => {
                let is_accepted = |index: usize| refused.iter().all(|(refused, _)| *refused != index);
                let accepted = objects.iter().enumerate().filter(|(index, _)| is_accepted(*index));
                let accepted = accepted.map(|(_, object)| object.clone()).collect();
                let queue = &self.session.pipeline.notification.queue;
                let error = refused.into_iter().next().map(|(_, why)| {
                    let help = "run the same command again, which sends the missing objects";
                    Error::new(ErrorKind::Aws, format!("failed to send to queue {queue}: SQS answered {why}"), help)
                });
                (accepted, error.map_or(Ok(()), |error| Err(End::Failed(error))))
            }
        }
    }

    /// Returns the index of each object whose message SQS refused, with the reason.
    async fn try_enqueue(&self, url: &str, objects: &[Object]) -> Result<Vec<(usize, String)>, End> {
        let mut entries = Vec::with_capacity(objects.len());
        for (index, object) in objects.iter().enumerate() {
            self.shutdown.or_shutdown(async { self.ticks.lock().await.tick().await }).await?;
            let body = self.notification(object).to_string();
            let entry = SendMessageBatchRequestEntry::builder().id(index.to_string()).message_body(body);
            entries.push(entry.build().map_err(Error::from)?);
        }
        let request = self.session.aws.sqs.send_message_batch().queue_url(url).set_entries(Some(entries));
        let answer = request.send().await.call("sqs:SendMessage");
        let queue = &self.session.pipeline.notification.queue;
        let refused = answer.map_err(failed(format!("send to queue {queue}")))?.failed;
        let why = |entry: BatchResultErrorEntry| {
            let message = entry.message.map(|message| format!(": {message}")).unwrap_or_default();
            (entry.id.parse().unwrap_or(0), format!("{}{message}", entry.code))
        };
        Ok(refused.into_iter().map(why).collect())
    }

    fn notification(&self, object: &Object) -> Json {
        let key = (object.key.as_str(), object.version.as_deref());
        self.session.notification([key], self.options.recount.as_deref())
    }

    /// Reads the ledger for the oldest objects in flight, and removes those that are counted or late.
    async fn poll_ledger(&mut self) -> Result<(), End> {
        // The objects at the front were polled longest ago.
        let polled = self.in_flight.len().min(POLL_BATCH);
        let objects = self.in_flight.iter().take(POLL_BATCH).map(|(object, _)| object);
        let recount = self.options.recount.as_deref();
        let counted = self.session.counted_by(recount, objects, Consistency::Eventual);
        let counted = self.shutdown.or_shutdown(counted).await??;
        let rest = self.in_flight.split_off(polled);
        let in_flight = std::mem::replace(&mut self.in_flight, rest);
        for ((object, sent), counted) in in_flight.into_iter().zip(counted) {
            if counted {
                self.tally.counted += 1;
                self.late_in_a_row = 0;
            } else if sent.elapsed() > self.patience {
                self.late += 1;
                self.late_in_a_row += 1;
                self.tally.add_example(&object.key);
            } else {
                self.in_flight.push((object, sent));
            }
        }
        self.progress();
        if self.late_in_a_row >= LATE_IN_A_ROW {
            let message = format!(
                "the function is not counting: {} consecutive objects were sent, but not counted within {} s",
                self.late_in_a_row,
                self.patience.as_secs()
            );
            let help =
                "run `provisioner status` and `provisioner verify` to find the cause, then the same command again";
            return Err(End::Failed(Error::new(ErrorKind::Timeout, message, help)));
        }
        Ok(())
    }

    /// Waits until at most `limit` objects are in flight. This terminates, since every object is counted or late at
    /// some point.
    async fn drain(&mut self, limit: usize) -> Result<(), End> {
        let pauses = || {
            let what = "the function to count".to_owned();
            Pauses::new(Wait { what, deadline: Duration::MAX, on_wait: &|_, _| {} })
        };
        let mut backoff = pauses();
        while self.in_flight.len() > limit {
            let before = self.in_flight.len();
            self.poll_ledger().await?;
            if self.in_flight.len() < before {
                backoff = pauses();
            } else {
                self.shutdown.or_shutdown(backoff.next(None)).await??;
            }
        }
        Ok(())
    }
}
