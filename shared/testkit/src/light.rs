//! The least that a router takes for a client: checks, a DTLS handshake, descriptions, and sealed media. For measuring,
//! where a whole PeerConnection would cost more than what is measured.

use std::{sync::Arc, time::Instant};

use aws_lc_rs::{digest, hmac};
use dimpl::{Config, Dtls, DtlsCertificate, Output, SrtpProfile};
use plenary_media_core::IceCredentials;
use plenary_model::MediaKind;
pub use rtc::srtp::context::Context;
use rtc::srtp::protection_profile::ProtectionProfile;

/// What all clients share; that they have one certificate changes nothing for the router.
pub struct Identity {
    certificate: DtlsCertificate,
    config: Arc<Config>,
    fingerprint: String,
}

/// One transport of one client, always the DTLS client.
pub struct Transport {
    /// The router's.
    pub ice: IceCredentials,
    pub is_connected: bool,
    dtls: Dtls,
    /// Seals what this client sends, and opens what it receives.
    pub keys: Option<(Context, Context)>,
    /// What came over DTLS: SCTP packets.
    pub application: Vec<Vec<u8>>,
}

/// A section of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section<'a> {
    Data,
    /// A track that was announced under this client id.
    Track {
        kind: MediaKind,
        cid: &'a str,
    },
    /// A video in a stream for each of [`RIDS`].
    Simulcast {
        cid: &'a str,
    },
}

impl Identity {
    pub fn generate() -> Self {
        let certificate = dimpl::certificate::generate_self_signed_certificate().expect("a certificate is made");
        let hash = digest::digest(&digest::SHA256, &certificate.certificate);
        let fingerprint: Vec<_> = hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        let config = Config::builder().mtu(1_200).build().expect("settings are taken");
        Self { certificate, config: Arc::new(config), fingerprint: fingerprint.join(":") }
    }
}

impl Transport {
    pub fn new(now: Instant, identity: &Identity, ice: IceCredentials) -> Self {
        let mut dtls = Dtls::new_12(Arc::clone(&identity.config), identity.certificate.clone(), now);
        dtls.set_active(true);
        Self { ice, is_connected: false, dtls, keys: None, application: Vec::new() }
    }

    /// A check that nominates (RFC 8445 7.1).
    pub fn check(&self) -> Vec<u8> {
        let username = format!("{}:them", self.ice.ufrag);
        let mut out = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        out.extend_from_slice(&[7; 12]);
        attribute(&mut out, 0x0006, username.as_bytes()); // USERNAME
        attribute(&mut out, 0x0024, &[110, 0, 1, 255]); // PRIORITY
        attribute(&mut out, 0x0025, &[]); // USE-CANDIDATE
        attribute(&mut out, 0x802a, &[1; 8]); // ICE-CONTROLLING
        let covered = out.len() - 20 + 24;
        out[2..4].copy_from_slice(&(covered as u16).to_be_bytes());
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, self.ice.pwd.as_bytes());
        let tag = hmac::sign(&key, &out);
        attribute(&mut out, 0x0008, tag.as_ref()); // MESSAGE-INTEGRITY
        out
    }

    /// Takes in a DTLS datagram, or `None` to begin or when time has passed; returns what to answer.
    pub fn handshake(&mut self, now: Instant, datagram: Option<&[u8]>) -> Vec<Vec<u8>> {
        self.dtls.handle_timeout(now).expect("time passes");
        if let Some(datagram) = datagram.filter(|datagram| (20..64).contains(&datagram[0])) {
            self.dtls.handle_packet(datagram).expect("the server speaks DTLS");
        }
        let (mut answers, mut buffer) = (Vec::new(), vec![0; 1 << 14]);
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(packet) => answers.push(packet.to_vec()),
                Output::KeyingMaterial(material, profile) => {
                    assert_eq!(profile, SrtpProfile::AEAD_AES_256_GCM, "the floor is measured with this cipher");
                    self.keys = Some(contexts(&material));
                }
                Output::Connected => self.is_connected = true,
                Output::ApplicationData(data) => self.application.push(data.to_vec()),
                Output::Timeout(_) => return answers,
                _ => {}
            }
        }
    }

    /// Sends over DTLS; returns the datagrams.
    pub fn send(&mut self, now: Instant, data: &[u8]) -> Vec<Vec<u8>> {
        self.dtls.send_application_data(data).expect("it is connected");
        self.handshake(now, None)
    }
}

