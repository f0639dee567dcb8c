//! What host applications ask of rooms, in the model's words.
//!
//! The doors decode, check grants and encode; whoever implements [`RoomApi`] knows neither HTTP nor protobuf.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use plenary_model::{
    Admin, AdminRefusal, Ban, Codec, Egress, EgressId, EgressStatus, Identity, NodeId, NodeInfo, Participant, RoomInfo,
    RoomName,
};
use plenary_protocol::livekit;

use crate::egress::{EgressAsk, PathError};

/// The rooms behind the doors. Calls may come from any thread; a future stays on the thread that asked.
pub trait RoomApi: Send + Sync {
    fn call(&self, call: RoomCall) -> LocalBoxFuture<'_, Result<RoomReply, ApiError>>;

    /// What publishers may send in any of them.
    fn codecs(&self) -> &[Codec];
}

/// One call, its grants already checked.
#[derive(Debug, Clone, PartialEq)]
pub enum RoomCall {
    /// Makes the room or updates its settings; answered by `Room`.
    CreateRoom(CreateRoom),
    /// Answered by `Rooms`: those of these names, or all where `None`.
    ListRooms { names: Option<Vec<RoomName>> },
    /// Answered by `Done`.
    DeleteRoom { room: RoomName },
    /// Answered by `Room`.
    SetMetadata { room: RoomName, metadata: String },
    /// Answered by `Participants`.
    ListParticipants { room: RoomName },
    /// Answered by `Participant`.
    GetParticipant { room: RoomName, identity: Identity },
    /// Answered by `Participant` where it is about one that is still there, else by `Done`.
    Admin { room: RoomName, what: Admin },
    /// Refuses this person's tokens for the room that were issued before a moment, and ends the session one of them began.
    /// Answered by `Done`, whether or not anybody is there.
    Revoke { room: RoomName, identity: Identity, issued_before_unix_s: u64 },
    /// Keeps somebody out, of one room or of all, whatever their token. Answered by `Done`.
    Ban { room: Option<RoomName>, identity: Identity, until_unix_s: u64 },
    /// Ends ban and revocation of this room, or those of all rooms. Answered by `Done`.
    LiftBan { room: Option<RoomName>, identity: Identity },
    /// Answered by `Bans`: those of a room, or all.
    ListBans { room: Option<RoomName> },
    /// Has something recorded. Answered by `Egress`.
    StartEgress(EgressAsk),
    /// Answered by `Egress`.
    StopEgress { egress: EgressId },
    /// Answered by `Egress`.
    UpdateLayout { egress: EgressId, layout: String },
    /// Answered by `Egresses`: those of a room, one of them, those that are not over, or all.
    ListEgress { room: Option<RoomName>, egress: Option<EgressId>, active: bool },
    /// Has the people of this node go to others. Answered by `Done` as soon as it begins.
    Drain,
    /// Takes people here again. Answered by `Done`.
    Undrain,
    /// How this node sees itself and the others. Answered by `Node`.
    DescribeNode,
}

/// A node and its cluster as the node sees them.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView {
    pub node: NodeId,
    /// Why it takes nobody now, in one word.
    pub unready: Option<&'static str>,
    pub rooms: usize,
    pub sessions: usize,
    pub routers: Vec<RouterView>,
    /// The others whose lease runs.
    pub others: Vec<NodeInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterView {
    pub transports: u64,
    pub tracks: u64,
    pub subscriptions: u64,
    /// Usable links to other routers.
    pub links: u64,
    /// Of the link that was measured last.
    pub link_rtt_us: u64,
    /// Streams that this router wants of others.
    pub pulled_streams: u64,
    /// Tracks that others want of this one.
    pub wanted_tracks: u64,
    /// Streams that others want and that do not cross, since a link has no room for them.
    pub withheld_streams: u64,
}

/// Fields that are `None` stay as they are, or get the configured default in a new room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateRoom {
    pub name: RoomName,
    pub metadata: Option<String>,
    pub empty_timeout_s: Option<u32>,
    pub departure_timeout_s: Option<u32>,
    pub max_participants: Option<u32>,
    /// What a new room records by itself.
    pub auto_egress: Bytes,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RoomReply {
    Done,
    Room(RoomInfo),
    Rooms(Vec<RoomInfo>),
    Participant(Arc<Participant>),
    Participants(Vec<Arc<Participant>>),
    Bans(Vec<Ban>),
    Egress(Arc<Egress>),
    Egresses(Vec<Arc<Egress>>),
    Node(NodeView),
}

/// Why a call was not carried out. The texts go to host applications, whose SDKs know some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    #[error("requested room does not exist")]
    NoSuchRoom,
    #[error("participant does not exist")]
    NoSuchParticipant,
    #[error("track is not found")]
    NoSuchTrack,
    #[error("remote unmute not enabled")]
    RemoteUnmuteDisabled,
    #[error("metadata or attributes exceed their limit")]
    TooLarge,
    #[error("there is no such ban")]
    NoSuchBan,
    #[error("that is too far ahead, or over already (times are Unix seconds)")]
    BadTime,
    #[error("there are as many bans as there may be")]
    TooManyBans,
    #[error("this node has as many rooms as it may")]
    TooManyRooms,
    #[error("egress does not exist")]
    NoSuchEgress,
    #[error("egress with status {} cannot be stopped", livekit::egress_status(*.0).as_str_name())]
    EgressNotStopped(EgressStatus),
    #[error("egress with status {} cannot be updated", livekit::egress_status(*.0).as_str_name())]
    EgressNotUpdated(EgressStatus),
    #[error("only the recording of a room has a layout")]
    NoLayout,
    #[error("there are as many recordings as there may be")]
    TooManyEgresses,
    #[error("this server records nothing: recording.directory is not set")]
    NothingRecorded,
    #[error(transparent)]
    BadPath(PathError),
    #[error("this node is alone: its people have nowhere to go")]
    Alone,
    #[error("the room did not answer in time")]
    Timeout,
    #[error("the node cannot serve this now")]
    Unavailable,
    /// Something of ours went wrong; the log says what.
    #[error("internal error")]
    Fault,
}

impl From<AdminRefusal> for ApiError {
    fn from(refusal: AdminRefusal) -> Self {
        match refusal {
            AdminRefusal::NoSuchRoom => Self::NoSuchRoom,
            AdminRefusal::NoSuchParticipant => Self::NoSuchParticipant,
            AdminRefusal::NoSuchTrack => Self::NoSuchTrack,
            AdminRefusal::RemoteUnmuteDisabled => Self::RemoteUnmuteDisabled,
            AdminRefusal::TooLarge => Self::TooLarge,
        }
    }
}
