//! This node's copy of the store's records (`cluster.md` 2.5): the next number of its own view is applied, older ones are
//! dropped, and anything else waits for a fresh snapshot.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use plenary_model::{
    Departed, Identity, LeaveReason, Participant, ParticipantSid, Record, RoomChange, RoomDelta, RoomInfo, RoomSnapshot,
};

#[derive(Debug, Default)]
pub(super) struct Replica {
    known: Option<Known>,
    /// By view and number: what cannot be applied yet.
    waiting: BTreeMap<(u64, u64), Waiting>,
    /// How often a snapshot was asked for.
    reads: u64,
    /// Something was heard since the last request for a snapshot that is neither applied nor waiting.
    missed: bool,
    /// A snapshot was asked for and has not come.
    rereading: bool,
    /// What comes may belong to another history of the same view: nothing is applied before the next snapshot.
    is_doubtful: bool,
    /// People whom the store does not know, and of whose end it knows nothing either: it may have lost them.
    unconfirmed: BTreeSet<Identity>,
    /// When they count as gone.
    confirm_by: Option<Instant>,
}

#[derive(Debug)]
struct Waiting {
    delta: Arc<RoomDelta>,
    /// How many snapshots had been asked for when it was heard.
    reads: u64,
}

#[derive(Debug)]
struct Known {
    view: u64,
    seq: u64,
    info: RoomInfo,
    records: BTreeMap<Identity, Arc<Record>>,
    sids: HashMap<ParticipantSid, Identity>,
}

/// What a step of the history means here.
#[derive(Debug)]
pub(super) enum Change {
    Put {
        record: Arc<Record>,
        before: Option<Arc<Record>>,
    },
    Removed {
        record: Arc<Record>,
        reason: LeaveReason,
    },
    Closed {
        reason: LeaveReason,
    },
    /// The room's own facts, or a late word about a session that is gone already.
    Nothing,
}

impl Replica {
    pub(super) fn receive(&mut self, delta: Arc<RoomDelta>) {
        let at = (delta.view, delta.seq);
        if let Some(known) = &self.known
            && delta.view == known.view
            && delta.seq <= known.seq
        {
            return;
        }
        if self.waiting.len() < WAITING_MAX || self.next_place() == Some(at) {
            self.waiting.insert(at, Waiting { delta, reads: self.reads });
        } else {
            self.missed = true;
        }
    }

    pub(super) fn doubt(&mut self) {
        self.is_doubtful = true;
    }

    /// The next change, applied.
    pub(super) fn next(&mut self) -> Option<Change> {
        if self.is_doubtful {
            return None;
        }
        let Waiting { delta, .. } = self.waiting.remove(&self.next_place()?)?;
        let known = self.known.as_mut()?;
        known.seq = delta.seq;
        if let RoomChange::Put(record) = &delta.change {
            self.unconfirmed.remove(&record.participant.identity);
        }
        Some(known.apply(&delta.change))
    }

    /// Whether [`Self::next`] left something that only a snapshot explains.
    pub(super) fn is_behind(&self) -> bool {
        self.known.is_some() && !self.is_doubtful && (self.missed || !self.waiting.is_empty())
    }

    /// True if a snapshot must be asked for now; one that is on its way will do.
    pub(super) fn reread(&mut self) -> bool {
        let asked = std::mem::replace(&mut self.rereading, true);
        if !asked {
            self.missed = false;
        }
        !asked
    }

    /// A snapshot is asked for now.
    pub(super) fn reads(&mut self) {
        self.reads = self.reads.saturating_add(1);
    }

    /// Whether this says less than what is known here. Whoever asked for it has it.
    pub(super) fn is_ahead_of(&mut self, snapshot: &RoomSnapshot) -> bool {
        let is_ahead = self.known.as_ref().is_some_and(|known| known.view == snapshot.view && known.seq > snapshot.seq);
        self.rereading &= !is_ahead;
        is_ahead
    }

    /// Starts from a snapshot. The changes are what it says that was not known.
    pub(super) fn restart(&mut self, now: Instant, snapshot: RoomSnapshot) -> Vec<Change> {
        self.rereading = false;
        self.is_doubtful = false;
        let RoomSnapshot { view, seq, room, records, departed, ended } = snapshot;
        let mut known = Known { view, seq, info: room, records: BTreeMap::new(), sids: HashMap::new() };
        for record in records {
            known.insert(record);
        }
        // Of another history only the fact is kept that it was heard of: a snapshot read from now on knows better.
        let waiting = self.waiting.len();
        self.waiting.retain(|(of, _), _| *of == view);
        self.missed |= self.waiting.len() < waiting;
        self.waiting = self.waiting.split_off(&(view, seq.saturating_add(1)));
        // What was heard before the snapshot was asked for and is not in it belongs to a history that the store has lost, and
        // whose numbers it gives again.
        self.waiting.retain(|_, waiting| waiting.reads == self.reads);
        let Some(before) = self.known.replace(known) else { return self.differences(BTreeMap::new()) };
        let is_over = ended.contains(&before.view) || self.confirm_by.is_some_and(|at| at <= now);
        self.keep_lost(now, &before.records, &departed, is_over);
        let mut changes = self.differences(before.records);
        for change in &mut changes {
            if let Change::Removed { record, reason } = change
                && let Some(departure) = departure_of(record, &departed)
            {
                *reason = departure.reason;
            }
        }
        changes
    }

