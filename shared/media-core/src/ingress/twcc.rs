//! Transport-wide feedback to one publisher. Its send rate depends on it from the first packet: without it browsers stay
//! at some 300 kb/s, and turning it on late hardly helps.

use std::time::{Duration, Instant};

use super::after;
use crate::{
    rtcp::{FeedbackWriter, Pushed},
    rtp::{FIRST_INDEX, extend},
};

/// Arrivals on one transport, across all its streams.
#[derive(Debug)]
pub(crate) struct TwccReceiver {
    epoch: Option<Instant>,
    /// Empty until a packet comes: many transports never carry media.
    arrivals: Box<[Recorded]>,
    highest: u64,
    /// The first packet the next feedback speaks of.
    next_base: u64,
    pending: bool,
    due: Option<Instant>,
    feedback_count: u8,
    writer: FeedbackWriter,
}

#[derive(Debug, Clone, Copy, Default)]
struct Recorded {
    index: u64,
    at_us: i64,
}

impl TwccReceiver {
    pub(crate) fn new() -> Self {
        Self {
            epoch: None,
            arrivals: Box::default(),
            highest: 0,
            next_base: 0,
            pending: false,
            due: None,
            feedback_count: 0,
            writer: FeedbackWriter::default(),
        }
    }

    /// A packet with this transport-wide sequence number came to the socket at `received`.
    pub(crate) fn record(&mut self, received: Instant, sequence: u16) {
        let epoch = *self.epoch.get_or_insert(received);
        let index = if self.highest == 0 {
            FIRST_INDEX.saturating_add(u64::from(sequence))
        } else {
            extend(self.highest, sequence)
        };
        if self.highest == 0 {
            self.next_base = index;
            self.arrivals = vec![Recorded::default(); RING].into_boxed_slice();
        }
        if index.saturating_add(RING_PACKETS) <= self.highest {
            return;
        }
        let Some(slot) = position(index).and_then(|at| self.arrivals.get_mut(at)) else { return };
        if slot.index == index {
            return;
        }
        let elapsed = received.saturating_duration_since(epoch).as_micros();
        *slot = Recorded { index, at_us: i64::try_from(elapsed).unwrap_or(i64::MAX) };
        self.highest = self.highest.max(index);
        // A late packet was reported lost before: the next feedback goes back to it and says otherwise. What the ring no
        // longer holds is passed over.
        let oldest = self.highest.saturating_sub(RING_PACKETS.saturating_sub(1));
        self.next_base = self.next_base.min(index).max(oldest);
        if !self.pending {
            self.pending = true;
            let fresh = after(received, INTERVAL);
            self.due = Some(self.due.filter(|due| *due > received).unwrap_or(fresh));
        }
    }

    /// When the next feedback is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.due.filter(|_| self.pending)
    }

    /// Appends one feedback packet if one is due. To be called until it says `false`: what does not fit into one packet
    /// follows in the next.
    pub(crate) fn write_feedback(
        &mut self,
        now: Instant,
        sender_ssrc: u32,
        media_ssrc: u32,
        out: &mut Vec<u8>,
    ) -> bool {
        if !self.pending || self.due.is_some_and(|due| now < due) {
            return false;
        }
        let window = self.next_base..=self.highest;
        let Some(first) = window.clone().find_map(|index| self.arrival(index)) else {
            self.pending = false;
            return false;
        };
        let [.., high, low] = self.next_base.to_be_bytes();
        self.writer.start(u16::from_be_bytes([high, low]), first);
        for index in window {
            let arrival = self.arrival(index);
            if self.writer.push(arrival) == Pushed::Full {
                break;
            }
            self.next_base = index.saturating_add(1);
        }
        self.writer.write(out, sender_ssrc, media_ssrc, self.feedback_count);
        self.feedback_count = self.feedback_count.wrapping_add(1);
        if self.next_base > self.highest {
            self.pending = false;
            self.due = Some(after(now, INTERVAL));
        }
        true
    }

    fn arrival(&self, index: u64) -> Option<i64> {
        let slot = position(index).and_then(|at| self.arrivals.get(at))?;
        (slot.index == index).then_some(slot.at_us)
    }
}

fn position(index: u64) -> Option<usize> {
    usize::try_from(index % RING_PACKETS).ok()
}

