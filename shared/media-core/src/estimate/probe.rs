//! Finding out whether a path takes more than is sent: a short cluster of packets at the rate in question, and the rate at
//! which it arrived.
//!
//! An SFU sends what publishers make, so a quiet path says nothing about more. A cluster is so short that it costs a narrow
//! path some tens of milliseconds of queue, and it comes the more rarely the more often it is answered by no.

use std::time::{Duration, Instant};

use super::history::{Fate, Settled};
use crate::ingress::after;

#[derive(Debug)]
pub(super) struct Prober {
    state: State,
    /// Between a probe that found nothing and the next.
    interval: Duration,
    last_ended: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Idle {
        not_before: Option<Instant>,
    },
    Sending(Cluster),
    /// Sent, until feedback has spoken of all of it.
    Waiting(Cluster),
}

#[derive(Debug, Clone, Copy)]
struct Cluster {
    rate_bps: f64,
    started: Instant,
    ends: Instant,
    bytes: usize,
    packets: u32,
    measured: Measured,
}

/// What feedback said of a cluster so far.
#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    sent: Option<Ends>,
    arrived: Option<Ends>,
}

/// Bytes from the first to the last, and how many of them belong to the first instant and to the last.
#[derive(Debug, Clone, Copy)]
struct Ends {
    first_us: i64,
    last_us: i64,
    bytes: usize,
    first_bytes: usize,
    last_bytes: usize,
    packets: u32,
}

/// What a probe found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Finding {
    /// It arrived as it was sent, at this rate.
    Passed { bps: f64 },
    /// The path let no more through than this.
    Limited { bps: f64 },
    /// Too little of it arrived to say.
    Nothing,
}

impl Default for Prober {
    fn default() -> Self {
        Self { state: State::Idle { not_before: None }, interval: INTERVAL_MIN, last_ended: None }
    }
}

impl Prober {
    /// Begins a cluster at this rate, unless one is under way or the last failed not long ago.
    pub(super) fn start(&mut self, now: Instant, rate_bps: f64) {
        let State::Idle { not_before } = self.state else { return };
        if not_before.is_some_and(|at| now < at) {
            return;
        }
        let rate_bps = rate_bps.min(RATE_MAX_BPS);
        let least = Duration::from_secs_f64(BYTES_MIN * 8.0 / rate_bps.max(1.0));
        let cluster = Cluster {
            rate_bps,
            started: now,
            ends: after(now, least.clamp(SPAN_MIN, SPAN_MAX)),
            bytes: 0,
            packets: 0,
            measured: Measured::default(),
        };
        self.state = State::Sending(cluster);
    }

    /// No probe before this.
    pub(super) fn postpone(&mut self, until: Instant) {
        let not_before = match self.state {
            State::Idle { not_before } => not_before.max(Some(until)),
            State::Sending(_) | State::Waiting(_) => Some(until),
        };
        self.state = State::Idle { not_before };
    }

    /// A packet leaves, whatever it is.
    pub(super) fn sent(&mut self, bytes: usize) {
        if let State::Sending(cluster) = &mut self.state {
            cluster.bytes = cluster.bytes.saturating_add(bytes);
            cluster.packets = cluster.packets.saturating_add(1);
        }
    }

    /// Bytes that are missing now to keep up the rate of the cluster under way.
    pub(super) fn owed(&mut self, now: Instant) -> usize {
        let State::Sending(cluster) = &mut self.state else { return 0 };
        let full = cluster.bytes >= BYTES_MAX || cluster.packets >= PACKETS_MAX;
        if full || now >= cluster.ends {
            cluster.ends = cluster.ends.min(now);
            self.state = State::Waiting(*cluster);
            return 0;
        }
        let elapsed = now.saturating_duration_since(cluster.started).saturating_add(TICK).as_secs_f64();
        let due = super::to_usize(cluster.rate_bps / 8.0 * elapsed);
        due.min(BYTES_MAX).saturating_sub(cluster.bytes)
    }

    /// When to ask again what is [`owed`](Self::owed).
    pub(super) fn next_tick(&self, now: Instant) -> Option<Instant> {
        match &self.state {
            State::Sending(_) => Some(after(now, TICK)),
            State::Idle { .. } | State::Waiting(_) => None,
        }
    }

    /// Feedback speaks of a packet; `sent_at` is when it left, `arrival_us` the receiver's time.
    pub(super) fn settled(&mut self, sent_at: Instant, packet: &Settled, arrival_us: Option<i64>) {
        let (State::Sending(cluster) | State::Waiting(cluster)) = &mut self.state else { return };
        // Times of sending are kept in whole microseconds.
        if after(sent_at, Duration::from_micros(1)) < cluster.started || sent_at > cluster.ends {
            return;
        }
        if packet.before == Fate::Flying {
            let sent_us = i64::try_from(packet.sent_us).unwrap_or(i64::MAX);
            Ends::add(&mut cluster.measured.sent, sent_us, packet.bytes);
        }
        if let Some(arrival_us) = arrival_us {
            Ends::add(&mut cluster.measured.arrived, arrival_us, packet.bytes);
        }
    }

