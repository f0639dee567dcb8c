//! Real connections on loopback; time is virtual. The paused clock runs ahead only when nothing else can happen.

use std::{cell::Cell, future::poll_fn, net::Ipv4Addr};

use actix::prelude::{Actor, Context as ActixContext, Handler};
use tokio::{
    io::AsyncWriteExt,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::LocalSet,
};

use super::*;

#[test]
fn frames_are_found_however_the_stream_is_cut() {
    let frames: Vec<Vec<u8>> =
        [1, 2, 700, FRAME_BYTES_MAX, 20, 1_200, 3].map(|length| (0..length).map(|n| (n % 64) as u8).collect()).into();
    let stream: Vec<u8> = frames.iter().flat_map(|frame| framed(frame)).collect();
    for seed in 0..64u64 {
        let mut random = seed;
        let (mut buffer, mut found, mut rest) = (FrameBuffer::default(), Vec::new(), &stream[..]);
        while !rest.is_empty() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let most = [1, 3, 100, READ_BUFFER_BYTES][(random >> 62) as usize];
            let space = buffer.space();
            let some = rest.len().min(space.len()).min(1 + (random >> 33) as usize % most);
            space[..some].copy_from_slice(&rest[..some]);
            buffer.filled(some);
            rest = &rest[some..];
            while let Some(frame) = buffer.next().unwrap() {
                found.push(frame.to_vec());
            }
        }
        assert_eq!(found, frames, "seed {seed}");
    }
}

#[test]
fn what_is_no_framing_of_ours_is_garbage() {
    let too_long = u16::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes();
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &too_long, &framed(b"@turn"), &framed(&[255, 1])] {
        assert_eq!(fed(bytes).next(), Err(Garbage), "{bytes:?}");
    }
    assert_eq!(fed(&framed(&[])).next(), Ok(None), "an empty frame says nothing");
    assert_eq!(fed(&[framed(&[]), framed(b"\x00")].concat()).next(), Ok(Some(&[0][..])));
}

#[test]
fn strangers_are_limited_by_address_and_in_all() {
    let mut admission = Admission::default();
    let near = |n: u128| IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | n));
    let mut permits: Vec<_> =
        (0..UNAUTHENTICATED_PER_ADDRESS_MAX).map(|n| admission.admit(near(n as u128)).unwrap()).collect();
    assert_eq!(admission.admit(near(0)).unwrap_err(), IoLoss::TcpTooManyFromAddress);
    permits.pop();
    permits.push(admission.admit(near(0)).unwrap());

    let mut far = 1u128;
    while let Ok(permit) = admission.admit(near(far << 64)) {
        permits.push(permit);
        far += 1;
        assert!(permits.len() <= UNAUTHENTICATED_MAX);
    }
    assert_eq!(permits.len(), UNAUTHENTICATED_MAX);
    assert_eq!(admission.admit(Ipv4Addr::LOCALHOST.into()).unwrap_err(), IoLoss::TcpTooManyUnauthenticated);
    drop(permits);

    let many: Vec<_> = (0..UNAUTHENTICATED_MAX).map(|_| admission.admit(Ipv4Addr::LOCALHOST.into()).unwrap()).collect();
    assert_eq!(many.len(), UNAUTHENTICATED_MAX, "loopback is limited in all only");
}

#[test]
fn addresses_that_left_are_forgotten() {
    let mut admission = Admission::default();
    for n in 0..10 * UNAUTHENTICATED_MAX as u32 {
        admission.admit(Ipv4Addr::from_bits(0x0a00_0000 | n).into()).unwrap();
        assert!(admission.by_address.len() <= UNAUTHENTICATED_MAX + 1);
    }
}

