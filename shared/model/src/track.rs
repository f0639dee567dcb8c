//! Publications and how they are received.

use crate::{TrackSid, Version};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaKind {
    Audio,
    Video,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Source {
    #[default]
    Unknown,
    Camera,
    Microphone,
    ScreenShare,
    ScreenShareAudio,
}

/// Which of the two PeerConnections of dual mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    Publisher,
    Subscriber,
}

/// A published track.
#[derive(Debug, Clone, PartialEq)]
pub struct Track {
    pub sid: TrackSid,
    pub kind: MediaKind,
    pub source: Source,
    pub name: String,
    pub muted: bool,
    pub width: u32,
    pub height: u32,
    pub simulcast: bool,
    /// Stream that groups tracks for lip sync, `camera` or `screen` unless the publisher said otherwise.
    pub stream: String,
    /// MIME type such as `video/VP8`, empty until the SDP was seen.
    pub mime: String,
    pub mid: String,
    pub codecs: Vec<TrackCodec>,
    /// Low to high.
    pub layers: Vec<Layer>,
    pub encryption: Encryption,
    pub disable_red: bool,
    pub audio_features: Vec<AudioFeature>,
    pub backup_codec_policy: i32,
    pub version: Version,
}

#[derive(Debug, Clone, PartialEq)]
pub struct TrackCodec {
    pub mime: String,
    pub mid: String,
    /// The client's own track id for this codec.
    pub cid: String,
    pub layers: Vec<Layer>,
    pub layer_mode: LayerMode,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    pub quality: Quality,
    pub width: u32,
    pub height: u32,
    pub bitrate_bps: u32,
    pub ssrc: u32,
    pub spatial_layer: u8,
    /// `q`, `h`, `f`; empty without simulcast.
    pub rid: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum LayerMode {
    #[default]
    Unused,
    OneSpatialLayerPerStream,
    MultipleSpatialLayersPerStream,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Quality {
    Low,
    Medium,
    High,
    Off,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Encryption {
    #[default]
    None,
    Gcm,
    Custom,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AudioFeature {
    Stereo,
    NoDtx,
    AutoGainControl,
    EchoCancellation,
    NoiseSuppression,
    EnhancedNoiseCancellation,
    PreconnectBuffer,
}

/// How one person wants to receive one track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionSettings {
    /// Paused without renegotiation.
    pub disabled: bool,
    /// Used where no dimensions are given.
    pub quality: Quality,
    /// Size of the tile in pixels, 0 when unknown; wins over `quality`.
    pub width: u32,
    pub height: u32,
    /// 0 means every frame.
    pub fps: u32,
    /// Larger is more important.
    pub priority: u32,
}

impl Default for SubscriptionSettings {
    fn default() -> Self {
        Self { disabled: false, quality: Quality::High, width: 0, height: 0, fps: 0, priority: 0 }
    }
}

/// How loud somebody is: 0.0 to 1.0, already smoothed and rounded to eighths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpeakerLevel {
    pub level: f32,
    pub active: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IceServer {
    pub urls: Vec<String>,
    pub username: String,
    pub credential: String,
}
