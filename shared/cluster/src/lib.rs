//! What is true of a room (`Store`) and who hears about it (`Bus`).
//!
//! The in-process implementation serves a node alone; a clustered node uses another one behind the same traits, and
//! nothing outside this crate asks which it is.
#![forbid(unsafe_code)]

mod api;

pub use api::*;
