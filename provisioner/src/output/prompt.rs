//! The confirmation before a change.

use std::io;

use super::Output;
use crate::error::Error;
use crate::shutdown::Shutdown;

/// A question, and the statement that is true if the answer is not "yes".
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    question: &'static str,
    unchanged: &'static str,
}

/// The question before a plan is applied.
pub(crate) const APPLY: Question = Question { question: "Apply these changes?", unchanged: "nothing was changed" };
/// The question before messages are deleted.
pub(crate) const PURGE: Question = Question { question: "Delete these messages?", unchanged: "nothing was deleted" };

/// Asks on stderr and reads the answer from stdin.
///
/// # Errors
/// The answer is not "yes", or a signal arrives.
pub(crate) async fn confirm(
    output: &Output,
    Question { question, unchanged }: Question,
    shutdown: &Shutdown,
) -> Result<(), Error> {
    ask(output, question);
    let (sender, answer) = tokio::sync::oneshot::channel();
    // A separate thread, so that the process can end while the read still waits.
    std::thread::spawn(move || drop(sender.send(read_answer())));
    match shutdown.or_shutdown(answer).await {
        Ok(Ok(answer)) => check(output, answer, unchanged),
        Ok(Err(_)) => Err(Error::usage(unchanged, "pass --yes")),
        Err(signal) => {
            // Ends the line of the question.
            output.progress("");
            Err(Error::interrupted(signal.exit_code(), format!("{signal}: {unchanged}"), "run the command again"))
        }
    }
}

fn ask(output: &Output, question: &str) {
    output.prompt(&format!("\n{question} Only \"yes\" is accepted: "));
}

fn read_answer() -> io::Result<String> {
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map(|_| answer)
}

fn check(output: &Output, answer: io::Result<String>, unchanged: &str) -> Result<(), Error> {
    let answer = answer.map_err(|source| Error::io("read the answer", "pass --yes", &source))?;
    if answer.trim() == "yes" {
        return Ok(());
    }
    if answer.is_empty() {
        output.progress("");
    }
    Err(Error::usage(
        format!("{unchanged}: the answer was not \"yes\""),
        "answer \"yes\", or pass --yes (with make: YES=1)",
    ))
}
