use std::time::Duration;

use super::*;
use crate::rtp::dependency::tests::Pattern;

const ID: u8 = 9;

/// A packet with this payload, and a dependency descriptor if there is one.
fn packet(timestamp: u32, marker: bool, descriptor: &[u8], payload: &[u8]) -> (Header, Vec<u8>) {
    let mut packet = vec![0x90, if marker { 0x80 } else { 0 }, 0, 1];
    packet.extend_from_slice(&timestamp.to_be_bytes());
    packet.extend_from_slice(&7u32.to_be_bytes());
    let mut elements =
        if descriptor.is_empty() { Vec::new() } else { [&[ID, descriptor.len() as u8], descriptor].concat() };
    elements.resize(elements.len().next_multiple_of(4), 0);
    packet.extend_from_slice(&[0x10, 0, 0, (elements.len() / 4) as u8]);
    packet.extend_from_slice(&elements);
    packet.extend_from_slice(payload);
    (Header::parse(&packet).unwrap(), packet)
}

fn vp8(picture_id: u16, temporal: u8, needs_base_alone: bool, keyframe: bool) -> Vec<u8> {
    let [high, low] = (picture_id | 0x8000).to_be_bytes();
    vec![0x90, 0xf0, high, low, 1, temporal << 6 | u8::from(needs_base_alone) << 5, u8::from(!keyframe)]
}

fn inspect(frames: &mut Frames, payload: &[u8], is_newest: bool) -> FrameInfo {
    let (header, packet) = packet(0, true, &[], payload);
    frames.inspect(Instant::now(), &header, &packet, is_newest)
}

#[test]
fn numbers_run_on_over_wraps_and_find_late_pictures() {
    let mut frames = Frames::new(Codec::Vp8, None);
    let mut number =
        |picture_id, is_newest| inspect(&mut frames, &vp8(picture_id, 0, false, true), is_newest).frame.unwrap().number;
    let first = number(0x7ffe, true);
    assert_eq!(first, FIRST_NUMBER + 0x7ffe, "with the counter's own low bits");
    assert_eq!([number(0x7fff, true), number(1, true), number(0, false)].map(|next| next - first), [1, 3, 2]);
    assert_eq!(number(0x4000, true) - first, 0x4002, "a jump ahead");
    let before = number(0x4001, true);
    let anew = number(5, true);
    assert!(anew > before && anew & 0x7fff == 5, "begun anew, it goes on upwards");
}

#[test]
fn a_stored_packet_has_the_number_it_had() {
    let mut frames = Frames::new(Codec::Av1, Some(ID));
    let pattern = Pattern::L3T3;
    let now = Instant::now();
    for number in 0..40u16 {
        let descriptor = pattern.descriptor(65_520u16.wrapping_add(number), 0, (number % 3) as u8, true, true);
        let (header, packet) = packet(u32::from(number / 3), false, &descriptor, &[0x10, 1]);
        let frame = frames.inspect(now, &header, &packet, true).frame.unwrap();
        assert_eq!(frames.number_of(&header, &packet), Some(frame.number));
        assert_eq!(frame.number, FIRST_NUMBER + 65_520 + u64::from(number));
    }
    let mut frames = Frames::new(Codec::Vp8, None);
    let late = packet(0, true, &[], &vp8(9, 0, false, true));
    inspect(&mut frames, &vp8(10, 0, false, true), true);
    assert_eq!(frames.number_of(&late.0, &late.1), Some(FIRST_NUMBER + 9));
}

#[test]
fn the_descriptor_comes_before_the_payload() {
    let mut frames = Frames::new(Codec::Av1, Some(ID));
    let now = Instant::now();
    let pattern = Pattern::L3T3_KEY;
    // Opaque payloads: the aggregation header of the first says nothing of a new sequence.
    for (since_key, spatial, keyframe) in [(0, 0, true), (0, 1, false), (1, 0, false)] {
        let descriptor = pattern.descriptor(since_key as u16 * 3 + u16::from(spatial), since_key, spatial, true, true);
        let (header, packet) = packet(since_key, false, &descriptor, &[0x10, 0xee]);
        let info = frames.inspect(now, &header, &packet, true);
        assert_eq!(info.keyframe, keyframe, "{since_key} {spatial}");
        assert_eq!(info.frame.unwrap().spatial, spatial);
    }
    // Without one, the payload is all there is.
    let (header, packet) = packet(9, false, &[], &[0x18, 0xee]);
    let info = frames.inspect(now, &header, &packet, true);
    assert!(info.keyframe && info.frame.is_none());
}

