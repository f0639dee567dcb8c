//! A store, the rooms of some nodes, and clients that believe what they are told.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use plenary_cluster::*;
use plenary_model::*;
use plenary_room_core::{
    notice::{Announce, Notice, Request, Welcome},
    room::{AdminAsk, Deadline, Input, Output, RecordChange, Room, Settings},
};

pub struct World {
    pub store: Arc<InProcess>,
    pub now: Instant,
    pub nodes: Vec<Node>,
    next_sid: u32,
}

/// One node's room with everything that travels between it and the store.
pub struct Node {
    pub id: NodeId,
    pub room: Room,
    pub clients: BTreeMap<ParticipantSid, Client>,
    /// Watches without being in it.
    pub watcher: Option<Client>,
    pub writes: VecDeque<RecordChange>,
    pub words: VecDeque<RoomWord>,
    pub unattended: usize,
    pub rereads: usize,
    pub rereads_seen: usize,
    pub outcomes: Vec<(u64, Outcome)>,
    pub closed: Option<LeaveReason>,
    pub joined: VecDeque<Joined>,
    heard: Subscription,
    /// It has a snapshot, and does not need that of a join, which may be of an earlier history.
    warm: bool,
}

type Outcome = Result<Option<Arc<Participant>>, AdminRefusal>;

/// What a session knows, checked while it learns it.
#[derive(Debug)]
pub struct Client {
    pub own: Arc<Participant>,
    pub room: RoomInfo,
    pub others: BTreeMap<Identity, Arc<Participant>>,
    pub notices: Vec<Notice>,
    pub ended: Option<LeaveReason>,
    /// Last versions of everybody, of those who left too.
    versions: BTreeMap<Identity, u32>,
    /// How often the room was made anew around this client; versions start anew with it.
    lives: u32,
}

impl World {
    pub fn new() -> Self {
        Self::with_nodes(1)
    }

    pub fn with_nodes(count: usize) -> Self {
        let (store, now) = (Arc::new(InProcess::new()), Instant::now());
        let nodes = (0..count).map(|at| Node::new(&store, now, &format!("ND_{at}"))).collect();
        Self { store, now, nodes, next_sid: 0 }
    }

    /// Makes the room with these settings before anybody joins.
    pub fn room(&mut self, change: impl FnOnce(&mut NewRoom)) {
        let mut new = new_room(1);
        change(&mut new);
        done(self.store.create(new)).unwrap();
        let snapshot = done(self.store.snapshot(name())).unwrap();
        for at in 0..self.nodes.len() {
            self.nodes[at].warm = true;
            self.handle(at, Input::Snapshot(snapshot.clone()));
        }
    }

    /// Joins at the first node and lets everybody hear of it.
    pub fn join(&mut self, who: &str) -> ParticipantSid {
        self.join_as(who, |_| {})
    }

    pub fn join_as(&mut self, who: &str, shape: impl FnOnce(&mut Participant)) -> ParticipantSid {
        let sid = self.seat(0, who, shape).expect("a seat is free");
        self.welcome(0);
        self.settle();
        sid
    }

    /// The store seats somebody; the node's room has not heard of it.
    pub fn seat(
        &mut self,
        at: usize,
        who: &str,
        shape: impl FnOnce(&mut Participant),
    ) -> Result<ParticipantSid, StoreError> {
        self.next_sid += 1;
        let mut participant = person(who, &format!("PA_{:04}", self.next_sid));
        shape(&mut participant);
        let sid = participant.sid.clone();
        let create = Some(new_room(u64::from(self.next_sid) + 100));
        let node = self.nodes[at].id.clone();
        let seat = Seat { participant, node, issued_unix_s: None, now_unix_s: 1, create, trace: None };
        let joined = done(self.store.join(name(), seat))?;
        self.nodes[at].joined.push_back(joined);
        Ok(sid)
    }

    /// The node's room hears of the oldest accepted join.
    pub fn welcome(&mut self, at: usize) {
        let Some(joined) = self.nodes[at].joined.pop_front() else { return };
        if !self.nodes[at].warm {
            self.nodes[at].warm = true;
            self.handle(at, Input::Snapshot(joined.snapshot));
        }
        self.handle(at, Input::Joined { record: joined.record });
    }

    pub fn ask(&mut self, who: &ParticipantSid, what: Request) {
        let at = self.node_of(who);
        let leaves = if let Request::Leave { reason } = &what { Some(*reason) } else { None };
        self.handle(at, Input::Ask { who: who.clone(), what });
        if let Some(client) = self.nodes[at].clients.get_mut(who) {
            client.ended = client.ended.or(leaves);
        }
        self.settle();
    }

