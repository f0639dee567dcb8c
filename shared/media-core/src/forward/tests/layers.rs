//! Streams with layers: what a subscriber gets of them can always be decoded, whatever is wished when.
//!
//! A made-up encoder sends whole pictures in the patterns that real ones use. Behind the codec's own words each packet names
//! its frame and the frames that this one needs, and a decoder that reads nothing else checks that they came before.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::rtp::{dependency::tests::Pattern, vp9};

const DEPENDENCY_ID: u8 = 12;
const SENT_DEPENDENCY_ID: u8 = 6;

/// How an encoder tells of its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    Dependency,
    Vp8,
    /// With a group of pictures that both sides know, or each picture naming its references.
    Vp9 {
        flexible: bool,
    },
}

impl Words {
    fn codec(self) -> Codec {
        match self {
            Self::Dependency => Codec::Av1,
            Self::Vp8 => Codec::Vp8,
            Self::Vp9 { .. } => Codec::Vp9,
        }
    }
}

/// A frame by picture and spatial layer.
type FrameName = (u32, u8);

struct Encoder {
    pattern: Pattern,
    words: Words,
    stream: Stream,
    id: StreamId,
    ssrc: u32,
    sequence: u16,
    picture: u32,
    /// Number of the last key picture.
    key: u32,
    base_layer_index: u8,
    /// Spatial layers that are switched on.
    sent_layers: u8,
}

impl Encoder {
    fn new(id: u8, pattern: Pattern, words: Words) -> Self {
        let ssrc = 500 + u32::from(id);
        let dependency_id = (words == Words::Dependency).then_some(DEPENDENCY_ID);
        let repair = Repairing::Unavailable;
        let config = StreamConfig { ssrc, codec: words.codec(), clock_rate: 90_000, repair, dependency_id };
        Self {
            pattern,
            words,
            stream: Stream::new(config),
            id: StreamId(id),
            ssrc,
            sequence: 65_400 + u16::from(id),
            // Near the wraps of seven, fifteen and sixteen bits.
            picture: 0x7fe0 + 9 * u32::from(id),
            key: 0,
            base_layer_index: 250,
            sent_layers: pattern.spatial_layers,
        }
    }

    fn timestamp(&self) -> u32 {
        self.picture.wrapping_mul(3_000).wrapping_add(u32::from(self.id.0) << 28)
    }

    /// The packets of the next picture, two for each frame.
    fn picture(&mut self, keyframe: bool) -> Vec<Vec<u8>> {
        self.picture += 1;
        if keyframe {
            self.key = self.picture;
        }
        let since_key = self.picture - self.key;
        if self.pattern.temporal_of(since_key) == 0 {
            self.base_layer_index = self.base_layer_index.wrapping_add(1);
        }
        let frames = (0..self.sent_layers).flat_map(|spatial| [(spatial, true), (spatial, false)]);
        let packets: Vec<_> = frames.map(|(spatial, first)| self.packet(since_key, spatial, first)).collect();
        packets
    }

    fn packet(&mut self, since_key: u32, spatial: u8, first: bool) -> Vec<u8> {
        let is_last = !first && spatial + 1 == self.sent_layers;
        let mut packet = vec![0x90, if is_last { 0x80 | 96 } else { 96 }];
        packet.extend_from_slice(&self.sequence.to_be_bytes());
        packet.extend_from_slice(&self.timestamp().to_be_bytes());
        packet.extend_from_slice(&self.ssrc.to_be_bytes());
        self.sequence = self.sequence.wrapping_add(1);
        let mut elements = Vec::new();
        if self.words == Words::Dependency {
            let number = self.picture * u32::from(self.pattern.spatial_layers) + u32::from(spatial);
            let data = self.pattern.descriptor(number as u16, since_key, spatial, first, !first);
            elements = [&[DEPENDENCY_ID, data.len() as u8][..], &data].concat();
        }
        elements.resize(elements.len().next_multiple_of(4), 0);
        packet.extend_from_slice(&[0x10, 0x00, 0, (elements.len() / 4) as u8]);
        packet.extend_from_slice(&elements);
        packet.extend_from_slice(&self.payload_descriptor(since_key, spatial, first));
        packet.extend_from_slice(&content(self.picture, spatial, &self.names(since_key, spatial), self.id.0));
        packet
    }

