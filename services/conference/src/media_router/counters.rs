//! What the IO of one media thread counts.
//!
//! Plain atomics, written by the media thread (and by the TCP door) with relaxed order, read by whoever exports them.
//! Nothing here is a decision: no code may branch on a counter.

use std::sync::atomic::{AtomicU64, Ordering};

/// Datagrams, bytes and losses of one media thread.
#[derive(Debug, Default)]
pub struct IoCounters {
    pub datagrams_in: Counter,
    pub bytes_in: Counter,
    pub datagrams_out: Counter,
    pub bytes_out: Counter,
    /// Kernel messages; `datagrams_out / messages_out` is the mean run length.
    pub messages_out: Counter,
    pub tcp_opened: Counter,
    pub tcp_closed: Counter,
    runs: [Counter; RUN_BUCKETS],
    losses: [Counter; IoLoss::COUNT],
}

impl IoCounters {
    /// One kernel message carried this many datagrams.
    pub(crate) fn run(&self, datagrams: usize) {
        let bucket = datagrams.clamp(1, RUN_BUCKETS) - 1;
        if let Some(counter) = self.runs.get(bucket) {
            counter.add(1);
        }
    }

    /// Messages by run length: index 0 is a single datagram, the last index is [`RUN_BUCKETS`] and more.
    pub fn runs(&self) -> [u64; RUN_BUCKETS] {
        std::array::from_fn(|bucket| self.runs.get(bucket).map_or(0, Counter::value))
    }

    pub(crate) fn lose(&self, why: IoLoss) {
        if let Some(counter) = self.losses.get(why as usize) {
            counter.add(1);
        }
    }

    pub fn lost(&self, why: IoLoss) -> u64 {
        self.losses.get(why as usize).map_or(0, Counter::value)
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Every way for bytes, events or connections to be lost, delayed or refused outside the core, counted by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum IoLoss {
    /// The kernel knows no way to the destination, or an ICMP error said so.
    Unreachable,
    /// A firewall rule of this host forbids the datagram.
    NotPermitted,
    /// The datagram is larger than the interface takes.
    TooLarge,
    /// The kernel refused a run; it went out as single datagrams.
    RunRefused,
    /// A run was only half out when the send buffer filled; the rest is lost.
    RunCut,
    /// The send buffer is full; what is queued waits.
    SendBufferFull,
    /// The interface's queue is full; what is queued waits.
    NoBuffers,
    /// No socket of the destination's address family is bound.
    NoSocket,
    SendOther,
    /// A datagram was larger than any that media uses.
    Truncated,
    ReceiveOther,
    /// A frame for a TCP connection that reads too slowly.
    TcpQueueFull,
    /// A frame for a TCP connection that is gone.
    TcpNoConnection,
    /// A frame longer than the framing can say.
    TcpTooLarge,
    TcpTooManyConnections,
    TcpTooManyUnauthenticated,
    TcpTooManyFromAddress,
    /// No first frame within its deadline.
    TcpSilent,
    TcpGarbage,
    /// The first frame names no router of this node.
    TcpUnknownUfrag,
    /// The router it names does not take it now.
    TcpRouterBusy,
    /// We had nothing to say on the connection for too long.
    TcpIdle,
    TcpAcceptFailed,
    /// An event of a peer that nobody listens to any more.
    EventUnrouted,
    /// A lossy message for a session that does not keep up.
    LossyDataDropped,
    /// A peer was closed because its session does not keep up.
    EventsOverrun,
    /// Levels for a room that does not keep up.
    LevelsDropped,
    /// A transport was asked for beyond the limit.
    TooManyPeers,
}

impl IoLoss {
    pub const ALL: [Self; 28] = [
        Self::Unreachable,
        Self::NotPermitted,
        Self::TooLarge,
        Self::RunRefused,
        Self::RunCut,
        Self::SendBufferFull,
        Self::NoBuffers,
        Self::NoSocket,
        Self::SendOther,
        Self::Truncated,
        Self::ReceiveOther,
        Self::TcpQueueFull,
        Self::TcpNoConnection,
        Self::TcpTooLarge,
        Self::TcpTooManyConnections,
        Self::TcpTooManyUnauthenticated,
        Self::TcpTooManyFromAddress,
        Self::TcpSilent,
        Self::TcpGarbage,
        Self::TcpUnknownUfrag,
        Self::TcpRouterBusy,
        Self::TcpIdle,
        Self::TcpAcceptFailed,
        Self::EventUnrouted,
        Self::LossyDataDropped,
        Self::EventsOverrun,
        Self::LevelsDropped,
        Self::TooManyPeers,
    ];
    pub const COUNT: usize = Self::TooManyPeers as usize + 1;
}

/// Run lengths counted one by one; longer runs share the last bucket.
pub const RUN_BUCKETS: usize = 17;
