//! The dependency descriptor, an RTP header extension (RTP payload format for AV1, appendix A): which frames a packet's
//! frame needs, and who needs it. It stays in the clear under end-to-end encryption.
//!
//! A key frame brings a structure of templates, and every packet names the template that its frame is made after. The
//! structure is kept by the stream; everything has its limit in the syntax, and where that has none, here.

use super::layers::{Distances, Layers, Needs};

/// The fields that every packet has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mandatory {
    pub(crate) starts_frame: bool,
    pub(crate) ends_frame: bool,
    pub(crate) frame_number: u16,
    template_id: u8,
}

/// What a key frame says about all that follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Structure {
    template_offset: u8,
    template_count: u8,
    templates: [Template; TEMPLATES_MAX],
    target_count: u8,
    /// Spatial and temporal layer of each decode target.
    targets: [(u8, u8); TARGETS_MAX],
    chain_count: u8,
    sizes: [(u16, u16); SPATIAL_LAYERS_MAX],
    sizes_count: u8,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Template {
    spatial: u8,
    temporal: u8,
    indications: Indications,
    present: Layers,
    switch: Layers,
    distances: Distances,
    /// It has more distances than are kept.
    needs_more: bool,
}

/// One packet's descriptor, resolved by its structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
    pub(crate) present: Layers,
    pub(crate) switch: Layers,
    /// Said by this packet, if it says so.
    pub(crate) active: Option<Layers>,
    pub(crate) needs: Needs,
}

/// The decode targets that a subscriber is to expect, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ActiveTargets {
    bits: u32,
    count: u8,
}

/// What changes in the descriptors of one subscriber's stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Added to the frame number.
    pub(crate) frame_number: u16,
    /// `None`: all that the publisher says.
    pub(crate) active: Option<ActiveTargets>,
}

/// Room for any descriptor.
pub(crate) type Room = [u8; EXTENSION_BYTES_MAX];

impl Mandatory {
    pub(crate) fn parse(data: &[u8]) -> Option<Self> {
        let (&[first, high, low], _) = data.split_first_chunk::<MANDATORY_BYTES>()?;
        Some(Self {
            starts_frame: first & 0x80 != 0,
            ends_frame: first & 0x40 != 0,
            template_id: first & 0x3f,
            frame_number: u16::from_be_bytes([high, low]),
        })
    }
}

/// The flags that follow the mandatory fields.
#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    structure: bool,
    active: bool,
    indications: bool,
    distances: bool,
}

impl Flags {
    /// Also of a descriptor that ends before them, which has none set.
    fn read(bits: &mut Bits<'_>) -> Option<Self> {
        if bits.left() == 0 {
            return Some(Self::default());
        }
        let flags =
            Self { structure: bits.flag()?, active: bits.flag()?, indications: bits.flag()?, distances: bits.flag()? };
        // Custom chains; they come last and are not looked at.
        bits.flag()?;
        Some(flags)
    }
}

impl Structure {
    /// Whether a packet brings one.
    pub(crate) fn is_in(data: &[u8]) -> bool {
        Flags::read(&mut Bits::after_mandatory(data)).is_some_and(|flags| flags.structure)
    }

    /// The structure that a packet brings: outer `None` if there should be one and it makes no sense.
    pub(crate) fn of(data: &[u8]) -> Option<Option<Self>> {
        let mut bits = Bits::after_mandatory(data);
        if !Flags::read(&mut bits)?.structure {
            return Some(None);
        }
        Some(Some(Self::read(&mut bits)?))
    }

    /// `None` if the packet belongs to another structure or is broken.
    pub(crate) fn describe(&self, mandatory: &Mandatory, data: &[u8]) -> Option<Described> {
        let index = mandatory.template_id.wrapping_sub(self.template_offset) & TEMPLATE_MASK;
        let template = self.templates.get(..usize::from(self.template_count))?.get(usize::from(index))?;
        let mut bits = Bits::after_mandatory(data);
        let flags = Flags::read(&mut bits)?;
        if flags.structure {
            Self::read(&mut bits)?;
        }
        let active = if flags.active { Some(bits.read(self.target_count)?) } else { None };
        let all = || (1u64 << u32::from(self.target_count).min(32)).wrapping_sub(1);
        let active = active.or_else(|| flags.structure.then(|| low_word(all())));
        let (present, switch) = match flags.indications {
            true => self.meaning(Indications::read(&mut bits, self.target_count)?),
            false => (template.present, template.switch),
        };
        let needs = if flags.distances { custom_distances(&mut bits)? } else { template.needs() };
        Some(Described {
            spatial: template.spatial,
            temporal: template.temporal,
            present,
            switch,
            active: active
                .map(|bits| self.layers(|target| bits.checked_shr(target.into()).is_some_and(|bit| bit & 1 != 0))),
            needs,
        })
    }

