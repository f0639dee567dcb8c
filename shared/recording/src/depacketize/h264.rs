//! H.264 (RFC 6184, packetization modes 0 and 1): a frame is an access unit, each NAL unit behind its length in four bytes.
//!
//! Parameter sets stay where they were sent, so that a change of size inside the file works; those of a key frame are also
//! its `avcC`. Access unit delimiters and filler are left out.

use bytes::{BufMut, Bytes};

use super::{Buffer, Finished, Format, Malformed, bits::Bits, check_size};
use crate::track::Size;

#[derive(Debug, Default)]
pub(super) struct H264 {
    /// Where the length of the fragmented unit is to be written.
    fragmented: Option<usize>,
    is_after_hole: bool,
    parameters: Parameters,
    /// The last key frame came with its parameter sets, so every one does.
    sends_parameters: bool,
}

/// What key frames refer to; the newest of each id.
#[derive(Debug, Default)]
struct Parameters {
    sequence: Vec<Vec<u8>>,
    picture: Vec<Vec<u8>>,
}

impl Format for H264 {
    fn begin(&mut self, payload: &[u8], is_after_hole: bool) -> bool {
        self.is_after_hole = is_after_hole;
        begins_access_unit(payload)
    }

    fn append(&mut self, payload: &[u8], frame: &mut Buffer) -> Result<(), Malformed> {
        let (&first, rest) = payload.split_first().ok_or(Malformed::EmptyUnit)?;
        let nal_type = first & NAL_TYPE_MASK;
        if nal_type != FU_A && self.fragmented.is_some() {
            return Err(Malformed::FragmentNotEnded);
        }
        match nal_type {
            STAP_A => append_aggregated(rest, frame),
            FU_A => self.append_fragment(first, rest, frame),
            _ => append_unit(payload, frame),
        }
    }

    fn finish(&mut self, frame: &mut Buffer) -> Result<Option<Finished>, Malformed> {
        if self.fragmented.take().is_some() {
            return Err(Malformed::FragmentNotEnded);
        }
        let (mut has_slice, mut has_idr, mut has_sequence) = (false, false, false);
        for unit in units(&frame.bytes) {
            match unit.first().map(|first| first & NAL_TYPE_MASK) {
                Some(SLICE) => has_slice = true,
                Some(IDR_SLICE) => has_idr = true,
                Some(SEQUENCE_PARAMETERS) => {
                    has_sequence = true;
                    // Also one that no key frame uses yet.
                    SequenceParameters::read(unit).map_or(Ok(()), |read| check_size(read.coded))?;
                    keep_newest(&mut self.parameters.sequence, unit, SEQUENCE_PARAMETERS)?;
                }
                Some(PICTURE_PARAMETERS) => keep_newest(&mut self.parameters.picture, unit, PICTURE_PARAMETERS)?,
                _ => {}
            }
        }
        if !has_idr && !has_slice {
            // Parameter sets that were sent ahead stay in front of the next frame.
            return if frame.len() <= AHEAD_BYTES_MAX { Ok(None) } else { Err(Malformed::NoPicture) };
        }
        if !has_idr {
            return Ok(Some(Finished::default()));
        }
        // Those that belong to it were in the hole before it.
        if self.is_after_hole && self.sends_parameters && !has_sequence {
            return Ok(Some(Finished::default()));
        }
        let Some((newest, codec_private)) = self.parameters.newest_and_avcc()? else {
            return Ok(Some(Finished::default()));
        };
        self.sends_parameters = has_sequence;
        let size = Some(newest.size);
        Ok(Some(Finished { is_key: true, size, codec_private: Some(codec_private), ..Finished::default() }))
    }

    fn clear(&mut self) {
        self.fragmented = None;
    }
}

