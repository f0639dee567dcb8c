//! One PeerConnection of the other implementation with the address it has in the made-up network.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use bytes::BytesMut;
use plenary_model::MediaKind;
use rtc::{
    data_channel::{RTCDataChannelId, RTCDataChannelInit},
    interceptor::{Interceptor, Packet, Registry, Slot, StreamInfo, TaggedPacket},
    media_stream::MediaStreamTrack,
    peer_connection::{
        RTCPeerConnection, RTCPeerConnectionBuilder,
        configuration::{
            RTCConfigurationBuilder, interceptor_registry::configure_twcc_receiver_only, media_engine::MediaEngine,
        },
        event::{RTCDataChannelEvent, RTCPeerConnectionEvent},
        message::{RTCMessage, TaggedRTCMessage},
        sdp::RTCSessionDescription,
        state::RTCPeerConnectionState,
        transport::{CandidateConfig, CandidateHostConfig, RTCIceCandidate},
    },
    rtcp, rtp,
    rtp_transceiver::{
        RTCRtpTransceiverDirection, RTCRtpTransceiverId, RTCRtpTransceiverInit,
        rtp_sender::{
            RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters,
            RTCRtpHeaderExtensionCapability, RtpCodecKind,
        },
    },
    sansio::Protocol,
    shared::{TaggedBytesMut, TransportContext, TransportProtocol, error::Error},
};

use super::{ClientOptions, Source};
use crate::world::ROUTER_ADDRESS;

/// See the module.
pub struct Connection {
    connection: RTCPeerConnection,
    /// Where it believes to be.
    local: SocketAddr,
    /// Where it is seen: a NAT may move it.
    pub public: SocketAddr,
    pub connected: bool,
    pub closed: bool,
    /// By the labels of their channels.
    pub messages: Vec<(String, Vec<u8>)>,
    pub open_channels: Vec<String>,
    channels: Vec<(String, RTCDataChannelId)>,
    ears: Ears,
    /// What it said last; asking needs it mutably.
    deadline: Option<Instant>,
}

/// Media as it was decrypted.
pub(crate) enum Heard {
    Rtp(rtp::Packet),
    Rtcp(Vec<Box<dyn rtcp::Packet>>),
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("public", &self.public).finish_non_exhaustive()
    }
}

impl Connection {
    pub(crate) fn new(now: Instant, address: SocketAddr, options: ClientOptions) -> Self {
        let mut engine = media_engine(options);
        let ears = Ears::default();
        let tap = Tap { ears: Arc::clone(&ears), ..Tap::default() };
        let registry = Registry::new().with(Slot::Custom(500), tap);
        let registry = if options.has_transport_feedback {
            configure_twcc_receiver_only(registry, &mut engine).expect("extensions register")
        } else {
            registry
        };
        let mut connection = RTCPeerConnectionBuilder::new()
            .with_configuration(RTCConfigurationBuilder::new().build())
            .with_media_engine(engine)
            .with_interceptor_registry(registry)
            .build(now)
            .expect("a PeerConnection builds");
        let base_config = CandidateConfig {
            network: "udp".to_owned(),
            address: address.ip().to_string(),
            port: address.port(),
            component: 1,
            ..Default::default()
        };
        let candidate = CandidateHostConfig { base_config, ..Default::default() }.new_candidate_host();
        let candidate = RTCIceCandidate::from(&candidate.expect("a host candidate")).to_json();
        connection.add_local_candidate(candidate.expect("candidate as JSON")).expect("the candidate is taken");
        Self {
            connection,
            local: address,
            public: address,
            connected: false,
            closed: false,
            messages: Vec::new(),
            open_channels: Vec::new(),
            channels: Vec::new(),
            ears,
            deadline: Some(now),
        }
    }

