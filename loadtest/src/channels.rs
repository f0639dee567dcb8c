//! The data channels of one transport, open and silent: what a client that does not chat has.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use anyhow::Result;
use bytes::Bytes;
use sctp_proto::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier, StreamEvent, StreamId,
};

pub struct Channels {
    endpoint: Endpoint,
    handle: AssociationHandle,
    association: Association,
    /// What to open once the association stands; the server opens its own.
    labels: &'static [&'static str],
    stands: bool,
    /// Channels that the server opened before the association stood here, when the end of its handshake was lost or late.
    early: Vec<StreamId>,
}

impl Channels {
    /// The client begins the association, as whoever is the DTLS client does.
    pub fn new(labels: &'static [&'static str]) -> Result<Self> {
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::new()), None);
        let (handle, association) = endpoint.connect(ClientConfig::new(), PLACEHOLDER)?;
        Ok(Self { endpoint, handle, association, labels, stands: false, early: Vec::new() })
    }

    pub fn receive(&mut self, now: Instant, packet: Vec<u8>) -> Result<()> {
        let event = self.endpoint.handle(now, PLACEHOLDER, None, None, Bytes::from(packet));
        if let Some((_, DatagramEvent::AssociationEvent(event))) = event {
            self.association.handle_event(event);
        }
        while let Some(event) = self.association.poll() {
            match event {
                Event::Connected => {
                    self.stands = true;
                    for stream in std::mem::take(&mut self.early) {
                        self.say(stream, &[DCEP_ACK])?;
                    }
                    // The DTLS client's streams have even numbers (RFC 8832 6).
                    for (stream, label) in (0..).step_by(2).zip(self.labels) {
                        self.association.open_stream(stream, PayloadProtocolIdentifier::Dcep)?;
                        self.say(stream, &open(label))?;
                    }
                }
                Event::Stream(StreamEvent::Readable { id }) => self.read(id)?,
                Event::HandshakeFailed { .. } | Event::AssociationLost { .. } => anyhow::bail!("{event:?}"),
                _ => {}
            }
        }
        while let Some(event) = self.association.poll_endpoint_event() {
            self.endpoint.handle_event(self.handle, event);
        }
        Ok(())
    }

    /// What is to be sent now, timers included.
    pub fn packets(&mut self, now: Instant) -> Vec<Bytes> {
        if self.association.poll_timeout().is_some_and(|at| at <= now) {
            self.association.handle_timeout(now);
        }
        let mut out = Vec::new();
        while let Some(transmit) = self.association.poll_transmit(now) {
            if let Payload::RawEncode(packets) = transmit.payload {
                out.extend(packets);
            }
        }
        out
    }

    fn read(&mut self, id: StreamId) -> Result<()> {
        while let Some(chunks) = self.association.stream(id)?.read_sctp()? {
            let mut message = vec![0; chunks.len()];
            chunks.read(&mut message)?;
            if chunks.ppi == PayloadProtocolIdentifier::Dcep && message.first() == Some(&DCEP_OPEN) {
                if self.stands {
                    self.say(id, &[DCEP_ACK])?;
                } else {
                    self.early.push(id);
                }
            }
        }
        Ok(())
    }

    fn say(&mut self, id: StreamId, message: &[u8]) -> Result<()> {
        self.association.stream(id)?.write_with_ppi(message, PayloadProtocolIdentifier::Dcep)?;
        Ok(())
    }
}

/// DATA_CHANNEL_OPEN of an ordered, reliable channel (RFC 8832 5.1).
fn open(label: &str) -> Vec<u8> {
    let mut out = vec![DCEP_OPEN, 0, 1, 0, 0, 0, 0, 0];
    out.extend_from_slice(&(label.len() as u16).to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(label.as_bytes());
    out
}

const DCEP_OPEN: u8 = 3;
const DCEP_ACK: u8 = 2;
const PLACEHOLDER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 5_000);
