//! How much a subscriber's path can take, and who gets it.
//!
//! The estimate comes from transport-wide feedback on what we sent: growing delay and loss that answers to the rate lower it
//! to what arrived. An SFU sends what publishers make and not what the path would take, so a quiet path proves nothing
//! about more: while something larger is wanted, short probes ask for it. A path that is kept busy proves itself, and the
//! estimate grows with it.
//!
//! Clients without transport-wide feedback have a word of their own, REMB, or at least tell their loss.
//!
//! Hot: `sent` runs once per packet, `on_feedback` once per packet acknowledged. Ring and windows are of fixed size.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod allocate;
mod arrivals;
mod delay;
mod history;
mod loss;
mod probe;

use std::time::{Duration, Instant};

pub(crate) use allocate::{Ask, LayerRate, Pausing, Rank, allocate, granted_bps, wanted_bps};
use arrivals::ArrivalRate;
use delay::{DelayTrend, Usage};
use history::{Fate, SendHistory};
use loss::{LossJudge, Verdict};
use probe::{Finding, Prober};

use crate::{
    ingress::{RateMeter, after},
    rtcp::TwccFeedback,
};

/// The estimate for one subscriber's transport.
#[derive(Debug)]
pub(crate) struct Estimator {
    history: SendHistory,
    delay: DelayTrend,
    arrivals: ArrivalRate,
    /// The same packets as they left.
    departures: ArrivalRate,
    loss: LossJudge,
    prober: Prober,
    target_bps: f64,
    wanted_bps: f64,
    /// The path pushed back when so much arrived.
    capacity_bps: Option<f64>,
    /// No growth before this.
    hold_until: Option<Instant>,
    hold: Duration,
    /// It has grown since the last decrease.
    grew: bool,
    /// A queue is on the path.
    drain: Option<Drain>,
    /// Much was lost of late.
    lossy_until: Option<Instant>,
    last_decrease: Option<Instant>,
    last_growth: Option<Instant>,
    last_feedback: Option<Instant>,
    sent_since_feedback: u32,
    /// What left without a transport-wide number: such clients say what they think of it by REMB, or loss.
    unstamped: RateMeter,
    remb: Option<Remb>,
    rtt: Option<Duration>,
    /// Packets told lost, and packets told of, since it was last asked.
    told: (u64, u64),
}

/// How what is sent is to be spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    pub(crate) bits_per_second: u64,
    /// Of that, what may leave for a short time.
    pub(crate) peak_percent: u64,
}

