//! What forwarding needs to know about a payload, whatever its codec.

use plenary_model::MediaKind;

use super::{h264, vp8};

/// Codecs whose key frames we can find. Audio needs none: every packet is a place to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Codec {
    Audio,
    Vp8,
    Vp9,
    H264,
    Av1,
}

/// What one packet means to a decoder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FrameInfo {
    /// A decoder can start with this packet.
    pub(crate) keyframe: bool,
    pub(crate) vp8: Option<vp8::Descriptor>,
}

impl Codec {
    /// From a MIME type such as `video/VP8`. `None` for video that we cannot switch.
    pub(crate) fn of_mime(mime: &str) -> Option<Self> {
        let (kind, name) = mime.split_once('/')?;
        if kind.eq_ignore_ascii_case("audio") {
            return Some(Self::Audio);
        }
        [("vp8", Self::Vp8), ("vp9", Self::Vp9), ("h264", Self::H264), ("av1", Self::Av1)]
            .into_iter()
            .find_map(|(known, codec)| name.eq_ignore_ascii_case(known).then_some(codec))
    }

    pub(crate) fn kind(self) -> MediaKind {
        match self {
            Self::Audio => MediaKind::Audio,
            Self::Vp8 | Self::Vp9 | Self::H264 | Self::Av1 => MediaKind::Video,
        }
    }

    /// Never fails: a payload that makes no sense starts nothing.
    pub(crate) fn inspect(self, payload: &[u8]) -> FrameInfo {
        match self {
            Self::Audio => FrameInfo { keyframe: true, vp8: None },
            Self::Vp8 => {
                let vp8 = vp8::Descriptor::parse(payload);
                FrameInfo { keyframe: vp8.is_some_and(|descriptor| descriptor.keyframe), vp8 }
            }
            Self::Vp9 => FrameInfo { keyframe: starts_vp9(payload), vp8: None },
            Self::H264 => FrameInfo { keyframe: h264::is_keyframe(payload), vp8: None },
            Self::Av1 => FrameInfo { keyframe: starts_av1(payload), vp8: None },
        }
    }
}

/// RFC 9628 4.2: start of a frame that is not inter-predicted, of the lowest spatial layer.
fn starts_vp9(payload: &[u8]) -> bool {
    const PICTURE_ID: u8 = 0x80;
    const INTER_PREDICTED: u8 = 0x40;
    const LAYER_INDICES: u8 = 0x20;
    const START_OF_FRAME: u8 = 0x08;
    let Some((&required, mut rest)) = payload.split_first() else { return false };
    if required & (INTER_PREDICTED | START_OF_FRAME) != START_OF_FRAME {
        return false;
    }
    if required & LAYER_INDICES == 0 {
        return true;
    }
    if required & PICTURE_ID != 0 {
        let wide = rest.first().is_some_and(|first| first & 0x80 != 0);
        rest = rest.get(if wide { 2 } else { 1 }..).unwrap_or_default();
    }
    rest.first().is_some_and(|indices| indices & 0x0e == 0)
}

/// AV1 RTP payload format 4.4: the N bit marks the first packet of a coded video sequence.
fn starts_av1(payload: &[u8]) -> bool {
    payload.first().is_some_and(|aggregation| aggregation & 0x08 != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mime_types_are_known_in_any_case() {
        for (mime, codec) in [
            ("audio/opus", Some(Codec::Audio)),
            ("video/VP8", Some(Codec::Vp8)),
            ("VIDEO/h264", Some(Codec::H264)),
            ("video/av1", Some(Codec::Av1)),
            ("video/VP9", Some(Codec::Vp9)),
            ("video/ulpfec", None),
            ("", None),
        ] {
            assert_eq!(Codec::of_mime(mime), codec, "{mime}");
        }
    }

    #[test]
    fn vp9_starts_at_an_intra_frame_of_the_lowest_layer() {
        for (payload, expected) in [
            (&[0x08][..], true),
            (&[0x48], false),
            (&[0x00], false),
            (&[0xa8, 0x81, 0x23, 0x00, 0], true),
            (&[0xa8, 0x23, 0x02, 0], false),
            (&[0x28, 0x00], true),
            (&[0xa8, 0x81], false),
            (&[], false),
        ] {
            assert_eq!(Codec::Vp9.inspect(payload).keyframe, expected, "{payload:02x?}");
        }
    }

    #[test]
    fn av1_starts_with_a_new_coded_sequence() {
        assert!(Codec::Av1.inspect(&[0x18]).keyframe);
        assert!(!Codec::Av1.inspect(&[0x10]).keyframe);
        // Bytes that made a public depacketiser panic.
        assert!(!Codec::Av1.inspect(&[0x17, 0x5f]).keyframe);
    }

    proptest! {
        #[test]
        fn arbitrary_payloads_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            for codec in [Codec::Audio, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1] {
                codec.inspect(&payload);
            }
        }
    }
}
