//! The frames of one stream: what a packet's payload and extensions say, in terms that hold for every codec.
//!
//! The dependency descriptor comes first where there is one, then the payload descriptor. What neither tells has no layers
//! and is forwarded whole. Hot: once per received packet; memory for layers is taken when a stream turns out to have some.

use std::time::Instant;

use super::layer_rates::LayerRates;
use crate::rtp::{
    Codec, FrameInfo, Header,
    dependency::{Mandatory, Structure},
    distance,
    layers::{Frame, LayerId, Layers, Needs, SPATIAL_MAX, TEMPORAL_MAX},
    picture::{Descriptor, PictureId},
    vp8,
    vp9::{self, LayerIndices},
};

#[derive(Debug)]
pub(super) struct Frames {
    codec: Codec,
    /// Id of the dependency descriptor in the publisher's packets.
    dependency_id: Option<u8>,
    structure: Option<Box<Structure>>,
    /// Number of the key frame that brought the structure.
    structure_since: u64,
    /// What the newest descriptor says that is being sent.
    active: Layers,
    top: Top,
    newest: Option<Newest>,
    /// Of the newest key picture.
    key_timestamp: Option<u32>,
    rates: Option<Box<LayerRates>>,
}

/// The newest picture or frame, in the counter that the packets bring and without wraps.
#[derive(Debug, Clone, Copy)]
struct Newest {
    raw: u16,
    number: u64,
}

impl Frames {
    pub(super) fn new(codec: Codec, dependency_id: Option<u8>) -> Self {
        Self {
            codec,
            dependency_id,
            structure: None,
            structure_since: 0,
            active: Layers::NONE,
            top: Top::default(),
            newest: None,
            key_timestamp: None,
            rates: None,
        }
    }

    /// `is_newest`: no later packet of the stream has come.
    pub(super) fn inspect(&mut self, now: Instant, header: &Header, packet: &[u8], is_newest: bool) -> FrameInfo {
        let mut info = self.codec.inspect(header.payload_of(packet));
        let described = self.dependency_id.and_then(|id| header.extension(packet, id));
        info.frame = match (described, info.picture) {
            (Some(data), _) => {
                let (frame, keyframe) = self.described(data, is_newest);
                info.keyframe = keyframe;
                Some(frame)
            }
            // A repair may have lost the extension; what cannot be placed must not go out. A stream goes on without it whole.
            (None, _) if self.structure.is_some() => (!is_newest).then(|| self.unknown(0)),
            (None, Some(descriptor)) => self.counted(&descriptor, header.marker, is_newest),
            (None, None) => None,
        };
        if let Some(frame) = &info.frame {
            if info.keyframe && is_newest {
                self.key_timestamp = Some(header.timestamp);
            }
            let in_key_picture = self.key_timestamp == Some(header.timestamp);
            self.rates.get_or_insert_default().add(now, frame, packet.len(), in_key_picture);
            if let Some(Descriptor::Vp9(descriptor)) = info.picture
                && let Some((structure, rates)) = descriptor.structure.zip(self.rates.as_mut())
            {
                rates.set_sizes(structure.sizes());
            }
        }
        info
    }

    /// The number of a frame that was seen before, from its packet.
    pub(super) fn number_of(&self, header: &Header, packet: &[u8]) -> Option<u64> {
        let described = self.dependency_id.and_then(|id| header.extension(packet, id));
        if let Some(mandatory) = described.and_then(Mandatory::parse) {
            return self.extended(mandatory.frame_number, u16::BITS);
        }
        let descriptor = self.codec.descriptor(header.payload_of(packet))?;
        let id = descriptor.picture_id()?;
        let picture = self.extended(id.value, id.width.bits())?;
        let spatial = match descriptor {
            Descriptor::Vp8(_) => return Some(picture),
            Descriptor::Vp9(descriptor) => descriptor.layer?.spatial,
        };
        Some(frame_number(picture, spatial))
    }

    pub(super) fn structure(&self) -> Option<&Structure> {
        self.structure.as_deref()
    }

