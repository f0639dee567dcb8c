//! Payloads of one track, in the order of sending, into whole frames as a file holds them.
//!
//! A frame ends with its marker, or when the timestamp changes and nothing is missing between. A frame with a hole or a
//! payload that makes no sense is given up by name. All four video codecs are read by own code: of the crates at hand one
//! refuses what senders may write (fragments of three bytes in VP8, three references in VP9) and panics on hostile H.264 and
//! AV1.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod av1;
mod bits;
mod h264;
mod opus;
#[cfg(test)]
mod tests;
mod vp8;
mod vp9;

use std::{collections::VecDeque, fmt::Debug, time::Instant};

use bytes::{BufMut, Bytes, BytesMut};
use plenary_model::Codec;

use crate::{
    continuity::Place,
    track::{GapReason, Packet, Size},
};

/// The largest frame that is put together. A key frame of 3840×2160 at a good quality has less than 2 MiB.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// The largest picture: 8192×4320, either way up. A header of ten bytes may announce more than any decoder should have memory for.
const SIDE_PIXELS_MAX: u32 = 8_192;
pub const PICTURE_PIXELS_MAX: u32 = SIDE_PIXELS_MAX * 4_320;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("it ends before what it announces")]
    Truncated,
    #[error("the frame is larger than {FRAME_BYTES_MAX} bytes")]
    FrameTooLarge,
    #[error("a frame does not begin with it, and does")]
    NotAStart,
    #[error("it goes on with a fragment that has not begun")]
    FragmentNotBegun,
    #[error("a fragment does not end")]
    FragmentNotEnded,
    #[error("an empty unit")]
    EmptyUnit,
    #[error("STAP-B, which interleaving alone has")]
    StapB,
    #[error("MTAP16, which interleaving alone has")]
    Mtap16,
    #[error("MTAP24, which interleaving alone has")]
    Mtap24,
    #[error("FU-B, which interleaving alone has")]
    FuB,
    #[error("a NAL unit of type {0}")]
    NalType(u8),
    #[error("units without a picture among them")]
    NoPicture,
    #[error("the header of a key frame")]
    KeyHeader,
    #[error("a picture with more than {SIDE_PIXELS_MAX} pixels on a side, or {PICTURE_PIXELS_MAX} in all")]
    PictureTooLarge,
    #[error("a parameter set or sequence header")]
    ParameterSet,
    #[error("the number or length of Opus frames")]
    OpusFrames,
    #[error("more than eight spatial layers")]
    SpatialLayers,
}

/// A frame with nothing missing in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) timestamp: u32,
    /// When its first packet was.
    pub(crate) received: Instant,
    pub(crate) data: Bytes,
    pub(crate) is_key: bool,
    /// Of key frames of video.
    pub(crate) size: Option<Size>,
    /// Of key frames of H.264 and AV1.
    pub(crate) codec_private: Option<Bytes>,
    pub(crate) place: Place,
}

#[derive(Debug)]
pub(crate) struct Depacketizer {
    format: Box<dyn Format>,
    frame: Buffer,
    open: Option<Open>,
    is_after_hole: bool,
    /// Two at most: what a packet ends by its timestamp, and what it ends itself.
    done: VecDeque<Result<Whole, GapReason>>,
}

/// The frame that is being put together.
#[derive(Debug)]
struct Open {
    timestamp: u32,
    received: Instant,
    damage: Option<GapReason>,
}

impl Depacketizer {
    pub(crate) fn new(codec: Codec) -> Self {
        let format: Box<dyn Format> = match codec {
            Codec::Opus | Codec::Red => Box::new(opus::Opus),
            Codec::Vp8 => Box::<vp8::Vp8>::default(),
            Codec::Vp9 => Box::<vp9::Vp9>::default(),
            Codec::H264 => Box::<h264::H264>::default(),
            Codec::Av1 => Box::<av1::Av1>::default(),
        };
        // Who comes in the middle of a stream has missed what was before.
        Self { format, frame: Buffer::default(), open: None, is_after_hole: true, done: VecDeque::new() }
    }

