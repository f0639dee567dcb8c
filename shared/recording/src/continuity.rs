//! Which frames can be decoded after some were lost.
//!
//! A frame whose references are missing is left out of the file: decoders show damage that grows until the next key frame
//! (VP8), or complain and show less than there is (H.264, VP9, AV1). What a codec's payload descriptor shows to be independent
//! of the loss is kept: all that follows lost padding, and the temporal layers below the lost one. H.264 and AV1 say nothing
//! of the kind; for them a loss lasts until the next key frame.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

/// What a payload descriptor says of a frame's place among others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) picture: Option<PictureId>,
    pub(crate) temporal: u8,
    /// TL0PICIDX, the running number of the newest frame of temporal layer 0.
    pub(crate) base_index: Option<u8>,
    /// VP8's Y: it needs frames of temporal layer 0 alone.
    pub(crate) needs_base_only: bool,
    /// VP9's U: later frames of higher layers need nothing of those layers from before this one.
    pub(crate) frees_higher: bool,
    /// VP9's flexible mode: bit n is set if it needs the picture n before it.
    pub(crate) references: Option<u128>,
}

/// A running number of so many bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PictureId {
    pub(crate) value: u16,
    pub(crate) bits: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing is missing before it.
    Next,
    /// It can be decoded though something before it is missing.
    AfterLoss,
    Undecodable,
}

#[derive(Debug, Default)]
pub(crate) struct Continuity {
    /// `None`: only a key frame can be decoded.
    chain: Option<Chain>,
    newest: Option<PictureId>,
    /// Since the newest picture: packets that did not come, and pictures that did not come whole.
    lost: u32,
}

#[derive(Debug, Clone, Copy)]
struct Chain {
    base_index: Option<u8>,
    /// Frames up to this temporal layer can be decoded.
    temporal_max: u8,
    /// Bit n is set if the picture n before the newest is in the file.
    kept: u128,
}

impl Continuity {
    /// So many packets are missing, or a frame that had come was not whole.
    pub(crate) fn lost(&mut self, count: u32) {
        self.lost = self.lost.saturating_add(count);
    }

    /// Frames of a decoder that knows nothing of those before.
    pub(crate) fn restart(&mut self) {
        *self = Self { lost: TOO_MANY, ..Self::default() };
    }

    /// Frames are judged in the order of sending, each once.
    pub(crate) fn judge(&mut self, is_key: bool, place: &Place) -> Verdict {
        let lost = std::mem::take(&mut self.lost);
        let newest = std::mem::replace(&mut self.newest, place.picture);
        if lost >= TOO_MANY {
            self.chain = None;
        }
        let steps = newest.zip(place.picture).map(|(newest, picture)| newest.distance(picture));
        // Whatever was lost between two pictures that follow each other, it was no picture.
        let is_lost = lost > 0 && steps != Some(1);
        if is_key {
            let was_whole = self.chain.is_some() && !is_lost;
            self.chain = Some(Chain { base_index: place.base_index, temporal_max: u8::MAX, kept: 1 });
            return if was_whole { Verdict::Next } else { Verdict::AfterLoss };
        }
        let Some(chain) = &mut self.chain else { return Verdict::Undecodable };
        let is_whole = match place.references {
            Some(references) => chain.follow_references(references, steps),
            None => chain.follow_layers(place, is_lost),
        };
        match is_whole {
            Followed::Yes if is_lost => Verdict::AfterLoss,
            Followed::Yes => Verdict::Next,
            Followed::No => Verdict::Undecodable,
            Followed::Broken => {
                self.chain = None;
                Verdict::Undecodable
            }
        }
    }
}

enum Followed {
    Yes,
    /// It is left out, others may follow.
    No,
    Broken,
}

impl Chain {
    fn follow_references(&mut self, references: u128, steps: Option<u16>) -> Followed {
        let kept = steps.and_then(|steps| self.kept.checked_shl(steps.into())).unwrap_or_default();
        let can_be_decoded = references & !kept == 0;
        self.kept = kept | u128::from(can_be_decoded);
        match self.kept {
            0 => Followed::Broken,
            _ if can_be_decoded => Followed::Yes,
            _ => Followed::No,
        }
    }

    fn follow_layers(&mut self, place: &Place, is_lost: bool) -> Followed {
        if is_lost {
            self.temporal_max = 0;
        }
        // Since nothing was lost, or all of it was made up for.
        if self.temporal_max == u8::MAX {
            self.base_index = place.base_index;
            return Followed::Yes;
        }
        let (Some(before), Some(base_index)) = (self.base_index, place.base_index) else { return Followed::Broken };
        let expected = if place.temporal == 0 { before.wrapping_add(1) } else { before };
        if base_index != expected {
            return Followed::Broken;
        }
        self.base_index = Some(base_index);
        if place.temporal > self.temporal_max && !place.needs_base_only {
            return Followed::No;
        }
        // A layer that began anew above one that did not may still need that one later.
        if place.temporal == self.temporal_max.saturating_add(1) {
            self.temporal_max = place.temporal;
        }
        if place.frees_higher && place.temporal <= self.temporal_max {
            self.temporal_max = u8::MAX;
        }
        Followed::Yes
    }
}

