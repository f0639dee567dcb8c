//! The node: doors, actors and threads around the cores.
//!
//! This crate alone knows actix, HTTP, sockets and threads. It translates and carries; what is decided is decided in
//! `plenary-room-core` and `plenary-media-core`.

pub mod bans;
pub mod cli;
pub mod config;
pub mod edge;
pub mod egress;
pub mod events;
#[cfg(any(test, feature = "fault-injection"))]
mod faults;
pub mod front;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod heartbeat;
mod ids;
pub mod keys;
mod lease;
pub mod letters;
pub mod media_router;
pub mod metrics;
mod neighbours;
pub mod node;
pub mod participant;
pub mod reach;
pub mod recording;
pub mod room;
pub mod rooms;
pub mod telemetry;
pub mod tls;
mod tokens;
mod turn;
pub mod webhooks;
