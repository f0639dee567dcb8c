//! What fails, when, and for how long: drawn from the seed. Each simulation has its own selection of kinds.

use std::{
    fmt,
    time::{Duration, Instant},
};

use plenary_cluster::Stored;
use plenary_testkit::Random;

use crate::world::{Event, World};

/// What a simulation is made of.
#[derive(Debug)]
pub struct Plan {
    pub nodes: usize,
    pub people: usize,
    pub rooms: usize,
    /// 0 means no limit.
    pub cap: u32,
    pub faulty_for: Duration,
    /// How wrong the nodes' clocks are.
    pub skews_s: Vec<i64>,
    /// Calls to Redis get lost, or take effect when nobody waits for them any more.
    pub calls_stick: bool,
    pub bus_is_slow: bool,
    kinds: Vec<Kind>,
    pause_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Crash,
    Sleep,
    /// One node loses Redis.
    Cut,
    /// One node loses what is on its way to it.
    Disconnect,
    /// All nodes lose Redis, which comes back as it was.
    Outage,
    /// It comes back empty.
    WipedOutage,
    /// It is emptied without a broken connection.
    Wipe,
    /// It comes back as it was some time before.
    StaleFailover,
}

#[derive(Debug)]
pub enum Fault {
    Next,
    Start(usize),
    Wake(usize, u64),
    Uncut(usize),
    Copy,
    FailOver,
    Back,
}

/// How often things happened.
#[derive(Debug, Default, Clone, Copy)]
pub struct Totals {
    pub crashes: usize,
    pub sleeps: usize,
    pub cuts: usize,
    pub disconnects: usize,
    pub outages: usize,
    pub wipes: usize,
    pub failovers: usize,
    pub lapsed: usize,
    pub reaped: usize,
    pub lost_answers: usize,
    pub kicked: usize,
    pub banned: usize,
    pub lifted: usize,
    pub bans_put_back: usize,
    pub deleted: usize,
}

impl Plan {
    pub fn drawn(random: &mut Random) -> Self {
        let mut below = |end: u64| usize::try_from(random.below(end)).unwrap_or_default();
        let (nodes, people, rooms) = (2 + below(3), 3 + below(5), 1 + below(2));
        let cap = u32::try_from(below(6)).unwrap_or_default();
        let cap = if cap < 2 { 0 } else { cap };
        let faulty_for = Duration::from_secs(15 + below(30) as u64);
        let skews_s = [0, 0, 0, 3_600, -3_600];
        let skews_s = vec![skews_s[below(5)], 0, 0, 0];
        let pause_ms = 1_500 + below(5_000) as u64;
        let all = [
            Kind::Crash,
            Kind::Sleep,
            Kind::Cut,
            Kind::Disconnect,
            Kind::Outage,
            Kind::WipedOutage,
            Kind::Wipe,
            Kind::StaleFailover,
        ];
        let kinds = all.into_iter().filter(|_| random.chance(0.4)).collect();
        let (calls_stick, bus_is_slow) = (random.chance(0.4), random.chance(0.3));
        Self { nodes, people, rooms, cap, faulty_for, skews_s, calls_stick, bus_is_slow, kinds, pause_ms }
    }
}

impl World {
    pub fn plan_faults(&mut self) {
        self.at(self.now + Duration::from_secs(3), Event::Fault(Fault::Next));
    }

