//! Messages as Twirp's JSON: names as in the proto file, every member written.
//!
//! The generated types serialise in the other dialect of protobuf's JSON (camelCase, defaults left out), which is right
//! for webhooks and signalling. SDKs without protobuf read answers of the room API by these names and expect every
//! member, so they are written out here; a test holds both dialects against each other.

use livekit_protocol as pb;
use prost::Message;
use serde::Serialize;
use serde_json::{Value, json};

/// A message in Twirp's JSON.
pub trait ProtoJson {
    fn proto_json(&self) -> Value;
}

impl ProtoJson for pb::Room {
    fn proto_json(&self) -> Value {
        let codec = |codec: &pb::Codec| json!({ "mime": codec.mime, "fmtp_line": codec.fmtp_line });
        json!({
            "sid": self.sid,
            "name": self.name,
            "empty_timeout": self.empty_timeout,
            "departure_timeout": self.departure_timeout,
            "max_participants": self.max_participants,
            "creation_time": self.creation_time.to_string(),
            "creation_time_ms": self.creation_time_ms.to_string(),
            "turn_password": self.turn_password,
            "enabled_codecs": self.enabled_codecs.iter().map(codec).collect::<Vec<_>>(),
            "metadata": self.metadata,
            "num_participants": self.num_participants,
            "num_publishers": self.num_publishers,
            "active_recording": self.active_recording,
            "version": or_null(&self.version),
        })
    }
}

impl ProtoJson for pb::TimedVersion {
    fn proto_json(&self) -> Value {
        json!({ "unix_micro": self.unix_micro.to_string(), "ticks": self.ticks })
    }
}

impl ProtoJson for pb::ParticipantInfo {
    fn proto_json(&self) -> Value {
        json!({
            "sid": self.sid,
            "identity": self.identity,
            "state": name_or_number(self.state, |one: pb::participant_info::State| one.as_str_name()),
            "tracks": all(&self.tracks),
            "metadata": self.metadata,
            "joined_at": self.joined_at.to_string(),
            "joined_at_ms": self.joined_at_ms.to_string(),
            "name": self.name,
            "version": self.version,
            "permission": or_null(&self.permission),
            "region": self.region,
            "is_publisher": self.is_publisher,
            "kind": name_or_number(self.kind, |one: pb::participant_info::Kind| one.as_str_name()),
            "attributes": self.attributes,
            "disconnect_reason": name_or_number(self.disconnect_reason, |one: pb::DisconnectReason| one.as_str_name()),
            "kind_details": names(&self.kind_details, |one: pb::participant_info::KindDetail| one.as_str_name()),
            "data_tracks": all(&self.data_tracks),
            "client_protocol": self.client_protocol,
            "capabilities": names(&self.capabilities, |one: pb::client_info::Capability| one.as_str_name()),
        })
    }
}

impl ProtoJson for pb::ParticipantPermission {
    #[allow(deprecated)]
    fn proto_json(&self) -> Value {
        json!({
            "can_subscribe": self.can_subscribe,
            "can_publish": self.can_publish,
            "can_publish_data": self.can_publish_data,
            "can_publish_sources": names(&self.can_publish_sources, |one: pb::TrackSource| one.as_str_name()),
            "hidden": self.hidden,
            "recorder": self.recorder,
            "can_update_metadata": self.can_update_metadata,
            "agent": self.agent,
            "can_subscribe_metrics": self.can_subscribe_metrics,
            "can_manage_agent_session": self.can_manage_agent_session,
        })
    }
}

