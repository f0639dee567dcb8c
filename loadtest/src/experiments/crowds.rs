//! Many at one door.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::{
    NODES, Plan,
    field::Field,
    people::ROOM,
    processes::Placement,
    report::Findings,
    signalling::{Caller, CallerState, run_until},
};

/// E11.
pub fn cap(plan: &Plan) -> Result<Findings> {
    let mut field = Field::new(plan, Placement::InTurn)?;
    field.call(0, "CreateRoom", &json!({ "name": ROOM, "max_participants": CAP }))?;
    let mut callers = Vec::new();
    for at in 0..CALLERS {
        let token = field.people.token(&format!("c{at}"), ROOM)?;
        callers.push(Caller::new(field.balancer.address, &token)?);
    }
    let decided = |callers: &[Caller]| callers.iter().all(|one| one.state != CallerState::Asking);
    let took = run_until(&mut callers, Duration::from_secs(20), decided);
    let count = |wanted: fn(&CallerState) -> bool| callers.iter().filter(|one| wanted(&one.state)).count();
    let seated = count(|state| matches!(state, CallerState::Seated(_)));
    let refused = count(|state| *state == CallerState::Refused(403));
    let others: Vec<_> = callers
        .iter()
        .map(|one| &one.state)
        .filter(|state| !matches!(state, CallerState::Seated(_) | CallerState::Refused(403)))
        .take(3)
        .collect();
    let mut findings = Findings::default();
    findings.must("exactly 50 of 200 are in", seated == CAP, seated);
    findings.must("the others are refused with 403", refused == CALLERS - CAP, format!("{refused} {others:?}"));
    findings.within("until all 200 know", took, Duration::from_secs(5));
    let lists: Vec<_> = (0..NODES).map(|at| field.listed(at).map(|listed| listed.len()).unwrap_or(0)).collect();
    findings.must("every node lists 50", lists.iter().all(|listed| *listed == CAP), format!("{lists:?}"));
    // Cut off without a word: they may resume for 5 s.
    drop(callers);
    field.people.run_for(Duration::from_secs(10))?;
    let left: Vec<_> = (0..NODES).map(|at| field.listed(at).map(|listed| listed.len()).unwrap_or(0)).collect();
    findings.must("no orphan 10 s after all are gone", left.iter().sum::<usize>() == 0, format!("{left:?}"));
    Ok(findings)
}

/// E12.
pub fn one_identity(plan: &Plan) -> Result<Findings> {
    let field = Field::new(plan, Placement::InTurn)?;
    let token = field.people.token("ann", ROOM)?;
    let rounds = if plan.is_short { 50 } else { 500 };
    let (mut decided, mut wrong, mut example) = (Vec::new(), 0, String::new());
    let mut last = Vec::new();
    for round in 0..rounds {
        let doors = [round % NODES, (round + 1) % NODES];
        let mut callers =
            doors.into_iter().map(|at| Caller::new(field.http(at)?, &token)).collect::<Result<Vec<_>>>()?;
        let one_is_left = |callers: &[Caller]| {
            let seated = callers.iter().filter(|one| matches!(one.state, CallerState::Seated(_))).count();
            let ended = callers.iter().filter(|one| one.state == CallerState::Ended).count();
            (seated, ended) == (1, 1)
        };
        let took = run_until(&mut callers, Duration::from_secs(5), one_is_left);
        if took.is_none() {
            wrong += 1;
            example = format!("{:?}", callers.iter().map(|one| &one.state).collect::<Vec<_>>());
        }
        last = callers;
        decided.extend(took.map(|took| took.as_secs_f64()));
    }
    decided.sort_unstable_by(f64::total_cmp);
    let slowest = decided.last().map(|slowest| Duration::from_secs_f64(*slowest));
    let listed = field.listed(0)?;
    drop(last);
    let mut findings = Findings::default();
    let what = format!("after each of {rounds} rounds exactly one session is left");
    findings.must(what, wrong == 0, format!("{} {example}", rounds - wrong));
    findings.within("slowest decision", slowest, Duration::from_secs(1));
    findings.must("one is listed", listed.len() == 1, listed.len());
    Ok(findings)
}

const CALLERS: usize = 200;
const CAP: usize = 50;
