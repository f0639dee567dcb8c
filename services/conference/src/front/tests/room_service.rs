//! The room API, call by call.

use livekit_protocol as pb;
use plenary_model::{Admin, Channel, Destination, Source, TrackSid};
use prost::Message;

use super::*;
use crate::front::room_api::CreateRoom;

#[actix_web::test]
async fn every_call_reaches_the_rooms_in_both_encodings() {
    let room = || "standup".to_owned();
    let who = || "ann".to_owned();
    let admin_call = |what| RoomCall::Admin { room: name("standup"), what };
    let cases: Vec<(&str, Value, Vec<u8>, RoomCall)> = vec![
        (
            "CreateRoom",
            json!({ "name": "standup", "emptyTimeout": 60, "max_participants": "5", "metadata": null, "novel": [1] }),
            pb::CreateRoomRequest { name: room(), empty_timeout: 60, max_participants: 5, ..Default::default() }
                .encode_to_vec(),
            RoomCall::CreateRoom(CreateRoom {
                name: name("standup"),
                metadata: None,
                empty_timeout_s: Some(60),
                departure_timeout_s: None,
                max_participants: Some(5),
                auto_egress: Default::default(),
            }),
        ),
        ("ListRooms", json!({}), Vec::new(), RoomCall::ListRooms { names: None }),
        (
            "ListRooms",
            json!({ "names": ["standup", "no\nroom"] }),
            pb::ListRoomsRequest { names: vec![room(), "no\nroom".into()] }.encode_to_vec(),
            RoomCall::ListRooms { names: Some(vec![name("standup")]) },
        ),
        (
            "ListRooms",
            json!({ "names": [""] }),
            pb::ListRoomsRequest { names: vec![String::new()] }.encode_to_vec(),
            RoomCall::ListRooms { names: Some(Vec::new()) },
        ),
        (
            "DeleteRoom",
            json!({ "room": "standup" }),
            pb::DeleteRoomRequest { room: room() }.encode_to_vec(),
            RoomCall::DeleteRoom { room: name("standup") },
        ),
        (
            "ListParticipants",
            json!({ "room": "standup" }),
            pb::ListParticipantsRequest { room: room() }.encode_to_vec(),
            RoomCall::ListParticipants { room: name("standup") },
        ),
        (
            "GetParticipant",
            json!({ "room": "standup", "identity": "ann" }),
            pb::RoomParticipantIdentity { room: room(), identity: who(), ..Default::default() }.encode_to_vec(),
            RoomCall::GetParticipant { room: name("standup"), identity: identity("ann") },
        ),
        (
            "RemoveParticipant",
            json!({ "room": "standup", "identity": "ann" }),
            pb::RoomParticipantIdentity { room: room(), identity: who(), ..Default::default() }.encode_to_vec(),
            admin_call(Admin::Remove { identity: identity("ann") }),
        ),
        (
            "MutePublishedTrack",
            json!({ "room": "standup", "identity": "ann", "trackSid": "TR_1", "muted": true }),
            pb::MuteRoomTrackRequest { room: room(), identity: who(), track_sid: "TR_1".into(), muted: true }
                .encode_to_vec(),
            admin_call(Admin::Mute { identity: identity("ann"), track: TrackSid::from("TR_1"), muted: true }),
        ),
        (
            "UpdateSubscriptions",
            json!({ "room": "standup", "identity": "ann", "track_sids": ["TR_1"], "subscribe": true,
                    "participantTracks": [{ "participant_sid": "PA_2", "trackSids": ["TR_2"] }] }),
            pb::UpdateSubscriptionsRequest {
                room: room(),
                identity: who(),
                track_sids: vec!["TR_1".into()],
                subscribe: true,
                participant_tracks: vec![pb::ParticipantTracks {
                    participant_sid: "PA_2".into(),
                    track_sids: vec!["TR_2".into()],
                }],
            }
            .encode_to_vec(),
            admin_call(Admin::Subscribe {
                identity: identity("ann"),
                tracks: vec![TrackSid::from("TR_1"), TrackSid::from("TR_2")],
                subscribe: true,
            }),
        ),
        (
            "UpdateRoomMetadata",
            json!({ "room": "standup", "metadata": "m" }),
            pb::UpdateRoomMetadataRequest { room: room(), metadata: "m".into() }.encode_to_vec(),
            RoomCall::SetMetadata { room: name("standup"), metadata: "m".into() },
        ),
    ];
    for (method, as_json, as_binary, expected) in cases {
        let node = Arc::new(FakeNode::default());
        let app = doors!(node);
        let json = call_json(method, everything(), as_json);
        let binary = call(method, everything(), "application/protobuf", as_binary);
        for request in [json, binary] {
            let response = call_service(&app, request.to_request()).await;
            assert_eq!(response.status(), StatusCode::OK, "{method}");
            assert!(is_open_to_browsers(&response));
        }
        assert_eq!(*node.calls.lock().unwrap(), [expected.clone(), expected], "{method}");
    }
}

