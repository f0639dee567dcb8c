//! Recording without IO: packets of one track in, bytes of one file out.
//!
//! The way of a packet: `reorder` (in order, or lost) → `depacketize` (whole frames) → `timeline` (when, on the wall clock)
//! → `matroska` (clusters of a file that may end at any byte). What a meeting was is told by the `session_file` beside
//! the files. A [`Recording`](recording::Recording) does all this for a room's tracks.

mod continuity;
mod depacketize;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod matroska;
pub mod recording;
mod reorder;
mod repair;
pub mod session_file;
#[cfg(test)]
mod testing;
mod timeline;
mod track;

use std::time::Duration;

use bytes::Bytes;

pub use depacketize::{FRAME_BYTES_MAX, Malformed, PICTURE_PIXELS_MAX};
pub use matroska::{Container, Finish, Patch, TrackInfo, VideoCodec, Writer};
pub use reorder::Drops;
pub use repair::{RepairError, Repaired, Storage, TORN_BYTES_MAX, repair};
pub use timeline::{Report, SenderClock};
pub use track::{Counts, GapReason, Input, Output, Packet, Size, Track};

/// One picture or one stretch of sound, as a file holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Since the track's zero.
    pub at: Duration,
    /// A decoder can begin here. True of all sound.
    pub is_key: bool,
    pub data: Bytes,
}
