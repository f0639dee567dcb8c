//! What was sent under which transport-wide sequence number: a plain ring (5 ns a packet, media-engine 1.3).

use std::time::{Duration, Instant};

use crate::ingress::after;

#[derive(Debug)]
pub(super) struct SendHistory {
    epoch: Instant,
    next: u16,
    /// Empty until a packet leaves: many transports never carry media.
    ring: Box<[Sent]>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    sent_us: u64,
    sequence: u16,
    bytes: u16,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Fate {
    /// No such packet.
    #[default]
    Unsent,
    /// It waits for the pacer, while others that were numbered later may have overtaken it.
    Queued,
    Flying,
    Lost,
    Arrived,
}

/// A packet whose fate has just been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) sent_us: u64,
    pub(super) bytes: usize,
    pub(super) before: Fate,
}

impl SendHistory {
    pub(super) fn new(now: Instant) -> Self {
        Self { epoch: now, next: 1, ring: Box::default() }
    }

    pub(super) fn record(&mut self, now: Instant, bytes: usize) -> u16 {
        let sequence = self.next;
        self.next = sequence.wrapping_add(1);
        let sent_us = self.micros(now);
        if self.ring.is_empty() {
            self.ring = vec![Sent::default(); RING].into_boxed_slice();
        }
        if let Some(place) = self.ring.get_mut(position(sequence)) {
            let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
            *place = Sent { sent_us, sequence, bytes, fate: Fate::Queued };
        }
        sequence
    }

    /// A packet that was recorded leaves now.
    pub(super) fn departed(&mut self, now: Instant, sequence: u16) {
        let sent_us = self.micros(now);
        if let Some(sent) = self.ring.get_mut(position(sequence)).filter(|sent| sent.sequence == sequence) {
            (sent.sent_us, sent.fate) = (sent_us, Fate::Flying);
        }
    }

    /// When a packet left, if it is known.
    pub(super) fn sent_us(&self, sequence: u16) -> Option<u64> {
        let sent = self.ring.get(position(sequence)).filter(|sent| sent.sequence == sequence)?;
        Some(sent.sent_us)
    }

    /// The time that [`Settled::sent_us`] means.
    pub(super) fn instant(&self, sent_us: u64) -> Instant {
        after(self.epoch, Duration::from_micros(sent_us))
    }

    /// Notes what became of a packet. `None` if that is no news: unknown, told before, or lost after it had arrived.
    pub(super) fn settle(&mut self, now: Instant, sequence: u16, fate: Fate) -> Option<Settled> {
        let now_us = self.micros(now);
        let sent = self.ring.get_mut(position(sequence)).filter(|sent| sent.sequence == sequence)?;
        let before = sent.fate;
        let news = match before {
            Fate::Unsent | Fate::Queued | Fate::Arrived => false,
            Fate::Flying => true,
            Fate::Lost => fate == Fate::Arrived,
        };
        if !news || now_us.saturating_sub(sent.sent_us) > AGE_MAX_US {
            return None;
        }
        sent.fate = fate;
        Some(Settled { sent_us: sent.sent_us, bytes: sent.bytes.into(), before })
    }

    pub(super) fn age(&self, now: Instant, sent_us: u64) -> Duration {
        Duration::from_micros(self.micros(now).saturating_sub(sent_us))
    }

    fn micros(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_micros()).unwrap_or(u64::MAX)
    }
}

fn position(sequence: u16) -> usize {
    usize::from(sequence) % RING
}

/// A second at 10 Mb/s, in 16 KiB.
const RING: usize = 1_024;
/// Feedback on anything older is about the packet one wrap before.
const AGE_MAX_US: u64 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fate_is_news_once() {
        let now = Instant::now();
        let mut history = SendHistory::new(now);
        let sequence = history.record(now, 100);
        assert_eq!(history.settle(now, sequence, Fate::Lost), None, "it has not left");
        history.departed(now, sequence);
        let settled = |before| Some(Settled { sent_us: 0, bytes: 100, before });
        for (fate, expected) in [
            (Fate::Lost, settled(Fate::Flying)),
            (Fate::Lost, None),
            (Fate::Arrived, settled(Fate::Lost)),
            (Fate::Arrived, None),
            (Fate::Lost, None),
        ] {
            assert_eq!(history.settle(now, sequence, fate), expected);
        }
        assert_eq!(history.settle(now, sequence.wrapping_add(1), Fate::Arrived), None, "never sent");
    }

    #[test]
    fn overwritten_and_aged_packets_are_unknown() {
        let now = Instant::now();
        let mut history = SendHistory::new(now);
        let first = history.record(now, 100);
        for _ in 0..RING {
            history.record(now, 100);
        }
        assert_eq!(history.settle(now, first, Fate::Arrived), None);
        let later = now + Duration::from_secs(11);
        assert_eq!(history.settle(later, first.wrapping_add(1), Fate::Arrived), None);
    }
}
