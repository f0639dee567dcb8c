//! The failures that a cluster has to survive, made to happen: three real nodes, a real Redis and a real HAProxy, people
//! over real sockets. What has to hold is told from how long it took, which depends on the machine.

mod crashes;
mod crowds;
mod cuts;
mod field;
mod hop;
mod leaving;
mod people;
mod person;
mod processes;
mod recordings;
mod redis_fails;
mod report;
mod signalling;
mod site;
mod versions;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::{Command, ExitStatus},
};

use anyhow::{Context, Result};

use crate::process::load_average;
use report::{Findings, Missing};
pub use report::{HEAD, Outcome};
use site::Site;

/// How experiments are run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub binary: PathBuf,
    /// For what the processes write.
    pub folder: PathBuf,
    /// Fewer people and rounds, for every change.
    pub is_short: bool,
    pub seed: u64,
    site: Site,
}

/// One experiment of the design.
#[derive(Debug)]
pub struct Experiment {
    pub id: &'static str,
    pub fault: &'static str,
    /// Whether it is among those for every change.
    pub is_quick: bool,
    needs: &'static [Need],
    run: fn(&Plan) -> Result<Findings>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Namespaces,
    Faketime,
}

pub const EXPERIMENTS: &[Experiment] = &[
    experiment("E1", "a node is killed", true, &[], crashes::killed),
    experiment("E2", "a node is cut off from everybody", false, &[Need::Namespaces], crashes::isolated),
    experiment("E3", "a node sleeps", true, &[], crashes::paused),
    experiment("E4", "two nodes cannot reach each other", false, &[Need::Namespaces], cuts::between_nodes),
    experiment("E5", "a node cannot reach Redis", false, &[Need::Namespaces], cuts::from_redis),
    experiment("E6", "Redis is killed", true, &[], redis_fails::killed),
    experiment("E7", "Redis is killed and forgets", true, &[], redis_fails::wiped),
    experiment("E8", "Redis cuts off its listeners", true, &[], redis_fails::listeners_cut),
    experiment("E9", "a listener of Redis sleeps", false, &[], redis_fails::slow_listener),
    experiment("E10", "a stale replica takes over", false, &[Need::Namespaces], redis_fails::stale_failover),
    experiment("E11", "200 joins race for 50 seats", true, &[], crowds::cap),
    experiment("E12", "one identity on two nodes at once", true, &[], crowds::one_identity),
    experiment("E13", "a node that records is killed", true, &[], recordings::killed),
    experiment("E14", "a node that records sleeps", true, &[], recordings::paused),
    experiment("E15", "the disk of a recording is full", true, &[Need::Namespaces], recordings::disk_full),
    experiment("E16", "a rolling restart", false, &[], leaving::rolling_restart),
    experiment("E17", "the balancer is restarted", false, &[], leaving::balancer),
    experiment("E22", "a clock is an hour off", false, &[Need::Faketime], versions::clock_off),
    experiment("E23", "a node is not heard; a link flaps", false, &[Need::Namespaces], cuts::one_way_and_flapping),
    experiment("E24", "fields of a later release", false, &[], versions::unknown_fields),
    experiment("hop", "nothing: how long the way between two nodes takes", false, &[], hop::delay),
];

const fn experiment(
    id: &'static str,
    fault: &'static str,
    is_quick: bool,
    needs: &'static [Need],
    run: fn(&Plan) -> Result<Findings>,
) -> Experiment {
    Experiment { id, fault, is_quick, needs, run }
}

impl Plan {
    /// In namespaces, which only a process that [`enclosed`] started may make, or on loopback.
    pub fn new(binary: PathBuf, folder: PathBuf, is_enclosed: bool, is_short: bool, seed: u64) -> Self {
        let site = if is_enclosed { Site::Namespaces } else { Site::Loopback };
        Self { binary, folder, is_short, seed, site }
    }
}

impl Experiment {
    pub fn run(&self, plan: &Plan) -> Outcome {
        let before = load_average();
        let lacks = self.needs.iter().find(|need| match need {
            Need::Namespaces => plan.site == Site::Loopback,
            Need::Faketime => !processes::has_faketime(),
        });
        let findings = match lacks {
            Some(Need::Namespaces) => Err(Missing::Skipped("no network namespaces here".into())),
            Some(Need::Faketime) => Err(Missing::Skipped("libfaketime is not installed".into())),
            None => plan
                .site
                .raise(NODES)
                .and_then(|()| (self.run)(plan))
                .map_err(|error| Missing::Failed(format!("{error:#}"))),
        };
        Outcome { id: self.id, fault: self.fault, findings, conditions: format!("{before} → {}", load_average()) }
    }
}

/// Runs this program again alone: with network, processes and `/run` of its own, all of which the kernel ends and removes
/// with it, however it ends. An error if this machine does not allow that.
pub fn enclosed(arguments: &[String]) -> Result<ExitStatus> {
    let own = std::env::current_exe()?;
    // With the parent, unshare dies, with unshare its child, and with the first process all others.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]);
    command.arg("--mount-proc");
    if !is_root() {
        command.arg("--map-root-user");
    }
    command.args(["sh", "-c", "mount -t tmpfs none /run && exec \"$0\" \"$@\""]).arg(own).args(arguments);
    command.status().context("setpriv, of the package util-linux")
}

/// Whether [`enclosed`] would work.
pub fn can_enclose() -> bool {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--mount-proc"]);
    if !is_root() {
        command.arg("--map-root-user");
    }
    let tried = command.args(["sh", "-c", "mount -t tmpfs none /run && ip netns add a && ip link add br0 type bridge"]);
    tried.output().is_ok_and(|ran| ran.status.success())
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

const NODES: usize = 3;