/// A picture has one packet at least: as long as fewer than this are lost, no counter has gone round, the shortest of which
/// has seven bits.
const TOO_MANY: u32 = 128;

impl PictureId {
    /// How far `to` lies after it.
    fn distance(self, to: Self) -> u16 {
        let mask = u16::MAX.checked_shr(u16::BITS.saturating_sub(to.bits)).unwrap_or_default();
        to.value.wrapping_sub(self.value) & mask
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::Random;

    #[derive(Default)]
    struct Sender {
        picture: u16,
        base_index: u8,
    }

    impl Sender {
        /// A picture of VP8 with temporal layers.
        fn vp8(&mut self, temporal: u8, needs_base_only: bool) -> Place {
            self.picture = self.picture.wrapping_add(1);
            self.base_index = self.base_index.wrapping_add(u8::from(temporal == 0));
            Place {
                picture: Some(PictureId { value: self.picture & 0x7fff, bits: 15 }),
                temporal,
                base_index: Some(self.base_index),
                needs_base_only,
                ..Place::default()
            }
        }

        /// A picture of VP9 in flexible mode that needs those so far back.
        fn flexible(&mut self, back: &[u32]) -> Place {
            self.picture += 1;
            let references = back.iter().fold(0, |references, back| references | 1 << back);
            Place {
                picture: Some(PictureId { value: self.picture, bits: 15 }),
                references: Some(references),
                ..Place::default()
            }
        }
    }

    #[test]
    fn only_a_key_frame_begins() {
        let mut continuity = Continuity::default();
        assert_eq!(continuity.judge(false, &Place::default()), Verdict::Undecodable);
        assert_eq!(continuity.judge(true, &Place::default()), Verdict::AfterLoss);
        assert_eq!(continuity.judge(false, &Place::default()), Verdict::Next);
        continuity.restart();
        assert_eq!(continuity.judge(false, &Place::default()), Verdict::Undecodable);
    }

    #[test]
    fn without_layers_a_loss_lasts_until_the_next_key_frame() {
        let mut continuity = Continuity::default();
        continuity.judge(true, &Place::default());
        continuity.lost(1);
        assert_eq!(continuity.judge(false, &Place::default()), Verdict::Undecodable);
        assert_eq!(continuity.judge(false, &Place::default()), Verdict::Undecodable);
        assert_eq!(continuity.judge(true, &Place::default()), Verdict::AfterLoss);
        assert_eq!(continuity.judge(false, &Place::default()), Verdict::Next);
    }

    #[test]
    fn lost_padding_breaks_nothing() {
        let (mut continuity, mut sender) = (Continuity::default(), Sender::default());
        continuity.judge(true, &sender.vp8(0, false));
        continuity.lost(1);
        assert_eq!(continuity.judge(false, &sender.vp8(1, true)), Verdict::Next);
        sender.picture = 0x7fff - 1;
        continuity.judge(true, &sender.vp8(0, false));
        continuity.lost(1);
        sender.picture = u16::MAX;
        assert_eq!(continuity.judge(false, &sender.vp8(0, false)), Verdict::Next, "numbers wrap");
    }

    #[test]
    fn counters_that_may_have_gone_round_say_nothing() {
        for (lost, expected) in [(127, Verdict::Next), (128, Verdict::Undecodable)] {
            let (mut continuity, mut sender) = (Continuity::default(), Sender::default());
            continuity.judge(true, &sender.vp8(0, false));
            continuity.lost(lost);
            assert_eq!(continuity.judge(false, &sender.vp8(0, false)), expected, "{lost} lost");
        }
    }

    #[test]
    fn lower_temporal_layers_go_on_when_a_higher_one_is_lost() {
        let (mut continuity, mut sender) = (Continuity::default(), Sender::default());
        assert_eq!(continuity.judge(true, &sender.vp8(0, false)), Verdict::AfterLoss);
        assert_eq!(continuity.judge(false, &sender.vp8(2, true)), Verdict::Next);
        sender.vp8(1, true);
        continuity.lost(1);
        assert_eq!(continuity.judge(false, &sender.vp8(2, false)), Verdict::Undecodable);
        assert_eq!(continuity.judge(false, &sender.vp8(0, false)), Verdict::Next);
        assert_eq!(continuity.judge(false, &sender.vp8(2, false)), Verdict::Undecodable);
        assert_eq!(continuity.judge(false, &sender.vp8(1, true)), Verdict::Next);
        assert_eq!(continuity.judge(false, &sender.vp8(2, false)), Verdict::Undecodable);
        assert_eq!(continuity.judge(false, &sender.vp8(0, false)), Verdict::Next);
        assert_eq!(continuity.judge(false, &sender.vp8(1, false)), Verdict::Next);
        assert_eq!(continuity.judge(false, &sender.vp8(2, true)), Verdict::Next);
        assert_eq!(continuity.judge(false, &sender.vp8(2, false)), Verdict::Next);
    }

    #[test]
    fn a_lost_base_frame_ends_every_layer() {
        for (temporal, needs_base_only) in [(0, false), (1, true), (2, true)] {
            let (mut continuity, mut sender) = (Continuity::default(), Sender::default());
            continuity.judge(true, &sender.vp8(0, false));
            sender.vp8(0, false);
            continuity.lost(1);
            assert_eq!(continuity.judge(false, &sender.vp8(temporal, needs_base_only)), Verdict::Undecodable);
            assert_eq!(continuity.judge(false, &sender.vp8(0, false)), Verdict::Undecodable);
        }
    }

    #[test]
    fn a_switching_point_of_vp9_brings_all_layers_back() {
        let (mut continuity, mut sender) = (Continuity::default(), Sender::default());
        continuity.judge(true, &sender.vp8(0, false));
        sender.vp8(1, false);
        continuity.lost(1);
        let base = Place { frees_higher: true, ..sender.vp8(0, false) };
        assert_eq!(continuity.judge(false, &base), Verdict::AfterLoss);
        assert_eq!(continuity.judge(false, &sender.vp8(2, false)), Verdict::Next);
    }

    #[test]
    fn flexible_mode_needs_what_it_names() {
        let (mut continuity, mut sender) = (Continuity::default(), Sender::default());
        continuity.judge(true, &sender.flexible(&[]));
        assert_eq!(continuity.judge(false, &sender.flexible(&[1])), Verdict::Next);
        sender.flexible(&[1]);
        continuity.lost(1);
        assert_eq!(continuity.judge(false, &sender.flexible(&[1])), Verdict::Undecodable);
        assert_eq!(continuity.judge(false, &sender.flexible(&[3, 4])), Verdict::Next);
        assert_eq!(continuity.judge(false, &sender.flexible(&[2])), Verdict::Undecodable);
        assert_eq!(continuity.judge(false, &sender.flexible(&[2])), Verdict::Next);
        sender.picture += 200;
        continuity.lost(1);
        assert_eq!(continuity.judge(false, &sender.flexible(&[1])), Verdict::Undecodable);
        assert_eq!(continuity.judge(false, &sender.flexible(&[])), Verdict::Undecodable, "nothing is left to build on");
    }

    proptest! {
        /// Pictures with three temporal layers, of which some are lost: what is kept has all that it needs, and all of the
        /// lowest layer is kept until one of it is lost.
        #[test]
        fn what_is_kept_can_be_decoded(seed: u64, loss in 0u64..30) {
            let (mut continuity, mut sender, mut random) = (Continuity::default(), Sender::default(), Random(seed));
            let mut newest: [Option<usize>; 3] = [None; 3];
            let mut kept = Vec::new();
            let mut base_is_whole = false;
            for number in 0..400 {
                let is_key = number == 0 || random.percent(1);
                let temporal = if is_key { 0 } else { [0, 2, 1, 2][number % 4] };
                let needs_base_only = random.percent(30);
                let place = sender.vp8(temporal, needs_base_only);
                let needed = match (is_key, needs_base_only) {
                    (true, _) => 0..0,
                    (false, true) => 0..1,
                    (false, false) => 0..usize::from(temporal) + 1,
                };
                let needed: Vec<usize> = newest[needed].iter().flatten().copied().collect();
                if is_key {
                    newest = [None; 3];
                }
                newest[usize::from(temporal)] = Some(number);
                let is_lost = random.percent(loss);
                if is_lost {
                    continuity.lost(1);
                }
                let is_kept = !is_lost && continuity.judge(is_key, &place) != Verdict::Undecodable;
                kept.push(is_kept);
                prop_assert!(!is_kept || needed.iter().all(|&needed| kept[needed]), "{number} needs {needed:?}");
                if temporal == 0 {
                    base_is_whole = !is_lost && (is_key || base_is_whole);
                    prop_assert_eq!(is_kept, base_is_whole, "{}", number);
                }
            }
        }

        /// Pictures that name what they need: those that have it are kept.
        #[test]
        fn what_has_its_references_is_kept(seed: u64, loss in 0u64..30) {
            let (mut continuity, mut sender, mut random) = (Continuity::default(), Sender::default(), Random(seed));
            let mut kept: Vec<bool> = Vec::new();
            for number in 0u32..200 {
                let is_key = number == 0;
                let back = if is_key { vec![] } else { vec![1 + random.below(u64::from(number).min(6)) as u32] };
                let place = sender.flexible(&back);
                if !is_key && random.percent(loss) {
                    continuity.lost(1);
                    kept.push(false);
                    continue;
                }
                let is_kept = continuity.judge(is_key, &place) != Verdict::Undecodable;
                prop_assert_eq!(is_kept, back.iter().all(|&back| kept[(number - back) as usize]));
                kept.push(is_kept);
            }
        }
    }
}
