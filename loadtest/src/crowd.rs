//! All the people of a measurement on one thread. It wakes up every millisecond instead of with every packet: waking a
//! receiver is work that the server would pay for here and not over a network. The kernel's timestamps keep delays exact.

use std::{
    net::TcpStream,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use plenary_model::MediaKind;
use plenary_testkit::light::Identity;

use crate::{
    bot::{Bot, Join, Outlet},
    datagrams::{Datagrams, Inbox, Network, SOCKETS, socket_of},
    reception::Totals,
    server::Server,
};

pub struct Crowd<'s> {
    server: &'s Server,
    identity: Identity,
    pub bots: Vec<Bot>,
    watched: Vec<TcpStream>,
    epoll: Epoll,
    sockets: [Datagrams; SOCKETS],
    overflowed: [u32; SOCKETS],
    inbox: Inbox,
    pub totals: Totals,
    /// Media packets sent, and how often the server asked for some again.
    pub sent: u64,
    pub nacks: u64,
    /// Whether publishers send yet.
    pub media: bool,
}

impl<'s> Crowd<'s> {
    pub fn new(server: &'s Server) -> Result<Self> {
        Ok(Self {
            server,
            identity: Identity::generate(),
            bots: Vec::new(),
            watched: Vec::new(),
            epoll: Epoll::new(EpollCreateFlags::empty())?,
            sockets: Datagrams::several(NETWORK)?,
            overflowed: [0; SOCKETS],
            inbox: Inbox::new(),
            totals: Totals::default(),
            sent: 0,
            nacks: 0,
            media: true,
        })
    }

    /// Begins one person's join.
    pub fn join(&mut self, room: &str, kinds: &[MediaKind], auto_subscribe: bool) -> Result<()> {
        let number = self.bots.len();
        let token = self.server.token(room, &format!("person{number}"))?;
        let join = Join { token: &token, kinds, auto_subscribe };
        let addresses = NETWORK.addresses(number);
        let (bot, watched) = Bot::join(Instant::now(), self.server.http, number, addresses, join)?;
        self.epoll.add(&watched, EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
        self.watched.push(watched);
        self.bots.push(bot);
        Ok(())
    }

    pub fn run_for(&mut self, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            self.turn()?;
        }
        Ok(())
    }

    /// Until something holds of everybody, but not for ever.
    pub fn run_until(&mut self, what: &str, holds: impl Fn(&Bot) -> bool) -> Result<()> {
        let patience = Instant::now() + PATIENCE;
        while !self.bots.iter().all(&holds) {
            if Instant::now() > patience {
                let missing = self.bots.iter().filter(|bot| !holds(bot)).count();
                bail!("{missing} of {} people are not {what} after {PATIENCE:?}", self.bots.len());
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Packets that never came to anybody.
    pub fn lost(&self) -> u64 {
        self.bots.iter().map(|bot| bot.reception.lost()).sum()
    }

    /// Datagrams that we were too slow for.
    pub fn overflowed(&self) -> u64 {
        self.overflowed.iter().copied().map(u64::from).sum()
    }

    fn turn(&mut self) -> Result<()> {
        let now = Instant::now();
        let mut events = [EpollEvent::empty(); 64];
        let ready = self.epoll.wait(&mut events, EpollTimeout::ZERO)?;
        for event in events.iter().take(ready) {
            let number = event.data() as usize;
            let bot = self.bots.get_mut(number).context("a known bot")?;
            bot.read_signal(now, &self.identity, |_| {}).with_context(|| format!("person {number}"))?;
        }
        for (socket, overflowed) in self.sockets.iter().zip(&mut self.overflowed) {
            for _ in 0..MESSAGES_PER_TURN {
                let Some(arrival) = socket.receive(&mut self.inbox)? else { break };
                *overflowed = arrival.overflowed;
                let Some((number, leg)) = NETWORK.owner(arrival.to) else { continue };
                let Some(bot) = self.bots.get_mut(number) else { continue };
                let outlet =
                    Outlet { socket, totals: &mut self.totals, nacks: &mut self.nacks, arrived: &mut |_, _| {} };
                bot.receive(now, leg, &arrival, outlet).with_context(|| format!("person {number}"))?;
            }
        }
        for (number, bot) in self.bots.iter_mut().enumerate() {
            let sockets = [0, 1].map(|leg| &self.sockets[socket_of(number, leg)]);
            self.sent += bot.handle_timeout(now, sockets, self.media).with_context(|| format!("person {number}"))?;
        }
        sleep(TICK.saturating_sub(now.elapsed()));
        Ok(())
    }
}

const NETWORK: Network = Network::LOOPBACK;
pub const TICK: Duration = Duration::from_millis(1);
pub const MESSAGES_PER_TURN: usize = 4_096;
const PATIENCE: Duration = Duration::from_secs(20);
