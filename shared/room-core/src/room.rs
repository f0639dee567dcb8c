//! One room as this node knows it: a replica of the store's records, the local sessions, and what they are told.
//!
//! This node alone writes the records of its own people; everybody, them included, is told of a change when its delta
//! comes home, so there is one path from a change to a client. Every session is told the same history from its welcome
//! on, which is why nothing here is kept per session but the point where it came in. The room decides nothing for people
//! of other nodes and knows neither media nor the client wire.

mod admin;
mod api;
mod blobs;
mod census;
mod info;
mod people;
mod replica;
mod requests;
mod sessions;
mod speakers;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use plenary_model::{
    LeaveReason, NodeId, ParticipantSid, QualityScore, Record, RoomInfo, RoomSnapshot, RoomWord, SpeakerLevel, TrackSid,
};

pub use api::{AdminAsk, Deadline, Input, Output, RecordChange, Settings};
use census::Census;
use info::{ToldInfo, Vacancy};
use people::{People, Tick};
use replica::{Change, Replica};
use sessions::{Session, Sessions};
use speakers::Speakers;

use crate::notice::{Notice, Welcome};

/// The decisions of one room on one node.
#[derive(Debug)]
pub struct Room {
    node: NodeId,
    settings: Settings,
    replica: Replica,
    sessions: Sessions,
    people: People,
    speakers: Speakers,
    info: ToldInfo,
    vacancy: Vacancy,
    /// Since when only other nodes have people in it.
    unattended_since: Option<Instant>,
    /// Accepted by the store before the first snapshot came.
    early: Vec<Arc<Record>>,
    /// Whom the store says are served here and are not, and until when they may come back: an earlier room of this node left
    /// them behind, or the store did not say that it seated them, or not that it removed them.
    orphans: BTreeMap<ParticipantSid, Instant>,
    /// Whether the counts may have changed since they were looked at.
    recount: bool,
    /// Since when somebody watches.
    watched: Option<Tick>,
    phase: Phase,
    outputs: VecDeque<Output>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Closed,
}

impl Room {
    /// A room that knows nothing yet: its first [`Input::Snapshot`] starts it.
    pub fn new(now: Instant, node: NodeId, settings: Settings) -> Self {
        Self {
            node,
            settings,
            replica: Replica::default(),
            sessions: Sessions::default(),
            people: People::default(),
            speakers: Speakers::default(),
            info: ToldInfo::default(),
            vacancy: Vacancy::since(now),
            unattended_since: None,
            early: Vec::new(),
            orphans: BTreeMap::new(),
            recount: false,
            watched: None,
            phase: Phase::Open,
            outputs: VecDeque::new(),
        }
    }

