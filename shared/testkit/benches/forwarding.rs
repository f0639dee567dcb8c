//! What a forwarded packet costs in user space, next to its floor: `cargo bench -p plenary-testkit`.
//!
//! The whole way of a packet through the router is on the clock: decrypt, parse, store, rewrite, seal, queue, and into a
//! sink that counts and drops. Making the input is not. The floor of the same run is the bare seal of the same bytes with
//! as many keys as there are subscribers; ratios to it travel between machines, nanoseconds do not. All time is CPU time of
//! this thread; media time is virtual.
#![allow(unsafe_code, reason = "a counting allocator and malloc's statistics, both in `measure`")]
#![allow(clippy::print_stdout, reason = "a report is what this program is for")]
#![allow(clippy::disallowed_methods, reason = "starts virtual time, asks the machine what it is")]

#[path = "forwarding/client.rs"]
mod client;
#[path = "forwarding/measure.rs"]
mod measure;
#[path = "forwarding/stage.rs"]
mod stage;

use std::{collections::BTreeMap, hint::black_box, process::Command, time::Duration};

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};
use plenary_media_core::{DropReason, Input, Path, Sink, Transmit};
use plenary_model::{MediaKind, Target};
use plenary_testkit::light::{Source, transport_sequence};

use self::{
    client::transport_feedback,
    measure::{CountingAllocator, Passes, Stopwatch, malloc_bytes},
    stage::{Kept, Stage},
};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() {
    let stopwatch = Stopwatch::calibrated();
    print_machine();
    let other = Seal::new(&AES_128_GCM, 50, 1_100).ns_per_packet(stopwatch);
    println!("Seal of 1,100 bytes with AEAD_AES_128_GCM, for comparison: {other:.0} ns");
    println!("\n| {} |\n|{}", COLUMNS.join(" | "), "---|".repeat(COLUMNS.len()));
    // Cargo adds an option of its own; a word picks shapes by their names.
    let word = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).unwrap_or_default();
    for shape in SHAPES.iter().filter(|shape| shape.name.contains(&word)) {
        println!("{}", measure_shape(shape, stopwatch));
    }
    println!();
    print_join(stopwatch);
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

/// Rooms and what is said in them.
struct Shape {
    name: &'static str,
    rooms: usize,
    publishers: usize,
    /// Besides the publishers, who receive each other.
    subscribers: usize,
    kind: MediaKind,
    /// Of the packets of one frame, header included.
    sizes: &'static [usize],
}

const SHAPES: &[Shape] = &[
    video("video 1 → 50", 1, 50, &[1_100; 5]),
    video("video 1 → 50, split as browsers do", 1, 50, &[1_099, 1_099, 1_099, 1_100, 1_100]),
    video("video 10 × (1 → 20)", 10, 20, &[1_100; 5]),
    video("video 40 × (1 → 50)", 40, 50, &[1_100; 5]),
    Shape { name: "audio 10 × 10", rooms: 1, publishers: 10, subscribers: 0, kind: MediaKind::Audio, sizes: &[100] },
];

const fn video(name: &'static str, rooms: usize, subscribers: usize, sizes: &'static [usize]) -> Shape {
    Shape { name, rooms, publishers: 1, subscribers, kind: MediaKind::Video, sizes }
}

impl Shape {
    fn frame_interval(&self) -> Duration {
        match self.kind {
            MediaKind::Audio => Duration::from_millis(20),
            MediaKind::Video => Duration::from_micros(33_333),
        }
    }

    fn outputs_per_tick(&self) -> usize {
        let receivers = self.publishers - 1 + self.subscribers;
        self.rooms * self.publishers * receivers * self.sizes.len()
    }

    fn outputs_per_subscriber(&self) -> usize {
        self.sizes.len() * (self.publishers - usize::from(self.subscribers == 0))
    }
}

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
            let packets = transmit.segment_bytes.map_or(1, |bytes| transmit.bytes.len().div_ceil(bytes));
            self.outputs += packets as u64;
            *self.runs.entry(packets).or_default() += 1;
        }
        batch.len()
    }
}

/// RFC 5761 4: what is not RTCP, of RTP's version.
fn is_rtp(datagram: &[u8]) -> bool {
    matches!(datagram, [first, second, ..] if first >> 6 == 2 && !(192..224).contains(second))
}

/// One tick is one frame of everybody, spread evenly over its time.
struct Call<'s> {
    shape: &'s Shape,
    stage: Stage,
    sources: Vec<Source>,
    stopwatch: Stopwatch,
    ticks: u32,
}

/// What one or more ticks cost.
#[derive(Default)]
struct Cost {
    forward_ns: u64,
    forward_allocations: u64,
    timers_ns: u64,
    feedback_ns: u64,
    /// Of timers and feedback.
    other_allocations: u64,
}