impl ProtoJson for pb::TrackInfo {
    #[allow(deprecated)]
    fn proto_json(&self) -> Value {
        let trailers = |one: pb::PacketTrailerFeature| one.as_str_name();
        json!({
            "sid": self.sid,
            "type": name_or_number(self.r#type, |one: pb::TrackType| one.as_str_name()),
            "name": self.name,
            "muted": self.muted,
            "width": self.width,
            "height": self.height,
            "simulcast": self.simulcast,
            "disable_dtx": self.disable_dtx,
            "source": name_or_number(self.source, |one: pb::TrackSource| one.as_str_name()),
            "layers": all(&self.layers),
            "mime_type": self.mime_type,
            "mid": self.mid,
            "codecs": all(&self.codecs),
            "stereo": self.stereo,
            "disable_red": self.disable_red,
            "encryption": name_or_number(self.encryption, |one: pb::encryption::Type| one.as_str_name()),
            "stream": self.stream,
            "version": or_null(&self.version),
            "audio_features": names(&self.audio_features, |one: pb::AudioTrackFeature| one.as_str_name()),
            "backup_codec_policy": name_or_number(self.backup_codec_policy, |one: pb::BackupCodecPolicy| one.as_str_name()),
            "packet_trailer_features": names(&self.packet_trailer_features, trailers),
        })
    }
}

impl ProtoJson for pb::SimulcastCodecInfo {
    fn proto_json(&self) -> Value {
        json!({
            "mime_type": self.mime_type,
            "mid": self.mid,
            "cid": self.cid,
            "layers": all(&self.layers),
            "video_layer_mode": name_or_number(self.video_layer_mode, |one: pb::video_layer::Mode| one.as_str_name()),
            "sdp_cid": self.sdp_cid,
        })
    }
}

impl ProtoJson for pb::VideoLayer {
    fn proto_json(&self) -> Value {
        json!({
            "quality": name_or_number(self.quality, |one: pb::VideoQuality| one.as_str_name()),
            "width": self.width,
            "height": self.height,
            "bitrate": self.bitrate,
            "ssrc": self.ssrc,
            "spatial_layer": self.spatial_layer,
            "rid": self.rid,
            "repair_ssrc": self.repair_ssrc,
        })
    }
}

/// Framing and schema of data tracks are not served, so they are never set.
impl ProtoJson for pb::DataTrackInfo {
    fn proto_json(&self) -> Value {
        json!({
            "pub_handle": self.pub_handle,
            "sid": self.sid,
            "name": self.name,
            "encryption": name_or_number(self.encryption, |one: pb::encryption::Type| one.as_str_name()),
            "frame_encoding": null,
            "schema": null,
        })
    }
}

impl ProtoJson for pb::ListRoomsResponse {
    fn proto_json(&self) -> Value {
        json!({ "rooms": all(&self.rooms) })
    }
}

impl ProtoJson for pb::ListParticipantsResponse {
    fn proto_json(&self) -> Value {
        json!({ "participants": all(&self.participants) })
    }
}

impl ProtoJson for pb::MuteRoomTrackResponse {
    fn proto_json(&self) -> Value {
        json!({ "track": or_null(&self.track) })
    }
}

/// The request is in the other dialect but for its names: what it did not say is not there.
impl ProtoJson for pb::EgressInfo {
    #[allow(deprecated)]
    fn proto_json(&self) -> Value {
        use pb::egress_info::{Request, Result};
        let mut json = json!({
            "egress_id": self.egress_id,
            "room_id": self.room_id,
            "room_name": self.room_name,
            "source_type": name_or_number(self.source_type, |one: pb::EgressSourceType| one.as_str_name()),
            "status": name_or_number(self.status, |one: pb::EgressStatus| one.as_str_name()),
            "started_at": self.started_at.to_string(),
            "ended_at": self.ended_at.to_string(),
            "updated_at": self.updated_at.to_string(),
            "stream_results": [],
            "file_results": all(&self.file_results),
            "segment_results": [],
            "image_results": [],
            "error": self.error,
            "error_code": self.error_code,
            "details": self.details,
            "manifest_location": self.manifest_location,
            "backup_storage_used": self.backup_storage_used,
            "retry_count": self.retry_count,
        });
        let request = match &self.request {
            Some(Request::Egress(ask)) => Some(("egress", in_snake_case(ask))),
            Some(Request::RoomComposite(ask)) => Some(("room_composite", in_snake_case(ask))),
            Some(Request::Participant(ask)) => Some(("participant", in_snake_case(ask))),
            Some(Request::TrackComposite(ask)) => Some(("track_composite", in_snake_case(ask))),
            Some(Request::Track(ask)) => Some(("track", in_snake_case(ask))),
            Some(Request::Web(_) | Request::Replay(_)) | None => None,
        };
        let result = match &self.result {
            Some(Result::File(file)) => Some(("file", file.proto_json())),
            Some(Result::Stream(_) | Result::Segments(_)) | None => None,
        };
        if let Value::Object(members) = &mut json {
            members.extend(request.into_iter().chain(result).map(|(name, value)| (name.to_owned(), value)));
        }
        json
    }
}

impl ProtoJson for pb::FileInfo {
    fn proto_json(&self) -> Value {
        json!({
            "filename": self.filename,
            "started_at": self.started_at.to_string(),
            "ended_at": self.ended_at.to_string(),
            "duration": self.duration.to_string(),
            "size": self.size.to_string(),
            "location": self.location,
        })
    }
}

impl ProtoJson for pb::ListEgressResponse {
    fn proto_json(&self) -> Value {
        json!({ "items": all(&self.items), "next_page_token": null })
    }
}

macro_rules! empty {
    ($($message:ty),+) => {
        $(impl ProtoJson for $message {
            fn proto_json(&self) -> Value {
                json!({})
            }
        })+
    };
}

empty!(pb::DeleteRoomResponse, pb::RemoveParticipantResponse, pb::UpdateSubscriptionsResponse, pb::SendDataResponse);

fn all<M: ProtoJson>(messages: &[M]) -> Vec<Value> {
    messages.iter().map(ProtoJson::proto_json).collect()
}

fn or_null<M: ProtoJson + Message>(message: &Option<M>) -> Value {
    message.as_ref().map_or(Value::Null, ProtoJson::proto_json)
}

/// Protobuf's JSON writes enums by name, and numbers it has no name for as numbers.
fn name_or_number<E: TryFrom<i32>>(number: i32, name: impl Fn(E) -> &'static str) -> Value {
    E::try_from(number).map_or(json!(number), |known| json!(name(known)))
}

/// A message without maps in the generated dialect, its names turned into those of the proto file.
fn in_snake_case(message: &impl Serialize) -> Value {
    fn rename(value: Value) -> Value {
        match value {
            Value::Object(members) => {
                members.into_iter().map(|(name, member)| (snake_case(&name), rename(member))).collect()
            }
            Value::Array(items) => items.into_iter().map(rename).collect(),
            plain => plain,
        }
    }
    serde_json::to_value(message).map_or(Value::Null, rename)
}

fn snake_case(name: &str) -> String {
    name.chars().fold(String::new(), |mut text, letter| {
        if letter.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
        text
    })
}

fn names<E: TryFrom<i32>>(numbers: &[i32], name: impl Fn(E) -> &'static str) -> Vec<Value> {
    numbers.iter().map(|number| name_or_number(*number, &name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::twirp::drop_nulls;

    #[allow(deprecated)]
    fn full_participant() -> pb::ParticipantInfo {
        let version = Some(pb::TimedVersion { unix_micro: i64::MAX, ticks: 3 });
        let layer = pb::VideoLayer {
            quality: 2,
            width: 1,
            height: 2,
            bitrate: 3,
            ssrc: 4,
            spatial_layer: 5,
            rid: "f".into(),
            repair_ssrc: 6,
        };
        let codec = pb::SimulcastCodecInfo {
            mime_type: "video/VP8".into(),
            mid: "1".into(),
            cid: "c".into(),
            layers: vec![layer.clone()],
            video_layer_mode: 1,
            sdp_cid: "d".into(),
        };
        let track = pb::TrackInfo {
            sid: "TR_1".into(),
            r#type: 1,
            name: "n".into(),
            muted: true,
            width: 1,
            height: 2,
            simulcast: true,
            disable_dtx: true,
            source: 3,
            layers: vec![layer],
            mime_type: "video/VP8".into(),
            mid: "1".into(),
            codecs: vec![codec],
            stereo: true,
            disable_red: true,
            encryption: 1,
            stream: "s".into(),
            version,
            audio_features: vec![1, 2],
            backup_codec_policy: 1,
            packet_trailer_features: vec![1],
        };
        let data_track = pb::DataTrackInfo {
            pub_handle: 1,
            sid: "DTR_1".into(),
            name: "n".into(),
            encryption: 1,
            frame_encoding: None,
            schema: None,
        };
        pb::ParticipantInfo {
            sid: "PA_1".into(),
            identity: "ann".into(),
            state: 2,
            tracks: vec![track],
            metadata: "m".into(),
            joined_at: 1,
            joined_at_ms: 2,
            name: "Ann".into(),
            version: 3,
            permission: Some(pb::ParticipantPermission {
                can_subscribe: true,
                can_publish: true,
                can_publish_data: true,
                can_publish_sources: vec![1, 2],
                hidden: true,
                recorder: true,
                can_update_metadata: true,
                agent: true,
                can_subscribe_metrics: true,
                can_manage_agent_session: true,
            }),
            region: "r".into(),
            is_publisher: true,
            kind: 4,
            attributes: [("camelKey".to_owned(), "v".to_owned())].into(),
            disconnect_reason: 5,
            kind_details: vec![1],
            data_tracks: vec![data_track],
            client_protocol: 2,
            capabilities: vec![1, 2],
        }
    }

    fn full_room() -> pb::Room {
        pb::Room {
            sid: "RM_1".into(),
            name: "r".into(),
            empty_timeout: 1,
            departure_timeout: 2,
            max_participants: 3,
            creation_time: 4,
            creation_time_ms: 5,
            turn_password: "t".into(),
            enabled_codecs: vec![pb::Codec { mime: "audio/opus".into(), fmtp_line: "f".into() }],
            metadata: "m".into(),
            num_participants: 6,
            num_publishers: 7,
            active_recording: true,
            version: Some(pb::TimedVersion { unix_micro: 1, ticks: 2 }),
        }
    }

    #[test]
    fn both_dialects_say_the_same_when_every_member_is_set() {
        let rooms = pb::ListRoomsResponse { rooms: vec![full_room()] };
        assert_eq!(rooms.proto_json(), in_snake_case(&rooms));
        let mut people = pb::ListParticipantsResponse { participants: vec![full_participant()] };
        // Keys of a map are data and keep their spelling, which the generated side of this test cannot know.
        assert_eq!(people.proto_json()["participants"][0]["attributes"]["camelKey"], "v");
        people.participants[0].attributes = [("k".to_owned(), "v".to_owned())].into();
        let mut written = people.proto_json();
        drop_nulls(&mut written);
        assert_eq!(written, in_snake_case(&people));
        let muted = pb::MuteRoomTrackResponse { track: people.participants[0].tracks.first().cloned() };
        assert_eq!(muted.proto_json(), in_snake_case(&muted));
    }

    #[test]
    fn defaults_are_written() {
        let room = pb::Room::default().proto_json();
        assert_eq!(
            room.as_object().map(serde_json::Map::len),
            full_room().proto_json().as_object().map(serde_json::Map::len)
        );
        assert_eq!((&room["num_participants"], &room["creation_time"]), (&json!(0), &json!("0")));
        assert_eq!((&room["active_recording"], &room["version"]), (&json!(false), &Value::Null));
        let participant = pb::ParticipantInfo::default().proto_json();
        assert_eq!((&participant["state"], &participant["tracks"]), (&json!("JOINING"), &json!([])));
        assert_eq!(pb::ParticipantInfo { state: 99, ..Default::default() }.proto_json()["state"], 99);
    }
}
