//! What the way from one node to another adds to a packet's.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{
    Plan,
    field::Field,
    people::People,
    processes::Placement,
    report::{Findings, percentile},
};

/// Half of the people are on one node and half on another. Half of each hear those beside them, the others those over there,
/// at the same time, so that what else this machine does concerns both.
pub fn delay(plan: &Plan) -> Result<Findings> {
    let mut field = Field::new(plan, Placement::InTurn)?;
    for at in 0..PEOPLE {
        field.people.server = field.http(node_of(at))?;
        let hears = (0..PEOPLE).filter(|other| *other != at && (node_of(*other) != node_of(at)) == hears_over(at));
        field.people.add(name(at), hears.map(name).collect())?;
        if field.people.run_until(WITHIN, |people| people.all.iter().all(|one| one.is_here()))?.is_none() {
            bail!("{} is not in the call", name(at));
        }
    }
    if field.people.run_until(WITHIN, People::all_hear)?.is_none() {
        bail!("not everybody is heard");
    }
    field.people.run_for(SETTLE)?;
    field.people.mark();
    field.people.run_for(Duration::from_secs(if plan.is_short { 5 } else { 30 }))?;
    let [beside, over] = [false, true].map(|is_over| delays_ms(&field.people, is_over));
    let mut findings = Findings::default();
    for (rank, share, limit_ms) in [("p50", 0.5, None), ("p99", 0.99, Some(2.0)), ("p99.9", 0.999, None)] {
        let (beside, over) = (percentile(&beside, share), percentile(&over, share));
        let found = format!("{:.2} ms: {over:.2} from the other node, {beside:.2} on one", over - beside);
        findings.milliseconds(format!("added to the delay, {rank}"), found, over - beside, limit_ms);
    }
    let compared = beside.len().min(over.len());
    findings.must("packets were opened and compared", compared >= ENOUGH, compared);
    Ok(findings)
}

fn delays_ms(people: &People, is_over: bool) -> Vec<f64> {
    let listeners = people.all.iter().enumerate().filter(|(at, _)| hears_over(*at) == is_over);
    let delays = listeners.flat_map(|(_, one)| &one.delays_us);
    let mut delays: Vec<_> = delays.map(|us| f64::from(*us) / 1_000.0).collect();
    delays.sort_unstable_by(f64::total_cmp);
    delays
}

fn name(at: usize) -> String {
    format!("p{at}")
}

fn node_of(at: usize) -> usize {
    at % 2
}

fn hears_over(at: usize) -> bool {
    at % 4 < 2
}

const PEOPLE: usize = 8;
const WITHIN: Duration = Duration::from_secs(15);
/// Links begin with probes, and rates with nothing.
const SETTLE: Duration = Duration::from_secs(2);
/// For a 99th percentile.
const ENOUGH: usize = 200;
