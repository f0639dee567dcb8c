//! Properties of the outgoing stream over random switches, losses, reorderings, padding and pauses.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::{ingress::Rtx, rtp::vp8};

/// A publisher with three layers, a lossy way in, and a subscriber whose wishes change, driven by random bytes.
struct World {
    start: Instant,
    now: Instant,
    forwarder: Forwarder,
    layers: Vec<Layer>,
    /// Packets on the way, by layer: released out of order.
    held: Vec<(usize, Vec<u8>)>,
    /// Everything that went out, by extended sequence number.
    sent: BTreeMap<u64, Vec<u8>>,
    order: Vec<u64>,
    lost: bool,
    late: bool,
}

impl World {
    fn new(rtx: bool) -> Self {
        let (start, _, layers) = video_world(3);
        let rtx = rtx.then_some(RtxConfig { ssrc: RTX_SSRC, payload_type: 121 });
        let forwarder = Forwarder::new(start, ForwarderConfig { rtx, ..config(Codec::Vp8) });
        Self {
            start,
            now: start,
            forwarder,
            layers,
            held: Vec::new(),
            sent: BTreeMap::new(),
            order: Vec::new(),
            lost: false,
            late: false,
        }
    }

    fn offer(&mut self, layer: usize, packet: &[u8]) {
        let (now, target) = (self.now, &mut self.layers[layer]);
        if let Ok((written, out)) = pass(&mut self.forwarder, target, now, packet) {
            assert_eq!(written.extended & 0xffff, u64::from(Header::parse(&out).unwrap().sequence));
            assert!(self.sent.insert(written.extended, out).is_none(), "number {} was used twice", written.extended);
            self.order.push(written.extended);
        }
    }

    fn tick(&mut self, action: [u8; 4]) {
        let [wish, keys, shape, fate] = action;
        match wish {
            0..8 => self.forwarder.set_target(Target::Off),
            8..16 => self.forwarder.set_muted(true),
            16..32 => self.forwarder.set_muted(false),
            32..80 => self.forwarder.set_target(all_of(wish % 3)),
            80..90 => self.forwarder.acknowledged(),
            _ => {}
        }
        let wanted = self.forwarder.needs_keyframe();
        for layer in 0..self.layers.len() {
            let keyframe = keys & (1 << layer) != 0 && (keys > 200 || wanted == Some(StreamId(layer as u8)));
            let packets = 1 + usize::from(shape >> (2 * layer) & 3);
            let (start, now) = (self.start, self.now);
            let mut frame = self.layers[layer].frame(start, now, keyframe, packets);
            if shape >= 0xe0 {
                let timestamp = timestamp_of(&frame[0]);
                frame.push(self.layers[layer].padding(timestamp));
            }
            for (n, packet) in frame.into_iter().enumerate() {
                match fate.rotate_left(layer as u32 * 2 + n as u32) {
                    0..10 => self.lost = true,
                    10..25 => {
                        self.late = true;
                        self.held.push((layer, packet));
                    }
                    _ => self.offer(layer, &packet),
                }
            }
        }
        if fate % 3 == 0 && !self.held.is_empty() {
            let (layer, packet) = self.held.remove(usize::from(keys) % self.held.len());
            self.offer(layer, &packet);
        }
        self.now += FRAME;
    }

    /// What must hold for any stream, whatever happened to its sources.
    fn check(&self) {
        let mut timestamps = self.sent.values().map(|packet| timestamp_of(packet));
        if let Some(mut last) = timestamps.next() {
            for timestamp in timestamps {
                assert!(timestamp_distance(last, timestamp) >= 0, "time goes back: {last} to {timestamp}");
                last = timestamp;
            }
        }
        let descriptors = self.sent.values().filter_map(|packet| {
            let header = Header::parse(packet).unwrap();
            let payload = header.payload_of(packet);
            let descriptor = vp8::Descriptor::parse(payload)?;
            Some((header.timestamp, payload[6], descriptor))
        });
        let mut previous: Option<(u32, u8, vp8::Descriptor)> = None;
        for (timestamp, layer, descriptor) in descriptors {
            if let Some((last_timestamp, last_layer, last)) = previous {
                let [id, last_id] = [descriptor, last].map(|descriptor| descriptor.picture_id.unwrap().value);
                let step = id.wrapping_sub(last_id) & 0x7fff;
                let base = [descriptor, last].map(|descriptor| descriptor.base_layer_index.unwrap().value);
                assert_eq!(step == 0, timestamp == last_timestamp, "one picture, one time");
                assert_eq!(u8::try_from(step).ok(), Some(base[0].wrapping_sub(base[1])), "both counters go together");
                if last_layer != layer {
                    assert_eq!(step, 1, "a switch follows the last picture");
                    assert!(descriptor.keyframe, "a switch begins with a key frame");
                }
            } else {
                assert!(descriptor.keyframe, "a stream begins with a key frame");
            }
            previous = Some((timestamp, layer, descriptor));
        }
        if !self.lost && !self.late {
            let numbers: Vec<u64> = self.sent.keys().copied().collect();
            assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "a gap without a loss");
        }
    }
}