    pub fn handle(&mut self, now: Instant, input: Input) {
        if self.phase == Phase::Closed {
            return;
        }
        match input {
            Input::Snapshot(snapshot) => self.on_snapshot(now, snapshot),
            Input::Reading => self.replica.reads(),
            Input::Delta(delta) => {
                self.replica.receive(delta);
                self.catch_up();
            }
            Input::Missed => self.replica.doubt(),
            Input::Joined { record } => self.on_joined(record),
            Input::Ask { who, what } => self.on_ask(now, &who, what),
            Input::Admin(ask) => self.on_admin(ask),
            Input::SessionLost { who, reason } => self.on_leave(&who, reason),
            Input::Levels { levels } => self.on_levels(levels),
            Input::WriteFailed { who } => self.on_write_failed(&who),
            Input::Heard(word) => self.on_word(word),
            Input::Lapsed => self.restore(),
            Input::Watch(watches) => self.watch(watches),
        }
        self.review(now);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        while self.phase == Phase::Open
            && let Some((at, deadline)) = self.next_deadline()
            && at <= now
        {
            match deadline {
                Deadline::EmptyTimeout => {
                    self.vacancy.asked(now);
                    self.outputs.push_back(Output::Write(RecordChange::CloseIfEmpty));
                }
                Deadline::Counts => self.tell_info(now),
                Deadline::Orphans => self.remove_orphans(now),
                Deadline::Unconfirmed => self.ask_for_snapshot(),
                Deadline::Unattended => {
                    self.unattended_since = Some(now);
                    self.outputs.push_back(Output::Unattended);
                }
                Deadline::SimulatedSpeaker => {
                    self.speakers.end_simulations(now);
                    self.tell_speakers();
                }
            }
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        // As late as possible, so that a burst of changes becomes one notice.
        if self.outputs.is_empty() {
            self.tell_people();
        }
        self.outputs.pop_front()
    }

    pub fn next_deadline(&self) -> Option<(Instant, Deadline)> {
        if self.phase == Phase::Closed {
            return None;
        }
        let empty = self.replica.info().and_then(|info| self.vacancy.ends(info));
        [
            empty.map(|at| (at, Deadline::EmptyTimeout)),
            self.info.due().map(|at| (at, Deadline::Counts)),
            self.orphans.values().min().map(|at| (*at, Deadline::Orphans)),
            self.speakers.simulated_until().map(|at| (at, Deadline::SimulatedSpeaker)),
            self.replica.confirm_by().map(|at| (at, Deadline::Unconfirmed)),
            self.unattended_since.map(|since| (since + UNATTENDED_PATIENCE, Deadline::Unattended)),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }

    /// Whether anybody of this node is in it.
    pub fn has_sessions(&self) -> bool {
        !self.sessions.is_empty()
    }

    /// View and number of the last change that is known here.
    pub fn place(&self) -> Option<(u64, u64)> {
        self.replica.place()
    }

    /// Everybody in the room as far as is known here.
    pub fn records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.replica.records()
    }

    /// Whether a person of this node publishes anything.
    pub fn publishes(&self, who: &ParticipantSid) -> bool {
        self.sessions.get(who).is_some_and(|session| !session.record.participant.tracks.is_empty())
    }

    fn on_snapshot(&mut self, now: Instant, snapshot: RoomSnapshot) {
        let is_in_doubt = self.replica.is_doubtful();
        if self.replica.is_ahead_of(&snapshot) {
            // The store went back to an earlier state of this history (a replica that had not followed took over), or the
            // snapshot was read before what is known by now. Putting back is right in both cases, and does nothing in the
            // second; then it is read again.
            return self.restore();
        }
        for change in self.replica.restart(now, snapshot) {
            self.apply(change);
        }
        let is_lost = |session: &Session| {
            let stored = self.replica.record(&session.record.participant.identity);
            let is_stored = stored.is_some_and(|stored| session.is_stored_as(stored));
            self.replica.is_unconfirmed(&session.record.participant.identity) || (is_in_doubt && !is_stored)
        };
        if self.sessions.iter().any(is_lost) {
            self.restore();
        }
        self.recount = true;
        self.catch_up();
        if self.phase == Phase::Closed {
            return;
        }
        self.settle_doubts();
        for record in std::mem::take(&mut self.early) {
            self.on_joined(record);
        }
    }

    /// What this node knows goes back to the store, and is then read from there.
    fn restore(&mut self) {
        let (Some((view, seq)), Some(info)) = (self.replica.place(), self.replica.info().cloned()) else { return };
        // What comes now goes on from what the store has, which is not what is known here.
        self.replica.doubt();
        let records = self.sessions.iter().map(|session| session.record.clone()).collect();
        self.outputs.push_back(Output::Write(RecordChange::Restore { view, seq, info, records }));
    }

    fn note_orphans(&mut self, now: Instant) {
        let ours =
            self.replica.records().filter(|record| record.node == self.node).map(|record| &record.participant.sid);
        let orphans: BTreeSet<_> = ours.filter(|sid| self.sessions.get(sid).is_none()).cloned().collect();
        self.orphans.retain(|sid, _| orphans.contains(sid));
        for sid in orphans {
            self.orphans.entry(sid).or_insert(now + ORPHAN_PATIENCE);
        }
    }

    /// Joins that were on their way have come home by now, and whoever wanted to come back has a newer record.
    fn remove_orphans(&mut self, now: Instant) {
        for (sid, at) in self.orphans.iter_mut().filter(|(_, at)| **at <= now) {
            // Again, should this get lost.
            *at = now + ORPHAN_PATIENCE;
            let orphan = self.replica.records().find(|record| record.participant.sid == *sid);
            let removal = orphan.map(|orphan| RecordChange::removal(orphan, LeaveReason::StateMismatch));
            self.outputs.extend(removal.map(Output::Write));
        }
    }

    fn catch_up(&mut self) {
        while let Some(change) = self.replica.next() {
            self.apply(change);
            if self.phase == Phase::Closed {
                return;
            }
        }
        if self.replica.is_behind() {
            self.ask_for_snapshot();
        }
    }

    fn ask_for_snapshot(&mut self) {
        if self.replica.reread() {
            self.outputs.push_back(Output::Reread);
        }
    }

    fn apply(&mut self, change: Change) {
        self.recount = true;
        match change {
            Change::Put { record, before } => self.on_put(&record, before.as_deref()),
            Change::Removed { record, reason } => self.on_removed(&record, reason),
            Change::Nothing => {}
            Change::Closed { reason } => self.on_closed(reason),
        }
    }

    fn on_put(&mut self, record: &Arc<Record>, before: Option<&Record>) {
        let person = &record.participant;
        if let Some(session) = self.sessions.of_mut(&person.identity) {
            if session.record.generation < record.generation {
                let old = session.record.participant.sid.clone();
                self.end(&old, LeaveReason::DuplicateIdentity);
            } else if session.is(record) {
                session.came_home(record);
            }
        }
        match before {
            Some(before) if before.participant.sid != person.sid => self.silence(&before.participant.sid),
            _ if person.permission.hidden => self.silence(&person.sid),
            _ => self.speakers.keep_only(person),
        }
        if person.permission.hidden {
            self.people.hide(person, LeaveReason::Unknown);
        } else {
            self.people.show(person);
        }
    }

    fn on_removed(&mut self, record: &Record, reason: LeaveReason) {
        let person = &record.participant;
        self.silence(&person.sid);
        self.people.hide(person, reason);
        // Somebody else removed one of ours.
        if self.sessions.get(&person.sid).is_some_and(|session| session.is(record)) {
            self.end(&person.sid, reason_for_itself(reason));
        }
    }

    fn on_closed(&mut self, reason: LeaveReason) {
        // A session that this history never showed was seated after it ended, in the room's next life.
        for sid in self.sessions.seen_in_store() {
            self.end(&sid, reason);
        }
        if self.sessions.is_empty() {
            self.phase = Phase::Closed;
            self.watched = None;
            self.outputs.push_back(Output::Closed { reason });
            return;
        }
        for record in self.replica.forget() {
            self.silence(&record.participant.sid);
            self.people.hide(&record.participant, reason);
        }
        self.info.wait_for_snapshot();
        self.ask_for_snapshot();
    }

    fn on_joined(&mut self, record: Arc<Record>) {
        if self.replica.info().is_none() {
            if self.early.len() < EARLY_MAX {
                self.early.push(record);
            } else {
                self.write_removal(&record, LeaveReason::JoinFailure);
            }
            return;
        }
        let person = &record.participant;
        let (sid, identity) = (person.sid.clone(), person.identity.clone());
        let mut superseded = self.replica.record(&identity).is_some_and(|now| now.generation > record.generation);
        if let Some(other) = self.sessions.of(&identity) {
            if other.is(&record) {
                return;
            }
            superseded |= other.record.generation > record.generation;
            if !superseded {
                let other = other.record.participant.sid.clone();
                self.end(&other, LeaveReason::DuplicateIdentity);
            }
        }
        // The record's delta may have come first, and even a change of it.
        let home = self.replica.record(&identity).filter(|home| home.generation == record.generation);
        let home = home.filter(|_| !self.replica.is_unconfirmed(&identity));
        let newest = home.cloned().unwrap_or_else(|| record.clone());
        let session = Session::new(newest, home.is_some(), self.people.register());
        let own = Arc::new(session.record.participant.clone());
        if !superseded {
            self.sessions.seat(session);
        }
        self.recount = true;
        let room = self.current_info();
        self.info.welcomed_with(&room);
        let welcome = Welcome { own, room, others: self.people.everybody_but(Some(&identity)) };
        self.outputs.push_back(Output::Welcome { who: sid.clone(), welcome });
        if superseded {
            self.tell(&sid, Notice::End { reason: LeaveReason::DuplicateIdentity });
            return;
        }
        let speakers = self.speakers.current();
        if !speakers.is_empty() {
            self.tell(&sid, Notice::Speakers { speakers });
        }
        let visible = self.sessions.iter().filter(|session| !session.record.participant.permission.hidden);
        let measured = visible.filter_map(|session| Some((session.record.participant.sid.clone(), session.quality?)));
        let changed: Vec<_> = measured.collect();
        if !changed.is_empty() {
            self.tell(&sid, Notice::Quality { changed });
        }
    }

    fn on_levels(&mut self, levels: Vec<(ParticipantSid, TrackSid, SpeakerLevel)>) {
        let speaks = |(who, track, _): &(ParticipantSid, TrackSid, SpeakerLevel)| {
            let person = self.replica.person(who).filter(|person| !person.permission.hidden);
            person.is_some_and(|person| person.tracks.iter().any(|theirs| theirs.sid == *track && !theirs.muted))
        };
        let levels: Vec<_> = levels.into_iter().filter(speaks).collect();
        self.speakers.measured(levels);
        self.tell_speakers();
    }

    /// Everybody of this node hears of a change of class; whoever is hidden hears of itself.
    fn on_quality(&mut self, who: &ParticipantSid, quality: QualityScore) {
        let Some(session) = self.sessions.get_mut(who) else { return };
        let before = session.quality.replace(quality);
        if before.is_some_and(|before| before.quality == quality.quality) {
            return;
        }
        let hidden = session.record.participant.permission.hidden;
        let hears = |session: &Session| !hidden || session.record.participant.sid == *who;
        let changed = [(who.clone(), quality)];
        self.tell_everybody(|session| hears(session).then(|| Notice::Quality { changed: changed.to_vec() }));
        if !hidden {
            self.say(RoomWord::Quality { who: who.clone(), quality });
        }
    }

    fn on_write_failed(&mut self, who: &ParticipantSid) {
        if let Some(session) = self.sessions.get_mut(who) {
            session.doubt();
            self.ask_for_snapshot();
        }
    }

    /// After a fresh look at the store: writes that were lost are repeated, sessions that are gone there end here.
    fn settle_doubts(&mut self) {
        for sid in self.sessions.doubted() {
            let Some(session) = self.sessions.get_mut(&sid) else { continue };
            if self.replica.is_unconfirmed(&session.record.participant.identity) {
                continue;
            }
            let stored = self.replica.record(&session.record.participant.identity);
            let Some(stored) = stored.filter(|stored| session.is(stored)) else {
                self.end(&sid, LeaveReason::StateMismatch);
                continue;
            };
            if stored.participant.version >= session.record.participant.version {
                session.came_home(&stored.clone());
                continue;
            }
            let record = session.record.clone();
            if session.may_rewrite() {
                self.outputs.push_back(Output::Write(RecordChange::Put(record)));
            } else {
                self.write_removal(&record, LeaveReason::StateMismatch);
                self.end(&sid, LeaveReason::StateMismatch);
            }
        }
    }

    /// Counts, the room's own facts and its emptiness, after whatever happened.
    fn review(&mut self, now: Instant) {
        if self.phase == Phase::Closed || !std::mem::take(&mut self.recount) || self.replica.info().is_none() {
            return;
        }
        self.note_orphans(now);
        let is_alive = self.census().alive;
        self.vacancy.review(now, is_alive);
        let is_unattended = is_alive && self.sessions.is_empty() && self.orphans.is_empty() && self.watched.is_none();
        self.unattended_since = is_unattended.then(|| self.unattended_since.unwrap_or(now));
        self.tell_info(now);
    }

    fn tell_info(&mut self, now: Instant) {
        if let Some(room) = self.info.news(now, self.current_info(), self.settings.counts_interval) {
            self.tell_watcher(|| Notice::Room { room: room.clone() });
            self.tell_everybody(|_| Some(Notice::Room { room: room.clone() }));
        }
    }

    fn current_info(&self) -> RoomInfo {
        let info = self.replica.info().cloned().expect("asked for only after the first snapshot");
        self.census().fill(info)
    }

    fn census(&self) -> Census {
        let unseen = self.sessions.iter().map(|session| &session.record);
        let unseen = unseen.filter(|record| self.replica.record(&record.participant.identity).is_none());
        Census::of(self.replica.records().chain(unseen).map(|record| &record.participant))
    }

    fn tell_people(&mut self) {
        if !self.people.has_news() {
            return;
        }
        for session in self.sessions.iter() {
            let person = &session.record.participant;
            let changed = self.people.news_for(Some(&person.identity), session.registered);
            if !changed.is_empty() {
                let what = Notice::Participants { changed };
                self.outputs.push_back(Output::Tell { who: person.sid.clone(), what });
            }
        }
        if let Some(since) = self.watched {
            let changed = self.people.news_for(None, since);
            if !changed.is_empty() {
                self.outputs.push_back(Output::Watched(Notice::Participants { changed }));
            }
        }
        self.people.told();
    }

    fn tell_speakers(&mut self) {
        let speakers = self.speakers.news();
        if !speakers.is_empty() {
            // Nobody hears of a speaker before hearing of the person.
            self.tell_people();
            self.tell_watcher(|| Notice::Speakers { speakers: speakers.clone() });
            self.tell_everybody(|_| Some(Notice::Speakers { speakers: speakers.clone() }));
        }
    }

    /// Somebody stops speaking by not being there: told at once, since clients forget whom they no longer know.
    fn silence(&mut self, sid: &ParticipantSid) {
        if self.speakers.forget(sid) {
            let silent = SpeakerLevel { level: 0.0, active: false };
            let told = Notice::Speakers { speakers: vec![(sid.clone(), silent)] };
            self.tell_watcher(|| told.clone());
            self.tell_everybody(|_| Some(told.clone()));
        }
    }

    /// This session is over on our side; whatever it still says is ignored.
    fn end(&mut self, sid: &ParticipantSid, reason: LeaveReason) {
        if self.sessions.remove(sid).is_some() {
            self.recount = true;
            self.tell(sid, Notice::End { reason });
        }
    }

    fn write_removal(&mut self, record: &Record, reason: LeaveReason) {
        self.outputs.push_back(Output::Write(RecordChange::removal(record, reason)));
    }

    fn watch(&mut self, watches: bool) {
        // Whoever watches already hears of those who have just left.
        self.tell_people();
        self.watched = watches.then(|| self.people.register());
        // Whoever watches keeps the room here.
        self.recount = true;
        let (changed, speakers) = (self.people.everybody_but(None), self.speakers.current());
        if !changed.is_empty() {
            self.tell_watcher(|| Notice::Participants { changed });
        }
        if !speakers.is_empty() {
            self.tell_watcher(|| Notice::Speakers { speakers });
        }
    }

    fn tell_watcher(&mut self, what: impl FnOnce() -> Notice) {
        if self.watched.is_some() {
            self.outputs.push_back(Output::Watched(what()));
        }
    }

    fn tell(&mut self, who: &ParticipantSid, what: Notice) {
        self.outputs.push_back(Output::Tell { who: who.clone(), what });
    }

    fn tell_everybody(&mut self, mut what: impl FnMut(&Session) -> Option<Notice>) {
        for session in self.sessions.iter() {
            if let Some(what) = what(session) {
                let who = session.record.participant.sid.clone();
                self.outputs.push_back(Output::Tell { who, what });
            }
        }
    }
}

/// What somebody whose record another node removed is told: a decision about them stands, an accident is worth a new
/// session.
fn reason_for_itself(reason: LeaveReason) -> LeaveReason {
    match reason {
        LeaveReason::ParticipantRemoved
        | LeaveReason::DuplicateIdentity
        | LeaveReason::RoomDeleted
        | LeaveReason::RoomClosed => reason,
        LeaveReason::Unknown
        | LeaveReason::ClientInitiated
        | LeaveReason::ServerShutdown
        | LeaveReason::StateMismatch
        | LeaveReason::JoinFailure
        | LeaveReason::SignalClose
        | LeaveReason::ConnectionTimeout
        | LeaveReason::Migration
        | LeaveReason::MediaFailure => LeaveReason::StateMismatch,
    }
}

/// Longer than a join takes, and so short that nobody is a ghost for ten seconds.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(8);

/// Whoever comes back within this finds the room as it was.
const UNATTENDED_PATIENCE: Duration = Duration::from_secs(10);

/// Joins that wait for the first snapshot; more are unseated again and time out at the door.
const EARLY_MAX: usize = 1024;
