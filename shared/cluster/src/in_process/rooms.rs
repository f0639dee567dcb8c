//! The rules: who is seated, what is refused, how the history of a room is numbered. No lock, no clock, no channel.
//!
//! Each call checks everything first, then writes, and gives back its answer with at most one change to publish. Where time
//! is kept (`now_ms`), what Redis would have forgotten by then is forgotten.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use plenary_model::{
    Departed, Egress, Identity, LeaveReason, NodeId, Participant, ParticipantSid, Record, RoomChange, RoomDelta,
    RoomInfo, RoomName, RoomSid, RoomSnapshot,
};

use crate::{
    Changed, Happening, Joined, Lost, NewRoom, ROOM_LIFE, Seat, StoreError, outbox,
    seats::{is_counted, is_dependent, is_recorder},
};

type Answer<T> = Result<(T, Option<RoomDelta>), StoreError>;

#[derive(Debug, Clone, Default)]
pub(super) struct Rooms {
    rooms: BTreeMap<RoomName, Room>,
    /// One count for every room and life of a room, so that no identity's generation ever falls.
    last_generation: u64,
    /// The views of the last lives of each name.
    ended: HashMap<RoomName, Ended>,
    /// Unix time, if it passes here.
    now_ms: Option<u64>,
    /// What the call under way brought about for those outside, if anybody is told.
    happenings: Option<Vec<Happening>>,
}

#[derive(Debug, Clone, Default)]
struct Ended {
    views: VecDeque<u64>,
    until_ms: u64,
}

#[derive(Debug, Clone)]
struct Room {
    ended: Vec<u64>,
    /// Until when it lives without being touched, and until when its people do.
    until_ms: u64,
    people_until_ms: u64,
    info: RoomInfo,
    view: u64,
    seq: u64,
    records: BTreeMap<Identity, Arc<Record>>,
    departed: DepartedPeople,
}

impl Rooms {
    /// Keeps what happens for [`take_happenings`](Self::take_happenings).
    pub(super) fn telling() -> Self {
        Self { happenings: Some(Vec::new()), ..Self::default() }
    }

