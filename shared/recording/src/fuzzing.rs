//! The fuzz targets of what reads packets and files; see `plenary_media_core::fuzzing`.
#![allow(clippy::disallowed_methods, reason = "one reading of the clock starts virtual time")]
#![allow(clippy::unwrap_used, reason = "a target panics when something is wrong")]

mod files;

use std::time::{Duration, Instant};

use bytes::Bytes;
use plenary_model::{Codec, MediaKind};

use crate::{
    FRAME_BYTES_MAX, Input, Output, Packet, Report, SenderClock, Track, depacketize::Depacketizer,
    track::KEYFRAME_REQUEST_INTERVAL,
};

/// What is done with an input.
pub type Body = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: &[(&str, Body)] = &[
    ("frames_opus", |input| frames(Codec::Opus, input)),
    ("frames_vp8", |input| frames(Codec::Vp8, input)),
    ("frames_vp9", |input| frames(Codec::Vp9, input)),
    ("frames_h264", |input| frames(Codec::H264, input)),
    ("frames_av1", |input| frames(Codec::Av1, input)),
    ("recorded_track", track),
    ("repair", files::repair),
    ("session_file", files::session_files),
];

/// Decisions read off the front of an input. What is not there reads as zero.
struct Tape<'a> {
    rest: &'a [u8],
}

impl<'a> Tape<'a> {
    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    fn half(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }
}

/// Payloads, each behind a byte of flags and a byte of length.
fn frames(codec: Codec, input: &[u8]) {
    let mut tape = Tape { rest: input };
    let mut depacketizer = Depacketizer::new(codec);
    let (received, mut timestamp, mut bytes) = (Instant::now(), 0u32, 0);
    while !tape.rest.is_empty() {
        let flags = tape.byte();
        let length = tape.byte();
        let payload = Bytes::copy_from_slice(tape.take(length.into()));
        bytes += payload.len();
        if flags & IS_AFTER_HOLE != 0 {
            depacketizer.lost();
        }
        timestamp = timestamp.wrapping_add(u32::from(flags & IS_NEXT_FRAME));
        let marker = flags & HAS_MARKER != 0;
        depacketizer.push(&Packet { ssrc: 0, sequence: 0, timestamp, marker, payload, received });
        while let Some(frame) = depacketizer.pop() {
            let Ok(frame) = frame else { continue };
            assert!(!frame.data.is_empty() && frame.data.len() <= FRAME_BYTES_MAX);
            // Each unit gains its length, each layer its place in the index.
            assert!(frame.data.len() <= 6 * bytes + 64, "{} bytes of {bytes}", frame.data.len());
            let is_video = codec.kind() == MediaKind::Video;
            assert_eq!(frame.size.is_some(), frame.is_key && is_video, "a key frame has a size");
            assert_eq!(frame.codec_private.is_some(), frame.is_key && matches!(codec, Codec::H264 | Codec::Av1));
            assert!(frame.size.is_none_or(|size| size.width > 0 && size.height > 0));
            check(codec, &frame.data);
        }
    }
    depacketizer.end();
}

/// What was written can be read: units that fill the frame, and none that is not to be there.
fn check(codec: Codec, frame: &[u8]) {
    let mut rest = frame;
    match codec {
        Codec::H264 => {
            while !rest.is_empty() {
                let (length, behind) = rest.split_first_chunk::<4>().expect("a length");
                let (unit, behind) = behind.split_at(u32::from_be_bytes(*length) as usize);
                assert!(matches!(unit[0] & 0x1f, 1..24) && !matches!(unit[0] & 0x1f, 9 | 12), "{:02x}", unit[0]);
                rest = behind;
            }
        }
        Codec::Av1 => {
            while let Some((&header, behind)) = rest.split_first() {
                assert_eq!(header & 0x83, 0x02, "a size and nothing that is reserved");
                assert!(!matches!(header >> 3, 2 | 8 | 15), "{header:02x}");
                rest = behind.get(usize::from(header >> 2 & 1)..).expect("an extension");
                let (mut length, mut shift) = (0, 0);
                loop {
                    let (&byte, behind) = rest.split_first().expect("a size");
                    rest = behind;
                    length |= usize::from(byte & 0x7f) << shift;
                    shift += 7;
                    if byte & 0x80 == 0 {
                        break;
                    }
                }
                rest = rest.get(length..).expect("an OBU");
            }
        }
        Codec::Opus | Codec::Red | Codec::Vp8 | Codec::Vp9 => {}
    }
}

