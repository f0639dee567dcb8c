//! The list of bans: what the store keeps, and what every node has a copy of. No clock: whoever asks brings the time.

use std::collections::HashMap;

use plenary_model::{Ban, BanChange, Identity, RoomName};

use crate::StoreError;

/// Who is kept out of where. Bounded, and forgets by itself what is over.
#[derive(Debug, Clone, Default)]
pub struct Bans {
    people: HashMap<Identity, HashMap<Option<RoomName>, Entry>>,
    per_room: HashMap<Option<RoomName>, usize>,
    count: usize,
}

/// A person may be banned from a room and have tokens revoked there: lifting or outliving one leaves the other.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    banned_until: Option<u64>,
    revoked: Option<Revoked>,
}

#[derive(Debug, Clone, Copy)]
struct Revoked {
    before: u64,
    until: u64,
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
    pub fn from_list(bans: Vec<Ban>, now_unix_s: u64) -> Self {
        let mut all = Self::default();
        for ban in bans {
            // The store has the same limits, so this refuses nothing that it holds.
            let _ = all.set(ban, now_unix_s);
        }
        all
    }

    /// Adds a ban or changes it. Of two revocations the later moment stands, for as long as either. Gives back what is
    /// to be published.
    pub fn set(&mut self, ban: Ban, now_unix_s: u64) -> Result<BanChange, StoreError> {
        let known = self.people.get(&ban.identity).is_some_and(|rooms| rooms.contains_key(&ban.room));
        if !known {
            self.make_place(&ban.room, now_unix_s)?;
            *self.per_room.entry(ban.room.clone()).or_default() += 1;
            self.count = self.count.saturating_add(1);
        }
        let entry = self.people.entry(ban.identity.clone()).or_default().entry(ban.room.clone()).or_default();
        let Some(before) = ban.tokens_before_unix_s else {
            entry.banned_until = Some(ban.until_unix_s);
            return Ok(BanChange::Set(ban));
        };
        let old = entry.revoked.filter(|old| old.until > now_unix_s);
        let revoked = old.map_or(Revoked { before, until: ban.until_unix_s }, |old| Revoked {
            before: old.before.max(before),
            until: old.until.max(ban.until_unix_s),
        });
        entry.revoked = Some(revoked);
        let told = Ban { tokens_before_unix_s: Some(revoked.before), until_unix_s: revoked.until, ..ban };
        Ok(BanChange::Set(told))
    }

    /// Ends both the ban and the revocation of this person in this room. Nothing to publish if there was neither.
    pub fn lift(&mut self, identity: &Identity, room: &Option<RoomName>) -> Option<BanChange> {
        self.forget(identity, room).then(|| BanChange::Lifted { identity: identity.clone(), room: room.clone() })
    }

    /// What was heard of a change elsewhere.
    pub fn apply(&mut self, change: &BanChange, now_unix_s: u64) -> Result<(), StoreError> {
        match change {
            BanChange::Set(ban) => self.set(ban.clone(), now_unix_s).map(drop),
            BanChange::Lifted { identity, room } => {
                self.forget(identity, room);
                Ok(())
            }
        }
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
        if entries().any(|entry| entry.banned_until.is_some_and(|until| until > now_unix_s)) {
            return Some(Barred::Banned);
        }
        let issued = issued_unix_s.unwrap_or_default();
        let revoked = |entry: &Entry| entry.revoked.is_some_and(|it| it.until > now_unix_s && issued < it.before);
        entries().any(revoked).then_some(Barred::Revoked)
    }

    /// What holds now, by person and room.
    pub fn list(&self, now_unix_s: u64) -> Vec<Ban> {
        let all = self.people.iter().flat_map(|(identity, rooms)| rooms.iter().map(move |one| (identity, one)));
        let mut bans: Vec<_> = all.flat_map(|(identity, (room, entry))| entry.told(identity, room)).collect();
        bans.retain(|ban| ban.until_unix_s > now_unix_s);
        bans.sort_unstable_by(|a, b| {
            let key = |ban: &Ban| (ban.identity.clone(), ban.room.clone(), ban.tokens_before_unix_s);
            key(a).cmp(&key(b))
        });
        bans
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

    fn forget(&mut self, identity: &Identity, room: &Option<RoomName>) -> bool {
        let Some(rooms) = self.people.get_mut(identity) else { return false };
        if rooms.remove(room).is_none() {
            return false;
        }
        if rooms.is_empty() {
            self.people.remove(identity);
        }
        self.count = self.count.saturating_sub(1);
        if let Some(here) = self.per_room.get_mut(room) {
            *here = here.saturating_sub(1);
            if *here == 0 {
                self.per_room.remove(room);
            }
        }
        true
    }
}

impl Entry {
    fn holds(&self, now_unix_s: u64) -> bool {
        self.banned_until.is_some_and(|until| until > now_unix_s)
            || self.revoked.is_some_and(|revoked| revoked.until > now_unix_s)
    }

    fn told(&self, identity: &Identity, room: &Option<RoomName>) -> impl Iterator<Item = Ban> + use<> {
        let ban = |tokens_before_unix_s, until_unix_s| Ban {
            identity: identity.clone(),
            room: room.clone(),
            tokens_before_unix_s,
            until_unix_s,
        };
        let banned = self.banned_until.map(|until| ban(None, until));
        let revoked = self.revoked.map(|revoked| ban(Some(revoked.before), revoked.until));
        banned.into_iter().chain(revoked)
    }
}

/// Bans of a cluster. A new one beyond is refused.
pub const BANS_MAX: usize = 65_536;

/// Of these, bans of one room, so that whoever administers one room cannot use up the others' share.
pub const BANS_PER_ROOM_MAX: usize = 4_096;
