//! Store and bus of a node alone: the rules of [`rooms`] under one lock, deltas handed over inside it.
//!
//! The lock is held for a few map operations and never across an await.

mod egresses;
mod outboxes;
mod rooms;
#[cfg(feature = "simulation")]
mod simulation;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::future::BoxFuture;
use plenary_model::{
    Ban, BanEntry, Egress, EgressId, Identity, LeaveReason, NodeId, NodeInfo, ParticipantSid, Record, RoomDelta,
    RoomInfo, RoomName, RoomSnapshot, RoomWord,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use crate::{
    AdminReply, Ask, Bans, Barred, Bus, BusError, EgressFilter, EgressLease, Inbox, Joined, LEASE_LIFE, Leased, Lost,
    NewRoom, OutboxLease, REAP_PATIENCE, Reached, Reaped, Recorder, Renewed, Request, Seat, Store, StoreError,
    StoredEgress, Subscription, UNLEASED_PATIENCE, Waiting,
    receive::{Subscriber, Untold},
};
use egresses::Egresses;
use outboxes::Outboxes;
use rooms::Rooms;
#[cfg(feature = "simulation")]
pub use simulation::Stored;

/// Everything in this process's memory, gone with it.
#[derive(Debug, Default)]
pub struct InProcess {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rooms: Rooms,
    audience: Audience,
    bans: Bans,
    bans_audience: Vec<Subscriber<BanEntry>>,
    nodes: HashMap<NodeId, mpsc::Sender<Ask>>,
    /// Who hears what the others say of a room.
    hearers: HashMap<RoomName, Vec<(NodeId, Subscriber<RoomWord>)>>,
    leases: Leases,
    egresses: Egresses,
    outboxes: Outboxes,
}

/// Which nodes live. Without a clock they do for as long as this process.
#[derive(Debug, Clone, Default)]
struct Leases {
    /// With the end of the lease.
    held: BTreeMap<NodeId, (NodeInfo, u64)>,
    /// Of those who died: since when somebody removes their people.
    dying: BTreeMap<NodeId, u64>,
    /// Of those who host somebody: when they were last seen to hold a lease.
    seated: BTreeMap<NodeId, u64>,
    now_ms: Option<u64>,
}

/// Who hears of a room's changes. Outlives the room: a name may be used again.
#[derive(Debug, Default)]
struct Audience {
    subscribers: HashMap<RoomName, Vec<Subscriber>>,
    /// At how many names those without a listener are swept out.
    sweep_at: usize,
}

impl InProcess {
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps what happens for these, who take it out of the outboxes of their name.
    pub fn telling(destinations: impl IntoIterator<Item = String>) -> Self {
        let outboxes = Outboxes::new(destinations);
        let state = State { rooms: Rooms::telling(), outboxes, ..State::default() };
        Self { state: Mutex::new(state) }
    }

    /// A panic elsewhere cannot leave a half-made change behind: every rule checks first and then writes.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One store call: its changes are published before anybody else can make another.
    fn change<T>(
        &self,
        room: &RoomName,
        call: impl FnOnce(&mut Rooms) -> Result<(T, Option<RoomDelta>), StoreError>,
    ) -> Result<T, StoreError> {
        self.state().change(room, call)
    }
}

impl State {
    fn change<T>(
        &mut self,
        room: &RoomName,
        call: impl FnOnce(&mut Rooms) -> Result<(T, Option<RoomDelta>), StoreError>,
    ) -> Result<T, StoreError> {
        let answer = call(&mut self.rooms);
        // What was refused may have made the room all the same.
        self.fill_outboxes();
        let (answer, delta) = answer?;
        if let Some(delta) = delta {
            self.audience.tell(room, &Arc::new(delta));
        }
        Ok(answer)
    }

    fn fill_outboxes(&mut self) {
        for happening in self.rooms.take_happenings() {
            let now_ms = self.now_ms();
            self.outboxes.add(happening, now_ms);
        }
    }

    fn now_ms(&self) -> u64 {
        let unix_ms = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        self.leases.now_ms.unwrap_or_else(|| u64::try_from(unix_ms()).unwrap_or(u64::MAX))
    }

    /// The rooms that nobody is left in.
    fn remove_people_of(&mut self, node: &NodeId, reason: LeaveReason) -> BTreeSet<RoomName> {
        let mut touched = BTreeSet::new();
        for (room, delta) in self.rooms.remove_people_of(node, reason) {
            self.audience.tell(&room, &Arc::new(delta));
            touched.insert(room);
        }
        self.fill_outboxes();
        touched.retain(|room| self.rooms.snapshot(room).is_ok_and(|room| room.records.is_empty()));
        touched
    }

    /// A recording changed: host apps are told, and those in the room if it shows there.
    fn tell_of_egress(&mut self, egress: &Arc<Egress>) {
        self.rooms.tell_of_egress(egress);
        self.show_egress(&egress.room);
        self.fill_outboxes();
    }

    fn show_egress(&mut self, room: &RoomName) {
        let is_active = self.rooms.sid(room).is_some_and(|sid| self.egresses.is_active(room, sid));
        if let Some(delta) = self.rooms.show_egress(room, is_active) {
            self.audience.tell(room, &Arc::new(delta));
        }
    }

    fn tell_of_ban(&mut self, entry: BanEntry) {
        let entry = Arc::new(entry);
        self.bans_audience.retain(|subscriber| subscriber.tell(&entry) != Err(Untold::Gone));
    }
}

impl Store for InProcess {
    fn create(&self, room: NewRoom) -> BoxFuture<'_, Result<RoomInfo, StoreError>> {
        Box::pin(async move { self.change(&room.name.clone(), |rooms| rooms.create(room)) })
    }

    fn join(&self, room: RoomName, seat: Seat) -> BoxFuture<'_, Result<Joined, StoreError>> {
        Box::pin(async move {
            let state = &mut *self.state();
            match state.bans.verdict(&seat.participant.identity, Some(&room), seat.issued_unix_s, seat.now_unix_s) {
                Some(Barred::Banned) => return Err(StoreError::Banned),
                Some(Barred::Revoked) => return Err(StoreError::Revoked),
                None => {}
            }
            let node = seat.node.clone();
            let joined = state.change(&room, |rooms| rooms.join(&room, seat))?;
            state.leases.seats(node);
            Ok(joined)
        })
    }

    fn put(&self, room: RoomName, record: Arc<Record>) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move { self.change(&room, |rooms| rooms.put(&room, record)) })
    }

    fn leave(
        &self,
        room: RoomName,
        identity: Identity,
        sid: ParticipantSid,
        generation: u64,
        reason: LeaveReason,
    ) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move { self.change(&room, |rooms| rooms.leave(&room, identity, &sid, generation, reason)) })
    }

    fn set_meta(&self, room: RoomName, info: RoomInfo) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move { self.change(&room, |rooms| rooms.set_meta(&room, info)) })
    }

    fn snapshot(&self, room: RoomName) -> BoxFuture<'_, Result<RoomSnapshot, StoreError>> {
        Box::pin(async move { self.state().rooms.snapshot(&room) })
    }

    fn rooms(&self, names: Vec<RoomName>) -> BoxFuture<'_, Result<Vec<RoomInfo>, StoreError>> {
        Box::pin(async move { Ok(self.state().rooms.list(&names)) })
    }

    fn delete(&self, room: RoomName, reason: LeaveReason) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.change(&room, |rooms| rooms.delete(&room, reason)) })
    }

    fn delete_if_empty(&self, room: RoomName) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move { self.change(&room, |rooms| rooms.delete_if_empty(&room)) })
    }

    fn touch(&self, room: RoomName) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.state().rooms.touch(&room) })
    }

    fn restore(&self, room: RoomName, lost: Lost) -> BoxFuture<'_, Result<Vec<ParticipantSid>, StoreError>> {
        Box::pin(async move {
            let state = &mut *self.state();
            let node = lost.records.first().map(|record| record.node.clone());
            let (over, deltas) = state.rooms.restore(&room, lost)?;
            node.into_iter().for_each(|node| state.leases.seats(node));
            for delta in deltas {
                state.audience.tell(&room, &Arc::new(delta));
            }
            Ok(over)
        })
    }

    fn renew(&self, node: NodeInfo) -> BoxFuture<'_, Result<Renewed, StoreError>> {
        Box::pin(async move { Ok(self.state().leases.renew(node)) })
    }

    fn release(&self, node: NodeId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let state = &mut *self.state();
            state.leases.held.remove(&node);
            state.leases.seated.remove(&node);
            state.remove_people_of(&node, LeaveReason::ServerShutdown);
            Ok(())
        })
    }

    fn strays(&self, node: NodeId, open: Vec<RoomName>) -> BoxFuture<'_, Result<Vec<RoomName>, StoreError>> {
        Box::pin(async move {
            let mut rooms = self.state().rooms.hosted_by(&node);
            rooms.retain(|room| !open.contains(room));
            Ok(rooms)
        })
    }

    fn reap(&self) -> BoxFuture<'_, Result<Reaped, StoreError>> {
        Box::pin(async move {
            let state = &mut *self.state();
            let dead = state.leases.expired();
            let mut deserted = Vec::new();
            for node in &dead {
                deserted.extend(state.remove_people_of(node, LeaveReason::ConnectionTimeout));
                state.leases.dying.remove(node);
                state.leases.seated.remove(node);
            }
            Ok(Reaped { nodes: dead, deserted })
        })
    }

    fn ban(&self, ban: Ban, now_unix_s: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let state = &mut *self.state();
            let now_ms = state.leases.now_ms.unwrap_or_default();
            let entry = state.bans.set(ban, now_unix_s, now_ms)?;
            state.tell_of_ban(entry);
            Ok(())
        })
    }

    fn lift_ban(&self, identity: Identity, room: Option<RoomName>) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let state = &mut *self.state();
            let now_ms = state.leases.now_ms.unwrap_or_default();
            let entry = state.bans.lift(&identity, &room, now_ms);
            let lifted = entry.is_some();
            entry.into_iter().for_each(|entry| state.tell_of_ban(entry));
            Ok(lifted)
        })
    }

    fn bans(&self, now_unix_s: u64) -> BoxFuture<'_, Result<Vec<BanEntry>, StoreError>> {
        Box::pin(async move { Ok(self.state().bans.entries(now_unix_s)) })
    }

    fn restore_bans(&self, lost: Vec<BanEntry>, now_unix_s: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let state = &mut *self.state();
            for entry in lost {
                if state.bans.apply(&entry, now_unix_s) {
                    state.tell_of_ban(entry);
                }
            }
            Ok(())
        })
    }

    fn lease_outboxes(&self, destination: &str, most: usize) -> BoxFuture<'_, Result<Leased, StoreError>> {
        let destination = destination.to_owned();
        Box::pin(async move {
            let state = &mut *self.state();
            let now_ms = state.now_ms();
            Ok(state.outboxes.lease(&destination, most, now_ms))
        })
    }

    fn next_happening(
        &self,
        lease: OutboxLease,
        done: Option<String>,
    ) -> BoxFuture<'_, Result<Option<Waiting>, StoreError>> {
        Box::pin(async move {
            let state = &mut *self.state();
            let now_ms = state.now_ms();
            state.outboxes.next(&lease, done.as_deref(), now_ms)
        })
    }

    fn put_off(&self, lease: OutboxLease, reached: Reached, after: Duration) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let state = &mut *self.state();
            let now_ms = state.now_ms();
            state.outboxes.put_off(&lease, reached, after, now_ms)
        })
    }

    fn start_egress(&self, egress: Egress) -> BoxFuture<'_, Result<Arc<Egress>, StoreError>> {
        Box::pin(async move {
            let state = &mut *self.state();
            if let Some(same) = state.egresses.get(&egress.id) {
                return Ok(same);
            }
            if state.rooms.sid(&egress.room) != Some(&egress.room_sid) {
                return Err(StoreError::NoSuchRoom);
            }
            let (egress, now_ms) = (Arc::new(egress), state.now_ms());
            state.egresses.add(egress.clone(), None, now_ms)?;
            state.tell_of_egress(&egress);
            Ok(egress)
        })
    }

    fn claim_egress(
        &self,
        room: RoomName,
        id: EgressId,
        by: Recorder,
    ) -> BoxFuture<'_, Result<(EgressLease, Arc<Egress>), StoreError>> {
        Box::pin(async move {
            let state = &mut *self.state();
            let now_ms = state.now_ms();
            state.egresses.claim(&room, &id, by, now_ms)
        })
    }

    fn renew_egress(&self, lease: EgressLease) -> BoxFuture<'_, Result<Arc<Egress>, StoreError>> {
        Box::pin(async move {
            let state = &mut *self.state();
            let now_ms = state.now_ms();
            state.egresses.renew(&lease, now_ms)
        })
    }

    fn release_egress(&self, lease: EgressLease) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.state().egresses.release(&lease) })
    }

    fn put_egress(&self, egress: Egress, lease: Option<EgressLease>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let state = &mut *self.state();
            let (egress, now_ms) = (Arc::new(egress), state.now_ms());
            if state.egresses.put(egress.clone(), lease.as_ref(), now_ms)? {
                state.tell_of_egress(&egress);
            }
            Ok(())
        })
    }

    fn restore_egress(&self, egress: Egress, by: Recorder) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let state = &mut *self.state();
            if state.egresses.get(&egress.id).is_none() {
                let (room, now_ms) = (egress.room.clone(), state.now_ms());
                state.egresses.add(Arc::new(egress), Some(by), now_ms)?;
                state.show_egress(&room);
            }
            Ok(())
        })
    }

    fn unheld_egresses(&self, most: usize) -> BoxFuture<'_, Result<Vec<StoredEgress>, StoreError>> {
        Box::pin(async move {
            let state = &*self.state();
            Ok(state.egresses.unheld(most, state.now_ms()))
        })
    }

    fn egresses(&self, filter: EgressFilter) -> BoxFuture<'_, Result<Vec<StoredEgress>, StoreError>> {
        Box::pin(async move {
            let state = &*self.state();
            let mut all = state.egresses.list(&filter, state.now_ms());
            all.sort_by_key(|one| one.egress.asked_at_ns);
            Ok(all)
        })
    }

    fn outboxes_filled(&self) -> watch::Receiver<()> {
        self.state().outboxes.filled()
    }
}

