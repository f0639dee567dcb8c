//! Data channels of one peer over `sctp-proto`, the only file that names it.
//!
//! One association, accepted from the client (or begun by us where we are the DTLS client), and three channels known by
//! label. Messages have a largest size and buffers a limit: a lossy message that finds no room is dropped, a reliable one
//! ends the peer. A guard stands in front of the implementation (`guard`).

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod allowance;
mod dcep;
mod guard;
#[cfg(any(test, feature = "fuzzing"))]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "never in a release: it plays the peer"
)]
pub(crate) mod testing;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use plenary_model::Channel;
use sctp_proto::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier, ReliabilityType, ServerConfig, StreamEvent, StreamId, TransportConfig,
};

use crate::api::{DropReason, PeerEnd};
use crate::dtls::{self, DtlsRole};
use allowance::Allowance;
use dcep::{Message, Open, Reliability};
use guard::{Guard, Role, Verdict};

pub(crate) struct Sctp {
    role: DtlsRole,
    endpoint: Endpoint,
    association: Option<(AssociationHandle, Association)>,
    guard: Guard,
    channels: Vec<OpenChannel>,
    open_channels: bool,
    message_bytes_max: usize,
    /// What the client may still send us.
    allowance: Allowance,
    /// Streams with messages that were not taken yet.
    unread: Vec<StreamId>,
    out: VecDeque<SctpOutput>,
}

#[derive(Debug, Clone, Copy)]
struct OpenChannel {
    stream: StreamId,
    /// `None` for a label that means nothing to us.
    channel: Option<Channel>,
    state: ChannelState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChannelState {
    /// We sent OPEN.
    Asked,
    Open,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SctpOutput {
    Packet(Vec<u8>),
    Open(Channel),
    Message { channel: Channel, payload: Bytes },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SendRefused {
    #[error("the channel is not open")]
    NotOpen,
    #[error("the message is larger than the peer takes")]
    TooLarge,
    #[error("a lossy channel has too much waiting")]
    Backlog,
    #[error("the reliable channel has too much waiting")]
    SlowReceiver,
}

impl std::fmt::Debug for Sctp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sctp").field("role", &self.role).field("channels", &self.channels).finish_non_exhaustive()
    }
}

impl Sctp {
    /// After DTLS is up. The client begins the association unless it is the DTLS server.
    pub fn new(
        now: Instant,
        role: DtlsRole,
        open_channels: bool,
        remote_message_bytes: usize,
        bytes_per_second: u64,
    ) -> Result<Self, PeerEnd> {
        let message_bytes_max = match remote_message_bytes {
            0 => MESSAGE_BYTES_MAX,
            bytes => bytes.min(MESSAGE_BYTES_MAX),
        };
        let transport = Arc::new(transport_config(message_bytes_max));
        let mut config = EndpointConfig::new();
        config.max_payload_size(PAYLOAD_MAX);
        let mut server = ServerConfig::new();
        server.transport = Arc::clone(&transport);
        let mut endpoint = Endpoint::new(Arc::new(config), Some(Arc::new(server)));
        let (association, guard) = match role {
            DtlsRole::Server => (None, Guard::new(Role::Accepts)),
            DtlsRole::Client => {
                let mut client = ClientConfig::new();
                client.transport = transport;
                let association = endpoint.connect(client, PLACEHOLDER).map_err(|_| PeerEnd::SctpFailed)?;
                (Some(association), Guard::new(Role::Connects))
            }
        };
        let channels = Vec::new();
        let mut sctp = Self {
            role,
            endpoint,
            association,
            guard,
            channels,
            open_channels,
            message_bytes_max,
            allowance: Allowance::new(now, bytes_per_second),
            unread: Vec::new(),
            out: VecDeque::new(),
        };
        sctp.pump(now)?;
        Ok(sctp)
    }

