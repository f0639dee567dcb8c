//! Which layer a subscription should aim at, before bandwidth is looked at.

use std::time::{Duration, Instant};

use plenary_model::{Quality, SubscriptionSettings};

use crate::rtp::{
    LayerId, StreamId,
    layers::{SPATIAL_MAX, TEMPORAL_MAX},
};

/// How a track's spatial layers are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layering {
    /// Each in a stream of its own.
    Simulcast,
    /// All in one, each depending on those below.
    Svc,
}

impl Layering {
    pub(crate) fn stream_of(self, layer: LayerId) -> StreamId {
        match self {
            Self::Simulcast => StreamId(layer.spatial()),
            Self::Svc => StreamId(0),
        }
    }

    /// The layer that is had by receiving so much of a stream; all of it where nothing is said.
    pub(crate) fn layer_of(self, stream: StreamId, within: Option<LayerId>) -> LayerId {
        match self {
            Self::Simulcast => LayerId::new(stream.0, within.map_or(TEMPORAL_MAX, LayerId::temporal)),
            Self::Svc => within.unwrap_or(LayerId::spatial_layer(SPATIAL_MAX)),
        }
    }

    /// What of its stream a layer is.
    pub(crate) fn within_stream(self, layer: LayerId) -> LayerId {
        match self {
            Self::Simulcast => LayerId::new(SPATIAL_MAX, layer.temporal()),
            Self::Svc => layer,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Off,
    Layer(LayerId),
}

/// One spatial layer of a track, as it was announced and as it comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayerState {
    pub(crate) spatial: u8,
    /// The lowest temporal layer with as many pictures as are wanted.
    pub(crate) temporal: u8,
    /// 0 when unknown.
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// It is being sent.
    pub(crate) alive: bool,
    /// It may be aimed at. Within one stream also a layer that the encoder has not begun: the best below it is sent
    /// meanwhile, and the key picture that begins it is good for going over to it.
    pub(crate) eligible: bool,
}

/// The layer that suits the settings best among the eligible. `layers` go from low to high. Without any, the one that
/// would suit: a track begins like that.
pub(crate) fn choose_layer(settings: &SubscriptionSettings, layers: &[LayerState]) -> Target {
    let sized = settings.width > 0 && settings.height > 0;
    if settings.disabled || (!sized && settings.quality == Quality::Off) {
        return Target::Off;
    }
    let known = sized && layers.iter().any(|layer| shorter_side(layer.width, layer.height) > 0);
    let wanted = if known {
        // livekit-protocol 5.1: the smallest layer that covers the tile, otherwise the largest. The shorter sides are
        // compared, so that a phone held upright does not count as small.
        let side = shorter_side(settings.width, settings.height);
        let covers = |layer: &&LayerState| shorter_side(layer.width, layer.height) >= side;
        layers.iter().find(covers).or(layers.last())
    } else {
        let rank = match settings.quality {
            Quality::Low => 0,
            Quality::Medium => 1,
            Quality::High | Quality::Off => 2,
        };
        layers.get(rank).or(layers.last())
    };
    let Some(wanted) = wanted else { return Target::Off };
    let below = layers.iter().rev().find(|layer| layer.eligible && layer.spatial <= wanted.spatial);
    let above = layers.iter().find(|layer| layer.eligible);
    Target::Layer(below.or(above).unwrap_or(wanted).id())
}

/// The spatial layer that would suit the settings best if every layer were sent.
pub(crate) fn demanded_layer(settings: &SubscriptionSettings, layers: &[LayerState]) -> Option<u8> {
    let all: Vec<_> = layers.iter().map(|layer| LayerState { eligible: true, ..*layer }).collect();
    match choose_layer(settings, &all) {
        Target::Off => None,
        Target::Layer(layer) => Some(layer.spatial()),
    }
}

impl LayerState {
    pub(crate) fn id(&self) -> LayerId {
        LayerId::new(self.spatial, self.temporal)
    }
}

/// Whether a layer is being sent: it was heard, and no other layer of its track was heard much later. Judged against its
/// siblings, a muted track keeps its layers and a still screen share does too.
pub(crate) fn is_alive(last_heard: Option<Instant>, newest_of_track: Option<Instant>) -> bool {
    match (last_heard, newest_of_track) {
        (Some(last), Some(newest)) => newest.saturating_duration_since(last) <= LAYER_SILENCE_MAX,
        (last, _) => last.is_some(),
    }
}

fn shorter_side(width: u32, height: u32) -> u32 {
    width.min(height)
}

const LAYER_SILENCE_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::layers::TEMPORAL_MAX;

    fn layers(alive: [bool; 3]) -> Vec<LayerState> {
        let sizes = [(320, 180), (640, 360), (1280, 720)];
        let layer = |(n, (width, height)): (usize, (u32, u32))| LayerState {
            spatial: n as u8,
            temporal: TEMPORAL_MAX,
            width,
            height,
            alive: alive[n],
            eligible: alive[n],
        };
        sizes.into_iter().enumerate().map(layer).collect()
    }

    #[test]
    fn settings_choose_the_layer() {
        let all = [true; 3];
        let settings = |width, height, quality| SubscriptionSettings { width, height, quality, ..Default::default() };
        for (name, settings, alive, expected) in [
            ("high by default", SubscriptionSettings::default(), all, Some(2)),
            ("low quality", settings(0, 0, Quality::Low), all, Some(0)),
            ("medium quality", settings(0, 0, Quality::Medium), all, Some(1)),
            ("quality off", settings(0, 0, Quality::Off), all, None),
            ("a small tile wins over high quality", settings(200, 110, Quality::High), all, Some(0)),
            ("a tile between two layers takes the larger", settings(400, 200, Quality::Low), all, Some(1)),
            ("a tile larger than all takes the largest", settings(3840, 2160, Quality::Low), all, Some(2)),
            ("an upright tile counts by its shorter side", settings(360, 640, Quality::Low), all, Some(1)),
            ("size wins over quality off", settings(200, 110, Quality::Off), all, Some(0)),
            ("a dead layer falls to the one below", settings(0, 0, Quality::High), [true, true, false], Some(1)),
            ("only a higher one is sent", settings(0, 0, Quality::Low), [false, false, true], Some(2)),
            ("nothing is sent yet", settings(0, 0, Quality::Medium), [false; 3], Some(1)),
            ("disabled", SubscriptionSettings { disabled: true, ..Default::default() }, all, None),
        ] {
            let expected = expected.map_or(Target::Off, |layer| Target::Layer(LayerId::spatial_layer(layer)));
            assert_eq!(choose_layer(&settings, &layers(alive)), expected, "{name}");
        }
    }

    #[test]
    fn a_single_stream_is_chosen_whatever_is_wanted() {
        let single = [LayerState { spatial: 0, temporal: 1, width: 0, height: 0, alive: true, eligible: true }];
        let settings = SubscriptionSettings { width: 100, height: 100, ..Default::default() };
        assert_eq!(choose_layer(&settings, &single), Target::Layer(LayerId::new(0, 1)));
        assert_eq!(choose_layer(&settings, &[]), Target::Off);
    }

    #[test]
    fn a_layer_is_dead_when_its_siblings_go_on_without_it() {
        let start = Instant::now();
        let at = |ms| Some(start + Duration::from_millis(ms));
        for (last, newest, alive) in
            [(None, at(0), false), (at(0), at(1_000), true), (at(0), at(1_001), false), (at(5), at(5), true)]
        {
            assert_eq!(is_alive(last, newest), alive);
        }
    }
}
