//! The list of bans: what the store keeps, and what every node has a copy of. No clock: whoever asks brings the time.

use std::collections::HashMap;

use plenary_model::{Ban, BanEntry, Identity, RoomName};

use crate::StoreError;

/// Who is kept out of where. Bounded, and forgets by itself what is over.
#[derive(Debug, Clone, Default)]
pub struct Bans {
    people: HashMap<Identity, HashMap<Option<RoomName>, Entry>>,
    per_room: HashMap<Option<RoomName>, usize>,
    count: usize,
}

/// A person may be banned from a room and have tokens revoked there: outliving one leaves the other. As in [`BanEntry`].
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    banned_until: u64,
    tokens_before: u64,
    revoked_until: u64,
    version: u64,
}

/// Why somebody is kept out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barred {
    /// Whatever the token.
    Banned,
    /// A token issued later would do.
    Revoked,
}

impl Bans {
    /// The bans of a list, as read from a store; what does not fit is left out.
    pub fn from_list(entries: Vec<BanEntry>, now_unix_s: u64) -> Self {
        let mut all = Self::default();
        for entry in &entries {
            all.apply(entry, now_unix_s);
        }
        all
    }

    /// Adds a ban or changes it. Of two revocations the later moment stands, for as long as either. Gives back what is
    /// to be published. `now_ms` makes its version higher than those that were lost.
    pub fn set(&mut self, ban: Ban, now_unix_s: u64, now_ms: u64) -> Result<BanEntry, StoreError> {
        let Ban { identity, room, tokens_before_unix_s, until_unix_s } = ban;
        let entry = self.entry(&identity, &room, now_unix_s)?;
        match tokens_before_unix_s {
            None => entry.banned_until = until_unix_s,
            Some(before) => {
                let stands = entry.tokens_before > 0 && entry.revoked_until > now_unix_s;
                let (old, old_until) = if stands { (entry.tokens_before, entry.revoked_until) } else { (0, 0) };
                (entry.tokens_before, entry.revoked_until) = (old.max(before), old_until.max(until_unix_s));
            }
        }
        entry.version = entry.version.saturating_add(1).max(now_ms);
        Ok(entry.told(&identity, &room))
    }

    /// Ends both the ban and the revocation of this person in this room. Nothing to publish if there was neither.
    pub fn lift(&mut self, identity: &Identity, room: &Option<RoomName>, now_ms: u64) -> Option<BanEntry> {
        let entry = self.people.get_mut(identity)?.get_mut(room)?;
        if entry.is_lifted() {
            return None;
        }
        *entry = Entry {
            banned_until: 0,
            tokens_before: 0,
            revoked_until: entry.banned_until.max(entry.revoked_until),
            version: entry.version.saturating_add(1).max(now_ms),
        };
        Some(entry.told(identity, room))
    }

    /// What was heard, read or put back. False if it is no news, or there is no place for it.
    pub fn apply(&mut self, told: &BanEntry, now_unix_s: u64) -> bool {
        let known = self.people.get(&told.identity).and_then(|rooms| rooms.get(&told.room));
        if known.is_some_and(|known| known.version >= told.version) {
            return false;
        }
        let Ok(entry) = self.entry(&told.identity, &told.room, now_unix_s) else { return false };
        *entry = Entry {
            banned_until: told.banned_until_unix_s,
            tokens_before: told.tokens_before_unix_s,
            revoked_until: told.revoked_until_unix_s,
            version: told.version,
        };
        true
    }

    /// The store was read: takes what is news here, and gives back what the store has lost.
    pub fn reconcile(&mut self, stored: Vec<BanEntry>, now_unix_s: u64) -> Vec<BanEntry> {
        let versions: HashMap<_, _> =
            stored.iter().map(|entry| ((&entry.identity, &entry.room), entry.version)).collect();
        let is_lost = |own: &BanEntry| versions.get(&(&own.identity, &own.room)).is_none_or(|has| *has < own.version);
        let lost = self.entries(now_unix_s).into_iter().filter(is_lost).collect();
        for entry in &stored {
            self.apply(entry, now_unix_s);
        }
        lost
    }

    /// Whether a token of this age keeps its bearer out of this room. A token that does not say its age is of any.
    pub fn verdict(
        &self,
        identity: &Identity,
        room: Option<&RoomName>,
        issued_unix_s: Option<u64>,
        now_unix_s: u64,
    ) -> Option<Barred> {
        let rooms = self.people.get(identity)?;
        let everywhere = rooms.get(&None);
        let here = room.and_then(|room| rooms.get(&Some(room.clone())));
        let entries = || everywhere.into_iter().chain(here);
        if entries().any(|entry| entry.banned_until > now_unix_s) {
            return Some(Barred::Banned);
        }
        let issued = issued_unix_s.unwrap_or_default();
        let revoked = |entry: &Entry| entry.revoked_until > now_unix_s && issued < entry.tokens_before;
        entries().any(revoked).then_some(Barred::Revoked)
    }

