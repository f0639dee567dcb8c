use std::collections::VecDeque;

use super::*;
use crate::{
    ingress::TwccReceiver,
    rtcp::{Packet, packets},
};

/// A bottleneck with a queue, and a receiver that sends feedback. Virtual time, no randomness but a counter.
struct Path {
    now: Instant,
    start: Instant,
    capacity_bps: f64,
    /// Every n-th packet is lost; 0 for none.
    lose_every: u32,
    free_at: Instant,
    arriving: VecDeque<(Instant, u16)>,
    feedback: VecDeque<(Instant, Vec<u8>)>,
    receiver: TwccReceiver,
    sent: u32,
    owed_bytes: f64,
    feedback_flows: bool,
    wanted_bps: u64,
    queue_max: Duration,
    one_way: Duration,
}

const ONE_WAY: Duration = Duration::from_millis(20);
const QUEUE_MAX: Duration = Duration::from_millis(300);
const PACKET: usize = 1_000;

impl Path {
    fn new(capacity_bps: f64) -> Self {
        let now = Instant::now();
        Self {
            now,
            start: now,
            capacity_bps,
            lose_every: 0,
            free_at: now,
            arriving: VecDeque::new(),
            feedback: VecDeque::new(),
            receiver: TwccReceiver::new(),
            sent: 0,
            owed_bytes: 0.0,
            feedback_flows: true,
            wanted_bps: 0,
            queue_max: QUEUE_MAX,
            one_way: ONE_WAY,
        }
    }

    /// Sends at `rate(estimate)`, paced, for so long and yields the estimate after each second.
    fn run(&mut self, estimator: &mut Estimator, seconds: u64, rate: impl Fn(f64) -> f64) -> Vec<u64> {
        let mut estimates = Vec::new();
        for ms in 1..=seconds * 1_000 {
            self.now += Duration::from_millis(1);
            let target = estimator.target_bps(self.now) as f64;
            self.owed_bytes += rate(target).min(estimator.pace().bits_per_second as f64) / 8_000.0;
            while self.owed_bytes >= PACKET as f64 {
                self.owed_bytes -= PACKET as f64;
                self.transmit(estimator, PACKET);
            }
            if ms % 200 == 0 {
                estimator.set_wanted(self.now, self.wanted_bps);
            }
            if ms % 5 == 0 {
                while estimator.probe_owed(self.now) > 0 {
                    self.transmit(estimator, 250);
                }
            }
            while let Some((at, sequence)) = self.arriving.pop_front_if(|(at, _)| *at <= self.now) {
                self.receiver.record(at, sequence);
            }
            let mut out = Vec::new();
            if self.receiver.write_feedback(self.now, 1, 2, &mut out) && self.feedback_flows {
                self.feedback.push_back((self.now + self.one_way, out));
            }
            while let Some((_, bytes)) = self.feedback.pop_front_if(|(at, _)| *at <= self.now) {
                let Some(Ok(Packet::TransportFeedback(feedback))) = packets(&bytes).next() else { panic!() };
                estimator.on_feedback(self.now, &feedback);
            }
            if ms % 1_000 == 0 {
                estimates.push(estimator.target_bps(self.now));
            }
        }
        estimates
    }

    fn transmit(&mut self, estimator: &mut Estimator, bytes: usize) {
        let sequence = estimator.sent(self.now, bytes);
        estimator.departed(self.now, sequence);
        self.sent += 1;
        let begins = self.free_at.max(self.now);
        if begins - self.now > self.queue_max || (self.lose_every > 0 && self.sent.is_multiple_of(self.lose_every)) {
            return;
        }
        self.free_at = begins + Duration::from_secs_f64(bytes as f64 * 8.0 / self.capacity_bps);
        self.arriving.push_back((self.free_at + self.one_way, sequence));
    }
}

/// A video source with three layers: what it sends below a given estimate.
fn layered(estimate: f64) -> f64 {
    match estimate {
        1_950_000.0.. => 1_740_000.0,
        600_000.0.. => 540_000.0,
        _ => 190_000.0,
    }
}

#[test]
fn a_wide_path_reaches_what_is_wanted_within_seconds() {
    let mut path = Path::new(20_000_000.0);
    let mut estimator = Estimator::new(path.now);
    assert_eq!(estimator.target_bps(path.now), 1_000_000);
    path.wanted_bps = 1_740_000;
    let estimates = path.run(&mut estimator, 8, layered);
    assert!(estimates.iter().take(4).any(|bps| *bps > 1_950_000), "{estimates:?}");
    assert!(estimates.iter().skip(4).all(|bps| *bps > 1_950_000), "{estimates:?}");
}