#[actix::test]
async fn a_silent_connection_is_closed_at_the_deadline() {
    tokio::time::pause();
    let door = Door::open();
    let start = Instant::now();
    let mut client = door.connect().await;
    assert_eq!(read_to_end(&mut client).await, b"");
    assert_eq!(start.elapsed().as_secs(), FIRST_FRAME_WITHIN.as_secs());
    assert_eq!(door.counters.lost(IoLoss::TcpSilent), 1);
}

#[actix::test]
async fn a_first_frame_in_pieces_has_the_same_deadline() {
    tokio::time::pause();
    let door = Door::open();
    let start = Instant::now();
    let mut client = door.connect().await;
    for byte in &framed(&check("00ab"))[..4] {
        client.write_all(&[*byte]).await.unwrap();
        tokio::time::sleep(FIRST_FRAME_WITHIN / 5).await;
    }
    assert_eq!(read_to_end(&mut client).await, b"");
    assert_eq!(start.elapsed().as_secs(), FIRST_FRAME_WITHIN.as_secs());
    assert_eq!(door.counters.lost(IoLoss::TcpSilent), 1);
}

#[actix::test]
async fn the_first_frame_leads_to_the_router_it_names() {
    let mut door = Door::open();
    for (ufrag, router) in [("01xyz", 1), ("00xyz", 0)] {
        let mut client = door.connect().await;
        // What follows the first frame belongs to the router, and stays in the stream.
        client.write_all(&[framed(&check(ufrag)), framed(b"\x16more")].concat()).await.unwrap();
        let (at, adopt) = door.adopted.recv().await.unwrap();
        assert_eq!((at, adopt.first), (router, check(ufrag)));
        assert_eq!(adopt.remote, client.local_addr().unwrap());
        let mut rest = TcpStream::from_std(adopt.stream).unwrap();
        let mut bytes = [0; 7];
        rest.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes.as_slice(), framed(b"\x16more"));
    }
}

