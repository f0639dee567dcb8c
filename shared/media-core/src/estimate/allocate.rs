//! Who gets what of a subscriber's bandwidth.

use std::cmp::Reverse;

use plenary_model::MediaKind;

use crate::{forward::Target, rtp::LayerId};

/// One subscription's demand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    /// The caller's own number for the subscription; asks are reordered.
    pub(crate) id: usize,
    pub(crate) kind: MediaKind,
    /// The layer that the settings call for.
    pub(crate) wanted: Target,
    /// The layers that are being sent, from low to high.
    pub(crate) layers: &'a [LayerRate],
    /// The subscriber's own word on it.
    pub(crate) priority: u32,
    pub(crate) rank: Rank,
    /// Size of the tile, 0 when unknown.
    pub(crate) pixels: u64,
    /// What it has now, and what it shall have.
    pub(crate) current: Target,
    pub(crate) granted: Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayerRate {
    pub(crate) id: LayerId,
    pub(crate) bits_per_second: u64,
}

/// What a video shows, most important last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Other,
    Speaker,
    Screen,
}

/// Whether video may be stopped for lack of bandwidth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pausing {
    Allowed,
    Forbidden,
}

/// Grants each ask a layer: audio first and always, then each video its smallest layer. What is left raises the most
/// important as far as they are wanted: screens before speakers before the rest, among equals one layer more in turn and
/// large tiles first. Going up from what is had takes a margin, so that an estimate that swings does not make layers swing.
pub(crate) fn allocate(budget_bps: u64, pausing: Pausing, asks: &mut [Ask<'_>]) {
    asks.sort_unstable_by_key(|ask| {
        (ask.kind == MediaKind::Video, Reverse(ask.importance()), Reverse(ask.pixels), ask.id)
    });
    let mut left_bps = budget_bps;
    for ask in asks.iter_mut() {
        ask.granted = ask.least(pausing, &mut left_bps);
    }
    for equals in asks.chunk_by_mut(|one, other| one.importance() == other.importance()) {
        // Each round raises somebody by a layer, or is the last.
        let mut raised = true;
        while raised {
            raised = false;
            for ask in equals.iter_mut() {
                raised |= ask.raise(&mut left_bps);
            }
        }
    }
}

/// What the asks would take if there were enough.
pub(crate) fn wanted_bps<'a>(asks: impl Iterator<Item = &'a Ask<'a>>) -> u64 {
    let wanted = |ask: &Ask<'_>| ask.rungs().last().map_or(0, |layer| layer.bits_per_second);
    asks.fold(0u64, |sum, ask| sum.saturating_add(wanted(ask)))
}

/// What the asks were granted takes.
pub(crate) fn granted_bps<'a>(asks: impl Iterator<Item = &'a Ask<'a>>) -> u64 {
    let granted = |ask: &Ask<'_>| if let Target::Layer(id) = ask.granted { ask.rate(id) } else { 0 };
    asks.fold(0u64, |sum, ask| sum.saturating_add(granted(ask)))
}

impl<'a> Ask<'a> {
    fn importance(&self) -> (u32, Rank) {
        (self.priority, self.rank)
    }

    fn least(&self, pausing: Pausing, left_bps: &mut u64) -> Target {
        let Some(lowest) = self.rungs().first() else {
            // Nothing is being sent: to aim at it costs nothing.
            return self.wanted;
        };
        let always = self.kind == MediaKind::Audio || pausing == Pausing::Forbidden;
        let resuming = if self.current == Target::Off { lowest.bits_per_second / RESUME_MARGIN } else { 0 };
        if always || lowest.bits_per_second.saturating_add(resuming) <= *left_bps {
            *left_bps = left_bps.saturating_sub(lowest.bits_per_second);
            return Target::Layer(lowest.id);
        }
        Target::Off
    }

    /// One layer up, if there is one and it fits.
    fn raise(&mut self, left_bps: &mut u64) -> bool {
        let Target::Layer(granted) = self.granted else { return false };
        let mut above = self.rungs().iter().skip_while(|layer| layer.id < granted);
        let (Some(now), Some(next)) = (above.next(), above.next()) else { return false };
        let step = next.bits_per_second.saturating_sub(now.bits_per_second);
        let had = matches!(self.current, Target::Layer(current) if current >= next.id);
        if price(step, had) > *left_bps {
            return false;
        }
        *left_bps = left_bps.saturating_sub(step);
        self.granted = Target::Layer(next.id);
        true
    }

