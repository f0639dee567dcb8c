//! Turns against sockets and cores that do as they are told.

use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    sync::atomic::{AtomicU32, Ordering},
    task::{Wake, Waker},
};

use super::{
    super::{
        RouterIndex,
        socket::{Deliver, RECEIVE_BATCH},
        tests::{Echo, udp_path},
    },
    *,
};

#[tokio::test]
async fn a_flood_ends_the_turn_at_its_limit_and_the_next_follows_at_once() {
    let mut world = World::new();
    world.socket.borrow_mut().inbound = usize::MAX;
    world.turn();
    assert_eq!(world.socket.borrow().receives, BATCHES_PER_TURN);
    assert_eq!(world.core.outbound.len(), 0, "what came in was answered in the same turn");
    assert_eq!(world.socket.borrow().sent.len(), BATCHES_PER_TURN * RECEIVE_BATCH);
    assert_eq!(world.wakes(), 1);
}

#[tokio::test]
async fn a_dry_turn_sleeps() {
    let mut world = World::new();
    world.socket.borrow_mut().inbound = RECEIVE_BATCH;
    world.turn();
    assert_eq!(world.socket.borrow().sent.len(), RECEIVE_BATCH);
    assert_eq!(world.wakes(), 0);
}

#[tokio::test]
async fn a_turn_that_sent_its_limit_is_followed_by_one_that_sends_before_it_reads() {
    let mut world = World::new();
    world.queue(TRANSMITS_PER_TURN + 10);
    world.turn();
    assert_eq!(world.socket.borrow().sent.len(), TRANSMITS_PER_TURN);
    assert_eq!(world.wakes(), 1);
    world.socket.borrow_mut().inbound = 1;
    let receives = world.socket.borrow().receives;
    world.turn();
    assert_eq!(world.socket.borrow().sent.len(), TRANSMITS_PER_TURN + 10);
    assert_eq!(world.socket.borrow().receives, receives, "nothing was read while behind");
    assert!(!world.pump.behind);
    world.turn();
    assert_eq!(world.socket.borrow().inbound, 0);
}

