use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::testing::{Random, start};

fn packet(ssrc: u32, sequence: u16, received: Instant) -> Packet {
    Packet { ssrc, sequence, timestamp: 0, marker: false, payload: Bytes::new(), received }
}

/// What comes out: sequence numbers, `-1` for a loss, `-2` for a new stream.
fn popped(reorder: &mut Reorder, now: Instant) -> Vec<i32> {
    let released = std::iter::from_fn(|| reorder.pop(now));
    let number = |released| match released {
        Released::Packet(packet) => packet.sequence.into(),
        Released::Lost(_) => -1,
        Released::NewStream => -2,
    };
    released.map(number).collect()
}

fn pushed(reorder: &mut Reorder, sequences: &[u16], now: Instant) -> Vec<i32> {
    for &sequence in sequences {
        reorder.push(packet(1, sequence, now));
    }
    popped(reorder, now)
}

#[test]
fn packets_come_out_in_order_and_once() {
    let now = start();
    for (sequences, expected) in [
        (&[7, 8, 9][..], &[7, 8, 9][..]),
        (&[7, 9, 8, 10], &[7, 8, 9, 10]),
        (&[7, 10, 9, 8], &[7, 8, 9, 10]),
        (&[7, 7, 9, 9, 8, 7], &[7, 8, 9]),
        (&[65_534, 0, 65_535, 1], &[65_534, 65_535, 0, 1]),
        (&[7, 6, 8], &[7, 8]),
    ] {
        let mut reorder = Reorder::default();
        assert_eq!(pushed(&mut reorder, sequences, now), expected, "{sequences:?}");
        assert_eq!(reorder.next_deadline(), None);
    }
}

#[test]
fn a_hole_is_waited_for_and_then_lost() {
    let mut reorder = Reorder::default();
    let now = start();
    assert_eq!(pushed(&mut reorder, &[1, 3, 6], now), [1]);
    assert_eq!(reorder.next_deadline(), Some(now + WAIT));
    let just_before = now + WAIT - Duration::from_millis(1);
    assert_eq!(pushed(&mut reorder, &[7], just_before), [0; 0]);
    assert_eq!(reorder.pop(now + WAIT), Some(Released::Lost(1)));
    assert_eq!(reorder.pop(now + WAIT).map(|released| matches!(released, Released::Packet(_))), Some(true));
    assert_eq!(reorder.pop(now + WAIT), Some(Released::Lost(2)), "what revealed one hole revealed the next");
    assert_eq!(popped(&mut reorder, now + WAIT), [6, 7]);
    assert_eq!(pushed(&mut reorder, &[2, 4], now + WAIT), [0; 0]);
    let drops = Drops { late: 2, lost: 3, ..Drops::default() };
    assert_eq!(reorder.drops(), drops);
}

#[test]
fn a_hole_that_fills_in_time_costs_nothing() {
    let mut reorder = Reorder::default();
    let now = start();
    assert_eq!(pushed(&mut reorder, &[1, 3, 5], now), [1]);
    assert_eq!(pushed(&mut reorder, &[2], now + WAIT / 2), [2, 3]);
    assert_eq!(reorder.next_deadline(), Some(now + WAIT), "the second hole was known as long");
    assert_eq!(pushed(&mut reorder, &[4], now + WAIT), [4, 5], "it is not lost before it is looked for");
    assert_eq!(reorder.drops(), Drops::default());
}

#[test]
fn a_full_buffer_gives_up_its_oldest_hole_alone() {
    let mut reorder = Reorder::default();
    let now = start();
    let mut sequences = vec![0, 2, 4];
    sequences.extend(5..=512);
    assert_eq!(pushed(&mut reorder, &sequences, now), [0]);
    assert_eq!(pushed(&mut reorder, &[513], now), [-1, 2]);
    assert_eq!(pushed(&mut reorder, &[3], now).len(), 511);
    assert_eq!(reorder.drops(), Drops { lost: 1, ..Drops::default() });
}