impl<'s> Call<'s> {
    fn new(shape: &'s Shape, stopwatch: Stopwatch) -> Self {
        let mut stage = Stage::new(stopwatch);
        let mut sources = Vec::new();
        for _ in 0..shape.rooms {
            let publishers: Vec<_> = (0..shape.publishers).map(|_| stage.open(Target::Publisher, false)).collect();
            let tracks: Vec<_> = publishers.iter().map(|at| stage.publish(*at, Some(shape.kind))).collect();
            for me in 0..shape.publishers - 1 + shape.subscribers.max(1) {
                let others = tracks.iter().enumerate().filter(|(at, _)| shape.publishers == 1 || *at != me);
                let wanted: Vec<_> = others.map(|(_, track)| track.clone()).collect();
                let subscriber = stage.open(Target::Subscriber, false);
                stage.subscribe(subscriber, &wanted);
                stage.connect(subscriber);
            }
            for at in publishers {
                stage.connect(at);
                sources.push(Source::new(at, shape.kind, 0));
            }
        }
        Self { shape, stage, sources, stopwatch, ticks: 0 }
    }

    fn tick(&mut self, sink: &mut dyn Sink, cost: &mut Cost) {
        let mut frames: Vec<(Path, Vec<Vec<u8>>)> = Vec::with_capacity(self.sources.len());
        for source in &mut self.sources {
            let client = &mut self.stage.clients[source.client];
            let (keys, _) = client.transport.keys.as_mut().expect("it is connected");
            frames.push((client.path, source.frame(keys, self.shape.sizes, &[])));
        }
        let step = self.shape.frame_interval() / frames.len() as u32;
        let (router, now) = (&mut self.stage.router, &mut self.stage.now);
        let before = CountingAllocator::allocations();
        cost.forward_ns += self.stopwatch.ns(|| {
            for (path, packets) in &mut frames {
                for packet in packets {
                    router.handle(*now, Input::Datagram { path: *path, received: *now, bytes: packet });
                }
                router.transmit(sink);
                *now += step;
            }
        });
        let between = CountingAllocator::allocations();
        // What a pacer held leaves here.
        cost.timers_ns += self.stopwatch.ns(|| {
            router.handle_timeout(*now);
            router.transmit(sink);
            while let Some(event) = router.poll_event() {
                drop(event);
            }
        });
        cost.forward_allocations += between - before;
        cost.other_allocations += CountingAllocator::allocations() - between;
        self.ticks += 1;
        if self.ticks.is_multiple_of(TICKS_PER_FEEDBACK) {
            self.feedback(cost);
        }
        self.stage.keep_alive();
    }

    /// Every subscriber tells what arrived since it last did.
    fn feedback(&mut self, cost: &mut Cost) {
        let count = TICKS_PER_FEEDBACK as usize * self.shape.outputs_per_subscriber();
        let reference = self.ticks * self.shape.frame_interval().as_millis() as u32 / 64;
        let (mut datagrams, number) = (Vec::new(), (self.ticks / TICKS_PER_FEEDBACK) as u8);
        for client in &mut self.stage.clients {
            let (Some(next), Some((keys, _))) = (&mut client.next_transport_sequence, &mut client.transport.keys)
            else {
                continue;
            };
            let feedback = transport_feedback(*next, count as u16, reference, number);
            datagrams.push((client.path, keys.encrypt_rtcp(&feedback).expect("feedback is sealed").to_vec()));
            *next = next.wrapping_add(count as u16);
        }
        let (router, now) = (&mut self.stage.router, self.stage.now);
        let before = CountingAllocator::allocations();
        cost.feedback_ns += self.stopwatch.ns(|| {
            for (path, bytes) in &mut datagrams {
                router.handle(now, Input::Datagram { path: *path, received: now, bytes });
            }
        });
        cost.other_allocations += CountingAllocator::allocations() - before;
    }

    /// What leaves is what came in, for everybody, and can be opened.
    fn check(&mut self) {
        let mut kept = Kept::default();
        while !(self.ticks + 1).is_multiple_of(TICKS_PER_FEEDBACK) {
            self.tick(&mut Dropped, &mut Cost::default());
        }
        self.tick(&mut kept, &mut Cost::default());
        let media: Vec<_> = kept.0.into_iter().filter(|(_, datagram)| is_rtp(datagram)).collect();
        assert!(media.len() >= self.shape.outputs_per_tick(), "every packet reaches everybody: {}", media.len());
        for client in &mut self.stage.clients {
            let Some((_, datagram)) = media.iter().rfind(|(to, _)| *to == client.path.remote) else { continue };
            let (_, keys) = client.transport.keys.as_mut().expect("it is connected");
            let opened = keys.decrypt_rtp(datagram).expect("it is authentic");
            assert!(opened.ends_with(&[0x5a; 32]), "the payload is the publisher's");
            let number = transport_sequence(&opened).expect("it was negotiated");
            client.next_transport_sequence = Some(number.wrapping_add(1));
        }
    }
}

/// Feedback and reports, which nobody reads here.
struct Dropped;

