//! A segment is a stretch of the outgoing stream that comes from one source with one set of offsets.

use std::collections::VecDeque;

use crate::{
    forward::{Skip, bits::LastBits},
    ingress::{SenderClock, low_word},
    rtp::{LayerId, StreamId, dependency, picture::Shift},
};

#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) stream: StreamId,
    pub(super) ssrc: u32,
    serial: u8,
    pub(super) timestamp_shift: u32,
    shift: Shift,
    pub(super) dependency: dependency::Change,
    /// What `dependency` was made for, of a stream with layers.
    pub(super) layer: Option<LayerId>,
    /// The source's last sender report.
    pub(super) clock: Option<SenderClock>,
    /// First and newest index of the source.
    first: u64,
    highest: u64,
    pub(super) first_extended: u64,
    /// Added to a source index, gives the outgoing number after all removals so far.
    offset: u64,
    removed: LastBits<REMOVED_WORDS>,
    /// Whole pictures that were left out, whose ids the others close up to.
    left_out: LastBits<LEFT_OUT_WORDS>,
    left_out_count: u16,
}

/// Whose packets a segment takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    pub(super) stream: StreamId,
    pub(super) ssrc: u32,
    pub(super) clock: Option<SenderClock>,
}

/// What makes the first picture of a segment follow the last one that was sent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Offsets {
    pub(super) timestamp: u32,
    pub(super) picture: Shift,
    pub(super) frame_number: u16,
}

/// Where a packet of the segment's source belongs in the outgoing stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Next(u64),
    /// Number and serial of the segment.
    Late((u64, u8)),
    /// Not to be sent; the next packet gets this number in its place.
    Removed(u64),
    BeforeStart,
    Unknown,
    TooFar,
}

impl Segment {
    /// Begins with `index` of `source` as number `extended`.
    pub(super) fn new(source: Source, (index, extended): (u64, u64), offsets: Offsets) -> Self {
        Self {
            stream: source.stream,
            ssrc: source.ssrc,
            serial: 0,
            timestamp_shift: offsets.timestamp,
            shift: offsets.picture,
            dependency: dependency::Change { frame_number: offsets.frame_number, active: None },
            layer: None,
            clock: source.clock,
            first: index,
            highest: index,
            first_extended: extended,
            offset: extended.wrapping_sub(index),
            removed: LastBits::up_to(index),
            left_out: LastBits::up_to(0),
            left_out_count: 0,
        }
    }

    /// Goes on with `index` of the same source as number `extended`, with other frames active.
    pub(super) fn continued(
        &self,
        (index, extended): (u64, u64),
        layer: LayerId,
        dependency: dependency::Change,
    ) -> Self {
        Self {
            layer: Some(layer),
            dependency,
            first: index,
            highest: index,
            first_extended: extended,
            removed: LastBits::up_to(index),
            ..*self
        }
    }

    /// The same source from the next packet on, which becomes number `extended`.
    fn resumed_at(&self, extended: u64) -> Self {
        let (first, removed) = (self.highest.saturating_add(1), LastBits::up_to(self.highest));
        Self { first, first_extended: extended, offset: extended.wrapping_sub(first), removed, ..*self }
    }

    pub(super) fn is_from(&self, stream: StreamId, ssrc: u32) -> bool {
        self.stream == stream && self.ssrc == ssrc
    }