/// The first byte chooses the codec. Then packets and reports, each behind what moves its counters; and the time that
/// passes before it.
fn track(input: &[u8]) {
    let mut tape = Tape { rest: input };
    let codec = Codec::ALL[usize::from(tape.byte()) % Codec::ALL.len()];
    let mut track = Track::new(codec);
    let mut clock = SenderClock::default();
    let (mut now, mut sequence, mut timestamp, mut ntp) = (Instant::now(), 0u16, 0u32, 0u64);
    let mut said = Said::default();
    while !tape.rest.is_empty() {
        let flags = tape.byte();
        // Up to 255 ms, or 65 s.
        now += Duration::from_millis(if flags & IS_LATER != 0 { tape.half().into() } else { tape.byte().into() });
        if flags & IS_NEXT_FRAME != 0 {
            timestamp = timestamp.wrapping_add(u32::from(tape.half()) << (flags >> 6 << 2));
        }
        said.until(&mut track, now);
        if flags & IS_REPORT != 0 {
            ntp = ntp.wrapping_add(u64::from(tape.half()) << 24);
            track.handle(Input::Report(Report { timestamp, at: clock.local(ntp, now) }));
        } else {
            let step = i8::from_be_bytes([tape.byte()]);
            sequence = sequence.wrapping_add_signed(i16::from(step) * if step % 16 == 15 { 257 } else { 1 });
            let length = tape.byte();
            let payload = Bytes::copy_from_slice(tape.take(length.into()));
            let (ssrc, marker) = (u32::from(flags & IS_OTHER_STREAM), flags & HAS_MARKER != 0);
            track.handle(Input::Packet(Packet { ssrc, sequence, timestamp, marker, payload, received: now }));
        }
        said.poll(&mut track, now);
        assert!(track.next_deadline().is_none_or(|deadline| deadline > now), "a deadline that has passed");
    }
    track.handle(Input::Close);
    said.poll(&mut track, now);
    assert_eq!(track.next_deadline(), None);
}

/// What a track has said so far.
#[derive(Default)]
struct Said {
    has_begun: bool,
    last: Option<Duration>,
    asked: Option<Instant>,
}

impl Said {
    fn until(&mut self, track: &mut Track, now: Instant) {
        while let Some(deadline) = track.next_deadline().filter(|&deadline| deadline <= now) {
            self.poll(track, deadline);
            assert_ne!(track.next_deadline(), Some(deadline), "nothing comes of it");
        }
    }

    fn poll(&mut self, track: &mut Track, now: Instant) {
        while let Some(output) = track.poll(now) {
            match output {
                Output::Begin { .. } => assert!(!std::mem::replace(&mut self.has_begun, true)),
                Output::KeyframeNeeded => {
                    let next = self.asked.replace(now).map(|asked| asked + KEYFRAME_REQUEST_INTERVAL);
                    assert!(next.is_none_or(|next| next <= now));
                }
                _ if !self.has_begun => panic!("{output:?} before the beginning"),
                Output::Frame(frame) => {
                    assert!(self.last.is_some() || frame.is_key);
                    let last = self.last.replace(frame.at);
                    assert!(last.is_none_or(|last| frame.at >= last + Duration::from_millis(1)));
                }
                Output::Gap { from, to, .. } => assert!(Some(from) == self.last && from < to),
                Output::SizeChanged(_) | Output::Clock { .. } => {}
            }
        }
    }
}

const HAS_MARKER: u8 = 0x01;
const IS_NEXT_FRAME: u8 = 0x02;
const IS_AFTER_HOLE: u8 = 0x04;
const IS_REPORT: u8 = 0x04;
const IS_LATER: u8 = 0x08;
const IS_OTHER_STREAM: u8 = 0x10;

#[cfg(test)]
#[allow(clippy::print_stderr, reason = "the input is shown when the test fails")]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_kept_input_is_quiet() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        for (name, target) in TARGETS {
            target(&[]);
            let kept = std::fs::read_dir(corpora.join(name)).unwrap_or_else(|error| panic!("corpus {name}: {error}"));
            let mut kept: Vec<_> = kept.map(|entry| entry.unwrap().path()).collect();
            kept.sort();
            assert!(!kept.is_empty(), "{name} has a first input");
            for path in kept {
                eprintln!("{}", path.display());
                target(&std::fs::read(&path).unwrap());
            }
        }
    }
}
