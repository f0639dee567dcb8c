//! A router, its clients and the network between them, in virtual time. The world also plays the room: it carries
//! descriptions back and forth, gives out ids, and does nothing that was not asked for.

use std::{
    collections::{HashMap, HashSet},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::{Duration, Instant},
};

use bytes::Bytes;
use plenary_media_core::{
    Announced, Candidate, Command, Counters, DtlsIdentity, Event, IceCredentials, Input, LayerSize, LinkConfig, Path,
    PeerEnd, PeerOptions, Protocol, Router, RouterConfig, RouterId, SdpLimits, Sink, Tapped, Transmit, Wanted,
};
use plenary_model::{Channel, MediaKind, ParticipantSid, PeerId, Source, SubscriptionSettings, Target, TrackSid};

use crate::{
    Client, ClientOptions, Random, cluster,
    network::{Datagram, Direction, Network},
};

/// See the module.
pub struct World {
    pub now: Instant,
    pub router: Router,
    pub network: Network,
    /// Everything the router said, with the time.
    pub events: Vec<(Instant, Event)>,
    clients: Vec<Client>,
    publications: Vec<Publication>,
    subscriptions: HashMap<ClientId, Vec<Wanted>>,
    /// Subscriber transports whose client has an offer to answer.
    in_negotiation: HashSet<PeerId>,
    /// Something changed while an offer was out.
    offer_again: HashSet<PeerId>,
    /// Whether the world makes offers when the router needs one.
    pub negotiates: bool,
    /// The router's socket takes nothing.
    pub is_stalled: bool,
    /// How often the router gets to read its socket; zero is at once.
    pub reads_every: Duration,
    /// What came to the socket since it last did, and when.
    unread: Vec<(Instant, SocketAddr, Vec<u8>)>,
    reads_at: Instant,
    /// Reads how much is on the heap, for tests that ask what the router holds.
    pub heap: fn() -> i64,
    /// How much more it holds since the beginning, what it handed out not counted.
    pub router_bytes: i64,
    /// What came of tapped tracks.
    pub tapped: Vec<Tapped>,
    /// What the router sends to others of its kind.
    pub to_routers: Vec<(SocketAddr, Vec<u8>)>,
    /// Keeps names of one world apart from those of others.
    prefix: String,
    random: Random,
    credentials: u32,
    ssrcs: u32,
    scratch: Outgoing,
}

/// Clients in the order they joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub usize);

/// A track somebody published.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    pub track: TrackSid,
    pub client: ClientId,
    pub cid: String,
    announced: Announced,
    /// Some section carries it.
    described: bool,
}

#[derive(Default)]
struct Outgoing {
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
    heap: Option<fn() -> i64>,
    bytes: i64,
}

/// Where the router is reached.
pub const ROUTER_ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 7882));

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("clients", &self.clients.len()).finish_non_exhaustive()
    }
}

impl World {
    pub fn seeded(seed: u64) -> Self {
        Self::with_data_limit(seed, 0)
    }

    /// Each client may send so much on data channels; 0 is no limit.
    pub fn with_data_limit(seed: u64, data_bytes_per_second: u64) -> Self {
        Self::with(start(), seed, "", data_bytes_per_second, None)
    }

    /// One of several whose routers speak to each other.
    pub(crate) fn linked(now: Instant, seed: u64, prefix: &str, link: LinkConfig) -> Self {
        Self::with(now, seed, prefix, 0, Some(link))
    }

    fn with(now: Instant, seed: u64, prefix: &str, data_bytes_per_second: u64, link: Option<LinkConfig>) -> Self {
        let candidates = vec![Candidate { protocol: Protocol::Udp, address: ROUTER_ADDRESS }];
        let config = RouterConfig { candidates, seed, sdp: SdpLimits::default(), data_bytes_per_second, link };
        let identity = DtlsIdentity::generate().expect("an identity is generated");
        Self {
            now,
            router: Router::new(config, identity),
            network: Network::seeded(seed),
            events: Vec::new(),
            clients: Vec::new(),
            publications: Vec::new(),
            subscriptions: HashMap::new(),
            in_negotiation: HashSet::new(),
            offer_again: HashSet::new(),
            negotiates: true,
            is_stalled: false,
            reads_every: Duration::ZERO,
            unread: Vec::new(),
            reads_at: now,
            heap: || 0,
            router_bytes: 0,
            tapped: Vec::new(),
            to_routers: Vec::new(),
            prefix: prefix.to_owned(),
            random: Random::seeded(seed ^ 0x7465_7374),
            credentials: 0,
            ssrcs: 0x1000_0000,
            scratch: Outgoing::default(),
        }
    }

