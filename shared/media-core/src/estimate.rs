//! How much a subscriber's path can take, and who gets it.
//!
//! The estimate comes from transport-wide feedback on what we sent: growing delay and heavy loss lower it to what arrived,
//! otherwise it grows, but not beyond what could be used. An SFU sends what publishers make and not what the path would
//! take, so a quiet path proves nothing about more: the next layer is simply tried, and taken back if delay answers.
//!
//! Hot: `sent` runs once per packet, `on_feedback` once per packet acknowledged. Ring and window are of fixed size.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod allocate;
mod delay;
mod history;

use std::time::{Duration, Instant};

pub(crate) use allocate::{Ask, LayerRate, Pausing, allocate, wanted_bps};
use delay::{DelayTrend, Usage};
use history::{Fate, SendHistory};

use crate::{
    ingress::{RateMeter, after},
    rtcp::TwccFeedback,
};

/// The estimate for one subscriber's transport.
#[derive(Debug)]
pub(crate) struct Estimator {
    history: SendHistory,
    delay: DelayTrend,
    acknowledged: RateMeter,
    target_bps: f64,
    wanted_bps: f64,
    phase: Phase,
    /// No growth before this.
    hold_until: Option<Instant>,
    hold: Duration,
    last_decrease: Option<Instant>,
    last_growth: Option<Instant>,
    loss: LossWindow,
    last_feedback: Option<Instant>,
    sent_since_feedback: u32,
    remb: Option<Remb>,
    rtt: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Nothing has pushed back yet.
    Starting,
    /// The path pushed back when so much arrived.
    Known { capacity_bps: f64 },
}

#[derive(Debug, Default)]
struct LossWindow {
    since: Option<Instant>,
    acknowledged: u32,
    lost: u32,
    /// The last window had enough loss not to grow into.
    some: bool,
}

#[derive(Debug, Clone, Copy)]
struct Remb {
    bps: f64,
    at: Instant,
}

