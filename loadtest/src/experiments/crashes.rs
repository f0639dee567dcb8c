//! A node dies, is cut off from everybody, or sleeps.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use nix::sys::signal::Signal;

use super::{NODES, Plan, field::Field, person::State, processes::Placement, report::Findings, site::Host};
use crate::bot::realtime_ns;

/// E1.
pub fn killed(plan: &Plan) -> Result<Findings> {
    let mut field = Field::new(plan, Placement::InTurn)?;
    field.fill(if plan.is_short { 12 } else { 30 })?;
    let permissions: Vec<_> = field.people.all.iter().map(|one| one.permission.clone()).collect();
    let (at, victims) = field.fullest();
    let died_ns = realtime_ns();
    field.kill(at)?;
    let back = field.until_back(&victims, died_ns, BACK_WITHIN)?;
    let agree = field.people.run_until(GHOSTS, |people| people.agree())?;
    field.people.run_for(Duration::from_secs(1))?;
    let mut findings = Findings::default();
    findings.back(&format!("{} of {} people are back", victims.len(), permissions.len()), &back, 1.5, 3.0);
    survivors(&field, &victims, &mut findings);
    let departed = survivors_heard_of(&field, &victims);
    findings.at_most("departures of victims told to survivors", departed, 0);
    findings.must("everybody is shown the same again", agree.is_some(), told(&field));
    let kept = field.people.all.iter().zip(&permissions).all(|(one, before)| one.permission == *before);
    findings.must("permissions are the same", kept, "");
    findings.at_most("most new sessions of a victim", most_joins(&field, &victims, 1), 1);
    Ok(findings)
}

/// E2.
pub fn isolated(plan: &Plan) -> Result<Findings> {
    let mut field = Field::new(plan, Placement::InTurn)?;
    field.fill(15)?;
    let (at, victims) = field.fullest();
    let all_ways = both_ways(Host::Node(at), &everybody_but(at));
    let cut_ns = realtime_ns();
    field.cut(&all_ways)?;
    let back = field.until_back(&victims, cut_ns, BACK_WITHIN)?;
    let agree = field.people.run_until(GHOSTS, |people| people.agree())?;
    let mut findings = Findings::default();
    findings.back(&format!("{} people are back, their node cut off", victims.len()), &back, 3.0, 6.0);
    survivors(&field, &victims, &mut findings);
    findings.must("no ghosts after 10 s", agree.is_some(), told(&field));
    // It outlived its lease, and its people have sessions elsewhere.
    field.people.run_for(Duration::from_secs(6))?;
    field.heal(&all_ways)?;
    field.people.run_for(Duration::from_secs(3))?;
    let agree = field.people.agree();
    findings.must("nothing it believed comes back with it", agree, told(&field));
    let listed = field.until_listed(Duration::from_secs(5))?;
    findings.must("every node lists the same people", listed.is_some(), told(&field));
    findings.at_most("most new sessions of a victim", most_joins(&field, &victims, 1), 1);
    Ok(findings)
}

/// E3.
pub fn paused(plan: &Plan) -> Result<Findings> {
    let mut findings = Findings::default();
    let pauses: &[f64] = if plan.is_short { &[0.5, 4.0] } else { &[0.5, 1.5, 4.0, 30.0] };
    for pause in pauses {
        let mut field = Field::new(plan, Placement::InTurn)?;
        field.fill(9)?;
        let (at, victims) = field.fullest();
        field.signal(at, Signal::SIGSTOP)?;
        field.people.run_for(Duration::from_secs_f64(*pause))?;
        field.signal(at, Signal::SIGCONT)?;
        // What it believed would show by then.
        field.people.run_for(Duration::from_secs(2))?;
        let whole =
            field.people.run_until(GHOSTS, |people| people.all.iter().all(|one| one.is_here()) && people.agree())?;
        let name = |what: &str| format!("asleep for {pause} s: {what}");
        findings.must(name("everybody is there and shown the same, once"), whole.is_some(), told(&field));
        if *pause >= 4.0 {
            findings.within(name("awake for 2 s, until no double identity"), whole, Duration::from_millis(50));
        }
        let on_others: Vec<_> = (0..field.people.all.len()).filter(|one| !victims.contains(one)).collect();
        findings.at_most(name("sessions lost on other nodes"), most_joins(&field, &on_others, 1), 0);
        let most = usize::from(*pause > 1.0);
        findings.at_most(name("most new sessions of one on it"), most_joins(&field, &victims, 1), most);
        let listed = field.until_listed(Duration::from_secs(5))?;
        findings.must(name("every node lists the same people"), listed.is_some(), told(&field));
    }
    Ok(findings)
}

/// Every host that a node has to do with.
pub fn everybody_but(at: usize) -> Vec<Host> {
    let nodes = (0..NODES).filter(|other| *other != at).map(Host::Node);
    [Host::People, Host::Balancer, Host::Redis].into_iter().chain(nodes).collect()
}

/// From one to each of the others, and back.
pub fn both_ways(one: Host, others: &[Host]) -> Vec<(Host, Host)> {
    others.iter().flat_map(|other| [(one, *other), (*other, one)]).collect()
}

/// What those feel who were on none of the nodes that a fault is about.
pub fn survivors(field: &Field, victims: &[usize], findings: &mut Findings) {
    let victims = names(field, victims);
    let silences =
        field.people.silences_ms(|one, speaker| !victims.contains(&one.identity) && !victims.contains(speaker));
    findings.silence("longest silence between the others", &silences, 100.0);
    let moved = field.people.all.iter().filter(|one| !victims.contains(&one.identity));
    let moved = moved.filter(|one| one.joins != 1 || one.resumes != 0).count();
    findings.at_most("others who had to come back", moved, 0);
}

fn survivors_heard_of(field: &Field, victims: &[usize]) -> usize {
    let victims = names(field, victims);
    let others = field.people.all.iter().filter(|one| !victims.contains(&one.identity));
    others.flat_map(|one| &one.departures).filter(|who| victims.contains(*who)).count()
}

pub fn names(field: &Field, who: &[usize]) -> BTreeSet<String> {
    who.iter().filter_map(|at| field.people.all.get(*at)).map(|one| one.identity.clone()).collect()
}

/// New sessions beyond so many.
pub fn most_joins(field: &Field, who: &[usize], expected: usize) -> usize {
    let joins = who.iter().filter_map(|at| field.people.all.get(*at)).map(|one| one.joins.saturating_sub(expected));
    joins.max().unwrap_or(0)
}

/// What is not as it should be, if anything.
pub fn told(field: &Field) -> String {
    let gone = field.people.all.iter().find_map(|one| match &one.state {
        State::Here => None,
        state => Some(format!("{} is {state:?}: {}", one.identity, one.lost_why)),
    });
    gone.or_else(|| field.people.disagreement()).unwrap_or_default()
}

/// Longer than any limit, so that what is late is measured too.
const BACK_WITHIN: Duration = Duration::from_secs(15);
/// How long somebody who is not there may be shown at most.
pub const GHOSTS: Duration = Duration::from_secs(10);
