//! What forwarding costs down to a network device, next to its floor: `cargo bench -p plenary --bench tx_device`.
//!
//! Loopback charges the sender for delivery as well and drifts. So the program runs itself in a network namespace of its own
//! whose only way out is an `ifb` device, which drops what it is given: the way of a real host, less its driver. On the
//! clock is everything from a datagram in memory to the device: decrypt, parse, store, rewrite, seal, queue, and the node's
//! own socket. The floor of the same run is sending packets of that size, in the same runs, to as many addresses, and
//! sealing them. All time is CPU time of this thread, kernel included; media time is virtual.
//!
//! Needs `unshare` (util-linux), `ip` (iproute2), user namespaces and a kernel with `ifb`.
#![allow(clippy::print_stdout, reason = "a report is what this program is for")]

use std::{
    io::IoSlice,
    net::{Ipv4Addr, UdpSocket as StdSocket},
    os::fd::AsRawFd,
    process::Command,
    sync::Arc,
};

use aws_lc_rs::aead::AES_256_GCM;
use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, sendmmsg},
};
use plenary::media_router::{
    counters::IoCounters,
    socket::{DatagramSocket, Offload, UdpSocket, bind},
};
use plenary_media_core::{Sink, Transmit};
use plenary_testkit::stage::{Call, Meter, Part, Passes, Seal, Shape, Stopwatch};

fn main() {
    if std::env::args().any(|argument| argument == INSIDE) {
        return measure();
    }
    let script = "ip link add ifb0 type ifb && ip address add 10.255.0.1/30 dev ifb0 && ip link set ifb0 up && \
                  ip route add default via 10.255.0.2 && exec \"$0\" \"$1\"";
    let mut namespace = Command::new("unshare");
    namespace
        .args(["-Urn", "sh", "-c", script])
        .arg(std::env::current_exe().expect("a program has a path"))
        .arg(INSIDE);
    let status = namespace.status().expect("unshare is installed");
    assert!(status.success(), "no namespace with an ifb device, or nothing measured in it");
}

fn measure() {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("Load: {}; median of {PASSES} passes of {RUNS} runs (min–max), ns per packet", load.trim());
    println!("| 1 → 50 through a device | whole | send alone | seal alone | ÷ (send + seal) |\n|---|---|---|---|---|");
    println!("{}", row("one by one", Offload::Off, 1));
    println!("{}", row("GSO, runs of 5", Offload::On, FRAME.len()));
}

fn row(name: &str, gso: Offload, run: usize) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let _here = runtime.enter();
    let counters = Arc::new(IoCounters::default());
    let socket = bind(SOURCE.into(), 0).expect("the address is the namespace's");
    let mut socket = Exit(UdpSocket::new(socket, gso, Offload::Off, Arc::clone(&counters)).expect("it is registered"));
    let mut call = Call::steady(Shape::video("", 1, SUBSCRIBERS, FRAME));
    let stopwatch = Stopwatch::calibrated();
    let mut floor = Floor::new(run);
    let seal = Seal::new(&AES_256_GCM, SUBSCRIBERS, FRAME[0]);
    let ticks = PACKETS_PER_RUN.div_ceil(SUBSCRIBERS * FRAME.len());
    let [mut whole, mut send, mut sealing, mut ratio] = std::array::from_fn(|_| Passes::default());
    for _ in 0..PASSES {
        [&mut whole, &mut send, &mut sealing, &mut ratio].into_iter().for_each(Passes::start_pass);
        for _ in 0..RUNS {
            let before = counters.datagrams_out.value();
            let mut cost = Cost { stopwatch, ns: 0 };
            for _ in 0..ticks {
                call.tick(&mut socket, &mut cost);
            }
            let sent = counters.datagrams_out.value() - before;
            let expected = (ticks * SUBSCRIBERS * FRAME.len()) as u64;
            assert!((expected..expected + expected / 50).contains(&sent), "all packets and some reports: {sent}");
            let whole_ns = cost.ns as f64 / expected as f64;
            let send_ns = floor.ns_per_packet(stopwatch);
            let seal_ns = seal.ns_per_packet(stopwatch, PACKETS_PER_RUN);
            whole.add(whole_ns);
            send.add(send_ns);
            sealing.add(seal_ns);
            ratio.add(whole_ns / (send_ns + seal_ns));
        }
    }
    format!("| {name} | {} | {} | {} | {} |", whole.show(0), send.show(0), sealing.show(0), ratio.show(2))
}

/// The node's own socket.
struct Exit(UdpSocket);

impl Sink for Exit {
    fn send(&mut self, batch: &[Transmit<'_>]) -> usize {
        self.0.send(batch)
    }
}

/// What packets and timers cost; what subscribers say is another matter.
struct Cost {
    stopwatch: Stopwatch,
    ns: u64,
}

impl Meter for Cost {
    fn measure(&mut self, part: Part, work: &mut dyn FnMut()) {
        match part {
            Part::Packets | Part::Timers => self.ns += self.stopwatch.ns(work),
            Part::Feedback => work(),
        }
    }
}

/// Bare `sendmmsg` of one message to each subscriber, each a run of so many packets.
struct Floor {
    socket: StdSocket,
    headers: MultiHeaders<SockaddrIn>,
    addresses: Vec<Option<SockaddrIn>>,
    message: Vec<u8>,
    run: usize,
}

impl Floor {
    fn new(run: usize) -> Self {
        let address = |number: usize| Some(SockaddrIn::new(10, 0, 1, number as u8, 5_000));
        Self {
            socket: StdSocket::bind((SOURCE, 0)).expect("the address is the namespace's"),
            headers: MultiHeaders::preallocate(SUBSCRIBERS, (run > 1).then(|| cmsg_space!(u16))),
            addresses: (1..=SUBSCRIBERS).map(address).collect(),
            message: vec![0x5a; run * SEALED_BYTES],
            run,
        }
    }

    fn ns_per_packet(&mut self, stopwatch: Stopwatch) -> f64 {
        let Self { socket, headers, addresses, message, run } = self;
        let size = SEALED_BYTES as u16;
        let controls: &[_] = if *run > 1 { &[ControlMessage::UdpGsoSegments(&size)] } else { &[] };
        let slices: Vec<_> = (0..SUBSCRIBERS).map(|_| [IoSlice::new(message)]).collect();
        let rounds = PACKETS_PER_RUN.div_ceil(SUBSCRIBERS * *run);
        let ns = stopwatch.ns(|| {
            for _ in 0..rounds {
                let flags = MsgFlags::MSG_DONTWAIT;
                let sent = sendmmsg(socket.as_raw_fd(), headers, &slices, &*addresses, controls, flags);
                assert_eq!(sent.map(Iterator::count), Ok(SUBSCRIBERS));
            }
        });
        ns as f64 / (rounds * SUBSCRIBERS * *run) as f64
    }
}

const INSIDE: &str = "--inside";
const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 1);
const SUBSCRIBERS: usize = 50;
const FRAME: &[usize] = &[1_100; 5];
/// As they leave: with a tag.
const SEALED_BYTES: usize = 1_116;
const PACKETS_PER_RUN: usize = 60_000;
const PASSES: usize = 3;
const RUNS: usize = 7;
