//! People in a room.

use std::collections::BTreeMap;

use crate::{DataTrack, Identity, ParticipantSid, Source, Track, TrackSid};

/// A participant's public record: what others see, and what the store keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct Participant {
    pub sid: ParticipantSid,
    pub identity: Identity,
    pub name: String,
    pub metadata: String,
    pub attributes: BTreeMap<String, String>,
    pub state: ParticipantState,
    pub kind: ParticipantKind,
    pub permission: Permission,
    pub tracks: Vec<Track>,
    pub data_tracks: Vec<DataTrack>,
    /// Whom it lets receive its tracks. Others see the tracks all the same; clients are not told whom.
    pub audience: Audience,
    /// Unix time of the join in milliseconds.
    pub joined_at_ms: u64,
    /// Grows with every change of this record, over sessions of one identity too: clients ignore what is not newer.
    pub version: u32,
    pub is_publisher: bool,
    /// Why the session ended; meaningful in [`ParticipantState::Disconnected`] only.
    pub leave_reason: LeaveReason,
    /// `ClientInfo.client_protocol`, passed on unchanged.
    pub client_protocol: i32,
    /// `ClientInfo.capabilities` as wire numbers, passed on unchanged.
    pub capabilities: Vec<i32>,
}

/// A time with ties broken, as clients compare track infos.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub unix_micros: i64,
    pub ticks: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ParticipantState {
    /// The session exists, `JoinResponse` is not out yet.
    Joining,
    /// `JoinResponse` is out, media is not up.
    Joined,
    /// The primary PeerConnection is connected.
    Active,
    Disconnected,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ParticipantKind {
    #[default]
    Standard,
    Ingress,
    Egress,
    Sip,
    Agent,
    Connector,
    Bridge,
}

/// What a participant may do. The token's three-state grants are resolved before they come here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    pub can_subscribe: bool,
    pub can_publish: bool,
    pub can_publish_data: bool,
    /// Empty means every source.
    pub can_publish_sources: Vec<Source>,
    pub can_update_metadata: bool,
    pub can_subscribe_metrics: bool,
    /// In nobody's list, sends data without a name, is not counted.
    pub hidden: bool,
    pub recorder: bool,
    pub agent: bool,
}

impl Default for Permission {
    fn default() -> Self {
        Self {
            can_subscribe: true,
            can_publish: true,
            can_publish_data: true,
            can_publish_sources: Vec::new(),
            can_update_metadata: false,
            can_subscribe_metrics: false,
            hidden: false,
            recorder: false,
            agent: false,
        }
    }
}

/// Who may receive what a publisher publishes, as the publisher says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Audience {
    #[default]
    Everybody,
    Only(Vec<Admitted>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    pub who: Receiver,
    pub tracks: AdmittedTracks,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receiver {
    Identity(Identity),
    /// One session of somebody.
    Sid(ParticipantSid),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmittedTracks {
    All,
    /// They need not exist yet.
    These(Vec<TrackSid>),
}

/// Why a session ended: log field, metric label, and the wire's `DisconnectReason`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum LeaveReason {
    #[default]
    Unknown,
    ClientInitiated,
    DuplicateIdentity,
    ServerShutdown,
    ParticipantRemoved,
    RoomDeleted,
    RoomClosed,
    StateMismatch,
    JoinFailure,
    SignalClose,
    ConnectionTimeout,
    Migration,
    MediaFailure,
}

/// What the client shall do after a `Leave`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeaveAction {
    /// Stop.
    Disconnect,
    /// New socket, same PeerConnections.
    Resume,
    /// New session.
    Reconnect,
}

/// A mean opinion score of 1 to 5, 0 when lost, and the class it falls into.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QualityScore {
    pub quality: ConnectionQuality,
    pub score: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConnectionQuality {
    Lost,
    Poor,
    Good,
    Excellent,
}
