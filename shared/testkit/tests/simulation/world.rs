//! What happens when: one queue of events, one clock, one source of chance.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use plenary_cluster::InProcess;
use plenary_model::{BanEntry, NodeId, ParticipantSid, RoomDelta, RoomName};
use plenary_testkit::Random;

use crate::{
    check::Watched,
    faults::{Fault, Plan, Totals},
    node::{HostKey, Node},
    people::Person,
    redis::{Answer, Call, Redis},
};

/// See the crate.
pub struct World {
    pub seed: u64,
    pub now: Instant,
    pub start: Instant,
    pub random: Random,
    pub redis: Redis,
    pub nodes: Vec<Node>,
    pub people: Vec<Person>,
    pub plan: Plan,
    pub watched: Watched,
    pub totals: Totals,
    /// Nothing fails any more, and nobody does anything but come back.
    pub is_quiet: bool,
    events: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
    next_id: u64,
    history: Option<VecDeque<String>>,
    digest: Option<DefaultHasher>,
}

/// A node in one of its lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    pub at: usize,
    pub boot: u64,
}

#[derive(Debug)]
pub enum Event {
    /// A call reaches the store.
    Effect(Call),
    Answer(Life, Answer),
    /// A change reaches a node over this connection.
    Heard {
        life: Life,
        connection: u64,
        room: RoomName,
        delta: Arc<RoomDelta>,
    },
    BanHeard {
        life: Life,
        connection: u64,
        entry: Arc<BanEntry>,
    },
    /// The node's listening connection is tried again.
    Reconnect(Life),
    /// A deadline of a host.
    Wake(Life, HostKey),
    Renew(Life),
    /// The node finds that somebody is gone.
    SessionLost(Life, HostKey, ParticipantSid),
    Joins(Life, usize, u64),
    Act(usize),
    Fault(Fault),
    /// A kicked or banned person is in no undisturbed replica by now.
    CheckGone(Instant, String),
}

impl World {
    pub fn new(seed: u64) -> Self {
        let start = epoch();
        let mut random = Random::seeded(seed);
        let plan = Plan::drawn(&mut random);
        let redis = Redis::new(Arc::new(InProcess::timed(UNIX_MS)), start);
        let mut world = Self {
            seed,
            now: start,
            start,
            random,
            redis,
            nodes: Vec::new(),
            people: Vec::new(),
            plan,
            watched: Watched::default(),
            totals: Totals::default(),
            is_quiet: false,
            events: BTreeMap::new(),
            next_event: 0,
            next_id: 0,
            history: None,
            digest: None,
        };
        for at in 0..world.plan.nodes {
            world.nodes.push(Node::down());
            world.boot(at);
        }
        for at in 0..world.plan.people {
            world.people.push(Person::new(at));
            world.after_up_to(3_000, Event::Act(at));
        }
        world.plan_faults();
        world
    }

    /// Prints what happened if it fails.
    pub fn telling(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.history = Some(VecDeque::new());
        world
    }

    /// Remembers in few bytes all that happens, and when.
    pub fn recording(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.digest = Some(DefaultHasher::new());
        world
    }

    pub fn digest(&self) -> u64 {
        self.digest.as_ref().expect("it was recorded").finish()
    }

    /// Until the faults are over.
    pub fn run_with_faults(&mut self) {
        self.run_until(self.start + self.plan.faulty_for);
    }

    /// Until everything must have settled; ghosts of dead nodes go first.
    pub fn run_quiet(&mut self) {
        let healed = self.now;
        self.run_until(healed + Duration::from_secs(10));
        self.check_ghosts();
        self.run_until(healed + SETTLED_AFTER);
        self.check_agreement();
    }

