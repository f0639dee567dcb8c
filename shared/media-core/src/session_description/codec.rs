//! Codecs by name, which of them this version speaks, and the payload types of our own offers.

use plenary_model::MediaKind;

use super::SendTrack;

/// Every codec that clients offer today. Only those of [`Codec::is_spoken`] are ever agreed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Codec {
    Opus,
    Red,
    Pcmu,
    Pcma,
    G722,
    Vp8,
    Vp9,
    H264,
    H265,
    Av1,
}

impl Codec {
    /// From `vp8`, `video/VP8` and the like.
    pub(super) fn of_mime(text: &str) -> Option<Self> {
        let name = text.rsplit('/').next().unwrap_or(text);
        ALL.into_iter().find(|codec| codec.name().eq_ignore_ascii_case(name))
    }

    /// What clients call it, such as `video/VP8`.
    pub(super) fn mime(self) -> &'static str {
        match self {
            Self::Opus => "audio/opus",
            Self::Red => "audio/red",
            Self::Pcmu => "audio/PCMU",
            Self::Pcma => "audio/PCMA",
            Self::G722 => "audio/G722",
            Self::Vp8 => "video/VP8",
            Self::Vp9 => "video/VP9",
            Self::H264 => "video/H264",
            Self::H265 => "video/H265",
            Self::Av1 => "video/AV1",
        }
    }

    pub(super) fn kind(self) -> MediaKind {
        if self.mime().starts_with("audio/") { MediaKind::Audio } else { MediaKind::Video }
    }

    /// From the value of `a=rtpmap` behind the payload type, such as `opus/48000/2`.
    pub(super) fn of_rtpmap(value: &str, kind: MediaKind) -> Option<Self> {
        let mut parts = value.split('/');
        let (name, clock_rate) = (parts.next()?, parts.next()?.parse());
        ALL.into_iter().find(|codec| {
            codec.kind() == kind && codec.name().eq_ignore_ascii_case(name) && clock_rate == Ok(codec.clock_rate())
        })
    }

    /// Whether this version agrees to it. The rest is known so that enabling it is one line.
    pub(super) fn is_spoken(self) -> bool {
        matches!(self, Self::Opus | Self::Red | Self::Vp8 | Self::Vp9 | Self::H264 | Self::Av1)
    }

    /// Whether the dependency descriptor is agreed to: where one stream may carry several spatial layers. Elsewhere it
    /// would only have to be kept in step with what is rewritten.
    pub(super) fn has_dependency_descriptor(self) -> bool {
        matches!(self, Self::Vp9 | Self::Av1)
    }

    /// The value of `a=rtpmap` behind the payload type.
    pub(super) fn rtpmap(self) -> String {
        let channels = if matches!(self, Self::Opus | Self::Red) { "/2" } else { "" };
        format!("{}/{}{channels}", self.name(), self.clock_rate())
    }

    fn name(self) -> &'static str {
        self.mime().split_once('/').map_or("", |(_, name)| name)
    }

    pub(super) fn clock_rate(self) -> u32 {
        match self {
            Self::Opus | Self::Red => 48_000,
            Self::Pcmu | Self::Pcma | Self::G722 => 8_000,
            Self::Vp8 | Self::Vp9 | Self::H264 | Self::H265 | Self::Av1 => 90_000,
        }
    }
}

const ALL: [Codec; 10] = [
    Codec::Opus,
    Codec::Red,
    Codec::Pcmu,
    Codec::Pcma,
    Codec::G722,
    Codec::Vp8,
    Codec::Vp9,
    Codec::H264,
    Codec::H265,
    Codec::Av1,
];

/// How a track's codec is told to its subscribers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SendCodec {
    pub(super) codec: Codec,
    /// The publisher's format parameters, for the profile.
    pub(super) fmtp: String,
    /// The publisher wraps it into redundant audio (RFC 2198).
    pub(super) red: bool,
}

impl SendCodec {
    /// As another router tells it. `None`: a codec that this version does not speak.
    pub(crate) fn of_mime(mime: &str, fmtp: &str, red: bool) -> Option<Self> {
        let codec = Codec::of_mime(mime).filter(|codec| codec.is_spoken() && *codec != Codec::Red)?;
        Some(Self { codec, fmtp: fmtp.to_owned(), red })
    }

    /// Such as `video/VP8`.
    pub(crate) fn mime(&self) -> &'static str {
        self.codec.mime()
    }

    pub(crate) fn fmtp(&self) -> &str {
        &self.fmtp
    }

    pub(crate) fn clock_rate(&self) -> u32 {
        self.codec.clock_rate()
    }

    pub(crate) fn kind(&self) -> MediaKind {
        self.codec.kind()
    }
}

/// One codec as our own offers describe it. A payload type means one codec in all sections of a bundle (RFC 9143 9.1);
/// only the stereo words of Opus differ under one number, which every client accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offered {
    pub(super) codec: Codec,
    pub(super) payload_type: u8,
    pub(super) rtx: Option<u8>,
    /// Of redundant audio with this codec in it, which the client need not take.
    pub(super) red: Option<u8>,
    pub(super) fmtp: &'static str,
}

