//! Everybody in an experiment on one thread, which wakes up every millisecond like that of the capacity sheet.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpStream},
    thread::{self, sleep},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, bail};
use livekit_protocol::{UpdateParticipantMetadata, signal_request::Message as Request};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use plenary_protocol::token::{Claims, Keys, Minter, VideoGrant};
use plenary_testkit::{Random, light::Identity};

use super::{
    person::{Person, Seen, Way},
    processes::{KEY, SECRET},
    site::Site,
};
use crate::{
    bot::{Outlet, realtime_ns},
    datagrams::{Datagrams, Inbox, Network, SOCKETS, socket_of},
    reception::Totals,
};

pub const ROOM: &str = "experiment";

/// For how long people heard nothing of each other.
pub struct Silences {
    pub sorted_ms: Vec<f64>,
    /// For how long our own thread was away: a silence up to this may be ours.
    pub own_ms: f64,
}

pub struct People {
    pub all: Vec<Person>,
    /// Where they join.
    pub server: SocketAddr,
    network: Network,
    identity: Identity,
    pub random: Random,
    minter: Minter,
    epoll: Epoll,
    watched: Vec<Option<TcpStream>>,
    sockets: [Datagrams; SOCKETS],
    inbox: Inbox,
    /// Decides which packets are opened.
    totals: Totals,
    /// Whose session each number is.
    sessions: Vec<usize>,
    /// The longest turn: silences up to this long may be ours.
    pub longest_turn: Duration,
    turned: Instant,
}

impl People {
    pub fn new(site: Site, server: SocketAddr, seed: u64) -> Result<Self> {
        Ok(Self {
            all: Vec::new(),
            server,
            network: site.clients(),
            identity: Identity::generate(),
            random: Random::seeded(seed),
            minter: minter()?,
            epoll: Epoll::new(EpollCreateFlags::empty())?,
            watched: Vec::new(),
            sockets: Datagrams::several(site.clients())?,
            inbox: Inbox::new(),
            totals: Totals::default(),
            sessions: Vec::new(),
            longest_turn: Duration::ZERO,
            turned: Instant::now(),
        })
    }

    /// Begins the joins of so many people, all with a microphone, of whom each hears the next few.
    pub fn invite(&mut self, people: usize) -> Result<()> {
        let name = |at: usize| format!("p{at:02}");
        let first = self.all.len();
        for at in first..first + people {
            let hears = (1..=HEARS.min(people - 1)).map(|by| name(first + (at - first + by) % people));
            self.add(name(at), hears.collect())?;
            self.run_for(JOIN_EVERY)?;
        }
        Ok(())
    }

    /// Begins the join of one who listens to these.
    pub fn add(&mut self, identity: String, hears: Vec<String>) -> Result<()> {
        let token = self.token(&identity, ROOM)?;
        self.all.push(Person::new(identity, token, hears.into_iter()));
        self.watched.push(None);
        Ok(())
    }

    /// Whether everybody is there and hears whom they listen to.
    pub fn all_hear(&self) -> bool {
        self.all.iter().all(|one| one.is_here() && one.ears.values().all(|ear| ear.since_ns > 0))
    }

    /// Whether everybody who is there is shown the same: those who are there, with their sessions and what they said last.
    pub fn agree(&self) -> bool {
        self.disagreement().is_none()
    }

    pub fn disagreement(&self) -> Option<String> {
        let here = || self.all.iter().filter(|one| one.is_here());
        let sids: BTreeMap<_, _> = here().map(|one| (&one.identity, &one.sid)).collect();
        let reference = here().next()?;
        for one in here() {
            let told: BTreeMap<_, _> = one.view.iter().map(|(who, seen)| (who, &seen.sid)).collect();
            let others: BTreeMap<_, _> = sids.iter().map(|(who, sid)| (*who, *sid)).collect();
            if let Some(wrong) = others.iter().find(|(who, sid)| **who != &one.identity && told.get(*who) != Some(*sid))
            {
                return Some(format!("{} does not know the session of {}", one.identity, wrong.0));
            }
            if let Some(ghost) = told.keys().find(|who| !others.contains_key(**who)) {
                return Some(format!("{} sees {ghost}, who is not there", one.identity));
            }
            let said = |view: &BTreeMap<String, Seen>, who: &String| view.get(who).map(|seen| seen.metadata.clone());
            let differs = |who: &&&String| {
                let (here, there) = (said(&one.view, who), said(&reference.view, who));
                here.is_some() && there.is_some() && here != there
            };
            if let Some(who) = told.keys().find(differs) {
                return Some(format!("{} and {} know different things of {who}", one.identity, reference.identity));
            }
        }
        None
    }

