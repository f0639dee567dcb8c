//! What follows from a node's own lease.

use std::time::Duration;

use crate::Renewed;

/// What a node knows of its lease, of which it hears by renewing it every [`RENEW_INTERVAL`].
#[derive(Debug, Default)]
pub struct Lease {
    is_held: bool,
}

impl Lease {
    /// The store has answered. True if the lease was lost since the last time: others may have taken this node's people for
    /// gone, or the store lost everything.
    pub fn renewed(&mut self, renewed: &Renewed) -> bool {
        std::mem::replace(&mut self.is_held, true) && !renewed.was_held
    }
}

/// A third of a lease's life.
pub const RENEW_INTERVAL: Duration = Duration::from_secs(1);
