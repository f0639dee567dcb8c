//! The measurements, each on a server of its own that has done nothing before.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use plenary_model::MediaKind;
use serde::Serialize;

use crate::{
    crowd::Crowd,
    process::Usage,
    reception::{RUNS, Totals},
    server::{Metrics, Server},
    shapes::Shape,
};

#[derive(Debug, Clone)]
pub struct Plan {
    pub binary: PathBuf,
    pub media_threads: Option<usize>,
    pub window: Duration,
}

/// One window of one shape.
#[derive(Debug, Clone, Serialize)]
pub struct Forwarding {
    pub rooms: usize,
    pub packets_in_per_s: f64,
    pub packets_out_per_s: f64,
    /// CPU of the whole server process per packet that arrived.
    pub user_us: f64,
    pub system_us: f64,
    pub packets_per_cpu_second: f64,
    pub server_cpu_percent: f64,
    pub busiest_thread_percent: f64,
    pub bot_cpu_percent: f64,
    /// Datagrams of media per message of the kernel.
    pub run_mean: f64,
    /// Share of packets by run length, percent; the last is that long and longer.
    pub runs_percent: [f64; RUNS],
    pub delay_p50_ms: f64,
    pub delay_p99_ms: f64,
    pub delay_p999_ms: f64,
    /// Of what should have come by sequence numbers, packets that our own sockets dropped included.
    pub lost_percent: f64,
    pub dropped_by_bot: u64,
    /// Of what was sent times who wants it.
    pub delivered_percent: f64,
    pub repairs: u64,
    pub nacks: u64,
    pub resident_mib: f64,
    pub first_media_p50_ms: f64,
    pub first_media_p95_ms: f64,
}

/// A crowd that joins.
#[derive(Debug, Clone, Serialize)]
pub struct Joins {
    pub people: usize,
    pub cpu_ms_per_join: f64,
    pub connected_p50_ms: f64,
    pub connected_p95_ms: f64,
    pub resident_kib_per_person: f64,
}

/// A crowd that subscribes.
#[derive(Debug, Clone, Serialize)]
pub struct Subscriptions {
    pub subscriptions: usize,
    pub resident_kib_per_subscription: f64,
}

/// People who come to somebody's video one at a time, so that each needs a key frame of their own.
#[derive(Debug, Clone, Serialize)]
pub struct Arrivals {
    pub people: usize,
    pub first_media_p50_ms: f64,
    pub first_media_p95_ms: f64,
}

pub fn forwarding(plan: &Plan, shape: &Shape) -> Result<Forwarding> {
    let mut server = Server::start(&plan.binary, plan.media_threads)?;
    let measured = forward(&server, plan, shape);
    measured.map_err(|error| error.context(format!("{}; the server wrote:\n{}", shape.name, server.log())))
}

/// As many rooms of a shape as keep one media thread about this busy, found by trying; the window says how busy it was.
pub fn forwarding_at(plan: &Plan, shape: &Shape, busy_percent: f64) -> Result<Forwarding> {
    let plan = Plan { media_threads: Some(1), ..plan.clone() };
    let trial = Plan { window: TRIAL, ..plan.clone() };
    let mut shape = *shape;
    for _ in 0..TRIALS_MAX {
        let reached = forwarding(&trial, &shape)?.busiest_thread_percent;
        let rooms = (shape.rooms as f64 * busy_percent / reached).round().max(1.0) as usize;
        if rooms == shape.rooms || (reached - busy_percent).abs() < BUSY_WITHIN {
            break;
        }
        shape.rooms = rooms;
    }
    forwarding(&plan, &shape)
}

