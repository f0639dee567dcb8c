//! A router and another that has the cluster's key and misuses it, and strangers who have not.
//!
//! The victim publishes and pulls; what the input decides is what is sealed in the session's key, what is signed with the
//! cluster's, what comes from strangers, what is commanded meanwhile, and how time passes.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use plenary_model::{MediaKind, PeerId, SubscriptionSettings, Target, TrackSid};

use super::{
    Tape,
    handshake::OURS,
    whole_router::{OFFER, announced, answer_to, credentials, of_ours},
};
use crate::{
    Command, Event, Input, LinkConfig, Neighbour, Path, PeerOptions, Protocol, Router, RouterConfig, RouterId,
    SdpLimits, Sink, Transmit, Wanted,
    link::{ACCEPT, ClusterKeys, Fresh, HELLO, Link},
    router::Counters,
};

/// A list of things that happen, each with what it needs.
pub(super) fn link(input: &[u8]) {
    let mut tape = Tape::new(input);
    let mut rig = Rig::connected();
    for _ in 0..STEPS_MAX {
        if tape.is_empty() {
            break;
        }
        rig.step(&mut tape);
    }
    rig.pass(Duration::from_secs(5));
    rig.command(Command::SetNeighbours { routers: Vec::new() });
    rig.pass(Duration::from_secs(5));
    let counters = rig.victim.counters();
    let left = [&counters.links, &counters.link_wants].map(crate::Count::get);
    assert_eq!(left, [0, 0], "nothing stays of a router that is gone");
}

struct Rig {
    victim: Router,
    attacker: Link,
    keys: ClusterKeys,
    counters: Counters,
    now: Instant,
    numbers: u32,
    offer: String,
}

#[derive(Default)]
struct Sent(Vec<(SocketAddr, Vec<u8>)>);

impl Sink for Sent {
    fn send(&mut self, batch: &[Transmit<'_>]) -> usize {
        for transmit in batch {
            let segments = transmit.bytes.chunks(transmit.segment_bytes.unwrap_or(transmit.bytes.len()).max(1));
            self.0.extend(segments.map(|segment| (transmit.path.remote, segment.to_vec())));
        }
        batch.len()
    }
}

fn id(index: u16) -> RouterId {
    RouterId { node: "ND_f".into(), boot: 3, index }
}

fn attacker_at() -> SocketAddr {
    ([198, 51, 100, 2], 7_882).into()
}

impl Rig {
    fn connected() -> Self {
        let now = Instant::now();
        let secrets = vec![b"the secret of a cluster".to_vec()];
        let link = Some(LinkConfig { me: id(1), keys: secrets.clone(), bits_per_second_max: 0 });
        let sdp = SdpLimits { bytes: 64 << 10, sections: 32 };
        let config = RouterConfig { candidates: Vec::new(), seed: 5, sdp, data_bytes_per_second: 0, link };
        let mut rig = Self {
            victim: Router::new(config, OURS.clone()),
            attacker: Link::new(now, id(0), id(1)),
            keys: ClusterKeys::new(&secrets),
            counters: Counters::default(),
            now,
            numbers: 0,
            offer: String::new(),
        };
        rig.attacker.set_addresses(vec![([198, 51, 100, 1], 7_882).into()]);
        let routers = vec![Neighbour { id: id(0), addresses: vec![attacker_at()] }];
        rig.command(Command::SetNeighbours { routers });
        for (peer, target) in [(PeerId(0), Target::Publisher), (PeerId(1), Target::Subscriber)] {
            let participant = format!("PA_{}", peer.0).into();
            let options = PeerOptions::default();
            rig.command(Command::Open { peer, participant, target, ice: credentials(peer.0), options });
        }
        let announced = vec![
            announced("TR_0".into(), MediaKind::Video, &["q", "h", "f"]),
            announced("TR_1".into(), MediaKind::Audio, &[]),
        ];
        rig.command(Command::Offer { peer: PeerId(0), sdp: of_ours(OFFER), announced, restart: credentials(9) });
        rig.attacker.open(now);
        rig.want(0xff);
        rig.pass(Duration::from_millis(300));
        assert!(rig.attacker.is_up(), "the handshake needs no help");
        rig
    }

    fn step(&mut self, tape: &mut Tape<'_>) {
        match tape.byte() & 0x0f {
            0 => self.pass(Duration::from_millis(u64::from(tape.half() % 5_000))),
            1..=5 => {
                let frames = tape.bytes().to_vec();
                self.attacker.send_frames(self.now, &frames, &self.counters);
                self.carry();
            }
            6..=8 => {
                let (stream, packet) = (tape.word() % 16, tape.bytes());
                let class = crate::egress::Class::Video;
                let _ = self.attacker.send_media(self.now, class, stream, packet, &self.counters);
                self.carry();
            }
            9 | 10 => {
                let kind = if tape.byte() & 1 == 0 { HELLO } else { ACCEPT };
                let signed = self.keys.sign(0, kind, tape.bytes());
                self.datagram(attacker_at(), signed.expect("there is a key"));
            }
            11 => {
                let (mut datagram, port) = (tape.bytes().to_vec(), tape.half());
                if let Some(first) = datagram.first_mut() {
                    *first |= 0xc0;
                }
                self.datagram(([198, 51, 100, 66], port).into(), datagram);
            }
            12 => self.want(tape.byte()),
            13 => {
                self.command(Command::MakeOffer { peer: PeerId(1), restart: None });
                let sdp = answer_to(&self.offer);
                self.command(Command::Answer { peer: PeerId(1), sdp });
            }
            14 => self.command(Command::SetMuted { track: track(tape.byte()), muted: tape.byte() & 1 == 0 }),
            _ => self.command(Command::Unpublish { track: track(tape.byte()) }),
        }
    }

