//! The part of STUN (RFC 8489) that an ICE-lite agent speaks: read a Binding request, write its response.
//!
//! Own, because the codec crate at hand copies every attribute to the heap before anything is authenticated, and what is
//! needed is this small. Reads borrow, are linear in the datagram and never fail later than in [`Message::parse`].

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::hmac;
use subtle::ConstantTimeEq;

/// A STUN message whose attributes all lie within its bytes. Nothing in it is authenticated before
/// [`Message::is_authentic`] says so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    bytes: &'a [u8],
    kind: u16,
    username: Option<&'a str>,
    use_candidate: bool,
    integrity: Option<Located<&'a [u8]>>,
    fingerprint: Option<Located<u32>>,
    unknown: Unknown,
}

/// An attribute whose meaning depends on the bytes before it.
#[derive(Debug, Clone, Copy)]
struct Located<T> {
    at: usize,
    value: T,
}

/// Attributes that must be understood and are not (RFC 8489 section 6.3.1), as many as a response names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Unknown {
    types: [u16; UNKNOWN_MAX],
    count: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl<'a> Message<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, mut rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(Malformed)?;
        let [k0, k1, l0, l1, c0, c1, c2, c3, ..] = *header;
        let kind = u16::from_be_bytes([k0, k1]);
        if [c0, c1, c2, c3] != MAGIC_COOKIE
            || kind >> 14 != 0
            || usize::from(u16::from_be_bytes([l0, l1])) != rest.len()
        {
            return Err(Malformed);
        }
        let mut message = Self {
            bytes,
            kind,
            username: None,
            use_candidate: false,
            integrity: None,
            fingerprint: None,
            unknown: Unknown::default(),
        };
        while let Some((&[t0, t1, l0, l1], after)) = rest.split_first_chunk::<4>() {
            if message.fingerprint.is_some() {
                return Err(Malformed); // FINGERPRINT is the last attribute (RFC 8489 section 14.7)
            }
            let at = bytes.len().saturating_sub(rest.len());
            let length = usize::from(u16::from_be_bytes([l0, l1]));
            let value = after.get(..length).ok_or(Malformed)?;
            message.attribute(u16::from_be_bytes([t0, t1]), at, value)?;
            rest = after.get(length.next_multiple_of(4)..).ok_or(Malformed)?;
        }
        if rest.is_empty() { Ok(message) } else { Err(Malformed) }
    }

    pub fn is_binding_request(&self) -> bool {
        self.kind == BINDING_REQUEST
    }

    /// The addressee's half of USERNAME.
    pub fn local_ufrag(&self) -> Option<&'a str> {
        self.username?.split_once(':').map(|(local, _)| local)
    }

    pub fn nominates(&self) -> bool {
        self.use_candidate
    }

    pub fn unknown(&self) -> Option<&Unknown> {
        (self.unknown.count > 0).then_some(&self.unknown)
    }

    /// Whether MESSAGE-INTEGRITY was made with `key` (RFC 8489 section 14.5) and FINGERPRINT, if there is one, is right.
    pub fn is_authentic(&self, key: &hmac::Key) -> bool {
        let Some(integrity) = self.integrity else { return false };
        let fingerprint_is_right = self.fingerprint.is_none_or(|fingerprint| {
            self.bytes.get(..fingerprint.at).is_some_and(|covered| fingerprint_of(covered) == fingerprint.value)
        });
        let Some(covered) = self.bytes.get(..integrity.at) else { return false };
        let tag = integrity_of(key, covered);
        fingerprint_is_right && bool::from(tag.as_ref().ct_eq(integrity.value))
    }

    /// The answer to a check: where it came from, authenticated with the same key (RFC 8445 section 7.3.1.2).
    pub fn success(&self, from: SocketAddr, key: &hmac::Key) -> Vec<u8> {
        let mut out = self.response(BINDING_SUCCESS);
        attribute(&mut out, XOR_MAPPED_ADDRESS, &xor_mapped(from, self.transaction()));
        seal(out, key)
    }

    /// 420 Unknown Attribute (RFC 8489 section 6.3.1).
    pub fn refuse_unknown(&self, unknown: &Unknown, key: &hmac::Key) -> Vec<u8> {
        let mut out = self.response(BINDING_ERROR);
        attribute(&mut out, ERROR_CODE, &[0, 0, 4, 20]);
        let types: Vec<u8> = unknown.types.iter().take(unknown.count).flat_map(|kind| kind.to_be_bytes()).collect();
        attribute(&mut out, UNKNOWN_ATTRIBUTES, &types);
        seal(out, key)
    }

    fn attribute(&mut self, kind: u16, at: usize, value: &'a [u8]) -> Result<(), Malformed> {
        // What follows MESSAGE-INTEGRITY is not covered by it and does not count (RFC 8489 section 14.5).
        match kind {
            FINGERPRINT => {
                let value = u32::from_be_bytes(value.try_into().map_err(|_| Malformed)?);
                self.fingerprint = Some(Located { at, value });
            }
            _ if self.integrity.is_some() => {}
            MESSAGE_INTEGRITY if value.len() == INTEGRITY_BYTES => self.integrity = Some(Located { at, value }),
            MESSAGE_INTEGRITY => return Err(Malformed),
            USERNAME if self.username.is_none() && value.len() <= USERNAME_MAX => {
                self.username = Some(std::str::from_utf8(value).map_err(|_| Malformed)?);
            }
            USERNAME => return Err(Malformed),
            USE_CANDIDATE => self.use_candidate = true,
            known if KNOWN_REQUIRED.contains(&known) => {}
            0x0000..=0x7fff => self.unknown.push(kind),
            _ => {}
        }
        Ok(())
    }

    fn transaction(&self) -> [u8; 12] {
        self.bytes.get(8..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default()
    }

    fn response(&self, kind: u16) -> Vec<u8> {
        let mut out = Vec::with_capacity(RESPONSE_CAPACITY);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&MAGIC_COOKIE);
        out.extend_from_slice(&self.transaction());
        out
    }
}

