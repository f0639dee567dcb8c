//! Random operations against a second opinion: a small model, and the history a subscriber hears.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use plenary_model::*;

use super::{Cluster, name, new_room, newer, seat_with};
use crate::*;

/// I1: numbers grow by one within a view, and what is heard adds up to the snapshot. I2: generations never fall. I3: nobody
/// is let in beyond the cap. Besides, every answer is the one that the model expects.
pub async fn random_operations_keep_the_invariants(cluster: Arc<impl Cluster>) {
    let seeds = match std::env::var("PLENARY_SEED") {
        Ok(seed) => seed.parse().map(|seed| seed..seed + 1).expect("PLENARY_SEED is a number"),
        Err(_) => 0..SEEDS,
    };
    for seed in seeds {
        let mut world = World::new(cluster.clone(), seed).await;
        for step in 0..STEPS {
            world.step(step).await;
        }
    }
}

struct World<C> {
    cluster: Arc<C>,
    random: Random,
    seed: u64,
    room: RoomName,
    heard: Subscription,
    /// What was heard, added up.
    replica: Option<Replica>,
    model: Option<Model>,
    last_generation: HashMap<Identity, u64>,
    last_version: HashMap<Identity, u32>,
    /// Every session there ever was: late words of old ones are the interesting ones.
    sessions: Vec<Arc<Record>>,
}

struct Replica {
    view: u64,
    seq: u64,
    people: BTreeMap<Identity, Arc<Record>>,
}

struct Model {
    view: u64,
    cap: u32,
    people: BTreeMap<Identity, Arc<Record>>,
}

impl<C: Cluster> World<C> {
    async fn new(cluster: Arc<C>, seed: u64) -> Self {
        let room = name(&format!("room-{seed}"));
        Self {
            heard: cluster.subscribe(room.clone()).await.unwrap(),
            cluster,
            random: Random(seed),
            seed,
            room,
            replica: None,
            model: None,
            last_generation: HashMap::new(),
            last_version: HashMap::new(),
            sessions: Vec::new(),
        }
    }

    async fn step(&mut self, step: u64) {
        match self.random.below(16) {
            0..5 => self.join(step).await,
            5..9 => self.put().await,
            9..13 => self.leave().await,
            13 => self.set_meta(step).await,
            14 if self.random.below(4) == 0 => self.delete().await,
            _ => self.delete_if_empty().await,
        }
        self.compare().await;
    }

    async fn join(&mut self, step: u64) {
        let who = format!("p{}", self.random.below(PEOPLE));
        let kind = self.random.below(6);
        let shape = |person: &mut Participant| {
            person.permission.hidden = kind == 0;
            person.permission.recorder = kind == 1;
        };
        let create = NewRoom { name: self.room.clone(), max_participants: Some(CAP), ..new_room("r", step + 1) };
        let seat = Seat { create: Some(create), ..seat_with(&who, &format!("PA_{step}"), shape) };
        let answer = self.cluster.join(self.room.clone(), seat.clone()).await;
        let model = self.model.get_or_insert_with(|| Model { view: step + 1, cap: CAP, people: BTreeMap::new() });
        let who = seat.participant.identity.clone();
        let before = model.people.get(&who).cloned();
        if !model.has_seat_for(&seat.participant) {
            assert_eq!(answer, Err(StoreError::Full), "seed {}", self.seed);
            return;
        }
        let joined = answer.unwrap_or_else(|refusal| panic!("seed {}: {refusal}", self.seed));
        assert_eq!(joined.replaced, before, "seed {}", self.seed);
        let last = self.last_generation.insert(who.clone(), joined.record.generation);
        assert!(last.is_none_or(|last| last < joined.record.generation), "seed {}: I2", self.seed);
        let version = joined.record.participant.version;
        let last = self.last_version.insert(who.clone(), version);
        assert!(last.is_none_or(|last| last < version), "seed {}: version {version} after {last:?}", self.seed);
        model.people.insert(who, joined.record.clone());
        self.sessions.push(joined.record);
    }

    async fn put(&mut self) {
        let Some(session) = self.any_session() else { return };
        let hidden = self.random.below(4) == 0;
        let current = self.model.as_ref().and_then(|model| model.people.get(&session.participant.identity)).cloned();
        let base = current.as_ref().filter(|current| current.generation == session.generation).unwrap_or(&session);
        let record = newer(base, |person| person.permission.hidden = hidden);
        let answer = self.cluster.put(self.room.clone(), record.clone()).await;
        let expected = match &mut self.model {
            None => Err(StoreError::NoSuchRoom),
            Some(_) if current.is_none_or(|current| current.generation != session.generation) => {
                Err(StoreError::Superseded)
            }
            Some(model) if !model.has_seat_for(&record.participant) => Err(StoreError::Full),
            Some(model) => {
                self.last_version.insert(record.participant.identity.clone(), record.participant.version);
                model.people.insert(record.participant.identity.clone(), record);
                Ok(())
            }
        };
        assert_eq!(answer.map(drop), expected, "seed {}", self.seed);
    }

