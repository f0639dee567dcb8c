//! A client as the router sees it: a transport at an address of its own.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::light::{Identity, Transport};
use plenary_media_core::{IceCredentials, Path, Protocol};
use plenary_model::PeerId;

pub(super) struct Client {
    pub(super) peer: PeerId,
    pub(super) path: Path,
    pub(super) transport: Transport,
    /// The transport-wide number that its next feedback begins with, once it is known.
    pub(super) next_transport_sequence: Option<u16>,
}

impl Client {
    pub(super) fn new(now: Instant, identity: &Identity, number: u64) -> Self {
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

/// The place of the client at this address among all that were made.
pub(super) fn number_at(path: Path) -> Option<usize> {
    let IpAddr::V4(ip) = path.remote.ip() else { return None };
    (ip.to_bits() as usize & 0xff_ffff).checked_sub(1)
}

/// Says that packets from the number `first` on arrived at these times since the beginning, no two more than 63 ms
/// (draft-holmer-rmcat-transport-wide-cc-extensions-01, 3.1).
pub(super) fn transport_feedback(first: u16, arrivals: &[Duration], number: u8) -> Vec<u8> {
    let units = |time: &Duration| time.as_micros() as u64 / 250;
    let count = arrivals.len() as u16;
    let words = (20 + 2 + arrivals.len()).div_ceil(4);
    let mut out = vec![0x8f, 205];
    out.extend_from_slice(&(words as u16 - 1).to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2]);
    out.extend_from_slice(&first.to_be_bytes());
    out.extend_from_slice(&count.to_be_bytes());
    let reference = arrivals.first().map_or(0, units) / 256;
    out.extend_from_slice(&(reference as u32).to_be_bytes()[1..]);
    out.push(number);
    // One run of small deltas.
    out.extend_from_slice(&(0x2000 | count).to_be_bytes());
    let mut before = reference * 256;
    for time in arrivals.iter().map(units) {
        out.push((time - before).min(255) as u8);
        before = time;
    }
    out.resize(words * 4, 0);
    out
}