    pub(super) fn take_happenings(&mut self) -> Vec<Happening> {
        self.happenings.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Time passes: what nobody touched in time is gone without a word.
    #[cfg(feature = "simulation")]
    pub(super) fn set_time(&mut self, now_ms: u64) {
        self.now_ms = Some(now_ms);
        self.rooms.retain(|_, room| room.until_ms > now_ms);
        for room in self.rooms.values_mut().filter(|room| room.people_until_ms <= now_ms) {
            room.records.clear();
            room.departed = DepartedPeople::default();
        }
        self.ended.retain(|_, ended| ended.until_ms > now_ms);
    }

    pub(super) fn touch(&mut self, name: &RoomName) -> Result<(), StoreError> {
        let now_ms = self.now_ms;
        self.existing(name).map(|room| room.live(now_ms))
    }

    pub(super) fn create(&mut self, new: NewRoom) -> Answer<RoomInfo> {
        let now_ms = self.now_ms;
        let Some(room) = self.rooms.get_mut(&new.name) else {
            let info = self.make(new)?.told();
            tell(&mut self.happenings, || info.clone(), Changed::Started);
            return Ok((info, None));
        };
        room.live(now_ms);
        let mut info = room.info.clone();
        info.metadata = new.metadata.unwrap_or(info.metadata);
        info.empty_timeout_s = new.empty_timeout_s.unwrap_or(info.empty_timeout_s);
        info.departure_timeout_s = new.departure_timeout_s.unwrap_or(info.departure_timeout_s);
        info.max_participants = new.max_participants.unwrap_or(info.max_participants);
        let delta = room.set_info(info);
        Ok((room.told(), delta))
    }

    pub(super) fn join(&mut self, name: &RoomName, seat: Seat) -> Answer<Joined> {
        let Seat { participant, node, create, trace, .. } = seat;
        let now_ms = self.now_ms;
        // A refused join leaves a gap, which nobody minds. The time in it makes it grow even when the count itself was lost.
        let by_time = now_ms.unwrap_or_default().saturating_mul(256);
        self.last_generation = self.last_generation.saturating_add(1).max(by_time);
        let generation = self.last_generation;
        if !self.rooms.contains_key(name) {
            let new = create.ok_or(StoreError::NoSuchRoom)?;
            let info = self.make(NewRoom { name: name.clone(), ..new })?.told();
            tell(&mut self.happenings, || info, Changed::Started);
        }
        let room = self.rooms.get_mut(name).ok_or(StoreError::NoSuchRoom)?;
        room.live(now_ms);
        let replaced = room.records.get(&participant.identity).cloned();
        if let Some(same) = replaced.as_ref().filter(|record| record.participant.sid == participant.sid) {
            return Ok((Joined { record: same.clone(), replaced: None, snapshot: room.snapshot() }, None));
        }
        if !room.has_seat_for(&participant) {
            return Err(StoreError::Full);
        }
        let last_version = match &replaced {
            Some(record) => record.participant.version,
            None => room.departed.take(&participant.identity),
        };
        let version = participant.version.max(last_version.saturating_add(1));
        let record = Record { participant: Participant { version, ..participant }, generation, node };
        let record = Arc::new(record);
        room.records.insert(record.participant.identity.clone(), record.clone());
        if replaced.is_some() {
            let (before, after) = (replaced.clone(), Some(record.clone()));
            let seat = Changed::Seat { before, after, reason: LeaveReason::Unknown };
            tell(&mut self.happenings, || room.told(), seat);
        }
        let delta = RoomDelta { trace, ..room.number(RoomChange::Put(record.clone())) };
        Ok((Joined { record, replaced, snapshot: room.snapshot() }, Some(delta)))
    }

    pub(super) fn put(&mut self, name: &RoomName, record: Arc<Record>) -> Answer<u64> {
        let room = self.rooms.get_mut(name).ok_or(StoreError::NoSuchRoom)?;
        let stored = room.records.get(&record.participant.identity).ok_or(StoreError::Superseded)?;
        if !is_session(stored, &record.participant.sid, record.generation) {
            return Err(StoreError::Superseded);
        }
        if record.participant.version <= stored.participant.version {
            return Ok((room.seq, None));
        }
        if !room.has_seat_for(&record.participant) {
            return Err(StoreError::Full);
        }
        let before = room.records.insert(record.participant.identity.clone(), record.clone());
        if self.happenings.is_some()
            && before.as_ref().map(|before| outbox::mark(&before.participant))
                != Some(outbox::mark(&record.participant))
        {
            let seat = Changed::Seat { before, after: Some(record.clone()), reason: LeaveReason::Unknown };
            tell(&mut self.happenings, || room.told(), seat);
        }
        let delta = room.number(RoomChange::Put(record));
        Ok((room.seq, Some(delta)))
    }

    pub(super) fn leave(
        &mut self,
        name: &RoomName,
        identity: Identity,
        sid: &ParticipantSid,
        generation: u64,
        reason: LeaveReason,
    ) -> Answer<u64> {
        let room = self.rooms.get_mut(name).ok_or(StoreError::NoSuchRoom)?;
        let Some(stored) = room.records.get(&identity) else { return Ok((room.seq, None)) };
        if !is_session(stored, sid, generation) {
            return Err(StoreError::Superseded);
        }
        // The departure itself is a change that others are told under the next version.
        let version = stored.participant.version.saturating_add(1);
        let before = room.records.remove(&identity);
        tell(&mut self.happenings, || room.told(), Changed::Seat { before, after: None, reason });
        room.departed.note(Departed { identity: identity.clone(), generation, reason }, version);
        let delta = room.number(RoomChange::Removed { identity, sid: sid.clone(), generation, reason });
        Ok((room.seq, Some(delta)))
    }

    pub(super) fn restore(
        &mut self,
        name: &RoomName,
        lost: Lost,
    ) -> Result<(Vec<ParticipantSid>, Vec<RoomDelta>), StoreError> {
        let last = self.last_generation;
        // Whoever is not in the next life was in one that ended.
        let is_ended = self.ended.get(name).is_some_and(|ended| ended.views.contains(&lost.view));
        if !is_ended && !self.rooms.contains_key(name) {
            self.remake(name, &lost)?;
        }
        let now_ms = self.now_ms;
        let room = self.existing(name)?;
        room.live(now_ms);
        let last = lost.records.iter().map(|record| record.generation).fold(last, u64::max);
        if room.view == lost.view {
            room.seq = room.seq.max(lost.seq);
        }
        let (mut over, mut deltas) = (Vec::new(), Vec::new());
        for record in lost.records {
            let held = room.records.get(&record.participant.identity);
            let rank = |record: &Record| (record.generation, record.participant.version);
            let is_held = held.is_some_and(|held| held.generation == record.generation);
            let is_replaced = held.is_some_and(|held| held.generation > record.generation);
            if room.departed.ended(&record) || is_replaced || (is_ended && !is_held) {
                over.push(record.participant.sid.clone());
            } else if held.is_none_or(|held| rank(held) < rank(&record)) {
                room.departed.forget(&record.participant.identity);
                room.records.insert(record.participant.identity.clone(), record.clone());
                deltas.push(room.number(RoomChange::Put(record)));
            }
        }
        self.last_generation = last;
        Ok((over, deltas))
    }

    pub(super) fn hosted_by(&self, node: &NodeId) -> Vec<RoomName> {
        let hosts = |room: &Room| room.records.values().any(|record| record.node == *node);
        self.rooms.iter().filter(|(_, room)| hosts(room)).map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn remove_people_of(&mut self, node: &NodeId, reason: LeaveReason) -> Vec<(RoomName, RoomDelta)> {
        let hosted = |record: &&Arc<Record>| record.node == *node;
        let all = self
            .rooms
            .iter()
            .flat_map(|(name, room)| room.records.values().filter(hosted).map(|record| (name.clone(), record.clone())));
        let all: Vec<_> = all.collect();
        let leave = |(name, record): (RoomName, Arc<Record>)| {
            let person = &record.participant;
            let left = self.leave(&name, person.identity.clone(), &person.sid, record.generation, reason);
            Some((name, left.ok()?.1?))
        };
        all.into_iter().filter_map(leave).collect()
    }

    pub(super) fn set_meta(&mut self, name: &RoomName, info: RoomInfo) -> Answer<u64> {
        let room = self.existing(name)?;
        let delta = room.set_info(info);
        Ok((room.seq, delta))
    }

    pub(super) fn snapshot(&self, name: &RoomName) -> Result<RoomSnapshot, StoreError> {
        self.rooms.get(name).map(Room::snapshot).ok_or(StoreError::NoSuchRoom)
    }

    pub(super) fn list(&self, names: &[RoomName]) -> Vec<RoomInfo> {
        if names.is_empty() {
            return self.rooms.values().map(Room::told).collect();
        }
        let mut names: Vec<_> = names.iter().collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().filter_map(|name| self.rooms.get(name)).map(Room::told).collect()
    }

    pub(super) fn delete(&mut self, name: &RoomName, reason: LeaveReason) -> Answer<()> {
        let mut room = self.rooms.remove(name).ok_or(StoreError::NoSuchRoom)?;
        if self.ended.len() >= ENDED_MAX {
            self.ended.clear();
        }
        let ended = self.ended.entry(name.clone()).or_default();
        ended.until_ms = until(self.now_ms, ROOM_LIFE.as_secs());
        ended.views.push_front(room.view);
        ended.views.truncate(LIVES_REMEMBERED);
        for before in std::mem::take(&mut room.records).into_values() {
            let seat = Changed::Seat { before: Some(before), after: None, reason };
            tell(&mut self.happenings, || room.told(), seat);
        }
        tell(&mut self.happenings, || room.told(), Changed::Finished { reason });
        let delta = room.number(RoomChange::Closed { reason });
        Ok(((), Some(delta)))
    }

    pub(super) fn delete_if_empty(&mut self, name: &RoomName) -> Answer<bool> {
        let room = self.existing(name)?;
        if room.records.values().any(|record| !is_dependent(&record.participant)) {
            return Ok((false, None));
        }
        let ((), delta) = self.delete(name, LeaveReason::RoomClosed)?;
        Ok((true, delta))
    }

    /// The sid of the life that goes on.
    pub(super) fn sid(&self, name: &RoomName) -> Option<&RoomSid> {
        self.rooms.get(name).map(|room| &room.info.sid)
    }

    /// Shows whether the room is recorded.
    pub(super) fn show_egress(&mut self, name: &RoomName, is_active: bool) -> Option<RoomDelta> {
        let room = self.rooms.get_mut(name)?;
        if std::mem::replace(&mut room.info.has_active_egress, is_active) == is_active {
            return None;
        }
        Some(room.number(RoomChange::Meta(room.told())))
    }

    pub(super) fn tell_of_egress(&mut self, egress: &Arc<Egress>) {
        let room = || RoomInfo {
            sid: egress.room_sid.clone(),
            name: egress.room.clone(),
            created_at_ms: 0,
            metadata: String::new(),
            empty_timeout_s: 0,
            departure_timeout_s: 0,
            max_participants: 0,
            participants: 0,
            publishers: 0,
            active_recording: false,
            has_active_egress: false,
            auto_egress: Bytes::new(),
        };
        tell(&mut self.happenings, room, Changed::Egress(egress.clone()));
    }

    fn make(&mut self, new: NewRoom) -> Result<&mut Room, StoreError> {
        if self.rooms.len() >= ROOMS_MAX {
            return Err(StoreError::Unavailable);
        }
        let defaults = new.defaults;
        let info = RoomInfo {
            sid: new.sid,
            name: new.name.clone(),
            created_at_ms: new.now_unix_ms,
            metadata: new.metadata.unwrap_or_default(),
            empty_timeout_s: new.empty_timeout_s.unwrap_or(defaults.empty_timeout_s),
            departure_timeout_s: new.departure_timeout_s.unwrap_or(defaults.departure_timeout_s),
            max_participants: new.max_participants.unwrap_or(defaults.max_participants),
            participants: 0,
            publishers: 0,
            active_recording: false,
            has_active_egress: false,
            auto_egress: new.auto_egress,
        };
        Ok(self.insert(info, new.view, 0))
    }

    /// A history that was lost goes on.
    fn remake(&mut self, name: &RoomName, lost: &Lost) -> Result<(), StoreError> {
        if self.rooms.len() >= ROOMS_MAX {
            return Err(StoreError::Unavailable);
        }
        let info = RoomInfo { name: name.clone(), participants: 0, publishers: 0, ..lost.info.clone() };
        self.insert(RoomInfo { active_recording: false, has_active_egress: false, ..info }, lost.view, lost.seq);
        Ok(())
    }

    fn insert(&mut self, info: RoomInfo, view: u64, seq: u64) -> &mut Room {
        let ended = self.ended.get(&info.name).into_iter().flat_map(|ended| &ended.views).copied().collect();
        let (name, records, departed) = (info.name.clone(), BTreeMap::new(), DepartedPeople::default());
        let mut room = Room { ended, until_ms: 0, people_until_ms: 0, info, view, seq, records, departed };
        room.live(self.now_ms);
        self.rooms.entry(name).insert_entry(room).into_mut()
    }

    fn existing(&mut self, name: &RoomName) -> Result<&mut Room, StoreError> {
        self.rooms.get_mut(name).ok_or(StoreError::NoSuchRoom)
    }
}

impl Room {
    /// Somebody needs the room now.
    fn live(&mut self, now_ms: Option<u64>) {
        let life_s = ROOM_LIFE.as_secs();
        self.people_until_ms = until(now_ms, life_s);
        self.until_ms = until(now_ms, life_s.max(self.info.empty_timeout_s.into()));
    }

    /// The only place where the history grows.
    fn number(&mut self, change: RoomChange) -> RoomDelta {
        self.seq = self.seq.saturating_add(1);
        RoomDelta { view: self.view, seq: self.seq, change, trace: None }
    }

    fn set_info(&mut self, asked: RoomInfo) -> Option<RoomDelta> {
        let info = RoomInfo {
            metadata: asked.metadata,
            empty_timeout_s: asked.empty_timeout_s,
            departure_timeout_s: asked.departure_timeout_s,
            max_participants: asked.max_participants,
            ..self.info.clone()
        };
        if info == self.info {
            return None;
        }
        self.info = info;
        Some(self.number(RoomChange::Meta(self.told())))
    }

    /// Whether this person may sit here, in place of whoever holds the identity now.
    fn has_seat_for(&self, person: &Participant) -> bool {
        let others = || self.records.values().filter(|record| record.participant.identity != person.identity);
        let cap = usize::try_from(self.info.max_participants).unwrap_or(usize::MAX);
        let already = self.records.get(&person.identity).is_some_and(|record| is_counted(&record.participant));
        let free = cap == 0 || !is_counted(person) || already || {
            others().filter(|record| is_counted(&record.participant)).count() < cap
        };
        free && others().count() < PEOPLE_MAX
    }

    fn snapshot(&self) -> RoomSnapshot {
        let records = self.records.values().cloned().collect();
        let (departed, ended) = (self.departed.list(), self.ended.clone());
        RoomSnapshot { view: self.view, seq: self.seq, room: self.told(), records, departed, ended }
    }

    fn told(&self) -> RoomInfo {
        let people = || self.records.values().map(|record| &record.participant);
        let count =
            |who: &dyn Fn(&&Participant) -> bool| u32::try_from(people().filter(who).count()).unwrap_or(u32::MAX);
        RoomInfo {
            participants: count(&|person| is_counted(person)),
            publishers: count(&|person| is_counted(person) && person.is_publisher),
            active_recording: self.info.has_active_egress || people().any(is_recorder),
            ..self.info.clone()
        }
    }
}

/// Those who left, with their last versions, so that whoever comes back starts above them.
#[derive(Debug, Clone, Default)]
struct DepartedPeople {
    people: HashMap<Identity, (Departed, u32)>,
    /// Stands for everybody who was forgotten.
    floor: u32,
}

impl DepartedPeople {
    fn note(&mut self, who: Departed, version: u32) {
        if self.people.len() >= DEPARTED_MAX {
            let forgotten = self.people.drain().map(|(_, (_, version))| version).max();
            self.floor = self.floor.max(forgotten.unwrap_or_default());
        }
        self.people.insert(who.identity.clone(), (who, version));
    }

    fn take(&mut self, identity: &Identity) -> u32 {
        self.people.remove(identity).map_or(self.floor, |(_, version)| version).max(self.floor)
    }

    fn forget(&mut self, identity: &Identity) {
        self.people.remove(identity);
    }

    fn ended(&self, record: &Record) -> bool {
        let departed = self.people.get(&record.participant.identity);
        departed.is_some_and(|(departed, _)| departed.generation >= record.generation)
    }

    fn list(&self) -> Vec<Departed> {
        let mut all: Vec<_> = self.people.values().map(|(departed, _)| departed.clone()).collect();
        all.sort_unstable_by(|a, b| a.identity.cmp(&b.identity));
        all
    }
}

fn tell(happenings: &mut Option<Vec<Happening>>, room: impl FnOnce() -> RoomInfo, what: Changed) {
    if let Some(happenings) = happenings {
        happenings.push(Happening { room: room(), what });
    }
}

fn is_session(record: &Record, sid: &ParticipantSid, generation: u64) -> bool {
    record.participant.sid == *sid && record.generation == generation
}

fn until(now_ms: Option<u64>, seconds: u64) -> u64 {
    now_ms.map_or(u64::MAX, |now_ms| now_ms.saturating_add(seconds.saturating_mul(1000)))
}

/// Rooms of one process; more are refused as unavailable.
const ROOMS_MAX: usize = 100_000;

/// People of one room, dependents and hidden ones too; more are refused as full.
const PEOPLE_MAX: usize = 50_000;

/// Names whose last lives are remembered; beyond, all are forgotten.
const ENDED_MAX: usize = 4096;
const LIVES_REMEMBERED: usize = 16;

/// Departed people remembered one by one.
const DEPARTED_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgotten_people_still_start_above_their_last_version() {
        let mut departed = DepartedPeople::default();
        let name = |number: usize| Identity::try_from(format!("p{number}").as_str()).unwrap();
        let who = |number| Departed { identity: name(number), generation: 1, reason: LeaveReason::Unknown };
        departed.note(who(0), 77);
        (1..=DEPARTED_MAX).for_each(|number| departed.note(who(number), 3));
        assert!(departed.people.len() <= DEPARTED_MAX);
        assert!(departed.take(&name(0)) >= 77);
        assert!(departed.take(&name(DEPARTED_MAX)) >= 3);
    }
}
