//! The model's values as `proto/plenary/v1/cluster.proto` writes them, and back. Whatever comes from Redis is checked again:
//! others may write there.

mod recorded;
mod said;

use std::sync::Arc;

use plenary_model as model;
use plenary_model::{Identity, RoomName};

use crate::{Changed, Happening as Told};

#[expect(clippy::all, reason = "generated")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/plenary.v1.rs"));
}

pub(super) use generated::*;

/// What was read makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it cannot be read")]
pub struct Unreadable;

pub type Read<T> = Result<T, Unreadable>;

pub(super) fn decode<T: prost::Message + Default>(bytes: &[u8]) -> Read<T> {
    T::decode(bytes).map_err(|_| Unreadable)
}

/// None where nothing is traced, or it cannot be what it shall be.
fn trace(parent: String) -> Option<String> {
    Some(parent).filter(|parent| (1..=TRACE_BYTES_MAX).contains(&parent.len()))
}

/// Four times what the standard's present version has (W3C Trace Context, 3.2).
const TRACE_BYTES_MAX: usize = 220;

pub(super) fn identity(text: &str) -> Read<Identity> {
    Identity::try_from(text).map_err(|_| Unreadable)
}

pub(super) fn room_name(text: &str) -> Read<RoomName> {
    RoomName::try_from(text).map_err(|_| Unreadable)
}

/// Two closed enums, value by value.
macro_rules! same {
    ($wire:ty, $model:ty: $($value:ident),+ $(,)?) => {
        impl From<$model> for $wire {
            fn from(value: $model) -> Self {
                match value { $(<$model>::$value => <$wire>::$value),+ }
            }
        }

        impl From<$wire> for $model {
            fn from(value: $wire) -> Self {
                match value { $(<$wire>::$value => <$model>::$value),+ }
            }
        }
    };
}

fn number<W: From<M> + Into<i32>, M>(value: M) -> i32 {
    W::from(value).into()
}

/// What a newer node wrote and this one does not know becomes the first of its kind.
fn value<W: TryFrom<i32> + Default + Into<M>, M>(number: i32) -> M {
    W::try_from(number).unwrap_or_default().into()
}

/// None for what a newer node wrote and this one does not know.
fn known<W: TryFrom<i32> + Into<M>, M>(number: i32) -> Option<M> {
    W::try_from(number).ok().map(Into::into)
}

/// Of an unknown kind no more is promised than of any.
fn channel(number: i32) -> model::Channel {
    Channel::try_from(number).unwrap_or(Channel::Lossy).into()
}

pub(super) fn leave_reason(number: i32) -> model::LeaveReason {
    value::<LeaveReason, _>(number)
}

same!(participant::State, model::ParticipantState: Joining, Joined, Active, Disconnected);
same!(participant::Kind, model::ParticipantKind: Standard, Ingress, Egress, Sip, Agent, Connector, Bridge);
same!(
    LeaveReason,
    model::LeaveReason: Unknown,
    ClientInitiated,
    DuplicateIdentity,
    ServerShutdown,
    ParticipantRemoved,
    RoomDeleted,
    RoomClosed,
    StateMismatch,
    JoinFailure,
    SignalClose,
    ConnectionTimeout,
    Migration,
    MediaFailure,
);
same!(Source, model::Source: Unknown, Camera, Microphone, ScreenShare, ScreenShareAudio);
same!(
    track::AudioFeature,
    model::AudioFeature: Stereo,
    NoDtx,
    AutoGainControl,
    EchoCancellation,
    NoiseSuppression,
    EnhancedNoiseCancellation,
    PreconnectBuffer,
);
same!(track::TrailerFeature, model::TrailerFeature: UserTimestamp, FrameId, UserData);
same!(Encryption, model::Encryption: None, Gcm, Custom);
same!(layer::Quality, model::Quality: Low, Medium, High, Off);
same!(
    track_codec::LayerMode,
    model::LayerMode: Unused,
    OneSpatialLayerPerStream,
    MultipleSpatialLayersPerStream,
);
same!(track::BackupCodecPolicy, model::BackupCodecPolicy: PreferRegression, Simulcast, Regression);
same!(egress::Status, model::EgressStatus: Starting, Active, Ending, Complete, Failed, Aborted, LimitReached);
same!(egress::Media, model::EgressMedia: Both, AudioOnly, VideoOnly);
same!(egress::FileKind, model::EgressFileKind: AsPublished, Mp4, Ogg, Mp3);
same!(egress::RequestKind, model::EgressRequestKind: Unified, RoomComposite, Participant, TrackComposite, Track);
same!(node_info::State, model::NodeState: Serving, Draining, Full);
same!(Channel, model::Channel: Reliable, Lossy, DataTrack);

