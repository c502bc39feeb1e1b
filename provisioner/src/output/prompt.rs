//! Questions on the terminal: the confirmation before a change, and values.

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
    output.prompt(&format!("\n{question} Only \"yes\" is accepted: "));
    check(output, &answer(output, unchanged, "pass --yes", shutdown).await?, unchanged)
}

/// Asks for a value on stderr and reads it from stdin. Returns it without the space around it; it may be empty.
///
/// # Errors
/// The input ends, or a signal arrives.
pub(crate) async fn ask(output: &Output, question: &str, shutdown: &Shutdown) -> Result<String, Error> {
    let (unchanged, help) = ("nothing was written", "pass the values as options");
    output.prompt(question);
    let answer = answer(output, unchanged, help, shutdown).await?;
    if answer.is_empty() {
        output.progress("");
        return Err(Error::usage(format!("{unchanged}: the input has ended"), help));
    }
    Ok(answer.trim().to_owned())
}

/// Reads a line from stdin, unless a signal arrives first. The line is empty if the input has ended.
async fn answer(
    output: &Output,
    unchanged: &'static str,
    help: &'static str,
    shutdown: &Shutdown,
) -> Result<String, Error> {
    let (sender, answer) = tokio::sync::oneshot::channel();
    // A separate thread, so that the process can end while the read still waits.
    std::thread::spawn(move || drop(sender.send(read_answer())));
    match shutdown.or_shutdown(answer).await {
        Ok(Ok(answer)) => answer.map_err(|source| Error::io("read the answer", help, &source)),
        Ok(Err(_)) => Err(Error::usage(unchanged, help)),
        Err(signal) => {
            // Ends the line of the question.
            output.progress("");
            Err(Error::interrupted(signal.exit_code(), format!("{signal}: {unchanged}"), "run the command again"))
        }
    }
}

fn read_answer() -> io::Result<String> {
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map(|_| answer)
}

fn check(output: &Output, answer: &str, unchanged: &str) -> Result<(), Error> {
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