    async fn leave(&mut self) {
        let Some(session) = self.any_session() else { return };
        let (who, sid) = (session.participant.identity.clone(), session.participant.sid.clone());
        let reason = LeaveReason::ClientInitiated;
        let answer = self.cluster.leave(self.room.clone(), who.clone(), sid, session.generation, reason).await;
        let expected = match &mut self.model {
            None => Err(StoreError::NoSuchRoom),
            Some(model) => match model.people.get(&who) {
                Some(current) if current.generation != session.generation => Err(StoreError::Superseded),
                Some(_) => {
                    model.people.remove(&who);
                    Ok(())
                }
                None => Ok(()),
            },
        };
        assert_eq!(answer.map(drop), expected, "seed {}", self.seed);
    }

    async fn set_meta(&mut self, step: u64) {
        let Ok(snapshot) = self.cluster.snapshot(self.room.clone()).await else { return };
        let info = RoomInfo { metadata: format!("m{step}"), participants: 77, ..snapshot.room };
        let answer = self.cluster.set_meta(self.room.clone(), info).await;
        assert_eq!(answer, Ok(snapshot.seq + 1), "seed {}", self.seed);
    }

    async fn delete(&mut self) {
        let answer = self.cluster.delete(self.room.clone(), LeaveReason::RoomDeleted).await;
        let expected = self.model.take().map(drop).ok_or(StoreError::NoSuchRoom);
        assert_eq!(answer, expected, "seed {}", self.seed);
        self.last_version.clear();
    }

    async fn delete_if_empty(&mut self) {
        let answer = self.cluster.delete_if_empty(self.room.clone()).await;
        let empty =
            self.model.as_ref().map(|model| model.people.values().all(|one| one.participant.permission.recorder));
        assert_eq!(answer, empty.ok_or(StoreError::NoSuchRoom), "seed {}", self.seed);
        if empty == Some(true) {
            self.model = None;
            self.last_version.clear();
        }
    }

    /// Model, snapshot and the history so far must agree.
    async fn compare(&mut self) {
        let snapshot = match (self.cluster.snapshot(self.room.clone()).await, &self.model) {
            (Ok(snapshot), Some(_)) => Some(snapshot),
            (Err(StoreError::NoSuchRoom), None) => None,
            (other, _) => panic!("seed {}: {other:?}", self.seed),
        };
        let stored = snapshot.as_ref().map(|snapshot| (snapshot.view, snapshot.seq)).filter(|(_, seq)| *seq > 0);
        while self.replica.as_ref().map(|replica| (replica.view, replica.seq)) != stored {
            let Some(RoomEvent::Delta(delta)) = self.heard.next().await else {
                panic!("seed {}: nothing was missed", self.seed)
            };
            self.apply(&delta);
        }
        let (Some(snapshot), Some(model)) = (snapshot, &self.model) else { return };
        let stored: Vec<_> = model.people.values().cloned().collect();
        assert_eq!(snapshot.records, stored, "seed {}", self.seed);
        assert_eq!(snapshot.view, model.view, "seed {}", self.seed);
        assert_eq!(snapshot.room.participants, model.counted(), "seed {}", self.seed);
        assert!(model.counted() <= model.cap, "seed {}: I3", self.seed);
        if let Some(replica) = &self.replica {
            assert!(replica.people.values().eq(&stored), "seed {}: what was heard adds up", self.seed);
        }
    }

    fn apply(&mut self, delta: &RoomDelta) {
        if self.replica.as_ref().is_none_or(|replica| replica.view != delta.view) {
            self.replica = Some(Replica { view: delta.view, seq: 0, people: BTreeMap::new() });
        }
        let replica = self.replica.as_mut().expect("just made");
        assert_eq!(delta.seq, replica.seq + 1, "seed {}: I1", self.seed);
        replica.seq = delta.seq;
        match &delta.change {
            RoomChange::Put(record) => {
                replica.people.insert(record.participant.identity.clone(), record.clone());
            }
            RoomChange::Removed { identity, generation, .. } => {
                let removed = replica.people.remove(identity);
                assert_eq!(removed.map(|record| record.generation), Some(*generation), "seed {}", self.seed);
            }
            RoomChange::Meta(_) => {}
            RoomChange::Closed { .. } => self.replica = None,
        }
    }

    fn any_session(&mut self) -> Option<Arc<Record>> {
        // Mostly recent ones, or nearly every word would be a late one.
        let recent = self.sessions.len().saturating_sub(8);
        let from = if self.random.below(4) == 0 { 0 } else { recent };
        let choice = self.random.below((self.sessions.len() - from) as u64);
        self.sessions.get(from + choice as usize).cloned()
    }
}

impl Model {
    fn has_seat_for(&self, person: &Participant) -> bool {
        let mut after = self.people.clone();
        after.remove(&person.identity);
        let others = after.values().filter(|record| counts(&record.participant)).count();
        !counts(person) || others < self.cap as usize
    }

    fn counted(&self) -> u32 {
        self.people.values().filter(|record| counts(&record.participant)).count() as u32
    }
}

fn counts(person: &Participant) -> bool {
    !person.permission.hidden && !person.permission.recorder
}

/// SplitMix64.
struct Random(u64);

impl Random {
    /// 0 for an empty range.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)).checked_rem(end).unwrap_or_default()
    }
}

const SEEDS: u64 = 24;
const STEPS: u64 = 300;
const PEOPLE: u64 = 6;
const CAP: u32 = 3;
