//! Graceful shutdown: after the first signal no further step starts, the second signal ends the process.

use std::fmt;
use std::future::Future;
use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::sync::watch;

/// A signal that asks the process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGINT: Ctrl-C, or a CI job that was cancelled.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Signal {
    /// Returns 128 plus the number of the signal, as shells report it.
    pub(crate) fn exit_code(self) -> u8 {
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

/// The signal that requested a shutdown, if one has arrived.
#[derive(Debug, Clone)]
pub(crate) struct Shutdown(watch::Receiver<Option<Signal>>);

impl Shutdown {
    /// Returns a shutdown that is never requested.
    #[cfg(test)]
    pub(crate) fn never() -> Self {
        Self(watch::channel(None).1)
    }

    /// Installs the signal handlers. The first signal is recorded; the second ends the process at once.
    ///
    /// # Errors
    /// The operating system refuses the signal handlers.
    pub(crate) fn listen() -> io::Result<Self> {
        let mut interrupts = signal(SignalKind::interrupt())?;
        let mut terminations = signal(SignalKind::terminate())?;
        let (sender, receiver) = watch::channel(None);
        tokio::spawn(async move {
            let first = next(&mut interrupts, &mut terminations).await;
            // No receiver is left if the work is done.
            if sender.send(Some(first)).is_ok() {
                let second = next(&mut interrupts, &mut terminations).await;
                std::process::exit(second.exit_code().into());
            }
        });
        Ok(Self(receiver))
    }

    /// Runs `work` to its end, unless a signal arrives first.
    pub(crate) async fn or_shutdown<T>(&self, work: impl Future<Output = T>) -> Result<T, Signal> {
        tokio::select! {
            done = work => Ok(done),
            signal = self.wait() => Err(signal),
        }
    }

    /// Waits for a signal, forever if none arrives.
    pub(crate) async fn wait(&self) -> Signal {
        let mut requested = self.0.clone();
        loop {
            if let Some(signal) = *requested.borrow_and_update() {
                return signal;
            }
            if requested.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns the signal that requested the shutdown, if any.
    pub(crate) fn requested(&self) -> Option<Signal> {
        *self.0.borrow()
    }
}

async fn next(interrupts: &mut Stream, terminations: &mut Stream) -> Signal {
    tokio::select! {
        _ = interrupts.recv() => Signal::Interrupt,
        _ = terminations.recv() => Signal::Terminate,
    }
}