impl H264 {
    /// FU-A (5.8).
    fn append_fragment(&mut self, indicator: u8, fragment: &[u8], frame: &mut Buffer) -> Result<(), Malformed> {
        let (&header, data) = fragment.split_first().ok_or(Malformed::Truncated)?;
        let (begins, ends) = (header & 0x80 != 0, header & 0x40 != 0);
        if begins {
            if self.fragmented.replace(frame.len()).is_some() {
                return Err(Malformed::FragmentNotEnded);
            }
            let nal_type = header & NAL_TYPE_MASK;
            if !is_single_unit(nal_type) {
                return Err(Malformed::NalType(nal_type));
            }
            frame.put(&[0; LENGTH_BYTES])?;
            frame.put(&[indicator & !NAL_TYPE_MASK | nal_type])?;
        }
        let at = self.fragmented.ok_or(Malformed::FragmentNotBegun)?;
        frame.put(data)?;
        if ends {
            self.fragmented = None;
            let begin = at.saturating_add(LENGTH_BYTES);
            // The first fragment has said what it is; the others repeat it or are wrong.
            if frame.bytes.get(begin).is_some_and(|first| is_left_out(first & NAL_TYPE_MASK)) {
                frame.bytes.truncate(at);
                return Ok(());
            }
            let length = u32::try_from(frame.len().saturating_sub(begin)).map_err(|_| Malformed::FrameTooLarge)?;
            if let Some(place) = frame.bytes.get_mut(at..begin) {
                place.copy_from_slice(&length.to_be_bytes());
            }
        }
        Ok(())
    }
}

/// Whether an access unit begins with this payload (7.4.1.2.3): by another unit than a slice, or the slice with the first
/// macroblock.
fn begins_access_unit(payload: &[u8]) -> bool {
    let Some((&first, rest)) = payload.split_first() else { return false };
    let (nal_type, body) = match (first & NAL_TYPE_MASK, rest) {
        (STAP_A, [_, _, unit, body @ ..]) => (unit & NAL_TYPE_MASK, body),
        (FU_A, [header, body @ ..]) if header & 0x80 != 0 => (header & NAL_TYPE_MASK, body),
        (FU_A, _) => return false,
        (nal_type, body) => (nal_type, body),
    };
    match nal_type {
        // first_mb_in_slice is 0, which is written as one set bit.
        SLICE | IDR_SLICE => body.first().is_some_and(|byte| byte & 0x80 != 0),
        2..=4 => false,
        // What is refused is refused by its name.
        _ => true,
    }
}

/// STAP-A (5.7.1).
fn append_aggregated(mut units: &[u8], frame: &mut Buffer) -> Result<(), Malformed> {
    if units.is_empty() {
        return Err(Malformed::EmptyUnit);
    }
    while !units.is_empty() {
        let (&length, rest) = units.split_first_chunk::<2>().ok_or(Malformed::Truncated)?;
        let length = usize::from(u16::from_be_bytes(length));
        let (unit, rest) = rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
        append_unit(unit, frame)?;
        units = rest;
    }
    Ok(())
}

fn append_unit(unit: &[u8], frame: &mut Buffer) -> Result<(), Malformed> {
    let nal_type = unit.first().ok_or(Malformed::EmptyUnit)? & NAL_TYPE_MASK;
    match nal_type {
        nal_type if is_left_out(nal_type) => return Ok(()),
        STAP_B => return Err(Malformed::StapB),
        MTAP16 => return Err(Malformed::Mtap16),
        MTAP24 => return Err(Malformed::Mtap24),
        FU_B => return Err(Malformed::FuB),
        nal_type if !is_single_unit(nal_type) => return Err(Malformed::NalType(nal_type)),
        _ => {}
    }
    let length = u32::try_from(unit.len()).map_err(|_| Malformed::FrameTooLarge)?;
    frame.put(&length.to_be_bytes())?;
    frame.put(unit)
}

/// Files have no use for it.
fn is_left_out(nal_type: u8) -> bool {
    matches!(nal_type, DELIMITER | FILLER)
}

/// RFC 6184 5.2, table 1.
fn is_single_unit(nal_type: u8) -> bool {
    (1..24).contains(&nal_type)
}

/// The units of a frame that was put together.
fn units(mut frame: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (&length, rest) = frame.split_first_chunk::<LENGTH_BYTES>()?;
        let (unit, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(length)).ok()?)?;
        frame = rest;
        Some(unit)
    })
}