    /// Whether everybody else who is there knows this of somebody.
    pub fn know(&self, who: &str, metadata: &str) -> bool {
        let others = self.all.iter().filter(|one| one.is_here() && one.identity != who);
        others.map(|one| one.view.get(who)).all(|seen| seen.is_some_and(|seen| seen.metadata == metadata))
    }

    /// People by the node that hosts them, as their sids say.
    pub fn on(&self, mark: &str) -> Vec<usize> {
        let is_on = |one: &Person| one.is_here() && one.sid.get(MARK) == Some(mark);
        self.all.iter().enumerate().filter(|(_, one)| is_on(one)).map(|(at, _)| at).collect()
    }

    pub fn mark(&mut self) {
        self.all.iter_mut().for_each(Person::mark);
        self.longest_turn = Duration::ZERO;
    }

    /// The longest silences since the mark, those that last included, ms, where the listener and the speaker fit.
    pub fn silences_ms(&self, counts: impl Fn(&Person, &str) -> bool) -> Silences {
        let now_ns = realtime_ns();
        let mut all = Vec::new();
        for one in &self.all {
            let ears = one.ears.iter().filter(|(speaker, _)| counts(one, speaker));
            all.extend(ears.map(|(_, ear)| ear.longest_ns.max(now_ns - ear.last_ns) as f64 / 1e6));
        }
        all.sort_unstable_by(f64::total_cmp);
        Silences { sorted_ms: all, own_ms: self.longest_turn.as_secs_f64() * 1_000.0 }
    }

    /// When somebody was back: the first packet sent by and to them, in the session they have now.
    pub fn back_ns(&self, who: usize) -> Option<i64> {
        let person = self.all.get(who)?;
        let to = person.hears_since_ns()?;
        let ears = self.all.iter().filter_map(|one| one.ears.get(&person.identity));
        let by = ears.filter(|ear| ear.sid == person.sid && ear.since_ns > 0).map(|ear| ear.since_ns).min()?;
        Some(to.max(by))
    }

    /// Has somebody who is there say something of themselves.
    pub fn say(&mut self, who: usize, metadata: &str) {
        let Some(person) = self.all.get_mut(who).filter(|one| one.is_here()) else { return };
        let metadata = metadata.to_owned();
        let update = UpdateParticipantMetadata { metadata, request_id: 1, ..UpdateParticipantMetadata::default() };
        if let Some(bot) = &mut person.bot {
            // A socket that is lost is heard of by reading it.
            let _ = bot.say(Request::UpdateMetadata(update));
        }
    }

    /// Joins and full reconnects so far, of everybody.
    pub fn joins(&self) -> Vec<usize> {
        self.all.iter().map(|one| one.joins).collect()
    }