    /// What holds now, by person and room.
    pub fn list(&self, now_unix_s: u64) -> Vec<Ban> {
        let mut bans = Vec::new();
        for entry in self.entries(now_unix_s) {
            let BanEntry { identity, room, .. } = &entry;
            let ban = |tokens_before_unix_s, until_unix_s| Ban {
                identity: identity.clone(),
                room: room.clone(),
                tokens_before_unix_s,
                until_unix_s,
            };
            bans.push(ban(None, entry.banned_until_unix_s));
            if entry.tokens_before_unix_s > 0 {
                bans.push(ban(Some(entry.tokens_before_unix_s), entry.revoked_until_unix_s));
            }
        }
        bans.retain(|ban| ban.until_unix_s > now_unix_s);
        bans
    }

    /// The same with what was lifted before its time, as it is told and kept.
    pub fn entries(&self, now_unix_s: u64) -> Vec<BanEntry> {
        let all = self.people.iter().flat_map(|(identity, rooms)| rooms.iter().map(move |one| (identity, one)));
        let all = all.filter(|(_, (_, entry))| entry.is_remembered(now_unix_s));
        let mut entries: Vec<_> = all.map(|(identity, (room, entry))| entry.told(identity, room)).collect();
        entries.sort_unstable_by(|a, b| (&a.identity, &a.room).cmp(&(&b.identity, &b.room)));
        entries
    }

    /// Of this person in this place, if there is one or a place for one.
    fn entry(
        &mut self,
        identity: &Identity,
        room: &Option<RoomName>,
        now_unix_s: u64,
    ) -> Result<&mut Entry, StoreError> {
        let known = self.people.get(identity).is_some_and(|rooms| rooms.contains_key(room));
        if !known {
            self.make_place(room, now_unix_s)?;
            *self.per_room.entry(room.clone()).or_default() += 1;
            self.count = self.count.saturating_add(1);
        }
        Ok(self.people.entry(identity.clone()).or_default().entry(room.clone()).or_default())
    }

    /// Refuses what is new rather than forgetting what somebody relies on.
    fn make_place(&mut self, room: &Option<RoomName>, now_unix_s: u64) -> Result<(), StoreError> {
        if self.is_full(room) {
            self.sweep(now_unix_s);
        }
        if self.is_full(room) { Err(StoreError::TooManyBans) } else { Ok(()) }
    }

    fn is_full(&self, room: &Option<RoomName>) -> bool {
        let here = self.per_room.get(room).copied().unwrap_or_default();
        self.count >= BANS_MAX || (room.is_some() && here >= BANS_PER_ROOM_MAX)
    }

    /// What was lifted makes place too: should a node that did not hear of it put it back, it can be lifted again.
    fn sweep(&mut self, now_unix_s: u64) {
        for rooms in self.people.values_mut() {
            rooms.retain(|_, entry| entry.holds(now_unix_s));
        }
        self.people.retain(|_, rooms| !rooms.is_empty());
        self.per_room.clear();
        self.count = 0;
        for room in self.people.values().flat_map(HashMap::keys) {
            *self.per_room.entry(room.clone()).or_default() += 1;
            self.count = self.count.saturating_add(1);
        }
    }
}

impl Entry {
    fn holds(&self, now_unix_s: u64) -> bool {
        self.is_remembered(now_unix_s) && !self.is_lifted()
    }

    fn is_lifted(&self) -> bool {
        self.banned_until == 0 && self.tokens_before == 0
    }

    fn is_remembered(&self, now_unix_s: u64) -> bool {
        self.banned_until > now_unix_s || self.revoked_until > now_unix_s
    }

    fn told(&self, identity: &Identity, room: &Option<RoomName>) -> BanEntry {
        BanEntry {
            identity: identity.clone(),
            room: room.clone(),
            banned_until_unix_s: self.banned_until,
            tokens_before_unix_s: self.tokens_before,
            revoked_until_unix_s: self.revoked_until,
            version: self.version,
        }
    }
}

/// Bans of a cluster. A new one beyond is refused.
pub const BANS_MAX: usize = 65_536;

/// Of these, bans of one room, so that whoever administers one room cannot use up the others' share.
pub const BANS_PER_ROOM_MAX: usize = 4_096;
