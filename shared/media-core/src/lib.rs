//! Plenary's media engine: everything between a datagram and another, without a socket, a thread or a clock.
#![forbid(unsafe_code)]

mod api;
mod ingress;
mod rtcp;
mod rtp;
mod store;

pub use api::*;
