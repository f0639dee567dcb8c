//! Recordings as the store keeps them: who records now, and what it takes to say so.
//!
//! Whoever records holds a lease with an epoch, which grows with every new recorder, also over a loss of the store. A recorder
//! changes what is stored under its epoch: one that was superseded while it slept changes nothing. Whoever stops a recording or
//! arranges it anew has no lease. Each change names the version that it makes, so no two overwrite each other.

use std::{sync::Arc, time::Duration};

use plenary_model::{Egress, EgressId, NodeId, RoomName};

/// A recording at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEgress {
    pub egress: Arc<Egress>,
    /// Of the last recorder; 0 if there was none.
    pub epoch: u64,
    /// The last one.
    pub recorder: Option<NodeId>,
    /// Whether its lease runs.
    pub is_held: bool,
}

/// Whoever wants to record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorder {
    pub node: NodeId,
    /// Random: the same as long as it knows what it has written.
    pub life: u64,
    /// The highest that it has heard of, for a store that lost it.
    pub known_epoch: u64,
}

/// The right to write a recording, for [`EGRESS_LEASE_LIFE`] since it was last renewed, and until somebody else claims it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressLease {
    pub room: RoomName,
    pub id: EgressId,
    pub epoch: u64,
}

/// What is unset holds for every recording.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EgressFilter {
    pub room: Option<RoomName>,
    pub id: Option<EgressId>,
    /// Those that are not over.
    pub active: bool,
}

impl EgressFilter {
    pub(crate) fn holds(&self, egress: &Egress) -> bool {
        self.room.as_ref().is_none_or(|room| egress.room == *room)
            && self.id.as_ref().is_none_or(|id| egress.id == *id)
            && (!self.active || !egress.status.is_over())
    }
}

/// How long a recorder's lease runs without being renewed.
pub const EGRESS_LEASE_LIFE: Duration = Duration::from_secs(3);

/// How long a recording is listed after its last change.
pub const EGRESS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Recordings that are listed of one room. With more the oldest that is over is forgotten, or what is asked for is refused.
pub(crate) const EGRESSES_PER_ROOM_MAX: usize = 100;

/// Recordings that are listed of one server; more are refused.
pub(crate) const EGRESSES_MAX: usize = 100_000;
