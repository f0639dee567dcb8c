//! Ids, secrets and seeds: the one place where the node draws randomness for the cores, which draw none.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest;
use plenary_media_core::IceCredentials;
use plenary_model::{EgressId, NodeId, ParticipantSid, PeerId, RoomSid};

use crate::{media_router::RouterIndex, node::RouterHandle};

/// Says which node hosts the session and which of its routers has the media, so that whoever has it knows where to find
/// its tracks.
pub fn participant(node: &NodeId, router: RouterIndex) -> ParticipantSid {
    let host = node.as_str().strip_prefix(NODE).unwrap_or(node.as_str());
    format!("{PARTICIPANT}{host}{}{}", router.mark(), text::<SESSION_CHARACTERS>()).into()
}

/// Which node hosts this session, and on which of its routers; none if the sid is not of our making.
pub fn host_of(sid: &ParticipantSid) -> Option<(NodeId, RouterIndex)> {
    let (host, rest) = sid.as_str().strip_prefix(PARTICIPANT)?.split_at_checked(SID_CHARACTERS)?;
    Some((format!("{NODE}{host}").into(), RouterIndex::of_mark(rest)?))
}

pub fn room() -> RoomSid {
    format!("RM_{}", text::<SID_CHARACTERS>()).into()
}

pub fn egress() -> EgressId {
    format!("EG_{}", text::<SID_CHARACTERS>()).into()
}

/// The same for the same subjects.
pub fn egress_of(subjects: [&str; 3]) -> EgressId {
    let mut context = digest::Context::new(&digest::SHA256);
    for subject in subjects {
        context.update(subject.as_bytes());
        context.update(b"\0");
    }
    let digest = context.finish();
    let letters = digest.as_ref().iter().take(SID_CHARACTERS);
    letters
        .fold("EG_".to_owned(), |id, byte| {
            id + char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]).encode_utf8(&mut [0; 4])
        })
        .into()
}

pub fn node() -> NodeId {
    format!("{NODE}{}", text::<SID_CHARACTERS>()).into()
}

pub fn peer() -> PeerId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    PeerId(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Grows with everything this node says to others.
pub fn words() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The ufrag begins with the router's mark, so that an accepted TCP connection finds its thread by the first frame.
pub fn ice_credentials(router: &RouterHandle) -> IceCredentials {
    IceCredentials {
        ufrag: format!("{}{}", router.index.mark(), text::<UFRAG_CHARACTERS>()),
        pwd: text::<PWD_CHARACTERS>(),
    }
}

pub fn seed() -> u64 {
    u64::from_le_bytes(random())
}

pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has a random source");
    bytes
}

/// `N` characters that people do not mistake for each other, 5.8 bits each.
fn text<const N: usize>() -> String {
    let mut out = String::with_capacity(N);
    while out.len() < N {
        let bytes: [u8; 32] = random();
        // Bytes beyond the last multiple of the alphabet would favour its first letters.
        let fair = bytes.into_iter().filter(|byte| usize::from(*byte) < ALPHABET.len() * (256 / ALPHABET.len()));
        let wanted = N - out.len();
        out.extend(fair.take(wanted).map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])));
    }
    out
}

const PARTICIPANT: &str = "PA_";
const NODE: &str = "ND_";

const SID_CHARACTERS: usize = 12;

/// Of a session among those of its router.
const SESSION_CHARACTERS: usize = 10;

/// RFC 8445 5.3 asks for 24 bits.
const UFRAG_CHARACTERS: usize = 8;

/// RFC 8445 5.3 asks for 128 bits.
const PWD_CHARACTERS: usize = 24;

const ALPHABET: &[u8; 57] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_have_their_prefix_and_length_and_do_not_repeat() {
        let (node, router) = (node(), RouterIndex::new(37).unwrap());
        let sids: HashSet<_> = (0..10_000).map(|_| participant(&node, router)).collect();
        assert_eq!(sids.len(), 10_000);
        assert!(sids.iter().all(|sid| sid.as_str().starts_with("PA_") && sid.as_str().len() == 27));
        assert!(sids.iter().all(|sid| host_of(sid) == Some((node.clone(), router))));
        for not_ours in [
            "PA_short",
            "PA_aaaaaaaaaaaa",
            "PA_aaaaaaaaaaaaAAAAAAAAAAAA",
            "TR_aaaaaaaaaaaaaaaaaaaaaaaa",
            "",
            "PA_aaaaaaaaaaaé",
        ] {
            assert_eq!(host_of(&not_ours.into()), None);
        }
    }

    #[test]
    fn every_letter_is_used() {
        let seen: HashSet<char> = (0..500).flat_map(|_| text::<24>().chars().collect::<Vec<_>>()).collect();
        assert_eq!(seen.len(), ALPHABET.len());
    }
}