    pub fn admin(&mut self, what: Admin) -> Outcome {
        let number = self.nodes[0].outcomes.len() as u64;
        self.handle(0, Input::Admin(AdminAsk { number, what }));
        let outcome = self.nodes[0].outcomes.last().expect("every ask is answered").clone();
        assert_eq!(outcome.0, number);
        self.settle();
        outcome.1
    }

    pub fn levels(&mut self, levels: &[(&ParticipantSid, &str, f32)]) {
        let level = |(who, track, level): &(&ParticipantSid, &str, f32)| {
            ((*who).clone(), TrackSid::from(*track), SpeakerLevel { level: *level, active: *level > 0.0 })
        };
        self.handle(0, Input::Levels { levels: levels.iter().map(level).collect() });
    }

    pub fn handle(&mut self, at: usize, input: Input) {
        self.handle_unpolled(at, input);
        self.nodes[at].drain();
    }

    /// A room that stopped handles nothing any more.
    pub fn handle_unpolled(&mut self, at: usize, input: Input) {
        if self.nodes[at].closed.is_none() {
            self.nodes[at].room.handle(self.now, input);
        }
    }

    /// Somebody begins to watch at a node, or ends.
    pub fn watch(&mut self, at: usize, watches: bool) {
        let watcher = || {
            // What it is told of the room does not matter before it is told.
            let room = RoomInfo {
                sid: "RM_unknown".into(),
                name: name(),
                created_at_ms: 0,
                metadata: String::new(),
                empty_timeout_s: 0,
                departure_timeout_s: 0,
                max_participants: 0,
                participants: 0,
                publishers: 0,
                active_recording: false,
                has_active_egress: false,
                auto_egress: Default::default(),
            };
            Client::new(Welcome { own: Arc::new(person("nobody", "PA_nobody")), room, others: Vec::new() })
        };
        self.nodes[at].drain();
        self.nodes[at].watcher = watches.then(watcher);
        self.handle_unpolled(at, Input::Watch(watches));
    }

    /// Handles several inputs before anybody polls.
    pub fn burst(&mut self, inputs: Vec<Input>) {
        for input in inputs {
            self.nodes[0].room.handle(self.now, input);
        }
        self.nodes[0].drain();
    }

    /// Lets time pass, waking rooms at their deadlines.
    pub fn wait(&mut self, time: Duration) -> Vec<Deadline> {
        let (end, mut woken) = (self.now + time, Vec::new());
        for at in 0..self.nodes.len() {
            while let Some((due, deadline)) = self.nodes[at].room.next_deadline().filter(|(due, _)| *due <= end) {
                self.now = self.now.max(due);
                woken.push(deadline);
                assert!(woken.len() < 1000, "a deadline that does not move: {deadline:?}");
                self.nodes[at].room.handle_timeout(self.now);
                self.nodes[at].drain();
                self.settle();
            }
        }
        self.now = end;
        woken
    }

    /// Everything that is on its way arrives.
    pub fn settle(&mut self) {
        self.nodes.iter_mut().for_each(Node::drain);
        for round in 0.. {
            assert!(round < 1000, "the nodes never come to rest");
            let mut moved = false;
            for at in 0..self.nodes.len() {
                moved |= self.hear(at) || self.write(at) || self.reread(at) || self.say(at);
            }
            if !moved {
                return;
            }
        }
    }

    /// The oldest delta reaches the node.
    pub fn hear(&mut self, at: usize) -> bool {
        match self.next_delta(at) {
            Some(input) => self.handle(at, input),
            None => return false,
        }
        true
    }

    /// Takes the oldest delta out of the node's subscription; lost unless handled.
    pub fn next_delta(&mut self, at: usize) -> Option<Input> {
        self.nodes[at].heard.try_next().map(|event| match event {
            RoomEvent::Delta(delta) => Input::Delta(delta),
            RoomEvent::Resync => panic!("tests stay below the bound"),
        })
    }

