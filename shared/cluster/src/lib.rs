//! What is true of a room (`Store`) and who hears about it (`Bus`).
//!
//! The in-process implementation serves a node alone; a clustered node uses Redis behind the same traits, and
//! nothing outside this crate asks which it is.
#![forbid(unsafe_code)]

mod api;
mod bans;
#[cfg(feature = "conformance")]
pub mod conformance;
mod egress;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod in_process;
mod lease;
mod observe;
mod outbox;
mod receive;
mod redis;
mod seats;

pub use api::*;
pub use bans::{BANS_MAX, BANS_PER_ROOM_MAX, Bans, Barred};
pub use egress::{EGRESS_KEPT, EGRESS_LEASE_LIFE, EgressFilter, EgressLease, Recorder, StoredEgress};
pub use in_process::InProcess;
#[cfg(feature = "simulation")]
pub use in_process::Stored;
pub use lease::{Lease, RENEW_INTERVAL};
pub use observe::{CallOutcome, MissReason, Observation, Observer};
pub use outbox::{AUTOMATIC_EGRESS, Changed, Happening, Leased, OUTBOX_LEASE_LIFE, Occurrence, OutboxLease, Waiting};
pub use receive::{Ask, Event, Inbox, RoomEvent, Subscription};
pub use redis::{Redis, RedisConfig, RedisConfigError};
