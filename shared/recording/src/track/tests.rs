use std::time::{Duration, Instant};

use bytes::Bytes;
use plenary_model::Codec;
use proptest::prelude::*;

use super::*;
use crate::testing::{AV1C, AVCC, Picture, Random, SIZE, Sender, VIDEO, hex, start};

const MS: Duration = Duration::from_millis(1);
const INTERVAL_MS: u32 = 33;

fn polled(track: &mut Track, now: Instant) -> Vec<Output> {
    std::iter::from_fn(|| track.poll(now)).collect()
}

/// A publisher of one track, its packets and what became of them.
struct Stage {
    began: Instant,
    now: Instant,
    sender: Sender,
    timestamp: u32,
    track: Track,
    outputs: Vec<(Instant, Output)>,
}

impl Stage {
    fn new(codec: Codec) -> Self {
        let now = start();
        let track = Track::new(codec);
        Self { began: now, now, sender: Sender::new(codec, 7), timestamp: 0, track, outputs: Vec::new() }
    }

    /// The packets of the next picture.
    fn picture(&mut self, is_key: bool) -> Vec<Packet> {
        self.now += INTERVAL_MS * MS;
        self.timestamp = self.timestamp.wrapping_add(90 * INTERVAL_MS);
        let mut picture = self.sender.picture(is_key);
        // Enough for three packets, so that one may be missing in the middle.
        let body = picture.units.last_mut().unwrap();
        body.resize(body.len().max(250), 7);
        self.sender.packets(&picture, self.timestamp, self.now)
    }

    fn send(&mut self, packets: Vec<Packet>) {
        self.poll_until(self.now);
        for packet in packets {
            self.track.handle(Input::Packet(packet));
        }
        self.poll();
    }

    fn poll(&mut self) {
        let now = self.now;
        self.outputs.extend(polled(&mut self.track, now).into_iter().map(|output| (now, output)));
    }

    fn poll_until(&mut self, until: Instant) {
        while let Some(deadline) = self.track.next_deadline().filter(|&deadline| deadline <= until) {
            self.outputs.extend(polled(&mut self.track, deadline).into_iter().map(|output| (deadline, output)));
        }
    }

    fn close(&mut self) {
        self.poll_until(self.now);
        self.track.handle(Input::Close);
        self.poll();
    }

    /// What came since the last time, in a word each.
    fn words(&mut self) -> Vec<&'static str> {
        let word = |(_, output): (Instant, Output)| match output {
            Output::Begin { .. } => "begin",
            Output::Frame(Frame { is_key: true, .. }) => "key",
            Output::Frame(_) => "frame",
            Output::Gap { .. } => "gap",
            Output::SizeChanged(_) => "size",
            Output::Clock { .. } => "clock",
            Output::KeyframeNeeded => "needed",
        };
        self.outputs.drain(..).map(word).collect()
    }
}

#[test]
fn a_file_begins_with_a_key_frame_and_what_it_says() {
    for codec in VIDEO {
        let mut stage = Stage::new(codec);
        for is_key in [false, false, true, false] {
            let packets = stage.picture(is_key);
            stage.send(packets);
        }
        let Some((at, Output::Begin { codec_private, size, zero })) = stage.outputs.get(1).cloned() else {
            panic!("{codec:?}: {:?}", stage.outputs)
        };
        let private = match codec {
            Codec::H264 => Some(hex(AVCC)),
            Codec::Av1 => Some(hex(AV1C)),
            _ => None,
        };
        assert_eq!((codec_private, size, zero), (private.map(Bytes::from), Some(SIZE), at));
        assert_eq!(stage.words(), ["needed", "begin", "key", "frame"], "{codec:?}");
        // Of AV1 it cannot be seen whether a frame begins where the stream is joined.
        let counts = stage.track.counts();
        assert_eq!(counts.undecodable_frames + counts.cut_frames, 2);
    }
}

#[test]
fn sound_needs_no_key_frame() {
    let mut stage = Stage::new(Codec::Opus);
    for lost in [false, false, true, false] {
        let packets = stage.picture(true);
        if !lost {
            stage.send(packets);
        }
    }
    stage.close();
    let Some((_, Output::Gap { from, to, reason })) = stage.outputs.get(3).cloned() else {
        panic!("{:?}", stage.outputs)
    };
    assert_eq!(stage.words(), ["begin", "key", "key", "gap", "key"]);
    // The clock of sound is 48 kHz: what is 33 ms in the test's ticks is 61.875 ms.
    let tick = Duration::from_micros(61_875);
    assert_eq!((from, to, reason), (tick, 3 * tick, GapReason::PacketsLost));
}

