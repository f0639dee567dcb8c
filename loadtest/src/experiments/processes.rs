//! The processes of a cluster: nodes, Redis and HAProxy, each on its host, ended when dropped.

use std::{
    fs::{self, File},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

use super::site::{Host, Site};
use crate::{http, process::Usage};

pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(mut command: Command, log: PathBuf) -> Result<Self> {
        let file = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("{command:?} does not start"))?;
        Ok(Self { child, log })
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(signal::kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn until(&mut self, what: &str, holds: impl Fn() -> bool) -> Result<()> {
        let patience = Instant::now() + START_WITHIN;
        while !holds() {
            let is_there = self.child.try_wait()?.is_none() && Instant::now() < patience;
            ensure!(is_there, "{what} is not ready:\n{}", self.end_of_log());
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub fn end_of_log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let start = text.ceil_char_boundary(text.len().saturating_sub(LOG_SHOWN_BYTES));
        text.get(start..).unwrap_or_default().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone by now, which is all that is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Node {
    pub process: Process,
    pub http: SocketAddr,
}

/// How nodes are started.
#[derive(Debug, Clone)]
pub struct NodePlan {
    pub site: Site,
    pub binary: PathBuf,
    pub folder: PathBuf,
    pub drain_deadline: Duration,
    /// Hours by which the clock is wrong, through libfaketime.
    pub clock_off_h: i8,
    /// Where it records to, if it does.
    pub recordings: Option<PathBuf>,
}

impl Node {
    /// Returns when it says that it is ready.
    pub fn start(plan: &NodePlan, at: usize) -> Result<Self> {
        let site = plan.site;
        let own = site.address(Host::Node(at));
        let proxies = [Host::People, Host::Balancer].map(|host| site.address(host).to_string()).join(",");
        let mut command = site.command(Host::Node(at), plan.binary.to_str().context("a path that is text")?);
        command.env_clear().env("PATH", PATH).envs([
            ("PLENARY_KEYS", format!("{KEY}: {SECRET}")),
            ("PLENARY__HTTP__BIND", format!("{own}:{HTTP_PORT}")),
            // The people are one address.
            ("PLENARY__HTTP__TRUSTED_PROXIES", proxies),
            ("PLENARY__METRICS__BIND", "off".into()),
            ("PLENARY__MEDIA__BIND", own.to_string()),
            ("PLENARY__CLUSTER__REDIS", format!("redis://{}:{REDIS_PORT}", site.address(Host::Redis))),
            ("PLENARY__CLUSTER__KEY", "a-cluster-key-for-experiments-which-is-long-enough".into()),
            ("PLENARY__DRAIN__DEADLINE", format!("{}s", plan.drain_deadline.as_secs())),
            ("PLENARY__LOG__FORMAT", "text".into()),
        ]);
        if let Some(directory) = &plan.recordings {
            command.env("PLENARY__RECORDING__DIRECTORY", directory).env("PLENARY__RECORDING__FREE_BYTES_MIN", "0");
        }
        if plan.clock_off_h != 0 {
            command.env("LD_PRELOAD", FAKETIME).env("FAKETIME", format!("{:+}h", plan.clock_off_h));
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let process = Process::start(command, plan.folder.join(format!("node{at}.log")))?;
        let mut node = Self { process, http: SocketAddr::new(IpAddr::V4(own), HTTP_PORT) };
        let http = node.http;
        node.process.until("a node", || http::status(http, "/readyz") == Some(200))?;
        Ok(node)
    }

    pub fn resident_mib(&self) -> Result<f64> {
        Ok(Usage::of(self.process.id())?.resident_bytes as f64 / f64::from(1 << 20))
    }
}

pub struct Redis {
    pub process: Process,
    site: Site,
    host: Host,
    folder: PathBuf,
}

impl Redis {
    /// Appends to a file; what stands in the folder it knows again.
    pub fn start(site: Site, host: Host, folder: &Path) -> Result<Self> {
        let folder = folder.join(format!("{host:?}"));
        fs::create_dir_all(&folder)?;
        let process = Self::run(site, host, &folder)?;
        let mut redis = Self { process, site, host, folder };
        redis.answers()?;
        Ok(redis)
    }

    /// The same again, after it was killed, or one that has forgotten everything. Does not wait for it.
    pub fn start_again(&mut self, with_what_it_knew: bool) -> Result<()> {
        if !with_what_it_knew {
            fs::remove_dir_all(&self.folder)?;
            fs::create_dir_all(&self.folder)?;
        }
        self.process = Self::run(self.site, self.host, &self.folder)?;
        Ok(())
    }

    /// What redis-cli prints.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("timeout");
        command.args([
            "2",
            "redis-cli",
            "-h",
            &self.site.address(self.host).to_string(),
            "-p",
            &REDIS_PORT.to_string(),
        ]);
        let ran = command.args(words).output().context("redis-cli, of the package redis-tools")?;
        Ok(String::from_utf8_lossy(&ran.stdout).trim().to_owned())
    }

    fn run(site: Site, host: Host, folder: &Path) -> Result<Process> {
        let mut command = site.command(host, "redis-server");
        // A host may be given another's address.
        let bind = if site == Site::Namespaces { "0.0.0.0".to_owned() } else { site.address(host).to_string() };
        command.args(["--port", &REDIS_PORT.to_string(), "--bind", &bind, "--protected-mode", "no"]);
        command.args(["--save", "", "--appendonly", "yes", "--dir"]).arg(folder);
        Process::start(command, folder.with_extension("log"))
    }

    fn answers(&mut self) -> Result<()> {
        let patience = Instant::now() + START_WITHIN;
        while self.ask(&["PING"])? != "PONG" {
            ensure!(Instant::now() < patience, "redis-server is not ready:\n{}", self.process.end_of_log());
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// HAProxy with the configuration that Plenary ships.
pub struct Balancer {
    pub process: Process,
    pub address: SocketAddr,
    site: Site,
    config: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// As it is shipped: the people of a room on one node.
    ByRoom,
    /// One line changed, so that they part.
    InTurn,
}

impl Balancer {
    pub fn start(site: Site, folder: &Path, placement: Placement) -> Result<Self> {
        ensure!(SHIPPED.matches(PLACED).count() == 1, "the shipped configuration places by room, once");
        let config = folder.join("haproxy.cfg");
        let text = match placement {
            Placement::ByRoom => SHIPPED.to_owned(),
            Placement::InTurn => SHIPPED.replace(PLACED, "balance roundrobin"),
        };
        fs::write(&config, text)?;
        let address = SocketAddr::new(IpAddr::V4(site.address(Host::Balancer)), HTTP_PORT);
        let process = Self::run(site, &config, &[])?;
        let mut balancer = Self { process, address, site, config };
        balancer.answers()?;
        Ok(balancer)
    }

    /// The way of a reload: a new process takes the socket, the old one, which is returned, keeps its connections.
    pub fn reload(&mut self) -> Result<Process> {
        let old = self.process.id().to_string();
        let new = Self::run(self.site, &self.config, &["-sf", &old])?;
        Ok(std::mem::replace(&mut self.process, new))
    }

    /// After it was killed. Does not wait for it.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = Self::run(self.site, &self.config, &[])?;
        Ok(())
    }

    fn run(site: Site, config: &Path, more: &[&str]) -> Result<Process> {
        let mut command = site.command(Host::Balancer, "haproxy");
        command.arg("-f").arg(config).args(more).env_clear().env("PATH", PATH);
        command.env("PLENARY_BIND", format!("{}:{HTTP_PORT}", site.address(Host::Balancer)));
        for at in 0..super::NODES {
            let node = format!("{}:{HTTP_PORT}", site.address(Host::Node(at)));
            command.env(format!("PLENARY_NODE{}", at + 1), node);
        }
        Process::start(command, config.with_extension("log"))
    }

    fn answers(&mut self) -> Result<()> {
        let address = self.address;
        self.process.until("HAProxy", || http::status(address, "/healthz") == Some(200))
    }
}

/// Whether clocks can be made to lie here.
pub fn has_faketime() -> bool {
    Path::new(FAKETIME).exists()
}

pub const KEY: &str = "experiments";
pub const SECRET: &str = "a-secret-for-experiments-which-is-long-enough";
const SHIPPED: &str = include_str!("../../../deploy/haproxy/haproxy.cfg");
const PLACED: &str = "balance hash var(txn.room)";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Of Debian's package on this machine's architecture.
const FAKETIME: &str = concat!("/usr/lib/", "x86_64-linux-gnu", "/faketime/libfaketime.so.1");
const HTTP_PORT: u16 = 7880;
const REDIS_PORT: u16 = 6379;
const START_WITHIN: Duration = Duration::from_secs(15);
const LOG_SHOWN_BYTES: usize = 4_096;
