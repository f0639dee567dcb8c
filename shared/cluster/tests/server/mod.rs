//! A `redis-server` of this test's own; it ends with the test's process whatever becomes of that.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use plenary_cluster::{Observer, Redis, RedisConfig};
use tempfile::TempDir;

/// An empty cluster in the server that the tests of this process share, which tells these.
#[allow(dead_code, reason = "the other test has a server for each cluster")]
pub async fn redis(destinations: &[&str]) -> Redis {
    static SHARED: OnceLock<Server> = OnceLock::new();
    let config = SHARED.get_or_init(Server::start).config();
    let destinations = destinations.iter().map(ToString::to_string).collect();
    Redis::new(RedisConfig { destinations, ..config }).expect("the URL is good")
}

pub struct Server {
    directory: TempDir,
    door: Door,
    url: String,
    /// Ends the server when its input does.
    keeper: Child,
}

/// Where it takes connections.
enum Door {
    Socket(PathBuf),
    Port(u16),
}

impl Server {
    /// On a socket file.
    pub fn start() -> Self {
        let directory = TempDir::new().expect("there is room for a socket");
        let socket = directory.path().join("redis.sock");
        let url = format!("redis+unix://{}", socket.display());
        let settings = format!("port 0\nunixsocket {}\n", socket.display());
        Self::start_in(directory, Door::Socket(socket), url, &settings)
    }

    /// On a port that is free on 127.0.0.1, with these lines of configuration.
    #[allow(dead_code, reason = "the other test starts all its servers on socket files")]
    pub fn start_at(port: u16, url: String, settings: &str) -> Self {
        let directory = TempDir::new().expect("there is room for a configuration");
        Self::start_in(directory, Door::Port(port), url, &format!("bind 127.0.0.1\n{settings}"))
    }

    fn start_in(directory: TempDir, door: Door, url: String, settings: &str) -> Self {
        // A Sentinel knows other settings than a server.
        let own = if settings.contains("sentinel ") { "" } else { "save \"\"\nappendonly no\n" };
        let all = format!("dir {}\n{own}{settings}", directory.path().display());
        std::fs::write(directory.path().join("redis.conf"), all).expect("there is room for a configuration");
        let keeper = keep(directory.path(), &door);
        Self { directory, door, url, keeper }
    }

    /// It forgets everything.
    pub fn stop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().expect("it was started");
    }

    pub fn start_again(&mut self) {
        self.keeper = keep(self.directory.path(), &self.door);
    }

    /// Has the server carry out one command. One that reads its data, or has just got another role, cuts connections.
    pub async fn ask(&self, command: &str) -> String {
        let mut last = None;
        for _ in 0..ASKED_MAX {
            match self.try_ask(command).await {
                Ok(answer) => return format!("{answer:?}"),
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(ASK_AGAIN_AFTER).await;
        }
        panic!("{command}: {last:?}");
    }

    async fn try_ask(&self, command: &str) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(self.url.as_str())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut words = command.split(' ');
        let mut ask = redis::cmd(words.next().expect("there is a command"));
        ask.arg(words.collect::<Vec<_>>()).query_async(&mut connection).await
    }

    /// For a cluster of its own: nobody else has its prefix.
    pub fn config(&self) -> RedisConfig {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        RedisConfig {
            urls: vec![self.url.clone()],
            authority: None,
            prefix: format!("plenary:test-{number}:"),
            keys: vec![b"a key for tests that nobody else has".to_vec()],
            instance: format!("instance-{number}"),
            observer: Observer::default(),
            destinations: Vec::new(),
        }
    }
}

#[allow(dead_code, reason = "the other test starts all its servers on socket files")]
pub fn free_port() -> u16 {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
    probe.local_addr().expect("it is bound").port()
}

#[expect(clippy::zombie_processes, reason = "it ends when its input does, which is when this process does")]
fn keep(directory: &Path, door: &Door) -> Child {
    let server = "redis-server \"$0\" $(grep -q '^sentinel ' \"$0\" && echo --sentinel) & \
                  server=$!; cat >/dev/null; kill $server; wait $server";
    let keeper = Command::new("sh")
        .args(["-c", server])
        .arg(directory.join("redis.conf"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("there is a shell");
    for _ in 0..500 {
        let is_open = match door {
            Door::Socket(path) => UnixStream::connect(path).is_ok(),
            Door::Port(port) => TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok(),
        };
        if is_open {
            return keeper;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("redis-server did not start: is it installed?");
}

const ASKED_MAX: u32 = 50;
const ASK_AGAIN_AFTER: std::time::Duration = std::time::Duration::from_millis(100);