fn forward(server: &Server, plan: &Plan, shape: &Shape) -> Result<Forwarding> {
    let mut crowd = Crowd::new(server)?;
    let rooms: Vec<_> = (0..shape.rooms).map(|room| format!("room{room}")).collect();
    for _ in 0..shape.publishers {
        for room in &rooms {
            crowd.join(room, shape.kinds, false)?;
            crowd.run_for(JOIN_EVERY)?;
        }
    }
    crowd.run_until("connected", |bot| bot.connected_after.is_some())?;
    let publishers = crowd.bots.len();
    for _ in 0..shape.subscribers {
        for room in &rooms {
            crowd.join(room, &[], true)?;
            crowd.run_for(JOIN_EVERY)?;
        }
    }
    let streams = shape.publishers * shape.kinds.len();
    crowd.run_until("connected", |bot| bot.connected_after.is_some())?;
    let subscribers = crowd.bots.len() - publishers;
    let receives = |crowd: &Crowd| {
        let streams: usize = crowd.bots.iter().map(|bot| bot.reception.streams().1).sum();
        streams >= shape.subscriptions()
    };
    let begin = Instant::now();
    while !receives(&crowd) {
        ensure!(begin.elapsed() < WARM_UP_MAX, "not all of {subscribers} people receive all {streams} streams");
        crowd.run_for(Duration::from_millis(50))?;
    }
    // Estimates have to grow before everything flows; what has not come by then is measured as it is.
    loop {
        crowd.totals = Totals::default();
        let sent = crowd.sent;
        crowd.run_for(Duration::from_secs(1))?;
        let expected = (crowd.sent - sent) as f64 * shape.subscribers as f64;
        if crowd.totals.packets as f64 > 0.99 * expected || begin.elapsed() > WARM_UP_MAX {
            break;
        }
    }

    let page = server.scrape()?;
    crowd.totals = Totals::default();
    let counted = |crowd: &Crowd| (crowd.sent, crowd.lost(), crowd.overflowed(), crowd.nacks);
    let (sent, lost, overflowed, nacks) = counted(&crowd);
    let (before, own, start) = (server.usage()?, Usage::of(std::process::id())?, Instant::now());
    crowd.run_for(plan.window)?;
    let (after, own_after, seconds) = (server.usage()?, Usage::of(std::process::id())?, start.elapsed().as_secs_f64());
    let end = counted(&crowd);
    let totals = std::mem::take(&mut crowd.totals);
    let (page_after, page_seconds) = (server.scrape()?, start.elapsed().as_secs_f64());

    let rate = |direction: &str| {
        let count = |page: &Metrics| page.sum("plenary_rtp_packets_total", &format!("direction=\"{direction}\""));
        (count(&page_after) - count(&page)) / page_seconds
    };
    let packets = totals.packets as f64;
    let (user_ns, system_ns) = after.cpu_since(&before);
    let (own_user_ns, own_system_ns) = own_after.cpu_since(&own);
    let percent_of_core = |ns: f64| ns / 1e7 / seconds;
    let lost = end.1.saturating_sub(lost) as f64;
    let mut delays = totals.delays_us;
    delays.sort_unstable();
    let delay = |share| percentile(&delays, share).map_or(f64::NAN, |us| f64::from(us) / 1_000.0);
    let runs: f64 = totals.runs.iter().map(|count| *count as f64).sum();
    let (first_media_p50_ms, first_media_p95_ms) = first_media(&crowd);
    Ok(Forwarding {
        rooms: shape.rooms,
        packets_in_per_s: rate("in"),
        packets_out_per_s: rate("out"),
        user_us: user_ns / 1_000.0 / packets,
        system_us: system_ns / 1_000.0 / packets,
        packets_per_cpu_second: packets * 1e9 / (user_ns + system_ns),
        server_cpu_percent: percent_of_core(user_ns + system_ns),
        busiest_thread_percent: percent_of_core(after.busiest_since(&before)),
        bot_cpu_percent: percent_of_core(own_user_ns + own_system_ns),
        run_mean: (packets + totals.repairs as f64) / runs,
        runs_percent: std::array::from_fn(|at| totals.runs[at] as f64 * (at + 1) as f64 * 100.0 / packets),
        delay_p50_ms: delay(0.5),
        delay_p99_ms: delay(0.99),
        delay_p999_ms: delay(0.999),
        lost_percent: lost * 100.0 / (packets + lost),
        dropped_by_bot: end.2 - overflowed,
        delivered_percent: packets * 100.0 / ((end.0 - sent) as f64 * shape.subscribers as f64),
        repairs: totals.repairs,
        nacks: end.3 - nacks,
        resident_mib: after.resident_bytes as f64 / f64::from(1 << 20),
        first_media_p50_ms,
        first_media_p95_ms,
    })
}

/// From the join to the first packet, p50 and p95, ms.
fn first_media(crowd: &Crowd) -> (f64, f64) {
    let mut after: Vec<_> = crowd.bots.iter().filter_map(|bot| bot.media_after).collect();
    after.sort_unstable();
    let at = |share| percentile(&after, share).map_or(f64::NAN, |after| after.as_secs_f64() * 1_000.0);
    (at(0.5), at(0.95))
}

