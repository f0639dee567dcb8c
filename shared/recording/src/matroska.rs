//! One track as a Matroska file (RFC 9559), or WebM where that names the codec, written so that its bytes up to any moment
//! play: a segment of unknown size, and clusters of a second that are given out whole.
//!
//! EBML is written by hand: the crate for it copies every frame and shifts every cluster, and repair needs a reader that
//! loads nothing anyway.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod ebml;
mod index;
mod layout;
#[cfg(test)]
pub(crate) mod tests;

use std::{num::NonZeroU32, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use plenary_model::Codec;

pub(crate) use self::{
    ebml::{head, id, unsigned},
    index::{Index, Span},
    layout::{Layout, OPENING_BYTES},
};
use crate::Frame;

/// A frame this much later than the cluster's first, or earlier, begins the next cluster.
const CLUSTER_MS_MAX: u64 = 1000;
/// More than that begins the next cluster too; a frame that is larger is a cluster of its own.
const CLUSTER_BYTES_MAX: usize = 512 * 1024;
/// A key frame begins a cluster, so that one can jump to it, unless the cluster is younger than this and has begun with one:
/// a publisher that sends nothing but key frames must not cause a write for each.
const KEY_FRAMES_APART_MS: u64 = 200;

pub(crate) const TRACK_NUMBER: u64 = 1;
/// The track's number as a block names it.
pub(crate) const BLOCK_TRACK: u8 = 0x81;
pub(crate) const BLOCK_IS_KEY: u8 = 0x80;
/// Track, time and flags before a block's data.
pub(crate) const BLOCK_HEAD_BYTES: u64 = 4;

/// Id, size and timestamp of a cluster, the latter two in full width.
const CLUSTER_HEAD_BYTES: usize = 22;

/// What the file's track is, as far as it must be known before the first frame is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrackInfo {
    Opus {
        channels: u8,
    },
    Video {
        codec: VideoCodec,
        /// Of the first frame; frames of other sizes may follow.
        width: NonZeroU32,
        height: NonZeroU32,
        /// `avcC` of H.264, `av1C` of AV1, empty for others.
        codec_private: Bytes,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VideoCodec {
    Vp8,
    Vp9,
    Av1,
    H264,
}

impl TrackInfo {
    pub fn codec(&self) -> Codec {
        match self {
            Self::Opus { .. } => Codec::Opus,
            Self::Video { codec: VideoCodec::Vp8, .. } => Codec::Vp8,
            Self::Video { codec: VideoCodec::Vp9, .. } => Codec::Vp9,
            Self::Video { codec: VideoCodec::Av1, .. } => Codec::Av1,
            Self::Video { codec: VideoCodec::H264, .. } => Codec::H264,
        }
    }

    pub fn container(&self) -> Container {
        match self.codec() {
            Codec::H264 => Container::Matroska,
            _ => Container::WebM,
        }
    }
}

/// WebM is Matroska with a closed list of codecs, and what browsers play.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Container {
    WebM,
    Matroska,
}

impl Container {
    /// What the file's name ends in.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::WebM => "webm",
            Self::Matroska => "mkv",
        }
    }

    const fn doc_type(self) -> &'static str {
        match self {
            Self::WebM => "webm",
            Self::Matroska => "matroska",
        }
    }
}

/// Frames in, clusters out. Each chunk of bytes it gives belongs directly behind the one before, in one write.
///
/// Copies each frame once, and allocates as a cluster grows, not per frame.
#[derive(Debug)]
pub struct Writer {
    layout: Layout,
    index: Index,
    is_video: bool,
    /// Length of the file with all that was given out.
    written: u64,
    cluster: Option<Cluster>,
    /// The open cluster's bytes.
    bytes: BytesMut,
}

#[derive(Debug, Clone, Copy)]
struct Cluster {
    at_ms: u64,
    begins_with_key: bool,
}

/// What makes a file a finished one: the tail is appended, then the patches are written over what is there, in this order.
/// At any moment in between the file plays as before, and [`repair`](crate::repair()) does the rest. Against a loss of power
/// the tail is synced before the patches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    pub tail: Bytes,
    pub patches: Vec<Patch>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// From the beginning of the file.
    pub at: u64,
    pub bytes: Bytes,
}

