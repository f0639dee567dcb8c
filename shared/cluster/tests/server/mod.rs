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
    _keeper: Child,
}

impl Server {
    #[expect(clippy::zombie_processes, reason = "it ends when its input does, which is when this process does")]
    pub fn start() -> Self {
        let directory = TempDir::new().expect("there is room for a socket");
        let socket = Self::socket_in(directory.path());
        let server = "redis-server --port 0 --unixsocket \"$0\" --save '' --appendonly no --dir \"$1\" & \
                      server=$!; cat >/dev/null; kill $server";
        let keeper = Command::new("sh")
            .args(["-c", server])
            .args([&socket, directory.path()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("there is a shell");
        for _ in 0..500 {
            if UnixStream::connect(&socket).is_ok() {
                return Self { directory, _keeper: keeper };
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("redis-server did not start: is it installed?");
    }

    /// For a cluster of its own: nobody else has its prefix.
    pub fn config(&self) -> RedisConfig {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        RedisConfig {
            urls: vec![format!("redis+unix://{}", Self::socket_in(self.directory.path()).display())],
            prefix: format!("test-{number}:"),
            key: b"a key for tests that nobody else has".to_vec(),
            instance: format!("instance-{number}"),
        }
    }

    fn socket_in(directory: &Path) -> PathBuf {
        directory.join("redis.sock")
    }
}
