//! A `pipeline.toml` that grows key by key. Each key is checked as `validate` checks it, so the file is always valid.

use std::fmt::Display;

use serde_json::Value as Json;

use crate::config::{self, Pipeline};
use crate::error::Error;
use crate::text::printable;

/// The name of the file in messages.
const FILE: &str = "pipeline.toml";
/// The longest line of a comment, in bytes.
const WIDTH: usize = 118;

/// A section: its name, and its lines.
type Section = (&'static str, Vec<String>);

/// A file in the making.
#[derive(Debug)]
pub(super) struct Draft {
    /// The comments above the first section.
    head: Vec<String>,
    sections: Vec<Section>,
    /// The checked form of the file.
    pub(super) pipeline: Pipeline,
}

/// Returns a text as TOML. A JSON string without control characters is a TOML string too.
pub(super) fn quoted(text: &str) -> String {
    Json::from(text).to_string()
}

/// Returns the lines of a comment. Characters that could end a line are escaped.
fn commented(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in printable(text).split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("# {word}")),
        }
    }
    lines
}

fn lines_of<'a>(sections: &'a mut Vec<Section>, section: &'static str) -> Option<&'a mut Vec<String>> {
    if sections.iter().all(|(name, _)| *name != section) {
        sections.push((section, Vec::new()));
    }
    sections.iter_mut().find(|(name, _)| *name == section).map(|(_, lines)| lines)
}

fn text(head: &[String], sections: &[Section]) -> String {
    let mut blocks: Vec<String> = Vec::new();
    blocks.extend((!head.is_empty()).then(|| head.join("\n")));
    let with_lines = sections.iter().filter(|(_, lines)| !lines.is_empty());
    blocks.extend(with_lines.map(|(name, lines)| format!("[{name}]\n{}", lines.join("\n"))));
    blocks.join("\n\n") + "\n"
}

impl Draft {
    /// Begins a file.
    ///
    /// # Errors
    /// The mistakes in these names.
    pub(super) fn new(name: &str, region: &str, account: Option<&str>, bucket: &str) -> Result<Self, Error> {
        let mut pipeline = vec![format!("name = {}", quoted(name)), format!("region = {}", quoted(region))];
        pipeline.extend(account.map(|account| format!("account = {}", quoted(account))));
        let sections: Vec<Section> =
            vec![("pipeline", pipeline), ("bucket", vec![format!("name = {}", quoted(bucket))])];
        let pipeline = config::parse(FILE, &text(&[], &sections), None)?;
        Ok(Self { head: Vec::new(), sections, pipeline })
    }

    /// Returns the file.
    pub(super) fn text(&self) -> String {
        text(&self.head, &self.sections)
    }

    /// Adds a comment above the first section.
    pub(super) fn head(&mut self, comment: &str) {
        self.head.extend(commented(comment));
    }

    /// Adds a comment to a section.
    pub(super) fn comment(&mut self, section: &'static str, comment: &str) {
        if let Some(lines) = lines_of(&mut self.sections, section) {
            lines.extend(commented(comment));
        }
    }

    /// Takes these sections if the file is valid with them, and returns whether it is.
    fn take(&mut self, sections: Vec<Section>) -> bool {
        match config::parse(FILE, &text(&[], &sections), None) {
            Ok(pipeline) => {
                (self.sections, self.pipeline) = (sections, pipeline);
                true
            }
            Err(_) => false,
        }
    }

    /// Writes a key. A value that `validate` would not accept becomes a comment.
    pub(super) fn set(&mut self, section: &'static str, key: &str, value: impl Display) {
        let line = format!("{key} = {value}");
        let mut sections = self.sections.clone();
        if let Some(lines) = lines_of(&mut sections, section) {
            lines.push(line.clone());
        }
        if !self.take(sections) {
            self.comment(section, &format!("{line} is live, and not possible in this file"));
        }
    }

    /// Writes a number, unless it is the default or not known.
    pub(super) fn number(&mut self, section: &'static str, key: &str, live: Option<i32>, default: i32) {
        if let Some(live) = live.filter(|live| *live != default) {
            self.set(section, key, live);
        }
    }

    /// Writes a text, unless it is the default or not known.
    pub(super) fn text_key(&mut self, section: &'static str, key: &str, live: Option<&str>, default: &str) {
        if let Some(live) = live.filter(|live| *live != default) {
            self.set(section, key, quoted(live));
        }
    }

    /// Writes a statement of the function's role, with the reason for it.
    pub(super) fn statement(&mut self, reason: &str, actions: &[&str], resource: &str) {
        let mut lines = commented(reason);
        lines.push(format!("actions = {}", Json::from(actions.to_vec())));
        lines.push(format!("resources = [{}]", quoted(resource)));
        let mut sections = self.sections.clone();
        sections.push(("[role.statement]", lines));
        if !self.take(sections) {
            self.comment("role", &format!("The role needs {} on {resource}. {reason}", actions.join(", ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> Draft {
        Draft::new("events", "us-east-1", Some("123456789012"), "acme-events").expect("a valid file")
    }

    #[test]
    fn default_is_left_out_and_another_value_is_written() {
        let mut draft = draft();
        let default = draft.pipeline.function.memory_mb;
        draft.number("function", "memory_mb", Some(default), default);
        draft.number("function", "memory_mb", None, default);
        assert!(!draft.text().contains("memory_mb"));
        draft.number("function", "memory_mb", Some(512), default);
        draft.text_key("function", "architecture", Some("arm64"), "x86_64");
        assert!(draft.text().ends_with("[function]\nmemory_mb = 512\narchitecture = \"arm64\"\n"), "{}", draft.text());
        assert_eq!(draft.pipeline.function.memory_mb, 512);
    }

    #[test]
    fn value_that_validate_refuses_becomes_a_comment() {
        let mut draft = draft();
        draft.set("function", "log_retention_days", 31);
        draft.set("bucket", "kms_key", quoted("alias/\n[bucket]"));
        assert!(draft.text().contains("\n# log_retention_days = 31 is live"), "{}", draft.text());
        assert!(config::parse(FILE, &draft.text(), None).is_ok(), "{}", draft.text());
        assert!(Draft::new("Events", "us-east-1", None, "acme-events").is_err());
    }

    #[test]
    fn comment_ends_at_its_line_whatever_it_has() {
        let mut draft = draft();
        draft.head(&format!("one\n[bucket] {}", "word ".repeat(60).trim_end()));
        let text = draft.text();
        assert!(text.starts_with("# one\\u{a}[bucket] word"), "{text}");
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert!(config::parse(FILE, &text, None).is_ok(), "{text}");
    }

    #[test]
    fn statements_of_the_role_are_sections_of_their_own() {
        let mut draft = draft();
        draft.statement("The function is in a VPC.", &["ec2:CreateNetworkInterface"], "*");
        draft.statement("It has a topic.", &["sns:Publish"], "arn:aws:sns:us-east-1:123456789012:failures");
        draft.number("function", "memory_mb", Some(512), 256);
        assert_eq!(draft.text().matches("[[role.statement]]").count(), 2);
        assert_eq!(draft.pipeline.function.role.statements.len(), 2);
    }
}
