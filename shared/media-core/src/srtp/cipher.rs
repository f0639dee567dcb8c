//! Session keys and what they do to one packet.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use subtle::ConstantTimeEq;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Aes256Gcm,
    Aes128Gcm,
    Aes128CmSha1,
}

/// Which of the two protocols a session key is for. They share master keys, not session keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Rtp,
    Rtcp,
}

/// The keys of one direction and protocol.
pub(super) enum Cipher {
    Gcm { key: LessSafeKey, salt: [u8; NONCE_LEN], profile: Profile },
    CmSha1(Box<CmSha1>),
}

pub(super) struct CmSha1 {
    key: EncryptingKey,
    salt: [u8; CM_SALT_BYTES],
    authentication: hmac::Key,
}

/// An authentication tag of either length.
pub(super) struct Tag {
    bytes: [u8; super::TAG_BYTES_MAX],
    length: usize,
}

impl Profile {
    pub fn key_bytes(self) -> usize {
        match self {
            Self::Aes256Gcm => 32,
            Self::Aes128Gcm | Self::Aes128CmSha1 => 16,
        }
    }

    pub fn salt_bytes(self) -> usize {
        match self {
            Self::Aes256Gcm | Self::Aes128Gcm => NONCE_LEN,
            Self::Aes128CmSha1 => CM_SALT_BYTES,
        }
    }

    pub fn tag_bytes(self) -> usize {
        match self {
            Self::Aes256Gcm | Self::Aes128Gcm => 16,
            Self::Aes128CmSha1 => CM_TAG_BYTES,
        }
    }

    pub fn is_aead(self) -> bool {
        self != Self::Aes128CmSha1
    }
}

