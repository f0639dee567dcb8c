//! What was received under each SSRC: roll-over counter and replay window (RFC 3711 section 3.3).

use std::time::{Duration, Instant};

use crate::api::DropReason;

/// The SSRCs of one direction and protocol, sorted.
#[derive(Debug, Default)]
pub(super) struct Receivers {
    known: Vec<Receiver>,
}

#[derive(Debug)]
struct Receiver {
    ssrc: u32,
    /// Highest index authenticated.
    highest: u64,
    /// Bit n of the ring: index `highest - highest % WINDOW + n`, or one window less if that lies above `highest`.
    seen: [u64; WINDOW_WORDS],
    last: Instant,
}

/// Where an SSRC stands or would stand.
#[derive(Debug, Clone, Copy)]
pub(super) enum Slot {
    Known(usize),
    New,
}

#[cfg(test)]
impl Receivers {
    pub fn len(&self) -> usize {
        self.known.len()
    }
}

impl Receivers {
    /// Finds the SSRC, or says whether there would be room for it. Nothing is made before it proved authentic.
    pub fn find(&self, now: Instant, ssrc: u32) -> Result<Slot, DropReason> {
        match self.known.binary_search_by_key(&ssrc, |known| known.ssrc) {
            Ok(at) => Ok(Slot::Known(at)),
            Err(_) if self.known.len() < SSRCS_MAX || self.idle(now).is_some() => Ok(Slot::New),
            Err(_) => Err(DropReason::TooManySsrcs),
        }
    }

    /// The index a sequence number most likely stands for (RFC 3711 section 3.3.1).
    pub fn index_of(&self, slot: Slot, sequence: u16) -> u64 {
        let Some(highest) = self.get(slot).map(|known| known.highest) else { return u64::from(sequence) };
        let roc = highest >> 16;
        let [.., h0, h1] = highest.to_be_bytes();
        let top = i32::from(u16::from_be_bytes([h0, h1]));
        let distance = i32::from(sequence).wrapping_sub(top);
        let roc = match distance {
            ..-0x8000 => roc.wrapping_add(1),
            0x8001.. => roc.saturating_sub(1),
            _ => roc,
        };
        (roc << 16) | u64::from(sequence)
    }

    /// Whether this index came before, or is too old to tell.
    pub fn is_replayed(&self, slot: Slot, index: u64) -> bool {
        self.get(slot).is_some_and(|known| {
            known.highest.checked_sub(index).is_some_and(|age| age >= WINDOW || known.is_set(index))
        })
    }

    /// The packet was authentic.
    pub fn accept(&mut self, now: Instant, slot: Slot, ssrc: u32, index: u64) {
        let known = match slot {
            Slot::Known(at) => self.known.get_mut(at),
            Slot::New => {
                if self.known.len() >= SSRCS_MAX
                    && let Some(idle) = self.idle(now)
                {
                    self.known.remove(idle);
                }
                let at = self.known.partition_point(|known| known.ssrc < ssrc);
                let fresh = Receiver { ssrc, highest: index, seen: [0; WINDOW_WORDS], last: now };
                self.known.insert(at, fresh);
                self.known.get_mut(at)
            }
        };
        if let Some(known) = known {
            known.accept(index);
            known.last = now;
        }
    }

    fn get(&self, slot: Slot) -> Option<&Receiver> {
        match slot {
            Slot::Known(at) => self.known.get(at),
            Slot::New => None,
        }
    }

    /// The SSRC silent for longest, if that is long enough to believe its stream ended.
    fn idle(&self, now: Instant) -> Option<usize> {
        let (at, known) = self.known.iter().enumerate().min_by_key(|(_, known)| known.last)?;
        (now.saturating_duration_since(known.last) >= SSRC_IDLE).then_some(at)
    }
}

impl Receiver {
    fn accept(&mut self, index: u64) {
        if let Some(ahead) = index.checked_sub(self.highest) {
            if ahead >= WINDOW {
                self.seen = [0; WINDOW_WORDS];
            } else {
                for skipped in 1..ahead {
                    self.set(self.highest.wrapping_add(skipped), false);
                }
            }
            self.highest = index;
        }
        self.set(index, true);
    }

    fn is_set(&self, index: u64) -> bool {
        let (word, bit) = place(index);
        self.seen.get(word).is_some_and(|word| word & bit != 0)
    }

    fn set(&mut self, index: u64, value: bool) {
        let (word, bit) = place(index);
        if let Some(word) = self.seen.get_mut(word) {
            *word = if value { *word | bit } else { *word & !bit };
        }
    }
}

fn place(index: u64) -> (usize, u64) {
    // Masks instead of remainders: both divisors are powers of two.
    let word = usize::try_from((index & (WINDOW - 1)) >> u64::BITS.trailing_zeros()).unwrap_or_default();
    (word, 1_u64.rotate_left((index & 63) as u32))
}

/// SSRCs of one peer at a time. A client that publishes everything it may, in three layers with repair, has about 60 alive.
pub(super) const SSRCS_MAX: usize = 128;
/// A stream silent for this long gives its place to a new one when all are taken.
pub(super) const SSRC_IDLE: Duration = Duration::from_secs(60);
/// How far behind the newest packet one may come. Clients without RTX repeat and probe with old packets.
pub(super) const WINDOW: u64 = 1_024;
const WINDOW_WORDS: usize = (WINDOW / 64) as usize;
