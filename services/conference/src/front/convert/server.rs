//! The session's signals, as a client hears them.

use bytes::Bytes;
use livekit_protocol as pb;
use pb::{request_response::Request as PbRequest, signal_response::Message as Reply};
use plenary_model::{IceServer, TrackSid};
use plenary_protocol::livekit;
use plenary_room_core::signal::{
    About, DataHandle, Join, RequestOutcome, ServerSignal, SubscriptionFailure, WantedCodec,
};
use prost::Message as _;

use super::ServerIdentity;

pub(super) fn server_signal(signal: &ServerSignal, server: &ServerIdentity, now_unix_ms: i64) -> Reply {
    match signal {
        ServerSignal::Join(join) => Reply::Join(join_response(join, server)),
        ServerSignal::Reconnect { last_message_seq, ice_servers } => Reply::Reconnect(pb::ReconnectResponse {
            ice_servers: ice_servers.iter().map(ice_server).collect(),
            client_configuration: None,
            server_info: Some(server_info(server)),
            last_message_seq: *last_message_seq,
        }),
        ServerSignal::Answer { sdp, id } => Reply::Answer(description("answer", sdp, *id)),
        ServerSignal::Offer { sdp, id } => Reply::Offer(description("offer", sdp, *id)),
        ServerSignal::Update { participants } => {
            let participants = participants.iter().map(|who| livekit::participant_info(who)).collect();
            Reply::Update(pb::ParticipantUpdate { participants })
        }
        ServerSignal::TrackPublished { cid, track } => Reply::TrackPublished(pb::TrackPublishedResponse {
            cid: cid.clone(),
            track: Some(livekit::track_info(track)),
        }),
        ServerSignal::TrackUnpublished { track } => {
            Reply::TrackUnpublished(pb::TrackUnpublishedResponse { track_sid: track.to_string() })
        }
        ServerSignal::Leave { reason, action } => Reply::Leave(pb::LeaveRequest {
            // The older form of the same word.
            can_reconnect: *action != plenary_model::LeaveAction::Disconnect,
            reason: livekit::disconnect_reason(*reason) as i32,
            action: livekit::leave_action(*action) as i32,
            regions: None,
        }),
        ServerSignal::Mute { track, muted } => Reply::Mute(mute(track, *muted)),
        ServerSignal::SpeakersChanged { speakers } => Reply::SpeakersChanged(pb::SpeakersChanged {
            speakers: speakers
                .iter()
                .map(|(sid, speaker)| pb::SpeakerInfo {
                    sid: sid.to_string(),
                    level: speaker.level,
                    active: speaker.active,
                })
                .collect(),
        }),
        ServerSignal::RoomUpdate { room } => {
            Reply::RoomUpdate(pb::RoomUpdate { room: Some(livekit::room(room, &server.codecs)) })
        }
        ServerSignal::ConnectionQuality { updates } => Reply::ConnectionQuality(pb::ConnectionQualityUpdate {
            updates: updates
                .iter()
                .map(|(sid, measured)| pb::ConnectionQualityInfo {
                    participant_sid: sid.to_string(),
                    quality: livekit::connection_quality(measured.quality) as i32,
                    score: measured.score,
                })
                .collect(),
        }),
        ServerSignal::StreamState { publisher, track, paused } => Reply::StreamStateUpdate(pb::StreamStateUpdate {
            stream_states: vec![pb::StreamStateInfo {
                participant_sid: publisher.to_string(),
                track_sid: track.to_string(),
                state: if *paused { pb::StreamState::Paused } else { pb::StreamState::Active } as i32,
            }],
        }),
        #[allow(deprecated)]
        ServerSignal::SubscribedQuality { track, codecs } => {
            let all = [pb::VideoQuality::Low, pb::VideoQuality::Medium, pb::VideoQuality::High];
            let qualities = |codec: &WantedCodec| {
                let quality = |quality: pb::VideoQuality| pb::SubscribedQuality {
                    quality: quality as i32,
                    enabled: codec.up_to.is_some_and(|up_to| quality as i32 <= livekit::video_quality(up_to) as i32),
                };
                all.into_iter().map(quality).collect()
            };
            let wanted =
                |codec: &WantedCodec| pb::SubscribedCodec { codec: codec.codec.clone(), qualities: qualities(codec) };
            Reply::SubscribedQualityUpdate(pb::SubscribedQualityUpdate {
                track_sid: track.to_string(),
                // What older clients read; they know of one codec.
                subscribed_qualities: codecs.first().map(qualities).unwrap_or_default(),
                subscribed_codecs: codecs.iter().map(wanted).collect(),
            })
        }
        ServerSignal::DataTrackPublished { track } => Reply::PublishDataTrackResponse(pb::PublishDataTrackResponse {
            info: Some(livekit::data_track_info(track)),
        }),
        ServerSignal::DataTrackUnpublished { track } => {
            let info = Some(livekit::data_track_info(track));
            Reply::UnpublishDataTrackResponse(pb::UnpublishDataTrackResponse { info })
        }
        ServerSignal::DataHandles { handles } => {
            let published = |one: &DataHandle| pb::data_track_subscriber_handles::PublishedDataTrack {
                publisher_identity: one.identity.to_string(),
                publisher_sid: one.publisher.to_string(),
                track_sid: one.track.to_string(),
            };
            Reply::DataTrackSubscriberHandles(pb::DataTrackSubscriberHandles {
                sub_handles: handles.iter().map(|one| (one.handle.into(), published(one))).collect(),
            })
        }
        ServerSignal::BlobStored { request_id, key } => {
            Reply::StoreDataBlobResponse(pb::StoreDataBlobResponse { request_id: *request_id, key: blob_key_from(key) })
        }
        ServerSignal::Blob { request_id, key, contents } => Reply::GetDataBlobResponse(pb::GetDataBlobResponse {
            request_id: *request_id,
            blob: Some(pb::DataBlob { key: blob_key_from(key), contents: contents.to_vec() }),
        }),
        ServerSignal::SubscriptionPermission { publisher, track, allowed } => {
            Reply::SubscriptionPermissionUpdate(pb::SubscriptionPermissionUpdate {
                participant_sid: publisher.to_string(),
                track_sid: track.to_string(),
                allowed: *allowed,
            })
        }
        ServerSignal::Pong { .. } => Reply::Pong(now_unix_ms),
        ServerSignal::PongResp { last_ping_timestamp_ms } => {
            Reply::PongResp(pb::Pong { last_ping_timestamp: *last_ping_timestamp_ms, timestamp: now_unix_ms })
        }
        ServerSignal::SubscriptionFailed { track, why } => Reply::SubscriptionResponse(pb::SubscriptionResponse {
            track_sid: track.to_string(),
            err: match why {
                SubscriptionFailure::CodecUnsupported => pb::SubscriptionError::SeCodecUnsupported,
                SubscriptionFailure::TrackNotFound => pb::SubscriptionError::SeTrackNotfound,
            } as i32,
        }),
        ServerSignal::RequestResponse { request_id, reason, message, about } => {
            Reply::RequestResponse(pb::RequestResponse {
                request_id: *request_id,
                reason: outcome(*reason) as i32,
                message: message.clone(),
                request: request_named(about),
            })
        }
        ServerSignal::TrackSubscribed { track } => {
            Reply::TrackSubscribed(pb::TrackSubscribed { track_sid: track.to_string() })
        }
    }
}

