//! The user-facing error: message, help text and exit code.
//!
//! Each layer has a small typed error of its own for decisions and one function that converts it into this one. The
//! help text is written next to the cause.

use std::fmt;
use std::io;

/// The class of an error; exit codes and HTTP status codes follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// `pipeline.toml` has mistakes. The message holds the rendered diagnostics.
    Config,
    /// An argument, an address or an answer that cannot be used.
    Usage,
    /// A resource, an event or an object that does not exist.
    NotFound,
    /// A resource is in a state that the operation must not change.
    Conflict,
    /// AWS refused a call, failed, or could not be reached.
    Aws,
    /// A condition did not become true in time.
    Timeout,
    /// The program is at one of its own limits; the request can be repeated.
    Busy,
    /// Some steps were done and others were not.
    Incomplete,
    /// A signal stopped the command.
    Interrupted {
        /// 128 plus the number of the signal.
        exit_code: u8,
    },
    /// The reader closed the output.
    BrokenPipe,
    /// A file or a stream failed.
    Io,
    /// A defect of the provisioner.
    Internal,
}

/// An error as the user sees it: `failed to VERB OBJECT: CAUSE`, and an imperative help text.
#[derive(Debug, Clone)]
pub(crate) struct Error {
    kind: ErrorKind,
    message: String,
    detail: String,
    help: String,
    more: Vec<Error>,
}

impl Error {
    /// Creates an error of this kind.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { kind, message: message.into(), detail: String::new(), help: help.into(), more: Vec::new() }
    }

    /// Creates an [`ErrorKind::Usage`] error.
    pub(crate) fn usage(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message, help)
    }

    /// Creates an [`ErrorKind::NotFound`] error.
    pub(crate) fn not_found(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message, help)
    }

    /// Creates an [`ErrorKind::Conflict`] error.
    pub(crate) fn conflict(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message, help)
    }

    /// Creates an [`ErrorKind::Io`] error, or an [`ErrorKind::BrokenPipe`] error if that is the cause. `doing`
    /// continues "failed to".
    pub(crate) fn io(doing: impl fmt::Display, help: impl Into<String>, source: &io::Error) -> Self {
        let kind = if source.kind() == io::ErrorKind::BrokenPipe { ErrorKind::BrokenPipe } else { ErrorKind::Io };
        Self::new(kind, format!("failed to {doing}: {source}"), help)
    }

    /// Creates an [`ErrorKind::Interrupted`] error with the exit code of the signal.
    pub(crate) fn interrupted(exit_code: u8, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(ErrorKind::Interrupted { exit_code }, message, help)
    }

    /// Creates an [`ErrorKind::Internal`] error. `doing` continues "failed to".
    pub(crate) fn internal(doing: impl fmt::Display, source: impl fmt::Display) -> Self {
        let help = "report this defect of the provisioner";
        Self::new(ErrorKind::Internal, format!("failed to {doing}: {source}"), help)
    }

    /// Creates an [`ErrorKind::Internal`] error for a value that serde cannot write as JSON.
    pub(crate) fn json(source: impl fmt::Display) -> Self {
        Self::internal("write JSON", source)
    }

    /// Creates an [`ErrorKind::Aws`] error for an answer without a required part. `doing` continues "failed to".
    pub(crate) fn incomplete_answer(doing: impl fmt::Display, missing: &str) -> Self {
        let help = "run the command again; if the error persists, the endpoint is not AWS or is incomplete";
        Self::new(ErrorKind::Aws, format!("failed to {doing}: the answer of AWS has no {missing}"), help)
    }

    /// Adds text between the message and the help text. It may name the caller or span several lines.
    pub(crate) fn with_detail(self, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..self }
    }

    /// Joins several errors into one that shows all of them and has the kind of the first.
    ///
    /// Returns `None` for an empty list.
    pub(crate) fn all(errors: Vec<Self>) -> Option<Self> {
        let mut errors = errors.into_iter();
        let mut first = errors.next()?;
        first.more.extend(errors);
        Some(first)
    }

    /// Fails with all of `errors` if there are any.
    ///
    /// # Errors
    /// [`Error::all`]
    pub(crate) fn fail_with(errors: Vec<Self>) -> Result<(), Self> {
        Self::all(errors).map_or(Ok(()), Err)
    }

    pub(crate) fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the first line of the message, without AWS's text, which names the caller.
    pub(crate) fn summary(&self) -> &str {
        self.message.lines().next().unwrap_or_default()
    }

    /// Returns the first line of the message, without its detail, and the help, on one line.
    pub(crate) fn summary_with_help(&self) -> String {
        if self.help.is_empty() { self.summary().to_owned() } else { format!("{}; {}", self.summary(), self.help) }
    }

    /// Returns the exit code of the process, never 2, with which `plan --detailed-exitcode` reports changes.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.kind {
            ErrorKind::Interrupted { exit_code } => exit_code,
            ErrorKind::Config
            | ErrorKind::Usage
            | ErrorKind::NotFound
            | ErrorKind::Conflict
            | ErrorKind::Aws
            | ErrorKind::Timeout
            | ErrorKind::Busy
            | ErrorKind::Incomplete
            | ErrorKind::BrokenPipe
            | ErrorKind::Io
            | ErrorKind::Internal => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.message, self.detail)?;
        if !self.help.is_empty() {
            write!(f, "\nhelp: {}", self.help)?;
        }
        for error in &self.more {
            write!(f, "\nerror: {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_errors_are_all_shown_with_their_help() {
        let errors = vec![Error::usage("one", "do this"), Error::not_found("two", "do that")];
        let all = Error::all(errors).expect("an error");
        assert_eq!(all.to_string(), "one\nhelp: do this\nerror: two\nhelp: do that");
        assert_eq!((all.kind(), all.exit_code()), (ErrorKind::Usage, 1));
        assert!(Error::fail_with(Vec::new()).is_ok());
    }

    #[test]
    fn summary_omits_the_detail() {
        let error = Error::new(ErrorKind::Aws, "failed to read x", "help").with_detail(": arn:aws:iam::1:user/a");
        assert_eq!(error.summary(), "failed to read x");
        assert_eq!(error.to_string(), "failed to read x: arn:aws:iam::1:user/a\nhelp: help");
    }

    #[test]
    fn broken_pipe_is_distinguished_from_other_io_errors() {
        let kind = |kind: io::ErrorKind| Error::io("write", "help", &kind.into()).kind();
        assert_eq!(kind(io::ErrorKind::BrokenPipe), ErrorKind::BrokenPipe);
        assert_eq!(kind(io::ErrorKind::NotFound), ErrorKind::Io);
    }
}
