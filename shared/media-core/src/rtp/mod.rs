//! RTP as it lies in a buffer: header, extensions and the little of each codec's payload header that forwarding needs.
//!
//! Nothing here owns bytes or keeps state; every value is an offset or a copy of a field. It must never trust a length
//! field, and never fail on the *payload* of a packet: end-to-end encrypted media puts anything there.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod av1;
mod codec;
pub(crate) mod dependency;
mod h264;
mod header;
pub(crate) mod layers;
pub(crate) mod picture;
pub(crate) mod red;
mod sequence;
pub(crate) mod trailer;
pub(crate) mod vp8;
pub(crate) mod vp9;

pub(crate) use codec::{Codec, FrameInfo};
pub(crate) use header::{EXTENSION_BIT, Header, ONE_BYTE_PROFILE, TWO_BYTE_PROFILE, VERSION};
pub(crate) use layers::{LayerId, StreamId};
pub(crate) use sequence::{FIRST_INDEX, distance, extend, is_newer_timestamp, timestamp_distance};

/// The largest packet that is kept, repaired or forwarded: an Ethernet frame's worth.
pub(crate) const PACKET_BYTES_MAX: usize = 1_500;
