//! One session of a link: a key for each way, the counter of what is sealed, and the window of what was opened.
//!
//! Hot: once per datagram in either direction. No lock, log, clock read or allocation here.

use std::ops::Range;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::{SEALED, message::Ack};
use crate::DropReason;

/// What a handshake leads to.
pub(super) struct SessionKeys {
    /// Of the link, as both sides speak it.
    pub(super) version: u32,
    pub(super) seal: [u8; KEY_BYTES],
    pub(super) open: [u8; KEY_BYTES],
}

pub(super) struct Session {
    /// What it is called in what we receive.
    pub(super) id: u32,
    /// What it is called in what we send.
    peer_id: u32,
    /// Of the link, as both sides speak it.
    pub(super) version: u32,
    seal: LessSafeKey,
    open: LessSafeKey,
    next: u64,
    pub(super) arrived: Window,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("id", &self.id).field("next", &self.next).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionKeys").finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(id: u32, peer_id: u32, keys: &SessionKeys) -> Option<Self> {
        let key = |bytes| Some(LessSafeKey::new(UnboundKey::new(&AES_128_GCM, bytes).ok()?));
        let (seal, open) = (key(&keys.seal)?, key(&keys.open)?);
        Some(Self { id, peer_id, version: keys.version, seal, open, next: 0, arrived: Window::default() })
    }

    /// Appends a datagram with these frames and says its counter.
    pub(super) fn seal(&mut self, frames: &[u8], out: &mut Vec<u8>) -> Option<u64> {
        let counter = self.next;
        if counter >= COUNTER_MAX {
            return None;
        }
        let header = header(self.peer_id, counter);
        out.extend_from_slice(&header);
        let start = out.len();
        out.extend_from_slice(frames);
        let sealed = out.get_mut(start..)?;
        let tag = self.seal.seal_in_place_separate_tag(nonce(counter), Aad::from(header), sealed).ok()?;
        out.extend_from_slice(tag.as_ref());
        self.next = counter.saturating_add(1);
        Some(counter)
    }

    /// Opens a datagram in place: its counter, and where its frames lie. One that came before is refused.
    pub(super) fn open(&mut self, datagram: &mut [u8]) -> Result<(u64, Range<usize>), DropReason> {
        let (header, sealed) = datagram.split_first_chunk_mut::<HEADER_BYTES>().ok_or(DropReason::LinkMalformed)?;
        let [.., c0, c1, c2, c3, c4, c5, c6, c7] = *header;
        let counter = u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]);
        // Looked at before as well, so that replaying costs nobody a decryption.
        if counter >= COUNTER_MAX || self.arrived.has(counter) {
            return Err(DropReason::LinkReplayed);
        }
        let opened = self.open.open_in_place(nonce(counter), Aad::from(*header), sealed);
        let bytes = opened.map_err(|_| DropReason::LinkNotAuthentic)?.len();
        self.arrived.add(counter);
        Ok((counter, HEADER_BYTES..HEADER_BYTES.saturating_add(bytes)))
    }

    /// How many datagrams its key has sealed.
    pub(super) fn sealed(&self) -> u64 {
        self.next
    }

    #[cfg(test)]
    pub(super) fn peer_id(&self) -> u32 {
        self.peer_id
    }
}

/// The session a sealed datagram is for.
pub(crate) fn session_of(datagram: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(datagram.get(1..5)?.try_into().ok()?))
}

fn header(session: u32, counter: u64) -> [u8; HEADER_BYTES] {
    let ([a, b, c, d], [e, f, g, h, i, j, k, l]) = (session.to_be_bytes(), counter.to_be_bytes());
    [SEALED, a, b, c, d, e, f, g, h, i, j, k, l]
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    if let Some((_, low)) = nonce.split_last_chunk_mut::<8>() {
        *low = counter.to_be_bytes();
    }
    Nonce::assume_unique_for_key(nonce)
}

/// Which of the last counters came in.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// One past the highest.
    end: u64,
    words: [u64; WINDOW_WORDS],
}

impl Window {
    /// Whether it came, or is too long ago to know.
    pub(super) fn has(&self, counter: u64) -> bool {
        counter < self.end.saturating_sub(WINDOW) || (counter < self.end && self.bit(counter))
    }

    pub(super) fn add(&mut self, counter: u64) {
        if counter >= self.end {
            // What it slides over becomes unseen; beyond its size that is everything.
            for passed in self.end.max(counter.saturating_sub(WINDOW))..=counter {
                self.change(passed, |word, bit| *word &= !bit);
            }
            self.end = counter.saturating_add(1);
        }
        self.change(counter, |word, bit| *word |= bit);
    }

    /// The highest that came.
    pub(super) fn highest(&self) -> Option<u64> {
        self.end.checked_sub(1)
    }