    /// A participant whose transports are opened and not yet described.
    pub fn join(&mut self, name: &str) -> ClientId {
        self.join_with(name, ClientOptions::default())
    }

    pub fn join_with(&mut self, name: &str, options: ClientOptions) -> ClientId {
        let id = ClientId(self.clients.len());
        let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 1)) + id.0 as u32);
        let (publisher, subscriber) = ((ip, 5_000).into(), (ip, 5_001).into());
        self.clients.push(Client::new(self.now, name, publisher, subscriber, options));
        for (target, open_channels) in [(Target::Publisher, false), (Target::Subscriber, true)] {
            let ice = self.credentials();
            self.command(Command::Open {
                peer: peer(id, target),
                participant: self.participant(id),
                target,
                ice,
                options: PeerOptions {
                    open_channels,
                    allow_pause: options.allows_pause,
                    takes_trailers: options.takes_trailers,
                    ..PeerOptions::default()
                },
            });
        }
        id
    }

    /// Joins and waits until both transports are connected, the publisher's with its data channels.
    pub fn join_connected(&mut self, name: &str) -> ClientId {
        self.join_connected_with(name, ClientOptions::default())
    }

    pub fn join_connected_with(&mut self, name: &str, options: ClientOptions) -> ClientId {
        let id = self.join_with(name, options);
        self.client(id).publisher.open_channels();
        self.offer_publisher(id);
        self.make_offer(id);
        let is_open = |event: &Event, of| matches!(event, Event::ChannelOpen { peer, .. } if *peer == of);
        self.run_until(Duration::from_secs(5), |world| {
            let both = [id.publisher(), id.subscriber()];
            both.into_iter().all(|peer| world.count_events(|event| is_open(event, peer)) == 3)
                && world.clients[id.0].publisher.open_channels.len() == 3
        });
        id
    }

    pub fn client(&mut self, id: ClientId) -> &mut Client {
        &mut self.clients[id.0]
    }

    pub fn counters(&self) -> std::sync::Arc<Counters> {
        self.router.counters()
    }

    /// Publishes and negotiates. `rids` from low to high.
    pub fn publish(&mut self, id: ClientId, kind: MediaKind, rids: &[&'static str]) -> TrackSid {
        let track = self.announce(id, kind, rids);
        self.offer_publisher(id);
        track
    }

    /// Announces a track that the next offer will carry.
    pub fn announce(&mut self, id: ClientId, kind: MediaKind, rids: &[&'static str]) -> TrackSid {
        let (track, cid, ssrc) = self.name_track();
        self.client(id).add_source(kind, &cid, rids, ssrc);
        let announced = announced(&track, &cid, kind, rids);
        let publication = Publication { track: track.clone(), client: id, cid, announced, described: false };
        self.publications.push(publication);
        track
    }

    fn name_track(&mut self) -> (TrackSid, String, u32) {
        let number = self.publications.len();
        self.ssrcs += 1_000;
        (TrackSid::from(format!("TR_{}{number}", self.prefix)), format!("cid-{number}"), self.ssrcs)
    }

    pub fn publish_audio(&mut self, id: ClientId) -> TrackSid {
        self.publish(id, MediaKind::Audio, &[])
    }

    /// One stream, no layers.
    pub fn publish_video(&mut self, id: ClientId) -> TrackSid {
        self.publish(id, MediaKind::Video, &[])
    }

    pub fn publish_simulcast(&mut self, id: ClientId) -> TrackSid {
        self.publish(id, MediaKind::Video, &["q", "h", "f"])
    }

    /// VP9 with three spatial layers in one stream.
    pub fn publish_svc(&mut self, id: ClientId) -> TrackSid {
        let track = self.announce_svc(id);
        self.offer_publisher(id);
        track
    }

    /// Announces such a track for the next offer.
    pub fn announce_svc(&mut self, id: ClientId) -> TrackSid {
        let (track, cid, ssrc) = self.name_track();
        self.client(id).add_svc_source(&cid, ssrc);
        let announced = announced(&track, &cid, MediaKind::Video, &["q", "h", "f"]);
        let announced = Announced { codec: "video/vp9".to_owned(), ..announced };
        let publication = Publication { track: track.clone(), client: id, cid, announced, described: false };
        self.publications.push(publication);
        track
    }

    /// VP9 as above, and a section in which its backup may come. The other implementation offers later what it was agreed to
    /// send at first, so the section is there from the beginning.
    pub fn publish_svc_with_room_for_backup(&mut self, id: ClientId) -> TrackSid {
        let (_, cid, ssrc) = self.name_track();
        self.client(id).add_source(MediaKind::Video, &backup_cid(&cid), &[], ssrc);
        self.publish_svc(id)
    }

    /// The same source in VP8, in one stream.
    pub fn publish_backup(&mut self, track: &TrackSid) -> TrackSid {
        let Publication { client, cid, .. } = self.publication(track);
        let (backup, cid) = (track.backup(), backup_cid(&cid));
        let announced = announced(&backup, &cid, MediaKind::Video, &[]);
        self.publications.push(Publication { track: backup.clone(), client, cid, announced, described: false });
        self.offer_publisher(client);
        backup
    }

    /// What a client receives of a track is its backup from now on, under the track's own name.
    pub fn subscribe_to_backup(&mut self, id: ClientId, track: &TrackSid) {
        let wanted = self.subscriptions.entry(id).or_default();
        wanted.iter_mut().filter(|wanted| wanted.shown == *track).for_each(|wanted| wanted.track = track.backup());
        self.want(id);
    }

    /// The client makes the track's section inactive.
    pub fn unpublish(&mut self, track: &TrackSid) {
        let Publication { client, cid, .. } = self.publication(track);
        self.client(client).remove_source(&cid);
        self.offer_publisher(client);
    }

    pub fn publication(&self, track: &TrackSid) -> Publication {
        self.publications.iter().find(|one| one.track == *track).expect("a published track").clone()
    }

    /// The source behind a track.
    pub fn source(&mut self, track: &TrackSid) -> &mut crate::Source {
        let Publication { client, cid, .. } = self.publication(track);
        self.client(client).source(&cid)
    }

    /// What a client received of a track.
    pub fn received(&self, id: ClientId, track: &TrackSid) -> &crate::ReceivedStream {
        let stream = self.clients[id.0].inbox.stream(track.as_str());
        stream.unwrap_or_else(|| panic!("{id:?} was offered {track}"))
    }

    /// The same once the client was offered it.
    pub fn stream(&self, id: ClientId, track: &TrackSid) -> Option<&crate::ReceivedStream> {
        self.clients[id.0].inbox.stream(track.as_str())
    }

    /// The next offer publishes a track again that the server ended.
    pub fn announce_again(&mut self, track: &TrackSid) {
        let publication = self.publications.iter_mut().find(|one| one.track == *track);
        publication.expect("a published track").described = false;
    }

    /// The publisher's client offers what it has now.
    pub fn offer_publisher(&mut self, id: ClientId) {
        let now = self.now;
        let sdp = self.client(id).offer(now);
        self.send_offer(id, sdp);
    }

    /// Hands the router an offer of a publisher's client, or what somebody made of it.
    pub fn send_offer(&mut self, id: ClientId, sdp: String) {
        let open = self.publications.iter().filter(|one| one.client == id && !one.described);
        let announced = open.map(|one| one.announced.clone()).collect();
        let restart = self.credentials();
        self.command(Command::Offer { peer: peer(id, Target::Publisher), sdp, announced, restart });
    }

    /// What the next offer's announcement says of a track.
    pub fn announcement(&mut self, track: &TrackSid) -> &mut Announced {
        let publication = self.publications.iter_mut().find(|one| one.track == *track);
        &mut publication.expect("an announced track").announced
    }

    /// Publishes the source of a track once more, as another track.
    pub fn republish(&mut self, track: &TrackSid) -> TrackSid {
        let mut again = self.publication(track);
        again.track = TrackSid::from(format!("TR_{}{}", self.prefix, self.publications.len()));
        again.announced.track = again.track.clone();
        again.described = false;
        let (track, client) = (again.track.clone(), again.client);
        self.publications.push(again);
        self.offer_publisher(client);
        track
    }

    /// The server makes an offer to a subscriber.
    pub fn make_offer(&mut self, id: ClientId) {
        let peer = peer(id, Target::Subscriber);
        self.in_negotiation.insert(peer);
        self.command(Command::MakeOffer { peer, restart: None });
    }

    pub fn restart_subscriber(&mut self, id: ClientId) {
        let peer = peer(id, Target::Subscriber);
        self.in_negotiation.insert(peer);
        let restart = Some(self.credentials());
        self.command(Command::MakeOffer { peer, restart });
    }

    /// Adds tracks to what a client receives.
    pub fn subscribe(&mut self, id: ClientId, tracks: &[TrackSid]) {
        let wanted = tracks.iter().map(|track| self.wanted(track, None)).collect();
        self.subscribe_to(id, wanted);
    }

    /// A wish for a track that is published here, as it is said here or at another router.
    pub(crate) fn wanted(&self, track: &TrackSid, from: Option<RouterId>) -> Wanted {
        let publisher = self.participant(self.publication(track).client);
        let settings = SubscriptionSettings::default();
        Wanted { track: track.clone(), shown: track.clone(), publisher, from, settings }
    }

    pub(crate) fn subscribe_to(&mut self, id: ClientId, wanted: Vec<Wanted>) {
        self.subscriptions.entry(id).or_default().extend(wanted);
        self.want(id);
    }

    fn participant(&self, id: ClientId) -> ParticipantSid {
        ParticipantSid::from(format!("PA_{}{}", self.prefix, id.0))
    }

    pub fn unsubscribe(&mut self, id: ClientId, track: &TrackSid) {
        self.subscriptions.entry(id).or_default().retain(|wanted| wanted.track != *track);
        self.want(id);
    }

    pub fn set_settings(&mut self, id: ClientId, track: &TrackSid, settings: SubscriptionSettings) {
        for wanted in self.subscriptions.entry(id).or_default().iter_mut().filter(|wanted| wanted.track == *track) {
            wanted.settings = settings;
        }
        self.want(id);
    }

    pub fn send_data(&mut self, peers: &[PeerId], channel: Channel, payload: &[u8]) {
        let payload = Bytes::copy_from_slice(payload);
        self.command(Command::Send { peers: peers.to_vec(), channel, payload });
    }

    /// The NAT in front of a client gives both its connections other addresses.
    pub fn rebind(&mut self, id: ClientId) {
        let moved = |mut address: SocketAddr| {
            address.set_port(address.port() + 1_000);
            address
        };
        let client = self.client(id);
        client.publisher.public = moved(client.publisher.public);
        client.subscriber.public = moved(client.subscriber.public);
    }

    pub fn command(&mut self, command: Command) {
        let now = self.now;
        self.with_router(|router| router.handle(now, Input::Command(command)));
        self.settle();
    }

    /// Hands the router a datagram from anywhere, past the network.
    pub fn inject(&mut self, from: SocketAddr, mut bytes: Vec<u8>) {
        self.give(self.now, from, &mut bytes);
        self.settle();
    }

    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.step(end);
        }
    }

    pub fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) {
        let end = self.now + limit;
        while !done(self) {
            assert!(self.now < end, "not within {limit:?}; {}", self.story());
            self.step(end);
        }
    }

    /// What happened so far, a line per event.
    pub fn story(&self) -> String {
        let line = |(at, event): &(Instant, Event)| {
            let text: String = format!("{event:?}").chars().take(160).collect();
            format!("{:?} ago: {text}\n", self.now - *at)
        };
        let events: String = self.events.iter().map(line).collect();
        format!("counters {:?}, events\n{events}", self.counters())
    }

    /// Media of somebody arrives at somebody else within a few seconds.
    pub fn run_until_received(&mut self, id: ClientId, track: &TrackSid, packets: usize) {
        self.run_until(Duration::from_secs(5), |world| {
            world.clients[id.0].inbox.stream(track.as_str()).is_some_and(|stream| stream.packets.len() >= packets)
        });
    }

    pub fn closed(&self, peer: PeerId) -> Option<PeerEnd> {
        self.events.iter().find_map(|(_, event)| match event {
            Event::Closed { peer: closed, why } if *closed == peer => Some(*why),
            _ => None,
        })
    }

    pub fn count_events(&self, matches: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|(_, event)| matches(event)).count()
    }

    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    pub fn credentials(&mut self) -> IceCredentials {
        self.credentials += 1;
        IceCredentials {
            ufrag: format!("ours{}", self.credentials),
            pwd: format!("a-password-of-ours-{:08}", self.credentials),
        }
    }

    fn step(&mut self, end: Instant) {
        let next = self.next_deadline().unwrap_or(end);
        // An end that asks for a time already past gets a little progress.
        self.advance(next.max(self.now + RESOLUTION).min(end.max(self.now + RESOLUTION)));
    }

    /// When something happens next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let router = self.router.next_deadline().map(|(at, _)| at);
        let clients = self.clients.iter().filter_map(Client::next_deadline);
        let read = (!self.unread.is_empty()).then_some(self.reads_at);
        clients.chain(router).chain(self.network.next_arrival()).chain(read).min()
    }

    /// Lets everything happen that is due by then.
    pub(crate) fn advance(&mut self, now: Instant) {
        self.now = now;
        while let Some(Datagram { direction, client, mut bytes }) = self.network.receive(self.now) {
            match direction {
                Direction::Up if self.reads_every.is_zero() => self.give(self.now, client, &mut bytes),
                Direction::Up => self.unread.push((self.now, client, bytes)),
                Direction::Down => {
                    let now = self.now;
                    let is = |one: &&mut Client| [one.publisher.public, one.subscriber.public].contains(&client);
                    if let Some(receiver) = self.clients.iter_mut().find(is) {
                        receiver.receive(now, client, &bytes);
                    }
                }
            }
        }
        if self.reads_at <= self.now {
            self.reads_at = self.now + self.reads_every;
            for (received, client, mut bytes) in std::mem::take(&mut self.unread) {
                self.give(received, client, &mut bytes);
            }
        }
        let now = self.now;
        self.with_router(|router| router.handle_timeout(now));
        for client in &mut self.clients {
            client.handle_timeout(now);
        }
        self.settle();
    }

    fn give(&mut self, received: Instant, from: SocketAddr, bytes: &mut [u8]) {
        let (now, path) = (self.now, Path { protocol: Protocol::Udp, remote: from });
        self.with_router(|router| router.handle(now, Input::Datagram { path, received, bytes }));
    }

    fn with_router(&mut self, act: impl FnOnce(&mut Router)) {
        let before = (self.heap)();
        act(&mut self.router);
        self.router_bytes += (self.heap)() - before;
    }

    /// Moves on everything that waits to be moved.
    fn settle(&mut self) {
        while let Some(event) = self.router.poll_event() {
            self.on_event(&event);
            self.events.push((self.now, event));
        }
        if !self.is_stalled {
            let (mut sink, heap) = (std::mem::take(&mut self.scratch), self.heap);
            sink.heap = Some(heap);
            self.with_router(|router| router.transmit(&mut sink));
            self.router_bytes -= std::mem::take(&mut sink.bytes);
            self.scratch = sink;
        }
        self.tapped.extend(std::iter::from_fn(|| self.router.poll_tapped()));
        for (client, bytes) in self.scratch.datagrams.drain(..) {
            if cluster::is_router(client) {
                self.to_routers.push((client, bytes));
                continue;
            }
            self.network.send(self.now, Datagram { direction: Direction::Down, client, bytes });
        }
        for client in &mut self.clients {
            for (from, bytes) in client.transmits() {
                self.network.send(self.now, Datagram { direction: Direction::Up, client: from, bytes });
            }
        }
    }

    fn on_event(&mut self, event: &Event) {
        let now = self.now;
        match event {
            Event::Answered { peer, sdp, published, .. } => {
                for published in published {
                    let found = self.publications.iter_mut().find(|one| one.track == published.track);
                    found.expect("only what was announced is published").described = true;
                }
                self.clients[owner(*peer).0].answered(now, sdp);
            }
            Event::Offered { peer, sdp } => {
                let answer = self.clients[owner(*peer).0].answer(now, sdp);
                self.router.handle(now, Input::Command(Command::Answer { peer: *peer, sdp: answer }));
            }
            Event::Accepted { peer } => {
                self.in_negotiation.remove(peer);
                if self.offer_again.remove(peer) {
                    self.negotiate(*peer);
                }
            }
            Event::OfferNeeded { peer } => self.negotiate(*peer),
            _ => {}
        }
    }

    /// One offer at a time.
    fn negotiate(&mut self, peer: PeerId) {
        if !self.negotiates {
            return;
        }
        if self.in_negotiation.insert(peer) {
            self.router.handle(self.now, Input::Command(Command::MakeOffer { peer, restart: None }));
        } else {
            self.offer_again.insert(peer);
        }
    }

    fn want(&mut self, id: ClientId) {
        let tracks = self.subscriptions.get(&id).cloned().unwrap_or_default();
        self.command(Command::Want { peer: peer(id, Target::Subscriber), tracks });
    }
}

