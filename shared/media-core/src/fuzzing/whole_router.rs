//! A whole router with one client on each side of it: who is authenticated, and misuses it.
//!
//! The router is the real one, the clients' handshakes included; what the input decides is what is sealed with their keys,
//! what comes from strangers, what is commanded meanwhile, and how time passes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use plenary_model::{Channel, MediaKind, PeerId, Quality, Source, SubscriptionSettings, Target, TrackSid};

use super::{
    Tape,
    handshake::{OURS, THEIRS, fingerprint},
};
use crate::{
    Announced, Candidate, Command, Event, IceCredentials, Input, LayerSize, Path, PeerOptions, Protocol, Router,
    RouterConfig, SdpLimits, Sink, Transmit, Wanted,
    dtls::{Dtls, DtlsOutput, DtlsRole},
    rtp::Header,
    sctp::{Sctp, SctpOutput},
    srtp::Keys,
    stun::testing::{binding_request, nomination},
};

/// A list of things that happen, each with what it needs.
pub(super) fn router(input: &[u8]) {
    let mut tape = Tape::new(input);
    let mut rig = Rig::connected(tape.byte());
    for _ in 0..STEPS_MAX {
        if tape.is_empty() {
            break;
        }
        rig.step(&mut tape);
    }
    rig.pass(Duration::from_secs(1));
    rig.close();
}

struct Rig {
    router: Router,
    now: Instant,
    clients: [Client; 2],
    /// The last offer to the subscriber.
    offer: String,
    restarts: u32,
}

/// The publisher's end or the subscriber's.
struct Client {
    peer: PeerId,
    path: Path,
    dtls: Dtls,
    keys: Option<Box<Keys>>,
    sctp: Option<Sctp>,
}

const PUBLISHER: usize = 0;
const SUBSCRIBER: usize = 1;
pub(super) const OFFER: &str = include_str!("../../tests/goldens/sdp/chromium-simulcast.offer.sdp");

impl Rig {
    fn connected(options: u8) -> Self {
        let now = Instant::now();
        let address = "192.0.2.1:7882".parse().expect("an address");
        let config = RouterConfig {
            candidates: vec![Candidate { protocol: Protocol::Udp, address }],
            seed: 7,
            sdp: SdpLimits { bytes: 64 << 10, sections: 32 },
            data_bytes_per_second: if options & 1 == 0 { 0 } else { 100_000 },
            link: None,
        };
        let clients = [Client::new(now, PeerId(0), 5_000), Client::new(now, PeerId(1), 5_001)];
        let mut rig =
            Self { router: Router::new(config, OURS.clone()), now, clients, offer: String::new(), restarts: 0 };
        for (peer, target) in [(PeerId(0), Target::Publisher), (PeerId(1), Target::Subscriber)] {
            let options = PeerOptions {
                open_channels: target == Target::Subscriber,
                tcp_only: options & 2 != 0,
                allow_pause: options & 4 != 0,
                takes_trailers: options & 8 != 0,
                refused_codecs: Vec::new(),
            };
            let participant = format!("PA_{}", peer.0).into();
            rig.command(Command::Open { peer, participant, target, ice: credentials(peer.0), options });
        }
        rig.publish(&of_ours(OFFER));
        rig.want(SubscriptionSettings::default());
        rig.negotiate();
        for who in [PUBLISHER, SUBSCRIBER] {
            rig.check(who, true);
        }
        for turn in 0.. {
            assert!(turn < 100, "the handshakes do not end");
            if rig.clients.iter().all(|client| client.keys.is_some()) {
                break;
            }
            rig.pass(Duration::from_millis(100));
        }
        rig
    }

