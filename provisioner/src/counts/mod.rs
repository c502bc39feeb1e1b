//! The counts table: its reader, and the periods by which it is read.

pub(crate) mod period;
mod reader;

pub(crate) use reader::{AT_ONCE, Ranked, Reader, Series, Top};