    pub(crate) fn push(&mut self, packet: &Packet) {
        if self.open.as_ref().is_some_and(|open| open.timestamp != packet.timestamp) {
            self.close();
        }
        // RFC 3550 5.1 allows padding without media; it belongs to no frame.
        if packet.payload.is_empty() {
            return;
        }
        if self.open.is_none() {
            let is_after_hole = std::mem::take(&mut self.is_after_hole);
            let damage = match self.format.begin(&packet.payload, is_after_hole) {
                true => None,
                false if is_after_hole => Some(GapReason::PacketsLost),
                false => Some(GapReason::Malformed(Malformed::NotAStart)),
            };
            self.open = Some(Open { timestamp: packet.timestamp, received: packet.received, damage });
        }
        if self.open.as_ref().is_some_and(|open| open.damage.is_none())
            && let Err(malformed) = self.format.append(&packet.payload, &mut self.frame)
        {
            self.damage(GapReason::Malformed(malformed));
        }
        if self.format.ends_with(packet) {
            self.close();
        }
    }

    /// Packets are missing before the next one.
    pub(crate) fn lost(&mut self) {
        self.is_after_hole = true;
        self.damage(GapReason::PacketsLost);
    }

    /// No packet follows: of a frame that has no marker yet it will not be known whether it is whole.
    pub(crate) fn end(&mut self) {
        self.damage(GapReason::PacketsLost);
        self.close();
    }

    /// The next frame, or why there is none.
    pub(crate) fn pop(&mut self) -> Option<Result<Whole, GapReason>> {
        self.done.pop_front()
    }

    /// The frame has all its packets.
    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        let finished = match open.damage {
            None => self.format.finish(&mut self.frame).map_err(GapReason::Malformed),
            Some(damage) => Err(damage),
        };
        match finished {
            Ok(Some(Finished { is_key, size, codec_private, place })) => {
                let data = self.frame.take();
                let (timestamp, received) = (open.timestamp, open.received);
                self.done.push_back(Ok(Whole { timestamp, received, data, is_key, size, codec_private, place }));
            }
            Ok(None) => {}
            Err(reason) => {
                self.frame.clear();
                self.format.clear();
                self.done.push_back(Err(reason));
            }
        }
    }

    fn damage(&mut self, reason: GapReason) {
        if let Some(open) = &mut self.open {
            open.damage.get_or_insert(reason);
            self.frame.clear();
            self.format.clear();
        }
    }
}

/// How frames of one codec lie in payloads.
trait Format: Debug + Send {
    /// Whether a frame can begin with this payload. If packets were lost before it: whether it does.
    fn begin(&mut self, payload: &[u8], is_after_hole: bool) -> bool;

    fn append(&mut self, payload: &[u8], frame: &mut Buffer) -> Result<(), Malformed>;

    fn ends_with(&self, packet: &Packet) -> bool {
        packet.marker
    }

    /// All payloads of the frame have been appended. `None`: there is no picture in them; what stays in the buffer comes
    /// before the next frame.
    fn finish(&mut self, frame: &mut Buffer) -> Result<Option<Finished>, Malformed>;

    /// What was appended was given up.
    fn clear(&mut self) {}
}

#[derive(Debug, Default)]
struct Finished {
    is_key: bool,
    size: Option<Size>,
    codec_private: Option<Bytes>,
    place: Place,
}

/// What a decoder has to make room for.
fn check_size(size: Size) -> Result<(), Malformed> {
    let Size { width, height } = size;
    let is_small = width.max(height) <= SIDE_PIXELS_MAX && width.saturating_mul(height) <= PICTURE_PIXELS_MAX;
    if is_small { Ok(()) } else { Err(Malformed::PictureTooLarge) }
}

/// The bytes of a frame, no more than [`FRAME_BYTES_MAX`].
#[derive(Debug, Default)]
struct Buffer {
    bytes: BytesMut,
}

impl Buffer {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        if self.bytes.len().saturating_add(bytes.len()) > FRAME_BYTES_MAX {
            return Err(Malformed::FrameTooLarge);
        }
        self.bytes.put_slice(bytes);
        Ok(())
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn clear(&mut self) {
        self.bytes.clear();
    }

    fn take(&mut self) -> Bytes {
        self.bytes.split().freeze()
    }
}
