//! The node: doors, actors and threads around the cores.
//!
//! This crate alone knows actix, HTTP, sockets and threads. It translates and carries; what is decided is decided in
//! `plenary-room-core` and `plenary-media-core`.

pub mod config;
pub mod front;
pub mod events;
pub mod metrics;
pub mod telemetry;
