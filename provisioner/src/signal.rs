//! Signals, while a plan is being applied: the first one stops what has not begun, the second one stops everything.

use std::fmt;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::sync::watch;

use crate::error::Error;

/// A signal that asks a process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: Ctrl-C, or a CI job that was cancelled.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Signal {
    /// 128 and the signal's number, as shells have it.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// Whether a signal has asked to stop.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<Option<Signal>>);

impl Stop {
    /// One that nobody asks for.
    #[must_use]
    pub fn never() -> Self {
        Self(watch::channel(None).1)
    }

    /// Listens from now on. The first signal is noted; the second ends the process at once.
    ///
    /// # Errors
    /// The system does not let us listen.
    pub fn listen() -> Result<Self, Error> {
        let failed = |source| Error::Io {
            doing: "listen for signals".to_owned(),
            help: "run the command again".to_owned(),
            source,
        };
        let mut interrupts = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminations = signal(SignalKind::terminate()).map_err(failed)?;
        let (sender, receiver) = watch::channel(None);
        tokio::spawn(async move {
            let first = next(&mut interrupts, &mut terminations).await;
            // Nobody listens any more where the work is done.
            if sender.send(Some(first)).is_ok() {
                let second = next(&mut interrupts, &mut terminations).await;
                std::process::exit(second.exit_code().into());
            }
        });
        Ok(Self(receiver))
    }

    /// Waits for a signal; for ever, where none comes.
    pub async fn wait(&self) -> Signal {
        let mut asked = self.0.clone();
        loop {
            if let Some(signal) = *asked.borrow_and_update() {
                return signal;
            }
            if asked.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The signal that has asked, if one has.
    #[must_use]
    pub fn asked(&self) -> Option<Signal> {
        *self.0.borrow()
    }
}

async fn next(interrupts: &mut Stream, terminations: &mut Stream) -> Signal {
    tokio::select! {
        _ = interrupts.recv() => Signal::Interrupt,
        _ = terminations.recv() => Signal::Terminate,
    }
}
