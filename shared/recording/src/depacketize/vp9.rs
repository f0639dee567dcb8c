//! VP9 (RFC 9628): a block is a picture with all its spatial layers.
//!
//! RTP sends each layer as a frame of its own and says by the descriptor where it ends. In a file an index at the end of the
//! block says it (VP9 bitstream, annex B). Of the decoders libvpx shows the highest layer of a block with or without it;
//! ffmpeg's own shows every layer with it and the lowest alone without.

use super::{Buffer, Finished, Format, Malformed, bits::Bits, check_size};
use crate::{
    continuity::{PictureId, Place},
    track::Size,
};

#[derive(Debug, Default)]
pub(super) struct Vp9 {
    place: Place,
    /// The lowest spatial layer of the last key picture: every picture begins with it.
    lowest: u8,
    /// Where each layer of the picture ends.
    ends: Vec<usize>,
    /// What the scalability structure says of the highest layer's.
    size: Option<Size>,
}

impl Format for Vp9 {
    fn begin(&mut self, payload: &[u8], is_after_hole: bool) -> bool {
        let Ok((descriptor, _)) = Descriptor::parse(payload) else { return false };
        self.place = descriptor.place;
        self.ends.clear();
        self.size = None;
        if descriptor.begins_key_picture() {
            self.lowest = descriptor.spatial;
        }
        // A higher layer of the lowest's picture, which was lost, begins like a picture.
        descriptor.begins_layer && (!is_after_hole || descriptor.spatial <= self.lowest)
    }

    fn append(&mut self, payload: &[u8], frame: &mut Buffer) -> Result<(), Malformed> {
        let (descriptor, data) = Descriptor::parse(payload)?;
        if descriptor.begins_layer && frame.len() > 0 {
            self.end_layer(frame.len())?;
        }
        if let (Some(own), Some(all)) = (descriptor.place.references, &mut self.place.references) {
            *all |= own;
        }
        self.size = descriptor.size.or(self.size);
        frame.put(data)
    }

    fn finish(&mut self, frame: &mut Buffer) -> Result<Option<Finished>, Malformed> {
        self.end_layer(frame.len())?;
        let key_size = key_size(&frame.bytes)?;
        self.append_index(frame)?;
        key_size.into_iter().chain(self.size).try_for_each(check_size)?;
        let size = key_size.map(|lowest| self.size.unwrap_or(lowest));
        Ok(Some(Finished { is_key: key_size.is_some(), size, place: self.place, ..Finished::default() }))
    }
}

impl Vp9 {
    fn end_layer(&mut self, at: usize) -> Result<(), Malformed> {
        if self.ends.len() >= SPATIAL_LAYERS_MAX {
            return Err(Malformed::SpatialLayers);
        }
        self.ends.push(at);
        Ok(())
    }

    /// VP9 bitstream, annex B: the lengths of the frames, between two bytes that say how many there are.
    fn append_index(&self, frame: &mut Buffer) -> Result<(), Malformed> {
        // A frame that has an index of its own is left as it is.
        let has_index = frame.bytes.last().is_some_and(|&last| last & 0xe0 == INDEX_MARKER);
        let Some(others) = self.ends.len().checked_sub(1).filter(|&others| others > 0 && !has_index) else {
            return Ok(());
        };
        let others = u8::try_from(others).map_err(|_| Malformed::SpatialLayers)?;
        // Four bytes for each length: FRAME_BYTES_MAX needs three, and nothing is gained by fewer.
        let marker = INDEX_MARKER | 0x03 << 3 | others;
        frame.put(&[marker])?;
        let mut begin = 0usize;
        for &end in &self.ends {
            let length = u32::try_from(end.saturating_sub(begin)).map_err(|_| Malformed::FrameTooLarge)?;
            frame.put(&length.to_le_bytes())?;
            begin = end;
        }
        frame.put(&[marker])
    }
}

/// The size in the uncompressed header (VP9 bitstream 6.2) of a key frame, `None` of another.
fn key_size(frame: &[u8]) -> Result<Option<Size>, Malformed> {
    let mut bits = Bits::new(frame);
    match read_key_size(&mut bits) {
        Some(Header::Key(size)) => Ok(Some(size)),
        Some(Header::Other) => Ok(None),
        Some(Header::Wrong) | None => Err(Malformed::KeyHeader),
    }
}

