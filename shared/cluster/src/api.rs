//! The two traits. Every change is checked, written, numbered and published by one `Store` call.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use plenary_model::{
    Admin, AdminRefusal, Ban, BanEntry, Egress, EgressId, Identity, LeaveReason, NodeId, NodeInfo, Participant,
    ParticipantSid, Record, RoomInfo, RoomName, RoomSid, RoomSnapshot, RoomWord,
};
use tokio::sync::watch;

use crate::{EgressFilter, EgressLease, Inbox, Leased, OutboxLease, Recorder, StoredEgress, Subscription, Waiting};

/// What is true of a room. The sequence number a change answers with is the room's right after it.
///
/// A call that is repeated because its answer was lost changes nothing and answers the same.
pub trait Store: Send + Sync {
    /// Makes the room or updates its settings; gives back what is stored.
    fn create(&self, room: NewRoom) -> BoxFuture<'_, Result<RoomInfo, StoreError>>;
    /// Seats a participant: bans, cap and duplicate identity are decided here, once. Publishes the record.
    fn join(&self, room: RoomName, seat: Seat) -> BoxFuture<'_, Result<Joined, StoreError>>;
    /// Replaces a record; refused unless sid and generation are the stored ones. A version that is not newer than the
    /// stored one changes nothing. `Full` if the person would be counted from now on and no seat is free.
    fn put(&self, room: RoomName, record: Arc<Record>) -> BoxFuture<'_, Result<u64, StoreError>>;
    /// Compares sid and generation, then deletes. Nothing happens if nobody of that identity is there.
    fn leave(
        &self,
        room: RoomName,
        identity: Identity,
        sid: ParticipantSid,
        generation: u64,
        reason: LeaveReason,
    ) -> BoxFuture<'_, Result<u64, StoreError>>;
    /// Sets metadata, timeouts and cap; the rest of `info` is the store's to say and ignored.
    fn set_meta(&self, room: RoomName, info: RoomInfo) -> BoxFuture<'_, Result<u64, StoreError>>;
    fn snapshot(&self, room: RoomName) -> BoxFuture<'_, Result<RoomSnapshot, StoreError>>;
    /// The named rooms that exist, or all of them if no name is given; by name.
    fn rooms(&self, names: Vec<RoomName>) -> BoxFuture<'_, Result<Vec<RoomInfo>, StoreError>>;
    /// Deletes the room whoever is in it; hosts hear `Closed`.
    fn delete(&self, room: RoomName, reason: LeaveReason) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Deletes the room if nobody but dependents is in it; hosts hear `Closed`. False if somebody was.
    fn delete_if_empty(&self, room: RoomName) -> BoxFuture<'_, Result<bool, StoreError>>;
    /// Keeps the room for another [`ROOM_LIFE`]: whoever hosts it says so again and again.
    fn touch(&self, room: RoomName) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Puts back what the store lost of a room: the room itself, and this node's people of whom it has neither a record
    /// nor a word about their end. Nobody is refused for want of seats. Gives back whose session is over: of a
    /// history that was ended, all that are not in the next one. `NoSuchRoom` if there is no next one.
    fn restore(&self, room: RoomName, lost: Lost) -> BoxFuture<'_, Result<Vec<ParticipantSid>, StoreError>>;
    /// This node lives, for [`LEASE_LIFE`] from now on.
    fn renew(&self, node: NodeInfo) -> BoxFuture<'_, Result<Renewed, StoreError>>;
    /// This node's lease ends now. Whoever of its people is still there is removed.
    fn release(&self, node: NodeId) -> BoxFuture<'_, Result<(), StoreError>>;
    /// The rooms, other than these, in which this node hosts somebody as far as is stored. What went back to an earlier state
    /// may name people who left since, in rooms that the node has forgotten.
    fn strays(&self, node: NodeId, open: Vec<RoomName>) -> BoxFuture<'_, Result<Vec<RoomName>, StoreError>>;
    /// Removes everybody who was hosted by a node whose lease ran out, or was lost and not renewed for [`UNLEASED_PATIENCE`].
    /// Gives back those nodes, if nobody else was at it.
    fn reap(&self) -> BoxFuture<'_, Result<Reaped, StoreError>>;
    /// Keeps somebody out, from the next join on; publishes it, so that every node ends what already runs. Bans are no
    /// part of a room: it need not exist, and they outlive it. Of two revocations the later moment stands.
    fn ban(&self, ban: Ban, now_unix_s: u64) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Ends ban and revocation of a person in a room (`None`: those for every room). False if there was neither.
    fn lift_ban(&self, identity: Identity, room: Option<RoomName>) -> BoxFuture<'_, Result<bool, StoreError>>;
    /// What stands at this moment, and what was lifted before its time; by person and room.
    fn bans(&self, now_unix_s: u64) -> BoxFuture<'_, Result<Vec<BanEntry>, StoreError>>;
    /// Puts back what the store lost of the bans. Of two words about the same the later one stands; news are published. What
    /// there is no place for is left out.
    fn restore_bans(&self, lost: Vec<BanEntry>, now_unix_s: u64) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Leases up to `most` outboxes of a destination in which something is due, the one that waits longest first. What is
    /// put back into the store was told when it happened, and what the store loses of its outboxes is lost.
    fn lease_outboxes(&self, destination: &str, most: usize) -> BoxFuture<'_, Result<Leased, StoreError>>;
    /// Takes the named entry, which is done with, out of the outbox, and gives back the oldest that is left. None if there is
    /// none: the lease is over then. `Superseded` once somebody else has a lease.
    fn next_happening(
        &self,
        lease: OutboxLease,
        done: Option<String>,
    ) -> BoxFuture<'_, Result<Option<Waiting>, StoreError>>;
    /// Ends the lease. The outbox is due again after this time, the named entry being as far as is said here.
    fn put_off(&self, lease: OutboxLease, reached: Reached, after: Duration) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Keeps a recording that somebody asked for and gives it back as it is stored. `NoSuchRoom` unless this life of the room goes
    /// on; it outlives that.
    fn start_egress(&self, egress: Egress) -> BoxFuture<'_, Result<Arc<Egress>, StoreError>>;
    /// Makes somebody the recorder of a recording that is not over, under an epoch above all before. [`EgressRefusal::Held`] while the lease
    /// of another runs.
    fn claim_egress(
        &self,
        room: RoomName,
        id: EgressId,
        by: Recorder,
    ) -> BoxFuture<'_, Result<(EgressLease, Arc<Egress>), StoreError>>;
    /// The lease runs anew. Gives back what is stored: somebody may have stopped it. `Superseded` once there was another claim.
    fn renew_egress(&self, lease: EgressLease) -> BoxFuture<'_, Result<Arc<Egress>, StoreError>>;
    /// Somebody else may go on at once.
    fn release_egress(&self, lease: EgressLease) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Replaces what is stored by its next version: whoever records with the lease, others without. [`EgressRefusal::Changed`] if it is not
    /// the next, [`EgressRefusal::Over`] if the status cannot follow. Shows in the room whether it is recorded, and publishes that.
    fn put_egress(&self, egress: Egress, lease: Option<EgressLease>) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Puts back what the store lost, on behalf of who recorded under the epoch that they know and goes on: their lease runs anew. Nothing
    /// happens if it is there.
    fn restore_egress(&self, egress: Egress, by: Recorder) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Up to `most` recordings that are not over and that nobody has a lease of, the one that waits longest first.
    fn unheld_egresses(&self, most: usize) -> BoxFuture<'_, Result<Vec<StoredEgress>, StoreError>>;
    /// In the order in which they were asked for. Forgotten are those that did not change for [`EGRESS_KEPT`](crate::EGRESS_KEPT).
    fn egresses(&self, filter: EgressFilter) -> BoxFuture<'_, Result<Vec<StoredEgress>, StoreError>>;
    /// Changes whenever this node may have filled an outbox; what others fill is found by looking.
    fn outboxes_filled(&self) -> watch::Receiver<()>;
}