impl Bus for InProcess {
    fn subscribe(&self, room: RoomName) -> BoxFuture<'_, Result<Subscription, BusError>> {
        Box::pin(async move { self.state().audience.add(room) })
    }

    fn subscribe_bans(&self) -> BoxFuture<'_, Result<Subscription<BanEntry>, BusError>> {
        Box::pin(async move {
            let audience = &mut self.state().bans_audience;
            audience.retain(Subscriber::listens);
            if audience.len() >= SUBSCRIBERS_MAX {
                return Err(BusError::Unavailable);
            }
            let (subscriber, subscription) = Subscriber::pair();
            audience.push(subscriber);
            Ok(subscription)
        })
    }

    fn hear(&self, room: RoomName, node: NodeId) -> BoxFuture<'_, Result<Subscription<RoomWord>, BusError>> {
        Box::pin(async move {
            let hearers = &mut self.state().hearers;
            hearers.retain(|_, of_room| of_room.iter().any(|(_, subscriber)| subscriber.listens()));
            let of_room = hearers.entry(room).or_default();
            of_room.retain(|(_, subscriber)| subscriber.listens());
            if of_room.len() >= SUBSCRIBERS_MAX {
                return Err(BusError::Unavailable);
            }
            let (subscriber, subscription) = Subscriber::pair();
            of_room.push((node, subscriber));
            Ok(subscription)
        })
    }

    /// Nothing is ever repeated here: what is said is heard.
    fn say(&self, room: RoomName, node: NodeId, _: u64, words: Vec<RoomWord>) -> BoxFuture<'_, Result<u64, BusError>> {
        Box::pin(async move {
            let state = self.state();
            let of_room = state.hearers.get(&room).map(Vec::as_slice).unwrap_or_default();
            for word in words.into_iter().map(Arc::new) {
                for (_, other) in of_room.iter().filter(|(hearer, _)| *hearer != node) {
                    // Whoever left is forgotten when the next one listens.
                    let _ = other.tell(&word);
                }
            }
            Ok(of_room.iter().filter(|(_, hearer)| hearer.listens()).count().try_into().unwrap_or(u64::MAX))
        })
    }

    fn request(&self, to: NodeId, request: Request) -> BoxFuture<'_, Result<AdminReply, BusError>> {
        Box::pin(async move {
            let inbox = self.state().nodes.get(&to).cloned().ok_or(BusError::NoSuchNode)?;
            let (reply, answer) = oneshot::channel();
            inbox.try_send((request, reply)).map_err(|refused| match refused {
                mpsc::error::TrySendError::Full(_) => BusError::Unavailable,
                mpsc::error::TrySendError::Closed(_) => BusError::NoSuchNode,
            })?;
            match timeout(REQUEST_TIMEOUT, answer).await {
                Ok(answered) => answered.map_err(|_| BusError::Unavailable),
                Err(_) => Err(BusError::Timeout),
            }
        })
    }

    fn serve(&self, node: NodeId) -> BoxFuture<'_, Result<Inbox, BusError>> {
        Box::pin(async move {
            let nodes = &mut self.state().nodes;
            nodes.retain(|_, inbox| !inbox.is_closed());
            if nodes.contains_key(&node) || nodes.len() >= NODES_MAX {
                return Err(BusError::Unavailable);
            }
            let (sender, inbox) = Inbox::pair();
            nodes.insert(node, sender);
            Ok(inbox)
        })
    }
}

