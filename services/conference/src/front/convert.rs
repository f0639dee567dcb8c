//! The client wire's border: protobuf and JSON frames become the cores' signals here and nowhere else, and back.
//!
//! Nothing is decided here. What a frame lacks becomes the wire's default; what it should not contain is left to the
//! session to refuse.

use bytes::{BufMut, Bytes, BytesMut};
use livekit_protocol as pb;
use pb::{
    data_packet::Value, request_response::Request as PbRequest, signal_request, signal_response::Message as Reply,
};
use plenary_model::{
    Admitted, AdmittedTracks, Audience, AudioFeature, Channel, Codec, Destination, IceServer, Identity, Participant,
    ParticipantSid, Receiver, SubscriptionSettings, Target, TrackSid,
};
use plenary_protocol::livekit;
use plenary_room_core::signal::{
    About, AddTrack, ClientData, ClientSignal, DataHandle, DataKind, DataWish, Join, PublishDataTrack, RequestOutcome,
    Scenario, ServerSignal, SubscriptionFailure, SyncState, WantedCodec,
};
use prost::Message as _;

/// How a client writes its frames; it is answered in kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Encoding {
    #[default]
    Binary,
    Json,
}

/// A frame that is no signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    #[error("frame is not a SignalRequest")]
    Malformed,
    #[error("data message is not a DataPacket")]
    MalformedData,
}

/// What every join response says of this server.
#[derive(Debug, Clone)]
pub struct ServerIdentity {
    pub node_id: String,
    pub region: String,
    /// Ends server-made frames of this node's rooms, so that end-to-end encrypting clients know them.
    pub sif_trailer: Vec<u8>,
}

pub fn decode(frame: &[u8], encoding: Encoding) -> Result<ClientSignal, BadFrame> {
    let request = match encoding {
        Encoding::Binary => pb::SignalRequest::decode(frame).map_err(|_| BadFrame::Malformed)?,
        Encoding::Json => serde_json::from_slice(frame).map_err(|_| BadFrame::Malformed)?,
    };
    // A message this version does not know is an empty one to us.
    Ok(request.message.map_or(ClientSignal::Ignored, client_signal))
}

/// `now_unix_ms` answers pings.
pub fn encode(signal: &ServerSignal, server: &ServerIdentity, now_unix_ms: i64, encoding: Encoding) -> Bytes {
    serialize(server_signal(signal, server, now_unix_ms), encoding)
}

pub fn encode_refresh_token(token: String, encoding: Encoding) -> Bytes {
    serialize(Reply::RefreshToken(token), encoding)
}

fn serialize(reply: Reply, encoding: Encoding) -> Bytes {
    let response = pb::SignalResponse { message: Some(reply) };
    match encoding {
        Encoding::Binary => response.encode_to_vec().into(),
        Encoding::Json => serde_json::to_vec(&response).expect("generated types always serialize").into(),
    }
}

