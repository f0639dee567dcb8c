//! What nodes have their routers carry to each other, whole: said in parts, and again until the other side has all of them.
//!
//! In no order, and perhaps twice; whoever writes a letter numbers it and notices when it was not told in time. All that is
//! on its way is bounded, in letters and in bytes.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::message::LetterPart;
use crate::{DropReason, ingress::after};

#[derive(Debug, Default)]
pub(crate) struct Letters {
    outgoing: BTreeMap<u64, Outgoing>,
    incoming: BTreeMap<u64, Incoming>,
    /// Those of theirs that came whole, until when: they may not have heard it.
    whole: VecDeque<(u64, Instant)>,
    /// Before this no more parts are said, of any letter.
    rests_until: Option<Instant>,
}

#[derive(Debug)]
struct Outgoing {
    contents: Bytes,
    /// The part to say next.
    next: usize,
    due: Instant,
    /// After the last part, before all are said again.
    pause: Duration,
    until: Instant,
}

#[derive(Debug)]
struct Incoming {
    parts: Vec<Option<Vec<u8>>>,
    until: Instant,
}

/// What a part has made of its letter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LetterRead {
    /// Parts are missing, or it was said before that none are.
    Nothing,
    Whole(Bytes),
    /// They have not heard that it came.
    Again,
}

impl Letters {
    /// Takes a letter to be said from now on, for as long as [`KEPT`].
    pub(crate) fn write(&mut self, now: Instant, number: u64, contents: Bytes) -> Result<(), DropReason> {
        if contents.len() > LETTER_BYTES_MAX {
            return Err(DropReason::MessageTooLarge);
        }
        let waiting =
            self.outgoing.values().map(|letter| letter.contents.len()).fold(contents.len(), usize::saturating_add);
        if self.outgoing.len() >= LETTERS_MAX || waiting > WAITING_BYTES_MAX {
            return Err(DropReason::QueueFull);
        }
        let letter = Outgoing { contents, next: 0, due: now, pause: PAUSE_MIN, until: after(now, KEPT) };
        self.outgoing.insert(number, letter);
        Ok(())
    }

    /// Whether the link is needed.
    pub(crate) fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    pub(crate) fn next_deadline(&self, is_up: bool) -> Option<Instant> {
        let due = self.outgoing.values().map(|letter| letter.due).min().filter(|_| is_up);
        let due = due.map(|due| self.rests_until.map_or(due, |until| due.max(until)));
        let outgoing = self.outgoing.values().map(|letter| letter.until);
        let incoming = self.incoming.values().map(|letter| letter.until);
        due.into_iter().chain(outgoing).chain(incoming).min()
    }

    /// What to say now, if it can be said.
    pub(crate) fn poll(&mut self, now: Instant, is_up: bool, rtt: Duration) -> VecDeque<LetterPart> {
        self.outgoing.retain(|_, letter| letter.until > now);
        self.incoming.retain(|_, letter| letter.until > now);
        while self.whole.front().is_some_and(|(_, until)| *until <= now) {
            self.whole.pop_front();
        }
        let mut said = VecDeque::new();
        if !is_up || self.rests_until.is_some_and(|until| until > now) {
            return said;
        }
        for (number, letter) in self.outgoing.iter_mut().filter(|(_, letter)| letter.due <= now) {
            let count = parts(letter.contents.len());
            while letter.next < count && said.len() < PARTS_AT_ONCE {
                let begin = letter.next.saturating_mul(PART_BYTES);
                let end = begin.saturating_add(PART_BYTES).min(letter.contents.len());
                let contents = letter.contents.get(begin..end).unwrap_or_default().to_vec();
                let (part, parts) = (number_of(letter.next), number_of(count));
                said.push_back(LetterPart { number: *number, part, parts, contents });
                letter.next = letter.next.saturating_add(1);
            }
            if letter.next < count {
                break;
            }
            letter.next = 0;
            letter.due = after(now, letter.pause.max(rtt.saturating_mul(2)));
            letter.pause = letter.pause.saturating_mul(2);
        }
        self.rests_until = Some(after(now, PARTS_APART)).filter(|_| !said.is_empty());
        said
    }

    /// The other side has it. False if it was told before, or never written.
    pub(crate) fn told(&mut self, number: u64) -> bool {
        self.outgoing.remove(&number).is_some()
    }

    /// A part of one of theirs.
    pub(crate) fn read(&mut self, now: Instant, part: LetterPart) -> Result<LetterRead, DropReason> {
        let count = usize::try_from(part.parts).unwrap_or(usize::MAX);
        let at = usize::try_from(part.part).unwrap_or(usize::MAX);
        if count > parts(LETTER_BYTES_MAX) || at >= count || part.contents.len() > PART_BYTES {
            return Err(DropReason::LinkMalformed);
        }
        if self.whole.iter().any(|(number, until)| *number == part.number && *until > now) {
            // They say all parts again: one answer to each burst.
            return Ok(if at % PARTS_AT_ONCE == 0 { LetterRead::Again } else { LetterRead::Nothing });
        }
        if !self.incoming.contains_key(&part.number) {
            let waiting = self.incoming.values().map(|letter| letter.parts.len()).fold(count, usize::saturating_add);
            if self.incoming.len() >= LETTERS_MAX || waiting > parts(WAITING_BYTES_MAX) {
                return Err(DropReason::QueueFull);
            }
        }
        let fresh = || Incoming { parts: vec![None; count], until: now };
        let letter = self.incoming.entry(part.number).or_insert_with(fresh);
        let is_same = letter.parts.len() == count;
        let place = letter.parts.get_mut(at).filter(|_| is_same);
        *place.ok_or(DropReason::LinkMalformed)? = Some(part.contents);
        letter.until = after(now, KEPT);
        if letter.parts.iter().any(Option::is_none) {
            return Ok(LetterRead::Nothing);
        }
        if self.whole.len() >= LETTERS_MAX {
            self.whole.pop_front();
        }
        self.whole.push_back((part.number, after(now, KEPT)));
        let letter = self.incoming.remove(&part.number).map(|letter| letter.parts).unwrap_or_default();
        Ok(LetterRead::Whole(letter.into_iter().flatten().flatten().collect()))
    }
}

