//! The actor of one media thread: it owns the engine of the transports on that thread, their sockets and their packet loop.
//!
//! Messages change tables; packets never cross a mailbox (see `pump`). Handlers translate and call the core. A panic
//! anywhere on the thread's packet path ends this router and no other: its parent hears of it in [`RouterEnded`].

pub mod arrival;
pub mod counters;
mod pump;
mod routes;
pub mod socket;
mod tapes;
pub mod tcp;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use actix::{WeakRecipient, prelude::*};
use plenary_media_core::{Command, Input};

use self::{
    counters::IoCounters,
    pump::{Pump, PumpTask, Sockets},
    routes::Routes,
    socket::{Offload, UdpSocket},
    tapes::Tapes,
    tcp::{Adopt, TcpPaths},
};
pub use self::{
    pump::Core,
    routes::{FromRouter, RouterLevels},
    tapes::{Record, StopRecord},
};
use crate::{
    heartbeat::{BEAT_INTERVAL, Heartbeat},
    letters::Letters,
    reach::Reach,
};

/// One per media thread, alone on its arbiter.
#[derive(Debug)]
pub struct MediaRouter<C: Core> {
    core: C,
    heartbeat: Heartbeat,
    tcp: TcpPaths,
    routes: Routes,
    tapes: Tapes,
}

/// A command about an open peer or a track. From sessions and rooms, in order. They use `try_send` on the one address
/// they keep; when the box is full the session ends, as its client then rejoins elsewhere or later.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Tell(pub Command);

/// A new transport. From its session; when the box is full the join fails.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Open {
    /// [`Command::Open`]; anything else is ignored.
    pub command: Command,
    /// Hears the peer's events until [`Event::Closed`](plenary_media_core::Event::Closed).
    pub events: WeakRecipient<FromRouter>,
    /// Hears how loud the participant is, together with the others of the same recipient.
    pub levels: WeakRecipient<RouterLevels>,
}

/// End the router and its thread. From the node, after its sessions are gone: transports are not told.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Stop;

/// The death notice. To the parent, who decides whether to start another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct RouterEnded {
    pub index: RouterIndex,
    /// By a panic, as opposed to [`Stop`].
    pub crashed: bool,
}

/// How a router listens.
#[derive(Debug, Clone)]
pub struct RouterSettings {
    /// Addresses to bind, at most one per family.
    pub bind: Vec<IpAddr>,
    /// Zero lets the system choose.
    pub udp_port: u16,
    pub gso: Offload,
    pub gro: Offload,
    /// Hears what other nodes say of themselves.
    pub reach: Arc<Reach>,
    /// Hears what other nodes say of rooms.
    pub letters: Arc<Letters>,
}

/// What a node keeps of a router it started.
pub struct MediaRouterHandle<C: Core> {
    pub addr: Addr<MediaRouter<C>>,
    pub index: RouterIndex,
    /// Bound addresses, in the order asked for.
    pub local: Vec<SocketAddr>,
    pub counters: Arc<C::Counters>,
    pub io: Arc<IoCounters>,
}

impl<C: Core> fmt::Debug for MediaRouterHandle<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MediaRouterHandle")
            .field("index", &self.index)
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

/// Starts a router on a thread of its own and returns when it runs. `build` makes the core, on that thread, and is given
/// the time and the bound addresses. Needs a running actix system. Errors name what could not be bound.
pub fn start<C: Core>(
    settings: &RouterSettings,
    index: RouterIndex,
    parent: WeakRecipient<RouterEnded>,
    build: impl FnOnce(Instant, &[SocketAddr]) -> C + Send + 'static,
) -> io::Result<MediaRouterHandle<C>> {
    let io = Arc::new(IoCounters::default());
    let bound = settings.bind.iter().map(|ip| socket::bind(*ip, settings.udp_port)).collect::<io::Result<Vec<_>>>()?;
    let local = bound.iter().map(std::net::UdpSocket::local_addr).collect::<io::Result<Vec<_>>>()?;
    let arbiter = Arbiter::try_new()?;
    let thread = arbiter.handle();
    let (gso, gro, counters, addresses) = (settings.gso, settings.gro, Arc::clone(&io), local.clone());
    let (reach, letters) = (Arc::clone(&settings.reach), Arc::clone(&settings.letters));
    let (started, wait) = mpsc::sync_channel(1);
    arbiter.spawn_fn(move || {
        let built = Sockets::register(bound, gso, gro, &counters).map(|sockets| {
            let core = build(tokio::time::Instant::now().into_std(), &addresses);
            let core_counters = core.counters();
            // Only now: whoever hears of a failed start from its result need not hear of it twice.
            let notice = DeathNotice { index, parent, thread };
            (MediaRouter::run(core, sockets, counters, (reach, letters), notice), core_counters)
        });
        // Who waits below may have given up; then it has stopped the arbiter too, and the router ends with it.
        let _ = started.send(built);
    });
    let built = wait.recv_timeout(START_WITHIN).unwrap_or_else(|_| Err(io::Error::other("media thread did not start")));
    match built {
        Ok((addr, counters)) => Ok(MediaRouterHandle { addr, index, local, counters, io }),
        Err(err) => {
            arbiter.stop();
            Err(err)
        }
    }
}

