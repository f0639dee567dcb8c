//! Codecs that publishers may send.

use crate::MediaKind;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    Vp8,
    H264,
    Vp9,
    Av1,
    Opus,
    /// Redundant audio (RFC 2198) with Opus in it.
    Red,
}

impl Codec {
    /// The order in which publishers are told of them where nobody says otherwise.
    pub const ALL: [Self; 6] = [Self::Vp8, Self::H264, Self::Vp9, Self::Av1, Self::Opus, Self::Red];

    /// What clients call it, such as `video/VP8`.
    pub const fn mime(self) -> &'static str {
        match self {
            Self::Vp8 => "video/VP8",
            Self::H264 => "video/H264",
            Self::Vp9 => "video/VP9",
            Self::Av1 => "video/AV1",
            Self::Opus => "audio/opus",
            Self::Red => "audio/red",
        }
    }

    /// `vp8`, `opus`: what the configuration calls it, and clients where they speak of layers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vp8 => "vp8",
            Self::H264 => "h264",
            Self::Vp9 => "vp9",
            Self::Av1 => "av1",
            Self::Opus => "opus",
            Self::Red => "red",
        }
    }

    pub const fn kind(self) -> MediaKind {
        match self {
            Self::Vp8 | Self::H264 | Self::Vp9 | Self::Av1 => MediaKind::Video,
            Self::Opus | Self::Red => MediaKind::Audio,
        }
    }

    /// From `vp8`, `video/VP8` and the like.
    pub fn named(text: &str) -> Option<Self> {
        let name = text.rsplit('/').next().unwrap_or(text);
        Self::ALL.into_iter().find(|codec| codec.name().eq_ignore_ascii_case(name))
    }
}
