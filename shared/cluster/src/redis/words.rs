//! What nodes say of a room, by the bus or by letters: heard once, whichever way it comes first.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use plenary_model::{NodeId, RoomWord};

use super::{
    seal::Seal,
    shard::{Ear, Heard},
    wire,
};

/// What one node has heard of a room.
pub(super) struct Hearing {
    own: String,
    /// The last number of each other node.
    last: HashMap<String, u64>,
}

/// Reads what the bus brings. Whoever has not the key has nothing to say.
pub(super) fn of_bus(
    hearing: Arc<Mutex<Hearing>>,
    seal: Seal,
    channel: String,
) -> impl FnMut(&[u8]) -> wire::Read<Vec<RoomWord>> {
    move |bytes| Ok(seal.open(&channel, bytes).map(|said| lock(&hearing).new_words(said)).unwrap_or_default())
}

pub(super) fn of_letters(hearing: Arc<Mutex<Hearing>>) -> impl FnMut(&[u8]) -> wire::Read<Vec<RoomWord>> {
    move |bytes| {
        let said = wire::decode::<wire::Letter>(bytes)?.words.unwrap_or_default();
        Ok(lock(&hearing).new_words(said))
    }
}

pub(super) fn words(node: &NodeId, number: u64, words: &[RoomWord]) -> wire::Words {
    wire::Words { node: node.to_string(), number, words: words.iter().map(Into::into).collect() }
}

impl Hearing {
    pub(super) fn new(own: &NodeId) -> Self {
        Self { own: own.to_string(), last: HashMap::new() }
    }

    fn new_words(&mut self, said: wire::Words) -> Vec<RoomWord> {
        if said.node == self.own {
            return Vec::new();
        }
        if self.last.len() >= NODES_HEARD_MAX {
            self.last.clear();
        }
        let last = self.last.entry(said.node).or_default();
        if said.number <= *last {
            return Vec::new();
        }
        *last = said.number;
        // What a newer node says and this one does not know is not for this one.
        said.words.into_iter().filter_map(|word| word.into_model().ok()).collect()
    }
}

/// Who hears letters, by the channel on which the bus would bring the same.
#[derive(Default)]
pub(super) struct Letterboxes(Mutex<HashMap<String, Vec<Ear>>>);

impl fmt::Debug for Letterboxes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(lock(&self.0).keys()).finish()
    }
}

impl Letterboxes {
    pub(super) fn add(&self, channel: String, ear: Ear) {
        let mut boxes = lock(&self.0);
        // Rooms come and go: what is looked at each time the table is full is no more than what was added since.
        if boxes.len() == boxes.capacity() {
            boxes.retain(|_, ears| {
                ears.retain_mut(|ear| ear(Heard::Check));
                !ears.is_empty()
            });
        }
        boxes.entry(channel).or_default().push(ear);
    }

    pub(super) fn put(&self, channel: &str, letter: &[u8]) {
        if let Some(ears) = lock(&self.0).get_mut(channel) {
            ears.retain_mut(|ear| ear(Heard::Message(letter)));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nodes that ever said something of a room; beyond, all are forgotten, and what is repeated just then is heard twice.
const NODES_HEARD_MAX: usize = 10_000;
