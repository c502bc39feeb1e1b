//! Waiting for a condition, with backoff and a deadline; never for a fixed time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::failure::AwsError;
use crate::error::{Error, Fault};
use crate::signal::Stop;

/// The first pause. Most conditions come true within a second, so the first looks are frequent.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause: nobody should wait more than this for something that has happened.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What is waited for and for how long, and where to tell of it.
pub struct Waiting<'a> {
    /// Reads on after "waiting for": `the role to become assumable`.
    pub what: String,
    /// When to give up.
    pub deadline: Duration,
    /// Told of each pause.
    pub tell: &'a (dyn Fn(&str, Duration) + Send + Sync),
    /// Ends the waiting.
    pub stop: &'a Stop,
}

impl Waiting<'_> {
    fn timeout(&self, last: Option<String>) -> Error {
        Error::Timeout { what: self.what.clone(), seconds: self.deadline.as_secs(), last }
    }

    /// Sleeps before the next attempt, or says that there is no time for one.
    ///
    /// # Errors
    /// [`Error::Interrupted`] where a signal has come, or comes meanwhile.
    async fn pause(&self, started: Instant, attempt: u32) -> Result<bool, Error> {
        let elapsed = started.elapsed();
        let Some(left) = self.deadline.checked_sub(elapsed).filter(|left| !left.is_zero()) else {
            return Ok(false);
        };
        (self.tell)(&self.what, elapsed);
        let ceiling = FIRST_PAUSE.saturating_mul(1 << attempt.min(10)).min(LONGEST_PAUSE);
        // Half fixed, half random: those who wait for the same thing do not ask at the same moment.
        tokio::select! {
            () = sleep(ceiling.mul_f64(0.5 + fastrand::f64() / 2.0).min(left)) => Ok(true),
            signal = self.stop.wait() => Err(Error::Interrupted { what: self.what.clone(), signal }),
        }
    }
}

/// Asks until the answer is there.
///
/// # Errors
/// What asking fails with, and [`Error::Timeout`] past the deadline.
pub async fn wait_until<T, F>(waiting: Waiting<'_>, mut ask: impl FnMut() -> F + Send) -> Result<T, Fault>
where
    F: Future<Output = Result<Option<T>, Fault>> + Send,
{
    let started = Instant::now();
    for attempt in 0.. {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if !waiting.pause(started, attempt).await? {
            break;
        }
    }
    Err(waiting.timeout(None).into())
}

/// Makes a call again while its failure is one that passes by itself.
///
/// # Errors
/// Any other failure as it is; [`Error::Timeout`], with the last answer, past the deadline.
pub async fn retry_while<T, E, F>(
    waiting: Waiting<'_>,
    passes: impl Fn(&AwsError) -> bool + Send,
    mut call: impl FnMut() -> F + Send,
) -> Result<T, Fault>
where
    E: Into<Fault>,
    F: Future<Output = Result<T, E>> + Send,
{
    let started = Instant::now();
    let mut last = None;
    for attempt in 0.. {
        match call().await.map_err(Into::into) {
            Ok(value) => return Ok(value),
            Err(Fault::Call(error)) if passes(&error) => last = Some(error.to_string()),
            Err(fault) => return Err(fault),
        }
        if !waiting.pause(started, attempt).await? {
            break;
        }
    }
    Err(waiting.timeout(last).into())
}