    /// What a layer takes; 0 if it is not sent.
    pub(crate) fn rate(&self, id: LayerId) -> u64 {
        let is_it = |layer: &&LayerRate| layer.id >= id && layer.id.spatial() == id.spatial();
        self.layers.iter().find(is_it).map_or(0, |layer| layer.bits_per_second)
    }

    /// Whether a layer takes so much more than the one granted that it is the first to go.
    pub(crate) fn is_too_much(&self, flowing: LayerId) -> bool {
        match self.granted {
            Target::Layer(granted) => self.rate(flowing) > self.rate(granted).saturating_mul(TOO_MUCH),
            Target::Off => self.wanted != Target::Off,
        }
    }

    /// The layers up to the wanted one; if all that are sent are above it, the lowest of them.
    fn rungs(&self) -> &'a [LayerRate] {
        let Target::Layer(wanted) = self.wanted else { return &[] };
        let count = self.layers.iter().take_while(|layer| layer.id <= wanted).count();
        self.layers.get(..count.max(1)).unwrap_or_default()
    }
}

/// What must be left for a layer: more than it takes, unless it was had before.
fn price(bits_per_second: u64, had: bool) -> u64 {
    if had { bits_per_second } else { bits_per_second.saturating_add(bits_per_second / UPGRADE_MARGIN) }
}