fn client_signal(message: signal_request::Message) -> ClientSignal {
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

fn blob_key_from(key: &Bytes) -> Option<pb::DataBlobKey> {
    pb::DataBlobKey::decode(key.clone()).ok()
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

fn server_signal(signal: &ServerSignal, server: &ServerIdentity, now_unix_ms: i64) -> Reply {
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
        ServerSignal::RoomUpdate { room } => Reply::RoomUpdate(pb::RoomUpdate { room: Some(livekit::room(room)) }),
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
    let codec = |codec: &Codec| pb::Codec { mime: codec.mime().to_owned(), fmtp_line: String::new() };
    pb::JoinResponse {
        room: Some(livekit::room(&join.room)),
        participant: Some(livekit::participant_info(&join.own)),
        other_participants: join.others.iter().map(|who| livekit::participant_info(who)).collect(),
        server_version: SERVER_VERSION.to_owned(),
        ice_servers: join.ice_servers.iter().map(ice_server).collect(),
        subscriber_primary: join.subscriber_primary,
        ping_timeout: i32::try_from(join.ping_timeout_s).unwrap_or(i32::MAX),
        ping_interval: i32::try_from(join.ping_interval_s).unwrap_or(i32::MAX),
        server_info: Some(server_info(server)),
        sif_trailer: server.sif_trailer.clone(),
        enabled_publish_codecs: join.publish_codecs.iter().map(codec).collect(),
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

/// A data-channel message: checked, addressed, and stamped with who really sent it.
///
/// The client's own bytes are forwarded, so that fields this version does not know survive. The stamp is appended:
/// protobuf readers take the last value of a scalar field, and merge a repeated message field into the first.
pub fn client_data(channel: Channel, message: Bytes, sender: &Participant) -> Result<ClientData, BadFrame> {
    let packet = pb::DataPacket::decode(message.clone()).map_err(|_| BadFrame::MalformedData)?;
    let kind = match &packet.value {
        Some(Value::Transcription(_)) => DataKind::Transcription,
        Some(Value::Metrics(_)) => DataKind::Metrics,
        _ => DataKind::Ordinary,
    };
    let to = destination(&packet);
    let payload = stamp(channel, &message, &packet, sender);
    Ok(ClientData { channel, kind, sequence: packet.sequence, to, payload })
}

/// A message from the server itself to everybody or to those named.
pub fn server_data(
    channel: Channel,
    payload: Vec<u8>,
    topic: Option<String>,
    nonce: Vec<u8>,
    to: &Destination,
) -> Bytes {
    let mut user = pb::UserPacket { payload, topic, nonce, ..pb::UserPacket::default() };
    let mut packet = pb::DataPacket::default();
    name_destinations(&mut user, &mut packet, to);
    set_kind(&mut packet, channel);
    packet.value = Some(Value::User(user));
    packet.encode_to_vec().into()
}

#[allow(deprecated)]
fn destination(packet: &pb::DataPacket) -> Destination {
    let (mut identities, mut sids) = (packet.destination_identities.clone(), Vec::new());
    if let Some(Value::User(user)) = &packet.value {
        if identities.is_empty() {
            identities.clone_from(&user.destination_identities);
        }
        sids.clone_from(&user.destination_sids);
    }
    if !identities.is_empty() {
        // A name nobody can have reaches nobody, which is not the same as everybody.
        Destination::Identities(identities.iter().filter_map(|name| Identity::try_from(name.as_str()).ok()).collect())
    } else if !sids.is_empty() {
        Destination::Sids(sids.into_iter().map(ParticipantSid::from).collect())
    } else {
        Destination::Everybody
    }
}

#[allow(deprecated)]
fn name_destinations(user: &mut pb::UserPacket, packet: &mut pb::DataPacket, to: &Destination) {
    match to {
        Destination::Everybody => {}
        Destination::Identities(identities) => {
            user.destination_identities = identities.iter().map(Identity::to_string).collect();
            packet.destination_identities.clone_from(&user.destination_identities);
        }
        Destination::Sids(sids) => user.destination_sids = sids.iter().map(ParticipantSid::to_string).collect(),
    }
}

#[allow(deprecated)]
fn set_kind(packet: &mut pb::DataPacket, channel: Channel) {
    packet.kind = match channel {
        Channel::Reliable => pb::data_packet::Kind::Reliable,
        Channel::Lossy | Channel::DataTrack => pb::data_packet::Kind::Lossy,
    } as i32;
}

fn stamp(channel: Channel, message: &[u8], packet: &pb::DataPacket, sender: &Participant) -> Bytes {
    // Hidden people speak without a name.
    let hidden = sender.permission.hidden;
    let identity = if hidden { "" } else { sender.identity.as_str() };
    let sid = if hidden { "" } else { sender.sid.as_str() };
    let kind = u64::from(channel != Channel::Reliable);
    let mut out = BytesMut::with_capacity(message.len().saturating_add(STAMP_BYTES_MAX));
    out.extend_from_slice(message);
    put_number(&mut out, tag::KIND, kind);
    put_text(&mut out, tag::PARTICIPANT_IDENTITY, identity);
    put_text(&mut out, tag::PARTICIPANT_SID, sid);
    if matches!(packet.value, Some(Value::User(_))) {
        let mut user = BytesMut::with_capacity(STAMP_BYTES_MAX / 2);
        put_text(&mut user, tag::USER_PARTICIPANT_SID, sid);
        put_text(&mut user, tag::USER_PARTICIPANT_IDENTITY, identity);
        prost::encoding::encode_key(tag::USER, prost::encoding::WireType::LengthDelimited, &mut out);
        prost::encoding::encode_varint(user.len() as u64, &mut out);
        out.extend_from_slice(&user);
    }
    out.freeze()
}

/// Written even when it is the default, because it must override what stands before it.
fn put_text(out: &mut BytesMut, field: u32, text: &str) {
    prost::encoding::encode_key(field, prost::encoding::WireType::LengthDelimited, out);
    prost::encoding::encode_varint(text.len() as u64, out);
    out.put_slice(text.as_bytes());
}

fn put_number(out: &mut BytesMut, field: u32, value: u64) {
    prost::encoding::encode_key(field, prost::encoding::WireType::Varint, out);
    prost::encoding::encode_varint(value, out);
}

/// Field numbers of `DataPacket` and `UserPacket` that the stamp writes; a test holds them to the generated types.
mod tag {
    pub(super) const KIND: u32 = 1;
    pub(super) const USER: u32 = 2;
    pub(super) const PARTICIPANT_IDENTITY: u32 = 4;
    pub(super) const PARTICIPANT_SID: u32 = 17;
    pub(super) const USER_PARTICIPANT_SID: u32 = 1;
    pub(super) const USER_PARTICIPANT_IDENTITY: u32 = 5;
}

/// Two identities and two sids at their longest, with keys and lengths.
const STAMP_BYTES_MAX: usize = 1024;

/// Highest protocol whose features this server has.
const PROTOCOL: i32 = 17;

/// Clients read features from this: RPC needs 1.8.0, and above 1.13.6 they would publish VP9 and AV1 as RID simulcast.
const SERVER_VERSION: &str = "1.13.0";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use plenary_model::{LeaveReason, ParticipantKind, ParticipantState, Permission};

    use super::*;

    fn ann(hidden: bool) -> Participant {
        Participant {
            sid: "PA_ann".into(),
            identity: Identity::try_from("ann").unwrap(),
            name: String::new(),
            metadata: String::new(),
            attributes: BTreeMap::new(),
            state: ParticipantState::Active,
            kind: ParticipantKind::Standard,
            permission: Permission { hidden, ..Permission::default() },
            tracks: Vec::new(),
            audience: Audience::default(),
            data_tracks: Vec::new(),
            joined_at_ms: 0,
            version: 1,
            is_publisher: false,
            leave_reason: LeaveReason::Unknown,
            client_protocol: 0,
            capabilities: Vec::new(),
        }
    }

    #[allow(deprecated)]
    fn forged() -> pb::DataPacket {
        pb::DataPacket {
            participant_identity: "boss".into(),
            participant_sid: "PA_boss".into(),
            sequence: 7,
            value: Some(Value::User(pb::UserPacket {
                participant_identity: "boss".into(),
                participant_sid: "PA_boss".into(),
                payload: b"pay me".to_vec(),
                topic: Some("t".into()),
                ..pb::UserPacket::default()
            })),
            ..pb::DataPacket::default()
        }
    }

    #[test]
    #[allow(deprecated)]
    fn the_sender_is_whom_the_server_says() {
        for (hidden, identity, sid) in [(false, "ann", "PA_ann"), (true, "", "")] {
            let bytes = Bytes::from(forged().encode_to_vec());
            let data = client_data(Channel::Lossy, bytes, &ann(hidden)).unwrap();
            let packet = pb::DataPacket::decode(data.payload).unwrap();
            assert_eq!((packet.participant_identity.as_str(), packet.participant_sid.as_str()), (identity, sid));
            assert_eq!(packet.kind, pb::data_packet::Kind::Lossy as i32);
            assert_eq!(packet.sequence, 7);
            let Some(Value::User(user)) = packet.value else { panic!("user packet expected") };
            assert_eq!((user.participant_identity.as_str(), user.participant_sid.as_str()), (identity, sid));
            assert_eq!((user.payload.as_slice(), user.topic.as_deref()), (&b"pay me"[..], Some("t")));
        }
    }

    #[test]
    fn fields_of_newer_clients_survive_the_stamp() {
        let mut bytes = forged().encode_to_vec();
        let unknown = [0xfa, 0x3e, 0x02, b'h', b'i']; // field 1007, two bytes
        bytes.extend_from_slice(&unknown);
        let data = client_data(Channel::Reliable, bytes.into(), &ann(false)).unwrap();
        assert!(data.payload.windows(unknown.len()).any(|window| window == unknown));
    }

    #[test]
    fn an_impossible_addressee_does_not_become_everybody() {
        let packet = pb::DataPacket { destination_identities: vec!["\u{7}".into()], ..forged() };
        let data = client_data(Channel::Reliable, packet.encode_to_vec().into(), &ann(false)).unwrap();
        assert_eq!(data.to, Destination::Identities(Vec::new()));
    }

    #[test]
    fn json_and_binary_frames_say_the_same() {
        let request = pb::SignalRequest {
            message: Some(signal_request::Message::Mute(pb::MuteTrackRequest { sid: "TR_x".into(), muted: true })),
        };
        let expected = ClientSignal::Mute { track: "TR_x".into(), muted: true };
        assert_eq!(decode(&request.encode_to_vec(), Encoding::Binary).unwrap(), expected);
        assert_eq!(decode(&serde_json::to_vec(&request).unwrap(), Encoding::Json).unwrap(), expected);
        assert_eq!(decode(b"\xff\xff", Encoding::Binary), Err(BadFrame::Malformed));
        assert_eq!(decode(b"{", Encoding::Json), Err(BadFrame::Malformed));
    }

    #[test]
    #[allow(deprecated)]
    fn what_is_wanted_of_a_video_is_said_per_codec_and_of_the_first_in_the_old_form_too() {
        let wanted = |codec: &str, up_to| WantedCodec { codec: codec.into(), up_to };
        let codecs = vec![wanted("vp9", None), wanted("vp8", Some(plenary_model::Quality::Medium))];
        let identity = ServerIdentity { node_id: String::new(), region: String::new(), sif_trailer: Vec::new() };
        let signal = ServerSignal::SubscribedQuality { track: "TR_x".into(), codecs };
        let Reply::SubscribedQualityUpdate(update) = server_signal(&signal, &identity, 0) else { panic!() };
        let enabled = |all: &[pb::SubscribedQuality]| all.iter().map(|one| one.enabled).collect::<Vec<_>>();
        let said: Vec<_> =
            update.subscribed_codecs.iter().map(|one| (one.codec.as_str(), enabled(&one.qualities))).collect();
        assert_eq!(said, [("vp9", vec![false; 3]), ("vp8", vec![true, true, false])]);
        assert_eq!(enabled(&update.subscribed_qualities), [false; 3]);
    }

    #[test]
    fn an_empty_or_unknown_message_is_ignored() {
        assert_eq!(decode(b"", Encoding::Binary).unwrap(), ClientSignal::Ignored);
        assert_eq!(decode(&[0xfa, 0x3e, 0x02, b'h', b'i'], Encoding::Binary).unwrap(), ClientSignal::Ignored);
    }
}
