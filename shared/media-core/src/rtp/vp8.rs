//! The VP8 payload descriptor (RFC 7741 4.2): where the counters lie that one continuous stream must keep.
//!
//! Only the descriptor and the first byte of the VP8 header are looked at; both stay in the clear under end-to-end
//! encryption.

use super::picture::{Cursor, Field, PictureId, put};

/// A descriptor that was read from a payload. Offsets count from the start of the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) start_of_frame: bool,
    pub(crate) keyframe: bool,
    pub(crate) picture_id: Option<PictureId>,
    /// TL0PICIDX, running number of base layer frames.
    pub(crate) base_layer_index: Option<Field>,
    /// Byte with TID, Y and KEYIDX, if either is present.
    temporal: Option<Field>,
    has_temporal: bool,
    has_key_index: bool,
}

impl Descriptor {
    /// `None` if the payload is too short for what its first byte announces.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(payload);
        let required = cursor.next()?;
        let extended = if required & 0x80 == 0 { 0 } else { cursor.next()? };
        let picture_id = if extended & 0x80 == 0 { None } else { Some(PictureId::read(&mut cursor)?) };
        let base_layer_index = if extended & 0x40 == 0 { None } else { Some(cursor.field()?) };
        let temporal = if extended & 0x30 == 0 { None } else { Some(cursor.field()?) };
        // RFC 7741 4.3: a frame starts with partition 0; its first bit is clear for a key frame.
        let start_of_frame = required & (START_BIT | PARTITION_MASK) == START_BIT;
        let keyframe = start_of_frame && cursor.next().is_some_and(|header| header & 0x01 == 0);
        Some(Self {
            start_of_frame,
            keyframe,
            picture_id,
            base_layer_index,
            temporal,
            has_temporal: extended & 0x20 != 0,
            has_key_index: extended & 0x10 != 0,
        })
    }

    /// TID and whether the picture depends on the base layer alone (Y).
    pub(crate) fn temporal(&self) -> Option<(u8, bool)> {
        let field = self.temporal.filter(|_| self.has_temporal)?;
        Some((field.value >> 6, field.value & 0x20 != 0))
    }

    pub(crate) fn key_index(&self) -> Option<u8> {
        self.temporal.filter(|_| self.has_key_index).map(|field| field.value & KEY_INDEX_MASK)
    }

    pub(super) fn rewrite_key_index(&self, payload: &mut [u8], shift: u8) {
        if let (Some(field), Some(key_index)) = (self.temporal, self.key_index()) {
            let shifted = key_index.wrapping_add(shift) & KEY_INDEX_MASK;
            put(payload, field.offset, field.value & !KEY_INDEX_MASK | shifted);
        }
    }
}

const START_BIT: u8 = 0x10;
const PARTITION_MASK: u8 = 0x07;
const KEY_INDEX_MASK: u8 = 0x1f;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rtp::picture::{self, Shift};

    fn rewrite(payload: &mut [u8], shift: Shift) {
        picture::Descriptor::Vp8(Descriptor::parse(payload).unwrap()).rewrite(payload, shift);
    }

    const FULL: [u8; 7] = [0x90, 0xf0, 0x80 | 0x12, 0x34, 0x56, 0b1010_0011, 0x00];

    #[test]
    fn every_field_is_read() {
        let descriptor = Descriptor::parse(&FULL).unwrap();
        assert!(descriptor.start_of_frame && descriptor.keyframe);
        assert_eq!(descriptor.picture_id.unwrap().value, 0x1234);
        assert_eq!(descriptor.base_layer_index.unwrap().value, 0x56);
        assert_eq!(descriptor.temporal.unwrap().value, 0b1010_0011);
        assert_eq!((descriptor.key_index(), descriptor.temporal()), (Some(3), Some((2, true))));
    }

    #[test]
    fn keyframe_needs_start_of_frame_and_a_clear_bit() {
        for (payload, start, keyframe) in [
            (&[0x10, 0x00][..], true, true),
            (&[0x10, 0x01], true, false),
            (&[0x00, 0x00], false, false),
            (&[0x11, 0x00], false, false),
            (&[0x10], true, false),
        ] {
            let descriptor = Descriptor::parse(payload).unwrap();
            assert_eq!((descriptor.start_of_frame, descriptor.keyframe), (start, keyframe), "{payload:?}");
        }
    }

    #[test]
    fn truncated_descriptors_are_refused() {
        for bytes in 0..6 {
            assert_eq!(Descriptor::parse(&FULL[..bytes]), None, "{bytes} bytes");
        }
    }

    #[test]
    fn counters_wrap_in_their_own_width() {
        for (payload, shift, expected) in [
            (vec![0x90, 0x80, 0x7f, 0], 1, vec![0x90, 0x80, 0x00, 0]),
            (vec![0x90, 0x80, 0xff, 0xff, 0], 1, vec![0x90, 0x80, 0x80, 0x00, 0]),
            (vec![0x90, 0x80, 0x80, 0x00, 0], 0x7fff, vec![0x90, 0x80, 0xff, 0xff, 0]),
            (vec![0x90, 0x80, 0x80, 0x05, 0], u16::MAX, vec![0x90, 0x80, 0x80, 0x04, 0]),
        ] {
            let mut rewritten = payload.clone();
            let shift = Shift { picture_id: shift, ..Shift::default() };
            rewrite(&mut rewritten, shift);
            assert_eq!(rewritten, expected);
        }
    }

    #[test]
    fn temporal_bits_survive_a_shift_of_the_key_index() {
        let mut payload = FULL;
        let shift = Shift { picture_id: 1, base_layer_index: 0xff, key_index: 30 };
        rewrite(&mut payload, shift);
        let after = Descriptor::parse(&payload).unwrap();
        assert_eq!(after.picture_id.unwrap().value, 0x1235);
        assert_eq!(after.base_layer_index.unwrap().value, 0x55);
        assert_eq!(after.temporal.unwrap().value, 0b1010_0001);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            mut payload in proptest::collection::vec(any::<u8>(), 0..16),
            (picture_id, base_layer_index, key_index) in any::<(u16, u8, u8)>(),
        ) {
            if Descriptor::parse(&payload).is_some() {
                let shift = Shift { picture_id, base_layer_index, key_index };
                let before = payload.clone();
                rewrite(&mut payload, shift);
                let back = Shift {
                    picture_id: picture_id.wrapping_neg(),
                    base_layer_index: base_layer_index.wrapping_neg(),
                    key_index: key_index.wrapping_neg(),
                };
                rewrite(&mut payload, back);
                prop_assert_eq!(payload, before, "shifting there and back changes nothing");
            }
        }
    }
}
