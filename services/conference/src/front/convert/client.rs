//! What a client says, as the session's signals.

use bytes::Bytes;
use livekit_protocol as pb;
use pb::signal_request;
use plenary_model::{
    Admitted, AdmittedTracks, Audience, AudioFeature, Identity, Receiver, SubscriptionSettings, Target, TrackSid,
};
use plenary_protocol::livekit;
use plenary_room_core::signal::{AddTrack, ClientSignal, DataWish, PublishDataTrack, Scenario, SyncState};
use prost::Message as _;

pub(super) fn client_signal(message: signal_request::Message) -> ClientSignal {
    use signal_request::Message;
    match message {
        Message::Offer(offer) => ClientSignal::Offer { sdp: offer.sdp, id: offer.id },
        Message::Answer(answer) => ClientSignal::Answer { sdp: answer.sdp, id: answer.id },
        Message::Trickle(trickle) => ClientSignal::Trickle {
            target: if trickle.target == pb::SignalTarget::Subscriber as i32 {
                Target::Subscriber
            } else {
                Target::Publisher
            },
            bytes: trickle.candidate_init.len(),
        },
        Message::AddTrack(ask) => add_track(ask).map_or(ClientSignal::Ignored, ClientSignal::AddTrack),
        Message::Mute(mute) => ClientSignal::Mute { track: mute.sid.into(), muted: mute.muted },
        Message::Subscription(wish) => {
            let (tracks, subscribe) = subscription(wish);
            ClientSignal::Subscription { tracks, subscribe }
        }
        Message::TrackSetting(setting) => ClientSignal::TrackSetting {
            tracks: sids(setting.track_sids),
            settings: SubscriptionSettings {
                disabled: setting.disabled,
                quality: livekit::quality_from(setting.quality),
                width: setting.width,
                height: setting.height,
                fps: setting.fps,
                priority: setting.priority,
            },
        },
        Message::Leave(leave) => ClientSignal::Leave {
            reason: livekit::leave_reason_from(leave.reason),
            action: livekit::leave_action_from(leave.action),
        },
        Message::SyncState(state) => ClientSignal::SyncState(SyncState {
            published: state.publish_tracks.into_iter().filter_map(|one| one.track).map(|one| one.sid.into()).collect(),
            subscription: state.subscription.map(subscription),
            disabled: sids(state.track_sids_disabled),
        }),
        Message::Simulate(simulate) => simulate.scenario.map_or(ClientSignal::Ignored, scenario),
        Message::Ping(timestamp_ms) => ClientSignal::Ping { timestamp_ms },
        Message::PingReq(ping) => ClientSignal::PingReq { timestamp_ms: ping.timestamp, rtt_ms: ping.rtt },
        Message::UpdateMetadata(update) => ClientSignal::UpdateMetadata {
            request_id: update.request_id,
            name: update.name,
            metadata: update.metadata,
            attributes: update.attributes.into_iter().collect(),
        },
        Message::UpdateAudioTrack(update) => ClientSignal::UpdateAudioTrack {
            track: update.track_sid.into(),
            features: update.features.into_iter().filter_map(livekit::audio_feature_from).collect(),
        },
        Message::UpdateVideoTrack(update) => ClientSignal::UpdateVideoTrack {
            track: update.track_sid.into(),
            width: update.width,
            height: update.height,
        },
        Message::PublishDataTrackRequest(ask) => ClientSignal::PublishDataTrack(publish_data_track(ask)),
        Message::UnpublishDataTrackRequest(ask) => ClientSignal::UnpublishDataTrack { handle: ask.pub_handle },
        Message::UpdateDataSubscription(wish) => ClientSignal::DataSubscription {
            updates: wish
                .updates
                .into_iter()
                .map(|update| DataWish {
                    track: update.track_sid.into(),
                    subscribe: update.subscribe,
                    fps: update.options.and_then(|options| options.target_fps).unwrap_or_default(),
                })
                .collect(),
        },
        Message::StoreDataBlobRequest(ask) => {
            let pb::DataBlob { key, contents } = ask.blob.unwrap_or_default();
            ClientSignal::StoreBlob { request_id: ask.request_id, key: blob_key(key), contents: contents.into() }
        }
        Message::GetDataBlobRequest(ask) => ClientSignal::GetBlob {
            request_id: ask.request_id,
            owner: ask.participant_identity,
            key: blob_key(ask.key),
        },
        Message::SubscriptionPermission(permission) => ClientSignal::Audience(audience(permission)),
        #[allow(deprecated)]
        Message::UpdateLayers(_) => ClientSignal::Ignored,
    }
}

