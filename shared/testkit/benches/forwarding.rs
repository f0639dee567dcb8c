//! What a forwarded packet costs in user space, next to its floor: `cargo bench -p plenary-testkit --bench
//! forwarding`.
//!
//! The whole way of a packet through the router is on the clock: decrypt, parse, store, rewrite, seal, queue, and into a
//! sink that counts and drops. Making the input is not. The floor of the same run is the bare seal of the same bytes with
//! as many keys as there are subscribers; ratios to it travel between machines, nanoseconds do not. All time is CPU time of
//! this thread; media time is virtual.
#![allow(unsafe_code, reason = "a counting allocator and malloc's statistics, both in `allocator`")]
#![allow(clippy::print_stdout, reason = "a report is what this program is for")]
#![allow(clippy::disallowed_methods, reason = "starts virtual time, asks the machine what it is")]

#[path = "forwarding/allocator.rs"]
mod allocator;

use std::{collections::BTreeMap, process::Command};

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM};
use plenary_media_core::{Sink, Transmit};
use plenary_model::{Quality, Target};
use plenary_testkit::{
    light::Section,
    stage::{Call, Dropped, Hop, Media, Meter, Part, Passes, Seal, Shape, Stage, Stopwatch, is_rtp, packets},
};

use self::allocator::{CountingAllocator, malloc_bytes};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() {
    let stopwatch = Stopwatch::calibrated();
    print_machine();
    let other = Seal::new(&AES_128_GCM, 50, 1_100).ns_per_packet(stopwatch, OUTPUTS_PER_RUN);
    println!("Seal of 1,100 bytes with AEAD_AES_128_GCM, for comparison: {other:.0} ns");
    println!("\n| {} |\n|{}", COLUMNS.join(" | "), "---|".repeat(COLUMNS.len()));
    // Cargo adds an option of its own; a word picks shapes by their names, `subscriptions`, `joins` and `hops` the other tables.
    let word = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).unwrap_or_default();
    for shape in SHAPES.iter().filter(|shape| shape.name.contains(&word)) {
        println!("{}", measure_shape(shape, stopwatch));
    }
    if "subscriptions".contains(&word) {
        print_subscriptions(stopwatch);
    }
    if "joins".contains(&word) {
        print_join(stopwatch);
    }
    if "hops".contains(&word) {
        print_hops(stopwatch);
    }
}

/// Times are in ns per output packet. `timers` is what falls due meanwhile, `feedback` what subscribers say.
const COLUMNS: [&str; 9] = [
    "Shape",
    "forwarded",
    "seal alone",
    "ratio",
    "timers",
    "feedback",
    "allocations per output: packets / the rest",
    "heap per transport",
    "packets per message",
];

const SHAPES: &[Shape] = &[
    Shape::video("video 1 → 50", 1, 50, &[1_100; 5]),
    Shape::video("video 1 → 50, split as browsers do", 1, 50, &[1_099, 1_099, 1_099, 1_100, 1_100]),
    Shape::video("video 10 × (1 → 20)", 10, 20, &[1_100; 5]),
    Shape::video("video 40 × (1 → 50)", 40, 50, &[1_100; 5]),
    Shape {
        name: "simulcast 1 → 51, each layer to a third",
        rooms: 1,
        publishers: 1,
        subscribers: 51,
        media: Media::Simulcast([&[600], &[1_100; 2], &[1_100; 5]]),
        is_recorded: false,
    },
    Shape {
        name: "audio 10 × 10",
        rooms: 1,
        publishers: 10,
        subscribers: 0,
        media: Media::Audio(&[100]),
        is_recorded: false,
    },
];

/// Counts and drops.
#[derive(Default)]
struct Count {
    outputs: u64,
    /// How often a message had so many packets.
    runs: BTreeMap<usize, u64>,
}

