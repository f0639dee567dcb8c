//! The media engine of one thread: every transport and every forwarding table on it.
//!
//! Commands change what shall be, datagrams come in, events and transmits go out. A packet takes one straight way:
//! `handle` → its peer's transport opens it → its track's stream takes it in → each subscriber's forwarder rewrites and seals
//! it into that subscriber's egress queue → `transmit` hands it to the socket in runs per destination.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod commands;
mod compound;
mod counters;
mod distribute;
mod links;
mod peer;
mod publisher;
mod pull;
mod serve;
mod shed;
mod subscriber;
mod tap;
mod timers;
mod track;
mod ways;

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::Arc,
    time::Instant,
};

use plenary_model::PeerId;
use rustc_hash::FxHashSet;

pub use self::counters::{Count, Counters};
use self::{
    distribute::Run,
    links::Links,
    peer::{Peer, Peers, Role},
    publisher::Part,
    subscriber::{Exit, KeyframeNeed, Retargeted},
    tap::Taps,
    timers::Timers,
    track::{TrackOrigin, Tracks},
};
use crate::{
    Deadline, DropReason, DtlsIdentity, Event, Input, LinkConfig, Path, Protocol, SdpLimits, TrackLevel, Transmit,
    demux::{AddressBook, Kind, classify},
    egress::Spares,
    ingress::{Rtx, Stream, StreamConfig, after},
    levels::WINDOW,
    rtp::{Header, dependency::Structure},
    transport::{Received, TransportEvent},
};

/// What a router is told once.
#[derive(Debug, Clone)]
pub struct RouterConfig {
    /// Where clients reach this router.
    pub candidates: Vec<Candidate>,
    /// For SSRCs and first sequence numbers, which must differ and need not be secret.
    pub seed: u64,
    pub sdp: SdpLimits,
    /// What one client may send on data channels, sustained, besides one second's worth at once. 0 is no limit. More is
    /// dropped from lossy channels and slowed down on reliable ones.
    pub data_bytes_per_second: u64,
    /// For speaking to other routers. Without it they are not heard.
    pub link: Option<LinkConfig>,
}

/// An address of this router as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub protocol: Protocol,
    pub address: SocketAddr,
}

