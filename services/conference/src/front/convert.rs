//! The client wire's border: protobuf and JSON frames become the cores' signals here and nowhere else, and back.
//!
//! Nothing is decided here. What a frame lacks becomes the wire's default; what it should not contain is left to the
//! session to refuse.

mod client;
mod data;
mod server;

use bytes::Bytes;
use livekit_protocol as pb;
use pb::signal_response::Message as Reply;
use plenary_model::Codec;
use plenary_room_core::signal::{ClientSignal, ServerSignal};
use prost::Message as _;

pub use data::{client_data, server_data};

use client::client_signal;
use server::server_signal;

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

/// What clients are told of this server.
#[derive(Debug, Clone)]
pub struct ServerIdentity {
    pub node_id: String,
    pub region: String,
    /// Ends server-made frames of this node's rooms, so that end-to-end encrypting clients know them.
    pub sif_trailer: Vec<u8>,
    /// What publishers may send in its rooms; some kinds of clients less.
    pub codecs: Vec<Codec>,
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pb::{data_packet::Value, signal_request};
    use plenary_model::*;
    use plenary_room_core::signal::*;

    use super::*;

    fn server(codecs: Vec<Codec>) -> ServerIdentity {
        ServerIdentity { node_id: String::new(), region: String::new(), sif_trailer: Vec::new(), codecs }
    }

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
        let identity = server(Vec::new());
        let signal = ServerSignal::SubscribedQuality { track: "TR_x".into(), codecs };
        let Reply::SubscribedQualityUpdate(update) = server_signal(&signal, &identity, 0) else { panic!() };
        let enabled = |all: &[pb::SubscribedQuality]| all.iter().map(|one| one.enabled).collect::<Vec<_>>();
        let said: Vec<_> =
            update.subscribed_codecs.iter().map(|one| (one.codec.as_str(), enabled(&one.qualities))).collect();
        assert_eq!(said, [("vp9", vec![false; 3]), ("vp8", vec![true, true, false])]);
        assert_eq!(enabled(&update.subscribed_qualities), [false; 3]);
    }

    #[test]
    fn a_room_names_what_the_node_takes_and_the_join_what_this_client_may_send() {
        let server = server(vec![Codec::Av1, Codec::Vp8, Codec::Opus]);
        let room = RoomInfo {
            sid: "RM_1".into(),
            name: RoomName::try_from("r").unwrap(),
            created_at_ms: 0,
            metadata: String::new(),
            empty_timeout_s: 0,
            departure_timeout_s: 0,
            max_participants: 0,
            participants: 0,
            publishers: 0,
            active_recording: false,
            has_active_egress: false,
            auto_egress: Default::default(),
        };
        let join = Join {
            room: room.clone(),
            own: ann(false).into(),
            others: Vec::new(),
            subscriber_primary: true,
            ice_servers: Vec::new(),
            ping_interval_s: 5,
            ping_timeout_s: 15,
            fast_publish: true,
            publish_codecs: vec![Codec::Vp8, Codec::Opus],
        };
        let names = |all: &[pb::Codec]| all.iter().map(|codec| codec.mime.clone()).collect::<Vec<_>>();
        let all = ["video/AV1", "video/VP8", "audio/opus"];
        let Reply::Join(join) = server_signal(&ServerSignal::Join(Box::new(join)), &server, 0) else { panic!() };
        assert_eq!(names(&join.room.unwrap().enabled_codecs), all);
        assert_eq!(names(&join.enabled_publish_codecs), all[1..]);
        let Reply::RoomUpdate(update) = server_signal(&ServerSignal::RoomUpdate { room }, &server, 0) else { panic!() };
        assert_eq!(names(&update.room.unwrap().enabled_codecs), all);
    }

    #[test]
    fn features_of_trailers_are_each_taken_once_and_unknown_ones_not() {
        let ask = pb::AddTrackRequest { packet_trailer_features: vec![1, 0, 1, 99, -1], ..Default::default() };
        let message = signal_request::Message::AddTrack(pb::AddTrackRequest { r#type: 1, ..ask });
        let frame = pb::SignalRequest { message: Some(message) }.encode_to_vec();
        let ClientSignal::AddTrack(ask) = decode(&frame, Encoding::Binary).unwrap() else { panic!() };
        assert_eq!(ask.trailer_features, [TrailerFeature::FrameId, TrailerFeature::UserTimestamp]);
    }

    #[test]
    fn an_empty_or_unknown_message_is_ignored() {
        assert_eq!(decode(b"", Encoding::Binary).unwrap(), ClientSignal::Ignored);
        assert_eq!(decode(&[0xfa, 0x3e, 0x02, b'h', b'i'], Encoding::Binary).unwrap(), ClientSignal::Ignored);
    }
}
