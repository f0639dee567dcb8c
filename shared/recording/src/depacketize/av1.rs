//! AV1 (RTP payload format for AV1, version 1.0): a frame is a temporal unit, each OBU with its size.
//!
//! Temporal delimiters, tile lists and padding are left out: the first two are not to be sent (5.1), in a block of Matroska
//! the delimiter is not to be there, and padding is nothing.

use super::{Buffer, Finished, Format, Malformed, bits::Bits, check_size};
use crate::track::Size;

#[derive(Debug, Default)]
pub(super) struct Av1 {
    /// The OBU that goes on in the next packet, `None` if none does.
    fragment: Option<Buffer>,
    /// Of this temporal unit, with its size.
    sequence_header: Option<(Vec<u8>, SequenceHeader)>,
    /// Of the last temporal unit that had one.
    is_reduced: bool,
    first_frame: Option<FrameKind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FrameKind {
    Key,
    Other,
}

impl Format for Av1 {
    fn begin(&mut self, payload: &[u8], is_after_hole: bool) -> bool {
        self.clear();
        let Some(&aggregation) = payload.first() else { return false };
        // 4.4: N marks the first packet of a coded video sequence. After a hole nothing else can be decoded, and no other
        // packet says that it is the first of its temporal unit.
        aggregation & CONTINUES == 0 && (!is_after_hole || aggregation & NEW_SEQUENCE != 0)
    }

    fn append(&mut self, payload: &[u8], frame: &mut Buffer) -> Result<(), Malformed> {
        let (&aggregation, mut rest) = payload.split_first().ok_or(Malformed::Truncated)?;
        // W: so many elements, the last of them without its length; 0: as many as there are, each with.
        let count = aggregation >> 4 & 0x03;
        let mut continues = aggregation & CONTINUES != 0;
        if continues != self.fragment.is_some() {
            return Err(if continues { Malformed::FragmentNotBegun } else { Malformed::FragmentNotEnded });
        }
        let mut seen = 0u8;
        while !rest.is_empty() {
            seen = seen.saturating_add(1);
            let element = if seen == count {
                std::mem::take(&mut rest)
            } else {
                let (length, behind) = leb128(rest).ok_or(Malformed::Truncated)?;
                let (element, behind) = behind.split_at_checked(length).ok_or(Malformed::Truncated)?;
                rest = behind;
                element
            };
            let goes_on = rest.is_empty() && aggregation & GOES_ON != 0;
            match self.fragment.take().filter(|_| std::mem::take(&mut continues)) {
                None if goes_on => {
                    let mut fragment = Buffer::default();
                    fragment.put(element)?;
                    self.fragment = Some(fragment);
                }
                None => self.append_obu(element, frame)?,
                Some(mut fragment) => {
                    fragment.put(element)?;
                    if goes_on {
                        self.fragment = Some(fragment);
                    } else {
                        self.append_obu(&fragment.bytes, frame)?;
                    }
                }
            }
        }
        if seen < count || continues {
            return Err(Malformed::Truncated);
        }
        Ok(())
    }

    fn finish(&mut self, frame: &mut Buffer) -> Result<Option<Finished>, Malformed> {
        if self.fragment.is_some() {
            return Err(Malformed::FragmentNotEnded);
        }
        let Some(first_frame) = self.first_frame.take() else {
            frame.clear();
            return Ok(None);
        };
        let Some((obu, header)) = self.sequence_header.take().filter(|_| first_frame == FrameKind::Key) else {
            return Ok(Some(Finished::default()));
        };
        let codec_private = [&header.configuration()[..], &obu].concat().into();
        let size = Some(header.size);
        Ok(Some(Finished { is_key: true, size, codec_private: Some(codec_private), ..Finished::default() }))
    }

    fn clear(&mut self) {
        self.fragment = None;
        self.sequence_header = None;
        self.first_frame = None;
    }
}

impl Av1 {
    fn append_obu(&mut self, obu: &[u8], frame: &mut Buffer) -> Result<(), Malformed> {
        let (&header, mut body) = obu.split_first().ok_or(Malformed::EmptyUnit)?;
        let mut extension = None;
        if header & HAS_EXTENSION != 0 {
            let (&byte, rest) = body.split_first().ok_or(Malformed::Truncated)?;
            extension = Some(byte);
            body = rest;
        }
        // 5.1 asks senders to leave the size out; what lies behind it is no part of the OBU.
        if header & HAS_SIZE != 0 {
            let (length, rest) = leb128(body).ok_or(Malformed::Truncated)?;
            body = rest.get(..length).ok_or(Malformed::Truncated)?;
        }
        let obu_type = header >> 3 & 0x0f;
        match obu_type {
            TEMPORAL_DELIMITER | TILE_LIST | PADDING => return Ok(()),
            SEQUENCE_HEADER => {
                let read = SequenceHeader::read(body).ok_or(Malformed::ParameterSet)?;
                check_size(read.size)?;
                self.is_reduced = read.is_reduced;
                let mut copy = Buffer::default();
                put_obu(header, extension, body, &mut copy)?;
                self.sequence_header = Some((copy.bytes.to_vec(), read));
            }
            FRAME_HEADER | FRAME if self.first_frame.is_none() => {
                self.first_frame = Some(self.frame_kind(body).ok_or(Malformed::Truncated)?);
            }
            // A picture cannot begin with its tiles: the packet with its header was lost, or never sent.
            TILE_GROUP if self.first_frame.is_none() => return Err(Malformed::NotAStart),
            _ => {}
        }
        put_obu(header, extension, body, frame)
    }