    /// Those decode targets that a receiver of all up to this layer gets; `None` if that is all of them.
    pub(crate) fn active_up_to(&self, spatial: u8, temporal: u8) -> Option<ActiveTargets> {
        let mut active = ActiveTargets { bits: 0, count: self.target_count };
        let mut all = true;
        for (at, (of_spatial, of_temporal)) in self.targets().enumerate() {
            if of_spatial <= spatial && of_temporal <= temporal {
                active.bits |= u32::try_from(at).ok().and_then(|at| 1u32.checked_shl(at)).unwrap_or_default();
            } else {
                all = false;
            }
        }
        (!all).then_some(active)
    }

    /// Width and height of each spatial layer, from low to high; empty if it does not say.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = (u16, u16)> {
        self.sizes.into_iter().take(usize::from(self.sizes_count))
    }

    fn targets(&self) -> impl Iterator<Item = (u8, u8)> {
        self.targets.into_iter().take(usize::from(self.target_count))
    }

    /// Layers that get a frame, and layers that may be begun with it.
    fn meaning(&self, indications: Indications) -> (Layers, Layers) {
        let present = self.layers(|target| indications.of(target) != NOT_PRESENT);
        (present, self.layers(|target| indications.of(target) == SWITCH))
    }

    fn layers(&self, is_in: impl Fn(u8) -> bool) -> Layers {
        let targets = self.targets().zip(0u8..).filter(|(_, target)| is_in(*target));
        targets.fold(Layers::NONE, |layers, ((spatial, temporal), _)| layers.or(Layers::of(spatial, temporal)))
    }

    /// `template_dependency_structure()` of A.8.2.
    fn read(bits: &mut Bits<'_>) -> Option<Self> {
        let template_offset = bits.byte(6)?;
        let target_count = bits.byte(5)?.saturating_add(1);
        let mut structure = Self {
            template_offset,
            template_count: 0,
            templates: [Template::default(); TEMPLATES_MAX],
            target_count,
            targets: [(0, 0); TARGETS_MAX],
            chain_count: 0,
            sizes: [(0, 0); SPATIAL_LAYERS_MAX],
            sizes_count: 0,
        };
        let top_spatial = structure.read_layers(bits)?;
        let templates = structure.templates.get_mut(..usize::from(structure.template_count))?;
        for template in templates.iter_mut() {
            template.indications = Indications::read(bits, target_count)?;
        }
        for template in templates.iter_mut() {
            template.read_distances(bits)?;
        }
        structure.chain_count = bits.non_symmetric(target_count.saturating_add(1))?;
        if structure.chain_count > 0 {
            for _ in 0..target_count {
                bits.non_symmetric(structure.chain_count)?;
            }
            for _ in 0..structure.template_count {
                for _ in 0..structure.chain_count {
                    bits.read(4)?;
                }
            }
        }
        structure.find_targets();
        if bits.flag()? {
            structure.sizes_count = top_spatial.saturating_add(1);
            for size in structure.sizes.iter_mut().take(usize::from(structure.sizes_count)) {
                let [width, height] = [bits.read(16)?, bits.read(16)?];
                let plus_one = |less_one: u32| u16::try_from(less_one.saturating_add(1)).unwrap_or(u16::MAX);
                *size = (plus_one(width), plus_one(height));
            }
        }
        Some(structure)
    }

    /// Yields the highest spatial layer.
    fn read_layers(&mut self, bits: &mut Bits<'_>) -> Option<u8> {
        let (mut spatial, mut temporal) = (0u8, 0u8);
        for template in &mut self.templates {
            (template.spatial, template.temporal) = (spatial, temporal);
            self.template_count = self.template_count.saturating_add(1);
            match bits.byte(2)? {
                0 => {}
                1 => temporal = temporal.checked_add(1).filter(|layer| usize::from(*layer) < TEMPORAL_LAYERS_MAX)?,
                2 => {
                    temporal = 0;
                    spatial = spatial.checked_add(1).filter(|layer| usize::from(*layer) < SPATIAL_LAYERS_MAX)?;
                }
                _ => return Some(spatial),
            }
        }
        None
    }

    /// A.8.2 `decode_target_layers()`: a target reaches as high as the frames that are present in it.
    fn find_targets(&mut self) {
        self.find_layers_of_targets();
        for at in 0..usize::from(self.template_count) {
            let Some(indications) = self.templates.get(at).map(|template| template.indications) else { return };
            let meaning = self.meaning(indications);
            if let Some(template) = self.templates.get_mut(at) {
                (template.present, template.switch) = meaning;
            }
        }
    }

    fn find_layers_of_targets(&mut self) {
        let templates = self.templates.iter().take(usize::from(self.template_count));
        for template in templates {
            for (target, layers) in (0u8..self.target_count).zip(&mut self.targets) {
                if template.indications.of(target) != NOT_PRESENT {
                    *layers = (layers.0.max(template.spatial), layers.1.max(template.temporal));
                }
            }
        }
    }
}

