//! Sends objects that lie in the bucket already through the function, as S3's notifications would have.
//!
//! The work is Lambda's: each object goes as an asynchronous invocation. The ledger says what is counted, before and after,
//! so a run that is ended, or begun twice, counts nothing twice and loses nothing: the next one sends what is missing. At any
//! time there is a page of the listing in memory, and at most [`WINDOW`] objects that are sent and not counted yet.

use std::pin::pin;
use std::time::Duration;

use aws_sdk_lambda::types::InvocationType;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value as Json;
use tokio::sync::Mutex;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::ledger::Reading;
use super::objects::Object;
use super::{Operator, failed, unless_stopped};
use crate::aws::{Pauses, Waiting};
use crate::error::Error;
use crate::report::progress::Bar;
use crate::signal::{Signal, Stop};

/// Objects that are sent and not counted yet: so many fill a few seconds of the rate, and the function's concurrency.
const WINDOW: usize = 500;
/// How many are sent between two looks at the ledger.
const STRIDE: usize = 50;
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
pub struct Options {
    /// What keys begin with; the notification's prefix, or longer.
    pub prefix: String,
    /// Objects that S3 got from this time on.
    pub from: Option<Timestamp>,
    /// Objects that S3 got before this time.
    pub to: Option<Timestamp>,
    /// Only keys behind this one.
    pub after: Option<String>,
    /// Objects a second, at most.
    pub rate: u32,
    /// Look, and send nothing.
    pub dry_run: bool,
    /// Wait until what was sent is counted.
    pub wait: bool,
}

/// What became of the objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Objects under the prefix.
    pub listed: u64,
    /// Of these, objects of another time, or that the notification does not name.
    pub left_out: u64,
    /// Of these, objects that were counted before.
    pub counted_before: u64,
    /// Of these, objects that were not; and their bytes.
    pub due: u64,
    /// Bytes of what is due.
    pub bytes: u64,
    /// Of what is due, objects that were sent to the function.
    pub sent: u64,
    /// Of what was sent, objects that are counted now.
    pub counted: u64,
    /// Some of the keys that are due, or that were sent and are not counted.
    pub examples: Vec<String>,
    /// Everything up to this key was seen: `--start-after` goes on from here.
    pub last_key: Option<String>,
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