    /// What came, as it is told to the other side.
    pub(super) fn ack(&self) -> Option<Ack> {
        let highest = self.highest()?;
        let word = |word: u64| {
            let bit = |bit: u64| {
                let below = word.saturating_mul(64).saturating_add(bit);
                let came = highest.checked_sub(below).is_some_and(|counter| self.bit(counter));
                u64::from(came).wrapping_shl(u32::try_from(bit).unwrap_or_default())
            };
            (0..64).map(bit).fold(0, |word, bit| word | bit)
        };
        let [received_0, received_1, received_2, received_3] = [0, 1, 2, 3].map(word);
        Some(Ack { highest, received_0, received_1, received_2, received_3 })
    }

    fn bit(&self, counter: u64) -> bool {
        let (word, bit) = place(counter);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    fn change(&mut self, counter: u64, change: impl FnOnce(&mut u64, u64)) {
        let (word, bit) = place(counter);
        if let Some(word) = self.words.get_mut(word) {
            change(word, bit);
        }
    }
}

fn place(counter: u64) -> (usize, u64) {
    let position = counter % WINDOW;
    let bit = 1u64.wrapping_shl(u32::try_from(position % 64).unwrap_or_default());
    (usize::try_from(position / 64).unwrap_or(usize::MAX), bit)
}

impl Ack {
    /// Whether a datagram came; `None` if this does not say.
    pub(super) fn has(&self, counter: u64) -> Option<bool> {
        let below = self.highest.checked_sub(counter).filter(|below| *below < ACKED)?;
        let words = [self.received_0, self.received_1, self.received_2, self.received_3];
        let word = words.get(usize::try_from(below / 64).ok()?)?;
        Some(word.wrapping_shr(u32::try_from(below % 64).ok()?) & 1 == 1)
    }
}

pub(super) const KEY_BYTES: usize = 16;
pub(crate) const HEADER_BYTES: usize = 13;
pub(crate) const TAG_BYTES: usize = 16;
/// Datagrams that one Ack speaks of.
pub(super) const ACKED: u64 = 256;
const WINDOW_WORDS: usize = 32;
const WINDOW: u64 = 64 * WINDOW_WORDS as u64;
/// Never reached: keys are changed every hour. NIST SP 800-38D 8.3 is content with 2^32 for random nonces and with
/// any number of counted ones.
const COUNTER_MAX: u64 = 1 << 48;

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Session, Session) {
        let (one, two) = ([1; KEY_BYTES], [2; KEY_BYTES]);
        let a = Session::new(10, 20, &SessionKeys { version: 1, seal: one, open: two }).unwrap();
        (a, Session::new(20, 10, &SessionKeys { version: 1, seal: two, open: one }).unwrap())
    }

    #[test]
    fn what_is_sealed_opens_once_and_unchanged_alone() {
        let (mut a, mut b) = pair();
        let mut datagram = Vec::new();
        assert_eq!(a.seal(b"frames", &mut datagram), Some(0));
        assert_eq!(session_of(&datagram), Some(20));
        assert_eq!(datagram.len(), HEADER_BYTES + 6 + TAG_BYTES);
        for at in 0..datagram.len() {
            let mut changed = datagram.clone();
            changed[at] ^= 0x80;
            assert!(b.open(&mut changed).is_err(), "{at}");
        }
        assert!(a.open(&mut datagram.clone()).is_err(), "it does not open what it sealed");
        let mut first = datagram.clone();
        let (counter, frames) = b.open(&mut first).unwrap();
        assert_eq!((counter, &first[frames]), (0, &b"frames"[..]));
        assert_eq!(b.open(&mut datagram), Err(DropReason::LinkReplayed));
        assert_eq!(b.open(&mut [SEALED; 5]), Err(DropReason::LinkMalformed));
    }

    #[test]
    fn the_window_knows_the_last_two_thousand_and_forty_eight() {
        let mut window = Window::default();
        for counter in [5_000, 5_002, 5_010, 5_009] {
            assert!(!window.has(counter));
            window.add(counter);
            assert!(window.has(counter));
        }
        assert!(!window.has(5_001));
        assert!(!window.has(5_011 - WINDOW));
        assert!(window.has(5_010 - WINDOW), "too long ago to know");
        window.add(5_010 + 3 * WINDOW);
        assert!(!window.has(5_010 + 3 * WINDOW - 1), "what it jumped over has not come");
    }

    #[test]
    fn an_ack_says_what_came_of_the_last_two_hundred_and_fifty_six() {
        let mut window = Window::default();
        assert_eq!(window.ack(), None);
        (0..1_000u64).filter(|counter| counter % 7 != 3).for_each(|counter| window.add(counter));
        let ack = window.ack().unwrap();
        for counter in 0..1_100u64 {
            let expected = (744..1_000).contains(&counter).then_some(counter % 7 != 3);
            assert_eq!(ack.has(counter), expected, "{counter}");
        }
    }
}
