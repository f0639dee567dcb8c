//! A node: the hosts of its rooms, its lease, its copy of the bans. What an actor would carry is carried here.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use plenary_cluster::{Bans, Lease, NewRoom, RENEW_INTERVAL, RoomDefaults, Seat, StoreError};
use plenary_model::{Admin, BanEntry, Identity, LeaveReason, ParticipantSid, RoomDelta, RoomName};
use plenary_room_core::{
    host::{self, Call, Host, StoreFailure},
    notice::{Notice, Request},
    room::{self, AdminAsk, Room, Settings},
};

use crate::{
    people::{View, participant},
    redis::{Answer, Ask},
    world::{Event, Life, World},
};

/// A host in one of its lives.
pub type HostKey = u64;

pub struct Node {
    pub boot: u64,
    pub is_up: bool,
    pub asleep_until: Option<Instant>,
    /// Since when nothing was wrong with it.
    pub sound_since: Option<Instant>,
    /// Redis cannot be reached.
    pub is_cut: bool,
    /// Of those that listen, how many there were before this one.
    pub connection: u64,
    pub is_connected: bool,
    /// When the last call reaches the store, and the last change this node.
    pub last_sent: Instant,
    pub last_heard: Instant,
    pub skew_s: i64,
    pub hosts: BTreeMap<HostKey, Hosted>,
    /// Who takes those that join.
    pub open: BTreeMap<RoomName, HostKey>,
    pub bans: Bans,
    lease: Lease,
}

pub struct Hosted {
    pub room: RoomName,
    pub host: Host,
    pub is_subscribed: bool,
    pub views: BTreeMap<ParticipantSid, View>,
    /// What came before it heard the room's changes.
    early: Vec<Early>,
    /// Nothing is handled before the subscription.
    is_waiting: bool,
    joining: BTreeMap<ParticipantSid, (usize, u64)>,
    wakes: Option<Instant>,
    next_admin: u64,
    place: Option<(u64, u64)>,
    /// Of the last second.
    reads: Vec<Instant>,
}

impl Hosted {
    /// Whose joins are not answered yet.
    pub fn waiting_people(&self) -> Vec<(usize, u64)> {
        let early = self.early.iter().filter_map(|early| match early {
            Early::Join(person, attempt) => Some((*person, *attempt)),
            Early::Open => None,
        });
        self.joining.values().copied().chain(early).collect()
    }
}

enum Early {
    Open,
    Join(usize, u64),
}

impl Node {
    pub fn down() -> Self {
        let now = crate::world::epoch();
        Self {
            boot: 0,
            is_up: false,
            asleep_until: None,
            sound_since: None,
            is_cut: false,
            connection: 0,
            is_connected: false,
            last_sent: now,
            last_heard: now,
            skew_s: 0,
            hosts: BTreeMap::new(),
            open: BTreeMap::new(),
            bans: Bans::default(),
            lease: Lease::default(),
        }
    }

    fn sessions(&self) -> impl Iterator<Item = (HostKey, &ParticipantSid, &View)> {
        self.hosts.iter().flat_map(|(key, hosted)| hosted.views.iter().map(|(sid, view)| (*key, sid, view)))
    }

    /// Somebody's session here, if it has not ended.
    pub fn session_of(&self, identity: &Identity) -> Option<&ParticipantSid> {
        let live = |(_, _, view): &(HostKey, &ParticipantSid, &View)| view.is_live() && view.own.identity == *identity;
        self.sessions().find(live).map(|(_, sid, _)| sid)
    }
}

impl World {
    pub fn boot(&mut self, at: usize) {
        let boot = self.id();
        let skew_s = self.plan.skews_s.get(at).copied().unwrap_or_default();
        let is_cut = self.nodes[at].is_cut;
        let fresh = Node {
            boot,
            is_up: true,
            is_cut,
            sound_since: Some(self.now),
            last_sent: self.now,
            last_heard: self.now,
            skew_s,
            connection: boot << 32,
            ..Node::down()
        };
        self.nodes[at] = fresh;
        let life = self.life(at);
        self.tell(|| format!("node {at} starts as {}", Self::node_id(life)));
        self.at(self.now, Event::Renew(life));
        self.at(self.now, Event::Reconnect(life));
    }

