//! The invariants, by the numbers of `cluster.md` 2.10.
//!
//! Not here: I4 and I7, since chat logs and recordings do not exist; I9 and I10, which are about links (`tests/cluster`); I11 and
//! I12, which are about processes; I14, which the conformance suite holds for this store too.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use plenary_cluster::{Bans, Joined};
use plenary_model::{BanEntry, Identity, Participant, RoomDelta, RoomName};
use plenary_room_core::host::Host;

use crate::{
    node::Hosted,
    world::{Life, World},
};

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Watched {
    generations: BTreeMap<Identity, u64>,
    places: BTreeMap<RoomName, (u64, u64)>,
    /// Something was put back since the last change: numbers may go on further ahead.
    jumping: BTreeSet<RoomName>,
    /// Records were put back since there were no more than the cap allows.
    overfull: BTreeSet<RoomName>,
    /// The latest word on everybody that the store or a living node has.
    bans: Bans,
}

impl Watched {
    /// I1: numbers grow by one; only what is put back after a loss makes them jump ahead.
    pub fn published(&mut self, room: &RoomName, delta: &RoomDelta) {
        let before = self.places.insert(room.clone(), (delta.view, delta.seq));
        let jumps = self.jumping.remove(room);
        let Some((view, seq)) = before.filter(|(view, _)| *view == delta.view) else { return };
        let jumps = jumps && delta.seq > seq;
        assert!(delta.seq == seq + 1 || jumps, "I1: {room} {view}:{seq} is followed by {}", delta.seq);
    }

    /// I2: generations grow, whatever Redis lost. I3: nobody is seated beyond the cap.
    pub fn seated(&mut self, joined: &Joined, room: &RoomName) {
        let (identity, generation) = (&joined.record.participant.identity, joined.record.generation);
        let last = self.generations.insert(identity.clone(), generation);
        assert!(last.is_none_or(|last| last <= generation), "I2: {identity} {last:?} is followed by {generation}");
        let cap = joined.snapshot.room.max_participants;
        if cap == 0 || joined.snapshot.room.participants <= cap {
            self.overfull.remove(room);
        } else {
            assert!(
                self.overfull.contains(room),
                "I3: {} people where {cap} may be",
                joined.snapshot.room.participants
            );
        }
    }

    pub fn restored(&mut self, room: &RoomName) {
        self.overfull.insert(room.clone());
        self.jumping.insert(room.clone());
    }

    /// `cluster.md` 5, E8: what breaks all the time must not have a room read all the time.
    pub fn read(&self, now: Instant, last: &mut Vec<Instant>) {
        last.retain(|at| now - *at < Duration::from_secs(1));
        last.push(now);
        assert!(last.len() <= 3, "E8: {} looks at one room within a second", last.len());
    }

    pub fn heard_of_ban(&mut self, entry: &BanEntry, now_unix_s: u64) {
        self.bans.apply(entry, now_unix_s);
    }

    pub fn rolled_back(&mut self) {
        self.places.clear();
    }

    /// I1: a replica goes on in order. I13: what waits for the store is bounded by who is here.
    pub fn host(&mut self, host: &Host, last: &mut Option<(u64, u64)>, sessions: usize) {
        let place = host.room().place();
        if let (Some((view, seq)), Some((last_view, last_seq))) = (place, *last)
            && view == last_view
        {
            assert!(seq >= last_seq, "I1: a replica went back from {view}:{last_seq} to {seq}");
        }
        *last = place;
        assert!(host.owes() <= 3 * sessions + OWED_MAX, "I13: {} changes of {sessions} sessions wait", host.owes());
    }
}

impl World {
    /// After a ban, its end, and whatever may have lost one of them.
    pub fn remember_bans(&mut self) {
        let now_unix_s = self.unix_ms() / 1000;
        let mut bans = Bans::from_list(self.stored_bans(), now_unix_s);
        for node in self.nodes.iter().filter(|node| node.is_up) {
            for entry in node.bans.entries(now_unix_s) {
                bans.apply(&entry, now_unix_s);
            }
        }
        self.watched.bans = bans;
    }

    pub fn is_banned(&self, identity: &Identity) -> bool {
        self.watched.bans.verdict(identity, None, None, self.unix_ms() / 1000).is_some()
    }

    /// I8: nobody is seated against a word that the store has, or that a node which nothing is wrong with has had for so long that
    /// it must have put it back.
    pub fn check_seated(&self, life: Life, identity: &Identity) {
        let now_unix_s = self.unix_ms() / 1000;
        let long_ago = self.now - BANS_BACK_WITHIN;
        let knows = |at: usize| knows_of(&self.nodes[at].bans, identity, now_unix_s);
        let should_have = (0..self.nodes.len()).find(|at| self.was_sound(*at, long_ago) && knows(*at));
        let stored = Bans::from_list(self.stored_bans(), now_unix_s);
        let is_barred = self.is_banned(identity) && (should_have.is_some() || knows_of(&stored, identity, now_unix_s));
        assert!(!is_barred, "I8: {identity} is banned and was seated at node {}, {should_have:?}", life.at);
    }

