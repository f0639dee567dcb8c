//! The Egress API, with a store behind it and a recorder that only remembers what it was told.

use std::time::Duration;

use livekit_protocol as pb;
use plenary_cluster::{InProcess, NewRoom, RoomDefaults, Seat, Store};
use plenary_model::{Egress, EgressFile, EgressFileKind, EgressMedia, EgressSource, EgressStatus, NodeId};
use tokio::sync::mpsc;

use super::*;
use crate::egress::{
    Egresses,
    testing::{FakeRecorder, Told},
};

struct RecordingNode {
    node: FakeNode,
    store: Arc<InProcess>,
    told: tokio::sync::Mutex<mpsc::UnboundedReceiver<Told>>,
    egresses: Arc<Egresses>,
}

impl RecordingNode {
    /// With the room `standup`, in which ann has a microphone open.
    async fn new() -> Arc<Self> {
        let (store, (recorder, told)) = (Arc::new(InProcess::new()), FakeRecorder::new());
        let egresses = Arc::new(Egresses::new(store.clone(), NodeId::from("ND_1")));
        egresses.record(recorder);
        let seat = Seat {
            participant: (*ann()).clone(),
            node: NodeId::from("ND_1"),
            issued_unix_s: None,
            now_unix_s: 1,
            create: Some(standup()),
            trace: None,
        };
        store.join(name("standup"), seat).await.unwrap();
        Arc::new(Self { node: FakeNode::default(), store, told: told.into(), egresses })
    }

    /// What the recorder is told next.
    async fn told(&self) -> Told {
        let mut told = self.told.lock().await;
        tokio::time::timeout(PATIENCE, told.recv()).await.expect("it was told nothing").unwrap()
    }

    async fn stored(&self, id: &Value) -> Egress {
        let all = self.egresses.list(Default::default()).await.unwrap();
        (**all.iter().find(|one| *id == one.id.as_str()).unwrap()).clone()
    }

    async fn becomes(&self, id: &Value, status: EgressStatus, files: Vec<EgressFile>) {
        let stored = self.stored(id).await;
        let next = Egress { status, files, version: stored.version + 1, ended_at_ns: 9, ..stored };
        self.store.put_egress(next, None).await.unwrap();
    }
}

impl RoomApi for RecordingNode {
    fn call(&self, call: RoomCall) -> LocalBoxFuture<'_, Result<RoomReply, ApiError>> {
        Box::pin(async move {
            match call {
                RoomCall::StartEgress(ask) => self.egresses.start(ask).await.map(RoomReply::Egress),
                RoomCall::StopEgress { egress } => self.egresses.stop(&egress).await.map(RoomReply::Egress),
                RoomCall::UpdateLayout { egress, layout } => {
                    self.egresses.update_layout(&egress, &layout).await.map(RoomReply::Egress)
                }
                RoomCall::ListEgress { room, egress: id, active } => {
                    let filter = plenary_cluster::EgressFilter { room, id, active };
                    self.egresses.list(filter).await.map(RoomReply::Egresses)
                }
                other => self.node.call(other).await,
            }
        })
    }

    fn codecs(&self) -> &[Codec] {
        self.node.codecs()
    }
}

impl RoomGate for RecordingNode {
    fn admit<'a>(&'a self, ask: &'a JoinAsk) -> LocalBoxFuture<'a, Result<(), Refusal>> {
        self.node.admit(ask)
    }
}

impl Health for RecordingNode {
    fn unready(&self) -> Option<Unready> {
        self.node.unready()
    }
}

fn standup() -> NewRoom {
    NewRoom {
        name: name("standup"),
        sid: "RM_1".into(),
        view: 1,
        now_unix_ms: 1,
        metadata: None,
        empty_timeout_s: None,
        departure_timeout_s: None,
        max_participants: None,
        auto_egress: Default::default(),
        defaults: RoomDefaults { empty_timeout_s: 300, departure_timeout_s: 20, max_participants: 0 },
    }
}

fn record() -> VideoGrant {
    VideoGrant { room_record: true, ..VideoGrant::default() }
}

