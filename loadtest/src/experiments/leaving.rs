//! Nodes and balancers that are replaced under a call.

use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;

use super::{
    NODES, Plan,
    crashes::{GHOSTS, names, told},
    field::Field,
    processes::Placement,
    report::Findings,
};

/// E16.
pub fn rolling_restart(plan: &Plan) -> Result<Findings> {
    let mut field = Field::new(plan, Placement::InTurn)?;
    field.fill(40)?;
    let mut findings = Findings::default();
    let (mut slowest_exit, mut silences) = (Duration::ZERO, Vec::new());
    for at in 0..NODES {
        field.people.mark();
        let on_it = field.on(at);
        let before = field.people.joins();
        let begun = Instant::now();
        field.signal(at, Signal::SIGTERM)?;
        let mut status = None;
        while status.is_none() && begun.elapsed() < Duration::from_secs(40) {
            field.people.run_for(Duration::from_millis(50))?;
            status = match field.nodes.get_mut(at) {
                Some((node, _)) => node.process.ended()?,
                None => None,
            };
        }
        let name = |what: &str| format!("node {}: {what}", at + 1);
        let ended = status.map_or("never".to_owned(), |status| status.to_string());
        findings.must(name("ends well"), status.is_some_and(|status| status.success()), ended);
        slowest_exit = slowest_exit.max(begun.elapsed());
        field.people.run_for(Duration::from_secs(2))?;
        let moves = |who: usize| {
            let joins = field.people.all.get(who).map_or(0, |one| one.joins);
            joins.saturating_sub(before.get(who).copied().unwrap_or(0))
        };
        let most = on_it.iter().map(|who| moves(*who)).max().unwrap_or(0);
        let others = (0..before.len()).filter(|who| !on_it.contains(who)).map(moves).max().unwrap_or(0);
        findings.at_most(name(&format!("most reconnects of one of its {} people", on_it.len())), most, 1);
        findings.at_most(name("most reconnects of one elsewhere"), others, 0);
        let moved = names(&field, &on_it);
        silences.extend(field.people.silences_ms(|_, speaker| moved.contains(speaker)).sorted_ms);
        field.restart(at)?;
        let whole =
            field.people.run_until(GHOSTS, |people| people.all.iter().all(|one| one.is_here()) && people.agree())?;
        findings.must(name("everybody is there and shown the same"), whole.is_some(), told(&field));
        // Until the balancer sends people to the new one.
        field.people.run_for(Duration::from_secs(2))?;
    }
    silences.sort_unstable_by(f64::total_cmp);
    findings.silences("silences of those who were moved", &silences, 800.0, 2_000.0);
    findings.within("slowest exit of a node", Some(slowest_exit), Duration::from_secs(25));
    Ok(findings)
}

/// E17.
pub fn balancer(plan: &Plan) -> Result<Findings> {
    let mut field = Field::new(plan, Placement::ByRoom)?;
    field.fill(12)?;
    let mut findings = Findings::default();
    let (_, together) = field.fullest();
    findings.must("a room is on one node", together.len() == 12, together.len());
    let Field { people, balancer, .. } = &mut field;
    let mut old = people.meanwhile(|| balancer.reload())?;
    field.people.run_for(Duration::from_secs(3))?;
    let lost = field.people.all.iter().filter(|one| one.resumes > 0 || one.joins > 1).count();
    findings.at_most("reloaded: sockets lost", lost, 0);
    let Field { people, balancer, .. } = &mut field;
    people.meanwhile(|| {
        old.kill()?;
        balancer.process.kill()?;
        balancer.start_again()
    })?;
    let here = field.people.run_until(Duration::from_secs(15), |people| {
        people.all.iter().all(|one| one.is_here() && one.resumes + one.joins > 1)
    })?;
    field.people.run_for(Duration::from_secs(2))?;
    findings.must("killed: everybody is back", here.is_some(), told(&field));
    let resumed = field.people.all.iter().filter(|one| one.resumes == 1 && one.joins == 1).count();
    findings.must("killed: every session was resumed", resumed == 12, format!("{resumed} of 12"));
    let after: Vec<_> = field.people.all.iter().flat_map(|one| &one.resumed_after).map(|after| Some(*after)).collect();
    findings.back("killed: resumed", &after, 1.0, 2.0);
    findings.silence("killed: longest silence", &field.people.silences_ms(|_, _| true), 100.0);
    findings.must("everybody is shown the same", field.people.agree(), told(&field));
    Ok(findings)
}
