//! The receiving ends of the bus. What cannot be queued shows as [`RoomEvent::Resync`] or as a refusal, never as a wait.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use plenary_model::{Admin, RoomDelta, RoomName};
use tokio::sync::{mpsc, oneshot};

use crate::AdminReply;

/// What a subscriber of a room hears.
#[derive(Debug, Clone, PartialEq)]
pub enum RoomEvent {
    Delta(Arc<RoomDelta>),
    /// Something was missed: read the snapshot again.
    Resync,
}

/// A room's deltas, in order.
#[derive(Debug)]
pub struct Subscription {
    deltas: mpsc::Receiver<Arc<RoomDelta>>,
    missed: Arc<AtomicBool>,
}

impl Subscription {
    /// The next event; none once the bus is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<RoomEvent> {
        if self.overflowed() {
            return Some(RoomEvent::Resync);
        }
        self.deltas.recv().await.map(RoomEvent::Delta)
    }

    /// What is already there, without waiting.
    pub fn try_next(&mut self) -> Option<RoomEvent> {
        if self.overflowed() {
            return Some(RoomEvent::Resync);
        }
        self.deltas.try_recv().ok().map(RoomEvent::Delta)
    }

    /// Clears the queue after an overflow. Whatever is published meanwhile is older than the snapshot read afterwards.
    fn overflowed(&mut self) -> bool {
        let missed = self.missed.swap(false, Ordering::AcqRel);
        if missed {
            while self.deltas.try_recv().is_ok() {}
        }
        missed
    }
}

/// The sending end of a [`Subscription`].
#[derive(Debug)]
pub(crate) struct Subscriber {
    deltas: mpsc::Sender<Arc<RoomDelta>>,
    missed: Arc<AtomicBool>,
}

impl Subscriber {
    pub(crate) fn pair() -> (Self, Subscription) {
        let (sender, receiver) = mpsc::channel(DELTAS_WAITING_MAX);
        let missed = Arc::new(AtomicBool::new(false));
        (Self { deltas: sender, missed: missed.clone() }, Subscription { deltas: receiver, missed })
    }

    /// Never waits. False once nobody listens any more.
    pub(crate) fn tell(&self, delta: &Arc<RoomDelta>) -> bool {
        match self.deltas.try_send(delta.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.missed.store(true, Ordering::Release);
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    pub(crate) fn listens(&self) -> bool {
        !self.deltas.is_closed()
    }
}

/// A request to this node, with the place for its reply. Whoever drops it answers "unavailable".
pub type Ask = (RoomName, Admin, oneshot::Sender<AdminReply>);

/// Requests to this node.
#[derive(Debug)]
pub struct Inbox {
    asks: mpsc::Receiver<Ask>,
}

impl Inbox {
    /// The next request; none once the bus is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<Ask> {
        self.asks.recv().await
    }

    pub(crate) fn pair() -> (mpsc::Sender<Ask>, Self) {
        let (sender, asks) = mpsc::channel(ASKS_WAITING_MAX);
        (sender, Self { asks })
    }
}

/// Changes that wait for one subscriber; more become one `Resync`.
pub(crate) const DELTAS_WAITING_MAX: usize = 1024;

/// Requests that wait for one node; more are refused as unavailable.
const ASKS_WAITING_MAX: usize = 256;
