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
    /// Addresses and streams follow from the number, which is below 32,000.
    pub fn join(now: Instant, server: SocketAddr, number: usize, join: Join<'_>) -> Result<(Self, TcpStream)> {
        let (signal, watched) = Signal::open(server, join.token, join.auto_subscribe)?;
        let source = |(mid, kind): (usize, &MediaKind)| Source::new(number, *kind, mid as u8);
        let sender = |source| Sender { source, due: None, packets: 0, octets: 0, next_report: now };
        let bot = Self {
            signal,
            subscriber: Leg::new(address(number, 0), &[]),
            publisher: Leg::new(address(number, 1), &["_reliable", "_lossy"]),
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

    pub fn subscribe(&mut self) -> Result<()> {
        let track_sids = self.tracks.clone();
        let participant_tracks = Vec::new();
        self.signal.send(Request::Subscription(UpdateSubscription { track_sids, subscribe: true, participant_tracks }))
    }

    /// Takes in what came on the signalling connection.
    pub fn read_signal(&mut self, now: Instant, identity: &Identity) -> Result<()> {
        while let Some(message) = self.signal.receive()? {
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
                Response::RequestResponse(refusal) => bail!("the server refuses: {refusal:?}"),
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
        self.reception.receive(media, arrival.at_ns, keys, out.totals)?;
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

/// The address of a bot's subscriber (0) or publisher (1) leg.
fn address(number: usize, leg: usize) -> Ipv4Addr {
    Ipv4Addr::from(FIRST_ADDRESS + (2 * number + leg) as u32)
}

/// Whose address this is: the bot's number and its leg.
pub fn owner(address: Ipv4Addr) -> Option<(usize, usize)> {
    let number = usize::try_from(u32::from(address).checked_sub(FIRST_ADDRESS)?).ok()?;
    Some((number / 2, number % 2))
}

fn description(kind: &str, sdp: String, id: u32) -> SessionDescription {
    SessionDescription { r#type: kind.to_owned(), sdp, id, ..SessionDescription::default() }
}

fn realtime_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// 127.1.0.1
const FIRST_ADDRESS: u32 = 0x7f01_0001;
const PING_INTERVAL: Duration = Duration::from_secs(5);
const STALL: Duration = Duration::from_millis(200);
