//! As much of EBML (RFC 8794) as the files of a recording need: elements written, and the heads of elements read.

use bytes::{BufMut, BytesMut};

/// Ids with their length marker, as they stand in the file (RFC 8794 11.3, RFC 9559 5.1).
pub(crate) mod id {
    pub(crate) const VOID: u32 = 0xEC;
    pub(crate) const EBML: u32 = 0x1A45_DFA3;
    pub(crate) const EBML_VERSION: u32 = 0x4286;
    pub(crate) const EBML_READ_VERSION: u32 = 0x42F7;
    pub(crate) const EBML_ID_BYTES_MAX: u32 = 0x42F2;
    pub(crate) const EBML_SIZE_BYTES_MAX: u32 = 0x42F3;
    pub(crate) const DOC_TYPE: u32 = 0x4282;
    pub(crate) const DOC_TYPE_VERSION: u32 = 0x4287;
    pub(crate) const DOC_TYPE_READ_VERSION: u32 = 0x4285;
    pub(crate) const SEGMENT: u32 = 0x1853_8067;
    pub(crate) const SEEK_HEAD: u32 = 0x114D_9B74;
    pub(crate) const SEEK: u32 = 0x4DBB;
    pub(crate) const SEEK_ID: u32 = 0x53AB;
    pub(crate) const SEEK_POSITION: u32 = 0x53AC;
    pub(crate) const INFO: u32 = 0x1549_A966;
    pub(crate) const TIMESTAMP_SCALE: u32 = 0x2A_D7B1;
    pub(crate) const MUXING_APP: u32 = 0x4D80;
    pub(crate) const WRITING_APP: u32 = 0x5741;
    pub(crate) const TRACKS: u32 = 0x1654_AE6B;
    pub(crate) const TRACK_ENTRY: u32 = 0xAE;
    pub(crate) const TRACK_NUMBER: u32 = 0xD7;
    pub(crate) const TRACK_UID: u32 = 0x73C5;
    pub(crate) const TRACK_TYPE: u32 = 0x83;
    pub(crate) const FLAG_LACING: u32 = 0x9C;
    pub(crate) const LANGUAGE: u32 = 0x22_B59C;
    pub(crate) const CODEC_ID: u32 = 0x86;
    pub(crate) const CODEC_PRIVATE: u32 = 0x63A2;
    pub(crate) const CODEC_DELAY: u32 = 0x56AA;
    pub(crate) const SEEK_PRE_ROLL: u32 = 0x56BB;
    pub(crate) const VIDEO: u32 = 0xE0;
    pub(crate) const PIXEL_WIDTH: u32 = 0xB0;
    pub(crate) const PIXEL_HEIGHT: u32 = 0xBA;
    pub(crate) const AUDIO: u32 = 0xE1;
    pub(crate) const SAMPLING_FREQUENCY: u32 = 0xB5;
    pub(crate) const CHANNELS: u32 = 0x9F;
    pub(crate) const CLUSTER: u32 = 0x1F43_B675;
    pub(crate) const TIMESTAMP: u32 = 0xE7;
    pub(crate) const SIMPLE_BLOCK: u32 = 0xA3;
    pub(crate) const CUES: u32 = 0x1C53_BB6B;
    pub(crate) const CUE_POINT: u32 = 0xBB;
    pub(crate) const CUE_TIME: u32 = 0xB3;
    pub(crate) const CUE_TRACK_POSITIONS: u32 = 0xB7;
    pub(crate) const CUE_TRACK: u32 = 0xF7;
    pub(crate) const CUE_CLUSTER_POSITION: u32 = 0xF1;
}

/// Eight bytes of size that say: to the end of the file (RFC 8794 6.2).
pub(crate) const UNKNOWN_SIZE: [u8; 8] = [0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];

/// A size in eight bytes whatever it is, so that it can be written before it is known.
pub(crate) fn wide_size(size: u64) -> [u8; 8] {
    (size | 1 << 56).to_be_bytes()
}

pub(crate) fn put_id(out: &mut BytesMut, id: u32) {
    out.put_uint(u64::from(id), bytes_of(u64::from(id)));
}