#[test]
fn a_structure_that_comes_late_is_for_what_follows_it() {
    let mut frames = Frames::new(Codec::Av1, Some(ID));
    let now = Instant::now();
    let key = Pattern::L3T3.descriptor(10, 0, 0, true, true);
    let after = Pattern::L3T3.descriptor(13, 1, 0, true, true);
    let mut present = |descriptor: &[u8], is_newest| {
        let (header, packet) = packet(0, false, descriptor, &[0x10]);
        !frames.inspect(now, &header, &packet, is_newest).frame.unwrap().present.is_empty()
    };
    assert!(!present(&after, true), "nobody knows what it is");
    assert!(present(&key, false));
    assert!(present(&after, true));
    // An older one, of other layers, changes nothing any more.
    present(&Pattern::L1T3.descriptor(4, 0, 0, true, true), false);
    let (header, packet) = packet(0, false, &Pattern::L3T3.descriptor(15, 1, 2, true, true), &[0x10]);
    assert_eq!(frames.inspect(now, &header, &packet, true).frame.unwrap().spatial, 2);
}

#[test]
fn vp8_without_ids_has_no_layers() {
    let mut frames = Frames::new(Codec::Vp8, None);
    for payload in [&[0x10, 0x00][..], &[0x90, 0x80, 0x05, 0x00], &[0x90, 0x20, 0x00, 0x00], &[]] {
        assert_eq!(inspect(&mut frames, payload, true).frame, None, "{payload:02x?}");
    }
    assert!(inspect(&mut frames, &[0x10, 0x00], true).keyframe);
}

#[test]
fn rates_are_what_a_receiver_of_the_layer_gets() {
    for (pattern, expected) in [
        // Three layers of a packet each: all below count, or only the layer itself.
        (Pattern::L3T3, [[1, 2, 4], [2, 4, 8], [3, 6, 12]]),
        (Pattern::L3T3_KEY, [[1, 2, 4], [1, 2, 4], [1, 2, 4]]),
    ] {
        let mut frames = Frames::new(Codec::Av1, Some(ID));
        let start = Instant::now();
        let picture = Duration::from_millis(25);
        let mut now = start;
        for number in 0..80u32 {
            now = start + picture * number;
            for spatial in 0..3u8 {
                let since_key = number;
                let counter = number as u16 * 3 + u16::from(spatial);
                let descriptor = pattern.descriptor(counter, since_key, spatial, true, true);
                let (header, packet) = packet(number * 2_250, false, &descriptor, &[0x10; 500]);
                frames.inspect(now, &header, &packet, true);
            }
        }
        let rates = frames.rates().unwrap();
        assert_eq!((rates.top_temporal(), rates.spatial_layers().count()), (2, 3));
        let unit = rates.bits_per_second(now, LayerId::new(0, 0));
        for (spatial, row) in (0..3).zip(expected) {
            for (temporal, times) in (0..3).zip(row) {
                let rate = rates.bits_per_second(now, LayerId::new(spatial, temporal));
                let off = rate.abs_diff(unit * times) * 10 / rate;
                assert_eq!(off, 0, "{pattern:?} {spatial} {temporal}: {rate} for {times} times {unit}");
            }
        }
        // Forty pictures a second, ten of them in the base layer.
        let temporal = |fps| rates.temporal_for(now, fps);
        assert_eq!([5, 10, 15, 20, 30, 60].map(temporal), [0, 0, 1, 1, TEMPORAL_MAX, TEMPORAL_MAX]);
    }
}

#[test]
fn hostile_payloads_never_panic() {
    let mut frames = [Frames::new(Codec::Vp8, None), Frames::new(Codec::Vp9, None), Frames::new(Codec::Av1, Some(ID))];
    let mut random = crate::testing::Rng::new(5);
    let now = Instant::now();
    for turn in 0..30_000u64 {
        let mut payload = random.bytes((turn % 30) as usize);
        let descriptor = if turn % 3 == 0 {
            let mut descriptor =
                Pattern::L3T3.descriptor(turn as u16, (turn % 5) as u32, (turn % 3) as u8, true, false);
            let at = random.below(descriptor.len() as u64) as usize;
            descriptor[at] ^= 1 << (turn % 8);
            descriptor
        } else {
            random.bytes((turn % 90) as usize)
        };
        payload.push(0);
        let (header, packet) = packet(turn as u32, turn % 2 == 0, &descriptor, &payload);
        for frames in &mut frames {
            frames.inspect(now, &header, &packet, turn % 4 != 0);
            frames.number_of(&header, &packet);
        }
    }
}
