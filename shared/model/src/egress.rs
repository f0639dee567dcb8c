//! A recording that somebody asked for, as LiveKit's Egress API knows it.

use bytes::Bytes;

use crate::{EgressId, Identity, RoomName, RoomSid, TrackSid};

/// One recording, from the request to the last file. Times are Unix nanoseconds, 0 for what has not happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Egress {
    pub id: EgressId,
    pub room: RoomName,
    /// The life of the room that it is of; it may outlive that.
    pub room_sid: RoomSid,
    pub source: EgressSource,
    pub outputs: Vec<EgressOutput>,
    pub request: EgressRequest,
    pub status: EgressStatus,
    /// When it was asked for.
    pub asked_at_ns: u64,
    pub started_at_ns: u64,
    pub ended_at_ns: u64,
    pub updated_at_ns: u64,
    /// Why it failed, was aborted or met a limit; else empty.
    pub error: String,
    pub files: Vec<EgressFile>,
    /// Grows by one with every change, whoever makes it.
    pub version: u32,
}

/// What is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EgressSource {
    /// Everybody. `layout` names how the pictures stand together; empty is the server's choice.
    Room { layout: String, media: EgressMedia },
    /// Whatever this person publishes from camera and microphone, or from their screen.
    Participant { identity: Identity, screen_share: bool },
    /// One of each at most, one at least.
    Tracks { audio: Option<TrackSid>, video: Option<TrackSid> },
    /// As it is, without another encoding.
    Track { track: TrackSid },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EgressMedia {
    Both,
    AudioOnly,
    VideoOnly,
}

/// A file that shall be there at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressOutput {
    pub kind: EgressFileKind,
    /// Relative to the recordings' directory, with `/` between names that can do no harm.
    pub path: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EgressFileKind {
    /// What the tracks are in.
    AsPublished,
    Mp4,
    Ogg,
    Mp3,
}

/// What the client sent: it gets that back with every answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressRequest {
    pub kind: EgressRequestKind,
    /// LiveKit's message of that kind.
    pub message: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EgressRequestKind {
    /// `StartEgressRequest`, which can ask for each of the others.
    Unified,
    RoomComposite,
    Participant,
    TrackComposite,
    Track,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EgressStatus {
    /// No recorder has begun.
    Starting,
    /// What is published is being written.
    Active,
    /// Nothing more is recorded, and its files are not there yet.
    Ending,
    Complete,
    Failed,
    /// Stopped before it began, or given up.
    Aborted,
    LimitReached,
}

impl EgressStatus {
    pub const ALL: [Self; 7] =
        [Self::Starting, Self::Active, Self::Ending, Self::Complete, Self::Failed, Self::Aborted, Self::LimitReached];

    /// Nothing changes any more.
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Starting | Self::Active | Self::Ending)
    }

    /// Whether a change may lead from this one to that: forward alone, and to the same one while it is not over.
    pub fn may_become(self, next: Self) -> bool {
        match (self, next) {
            (Self::Starting, next) => matches!(next, Self::Starting | Self::Active | Self::Failed | Self::Aborted),
            (Self::Active, next) => !matches!(next, Self::Starting | Self::Complete),
            (Self::Ending, next) => !matches!(next, Self::Starting | Self::Active),
            _ => false,
        }
    }
}

/// A file that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressFile {
    /// Relative to the recordings' directory.
    pub path: String,
    pub started_at_ns: u64,
    pub ended_at_ns: u64,
    /// Of what plays, pauses left out.
    pub duration_ns: u64,
    pub bytes: u64,
}
