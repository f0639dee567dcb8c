//! The router's tables: whatever is asked of it in whatever order, they agree with each other, and nothing stays of those
//! who left. What the router does with media is tested with whole clients, in `testkit`.

use std::time::Duration;

use plenary_model::{Channel, MediaKind, ParticipantSid, Source, SubscriptionSettings, Target, TrackSid};
use proptest::prelude::*;

use super::*;
use crate::{Announced, Command, IceCredentials, PeerOptions, Wanted};

const OFFER: &str = include_str!("../../tests/goldens/sdp/chromium-simulcast.offer.sdp");
const PEOPLE: u64 = 3;
const TRACKS: usize = 6;

/// Something to ask of the router. Numbers are taken modulo what there is.
#[derive(Debug, Clone, Copy)]
enum Ask {
    Open(u64),
    Close(u64),
    Publish { peer: u64, track: usize, active: bool },
    Want { peer: u64, tracks: u8, disabled: bool },
    Offer { peer: u64, restart: bool },
    Answer { peer: u64, takes: bool },
    Negotiate { peer: u64, takes: bool },
    Mute(usize, bool),
    Unpublish(usize),
    Send(u64),
    Wait(u64),
}

/// A router and what it last offered to whom.
struct Rig {
    router: Router,
    now: Instant,
    offers: Vec<(PeerId, String)>,
    events: Vec<Event>,
    ufrags: u32,
}

impl Rig {
    fn new() -> Self {
        let address = "192.0.2.1:7882".parse().unwrap();
        let candidates = vec![Candidate { protocol: Protocol::Udp, address }];
        let config =
            RouterConfig { candidates, seed: 7, sdp: SdpLimits::default(), data_bytes_per_second: 0, link: None };
        let router = Router::new(config, DtlsIdentity::generate().unwrap());
        Self { router, now: Instant::now(), offers: Vec::new(), events: Vec::new(), ufrags: 0 }
    }

    fn ice(&mut self) -> IceCredentials {
        self.ufrags += 1;
        IceCredentials { ufrag: format!("ours{}", self.ufrags), pwd: "a-password-of-24-bytes-or-so".to_owned() }
    }

    fn ask(&mut self, ask: Ask) {
        let peer = |number: u64| PeerId(number % (2 * PEOPLE));
        let sid = |number: usize| TrackSid::from(format!("TR_{}", number % TRACKS));
        let command = match ask {
            Ask::Open(number) => Command::Open {
                peer: peer(number),
                participant: participant(peer(number)),
                target: if peer(number).0 % 2 == 0 { Target::Publisher } else { Target::Subscriber },
                ice: self.ice(),
                options: PeerOptions { open_channels: true, ..PeerOptions::default() },
            },
            Ask::Close(number) => Command::Close { peer: peer(number) },
            Ask::Publish { peer: of, track, active } => {
                // A sid belongs to one publisher.
                let track = track / PEOPLE as usize * PEOPLE as usize + (peer(of).0 / 2) as usize;
                let sdp = if active {
                    OFFER.to_owned()
                } else {
                    OFFER.replace("a=sendrecv", "a=inactive").replace("a=sendonly", "a=inactive")
                };
                let announced = vec![announced(&sid(track))];
                Command::Offer { peer: peer(of), sdp, announced, restart: self.ice() }
            }
            Ask::Want { peer: of, tracks, disabled } => {
                let settings = SubscriptionSettings { disabled, ..SubscriptionSettings::default() };
                let wanted = (0..TRACKS).filter(|track| tracks & (1 << track) != 0);
                let wanted = wanted.map(|track| Wanted {
                    track: sid(track),
                    shown: sid(track),
                    publisher: "PA_x".into(),
                    from: None,
                    settings,
                });
                Command::Want { peer: peer(of), tracks: wanted.collect() }
            }
            Ask::Offer { peer: of, restart } => {
                let restart = restart.then(|| self.ice());
                Command::MakeOffer { peer: peer(of), restart }
            }
            Ask::Answer { peer: of, takes } => {
                let offer = self.offers.iter().rev().find(|(to, _)| *to == peer(of));
                let sdp = offer.map(|(_, sdp)| answer_to(sdp, takes)).unwrap_or_default();
                Command::Answer { peer: peer(of), sdp }
            }
            Ask::Negotiate { peer, takes } => {
                self.ask(Ask::Offer { peer, restart: false });
                return self.ask(Ask::Answer { peer, takes });
            }
            Ask::Mute(track, muted) => Command::SetMuted { track: sid(track), muted },
            Ask::Unpublish(track) => Command::Unpublish { track: sid(track) },
            Ask::Send(to) => {
                let payload = bytes::Bytes::from_static(b"hello");
                Command::Send { peers: vec![peer(to)], channel: Channel::Reliable, payload }
            }
            Ask::Wait(ms) => {
                self.now += Duration::from_millis(ms);
                self.router.handle_timeout(self.now);
                return self.settle();
            }
        };
        self.router.handle(self.now, Input::Command(command));
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(event) = self.router.poll_event() {
            if let Event::Offered { peer, sdp } = &event {
                self.offers.push((*peer, sdp.clone()));
            }
            self.events.push(event);
        }
    }

