//! Redis as operators run it: over TLS, for a user who may do little, and watched by Sentinels.

#[allow(dead_code, reason = "this one starts all its servers on ports")]
mod server;

use std::{
    io::Write,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use plenary_cluster::{
    Bus, Redis, RedisConfig, RoomEvent, Seat, Store, StoreError,
    conformance::{self, name, new_room},
    conformance_suite,
};
use plenary_model::RoomChange;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use server::{Server, free_port};
use tempfile::TempDir;

/// As the README has it.
const PASSWORD: &str = "a-password";

conformance_suite!(Arc::new(Redis::new(locked_down()).unwrap()));

#[tokio::test]
async fn whoever_is_not_trusted_or_not_let_in_gets_no_answer_and_no_secret_is_logged() {
    let mut logged = Logged::default();
    let guard = tracing::subscriber::set_default(
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(logged.clone()).finish(),
    );
    let good = locked_down();
    let url = good.urls[0].clone();
    let other = TempDir::new().unwrap();
    for config in [
        RedisConfig { authority: Some(Authority::new(other.path()).pem), ..good.clone() },
        RedisConfig { authority: None, ..good.clone() },
        RedisConfig { urls: vec![url.replace("plenary:", "someone:")], ..good.clone() },
        RedisConfig { urls: vec![url.replace("a-password", "a-password-of-ours")], ..good },
    ] {
        let cluster = Redis::new(config).unwrap();
        assert_eq!(cluster.snapshot(name("r")).await, Err(StoreError::Unavailable));
        assert!(!format!("{cluster:?}").contains(PASSWORD));
    }
    drop(guard);
    let text = logged.text();
    assert_eq!(text.matches("Redis fails").count(), 4, "{text}");
    assert!(!text.contains(PASSWORD), "{text}");
}

#[tokio::test]
async fn a_room_goes_on_at_the_primary_that_sentinels_choose() {
    let (first_port, second_port, sentinel_port) = (free_port(), free_port(), free_port());
    let at = |port| format!("redis://127.0.0.1:{port}");
    let mut first = Server::start_at(first_port, at(first_port), &format!("port {first_port}\n"));
    let settings = format!("port {second_port}\nreplicaof 127.0.0.1 {first_port}\nrepl-diskless-sync-delay 0\n");
    let second = Server::start_at(second_port, at(second_port), &settings);
    until("the replica follows", async || second.ask("ROLE").await.contains("connected")).await;
    let watch = format!(
        "port {sentinel_port}\nsentinel monitor main 127.0.0.1 {first_port} 1\n\
         sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
    );
    let sentinel = Server::start_at(sentinel_port, at(sentinel_port), &watch);
    until("it knows the replica", async || {
        sentinel.ask("SENTINEL REPLICAS main").await.contains(&second_port.to_string())
    })
    .await;

    // Another Sentinel that is away is no obstacle.
    let url = format!("redis+sentinel://127.0.0.1:{}/main?sentinel=127.0.0.1:{sentinel_port}", free_port());
    let common = RedisConfig { urls: vec![url], ..first.config() };
    let [here, there] = [1, 2].map(|number| {
        let instance = format!("instance-{number}");
        Redis::new(RedisConfig { instance, ..common.clone() }).unwrap()
    });
    until("a primary is known", async || here.rooms(Vec::new()).await.is_ok()).await;
    until("a primary is known there", async || there.rooms(Vec::new()).await.is_ok()).await;
    here.join(name("r"), seat("ann")).await.unwrap();
    let mut heard = here.subscribe(name("r")).await.unwrap();
    assert!(first.ask("WAIT 1 5000").await.contains('1'), "the replica has it");

    first.stop();
    assert_eq!(heard.next().await, Some(RoomEvent::Resync), "state is to be asked for anew");
    until("the replica is the primary", async || second.ask("ROLE").await.contains("master")).await;
    until("it answers", async || here.snapshot(name("r")).await.is_ok()).await;
    assert_eq!(here.snapshot(name("r")).await.unwrap().records.len(), 1);
    until("it is found there too", async || there.join(name("r"), seat("bob")).await.is_ok()).await;
    assert_eq!(next_person(&mut heard).await, "bob");

    first.start_again();
    until("the old primary follows", async || first.ask("ROLE").await.contains("slave")).await;
    until("and is known to", async || {
        let replicas = sentinel.ask("SENTINEL REPLICAS main").await;
        replicas.contains(&format!("127.0.0.1:{first_port}")) && !replicas.contains("s_down")
    })
    .await;
    // Of a primary that lives and is replaced the connections are cut by its Sentinels.
    until("Sentinels change their mind", async || try_ask(sentinel_port, "SENTINEL FAILOVER main").await).await;
    assert_eq!(heard.next().await, Some(RoomEvent::Resync));
    until("it is the primary again", async || first.ask("ROLE").await.contains("master")).await;
    until("it answers", async || there.join(name("r"), seat("cat")).await.is_ok()).await;
    until("here too", async || here.snapshot(name("r")).await.is_ok_and(|room| room.records.len() == 3)).await;
}

/// Who is the next to be heard of, whatever had to be read anew before.
async fn next_person(heard: &mut plenary_cluster::Subscription) -> String {
    loop {
        match heard.next().await.expect("the bus is there") {
            RoomEvent::Resync => {}
            RoomEvent::Delta(delta) => match &delta.change {
                RoomChange::Put(record) => return record.participant.identity.to_string(),
                change => panic!("{change:?}"),
            },
        }
    }
}

async fn try_ask(port: u16, command: &str) -> bool {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut words = command.split(' ');
    let mut ask = redis::cmd(words.next().unwrap());
    ask.arg(words.collect::<Vec<_>>());
    ask.query_async::<redis::Value>(&mut connection).await.is_ok()
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: not within 30 s");
}

/// A cluster of its own in a server that only TLS and one user with the rights that the README gives it open.
fn locked_down() -> RedisConfig {
    static SHARED: OnceLock<(Server, Vec<u8>, TempDir)> = OnceLock::new();
    let (server, pem, _) = SHARED.get_or_init(|| {
        rustls::crypto::aws_lc_rs::default_provider().install_default().expect("nothing was chosen before");
        let files = TempDir::new().unwrap();
        let authority = Authority::new(files.path());
        let at = |name: &str| files.path().join(name).display().to_string();
        let port = free_port();
        let users: String = include_str!("../../../README.md")
            .lines()
            .filter(|line| line.starts_with("user "))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(users.lines().count(), 2, "the README says who may do what:\n{users}");
        let settings = format!(
            "port 0\ntls-port {port}\ntls-auth-clients no\ntls-ca-cert-file {}\ntls-cert-file {}\ntls-key-file {}\n{users}",
            at("ca.pem"),
            at("server.pem"),
            at("server.key"),
        );
        let url = format!("rediss://plenary:{PASSWORD}@localhost:{port}");
        (Server::start_at(port, url, &settings), authority.pem, files)
    });
    RedisConfig { authority: Some(pem.clone()), ..server.config() }
}

/// Who vouches for a server on localhost.
struct Authority {
    pem: Vec<u8>,
}

impl Authority {
    /// Writes `ca.pem`, `server.pem` and `server.key`.
    fn new(directory: &std::path::Path) -> Self {
        let mut own = CertificateParams::new(Vec::new()).unwrap();
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(own, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        let pem = authority.pem();
        for (name, contents) in
            [("ca.pem", pem.clone()), ("server.pem", server.pem()), ("server.key", key.serialize_pem())]
        {
            std::fs::write(directory.join(name), contents).unwrap();
        }
        Self { pem: pem.into_bytes() }
    }
}

/// What is logged meanwhile.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Logged {
    fn text(&mut self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'w> tracing_subscriber::fmt::MakeWriter<'w> for Logged {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

fn seat(who: &str) -> Seat {
    let create = Some(new_room("r", 1));
    Seat { now_unix_s: 10, create, ..conformance::seat(who, &format!("PA_{who}")) }
}
