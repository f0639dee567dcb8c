//! Drains on virtual time: people who are told are gone a second later, elsewhere.

use std::collections::BTreeMap;

use super::*;

/// A node with its people, of whom the first of each room publish.
struct Stage {
    plan: Plan,
    begun: Instant,
    now: Instant,
    rooms: BTreeMap<RoomName, Vec<Person>>,
    told: BTreeMap<ParticipantSid, Instant>,
    /// Who was told, in order, and after how long.
    history: Vec<(ParticipantSid, Duration)>,
    over_after: Option<Duration>,
}

impl Stage {
    fn new(deadline_s: u64, rooms: &[(&str, usize)]) -> Self {
        let now = Instant::now();
        let seconds = Duration::from_secs;
        let settings = config::Drain { accept_for: seconds(5), deadline: seconds(deadline_s) };
        let room = |(name, size): &(&str, usize)| {
            let people = (0..*size).map(|number| person(&format!("PA_{name}_{number}"), number < 2)).collect();
            (RoomName::try_from(*name).unwrap(), people)
        };
        let (plan, rooms) = (Plan::new(now, &settings), rooms.iter().map(room).collect());
        Self { plan, begun: now, now, rooms, told: BTreeMap::new(), history: Vec::new(), over_after: None }
    }

    /// Until it is over; `gone_after` is how long whoever was told takes to be gone.
    fn run(&mut self, gone_after: Duration) {
        while self.over_after.is_none() {
            self.turn(gone_after);
            self.now += TICK;
        }
    }

    fn turn(&mut self, gone_after: Duration) {
        for people in self.rooms.values_mut() {
            people.retain(|person| self.told.get(&person.sid).is_none_or(|told| self.now < *told + gone_after));
        }
        let seats = self.rooms.iter().map(|(room, people)| Seats { room: room.clone(), people: people.clone() });
        match self.plan.step(self.now, seats.collect()) {
            Step::Over => self.over_after = Some(self.now - self.begun),
            Step::Move(waves) => {
                for Wave { room, people } in waves {
                    for sid in people {
                        let seats = self.rooms.get_mut(&room).unwrap();
                        let person = seats.iter_mut().find(|person| person.sid == sid).unwrap();
                        assert!(!std::mem::replace(&mut person.told, true), "{sid} was told twice");
                        self.history.push((sid.clone(), self.now - self.begun));
                        self.told.insert(sid, self.now);
                    }
                }
            }
        }
        self.check_shares();
    }

    /// Until the deadline presses at most a quarter of a room is on the way at once.
    fn check_shares(&self) {
        if self.now >= self.plan.moves_until {
            return;
        }
        for (room, people) in &self.rooms {
            let on_the_way = people.iter().filter(|person| person.told).count();
            let size = self.plan.sizes.get(room).copied().unwrap_or_default();
            assert!(on_the_way <= (size / 4).max(1), "{on_the_way} of {size} in {room}");
        }
    }

    fn told_within(&self, from_s: u64, to_s: u64) -> usize {
        let within = Duration::from_secs(from_s)..Duration::from_secs(to_s);
        self.history.iter().filter(|(_, after)| within.contains(after)).count()
    }
}

fn person(sid: &str, publishes: bool) -> Person {
    Person { sid: sid.into(), publishes, told: false }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn nobody_is_moved_while_balancers_may_not_know() {
    let mut stage = Stage::new(60, &[("a", 400)]);
    stage.run(SECOND);
    assert_eq!(stage.told_within(0, 5), 0);
    assert_eq!(stage.history.len(), 400);
}

#[test]
fn moves_are_spread_evenly_until_ten_seconds_before_the_deadline() {
    let mut stage = Stage::new(60, &[("a", 100), ("b", 100), ("c", 250)]);
    stage.run(SECOND);
    // 450 people in 45 s.
    for from in (5..50).step_by(5) {
        let told = stage.told_within(from, from + 5);
        assert!((45..=55).contains(&told), "{told} from {from} s on");
    }
    assert_eq!(stage.told_within(0, 51), 450);
    assert!(stage.over_after.unwrap() <= Duration::from_secs(52), "{:?}", stage.over_after);
}

#[test]
fn a_small_node_is_empty_soon() {
    let mut stage = Stage::new(60, &[("a", 3), ("b", 2)]);
    stage.run(SECOND);
    assert!(stage.over_after.unwrap() <= Duration::from_secs(12), "{:?}", stage.over_after);
}

#[test]
fn an_empty_node_waits_for_the_balancers_alone() {
    let mut stage = Stage::new(60, &[]);
    stage.run(SECOND);
    assert_eq!(stage.over_after, Some(Duration::from_secs(5)));
}

#[test]
fn publishers_of_the_biggest_room_go_first() {
    let mut stage = Stage::new(60, &[("small", 4), ("webinar", 40)]);
    stage.run(SECOND);
    let first: Vec<_> = stage.history.iter().take(2).map(|(sid, _)| sid.as_str()).collect();
    assert_eq!(first, ["PA_webinar_0", "PA_webinar_1"]);
}

#[test]
fn a_quarter_of_a_room_at_once_unless_the_deadline_presses() {
    // Ten of forty at once, each for 9 s: four such waves do not fit in between 5 s and 30 s, and the rest goes then.
    let mut stage = Stage::new(40, &[("a", 40)]);
    stage.run(Duration::from_secs(9));
    assert!(stage.told_within(0, 30) < 40);
    assert_eq!(stage.told_within(0, 31), 40);
    assert!(stage.over_after.unwrap() <= Duration::from_secs(40));
}

#[test]
fn whoever_does_not_go_is_left_at_the_deadline() {
    let mut stage = Stage::new(60, &[("a", 10)]);
    stage.run(Duration::from_secs(600));
    assert_eq!(stage.over_after, Some(Duration::from_secs(60)));
    assert_eq!(stage.history.len(), 10);
}

#[test]
fn short_deadlines_leave_half_of_the_time_for_going() {
    for (deadline, all_told_by) in [(0, 0), (1, 1), (4, 2), (10, 5), (12, 6)] {
        let mut stage = Stage::new(deadline, &[("a", 50)]);
        stage.run(SECOND);
        assert!(stage.over_after.unwrap() <= Duration::from_secs(deadline) + TICK);
        if deadline > 0 {
            assert_eq!(stage.told_within(0, all_told_by) + stage.told_within(all_told_by, all_told_by + 1), 50);
        }
    }
}

#[test]
fn who_came_while_it_was_still_open_is_moved_like_the_rest() {
    let mut stage = Stage::new(60, &[("a", 20)]);
    for _ in 0..8 {
        stage.turn(SECOND);
        stage.now += TICK;
    }
    let late = RoomName::try_from("late").unwrap();
    stage.rooms.insert(late, vec![person("PA_late", true)]);
    stage.run(SECOND);
    assert!(stage.history.iter().any(|(sid, _)| sid.as_str() == "PA_late"));
    assert_eq!(stage.history.len(), 21);
}
