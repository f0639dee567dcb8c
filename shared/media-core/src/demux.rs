//! Which peer a datagram belongs to.
//!
//! One socket serves every peer of a router. The first byte says what a datagram is (RFC 7983); a connectivity check
//! names its peer by the user fragment, everything else is known by the address it came from. An address enters the
//! book only after a check from it was authenticated, and nobody else's check takes it away while it is in use: a
//! spoofed source address buys nothing.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use plenary_model::PeerId;
use rustc_hash::FxHashMap;

use crate::api::{DropReason, Path};
use crate::stun;

/// What a datagram is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Stun,
    Dtls,
    Rtp,
    Rtcp,
    /// Of another router.
    Link,
    Unknown,
}

/// RFC 7983 section 7 by the first byte; RTP and RTCP share a range there and are told apart by the second
/// (RFC 5761 section 4). What RFC 7983 leaves above RTP is of links.
pub(crate) fn classify(bytes: &[u8]) -> Kind {
    match (bytes.first(), bytes.get(1)) {
        (Some(0..=3), _) => Kind::Stun,
        (Some(20..=63), _) => Kind::Dtls,
        (Some(128..=191), Some(192..=223)) => Kind::Rtcp,
        (Some(128..=191), Some(_)) => Kind::Rtp,
        (Some(192..), _) => Kind::Link,
        _ => Kind::Unknown,
    }
}

/// The user fragment of ours that a Binding request is addressed to: the text before the colon of USERNAME
/// (RFC 8445 section 7.2.2). Nothing is authenticated by reading it.
pub fn local_ufrag(stun: &[u8]) -> Option<&str> {
    stun::Message::parse(stun).ok().filter(|message| message.is_binding_request())?.local_ufrag()
}

/// Who is meant by a user fragment and who is behind an address.
#[derive(Debug, Default)]
pub(crate) struct AddressBook {
    by_ufrag: FxHashMap<String, PeerId>,
    by_path: FxHashMap<Path, Entry>,
    peers: FxHashMap<PeerId, Known>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    peer: PeerId,
    last_check: Instant,
}

/// What the book holds of one peer, so that it can be forgotten without a search.
#[derive(Debug, Default)]
struct Known {
    ufrags: VecDeque<String>,
    paths: VecDeque<Path>,
}

impl AddressBook {
    /// Announces a user fragment of ours. A peer has a few at once only while ICE restarts: the oldest gives way.
    pub fn expect(&mut self, ufrag: &str, peer: PeerId) {
        if self.by_ufrag.insert(ufrag.to_owned(), peer) == Some(peer) {
            return;
        }
        let known = self.peers.entry(peer).or_default();
        known.ufrags.push_back(ufrag.to_owned());
        if known.ufrags.len() > UFRAGS_PER_PEER_MAX
            && let Some(oldest) = known.ufrags.pop_front()
            && self.by_ufrag.get(&oldest) == Some(&peer)
        {
            self.by_ufrag.remove(&oldest);
        }
    }

    /// A check from `path` was authenticated for `peer`.
    pub fn authenticated(&mut self, now: Instant, path: Path, peer: PeerId) -> Result<(), DropReason> {
        if let Some(entry) = self.by_path.get_mut(&path) {
            if entry.peer == peer {
                entry.last_check = now;
                self.touch(path, peer);
                return Ok(());
            }
            if now.saturating_duration_since(entry.last_check) < PATH_HELD {
                return Err(DropReason::TooManyAddresses);
            }
            let previous = entry.peer;
            if let Some(known) = self.peers.get_mut(&previous) {
                known.paths.retain(|held| *held != path);
            }
        } else if self.by_path.len() >= PATHS_MAX {
            return Err(DropReason::TooManyAddresses);
        }
        self.by_path.insert(path, Entry { peer, last_check: now });
        let known = self.peers.entry(peer).or_default();
        known.paths.push_back(path);
        if known.paths.len() > PATHS_PER_PEER_MAX
            && let Some(oldest) = known.paths.pop_front()
        {
            self.by_path.remove(&oldest);
        }
        Ok(())
    }

    /// Whom a datagram is for. A check goes to the peer it names, wherever it comes from.
    pub fn route(&self, kind: Kind, path: Path, bytes: &[u8]) -> Result<PeerId, DropReason> {
        match kind {
            Kind::Link | Kind::Unknown => Err(DropReason::UnknownProtocol),
            Kind::Stun => {
                let ufrag = local_ufrag(bytes).ok_or(DropReason::StunMalformed)?;
                self.by_ufrag.get(ufrag).copied().ok_or(DropReason::UnknownUfrag)
            }
            Kind::Dtls | Kind::Rtp | Kind::Rtcp => self.peer_at(path).ok_or(DropReason::UnknownAddress),
        }
    }

    pub fn peer_at(&self, path: Path) -> Option<PeerId> {
        self.by_path.get(&path).map(|entry| entry.peer)
    }

    /// The TCP connection is gone, and with it the address.
    pub fn path_closed(&mut self, path: Path) {
        if let Some(entry) = self.by_path.remove(&path)
            && let Some(known) = self.peers.get_mut(&entry.peer)
        {
            known.paths.retain(|held| *held != path);
        }
    }

    pub fn remove(&mut self, peer: PeerId) {
        let Some(known) = self.peers.remove(&peer) else { return };
        for ufrag in &known.ufrags {
            if self.by_ufrag.get(ufrag) == Some(&peer) {
                self.by_ufrag.remove(ufrag);
            }
        }
        for path in &known.paths {
            self.by_path.remove(path);
        }
    }