    pub fn renew(&mut self, life: Life) {
        if self.is_alive(life) {
            self.ask(life, Ask::Renew);
        }
    }

    /// Somebody's request to join reaches a node.
    pub fn joins(&mut self, life: Life, person: usize, attempt: u64) {
        if !self.is_alive(life) {
            return self.refused(person, attempt, None);
        }
        let (identity, room) = (self.people[person].identity.clone(), self.room_of(person));
        let now_unix_s = self.node_unix_s(life.at);
        let node = &mut self.nodes[life.at];
        if node.bans.verdict(&identity, Some(&room), None, now_unix_s).is_some() {
            return self.refused(person, attempt, Some(StoreError::Banned));
        }
        let key = self.open(life, &room);
        self.join_at(life, key, person, attempt);
    }

    fn open(&mut self, life: Life, room: &RoomName) -> HostKey {
        if let Some(key) = self.nodes[life.at].open.get(room) {
            return *key;
        }
        let key = self.id();
        let core = Room::new(self.now, Self::node_id(life), settings());
        let hosted = Hosted {
            room: room.clone(),
            host: Host::new(self.now, core),
            is_subscribed: false,
            views: BTreeMap::new(),
            early: Vec::new(),
            is_waiting: true,
            joining: BTreeMap::new(),
            wakes: None,
            next_admin: 0,
            place: None,
            reads: Vec::new(),
        };
        let node = &mut self.nodes[life.at];
        node.hosts.insert(key, hosted);
        node.open.insert(room.clone(), key);
        self.ask(life, Ask::Subscribe { host: key, room: room.clone() });
        key
    }

    fn join_at(&mut self, life: Life, key: HostKey, person: usize, attempt: u64) {
        let Some(hosted) = self.nodes[life.at].hosts.get_mut(&key) else { return };
        if hosted.is_waiting {
            hosted.early.push(Early::Join(person, attempt));
            return;
        }
        let room = hosted.room.clone();
        let sid = ParticipantSid::from(format!("PA_{}_{}", life.at, self.id()));
        let view = self.id();
        let identity = self.people[person].identity.clone();
        let create = NewRoom {
            name: room.clone(),
            sid: format!("RM_{view}").into(),
            view,
            now_unix_ms: self.unix_ms(),
            metadata: None,
            empty_timeout_s: None,
            departure_timeout_s: None,
            max_participants: None,
            auto_egress: Default::default(),
            defaults: RoomDefaults { empty_timeout_s: 10, departure_timeout_s: 5, max_participants: self.plan.cap },
        };
        let seat = Seat {
            participant: participant(&identity, &sid, self.random.chance(0.1)),
            node: Self::node_id(life),
            issued_unix_s: None,
            now_unix_s: self.node_unix_s(life.at),
            create: Some(create),
            trace: None,
        };
        if let Some(hosted) = self.nodes[life.at].hosts.get_mut(&key) {
            hosted.joining.insert(sid.clone(), (person, attempt));
        }
        self.handle(life, key, host::Input::Joining { who: sid });
        self.ask(life, Ask::Join { host: key, room, seat: Box::new(seat) });
    }

