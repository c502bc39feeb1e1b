//! What was read of the counts, hour by hour, so that a page of a month is drawn at once.
//!
//! Every page reads its hours anew. Where that takes longer than a moment, and the hours were read before, the page is drawn
//! from what is there by then, and says how old that is; the reading goes on, and the next page has it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::aws::Aws;
use crate::counts::{AT_ONCE, Reader};
use crate::error::Error;

/// How long a page waits for hours that were read before.
const PATIENCE: Duration = Duration::from_millis(400);
/// What was read longer ago than this is not shown.
const TOO_OLD: Duration = Duration::from_secs(300);
/// Hours that are kept. Those read longest ago go first.
const MOST_HOURS: usize = 20_000;

/// The counts of one hour.
type Counts = Arc<[(Arc<str>, i64)]>;

/// Hours, and how old the oldest reading of them is.
#[derive(Debug)]
pub struct Hours {
    /// Each hour, as in the counts table, with its events.
    pub counts: Vec<(String, Counts)>,
    /// Since the first of them was read.
    pub age: Duration,
    /// Whether all of them were read for this page.
    pub is_fresh: bool,
}

#[derive(Debug, Clone)]
struct Kept {
    read: Instant,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Memory {
    hours: HashMap<String, Kept>,
    /// Each name once, however many hours it is in.
    names: HashMap<String, Arc<str>>,
}

impl Memory {
    fn keep(&mut self, hour: String, counts: Vec<(String, i64)>, read: Instant) {
        let counts = counts
            .into_iter()
            .map(|(event, count)| {
                let name = self.names.entry(event).or_insert_with_key(|event| Arc::from(event.as_str()));
                (Arc::clone(name), count)
            })
            .collect();
        self.hours.insert(hour, Kept { read, counts });
        if self.hours.len() > MOST_HOURS {
            let mut reads: Vec<Instant> = self.hours.values().map(|kept| kept.read).collect();
            reads.sort_unstable();
            let limit = reads.get(MOST_HOURS / 4).copied();
            self.hours.retain(|_, kept| Some(kept.read) > limit);
            self.names.retain(|_, name| Arc::strong_count(name) > 1);
        }
    }
}

/// A counts table, and what was read of it.
#[derive(Debug)]
pub struct Cache {
    aws: Aws,
    table: String,
    memory: Mutex<Memory>,
    /// One reads at a time: those who come meanwhile want much the same.
    turn: tokio::sync::Mutex<()>,
}

impl Cache {
    /// Of this table.
    #[must_use]
    pub fn new(aws: Aws, table: String) -> Arc<Self> {
        Arc::new(Self { aws, table, memory: Mutex::default(), turn: tokio::sync::Mutex::new(()) })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hours as they are now, or, where that takes long, as they were a while ago.
    ///
    /// # Errors
    /// What AWS answered.
    pub async fn read(self: &Arc<Self>, hours: Vec<String>) -> Result<Hours, Error> {
        let asked = Instant::now();
        // A task of its own goes on where the page does not wait for it.
        let mut reading = tokio::spawn(Arc::clone(self).refresh(hours.clone(), asked));
        if let Ok(done) = tokio::time::timeout(PATIENCE, &mut reading).await {
            done.map_err(|error| Error::Io {
                doing: "read the counts".to_owned(),
                help: "run the command again".to_owned(),
                source: std::io::Error::other(error),
            })??;
        } else if let Some(known) = self.known(&hours, asked).filter(|known| known.age < TOO_OLD) {
            return Ok(known);
        } else {
            reading.await.map_err(|error| Error::Io {
                doing: "read the counts".to_owned(),
                help: "run the command again".to_owned(),
                source: std::io::Error::other(error),
            })??;
        }
        match self.known(&hours, asked) {
            Some(known) => Ok(known),
            // They did not fit.
            None => Err(Error::Refused {
                what: "the period has more hours than can be kept".to_owned(),
                help: "choose a shorter one".to_owned(),
            }),
        }
    }

    /// What is there of these hours; nothing where one of them never was read.
    fn known(&self, hours: &[String], asked: Instant) -> Option<Hours> {
        let memory = self.lock();
        let kept: Option<Vec<&Kept>> = hours.iter().map(|hour| memory.hours.get(hour)).collect();
        let kept = kept?;
        let oldest = kept.iter().map(|kept| kept.read).min().unwrap_or(asked);
        let counts = hours.iter().cloned().zip(kept.iter().map(|kept| Arc::clone(&kept.counts))).collect();
        Some(Hours { counts, age: oldest.elapsed(), is_fresh: oldest >= asked })
    }

    /// Reads the hours that were not read since `asked`, the latest first.
    async fn refresh(self: Arc<Self>, hours: Vec<String>, asked: Instant) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let mut stale: Vec<String> = {
            let memory = self.lock();
            let is_stale = |hour: &String| memory.hours.get(hour).is_none_or(|kept| kept.read < asked);
            hours.into_iter().filter(is_stale).collect()
        };
        stale.sort_unstable_by(|a, b| b.cmp(a));
        let reader = Reader { aws: &self.aws, table: &self.table, is_consistent: false };
        stream::iter(stale)
            .map(|hour| async move {
                let read = Instant::now();
                let counts = reader.hour(&hour).await?;
                Ok::<_, Error>((hour, counts, read))
            })
            .buffer_unordered(AT_ONCE)
            .try_for_each(|(hour, counts, read)| {
                self.lock().keep(hour, counts, read);
                std::future::ready(Ok(()))
            })
            .await
    }
}
