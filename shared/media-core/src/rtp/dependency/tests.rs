//! Descriptors written by hand from the specification, the patterns that encoders use, and hostile bytes.

use proptest::prelude::*;

use super::*;
use crate::rtp::layers::LayerId;

/// One spatial layer with three temporal ones, as A.8.2 writes it: four templates, three decode targets, one chain.
const L1T3: [&str; 8] = [
    "1 1 000000 0000000000000101",            // a whole frame, template 0, frame 5
    "1 0 0 0 0",                              // with a structure
    "000000 00010",                           // template ids from 0, three decode targets
    "00 01 01 11",                            // layers: T0, T0, T1, T2, end
    "10 10 10  10 10 10  00 10 01  00 00 01", // SSS SSS -SD --D
    "0  1 0011 0  1 0001 0  1 0000 0",        // distances: none, 4, 2, 1
    "01  0000 0100 0010 0001",                // one chain (ns(4)); it protects every target, then its distances
    "1 0000010011111111 0000001011001111",    // 1280 by 720
];

fn bits(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_digit).map(|digit| digit - b'0').collect();
    digits.chunks(8).map(|byte| byte.iter().enumerate().fold(0, |sum, (at, bit)| sum | bit << (7 - at))).collect()
}

fn l1t3() -> Vec<u8> {
    bits(&L1T3.concat())
}

fn describe(structure: &Structure, data: &[u8]) -> Option<Described> {
    structure.describe(&Mandatory::parse(data)?, data)
}

fn layers(spatial: u8, temporal: &[u8]) -> Layers {
    temporal.iter().fold(Layers::NONE, |sum, temporal| sum.or(Layers::of(spatial, *temporal)))
}

#[test]
fn a_key_frame_brings_its_structure() {
    let data = l1t3();
    let mandatory = Mandatory::parse(&data).unwrap();
    assert!(mandatory.starts_frame && mandatory.ends_frame);
    assert_eq!(mandatory.frame_number, 5);
    let structure = Structure::of(&data).unwrap().unwrap();
    assert_eq!((structure.template_count, structure.target_count, structure.chain_count), (4, 3, 1));
    assert_eq!(structure.targets().collect::<Vec<_>>(), [(0, 0), (0, 1), (0, 2)]);
    assert_eq!(structure.sizes().collect::<Vec<_>>(), [(1_280, 720)]);
    let described = describe(&structure, &data).unwrap();
    let all = layers(0, &[0, 1, 2]);
    assert_eq!((described.present, described.switch, described.active), (all, all, Some(all)));
    assert_eq!(described.needs, Needs::NOTHING);
}

#[test]
fn later_packets_are_made_after_templates() {
    let structure = Structure::of(&l1t3()).unwrap().unwrap();
    for (data, temporal, present, switch, distance) in [
        ("1 1 000001 0000000000001001", 0, layers(0, &[0, 1, 2]), layers(0, &[0, 1, 2]), 4),
        ("1 1 000010 0000000000000111", 1, layers(0, &[1, 2]), layers(0, &[1]), 2),
        ("1 1 000011 0000000000000110", 2, layers(0, &[2]), Layers::NONE, 1),
    ] {
        let described = describe(&structure, &bits(data)).unwrap();
        assert_eq!((described.temporal, described.present, described.switch), (temporal, present, switch), "{data}");
        assert_eq!((described.active, described.needs.frames[..2].to_vec()), (None, vec![distance, 0]), "{data}");
    }
    assert_eq!(describe(&structure, &bits("1 1 000100 0000000000000110")), None, "a template there is not");
}

#[test]
fn a_packet_may_differ_from_its_template() {
    let structure = Structure::of(&l1t3()).unwrap().unwrap();
    // Active targets 0 and 1, own indications "-S-", own distances 3 (four bits) and 300 (twelve bits).
    let data = bits("1 0 000001 0000000000001001 0 1 1 1 0  011  00 10 00  01 0010  11 000100101011  00 0000000");
    let described = describe(&structure, &data).unwrap();
    assert_eq!(described.active, Some(layers(0, &[0, 1])));
    assert_eq!((described.present, described.switch), (layers(0, &[1]), layers(0, &[1])));
    assert_eq!(described.needs.frames[..3], [3, 300, 0]);
}

#[test]
fn a_structure_cut_short_is_none() {
    let data = l1t3();
    for bytes in 4..data.len() {
        assert_eq!(Structure::of(&data[..bytes]), None, "{bytes} bytes");
    }
    assert_eq!(Mandatory::parse(&data[..2]), None);
    assert_eq!(Structure::of(&data[..3]), Some(None), "no more than the mandatory fields");
}

fn change(structure: &Structure, temporal: u8) -> Change {
    Change { frame_number: 0, active: structure.active_up_to(0, temporal) }
}