impl Cipher {
    /// The session keys of one direction and protocol (RFC 3711 section 4.3, key derivation rate zero). RFC 7714 section 11
    /// derives a GCM salt of 96 bits the same way, the master salt padded with zeros behind.
    pub fn derive(profile: Profile, scope: Scope, master_key: &[u8], master_salt: &[u8]) -> Option<Self> {
        let algorithm = if profile.key_bytes() == 32 { &AES_256 } else { &AES_128 };
        let prf = EncryptingKey::ctr(UnboundCipherKey::new(algorithm, master_key).ok()?).ok()?;
        let mut padded = [0; CM_SALT_BYTES];
        padded.get_mut(..profile.salt_bytes())?.copy_from_slice(master_salt);
        let labels = match scope {
            Scope::Rtp => [0, 1, 2],
            Scope::Rtcp => [3, 4, 5],
        };
        let [encryption, authentication, salting] = labels.map(|label| Label { label, salt: padded });
        let mut key = [0; 32];
        let key = key.get_mut(..profile.key_bytes())?;
        encryption.fill(&prf, key)?;
        if profile.is_aead() {
            let algorithm = if profile.key_bytes() == 32 { &AES_256_GCM } else { &AES_128_GCM };
            let mut salt = [0; NONCE_LEN];
            salting.fill(&prf, &mut salt)?;
            let key = LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?);
            return Some(Self::Gcm { key, salt, profile });
        }
        let mut salt = [0; CM_SALT_BYTES];
        salting.fill(&prf, &mut salt)?;
        let mut authentication_key = [0; CM_AUTHENTICATION_BYTES];
        authentication.fill(&prf, &mut authentication_key)?;
        Some(Self::CmSha1(Box::new(CmSha1 {
            key: EncryptingKey::ctr(UnboundCipherKey::new(&AES_128, key).ok()?).ok()?,
            salt,
            authentication: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &authentication_key),
        })))
    }

    pub fn profile(&self) -> Profile {
        match self {
            Self::Gcm { profile, .. } => *profile,
            Self::CmSha1(_) => Profile::Aes128CmSha1,
        }
    }

    /// Encrypts `payload`; `index` is roll-over counter and sequence number.
    pub fn seal_rtp(&self, ssrc: u32, index: u64, header: &[u8], payload: &mut [u8]) -> Option<Tag> {
        match self {
            Self::Gcm { key, salt, .. } => Tag::of_gcm(key, rtp_nonce(salt, ssrc, index), Aad::from(header), payload),
            Self::CmSha1(cm) => {
                cm.apply(ssrc, index, payload)?;
                Some(Tag::of_sha1(&cm.authentication, header, payload, roc_of(index)))
            }
        }
    }

    /// Decrypts what `body` holds before its tag and returns how many bytes that is.
    pub fn open_rtp(&self, ssrc: u32, index: u64, header: &[u8], body: &mut [u8]) -> Option<usize> {
        let payload_bytes = body.len().checked_sub(self.profile().tag_bytes())?;
        match self {
            Self::Gcm { key, salt, .. } => {
                key.open_in_place(rtp_nonce(salt, ssrc, index), Aad::from(header), body).ok()?;
            }
            Self::CmSha1(cm) => {
                let (payload, tag) = body.split_at_mut_checked(payload_bytes)?;
                Tag::of_sha1(&cm.authentication, header, payload, roc_of(index)).matches(tag)?;
                cm.apply(ssrc, index, payload)?;
            }
        }
        Some(payload_bytes)
    }

    /// Encrypts `payload`; `word` is the index with the E flag, authenticated and sent in the clear.
    pub fn seal_rtcp(&self, ssrc: u32, index: u32, header: &[u8], payload: &mut [u8], word: [u8; 4]) -> Option<Tag> {
        match self {
            Self::Gcm { key, salt, .. } => {
                Tag::of_gcm(key, rtcp_nonce(salt, ssrc, index), Aad::from(rtcp_aad(header, word)?), payload)
            }
            Self::CmSha1(cm) => {
                cm.apply(ssrc, u64::from(index), payload)?;
                Some(Tag::of_sha1(&cm.authentication, header, payload, word))
            }
        }
    }

    /// Decrypts in place what `body` holds before tag and index.
    pub fn open_rtcp(&self, ssrc: u32, index: u32, header: &[u8], body: &mut [u8], word: [u8; 4]) -> Option<()> {
        let sealed_bytes = body.len().checked_sub(word.len())?;
        match self {
            Self::Gcm { key, salt, .. } => {
                let aad = Aad::from(rtcp_aad(header, word)?);
                key.open_in_place(rtcp_nonce(salt, ssrc, index), aad, body.get_mut(..sealed_bytes)?).ok()?;
            }
            Self::CmSha1(cm) => {
                let (payload, rest) = body.split_at_mut_checked(sealed_bytes.checked_sub(CM_TAG_BYTES)?)?;
                let tag = rest.get(word.len()..)?;
                Tag::of_sha1(&cm.authentication, header, payload, word).matches(tag)?;
                cm.apply(ssrc, u64::from(index), payload)?;
            }
        }
        Some(())
    }
}

impl Tag {
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn of_gcm<A: AsRef<[u8]>>(key: &LessSafeKey, nonce: Nonce, aad: Aad<A>, payload: &mut [u8]) -> Option<Self> {
        let tag = key.seal_in_place_separate_tag(nonce, aad, payload).ok()?;
        let bytes = *tag.as_ref().first_chunk()?;
        Some(Self { bytes, length: bytes.len() })
    }

    /// HMAC-SHA1 over the packet and what is not in it, cut to 80 bits (RFC 3711 section 4.2).
    fn of_sha1(key: &hmac::Key, header: &[u8], payload: &[u8], trailer: [u8; 4]) -> Self {
        let mut context = hmac::Context::with_key(key);
        context.update(header);
        context.update(payload);
        context.update(&trailer);
        let full = context.sign();
        let bytes = full.as_ref().first_chunk().copied().unwrap_or_default();
        Self { bytes, length: CM_TAG_BYTES }
    }

    fn matches(&self, other: &[u8]) -> Option<()> {
        bool::from(self.bytes().ct_eq(other)).then_some(())
    }
}

/// Input of the key derivation for one key: `label` at its place over the master salt.
struct Label {
    label: u8,
    salt: [u8; CM_SALT_BYTES],
}