    /// Every table agrees with every other.
    fn check(&mut self) {
        let counters = self.router.counters();
        assert_eq!(counters.peers.get(), self.router.peers.len() as u64);
        assert_eq!(counters.tracks.get(), self.router.tracks.len() as u64);
        let mut known = 0;
        for track in self.router.tracks.values() {
            let track::TrackOrigin::Peer(publisher) = track.origin else { panic!("{} is not from here", track.sid) };
            let owner = self.router.peers.slot(publisher).and_then(|slot| self.router.peers.get(slot));
            assert!(matches!(owner.expect("a publisher that is there").role, Role::Publisher(_)), "{}", track.sid);
            for receiver in &track.receivers {
                let peer = self.router.peers.get(receiver.peer).expect("a receiver that is there");
                let Role::Subscriber(subscriber) = &peer.role else { panic!("{} receives", peer.id) };
                assert_eq!(subscriber.track_at(receiver.slot), Some(&track.sid), "each packet goes to its own stream");
                known += 1;
            }
        }
        let peers = (0..2 * PEOPLE).filter_map(|id| self.router.peers.get(self.router.peers.slot(PeerId(id))?));
        let subscriptions: usize = peers
            .map(|peer| match &peer.role {
                Role::Subscriber(subscriber) => subscriber.len(),
                Role::Publisher(_) => 0,
            })
            .sum();
        assert_eq!((known, counters.subscriptions.get()), (subscriptions, subscriptions as u64));
    }

    fn close_all(&mut self) {
        for number in 0..2 * PEOPLE {
            self.ask(Ask::Close(number));
        }
        self.check();
        assert_eq!((self.router.peers.len(), self.router.tracks.len()), (0, 0));
        assert_eq!(format!("{:?}", self.router.book), format!("{:?}", AddressBook::default()));
        assert!(self.router.ready.is_empty());
        // What is left in the heap of timers wakes the thread once for nothing.
        self.ask(Ask::Wait(1_000_000));
        assert_eq!(self.router.next_deadline(), None);
    }
}

fn participant(peer: PeerId) -> ParticipantSid {
    format!("PA_{}", peer.0 / 2).into()
}

fn announced(track: &TrackSid) -> Announced {
    Announced {
        source: Source::Unknown,
        track: track.clone(),
        kind: MediaKind::Video,
        cids: Vec::new(),
        codec: "vp8".to_owned(),
        stereo: false,
        dtx: false,
        red: false,
        encrypted: false,
        trailers: false,
        layers: Vec::new(),
    }
}

fn answer_to(offer: &str, takes: bool) -> String {
    let direction = if takes { "a=recvonly" } else { "a=inactive" };
    offer.replace("a=sendonly", direction).replace("a=setup:actpass", "a=setup:active").replace("a=ice-lite\r\n", "")
}