    pub fn run_until(&mut self, end: Instant) {
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((at, number), event) = entry.remove_entry();
            assert!(number < EVENTS_MAX, "it never comes to rest");
            // What concerns a node that sleeps waits for it to wake, in the same order.
            if let Some(wakes) = self.asleep_until(&event).filter(|wakes| *wakes > at) {
                self.events.insert((wakes, number), event);
                continue;
            }
            self.now = at;
            self.redis.set_time(self.unix_ms());
            if let Some(digest) = &mut self.digest {
                // Calls, answers and what nodes hear are events: with them everything that hosts and the store say is in it.
                format!("{:?} {event:?}", at - self.start).hash(digest);
            }
            self.take(event);
        }
        self.now = end;
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Effect(call) => self.carry_out(call),
            Event::Answer(life, answer) => self.answered(life, answer),
            Event::Heard { life, connection, room, delta } => self.heard(life, connection, &room, &delta),
            Event::BanHeard { life, connection, entry } => self.ban_heard(life, connection, &entry),
            Event::Reconnect(life) => self.reconnect(life),
            Event::Wake(life, key) => self.wake_host(life, key),
            Event::Renew(life) => self.renew(life),
            Event::SessionLost(life, key, sid) => self.session_lost(life, key, &sid),
            Event::Joins(life, person, attempt) => self.joins(life, person, attempt),
            Event::Act(person) => self.act(person),
            Event::Fault(fault) => self.strike(fault),
            Event::CheckGone(since, who) => self.check_gone(since, &who),
        }
    }

    fn asleep_until(&self, event: &Event) -> Option<Instant> {
        let life = match event {
            Event::Answer(life, _)
            | Event::Heard { life, .. }
            | Event::BanHeard { life, .. }
            | Event::Reconnect(life)
            | Event::Wake(life, _)
            | Event::Renew(life)
            | Event::SessionLost(life, ..)
            | Event::Joins(life, ..) => life,
            Event::Effect(_) | Event::Act(_) | Event::Fault(_) | Event::CheckGone(..) => return None,
        };
        self.nodes[life.at].asleep_until.filter(|_| self.is_alive(*life))
    }

    pub fn after(&mut self, ms: u64, event: Event) {
        self.at(self.now + Duration::from_millis(ms), event);
    }

    /// Within this time.
    pub fn after_up_to(&mut self, ms: u64, event: Event) {
        let micros = self.random.below(ms * 1000);
        self.at(self.now + Duration::from_micros(micros), event);
    }

    pub fn at(&mut self, at: Instant, event: Event) {
        self.events.insert((at, self.next_event), event);
        self.next_event += 1;
    }

    pub fn is_alive(&self, life: Life) -> bool {
        let node = &self.nodes[life.at];
        node.is_up && node.boot == life.boot
    }

    pub fn life(&self, at: usize) -> Life {
        Life { at, boot: self.nodes[at].boot }
    }

    pub fn node_id(life: Life) -> NodeId {
        format!("ND_{}_{}", life.at, life.boot).into()
    }

    /// Another number each time.
    pub fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// By Redis' clock.
    pub fn unix_ms(&self) -> u64 {
        UNIX_MS + u64::try_from((self.now - self.start).as_millis()).unwrap_or_default()
    }

    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        let Some(history) = &mut self.history else { return };
        let at = self.now - self.start;
        history.push_back(format!("{:9.3} {}", at.as_secs_f64(), what()));
        if history.len() > HISTORY_LINES && std::env::var_os("PLENARY_SEED").is_none() {
            history.pop_front();
        }
    }
}

impl Drop for World {
    #[allow(clippy::print_stderr, reason = "the history of a failure")]
    fn drop(&mut self) {
        if let Some(history) = self.history.take().filter(|_| std::thread::panicking()) {
            let mut text = String::new();
            for line in &history {
                let _ = writeln!(text, "{line}");
            }
            eprintln!("{text}seed {}, {:?}", self.seed, self.plan);
        }
    }
}

/// When every simulation starts, so that two of them can be compared.
#[allow(clippy::disallowed_methods, reason = "one reading of the clock starts virtual time")]
pub fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// By Redis' clock at the start.
const UNIX_MS: u64 = 1_700_000_000_000;
/// After the last fault.
const SETTLED_AFTER: Duration = Duration::from_secs(40);
/// Of one simulation, some thirty times what one takes.
const EVENTS_MAX: u64 = 400_000;
const HISTORY_LINES: usize = 120;
