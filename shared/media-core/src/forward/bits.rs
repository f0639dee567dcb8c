//! A bit for each of the last numbers of a growing sequence.

#[derive(Debug, Clone, Copy)]
pub(super) struct LastBits<const WORDS: usize> {
    newest: u64,
    words: [u64; WORDS],
}

impl<const WORDS: usize> LastBits<WORDS> {
    /// All clear.
    pub(super) fn up_to(newest: u64) -> Self {
        Self { newest, words: [0; WORDS] }
    }

    /// Goes on to `newest`, with the bits in between clear.
    pub(super) fn advance(&mut self, newest: u64) {
        let from = self.newest.saturating_add(1).max(newest.saturating_sub(Self::kept().saturating_sub(1)));
        for number in from..=newest {
            self.put(number, false);
        }
        self.newest = self.newest.max(newest);
    }

    /// `None` if the number is too old or still to come.
    pub(super) fn get(&self, number: u64) -> Option<bool> {
        self.covers(number).then(|| self.words.get(place(number, WORDS)).is_some_and(|word| word & bit(number) != 0))
    }

    pub(super) fn set(&mut self, number: u64) {
        if self.covers(number) {
            self.put(number, true);
        }
    }

    /// How many later numbers have their bit set; `None` if that is no longer known.
    pub(super) fn count_after(&self, number: u64) -> Option<u64> {
        let first = number.saturating_add(1);
        if number < self.newest && !self.covers(first) {
            return None;
        }
        let mut count = 0u64;
        let mut at = first;
        // A word at a time, the first and the last in part.
        while at <= self.newest {
            let end = (at | 63).min(self.newest);
            let below_end = u64::MAX.checked_shr(63u32.saturating_sub(u32::try_from(end % 64).ok()?))?;
            let from_at = u64::MAX.checked_shl(u32::try_from(at % 64).ok()?)?;
            let word = self.words.get(place(at, WORDS))?;
            count = count.saturating_add((word & below_end & from_at).count_ones().into());
            at = end.saturating_add(1);
        }
        Some(count)
    }

    fn covers(&self, number: u64) -> bool {
        number <= self.newest && self.newest.saturating_sub(number) < Self::kept()
    }

    fn put(&mut self, number: u64, value: bool) {
        if let Some(word) = self.words.get_mut(place(number, WORDS)) {
            *word = if value { *word | bit(number) } else { *word & !bit(number) };
        }
    }

    fn kept() -> u64 {
        u64::try_from(WORDS).unwrap_or_default().saturating_mul(64)
    }
}

fn place(number: u64, words: usize) -> usize {
    usize::try_from(number / 64).ok().and_then(|word| word.checked_rem(words)).unwrap_or_default()
}

fn bit(number: u64) -> u64 {
    1u64.wrapping_shl(u32::try_from(number % 64).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set_of_the_last_numbers(
            start in 0u64..200,
            steps in proptest::collection::vec((0u64..90, any::<bool>(), 0u64..300), 0..60),
        ) {
            let mut bits = LastBits::<4>::up_to(start);
            let (mut newest, mut model) = (start, BTreeSet::new());
            for (step, sets, back) in steps {
                newest += step;
                bits.advance(newest);
                if sets {
                    bits.set(newest);
                    model.insert(newest);
                }
                let asked = newest.saturating_sub(back);
                let kept = newest - asked < 256;
                prop_assert_eq!(bits.get(asked), kept.then(|| model.contains(&asked)));
                let after = model.range(asked + 1..).count() as u64;
                if newest - asked <= 256 {
                    prop_assert_eq!(bits.count_after(asked), Some(after));
                } else {
                    prop_assert_eq!(bits.count_after(asked), None);
                }
            }
        }
    }
}
