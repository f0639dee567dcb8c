//! Host apps on loopback, who take what they are told, refuse it, break down and say nothing.

use std::{
    collections::{HashMap, VecDeque},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::Mutex,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use plenary_cluster::{InProcess, NewRoom, RoomDefaults};
use plenary_model::{
    Egress, EgressFileKind, EgressOutput, EgressRequest, EgressRequestKind, EgressSource, EgressStatus, LeaveReason,
    RoomInfo, RoomName,
};
use plenary_protocol::token::{DEFAULT_LEEWAY, Keys, Verifier};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::sync::mpsc;

use super::*;
use crate::{
    config::{Settings, Sources},
    tokens::unix_seconds,
};

#[derive(Debug, Clone)]
enum Answer {
    Status(u16),
    RedirectTo(String),
    HangUp,
    Silence,
}

/// What a host app was told.
struct Told {
    head: HashMap<String, String>,
    body: Vec<u8>,
    message: Value,
}

impl Told {
    fn what(&self) -> (&str, &str) {
        let text = |pointer| self.message.pointer(pointer).and_then(Value::as_str).unwrap();
        (text("/event"), text("/room/sid"))
    }
}

/// A host app's server. Its thread ends with the process.
struct HostApp {
    url: String,
    told: mpsc::UnboundedReceiver<Told>,
}

impl HostApp {
    /// Gives these answers one after the other, and then takes everything.
    fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook?token=geheim", listener.local_addr().unwrap());
        let answers = Arc::new(Mutex::new(VecDeque::from_iter(answers)));
        let (tell, told) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answers, tell) = (answers.clone(), tell.clone());
                std::thread::spawn(move || while take(&stream, &answers, &tell).is_some() {});
            }
        });
        Self { url, told }
    }

    async fn next(&mut self) -> Told {
        self.told.recv().await.expect("its server runs")
    }
}

/// One message; none once the connection is over.
fn take(mut stream: &TcpStream, answers: &Mutex<VecDeque<Answer>>, tell: &mpsc::UnboundedSender<Told>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    assert_eq!(lines[0], "POST /hook?token=geheim HTTP/1.1");
    let head: HashMap<_, _> = lines
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut body = vec![0; head["content-length"].parse().unwrap()];
    reader.read_exact(&mut body).ok()?;
    let message = serde_json::from_slice(&body).unwrap();
    let answer = answers.lock().unwrap().pop_front().unwrap_or(Answer::Status(204));
    let _ = tell.send(Told { head, body, message });
    let mut say = |text: String| stream.write_all(format!("HTTP/1.1 {text}Content-Length: 0\r\n\r\n").as_bytes()).ok();
    match answer {
        Answer::Status(status) => say(format!("{status} Odd\r\n")),
        Answer::RedirectTo(to) => say(format!("307 Elsewhere\r\nLocation: {to}\r\n")),
        Answer::HangUp => None,
        Answer::Silence => {
            std::thread::park();
            None
        }
    }
}

/// A node alone, as far as it tells.
struct Site {
    store: Arc<dyn Store>,
    webhooks: Webhooks,
}

impl Site {
    fn start(apps: &[&HostApp]) -> Self {
        let urls: Vec<_> = apps.iter().map(|app| format!("{:?}", app.url)).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!("[webhook]\nurls = [{}]\napi_key = 'devkey'\n", urls.join(","));
        std::fs::write(file.path(), text).unwrap();
        let settings = Settings::load(&Sources { file: Some(file.path().into()), ..Sources::default() }).unwrap();
        let webhook = settings.webhook.as_ref().unwrap();
        let store: Arc<dyn Store> = Arc::new(InProcess::telling(destinations(webhook)));
        crate::tls::install_provider();
        let webhooks = Webhooks::start(webhook, &store, &KeyRing::new(&settings), &[]).unwrap();
        Self { store, webhooks }
    }