fn ask(method: &str, video: VideoGrant, kind: &str, body: impl Into<actix_web::web::Bytes>) -> TestRequest {
    call(method, video, kind, body).uri(&format!("/twirp/livekit.Egress/{method}"))
}

fn ask_json(method: &str, body: Value) -> TestRequest {
    ask(method, record(), "application/json", body.to_string())
}

/// Status and body of an answer in JSON.
macro_rules! answer {
    ($app:expr, $method:expr, $body:expr) => {{
        let response = call_service(&$app, ask_json($method, $body).to_request()).await;
        let status = response.status().as_u16();
        (status, read_body_json::<Value, _>(response).await)
    }};
}

#[actix_web::test]
async fn a_recording_is_started_shown_arranged_and_stopped() {
    let node = RecordingNode::new().await;
    let app = doors!(node);
    let start =
        json!({ "roomName": "standup", "layout": "grid", "file_outputs": [{ "filepath": "calls/{room_name}" }] });
    let (status, started) = answer!(app, "StartRoomCompositeEgress", start);
    assert_eq!(status, 200, "{started}");
    let id = started["egress_id"].clone();
    assert!(id.as_str().unwrap().starts_with("EG_"));
    assert_eq!((&started["status"], &started["room_id"]), (&json!("EGRESS_STARTING"), &json!("RM_1")));
    assert_eq!((&started["started_at"], &started["ended_at"]), (&json!("0"), &json!("0")), "defaults are written");
    assert!(started["updated_at"].as_str().unwrap().len() == 19, "nanoseconds: {}", started["updated_at"]);
    assert_eq!(started["file_results"][0]["filename"], "calls/standup.mp4");
    assert_eq!(started["room_composite"]["file_outputs"][0]["filepath"], "calls/{room_name}", "the request as it was");
    assert_eq!(started["room_composite"]["layout"], "grid");

    let Told::Start(held) = node.told().await else { panic!("it is to start first") };
    assert_eq!(id, held.egress.id.as_str());
    let (status, arranged) = answer!(app, "UpdateLayout", json!({ "egress_id": id, "layout": "speaker-dark" }));
    assert_eq!((status, &arranged["status"]), (200, &json!("EGRESS_STARTING")));
    let source = EgressSource::Room { layout: "speaker-dark".into(), media: EgressMedia::Both };
    assert_eq!(node.stored(&id).await.source, source);
    assert!(matches!(node.told().await, Told::Layout(egress) if egress.source == source));

    node.becomes(&id, EgressStatus::Active, Vec::new()).await;
    let (_, listed) = answer!(app, "ListEgress", json!({ "room_name": "standup", "active": true }));
    assert_eq!(listed["items"][0]["status"], "EGRESS_ACTIVE");
    let (status, stopped) = answer!(app, "StopEgress", json!({ "egress_id": id }));
    assert_eq!((status, &stopped["status"]), (200, &json!("EGRESS_ENDING")));
    assert!(matches!(node.told().await, Told::Stop(egress) if egress.status == EgressStatus::Ending));
    let (status, again) = answer!(app, "StopEgress", json!({ "egress_id": id }));
    assert_eq!((status, &again["code"]), (412, &json!("failed_precondition")));
    assert_eq!(again["msg"], "egress with status EGRESS_ENDING cannot be stopped");
    let file =
        EgressFile { path: "calls/standup.mp4".into(), started_at_ns: 1, ended_at_ns: 4, duration_ns: 3, bytes: 7 };
    node.becomes(&id, EgressStatus::Complete, vec![file]).await;
    let (_, over) = answer!(app, "StopEgress", json!({ "egress_id": id }));
    assert_eq!(over["msg"], "egress with status EGRESS_COMPLETE cannot be stopped");
    let (_, late) = answer!(app, "UpdateLayout", json!({ "egress_id": id, "layout": "grid" }));
    assert_eq!(late["msg"], "egress with status EGRESS_COMPLETE cannot be updated");
    let (_, listed) = answer!(app, "ListEgress", json!({ "egressId": id }));
    assert_eq!(listed["items"][0]["error_code"], 0);
    let result = &listed["items"][0]["file_results"][0];
    assert_eq!(result, &listed["items"][0]["file"], "for those who know a single result");
    assert_eq!((&result["duration"], &result["size"], &result["ended_at"]), (&json!("3"), &json!("7"), &json!("4")));
    let (_, listed) = answer!(app, "ListEgress", json!({ "active": true }));
    assert_eq!(listed, json!({ "items": [], "next_page_token": null }));
    assert!(node.told.lock().await.is_empty());
}

