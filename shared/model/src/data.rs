//! Messages between participants over data channels.

use bytes::Bytes;

use crate::{DataTrackSid, Encryption, Identity, ParticipantSid};

/// Which data channel of a peer, by its label on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// `_reliable`: ordered.
    Reliable,
    /// `_lossy`: unordered, no retransmission.
    Lossy,
    /// `_data_track`: like lossy, own framing.
    DataTrack,
}

/// A message on its way through a room: already stamped with its sender, the payload opaque.
#[derive(Debug, Clone, PartialEq)]
pub struct DataMessage {
    pub channel: Channel,
    pub to: Destination,
    /// The encoded message as every receiver gets it.
    pub payload: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    Everybody,
    Identities(Vec<Identity>),
    Sids(Vec<ParticipantSid>),
}

/// A stream of data frames as its publisher announced it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataTrack {
    pub sid: DataTrackSid,
    /// By which the publisher's packets name it; never 0.
    pub handle: u16,
    /// Unique among the publisher's.
    pub name: String,
    pub encryption: Encryption,
    /// How frames are encoded, in the wire's words: passed on unread.
    pub format: Bytes,
}
