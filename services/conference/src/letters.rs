//! Words for the other nodes of a room while the bus is away: media routers carry them over their links.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use plenary_cluster::{Bus, BusError};
use plenary_media_core::{Command, RouterId};
use plenary_model::{NodeId, RoomName, RoomWord};
use tokio::{sync::oneshot, time::timeout};

use crate::{events::WordsCarried, ids, media_router::Tell, node::Shared};

impl Shared {
    /// Says words to the other nodes of a room: by the bus, and where that fails by letters, until all of these have them.
    pub async fn say(
        &self,
        room: RoomName,
        others: BTreeSet<NodeId>,
        number: u64,
        words: Vec<RoomWord>,
    ) -> Result<(), BusError> {
        let letter = self.bus.letter(&room, &self.node, number, &words);
        // Each word would wait for a bus that is known to be away.
        let said = match &letter {
            Some(_) if !self.reach.has_store() => Err(BusError::Unavailable),
            _ => self.bus.say(room.clone(), self.node.clone(), number, words).await,
        };
        let Some(letter) = letter else { return said.map(drop) };
        let routers = others.iter().map(|node| self.neighbours.router_of(node, &room));
        match said {
            Ok(heard) => {
                // The bus is back, and others have not listened to it since; or they are about to be forgotten.
                if usize::try_from(heard).is_ok_and(|heard| heard <= others.len()) {
                    self.send_letter(&room, &routers.flatten().collect::<Vec<_>>(), ids::words(), &letter);
                }
                Ok(())
            }
            Err(_) => {
                let routers = routers.collect::<Option<Vec<_>>>().ok_or(BusError::Unavailable)?;
                self.tell(&room, &routers, &letter).await
            }
        }
    }

    /// Ends when all of these have it.
    async fn tell(&self, room: &RoomName, to: &[RouterId], letter: &Bytes) -> Result<(), BusError> {
        if to.is_empty() {
            return Ok(());
        }
        let number = ids::words();
        let told = self.letters.expect(number, to.len());
        self.send_letter(room, to, number, letter);
        let told = timeout(TOLD_WITHIN, told).await;
        self.letters.forget(number);
        if matches!(told, Ok(Ok(()))) {
            WordsCarried { nodes: to.len() }.emit();
            return Ok(());
        }
        Err(BusError::Unavailable)
    }

    fn send_letter(&self, room: &RoomName, to: &[RouterId], number: u64, letter: &Bytes) {
        let router = self.own_router(room);
        for to in to {
            let command = Command::WriteLetter { to: to.clone(), number, letter: letter.clone() };
            // What a router does not take is not told.
            let _ = router.addr.try_send(Tell(command));
        }
    }
}

/// Between rooms, which write letters, and routers, which carry them.
pub struct Letters {
    bus: Arc<dyn Bus>,
    waiting: Mutex<HashMap<u64, Waiting>>,
}

struct Waiting {
    /// Nodes that do not have it yet.
    nodes: usize,
    told: oneshot::Sender<()>,
}

impl Letters {
    pub fn new(bus: Arc<dyn Bus>) -> Self {
        Self { bus, waiting: Mutex::default() }
    }

    /// A router has brought one.
    pub fn came(&self, letter: &[u8]) {
        self.bus.read_letter(letter);
    }

    /// A router says that another node has one.
    pub fn told(&self, number: u64) {
        let mut waiting = self.waiting();
        let Some(letter) = waiting.get_mut(&number) else { return };
        letter.nodes = letter.nodes.saturating_sub(1);
        if letter.nodes == 0
            && let Some(letter) = waiting.remove(&number)
        {
            // Whoever wrote it may have given up.
            let _ = letter.told.send(());
        }
    }

    fn expect(&self, number: u64, nodes: usize) -> oneshot::Receiver<()> {
        let (told, is_told) = oneshot::channel();
        self.waiting().insert(number, Waiting { nodes, told });
        is_told
    }

    fn forget(&self, number: u64) {
        self.waiting().remove(&number);
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letters").field("waiting", &self.waiting().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Default for Letters {
    fn default() -> Self {
        Self::new(Arc::new(plenary_cluster::InProcess::new()))
    }
}

/// The link may have to be opened first.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_told_when_every_node_has_it() {
        let letters = Letters::default();
        let mut told = letters.expect(7, 2);
        letters.told(8);
        letters.told(7);
        assert!(told.try_recv().is_err(), "the second has not");
        letters.told(7);
        assert_eq!(told.try_recv(), Ok(()));
        letters.told(7);
        let given_up = letters.expect(9, 1);
        letters.forget(9);
        assert!(given_up.blocking_recv().is_err());
        assert_eq!(letters.waiting().len(), 0);
    }
}
