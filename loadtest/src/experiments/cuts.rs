//! Two of them cannot reach each other, one cannot reach Redis, one is not heard.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{
    Plan,
    crashes::{GHOSTS, both_ways, everybody_but, most_joins, names, survivors, told},
    field::Field,
    people::{People, ROOM},
    processes::Placement,
    report::Findings,
    signalling::{Caller, CallerState},
    site::Host,
};
use crate::{bot::realtime_ns, http};

/// E4.
pub fn between_nodes(plan: &Plan) -> Result<Findings> {
    let mut findings = Findings::default();
    with_a_third(plan, &mut findings)?;
    without_a_third(plan, &mut findings)?;
    Ok(findings)
}

fn with_a_third(plan: &Plan, findings: &mut Findings) -> Result<()> {
    let mut field = Field::new(plan, Placement::InTurn)?;
    field.fill(12)?;
    let (one, other) = (names(&field, &field.on(0)), names(&field, &field.on(1)));
    let across = |listener: &String, speaker: &String| {
        (one.contains(listener) && other.contains(speaker)) || (other.contains(listener) && one.contains(speaker))
    };
    let pair = both_ways(Host::Node(0), &[Host::Node(1)]);
    let cut_ns = realtime_ns();
    field.cut(&pair)?;
    // What was on its way has come by then.
    field.people.run_for(Duration::from_secs(1))?;
    let flows = |people: &People| {
        let now_ns = realtime_ns();
        people.all.iter().all(|person| {
            let mut ears = person.ears.iter().filter(|(speaker, _)| across(&person.identity, speaker));
            ears.all(|(_, ear)| now_ns - ear.last_ns < FLOWS_NS && ear.last_ns > cut_ns)
        })
    };
    let again = field.people.run_until(Duration::from_secs(9), flows)?;
    findings.must("people of the two nodes hear each other through the third", again.is_some(), told(&field));
    let silences = |field: &Field, is_across: bool| {
        field.people.silences_ms(|listener, speaker| across(&listener.identity, &speaker.to_owned()) == is_across)
    };
    findings.silence("longest silence between the two, cut", &silences(&field, true), 2_000.0);
    findings.silence("longest silence between people of other pairs", &silences(&field, false), 100.0);
    let departures = |field: &Field| field.people.all.iter().map(|one| one.departures.len()).sum::<usize>();
    findings.at_most("people said to be gone", departures(&field), 0);
    field.people.mark();
    field.heal(&pair)?;
    // Until the third has no part in it any more.
    field.people.run_for(Duration::from_secs(5))?;
    let healed = field.people.run_until(Duration::from_secs(10), flows)?;
    findings.must("they hear each other once it is healed", healed.is_some(), told(&field));
    findings.silence("longest silence between the two, healed", &silences(&field, true), 100.0);
    let everybody: Vec<_> = (0..field.people.all.len()).collect();
    findings.at_most("moves of a person", most_joins(&field, &everybody, 1), 0);
    findings.must("everybody is shown the same", field.people.agree(), told(&field));
    Ok(())
}

/// Then those of a room who are fewer go to the others.
fn without_a_third(plan: &Plan, findings: &mut Findings) -> Result<()> {
    let mut field = Field::new(plan, Placement::InTurn)?;
    field.kill(2)?;
    // Its lease is over, and balancers have noticed.
    field.people.run_for(Duration::from_secs(7))?;
    field.fill(11)?;
    let (larger, stay) = field.fullest();
    let (smaller, go) = (1 - larger, field.on(1 - larger));
    let pair = both_ways(Host::Node(0), &[Host::Node(1)]);
    let cut_ns = realtime_ns();
    field.cut(&pair)?;
    let back = field.until_back(&go, cut_ns, Duration::from_secs(15))?;
    findings.back("two nodes: the fewer are with the others", &back, 5.0, 5.0);
    findings.at_most("two nodes: moves of a person", most_joins(&field, &go, 1), 1);
    findings.at_most("two nodes: moves of those who stay", most_joins(&field, &stay, 1), 0);
    let departures: usize = field.people.all.iter().map(|one| one.departures.len()).sum();
    findings.at_most("two nodes: people said to be gone", departures, 0);
    let door = |field: &Field| -> Result<CallerState> {
        let token = field.people.token("late", ROOM)?;
        let mut caller = Caller::new(field.http(smaller)?, &token)?;
        let begun = Instant::now();
        while caller.state == CallerState::Asking && begun.elapsed() < Duration::from_secs(5) {
            caller.turn();
            std::thread::sleep(Duration::from_millis(2));
        }
        let state = caller.state.clone();
        caller.leave();
        Ok(state)
    };
    let state = door(&field)?;
    findings.must("two nodes: it takes nobody for that room", state == CallerState::Refused(503), format!("{state:?}"));
    field.heal(&pair)?;
    field.people.run_for(Duration::from_secs(3))?;
    let state = door(&field)?;
    let is_seated = matches!(state, CallerState::Seated(_));
    findings.must("two nodes, healed: it takes people", is_seated, format!("{state:?}"));
    let agree = field.people.run_until(Duration::from_secs(10), People::agree)?;
    findings.must("two nodes, healed: everybody is shown the same", agree.is_some(), told(&field));
    Ok(())
}

