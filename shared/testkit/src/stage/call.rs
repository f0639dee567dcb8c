//! Media in a call: one tick is one frame of everybody, spread evenly over its time.

use std::time::{Duration, Instant};

use plenary_media_core::{Command, DropReason, Input, Path, Sink, Transmit};
use plenary_model::{MediaKind, Quality, Target};

use super::{
    Kept, Stage,
    client::{number_at, transport_feedback},
};
use crate::light::{Section, Source, transport_sequence};

/// Rooms and what is said in them.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub name: &'static str,
    pub rooms: usize,
    pub publishers: usize,
    /// Besides the publishers, who receive each other if there is nobody else.
    pub subscribers: usize,
    pub media: Media,
    /// Every track has a tap.
    pub is_recorded: bool,
}

/// What each publisher sends, by the sizes of the packets of one frame, header included.
#[derive(Debug, Clone, Copy)]
pub enum Media {
    Audio(&'static [usize]),
    Video(&'static [usize]),
    /// Low to high. One subscriber wants the lowest, the next the middle one, the next the highest, and so on.
    Simulcast([&'static [usize]; 3]),
}

/// What the router is doing while it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Takes in packets and sends what they became.
    Packets,
    /// Does what has fallen due, and sends what a pacer held.
    Timers,
    /// Reads what subscribers say.
    Feedback,
}

/// Who measures.
pub trait Meter {
    /// Does the work, once.
    fn measure(&mut self, part: Part, work: &mut dyn FnMut());
}

/// Measures nothing.
#[derive(Debug)]
pub struct Unmeasured;

impl Meter for Unmeasured {
    fn measure(&mut self, _: Part, work: &mut dyn FnMut()) {
        work();
    }
}

/// Drops everything.
#[derive(Debug)]
pub struct Dropped;

impl Sink for Dropped {
    fn send(&mut self, batch: &[Transmit<'_>]) -> usize {
        batch.len()
    }
}

/// RFC 5761 4: what is not RTCP, of RTP's version.
pub fn is_rtp(datagram: &[u8]) -> bool {
    matches!(datagram, [first, second, ..] if first >> 6 == 2 && !(192..224).contains(second))
}

impl Shape {
    pub const fn video(name: &'static str, rooms: usize, subscribers: usize, sizes: &'static [usize]) -> Self {
        Self { name, rooms, publishers: 1, subscribers, media: Media::Video(sizes), is_recorded: false }
    }

    fn frame_interval(&self) -> Duration {
        match self.media {
            Media::Audio(_) => Duration::from_millis(20),
            Media::Video(_) | Media::Simulcast(_) => Duration::from_micros(33_333),
        }
    }

    fn section(&self) -> Section<'static> {
        match self.media {
            Media::Audio(_) => Section::Track { kind: MediaKind::Audio, cid: "cid" },
            Media::Video(_) => Section::Track { kind: MediaKind::Video, cid: "cid" },
            Media::Simulcast(_) => Section::Simulcast { cid: "cid" },
        }
    }

    /// What the subscriber with this number wants of each publisher, and how many packets that is in a tick.
    fn wish(&self, number: usize) -> (Quality, usize) {
        match (self.media, number % 3) {
            (Media::Audio(sizes) | Media::Video(sizes), _) => (Quality::High, sizes.len()),
            (Media::Simulcast([low, _, _]), 0) => (Quality::Low, low.len()),
            (Media::Simulcast([_, middle, _]), 1) => (Quality::Medium, middle.len()),
            (Media::Simulcast([_, _, high]), _) => (Quality::High, high.len()),
        }
    }

    fn receivers(&self) -> usize {
        if self.subscribers == 0 { self.publishers } else { self.subscribers }
    }

    /// Whom a receiver hears: everybody, or everybody else.
    fn heard(&self) -> usize {
        self.publishers - usize::from(self.subscribers == 0)
    }

    /// Packets of media that leave in a tick once everything flows.
    pub fn outputs_per_tick(&self) -> usize {
        let packets: usize = (0..self.receivers()).map(|number| self.wish(number).1).sum();
        self.rooms * packets * self.heard()
    }
}

/// A stage with media.
pub struct Call {
    pub stage: Stage,
    shape: Shape,
    /// By publisher, the streams of each.
    sources: Vec<Vec<Source>>,
    ticks: u32,
    start: Instant,
    /// When something that was due was last done.
    turned: Instant,
    /// When RTP packets came to each client of which feedback has not told.
    arrived: Vec<Vec<Instant>>,
}

/// Notes what came to whom, at once and without an allocation.
struct Noted<'c> {
    now: Instant,
    sink: &'c mut dyn Sink,
    arrived: &'c mut [Vec<Instant>],
}

impl Sink for Noted<'_> {
    fn send(&mut self, batch: &[Transmit<'_>]) -> usize {
        let sent = self.sink.send(batch);
        for transmit in batch.iter().take(sent).filter(|transmit| is_rtp(transmit.bytes)) {
            let arrived = number_at(transmit.path).and_then(|number| self.arrived.get_mut(number));
            arrived.expect("it is a client's").extend(std::iter::repeat_n(self.now, packets(transmit)));
        }
        sent
    }
}

/// How many datagrams it is.
pub fn packets(transmit: &Transmit<'_>) -> usize {
    transmit.segment_bytes.map_or(1, |bytes| transmit.bytes.len().div_ceil(bytes))
}

impl Call {
    /// Everybody is connected, everything flows, and every queue and store has grown to what it needs.
    pub fn steady(shape: Shape) -> Self {
        let mut stage = Stage::new(None);
        let mut sources = Vec::new();
        for _ in 0..shape.rooms {
            let publishers: Vec<_> = (0..shape.publishers).map(|_| stage.open(Target::Publisher, false)).collect();
            let tracks: Vec<_> = publishers.iter().map(|at| stage.publish(*at, shape.section())).collect();
            for track in tracks.iter().filter(|_| shape.is_recorded) {
                stage.command(Command::Tap { track: track.clone(), from: None });
            }
            for me in 0..shape.receivers() {
                let others = tracks.iter().enumerate().filter(|(at, _)| shape.subscribers > 0 || *at != me);
                let wanted: Vec<_> = others.map(|(_, track)| track.clone()).collect();
                let subscriber = stage.open(Target::Subscriber, false);
                let (quality, _) = shape.wish(me);
                stage.subscribe(subscriber, &wanted, quality);
                stage.connect(subscriber);
            }
            for at in publishers {
                stage.connect(at);
                sources.push(match shape.media {
                    Media::Audio(_) => vec![Source::new(at, MediaKind::Audio, 0)],
                    Media::Video(_) => vec![Source::new(at, MediaKind::Video, 0)],
                    Media::Simulcast(_) => Source::simulcast(at, 0),
                });
            }
        }
        let arrived = stage.clients.iter().map(|_| Vec::with_capacity(ARRIVALS)).collect();
        let start = stage.now;
        let mut call = Self { stage, shape, sources, ticks: 0, start, turned: start, arrived };
        call.tick(&mut Dropped, &mut Unmeasured);
        call.check();
        for _ in 0..WARM_UP_TICKS {
            call.tick(&mut Dropped, &mut Unmeasured);
        }
        call
    }

    /// Clients that are connected.
    pub fn transports(&self) -> usize {
        self.stage.clients.len()
    }

    /// Packets that were forwarded, and packets of clients that were dropped.
    pub fn forwarded_and_dropped(&self) -> (u64, u64) {
        let counters = self.stage.router.counters();
        (counters.packets_out.get(), DROPS.iter().map(|reason| counters.dropped(*reason)).sum())
    }

    pub fn tick(&mut self, sink: &mut dyn Sink, meter: &mut dyn Meter) {
        let mut frames: Vec<_> = (0..self.sources.len()).map(|at| self.frame(at)).collect();
        let step = self.shape.frame_interval() / frames.len() as u32;
        for (path, packets) in &mut frames {
            let (router, now) = (&mut self.stage.router, self.stage.now);
            let mut noted = Noted { now, sink, arrived: &mut self.arrived };
            meter.measure(Part::Packets, &mut || {
                for bytes in packets.iter_mut() {
                    router.handle(now, Input::Datagram { path: *path, received: now, bytes });
                }
                router.transmit(&mut noted);
                while let Some(tapped) = router.poll_tapped() {
                    drop(tapped);
                }
            });
            self.wait(now + step, sink, meter);
        }
        self.ticks += 1;
        if self.ticks.is_multiple_of(TICKS_PER_FEEDBACK) {
            self.feedback(meter);
        }
        self.stage.keep_alive();
    }

    /// The next frame of a publisher, in all its streams.
    fn frame(&mut self, at: usize) -> (Path, Vec<Vec<u8>>) {
        let streams = &mut self.sources[at];
        let client = &mut self.stage.clients[streams[0].client];
        let (keys, _) = client.transport.keys.as_mut().expect("it is connected");
        let sizes = match &self.shape.media {
            Media::Audio(sizes) | Media::Video(sizes) => std::slice::from_ref(sizes),
            Media::Simulcast(layers) => layers,
        };
        let mut number = streams.last().map_or(0, |last| last.transport_sequence);
        let mut packets = Vec::new();
        for (stream, sizes) in streams.iter_mut().zip(sizes) {
            stream.transport_sequence = number;
            packets.extend(stream.frame(keys, sizes, &[]));
            number = stream.transport_sequence;
        }
        (client.path, packets)
    }

    /// Lets time pass as the pump of a media thread does: with a turn when something is due, but not more often than its
    /// timer can.
    fn wait(&mut self, until: Instant, sink: &mut dyn Sink, meter: &mut dyn Meter) {
        let Self { stage: Stage { router, now, .. }, turned, arrived, .. } = self;
        while let Some((due, _)) = router.next_deadline() {
            let at = due.max(*turned + TIMER_GRAIN).max(*now);
            if at > until {
                break;
            }
            (*now, *turned) = (at, at);
            let mut noted = Noted { now: at, sink, arrived };
            meter.measure(Part::Timers, &mut || {
                router.handle_timeout(at);
                router.transmit(&mut noted);
                while let Some(event) = router.poll_event() {
                    drop(event);
                }
            });
        }
        *now = until;
    }

    /// Every subscriber tells what arrived since it last did.
    fn feedback(&mut self, meter: &mut dyn Meter) {
        let number = (self.ticks / TICKS_PER_FEEDBACK) as u8;
        let mut datagrams = Vec::new();
        for (client, arrived) in self.stage.clients.iter_mut().zip(&mut self.arrived) {
            let (Some(next), Some((keys, _))) = (&mut client.next_transport_sequence, &mut client.transport.keys)
            else {
                continue;
            };
            let times: Vec<_> = arrived.iter().map(|at| at.duration_since(self.start)).collect();
            let feedback = transport_feedback(*next, &times, number);
            datagrams.push((client.path, keys.encrypt_rtcp(&feedback).expect("feedback is sealed").to_vec()));
            *next = next.wrapping_add(times.len() as u16);
            arrived.clear();
        }
        let (router, now) = (&mut self.stage.router, self.stage.now);
        meter.measure(Part::Feedback, &mut || {
            for (path, bytes) in &mut datagrams {
                router.handle(now, Input::Datagram { path: *path, received: now, bytes });
            }
        });
    }

    /// What leaves is what came in, for everybody, and can be opened.
    fn check(&mut self) {
        let mut kept = Kept::default();
        while !(self.ticks + 1).is_multiple_of(TICKS_PER_FEEDBACK) {
            self.tick(&mut Dropped, &mut Unmeasured);
        }
        self.tick(&mut kept, &mut Unmeasured);
        let media: Vec<_> = kept.0.into_iter().filter(|(_, datagram)| is_rtp(datagram)).collect();
        for (client, arrived) in self.stage.clients.iter_mut().zip(&mut self.arrived) {
            let last = media.iter().rfind(|(to, _)| *to == client.path.remote);
            let Some((_, datagram)) = last else { continue };
            let (_, keys) = client.transport.keys.as_mut().expect("it is connected");
            let opened = keys.decrypt_rtp(datagram).expect("it is authentic");
            assert!(opened.ends_with(&[0x5a; 32]), "the payload is the publisher's");
            let number = transport_sequence(&opened).expect("it was negotiated");
            client.next_transport_sequence = Some(number.wrapping_add(1));
            arrived.clear();
        }
    }
}

const WARM_UP_TICKS: usize = 300;
/// 100 ms of video, as browsers do.
const TICKS_PER_FEEDBACK: u32 = 3;
/// More packets than anybody receives between two feedbacks.
const ARRIVALS: usize = 512;
/// Of the pump.
const TIMER_GRAIN: Duration = Duration::from_millis(1);

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
