//! One person: joins as an SDK in dual-PeerConnection mode does, publishes and receives.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, bail};
use livekit_protocol::{
    AddTrackRequest, ParticipantInfo, Ping, SessionDescription, TrackSource, TrackType, UpdateSubscription,
    signal_request::Message as Request, signal_response::Message as Response,
};
use plenary_model::MediaKind;
use plenary_testkit::light::{Identity, Section, Source, answer, offer};

use crate::{
    datagrams::{Arrival, Datagrams},
    leg::Leg,
    reception::{Reception, Totals},
    rtcp::{Heard, read, sender_report},
    shapes::{frame, frame_interval},
    signal::Signal,
};

pub struct Bot {
    signal: Signal,
    /// Where the server's media comes.
    subscriber: Leg,
    publisher: Leg,
    pub reception: Reception,
    senders: Vec<Sender>,
    /// Sids of what others publish.
    pub tracks: Vec<String>,
    begun: Instant,
    next_ping: Instant,
    /// From the start until both transports stood, and until media came.
    pub connected_after: Option<Duration>,
    pub media_after: Option<Duration>,
}

/// How one joins.
#[derive(Debug, Clone, Copy)]
pub struct Join<'a> {
    pub token: &'a str,
    pub kinds: &'a [MediaKind],
    pub auto_subscribe: bool,
}

struct Sender {
    source: Source,
    due: Option<Instant>,
    packets: u32,
    octets: u32,
    next_report: Instant,
}

impl Bot {
    /// Streams follow from the number.
    pub fn join(
        now: Instant,
        server: SocketAddr,
        number: usize,
        addresses: [Ipv4Addr; 2],
        join: Join<'_>,
    ) -> Result<(Self, TcpStream)> {
        let subscribe = u8::from(join.auto_subscribe);
        let query = format!("auto_subscribe={subscribe}&adaptive_stream=0&access_token={}", join.token);
        let (signal, watched) = Signal::open(server, &query)?;
        let [subscriber, publisher] = addresses;
        let source = |(mid, kind): (usize, &MediaKind)| Source::new(number, *kind, mid as u8);
        let sender = |source| Sender { source, due: None, packets: 0, octets: 0, next_report: now };
        let bot = Self {
            signal,
            subscriber: Leg::new(subscriber, &[]),
            publisher: Leg::new(publisher, &["_reliable", "_lossy"]),
            reception: Reception::default(),
            senders: join.kinds.iter().enumerate().map(source).map(sender).collect(),
            tracks: Vec::new(),
            begun: now,
            next_ping: now + PING_INTERVAL,
            connected_after: None,
            media_after: None,
        };
        Ok((bot, watched))
    }

    /// Another signalling connection for this session, after the last one was lost. Media stays as it is.
    pub fn resume(&mut self, now: Instant, server: SocketAddr, token: &str, sid: &str) -> Result<TcpStream> {
        let query = format!("reconnect=1&sid={sid}&adaptive_stream=0&access_token={token}");
        let (signal, watched) = Signal::open(server, &query)?;
        self.signal = signal;
        self.next_ping = now + PING_INTERVAL;
        Ok(watched)
    }

    pub fn subscribe(&mut self, track_sids: Vec<String>) -> Result<()> {
        let participant_tracks = Vec::new();
        self.say(Request::Subscription(UpdateSubscription { track_sids, subscribe: true, participant_tracks }))
    }

    pub fn say(&mut self, message: Request) -> Result<()> {
        self.signal.send(message)
    }

