//! A router with clients around it that cost next to nothing, in virtual time: for measuring what the router costs.
//!
//! [`Stage`] brings clients to connected; [`Call`] lets media flow among them and shows a [`Meter`] what the router does.

mod call;
mod client;
mod hop;
mod measure;
mod seal;

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use plenary_media_core::{
    Announced, Candidate, Command, DtlsIdentity, Event, IceCredentials, Input, LayerSize, LinkConfig, PeerOptions,
    Protocol, Router, RouterConfig, RouterId, SdpLimits, Sink, Transmit, Wanted,
};
use plenary_model::{MediaKind, ParticipantSid, PeerId, Quality, Source, SubscriptionSettings, Target, TrackSid};

use self::client::Client;
pub use self::{
    call::{Call, Dropped, Media, Meter, Part, Shape, Unmeasured, is_rtp, packets},
    hop::Hop,
    measure::{Passes, Stopwatch},
    seal::Seal,
};
use crate::light::{Identity, RIDS, Section, answer, offer};

/// The router and its clients.
pub struct Stage {
    pub router: Router,
    clients: Vec<Client>,
    now: Instant,
    /// CPU that the router took outside of media, if there is a stopwatch.
    pub router_ns: u64,
    stopwatch: Option<Stopwatch>,
    identity: Identity,
    by_address: HashMap<SocketAddr, usize>,
    checked: Instant,
}

/// Keeps what is sent.
#[derive(Default)]
struct Kept(Vec<(SocketAddr, Vec<u8>)>);

impl Sink for Kept {
    fn send(&mut self, batch: &[Transmit<'_>]) -> usize {
        for transmit in batch {
            let segments = transmit.bytes.chunks(transmit.segment_bytes.unwrap_or(transmit.bytes.len()).max(1));
            self.0.extend(segments.map(|segment| (transmit.path.remote, segment.to_vec())));
        }
        batch.len()
    }
}

impl Stage {
    pub fn new(stopwatch: Option<Stopwatch>) -> Self {
        Self::linked(stopwatch, None)
    }

    /// With what its router needs to speak to others.
    #[allow(clippy::disallowed_methods, reason = "one reading of the clock starts virtual time")]
    fn linked(stopwatch: Option<Stopwatch>, link: Option<LinkConfig>) -> Self {
        let candidates = vec![Candidate { protocol: Protocol::Udp, address: ([192, 0, 2, 1], 7882).into() }];
        let config = RouterConfig { candidates, seed: 1, sdp: SdpLimits::default(), data_bytes_per_second: 0, link };
        let now = Instant::now();
        Self {
            router: Router::new(config, DtlsIdentity::generate().expect("an identity is made")),
            clients: Vec::new(),
            now,
            router_ns: 0,
            stopwatch,
            identity: Identity::generate(),
            by_address: HashMap::new(),
            checked: now,
        }
    }

    pub fn open(&mut self, target: Target, open_channels: bool) -> usize {
        let at = self.clients.len();
        let client = Client::new(self.now, &self.identity, at as u64 + 1);
        self.by_address.insert(client.path.remote, at);
        self.command(Command::Open {
            peer: client.peer,
            participant: participant(at),
            target,
            ice: client.transport.ice.clone(),
            options: PeerOptions { open_channels, ..PeerOptions::default() },
        });
        self.clients.push(client);
        at
    }

    /// A publisher's offer of one section and the answer to it.
    pub fn publish(&mut self, at: usize, section: Section<'_>) -> TrackSid {
        let (client, track) = (&self.clients[at], TrackSid::from(format!("TR_{at}")));
        let announced = announced(&track, section);
        let command = Command::Offer {
            peer: client.peer,
            sdp: offer(&self.identity, &[section]),
            announced: announced.iter().cloned().collect(),
            restart: IceCredentials { ufrag: format!("again{at}"), pwd: "a-password-nobody-will-use".to_owned() },
        };
        let events = self.command(command);
        let [Event::Answered { published, .. }] = &events[..] else { panic!("{events:?}") };
        assert_eq!(published.len(), usize::from(announced.is_some()), "{events:?}");
        track
    }

    /// What a subscriber wants, our offer, and its answer.
    pub fn subscribe(&mut self, at: usize, tracks: &[TrackSid], quality: Quality) {
        self.want(at, tracks, quality, None);
        self.negotiate(at);
    }