/// Where transmits go.
pub trait Sink {
    /// How many from the front were taken.
    fn send(&mut self, batch: &[Transmit<'_>]) -> usize;
}

/// See the module.
#[derive(Debug)]
pub struct Router {
    identity: DtlsIdentity,
    config: RouterConfig,
    candidate_lines: CandidateLines,
    random: Random,
    book: AddressBook,
    peers: Peers,
    tracks: Tracks,
    links: Links,
    taps: Taps,
    timers: Timers,
    /// When subscribers' pacers let more through.
    pacing: Timers,
    /// The time of the last input: transmits happen at it.
    now: Option<Instant>,
    /// Datagrams that leave before everything else: checks, handshakes, feedback.
    control: VecDeque<(Path, Vec<u8>)>,
    /// Slots of peers that have media to send.
    ready: VecDeque<usize>,
    /// Memory of egress queues that ran empty, for those that fill next.
    spares: Spares,
    events: VecDeque<Event>,
    levels_due: Option<Instant>,
    counters: Arc<Counters>,
    /// What came in and is not forwarded yet.
    run: Run,
    /// Where repaired packets are rebuilt.
    scratch: Vec<u8>,
}

impl Router {
    pub fn new(config: RouterConfig, identity: DtlsIdentity) -> Self {
        Self {
            identity,
            candidate_lines: CandidateLines::new(&config.candidates),
            random: Random(config.seed),
            links: Links::new(config.link.as_ref()),
            taps: Taps::default(),
            config,
            book: AddressBook::default(),
            peers: Peers::default(),
            tracks: Tracks::default(),
            timers: Timers::default(),
            pacing: Timers::default(),
            now: None,
            control: VecDeque::new(),
            ready: VecDeque::new(),
            spares: Spares::default(),
            events: VecDeque::new(),
            levels_due: None,
            counters: Arc::default(),
            run: Run::default(),
            scratch: Vec::new(),
        }
    }

    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.now = Some(now);
        match input {
            Input::Datagram { path, received, bytes } => {
                if let Err(reason) = self.on_datagram(now, path, received, bytes) {
                    self.counters.count_drop(reason);
                }
            }
            Input::PathClosed { path } => {
                self.forward_run(now);
                if let Some(peer) = self.book.peer_at(path).and_then(|peer| self.peers.get_mut(peer)) {
                    peer.transport.path_closed(path);
                }
                self.book.path_closed(path);
            }
            Input::Command(command) => {
                self.forward_run(now);
                self.on_command(now, command);
            }
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = Some(now);
        self.forward_run(now);
        if self.levels_due.is_some_and(|at| at <= now) {
            self.close_level_window(now);
        }
        while let Some(id) = self.timers.due(now) {
            self.on_peer_timeout(now, id);
            self.settle(now, id);
        }
        self.on_links_timeout(now);
        if self.taps.due().is_some_and(|at| at <= now) {
            self.aim_taps(now);
        }
        while let Some(id) = self.pacing.due(now) {
            let Some(slot) = self.peers.slot(id) else { continue };
            if let Some(peer) = self.peers.at(slot) {
                peer.pacer.release(now);
            }
            self.make_ready(slot);
        }
    }

    pub fn next_deadline(&self) -> Option<(Instant, Deadline)> {
        let levels = self.levels_due.map(|at| (at, Deadline::Levels));
        let link = self.links.due().map(|at| (at, Deadline::Link));
        let taps = self.taps.due().map(|at| (at, Deadline::Allocation));
        let timers = self.timers.next().into_iter().chain(self.pacing.next());
        levels.into_iter().chain(timers).chain(link).chain(taps).min_by_key(|(at, _)| *at)
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Hands what is ready to `sink` in batches; what it does not take stays queued for the next call.
    pub fn transmit(&mut self, sink: &mut dyn Sink) {
        if let Some(now) = self.now {
            self.forward_run(now);
        }
        while let Some((path, datagram)) = self.control.front() {
            if sink.send(&[Transmit { path: *path, bytes: datagram, segment_bytes: None }]) == 0 {
                return;
            }
            self.control.pop_front();
        }
        let Some(now) = self.now else { return };
        if !self.links.transmit(now, sink, &self.counters) {
            return;
        }
        let Self { peers, ready, spares, pacing, counters, .. } = self;
        ready.retain(|slot| {
            let Some(peer) = peers.at(*slot) else { return false };
            let can_send = peer.can_send();
            if !can_send {
                hold(peer, pacing, counters);
            }
            can_send
        });
        while !ready.is_empty() {
            let mut batch = [NOTHING; BATCH];
            let mut filled = 0usize;
            for (place, slot) in batch.iter_mut().zip(ready.iter()) {
                let run = peers.get(*slot).and_then(Peer::front);
                let Some(run) = run else { break };
                *place = run;
                filled = filled.saturating_add(1);
            }
            let sent = sink.send(batch.get(..filled).unwrap_or_default());
            for _ in 0..sent {
                let Some(slot) = ready.pop_front() else { return };
                let Some(peer) = peers.at(slot) else { continue };
                peer.pop_front(now);
                if peer.can_send() {
                    ready.push_back(slot);
                } else {
                    hold(peer, pacing, counters);
                    peer.egress.give_back(spares);
                }
            }
            if sent < filled || filled == 0 {
                return;
            }
        }
    }

    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    fn on_datagram(&mut self, now: Instant, path: Path, received: Instant, bytes: &mut [u8]) -> Result<(), DropReason> {
        let kind = classify(bytes);
        if kind == Kind::Link {
            return self.on_link_datagram(now, path, bytes);
        }
        let id = self.book.route(kind, path, bytes)?;
        let peer = self.peers.get_mut(id).ok_or(DropReason::UnknownAddress)?;
        let outcome = match peer.transport.receive(now, path, bytes) {
            // The only way that does not settle: media changes no deadline but those it says itself.
            Received::Rtp(packet) => return self.on_rtp(now, received, id, packet),
            Received::Rtcp(datagram) => self.on_rtcp(now, received, id, datagram),
            Received::Consumed => Ok(()),
            Received::Dropped(reason) => Err(reason),
        };
        self.settle(now, id);
        outcome
    }

    /// Hot: once per packet in, and per subscriber. No allocation, lock, log or clock read once its stream is known.
    fn on_rtp(&mut self, now: Instant, received: Instant, id: PeerId, packet: &[u8]) -> Result<(), DropReason> {
        let header = Header::parse(packet).map_err(|error| error.reason())?;
        self.counters.packets_in.add(1);
        self.counters.bytes_in.add(packet.len());
        let publisher = self.peers.publisher(id)?;
        let route = publisher.route(&header, packet)?;
        let dependency_id = publisher.section(route).and_then(|section| section.extensions.dependency);
        // By another structure what came before cannot be read.
        let is_described = dependency_id.and_then(|id| header.extension(packet, id)).is_some_and(Structure::is_in);
        if is_described || !self.run.takes(id, route, header.ssrc) {
            self.forward_run(now);
        }
        let publisher = self.peers.publisher(id)?;
        publisher.arrived(received, route, &header, packet);
        if let Some((at, why)) = publisher.feedback_deadline() {
            self.timers.at_latest(id, at, why);
        }
        let section = publisher.section(route).ok_or(DropReason::UnknownStream)?;
        let track = self.tracks.get_mut(&section.track).ok_or(DropReason::UnknownStream)?;
        if let Some(level) = section.extensions.audio_level.and_then(|id| header.audio_level(packet, id)) {
            track.levels.record(level.below_overload_db);
            if self.levels_due.is_none() {
                self.levels_due = Some(after(now, WINDOW));
            }
        }
        let codec = track.codec;
        let encoding = track.encodings.get_mut(usize::from(route.stream.0)).ok_or(DropReason::UnknownStream)?;
        let mut is_new_stream = false;
        if route.part == Part::Media && encoding.stream.as_ref().is_none_or(|stream| stream.ssrc() != header.ssrc) {
            // The layer's first packet, or the client put another stream in its place.
            is_new_stream = encoding.stream.is_none();
            let clock_rate = section.clock_rate(header.payload_type);
            encoding.stream = Some(Stream::new(StreamConfig {
                ssrc: header.ssrc,
                codec,
                clock_rate,
                repair: section.repair(),
                dependency_id: section.extensions.dependency,
            }));
        }
        let stream = encoding.stream.as_mut().ok_or(DropReason::UnknownStream)?;
        let (header, ingested) = match route.part {
            Part::Media => (header, stream.receive(now, received, &header, packet)?),
            Part::Repair { media_payload_type } => {
                match stream.receive_rtx(now, &header, packet, media_payload_type, &mut self.scratch)? {
                    Rtx::Probe => return Ok(()),
                    Rtx::Repaired { header, ingested } => (header, ingested),
                }
            }
        };
        let nack_deadline = stream.nack_deadline();
        if ingested.frame.keyframe {
            encoding.keyframes.arrived();
        }
        if let Some(at) = nack_deadline {
            self.timers.at_latest(id, at, Deadline::Nack);
        }
        if is_new_stream {
            let sid = track.sid.clone();
            self.on_new_stream(now, &sid);
        }
        self.run.push(id, route, header, ingested);
        Ok(())
    }

    /// A layer of a track begins: whoever waited for something else may be served by it.
    fn on_new_stream(&mut self, now: Instant, sid: &plenary_model::TrackSid) {
        let Some(track) = self.tracks.get_mut(sid) else { return };
        if let TrackOrigin::Peer(peer) = track.origin
            && !std::mem::replace(&mut track.heard, true)
        {
            self.events.push_back(Event::FirstPacketIn { peer, track: sid.clone() });
        }
        let receivers: Vec<usize> = track.receivers.iter().map(|receiver| receiver.peer).collect();
        for slot in receivers {
            let Some(peer) = self.peers.at(slot) else { continue };
            if let Role::Subscriber(subscriber) = &mut peer.role {
                let id = peer.id;
                let retargeted = subscriber.retarget(now, &self.tracks);
                self.retargeted(now, id, retargeted);
            }
        }
        self.aim_taps(now);
    }

    fn on_rtcp(&mut self, now: Instant, received: Instant, id: PeerId, datagram: &[u8]) -> Result<(), DropReason> {
        self.counters.rtcp_in.add(1);
        let slot = self.peers.slot(id).ok_or(DropReason::UnknownAddress)?;
        let peer = self.peers.at(slot).ok_or(DropReason::UnknownAddress)?;
        let needs = match &mut peer.role {
            Role::Publisher(publisher) => return publisher.on_rtcp(received, datagram, &mut self.tracks),
            Role::Subscriber(subscriber) => {
                peer.egress.borrow(&mut self.spares);
                peer.pacer.refill(now);
                let backlog = peer.pacer.backlog_bytes();
                let exit =
                    Exit { transport: &peer.transport, egress: &mut peer.egress, backlog, counters: &self.counters };
                subscriber.on_rtcp(now, datagram, &self.tracks, exit)?
            }
        };
        self.make_ready(slot);
        self.need_keyframes(now, needs);
        Ok(())
    }

    /// Something may have come to be sent to this peer.
    fn make_ready(&mut self, slot: usize) {
        let Some(peer) = self.peers.at(slot) else { return };
        if peer.egress.is_empty() {
            peer.egress.give_back(&mut self.spares);
        } else if !peer.is_ready {
            peer.is_ready = true;
            self.ready.push_back(slot);
        }
    }

    fn on_peer_timeout(&mut self, now: Instant, id: PeerId) {
        let Some(slot) = self.peers.slot(id) else { return };
        let Some(peer) = self.peers.at(slot) else { return };
        peer.transport.handle_timeout(now);
        let mut compound = Vec::new();
        let mut retargeted = Retargeted::default();
        match &mut peer.role {
            Role::Publisher(publisher) => {
                publisher.write_feedback(now, &mut self.tracks, &mut compound, &self.counters);
            }
            Role::Subscriber(subscriber) => {
                subscriber.write_reports(now, &mut compound);
                subscriber.on_path(now, peer.transport.remote());
                if subscriber.is_allocation_due(now) {
                    retargeted = subscriber.retarget(now, &self.tracks);
                }
                peer.egress.borrow(&mut self.spares);
                let backlog = peer.pacer.backlog_bytes();
                let exit =
                    Exit { transport: &peer.transport, egress: &mut peer.egress, backlog, counters: &self.counters };
                subscriber.probe(now, &self.tracks, exit);
            }
        }
        if let Some(path) = peer.transport.remote() {
            for part in compound::datagrams(&compound) {
                let mut datagram = part.to_vec();
                if peer.transport.seal_rtcp(&mut datagram, 0).is_ok() {
                    self.counters.rtcp_out.add(1);
                    send_control(&mut self.control, &self.counters, path, datagram);
                }
            }
        }
        let silence = peer.transport.silence(now);
        let quality = match &mut peer.role {
            Role::Publisher(publisher) => publisher.quality(now, silence),
            Role::Subscriber(subscriber) => subscriber.quality(now, silence),
        };
        if let Some(score) = quality.filter(|_| peer.transport.is_connected()) {
            self.events.push_back(Event::Quality { peer: id, score });
        }
        self.make_ready(slot);
        self.retargeted(now, id, retargeted);
    }

    fn retargeted(&mut self, now: Instant, id: PeerId, Retargeted { needs, paused, abandoned, pace }: Retargeted) {
        if let (Some(pace), Some(peer)) = (pace, self.peers.get_mut(id)) {
            peer.pacer.set_rate(now, pace.bits_per_second, pace.peak_percent);
            if !abandoned.is_empty() {
                peer.egress.discard(&abandoned);
            }
        }
        for (track, paused) in paused {
            self.events.push_back(Event::Paused { peer: id, track, paused });
        }
        self.need_keyframes(now, needs);
    }

    fn need_keyframes(&mut self, now: Instant, needs: Vec<KeyframeNeed>) {
        for need in needs {
            let Some(track) = self.tracks.get_mut(&need.track) else { continue };
            track.need_keyframe(need.stream);
            match track.origin {
                TrackOrigin::Peer(peer) => {
                    if let Some(at) = track.keyframe_deadline(now) {
                        self.timers.at_latest(peer, at, Deadline::Nack);
                    }
                }
                TrackOrigin::Link(slot) => self.links.stir_one(now, slot),
            }
        }
    }

    /// After anything but media touched a peer: carries out what its transport says and notes when it wants to be woken.
    fn settle(&mut self, now: Instant, id: PeerId) {
        let mut end = None;
        let mut is_connected = false;
        while let Some(event) = self.peers.get_mut(id).and_then(|peer| peer.transport.poll_event()) {
            match event {
                TransportEvent::Validated(path) => {
                    if let Err(reason) = self.book.authenticated(now, path, id) {
                        self.counters.count_drop(reason);
                    }
                }
                TransportEvent::IceConnected => self.events.push_back(Event::IceConnected { peer: id }),
                TransportEvent::Connected => {
                    is_connected = true;
                    self.events.push_back(Event::Connected { peer: id });
                }
                TransportEvent::ChannelOpen(channel) => self.events.push_back(Event::ChannelOpen { peer: id, channel }),
                TransportEvent::Data { channel, payload } => {
                    self.events.push_back(Event::Data { peer: id, channel, payload });
                }
                TransportEvent::Ended(why) => end = Some(why),
            }
        }
        let Some(peer) = self.peers.get_mut(id) else { return };
        while let Some((path, datagram)) = peer.transport.poll_transmit() {
            send_control(&mut self.control, &self.counters, path, datagram);
        }
        if is_connected && let Role::Subscriber(subscriber) = &mut peer.role {
            // What came in while it connected was not kept for it.
            let retargeted = subscriber.retarget(now, &self.tracks);
            self.retargeted(now, id, retargeted);
        }
        if let Some(why) = end {
            return self.close(now, id, why);
        }
        let Some(peer) = self.peers.get_mut(id) else { return };
        let role = match &peer.role {
            Role::Publisher(publisher) => publisher.next_deadline(now, &self.tracks),
            Role::Subscriber(subscriber) => subscriber.next_deadline(now),
        };
        for (at, why) in peer.transport.next_deadline().into_iter().chain(role) {
            self.timers.at_latest(id, at, why);
        }
    }

    fn close_level_window(&mut self, now: Instant) {
        let level = |track: &mut track::Track| {
            let loudness = track.levels.close_window()?;
            let (participant, sid) = (track.participant.clone(), track.sid.clone());
            Some(TrackLevel { participant, track: sid, level: loudness.level, active: loudness.active })
        };
        let levels: Vec<_> = self.tracks.values_mut().filter_map(level).collect();
        let speakers: FxHashSet<_> = levels.iter().filter(|one| one.active).map(|one| &one.participant).collect();
        for track in self.tracks.values_mut().filter(|track| speakers.contains(&track.participant)) {
            track.spoke = Some(now);
        }
        // With nobody to measure the windows rest until the next audio packet.
        self.levels_due = (!levels.is_empty()).then(|| after(now, WINDOW));
        if !levels.is_empty() {
            self.events.push_back(Event::Levels { levels });
        }
    }
}

/// What is left for this peer waits for its pacer, if for anything.
fn hold(peer: &mut Peer, pacing: &mut Timers, counters: &Counters) {
    if let Some(until) = peer.hold() {
        counters.pacer_holds.add(1);
        pacing.at_latest(peer.id, until, Deadline::Pacing);
    }
}

fn send_control(control: &mut VecDeque<(Path, Vec<u8>)>, counters: &Counters, path: Path, datagram: Vec<u8>) {
    if control.len() < CONTROL_MAX {
        control.push_back((path, datagram));
    } else {
        counters.count_drop(DropReason::QueueFull);
    }
}

/// The candidates as lines of an SDP.
#[derive(Debug)]
struct CandidateLines {
    all: Vec<String>,
    tcp: Vec<String>,
}

impl CandidateLines {
    fn new(candidates: &[Candidate]) -> Self {
        let lines = candidates.iter().enumerate().map(|(at, one)| (one.protocol, one.line(at)));
        let lines: Vec<_> = lines.collect();
        let tcp = lines.iter().filter(|(protocol, _)| *protocol == Protocol::Tcp).map(|(_, line)| line.clone());
        Self { tcp: tcp.collect(), all: lines.into_iter().map(|(_, line)| line).collect() }
    }

    fn for_peer(&self, tcp_only: bool) -> &[String] {
        if tcp_only { &self.tcp } else { &self.all }
    }
}

/// SplitMix64 from the caller's seed: for numbers that must differ and need not be secret.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn ssrc(&mut self) -> u32 {
        let [a, b, c, d, ..] = self.next().to_be_bytes();
        u32::from_be_bytes([a, b, c, d]).max(1)
    }

    fn sequence(&mut self) -> u16 {
        let [a, b, ..] = self.next().to_be_bytes();
        u16::from_be_bytes([a, b])
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Runs handed to the socket at once.
const BATCH: usize = 64;

const NOTHING: Transmit<'static> = Transmit {
    path: Path { protocol: Protocol::Udp, remote: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)) },
    bytes: &[],
    segment_bytes: None,
};

/// Checks, handshakes and feedback that wait for the socket; all of it is repeated when it is lost.
const CONTROL_MAX: usize = 16_384;

#[cfg(test)]
mod tests;