    /// The node's oldest write reaches the store.
    pub fn write(&mut self, at: usize) -> bool {
        let Some(change) = self.nodes[at].writes.pop_front() else { return false };
        let refused = match change {
            RecordChange::Put(record) => {
                let refused = done(self.store.put(name(), record.clone())).is_err();
                refused.then(|| record.participant.sid.clone())
            }
            RecordChange::Remove { identity, sid, generation, reason } => {
                let _ = done(self.store.leave(name(), identity, sid, generation, reason));
                None
            }
            RecordChange::CloseIfEmpty => {
                let _ = done(self.store.delete_if_empty(name()));
                None
            }
            RecordChange::Restore { view, seq, info, records } => {
                match done(self.store.restore(name(), Lost { view, seq, info, records })) {
                    Ok(over) => over.into_iter().for_each(|who| self.handle(at, Input::WriteFailed { who })),
                    Err(_) => self.nodes[at].stop(LeaveReason::StateMismatch),
                }
                self.resync(at);
                None
            }
        };
        if let Some(who) = refused {
            self.handle(at, Input::WriteFailed { who });
        }
        true
    }

    /// The node's oldest word reaches the others.
    pub fn say(&mut self, at: usize) -> bool {
        let Some(word) = self.nodes[at].words.pop_front() else { return false };
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            self.handle(other, Input::Heard(word.clone()));
        }
        true
    }

    /// The snapshot that the node asked for arrives.
    pub fn reread(&mut self, at: usize) -> bool {
        if self.nodes[at].rereads == 0 {
            return false;
        }
        self.nodes[at].rereads -= 1;
        self.resync(at);
        true
    }

    /// A snapshot arrives, asked for or not. The actor of a room that does not exist any more stops.
    pub fn resync(&mut self, at: usize) {
        match done(self.store.snapshot(name())) {
            Ok(snapshot) => {
                self.nodes[at].warm = true;
                self.handle(at, Input::Snapshot(snapshot));
            }
            Err(_) => self.nodes[at].stop(LeaveReason::StateMismatch),
        }
    }

    /// Starts a room anew on a node whose room is closed; what it wrote last still arrives.
    pub fn reopen(&mut self, at: usize) {
        let id = self.nodes[at].id.to_string();
        let old = std::mem::replace(&mut self.nodes[at], Node::new(&self.store, self.now, &id));
        self.nodes[at].writes = old.writes;
        self.nodes[at].joined = old.joined;
    }

    pub fn client(&self, sid: &ParticipantSid) -> &Client {
        &self.nodes[self.node_of(sid)].clients[sid]
    }

    /// What this client heard since the last time.
    pub fn heard(&mut self, sid: &ParticipantSid) -> Vec<Notice> {
        let at = self.node_of(sid);
        std::mem::take(&mut self.nodes[at].clients.get_mut(sid).expect("it was welcomed").notices)
    }

    pub fn forget_notices(&mut self) {
        self.nodes.iter_mut().flat_map(|node| node.clients.values_mut()).for_each(|client| client.notices.clear());
    }

    pub fn stored(&self) -> BTreeMap<Identity, Arc<Record>> {
        let records = done(self.store.snapshot(name())).map(|snapshot| snapshot.records).unwrap_or_default();
        records.into_iter().map(|record| (record.participant.identity.clone(), record)).collect()
    }

    pub fn stored_snapshot(&self) -> RoomSnapshot {
        done(self.store.snapshot(name())).expect("there is a room")
    }

    pub fn stored_one(&self, who: &str) -> Arc<Record> {
        self.stored()[&identity(who)].clone()
    }

    /// Everybody knows exactly the visible others, as the store has them; each node's sessions are the store's.
    pub fn check_agreement(&self, context: &str) {
        let stored = self.stored();
        for node in &self.nodes {
            let live: Vec<_> = node.live().map(|(sid, _)| sid.clone()).collect();
            let mut seated: Vec<_> = stored
                .values()
                .filter(|record| record.node == node.id)
                .map(|one| one.participant.sid.clone())
                .collect();
            seated.sort();
            assert_eq!(live, seated, "{context}: sessions of {}", node.id);
            if let Some(watcher) = node.watcher.as_ref().filter(|_| node.closed.is_none()) {
                let visible = stored.values().map(|record| &record.participant).filter(|one| !one.permission.hidden);
                let known: Vec<_> = watcher.others.values().map(|one| (**one).clone()).collect();
                assert_eq!(
                    known,
                    visible.cloned().collect::<Vec<_>>(),
                    "{context}: what {}'s watcher was told",
                    node.id
                );
            }
            for (sid, client) in node.live() {
                let own = &client.own.identity;
                assert_eq!(*client.own, stored[own].participant, "{context}: {sid} about itself");
                let visible = stored.values().map(|record| &record.participant);
                let visible: Vec<_> =
                    visible.filter(|one| one.identity != *own && !one.permission.hidden).cloned().collect();
                let known: Vec<_> = client.others.values().map(|one| (**one).clone()).collect();
                assert_eq!(known, visible, "{context}: what {sid} was told");
            }
        }
    }

    fn node_of(&self, sid: &ParticipantSid) -> usize {
        self.nodes.iter().position(|node| node.clients.contains_key(sid)).expect("some node welcomed it")
    }
}

