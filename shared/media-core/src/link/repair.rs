//! What was sent over a link in the last half second, for sending again what the acks show missing.
//!
//! Like in QUIC (RFC 9002) a repair is a new datagram with a counter of its own, so that it can be missed again.
//!
//! Hot: one `push` per datagram. No allocation once the buffers hold as much as half a second brings.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::message::Ack;
use crate::egress::Class;

#[derive(Debug, Default)]
pub(super) struct Ring {
    sent: VecDeque<Sent>,
    bytes: VecDeque<u8>,
    /// How many bytes have left at the front.
    passed: u64,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    counter: u64,
    at: Instant,
    first_at: Instant,
    tries: u8,
    class: Class,
    /// Counted from the first byte there ever was.
    start: u64,
    bytes: usize,
    /// It arrived, or was sent again.
    is_settled: bool,
}

/// Frames to be sent once more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Again {
    pub(super) first_at: Instant,
    pub(super) tries: u8,
    /// Of the frames, whatever lane a repair takes.
    pub(super) class: Class,
}

/// What came to an end of what was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) datagrams: usize,
    pub(super) bytes: usize,
}

impl Ring {
    /// `tries`: how often the frames were sent before.
    pub(super) fn push(&mut self, now: Instant, counter: u64, frames: &[u8], again: Again) {
        while self.sent.len() >= DATAGRAMS_MAX || self.bytes.len().saturating_add(frames.len()) > BYTES_MAX {
            if self.pop().is_none() {
                return;
            }
        }
        let start = self.passed.saturating_add(u64::try_from(self.bytes.len()).unwrap_or_default());
        self.bytes.extend(frames);
        let (Again { first_at, tries, class }, bytes) = (again, frames.len());
        self.sent.push_back(Sent { counter, at: now, first_at, tries, class, start, bytes, is_settled: false });
    }

    /// Forgets what is too old to be of use, and says how many datagrams that were, and how many of them nobody confirmed.
    pub(super) fn expire(&mut self, now: Instant) -> (usize, usize) {
        let (mut passed, mut lost) = (0usize, 0usize);
        while self.sent.front().is_some_and(|sent| now.saturating_duration_since(sent.first_at) > KEPT) {
            passed = passed.saturating_add(1);
            if self.pop().is_some_and(|sent| !sent.is_settled) {
                lost = lost.saturating_add(1);
            }
        }
        (passed, lost)
    }

    /// Takes in what arrived, and says what is news of it; [`next_missing`](Self::next_missing) then has what did not.
    pub(super) fn on_ack(&mut self, ack: &Ack) -> Settled {
        let mut news = Settled::default();
        let first = self.sent.partition_point(|sent| sent.counter.saturating_add(super::session::ACKED) <= ack.highest);
        for sent in self.sent.range_mut(first..) {
            if sent.counter > ack.highest {
                break;
            }
            if !sent.is_settled && ack.has(sent.counter) == Some(true) {
                sent.is_settled = true;
                news.datagrams = news.datagrams.saturating_add(1);
                news.bytes = news.bytes.saturating_add(sent.bytes);
            }
        }
        news
    }

    /// The next datagram that an ack shows missing and that may be sent again; its frames go into `out`. Each is given
    /// out once.
    pub(super) fn next_missing(&mut self, now: Instant, rtt: Duration, ack: &Ack, out: &mut Vec<u8>) -> Option<Again> {
        let grown = rtt.saturating_mul(9).checked_div(8).unwrap_or(rtt).max(TRIES_APART);
        let first = self.sent.partition_point(|sent| sent.counter.saturating_add(super::session::ACKED) <= ack.highest);
        let is_missing = |sent: &&mut Sent| {
            let age = now.saturating_duration_since(sent.at);
            // RFC 9002 6.1: three behind it or an eighth more than a round trip.
            let overtaken = ack.highest.saturating_sub(sent.counter) >= OVERTAKEN && age >= TRIES_APART;
            !sent.is_settled && sent.counter < ack.highest && sent.tries < TRIES_MAX && (overtaken || age >= grown)
        };
        let sent = self.sent.range_mut(first..).take_while(|sent| sent.counter <= ack.highest).find(is_missing)?;
        sent.is_settled = true;
        let Sent { start, bytes, first_at, tries, class, .. } = *sent;
        let start = usize::try_from(start.saturating_sub(self.passed)).ok()?;
        out.clear();
        out.extend(self.bytes.range(start..start.saturating_add(bytes).min(self.bytes.len())));
        Some(Again { first_at, tries: tries.saturating_add(1), class })
    }

