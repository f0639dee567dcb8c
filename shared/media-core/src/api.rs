//! What goes into a [`Router`](crate::Router) and what comes out.
//!
//! One router runs on one media thread. It is told what shall be (`Command`), fed datagrams, and says what happened
//! (`Event`) and what must be sent (`Transmit`). It owns no socket, thread or clock.

use std::{net::SocketAddr, time::Instant};

use bytes::Bytes;
use plenary_model::{
    Channel, Codec, MediaKind, NodeId, ParticipantSid, PeerId, Source, SubscriptionSettings, Target, TrackSid,
};

/// The way between one socket of ours and one address of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Path {
    pub protocol: Protocol,
    pub remote: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    Udp,
    /// ICE-TCP; frames are cut and framed (RFC 4571) outside.
    Tcp,
}

/// Everything that can happen to a router besides time.
#[derive(Debug)]
pub enum Input<'a> {
    /// One datagram or one TCP frame. Decrypted in place.
    Datagram {
        path: Path,
        /// When it came to the socket, which may be before the present turn but not after it. What measures the network
        /// goes by this, everything else by `now`.
        received: Instant,
        bytes: &'a mut [u8],
    },
    /// The TCP connection of this path is gone.
    PathClosed {
        path: Path,
    },
    Command(Command),
}

/// ICE user fragment and password of one side of one transport (RFC 8445 5.3), made by the caller: the core draws no
/// randomness. A ufrag is unique per transport *and* restart.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    pub ufrag: String,
    pub pwd: String,
}