/// E5.
pub fn from_redis(plan: &Plan) -> Result<Findings> {
    let mut field = Field::new(plan, Placement::InTurn)?;
    field.fill(12)?;
    let (at, victims) = field.fullest();
    let http = field.http(at)?;
    let begun = Instant::now();
    let cut_ns = realtime_ns();
    let pair = both_ways(Host::Node(at), &[Host::Redis]);
    field.cut(&pair)?;
    let mut unready = None;
    while unready.is_none() && begun.elapsed() < Duration::from_secs(10) {
        field.people.run_for(Duration::from_millis(100))?;
        unready = (http::status(http, "/readyz") != Some(200)).then(|| begun.elapsed());
    }
    let back = field.until_back(&victims, cut_ns, Duration::from_secs(15).saturating_sub(begun.elapsed()))?;
    let mut findings = Findings::default();
    findings.within("its node is not ready", unready, Duration::from_secs(3));
    findings.back_after("its people are elsewhere after", &back, 6.0, 6.0);
    let alive = http::status(http, "/healthz");
    findings.must("it is alive", alive == Some(200), format!("{alive:?}"));
    survivors(&field, &victims, &mut findings);
    field.heal(&pair)?;
    let whole = |people: &People| people.all.iter().all(|one| one.is_here()) && people.agree();
    let agree = field.people.run_until(HEALED, whole)?;
    findings.must("healed, everybody is there and shown the same", agree.is_some(), told(&field));
    findings.within("healed, until then", agree, GHOSTS);
    let listed = field.until_listed(GHOSTS)?;
    findings.must("every node lists the same people", listed.is_some(), told(&field));
    Ok(findings)
}

/// E23.
pub fn one_way_and_flapping(plan: &Plan) -> Result<Findings> {
    let mut findings = Findings::default();
    let mut field = Field::new(plan, Placement::InTurn)?;
    field.fill(12)?;
    let everybody: Vec<_> = (0..field.people.all.len()).collect();
    let (at, victims) = field.fullest();
    let ways: Vec<_> = everybody_but(at).into_iter().map(|other| (Host::Node(at), other)).collect();
    let cut_ns = realtime_ns();
    field.cut(&ways)?;
    let back = field.until_back(&victims, cut_ns, Duration::from_secs(15))?;
    findings.back("a node hears and is not heard: its people are elsewhere", &back, 3.0, 6.0);
    field.people.run_for(Duration::from_secs(30).saturating_sub(since(cut_ns)))?;
    findings.at_most("moves of a person in 30 s", most_joins(&field, &everybody, 1), 1);
    findings.must("no ghosts", field.people.agree(), told(&field));
    field.heal(&ways)?;
    drop(field);

    let mut field = Field::new(plan, Placement::InTurn)?;
    field.fill(12)?;
    let seconds = if plan.is_short { 10 } else { 60 };
    let pair = both_ways(Host::Node(0), &[Host::Node(1)]);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        field.cut(&pair)?;
        field.people.run_for(Duration::from_millis(300))?;
        field.heal(&pair)?;
        field.people.run_for(Duration::from_millis(300))?;
    }
    let name = |what: &str| format!("a link that flaps for {seconds} s: {what}");
    findings.at_most(name("moves of a person"), most_joins(&field, &everybody, 1), 1);
    let departures: usize = field.people.all.iter().map(|one| one.departures.len()).sum();
    findings.at_most(name("people said to be gone"), departures, 0);
    field.people.mark();
    field.people.run_for(Duration::from_secs(3))?;
    let silences = field.people.silences_ms(|_, _| true);
    let longest = silences.sorted_ms.last().copied().unwrap_or(f64::NAN);
    findings.must(name("everybody hears everybody again"), longest < 2_500.0, format!("silent for {longest:.0} ms"));
    Ok(findings)
}

fn since(begun_ns: i64) -> Duration {
    Duration::from_nanos(u64::try_from(realtime_ns() - begun_ns).unwrap_or(0))
}

/// TCP waits as long again as it was cut before it tries again.
const HEALED: Duration = Duration::from_secs(60);
/// A stream that brought something within this time flows.
const FLOWS_NS: i64 = 200_000_000;
