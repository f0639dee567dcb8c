//! What we rely on in actix, pinned. A failure here after an update of actix means: read its change, then the design.

use std::{
    future::pending,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    task::{self, Poll, Waker},
    time::Duration,
};

use actix::{dev::SendError, fut, prelude::*};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Writes down what happens to it, in order.
struct Diary {
    log: UnboundedSender<String>,
    capacity: usize,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Note(&'static str);

#[derive(Message)]
#[rtype(result = "()")]
enum Do {
    Panic,
    Stop,
    /// Spawn a future that panics when it is polled.
    SpawnPanic,
    /// Spawn a future that writes down each poll.
    SpawnWatcher(&'static str),
}

impl Diary {
    fn write(&self, line: impl Into<String>) {
        let _ = self.log.send(line.into());
    }
}

impl Actor for Diary {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(self.capacity);
    }

    fn stopped(&mut self, _ctx: &mut Context<Self>) {
        self.write(if std::thread::panicking() { "stopped by a panic" } else { "stopped" });
    }
}

impl Handler<Note> for Diary {
    type Result = ();

    fn handle(&mut self, Note(text): Note, _ctx: &mut Context<Self>) {
        self.write(text);
    }
}

impl Handler<Do> for Diary {
    type Result = ();

    fn handle(&mut self, what: Do, ctx: &mut Context<Self>) {
        match what {
            Do::Panic => panic!("told to"),
            Do::Stop => ctx.stop(),
            Do::SpawnPanic => {
                ctx.spawn(fut::wrap_future(async { panic!("told to") }));
            }
            Do::SpawnWatcher(name) => {
                ctx.spawn(OnPoll(move |diary: &mut Diary, _: &Waker| diary.write(name)));
            }
        }
    }
}

/// A future that never ends and does this each time it is polled.
struct OnPoll<F>(F);

impl<F: FnMut(&mut Diary, &Waker) + Unpin> fut::ActorFuture<Diary> for OnPoll<F> {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        diary: &mut Diary,
        _ctx: &mut Context<Diary>,
        task: &mut task::Context<'_>,
    ) -> Poll<()> {
        (self.0)(diary, task.waker());
        Poll::Pending
    }
}

const CAPACITY: usize = 4;

/// On the arbiter of the test, which does not run while the test does not await.
fn diary() -> (Addr<Diary>, UnboundedReceiver<String>) {
    let (log, lines) = unbounded_channel();
    (Diary { log, capacity: CAPACITY }.start(), lines)
}

async fn line(lines: &mut UnboundedReceiver<String>) -> String {
    tokio::time::timeout(Duration::from_secs(5), lines.recv()).await.expect("a line").unwrap_or_else(|| "gone".into())
}

fn lines_so_far(lines: &mut UnboundedReceiver<String>) -> Vec<String> {
    std::iter::from_fn(|| lines.try_recv().ok()).collect()
}

/// `try_send` until it refuses.
fn accepted(addr: &Addr<Diary>) -> usize {
    (0..100).take_while(|_| addr.try_send(Note("note")).is_ok()).count()
}

#[actix::test]
async fn try_send_on_a_kept_address_is_bounded() {
    let (addr, _lines) = diary();
    addr.send(Note("started")).await.unwrap();
    assert_eq!(accepted(&addr), CAPACITY);
    assert!(matches!(addr.try_send(Note("over")), Err(SendError::Full(_))));
    addr.send(Note("barrier")).await.unwrap();
    assert_eq!(accepted(&addr), CAPACITY, "an emptied box has room again");
}

#[actix::test]
async fn each_new_sender_has_a_slot_of_its_own_in_a_full_mailbox() {
    let (addr, _lines) = diary();
    addr.send(Note("started")).await.unwrap();
    accepted(&addr);
    let clone = addr.clone();
    assert_eq!(accepted(&clone), 1);
    for _ in 0..50 {
        let upgraded = addr.downgrade().upgrade().unwrap();
        assert_eq!(accepted(&upgraded), 1);
        let recipient = addr.downgrade().recipient::<Note>().upgrade().unwrap();
        assert!(recipient.try_send(Note("note")).is_ok());
        assert!(recipient.try_send(Note("note")).is_err());
    }
    assert!(addr.try_send(Note("over")).is_err());
}

#[actix::test]
async fn do_send_is_not_bounded() {
    let (addr, mut lines) = diary();
    addr.send(Note("started")).await.unwrap();
    (0..1_000).for_each(|_| addr.do_send(Note("note")));
    addr.send(Note("last")).await.unwrap();
    assert_eq!(lines_so_far(&mut lines).len(), 1_002);
}

#[actix::test]
async fn the_capacity_set_in_create_counts_from_the_first_message() {
    let (log, _lines) = unbounded_channel();
    let addr = Diary::create(|ctx| {
        ctx.set_mailbox_capacity(100);
        Diary { log, capacity: 100 }
    });
    assert_eq!((0..1_000).take_while(|_| addr.try_send(Note("note")).is_ok()).count(), 100);
}

#[actix::test]
async fn one_sender_is_heard_in_order_of_its_sends() {
    let (addr, mut lines) = diary();
    let texts = ["a", "b", "c"];
    texts.into_iter().for_each(|text| addr.try_send(Note(text)).unwrap());
    // A fresh upgrade is another sender to the bound, but the queue is one.
    let recipient = addr.downgrade().recipient::<Note>();
    texts.into_iter().for_each(|text| recipient.upgrade().unwrap().do_send(Note(text)));
    addr.send(Note("barrier")).await.unwrap();
    assert_eq!(lines_so_far(&mut lines), ["a", "b", "c", "a", "b", "c", "barrier"]);
}

#[actix::test]
async fn a_panic_in_a_handler_ends_the_actor_alone_and_stopped_knows() {
    panics_end_one_actor(Do::Panic).await;
}

#[actix::test]
async fn a_panic_in_a_spawned_future_ends_the_actor_alone_and_stopped_knows() {
    panics_end_one_actor(Do::SpawnPanic).await;
}

async fn panics_end_one_actor(panic: Do) {
    let arbiter = Arbiter::new();
    let start = || {
        let (log, lines) = unbounded_channel();
        (Diary::start_in_arbiter(&arbiter.handle(), |_| Diary { log, capacity: CAPACITY }), lines)
    };
    let ((ends, mut ending), (lives, mut living)) = (start(), start());
    lives.send(Note("before")).await.unwrap();
    // The one who asks for an answer is told that there is none, unless the answer came before the panic.
    let _ = ends.send(panic).await;
    assert_eq!(line(&mut ending).await, "stopped by a panic");
    assert_eq!(line(&mut ending).await, "gone", "the actor is dropped");
    assert!(matches!(ends.send(Note("after")).await, Err(MailboxError::Closed)));
    assert!(matches!(ends.try_send(Note("after")), Err(SendError::Closed(_))));

    // The thread goes on: its other actors, and new ones.
    assert!(arbiter.handle().alive());
    lives.send(Note("after")).await.unwrap();
    assert_eq!([line(&mut living).await, line(&mut living).await], ["before", "after"]);
    let (late, mut lines) = start();
    late.send(Note("late")).await.unwrap();
    assert_eq!(line(&mut lines).await, "late");
}

#[actix::test]
async fn what_spawned_futures_hold_is_dropped_after_stopped_and_knows_of_the_panic() {
    struct Held(UnboundedSender<String>);
    impl Drop for Held {
        fn drop(&mut self) {
            let _ = self.0.send(format!("dropped, panicking {}", std::thread::panicking()));
        }
    }
    for (end, expected) in [
        (Do::Panic, ["stopped by a panic", "dropped, panicking true"]),
        (Do::Stop, ["stopped", "dropped, panicking false"]),
    ] {
        let (log, mut lines) = unbounded_channel();
        let held = Held(log.clone());
        let addr = Diary::create(|ctx| {
            ctx.spawn(OnPoll(move |_: &mut Diary, _: &Waker| {
                let _ = &held;
            }));
            Diary { log, capacity: CAPACITY }
        });
        addr.do_send(end);
        assert_eq!([line(&mut lines).await, line(&mut lines).await], expected);
    }
}

#[actix::test]
async fn an_arbiter_can_be_stopped_from_stopped() {
    struct Last(ArbiterHandle);
    impl Actor for Last {
        type Context = Context<Self>;

        fn started(&mut self, ctx: &mut Context<Self>) {
            ctx.stop();
        }

        fn stopped(&mut self, _ctx: &mut Context<Self>) {
            self.0.stop();
        }
    }
    let arbiter = Arbiter::new();
    let handle = arbiter.handle();
    Last::start_in_arbiter(&arbiter.handle(), move |_| Last(handle));
    let ended = tokio::task::spawn_blocking(|| arbiter.join());
    tokio::time::timeout(Duration::from_secs(5), ended).await.expect("the thread ends").unwrap().unwrap();
}

#[actix::test]
async fn stopping_an_arbiter_drops_its_actors_where_they_stand_but_stopped_runs() {
    let arbiter = Arbiter::new();
    let (log, mut lines) = unbounded_channel();
    let addr = Diary::start_in_arbiter(&arbiter.handle(), |_| Diary { log, capacity: CAPACITY });
    addr.send(Do::SpawnWatcher("polled")).await.unwrap();
    arbiter.stop();
    let mut last = line(&mut lines).await;
    while last == "polled" {
        last = line(&mut lines).await;
    }
    assert_eq!(last, "stopped");
}

#[actix::test]
async fn a_weak_address_does_not_upgrade_after_stop_but_a_weak_recipient_may() {
    let (addr, mut lines) = diary();
    let (weak, recipient) = (addr.downgrade(), addr.downgrade().recipient::<Note>());
    addr.do_send(Do::Stop);
    assert_eq!(line(&mut lines).await, "stopped");
    assert_eq!(line(&mut lines).await, "gone");
    assert!(weak.upgrade().is_none());
    // Somebody still keeps the address: the upgrade succeeds, so whoever upgrades asks `connected` as well.
    assert!(recipient.upgrade().is_some_and(|recipient| !recipient.connected()));
    drop(addr);
    assert!(recipient.upgrade().is_none());
}

#[actix::test]
async fn every_wake_empties_the_mailbox_first_and_then_polls_every_spawned_future() {
    let (addr, mut lines) = diary();
    addr.send(Do::SpawnWatcher("one")).await.unwrap();
    addr.send(Do::SpawnWatcher("two")).await.unwrap();
    addr.send(Note("barrier")).await.unwrap();
    lines_so_far(&mut lines);
    // Neither future asked to be woken; a message is enough.
    addr.do_send(Note("first"));
    addr.do_send(Note("second"));
    let polled = [line(&mut lines).await, line(&mut lines).await, line(&mut lines).await, line(&mut lines).await];
    assert_eq!(polled, ["first", "second", "one", "two"]);
    assert!(lines_so_far(&mut lines).is_empty(), "once per wake");
}

#[actix::test]
async fn a_spawned_future_keeps_an_actor_without_addresses() {
    let (log, mut lines) = unbounded_channel();
    let polls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&polls);
    let waker = Arc::new(Mutex::new(None));
    let shared = Arc::clone(&waker);
    drop(Diary::create(|ctx| {
        ctx.spawn(OnPoll(move |_: &mut Diary, waker: &Waker| {
            counted.fetch_add(1, Ordering::Relaxed);
            *shared.lock().unwrap() = Some(waker.clone());
        }));
        ctx.spawn(fut::wrap_future(pending()));
        Diary { log, capacity: CAPACITY }
    }));
    for expected in 1..5 {
        while polls.load(Ordering::Relaxed) < expected {
            tokio::task::yield_now().await;
        }
        waker.lock().unwrap().take().expect("it was polled").wake();
    }
    assert!(lines_so_far(&mut lines).is_empty(), "it has not stopped");
}

#[actix::test]
async fn after_stop_neither_messages_nor_futures_run() {
    let (addr, mut lines) = diary();
    addr.send(Do::SpawnWatcher("polled")).await.unwrap();
    addr.send(Note("barrier")).await.unwrap();
    lines_so_far(&mut lines);
    addr.do_send(Do::Stop);
    addr.do_send(Note("too late"));
    assert_eq!(line(&mut lines).await, "stopped");
    assert_eq!(line(&mut lines).await, "gone");
}
