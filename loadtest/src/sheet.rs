//! The capacity sheet: tables for people, JSON for machines.

use serde::Serialize;

use crate::{
    floor::Floor,
    measure::{Arrivals, Forwarding, Joins, Subscriptions},
    process::Machine,
    shapes::Shape,
};

#[derive(Debug, Serialize)]
pub struct Sheet {
    pub machine: Machine,
    /// After the last measurement.
    pub load_average_after: String,
    pub window_s: f64,
    pub shapes: Vec<Measured>,
    pub joins_without_media: Vec<Joins>,
    pub joins_with_media: Vec<Joins>,
    pub subscriptions: Vec<Subscriptions>,
    pub arrivals: Vec<Arrivals>,
}

#[derive(Debug, Serialize)]
pub struct Measured {
    pub name: &'static str,
    pub peer_us: Option<f64>,
    pub aim_us: Option<f64>,
    /// One per repetition.
    pub windows: Vec<Forwarding>,
    /// Each after the window of the same place.
    pub floors: Vec<Floor>,
}

impl Measured {
    pub fn new(shape: &Shape) -> Self {
        let Shape { name, peer_us, aim_us, .. } = *shape;
        Self { name, peer_us, aim_us, windows: Vec::new(), floors: Vec::new() }
    }

    fn row(&self) -> String {
        let floor = |decimals, read: fn(&Floor) -> f64| range(&self.floors, decimals, read);
        let per_packet = |window: &Forwarding| window.user_us + window.system_us;
        let times: Vec<_> = self.windows.iter().zip(&self.floors).collect();
        let times = range(&times, 2, |(window, floor)| per_packet(window) / (floor.user_us + floor.system_us));
        let range = |decimals, read: fn(&Forwarding) -> f64| range(&self.windows, decimals, read);
        let peer = |peer: f64| format!("{peer} ({:.1} ×)", peer / median(&self.windows, per_packet));
        row(&[
            self.name.to_owned(),
            range(0, |all| all.rooms as f64),
            format!("{} / {}", range(0, |all| all.packets_in_per_s), range(0, |all| all.packets_out_per_s)),
            format!(
                "{} = {} + {}",
                range(2, |all| all.user_us + all.system_us),
                range(2, |all| all.user_us),
                range(2, |all| all.system_us)
            ),
            format!(
                "{} = {} + {}",
                floor(2, |all| all.user_us + all.system_us),
                floor(2, |all| all.user_us),
                floor(2, |all| all.system_us)
            ),
            times,
            self.aim_us.map_or("–".to_owned(), |aim| aim.to_string()),
            self.peer_us.map_or("–".to_owned(), peer),
            range(0, |all| all.packets_per_cpu_second / 1_000.0),
            format!("{} / {}", range(2, |all| all.run_mean), floor(2, |all| all.run_mean)),
            [range(2, |all| all.delay_p50_ms), range(2, |all| all.delay_p99_ms), range(1, |all| all.delay_p999_ms)]
                .join(" / "),
            range(3, |all| all.lost_percent),
            range(1, |all| all.delivered_percent),
            range(0, |all| all.resident_mib),
            format!("{} / {}", range(0, |all| all.first_media_p50_ms), range(0, |all| all.first_media_p95_ms)),
            [
                range(0, |all| all.server_cpu_percent),
                range(0, |all| all.busiest_thread_percent),
                range(0, |all| all.bot_cpu_percent),
            ]
            .join(" / "),
        ])
    }

    fn runs(&self) -> String {
        let last = self.windows.last().map(|window| window.runs_percent).unwrap_or_default();
        let runs = last.iter().enumerate().filter(|(_, share)| **share >= 0.5);
        let runs: Vec<_> = runs.map(|(at, share)| format!("{}: {share:.0} %", at + 1)).collect();
        row(&[self.name.to_owned(), runs.join(", ")])
    }
}

impl Sheet {
    pub fn tables(&self) -> String {
        let Machine { cpu, cores, kernel, commit, load_average } = &self.machine;
        let mut out = format!(
            "{cpu}, {cores} cores, Linux {kernel}, commit {commit}; load average {load_average} before, {} after; \
             windows of {} s. Median (range).\n",
            self.load_average_after, self.window_s
        );
        if !self.shapes.is_empty() {
            out += &format!("\n{}", head(&COLUMNS));
            self.shapes.iter().for_each(|shape| out += &shape.row());
            out += &format!("\n{}", head(&["Shape", "packets by how many left in one message"]));
            self.shapes.iter().for_each(|shape| out += &shape.runs());
        }
        if !self.joins_without_media.is_empty() {
            out += &format!("\n{}", head(&JOIN_COLUMNS));
            out += &joins("signalling, two transports, data channels", &self.joins_without_media);
            out += &joins("the same, with a microphone each and nine others' negotiated", &self.joins_with_media);
            let per = range(&self.subscriptions, 1, |all| all.resident_kib_per_subscription);
            out += &format!("\nMemory per subscription (1,000 of audio): {per} KiB\n");
            let [half, most] = [|all: &Arrivals| all.first_media_p50_ms, |all: &Arrivals| all.first_media_p95_ms]
                .map(|read| range(&self.arrivals, 0, read));
            out += &format!(
                "\nFrom the join to the first packet of video, one person at a time: p50 {half}, p95 {most} ms\n"
            );
        }
        out
    }
}

fn joins(name: &str, all: &[Joins]) -> String {
    let range = |decimals, read: fn(&Joins) -> f64| range(all, decimals, read);
    row(&[
        name.to_owned(),
        range(2, |all| all.cpu_ms_per_join),
        format!("{} / {}", range(0, |all| all.connected_p50_ms), range(0, |all| all.connected_p95_ms)),
        range(0, |all| all.resident_kib_per_person),
    ])
}

fn head(columns: &[&str]) -> String {
    let columns: Vec<_> = columns.iter().map(|column| (*column).to_owned()).collect();
    format!("{}|{}\n", row(&columns), "---|".repeat(columns.len()))
}

fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// `median (min–max)`, or the one value there is.
fn range<T>(all: &[T], decimals: usize, read: impl Fn(&T) -> f64) -> String {
    let of = |pick: fn(f64, f64) -> f64| all.iter().map(&read).reduce(pick).unwrap_or(f64::NAN);
    let median = median(all, &read);
    if all.len() < 2 {
        return format!("{median:.decimals$}");
    }
    format!("{median:.decimals$} ({:.decimals$}–{:.decimals$})", of(f64::min), of(f64::max))
}

fn median<T>(all: &[T], read: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<_> = all.iter().map(read).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

const COLUMNS: [&str; 16] = [
    "Shape",
    "rooms",
    "packets/s in / out",
    "CPU per forwarded packet, µs = user + system",
    "floor, µs = user + system",
    "÷ floor",
    "aim",
    "peer",
    "thousand packets per CPU-second",
    "packets per message / of the floor",
    "delay p50 / p99 / p99.9, ms",
    "lost, %",
    "delivered, %",
    "RSS, MiB",
    "join → first packet p50 / p95, ms",
    "CPU of server / its busiest thread / bot, % of a core",
];
const JOIN_COLUMNS: [&str; 4] =
    ["A join of 100 people", "CPU per join, ms", "connected p50 / p95, ms", "RSS per person, KiB"];