    /// Two messages: it starts and finishes.
    async fn room(&self, sid: &str) {
        let room = self.create(sid).await;
        self.store.delete(room.name, LeaveReason::RoomDeleted).await.unwrap();
    }

    async fn create(&self, sid: &str) -> RoomInfo {
        let new = NewRoom {
            name: RoomName::try_from("standup").unwrap(),
            sid: sid.into(),
            view: 1,
            now_unix_ms: 1,
            metadata: None,
            empty_timeout_s: None,
            departure_timeout_s: None,
            max_participants: None,
            auto_egress: Default::default(),
            defaults: RoomDefaults { empty_timeout_s: 1, departure_timeout_s: 1, max_participants: 0 },
        };
        self.store.create(new).await.unwrap()
    }
}

#[tokio::test]
async fn what_happens_in_a_room_is_told_in_its_order_and_signed() {
    let mut app = HostApp::start([]);
    let site = Site::start(&[&app]);
    for sid in ["RM_1", "RM_2"] {
        site.room(sid).await;
    }
    let expected =
        [("room_started", "RM_1"), ("room_finished", "RM_1"), ("room_started", "RM_2"), ("room_finished", "RM_2")];
    let (mut ids, verifier) = (Vec::new(), Verifier::new(&Keys::development(), DEFAULT_LEEWAY));
    for what in expected {
        let told = app.next().await;
        assert_eq!(told.what(), what);
        assert_eq!(told.head["content-type"], "application/webhook+json");
        let claims = verifier.verify(&told.head["authorization"], unix_seconds()).unwrap();
        assert_eq!(claims.sha256, BASE64_STANDARD.encode(digest(&SHA256, &told.body)));
        assert_eq!(claims.video, Default::default(), "it opens no door");
        let created: u64 = told.message["createdAt"].as_str().unwrap().parse().unwrap();
        assert!(created <= unix_seconds());
        let reason = told.message.get("roomEndReason").and_then(Value::as_str);
        assert_eq!(reason, (what.0 == "room_finished").then_some("ROOM_END_API_DELETE"));
        ids.push(told.message["id"].as_str().unwrap().to_owned());
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), expected.len());
    site.webhooks.finish(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn a_recording_is_told_of_with_all_that_is_known_of_it() {
    let mut app = HostApp::start([]);
    let site = Site::start(&[&app]);
    let name = RoomName::try_from("standup").unwrap();
    let room = site.create("RM_1").await;
    let mut egress = Egress {
        id: "EG_1".into(),
        room: name.clone(),
        room_sid: room.sid,
        source: EgressSource::Participant { identity: "ann".try_into().unwrap(), screen_share: false },
        outputs: vec![EgressOutput { kind: EgressFileKind::Mp4, path: "ann.mp4".into() }],
        request: EgressRequest { kind: EgressRequestKind::Participant, message: b"\x12\x03ann".to_vec().into() },
        status: EgressStatus::Starting,
        asked_at_ns: 1,
        started_at_ns: 0,
        ended_at_ns: 0,
        updated_at_ns: 1,
        error: String::new(),
        files: Vec::new(),
        version: 1,
    };
    site.store.start_egress(egress.clone()).await.unwrap();
    for status in [EgressStatus::Active, EgressStatus::Active, EgressStatus::Failed] {
        egress = Egress { status, version: egress.version + 1, error: "disk full".into(), ..egress };
        site.store.put_egress(egress.clone(), None).await.unwrap();
    }
    assert_eq!(app.next().await.what(), ("room_started", "RM_1"));
    let mut ids = Vec::new();
    for (event, status) in [
        ("egress_started", None),
        ("egress_updated", Some("EGRESS_ACTIVE")),
        ("egress_updated", Some("EGRESS_ACTIVE")),
        ("egress_ended", Some("EGRESS_FAILED")),
    ] {
        let message = app.next().await.message;
        let info = &message["egressInfo"];
        assert_eq!((message["event"].as_str(), info["status"].as_str()), (Some(event), status));
        assert_eq!((&info["egressId"], &info["roomId"]), (&Value::from("EG_1"), &Value::from("RM_1")));
        assert_eq!(info["participant"]["identity"], "ann", "the request");
        assert_eq!(info["fileResults"][0]["filename"], "ann.mp4");
        assert_eq!(info.get("error").is_some(), event != "egress_started");
        assert_eq!(message.get("room"), None, "it may be gone");
        ids.push(message["id"].as_str().unwrap().to_owned());
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    site.webhooks.finish(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn what_is_not_taken_is_told_again_under_the_same_id_and_before_what_follows() {
    let mut app = HostApp::start([Answer::Status(503), Answer::HangUp, Answer::Status(204), Answer::Status(429)]);
    let site = Site::start(&[&app]);
    site.room("RM_1").await;
    let (mut events, mut ids) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let told = app.next().await;
        events.push(told.what().0.to_owned());
        ids.push(told.message["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(events, ["room_started", "room_started", "room_started", "room_finished", "room_finished"]);
    ids.dedup();
    assert_eq!(ids.len(), 2);
}

#[tokio::test]
async fn what_is_refused_is_given_up_and_nobody_is_sent_elsewhere() {
    let mut elsewhere = HostApp::start([]);
    let mut app = HostApp::start([Answer::Status(400), Answer::RedirectTo(elsewhere.url.clone())]);
    let site = Site::start(&[&app]);
    for sid in ["RM_1", "RM_2"] {
        site.room(sid).await;
    }
    for what in
        [("room_started", "RM_1"), ("room_finished", "RM_1"), ("room_started", "RM_2"), ("room_finished", "RM_2")]
    {
        assert_eq!(app.next().await.what(), what, "once each");
    }
    site.webhooks.finish(Duration::from_secs(60)).await;
    assert!(elsewhere.told.try_recv().is_err());
}

#[tokio::test]
async fn a_host_app_that_says_nothing_holds_up_nobody_else_nor_the_end() {
    let mut silent = HostApp::start(vec![Answer::Silence; 9]);
    let mut app = HostApp::start([]);
    let site = Site::start(&[&silent, &app]);
    site.room("RM_1").await;
    assert_eq!(silent.next().await.what(), ("room_started", "RM_1"));
    for event in ["room_started", "room_finished"] {
        assert_eq!(app.next().await.what().0, event);
    }
    site.webhooks.finish(Duration::from_millis(1)).await;
    assert!(silent.told.try_recv().is_err(), "nor was it told more before it took the first");
}

#[tokio::test]
async fn what_is_due_is_told_before_the_end() {
    let mut app = HostApp::start([]);
    let site = Site::start(&[&app]);
    for sid in ["RM_1", "RM_2", "RM_3"] {
        site.room(sid).await;
    }
    site.webhooks.finish(Duration::from_secs(60)).await;
    let told = std::iter::from_fn(|| app.told.try_recv().ok()).count();
    assert_eq!(told, 6);
}

#[test]
fn only_what_may_pass_is_tried_again_less_and_less_often_and_for_an_hour() {
    let status = |number| CallFailure::Status(StatusCode::from_u16(number).unwrap());
    for passes in
        [CallFailure::Timeout, CallFailure::Unreachable, CallFailure::Broken, status(408), status(429), status(500)]
    {
        let pauses = [0, 1, 2, 6, 7, 31, 32, u32::MAX].map(|tries| again_in(passes, Duration::ZERO, tries));
        assert_eq!(
            pauses,
            [500, 1_000, 2_000, 32_000, 60_000, 60_000, 60_000, 60_000].map(Duration::from_millis).map(Some)
        );
        let late =
            [Duration::from_secs(3_599), Duration::from_secs(3_600)].map(|age| again_in(passes, age, 9).is_some());
        assert_eq!(late, [true, false], "{passes}");
    }
    for stays in [CallFailure::Redirected, status(400), status(401), status(404), status(410), status(501)] {
        assert_eq!(again_in(stays, Duration::ZERO, 0), None, "{stays}");
    }
}
