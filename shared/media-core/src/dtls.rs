//! DTLS 1.2 of one peer over `dimpl`, the only file that names it.
//!
//! Every peer meets the same self-signed certificate; who the peer is, its fingerprint in the SDP says. Keys are handed
//! out only after the certificate seen in the handshake was compared with it. The caller lets in nothing but datagrams
//! from an address that ICE validated: that is why no cookie is asked for, and junk from elsewhere could end a handshake.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use dimpl::{Config, DtlsCertificate, Output, SrtpProfile};
use subtle::ConstantTimeEq;

use crate::api::PeerEnd;
use crate::srtp::{Keys, Profile};

/// The certificate of a node and the settings of its DTLS endpoints. Made once, shared by every transport.
#[derive(Clone)]
pub struct DtlsIdentity {
    certificate: DtlsCertificate,
    config: Arc<Config>,
    fingerprint: String,
}

impl std::fmt::Debug for DtlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DtlsIdentity").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("no DTLS certificate could be made")]
    Certificate,
    #[error("the DTLS settings were refused")]
    Settings,
}

impl DtlsIdentity {
    /// A new key and certificate (ECDSA P-256, valid for a year: make one per start of a node).
    pub fn generate() -> Result<Self, IdentityError> {
        let certificate =
            dimpl::certificate::generate_self_signed_certificate().map_err(|_| IdentityError::Certificate)?;
        let config = Config::builder()
            .mtu(DATAGRAM_MAX)
            .use_server_cookie(false)
            .flight_start_rto(FLIGHT_START_RTO)
            .flight_retries(FLIGHT_RETRIES)
            .build()
            .map_err(|_| IdentityError::Settings)?;
        let fingerprint = Fingerprint::of(&certificate.certificate).to_string();
        Ok(Self { certificate, config: Arc::new(config), fingerprint })
    }

    /// SHA-256 of the certificate as it stands in `a=fingerprint:sha-256`.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// SHA-256 of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    fn of(certificate_der: &[u8]) -> Self {
        let digest = digest::digest(&digest::SHA256, certificate_der);
        Self(digest.as_ref().first_chunk().copied().unwrap_or_default())
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, byte) in self.0.iter().enumerate() {
            let colon = if n == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DtlsRole {
    Client,
    Server,
}

/// One handshake and what follows it.
pub(crate) struct Dtls {
    endpoint: dimpl::Dtls,
    role: DtlsRole,
    expected: Fingerprint,
    peer: Peer,
    /// Held back until the handshake is complete: before, the certificate may be somebody else's.
    keys: Option<Box<Keys>>,
    deadline: Option<Instant>,
    out: VecDeque<DtlsOutput>,
}

/// How far the peer has shown who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Unknown,
    /// Showed the right certificate.
    Verified,
    /// Proved that it is its own, and finished.
    Finished,
    Connected,
    /// Sent close_notify: nothing more can be said, what SRTP carries goes on.
    Gone,
}

#[derive(Debug)]
pub(crate) enum DtlsOutput {
    Datagram(Vec<u8>),
    /// The handshake is complete and the peer is who it should be. No keys if it wants no media.
    Connected(Option<Box<Keys>>),
    Data(Vec<u8>),
    /// The peer will say no more.
    Closed,
}