impl From<&model::Record> for Record {
    fn from(record: &model::Record) -> Self {
        Self {
            participant: Some((&record.participant).into()),
            generation: record.generation,
            node: record.node.to_string(),
            version: record.participant.version,
        }
    }
}

impl TryFrom<Record> for model::Record {
    type Error = Unreadable;

    fn try_from(record: Record) -> Read<Self> {
        let participant = record.participant.ok_or(Unreadable)?;
        let participant = participant.into_model(record.version)?;
        Ok(Self { participant, generation: record.generation, node: record.node.into() })
    }
}

pub(super) fn record(bytes: &[u8]) -> Read<Arc<model::Record>> {
    model::Record::try_from(decode::<Record>(bytes)?).map(Arc::new)
}

impl From<&model::Participant> for Participant {
    fn from(from: &model::Participant) -> Self {
        Self {
            sid: from.sid.to_string(),
            identity: from.identity.to_string(),
            name: from.name.clone(),
            metadata: from.metadata.clone(),
            attributes: from.attributes.clone(),
            state: number::<participant::State, _>(from.state),
            kind: number::<participant::Kind, _>(from.kind),
            permission: Some((&from.permission).into()),
            tracks: from.tracks.iter().map(Into::into).collect(),
            data_tracks: from.data_tracks.iter().map(Into::into).collect(),
            audience: audience(&from.audience),
            joined_at_ms: from.joined_at_ms,
            is_publisher: from.is_publisher,
            leave_reason: LeaveReason::from(from.leave_reason).into(),
            client_protocol: from.client_protocol,
            capabilities: from.capabilities.clone(),
        }
    }
}

impl Participant {
    pub(super) fn into_model(self, version: u32) -> Read<model::Participant> {
        Ok(model::Participant {
            sid: self.sid.into(),
            identity: identity(&self.identity)?,
            name: self.name,
            metadata: self.metadata,
            attributes: self.attributes,
            state: value::<participant::State, _>(self.state),
            kind: value::<participant::Kind, _>(self.kind),
            permission: self.permission.ok_or(Unreadable)?.into(),
            tracks: self.tracks.into_iter().map(Into::into).collect(),
            data_tracks: self.data_tracks.into_iter().map(TryInto::try_into).collect::<Read<_>>()?,
            audience: self.audience.map_or(Ok(model::Audience::Everybody), TryInto::try_into)?,
            joined_at_ms: self.joined_at_ms,
            version,
            is_publisher: self.is_publisher,
            leave_reason: leave_reason(self.leave_reason),
            client_protocol: self.client_protocol,
            capabilities: self.capabilities,
        })
    }
}

impl From<&model::Permission> for Permission {
    fn from(from: &model::Permission) -> Self {
        Self {
            can_subscribe: from.can_subscribe,
            can_publish: from.can_publish,
            can_publish_data: from.can_publish_data,
            can_publish_sources: from.can_publish_sources.iter().map(|one| Source::from(*one).into()).collect(),
            can_update_metadata: from.can_update_metadata,
            can_subscribe_metrics: from.can_subscribe_metrics,
            hidden: from.hidden,
            recorder: from.recorder,
            agent: from.agent,
        }
    }
}

