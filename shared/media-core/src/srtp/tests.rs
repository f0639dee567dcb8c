//! Both directions against an independent implementation, and what a forger can do.

use std::time::Duration;

use rtc::srtp::context::Context;
use rtc::srtp::protection_profile::ProtectionProfile;

use super::receive::{SSRC_IDLE, SSRCS_MAX, WINDOW};
use super::*;
use crate::testing::Rng;

const PROFILES: [(Profile, ProtectionProfile); 3] = [
    (Profile::Aes256Gcm, ProtectionProfile::AeadAes256Gcm),
    (Profile::Aes128Gcm, ProtectionProfile::AeadAes128Gcm),
    (Profile::Aes128CmSha1, ProtectionProfile::Aes128CmHmacSha1_80),
];

/// A key pair of one direction that both implementations understand.
struct Masters {
    key: Vec<u8>,
    salt: Vec<u8>,
}

impl Masters {
    fn new(rng: &mut Rng, profile: Profile) -> Self {
        Self { key: rng.bytes(profile.key_bytes()), salt: rng.bytes(profile.salt_bytes()) }
    }

    fn as_pair(&self) -> (&[u8], &[u8]) {
        (&self.key, &self.salt)
    }

    fn oracle(&self, profile: ProtectionProfile) -> Context {
        let provider = rtc::crypto::default_provider().unwrap();
        Context::new(&self.key, &self.salt, profile, None, None, provider.crypto()).unwrap()
    }
}

/// Sender and receiver with one another's keys.
fn pair(profile: Profile) -> (Keys, Keys) {
    let mut rng = Rng::new(7);
    let (a, b) = (Masters::new(&mut rng, profile), Masters::new(&mut rng, profile));
    let sender = Keys::new(profile, a.as_pair(), b.as_pair()).unwrap();
    (sender, Keys::new(profile, b.as_pair(), a.as_pair()).unwrap())
}

/// An RTP packet with CSRCs and an extension block now and then, and the length of its header.
fn packet(rng: &mut Rng, ssrc: u32, sequence: u16) -> (Vec<u8>, usize) {
    let (csrcs, words) = (rng.below(3) as usize, rng.below(4) as u16);
    let extended = rng.below(2) == 1;
    let mut out = vec![0x80 | csrcs as u8 | if extended { 0x10 } else { 0 }, 96];
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&rng.bytes(4));
    out.extend_from_slice(&ssrc.to_be_bytes());
    out.extend_from_slice(&rng.bytes(csrcs * 4));
    if extended {
        out.extend_from_slice(&[0x12, 0x34]); // a profile without structure: random content is right
        out.extend_from_slice(&words.to_be_bytes());
        out.extend_from_slice(&rng.bytes(usize::from(words) * 4));
    }
    let header_bytes = out.len();
    let payload = 1 + rng.below(1_200) as usize;
    out.extend_from_slice(&rng.bytes(payload));
    (out, header_bytes)
}

fn sealed(keys: &Keys, roc: u32, plain: &[u8], header_bytes: usize) -> Vec<u8> {
    let mut buf = b"what stands before it".to_vec();
    let start = buf.len();
    buf.extend_from_slice(plain);
    keys.seal_rtp(roc, header_bytes, &mut buf, start).unwrap();
    buf.split_off(start)
}

fn simple(keys: &Keys, ssrc: u32, index: u64) -> Vec<u8> {
    let mut plain = vec![0x80, 96];
    plain.extend_from_slice(&(index as u16).to_be_bytes());
    plain.extend_from_slice(&[0; 4]);
    plain.extend_from_slice(&ssrc.to_be_bytes());
    plain.extend_from_slice(b"payload");
    sealed(keys, (index >> 16) as u32, &plain, 12)
}

#[test]
fn what_we_seal_an_independent_implementation_opens_across_wraps_and_reordering() {
    for (ours, theirs) in PROFILES {
        let seed = 41;
        let mut rng = Rng::new(seed);
        let masters = Masters::new(&mut rng, ours);
        let keys = Keys::new(ours, masters.as_pair(), masters.as_pair()).unwrap();
        let mut oracle = masters.oracle(theirs);
        for index in reordered(&mut rng, 65_300..66_300) {
            let (plain, header_bytes) = packet(&mut rng, 0x1234, index as u16);
            let packet = sealed(&keys, (index >> 16) as u32, &plain, header_bytes);
            let opened = oracle.decrypt_rtp(&packet);
            assert_eq!(opened.unwrap(), plain, "{ours:?} index {index} seed {seed}");
        }
    }
}

