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
    /// What it is published with first, then the backup for those who cannot decode that, if one was declared.
    pub codecs: Vec<TrackCodec>,
    /// Low to high.
    pub layers: Vec<Layer>,
    pub encryption: Encryption,
    pub disable_red: bool,
    pub audio_features: Vec<AudioFeature>,
    /// What the trailers of its frames may hold; empty if they have none. Of video alone.
    pub trailer_features: Vec<TrailerFeature>,
    pub backup_codec_policy: BackupCodecPolicy,
    pub version: Version,
}

impl Track {
    pub fn backup(&self) -> Option<&TrackCodec> {
        self.codecs.get(1)
    }

    /// The names under which the media engine has it: its own, and while a backup is published that one's.
    pub fn engine_sids(&self) -> impl Iterator<Item = TrackSid> {
        let backup = self.backup().filter(|codec| codec.is_published());
        [Some(self.sid.clone()), backup.map(|_| self.sid.backup())].into_iter().flatten()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct TrackCodec {
    pub mime: String,
    /// Empty until a section of the publisher carries it.
    pub mid: String,
    /// The client's own track id for this codec; empty as long as it only declared it.
    pub cid: String,
    pub layers: Vec<Layer>,
    pub layer_mode: LayerMode,
}

impl TrackCodec {
    pub fn is_published(&self) -> bool {
        !self.mid.is_empty()
    }
}

/// Who gets the backup codec once it is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum BackupCodecPolicy {
    /// Everybody who can decode it, so that the publisher encodes once.
    #[default]
    PreferRegression,
    /// Only who cannot decode the first; the publisher encodes twice.
    Simulcast,
    /// The same, as the publisher insists on it. Whoever cannot decode the backup keeps the first all the same.
    Regression,
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

/// What a publisher appends to its encoded frames for applications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrailerFeature {
    UserTimestamp,
    FrameId,
    UserData,
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