fn join_response(join: &Join, server: &ServerIdentity) -> pb::JoinResponse {
    pb::JoinResponse {
        room: Some(livekit::room(&join.room, &server.codecs)),
        participant: Some(livekit::participant_info(&join.own)),
        other_participants: join.others.iter().map(|who| livekit::participant_info(who)).collect(),
        server_version: SERVER_VERSION.to_owned(),
        ice_servers: join.ice_servers.iter().map(ice_server).collect(),
        subscriber_primary: join.subscriber_primary,
        ping_timeout: i32::try_from(join.ping_timeout_s).unwrap_or(i32::MAX),
        ping_interval: i32::try_from(join.ping_interval_s).unwrap_or(i32::MAX),
        server_info: Some(server_info(server)),
        sif_trailer: server.sif_trailer.clone(),
        enabled_publish_codecs: livekit::codecs(&join.publish_codecs),
        fast_publish: join.fast_publish,
        ..pb::JoinResponse::default()
    }
}

fn server_info(server: &ServerIdentity) -> pb::ServerInfo {
    pb::ServerInfo {
        edition: pb::server_info::Edition::Standard as i32,
        version: SERVER_VERSION.to_owned(),
        protocol: PROTOCOL,
        region: server.region.clone(),
        node_id: server.node_id.clone(),
        ..pb::ServerInfo::default()
    }
}