impl Leases {
    fn renew(&mut self, info: NodeInfo) -> Renewed {
        let life_ms = u64::try_from(LEASE_LIFE.as_millis()).unwrap_or(u64::MAX);
        let until_ms = self.now_ms.map_or(u64::MAX, |now_ms| now_ms.saturating_add(life_ms));
        let latest_ms = self.held.values().map(|(_, until_ms)| *until_ms).max();
        if latest_ms.is_some_and(|latest_ms| until_ms.saturating_sub(life_ms / 2) > latest_ms) {
            // As in `renew.lua`: nobody renewed for half a life, so the store was away.
            self.held.values_mut().for_each(|(_, other_ms)| *other_ms = until_ms);
        }
        let was_held = self.held.insert(info.node.clone(), (info, until_ms)).is_some();
        let now_ms = self.now_ms.unwrap_or_default();
        let live = self.held.values().filter(|(_, until_ms)| *until_ms >= now_ms);
        Renewed { was_held, nodes: live.map(|(info, _)| info.clone()).collect() }
    }

    /// The node hosts somebody from now on.
    fn seats(&mut self, node: NodeId) {
        if let Some(now_ms) = self.now_ms {
            self.seated.entry(node).or_insert(now_ms);
        }
    }

    /// Whose lease ran out or was lost, and who did not get removed by whoever began to.
    fn expired(&mut self) -> Vec<NodeId> {
        let Some(now_ms) = self.now_ms else { return Vec::new() };
        let [patience_ms, unleased_ms] =
            [REAP_PATIENCE, UNLEASED_PATIENCE].map(|patience| u64::try_from(patience.as_millis()).unwrap_or(u64::MAX));
        let late = self.dying.iter().filter(|(_, since_ms)| since_ms.saturating_add(patience_ms) <= now_ms);
        let mut dead: Vec<_> = late.map(|(node, _)| node.clone()).collect();
        let expired = self.held.extract_if(.., |_, (_, until_ms)| *until_ms < now_ms);
        dead.extend(expired.map(|(node, _)| node));
        self.dying.extend(dead.iter().map(|node| (node.clone(), now_ms)));
        for (_, seen_ms) in self.seated.iter_mut().filter(|(node, _)| self.held.contains_key(*node)) {
            *seen_ms = now_ms;
        }
        let unleased = self.seated.extract_if(.., |_, seen_ms| seen_ms.saturating_add(unleased_ms) <= now_ms);
        dead.extend(unleased.map(|(node, _)| node));
        dead.sort_unstable();
        dead.dedup();
        dead
    }
}

