//! Reception statistics (RFC 3550 6.4.1, A.3, A.8), the replay window, and the publisher's clock.

use std::time::{Duration, Instant};

use crate::{DropReason, rtcp::ReportBlock};

/// Counts packets of the media SSRC itself; repaired ones are not network arrivals.
#[derive(Debug)]
pub(super) struct Statistics {
    clock_rate: u32,
    span: Option<Span>,
    received: u64,
    reported_expected: u64,
    reported_received: u64,
    /// Interarrival jitter in sixteenths of a timestamp unit, as RFC 3550 A.8 keeps it.
    jitter_sixteenths: u64,
    last_transit: Option<i64>,
    sender_clock: Option<SenderClock>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    epoch: Instant,
    lowest: u64,
    highest: u64,
}

/// A sender report: at `ntp` on the publisher's clock its stream stood at `rtp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SenderClock {
    /// 32.32 fixed point.
    pub(crate) ntp: u64,
    pub(crate) rtp: u32,
    pub(crate) received: Instant,
}

impl Statistics {
    pub(super) fn new(clock_rate: u32) -> Self {
        Self {
            clock_rate,
            span: None,
            received: 0,
            reported_expected: 0,
            reported_received: 0,
            jitter_sixteenths: 0,
            last_transit: None,
            sender_clock: None,
        }
    }

    pub(super) fn on_packet(&mut self, received: Instant, index: u64, timestamp: u32) {
        self.received = self.received.saturating_add(1);
        let span = self.span.get_or_insert(Span { epoch: received, lowest: index, highest: index });
        span.lowest = span.lowest.min(index);
        // A late packet says nothing about the spacing of arrivals.
        if index < span.highest {
            return;
        }
        span.highest = index;
        let arrival = ticks(received.saturating_duration_since(span.epoch), self.clock_rate);
        let transit = i64::from(arrival.wrapping_sub(timestamp).cast_signed());
        if let Some(last) = self.last_transit {
            let difference = transit.saturating_sub(last).unsigned_abs();
            // A jump this large is a new timestamp base (or its wrap), not jitter.
            if difference < u64::from(self.clock_rate).saturating_mul(10) {
                let decay = self.jitter_sixteenths.saturating_add(8) >> 4;
                self.jitter_sixteenths = self.jitter_sixteenths.saturating_add(difference).saturating_sub(decay);
            }
        }
        self.last_transit = Some(transit);
    }

    pub(super) fn on_sender_report(&mut self, received: Instant, ntp: u64, rtp: u32) {
        self.sender_clock = Some(SenderClock { ntp, rtp, received });
    }

    pub(super) fn sender_clock(&self) -> Option<SenderClock> {
        self.sender_clock
    }

    pub(super) fn report_block(&mut self, now: Instant, ssrc: u32) -> Option<ReportBlock> {
        let span = self.span?;
        let expected = span.highest.saturating_sub(span.lowest).saturating_add(1);
        let expected_since = expected.saturating_sub(self.reported_expected);
        let received_since = self.received.saturating_sub(self.reported_received);
        let lost_since = expected_since.saturating_sub(received_since);
        self.reported_expected = expected;
        self.reported_received = self.received;
        let fraction = lost_since.saturating_mul(256).checked_div(expected_since).unwrap_or_default();
        let lost = i64::try_from(expected).ok()?.saturating_sub_unsigned(self.received);
        let (last_report, delay_since) = self.sender_clock.map_or((0, 0), |clock| {
            (clock.middle_bits(), ticks(now.saturating_duration_since(clock.received), 1 << 16))
        });
        Some(ReportBlock {
            ssrc,
            fraction_lost: u8::try_from(fraction).unwrap_or(u8::MAX),
            cumulative_lost: i32::try_from(lost).unwrap_or(i32::MAX).clamp(-0x80_0000, 0x7f_ffff),
            // RFC 3550 6.4.1: cycles in the high half, counted from the first packet: our indices start one wrap up.
            highest_sequence: low_word(span.highest.saturating_sub(crate::rtp::FIRST_INDEX)),
            jitter: low_word(self.jitter_sixteenths >> 4),
            last_report,
            delay_since,
        })
    }
}

