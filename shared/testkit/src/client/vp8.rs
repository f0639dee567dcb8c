//! VP8 packets without pictures (RFC 7741 4.2): real descriptors and frame tags around numbered content.

/// What a packet says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VideoPayload {
    pub picture_id: u16,
    pub base_layer_index: u8,
    pub key_index: u8,
    /// The first packet of its frame.
    pub starts_frame: bool,
    pub keyframe: bool,
    /// Which layer of its track, low to high.
    pub layer: u8,
    pub frame: u32,
    pub part: u8,
}

impl VideoPayload {
    pub fn write(&self, bytes: usize) -> Vec<u8> {
        let start = if self.starts_frame { 0x10 } else { 0 };
        let [high, low] = (self.picture_id & 0x7fff | 0x8000).to_be_bytes();
        let mut out = vec![0x80 | start, 0xf0, high, low, self.base_layer_index, self.key_index & 0x1f];
        if self.starts_frame {
            // RFC 6386 9.1: the lowest bit is clear in key frames, which go on with a start code and a size.
            out.extend_from_slice(if self.keyframe { &KEY_TAG } else { &DELTA_TAG });
        }
        out.extend_from_slice(&[CONTENT, self.layer]);
        out.extend_from_slice(&self.frame.to_be_bytes());
        out.extend_from_slice(&[self.part, u8::from(self.keyframe)]);
        out.resize(bytes.max(out.len()), self.part);
        out
    }

    pub fn read(payload: &[u8]) -> Option<Self> {
        let [first, 0xf0, high, low, base_layer_index, key_index, rest @ ..] = payload else { return None };
        let starts_frame = first & 0x10 != 0;
        let rest = match (starts_frame, rest.first()?) {
            (false, _) => rest,
            (true, tag) => rest.get(if tag & 1 == 0 { KEY_TAG.len() } else { DELTA_TAG.len() }..)?,
        };
        let [CONTENT, layer, a, b, c, d, part, keyframe, ..] = rest else { return None };
        Some(Self {
            picture_id: u16::from_be_bytes([*high, *low]) & 0x7fff,
            base_layer_index: *base_layer_index,
            key_index: key_index & 0x1f,
            starts_frame,
            keyframe: *keyframe != 0,
            layer: *layer,
            frame: u32::from_be_bytes([*a, *b, *c, *d]),
            part: *part,
        })
    }
}

const CONTENT: u8 = b'V';
const KEY_TAG: [u8; 10] = [0x50, 0x2d, 0x00, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xb4, 0x00];
const DELTA_TAG: [u8; 3] = [0x51, 0x2d, 0x00];
