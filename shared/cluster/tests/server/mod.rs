//! A `redis-server` of this test's own, on a socket file; it ends with the test's process whatever becomes of that.

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use plenary_cluster::{Redis, RedisConfig};
use tempfile::TempDir;

/// An empty cluster in the server that the tests of this process share.
pub async fn redis() -> Redis {
    static SHARED: OnceLock<Server> = OnceLock::new();
    let server = SHARED.get_or_init(Server::start);
    Redis::new(server.config()).expect("the URL is good")
}

pub struct Server {
    directory: TempDir,
    /// Ends the server when its input does.
    keeper: Child,
}

impl Server {
    pub fn start() -> Self {
        let directory = TempDir::new().expect("there is room for a socket");
        let keeper = keep(directory.path());
        Self { directory, keeper }
    }

    /// It forgets everything.
    pub fn stop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().expect("it was started");
    }

    pub fn start_again(&mut self) {
        self.keeper = keep(self.directory.path());
    }

    /// Has the server carry out one command.
    pub async fn ask(&self, command: &str) -> String {
        let client = redis::Client::open(self.url()).expect("the URL is good");
        let mut connection = client.get_multiplexed_async_connection().await.expect("it runs");
        let mut words = command.split(' ');
        let mut ask = redis::cmd(words.next().expect("there is a command"));
        ask.arg(words.collect::<Vec<_>>());
        format!("{:?}", ask.query_async::<redis::Value>(&mut connection).await.expect("it is a good command"))
    }

    /// For a cluster of its own: nobody else has its prefix.
    pub fn config(&self) -> RedisConfig {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        RedisConfig {
            urls: vec![self.url()],
            prefix: format!("test-{number}:"),
            keys: vec![b"a key for tests that nobody else has".to_vec()],
            instance: format!("instance-{number}"),
        }
    }

    fn url(&self) -> String {
        format!("redis+unix://{}", socket_in(self.directory.path()).display())
    }
}

#[expect(clippy::zombie_processes, reason = "it ends when its input does, which is when this process does")]
fn keep(directory: &Path) -> Child {
    let socket = socket_in(directory);
    let server = "redis-server --port 0 --unixsocket \"$0\" --save '' --appendonly no --dir \"$1\" & \
                  server=$!; cat >/dev/null; kill $server; wait $server";
    let keeper = Command::new("sh")
        .args(["-c", server])
        .args([&socket, directory])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("there is a shell");
    for _ in 0..500 {
        if UnixStream::connect(&socket).is_ok() {
            return keeper;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("redis-server did not start: is it installed?");
}

fn socket_in(directory: &Path) -> PathBuf {
    directory.join("redis.sock")
}