/// How far the oldest entry of an outbox is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    pub entry: String,
    pub told: usize,
    pub tries: u32,
}

/// What is said between nodes, at most once and in order; a lost or skipped message shows as `Resync`.
pub trait Bus: Send + Sync {
    /// Hears every change from here on, of this life of the room and of those to come; the room need not exist.
    fn subscribe(&self, room: RoomName) -> BoxFuture<'_, Result<Subscription, BusError>>;
    /// Hears every change to the bans from here on.
    fn subscribe_bans(&self) -> BoxFuture<'_, Result<Subscription<BanEntry>, BusError>>;
    /// Hears what other nodes than this one say of a room from here on. After a `Resync` some of it is lost.
    fn hear(&self, room: RoomName, node: NodeId) -> BoxFuture<'_, Result<Subscription<RoomWord>, BusError>>;
    /// Says this to the other nodes that hear the room, in this order, at most once each. Words that could not be said may be
    /// said again under the same number: numbers grow with every call of a node. Gives back how many nodes hear the room, this one
    /// included if it does.
    fn say(
        &self,
        room: RoomName,
        node: NodeId,
        number: u64,
        words: Vec<RoomWord>,
    ) -> BoxFuture<'_, Result<u64, BusError>>;
    /// What [`say`](Self::say) would say, for whoever can carry it to the other nodes while the bus cannot. None where there are none.
    fn letter(&self, _room: &RoomName, _node: &NodeId, _number: u64, _words: &[RoomWord]) -> Option<Bytes> {
        None
    }
    /// A letter of another node, for those who [`hear`](Self::hear) here, unless the bus has brought it. Whoever hands it in knows
    /// that it is from a node of this cluster.
    fn read_letter(&self, _letter: &[u8]) {}
    /// Asks the node that hosts somebody.
    fn request(&self, to: NodeId, request: Request) -> BoxFuture<'_, Result<AdminReply, BusError>>;
    /// The requests addressed to this node. At most one receiver at a time: a second one is `Unavailable`.
    fn serve(&self, node: NodeId) -> BoxFuture<'_, Result<Inbox, BusError>>;
}

