//! The packet loop of a media thread: one future of the actor that reads batches, feeds the core, sends what it gives
//! back, hands out its events and re-arms one timer.
//!
//! HOT: runs for every packet. In the steady state nothing here allocates, logs, locks, reads a clock twice in a turn,
//! sends a message per packet, or loops without a bound. Events may allocate: they are rare next to packets.
//!
//! It decides nothing about media. actix polls it whenever the actor was woken, after the mailbox is empty; so commands
//! need no wake-up of their own, and what they changed is sent in the same poll.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use actix::fut::ActorFuture;
use plenary_media_core::{Deadline, Event, Input, Path, Protocol, Router, Sink, Tapped, Transmit};
use tokio::time::Sleep;

use super::{
    DeathNotice, MediaRouter,
    arrival::Moment,
    counters::{IoCounters, IoLoss},
    routes::Routes,
    socket::DatagramSocket,
    tapes::Tapes,
    tcp::TcpPaths,
};

/// The media engine as the pump sees it: [`Router`], and doubles in tests.
pub trait Core: Unpin + 'static {
    type Counters: Send + Sync + 'static;

    fn handle(&mut self, now: Instant, input: Input<'_>);
    fn handle_timeout(&mut self, now: Instant);
    fn next_deadline(&self) -> Option<(Instant, Deadline)>;
    fn poll_event(&mut self) -> Option<Event>;
    fn poll_tapped(&mut self) -> Option<Tapped>;
    /// Hands ready transmits to `sink` in batches until it takes less than a batch; the rest stays queued.
    fn transmit(&mut self, sink: &mut dyn Sink);
    fn counters(&self) -> Arc<Self::Counters>;
}

impl Core for Router {
    type Counters = plenary_media_core::Counters;

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        Router::handle(self, now, input);
    }

    fn handle_timeout(&mut self, now: Instant) {
        Router::handle_timeout(self, now);
    }

    fn next_deadline(&self) -> Option<(Instant, Deadline)> {
        Router::next_deadline(self)
    }

    fn poll_event(&mut self) -> Option<Event> {
        Router::poll_event(self)
    }

    fn poll_tapped(&mut self) -> Option<Tapped> {
        Router::poll_tapped(self)
    }

    fn transmit(&mut self, sink: &mut dyn Sink) {
        Router::transmit(self, sink);
    }

    fn counters(&self) -> Arc<Self::Counters> {
        Router::counters(self)
    }
}

/// The sockets of one media thread and what is due on them.
#[derive(Debug)]
pub(super) struct Pump<S> {
    sockets: Sockets<S>,
    timer: Timer,
    /// The last turn could not send everything it was allowed to: send before reading more.
    behind: bool,
    counters: Arc<IoCounters>,
}

/// One socket per address family, either of which may be absent.
#[derive(Debug)]
pub(super) struct Sockets<S> {
    pub v4: Option<S>,
    pub v6: Option<S>,
}

impl<S: DatagramSocket> Pump<S> {
    /// On the runtime of the media thread.
    pub fn new(sockets: Sockets<S>, counters: Arc<IoCounters>) -> Self {
        Self { sockets, timer: Timer::new(), behind: false, counters }
    }

    /// One turn. Wakes the task at once if a limit ended it, otherwise the sockets and the timer do.
    pub fn turn<C: Core>(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        core: &mut C,
        tcp: &mut TcpPaths,
        routes: &mut Routes,
        tapes: &mut Tapes,
    ) {
        let mut more = false;
        if !self.behind {
            more |= self.receive(cx, now, core);
            tcp.receive(cx, now, &mut |input| core.handle(now, input));
        }
        core.handle_timeout(now);
        let egress = self.transmit(core, tcp);
        tapes.hand_over(now, core);
        self.behind = egress == Egress::Behind;
        more |= self.behind;
        more |= dispatch(now, core, routes);
        let retry = (egress == Egress::NoRoom).then(|| now + SEND_RETRY);
        let deadline = core.next_deadline().map(|(at, why)| at + leeway(why));
        more |= self.timer.arm(cx, now, [deadline, retry].into_iter().flatten().min());
        if more {
            cx.waker().wake_by_ref();
        }
    }

