//! People and their clients: they join anywhere, change what they say of themselves, leave, are removed, and come back when a node
//! fails them.

use std::{collections::BTreeMap, sync::Arc};

use plenary_cluster::StoreError;
use plenary_model::{
    Admin, Audience, Identity, LeaveReason, Participant, ParticipantKind, ParticipantSid, ParticipantState,
    ParticipantUpdate, Permission, RoomName,
};
use plenary_room_core::notice::{Notice, Request, Welcome};

use crate::{
    node::HostKey,
    redis::done,
    world::{Event, Life, World},
};

pub struct Person {
    pub identity: Identity,
    pub wants: bool,
    pub session: Option<Session>,
    /// Full or banned, and thus not in.
    pub refused: Option<StoreError>,
    room: usize,
    /// The join that it waits for.
    attempt: Option<u64>,
    attempts: u64,
}

#[derive(Debug, Clone)]
pub struct Session {
    pub life: Life,
    pub host: HostKey,
    pub sid: ParticipantSid,
}

/// What a client knows.
pub struct View {
    pub own: Arc<Participant>,
    pub others: BTreeMap<Identity, Arc<Participant>>,
    is_live: bool,
}

impl Person {
    pub fn new(at: usize) -> Self {
        Self {
            identity: Identity::try_from(format!("p{at}").as_str()).expect("a short name"),
            wants: true,
            session: None,
            refused: None,
            room: 0,
            attempt: None,
            attempts: 0,
        }
    }
}

impl World {
    pub fn room_of(&self, person: usize) -> RoomName {
        RoomName::try_from(format!("room{}", self.people[person].room).as_str()).expect("a short name")
    }

    /// Does the next thing, and something else after a while.
    pub fn act(&mut self, at: usize) {
        let pause = if self.is_quiet { 1_000 } else { 4_000 };
        self.after_up_to(pause, Event::Act(at));
        let person = &mut self.people[at];
        if person.attempt.is_some() {
            return;
        }
        let Some(session) = person.session.clone() else {
            let comes = self.is_quiet || self.random.chance(0.7);
            let tries = self.people[at].refused.is_none_or(|why| self.is_quiet && why == StoreError::Full);
            if self.people[at].wants && comes && tries {
                self.join(at);
            } else if !self.is_quiet {
                self.may_come_back(at);
                let person = &mut self.people[at];
                (person.wants, person.refused) = (true, None);
                person.room = usize::try_from(self.random.below(self.plan.rooms as u64)).unwrap_or_default();
            }
            return;
        };
        if self.is_quiet || !self.is_alive(session.life) || self.nodes[session.life.at].asleep_until.is_some() {
            return;
        }
        let Session { life, host, sid } = session;
        match self.random.below(20) {
            0..=7 => self.say_something(life, host, &sid),
            8..=10 => self.leaves(at, life, host, &sid),
            11 => self.join(at),
            12 => self.vanishes(at, life, host, sid),
            13 | 14 => self.is_kicked(at),
            15 => self.is_banned_from_all(at),
            16 => self.changes_sight(at, life, host),
            17 if self.random.chance(0.2) => self.room_is_deleted(at),
            _ => {}
        }
    }

    fn join(&mut self, at: usize) {
        let person = &mut self.people[at];
        person.attempts += 1;
        let attempt = person.attempts;
        person.attempt = Some(attempt);
        let node = usize::try_from(self.random.below(self.nodes.len() as u64)).unwrap_or_default();
        let life = self.life(node);
        if !self.nodes[node].is_up {
            return self.refused(at, attempt, None);
        }
        self.after_up_to(20, Event::Joins(life, at, attempt));
        // Two tabs at once, on different nodes.
        if !self.is_quiet && self.random.chance(0.1) {
            let other = (node + 1) % self.nodes.len();
            let life = self.life(other);
            self.after_up_to(20, Event::Joins(life, at, attempt));
        }
        if let Some(wakes) = self.nodes[node].asleep_until {
            // The client's patience ends before the node wakes.
            if wakes > self.now + std::time::Duration::from_secs(5) {
                self.people[at].attempt = None;
            }
        }
    }

