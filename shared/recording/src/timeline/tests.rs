use std::time::{Duration, Instant};

use super::*;
use crate::testing::{Random, start};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

/// NTP's fixed point of so long after some moment.
fn ntp(after: Duration) -> u64 {
    0xe000_0000_0000_0000 + ((after.as_nanos() << 32) / 1_000_000_000) as u64
}

/// A track of 90 kHz that began at `began` with timestamp 0.
fn began(began: Instant) -> Timeline {
    let mut timeline = Timeline::new(90_000);
    assert_eq!(timeline.frame(0, began), Duration::ZERO);
    timeline
}

fn milliseconds(at: Duration) -> u128 {
    (at.as_nanos() + 500_000) / 1_000_000
}

#[test]
fn time_goes_by_the_rtp_clock_whatever_the_arrival() {
    let now = start();
    let mut timeline = Timeline::new(48_000);
    // The timestamp wraps after 20 ms.
    for (number, late_ms) in [(0u32, 0), (1, 80), (2, 5), (3, 200), (4, 0), (3_000, 0)] {
        let timestamp = (u32::MAX - 959).wrapping_add(number * 960);
        let at = timeline.frame(timestamp, now + 20 * number * MS + late_ms * MS);
        assert_eq!(at, 20 * number * MS);
    }
    assert_eq!(timeline.zero(), Some(now));
}

#[test]
fn the_first_report_moves_the_zero_and_no_frame() {
    let now = start();
    let mut timeline = began(now);
    assert_eq!(milliseconds(timeline.frame(9_000, now + 100 * MS)), 100);
    let zero = timeline.report(Report { timestamp: 9_000, at: now + 70 * MS });
    assert_eq!((zero, timeline.zero()), (Some(now - 30 * MS), Some(now - 30 * MS)));
    assert_eq!(milliseconds(timeline.frame(18_000, now + 200 * MS)), 200);
    // The next was quicker on its way.
    assert_eq!(timeline.report(Report { timestamp: 90_000, at: now + 960 * MS }), Some(now - 40 * MS));
    assert_eq!(timeline.report(Report { timestamp: 180_000, at: now + 1_960 * MS }), None, "nothing new");
    assert_eq!(milliseconds(timeline.frame(180_000, now + 2_000 * MS)), 2_000);
}

#[test]
fn of_several_reports_the_earliest_counts() {
    let now = start();
    let mut timeline = began(now);
    let mut zero_ms = |after_s: u32, late_ms: i64| {
        let made = now + after_s * S + DELAY_MAX;
        timeline.frame(after_s * 90_000, now + after_s * S);
        let at = made.checked_sub(Duration::from_millis((10_000 - late_ms) as u64)).unwrap();
        timeline.report(Report { timestamp: after_s * 90_000, at });
        timeline.zero().unwrap().saturating_duration_since(now).as_millis()
    };
    // Held up by 20 ms each time, and by what the machine had else to do.
    assert_eq!([(1, 38), (2, 25), (3, 41), (4, 20), (5, 37)].map(|(s, late)| zero_ms(s, late)), [38, 25, 25, 20, 20]);
    // Sound is missing at the source: no hold-up is as long.
    assert_eq!([(6, 95), (7, 104)].map(|(s, late)| zero_ms(s, late)), [95, 95]);
}

#[test]
fn a_slow_clock_is_followed_although_the_earliest_report_counts() {
    let now = start();
    let mut timeline = began(now);
    // Without noise, 200 ppm: 60 ms in five minutes.
    let mut last = Duration::ZERO;
    for after_s in (0..=300).step_by(5) {
        let real = now + after_s * S + after_s * Duration::from_micros(200);
        last = timeline.frame(after_s * 90_000, real);
        timeline.report(Report { timestamp: after_s * 90_000, at: real });
    }
    let late = Duration::from_millis(300_060).saturating_sub(last);
    assert!(late < 5 * MS, "{late:?} behind");
}

#[test]
fn a_report_before_the_first_frame_decides_its_zero() {
    let now = start();
    let mut timeline = Timeline::new(90_000);
    assert_eq!((timeline.report(Report { timestamp: 0, at: now }), timeline.zero()), (None, None));
    assert_eq!(timeline.frame(9_000, now + 150 * MS), Duration::ZERO);
    assert_eq!(timeline.zero(), Some(now + 100 * MS));
    // Of a stream that is not this one.
    let mut timeline = Timeline::new(90_000);
    timeline.report(Report { timestamp: 0, at: now });
    timeline.frame(90_000 * 60, now + S);
    assert_eq!(timeline.zero(), Some(now + S));
}

