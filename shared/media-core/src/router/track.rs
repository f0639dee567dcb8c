//! Published tracks: their layers' streams, and who receives them.

use std::{collections::HashMap, time::Instant};

use plenary_model::{MediaKind, ParticipantSid, PeerId, TrackSid};

use crate::{
    Announced, LayerSize,
    ingress::{KeyframeRequests, LAYER_INTERVAL, LOW_LAYER_INTERVAL, Stream},
    levels::AudioLevels,
    rtp::{Codec, LayerId},
    session_description::{Extensions, ReceiveSection, SendCodec},
};

#[derive(Debug)]
pub(super) struct Track {
    pub(super) sid: TrackSid,
    pub(super) participant: ParticipantSid,
    pub(super) publisher: PeerId,
    pub(super) kind: MediaKind,
    pub(super) codec: Codec,
    pub(super) muted: bool,
    pub(super) layers: Vec<Layer>,
    /// Who receives it.
    pub(super) receivers: Vec<Receiver>,
    /// What its section said of extensions, and of the codec for subscribers.
    pub(super) extensions: Extensions,
    pub(super) send_codec: SendCodec,
    pub(super) stereo: bool,
    pub(super) levels: AudioLevels,
    /// A first packet came in.
    pub(super) heard: bool,
}

/// One quality of a track, low to high.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) size: LayerSize,
    pub(super) stream: Option<Stream>,
    pub(super) keyframes: KeyframeRequests,
}

/// One subscription of a track: whose, and which of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Receiver {
    /// Slot of the peer in its router.
    pub(super) peer: usize,
    /// Slot of the subscription in its peer.
    pub(super) slot: usize,
}

/// The tracks of a router by sid.
pub(super) type Tracks = HashMap<TrackSid, Track>;

/// A size for each layer that the description names, whatever was announced: by its name, or by its
/// place if it has none. Without names in the description there is one layer, the largest that was announced.
fn sizes(announced: &[LayerSize], rids: &[String]) -> Vec<LayerSize> {
    let unknown = || LayerSize { rid: String::new(), width: 0, height: 0, bitrate_bps: 0 };
    if rids.is_empty() {
        let pixels = |size: &&LayerSize| u64::from(size.width).saturating_mul(u64::from(size.height));
        return vec![announced.iter().max_by_key(pixels).cloned().unwrap_or_else(unknown)];
    }
    let size = |(at, rid): (usize, &String)| {
        let nameless = || announced.get(at).filter(|size| size.rid.is_empty());
        let named = announced.iter().find(|size| size.rid == *rid).or_else(nameless);
        LayerSize { rid: rid.clone(), ..named.cloned().unwrap_or_else(unknown) }
    };
    rids.iter().enumerate().map(size).collect()
}

impl Track {
    pub(super) fn new(
        announced: &Announced,
        participant: ParticipantSid,
        publisher: PeerId,
        codec: Codec,
        section: &ReceiveSection,
    ) -> Self {
        let layer = |(at, size): (usize, LayerSize)| {
            let interval = if at == 0 { LOW_LAYER_INTERVAL } else { LAYER_INTERVAL };
            Layer { size, stream: None, keyframes: KeyframeRequests::new(interval) }
        };
        let sizes = sizes(&announced.layers, &section.rids);
        Self {
            sid: announced.track.clone(),
            participant,
            publisher,
            kind: announced.kind,
            codec,
            muted: false,
            layers: sizes.into_iter().enumerate().map(layer).collect(),
            receivers: Vec::new(),
            extensions: section.extensions,
            send_codec: section.send_codec(),
            stereo: announced.stereo,
            levels: AudioLevels::default(),
            heard: false,
        }
    }

    pub(super) fn stream(&self, layer: LayerId) -> Option<&Stream> {
        self.layers.get(usize::from(layer.0))?.stream.as_ref()
    }

    pub(super) fn need_keyframe(&mut self, layer: LayerId) {
        if let Some(layer) = self.layers.get_mut(usize::from(layer.0)) {
            layer.keyframes.need();
        }
    }

    pub(super) fn stream_mut(&mut self, layer: LayerId) -> Option<&mut Stream> {
        self.layers.get_mut(usize::from(layer.0))?.stream.as_mut()
    }

    pub(super) fn streams(&self) -> impl Iterator<Item = (&Stream, &KeyframeRequests)> {
        self.layers.iter().filter_map(|layer| Some((layer.stream.as_ref()?, &layer.keyframes)))
    }

    pub(super) fn streams_mut(&mut self) -> impl Iterator<Item = (&mut Stream, &mut KeyframeRequests)> {
        self.layers.iter_mut().filter_map(|layer| Some((layer.stream.as_mut()?, &mut layer.keyframes)))
    }

    pub(super) fn keyframe_deadline(&self, now: Instant) -> Option<Instant> {
        self.streams().filter_map(|(_, keyframes)| keyframes.deadline(now)).min()
    }
}