    pub fn run_for(&mut self, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            self.turn()?;
        }
        Ok(())
    }

    /// Goes on while something else is done that takes time.
    pub fn meanwhile<T: Send>(&mut self, job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let job = scope.spawn(job);
            while !job.is_finished() {
                self.turn()?;
            }
            job.join().unwrap_or_else(|_| bail!("it panicked"))
        })
    }

    /// How long it took until this held; `None` if it did not within that time.
    pub fn run_until(&mut self, within: Duration, holds: impl Fn(&Self) -> bool) -> Result<Option<Duration>> {
        let begun = Instant::now();
        while !holds(self) {
            if begun.elapsed() > within {
                return Ok(None);
            }
            // Looking is not free either.
            self.run_for(LOOK_EVERY)?;
        }
        Ok(Some(begun.elapsed()))
    }

    /// For a room; as good on a clock that is an hour off.
    pub fn token(&self, identity: &str, room: &str) -> Result<String> {
        mint(&self.minter, Some(identity), room)
    }

    /// For calls of the room API and the egress API.
    pub fn admin_token(&self) -> Result<String> {
        mint(&self.minter, None, ROOM)
    }

    fn turn(&mut self) -> Result<()> {
        let now = Instant::now();
        self.longest_turn = self.longest_turn.max(now - self.turned);
        self.turned = now;
        let mut events = [EpollEvent::empty(); 64];
        let ready = self.epoll.wait(&mut events, EpollTimeout::ZERO)?;
        for event in events.iter().take(ready) {
            let at = event.data() as usize;
            let (Some(person), Some(watched)) = (self.all.get_mut(at), self.watched.get_mut(at)) else { continue };
            if !person.read(now, &self.identity, &mut self.random) {
                *watched = None;
            }
        }
        let mut nacks = 0;
        for socket in &self.sockets {
            for _ in 0..MESSAGES_PER_TURN {
                let Some(arrival) = socket.receive(&mut self.inbox)? else { break };
                let Some((number, leg)) = self.network.owner(arrival.to) else { continue };
                let Some(person) = self.sessions.get(number).and_then(|at| self.all.get_mut(*at)) else { continue };
                // What still comes for a session before this one says nothing.
                let Some(mut bot) = person.bot.take_if(|_| person.number == number) else { continue };
                let mut arrived = |ssrc, at_ns| person.arrived(ssrc, at_ns);
                let outlet = Outlet { socket, totals: &mut self.totals, nacks: &mut nacks, arrived: &mut arrived };
                let received = bot.receive(now, leg, &arrival, outlet);
                person.bot = Some(bot);
                person.delays_us.append(&mut self.totals.delays_us);
                if let Err(error) = received {
                    person.lose(now, &mut self.random, &format!("{error:#}"));
                }
            }
        }
        for at in 0..self.all.len() {
            self.tend(now, at)?;
        }
        sleep(TICK.saturating_sub(now.elapsed()));
        Ok(())
    }

    /// What is due for one person.
    fn tend(&mut self, now: Instant, at: usize) -> Result<()> {
        let (Some(person), Some(watched)) = (self.all.get_mut(at), self.watched.get_mut(at)) else { return Ok(()) };
        let number = self.sessions.len();
        let mut way = Way { server: self.server, network: self.network, random: &mut self.random, number };
        if let Some(connection) = person.act(now, &mut way) {
            self.epoll.add(&connection, EpollEvent::new(EpollFlags::EPOLLIN, at as u64))?;
            *watched = Some(connection);
        }
        if person.number == number && person.bot.is_some() {
            self.sessions.push(at);
        }
        let sockets = [0, 1].map(|leg| &self.sockets[socket_of(person.number, leg)]);
        let Some(bot) = &mut person.bot else { return Ok(()) };
        if let Err(error) = bot.handle_timeout(now, sockets, true) {
            *watched = None;
            person.lose(now, &mut self.random, &format!("{error:#}"));
        }
        Ok(())
    }
}

fn minter() -> Result<Minter> {
    let mut keys = Keys::new();
    keys.add(KEY, SECRET.into())?;
    Ok(Minter::new(&keys))
}

fn mint(minter: &Minter, identity: Option<&str>, room: &str) -> Result<String> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let video = VideoGrant {
        room_join: identity.is_some(),
        room_admin: identity.is_none(),
        room_create: identity.is_none(),
        room_list: identity.is_none(),
        room_record: identity.is_none(),
        room: room.to_owned(),
        can_update_own_metadata: Some(true),
        ..VideoGrant::default()
    };
    let claims = Claims {
        issuer: KEY.to_owned(),
        subject: identity.map(Into::into),
        expires_at: Some(now_s + 6 * 3_600),
        video,
        ..Claims::default()
    };
    Ok(minter.mint(&claims)?)
}

/// A session's id says which node hosts it.
pub const MARK: std::ops::Range<usize> = 3..15;
/// As many as are needed to hear of every node, and few enough for this thread.
const HEARS: usize = 4;
const JOIN_EVERY: Duration = Duration::from_millis(20);
const LOOK_EVERY: Duration = Duration::from_millis(5);
const TICK: Duration = Duration::from_millis(1);
const MESSAGES_PER_TURN: usize = 4_096;
