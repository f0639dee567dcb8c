//! Model values as LiveKit's wire types, and back.
//!
//! One function per value and direction. What the wire can say and the model cannot is an `Option`; an enum number
//! from a newer client falls back to the value named "unknown" or "none", never to a right.

mod egress;
mod encoding;

use livekit_protocol as pb;
use plenary_model::{
    AudioFeature, BackupCodecPolicy, Codec, ConnectionQuality, DataTrack, Encryption, Layer, LayerMode, LeaveAction,
    LeaveReason, MediaKind, Participant, ParticipantKind, ParticipantState, Permission, Quality, RoomInfo, Source,
    Track, TrackCodec, TrailerFeature, Version,
};
use prost::Message as _;

pub use self::{
    egress::{egress_info, egress_status},
    encoding::{Encoding, NotEncoded, encoding},
};

/// A participant with everything that is public about it.
pub fn participant_info(participant: &Participant) -> pb::ParticipantInfo {
    let ended = participant.state == ParticipantState::Disconnected;
    let reason = if ended { disconnect_reason(participant.leave_reason) } else { pb::DisconnectReason::UnknownReason };
    pb::ParticipantInfo {
        sid: participant.sid.to_string(),
        identity: participant.identity.to_string(),
        state: participant_state(participant.state) as i32,
        tracks: participant.tracks.iter().map(track_info).collect(),
        data_tracks: participant.data_tracks.iter().map(data_track_info).collect(),
        metadata: participant.metadata.clone(),
        joined_at: signed(participant.joined_at_ms / 1000),
        joined_at_ms: signed(participant.joined_at_ms),
        name: participant.name.clone(),
        version: participant.version,
        permission: Some(participant_permission(&participant.permission)),
        is_publisher: participant.is_publisher,
        kind: participant_kind(participant.kind) as i32,
        attributes: participant.attributes.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        disconnect_reason: reason as i32,
        client_protocol: participant.client_protocol,
        capabilities: participant.capabilities.clone(),
        ..pb::ParticipantInfo::default()
    }
}

/// A stream of data frames, with the description of its frames as the publisher wrote it.
pub fn data_track_info(track: &DataTrack) -> pb::DataTrackInfo {
    let format = pb::DataTrackInfo::decode(track.format.clone()).unwrap_or_default();
    pb::DataTrackInfo {
        pub_handle: track.handle.into(),
        sid: track.sid.to_string(),
        name: track.name.clone(),
        encryption: encryption_type(track.encryption) as i32,
        frame_encoding: format.frame_encoding,
        schema: format.schema,
    }
}

/// A publication. Older clients read the deprecated members, so they say the same as the new ones.
#[allow(deprecated)]
pub fn track_info(track: &Track) -> pb::TrackInfo {
    pb::TrackInfo {
        sid: track.sid.to_string(),
        r#type: track_type(track.kind) as i32,
        name: track.name.clone(),
        muted: track.muted,
        width: track.width,
        height: track.height,
        simulcast: track.simulcast,
        disable_dtx: track.audio_features.contains(&AudioFeature::NoDtx),
        source: track_source(track.source) as i32,
        layers: track.layers.iter().map(video_layer).collect(),
        mime_type: track.mime.clone(),
        mid: track.mid.clone(),
        codecs: track.codecs.iter().map(simulcast_codec_info).collect(),
        stereo: track.audio_features.contains(&AudioFeature::Stereo),
        disable_red: track.disable_red,
        encryption: encryption_type(track.encryption) as i32,
        stream: track.stream.clone(),
        version: Some(timed_version(track.version)),
        audio_features: track.audio_features.iter().map(|one| audio_track_feature(*one) as i32).collect(),
        backup_codec_policy: backup_codec_policy(track.backup_codec_policy) as i32,
        packet_trailer_features: track.trailer_features.iter().map(|one| trailer_feature(*one) as i32).collect(),
    }
}

pub fn simulcast_codec_info(codec: &TrackCodec) -> pb::SimulcastCodecInfo {
    pb::SimulcastCodecInfo {
        mime_type: codec.mime.clone(),
        mid: codec.mid.clone(),
        cid: codec.cid.clone(),
        layers: codec.layers.iter().map(video_layer).collect(),
        video_layer_mode: layer_mode(codec.layer_mode) as i32,
        ..pb::SimulcastCodecInfo::default()
    }
}