    fn names(&self, since_key: u32, spatial: u8) -> Vec<FrameName> {
        let references = self.pattern.references(since_key, spatial).into_iter();
        references.map(|(back, spatial)| (self.picture - back, spatial)).collect()
    }

    fn payload_descriptor(&self, since_key: u32, spatial: u8, first: bool) -> Vec<u8> {
        let temporal = self.pattern.temporal_of(since_key);
        let [high, low] = (self.picture as u16 & 0x7fff | 0x8000).to_be_bytes();
        match self.words {
            // A new coded sequence, or a whole unit.
            Words::Dependency => vec![if since_key == 0 && spatial == 0 && first { 0x18 } else { 0x10 }],
            Words::Vp8 => {
                // The first picture of each temporal layer after a base picture needs that alone.
                let needs_base_alone = temporal > 0 && since_key % 4 < 3;
                let third = temporal << 6 | u8::from(needs_base_alone) << 5 | 0x03;
                let start = if first { 0x90 } else { 0x80 };
                vec![start, 0xf0, high, low, self.base_layer_index, third, u8::from(since_key > 0)]
            }
            Words::Vp9 { flexible } => {
                let references = self.pattern.references(since_key, spatial);
                let distances: Vec<u8> =
                    references.iter().filter(|(back, _)| *back > 0).map(|(back, _)| *back as u8).collect();
                let is_top = spatial + 1 == self.pattern.spatial_layers;
                let is_unneeded_above = is_top || (self.pattern.key_only && since_key > 0);
                let is_inter_layer = references.iter().any(|(back, _)| *back == 0);
                let set = |is: bool, bit: u8| if is { bit } else { 0 };
                let structure = since_key == 0 && spatial == 0 && first;
                let mut out = vec![
                    0xa0 | set(!distances.is_empty(), 0x40)
                        | set(flexible, 0x10)
                        | set(first, 0x08)
                        | set(!first, 0x04)
                        | set(structure, 0x02)
                        | set(is_unneeded_above, 0x01),
                    high,
                    low,
                    temporal << 5 | set(!flexible, 0x10) | spatial << 1 | set(is_inter_layer, 0x01),
                ];
                if flexible {
                    let count = distances.len();
                    out.extend(distances.iter().enumerate().map(|(n, back)| back << 1 | u8::from(n + 1 < count)));
                } else {
                    out.push(self.base_layer_index);
                }
                if structure {
                    out.push((self.sent_layers - 1) << 5);
                }
                out
            }
        }
    }
}

const CONTENT: [u8; 4] = *b"\xffBIT";

fn content(picture: u32, spatial: u8, references: &[FrameName], stream: u8) -> Vec<u8> {
    let mut out = CONTENT.to_vec();
    out.extend_from_slice(&[stream, references.len() as u8]);
    for (picture, spatial) in [(picture, spatial)].iter().chain(references) {
        out.extend_from_slice(&picture.to_be_bytes());
        out.push(*spatial);
    }
    out
}

/// What the decoder knows of one packet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    timestamp: u32,
    marker: bool,
    stream: u8,
    frame: FrameName,
    references: Vec<FrameName>,
    picture_id: Option<u16>,
    frame_number: Option<u16>,
}

/// `None` for a packet that only fills its place.
fn seen(packet: &[u8], words: Words) -> Option<Seen> {
    let header = Header::parse(packet).unwrap();
    let payload = header.payload_of(packet);
    let at = payload.windows(4).position(|window| window == CONTENT)?;
    let [stream, count, rest @ ..] = &payload[at + 4..] else { panic!("cut short") };
    let name = |name: &[u8]| (u32::from_be_bytes(name[..4].try_into().unwrap()), name[4]);
    let mut names = rest.chunks(5).map(name);
    let picture_id = match words {
        Words::Dependency => None,
        Words::Vp8 => Some(vp8::Descriptor::parse(payload).unwrap().picture_id.unwrap().value),
        Words::Vp9 { .. } => Some(vp9::Descriptor::parse(payload).unwrap().picture_id.unwrap().value),
    };
    let descriptor = header.extension(packet, SENT_DEPENDENCY_ID);
    assert_eq!(descriptor.is_some(), words == Words::Dependency);
    Some(Seen {
        timestamp: header.timestamp,
        marker: header.marker,
        stream: *stream,
        frame: names.next().unwrap(),
        references: names.take(usize::from(*count)).collect(),
        picture_id,
        frame_number: descriptor.map(|data| u16::from_be_bytes([data[1], data[2]])),
    })
}

