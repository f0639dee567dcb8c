//! What was sent under which number, so that a NACK is answered with the same bytes, and how much may be answered.

use std::time::{Duration, Instant};

use plenary_model::MediaKind;

use crate::ingress::low_word;

/// A ring by outgoing number: at most 8 KiB per subscription.
#[derive(Debug)]
pub(super) struct History {
    epoch: Instant,
    packets: usize,
    /// Empty until a packet leaves: who is muted, or not looked at, may never send one.
    entries: Box<[Entry]>,
}

/// Sixteen bytes, so that the ring stays within its budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Entry {
    extended: u32,
    source: u32,
    /// Added to the picture id.
    picture_shift: u16,
    /// Wraps after a minute, when a repair more or less does not matter.
    repaired_ms: u16,
    transport_sequence: u16,
    segment: u8,
    flags: u8,
}

/// What cannot be told from the packet that comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AsSent {
    pub(super) with_mid: bool,
    pub(super) marker: bool,
    /// The number was taken, and nothing else sent.
    pub(super) is_empty: bool,
    pub(super) picture_shift: u16,
}

impl History {
    pub(super) fn new(now: Instant, kind: MediaKind) -> Self {
        let packets = match kind {
            MediaKind::Audio => AUDIO_ENTRIES,
            MediaKind::Video => VIDEO_ENTRIES,
        };
        Self { epoch: now, packets, entries: Box::default() }
    }

    pub(super) fn record(&mut self, extended: u64, entry: Entry) {
        if self.entries.is_empty() {
            self.entries = vec![Entry::default(); self.packets].into_boxed_slice();
        }
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
        let packets = u64::try_from(self.packets).unwrap_or_default();
        extended < next && next.saturating_sub(extended) <= packets
    }

    /// Whether the last repair may still be on its way.
    pub(super) fn is_held(&self, now: Instant, rtt: Duration, entry: &Entry) -> bool {
        let since = Duration::from_millis(self.millis(now).wrapping_sub(entry.repaired_ms).into());
        // Clients ask again after about a round trip, by their own measure.
        let rtt = rtt.clamp(HOLD_MIN, HOLD_MAX);
        let hold = rtt.saturating_sub(rtt.checked_div(4).unwrap_or_default());
        entry.flags & REPAIRED != 0 && since < hold
    }

    fn millis(&self, now: Instant) -> u16 {
        u16::try_from(now.saturating_duration_since(self.epoch).as_millis() & 0xffff).unwrap_or_default()
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
    pub(super) fn new(extended: u64, source: u64, segment: u8, as_sent: AsSent) -> Self {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        Self {
            extended: low_word(extended),
            source: low_word(source),
            picture_shift: as_sent.picture_shift,
            repaired_ms: 0,
            transport_sequence: 0,
            segment,
            flags: USED
                | flag(as_sent.with_mid, WITH_MID)
                | flag(as_sent.marker, MARKER)
                | flag(as_sent.is_empty, EMPTY),
        }
    }

    pub(super) fn as_sent(&self) -> AsSent {
        AsSent {
            with_mid: self.flags & WITH_MID != 0,
            marker: self.flags & MARKER != 0,
            is_empty: self.flags & EMPTY != 0,
            picture_shift: self.picture_shift,
        }
    }

    pub(super) fn source(&self) -> u32 {
        self.source
    }

    pub(super) fn segment(&self) -> u8 {
        self.segment
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
const MARKER: u8 = 16;
const EMPTY: u8 = 32;
const VIDEO_ENTRIES: usize = 512;
/// More than a second of 20 ms packets: what is asked for later would come too late to be heard.
const AUDIO_ENTRIES: usize = 64;
/// Below this a measured round trip is no better than the timer that drives us.
const HOLD_MIN: Duration = Duration::from_millis(10);
const HOLD_MAX: Duration = Duration::from_millis(500);
pub(super) const REPAIR_BYTES_PER_SECOND: i64 = 250_000;
pub(super) const REPAIR_BURST_BYTES: i64 = 125_000;

const _: () = assert!(std::mem::size_of::<Entry>() * VIDEO_ENTRIES <= 8 * 1024);
