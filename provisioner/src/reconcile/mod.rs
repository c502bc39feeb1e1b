//! The reconciler: compares desired and live state, plans, and applies plans. It knows no AWS service.
//!
//! ```text
//! Declared --observe--> Observed --plan--> Plan --apply--> outcome
//!                                           \--document--> text, JSON, Markdown, saved plan
//! ```

pub(crate) mod apply;
pub(crate) mod diff;
pub(crate) mod document;
pub(crate) mod graph;
pub(crate) mod ownership;
pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod protection;
pub(crate) mod resource;
pub(crate) mod saved_plan;