impl SenderClock {
    /// What receivers echo to name this report.
    pub(crate) fn middle_bits(&self) -> u32 {
        low_word(self.ntp >> 16)
    }
}

/// `elapsed` in units of a clock, wrapping as a timestamp does.
pub(crate) fn ticks(elapsed: Duration, clock_rate: u32) -> u32 {
    let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    let seconds = micros / 1_000_000;
    let rest = micros % 1_000_000;
    let fraction = rest.saturating_mul(u64::from(clock_rate)) / 1_000_000;
    low_word(seconds.wrapping_mul(u64::from(clock_rate)).wrapping_add(fraction))
}

pub(crate) fn low_word(value: u64) -> u32 {
    let [.., b0, b1, b2, b3] = value.to_be_bytes();
    u32::from_be_bytes([b0, b1, b2, b3])
}

/// Which of the last [`REPLAY_PACKETS`] indices have been seen.
#[derive(Debug, Default)]
pub(super) struct ReplayWindow {
    /// One past the newest index, 0 before the first.
    end: u64,
    words: [u64; WORDS],
}

impl ReplayWindow {
    pub(super) fn accept(&mut self, index: u64) -> Result<(), DropReason> {
        if self.end == 0 {
            self.end = index;
        }
        if index < self.end.saturating_sub(REPLAY_PACKETS) {
            return Err(DropReason::TooOld);
        }
        if index >= self.end {
            // What the window slides over becomes unseen; beyond its size that is everything.
            let first_new = self.end.max(index.saturating_sub(REPLAY_PACKETS));
            for skipped in first_new..=index {
                self.change(skipped, |word, bit| *word &= !bit);
            }
            self.end = index.saturating_add(1);
        }
        let mut duplicate = false;
        self.change(index, |word, bit| {
            duplicate = *word & bit != 0;
            *word |= bit;
        });
        if duplicate { Err(DropReason::Duplicate) } else { Ok(()) }
    }

    fn change(&mut self, index: u64, change: impl FnOnce(&mut u64, u64)) {
        let position = index % REPLAY_PACKETS;
        let word = usize::try_from(position / 64).ok().and_then(|word| self.words.get_mut(word));
        if let Some(word) = word {
            change(word, 1u64.wrapping_shl(low_word(position % 64)));
        }
    }
}

const WORDS: usize = 16;
/// Twice what the store holds: a packet older than that helps nobody.
const REPLAY_PACKETS: u64 = 64 * 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replay_window_accepts_each_index_once() {
        let mut window = ReplayWindow::default();
        let base = 100_000;
        for (index, expected) in [
            (base, Ok(())),
            (base, Err(DropReason::Duplicate)),
            (base + 5, Ok(())),
            (base + 3, Ok(())),
            (base + 3, Err(DropReason::Duplicate)),
            (base - 1, Ok(())),
            (base + 5, Err(DropReason::Duplicate)),
            (base + 5 + REPLAY_PACKETS, Ok(())),
            (base + 5, Err(DropReason::TooOld)),
            (base + 6, Ok(())),
            (base + 100 * REPLAY_PACKETS, Ok(())),
            (base + 99 * REPLAY_PACKETS + 1, Ok(())),
            (base + 100 * REPLAY_PACKETS, Err(DropReason::Duplicate)),
        ] {
            assert_eq!(window.accept(index), expected, "{}", index as i64 - base as i64);
        }
    }

    #[test]
    fn ticks_follow_the_clock_rate() {
        for (elapsed, rate, expected) in [
            (Duration::from_millis(20), 48_000, 960),
            (Duration::from_millis(33), 90_000, 2_970),
            (Duration::from_secs(1), 1 << 16, 65_536),
            (Duration::from_secs(47_722), 90_000, 47_722u32.wrapping_mul(90_000)),
        ] {
            assert_eq!(ticks(elapsed, rate), expected);
        }
    }
}