    /// Whether a limit ended it.
    fn receive<C: Core>(&mut self, cx: &mut Context<'_>, now: Instant, core: &mut C) -> bool {
        let mut more = false;
        // The turn began just now, so this is the same moment. What comes while it lasts counts as present.
        let present = Moment { monotonic: now, wall: SystemTime::now() };
        let mut deliver = |remote, received, bytes: &mut [u8]| {
            core.handle(now, Input::Datagram { path: Path { protocol: Protocol::Udp, remote }, received, bytes });
        };
        for socket in [&mut self.sockets.v4, &mut self.sockets.v6].into_iter().flatten() {
            more |= (0..BATCHES_PER_TURN).all(|_| socket.poll_receive(cx, present, &mut deliver).is_ready());
        }
        more
    }

    fn transmit<C: Core>(&mut self, core: &mut C, tcp: &mut TcpPaths) -> Egress {
        let mut exit = Exit {
            sockets: &mut self.sockets,
            tcp,
            counters: &self.counters,
            budget: TRANSMITS_PER_TURN,
            egress: Egress::Dry,
        };
        core.transmit(&mut exit);
        exit.egress
    }
}

/// The pump as the actor's future. Fields are dropped in order: the parent hears of the end when the sockets are closed.
#[derive(Debug)]
pub(super) struct PumpTask<S> {
    pub pump: Pump<S>,
    pub _notice: DeathNotice,
}

impl<C: Core, S: DatagramSocket> ActorFuture<MediaRouter<C>> for PumpTask<S> {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        router: &mut MediaRouter<C>,
        _ctx: &mut actix::Context<MediaRouter<C>>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        // tokio's clock, because the timer runs on it and tests may pause it. The one reading of this turn.
        let now = tokio::time::Instant::now().into_std();
        let MediaRouter { core, tcp, routes, tapes, .. } = router;
        self.get_mut().pump.turn(cx, now, core, tcp, routes, tapes);
        Poll::Pending
    }
}

/// How long a deadline may wait for a packet, in whose turn it costs no wake of its own. The core names its earliest deadline
/// alone, so one that cannot wait and comes right after one that can is late by no more than this.
fn leeway(why: Deadline) -> Duration {
    match why {
        Deadline::Nack | Deadline::Probe | Deadline::Pacing | Deadline::Link => Duration::ZERO,
        Deadline::Dtls
        | Deadline::Sctp
        | Deadline::Ice
        | Deadline::Feedback
        | Deadline::Reports
        | Deadline::Levels
        | Deadline::Allocation => LEEWAY,
    }
}

/// Whether a limit ended it, or the core has new work.
fn dispatch<C: Core>(now: Instant, core: &mut C, routes: &mut Routes) -> bool {
    let mut more = false;
    for _ in 0..EVENTS_PER_TURN {
        let Some(event) = core.poll_event() else { return more };
        if let Some(command) = routes.dispatch(event) {
            core.handle(now, Input::Command(command));
            more = true;
        }
    }
    true
}

/// How sending ended in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Egress {
    /// The core has nothing more.
    Dry,
    /// The turn's limit.
    Behind,
    /// A socket or an interface is full, and the timer wakes us.
    NoRoom,
}

/// The core's sink: sorts transmits to the socket of their family or to their connection, keeping their order.
struct Exit<'a, S> {
    sockets: &'a mut Sockets<S>,
    tcp: &'a mut TcpPaths,
    counters: &'a IoCounters,
    budget: usize,
    egress: Egress,
}