impl ClientId {
    pub fn publisher(self) -> PeerId {
        peer(self, Target::Publisher)
    }

    pub fn subscriber(self) -> PeerId {
        peer(self, Target::Subscriber)
    }
}

impl Sink for Outgoing {
    fn send(&mut self, batch: &[Transmit<'_>]) -> usize {
        let before = self.heap.map_or(0, |heap| heap());
        for transmit in batch {
            let segment = transmit.segment_bytes.unwrap_or(transmit.bytes.len());
            self.datagrams.extend(transmit.bytes.chunks(segment).map(|bytes| (transmit.path.remote, bytes.to_vec())));
        }
        self.bytes += self.heap.map_or(0, |heap| heap()) - before;
        batch.len()
    }
}

fn announced(track: &TrackSid, cid: &str, kind: MediaKind, rids: &[&str]) -> Announced {
    let size = |(at, rid): (usize, &&str)| LayerSize {
        rid: (*rid).to_owned(),
        width: 320 << at,
        height: 180 << at,
        bitrate_bps: 150_000 << (2 * at),
    };
    let single = LayerSize { rid: String::new(), width: 1_280, height: 720, bitrate_bps: 1_700_000 };
    let layers = match kind {
        MediaKind::Audio => Vec::new(),
        MediaKind::Video if rids.is_empty() => vec![single],
        MediaKind::Video => rids.iter().enumerate().map(size).collect(),
    };
    Announced {
        source: Source::Unknown,
        track: track.clone(),
        kind,
        cids: vec![cid.to_owned()],
        codec: if kind == MediaKind::Video { "video/vp8".to_owned() } else { String::new() },
        stereo: false,
        dtx: true,
        red: false,
        encrypted: false,
        trailers: false,
        layers,
    }
}

fn backup_cid(cid: &str) -> String {
    format!("{cid}-backup")
}

fn peer(id: ClientId, target: Target) -> PeerId {
    let second = match target {
        Target::Publisher => 0,
        Target::Subscriber => 1,
    };
    PeerId(id.0 as u64 * 2 + second)
}

fn owner(peer: PeerId) -> ClientId {
    ClientId(usize::try_from(peer.0 / 2).expect("few clients"))
}

/// When virtual time begins: some way from the beginning of time, so that subtracting is safe.
#[allow(clippy::disallowed_methods, reason = "one reading of the clock starts virtual time")]
pub(crate) fn start() -> Instant {
    Instant::now() + Duration::from_secs(3_600)
}

pub(crate) const RESOLUTION: Duration = Duration::from_micros(500);
