//! What follows from a node's own lease.

use std::time::Duration;

use crate::Renewed;

/// What a node knows of its lease, of which it hears by renewing it every [`RENEW_INTERVAL`].
#[derive(Debug, Default)]
pub struct Lease {
    is_held: bool,
    /// The last answer was lost, and with it perhaps the word that the lease was.
    is_unsure: bool,
}

impl Lease {
    /// The store has answered. True if the lease may have been lost since it last did: then others may have taken this node's
    /// people for gone, or the store lost everything.
    pub fn renewed(&mut self, renewed: &Renewed) -> bool {
        let is_unsure = std::mem::take(&mut self.is_unsure);
        std::mem::replace(&mut self.is_held, true) && (is_unsure || !renewed.was_held)
    }

    /// It has not, and may have renewed the lease nevertheless.
    pub fn unanswered(&mut self) {
        self.is_unsure = true;
    }
}

/// A third of a lease's life.
pub const RENEW_INTERVAL: Duration = Duration::from_secs(1);