#[test]
fn after_a_loss_frames_are_left_out_until_a_key_frame_comes() {
    for codec in VIDEO {
        for cut in 0..3 {
            let mut stage = Stage::new(codec);
            let first = stage.picture(true);
            stage.send(first);
            let mut damaged = stage.picture(false);
            damaged.remove(if cut == 2 { damaged.len() - 1 } else { cut });
            stage.send(damaged);
            for is_key in [false, false, true, false] {
                let packets = stage.picture(is_key);
                stage.send(packets);
            }
            stage.close();
            let gap = stage.outputs.iter().find_map(|(_, output)| match *output {
                Output::Gap { from, to, reason } => Some((from, to, reason)),
                _ => None,
            });
            assert_eq!(gap, Some((Duration::ZERO, 4 * INTERVAL_MS * MS, GapReason::PacketsLost)), "{codec:?}, {cut}");
            assert_eq!(stage.words(), ["needed", "begin", "key", "gap", "key", "frame"], "{codec:?}, {cut}");
            let counts = stage.track.counts();
            assert_eq!((counts.packets.lost, counts.cut_frames + counts.undecodable_frames), (1, 3));
        }
    }
}

#[test]
fn a_key_frame_is_asked_for_once_a_second_while_it_is_missed() {
    let mut stage = Stage::new(Codec::Vp8);
    let first = stage.picture(true);
    stage.send(first);
    stage.now += 5_000 * MS;
    let _lost = stage.picture(false);
    for _ in 0..100 {
        let packets = stage.picture(false);
        stage.send(packets);
    }
    let asked: Vec<_> =
        stage.outputs.iter().filter(|(_, output)| *output == Output::KeyframeNeeded).map(|(at, _)| *at).collect();
    assert_eq!(asked.len(), 4, "at the start, with the loss and twice in three seconds: {asked:?}");
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= KEYFRAME_REQUEST_INTERVAL));
    // While nobody sends, nobody is asked.
    stage.now += 60_000 * MS;
    stage.words();
    stage.poll();
    assert_eq!((stage.words(), stage.track.next_deadline()), (vec![], None));
}

#[test]
fn a_malformed_payload_costs_its_frame_and_is_named() {
    let mut stage = Stage::new(Codec::H264);
    let first = stage.picture(true);
    stage.send(first);
    let mut malformed = stage.picture(false);
    malformed[0].payload = Bytes::from_static(&[0x1a, 0]);
    stage.send(malformed);
    for is_key in [false, true] {
        let packets = stage.picture(is_key);
        stage.send(packets);
    }
    let reason = GapReason::Malformed(crate::Malformed::Mtap16);
    let gap = Output::Gap { from: Duration::ZERO, to: 3 * INTERVAL_MS * MS, reason };
    assert!(stage.outputs.iter().any(|(_, output)| *output == gap), "{:?}", stage.outputs);
    assert_eq!(stage.track.counts().malformed_frames, 1);
}

#[test]
fn lost_padding_leaves_no_gap_where_pictures_are_numbered() {
    let mut track = Track::new(Codec::Vp8);
    let now = start();
    assert_eq!(polled(&mut track, now), [Output::KeyframeNeeded]);
    for (sequence, picture, tag) in [(1u16, 5u8, 0x10u8), (3, 6, 0x11), (5, 8, 0x11)] {
        let head = [0x90, 0x80, picture, tag, 0, 0, 0x9d, 0x01, 0x2a, 0x42, 0x01, 0xb6, 0x00];
        let timestamp = u32::from(sequence) * 3_000;
        let payload = Bytes::copy_from_slice(&head);
        track.handle(Input::Packet(Packet { ssrc: 1, sequence, timestamp, marker: true, payload, received: now }));
    }
    let outputs = polled(&mut track, now + Duration::from_secs(1));
    assert!(
        matches!(&outputs[..], [Output::Begin { .. }, Output::Frame(_), Output::Frame(_), Output::KeyframeNeeded]),
        "{outputs:?}"
    );
    track.handle(Input::Close);
    let outputs = polled(&mut track, now + Duration::from_secs(1));
    assert!(
        matches!(&outputs[..], [Output::Gap { from, to, .. }] if (*from, *to) == (Duration::from_micros(66_666) + Duration::from_nanos(666), Duration::from_secs(1))),
        "{outputs:?}"
    );
}

#[test]
fn another_size_is_said_before_its_frame() {
    let mut stage = Stage::new(Codec::Vp8);
    for width in [0x42, 0x42, 0x43] {
        let mut packets = stage.picture(true);
        let mut first = packets[0].payload.to_vec();
        first[7] = width;
        packets[0].payload = first.into();
        stage.send(packets);
    }
    assert_eq!(stage.outputs[4].1, Output::SizeChanged(Size { width: 323, ..SIZE }));
    assert_eq!(stage.words(), ["needed", "begin", "key", "key", "size", "key"]);
}