impl Sink for Dropped {
    fn send(&mut self, batch: &[Transmit<'_>]) -> usize {
        batch.len()
    }
}

fn measure_shape(shape: &Shape, stopwatch: Stopwatch) -> String {
    let mut call = Call::new(shape, stopwatch);
    call.tick(&mut Dropped, &mut Cost::default());
    call.check();
    for _ in 0..WARM_UP_TICKS {
        call.tick(&mut Dropped, &mut Cost::default());
    }
    let seal = Seal::new(&AES_256_GCM, call.stage.clients.len(), shape.sizes[0]);
    let ticks = OUTPUTS_PER_RUN.div_ceil(shape.outputs_per_tick());
    let [mut forward, mut alone, mut ratio, mut timers, mut feedback] = std::array::from_fn(|_| Passes::default());
    let (mut total, mut count) = (Cost::default(), Count::default());
    let forwarded_before = call.stage.router.counters().packets_out.get();
    for _ in 0..PASSES {
        for passes in [&mut forward, &mut alone, &mut ratio, &mut timers, &mut feedback] {
            passes.start_pass();
        }
        for _ in 0..RUNS {
            let mut cost = Cost::default();
            for _ in 0..ticks {
                call.tick(&mut count, &mut cost);
            }
            let outputs = (ticks * shape.outputs_per_tick()) as f64;
            // Right after, so that both meet the same neighbours.
            let floor = seal.ns_per_packet(stopwatch);
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
    let counters = call.stage.router.counters();
    let forwarded = counters.packets_out.get() - forwarded_before;
    let dropped: u64 = DROPS.iter().map(|reason| counters.dropped(*reason)).sum();
    assert_eq!((forwarded, dropped), (expected, 0), "nothing is lost");
    // The last frame may still be held; probes for what the path takes come on top.
    assert!(count.outputs >= expected - shape.outputs_per_tick() as u64, "{} of {expected} left", count.outputs);
    let per_output = |allocations: u64| allocations as f64 / expected as f64;
    let transports = call.stage.clients.len() as u64;
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

/// The floor: one packet after the other sealed in place, each with the next subscriber's key.
struct Seal {
    keys: Vec<LessSafeKey>,
    bytes: usize,
}

impl Seal {
    fn new(algorithm: &'static Algorithm, keys: usize, bytes: usize) -> Self {
        let key = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            let key = bytes.get(..algorithm.key_len()).expect("no key is longer");
            LessSafeKey::new(UnboundKey::new(algorithm, key).expect("a key of the right length"))
        };
        Self { keys: (0..keys).map(key).collect(), bytes }
    }

    fn ns_per_packet(&self, stopwatch: Stopwatch) -> f64 {
        let rounds = OUTPUTS_PER_RUN.div_ceil(self.keys.len());
        let mut packet = vec![0x5a; self.bytes];
        let (header, payload) = packet.split_at_mut(HEADER_BYTES);
        let ns = stopwatch.ns(|| {
            for round in 0..rounds as u64 {
                for key in &self.keys {
                    let mut nonce = [0; 12];
                    nonce[4..].copy_from_slice(&round.to_be_bytes());
                    let nonce = Nonce::assume_unique_for_key(nonce);
                    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&*header), payload);
                    let _ = black_box(tag.expect("a packet is sealed"));
                }
            }
        });
        ns as f64 / (rounds * self.keys.len()) as f64
    }
}

/// What the engine does for a participant until both transports stand: descriptions, check, handshake.
fn print_join(stopwatch: Stopwatch) {
    let (mut join, mut described) = (Passes::default(), Passes::default());
    let (mut heap, mut with_c) = (0, 0);
    for _ in 0..PASSES {
        join.start_pass();
        described.start_pass();
        let mut stage = Stage::new(stopwatch);
        for _ in 0..PARTICIPANTS {
            let before = stage.router_ns;
            let publisher = stage.open(Target::Publisher, false);
            stage.publish(publisher, None);
            let subscriber = stage.open(Target::Subscriber, true);
            stage.subscribe(subscriber, &[]);
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

const PASSES: usize = 3;
const RUNS: usize = 7;
const OUTPUTS_PER_RUN: usize = 120_000;
/// Until every packet store and queue has grown to what it needs.
const WARM_UP_TICKS: usize = 300;
/// 100 ms of video, as browsers do.
const TICKS_PER_FEEDBACK: u32 = 3;
const PARTICIPANTS: u64 = 40;
/// RTP header with two words of extensions, as packets leave.
const HEADER_BYTES: usize = 24;

/// Reasons that something of the clients' could be dropped for.
const DROPS: &[DropReason] = &[
    DropReason::RtpMalformed,
    DropReason::SrtpNotAuthentic,
    DropReason::RtcpMalformed,
    DropReason::SrtcpNotAuthentic,
    DropReason::SrtpReplayed,
    DropReason::UnknownAddress,
    DropReason::UnknownStream,
    DropReason::UnknownPayloadType,
    DropReason::QueueFull,
    DropReason::NotConnected,
    DropReason::TooOld,
    DropReason::Duplicate,
];
