//! The VP9 payload descriptor (RFC 9628 4.2): which layer a packet belongs to, and what its frame depends on.
//!
//! The descriptor stays in the clear under end-to-end encryption; nothing behind it is looked at.

use super::picture::{Cursor, Field, PictureId};

/// A descriptor that was read from a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Descriptor {
    /// B and E: first and last packet of a frame, which is one spatial layer of a picture.
    pub(crate) starts_frame: bool,
    pub(crate) ends_frame: bool,
    /// P: the frame depends on frames of earlier pictures.
    pub(crate) is_inter_picture: bool,
    /// Z: no higher spatial layer of this picture depends on the frame.
    pub(crate) is_unneeded_above: bool,
    pub(crate) picture_id: Option<PictureId>,
    pub(crate) layer: Option<LayerIndices>,
    /// TL0PICIDX; absent in flexible mode.
    pub(crate) base_layer_index: Option<Field>,
    pub(crate) references: References,
    pub(crate) structure: Option<Structure>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayerIndices {
    pub(crate) temporal: u8,
    /// U: later pictures of higher temporal layers depend on no picture before this one above its own layer.
    pub(crate) is_switching_point: bool,
    pub(crate) spatial: u8,
    /// D: the frame depends on the next lower spatial layer of the same picture.
    pub(crate) is_inter_layer: bool,
}

/// The pictures that a frame depends on, as distances back from its own; known in flexible mode only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct References {
    back: [u8; REFERENCES_MAX],
    count: u8,
}

/// The spatial layers of the pictures that follow, with their width and height from low to high; 0 if it does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Structure {
    sizes: [(u16, u16); SPATIAL_LAYERS_MAX],
    count: u8,
}

impl Descriptor {
    /// `None` if the payload is too short for what its first byte announces.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(payload);
        let required = cursor.next()?;
        let has = |bit: u8| required & bit != 0;
        let picture_id = if has(PICTURE_ID) { Some(PictureId::read(&mut cursor)?) } else { None };
        let layer = if has(LAYER_INDICES) { Some(LayerIndices::of(cursor.next()?)) } else { None };
        let has_base_layer_index = layer.is_some() && !has(FLEXIBLE);
        let base_layer_index = if has_base_layer_index { Some(cursor.field()?) } else { None };
        let references =
            if has(FLEXIBLE) && has(INTER_PICTURE) { References::read(&mut cursor)? } else { References::default() };
        let structure = if has(STRUCTURE) { Some(Structure::read(&mut cursor)?) } else { None };
        Some(Self {
            starts_frame: has(START_OF_FRAME),
            ends_frame: has(END_OF_FRAME),
            is_inter_picture: has(INTER_PICTURE),
            is_unneeded_above: has(UNNEEDED_ABOVE),
            picture_id,
            layer,
            base_layer_index,
            references,
            structure,
        })
    }

    /// The first packet of a picture that depends on no other.
    pub(crate) fn is_keyframe(&self) -> bool {
        self.starts_frame && !self.is_inter_picture && self.layer.is_none_or(|layer| layer.spatial == 0)
    }
}

impl LayerIndices {
    fn of(byte: u8) -> Self {
        Self {
            temporal: byte >> 5,
            is_switching_point: byte & 0x10 != 0,
            spatial: byte >> 1 & 0x07,
            is_inter_layer: byte & 0x01 != 0,
        }
    }
}

impl References {
    fn read(cursor: &mut Cursor<'_>) -> Option<Self> {
        let mut references = Self::default();
        for place in &mut references.back {
            let byte = cursor.next()?;
            *place = byte >> 1;
            references.count = references.count.saturating_add(1);
            // N: another follows.
            if byte & 0x01 == 0 {
                return Some(references);
            }
        }
        // RFC 9628 4.2: at most three.
        None
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u8> {
        self.back.into_iter().take(usize::from(self.count))
    }
}

impl Structure {
    /// Reads a whole scalability structure; its groups of pictures are passed over.
    fn read(cursor: &mut Cursor<'_>) -> Option<Self> {
        let head = cursor.next()?;
        let count = (head >> 5).saturating_add(1);
        let mut sizes = [(0, 0); SPATIAL_LAYERS_MAX];
        if head & 0x10 != 0 {
            for size in sizes.iter_mut().take(usize::from(count)) {
                *size = (cursor.word()?, cursor.word()?);
            }
        }
        if head & 0x08 != 0 {
            for _ in 0..cursor.next()? {
                let picture = cursor.next()?;
                for _ in 0..picture >> 2 & 0x03 {
                    cursor.next()?;
                }
            }
        }
        Some(Self { sizes, count })
    }

    pub(crate) fn top_spatial(&self) -> u8 {
        self.count.saturating_sub(1)
    }

