//! Words on their way to the other nodes of a room: said together, one call after the other, and again while the bus is away.

use std::collections::VecDeque;

use plenary_model::{Channel, RoomWord};

use crate::ids;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    waiting: VecDeque<RoomWord>,
    bytes: usize,
    /// What is being said.
    said: Vec<RoomWord>,
    /// Of what is being said. Above those of every room of this node before, also of this room's last actor: whoever
    /// heard that one would take what has a lower number for heard.
    number: u64,
    is_busy: bool,
}

impl Outgoing {
    /// What does not fit is dropped, lossy data first: it would be late anyway. Gives back how many words were.
    pub(super) fn push(&mut self, word: RoomWord) -> usize {
        let bytes = bytes_of(&word);
        let mut dropped = 0;
        if self.bytes.saturating_add(bytes) > BYTES_MAX {
            let before = self.waiting.len();
            self.waiting.retain(|waiting| !may_be_lost(waiting));
            dropped = before.saturating_sub(self.waiting.len());
            self.bytes = self.waiting.iter().map(bytes_of).sum();
            if may_be_lost(&word) || self.bytes.saturating_add(bytes) > BYTES_MAX {
                return dropped.saturating_add(1);
            }
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.waiting.push_back(word);
        dropped
    }

    /// What to say now, and under which number.
    pub(super) fn next(&mut self) -> Option<(u64, Vec<RoomWord>)> {
        if self.is_busy {
            return None;
        }
        if self.said.is_empty() {
            let mut bytes = 0usize;
            while let Some(word) = self.waiting.front() {
                bytes = bytes.saturating_add(bytes_of(word));
                if !self.said.is_empty() && bytes > SAID_AT_ONCE_BYTES {
                    break;
                }
                self.said.extend(self.waiting.pop_front());
            }
            if self.said.is_empty() {
                return None;
            }
            self.number = ids::words();
            self.bytes = self.waiting.iter().map(bytes_of).sum();
        }
        self.is_busy = true;
        Some((self.number, self.said.clone()))
    }

    /// What was being said has been heard, or must be said again; then without what would be late.
    /// Gives back how many words those are.
    pub(super) fn done(&mut self, was_said: bool) -> usize {
        self.is_busy = false;
        if was_said {
            self.said.clear();
            return 0;
        }
        let before = self.said.len();
        self.said.retain(|word| !may_be_lost(word));
        before.saturating_sub(self.said.len())
    }
}

fn may_be_lost(word: &RoomWord) -> bool {
    match word {
        RoomWord::Data { message } => message.channel != Channel::Reliable,
        RoomWord::DataFrame { .. } | RoomWord::Quality { .. } => true,
        RoomWord::Bound { .. } | RoomWord::BackupWanted { .. } | RoomWord::GetBlob { .. } | RoomWord::Blob { .. } => {
            false
        }
    }
}

fn bytes_of(word: &RoomWord) -> usize {
    let payload = match word {
        RoomWord::Data { message } => message.payload.len(),
        RoomWord::DataFrame { packet, .. } => packet.len(),
        RoomWord::GetBlob { key, .. } => key.len(),
        RoomWord::Blob { answer: plenary_model::BlobAnswer::Found { contents, .. }, .. } => contents.len(),
        _ => 0,
    };
    payload.saturating_add(WORD_BYTES)
}

/// What a word takes besides its payload, roughly.
const WORD_BYTES: usize = 64;
/// Of one room; more is dropped.
const BYTES_MAX: usize = 4 << 20;
const SAID_AT_ONCE_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use plenary_model::{DataMessage, Destination};

    use super::*;

    fn data(channel: Channel, bytes: usize) -> RoomWord {
        let to = Destination::Everybody;
        RoomWord::Data { message: DataMessage { channel, to, payload: vec![7; bytes].into() } }
    }

    #[test]
    fn words_are_said_in_order_and_again_until_they_are_heard() {
        let mut words = Outgoing::default();
        assert_eq!(words.next(), None);
        let all = [data(Channel::Reliable, 1), data(Channel::Lossy, 2), data(Channel::Reliable, 3)];
        assert_eq!(all.iter().cloned().map(|word| words.push(word)).sum::<usize>(), 0);
        let (number, said) = words.next().unwrap();
        assert_eq!(said, all, "together");
        words.push(data(Channel::Reliable, 4));
        assert_eq!(words.next(), None, "one after the other");
        assert_eq!(words.done(false), 1);
        let [first, _, third] = all;
        assert_eq!(words.next(), Some((number, vec![first, third])), "what is late is not said again");
        words.done(true);
        let (next, said) = words.next().unwrap();
        assert_eq!(said, [data(Channel::Reliable, 4)]);
        assert!(next > number);
    }

    #[test]
    fn the_next_actor_of_a_room_is_heard_by_those_who_heard_the_last() {
        let number = || {
            let mut words = Outgoing::default();
            words.push(data(Channel::Reliable, 1));
            words.next().unwrap().0
        };
        let last = number();
        assert!(number() > last);
    }

    #[test]
    fn what_waits_is_bounded_and_reliable_data_stays_longest() {
        let mut words = Outgoing::default();
        let mut dropped: usize = (0..10).map(|_| words.push(data(Channel::Lossy, 1 << 20))).sum();
        assert!(words.bytes <= BYTES_MAX);
        dropped += (0..3).map(|_| words.push(data(Channel::Reliable, 1 << 20))).sum::<usize>();
        assert_eq!(words.waiting.len(), 3, "lossy data made way");
        dropped += words.push(data(Channel::Reliable, 2 << 20));
        assert_eq!((words.waiting.len(), dropped), (3, 11));
    }
}