/// The newest comes last; it takes the place of one with the same id.
fn keep_newest(sets: &mut Vec<Vec<u8>>, unit: &[u8], nal_type: u8) -> Result<(), Malformed> {
    if unit.len() > PARAMETER_SET_BYTES_MAX {
        return Err(Malformed::ParameterSet);
    }
    let id = parameter_set_id(unit, nal_type).ok_or(Malformed::ParameterSet)?;
    sets.retain(|set| parameter_set_id(set, nal_type) != Some(id));
    if sets.len() >= PARAMETER_SETS_MAX {
        sets.remove(0);
    }
    sets.push(unit.to_vec());
    Ok(())
}

fn parameter_set_id(unit: &[u8], nal_type: u8) -> Option<u32> {
    // 7.3.2.1.1: profile, constraints and level come first in an SPS.
    let before = if nal_type == SEQUENCE_PARAMETERS { 4 } else { 1 };
    Bits::new(unit.get(before..)?).exp_golomb()
}

impl Parameters {
    /// ISO/IEC 14496-15 5.3.3.1. `None` while there is nothing to decode by.
    fn newest_and_avcc(&self) -> Result<Option<(SequenceParameters, Bytes)>, Malformed> {
        let (Some(sequence), false) = (self.sequence.last(), self.picture.is_empty()) else { return Ok(None) };
        let read = SequenceParameters::read(sequence).ok_or(Malformed::ParameterSet)?;
        let &[_, profile, compatibility, level, ..] = sequence.as_slice() else { return Err(Malformed::ParameterSet) };
        let mut avcc = vec![1, profile, compatibility, level, 0xfc | LENGTH_SIZE_MINUS_ONE];
        put_sets(&mut avcc, 0xe0, &self.sequence)?;
        put_sets(&mut avcc, 0x00, &self.picture)?;
        // Baseline, Main and Extended have 4:2:0 with eight bits.
        if !matches!(profile, 66 | 77 | 88) {
            let depth = |minus_8: u32| u8::try_from(minus_8 & 0x07).unwrap_or_default();
            let chroma = u8::try_from(read.chroma_format & 0x03).unwrap_or_default();
            avcc.extend([
                0xfc | chroma,
                0xf8 | depth(read.luma_depth_minus_8),
                0xf8 | depth(read.chroma_depth_minus_8),
            ]);
            // No SPS extension: nothing in WebRTC has an alpha plane.
            avcc.push(0);
        }
        Ok(Some((read, avcc.into())))
    }
}

fn put_sets(avcc: &mut Vec<u8>, reserved: u8, sets: &[Vec<u8>]) -> Result<(), Malformed> {
    avcc.push(reserved | u8::try_from(sets.len()).map_err(|_| Malformed::ParameterSet)?);
    for set in sets {
        avcc.put_u16(u16::try_from(set.len()).map_err(|_| Malformed::ParameterSet)?);
        avcc.put_slice(set);
    }
    Ok(())
}

/// What a file says of a sequence parameter set (7.3.2.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SequenceParameters {
    chroma_format: u32,
    luma_depth_minus_8: u32,
    chroma_depth_minus_8: u32,
    size: Size,
    /// Before it is cropped.
    coded: Size,
}

