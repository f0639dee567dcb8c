//! A server of one's own: the real process on free ports of loopback, ended when dropped.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use plenary_protocol::token::{Claims, DEVELOPMENT_KEY, Keys, Minter, VideoGrant};

use crate::{http, process::Usage};

pub struct Server {
    child: Child,
    pub http: SocketAddr,
    metrics: SocketAddr,
    log: File,
    minter: Minter,
}

impl Server {
    /// Returns when it says that it is ready.
    pub fn start(binary: &Path, media_threads: Option<usize>) -> Result<Self> {
        let (http, metrics) = (free_port()?, free_port()?);
        let log = tempfile::tempfile()?;
        let mut command = Command::new(binary);
        command.env_clear().stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
        command.env("PLENARY__HTTP__BIND", http.to_string()).env("PLENARY__METRICS__BIND", metrics.to_string());
        // Any free ports; it tells its clients which.
        command.env("PLENARY__MEDIA__UDP_PORT", "0").env("PLENARY__MEDIA__TCP_PORT", "0");
        if let Some(threads) = media_threads {
            command.env("PLENARY__MEDIA__THREADS", threads.to_string());
        }
        let child = command.spawn().with_context(|| format!("{} does not start", binary.display()))?;
        let mut server = Self { child, http, metrics, log, minter: Minter::new(&Keys::development()) };
        let patience = Instant::now() + START_WITHIN;
        while http::get(server.http, "/readyz").is_err() {
            if server.child.try_wait()?.is_some() || Instant::now() > patience {
                bail!("the server did not become ready:\n{}", server.log());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.child.id())
    }

    pub fn token(&self, room: &str, identity: &str) -> Result<String> {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let video = VideoGrant { room_join: true, room: room.to_owned(), ..VideoGrant::default() };
        let claims = Claims {
            issuer: DEVELOPMENT_KEY.to_owned(),
            subject: Some(identity.to_owned()),
            expires_at: Some(now_s + 3_600),
            video,
            ..Claims::default()
        };
        Ok(self.minter.mint(&claims)?)
    }

    /// Every sample of the metrics page by its name and labels.
    pub fn scrape(&self) -> Result<Metrics> {
        let page = http::get(self.metrics, "/metrics")?;
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Ok(Metrics(page.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()))
    }

    /// The end of what it wrote.
    pub fn log(&mut self) -> String {
        let mut text = String::new();
        if self.log.rewind().and_then(|()| self.log.read_to_string(&mut text)).is_err() {
            return "its log cannot be read".to_owned();
        }
        let start = text.len().saturating_sub(LOG_SHOWN_BYTES);
        text.get(text.ceil_char_boundary(start)..).unwrap_or_default().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let asked = i32::try_from(self.child.id()).map(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM));
        let patience = Instant::now() + STOP_WITHIN;
        while asked.is_ok() && Instant::now() < patience {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            sleep(Duration::from_millis(10));
        }
        // It may be gone by now, which is all that is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug, Clone)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Sum of the samples of this name that carry this label.
    pub fn sum(&self, name: &str, label: &str) -> f64 {
        let of_name = |key: &str| key.split('{').next() == Some(name) && key.contains(label);
        self.0.iter().filter(|(key, _)| of_name(key)).map(|(_, value)| value).sum()
    }
}

fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

const START_WITHIN: Duration = Duration::from_secs(15);
const STOP_WITHIN: Duration = Duration::from_secs(5);
const LOG_SHOWN_BYTES: usize = 4_096;
