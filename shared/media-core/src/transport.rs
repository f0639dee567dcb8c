//! One client's PeerConnection below the SDP: from datagram to plaintext RTP, RTCP and messages, and back.
//!
//! Composes ICE, DTLS, SRTP and SCTP of one peer. What carries media is selected by ICE; DTLS is fed only from paths that
//! ICE validated; SRTP exists only after the fingerprint matched. An end is said once, by name, and nothing follows it.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use plenary_model::Channel;

use crate::api::{Deadline, DropReason, IceCredentials, Path, PeerEnd};
use crate::demux::{Kind, classify};
use crate::dtls::{Dtls, DtlsIdentity, DtlsOutput, DtlsRole, Fingerprint};
use crate::ice::Ice;
use crate::sctp::{Sctp, SctpOutput};
use crate::srtp::{Keys, SealError};

/// What the client's description says about its end. Its ICE user fragment and password are not needed: a lite agent
/// sends no checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RemoteParameters {
    pub fingerprint: Fingerprint,
    pub remote_is_dtls_client: bool,
    /// `a=max-message-size`, 65,536 if absent (RFC 8841 section 6.1), 0 for no limit.
    pub max_message_bytes: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received<'b> {
    /// Decrypted, without the tag.
    Rtp(&'b mut [u8]),
    /// Decrypted compound, without index and tag.
    Rtcp(&'b mut [u8]),
    Consumed,
    Dropped(DropReason),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TransportEvent {
    /// A check from this path was authenticated just now, the first one or a later one: for the address book.
    Validated(Path),
    /// ICE has a path to a client that was described: DTLS begins.
    IceConnected,
    /// ICE and DTLS are up for the first time.
    Connected,
    ChannelOpen(Channel),
    Data {
        channel: Channel,
        payload: Bytes,
    },
    /// The last event.
    Ended(PeerEnd),
}

pub(crate) use crate::sctp::SendRefused;

pub(crate) struct Transport {
    identity: DtlsIdentity,
    open_channels: bool,
    data_bytes_per_second: u64,
    ice: Ice,
    remote: Option<RemoteParameters>,
    /// DTLS that came before the client's description, which says whether to believe it.
    early: VecDeque<Vec<u8>>,
    dtls: Option<Dtls>,
    keys: Option<Box<Keys>>,
    sctp: Option<Sctp>,
    state: State,
    connect_by: Option<Instant>,
    events: VecDeque<TransportEvent>,
    transmits: VecDeque<(Path, Vec<u8>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Connected,
    Ended,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("ice", &self.ice).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Transport {
    /// `data_bytes_per_second` is what the client may send on data channels, sustained; 0 is no limit.
    pub fn new(identity: &DtlsIdentity, ice: IceCredentials, open_channels: bool, data_bytes_per_second: u64) -> Self {
        Self {
            identity: identity.clone(),
            open_channels,
            data_bytes_per_second,
            ice: Ice::new(ice),
            remote: None,
            early: VecDeque::new(),
            dtls: None,
            keys: None,
            sctp: None,
            state: State::Connecting,
            connect_by: None,
            events: VecDeque::new(),
            transmits: VecDeque::new(),
        }
    }

    /// The newest ICE credentials of ours.
    pub fn local_ice(&self) -> &IceCredentials {
        self.ice.credentials()
    }

    /// New credentials for the next description. The old ones keep working until the client nominates with the new ones;
    /// everything above ICE goes on.
    pub fn restart_ice(&mut self, ice: IceCredentials) {
        self.ice.restart(ice);
    }

    /// The client's description, the first one or a later one. Its time to connect begins with the first: a transport
    /// nobody described yet is not late. A fingerprint that changes ends the peer: the session it names would be another.
    pub fn set_remote(&mut self, now: Instant, remote: RemoteParameters) {
        match self.remote {
            Some(known) if known.fingerprint != remote.fingerprint => self.end(PeerEnd::WrongFingerprint),
            Some(_) => {}
            None => {
                self.remote = Some(remote);
                self.connect_by = now.checked_add(NEVER_CONNECTED_AFTER);
                self.start_dtls(now);
            }
        }
    }

    /// One datagram of this peer. RTP and RTCP come back decrypted in place.
    pub fn receive<'b>(&mut self, now: Instant, path: Path, bytes: &'b mut [u8]) -> Received<'b> {
        if self.state == State::Ended {
            return Received::Dropped(DropReason::NotConnected);
        }
        let received = match classify(bytes) {
            Kind::Stun => self.receive_stun(now, path, bytes).map(|()| Received::Consumed),
            Kind::Dtls => self.receive_dtls(now, path, bytes).map(|()| Received::Consumed),
            Kind::Rtp => self.receive_srtp(now, path, |keys| keys.open_rtp(now, bytes)).map(Received::Rtp),
            Kind::Rtcp => self.receive_srtp(now, path, |keys| keys.open_rtcp(now, bytes)).map(Received::Rtcp),
            Kind::Link | Kind::Unknown => Err(DropReason::UnknownProtocol),
        };
        received.unwrap_or_else(Received::Dropped)
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.state == State::Ended {
            return;
        }
        if self.state == State::Connecting && self.connect_by.is_some_and(|at| at <= now) {
            return self.end(PeerEnd::NeverConnected);
        }
        // A client that was heard and fell silent before it was described may still be on its way.
        if self.remote.is_some() && self.ice.silent_at().is_some_and(|at| at <= now) {
            return self.end(PeerEnd::IceTimeout);
        }
        if let Some(dtls) = self.dtls.as_mut().filter(|dtls| dtls.deadline().is_some_and(|at| at <= now)) {
            let result = dtls.handle_timeout(now);
            self.pump_dtls(now, result);
        }
        if let Some(sctp) = self.sctp.as_mut().filter(|sctp| sctp.deadline().is_some_and(|at| at <= now)) {
            let result = sctp.handle_timeout(now);
            self.pump_sctp(now, result);
        }
    }

    /// How long the client has not been heard.
    pub fn silence(&self, now: Instant) -> Duration {
        self.ice.silence(now)
    }

    pub fn next_deadline(&self) -> Option<(Instant, Deadline)> {
        if self.state == State::Ended {
            return None;
        }
        let connect_by = self.connect_by.filter(|_| self.state == State::Connecting);
        let silent_at = self.ice.silent_at().filter(|_| self.remote.is_some());
        let dtls = self.dtls.as_ref().and_then(Dtls::deadline);
        let sctp = self.sctp.as_ref().and_then(Sctp::deadline);
        [(connect_by, Deadline::Ice), (silent_at, Deadline::Ice), (dtls, Deadline::Dtls), (sctp, Deadline::Sctp)]
            .into_iter()
            .filter_map(|(at, why)| Some((at?, why)))
            .min_by_key(|(at, _)| *at)
    }

    pub fn poll_event(&mut self) -> Option<TransportEvent> {
        self.events.pop_front()
    }

    /// What to send: STUN, and DTLS with what travels in it.
    pub fn poll_transmit(&mut self) -> Option<(Path, Vec<u8>)> {
        self.transmits.pop_front()
    }

    /// The path that media takes.
    pub fn remote(&self) -> Option<Path> {
        self.ice.selected().filter(|_| self.state != State::Ended)
    }

    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// Seals the RTP packet at `buf[start..]`, whose header is `header_bytes` long, and appends the tag. Allocates nothing
    /// if `buf` has room for [`TAG_BYTES_MAX`](crate::srtp::TAG_BYTES_MAX) bytes more.
    pub fn seal_rtp(&self, roc: u32, header_bytes: usize, buf: &mut Vec<u8>, start: usize) -> Result<(), SealError> {
        self.keys.as_ref().ok_or(SealError::NotConnected)?.seal_rtp(roc, header_bytes, buf, start)
    }

    /// Seals the RTCP compound at `buf[start..]` and appends tag and index.
    pub fn seal_rtcp(&mut self, buf: &mut Vec<u8>, start: usize) -> Result<(), SealError> {
        self.keys.as_mut().ok_or(SealError::NotConnected)?.seal_rtcp(buf, start)
    }

    /// One message. A reliable one that finds no room ends the peer.
    pub fn send(&mut self, now: Instant, channel: Channel, payload: &[u8]) -> Result<(), SendRefused> {
        let sctp = self.sctp.as_mut().filter(|_| self.state == State::Connected).ok_or(SendRefused::NotOpen)?;
        let result = sctp.send(now, channel, payload);
        if result == Err(SendRefused::SlowReceiver) {
            self.end(PeerEnd::SlowReceiver);
        } else {
            self.pump_sctp(now, Ok(()));
        }
        result
    }

    /// The TCP connection of this path is gone.
    pub fn path_closed(&mut self, path: Path) {
        self.ice.path_closed(path);
    }

    /// Says goodbye as well as it can; nothing comes after it.
    pub fn close(&mut self, now: Instant) {
        if self.state == State::Ended {
            return;
        }
        if let Some(dtls) = &mut self.dtls {
            dtls.close();
            self.pump_dtls(now, Ok(()));
        }
        self.end(PeerEnd::Asked);
    }

    fn receive_stun(&mut self, now: Instant, path: Path, bytes: &[u8]) -> Result<(), DropReason> {
        let answer = self.ice.receive(now, path, bytes)?;
        self.transmit(path, answer);
        if self.ice.is_validated(path) {
            self.events.push_back(TransportEvent::Validated(path));
        }
        self.start_dtls(now);
        Ok(())
    }

    fn receive_dtls(&mut self, now: Instant, path: Path, bytes: &[u8]) -> Result<(), DropReason> {
        if !self.ice.is_validated(path) {
            return Err(DropReason::DtlsNotValidated);
        }
        let Some(dtls) = &mut self.dtls else {
            if self.early.len() >= EARLY_DATAGRAMS_MAX || bytes.len() > EARLY_BYTES_MAX {
                return Err(DropReason::NotConnected);
            }
            self.early.push_back(bytes.to_vec());
            return Ok(());
        };
        let result = dtls.receive(now, bytes);
        self.pump_dtls(now, result).map_or(Ok(()), Err)
    }

    fn receive_srtp<T>(
        &mut self,
        now: Instant,
        path: Path,
        open: impl FnOnce(&mut Keys) -> Result<T, DropReason>,
    ) -> Result<T, DropReason> {
        if !self.ice.is_validated(path) {
            return Err(DropReason::UnknownAddress);
        }
        let opened = open(self.keys.as_mut().ok_or(DropReason::NotConnected)?)?;
        self.ice.heard(now, path);
        Ok(opened)
    }

    /// DTLS begins when it is known whom to expect and where they are.
    fn start_dtls(&mut self, now: Instant) {
        let (Some(remote), None, Some(_)) = (self.remote, &self.dtls, self.ice.selected()) else { return };
        let role = if remote.remote_is_dtls_client { DtlsRole::Server } else { DtlsRole::Client };
        match Dtls::new(now, &self.identity, role, remote.fingerprint) {
            Ok(dtls) => self.dtls = Some(dtls),
            Err(why) => return self.end(why),
        }
        self.events.push_back(TransportEvent::IceConnected);
        self.pump_dtls(now, Ok(()));
        while let Some(datagram) = self.early.pop_front() {
            if let Some(dtls) = &mut self.dtls {
                let result = dtls.receive(now, &datagram);
                self.pump_dtls(now, result);
            }
        }
    }

    /// Moves on what DTLS has to say. Returns why something of it was dropped.
    fn pump_dtls(&mut self, now: Instant, result: Result<(), PeerEnd>) -> Option<DropReason> {
        let mut dropped = None;
        while self.state != State::Ended {
            match self.dtls.as_mut().and_then(Dtls::poll) {
                None => break,
                Some(DtlsOutput::Datagram(datagram)) => {
                    if let Some(path) = self.ice.selected() {
                        self.transmit(path, datagram);
                    }
                }
                Some(DtlsOutput::Connected(keys)) => {
                    self.keys = keys;
                    self.connected(now);
                }
                Some(DtlsOutput::Data(packet)) => {
                    if let Some(sctp) = &mut self.sctp {
                        let result = sctp.receive(now, packet);
                        dropped = result.as_ref().ok().copied().flatten().or(dropped);
                        self.pump_sctp(now, result.map(drop));
                    }
                }
                Some(DtlsOutput::Closed) => self.sctp = None,
            }
        }
        if let Err(why) = result {
            self.end(why);
        }
        dropped
    }

    fn pump_sctp(&mut self, now: Instant, result: Result<(), PeerEnd>) {
        while let Some(output) = self.sctp.as_mut().and_then(Sctp::poll) {
            match output {
                SctpOutput::Open(channel) => self.events.push_back(TransportEvent::ChannelOpen(channel)),
                SctpOutput::Message { channel, payload } => {
                    self.events.push_back(TransportEvent::Data { channel, payload });
                }
                SctpOutput::Packet(packet) => {
                    let Some(dtls) = &mut self.dtls else { continue };
                    if let Err(why) = dtls.send(now, &packet) {
                        return self.end(why);
                    }
                    self.forward_records();
                }
            }
        }
        if let Err(why) = result {
            self.end(why);
        }
    }

    /// Sends the records that one message of ours became, and leaves what was received to `pump_dtls`.
    fn forward_records(&mut self) {
        let Some(path) = self.ice.selected() else { return };
        while let Some(datagram) = self.dtls.as_mut().and_then(Dtls::poll_datagram) {
            self.transmit(path, datagram);
        }
    }

    fn connected(&mut self, now: Instant) {
        self.state = State::Connected;
        self.events.push_back(TransportEvent::Connected);
        let (Some(dtls), Some(remote)) = (&self.dtls, self.remote) else { return };
        let (role, rate) = (dtls.role(), self.data_bytes_per_second);
        match Sctp::new(now, role, self.open_channels, remote.max_message_bytes, rate) {
            Ok(sctp) => self.sctp = Some(sctp),
            Err(why) => return self.end(why),
        }
        self.pump_sctp(now, Ok(()));
    }

    /// A full queue loses what comes last, as the network would; everything here is repeated by somebody.
    fn transmit(&mut self, path: Path, datagram: Vec<u8>) {
        if self.transmits.len() < TRANSMITS_MAX {
            self.transmits.push_back((path, datagram));
        }
    }

    fn end(&mut self, why: PeerEnd) {
        if self.state == State::Ended {
            return;
        }
        self.state = State::Ended;
        self.keys = None;
        self.sctp = None;
        self.dtls = None;
        self.early.clear();
        self.events.push_back(TransportEvent::Ended(why));
    }
}

/// A described client that ICE and DTLS did not connect by then will not come.
const NEVER_CONNECTED_AFTER: Duration = Duration::from_secs(30);
/// Handshake datagrams kept until the client's description arrives, which takes another way and may be late: a
/// ClientHello with post-quantum keys is two. The rest is repeated.
const EARLY_DATAGRAMS_MAX: usize = 4;
const EARLY_BYTES_MAX: usize = 1_500;
/// Datagrams waiting to be polled: a congestion window of data and more.
const TRANSMITS_MAX: usize = 2_048;

#[cfg(test)]
mod tests;
