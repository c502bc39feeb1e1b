//! A value with the knowledge whether the file sets it.

use serde::Serialize;

/// A value of the file, or its default. A default never lowers the protection of a live resource
/// ([`crate::reconcile::protection`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Setting<T> {
    /// The value.
    pub(crate) value: T,
    /// True if the file sets it.
    pub(crate) is_explicit: bool,
}

impl<T> Setting<T> {
    /// Returns the value of the file, or `default` if the file has none.
    pub(super) fn new(value: Option<T>, default: T) -> Self {
        Self { is_explicit: value.is_some(), value: value.unwrap_or(default) }
    }
}
