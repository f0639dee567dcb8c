//! Which streams of the wanted videos cross a link that cannot carry them all: first the small ones of every video, then
//! larger ones. Audio is none of this.

use std::cmp::Reverse;

use super::pull::STREAMS_MAX;
use crate::estimate::Rank;

/// A video that another router wants.
#[derive(Debug, Clone)]
pub(super) struct Video {
    pub(super) rank: Rank,
    /// What each of its streams takes, the lowest first.
    pub(super) rates: [u64; STREAMS_MAX],
    /// Bit n: its nth stream is wanted now.
    pub(super) streams: u8,
    /// The highest stream that somebody there would have if it crossed.
    pub(super) top: Option<u8>,
    /// So many of its streams may cross, the lowest first.
    pub(super) allowed: u8,
}

impl Video {
    /// What it takes while so many streams may cross: of who wants a higher one, the highest of them.
    fn bits_per_second(&self, allowed: u8) -> u64 {
        let highest = self.top.into_iter().chain(self.highest_wanted()).max();
        let instead = highest.map(|highest| highest.min(allowed.saturating_sub(1))).map_or(0, bit);
        let crossing = (self.streams | instead) & mask(allowed);
        let rates = (0u8..).zip(&self.rates).filter(|(at, _)| crossing & bit(*at) != 0);
        rates.map(|(_, rate)| *rate).fold(0, u64::saturating_add)
    }

    /// With more nothing would change.
    fn useful(&self) -> u8 {
        self.top.into_iter().chain(self.highest_wanted()).max().map_or(0, |highest| highest.saturating_add(1))
    }

    /// How many of those that would cross do not.
    pub(super) fn withheld(&self) -> u8 {
        self.useful().saturating_sub(self.allowed)
    }

    fn highest_wanted(&self) -> Option<u8> {
        u8::BITS.checked_sub(self.streams.leading_zeros())?.checked_sub(1).and_then(|at| u8::try_from(at).ok())
    }
}

/// Streams that may cross where so many may.
pub(super) fn mask(allowed: u8) -> u8 {
    1u8.checked_shl(allowed.into()).map_or(u8::MAX, |bit| bit.wrapping_sub(1))
}

/// Has what crosses fit: takes away at once, and gives back only where that leaves some room. True if all that is wanted
/// crosses with room to spare.
pub(super) fn fit(videos: &mut [Video], budget_bps: u64) -> bool {
    for video in videos.iter_mut() {
        // Whatever is wanted of it next has to be looked at anew.
        video.allowed = video.allowed.min(video.useful().max(1));
    }
    if total(videos) > percent(budget_bps, TAKEN_ABOVE_PERCENT) {
        while total(videos) > budget_bps {
            let larger = |video: &&mut Video| {
                let rate = video.rates.get(usize::from(video.allowed).saturating_sub(1)).copied();
                (video.allowed, Reverse(video.rank), rate)
            };
            let Some(video) = videos.iter_mut().filter(|video| video.allowed > 0).max_by_key(larger) else { break };
            video.allowed = video.allowed.saturating_sub(1);
        }
        return false;
    }
    let room = percent(budget_bps, GIVEN_BELOW_PERCENT);
    let mut order: Vec<usize> = (0..videos.len()).collect();
    for level in 0..u8::try_from(STREAMS_MAX).unwrap_or(u8::MAX) {
        let smaller = |at: &usize| {
            let video = videos.get(*at);
            (
                Reverse(video.map(|video| video.rank)),
                video.and_then(|video| video.rates.get(usize::from(level)).copied()),
            )
        };
        order.sort_by_key(smaller);
        for at in &order {
            let now = total(videos);
            let Some(video) = videos.get_mut(*at) else { continue };
            if video.allowed != level || video.useful() <= level {
                continue;
            }
            let more = video.bits_per_second(level.saturating_add(1)).saturating_sub(video.bits_per_second(level));
            if now.saturating_add(more) <= room {
                video.allowed = level.saturating_add(1);
            }
        }
    }
    let is_whole = videos.iter().all(|video| video.allowed >= video.useful());
    is_whole && total(videos) <= percent(budget_bps, LIFTED_BELOW_PERCENT)
}

