//! What happens between this node and Redis, for whoever counts it.

use std::{fmt, sync::Arc, time::Duration};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// A script or command came to its end.
    Called { name: &'static str, outcome: CallOutcome, after: Duration },
    /// A subscriber was told `Resync`.
    Missed { reason: MissReason },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// By refusing too.
    Answered,
    /// With an error, or the connection broke.
    Failed,
    TimedOut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissReason {
    /// The connection that listens was made anew.
    Disconnected,
    /// The subscriber was too slow.
    QueueFull,
    /// The message cannot be read here.
    Unreadable,
}

/// Who counts: nobody by default. Called where nothing may wait.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(Observation) + Send + Sync>);

impl Observer {
    pub fn new(told: impl Fn(Observation) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }

    pub(crate) fn tell(&self, observation: Observation) {
        (self.0)(observation);
    }
}

impl Default for Observer {
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}
