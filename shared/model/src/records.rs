//! What the store keeps of a room and what it says about changes: one numbered history per room.

use std::sync::Arc;

use crate::{Identity, LeaveReason, NodeId, Participant, ParticipantSid, RoomInfo};

/// One participant as the store keeps it. Its node is the only writer.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub participant: Participant,
    /// Grows with every session of an identity; a change with an older generation is refused.
    pub generation: u64,
    pub node: NodeId,
}

/// Everything the store knows of a room at one point of its history.
#[derive(Debug, Clone, PartialEq)]
pub struct RoomSnapshot {
    /// Random id of this history: another view means another history, and sequence numbers do not compare.
    pub view: u64,
    pub seq: u64,
    pub room: RoomInfo,
    pub records: Vec<Arc<Record>>,
    /// Who left of late. Who is in neither list was lost, and did not leave.
    pub departed: Vec<Departed>,
    /// The last histories of this name that were ended: nothing of them is missing.
    pub ended: Vec<u64>,
}

/// A session that is known to be over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departed {
    pub identity: Identity,
    pub generation: u64,
    pub reason: LeaveReason,
}

/// One change. A replica applies `seq + 1` of its own view and nothing else.
#[derive(Debug, Clone, PartialEq)]
pub struct RoomDelta {
    pub view: u64,
    pub seq: u64,
    pub change: RoomChange,
    /// The span of the join that made the change, as a W3C `traceparent`.
    pub trace: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RoomChange {
    Put(Arc<Record>),
    Removed { identity: Identity, sid: ParticipantSid, generation: u64, reason: LeaveReason },
    Meta(RoomInfo),
    Closed { reason: LeaveReason },
}