impl Estimator {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            history: SendHistory::new(now),
            delay: DelayTrend::default(),
            acknowledged: RateMeter::default(),
            target_bps: START_BPS,
            wanted_bps: 0.0,
            phase: Phase::Starting,
            hold_until: None,
            hold: HOLD_MIN,
            last_decrease: None,
            last_growth: None,
            loss: LossWindow::default(),
            last_feedback: None,
            sent_since_feedback: 0,
            remb: None,
            rtt: None,
        }
    }

    /// A packet of so many bytes leaves now; its transport-wide sequence number.
    pub(crate) fn sent(&mut self, now: Instant, bytes: usize) -> u16 {
        self.sent_since_feedback = self.sent_since_feedback.saturating_add(1);
        self.history.record(now, bytes)
    }

    pub(crate) fn on_feedback(&mut self, now: Instant, feedback: &TwccFeedback<'_>) {
        let mut usage = None;
        let mut newest_sent = None;
        for arrival in feedback.arrivals() {
            let Some(at_us) = arrival.at_us else {
                if self.history.settle(now, arrival.sequence, Fate::Lost).is_some() {
                    self.loss.lost = self.loss.lost.saturating_add(1);
                }
                continue;
            };
            let Some(packet) = self.history.settle(now, arrival.sequence, Fate::Arrived) else { continue };
            if packet.before == Fate::Lost {
                self.loss.lost = self.loss.lost.saturating_sub(1);
            }
            self.loss.acknowledged = self.loss.acknowledged.saturating_add(1);
            self.acknowledged.add(now, packet.bytes);
            newest_sent = newest_sent.max(Some(packet.sent_us));
            usage = self.delay.on_arrival(packet.sent_us, at_us).or(usage);
        }
        if let Some(sent_us) = newest_sent {
            self.note_rtt(self.history.age(now, sent_us));
        }
        self.last_feedback = Some(now);
        self.sent_since_feedback = 0;
        match usage.unwrap_or(self.delay.usage()) {
            Usage::Over => self.back_off(now, DECREASE),
            // The queue drains: growing now would only keep it full.
            Usage::Under => self.last_growth = Some(now),
            Usage::Normal => {}
        }
        self.judge_loss(now);
        self.grow(now);
    }

    /// A receiver's own estimate: a ceiling as long as it is repeated.
    pub(crate) fn on_remb(&mut self, now: Instant, bits_per_second: u64) {
        self.remb = Some(Remb { bps: to_f64(bits_per_second), at: now });
    }

    /// Loss from a receiver report, in 1/256. Counts only for clients without transport-wide feedback.
    pub(crate) fn on_loss_report(&mut self, now: Instant, fraction_lost: u8) {
        if self.has_feedback(now) {
            return;
        }
        let lost = f64::from(fraction_lost) / 256.0;
        self.loss.some = lost > LOSS_LOW;
        if lost > LOSS_HIGH {
            self.decrease_for_loss(now, lost, self.target_bps);
        }
        self.grow(now);
    }

    /// What all subscriptions together would take in the layers they aim at: more need not be found out.
    pub(crate) fn set_wanted(&mut self, bits_per_second: u64) {
        self.wanted_bps = to_f64(bits_per_second);
    }

    /// What may be sent now.
    pub(crate) fn target_bps(&mut self, now: Instant) -> u64 {
        let silent = self.last_feedback.is_some_and(|last| now.saturating_duration_since(last) > FEEDBACK_SILENCE);
        if silent && self.sent_since_feedback > SILENT_PACKETS {
            // Not even the feedback comes through.
            self.target_bps = (self.target_bps / 2.0).max(MIN_BPS);
            self.last_feedback = Some(now);
            self.sent_since_feedback = 0;
        }
        let ceiling = self.remb.filter(|remb| now.saturating_duration_since(remb.at) < REMB_LIFE);
        to_u64(ceiling.map_or(self.target_bps, |remb| {
            // Without other feedback the receiver's word is all there is, and it may be more than we dared.
            if self.has_feedback(now) { self.target_bps.min(remb.bps) } else { remb.bps }
        }))
    }

    /// The smoothed round trip, feedback interval included; a guess before the first.
    pub(crate) fn rtt(&self) -> Duration {
        self.rtt.unwrap_or(RTT_GUESS)
    }

    /// A round trip measured elsewhere, such as by receiver reports.
    pub(crate) fn note_rtt(&mut self, sample: Duration) {
        let sample = sample.min(RTT_MAX);
        let smoothed = self.rtt.map_or(sample, |rtt| {
            let sum = rtt.saturating_mul(7).saturating_add(sample);
            sum.checked_div(8).unwrap_or(sample)
        });
        self.rtt = Some(smoothed);
    }

    fn has_feedback(&self, now: Instant) -> bool {
        self.last_feedback.is_some_and(|last| now.saturating_duration_since(last) < FEEDBACK_LIFE)
    }

    fn grow(&mut self, now: Instant) {
        let elapsed = self.last_growth.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.last_growth = Some(now);
        if self.loss.some || self.delay.usage() != Usage::Normal || self.hold_until.is_some_and(|until| now < until) {
            return;
        }
        let elapsed = elapsed.min(GROWTH_STEP_MAX).as_secs_f64();
        let acknowledged = to_f64(self.acknowledged.bits_per_second(now));
        let useful = (self.wanted_bps * WANTED_MARGIN).max(acknowledged * ACKNOWLEDGED_MARGIN + MIN_BPS);
        let grown = match self.phase {
            Phase::Starting => self.target_bps * STARTING_GROWTH.powf(elapsed),
            Phase::Known { capacity_bps } if self.target_bps < capacity_bps * NEAR_CAPACITY => {
                (self.target_bps * RECOVERY_GROWTH.powf(elapsed)).min(capacity_bps)
            }
            Phase::Known { .. } => self.target_bps * CAREFUL_GROWTH.powf(elapsed),
        };
        if grown <= useful.min(MAX_BPS) {
            self.target_bps = grown;
        }
    }

    fn judge_loss(&mut self, now: Instant) {
        let since = *self.loss.since.get_or_insert(now);
        let packets = self.loss.acknowledged.saturating_add(self.loss.lost);
        if packets < LOSS_PACKETS_MIN || now.saturating_duration_since(since) < LOSS_WINDOW {
            return;
        }
        let lost = f64::from(self.loss.lost) / f64::from(packets);
        self.loss = LossWindow { since: Some(now), some: lost > LOSS_LOW, ..LossWindow::default() };
        if lost > LOSS_HIGH {
            let sent = to_f64(self.acknowledged.bits_per_second(now)) / (1.0 - lost).max(0.1);
            self.decrease_for_loss(now, lost, sent);
        }
    }

    fn decrease_for_loss(&mut self, now: Instant, lost: f64, sent_bps: f64) {
        self.target_bps = (self.target_bps.min(sent_bps) * (1.0 - lost / 2.0)).max(MIN_BPS);
        self.after_decrease(now, self.target_bps);
    }

    /// Down to a part of what arrives, at most once per round trip: the answer must have had time to show.
    fn back_off(&mut self, now: Instant, factor: f64) {
        let pause = self.rtt().saturating_add(DECREASE_PAUSE);
        if self.last_decrease.is_some_and(|last| now.saturating_duration_since(last) < pause) {
            return;
        }
        let acknowledged = to_f64(self.acknowledged.bits_per_second(now));
        self.target_bps = self.target_bps.min(acknowledged * factor).max(MIN_BPS);
        self.after_decrease(now, acknowledged);
    }

    /// Growth waits, longer each time it soon leads to the same end.
    fn after_decrease(&mut self, now: Instant, capacity_bps: f64) {
        let again =
            self.last_decrease.is_some_and(|last| now.saturating_duration_since(last) < self.hold.saturating_mul(4));
        self.hold = if again { self.hold.saturating_mul(2).min(HOLD_MAX) } else { HOLD_MIN };
        self.hold_until = Some(after(now, self.hold));
        self.last_decrease = Some(now);
        self.phase = Phase::Known { capacity_bps };
    }
}

