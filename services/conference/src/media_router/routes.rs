//! Who hears what a router's core says: sessions their peers' events, rooms the levels of their people.
//!
//! Recipients are weak, so that a router keeps no session and no room alive. A weak recipient has a free slot in every
//! mailbox, which would make a mailbox unbounded; so the events that a session has not handled yet are counted here.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use actix::{
    WeakRecipient,
    prelude::{Message, Recipient},
};
use plenary_media_core::{Command, Event, PeerEnd, TrackLevel};
use plenary_model::{Channel, ParticipantSid, PeerId, TrackSid};

use super::{
    RouterIndex,
    counters::{IoCounters, IoLoss},
};
use crate::{
    events::{LinkDown, LinkUp, RouterReached},
    letters::Letters,
    reach::Reach,
};

/// What happened to a peer. To its session, in order. When the session does not keep up, lossy data is dropped, and
/// anything else closes the peer as [`PeerEnd::SlowReceiver`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct FromRouter {
    pub event: Event,
    _ticket: Option<Ticket>,
}

impl From<Event> for FromRouter {
    fn from(event: Event) -> Self {
        Self { event, _ticket: None }
    }
}

/// Loudness of those of a room who are on this router. To the room. Dropped when it does not keep up: the next window
/// says it again.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct RouterLevels {
    /// Who says so: the room may have people on several.
    pub router: RouterIndex,
    pub levels: Vec<TrackLevel>,
    _ticket: Option<Ticket>,
}

/// Counts a message that its receiver has not handled yet.
#[derive(Debug)]
struct Ticket(Arc<AtomicU32>);

impl Ticket {
    fn take(pending: &Arc<AtomicU32>) -> Self {
        pending.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(pending))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The listeners of one router.
#[derive(Debug)]
pub(super) struct Routes {
    router: RouterIndex,
    peers: HashMap<PeerId, Route>,
    rooms: HashMap<ParticipantSid, RoomRoute>,
    /// People of other routers: who of ours wants their tracks, so that their rooms hear how loud they are.
    elsewhere: HashMap<ParticipantSid, RoomRoute>,
    /// Tracks that are recorded here: their room may have nobody on this router.
    recorded: HashMap<TrackSid, RoomRoute>,
    reach: Arc<Reach>,
    letters: Arc<Letters>,
    counters: Arc<IoCounters>,
}

#[derive(Debug)]
struct Route {
    participant: ParticipantSid,
    events: WeakRecipient<FromRouter>,
    pending: Arc<AtomicU32>,
    /// Of people on other routers.
    wants: BTreeSet<ParticipantSid>,
}

/// By participant, because levels name participants; as many as there are participants with peers, and recorded tracks.
#[derive(Debug)]
struct RoomRoute {
    levels: WeakRecipient<RouterLevels>,
    pending: Arc<AtomicU32>,
    peers: u32,
}

impl Routes {
    pub fn new(router: RouterIndex, cluster: (Arc<Reach>, Arc<Letters>), counters: Arc<IoCounters>) -> Self {
        let (reach, letters) = cluster;
        reach.begin_anew(router);
        Self {
            router,
            peers: HashMap::new(),
            rooms: HashMap::new(),
            elsewhere: HashMap::new(),
            recorded: HashMap::new(),
            reach,
            letters,
            counters,
        }
    }

    /// Whether there was room for the peer. If not, its session is told that it closed.
    pub fn open(
        &mut self,
        peer: PeerId,
        participant: ParticipantSid,
        events: WeakRecipient<FromRouter>,
        levels: WeakRecipient<RouterLevels>,
    ) -> bool {
        if self.peers.len() >= PEERS_MAX || self.peers.contains_key(&peer) {
            self.counters.lose(IoLoss::TooManyPeers);
            if let Some(events) = living(&events) {
                events.do_send(Event::Closed { peer, why: PeerEnd::Fault }.into());
            }
            return false;
        }
        let room = self.rooms.entry(participant.clone()).or_insert_with(|| RoomRoute {
            levels: levels.clone(),
            pending: Arc::default(),
            peers: 0,
        });
        room.levels = levels;
        room.peers += 1;
        self.peers.insert(peer, Route { participant, events, pending: Arc::default(), wants: BTreeSet::new() });
        true
    }

    /// Whose tracks of other routers a peer wants from now on.
    pub fn want(&mut self, peer: PeerId, publishers: BTreeSet<ParticipantSid>) {
        let Some(route) = self.peers.get_mut(&peer) else { return };
        let Some(room) = self.rooms.get(&route.participant) else { return };
        let before = std::mem::replace(&mut route.wants, publishers);
        for publisher in route.wants.difference(&before) {
            let levels = || RoomRoute { levels: room.levels.clone(), pending: room.pending.clone(), peers: 0 };
            self.elsewhere.entry(publisher.clone()).or_insert_with(levels).peers += 1;
        }
        for publisher in before.difference(&route.wants) {
            release(&mut self.elsewhere, publisher);
        }
    }

    /// The room of a track that is recorded here, from now on.
    pub fn record(&mut self, track: TrackSid, levels: WeakRecipient<RouterLevels>) {
        self.recorded.insert(track, RoomRoute { levels, pending: Arc::default(), peers: 0 });
    }

    pub fn stop_record(&mut self, track: &TrackSid) {
        self.recorded.remove(track);
    }

