//! Everything that can go wrong, in words for the person at the terminal, and the exit code it ends with.

use std::fmt;

use aws_smithy_types::error::operation::BuildError;

use crate::aws::AwsError;
use crate::config::diagnostic::Invalid;
use crate::kind::Address;
use crate::operate::verify::Link;
use crate::signal::Signal;

/// A failure of the provisioner. Its text says what was being done, to what, what the answer was, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `pipeline.toml` has mistakes.
    #[error("{0}")]
    Config(Box<Invalid>),
    /// A file or stream failed.
    #[error("failed to {doing}: {source}\nhelp: {help}")]
    Io {
        /// What was being done, to which file.
        doing: String,
        /// What to do next.
        help: String,
        /// What the system answered.
        source: std::io::Error,
    },
    /// AWS refused, failed or could not be reached.
    #[error("failed to {doing}: {source}{}", help(source))]
    Aws {
        /// What was being done, to which resource.
        doing: String,
        /// What AWS answered.
        source: Box<AwsError>,
    },
    /// AWS answered something that an answer of this kind does not hold.
    #[error(
        "failed to {doing}: AWS's answer has no {missing}\nhelp: run the command again; if it stays, the endpoint is not AWS's or not complete"
    )]
    Answer {
        /// What was being done.
        doing: String,
        /// What the answer lacks.
        missing: &'static str,
    },
    /// The SDK did not take a request. Its builders ask for what its model requires, which is always given here.
    #[error("failed to build a request: {0}\nhelp: this is a defect of the provisioner: report it")]
    Request(#[from] BuildError),
    /// A value could not be brought into JSON.
    #[error("failed to write JSON: {0}\nhelp: this is a defect of the provisioner: report it")]
    Json(serde_json::Error),
    /// A condition did not come true in time.
    #[error("gave up waiting for {what} after {seconds} s{}\nhelp: what is done stays done: run the command again to continue", last_said(.last))]
    Timeout {
        /// The condition.
        what: String,
        /// How long it was waited for.
        seconds: u64,
        /// What AWS said last, where it said something.
        last: Option<String>,
    },
    /// The handler's binary is missing or would not run on Lambda.
    #[error("{what}\nhelp: {help}")]
    Artifact {
        /// What is wrong with it.
        what: String,
        /// What to do.
        help: String,
    },
    /// The change is one that the provisioner does not make.
    #[error("{what}\nhelp: {help}")]
    Refused {
        /// What was asked for, and why it is not done.
        what: String,
        /// The way to do it.
        help: String,
    },
    /// Some steps failed; each was reported when it did.
    #[error(
        "{failed} of {steps} steps failed, {skipped} were skipped\nhelp: what is done stays done: mend the cause and run the command again to continue"
    )]
    Incomplete {
        /// Steps that failed.
        failed: usize,
        /// Steps that waited for one that failed.
        skipped: usize,
        /// All steps.
        steps: usize,
    },
    /// A signal stopped the run.
    #[error(
        "{signal}: stopped after {done} of {steps} steps{}\nhelp: what is done stays done: run the command again to continue",
        failures(*.failed)
    )]
    Stopped {
        /// Which.
        signal: Signal,
        /// Steps that are done.
        done: usize,
        /// Steps that failed.
        failed: usize,
        /// All steps.
        steps: usize,
    },
    /// An object was not counted in time.
    #[error("object {key} was not counted within {seconds} s of its upload; {left}\n{}", chain(.links))]
    Unverified {
        /// The object's key.
        key: String,
        /// How long it was waited for.
        seconds: u64,
        /// What is left of what was uploaded.
        left: String,
        /// What was found of each link between upload and count.
        links: Vec<Link>,
    },
    /// A signal stopped work that has no steps.
    #[error("{signal}: {what}\nhelp: {help}")]
    Interrupted {
        /// Which.
        signal: Signal,
        /// How far it was.
        what: String,
        /// How to go on.
        help: String,
    },
    /// Several things at once, all of which the person should see.
    #[error("{}", Several(.0))]
    Several(Vec<Error>),
}

fn help(error: &AwsError) -> String {
    format!("\nhelp: {}", error.remedy())
}

fn failures(failed: usize) -> String {
    if failed == 0 { String::new() } else { format!(", {failed} failed") }
}

/// A line for each link, and what to do about the first that is broken.
fn chain(links: &[Link]) -> String {
    let mut out = String::new();
    for Link { link, works, found } in links {
        let mark = match works {
            Some(true) => "works  ",
            Some(false) => "BROKEN ",
            None => "unknown",
        };
        out.push_str(&format!("  {mark}  {link}: {found}\n"));
    }
    let declared = links.iter().rev().skip(1).any(|link| link.works == Some(false));
    out + if declared {
        "help: `provisioner plan` shows what differs, and `provisioner apply` mends it"
    } else {
        "help: mend what the function's log says; where it says nothing, pass a longer --timeout: S3 may be late"
    }
}

fn last_said(said: &Option<String>) -> String {
    said.as_ref().map_or_else(String::new, |said| format!("; the last answer was: {said}"))
}

struct Several<'a>(&'a [Error]);

impl fmt::Display for Several<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if i == 0 { "" } else { "\nerror: " })?;
        }
        Ok(())
    }
}

/// A failure inside a kind, which need not know what it is part of.
#[derive(Debug)]
pub enum Fault {
    /// A call failed; [`Fault::on`] says as part of what.
    Call(Box<AwsError>),
    /// What was to be made is there: a run beside this one made it, or an attempt whose answer was lost.
    Exists,
    /// Anything else.
    Other(Box<Error>),
}

impl From<AwsError> for Fault {
    fn from(error: AwsError) -> Self {
        Self::Call(Box::new(error))
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Other(Box::new(error))
    }
}

impl From<BuildError> for Fault {
    fn from(error: BuildError) -> Self {
        Error::from(error).into()
    }
}

impl Fault {
    /// As part of doing something to a resource: `failed to read table x: ...`.
    #[must_use]
    pub fn on(self, verb: &str, address: &Address) -> Error {
        match self {
            Self::Call(source) => Error::Aws { doing: format!("{verb} {address}"), source },
            Self::Exists => Error::Refused {
                what: format!("failed to {verb} {address}: something else makes and deletes it at the same time"),
                help: "let it finish, then run the command again".to_owned(),
            },
            Self::Other(error) => *error,
        }
    }
}

impl Error {
    /// What failed, without AWS's words: these name the caller.
    #[must_use]
    pub fn short(&self) -> String {
        match self {
            Self::Aws { doing, source } => format!("failed to {doing}: {}", source.short()),
            other => other.to_string().lines().next().unwrap_or_default().to_owned(),
        }
    }

    /// The process's exit code. 2 is not among them: it says that `plan --detailed-exitcode` found changes.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Stopped { signal, .. } | Self::Interrupted { signal, .. } => signal.exit_code(),
            Self::Config(_)
            | Self::Io { .. }
            | Self::Aws { .. }
            | Self::Answer { .. }
            | Self::Request(_)
            | Self::Json(_)
            | Self::Timeout { .. }
            | Self::Artifact { .. }
            | Self::Refused { .. }
            | Self::Incomplete { .. }
            | Self::Unverified { .. }
            | Self::Several(_) => 1,
        }
    }
}
