//! A router with clients around it, in virtual time. Everything the router does on the way to connected is on a clock.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use plenary_media_core::{
    Announced, Candidate, Command, DtlsIdentity, Event, IceCredentials, Input, PeerOptions, Protocol, Router,
    RouterConfig, SdpLimits, Sink, Transmit, Wanted,
};
use plenary_model::{MediaKind, ParticipantSid, PeerId, Source, SubscriptionSettings, Target, TrackSid};
use plenary_testkit::light::{Identity, Section, answer, offer};

use super::{client::Client, measure::Stopwatch};

pub struct Stage {
    pub router: Router,
    pub clients: Vec<Client>,
    pub now: Instant,
    /// CPU that the router took outside of media.
    pub router_ns: u64,
    stopwatch: Stopwatch,
    identity: Identity,
    by_address: HashMap<SocketAddr, usize>,
    checked: Instant,
}

/// Keeps what is sent.
#[derive(Default)]
pub struct Kept(pub Vec<(SocketAddr, Vec<u8>)>);

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
    pub fn new(stopwatch: Stopwatch) -> Self {
        let candidates = vec![Candidate { protocol: Protocol::Udp, address: ([192, 0, 2, 1], 7882).into() }];
        let config = RouterConfig { candidates, seed: 1, sdp: SdpLimits::default(), data_bytes_per_second: 0 };
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

    /// A publisher's offer and the answer to it; without a kind, of data channels alone.
    pub fn publish(&mut self, at: usize, kind: Option<MediaKind>) -> TrackSid {
        let (client, track) = (&self.clients[at], TrackSid::from(format!("TR_{at}")));
        let announce = |kind| Announced {
            source: Source::Unknown,
            track: track.clone(),
            kind,
            cids: vec!["cid".to_owned()],
            codec: String::new(),
            stereo: false,
            dtx: false,
            red: false,
            encrypted: false,
            trailers: false,
            layers: Vec::new(),
        };
        let section = kind.map_or(Section::Data, |kind| Section::Track { kind, cid: "cid" });
        let command = Command::Offer {
            peer: client.peer,
            sdp: offer(&self.identity, &[section]),
            announced: kind.map(announce).into_iter().collect(),
            restart: IceCredentials { ufrag: format!("again{at}"), pwd: "a-password-nobody-will-use".to_owned() },
        };
        let events = self.command(command);
        let [Event::Answered { published, .. }] = &events[..] else { panic!("{events:?}") };
        assert_eq!(published.len(), usize::from(kind.is_some()), "{events:?}");
        track
    }

    /// What a subscriber wants, our offer, and its answer.
    pub fn subscribe(&mut self, at: usize, tracks: &[TrackSid]) {
        let peer = self.clients[at].peer;
        if !tracks.is_empty() {
            let wanted = |track: &TrackSid| Wanted {
                shown: track.clone(),
                track: track.clone(),
                publisher: participant(0),
                settings: SubscriptionSettings::default(),
            };
            self.command(Command::Want { peer, tracks: tracks.iter().map(wanted).collect() });
        }
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
    pub fn keep_alive(&mut self) {
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

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.router.poll_event()).collect()
    }

    fn command(&mut self, command: Command) -> Vec<Event> {
        let (router, now) = (&mut self.router, self.now);
        self.router_ns += self.stopwatch.ns(|| router.handle(now, Input::Command(command)));
        self.events()
    }

    fn receive(&mut self, at: usize, mut datagram: Vec<u8>) {
        let (router, now, path) = (&mut self.router, self.now, self.clients[at].path);
        let input = Input::Datagram { path, received: now, bytes: &mut datagram };
        self.router_ns += self.stopwatch.ns(|| router.handle(now, input));
    }

    fn transmit(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let (router, mut kept) = (&mut self.router, Kept::default());
        self.router_ns += self.stopwatch.ns(|| router.transmit(&mut kept));
        kept.0
    }
}

fn participant(at: usize) -> ParticipantSid {
    ParticipantSid::from(format!("PA_{at}"))
}

const ROUND_TRIPS_MAX: usize = 20;
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
