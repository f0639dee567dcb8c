//! The RTP header (RFC 3550 5.1) with its extensions (RFC 8285), as offsets into the packet it was read from.

use std::ops::Range;

use crate::DropReason;

/// What a packet's header says. Holds no bytes: accessors take the packet it was parsed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) marker: bool,
    pub(crate) payload_type: u8,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) ssrc: u32,
    header_bytes: usize,
    payload_end: usize,
    extensions: Extensions,
}

/// RFC 6464: loudness of the packet, 0 (loudest) to 127 (silence), in −dBov.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AudioLevel {
    pub(crate) voice: bool,
    pub(crate) below_overload_db: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RtpError {
    #[error("shorter than its header")]
    TooShort,
    #[error("not RTP version 2")]
    WrongVersion,
    #[error("padding is longer than the payload, or zero")]
    PaddingLie,
}

impl Header {
    /// Reads a plaintext packet.
    pub(crate) fn parse(packet: &[u8]) -> Result<Self, RtpError> {
        let header = Self::parse_sealed(packet)?;
        if packet.first().is_none_or(|first| first & PADDING_BIT == 0) {
            return Ok(header);
        }
        // RFC 3550 5.1: the count includes its own byte, so zero is as wrong as more than there is.
        let padding = usize::from(*packet.last().ok_or(RtpError::TooShort)?);
        let payload_end = packet.len().checked_sub(padding).ok_or(RtpError::PaddingLie)?;
        if padding == 0 || payload_end < header.header_bytes {
            return Err(RtpError::PaddingLie);
        }
        Ok(Self { payload_end, ..header })
    }

    /// Reads the clear part of a packet whose payload, padding included, is still encrypted.
    pub(crate) fn parse_sealed(packet: &[u8]) -> Result<Self, RtpError> {
        let (fixed, rest) = packet.split_first_chunk::<FIXED_BYTES>().ok_or(RtpError::TooShort)?;
        let [first, second, sequence_high, sequence_low, t0, t1, t2, t3, s0, s1, s2, s3] = *fixed;
        if first >> 6 != VERSION {
            return Err(RtpError::WrongVersion);
        }
        let csrc_bytes = usize::from(first & 0x0f).saturating_mul(4);
        let after_csrc = rest.get(csrc_bytes..).ok_or(RtpError::TooShort)?;
        let before_extension = FIXED_BYTES.saturating_add(csrc_bytes);
        let (extensions, header_bytes) = if first & EXTENSION_BIT == 0 {
            (Extensions::NONE, before_extension)
        } else {
            Extensions::parse(after_csrc, before_extension)?
        };
        Ok(Self {
            marker: second & 0x80 != 0,
            payload_type: second & 0x7f,
            sequence: u16::from_be_bytes([sequence_high, sequence_low]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([s0, s1, s2, s3]),
            header_bytes,
            payload_end: packet.len(),
            extensions,
        })
    }

    pub(crate) fn header_bytes(&self) -> usize {
        self.header_bytes
    }

    /// Where the payload lies, without padding.
    pub(crate) fn payload(&self) -> Range<usize> {
        self.header_bytes..self.payload_end
    }

    pub(crate) fn payload_of<'p>(&self, packet: &'p [u8]) -> &'p [u8] {
        packet.get(self.payload()).unwrap_or_default()
    }

    /// The data of the first extension element with this id.
    pub(crate) fn extension<'p>(&self, packet: &'p [u8], id: u8) -> Option<&'p [u8]> {
        if id == 0 {
            return None;
        }
        let mut rest = packet.get(self.extensions.start..self.extensions.end)?;
        // Every turn consumes at least one byte of the block.
        while let Some((&first, tail)) = rest.split_first() {
            if first == 0 {
                rest = tail;
                continue;
            }
            let (element, bytes, tail) = match self.extensions.form {
                // RFC 8285 4.2: id 15 ends the block whatever its length says.
                Form::OneByte if first >> 4 == 15 => return None,
                Form::OneByte => (first >> 4, usize::from(first & 0x0f).saturating_add(1), tail),
                Form::TwoByte => {
                    let (&bytes, tail) = tail.split_first()?;
                    (first, usize::from(bytes), tail)
                }
            };
            let (data, tail) = tail.split_at_checked(bytes)?;
            if element == id {
                return Some(data);
            }
            rest = tail;
        }
        None
    }

    /// A textual extension: `mid`, `rtp-stream-id`, `repaired-rtp-stream-id` (RFC 8852, RFC 9143).
    pub(crate) fn text<'p>(&self, packet: &'p [u8], id: u8) -> Option<&'p str> {
        let data = self.extension(packet, id)?;
        let text = std::str::from_utf8(data).ok()?;
        (!text.is_empty()).then_some(text)
    }

    pub(crate) fn audio_level(&self, packet: &[u8], id: u8) -> Option<AudioLevel> {
        let &byte = self.extension(packet, id)?.first()?;
        Some(AudioLevel { voice: byte & 0x80 != 0, below_overload_db: byte & 0x7f })
    }

    pub(crate) fn transport_sequence(&self, packet: &[u8], id: u8) -> Option<u16> {
        let (bytes, _) = self.extension(packet, id)?.split_first_chunk::<2>()?;
        Some(u16::from_be_bytes(*bytes))
    }
}

