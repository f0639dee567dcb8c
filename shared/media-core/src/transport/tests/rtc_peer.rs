//! Against a whole PeerConnection of another implementation, in virtual time: full ICE, its own DTLS, SCTP and SRTP.

use bytes::BytesMut;
use rtc::data_channel::RTCDataChannelId;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_VP8, MediaEngine};
use rtc::peer_connection::event::{RTCDataChannelEvent, RTCPeerConnectionEvent};
use rtc::peer_connection::message::RTCMessage;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::{CandidateConfig, CandidateHostConfig, RTCIceCandidate};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtp_transceiver::RTCRtpSenderId;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use rtc::sansio::Protocol as _;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};

use super::*;

const THEIR_SSRC: u32 = 0xabcd;
const OUR_SSRC: u32 = 0x1234;

struct Browser {
    connection: RTCPeerConnection,
    /// Where it believes to be; a NAT may make it look like somebody else.
    local: std::net::SocketAddr,
    channel: RTCDataChannelId,
    sender: RTCRtpSenderId,
    connected: bool,
    channel_open: bool,
    messages: Vec<Vec<u8>>,
    packets: Vec<rtc::rtp::Packet>,
}

struct Meeting {
    now: Instant,
    browser: Browser,
    server: Transport,
    /// The browser's address as the server sees it.
    seen: Path,
    received: Vec<Vec<u8>>,
    compounds: usize,
    events: Vec<TransportEvent>,
}

fn our_address() -> std::net::SocketAddr {
    "203.0.113.1:7882".parse().unwrap()
}

impl Meeting {
    fn new() -> Self {
        let now = Instant::now();
        let mut browser = Browser::new(now, "198.51.100.7:5000".parse().unwrap());
        let offer = browser.connection.create_offer(None).unwrap();
        browser.connection.set_local_description(now, offer.clone()).unwrap();
        let identity = DtlsIdentity::generate().unwrap();
        let mut server = Transport::new(&identity, credentials("srv1"), false, 0);
        let line = offer.sdp.lines().find_map(|line| line.strip_prefix("a=fingerprint:sha-256 ")).unwrap();
        let digest: Vec<u8> = line.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        let fingerprint = Fingerprint(digest.try_into().unwrap());
        let remote = RemoteParameters { fingerprint, remote_is_dtls_client: true, max_message_bytes: 65_536 };
        server.set_remote(now, remote);
        let answer = RTCSessionDescription::answer(answer(&identity, server.local_ice())).unwrap();
        browser.connection.set_remote_description(now, answer).unwrap();
        let seen = Path { protocol: Protocol::Udp, remote: browser.local };
        Self { now, browser, server, seen, received: Vec::new(), compounds: 0, events: Vec::new() }
    }

    fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) {
        let end = self.now + limit;
        for _ in 0..100_000 {
            while self.carry() {}
            if done(self) {
                return;
            }
            let theirs = self.browser.connection.poll_timeout();
            let ours = self.server.next_deadline().map(|(at, _)| at);
            let next = [theirs, ours, Some(end)].into_iter().flatten().min().unwrap();
            assert!(next < end, "not in {limit:?}");
            // An end that asks for a time already past gets a millisecond of progress.
            self.now = next.max(self.now + Duration::from_millis(1));
            self.server.handle_timeout(self.now);
            self.browser.connection.handle_timeout(self.now).unwrap();
        }
        panic!("never done");
    }

    fn carry(&mut self) -> bool {
        let mut moved = false;
        while let Some(out) = self.browser.connection.poll_write() {
            moved = true;
            let mut bytes = out.message.to_vec();
            match self.server.receive(self.now, self.seen, &mut bytes) {
                Received::Rtp(packet) => self.received.push(packet.to_vec()),
                Received::Rtcp(_) => self.compounds += 1,
                Received::Consumed | Received::Dropped(_) => {}
            }
        }
        while let Some((to, datagram)) = self.server.poll_transmit() {
            moved = true;
            if to == self.seen {
                self.browser.receive(self.now, &datagram);
            }
        }
        self.events.extend(std::iter::from_fn(|| self.server.poll_event()));
        self.browser.poll();
        moved
    }

    fn connect(&mut self) {
        self.run_until(Duration::from_secs(10), |meeting| {
            meeting.browser.connected && meeting.browser.channel_open && meeting.server.is_connected()
        });
    }

    fn echo(&mut self, text: &[u8]) {
        let (channel, now) = (self.browser.channel, self.now);
        self.browser.connection.data_channel(channel).unwrap().send(now, BytesMut::from(text)).unwrap();
        let heard = TransportEvent::Data { channel: Channel::Reliable, payload: Bytes::copy_from_slice(text) };
        self.run_until(Duration::from_secs(5), |meeting| meeting.events.contains(&heard));
        self.server.send(self.now, Channel::Reliable, text).unwrap();
        self.run_until(Duration::from_secs(5), |meeting| meeting.browser.messages.iter().any(|heard| heard == text));
    }

    fn media_both_ways(&mut self, sequence: u16) {
        let mut packet = rtc::rtp::Packet::default();
        packet.header.version = 2;
        packet.header.payload_type = 96;
        packet.header.sequence_number = sequence;
        packet.header.ssrc = THEIR_SSRC;
        packet.payload = Bytes::from_static(b"up");
        let sender = self.browser.sender;
        self.browser.connection.rtp_sender(sender).unwrap().write_rtp(self.now, packet).unwrap();
        self.run_until(Duration::from_secs(1), |meeting| {
            meeting.received.iter().any(|packet| packet[2..4] == sequence.to_be_bytes() && packet.ends_with(b"up"))
        });

        let mut down = vec![0x80, 96];
        down.extend_from_slice(&sequence.to_be_bytes());
        down.extend_from_slice(&[0, 0, 0, 1]);
        down.extend_from_slice(&OUR_SSRC.to_be_bytes());
        down.extend_from_slice(b"down");
        self.server.seal_rtp(0, 12, &mut down, 0).unwrap();
        self.browser.receive(self.now, &down);
        self.run_until(Duration::from_secs(1), |meeting| {
            let mut packets = meeting.browser.packets.iter();
            packets.any(|packet| packet.header.sequence_number == sequence && packet.payload.as_ref() == b"down")
        });
    }
}

