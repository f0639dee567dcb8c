//! Published tracks: their layers' streams, and who receives them.

use std::time::{Duration, Instant};

use plenary_model::{MediaKind, ParticipantSid, PeerId, Source, SubscriptionSettings, TrackSid};
use rustc_hash::FxHashMap;

use crate::{
    Announced, LayerSize,
    estimate::Rank,
    forward::{LayerState, Layering, demanded_layer, is_alive},
    ingress::{KeyframeRequests, LAYER_INTERVAL, LOW_LAYER_INTERVAL, LayerRates, SpatialLayer, Stream},
    levels::AudioLevels,
    rtp::{Codec, LayerId, StreamId, layers::TEMPORAL_MAX},
    session_description::{Extensions, ReceiveSection, SendCodec},
};

#[derive(Debug)]
pub(super) struct Track {
    pub(super) sid: TrackSid,
    pub(super) participant: ParticipantSid,
    pub(super) origin: TrackOrigin,
    /// Changes with all that is told of it to other routers.
    pub(super) version: u64,
    pub(super) kind: MediaKind,
    pub(super) source: Source,
    /// When its participant was last heard to speak.
    pub(super) spoke: Option<Instant>,
    pub(super) codec: Codec,
    pub(super) muted: bool,
    pub(super) layering: Layering,
    /// Of each spatial layer, low to high, as far as they were announced.
    pub(super) sizes: Vec<LayerSize>,
    pub(super) encodings: Vec<Encoding>,
    /// Who receives it.
    pub(super) receivers: Vec<Receiver>,
    /// Other routers that do.
    pub(super) pullers: Vec<Puller>,
    /// A recording takes it.
    pub(super) is_tapped: bool,
    /// What its first stream is called on links.
    pub(super) first_stream: u32,
    /// What of it is wanted, as the publisher was told.
    pub(super) demand: Option<u8>,
    /// What its section said of extensions, and of the codec for subscribers.
    pub(super) extensions: Extensions,
    pub(super) send_codec: SendCodec,
    /// The publisher's number for redundant audio.
    pub(super) red_payload_type: Option<u8>,
    pub(super) stereo: bool,
    /// Its frames end in packet trailers.
    pub(super) trailers: bool,
    pub(super) levels: AudioLevels,
    /// A first packet came in.
    pub(super) heard: bool,
}

/// One stream of a track; with simulcast one for each spatial layer, low to high.
#[derive(Debug)]
pub(super) struct Encoding {
    pub(super) stream: Option<Stream>,
    pub(super) keyframes: KeyframeRequests,
    /// Of a track that is published elsewhere.
    pub(super) remote: RemoteStream,
}

/// Where a track is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TrackOrigin {
    Peer(PeerId),
    /// At the router behind the link in this slot, whichever way it comes from there.
    Link(usize),
}

/// What a router knows of a stream that comes over a link.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RemoteStream {
    /// The publisher's SSRC.
    pub(super) ssrc: Option<u32>,
    /// When its origin said last that it is being sent there.
    pub(super) alive: Option<Instant>,
    /// Its origin said last that it does not cross: not sent there, or no room on the link.
    pub(super) is_withheld: bool,
    /// What it takes, in the words of its origin.
    pub(super) bits_per_second: u64,
}

/// Another router that receives a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Puller {
    /// Slot of the link.
    pub(super) link: usize,
    /// Bit n: its nth stream.
    pub(super) streams: u8,
    /// The highest spatial layer that somebody there wants.
    pub(super) demand: Option<u8>,
}

/// One subscription of a track: whose, and which of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Receiver {
    /// Slot of the peer in its router.
    pub(super) peer: usize,
    /// Slot of the subscription in its peer.
    pub(super) slot: usize,
    /// The spatial layer it wants of a video.
    pub(super) demand: Option<u8>,
}

/// The tracks of a router by sid.
pub(super) type Tracks = FxHashMap<TrackSid, Track>;

