//! What a recording is made of: one continuous stream of each tapped track, in its highest layer, unsealed.
//!
//! A tap is one more receiver of a track, without a path: nothing limits it and nothing is lost behind the router. However many
//! recordings there are of a track, it has one tap.

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;
use plenary_model::{MediaKind, TrackSid};
use rustc_hash::FxHashMap;

use super::{
    Random, Router,
    counters::Counters,
    subscriber::{ALLOCATION_INTERVAL, KeyframeNeed},
    track::{Track, Tracks},
};
use crate::{
    DropReason, RouterId, TapItem, Tapped,
    forward::{Forwarder, ForwarderConfig, Origin, OutgoingHeader, Red, Target},
    ingress::{Ingested, SenderClock, after},
    rtp::{Header, LayerId, StreamId},
};

#[derive(Debug, Default)]
pub(super) struct Taps {
    /// Known here or not yet.
    wanted: FxHashMap<TrackSid, Tap>,
    /// What was tapped and not taken away yet, at most [`TAPPED_MAX`].
    out: VecDeque<Tapped>,
    due: Option<Instant>,
}

#[derive(Debug, Default)]
struct Tap {
    /// Where it is published, if not here.
    from: Option<RouterId>,
    /// While the track is known.
    forwarder: Option<Box<Forwarder>>,
    ssrc: u32,
    reported: Option<SenderClock>,
}

