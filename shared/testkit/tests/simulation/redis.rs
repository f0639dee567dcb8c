//! The store and the bus as nodes see them: calls that take time, are lost before or after they took effect or take it late, and
//! connections that break.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use plenary_cluster::{
    Bus, Event as Told, InProcess, Joined, Lost, Reaped, Renewed, Seat, Store, StoreError, Stored, Subscription,
};
use plenary_model::{Ban, BanEntry, Identity, NodeInfo, NodeState, ParticipantSid, RoomDelta, RoomName, RoomSnapshot};
use plenary_room_core::room::RecordChange;

use crate::{
    node::HostKey,
    world::{Event, Life, World},
};

pub struct Redis {
    pub store: Arc<InProcess>,
    pub is_down: bool,
    /// Since when nothing was wrong with it.
    pub sound_since: Instant,
    /// What a failover could go back to.
    pub copy: Option<Arc<Stored>>,
    /// Hears everything that is published, as it is.
    taps: BTreeMap<RoomName, Subscription>,
    bans_tap: Subscription<BanEntry>,
}

#[derive(Debug)]
pub struct Call {
    pub life: Life,
    pub asked: Instant,
    pub what: Ask,
    /// Stuck in a buffer: takes effect when nobody waits for it any more.
    is_late: bool,
}

#[derive(Debug)]
pub enum Ask {
    Join { host: HostKey, room: RoomName, seat: Box<Seat> },
    Write { host: HostKey, room: RoomName, change: RecordChange },
    Read { host: HostKey, room: RoomName },
    Touch { host: HostKey, room: RoomName },
    Subscribe { host: HostKey, room: RoomName },
    Renew,
    Reap,
    Strays,
    Bans,
    RestoreBans { lost: Vec<BanEntry> },
}

#[derive(Debug)]
pub enum Answer {
    Joined { host: HostKey, sid: ParticipantSid, outcome: Result<Joined, StoreError> },
    Written { host: HostKey, outcome: Result<Vec<ParticipantSid>, StoreError> },
    Read { host: HostKey, outcome: Result<RoomSnapshot, StoreError> },
    Touched { host: HostKey, outcome: Result<(), StoreError> },
    Subscribed { host: HostKey, outcome: Result<(), StoreError> },
    Renewed(Result<Renewed, StoreError>),
    Reaped,
    Strays(Result<Vec<RoomName>, StoreError>),
    Bans(Result<Vec<BanEntry>, StoreError>),
    BansRestored(Result<(), StoreError>),
}

impl Redis {
    pub fn new(store: Arc<InProcess>, now: Instant) -> Self {
        let bans_tap = done(store.subscribe_bans()).expect("there is place");
        Self { store, is_down: false, sound_since: now, copy: None, taps: BTreeMap::new(), bans_tap }
    }

    pub fn set_time(&self, unix_ms: u64) {
        self.store.set_time(unix_ms);
    }

    pub fn snapshot(&self, room: &RoomName) -> Option<RoomSnapshot> {
        done(self.store.snapshot(room.clone())).ok()
    }

    /// What was published since the last time, in order.
    fn published(&mut self) -> Vec<(RoomName, Arc<RoomDelta>)> {
        let mut all = Vec::new();
        for (room, tap) in &mut self.taps {
            while let Some(told) = tap.try_next() {
                let Told::Delta(delta) = told else { panic!("the tap is drained after every call") };
                all.push((room.clone(), delta));
            }
        }
        all
    }

    fn published_bans(&mut self) -> Vec<Arc<BanEntry>> {
        std::iter::from_fn(|| self.bans_tap.try_next())
            .map(|told| match told {
                Told::Delta(entry) => entry,
                Told::Resync => panic!("the tap is drained after every call"),
            })
            .collect()
    }
}