/// People in rooms of ten, each with both transports and data channels; with a kind, everybody publishes a track and
/// negotiates those of the nine others. No media flows, so that only joining is measured.
pub fn joins(plan: &Plan, people: usize, kind: Option<MediaKind>) -> Result<Joins> {
    let server = Server::start(&plan.binary, plan.media_threads)?;
    let mut crowd = Crowd::new(&server)?;
    crowd.media = false;
    crowd.run_for(Duration::from_millis(500))?;
    let before = server.usage()?;
    let kinds: Vec<_> = kind.into_iter().collect();
    for number in 0..people {
        crowd.join(&format!("room{}", number / ROOM), &kinds, true)?;
        crowd.run_for(JOIN_EVERY)?;
    }
    crowd.run_until("connected", |bot| bot.connected_after.is_some())?;
    if kind.is_some() {
        let others = ROOM.min(people) - 1;
        crowd.run_until("told of the others' tracks", |bot| bot.reception.streams().0 == others)?;
    }
    crowd.run_for(Duration::from_millis(500))?;
    let after = server.usage()?;
    let mut connected: Vec<_> = crowd.bots.iter().filter_map(|bot| bot.connected_after).collect();
    connected.sort_unstable();
    let connected_ms = |share| percentile(&connected, share).map_or(f64::NAN, |after| after.as_secs_f64() * 1_000.0);
    let grown = after.resident_bytes.saturating_sub(before.resident_bytes);
    Ok(Joins {
        people,
        cpu_ms_per_join: (after.cpu_ns - before.cpu_ns) as f64 / 1e6 / people as f64,
        connected_p50_ms: connected_ms(0.5),
        connected_p95_ms: connected_ms(0.95),
        resident_kib_per_person: grown as f64 / 1024.0 / people as f64,
    })
}

/// Ten people talk; a hundred, who are there already, subscribe to all of them at once.
pub fn subscriptions(plan: &Plan) -> Result<Subscriptions> {
    let server = Server::start(&plan.binary, plan.media_threads)?;
    let mut crowd = Crowd::new(&server)?;
    for _ in 0..ROOM {
        crowd.join("room", &[MediaKind::Audio], false)?;
    }
    for _ in 0..LISTENERS {
        crowd.join("room", &[], false)?;
        crowd.run_for(JOIN_EVERY)?;
    }
    crowd.run_until("connected", |bot| bot.connected_after.is_some())?;
    let listens = |at: usize| at >= ROOM;
    crowd.run_for(Duration::from_secs(2))?;
    let before = server.usage()?;
    for (_, bot) in crowd.bots.iter_mut().enumerate().filter(|(at, _)| listens(*at)) {
        ensure!(bot.tracks.len() == ROOM, "everybody knows of all tracks");
        bot.subscribe(bot.tracks.clone())?;
    }
    let begin = Instant::now();
    while crowd.bots.iter().map(|bot| bot.reception.streams().1).sum::<usize>() < ROOM * LISTENERS {
        ensure!(begin.elapsed() < WARM_UP_MAX, "not everybody receives everything");
        crowd.run_for(Duration::from_millis(50))?;
    }
    crowd.run_for(Duration::from_secs(3))?;
    let grown = server.usage()?.resident_bytes.saturating_sub(before.resident_bytes);
    let subscriptions = ROOM * LISTENERS;
    Ok(Subscriptions { subscriptions, resident_kib_per_subscription: grown as f64 / 1024.0 / subscriptions as f64 })
}

pub fn arrivals(plan: &Plan) -> Result<Arrivals> {
    let server = Server::start(&plan.binary, plan.media_threads)?;
    let mut crowd = Crowd::new(&server)?;
    crowd.join("room", &[MediaKind::Video], false)?;
    crowd.run_until("connected", |bot| bot.connected_after.is_some())?;
    for _ in 0..ARRIVALS {
        crowd.run_for(ARRIVE_EVERY)?;
        crowd.join("room", &[], true)?;
    }
    crowd.run_for(ARRIVE_EVERY)?;
    let seeing = crowd.bots.iter().filter(|bot| bot.media_after.is_some()).count();
    ensure!(seeing == ARRIVALS, "{seeing} of {ARRIVALS} people see something");
    let (first_media_p50_ms, first_media_p95_ms) = first_media(&crowd);
    Ok(Arrivals { people: ARRIVALS, first_media_p50_ms, first_media_p95_ms })
}

fn percentile<T: Copy>(sorted: &[T], share: f64) -> Option<T> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * share).round() as usize).copied()
}

const TRIAL: Duration = Duration::from_secs(2);
const TRIALS_MAX: usize = 5;
/// Percent of a core.
const BUSY_WITHIN: f64 = 3.0;
pub const JOIN_EVERY: Duration = Duration::from_millis(10);
const WARM_UP_MAX: Duration = Duration::from_secs(15);
const ROOM: usize = 10;
const LISTENERS: usize = 100;
const ARRIVALS: usize = 20;
/// Longer than key frames are kept apart.
const ARRIVE_EVERY: Duration = Duration::from_millis(1_100);