impl Audience {
    fn add(&mut self, room: RoomName) -> Result<Subscription, BusError> {
        if self.subscribers.len() >= self.sweep_at {
            self.subscribers.retain(|_, all| all.iter().any(Subscriber::listens));
            self.sweep_at = self.subscribers.len().saturating_mul(2).max(SWEEP_AT_LEAST);
        }
        let all = self.subscribers.entry(room).or_default();
        all.retain(Subscriber::listens);
        if all.len() >= SUBSCRIBERS_MAX {
            return Err(BusError::Unavailable);
        }
        let (subscriber, subscription) = Subscriber::pair();
        all.push(subscriber);
        Ok(subscription)
    }

    fn tell(&mut self, room: &RoomName, delta: &Arc<RoomDelta>) {
        if let Some(all) = self.subscribers.get_mut(room) {
            all.retain(|subscriber| subscriber.tell(delta) != Err(Untold::Gone));
            if all.is_empty() {
                self.subscribers.remove(room);
            }
        }
    }
}

/// How long a node may think about a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Inboxes in one process; more are refused as unavailable.
const NODES_MAX: usize = 64;

/// Subscriptions to one room, or to the bans; more are refused as unavailable.
const SUBSCRIBERS_MAX: usize = 64;

/// Names in the audience below which looking for dead ones is not worth it.
const SWEEP_AT_LEAST: usize = 64;
