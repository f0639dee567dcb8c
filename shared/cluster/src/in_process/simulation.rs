//! What a simulation does to a store: time that passes, and losses as Redis can have them.

use std::sync::Arc;

use super::{Bans, Egresses, InProcess, Leases, Rooms};

/// Everything that is stored at one moment.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    rooms: Rooms,
    bans: Bans,
    leases: Leases,
    egresses: Egresses,
}

impl InProcess {
    /// A store that forgets like Redis: leases, rooms and the memory of what ended run out.
    pub fn timed(now_unix_ms: u64) -> Self {
        let store = Self::new();
        store.set_time(now_unix_ms);
        store
    }

    pub fn set_time(&self, now_unix_ms: u64) {
        let state = &mut *self.state();
        state.rooms.set_time(now_unix_ms);
        state.leases.now_ms = Some(now_unix_ms);
    }

    pub fn stored(&self) -> Arc<Stored> {
        let state = &*self.state();
        let (rooms, bans, leases) = (state.rooms.clone(), state.bans.clone(), state.leases.clone());
        Arc::new(Stored { rooms, bans, leases, egresses: state.egresses.clone() })
    }

    /// A failover to a copy that was behind, or, with nothing in it, to an empty one. Nobody is told.
    pub fn roll_back(&self, to: &Stored, now_unix_ms: u64) {
        let state = &mut *self.state();
        let Stored { rooms, bans, leases, egresses } = to.clone();
        (state.rooms, state.bans, state.leases, state.egresses) = (rooms, bans, leases, egresses);
        state.rooms.set_time(now_unix_ms);
        state.leases.now_ms = Some(now_unix_ms);
    }
}
