//! The person at the terminal: results go to stdout, questions to stderr, and answers come from stdin.

use std::io::{self, Write};

use serde::Serialize;

use crate::cli::EventFormat;
use crate::error::Error;
use crate::signal::Stop;

/// Prints a result for people, or as one line of JSON.
///
/// # Errors
/// Where it cannot be written.
pub fn show(
    out: &mut (dyn Write + Send),
    format: EventFormat,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<(), Error> {
    match format {
        EventFormat::Text => print(out, &text()),
        EventFormat::Json => print(out, &(serde_json::to_string(value).map_err(Error::Json)? + "\n")),
    }
}

/// [`confirm`], where a signal would otherwise wait for the answer.
///
/// # Errors
/// That the answer was not yes; a signal.
pub async fn confirm_unless(stop: &Stop) -> Result<(), Error> {
    let (sender, answer) = tokio::sync::oneshot::channel();
    // A thread of its own: the process may end while it waits.
    std::thread::spawn(move || drop(sender.send(confirm())));
    let nothing = "nothing was deleted".to_owned();
    tokio::select! {
        answer = answer => answer.unwrap_or_else(|_| Err(Error::Refused { what: nothing, help: "pass --yes".to_owned() })),
        signal = stop.wait() => {
            Err(Error::Interrupted { signal, what: nothing, help: "run the command again".to_owned() })
        }
    }
}

/// Asks on stderr and reads the answer from stdin.
///
/// # Errors
/// That the answer was not yes.
pub fn confirm() -> Result<(), Error> {
    let failed = |source| Error::Io { doing: "ask".to_owned(), help: "pass --yes".to_owned(), source };
    let mut err = anstream::stderr();
    write!(err, "\nDo this? Only `yes` does it: ").and_then(|()| err.flush()).map_err(failed)?;
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer).map_err(failed)?;
    if answer.trim() == "yes" {
        return Ok(());
    }
    if read == 0 {
        let _ = writeln!(err);
    }
    Err(Error::Refused {
        what: "nothing was done: the answer was not `yes`".to_owned(),
        help: "answer `yes`, or pass --yes (with make: YES=1)".to_owned(),
    })
}

/// Prints a result.
///
/// # Errors
/// Where it cannot be written.
pub fn print(out: &mut (dyn Write + Send), text: &str) -> Result<(), Error> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|source| Error::Io {
        doing: "write to stdout".to_owned(),
        help: "check where the output goes".to_owned(),
        source,
    })
}