fn actions(fates: std::ops::Range<u8>) -> impl Strategy<Value = Vec<[u8; 4]>> {
    let action = (any::<u8>(), any::<u8>(), any::<u8>(), fates).prop_map(|(a, b, c, d)| [a, b, c, d]);
    proptest::collection::vec(action, 1..200)
}

proptest! {
    #[test]
    fn the_stream_is_continuous_whatever_happens(actions in actions(0..255)) {
        let mut world = World::new(false);
        world.forwarder.set_target(all_of(1));
        actions.into_iter().for_each(|action| world.tick(action));
        world.check();
    }

    /// Fates that neither lose nor delay, for any rotation: all bits set but one.
    #[test]
    fn without_loss_there_is_no_gap(actions in actions(254..255)) {
        let mut world = World::new(false);
        world.forwarder.set_target(all_of(0));
        actions.into_iter().for_each(|action| world.tick(action));
        prop_assert!(!world.lost && !world.late);
        world.check();
        let sorted: BTreeSet<u64> = world.order.iter().copied().collect();
        prop_assert!(sorted.into_iter().eq(world.order.iter().copied()), "nothing was reordered");
    }

    /// With one key, another packet under the same number would be sealed with the same nonce.
    #[test]
    fn a_plain_repair_is_the_same_bytes(actions in actions(0..255)) {
        let mut world = World::new(false);
        world.forwarder.set_target(all_of(1));
        let mut repaired = 0;
        for action in actions {
            world.tick(action);
            let asked = world.order.iter().rev().nth(usize::from(action[2])).copied();
            if let Some(number) = asked
                && let Ok((written, out)) = repair(&mut world.forwarder, &world.layers, world.now, number as u16)
            {
                prop_assert_eq!((written.ssrc, written.extended), (OUT_SSRC, number));
                prop_assert_eq!(&out, &world.sent[&number]);
                repaired += 1;
            }
        }
        prop_assert!(repaired > 0 || world.order.len() < 100, "nothing was repaired");
    }

    #[test]
    fn an_rtx_repair_differs_in_its_framing_only(actions in actions(0..255)) {
        let mut world = World::new(true);
        world.forwarder.set_target(all_of(2));
        let mut next_rtx = 0x7fff;
        let receiver = StreamConfig { ssrc: OUT_SSRC, codec: Codec::Vp8, clock_rate: 90_000, repair: Repairing::Requested, dependency_id: None };
        for action in actions {
            world.tick(action);
            let Some(number) = world.order.iter().rev().nth(usize::from(action[2])).copied() else { continue };
            let Ok((written, out)) = repair(&mut world.forwarder, &world.layers, world.now, number as u16) else { continue };
            let (original, header) = (&world.sent[&number], Header::parse(&out).unwrap());
            prop_assert_eq!((written.ssrc, written.extended), (RTX_SSRC, next_rtx));
            prop_assert_eq!((header.payload_type, header.sequence), (121, next_rtx as u16));
            prop_assert_eq!(header.transport_sequence(&out, 3), Some(0x7777));
            next_rtx += 1;
            let original_header = Header::parse(original).unwrap();
            if original_header.payload().is_empty() {
                continue;
            }
            // A receiver that missed the packet gets it back, but for the transport-wide number.
            let (mut stream, mut rebuilt) = (Stream::new(receiver), Vec::new());
            let restored = stream.receive_rtx(world.now, &header, &out, 120, &mut rebuilt);
            let is_repaired = matches!(restored, Ok(Rtx::Repaired { .. }));
            prop_assert!(is_repaired, "{:?}", restored);
            let restored = Header::parse(&rebuilt).unwrap();
            prop_assert_eq!(restored.payload_of(&rebuilt), original_header.payload_of(original));
            prop_assert_eq!(restored.text(&rebuilt, 4), original_header.text(original, 4));
            prop_assert_eq!(
                (restored.sequence, restored.timestamp, restored.marker),
                (original_header.sequence, original_header.timestamp, original_header.marker)
            );
        }
    }
}
