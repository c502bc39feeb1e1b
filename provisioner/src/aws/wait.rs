//! Waits for a condition, with backoff and a deadline; never for a fixed time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::error::{AwsError, ResourceError};
use crate::error::{Error, ErrorKind};

/// The first pause. Most conditions become true within a second, so the first checks are frequent.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause, and so the longest delay after a condition has become true.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A condition, a deadline, and the callback that reports the wait.
pub(crate) struct Wait<'a> {
    /// The condition; continues "waiting for": `the role to become assumable`.
    pub(crate) what: String,
    /// The time after which the wait fails.
    pub(crate) deadline: Duration,
    /// Called before each pause with the condition and the elapsed time.
    pub(crate) on_wait: &'a (dyn Fn(&str, Duration) + Send + Sync),
}

/// The pauses between attempts, up to the deadline.
pub(crate) struct Pauses<'a> {
    wait: Wait<'a>,
    started: Instant,
    attempt: u32,
}

impl<'a> Pauses<'a> {
    /// Starts the wait.
    pub(crate) fn new(wait: Wait<'a>) -> Self {
        Self { wait, started: Instant::now(), attempt: 0 }
    }

    /// Sleeps before the next attempt.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] with the last answer, if the deadline has passed.
    pub(crate) async fn next(&mut self, last: Option<&str>) -> Result<(), Error> {
        let Wait { what, deadline, on_wait } = &self.wait;
        let elapsed = self.started.elapsed();
        let Some(left) = deadline.checked_sub(elapsed).filter(|left| !left.is_zero()) else {
            return Err(timed_out(what, *deadline, last));
        };
        on_wait(what, elapsed);
        let ceiling = FIRST_PAUSE.saturating_mul(1 << self.attempt.min(10)).min(LONGEST_PAUSE);
        self.attempt += 1;
        // Half fixed, half random, so that waits for the same condition do not poll at the same moment.
        sleep(ceiling.mul_f64(0.5 + fastrand::f64() / 2.0).min(left)).await;
        Ok(())
    }
}

/// Returns the error of a wait that reached its deadline.
pub(crate) fn timed_out(what: &str, deadline: Duration, last: Option<&str>) -> Error {
    let last = last.map_or_else(String::new, |last| format!("; the last answer was: {last}"));
    Error::new(
        ErrorKind::Timeout,
        format!("gave up waiting for {what} after {} s{last}", deadline.as_secs()),
        "run the command again to continue; completed steps are not repeated",
    )
}

/// Calls `ask` until it returns a value.
///
/// # Errors
/// The first error of `ask`; [`ErrorKind::Timeout`] after the deadline.
pub(crate) async fn wait_until<T, F>(waiting: Wait<'_>, mut ask: impl FnMut() -> F + Send) -> Result<T, ResourceError>
where
    F: Future<Output = Result<Option<T>, ResourceError>> + Send,
{
    let mut pauses = Pauses::new(waiting);
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        pauses.next(None).await?;
    }
}

/// Retries a call while its failure is transient.
///
/// # Errors
/// Any other failure, unchanged; [`ErrorKind::Timeout`] with the last answer after the deadline.
pub(crate) async fn retry_while<T, E, F>(
    waiting: Wait<'_>,
    is_transient: impl Fn(&AwsError) -> bool + Send,
    mut call: impl FnMut() -> F + Send,
) -> Result<T, ResourceError>
where
    E: Into<ResourceError>,
    F: Future<Output = Result<T, E>> + Send,
{
    let mut pauses = Pauses::new(waiting);
    loop {
        let last = match call().await.map_err(Into::into) {
            Ok(value) => return Ok(value),
            Err(ResourceError::Call(error)) if is_transient(&error) => error.to_string(),
            Err(error) => return Err(error),
        };
        pauses.next(Some(&last)).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::aws::Answer;

    const SHORT: Duration = Duration::from_millis(300);

    fn refusal() -> AwsError {
        let message = "cannot be assumed".to_owned();
        let answer =
            Answer::Service { status: 400, code: "Invalid".to_owned(), message, request_id: None, bucket_region: None };
        AwsError { call: "lambda:CreateFunction", answer }
    }

    fn waiting(on_wait: &(dyn Fn(&str, Duration) + Send + Sync)) -> Wait<'_> {
        Wait { what: "the role to become assumable".to_owned(), deadline: SHORT, on_wait }
    }

    #[tokio::test]
    async fn retry_past_the_deadline_fails_with_the_last_answer_and_help() {
        let reports = Mutex::new(Vec::new());
        let on_wait = |what: &str, elapsed: Duration| reports.lock().expect("a list").push((what.to_owned(), elapsed));
        let started = Instant::now();
        let result = retry_while(waiting(&on_wait), |_| true, || async { Err::<(), _>(refusal()) }).await;
        let Err(ResourceError::Other(error)) = result else { panic!("{result:?}") };
        let text = error.to_string();
        for part in ["gave up waiting for the role to become assumable", "cannot be assumed", "run the command again"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(started.elapsed() >= SHORT && started.elapsed() < SHORT * 10);
        let reports = reports.into_inner().expect("a list");
        assert!(
            reports.len() > 2
                && reports.iter().all(|(what, elapsed)| what.contains("assumable") && *elapsed <= SHORT * 2)
        );
    }

    #[tokio::test]
    async fn wait_for_a_late_condition_succeeds() {
        let asked = Mutex::new(0);
        let on_wait = |_: &str, _: Duration| {};
        let answer = wait_until(waiting(&on_wait), || async {
            let mut asked = asked.lock().expect("a number");
            *asked += 1;
            Ok((*asked == 3).then_some(7))
        });
        assert_eq!(answer.await.expect("an answer"), 7);
    }

    #[tokio::test]
    async fn retry_of_a_permanent_failure_stops_at_once() {
        let asked = Mutex::new(0);
        let on_wait = |_: &str, _: Duration| {};
        let result = retry_while(
            waiting(&on_wait),
            |_| false,
            || async {
                *asked.lock().expect("a number") += 1;
                Err::<(), _>(refusal())
            },
        );
        assert!(matches!(result.await, Err(ResourceError::Call(_))));
        assert_eq!(asked.into_inner().expect("a number"), 1);
    }
}