impl Template {
    fn read_distances(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        let mut places = self.distances.iter_mut();
        while bits.flag()? {
            let distance = u16::from(bits.byte(4)?).saturating_add(1);
            match places.next() {
                Some(place) => *place = distance,
                None => self.needs_more = true,
            }
        }
        Some(())
    }

    fn needs(&self) -> Needs {
        needs(self.distances, self.needs_more)
    }
}

/// `frame_fdiffs()` of A.8.2.
fn custom_distances(bits: &mut Bits<'_>) -> Option<Needs> {
    let mut distances = Distances::default();
    let mut places = distances.iter_mut();
    let mut needs_more = false;
    loop {
        let nibbles = bits.byte(2)?;
        if nibbles == 0 {
            return Some(needs(distances, needs_more));
        }
        let distance = bits.read(nibbles.saturating_mul(4))?.saturating_add(1);
        match places.next() {
            Some(place) => *place = u16::try_from(distance).ok()?,
            None => needs_more = true,
        }
    }
}

fn needs(distances: Distances, more: bool) -> Needs {
    if more { Needs::UNKNOWN } else { Needs::of_frames(distances) }
}

/// What a frame means to each decode target, two bits each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Indications(u64);

impl Indications {
    fn read(bits: &mut Bits<'_>, targets: u8) -> Option<Self> {
        let mut all = 0u64;
        for target in 0..targets {
            all |= u64::from(bits.byte(2)?).checked_shl(u32::from(target).saturating_mul(2))?;
        }
        Some(Self(all))
    }

    fn of(self, target: u8) -> u8 {
        let shifted = self.0.checked_shr(u32::from(target).saturating_mul(2)).unwrap_or_default();
        if shifted & 2 != 0 { 2 | u8::from(shifted & 1 != 0) } else { u8::from(shifted & 1 != 0) }
    }
}

impl Change {
    /// Writes the descriptor as the subscriber is to see it; yields it as it is where nothing changes or it makes no
    /// sense. Always the same for the same input, so that a repair repeats the first sending.
    pub(crate) fn apply<'o>(&self, data: &'o [u8], room: &'o mut Room) -> &'o [u8] {
        let Some(mandatory) = Mandatory::parse(data) else { return data };
        // What a receiver may expect is said where a frame begins; its other packets would only repeat it.
        let active = self.active.filter(|_| mandatory.starts_frame);
        if self.frame_number == 0 && active.is_none() {
            return data;
        }
        let written = match active {
            Some(active) => restrict(data, active, room),
            None => room.get_mut(..data.len()).map(|copy| {
                copy.copy_from_slice(data);
                data.len()
            }),
        };
        let Some(bytes) = written else { return data };
        let shifted = mandatory.frame_number.wrapping_add(self.frame_number).to_be_bytes();
        if let Some(place) = room.get_mut(1..MANDATORY_BYTES) {
            place.copy_from_slice(&shifted);
        }
        room.get(..bytes).unwrap_or(data)
    }
}

