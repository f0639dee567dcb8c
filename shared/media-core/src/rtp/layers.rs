//! The layers of a track, and what one frame means to each of them: the same terms for every codec.

/// What of a track somebody receives: a spatial layer, with the pictures up to a temporal layer. Ordered from low to
/// high, all pictures of one spatial layer before the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LayerId(pub(crate) u8);

/// One stream of a track, counted from the smallest: each spatial layer has its own with simulcast, all share one with SVC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamId(pub(crate) u8);

/// A set of the layers of one stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Layers(u16);

/// A frame, which is one spatial layer of one picture, of a stream that has layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Running number without wraps, growing in the order of decoding; it may have holes.
    pub(crate) number: u64,
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
    /// The packet is the frame's first or last.
    pub(crate) starts: bool,
    pub(crate) ends: bool,
    /// Layers whose receivers get it.
    pub(crate) present: Layers,
    /// Layers to which a receiver that can decode this frame may go over with it: all that comes of them can be decoded.
    pub(crate) switch: Layers,
    /// Layers that are being sent at all.
    pub(crate) active: Layers,
    pub(crate) needs: Needs,
}

/// What must have been received for a frame to be decodable: all of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Frames so far back, in their numbers.
    pub(crate) frames: Distances,
    /// All that belongs to this layer.
    pub(crate) layer: Option<LayerId>,
}

/// A short list; 0 is no entry.
pub(crate) type Distances = [u16; DISTANCES_MAX];

pub(crate) const DISTANCES_MAX: usize = 8;
pub(crate) const SPATIAL_MAX: u8 = 3;
/// Stands for all pictures, whatever temporal layers there are.
pub(crate) const TEMPORAL_MAX: u8 = 3;

impl Needs {
    pub(crate) const NOTHING: Self = Self { frames: [0; DISTANCES_MAX], layer: None };
    /// More than was understood: nobody has it.
    pub(crate) const UNKNOWN: Self = Self { frames: [u16::MAX; DISTANCES_MAX], layer: None };

    pub(crate) fn of_frames(frames: Distances) -> Self {
        Self { frames, layer: None }
    }
}

impl LayerId {
    /// All pictures of a spatial layer.
    pub(crate) const fn spatial_layer(spatial: u8) -> Self {
        Self::new(spatial, TEMPORAL_MAX)
    }

    pub(crate) const fn new(spatial: u8, temporal: u8) -> Self {
        let temporal = if temporal > TEMPORAL_MAX { TEMPORAL_MAX } else { temporal };
        Self(spatial << 2 | temporal)
    }

    pub(crate) const fn spatial(self) -> u8 {
        self.0 >> 2
    }

    pub(crate) const fn temporal(self) -> u8 {
        self.0 & TEMPORAL_MAX
    }
}

impl Layers {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const ALL: Self = Self(u16::MAX);

    /// `spatial` and `temporal` beyond what is told apart count as the highest.
    pub(crate) fn of(spatial: u8, temporal: u8) -> Self {
        let place = LayerId::new(spatial.min(SPATIAL_MAX), temporal).0;
        Self(1u16.checked_shl(place.into()).unwrap_or_default())
    }

    /// Every layer with spatial layers and temporal layers from these on.
    pub(crate) fn from_on(spatial: u8, temporal: u8) -> Self {
        let rows = u16::MAX.checked_shl(u32::from(spatial.min(SPATIAL_MAX)).saturating_mul(4)).unwrap_or_default();
        let columns = [0xffff, 0xeeee, 0xcccc, 0x8888].get(usize::from(temporal.min(TEMPORAL_MAX))).copied();
        Self(rows & columns.unwrap_or_default())
    }

