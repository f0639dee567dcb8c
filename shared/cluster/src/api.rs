//! The two traits. Every change is checked, written, numbered and published by one `Store` call.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use plenary_model::{
    Admin, AdminRefusal, Identity, LeaveReason, NodeId, Participant, ParticipantSid, Record, RoomDelta, RoomInfo,
    RoomName, RoomSid, RoomSnapshot,
};

/// What is true of a room.
pub trait Store: Send + Sync {
    /// Makes the room or updates its settings; gives back what is stored.
    fn create(&self, room: NewRoom) -> BoxFuture<'_, Result<RoomInfo, StoreError>>;
    /// Seats a participant: cap and duplicate identity are decided here, once. Publishes the record.
    fn join(&self, room: RoomName, seat: Seat) -> BoxFuture<'_, Result<Joined, StoreError>>;
    /// Replaces a record; refused unless sid and generation are the stored ones.
    fn put(&self, room: RoomName, record: Arc<Record>) -> BoxFuture<'_, Result<u64, StoreError>>;
    /// Compares sid and generation, then deletes.
    fn leave(
        &self,
        room: RoomName,
        identity: Identity,
        sid: ParticipantSid,
        generation: u64,
        reason: LeaveReason,
    ) -> BoxFuture<'_, Result<u64, StoreError>>;
    fn set_meta(&self, room: RoomName, info: RoomInfo) -> BoxFuture<'_, Result<u64, StoreError>>;
    fn snapshot(&self, room: RoomName) -> BoxFuture<'_, Result<RoomSnapshot, StoreError>>;
    fn rooms(&self, names: Vec<RoomName>) -> BoxFuture<'_, Result<Vec<RoomInfo>, StoreError>>;
    /// Deletes the room whoever is in it; hosts hear `Closed`.
    fn delete(&self, room: RoomName, reason: LeaveReason) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Deletes the room if nobody is in it. False if somebody was.
    fn delete_if_empty(&self, room: RoomName) -> BoxFuture<'_, Result<bool, StoreError>>;
}

/// What is said between nodes, at most once and in order; a lost or skipped message shows as `Resync`.
pub trait Bus: Send + Sync {
    fn subscribe(&self, room: RoomName) -> BoxFuture<'_, Result<Subscription, BusError>>;
    /// Asks the node that hosts somebody.
    fn request(&self, to: NodeId, room: RoomName, ask: Admin) -> BoxFuture<'_, Result<AdminReply, BusError>>;
    /// The requests addressed to this node. At most one receiver at a time.
    fn serve(&self, node: NodeId) -> BoxFuture<'_, Result<Inbox, BusError>>;
}

pub type AdminReply = Result<Option<Arc<Participant>>, AdminRefusal>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRoom {
    pub name: RoomName,
    /// Used if the room does not exist yet.
    pub sid: RoomSid,
    pub view: u64,
    pub now_unix_ms: u64,
    pub metadata: Option<String>,
    pub empty_timeout_s: Option<u32>,
    pub departure_timeout_s: Option<u32>,
    pub max_participants: Option<u32>,
    pub defaults: RoomDefaults,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomDefaults {
    pub empty_timeout_s: u32,
    pub departure_timeout_s: u32,
    pub max_participants: u32,
}

/// A wish to sit in a room.
#[derive(Debug, Clone, PartialEq)]
pub struct Seat {
    pub participant: Participant,
    pub node: NodeId,
    /// Makes the room if it does not exist; `None` where only existing rooms may be joined.
    pub create: Option<NewRoom>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Joined {
    /// The record as stored: its generation set, its version above the replaced session's.
    pub record: Arc<Record>,
    pub replaced: Option<Arc<Record>>,
    /// The room right after the join.
    pub snapshot: RoomSnapshot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("requested room does not exist")]
    NoSuchRoom,
    #[error("room has exceeded its max participants")]
    Full,
    #[error("the record belongs to a newer session")]
    Superseded,
    #[error("the store did not answer")]
    Unavailable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    #[error("no such node")]
    NoSuchNode,
    #[error("the node did not answer in time")]
    Timeout,
    #[error("the bus is not available")]
    Unavailable,
}

/// What a subscriber of a room hears.
#[derive(Debug, Clone, PartialEq)]
pub enum RoomEvent {
    Delta(Arc<RoomDelta>),
    /// Something was missed: read the snapshot again.
    Resync,
}

/// A room's deltas, in order.
#[derive(Debug)]
pub struct Subscription {
    pub(crate) events: tokio::sync::mpsc::Receiver<RoomEvent>,
    pub(crate) missed: Arc<std::sync::atomic::AtomicBool>,
}

/// Requests to this node with a place for each reply.
#[derive(Debug)]
pub struct Inbox {
    pub(crate) requests: tokio::sync::mpsc::Receiver<(RoomName, Admin, tokio::sync::oneshot::Sender<AdminReply>)>,
}