    pub fn answered(&mut self, life: Life, answer: Answer) {
        if !self.is_alive(life) {
            return;
        }
        match answer {
            Answer::Joined { host, sid, outcome } => {
                if let Err(refusal) = outcome
                    && let Some(hosted) = self.nodes[life.at].hosts.get_mut(&host)
                    && let Some((person, attempt)) = hosted.joining.remove(&sid)
                {
                    self.refused(person, attempt, Some(refusal));
                }
                let outcome = outcome.map(|joined| (joined.record, joined.snapshot)).map_err(failure);
                self.handle(life, host, host::Input::Joined { who: sid, outcome });
            }
            Answer::Written { host, outcome } => {
                self.handle(life, host, host::Input::Written(outcome.map_err(failure)));
            }
            Answer::Read { host, outcome } => self.handle(life, host, host::Input::Read(outcome.map_err(failure))),
            Answer::Touched { host, outcome } => {
                self.handle(life, host, host::Input::Touched(outcome.map_err(failure)))
            }
            Answer::Subscribed { host, outcome } => self.subscribed(life, host, outcome.is_ok()),
            Answer::Renewed(outcome) => {
                let again = u64::try_from(RENEW_INTERVAL.as_millis()).unwrap_or_default();
                self.after(again, Event::Renew(life));
                let Ok(renewed) = outcome else { return self.nodes[life.at].lease.unanswered() };
                if self.nodes[life.at].lease.renewed(&renewed) {
                    self.totals.lapsed += 1;
                    self.tell(|| format!("node {} finds its lease gone", life.at));
                    for key in self.nodes[life.at].open.clone().into_values() {
                        self.handle(life, key, host::Input::Room(room::Input::Lapsed));
                    }
                    self.ask(life, Ask::Bans);
                    self.ask(life, Ask::Strays);
                }
                self.ask(life, Ask::Reap);
            }
            Answer::Reaped => {}
            Answer::Strays(Ok(rooms)) => {
                for room in rooms {
                    self.tell(|| format!("node {} is said to host people in {room}", life.at));
                    self.host(life, &room);
                }
            }
            Answer::Strays(Err(_)) => self.ask(life, Ask::Strays),
            Answer::Bans(Ok(stored)) => {
                let now_unix_s = self.node_unix_s(life.at);
                let lost = self.nodes[life.at].bans.reconcile(stored, now_unix_s);
                self.enforce(life);
                if !lost.is_empty() {
                    self.ask(life, Ask::RestoreBans { lost });
                }
            }
            Answer::BansRestored(Ok(())) => {}
            Answer::Bans(Err(_)) | Answer::BansRestored(Err(_)) => self.ask(life, Ask::Bans),
        }
    }

    fn subscribed(&mut self, life: Life, key: HostKey, is_heard: bool) {
        if !is_heard {
            // As when the bus is gone: the room ends, and whoever waited is refused.
            return self.stopped(life, key);
        }
        let Some(hosted) = self.nodes[life.at].hosts.get_mut(&key) else { return };
        hosted.is_waiting = false;
        for early in std::mem::take(&mut hosted.early) {
            match early {
                Early::Open => self.handle(life, key, host::Input::Open),
                Early::Join(person, attempt) => self.join_at(life, key, person, attempt),
            }
        }
        self.arm(life, key);
    }

    pub fn heard(&mut self, life: Life, connection: u64, room: &RoomName, delta: &Arc<RoomDelta>) {
        if !self.is_alive(life) || self.nodes[life.at].connection != connection {
            return;
        }
        let node = &self.nodes[life.at];
        let hears =
            |(_, hosted): &(&HostKey, &Hosted)| hosted.room == *room && hosted.is_subscribed && !hosted.is_waiting;
        let keys: Vec<_> = node.hosts.iter().filter(hears).map(|(key, _)| *key).collect();
        for key in keys {
            self.handle(life, key, host::Input::Room(room::Input::Delta(delta.clone())));
        }
    }

    pub fn missed_everything(&mut self, life: Life) {
        let waiting = |hosted: &Hosted| hosted.is_waiting;
        let keys: Vec<_> =
            self.nodes[life.at].hosts.iter().filter(|(_, hosted)| !waiting(hosted)).map(|(key, _)| *key).collect();
        for key in keys {
            self.handle(life, key, host::Input::Missed);
        }
        self.ask(life, Ask::Bans);
        self.ask(life, Ask::Strays);
    }

    pub fn ban_heard(&mut self, life: Life, connection: u64, entry: &BanEntry) {
        if self.is_alive(life) && self.nodes[life.at].connection == connection {
            let now_unix_s = self.node_unix_s(life.at);
            self.nodes[life.at].bans.apply(entry, now_unix_s);
            // The store may have lost it while it was on its way.
            self.watched.heard_of_ban(entry, now_unix_s);
            self.enforce(life);
        }
    }