    /// Takes in the next packet of the source. What is not wanted and comes in order is cut out; what comes late already
    /// has its number reserved and must fill it.
    pub(super) fn place(&mut self, index: u64, is_wanted: bool) -> Place {
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
        self.removed.advance(index);
        if !is_wanted {
            let number = index.wrapping_add(self.offset);
            self.removed.set(index);
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
        let removed_after = self.removed.count_after(index).ok_or(Skip::TooOld)?;
        Ok(index.wrapping_add(self.offset).wrapping_add(removed_after))
    }

    /// What is added to the counters of a picture; `None` if it is too old to know.
    pub(super) fn shift_of(&self, picture: Option<u64>) -> Option<Shift> {
        let Some(picture) = picture.filter(|_| self.left_out_count > 0) else { return Some(self.shift) };
        let later = u16::try_from(self.left_out.count_after(picture)?).ok()?;
        let earlier = self.left_out_count.wrapping_sub(later);
        Some(Shift { picture_id: self.shift.picture_id.wrapping_sub(earlier), ..self.shift })
    }

    /// A whole picture is not sent. Once per picture, in order.
    pub(super) fn leave_out(&mut self, picture: u64) {
        if self.left_out.get(picture) != Some(true) {
            self.left_out.advance(picture);
            self.left_out.set(picture);
            self.left_out_count = self.left_out_count.wrapping_add(1);
        }
    }

    /// The index that has this number: one of the packets this segment has passed, sent or not.
    pub(super) fn index_of(&self, extended: u64) -> Option<u64> {
        // Each removal behind the packet moved it one number down.
        let mut index = extended.wrapping_sub(self.offset);
        for _ in 0..INDEX_STEPS {
            match self.number_of(index).ok()?.checked_sub(extended) {
                Some(0) if self.removed.get(index) == Some(true) => index = index.checked_sub(1)?,
                Some(0) => return (self.first..=self.highest).contains(&index).then_some(index),
                Some(above) => index = index.checked_sub(above)?,
                None => return None,
            }
        }
        None
    }

    /// The index of this segment's source with these low 32 bits.
    pub(super) fn full_index(&self, low: u32) -> u64 {
        let distance = low.wrapping_sub(low_word(self.first)).cast_signed();
        self.first.wrapping_add_signed(i64::from(distance))
    }
}

/// The last segments, which have successive serial numbers, modulo 256.
#[derive(Debug, Default)]
pub(super) struct Segments {
    newest: Option<Segment>,
    /// Apart, since a stream without layers never has any.
    older: VecDeque<Segment>,
}

impl Segments {
    pub(super) fn push(&mut self, mut segment: Segment) {
        segment.serial = self.newest_serial().wrapping_add(1);
        if let Some(before) = self.newest.replace(segment) {
            self.older.push_front(before);
            self.older.truncate(OLDER_SEGMENTS);
        }
    }

    /// Leaves the numbers before `extended` to something else than the newest segment's source.
    pub(super) fn make_room(&mut self, extended: u64) -> Option<()> {
        let newest = self.newest.as_mut()?;
        let resumed = newest.resumed_at(extended);
        // Nothing has come since room was made before.
        if newest.first > newest.highest {
            *newest = resumed;
        } else {
            self.push(resumed);
        }
        Some(())
    }

    pub(super) fn newest(&self) -> Option<&Segment> {
        self.newest.as_ref()
    }

    pub(super) fn newest_mut(&mut self) -> Option<&mut Segment> {
        self.newest.as_mut()
    }

    pub(super) fn newest_serial(&self) -> u8 {
        self.newest.as_ref().map_or(0, |newest| newest.serial)
    }

    /// The segment with this serial, if it still is the one that `extended` was sent in: serials come around.
    pub(super) fn get(&self, serial: u8, extended: u64) -> Option<&Segment> {
        let segment = match self.newest_serial().wrapping_sub(serial).checked_sub(1) {
            None => self.newest.as_ref(),
            Some(back) => self.older.get(usize::from(back)),
        }?;
        (extended >= segment.first_extended).then_some(segment)
    }

    /// Number and segment of a packet that one of the last two segments has passed. `None` if neither has.
    pub(super) fn late(&self, stream: StreamId, ssrc: u32, index: u64) -> Option<Result<(u64, u8), Skip>> {
        self.newest.iter().chain(self.older.front()).find_map(|segment| {
            let passed = segment.is_from(stream, ssrc) && (segment.first..=segment.highest).contains(&index);
            passed.then(|| segment.number_of(index).map(|extended| (extended, segment.serial)))
        })
    }
}

/// A NACK may reach back over so many switches.
const OLDER_SEGMENTS: usize = 7;
/// 1,024 packets of the source: more than the store has.
const REMOVED_WORDS: usize = 16;
/// 128 pictures.
const LEFT_OUT_WORDS: usize = 2;
/// Each step goes back over a run of packets that were cut out.
const INDEX_STEPS: usize = 64;
/// A gap beyond this is not loss that could be repaired, and must not eat up the subscriber's sequence space.
const JUMP_MAX: u64 = 1_000;
