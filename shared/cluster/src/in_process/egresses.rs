//! The recordings of a node alone, by the rules of `egress.lua`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use plenary_model::{Egress, EgressId, EgressStatus, RoomName, RoomSid};

use crate::{
    EGRESS_KEPT, EGRESS_LEASE_LIFE, EgressFilter, EgressLease, EgressRefusal, Recorder, StoreError, StoredEgress,
    egress::{EGRESSES_MAX, EGRESSES_PER_ROOM_MAX},
};

#[derive(Debug, Clone, Default)]
pub(super) struct Egresses {
    stored: BTreeMap<EgressId, Stored>,
    of_rooms: BTreeMap<RoomName, BTreeSet<EgressId>>,
}

#[derive(Debug, Clone)]
struct Stored {
    egress: Arc<Egress>,
    epoch: u64,
    recorder: Option<Recorder>,
    leased_until_ms: u64,
    changed_ms: u64,
}

impl Egresses {
    pub(super) fn get(&self, id: &EgressId) -> Option<Arc<Egress>> {
        self.stored.get(id).map(|stored| stored.egress.clone())
    }

    /// With the recorder that goes on, if it was lost.
    pub(super) fn add(&mut self, egress: Arc<Egress>, by: Option<Recorder>, now_ms: u64) -> Result<(), StoreError> {
        self.make_place(&egress.room, now_ms)?;
        let (id, room) = (egress.id.clone(), egress.room.clone());
        self.of_rooms.entry(room).or_default().insert(id.clone());
        let epoch = by.as_ref().map_or(0, |by| by.known_epoch);
        let leased_until_ms = if by.is_some() { now_ms.saturating_add(LEASE_LIFE_MS) } else { 0 };
        let stored = Stored { egress, epoch, recorder: by, leased_until_ms, changed_ms: now_ms };
        self.stored.insert(id, stored);
        Ok(())
    }

    pub(super) fn claim(
        &mut self,
        room: &RoomName,
        id: &EgressId,
        by: Recorder,
        now_ms: u64,
    ) -> Result<(EgressLease, Arc<Egress>), StoreError> {
        let stored = self.existing(room, id)?;
        if stored.egress.status.is_over() {
            return Err(StoreError::Egress(EgressRefusal::Over));
        }
        let holder = stored.recorder.as_ref().filter(|_| stored.leased_until_ms > now_ms);
        let is_repeated = holder.is_some_and(|holder| (&holder.node, holder.life) == (&by.node, by.life));
        if holder.is_some() && !is_repeated {
            return Err(StoreError::Egress(EgressRefusal::Held));
        }
        if !is_repeated {
            stored.epoch = stored.epoch.max(by.known_epoch).saturating_add(1).max(now_ms);
        }
        stored.recorder = Some(by);
        stored.lease(now_ms);
        let lease = EgressLease { room: room.clone(), id: id.clone(), epoch: stored.epoch };
        Ok((lease, stored.egress.clone()))
    }

    pub(super) fn renew(&mut self, lease: &EgressLease, now_ms: u64) -> Result<Arc<Egress>, StoreError> {
        let stored = self.leased(lease)?;
        stored.lease(now_ms);
        Ok(stored.egress.clone())
    }

    pub(super) fn release(&mut self, lease: &EgressLease) -> Result<(), StoreError> {
        self.leased(lease)?.leased_until_ms = 0;
        Ok(())
    }

    /// True if it changed.
    pub(super) fn put(
        &mut self,
        egress: Arc<Egress>,
        lease: Option<&EgressLease>,
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        let stored = self.existing(&egress.room, &egress.id)?;
        if lease.is_some_and(|lease| lease.epoch != stored.epoch) {
            return Err(StoreError::Superseded);
        }
        if stored.egress == egress {
            return Ok(false);
        }
        if egress.version != stored.egress.version.saturating_add(1) {
            return Err(StoreError::Egress(EgressRefusal::Changed));
        }
        if !stored.egress.status.may_become(egress.status) {
            return Err(StoreError::Egress(EgressRefusal::Over));
        }
        (stored.egress, stored.changed_ms) = (egress, now_ms);
        Ok(true)
    }