/// What describes the frames is kept as it came.
fn publish_data_track(ask: pb::PublishDataTrackRequest) -> PublishDataTrack {
    let pb::PublishDataTrackRequest { pub_handle, name, encryption, frame_encoding, schema } = ask;
    let format = pb::DataTrackInfo { frame_encoding, schema, ..pb::DataTrackInfo::default() };
    PublishDataTrack {
        handle: pub_handle,
        name,
        encryption: livekit::encryption_from(encryption),
        format: format.encode_to_vec().into(),
    }
}

/// Two keys are the same if they are written the same.
fn blob_key(key: Option<pb::DataBlobKey>) -> Bytes {
    key.unwrap_or_default().encode_to_vec().into()
}

#[allow(deprecated)]
fn add_track(ask: pb::AddTrackRequest) -> Option<AddTrack> {
    let mut audio_features: Vec<_> = ask.audio_features.into_iter().filter_map(livekit::audio_feature_from).collect();
    // Older clients say these two by flag.
    for (flag, feature) in [(ask.stereo, AudioFeature::Stereo), (ask.disable_dtx, AudioFeature::NoDtx)] {
        if flag && !audio_features.contains(&feature) {
            audio_features.push(feature);
        }
    }
    let mut trailer_features = Vec::new();
    for feature in ask.packet_trailer_features.into_iter().filter_map(livekit::trailer_feature_from) {
        if !trailer_features.contains(&feature) {
            trailer_features.push(feature);
        }
    }
    Some(AddTrack {
        cid: ask.cid,
        existing: (!ask.sid.is_empty()).then(|| ask.sid.into()),
        name: ask.name,
        kind: livekit::media_kind_from(ask.r#type)?,
        source: livekit::source_from(ask.source),
        width: ask.width,
        height: ask.height,
        muted: ask.muted,
        disable_red: ask.disable_red,
        stream: ask.stream,
        layers: ask.layers.iter().map(livekit::video_layer_from).collect(),
        codecs: ask.simulcast_codecs.into_iter().map(|codec| (codec.codec, codec.cid)).collect(),
        encryption: livekit::encryption_from(ask.encryption),
        audio_features,
        trailer_features,
        backup_codec_policy: livekit::backup_codec_policy_from(ask.backup_codec_policy),
    })
}

fn subscription(wish: pb::UpdateSubscription) -> (Vec<TrackSid>, bool) {
    let of_participants = wish.participant_tracks.into_iter().flat_map(|one| one.track_sids);
    (sids(wish.track_sids.into_iter().chain(of_participants)), wish.subscribe)
}

fn audience(permission: pb::SubscriptionPermission) -> Audience {
    if permission.all_participants {
        return Audience::Everybody;
    }
    // An entry that names nobody admits nobody.
    let admitted = |one: pb::TrackPermission| {
        let who = if one.participant_identity.is_empty() {
            Receiver::Sid(one.participant_sid.into())
        } else {
            Receiver::Identity(Identity::try_from(&*one.participant_identity).ok()?)
        };
        let tracks = if one.all_tracks { AdmittedTracks::All } else { AdmittedTracks::These(sids(one.track_sids)) };
        Some(Admitted { who, tracks })
    };
    Audience::Only(permission.track_permissions.into_iter().filter_map(admitted).collect())
}

fn sids(texts: impl IntoIterator<Item = String>) -> Vec<TrackSid> {
    texts.into_iter().map(TrackSid::from).collect()
}

fn scenario(scenario: pb::simulate_scenario::Scenario) -> ClientSignal {
    use pb::simulate_scenario::Scenario as Wire;
    ClientSignal::Simulate(match scenario {
        Wire::SpeakerUpdate(seconds) => Scenario::SpeakerUpdate { seconds: u32::try_from(seconds).unwrap_or_default() },
        Wire::NodeFailure(_) => Scenario::NodeFailure,
        Wire::Migration(_) => Scenario::Migration,
        Wire::ServerLeave(_) => Scenario::ServerLeave,
        Wire::SwitchCandidateProtocol(protocol) => {
            Scenario::SwitchCandidateProtocol { tcp: protocol != pb::CandidateProtocol::Udp as i32 }
        }
        Wire::SubscriberBandwidth(rate) => {
            Scenario::SubscriberBandwidth { bits_per_second: u64::try_from(rate).unwrap_or_default() }
        }
        Wire::DisconnectSignalOnResume(_) => Scenario::DisconnectSignalOnResume,
        Wire::DisconnectSignalOnResumeNoMessages(_) => Scenario::DisconnectSignalOnResumeNoMessages,
        Wire::LeaveRequestFullReconnect(_) => Scenario::LeaveRequestFullReconnect,
    })
}