#[test]
fn what_an_independent_implementation_seals_we_open_across_wraps_and_reordering() {
    for (ours, theirs) in PROFILES {
        let seed = 42;
        let (mut rng, now) = (Rng::new(seed), Instant::now());
        let masters = Masters::new(&mut rng, ours);
        let mut keys = Keys::new(ours, masters.as_pair(), masters.as_pair()).unwrap();
        let mut oracle = masters.oracle(theirs);
        // The oracle must see packets in order to count roll-overs; the network then reorders them.
        let mut packets = Vec::new();
        for index in 65_300_u64..66_300 {
            let (plain, _) = packet(&mut rng, 0x1234, index as u16);
            packets.push((oracle.encrypt_rtp(&plain).unwrap().to_vec(), plain));
        }
        for at in reordered(&mut rng, 0..1_000) {
            let (sealed, plain) = &mut packets[at as usize];
            let opened = keys.open_rtp(now, sealed);
            assert_eq!(opened.as_deref(), Ok(plain.as_slice()), "{ours:?} packet {at} seed {seed}");
        }
    }
}

#[test]
fn rtcp_goes_both_ways_with_an_independent_implementation() {
    for (ours, theirs) in PROFILES {
        let (mut rng, now) = (Rng::new(43), Instant::now());
        let masters = Masters::new(&mut rng, ours);
        let mut keys = Keys::new(ours, masters.as_pair(), masters.as_pair()).unwrap();
        let (mut sender, mut receiver) = (masters.oracle(theirs), masters.oracle(theirs));
        for n in 0..200_u32 {
            let words = 1 + rng.below(20) as u16;
            let mut plain = vec![0x80, 201];
            plain.extend_from_slice(&words.to_be_bytes());
            plain.extend_from_slice(&(n % 3).to_be_bytes());
            plain.extend_from_slice(&rng.bytes(usize::from(words) * 4 - 4));
            let mut theirs = sender.encrypt_rtcp(&plain).unwrap().to_vec();
            assert_eq!(keys.open_rtcp(now, &mut theirs).as_deref(), Ok(plain.as_slice()), "{ours:?} {n}");
            let mut buf = plain.clone();
            keys.seal_rtcp(&mut buf, 0).unwrap();
            assert_eq!(receiver.decrypt_rtcp(&buf).unwrap(), plain, "{ours:?} {n}");
        }
    }
}

#[test]
fn no_bit_of_a_packet_can_be_changed_and_no_byte_left_out() {
    for (profile, _) in PROFILES {
        let (mut sender, mut receiver) = pair(profile);
        let now = Instant::now();
        let rtp = simple(&sender, 5, 100);
        let mut rtcp = vec![0x81, 201, 0, 2, 0, 0, 0, 5, 1, 2, 3, 4];
        sender.seal_rtcp(&mut rtcp, 0).unwrap();
        for bit in 0..rtp.len() * 8 {
            let mut forged = rtp.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(receiver.open_rtp(now, &mut forged).is_err(), "{profile:?} bit {bit}");
        }
        for bit in 0..rtcp.len() * 8 {
            let mut forged = rtcp.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(receiver.open_rtcp(now, &mut forged).is_err(), "{profile:?} bit {bit}");
        }
        for length in 0..rtp.len() {
            assert!(receiver.open_rtp(now, &mut rtp[..length].to_vec()).is_err(), "{profile:?} {length} bytes");
        }
        for length in 0..rtcp.len() {
            assert!(receiver.open_rtcp(now, &mut rtcp[..length].to_vec()).is_err(), "{profile:?} {length} bytes");
        }
        assert!(receiver.open_rtp(now, &mut rtp.clone()).is_ok(), "and what failed did no harm");
        assert!(receiver.open_rtcp(now, &mut rtcp.clone()).is_ok());
    }
}

#[test]
fn a_packet_is_opened_once() {
    for (profile, _) in PROFILES {
        let (mut sender, mut receiver) = pair(profile);
        let now = Instant::now();
        let packets: Vec<Vec<u8>> = (0..2 * WINDOW).map(|index| simple(&sender, 5, index)).collect();
        for packet in &packets {
            assert!(receiver.open_rtp(now, &mut packet.clone()).is_ok());
        }
        for (index, packet) in packets.iter().enumerate() {
            let mut again = packet.clone();
            assert_eq!(receiver.open_rtp(now, &mut again), Err(DropReason::SrtpReplayed), "{profile:?} {index}");
        }
        let mut rtcp = vec![0x81, 201, 0, 1, 0, 0, 0, 5];
        sender.seal_rtcp(&mut rtcp, 0).unwrap();
        assert!(receiver.open_rtcp(now, &mut rtcp.clone()).is_ok());
        assert_eq!(receiver.open_rtcp(now, &mut rtcp.clone()), Err(DropReason::SrtpReplayed));
    }
}