impl Sink for Count {
    fn send(&mut self, batch: &[Transmit<'_>]) -> usize {
        for transmit in batch.iter().filter(|transmit| is_rtp(transmit.bytes)) {
            let packets = packets(transmit);
            self.outputs += packets as u64;
            *self.runs.entry(packets).or_default() += 1;
        }
        batch.len()
    }
}

/// What one or more ticks cost.
struct Cost {
    stopwatch: Stopwatch,
    forward_ns: u64,
    timers_ns: u64,
    feedback_ns: u64,
    forward_allocations: u64,
    /// Of timers and feedback.
    other_allocations: u64,
}

impl Cost {
    fn new(stopwatch: Stopwatch) -> Self {
        let [forward_ns, timers_ns, feedback_ns, forward_allocations, other_allocations] = [0; 5];
        Self { stopwatch, forward_ns, timers_ns, feedback_ns, forward_allocations, other_allocations }
    }
}

impl Meter for Cost {
    fn measure(&mut self, part: Part, work: &mut dyn FnMut()) {
        let before = CountingAllocator::allocations();
        let ns = self.stopwatch.ns(work);
        let allocations = CountingAllocator::allocations() - before;
        let (sum_ns, sum) = match part {
            Part::Packets => (&mut self.forward_ns, &mut self.forward_allocations),
            Part::Timers => (&mut self.timers_ns, &mut self.other_allocations),
            Part::Feedback => (&mut self.feedback_ns, &mut self.other_allocations),
        };
        *sum_ns += ns;
        *sum += allocations;
    }
}

fn measure_shape(shape: &Shape, stopwatch: Stopwatch) -> String {
    let mut call = Call::steady(*shape);
    let seal = Seal::new(&AES_256_GCM, call.transports(), first_size(shape));
    let ticks = OUTPUTS_PER_RUN.div_ceil(shape.outputs_per_tick());
    let [mut forward, mut alone, mut ratio, mut timers, mut feedback] = std::array::from_fn(|_| Passes::default());
    let (mut total, mut count) = (Cost::new(stopwatch), Count::default());
    let before = call.forwarded_and_dropped();
    for _ in 0..PASSES {
        for passes in [&mut forward, &mut alone, &mut ratio, &mut timers, &mut feedback] {
            passes.start_pass();
        }
        for _ in 0..RUNS {
            let mut cost = Cost::new(stopwatch);
            for _ in 0..ticks {
                call.tick(&mut count, &mut cost);
            }
            let outputs = (ticks * shape.outputs_per_tick()) as f64;
            // Right after, so that both meet the same neighbours.
            let floor = seal.ns_per_packet(stopwatch, OUTPUTS_PER_RUN);
            forward.add(cost.forward_ns as f64 / outputs);
            timers.add(cost.timers_ns as f64 / outputs);
            feedback.add(cost.feedback_ns as f64 / outputs);
            alone.add(floor);
            ratio.add(cost.forward_ns as f64 / outputs / floor);
            total.forward_allocations += cost.forward_allocations;
            total.other_allocations += cost.other_allocations;
        }
    }
    let expected = (PASSES * RUNS * ticks * shape.outputs_per_tick()) as u64;
    let after = call.forwarded_and_dropped();
    assert_eq!((after.0 - before.0, after.1 - before.1), (expected, 0), "nothing is lost: {}", shape.name);
    // The last frame may still be held; probes for what the path takes come on top.
    assert!(count.outputs >= expected - shape.outputs_per_tick() as u64, "{} of {expected} left", count.outputs);
    let per_output = |allocations: u64| allocations as f64 / expected as f64;
    let transports = call.transports() as u64;
    let heap = freed_by_drop(call.stage.router).0 / transports;
    let messages: u64 = count.runs.values().sum();
    let runs: Vec<_> =
        count.runs.iter().map(|(k, n)| format!("{k}: {:.0} %", *n as f64 * 100.0 / messages as f64)).collect();
    format!(
        "| {} | {} | {} | {} | {} | {} | {:.5} / {:.5} | {} KiB | {} |",
        shape.name,
        forward.show(0),
        alone.show(0),
        ratio.show(2),
        timers.show(1),
        feedback.show(1),
        per_output(total.forward_allocations),
        per_output(total.other_allocations),
        heap / 1024,
        runs.join(", "),
    )
}

fn first_size(shape: &Shape) -> usize {
    match shape.media {
        Media::Audio(sizes) | Media::Video(sizes) | Media::Simulcast([.., sizes]) => sizes[0],
    }
}

/// What one more subscription of a track costs when there are many: everything in the same run, one after the other.
fn print_subscriptions(stopwatch: Stopwatch) {
    let sizes: &[usize] = &[1_100; 5];
    let shapes = SUBSCRIPTIONS.map(|subscribers| Shape::video("", 1, subscribers, sizes));
    let mut calls = shapes.map(|shape| (shape, Call::steady(shape)));
    let seals = SUBSCRIPTIONS.map(|keys| Seal::new(&AES_256_GCM, keys, sizes[0]));
    let mut rows = SUBSCRIPTIONS.map(|_| <[Passes; 7]>::default());
    for _ in 0..PASSES {
        rows.iter_mut().flatten().for_each(Passes::start_pass);
        for _ in 0..RUNS {
            let mut first = None;
            for (((shape, call), seal), passes) in calls.iter_mut().zip(&seals).zip(&mut rows) {
                let ticks = OUTPUTS_PER_RUN.div_ceil(shape.outputs_per_tick());
                let mut cost = Cost::new(stopwatch);
                for _ in 0..ticks {
                    call.tick(&mut Dropped, &mut cost);
                }
                let outputs = (ticks * shape.outputs_per_tick()) as f64;
                let [forward, timers, feedback] =
                    [cost.forward_ns, cost.timers_ns, cost.feedback_ns].map(|ns| ns as f64 / outputs);
                let whole = forward + timers + feedback;
                let ratio = whole / *first.get_or_insert(whole);
                let allocations = cost.forward_allocations as f64 / outputs;
                let values = [
                    forward,
                    timers,
                    feedback,
                    whole,
                    ratio,
                    allocations,
                    seal.ns_per_packet(stopwatch, OUTPUTS_PER_RUN),
                ];
                passes.iter_mut().zip(values).for_each(|(passes, value)| passes.add(value));
            }
        }
    }
    println!(
        "\n| Subscriptions of one video | forwarded | timers | feedback | together | ÷ that of 10 | allocations | seal alone |"
    );
    println!("|{}", "---|".repeat(8));
    for (subscriptions, [forward, timers, feedback, whole, ratio, allocations, seal]) in SUBSCRIPTIONS.iter().zip(&rows)
    {
        println!(
            "| {subscriptions} | {} | {} | {} | {} | {} | {} | {} |",
            forward.show(0),
            timers.show(1),
            feedback.show(1),
            whole.show(0),
            ratio.show(2),
            allocations.show(5),
            seal.show(0),
        );
    }
    println!();
}

/// What media costs that goes to another router first: there, here, and on the way between them.
fn print_hops(stopwatch: Stopwatch) {
    println!(
        "\n| From router to router | first, per packet | second, per packet and subscriber | allocations per packet \
         | bytes on the link per byte of the track |"
    );
    println!("|---|---|---|---|---|");
    for subscribers in [1, 50] {
        let mut hop = Hop::steady(subscribers);
        let [mut near, mut far] = std::array::from_fn(|_| Passes::default());
        let (mut allocations, before, carried) = (0, hop.sent_to_clients(), hop.carried());
        for _ in 0..PASSES {
            near.start_pass();
            far.start_pass();
            for _ in 0..HOP_RUNS {
                let [mut sends, mut receives] = std::array::from_fn(|_| HopMeter { stopwatch, ns: 0, allocations: 0 });
                (0..HOP_FRAMES).for_each(|_| hop.frame(&mut sends, &mut receives));
                near.add(sends.ns as f64 / (HOP_FRAMES * Hop::PACKETS) as f64);
                far.add(receives.ns as f64 / (HOP_FRAMES * Hop::PACKETS * subscribers) as f64);
                allocations += sends.allocations + receives.allocations;
            }
        }
        let packets = PASSES * HOP_RUNS * HOP_FRAMES * Hop::PACKETS;
        assert!(hop.sent_to_clients() - before >= (packets * subscribers) as u64, "everybody got everything");
        let each = allocations as f64 / packets as f64;
        let [media, link] = std::array::from_fn(|at| (hop.carried()[at] - carried[at]) as f64);
        let share = link / media;
        println!("| video 1 → {subscribers} | {} | {} | {each:.5} | {share:.3} |", near.show(0), far.show(0));
    }
}

struct HopMeter {
    stopwatch: Stopwatch,
    ns: u64,
    allocations: u64,
}

impl Meter for HopMeter {
    fn measure(&mut self, _: Part, work: &mut dyn FnMut()) {
        let before = CountingAllocator::allocations();
        self.ns += self.stopwatch.ns(work);
        self.allocations += CountingAllocator::allocations() - before;
    }
}

/// What the engine does for a participant until both transports stand: descriptions, check, handshake.
fn print_join(stopwatch: Stopwatch) {
    let (mut join, mut described) = (Passes::default(), Passes::default());
    let (mut heap, mut with_c) = (0, 0);
    for _ in 0..PASSES {
        join.start_pass();
        described.start_pass();
        let mut stage = Stage::new(Some(stopwatch));
        for _ in 0..PARTICIPANTS {
            let before = stage.router_ns;
            let publisher = stage.open(Target::Publisher, false);
            stage.publish(publisher, Section::Data);
            let subscriber = stage.open(Target::Subscriber, true);
            stage.subscribe(subscriber, &[], Quality::High);
            described.add((stage.router_ns - before) as f64 / 1_000.0);
            stage.connect(publisher);
            stage.connect(subscriber);
            join.add((stage.router_ns - before) as f64 / 1_000.0);
        }
        let (rust, all) = freed_by_drop(stage.router);
        (heap, with_c) = (rust / PARTICIPANTS, all / PARTICIPANTS);
    }
    println!("| Join, two transports, data channels only | |\n|---|---|");
    println!("| engine CPU, µs | {} |", join.show(0));
    println!("| of which descriptions, µs | {} |", described.show(0));
    println!("| heap per participant | {} KiB, with C code and malloc's own {} KiB |", heap / 1024, with_c / 1024);
}

/// By the allocator of Rust code, and by malloc.
fn freed_by_drop(router: plenary_media_core::Router) -> (u64, u64) {
    let before = (CountingAllocator::live_bytes(), malloc_bytes());
    drop(router);
    (before.0 - CountingAllocator::live_bytes(), before.1.saturating_sub(malloc_bytes()))
}

fn print_machine() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&output).trim().to_owned()
    };
    let changed = if git(&["status", "--porcelain", "--untracked-files=no"]).is_empty() { "" } else { " and changes" };
    println!("CPU: {}", cpu.trim_start_matches([' ', '\t', ':']));
    println!("Kernel: {}", read("/proc/sys/kernel/osrelease").trim());
    println!("Commit: {}{changed}", git(&["rev-parse", "--short", "HEAD"]));
    println!("Load: {}", read("/proc/loadavg").trim());
    println!("Cipher: AEAD_AES_256_GCM; median of {PASSES} passes of {RUNS} runs (min–max)");
}

const SUBSCRIPTIONS: [usize; 3] = [10, 100, 1_000];
const PASSES: usize = 3;
const HOP_RUNS: usize = 5;
const HOP_FRAMES: usize = 100;
const RUNS: usize = 7;
const OUTPUTS_PER_RUN: usize = 120_000;
const PARTICIPANTS: u64 = 40;
