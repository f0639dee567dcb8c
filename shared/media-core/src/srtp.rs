//! SRTP and SRTCP (RFC 3711) with the three profiles DTLS negotiates: AEAD_AES_256_GCM and AEAD_AES_128_GCM (RFC 7714),
//! and AES128_CM_SHA1_80 for those who speak nothing else.
//!
//! Packets are sealed and opened where they stand, with keys that were expanded once. Sealing RTP keeps no state: who
//! numbers packets knows the roll-over counter. Opening keeps a replay window per SSRC, made only by packets that were
//! authentic and bounded before anything is decrypted. Keys have no `Debug` that shows them.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod cipher;
mod receive;

use std::time::Instant;

use crate::api::DropReason;
use crate::dtls::DtlsRole;

pub(crate) use cipher::Profile;
use cipher::{Cipher, Scope};
use receive::Receivers;

/// Both directions of one transport.
pub(crate) struct Keys {
    out_rtp: Cipher,
    out_rtcp: Cipher,
    in_rtp: Cipher,
    in_rtcp: Cipher,
    next_rtcp_index: u32,
    rtp: Receivers,
    rtcp: Receivers,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("profile", &self.out_rtp.profile()).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SealError {
    #[error("no keys yet")]
    NotConnected,
    #[error("not a packet with that header")]
    Malformed,
    #[error("the cipher refused")]
    Refused,
    #[error("all SRTCP indices are used up")]
    Exhausted,
}

impl Keys {
    /// From what DTLS exports: client key, server key, client salt, server salt (RFC 5764 section 4.2).
    pub fn from_dtls(profile: Profile, material: &[u8], role: DtlsRole) -> Option<Self> {
        let (client_key, rest) = material.split_at_checked(profile.key_bytes())?;
        let (server_key, rest) = rest.split_at_checked(profile.key_bytes())?;
        let (client_salt, rest) = rest.split_at_checked(profile.salt_bytes())?;
        let (server_salt, _) = rest.split_at_checked(profile.salt_bytes())?;
        let (client, server) = ((client_key, client_salt), (server_key, server_salt));
        match role {
            DtlsRole::Client => Self::new(profile, client, server),
            DtlsRole::Server => Self::new(profile, server, client),
        }
    }

    /// From master key and salt of both directions.
    fn new(profile: Profile, ours: (&[u8], &[u8]), theirs: (&[u8], &[u8])) -> Option<Self> {
        Some(Self {
            out_rtp: Cipher::derive(profile, Scope::Rtp, ours.0, ours.1)?,
            out_rtcp: Cipher::derive(profile, Scope::Rtcp, ours.0, ours.1)?,
            in_rtp: Cipher::derive(profile, Scope::Rtp, theirs.0, theirs.1)?,
            in_rtcp: Cipher::derive(profile, Scope::Rtcp, theirs.0, theirs.1)?,
            next_rtcp_index: 1,
            rtp: Receivers::default(),
            rtcp: Receivers::default(),
        })
    }

    /// Seals the packet at `buf[start..]`, whose header with CSRCs and extensions is `header_bytes` long, and appends the
    /// tag. Allocates nothing if `buf` has room for [`TAG_BYTES_MAX`] more.
    pub fn seal_rtp(&self, roc: u32, header_bytes: usize, buf: &mut Vec<u8>, start: usize) -> Result<(), SealError> {
        let packet = buf.get_mut(start..).ok_or(SealError::Malformed)?;
        let (sequence, ssrc) = sequence_and_ssrc(packet).ok_or(SealError::Malformed)?;
        let (header, payload) = packet.split_at_mut_checked(header_bytes).ok_or(SealError::Malformed)?;
        let index = u64::from(roc).checked_shl(16).unwrap_or_default() | u64::from(sequence);
        let tag = self.out_rtp.seal_rtp(ssrc, index, header, payload).ok_or(SealError::Refused)?;
        buf.extend_from_slice(tag.bytes());
        Ok(())
    }

    /// Seals the compound packet at `buf[start..]` and appends tag and index.
    pub fn seal_rtcp(&mut self, buf: &mut Vec<u8>, start: usize) -> Result<(), SealError> {
        let index = self.next_rtcp_index;
        if index > RTCP_INDEX_MAX {
            return Err(SealError::Exhausted);
        }
        let packet = buf.get_mut(start..).ok_or(SealError::Malformed)?;
        let (header, payload) = packet.split_at_mut_checked(RTCP_CLEAR_BYTES).ok_or(SealError::Malformed)?;
        let ssrc = header.last_chunk().copied().map(u32::from_be_bytes).ok_or(SealError::Malformed)?;
        let word = (index | ENCRYPTED).to_be_bytes();
        let tag = self.out_rtcp.seal_rtcp(ssrc, index, header, payload, word).ok_or(SealError::Refused)?;
        self.next_rtcp_index = index.saturating_add(1);
        if self.out_rtcp.profile().is_aead() {
            buf.extend_from_slice(tag.bytes());
            buf.extend_from_slice(&word);
        } else {
            buf.extend_from_slice(&word);
            buf.extend_from_slice(tag.bytes());
        }
        Ok(())
    }