impl Node {
    fn new(store: &InProcess, now: Instant, id: &str) -> Self {
        Self {
            id: id.into(),
            room: Room::new(now, id.into(), settings()),
            clients: BTreeMap::new(),
            watcher: None,
            writes: VecDeque::new(),
            rereads: 0,
            rereads_seen: 0,
            outcomes: Vec::new(),
            closed: None,
            joined: VecDeque::new(),
            words: VecDeque::new(),
            unattended: 0,
            heard: done(store.subscribe(name())).unwrap(),
            warm: false,
        }
    }

    pub fn live(&self) -> impl Iterator<Item = (&ParticipantSid, &Client)> {
        self.clients.iter().filter(|(_, client)| client.ended.is_none())
    }

    pub fn drain(&mut self) {
        if self.closed.is_some() {
            return;
        }
        while let Some(output) = self.room.poll_output() {
            assert_eq!(self.closed, None, "nothing follows the end: {output:?}");
            match output {
                Output::Tell { who, what } => {
                    self.clients.get_mut(&who).expect("nobody is told before the welcome").hear(what);
                }
                Output::Watched(what) => self.watcher.as_mut().expect("nobody watches").hear(what),
                Output::Welcome { who, welcome } => {
                    assert_eq!(welcome.own.sid, who);
                    let before = self.clients.insert(who, Client::new(welcome));
                    assert!(before.is_none(), "welcomed twice");
                }
                Output::Write(change) => self.writes.push_back(change),
                Output::Say(word) => self.words.push_back(word),
                Output::Unattended => self.unattended += 1,
                Output::Reread => {
                    self.rereads += 1;
                    self.rereads_seen += 1;
                }
                Output::AdminDone { number, outcome } => self.outcomes.push((number, outcome)),
                Output::Closed { reason } => self.closed = Some(reason),
            }
        }
        if let Some(reason) = self.closed {
            self.stop(reason);
        }
    }

    fn stop(&mut self, reason: LeaveReason) {
        self.closed = Some(reason);
        self.rereads = 0;
        for client in self.clients.values_mut() {
            client.ended = client.ended.or(Some(reason));
        }
    }
}

impl Client {
    fn new(welcome: Welcome) -> Self {
        let Welcome { own, room, others } = welcome;
        let mut known = BTreeMap::new();
        for other in others {
            assert!(!other.permission.hidden && other.identity != own.identity, "{other:?}");
            assert!(known.insert(other.identity.clone(), other).is_none(), "twice in one welcome");
        }
        let versions = known.iter().map(|(identity, other)| (identity.clone(), other.version)).collect();
        Self { own, room, others: known, notices: Vec::new(), ended: None, versions, lives: 0 }
    }

    fn hear(&mut self, notice: Notice) {
        assert_eq!(self.ended, None, "{} hears {notice:?} after its end", self.own.sid);
        match &notice {
            Notice::Participants { changed } => {
                assert!(!changed.is_empty());
                let sids: HashSet<_> = changed.iter().map(|person| &person.sid).collect();
                assert!(sids.len() == changed.len() || changed.iter().any(is_gone), "twice in one notice");
                changed.iter().for_each(|person| self.learn(person));
            }
            Notice::OwnChanged { own, .. } => {
                assert_eq!(own.sid, self.own.sid);
                assert!(own.version > self.own.version, "own versions grow");
                self.own = own.clone();
            }
            Notice::Room { room } => {
                if room.sid != self.room.sid {
                    self.versions.clear();
                    self.lives += 1;
                }
                self.room = room.clone();
            }
            Notice::End { reason } => self.ended = Some(*reason),
            Notice::Speakers { speakers } => {
                for (sid, _) in speakers {
                    let known = self.others.values().any(|other| other.sid == *sid) || *sid == self.own.sid;
                    assert!(known, "{} hears of an unknown speaker {sid}", self.own.sid);
                }
            }
            Notice::Data { .. }
            | Notice::TrackSubscribed { .. }
            | Notice::BackupWanted { .. }
            | Notice::MuteTrack { .. }
            | Notice::Quality { .. }
            | Notice::SetSubscription { .. }
            | Notice::DataFrame { .. }
            | Notice::Blob { .. } => {}
        }
        self.notices.push(notice);
    }