    pub(crate) fn sizes(&self) -> impl Iterator<Item = (u16, u16)> {
        self.sizes.into_iter().take(usize::from(self.count))
    }
}

const PICTURE_ID: u8 = 0x80;
const INTER_PICTURE: u8 = 0x40;
const LAYER_INDICES: u8 = 0x20;
const FLEXIBLE: u8 = 0x10;
const START_OF_FRAME: u8 = 0x08;
const END_OF_FRAME: u8 = 0x04;
const STRUCTURE: u8 = 0x02;
const UNNEEDED_ABOVE: u8 = 0x01;
const REFERENCES_MAX: usize = 3;
const SPATIAL_LAYERS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rtp::picture::{self, Shift};

    /// A key picture's lowest layer, non-flexible, with a structure of three sizes and a group of two pictures.
    const KEY: [u8; 24] = [
        0b1010_1010, // I, L, B, V
        0x92,
        0x34,        // picture 0x1234
        0b0001_0000, // TID 0, U, SID 0
        0x56,        // TL0PICIDX
        0b0101_1000, // three layers, sizes, a group
        0x01,
        0x40,
        0x00,
        0xb4,
        0x02,
        0x80,
        0x01,
        0x68,
        0x05,
        0x00,
        0x02,
        0xd0, // 320×180, 640×360, 1280×720
        2,
        0b0001_0000,
        0b0010_0100,
        1, // pictures: TID 0 with U; TID 1 with one reference
        0xaa,
        0xbb,
    ];

    #[test]
    fn every_field_of_a_key_picture_is_read() {
        let descriptor = Descriptor::parse(&KEY).unwrap();
        assert!(descriptor.starts_frame && !descriptor.ends_frame && !descriptor.is_inter_picture);
        assert!(!descriptor.is_unneeded_above && descriptor.is_keyframe());
        assert_eq!(descriptor.picture_id.unwrap().value, 0x1234);
        assert_eq!(descriptor.base_layer_index.unwrap().value, 0x56);
        let layer = LayerIndices { temporal: 0, is_switching_point: true, spatial: 0, is_inter_layer: false };
        assert_eq!(descriptor.layer, Some(layer));
        let sizes: Vec<_> = descriptor.structure.unwrap().sizes().collect();
        assert_eq!(sizes, [(320, 180), (640, 360), (1_280, 720)]);
    }

    #[test]
    fn flexible_mode_names_its_references() {
        // I, P, L, F, B, E, Z; picture 5; TID 2, SID 1, D; back by 1, 2 and 4.
        let payload = [0b1111_1101, 5, 0b0100_0011, 0b0000_0011, 0b0000_0101, 0b0000_1000, 0xee];
        let descriptor = Descriptor::parse(&payload).unwrap();
        assert!(descriptor.starts_frame && descriptor.ends_frame && descriptor.is_unneeded_above);
        assert!(!descriptor.is_keyframe() && descriptor.base_layer_index.is_none());
        let layer = descriptor.layer.unwrap();
        assert_eq!((layer.temporal, layer.spatial, layer.is_inter_layer), (2, 1, true));
        assert_eq!(descriptor.references.iter().collect::<Vec<_>>(), [1, 2, 4]);
    }

    #[test]
    fn a_picture_starts_at_an_intra_frame_of_the_lowest_layer() {
        for (payload, expected) in [
            (&[0x08][..], true),
            (&[0x48], false),
            (&[0x00], false),
            (&[0xa8, 0x81, 0x23, 0x00, 0], true),
            (&[0xa8, 0x23, 0x02, 0], false),
            (&[0x28, 0x00, 0x00], true),
        ] {
            assert_eq!(Descriptor::parse(payload).unwrap().is_keyframe(), expected, "{payload:02x?}");
        }
    }

    #[test]
    fn descriptors_cut_short_are_refused() {
        for bytes in 0..22 {
            assert_eq!(Descriptor::parse(&KEY[..bytes]), None, "{bytes} bytes");
        }
        assert_eq!(Descriptor::parse(&[0x50, 3, 3, 3]), None, "a fourth reference");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            mut payload in proptest::collection::vec(any::<u8>(), 0..80),
            (picture_id, base_layer_index) in any::<(u16, u8)>(),
        ) {
            if let Some(descriptor) = Descriptor::parse(&payload) {
                let before = payload.clone();
                let shift = Shift { picture_id, base_layer_index, key_index: 0 };
                picture::Descriptor::Vp9(descriptor).rewrite(&mut payload, shift);
                let shifted = Descriptor::parse(&payload).unwrap();
                prop_assert_eq!((shifted.layer, shifted.references, shifted.structure), (descriptor.layer, descriptor.references, descriptor.structure));
                let back = Shift {
                    picture_id: picture_id.wrapping_neg(),
                    base_layer_index: base_layer_index.wrapping_neg(),
                    key_index: 0,
                };
                picture::Descriptor::Vp9(shifted).rewrite(&mut payload, back);
                prop_assert_eq!(payload, before, "shifting there and back changes nothing");
            }
        }

        #[test]
        fn mutated_descriptors_never_panic(at in 0usize..24, bit in 0u8..8, length in 0usize..25) {
            let mut payload = KEY;
            payload[at] ^= 1 << bit;
            Descriptor::parse(&payload[..length.min(24)]);
        }
    }
}