#[test]
fn later_reports_bend_time_by_five_milliseconds_a_second() {
    for (error_ms, expected_ms) in [(100i64, 5), (-100, -5), (-3, -3)] {
        let now = start();
        let mut timeline = began(now);
        timeline.report(Report { timestamp: 0, at: now });
        let late = (i64::try_from(SETTLING.as_millis()).unwrap() + 1_000) as u32;
        timeline.frame(late * 90, now + late * MS);
        let off = now + u32::try_from(i64::from(late) + error_ms).unwrap() * MS;
        assert_eq!(timeline.report(Report { timestamp: late * 90, at: off }), None);
        let mut last = Duration::ZERO;
        for frame in 1..=100 {
            let at = late + frame * 10;
            last = timeline.frame(at * 90, now + at * MS);
        }
        let expected = i64::from(late) + 1_000 + expected_ms;
        assert_eq!(milliseconds(last), expected as u128, "{error_ms} ms off");
    }
}

#[test]
fn what_is_far_off_is_set_anew_at_once() {
    let now = start();
    let mut timeline = began(now);
    timeline.report(Report { timestamp: 0, at: now });
    // RTP stood still for five seconds, which is no delay that would not be believed.
    assert_eq!(milliseconds(timeline.frame(90_000 * 20, now + 25 * S)), 20_000);
    assert_eq!(timeline.report(Report { timestamp: 90_000 * 20, at: now + 25 * S }), None);
    assert_eq!(milliseconds(timeline.frame(90_000 * 21, now + 26 * S)), 26_000);
    assert_eq!(timeline.zero(), Some(now));
}

#[test]
fn a_pause_stays_a_gap_whether_rtp_went_on_or_not() {
    for rtp_s in [600, 0] {
        let now = start();
        let mut timeline = began(now);
        timeline.report(Report { timestamp: 0, at: now });
        let timestamp = 90_000 * rtp_s + 3_000;
        let back = timeline.frame(timestamp, now + 600 * S);
        assert!(milliseconds(back).abs_diff(600_000) < 50, "{back:?}");
        timeline.report(Report { timestamp: timestamp + 90_000, at: now + 601 * S });
        let next = timeline.frame(timestamp + 180_000, now + 602 * S);
        assert!(milliseconds(next).abs_diff(602_000) < 50, "{next:?}");
    }
}

#[test]
fn another_stream_goes_on_in_the_same_time() {
    let now = start();
    let mut timeline = began(now);
    timeline.report(Report { timestamp: 0, at: now - 20 * MS });
    timeline.frame(90_000, now + S);
    timeline.restart(0xdead_beef, now + 3 * S);
    let zero = timeline.zero().unwrap();
    assert_eq!(zero + timeline.frame(0xdead_beef, now + 3 * S), now + 3 * S);
    // Its first report counts at once, and the zero of what was written stays.
    assert_eq!(timeline.report(Report { timestamp: 0xdead_beef, at: now + 3 * S - 20 * MS }), None);
    let next = timeline.frame(0xdead_beef_u32.wrapping_add(90_000), now + 4 * S);
    assert_eq!((timeline.zero(), zero + next), (Some(zero), now + 4 * S - 20 * MS));
}

#[test]
fn time_never_goes_back() {
    let mut random = Random(7);
    let now = start();
    for _ in 0..50 {
        let mut timeline = began(now);
        let (mut last, mut timestamp) = (Duration::ZERO, 0u32);
        let mut at = now;
        for _ in 0..500 {
            at += random.below(50) as u32 * MS;
            match random.below(10) {
                0 => timestamp = random.number() as u32,
                1 => timestamp = timestamp.wrapping_sub(9_000),
                2 => timeline.restart(timestamp, at),
                3..5 => {
                    timeline.report(Report { timestamp, at: at + random.below(30_000) as u32 * MS - 15 * S });
                }
                _ => timestamp = timestamp.wrapping_add(3_000),
            }
            let next = timeline.frame(timestamp, at);
            assert!(next >= last + TICK, "{last:?}, {next:?}");
            last = next;
        }
        let made = timeline.zero().unwrap() + last;
        assert!(made < at + S + 500 * TICK + 15 * S && made > at - 30 * S, "it stays near the arrival");
    }
}

#[test]
fn reports_that_were_held_up_tell_the_same_time() {
    let now = start();
    let mut clock = SenderClock::default();
    assert_eq!(clock.local(ntp(Duration::ZERO), now + 50 * MS), now + 50 * MS, "the first is all there is");
    let quick = clock.local(ntp(S), now + S + 20 * MS);
    assert_eq!(quick, now + S + 20 * MS);
    let held_up = clock.local(ntp(2 * S), now + 2 * S + 500 * MS);
    assert!(nanoseconds_between(now + 2 * S + 20 * MS, held_up).abs() < 1_000);
    // A quick one a minute ago says nothing any more.
    let later = clock.local(ntp(120 * S), now + 120 * S + 45 * MS);
    assert!(nanoseconds_between(now + 120 * S + 45 * MS, later).abs() < 1_000);
}

