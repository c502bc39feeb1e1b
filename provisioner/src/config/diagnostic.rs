//! A mistake in the file, where it stands, and what to write instead; rendered like a compiler's message.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Diagnostic {
    /// Where it stands, in bytes of the file.
    pub(crate) span: Range<usize>,
    /// What is wrong, in one line.
    pub(crate) message: String,
    /// What stands under the caret; may be empty.
    pub(crate) label: String,
    /// What to write instead.
    pub(crate) help: String,
    /// Whether the text could not even be parsed there.
    pub(crate) is_syntax: bool,
}

impl Diagnostic {
    /// A mistake at `span`.
    pub(crate) fn new(
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { span, message: message.into(), label: label.into(), help: help.into(), is_syntax: false }
    }
}

/// Everything that is wrong with one file.
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
        // The file may hold anything, an escape sequence too, and the message goes to a terminal. Each control
        // character becomes one of the same length in bytes, so the spans still hold.
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

/// Control characters other than those that lay text out. All are one byte in UTF-8 up to U+007F, two up to U+009F.
fn is_hostile(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\r' | '\t')
}

fn clean(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.found {
            writeln!(f, "{}\n", self.render(diagnostic))?;
        }
        let (count, noun) = (self.found.len(), if self.found.len() == 1 { "mistake" } else { "mistakes" });
        write!(f, "{}: {count} {noun}; nothing was sent to AWS", self.path)
    }
}