impl Browser {
    fn new(now: Instant, local: std::net::SocketAddr) -> Self {
        let codec = RTCRtpCodec {
            mime_type: MIME_TYPE_VP8.to_owned(),
            clock_rate: 90_000,
            channels: 0,
            sdp_fmtp_line: String::new(),
            rtcp_feedback: vec![],
        };
        let parameters = RTCRtpCodecParameters { rtp_codec: codec.clone(), payload_type: 96 };
        let mut engine = MediaEngine::default();
        engine.register_codec(parameters, RtpCodecKind::Video).unwrap();
        let mut connection = RTCPeerConnectionBuilder::new()
            .with_configuration(RTCConfigurationBuilder::new().build())
            .with_media_engine(engine)
            .build(now)
            .unwrap();
        let coding = RTCRtpCodingParameters { ssrc: Some(THEIR_SSRC), ..Default::default() };
        let encoding = RTCRtpEncodingParameters { rtp_coding_parameters: coding, codec, ..Default::default() };
        let track =
            MediaStreamTrack::new("s".into(), "camera".into(), "camera".into(), RtpCodecKind::Video, vec![encoding]);
        let sender = connection.add_track(track).unwrap();
        let channel = connection.create_data_channel("_reliable", None).unwrap().id();
        let base_config = CandidateConfig {
            network: "udp".to_owned(),
            address: local.ip().to_string(),
            port: local.port(),
            component: 1,
            ..Default::default()
        };
        let candidate = CandidateHostConfig { base_config, ..Default::default() }.new_candidate_host().unwrap();
        connection.add_local_candidate(RTCIceCandidate::from(&candidate).to_json().unwrap()).unwrap();
        let (messages, packets) = (Vec::new(), Vec::new());
        Self { connection, local, channel, sender, connected: false, channel_open: false, messages, packets }
    }

    fn receive(&mut self, now: Instant, datagram: &[u8]) {
        let transport = TransportContext {
            local_addr: self.local,
            peer_addr: our_address(),
            ecn: None,
            transport_protocol: TransportProtocol::UDP,
        };
        // What it makes of a datagram it does not like is its own affair.
        let _ = self.connection.handle_read(TaggedBytesMut { now, transport, message: BytesMut::from(datagram) });
    }

    fn poll(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            match event {
                RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) => {
                    self.connected = state == RTCPeerConnectionState::Connected;
                }
                RTCPeerConnectionEvent::OnDataChannel(RTCDataChannelEvent::OnOpen(id)) if id == self.channel => {
                    self.channel_open = true;
                }
                _ => {}
            }
        }
        while let Some(read) = self.connection.poll_read() {
            match read.message {
                RTCMessage::DataChannelMessage(_, message) => self.messages.push(message.data.to_vec()),
                RTCMessage::RtpPacket(_, packet) => self.packets.push(packet),
                _ => {}
            }
        }
    }
}

fn answer(identity: &DtlsIdentity, ice: &IceCredentials) -> String {
    let transport = format!(
        "c=IN IP4 0.0.0.0\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {}\r\na=setup:passive\r\n\
         a=candidate:1 1 udp 2130706431 {} {} typ host\r\na=end-of-candidates\r\n",
        ice.ufrag,
        ice.pwd,
        identity.fingerprint(),
        our_address().ip(),
        our_address().port()
    );
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=ice-lite\r\na=msid-semantic: WMS *\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96\r\n{transport}a=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n\
         a=msid:PA_x TR_x\r\na=ssrc:{OUR_SSRC} cname:x\r\na=ssrc:{OUR_SSRC} msid:PA_x TR_x\r\n\
         m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n{transport}a=mid:1\r\na=sctp-port:5000\r\n\
         a=max-message-size:65535\r\n"
    )
}

#[test]
fn an_independent_client_connects_and_gets_data_and_media_through() {
    let mut meeting = Meeting::new();
    meeting.connect();
    assert!(meeting.events.contains(&TransportEvent::ChannelOpen(Channel::Reliable)));
    meeting.echo(b"hello");
    meeting.echo(&vec![7; 40_000]);
    for sequence in 65_530..=u16::MAX {
        meeting.media_both_ways(sequence);
    }
}

#[test]
fn an_independent_client_behind_a_new_nat_mapping_is_followed() {
    let mut meeting = Meeting::new();
    meeting.connect();
    meeting.echo(b"here");
    let moved = Path { protocol: Protocol::Udp, remote: "198.51.100.99:40000".parse().unwrap() };
    meeting.seen = moved;
    meeting.run_until(Duration::from_secs(10), |meeting| meeting.server.remote() == Some(moved));
    meeting.echo(b"there");
    meeting.media_both_ways(9);
}

#[test]
fn an_independent_client_stays_connected_while_nobody_says_anything() {
    let mut meeting = Meeting::new();
    meeting.connect();
    let later = meeting.now + Duration::from_secs(120);
    meeting.run_until(Duration::from_secs(200), |meeting| meeting.now >= later);
    assert!(meeting.server.is_connected() && meeting.browser.connected);
    meeting.echo(b"still here");
}