/// Copies a descriptor with the bitmask of active decode targets put in or narrowed. `None` if it does not fit.
fn restrict(data: &[u8], active: ActiveTargets, room: &mut Room) -> Option<usize> {
    let mut from = Bits::after_mandatory(data);
    let is_short = from.left() == 0;
    let head = data.get(..MANDATORY_BYTES)?;
    room.fill(0);
    room.get_mut(..MANDATORY_BYTES)?.copy_from_slice(head);
    let mut to = BitWriter { bytes: room, at: MANDATORY_BYTES.saturating_mul(8) };
    let mut bits = active.bits;
    if is_short {
        to.write(0b01000, 5)?;
    } else {
        let mut look = from;
        let flags = Flags::read(&mut look)?;
        let mut count = active.count;
        if flags.structure {
            count = Structure::read(&mut look)?.target_count;
        }
        if count != active.count {
            return None;
        }
        to.write(from.read(1)?, 1)?;
        from.read(1)?;
        to.write(1, 1)?;
        while from.at < look.at {
            to.write(from.read(1)?, 1)?;
        }
        if flags.active {
            bits &= from.read(count)?;
        }
    }
    to.write(bits, active.count)?;
    while from.left() > 0 {
        to.write(from.read(1)?, 1)?;
    }
    Some(to.at.div_ceil(8))
}

/// Reads a descriptor bit by bit, most significant first.
#[derive(Debug, Clone, Copy)]
struct Bits<'p> {
    data: &'p [u8],
    at: usize,
}

impl<'p> Bits<'p> {
    fn after_mandatory(data: &'p [u8]) -> Self {
        Self { data, at: MANDATORY_BYTES.saturating_mul(8) }
    }

    fn left(&self) -> usize {
        self.data.len().saturating_mul(8).saturating_sub(self.at)
    }

    fn flag(&mut self) -> Option<bool> {
        let byte = self.data.get(self.at / 8)?;
        let bit = byte.checked_shr(7u32.saturating_sub(u32::try_from(self.at % 8).ok()?))? & 1;
        self.at = self.at.saturating_add(1);
        Some(bit != 0)
    }

    /// At most 32 bits.
    fn read(&mut self, bits: u8) -> Option<u32> {
        let mut value = 0u32;
        for _ in 0..bits {
            value = value.wrapping_shl(1) | u32::from(self.flag()?);
        }
        Some(value)
    }

    fn byte(&mut self, bits: u8) -> Option<u8> {
        u8::try_from(self.read(bits)?).ok()
    }

    /// `ns(n)` of A.8.1, a number below `limit`.
    fn non_symmetric(&mut self, limit: u8) -> Option<u8> {
        let width = u8::BITS.saturating_sub(limit.leading_zeros());
        let short = 1u32.checked_shl(width)?.saturating_sub(limit.into());
        let value = self.read(u8::try_from(width.saturating_sub(1)).ok()?)?;
        if value < short {
            return u8::try_from(value).ok();
        }
        let value = value.saturating_mul(2).saturating_sub(short).saturating_add(u32::from(self.flag()?));
        u8::try_from(value).ok()
    }
}

struct BitWriter<'r> {
    bytes: &'r mut Room,
    at: usize,
}

impl BitWriter<'_> {
    /// Into bytes that are zero.
    fn write(&mut self, value: u32, bits: u8) -> Option<()> {
        for bit in (0..bits).rev() {
            let byte = self.bytes.get_mut(self.at / 8)?;
            if value.checked_shr(bit.into())? & 1 != 0 {
                *byte |= 0x80u8.checked_shr(u32::try_from(self.at % 8).ok()?)?;
            }
            self.at = self.at.saturating_add(1);
        }
        Some(())
    }
}

fn low_word(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or_default()
}

const MANDATORY_BYTES: usize = 3;
const TEMPLATES_MAX: usize = 64;
const TEMPLATE_MASK: u8 = 0x3f;
const TARGETS_MAX: usize = 32;
/// Of AV1, whose layer ids have two and three bits.
const SPATIAL_LAYERS_MAX: usize = 4;
const TEMPORAL_LAYERS_MAX: usize = 8;
/// RFC 8285 4.3: the length of an element is one byte.
pub(crate) const EXTENSION_BYTES_MAX: usize = 255;
const NOT_PRESENT: u8 = 0;
const SWITCH: u8 = 2;

#[cfg(test)]
pub(crate) mod tests;