/// A size for each layer that the description names, whatever was announced: by its name, or by its
/// place if it has none. Without names in the description there is one layer, the largest that was announced, unless the
/// codec puts all layers into one stream.
fn sizes(announced: &[LayerSize], rids: &[String], layering: Layering) -> Vec<LayerSize> {
    let unknown = || LayerSize { rid: String::new(), width: 0, height: 0, bitrate_bps: 0 };
    let pixels = |size: &LayerSize| u64::from(size.width).saturating_mul(u64::from(size.height));
    if layering == Layering::Svc {
        let mut sizes = announced.to_vec();
        sizes.sort_by_key(pixels);
        return sizes;
    }
    if rids.is_empty() {
        let pixels = |size: &&LayerSize| pixels(size);
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
        let encoding = |at: usize| {
            let interval = if at == 0 { LOW_LAYER_INTERVAL } else { LAYER_INTERVAL };
            Encoding { stream: None, keyframes: KeyframeRequests::new(interval), remote: RemoteStream::default() }
        };
        let layering = match codec {
            Codec::Vp9 | Codec::Av1 if section.rids.len() <= 1 => Layering::Svc,
            _ => Layering::Simulcast,
        };
        Self {
            sid: announced.track.clone(),
            participant,
            origin: TrackOrigin::Peer(publisher),
            version: 0,
            kind: announced.kind,
            source: announced.source,
            spoke: None,
            codec,
            muted: false,
            layering,
            sizes: sizes(&announced.layers, &section.rids, layering),
            encodings: (0..section.rids.len().max(1)).map(encoding).collect(),
            receivers: Vec::new(),
            pullers: Vec::new(),
            is_tapped: false,
            first_stream: 0,
            demand: None,
            extensions: section.extensions,
            send_codec: section.send_codec(),
            red_payload_type: section.red_payload_type(),
            stereo: announced.stereo,
            trailers: announced.trailers,
            levels: AudioLevels::default(),
            heard: false,
        }
    }

    pub(super) fn is_local(&self) -> bool {
        matches!(self.origin, TrackOrigin::Peer(_))
    }

    /// The slot of the link to the router where it is published, if that is not this one.
    pub(super) fn home(&self) -> Option<usize> {
        match self.origin {
            TrackOrigin::Peer(_) => None,
            TrackOrigin::Link(slot) => Some(slot),
        }
    }

    pub(super) fn is_from_link(&self, slot: usize) -> bool {
        self.origin == TrackOrigin::Link(slot)
    }

    /// Whose turn it is when bandwidth is short.
    pub(super) fn rank(&self, now: Instant) -> Rank {
        let speaks = |at: Instant| now.saturating_duration_since(at) < SPEAKER_HOLD;
        match self.source {
            Source::ScreenShare => Rank::Screen,
            _ if self.spoke.is_some_and(speaks) => Rank::Speaker,
            _ => Rank::Other,
        }
    }

    pub(super) fn stream(&self, id: StreamId) -> Option<&Stream> {
        self.encodings.get(usize::from(id.0))?.stream.as_ref()
    }

    pub(super) fn need_keyframe(&mut self, id: StreamId) {
        if let Some(encoding) = self.encodings.get_mut(usize::from(id.0)) {
            encoding.keyframes.need();
        }
    }

    pub(super) fn stream_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.encodings.get_mut(usize::from(id.0))?.stream.as_mut()
    }

    /// The spatial layers from low to high, as they were announced and as they come in. `fps` is what somebody wants of
    /// pictures, 0 for all.
    pub(super) fn layer_states(&self, now: Instant, fps: u32) -> Vec<LayerState> {
        let heard = |stream: Option<&Stream>| SpatialLayer { heard: stream.and_then(Stream::last_heard), size: None };
        // Of a layer that does not cross the link its origin knows whether it is sent.
        let known = |encoding: &Encoding| {
            let local = heard(encoding.stream.as_ref());
            let heard = local.heard.max(encoding.remote.alive).filter(|_| !encoding.remote.is_withheld);
            SpatialLayer { heard, ..local }
        };
        let layers: Vec<SpatialLayer> = match self.layering {
            Layering::Simulcast => self.encodings.iter().map(known).collect(),
            Layering::Svc => {
                let stream = self.stream(StreamId(0));
                let layers = stream.and_then(Stream::layers).map(|layers| layers.spatial_layers().collect());
                layers.unwrap_or_else(|| vec![heard(stream)])
            }
        };
        let newest = layers.iter().filter_map(|layer| layer.heard).max();
        let count = layers.len().max(self.sizes.len());
        let state = |at: usize| {
            let spatial = u8::try_from(at).unwrap_or(u8::MAX);
            let SpatialLayer { heard, size } = layers.get(at).copied().unwrap_or_default();
            let announced = || self.sizes.get(at).map(|size| (size.width, size.height)).unwrap_or_default();
            let (width, height) = size.map_or_else(announced, |(width, height)| (width.into(), height.into()));
            let stream = self.stream(self.layering.stream_of(LayerId::spatial_layer(spatial)));
            let temporal = match stream.and_then(Stream::layers) {
                Some(layers) if fps > 0 => layers.temporal_for(now, fps),
                _ => TEMPORAL_MAX,
            };
            let alive = is_alive(heard, newest);
            let may_begin = self.layering == Layering::Svc && heard.is_none();
            LayerState { spatial, temporal, width, height, alive, eligible: alive || may_begin }
        };
        (0..count).map(state).collect()
    }

    /// The spatial layer that somebody with these settings wants, whether or not it is being sent now.
    pub(super) fn demand_of(&self, now: Instant, settings: &SubscriptionSettings) -> Option<u8> {
        match self.kind {
            MediaKind::Audio => None,
            MediaKind::Video => demanded_layer(settings, &self.layer_states(now, 0)),
        }
    }

    /// What of it is wanted now, if that changed since this was asked last.
    pub(super) fn changed_demand(&mut self) -> Option<Option<u8>> {
        let demand = self.demand_here().max(self.pullers.iter().filter_map(|puller| puller.demand).max());
        let demand = demand.filter(|_| !self.muted);
        (std::mem::replace(&mut self.demand, demand) != demand).then_some(demand)
    }

    /// The highest spatial layer that somebody wants who is on this router. A recording wants all.
    pub(super) fn demand_here(&self) -> Option<u8> {
        let top = || u8::try_from(self.encodings.len().max(self.sizes.len())).unwrap_or(u8::MAX).saturating_sub(1);
        let tapped = (self.is_tapped && self.kind == MediaKind::Video).then(top);
        self.receivers.iter().filter_map(|receiver| receiver.demand).chain(tapped).max()
    }

    /// Whether anybody receives it, here or elsewhere.
    pub(super) fn is_received(&self) -> bool {
        self.is_received_here() || !self.pullers.is_empty()
    }

    pub(super) fn is_received_here(&self) -> bool {
        self.is_tapped || !self.receivers.is_empty()
    }

    /// What a layer takes.
    pub(super) fn bits_per_second(&self, now: Instant, layer: LayerId) -> u64 {
        let Some(encoding) = self.encodings.get(usize::from(self.layering.stream_of(layer).0)) else { return 0 };
        let stream = encoding.stream.as_ref();
        let own = stream.map_or(0, |stream| match stream.layers() {
            Some(layers) => layers.bits_per_second(now, self.layering.within_stream(layer)),
            None => stream.bits_per_second(now),
        });
        if own == 0 { encoding.remote.bits_per_second } else { own }
    }

    /// What its nth stream takes, whatever layers it has.
    pub(super) fn stream_bits_per_second(&self, now: Instant, at: usize) -> u64 {
        let stream = self.encodings.get(at).and_then(|encoding| encoding.stream.as_ref());
        stream.map_or(0, |stream| stream.bits_per_second(now))
    }

    /// Whether a layer's stream has temporal layers, up to which.
    pub(super) fn top_temporal(&self, spatial: u8) -> u8 {
        let stream = self.stream(self.layering.stream_of(LayerId::spatial_layer(spatial)));
        stream.and_then(Stream::layers).map_or(0, LayerRates::top_temporal)
    }

    pub(super) fn streams(&self) -> impl Iterator<Item = (&Stream, &KeyframeRequests)> {
        self.encodings.iter().filter_map(|one| Some((one.stream.as_ref()?, &one.keyframes)))
    }

    pub(super) fn streams_mut(&mut self) -> impl Iterator<Item = (&mut Stream, &mut KeyframeRequests)> {
        self.encodings.iter_mut().filter_map(|one| Some((one.stream.as_mut()?, &mut one.keyframes)))
    }

    pub(super) fn keyframe_deadline(&self, now: Instant) -> Option<Instant> {
        self.streams().filter_map(|(_, keyframes)| keyframes.deadline(now)).min()
    }
}

/// A pause between two sentences makes nobody else the speaker.
const SPEAKER_HOLD: Duration = Duration::from_secs(3);