/// An offer of these sections, whose mids count from 0.
pub fn offer(identity: &Identity, sections: &[Section<'_>]) -> String {
    let fingerprint = &identity.fingerprint;
    let mids: Vec<_> = (0..sections.len()).map(|mid| mid.to_string()).collect();
    let mut out = format!("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n", mids.join(" "));
    for (mid, section) in mids.iter().zip(sections) {
        out += &match section {
            Section::Data => "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=sctp-port:5000\r\n".to_owned(),
            Section::Track { kind: MediaKind::Audio, cid } => format!(
                "m=audio 9 UDP/TLS/RTP/SAVPF {OPUS}\r\na=rtpmap:{OPUS} opus/48000/2\r\na=rtcp-fb:{OPUS} transport-cc\r\n\
                 a=extmap:{LEVEL_ID} urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n{EXTENSIONS}a=sendonly\r\na=msid:- {cid}\r\n"
            ),
            Section::Track { kind: MediaKind::Video, cid } => video(cid),
            Section::Simulcast { cid } => {
                let rids = RIDS.map(String::from);
                let lines: String = rids.iter().map(|rid| format!("a=rid:{rid} send\r\n")).collect();
                let extension = format!("a=extmap:{RID_ID} urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n");
                format!("{}{extension}{lines}a=simulcast:send {}\r\n", video(cid), rids.join(";"))
            }
        };
        out += &format!(
            "a=mid:{mid}\r\na=rtcp-mux\r\na=ice-ufrag:them\r\na=ice-pwd:a-password-of-theirs-22\r\n\
             a=fingerprint:sha-256 {fingerprint}\r\na=setup:actpass\r\n"
        );
    }
    out
}

fn video(cid: &str) -> String {
    format!(
        "m=video 9 UDP/TLS/RTP/SAVPF {VP8} 97\r\na=rtpmap:{VP8} VP8/90000\r\na=rtcp-fb:{VP8} transport-cc\r\n\
         a=rtcp-fb:{VP8} nack\r\na=rtcp-fb:{VP8} nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt={VP8}\r\n\
         {EXTENSIONS}a=sendonly\r\na=msid:- {cid}\r\n"
    )
}

/// The answer that takes everything an offer has.
pub fn answer(identity: &Identity, offer: &str) -> String {
    let line = |line: &str| {
        let (name, _) = line.split_once(':').unwrap_or((line, ""));
        match name {
            "a=sendonly" => "a=recvonly\r\n".to_owned(),
            "a=setup" => "a=setup:active\r\n".to_owned(),
            "a=ice-ufrag" => "a=ice-ufrag:them\r\n".to_owned(),
            "a=ice-pwd" => "a=ice-pwd:a-password-of-theirs-22\r\n".to_owned(),
            "a=fingerprint" => format!("a=fingerprint:sha-256 {}\r\n", identity.fingerprint),
            "a=ice-lite" | "a=msid" | "a=ssrc" | "a=ssrc-group" | "a=candidate" | "a=end-of-candidates" => {
                String::new()
            }
            _ => format!("{line}\r\n"),
        }
    };
    offer.lines().map(line).collect()
}

/// The transport-wide sequence number that the router wrote into a packet: its header is in the clear (RFC 8285 4.2).
pub fn transport_sequence(packet: &[u8]) -> Option<u16> {
    let [first, _, rest @ ..] = packet else { return None };
    let after_sources = rest.get(10 + 4 * usize::from(first & 0x0f)..).filter(|_| first & 0x10 != 0)?;
    let ([0xbe, 0xde, high, low], words) = after_sources.split_first_chunk()? else { return None };
    let mut elements = words.get(..4 * usize::from(u16::from_be_bytes([*high, *low])))?;
    while let [head, after @ ..] = elements {
        let bytes = if *head == 0 { 0 } else { usize::from(head & 0x0f) + 1 };
        let (value, next) = after.split_at_checked(bytes)?;
        if head >> 4 == TRANSPORT_SEQUENCE_ID {
            return Some(u16::from_be_bytes(value.try_into().ok()?));
        }
        elements = next;
    }
    None
}

/// One stream on its way out of a client.
pub struct Source {
    /// Its client's place.
    pub client: usize,
    kind: MediaKind,
    ssrc: u32,
    mid: u8,
    rid: Option<char>,
    sequence: u16,
    timestamp: u32,
    /// The last transport-wide number that it used; streams of one transport count together.
    pub transport_sequence: u16,
    picture: u16,
    key_wanted: bool,
}

impl Source {
    /// For the section with this mid, below 10.
    pub fn new(client: usize, kind: MediaKind, mid: u8) -> Self {
        let ssrc = 0x1000_0000 | (client as u32) << 4 | u32::from(mid);
        let (sequence, timestamp) = (1, 1);
        let (rid, transport_sequence) = (None, 0);
        Self { client, kind, ssrc, mid, rid, sequence, timestamp, transport_sequence, picture: 0, key_wanted: true }
    }

    /// The streams of [`Section::Simulcast`] with this mid, low to high.
    pub fn simulcast(client: usize, mid: u8) -> Vec<Self> {
        let stream = |(at, rid): (u32, char)| {
            let single = Self::new(client, MediaKind::Video, mid);
            Self { ssrc: single.ssrc.wrapping_add(at << 28), rid: Some(rid), ..single }
        };
        (0..).zip(RIDS).map(stream).collect()
    }

    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    pub fn kind(&self) -> MediaKind {
        self.kind
    }

    /// The timestamp of the next frame.
    pub fn timestamp(&self) -> u32 {
        self.timestamp
    }

    /// The next frame is a key picture.
    pub fn want_key(&mut self) {
        self.key_wanted = true;
    }

    /// The next frame in packets of these sizes, sealed. Every payload ends in `tail`.
    pub fn frame(&mut self, keys: &mut Context, sizes: &[usize], tail: &[u8]) -> Vec<Vec<u8>> {
        let is_key = std::mem::take(&mut self.key_wanted) || self.picture.is_multiple_of(KEYFRAME_EVERY);
        let packet = |(at, size): (usize, &usize)| {
            let mut out = self.header(at + 1 == sizes.len());
            match self.kind {
                // RFC 6716 3.1: one frame of 20 ms, of which a decoder makes noise.
                MediaKind::Audio => out.push(0xfc),
                MediaKind::Video => {
                    let [high, low] = self.picture.to_be_bytes();
                    // RFC 7741 4.2: extended, start of frame, a picture id of 15 bits; then the frame's own first byte.
                    let start = if at == 0 { 0x90 } else { 0x80 };
                    out.extend_from_slice(&[start, 0x80, 0x80 | high, low, u8::from(!is_key)]);
                }
            }
            out.resize(size - tail.len(), 0x5a);
            out.extend_from_slice(tail);
            self.sequence = self.sequence.wrapping_add(1);
            self.transport_sequence = self.transport_sequence.wrapping_add(1);
            keys.encrypt_rtp(&out).expect("a packet is sealed").to_vec()
        };
        let packets = sizes.iter().enumerate().map(packet).collect();
        self.picture = (self.picture + 1) & 0x7fff;
        self.timestamp = self.timestamp.wrapping_add(if self.kind == MediaKind::Video { 3_000 } else { 960 });
        packets
    }

    fn header(&self, marker: bool) -> Vec<u8> {
        let payload_type = if self.kind == MediaKind::Video { VP8 } else { OPUS };
        let mut out = vec![0x90, payload_type | u8::from(marker) << 7];
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.ssrc.to_be_bytes());
        let [high, low] = self.transport_sequence.to_be_bytes();
        let level = [LEVEL_ID << 4, 0x80 | 30];
        out.extend_from_slice(&[
            0xbe,
            0xde,
            0,
            2,
            MID_ID << 4,
            b'0' + self.mid,
            TRANSPORT_SEQUENCE_ID << 4 | 1,
            high,
            low,
        ]);
        out.extend_from_slice(&match (self.kind, self.rid) {
            (MediaKind::Audio, _) => level,
            (MediaKind::Video, Some(rid)) => [RID_ID << 4, rid as u8],
            (MediaKind::Video, None) => [0, 0],
        });
        out.push(0);
        out
    }
}

/// RFC 5764 4.2: client key, server key, client salt, server salt. We are the client.
fn contexts(material: &[u8]) -> (Context, Context) {
    let profile = ProtectionProfile::AeadAes256Gcm;
    let provider = rtc::crypto::default_provider().expect("a crypto provider");
    let (keys, salts) = material.split_at(2 * profile.key_len());
    let context = |at: usize| {
        let (key, salt) = (profile.key_len(), profile.salt_len());
        let (key, salt) = (&keys[at * key..][..key], &salts[at * salt..][..salt]);
        Context::new(key, salt, profile, None, None, provider.crypto()).expect("a context is made")
    };
    (context(0), context(1))
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

const VP8: u8 = 96;
const OPUS: u8 = 111;
const LEVEL_ID: u8 = 1;
const TRANSPORT_SEQUENCE_ID: u8 = 3;
const MID_ID: u8 = 4;
const RID_ID: u8 = 5;
/// The layers of a simulcast, low to high, as the SDKs call them.
pub const RIDS: [char; 3] = ['q', 'h', 'f'];
const EXTENSIONS: &str = "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
                          a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n";
const KEYFRAME_EVERY: u16 = 90;