    /// Its session exists; false if nobody waits for it any more.
    pub fn welcomed(&mut self, at: usize, attempt: u64, life: Life, host: HostKey, sid: &ParticipantSid) -> bool {
        let person = &mut self.people[at];
        if person.attempt != Some(attempt) {
            return false;
        }
        (person.attempt, person.refused) = (None, None);
        let before = person.session.replace(Session { life, host, sid: sid.clone() });
        self.tell(|| format!("{sid} is welcomed by node {}", life.at));
        if let Some(before) = before {
            // It left the old one behind without a word.
            self.after(5_000, Event::SessionLost(before.life, before.host, before.sid));
        }
        self.request(life, host, sid, Request::BecameActive);
        true
    }

    pub fn refused(&mut self, at: usize, attempt: u64, why: Option<StoreError>) {
        let person = &mut self.people[at];
        if person.attempt == Some(attempt) {
            person.attempt = None;
            person.refused = why
                .or(person.refused)
                .filter(|why| matches!(why, StoreError::Full | StoreError::Banned | StoreError::Revoked));
        }
    }

    /// A node ended its session.
    pub fn ended(&mut self, identity: &Identity, sid: &ParticipantSid, reason: LeaveReason) {
        let Some(person) = self.people.iter_mut().find(|person| person.identity == *identity) else { return };
        if person.session.as_ref().is_none_or(|session| session.sid != *sid) {
            return;
        }
        person.session = None;
        // Everything else means: start over.
        let is_final = matches!(
            reason,
            LeaveReason::DuplicateIdentity
                | LeaveReason::ParticipantRemoved
                | LeaveReason::RoomDeleted
                | LeaveReason::RoomClosed
        );
        person.wants &= !is_final;
    }

    /// Its connection to the node broke.
    pub fn cut_off(&mut self, life: Life) {
        for at in 0..self.people.len() {
            if self.people[at].session.as_ref().is_some_and(|session| session.life == life) {
                self.people[at].session = None;
            }
        }
    }

    /// The node is silent for so long that the client gives it up.
    pub fn give_up(&mut self, life: Life, wakes: std::time::Instant) {
        for at in 0..self.people.len() {
            let Some(session) = self.people[at].session.clone().filter(|session| session.life == life) else {
                continue;
            };
            if self.random.chance(0.7) {
                self.people[at].session = None;
                let found_out = wakes + std::time::Duration::from_millis(self.random.below(6_000));
                self.at(found_out, Event::SessionLost(life, session.host, session.sid));
            }
        }
    }

    fn say_something(&mut self, life: Life, host: HostKey, sid: &ParticipantSid) {
        let metadata = Some(self.id().to_string());
        let what = Request::UpdateMetadata { name: None, metadata, attributes: BTreeMap::new() };
        self.request(life, host, sid, what);
    }

    fn leaves(&mut self, at: usize, life: Life, host: HostKey, sid: &ParticipantSid) {
        self.people[at].session = None;
        self.people[at].wants = self.random.chance(0.5);
        if let Some(hosted) = self.nodes[life.at].hosts.get_mut(&host) {
            hosted.views.remove(sid);
        }
        self.tell(|| format!("{sid} leaves"));
        self.request(life, host, sid, Request::Leave { reason: LeaveReason::ClientInitiated });
    }

    /// Without a word; the node finds out by the silence.
    fn vanishes(&mut self, at: usize, life: Life, host: HostKey, sid: ParticipantSid) {
        self.people[at].session = None;
        self.after(5_000, Event::SessionLost(life, host, sid));
    }

    /// By the room API of any node, which asks the host.
    fn is_kicked(&mut self, at: usize) {
        let (room, identity) = (self.room_of(at), self.people[at].identity.clone());
        let Some(snapshot) = self.redis.snapshot(&room).filter(|_| !self.redis.is_down) else { return };
        let Some(record) = snapshot.records.iter().find(|one| one.participant.identity == identity) else { return };
        let of_record = |at: &usize| World::node_id(self.life(*at)) == record.node;
        let Some(life) = (0..self.nodes.len()).find(of_record).map(|at| self.life(at)) else { return };
        let node = &self.nodes[life.at];
        if !node.is_up || node.is_cut || node.asleep_until.is_some() {
            return;
        }
        let Some(key) = node.open.get(&room).copied() else { return };
        self.totals.kicked += 1;
        self.tell(|| format!("{identity} is kicked"));
        self.administer(life, key, Admin::Remove { identity });
    }