/// Checks packets in the order of their numbers. Yields the layers of each picture: timestamp and frames.
fn decode(packets: &BTreeMap<u64, Vec<u8>>, words: Words) -> Vec<(u32, BTreeSet<(u8, FrameName)>)> {
    let mut pictures: Vec<(u32, BTreeSet<(u8, FrameName)>)> = Vec::new();
    let mut decoded: BTreeMap<(u8, FrameName), (Option<u16>, Option<u16>)> = BTreeMap::new();
    let mut ended = true;
    let mut last: Option<Seen> = None;
    for packet in packets.values() {
        let Some(now) = seen(packet, words) else { continue };
        let is_new = pictures.last().is_none_or(|(timestamp, _)| *timestamp != now.timestamp);
        assert_eq!(is_new, ended, "a picture has one end, which is marked: {now:?}");
        if is_new {
            pictures.push((now.timestamp, BTreeSet::new()));
        }
        ended = now.marker;
        for reference in &now.references {
            let known = decoded.get(&(now.stream, *reference));
            let (picture_id, frame_number) = known.unwrap_or_else(|| panic!("{reference:?} is missing for {now:?}"));
            // Distances stay what the encoder said, except where VP8's ids close up.
            if words != Words::Vp8 {
                let back =
                    |now: Option<u16>, then: Option<u16>| now.zip(then).map(|(now, then)| now.wrapping_sub(then));
                let pictures = (now.frame.0 - reference.0) as u16;
                assert!(back(now.picture_id, *picture_id).is_none_or(|back| back & 0x7fff == pictures), "{now:?}");
                assert!(back(now.frame_number, *frame_number).is_none_or(|back| back > 0 && back < 64), "{now:?}");
            }
        }
        if let Some(last) = last.filter(|last| words == Words::Vp8 && last.frame != now.frame) {
            let step = now.picture_id.unwrap().wrapping_sub(last.picture_id.unwrap()) & 0x7fff;
            assert_eq!(step, 1, "ids run on: {last:?}, {now:?}");
        }
        decoded.insert((now.stream, now.frame), (now.picture_id, now.frame_number));
        pictures.last_mut().unwrap().1.insert((now.stream, now.frame));
        last = Some(now);
    }
    pictures
}

struct Stage {
    now: Instant,
    forwarder: Forwarder,
    encoders: Vec<Encoder>,
    words: Words,
    sent: BTreeMap<u64, Vec<u8>>,
    asked: u32,
    /// Packets that come in late.
    held: Vec<(usize, Vec<u8>)>,
}

impl Stage {
    fn svc(pattern: Pattern, words: Words) -> Self {
        Self::new(Layering::Svc, vec![Encoder::new(0, pattern, words)])
    }

    fn new(layering: Layering, encoders: Vec<Encoder>) -> Self {
        let words = encoders[0].words;
        let now = Instant::now();
        let dependency = Some(PassedExtension { from: DEPENDENCY_ID, to: SENT_DEPENDENCY_ID });
        let header = OutgoingHeader { dependency, ..NO_MID };
        let config = ForwarderConfig { layering, header, ..config(words.codec()) };
        let forwarder = Forwarder::new(now, config);
        Self { now, forwarder, encoders, words, sent: BTreeMap::new(), asked: 0, held: Vec::new() }
    }

    fn want(&mut self, spatial: u8, temporal: u8) {
        self.forwarder.set_target(Target::Layer(LayerId::new(spatial, temporal)));
    }

    /// One picture of each encoder; key pictures on request.
    fn picture(&mut self) {
        self.picture_losing(|_| false);
    }

    fn picture_losing(&mut self, is_held: impl Fn(usize) -> bool) {
        let wanted = self.forwarder.needs_keyframe();
        self.asked += u32::from(wanted.is_some());
        for at in 0..self.encoders.len() {
            let first = self.encoders[at].key == 0;
            let packets = self.encoders[at].picture(first || wanted == Some(StreamId(at as u8)));
            for (n, packet) in packets.into_iter().enumerate() {
                if is_held(n) { self.held.push((at, packet)) } else { self.offer(at, &packet) }
            }
        }
        self.now += FRAME;
    }