    /// AV1 bitstream 5.9.2.
    fn frame_kind(&self, body: &[u8]) -> Option<FrameKind> {
        if self.is_reduced {
            return Some(FrameKind::Key);
        }
        let mut bits = Bits::new(body);
        let shows_existing = bits.bit()?;
        Some(if !shows_existing && bits.number(2)? == 0 { FrameKind::Key } else { FrameKind::Other })
    }
}

fn put_obu(header: u8, extension: Option<u8>, body: &[u8], frame: &mut Buffer) -> Result<(), Malformed> {
    // The forbidden bit and the reserved one are 0.
    frame.put(&[header & 0x7e | HAS_SIZE])?;
    frame.put(extension.as_slice())?;
    let mut length = body.len();
    loop {
        let low = u8::try_from(length & 0x7f).map_err(|_| Malformed::FrameTooLarge)?;
        length >>= 7;
        frame.put(&[if length == 0 { low } else { low | 0x80 }])?;
        if length == 0 {
            break;
        }
    }
    frame.put(body)
}

/// A length and what follows it (AV1 bitstream 4.10.5).
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0u64;
    for (at, &byte) in bytes.iter().enumerate().take(8) {
        let shift = u32::try_from(at).ok()?.saturating_mul(7);
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, bytes.get(at.saturating_add(1)..)?));
        }
    }
    None
}

/// What a file says of a sequence header (AV1 bitstream 5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SequenceHeader {
    profile: u32,
    level: u32,
    tier: bool,
    is_reduced: bool,
    size: Size,
    color: Color,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Color {
    high_bitdepth: bool,
    twelve_bit: bool,
    monochrome: bool,
    subsampling_x: bool,
    subsampling_y: bool,
    sample_position: u32,
}

impl SequenceHeader {
    fn read(body: &[u8]) -> Option<Self> {
        let mut bits = Bits::new(body);
        let profile = bits.number(3)?;
        bits.skip(1)?;
        let is_reduced = bits.bit()?;
        let (level, tier) = if is_reduced { (bits.number(5)?, false) } else { operating_points(&mut bits)? };
        let (width_bits, height_bits) = (bits.number(4)?.saturating_add(1), bits.number(4)?.saturating_add(1));
        let width = bits.number(width_bits)?.saturating_add(1);
        let height = bits.number(height_bits)?.saturating_add(1);
        if !is_reduced && bits.bit()? {
            // Lengths of frame ids.
            bits.skip(7)?;
        }
        // Superblocks of 128 pixels, filter_intra, intra_edge_filter.
        bits.skip(3)?;
        if !is_reduced {
            skip_tools(&mut bits)?;
        }
        // Superres, CDEF, restoration.
        bits.skip(3)?;
        let color = Color::read(&mut bits, profile)?;
        // film_grain_params_present
        bits.skip(1)?;
        Some(Self { profile, level, tier, is_reduced, size: Size { width, height }, color })
    }

    /// The first four bytes of `av1C` (AV1 in ISOBMFF 2.3.3).
    fn configuration(&self) -> [u8; 4] {
        let field = |value: u32, shift: u32| u8::try_from(value).ok().and_then(|value| value.checked_shl(shift));
        let color = &self.color;
        let flags = [
            self.tier,
            color.high_bitdepth,
            color.twelve_bit,
            color.monochrome,
            color.subsampling_x,
            color.subsampling_y,
        ];
        let flags = flags.into_iter().fold(0u8, |bits, flag| bits << 1 | u8::from(flag));
        [
            0x81,
            field(self.profile, 5).unwrap_or_default() | field(self.level, 0).unwrap_or_default(),
            flags << 2 | field(color.sample_position, 0).unwrap_or_default(),
            0,
        ]
    }
}

