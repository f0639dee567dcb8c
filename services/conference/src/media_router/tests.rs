//! The actor with real sockets on loopback around a core that echoes.

use std::{collections::VecDeque, net::Ipv4Addr, sync::Mutex};

use plenary_media_core::{
    Deadline, Event, IceCredentials, Path, PeerEnd, PeerOptions, Protocol, Sink, TrackLevel, Transmit,
};
use plenary_model::{PeerId, Target};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;

/// A core that sends back what it is sent, and otherwise does as its fields say.
#[derive(Debug, Default)]
pub(super) struct Echo {
    pub outbound: VecDeque<(Path, Vec<u8>, Option<usize>)>,
    pub events: VecDeque<Event>,
    pub deadline: Option<(Instant, Deadline)>,
    pub timeouts: u32,
    pub closed_paths: Vec<Path>,
    pub closed_peers: Vec<PeerId>,
    pub echo: bool,
}

impl Core for Echo {
    type Counters = Mutex<()>;

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Datagram { bytes: [b'b', b'o', b'o', b'm'], .. } => panic!("told to"),
            // Answered with a run of as many datagrams of four bytes as the last byte says.
            Input::Datagram { path, bytes: [b'r', b'u', b'n', count], .. } => {
                let run = (0..*count).flat_map(|n| [b'r', b'u', b'n', n]).collect();
                self.outbound.push_back((path, run, Some(4)));
            }
            Input::Datagram { path, bytes, .. } if self.echo => self.outbound.push_back((path, bytes.to_vec(), None)),
            Input::Datagram { .. } => {}
            Input::PathClosed { path } => self.closed_paths.push(path),
            Input::Command(Command::Open { peer, .. }) => self.events.push_back(Event::Connected { peer }),
            Input::Command(Command::Close { peer }) => {
                self.closed_peers.push(peer);
                self.events.push_back(Event::Closed { peer, why: PeerEnd::Asked });
            }
            // Stands for any command after which the core has something to send, now or later.
            Input::Command(Command::MakeOffer { peer, .. }) => {
                self.deadline = Some((now + Duration::from_millis(20), Deadline::Pacing));
                self.events.push_back(Event::Offered { peer, sdp: String::new() });
            }
            Input::Command(Command::Unpublish { track }) => {
                let level = |name: &str| TrackLevel {
                    participant: name.into(),
                    track: track.clone(),
                    level: 0.5,
                    active: true,
                };
                let levels = ["PA_ann", "PA_bob", "PA_cid", "PA_nobody"].map(level).into();
                self.events.push_back(Event::Levels { levels });
            }
            Input::Command(_) => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|(at, _)| at <= now) {
            self.timeouts += 1;
            self.deadline = None;
            self.events.push_back(Event::Accepted { peer: PeerId(1) });
        }
    }

    fn next_deadline(&self) -> Option<(Instant, Deadline)> {
        self.deadline
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn poll_tapped(&mut self) -> Option<plenary_media_core::Tapped> {
        None
    }

    fn transmit(&mut self, sink: &mut dyn Sink) {
        while !self.outbound.is_empty() {
            let batch: Vec<_> = self.outbound.iter().take(64).map(as_transmit).collect();
            let offered = batch.len();
            let taken = sink.send(&batch);
            drop(batch);
            self.outbound.drain(..taken);
            if taken < offered {
                return;
            }
        }
    }

    fn counters(&self) -> Arc<Mutex<()>> {
        Arc::default()
    }
}

fn as_transmit((path, bytes, segment_bytes): &(Path, Vec<u8>, Option<usize>)) -> Transmit<'_> {
    Transmit { path: *path, bytes, segment_bytes: *segment_bytes }
}

#[actix::test]
async fn datagrams_come_back_from_the_core() {
    let (router, _) = router(Offload::On);
    let client = client(&router).await;
    client.send(b"one").await.unwrap();
    assert_eq!(next(&client).await, b"one");
    // A datagram may overtake its counting, a message does not.
    router.addr.send(Tell(Command::Close { peer: PeerId(9) })).await.unwrap();
    assert_eq!(router.io.datagrams_in.value(), 1);
    assert_eq!(router.io.datagrams_out.value(), 1);
    router.addr.do_send(Stop);
}

#[actix::test]
async fn a_run_reaches_the_client_as_datagrams_in_order() {
    for gso in [Offload::On, Offload::Off] {
        let (router, _) = router(gso);
        let client = client(&router).await;
        client.send(b"run\x09").await.unwrap();
        for n in 0..9 {
            assert_eq!(next(&client).await, [b'r', b'u', b'n', n]);
        }
        router.addr.do_send(Stop);
    }
}