    fn learn(&mut self, person: &Arc<Participant>) {
        assert_ne!(person.identity, self.own.identity, "told about itself");
        assert!(!person.permission.hidden);
        let before = self.others.get(&person.identity);
        let version = self.versions.insert(person.identity.clone(), person.version);
        assert!(version.is_none_or(|version| version < person.version), "{version:?} is told already: {person:?}");
        if is_gone(person) {
            assert_eq!(before.map(|before| &before.sid), Some(&person.sid), "{} never knew them", self.own.sid);
            self.others.remove(&person.identity);
            if self.lives > 0 {
                self.versions.remove(&person.identity);
            }
        } else {
            self.others.insert(person.identity.clone(), person.clone());
        }
    }
}

/// Short words for what tests say and expect.
pub fn is_gone(person: &Arc<Participant>) -> bool {
    person.state == ParticipantState::Disconnected
}

pub fn people(notices: &[Notice]) -> Vec<Vec<Arc<Participant>>> {
    let of = |notice: &Notice| match notice {
        Notice::Participants { changed } => Some(changed.clone()),
        _ => None,
    };
    notices.iter().filter_map(of).collect()
}

pub fn own_changes(notices: &[Notice]) -> Vec<(Arc<Participant>, Announce)> {
    let of = |notice: &Notice| match notice {
        Notice::OwnChanged { own, announce } => Some((own.clone(), *announce)),
        _ => None,
    };
    notices.iter().filter_map(of).collect()
}

pub fn rooms(notices: &[Notice]) -> Vec<RoomInfo> {
    let of = |notice: &Notice| match notice {
        Notice::Room { room } => Some(room.clone()),
        _ => None,
    };
    notices.iter().filter_map(of).collect()
}

pub fn publish(tracks: Vec<Track>) -> Request {
    Request::Publish { tracks }
}

pub fn track(sid: &str, source: Source) -> Track {
    let audio = matches!(source, Source::Microphone | Source::ScreenShareAudio);
    Track {
        sid: sid.into(),
        kind: if audio { MediaKind::Audio } else { MediaKind::Video },
        source,
        name: String::new(),
        muted: false,
        width: 0,
        height: 0,
        simulcast: false,
        stream: "camera".into(),
        mime: "video/VP8".into(),
        mid: "0".into(),
        codecs: Vec::new(),
        layers: Vec::new(),
        encryption: Encryption::None,
        disable_red: false,
        audio_features: Vec::new(),
        trailer_features: Vec::new(),
        backup_codec_policy: BackupCodecPolicy::default(),
        version: Version { unix_micros: 1, ticks: 0 },
    }
}

pub fn person(who: &str, sid: &str) -> Participant {
    Participant {
        sid: sid.into(),
        identity: identity(who),
        name: String::new(),
        metadata: String::new(),
        attributes: BTreeMap::new(),
        state: ParticipantState::Joined,
        kind: ParticipantKind::Standard,
        permission: Permission { can_update_metadata: true, ..Permission::default() },
        tracks: Vec::new(),
        audience: plenary_model::Audience::default(),
        data_tracks: Vec::new(),
        joined_at_ms: 0,
        version: 1,
        is_publisher: false,
        leave_reason: LeaveReason::Unknown,
        client_protocol: 1,
        capabilities: Vec::new(),
    }
}

pub fn new_room(view: u64) -> NewRoom {
    NewRoom {
        name: name(),
        sid: format!("RM_{view}").into(),
        view,
        now_unix_ms: 1,
        metadata: None,
        empty_timeout_s: None,
        departure_timeout_s: None,
        max_participants: None,
        auto_egress: Default::default(),
        defaults: RoomDefaults { empty_timeout_s: 300, departure_timeout_s: 20, max_participants: 0 },
    }
}

pub fn identity(who: &str) -> Identity {
    Identity::try_from(who).unwrap()
}

pub fn name() -> RoomName {
    RoomName::try_from("standup").unwrap()
}

/// The in-process store answers at once.
pub fn done<T>(answer: impl Future<Output = T>) -> T {
    answer.now_or_never().expect("the store answers at once")
}

pub fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub fn settings() -> Settings {
    Settings { remote_unmute: false, counts_interval: seconds(5), metadata_bytes_max: 64, attributes_bytes_max: 32 }
}
