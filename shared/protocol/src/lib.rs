//! The words of the client wire that more than one crate needs.
//!
//! [`token`] reads and writes access tokens; [`livekit`] turns values of `plenary-model` into the wire's types and back.
//! It lives beside the doors because several of them need it. It holds no state, does no IO and reads no clock: whoever
//! asks brings the time.
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod livekit;
pub mod token;