pub fn video_layer(layer: &Layer) -> pb::VideoLayer {
    pb::VideoLayer {
        quality: video_quality(layer.quality) as i32,
        width: layer.width,
        height: layer.height,
        bitrate: layer.bitrate_bps,
        ssrc: layer.ssrc,
        spatial_layer: i32::from(layer.spatial_layer),
        rid: layer.rid.clone(),
        ..pb::VideoLayer::default()
    }
}

/// A layer as a publisher announces it. A spatial layer that no codec has becomes the lowest.
pub fn video_layer_from(layer: &pb::VideoLayer) -> Layer {
    Layer {
        quality: quality_from(layer.quality),
        width: layer.width,
        height: layer.height,
        bitrate_bps: layer.bitrate,
        ssrc: layer.ssrc,
        spatial_layer: u8::try_from(layer.spatial_layer).unwrap_or(0),
        rid: layer.rid.clone(),
    }
}

/// A room in which publishers may send these codecs.
pub fn room(info: &RoomInfo, codecs: &[Codec]) -> pb::Room {
    pb::Room {
        enabled_codecs: self::codecs(codecs),
        sid: info.sid.to_string(),
        name: info.name.to_string(),
        empty_timeout: info.empty_timeout_s,
        departure_timeout: info.departure_timeout_s,
        max_participants: info.max_participants,
        creation_time: signed(info.created_at_ms / 1000),
        creation_time_ms: signed(info.created_at_ms),
        metadata: info.metadata.clone(),
        num_participants: info.participants,
        num_publishers: info.publishers,
        active_recording: info.active_recording,
        ..pb::Room::default()
    }
}

/// As clients name them, the preferred one first.
pub fn codecs(codecs: &[Codec]) -> Vec<pb::Codec> {
    codecs.iter().map(|codec| pb::Codec { mime: codec.mime().to_owned(), fmtp_line: String::new() }).collect()
}

pub fn participant_permission(permission: &Permission) -> pb::ParticipantPermission {
    // The wire marks some of these as deprecated; clients still read them.
    #[allow(deprecated)]
    pb::ParticipantPermission {
        can_subscribe: permission.can_subscribe,
        can_publish: permission.can_publish,
        can_publish_data: permission.can_publish_data,
        can_publish_sources: permission.can_publish_sources.iter().map(|one| track_source(*one) as i32).collect(),
        hidden: permission.hidden,
        recorder: permission.recorder,
        can_update_metadata: permission.can_update_metadata,
        agent: permission.agent,
        can_subscribe_metrics: permission.can_subscribe_metrics,
        can_manage_agent_session: false,
    }
}

/// A permission as a host application sets it: every flag is said, none is taken over from before.
#[allow(deprecated)]
pub fn permission_from(permission: &pb::ParticipantPermission) -> Permission {
    Permission {
        can_subscribe: permission.can_subscribe,
        can_publish: permission.can_publish,
        can_publish_data: permission.can_publish_data,
        can_publish_sources: permission.can_publish_sources.iter().map(|one| source_from(*one)).collect(),
        can_update_metadata: permission.can_update_metadata,
        can_subscribe_metrics: permission.can_subscribe_metrics,
        hidden: permission.hidden,
        recorder: permission.recorder,
        agent: permission.agent,
    }
}

pub fn timed_version(version: Version) -> pb::TimedVersion {
    pb::TimedVersion { unix_micro: version.unix_micros, ticks: version.ticks }
}

/// Two enums that say the same: one function each way. Numbers the wire does not know become `$fallback`.
macro_rules! same_words {
    ($model:ident => $wire:path, $to:ident, $from:ident, else $fallback:ident { $($ours:ident = $theirs:ident),+ $(,)? }) => {
        pub fn $to(value: $model) -> $wire {
            use $wire as Wire;
            match value {
                $($model::$ours => Wire::$theirs,)+
            }
        }

        pub fn $from(number: i32) -> $model {
            use $wire as Wire;
            match Wire::try_from(number) {
                $(Ok(Wire::$theirs) => $model::$ours,)+
                _ => $model::$fallback,
            }
        }
    };
}