#[actix_web::test]
#[allow(deprecated)]
async fn whoever_asks_in_protobuf_is_answered_in_it_and_the_old_way_too() {
    let node = RecordingNode::new().await;
    let app = doors!(node);
    let file = pb::EncodedFileOutput { filepath: "x".into(), ..Default::default() };
    let start = pb::RoomCompositeEgressRequest {
        room_name: "standup".into(),
        audio_only: true,
        output: Some(pb::room_composite_egress_request::Output::File(file)),
        ..Default::default()
    };
    let request = ask("StartRoomCompositeEgress", record(), "application/protobuf", start.encode_to_vec());
    let response = call_service(&app, request.to_request()).await;
    let info = pb::EgressInfo::decode(read_body(response).await).unwrap();
    assert_eq!(info.request, Some(pb::egress_info::Request::RoomComposite(start)));
    assert_eq!(info.file_results[0].filename, "x.ogg");
    assert_eq!(info.result, Some(pb::egress_info::Result::File(info.file_results[0].clone())));

    let stop = pb::StopEgressRequest { egress_id: info.egress_id.clone() };
    let request = ask("StopEgress", record(), "application/protobuf", stop.encode_to_vec());
    let stopped = pb::EgressInfo::decode(read_body(call_service(&app, request.to_request()).await).await).unwrap();
    assert_eq!(stopped.status(), pb::EgressStatus::EgressAborted, "it had not begun");
    assert!(stopped.ended_at > 0 && !stopped.error.is_empty());
    assert_eq!(stopped.error_code, 412);
}

#[actix_web::test]
async fn every_way_to_ask_comes_to_what_is_recorded() {
    let everybody = |layout: &str, media| EgressSource::Room { layout: layout.into(), media };
    let of_ann = |screen_share| EgressSource::Participant { identity: identity("ann"), screen_share };
    let microphone = || Some(TrackSid::from("TR_1"));
    let file = json!([{ "filepath": "f" }]);
    let output = json!([{ "file": { "filepath": "f" } }]);
    let cases = [
        (
            "StartRoomCompositeEgress",
            json!({ "video_only": true, "file_outputs": file }),
            everybody("", EgressMedia::VideoOnly),
            EgressFileKind::Mp4,
            "f.mp4",
        ),
        (
            "StartRoomCompositeEgress",
            json!({ "audio_only": true, "file": { "file_type": "MP3", "filepath": "f" } }),
            everybody("", EgressMedia::AudioOnly),
            EgressFileKind::Mp3,
            "f.mp3",
        ),
        (
            "StartRoomCompositeEgress",
            json!({ "file": { "filepath": "f" }, "file_outputs": file, "preset": "PORTRAIT_H264_1080P_30" }),
            everybody("", EgressMedia::Both),
            EgressFileKind::Mp4,
            "f.mp4",
        ),
        (
            "StartParticipantEgress",
            json!({ "identity": "ann", "screen_share": true, "file_outputs": file }),
            of_ann(true),
            EgressFileKind::Mp4,
            "f.mp4",
        ),
        (
            "StartTrackCompositeEgress",
            json!({ "audio_track_id": "TR_1", "file_outputs": file }),
            EgressSource::Tracks { audio: microphone(), video: None },
            EgressFileKind::Ogg,
            "f.ogg",
        ),
        (
            "StartTrackEgress",
            json!({ "track_id": "TR_1", "file": { "filepath": "{publisher_identity}/{track_type}-{track_source}-{track_id}" } }),
            EgressSource::Track { track: "TR_1".into() },
            EgressFileKind::AsPublished,
            "ann/audio-microphone-TR_1.webm",
        ),
        (
            "StartEgress",
            json!({ "template": { "layout": "speaker" }, "outputs": output }),
            everybody("speaker", EgressMedia::Both),
            EgressFileKind::Mp4,
            "f.mp4",
        ),
        (
            "StartEgress",
            json!({ "media": { "participant_video": { "identity": "ann" } }, "outputs": output }),
            of_ann(false),
            EgressFileKind::Mp4,
            "f.mp4",
        ),
        (
            "StartEgress",
            json!({ "media": { "audio": { "routes": [{ "track_id": "TR_1" }] } }, "outputs": output }),
            EgressSource::Tracks { audio: microphone(), video: None },
            EgressFileKind::Ogg,
            "f.ogg",
        ),
        (
            "StartEgress",
            json!({ "media": { "audio": { "routes": [{ "track_id": "TR_1" }] } }, "preset": "PASSTHROUGH", "outputs": output }),
            EgressSource::Track { track: "TR_1".into() },
            EgressFileKind::AsPublished,
            "f.webm",
        ),
    ];
    for (method, mut body, source, kind, path) in cases {
        let node = RecordingNode::new().await;
        let app = doors!(node);
        body["room_name"] = json!("standup");
        let (status, started) = answer!(app, method, body.clone());
        assert_eq!(status, 200, "{method} {body}: {started}");
        let stored = node.stored(&started["egress_id"]).await;
        assert_eq!((stored.source, stored.outputs[0].kind), (source, kind), "{body}");
        assert_eq!(stored.outputs[0].path, path, "{body}");
    }
}

