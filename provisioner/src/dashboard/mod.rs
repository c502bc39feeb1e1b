//! A page for those who ask no shell: counts over time, the most frequent events, and a link to every view.
//!
//! ```text
//! address -> View -> Period -> hours (cache) -> Frame -> Data -> chart, template -> page
//! ```

pub mod cache;
pub mod chart;
pub mod frame;
pub mod page;
pub mod server;
pub mod view;

pub use server::{Dashboard, Settings};
pub use view::View;