impl World {
    /// A node asks the store. The answer comes within the client's patience, whatever happens.
    pub fn ask(&mut self, life: Life, what: Ask) {
        let is_late = !self.is_quiet && self.plan.calls_stick && self.random.chance(0.01);
        let way = Duration::from_micros(200 + self.random.below(3_000));
        // One connection: what was sent first arrives first.
        let node = &mut self.nodes[life.at];
        node.last_sent = (self.now + way).max(node.last_sent);
        let arrives =
            node.last_sent + if is_late { Duration::from_millis(self.random.below(4_000)) } else { Duration::ZERO };
        let call = Call { life, asked: self.now, what, is_late };
        self.at(arrives, Event::Effect(call));
    }

    pub fn carry_out(&mut self, call: Call) {
        let Call { life, asked, what, is_late } = call;
        // What a node sent before it died arrives.
        if self.is_alive(life) && !self.reaches(life) || self.redis.is_down {
            let answer = self.unanswered(what);
            self.at((asked + PATIENCE).max(self.now), Event::Answer(life, answer));
            return;
        }
        let gave_up = is_late && self.now > asked + PATIENCE;
        let answer = self.execute(life, what);
        self.publish();
        // The answer gets lost on its way: it took effect, and nobody knows.
        let is_lost = gave_up || (!self.is_quiet && self.plan.calls_stick && self.random.chance(0.01));
        if is_lost {
            self.totals.lost_answers += 1;
            let answer = answer.forgotten();
            self.at((asked + PATIENCE).max(self.now), Event::Answer(life, answer));
        } else {
            let way = 200 + self.random.below(3_000);
            self.at(self.now + Duration::from_micros(way), Event::Answer(life, answer));
        }
    }

    /// Whether node and Redis are connected.
    pub fn reaches(&self, life: Life) -> bool {
        !self.redis.is_down && !self.nodes[life.at].is_cut
    }

    fn unanswered(&mut self, what: Ask) -> Answer {
        let lost = StoreError::Unavailable;
        match what {
            Ask::Join { host, seat, .. } => Answer::Joined { host, sid: seat.participant.sid, outcome: Err(lost) },
            Ask::Write { host, .. } => Answer::Written { host, outcome: Err(lost) },
            Ask::Read { host, .. } => Answer::Read { host, outcome: Err(lost) },
            Ask::Touch { host, .. } => Answer::Touched { host, outcome: Err(lost) },
            Ask::Subscribe { host, .. } => Answer::Subscribed { host, outcome: Err(lost) },
            Ask::Renew => Answer::Renewed(Err(lost)),
            Ask::Reap => Answer::Reaped,
            Ask::Strays => Answer::Strays(Err(lost)),
            Ask::Bans => Answer::Bans(Err(lost)),
            Ask::RestoreBans { .. } => Answer::BansRestored(Err(lost)),
        }
    }