    pub(super) fn clear(&mut self) {
        while self.pop().is_some() {}
    }

    fn pop(&mut self) -> Option<Sent> {
        let sent = self.sent.pop_front()?;
        self.bytes.drain(..sent.bytes.min(self.bytes.len()));
        self.passed = self.passed.saturating_add(u64::try_from(sent.bytes).unwrap_or_default());
        Some(sent)
    }
}

/// A decoder waits for nothing longer.
const KEPT: Duration = Duration::from_millis(500);
/// 80 Mbit/s of full datagrams for the time that they are kept.
const DATAGRAMS_MAX: usize = 4_096;
const BYTES_MAX: usize = 4 * 1024 * 1024;
const TRIES_MAX: u8 = 3;
const TRIES_APART: Duration = Duration::from_millis(10);
const OVERTAKEN: u64 = 3;

#[cfg(test)]
mod tests {
    use super::{super::session::Window, *};

    const RTT: Duration = Duration::from_millis(40);

    fn first(now: Instant) -> Again {
        Again { first_at: now, tries: 0, class: Class::Video }
    }

    /// Sends the datagrams `0..count`, a millisecond apart.
    fn sent(count: u64) -> (Ring, Instant) {
        let (mut ring, start) = (Ring::default(), Instant::now());
        for counter in 0..count {
            let now = start + Duration::from_millis(counter);
            ring.push(now, counter, &counter.to_be_bytes(), first(now));
        }
        (ring, start)
    }

    fn ack(arrived: impl Iterator<Item = u64>) -> Ack {
        let mut window = Window::default();
        arrived.for_each(|counter| window.add(counter));
        window.ack().unwrap()
    }

    fn missing(ring: &mut Ring, now: Instant, ack: &Ack) -> Vec<u64> {
        let mut out = Vec::new();
        ring.on_ack(ack);
        let missing = std::iter::from_fn(|| {
            ring.next_missing(now, RTT, ack, &mut out)?;
            Some(u64::from_be_bytes(out.as_slice().try_into().unwrap()))
        });
        missing.collect()
    }

    #[test]
    fn what_an_ack_leaves_out_is_sent_again_once() {
        let (mut ring, start) = sent(100);
        let now = start + Duration::from_millis(130);
        let ack = ack((0..100).filter(|counter| ![3, 50, 98].contains(counter)));
        assert_eq!(missing(&mut ring, now, &ack), [3, 50], "the last may be overtaken by one alone");
        assert_eq!(missing(&mut ring, now, &ack), [0u64; 0]);
        assert_eq!(missing(&mut ring, start + Duration::from_millis(98 + 45), &ack), [98]);
    }

    #[test]
    fn what_arrived_is_news_once() {
        let (mut ring, _) = sent(10);
        assert_eq!(ring.on_ack(&ack([0, 1, 3].into_iter())), Settled { datagrams: 3, bytes: 24 });
        assert_eq!(ring.on_ack(&ack([0, 1, 2, 3].into_iter())), Settled { datagrams: 1, bytes: 8 });
    }

    #[test]
    fn what_is_younger_than_a_try_is_not_missing_yet() {
        let (mut ring, start) = sent(10);
        assert_eq!(missing(&mut ring, start + Duration::from_millis(9), &ack(9..10)), [0u64; 0]);
    }

    #[test]
    fn a_datagram_is_tried_three_times_more_and_not_after_half_a_second() {
        let (mut ring, start) = (Ring::default(), Instant::now());
        let mut now = start;
        let mut again = first(start);
        let mut tries = 0;
        for counter in (0..100).step_by(10) {
            ring.push(now, counter, b"x", again);
            now += Duration::from_millis(50);
            let ack = ack(counter + 5..counter + 6);
            ring.on_ack(&ack);
            let Some(next) = ring.next_missing(now, RTT, &ack, &mut Vec::new()) else { break };
            again = next;
            tries += 1;
        }
        assert_eq!(tries, TRIES_MAX);
        assert_eq!(ring.expire(start + KEPT), (0, 0));
        assert_eq!(ring.expire(start + KEPT + Duration::from_millis(1)), (4, 1), "lost for good");
        assert!(ring.bytes.is_empty());
    }

    #[test]
    fn its_memory_is_bounded() {
        let (mut ring, now) = (Ring::default(), Instant::now());
        for counter in 0..3 * DATAGRAMS_MAX as u64 {
            ring.push(now, counter, &[7; 1_400], first(now));
            assert!(ring.bytes.len() <= BYTES_MAX && ring.sent.len() <= DATAGRAMS_MAX);
        }
    }
}