fn ask() -> impl Strategy<Value = Ask> {
    let peer = 0..2 * PEOPLE;
    prop_oneof![
        3 => peer.clone().prop_map(Ask::Open),
        1 => peer.clone().prop_map(Ask::Close),
        3 => (peer.clone(), 0..TRACKS, prop::bool::weighted(0.8))
            .prop_map(|(peer, track, active)| Ask::Publish { peer, track, active }),
        3 => (peer.clone(), any::<u8>(), any::<bool>())
            .prop_map(|(peer, tracks, disabled)| Ask::Want { peer, tracks, disabled }),
        3 => (peer.clone(), prop::bool::weighted(0.1)).prop_map(|(peer, restart)| Ask::Offer { peer, restart }),
        3 => (peer.clone(), prop::bool::weighted(0.8)).prop_map(|(peer, takes)| Ask::Answer { peer, takes }),
        4 => (peer.clone(), prop::bool::weighted(0.7)).prop_map(|(peer, takes)| Ask::Negotiate { peer, takes }),
        1 => (0..TRACKS, any::<bool>()).prop_map(|(track, muted)| Ask::Mute(track, muted)),
        1 => (0..TRACKS).prop_map(Ask::Unpublish),
        1 => peer.prop_map(Ask::Send),
        1 => (0u64..2_000).prop_map(Ask::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tables_agree_after_every_order_of_commands(asks in proptest::collection::vec(ask(), 1..60)) {
        let mut rig = Rig::new();
        for number in 0..2 * PEOPLE {
            rig.ask(Ask::Open(number));
        }
        for peer in (0..2 * PEOPLE).step_by(2) {
            rig.ask(Ask::Publish { peer, track: 0, active: true });
        }
        for peer in (1..2 * PEOPLE).step_by(2) {
            rig.ask(Ask::Want { peer, tracks: 0xff, disabled: false });
            rig.ask(Ask::Negotiate { peer, takes: true });
        }
        for ask in asks {
            rig.ask(ask);
            rig.check();
        }
        rig.close_all();
    }
}

#[test]
fn what_a_client_cannot_decode_leaves_its_slot_to_the_next() {
    let mut rig = Rig::new();
    for ask in [
        Ask::Open(0),
        Ask::Open(2),
        Ask::Open(1),
        Ask::Publish { peer: 0, track: 0, active: true },
        Ask::Publish { peer: 2, track: 0, active: true },
        Ask::Want { peer: 1, tracks: 0b1, disabled: false },
        Ask::Offer { peer: 1, restart: false },
        Ask::Answer { peer: 1, takes: true },
        // The client takes it back: its answer to a later offer is no.
        Ask::Offer { peer: 1, restart: true },
        Ask::Answer { peer: 1, takes: false },
        Ask::Want { peer: 1, tracks: 0b10, disabled: false },
    ] {
        rig.ask(ask);
        rig.check();
    }
    let told = |event: &&Event| matches!(event, Event::Undecodable { track, .. } if track.as_str() == "TR_0");
    assert_eq!(rig.events.iter().filter(told).count(), 1);
    assert!(rig.router.tracks.values().all(|track| track.receivers.len() <= 1));
    rig.close_all();
}

#[test]
fn a_second_peer_of_one_name_and_commands_for_nobody_change_nothing() {
    let mut rig = Rig::new();
    rig.ask(Ask::Open(0));
    rig.ask(Ask::Open(0));
    rig.check();
    for ask in [
        Ask::Close(5),
        Ask::Publish { peer: 4, track: 0, active: true },
        Ask::Want { peer: 5, tracks: 0xff, disabled: false },
        Ask::Offer { peer: 5, restart: true },
        Ask::Answer { peer: 5, takes: true },
        Ask::Mute(0, true),
        Ask::Unpublish(0),
        Ask::Send(5),
        // Wrong for the kind of transport.
        Ask::Offer { peer: 0, restart: false },
        Ask::Want { peer: 0, tracks: 0xff, disabled: false },
    ] {
        rig.ask(ask);
        rig.check();
    }
    assert_eq!(rig.router.peers.len(), 1);
    rig.close_all();
}
