//! Emptying a node that is one of many: who is told to go next and when ([`Plan`]), and carrying it out ([`carry`]).

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use plenary_model::{ParticipantSid, RoomName};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Phase, Shared};
use crate::{
    config,
    events::{NodeDrained, NodeDraining},
    participant::Shutdown,
    rooms::{Count, MovePeople},
};

/// Whoever is served here in one room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seats {
    pub room: RoomName,
    pub people: Vec<Person>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub sid: ParticipantSid,
    pub publishes: bool,
    /// On the way: told to go, and not gone yet.
    pub told: bool,
}

/// What a turn of a drain comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Move(Vec<Wave>),
    /// Nobody is left, or time is up.
    Over,
}

/// People of one room that go at once.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wave {
    room: RoomName,
    people: Vec<ParticipantSid>,
}

/// Spreads the moves evenly over the time there is, so that the other nodes take in few at once.
#[derive(Debug)]
struct Plan {
    /// Balancers know by then; nobody is moved before, who might come back to this node.
    moves_from: Instant,
    /// Everybody is told by then, and still has time to go.
    moves_until: Instant,
    deadline: Instant,
    told: usize,
    /// The most people that each room has had here.
    sizes: HashMap<RoomName, usize>,
}

impl Plan {
    fn new(now: Instant, settings: &config::Drain) -> Self {
        let spread = settings.deadline.saturating_sub(SETTLE.min(settings.deadline / 2));
        Self {
            moves_from: now + settings.accept_for.min(spread),
            moves_until: now + spread,
            deadline: now + settings.deadline,
            told: 0,
            sizes: HashMap::new(),
        }
    }

    /// Whether whoever comes now is still taken.
    fn accepts(&self, now: Instant) -> bool {
        now < self.moves_from
    }

    fn step(&mut self, now: Instant, mut seats: Vec<Seats>) -> Step {
        seats.retain(|room| !room.people.is_empty());
        let is_over = now >= self.deadline || (seats.is_empty() && !self.accepts(now));
        if is_over {
            return Step::Over;
        }
        for Seats { room, people } in &seats {
            let size = self.sizes.entry(room.clone()).or_default();
            *size = people.len().max(*size);
        }
        let left = seats.iter().flat_map(|room| &room.people).filter(|person| !person.told).count();
        let mut due = self.due(now, left);
        // Publishers of big rooms have the farthest to go: everybody there receives them anew.
        seats.sort_by(|a, b| b.people.len().cmp(&a.people.len()).then_with(|| a.room.cmp(&b.room)));
        let mut waves = Vec::new();
        for Seats { room, people } in seats {
            let people = self.wave(now, &room, people, due);
            due = due.saturating_sub(people.len());
            self.told = self.told.saturating_add(people.len());
            if !people.is_empty() {
                waves.push(Wave { room, people });
            }
        }
        Step::Move(waves)
    }

    /// How many are to be told now of those who are left.
    fn due(&self, now: Instant, left: usize) -> usize {
        if self.accepts(now) {
            return 0;
        }
        if now >= self.moves_until {
            return left;
        }
        let passed = (now - self.moves_from).as_millis();
        let whole = (self.moves_until - self.moves_from).as_millis().max(1);
        let all = self.told.saturating_add(left);
        let evenly = (all as u128).saturating_mul(passed).div_ceil(whole);
        let at_least = passed.div_ceil(PACE_MIN.as_millis());
        let by_now = usize::try_from(evenly.max(at_least)).unwrap_or(usize::MAX);
        by_now.saturating_sub(self.told).min(left)
    }

    fn wave(&self, now: Instant, room: &RoomName, mut people: Vec<Person>, due: usize) -> Vec<ParticipantSid> {
        let on_the_way = people.iter().filter(|person| person.told).count();
        let at_once = match self.sizes.get(room) {
            Some(size) if now < self.moves_until => (size / ROOM_SHARE).max(1),
            _ => usize::MAX,
        };
        people.retain(|person| !person.told);
        people.sort_by_key(|person| !person.publishes);
        let count = due.min(at_once.saturating_sub(on_the_way));
        people.into_iter().take(count).map(|person| person.sid).collect()
    }
}

/// Drains the node whenever its phase says so, for as long as it runs.
pub(super) async fn carry(shared: Arc<Shared>, settings: config::Drain) {
    let mut phase = shared.phase.subscribe();
    while phase.wait_for(|phase| *phase == Phase::Draining).await.is_ok() {
        let mut undone = shared.phase.subscribe();
        tokio::select! {
            () = empty(&shared, &settings) => {}
            _ = undone.wait_for(|phase| !phase.drains()) => {}
        }
    }
}

async fn empty(shared: &Shared, settings: &config::Drain) {
    let begun = Instant::now();
    NodeDraining { deadline: settings.deadline }.emit();
    let mut plan = Plan::new(begun, settings);
    let mut seats = Vec::new();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        // A room thread that does not answer must not hold up the deadline.
        if let Ok(counted) = timeout(COUNT_WITHIN, shared.seats()).await {
            seats = counted;
        }
        let now = Instant::now();
        if !plan.accepts(now) {
            shared.turn_phase(Phase::Draining, Phase::Leaving);
        }
        match plan.step(now, seats.clone()) {
            Step::Move(waves) => {
                for Wave { room, people } in waves {
                    shared.rooms_for(&room).do_send(MovePeople { room, people });
                }
            }
            Step::Over => break,
        }
    }
    for rooms in shared.room_threads() {
        rooms.do_send(Shutdown { reconnect: true });
    }
    let left = seats.iter().map(|room| room.people.len()).sum();
    NodeDrained { left, after: begun.elapsed() }.emit();
    shared.turn_phase(Phase::Leaving, Phase::Empty);
}

impl Shared {
    /// Who is served on this node.
    pub(super) async fn seats(&self) -> Vec<Seats> {
        let counts = join_all(self.room_threads().map(|rooms| rooms.send(Count))).await;
        counts.into_iter().flatten().flatten().collect()
    }

    /// Tells everybody who is served here, and was not told yet, to start over on another node.
    pub async fn move_everybody(&self) {
        // A room thread that does not answer now is asked again a second later.
        let Ok(seats) = timeout(COUNT_WITHIN, self.seats()).await else { return };
        for Seats { room, people } in seats {
            let people: Vec<_> = people.into_iter().filter(|person| !person.told).map(|person| person.sid).collect();
            self.rooms_for(&room).do_send(MovePeople { room, people });
        }
    }
}

/// The time that whoever was told last has for leaving.
const SETTLE: Duration = Duration::from_secs(10);

/// However much time there is, somebody goes so often: a small node is restarted soon.
const PACE_MIN: Duration = Duration::from_secs(1);

/// One in so many of a room's people may be on the way at once.
const ROOM_SHARE: usize = 4;

const TICK: Duration = Duration::from_millis(250);
const COUNT_WITHIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
