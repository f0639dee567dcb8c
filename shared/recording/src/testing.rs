//! Senders, for tests: pictures that look like each codec's, and their packets, written without the code that reads them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use plenary_model::Codec;

use crate::track::{Packet, Size};

pub(crate) const VIDEO: [Codec; 4] = [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1];
pub(crate) const SIZE: Size = Size { width: 322, height: 182 };

/// x264, 322×182 in 4:2:2 with ten bits.
pub(crate) const SPS: &str = "677a000cb6cd941519e222f0110000030001000003000a0f142996";
pub(crate) const PPS: &str = "68ebe3cb22c0";
/// What ffmpeg makes of the two.
pub(crate) const AVCC: &str =
    "017a000cffe1001b677a000cb6cd941519e222f0110000030001000003000a0f14299601000668ebe3cb22c0fefafa00";
/// SVT-AV1, 322×182 with ten bits, without a size of the OBU; and what ffmpeg makes of it.
pub(crate) const SEQUENCE_HEADER: &str = "08000000043d06d4fbf94040";
pub(crate) const AV1C: &str = "81004c000a0b000000043d06d4fbf94040";

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.number() % end.max(1)
    }

    /// True so many times in a hundred.
    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.number() as u8).collect()
    }
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Where virtual time begins: late enough to go back from.
#[allow(clippy::disallowed_methods, reason = "one reading of the clock starts virtual time")]
pub(crate) fn start() -> Instant {
    Instant::now() + Duration::from_secs(100_000)
}

/// What an encoder gave out: NAL units, OBUs without sizes, or one unit of the other codecs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) is_key: bool,
    pub(crate) units: Vec<Vec<u8>>,
}

impl Picture {
    /// A picture of [`SIZE`], of about so many bytes.
    pub(crate) fn new(codec: Codec, is_key: bool, bytes: usize, random: &mut Random) -> Self {
        let body = random.bytes(bytes);
        let with = |head: &[u8]| [head, &body].concat();
        let units = match (codec, is_key) {
            (Codec::Opus | Codec::Red, _) => vec![with(&[0xfc])],
            (Codec::Vp8, true) => vec![with(&[0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x42, 0x01, 0xb6, 0x00])],
            (Codec::Vp8, false) => vec![with(&[0x11, 0, 0])],
            // 320 + 1 and 180 + 1 after four bits of colour.
            (Codec::Vp9, true) => vec![with(&[0x82, 0x49, 0x83, 0x42, 0x20, 0x14, 0x10, 0x0b, 0x50])],
            (Codec::Vp9, false) => vec![with(&[0x86])],
            (Codec::H264, true) => vec![hex(SPS), hex(PPS), vec![0x06, 5, 1, 9, 0x80], with(&[0x65, 0x88])],
            (Codec::H264, false) => vec![with(&[0x41, 0x9a])],
            (Codec::Av1, true) => vec![hex(SEQUENCE_HEADER), vec![0x28, 4, 1, 2, 3], with(&[0x30, 0x10])],
            (Codec::Av1, false) => vec![with(&[0x30, 0x30])],
        };
        Self { is_key, units }
    }

    /// As a file has it.
    pub(crate) fn in_file(&self, codec: Codec) -> Vec<u8> {
        let mut file = Vec::new();
        for unit in &self.units {
            match codec {
                Codec::H264 => {
                    file.extend((unit.len() as u32).to_be_bytes());
                    file.extend(unit);
                }
                Codec::Av1 => {
                    file.push(unit[0] | 0x02);
                    put_leb128(unit.len() - 1, &mut file);
                    file.extend(&unit[1..]);
                }
                Codec::Opus | Codec::Red | Codec::Vp8 | Codec::Vp9 => file.extend(unit),
            }
        }
        file
    }
}

/// Cuts pictures into packets.
pub(crate) struct Sender {
    pub(crate) codec: Codec,
    pub(crate) ssrc: u32,
    pub(crate) sequence: u16,
    pub(crate) payload_bytes_max: usize,
    pub(crate) random: Random,
}

impl Sender {
    pub(crate) fn new(codec: Codec, seed: u64) -> Self {
        Self { codec, ssrc: 1, sequence: 65_500, payload_bytes_max: 100, random: Random(seed) }
    }

    pub(crate) fn picture(&mut self, is_key: bool) -> Picture {
        let bytes = self.random.below(6 * self.payload_bytes_max as u64) as usize;
        let mut picture = Picture::new(self.codec, is_key, bytes + 1, &mut self.random);
        // No frame of VP9 ends like an index.
        *picture.units.last_mut().unwrap().last_mut().unwrap() = 7;
        picture
    }