same_words!(ParticipantState => pb::participant_info::State, participant_state, participant_state_from, else Disconnected {
    Joining = Joining, Joined = Joined, Active = Active, Disconnected = Disconnected,
});
same_words!(ParticipantKind => pb::participant_info::Kind, participant_kind, participant_kind_from, else Standard {
    Standard = Standard, Ingress = Ingress, Egress = Egress, Sip = Sip, Agent = Agent, Connector = Connector, Bridge = Bridge,
});
same_words!(Source => pb::TrackSource, track_source, source_from, else Unknown {
    Unknown = Unknown, Camera = Camera, Microphone = Microphone, ScreenShare = ScreenShare,
    ScreenShareAudio = ScreenShareAudio,
});
same_words!(Quality => pb::VideoQuality, video_quality, quality_from, else High {
    Low = Low, Medium = Medium, High = High, Off = Off,
});
same_words!(Encryption => pb::encryption::Type, encryption_type, encryption_from, else Custom {
    None = None, Gcm = Gcm, Custom = Custom,
});
same_words!(BackupCodecPolicy => pb::BackupCodecPolicy, backup_codec_policy, backup_codec_policy_from, else PreferRegression {
    PreferRegression = PreferRegression, Simulcast = Simulcast, Regression = Regression,
});
same_words!(ConnectionQuality => pb::ConnectionQuality, connection_quality, connection_quality_from, else Poor {
    Lost = Lost, Poor = Poor, Good = Good, Excellent = Excellent,
});
same_words!(LeaveAction => pb::leave_request::Action, leave_action, leave_action_from, else Disconnect {
    Disconnect = Disconnect, Resume = Resume, Reconnect = Reconnect,
});
same_words!(LeaveReason => pb::DisconnectReason, disconnect_reason, leave_reason_from, else Unknown {
    Unknown = UnknownReason, ClientInitiated = ClientInitiated, DuplicateIdentity = DuplicateIdentity,
    ServerShutdown = ServerShutdown, ParticipantRemoved = ParticipantRemoved, RoomDeleted = RoomDeleted,
    RoomClosed = RoomClosed, StateMismatch = StateMismatch, JoinFailure = JoinFailure, SignalClose = SignalClose,
    ConnectionTimeout = ConnectionTimeout, Migration = Migration, MediaFailure = MediaFailure,
});

pub fn layer_mode(mode: LayerMode) -> pb::video_layer::Mode {
    use pb::video_layer::Mode;
    match mode {
        LayerMode::Unused => Mode::Unused,
        LayerMode::OneSpatialLayerPerStream => Mode::OneSpatialLayerPerStream,
        LayerMode::MultipleSpatialLayersPerStream => Mode::MultipleSpatialLayersPerStream,
    }
}

pub fn layer_mode_from(number: i32) -> LayerMode {
    use pb::video_layer::Mode;
    match Mode::try_from(number) {
        Ok(Mode::OneSpatialLayerPerStream | Mode::OneSpatialLayerPerStreamIncompleteRtcpSr) => {
            LayerMode::OneSpatialLayerPerStream
        }
        Ok(Mode::MultipleSpatialLayersPerStream) => LayerMode::MultipleSpatialLayersPerStream,
        Ok(Mode::Unused) | Err(_) => LayerMode::Unused,
    }
}

pub fn track_type(kind: MediaKind) -> pb::TrackType {
    match kind {
        MediaKind::Audio => pb::TrackType::Audio,
        MediaKind::Video => pb::TrackType::Video,
    }
}

/// `None` for data "tracks" and kinds of the future: they are no media.
pub fn media_kind_from(number: i32) -> Option<MediaKind> {
    match pb::TrackType::try_from(number) {
        Ok(pb::TrackType::Audio) => Some(MediaKind::Audio),
        Ok(pb::TrackType::Video) => Some(MediaKind::Video),
        _ => None,
    }
}

pub fn audio_track_feature(feature: AudioFeature) -> pb::AudioTrackFeature {
    use pb::AudioTrackFeature as Wire;
    match feature {
        AudioFeature::Stereo => Wire::TfStereo,
        AudioFeature::NoDtx => Wire::TfNoDtx,
        AudioFeature::AutoGainControl => Wire::TfAutoGainControl,
        AudioFeature::EchoCancellation => Wire::TfEchoCancellation,
        AudioFeature::NoiseSuppression => Wire::TfNoiseSuppression,
        AudioFeature::EnhancedNoiseCancellation => Wire::TfEnhancedNoiseCancellation,
        AudioFeature::PreconnectBuffer => Wire::TfPreconnectBuffer,
    }
}

