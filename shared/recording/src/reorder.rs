//! Packets of one stream back in the order in which they were sent, or declared lost.
//!
//! Nobody waits for a recording, so a hole is given the whole [`WAIT`]: a key frame that lies behind it already does not
//! cut it short, since a retransmission may still save what lies between.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::track::Packet;

/// How long a hole may be filled, from when the first packet behind it arrived.
pub const WAIT: Duration = Duration::from_millis(300);
/// Packets from the oldest missing one to the newest. A newer one ends the wait for the oldest.
pub const PACKETS_MAX: usize = 512;

/// What follows in the order of sending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Released {
    Packet(Packet),
    /// So many packets are missing here; after a jump of the numbers it may be any number.
    Lost(u32),
    /// What follows has another SSRC, with counters of its own.
    NewStream,
}

/// Packets that were not given out, or never came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drops {
    /// Came when their place had been given out or up: repeated, or slower than [`WAIT`].
    pub late: u64,
    /// Came while the same packet was waiting.
    pub duplicate: u64,
    /// Far from all others and followed by none.
    pub stray: u64,
    /// Never came, or came late. What a jump of the numbers skipped is not counted.
    pub lost: u64,
    /// Were in order, but not taken out by [`Track::poll`](crate::Track::poll).
    pub unread: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Reorder {
    ssrc: Option<u32>,
    /// The sequence number that stands at the front of `waiting`.
    next: u16,
    /// From `next` on; `None` has not come. The last has.
    waiting: VecDeque<Option<Packet>>,
    /// When it was known that the front is missing. `None`: it is not.
    hole_since: Option<Instant>,
    /// Goes before all that waits.
    settled: VecDeque<Released>,
    /// Too far away to belong here, unless its neighbour comes too.
    stray: Option<Packet>,
    is_closed: bool,
    drops: Drops,
}

impl Reorder {
    pub(crate) fn push(&mut self, packet: Packet) {
        if self.ssrc != Some(packet.ssrc) {
            let is_first = self.ssrc.replace(packet.ssrc).is_none();
            self.give_up_waiting();
            if !is_first {
                self.settle(Released::NewStream);
            }
            self.drop_stray();
            self.next = packet.sequence;
        }
        let distance = packet.sequence.wrapping_sub(self.next).cast_signed();
        if !(MISORDER_MAX..=DROPOUT_MAX).contains(&distance) {
            return self.push_stray(packet);
        }
        let Ok(mut place) = usize::try_from(distance) else {
            self.drops.late = self.drops.late.saturating_add(1);
            return;
        };
        self.drop_stray();
        while place >= PACKETS_MAX {
            self.advance_settled();
            place = place.saturating_sub(1);
        }
        if self.waiting.len() <= place {
            self.waiting.resize_with(place.saturating_add(1), || None);
        }
        if let Some(slot) = self.waiting.get_mut(place) {
            if slot.is_some() {
                self.drops.duplicate = self.drops.duplicate.saturating_add(1);
            } else {
                *slot = Some(packet);
            }
        }
        self.note_hole();
    }

    /// No more will come: nothing that is missing is waited for any longer.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
        self.drop_stray();
    }

    /// What is next, if it is there or its time is over.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Released> {
        if let Some(settled) = self.settled.pop_front() {
            return Some(settled);
        }
        let is_over = self.is_closed || self.next_deadline().is_some_and(|deadline| deadline <= now);
        if self.hole_since.is_some() && !is_over {
            return None;
        }
        let mut lost = 0u32;
        while let Some(front) = self.waiting.front_mut() {
            if front.is_some() && lost > 0 {
                break;
            }
            let front = front.take();
            self.advance();
            match front {
                Some(packet) => {
                    self.note_hole();
                    return Some(Released::Packet(packet));
                }
                None => {
                    self.drops.lost = self.drops.lost.saturating_add(1);
                    lost = lost.saturating_add(1);
                }
            }
        }
        self.note_hole();
        (lost > 0).then_some(Released::Lost(lost))
    }

    /// When the oldest hole is given up.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.hole_since.and_then(|since| since.checked_add(WAIT))
    }

    pub(crate) fn drops(&self) -> Drops {
        self.drops
    }

    /// RFC 3550 A.1: a packet with a number far from the others counts when the next number follows it. Then the sender
    /// has begun anew, or could not be heard for long.
    fn push_stray(&mut self, packet: Packet) {
        let Some(first) = self.stray.take_if(|stray| stray.sequence.wrapping_add(1) == packet.sequence) else {
            self.drop_stray();
            self.stray = Some(packet);
            return;
        };
        self.give_up_waiting();
        self.settle(Released::Lost(u32::MAX));
        self.next = first.sequence;
        self.waiting.extend([Some(first), Some(packet)]);
    }

    fn drop_stray(&mut self) {
        if self.stray.take().is_some() {
            self.drops.stray = self.drops.stray.saturating_add(1);
        }
    }

    /// All that waits is settled, its holes lost.
    fn give_up_waiting(&mut self) {
        while !self.waiting.is_empty() {
            self.advance_settled();
        }
        self.hole_since = None;
    }

    fn advance_settled(&mut self) {
        match self.waiting.front_mut().map(Option::take) {
            Some(Some(packet)) => self.settle(Released::Packet(packet)),
            Some(None) | None => {
                self.drops.lost = self.drops.lost.saturating_add(1);
                match self.settled.back_mut() {
                    Some(Released::Lost(lost)) => *lost = lost.saturating_add(1),
                    _ => self.settle(Released::Lost(1)),
                }
            }
        }
        self.advance();
        self.hole_since = None;
    }

    fn advance(&mut self) {
        self.waiting.pop_front();
        self.next = self.next.wrapping_add(1);
    }

    fn settle(&mut self, released: Released) {
        if self.settled.len() >= PACKETS_MAX {
            self.settled.pop_front();
            self.drops.unread = self.drops.unread.saturating_add(1);
            if let Some(front) = self.settled.front_mut() {
                *front = Released::Lost(u32::MAX);
            }
        }
        self.settled.push_back(released);
    }

    /// Whatever waits behind a missing front makes it known, the earliest first.
    fn note_hole(&mut self) {
        if self.waiting.front().is_none_or(Option::is_some) {
            self.hole_since = None;
        } else if self.hole_since.is_none() {
            self.hole_since = self.waiting.iter().flatten().map(|packet| packet.received).min();
        }
    }
}

/// RFC 3550 A.1 has 100 and 3,000: numbers further behind and ahead belong to a sender that has begun anew.
const MISORDER_MAX: i16 = -512;
const DROPOUT_MAX: i16 = 3_000;