    /// Every layer with spatial layers and temporal layers up to these.
    pub(crate) fn up_to(spatial: u8, temporal: u8) -> Self {
        let above_spatial =
            if spatial >= SPATIAL_MAX { Self::NONE } else { Self::from_on(spatial.saturating_add(1), 0) };
        let above_temporal =
            if temporal >= TEMPORAL_MAX { Self::NONE } else { Self::from_on(0, temporal.saturating_add(1)) };
        Self(!(above_spatial.0 | above_temporal.0))
    }

    /// This temporal layer's.
    pub(crate) fn column(temporal: u8) -> Self {
        Self::from_on(0, temporal).and(Self::up_to(SPATIAL_MAX, temporal))
    }

    /// This spatial layer's.
    pub(crate) fn row(spatial: u8) -> Self {
        Self::from_on(spatial, 0).and(Self::up_to(spatial, TEMPORAL_MAX))
    }

    pub(crate) fn contains(self, layer: LayerId) -> bool {
        self.0.checked_shr(layer.0.into()).is_some_and(|bits| bits & 1 != 0)
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The best of these that is not above `wanted`; without any the lowest.
    pub(crate) fn best_for(self, wanted: LayerId) -> Option<LayerId> {
        let within = self.and(Self::up_to(wanted.spatial(), wanted.temporal())).0;
        let place =
            if within != 0 { within.checked_ilog2() } else { Some(self.0.trailing_zeros()).filter(|_| self.0 != 0) };
        Some(LayerId(u8::try_from(place?).ok()?))
    }

    #[cfg(test)]
    pub(crate) fn iter(self) -> impl Iterator<Item = LayerId> {
        (0..16).map(LayerId).filter(move |layer| self.contains(*layer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(layers: Layers) -> Vec<(u8, u8)> {
        layers.iter().map(|layer| (layer.spatial(), layer.temporal())).collect()
    }

    #[test]
    fn sets_are_what_their_names_say() {
        for spatial in 0..=5u8 {
            for temporal in 0..=5u8 {
                let (s, t) = (spatial.min(3), temporal.min(3));
                assert_eq!(pairs(Layers::of(spatial, temporal)), [(s, t)]);
                let every = (0..4).flat_map(|s| (0..4).map(move |t| (s, t)));
                let above: Vec<_> = every.clone().filter(|(a, b)| *a >= s && *b >= t).collect();
                let below: Vec<_> = every.clone().filter(|(a, b)| *a <= s && *b <= t).collect();
                assert_eq!(pairs(Layers::from_on(spatial, temporal)), above);
                assert_eq!(pairs(Layers::up_to(spatial, temporal)), below);
                assert_eq!(pairs(Layers::row(spatial)), every.filter(|(a, _)| *a == s).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn the_best_layer_is_the_highest_that_is_not_too_high() {
        let two_by_two = Layers::of(0, 0).or(Layers::of(0, 1)).or(Layers::of(1, 0)).or(Layers::of(1, 1));
        for (wanted, best) in [((3, 3), (1, 1)), ((1, 0), (1, 0)), ((0, 3), (0, 1)), ((0, 0), (0, 0))] {
            let best_for = two_by_two.best_for(LayerId::new(wanted.0, wanted.1)).unwrap();
            assert_eq!((best_for.spatial(), best_for.temporal()), best, "{wanted:?}");
        }
        assert_eq!(Layers::of(2, 1).best_for(LayerId::new(0, 3)), Some(LayerId::new(2, 1)), "the only one");
        assert_eq!(Layers::NONE.best_for(LayerId::new(3, 3)), None);
        // A layer of another stream with the highest number of simulcast.
        assert_eq!(Layers::ALL.best_for(LayerId::new(7, 3)), Some(LayerId::new(3, 3)));
    }

    #[test]
    fn layers_are_ordered_by_picture_size_first() {
        assert!(LayerId::new(0, 3) < LayerId::new(1, 0));
        assert!(LayerId::new(1, 0) < LayerId::new(1, 1));
        assert_eq!(LayerId::new(2, 9), LayerId::spatial_layer(2));
    }
}
