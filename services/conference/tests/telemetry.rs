//! What an operator sees: the scrape page, and what goes out by OTLP.
//!
//! Telemetry is set up once per process, so the OTLP half runs this very binary again with the variables set.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use plenary::{
    config::{Log, LogFormat},
    events::{JoinAccepted, JoinRefused, ParticipantLeft, RoomClosed, RoomGone, RoomOpened, SocketEvicted},
    metrics::{Observed, observe},
    telemetry::{Telemetry, scrape_server},
};
use plenary_model::LeaveReason;

fn log() -> Log {
    Log { format: LogFormat::Json, filter: "debug".into() }
}

fn a_short_meeting() {
    let span = tracing::info_span!(target: "plenary", "join");
    span.in_scope(|| {
        RoomOpened.emit();
        RoomOpened.emit();
        JoinAccepted { after: Duration::from_millis(30) }.emit();
        JoinAccepted { after: Duration::from_millis(30) }.emit();
        JoinRefused { reason: "token_expired" }.emit();
        ParticipantLeft { reason: LeaveReason::SignalClose, after: Duration::from_secs(1) }.emit();
        SocketEvicted { reason: "slow_reader" }.emit();
        RoomClosed { reason: LeaveReason::RoomDeleted, after: Duration::from_secs(2) }.emit();
        RoomGone.emit();
    });
}

#[actix_web::test]
async fn the_scrape_page_shows_events_and_what_threads_count() {
    let telemetry = Telemetry::start(&log()).unwrap();
    let counters: [Arc<AtomicU64>; 2] = Default::default();
    for counter in counters.clone() {
        let labels = [("direction", "in".to_owned()), ("kind", "audio".to_owned())];
        observe(Observed::RtpPackets, &labels, move || counter.load(Ordering::Relaxed));
    }
    observe(Observed::MediaDrops, &[("reason", "stun_malformed".to_owned())], || 7);
    a_short_meeting();
    counters[0].store(40, Ordering::Relaxed);
    counters[1].store(2, Ordering::Relaxed);

    let (address, server) = scrape_server("127.0.0.1:0".parse().unwrap(), telemetry.registry()).unwrap();
    actix_web::rt::spawn(server);
    let page = tokio::task::spawn_blocking(move || get(address, "/metrics")).await.unwrap();
    for line in [
        "plenary_room_active 1",
        "plenary_participant_active 1",
        "plenary_join_duration_seconds_count 2",
        "plenary_join_duration_seconds_bucket{le=\"0.05\"} 2",
        "plenary_join_failures_total{reason=\"token_expired\"} 1",
        "plenary_participant_left_total{reason=\"signal_close\"} 1",
        "plenary_ws_evicted_total{reason=\"slow_reader\"} 1",
        "plenary_rtp_packets_total{direction=\"in\",kind=\"audio\"} 42",
        "plenary_media_drops_total{reason=\"stun_malformed\"} 7",
    ] {
        assert!(page.lines().any(|one| one == line), "{line} is missing in\n{page}");
    }
    assert!(page.contains("service_name=\"plenary\""), "{page}");
}

fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn traces_and_metrics_go_out_when_the_standard_variables_name_an_endpoint() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (received, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let received = received.clone();
            std::thread::spawn(move || collect(stream, &received));
        }
    });
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_child_that_exports", "--ignored"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    let all: Vec<(String, Vec<u8>)> = requests.try_iter().collect();
    let sent = |path: &str, word: &str| {
        all.iter()
            .any(|(line, body)| line.contains(path) && body.windows(word.len()).any(|part| part == word.as_bytes()))
    };
    let lines: Vec<_> = all.iter().map(|(line, _)| line).collect();
    assert!(sent("/v1/metrics", "plenary.room.active"), "{lines:?}");
    assert!(sent("/v1/traces", "join"), "{lines:?}");

    let logged = String::from_utf8(child.stderr).unwrap();
    let line = logged.lines().find(|line| line.contains("a crate that uses log")).expect("the log bridge");
    assert!(line.starts_with('{') && line.contains("\"level\":\"WARN\"") && !line.contains('\u{1b}'), "{line}");
}

#[test]
#[ignore = "run by the test above, with variables set"]
fn the_child_that_exports() {
    let telemetry = Telemetry::start(&log()).unwrap();
    a_short_meeting();
    tracing_log::log::warn!("a crate that uses log says {}", "\u{1b}[31mso");
    telemetry.shutdown();
}

/// Reads requests of a connection, each with its body, and answers them.
fn collect(mut stream: TcpStream, received: &mpsc::Sender<(String, Vec<u8>)>) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 65_536];
    loop {
        let head = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(head) = head {
            let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            let end = head + 4 + length.unwrap_or_default();
            if bytes.len() >= end {
                let line = text.lines().next().unwrap_or_default().to_owned();
                let _ = received.send((line, bytes[head + 4..end].to_vec()));
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                bytes.drain(..end);
                continue;
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
        }
    }
}
