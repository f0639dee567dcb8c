//! What forwarding costs on this machine whoever does it: the packets of a shape, at the same rhythm and over the same
//! sockets, through a process that receives, seals and sends with the server's system calls and does nothing else. No
//! handshakes, routes, stores, rewriting, repairs or timers. Subscribers' feedback comes and is thrown away, because it wakes
//! whoever forwards.

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use plenary_model::MediaKind;
use serde::Serialize;

pub use self::forwarder::forward;
use self::forwarder::{FEEDBACK, MEDIA, REGISTER, TAG_BYTES};
use crate::{
    crowd::{MESSAGES_PER_TURN, TICK},
    datagrams::{Datagrams, Inbox, Network, SOCKETS, socket_of},
    measure::JOIN_EVERY,
    process::Usage,
    reception::feedback_interval,
    shapes::{Shape, frame, frame_interval},
};

mod forwarder;

/// One window of one shape.
#[derive(Debug, Clone, Serialize)]
pub struct Floor {
    pub packets_out_per_s: f64,
    /// CPU of the bare process per packet that arrived.
    pub user_us: f64,
    pub system_us: f64,
    /// Packets per message of the kernel.
    pub run_mean: f64,
    /// Of what was sent times who wants it.
    pub delivered_percent: f64,
}

/// `program` is what runs [`forward`] when it is called with [`FLOOR_ARGUMENT`].
pub fn floor(program: &Path, window: Duration, shape: &Shape) -> Result<Floor> {
    let mut crowd = Crowd::new(program)?;
    let interval = feedback_interval(shape.bits_per_second());
    let rooms = u8::try_from(shape.rooms).context("a room has one byte")?;
    for _ in 0..shape.publishers {
        for room in 0..rooms {
            crowd.publish(room, shape.kinds);
            crowd.run_for(JOIN_EVERY)?;
        }
    }
    for _ in 0..shape.subscribers {
        for room in 0..rooms {
            crowd.subscribe(room, interval)?;
            crowd.run_for(JOIN_EVERY)?;
        }
    }
    crowd.run_for(WARM_UP)?;
    crowd.totals = Totals::default();
    let (before, start) = (crowd.process.usage()?, Instant::now());
    crowd.run_for(window)?;
    let (after, seconds) = (crowd.process.usage()?, start.elapsed().as_secs_f64());
    let Totals { sent, packets, messages } = crowd.totals;
    ensure!(packets > 0, "the floor forwards nothing");
    let (packets, (user_ns, system_ns)) = (packets as f64, after.cpu_since(&before));
    Ok(Floor {
        packets_out_per_s: packets / seconds,
        user_us: user_ns / 1_000.0 / packets,
        system_us: system_ns / 1_000.0 / packets,
        run_mean: packets / messages as f64,
        delivered_percent: packets * 100.0 / (sent as f64 * shape.subscribers as f64),
    })
}

/// The people as far as the forwarder is concerned: addresses that send and receive at the rhythm of [`crate::crowd::Crowd`].
struct Crowd {
    process: Process,
    sockets: [Datagrams; SOCKETS],
    inbox: Inbox,
    people: usize,
    senders: Vec<Sender>,
    totals: Totals,
}

#[derive(Default)]
struct Totals {
    sent: u64,
    packets: u64,
    messages: u64,
}

/// Sends the same datagrams each time.
struct Sender {
    socket: usize,
    address: Ipv4Addr,
    due: Instant,
    interval: Duration,
    is_media: bool,
    datagrams: Vec<Vec<u8>>,
}

impl Crowd {
    fn new(program: &Path) -> Result<Self> {
        Ok(Self {
            process: Process::start(program)?,
            sockets: Datagrams::several(NETWORK)?,
            inbox: Inbox::new(),
            people: 0,
            senders: Vec::new(),
            totals: Totals::default(),
        })
    }

    fn publish(&mut self, room: u8, kinds: &[MediaKind]) {
        for kind in kinds {
            let packet = |size: &usize| datagram(MEDIA, room, size + TAG_BYTES);
            let datagrams = frame(*kind).iter().map(packet).collect();
            self.add(PUBLISHER, true, frame_interval(*kind), datagrams);
        }
        self.people += 1;
    }

    fn subscribe(&mut self, room: u8, feedback_every: Duration) -> Result<()> {
        let address = NETWORK.addresses(self.people)[SUBSCRIBER];
        let socket = &self.sockets[socket_of(self.people, SUBSCRIBER)];
        socket.send(address, self.process.address, &[REGISTER, room])?;
        self.add(SUBSCRIBER, false, feedback_every, vec![datagram(FEEDBACK, room, FEEDBACK_BYTES)]);
        self.people += 1;
        Ok(())
    }

    fn add(&mut self, leg: usize, is_media: bool, interval: Duration, datagrams: Vec<Vec<u8>>) {
        let address = NETWORK.addresses(self.people)[leg];
        let socket = socket_of(self.people, leg);
        self.senders.push(Sender { socket, address, due: Instant::now(), interval, is_media, datagrams });
    }

    fn run_for(&mut self, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<()> {
        let now = Instant::now();
        for socket in &self.sockets {
            for _ in 0..MESSAGES_PER_TURN {
                let Some(arrival) = socket.receive(&mut self.inbox)? else { break };
                self.totals.messages += 1;
                self.totals.packets += arrival.bytes.chunks(arrival.segment_bytes).len() as u64;
            }
        }
        for sender in self.senders.iter_mut().filter(|sender| sender.due <= now) {
            // Frames have a rhythm of their own; feedback follows the last one.
            sender.due = if sender.is_media { sender.due + sender.interval } else { now + sender.interval };
            let socket = &self.sockets[sender.socket];
            for datagram in &sender.datagrams {
                socket.send(sender.address, self.process.address, datagram)?;
                self.totals.sent += u64::from(sender.is_media);
            }
        }
        sleep(TICK.saturating_sub(now.elapsed()));
        Ok(())
    }
}

/// The forwarder, which ends with us.
struct Process {
    child: Child,
    address: SocketAddrV4,
}

impl Process {
    fn start(program: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        let child = command.arg(FLOOR_ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut process = Self { child, address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0) };
        let mut port = String::new();
        BufReader::new(process.child.stdout.take().context("its output is a pipe")?).read_line(&mut port)?;
        process.address.set_port(port.trim().parse().context("the floor did not start")?);
        Ok(process)
    }

    fn usage(&self) -> Result<Usage> {
        Usage::of(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone by now, which is all that is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn datagram(kind: u8, room: u8, bytes: usize) -> Vec<u8> {
    let mut datagram = vec![0x5a; bytes];
    datagram[..2].copy_from_slice(&[kind, room]);
    datagram
}

/// Makes this program the forwarder.
pub const FLOOR_ARGUMENT: &str = "--floor-process";

const NETWORK: Network = Network::LOOPBACK;
const SUBSCRIBER: usize = 0;
const PUBLISHER: usize = 1;
/// Transport-wide feedback about one picture, sealed.
const FEEDBACK_BYTES: usize = 80;
const WARM_UP: Duration = Duration::from_secs(1);
