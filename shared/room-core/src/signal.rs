//! The client wire in our own words: what a client says on its signalling socket and what it is told.
//!
//! The door converts protobuf to these and back; names follow the wire's so that its documentation applies.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use plenary_model::{
    Audience, AudioFeature, BackupCodecPolicy, Codec, DataTrack, DataTrackSid, Encryption, IceServer, Identity, Layer,
    LeaveAction, LeaveReason, MediaKind, Participant, ParticipantSid, Quality, QualityScore, RoomInfo, Source,
    SpeakerLevel, SubscriptionSettings, Target, Track, TrackSid, TrailerFeature,
};

#[derive(Debug, Clone, PartialEq)]
pub enum ClientSignal {
    /// For the publisher PeerConnection. `id` 0 means unknown.
    Offer {
        sdp: String,
        id: u32,
    },
    /// For the subscriber PeerConnection.
    Answer {
        sdp: String,
        id: u32,
    },
    /// An ICE-lite server needs no remote candidates; the frame is checked and counted for little.
    Trickle {
        target: Target,
        bytes: usize,
    },
    AddTrack(AddTrack),
    Mute {
        track: TrackSid,
        muted: bool,
    },
    Subscription {
        tracks: Vec<TrackSid>,
        subscribe: bool,
    },
    TrackSetting {
        tracks: Vec<TrackSid>,
        settings: SubscriptionSettings,
    },
    Leave {
        reason: LeaveReason,
        action: LeaveAction,
    },
    SyncState(SyncState),
    Simulate(Scenario),
    /// Unix milliseconds of the client.
    Ping {
        timestamp_ms: i64,
    },
    PingReq {
        timestamp_ms: i64,
        rtt_ms: i64,
    },
    UpdateMetadata {
        request_id: u32,
        name: String,
        metadata: String,
        attributes: BTreeMap<String, String>,
    },
    UpdateAudioTrack {
        track: TrackSid,
        features: Vec<AudioFeature>,
    },
    UpdateVideoTrack {
        track: TrackSid,
        width: u32,
        height: u32,
    },
    /// Who may receive what the client publishes.
    Audience(Audience),
    PublishDataTrack(PublishDataTrack),
    UnpublishDataTrack {
        handle: u32,
    },
    DataSubscription {
        updates: Vec<DataWish>,
    },
    StoreBlob {
        request_id: u32,
        key: Bytes,
        contents: Bytes,
    },
    GetBlob {
        request_id: u32,
        /// An identity, as far as it is one.
        owner: String,
        key: Bytes,
    },
    /// Obsolete or meaningless here; counted and ignored.
    Ignored,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishDataTrack {
    pub handle: u32,
    pub name: String,
    pub encryption: Encryption,
    /// See [`plenary_model::DataTrack::format`].
    pub format: Bytes,
}

/// What a client wants of a stream of data frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataWish {
    pub track: DataTrackSid,
    pub subscribe: bool,
    /// Frames per second at most, 0 for all.
    pub fps: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AddTrack {
    pub cid: String,
    /// None for a new track; an existing one gets the cid of its backup codec.
    pub existing: Option<TrackSid>,
    pub name: String,
    pub kind: MediaKind,
    pub source: Source,
    pub width: u32,
    pub height: u32,
    pub muted: bool,
    pub disable_red: bool,
    pub stream: String,
    pub layers: Vec<Layer>,
    /// (codec, cid) in the publisher's order: of a new track the primary and the backup, which has no cid until it is
    /// published; of an existing one the backup. Codec may be `vp8` or `video/VP8`.
    pub codecs: Vec<(String, String)>,
    pub encryption: Encryption,
    pub audio_features: Vec<AudioFeature>,
    pub trailer_features: Vec<TrailerFeature>,
    pub backup_codec_policy: BackupCodecPolicy,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct SyncState {
    /// Sids the client believes it publishes.
    pub published: Vec<TrackSid>,
    /// Explicit wishes: (`tracks`, subscribe).
    pub subscription: Option<(Vec<TrackSid>, bool)>,
    pub disabled: Vec<TrackSid>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    SpeakerUpdate {
        seconds: u32,
    },
    NodeFailure,
    Migration,
    ServerLeave,
    /// Media over TCP or over UDP again; the client starts a new session for it.
    SwitchCandidateProtocol {
        tcp: bool,
    },
    SubscriberBandwidth {
        bits_per_second: u64,
    },
    DisconnectSignalOnResume,
    DisconnectSignalOnResumeNoMessages,
    LeaveRequestFullReconnect,
}

/// What the client is told, in the order of the one queue.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerSignal {
    Join(Box<Join>),
    Reconnect {
        last_message_seq: u32,
        ice_servers: Vec<IceServer>,
    },
    Answer {
        sdp: String,
        id: u32,
    },
    Offer {
        sdp: String,
        id: u32,
    },
    Update {
        participants: Vec<Arc<Participant>>,
    },
    TrackPublished {
        cid: String,
        track: Track,
    },
    TrackUnpublished {
        track: TrackSid,
    },
    Leave {
        reason: LeaveReason,
        action: LeaveAction,
    },
    Mute {
        track: TrackSid,
        muted: bool,
    },
    SpeakersChanged {
        speakers: Vec<(ParticipantSid, SpeakerLevel)>,
    },
    RoomUpdate {
        room: RoomInfo,
    },
    ConnectionQuality {
        updates: Vec<(ParticipantSid, QualityScore)>,
    },
    StreamState {
        publisher: ParticipantSid,
        track: TrackSid,
        paused: bool,
    },
    /// How much of one of the client's videos is wanted in each codec, the first first. A backup that is wanted and not
    /// published yet is to be published.
    SubscribedQuality {
        track: TrackSid,
        codecs: Vec<WantedCodec>,
    },
    /// The publisher of this track withdrew it from the client, or gives it back.
    SubscriptionPermission {
        publisher: ParticipantSid,
        track: TrackSid,
        allowed: bool,
    },
    Pong {
        timestamp_ms: i64,
    },
    PongResp {
        last_ping_timestamp_ms: i64,
    },
    SubscriptionFailed {
        track: TrackSid,
        why: SubscriptionFailure,
    },
    RequestResponse {
        request_id: u32,
        reason: RequestOutcome,
        message: String,
        about: About,
    },
    TrackSubscribed {
        track: TrackSid,
    },
    DataTrackPublished {
        track: DataTrack,
    },
    DataTrackUnpublished {
        track: DataTrack,
    },
    /// By which numbers packets name the streams that the client receives, all of them.
    DataHandles {
        handles: Vec<DataHandle>,
    },
    BlobStored {
        request_id: u32,
        key: Bytes,
    },
    Blob {
        request_id: u32,
        key: Bytes,
        contents: Bytes,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedCodec {
    /// In short, such as `vp8`.
    pub codec: String,
    /// Every layer up to this quality, or none.
    pub up_to: Option<Quality>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataHandle {
    pub handle: u16,
    pub identity: Identity,
    pub publisher: ParticipantSid,
    pub track: DataTrackSid,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Join {
    pub room: RoomInfo,
    pub own: Arc<Participant>,
    pub others: Vec<Arc<Participant>>,
    pub subscriber_primary: bool,
    pub ice_servers: Vec<IceServer>,
    pub ping_interval_s: u32,
    pub ping_timeout_s: u32,
    pub fast_publish: bool,
    /// What the client may publish, the preferred codec first.
    pub publish_codecs: Vec<Codec>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriptionFailure {
    CodecUnsupported,
    TrackNotFound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestOutcome {
    Ok,
    NotFound,
    NotAllowed,
    LimitExceeded,
    Queued,
    UnsupportedType,
    Unclassified,
    InvalidHandle,
    InvalidName,
    DuplicateHandle,
    DuplicateName,
    InvalidRequest,
}

/// Which request a `RequestResponse` is about, as far as the wire lets it be named.
#[derive(Debug, Clone, PartialEq)]
pub enum About {
    AddTrack { cid: String, source: Source, name: String },
    Mute { track: TrackSid, muted: bool },
    UpdateMetadata,
    UpdateTrack { track: TrackSid },
    PublishDataTrack { handle: u32 },
    UnpublishDataTrack { handle: u32 },
    Other,
}

/// The data-channel message of a client after the door decoded it: enough to check and route it.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientData {
    pub channel: plenary_model::Channel,
    pub kind: DataKind,
    /// The sender's sequence number on the reliable channel, 0 for none.
    pub sequence: u32,
    pub to: plenary_model::Destination,
    /// Re-encoded by the door with the sender stamped on it.
    pub payload: bytes::Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataKind {
    Ordinary,
    /// Only agents may send these.
    Transcription,
    /// Only for those who may subscribe to metrics.
    Metrics,
}
