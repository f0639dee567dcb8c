//! Redis dies, forgets, cuts off who listens, or gives way to one that knows less.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::{
    NODES, Plan,
    crashes::{GHOSTS, told},
    field::Field,
    processes::{Placement, Redis},
    report::Findings,
    site::Host,
};
use crate::http;

/// E6.
pub fn killed(plan: &Plan) -> Result<Findings> {
    let mut findings = Findings::default();
    let outages: &[u64] = if plan.is_short { &[1] } else { &[1, 10, 60] };
    for seconds in outages {
        let mut field = Field::new(plan, Placement::InTurn)?;
        field.fill(9)?;
        let (alive, ready) = outage(&mut field, Duration::from_secs(*seconds), true)?;
        let silences = field.people.silences_ms(|_, _| true);
        let name = |what: &str| format!("{seconds} s away: {what}");
        findings.silence(name("longest silence"), &silences, 100.0);
        findings.must(name("nodes are alive throughout"), alive, "");
        findings.must(name("and ready"), ready, "");
        let known = field.people.run_until(GHOSTS, |people| people.know("p00", DURING) && people.agree())?;
        findings.within(name("what was said meanwhile is known"), known, Duration::from_secs(5));
        let listed = field.until_listed(GHOSTS)?;
        findings.must(name("every node lists the same people"), listed.is_some(), told(&field));
        undisturbed(&field, &name("people who had to come back"), &mut findings);
    }
    Ok(findings)
}

/// E7.
pub fn wiped(plan: &Plan) -> Result<Findings> {
    let mut field = Field::new(plan, Placement::InTurn)?;
    field.fill(9)?;
    let generation =
        |field: &Field| -> Result<u64> { Ok(field.redis.ask(&["GET", "plenary:generation"])?.parse().unwrap_or(0)) };
    let before = generation(&field)?;
    outage(&mut field, Duration::from_secs(1), false)?;
    let silences = field.people.silences_ms(|_, _| true);
    let mut findings = Findings::default();
    findings.silence("longest silence", &silences, 100.0);
    let listed = field.until_listed(GHOSTS)?;
    findings.within("rooms and members are stored again", listed, Duration::from_secs(5));
    let known = field.people.run_until(GHOSTS, |people| people.know("p00", DURING) && people.agree())?;
    findings.must("everybody is shown the same, and what was said meanwhile", known.is_some(), told(&field));
    undisturbed(&field, "people who had to come back", &mut findings);
    field.people.invite(1)?;
    let joined =
        field.people.run_until(GHOSTS, |people| people.all.iter().all(|one| one.is_here()) && people.agree())?;
    findings.must("somebody new is seated", joined.is_some(), told(&field));
    let after = generation(&field)?;
    findings.must("generations go on above those before", after > before, format!("{before}, then {after}"));
    Ok(findings)
}

/// E8.
pub fn listeners_cut(plan: &Plan) -> Result<Findings> {
    let mut field = Field::new(plan, Placement::InTurn)?;
    field.fill(9)?;
    let seconds = if plan.is_short { 10 } else { 60 };
    let begun = Instant::now();
    let (mut said, mut kills) = (0_usize, 0_usize);
    while begun.elapsed() < Duration::from_secs(seconds) {
        field.people.say(said % 9, &format!("{said}"));
        said += 1;
        if begun.elapsed() >= Duration::from_millis(500) * u32::try_from(kills)? {
            kills += 1;
            let Field { people, redis, .. } = &mut field;
            people.meanwhile(|| redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]))?;
        }
        field.people.run_for(Duration::from_millis(50))?;
    }
    let last: Vec<_> = (0..9).map(|who| (format!("p{who:02}"), last_said(said, who))).collect();
    let known = field
        .people
        .run_until(GHOSTS, |people| last.iter().all(|(who, metadata)| people.know(who, metadata)) && people.agree())?;
    let mut findings = Findings::default();
    let what = format!("{kills} cuts under {said} changes: all is known after the last");
    findings.within(what.clone(), known, Duration::from_secs(1));
    findings.must(what, known.is_some(), told(&field));
    findings.silence("longest silence", &field.people.silences_ms(|_, _| true), 100.0);
    undisturbed(&field, "people who had to come back", &mut findings);
    Ok(findings)
}