    pub(crate) fn add_sending_track(&mut self, source: &Source) -> RTCRtpTransceiverId {
        let (kind, codec) = match source.kind {
            MediaKind::Audio => (RtpCodecKind::Audio, opus().rtp_codec),
            MediaKind::Video if source.is_svc => (RtpCodecKind::Video, vp9().rtp_codec),
            MediaKind::Video => (RtpCodecKind::Video, vp8().rtp_codec),
        };
        let coding = |(ssrc, rid): (u32, &str)| RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters {
                rid: rid.to_owned(),
                ssrc: Some(ssrc),
                ..Default::default()
            },
            codec: codec.clone(),
            active: true,
            ..Default::default()
        };
        let codings = source.streams.iter().map(|stream| coding((stream.ssrc, stream.rid.as_str()))).collect();
        let track = MediaStreamTrack::new("stream".to_owned(), source.cid.clone(), source.cid.clone(), kind, codings);
        let init = RTCRtpTransceiverInit { direction: RTCRtpTransceiverDirection::Sendonly, ..Default::default() };
        self.connection.add_transceiver_from_track(track, Some(init)).expect("a transceiver is added")
    }

    pub(crate) fn deactivate(&mut self, transceiver: RTCRtpTransceiverId) {
        let mut transceiver = self.connection.rtp_transceiver(transceiver).expect("the transceiver exists");
        transceiver.set_direction(RTCRtpTransceiverDirection::Inactive);
    }

    pub(crate) fn mid(&mut self, transceiver: RTCRtpTransceiverId) -> Option<String> {
        self.connection.rtp_transceiver(transceiver)?.mid().clone()
    }

    /// Opens the channels a client opens on its publisher connection.
    pub fn open_channels(&mut self) {
        for (label, ordered, max_retransmits) in
            [("_reliable", true, None), ("_lossy", false, Some(0)), ("_data_track", false, Some(0))]
        {
            let init = RTCDataChannelInit { ordered, max_retransmits, ..Default::default() };
            let channel = self.connection.create_data_channel(label, Some(init)).expect("a channel is created");
            self.channels.push((label.to_owned(), channel.id()));
        }
    }

    pub fn restart_ice(&mut self) {
        self.connection.restart_ice();
    }

    pub fn close(&mut self) {
        self.closed = true;
        self.connected = false;
        self.connection.close().expect("a connection closes");
    }

    pub(crate) fn offer(&mut self, now: Instant) -> String {
        let offer = self.connection.create_offer(None).expect("an offer is made");
        self.connection.set_local_description(now, offer.clone()).expect("our own offer is taken");
        offer.sdp
    }

    pub(crate) fn accept_answer(&mut self, now: Instant, sdp: &str) {
        let answer = RTCSessionDescription::answer(sdp.to_owned());
        let answer = answer.unwrap_or_else(|error| panic!("{error}: {sdp}"));
        let accepted = self.connection.set_remote_description(now, answer);
        accepted.unwrap_or_else(|error| panic!("{error}: {sdp}"));
    }

    pub(crate) fn answer(&mut self, now: Instant, sdp: &str) -> String {
        let offer = RTCSessionDescription::offer(sdp.to_owned()).unwrap_or_else(|error| panic!("{error}: {sdp}"));
        let accepted = self.connection.set_remote_description(now, offer);
        accepted.unwrap_or_else(|error| panic!("{error}: {sdp}"));
        let answer = self.connection.create_answer(None).unwrap_or_else(|error| panic!("{error}: {sdp}"));
        self.connection.set_local_description(now, answer.clone()).expect("our own answer is taken");
        answer.sdp
    }

    pub(crate) fn send_rtp(&mut self, now: Instant, packet: rtp::Packet) {
        let message = RTCMessage::RtpPacket(String::new(), packet);
        self.connection.handle_write(TaggedRTCMessage { now, message }).expect("RTP is queued");
    }

    pub(crate) fn send_rtcp(&mut self, now: Instant, packets: Vec<Box<dyn rtcp::Packet>>) {
        let message = RTCMessage::RtcpPacket(String::new(), packets);
        self.connection.handle_write(TaggedRTCMessage { now, message }).expect("RTCP is queued");
    }

    /// False if there is no such channel, or it is not open.
    pub(crate) fn send_data(&mut self, now: Instant, label: &str, message: &[u8]) -> bool {
        let open = self.channels.iter().find(|(known, _)| known == label && self.open_channels.contains(known));
        let Some((_, id)) = open else { return false };
        let mut channel = self.connection.data_channel(*id).expect("the channel exists");
        channel.send(now, BytesMut::from(message)).expect("a message is queued");
        true
    }

    pub(crate) fn receive(&mut self, now: Instant, datagram: &[u8]) {
        let transport = TransportContext {
            local_addr: self.local,
            peer_addr: ROUTER_ADDRESS,
            transport_protocol: TransportProtocol::UDP,
            ecn: None,
        };
        // What it makes of a datagram it does not like is its own affair.
        let _ = self.connection.handle_read(TaggedBytesMut { now, transport, message: BytesMut::from(datagram) });
        self.poll();
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.deadline().is_some_and(|at| at <= now) {
            let _ = self.connection.handle_timeout(now);
            self.poll();
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(crate) fn transmits(&mut self) -> Vec<Vec<u8>> {
        let out = std::iter::from_fn(|| self.connection.poll_write()).map(|out| out.message.to_vec()).collect();
        self.deadline = if self.closed { None } else { self.connection.poll_timeout() };
        out
    }

    pub(crate) fn heard(&mut self) -> Vec<Heard> {
        let packets = std::mem::take(&mut *self.ears.lock().expect("nobody panicked holding it"));
        let heard = |packet| match packet {
            Packet::Rtp(packet) => Some(Heard::Rtp(packet)),
            Packet::Rtcp(packets) => Some(Heard::Rtcp(packets)),
            _ => None,
        };
        packets.into_iter().filter_map(heard).collect()
    }

    fn poll(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            match event {
                RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) => {
                    // "Disconnected" is said of a path that lost some checks, and media goes on.
                    match state {
                        RTCPeerConnectionState::Connected => self.connected = true,
                        RTCPeerConnectionState::Failed | RTCPeerConnectionState::Closed => self.connected = false,
                        _ => {}
                    }
                }
                RTCPeerConnectionEvent::OnDataChannel(RTCDataChannelEvent::OnOpen(id)) => {
                    let label = self.connection.data_channel(id).map(|channel| channel.label().to_owned());
                    let label = label.unwrap_or_default();
                    if !self.channels.iter().any(|(_, known)| *known == id) {
                        self.channels.push((label.clone(), id));
                    }
                    self.open_channels.push(label);
                }
                _ => {}
            }
        }
        while let Some(read) = self.connection.poll_read() {
            // Media was heard by the tap.
            if let RTCMessage::DataChannelMessage(id, message) = read.message {
                let label = self.channels.iter().find(|(_, known)| *known == id).map(|(label, _)| label.clone());
                self.messages.push((label.unwrap_or_default(), message.data.to_vec()));
            }
        }
    }
}