    /// Whether a queue may be the doing of a probe.
    pub(super) fn is_felt(&self, now: Instant, rtt: Duration) -> bool {
        let ended = match &self.state {
            State::Idle { .. } => self.last_ended,
            State::Sending(cluster) | State::Waiting(cluster) => Some(cluster.ends),
        };
        ended.is_some_and(|ended| now < after(after(ended, rtt), ECHO))
    }

    /// What the probe found, once feedback has come to packets that left at `newest`, or will not come any more.
    pub(super) fn conclude(
        &mut self,
        now: Instant,
        newest: Option<Instant>,
        rtt: Duration,
        unrest_ms: f64,
    ) -> Option<Finding> {
        let State::Waiting(cluster) = &self.state else { return None };
        let told = newest.is_some_and(|newest| newest > cluster.ends);
        if !told && now < after(after(cluster.ends, rtt), PATIENCE) {
            return None;
        }
        let finding = cluster.finding(unrest_ms);
        self.last_ended = Some(cluster.ends);
        if let Finding::Passed { .. } = finding {
            self.interval = INTERVAL_MIN;
        }
        self.state = State::Idle { not_before: Some(after(now, self.interval)) };
        if !matches!(finding, Finding::Passed { .. }) {
            self.interval = self.interval.saturating_mul(2).min(INTERVAL_MAX);
        }
        Some(finding)
    }
}

impl Cluster {
    fn finding(&self, unrest_ms: f64) -> Finding {
        let Some((sent, arrived)) = self.measured.sent.zip(self.measured.arrived) else { return Finding::Nothing };
        if arrived.packets < ARRIVALS_MIN || arrived.packets.saturating_mul(2) < sent.packets {
            return Finding::Nothing;
        }
        // What left last took no time any more, nor did what arrived first.
        let Some(sent_bps) = rate(sent.bytes.saturating_sub(sent.last_bytes), sent) else { return Finding::Nothing };
        // All at once: some queue held it back, which says nothing against the rate.
        let restless_us = (unrest_ms * UNREST_SHARE * 1_000.0) as i64;
        let arrived = Ends { last_us: arrived.last_us.saturating_sub(restless_us), ..arrived };
        let arrived_bps = rate(arrived.bytes.saturating_sub(arrived.first_bytes), arrived).unwrap_or(f64::INFINITY);
        let bytes = |ends: Ends| f64::from(u32::try_from(ends.bytes).unwrap_or(u32::MAX));
        // The rate of what was lost on the way is what the path took too, if loss is not its answer to the rate.
        let arrived_bps = arrived_bps * (bytes(sent) / bytes(arrived).max(1.0)).clamp(1.0, LOSS_COMPENSATION_MAX);
        if arrived_bps < sent_bps * PASSED {
            Finding::Limited { bps: arrived_bps }
        } else {
            Finding::Passed { bps: sent_bps.min(arrived_bps) }
        }
    }
}

impl Ends {
    fn add(ends: &mut Option<Self>, at_us: i64, bytes: usize) {
        let Some(ends) = ends else {
            *ends = Some(Self {
                first_us: at_us,
                last_us: at_us,
                bytes,
                first_bytes: bytes,
                last_bytes: bytes,
                packets: 1,
            });
            return;
        };
        if at_us < ends.first_us {
            (ends.first_us, ends.first_bytes) = (at_us, bytes);
        }
        if at_us > ends.last_us {
            (ends.last_us, ends.last_bytes) = (at_us, bytes);
        } else if at_us == ends.last_us {
            ends.last_bytes = ends.last_bytes.saturating_add(bytes);
        }
        ends.bytes = ends.bytes.saturating_add(bytes);
        ends.packets = ends.packets.saturating_add(1);
    }
}

fn rate(bytes: usize, ends: Ends) -> Option<f64> {
    let span = u32::try_from(ends.last_us.saturating_sub(ends.first_us)).ok().filter(|span| *span > 0)?;
    Some(f64::from(u32::try_from(bytes).ok()?) * 8_000_000.0 / f64::from(span))
}

/// Packets of a cluster leave in portions of so much time.
const TICK: Duration = Duration::from_millis(5);
const SPAN_MIN: Duration = Duration::from_millis(25);
const SPAN_MAX: Duration = Duration::from_millis(60);
/// Fewer say nothing of a rate.
const BYTES_MIN: f64 = 1_500.0;
/// What one probe may cost, whatever its rate.
const BYTES_MAX: usize = 24 * 1024;
const PACKETS_MAX: u32 = 120;
const RATE_MAX_BPS: f64 = 8_000_000.0;
const ARRIVALS_MIN: u32 = 3;
/// A path that delays packets at random stretches a cluster too.
const UNREST_SHARE: f64 = 4.0;
const PASSED: f64 = 0.85;
const LOSS_COMPENSATION_MAX: f64 = 1.4;
/// Feedback that has not come by then is lost.
const PATIENCE: Duration = Duration::from_millis(500);
/// Longer than a round trip, in which feedback waits and the queue drains.
const ECHO: Duration = Duration::from_millis(300);
const INTERVAL_MIN: Duration = Duration::from_millis(400);
/// So that a path that opens up is found within this and the few probes to its top.
const INTERVAL_MAX: Duration = Duration::from_secs(6);