#[actix::test]
async fn a_first_frame_that_names_no_router_closes() {
    let door = Door::open();
    let cases = [
        (framed(&check("02ab")), IoLoss::TcpUnknownUfrag),
        (framed(&check("?")), IoLoss::TcpUnknownUfrag),
        (framed(b"\x16\xfe\xff"), IoLoss::TcpUnknownUfrag),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), IoLoss::TcpGarbage),
        (framed(b""), IoLoss::TcpGarbage),
    ];
    for (bytes, why) in cases {
        let before = door.counters.lost(why);
        let mut client = door.connect().await;
        client.write_all(&bytes).await.unwrap();
        read_to_end(&mut client).await;
        assert_eq!(door.counters.lost(why), before + 1, "{bytes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn frames_pass_both_ways() {
    local(async {
        let mut world = World::new();
        let (mut client, remote) = world.adopt().await;
        assert_eq!(world.receive(1).await, [Got::Frame(remote, check("00ab"))]);
        client.write_all(&[framed(b"\x80one"), framed(b"\x80two")].concat()).await.unwrap();
        let expected = [b"\x80one", b"\x80two"].map(|frame| Got::Frame(remote, frame.to_vec()));
        assert_eq!(world.receive(2).await, expected);
        world.paths.send(remote, b"\x80answer", None);
        world.paths.send(remote, b"runrunru", Some(3));
        let expected = [framed(b"\x80answer"), framed(b"run"), framed(b"run"), framed(b"ru")].concat();
        let mut bytes = vec![0; expected.len()];
        client.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, expected);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_core_hears_when_a_connection_ends() {
    local(async {
        let mut world = World::new();
        let (client, gone) = world.adopt().await;
        let (mut noisy, garbage) = world.adopt().await;
        world.receive(2).await;
        drop(client);
        assert_eq!(world.receive(1).await, [Got::Closed(gone)]);
        noisy.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(world.receive(1).await, [Got::Closed(garbage)]);
        assert_eq!(world.counters.lost(IoLoss::TcpGarbage), 1);
        assert!(world.paths.connections.is_empty());
        world.paths.send(gone, b"late", None);
        assert_eq!(world.counters.lost(IoLoss::TcpNoConnection), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_read_costs_itself_frames_and_others_nothing() {
    local(async {
        let mut world = World::new();
        let (mut slow, slow_remote) = world.adopt().await;
        let (mut quick, quick_remote) = world.adopt().await;
        world.receive(2).await;
        let frame = vec![7; 1_000];
        for _ in 0..20 {
            // Each burst is as large as the queue: the kernel takes some, the queue the next, the rest is dropped.
            (0..WRITE_QUEUE_BYTES_MAX / 1_000).for_each(|_| world.paths.send(slow_remote, &frame, None));
            world.paths.send(quick_remote, b"on time", None);
            let mut bytes = [0; 9];
            quick.read_exact(&mut bytes).await.unwrap();
            assert_eq!(bytes.as_slice(), framed(b"on time"));
            assert!(world.paths.connections[&slow_remote].outbox.borrow().bytes.len() <= WRITE_QUEUE_BYTES_MAX);
        }
        assert!(world.counters.lost(IoLoss::TcpQueueFull) > 0);

        // What was dropped were whole frames: the stream is still in step.
        let mut buffer = FrameBuffer::default();
        for _ in 0..100 {
            let read = slow.read(buffer.space()).await.unwrap();
            buffer.filled(read);
            while let Ok(Some(read)) = buffer.next() {
                assert_eq!(read, frame);
            }
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_frames_waits_in_the_kernel_and_none_is_lost() {
    local(async {
        let mut world = World::new();
        let (client, remote) = world.adopt().await;
        world.receive(1).await;
        let count = 3 * INBOX_FRAMES_MAX;
        let sent = Rc::new(Cell::new(false));
        let done = Rc::clone(&sent);
        let writer = tokio::task::spawn_local(async move {
            let mut client = client;
            for n in 0..count {
                client.write_all(&framed(&[&[0x80], n.to_be_bytes().as_slice()].concat())).await.unwrap();
            }
            done.set(true);
            client
        });
        // Nobody receives: the inbox fills and stays at its limit.
        while world.paths.inbox.borrow().has_room() || !sent.get() {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.paths.inbox.borrow().entries.len(), INBOX_FRAMES_MAX);
        let frame = |n: usize| Got::Frame(remote, [&[0x80], n.to_be_bytes().as_slice()].concat());
        assert_eq!(world.receive(count).await, (0..count).map(frame).collect::<Vec<_>>());
        writer.await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_the_core_does_not_answer_is_closed_soon() {
    local(async {
        let mut world = World::new();
        let start = Instant::now();
        let (mut client, remote) = world.adopt().await;
        world.receive(1).await;
        // What the client says does not help it.
        client.write_all(&framed(b"\x80hello")).await.unwrap();
        world.receive(1).await;
        assert_eq!(world.receive(1).await, [Got::Closed(remote)]);
        assert_eq!(start.elapsed().as_secs(), FIRST_ANSWER_WITHIN.as_secs());
        assert_eq!(read_to_end(&mut client).await, b"");
        assert_eq!(world.counters.lost(IoLoss::TcpIdle), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_answered_connection_lives_while_the_core_uses_it() {
    local(async {
        let mut world = World::new();
        let (_client, remote) = world.adopt().await;
        world.receive(1).await;
        for _ in 0..20 {
            world.paths.send(remote, b"\x01answer", None);
            tokio::time::sleep(IDLE_MAX / 2).await;
        }
        assert_eq!(world.places_taken(), 0, "it is no stranger any more");
        let last = Instant::now();
        assert_eq!(world.receive(1).await, [Got::Closed(remote)]);
        assert!((IDLE_MAX / 2..=IDLE_MAX * 2).contains(&last.elapsed()), "{:?}", last.elapsed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_router_that_ends_closes_its_connections() {
    local(async {
        let mut world = World::new();
        let (mut client, _) = world.adopt().await;
        assert_eq!(world.places_taken(), 1);
        drop(world.paths);
        assert_eq!(read_to_end(&mut client).await, b"");
    })
    .await;
}

/// The door of a node with two routers, whose connections come out at the test.
struct Door {
    door: TcpDoor,
    adopted: UnboundedReceiver<(usize, Adopt)>,
    counters: Arc<IoCounters>,
    _routers: watch::Sender<Vec<Recipient<Adopt>>>,
}

impl Door {
    fn open() -> Self {
        let (to, adopted) = unbounded_channel();
        let routers = [0, 1].map(|at| Taker(at, to.clone()).start().recipient()).into();
        let (routers, watched) = watch::channel(routers);
        let counters = Arc::new(IoCounters::default());
        let door = TcpDoor::open((Ipv4Addr::LOCALHOST, 0).into(), watched, Arc::clone(&counters)).unwrap();
        Self { door, adopted, counters, _routers: routers }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.door.local).await.unwrap()
    }
}

struct Taker(usize, tokio::sync::mpsc::UnboundedSender<(usize, Adopt)>);

impl Actor for Taker {
    type Context = ActixContext<Self>;
}

impl Handler<Adopt> for Taker {
    type Result = ();

    fn handle(&mut self, adopt: Adopt, _ctx: &mut ActixContext<Self>) {
        let _ = self.1.send((self.0, adopt));
    }
}

/// The connections of one router, without the router.
struct World {
    paths: TcpPaths,
    counters: Arc<IoCounters>,
    admission: Admission,
}

#[derive(Debug, PartialEq, Eq)]
enum Got {
    Frame(SocketAddr, Vec<u8>),
    Closed(SocketAddr),
}

impl World {
    fn new() -> Self {
        let counters = Arc::new(IoCounters::default());
        Self { paths: TcpPaths::new(Arc::clone(&counters)), counters, admission: Admission::default() }
    }

    /// The client's end of a new connection, and its address.
    async fn adopt(&mut self) -> (TcpStream, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, remote) = listener.accept().await.unwrap();
        let permit = self.admission.admit(remote.ip()).unwrap();
        self.paths.adopt(Adopt { stream: stream.into_std().unwrap(), remote, first: check("00ab"), permit });
        (client, remote)
    }

    async fn receive(&mut self, count: usize) -> Vec<Got> {
        let mut got = Vec::new();
        poll_fn(|cx| {
            self.paths.receive(cx, Instant::now().into_std(), &mut |input| {
                got.push(match input {
                    Input::Datagram { path, bytes, .. } => Got::Frame(path.remote, bytes.to_vec()),
                    Input::PathClosed { path } => Got::Closed(path.remote),
                    Input::Command(_) => unreachable!("no connection makes commands"),
                });
            });
            if got.len() < count { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        got
    }

    fn places_taken(&self) -> usize {
        Arc::strong_count(&self.admission.all) - 1
    }
}

async fn local(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

async fn read_to_end(client: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is an end too: the other side closed before it had read everything.
    let _ = client.read_to_end(&mut bytes).await;
    bytes
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&u16::try_from(frame.len()).unwrap().to_be_bytes(), frame].concat()
}

fn fed(bytes: &[u8]) -> FrameBuffer {
    let mut buffer = FrameBuffer::default();
    buffer.space()[..bytes.len()].copy_from_slice(bytes);
    buffer.filled(bytes.len());
    buffer
}

/// A Binding request (RFC 8489 section 5) with nothing but a USERNAME.
fn check(ufrag: &str) -> Vec<u8> {
    let username = format!("{ufrag}:theirs");
    let length = username.len();
    let mut attribute = [&[0, 6], &u16::try_from(length).unwrap().to_be_bytes(), username.as_bytes()].concat();
    attribute.resize(4 + length.next_multiple_of(4), 0);
    let header = [0, 1, 0, attribute.len() as u8, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    [&header, attribute.as_slice()].concat()
}