impl Sockets<UdpSocket> {
    fn register(
        bound: Vec<std::net::UdpSocket>,
        gso: Offload,
        gro: Offload,
        counters: &Arc<IoCounters>,
    ) -> io::Result<Self> {
        let mut sockets = Self { v4: None, v6: None };
        for socket in bound {
            let slot = if socket.local_addr()?.is_ipv4() { &mut sockets.v4 } else { &mut sockets.v6 };
            if slot.is_some() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "two media addresses of one family"));
            }
            *slot = Some(UdpSocket::new(socket, gso, gro, Arc::clone(counters))?);
        }
        Ok(sockets)
    }
}

impl<C: Core> MediaRouter<C> {
    fn run<S: socket::DatagramSocket>(
        core: C,
        sockets: Sockets<S>,
        io: Arc<IoCounters>,
        cluster: (Arc<Reach>, Arc<Letters>),
        notice: DeathNotice,
    ) -> Addr<Self> {
        Self::create(|ctx| {
            ctx.set_mailbox_capacity(MAILBOX_MESSAGES);
            let routes = Routes::new(notice.index, cluster, Arc::clone(&io));
            ctx.spawn(PumpTask { pump: Pump::new(sockets, Arc::clone(&io)), _notice: notice });
            ctx.run_interval(BEAT_INTERVAL, |router, _| router.heartbeat.beat(Instant::now()));
            let heartbeat = Heartbeat::start("media thread", Instant::now());
            Self { core, heartbeat, tcp: TcpPaths::new(Arc::clone(&io)), routes, tapes: Tapes::default() }
        })
    }

    fn command(&mut self, command: Command) {
        self.core.handle(tokio::time::Instant::now().into_std(), Input::Command(command));
    }
}

impl<C: Core> Actor for MediaRouter<C> {
    type Context = Context<Self>;
}

/// Tells the parent when it is dropped, and ends the thread. It lies behind the sockets and not in `stopped()`, which
/// runs while they are still open: a parent that starts another router at once must find the port free.
#[derive(Debug)]
struct DeathNotice {
    index: RouterIndex,
    parent: WeakRecipient<RouterEnded>,
    thread: ArbiterHandle,
}

impl Drop for DeathNotice {
    fn drop(&mut self) {
        // Runs during unwinding too: nothing here may panic.
        if let Some(parent) = self.parent.upgrade() {
            parent.do_send(RouterEnded { index: self.index, crashed: std::thread::panicking() });
        }
        self.thread.stop();
    }
}

impl<C: Core> Handler<Tell> for MediaRouter<C> {
    type Result = ();

    fn handle(&mut self, Tell(command): Tell, _ctx: &mut Context<Self>) {
        match &command {
            // It would make a peer that nobody hears.
            Command::Open { .. } => return,
            Command::Want { peer, tracks } => {
                let elsewhere = tracks.iter().filter(|one| one.from.is_some());
                self.routes.want(*peer, elsewhere.map(|one| one.publisher.clone()).collect());
            }
            _ => {}
        }
        self.command(command);
    }
}

impl<C: Core> Handler<Open> for MediaRouter<C> {
    type Result = ();

    fn handle(&mut self, Open { command, events, levels }: Open, _ctx: &mut Context<Self>) {
        if let Command::Open { peer, participant, .. } = &command
            && self.routes.open(*peer, participant.clone(), events, levels)
        {
            self.command(command);
        }
    }
}

impl<C: Core> Handler<Adopt> for MediaRouter<C> {
    type Result = ();

    fn handle(&mut self, connection: Adopt, _ctx: &mut Context<Self>) {
        self.tcp.adopt(connection);
    }
}

impl<C: Core> Handler<Stop> for MediaRouter<C> {
    type Result = ();

    fn handle(&mut self, Stop: Stop, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

/// Which router of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouterIndex(u16);

impl RouterIndex {
    /// `None` beyond what two characters can say.
    pub fn new(index: u16) -> Option<Self> {
        (index < ROUTERS_MAX).then_some(Self(index))
    }

    /// The index in lower-case base 36: two characters at the head of every ufrag, by which the TCP door finds the router,
    /// and within every participant's sid.
    pub fn mark(self) -> String {
        [self.0 / 36, self.0 % 36].into_iter().filter_map(|digit| char::from_digit(u32::from(digit), 36)).collect()
    }

    /// The router whose mark a text begins with.
    pub fn of_mark(text: &str) -> Option<Self> {
        let digit = |byte: &u8| match byte {
            b'0'..=b'9' => Some(u16::from(byte - b'0')),
            b'a'..=b'z' => Some(u16::from(byte - b'a') + 10),
            _ => None,
        };
        let ([high, low], _) = text.as_bytes().split_first_chunk()?;
        Some(Self(digit(high)? * 36 + digit(low)?))
    }
}

impl From<RouterIndex> for usize {
    fn from(index: RouterIndex) -> Self {
        index.0.into()
    }
}

/// Two base-36 characters.
const ROUTERS_MAX: u16 = 36 * 36;
/// Commands waiting for the router from one kept address, beyond which `try_send` refuses. A full room's joins and track
/// changes within one turn fit.
const MAILBOX_MESSAGES: usize = 1_024;
/// A thread that has not started by then will not.
const START_WITHIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
