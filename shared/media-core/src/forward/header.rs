//! The header of an outgoing packet, written anew for each subscriber.

use crate::rtp::{EXTENSION_BIT, Header, ONE_BYTE_PROFILE, TWO_BYTE_PROFILE, VERSION, dependency};

/// What the subscriber's description says about extensions.
#[derive(Debug, Clone, Default)]
pub(crate) struct OutgoingHeader {
    pub(crate) mid: String,
    pub(crate) mid_id: Option<u8>,
    pub(crate) transport_sequence_id: Option<u8>,
    /// Copied from the publisher's packets.
    pub(crate) audio_level: Option<PassedExtension>,
    /// The dependency descriptor, which changes on the way.
    pub(crate) dependency: Option<PassedExtension>,
}

/// An extension that means the same on both sides under different ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PassedExtension {
    pub(crate) from: u8,
    pub(crate) to: u8,
}

impl PassedExtension {
    /// The dependency descriptor of a packet as the subscriber is to see it.
    pub(super) fn rewritten<'o>(
        self,
        header: &Header,
        packet: &'o [u8],
        change: dependency::Change,
        room: &'o mut dependency::Room,
    ) -> Option<(u8, &'o [u8])> {
        Some((self.to, change.apply(header.extension(packet, self.from)?, room)))
    }
}

pub(super) struct Fixed {
    pub(super) marker: bool,
    pub(super) payload_type: u8,
    pub(super) sequence: [u8; 2],
    pub(super) timestamp: u32,
    pub(super) ssrc: u32,
}

/// The extension elements of one packet, gathered before anything is written, since the longest decides the form.
pub(super) struct Elements<'p> {
    list: [(u8, &'p [u8]); ELEMENTS_MAX],
    count: usize,
    /// Of all in the list, without their ids and lengths.
    data_bytes: usize,
    /// RFC 8285 4.2: the short form has ids up to 14 and data of 1 to 16 bytes.
    is_short: bool,
    transport_sequence_id: Option<u8>,
    pub(super) transport_sequence: Option<u16>,
}

impl<'p> Elements<'p> {
    pub(super) fn new(
        outgoing: &'p OutgoingHeader,
        with_mid: bool,
        header: &Header,
        packet: &'p [u8],
        dependency: Option<(u8, &'p [u8])>,
    ) -> Self {
        let mut elements = Self {
            list: [(0, &[]); ELEMENTS_MAX],
            count: 0,
            data_bytes: 0,
            is_short: outgoing.transport_sequence_id.is_none_or(|id| id <= SHORT_ID_MAX),
            transport_sequence_id: outgoing.transport_sequence_id,
            transport_sequence: None,
        };
        if let Some(id) = outgoing.mid_id.filter(|_| with_mid && fits(outgoing.mid.len())) {
            elements.push(id, outgoing.mid.as_bytes());
        }
        if let Some(level) = outgoing.audio_level
            && let Some(data) = header.extension(packet, level.from).filter(|data| fits(data.len()))
        {
            elements.push(level.to, data);
        }
        if let Some((id, data)) = dependency {
            elements.push(id, data);
        }
        elements
    }

    fn push(&mut self, id: u8, data: &'p [u8]) {
        let Some(place) = self.list.get_mut(self.count) else { return };
        *place = (id, data);
        self.count = self.count.saturating_add(1);
        self.data_bytes = self.data_bytes.saturating_add(data.len());
        self.is_short &= id <= SHORT_ID_MAX && (1..=SHORT_BYTES_MAX).contains(&data.len());
    }

    pub(super) fn wants_stamp(&self) -> bool {
        self.transport_sequence_id.is_some()
    }

    /// Size of the packet with this payload, before sealing; a stamp still to come is counted.
    pub(super) fn packet_bytes(&self, payload_bytes: usize) -> usize {
        let block = match self.words(self.wants_stamp()) {
            0 => 0,
            words => words.saturating_mul(4).saturating_add(BLOCK_HEADER_BYTES),
        };
        FIXED_BYTES.saturating_add(block).saturating_add(payload_bytes)
    }

    /// Appends the whole header and says how long it is.
    pub(super) fn write(&self, fixed: &Fixed, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        let stamp = self.transport_sequence_id.zip(self.transport_sequence);
        let words = self.words(stamp.is_some());
        let first = VERSION << 6 | if words > 0 { EXTENSION_BIT } else { 0 };
        let marker = if fixed.marker { 0x80 } else { 0 };
        let [sequence_high, sequence_low] = fixed.sequence;
        out.extend_from_slice(&[first, marker | fixed.payload_type & 0x7f, sequence_high, sequence_low]);
        out.extend_from_slice(&fixed.timestamp.to_be_bytes());
        out.extend_from_slice(&fixed.ssrc.to_be_bytes());
        if words > 0 {
            self.write_block(stamp, words, out);
        }
        out.len().saturating_sub(start)
    }

    fn write_block(&self, stamp: Option<(u8, u16)>, words: usize, out: &mut Vec<u8>) {
        let profile = if self.is_short { ONE_BYTE_PROFILE } else { TWO_BYTE_PROFILE };
        out.extend_from_slice(&profile.to_be_bytes());
        out.extend_from_slice(&u16::try_from(words).unwrap_or_default().to_be_bytes());
        let end = out.len().saturating_add(words.saturating_mul(4));
        if let Some((id, sequence)) = stamp {
            self.write_element(id, &sequence.to_be_bytes(), out);
        }
        for (id, data) in self.list.iter().take(self.count) {
            self.write_element(*id, data, out);
        }
        out.resize(end, 0);
    }

    fn write_element(&self, id: u8, data: &[u8], out: &mut Vec<u8>) {
        let bytes = u8::try_from(data.len()).unwrap_or_default();
        if self.is_short {
            out.push(id << 4 | bytes.saturating_sub(1));
        } else {
            out.extend_from_slice(&[id, bytes]);
        }
        out.extend_from_slice(data);
    }

    /// What all elements take after the block's own header.
    fn words(&self, with_stamp: bool) -> usize {
        let (stamps, stamp_bytes) = if with_stamp { (1, 2) } else { (0, 0) };
        let elements = self.count.saturating_add(stamps);
        let heads = if self.is_short { elements } else { elements.saturating_mul(2) };
        heads.saturating_add(self.data_bytes).saturating_add(stamp_bytes).div_ceil(4)
    }
}

fn fits(bytes: usize) -> bool {
    bytes <= ELEMENT_BYTES_MAX
}

/// Level, `mid` and dependency descriptor. The stamp has no place of its own, since its data comes last.
const ELEMENTS_MAX: usize = 3;
const SHORT_ID_MAX: u8 = 14;
const SHORT_BYTES_MAX: usize = 16;
/// What we copy must not push a packet of usual size over the MTU.
const ELEMENT_BYTES_MAX: usize = 64;
const FIXED_BYTES: usize = 12;
const BLOCK_HEADER_BYTES: usize = 4;
