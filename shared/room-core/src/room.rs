//! One room as this node knows it: a replica of the store's records, the local sessions, and what they are told.

mod api;

pub use api::{AdminAsk, Deadline, Input, Output, RecordChange, Settings};
mod stub;
pub use stub::Room;
