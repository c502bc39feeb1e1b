//! Wait for a condition, with backoff and a deadline; never for a fixed time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::error::{AwsError, ResourceError};
use crate::error::{Error, ErrorKind};

/// The first pause. Most conditions come true within a second, so the first looks are frequent.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause: nobody should wait more than this for something that has happened.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What is waited for and for how long, and the callback that reports it.
pub(crate) struct Wait<'a> {
    /// Reads on after "waiting for": `the role to become assumable`.
    pub(crate) what: String,
    /// When to give up.
    pub(crate) deadline: Duration,
    /// Told of each pause.
    pub(crate) on_wait: &'a (dyn Fn(&str, Duration) + Send + Sync),
}

/// The pauses between attempts, up to the deadline.
pub(crate) struct Pauses<'a> {
    wait: Wait<'a>,
    started: Instant,
    attempt: u32,
}

impl<'a> Pauses<'a> {
    /// From now on.
    pub(crate) fn new(wait: Wait<'a>) -> Self {
        Self { wait, started: Instant::now(), attempt: 0 }
    }

    /// Sleeps before the next attempt.
    ///
    /// # Errors
    /// [`Error::Timeout`], with the last answer, where there is no time for another one.
    pub(crate) async fn next(&mut self, last: Option<&str>) -> Result<(), Error> {
        let Wait { what, deadline, on_wait } = &self.wait;
        let elapsed = self.started.elapsed();
        let Some(left) = deadline.checked_sub(elapsed).filter(|left| !left.is_zero()) else {
            return Err(timed_out(what, *deadline, last));
        };
        on_wait(what, elapsed);
        let ceiling = FIRST_PAUSE.saturating_mul(1 << self.attempt.min(10)).min(LONGEST_PAUSE);
        self.attempt += 1;
        // Half fixed, half random: those who wait for the same thing do not ask at the same moment.
        sleep(ceiling.mul_f64(0.5 + fastrand::f64() / 2.0).min(left)).await;
        Ok(())
    }
}

/// The error of a wait that reached its deadline.
pub(crate) fn timed_out(what: &str, deadline: Duration, last: Option<&str>) -> Error {
    let last = last.map_or_else(String::new, |last| format!("; the last answer was: {last}"));
    Error::new(
        ErrorKind::Timeout,
        format!("gave up waiting for {what} after {} s{last}", deadline.as_secs()),
        "run the command again to continue; completed steps are not repeated",
    )
}

/// Asks until the answer is there.
///
/// # Errors
/// What asking fails with, and [`Error::Timeout`] past the deadline.
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

/// Makes a call again while its failure is one that passes by itself.
///
/// # Errors
/// Any other failure as it is; [`Error::Timeout`], with the last answer, past the deadline.
pub(crate) async fn retry_while<T, E, F>(
    waiting: Wait<'_>,
    passes: impl Fn(&AwsError) -> bool + Send,
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
            Err(ResourceError::Call(error)) if passes(&error) => error.to_string(),
            Err(fault) => return Err(fault),
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
        let answer = Answer::Service { status: 400, code: "Invalid".to_owned(), message, request_id: None };
        AwsError { call: "lambda:CreateFunction", answer }
    }

    fn waiting(on_wait: &(dyn Fn(&str, Duration) + Send + Sync)) -> Wait<'_> {
        Wait { what: "the role to become assumable".to_owned(), deadline: SHORT, on_wait }
    }

    #[tokio::test]
    async fn what_never_passes_is_given_up_with_the_last_answer_and_a_way_on() {
        let told = Mutex::new(Vec::new());
        let on_wait = |what: &str, elapsed: Duration| told.lock().expect("a list").push((what.to_owned(), elapsed));
        let started = Instant::now();
        let fault = retry_while(waiting(&on_wait), |_| true, || async { Err::<(), _>(refusal()) }).await;
        let Err(ResourceError::Other(error)) = fault else { panic!("{fault:?}") };
        let text = error.to_string();
        for part in ["gave up waiting for the role to become assumable", "cannot be assumed", "run the command again"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(started.elapsed() >= SHORT && started.elapsed() < SHORT * 10);
        let told = told.into_inner().expect("a list");
        assert!(
            told.len() > 2 && told.iter().all(|(what, elapsed)| what.contains("assumable") && *elapsed <= SHORT * 2)
        );
    }

    #[tokio::test]
    async fn what_comes_true_late_is_waited_for() {
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
    async fn another_failure_ends_it_at_once() {
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