#[derive(Debug, Clone, Copy)]
struct Drain {
    /// By then it shows.
    until: Instant,
    /// What the path lets through.
    bps: f64,
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
            arrivals: ArrivalRate::default(),
            departures: ArrivalRate::default(),
            loss: LossJudge::default(),
            prober: Prober::default(),
            target_bps: START_BPS,
            wanted_bps: 0.0,
            capacity_bps: None,
            hold_until: None,
            hold: HOLD_MIN,
            grew: false,
            drain: None,
            lossy_until: None,
            last_decrease: None,
            last_growth: None,
            last_feedback: None,
            sent_since_feedback: 0,
            unstamped: RateMeter::default(),
            remb: None,
            rtt: None,
            told: (0, 0),
        }
    }

    /// The client is somewhere else now: what is known of the old path says nothing about the new one.
    pub(crate) fn on_new_path(&mut self, now: Instant) {
        let mut new = Self { wanted_bps: self.wanted_bps, ..Self::new(now) };
        // Numbers go on.
        std::mem::swap(&mut new.history, &mut self.history);
        *self = new;
    }

    /// A packet of so many bytes is about to leave; its transport-wide sequence number.
    pub(crate) fn sent(&mut self, now: Instant, bytes: usize) -> u16 {
        self.sent_since_feedback = self.sent_since_feedback.saturating_add(1);
        self.prober.sent(bytes);
        self.history.record(now, bytes)
    }

    /// The packet with this number leaves now.
    pub(crate) fn departed(&mut self, now: Instant, sequence: u16) {
        self.history.departed(now, sequence);
    }

    /// A packet leaves that the client will not acknowledge.
    pub(crate) fn sent_unstamped(&mut self, now: Instant, bytes: usize) {
        self.unstamped.add(now, bytes);
    }

    pub(crate) fn on_feedback(&mut self, now: Instant, feedback: &TwccFeedback<'_>) {
        let mut usage = None;
        let mut newest_sent = None;
        // Found out with the first packet that is missing, which seldom one is.
        let mut newest_arrived = None;
        for arrival in feedback.arrivals() {
            if arrival.at_us.is_none() {
                let newest_arrived = newest_arrived.get_or_insert_with(|| {
                    let arrived = feedback.arrivals().filter(|arrival| arrival.at_us.is_some());
                    arrived.filter_map(|arrival| self.history.sent_us(arrival.sequence)).max()
                });
                // What left after the newest that arrived is not lost: it may have been overtaken by what was numbered later.
                if self.history.sent_us(arrival.sequence) >= *newest_arrived {
                    continue;
                }
            }
            let fate = if arrival.at_us.is_some() { Fate::Arrived } else { Fate::Lost };
            let Some(packet) = self.history.settle(now, arrival.sequence, fate) else { continue };
            self.prober.settled(self.history.instant(packet.sent_us), &packet, arrival.at_us);
            newest_sent = newest_sent.max(Some(packet.sent_us));
            if packet.before == Fate::Flying {
                self.departures.add(i64::try_from(packet.sent_us).unwrap_or(i64::MAX), packet.bytes);
            }
            // What left before the last decrease has been answered by that.
            let counts = self.last_decrease.is_none_or(|at| self.history.instant(packet.sent_us) >= at);
            let Some(at_us) = arrival.at_us else {
                if counts {
                    self.loss.lost();
                }
                self.tell(1, 1);
                continue;
            };
            if counts {
                self.loss.arrived(packet.before == Fate::Lost);
            }
            self.tell(0, 1);
            self.arrivals.add(at_us, packet.bytes);
            usage = self.delay.on_arrival(packet.sent_us, at_us).or(usage);
        }
        if let Some(sent_us) = newest_sent {
            self.note_rtt(self.history.age(now, sent_us));
        }
        self.last_feedback = Some(now);
        self.sent_since_feedback = 0;
        self.drain(now);
        let queue_ms = self.delay.standing_queue_ms() - self.unrest_ms() * UNREST_SHARE;
        // A queue that all passes as quickly as it leaves does not grow.
        let grows = queue_ms > GROWING_QUEUE_MS && !self.passes();
        match usage.unwrap_or(self.delay.usage()) {
            // The queue drains: growing now would only keep it full.
            Usage::Under => self.last_growth = Some(now),
            Usage::Normal | Usage::Over if queue_ms > STANDING_QUEUE_MS => self.back_off(now),
            // A picture that takes its time through a bottleneck makes the delay grow too, but leaves no queue behind, and
            // that of a probe goes by itself.
            Usage::Over if grows && !self.prober.is_felt(now, self.rtt()) => self.back_off(now),
            Usage::Normal | Usage::Over => {}
        }
        if let Verdict::Congested { lost } = self.loss.judge(now, self.is_queued()) {
            self.decrease_for_loss(now, lost, self.arrivals.bits_per_second());
        }
        if self.loss.share() > LOSSY {
            self.lossy_until = Some(after(now, LOSSY_FOR));
        }
        self.on_probe(now, newest_sent);
        self.grow(now);
    }

    /// A receiver's own estimate. To clients with transport-wide feedback a ceiling as long as it is repeated.
    pub(crate) fn on_remb(&mut self, now: Instant, bits_per_second: u64) {
        let bps = to_f64(bits_per_second);
        self.remb = Some(Remb { bps, at: now });
        if self.has_feedback(now) {
            return;
        }
        // A receiver vouches for little more than it gets. So less than that is a push-back, and more is leave to try.
        if bps < to_f64(self.unstamped.bits_per_second(now)) {
            self.target_bps = self.target_bps.min(bps).max(MIN_BPS);
            return self.after_decrease(now, bps);
        }
        self.target_bps = self.target_bps.max(bps).min(MAX_BPS);
        self.grow(now);
    }

    /// Loss from a receiver report, in 1/256. Counts only for clients without transport-wide feedback.
    pub(crate) fn on_loss_report(&mut self, now: Instant, fraction_lost: u8) {
        if self.has_feedback(now) {
            return;
        }
        self.tell(fraction_lost.into(), 256);
        let lost = f64::from(fraction_lost) / 256.0;
        if let Verdict::Congested { lost } = self.loss.reported(lost) {
            self.decrease_for_loss(now, lost, self.target_bps);
        }
        self.grow(now);
    }

    /// What all subscriptions together would take in the layers they aim at: more need not be found out.
    pub(crate) fn set_wanted(&mut self, now: Instant, bits_per_second: u64) {
        self.wanted_bps = to_f64(bits_per_second);
        let goal = self.wanted_bps * WANTED_MARGIN;
        // Without feedback there is nobody to answer a probe.
        if self.has_feedback(now) && self.target_bps < goal && !self.is_held(now) {
            self.prober.start(now, (self.target_bps * PROBE_STEP).min(goal * PROBE_MARGIN));
        }
    }

    /// Bytes of padding that the probe under way asks for now.
    pub(crate) fn probe_owed(&mut self, now: Instant) -> usize {
        self.prober.owed(now)
    }

    pub(crate) fn next_probe(&self, now: Instant) -> Option<Instant> {
        self.prober.next_tick(now)
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
        let ceiling = ceiling.filter(|_| self.has_feedback(now));
        to_u64(ceiling.map_or(self.target_bps, |remb| self.target_bps.min(remb.bps)))
    }

    /// Whether neither the path nor the client has pushed back so far.
    pub(crate) fn is_unopposed(&self, now: Instant) -> bool {
        let is_capped = self.remb.is_some_and(|remb| now.saturating_duration_since(remb.at) < REMB_LIFE);
        self.capacity_bps.is_none() && !is_capped && self.drain.is_none()
    }

    /// A queue on the path is given time to leave.
    pub(crate) fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// The path loses much without being full, so more packets help. What they help with is no longer told as lost, so that
    /// holds for a while.
    pub(crate) fn is_lossy(&self, now: Instant) -> bool {
        self.lossy_until.is_some_and(|until| now < until) && !self.is_draining() && !self.is_queued()
    }

    fn is_queued(&self) -> bool {
        self.delay.standing_queue_ms() > QUEUE_MS
    }

    /// While it drains, less than the path lets through; where the path has shown its end, nothing beyond it.
    pub(crate) fn pace(&self) -> Pace {
        let draining = |drain: Drain| drain.bps * (1.0 - self.queue_ms() / DRAIN_MS).clamp(DRAINING_MIN, 1.0);
        let bps = self.drain.map_or(f64::INFINITY, draining).min(self.target_bps);
        let peak_percent = match self.capacity_bps {
            Some(capacity_bps) => to_u64(capacity_bps / bps * 100.0).clamp(105, PEAK_PERCENT),
            None => PEAK_PERCENT,
        };
        Pace { bits_per_second: to_u64(bps), peak_percent }
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

    /// Packets that were told lost since it was last asked, and all that were told of.
    pub(crate) fn take_told(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.told)
    }

    /// A queue of ours goes when less is sent, and what was in it arrives beside that. A delay that stays while no more
    /// arrives than leaves is the path's own: another route, or others' traffic.
    fn drain(&mut self, now: Instant) {
        if self.queue_ms() <= QUEUE_MS {
            self.drain = None;
            return;
        }
        match &mut self.drain {
            None => {
                let until = after(after(now, self.rtt()), DRAIN_TIME);
                self.drain = Some(Drain { until, bps: self.arrivals.recent_bits_per_second() });
            }
            Some(drain) if now < drain.until => {}
            Some(drain) => {
                drain.bps = self.target_bps;
                let (arriving_bps, leaving_bps) = (self.arrivals.bits_per_second(), self.departures.bits_per_second());
                if (leaving_bps * PASSES..leaving_bps * SHRINKS).contains(&arriving_bps) {
                    self.drain = None;
                    self.delay.accept_delay();
                }
            }
        }
    }

    /// Whether all that leaves arrives as quickly.
    fn passes(&self) -> bool {
        self.arrivals.bits_per_second() > self.departures.bits_per_second() * PASSES
    }

    /// What waits on the path as far as that is not how it always delays.
    fn queue_ms(&self) -> f64 {
        self.delay.newest_queue_ms() - self.unrest_ms() * UNREST_SHARE
    }

    fn unrest_ms(&self) -> f64 {
        self.delay.unrest_ms(self.target_bps)
    }

    fn tell(&mut self, lost: u64, all: u64) {
        self.told = (self.told.0.saturating_add(lost), self.told.1.saturating_add(all));
    }

    fn has_feedback(&self, now: Instant) -> bool {
        self.last_feedback.is_some_and(|last| now.saturating_duration_since(last) < FEEDBACK_LIFE)
    }

    fn is_held(&self, now: Instant) -> bool {
        self.hold_until.is_some_and(|until| now < until)
    }

    fn on_probe(&mut self, now: Instant, newest_sent: Option<u64>) {
        let newest = newest_sent.map(|sent_us| self.history.instant(sent_us));
        let (found_bps, capacity_bps) = match self.prober.conclude(now, newest, self.rtt(), self.unrest_ms()) {
            Some(Finding::Passed { bps }) => (bps, None),
            Some(Finding::Limited { bps }) => (bps * LIMITED_SHARE, Some(bps)),
            Some(Finding::Nothing) | None => return,
        };
        // What pushed back while the probe was under way has the last word.
        if found_bps > self.target_bps && !self.is_held(now) {
            self.target_bps = found_bps.min(MAX_BPS);
            self.capacity_bps = capacity_bps;
            self.grew = true;
        }
    }

    fn grow(&mut self, now: Instant) {
        let elapsed = self.last_growth.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.last_growth = Some(now);
        if self.loss.is_some() || self.delay.usage() != Usage::Normal || self.is_held(now) {
            return;
        }
        let elapsed = elapsed.min(GROWTH_STEP_MAX).as_secs_f64();
        // Without feedback growth is a trial; with it, only a busy path grows, and probes do the rest.
        if self.has_feedback(now) && self.arrivals.bits_per_second() < self.target_bps * BUSY {
            return;
        }
        let rate = match self.capacity_bps {
            None if !self.has_feedback(now) => TRIAL_GROWTH,
            Some(capacity_bps) if self.target_bps > capacity_bps * NEAR_CAPACITY => CAREFUL_GROWTH,
            None | Some(_) => BUSY_GROWTH,
        };
        let grown = self.target_bps * rate.powf(elapsed);
        if grown <= (self.wanted_bps * WANTED_MARGIN).min(MAX_BPS) {
            self.target_bps = grown;
            self.grew = true;
        }
    }

    fn decrease_for_loss(&mut self, now: Instant, lost: f64, arrived_bps: f64) {
        self.target_bps = self.target_bps.min(arrived_bps.max(MIN_BPS) / (1.0 - lost).max(0.5));
        self.target_bps = (self.target_bps * (1.0 - lost / 2.0)).max(MIN_BPS);
        self.after_decrease(now, self.target_bps);
    }

    /// Down to a part of what arrives, at most once per round trip: the answer must have had time to show.
    fn back_off(&mut self, now: Instant) {
        // Where all that leaves arrives as quickly, the queue is one of before, which takes its time to go.
        let arrived_bps = self.arrivals.bits_per_second();
        let passes = self.passes();
        let pause = self.rtt().saturating_mul(if passes { 3 } else { 1 }).saturating_add(DECREASE_PAUSE);
        if self.last_decrease.is_some_and(|last| now.saturating_duration_since(last) < pause) {
            return;
        }
        // Otherwise the bottleneck has been busy for all that time: so much arrives as it lets through.
        let capacity_bps =
            if passes { self.target_bps.max(arrived_bps) } else { self.arrivals.recent_bits_per_second() };
        self.target_bps = self.target_bps.min(capacity_bps * DECREASE).max(MIN_BPS);
        // What the full queue lost is answered by this.
        self.loss.forget();
        self.after_decrease(now, capacity_bps);
    }

    /// Growth waits, longer each time it soon leads to the same end.
    fn after_decrease(&mut self, now: Instant, capacity_bps: f64) {
        let soon =
            self.last_decrease.is_some_and(|last| now.saturating_duration_since(last) < self.hold.saturating_mul(4));
        if std::mem::take(&mut self.grew) {
            self.hold = if soon { self.hold.saturating_mul(2).min(HOLD_MAX) } else { HOLD_MIN };
        }
        let until = after(now, self.hold);
        self.hold_until = Some(until);
        self.prober.postpone(until);
        self.last_decrease = Some(now);
        self.capacity_bps = Some(capacity_bps);
    }
}

