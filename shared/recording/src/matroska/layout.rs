//! What stands before the clusters, and how a file becomes a finished one without a moment at which it is none.
//!
//! What is known at the end only (where things are, how long it lasts) lies in a Void until then. Each Void is made so that
//! changing its first byte, its id, turns it into the element that was written into it: what readers see of the finishing is
//! single bytes, and after any of them the file is a whole one.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Finish, Patch, TRACK_NUMBER, TrackInfo, VideoCodec,
    ebml::{UNKNOWN_SIZE, head, id, put, put_float, put_id, put_master, put_size, put_unsigned, wide_size},
    index::Index,
};

/// A Void of 3,483 bytes. Its size and the byte after are what follows the first byte of SeekHead's id `11 4D 9B 74`.
const SEEK_HEAD_HIDDEN: [u8; 4] = [0xEC, 0x4D, 0x9B, 0x74];
const SEEK_HEAD_SPACE: u64 = 3 + 0xD9B;
/// A Void of nine bytes. Its size and the byte after are what follows the first byte of Duration's head `44 89 88`.
const DURATION_HIDDEN: [u8; 3] = [0xEC, 0x89, 0x88];
const DURATION_SPACE: u64 = 11;
/// The first bytes of the two, hidden and in sight.
const HIDDEN: u8 = 0xEC;
const SEEK_HEAD_SHOWN: u8 = 0x11;
const DURATION_SHOWN: u8 = 0x44;
/// The index has no place kept for it that could be a Void. Until it is whole its id `1C 53 BB 6B` is one that nothing has,
/// and readers skip that; some open no file whose index is torn.
const CUES_HIDDEN: u8 = 0x1D;
const CUES_SHOWN: u8 = 0x1C;

/// As much of a file as [`Layout::read`] looks at; the Tracks begin well before.
pub(crate) const OPENING_BYTES: usize = 8192;

/// Where in the file things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The Segment's first content byte; positions inside the file count from here.
    segment: u64,
    /// The Tracks element; Info ends here, with the Duration as its last element.
    tracks: u64,
    /// The first cluster.
    pub(crate) clusters: u64,
}

impl Layout {
    /// The first bytes of a file, all that a reader needs before clusters.
    pub(crate) fn write(track: &TrackInfo) -> (Bytes, Self) {
        let mut out = BytesMut::new();
        put_master(&mut out, id::EBML, |ebml| {
            put_unsigned(ebml, id::EBML_VERSION, 1);
            put_unsigned(ebml, id::EBML_READ_VERSION, 1);
            put_unsigned(ebml, id::EBML_ID_BYTES_MAX, 4);
            put_unsigned(ebml, id::EBML_SIZE_BYTES_MAX, 8);
            put(ebml, id::DOC_TYPE, track.container().doc_type().as_bytes());
            // CodecDelay and SeekPreRoll are of version 4, SimpleBlock of version 2 must be understood.
            put_unsigned(ebml, id::DOC_TYPE_VERSION, 4);
            put_unsigned(ebml, id::DOC_TYPE_READ_VERSION, 2);
        });
        put_id(&mut out, id::SEGMENT);
        out.extend_from_slice(&UNKNOWN_SIZE);
        let segment = out.len() as u64;
        out.extend_from_slice(&SEEK_HEAD_HIDDEN);
        out.put_bytes(0, usize::try_from(SEEK_HEAD_SPACE).unwrap_or_default().saturating_sub(SEEK_HEAD_HIDDEN.len()));
        put_master(&mut out, id::INFO, |info| {
            put_unsigned(info, id::TIMESTAMP_SCALE, 1_000_000); // nanoseconds: times are in milliseconds
            put(info, id::MUXING_APP, b"Plenary");
            put(info, id::WRITING_APP, b"Plenary");
            info.extend_from_slice(&DURATION_HIDDEN);
            info.put_bytes(0, 8);
        });
        let tracks = out.len() as u64;
        put_master(&mut out, id::TRACKS, |tracks| put_master(tracks, id::TRACK_ENTRY, |entry| put_track(entry, track)));
        let clusters = out.len() as u64;
        (out.freeze(), Self { segment, tracks, clusters })
    }

    /// Finds the places again in the first [`OPENING_BYTES`] of a file that [`Layout::write`] began, finished or not.
    pub(crate) fn read(opening: &[u8]) -> Option<Self> {
        // Where the content of the element at `at` begins and ends.
        let element = |at: usize, id: u32| {
            let head = head(opening.get(at..)?).filter(|head| head.id == id)?;
            let inside = at.checked_add(head.bytes)?;
            Some((inside, inside.checked_add(usize::try_from(head.size).ok()?)?))
        };
        let (_, segment_head) = element(0, id::EBML)?;
        let [0x18, 0x53, 0x80, 0x67, 0x01, ..] = opening.get(segment_head..)? else { return None };
        let segment = segment_head.checked_add(12)?;
        let [_, 0x4D, 0x9B, 0x74, ..] = opening.get(segment..)? else { return None };
        let (info, tracks) = element(segment.checked_add(usize::try_from(SEEK_HEAD_SPACE).ok()?)?, id::INFO)?;
        let duration = tracks.checked_sub(usize::try_from(DURATION_SPACE).ok()?).filter(|at| *at >= info)?;
        let [_, 0x89, 0x88, ..] = opening.get(duration..)? else { return None };
        let (_, clusters) = element(tracks, id::TRACKS)?;
        Some(Self { segment: segment as u64, tracks: tracks as u64, clusters: clusters as u64 })
    }