/// So many times as much.
const TOO_MUCH: u64 = 2;
/// A quarter: to come and go is worse than to stay away.
const RESUME_MARGIN: u64 = 4;
/// An eighth.
const UPGRADE_MARGIN: u64 = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIMULCAST: [LayerRate; 3] = [rate(0, 150_000), rate(1, 500_000), rate(2, 1_700_000)];
    const AUDIO: [LayerRate; 1] = [rate(0, 40_000)];

    const fn rate(id: u8, bits_per_second: u64) -> LayerRate {
        LayerRate { id: LayerId(id), bits_per_second }
    }

    fn layer(id: u8) -> Target {
        Target::Layer(LayerId(id))
    }

    fn video(id: usize, wanted: u8) -> Ask<'static> {
        Ask {
            id,
            kind: MediaKind::Video,
            wanted: layer(wanted),
            layers: &SIMULCAST,
            priority: 0,
            rank: Rank::Other,
            pixels: 0,
            current: Target::Off,
            granted: Target::Off,
        }
    }

    fn audio(id: usize) -> Ask<'static> {
        Ask { kind: MediaKind::Audio, layers: &AUDIO, ..video(id, 0) }
    }

    fn granted(budget_bps: u64, pausing: Pausing, asks: &[Ask<'static>]) -> Vec<Target> {
        let mut asks = asks.to_vec();
        allocate(budget_bps, pausing, &mut asks);
        asks.sort_by_key(|ask| ask.id);
        asks.iter().map(|ask| ask.granted).collect()
    }

    #[test]
    fn grants_follow_the_budget() {
        let two = [video(0, 2), video(1, 2), audio(2)];
        for (budget, expected) in [
            (0, [Target::Off, Target::Off, layer(0)]),
            (250_000, [layer(0), Target::Off, layer(0)]),
            (500_000, [layer(0), layer(0), layer(0)]),
            (900_000, [layer(1), layer(0), layer(0)]),
            (1_500_000, [layer(1), layer(1), layer(0)]),
            (2_600_000, [layer(2), layer(1), layer(0)]),
            (5_000_000, [layer(2), layer(2), layer(0)]),
        ] {
            assert_eq!(granted(budget, Pausing::Allowed, &two), expected, "{budget}");
        }
    }

    #[test]
    fn without_pausing_everybody_keeps_the_smallest_layer() {
        assert_eq!(granted(0, Pausing::Forbidden, &[video(0, 2), video(1, 2)]), [layer(0), layer(0)]);
    }

    #[test]
    fn priority_comes_before_size_and_size_before_order() {
        let asks = [video(0, 1), Ask { pixels: 9, ..video(1, 1) }, Ask { priority: 1, ..video(2, 1) }];
        assert_eq!(granted(200_000, Pausing::Allowed, &asks), [Target::Off, Target::Off, layer(0)]);
        assert_eq!(granted(400_000, Pausing::Allowed, &asks), [Target::Off, layer(0), layer(0)]);
        assert_eq!(granted(1_000_000, Pausing::Allowed, &asks), [layer(0), layer(0), layer(1)]);
        assert_eq!(granted(1_300_000, Pausing::Allowed, &asks), [layer(0), layer(1), layer(1)]);
    }

    #[test]
    fn screens_come_before_speakers_before_the_rest() {
        let with = |id, rank| Ask { rank, ..video(id, 2) };
        let asks = [with(0, Rank::Other), with(1, Rank::Speaker), with(2, Rank::Screen)];
        for (budget, expected) in [
            (200_000, [Target::Off, Target::Off, layer(0)]),
            (400_000, [Target::Off, layer(0), layer(0)]),
            (1_000_000, [layer(0), layer(0), layer(1)]),
            (2_300_000, [layer(0), layer(0), layer(2)]),
            (2_500_000, [layer(0), layer(1), layer(2)]),
            (3_800_000, [layer(0), layer(2), layer(2)]),
        ] {
            assert_eq!(granted(budget, Pausing::Allowed, &asks), expected, "{budget}");
        }
    }

    #[test]
    fn an_estimate_that_swings_does_not_make_layers_swing() {
        let had = Ask { current: layer(2), ..video(0, 2) };
        let new = Ask { current: layer(1), ..video(0, 2) };
        assert_eq!(granted(1_700_000, Pausing::Allowed, &[had]), [layer(2)]);
        assert_eq!(granted(1_700_000, Pausing::Allowed, &[new]), [layer(1)]);
        assert_eq!(granted(1_900_000, Pausing::Allowed, &[new]), [layer(2)]);
        assert_eq!(granted(1_600_000, Pausing::Allowed, &[had]), [layer(1)]);
    }

    #[test]
    fn layers_that_are_not_sent_are_not_granted() {
        let high_only = [rate(2, 1_700_000)];
        let asks = [Ask { layers: &SIMULCAST[..2], ..video(0, 2) }, Ask { layers: &[], ..video(1, 2) }];
        assert_eq!(granted(9_000_000, Pausing::Allowed, &asks), [layer(1), layer(2)]);
        let mut asks = [Ask { layers: &high_only, ..video(0, 0) }];
        allocate(9_000_000, Pausing::Allowed, &mut asks);
        assert_eq!(asks[0].granted, layer(2), "the only one there is");
    }

    #[test]
    fn what_is_wanted_is_the_sum_of_the_wanted_layers() {
        assert_eq!(
            wanted_bps([video(0, 2), video(1, 1), audio(2), Ask { wanted: Target::Off, ..video(3, 0) }].iter()),
            2_240_000
        );
    }

    proptest! {
        #[test]
        fn the_budget_is_kept_and_no_more_is_granted_than_wanted(
            budget in 0u64..8_000_000,
            wishes in proptest::collection::vec((0u8..4, 0u8..4, 0u32..3, 0u64..3), 0..12),
        ) {
            let target = |layer| if layer == 3 { Target::Off } else { Target::Layer(LayerId(layer)) };
            let mut asks: Vec<_> = wishes.iter().enumerate().map(|(id, (wanted, current, priority, pixels))| Ask {
                wanted: target(*wanted),
                current: target(*current),
                priority: *priority,
                pixels: *pixels,
                ..video(id, 0)
            }).collect();
            allocate(budget, Pausing::Allowed, &mut asks);
            let mut sum = 0;
            for ask in &asks {
                let Target::Layer(granted) = ask.granted else { continue };
                let Target::Layer(wanted) = ask.wanted else { panic!("granted unasked") };
                prop_assert!(granted <= wanted);
                sum += SIMULCAST[usize::from(granted.0)].bits_per_second;
            }
            prop_assert!(sum <= budget);
        }
    }
}