#[actix_web::test]
async fn no_two_recordings_of_a_room_have_one_path() {
    let node = RecordingNode::new().await;
    let app = doors!(node);
    let start = json!({ "room_name": "standup", "file_outputs": [{ "filepath": "calls/x.mp4" }] });
    let (_, first) = answer!(app, "StartRoomCompositeEgress", start.clone());
    let (_, second) = answer!(app, "StartRoomCompositeEgress", start);
    let own = format!("calls/x-{}.mp4", second["egress_id"].as_str().unwrap());
    assert_eq!(first["file_results"][0]["filename"], "calls/x.mp4");
    assert_eq!(second["file_results"][0]["filename"], own);
}

#[actix_web::test]
async fn what_cannot_be_recorded_is_refused_by_name() {
    let node = RecordingNode::new().await;
    let app = doors!(node);
    let (room, tracks) = ("StartRoomCompositeEgress", "StartTrackCompositeEgress");
    let file = json!([{ "filepath": "f" }]);
    let cases = [
        (room, json!({ "room_name": "", "file_outputs": file }), 400, "field: room_name"),
        (room, json!({ "room_name": "nowhere", "file_outputs": file }), 404, "requested room does not exist"),
        (room, json!({}), 400, "field: output"),
        (room, json!({ "audio_only": true, "video_only": true, "file_outputs": file }), 400, "field: audio_only"),
        (room, json!({ "file_outputs": [{ "file_type": "OGG" }] }), 400, "field: file_type"),
        (room, json!({ "file_outputs": [{ "filepath": "../x" }] }), 400, "filepath must not contain"),
        (room, json!({ "file_outputs": [{ "filepath": "/etc/x" }] }), 400, "filepath must be relative"),
        (room, json!({ "file_outputs": [{ "filepath": "{track_id}" }] }), 400, "filepath names {track_id}"),
        (room, json!({ "file_outputs": [{}, {}] }), 501, "more than one file"),
        (room, json!({ "file_outputs": file, "layout": "novel" }), 501, "layout"),
        (room, json!({ "file_outputs": file, "custom_base_url": "https://x" }), 501, "custom_base_url"),
        (room, json!({ "file_outputs": file, "audio_mixing": "DUAL_CHANNEL_AGENT" }), 501, "audio_mixing"),
        (room, json!({ "file_outputs": file, "webhooks": [{ "url": "https://x" }] }), 501, "webhooks"),
        (room, json!({ "file_outputs": file, "advanced": { "video_codec": "H264_BASELINE" } }), 501, "video_codec"),
        (room, json!({ "file_outputs": file, "advanced": { "width": 641, "height": 360 } }), 400, "must be even"),
        (room, json!({ "file_outputs": file, "advanced": { "framerate": 90 } }), 400, "from 1 to 60"),
        (room, json!({ "file_outputs": file, "advanced": { "video_bitrate": 1 } }), 400, "bits per second"),
        (room, json!({ "stream_outputs": [{ "urls": ["rtmp://x"] }] }), 501, "stream outputs"),
        (room, json!({ "stream": { "urls": ["rtmp://x"] } }), 501, "stream outputs"),
        (room, json!({ "segments": {} }), 501, "segment outputs"),
        (room, json!({ "segment_outputs": [{}] }), 501, "segment outputs"),
        (room, json!({ "image_outputs": [{}] }), 501, "image outputs"),
        (room, json!({ "file_outputs": [{ "s3": { "secret": "hidden" } }] }), 501, "S3 uploads"),
        (room, json!({ "file_outputs": [{ "gcp": {} }] }), 501, "GCP uploads"),
        (room, json!({ "file_outputs": [{ "azure": {} }] }), 501, "Azure uploads"),
        (room, json!({ "file_outputs": [{ "aliOSS": {} }] }), 501, "AliOSS uploads"),
        ("StartParticipantEgress", json!({ "file_outputs": file }), 400, "field: identity"),
        (tracks, json!({ "file_outputs": file }), 400, "field: audio_track_id"),
        (tracks, json!({ "video_track_id": "TR_1", "file_outputs": file }), 404, "track is not found"),
        (tracks, json!({ "audio_track_id": "TR_9", "file_outputs": file }), 404, "track is not found"),
        ("StartTrackEgress", json!({ "track_id": "TR_9", "file": {} }), 404, "track is not found"),
        ("StartTrackEgress", json!({ "track_id": "TR_1" }), 400, "field: output"),
        ("StartTrackEgress", json!({ "track_id": "TR_1", "websocket_url": "wss://x" }), 501, "websocket_url"),
        ("StartWebEgress", json!({ "url": "https://x" }), 501, "web pages"),
        ("StartEgress", json!({ "outputs": [{ "file": {} }] }), 400, "field: source"),
        ("StartEgress", json!({ "web": { "url": "https://x" }, "outputs": [{ "file": {} }] }), 501, "web pages"),
        (
            "StartEgress",
            json!({ "template": {}, "preset": "PASSTHROUGH", "outputs": [{ "file": {} }] }),
            501,
            "PASSTHROUGH",
        ),
        ("StartEgress", json!({ "template": {} }), 400, "field: output"),
        ("StartEgress", json!({ "template": {}, "outputs": [{ "stream": {} }] }), 501, "stream outputs"),
        ("StartEgress", json!({ "template": {}, "outputs": [{ "file": {} }], "storage": { "s3": {} } }), 501, "S3"),
        ("UpdateStream", json!({ "egress_id": "EG_1" }), 501, "stream outputs"),
        ("UpdateLayout", json!({ "egress_id": "EG_1", "layout": "grid" }), 404, "egress does not exist"),
        ("StopEgress", json!({ "egress_id": "EG_1" }), 404, "egress does not exist"),
        ("StopEgress", json!({}), 404, "egress does not exist"),
        ("Novel", json!({}), 404, "no such method"),
    ];
    for (method, mut body, status, text) in cases {
        if body.get("room_name").is_none() {
            body["room_name"] = json!("standup");
        }
        let (got, said) = answer!(app, method, body.clone());
        assert_eq!(got, status, "{method} {body}: {said}");
        assert!(said["msg"].as_str().unwrap().contains(text), "{method} {body}: {said}");
        assert!(!said.to_string().contains("hidden"));
    }
    assert!(node.told.lock().await.is_empty());
    assert_eq!(answer!(app, "ListEgress", json!({})).1["items"], json!([]));
    assert_eq!(answer!(app, "ListEgress", json!({ "room_name": "no\nroom" })).1["items"], json!([]));
}

