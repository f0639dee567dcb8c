//! What a router counts: plain atomics that only its thread writes and the scrape reads.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::DropReason;

#[derive(Debug, Default)]
pub struct Counters {
    pub packets_in: Count,
    pub bytes_in: Count,
    pub packets_out: Count,
    pub bytes_out: Count,
    pub rtcp_in: Count,
    pub rtcp_out: Count,
    /// Sequence numbers asked for again from publishers.
    pub nacks_sent: Count,
    /// Sequence numbers that subscribers asked for again.
    pub nacks_received: Count,
    /// Packets sent again, asked for or not.
    pub retransmitted: Count,
    /// Packets sent to learn what a path takes.
    pub padding_out: Count,
    /// Times that video of a subscriber was held back by its pacer.
    pub pacer_holds: Count,
    pub keyframe_requests: Count,
    pub peers: Count,
    pub tracks: Count,
    pub subscriptions: Count,
    /// Usable links to other routers.
    pub links: Count,
    /// Sealed datagrams, the repeated among them.
    pub link_packets_in: Count,
    pub link_bytes_in: Count,
    pub link_packets_out: Count,
    pub link_bytes_out: Count,
    pub link_retransmitted: Count,
    /// Datagrams with media that nobody confirmed in time, repaired or not.
    pub link_lost: Count,
    /// Times that a link was given less to carry, since it did not get through.
    pub link_cuts: Count,
    /// Tracks that other routers want of this one.
    pub link_wants: Count,
    /// Streams that this router wants of others.
    pub link_pulls: Count,
    /// Streams that other routers want and that do not cross because a link has no room for them.
    pub link_withheld: Count,
    /// Of the link that was measured last.
    pub link_rtt_us: Count,
    drops: Drops,
}

#[derive(Debug)]
struct Drops([Count; DropReason::COUNT]);

impl Default for Drops {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Count::default()))
    }
}

/// One writer, many readers: no read-modify-write is needed.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, more: usize) {
        self.0.store(self.get().wrapping_add(u64::try_from(more).unwrap_or_default()), Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: usize) {
        self.0.store(u64::try_from(value).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// One of the parts that make up this figure went from `before` to `after`.
    pub(crate) fn moved(&self, before: usize, after: usize) {
        let others = usize::try_from(self.get()).unwrap_or(usize::MAX).saturating_sub(before);
        self.set(others.saturating_add(after));
    }
}

impl Counters {
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.0.get(usize::from(reason as u8)).map_or(0, Count::get)
    }

    pub(crate) fn count_drop(&self, reason: DropReason) {
        if let Some(count) = self.drops.0.get(usize::from(reason as u8)) {
            count.add(1);
        }
    }
}