fn parts(bytes: usize) -> usize {
    bytes.div_ceil(PART_BYTES).max(1)
}

fn number_of(part: usize) -> u32 {
    u32::try_from(part).unwrap_or(u32::MAX)
}

/// A frame holds it with its numbers.
const PART_BYTES: usize = 1_024;
/// What the queue of a link and the buffer of a socket take beside media, and when that has left.
const PARTS_AT_ONCE: usize = 32;
const PARTS_APART: Duration = Duration::from_millis(2);
const LETTER_BYTES_MAX: usize = 512 << 10;
/// Each way.
const LETTERS_MAX: usize = 1_024;
const WAITING_BYTES_MAX: usize = 8 << 20;
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longer than whoever wrote it waits.
const KEPT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(bytes: usize) -> Bytes {
        (0..bytes).map(|at| u8::try_from(at % 251).unwrap()).collect()
    }

    #[test]
    fn a_letter_arrives_whole_whatever_parts_are_lost_first() {
        for bytes in [0, 1, PART_BYTES, PART_BYTES + 1, LETTER_BYTES_MAX] {
            let (mut here, mut there, mut now) = (Letters::default(), Letters::default(), Instant::now());
            here.write(now, 7, contents(bytes)).unwrap();
            let (mut arrived, mut count) = (None, 0);
            while arrived.is_none() {
                now = here.next_deadline(true).expect("it goes on");
                for part in here.poll(now, true, Duration::ZERO) {
                    count += 1;
                    // Every third gets through.
                    if count % 3 == 0
                        && let LetterRead::Whole(letter) = there.read(now, part).unwrap()
                    {
                        arrived = Some(letter);
                    }
                }
            }
            assert_eq!(arrived.unwrap(), contents(bytes));
            assert!(here.told(7) && !here.told(7) && !here.has_outgoing());
        }
    }

    #[test]
    fn who_has_not_heard_that_a_letter_came_is_told_again_and_it_comes_once() {
        let (mut here, mut there, now) = (Letters::default(), Letters::default(), Instant::now());
        here.write(now, 7, contents(40 * PART_BYTES)).unwrap();
        let (mut read, mut at) = (Vec::new(), now);
        while at < now + 400 * Duration::from_millis(1) {
            read.extend(here.poll(at, true, Duration::ZERO).into_iter().map(|part| there.read(at, part).unwrap()));
            at = here.next_deadline(true).unwrap();
        }
        let count = |what: fn(&LetterRead) -> bool| read.iter().filter(|one| what(one)).count();
        assert_eq!(
            (count(|one| matches!(one, LetterRead::Whole(_))), count(|one| *one == LetterRead::Again)),
            (1, 6),
            "3 times"
        );
        there.poll(at + KEPT, true, Duration::ZERO);
        assert!(there.whole.is_empty());
    }

    #[test]
    fn a_letter_waits_for_the_link_and_not_for_ever() {
        let (mut letters, now) = (Letters::default(), Instant::now());
        letters.write(now, 1, contents(10)).unwrap();
        assert!(letters.poll(now, false, Duration::ZERO).is_empty());
        assert_eq!(letters.next_deadline(false), Some(now + KEPT));
        assert_eq!(letters.poll(now, true, Duration::ZERO).len(), 1);
        assert!(letters.poll(now + KEPT, true, Duration::ZERO).is_empty());
        assert!(!letters.has_outgoing());
    }

    #[test]
    fn parts_that_cannot_be_are_refused_and_what_is_open_is_bounded() {
        let (mut letters, now) = (Letters::default(), Instant::now());
        let part = |number, part, parts, bytes| LetterPart { number, part, parts, contents: vec![7; bytes] };
        let malformed = Err(DropReason::LinkMalformed);
        assert_eq!(letters.read(now, part(1, 2, 2, 1)), malformed);
        assert_eq!(letters.read(now, part(1, 0, 0, 1)), malformed);
        assert_eq!(letters.read(now, part(1, 0, u32::MAX, 1)), malformed);
        assert_eq!(letters.read(now, part(1, 0, 1, PART_BYTES + 1)), malformed);
        assert_eq!(letters.read(now, part(1, 0, 2, 1)), Ok(LetterRead::Nothing));
        assert_eq!(letters.read(now, part(1, 1, 3, 1)), malformed, "it had two");
        let open = (2..100).map(|number| letters.read(now, part(number, 0, 512, 1))).filter(Result::is_ok).count();
        assert_eq!(open, 15, "8 MiB with the one above");
        assert_eq!(letters.read(now, part(100, 0, 512, 1)), Err(DropReason::QueueFull));
        letters.poll(now + KEPT, true, Duration::ZERO);
        assert_eq!(letters.read(now + KEPT, part(100, 0, 512, 1)), Ok(LetterRead::Nothing), "those were forgotten");
    }
}