impl std::fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceCredentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// What shall be. Commands about a peer that is gone are ignored.
#[derive(Debug)]
pub enum Command {
    /// A new transport. `Publisher` answers the client's offers, `Subscriber` makes offers.
    Open {
        peer: PeerId,
        participant: ParticipantSid,
        target: Target,
        ice: IceCredentials,
        options: PeerOptions,
    },
    Close {
        peer: PeerId,
    },
    /// The client's offer on a publisher transport, with the tracks it announced and that no section carries yet.
    /// Answered by [`Event::Answered`] or [`Event::Refused`]. `restart` is used if the offer restarts ICE.
    Offer {
        peer: PeerId,
        sdp: String,
        announced: Vec<Announced>,
        restart: IceCredentials,
    },
    /// Make the next offer of a subscriber transport from what is wanted now. Yields [`Event::Offered`].
    MakeOffer {
        peer: PeerId,
        restart: Option<IceCredentials>,
    },
    /// The client's answer to the offer in flight. Yields [`Event::Accepted`] or [`Event::Refused`].
    Answer {
        peer: PeerId,
        sdp: String,
    },
    /// The whole set of tracks a subscriber transport shall carry. New ones flow after the next offer and answer;
    /// settings take effect at once. Yields [`Event::OfferNeeded`] when sections must change.
    Want {
        peer: PeerId,
        tracks: Vec<Wanted>,
    },
    /// Record this track: [`Router::poll_tapped`](crate::Router::poll_tapped) brings it from then on, until it is untapped or its
    /// publisher ends it.
    Tap {
        track: TrackSid,
        /// The router where it is published; none is this one. See [`Wanted::from`].
        from: Option<RouterId>,
    },
    /// Whoever records this track cannot go on without a key frame.
    RefreshTap {
        track: TrackSid,
    },
    Untap {
        track: TrackSid,
    },
    /// Stop or resume forwarding of a published track; subscriptions stay.
    SetMuted {
        track: TrackSid,
        muted: bool,
    },
    /// The track is gone whatever the SDP says (permission withdrawn, unpublished by the API).
    Unpublish {
        track: TrackSid,
    },
    /// The whole set of other media routers that may be spoken to. A link to one begins when something is wanted from it, or
    /// when it asks. Without [`LinkConfig`] ignored.
    SetNeighbours {
        routers: Vec<Neighbour>,
    },
    /// Whether this node reaches what the nodes share: said to the others over every link.
    SetReachesStore {
        reaches: bool,
    },
    /// Has the node of another router told this over the link to it, opened if need be. [`Event::LetterTold`] says when it has it; there
    /// it may come twice, as [`Event::LetterCame`]. Given up after three seconds. `number`: what no other letter of this node has.
    WriteLetter {
        to: RouterId,
        number: u64,
        letter: Bytes,
    },
    /// A ceiling on the downstream estimate of a subscriber transport; 0 lifts it.
    CapBandwidth {
        peer: PeerId,
        bits_per_second: u64,
    },
    /// Send one message on a data channel of each peer. Reliable messages over the limit close the peer, lossy are dropped.
    Send {
        peers: Vec<PeerId>,
        channel: Channel,
        payload: Bytes,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerOptions {
    /// Open the three data channels ourselves (a subscriber transport that is the client's primary).
    pub open_channels: bool,
    /// Offer no UDP candidates.
    pub tcp_only: bool,
    /// Pause video for this subscriber when the estimate is too low (`subscriber_allow_pause`).
    pub allow_pause: bool,
    /// This subscriber takes packet trailers off itself (`CAP_PACKET_TRAILER`).
    pub takes_trailers: bool,
    /// Codecs that answers to this publisher agree to nowhere.
    pub refused_codecs: Vec<Codec>,
}

/// A track that a participant announced (AddTrack) and whose section is to be found in the next offer.
#[derive(Debug, Clone, PartialEq)]
pub struct Announced {
    pub track: TrackSid,
    pub kind: MediaKind,
    pub source: Source,
    /// The client's track ids that may stand in `a=msid`, one per codec.
    pub cids: Vec<String>,
    /// Codec the publisher wants first, such as `video/vp8`; empty leaves the order of the offer.
    pub codec: String,
    pub stereo: bool,
    pub dtx: bool,
    pub red: bool,
    pub encrypted: bool,
    /// Its frames end in packet trailers.
    pub trailers: bool,
    /// Layer sizes low to high, for layer choice by tile size.
    pub layers: Vec<LayerSize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSize {
    /// `q`, `h`, `f`, or empty for a single stream.
    pub rid: String,
    pub width: u32,
    pub height: u32,
    pub bitrate_bps: u32,
}

/// One track a subscriber shall receive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub track: TrackSid,
    /// What the client sees it called: the track that this is a codec of. A set holds each name once, and a section that
    /// carried one of its codecs goes on with the next.
    pub shown: TrackSid,
    /// Whose it is: goes into the stream id `PA_…|TR_…`, from which clients find the participant.
    pub publisher: ParticipantSid,
    /// The router where it is published; none is this one. Such a track need not be known yet: it is asked for there, and
    /// the subscription goes on once it is told of.
    pub from: Option<RouterId>,
    pub settings: SubscriptionSettings,
}

/// What came of a recorded track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tapped {
    pub track: TrackSid,
    pub item: TapItem,
}

/// A stream as one encoder might have sent it, whatever layers it is made of: numbers run on, and what is missing between
/// them may still come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TapItem {
    Packet {
        /// Another one when the track comes anew.
        ssrc: u32,
        sequence: u16,
        /// In units of the codec's clock.
        timestamp: u32,
        marker: bool,
        /// Without padding. Empty if the number was taken and nothing else sent.
        payload: Bytes,
        received: Instant,
    },
    /// A sender report: at `ntp`, 32.32 fixed point on the publisher's clock, the stream stood at `rtp`.
    Report { ntp: u64, rtp: u32, received: Instant },
}

/// One media router of one life of one node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouterId {
    pub node: NodeId,
    /// Another with each start of the node.
    pub boot: u64,
    /// Which of the node's.
    pub index: u16,
}

/// Another router, and where it may be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    pub id: RouterId,
    pub addresses: Vec<SocketAddr>,
}

/// A track on a link.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Crossing {
    /// At the other end.
    pub router: RouterId,
    pub track: TrackSid,
    /// Bit n: its nth stream.
    pub streams: u8,
}

/// What a router needs to speak to others.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkConfig {
    pub me: RouterId,
    /// Secrets of the cluster. What is signed with any of them is good, the first signs.
    pub keys: Vec<Vec<u8>>,
    /// What goes to one router of another node, at most; 0 is no limit.
    pub bits_per_second_max: u64,
}

impl std::fmt::Debug for LinkConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkConfig").field("me", &self.me).finish_non_exhaustive()
    }
}

