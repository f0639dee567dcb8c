//! What a session and its room say to each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
pub use plenary_model::BlobAnswer;
use plenary_model::{
    Audience, Channel, DataMessage, DataTrack, DataTrackSid, Identity, LeaveReason, Participant, ParticipantSid,
    Permission, QualityScore, RoomInfo, SpeakerLevel, Track, TrackSid,
};

/// A session asks its room. The room checks what needs the room's view; the session has checked its own permissions.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// The primary PeerConnection is connected.
    BecameActive,
    /// Sections of the publisher's SDP now carry these tracks.
    Publish {
        tracks: Vec<Track>,
    },
    Unpublish {
        tracks: Vec<TrackSid>,
    },
    /// A field of a published track changed (mute, features, size).
    UpdateTrack {
        track: Track,
    },
    UpdateMetadata {
        name: Option<String>,
        metadata: Option<String>,
        attributes: BTreeMap<String, String>,
    },
    /// Who may receive this session's tracks.
    UpdateAudience {
        audience: Audience,
    },
    Data {
        message: DataMessage,
    },
    /// The streams of data frames that this session publishes, all of them.
    UpdateDataTracks {
        tracks: Vec<DataTrack>,
    },
    /// The streams of data frames that this session receives, all of them.
    TakeDataTracks {
        tracks: BTreeSet<DataTrackSid>,
    },
    /// A packet of one of its own, for whoever takes that.
    DataFrame {
        track: DataTrackSid,
        packet: Bytes,
    },
    /// Keep this under a key of the session's own, for as long as it lasts.
    StoreBlob {
        request_id: u32,
        key: Bytes,
        contents: Bytes,
    },
    /// What somebody keeps under this key.
    GetBlob {
        request_id: u32,
        owner: Identity,
        key: Bytes,
    },
    /// This session's media flows to it: the publisher hears `TrackSubscribed` once.
    Bound {
        track: TrackSid,
    },
    /// This session's client cannot decode this track: its publisher shall publish the backup.
    WantBackup {
        track: TrackSid,
    },
    /// The session is over.
    Leave {
        reason: LeaveReason,
    },
    /// How well media gets through between this session's client and us.
    Quality {
        quality: QualityScore,
    },
    /// Pretend to speak for a while (client's `simulate`).
    SimulateSpeaker {
        seconds: u32,
    },
}

/// A room tells a session. Participants are whole records: clients remove what an update omits.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// New, changed or (state Disconnected) gone. Never contains the receiver itself, see `OwnChanged`.
    Participants {
        changed: Vec<Arc<Participant>>,
    },
    /// The receiver's own record changed, in whichever way. `announce` says whether its client must be told
    /// (metadata, name, attributes, permission, server-side mute), or knows because it caused it.
    OwnChanged {
        own: Arc<Participant>,
        announce: Announce,
    },
    Room {
        room: RoomInfo,
    },
    /// Changes since the last one; who fell silent has level 0 and is inactive.
    Speakers {
        speakers: Vec<(ParticipantSid, SpeakerLevel)>,
    },
    /// How well people's media gets through, where that changed; whoever was never named is well.
    Quality {
        changed: Vec<(ParticipantSid, QualityScore)>,
    },
    Data {
        channel: Channel,
        payload: Bytes,
    },
    /// A packet of a stream of data frames.
    DataFrame {
        track: DataTrackSid,
        packet: Bytes,
    },
    Blob {
        request_id: u32,
        answer: BlobAnswer,
    },
    /// Somebody receives this track of yours now.
    TrackSubscribed {
        track: TrackSid,
    },
    /// Somebody who receives this track of yours can only decode its backup.
    BackupWanted {
        track: TrackSid,
    },
    /// Mute or unmute your own track (room API).
    MuteTrack {
        track: TrackSid,
        muted: bool,
    },
    SetSubscription {
        tracks: Vec<TrackSid>,
        subscribe: bool,
    },
    /// This session must end.
    End {
        reason: LeaveReason,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announce {
    Yes,
    No,
}

/// What a session starts from.
#[derive(Debug, Clone, PartialEq)]
pub struct Welcome {
    pub own: Arc<Participant>,
    pub room: RoomInfo,
    /// Everybody visible, without the session itself.
    pub others: Vec<Arc<Participant>>,
}

/// Who a session is, from the token; fixed for its life save the permission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    pub sid: ParticipantSid,
    pub identity: Identity,
    pub permission: Permission,
}
