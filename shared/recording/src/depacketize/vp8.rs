//! VP8 (RFC 7741): a frame is what follows the payload descriptors of its packets.

use super::{Buffer, Finished, Format, Malformed, check_size};
use crate::{
    continuity::{PictureId, Place},
    track::Size,
};

#[derive(Debug, Default)]
pub(super) struct Vp8 {
    place: Place,
}

impl Format for Vp8 {
    fn begin(&mut self, payload: &[u8], _: bool) -> bool {
        let Ok((descriptor, _)) = Descriptor::parse(payload) else { return false };
        self.place = descriptor.place;
        descriptor.begins_frame
    }

    fn append(&mut self, payload: &[u8], frame: &mut Buffer) -> Result<(), Malformed> {
        frame.put(Descriptor::parse(payload)?.1)
    }

    fn finish(&mut self, frame: &mut Buffer) -> Result<Option<Finished>, Malformed> {
        // RFC 6386 9.1: three bytes of a frame, and seven more of a key frame.
        let (&[first, _, _], rest) = frame.bytes.split_first_chunk().ok_or(Malformed::Truncated)?;
        let place = self.place;
        if first & 0x01 != 0 {
            return Ok(Some(Finished { place, ..Finished::default() }));
        }
        let Some(&[0x9d, 0x01, 0x2a, width_low, width_high, height_low, height_high]) = rest.first_chunk() else {
            return Err(Malformed::KeyHeader);
        };
        let pixels = |low, high| u32::from(u16::from_le_bytes([low, high & 0x3f]));
        let size = Size { width: pixels(width_low, width_high), height: pixels(height_low, height_high) };
        if size.width == 0 || size.height == 0 {
            return Err(Malformed::KeyHeader);
        }
        check_size(size)?;
        Ok(Some(Finished { is_key: true, size: Some(size), place, ..Finished::default() }))
    }
}

/// RFC 7741 4.2.
struct Descriptor {
    begins_frame: bool,
    place: Place,
}

impl Descriptor {
    /// It and what follows it, which is not empty.
    fn parse(payload: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let mut rest = payload.iter();
        let mut next = || rest.next().copied().ok_or(Malformed::Truncated);
        let required = next()?;
        let extended = if required & 0x80 == 0 { 0 } else { next()? };
        let mut place = Place::default();
        if extended & 0x80 != 0 {
            let first = next()?;
            place.picture = Some(if first & 0x80 == 0 {
                PictureId { value: first.into(), bits: 7 }
            } else {
                PictureId { value: u16::from_be_bytes([first & 0x7f, next()?]), bits: 15 }
            });
        }
        if extended & 0x40 != 0 {
            place.base_index = Some(next()?);
        }
        if extended & 0x30 != 0 {
            let layer = next()?;
            if extended & 0x20 != 0 {
                place.temporal = layer >> 6;
                place.needs_base_only = layer & 0x20 != 0;
            }
        }
        // S of partition 0: the first packet of a frame.
        let begins_frame = required & 0x17 == 0x10;
        match rest.as_slice() {
            [] => Err(Malformed::Truncated),
            rest => Ok((Self { begins_frame, place }, rest)),
        }
    }
}