    /// Sessions that the bans forbid end.
    fn enforce(&mut self, life: Life) {
        let now_unix_s = self.node_unix_s(life.at);
        let node = &self.nodes[life.at];
        let barred = |(_, _, view): &(HostKey, &ParticipantSid, &View)| {
            view.is_live() && node.bans.verdict(&view.own.identity, None, None, now_unix_s).is_some()
        };
        let barred: Vec<_> =
            node.sessions().filter(barred).map(|(key, _, view)| (key, view.own.identity.clone())).collect();
        for (key, identity) in barred {
            self.administer(life, key, Admin::Remove { identity });
        }
    }

    pub fn administer(&mut self, life: Life, key: HostKey, what: Admin) {
        let Some(hosted) = self.nodes[life.at].hosts.get_mut(&key) else { return };
        let number = hosted.next_admin;
        hosted.next_admin += 1;
        if hosted.host.is_warm() {
            self.handle(life, key, host::Input::Room(room::Input::Admin(AdminAsk { number, what })));
        }
    }

    pub fn request(&mut self, life: Life, key: HostKey, who: &ParticipantSid, what: Request) {
        self.handle(life, key, host::Input::Room(room::Input::Ask { who: who.clone(), what }));
    }

    pub fn session_lost(&mut self, life: Life, key: HostKey, who: &ParticipantSid) {
        if !self.is_alive(life) {
            return;
        }
        let Some(hosted) = self.nodes[life.at].hosts.get_mut(&key) else { return };
        if hosted.views.remove(who).is_some() {
            let (who, reason) = (who.clone(), LeaveReason::SignalClose);
            self.handle(life, key, host::Input::Room(room::Input::SessionLost { who, reason }));
        }
    }

    pub fn wake_host(&mut self, life: Life, key: HostKey) {
        if !self.is_alive(life) {
            return;
        }
        let now = self.now;
        if let Some(hosted) = self.nodes[life.at].hosts.get_mut(&key) {
            hosted.wakes = None;
            hosted.host.handle_timeout(now);
            self.flush(life, key);
        }
    }

    pub fn handle(&mut self, life: Life, key: HostKey, input: host::Input) {
        let now = self.now;
        if let Some(hosted) = self.nodes[life.at].hosts.get_mut(&key) {
            hosted.host.handle(now, input);
            self.flush(life, key);
        }
    }

    fn flush(&mut self, life: Life, key: HostKey) {
        while let Some(hosted) = self.nodes[life.at].hosts.get_mut(&key)
            && let Some(output) = hosted.host.poll_output()
        {
            let room = hosted.room.clone();
            match output {
                host::Output::Room(output) => self.carry(life, key, output),
                host::Output::Call(Call::Write(change)) => self.ask(life, Ask::Write { host: key, room, change }),
                host::Output::Call(Call::Read) => {
                    self.watched.read(self.now, &mut hosted.reads);
                    self.ask(life, Ask::Read { host: key, room });
                }
                host::Output::Call(Call::Touch) => self.ask(life, Ask::Touch { host: key, room }),
                host::Output::Unseated { who } => {
                    if let Some((person, attempt)) = hosted.joining.remove(&who) {
                        self.refused(person, attempt, Some(StoreError::Unavailable));
                    }
                }
                host::Output::Closing { why } => {
                    self.tell(|| format!("node {} closes {room}: {why:?}", life.at));
                    let node = &mut self.nodes[life.at];
                    if node.open.get(&room) == Some(&key) {
                        node.open.remove(&room);
                    }
                }
                host::Output::Stop => self.stopped(life, key),
            }
        }
        self.arm(life, key);
        if let Some(hosted) = self.nodes[life.at].hosts.get_mut(&key) {
            self.watched.host(&hosted.host, &mut hosted.place, hosted.views.len());
        }
    }