#[test]
fn a_late_packet_is_taken_within_the_window_and_not_behind_it() {
    let (sender, mut receiver) = pair(Profile::Aes128Gcm);
    let now = Instant::now();
    let base = (3 << 16) - 200;
    // Three wraps, so that the roll-over counter is not the one a fresh receiver starts with.
    for index in (0..=base).step_by(30_000) {
        receiver.open_rtp(now, &mut simple(&sender, 5, index)).unwrap();
    }
    receiver.open_rtp(now, &mut simple(&sender, 5, base + 400)).unwrap();
    assert!(receiver.open_rtp(now, &mut simple(&sender, 5, base)).is_ok(), "before the wrap");
    assert!(receiver.open_rtp(now, &mut simple(&sender, 5, base + 401 - WINDOW)).is_ok());
    assert_eq!(receiver.open_rtp(now, &mut simple(&sender, 5, base + 400 - WINDOW)), Err(DropReason::SrtpReplayed));
}

#[test]
fn a_flood_of_forged_ssrcs_leaves_nothing_behind() {
    let (mut sender, mut receiver) = pair(Profile::Aes256Gcm);
    let now = Instant::now();
    receiver.open_rtp(now, &mut simple(&sender, 5, 1)).unwrap();
    for ssrc in 0..10_000 {
        let mut forged = simple(&sender, ssrc + 10, 1);
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(receiver.open_rtp(now, &mut forged), Err(DropReason::SrtpNotAuthentic));
        let mut rtcp = vec![0x80, 201, 0, 1];
        rtcp.extend_from_slice(&(ssrc + 10_u32).to_be_bytes());
        sender.seal_rtcp(&mut rtcp, 0).unwrap();
        rtcp[8] ^= 1;
        assert_eq!(receiver.open_rtcp(now, &mut rtcp), Err(DropReason::SrtcpNotAuthentic));
    }
    assert_eq!((receiver.rtp.len(), receiver.rtcp.len()), (1, 0));
}

#[test]
fn ssrcs_are_bounded_and_a_place_is_freed_by_silence() {
    let (sender, mut receiver) = pair(Profile::Aes128Gcm);
    let start = Instant::now();
    for ssrc in 0..SSRCS_MAX as u32 {
        receiver.open_rtp(start + Duration::from_millis(u64::from(ssrc)), &mut simple(&sender, ssrc, 1)).unwrap();
    }
    let soon = start + SSRC_IDLE / 2;
    assert_eq!(receiver.open_rtp(soon, &mut simple(&sender, 999, 1)), Err(DropReason::TooManySsrcs));
    receiver.open_rtp(soon, &mut simple(&sender, 0, 2)).unwrap();
    let later = start + SSRC_IDLE + Duration::from_millis(1);
    receiver.open_rtp(later, &mut simple(&sender, 999, 1)).unwrap();
    assert_eq!(receiver.rtp.len(), SSRCS_MAX);
    assert_eq!(receiver.open_rtp(later, &mut simple(&sender, 0, 2)), Err(DropReason::SrtpReplayed), "0 was in use");
}

#[test]
fn a_header_that_lies_about_its_length_is_malformed() {
    let (sender, mut receiver) = pair(Profile::Aes128Gcm);
    let now = Instant::now();
    let mut many_csrcs = simple(&sender, 5, 1);
    many_csrcs[0] = 0x8f;
    many_csrcs.truncate(40);
    assert_eq!(receiver.open_rtp(now, &mut many_csrcs), Err(DropReason::RtpMalformed));
    let mut long_extension = simple(&sender, 5, 1);
    long_extension[0] = 0x90;
    assert_eq!(receiver.open_rtp(now, &mut long_extension), Err(DropReason::RtpMalformed));
    assert_eq!(receiver.open_rtp(now, &mut [0x40; 60]), Err(DropReason::RtpMalformed));
    let mut short = vec![0x80; 12];
    assert_eq!(sender.seal_rtp(0, 13, &mut short, 0), Err(SealError::Malformed));
    assert_eq!(sender.seal_rtp(0, 12, &mut short, 13), Err(SealError::Malformed));
}

#[test]
fn unencrypted_rtcp_is_refused() {
    let (mut sender, mut receiver) = pair(Profile::Aes128Gcm);
    let mut rtcp = vec![0x81, 201, 0, 1, 0, 0, 0, 5];
    sender.seal_rtcp(&mut rtcp, 0).unwrap();
    let word = rtcp.len() - 4;
    rtcp[word] &= 0x7f;
    assert_eq!(receiver.open_rtcp(Instant::now(), &mut rtcp), Err(DropReason::SrtcpNotAuthentic));
}

#[test]
fn keys_do_not_print() {
    let (keys, _) = pair(Profile::Aes128Gcm);
    assert_eq!(format!("{keys:?}"), "Keys { profile: Aes128Gcm, .. }");
}

/// The range with neighbours swapped up to twenty places apart.
fn reordered(rng: &mut Rng, range: std::ops::Range<u64>) -> Vec<u64> {
    let mut order: Vec<u64> = range.collect();
    for at in 0..order.len().saturating_sub(20) {
        let other = at + rng.below(20) as usize;
        order.swap(at, other);
    }
    order
}