    pub(crate) fn packets(&mut self, picture: &Picture, timestamp: u32, received: Instant) -> Vec<Packet> {
        let payloads = match self.codec {
            Codec::Opus | Codec::Red => picture.units.clone(),
            Codec::Vp8 => self.chunks(&picture.units[0], |is_first, _| vec![if is_first { 0x10 } else { 0 }]),
            Codec::Vp9 => {
                let inter = if picture.is_key { 0 } else { 0x40 };
                self.chunks(&picture.units[0], |is_first, is_last| {
                    vec![inter | if is_first { 0x08 } else { 0 } | if is_last { 0x04 } else { 0 }]
                })
            }
            Codec::H264 => self.h264(&picture.units),
            Codec::Av1 => self.av1(picture),
        };
        let count = payloads.len();
        let packets = payloads.into_iter().enumerate().map(|(at, payload)| {
            let marker = self.codec != Codec::Opus && at + 1 == count;
            self.sequence = self.sequence.wrapping_add(1);
            let (ssrc, sequence, payload) = (self.ssrc, self.sequence, Bytes::from(payload));
            Packet { ssrc, sequence, timestamp, marker, payload, received }
        });
        packets.collect()
    }

    fn chunks(&self, unit: &[u8], descriptor: impl Fn(bool, bool) -> Vec<u8>) -> Vec<Vec<u8>> {
        let count = unit.len().div_ceil(self.payload_bytes_max);
        let chunks = unit.chunks(self.payload_bytes_max).enumerate();
        chunks.map(|(at, chunk)| [&descriptor(at == 0, at + 1 == count), chunk].concat()).collect()
    }

    /// Units that fit alone or together, the others in fragments.
    fn h264(&mut self, units: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        let mut together: Vec<&[u8]> = Vec::new();
        for unit in units {
            let is_long = unit.len() > self.payload_bytes_max;
            let sum: usize = together.iter().map(|unit| unit.len() + 2).sum();
            if is_long || sum + unit.len() + 3 > self.payload_bytes_max || self.random.percent(30) {
                payloads.extend(aggregate(&std::mem::take(&mut together)));
            }
            if !is_long {
                together.push(unit);
                continue;
            }
            let (head, body) = (unit[0], &unit[1..]);
            let count = body.len().div_ceil(self.payload_bytes_max);
            for (at, chunk) in body.chunks(self.payload_bytes_max).enumerate() {
                let marks = if at == 0 { 0x80 } else { 0 } | if at + 1 == count { 0x40 } else { 0 };
                payloads.push([&[head & 0xe0 | 28, marks | head & 0x1f], chunk].concat());
            }
        }
        payloads.extend(aggregate(&together));
        payloads
    }

    /// OBUs one behind the other, cut wherever a packet is full.
    fn av1(&mut self, picture: &Picture) -> Vec<Vec<u8>> {
        let mut packets: Vec<(bool, Vec<Vec<u8>>, bool)> = vec![(false, Vec::new(), false)];
        let mut room = self.payload_bytes_max;
        for unit in &picture.units {
            let mut unit = unit.clone();
            if self.random.percent(20) {
                let mut sized = vec![unit[0] | 0x02];
                put_leb128(unit.len() - 1, &mut sized);
                sized.extend(&unit[1..]);
                unit = sized;
            }
            let mut rest = &unit[..];
            loop {
                let (now, later) = rest.split_at(rest.len().min(room));
                room -= now.len();
                let packet = packets.last_mut().unwrap();
                packet.1.push(now.to_vec());
                rest = later;
                if rest.is_empty() {
                    break;
                }
                packet.2 = true;
                packets.push((true, Vec::new(), false));
                room = self.payload_bytes_max;
            }
            if room == 0 || self.random.percent(20) {
                packets.push((false, Vec::new(), false));
                room = self.payload_bytes_max;
            }
        }
        packets.retain(|(_, elements, _)| !elements.is_empty());
        let mut payloads = Vec::new();
        for (at, (continues, elements, goes_on)) in packets.into_iter().enumerate() {
            let counted = elements.len() <= 3 && self.random.percent(50);
            let mut payload = vec![
                u8::from(continues) << 7
                    | u8::from(goes_on) << 6
                    | if counted { (elements.len() as u8) << 4 } else { 0 }
                    | u8::from(at == 0 && picture.is_key) << 3,
            ];
            let count = elements.len();
            for (at, element) in elements.into_iter().enumerate() {
                if !counted || at + 1 < count {
                    put_leb128(element.len(), &mut payload);
                }
                payload.extend(element);
            }
            payloads.push(payload);
        }
        payloads
    }
}

fn aggregate(units: &[&[u8]]) -> Option<Vec<u8>> {
    match units {
        [] => None,
        [unit] => Some(unit.to_vec()),
        units => {
            let mut payload = vec![0x60 | 24];
            for unit in units {
                payload.extend((unit.len() as u16).to_be_bytes());
                payload.extend(*unit);
            }
            Some(payload)
        }
    }
}

fn put_leb128(mut value: usize, to: &mut Vec<u8>) {
    while value > 0x7f {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}