impl std::fmt::Debug for Dtls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dtls").field("role", &self.role).field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Dtls {
    pub fn new(now: Instant, identity: &DtlsIdentity, role: DtlsRole, expected: Fingerprint) -> Result<Self, PeerEnd> {
        let mut endpoint = dimpl::Dtls::new_12(Arc::clone(&identity.config), identity.certificate.clone(), now);
        endpoint.set_active(role == DtlsRole::Client);
        let (peer, out) = (Peer::Unknown, VecDeque::new());
        let mut dtls = Self { endpoint, role, expected, peer, keys: None, deadline: None, out };
        dtls.handle_timeout(now)?;
        Ok(dtls)
    }

    pub fn role(&self) -> DtlsRole {
        self.role
    }

    pub fn receive(&mut self, now: Instant, datagram: &[u8]) -> Result<(), PeerEnd> {
        self.endpoint.handle_timeout(now).map_err(|_| PeerEnd::DtlsFailed)?;
        self.endpoint.handle_packet(datagram).map_err(|_| PeerEnd::DtlsFailed)?;
        self.drain()
    }

    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), PeerEnd> {
        self.endpoint.handle_timeout(now).map_err(|_| PeerEnd::DtlsFailed)?;
        self.drain()
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// One message into one record. Larger than a record may be, it is not sent.
    pub fn send(&mut self, now: Instant, message: &[u8]) -> Result<(), PeerEnd> {
        if self.peer != Peer::Connected || message.len() > MESSAGE_MAX {
            return Ok(());
        }
        self.endpoint.handle_timeout(now).map_err(|_| PeerEnd::DtlsFailed)?;
        self.endpoint.send_application_data(message).map_err(|_| PeerEnd::DtlsFailed)?;
        self.drain()
    }

    /// Says goodbye. It is sent once and may get lost.
    pub fn close(&mut self) {
        if self.endpoint.close().is_ok() {
            let _ = self.drain();
        }
    }

    pub fn poll(&mut self) -> Option<DtlsOutput> {
        self.out.pop_front()
    }

    /// The next output if it is a datagram.
    pub fn poll_datagram(&mut self) -> Option<Vec<u8>> {
        match self.out.pop_front()? {
            DtlsOutput::Datagram(datagram) => Some(datagram),
            other => {
                self.out.push_front(other);
                None
            }
        }
    }

    /// Everything the endpoint has to say, after each thing done to it: it queues a few datagrams only.
    fn drain(&mut self) -> Result<(), PeerEnd> {
        let mut small = [0; SMALL_OUTPUT];
        let mut large = Vec::new();
        for _ in 0..OUTPUTS_PER_TURN {
            let output = if large.is_empty() {
                self.endpoint.poll_output(&mut small)
            } else {
                self.endpoint.poll_output(&mut large)
            };
            match output {
                Output::Timeout(at) => {
                    self.deadline = Some(at);
                    self.announce();
                    return Ok(());
                }
                Output::BufferTooSmall { needed } if needed <= OUTPUT_MAX => large.resize(needed, 0),
                Output::BufferTooSmall { .. } => return Err(PeerEnd::DtlsFailed),
                Output::Packet(datagram) => self.out.push_back(DtlsOutput::Datagram(datagram.to_vec())),
                Output::PeerCert(der) => {
                    // Constant time is more than a public value needs, and costs nothing.
                    if !bool::from(Fingerprint::of(der).0.ct_eq(&self.expected.0)) {
                        return Err(PeerEnd::WrongFingerprint);
                    }
                    self.peer = Peer::Verified;
                }
                Output::Connected => {
                    if self.peer != Peer::Verified {
                        return Err(PeerEnd::WrongFingerprint);
                    }
                    self.peer = Peer::Finished;
                }
                Output::KeyingMaterial(material, profile) => {
                    let profile = match profile {
                        SrtpProfile::AEAD_AES_256_GCM => Profile::Aes256Gcm,
                        SrtpProfile::AEAD_AES_128_GCM => Profile::Aes128Gcm,
                        SrtpProfile::AES128_CM_SHA1_80 => Profile::Aes128CmSha1,
                        _ => return Err(PeerEnd::DtlsFailed),
                    };
                    let keys = Keys::from_dtls(profile, &material, self.role).ok_or(PeerEnd::DtlsFailed)?;
                    self.keys = Some(Box::new(keys));
                }
                Output::ApplicationData(data) => {
                    self.announce();
                    if self.peer == Peer::Connected {
                        self.out.push_back(DtlsOutput::Data(data.to_vec()));
                    }
                }
                Output::CloseNotify => {
                    self.peer = Peer::Gone;
                    self.out.push_back(DtlsOutput::Closed);
                }
                _ => {}
            }
        }
        Err(PeerEnd::DtlsFailed)
    }

    /// Says that the handshake is complete, once, when keys had their chance to come out with it.
    fn announce(&mut self) {
        if self.peer == Peer::Finished {
            self.peer = Peer::Connected;
            self.out.push_back(DtlsOutput::Connected(self.keys.take()));
        }
    }
}

/// Largest datagram of a handshake, UDP header not counted: fits the least IPv6 path (1,280 bytes) whole.
const DATAGRAM_MAX: usize = 1_200;
/// Plaintext of one record. With 13 bytes of header, 8 of nonce and 16 of tag it fits an Ethernet frame; the endpoint
/// would take much more, and corrupt it.
pub(crate) const MESSAGE_MAX: usize = 1_400;
/// The first retransmission after 100 ms, doubling: at 20 % loss the worst handshake takes 0.7 s instead of 3.4 s.
const FLIGHT_START_RTO: Duration = Duration::from_millis(100);
const FLIGHT_RETRIES: usize = 8;
const SMALL_OUTPUT: usize = 2_048;
/// A record's plaintext is at most 2^14 bytes (RFC 5246 section 6.2.1); certificates come out this way as well.
const OUTPUT_MAX: usize = 1 << 16;
/// More outputs than this after one datagram are no handshake any more.
const OUTPUTS_PER_TURN: usize = 256;

#[cfg(test)]
mod tests;