    /// Authenticates and decrypts one RTP packet in place.
    pub fn open_rtp<'b>(&mut self, now: Instant, bytes: &'b mut [u8]) -> Result<&'b mut [u8], DropReason> {
        let header_bytes = rtp_header_bytes(bytes).ok_or(DropReason::RtpMalformed)?;
        let (sequence, ssrc) = sequence_and_ssrc(bytes).ok_or(DropReason::RtpMalformed)?;
        let slot = self.rtp.find(now, ssrc)?;
        let index = self.rtp.index_of(slot, sequence);
        if self.rtp.is_replayed(slot, index) {
            return Err(DropReason::SrtpReplayed);
        }
        let (header, body) = bytes.split_at_mut_checked(header_bytes).ok_or(DropReason::RtpMalformed)?;
        let payload_bytes = self.in_rtp.open_rtp(ssrc, index, header, body).ok_or(DropReason::SrtpNotAuthentic)?;
        self.rtp.accept(now, slot, ssrc, index);
        bytes.get_mut(..header_bytes.saturating_add(payload_bytes)).ok_or(DropReason::RtpMalformed)
    }

    /// Authenticates and decrypts one RTCP compound in place.
    pub fn open_rtcp<'b>(&mut self, now: Instant, bytes: &'b mut [u8]) -> Result<&'b mut [u8], DropReason> {
        let profile = self.in_rtcp.profile();
        let (header, body) = bytes.split_at_mut_checked(RTCP_CLEAR_BYTES).ok_or(DropReason::RtcpMalformed)?;
        let ssrc = header.last_chunk().copied().map(u32::from_be_bytes).ok_or(DropReason::RtcpMalformed)?;
        let sealed_bytes = body
            .len()
            .checked_sub(profile.tag_bytes())
            .and_then(|bytes| bytes.checked_sub(size_of::<u32>()))
            .ok_or(DropReason::RtcpMalformed)?;
        // GCM puts the index last (RFC 7714 section 9.2), the older profile before the tag (RFC 3711 section 3.4).
        let word_at = if profile.is_aead() { body.len().saturating_sub(size_of::<u32>()) } else { sealed_bytes };
        let word: [u8; 4] =
            body.get(word_at..).and_then(|rest| rest.first_chunk()).copied().ok_or(DropReason::RtcpMalformed)?;
        let index = u32::from_be_bytes(word) & RTCP_INDEX_MAX;
        if u32::from_be_bytes(word) & ENCRYPTED == 0 {
            return Err(DropReason::SrtcpNotAuthentic); // unencrypted SRTCP was never negotiated
        }
        let slot = self.rtcp.find(now, ssrc)?;
        if self.rtcp.is_replayed(slot, u64::from(index)) {
            return Err(DropReason::SrtpReplayed);
        }
        self.in_rtcp.open_rtcp(ssrc, index, header, body, word).ok_or(DropReason::SrtcpNotAuthentic)?;
        self.rtcp.accept(now, slot, ssrc, u64::from(index));
        bytes.get_mut(..RTCP_CLEAR_BYTES.saturating_add(sealed_bytes)).ok_or(DropReason::RtcpMalformed)
    }
}

/// Bytes of the fixed header, CSRCs and extension block (RFC 3550 section 5.1), all of which stay readable.
fn rtp_header_bytes(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    if first >> 6 != 2 {
        return None;
    }
    let fixed = RTP_FIXED_BYTES.checked_add(usize::from(first & 0x0f).checked_mul(4)?)?;
    if first & 0x10 == 0 {
        return (fixed <= packet.len()).then_some(fixed);
    }
    let [_, _, w0, w1] = *packet.get(fixed..)?.first_chunk::<4>()?;
    let words = usize::from(u16::from_be_bytes([w0, w1]));
    let total = fixed.checked_add(4)?.checked_add(words.checked_mul(4)?)?;
    (total <= packet.len()).then_some(total)
}

fn sequence_and_ssrc(packet: &[u8]) -> Option<(u16, u32)> {
    let [_, _, q0, q1, _, _, _, _, s0, s1, s2, s3] = *packet.first_chunk::<RTP_FIXED_BYTES>()?;
    Some((u16::from_be_bytes([q0, q1]), u32::from_be_bytes([s0, s1, s2, s3])))
}

/// Room that sealing RTP needs behind a packet.
pub(crate) const TAG_BYTES_MAX: usize = 16;
const RTP_FIXED_BYTES: usize = 12;
/// Header and sender SSRC of an RTCP compound stay readable (RFC 3711 section 3.4).
const RTCP_CLEAR_BYTES: usize = 8;
const RTCP_INDEX_MAX: u32 = 0x7fff_ffff;
/// The E flag before the index.
const ENCRYPTED: u32 = 0x8000_0000;

#[cfg(test)]
mod tests;