#[actix::test]
async fn a_port_that_is_taken_is_named_at_the_start() {
    let (router, _) = router(Offload::On);
    let settings = RouterSettings { udp_port: router.local[0].port(), ..settings(Offload::On) };
    let err = start(&settings, index(0), parent().0, |_, _| Echo::default()).unwrap_err();
    assert_eq!(err.kind(), io::ErrorKind::AddrInUse);
    assert!(err.to_string().contains(&format!("UDP port {} on 127.0.0.1", router.local[0].port())), "{err}");
    router.addr.do_send(Stop);
}

#[actix::test]
async fn two_addresses_of_one_family_are_refused() {
    let settings = RouterSettings { bind: vec![Ipv4Addr::LOCALHOST.into(); 2], ..settings(Offload::On) };
    let err = start(&settings, index(0), parent().0, |_, _| Echo::default()).unwrap_err();
    assert_eq!(err.kind(), io::ErrorKind::InvalidInput);
}

#[actix::test]
async fn a_panic_ends_the_router_and_its_parent_is_told() {
    let (router, mut notices) = router(Offload::On);
    let client = client(&router).await;
    client.send(b"boom").await.unwrap();
    assert_eq!(notices.recv().await.unwrap(), RouterEnded { index: index(7), crashed: true });
    assert!(router.addr.send(Stop).await.is_err(), "its mailbox is closed");
}

#[actix::test]
async fn a_router_can_take_its_predecessors_port_as_soon_as_the_notice_is_there() {
    let (first, mut notices) = router(Offload::On);
    let settings = RouterSettings { udp_port: first.local[0].port(), ..settings(Offload::On) };
    let mut current = first;
    for _ in 0..10 {
        client(&current).await.send(b"boom").await.unwrap();
        assert!(notices.recv().await.unwrap().crashed);
        let (parent, next_notices) = parent();
        current = start(&settings, index(7), parent, |_, _| Echo::default()).expect("the port is free");
        notices = next_notices;
    }
    current.addr.do_send(Stop);
}

#[actix::test]
async fn a_core_that_cannot_be_built_fails_the_start() {
    let (parent, mut notices) = parent();
    let err = start(&settings(Offload::On), index(0), parent, |_, _| -> Echo { panic!("told to") }).unwrap_err();
    assert_eq!(err.to_string(), "media thread did not start");
    tokio::task::yield_now().await;
    assert!(notices.try_recv().is_err(), "one who never lived has no death notice");
}

#[actix::test]
async fn a_router_that_is_stopped_did_not_crash() {
    let (router, mut notices) = router(Offload::On);
    router.addr.do_send(Stop);
    assert_eq!(notices.recv().await.unwrap(), RouterEnded { index: index(7), crashed: false });
}

#[actix::test]
async fn a_command_runs_the_pump_and_arms_its_timer() {
    let (router, _) = router(Offload::On);
    let (events, mut heard) = Probe::start();
    open(&router, PeerId(1), "PA_ann", &events, &levels().0);
    assert!(matches!(heard.recv().await.unwrap(), Event::Connected { peer: PeerId(1) }));
    // Nothing arrives on a socket: only the mailbox, then only the timer, can have run the pump.
    router.addr.do_send(Tell(Command::MakeOffer { peer: PeerId(1), restart: None }));
    assert!(matches!(heard.recv().await.unwrap(), Event::Offered { .. }));
    assert!(matches!(heard.recv().await.unwrap(), Event::Accepted { .. }));
    router.addr.do_send(Stop);
}

#[actix::test]
async fn an_open_told_without_a_listener_is_ignored() {
    let (router, _) = router(Offload::On);
    let (events, mut heard) = Probe::start();
    router.addr.do_send(Tell(open_command(PeerId(1), "PA_ann")));
    open(&router, PeerId(1), "PA_ann", &events, &levels().0);
    assert!(
        matches!(heard.recv().await.unwrap(), Event::Connected { peer: PeerId(1) }),
        "the first open took no place"
    );
    router.addr.do_send(Stop);
}

#[actix::test]
async fn levels_leave_as_one_message_per_room() {
    let (router, _) = router(Offload::On);
    let (events, mut heard) = Probe::start();
    let ((here, mut here_heard), (there, mut there_heard)) = (levels(), levels());
    for (peer, name, room) in [(1, "PA_ann", &here), (2, "PA_bob", &there), (3, "PA_cid", &here)] {
        open(&router, PeerId(peer), name, &events, room);
        heard.recv().await.unwrap();
    }
    router.addr.do_send(Tell(Command::Unpublish { track: "TR_1".into() }));
    assert_eq!(here_heard.recv().await.unwrap(), ["PA_ann", "PA_cid"]);
    assert_eq!(there_heard.recv().await.unwrap(), ["PA_bob"]);
    router.addr.do_send(Stop);
}

