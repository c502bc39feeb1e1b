//! Terminal I/O: results on stdout, progress and prompts on stderr, answers from stdin.

pub(crate) mod apply_stream;
pub(crate) mod counts;
pub(crate) mod delimited;
pub(crate) mod plan_markdown;
pub(crate) mod plan_text;
pub(crate) mod progress;
pub(crate) mod prompt;
pub(crate) mod table;

use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anstream::adapter::strip_str;
use anstream::{AutoStream, ColorChoice};
use anstyle::AnsiColor;
use clap::ValueEnum;
use serde::Serialize;

use crate::error::{Error, ErrorKind};
use crate::reconcile::document::PlanDocument;

/// The format of a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanFormat {
    /// For people
    #[default]
    Text,
    /// For programs: one document
    Json,
    /// For a comment on a pull request
    Markdown,
}

impl PlanFormat {
    /// Renders a plan.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if serde cannot write the document.
    pub(crate) fn render(self, document: &PlanDocument) -> Result<String, Error> {
        match self {
            Self::Text => Ok(plan_text::plan(document)),
            Self::Json => Ok(serde_json::to_string_pretty(document).map_err(Error::json)? + "\n"),
            Self::Markdown => Ok(plan_markdown::plan(document)),
        }
    }
}

/// The format of everything that is neither a plan nor a table of counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TextOrJson {
    /// For people
    #[default]
    Text,
    /// For programs: one JSON object, or one a line while a command runs
    Json,
}

type Stream = Mutex<Box<dyn Write + Send>>;

/// The two output streams. Colours are dropped if the stream is not a terminal, or NO_COLOR is set.
pub(crate) struct Output {
    out: Stream,
    has_colours: bool,
    err: Stream,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").finish_non_exhaustive()
    }
}

fn lock(stream: &Stream) -> MutexGuard<'_, Box<dyn Write + Send>> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Output {
    /// Opens the streams of the process.
    pub(crate) fn terminal() -> Self {
        Self {
            out: Mutex::new(Box::new(io::stdout())),
            has_colours: AutoStream::choice(&io::stdout()) != ColorChoice::Never,
            err: Mutex::new(Box::new(AutoStream::auto(io::stderr()))),
        }
    }

    /// Prints a result as it is. Data are never filtered: a name in them may look like an escape sequence.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] or [`ErrorKind::BrokenPipe`]
    pub(crate) fn print(&self, text: &str) -> Result<(), Error> {
        let mut out = lock(&self.out);
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|source| Error::io("write to stdout", "check the target of the output", &source))
    }

    /// Prints a plan, in colour if it is a text for people. All names in such a text are escaped already.
    ///
    /// # Errors
    /// [`PlanFormat::render`] or [`Output::print`]
    pub(crate) fn print_plan(&self, format: PlanFormat, document: &PlanDocument) -> Result<(), Error> {
        let text = format.render(document)?;
        match format {
            PlanFormat::Text => self.print_styled(&text),
            PlanFormat::Json | PlanFormat::Markdown => self.print(&text),
        }
    }

    /// Prints a text with colours.
    ///
    /// # Errors
    /// [`Output::print`]
    pub(crate) fn print_styled(&self, text: &str) -> Result<(), Error> {
        if self.has_colours { self.print(text) } else { self.print(&strip_str(text).to_string()) }
    }

    /// Prints a value as one line of JSON.
    ///
    /// # Errors
    /// [`Output::print`]
    pub(crate) fn print_json(&self, value: &impl Serialize) -> Result<(), Error> {
        self.print(&(serde_json::to_string(value).map_err(Error::json)? + "\n"))
    }

    /// Prints a result as text or as one line of JSON.
    ///
    /// # Errors
    /// [`Output::print`]
    pub(crate) fn show(
        &self,
        format: TextOrJson,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        match format {
            TextOrJson::Text => self.print(&text()),
            TextOrJson::Json => self.print_json(value),
        }
    }

    /// Prints a line of progress or a warning to stderr. A closed stderr is ignored.
    pub(crate) fn progress(&self, line: &str) {
        let mut err = lock(&self.err);
        let _ = writeln!(err, "{line}").and_then(|()| err.flush());
    }

    /// Prints what a reader of a result must know to stderr, so that programs read the result alone.
    pub(crate) fn notes(&self, notes: &[String]) {
        for note in notes {
            self.progress(&format!("note: {note}"));
        }
    }

    /// Prints a question to stderr, without a line break.
    fn prompt(&self, text: &str) {
        let mut err = lock(&self.err);
        let _ = write!(err, "{text}").and_then(|()| err.flush());
    }

    /// Prints an error to stderr.
    pub(crate) fn error(&self, error: &Error) {
        self.progress(&error_text(error));
    }
}

/// Formats an error in colour.
pub(crate) fn error_text(error: &Error) -> String {
    match error.kind() {
        // The diagnostics already begin with `error:`.
        ErrorKind::Config => error.to_string(),
        _ => {
            let red = AnsiColor::Red.on_default().bold();
            format!("{red}error:{red:#} {error}")
        }
    }
}