#[actix_web::test]
async fn recording_needs_its_grant() {
    let node = RecordingNode::new().await;
    let app = doors!(node);
    let methods =
        ["StartRoomCompositeEgress", "StartTrackEgress", "StartEgress", "StopEgress", "ListEgress", "UpdateLayout"];
    for method in methods {
        let request = ask(method, everything(), "application/json", "{}");
        let response = call_service(&app, request.to_request()).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{method}");
    }
}

#[actix_web::test]
async fn whoever_is_let_into_one_room_records_no_other() {
    let node = RecordingNode::new().await;
    let app = doors!(node);
    let start = json!({ "room_name": "standup", "file_outputs": [{ "filepath": "x" }] });
    let (_, started) = answer!(app, "StartRoomCompositeEgress", start.clone());
    let of = |room: &str| VideoGrant { room: room.into(), ..record() };
    macro_rules! status {
        ($method:expr, $room:expr, $body:expr) => {{
            let request = ask($method, of($room), "application/json", $body.to_string()).to_request();
            call_service(&app, request).await.status().as_u16()
        }};
    }
    assert_eq!(status!("StartRoomCompositeEgress", "lunch", start), 401);
    let id = json!({ "egress_id": started["egress_id"] });
    assert_eq!(status!("StopEgress", "lunch", id), 404);
    let layout = json!({ "egress_id": started["egress_id"], "layout": "grid" });
    assert_eq!(status!("UpdateLayout", "lunch", layout), 404);
    let list = ask("ListEgress", of("lunch"), "application/json", "{}").to_request();
    let listed: Value = read_body_json(call_service(&app, list).await).await;
    assert_eq!(listed["items"], json!([]));
    assert_eq!(status!("StopEgress", "standup", id), 200);
}