enum Header {
    Key(Size),
    Other,
    Wrong,
}

fn read_key_size(bits: &mut Bits<'_>) -> Option<Header> {
    if bits.number(2)? != 2 {
        return Some(Header::Wrong);
    }
    let profile = u32::from(bits.bit()?) | u32::from(bits.bit()?) << 1;
    if profile == 3 {
        bits.skip(1)?;
    }
    let (shows_existing, is_inter) = (bits.bit()?, bits.bit()?);
    if shows_existing || is_inter {
        return Some(Header::Other);
    }
    // show_frame, error_resilient_mode
    bits.skip(2)?;
    if bits.number(24)? != 0x49_83_42 {
        return Some(Header::Wrong);
    }
    if profile >= 2 {
        bits.skip(1)?;
    }
    let is_rgb = bits.number(3)? == 7;
    let has_subsampling = profile & 1 == 1;
    match (is_rgb, has_subsampling) {
        (true, true) => bits.skip(1)?,
        (true, false) => return Some(Header::Wrong),
        (false, true) => bits.skip(4)?,
        (false, false) => bits.skip(1)?,
    }
    let width = bits.number(16)?.saturating_add(1);
    let height = bits.number(16)?.saturating_add(1);
    Some(Header::Key(Size { width, height }))
}

/// RFC 9628 4.2.
struct Descriptor {
    begins_layer: bool,
    is_inter_picture: bool,
    spatial: u8,
    is_inter_layer: bool,
    place: Place,
    /// Of the highest layer.
    size: Option<Size>,
}

impl Descriptor {
    /// It and what follows it, which is not empty.
    fn parse(payload: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let mut rest = payload.iter();
        let mut next = || rest.next().copied().ok_or(Malformed::Truncated);
        let required = next()?;
        let is_flexible = required & 0x10 != 0;
        let is_inter_picture = required & 0x40 != 0;
        let (mut spatial, mut is_inter_layer) = (0, false);
        let mut place = Place::default();
        if required & 0x80 != 0 {
            let first = next()?;
            place.picture = Some(if first & 0x80 == 0 {
                PictureId { value: first.into(), bits: 7 }
            } else {
                PictureId { value: u16::from_be_bytes([first & 0x7f, next()?]), bits: 15 }
            });
        }
        if required & 0x20 != 0 {
            let layer = next()?;
            place.temporal = layer >> 5;
            place.frees_higher = layer & 0x10 != 0;
            spatial = layer >> 1 & 0x07;
            is_inter_layer = layer & 0x01 != 0;
            if !is_flexible {
                place.base_index = Some(next()?);
            }
        }
        if is_flexible {
            let mut references = 0u128;
            let mut others = if is_inter_picture { REFERENCES_MAX } else { 0 };
            while others > 0 {
                let reference = next()?;
                references |= 1u128.checked_shl(u32::from(reference >> 1)).unwrap_or_default();
                others = if reference & 0x01 == 0 { 0 } else { others.saturating_sub(1) };
                if others == 0 && reference & 0x01 != 0 {
                    return Err(Malformed::Truncated);
                }
            }
            place.references = Some(references);
        }
        let mut size = None;
        if required & 0x02 != 0 {
            let head = next()?;
            if head & 0x10 != 0 {
                for _ in 0..=head >> 5 {
                    let width = u16::from_be_bytes([next()?, next()?]);
                    let height = u16::from_be_bytes([next()?, next()?]);
                    size = Some(Size { width: width.into(), height: height.into() });
                }
            }
            if head & 0x08 != 0 {
                for _ in 0..next()? {
                    for _ in 0..next()? >> 2 & 0x03 {
                        next()?;
                    }
                }
            }
        }
        size = size.filter(|size| size.width > 0 && size.height > 0);
        let begins_layer = required & 0x08 != 0;
        match rest.as_slice() {
            [] => Err(Malformed::Truncated),
            rest => Ok((Self { begins_layer, is_inter_picture, spatial, is_inter_layer, place, size }, rest)),
        }
    }

    fn begins_key_picture(&self) -> bool {
        self.begins_layer && !self.is_inter_picture && !self.is_inter_layer
    }
}

const REFERENCES_MAX: u8 = 3;
const SPATIAL_LAYERS_MAX: usize = 8;
const INDEX_MARKER: u8 = 0xc0;
