//! A room as its members see it.

use bytes::Bytes;

use crate::{RoomName, RoomSid};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomInfo {
    pub sid: RoomSid,
    pub name: RoomName,
    pub created_at_ms: u64,
    pub metadata: String,
    /// How long a room that nobody has joined yet stays.
    pub empty_timeout_s: u32,
    /// How long a room stays after the last person left.
    pub departure_timeout_s: u32,
    /// 0 means no limit.
    pub max_participants: u32,
    /// Without dependents (agents, recorders) and hidden people.
    pub participants: u32,
    pub publishers: u32,
    /// Somebody in it records, or a recording of it is active.
    pub active_recording: bool,
    /// A recording of it is active.
    pub has_active_egress: bool,
    /// What it records by itself, in the words of who made it; empty if nothing. Fixed when it is made.
    pub auto_egress: Bytes,
}
