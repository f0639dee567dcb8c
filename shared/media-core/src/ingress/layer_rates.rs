//! What the layers of one stream take, and which of them come.

use std::time::Instant;

use super::RateMeter;
use crate::rtp::layers::{Frame, LayerId, Layers, SPATIAL_MAX, TEMPORAL_MAX};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct LayerRates {
    spatial: [Spatial; SPATIAL_LAYERS],
    /// Pictures by their temporal layer.
    pictures: [RateMeter; TEMPORAL_LAYERS],
    top_temporal: u8,
    active: Layers,
}

#[derive(Debug, Default)]
struct Spatial {
    temporal: [Temporal; TEMPORAL_LAYERS],
    heard: Option<Instant>,
    size: Option<(u16, u16)>,
}

/// What is known of one spatial layer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SpatialLayer {
    /// When the last packet of it came; `None` too when it is said not to be sent.
    pub(crate) heard: Option<Instant>,
    /// Width and height, if the stream tells.
    pub(crate) size: Option<(u16, u16)>,
}

#[derive(Debug, Default)]
struct Temporal {
    rate: RateMeter,
    /// Who got the last frame that was not part of a key picture.
    present: Layers,
}

impl LayerRates {
    pub(super) fn add(&mut self, now: Instant, frame: &Frame, bytes: usize, in_key_picture: bool) {
        self.active = frame.active;
        if frame.present.is_empty() {
            return;
        }
        self.top_temporal = self.top_temporal.max(frame.temporal.min(TEMPORAL_MAX));
        let column = usize::from(frame.temporal.min(TEMPORAL_MAX));
        if frame.starts
            && frame.spatial == 0
            && let Some(meter) = self.pictures.get_mut(column)
        {
            // Eight bits each: the meter counts bytes.
            meter.add(now, 1);
        }
        let Some(spatial) = self.spatial.get_mut(usize::from(frame.spatial.min(SPATIAL_MAX))) else { return };
        spatial.heard = Some(now);
        let Some(temporal) = spatial.temporal.get_mut(column) else { return };
        temporal.rate.add(now, bytes);
        if !in_key_picture || temporal.present.is_empty() {
            temporal.present = frame.present;
        }
    }

    pub(super) fn set_sizes(&mut self, sizes: impl Iterator<Item = (u16, u16)>) {
        for (spatial, size) in self.spatial.iter_mut().zip(sizes) {
            spatial.size = Some(size).filter(|(width, height)| *width > 0 && *height > 0);
        }
    }

    /// What a receiver of this layer gets.
    pub(crate) fn bits_per_second(&self, now: Instant, layer: LayerId) -> u64 {
        let Some(layer) = self.active.best_for(layer) else { return 0 };
        let parts = self.spatial.iter().flat_map(|spatial| &spatial.temporal);
        let received = parts.filter(|part| part.present.contains(layer));
        received.fold(0u64, |sum, part| sum.saturating_add(part.rate.bits_per_second(now)))
    }

    /// From low to high, up to the highest that was ever heard.
    pub(crate) fn spatial_layers(&self) -> impl Iterator<Item = SpatialLayer> {
        let known =
            self.spatial.iter().rposition(|spatial| spatial.heard.is_some()).map_or(0, |top| top.saturating_add(1));
        self.spatial.iter().zip(0u8..).take(known).map(|(spatial, number)| {
            let is_active = !self.active.and(Layers::row(number)).is_empty();
            SpatialLayer { heard: spatial.heard.filter(|_| is_active), size: spatial.size }
        })
    }

    pub(crate) fn top_temporal(&self) -> u8 {
        self.top_temporal
    }

    /// The lowest temporal layer with so many pictures a second; all of them if it takes all.
    pub(crate) fn temporal_for(&self, now: Instant, fps: u32) -> u8 {
        // A tenth less is the same rate, measured.
        let wanted = u64::from(fps).saturating_mul(8 * 9) / 10;
        let mut sum = 0u64;
        for (meter, temporal) in self.pictures.iter().zip(0u8..) {
            sum = sum.saturating_add(meter.bits_per_second(now));
            if sum >= wanted && temporal < self.top_temporal {
                return temporal;
            }
        }
        TEMPORAL_MAX
    }
}

const SPATIAL_LAYERS: usize = 4;
const TEMPORAL_LAYERS: usize = 4;