fn total(videos: &[Video]) -> u64 {
    videos.iter().map(|video| video.bits_per_second(video.allowed)).fold(0, u64::saturating_add)
}

fn bit(stream: u8) -> u8 {
    1u8.checked_shl(stream.into()).unwrap_or_default()
}

fn percent(bits: u64, percent: u64) -> u64 {
    bits.saturating_mul(percent).checked_div(100).unwrap_or_default()
}

/// Rates go up and down by themselves; in between nothing changes.
const TAKEN_ABOVE_PERCENT: u64 = 110;
const GIVEN_BELOW_PERCENT: u64 = 95;
const LIFTED_BELOW_PERCENT: u64 = 85;

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: [u64; STREAMS_MAX] = [150, 500, 2_000, 0, 0, 0, 0, 0];

    fn video(rank: Rank) -> Video {
        Video { rank, rates: RATES, streams: 0b100, top: Some(2), allowed: 8 }
    }

    fn allowed(videos: &[Video]) -> Vec<u8> {
        videos.iter().map(|video| video.allowed).collect()
    }

    #[test]
    fn what_fits_is_left_alone() {
        let mut videos = vec![video(Rank::Other); 3];
        assert!(fit(&mut videos, 10_000));
        assert!(!fit(&mut videos, 6_200), "it fits, without room to spare");
        assert_eq!(allowed(&videos), [3, 3, 3]);
    }

    #[test]
    fn top_layers_go_before_thumbnails_and_speakers_and_screens_keep_theirs_longest() {
        let ranks = [Rank::Other, Rank::Speaker, Rank::Screen, Rank::Other];
        let mut videos: Vec<_> = ranks.map(video).to_vec();
        let mut seen = Vec::new();
        for budget in [7_000, 5_100, 3_600, 2_000, 1_600, 700, 460, 310, 100] {
            fit(&mut videos, budget);
            seen.push(allowed(&videos));
            assert!(total(&videos) <= budget);
        }
        let expected = [
            vec![3, 3, 3, 2],
            vec![2, 3, 3, 2],
            vec![2, 2, 3, 2],
            vec![2, 2, 2, 2],
            vec![1, 2, 2, 1],
            vec![1, 1, 1, 1],
            vec![1, 1, 1, 0],
            vec![0, 1, 1, 0],
            vec![0, 0, 0, 0],
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn what_was_taken_comes_back_in_the_opposite_order_and_only_into_free_room() {
        let ranks = [Rank::Other, Rank::Speaker];
        let mut videos: Vec<_> = ranks.map(video).to_vec();
        fit(&mut videos, 100);
        let mut seen = vec![allowed(&videos)];
        for budget in (100..6_000).step_by(10) {
            // Who may not have what they want makes do with the highest there is.
            for video in &mut videos {
                video.streams = bit(video.allowed.saturating_sub(1)) & mask(video.allowed);
            }
            fit(&mut videos, budget);
            assert!(total(&videos) <= budget);
            if seen.last() != Some(&allowed(&videos)) {
                seen.push(allowed(&videos));
            }
        }
        assert_eq!(seen.first(), Some(&vec![0, 0]));
        assert_eq!(seen.last(), Some(&vec![3, 3]));
        assert!(seen.contains(&vec![0, 1]) && seen.contains(&vec![1, 2]) && seen.contains(&vec![2, 3]), "{seen:?}");
    }

    #[test]
    fn rates_that_waver_change_nothing() {
        let mut videos = vec![video(Rank::Other); 4];
        fit(&mut videos, 5_000);
        let before = allowed(&videos);
        for waver in [95, 105, 100, 92, 108] {
            videos.iter_mut().for_each(|video| video.rates = RATES.map(|rate| rate * waver / 100));
            fit(&mut videos, 5_000);
            assert_eq!(allowed(&videos), before, "at {waver} %");
        }
    }

    #[test]
    fn layers_of_one_stream_cross_or_do_not() {
        let mut videos =
            vec![Video { rates: [2_000, 0, 0, 0, 0, 0, 0, 0], streams: 1, top: Some(0), ..video(Rank::Other) }];
        fit(&mut videos, 1_000);
        assert_eq!(allowed(&videos), [0]);
        fit(&mut videos, 2_500);
        assert_eq!(allowed(&videos), [1]);
    }
}
