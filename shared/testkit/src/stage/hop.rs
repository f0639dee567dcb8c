//! Two routers and their link: one publisher on the first, subscribers on the second.

use std::{net::SocketAddr, time::Duration};

use plenary_media_core::{Command, Input, LinkConfig, Neighbour, Path, Protocol, RouterId, Sink, Transmit};
use plenary_model::{MediaKind, Quality, Target};

use super::{Meter, Part, Stage};
use crate::light::{Section, Source};

/// See the module.
pub struct Hop {
    near: Stage,
    far: Stage,
    source: Source,
    between: Between,
}

/// Datagrams from one router to the other; what clients get is counted. Its memory is used again.
#[derive(Default)]
struct Between {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    to_clients: u64,
}

impl Sink for Between {
    fn send(&mut self, batch: &[Transmit<'_>]) -> usize {
        for transmit in batch {
            let segment = transmit.segment_bytes.unwrap_or(transmit.bytes.len()).max(1);
            if transmit.path.remote.port() != LINK_PORT {
                self.to_clients += transmit.bytes.len().div_ceil(segment) as u64;
                continue;
            }
            for datagram in transmit.bytes.chunks(segment) {
                self.bytes.extend_from_slice(datagram);
                self.ends.push(self.bytes.len());
            }
        }
        batch.len()
    }
}

impl Between {
    /// Hands everything to a router.
    fn deliver(&mut self, from: SocketAddr, stage: &mut Stage) {
        let path = Path { protocol: Protocol::Udp, remote: from };
        let mut start = 0;
        for end in self.ends.drain(..) {
            let bytes = &mut self.bytes[start..end];
            stage.router.handle(stage.now, Input::Datagram { path, received: stage.now, bytes });
            start = end;
        }
        self.bytes.clear();
    }
}

fn id(index: u16) -> RouterId {
    RouterId { node: "ND_b".into(), boot: 1, index }
}

fn address(index: u16) -> SocketAddr {
    ([198, 51, 100, index as u8], LINK_PORT).into()
}

impl Hop {
    /// Video flows to so many subscribers, and every store and queue has grown to what it needs.
    pub fn steady(subscribers: usize) -> Self {
        let stage = |me: u16| {
            let keys = vec![b"a secret of the whole cluster".to_vec()];
            let link = LinkConfig { me: id(me), keys, bits_per_second_max: 0 };
            let mut stage = Stage::linked(None, Some(link));
            let routers = vec![Neighbour { id: id(1 - me), addresses: vec![address(1 - me)] }];
            stage.command(Command::SetNeighbours { routers });
            stage
        };
        let (mut near, mut far) = (stage(0), stage(1));
        far.now = near.now;
        let publisher = near.open(Target::Publisher, false);
        let track = near.publish(publisher, Section::Track { kind: MediaKind::Video, cid: "cid" });
        near.connect(publisher);
        let source = Source::new(publisher, MediaKind::Video, 0);
        let viewers: Vec<_> = (0..subscribers).map(|_| far.open(Target::Subscriber, false)).collect();
        for viewer in &viewers {
            far.want(*viewer, std::slice::from_ref(&track), Quality::High, Some(id(0)));
        }
        let mut hop = Self { near, far, source, between: Between::default() };
        for _ in 0..100 {
            hop.pass(Duration::from_millis(10));
        }
        for viewer in viewers {
            hop.far.negotiate(viewer);
            hop.far.connect(viewer);
        }
        for _ in 0..WARM_UP_FRAMES {
            hop.frame(&mut super::Unmeasured, &mut super::Unmeasured);
        }
        hop
    }

    /// One frame: what the first router does with its [`PACKETS`](Self::PACKETS), and what the second does.
    pub fn frame(&mut self, near_meter: &mut dyn Meter, far_meter: &mut dyn Meter) {
        let client = &mut self.near.clients[self.source.client];
        let (keys, _) = client.transport.keys.as_mut().expect("it is connected");
        let (path, mut packets) = (client.path, self.source.frame(keys, &[1_100; Self::PACKETS], &[]));
        let Self { near, far, between, .. } = self;
        near_meter.measure(Part::Packets, &mut || {
            for bytes in &mut packets {
                near.router.handle(near.now, Input::Datagram { path, received: near.now, bytes });
            }
            near.router.transmit(between);
        });
        far_meter.measure(Part::Packets, &mut || {
            between.deliver(address(0), far);
            far.router.transmit(between);
        });
        self.pass(Duration::from_micros(33_333));
    }

    /// Packets that left to clients.
    pub fn sent_to_clients(&self) -> u64 {
        self.between.to_clients
    }

    /// Bytes of the track that came to the first router, and bytes that left it for the second, UDP and IPv4 included.
    pub fn carried(&self) -> [u64; 2] {
        let counters = self.near.router.counters();
        [counters.bytes_in.get(), counters.link_bytes_out.get() + 28 * counters.link_packets_out.get()]
    }

    /// Time passes, and both say what they have to say.
    fn pass(&mut self, time: Duration) {
        self.near.now += time;
        self.far.now = self.near.now;
        for _ in 0..ROUNDS {
            self.near.router.handle_timeout(self.near.now);
            self.near.router.transmit(&mut self.between);
            self.between.deliver(address(0), &mut self.far);
            self.far.router.handle_timeout(self.far.now);
            self.far.router.transmit(&mut self.between);
            self.between.deliver(address(1), &mut self.near);
        }
        self.near.events();
        self.far.events();
        self.near.keep_alive();
        self.far.keep_alive();
    }

    pub const PACKETS: usize = 5;
}

const LINK_PORT: u16 = 7_883;
/// A word, an answer, and what that leads to.
const ROUNDS: usize = 4;
/// Until every slot of every store has seen a packet.
const WARM_UP_FRAMES: usize = 300;