impl Taps {
    /// The track is gone, for now if it is another router's.
    pub(super) fn forget(&mut self, track: &TrackSid) {
        match self.wanted.get_mut(track) {
            Some(tap) if tap.from.is_some() => tap.forwarder = None,
            _ => _ = self.wanted.remove(track),
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// See [`Forwarder::streams`].
    pub(super) fn streams(&self, track: &TrackSid) -> u8 {
        self.wanted.get(track).and_then(|tap| tap.forwarder.as_deref()).map_or(0, Forwarder::streams)
    }

    /// Tracks that a router publishes and that are not known here yet.
    pub(super) fn unmet(&self, router: &RouterId) -> impl Iterator<Item = &TrackSid> {
        let unmet = self.wanted.iter().filter(|(_, tap)| tap.forwarder.is_none());
        unmet.filter(move |(_, tap)| tap.from.as_ref() == Some(router)).map(|(track, _)| track)
    }

    /// Hot where a track is tapped: packets of a stream that are in its store.
    pub(super) fn take(
        &mut self,
        now: Instant,
        track: &Track,
        at: StreamId,
        packets: &[(Header, Ingested)],
        counters: &Counters,
    ) {
        let Self { wanted, out, .. } = self;
        let Some(tap) = wanted.get_mut(&track.sid) else { return };
        let (Some(forwarder), Some(stream)) = (&mut tap.forwarder, track.stream(at)) else { return };
        let origin = Origin { clock: stream.sender_clock(), structure: stream.structure() };
        for (header, ingested) in packets {
            let Some(packet) = stream.store().get(ingested.index) else { continue };
            let Ok(rewritten) = forwarder.forward(now, at, origin, header, ingested) else { continue };
            let mut bytes = Vec::with_capacity(packet.len());
            let written = forwarder.write(&rewritten, header, packet, |_| None, &mut bytes);
            let item = TapItem::Packet {
                ssrc: tap.ssrc,
                sequence: written.sequence(),
                timestamp: rewritten.timestamp,
                marker: rewritten.marker(),
                payload: Bytes::from(bytes).split_off(written.header_bytes),
                received: now,
            };
            let report = forwarder.source_clock().filter(|clock| tap.reported != Some(*clock));
            tap.reported = report.or(tap.reported);
            let report = report.map(|SenderClock { ntp, rtp, received }| TapItem::Report { ntp, rtp, received });
            // A report says which of the packets so far were when, so it comes after them.
            for item in [Some(item), report].into_iter().flatten() {
                if out.len() < TAPPED_MAX {
                    out.push_back(Tapped { track: track.sid.clone(), item });
                } else {
                    counters.count_drop(DropReason::QueueFull);
                }
            }
        }
    }

    /// Begins what is known by now, aims at the highest layer that is sent, and says which key frames are needed.
    fn aim(&mut self, now: Instant, tracks: &mut Tracks, random: &mut Random) -> Vec<KeyframeNeed> {
        let mut needs = Vec::new();
        for (sid, tap) in &mut self.wanted {
            let Some(track) = tracks.get_mut(sid) else { continue };
            track.is_tapped = true;
            if tap.forwarder.is_none() {
                tap.ssrc = random.ssrc();
                tap.forwarder = Some(Box::new(forwarder(now, track, tap.ssrc, random)));
            }
            let Some(forwarder) = &mut tap.forwarder else { continue };
            if forwarder.is_muted() != track.muted {
                forwarder.set_muted(track.muted);
            }
            let target = highest(now, track);
            if forwarder.target() != target {
                forwarder.set_target(target);
            }
            let need = forwarder.needs_keyframe();
            needs.extend(need.map(|stream| KeyframeNeed { track: sid.clone(), stream }));
        }
        self.due = (!self.wanted.is_empty()).then(|| after(now, ALLOCATION_INTERVAL));
        needs
    }
}

impl Router {
    /// The next of what was tapped. To be asked for after each input, until there is none.
    pub fn poll_tapped(&mut self) -> Option<Tapped> {
        self.taps.out.pop_front()
    }

    pub(super) fn tap(&mut self, now: Instant, track: TrackSid, from: Option<RouterId>) {
        let wanted = &mut self.taps.wanted;
        if wanted.len() >= TAPS_MAX || wanted.contains_key(&track) {
            return;
        }
        let from = from.filter(|from| !self.links.is_own(from));
        wanted.insert(track, Tap { from, ..Tap::default() });
        self.aim_taps(now);
        self.links.stir(now);
    }

    pub(super) fn untap(&mut self, now: Instant, sid: &TrackSid) {
        if self.taps.wanted.remove(sid).is_none() {
            return;
        }
        if let Some(track) = self.tracks.get_mut(sid) {
            track.is_tapped = false;
        }
        self.tell_demands(std::slice::from_ref(sid));
        self.links.stir(now);
    }

    /// Something of a tapped track could not be put together.
    pub(super) fn refresh_tap(&mut self, now: Instant, sid: &TrackSid) {
        let forwarder = self.taps.wanted.get(sid).and_then(|tap| tap.forwarder.as_deref());
        if let Some(stream) = forwarder.and_then(Forwarder::current_stream) {
            self.need_keyframes(now, vec![KeyframeNeed { track: sid.clone(), stream }]);
        }
    }

    /// To be called when a track or a layer of one begins, and from time to time.
    pub(super) fn aim_taps(&mut self, now: Instant) {
        if self.taps.wanted.is_empty() {
            self.taps.due = None;
            return;
        }
        let Self { taps, tracks, random, .. } = self;
        let needs = taps.aim(now, tracks, random);
        let tapped: Vec<_> = self.taps.wanted.keys().cloned().collect();
        self.tell_demands(&tapped);
        self.need_keyframes(now, needs);
    }
}

fn forwarder(now: Instant, track: &Track, ssrc: u32, random: &mut Random) -> Forwarder {
    let config = ForwarderConfig {
        codec: track.codec,
        layering: track.layering,
        clock_rate: track.send_codec.clock_rate(),
        ssrc,
        payload_type: 0,
        // Without redundancy: whoever records waits for what is repaired.
        red: track.red_payload_type.map(|from| Red { from, to: None }),
        rtx: None,
        header: OutgoingHeader::default(),
        cuts_trailers: track.trailers,
        first_sequence: random.sequence(),
    };
    let mut forwarder = Forwarder::new(now, config);
    forwarder.set_muted(track.muted);
    forwarder
}

/// The highest layer that can be had.
fn highest(now: Instant, track: &Track) -> Target {
    match track.kind {
        MediaKind::Audio => Target::Layer(LayerId::spatial_layer(0)),
        MediaKind::Video => {
            let layers = track.layer_states(now, 0);
            let best = layers.iter().rev().find(|layer| layer.eligible).or(layers.last());
            best.map_or(Target::Off, |layer| Target::Layer(layer.id()))
        }
    }
}

/// As many tracks as a session takes.
const TAPS_MAX: usize = 4_096;
/// A turn of the media thread brings a few hundred packets, and takes away what they left here.
const TAPPED_MAX: usize = 8_192;