#[test]
fn restricting_layers_says_so_where_frames_begin() {
    let structure = Structure::of(&l1t3()).unwrap().unwrap();
    let mut room = [0; EXTENSION_BYTES_MAX];
    for (temporal, active) in [(0, layers(0, &[0])), (1, layers(0, &[0, 1]))] {
        let key = l1t3();
        let restricted = change(&structure, temporal).apply(&key, &mut room).to_vec();
        assert_eq!(Structure::of(&restricted), Structure::of(&key));
        let mut described = describe(&structure, &restricted).unwrap();
        assert_eq!(described.active, Some(active));
        described.active = Some(layers(0, &[0, 1, 2]));
        assert_eq!(Some(described), describe(&structure, &key), "nothing else has changed");

        let short = bits("1 0 000001 0000000000001001");
        let restricted = change(&structure, temporal).apply(&short, &mut room).to_vec();
        assert_eq!(restricted.len(), 4);
        assert_eq!(describe(&structure, &restricted).unwrap().active, Some(active));
    }
    let middle = bits("0 0 000001 0000000000001001");
    assert_eq!(change(&structure, 0).apply(&middle, &mut room), middle);
    assert_eq!(structure.active_up_to(0, 2), None, "all of them is no restriction");
}

#[test]
fn what_a_publisher_switched_off_stays_off() {
    let structure = Structure::of(&l1t3()).unwrap().unwrap();
    // Targets 1 and 2 are active.
    let data = bits("1 0 000001 0000000000001001 0 1 0 0 0  110");
    let mut room = [0; EXTENSION_BYTES_MAX];
    let restricted = change(&structure, 1).apply(&data, &mut room);
    assert_eq!(describe(&structure, restricted).unwrap().active, Some(layers(0, &[1])));
}

#[test]
fn frame_numbers_are_shifted_and_wrap() {
    let data = bits("0 1 000001 1111111111111111");
    let mut room = [0; EXTENSION_BYTES_MAX];
    let shifted = Change { frame_number: 3, active: None }.apply(&data, &mut room);
    assert_eq!(shifted, bits("0 1 000001 0000000000000010"));
}

#[test]
fn numbers_below_a_limit_are_as_short_as_can_be() {
    // A.8.1 with five values: 0, 1 and 2 in two bits, 3 and 4 in three.
    for (text, value) in [("00", 0), ("01", 1), ("10", 2), ("110", 3), ("111", 4)] {
        let data = [vec![0; 3], bits(text)].concat();
        let mut from = Bits::after_mandatory(&data);
        assert_eq!(from.non_symmetric(5), Some(value), "{text}");
        assert_eq!(from.at, 24 + text.len());
    }
}

/// What an encoder with so many layers sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pattern {
    pub(crate) spatial_layers: u8,
    /// One or three.
    pub(crate) temporal_layers: u8,
    /// Spatial layers depend on each other in key pictures only.
    pub(crate) key_only: bool,
}

impl Pattern {
    pub(crate) const L1T3: Self = Self { spatial_layers: 1, temporal_layers: 3, key_only: false };
    pub(crate) const L3T3: Self = Self { spatial_layers: 3, temporal_layers: 3, key_only: false };
    pub(crate) const L3T3_KEY: Self = Self { spatial_layers: 3, temporal_layers: 3, key_only: true };
    pub(crate) const L2T1: Self = Self { spatial_layers: 2, temporal_layers: 1, key_only: false };

    pub(crate) fn temporal_of(self, since_key: u32) -> u8 {
        if self.temporal_layers == 1 { 0 } else { [0, 2, 1, 2][since_key as usize % 4] }
    }

    /// The pictures and layers that a frame needs, as (pictures back, spatial layer).
    pub(crate) fn references(self, since_key: u32, spatial: u8) -> Vec<(u32, u8)> {
        let pictures_back = match (self.temporal_layers, since_key % 4) {
            _ if since_key == 0 => None,
            (1, _) => Some(1),
            (_, 0) => Some(4),
            (_, 2) => Some(2),
            _ => Some(1),
        };
        let same_layer = pictures_back.map(|back| (back, spatial));
        let below = (spatial > 0 && (since_key == 0 || !self.key_only)).then(|| (0, spatial - 1));
        same_layer.into_iter().chain(below).collect()
    }

    /// The descriptor of one packet of a frame, number after number, spatial layer after spatial layer.
    pub(crate) fn descriptor(self, number: u16, since_key: u32, spatial: u8, starts: bool, ends: bool) -> Vec<u8> {
        let template = usize::from(spatial) * self.templates_per_layer() + self.template_within(since_key);
        let mut out = format!("{}{}{:06b}{number:016b}", u8::from(starts), u8::from(ends), template + TEMPLATE_OFFSET);
        if since_key == 0 && spatial == 0 && starts {
            out += "10000";
            out += &self.structure();
        }
        bits(&out)
    }

    fn templates_per_layer(self) -> usize {
        if self.temporal_layers == 1 { 2 } else { 4 }
    }

    fn template_within(self, since_key: u32) -> usize {
        match (since_key, self.temporal_of(since_key)) {
            (0, _) => 0,
            (_, temporal) => 1 + usize::from(temporal),
        }
    }

