//! The words Plenary is written in: ids and value types, and no logic.
//!
//! Wire types (protobuf, JSON, SDP) are converted to these at one module per door; the cores speak nothing else.
#![forbid(unsafe_code)]

mod admin;
mod ban;
mod codec;
mod data;
mod egress;
mod ids;
mod node;
mod participant;
mod records;
mod room;
mod track;
mod word;

pub use admin::{Admin, AdminRefusal, ParticipantUpdate};
pub use ban::{Ban, BanEntry};
pub use codec::Codec;
pub use data::{Channel, DataMessage, DataTrack, Destination};
pub use egress::{
    Egress, EgressFile, EgressFileKind, EgressMedia, EgressOutput, EgressRequest, EgressRequestKind, EgressSource,
    EgressStatus,
};
pub use ids::{
    DataTrackSid, EgressId, Identity, InvalidName, NAME_BYTES_MAX, NodeId, ParticipantSid, PeerId, RoomName, RoomSid,
    TrackSid,
};
pub use node::{NodeInfo, NodeState, RouterInfo};
pub use participant::{
    Admitted, AdmittedTracks, Audience, ConnectionQuality, LeaveAction, LeaveReason, Participant, ParticipantKind,
    ParticipantState, Permission, QualityScore, Receiver, Version,
};
pub use records::{Departed, Record, RoomChange, RoomDelta, RoomSnapshot};
pub use room::RoomInfo;
pub use track::{
    AudioFeature, BackupCodecPolicy, Encryption, IceServer, Layer, LayerMode, MediaKind, Quality, Source, SpeakerLevel,
    SubscriptionSettings, Target, Track, TrackCodec, TrailerFeature,
};
pub use word::{BlobAnswer, RoomWord};
