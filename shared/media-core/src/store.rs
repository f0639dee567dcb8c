//! The last packets of one received stream, kept as they came so that any subscriber's loss can be repaired.
//!
//! Hot: one insertion per received packet. No lock, log or clock here, and no allocation once every slot has seen a
//! packet of the usual size.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use plenary_model::MediaKind;

use crate::rtp::PACKET_BYTES_MAX;

/// A ring of plaintext packets by 64-bit index.
#[derive(Debug)]
pub(crate) struct PacketStore {
    slots: Box<[Slot]>,
}

#[derive(Debug, Default)]
struct Slot {
    index: u64,
    packet: Vec<u8>,
}

impl PacketStore {
    pub(crate) fn new(kind: MediaKind) -> Self {
        let slots = match kind {
            MediaKind::Audio => AUDIO_PACKETS,
            MediaKind::Video => VIDEO_PACKETS,
        };
        Self { slots: std::iter::repeat_with(Slot::default).take(slots).collect() }
    }

    /// Keeps a copy, in place of the packet one ring length before. Oversized and outdated packets are not kept.
    pub(crate) fn insert(&mut self, index: u64, packet: &[u8]) {
        if packet.is_empty() || packet.len() > PACKET_BYTES_MAX {
            return;
        }
        let Some(slot) = position(index, self.slots.len()).and_then(|at| self.slots.get_mut(at)) else { return };
        if !slot.packet.is_empty() && slot.index > index {
            return;
        }
        slot.index = index;
        slot.packet.clear();
        // Rounded up, so that packets of slightly different sizes do not make a slot grow again and again.
        if slot.packet.capacity() < packet.len() {
            slot.packet.reserve_exact(packet.len().next_multiple_of(SLOT_STEP_BYTES));
        }
        slot.packet.extend_from_slice(packet);
    }

    /// How many it holds.
    pub(crate) fn packets(&self) -> u64 {
        u64::try_from(self.slots.len()).unwrap_or(u64::MAX)
    }

    pub(crate) fn get(&self, index: u64) -> Option<&[u8]> {
        let slot = self.slots.get(position(index, self.slots.len())?)?;
        (slot.index == index && !slot.packet.is_empty()).then_some(slot.packet.as_slice())
    }
}

fn position(index: u64, slots: usize) -> Option<usize> {
    usize::try_from(index.checked_rem(u64::try_from(slots).ok()?)?).ok()
}

/// About a second of three layers' worth of the busiest one; what a subscriber may still ask for.
pub(crate) const VIDEO_PACKETS: usize = 512;
/// Five seconds of 20 ms packets.
pub(crate) const AUDIO_PACKETS: usize = 256;
const SLOT_STEP_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_packets_are_found_and_older_ones_are_not() {
        let mut store = PacketStore::new(MediaKind::Audio);
        for index in 0..1_000u64 {
            store.insert(index, &index.to_be_bytes());
        }
        for index in 0..1_000u64 {
            let expected = (index >= 1_000 - AUDIO_PACKETS as u64).then_some(index.to_be_bytes());
            assert_eq!(store.get(index), expected.as_ref().map(|bytes| &bytes[..]), "{index}");
        }
        assert_eq!(store.get(1_000), None);
    }

    #[test]
    fn an_outdated_packet_does_not_push_out_a_newer_one() {
        let mut store = PacketStore::new(MediaKind::Video);
        store.insert(VIDEO_PACKETS as u64, b"new");
        store.insert(0, b"old");
        assert_eq!(store.get(VIDEO_PACKETS as u64), Some(&b"new"[..]));
        assert_eq!(store.get(0), None);
    }

    #[test]
    fn packets_over_the_limit_are_not_kept() {
        let mut store = PacketStore::new(MediaKind::Video);
        store.insert(1, &[0; PACKET_BYTES_MAX + 1]);
        store.insert(2, &[0; PACKET_BYTES_MAX]);
        assert_eq!(store.get(1), None);
        assert!(store.get(2).is_some());
    }

    #[test]
    fn slots_are_reused_without_growing() {
        let mut store = PacketStore::new(MediaKind::Audio);
        let fill = |store: &mut PacketStore, from: u64| {
            for index in from..from + AUDIO_PACKETS as u64 {
                store.insert(index, &vec![1; 900 + (index % 100) as usize]);
            }
            store.slots.iter().map(|slot| (slot.packet.as_ptr(), slot.packet.capacity())).collect::<Vec<_>>()
        };
        let first = fill(&mut store, 0);
        for round in 1..10 {
            assert_eq!(fill(&mut store, round * AUDIO_PACKETS as u64), first, "no slot was allocated again");
        }
        assert!(first.iter().all(|(_, capacity)| *capacity <= PACKET_BYTES_MAX.next_multiple_of(SLOT_STEP_BYTES)));
    }
}
