//! From a track to its subscribers.
//!
//! Packets of one stream that came in a row, as those of a frame do, are forwarded subscriber by subscriber instead of packet
//! by packet: with hundreds of subscribers each one's keys and state come from main memory, and this way once a frame.

use std::{collections::VecDeque, time::Instant};

use plenary_model::{MediaKind, PeerId};

use super::{
    Router,
    counters::Counters,
    peer::{Peers, Role},
    publisher::Route,
    subscriber::{Exit, Incoming},
    tap::Taps,
    track::Track,
};
use crate::{
    Event,
    egress::Spares,
    forward::Origin,
    ingress::Ingested,
    rtp::{Header, StreamId},
};

/// Packets of one stream of one publisher that are stored and not forwarded yet.
#[derive(Debug, Default)]
pub(super) struct Run {
    from: Option<(PeerId, Route)>,
    packets: Vec<(Header, Ingested)>,
}

impl Run {
    /// Whether a packet of this stream may join what waits.
    pub(super) fn takes(&self, peer: PeerId, route: Route, ssrc: u32) -> bool {
        let is_same = |&(of, waiting): &(PeerId, Route)| of == peer && waiting.is_stream_of(route);
        let is_full = self.packets.len() >= RUN_MAX;
        !is_full
            && self.from.as_ref().is_none_or(is_same)
            && self.packets.last().is_none_or(|(last, _)| last.ssrc == ssrc)
    }

    pub(super) fn push(&mut self, peer: PeerId, route: Route, header: Header, ingested: Ingested) {
        self.from = Some((peer, route));
        self.packets.push((header, ingested));
    }
}

impl Router {
    /// Hot. To be called before anything changes that decides who gets what, and before what is ready is handed out.
    pub(super) fn forward_run(&mut self, now: Instant) {
        let Some((peer, route)) = self.run.from.take() else { return };
        let section = self.peers.get_mut(peer).and_then(|peer| peer.publisher_section(route));
        if let Some(track) = section.and_then(|section| self.tracks.get(&section.track)) {
            self.links.forward(now, track, route.stream, &self.run.packets, &self.counters);
            let Self { peers, spares, ready, events, taps, counters, .. } = self;
            let exits = Exits { peers, spares, ready, events, taps, counters };
            distribute(now, track, route.stream, &self.run.packets, exits);
        }
        self.run.packets.clear();
    }
}

/// The ways out of a router for what its subscribers get.
pub(super) struct Exits<'r> {
    pub(super) peers: &'r mut Peers,
    pub(super) spares: &'r mut Spares,
    pub(super) ready: &'r mut VecDeque<usize>,
    pub(super) events: &'r mut VecDeque<Event>,
    pub(super) taps: &'r mut Taps,
    pub(super) counters: &'r Counters,
}

/// Hot: packets of a stream that are in its store, to each of the track's subscribers.
pub(super) fn distribute(now: Instant, track: &Track, at: StreamId, packets: &[(Header, Ingested)], exits: Exits<'_>) {
    let Exits { peers, spares, ready, events, taps, counters } = exits;
    let Some(stream) = track.stream(at) else { return };
    let origin = Origin { clock: stream.sender_clock(), structure: stream.structure() };
    for receiver in &track.receivers {
        let Some(peer) = peers.at(receiver.peer) else { continue };
        let Role::Subscriber(subscriber) = &mut peer.role else { continue };
        peer.egress.borrow(spares);
        peer.pacer.refill(now);
        let backlog = peer.pacer.backlog_bytes();
        for (header, ingested) in packets {
            let Some(packet) = stream.store().get(ingested.index) else { continue };
            let incoming = Incoming { stream: at, origin, header, ingested, packet };
            let mut exit = Exit { transport: &peer.transport, egress: &mut peer.egress, backlog, counters };
            match subscriber.forward(now, receiver.slot, &incoming, &mut exit) {
                Ok(false) => {}
                Ok(true) => events.push_back(Event::FirstPacketOut { peer: peer.id, track: track.sid.clone() }),
                Err(reason) => counters.count_drop(reason),
            }
            if track.kind == MediaKind::Audio && subscriber.is_lossy(now) {
                subscriber.repeat(now, receiver.slot, track, &mut exit);
            }
        }
        if !peer.is_ready && !peer.egress.is_empty() {
            peer.is_ready = true;
            ready.push_back(receiver.peer);
        }
    }
    if track.is_tapped {
        taps.take(now, track, at, packets, counters);
    }
}

/// More than a frame of video has, unless it is a large key frame.
const RUN_MAX: usize = 32;
