//! A participant's client: two PeerConnections of another implementation, as LiveKit's dual mode has them, with a made-up
//! camera and microphone on one and a careful reader on the other.
//!
//! ICE, DTLS, SRTP, SCTP and SDP are the other implementation's. RTP and RTCP are made and read here, since the tests must
//! decide about each packet.

mod connection;
mod inbox;
mod lines;
mod source;
mod svc;
pub mod vp8;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use plenary_model::{Channel, MediaKind, Target};
use rtc::{rtcp::raw_packet::RawPacket, rtp_transceiver::RTCRtpTransceiverId};

use self::connection::{Connection, Heard};
pub use self::{
    inbox::{Inbox, Received, ReceivedStream},
    source::{AUDIO_FRAME_INTERVAL, FrameShape, SentStream, Source, VIDEO_FRAME_INTERVAL},
    svc::SvcPayload,
    vp8::VideoPayload,
};

/// What kind of client somebody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientOptions {
    pub decodes_vp8: bool,
    /// VP8 it may decode all the same.
    pub decodes_vp9: bool,
    /// Takes other codecs later than at first. The implementation keeps to those of the first description with video, so it
    /// is shown both in each.
    pub changes_codecs: bool,
    pub has_rtx: bool,
    /// Asks for lost packets by itself.
    pub sends_nacks: bool,
    /// Says when each packet arrived (transport-wide congestion control).
    pub has_transport_feedback: bool,
    /// Lets video be paused for lack of bandwidth.
    pub allows_pause: bool,
    /// Takes packet trailers off itself.
    pub takes_trailers: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            decodes_vp8: true,
            decodes_vp9: true,
            changes_codecs: false,
            has_rtx: true,
            sends_nacks: true,
            has_transport_feedback: true,
            allows_pause: false,
            takes_trailers: false,
        }
    }
}

/// See the module.
pub struct Client {
    pub name: String,
    pub publisher: Connection,
    pub subscriber: Connection,
    pub sources: Vec<Source>,
    pub inbox: Inbox,
    options: ClientOptions,
    transceivers: Vec<RTCRtpTransceiverId>,
    next_transport_sequence: u16,
    /// Feedback about what we sent: when, and how many packets it spoke of.
    pub transport_feedback: Vec<(Instant, u16)>,
    /// When our packets arrived by that feedback, in the order of their numbers, in microseconds on the router's clock.
    pub arrivals_us: Vec<i64>,
    epoch: Instant,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Client {
    pub fn new(
        now: Instant,
        name: &str,
        publisher: SocketAddr,
        subscriber: SocketAddr,
        options: ClientOptions,
    ) -> Self {
        Self {
            name: name.to_owned(),
            publisher: Connection::new(now, publisher, options),
            subscriber: Connection::new(now, subscriber, options),
            sources: Vec::new(),
            inbox: Inbox::new(options.sends_nacks),
            options,
            transceivers: Vec::new(),
            next_transport_sequence: 0,
            transport_feedback: Vec::new(),
            arrivals_us: Vec::new(),
            epoch: now,
        }
    }

    /// Adds a track to what the next offer says. `rids` from low to high; empty for a single stream.
    pub fn add_source(&mut self, kind: MediaKind, cid: &str, rids: &[&str], base_ssrc: u32) {
        self.add(Source::new(kind, cid, rids, base_ssrc));
    }

    /// A camera whose layers share one stream.
    pub fn add_svc_source(&mut self, cid: &str, ssrc: u32) {
        self.add(Source::svc(cid, ssrc));
    }

    fn add(&mut self, source: Source) {
        self.transceivers.push(self.publisher.add_sending_track(&source));
        self.sources.push(source);
    }

    /// The track's section becomes inactive with the next offer.
    pub fn remove_source(&mut self, cid: &str) {
        let at = self.sources.iter().position(|source| source.cid == cid).expect("a source of this name");
        self.sources[at].ended = true;
        self.publisher.deactivate(self.transceivers[at]);
    }

    pub fn source(&mut self, cid: &str) -> &mut Source {
        self.sources.iter_mut().find(|source| source.cid == cid).expect("a source of this name")
    }

    pub fn offer(&mut self, now: Instant) -> String {
        self.publisher.offer(now)
    }

    /// The answer to the publisher's offer.
    pub fn answered(&mut self, now: Instant, sdp: &str) {
        self.publisher.accept_answer(now, sdp);
        let sections = lines::sections(sdp);
        for (source, transceiver) in self.sources.iter_mut().zip(&self.transceivers) {
            let Some(mid) = self.publisher.mid(*transceiver) else { continue };
            if let Some(section) = sections.iter().find(|section| section.mid == mid) {
                source.negotiated(now, section, self.options.has_rtx);
            }
        }
    }

    /// The subscriber's answer to an offer of the server.
    pub fn answer(&mut self, now: Instant, offer: &str) -> String {
        let shown = if self.options.changes_codecs { lines::with_both_codecs(offer) } else { offer.to_owned() };
        let answer = self.subscriber.answer(now, &shown);
        self.inbox.described(&lines::sections(offer));
        answer
    }

    /// Sends a message on a data channel of the publisher connection, or of the subscriber's if there is none.
    pub fn send_data(&mut self, now: Instant, channel: Channel, message: &[u8]) {
        let label = label(channel);
        let sent = self.publisher.send_data(now, label, message) || self.subscriber.send_data(now, label, message);
        assert!(sent, "{label} is open");
    }

    /// Sends any RTP packet from the publisher connection, properly sealed.
    pub fn send_rtp(&mut self, now: Instant, packet: rtc::rtp::Packet) {
        self.publisher.send_rtp(now, packet);
    }

    /// Sends an RTCP packet of any content, properly sealed: whole words, the first of which says how many.
    pub fn send_rtcp(&mut self, now: Instant, target: Target, plain: &[u8]) {
        let raw: Box<dyn rtc::rtcp::Packet> = Box::new(RawPacket(bytes::Bytes::copy_from_slice(plain)));
        match target {
            Target::Publisher => self.publisher.send_rtcp(now, vec![raw]),
            Target::Subscriber => self.subscriber.send_rtcp(now, vec![raw]),
        }
    }

    /// Messages that came, of both connections.
    pub fn messages(&self, channel: Channel) -> Vec<Vec<u8>> {
        let all = self.subscriber.messages.iter().chain(&self.publisher.messages);
        all.filter(|(label_of, _)| label_of == label(channel)).map(|(_, message)| message.clone()).collect()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        let media = self.sources.iter().filter_map(Source::next_deadline).filter(|_| self.publisher.connected).min();
        let connections = [self.publisher.deadline(), self.subscriber.deadline()].into_iter().flatten().min();
        let feedback = self.inbox.next_deadline().filter(|_| self.subscriber.connected);
        media.into_iter().chain(connections).chain(feedback).min()
    }

    /// Lets time pass: sources make packets, timers run.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.publisher.handle_timeout(now);
        self.subscriber.handle_timeout(now);
        if self.publisher.connected {
            let since = now.saturating_duration_since(self.epoch);
            for source in &mut self.sources {
                for packet in source.media(now, since) {
                    self.publisher.send_rtp(now, source.stamp(packet, &mut self.next_transport_sequence));
                }
                if let Some(reports) = source.sender_reports(now, since) {
                    self.publisher.send_rtcp(now, reports);
                }
            }
        }
        if self.subscriber.connected {
            let feedback = self.inbox.feedback(now);
            if !feedback.is_empty() {
                self.subscriber.send_rtcp(now, feedback);
            }
        }
    }