/// A section of the publisher's SDP that was matched to an announced track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub track: TrackSid,
    pub mid: String,
    /// Such as `video/VP8`.
    pub mime: String,
    /// The track id the client wrote, which may differ from the announced one.
    pub cid: String,
}

/// What happened. Events of one peer come in order.
#[derive(Debug)]
pub enum Event {
    Answered {
        peer: PeerId,
        sdp: String,
        published: Vec<Published>,
        gone: Vec<TrackSid>,
    },
    Offered {
        peer: PeerId,
        sdp: String,
    },
    Accepted {
        peer: PeerId,
    },
    Refused {
        peer: PeerId,
        why: Refusal,
    },
    /// The subscriber's sections must change before what it wants can flow.
    OfferNeeded {
        peer: PeerId,
    },
    /// ICE has a path to a client that was described: DTLS begins. Comes once, before [`Event::Connected`].
    IceConnected {
        peer: PeerId,
    },
    /// ICE and DTLS are up for the first time.
    Connected {
        peer: PeerId,
    },
    ChannelOpen {
        peer: PeerId,
        channel: Channel,
    },
    /// A message from a client's data channel.
    Data {
        peer: PeerId,
        channel: Channel,
        payload: Bytes,
    },
    /// This router and that one hear each other.
    LinkUp {
        router: RouterId,
    },
    /// They do not any more. What is wanted from there is still wanted.
    LinkDown {
        router: RouterId,
        why: LinkEnd,
    },
    /// What the node of another router says of itself, first and when it changes. With [`Event::LinkDown`] it ends.
    NeighbourReachesStore {
        router: RouterId,
        reaches: bool,
    },
    /// Another node has this from ours.
    LetterTold {
        number: u64,
    },
    /// What another node has ours told.
    LetterCame {
        letter: Bytes,
    },
    /// Whether tracks of another router that are wanted here can be had, by the link to it or through a third router. Said when
    /// they cannot, and when they could again, wanted or not, or it is no neighbour any more.
    RouterReached {
        router: RouterId,
        is_reached: bool,
    },
    /// First RTP of a track that is published here came in.
    FirstPacketIn {
        peer: PeerId,
        track: TrackSid,
    },
    /// First RTP of this track went out to this subscriber.
    FirstPacketOut {
        peer: PeerId,
        track: TrackSid,
    },
    /// The subscriber's client cannot decode this track's codec.
    Undecodable {
        peer: PeerId,
        track: TrackSid,
    },
    /// Allocation paused (`true`) or resumed (`false`) a subscribed video.
    Paused {
        peer: PeerId,
        track: TrackSid,
        paused: bool,
    },
    /// The highest spatial layer of a published video that somebody here wants, counted from the lowest; none if nobody
    /// wants any. Until the first of these nobody does.
    Demand {
        peer: PeerId,
        track: TrackSid,
        top: Option<u8>,
    },
    /// How well media gets through between this peer and us, as a mean opinion score of 1 to 4.5, when it has changed; 0
    /// when nothing is heard of the client any more. Until the first a transport counts as good.
    Quality {
        peer: PeerId,
        score: f32,
    },
    /// Loudness of published audio over the last window, for tracks that had packets or fell silent.
    Levels {
        levels: Vec<TrackLevel>,
    },
    /// ICE heard nothing for the disconnect time; the transport may still come back.
    Closed {
        peer: PeerId,
        why: PeerEnd,
    },
}

/// One track's audio in the last 400 ms window.
#[derive(Debug, Clone, PartialEq)]
pub struct TrackLevel {
    pub participant: ParticipantSid,
    pub track: TrackSid,
    /// Linear amplitude 0.0 to 1.0, smoothed.
    pub level: f32,
    pub active: bool,
}

/// Why a transport ended: log field, metric label and test assertion at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerEnd {
    /// Told to.
    Asked,
    IceTimeout,
    /// ICE never connected in time.
    NeverConnected,
    DtlsFailed,
    WrongFingerprint,
    SctpFailed,
    /// The reliable channel's buffer is over its limit.
    SlowReceiver,
    /// Something of ours went wrong (a panic caught at the peer's border).
    Fault,
}

/// Why a link is not usable any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkEnd {
    /// Nothing is heard of the other side.
    Silent,
    /// The other side says that it does not hear us.
    Unheard,
    /// It said that it ends.
    Bye,
    /// Nothing was asked over it any more, either way. It is opened again when something is.
    Idle,
    /// It is not among the neighbours any more.
    Removed,
}

