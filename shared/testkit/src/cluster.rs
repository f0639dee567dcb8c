//! Several routers with clients on each, and the network between them, in virtual time.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use plenary_media_core::{Command, Crossing, LinkConfig, Neighbour, RouterId};
use plenary_model::TrackSid;

use crate::{
    ClientId, Conditions, Network, World,
    network::{Datagram, Direction},
    world::{RESOLUTION, start},
};

/// See the module. Tracks and participants have names of their own all over it.
#[derive(Debug)]
pub struct Cluster {
    pub now: Instant,
    pub worlds: Vec<World>,
    pub network: Network,
    /// What the routers sent each other: when, from, to, and what.
    pub history: Vec<(Instant, usize, usize, Vec<u8>)>,
    ids: Vec<RouterId>,
    /// Ways that carry nothing.
    cut: Vec<(usize, usize)>,
}

impl Cluster {
    /// So many routers, each of a node of its own, which know each other.
    pub fn seeded(seed: u64, routers: usize) -> Self {
        Self::capped(seed, routers, 0)
    }

    /// The same, with a limit for what goes from one to another; 0 is none.
    pub fn capped(seed: u64, routers: usize, bits_per_second_max: u64) -> Self {
        let members = (0..routers).map(|at| (format!("ND_{at}"), 0, b"a secret of the whole cluster".to_vec()));
        Self::with(seed, &members.collect::<Vec<_>>(), bits_per_second_max)
    }

    /// Routers by their node, their number there, and the cluster's key as they know it.
    pub fn of(seed: u64, members: &[(String, u16, Vec<u8>)]) -> Self {
        Self::with(seed, members, 0)
    }

    fn with(seed: u64, members: &[(String, u16, Vec<u8>)], bits_per_second_max: u64) -> Self {
        let now = start();
        let id =
            |(node, index, _): &(String, u16, Vec<u8>)| RouterId { node: node.as_str().into(), boot: 7, index: *index };
        let ids: Vec<_> = members.iter().map(id).collect();
        let world = |(at, (_, _, key)): (usize, &(String, u16, Vec<u8>))| {
            let link = LinkConfig { me: ids[at].clone(), keys: vec![key.clone()], bits_per_second_max };
            World::linked(now, seed.wrapping_add(at as u64), &format!("{at}_"), link)
        };
        let worlds = members.iter().enumerate().map(world).collect();
        let mut cluster =
            Self { now, worlds, network: Network::seeded(seed), history: Vec::new(), ids, cut: Vec::new() };
        cluster.network.set_everywhere(Conditions { delay: Duration::from_millis(5), ..Conditions::default() });
        for at in 0..members.len() {
            let others: Vec<_> = (0..members.len()).filter(|other| *other != at).collect();
            cluster.set_neighbours(at, &others);
        }
        cluster
    }

    pub fn set_neighbours(&mut self, at: usize, others: &[usize]) {
        let neighbour = |other: &usize| Neighbour { id: self.ids[*other].clone(), addresses: vec![address(*other)] };
        let routers = others.iter().map(neighbour).collect();
        self.worlds[at].command(Command::SetNeighbours { routers });
        self.collect();
    }

    pub fn id(&self, at: usize) -> RouterId {
        self.ids[at].clone()
    }

    pub fn join(&mut self, at: usize, name: &str) -> ClientId {
        let id = self.worlds[at].join_connected(name);
        self.catch_up();
        id
    }

    /// Adds tracks that are published at the router `from` to what a client of the router `at` receives.
    pub fn subscribe(&mut self, at: usize, id: ClientId, from: usize, tracks: &[TrackSid]) {
        let router = (at != from).then(|| self.ids[from].clone());
        let wanted = tracks.iter().map(|track| self.worlds[from].wanted(track, router.clone())).collect();
        self.worlds[at].subscribe_to(id, wanted);
        self.collect();
    }