#[actix_web::test]
async fn answers_come_in_the_encoding_of_the_question() {
    let node = Arc::new(FakeNode::default());
    let app = doors!(node);
    let response = call_service(&app, call_json("ListRooms", everything(), json!({})).to_request()).await;
    assert_eq!(value(&response, header::CONTENT_TYPE), "application/json");
    let rooms: Value = read_body_json(response).await;
    assert_eq!(rooms["rooms"][0]["num_participants"], 1);
    let codec = |mime| json!({ "mime": mime, "fmtp_line": "" });
    assert_eq!(rooms["rooms"][0]["enabled_codecs"], json!([codec("video/H264"), codec("audio/opus")]));
    assert_eq!(rooms["rooms"][0]["max_participants"], 0, "defaults are written");
    assert_eq!(rooms["rooms"][0]["creation_time"], "1800000000");

    let request = call_binary("ListParticipants", admin(), &pb::ListParticipantsRequest { room: "standup".into() });
    let response = call_service(&app, request.to_request()).await;
    assert_eq!(value(&response, header::CONTENT_TYPE), "application/protobuf");
    let people = pb::ListParticipantsResponse::decode(read_body(response).await).unwrap();
    assert_eq!(people.participants[0].identity, "ann");

    let mute = json!({ "room": "standup", "identity": "ann", "track_sid": "TR_1", "muted": true });
    let muted: Value =
        read_body_json(call_service(&app, call_json("MutePublishedTrack", admin(), mute).to_request()).await).await;
    assert_eq!((&muted["track"]["sid"], &muted["track"]["type"]), (&json!("TR_1"), &json!("AUDIO")));
    assert_eq!(muted["track"]["source"], "MICROPHONE");
}