impl Label {
    /// Fills `out` with the key stream of the master key (AES-CM as a pseudo-random function, RFC 3711 section 4.3.3).
    fn fill(mut self, prf: &EncryptingKey, out: &mut [u8]) -> Option<()> {
        *self.salt.get_mut(7)? ^= self.label;
        let mut iv = [0; 16];
        iv.first_chunk_mut::<CM_SALT_BYTES>()?.copy_from_slice(&self.salt);
        out.fill(0);
        prf.less_safe_encrypt(out, EncryptionContext::Iv128(FixedLength::from(iv))).ok()?;
        Some(())
    }
}

impl CmSha1 {
    fn apply(&self, ssrc: u32, index: u64, data: &mut [u8]) -> Option<()> {
        counter_mode(&self.key, &self.salt, ssrc, index, data)
    }
}

/// RFC 3711 section 4.1.1. Encrypting is decrypting.
fn counter_mode(key: &EncryptingKey, salt: &[u8; CM_SALT_BYTES], ssrc: u32, index: u64, data: &mut [u8]) -> Option<()> {
    if data.is_empty() {
        return Some(());
    }
    let [.., i0, i1, i2, i3, i4, i5] = index.to_be_bytes();
    let [s0, s1, s2, s3] = ssrc.to_be_bytes();
    let counted = [0, 0, 0, 0, s0, s1, s2, s3, i0, i1, i2, i3, i4, i5];
    let mut iv = [0; 16];
    for (out, (salt, counted)) in iv.iter_mut().zip(salt.iter().zip(counted)) {
        *out = salt ^ counted;
    }
    key.less_safe_encrypt(data, EncryptionContext::Iv128(FixedLength::from(iv))).ok()?;
    Some(())
}

/// RFC 7714 section 8.1.
fn rtp_nonce(salt: &[u8; NONCE_LEN], ssrc: u32, index: u64) -> Nonce {
    let [.., i0, i1, i2, i3, i4, i5] = index.to_be_bytes();
    let [s0, s1, s2, s3] = ssrc.to_be_bytes();
    nonce(salt, [0, 0, s0, s1, s2, s3, i0, i1, i2, i3, i4, i5])
}

/// RFC 7714 section 9.1.
fn rtcp_nonce(salt: &[u8; NONCE_LEN], ssrc: u32, index: u32) -> Nonce {
    let [s0, s1, s2, s3] = ssrc.to_be_bytes();
    let [i0, i1, i2, i3] = index.to_be_bytes();
    nonce(salt, [0, 0, s0, s1, s2, s3, 0, 0, i0, i1, i2, i3])
}

fn nonce(salt: &[u8; NONCE_LEN], mut bytes: [u8; NONCE_LEN]) -> Nonce {
    for (byte, salt) in bytes.iter_mut().zip(salt) {
        *byte ^= salt;
    }
    Nonce::assume_unique_for_key(bytes)
}

/// RFC 7714 section 9.2.
fn rtcp_aad(header: &[u8], word: [u8; 4]) -> Option<[u8; 12]> {
    let mut aad = [0; 12];
    aad.first_chunk_mut::<8>()?.copy_from_slice(header.first_chunk::<8>()?);
    aad.last_chunk_mut::<4>()?.copy_from_slice(&word);
    Some(aad)
}

fn roc_of(index: u64) -> [u8; 4] {
    let [_, _, r0, r1, r2, r3, _, _] = index.to_be_bytes();
    [r0, r1, r2, r3]
}

