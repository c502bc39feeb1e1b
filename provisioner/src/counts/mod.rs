//! The counts table: its reader, and the periods of queries.

pub(crate) mod calendar;
pub(crate) mod moment;
pub(crate) mod period;
mod reader;

pub(crate) use reader::{
    AT_ONCE, Names, Progress, RECENT_DAYS, Ranked, Reader, Series, Top, Which, add_event, memory, similar,
};