#[test]
fn the_estimate_does_not_grow_beyond_use() {
    let mut path = Path::new(100_000_000.0);
    let mut estimator = Estimator::new(path.now);
    path.wanted_bps = 500_000;
    let estimates = path.run(&mut estimator, 60, |_| 400_000.0);
    assert!(estimates.iter().all(|bps| *bps <= 1_100_000), "{estimates:?}");
}

#[test]
fn a_narrow_path_is_found_and_kept() {
    for capacity in [400_000.0, 1_000_000.0, 2_500_000.0] {
        let mut path = Path::new(capacity);
        let mut estimator = Estimator::new(path.now);
        path.wanted_bps = 10_000_000;
        let estimates = path.run(&mut estimator, 60, |estimate| estimate);
        let late = &estimates[20..];
        let mean = late.iter().sum::<u64>() as f64 / late.len() as f64;
        assert!((0.6..1.1).contains(&(mean / capacity)), "{capacity}: {estimates:?}");
        let worst = *late.iter().max().unwrap() as f64;
        assert!(worst < capacity * 1.3, "{capacity}: {estimates:?}");
    }
}

#[test]
fn a_path_that_narrows_is_followed_down_and_up_again() {
    let mut path = Path::new(5_000_000.0);
    let mut estimator = Estimator::new(path.now);
    path.wanted_bps = 4_000_000;
    let wide = path.run(&mut estimator, 15, |estimate| estimate.min(4_000_000.0));
    assert!(wide.last().unwrap() > &3_000_000, "{wide:?}");
    path.capacity_bps = 800_000.0;
    let narrow = path.run(&mut estimator, 15, |estimate| estimate.min(4_000_000.0));
    assert!(narrow[3] < 1_000_000, "{narrow:?}");
    path.capacity_bps = 5_000_000.0;
    let again = path.run(&mut estimator, 90, |estimate| estimate.min(4_000_000.0));
    assert!(again.last().unwrap() > &1_500_000, "{again:?}");
}

#[test]
fn a_queue_is_gone_within_a_second() {
    let mut path = Path::new(4_000_000.0);
    let mut estimator = Estimator::new(path.now);
    path.wanted_bps = 1_740_000;
    path.run(&mut estimator, 8, layered);
    path.capacity_bps = 600_000.0;
    let fills = |estimate| estimate;
    let estimates = path.run(&mut estimator, 1, fills);
    assert!((480_000..=600_000).contains(&estimates[0]), "{estimates:?}");
    let queue = path.free_at.saturating_duration_since(path.now);
    assert!(queue < Duration::from_millis(60), "{queue:?}");
    path.run(&mut estimator, 1, fills);
    assert!(!estimator.is_draining());
}

#[test]
fn a_longer_route_is_no_queue() {
    let mut path = Path::new(20_000_000.0);
    let mut estimator = Estimator::new(path.now);
    path.wanted_bps = 1_740_000;
    path.run(&mut estimator, 8, layered);
    path.one_way = Duration::from_millis(150);
    let estimates = path.run(&mut estimator, 6, layered);
    assert!(estimates.iter().skip(3).all(|bps| *bps > 1_950_000), "{estimates:?}");
    assert!(!estimator.is_draining());
}

#[test]
fn loss_that_does_not_answer_to_the_rate_lowers_the_estimate_once_at_most() {
    for (lose_every, lower) in [(100, false), (4, true)] {
        let mut path = Path::new(20_000_000.0);
        path.lose_every = lose_every;
        let mut estimator = Estimator::new(path.now);
        path.wanted_bps = 1_000_000;
        let estimates = path.run(&mut estimator, 10, |estimate| estimate.min(900_000.0));
        assert_eq!(estimates.iter().any(|bps| *bps < 900_000), lower, "1 in {lose_every}: {estimates:?}");
        assert!(estimates.last().unwrap() > &1_100_000, "1 in {lose_every}: {estimates:?}");
    }
}

#[test]
fn loss_that_answers_to_the_rate_is_kept_away_from() {
    // A policer drops what exceeds its rate and delays nothing.
    let mut path = Path::new(600_000.0);
    path.queue_max = Duration::from_millis(20);
    let mut estimator = Estimator::new(path.now);
    path.wanted_bps = 2_000_000;
    let estimates = path.run(&mut estimator, 60, |estimate| estimate.min(1_800_000.0));
    let late = &estimates[20..];
    let mean = late.iter().sum::<u64>() / late.len() as u64;
    assert!((300_000..=780_000).contains(&mean), "mean {mean}: {estimates:?}");
}