    fn execute(&mut self, life: Life, what: Ask) -> Answer {
        let store = self.redis.store.clone();
        match what {
            Ask::Join { host, room, seat } => {
                self.listen_in(&room);
                let (sid, identity) = (seat.participant.sid.clone(), seat.participant.identity.clone());
                let outcome = done(store.join(room.clone(), *seat));
                self.tell(|| format!("node {} seats {sid} of {identity} in {room}: {:?}", life.at, short(&outcome)));
                if let Ok(joined) = &outcome {
                    self.check_seated(life, &identity);
                    self.watched.seated(joined, &room);
                }
                Answer::Joined { host, sid, outcome }
            }
            Ask::Write { host, room, change } => {
                let what = describe(&change);
                let outcome = write(&store, &room, change, &mut self.watched);
                self.tell(|| format!("node {} writes {what} in {room}: {outcome:?}", life.at));
                Answer::Written { host, outcome }
            }
            Ask::Read { host, room } => {
                let outcome = done(store.snapshot(room.clone()));
                self.tell(|| {
                    let place = outcome.as_ref().map(|snapshot| (snapshot.view, snapshot.seq));
                    format!("node {} reads {room}: {place:?}", life.at)
                });
                Answer::Read { host, outcome }
            }
            Ask::Touch { host, room } => Answer::Touched { host, outcome: done(store.touch(room)) },
            Ask::Subscribe { host, room } => {
                self.listen_in(&room);
                let is_connected = self.nodes[life.at].is_connected;
                let outcome = if is_connected { Ok(()) } else { Err(StoreError::Unavailable) };
                if is_connected && let Some(hosted) = self.nodes[life.at].hosts.get_mut(&host) {
                    hosted.is_subscribed = true;
                }
                Answer::Subscribed { host, outcome }
            }
            Ask::Renew => {
                let node = Self::node_id(life);
                let info = NodeInfo {
                    node,
                    version: String::new(),
                    state: NodeState::Serving,
                    routers: Vec::new(),
                    records: false,
                };
                let renewed = done(store.renew(info));
                Answer::Renewed(renewed)
            }
            Ask::Reap => {
                let reaped = done(store.reap());
                if let Ok(Reaped { nodes, .. }) = &reaped
                    && !nodes.is_empty()
                {
                    self.totals.reaped += nodes.len();
                    self.tell(|| format!("node {} removes the people of {nodes:?}", life.at));
                }
                Answer::Reaped
            }
            Ask::Strays => {
                let open = self.nodes[life.at].open.keys().cloned().collect();
                Answer::Strays(done(store.strays(Self::node_id(life), open)))
            }
            Ask::Bans => Answer::Bans(done(store.bans(self.node_unix_s(life.at)))),
            Ask::RestoreBans { lost } => {
                self.totals.bans_put_back += lost.len();
                self.tell(|| format!("node {} puts back {} bans", life.at, lost.len()));
                Answer::BansRestored(done(store.restore_bans(lost, self.node_unix_s(life.at))))
            }
        }
    }

    /// What was published reaches every node that is connected, in order.
    pub fn publish(&mut self) {
        for (room, delta) in self.redis.published() {
            self.watched.published(&room, &delta);
            for at in 0..self.nodes.len() {
                let life = self.life(at);
                let node = &self.nodes[at];
                let hears = node.hosts.values().any(|hosted| hosted.room == room && hosted.is_subscribed);
                if hears && node.is_connected {
                    let (connection, room, delta) = (node.connection, room.clone(), delta.clone());
                    self.deliver(at, Event::Heard { life, connection, room, delta });
                }
            }
        }
        for entry in self.redis.published_bans() {
            for at in 0..self.nodes.len() {
                let (life, connection) = (self.life(at), self.nodes[at].connection);
                if self.nodes[at].is_connected {
                    self.deliver(at, Event::BanHeard { life, connection, entry: entry.clone() });
                }
            }
        }
    }

    fn deliver(&mut self, at: usize, event: Event) {
        let slow = if self.plan.bus_is_slow { 200_000 } else { 3_000 };
        let way = Duration::from_micros(200 + self.random.below(slow));
        let node = &mut self.nodes[at];
        node.last_heard = (self.now + way).max(node.last_heard);
        let arrives = node.last_heard;
        self.at(arrives, event);
    }

    /// The connection that listens breaks: what was on its way is lost.
    pub fn disconnect(&mut self, at: usize) {
        let life = self.life(at);
        let node = &mut self.nodes[at];
        node.connection += 1;
        node.sound_since = None;
        if std::mem::take(&mut node.is_connected) {
            self.totals.disconnects += 1;
            self.after(100, Event::Reconnect(life));
        }
    }

    pub fn reconnect(&mut self, life: Life) {
        if !self.is_alive(life) || self.nodes[life.at].is_connected {
            return;
        }
        if !self.reaches(life) {
            let pause = 100 + self.random.below(900);
            self.after(pause, Event::Reconnect(life));
            return;
        }
        self.nodes[life.at].is_connected = true;
        self.nodes[life.at].sound_since = Some(self.now);
        self.nodes[life.at].hosts.values_mut().for_each(|hosted| hosted.is_subscribed = true);
        self.tell(|| format!("node {} listens again", life.at));
        self.missed_everything(life);
    }

