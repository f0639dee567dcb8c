//! What the nodes of a room say to each other besides changes of its records.

use bytes::Bytes;

use crate::{DataMessage, DataTrackSid, Identity, ParticipantSid, QualityScore, TrackSid};

/// Said once, to every other node that hosts the room. Whoever it does not concern ignores it.
#[derive(Debug, Clone, PartialEq)]
pub enum RoomWord {
    /// To those meant who are elsewhere.
    Data {
        message: DataMessage,
    },
    /// A packet of a stream of data frames, for whoever takes that.
    DataFrame {
        track: DataTrackSid,
        packet: Bytes,
    },
    /// Somebody receives this track now.
    Bound {
        track: TrackSid,
    },
    /// Somebody who receives this track can only decode its backup.
    BackupWanted {
        track: TrackSid,
    },
    /// How well somebody's media gets through.
    Quality {
        who: ParticipantSid,
        quality: QualityScore,
    },
    /// What `owner` keeps under this key. Answered by the node that hosts it.
    GetBlob {
        asker: ParticipantSid,
        request_id: u32,
        owner: Identity,
        key: Bytes,
    },
    Blob {
        asker: ParticipantSid,
        request_id: u32,
        answer: BlobAnswer,
    },
}

/// What came of asking to store a blob or to get one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobAnswer {
    Stored { key: Bytes },
    Found { key: Bytes, contents: Bytes },
    NotFound,
    Duplicate,
    TooLarge,
}