    fn offer(&mut self, at: usize, packet: &[u8]) {
        let encoder = &mut self.encoders[at];
        let header = Header::parse(packet).unwrap();
        let ingested = encoder.stream.receive(self.now, self.now, &header, packet).unwrap();
        let origin = origin(&encoder.stream);
        let Ok(rewritten) = self.forwarder.forward(self.now, encoder.id, origin, &header, &ingested) else { return };
        let mut out = Vec::new();
        let written = self.forwarder.write(&rewritten, &header, packet, |_| None, &mut out);
        assert!(self.sent.insert(written.extended, out).is_none(), "number {} was used twice", written.extended);
    }

    fn assert_no_gap(&self) {
        let numbers: Vec<u64> = self.sent.keys().copied().collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    }

    /// Spatial and temporal layers of what came in the last pictures, by the names of their frames.
    fn newest(&self, pictures: usize) -> Vec<(u8, u8)> {
        let all = decode(&self.sent, self.words);
        let temporal = |stream: u8, picture: u32| {
            let encoder = &self.encoders[usize::from(stream)];
            encoder.pattern.temporal_of(picture - encoder.key)
        };
        let from = self.encoders[0].picture.saturating_sub(pictures as u32);
        let frames = all.iter().flat_map(|(_, frames)| frames).filter(|(_, (picture, _))| *picture > from);
        let layers: BTreeSet<_> =
            frames.map(|(stream, (picture, spatial))| (*spatial, temporal(*stream, *picture))).collect();
        layers.into_iter().collect()
    }
}

const SVC: [(Pattern, Words); 7] = [
    (Pattern::L3T3, Words::Dependency),
    (Pattern::L3T3_KEY, Words::Dependency),
    (Pattern::L3T3, Words::Vp9 { flexible: false }),
    (Pattern::L3T3_KEY, Words::Vp9 { flexible: false }),
    (Pattern::L3T3_KEY, Words::Vp9 { flexible: true }),
    (Pattern::L1T3, Words::Dependency),
    (Pattern::L1T3, Words::Vp9 { flexible: false }),
];

/// What of a pattern belongs to a layer, away from key pictures.
fn belongs(pattern: Pattern, spatial: u8, temporal: u8) -> Vec<(u8, u8)> {
    let top = spatial.min(pattern.spatial_layers - 1);
    let from = if pattern.key_only { top } else { 0 };
    (from..=top).flat_map(|s| (0..=temporal.min(2)).map(move |t| (s, t))).collect()
}

#[test]
fn a_layer_is_sent_with_what_it_needs_and_nothing_else() {
    for (pattern, words) in SVC {
        for spatial in 0..3 {
            for temporal in [0, 1, 3] {
                let mut stage = Stage::svc(pattern, words);
                stage.want(spatial, temporal);
                for _ in 0..21 {
                    stage.picture();
                }
                stage.assert_no_gap();
                let name = format!("{pattern:?} {words:?} {spatial} {temporal}");
                assert_eq!(stage.newest(8), belongs(pattern, spatial, temporal), "{name}");
                assert_eq!(stage.asked, 1, "{name}: the first one only");
            }
        }
    }
}

#[test]
fn layers_are_gone_over_to_where_that_can_be_decoded() {
    for (pattern, words) in SVC {
        let mut stage = Stage::svc(pattern, words);
        for (spatial, temporal) in [(0, 3), (2, 3), (1, 0), (1, 3), (0, 1), (2, 0), (0, 0), (0, 3), (2, 3), (1, 1)] {
            stage.want(spatial, temporal);
            for _ in 0..21 {
                stage.picture();
            }
            let name = format!("{pattern:?} {words:?} {spatial} {temporal}");
            stage.assert_no_gap();
            assert_eq!(stage.newest(8), belongs(pattern, spatial, temporal), "{name}");
        }
    }
}

#[test]
fn going_down_needs_a_key_picture_only_where_lower_layers_were_kept_back() {
    for (pattern, words) in SVC {
        for (from, to) in [((2, 3), (0, 3)), ((2, 3), (2, 0)), ((2, 0), (2, 3)), ((1, 3), (2, 3))] {
            let mut stage = Stage::svc(pattern, words);
            stage.want(from.0, from.1);
            for _ in 0..10 {
                stage.picture();
            }
            assert_eq!(stage.asked, 1);
            stage.want(to.0, to.1);
            for _ in 0..10 {
                stage.picture();
            }
            let is_spatial = pattern.spatial_layers > 1 && from.0 != to.0;
            let needs_key = is_spatial && (pattern.key_only || to.0 > from.0);
            assert_eq!(stage.asked, 1 + u32::from(needs_key), "{pattern:?} {words:?} {from:?} {to:?}");
        }
    }
}