impl From<Permission> for model::Permission {
    fn from(from: Permission) -> Self {
        Self {
            can_subscribe: from.can_subscribe,
            can_publish: from.can_publish,
            can_publish_data: from.can_publish_data,
            can_publish_sources: from.can_publish_sources.into_iter().map(value::<Source, _>).collect(),
            can_update_metadata: from.can_update_metadata,
            can_subscribe_metrics: from.can_subscribe_metrics,
            hidden: from.hidden,
            recorder: from.recorder,
            agent: from.agent,
        }
    }
}

/// Unset stands for everybody.
fn audience(from: &model::Audience) -> Option<Audience> {
    let model::Audience::Only(admitted) = from else { return None };
    let one = |one: &model::Admitted| {
        let (all_tracks, tracks) = match &one.tracks {
            model::AdmittedTracks::All => (true, Vec::new()),
            model::AdmittedTracks::These(tracks) => (false, tracks.iter().map(ToString::to_string).collect()),
        };
        let who = match &one.who {
            model::Receiver::Identity(identity) => admitted::Who::Identity(identity.to_string()),
            model::Receiver::Sid(sid) => admitted::Who::Sid(sid.to_string()),
        };
        Admitted { who: Some(who), all_tracks, tracks }
    };
    Some(Audience { admitted: admitted.iter().map(one).collect() })
}

impl TryFrom<Audience> for model::Audience {
    type Error = Unreadable;

    fn try_from(from: Audience) -> Read<Self> {
        let one = |one: Admitted| {
            let who = match one.who.ok_or(Unreadable)? {
                admitted::Who::Identity(text) => model::Receiver::Identity(identity(&text)?),
                admitted::Who::Sid(sid) => model::Receiver::Sid(sid.into()),
            };
            let tracks = match one.all_tracks {
                true => model::AdmittedTracks::All,
                false => model::AdmittedTracks::These(one.tracks.into_iter().map(Into::into).collect()),
            };
            Ok(model::Admitted { who, tracks })
        };
        Ok(Self::Only(from.admitted.into_iter().map(one).collect::<Read<_>>()?))
    }
}

impl From<&model::Track> for Track {
    fn from(from: &model::Track) -> Self {
        Self {
            sid: from.sid.to_string(),
            is_video: from.kind == model::MediaKind::Video,
            source: Source::from(from.source).into(),
            name: from.name.clone(),
            muted: from.muted,
            width: from.width,
            height: from.height,
            simulcast: from.simulcast,
            stream: from.stream.clone(),
            mime: from.mime.clone(),
            mid: from.mid.clone(),
            codecs: from.codecs.iter().map(Into::into).collect(),
            layers: from.layers.iter().map(Into::into).collect(),
            encryption: number::<Encryption, _>(from.encryption),
            disable_red: from.disable_red,
            audio_features: from.audio_features.iter().map(|one| track::AudioFeature::from(*one).into()).collect(),
            trailer_features: from
                .trailer_features
                .iter()
                .map(|one| track::TrailerFeature::from(*one).into())
                .collect(),
            backup_codec_policy: number::<track::BackupCodecPolicy, _>(from.backup_codec_policy),
            version_unix_micros: from.version.unix_micros,
            version_ticks: from.version.ticks,
        }
    }
}

impl From<Track> for model::Track {
    fn from(from: Track) -> Self {
        Self {
            sid: from.sid.into(),
            kind: if from.is_video { model::MediaKind::Video } else { model::MediaKind::Audio },
            source: value::<Source, _>(from.source),
            name: from.name,
            muted: from.muted,
            width: from.width,
            height: from.height,
            simulcast: from.simulcast,
            stream: from.stream,
            mime: from.mime,
            mid: from.mid,
            codecs: from.codecs.into_iter().map(Into::into).collect(),
            layers: from.layers.into_iter().map(Into::into).collect(),
            encryption: value::<Encryption, _>(from.encryption),
            disable_red: from.disable_red,
            audio_features: from.audio_features.into_iter().filter_map(known::<track::AudioFeature, _>).collect(),
            trailer_features: from.trailer_features.into_iter().filter_map(known::<track::TrailerFeature, _>).collect(),
            backup_codec_policy: value::<track::BackupCodecPolicy, _>(from.backup_codec_policy),
            version: model::Version { unix_micros: from.version_unix_micros, ticks: from.version_ticks },
        }
    }
}

