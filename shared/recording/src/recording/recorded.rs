//! One track of a recording and the file that it is written to.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use bytes::Bytes;
use plenary_model::{Codec, ParticipantSid, Source};

use super::{CLUSTER_AGE_MAX, Out, Output, microseconds};
use crate::{
    Frame, GapReason, Input, Size, Track, TrackInfo, VideoCodec, Writer,
    session_file::{self, Event, TrackEnd, TrackFile},
};

/// Whoever plays or renders a file begins at a key frame, and publishers send them only when asked: with none for so long, one is asked
/// for. Seldom enough to cost a call nothing.
const KEYFRAME_EVERY: Duration = Duration::from_secs(30);
/// For so long after packets were dropped here, a hole is taken for theirs.
const OVERRUN_MEMORY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Recorded {
    participant: ParticipantSid,
    source: Source,
    codec: Codec,
    pub(super) is_muted: bool,
    track: Track,
    file: TrackFile,
    /// Once there was a frame.
    writing: Option<Writing>,
    overrun: Option<Instant>,
}

#[derive(Debug)]
struct Writing {
    writer: Writer,
    /// When the open cluster got its first frame.
    cluster_since: Option<Instant>,
    /// When the last key frame was written or asked for.
    keyframe: Instant,
}

impl Recorded {
    pub(super) fn new(
        file: TrackFile,
        participant: ParticipantSid,
        source: Source,
        codec: Codec,
        is_muted: bool,
    ) -> Self {
        let track = Track::new(codec);
        Self { participant, source, codec, is_muted, track, file, writing: None, overrun: None }
    }

    pub(super) fn codec(&self) -> Codec {
        self.codec
    }

    pub(super) fn participant(&self) -> &ParticipantSid {
        &self.participant
    }

    pub(super) fn overrun(&mut self, now: Instant) {
        self.overrun = Some(now);
    }

    pub(super) fn handle(&mut self, input: Input, out: &mut Out) {
        self.track.handle(input);
        self.advance(out);
    }

    /// What follows by now, and what must not wait longer.
    pub(super) fn advance(&mut self, out: &mut Out) {
        while let Some(output) = self.track.poll(out.now) {
            match output {
                crate::Output::Begin { codec_private, size, zero } => self.begin(codec_private, size, zero, out),
                crate::Output::Frame(frame) => self.frame(&frame, out),
                crate::Output::Gap { from, to, reason } => self.gap(from, to, reason, out),
                crate::Output::Clock { zero } if self.writing.is_some() => {
                    let zero_us = out.unix_us(zero);
                    self.tell(Event::TrackZero { file: self.file.clone(), zero_us }, out);
                }
                // The frames say their size themselves.
                crate::Output::Clock { .. } | crate::Output::SizeChanged(_) => {}
                crate::Output::KeyframeNeeded => {
                    out.queue.push_back(Output::KeyframeNeeded(self.file.track().clone()));
                }
            }
        }
        if let Some(writing) = &mut self.writing
            && writing.deadline().is_some_and(|deadline| deadline <= out.now)
        {
            writing.cluster_since = None;
            if let Some(bytes) = writing.writer.flush() {
                out.append(&self.file, bytes);
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        [self.track.next_deadline(), self.writing.as_ref().and_then(Writing::deadline)].into_iter().flatten().min()
    }

    /// The file that is to be completed, if there is one.
    pub(super) fn close(mut self, reason: TrackEnd, out: &mut Out) -> Option<TrackFile> {
        self.handle(Input::Close, out);
        let writer = self.writing.take()?.writer;
        let duration = writer.duration();
        let finish = writer.finish()?;
        out.count(finish.tail.len());
        out.queue.push_back(Output::Complete { file: self.file.clone(), finish, duration });
        self.tell(Event::TrackEnded { file: self.file.clone(), reason }, out);
        Some(self.file)
    }

    fn begin(&mut self, codec_private: Option<Bytes>, size: Option<Size>, zero: Instant, out: &mut Out) {
        let (writer, header) = Writer::new(&info(self.codec, codec_private, size));
        self.writing = Some(Writing { writer, cluster_since: None, keyframe: out.now });
        let event = Event::Track {
            file: self.file.clone(),
            participant: self.participant.clone(),
            source: self.source,
            codec: self.codec,
            zero_us: out.unix_us(zero),
        };
        self.tell(event, out);
        out.create(&self.file, header);
    }

    fn frame(&mut self, frame: &Frame, out: &mut Out) {
        let Some(writing) = &mut self.writing else { return };
        if let Some(cluster) = writing.writer.push(frame) {
            out.append(&self.file, cluster);
            writing.cluster_since = None;
        }
        writing.cluster_since.get_or_insert(out.now);
        if frame.is_key {
            writing.keyframe = out.now;
        } else if out.now.saturating_duration_since(writing.keyframe) >= KEYFRAME_EVERY {
            writing.keyframe = out.now;
            out.queue.push_back(Output::KeyframeNeeded(self.file.track().clone()));
        }
    }

    fn gap(&mut self, from: Duration, to: Duration, reason: GapReason, out: &mut Out) {
        let overrun = self.overrun.take();
        let is_overrun = overrun.is_some_and(|at| out.now.saturating_duration_since(at) <= OVERRUN_MEMORY);
        let reason = match reason {
            GapReason::PacketsLost | GapReason::NewStream if is_overrun => session_file::GapReason::Overrun,
            GapReason::PacketsLost | GapReason::NewStream | GapReason::Malformed(_) => session_file::GapReason::Loss,
        };
        let file = self.file.clone();
        let event = Event::Gap { file, from_us: microseconds(from), until_us: microseconds(to), reason };
        self.tell(event, out);
    }

    fn tell(&self, event: Event, out: &mut Out) {
        let told = out.line(event);
        debug_assert!(told.is_ok(), "made of ids and numbers");
    }
}

impl Writing {
    fn deadline(&self) -> Option<Instant> {
        self.cluster_since?.checked_add(CLUSTER_AGE_MAX)
    }
}

fn info(codec: Codec, codec_private: Option<Bytes>, size: Option<Size>) -> TrackInfo {
    let codec = match codec {
        // Two, whatever is in a frame: a frame says it itself, and it may change (RFC 7587 3.4).
        Codec::Opus | Codec::Red => return TrackInfo::Opus { channels: 2 },
        Codec::Vp8 => VideoCodec::Vp8,
        Codec::Vp9 => VideoCodec::Vp9,
        Codec::Av1 => VideoCodec::Av1,
        Codec::H264 => VideoCodec::H264,
    };
    let side = |side: fn(Size) -> u32| size.and_then(|size| NonZeroU32::new(side(size))).unwrap_or(NonZeroU32::MIN);
    let codec_private = codec_private.unwrap_or_default();
    TrackInfo::Video { codec, width: side(|size| size.width), height: side(|size| size.height), codec_private }
}
