//! A web page of the counts over time and of the most frequent events, with a link to every view.
//!
//! ```text
//! address -> View -> Period -> spans (cache) -> Frame -> Data -> chart, template -> page
//! ```

pub(crate) mod breakdowns;
pub(crate) mod cache;
pub(crate) mod chart;
pub(crate) mod frame;
pub(crate) mod page;
mod password;
pub(crate) mod server;
mod skips;
mod token;
pub(crate) mod view;

pub(crate) use password::Password;
pub(crate) use server::{AcceptedHost, Dashboard, Settings};
pub(crate) use token::Token;
pub(crate) use view::View;