    /// Sends an event to whom it concerns. A peer whose session is gone or does not keep up is to be closed.
    pub fn dispatch(&mut self, event: Event) -> Option<Command> {
        let Some(peer) = peer_of(&event) else {
            match event {
                Event::Levels { levels } => self.dispatch_levels(levels),
                Event::LinkUp { router } => LinkUp { router: &router }.emit(),
                Event::LinkDown { router, why } => {
                    LinkDown { router: &router, why }.emit();
                    self.reach.parts(router, why);
                }
                Event::LetterCame { letter } => self.letters.came(&letter),
                Event::LetterTold { number } => self.letters.told(number),
                Event::NeighbourReachesStore { router, reaches } => self.reach.hear(Instant::now(), router, reaches),
                Event::RouterReached { router, is_reached } => {
                    RouterReached { router: &router, is_reached }.emit();
                    self.reach.reaches(Instant::now(), self.router, router, is_reached);
                }
                _ => {}
            }
            return None;
        };
        let Some(route) = self.peers.get(&peer) else {
            self.counters.lose(IoLoss::EventUnrouted);
            return None;
        };
        let Some(events) = living(&route.events) else {
            self.close(peer);
            return Some(Command::Close { peer });
        };
        let closed = matches!(event, Event::Closed { .. });
        if !closed && route.pending.load(Ordering::Relaxed) >= EVENTS_PENDING_MAX {
            if matches!(event, Event::Data { channel: Channel::Lossy | Channel::DataTrack, .. }) {
                self.counters.lose(IoLoss::LossyDataDropped);
                return None;
            }
            // A hole in what the session was told cannot be mended.
            self.counters.lose(IoLoss::EventsOverrun);
            events.do_send(Event::Closed { peer, why: PeerEnd::SlowReceiver }.into());
            self.close(peer);
            return Some(Command::Close { peer });
        }
        events.do_send(FromRouter { event, _ticket: Some(Ticket::take(&route.pending)) });
        if closed {
            self.close(peer);
        }
        None
    }

    fn close(&mut self, peer: PeerId) {
        let Some(route) = self.peers.remove(&peer) else { return };
        release(&mut self.rooms, &route.participant);
        for publisher in &route.wants {
            release(&mut self.elsewhere, publisher);
        }
    }

    /// One message per room.
    fn dispatch_levels(&mut self, levels: Vec<TrackLevel>) {
        let mut by_room: HashMap<Recipient<RouterLevels>, (Ticket, Vec<TrackLevel>)> = HashMap::new();
        for level in levels {
            let of_people = [&self.rooms, &self.elsewhere].into_iter().filter_map(|of| of.get(&level.participant));
            let mut rooms = of_people.chain(self.recorded.get(&level.track));
            // Where a room's actor was lost, its recorder may know the next one before people do.
            let Some((room, recipient)) = rooms.find_map(|room| Some((room, living(&room.levels)?))) else { continue };
            match by_room.entry(recipient) {
                std::collections::hash_map::Entry::Occupied(mut entry) => entry.get_mut().1.push(level),
                std::collections::hash_map::Entry::Vacant(entry) => {
                    if room.pending.load(Ordering::Relaxed) >= LEVELS_PENDING_MAX {
                        self.counters.lose(IoLoss::LevelsDropped);
                        continue;
                    }
                    entry.insert((Ticket::take(&room.pending), vec![level]));
                }
            }
        }
        for (room, (ticket, levels)) in by_room {
            room.do_send(RouterLevels { router: self.router, levels, _ticket: Some(ticket) });
        }
    }
}

fn release(rooms: &mut HashMap<ParticipantSid, RoomRoute>, who: &ParticipantSid) {
    if let Some(room) = rooms.get_mut(who) {
        room.peers = room.peers.saturating_sub(1);
        if room.peers == 0 {
            rooms.remove(who);
        }
    }
}

/// Upgrading alone is not enough: it succeeds for an actor that has stopped while anybody keeps its address.
fn living<M: Message<Result = ()> + Send + 'static>(weak: &WeakRecipient<M>) -> Option<Recipient<M>> {
    weak.upgrade().filter(Recipient::connected)
}

/// `None` for what concerns no single peer.
fn peer_of(event: &Event) -> Option<PeerId> {
    match event {
        Event::Answered { peer, .. }
        | Event::Offered { peer, .. }
        | Event::Accepted { peer }
        | Event::Refused { peer, .. }
        | Event::OfferNeeded { peer }
        | Event::IceConnected { peer }
        | Event::Connected { peer }
        | Event::ChannelOpen { peer, .. }
        | Event::Data { peer, .. }
        | Event::FirstPacketIn { peer, .. }
        | Event::FirstPacketOut { peer, .. }
        | Event::Undecodable { peer, .. }
        | Event::Paused { peer, .. }
        | Event::Demand { peer, .. }
        | Event::Quality { peer, .. }
        | Event::Closed { peer, .. } => Some(*peer),
        Event::Levels { .. }
        | Event::LinkUp { .. }
        | Event::LinkDown { .. }
        | Event::NeighbourReachesStore { .. }
        | Event::LetterCame { .. }
        | Event::LetterTold { .. }
        | Event::RouterReached { .. } => None,
    }
}

/// Transports of one router; a further one is closed at once.
pub(super) const PEERS_MAX: usize = 16_384;
/// Events of one peer that its session has not handled yet.
pub(super) const EVENTS_PENDING_MAX: u32 = 512;
/// Windows of levels that a room has not handled yet, counted per participant that leads one.
const LEVELS_PENDING_MAX: u32 = 2;

#[cfg(test)]
mod tests;