impl Offered {
    /// The entry of our table for a track. `None`: its codec is not spoken.
    pub(super) fn of_track(track: &SendTrack) -> Option<Self> {
        match track.codec.codec {
            Codec::Opus => {
                let opus = if track.stereo { OPUS_STEREO } else { OPUS };
                Some(Self { red: track.codec.red.then_some(RED), ..opus })
            }
            Codec::Vp8 => Some(VP8),
            Codec::Vp9 => Some(if vp9_profile(&track.codec.fmtp) == Some(2) { VP9_PROFILE_2 } else { VP9 }),
            Codec::Av1 => Some(AV1),
            Codec::H264 => Some(if packetization_mode(&track.codec.fmtp) == 1 { H264_MODE_1 } else { H264_MODE_0 }),
            Codec::Red | Codec::Pcmu | Codec::Pcma | Codec::G722 | Codec::H265 => None,
        }
    }

    /// Whether an answer's format is what was offered.
    pub(super) fn is_taken_as(&self, codec: Codec, fmtp: &str) -> bool {
        self.codec == codec
            && match codec {
                Codec::H264 => packetization_mode(self.fmtp) == packetization_mode(fmtp),
                Codec::Vp9 => vp9_profile(self.fmtp) == vp9_profile(fmtp),
                _ => true,
            }
    }

    /// What a section without a track is described with.
    pub(super) fn idle(kind: MediaKind) -> Self {
        match kind {
            MediaKind::Audio => OPUS,
            MediaKind::Video => VP8,
        }
    }
}

const OPUS: Offered =
    Offered { codec: Codec::Opus, payload_type: 111, rtx: None, red: None, fmtp: "minptime=10;useinbandfec=1" };
const RED: u8 = 63;
// libwebrtc decodes stereo only if the receiver's own parameters say so; SDKs write `stereo=1` into the answer when the
// offer has `sprop-stereo=1`.
const OPUS_STEREO: Offered = Offered {
    codec: Codec::Opus,
    payload_type: 111,
    rtx: None,
    red: None,
    fmtp: "minptime=10;useinbandfec=1;sprop-stereo=1;stereo=1",
};
const VP8: Offered = video(Codec::Vp8, 96, "");
const VP9: Offered = video(Codec::Vp9, 98, "profile-id=0");
const VP9_PROFILE_2: Offered = video(Codec::Vp9, 100, "profile-id=2");
const AV1: Offered = video(Codec::Av1, 35, "level-idx=5;profile=0;tier=0");
const H264_MODE_1: Offered =
    video(Codec::H264, 108, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f");
const H264_MODE_0: Offered =
    video(Codec::H264, 125, "level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f");

const fn video(codec: Codec, payload_type: u8, fmtp: &'static str) -> Offered {
    Offered { codec, payload_type, rtx: payload_type.checked_add(1), red: None, fmtp }
}

/// One parameter of an `a=fmtp` value.
pub(super) fn parameter<'a>(fmtp: &'a str, name: &str) -> Option<&'a str> {
    fmtp.split(';').find_map(|part| {
        let (known, value) = part.split_once('=')?;
        known.trim().eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// The payload type in redundant audio, if all its blocks have the same (RFC 2198 6): what we can unwrap.
pub(super) fn wrapped(fmtp: &str) -> Option<u8> {
    let mut blocks = fmtp.trim().split('/').map(|block| block.parse::<u8>().ok());
    let first = blocks.next()??;
    blocks.all(|block| block == Some(first)).then_some(first)
}

/// The profile if receivers take it: 8 bits a sample, or 10 and 12. RFC 9628 6: absent means 0.
pub(super) fn vp9_profile(fmtp: &str) -> Option<u8> {
    let profile = parameter(fmtp, "profile-id").map_or(Some(0), |id| id.parse().ok());
    profile.filter(|id| matches!(id, 0 | 2))
}

/// Whether it is the Main profile, which all decoders have. AV1 RTP payload format 7.2.1: absent means 0.
pub(super) fn is_av1_main(fmtp: &str) -> bool {
    parameter(fmtp, "profile").is_none_or(|profile| profile == "0")
}

/// RFC 6184 8.1: absent means 0.
pub(super) fn packetization_mode(fmtp: &str) -> u8 {
    parameter(fmtp, "packetization-mode").and_then(|mode| mode.parse().ok()).unwrap_or(0)
}

/// The `profile-level-id` if it is of the baseline family, whose members every H.264 decoder on the client side takes.
/// Main and High reach too few receivers to be forwarded.
pub(super) fn baseline_profile(fmtp: &str) -> Option<u32> {
    // RFC 6184 8.1: absent means Baseline at level 1.
    let Some(text) = parameter(fmtp, "profile-level-id") else { return Some(0x42_000a) };
    let id = u32::from_str_radix(text, 16).ok().filter(|_| text.len() == 6)?;
    let (profile, constraints) = ((id >> 16) & 0xff, (id >> 8) & 0xff);
    // RFC 6184 table 5.
    let baseline = match profile {
        0x42 => true,
        0x4d | 0x58 => constraints & 0x80 != 0,
        _ => false,
    };
    baseline.then_some(id)
}