    pub(super) fn list(&self, filter: &EgressFilter, now_ms: u64) -> Vec<StoredEgress> {
        let is_listed = |stored: &&Stored| !stored.is_forgotten(now_ms) && filter.holds(&stored.egress);
        match &filter.room {
            Some(room) => {
                let ids = self.of_rooms.get(room).into_iter().flatten();
                let of_room = ids.filter_map(|id| self.stored.get(id));
                of_room.filter(is_listed).map(|stored| stored.told(now_ms)).collect()
            }
            None => self.stored.values().filter(is_listed).map(|stored| stored.told(now_ms)).collect(),
        }
    }

    pub(super) fn unheld(&self, most: usize, now_ms: u64) -> Vec<StoredEgress> {
        let is_unheld = |stored: &&Stored| {
            stored.leased_until_ms <= now_ms && !stored.egress.status.is_over() && !stored.is_forgotten(now_ms)
        };
        let mut unheld: Vec<_> = self.stored.values().filter(is_unheld).collect();
        unheld.sort_by_key(|stored| stored.leased_until_ms);
        unheld.into_iter().take(most).map(|stored| stored.told(now_ms)).collect()
    }

    /// Whether something of this life of a room is being recorded.
    pub(super) fn is_active(&self, room: &RoomName, sid: &RoomSid) -> bool {
        let of_room = self.of_rooms.get(room).into_iter().flatten().filter_map(|id| self.stored.get(id));
        of_room.map(|stored| &stored.egress).any(|one| one.status == EgressStatus::Active && one.room_sid == *sid)
    }

    fn make_place(&mut self, room: &RoomName, now_ms: u64) -> Result<(), StoreError> {
        let forgotten = |stored: &Stored| stored.is_forgotten(now_ms).then(|| stored.egress.id.clone());
        let mut gone: Vec<_> = match self.stored.len() >= EGRESSES_MAX {
            true => self.stored.values().filter_map(forgotten).collect(),
            false => self.of_room(room).filter_map(forgotten).collect(),
        };
        if gone.is_empty() && self.of_room(room).count() >= EGRESSES_PER_ROOM_MAX {
            let over = self.of_room(room).filter(|stored| stored.egress.status.is_over());
            gone.extend(over.min_by_key(|stored| stored.changed_ms).map(|stored| stored.egress.id.clone()));
        }
        for stored in gone.iter().filter_map(|id| self.stored.remove(id)) {
            if let Some(ids) = self.of_rooms.get_mut(&stored.egress.room) {
                ids.remove(&stored.egress.id);
                if ids.is_empty() {
                    self.of_rooms.remove(&stored.egress.room);
                }
            }
        }
        let is_full = self.stored.len() >= EGRESSES_MAX || self.of_room(room).count() >= EGRESSES_PER_ROOM_MAX;
        if is_full { Err(StoreError::Egress(EgressRefusal::TooMany)) } else { Ok(()) }
    }

    fn of_room(&self, room: &RoomName) -> impl Iterator<Item = &Stored> {
        self.of_rooms.get(room).into_iter().flatten().filter_map(|id| self.stored.get(id))
    }

    fn existing(&mut self, room: &RoomName, id: &EgressId) -> Result<&mut Stored, StoreError> {
        self.stored
            .get_mut(id)
            .filter(|stored| stored.egress.room == *room)
            .ok_or(StoreError::Egress(EgressRefusal::NotThere))
    }

    fn leased(&mut self, lease: &EgressLease) -> Result<&mut Stored, StoreError> {
        let stored = self.existing(&lease.room, &lease.id)?;
        if stored.epoch == lease.epoch { Ok(stored) } else { Err(StoreError::Superseded) }
    }
}

impl Stored {
    fn lease(&mut self, now_ms: u64) {
        (self.leased_until_ms, self.changed_ms) = (now_ms.saturating_add(LEASE_LIFE_MS), now_ms);
    }

    fn told(&self, now_ms: u64) -> StoredEgress {
        let recorder = self.recorder.as_ref().map(|recorder| recorder.node.clone());
        let is_held = self.leased_until_ms > now_ms;
        StoredEgress { egress: self.egress.clone(), epoch: self.epoch, recorder, is_held }
    }

    fn is_forgotten(&self, now_ms: u64) -> bool {
        self.changed_ms.saturating_add(KEPT_MS) <= now_ms
    }
}

const LEASE_LIFE_MS: u64 = EGRESS_LEASE_LIFE.as_millis() as u64;
const KEPT_MS: u64 = EGRESS_KEPT.as_millis() as u64;