impl Writer {
    /// With the first bytes of the file.
    pub fn new(track: &TrackInfo) -> (Self, Bytes) {
        let (header, layout) = Layout::write(track);
        let is_video = matches!(track, TrackInfo::Video { .. });
        let writer = Self {
            layout,
            index: Index::default(),
            is_video,
            written: layout.clusters,
            cluster: None,
            bytes: BytesMut::new(),
        };
        (writer, header)
    }

    /// Gives the cluster that this frame no longer belongs to. Times may go back; they are kept to the millisecond.
    pub fn push(&mut self, frame: &Frame) -> Option<Bytes> {
        let at_ms = milliseconds(frame);
        let closed = self.cluster.filter(|cluster| self.begins_next(*cluster, at_ms, frame)).and_then(|_| self.flush());
        let cluster = *self.cluster.get_or_insert_with(|| {
            self.bytes.put_bytes(0, CLUSTER_HEAD_BYTES);
            Cluster { at_ms, begins_with_key: frame.is_key }
        });
        let since_cluster = at_ms.checked_signed_diff(cluster.at_ms).and_then(|ms| i16::try_from(ms).ok());
        debug_assert!(since_cluster.is_some(), "within CLUSTER_MS_MAX, which begins_next() saw to");
        ebml::put_id(&mut self.bytes, id::SIMPLE_BLOCK);
        ebml::put_size(&mut self.bytes, (frame.data.len() as u64).saturating_add(BLOCK_HEAD_BYTES));
        self.bytes.put_u8(BLOCK_TRACK);
        self.bytes.put_i16(since_cluster.unwrap_or_default());
        self.bytes.put_u8(if frame.is_key { BLOCK_IS_KEY } else { 0 });
        self.bytes.extend_from_slice(&frame.data);
        self.index.span.frame(at_ms);
        closed
    }

    /// Gives the open cluster. For when nothing more has come for a while: what is held back here is lost with the process.
    pub fn flush(&mut self) -> Option<Bytes> {
        let cluster = self.cluster.take()?;
        let size = self.bytes.len().saturating_sub(12) as u64;
        if let Some(head) = self.bytes.first_chunk_mut() {
            *head = cluster_head(size, cluster.at_ms);
        }
        let bytes = self.bytes.split().freeze();
        self.index.add(cluster.at_ms, self.written, cluster.begins_with_key);
        self.written = self.written.saturating_add(bytes.len() as u64);
        Some(bytes)
    }

    /// Until the last frame that was given ends.
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_millis(self.index.span.duration_ms())
    }

    /// `None` if there never was a frame: such a file plays nowhere.
    pub fn finish(mut self) -> Option<Finish> {
        let last = self.flush().unwrap_or_default();
        if self.index.is_empty() {
            return None;
        }
        let finish = self.layout.finish(self.written, &self.index);
        let mut tail = BytesMut::from(last);
        tail.extend_from_slice(&finish.tail);
        Some(Finish { tail: tail.freeze(), ..finish })
    }

    fn begins_next(&self, cluster: Cluster, at_ms: u64, frame: &Frame) -> bool {
        let age_ms = at_ms.abs_diff(cluster.at_ms);
        let is_new_place = !cluster.begins_with_key || age_ms >= KEY_FRAMES_APART_MS;
        age_ms >= CLUSTER_MS_MAX
            || self.bytes.len().saturating_add(frame.data.len()) > CLUSTER_BYTES_MAX
            || self.is_video && frame.is_key && is_new_place
    }
}

/// To the nearest one.
fn milliseconds(frame: &Frame) -> u64 {
    u64::try_from(frame.at.as_micros().saturating_add(500) / 1000).unwrap_or(u64::MAX)
}

fn cluster_head(size: u64, at_ms: u64) -> [u8; CLUSTER_HEAD_BYTES] {
    let [c0, c1, c2, c3] = id::CLUSTER.to_be_bytes();
    let [s0, s1, s2, s3, s4, s5, s6, s7] = ebml::wide_size(size);
    let [t0, t1, t2, t3, t4, t5, t6, t7] = at_ms.to_be_bytes();
    // E7 88: a Timestamp of eight bytes.
    [c0, c1, c2, c3, s0, s1, s2, s3, s4, s5, s6, s7, 0xE7, 0x88, t0, t1, t2, t3, t4, t5, t6, t7]
}
