//! What a room and its people decide, without IO: membership replica, permissions, publish and subscribe intent,
//! negotiation order.
//!
//! Two cores: [`Host`](host::Host) around [`Room`](room::Room), one per room and node, and [`Session`](session::Session), one
//! per participant of this node. Each takes `now` and one closed `Input`, and gives back one closed `Output` and its next deadline with a
//! named reason. They know nothing of protobuf, sockets, actors, Redis, a clock or a random source.
#![forbid(unsafe_code)]

pub mod host;
pub mod notice;
pub mod room;
pub mod session;
pub mod signal;