/// What a node is asked to do in a room.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub room: RoomName,
    pub what: Admin,
    /// The span it is part of, as a W3C `traceparent`.
    pub trace: Option<String>,
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
    /// Used if the room does not exist yet, see [`RoomInfo`].
    pub auto_egress: Bytes,
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
    /// When the token was issued, in Unix seconds: what revocations are compared with. `None`: it does not say.
    pub issued_unix_s: Option<u64>,
    pub now_unix_s: u64,
    /// Makes the room if it does not exist; `None` where only existing rooms may be joined.
    pub create: Option<NewRoom>,
    /// The span it is part of, as a W3C `traceparent`: the room's other hosts hear it with the change.
    pub trace: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Joined {
    /// The record as stored: its generation set, its version above the last one of this identity.
    pub record: Arc<Record>,
    pub replaced: Option<Arc<Record>>,
    /// The room right after the join.
    pub snapshot: RoomSnapshot,
}

/// What a host knows of a room that the store may have lost.
#[derive(Debug, Clone, PartialEq)]
pub struct Lost {
    pub view: u64,
    pub seq: u64,
    pub info: RoomInfo,
    /// Of the host's own people.
    pub records: Vec<Arc<Record>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reaped {
    pub nodes: Vec<NodeId>,
    /// Rooms that this removed the last people from. No node hosts them, so whoever reaped has to see to their end.
    pub deserted: Vec<RoomName>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// Whether the lease still ran. If not, the node's people may have been removed, or the store lost everything.
    pub was_held: bool,
    /// Whose lease runs, this node's too.
    pub nodes: Vec<NodeInfo>,
}

/// How long a lease runs without being renewed.
pub const LEASE_LIFE: Duration = Duration::from_secs(3);

/// Whoever began to remove a dead node's people has this long to finish.
pub(crate) const REAP_PATIENCE: Duration = Duration::from_secs(5);

/// Whoever hosts people without a lease for this long is dead: the lease was lost, so that it could not run out.
pub(crate) const UNLEASED_PATIENCE: Duration = Duration::from_secs(5);

/// How long a room and its people stay without a host that touches them.
pub const ROOM_LIFE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("requested room does not exist")]
    NoSuchRoom,
    #[error("room has exceeded its max participants")]
    Full,
    #[error("participant is banned")]
    Banned,
    #[error("the token has been revoked")]
    Revoked,
    #[error("there are as many bans as there may be")]
    TooManyBans,
    #[error("the record belongs to a newer session")]
    Superseded,
    #[error(transparent)]
    Egress(#[from] EgressRefusal),
    #[error("the store did not answer")]
    Unavailable,
}

/// Why a recording was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EgressRefusal {
    #[error("egress does not exist")]
    NotThere,
    #[error("there are as many recordings as there may be")]
    TooMany,
    #[error("somebody else records")]
    Held,
    #[error("the recording has changed meanwhile")]
    Changed,
    #[error("the recording has gone too far for that")]
    Over,
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