    fn listen_in(&mut self, room: &RoomName) {
        if !self.redis.taps.contains_key(room) {
            let tap = done(self.redis.store.subscribe(room.clone())).expect("there is place");
            self.redis.taps.insert(room.clone(), tap);
        }
    }

    /// By the room API, straight to the store. Revoked are tokens that do not say how old they are, as here.
    pub fn ban(&mut self, identity: &Identity) {
        let now_unix_s = self.unix_ms() / 1000;
        let tokens_before_unix_s = self.random.chance(0.3).then_some(now_unix_s);
        let ban =
            Ban { identity: identity.clone(), room: None, tokens_before_unix_s, until_unix_s: now_unix_s + 100_000 };
        done(self.redis.store.ban(ban, now_unix_s)).expect("there are few");
        self.publish();
        self.remember_bans();
    }

    pub fn lift_ban(&mut self, identity: &Identity) {
        done(self.redis.store.lift_ban(identity.clone(), None)).expect("the store answers");
        self.publish();
        self.remember_bans();
    }

    /// What the store has of the bans.
    pub fn stored_bans(&self) -> Vec<BanEntry> {
        done(self.redis.store.bans(self.unix_ms() / 1000)).expect("the store answers")
    }
}

impl Answer {
    fn forgotten(self) -> Self {
        let lost = StoreError::Unavailable;
        match self {
            Self::Joined { host, sid, .. } => Self::Joined { host, sid, outcome: Err(lost) },
            Self::Written { host, .. } => Self::Written { host, outcome: Err(lost) },
            Self::Read { host, .. } => Self::Read { host, outcome: Err(lost) },
            Self::Touched { host, .. } => Self::Touched { host, outcome: Err(lost) },
            Self::Subscribed { host, .. } => Self::Subscribed { host, outcome: Err(lost) },
            Self::Renewed(_) => Self::Renewed(Err(lost)),
            Self::Reaped => Self::Reaped,
            Self::Strays(_) => Self::Strays(Err(lost)),
            Self::Bans(_) => Self::Bans(Err(lost)),
            Self::BansRestored(_) => Self::BansRestored(Err(lost)),
        }
    }
}

fn write(
    store: &InProcess,
    room: &RoomName,
    change: RecordChange,
    watched: &mut crate::check::Watched,
) -> Result<Vec<ParticipantSid>, StoreError> {
    let room = room.clone();
    match change {
        RecordChange::Put(record) => done(store.put(room, record)).map(|_| Vec::new()),
        RecordChange::Remove { identity, sid, generation, reason } => {
            done(store.leave(room, identity, sid, generation, reason)).map(|_| Vec::new())
        }
        RecordChange::CloseIfEmpty => done(store.delete_if_empty(room)).map(|_| Vec::new()),
        RecordChange::Restore { view, seq, info, records } => {
            watched.restored(&room);
            done(store.restore(room, Lost { view, seq, info, records }))
        }
    }
}

fn describe(change: &RecordChange) -> String {
    match change {
        RecordChange::Put(record) => format!("{} v{}", record.participant.sid, record.participant.version),
        RecordChange::Remove { sid, reason, .. } => format!("the end of {sid} ({reason:?})"),
        RecordChange::Restore { view, seq, records, .. } => {
            let sids: BTreeSet<_> = records.iter().map(|record| record.participant.sid.as_str()).collect();
            format!("back {view}:{seq} with {sids:?}")
        }
        RecordChange::CloseIfEmpty => "that it may close".to_owned(),
    }
}

fn short(outcome: &Result<Joined, StoreError>) -> Result<(u64, u64, u64), StoreError> {
    outcome
        .as_ref()
        .map(|joined| (joined.snapshot.view, joined.snapshot.seq, joined.record.generation))
        .map_err(|why| *why)
}

/// The in-process store answers at once.
pub fn done<T>(answer: impl Future<Output = T>) -> T {
    answer.now_or_never().expect("the store answers at once")
}

/// Of a node's client.
const PATIENCE: Duration = Duration::from_millis(800);