/// In as few bytes as hold it; all ones are kept for "unknown", so 127 takes two.
pub(crate) fn put_size(out: &mut BytesMut, size: u64) {
    let groups = (size.saturating_add(1).ilog2() / 7).saturating_add(1);
    let marker = 1u64.checked_shl(groups.saturating_mul(7)).unwrap_or_default();
    out.put_uint(size | marker, usize::try_from(groups).unwrap_or(8));
}

pub(crate) fn put(out: &mut BytesMut, id: u32, content: &[u8]) {
    put_id(out, id);
    put_size(out, content.len() as u64);
    out.extend_from_slice(content);
}

pub(crate) fn put_unsigned(out: &mut BytesMut, id: u32, value: u64) {
    let bytes = bytes_of(value);
    put_id(out, id);
    put_size(out, bytes as u64);
    out.put_uint(value, bytes);
}

pub(crate) fn put_float(out: &mut BytesMut, id: u32, value: f64) {
    put(out, id, &value.to_be_bytes());
}

/// An element whose content `fill` writes.
pub(crate) fn put_master(out: &mut BytesMut, id: u32, fill: impl FnOnce(&mut BytesMut)) {
    let mut content = BytesMut::new();
    fill(&mut content);
    put(out, id, &content);
}

fn bytes_of(value: u64) -> usize {
    usize::try_from(value.max(1).ilog2() / 8).map_or(8, |whole| whole.saturating_add(1))
}

/// How an element begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) id: u32,
    /// Of the content, in bytes.
    pub(crate) size: u64,
    /// Of id and size together.
    pub(crate) bytes: usize,
}

/// `None` where no element begins, where its head is not whole, and where its size is unknown.
pub(crate) fn head(bytes: &[u8]) -> Option<Head> {
    let id_bytes = width(*bytes.first()?).filter(|width| *width <= 4)?;
    let id = u32::try_from(unsigned(bytes.get(..id_bytes)?)).ok()?;
    let size_field = bytes.get(id_bytes..)?;
    let size_bytes = width(*size_field.first()?)?;
    let marked = unsigned(size_field.get(..size_bytes)?);
    let ones = u64::MAX.checked_shr(64u32.checked_sub(u32::try_from(size_bytes).ok()?.checked_mul(7)?)?)?;
    let size = Some(marked & ones).filter(|size| *size != ones)?;
    Some(Head { id, size, bytes: id_bytes.checked_add(size_bytes)? })
}

/// At most eight bytes, the highest first.
pub(crate) fn unsigned(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Of an id or a size by its first byte; zero begins neither.
fn width(first: u8) -> Option<usize> {
    (first != 0).then(|| usize::try_from(first.leading_zeros()).ok()?.checked_add(1)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_the_fewest_bytes_and_never_say_unknown() {
        let cases: [(u64, &[u8]); 7] = [
            (0, &[0x80]),
            (126, &[0xFE]),
            (127, &[0x40, 0x7F]),
            (16_382, &[0x7F, 0xFE]),
            (16_383, &[0x20, 0x3F, 0xFF]),
            ((1 << 28) - 1, &[0x08, 0x0F, 0xFF, 0xFF, 0xFF]),
            ((1 << 56) - 2, &[0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE]),
        ];
        for (size, expected) in cases {
            let mut out = BytesMut::new();
            put_size(&mut out, size);
            assert_eq!(&out[..], expected, "{size}");
            let mut element = BytesMut::from(&[0xA3][..]);
            element.extend_from_slice(&out);
            assert_eq!(head(&element), Some(Head { id: 0xA3, size, bytes: element.len() }));
        }
    }

    #[test]
    fn a_head_that_is_no_head_is_none() {
        for bytes in [
            &[][..],
            &[0xA3],
            &[0x00, 0x81],
            &[0x08, 1, 2, 3, 4, 0x81], // an id of five bytes
            &[0x1F, 0x43, 0xB6],
            &[0xA3, 0x00],
            &[0xA3, 0x40],
            &[0xA3, 0xFF], // unknown
            &[0xA3, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        ] {
            assert_eq!(head(bytes), None, "{bytes:x?}");
        }
    }
}
