//! The doors by real requests, with a node behind them that only remembers what it was asked.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex},
};

use actix_web::{
    dev::ServiceResponse,
    http::{
        StatusCode,
        header::{self, HeaderName},
    },
    test::{TestRequest, call_service, init_service, read_body, read_body_json},
};
use futures_util::future::LocalBoxFuture;
use plenary_model::{
    Admin, Ban, Codec, Identity, LeaveReason, MediaKind, Participant, ParticipantKind, ParticipantSid,
    ParticipantState, Permission, RoomInfo, RoomName, RoomSid, Source, Track, TrackSid,
};
use plenary_protocol::token::{Claims, Minter, VideoGrant};
use prost::Message;
use serde_json::{Value, json};

use super::{
    Doors,
    authorize::{Access, Authorizer, JoinAsk, Refusal, RoomGate},
    health::{Health, Unready},
    room_api::{ApiError, RoomApi, RoomCall, RoomReply},
};
use crate::{
    config::{Settings, Sources},
    tokens::unix_seconds,
};

#[derive(Default)]
struct FakeNode {
    calls: Mutex<Vec<RoomCall>>,
    refuses: Mutex<Option<ApiError>>,
    nobody_there: Mutex<bool>,
    turns_away: Mutex<Option<Refusal>>,
    unready: Mutex<Option<Unready>>,
}

impl RoomApi for FakeNode {
    fn call(&self, call: RoomCall) -> LocalBoxFuture<'_, Result<RoomReply, ApiError>> {
        let reply = match &call {
            RoomCall::CreateRoom(_) | RoomCall::SetMetadata { .. } => RoomReply::Room(room()),
            RoomCall::ListRooms { .. } => RoomReply::Rooms(vec![room()]),
            RoomCall::ListParticipants { .. } => RoomReply::Participants(vec![ann()]),
            RoomCall::GetParticipant { .. } => RoomReply::Participant(ann()),
            RoomCall::Admin { what: Admin::Mute { .. } | Admin::Update { .. }, .. } => RoomReply::Participant(ann()),
            RoomCall::ListBans { .. } => RoomReply::Bans(vec![ban()]),
            RoomCall::DescribeNode
            | RoomCall::DeleteRoom { .. }
            | RoomCall::Admin { .. }
            | RoomCall::Revoke { .. }
            | RoomCall::Ban { .. }
            | RoomCall::LiftBan { .. }
            | RoomCall::StartEgress(_)
            | RoomCall::StopEgress { .. }
            | RoomCall::UpdateLayout { .. }
            | RoomCall::ListEgress { .. }
            | RoomCall::Drain
            | RoomCall::Undrain => RoomReply::Done,
        };
        let missing = *self.nobody_there.lock().unwrap() && matches!(call, RoomCall::Admin { .. });
        self.calls.lock().unwrap().push(call);
        let refused = self.refuses.lock().unwrap().or(missing.then_some(ApiError::NoSuchParticipant));
        Box::pin(async move { refused.map_or(Ok(reply), Err) })
    }

    fn codecs(&self) -> &[Codec] {
        &[Codec::H264, Codec::Opus]
    }
}

impl RoomGate for FakeNode {
    fn admit<'a>(&'a self, _: &'a JoinAsk) -> LocalBoxFuture<'a, Result<(), Refusal>> {
        let verdict = self.turns_away.lock().unwrap().clone();
        Box::pin(async move { verdict.map_or(Ok(()), Err) })
    }
}

impl Health for FakeNode {
    fn unready(&self) -> Option<Unready> {
        *self.unready.lock().unwrap()
    }
}

fn ban() -> Ban {
    let (identity, room) = (identity("ann"), Some(name("standup")));
    Ban { identity, room, tokens_before_unix_s: Some(7), until_unix_s: 9 }
}