impl From<&model::TrackCodec> for TrackCodec {
    fn from(from: &model::TrackCodec) -> Self {
        Self {
            mime: from.mime.clone(),
            mid: from.mid.clone(),
            cid: from.cid.clone(),
            layers: from.layers.iter().map(Into::into).collect(),
            layer_mode: number::<track_codec::LayerMode, _>(from.layer_mode),
        }
    }
}

impl From<TrackCodec> for model::TrackCodec {
    fn from(from: TrackCodec) -> Self {
        Self {
            mime: from.mime,
            mid: from.mid,
            cid: from.cid,
            layers: from.layers.into_iter().map(Into::into).collect(),
            layer_mode: value::<track_codec::LayerMode, _>(from.layer_mode),
        }
    }
}

impl From<&model::Layer> for Layer {
    fn from(from: &model::Layer) -> Self {
        Self {
            quality: number::<layer::Quality, _>(from.quality),
            width: from.width,
            height: from.height,
            bitrate_bps: from.bitrate_bps,
            ssrc: from.ssrc,
            spatial_layer: from.spatial_layer.into(),
            rid: from.rid.clone(),
        }
    }
}

impl From<Layer> for model::Layer {
    fn from(from: Layer) -> Self {
        Self {
            quality: value::<layer::Quality, _>(from.quality),
            width: from.width,
            height: from.height,
            bitrate_bps: from.bitrate_bps,
            ssrc: from.ssrc,
            spatial_layer: u8::try_from(from.spatial_layer).unwrap_or(u8::MAX),
            rid: from.rid,
        }
    }
}

impl From<&model::DataTrack> for DataTrack {
    fn from(from: &model::DataTrack) -> Self {
        Self {
            sid: from.sid.to_string(),
            handle: from.handle.into(),
            name: from.name.clone(),
            encryption: number::<Encryption, _>(from.encryption),
            format: from.format.clone(),
        }
    }
}

impl TryFrom<DataTrack> for model::DataTrack {
    type Error = Unreadable;

    fn try_from(from: DataTrack) -> Read<Self> {
        Ok(Self {
            sid: from.sid.into(),
            handle: u16::try_from(from.handle).map_err(|_| Unreadable)?,
            name: from.name,
            encryption: value::<Encryption, _>(from.encryption),
            format: from.format,
        })
    }
}

impl TryFrom<RoomInfo> for model::RoomInfo {
    type Error = Unreadable;

    fn try_from(from: RoomInfo) -> Read<Self> {
        Ok(Self {
            sid: from.sid.into(),
            name: room_name(&from.name)?,
            created_at_ms: from.created_at_ms,
            metadata: from.metadata,
            empty_timeout_s: from.empty_timeout_s,
            departure_timeout_s: from.departure_timeout_s,
            max_participants: from.max_participants,
            participants: from.participants,
            publishers: from.publishers,
            active_recording: from.active_recording,
            has_active_egress: from.has_active_egress,
            auto_egress: from.auto_egress,
        })
    }
}

pub(super) fn room_info(bytes: &[u8]) -> Read<model::RoomInfo> {
    decode::<RoomInfo>(bytes)?.try_into()
}

pub(super) fn room_delta(bytes: &[u8]) -> Read<model::RoomDelta> {
    let delta: RoomDelta = decode(bytes)?;
    let change = match delta.change.ok_or(Unreadable)? {
        room_delta::Change::Put(record) => model::RoomChange::Put(Arc::new(record.try_into()?)),
        room_delta::Change::Removed(gone) => model::RoomChange::Removed {
            identity: identity(&gone.identity)?,
            sid: gone.sid.into(),
            generation: gone.generation,
            reason: leave_reason(gone.reason),
        },
        room_delta::Change::Meta(info) => model::RoomChange::Meta(info.try_into()?),
        room_delta::Change::Closed(reason) => model::RoomChange::Closed { reason: leave_reason(reason) },
    };
    Ok(model::RoomDelta { view: delta.view, seq: delta.seq, change, trace: trace(delta.trace_parent) })
}

