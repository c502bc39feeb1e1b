//! Sends objects that lie in the bucket already through the function, as S3's notifications would have.
//!
//! The work is Lambda's: each object goes as an asynchronous invocation. The ledger says what is counted, before and after,
//! so a run that is ended, or begun twice, counts nothing twice and loses nothing: the next one sends what is missing. At any
//! time there is a page of the listing in memory, and at most [`WINDOW`] objects that are sent and not counted yet.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use aws_sdk_lambda::types::InvocationType;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value as Json;
use tokio::sync::Mutex;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::failed;
use super::ledger::Consistency;
use super::objects::Object;
use crate::aws::{Pauses, Session, Wait};
use crate::error::{Error, ErrorKind};
use crate::shutdown::{Shutdown, Signal};

/// Objects that are sent and not counted yet: so many fill a few seconds of the rate, and the function's concurrency.
const WINDOW: usize = 500;
/// How many are sent between two looks at the ledger.
const BATCH: usize = 50;
/// Invocations that are asked for at the same time.
const AT_ONCE: usize = 16;
/// How long an object may take to be counted beyond the function's own limit: it may wait for its turn.
const PATIENCE: Duration = Duration::from_secs(60);
/// Objects that are looked for at a time: one batch of the ledger's.
const LOOKS: usize = 100;
/// With so many late ones and none counted between them, something is broken that sending more does not mend.
const LATE_IN_A_ROW: u64 = 100;
/// Keys that are named where there are more.
const EXAMPLES: usize = 10;

/// Which objects, and how.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// What keys begin with; the notification's prefix, or longer.
    pub(crate) prefix: String,
    /// Objects that S3 got from this time on.
    pub(crate) from: Option<Timestamp>,
    /// Objects that S3 got before this time.
    pub(crate) to: Option<Timestamp>,
    /// Only keys behind this one.
    pub(crate) after: Option<String>,
    /// Objects a second, at most.
    pub(crate) rate: u32,
    /// Look, and send nothing.
    pub(crate) dry_run: bool,
    /// Wait until what was sent is counted.
    pub(crate) wait: bool,
}

/// What became of the objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    /// Objects under the prefix.
    pub(crate) listed: u64,
    /// Of these, objects of another time, or that the notification does not name.
    pub(crate) left_out: u64,
    /// Of these, objects that were counted before.
    pub(crate) counted_before: u64,
    /// Of these, objects that were not; and their bytes.
    pub(crate) due: u64,
    /// Bytes of what is due.
    pub(crate) bytes: u64,
    /// Of what is due, objects that were sent to the function.
    pub(crate) sent: u64,
    /// Of what was sent, objects that are counted now.
    pub(crate) counted: u64,
    /// Some of the keys that are due, or that were sent and are not counted.
    pub(crate) examples: Vec<String>,
    /// Everything up to this key was seen: `--start-after` goes on from here.
    pub(crate) last_key: Option<String>,
}

impl Tally {
    fn example(&mut self, key: &str) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(key.to_owned());
        }
    }
}

fn number(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// Receives the number of finished objects, and of all objects once that is known.
pub(crate) type OnProgress<'a> = dyn Fn(u64, Option<u64>) + Send + Sync + 'a;

/// The progress of a run.
struct Progress<'a> {
    on_progress: &'a OnProgress<'a>,
    done: AtomicU64,
    /// 0 as long as it is unknown.
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

/// What goes on, and what came of it so far.
struct Run<'a> {
    session: &'a Session<'a>,
    options: &'a Options,
    shutdown: &'a Shutdown,
    progress: &'a Progress<'a>,
    ticks: Mutex<Interval>,
    patience: Duration,
    /// What is sent and not counted yet, and since when.
    in_flight: Vec<(Object, Instant)>,
    late: u64,
    late_in_a_row: u64,
    tally: Tally,
}

/// Why a run ends before its end.
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

/// Sends what is not counted. Says what became of it, also where it could not go to its end.
///
/// # Errors
/// What AWS answered; that objects were not counted in time; a signal.
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
        in_flight: Vec::new(),
        late: 0,
        late_in_a_row: 0,
        tally: Tally::default(),
    };
    let ended = {
        // How much there is, is found out by the way: listing is far quicker than sending.
        let mut sizing = pin!(size(session, options, &progress));
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
            "Lambda retries for some minutes, then sends the notification to the failure queue (`provisioner replay \
             --dry-run` shows it); run the same command again to send the missing objects",
        )),
        Err(End::Failed(error)) => Err(error),
        Err(End::Stopped(signal)) => {
            let (sent, open) = (tally.sent, in_flight.len());
            let help = match &tally.last_key {
                Some(key) => format!(
                    "run the same command again to continue; --start-after '{}' skips the objects of this run",
                    key.escape_debug()
                ),
                None => "run the same command again to continue".to_owned(),
            };
            let message =
                format!("{signal}: stopped after sending {sent} objects, of which {open} are not counted yet");
            Err(Error::interrupted(signal.exit_code(), message, help))
        }
    };
    (tally, result)
}