fn ice_server(server: &IceServer) -> pb::IceServer {
    pb::IceServer {
        urls: server.urls.clone(),
        username: server.username.clone(),
        credential: server.credential.clone(),
    }
}

fn description(kind: &str, sdp: &str, id: u32) -> pb::SessionDescription {
    pb::SessionDescription { r#type: kind.to_owned(), sdp: sdp.to_owned(), id, ..pb::SessionDescription::default() }
}

fn mute(track: &TrackSid, muted: bool) -> pb::MuteTrackRequest {
    pb::MuteTrackRequest { sid: track.to_string(), muted }
}

fn outcome(outcome: RequestOutcome) -> pb::request_response::Reason {
    use pb::request_response::Reason;
    match outcome {
        RequestOutcome::Ok => Reason::Ok,
        RequestOutcome::NotFound => Reason::NotFound,
        RequestOutcome::NotAllowed => Reason::NotAllowed,
        RequestOutcome::LimitExceeded => Reason::LimitExceeded,
        RequestOutcome::Queued => Reason::Queued,
        RequestOutcome::UnsupportedType => Reason::UnsupportedType,
        RequestOutcome::Unclassified => Reason::UnclassifiedError,
        RequestOutcome::InvalidHandle => Reason::InvalidHandle,
        RequestOutcome::InvalidName => Reason::InvalidName,
        RequestOutcome::DuplicateHandle => Reason::DuplicateHandle,
        RequestOutcome::DuplicateName => Reason::DuplicateName,
        RequestOutcome::InvalidRequest => Reason::InvalidRequest,
    }
}

/// Clients without a request id find their promise by the request's own key fields.
fn request_named(about: &About) -> Option<PbRequest> {
    Some(match about {
        About::AddTrack { cid, source, name } => PbRequest::AddTrack(pb::AddTrackRequest {
            cid: cid.clone(),
            source: livekit::track_source(*source) as i32,
            name: name.clone(),
            ..pb::AddTrackRequest::default()
        }),
        About::Mute { track, muted } => PbRequest::Mute(mute(track, *muted)),
        About::UpdateMetadata => PbRequest::UpdateMetadata(pb::UpdateParticipantMetadata::default()),
        About::UpdateTrack { track } => PbRequest::UpdateAudioTrack(pb::UpdateLocalAudioTrack {
            track_sid: track.to_string(),
            ..pb::UpdateLocalAudioTrack::default()
        }),
        About::PublishDataTrack { handle } => PbRequest::PublishDataTrack(pb::PublishDataTrackRequest {
            pub_handle: *handle,
            ..pb::PublishDataTrackRequest::default()
        }),
        About::UnpublishDataTrack { handle } => {
            PbRequest::UnpublishDataTrack(pb::UnpublishDataTrackRequest { pub_handle: *handle })
        }
        About::Other => return None,
    })
}

fn blob_key_from(key: &Bytes) -> Option<pb::DataBlobKey> {
    pb::DataBlobKey::decode(key.clone()).ok()
}

/// Highest protocol whose features this server has.
const PROTOCOL: i32 = 17;

/// Clients read features from this: RPC needs 1.8.0, and above 1.13.6 they would publish VP9 and AV1 as RID simulcast.
const SERVER_VERSION: &str = "1.13.0";