    /// `from`: the router where the tracks are published.
    fn want(&mut self, at: usize, tracks: &[TrackSid], quality: Quality, from: Option<RouterId>) {
        let peer = self.clients[at].peer;
        if !tracks.is_empty() {
            let wanted = |track: &TrackSid| Wanted {
                shown: track.clone(),
                track: track.clone(),
                publisher: participant(0),
                from: from.clone(),
                settings: SubscriptionSettings { quality, ..SubscriptionSettings::default() },
            };
            self.command(Command::Want { peer, tracks: tracks.iter().map(wanted).collect() });
        }
    }

    /// Our offer, and the client's answer.
    fn negotiate(&mut self, at: usize) {
        let peer = self.clients[at].peer;
        let events = self.command(Command::MakeOffer { peer, restart: None });
        let [Event::Offered { sdp, .. }] = &events[..] else { panic!("{events:?}") };
        let sdp = answer(&self.identity, sdp);
        let events = self.command(Command::Answer { peer, sdp });
        assert!(matches!(events[..], [Event::Accepted { .. }]), "{events:?}");
    }

    /// Check and handshake of one client, to the end.
    pub fn connect(&mut self, at: usize) {
        let mut up = vec![self.clients[at].transport.check()];
        let mut hello = self.clients[at].transport.handshake(self.now, None);
        for _ in 0..ROUND_TRIPS_MAX {
            for datagram in up.drain(..).chain(hello.drain(..)) {
                self.receive(at, datagram);
            }
            let sent = self.transmit();
            for (to, datagram) in sent {
                let client = &mut self.clients[self.by_address[&to]];
                if client.peer == PeerId(at as u64 + 1) {
                    up.extend(client.transport.handshake(self.now, Some(&datagram)));
                }
            }
            if up.is_empty() {
                break;
            }
        }
        assert!(self.clients[at].transport.is_connected, "the handshake needs no repetition here");
        let events = self.events();
        assert!(events.iter().any(|event| matches!(event, Event::Connected { .. })), "{events:?}");
    }

    /// Clients repeat their checks, as they must to stay.
    fn keep_alive(&mut self) {
        if self.now.duration_since(self.checked) < CHECK_INTERVAL {
            return;
        }
        self.checked = self.now;
        for at in 0..self.clients.len() {
            let check = self.clients[at].transport.check();
            self.receive(at, check);
        }
        self.transmit();
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.router.poll_event()).collect()
    }

    fn on_the_clock(&mut self, work: impl FnOnce(&mut Router)) {
        let Self { router, stopwatch, .. } = self;
        match stopwatch {
            Some(stopwatch) => self.router_ns += stopwatch.ns(|| work(router)),
            None => work(router),
        }
    }

    fn command(&mut self, command: Command) -> Vec<Event> {
        let now = self.now;
        self.on_the_clock(|router| router.handle(now, Input::Command(command)));
        self.events()
    }

    fn receive(&mut self, at: usize, mut datagram: Vec<u8>) {
        let (now, path) = (self.now, self.clients[at].path);
        let input = Input::Datagram { path, received: now, bytes: &mut datagram };
        self.on_the_clock(|router| router.handle(now, input));
    }

    fn transmit(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut kept = Kept::default();
        self.on_the_clock(|router| router.transmit(&mut kept));
        kept.0
    }
}

/// What the signalling would say of a section; data channels need no word.
fn announced(track: &TrackSid, section: Section<'_>) -> Option<Announced> {
    let (kind, cid) = match section {
        Section::Data => return None,
        Section::Track { kind, cid } => (kind, cid),
        Section::Simulcast { cid } => (MediaKind::Video, cid),
    };
    let size = |(at, rid): (u32, &char)| LayerSize {
        rid: rid.to_string(),
        width: 320 << at,
        height: 180 << at,
        bitrate_bps: 150_000 << (2 * at),
    };
    let layers = if matches!(section, Section::Simulcast { .. }) { &RIDS[..] } else { &[] };
    Some(Announced {
        source: Source::Unknown,
        track: track.clone(),
        kind,
        cids: vec![cid.to_owned()],
        codec: String::new(),
        stereo: false,
        dtx: false,
        red: false,
        encrypted: false,
        trailers: false,
        layers: (0..).zip(layers).map(size).collect(),
    })
}

fn participant(at: usize) -> ParticipantSid {
    ParticipantSid::from(format!("PA_{at}"))
}

const ROUND_TRIPS_MAX: usize = 20;
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