    fn step(&mut self, tape: &mut Tape<'_>) {
        let what = tape.byte();
        let who = usize::from(what >> 7);
        match what & 0x1f {
            0 => self.pass(Duration::from_millis(u64::from(tape.half() % 5_000))),
            1..=8 => self.media(who, tape),
            9..=12 => self.control(who, tape.bytes()),
            13 => {
                let (datagram, port) = (tape.bytes().to_vec(), tape.half());
                self.datagram(udp(port), datagram);
            }
            14 => {
                let (datagram, path) = (tape.bytes().to_vec(), self.clients[who].path);
                self.datagram(path, datagram);
            }
            15 => self.check(who, tape.byte() & 1 == 0),
            16 => {
                // A NAT gave it another port; the old address is no longer its own.
                self.clients[who].path = udp(tape.half());
                self.check(who, true);
            }
            17 => self.sctp_packet(who, tape.bytes().to_vec()),
            18 => {
                let channel = [Channel::Reliable, Channel::Lossy, Channel::DataTrack][usize::from(tape.byte() % 3)];
                let (now, payload) = (self.now, tape.bytes());
                if let Some(sctp) = &mut self.clients[who].sctp {
                    let _ = sctp.send(now, channel, payload);
                }
                self.carry();
            }
            19 => {
                let settings = SubscriptionSettings {
                    disabled: tape.byte() & 1 == 1,
                    quality: [Quality::Low, Quality::Medium, Quality::High, Quality::Off][usize::from(tape.byte() % 4)],
                    width: u32::from(tape.half()),
                    height: u32::from(tape.half()),
                    fps: u32::from(tape.byte()),
                    priority: u32::from(tape.byte()),
                };
                self.want(settings);
            }
            20 => self.command(Command::SetMuted { track: track(tape.byte()), muted: tape.byte() & 1 == 1 }),
            21 => self.command(Command::Unpublish { track: track(tape.byte()) }),
            22 => {
                self.command(Command::CapBandwidth { peer: PeerId(1), bits_per_second: u64::from(tape.word()) });
            }
            23 => {
                let payload = Bytes::copy_from_slice(tape.bytes());
                let channel = if tape.byte() & 1 == 0 { Channel::Reliable } else { Channel::Lossy };
                self.command(Command::Send { peers: vec![PeerId(0), PeerId(1), PeerId(7)], channel, payload });
            }
            24 => self.negotiate(),
            25 => {
                let restart = self.restart();
                self.command(Command::MakeOffer { peer: PeerId(1), restart: Some(restart) });
            }
            26 => {
                let sdp = edited(&answer_to(&self.offer), tape);
                self.command(Command::Answer { peer: PeerId(1), sdp });
            }
            27 => self.publish(&edited(&of_ours(OFFER), tape)),
            28 => {
                let path = self.clients[who].path;
                self.router.handle(self.now, Input::PathClosed { path });
                self.carry();
            }
            _ => self.pass(Duration::from_millis(20)),
        }
    }

    /// A packet sealed with the client's keys: as its fields say, or wholly as the input says.
    fn media(&mut self, who: usize, tape: &mut Tape<'_>) {
        let how = tape.byte();
        let mut packet;
        if how & 0x80 == 0 {
            let (payload_type, sequence, timestamp, ssrc) = (tape.byte(), tape.half(), tape.half(), tape.byte());
            let mid = if how & 1 == 0 { b'0' } else { b'1' };
            let rid = [b'q', b'h', b'f', b'x'][usize::from(how >> 1 & 3)];
            packet = vec![0x80, payload_type];
            packet.extend_from_slice(&sequence.to_be_bytes());
            packet.extend_from_slice(&(u32::from(timestamp) * 90).to_be_bytes());
            packet.extend_from_slice(&[0, 0, 0, ssrc]);
            if how & 0x08 == 0 {
                // The ids of the offer: 9 mid, 10 rid, 11 repaired rid, 4 transport-wide number, 12 loudness.
                let stream = if how & 0x10 == 0 { 0xa0 } else { 0xb0 };
                let [high, low] = tape.half().to_be_bytes();
                packet[0] |= 0x10;
                packet.extend_from_slice(&[
                    0xbe, 0xde, 0, 3, 0x90, mid, stream, rid, 0x41, high, low, 0xc0, low, 0, 0, 0,
                ]);
            }
            packet.extend_from_slice(tape.bytes());
        } else {
            packet = tape.bytes().to_vec();
        }
        self.sealed(who, packet);
    }