    /// Keeps a peer's paths in the order of their last check, so that a full list loses the one least used.
    fn touch(&mut self, path: Path, peer: PeerId) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        if known.paths.back() != Some(&path) {
            known.paths.retain(|held| *held != path);
            known.paths.push_back(path);
        }
    }
}

/// Addresses one peer may be reached at; more push out the one longest without a check. A client with several
/// interfaces, IPv6 privacy addresses and TCP checks about a dozen pairs.
pub(crate) const PATHS_PER_PEER_MAX: usize = 16;
/// Addresses a router knows in all; beyond it new ones are refused ([`DropReason::TooManyAddresses`]).
const PATHS_MAX: usize = 65_536;
/// The newest user fragment, the one being replaced by a restart, and one for a restart within a restart.
const UFRAGS_PER_PEER_MAX: usize = 3;
/// How long after its last check an address stays with its peer although another peer authenticates from it. Longer
/// than three check intervals of any client, shorter than the silence that ends a transport.
const PATH_HELD: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Protocol;
    use crate::stun::testing::binding_request;

    const ALICE: PeerId = PeerId(1);
    const MALLORY: PeerId = PeerId(2);

    fn path(port: u16) -> Path {
        Path { protocol: Protocol::Udp, remote: ([192, 0, 2, 1], port).into() }
    }

    #[test]
    fn first_bytes_tell_the_protocols_apart() {
        assert_eq!(classify(&[]), Kind::Unknown);
        assert_eq!(classify(&[0, 1]), Kind::Stun);
        assert_eq!(classify(&[22, 254]), Kind::Dtls);
        assert_eq!(classify(&[0x80]), Kind::Unknown);
        assert_eq!(classify(&[0x80, 96]), Kind::Rtp);
        assert_eq!(classify(&[0x80, 0x80 | 96]), Kind::Rtp, "the marker bit is not part of the payload type");
        assert_eq!(classify(&[0x80, 200]), Kind::Rtcp);
        assert_eq!(classify(&[0x80, 223]), Kind::Rtcp);
        assert_eq!(classify(&[192, 200]), Kind::Link);
        assert_eq!(classify(&[64]), Kind::Unknown);
    }

    #[test]
    fn a_check_finds_its_peer_by_ufrag_and_an_unknown_one_is_dropped() {
        let mut book = AddressBook::default();
        book.expect("ours", ALICE);
        let check = binding_request("ours:theirs", "password");
        assert_eq!(local_ufrag(&check), Some("ours"));
        assert_eq!(book.route(Kind::Stun, path(1), &check), Ok(ALICE));
        let other = binding_request("nobody:theirs", "password");
        assert_eq!(book.route(Kind::Stun, path(1), &other), Err(DropReason::UnknownUfrag));
        assert_eq!(book.route(Kind::Rtp, path(1), &[0x80, 96]), Err(DropReason::UnknownAddress));
    }

    #[test]
    fn a_spoofed_address_never_displaces_one_in_use() {
        let (mut book, start) = (AddressBook::default(), Instant::now());
        assert_eq!(book.authenticated(start, path(1), ALICE), Ok(()));
        let soon = start + Duration::from_secs(9);
        assert_eq!(book.authenticated(soon, path(1), MALLORY), Err(DropReason::TooManyAddresses));
        assert_eq!(book.peer_at(path(1)), Some(ALICE));
        // A NAT that gives the port to somebody else after the first user fell silent is no attack.
        let later = start + Duration::from_secs(11);
        assert_eq!(book.authenticated(later, path(1), MALLORY), Ok(()));
        assert_eq!(book.peer_at(path(1)), Some(MALLORY));
        book.remove(ALICE);
        assert_eq!(book.peer_at(path(1)), Some(MALLORY), "what was lost is not removed a second time");
    }

    #[test]
    fn a_peer_with_many_addresses_loses_the_one_least_used() {
        let (mut book, now) = (AddressBook::default(), Instant::now());
        for port in 0..PATHS_PER_PEER_MAX as u16 {
            book.authenticated(now, path(port), ALICE).unwrap();
        }
        book.authenticated(now, path(0), ALICE).unwrap();
        book.authenticated(now, path(999), ALICE).unwrap();
        assert_eq!(book.peer_at(path(0)), Some(ALICE));
        assert_eq!(book.peer_at(path(1)), None);
        assert_eq!(book.by_path.len(), PATHS_PER_PEER_MAX);
    }

    #[test]
    fn the_book_has_a_last_page_and_forgets_a_peer_whole() {
        let (mut book, now) = (AddressBook::default(), Instant::now());
        for n in 0..PATHS_MAX as u64 {
            let at = Path { protocol: Protocol::Udp, remote: ([10, 0, (n >> 8) as u8, n as u8], 1000).into() };
            book.authenticated(now, at, PeerId(n / 8)).unwrap();
        }
        assert_eq!(book.authenticated(now, path(1), ALICE), Err(DropReason::TooManyAddresses));
        book.expect("a", PeerId(7));
        book.expect("b", PeerId(7));
        book.remove(PeerId(7));
        assert_eq!(book.by_path.len(), PATHS_MAX - 8);
        assert!(book.by_ufrag.is_empty());
        book.authenticated(now, path(1), ALICE).unwrap();
        book.path_closed(path(1));
        assert_eq!(book.peer_at(path(1)), None);
    }

    #[test]
    fn restarts_keep_only_the_newest_ufrags() {
        let mut book = AddressBook::default();
        for n in 0..10 {
            book.expect(&format!("u{n}"), ALICE);
        }
        assert_eq!(book.by_ufrag.len(), UFRAGS_PER_PEER_MAX);
        assert!(book.by_ufrag.contains_key("u9"));
    }
}
