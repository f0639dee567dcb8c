//! What forwarding needs to know about a payload, whatever its codec.

use plenary_model::MediaKind;

use super::{av1, h264, layers::Frame, picture::Descriptor, vp8, vp9};

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
    /// Counters to be kept running.
    pub(crate) picture: Option<Descriptor>,
    /// Of a stream that has layers.
    pub(crate) frame: Option<Frame>,
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

    /// What the payload alone says. Never fails: a payload that makes no sense starts nothing.
    pub(crate) fn inspect(self, payload: &[u8]) -> FrameInfo {
        let picture = self.descriptor(payload);
        let keyframe = match (self, &picture) {
            (Self::Audio, _) => true,
            (Self::H264, _) => h264::is_keyframe(payload),
            (Self::Av1, _) => av1::starts_sequence(payload),
            (_, Some(Descriptor::Vp8(descriptor))) => descriptor.keyframe,
            (_, Some(Descriptor::Vp9(descriptor))) => descriptor.is_keyframe(),
            (Self::Vp8 | Self::Vp9, None) => false,
        };
        FrameInfo { keyframe, picture, frame: None }
    }

    /// The payload descriptor of a codec that counts pictures.
    pub(crate) fn descriptor(self, payload: &[u8]) -> Option<Descriptor> {
        match self {
            Self::Vp8 => vp8::Descriptor::parse(payload).map(Descriptor::Vp8),
            Self::Vp9 => vp9::Descriptor::parse(payload).map(Descriptor::Vp9),
            Self::Audio | Self::H264 | Self::Av1 => None,
        }
    }
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

    proptest! {
        #[test]
        fn arbitrary_payloads_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            for codec in [Codec::Audio, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1] {
                codec.inspect(&payload);
            }
        }
    }
}
