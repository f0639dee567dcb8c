//! The outboxes of a node alone, by the rules of `outbox.lua`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use plenary_model::RoomName;
use tokio::sync::watch;

use crate::{
    AUTOMATIC_EGRESS, Happening, Leased, OUTBOX_LEASE_LIFE, OutboxLease, Reached, StoreError, Waiting,
    outbox::{OUTBOX_MAX, OUTBOXES_MAX},
};

#[derive(Debug, Default)]
pub(super) struct Outboxes {
    destinations: BTreeMap<String, Destination>,
    /// Names leases and entries.
    last_number: u64,
    filled: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Destination {
    outboxes: HashMap<RoomName, Outbox>,
    /// When each is looked at next, in Unix milliseconds.
    due: BTreeSet<(u64, RoomName)>,
    waiting: usize,
    dropped: u64,
}

#[derive(Debug)]
struct Outbox {
    entries: VecDeque<Entry>,
    due_ms: u64,
    token: Option<String>,
    reached: Option<Reached>,
}

#[derive(Debug, Clone)]
struct Entry {
    name: String,
    since_ms: u64,
    happening: Arc<Happening>,
}

impl Outboxes {
    pub(super) fn new(destinations: impl IntoIterator<Item = String>) -> Self {
        let destinations = destinations.into_iter().map(|name| (name, Destination::default())).collect();
        Self { destinations, ..Self::default() }
    }

    pub(super) fn filled(&self) -> watch::Receiver<()> {
        self.filled.subscribe()
    }

    pub(super) fn add(&mut self, happening: Happening, now_ms: u64) {
        let name = self.number();
        let entry = Entry { name, since_ms: now_ms, happening: Arc::new(happening) };
        for (name, destination) in &mut self.destinations {
            if name != AUTOMATIC_EGRESS || !entry.happening.room.auto_egress.is_empty() {
                destination.add(entry.clone(), now_ms);
            }
        }
        self.filled.send_replace(());
    }

    pub(super) fn lease(&mut self, name: &str, most: usize, now_ms: u64) -> Leased {
        let number = self.last_number;
        let Some(destination) = self.destinations.get_mut(name) else { return Leased::default() };
        let due = destination.due.iter().take_while(|(due_ms, _)| *due_ms <= now_ms);
        let rooms: Vec<_> = due.take(most).map(|(_, room)| room.clone()).collect();
        self.last_number = number.saturating_add(rooms.len() as u64);
        let tokens = (number.saturating_add(1)..).map(|token| token.to_string());
        let outboxes = rooms.into_iter().zip(tokens).map(|(room, token)| {
            destination.set_due(&room, now_ms.saturating_add(LEASE_LIFE_MS));
            if let Some(outbox) = destination.outboxes.get_mut(&room) {
                outbox.token = Some(token.clone());
            }
            OutboxLease { destination: name.to_owned(), server: 0, outbox: room.to_string(), token }
        });
        let outboxes = outboxes.collect();
        Leased { outboxes, dropped: std::mem::take(&mut destination.dropped) }
    }

    pub(super) fn next(
        &mut self,
        lease: &OutboxLease,
        done: Option<&str>,
        now_ms: u64,
    ) -> Result<Option<Waiting>, StoreError> {
        let (destination, room) = self.leased(lease)?;
        let outbox = destination.outboxes.get_mut(&room).ok_or(StoreError::Superseded)?;
        if let Some(entry) = outbox.entries.pop_front_if(|oldest| done == Some(oldest.name.as_str())) {
            destination.waiting = destination.waiting.saturating_sub(1);
            outbox.reached.take_if(|reached| reached.entry == entry.name);
        }
        let Some(Entry { name, since_ms, happening }) = outbox.entries.front().cloned() else {
            destination.due.remove(&(outbox.due_ms, room.clone()));
            destination.outboxes.remove(&room);
            return Ok(None);
        };
        let reached = outbox.reached.as_ref().filter(|reached| reached.entry == name);
        let (told, tries) = reached.map_or((0, 0), |reached| (reached.told, reached.tries));
        let waiting = Waiting { entry: name, since_unix_ms: since_ms, happening: (*happening).clone(), told, tries };
        destination.set_due(&room, now_ms.saturating_add(LEASE_LIFE_MS));
        Ok(Some(waiting))
    }

    pub(super) fn put_off(
        &mut self,
        lease: &OutboxLease,
        reached: Reached,
        after: Duration,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let (destination, room) = self.leased(lease)?;
        if let Some(outbox) = destination.outboxes.get_mut(&room) {
            (outbox.token, outbox.reached) = (None, Some(reached));
        }
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        destination.set_due(&room, now_ms.saturating_add(after_ms));
        Ok(())
    }

    fn leased(&mut self, lease: &OutboxLease) -> Result<(&mut Destination, RoomName), StoreError> {
        let room = RoomName::try_from(lease.outbox.as_str()).map_err(|_| StoreError::Superseded)?;
        let destination = self.destinations.get_mut(&lease.destination).ok_or(StoreError::Superseded)?;
        let holder = destination.outboxes.get(&room).and_then(|outbox| outbox.token.as_ref());
        if holder == Some(&lease.token) { Ok((destination, room)) } else { Err(StoreError::Superseded) }
    }

    fn number(&mut self) -> String {
        self.last_number = self.last_number.saturating_add(1);
        self.last_number.to_string()
    }
}

impl Destination {
    fn add(&mut self, entry: Entry, now_ms: u64) {
        let room = entry.happening.room.name.clone();
        let here = self.outboxes.get(&room).map_or(0, |outbox| outbox.entries.len());
        if here >= OUTBOX_MAX || self.waiting >= OUTBOXES_MAX {
            self.dropped = self.dropped.saturating_add(1);
            let oldest = self.outboxes.get_mut(&room).and_then(|outbox| outbox.entries.pop_front());
            if oldest.is_none() {
                return;
            }
            self.waiting = self.waiting.saturating_sub(1);
        }
        self.waiting = self.waiting.saturating_add(1);
        let due = &mut self.due;
        let outbox = self.outboxes.entry(room.clone()).or_insert_with(|| {
            due.insert((now_ms, room));
            Outbox { entries: VecDeque::new(), due_ms: now_ms, token: None, reached: None }
        });
        outbox.entries.push_back(entry);
    }

    fn set_due(&mut self, room: &RoomName, due_ms: u64) {
        let Some(outbox) = self.outboxes.get_mut(room) else { return };
        self.due.remove(&(outbox.due_ms, room.clone()));
        outbox.due_ms = due_ms;
        self.due.insert((due_ms, room.clone()));
    }
}

const LEASE_LIFE_MS: u64 = OUTBOX_LEASE_LIFE.as_millis() as u64;
