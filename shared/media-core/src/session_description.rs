//! The content of negotiation in dual-transport mode: offers and answers in, offers and answers out, and what was
//! agreed in plain values. A publisher transport answers the client's offers ([`PublisherSdp`]), a subscriber transport
//! makes offers ([`SubscriberSdp`]).
//!
//! The parser is our own because a description is lines and we need some thirty attributes of them: it borrows from the
//! text, has its limits before its loops, and meets unknown lines with silence. (`rtc::sdp` owns every line as a
//! `String`, refuses descriptions for lines we do not read, has no limits, and would still leave every attribute's value
//! to us. It is the second opinion in the tests.)
//!
//! Never here: randomness, sockets, what a track is worth. A refused description changes nothing, so the next one is
//! judged against the last that was accepted.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod codec;
mod parse;
mod publisher;
mod section;
mod subscriber;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use codec::SendCodec;
pub(crate) use publisher::{PublisherAnswer, PublisherSdp};
pub(crate) use section::{Extensions, ReceiveSection};
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
        Self { bytes: 1 << 20, sections: SECTIONS_MAX }
    }
}

/// Our side of a transport, as it is written into every section.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalParameters<'a> {
    /// Codecs that an answer agrees to in no section.
    pub(crate) refused_codecs: &'a [plenary_model::Codec],
    /// The credentials in use.
    pub(crate) ice: &'a IceCredentials,
    /// Those to use from now on if the client restarts ICE.
    pub(crate) restart: &'a IceCredentials,
    /// SHA-256 of our certificate, `AA:BB:…`.
    pub(crate) fingerprint: &'a str,
    /// Values of `a=`, each starting with `candidate:`.
    pub(crate) candidates: &'a [String],
    pub(crate) limits: SdpLimits,
}

/// Most sections of the offers we write. A track beyond waits until a section is free.
const SECTIONS_MAX: usize = 512;