    /// A datagram for the connection with this address.
    pub fn receive(&mut self, now: Instant, to: SocketAddr, datagram: &[u8]) {
        if to == self.subscriber.public {
            self.subscriber.receive(now, datagram);
            for heard in self.subscriber.heard() {
                match heard {
                    Heard::Rtp(packet) => self.inbox.rtp(now, packet),
                    Heard::Rtcp(packets) => self.inbox.rtcp(now, &packets),
                }
            }
        } else if to == self.publisher.public {
            self.publisher.receive(now, datagram);
            for heard in self.publisher.heard() {
                let Heard::Rtcp(packets) = heard else { continue };
                for packet in packets {
                    self.heard_about_ours(now, packet.as_ref());
                }
            }
        }
    }

    /// What wants to leave: from where, and what.
    pub fn transmits(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let publisher = (self.publisher.public, self.publisher.transmits());
        let subscriber = (self.subscriber.public, self.subscriber.transmits());
        let with = |(from, all): (SocketAddr, Vec<Vec<u8>>)| all.into_iter().map(move |bytes| (from, bytes));
        with(publisher).chain(with(subscriber)).collect()
    }

    fn heard_about_ours(&mut self, now: Instant, packet: &dyn rtc::rtcp::Packet) {
        use rtc::rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;
        if let Some(feedback) = packet.as_any().downcast_ref::<TransportLayerCc>() {
            self.transport_feedback.push((now, feedback.packet_status_count));
            let mut at_us = i64::from(feedback.reference_time) * 64_000;
            self.arrivals_us.extend(feedback.recv_deltas.iter().map(|since| {
                at_us += since.delta;
                at_us
            }));
        }
        for source in &mut self.sources {
            for repair in source.feedback(now, packet) {
                self.publisher.send_rtp(now, source.stamp(repair, &mut self.next_transport_sequence));
            }
        }
    }
}

fn label(channel: Channel) -> &'static str {
    match channel {
        Channel::Reliable => "_reliable",
        Channel::Lossy => "_lossy",
        Channel::DataTrack => "_data_track",
    }
}

/// How often a client reports what it received.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// 32.32 fixed point seconds since the start of the test, plus a start that is no special number.
fn ntp(since: Duration) -> u64 {
    let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
    ((since.as_secs() + 3_900_000_000) << 32) | fraction
}
