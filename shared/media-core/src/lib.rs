//! Plenary's media engine: everything between a datagram and another, without a socket, a thread or a clock.
//!
//! [`Router`] is the whole of it to the outside: commands and datagrams in, events and transmits out.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "one reading of the clock starts virtual time"))]

mod api;
mod demux;
mod dtls;
mod egress;
mod estimate;
mod forward;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod ice;
mod ingress;
mod levels;
mod link;
mod quality;
mod router;
mod rtcp;
mod rtp;
mod sctp;
mod session_description;
mod srtp;
mod store;
mod stun;
#[cfg(test)]
mod testing;
mod transport;

pub use api::*;
pub use demux::local_ufrag;
pub use dtls::{DtlsIdentity, IdentityError};
pub use router::{Candidate, Count, Counters, Router, RouterConfig, Sink};
pub use sctp::MESSAGE_BYTES_MAX;
pub use session_description::SdpLimits;