impl SequenceParameters {
    /// From the unit with its header.
    fn read(unit: &[u8]) -> Option<Self> {
        let raw = without_emulation_prevention(unit);
        let &profile = raw.get(1)?;
        let mut bits = Bits::new(raw.get(4..)?);
        bits.exp_golomb()?;
        let (mut chroma_format, mut separate_planes) = (1, false);
        let (mut luma_depth_minus_8, mut chroma_depth_minus_8) = (0, 0);
        if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
            chroma_format = bits.exp_golomb().filter(|&format| format <= 3)?;
            if chroma_format == 3 {
                separate_planes = bits.bit()?;
            }
            luma_depth_minus_8 = bits.exp_golomb().filter(|&depth| depth <= 6)?;
            chroma_depth_minus_8 = bits.exp_golomb().filter(|&depth| depth <= 6)?;
            bits.skip(1)?;
            if bits.bit()? {
                skip_scaling_matrix(&mut bits, if chroma_format == 3 { 12 } else { 8 })?;
            }
        }
        bits.exp_golomb()?;
        match bits.exp_golomb()? {
            0 => {
                bits.exp_golomb()?;
            }
            1 => {
                bits.skip(1)?;
                bits.signed_exp_golomb()?;
                bits.signed_exp_golomb()?;
                for _ in 0..bits.exp_golomb().filter(|&count| count <= 255)? {
                    bits.signed_exp_golomb()?;
                }
            }
            _ => {}
        }
        bits.exp_golomb()?;
        bits.skip(1)?;
        let coded_width = macroblocks(&mut bits)?;
        let map_height = macroblocks(&mut bits)?;
        // Fields, of which two are a frame.
        let fields = if bits.bit()? { 1 } else { 2 };
        let coded = Size { width: coded_width, height: map_height.checked_mul(fields)? };
        if fields == 2 {
            bits.skip(1)?;
        }
        bits.skip(1)?;
        let (mut across, mut down) = (0, 0);
        if bits.bit()? {
            across = bits.exp_golomb()?.checked_add(bits.exp_golomb()?)?;
            down = bits.exp_golomb()?.checked_add(bits.exp_golomb()?)?;
        }
        // 6.2: cropping is counted in samples of chroma.
        let (unit_across, unit_down) = match chroma_format {
            1 => (2, 2),
            2 => (2, 1),
            _ => (1, 1),
        };
        let (unit_across, unit_down) = if separate_planes { (1, 1) } else { (unit_across, unit_down) };
        let width = coded.width.checked_sub(across.checked_mul(unit_across)?)?;
        let height = coded.height.checked_sub(down.checked_mul(unit_down)?.checked_mul(fields)?)?;
        let size = Size { width, height };
        (width > 0 && height > 0).then_some(Self {
            chroma_format,
            luma_depth_minus_8,
            chroma_depth_minus_8,
            size,
            coded,
        })
    }
}

/// A length in macroblocks of 16 pixels, less one.
fn macroblocks(bits: &mut Bits<'_>) -> Option<u32> {
    bits.exp_golomb()?.checked_add(1)?.checked_mul(16)
}

fn skip_scaling_matrix(bits: &mut Bits<'_>, lists: usize) -> Option<()> {
    for list in 0..lists {
        if !bits.bit()? {
            continue;
        }
        let (mut last, mut next) = (8i64, 8i64);
        for _ in 0..if list < 6 { 16 } else { 64 } {
            if next != 0 {
                next = last.saturating_add(bits.signed_exp_golomb()?).rem_euclid(256);
            }
            last = if next == 0 { last } else { next };
        }
    }
    Some(())
}

/// 7.4.1: after two zero bytes a byte of 3 is there only so that no start code is seen.
fn without_emulation_prevention(unit: &[u8]) -> Vec<u8> {
    let mut zeros = 0u8;
    let mut raw = Vec::with_capacity(unit.len());
    for &byte in unit {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros.saturating_add(1) } else { 0 };
        raw.push(byte);
    }
    raw
}