    fn carry(&mut self, life: Life, key: HostKey, output: room::Output) {
        let Some(hosted) = self.nodes[life.at].hosts.get_mut(&key) else { return };
        match output {
            room::Output::Welcome { who, welcome } => {
                let Some((person, attempt)) = hosted.joining.remove(&who) else { return };
                let now_unix_s = self.node_unix_s(life.at);
                let identity = welcome.own.identity.clone();
                let node = &mut self.nodes[life.at];
                let is_barred = node.bans.verdict(&identity, None, None, now_unix_s).is_some();
                if let Some(hosted) = node.hosts.get_mut(&key) {
                    hosted.views.insert(who.clone(), View::new(welcome));
                }
                if is_barred || !self.welcomed(person, attempt, life, key, &who) {
                    if is_barred {
                        self.refused(person, attempt, Some(StoreError::Banned));
                    }
                    self.session_lost(life, key, &who);
                }
            }
            room::Output::Tell { who, what } => {
                let Some(view) = hosted.views.get_mut(&who) else { return };
                let identity = view.own.identity.clone();
                if let Notice::End { reason } = what {
                    view.end();
                    self.tell(|| format!("node {} ends {who} of {identity}: {reason:?}", life.at));
                    self.after_up_to(20, Event::SessionLost(life, key, who.clone()));
                    self.ended(&identity, &who, reason);
                } else {
                    view.hear(&what);
                }
            }
            room::Output::Say(_) | room::Output::AdminDone { .. } | room::Output::Watched(_) => {}
            room::Output::Write(_) | room::Output::Reread | room::Output::Unattended | room::Output::Closed { .. } => {
                unreachable!("the host carries these out")
            }
        }
    }

    /// Its sessions start over; if there were any, the next room of the name sees to what they leave behind.
    fn stopped(&mut self, life: Life, key: HostKey) {
        let node = &mut self.nodes[life.at];
        let Some(hosted) = node.hosts.remove(&key) else { return };
        let room = hosted.room.clone();
        if node.open.get(&room) == Some(&key) {
            node.open.remove(&room);
        }
        self.tell(|| format!("node {} stops hosting {room}", life.at));
        for early in hosted.early {
            if let Early::Join(person, attempt) = early {
                self.refused(person, attempt, None);
            }
        }
        for (person, attempt) in hosted.joining.into_values() {
            self.refused(person, attempt, Some(StoreError::Unavailable));
        }
        let is_deserted = !hosted.views.is_empty();
        for (sid, view) in hosted.views {
            if view.is_live() {
                self.ended(&view.own.identity, &sid, LeaveReason::StateMismatch);
            }
        }
        if is_deserted {
            self.host(life, &room);
        }
    }

    /// Without anybody who joins.
    fn host(&mut self, life: Life, room: &RoomName) {
        let key = self.open(life, room);
        let Some(hosted) = self.nodes[life.at].hosts.get_mut(&key) else { return };
        if hosted.is_waiting {
            hosted.early.push(Early::Open);
        } else {
            self.handle(life, key, host::Input::Open);
        }
    }

    fn arm(&mut self, life: Life, key: HostKey) {
        let Some(hosted) = self.nodes[life.at].hosts.get_mut(&key).filter(|hosted| !hosted.is_waiting) else { return };
        if let Some((at, _)) = hosted.host.next_deadline()
            && hosted.wakes.is_none_or(|wakes| at < wakes)
        {
            hosted.wakes = Some(at);
            self.at(at.max(self.now), Event::Wake(life, key));
        }
    }

    /// By the node's own clock.
    pub fn node_unix_s(&self, at: usize) -> u64 {
        (self.unix_ms() / 1000).saturating_add_signed(self.nodes[at].skew_s)
    }
}

fn failure(error: StoreError) -> StoreFailure {
    match error {
        StoreError::NoSuchRoom => StoreFailure::NoSuchRoom,
        StoreError::Unavailable => StoreFailure::Unavailable,
        _ => StoreFailure::Refused,
    }
}

fn settings() -> Settings {
    Settings {
        remote_unmute: true,
        counts_interval: Duration::from_secs(5),
        metadata_bytes_max: 64,
        attributes_bytes_max: 64,
    }
}
