//! The floor of what forwarding costs: the cipher alone.

use std::hint::black_box;

use aws_lc_rs::aead::{Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};

use super::Stopwatch;

/// The floor: one packet after the other sealed in place, each with the next subscriber's key.
pub struct Seal {
    keys: Vec<LessSafeKey>,
    bytes: usize,
}

impl Seal {
    /// With so many keys, for packets of this size, header included.
    pub fn new(algorithm: &'static Algorithm, keys: usize, bytes: usize) -> Self {
        let key = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            let key = bytes.get(..algorithm.key_len()).expect("no key is longer");
            LessSafeKey::new(UnboundKey::new(algorithm, key).expect("a key of the right length"))
        };
        Self { keys: (0..keys).map(key).collect(), bytes }
    }

    /// Of at least so many packets.
    pub fn ns_per_packet(&self, stopwatch: Stopwatch, packets: usize) -> f64 {
        let rounds = packets.div_ceil(self.keys.len());
        let mut packet = vec![0x5a; self.bytes];
        let (header, payload) = packet.split_at_mut(HEADER_BYTES);
        let ns = stopwatch.ns(|| {
            for round in 0..rounds as u64 {
                for key in &self.keys {
                    let mut nonce = [0; 12];
                    nonce[4..].copy_from_slice(&round.to_be_bytes());
                    let nonce = Nonce::assume_unique_for_key(nonce);
                    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&*header), payload);
                    let _ = black_box(tag.expect("a packet is sealed"));
                }
            }
        });
        ns as f64 / (rounds * self.keys.len()) as f64
    }
}

/// RTP header with two words of extensions, as packets leave.
const HEADER_BYTES: usize = 24;