/// Hears all media on its way in. Nothing is changed by it.
#[derive(Default)]
struct Tap {
    ears: Ears,
    read: VecDeque<TaggedPacket>,
    write: VecDeque<TaggedPacket>,
}

type Ears = Arc<Mutex<Vec<Packet>>>;

impl Protocol<TaggedPacket, TaggedPacket, ()> for Tap {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, packet: TaggedPacket) -> Result<(), Error> {
        self.ears.lock().expect("nobody panicked holding it").push(packet.message.packet.clone());
        self.read.push_back(packet);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.read.pop_front()
    }

    fn handle_write(&mut self, packet: TaggedPacket) -> Result<(), Error> {
        self.write.push_back(packet);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.write.pop_front()
    }
}

impl Interceptor for Tap {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}

fn media_engine(options: ClientOptions) -> MediaEngine {
    let mut engine = MediaEngine::default();
    engine.register_codec(opus(), RtpCodecKind::Audio).expect("opus registers");
    if options.decodes_vp8 {
        engine.register_codec(vp8(), RtpCodecKind::Video).expect("VP8 registers");
        if options.decodes_vp9 {
            engine.register_codec(vp9(), RtpCodecKind::Video).expect("VP9 registers");
        }
        for (payload_type, associated, known) in [(97, "apt=96", true), (99, "apt=98", options.decodes_vp9)] {
            if options.has_rtx && known {
                let rtx = codec(payload_type, "video/rtx", 90_000, 0, associated);
                engine.register_codec(rtx, RtpCodecKind::Video).expect("RTX registers");
            }
        }
    } else {
        let format = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
        engine
            .register_codec(codec(108, "video/H264", 90_000, 0, format), RtpCodecKind::Video)
            .expect("H264 registers");
    }
    for (uri, kinds) in [
        ("urn:ietf:params:rtp-hdrext:sdes:mid", &[RtpCodecKind::Audio, RtpCodecKind::Video][..]),
        ("urn:ietf:params:rtp-hdrext:ssrc-audio-level", &[RtpCodecKind::Audio]),
        ("urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id", &[RtpCodecKind::Video]),
        ("urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id", &[RtpCodecKind::Video]),
    ] {
        for kind in kinds {
            let capability = RTCRtpHeaderExtensionCapability { uri: uri.to_owned() };
            engine.register_header_extension(capability, *kind, None).expect("an extension registers");
        }
    }
    engine
}

fn opus() -> RTCRtpCodecParameters {
    codec(111, "audio/opus", 48_000, 2, "minptime=10;useinbandfec=1")
}

fn vp8() -> RTCRtpCodecParameters {
    codec(96, "video/VP8", 90_000, 0, "")
}

fn vp9() -> RTCRtpCodecParameters {
    codec(98, "video/VP9", 90_000, 0, "profile-id=0")
}

fn codec(payload_type: u8, mime: &str, clock_rate: u32, channels: u16, format: &str) -> RTCRtpCodecParameters {
    let feedback: &[_] = match mime {
        "audio/opus" => &[("transport-cc", "")],
        "video/rtx" => &[],
        _ => &[("transport-cc", ""), ("ccm", "fir"), ("nack", ""), ("nack", "pli")],
    };
    let rtcp_feedback =
        |typ: &str, parameter: &str| RTCPFeedback { typ: typ.to_owned(), parameter: parameter.to_owned() };
    let rtp_codec = RTCRtpCodec {
        mime_type: mime.to_owned(),
        clock_rate,
        channels,
        sdp_fmtp_line: format.to_owned(),
        rtcp_feedback: feedback.iter().map(|(typ, parameter)| rtcp_feedback(typ, parameter)).collect(),
    };
    RTCRtpCodecParameters { rtp_codec, payload_type }
}