    fn is_banned_from_all(&mut self, at: usize) {
        let identity = self.people[at].identity.clone();
        if self.redis.is_down || self.is_banned(&identity) {
            return;
        }
        self.totals.banned += 1;
        self.tell(|| format!("{identity} is banned"));
        self.ban(&identity);
        let since = self.now;
        self.after(1_000, Event::CheckGone(since, identity.to_string()));
    }

    /// Who was banned is forgiven now and then.
    fn may_come_back(&mut self, at: usize) {
        let identity = self.people[at].identity.clone();
        if !self.redis.is_down && self.is_banned(&identity) && self.random.chance(0.3) {
            self.totals.lifted += 1;
            self.tell(|| format!("the ban of {identity} is lifted"));
            self.lift_ban(&identity);
        }
    }

    /// By the room API: hidden, or visible again.
    fn changes_sight(&mut self, at: usize, life: Life, host: HostKey) {
        let identity = self.people[at].identity.clone();
        let hidden = self.random.chance(0.5);
        let permission = Some(Permission { hidden, can_update_metadata: true, ..Permission::default() });
        let update = ParticipantUpdate { permission, ..ParticipantUpdate::default() };
        self.administer(life, host, Admin::Update { identity, update });
    }

    fn room_is_deleted(&mut self, at: usize) {
        let room = self.room_of(at);
        if !self.redis.is_down && done(self.delete(&room)).is_ok() {
            self.totals.deleted += 1;
            self.tell(|| format!("{room} is deleted"));
            self.publish();
        }
    }

    fn delete(&self, room: &RoomName) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let (store, room) = (self.redis.store.clone(), room.clone());
        async move { plenary_cluster::Store::delete(&*store, room, LeaveReason::RoomDeleted).await }
    }
}

impl View {
    pub fn new(welcome: Welcome) -> Self {
        let Welcome { own, others, .. } = welcome;
        let others = others.into_iter().map(|other| (other.identity.clone(), other)).collect();
        Self { own, others, is_live: true }
    }

    pub fn is_live(&self) -> bool {
        self.is_live
    }

    pub fn end(&mut self) {
        assert!(self.is_live, "{} hears twice of its end", self.own.sid);
        self.is_live = false;
    }

    pub fn hear(&mut self, notice: &Notice) {
        assert!(self.is_live, "{} hears {notice:?} after its end", self.own.sid);
        match notice {
            Notice::Participants { changed } => {
                for person in changed {
                    assert!(person.identity != self.own.identity && !person.permission.hidden, "{person:?}");
                    let before = self.others.get(&person.identity);
                    let same = before.filter(|before| before.sid == person.sid);
                    let is_gone = person.state == ParticipantState::Disconnected;
                    if !is_gone && same.is_some_and(|before| before.version >= person.version) {
                        // As SDKs do: what a store that went back says, and what is put back, is no news.
                        continue;
                    }
                    if is_gone {
                        let before = before.map(|before| &before.sid);
                        assert_eq!(before, Some(&person.sid), "{} never knew who is gone", self.own.sid);
                        self.others.remove(&person.identity);
                    } else {
                        self.others.insert(person.identity.clone(), person.clone());
                    }
                }
            }
            Notice::OwnChanged { own, .. } => {
                assert!(own.version > self.own.version, "own versions grow");
                self.own = own.clone();
            }
            _ => {}
        }
    }
}

/// The record a session starts with.
pub fn participant(identity: &Identity, sid: &ParticipantSid, hidden: bool) -> Participant {
    Participant {
        sid: sid.clone(),
        identity: identity.clone(),
        name: String::new(),
        metadata: String::new(),
        attributes: BTreeMap::new(),
        state: ParticipantState::Joined,
        kind: ParticipantKind::Standard,
        permission: Permission { can_update_metadata: true, hidden, ..Permission::default() },
        tracks: Vec::new(),
        audience: Audience::default(),
        data_tracks: Vec::new(),
        joined_at_ms: 0,
        version: 1,
        is_publisher: false,
        leave_reason: LeaveReason::Unknown,
        client_protocol: 1,
        capabilities: Vec::new(),
    }
}
