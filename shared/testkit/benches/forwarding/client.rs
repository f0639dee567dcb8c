//! A client as the router sees it: a transport at an address of its own.

use std::{net::SocketAddr, time::Instant};

use plenary_media_core::{IceCredentials, Path, Protocol};
use plenary_model::PeerId;
use plenary_testkit::light::{Identity, Transport};

pub struct Client {
    pub peer: PeerId,
    pub path: Path,
    pub transport: Transport,
    /// The transport-wide number that its next feedback begins with, once it is known.
    pub next_transport_sequence: Option<u16>,
}

impl Client {
    pub fn new(now: Instant, identity: &Identity, number: u64) -> Self {
        let ice = IceCredentials { ufrag: format!("ours{number}"), pwd: format!("password-of-{number:012}") };
        let [.., a, b, c] = number.to_be_bytes();
        Self {
            peer: PeerId(number),
            path: Path { protocol: Protocol::Udp, remote: SocketAddr::from(([10, a, b, c], 5_000)) },
            transport: Transport::new(now, identity, ice),
            next_transport_sequence: None,
        }
    }
}

/// Says that `count` packets from `first` on arrived back to back (draft-holmer-rmcat-transport-wide-cc-extensions-01, 3.1).
pub fn transport_feedback(first: u16, count: u16, reference: u32, number: u8) -> Vec<u8> {
    let words = (20 + 2 + usize::from(count)).div_ceil(4);
    let mut out = vec![0x8f, 205];
    out.extend_from_slice(&(words as u16 - 1).to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2]);
    out.extend_from_slice(&first.to_be_bytes());
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(&reference.to_be_bytes()[1..]);
    out.push(number);
    // One run of small deltas, each of them 0.
    out.extend_from_slice(&(0x2000 | count).to_be_bytes());
    out.resize(words * 4, 0);
    out
}