/// Level and tier of the first operating point, which is all of the stream.
fn operating_points(bits: &mut Bits<'_>) -> Option<(u32, bool)> {
    let mut delay_bits = None;
    if bits.bit()? {
        // timing_info: two numbers of 32 bits, and the ticks of a picture if all have as many.
        bits.skip(64)?;
        if bits.bit()? {
            bits.exp_golomb()?;
        }
        if bits.bit()? {
            delay_bits = Some(bits.number(5)?.saturating_add(1));
            bits.skip(42)?;
        }
    }
    let has_display_delay = bits.bit()?;
    let mut first = None;
    for _ in 0..=bits.number(5)? {
        bits.skip(12)?;
        let level = bits.number(5)?;
        let tier = level > 7 && bits.bit()?;
        first.get_or_insert((level, tier));
        if let Some(delay_bits) = delay_bits
            && bits.bit()?
        {
            bits.skip(delay_bits.saturating_mul(2).saturating_add(1))?;
        }
        if has_display_delay && bits.bit()? {
            bits.skip(4)?;
        }
    }
    first
}

/// From enable_interintra_compound to order_hint_bits_minus_1.
fn skip_tools(bits: &mut Bits<'_>) -> Option<()> {
    bits.skip(4)?;
    let has_order_hint = bits.bit()?;
    if has_order_hint {
        bits.skip(2)?;
    }
    let chooses_screen_content = bits.bit()?;
    let may_have_screen_content = chooses_screen_content || bits.bit()?;
    // seq_choose_integer_mv, else seq_force_integer_mv.
    if may_have_screen_content && !bits.bit()? {
        bits.skip(1)?;
    }
    if has_order_hint {
        bits.skip(3)?;
    }
    Some(())
}

impl Color {
    /// AV1 bitstream 5.5.2.
    fn read(bits: &mut Bits<'_>, profile: u32) -> Option<Self> {
        let high_bitdepth = bits.bit()?;
        let twelve_bit = profile == 2 && high_bitdepth && bits.bit()?;
        let monochrome = profile != 1 && bits.bit()?;
        // BT.709 primaries, sRGB transfer and the identity matrix together are RGB.
        let is_rgb = bits.bit()? && bits.number(24)? == 0x01_0d_00;
        let mut color = Self {
            high_bitdepth,
            twelve_bit,
            monochrome,
            subsampling_x: true,
            subsampling_y: true,
            sample_position: 0,
        };
        if monochrome {
            bits.skip(1)?;
            return Some(color);
        }
        if is_rgb {
            (color.subsampling_x, color.subsampling_y) = (false, false);
        } else {
            bits.skip(1)?;
            if profile == 1 {
                (color.subsampling_x, color.subsampling_y) = (false, false);
            } else if profile >= 2 {
                color.subsampling_x = !twelve_bit || bits.bit()?;
                color.subsampling_y = twelve_bit && color.subsampling_x && bits.bit()?;
            }
            if color.subsampling_x && color.subsampling_y {
                color.sample_position = bits.number(2)?;
            }
        }
        // separate_uv_delta_q
        bits.skip(1)?;
        Some(color)
    }
}

const CONTINUES: u8 = 0x80;
const GOES_ON: u8 = 0x40;
const NEW_SEQUENCE: u8 = 0x08;
const HAS_EXTENSION: u8 = 0x04;
const HAS_SIZE: u8 = 0x02;
const SEQUENCE_HEADER: u8 = 1;
const TEMPORAL_DELIMITER: u8 = 2;
const FRAME_HEADER: u8 = 3;
const TILE_GROUP: u8 = 4;
const FRAME: u8 = 6;
const TILE_LIST: u8 = 8;
const PADDING: u8 = 15;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    /// What encoders send ahead of a key frame of 322×182, and the `av1C` that ffmpeg makes of it.
    const REAL: [(&str, &str); 3] = [
        // libaom, 4:4:4.
        ("200000043d06d4daf92021a004", "81200000"),
        // libaom, 4:2:2 with ten bits.
        ("400000043d06d4daf94080", "81404800"),
        // SVT-AV1, 4:2:0 with ten bits.
        ("000000043d06d4fbf94040", "81004c00"),
    ];

    #[test]
    fn configuration_records_of_real_sequence_headers_are_what_ffmpeg_writes() {
        for (body, configuration) in REAL {
            let header = SequenceHeader::read(&hex(body)).unwrap();
            assert_eq!(header.size, Size { width: 322, height: 182 }, "{body}");
            assert_eq!(header.configuration(), hex(configuration)[..], "{body}");
            assert!(!header.is_reduced);
        }
    }

    #[test]
    fn sequence_headers_cut_short_are_refused() {
        for (body, _) in REAL {
            let whole = hex(body);
            for length in 0..whole.len() - 1 {
                assert_eq!(SequenceHeader::read(&whole[..length]), None, "{length} bytes of {body}");
            }
        }
    }

    #[test]
    fn lengths_are_at_most_eight_bytes() {
        assert_eq!(leb128(&[0x05, 9]), Some((5, &[9][..])));
        assert_eq!(leb128(&[0xe5, 0x8e, 0x26]), Some((624_485, &[][..])));
        assert_eq!(leb128(&[0x85, 0x80, 0x00]), Some((5, &[][..])));
        assert_eq!(leb128(&[0x80; 8]), None);
        assert_eq!(leb128(&[0x80]), None);
    }
}