#[actix_web::test]
async fn an_update_leaves_alone_what_it_does_not_say() {
    let node = Arc::new(FakeNode::default());
    let app = doors!(node);
    let update = json!({ "room": "standup", "identity": "ann", "name": "", "metadata": "m",
                         "attributes": { "gone": "", "camelKey": "v" },
                         "permission": { "canSubscribe": true, "can_publish_sources": ["MICROPHONE", 1] } });
    let response = call_service(&app, call_json("UpdateParticipant", admin(), update).to_request()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let calls = node.calls.lock().unwrap();
    let [RoomCall::Admin { what: Admin::Update { update, .. }, .. }] = calls.as_slice() else { panic!("{calls:?}") };
    assert_eq!((update.name.as_deref(), update.metadata.as_deref()), (None, Some("m")));
    assert_eq!(update.attributes.len(), 2);
    let permission = update.permission.as_ref().unwrap();
    assert!(permission.can_subscribe && !permission.can_publish, "a permission replaces every flag");
    assert_eq!(permission.can_publish_sources, [Source::Microphone, Source::Camera]);
}

#[actix_web::test]
async fn sent_data_is_a_packet_without_a_sender() {
    let node = Arc::new(FakeNode::default());
    let app = doors!(node);
    let send = json!({ "room": "standup", "data": "aGVsbG8=", "kind": "LOSSY", "destinationIdentities": ["bob"],
                       "topic": "t", "nonce": "AAAAAAAAAAAAAAAAAAAAAA==" });
    assert_eq!(call_service(&app, call_json("SendData", admin(), send).to_request()).await.status(), StatusCode::OK);
    {
        let calls = node.calls.lock().unwrap();
        let [RoomCall::Admin { what: Admin::Send { channel, to, payload }, .. }] = calls.as_slice() else {
            panic!("{calls:?}")
        };
        assert_eq!((*channel, to), (Channel::Lossy, &Destination::Identities(vec![identity("bob")])));
        let packet = pb::DataPacket::decode(payload.clone()).unwrap();
        assert!(packet.participant_identity.is_empty() && packet.participant_sid.is_empty());
        let Some(pb::data_packet::Value::User(user)) = packet.value else { panic!("user packet") };
        assert_eq!((user.payload, user.topic.as_deref(), user.nonce.len()), (b"hello".to_vec(), Some("t"), 16));
    }
    for (wrong, code) in [
        (json!({ "room": "standup", "data": "aGVsbG8=", "nonce": "AAAA" }), "invalid_argument"),
        (json!({ "room": "standup", "destination_identities": [""] }), "invalid_argument"),
        (json!({ "room": "standup", "kind": 7 }), "malformed"),
        (json!({ "room": "standup", "kind": "LOUD" }), "malformed"),
        (json!({ "room": "standup", "data": "A".repeat(100_000) }), "invalid_argument"),
    ] {
        let response = call_service(&app, call_json("SendData", admin(), wrong).to_request()).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(read_body_json::<Value, _>(response).await["code"], code);
    }
    let unknown = pb::SendDataRequest { room: "standup".into(), kind: 7, ..Default::default() };
    let response = call_service(&app, call_binary("SendData", admin(), &unknown).to_request()).await;
    assert_eq!(read_body_json::<Value, _>(response).await["code"], "invalid_argument");
    assert_eq!(node.calls.lock().unwrap().len(), 1, "what is refused goes nowhere");
}

#[actix_web::test]
async fn every_method_needs_its_own_grant() {
    let node = Arc::new(FakeNode::default());
    let app = doors!(node);
    let body = json!({ "room": "standup", "name": "standup", "identity": "ann" });
    let other_room = VideoGrant { room: "other".into(), ..admin() };
    let any_room = VideoGrant { room: String::new(), ..admin() };
    let room_methods = [
        "ListParticipants",
        "GetParticipant",
        "RemoveParticipant",
        "MutePublishedTrack",
        "UpdateParticipant",
        "UpdateSubscriptions",
        "SendData",
        "UpdateRoomMetadata",
    ];
    let mut denied: Vec<(&str, VideoGrant)> = vec![
        ("CreateRoom", admin()),
        ("CreateRoom", VideoGrant { room_list: true, ..VideoGrant::default() }),
        ("DeleteRoom", VideoGrant { room_list: true, ..admin() }),
        ("ListRooms", VideoGrant { room_create: true, ..admin() }),
    ];
    for method in room_methods {
        denied.extend([(method, other_room.clone()), (method, any_room.clone()), (method, joiner())]);
    }
    for (method, grant) in denied {
        let response = call_service(&app, call_json(method, grant.clone(), body.clone()).to_request()).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{method} {grant:?}");
        assert_eq!(read_body_json::<Value, _>(response).await["code"], "unauthenticated");
    }
    let empty = call_json("ListParticipants", any_room, json!({ "room": "" }));
    assert_eq!(call_service(&app, empty.to_request()).await.status(), StatusCode::UNAUTHORIZED);
    assert!(node.calls.lock().unwrap().is_empty());
}

#[actix_web::test]
async fn errors_have_the_codes_of_the_wire() {
    let node = Arc::new(FakeNode::default());
    let app = doors!(node);
    let body = || json!({ "room": "standup", "identity": "ann", "track_sid": "TR_9" });
    for (error, status, code) in [
        (ApiError::NoSuchRoom, 404, "not_found"),
        (ApiError::NoSuchParticipant, 404, "not_found"),
        (ApiError::RemoteUnmuteDisabled, 412, "failed_precondition"),
        (ApiError::TooLarge, 400, "invalid_argument"),
        (ApiError::TooManyRooms, 429, "resource_exhausted"),
        (ApiError::Timeout, 408, "deadline_exceeded"),
        (ApiError::Unavailable, 503, "unavailable"),
        (ApiError::Fault, 500, "internal"),
    ] {
        *node.refuses.lock().unwrap() = Some(error);
        let response = call_service(&app, call_json("MutePublishedTrack", admin(), body()).to_request()).await;
        assert_eq!(response.status().as_u16(), status);
        let answer: Value = read_body_json(response).await;
        assert_eq!(answer, json!({ "code": code, "msg": error.to_string(), "meta": {} }));
    }
    *node.refuses.lock().unwrap() = None;

    let token = token(everything());
    let post =
        |uri: &str| TestRequest::post().uri(uri).insert_header((header::AUTHORIZATION, format!("Bearer {token}")));
    let json_type = || (header::CONTENT_TYPE, "application/json");
    let service = "/twirp/livekit.RoomService";
    let cases = [
        (call_json("MutePublishedTrack", admin(), body()), 404, "not_found"),
        (call_json("PerformRpc", admin(), body()), 501, "unimplemented"),
        (call_json("MoveParticipant", admin(), body()), 501, "unimplemented"),
        (call_json("Novel", admin(), body()), 404, "bad_route"),
        (call("ListRooms", everything(), "application/json", "{"), 400, "malformed"),
        (call("ListRooms", everything(), "application/protobuf", vec![0xff; 9]), 400, "malformed"),
        (call("ListRooms", everything(), "text/plain", "{}"), 404, "bad_route"),
        (call_json("CreateRoom", everything(), json!({})), 400, "invalid_argument"),
        (call_json("CreateRoom", everything(), json!({ "name": "r", "agents": [{}] })), 501, "unimplemented"),
        (
            call_json(
                "RemoveParticipant",
                admin(),
                json!({ "room": "standup", "identity": "ann", "revoke_token_ts": "-5" }),
            ),
            400,
            "invalid_argument",
        ),
        (post("/twirp/livekit.Egress/ListEgress").insert_header(json_type()), 401, "unauthenticated"),
        (post("/twirp/livekit.SIP/ListSIPTrunk").insert_header(json_type()), 501, "unimplemented"),
        (post("/twirp/livekit.Nothing/X").insert_header(json_type()), 404, "bad_route"),
        (TestRequest::get().uri(&format!("{service}/ListRooms")), 404, "bad_route"),
        (TestRequest::post().uri(&format!("{service}/ListRooms")).insert_header(json_type()), 401, "unauthenticated"),
    ];
    for (number, (request, status, code)) in cases.into_iter().enumerate() {
        let response = call_service(&app, request.to_request()).await;
        assert_eq!(response.status().as_u16(), status, "case {number}");
        assert!(is_open_to_browsers(&response));
        assert_eq!(read_body_json::<Value, _>(response).await["code"], code, "case {number}");
    }
}

#[actix_web::test]
async fn a_removal_that_revokes_does_both_and_succeeds_with_nobody_there() {
    let node = Arc::new(FakeNode::default());
    let app = doors!(node);
    let ask = || json!({ "room": "standup", "identity": "ann", "revokeTokenTs": "1800000000" });
    let response = call_service(&app, call_json("RemoveParticipant", admin(), ask()).to_request()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let revoke =
        RoomCall::Revoke { room: name("standup"), identity: identity("ann"), issued_before_unix_s: 1_800_000_000 };
    let remove = RoomCall::Admin { room: name("standup"), what: Admin::Remove { identity: identity("ann") } };
    assert_eq!(*node.calls.lock().unwrap(), [revoke.clone(), remove], "the token first, or they are back in between");

    for (refusal, status) in [(ApiError::TooManyBans, 429), (ApiError::BadTime, 400), (ApiError::Unavailable, 503)] {
        *node.refuses.lock().unwrap() = Some(refusal);
        let response = call_service(&app, call_json("RemoveParticipant", admin(), ask()).to_request()).await;
        assert_eq!(response.status().as_u16(), status, "whoever believes a token revoked must not find it good");
    }
    *node.refuses.lock().unwrap() = None;
    *node.nobody_there.lock().unwrap() = true;
    let response = call_service(&app, call_json("RemoveParticipant", admin(), ask()).to_request()).await;
    assert_eq!(response.status(), StatusCode::OK, "the token is revoked all the same");
    let plain = json!({ "room": "standup", "identity": "ann" });
    let response = call_service(&app, call_json("RemoveParticipant", admin(), plain).to_request()).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}