    fn structure(self) -> String {
        let targets = || (0..self.spatial_layers).flat_map(|s| (0..self.temporal_layers).map(move |t| (s, t)));
        // A key picture, then one of each temporal layer.
        let kinds: &[u32] = if self.temporal_layers == 1 { &[0, 1] } else { &[0, 4, 2, 1] };
        let templates = || (0..self.spatial_layers).flat_map(|s| kinds.iter().map(move |kind| (s, *kind)));
        let mut out = format!("{TEMPLATE_OFFSET:06b}{:05b}", targets().count() - 1);
        let layer_of = |(spatial, kind): (u8, u32)| (spatial, self.temporal_of(kind));
        let all: Vec<_> = templates().map(layer_of).collect();
        for pair in all.windows(2) {
            out += if pair[0].0 != pair[1].0 {
                "10"
            } else if pair[0].1 != pair[1].1 {
                "01"
            } else {
                "00"
            };
        }
        out += "11";
        for (spatial, kind) in templates() {
            for target in targets() {
                out += self.indication(spatial, kind, target);
            }
        }
        for (spatial, kind) in templates() {
            for (back, of) in self.references(kind, spatial) {
                let distance = back * u32::from(self.spatial_layers) + u32::from(spatial) - u32::from(of);
                out += &format!("1{:04b}", distance - 1);
            }
            out += "0";
        }
        // No chains, no sizes: ns(targets + 1) of zero.
        let width = (targets().count() as u32 + 1).ilog2();
        out += &"0".repeat(width as usize);
        out + "0"
    }

    fn indication(self, spatial: u8, kind: u32, (target_spatial, target_temporal): (u8, u8)) -> &'static str {
        let temporal = self.temporal_of(kind);
        let is_apart = self.key_only && kind != 0 && target_spatial != spatial;
        if target_spatial < spatial || target_temporal < temporal || is_apart {
            "00"
        } else if kind == 0 || (target_spatial == spatial && (temporal == 0 || temporal < target_temporal)) {
            "10"
        } else if target_spatial == spatial {
            "01"
        } else {
            "11"
        }
    }
}

/// Where template ids begin: not at zero, as encoders do after their first structure.
const TEMPLATE_OFFSET: usize = 37;

#[test]
fn patterns_are_understood_as_they_are_meant() {
    for pattern in [Pattern::L1T3, Pattern::L3T3, Pattern::L3T3_KEY, Pattern::L2T1] {
        let key = pattern.descriptor(0, 0, 0, true, true);
        let structure = Structure::of(&key).unwrap().unwrap();
        for since_key in 0..8 {
            for spatial in 0..pattern.spatial_layers {
                let data = pattern.descriptor(9, since_key, spatial, true, false);
                let described = describe(&structure, &data).unwrap();
                assert_eq!((described.spatial, described.temporal), (spatial, pattern.temporal_of(since_key)));
                let meant: Vec<u16> = pattern
                    .references(since_key, spatial)
                    .iter()
                    .map(|(back, of)| (back * u32::from(pattern.spatial_layers)) as u16 + u16::from(spatial - of))
                    .collect();
                assert_eq!(described.needs.frames[..meant.len()], meant, "{pattern:?} {since_key} {spatial}");
                let own = LayerId::new(spatial, pattern.temporal_layers - 1);
                assert!(described.present.contains(own), "{pattern:?} {since_key} {spatial}");
                let above = LayerId::new(pattern.spatial_layers - 1, pattern.temporal_layers - 1);
                let is_apart = pattern.key_only && since_key > 0 && above.spatial() != spatial;
                assert_eq!(described.present.contains(above), !is_apart, "{pattern:?} {since_key} {spatial}");
            }
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..256), mask in any::<(u32, u8)>()) {
        let structure = Structure::of(&l1t3()).unwrap().unwrap();
        let _ = describe(&structure, &data);
        if let Some(Some(own)) = Structure::of(&data) {
            let _ = describe(&own, &data);
            prop_assert!(own.sizes().count() <= SPATIAL_LAYERS_MAX);
        }
        let active = ActiveTargets { bits: mask.0, count: mask.1 % 33 };
        let change = Change { frame_number: 0, active: Some(active) };
        let mut room = [0; EXTENSION_BYTES_MAX];
        let once = change.apply(&data, &mut room).to_vec();
        let twice = change.apply(&once, &mut room).to_vec();
        prop_assert_eq!(once, twice, "writing it again changes nothing");
    }

    #[test]
    fn mutated_descriptors_never_panic(
        flips in proptest::collection::vec(0usize..80 * 8, 0..6),
        key_only in any::<bool>(),
        length in 3usize..100,
    ) {
        let pattern = Pattern { key_only, ..Pattern::L3T3 };
        let mut data = pattern.descriptor(7, 0, 0, true, false);
        for flip in flips {
            let at = flip / 8 % data.len();
            data[at] ^= 1 << (flip % 8);
        }
        data.truncate(length);
        if let Some(Some(structure)) = Structure::of(&data) {
            let change = Change { frame_number: 9, active: structure.active_up_to(0, 1) };
            let mut room = [0; EXTENSION_BYTES_MAX];
            let changed = change.apply(&data, &mut room).to_vec();
            prop_assert_eq!(Structure::of(&changed), Some(Some(structure)));
        }
    }
}