impl RtpError {
    pub(crate) fn reason(self) -> DropReason {
        match self {
            Self::TooShort | Self::WrongVersion => DropReason::RtpMalformed,
            Self::PaddingLie => DropReason::RtpPaddingLie,
        }
    }
}

/// Where the elements lie, without the block's own four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extensions {
    form: Form,
    start: usize,
    end: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    OneByte,
    TwoByte,
}

impl Extensions {
    const NONE: Self = Self { form: Form::OneByte, start: 0, end: 0 };

    /// `block` starts at the profile, `offset` bytes into the packet. Also yields where the header ends.
    fn parse(block: &[u8], offset: usize) -> Result<(Self, usize), RtpError> {
        let (&[p0, p1, l0, l1], elements) = block.split_first_chunk::<4>().ok_or(RtpError::TooShort)?;
        let bytes = usize::from(u16::from_be_bytes([l0, l1])).saturating_mul(4);
        if elements.len() < bytes {
            return Err(RtpError::TooShort);
        }
        let start = offset.saturating_add(4);
        let end = start.saturating_add(bytes);
        let extensions = match u16::from_be_bytes([p0, p1]) {
            ONE_BYTE_PROFILE => Self { form: Form::OneByte, start, end },
            profile if profile & 0xfff0 == TWO_BYTE_PROFILE => Self { form: Form::TwoByte, start, end },
            _ => Self::NONE,
        };
        Ok((extensions, end))
    }
}