    /// What finishes a file whose clusters end at `end`.
    pub(crate) fn finish(&self, end: u64, index: &Index) -> Finish {
        let mut cues = index.cues(self.segment);
        if let Some(first) = cues.first_mut() {
            *first = CUES_HIDDEN;
        }
        let length = end.saturating_add(cues.len() as u64).saturating_sub(self.segment);
        #[expect(clippy::cast_precision_loss, reason = "exact for 285,000 years")]
        let duration = (index.span.duration_ms() as f64).to_be_bytes();
        let patches = vec![
            Patch { at: end, bytes: vec![CUES_SHOWN].into() },
            Patch { at: self.segment.saturating_add(3), bytes: self.seek_head(end) },
            Patch { at: self.duration().saturating_add(3), bytes: duration.to_vec().into() },
            Patch { at: self.segment_size(), bytes: wide_size(length).to_vec().into() },
            Patch { at: self.segment, bytes: vec![SEEK_HEAD_SHOWN].into() },
            Patch { at: self.duration(), bytes: vec![DURATION_SHOWN].into() },
        ];
        Finish { tail: cues.freeze(), patches }
    }

    /// What makes a finished file a live one again, before anything of it is taken away.
    pub(crate) fn unfinish(&self) -> [Patch; 3] {
        [
            Patch { at: self.duration(), bytes: vec![HIDDEN].into() },
            Patch { at: self.segment, bytes: vec![HIDDEN].into() },
            Patch { at: self.segment_size(), bytes: UNKNOWN_SIZE.to_vec().into() },
        ]
    }

    /// The SeekHead from its fourth byte on, and the head of the Void that fills the rest of its space.
    fn seek_head(&self, cues: u64) -> Bytes {
        let mut out = BytesMut::new();
        put_master(&mut out, id::SEEK_HEAD, |seeks| {
            let info = self.segment.saturating_add(SEEK_HEAD_SPACE);
            for (id, at) in [(id::INFO, info), (id::TRACKS, self.tracks), (id::CUES, cues)] {
                put_master(seeks, id::SEEK, |seek| {
                    put(seek, id::SEEK_ID, &id.to_be_bytes());
                    put(seek, id::SEEK_POSITION, &at.saturating_sub(self.segment).to_be_bytes());
                });
            }
        });
        let rest = SEEK_HEAD_SPACE.saturating_sub(out.len() as u64);
        put_id(&mut out, id::VOID);
        put_size(&mut out, rest.saturating_sub(3));
        out.freeze().slice(3..)
    }

    fn duration(&self) -> u64 {
        self.tracks.saturating_sub(DURATION_SPACE)
    }

    fn segment_size(&self) -> u64 {
        self.segment.saturating_sub(8)
    }
}

fn put_track(entry: &mut BytesMut, track: &TrackInfo) {
    put_unsigned(entry, id::TRACK_NUMBER, TRACK_NUMBER);
    put_unsigned(entry, id::TRACK_UID, 1);
    put_unsigned(entry, id::FLAG_LACING, 0);
    put(entry, id::LANGUAGE, b"und"); // left out it would be English
    match track {
        TrackInfo::Opus { channels } => {
            put_unsigned(entry, id::TRACK_TYPE, 2);
            put(entry, id::CODEC_ID, b"A_OPUS");
            put(entry, id::CODEC_PRIVATE, &opus_head(*channels));
            put_unsigned(entry, id::CODEC_DELAY, 6_500_000);
            put_unsigned(entry, id::SEEK_PRE_ROLL, 80_000_000);
            put_master(entry, id::AUDIO, |audio| {
                put_float(audio, id::SAMPLING_FREQUENCY, 48_000.0);
                put_unsigned(audio, id::CHANNELS, u64::from(*channels));
            });
        }
        TrackInfo::Video { codec, width, height, codec_private } => {
            put_unsigned(entry, id::TRACK_TYPE, 1);
            let name: &[u8] = match codec {
                VideoCodec::Vp8 => b"V_VP8",
                VideoCodec::Vp9 => b"V_VP9",
                VideoCodec::Av1 => b"V_AV1",
                VideoCodec::H264 => b"V_MPEG4/ISO/AVC",
            };
            put(entry, id::CODEC_ID, name);
            if !codec_private.is_empty() {
                put(entry, id::CODEC_PRIVATE, codec_private);
            }
            put_master(entry, id::VIDEO, |video| {
                put_unsigned(video, id::PIXEL_WIDTH, u64::from(width.get()));
                put_unsigned(video, id::PIXEL_HEIGHT, u64::from(height.get()));
            });
        }
    }
}

/// RFC 7845 5.1. The delay is libopus's own at 48 kHz, 6.5 ms, as in the CodecDelay.
fn opus_head(channels: u8) -> BytesMut {
    let mut out = BytesMut::from(&b"OpusHead"[..]);
    out.put_u8(1);
    out.put_u8(channels);
    out.put_u16_le(312);
    out.put_u32_le(48_000);
    out.put_u16_le(0); // gain
    out.put_u8(0); // one stream
    out
}