#[test]
fn when_even_feedback_stops_the_estimate_falls() {
    let mut path = Path::new(20_000_000.0);
    let mut estimator = Estimator::new(path.now);
    path.run(&mut estimator, 2, |_| 500_000.0);
    let before = estimator.target_bps(path.now);
    path.feedback_flows = false;
    let estimates = path.run(&mut estimator, 5, |_| 500_000.0);
    assert!(estimates.last().unwrap() <= &(before / 2), "{estimates:?}");
}

#[test]
fn the_round_trip_is_measured() {
    let mut path = Path::new(20_000_000.0);
    let mut estimator = Estimator::new(path.now);
    assert_eq!(estimator.rtt(), RTT_GUESS);
    path.run(&mut estimator, 3, |_| 500_000.0);
    let rtt = estimator.rtt();
    assert!((2 * ONE_WAY..2 * ONE_WAY + Duration::from_millis(25)).contains(&rtt), "{rtt:?}");
    assert!(path.now > path.start);
}

#[test]
fn the_receivers_word_is_a_ceiling_while_it_lasts() {
    let mut path = Path::new(20_000_000.0);
    let mut estimator = Estimator::new(path.now);
    path.run(&mut estimator, 1, |_| 500_000.0);
    estimator.on_remb(path.now, 300_000);
    assert_eq!(estimator.target_bps(path.now), 300_000);
    estimator.on_remb(path.now, 90_000_000);
    assert!(estimator.target_bps(path.now) <= 2_000_000);
    estimator.on_remb(path.now, 300_000);
    assert!(estimator.target_bps(path.now + REMB_LIFE) > 300_000);
}

#[test]
fn without_transport_feedback_the_receivers_word_is_the_estimate() {
    let start = Instant::now();
    let mut estimator = Estimator::new(start);
    estimator.on_remb(start, 3_000_000);
    assert_eq!(estimator.target_bps(start), 3_000_000);
    // A receiver that says less than it is sent is congested.
    for ms in 0..1_000 {
        estimator.sent_unstamped(start + Duration::from_millis(ms), 250);
    }
    let now = start + Duration::from_secs(1);
    estimator.on_remb(now, 800_000);
    assert_eq!(estimator.target_bps(now), 800_000);
    // One that is content with what it gets vouches for little more, so more is tried.
    estimator.set_wanted(now, 4_000_000);
    for second in 2..8 {
        estimator.on_remb(start + Duration::from_secs(second), 2_500_000);
    }
    assert!(estimator.target_bps(start + Duration::from_secs(8)) > 2_500_000);
}

#[test]
fn without_transport_feedback_receiver_reports_decide() {
    let start = Instant::now();
    let mut estimator = Estimator::new(start);
    estimator.set_wanted(start, 2_000_000);
    for second in 0..10 {
        estimator.on_loss_report(start + Duration::from_secs(second), 0);
    }
    let grown = estimator.target_bps(start);
    assert!(grown > 1_500_000, "{grown}");
    estimator.on_loss_report(start + Duration::from_secs(10), 64);
    assert!(estimator.target_bps(start) < grown * 9 / 10);
}

#[test]
fn feedback_about_what_was_never_sent_changes_nothing() {
    let now = Instant::now();
    let (mut estimator, mut receiver) = (Estimator::new(now), TwccReceiver::new());
    for sequence in 0..500u16 {
        receiver.record(now, sequence.wrapping_mul(3));
    }
    let mut out = Vec::new();
    assert!(receiver.write_feedback(now + ONE_WAY * 5, 1, 2, &mut out));
    let Some(Ok(Packet::TransportFeedback(feedback))) = packets(&out).next() else { panic!() };
    estimator.on_feedback(now, &feedback);
    assert_eq!((estimator.target_bps(now), estimator.rtt()), (1_000_000, RTT_GUESS));
}

#[test]
fn a_new_path_is_found_out_anew() {
    let mut path = Path::new(300_000.0);
    let mut estimator = Estimator::new(path.now);
    path.wanted_bps = 1_500_000;
    let narrow = path.run(&mut estimator, 10, |estimate| estimate);
    assert!(narrow.last().unwrap() < &400_000, "{narrow:?}");
    path.capacity_bps = 10_000_000.0;
    estimator.on_new_path(path.now);
    assert_eq!(estimator.target_bps(path.now), START_BPS_WHOLE);
    let wide = path.run(&mut estimator, 5, |estimate| estimate.min(1_500_000.0));
    assert!(wide.last().unwrap() > &1_500_000, "{wide:?}");
}