#[test]
fn an_index_is_found_again_in_its_ufrags() {
    assert_eq!(index(0).mark(), "00");
    assert_eq!(index(37).mark(), "11");
    for number in 0..ROUTERS_MAX {
        let index = index(number);
        assert_eq!(RouterIndex::of_mark(&format!("{}Xy+/", index.mark())), Some(index));
    }
    assert_eq!(RouterIndex::new(ROUTERS_MAX), None);
    assert_eq!(["", "a", "A0", "é1", "-1"].map(RouterIndex::of_mark), [None; 5]);
}

/// Hears events, levels or notices and passes on what matters of them.
pub(super) struct Probe<T>(UnboundedSender<T>);

impl<T: Send + Unpin + 'static> Actor for Probe<T> {
    type Context = Context<Self>;
}

impl<T: Send + Unpin + 'static> Probe<T> {
    pub fn start() -> (Addr<Self>, UnboundedReceiver<T>)
    where
        Self: Actor<Context = Context<Self>>,
    {
        let (to, from) = unbounded_channel();
        (Actor::start(Self(to)), from)
    }
}

impl Handler<FromRouter> for Probe<Event> {
    type Result = ();

    fn handle(&mut self, message: FromRouter, _ctx: &mut Context<Self>) {
        let _ = self.0.send(message.event);
    }
}

impl Handler<RouterLevels> for Probe<Vec<String>> {
    type Result = ();

    fn handle(&mut self, message: RouterLevels, _ctx: &mut Context<Self>) {
        let _ = self.0.send(message.levels.iter().map(|level| level.participant.to_string()).collect());
    }
}

impl Handler<RouterEnded> for Probe<RouterEnded> {
    type Result = ();

    fn handle(&mut self, message: RouterEnded, _ctx: &mut Context<Self>) {
        let _ = self.0.send(message);
    }
}

pub(super) fn levels() -> (Addr<Probe<Vec<String>>>, UnboundedReceiver<Vec<String>>) {
    Probe::start()
}

/// A parent that the test keeps alive by leaking nothing: its own context holds it.
fn parent() -> (WeakRecipient<RouterEnded>, UnboundedReceiver<RouterEnded>) {
    let (to, from) = unbounded_channel();
    let addr = Probe::create(|ctx| {
        ctx.spawn(actix::fut::wrap_future(std::future::pending()));
        Probe(to)
    });
    (addr.recipient().downgrade(), from)
}

fn router(gso: Offload) -> (MediaRouterHandle<Echo>, UnboundedReceiver<RouterEnded>) {
    let (parent, notices) = parent();
    let build = |_, _: &[SocketAddr]| Echo { echo: true, ..Echo::default() };
    (start(&settings(gso), index(7), parent, build).unwrap(), notices)
}

fn settings(gso: Offload) -> RouterSettings {
    let (reach, letters) = (Arc::default(), Arc::default());
    RouterSettings { bind: vec![Ipv4Addr::LOCALHOST.into()], udp_port: 0, gso, gro: Offload::On, reach, letters }
}

fn index(number: u16) -> RouterIndex {
    RouterIndex::new(number).unwrap()
}

fn open_command(peer: PeerId, participant: &str) -> Command {
    Command::Open {
        peer,
        participant: participant.into(),
        target: Target::Publisher,
        ice: IceCredentials { ufrag: "07ab".into(), pwd: "secret".into() },
        options: PeerOptions::default(),
    }
}

fn open(
    router: &MediaRouterHandle<Echo>,
    peer: PeerId,
    participant: &str,
    events: &Addr<Probe<Event>>,
    levels: &Addr<Probe<Vec<String>>>,
) {
    router.addr.do_send(Open {
        command: open_command(peer, participant),
        events: events.downgrade().recipient(),
        levels: levels.downgrade().recipient(),
    });
}

async fn client(router: &MediaRouterHandle<Echo>) -> tokio::net::UdpSocket {
    let client = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    client.connect(router.local[0]).await.unwrap();
    client
}

async fn next(client: &tokio::net::UdpSocket) -> Vec<u8> {
    let mut bytes = [0; 2_048];
    let read =
        tokio::time::timeout(Duration::from_secs(5), client.recv(&mut bytes)).await.expect("a datagram").unwrap();
    bytes[..read].to_vec()
}

/// The path of a client of these tests.
pub(super) fn udp_path(port: u16) -> Path {
    Path { protocol: Protocol::Udp, remote: (Ipv4Addr::LOCALHOST, port).into() }
}