#[test]
fn a_layer_that_an_encoder_switches_off_and_on_does_not_stop_the_picture() {
    for (pattern, words) in
        SVC.into_iter().filter(|(pattern, words)| pattern.spatial_layers == 3 && *words != Words::Dependency)
    {
        let mut stage = Stage::svc(pattern, words);
        stage.want(2, 3);
        for sent_layers in [3, 1, 2, 3] {
            let encoder = &mut stage.encoders[0];
            // Encoders begin a layer with a key picture, and end it anywhere.
            encoder.key *= u32::from(sent_layers <= encoder.sent_layers);
            encoder.sent_layers = sent_layers;
            for _ in 0..30 {
                stage.picture();
            }
            let expected = belongs(pattern, sent_layers - 1, 3);
            assert_eq!(stage.newest(8), expected, "{pattern:?} {words:?} {sent_layers}");
        }
        stage.assert_no_gap();
        assert!(stage.asked <= 5, "{}", stage.asked);
    }
}

#[test]
fn vp8_pictures_are_left_out_by_their_temporal_layer_and_ids_close_up() {
    let simulcast = |id| Encoder::new(id, Pattern::L1T3, Words::Vp8);
    let mut stage = Stage::new(Layering::Simulcast, vec![simulcast(0), simulcast(1)]);
    for (spatial, temporal) in [(0, 3), (0, 0), (1, 1), (1, 3), (1, 0), (0, 1), (0, 3)] {
        stage.want(spatial, temporal);
        for _ in 0..21 {
            stage.picture();
        }
        let sent = decode(&stage.sent, Words::Vp8);
        let temporals: BTreeSet<u8> = sent[sent.len() - 4..]
            .iter()
            .flat_map(|(_, frames)| frames)
            .map(|(stream, (picture, _))| {
                assert_eq!(*stream, spatial);
                Pattern::L1T3.temporal_of(picture - stage.encoders[usize::from(spatial)].key)
            })
            .collect();
        assert_eq!(temporals.into_iter().max(), Some(temporal.min(2)), "{spatial} {temporal}");
        stage.assert_no_gap();
    }
}

#[test]
fn simulcast_of_vp9_and_av1_switches_at_key_pictures_and_counters_run_on() {
    for words in [Words::Dependency, Words::Vp9 { flexible: false }, Words::Vp9 { flexible: true }] {
        let encoder = |id| Encoder::new(id, Pattern::L1T3, words);
        let mut stage = Stage::new(Layering::Simulcast, vec![encoder(0), encoder(1), encoder(2)]);
        for wanted in [1, 2, 0, 2, 1, 0] {
            stage.want(wanted, 3);
            for _ in 0..9 {
                stage.picture();
            }
            let sent = decode(&stage.sent, words);
            assert!(sent.last().unwrap().1.iter().all(|(stream, _)| *stream == wanted), "{words:?} {wanted}");
            stage.assert_no_gap();
        }
        let all: Vec<_> = stage.sent.values().filter_map(|packet| seen(packet, words)).collect();
        for pair in all.windows(2).filter(|pair| pair[0].stream != pair[1].stream) {
            let step =
                |of: fn(&Seen) -> Option<u16>| of(&pair[1]).zip(of(&pair[0])).map(|(now, then)| now.wrapping_sub(then));
            assert!(step(|seen| seen.picture_id).is_none_or(|step| step & 0x7fff == 1), "{pair:?}");
            assert!(step(|seen| seen.frame_number).is_none_or(|step| step == 1), "{pair:?}");
        }
    }
}

#[test]
fn subscribers_are_told_which_layers_to_expect() {
    let mut stage = Stage::svc(Pattern::L3T3_KEY, Words::Dependency);
    let mut told = Vec::new();
    for (spatial, temporal) in [(2, 3), (0, 3), (1, 1)] {
        stage.want(spatial, temporal);
        stage.sent.clear();
        for _ in 0..8 {
            stage.picture();
        }
        let structure = stage.encoders[0].stream.structure().unwrap();
        let packet = stage.sent.values().rev().find(|packet| {
            let header = Header::parse(packet).unwrap();
            header.extension(packet, SENT_DEPENDENCY_ID).unwrap()[0] & 0x80 != 0
        });
        let packet = packet.unwrap();
        let data = Header::parse(packet).unwrap().extension(packet, SENT_DEPENDENCY_ID).unwrap();
        let mandatory = dependency::Mandatory::parse(data).unwrap();
        told.push(structure.describe(&mandatory, data).unwrap().active.map(|layers| layers.iter().count()));
    }
    assert_eq!(told, [None, Some(3), Some(4)]);
}