#[tokio::test]
async fn what_a_full_socket_does_not_take_waits_in_the_core_in_order() {
    let mut world = World::new();
    world.queue(200);
    world.socket.borrow_mut().room = 70;
    world.turn();
    assert_eq!((world.socket.borrow().sent.len(), world.core.outbound.len()), (70, 130));
    assert_eq!(world.wakes(), 0, "the timer wakes the task, not the pump");
    world.socket.borrow_mut().room = usize::MAX;
    world.turn();
    assert_eq!(world.socket.borrow().sent, (0..200u16).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn what_is_full_is_tried_again_after_a_pause() {
    let mut world = World::new();
    world.queue(2);
    let start = tokio::time::Instant::now();
    let mut turns = 0;
    world.socket.borrow_mut().room = 1;
    world
        .run_until(|world| {
            turns += 1;
            world.socket.borrow_mut().room = 1;
            world.core.outbound.is_empty()
        })
        .await;
    assert_eq!(turns, 2);
    assert!((1..=3).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_core_is_woken_at_its_deadline() {
    let mut world = World::new();
    let start = tokio::time::Instant::now();
    world.core.deadline = Some(((start + Duration::from_millis(50)).into_std(), Deadline::Pacing));
    world.run_until(|world| world.core.timeouts == 1).await;
    assert!((50..=52).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_can_wait_is_done_with_the_next_packet_or_a_little_late() {
    let mut world = World::new();
    let start = tokio::time::Instant::now();
    let due = start + Duration::from_millis(50);
    world.core.deadline = Some((due.into_std(), Deadline::Allocation));
    world.turn();
    tokio::time::advance(Duration::from_millis(51)).await;
    assert_eq!((world.wakes(), world.core.timeouts), (0, 0), "the timer waits for a packet");
    world.socket.borrow_mut().inbound = 1;
    world.turn();
    assert_eq!(world.core.timeouts, 1, "the packet's turn does it");
    let due = tokio::time::Instant::now() + Duration::from_millis(50);
    world.core.deadline = Some((due.into_std(), Deadline::Allocation));
    world.run_until(|world| world.core.timeouts == 2).await;
    assert!((5..=7).contains(&due.elapsed().as_millis()), "without a packet too: {:?}", due.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_moved_nearer_is_met_and_one_that_moved_away_is_not_missed() {
    let mut world = World::new();
    let start = tokio::time::Instant::now();
    for millis in [500, 20, 300] {
        world.core.deadline = Some(((start + Duration::from_millis(millis)).into_std(), Deadline::Pacing));
        world.turn();
    }
    world.run_until(|world| world.core.timeouts == 1).await;
    assert!((300..=302).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_stays_overdue_does_not_spin() {
    let mut world = World::new();
    let start = tokio::time::Instant::now();
    world.pump.turn_with_overdue_core(&world.waker(), start.into_std());
    assert_eq!(world.wakes(), 0);
}

#[tokio::test]
async fn events_beyond_the_limit_wait_for_the_next_turn() {
    let mut world = World::new();
    let event = || Event::Accepted { peer: plenary_model::PeerId(1) };
    world.core.events.extend((0..=EVENTS_PER_TURN).map(|_| event()));
    world.turn();
    assert_eq!((world.core.events.len(), world.wakes()), (1, 1));
    world.turn();
    assert_eq!((world.core.events.len(), world.wakes()), (0, 1));
}

#[tokio::test]
async fn a_family_without_a_socket_loses_its_datagrams_and_no_others() {
    let mut world = World::new();
    let v6 = Path { protocol: Protocol::Udp, remote: "[::1]:9".parse().unwrap() };
    world.core.outbound.extend([(v6, vec![0, 9], None), (udp_path(9), vec![0, 1], None), (v6, vec![0, 9], None)]);
    world.turn();
    assert_eq!(world.socket.borrow().sent, [1]);
    assert_eq!(world.pump.counters.lost(IoLoss::NoSocket), 2);
}

struct World {
    core: Echo,
    socket: Rc<RefCell<Script>>,
    pump: Pump<Scripted>,
    tcp: TcpPaths,
    routes: Routes,
    tapes: Tapes,
    woken: Arc<Wakes>,
}

impl World {
    fn new() -> Self {
        let counters = Arc::new(IoCounters::default());
        let socket = Rc::new(RefCell::new(Script { room: usize::MAX, ..Script::default() }));
        let sockets = Sockets { v4: Some(Scripted(Rc::clone(&socket))), v6: None };
        Self {
            core: Echo { echo: true, ..Echo::default() },
            socket,
            pump: Pump::new(sockets, Arc::clone(&counters)),
            tcp: TcpPaths::new(Arc::clone(&counters)),
            routes: Routes::new(RouterIndex::new(0).unwrap(), Default::default(), counters),
            tapes: Tapes::default(),
            woken: Arc::default(),
        }
    }

    /// Numbered datagrams, ready to go.
    fn queue(&mut self, count: usize) {
        let payload = |n: usize| (udp_path(9), (n as u16).to_be_bytes().to_vec(), None);
        self.core.outbound = (0..count).map(payload).collect::<VecDeque<_>>();
    }

    fn turn(&mut self) {
        let waker = self.waker();
        self.turn_in(&mut Context::from_waker(&waker));
    }

    fn turn_in(&mut self, cx: &mut Context<'_>) {
        let now = tokio::time::Instant::now().into_std();
        self.pump.turn(cx, now, &mut self.core, &mut self.tcp, &mut self.routes, &mut self.tapes);
    }

    /// Turns whenever the runtime wakes the task, as in the actor.
    async fn run_until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let all = std::future::poll_fn(|cx| {
            self.turn_in(cx);
            if done(self) { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("done within a virtual minute");
    }

    fn waker(&self) -> Waker {
        Arc::clone(&self.woken).into()
    }

    fn wakes(&self) -> u32 {
        self.woken.0.load(Ordering::Relaxed)
    }
}

impl Pump<Scripted> {
    /// One arming with a deadline that has passed, long after which the timer must still be the only waker.
    fn turn_with_overdue_core(&mut self, waker: &Waker, now: Instant) {
        let mut cx = Context::from_waker(waker);
        let past = now.checked_sub(Duration::from_millis(5)).unwrap_or(now);
        for _ in 0..10 {
            assert!(!self.timer.arm(&mut cx, now, Some(past)), "due at once, again and again");
        }
    }
}

#[derive(Default)]
struct Wakes(AtomicU32);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the socket shall do, and did.
#[derive(Default)]
struct Script {
    /// Datagrams still to come in.
    inbound: usize,
    receives: usize,
    /// Transmits it will take.
    room: usize,
    sent: Vec<u16>,
}

struct Scripted(Rc<RefCell<Script>>);

impl DatagramSocket for Scripted {
    fn poll_receive(&mut self, _cx: &mut Context<'_>, present: Moment, deliver: &mut Deliver<'_>) -> Poll<usize> {
        let mut script = self.0.borrow_mut();
        let datagrams = script.inbound.min(RECEIVE_BATCH);
        if datagrams == 0 {
            return Poll::Pending;
        }
        script.receives += 1;
        script.inbound -= datagrams;
        (0..datagrams).for_each(|_| deliver(udp_path(9).remote, present.monotonic, &mut [0, 0]));
        Poll::Ready(datagrams)
    }

    fn send(&mut self, batch: &[Transmit<'_>]) -> usize {
        let mut script = self.0.borrow_mut();
        let taken = batch.len().min(script.room);
        script.room -= taken;
        let number = |transmit: &Transmit<'_>| u16::from_be_bytes([transmit.bytes[0], transmit.bytes[1]]);
        script.sent.extend(batch[..taken].iter().map(number));
        taken
    }
}