#[test]
fn a_sender_may_set_its_clock() {
    for hours in [-2i64, 2] {
        let now = start();
        let mut clock = SenderClock::default();
        let set = |after: Duration| ntp(after).wrapping_add_signed((hours * 3_600) << 32);
        clock.local(ntp(Duration::ZERO), now + 20 * MS);
        let after = clock.local(set(S), now + S + 30 * MS);
        assert!(nanoseconds_between(now + S + 30 * MS, after).abs() < 1_000);
        let after = clock.local(set(2 * S), now + 2 * S + 100 * MS);
        assert!(nanoseconds_between(now + 2 * S + 30 * MS, after).abs() < 1_000, "{hours} h");
    }
}

/// A track whose media, sender and network are simulated, and how far its frames are from where they belong.
struct Simulated {
    timeline: Timeline,
    clock_rate: f64,
    rtp_ppm: f64,
    first_timestamp: u32,
    /// Made so long after zero, and how far from there on our clock without the zero.
    frames: Vec<(f64, Duration)>,
}

/// Two hours: two people whose clocks run apart, each with a microphone that runs apart from its own machine's clock, and a
/// camera; a network of 40 ms that often takes longer.
#[test]
fn tracks_stay_together_for_two_hours() {
    const LENGTH_S: f64 = 7_200.0;
    const NETWORK_S: f64 = 0.040;
    let mut random = Random(7);
    let now = start();
    let at = |seconds: f64| now + Duration::from_secs_f64(seconds);
    let mut worst_s = 0.0f64;
    let mut spread = (f64::MAX, f64::MIN);
    for (clock_ppm, microphone_ppm) in [(100.0, 100.0), (-100.0, -100.0), (100.0, -100.0), (0.0, 0.0)] {
        let mut clock = SenderClock::default();
        let mut tracks = [(48_000.0, microphone_ppm), (90_000.0, 0.0)].map(|(clock_rate, ppm)| Simulated {
            timeline: Timeline::new(clock_rate as u32),
            clock_rate,
            rtp_ppm: clock_ppm + ppm,
            first_timestamp: random.number() as u32,
            frames: Vec::new(),
        });
        // When each thing arrives: of a track (0, 1) a frame, or a report (2, 3).
        let mut delay = |chance: u64| {
            let spike = if random.percent(chance) { 0.2 * random.below(1_000) as f64 / 1_000.0 } else { 0.0 };
            NETWORK_S + spike + 0.03 * random.below(1_000) as f64 / 1_000.0
        };
        let mut arrivals: Vec<(f64, f64, usize)> = Vec::new();
        for (track, interval) in [(0, 0.020), (1, 1.0 / 30.0)] {
            // Some seconds of silence in every minute: discontinuous transmission, or a mute.
            let made = (0..(LENGTH_S / interval) as u32).map(|number| f64::from(number) * interval);
            let made = made.filter(|made| track == 1 || made % 60.0 < 50.0);
            arrivals.extend(made.map(|made| (made + delay(2), made, track)));
        }
        for (track, interval) in [(2, 5.0), (3, 1.0)] {
            let made = (1..(LENGTH_S / interval) as u32).map(|number| f64::from(number) * interval - 0.3);
            arrivals.extend(made.map(|made| (made + delay(20), made, track)));
        }
        arrivals.sort_by(|one, other| one.0.total_cmp(&other.0));
        // A track gets its frames in order.
        let mut newest = [-1.0; 2];
        for (arrived, made, what) in arrivals {
            let track = &mut tracks[what % 2];
            let ticks = made * track.clock_rate * (1.0 + track.rtp_ppm / 1e6);
            let timestamp = track.first_timestamp.wrapping_add(ticks as u64 as u32);
            if what >= 2 {
                let sender = Duration::from_secs_f64(made * (1.0 + clock_ppm / 1e6));
                let at = clock.local(ntp(sender), at(arrived));
                track.timeline.report(Report { timestamp, at });
            } else if made > newest[what] {
                newest[what] = made;
                let in_file = track.timeline.frame(timestamp, at(arrived));
                track.frames.push((made, in_file));
            }
        }
        for track in &tracks {
            let zero_s = track.timeline.zero().unwrap().saturating_duration_since(now).as_secs_f64();
            let mut last = None;
            for &(made, in_file) in &track.frames {
                let error = zero_s + in_file.as_secs_f64() - made - NETWORK_S;
                worst_s = worst_s.max(error.abs());
                spread = (spread.0.min(error), spread.1.max(error));
                assert!(last.replace(in_file).is_none_or(|last| in_file >= last + TICK));
            }
        }
    }
    assert!(spread.1 - spread.0 < 0.040, "from {} to {} s", spread.0, spread.1);
    assert!(worst_s < 0.020, "{worst_s} s");
}
