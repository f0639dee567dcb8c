//! Where a reader can jump to and when the last frame ends: what is gathered while a file is written, and again from the
//! file itself when it is repaired.

use bytes::BytesMut;

use super::ebml::{id, put, put_master, put_unsigned};

/// Entries of an index. At the limit every second one goes and the rest is spaced twice as far: 128 KiB hold any meeting.
const CUES_MAX: usize = 8192;
/// How far apart entries are at least once there were too many, at first.
const SPACING_MS: u64 = 1000;
/// A longer distance between two frames is a pause and not how long a frame lasts.
const FRAME_MS_MAX: u64 = 1000;

#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    cues: Vec<Cue>,
    spacing_ms: u64,
    pub(crate) span: Span,
}

#[derive(Debug, Clone, Copy)]
struct Cue {
    at_ms: u64,
    /// Of the cluster, in the file.
    position: u64,
}

impl Index {
    /// A cluster stands at `position`. It is a place to jump to if it begins with a key frame; the first one always is,
    /// since an index without entries is none (RFC 9559 5.1.5).
    pub(crate) fn add(&mut self, at_ms: u64, position: u64, begins_with_key: bool) {
        let is_far = self.cues.last().is_none_or(|last| at_ms >= last.at_ms.saturating_add(self.spacing_ms));
        if !is_far || !begins_with_key && !self.cues.is_empty() {
            return;
        }
        if self.cues.len() >= CUES_MAX {
            let mut keeps = false;
            self.cues.retain(|_| {
                keeps = !keeps;
                keeps
            });
            self.spacing_ms = self.spacing_ms.saturating_mul(2).max(SPACING_MS);
        }
        self.cues.push(Cue { at_ms, position });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.cues.is_empty()
    }

    /// The Cues element; `segment` is where the Segment's content begins, from which its positions count.
    pub(crate) fn cues(&self, segment: u64) -> BytesMut {
        let mut points = BytesMut::new();
        for cue in &self.cues {
            put_master(&mut points, id::CUE_POINT, |point| {
                put_unsigned(point, id::CUE_TIME, cue.at_ms);
                put_master(point, id::CUE_TRACK_POSITIONS, |track| {
                    put_unsigned(track, id::CUE_TRACK, super::TRACK_NUMBER);
                    put_unsigned(track, id::CUE_CLUSTER_POSITION, cue.position.saturating_sub(segment));
                });
            });
        }
        let mut out = BytesMut::new();
        put(&mut out, id::CUES, &points);
        out
    }
}

/// When the frames end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Span {
    last_ms: Option<u64>,
    /// From one frame to the next, as last seen: how long the last one is taken to last.
    step_ms: u64,
}

impl Span {
    pub(crate) fn frame(&mut self, at_ms: u64) {
        let last_ms = self.last_ms.unwrap_or(at_ms);
        if let step_ms @ 1..=FRAME_MS_MAX = at_ms.saturating_sub(last_ms) {
            self.step_ms = step_ms;
        }
        self.last_ms = Some(last_ms.max(at_ms));
    }

    /// At least 1, as a Duration is above zero (RFC 9559 5.1.2.10).
    pub(crate) fn duration_ms(&self) -> u64 {
        self.last_ms.unwrap_or_default().saturating_add(self.step_ms).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_of_any_length_is_bounded_and_still_covers_all() {
        let mut index = Index::default();
        let clusters = 200_000u64;
        for n in 0..clusters {
            index.add(n * 500, n * 1000, true);
            assert!(index.cues.len() <= CUES_MAX);
        }
        assert_eq!(index.cues[0].position, 0);
        let apart: Vec<_> = index.cues.windows(2).map(|two| two[1].at_ms - two[0].at_ms).collect();
        assert!(apart.iter().all(|ms| *ms <= 2 * index.spacing_ms), "{:?}", apart.iter().max());
        assert!(clusters * 500 - index.cues.last().unwrap().at_ms <= 2 * index.spacing_ms);
    }

    #[test]
    fn only_clusters_that_begin_with_a_key_frame_are_jumped_to_but_the_first() {
        let mut index = Index::default();
        for (at_ms, begins_with_key) in [(5, false), (1005, false), (2005, true)] {
            index.add(at_ms, at_ms, begins_with_key);
        }
        assert_eq!(index.cues.iter().map(|cue| cue.at_ms).collect::<Vec<_>>(), [5, 2005]);
    }

    #[test]
    fn the_last_frame_lasts_as_long_as_the_one_before() {
        let after = |times: &[u64]| {
            let mut span = Span::default();
            times.iter().for_each(|at_ms| span.frame(*at_ms));
            span.duration_ms()
        };
        assert_eq!(after(&[0]), 1);
        assert_eq!(after(&[0, 20, 40]), 60);
        assert_eq!(after(&[0, 20, 60_000]), 60_020);
        assert_eq!(after(&[100, 133, 120]), 166);
    }
}
