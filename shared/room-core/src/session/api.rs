//! Everything that can happen to a session and everything that can follow.

use std::time::Duration;

use bytes::Bytes;
use plenary_model::{
    Channel, Codec, IceServer, LeaveReason, MediaKind, ParticipantSid, SubscriptionSettings, Target, Track, TrackSid,
};

use crate::{
    notice::{Notice, Request, Welcome},
    signal::{ClientData, ClientSignal, ServerSignal},
};

/// What a session begins with: the token's and the query's word, and the room at the moment of joining.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    pub welcome: Welcome,
    /// The client's announced `protocol`.
    pub protocol: u32,
    pub auto_subscribe: bool,
    pub adaptive_stream: bool,
    pub allow_pause: bool,
    pub unfit: UnfitCodecs,
    /// Seeds track sids and the first offer id; drawn by the shell.
    pub seed: u64,
    /// Unix microseconds at `now`, for track versions.
    pub unix_micros: i64,
    pub ice_servers: Vec<IceServer>,
}

/// Codecs that clients of a kind are known to break on, whatever their descriptions say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnfitCodecs {
    pub publishing: Vec<Codec>,
    pub receiving: Vec<Codec>,
}

#[derive(Debug)]
pub enum Input {
    /// From the client's signalling socket.
    Signal(ClientSignal),
    /// The socket is gone; the resume window opens.
    SocketLost,
    /// A new socket of the same participant (same token identity and room) took over.
    Resumed { protocol: u32, ice_servers: Vec<IceServer> },
    /// From the media router, about this session's own transports.
    Media(MediaEvent),
    /// From the room.
    Notice(Notice),
    /// A data-channel message of the client, decoded and stamped by the door.
    Data(ClientData),
    /// A packet of one of the client's streams of data frames.
    DataFrame { packet: Bytes },
    /// The node is leaving; tell the client so.
    Shutdown { reconnect: bool },
    /// The node is drained: tell the client to start over, and keep everything until it does.
    Move,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// To the client, through its one ordered queue.
    Send(ServerSignal),
    /// Mint a token with the session's present claims and send it, in its place among the signals.
    RefreshToken,
    Ask(Request),
    Media(MediaCommand),
    /// Flush the queue, then close the socket.
    CloseSocket(SocketEnd),
    /// Something the client sent was refused without an answer; counted by name.
    Dropped(Dropped),
    /// The session is over: close its transports and forget it. Always the last output.
    End(LeaveReason),
}

/// Why something of the client's was dropped without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dropped {
    DataNotAllowed,
    DataRepeated,
    DataKindNotAllowed,
    DataBeforeOpen,
    StaleAnswer,
    TooManyWishes,
    /// The session ends with it.
    TooManyMessages,
    /// A data frame that names no stream of its sender's.
    DataFrameUnknown,
}

/// Why the server closes a signalling socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SocketEnd {
    /// The client said leave, or was told to.
    Left,
    /// Asked for by the client's test scenario.
    Simulated,
    TooManyMessages,
    /// Nothing was heard for the ping timeout.
    Silent,
    /// A newer socket took its place.
    Replaced,
    /// The node is leaving or the room ended it.
    Ended,
    /// The client is on its way to another node.
    Moved,
}

/// What a session wants of its two transports. The shell adds ids and credentials.
#[derive(Debug, Clone, PartialEq)]
pub enum MediaCommand {
    Open {
        target: Target,
        open_channels: bool,
        allow_pause: bool,
        /// Not to be agreed to with the client's offers.
        refused_codecs: Vec<Codec>,
    },
    Close {
        target: Target,
    },
    Offer {
        sdp: String,
        announced: Vec<Announced>,
    },
    MakeOffer {
        restart_ice: bool,
    },
    Answer {
        sdp: String,
    },
    /// The whole set of tracks the subscriber transport shall carry.
    Want {
        tracks: Vec<Wanted>,
    },
    SetMuted {
        track: TrackSid,
        muted: bool,
    },
    Unpublish {
        track: TrackSid,
    },
    Send {
        target: Target,
        channel: Channel,
        payload: Bytes,
    },
    /// Caps the downstream estimate; 0 lifts the cap.
    CapBandwidth {
        bits_per_second: u64,
    },
}

/// A track in one codec, the first of `track.codecs`.
#[derive(Debug, Clone, PartialEq)]
pub struct Announced {
    /// Under the media engine's name for this codec.
    pub track: Track,
    pub cids: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The media engine's name: the track, or its backup.
    pub track: TrackSid,
    /// What the client knows it by: the track.
    pub shown: TrackSid,
    pub kind: MediaKind,
    pub publisher: ParticipantSid,
    pub settings: SubscriptionSettings,
}

/// What the media router reports about this session's transports. Tracks have the media engine's names: a track's own, or
/// its backup's.
#[derive(Debug, Clone, PartialEq)]
pub enum MediaEvent {
    Answered {
        sdp: String,
        published: Vec<Published>,
        gone: Vec<TrackSid>,
    },
    Offered {
        sdp: String,
    },
    Accepted,
    Refused {
        target: Target,
    },
    OfferNeeded,
    Connected {
        target: Target,
    },
    ChannelOpen {
        target: Target,
        channel: Channel,
    },
    /// First packet of a subscribed track went out.
    Bound {
        track: TrackSid,
    },
    Undecodable {
        track: TrackSid,
    },
    Paused {
        track: TrackSid,
        paused: bool,
    },
    /// The highest spatial layer of one of this session's videos that somebody wants, from the lowest; none if nobody does.
    Demand {
        track: TrackSid,
        top: Option<u8>,
    },
    /// How well media gets through one transport, as a mean opinion score; 0 when nothing is heard any more.
    Quality {
        target: Target,
        score: f32,
    },
    Closed {
        target: Target,
        reason: LeaveReason,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub track: TrackSid,
    pub mid: String,
    pub mime: String,
    pub cid: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub ping_interval: Duration,
    /// Silence on the socket after which it counts as lost.
    pub ping_timeout: Duration,
    /// From join until the primary transport must be connected.
    pub join_timeout: Duration,
    /// How long a session without a socket stays while its media lives.
    pub resume_window: Duration,
    /// How long it stays when media is gone too.
    pub detached_timeout: Duration,
    pub negotiation_timeout: Duration,
    pub offer_debounce: Duration,
    pub quality_interval: Duration,
    pub refresh_interval: Duration,
    /// How long an announced track may wait for its section.
    pub announced_timeout: Duration,
    /// How long a wish for an unknown track waits before it fails.
    pub not_found_timeout: Duration,
    /// Codecs that are taken from publishers, the preferred one first; a video codec and Opus at least.
    pub codecs: Vec<Codec>,
    pub tracks_max: usize,
    pub announced_max: usize,
    pub metadata_bytes_max: usize,
    pub attributes_bytes_max: usize,
    pub name_bytes_max: usize,
    /// Signal messages per window, and their burst. Sixteen candidates count as one.
    pub messages_per_window: u32,
    pub messages_window: Duration,
    pub messages_burst: u32,
}

/// Why a session wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Deadline {
    Join,
    PingTimeout,
    Resume,
    Move,
    Negotiation,
    Debounce,
    Quality,
    Refresh,
    Announced,
    NotFound,
    NoBackup,
    Demand,
}