/// E9.
pub fn slow_listener(plan: &Plan) -> Result<Findings> {
    let mut field = Field::new(plan, Placement::InTurn)?;
    field.fill(9)?;
    // As Redis is shipped, but for how long a listener may be 8 MB behind: 5 s instead of 60.
    field.redis.ask(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 32mb 8mb 5"])?;
    let listeners = |field: &Field| anyhow::Ok(field.redis.ask(&["CLIENT", "LIST", "TYPE", "pubsub"])?.lines().count());
    let before = listeners(&field)?;
    let (at, _) = field.fullest();
    let others: Vec<_> = (0..NODES).filter(|other| *other != at).collect();
    let resident = |field: &Field| others.iter().map(|at| field.node(*at)?.resident_mib()).sum::<Result<f64>>();
    let resident_before = resident(&field)?;
    field.signal(at, Signal::SIGSTOP)?;
    let begun = Instant::now();
    let (mut said, mut fewest) = (0_usize, before);
    while begun.elapsed() < Duration::from_secs(20) {
        let talkers: Vec<_> = others.iter().flat_map(|at| field.on(*at)).collect();
        // 64 KB each 13 ms are 5 MB/s.
        for _ in 0..4 {
            let who = talkers.get(said % talkers.len().max(1)).copied().unwrap_or(0);
            field.people.say(who, &format!("{said}{}", "x".repeat(LARGE)));
            said += 1;
        }
        field.people.run_for(Duration::from_millis(52))?;
        if said.is_multiple_of(40) {
            fewest = fewest.min(listeners(&field)?);
        }
    }
    let resident_after = resident(&field)?;
    field.signal(at, Signal::SIGCONT)?;
    for who in 0..9 {
        field.people.say(who, "the end");
    }
    let whole = field
        .people
        .run_until(Duration::from_secs(20), |people| people.all.iter().all(|one| one.is_here()) && people.agree())?;
    let mut findings = Findings::default();
    let rate = (said * LARGE) as f64 / 20e6;
    findings.must(
        format!("a node asleep under {rate:.1} MB/s is cut off by Redis"),
        fewest < before,
        format!("{before} listeners, then {fewest}"),
    );
    findings.must("awake, everybody is there and shown the same", whole.is_some(), told(&field));
    field.people.run_for(Duration::from_secs(2))?;
    let listed = field.until_listed(GHOSTS)?;
    findings.must("every node lists the same people", listed.is_some(), told(&field));
    let grown = resident_after - resident_before;
    findings.must("memory of the others is flat (64 MiB)", grown < 64.0, format!("{grown:+.0} MiB"));
    Ok(findings)
}

/// E10.
pub fn stale_failover(plan: &Plan) -> Result<Findings> {
    let mut field = Field::new(plan, Placement::InTurn)?;
    field.fill(9)?;
    let primary = field.site.address(Host::Redis).to_string();
    let standby = Redis::start(field.site, Host::Standby, &field.folder)?;
    standby.ask(&["REPLICAOF", &primary, "6379"])?;
    let begun = Instant::now();
    while !standby.ask(&["INFO", "replication"])?.contains("master_link_status:up") {
        anyhow::ensure!(begun.elapsed() < Duration::from_secs(10), "the replica does not follow");
        field.people.run_for(Duration::from_millis(50))?;
    }
    let sequence = |redis: &Redis| -> Result<u64> {
        let people = redis.ask(&["--scan", "--pattern", "plenary:*:p"])?;
        let room = people.trim_end().strip_suffix(":p").context("one room with people in Redis")?;
        Ok(redis.ask(&["HGET", &format!("{room}:x"), "seq"])?.parse().unwrap_or(0))
    };
    // From here on the replica knows nothing new, for 5 s of changes and a join.
    standby.ask(&["REPLICAOF", "NO", "ONE"])?;
    let begun = Instant::now();
    let mut said = 0_usize;
    while begun.elapsed() < Duration::from_secs(5) {
        field.people.say(said % 9, &format!("{said}"));
        said += 1;
        field.people.run_for(Duration::from_millis(50))?;
    }
    field.people.invite(1)?;
    let joined = field.people.run_until(Duration::from_secs(5), |people| people.agree())?;
    anyhow::ensure!(joined.is_some(), "somebody joins before the failover");
    let (knew, lacks) = (sequence(&field.redis)?, sequence(&standby)?);
    field.people.mark();
    let Field { people, redis, site, .. } = &mut field;
    people.meanwhile(|| {
        redis.process.kill()?;
        site.take_over(Host::Redis, Host::Standby)
    })?;
    field.people.run_for(Duration::from_secs(1))?;
    let silences = field.people.silences_ms(|_, _| true);
    let mut findings = Findings::default();
    findings.must("the new primary was stale", lacks < knew, format!("at change {lacks} of {knew}"));
    let listed = field.until_listed(Duration::from_secs(15))?;
    findings.within("records are stored again", listed, Duration::from_secs(5));
    findings.must("every node lists the same people", listed.is_some(), told(&field));
    field.people.say(0, "after");
    let known = field.people.run_until(GHOSTS, |people| people.know("p00", "after") && people.agree())?;
    findings.must("everybody is shown the same, and what is said afterwards", known.is_some(), told(&field));
    findings.silence("longest silence", &silences, 100.0);
    let lost = field.people.all.iter().filter(|one| one.joins > 1 || one.resumes > 0).count();
    findings.at_most("people who had to come back", lost, 0);
    Ok(findings)
}

/// Kills Redis and starts it again after a while, in which somebody says something. Whether all nodes said that they
/// were alive, and ready, whenever they were asked.
fn outage(field: &mut Field, away: Duration, with_what_it_knew: bool) -> Result<(bool, bool)> {
    let Field { people, redis, nodes, .. } = field;
    people.meanwhile(|| redis.process.kill())?;
    people.say(0, DURING);
    let begun = Instant::now();
    let (mut alive, mut ready) = (true, true);
    let mut look = || {
        for (node, _) in nodes.iter() {
            alive &= http::status(node.http, "/healthz") == Some(200);
            ready &= http::status(node.http, "/readyz") == Some(200);
        }
        Ok(())
    };
    while begun.elapsed() < away {
        people.meanwhile(&mut look)?;
        people.run_for(Duration::from_millis(200))?;
    }
    people.meanwhile(|| redis.start_again(with_what_it_knew))?;
    people.run_for(Duration::from_secs(1))?;
    people.meanwhile(&mut look)?;
    Ok((alive, ready))
}

fn undisturbed(field: &Field, what: &str, findings: &mut Findings) {
    let lost = field.people.all.iter().filter(|one| one.joins != 1 || one.resumes != 0).count();
    findings.at_most(what, lost, 0);
}

/// The last of so many changes that was this one's, of nine who take turns.
fn last_said(said: usize, who: usize) -> String {
    let last = (0..said).rev().find(|change| change % 9 == who);
    last.map(|change| change.to_string()).unwrap_or_default()
}

const DURING: &str = "said while Redis was away";
const LARGE: usize = 64 << 10;