#[actix_web::test]
async fn a_room_can_be_made_with_its_recording() {
    let node = Arc::new(FakeNode::default());
    let app = doors!(node);
    let make = |egress: Value| call_json("CreateRoom", everything(), json!({ "name": "standup", "egress": egress }));
    for (egress, status, text) in [
        (json!({ "room": { "file_outputs": [{ "s3": {} }] } }), 501, "S3 uploads"),
        (json!({ "room": { "room_name": "other", "file_outputs": [{}] } }), 400, "field: room_name"),
        (json!({ "room": { "file_outputs": [{ "filepath": "{track_id}" }] } }), 400, "filepath names {track_id}"),
        (json!({ "participant": { "segment_outputs": [{}] } }), 501, "segment outputs"),
        (json!({ "participant": { "file_outputs": [{ "filepath": "../x" }] } }), 400, "filepath must not contain"),
        (json!({ "tracks": { "gcp": {} } }), 501, "uploads to cloud storage"),
        (json!({ "tracks": { "filepath": "x".repeat(5000) } }), 400, "filepath has more than"),
    ] {
        let response = call_service(&app, make(egress).to_request()).await;
        assert_eq!(response.status().as_u16(), status);
        let said = read_body_json::<Value, _>(response).await;
        assert!(said["msg"].as_str().unwrap().contains(text), "{said}");
    }
    let asked = json!({
        "room": { "file_outputs": [{ "filepath": "x" }] },
        "participant": { "preset": "H264_1080P_30", "file_outputs": [{ "filepath": "{publisher_identity}" }] },
        "tracks": { "filepath": "{track_source}" },
    });
    assert_eq!(call_service(&app, make(asked).to_request()).await.status(), StatusCode::OK);
    let calls = node.calls.lock().unwrap();
    let [RoomCall::CreateRoom(create)] = calls.as_slice() else { panic!("{calls:?}") };
    let kept = pb::RoomEgress::decode(create.auto_egress.clone()).unwrap();
    assert_eq!(kept.room.unwrap().file_outputs[0].filepath, "x");
    assert_eq!(kept.participant.unwrap().file_outputs[0].filepath, "{publisher_identity}");
    assert_eq!(kept.tracks.unwrap().filepath, "{track_source}");
}

/// For what happens at once; a machine may be slow.
const PATIENCE: Duration = Duration::from_secs(10);