/// A second at 10 Mb/s.
const RING: usize = 1_024;
const RING_PACKETS: u64 = 1_024;
const INTERVAL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rtcp::{Packet, feedback::Arrival, packets};

    fn drain(receiver: &mut TwccReceiver, now: Instant) -> Vec<Vec<Arrival>> {
        let mut all = Vec::new();
        for _ in 0..64 {
            let mut out = Vec::new();
            if !receiver.write_feedback(now, 1, 2, &mut out) {
                return all;
            }
            let Some(Ok(Packet::TransportFeedback(feedback))) = packets(&out).next() else { panic!() };
            all.push(feedback.arrivals().collect());
        }
        panic!("feedback never ends");
    }

    fn flags(arrivals: &[Arrival]) -> Vec<(u16, bool)> {
        arrivals.iter().map(|arrival| (arrival.sequence, arrival.at_us.is_some())).collect()
    }

    #[test]
    fn feedback_comes_every_fifty_milliseconds_from_the_first_packet() {
        let start = Instant::now();
        let mut receiver = TwccReceiver::new();
        let mut sent = Vec::new();
        for ms in 0..300u64 {
            let now = start + Duration::from_millis(ms);
            if ms % 5 == 0 {
                receiver.record(now, (ms / 5) as u16);
            }
            if !drain(&mut receiver, now).is_empty() {
                sent.push(ms);
            }
        }
        assert_eq!(sent, [50, 100, 150, 200, 250]);
    }

    #[test]
    fn losses_across_the_wrap_and_between_feedbacks_are_told() {
        let start = Instant::now();
        let mut receiver = TwccReceiver::new();
        receiver.record(start, 65_534);
        receiver.record(start, 0);
        let first = drain(&mut receiver, start + INTERVAL);
        assert_eq!(flags(&first[0]), [(65_534, true), (65_535, false), (0, true)]);
        receiver.record(start + INTERVAL, 3);
        let second = drain(&mut receiver, start + 2 * INTERVAL);
        assert_eq!(flags(&second[0]), [(1, false), (2, false), (3, true)]);
    }

    #[test]
    fn a_late_packet_is_told_in_the_next_feedback() {
        let start = Instant::now();
        let mut receiver = TwccReceiver::new();
        receiver.record(start, 10);
        receiver.record(start, 12);
        drain(&mut receiver, start + INTERVAL);
        receiver.record(start + INTERVAL, 11);
        let second = drain(&mut receiver, start + 2 * INTERVAL);
        assert_eq!(flags(&second[0]), [(11, true), (12, true)]);
        assert!(second[0][0].at_us > second[0][1].at_us, "it came after the one behind it");
    }

    #[test]
    fn a_jump_beyond_the_ring_is_bounded() {
        let start = Instant::now();
        let mut receiver = TwccReceiver::new();
        receiver.record(start, 0);
        receiver.record(start, 30_000);
        let told = drain(&mut receiver, start + INTERVAL);
        assert_eq!(told.iter().map(Vec::len).sum::<usize>(), RING);
        assert_eq!(told.last().unwrap().last().unwrap().sequence, 30_000);
    }

    #[test]
    fn a_pause_longer_than_a_delta_can_say_splits_the_feedback() {
        let start = Instant::now();
        let mut receiver = TwccReceiver::new();
        receiver.record(start, 1);
        receiver.record(start + Duration::from_secs(20), 2);
        let told = drain(&mut receiver, start + Duration::from_secs(20));
        assert_eq!(told.iter().map(|arrivals| flags(arrivals)).collect::<Vec<_>>(), [[(1, true)], [(2, true)]]);
    }

    proptest! {
        #[test]
        fn every_arrival_is_told_with_its_time(
            first in any::<u16>(),
            steps in proptest::collection::vec((0u16..6, 0u64..20_000), 1..400),
        ) {
            let start = Instant::now();
            let mut receiver = TwccReceiver::new();
            let (mut now, mut sequence) = (start, first);
            receiver.record(now, first.wrapping_sub(2));
            let mut expected = std::collections::BTreeMap::from([(first.wrapping_sub(2), 0)]);
            let mut told = std::collections::BTreeMap::new();
            let mut note = |receiver: &mut TwccReceiver, now| {
                for arrival in drain(receiver, now).into_iter().flatten() {
                    if let Some(at) = arrival.at_us {
                        told.insert(arrival.sequence, at);
                    }
                }
            };
            for (step, wait_us) in steps {
                // A step of 0 goes back by one: a late packet, or a duplicate.
                sequence = if step == 0 { sequence.wrapping_sub(1) } else { sequence.wrapping_add(step) };
                now += Duration::from_micros(wait_us);
                receiver.record(now, sequence);
                expected.entry(sequence).or_insert((now - start).as_micros() as i64 / 250 * 250);
                note(&mut receiver, now);
                sequence = sequence.wrapping_add(u16::from(step == 0));
            }
            note(&mut receiver, now + INTERVAL);
            prop_assert_eq!(told, expected);
        }
    }
}