/// `None` for a feature this server has not heard of.
pub fn audio_feature_from(number: i32) -> Option<AudioFeature> {
    use pb::AudioTrackFeature as Wire;
    Some(match Wire::try_from(number).ok()? {
        Wire::TfStereo => AudioFeature::Stereo,
        Wire::TfNoDtx => AudioFeature::NoDtx,
        Wire::TfAutoGainControl => AudioFeature::AutoGainControl,
        Wire::TfEchoCancellation => AudioFeature::EchoCancellation,
        Wire::TfNoiseSuppression => AudioFeature::NoiseSuppression,
        Wire::TfEnhancedNoiseCancellation => AudioFeature::EnhancedNoiseCancellation,
        Wire::TfPreconnectBuffer => AudioFeature::PreconnectBuffer,
    })
}

pub fn trailer_feature(feature: TrailerFeature) -> pb::PacketTrailerFeature {
    use pb::PacketTrailerFeature as Wire;
    match feature {
        TrailerFeature::UserTimestamp => Wire::PtfUserTimestamp,
        TrailerFeature::FrameId => Wire::PtfFrameId,
        TrailerFeature::UserData => Wire::PtfUserData,
    }
}

/// `None` for a feature this server has not heard of.
pub fn trailer_feature_from(number: i32) -> Option<TrailerFeature> {
    use pb::PacketTrailerFeature as Wire;
    Some(match Wire::try_from(number).ok()? {
        Wire::PtfUserTimestamp => TrailerFeature::UserTimestamp,
        Wire::PtfFrameId => TrailerFeature::FrameId,
        Wire::PtfUserData => TrailerFeature::UserData,
    })
}

/// Whether a client with these capabilities takes packet trailers off frames itself.
pub fn takes_trailers(capabilities: &[i32]) -> bool {
    capabilities.contains(&(pb::client_info::Capability::CapPacketTrailer as i32))
}