#[test]
fn two_packets_far_away_are_where_the_stream_goes_on() {
    for far in [20_000u16, 60_000, 4_000] {
        let mut reorder = Reorder::default();
        let now = start();
        assert_eq!(pushed(&mut reorder, &[100, 101, 103], now), [100, 101]);
        assert_eq!(pushed(&mut reorder, &[far], now), [0; 0]);
        let numbers = [far, far + 1].map(i32::from);
        assert_eq!(pushed(&mut reorder, &[far + 1], now), [&[-1, 103, -1][..], &numbers].concat());
        assert_eq!(reorder.drops(), Drops { lost: 1, ..Drops::default() });
    }
}

#[test]
fn one_packet_far_away_is_dropped() {
    let mut reorder = Reorder::default();
    let now = start();
    assert_eq!(pushed(&mut reorder, &[100, 20_000, 101, 20_001, 102, 40_000, 41_000, 103], now), [100, 101, 102, 103]);
    assert_eq!(reorder.drops(), Drops { stray: 4, ..Drops::default() });
}

#[test]
fn another_ssrc_is_another_stream() {
    let mut reorder = Reorder::default();
    let now = start();
    assert_eq!(pushed(&mut reorder, &[9, 11], now), [9]);
    reorder.push(packet(2, 11, now));
    reorder.push(packet(2, 12, now));
    assert_eq!(popped(&mut reorder, now), [-1, 11, -2, 11, 12]);
}

#[test]
fn closing_waits_for_nothing() {
    let mut reorder = Reorder::default();
    let now = start();
    assert_eq!(pushed(&mut reorder, &[1, 3], now), [1]);
    reorder.close();
    assert_eq!(popped(&mut reorder, now), [-1, 3]);
    assert_eq!(popped(&mut reorder, now), [0; 0]);
}

#[test]
fn what_is_not_read_is_bounded() {
    let mut reorder = Reorder::default();
    let now = start();
    for number in 0..5_000u16 {
        reorder.push(packet(u32::from(number / 10), number, now));
    }
    assert!(reorder.settled.len() <= PACKETS_MAX && reorder.waiting.len() <= PACKETS_MAX);
    assert!(reorder.drops().unread > 0);
}

proptest! {
    /// Packets of a stream, some lost, some twice, each up to 200 ms late.
    #[test]
    fn what_comes_in_time_comes_out_in_order(seed: u64, first: u16, loss in 0u64..20) {
        let mut random = Random(seed);
        let began = start();
        let count = 2_000u64;
        let mut arrivals = Vec::new();
        for number in 0..count {
            let copies = if number == 0 { 1 } else if random.percent(loss) { 0 } else { 1 + random.below(20) / 19 };
            for _ in 0..copies {
                let jitter = if number == 0 { 0 } else { random.below(200) };
                arrivals.push((began + Duration::from_millis(2 * number + jitter), number));
            }
        }
        arrivals.sort();
        let came: std::collections::BTreeSet<u64> = arrivals.iter().map(|&(_, number)| number).collect();
        let mut reorder = Reorder::default();
        let mut out = Vec::new();
        for &(at, number) in &arrivals {
            while let Some(deadline) = reorder.next_deadline().filter(|&deadline| deadline < at) {
                out.extend(popped(&mut reorder, deadline));
                prop_assert!(reorder.next_deadline() > Some(deadline) || reorder.next_deadline().is_none());
            }
            reorder.push(packet(1, first.wrapping_add(number as u16), at));
            out.extend(popped(&mut reorder, at));
            prop_assert!(reorder.waiting.len() <= PACKETS_MAX);
        }
        reorder.close();
        out.extend(popped(&mut reorder, began));
        let mut expected = Vec::new();
        for number in 0..=*came.last().unwrap() {
            if came.contains(&number) {
                expected.push(i32::from(first.wrapping_add(number as u16)));
            } else if expected.last() != Some(&-1) {
                expected.push(-1);
            }
        }
        prop_assert_eq!(out, expected);
        let drops = reorder.drops();
        prop_assert_eq!(drops.late + drops.duplicate, (arrivals.len() - came.len()) as u64);
    }
}