/// What goes on, and what came of it so far.
struct Run<'a> {
    operator: &'a Operator<'a>,
    options: &'a Options,
    stop: &'a Stop,
    bar: &'a Bar,
    ticks: Mutex<Interval>,
    patience: Duration,
    /// What is sent and not counted yet, and since when.
    flight: Vec<(Object, Instant)>,
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
pub async fn backfill(
    operator: &Operator<'_>,
    options: &Options,
    bar: &Bar,
    stop: &Stop,
) -> (Tally, Result<(), Error>) {
    let mut ticks = interval(Duration::from_secs(1) / options.rate.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let seconds = u64::try_from(operator.pipeline.function.timeout_seconds).unwrap_or_default();
    let mut run = Run {
        operator,
        options,
        stop,
        bar,
        ticks: Mutex::new(ticks),
        patience: Duration::from_secs(seconds) + PATIENCE,
        flight: Vec::new(),
        late: 0,
        late_in_a_row: 0,
        tally: Tally::default(),
    };
    let ended = {
        // How much there is, is found out by the way: listing is far quicker than sending.
        let mut sizing = pin!(size(operator, options, bar));
        let mut work = pin!(run.go());
        tokio::select! {
            ended = &mut work => ended,
            () = &mut sizing => work.await,
        }
    };
    let Run { tally, late, flight, .. } = run;
    bar.finish();
    let result = match ended {
        Ok(()) if late == 0 => Ok(()),
        Ok(()) => Err(Error::Refused {
            what: format!("{late} of {} objects that were sent are not counted", tally.sent),
            help: "Lambda tries again for some minutes; what it gives up lies in the failure queue, which \
                   `provisioner replay --dry-run` shows. Run the same command again to send what is missing"
                .to_owned(),
        }),
        Err(End::Failed(error)) => Err(error),
        Err(End::Stopped(signal)) => Err(Error::Interrupted {
            signal,
            what: format!(
                "stopped after sending {} objects, of which {} are not counted yet",
                tally.sent,
                flight.len()
            ),
            help: match &tally.last_key {
                Some(key) => format!(
                    "run the same command again to continue; --start-after '{}' spares it what this run has seen",
                    key.escape_debug()
                ),
                None => "run the same command again to continue".to_owned(),
            },
        }),
    };
    (tally, result)
}

/// Counts what there is, for the bar. Where that fails, the work fails too and says why.
async fn size(operator: &Operator<'_>, options: &Options, bar: &Bar) {
    let pages = operator.pages(&options.prefix, options.after.clone());
    let total = pages.try_fold(0, |total, page| async move { Ok(total + number(page.len())) }).await;
    if let Ok(total) = total {
        bar.total(total);
    }
}

impl Run<'_> {
    fn is_wanted(&self, object: &Object) -> bool {
        object.key.ends_with(&self.operator.pipeline.notification.suffix)
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
        self.bar.done(left_out + counted_before + done);
    }

    async fn go(&mut self) -> Result<(), End> {
        let (operator, options) = (self.operator, self.options);
        let mut pages = pin!(operator.pages(&options.prefix, options.after.clone()));
        let mut before: Option<String> = None;
        while let Some(page) = unless_stopped(self.stop, pages.next()).await? {
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
            let counted = unless_stopped(self.stop, operator.counted(&page, Reading::Lately)).await??;
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
        self.land(0).await
    }

    async fn send_all(&mut self, due: Vec<Object>) -> Result<(), End> {
        let mut due = due.into_iter().peekable();
        while due.peek().is_some() {
            let stride: Vec<Object> = due.by_ref().take(STRIDE).collect();
            self.land(WINDOW - STRIDE).await?;
            self.send(stride).await?;
            self.look().await?;
        }
        Ok(())
    }

    /// Sends these, and notes those that Lambda took.
    async fn send(&mut self, objects: Vec<Object>) -> Result<(), End> {
        let this = &*self;
        let one = |object: Object| async move {
            unless_stopped(this.stop, async { this.ticks.lock().await.tick().await }).await?;
            let told = this.notification(&object);
            let doing = || format!("send object {} to function {}", object.key, this.operator.pipeline.function.name);
            this.operator.invoke(&told, InvocationType::Event).await.map_err(|e| failed(doing())(e))?;
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
                        self.flight.push((object, Instant::now()));
                    }
                }
                Err(end) => ended = Err(end),
            }
        }
        ended
    }

    fn notification(&self, object: &Object) -> Json {
        let bucket = &self.operator.pipeline.bucket.name;
        object.notification(bucket, &self.operator.place.s3_arn(bucket), &self.operator.place.region)
    }

    /// Takes out of the flight what is counted, and what is late.
    async fn look(&mut self) -> Result<(), End> {
        // Those that were looked at longest ago, which are the first.
        let looked_at = self.flight.len().min(LOOKS);
        let looking = self.operator.counted(self.flight.iter().take(LOOKS).map(|(object, _)| object), Reading::Lately);
        let counted = unless_stopped(self.stop, looking).await??;
        let rest = self.flight.split_off(looked_at);
        let flight = std::mem::replace(&mut self.flight, rest);
        for ((object, sent), counted) in flight.into_iter().zip(counted) {
            if counted {
                self.tally.counted += 1;
                self.late_in_a_row = 0;
            } else if sent.elapsed() > self.patience {
                self.late += 1;
                self.late_in_a_row += 1;
                self.tally.example(&object.key);
            } else {
                self.flight.push((object, sent));
            }
        }
        self.progress();
        if self.late_in_a_row >= LATE_IN_A_ROW {
            return Err(End::Failed(Error::Refused {
                what: format!(
                    "the function does not count: {} objects in a row were sent and not counted within {} s",
                    self.late_in_a_row,
                    self.patience.as_secs()
                ),
                help: "`provisioner status` and `provisioner verify` say why; then run the same command again"
                    .to_owned(),
            }));
        }
        Ok(())
    }

    /// Waits until at most so many are in flight. Each lands or is late, so this ends.
    async fn land(&mut self, most: usize) -> Result<(), End> {
        let pauses = || {
            let what = "the function to count".to_owned();
            Pauses::new(Waiting { what, deadline: Duration::MAX, tell: &|_, _| {} })
        };
        let mut slow = pauses();
        while self.flight.len() > most {
            let before = self.flight.len();
            self.look().await?;
            if self.flight.len() < before {
                slow = pauses();
            } else {
                unless_stopped(self.stop, slow.next(None)).await??;
            }
        }
        Ok(())
    }
}