    pub(super) fn rates(&self) -> Option<&LayerRates> {
        self.rates.as_deref()
    }

    /// A frame by its dependency descriptor, and whether a decoder can start with this packet.
    fn described(&mut self, data: &[u8], is_newest: bool) -> (Frame, bool) {
        let Some(mandatory) = Mandatory::parse(data) else { return (self.unknown(0), false) };
        let number = self.extend(mandatory.frame_number, u16::BITS, is_newest);
        let brought = Structure::of(data);
        let brings = matches!(brought, Some(Some(_)));
        if let Some(Some(structure)) = brought
            && number >= self.structure_since
        {
            self.structure_since = number;
            match &mut self.structure {
                Some(kept) => **kept = structure,
                None => self.structure = Some(Box::new(structure)),
            }
            if let Some(structure) = &self.structure {
                self.rates.get_or_insert_default().set_sizes(structure.sizes());
            }
        }
        let described = self.structure.as_ref().and_then(|structure| structure.describe(&mandatory, data));
        let Some(described) = described else { return (self.unknown(number), false) };
        if let Some(active) = described.active.filter(|_| is_newest || brings) {
            self.active = active;
        }
        let frame = Frame {
            number,
            spatial: described.spatial,
            temporal: described.temporal,
            starts: mandatory.starts_frame,
            ends: mandatory.ends_frame,
            present: described.present,
            switch: described.switch,
            active: self.active,
            needs: described.needs,
        };
        (frame, brings && mandatory.starts_frame && described.needs == Needs::NOTHING)
    }

    /// A frame that is nobody's. Number 0 lies before all others.
    fn unknown(&self, number: u64) -> Frame {
        Frame {
            number,
            spatial: 0,
            temporal: 0,
            starts: false,
            ends: false,
            present: Layers::NONE,
            switch: Layers::NONE,
            active: self.active,
            needs: Needs::UNKNOWN,
        }
    }

    /// A frame by its payload descriptor. `None` if that counts no pictures or tells no layers.
    fn counted(&mut self, descriptor: &Descriptor, marker: bool, is_newest: bool) -> Option<Frame> {
        let PictureId { value, width, .. } = descriptor.picture_id()?;
        match descriptor {
            Descriptor::Vp8(descriptor) => {
                let (temporal, needs_base_alone) = descriptor.temporal()?;
                let number = self.extend(value, width.bits(), is_newest);
                Some(vp8_frame(descriptor, number, temporal, needs_base_alone, marker))
            }
            Descriptor::Vp9(descriptor) => {
                let layer = descriptor.layer?;
                let picture = self.extend(value, width.bits(), is_newest);
                if let Some(structure) = descriptor.structure.filter(|_| is_newest) {
                    self.top = Top { spatial: structure.top_spatial().min(SPATIAL_MAX), lower: 0 };
                }
                if is_newest {
                    self.top.note(layer.spatial.min(SPATIAL_MAX), marker, !descriptor.is_inter_picture);
                }
                let active = Layers::up_to(self.top.spatial, TEMPORAL_MAX);
                Some(vp9_frame(descriptor, layer, picture, active))
            }
        }
    }

    /// The running number of a counter's value, with the same low bits. One that goes back in a newer packet has been
    /// begun anew, and is taken as a jump ahead.
    fn extend(&mut self, raw: u16, bits: u32, is_newest: bool) -> u64 {
        let number = match self.newest {
            Some(newest) if is_newest && distance(newest.raw, raw, bits) < 0 => {
                let turn = 1u64.checked_shl(bits).unwrap_or_default();
                self.extended(raw, bits).unwrap_or_default().saturating_add(turn)
            }
            Some(_) => self.extended(raw, bits).unwrap_or_default(),
            None => FIRST_NUMBER.saturating_add(raw.into()),
        };
        if self.newest.is_none_or(|newest| number > newest.number) {
            self.newest = Some(Newest { raw, number });
        }
        number
    }