/// Counts what there is, for the bar. Where that fails, the work fails too and says why.
async fn size(session: &Session<'_>, options: &Options, progress: &Progress<'_>) {
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
        let Tally { left_out, counted_before, due, sent, counted, .. } = self.tally;
        let done = match (self.options.dry_run, self.options.wait) {
            (true, _) => due,
            (false, true) => counted + self.late,
            (false, false) => sent,
        };
        self.progress.set_done(left_out + counted_before + done);
    }

    async fn run(&mut self) -> Result<(), End> {
        let (session, options) = (self.session, self.options);
        let mut pages = pin!(session.pages(&options.prefix, options.after.clone()));
        let mut before: Option<String> = None;
        while let Some(page) = self.shutdown.or_shutdown(pages.next()).await? {
            let mut page = page?;
            self.tally.listed += number(page.len());
            let mut whole = self.tally.last_key.clone();
            for object in &page {
                // A page may end between the versions of a key, so a key is whole when another one follows.
                if before.as_ref().is_some_and(|before| *before != object.key) {
                    whole = before.take();
                }
                before = Some(object.key.clone());
            }
            page.retain(|object| self.is_wanted(object));
            let wanted = number(page.len());
            self.tally.left_out = self.tally.listed - (self.tally.counted_before + self.tally.due + wanted);
            let counted = self.shutdown.or_shutdown(session.counted(&page, Consistency::Eventual)).await??;
            let due: Vec<Object> =
                page.into_iter().zip(counted).filter(|(_, counted)| !counted).map(|(object, _)| object).collect();
            self.tally.counted_before += wanted - number(due.len());
            self.tally.due += number(due.len());
            self.tally.bytes += due.iter().map(|object| u64::try_from(object.size).unwrap_or_default()).sum::<u64>();
            self.progress();
            if options.dry_run {
                due.iter().for_each(|object| self.tally.example(&object.key));
            } else {
                self.send_all(due).await?;
            }
            self.tally.last_key = whole;
        }
        self.drain(0).await
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

    /// Sends these, and notes those that Lambda took.
    async fn send(&mut self, objects: Vec<Object>) -> Result<(), End> {
        let this = &*self;
        let one = |object: Object| async move {
            this.shutdown.or_shutdown(async { this.ticks.lock().await.tick().await }).await?;
            let told = this.notification(&object);
            let doing = || format!("send object {} to function {}", object.key, this.session.pipeline.function.name);
            this.session.invoke(&told, InvocationType::Event).await.map_err(|e| failed(doing())(e))?;
            Ok::<_, End>(object)
        };
        let sent: Vec<Result<Object, End>> = stream::iter(objects).map(one).buffer_unordered(AT_ONCE).collect().await;
        // What Lambda took is noted first, whatever became of the others.
        let mut ended = Ok(());
        for result in sent {
            match result {
                Ok(object) => {
                    self.tally.sent += 1;
                    if self.options.wait {
                        self.in_flight.push((object, Instant::now()));
                    }
                }
                Err(end) => ended = Err(end),
            }
        }
        ended
    }

    fn notification(&self, object: &Object) -> Json {
        let bucket = &self.session.pipeline.bucket.name;
        object.notification(bucket, &self.session.account.s3_arn(bucket), &self.session.account.region)
    }

    /// Takes out of the in_flight what is counted, and what is late.
    async fn poll_ledger(&mut self) -> Result<(), End> {
        // Those that were looked at longest ago, which are the first.
        let looked_at = self.in_flight.len().min(LOOKS);
        let looking =
            self.session.counted(self.in_flight.iter().take(LOOKS).map(|(object, _)| object), Consistency::Eventual);
        let counted = self.shutdown.or_shutdown(looking).await??;
        let rest = self.in_flight.split_off(looked_at);
        let in_flight = std::mem::replace(&mut self.in_flight, rest);
        for ((object, sent), counted) in in_flight.into_iter().zip(counted) {
            if counted {
                self.tally.counted += 1;
                self.late_in_a_row = 0;
            } else if sent.elapsed() > self.patience {
                self.late += 1;
                self.late_in_a_row += 1;
                self.tally.example(&object.key);
            } else {
                self.in_flight.push((object, sent));
            }
        }
        self.progress();
        if self.late_in_a_row >= LATE_IN_A_ROW {
            let message = format!(
                "the function does not count: {} objects in a row were sent and not counted within {} s",
                self.late_in_a_row,
                self.patience.as_secs()
            );
            let help =
                "run `provisioner status` and `provisioner verify` to find the cause, then the same command again";
            return Err(End::Failed(Error::new(ErrorKind::Timeout, message, help)));
        }
        Ok(())
    }

    /// Waits until at most so many are in in_flight. Each lands or is late, so this ends.
    async fn drain(&mut self, most: usize) -> Result<(), End> {
        let pauses = || {
            let what = "the function to count".to_owned();
            Pauses::new(Wait { what, deadline: Duration::MAX, on_wait: &|_, _| {} })
        };
        let mut slow = pauses();
        while self.in_flight.len() > most {
            let before = self.in_flight.len();
            self.poll_ledger().await?;
            if self.in_flight.len() < before {
                slow = pauses();
            } else {
                self.shutdown.or_shutdown(slow.next(None)).await??;
            }
        }
        Ok(())
    }
}