    fn sealed(&mut self, who: usize, mut packet: Vec<u8>) {
        let header = Header::parse_sealed(&packet);
        if let (Some(keys), Ok(header)) = (&self.clients[who].keys, header) {
            let _ = keys.seal_rtp(0, header.header_bytes(), &mut packet, 0);
        }
        let path = self.clients[who].path;
        self.datagram(path, packet);
    }

    fn control(&mut self, who: usize, plain: &[u8]) {
        let mut datagram = plain.to_vec();
        if let Some(keys) = &mut self.clients[who].keys {
            let _ = keys.seal_rtcp(&mut datagram, 0);
        }
        let path = self.clients[who].path;
        self.datagram(path, datagram);
    }

    fn sctp_packet(&mut self, who: usize, packet: Vec<u8>) {
        let now = self.now;
        let _ = self.clients[who].dtls.send(now, &packet);
        self.carry();
    }

    fn check(&mut self, who: usize, nominates: bool) {
        let (peer, path) = (self.clients[who].peer, self.clients[who].path);
        let IceCredentials { ufrag, pwd } = credentials(peer.0);
        let username = format!("{ufrag}:them");
        let check = if nominates { nomination(&username, &pwd) } else { binding_request(&username, &pwd) };
        self.datagram(path, check);
    }

    fn want(&mut self, settings: SubscriptionSettings) {
        let wanted =
            |track: TrackSid| Wanted { shown: track.clone(), track, publisher: "PA_0".into(), from: None, settings };
        let tracks = (0..3).map(track).map(wanted).collect();
        self.command(Command::Want { peer: PeerId(1), tracks });
    }

    fn negotiate(&mut self) {
        self.command(Command::MakeOffer { peer: PeerId(1), restart: None });
        let sdp = answer_to(&self.offer);
        self.command(Command::Answer { peer: PeerId(1), sdp });
    }

    fn publish(&mut self, sdp: &str) {
        let announced = vec![
            announced(track(0), MediaKind::Video, &["q", "h", "f"]),
            announced(track(1), MediaKind::Audio, &[]),
            announced(track(2), MediaKind::Video, &[]),
        ];
        let restart = self.restart();
        self.command(Command::Offer { peer: PeerId(0), sdp: sdp.to_owned(), announced, restart });
    }

    fn restart(&mut self) -> IceCredentials {
        self.restarts += 1;
        credentials(100 + u64::from(self.restarts))
    }

    fn command(&mut self, command: Command) {
        self.router.handle(self.now, Input::Command(command));
        self.carry();
    }

    fn datagram(&mut self, path: Path, mut bytes: Vec<u8>) {
        self.router.handle(self.now, Input::Datagram { path, received: self.now, bytes: &mut bytes });
        self.carry();
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for turn in 0.. {
            let ours = self.router.next_deadline().map(|(at, _)| at);
            let theirs = self.clients.iter().filter_map(Client::deadline).min();
            let Some(at) = [ours, theirs].into_iter().flatten().min().filter(|at| *at <= end) else { break };
            assert!(turn < TURNS_MAX, "a timer spins: {:?}", self.router.next_deadline());
            self.now = self.now.max(at);
            self.router.handle_timeout(self.now);
            let now = self.now;
            for client in &mut self.clients {
                client.handle_timeout(now);
            }
            self.carry();
        }
        self.now = end;
    }