pub(crate) const ONE_BYTE_PROFILE: u16 = 0xbede;
pub(crate) const TWO_BYTE_PROFILE: u16 = 0x1000;
pub(crate) const FIXED_BYTES: usize = 12;
pub(crate) const VERSION: u8 = 2;
pub(crate) const PADDING_BIT: u8 = 0x20;
pub(crate) const EXTENSION_BIT: u8 = 0x10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(first: u8, tail: &[u8]) -> Vec<u8> {
        let mut packet = vec![first, 0xe0, 0x12, 0x34, 0, 0, 0, 7, 0, 0, 0, 9];
        packet.extend_from_slice(tail);
        packet
    }

    #[test]
    fn fixed_fields_are_read() {
        let packet = packet(0x80, b"opus");
        let header = Header::parse(&packet).unwrap();
        assert!(header.marker);
        assert_eq!((header.payload_type, header.sequence), (0x60, 0x1234));
        assert_eq!((header.timestamp, header.ssrc), (7, 9));
        assert_eq!(header.payload_of(&packet), b"opus");
    }

    #[test]
    fn csrcs_are_skipped() {
        let packet = packet(0x82, &[1, 1, 1, 1, 2, 2, 2, 2, 42]);
        let header = Header::parse(&packet).unwrap();
        assert_eq!(header.header_bytes(), 20);
        assert_eq!(header.payload_of(&packet), [42]);
        assert_eq!(Header::parse(&packet[..19]), Err(RtpError::TooShort));
    }

    #[test]
    fn one_byte_elements_are_found_behind_padding() {
        let packet = packet(0x90, &[0xbe, 0xde, 0, 3, 0x10, 0xaa, 0, 0x31, 0x12, 0x34, 0, 0x41, b'q', b'x', 0, 0, 99]);
        let header = Header::parse(&packet).unwrap();
        assert_eq!(header.audio_level(&packet, 1), Some(AudioLevel { voice: true, below_overload_db: 0x2a }));
        assert_eq!(header.transport_sequence(&packet, 3), Some(0x1234));
        assert_eq!(header.text(&packet, 4), Some("qx"));
        assert_eq!(header.extension(&packet, 5), None);
        assert_eq!(header.extension(&packet, 0), None, "id 0 is padding, not an element");
        assert_eq!(header.payload_of(&packet), [99]);
    }

    #[test]
    fn two_byte_elements_are_found() {
        let packet = packet(0x90, &[0x10, 0x05, 0, 2, 0, 17, 0, 30, 3, b'm', b'i', b'd', 99]);
        let header = Header::parse(&packet).unwrap();
        assert_eq!(header.extension(&packet, 17), Some(&[][..]));
        assert_eq!(header.text(&packet, 30), Some("mid"));
        assert_eq!(header.text(&packet, 17), None);
    }

    #[test]
    fn unknown_profile_is_skipped_whole() {
        let packet = packet(0x90, &[0xab, 0xcd, 0, 1, 0x10, 1, 2, 3, 99]);
        let header = Header::parse(&packet).unwrap();
        assert_eq!(header.extension(&packet, 1), None);
        assert_eq!(header.payload_of(&packet), [99]);
    }

    #[test]
    fn id_fifteen_ends_a_one_byte_block() {
        let packet = packet(0x90, &[0xbe, 0xde, 0, 1, 0xf0, 0x10, 0x7f, 0]);
        assert_eq!(Header::parse(&packet).unwrap().extension(&packet, 1), None);
    }

    #[test]
    fn an_extension_longer_than_the_packet_is_refused() {
        assert_eq!(Header::parse(&packet(0x90, &[0xbe, 0xde, 0, 2, 0, 0, 0, 0])), Err(RtpError::TooShort));
        assert_eq!(Header::parse(&packet(0x90, &[0xbe, 0xde])), Err(RtpError::TooShort));
    }

    #[test]
    fn other_versions_are_refused() {
        for first in [0x00, 0x40, 0xc0] {
            assert_eq!(Header::parse(&packet(first, &[])), Err(RtpError::WrongVersion));
        }
    }

    /// threats.md, section 1: padding byte 0 to 255 against every payload size.
    #[test]
    fn a_padding_lie_is_refused_for_every_byte_and_size() {
        for size in 0..=300usize {
            for padding in 0..=255u8 {
                let mut packet = packet(0xa0, &vec![7; size]);
                *packet.last_mut().unwrap() = padding;
                let fits = padding > 0 && usize::from(padding) <= size;
                match Header::parse(&packet) {
                    Ok(header) if fits => assert_eq!(header.payload().len(), size - usize::from(padding)),
                    Err(RtpError::PaddingLie) if !fits => {}
                    other => panic!("size {size}, padding {padding}: {other:?}"),
                }
                assert!(Header::parse_sealed(&packet).is_ok(), "sealed padding says nothing yet");
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), id in any::<u8>()) {
            if let Ok(header) = Header::parse(&bytes) {
                prop_assert!(header.payload().end <= bytes.len());
                prop_assert!(header.payload().start <= header.payload().end);
                let _ = (header.extension(&bytes, id), header.text(&bytes, id), header.audio_level(&bytes, id));
                let _ = header.transport_sequence(&bytes, id);
            }
        }

        #[test]
        fn arbitrary_extension_blocks_never_panic(
            mut block in proptest::collection::vec(any::<u8>(), 0..64),
            two_byte in any::<bool>(),
        ) {
            block.truncate(block.len() / 4 * 4);
            let profile = if two_byte { TWO_BYTE_PROFILE } else { ONE_BYTE_PROFILE };
            let mut tail = profile.to_be_bytes().to_vec();
            tail.extend_from_slice(&((block.len() / 4) as u16).to_be_bytes());
            tail.extend_from_slice(&block);
            let packet = packet(0x90, &tail);
            let header = Header::parse(&packet).unwrap();
            for id in 0..=255 {
                let _ = header.extension(&packet, id);
            }
        }
    }
}