const NAL_TYPE_MASK: u8 = 0x1f;
const SLICE: u8 = 1;
const IDR_SLICE: u8 = 5;
const SEQUENCE_PARAMETERS: u8 = 7;
const PICTURE_PARAMETERS: u8 = 8;
const DELIMITER: u8 = 9;
const FILLER: u8 = 12;
const STAP_A: u8 = 24;
const STAP_B: u8 = 25;
const MTAP16: u8 = 26;
const MTAP24: u8 = 27;
const FU_A: u8 = 28;
const FU_B: u8 = 29;
const LENGTH_BYTES: usize = 4;
const LENGTH_SIZE_MINUS_ONE: u8 = 3;
const PARAMETER_SETS_MAX: usize = 8;
const PARAMETER_SET_BYTES_MAX: usize = 1_024;
/// Of parameter sets and the like before a picture: they are looked through with each access unit.
const AHEAD_BYTES_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    /// What x264 sends ahead of a key frame, and the `avcC` that ffmpeg makes of it.
    const REAL: [(u32, u32, &str, &str, &str); 6] = [
        (
            640,
            480,
            "6742c016d900a03db0110000030001000003000a0f162e48",
            "68cb83cb20",
            "0142c016ffe100186742c016d900a03db0110000030001000003000a0f162e4801000568cb83cb20",
        ),
        (
            1_280,
            720,
            "6764001facd9405005bb0110000003001000000300a0f1831960",
            "68ebe3cb22c0",
            "0164001fffe1001a6764001facd9405005bb0110000003001000000300a0f183196001000668ebe3cb22c0fdf8f800",
        ),
        (
            1_366,
            768,
            "674d4020eca02b030f3780880000030008000003005078c18cb0",
            "68ebe3cb20",
            "014d4020ffe1001a674d4020eca02b030f3780880000030008000003005078c18cb001000568ebe3cb20",
        ),
        // Interlaced.
        (
            1_920,
            1_080,
            "67640028acd94078044fde022000000300200000030143e2c5b2c0",
            "68fba3cb22c0",
            "01640028ffe1001b67640028acd94078044fde022000000300200000030143e2c5b2c001000668fba3cb22c0fdf8f800",
        ),
        // 4:2:2 with ten bits.
        (
            322,
            182,
            "677a000cb6cd941519e222f0110000030001000003000a0f142996",
            "68ebe3cb22c0",
            "017a000cffe1001b677a000cb6cd941519e222f0110000030001000003000a0f14299601000668ebe3cb22c0fefafa00",
        ),
        // 4:4:4.
        (
            322,
            182,
            "67f4000c919b282a33c7c5e022000003000200000300141e28532c",
            "68ebe3c44844",
            "01f4000cffe1001b67f4000c919b282a33c7c5e022000003000200000300141e28532c01000668ebe3c44844fff8f800",
        ),
    ];

    #[test]
    fn configuration_records_of_real_parameter_sets_are_what_ffmpeg_writes() {
        for (width, height, sequence, picture, avcc) in REAL {
            let parameters = Parameters { sequence: vec![hex(sequence)], picture: vec![hex(picture)] };
            let (read, written) = parameters.newest_and_avcc().unwrap().unwrap();
            assert_eq!(read.size, Size { width, height }, "{sequence}");
            assert_eq!(written, hex(avcc), "{sequence}");
        }
    }

    #[test]
    fn the_newest_parameter_set_of_an_id_counts() {
        let mut sets = Vec::new();
        // PPS 0, PPS 1, another PPS 0.
        for set in [[0x68, 0x80], [0x68, 0x40], [0x68, 0x81]] {
            keep_newest(&mut sets, &set, PICTURE_PARAMETERS).unwrap();
        }
        assert_eq!(sets, [[0x68, 0x40], [0x68, 0x81]]);
        // 00100000, 00101000 … : ids of seven bits.
        for id in 0x20..0x40 {
            keep_newest(&mut sets, &[0x68, id], PICTURE_PARAMETERS).unwrap();
        }
        assert!(sets.len() <= PARAMETER_SETS_MAX);
        let endless = [&[0x68, 0x80][..], &[1; PARAMETER_SET_BYTES_MAX]].concat();
        assert_eq!(keep_newest(&mut sets, &endless, PICTURE_PARAMETERS), Err(Malformed::ParameterSet));
    }

    #[test]
    fn parameter_sets_cut_short_are_refused() {
        for (_, _, sequence, _, _) in REAL {
            // What says how to show it (VUI) comes last and is not read.
            let whole = hex(sequence);
            for length in 0..9 {
                assert_eq!(SequenceParameters::read(&whole[..length]), None, "{length} bytes of {sequence}");
            }
            for length in 9..=whole.len() {
                SequenceParameters::read(&whole[..length]);
            }
        }
    }

    #[test]
    fn emulation_prevention_is_taken_out() {
        assert_eq!(without_emulation_prevention(&[0, 0, 3, 1, 0, 0, 3, 0, 0, 3, 3]), [0, 0, 1, 0, 0, 0, 0, 3]);
        assert_eq!(without_emulation_prevention(&[0, 0, 0, 3, 3]), [0, 0, 0, 3]);
    }
}