    pub fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Next if self.is_quiet || self.plan.kinds.is_empty() => {}
            Fault::Next => {
                self.after_up_to(2 * self.plan.pause_ms, Event::Fault(Fault::Next));
                let kind = self.random.below(self.plan.kinds.len() as u64);
                let kind = self.plan.kinds[usize::try_from(kind).unwrap_or_default()];
                let at = usize::try_from(self.random.below(self.nodes.len() as u64)).unwrap_or_default();
                self.begin(kind, at);
            }
            Fault::Start(at) if !self.nodes[at].is_up => self.boot(at),
            Fault::Wake(at, boot) if self.nodes[at].boot == boot => self.wake(at),
            Fault::Uncut(at) => {
                self.nodes[at].is_cut = false;
                self.tell(|| format!("node {at} can reach Redis"));
            }
            Fault::Copy => self.redis.copy = Some(self.redis.store.stored()),
            Fault::FailOver => self.fail_over(),
            Fault::Back => {
                (self.redis.is_down, self.redis.sound_since) = (false, self.now);
                self.tell(|| "Redis is back".to_owned());
            }
            Fault::Start(_) | Fault::Wake(..) => {}
        }
    }

    fn begin(&mut self, kind: Kind, at: usize) {
        self.tell(|| format!("fault: {kind:?}, node {at}"));
        let ms = self.duration_ms();
        match kind {
            Kind::Crash if self.nodes[at].is_up => self.crash(at),
            Kind::Sleep if self.nodes[at].is_up && self.nodes[at].asleep_until.is_none() => self.sleep(at, ms),
            Kind::Cut if !self.nodes[at].is_cut => {
                self.totals.cuts += 1;
                (self.nodes[at].is_cut, self.nodes[at].sound_since) = (true, None);
                self.disconnect(at);
                self.after(ms, Event::Fault(Fault::Uncut(at)));
            }
            Kind::Disconnect => self.disconnect(at),
            Kind::Outage => self.lose_redis(ms),
            Kind::WipedOutage if !self.redis.is_down => {
                self.lose_redis(ms);
                self.wipe();
            }
            Kind::Wipe if !self.redis.is_down => self.wipe(),
            Kind::StaleFailover => {
                self.strike(Fault::Copy);
                let behind = self.random.below(4_000);
                self.after(behind, Event::Fault(Fault::FailOver));
            }
            Kind::Crash | Kind::Sleep | Kind::Cut | Kind::WipedOutage | Kind::Wipe => {}
        }
    }

    /// Mostly a moment, sometimes longer than a lease, seldom longer than everybody's patience.
    fn duration_ms(&mut self) -> u64 {
        match self.random.below(4) {
            0 => self.random.below(500),
            1 | 2 => 500 + self.random.below(5_000),
            _ => 5_000 + self.random.below(15_000),
        }
    }

    fn crash(&mut self, at: usize) {
        self.totals.crashes += 1;
        let life = self.life(at);
        let node = &mut self.nodes[at];
        (node.is_up, node.asleep_until, node.sound_since, node.is_connected) = (false, None, None, false);
        let refused: Vec<_> = node.hosts.values().flat_map(|hosted| hosted.waiting_people()).collect();
        node.hosts.clear();
        node.open.clear();
        refused.into_iter().for_each(|(person, attempt)| self.refused(person, attempt, None));
        self.cut_off(life);
        self.remember_bans();
        let start = 500 + self.random.below(8_000);
        self.after(start, Event::Fault(Fault::Start(at)));
    }

    fn sleep(&mut self, at: usize, ms: u64) {
        self.totals.sleeps += 1;
        let (life, wakes) = (self.life(at), self.now + Duration::from_millis(ms));
        (self.nodes[at].asleep_until, self.nodes[at].sound_since) = (Some(wakes), None);
        if ms > 3_000 {
            self.give_up(life, wakes);
        }
        if self.random.chance(0.3) {
            // Redis has thrown it out meanwhile.
            self.disconnect(at);
        }
        self.at(wakes, Event::Fault(Fault::Wake(at, life.boot)));
    }

    fn wake(&mut self, at: usize) {
        self.nodes[at].asleep_until = None;
        self.nodes[at].sound_since = self.nodes[at].is_connected.then_some(self.now);
        self.tell(|| format!("node {at} wakes"));
    }

    fn lose_redis(&mut self, ms: u64) {
        if !std::mem::replace(&mut self.redis.is_down, true) {
            self.totals.outages += 1;
            self.redis.sound_since = self.now + NEVER;
            (0..self.nodes.len()).for_each(|at| self.disconnect(at));
            self.after(ms, Event::Fault(Fault::Back));
        }
    }

    fn wipe(&mut self) {
        self.totals.wipes += 1;
        self.roll_back(&Stored::default());
        if !self.redis.is_down {
            self.redis.sound_since = self.now;
        }
    }

    fn fail_over(&mut self) {
        let Some(copy) = self.redis.copy.take().filter(|_| !self.redis.is_down) else { return };
        self.totals.failovers += 1;
        let ms = 200 + self.random.below(3_000);
        self.lose_redis(ms);
        self.roll_back(&copy);
    }

    fn roll_back(&mut self, to: &Stored) {
        self.tell(|| "Redis loses what it had".to_owned());
        let unix_ms = self.unix_ms();
        self.redis.store.roll_back(to, unix_ms);
        self.watched.rolled_back();
        self.remember_bans();
    }

    /// Everything works again, and nobody does anything but come back.
    pub fn heal(&mut self) {
        self.tell(|| "quiet".to_owned());
        self.is_quiet = true;
        self.redis.copy = None;
        if self.redis.is_down {
            self.strike(Fault::Back);
        }
        for at in 0..self.nodes.len() {
            if self.nodes[at].is_cut {
                self.strike(Fault::Uncut(at));
            }
            if let Some(wakes) = self.nodes[at].asleep_until {
                // What waits for it waits until then; it is at most twenty seconds.
                self.run_until(wakes);
                self.wake(at);
            }
            if !self.nodes[at].is_up {
                self.boot(at);
            }
        }
    }

    /// Whether nothing was wrong with the node and with Redis since then.
    pub fn was_sound(&self, at: usize, since: Instant) -> bool {
        let node = &self.nodes[at];
        node.sound_since.is_some_and(|sound| sound <= since) && self.redis.sound_since <= since
    }
}

impl Totals {
    pub fn add(&mut self, mut other: Self) {
        for (sum, one) in self.all_mut().into_iter().zip(other.all_mut()) {
            *sum += *one;
        }
    }

    /// Everything has happened.
    pub fn is_full(mut self) -> bool {
        self.all_mut().into_iter().all(|count| *count > 0)
    }

    fn all_mut(&mut self) -> [&mut usize; 15] {
        [
            &mut self.crashes,
            &mut self.sleeps,
            &mut self.cuts,
            &mut self.disconnects,
            &mut self.outages,
            &mut self.wipes,
            &mut self.failovers,
            &mut self.lapsed,
            &mut self.reaped,
            &mut self.lost_answers,
            &mut self.kicked,
            &mut self.banned,
            &mut self.lifted,
            &mut self.bans_put_back,
            &mut self.deleted,
        ]
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Longer than any simulation.
const NEVER: Duration = Duration::from_secs(1_000_000);