impl<S: DatagramSocket> Sink for Exit<'_, S> {
    fn send(&mut self, batch: &[Transmit<'_>]) -> usize {
        let mut taken = 0;
        while let Some(first) = batch.get(taken) {
            if self.budget == 0 {
                self.egress = Egress::Behind;
            }
            if self.egress != Egress::Dry {
                return taken;
            }
            let rest = batch.get(taken..).unwrap_or_default();
            let kind = exit_of(first.path);
            let run = rest.iter().take(self.budget).take_while(|transmit| exit_of(transmit.path) == kind).count();
            let run = rest.get(..run).unwrap_or_default();
            let sent = match kind {
                ExitKind::V4 => self.send_udp(run, |sockets| &mut sockets.v4),
                ExitKind::V6 => self.send_udp(run, |sockets| &mut sockets.v6),
                ExitKind::Tcp => self.send_tcp(run),
            };
            self.budget -= sent;
            taken += sent;
        }
        taken
    }
}

impl<S: DatagramSocket> Exit<'_, S> {
    fn send_udp(&mut self, run: &[Transmit<'_>], socket: impl Fn(&mut Sockets<S>) -> &mut Option<S>) -> usize {
        let Some(socket) = socket(self.sockets) else {
            run.iter().for_each(|_| self.counters.lose(IoLoss::NoSocket));
            return run.len();
        };
        let taken = socket.send(run);
        if taken < run.len() {
            self.egress = Egress::NoRoom;
        }
        taken.min(run.len())
    }

    fn send_tcp(&mut self, run: &[Transmit<'_>]) -> usize {
        for transmit in run {
            self.tcp.send(transmit.path.remote, transmit.bytes, transmit.segment_bytes);
        }
        run.len()
    }
}

#[derive(PartialEq, Eq)]
enum ExitKind {
    V4,
    V6,
    Tcp,
}

fn exit_of(path: Path) -> ExitKind {
    match (path.protocol, path.remote) {
        (Protocol::Tcp, _) => ExitKind::Tcp,
        (Protocol::Udp, SocketAddr::V4(_)) => ExitKind::V4,
        (Protocol::Udp, SocketAddr::V6(_)) => ExitKind::V6,
    }
}

/// The one timer. Left alone while it is due no later than asked: an early turn is cheaper than moving a timer per packet.
#[derive(Debug)]
struct Timer {
    sleep: Pin<Box<Sleep>>,
    armed: Option<Instant>,
}

impl Timer {
    fn new() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), armed: None }
    }

    /// Whether it is due already.
    fn arm(&mut self, cx: &mut Context<'_>, now: Instant, deadline: Option<Instant>) -> bool {
        if self.armed.is_some_and(|armed| armed <= now) {
            self.armed = None;
        }
        if let Some(deadline) = deadline
            && self.armed.is_none_or(|armed| deadline < armed)
        {
            // What is still due after `handle_timeout` must not become a loop without a pause.
            let at = deadline.max(now + TIMER_GRAIN);
            if self.armed != Some(at) {
                self.sleep.as_mut().reset(at.into());
                self.armed = Some(at);
            }
        }
        if self.armed.is_none() || self.sleep.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.armed = None;
        true
    }
}

/// Receiving calls per socket and turn.
const BATCHES_PER_TURN: usize = 4;
/// Transmits per turn: some milliseconds of sending. Beyond it the next turn sends before it reads.
const TRANSMITS_PER_TURN: usize = 4_096;
/// Events per turn; the rest waits in the core for the next turn, which follows at once.
const EVENTS_PER_TURN: usize = 256;
/// tokio's timer has this resolution.
const TIMER_GRAIN: Duration = Duration::from_millis(1);
/// Their intervals are 50 ms and more. With twenty subscribers of one video it saves every third wake by a timer alone.
const LEEWAY: Duration = Duration::from_millis(5);
/// How long what is full is left alone, if no packet comes in before.
const SEND_RETRY: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests;
