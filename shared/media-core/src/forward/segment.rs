//! A segment is a stretch of the outgoing stream that comes from one source with one set of offsets.

use crate::{
    forward::Skip,
    ingress::{Content, SenderClock, low_word},
    rtp::{LayerId, vp8},
};

#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) layer: LayerId,
    pub(super) ssrc: u32,
    serial: u8,
    pub(super) timestamp_shift: u32,
    pub(super) shift: vp8::Shift,
    /// The source's last sender report.
    pub(super) clock: Option<SenderClock>,
    /// First and newest index of the source.
    first: u64,
    highest: u64,
    pub(super) first_extended: u64,
    /// Added to a source index, gives the outgoing number after all removals so far.
    offset: u64,
    removed: Removed,
}

/// Whose packets a segment takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    pub(super) layer: LayerId,
    pub(super) ssrc: u32,
    pub(super) clock: Option<SenderClock>,
}

/// Where a packet of the segment's source belongs in the outgoing stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Next(u64),
    /// Number and serial of the segment.
    Late((u64, u8)),
    /// Padding; the next packet gets this number in its place.
    Removed(u64),
    BeforeStart,
    Unknown,
    TooFar,
}

impl Segment {
    /// Begins with `index` of `source` as number `extended`.
    pub(super) fn new(source: Source, (index, extended): (u64, u64), timestamp_shift: u32, shift: vp8::Shift) -> Self {
        Self {
            layer: source.layer,
            ssrc: source.ssrc,
            serial: 0,
            timestamp_shift,
            shift,
            clock: source.clock,
            first: index,
            highest: index,
            first_extended: extended,
            offset: extended.wrapping_sub(index),
            removed: Removed::default(),
        }
    }

    pub(super) fn is_from(&self, layer: LayerId, ssrc: u32) -> bool {
        self.layer == layer && self.ssrc == ssrc
    }

    /// Takes in the next packet of the source. Padding that comes in order is cut out; what comes late already has its
    /// number reserved and must fill it.
    pub(super) fn place(&mut self, index: u64, content: Content) -> Place {
        if index <= self.highest {
            return match self.number_of(index) {
                Ok(extended) => Place::Late((extended, self.serial)),
                Err(Skip::BeforeSwitch) => Place::BeforeStart,
                Err(_) => Place::Unknown,
            };
        }
        if index.saturating_sub(self.highest) > JUMP_MAX {
            return Place::TooFar;
        }
        self.highest = index;
        if content == Content::PaddingOnly {
            let number = index.wrapping_add(self.offset);
            self.removed.push(index);
            self.offset = self.offset.wrapping_sub(1);
            return Place::Removed(number);
        }
        Place::Next(index.wrapping_add(self.offset))
    }

    /// The outgoing number reserved for an index that was passed.
    fn number_of(&self, index: u64) -> Result<u64, Skip> {
        if index < self.first {
            return Err(Skip::BeforeSwitch);
        }
        let removed_after = self.removed.after(index).ok_or(Skip::TooOld)?;
        Ok(index.wrapping_add(self.offset).wrapping_add(removed_after))
    }

    /// The index that has this number: one of the packets this segment has passed, sent or not.
    pub(super) fn index_of(&self, extended: u64) -> Option<u64> {
        let last = extended.wrapping_sub(self.offset);
        // Each removal behind the packet moved it one number down.
        let candidates = (0..=REMOVED_KEPT).map(|removals| last.wrapping_sub(removals));
        let mut passed =
            candidates.filter(|index| (self.first..=self.highest).contains(index) && !self.removed.contains(*index));
        passed.find(|index| self.number_of(*index) == Ok(extended))
    }

    /// The index of this segment's source with these low 32 bits.
    pub(super) fn full_index(&self, low: u32) -> u64 {
        let distance = low.wrapping_sub(low_word(self.first)).cast_signed();
        self.first.wrapping_add_signed(i64::from(distance))
    }
}

/// The last segments, by serial number modulo 256.
#[derive(Debug)]
pub(super) struct Segments {
    ring: [Option<Segment>; SEGMENTS],
    newest: u8,
}

impl Default for Segments {
    fn default() -> Self {
        Self { ring: [None; SEGMENTS], newest: 0 }
    }
}

impl Segments {
    pub(super) fn push(&mut self, mut segment: Segment) {
        self.newest = self.newest.wrapping_add(1);
        segment.serial = self.newest;
        if let Some(place) = self.ring.get_mut(position(self.newest)) {
            *place = Some(segment);
        }
    }

    pub(super) fn newest(&self) -> Option<&Segment> {
        self.ring.get(position(self.newest))?.as_ref()
    }

    pub(super) fn newest_mut(&mut self) -> Option<&mut Segment> {
        self.ring.get_mut(position(self.newest))?.as_mut()
    }

    pub(super) fn newest_serial(&self) -> u8 {
        self.newest
    }

    /// The segment with this serial, if it still is the one that `extended` was sent in: serials come around.
    pub(super) fn get(&self, serial: u8, extended: u64) -> Option<&Segment> {
        if self.newest.wrapping_sub(serial) >= SEGMENTS_KEPT {
            return None;
        }
        let segment = self.ring.get(position(serial))?.as_ref()?;
        (extended >= segment.first_extended).then_some(segment)
    }

    /// Number and segment of a packet that one of the last two segments has passed. `None` if neither has.
    pub(super) fn late(&self, layer: LayerId, ssrc: u32, index: u64) -> Option<Result<(u64, u8), Skip>> {
        [self.newest, self.newest.wrapping_sub(1)].into_iter().find_map(|serial| {
            let segment = self.ring.get(position(serial))?.as_ref()?;
            let passed = segment.is_from(layer, ssrc) && (segment.first..=segment.highest).contains(&index);
            passed.then(|| segment.number_of(index).map(|extended| (extended, serial)))
        })
    }
}

/// The last indices that were cut out of the stream.
#[derive(Debug, Clone, Copy, Default)]
struct Removed {
    ring: [u64; REMOVED],
    count: u64,
    /// Newest index that fell out of the ring; 0 while none has.
    forgotten: u64,
}

impl Removed {
    fn push(&mut self, index: u64) {
        let at = usize::try_from(self.count % REMOVED_KEPT).unwrap_or_default();
        if let Some(place) = self.ring.get_mut(at) {
            self.forgotten = self.forgotten.max(*place);
            *place = index;
        }
        self.count = self.count.saturating_add(1);
    }

    fn contains(&self, index: u64) -> bool {
        self.ring.contains(&index)
    }

    /// How many later indices were cut out; `None` if that is no longer known.
    fn after(&self, index: u64) -> Option<u64> {
        let known = index > self.forgotten;
        known.then(|| self.ring.iter().fold(0u64, |sum, removed| sum.saturating_add(u64::from(*removed > index))))
    }
}

fn position(serial: u8) -> usize {
    usize::from(serial) % SEGMENTS
}

/// A NACK may reach back over so many switches.
const SEGMENTS: usize = 8;
const SEGMENTS_KEPT: u8 = 8;
const REMOVED: usize = 16;
const REMOVED_KEPT: u64 = 16;
/// A gap beyond this is not loss that could be repaired, and must not eat up the subscriber's sequence space.
const JUMP_MAX: u64 = 1_000;