fn to_f64(value: u64) -> f64 {
    f64::from(u32::try_from(value).unwrap_or(u32::MAX))
}

/// Saturating, as casts of floats are.
fn to_u64(value: f64) -> u64 {
    value as u64
}

const START_BPS: f64 = 1_000_000.0;
/// Audio and one small layer.
const MIN_BPS: f64 = 150_000.0;
const MAX_BPS: f64 = 50_000_000.0;
/// Growth per second: before anything pushed back, up to where it did, and beyond.
const STARTING_GROWTH: f64 = 1.6;
const RECOVERY_GROWTH: f64 = 1.2;
const CAREFUL_GROWTH: f64 = 1.04;
const NEAR_CAPACITY: f64 = 0.85;
const DECREASE: f64 = 0.85;
/// Room above what is wanted, so that layers fit with their own variation.
const WANTED_MARGIN: f64 = 1.25;
const ACKNOWLEDGED_MARGIN: f64 = 1.5;
const GROWTH_STEP_MAX: Duration = Duration::from_millis(500);
const HOLD_MIN: Duration = Duration::from_secs(2);
const HOLD_MAX: Duration = Duration::from_secs(30);
const DECREASE_PAUSE: Duration = Duration::from_millis(200);
/// Up to here loss is taken as the path's own.
const LOSS_LOW: f64 = 0.02;
const LOSS_HIGH: f64 = 0.10;
const LOSS_WINDOW: Duration = Duration::from_millis(500);
const LOSS_PACKETS_MIN: u32 = 20;
const FEEDBACK_SILENCE: Duration = Duration::from_secs(2);
const SILENT_PACKETS: u32 = 50;
const FEEDBACK_LIFE: Duration = Duration::from_secs(5);
const REMB_LIFE: Duration = Duration::from_secs(10);
const RTT_GUESS: Duration = Duration::from_millis(100);
const RTT_MAX: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests;
