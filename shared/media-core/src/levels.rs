//! How loud a published audio track is, from the levels its packets carry (RFC 6464).
//!
//! Hot: `record` runs once per audio packet. Counters only; no samples are kept.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use std::time::Duration;

/// One track's loudness, window after window. The caller closes windows on its own beat of [`WINDOW`].
#[derive(Debug, Default)]
pub(crate) struct AudioLevels {
    packets: u32,
    loud_packets: u32,
    /// Of the window's loudest packet, in dB below overload.
    loudest_db: Option<u8>,
    smoothed: f32,
    told: Loudness,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Loudness {
    /// Linear amplitude 0.0 to 1.0 in eighths.
    pub(crate) level: f32,
    pub(crate) active: bool,
}

impl AudioLevels {
    /// One packet, `below_overload_db` from 0 (loudest) to 127 (silence).
    pub(crate) fn record(&mut self, below_overload_db: u8) {
        self.packets = self.packets.saturating_add(1);
        if below_overload_db < ACTIVE_ABOVE_DB {
            self.loud_packets = self.loud_packets.saturating_add(1);
        }
        self.loudest_db = Some(self.loudest_db.map_or(below_overload_db, |db| db.min(below_overload_db)));
    }

    /// Ends the window. `None` if there is nothing to tell: no packet came, and the track was silent already.
    pub(crate) fn close_window(&mut self) -> Option<Loudness> {
        let had_packets = self.packets > 0;
        let active =
            had_packets && self.loud_packets.saturating_mul(100) >= self.packets.saturating_mul(ACTIVE_PERCENT);
        let amplitude = self.loudest_db.filter(|_| active).map_or(0.0, |db| 10f32.powf(-f32::from(db) / 20.0));
        self.smoothed += (amplitude - self.smoothed) * SMOOTHING;
        let loudness = if active {
            // Rounded up, so that somebody who is active never shows level 0.
            Loudness { level: (self.smoothed * 8.0).ceil().clamp(1.0, 8.0) / 8.0, active }
        } else {
            self.smoothed = 0.0;
            Loudness::default()
        };
        let tell = had_packets || self.told != loudness;
        self.told = loudness;
        (self.packets, self.loud_packets, self.loudest_db) = (0, 0, None);
        tell.then_some(loudness)
    }
}

/// livekit-protocol 5.5.
pub(crate) const WINDOW: Duration = Duration::from_millis(400);
const ACTIVE_ABOVE_DB: u8 = 35;
const ACTIVE_PERCENT: u32 = 40;
/// An exponential average over two windows: 2 / (2 + 1).
const SMOOTHING: f32 = 2.0 / 3.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn window(levels: &mut AudioLevels, packets: &[u8]) -> Option<Loudness> {
        packets.iter().for_each(|db| levels.record(*db));
        levels.close_window()
    }

    #[test]
    fn forty_percent_of_loud_packets_make_a_speaker() {
        for (loud, active) in [(0, false), (7, false), (8, true), (20, true)] {
            let packets: Vec<u8> = (0..20).map(|n| if n < loud { 20 } else { 127 }).collect();
            assert_eq!(window(&mut AudioLevels::default(), &packets).unwrap().active, active, "{loud} of 20");
        }
    }

    #[test]
    fn exactly_thirty_five_is_not_loud() {
        assert!(!window(&mut AudioLevels::default(), &[35; 20]).unwrap().active);
        assert!(window(&mut AudioLevels::default(), &[34; 20]).unwrap().active);
    }

    #[test]
    fn the_level_is_smoothed_amplitude_in_eighths() {
        let mut levels = AudioLevels::default();
        // −6 dB is an amplitude of 0.501.
        let told: Vec<f32> = (0..4).map(|_| window(&mut levels, &[6; 20]).unwrap().level).collect();
        assert_eq!(told, [0.375, 0.5, 0.5, 0.5]);
        assert_eq!(window(&mut AudioLevels::default(), &[34; 20]).unwrap().level, 0.125);
        assert_eq!(window(&mut AudioLevels::default(), &[0; 20]).unwrap().level, 0.75);
    }

    #[test]
    fn falling_silent_is_told_once() {
        let mut levels = AudioLevels::default();
        assert_eq!(levels.close_window(), None);
        assert!(window(&mut levels, &[10; 20]).unwrap().active);
        assert_eq!(levels.close_window(), Some(Loudness::default()));
        assert_eq!(levels.close_window(), None);
        assert_eq!(window(&mut levels, &[127; 2]), Some(Loudness::default()), "packets of silence are told");
    }
}