    /// Takes in what came on the signalling connection, and shows it first.
    pub fn read_signal(&mut self, now: Instant, identity: &Identity, mut show: impl FnMut(&Response)) -> Result<()> {
        while let Some(message) = self.signal.receive()? {
            show(&message);
            match message {
                Response::Join(join) => {
                    self.note(&join.other_participants);
                    self.publish(identity)?;
                }
                Response::Update(update) => self.note(&update.participants),
                Response::Offer(offer) => {
                    self.reception.announce(&offer.sdp);
                    self.subscriber.describe(now, identity, &offer.sdp)?;
                    let answer = description("answer", answer(identity, &offer.sdp), offer.id);
                    self.signal.send(Request::Answer(answer))?;
                }
                Response::Answer(answer) => self.publisher.describe(now, identity, &answer.sdp)?,
                Response::Leave(leave) => bail!("the server wants us to leave: {leave:?}"),
                // Whoever numbers their requests reads the answers.
                Response::RequestResponse(refusal) if refusal.request_id == 0 => {
                    bail!("the server refuses: {refusal:?}")
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn note(&mut self, people: &[ParticipantInfo]) {
        for track in people.iter().flat_map(|person| &person.tracks) {
            if !self.tracks.contains(&track.sid) {
                self.tracks.push(track.sid.clone());
            }
        }
    }

    /// Announces tracks and offers at once, as the quicker SDKs do.
    fn publish(&mut self, identity: &Identity) -> Result<()> {
        let cids: Vec<_> = (0..self.senders.len()).map(|mid| format!("track{mid}")).collect();
        for (sender, cid) in self.senders.iter().zip(&cids) {
            let (kind, source) = match sender.source.kind() {
                MediaKind::Audio => (TrackType::Audio, TrackSource::Microphone),
                MediaKind::Video => (TrackType::Video, TrackSource::Camera),
            };
            let size = if kind == TrackType::Video { (1_280, 720) } else { (0, 0) };
            self.signal.send(Request::AddTrack(AddTrackRequest {
                cid: cid.clone(),
                r#type: kind.into(),
                source: source.into(),
                width: size.0,
                height: size.1,
                ..AddTrackRequest::default()
            }))?;
        }
        let kinds = self.senders.iter().map(|sender| sender.source.kind());
        let sections = kinds.zip(&cids).map(|(kind, cid)| Section::Track { kind, cid });
        let sections: Vec<_> = sections.chain([Section::Data]).collect();
        self.signal.send(Request::Offer(description("offer", offer(identity, &sections), 1)))
    }

    /// Takes in what came for one of our addresses.
    pub fn receive(&mut self, now: Instant, leg: usize, arrival: &Arrival<'_>, out: Outlet<'_>) -> Result<()> {
        let datagrams = || arrival.bytes.chunks(arrival.segment_bytes);
        let is_rtcp = |packet: &[u8]| matches!(packet, [128..=191, 192..=223, ..]);
        let leg = if leg == 0 { &mut self.subscriber } else { &mut self.publisher };
        if arrival.bytes.first().is_none_or(|first| *first < 128) {
            datagrams().try_for_each(|datagram| leg.receive(now, out.socket, datagram))?;
            if self.connected_after.is_none() && self.subscriber.is_connected() && self.publisher.is_connected() {
                self.connected_after = Some(now - self.begun);
            }
            return Ok(());
        }
        let Some((_, keys)) = leg.keys() else { return Ok(()) };
        // Reports and media never share a message: they differ in size, but for the odd coincidence.
        for packet in datagrams().filter(|packet| is_rtcp(packet)) {
            let packet = keys.decrypt_rtcp(packet)?;
            self.reception.hear(now, &packet);
            read(&packet, |heard| match heard {
                Heard::KeyWanted { ssrc } => {
                    let sender = self.senders.iter_mut().find(|sender| sender.source.ssrc() == ssrc);
                    sender.into_iter().for_each(|sender| sender.source.want_key());
                }
                Heard::Nack => *out.nacks += 1,
                Heard::SenderReport { .. } => {}
            });
        }
        let media = datagrams().filter(|packet| !is_rtcp(packet));
        self.reception.receive(media, arrival.at_ns, keys, out.totals, out.arrived)?;
        if self.media_after.is_none() && self.reception.streams().1 > 0 {
            self.media_after = Some(now - self.begun);
        }
        Ok(())
    }

    /// Sends what is due and returns how many media packets that was.
    pub fn handle_timeout(&mut self, now: Instant, sockets: [&Datagrams; 2], media: bool) -> Result<u64> {
        self.signal.flush()?;
        if self.next_ping <= now && self.signal.is_open() {
            self.next_ping = now + PING_INTERVAL;
            self.signal.send(Request::PingReq(Ping { timestamp: realtime_ns() / 1_000_000, rtt: 1 }))?;
        }
        self.subscriber.handle_timeout(now, sockets[0])?;
        self.publisher.handle_timeout(now, sockets[1])?;
        if self.subscriber.is_connected() {
            for report in self.reception.reports(now) {
                let Some((seal, _)) = self.subscriber.keys() else { break };
                let report = seal.encrypt_rtcp(&report)?;
                self.subscriber.send(sockets[0], &report)?;
            }
        }
        let mut sent = 0;
        if media && self.publisher.is_connected() {
            for sender in &mut self.senders {
                sent += sender.send(now, &mut self.publisher, sockets[1])?;
            }
        }
        Ok(sent)
    }
}

/// Where a bot's datagrams go and its figures are added up.
pub struct Outlet<'a> {
    pub socket: &'a Datagrams,
    pub totals: &'a mut Totals,
    /// Messages that ask us to repeat packets.
    pub nacks: &'a mut u64,
    /// Is told the stream and the kernel's time of every media packet.
    pub arrived: &'a mut dyn FnMut(u32, i64),
}

impl Sender {
    /// A frame leaves all at once, as from a browser whose pacer has room.
    fn send(&mut self, now: Instant, leg: &mut Leg, socket: &Datagrams) -> Result<u64> {
        let kind = self.source.kind();
        let due = *self.due.get_or_insert(now);
        if due > now {
            return Ok(0);
        }
        let next = due + frame_interval(kind);
        // After a stall the frames in between were never taken.
        self.due = Some(if next + STALL < now { now } else { next });
        let timestamp = self.source.timestamp();
        let mut out = Vec::new();
        if let Some((seal, _)) = leg.keys() {
            out = self.source.frame(seal, frame(kind), &realtime_ns().to_be_bytes());
            if self.next_report <= now {
                self.next_report = now + Duration::from_secs(1);
                let report = sender_report(self.source.ssrc(), timestamp, self.packets, self.octets);
                let report = seal.encrypt_rtcp(&report)?;
                leg.send(socket, &report)?;
            }
        }
        for packet in &out {
            leg.send(socket, packet)?;
            self.packets += 1;
            self.octets = self.octets.wrapping_add(packet.len() as u32);
        }
        Ok(out.len() as u64)
    }
}

fn description(kind: &str, sdp: String, id: u32) -> SessionDescription {
    SessionDescription { r#type: kind.to_owned(), sdp, id, ..SessionDescription::default() }
}

/// Unix time, as the kernel stamps what arrives.
pub fn realtime_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

const PING_INTERVAL: Duration = Duration::from_secs(5);
const STALL: Duration = Duration::from_millis(200);
