//! VP9 packets without pictures (RFC 9628 4.2), three spatial layers in one stream: real descriptors around named content.
//! Layers depend on each other in key pictures only, as browsers send them.

/// What a packet says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SvcPayload {
    pub picture_id: u16,
    pub base_layer_index: u8,
    /// The picture depends on no other.
    pub keyframe: bool,
    pub spatial: u8,
    pub starts_frame: bool,
    pub ends_frame: bool,
}

impl SvcPayload {
    pub fn write(&self, bytes: usize) -> Vec<u8> {
        let set = |is: bool, bit: u8| if is { bit } else { 0 };
        let brings_structure = self.keyframe && self.spatial == 0 && self.starts_frame;
        let first = 0xa0
            | set(!self.keyframe, 0x40)
            | set(self.starts_frame, 0x08)
            | set(self.ends_frame, 0x04)
            | set(brings_structure, 0x02)
            | set(!self.keyframe || self.spatial + 1 == SPATIAL_LAYERS, 0x01);
        let [high, low] = (self.picture_id & 0x7fff | 0x8000).to_be_bytes();
        let layer = 0x10 | self.spatial << 1 | set(self.keyframe && self.spatial > 0, 0x01);
        let mut out = vec![first, high, low, layer, self.base_layer_index];
        if brings_structure {
            out.push((SPATIAL_LAYERS - 1) << 5 | 0x10);
            for spatial in 0..SPATIAL_LAYERS {
                let (width, height) = (320u16 << spatial, 180u16 << spatial);
                out.extend_from_slice(&width.to_be_bytes());
                out.extend_from_slice(&height.to_be_bytes());
            }
        }
        out.resize(bytes.max(out.len()), self.spatial);
        out
    }

    pub fn read(payload: &[u8]) -> Option<Self> {
        let [first, high, low, layer, base_layer_index, ..] = *payload else { return None };
        Some(Self {
            picture_id: u16::from_be_bytes([high, low]) & 0x7fff,
            base_layer_index,
            keyframe: first & 0x40 == 0,
            spatial: layer >> 1 & 0x07,
            starts_frame: first & 0x08 != 0,
            ends_frame: first & 0x04 != 0,
        })
    }
}

pub(crate) const SPATIAL_LAYERS: u8 = 3;
