//! A mistake in the file, with its position and a correction; rendered like a compiler's message.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Diagnostic {
    /// The position, in bytes of the file.
    pub(crate) span: Range<usize>,
    /// The problem, in one line.
    pub(crate) message: String,
    /// The text under the caret; may be empty.
    pub(crate) label: String,
    /// The correction.
    pub(crate) help: String,
    /// True if the text could not be parsed at this position.
    pub(crate) is_syntax: bool,
}

impl Diagnostic {
    /// Creates a diagnostic of a mistake at `span`.
    pub(crate) fn new(
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { span, message: message.into(), label: label.into(), help: help.into(), is_syntax: false }
    }
}

/// The mistakes that are shown: more are those of a file of another kind.
const MOST_SHOWN: usize = 100;

/// All mistakes in one file.
#[derive(Debug)]
pub(crate) struct ConfigErrors {
    /// The file's name, as given.
    pub(crate) path: String,
    /// The file's text.
    pub(crate) text: String,
    /// The mistakes, in the order of the file; never empty.
    pub(crate) found: Vec<Diagnostic>,
}

impl ConfigErrors {
    fn render(&self, diagnostic: &Diagnostic) -> String {
        // The file may contain escape sequences, and the message goes to a terminal, so control characters are
        // replaced. The spans are valid only if the replacement has the same length in bytes.
        let text: String = self.text.chars().map(|c| if is_hostile(c) { '?' } else { c }).collect();
        let (text, span) = if text.len() == self.text.len() {
            (text, diagnostic.span.clone())
        } else {
            (self.text.escape_debug().to_string(), 0..0)
        };
        let end = span.end.min(text.len());
        let span = span.start.min(end)..end;
        let mut annotation = AnnotationKind::Primary.span(span);
        if !diagnostic.label.is_empty() {
            annotation = annotation.label(clean(&diagnostic.label));
        }
        let message = clean(&diagnostic.message);
        let help = clean(&diagnostic.help);
        let report = [Level::ERROR
            .primary_title(message.as_str())
            .element(Snippet::source(text.as_str()).path(self.path.as_str()).annotation(annotation))
            .element(Level::HELP.message(help.as_str()))];
        Renderer::styled().render(&report)
    }
}

/// Returns whether `c` is a control character other than a line break or a tab. Control characters take one byte in
/// UTF-8 up to U+007F, and two up to U+009F.
fn is_hostile(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\r' | '\t')
}

fn clean(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in self.found.iter().take(MOST_SHOWN) {
            writeln!(f, "{}\n", self.render(diagnostic))?;
        }
        if let Some(more @ 1..) = self.found.len().checked_sub(MOST_SHOWN) {
            writeln!(f, "{more} more are not shown, and there may be others.\n")?;
        }
        let (count, noun) = (self.found.len(), if self.found.len() == 1 { "mistake" } else { "mistakes" });
        write!(f, "{}: {count} {noun}; nothing was sent to AWS", self.path)
    }
}