    /// Whoever is in neither list of the snapshot stays for now.
    fn keep_lost(
        &mut self,
        now: Instant,
        before: &BTreeMap<Identity, Arc<Record>>,
        departed: &[Departed],
        is_over: bool,
    ) {
        self.unconfirmed.clear();
        let Some(known) = self.known.as_mut().filter(|_| !is_over) else {
            self.confirm_by = None;
            return;
        };
        for (identity, record) in before {
            if !known.records.contains_key(identity) && departure_of(record, departed).is_none() {
                known.insert(record.clone());
                self.unconfirmed.insert(identity.clone());
            }
        }
        let until = self.confirm_by.unwrap_or(now + CONFIRM_PATIENCE);
        self.confirm_by = (!self.unconfirmed.is_empty()).then_some(until);
    }

    /// When somebody may have to be given up: a snapshot read then decides.
    pub(super) fn confirm_by(&self) -> Option<Instant> {
        self.confirm_by.filter(|_| !self.rereading)
    }

    pub(super) fn is_doubtful(&self) -> bool {
        self.is_doubtful
    }

    /// Whether the store has lost this person, as far as is known.
    pub(super) fn is_unconfirmed(&self, identity: &Identity) -> bool {
        self.unconfirmed.contains(identity)
    }

    /// Where the history stands.
    pub(super) fn place(&self) -> Option<(u64, u64)> {
        self.known.as_ref().map(|known| (known.view, known.seq))
    }

    /// Forgets a history that ended; the next one starts with a snapshot. Gives back who was there.
    pub(super) fn forget(&mut self) -> Vec<Arc<Record>> {
        self.unconfirmed.clear();
        self.confirm_by = None;
        self.known.take().map(|known| known.records.into_values().collect()).unwrap_or_default()
    }

    pub(super) fn info(&self) -> Option<&RoomInfo> {
        self.known.as_ref().map(|known| &known.info)
    }

    pub(super) fn record(&self, identity: &Identity) -> Option<&Arc<Record>> {
        self.known.as_ref()?.records.get(identity)
    }

    pub(super) fn person(&self, sid: &ParticipantSid) -> Option<&Participant> {
        let known = self.known.as_ref()?;
        known.records.get(known.sids.get(sid)?).map(|record| &record.participant)
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.known.iter().flat_map(|known| known.records.values())
    }

    fn next_place(&self) -> Option<(u64, u64)> {
        let known = self.known.as_ref()?;
        Some((known.view, known.seq.checked_add(1)?))
    }

    fn differences(&self, mut before: BTreeMap<Identity, Arc<Record>>) -> Vec<Change> {
        let mut changes = Vec::new();
        for record in self.records() {
            let before = before.remove(&record.participant.identity);
            if before.as_ref() != Some(record) {
                changes.push(Change::Put { record: record.clone(), before });
            }
        }
        let gone = before.into_values().map(|record| Change::Removed { record, reason: LeaveReason::Unknown });
        changes.extend(gone);
        changes
    }
}

impl Known {
    fn apply(&mut self, change: &RoomChange) -> Change {
        match change {
            RoomChange::Put(record) => {
                let before = self.records.get(&record.participant.identity);
                if before.is_some_and(|before| before.generation > record.generation) {
                    return Change::Nothing;
                }
                Change::Put { record: record.clone(), before: self.insert(record.clone()) }
            }
            RoomChange::Removed { identity, generation, reason, .. } => match self.records.get(identity) {
                Some(record) if record.generation == *generation => match self.remove(identity) {
                    Some(record) => Change::Removed { record, reason: *reason },
                    None => Change::Nothing,
                },
                _ => Change::Nothing,
            },
            RoomChange::Meta(info) => {
                self.info = info.clone();
                Change::Nothing
            }
            RoomChange::Closed { reason } => Change::Closed { reason: *reason },
        }
    }

    fn insert(&mut self, record: Arc<Record>) -> Option<Arc<Record>> {
        let identity = record.participant.identity.clone();
        let before = self.remove(&identity);
        self.sids.insert(record.participant.sid.clone(), identity.clone());
        self.records.insert(identity, record);
        before
    }

    fn remove(&mut self, identity: &Identity) -> Option<Arc<Record>> {
        let record = self.records.remove(identity)?;
        self.sids.remove(&record.participant.sid);
        Some(record)
    }
}

fn departure_of<'d>(record: &Record, departed: &'d [Departed]) -> Option<&'d Departed> {
    let person = &record.participant;
    departed.iter().find(|one| one.identity == person.identity && one.generation >= record.generation)
}

/// Hosts put back what the store lost well within this.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(5);

/// Changes that wait for a snapshot; more are forgotten and another snapshot is read.
const WAITING_MAX: usize = 1024;
