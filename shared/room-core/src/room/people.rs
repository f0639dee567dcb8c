//! Who is visible here, and what of it has been told: one account for all sessions.
//!
//! Changes gather until somebody polls. A session that comes in meanwhile has seen part of them in its welcome, so each
//! event carries a tick, and a session is told what happened after its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use plenary_model::{Identity, LeaveReason, Participant, ParticipantState};

#[derive(Debug, Default)]
pub(super) struct People {
    shown: BTreeMap<Identity, Shown>,
    /// Whose record changed since everybody was told.
    changed: BTreeSet<Identity>,
    /// Who went since then, as their last entry.
    gone: Vec<Gone>,
    now: Tick,
    told: Tick,
}

/// A point in the order of changes and welcomes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(u64);

#[derive(Debug)]
struct Shown {
    person: Arc<Participant>,
    /// Since when under this sid.
    since: Tick,
    changed: Tick,
    /// Sessions of this identity that were replaced since everybody was told.
    earlier: Vec<Past>,
}

/// A session that is shown no more.
#[derive(Debug)]
struct Past {
    person: Arc<Participant>,
    since: Tick,
    until: Tick,
}

#[derive(Debug)]
struct Gone {
    entry: Arc<Participant>,
    /// Who knew this session: those whose latest news are from in between.
    since: Tick,
    until: Tick,
    at: Tick,
}

impl People {
    /// A new or changed record, or the next session of somebody: one person is one identity.
    pub(super) fn show(&mut self, person: &Participant) {
        let now = self.tick();
        let mut shown = Shown { person: Arc::new(person.clone()), since: now, changed: now, earlier: Vec::new() };
        if let Some(before) = self.shown.remove(&person.identity) {
            shown.earlier = before.earlier;
            if before.person.sid == person.sid {
                shown.since = before.since;
            } else {
                shown.earlier.push(Past { person: before.person, since: before.since, until: now });
            }
        }
        self.changed.insert(person.identity.clone());
        self.shown.insert(person.identity.clone(), shown);
    }

    /// Somebody left, or became hidden, which looks the same from outside. `person` is the record that says so.
    pub(super) fn hide(&mut self, person: &Participant, reason: LeaveReason) {
        let now = self.tick();
        let Some(shown) = self.shown.remove(&person.identity) else { return };
        self.changed.remove(&person.identity);
        // Clients ignore what is not newer than what they have.
        let next = shown.person.version.saturating_add(1);
        let version = if person.sid == shown.person.sid { person.version.max(next) } else { next };
        let last = Past { person: shown.person, since: shown.since, until: now };
        for Past { person, since, until } in shown.earlier.into_iter().chain([last]) {
            let entry = Participant {
                state: ParticipantState::Disconnected,
                leave_reason: reason,
                version,
                tracks: Vec::new(),
                is_publisher: false,
                ..(*person).clone()
            };
            self.gone.push(Gone { entry: Arc::new(entry), since, until, at: now });
        }
    }

    /// Where a session comes in: it is told what happens after this.
    pub(super) fn register(&mut self) -> Tick {
        self.tick()
    }

    pub(super) fn everybody_but(&self, own: Option<&Identity>) -> Vec<Arc<Participant>> {
        let others = self.shown.iter().filter(|(identity, _)| own != Some(*identity));
        others.map(|(_, shown)| shown.person.clone()).collect()
    }

    pub(super) fn has_news(&self) -> bool {
        !self.changed.is_empty() || !self.gone.is_empty()
    }

    /// Departures first: whoever left and came back is there in the end.
    pub(super) fn news_for(&self, own: Option<&Identity>, registered: Tick) -> Vec<Arc<Participant>> {
        // The session's latest news: its welcome or the last notice, whichever came later.
        let latest = registered.max(self.told);
        let gone = self.gone.iter().filter(|gone| own != Some(&gone.entry.identity) && gone.at > registered);
        let gone = gone.filter(|gone| gone.since <= latest && latest < gone.until).map(|gone| &gone.entry);
        let changed = self.changed.iter().filter(|identity| own != Some(*identity));
        let changed = changed.filter_map(|identity| self.shown.get(identity));
        let changed = changed.filter(|shown| shown.changed > registered).map(|shown| &shown.person);
        gone.chain(changed).cloned().collect()
    }

    /// Everybody has heard the news.
    pub(super) fn told(&mut self) {
        self.told = self.now;
        self.gone.clear();
        for identity in std::mem::take(&mut self.changed) {
            if let Some(shown) = self.shown.get_mut(&identity) {
                shown.earlier.clear();
            }
        }
    }

    fn tick(&mut self) -> Tick {
        self.now = Tick(self.now.0.saturating_add(1));
        self.now
    }
}