/// Why an SDP was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("SDP is {bytes} bytes, at most {limit}")]
    SdpTooLarge { bytes: usize, limit: usize },
    #[error("SDP has {sections} sections, at most {limit}")]
    TooManySections { sections: usize, limit: usize },
    #[error("SDP cannot be read: {0}")]
    Malformed(&'static str),
    #[error("section order or kinds differ from the previous description")]
    SectionsChanged,
    #[error("no usable {0}")]
    Missing(&'static str),
    #[error("no offer is waiting for an answer")]
    NotExpected,
}

/// Bytes to send: one datagram, or with `segment_bytes` a run of datagrams of that size for one destination (only the
/// last may be shorter), which a socket with UDP GSO sends in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit<'a> {
    pub path: Path,
    pub bytes: &'a [u8],
    pub segment_bytes: Option<usize>,
}

/// Why the router wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Deadline {
    Dtls,
    Sctp,
    Ice,
    Feedback,
    Nack,
    Reports,
    Levels,
    Allocation,
    Probe,
    Pacing,
    Link,
}

/// Every way for something received to be refused without an answer, counted by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    UnknownProtocol,
    UnknownUfrag,
    UnknownAddress,
    StunMalformed,
    StunNotAuthenticated,
    DtlsNotValidated,
    DtlsMalformed,
    NotConnected,
    RtpMalformed,
    RtcpMalformed,
    SrtpNotAuthentic,
    SrtpReplayed,
    SrtcpNotAuthentic,
    TooManySsrcs,
    UnknownStream,
    UnknownPayloadType,
    SctpGuard,
    DcepMalformed,
    MessageTooLarge,
    TooMuchData,
    LossyBacklog,
    UnknownChannel,
    QueueFull,
    TooManyAddresses,
    RtpPaddingLie,
    TooOld,
    Duplicate,
    /// A NACK for what was never sent, or too long ago.
    NackUnknown,
    /// A NACK for what this router misses itself: it is asked for or repaired where it got lost, and goes on when it comes.
    NackAwaited,
    /// A NACK for what was repaired within the last round trip.
    NackRepeated,
    /// A NACK beyond what may be repaired per second.
    NackOverBudget,
    /// Of a link, where none is configured.
    LinkDisabled,
    LinkMalformed,
    LinkNotAuthentic,
    LinkReplayed,
    /// From or to a router that is not known.
    LinkUnknownRouter,
    LinkUnknownSession,
    LinkUnknownStream,
    LinkVersion,
    /// More tracks wanted or told of than a link has room for.
    LinkOverLimit,
}

impl DropReason {
    pub const COUNT: usize = Self::ALL.len();
    /// In the order of their numbers.
    pub const ALL: [Self; 40] = [
        Self::UnknownProtocol,
        Self::UnknownUfrag,
        Self::UnknownAddress,
        Self::StunMalformed,
        Self::StunNotAuthenticated,
        Self::DtlsNotValidated,
        Self::DtlsMalformed,
        Self::NotConnected,
        Self::RtpMalformed,
        Self::RtcpMalformed,
        Self::SrtpNotAuthentic,
        Self::SrtpReplayed,
        Self::SrtcpNotAuthentic,
        Self::TooManySsrcs,
        Self::UnknownStream,
        Self::UnknownPayloadType,
        Self::SctpGuard,
        Self::DcepMalformed,
        Self::MessageTooLarge,
        Self::TooMuchData,
        Self::LossyBacklog,
        Self::UnknownChannel,
        Self::QueueFull,
        Self::TooManyAddresses,
        Self::RtpPaddingLie,
        Self::TooOld,
        Self::Duplicate,
        Self::NackUnknown,
        Self::NackAwaited,
        Self::NackRepeated,
        Self::NackOverBudget,
        Self::LinkDisabled,
        Self::LinkMalformed,
        Self::LinkNotAuthentic,
        Self::LinkReplayed,
        Self::LinkUnknownRouter,
        Self::LinkUnknownSession,
        Self::LinkUnknownStream,
        Self::LinkVersion,
        Self::LinkOverLimit,
    ];
}
