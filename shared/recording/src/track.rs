//! One published track, from its packets to the frames of its file.
//!
//! ```
//! use std::time::Instant;
//! use plenary_model::Codec;
//! use plenary_recording::{Input, Output, Packet, Track};
//!
//! # #[allow(clippy::disallowed_methods)]
//! let now = Instant::now();
//! let mut track = Track::new(Codec::Opus);
//! let payload = [0xfc, 0xff, 0xfe][..].into();
//! track.handle(Input::Packet(Packet { ssrc: 1, sequence: 7, timestamp: 960, marker: false, payload, received: now }));
//! assert!(matches!(track.poll(now), Some(Output::Begin { .. })));
//! assert!(matches!(track.poll(now), Some(Output::Frame(frame)) if frame.is_key));
//! assert_eq!(track.poll(now), None);
//! ```
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use plenary_model::{Codec, MediaKind};

use crate::{
    Frame,
    continuity::{Continuity, Verdict},
    depacketize::{Depacketizer, Malformed, Whole},
    reorder::{Drops, Released, Reorder},
    timeline::{Report, Timeline},
};

/// Between two requests for a key frame.
pub const KEYFRAME_REQUEST_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    Packet(Packet),
    Report(Report),
    /// Nothing more will come: what waits for something is given out without it.
    Close,
}

/// An RTP packet, its header read. Of redundant audio (RFC 2198) the primary block alone, as if it had come so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub ssrc: u32,
    pub sequence: u16,
    pub timestamp: u32,
    pub marker: bool,
    /// Without padding. Empty if there is nothing else.
    pub payload: Bytes,
    pub received: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// The first frame follows. Before all but [`Output::KeyframeNeeded`], once.
    Begin {
        /// `avcC` (ISO/IEC 14496-15 5.3.3.1) for H.264, `av1C` (AV1-ISOBMFF 2.3) for AV1.
        codec_private: Option<Bytes>,
        /// Of video.
        size: Option<Size>,
        /// On our clock, the time at which the track's time begins.
        zero: Instant,
    },
    Frame(Frame),
    /// Between these two frames something is missing. The frame at `to` follows; after [`Input::Close`] none.
    Gap {
        from: Duration,
        to: Duration,
        reason: GapReason,
    },
    /// The picture is of this size from the next frame on.
    SizeChanged(Size),
    /// The track's time began then and not when `Begin` or an earlier `Clock` said. All of it: no frame's time in the file changes.
    Clock {
        zero: Instant,
    },
    /// The publisher is to be asked for one. At the start, and at most every [`KEYFRAME_REQUEST_INTERVAL`] while frames
    /// come that are cut or cannot be decoded.
    KeyframeNeeded,
}

/// In pixels, as it is shown: cropped, but not scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub width: u32,
    pub height: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GapReason {
    #[error("packets were lost")]
    PacketsLost,
    #[error("the publisher's stream began anew")]
    NewStream,
    #[error("a payload was malformed: {0}")]
    Malformed(Malformed),
}

/// How much of a track did not get into its file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub packets: Drops,
    /// Frames of which packets were lost.
    pub cut_frames: u64,
    /// Frames with a payload that makes no sense.
    pub malformed_frames: u64,
    /// Frames that came whole and need what did not come.
    pub undecodable_frames: u64,
}

/// See [`Input`] and [`Output`] for all that can happen. After each input, [`poll`](Self::poll) until there is nothing.
#[derive(Debug)]
pub struct Track {
    codec: Codec,
    reorder: Reorder,
    depacketizer: Depacketizer,
    continuity: Continuity,
    timeline: Timeline,
    outputs: VecDeque<Output>,
    /// Why the frame before the next one is not the one that was sent before it: known, or yet to be seen.
    missing: Option<GapReason>,
    suspected: Option<GapReason>,
    last: Option<Duration>,
    size: Option<Size>,
    is_new_stream: bool,
    closing: Closing,
    keyframe_asked: Option<Instant>,
    counts: Counts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    No,
    Asked,
    Done,
}

impl Track {
    pub fn new(codec: Codec) -> Self {
        Self {
            codec,
            reorder: Reorder::default(),
            depacketizer: Depacketizer::new(codec),
            continuity: Continuity::default(),
            timeline: Timeline::new(clock_rate(codec)),
            outputs: VecDeque::new(),
            missing: None,
            suspected: None,
            last: None,
            size: None,
            is_new_stream: false,
            closing: Closing::No,
            keyframe_asked: None,
            counts: Counts::default(),
        }
    }