    /// Nothing gets from one router to the other any more.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.push((from, to));
    }

    /// Nor back.
    pub fn part(&mut self, one: usize, other: usize) {
        self.cut(one, other);
        self.cut(other, one);
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// What a router sends to others: to whom, of which track, and bit n for its nth stream.
    pub fn sent(&self, at: usize) -> Vec<(usize, TrackSid, u8)> {
        self.crossings(self.worlds[at].router.sent_to_routers())
    }

    /// What a router wants of others, likewise.
    pub fn wanted(&self, at: usize) -> Vec<(usize, TrackSid, u8)> {
        self.crossings(self.worlds[at].router.wanted_of_routers())
    }

    fn crossings(&self, crossings: Vec<Crossing>) -> Vec<(usize, TrackSid, u8)> {
        let at = |id: &RouterId| self.ids.iter().position(|one| one == id);
        let each = crossings.into_iter().filter_map(|one| Some((at(&one.router)?, one.track, one.streams)));
        each.collect()
    }

    /// What happens to datagrams from one router to another.
    pub fn set(&mut self, from: usize, to: usize, conditions: Conditions) {
        self.network.set(way(from, to), Direction::Up, conditions);
    }

    /// Hands a router a datagram, as if it came from another.
    pub fn inject(&mut self, from: SocketAddr, to: usize, bytes: Vec<u8>) {
        self.worlds[to].inject(from, bytes);
        self.collect();
    }

    /// Where a router is for the others.
    pub fn address(at: usize) -> SocketAddr {
        address(at)
    }

    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.step(end);
        }
    }

    pub fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) {
        let end = self.now + limit;
        while !done(self) {
            let stories: String = self.worlds.iter().map(World::story).collect();
            assert!(self.now < end, "not within {limit:?}; {stories}");
            self.step(end);
        }
    }

    fn step(&mut self, end: Instant) {
        let deadlines = self.worlds.iter().filter_map(World::next_deadline);
        let next = deadlines.chain(self.network.next_arrival()).min().unwrap_or(end);
        self.now = next.max(self.now + RESOLUTION).min(end.max(self.now + RESOLUTION));
        while let Some(Datagram { client, bytes, .. }) = self.network.receive(self.now) {
            let (from, to) = ends(client);
            self.worlds[to].now = self.now;
            self.worlds[to].inject(address(from), bytes);
        }
        for world in &mut self.worlds {
            world.advance(self.now);
        }
        self.collect();
    }

    /// Sends on what the routers have for each other.
    fn collect(&mut self) {
        for from in 0..self.worlds.len() {
            for (to, bytes) in std::mem::take(&mut self.worlds[from].to_routers) {
                let Some(to) = (0..self.worlds.len()).find(|at| address(*at) == to) else { continue };
                self.history.push((self.now, from, to, bytes.clone()));
                if !self.cut.contains(&(from, to)) {
                    self.network.send(self.now, Datagram { direction: Direction::Up, client: way(from, to), bytes });
                }
            }
        }
    }

    /// One world went ahead by itself: the others follow.
    fn catch_up(&mut self) {
        let latest = self.worlds.iter().map(|world| world.now).max().unwrap_or(self.now);
        self.run_for(latest - self.now);
    }
}

fn address(at: usize) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, at as u8], 7882))
}

pub(crate) fn is_router(address: SocketAddr) -> bool {
    matches!(address, SocketAddr::V4(v4) if v4.ip().octets()[..3] == [198, 51, 100])
}

/// The network knows one end of a way: this one names both.
fn way(from: usize, to: usize) -> SocketAddr {
    SocketAddr::from(([203, 0, from as u8, to as u8], 1))
}

fn ends(way: SocketAddr) -> (usize, usize) {
    match way {
        SocketAddr::V4(v4) => (v4.ip().octets()[2].into(), v4.ip().octets()[3].into()),
        SocketAddr::V6(_) => (0, 0),
    }
}
