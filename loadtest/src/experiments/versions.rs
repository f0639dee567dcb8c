//! Nodes that do not know the same: the time, or the fields of a later release.

use std::time::Duration;

use anyhow::Result;

use super::{
    NODES, Plan,
    crashes::{GHOSTS, told},
    field::Field,
    processes::Placement,
    report::Findings,
};
use crate::bot::realtime_ns;

/// E22.
pub fn clock_off(plan: &Plan) -> Result<Findings> {
    let mut findings = Findings::default();
    let hours: &[i8] = if plan.is_short { &[1] } else { &[1, -1] };
    for hours in hours {
        let wrong = NODES - 1;
        let mut field = Field::with(plan, Placement::InTurn, |at, node| {
            node.clock_off_h = if at == wrong { *hours } else { 0 };
        })?;
        field.fill(12)?;
        // Leases are renewed each second and last three.
        field.people.run_for(Duration::from_secs(8))?;
        let name = |what: &str| format!("{hours:+} h on one node: {what}");
        let lost = field.people.all.iter().filter(|one| one.joins != 1 || one.resumes != 0).count();
        findings.at_most(name("people who had to come back"), lost, 0);
        let departures: usize = field.people.all.iter().map(|one| one.departures.len()).sum();
        findings.at_most(name("people said to be gone"), departures, 0);
        findings.must(name("everybody is shown the same"), field.people.agree(), told(&field));
        findings.silence(name("longest silence"), &field.people.silences_ms(|_, _| true), 100.0);
        // Its people go elsewhere: their new sessions have to count as the later ones.
        let victims = field.on(wrong);
        let died_ns = realtime_ns();
        field.kill(wrong)?;
        let back = field.until_back(&victims, died_ns, Duration::from_secs(15))?;
        findings.back(&name(&format!("killed, its {} people are back", victims.len())), &back, 1.5, 3.0);
        let agree = field.people.run_until(GHOSTS, |people| people.agree())?;
        findings.must(name("killed, everybody is shown the same"), agree.is_some(), told(&field));
    }
    Ok(findings)
}

/// E24, with what a later release could write, by hand: there is no other release yet. That an unknown version of the link
/// is refused by name is a test of the media engine.
pub fn unknown_fields(plan: &Plan) -> Result<Findings> {
    let mut field = Field::new(plan, Placement::InTurn)?;
    field.fill(9)?;
    let stub = field.redis.ask(&["EVAL", STUB, "0"])?;
    anyhow::ensure!(stub == "ok", "the later release's node is not there: {stub}");
    let sees = |people: &super::people::People| people.all.iter().all(|one| one.view.contains_key("stub"));
    let seen = field.people.run_until(Duration::from_secs(5), sees)?;
    let mut findings = Findings::default();
    findings.must(
        "a participant with unknown fields, told in a delta, is shown to all",
        seen.is_some(),
        told_stub(&field),
    );
    // Snapshots are read after that.
    field.redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"])?;
    field.people.say(0, "said beside it");
    let known = field.people.run_until(Duration::from_secs(5), |people| people.know("p00", "said beside it"))?;
    field.people.run_for(Duration::from_millis(500))?;
    let still = field.people.all.iter().all(|one| one.view.contains_key("stub"));
    findings.must("and after snapshots were read", known.is_some() && still, told_stub(&field));
    let survived = field.redis.ask(&["EVAL", SURVIVED, "0"])?;
    findings.must("the unknown fields survive changes by others", survived == "1", survived);
    let silences = field.people.silences_ms(|_, _| true);
    findings.silence("longest silence", &silences, 100.0);
    // Its lease is not renewed.
    let reaped = field.people.run_until(GHOSTS, |people| people.agree())?;
    findings.must("gone within 10 s, as its node says nothing more", reaped.is_some(), told(&field));
    let lost = field.people.all.iter().filter(|one| one.joins != 1 || one.resumes != 0).count();
    findings.at_most("people who had to come back", lost, 0);
    Ok(findings)
}

fn told_stub(field: &Field) -> String {
    let without = field.people.all.iter().filter(|one| !one.view.contains_key("stub")).count();
    if without == 0 { String::new() } else { format!("{without} people do not see it") }
}

/// A node with a lease, a copy of a real one's but for the name, and a participant on it, in the way of the cluster's own
/// scripts. All have a field of number 2000, which no version has.
const STUB: &str = "
local function varint(n)
  local out = {}
  while n >= 128 do out[#out + 1] = string.char(n % 128 + 128) n = math.floor(n / 128) end
  out[#out + 1] = string.char(n)
  return table.concat(out)
end
local function number(field, n) return varint(field * 8) .. varint(n) end
local function bytes(field, value) return varint(field * 8 + 2) .. varint(#value) .. value end
local unknown = bytes(2000, 'of a later release')
local time = redis.call('TIME')
local now = time[1] * 1000
local infos = redis.call('HVALS', 'plenary:nodes')
redis.call('HSET', 'plenary:nodes', 'ND_stubstubstub', infos[1] .. bytes(1, 'ND_stubstubstub') .. unknown)
redis.call('ZADD', 'plenary:leases', string.format('%.0f', now + 5000), 'ND_stubstubstub')
local p = redis.call('KEYS', 'plenary:*:p')[1]
local room = string.sub(p, 1, -3)
local sid = 'PA_stubstubstubstubstubstub'
local generation = now * 256
local permission = number(1, 1) .. number(3, 1)
local participant = bytes(1, sid) .. bytes(2, 'stub') .. number(6, 2) .. bytes(8, permission) .. number(12, now) .. unknown
local record = bytes(1, participant) .. number(2, generation) .. bytes(3, 'ND_stubstubstub') .. number(4, 1) .. unknown
redis.call('HSET', p, 'stub', record)
redis.call('HSET', room .. ':i', 'stub', string.format('%.0f 1 1000 ND_stubstubstub %s', generation, sid))
local sums = {}
for one in string.gmatch(redis.call('HGET', room .. ':i', ''), '%d+') do sums[#sums + 1] = tonumber(one) end
redis.call('HSET', room .. ':i', '', (sums[1] + 1) .. ' ' .. sums[2] .. ' ' .. sums[3] .. ' ' .. sums[4])
redis.call('SADD', 'plenary:hosts:ND_stubstubstub', 'experiment')
local n = redis.call('HINCRBY', room .. ':x', 'seq', 1)
redis.call('PUBLISH', room, '\\9' .. redis.call('HGET', room .. ':x', 'view') .. number(2, n) .. bytes(3, record) .. unknown)
return 'ok'
";
const SURVIVED: &str = "
local p = redis.call('KEYS', 'plenary:*:p')[1]
local record = redis.call('HGET', p, 'stub') or ''
local count = select(2, string.gsub(record, 'of a later release', ''))
return count == 2 and 1 or count
";
