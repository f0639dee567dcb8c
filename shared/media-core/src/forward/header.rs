//! The header of an outgoing packet, written anew for each subscriber.

use crate::rtp::{EXTENSION_BIT, Header, ONE_BYTE_PROFILE, TWO_BYTE_PROFILE, VERSION, dependency};

/// What the subscriber's description says about extensions.
#[derive(Debug, Clone, Default)]
pub(crate) struct OutgoingHeader {
    pub(crate) mid: String,
    pub(crate) mid_id: Option<u8>,
    pub(crate) transport_sequence_id: Option<u8>,
    /// Copied from the publisher's packets; at most [`PASSED_MAX`] are.
    pub(crate) passed: Vec<PassedExtension>,
    /// The dependency descriptor, which changes on the way.
    pub(crate) dependency: Option<PassedExtension>,
}

/// An extension that means the same on both sides under different ids: audio level, orientation.
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
    mid: Option<(u8, &'p [u8])>,
    transport_sequence_id: Option<u8>,
    pub(super) transport_sequence: Option<u16>,
    passed: [Option<(u8, &'p [u8])>; PASSED_MAX],
    dependency: Option<(u8, &'p [u8])>,
}

impl<'p> Elements<'p> {
    pub(super) fn new(
        outgoing: &'p OutgoingHeader,
        with_mid: bool,
        header: &Header,
        packet: &'p [u8],
        dependency: Option<(u8, &'p [u8])>,
    ) -> Self {
        let mid = outgoing.mid_id.filter(|_| with_mid && fits(outgoing.mid.len()));
        let mut passed = [None; PASSED_MAX];
        for (place, extension) in passed.iter_mut().zip(&outgoing.passed) {
            let data = header.extension(packet, extension.from).filter(|data| fits(data.len()));
            *place = data.map(|data| (extension.to, data));
        }
        Self {
            mid: mid.map(|id| (id, outgoing.mid.as_bytes())),
            transport_sequence_id: outgoing.transport_sequence_id,
            transport_sequence: None,
            passed,
            dependency,
        }
    }

    pub(super) fn wants_stamp(&self) -> bool {
        self.transport_sequence_id.is_some()
    }

    /// Size of the packet with this payload, before sealing; a stamp still to come is counted.
    pub(super) fn packet_bytes(&self, payload_bytes: usize) -> usize {
        let stamp = if self.wants_stamp() && self.transport_sequence.is_none() { STAMP_BYTES } else { 0 };
        let block = self.block_bytes(stamp);
        FIXED_BYTES.saturating_add(block).saturating_add(payload_bytes)
    }

    /// Appends the whole header and says how long it is.
    pub(super) fn write(&self, fixed: &Fixed, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        let extended = self.iter().next().is_some();
        let first = VERSION << 6 | if extended { EXTENSION_BIT } else { 0 };
        let marker = if fixed.marker { 0x80 } else { 0 };
        out.extend_from_slice(&[first, marker | fixed.payload_type & 0x7f]);
        out.extend_from_slice(&fixed.sequence);
        out.extend_from_slice(&fixed.timestamp.to_be_bytes());
        out.extend_from_slice(&fixed.ssrc.to_be_bytes());
        if extended {
            self.write_block(out);
        }
        out.len().saturating_sub(start)
    }

    fn write_block(&self, out: &mut Vec<u8>) {
        let one_byte = self.is_one_byte();
        let profile = if one_byte { ONE_BYTE_PROFILE } else { TWO_BYTE_PROFILE };
        let words = u16::try_from(self.block_bytes(0).saturating_sub(BLOCK_HEADER_BYTES) / 4).unwrap_or_default();
        out.extend_from_slice(&profile.to_be_bytes());
        out.extend_from_slice(&words.to_be_bytes());
        let start = out.len();
        for (id, data) in self.iter() {
            let data = data.as_slice();
            let bytes = u8::try_from(data.len()).unwrap_or_default();
            if one_byte {
                out.push(id << 4 | bytes.saturating_sub(1));
            } else {
                out.extend_from_slice(&[id, bytes]);
            }
            out.extend_from_slice(data);
        }
        out.resize(start.saturating_add(usize::from(words).saturating_mul(4)), 0);
    }

    /// The whole block in full words, with `more` bytes of elements still to come.
    fn block_bytes(&self, more: usize) -> usize {
        let per_element = if self.is_one_byte() { 1usize } else { 2 };
        let elements = self
            .iter()
            .fold(more, |sum, (_, data)| sum.saturating_add(per_element).saturating_add(data.as_slice().len()));
        if elements == 0 { 0 } else { elements.next_multiple_of(4).saturating_add(BLOCK_HEADER_BYTES) }
    }

    /// RFC 8285 4.2: the short form has ids up to 14 and data of 1 to 16 bytes.
    fn is_one_byte(&self) -> bool {
        self.iter().all(|(id, data)| id <= 14 && (1..=16).contains(&data.as_slice().len()))
    }

    fn iter(&self) -> impl Iterator<Item = (u8, Data<'p>)> {
        let stamp = self.transport_sequence_id.zip(self.transport_sequence);
        let stamp = stamp.map(|(id, sequence)| (id, Data::Stamp(sequence.to_be_bytes())));
        let mid = self.mid.map(|(id, data)| (id, Data::Borrowed(data)));
        let passed =
            self.passed.into_iter().chain([self.dependency]).flatten().map(|(id, data)| (id, Data::Borrowed(data)));
        mid.into_iter().chain(stamp).chain(passed)
    }
}

enum Data<'p> {
    Borrowed(&'p [u8]),
    Stamp([u8; 2]),
}

impl Data<'_> {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(data) => data,
            Self::Stamp(bytes) => bytes,
        }
    }
}

fn fits(bytes: usize) -> bool {
    bytes <= ELEMENT_BYTES_MAX
}

pub(super) const PASSED_MAX: usize = 4;
/// What we copy must not push a packet of usual size over the MTU.
const ELEMENT_BYTES_MAX: usize = 64;
const FIXED_BYTES: usize = 12;
const BLOCK_HEADER_BYTES: usize = 4;
/// A transport-wide sequence number in the short form.
const STAMP_BYTES: usize = 3;