pub(super) fn happening(bytes: &[u8]) -> Read<Told> {
    let from: Happening = decode(bytes)?;
    let seated = |record: Option<Record>| record.map(|record| record.try_into().map(Arc::new)).transpose();
    let (reason, turn) = (leave_reason(from.reason), from.turn());
    if turn == happening::Turn::Recorded {
        let egress = Arc::new(from.egress.ok_or(Unreadable)?.try_into()?);
        return Ok(Told { room: from.room.ok_or(Unreadable)?.try_into()?, what: Changed::Egress(egress) });
    }
    let what = match (turn, seated(from.before)?, seated(from.after)?) {
        (happening::Turn::Started, None, None) => Changed::Started,
        (happening::Turn::Finished, None, None) => Changed::Finished { reason },
        (happening::Turn::None, before, after) => Changed::Seat { before, after, reason },
        _ => return Err(Unreadable),
    };
    Ok(Told { room: from.room.ok_or(Unreadable)?.try_into()?, what })
}

pub(super) fn egress(bytes: &[u8]) -> Read<model::Egress> {
    decode::<Egress>(bytes)?.try_into()
}

impl From<&model::BanEntry> for BanEntry {
    fn from(from: &model::BanEntry) -> Self {
        Self {
            identity: from.identity.to_string(),
            room: from.room.as_ref().map(ToString::to_string),
            tokens_before_unix_s: from.tokens_before_unix_s,
            revoked_until_unix_s: from.revoked_until_unix_s,
            banned_until_unix_s: from.banned_until_unix_s,
            version: from.version,
        }
    }
}

pub(super) fn ban_entry(bytes: &[u8]) -> Read<model::BanEntry> {
    let from: BanEntry = decode(bytes)?;
    Ok(model::BanEntry {
        identity: identity(&from.identity)?,
        room: from.room.as_deref().map(room_name).transpose()?,
        banned_until_unix_s: from.banned_until_unix_s,
        tokens_before_unix_s: from.tokens_before_unix_s,
        revoked_until_unix_s: from.revoked_until_unix_s,
        version: from.version,
    })
}

impl From<&model::NodeInfo> for NodeInfo {
    fn from(from: &model::NodeInfo) -> Self {
        let router = |router: &model::RouterInfo| node_info::Router {
            boot: router.boot,
            addresses: router.addresses.iter().map(ToString::to_string).collect(),
        };
        Self {
            node: from.node.to_string(),
            version: from.version.clone(),
            state: number::<node_info::State, _>(from.state),
            routers: from.routers.iter().map(router).collect(),
            records: from.records,
        }
    }
}

impl From<NodeInfo> for model::NodeInfo {
    fn from(from: NodeInfo) -> Self {
        let router = |router: node_info::Router| model::RouterInfo {
            boot: router.boot,
            // An address that this version cannot read is one it cannot use.
            addresses: router.addresses.iter().filter_map(|address| address.parse().ok()).collect(),
        };
        Self {
            node: from.node.into(),
            version: from.version,
            state: value::<node_info::State, _>(from.state),
            routers: from.routers.into_iter().map(router).collect(),
            records: from.records,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracks_features_come_back_and_those_of_newer_nodes_are_passed_over() {
        let written = Track {
            audio_features: vec![0, 1, 2, 3, 4, 5, 6, 77],
            trailer_features: vec![2, 0, 1, 77],
            ..Track::default()
        };
        let read = Track::from(&model::Track::from(written));
        assert_eq!((read.audio_features, read.trailer_features), (vec![0, 1, 2, 3, 4, 5, 6], vec![2, 0, 1]));
    }
}