    /// One SCTP packet out of DTLS. Names what was dropped of it.
    pub fn receive(&mut self, now: Instant, packet: Vec<u8>) -> Result<Option<DropReason>, PeerEnd> {
        match self.guard.inbound(&packet) {
            Verdict::Pass => {}
            Verdict::Drop => return Ok(Some(DropReason::SctpGuard)),
            Verdict::End => return Err(PeerEnd::SctpFailed),
        }
        match self.endpoint.handle(now, PLACEHOLDER, None, None, Bytes::from(packet)) {
            Some((handle, DatagramEvent::NewAssociation(association))) => {
                self.association = Some((handle, association))
            }
            Some((_, DatagramEvent::AssociationEvent(event))) => {
                if let Some((_, association)) = &mut self.association {
                    association.handle_event(event);
                }
            }
            None => {}
        }
        self.pump(now)
    }

    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), PeerEnd> {
        if let Some((_, association)) = &mut self.association {
            association.handle_timeout(now);
        }
        self.pump(now).map(drop)
    }

    pub fn deadline(&self) -> Option<Instant> {
        let (_, association) = self.association.as_ref()?;
        let unread = (!self.unread.is_empty()).then(|| self.allowance.ready_at());
        association.poll_timeout().into_iter().chain(unread).min()
    }

    pub fn poll(&mut self) -> Option<SctpOutput> {
        self.out.pop_front()
    }

    pub fn send(&mut self, now: Instant, channel: Channel, payload: &[u8]) -> Result<(), SendRefused> {
        let open =
            self.channels.iter().rev().find(|open| open.channel == Some(channel) && open.state == ChannelState::Open);
        let stream = open.ok_or(SendRefused::NotOpen)?.stream;
        if payload.len() > self.message_bytes_max {
            return Err(SendRefused::TooLarge);
        }
        let (_, association) = self.association.as_mut().ok_or(SendRefused::NotOpen)?;
        let mut stream = association.stream(stream).map_err(|_| SendRefused::NotOpen)?;
        let waiting = stream.buffered_amount().map_err(|_| SendRefused::NotOpen)?.saturating_add(payload.len());
        match channel {
            Channel::Reliable if waiting > RELIABLE_BACKLOG_MAX => return Err(SendRefused::SlowReceiver),
            Channel::Lossy | Channel::DataTrack if waiting > LOSSY_BACKLOG_MAX => return Err(SendRefused::Backlog),
            _ => {}
        }
        let (bytes, protocol) = if payload.is_empty() {
            (EMPTY_MESSAGE, PayloadProtocolIdentifier::BinaryEmpty)
        } else {
            (payload, PayloadProtocolIdentifier::Binary)
        };
        stream.write_with_ppi(bytes, protocol).map_err(|_| SendRefused::NotOpen)?;
        self.transmit(now);
        Ok(())
    }

    /// Moves what the association has to say to where it can be polled.
    fn pump(&mut self, now: Instant) -> Result<Option<DropReason>, PeerEnd> {
        let mut dropped = None;
        while let Some(event) = self.association.as_mut().and_then(|(_, association)| association.poll()) {
            match event {
                Event::Connected => {
                    self.guard.established();
                    self.open_ours();
                }
                Event::HandshakeFailed { .. } => return Err(PeerEnd::SctpFailed),
                Event::AssociationLost { .. } => {
                    // A client says goodbye here even when it only reconnects: its silence ends the transport, or not.
                    self.channels.clear();
                    if !self.guard.peer_is_closing() {
                        return Err(PeerEnd::SctpFailed);
                    }
                }
                Event::Stream(StreamEvent::Readable { id }) if !self.unread.contains(&id) => self.unread.push(id),
                Event::Stream(StreamEvent::Finished { id }) => self.channels.retain(|open| open.stream != id),
                _ => {}
            }
        }
        dropped = self.take_in(now).or(dropped);
        if let Some((handle, association)) = &mut self.association {
            while let Some(event) = association.poll_endpoint_event() {
                self.endpoint.handle_event(*handle, event);
            }
        }
        self.transmit(now);
        Ok(dropped)
    }