fn room() -> RoomInfo {
    RoomInfo {
        sid: RoomSid::from("RM_1"),
        name: name("standup"),
        created_at_ms: 1_800_000_000_000,
        metadata: String::new(),
        empty_timeout_s: 300,
        departure_timeout_s: 20,
        max_participants: 0,
        participants: 1,
        publishers: 0,
        active_recording: false,
        has_active_egress: false,
        auto_egress: Default::default(),
    }
}

fn ann() -> Arc<Participant> {
    let track = Track {
        sid: TrackSid::from("TR_1"),
        kind: MediaKind::Audio,
        source: Source::Microphone,
        name: "mic".into(),
        muted: true,
        width: 0,
        height: 0,
        simulcast: false,
        stream: "camera".into(),
        mime: "audio/opus".into(),
        mid: "0".into(),
        codecs: Vec::new(),
        layers: Vec::new(),
        encryption: Default::default(),
        disable_red: false,
        audio_features: Vec::new(),
        trailer_features: Vec::new(),
        backup_codec_policy: Default::default(),
        version: Default::default(),
    };
    Arc::new(Participant {
        sid: ParticipantSid::from("PA_1"),
        identity: identity("ann"),
        name: "Ann".into(),
        metadata: String::new(),
        attributes: Default::default(),
        state: ParticipantState::Active,
        kind: ParticipantKind::Standard,
        permission: Permission::default(),
        tracks: vec![track],
        audience: plenary_model::Audience::default(),
        data_tracks: Vec::new(),
        joined_at_ms: 1,
        version: 1,
        is_publisher: true,
        leave_reason: LeaveReason::Unknown,
        client_protocol: 0,
        capabilities: Vec::new(),
    })
}

fn name(text: &str) -> RoomName {
    RoomName::try_from(text).unwrap()
}

fn identity(text: &str) -> Identity {
    Identity::try_from(text).unwrap()
}

fn settings() -> Settings {
    Settings::load(&Sources::default()).unwrap()
}

/// A running application over a fake node.
macro_rules! doors {
    ($node:expr) => {
        doors!($node, settings())
    };
    ($node:expr, $settings:expr) => {
        init_service(Doors::new(&$settings, Access::new(&$settings), $node.clone()).app(|_| {})).await
    };
}

mod admin;
mod egress;
mod recordings;
mod room_service;

fn token(video: VideoGrant) -> String {
    let claims = Claims {
        issuer: "devkey".into(),
        subject: Some("ann".into()),
        expires_at: Some(unix_seconds() + 60),
        video,
        ..Claims::default()
    };
    Minter::new(&settings().keys).mint(&claims).unwrap()
}

fn admin() -> VideoGrant {
    VideoGrant { room_admin: true, room: "standup".into(), ..VideoGrant::default() }
}

fn everything() -> VideoGrant {
    VideoGrant { room_create: true, room_list: true, ..admin() }
}

fn joiner() -> VideoGrant {
    VideoGrant { room_join: true, room: "standup".into(), ..VideoGrant::default() }
}

fn call(method: &str, video: VideoGrant, kind: &str, body: impl Into<actix_web::web::Bytes>) -> TestRequest {
    TestRequest::post()
        .uri(&format!("/twirp/livekit.RoomService/{method}"))
        .insert_header((header::AUTHORIZATION, format!("Bearer {}", token(video))))
        .insert_header((header::CONTENT_TYPE, kind))
        .set_payload(body)
}

fn call_json(method: &str, video: VideoGrant, body: Value) -> TestRequest {
    call(method, video, "application/json; charset=utf-8", body.to_string())
}

fn call_binary(method: &str, video: VideoGrant, body: &impl Message) -> TestRequest {
    call(method, video, "application/protobuf", body.encode_to_vec())
}

fn is_open_to_browsers<B>(response: &ServiceResponse<B>) -> bool {
    response.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_some_and(|origin| origin == "*")
}