    /// Carries datagrams both ways until nobody has more to say.
    fn carry(&mut self) {
        for turn in 0.. {
            assert!(turn < TURNS_MAX, "they never fall silent");
            while let Some(event) = self.router.poll_event() {
                if let Event::Offered { sdp, .. } = event {
                    self.offer = sdp;
                }
            }
            let mut sent = Sent::default();
            self.router.transmit(&mut sent);
            assert!(sent.0.len() <= DATAGRAMS_MAX, "{} datagrams at once", sent.0.len());
            let mut moved = !sent.0.is_empty();
            for (path, bytes) in sent.0 {
                if let Some(client) = self.clients.iter_mut().find(|client| client.path == path) {
                    client.receive(self.now, &bytes);
                }
            }
            for who in [PUBLISHER, SUBSCRIBER] {
                let (now, path) = (self.now, self.clients[who].path);
                for mut bytes in self.clients[who].transmits(now) {
                    moved = true;
                    self.router.handle(now, Input::Datagram { path, received: now, bytes: &mut bytes });
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// Nothing is left of those who are gone.
    fn close(&mut self) {
        for peer in [PeerId(0), PeerId(1)] {
            self.command(Command::Close { peer });
        }
        let counters = self.router.counters();
        assert_eq!((counters.peers.get(), counters.tracks.get(), counters.subscriptions.get()), (0, 0, 0));
        for _ in 0..TURNS_MAX {
            let Some((at, _)) = self.router.next_deadline() else { return };
            self.now = self.now.max(at);
            self.router.handle_timeout(self.now);
            self.carry();
        }
        panic!("it still wants to be woken: {:?}", self.router.next_deadline());
    }
}

impl Client {
    fn new(now: Instant, peer: PeerId, port: u16) -> Self {
        let dtls = Dtls::new(now, &THEIRS, DtlsRole::Client, fingerprint(&OURS)).expect("an endpoint");
        Self { peer, path: udp(port), dtls, keys: None, sctp: None }
    }

    fn deadline(&self) -> Option<Instant> {
        self.dtls.deadline().into_iter().chain(self.sctp.as_ref().and_then(Sctp::deadline)).min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        let _ = self.dtls.handle_timeout(now);
        if self.sctp.as_mut().is_some_and(|sctp| sctp.handle_timeout(now).is_err()) {
            self.sctp = None;
        }
    }

    fn receive(&mut self, now: Instant, datagram: &[u8]) {
        if crate::demux::classify(datagram) == crate::demux::Kind::Dtls {
            let _ = self.dtls.receive(now, datagram);
        }
    }

    fn transmits(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        loop {
            if let Some(output) = self.dtls.poll() {
                match output {
                    DtlsOutput::Datagram(datagram) => datagrams.push(datagram),
                    DtlsOutput::Connected(keys) => {
                        self.keys = keys;
                        let opens = self.peer == PeerId(0);
                        self.sctp = Sctp::new(now, DtlsRole::Client, opens, 65_535, 0).ok();
                    }
                    DtlsOutput::Data(packet) => {
                        if self.sctp.as_mut().is_some_and(|sctp| sctp.receive(now, packet).is_err()) {
                            self.sctp = None;
                        }
                    }
                    DtlsOutput::Closed => self.sctp = None,
                }
            } else if let Some(output) = self.sctp.as_mut().and_then(Sctp::poll) {
                if let SctpOutput::Packet(packet) = output {
                    let _ = self.dtls.send(now, &packet);
                }
            } else {
                return datagrams;
            }
        }
    }
}

#[derive(Default)]
struct Sent(Vec<(Path, Vec<u8>)>);

impl Sink for Sent {
    fn send(&mut self, batch: &[Transmit<'_>]) -> usize {
        for transmit in batch {
            assert!(!transmit.bytes.is_empty());
            let segment = transmit.segment_bytes.unwrap_or(transmit.bytes.len());
            assert!(segment <= 1_600, "{segment} bytes in a datagram");
            self.0.extend(transmit.bytes.chunks(segment).map(|bytes| (transmit.path, bytes.to_vec())));
        }
        batch.len()
    }
}

fn udp(port: u16) -> Path {
    Path { protocol: Protocol::Udp, remote: ([198, 51, 100, 7], port).into() }
}

pub(super) fn credentials(number: u64) -> IceCredentials {
    IceCredentials { ufrag: format!("ours{number}"), pwd: format!("a-long-password-for-peer-{number}") }
}

fn track(number: u8) -> TrackSid {
    TrackSid::from(format!("TR_{}", number % 3))
}

pub(super) fn announced(track: TrackSid, kind: MediaKind, rids: &[&str]) -> Announced {
    let layer = |(at, rid): (usize, &&str)| LayerSize {
        rid: (*rid).to_owned(),
        width: 320 << at,
        height: 180 << at,
        bitrate_bps: 150_000 << (2 * at),
    };
    Announced {
        track,
        kind,
        source: Source::Unknown,
        cids: Vec::new(),
        codec: String::new(),
        stereo: false,
        dtx: true,
        red: false,
        encrypted: false,
        trailers: true,
        layers: rids.iter().enumerate().map(layer).collect(),
    }
}

/// The browser's description with our client's certificate.
pub(super) fn of_ours(description: &str) -> String {
    let line = |line: &str| match line.split_once("fingerprint:sha-256 ") {
        Some((before, _)) => format!("{before}fingerprint:sha-256 {}\r\n", THEIRS.fingerprint()),
        None => format!("{line}\r\n"),
    };
    description.lines().map(line).collect()
}

pub(super) fn answer_to(offer: &str) -> String {
    let answer = offer.replace("a=sendonly", "a=recvonly").replace("a=setup:actpass", "a=setup:active");
    of_ours(&answer.replace("a=ice-lite\r\n", ""))
}

/// The description with a piece of it replaced.
fn edited(description: &str, tape: &mut Tape<'_>) -> String {
    let (at, removed) = (usize::from(tape.half()), usize::from(tape.byte()));
    let inserted = String::from_utf8_lossy(tape.bytes());
    let mut text: Vec<char> = description.chars().collect();
    let at = at % (text.len() + 1);
    let end = (at + removed).min(text.len());
    text.splice(at..end, inserted.chars());
    text.into_iter().collect()
}

const STEPS_MAX: usize = 256;
const TURNS_MAX: usize = 20_000;
/// A full egress queue and everything of DTLS and SCTP besides.
const DATAGRAMS_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DropReason;

    #[test]
    fn padding_lies_of_every_size_are_dropped_by_name_and_what_is_true_goes_through() {
        let mut rig = Rig::connected(0);
        let counters = rig.router.counters();
        let (mut sequence, mut lies, mut truths) = (0_u16, 0, 0);
        for payload_bytes in 0..=64_usize {
            for padding in 0..=u8::MAX {
                sequence += 1;
                // Sound, which its payload type tells from the rest, with the padding bit set.
                let mut packet = vec![0xa0, 111];
                packet.extend_from_slice(&sequence.to_be_bytes());
                packet.extend_from_slice(&(u32::from(sequence) * 960).to_be_bytes());
                packet.extend_from_slice(&[0, 0, 0, 9]);
                packet.resize(packet.len() + payload_bytes, 1);
                if let Some(last) = packet[12..].last_mut() {
                    *last = padding;
                }
                // An empty payload ends in a byte of the header, whose claim is as false.
                let is_true = padding != 0 && usize::from(padding) <= payload_bytes;
                (lies, truths) = (lies + u64::from(!is_true), truths + u64::from(is_true));
                rig.sealed(PUBLISHER, packet);
            }
        }
        assert_eq!(counters.dropped(DropReason::RtpPaddingLie), lies);
        assert_eq!(counters.packets_in.get(), truths);
        assert!(counters.packets_out.get() > 0);
        rig.close();
    }
}