#[test]
fn another_stream_goes_on_in_the_same_file() {
    let mut stage = Stage::new(Codec::H264);
    for is_key in [true, false] {
        let packets = stage.picture(is_key);
        stage.send(packets);
    }
    stage.now += 2_000 * MS;
    stage.sender.ssrc = 2;
    stage.sender.sequence = 9;
    stage.timestamp = 0xdead_beef;
    for is_key in [false, true, false] {
        let packets = stage.picture(is_key);
        stage.send(packets);
    }
    let last = stage.began + 5 * INTERVAL_MS * MS + 2_000 * MS;
    let Some((_, Output::Frame(frame))) = stage.outputs.last() else { panic!() };
    assert_eq!(stage.began + INTERVAL_MS * MS + frame.at, last);
    let gap = stage.outputs.iter().find_map(|(_, output)| match *output {
        Output::Gap { reason, .. } => Some(reason),
        _ => None,
    });
    assert_eq!(gap, Some(GapReason::NewStream));
    assert_eq!(stage.words(), ["needed", "begin", "key", "frame", "needed", "gap", "key", "frame"]);
}

#[test]
fn reports_correct_the_clock() {
    let mut stage = Stage::new(Codec::Vp8);
    let packets = stage.picture(true);
    let (timestamp, received) = (packets[0].timestamp, packets[0].received);
    stage.send(packets);
    stage.track.handle(Input::Report(Report { timestamp, at: received - 25 * MS }));
    stage.poll();
    assert_eq!(stage.outputs.last().unwrap().1, Output::Clock { zero: received - 25 * MS });
}

/// What is to come of pictures of which some packets were lost: those that are whole and follow a key frame without loss.
fn decodable(pictures: &[(Picture, bool)]) -> Vec<usize> {
    let mut follows = false;
    let mut decodable = Vec::new();
    for (number, (picture, is_whole)) in pictures.iter().enumerate() {
        follows = *is_whole && (follows || picture.is_key);
        if follows {
            decodable.push(number);
        }
    }
    decodable
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Packets cut anywhere, lost, repeated and late: the frames are those that were sent, but for the named losses.
    #[test]
    fn frames_are_what_was_sent_without_what_was_lost(seed: u64, loss in 0u64..6, payload_bytes_max in 40usize..400) {
        for codec in [Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1] {
            let mut random = Random(seed);
            let began = start();
            let mut sender = Sender { payload_bytes_max, sequence: random.number() as u16, ..Sender::new(codec, seed) };
            if codec == Codec::Opus {
                sender.payload_bytes_max = sender.payload_bytes_max.min(200);
            }
            let first_timestamp = random.number() as u32;
            let (mut pictures, mut arrivals) = (Vec::new(), Vec::new());
            let rate = if codec == Codec::Opus { 48 } else { 90 };
            for number in 0..120u32 {
                let sent = began + number * INTERVAL_MS * MS;
                let picture = sender.picture(number == 0 || codec == Codec::Opus || random.percent(10));
                let timestamp = first_timestamp.wrapping_add(rate * number * INTERVAL_MS);
                let mut is_whole = true;
                for packet in sender.packets(&picture, timestamp, sent) {
                    if number > 0 && random.percent(loss) {
                        is_whole = false;
                        continue;
                    }
                    for _ in 0..1 + random.below(20) / 19 {
                        let late = if number == 0 { 0 } else { random.below(250) as u32 };
                        arrivals.push(Packet { received: sent + late * MS, ..packet.clone() });
                    }
                }
                pictures.push((picture, is_whole));
            }
            arrivals.sort_by_key(|packet| packet.received);
            let mut track = Track::new(codec);
            let mut outputs = Vec::new();
            for packet in arrivals {
                while let Some(deadline) = track.next_deadline().filter(|&deadline| deadline < packet.received) {
                    outputs.extend(polled(&mut track, deadline));
                }
                let now = packet.received;
                track.handle(Input::Packet(packet));
                outputs.extend(polled(&mut track, now));
            }
            track.handle(Input::Close);
            outputs.extend(polled(&mut track, began));
            outputs.retain(|output| *output != Output::KeyframeNeeded);

            let expected = match codec {
                Codec::Opus => (0..pictures.len()).filter(|&number| pictures[number].1).collect(),
                _ => decodable(&pictures),
            };
            let begins = matches!(outputs[0], Output::Begin { .. });
            prop_assert!(begins);
            let mut outputs = outputs.into_iter().skip(1);
            let (mut last, mut last_at) = (0, Duration::ZERO);
            for number in expected {
                let mut output = outputs.next();
                let at = number as u32 * INTERVAL_MS * MS;
                if number > last + 1 {
                    prop_assert_eq!(output, Some(Output::Gap { from: last_at, to: at, reason: GapReason::PacketsLost }));
                    output = outputs.next();
                }
                let Some(Output::Frame(frame)) = output else { panic!("{codec:?}: {output:?} instead of frame {number}") };
                prop_assert_eq!(&frame.data[..], &pictures[number].0.in_file(codec)[..]);
                prop_assert_eq!((frame.at, frame.is_key), (at, pictures[number].0.is_key));
                (last, last_at) = (number, at);
            }
            // Closed at a time before all frames, so that no gap is left to be said.
            prop_assert_eq!(outputs.next(), None);
        }
    }
}
