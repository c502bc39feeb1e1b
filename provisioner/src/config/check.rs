//! The collector of mistakes, and the checks that several sections share.

use std::ops::Range;

use toml::Spanned;

use super::diagnostic::Diagnostic;
use super::rules::Rule;

/// An optional value with its position.
pub(super) type Maybe<T> = Option<Spanned<T>>;

/// A collector of the mistakes in a file.
pub(super) struct Check<'a> {
    pub(super) found: &'a mut Vec<Diagnostic>,
}

impl Check<'_> {
    /// Records a mistake at `span`.
    pub(super) fn mistake(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.found.push(Diagnostic::new(span, message, label, help));
    }

    /// Records a mistake if AWS would refuse the value.
    pub(super) fn rule(&mut self, span: Range<usize>, key: &str, rule: Rule) {
        if let Err(violation) = rule {
            self.mistake(span, format!("AWS refuses this `{key}`"), violation.why, violation.help);
        }
    }

    /// Checks a text and returns it.
    pub(super) fn text(&mut self, value: Maybe<String>, key: &str, rule: impl Fn(&str) -> Rule) -> Option<String> {
        let value = value?;
        self.rule(value.span(), key, rule(value.get_ref()));
        Some(value.into_inner())
    }

    /// Checks the bounds of a whole number and returns it. `most` fits an `i32`, the type of AWS's APIs.
    pub(super) fn number(&mut self, value: Maybe<i64>, key: &str, least: i64, most: i64, unit: &str) -> Option<i32> {
        let value = value?;
        let n = *value.get_ref();
        if (least..=most).contains(&n) {
            return i32::try_from(n).ok();
        }
        self.mistake(
            value.span(),
            format!("`{key}` is out of range"),
            format!("{n} {unit}"),
            format!("write a whole number from {least} to {most} ({unit})"),
        );
        None
    }

    /// Records that a name is used twice.
    pub(super) fn duplicate<T>(&mut self, value: Option<&Spanned<T>>, key: &str, taken_by: &str) {
        let span = value.map_or(0..0, Spanned::span);
        self.mistake(span, format!("`{key}` is used twice"), format!("also {taken_by}"), "give each its own name");
    }
}