    pub fn handle(&mut self, input: Input) {
        match input {
            Input::Packet(packet) => self.reorder.push(packet),
            Input::Report(report) => {
                if let Some(zero) = self.timeline.report(report) {
                    self.outputs.push_back(Output::Clock { zero });
                }
            }
            Input::Close => {
                self.reorder.close();
                self.closing = Closing::Asked;
            }
        }
    }

    /// What follows at `now` from all that was handled. To be called until it gives nothing, and again at the next deadline.
    pub fn poll(&mut self, now: Instant) -> Option<Output> {
        if self.keyframe_asked.is_none() {
            self.ask_for_keyframe(now);
        }
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            match self.reorder.pop(now) {
                Some(Released::Packet(packet)) => self.depacketize(&packet),
                Some(Released::Lost(packets)) => {
                    self.depacketizer.lost();
                    self.continuity.lost(packets);
                    self.suspected.get_or_insert(GapReason::PacketsLost);
                }
                Some(Released::NewStream) => {
                    self.depacketizer.lost();
                    self.continuity.restart();
                    self.suspected = Some(GapReason::NewStream);
                    self.is_new_stream = true;
                }
                None if self.closing == Closing::Asked => {
                    self.closing = Closing::Done;
                    self.depacketizer.end();
                }
                None => return self.last_gap(now),
            }
            while let Some(frame) = self.depacketizer.pop() {
                self.deliver(frame, now);
            }
        }
    }

    /// When to poll if nothing comes before: the oldest hole is given up then.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.reorder.next_deadline()
    }

    pub fn counts(&self) -> Counts {
        Counts { packets: self.reorder.drops(), ..self.counts }
    }

    fn depacketize(&mut self, packet: &Packet) {
        if std::mem::take(&mut self.is_new_stream) {
            self.timeline.restart(packet.timestamp, packet.received);
        }
        self.depacketizer.push(packet);
    }

    fn deliver(&mut self, frame: Result<Whole, GapReason>, now: Instant) {
        let frame = match frame {
            Ok(frame) => frame,
            Err(reason) => {
                let counter = match reason {
                    GapReason::Malformed(_) => &mut self.counts.malformed_frames,
                    GapReason::PacketsLost | GapReason::NewStream => &mut self.counts.cut_frames,
                };
                *counter = counter.saturating_add(1);
                self.continuity.lost(1);
                self.missing.get_or_insert(reason);
                return self.ask_for_keyframe(now);
            }
        };
        let suspected = self.suspected.take();
        match self.continuity.judge(frame.is_key, &frame.place) {
            Verdict::Next => {}
            Verdict::AfterLoss => self.missing = self.missing.or(suspected),
            Verdict::Undecodable => {
                self.counts.undecodable_frames = self.counts.undecodable_frames.saturating_add(1);
                self.missing = self.missing.or(suspected).or(Some(GapReason::PacketsLost));
                return self.ask_for_keyframe(now);
            }
        }
        let at = self.timeline.frame(frame.timestamp, frame.received);
        let missing = self.missing.take();
        let size = frame.size.filter(|&size| self.size != Some(size));
        self.size = size.or(self.size);
        match self.last.replace(at) {
            None => {
                let zero = self.timeline.zero().unwrap_or(frame.received);
                self.outputs.push_back(Output::Begin { codec_private: frame.codec_private, size, zero });
            }
            Some(from) => {
                self.outputs.extend(missing.map(|reason| Output::Gap { from, to: at, reason }));
                self.outputs.extend(size.map(Output::SizeChanged));
            }
        }
        self.outputs.push_back(Output::Frame(Frame { at, is_key: frame.is_key, data: frame.data }));
    }

    fn ask_for_keyframe(&mut self, now: Instant) {
        let next = self.keyframe_asked.and_then(|asked| asked.checked_add(KEYFRAME_REQUEST_INTERVAL));
        if self.codec.kind() == MediaKind::Video && next.is_none_or(|next| next <= now) {
            self.keyframe_asked = Some(now);
            self.outputs.push_back(Output::KeyframeNeeded);
        }
    }

    /// What was missing when the track closed.
    fn last_gap(&mut self, now: Instant) -> Option<Output> {
        if self.closing != Closing::Done {
            return None;
        }
        let reason = self.missing.take().or(self.suspected.take())?;
        let (from, zero) = (self.last?, self.timeline.zero()?);
        let to = now.saturating_duration_since(zero);
        (to > from).then_some(Output::Gap { from, to, reason })
    }
}

/// RFC 7587 4.1, and what the payload formats of video have in common.
fn clock_rate(codec: Codec) -> u32 {
    match codec.kind() {
        MediaKind::Audio => 48_000,
        MediaKind::Video => 90_000,
    }
}
