//! The collector of mistakes, and the checks that several sections share. The keys declare what they accept.

use std::ops::Range;

use toml::Spanned;

use super::diagnostic::Diagnostic;
use super::key::{Key, Values};
use super::rules::Rule;

/// An optional value with its position.
pub(super) type Maybe<T> = Option<Spanned<T>>;

/// A collector of the mistakes in a file.
pub(super) struct Check<'a> {
    pub(super) found: &'a mut Vec<Diagnostic>,
    pub(super) keys: &'a [&'static Key],
}

impl Check<'_> {
    /// Returns the key at `path`, and its values.
    fn declared(&self, path: &str) -> (Option<&'static Key>, Values) {
        let key = self.keys.iter().copied().find(|key| key.path == path);
        debug_assert!(key.is_some(), "`{path}` is not declared");
        (key, key.map_or(Values::Any, |key| key.values))
    }

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
    pub(super) fn text(&mut self, value: Maybe<String>, key: &str) -> Option<String> {
        let Values::Text(rule) = self.declared(key).1 else { return value.map(Spanned::into_inner) };
        self.text_by(value, key, |text| rule.check(text))
    }

    /// Checks a text by a rule that depends on the rest of the file, and returns it.
    pub(super) fn text_by(&mut self, value: Maybe<String>, key: &str, rule: impl Fn(&str) -> Rule) -> Option<String> {
        let value = value?;
        self.rule(value.span(), key, rule(value.get_ref()));
        Some(value.into_inner())
    }

    /// Checks a word and returns it.
    pub(super) fn word(&mut self, value: Maybe<String>, key: &str) -> Option<&'static str> {
        let value = value?;
        let Values::Words(words) = self.declared(key).1 else { return None };
        let word = words.iter().copied().find(|word| *word == value.get_ref().as_str());
        if word.is_none() {
            let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
            let label = format!("`{}` is not one of its values", value.get_ref().escape_debug());
            self.mistake(value.span(), format!("`{key}` is unknown"), label, format!("write {}", words.join(" or ")));
        }
        word
    }

    /// Checks a whole number of the type of AWS's APIs and returns it.
    pub(super) fn number(&mut self, value: Maybe<i64>, key: &str) -> Option<i32> {
        self.large_number(value, key).and_then(|n| i32::try_from(n).ok())
    }

    /// Checks a whole number and returns it.
    pub(super) fn large_number(&mut self, value: Maybe<i64>, key: &str) -> Option<i64> {
        let value = value?;
        let n = *value.get_ref();
        let (message, unit, help) = match self.declared(key).1 {
            Values::Range { least, most, unit } if !(least..=most).contains(&n) => {
                let help = format!("write a whole number from {least} to {most} ({unit})");
                (format!("`{key}` is out of range"), unit, help)
            }
            Values::Numbers { allowed, unit } if !allowed.contains(&n) => {
                let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
                (format!("AWS refuses this `{key}`"), unit, format!("write one of {}", allowed.join(", ")))
            }
            _ => return Some(n),
        };
        self.mistake(value.span(), message, format!("{n} {unit}"), help);
        None
    }

    /// Checks the number of entries of a list.
    pub(super) fn entries<T>(&mut self, list: &Spanned<Vec<T>>, path: &str) {
        let n = list.get_ref().len();
        let Some(Key { entries: (least, most), example, .. }) = self.declared(path).0 else { return };
        if n < *least {
            let help = format!("list {least} or more, as in `{example}`");
            self.mistake(list.span(), format!("`{path}` has too few entries"), format!("{n} entries"), help);
        } else if n > *most {
            let help = format!("list at most {most}");
            self.mistake(list.span(), format!("`{path}` has too many entries"), format!("{n} entries"), help);
        }
    }

    /// Records that a name is used twice.
    pub(super) fn duplicate<T>(&mut self, value: Option<&Spanned<T>>, key: &str, taken_by: &str) {
        let span = value.map_or(0..0, Spanned::span);
        self.mistake(span, format!("`{key}` is used twice"), format!("also {taken_by}"), "give each its own name");
    }
}