    fn extended(&self, raw: u16, bits: u32) -> Option<u64> {
        let newest = self.newest?;
        newest.number.checked_add_signed(distance(newest.raw, raw, bits).into())
    }
}

/// The highest spatial layer that VP9 pictures have, by which packet ends them.
#[derive(Debug, Default)]
struct Top {
    spatial: u8,
    /// Pictures in a row that ended below.
    lower: u8,
}

impl Top {
    fn note(&mut self, spatial: u8, ends_picture: bool, is_intra: bool) {
        if spatial >= self.spatial {
            *self = Self { spatial, lower: 0 };
        } else if ends_picture {
            self.lower = self.lower.saturating_add(1);
            // An encoder leaves out a layer now and then; after a key picture its word is good.
            if is_intra || self.lower >= LOWER_PICTURES {
                *self = Self { spatial, lower: 0 };
            }
        }
    }
}

fn vp8_frame(descriptor: &vp8::Descriptor, number: u64, temporal: u8, needs_base_alone: bool, marker: bool) -> Frame {
    let below = temporal.checked_sub(1).map(|below| LayerId::new(0, below));
    let switch = if descriptor.keyframe {
        Layers::ALL
    } else if temporal == 0 || needs_base_alone {
        // What comes later in this layer may need the layer between as well, so layers are gained one by one.
        Layers::column(temporal)
    } else {
        Layers::NONE
    };
    let layer = if descriptor.keyframe { None } else { below.or(Some(LayerId::new(0, 0))) };
    Frame {
        number,
        spatial: 0,
        temporal,
        starts: descriptor.start_of_frame,
        ends: marker,
        present: Layers::from_on(0, temporal),
        switch,
        active: Layers::row(0),
        needs: Needs { layer, ..Needs::NOTHING },
    }
}

fn vp9_frame(descriptor: &vp9::Descriptor, layer: LayerIndices, picture: u64, active: Layers) -> Frame {
    let (spatial, temporal) = (layer.spatial.min(SPATIAL_MAX), layer.temporal.min(TEMPORAL_MAX));
    let own = Layers::row(spatial);
    let receivers = if descriptor.is_unneeded_above { own } else { Layers::from_on(spatial, 0) };
    let is_flexible = descriptor.base_layer_index.is_none();
    let mut needs = Needs::NOTHING;
    let inter_layer = (layer.is_inter_layer && spatial > 0).then_some(1);
    let references = descriptor.references.iter().map(|back| u16::from(back).saturating_mul(FRAMES_PER_PICTURE));
    for (place, distance) in needs.frames.iter_mut().zip(inter_layer.into_iter().chain(references)) {
        *place = distance;
    }
    let mut switch = own.and(Layers::column(temporal));
    if !descriptor.is_inter_picture && spatial == 0 {
        switch = Layers::ALL;
    } else if descriptor.is_inter_picture && is_flexible {
        // Its references are named; what comes later in this layer may need the layer between as well.
        needs.layer = temporal.checked_sub(1).map(|below| LayerId::new(spatial, below));
    } else if descriptor.is_inter_picture {
        needs.layer = Some(LayerId::new(spatial, temporal));
        if layer.is_switching_point {
            switch = own.and(Layers::from_on(0, temporal));
        }
    }
    Frame {
        number: frame_number(picture, spatial),
        spatial,
        temporal,
        starts: descriptor.starts_frame,
        ends: descriptor.ends_frame,
        present: receivers.and(Layers::from_on(0, temporal)),
        switch,
        active,
        needs,
    }
}

/// A number for each spatial layer of each picture.
fn frame_number(picture: u64, spatial: u8) -> u64 {
    picture.saturating_mul(FRAMES_PER_PICTURE.into()).saturating_add(spatial.min(SPATIAL_MAX).into())
}

const FRAMES_PER_PICTURE: u16 = 4;
/// Room below for frames that come late.
const FIRST_NUMBER: u64 = 1 << 20;
/// About a quarter of a second.
const LOWER_PICTURES: u8 = 8;

#[cfg(test)]
mod tests;