/// The wire counts time in signed numbers; a clock that far ahead stops at the end.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use plenary_model::{Identity, ParticipantSid, RoomName, RoomSid, TrackSid};

    use super::*;

    fn track() -> Track {
        let layer = Layer {
            quality: Quality::High,
            width: 1280,
            height: 720,
            bitrate_bps: 1_500_000,
            ssrc: 7,
            spatial_layer: 2,
            rid: "f".into(),
        };
        Track {
            sid: TrackSid::from("TR_1"),
            kind: MediaKind::Video,
            source: Source::ScreenShare,
            name: "slides".into(),
            muted: true,
            width: 1280,
            height: 720,
            simulcast: true,
            stream: "screen".into(),
            mime: "video/VP8".into(),
            mid: "3".into(),
            codecs: vec![TrackCodec {
                mime: "video/VP8".into(),
                mid: "3".into(),
                cid: "abc".into(),
                layers: vec![layer.clone()],
                layer_mode: LayerMode::OneSpatialLayerPerStream,
            }],
            layers: vec![layer],
            encryption: Encryption::Gcm,
            disable_red: true,
            audio_features: vec![AudioFeature::Stereo],
            trailer_features: vec![TrailerFeature::FrameId, TrailerFeature::UserData],
            backup_codec_policy: BackupCodecPolicy::Simulcast,
            version: Version { unix_micros: 5, ticks: 2 },
        }
    }

    fn participant() -> Participant {
        Participant {
            sid: ParticipantSid::from("PA_1"),
            identity: Identity::try_from("ann").unwrap(),
            name: "Ann".into(),
            metadata: "m".into(),
            attributes: BTreeMap::from([("k".into(), "v".into())]),
            state: ParticipantState::Active,
            kind: ParticipantKind::Agent,
            permission: Permission { hidden: true, ..Permission::default() },
            tracks: vec![track()],
            audience: plenary_model::Audience::default(),
            data_tracks: Vec::new(),
            joined_at_ms: 1_800_000_000_123,
            version: 9,
            is_publisher: true,
            leave_reason: LeaveReason::RoomDeleted,
            client_protocol: 2,
            capabilities: vec![1, 99],
        }
    }

    #[test]
    #[allow(deprecated)]
    fn a_participant_is_told_with_all_its_tracks() {
        let info = participant_info(&participant());
        assert_eq!((info.sid.as_str(), info.identity.as_str(), info.version), ("PA_1", "ann", 9));
        assert_eq!((info.joined_at, info.joined_at_ms), (1_800_000_000, 1_800_000_000_123));
        assert_eq!((info.kind, info.state), (4, 2));
        assert_eq!((info.client_protocol, info.capabilities), (2, vec![1, 99]));
        assert!(info.permission.is_some_and(|permission| permission.hidden && permission.can_publish));

        let track = info.tracks.first().expect("its track");
        assert_eq!((track.r#type, track.source, track.encryption), (1, 3, 1));
        assert!(track.muted && track.simulcast && track.stereo && track.disable_red && !track.disable_dtx);
        assert_eq!(track.packet_trailer_features, [1, 2]);
        assert_eq!(track.layers, track.codecs.first().expect("codec").layers);
        assert_eq!(video_layer_from(&track.layers[0]), self::track().layers[0]);
    }

    #[test]
    fn a_reason_to_leave_is_told_only_of_those_who_left() {
        assert_eq!(participant_info(&participant()).disconnect_reason, 0);
        let left = Participant { state: ParticipantState::Disconnected, ..participant() };
        assert_eq!(participant_info(&left).disconnect_reason, pb::DisconnectReason::RoomDeleted as i32);
    }

    #[test]
    fn a_permission_comes_back_as_it_went() {
        let permission = Permission {
            can_subscribe: false,
            can_publish_sources: vec![Source::Camera, Source::Microphone],
            can_update_metadata: true,
            recorder: true,
            ..Permission::default()
        };
        assert_eq!(permission_from(&participant_permission(&permission)), permission);
        let none = permission_from(&pb::ParticipantPermission::default());
        assert!(!none.can_publish && !none.can_subscribe && !none.can_publish_data);
    }

    #[test]
    fn a_room_is_told_with_its_age_and_its_codecs() {
        let info = RoomInfo {
            sid: RoomSid::from("RM_1"),
            name: RoomName::try_from("standup").unwrap(),
            created_at_ms: 1_800_000_000_999,
            metadata: "m".into(),
            empty_timeout_s: 300,
            departure_timeout_s: 20,
            max_participants: 5,
            participants: 3,
            publishers: 2,
            active_recording: true,
            has_active_egress: false,
            auto_egress: Default::default(),
        };
        let room = room(&info, &[Codec::Vp9, Codec::Opus]);
        assert_eq!(
            room.enabled_codecs.iter().map(|codec| codec.mime.as_str()).collect::<Vec<_>>(),
            ["video/VP9", "audio/opus"]
        );
        assert_eq!((room.creation_time, room.creation_time_ms), (1_800_000_000, 1_800_000_000_999));
        assert_eq!((room.num_participants, room.num_publishers, room.max_participants), (3, 2, 5));
        assert!(room.active_recording);
    }

    #[test]
    fn numbers_from_the_future_grant_nothing_and_break_nothing() {
        for number in [-1, 77, i32::MAX, i32::MIN] {
            assert_eq!(source_from(number), Source::Unknown);
            assert_eq!(participant_kind_from(number), ParticipantKind::Standard);
            assert_eq!(leave_reason_from(number), LeaveReason::Unknown);
            assert_eq!(media_kind_from(number), None);
            assert_eq!(audio_feature_from(number), None);
            assert_eq!(trailer_feature_from(number), None);
            assert!(!takes_trailers(&[number]));
            assert_eq!(encryption_from(number), Encryption::Custom, "an unknown cipher is still not clear text");
        }
        assert_eq!(media_kind_from(pb::TrackType::Data as i32), None);
    }

    #[test]
    fn every_reason_to_leave_keeps_its_name() {
        for reason in [LeaveReason::DuplicateIdentity, LeaveReason::StateMismatch, LeaveReason::MediaFailure] {
            assert_eq!(leave_reason_from(disconnect_reason(reason) as i32), reason);
        }
        assert_eq!(disconnect_reason(LeaveReason::RoomDeleted) as i32, 5);
        assert_eq!(disconnect_reason(LeaveReason::RoomClosed) as i32, 10);
    }
}