    /// I8: whoever was banned is nowhere a second later, as far as nothing is broken.
    pub fn check_gone(&mut self, since: Instant, who: &str) {
        let Ok(identity) = Identity::try_from(who) else { return };
        if !self.is_banned(&identity) {
            return;
        }
        for (at, node) in self.nodes.iter().enumerate().filter(|(at, _)| self.was_sound(*at, since)) {
            let session = node.session_of(&identity);
            assert_eq!(session, None, "I8: node {at} serves {identity} a second after the ban");
        }
    }

    /// I6: ten seconds after the last fault nobody is left of nodes that are dead.
    pub fn check_ghosts(&self) {
        for room in self.rooms() {
            for record in self.redis.snapshot(&room).into_iter().flat_map(|snapshot| snapshot.records) {
                let lives = (0..self.nodes.len()).any(|at| World::node_id(self.life(at)) == record.node);
                let sid = &record.participant.sid;
                assert!(lives, "I6: {sid} in {room} is left of {}, which is dead", record.node);
            }
        }
    }

    /// I5: what nodes serve, what is stored, what replicas hold and what clients were told is the same. I2: so nobody is here
    /// twice. And whoever wants to be here is.
    pub fn check_agreement(&self) {
        self.check_ghosts();
        let now_unix_s = self.unix_ms() / 1000;
        let bans = self.watched.bans.entries(now_unix_s);
        assert_eq!(self.stored_bans(), bans, "I8: what is stored of the bans");
        for (at, node) in self.nodes.iter().enumerate() {
            assert_eq!(node.bans.entries(now_unix_s), bans, "I8: what node {at} knows of the bans");
        }
        for room in self.rooms() {
            let snapshot = self.redis.snapshot(&room);
            let stored: BTreeMap<_, _> = snapshot
                .iter()
                .flat_map(|snapshot| &snapshot.records)
                .map(|record| (record.participant.identity.clone(), record.clone()))
                .collect();
            let mut served = BTreeSet::new();
            for (at, node) in self.nodes.iter().enumerate() {
                for hosted in node.hosts.values().filter(|hosted| hosted.room == room) {
                    let live = hosted.views.iter().filter(|(_, view)| view.is_live());
                    for (sid, _) in live {
                        assert!(served.insert(sid.clone()), "{sid} is served twice");
                    }
                    let place = snapshot.as_ref().map(|snapshot| (snapshot.view, snapshot.seq));
                    self.check_host(at, hosted, place, &stored);
                }
            }
            let seated: BTreeSet<_> = stored.values().map(|record| record.participant.sid.clone()).collect();
            assert_eq!(served, seated, "I5: who is served in {room}, and who is stored");
        }
        for person in &self.people {
            let is_in = person.session.as_ref().is_some_and(|session| {
                let hosted = self.nodes[session.life.at].hosts.get(&session.host);
                hosted.and_then(|hosted| hosted.views.get(&session.sid)).is_some_and(|view| view.is_live())
            });
            assert_eq!(is_in, person.session.is_some(), "{} believes to be in", person.identity);
            assert!(is_in || !person.wants || person.refused.is_some(), "{} is not back", person.identity);
            assert!(!is_in || !self.is_banned(&person.identity), "I8: {} is banned", person.identity);
        }
    }

    fn check_host(
        &self,
        at: usize,
        hosted: &Hosted,
        place: Option<(u64, u64)>,
        stored: &BTreeMap<Identity, std::sync::Arc<plenary_model::Record>>,
    ) {
        let room = &hosted.room;
        assert_eq!(hosted.host.owes(), 0, "node {at} owes the store something in {room}");
        if hosted.host.is_warm() {
            // What is put back may take numbers that nobody hears of.
            let known = hosted.host.room().place();
            assert!(
                known <= place && known.map(|(view, _)| view) == place.map(|(view, _)| view),
                "I5: {known:?}, {place:?}"
            );
            let known: Vec<_> = hosted.host.room().records().cloned().collect();
            let all: Vec<_> = stored.values().cloned().collect();
            assert_eq!(known, all, "I5: the replica of {room} at node {at}");
        }
        for (sid, view) in hosted.views.iter().filter(|(_, view)| view.is_live()) {
            let own = stored.get(&view.own.identity).map(|record| &record.participant);
            assert_eq!(own, Some(&*view.own), "I5: {sid} about itself");
            let visible = |person: &&Participant| !person.permission.hidden && person.identity != view.own.identity;
            let others: Vec<_> = stored.values().map(|record| &record.participant).filter(visible).collect();
            let known: Vec<_> = view.others.values().map(|other| &**other).collect();
            assert_eq!(known, others, "I5: what {sid} was told");
        }
    }

    fn rooms(&self) -> impl Iterator<Item = RoomName> + use<> {
        (0..self.plan.rooms).filter_map(|at| RoomName::try_from(format!("room{at}").as_str()).ok())
    }
}

fn knows_of(bans: &Bans, identity: &Identity, now_unix_s: u64) -> bool {
    bans.verdict(identity, None, None, now_unix_s).is_some()
}

/// A renewal, a look at what is stored, and the answers to both.
const BANS_BACK_WITHIN: Duration = Duration::from_secs(4);
/// Of seats that nobody waits for any more when a node wakes.
const OWED_MAX: usize = 64;