fn value<B>(response: &ServiceResponse<B>, name: HeaderName) -> &str {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[actix_web::test]
async fn the_root_says_ok_to_sdks_and_leads_people_to_the_page() {
    let node = Arc::new(FakeNode::default());
    let app = doors!(node);
    let response = call_service(&app, TestRequest::get().uri("/").to_request()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(read_body(response).await, "OK");
    let head = TestRequest::default().method(actix_web::http::Method::HEAD).uri("/").to_request();
    assert_eq!(call_service(&app, head).await.status(), StatusCode::OK);
    let browser = TestRequest::get().uri("/").insert_header((header::ACCEPT, "text/html,application/xhtml+xml"));
    let response = call_service(&app, browser.to_request()).await;
    assert_eq!(response.headers().get(header::LOCATION).unwrap(), "/meet");
}

#[actix_web::test]
async fn readiness_says_why_and_tells_leaving_from_unable() {
    let node = Arc::new(FakeNode::default());
    let app = doors!(node);
    for (unready, status, text) in [
        (None, 200, "ready"),
        (Some(Unready::Starting), 503, "starting"),
        (Some(Unready::Overloaded), 503, "overloaded"),
        (Some(Unready::Leaving), 404, "leaving"),
        (Some(Unready::CutOff), 404, "cut off"),
    ] {
        *node.unready.lock().unwrap() = unready;
        let response = call_service(&app, TestRequest::get().uri("/readyz").to_request()).await;
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(read_body(response).await, text);
        let response = call_service(&app, TestRequest::get().uri("/healthz").to_request()).await;
        assert_eq!(response.status(), StatusCode::OK, "liveness is another question");
    }
}

#[actix_web::test]
async fn validate_gives_the_verdict_of_the_socket() {
    let node = Arc::new(FakeNode::default());
    let app = doors!(node);
    let good = format!("/rtc/validate?access_token={}&&auto_subscribe=1", token(joiner()));
    let response = call_service(&app, TestRequest::get().uri(&good).to_request()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(is_open_to_browsers(&response));
    assert_eq!(read_body(response).await, "success");

    let no_grant = format!("/rtc/validate?access_token={}", token(admin()));
    for uri in ["/rtc/validate", "/rtc/validate?access_token=a.b.c", &no_grant] {
        let response = call_service(&app, TestRequest::get().uri(uri).to_request()).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{uri}");
        assert!(is_open_to_browsers(&response));
        let text = read_body(response).await;
        assert!(!text.is_empty() && !text.windows(5).any(|part| part == b"a.b.c"), "{text:?}");
    }

    for (refusal, status) in
        [(Refusal::RoomNotFound, 404), (Refusal::RoomFull, 403), (Refusal::NodeUnavailable("draining"), 503)]
    {
        *node.turns_away.lock().unwrap() = Some(refusal.clone());
        let response = call_service(&app, TestRequest::get().uri(&good).to_request()).await;
        assert_eq!(response.status().as_u16(), status);
        assert!(is_open_to_browsers(&response));
        assert_eq!(read_body(response).await, refusal.to_string());
    }
}

#[actix_web::test]
async fn what_is_not_here_is_an_empty_404_that_browsers_can_read() {
    let node = Arc::new(FakeNode::default());
    let app = doors!(node);
    for uri in ["/rtc/v1", "/rtc/v1/validate?join_request=abc", "/settings/regions", "/nowhere", "/rtc//v1"] {
        let response = call_service(&app, TestRequest::get().uri(uri).to_request()).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{uri}");
        assert!(is_open_to_browsers(&response), "{uri}");
        assert!(read_body(response).await.is_empty(), "{uri}");
    }
}

#[actix_web::test]
async fn a_doubled_slash_is_one() {
    let node = Arc::new(FakeNode::default());
    let app = doors!(node);
    let uri = format!("//rtc/validate?access_token={}", token(joiner()));
    assert_eq!(call_service(&app, TestRequest::get().uri(&uri).to_request()).await.status(), StatusCode::OK);
}

#[actix_web::test]
async fn preflights_allow_what_was_asked_for() {
    let node = Arc::new(FakeNode::default());
    let app = doors!(node);
    let preflight = TestRequest::default()
        .method(actix_web::http::Method::OPTIONS)
        .uri("/twirp/livekit.RoomService/ListRooms")
        .insert_header((header::ORIGIN, "https://app.example"))
        .insert_header((header::ACCESS_CONTROL_REQUEST_METHOD, "POST"))
        .insert_header((header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization,content-type"));
    let response = call_service(&app, preflight.to_request()).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert!(is_open_to_browsers(&response));
    assert_eq!(value(&response, header::ACCESS_CONTROL_ALLOW_HEADERS), "authorization,content-type");
    assert!(value(&response, header::ACCESS_CONTROL_ALLOW_METHODS).contains("POST"));
}

#[actix_web::test]
async fn a_body_over_the_limit_is_refused_where_browsers_can_read_it() {
    let node = Arc::new(FakeNode::default());
    let mut settings = settings();
    settings.limits.http_body_bytes = 1000;
    let app = doors!(node, settings);
    let fits = json!({ "names": ["x".repeat(900)] });
    assert_eq!(
        call_service(&app, call_json("ListRooms", everything(), fits).to_request()).await.status(),
        StatusCode::OK
    );
    let large = json!({ "names": ["x".repeat(1000)] });
    let response = call_service(&app, call_json("ListRooms", everything(), large).to_request()).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(is_open_to_browsers(&response));
}

#[actix_web::test]
async fn development_tokens_are_for_this_machine_alone() {
    let node = Arc::new(FakeNode::default());
    let app = doors!(node);
    let here = "127.0.0.1:50000".parse().unwrap();
    let ask = |peer| {
        TestRequest::post()
            .uri("/dev/token")
            .peer_addr(peer)
            .insert_header((header::HOST, "localhost:7880"))
            .set_json(json!({ "room": "demo", "identity": "guest-1", "name": "Guest" }))
    };
    let response =
        call_service(&app, ask(here).insert_header((header::ORIGIN, "http://localhost:7880")).to_request()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let answer: Value = read_body_json(response).await;
    assert_eq!(answer["room"], "demo");
    let uri = format!("/rtc/validate?access_token={}", answer["token"].as_str().unwrap());
    assert_eq!(call_service(&app, TestRequest::get().uri(&uri).to_request()).await.status(), StatusCode::OK);

    let refused = [
        ask("203.0.113.5:50000".parse().unwrap()),
        ask(here).insert_header((header::HOST, "rebound.example:7880")),
        ask(here).insert_header((header::ORIGIN, "https://evil.example")),
        ask(here).insert_header((header::ORIGIN, "null")),
        ask(here).insert_header((header::X_FORWARDED_FOR, "203.0.113.5")),
    ];
    for (number, request) in refused.into_iter().enumerate() {
        assert_eq!(call_service(&app, request.to_request()).await.status(), StatusCode::NOT_FOUND, "case {number}");
    }
    let bad = ask(here).set_json(json!({ "room": "", "identity": "x" }));
    assert_eq!(call_service(&app, bad.to_request()).await.status(), StatusCode::BAD_REQUEST);

    let environment = [("PLENARY_KEYS".to_owned(), "api: 0123456789abcdef0123456789abcdef".to_owned())].into();
    let keyed = Settings::load(&Sources { environment, ..Sources::default() }).unwrap();
    let app = doors!(node, keyed);
    assert_eq!(
        call_service(&app, ask(here).to_request()).await.status(),
        StatusCode::NOT_FOUND,
        "with keys it is gone"
    );
}

#[actix_web::test]
async fn development_tokens_record_where_recordings_are_kept() {
    let node = Arc::new(FakeNode::default());
    for directory in [None, Some("/var/lib/plenary".into())] {
        let mut settings = settings();
        settings.recording.directory = directory.clone();
        let app = doors!(node, settings);
        let ask = TestRequest::post()
            .uri("/dev/token")
            .peer_addr("127.0.0.1:50000".parse().unwrap())
            .insert_header((header::HOST, "localhost:7880"))
            .set_json(json!({ "room": "demo", "identity": "guest-1" }));
        let answer: Value = read_body_json(call_service(&app, ask.to_request()).await).await;
        let authorizer = Authorizer::new(&settings, Access::new(&settings));
        let bearer = format!("Bearer {}", answer["token"].as_str().unwrap());
        let claims = authorizer.bearer(Some(&bearer), unix_seconds()).await.unwrap();
        assert_eq!(claims.video.room_record, directory.is_some());
    }
}

#[actix_web::test]
async fn the_meet_page_is_served_strictly_and_cheaply() {
    let node = Arc::new(FakeNode::default());
    let app = doors!(node);
    for uri in ["/meet", "/meet/", "/meet/index.html"] {
        let response = call_service(&app, TestRequest::get().uri(uri).to_request()).await;
        assert_eq!(response.status(), StatusCode::OK, "{uri}");
        assert_eq!(value(&response, header::CONTENT_TYPE), "text/html; charset=utf-8");
        let policy = value(&response, header::CONTENT_SECURITY_POLICY).to_owned();
        assert!(
            policy.starts_with("default-src 'self';")
                && !policy.contains("unsafe")
                && policy.contains("frame-ancestors 'none'")
        );
        assert_eq!(value(&response, header::X_CONTENT_TYPE_OPTIONS), "nosniff");
        assert_eq!(value(&response, header::REFERRER_POLICY), "no-referrer");
    }
    let script = || TestRequest::get().uri("/meet/access.js");
    let response = call_service(&app, script().insert_header((header::ACCEPT_ENCODING, "gzip")).to_request()).await;
    assert_eq!(value(&response, header::CONTENT_ENCODING), "gzip");
    assert!(value(&response, header::CONTENT_TYPE).contains("javascript"));
    let tag = value(&response, header::ETAG).to_owned();
    let again = call_service(&app, script().insert_header((header::IF_NONE_MATCH, tag)).to_request()).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);

    for uri in [
        "/meet/jsconfig.json",
        "/meet/vendor/README.md",
        "/meet/vendor/update.sh",
        "/meet/../Cargo.toml",
        "/meet/..%2f..%2fCargo.toml",
        "/meet/%2e%2e/Cargo.toml",
        "/meet//etc/passwd",
        "/meet/nothing.js",
        "/meet/vendor",
    ] {
        let response = call_service(&app, TestRequest::get().uri(uri).to_request()).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{uri}");
    }
}

#[actix_web::test]
async fn long_request_lines_are_read_and_endless_ones_end_the_connection() {
    let doors = Doors::new(&settings(), Access::new(&settings()), Arc::new(FakeNode::default()));
    let server = actix_web::HttpServer::new(move || doors.app(|_| {})).workers(1).disable_signals();
    let server = server.bind("127.0.0.1:0").unwrap();
    let address = server.addrs()[0];
    actix_web::rt::spawn(server.run());

    let ask = move |padding: usize| {
        let token = token(joiner());
        let line = format!("GET /rtc/validate?access_token={token}&join={} HTTP/1.1\r\n", "x".repeat(padding));
        tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            // An endless request is cut while it is being written.
            let _ = stream
                .write_all(line.as_bytes())
                .and_then(|()| stream.write_all(b"Host: x\r\nConnection: close\r\n\r\n"));
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            String::from_utf8_lossy(&answer).into_owned()
        })
    };
    let read = ask(60 << 10).await.unwrap();
    assert!(read.starts_with("HTTP/1.1 200 OK") && read.ends_with("success"), "{read}");
    let refused = ask(1 << 20).await.unwrap();
    assert!(!refused.contains("success") && !refused.contains("200 OK"), "{refused}");
}