    fn transmit(&mut self, now: Instant) {
        let Some((_, association)) = &mut self.association else { return };
        while let Some(transmit) = association.poll_transmit(now) {
            let Payload::RawEncode(packets) = transmit.payload else { continue };
            for packet in packets.into_iter().filter(|packet| self.guard.outbound(packet)) {
                self.out.push_back(SctpOutput::Packet(packet.into()));
            }
        }
    }

    /// Reads what has come as far as the client's allowance goes. What is left on a lossy channel is dropped; the rest
    /// stays where it is, so that the receive window closes and slows the client down.
    fn take_in(&mut self, now: Instant) -> Option<DropReason> {
        let mut dropped = None;
        let mut unread = std::mem::take(&mut self.unread);
        unread.retain(|stream| {
            let lossy = self.channels.iter().any(|open| {
                open.stream == *stream && matches!(open.channel, Some(Channel::Lossy | Channel::DataTrack))
            });
            loop {
                let allowed = self.allowance.is_left(now);
                if !allowed && !lossy {
                    return true;
                }
                let Some((protocol, message)) = self.read(*stream) else { return false };
                if allowed {
                    self.allowance.spend(message.len());
                    dropped = self.message(*stream, protocol, message).err().or(dropped);
                } else {
                    dropped = Some(DropReason::TooMuchData);
                }
            }
        });
        self.unread = unread;
        dropped
    }

    fn read(&mut self, stream: StreamId) -> Option<(PayloadProtocolIdentifier, Bytes)> {
        let (_, association) = self.association.as_mut()?;
        let chunks = association.stream(stream).ok()?.read_sctp().ok()??;
        self.guard.delivered(chunks.chunks.len());
        let mut message = vec![0; chunks.len()];
        chunks.read(&mut message).ok()?;
        Some((chunks.ppi, Bytes::from(message)))
    }

    fn message(
        &mut self,
        stream: StreamId,
        protocol: PayloadProtocolIdentifier,
        message: Bytes,
    ) -> Result<(), DropReason> {
        let payload = match protocol {
            PayloadProtocolIdentifier::Dcep => return self.establish(stream, &message),
            PayloadProtocolIdentifier::StringEmpty | PayloadProtocolIdentifier::BinaryEmpty => Bytes::new(),
            _ => message,
        };
        if payload.len() > MESSAGE_BYTES_MAX {
            return Err(DropReason::MessageTooLarge);
        }
        self.opened(stream);
        let open = self.channels.iter().find(|open| open.stream == stream);
        let channel = open.and_then(|open| open.channel).ok_or(DropReason::UnknownChannel)?;
        self.out.push_back(SctpOutput::Message { channel, payload });
        Ok(())
    }

    fn establish(&mut self, stream: StreamId, message: &[u8]) -> Result<(), DropReason> {
        match Message::parse(message).ok_or(DropReason::DcepMalformed)? {
            Message::Ack => {
                self.opened(stream);
                Ok(())
            }
            Message::Open(open) => {
                if self.channels.iter().any(|known| known.stream == stream) {
                    return Err(DropReason::DcepMalformed);
                }
                if self.channels.len() >= CHANNELS_MAX {
                    return Err(DropReason::SctpGuard);
                }
                self.write_dcep(stream, &dcep::ACK).ok_or(DropReason::DcepMalformed)?;
                self.set_reliability(stream, open);
                self.channels.push(OpenChannel { stream, channel: open.channel, state: ChannelState::Open });
                self.out.extend(open.channel.map(SctpOutput::Open));
                Ok(())
            }
        }
    }

    /// The peer answered on a channel we opened: by ACK, or by using it, should its ACK come later.
    fn opened(&mut self, stream: StreamId) {
        let asked = |open: &&mut OpenChannel| open.stream == stream && open.state == ChannelState::Asked;
        let Some(open) = self.channels.iter_mut().find(asked) else { return };
        open.state = ChannelState::Open;
        self.out.extend(open.channel.map(SctpOutput::Open));
        if let Some(channel) = open.channel {
            self.set_reliability(stream, Open::ours(channel));
        }
    }