    /// Bit n: whether track n is wanted; the first two are published here.
    fn want(&mut self, tracks: u8) {
        let settings = SubscriptionSettings::default();
        let wanted = (0..8u8).filter(|number| tracks >> number & 1 == 1).map(|number| Wanted {
            track: track(number),
            shown: track(number),
            publisher: "PA_0".into(),
            from: (number > 1).then(|| id(0)),
            settings,
        });
        self.command(Command::Want { peer: PeerId(1), tracks: wanted.collect() });
    }

    fn command(&mut self, command: Command) {
        self.victim.handle(self.now, Input::Command(command));
        self.carry();
    }

    fn datagram(&mut self, from: SocketAddr, mut bytes: Vec<u8>) {
        let path = Path { protocol: Protocol::Udp, remote: from };
        self.victim.handle(self.now, Input::Datagram { path, received: self.now, bytes: &mut bytes });
        self.carry();
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for turn in 0.. {
            let victim = self.victim.next_deadline().map(|(at, _)| at);
            let at = victim.into_iter().chain(self.attacker.next_deadline()).min().filter(|at| *at <= end);
            let Some(at) = at else { break };
            assert!(turn < TURNS_MAX, "a timer spins: {:?}", self.victim.next_deadline());
            self.now = self.now.max(at);
            self.victim.handle_timeout(self.now);
            self.numbers += 1;
            let fresh = Fresh { session: self.numbers, sequence: self.numbers.into() };
            self.attacker.handle_timeout(self.now, &self.keys, fresh, &self.counters);
            self.carry();
        }
        self.now = end;
    }

    /// Carries datagrams both ways until nobody has more to say.
    fn carry(&mut self) {
        for turn in 0.. {
            assert!(turn < ANSWERS_MAX, "they never fall silent");
            while let Some(event) = self.victim.poll_event() {
                if let Event::Offered { sdp, .. } = event {
                    self.offer = sdp;
                }
            }
            let mut sent = Sent::default();
            self.victim.transmit(&mut sent);
            assert!(sent.0.len() <= DATAGRAMS_MAX, "{} datagrams at once", sent.0.len());
            for (to, mut datagram) in sent.0 {
                assert!(datagram.len() <= 1_500, "{} bytes", datagram.len());
                if to == attacker_at() {
                    self.answer(&mut datagram);
                }
            }
            self.attacker.flush(self.now, &self.counters);
            let mut leaves: Vec<_> = self.attacker.handshakes.drain(..).map(|(_, datagram)| datagram).collect();
            while let Some((_, run)) = self.attacker.front() {
                let segment = run.segment_bytes.unwrap_or(run.bytes.len()).max(1);
                leaves.extend(run.bytes.chunks(segment).map(<[u8]>::to_vec));
                self.attacker.pop_front();
            }
            if leaves.is_empty() {
                return;
            }
            let path = Path { protocol: Protocol::Udp, remote: attacker_at() };
            for mut bytes in leaves {
                self.victim.handle(self.now, Input::Datagram { path, received: self.now, bytes: &mut bytes });
            }
        }
    }

    /// The session lives on, whatever is done with it.
    fn answer(&mut self, datagram: &mut [u8]) {
        let from = ([198, 51, 100, 1], 7_882).into();
        self.numbers += 1;
        let Some(first) = datagram.first().copied() else { return };
        if first == HELLO
            && let Ok(hello) = self.keys.hello(datagram)
        {
            let _ = self.attacker.on_hello(self.now, from, &self.keys, (&hello, datagram), self.numbers);
        } else if first == ACCEPT
            && let Ok(accept) = self.keys.accept(datagram)
        {
            let _ = self.attacker.on_accept(self.now, from, &self.keys, (&accept, datagram));
        } else if let Some(session) = crate::link::session_of(datagram) {
            let _ = self.attacker.receive(self.now, from, session, datagram);
        }
        self.attacker.poll_change(self.now);
    }
}

fn track(number: u8) -> TrackSid {
    TrackSid::from(format!("TR_{}", number % 8))
}

const STEPS_MAX: usize = 256;
const TURNS_MAX: usize = 20_000;
const ANSWERS_MAX: usize = 64;
const DATAGRAMS_MAX: usize = 2_000;