#[test]
fn a_packet_that_comes_late_fills_its_number_whether_it_is_wanted_or_not() {
    for (pattern, words) in SVC {
        let mut stage = Stage::svc(pattern, words);
        stage.want(0, 0);
        for round in 0..40 {
            stage.picture_losing(|n| round % 4 == 3 && n % 2 == round / 4 % 2);
            for (at, packet) in std::mem::take(&mut stage.held) {
                stage.offer(at, &packet);
            }
        }
        // What the last picture held back may still be behind the newest number.
        stage.picture();
        stage.picture();
        stage.assert_no_gap();
    }
}

/// A structure that cannot be had, or nonsense in its place: nothing goes out that could not be decoded.
#[test]
fn frames_that_nobody_can_place_wait_for_a_key_picture() {
    let mut stage = Stage::svc(Pattern::L3T3, Words::Dependency);
    stage.want(2, 3);
    for _ in 0..5 {
        stage.picture();
    }
    let before = stage.sent.len();
    let mut packets = stage.encoders[0].picture(false);
    for packet in &mut packets {
        // Template ids of another structure.
        packet[18] = packet[18] & 0xc0 | 0x01;
        let packet = packet.clone();
        stage.offer(0, &packet);
    }
    assert_eq!(stage.sent.len(), before);
    assert_eq!(stage.forwarder.needs_keyframe(), Some(StreamId(0)));
    for _ in 0..5 {
        stage.picture();
    }
    assert_eq!(stage.forwarder.needs_keyframe(), None);
    stage.assert_no_gap();
    decode(&stage.sent, Words::Dependency);
}

fn repaired(stage: &mut Stage, number: u64) -> Option<Vec<u8>> {
    let repair = stage.forwarder.repair(stage.now, Duration::ZERO, number as u16).ok()?;
    let encoder = stage.encoders.iter().find(|encoder| encoder.ssrc == repair.source_ssrc)?;
    let packet = encoder.stream.store().get(repair.index)?.to_vec();
    let of_frame = encoder.stream.frame_number(&packet);
    let mut out = Vec::new();
    stage.forwarder.write_repair(stage.now, &repair, (&packet, of_frame), |_| None, &mut out)?;
    Some(out)
}

proptest! {
    #[test]
    fn whatever_is_wished_when_everything_sent_can_be_decoded(
        which in 0usize..SVC.len(),
        wishes in proptest::collection::vec((0u8..3, 0u8..4, 1usize..12), 1..12),
    ) {
        let (pattern, words) = SVC[which];
        let mut stage = Stage::svc(pattern, words);
        for (spatial, temporal, pictures) in wishes {
            stage.want(spatial, temporal);
            for _ in 0..pictures {
                stage.picture();
            }
        }
        stage.assert_no_gap();
        decode(&stage.sent, words);
    }

    /// With one key, another packet under the same number would be sealed with the same nonce.
    #[test]
    fn a_repair_without_rtx_is_the_same_bytes(
        which in 0usize..SVC.len() + 1,
        wishes in proptest::collection::vec((0u8..3, 0u8..4, 1usize..9, any::<u8>()), 1..12),
    ) {
        let (pattern, words) = SVC.get(which).copied().unwrap_or((Pattern::L1T3, Words::Vp8));
        let mut stage = Stage::svc(pattern, words);
        let mut repairs = 0;
        for (spatial, temporal, pictures, fate) in wishes {
            stage.want(spatial, temporal);
            for _ in 0..pictures {
                stage.picture_losing(|n| fate.rotate_left(n as u32) < 30);
            }
            for (at, packet) in std::mem::take(&mut stage.held) {
                stage.offer(at, &packet);
            }
            stage.now += Duration::from_secs(2);
            let recent: Vec<u64> = stage.sent.keys().rev().take(60).copied().collect();
            for number in recent {
                let again = repaired(&mut stage, number);
                repairs += u32::from(again.is_some());
                prop_assert!(again.as_ref().is_none_or(|again| *again == stage.sent[&number]), "{number}");
            }
        }
        prop_assert!(repairs > 0 || stage.sent.is_empty(), "nothing was repaired");
    }
}
