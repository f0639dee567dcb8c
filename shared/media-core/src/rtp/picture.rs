//! The counters in VP8's and VP9's payload descriptors, which one continuous stream must keep.

use super::{vp8, vp9};

/// A running number of pictures. The offset counts from the start of the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PictureId {
    pub(crate) value: u16,
    pub(crate) width: Width,
    pub(super) offset: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    Seven,
    Fifteen,
}

/// One byte of a descriptor, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) value: u8,
    pub(super) offset: usize,
}

/// The payload descriptor of a codec that counts pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Descriptor {
    Vp8(vp8::Descriptor),
    Vp9(vp9::Descriptor),
}

/// What must be added to each counter so that one source continues where another stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Shift {
    pub(crate) picture_id: u16,
    pub(crate) base_layer_index: u8,
    pub(crate) key_index: u8,
}

impl Descriptor {
    pub(crate) fn picture_id(&self) -> Option<PictureId> {
        match self {
            Self::Vp8(descriptor) => descriptor.picture_id,
            Self::Vp9(descriptor) => descriptor.picture_id,
        }
    }

    /// TL0PICIDX, running number of base layer pictures.
    pub(crate) fn base_layer_index(&self) -> Option<Field> {
        match self {
            Self::Vp8(descriptor) => descriptor.base_layer_index,
            Self::Vp9(descriptor) => descriptor.base_layer_index,
        }
    }

    pub(crate) fn key_index(&self) -> Option<u8> {
        match self {
            Self::Vp8(descriptor) => descriptor.key_index(),
            Self::Vp9(_) => None,
        }
    }

    /// Writes the shifted counters into a copy of the payload this was read from.
    pub(crate) fn rewrite(&self, payload: &mut [u8], shift: Shift) {
        if let Some(id) = self.picture_id() {
            id.rewrite(payload, shift.picture_id);
        }
        if let Some(field) = self.base_layer_index() {
            put(payload, field.offset, field.value.wrapping_add(shift.base_layer_index));
        }
        if let Self::Vp8(descriptor) = self {
            descriptor.rewrite_key_index(payload, shift.key_index);
        }
    }
}

impl PictureId {
    pub(super) fn read(cursor: &mut Cursor<'_>) -> Option<Self> {
        let offset = cursor.at;
        let first = cursor.next()?;
        Some(if first & 0x80 == 0 {
            Self { value: u16::from(first), width: Width::Seven, offset }
        } else {
            let value = u16::from_be_bytes([first & 0x7f, cursor.next()?]);
            Self { value, width: Width::Fifteen, offset }
        })
    }

    /// The value with `shift` added, modulo the width it is written in.
    pub(crate) fn shifted(&self, shift: u16) -> u16 {
        self.value.wrapping_add(shift) & self.width.mask()
    }

    fn rewrite(&self, payload: &mut [u8], shift: u16) {
        let [high, low] = self.shifted(shift).to_be_bytes();
        match self.width {
            Width::Seven => put(payload, self.offset, low),
            Width::Fifteen => {
                put(payload, self.offset, high | 0x80);
                put(payload, self.offset.saturating_add(1), low);
            }
        }
    }
}

impl Width {
    pub(crate) fn bits(self) -> u32 {
        match self {
            Self::Seven => 7,
            Self::Fifteen => 15,
        }
    }

    fn mask(self) -> u16 {
        match self {
            Self::Seven => 0x7f,
            Self::Fifteen => 0x7fff,
        }
    }
}

/// Reads a payload byte by byte.
pub(super) struct Cursor<'p> {
    payload: &'p [u8],
    at: usize,
}

impl<'p> Cursor<'p> {
    pub(super) fn new(payload: &'p [u8]) -> Self {
        Self { payload, at: 0 }
    }

    pub(super) fn next(&mut self) -> Option<u8> {
        let &byte = self.payload.get(self.at)?;
        self.at = self.at.saturating_add(1);
        Some(byte)
    }

    pub(super) fn field(&mut self) -> Option<Field> {
        let offset = self.at;
        Some(Field { value: self.next()?, offset })
    }

    pub(super) fn word(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.next()?, self.next()?]))
    }
}

pub(super) fn put(payload: &mut [u8], offset: usize, byte: u8) {
    if let Some(place) = payload.get_mut(offset) {
        *place = byte;
    }
}