impl Unknown {
    fn push(&mut self, kind: u16) {
        if let Some(slot) = self.types.get_mut(self.count) {
            *slot = kind;
            self.count = self.count.saturating_add(1);
        }
    }
}

/// The key of a short-term credential (RFC 8489 section 9.1.1).
pub(crate) fn key(pwd: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, pwd.as_bytes())
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&u16::try_from(value.len()).unwrap_or_default().to_be_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
    set_length(out, 0);
}

/// Appends MESSAGE-INTEGRITY and FINGERPRINT.
fn seal(mut out: Vec<u8>, key: &hmac::Key) -> Vec<u8> {
    let tag = integrity_of(key, &out);
    attribute(&mut out, MESSAGE_INTEGRITY, tag.as_ref());
    set_length(&mut out, FINGERPRINT_ATTRIBUTE_BYTES);
    let fingerprint = fingerprint_of(&out);
    attribute(&mut out, FINGERPRINT, &fingerprint.to_be_bytes());
    out
}

/// The length field counts what stands after the header, and what will.
fn set_length(out: &mut [u8], coming: usize) {
    let length = out.len().saturating_sub(HEADER_BYTES).saturating_add(coming);
    if let Some(field) = out.get_mut(2..4) {
        field.copy_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    }
}

/// HMAC-SHA1 over what precedes MESSAGE-INTEGRITY, its length field counting up to and with that attribute.
fn integrity_of(key: &hmac::Key, covered: &[u8]) -> hmac::Tag {
    let length = covered.len().saturating_sub(HEADER_BYTES).saturating_add(INTEGRITY_ATTRIBUTE_BYTES);
    let mut context = hmac::Context::with_key(key);
    context.update(covered.get(..2).unwrap_or_default());
    context.update(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    context.update(covered.get(4..).unwrap_or_default());
    context.sign()
}

/// CRC-32 of ITU V.42, bit by bit: a hundred bytes every few seconds per client need no table.
fn fingerprint_of(covered: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in covered {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc ^ FINGERPRINT_XOR
}

/// RFC 8489 section 14.2.
fn xor_mapped(from: SocketAddr, transaction: [u8; 12]) -> Vec<u8> {
    let [m0, m1, ..] = MAGIC_COOKIE;
    let pad = MAGIC_COOKIE.iter().chain(transaction.iter());
    let mut value = vec![0];
    let octets: &[u8] = match &from.ip() {
        IpAddr::V4(ip) => &ip.octets(),
        IpAddr::V6(ip) => &ip.octets(),
    };
    value.push(if from.is_ipv4() { 1 } else { 2 });
    let [p0, p1] = from.port().to_be_bytes();
    value.extend_from_slice(&[p0 ^ m0, p1 ^ m1]);
    value.extend(octets.iter().zip(pad).map(|(octet, pad)| octet ^ pad));
    value
}

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
/// Comprehension-required attributes that may stand in a request and mean nothing to us: the rest of RFC 8489 section
/// 18.3 and PRIORITY, which a lite agent has no use for.
const KNOWN_REQUIRED: [u16; 10] =
    [0x0001, ERROR_CODE, UNKNOWN_ATTRIBUTES, 0x0014, 0x0015, 0x001c, 0x001d, 0x001e, XOR_MAPPED_ADDRESS, PRIORITY];

const HEADER_BYTES: usize = 20;
const INTEGRITY_BYTES: usize = 20;
const INTEGRITY_ATTRIBUTE_BYTES: usize = 24;
const FINGERPRINT_ATTRIBUTE_BYTES: usize = 8;
const FINGERPRINT_XOR: u32 = 0x5354_554e;
/// RFC 8489 section 14.3: less than 509 bytes.
const USERNAME_MAX: usize = 508;
const UNKNOWN_MAX: usize = 8;
const RESPONSE_CAPACITY: usize = 96;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod testing {
    use super::*;

    pub(crate) fn binding_request(username: &str, pwd: &str) -> Vec<u8> {
        request(username, pwd, &[])
    }

    pub(crate) fn nomination(username: &str, pwd: &str) -> Vec<u8> {
        request(username, pwd, &[(USE_CANDIDATE, &[])])
    }

    pub(crate) fn request(username: &str, pwd: &str, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut out = BINDING_REQUEST.to_be_bytes().to_vec();
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&MAGIC_COOKIE);
        out.extend_from_slice(b"transaction!");
        attribute(&mut out, USERNAME, username.as_bytes());
        attribute(&mut out, PRIORITY, &[0x6e, 0, 0, 0xff]);
        for (kind, value) in attributes {
            attribute(&mut out, *kind, value);
        }
        seal(out, &key(pwd))
    }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;

    /// RFC 5769 section 2.1.
    const SAMPLE_REQUEST: &[u8] = &[
        0x00, 0x01, 0x00, 0x58, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87,
        0xdf, 0xae, 0x80, 0x22, 0x00, 0x10, 0x53, 0x54, 0x55, 0x4e, 0x20, 0x74, 0x65, 0x73, 0x74, 0x20, 0x63, 0x6c,
        0x69, 0x65, 0x6e, 0x74, 0x00, 0x24, 0x00, 0x04, 0x6e, 0x00, 0x01, 0xff, 0x80, 0x29, 0x00, 0x08, 0x93, 0x2f,
        0xf9, 0xb1, 0x51, 0x26, 0x3b, 0x36, 0x00, 0x06, 0x00, 0x09, 0x65, 0x76, 0x74, 0x6a, 0x3a, 0x68, 0x36, 0x76,
        0x59, 0x20, 0x20, 0x20, 0x00, 0x08, 0x00, 0x14, 0x9a, 0xea, 0xa7, 0x0c, 0xbf, 0xd8, 0xcb, 0x56, 0x78, 0x1e,
        0xf2, 0xb5, 0xb2, 0xd3, 0xf2, 0x49, 0xc1, 0xb5, 0x71, 0xa2, 0x80, 0x28, 0x00, 0x04, 0xe5, 0x7a, 0x3b, 0xcf,
    ];
    const SAMPLE_PWD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

    #[test]
    fn the_sample_request_of_the_rfc_is_read_and_authenticated() {
        let message = Message::parse(SAMPLE_REQUEST).unwrap();
        assert!(message.is_binding_request());
        assert_eq!(message.local_ufrag(), Some("evtj"));
        assert!(message.is_authentic(&key(SAMPLE_PWD)));
        assert!(!message.is_authentic(&key("VOkJxbRl1RmTxUk/WvJxBu")));
        assert!(!message.nominates());
        assert_eq!(message.unknown(), None);
    }

    #[test]
    fn no_bit_of_a_request_can_be_changed() {
        for bit in 0..SAMPLE_REQUEST.len() * 8 {
            let mut bytes = SAMPLE_REQUEST.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let authentic = Message::parse(&bytes).is_ok_and(|message| message.is_authentic(&key(SAMPLE_PWD)));
            // Without its type FINGERPRINT is an unknown optional attribute behind the integrity, which does not count.
            let in_fingerprint_type = (SAMPLE_REQUEST.len() - 8..SAMPLE_REQUEST.len() - 6).contains(&(bit / 8));
            assert!(!authentic || in_fingerprint_type, "bit {bit}");
        }
    }

    #[test]
    fn truncated_and_overlong_messages_are_malformed() {
        for length in 0..SAMPLE_REQUEST.len() {
            assert!(Message::parse(&SAMPLE_REQUEST[..length]).is_err(), "{length} bytes");
        }
        let mut longer = SAMPLE_REQUEST.to_vec();
        longer.push(0);
        assert!(Message::parse(&longer).is_err());
        let mut lying = binding_request("a:b", "pwd");
        lying[23] = 200; // the length of USERNAME
        assert!(Message::parse(&lying).is_err());
    }

    #[test]
    fn responses_are_read_by_an_independent_codec() {
        use rtc::stun::message::{Getter, Message as Theirs};
        use rtc::stun::{fingerprint::FINGERPRINT, xoraddr::XorMappedAddress};
        for from in ["192.0.2.1:32853", "[2001:db8:1234:5678:11:2233:4455:6677]:32853"] {
            let from: SocketAddr = from.parse().unwrap();
            let request = Message::parse(SAMPLE_REQUEST).unwrap();
            let mut theirs = Theirs::new();
            theirs.unmarshal_binary(&request.success(from, &key(SAMPLE_PWD))).unwrap();
            FINGERPRINT.check(&theirs).unwrap();
            let mut mapped = XorMappedAddress::default();
            mapped.get_from(&theirs).unwrap();
            assert_eq!(SocketAddr::new(mapped.ip, mapped.port), from);
            let raw = request.success(from, &key(SAMPLE_PWD));
            assert!(Message::parse(&raw).unwrap().is_authentic(&key(SAMPLE_PWD)));
            assert_eq!(&raw[8..20], &SAMPLE_REQUEST[8..20]);
        }
    }

    #[test]
    fn what_follows_the_integrity_does_not_count() {
        let mut out = binding_request("a:b", "pwd");
        out.truncate(out.len() - 8);
        attribute(&mut out, USE_CANDIDATE, &[]);
        let message = Message::parse(&out).unwrap();
        assert!(message.is_authentic(&key("pwd")));
        assert!(!message.nominates());
    }
}
