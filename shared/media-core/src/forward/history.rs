//! What was sent under which number, so that a NACK is answered with the same bytes, and how much may be answered.

use std::time::{Duration, Instant};

use plenary_model::MediaKind;

use crate::ingress::low_word;

/// A ring by outgoing number: at most 8 KiB per subscription.
#[derive(Debug)]
pub(super) struct History {
    epoch: Instant,
    entries: Box<[Entry]>,
}

/// Sixteen bytes, so that the ring stays within its budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Entry {
    extended: u32,
    source: u32,
    repaired_ms: u32,
    transport_sequence: u16,
    segment: u8,
    flags: u8,
}

impl History {
    pub(super) fn new(now: Instant, kind: MediaKind) -> Self {
        let packets = match kind {
            MediaKind::Audio => AUDIO_ENTRIES,
            MediaKind::Video => VIDEO_ENTRIES,
        };
        Self { epoch: now, entries: vec![Entry::default(); packets].into_boxed_slice() }
    }

    pub(super) fn record(&mut self, extended: u64, entry: Entry) {
        if let Some(place) = self.place(extended) {
            *place = entry;
        }
    }

    pub(super) fn stamped(&mut self, extended: u64, transport_sequence: Option<u16>) {
        if let Some(transport_sequence) = transport_sequence
            && let Some(entry) = self.place(extended).filter(|entry| entry.extended == low_word(extended))
        {
            entry.transport_sequence = transport_sequence;
            entry.flags |= STAMPED;
        }
    }

    /// `entry` has just gone out again, or for the first time.
    pub(super) fn repaired(&mut self, now: Instant, extended: u64, entry: Entry) {
        let repaired_ms = self.millis(now);
        self.record(extended, Entry { repaired_ms, flags: entry.flags | REPAIRED, ..entry });
    }

    pub(super) fn get(&self, extended: u64) -> Option<Entry> {
        let entry = self.entries.get(self.position(extended)?)?;
        (entry.flags & USED != 0 && entry.extended == low_word(extended)).then_some(*entry)
    }

    /// Whether the ring would still know if `extended` had been sent, with `next` coming next.
    pub(super) fn covers(&self, extended: u64, next: u64) -> bool {
        let entries = u64::try_from(self.entries.len()).unwrap_or_default();
        extended < next && next.saturating_sub(extended) <= entries
    }

    /// Whether the last repair may still be on its way.
    pub(super) fn is_held(&self, now: Instant, rtt: Duration, entry: &Entry) -> bool {
        let since = Duration::from_millis(self.millis(now).wrapping_sub(entry.repaired_ms).into());
        entry.flags & REPAIRED != 0 && since < rtt.clamp(HOLD_MIN, HOLD_MAX)
    }

    fn millis(&self, now: Instant) -> u32 {
        let millis = now.saturating_duration_since(self.epoch).as_millis();
        low_word(u64::try_from(millis).unwrap_or_default())
    }

    fn place(&mut self, extended: u64) -> Option<&mut Entry> {
        let at = self.position(extended)?;
        self.entries.get_mut(at)
    }

    fn position(&self, extended: u64) -> Option<usize> {
        usize::try_from(extended.checked_rem(u64::try_from(self.entries.len()).ok()?)?).ok()
    }
}

impl Entry {
    pub(super) fn new(extended: u64, source: u64, segment: u8, with_mid: bool) -> Self {
        Self {
            extended: low_word(extended),
            source: low_word(source),
            repaired_ms: 0,
            transport_sequence: 0,
            segment,
            flags: if with_mid { USED | WITH_MID } else { USED },
        }
    }

    pub(super) fn source(&self) -> u32 {
        self.source
    }

    pub(super) fn segment(&self) -> u8 {
        self.segment
    }

    pub(super) fn with_mid(&self) -> bool {
        self.flags & WITH_MID != 0
    }

    pub(super) fn transport_sequence(&self) -> Option<u16> {
        (self.flags & STAMPED != 0).then_some(self.transport_sequence)
    }
}

/// A token bucket against NACK storms: a subscriber that asks for everything again gets a bounded share.
#[derive(Debug)]
pub(super) struct RepairBudget {
    /// Negative after a packet larger than what was left: it is paid off before the next.
    bytes: i64,
    filled: Instant,
}

impl RepairBudget {
    pub(super) fn new(now: Instant) -> Self {
        Self { bytes: REPAIR_BURST_BYTES, filled: now }
    }

    pub(super) fn has_some(&mut self, now: Instant) -> bool {
        let elapsed = i64::try_from(now.saturating_duration_since(self.filled).as_millis()).unwrap_or_default();
        let earned = elapsed.saturating_mul(REPAIR_BYTES_PER_SECOND) / 1_000;
        if earned > 0 {
            self.bytes = self.bytes.saturating_add(earned).min(REPAIR_BURST_BYTES);
            self.filled = now;
        }
        self.bytes > 0
    }

    pub(super) fn spend(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

const USED: u8 = 1;
const WITH_MID: u8 = 2;
const STAMPED: u8 = 4;
const REPAIRED: u8 = 8;
const VIDEO_ENTRIES: usize = 512;
const AUDIO_ENTRIES: usize = 256;
/// Below this a measured round trip is no better than the timer that drives us.
const HOLD_MIN: Duration = Duration::from_millis(10);
const HOLD_MAX: Duration = Duration::from_millis(500);
pub(super) const REPAIR_BYTES_PER_SECOND: i64 = 250_000;
pub(super) const REPAIR_BURST_BYTES: i64 = 125_000;

const _: () = assert!(std::mem::size_of::<Entry>() * VIDEO_ENTRIES <= 8 * 1024);
