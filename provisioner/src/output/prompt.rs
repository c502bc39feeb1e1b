//! The confirmation before a change.

use std::io;

use super::Output;
use crate::error::Error;
use crate::shutdown::Shutdown;

/// Asks like [`confirm`], for a command that handles signals itself.
///
/// # Errors
/// The answer is not "yes", or a signal arrives.
pub(crate) async fn confirm_or_shutdown(output: &Output, shutdown: &Shutdown) -> Result<(), Error> {
    ask(output);
    let (sender, answer) = tokio::sync::oneshot::channel();
    // A thread of its own: the process may end while it waits.
    std::thread::spawn(move || drop(sender.send(read_answer())));
    let unchanged = "nothing was deleted";
    match shutdown.or_shutdown(answer).await {
        Ok(Ok(answer)) => check(output, answer),
        Ok(Err(_)) => Err(Error::usage(unchanged, "pass --yes")),
        Err(signal) => {
            Err(Error::interrupted(signal.exit_code(), format!("{signal}: {unchanged}"), "run the command again"))
        }
    }
}

/// Asks on stderr and reads the answer from stdin.
///
/// # Errors
/// The answer is not "yes".
pub(crate) fn confirm(output: &Output) -> Result<(), Error> {
    ask(output);
    check(output, read_answer())
}

fn ask(output: &Output) {
    output.prompt("\nApply these changes? Only \"yes\" is accepted: ");
}

fn read_answer() -> io::Result<String> {
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map(|_| answer)
}

fn check(output: &Output, answer: io::Result<String>) -> Result<(), Error> {
    let answer = answer.map_err(|source| Error::io("read the answer", "pass --yes", &source))?;
    if answer.trim() == "yes" {
        return Ok(());
    }
    if answer.is_empty() {
        output.progress("");
    }
    Err(Error::usage(
        "nothing was changed: the answer was not \"yes\"",
        "answer \"yes\", or pass --yes (with make: YES=1)",
    ))
}
