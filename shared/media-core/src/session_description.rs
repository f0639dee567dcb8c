//! The content of negotiation in dual-PeerConnection mode: what an offer or answer says, and what ours say.
//!
//! Who may offer and when is decided elsewhere. Own line reader: an SDP is lines, we need some thirty attributes, and the
//! caps on size, lines and sections must come before anything is built from a hostile text.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod codec;
mod description;
mod publisher;
mod subscriber;
mod write;

pub(crate) use codec::{Payload, SendCodec};
pub(crate) use publisher::{PublisherAnswer, PublisherSdp, ReceiveSection};
pub(crate) use subscriber::{SendSection, SendTrack, SubscriberSdp};

use crate::IceCredentials;

/// Caps on what a client may describe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SdpLimits {
    pub bytes: usize,
    pub sections: usize,
}

impl Default for SdpLimits {
    fn default() -> Self {
        Self { bytes: 1 << 20, sections: 512 }
    }
}

/// What our descriptions say about our end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalParameters<'a> {
    pub(crate) ice: &'a IceCredentials,
    /// Used instead if the client restarts ICE.
    pub(crate) restart: &'a IceCredentials,
    /// SHA-256 in upper-case pairs with colons.
    pub(crate) fingerprint: &'a str,
    /// Values of candidate attributes.
    pub(crate) candidates: &'a [String],
    pub(crate) limits: SdpLimits,
}

/// Header extensions by their id on one transport (RFC 8285).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extensions {
    pub(crate) mid: Option<u8>,
    pub(crate) rid: Option<u8>,
    pub(crate) repaired_rid: Option<u8>,
    pub(crate) transport_sequence: Option<u8>,
    pub(crate) audio_level: Option<u8>,
    /// How a phone is held; passed on, or its video arrives on its side.
    pub(crate) orientation: Option<u8>,
}

impl Extensions {
    fn slot(&mut self, uri: &str) -> Option<&mut Option<u8>> {
        Some(match uri {
            uri::MID => &mut self.mid,
            uri::RID => &mut self.rid,
            uri::REPAIRED_RID => &mut self.repaired_rid,
            uri::TRANSPORT_SEQUENCE => &mut self.transport_sequence,
            uri::AUDIO_LEVEL => &mut self.audio_level,
            uri::ORIENTATION => &mut self.orientation,
            _ => return None,
        })
    }

    fn lines(&self) -> impl Iterator<Item = (u8, &'static str)> {
        [
            (self.mid, uri::MID),
            (self.rid, uri::RID),
            (self.repaired_rid, uri::REPAIRED_RID),
            (self.transport_sequence, uri::TRANSPORT_SEQUENCE),
            (self.audio_level, uri::AUDIO_LEVEL),
            (self.orientation, uri::ORIENTATION),
        ]
        .into_iter()
        .filter_map(|(id, uri)| Some((id?, uri)))
    }
}

mod uri {
    pub(super) const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
    pub(super) const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
    pub(super) const REPAIRED_RID: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";
    pub(super) const TRANSPORT_SEQUENCE: &str =
        "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
    pub(super) const ORIENTATION: &str = "urn:3gpp:video-orientation";
    pub(super) const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
}

/// RFC 8841 6: what we take in one message.
pub(crate) const MESSAGE_BYTES_MAX: usize = 65_535;

#[cfg(test)]
mod tests;