const CM_SALT_BYTES: usize = 14;
const CM_TAG_BYTES: usize = 10;
const CM_AUTHENTICATION_BYTES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn cm_key(key: &str) -> EncryptingKey {
        EncryptingKey::ctr(UnboundCipherKey::new(&AES_128, &hex(key)).unwrap()).unwrap()
    }

    fn gcm(profile: Profile, key: &str) -> Cipher {
        let algorithm = if profile == Profile::Aes256Gcm { &AES_256_GCM } else { &AES_128_GCM };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, &hex(key)).unwrap());
        Cipher::Gcm { key, salt: *b"Quid pro quo", profile }
    }

    /// RFC 3711 appendix B.3.
    #[test]
    fn session_keys_are_derived_as_in_the_rfc() {
        let prf = cm_key("E1F97A0D3E018BE0D64FA32C06DE4139");
        let salt: [u8; 14] = hex("0EC675AD498AFEEBB6960B3AABE6").try_into().unwrap();
        for (label, expected) in [
            (0, "C61E7A93744F39EE10734AFE3FF7A087"),
            (2, "30CBBC08863D8C85D49DB34A9AE1"),
            (
                1,
                "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA48F0A0ACF3C34E2359E6CDBCEE049646C43D9327AD175578EF722709\
                 86371C10C9A369AC2F94A8C5FBCDDDC256D6E919A48B610EF17C2041E474035766B68642C59BBFC2F34DB60DBDFB2DC68",
            ),
        ] {
            let mut out = vec![0xff; hex(expected).len()];
            Label { label, salt }.fill(&prf, &mut out).unwrap();
            assert_eq!(out, hex(expected), "label {label}");
        }
    }

    /// RFC 3711 appendix B.2.
    #[test]
    fn the_counter_mode_key_stream_is_that_of_the_rfc() {
        let key = cm_key("2B7E151628AED2A6ABF7158809CF4F3C");
        let salt: [u8; 14] = hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD").try_into().unwrap();
        let mut stream = [0; 48];
        counter_mode(&key, &salt, 0, 0, &mut stream).unwrap();
        let expected = hex("E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB \
                            41E95B3BB0A2E8DD477901E4FCA894C0");
        assert_eq!(stream.as_slice(), expected);
    }

    /// RFC 7714 sections 16.1.1 and 16.2.1.
    #[test]
    fn gcm_seals_and_opens_the_rtp_packets_of_the_rfc() {
        let packet = hex("8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 69736120 696e2070 \
                          61727465 73207472 6573");
        for (profile, key, sealed) in [
            (
                Profile::Aes128Gcm,
                "000102030405060708090a0b0c0d0e0f",
                "f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 \
                 6a9152cf 765ee439 0cce",
            ),
            (
                Profile::Aes256Gcm,
                "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
                "32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02 76ffae0f 1ba63799 b87b7aa3 db36dfff \
                 d6b0f9bb 7878d7a7 6c13",
            ),
        ] {
            let cipher = gcm(profile, key);
            let (header, payload) = packet.split_at(12);
            let mut body = payload.to_vec();
            let tag = cipher.seal_rtp(0x5501_a0b2, 0xf17b, header, &mut body).unwrap();
            body.extend_from_slice(tag.bytes());
            assert_eq!(body, hex(sealed), "{profile:?}");
            assert_eq!(cipher.open_rtp(0x5501_a0b2, 0xf17b, header, &mut body), Some(payload.len()));
            assert_eq!(&body[..payload.len()], payload);
        }
    }

    /// RFC 7714 section 17.1.
    #[test]
    fn gcm_seals_and_opens_the_rtcp_packet_of_the_rfc() {
        let packet = hex("81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 deadbeef deadbeef \
                          deadbeef deadbeef deadbeef");
        let sealed = hex("63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 730d6fda 4ce09b46 86303ded \
                          0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade");
        let cipher = gcm(Profile::Aes128Gcm, "000102030405060708090a0b0c0d0e0f");
        let (header, payload) = packet.split_at(8);
        let word = 0x8000_05d4_u32.to_be_bytes();
        let mut body = payload.to_vec();
        let tag = cipher.seal_rtcp(0x4d61_7273, 0x5d4, header, &mut body, word).unwrap();
        body.extend_from_slice(tag.bytes());
        assert_eq!(body, sealed);
        body.extend_from_slice(&word);
        cipher.open_rtcp(0x4d61_7273, 0x5d4, header, &mut body, word).unwrap();
        assert_eq!(&body[..payload.len()], payload);
    }
}