fn to_f64(value: u64) -> f64 {
    f64::from(u32::try_from(value).unwrap_or(u32::MAX))
}

/// Saturating, as casts of floats are.
fn to_u64(value: f64) -> u64 {
    value as u64
}

fn to_usize(value: f64) -> usize {
    value as usize
}

pub(crate) const START_BPS_WHOLE: u64 = 1_000_000;
const START_BPS: f64 = START_BPS_WHOLE as f64;
/// Not even audio fits into less.
const MIN_BPS: f64 = 30_000.0;
const MAX_BPS: f64 = 50_000_000.0;
/// Growth per second: of a path kept busy, where it once pushed back, and of one nobody reports on.
const BUSY_GROWTH: f64 = 1.15;
const CAREFUL_GROWTH: f64 = 1.04;
const TRIAL_GROWTH: f64 = 1.3;
/// Of the target, arriving.
const BUSY: f64 = 0.85;
const NEAR_CAPACITY: f64 = 0.85;
const DECREASE: f64 = 0.92;
/// Of what leaves, arriving in the same time: more is no growing queue.
const PASSES: f64 = 0.95;
/// A queue shall be gone in so much time, while at least this share of what the path lets through leaves.
const DRAIN_MS: f64 = 400.0;
const DRAINING_MIN: f64 = 0.2;
/// And a round trip, after which sending less must show.
const DRAIN_TIME: Duration = Duration::from_millis(500);
/// Of what leaves, arriving in the same time: more is a queue that goes.
const SHRINKS: f64 = 1.1;
const PEAK_PERCENT: u64 = 150;
/// Above this redundancy and repairs leave gaps in speech.
const LOSSY: f64 = 0.03;
const LOSSY_FOR: Duration = Duration::from_secs(20);
/// A queue that counts while it grows, one that is there, and one that must go even if it does not grow.
const GROWING_QUEUE_MS: f64 = 20.0;
const QUEUE_MS: f64 = 60.0;
const STANDING_QUEUE_MS: f64 = 100.0;
/// A path that delays at random looks queued by so many times its unrest.
const UNREST_SHARE: f64 = 10.0;
/// Room above what is wanted, so that layers fit with their own variation.
const WANTED_MARGIN: f64 = 1.25;
/// A probe asks for so much more than is known, and for no more than this above what is wanted.
const PROBE_STEP: f64 = 2.0;
const PROBE_MARGIN: f64 = 1.1;
const LIMITED_SHARE: f64 = 0.95;
const GROWTH_STEP_MAX: Duration = Duration::from_millis(500);
const HOLD_MIN: Duration = Duration::from_secs(1);
const HOLD_MAX: Duration = Duration::from_secs(8);
const DECREASE_PAUSE: Duration = Duration::from_millis(200);
const FEEDBACK_SILENCE: Duration = Duration::from_secs(2);
const SILENT_PACKETS: u32 = 50;
const FEEDBACK_LIFE: Duration = Duration::from_secs(5);
const REMB_LIFE: Duration = Duration::from_secs(10);
const RTT_GUESS: Duration = Duration::from_millis(100);
const RTT_MAX: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests;
