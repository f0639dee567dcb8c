//! The receiving ends of the bus. What cannot be queued shows as [`RoomEvent::Resync`] or as a refusal, never as a wait.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use plenary_model::RoomDelta;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::{AdminReply, Request};

/// What a subscriber hears.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<T> {
    Delta(Arc<T>),
    /// Something was missed: read what is stored again.
    Resync,
}

/// What a subscriber of a room hears.
pub type RoomEvent = Event<RoomDelta>;

/// Changes, in order: a room's by default.
#[derive(Debug)]
pub struct Subscription<T = RoomDelta> {
    deltas: mpsc::Receiver<Arc<T>>,
    missed: Arc<Missed>,
}

/// Something could not be told.
#[derive(Debug, Default)]
struct Missed {
    it_was: AtomicBool,
    /// Wakes whoever waits for the next change.
    told: Notify,
}

impl<T> Subscription<T> {
    /// The next event; none once the bus is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<Event<T>> {
        loop {
            if self.overflowed() {
                return Some(Event::Resync);
            }
            tokio::select! {
                biased;
                () = self.missed.told.notified() => {}
                delta = self.deltas.recv() => return delta.map(Event::Delta),
            }
        }
    }

    /// What is already there, without waiting.
    pub fn try_next(&mut self) -> Option<Event<T>> {
        if self.overflowed() {
            return Some(Event::Resync);
        }
        self.deltas.try_recv().ok().map(Event::Delta)
    }

    /// Clears the queue after an overflow. Whatever is published meanwhile is older than the snapshot read afterwards.
    fn overflowed(&mut self) -> bool {
        let missed = self.missed.it_was.swap(false, Ordering::AcqRel);
        if missed {
            while self.deltas.try_recv().is_ok() {}
        }
        missed
    }
}

/// The sending end of a [`Subscription`].
#[derive(Debug)]
pub(crate) struct Subscriber<T = RoomDelta> {
    deltas: mpsc::Sender<Arc<T>>,
    missed: Arc<Missed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Untold {
    /// The subscriber is told `Resync` instead.
    QueueFull,
    /// Nobody listens any more.
    Gone,
}

impl<T> Subscriber<T> {
    pub(crate) fn pair() -> (Self, Subscription<T>) {
        let (sender, receiver) = mpsc::channel(DELTAS_WAITING_MAX);
        let missed = Arc::new(Missed::default());
        (Self { deltas: sender, missed: missed.clone() }, Subscription { deltas: receiver, missed })
    }

    /// Never waits.
    pub(crate) fn tell(&self, delta: &Arc<T>) -> Result<(), Untold> {
        self.deltas.try_send(delta.clone()).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) if self.tell_missed() => Untold::QueueFull,
            _ => Untold::Gone,
        })
    }

    /// Something cannot be told. False once nobody listens any more.
    pub(crate) fn tell_missed(&self) -> bool {
        self.missed.it_was.store(true, Ordering::Release);
        self.missed.told.notify_one();
        self.listens()
    }

    pub(crate) fn listens(&self) -> bool {
        !self.deltas.is_closed()
    }
}

/// A request to this node, with the place for its reply. Whoever drops it answers "unavailable".
pub type Ask = (Request, oneshot::Sender<AdminReply>);

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