    /// Opens the three channels, with the stream ids of our DTLS role: the client has the even ones (RFC 8832 section 6).
    fn open_ours(&mut self) {
        if !self.open_channels {
            return;
        }
        let first = match self.role {
            DtlsRole::Client => 0,
            DtlsRole::Server => 1,
        };
        for (stream, channel) in (first..).step_by(2).zip(dcep::ALL_CHANNELS) {
            let Some((_, association)) = &mut self.association else { return };
            if association.open_stream(stream, PayloadProtocolIdentifier::Binary).is_ok() {
                self.write_dcep(stream, &Open::ours(channel).encode());
                self.channels.push(OpenChannel { stream, channel: Some(channel), state: ChannelState::Asked });
            }
        }
    }

    /// DCEP messages go reliably and in order, whatever the channel's own messages do (RFC 8832 section 6).
    fn write_dcep(&mut self, stream: StreamId, message: &[u8]) -> Option<()> {
        let (_, association) = self.association.as_mut()?;
        let mut stream = association.stream(stream).ok()?;
        stream.set_reliability_params(false, ReliabilityType::Reliable, 0).ok()?;
        stream.write_with_ppi(message, PayloadProtocolIdentifier::Dcep).ok().map(drop)
    }

    fn set_reliability(&mut self, stream: StreamId, open: Open) {
        let (kind, value) = match open.reliability {
            Reliability::Full => (ReliabilityType::Reliable, 0),
            Reliability::Retransmissions(count) => (ReliabilityType::Rexmit, count),
            Reliability::LifetimeMs(lifetime) => (ReliabilityType::Timed, lifetime),
        };
        if let Some(Ok(mut stream)) = self.association.as_mut().map(|(_, association)| association.stream(stream)) {
            // Fails only for a stream that is gone, and then there is nothing to set.
            let _ = stream.set_reliability_params(open.unordered, kind, value);
        }
    }
}

fn transport_config(message_bytes_max: usize) -> TransportConfig {
    TransportConfig::default()
        .with_max_receive_buffer_size(RECEIVE_BUFFER_BYTES)
        .with_max_receive_message_size(u32::try_from(MESSAGE_BYTES_MAX).unwrap_or(u32::MAX))
        .with_max_send_message_size(u32::try_from(message_bytes_max).unwrap_or(u32::MAX))
        .with_max_num_inbound_streams(guard::STREAM_ID_MAX.saturating_add(1))
        .with_max_num_outbound_streams(guard::STREAM_ID_MAX.saturating_add(1))
        .with_max_init_retransmits(None)
        .with_rto_initial_ms(RTO_INITIAL_MS)
        .with_rto_min_ms(RTO_MIN_MS)
}

/// Largest message either way: what `a=max-message-size` says.
pub const MESSAGE_BYTES_MAX: usize = 65_535;
/// What may wait on the reliable channel; more ends the peer.
pub(crate) const RELIABLE_BACKLOG_MAX: usize = 1 << 20;
/// What may wait on a lossy channel, two large messages; more is dropped. What waits longer is too old to matter.
pub(crate) const LOSSY_BACKLOG_MAX: usize = 128 << 10;
const RECEIVE_BUFFER_BYTES: u32 = 1 << 20;
/// Payload of one DATA chunk, a multiple of four so that padding adds nothing.
const PAYLOAD_MAX: u32 = 1_132;
/// Largest packet let out. The implementation packs chunks without counting padding: full of one-byte messages a packet
/// grows to 1,381 bytes.
const PACKET_MAX: usize = dtls::MESSAGE_MAX;
const CHANNELS_MAX: usize = 64;
const RTO_INITIAL_MS: u64 = 500;
const RTO_MIN_MS: u64 = 100;
/// An empty message is sent as one byte with an identifier that says so (RFC 8831 section 6.6).
const EMPTY_MESSAGE: &[u8] = &[0];
/// Associations live in DTLS, not at an address; changes of path never reach them.
const PLACEHOLDER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 5_000);

#[cfg(test)]
mod tests;
