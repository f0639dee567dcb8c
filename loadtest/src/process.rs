//! What the kernel says about a process and about this machine.

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::{Context, Result};
use serde::Serialize;

/// What a process has used until now.
#[derive(Debug, Clone)]
pub struct Usage {
    /// All threads, as the scheduler counted it.
    pub cpu_ns: u64,
    /// The same by thread.
    threads_ns: BTreeMap<String, u64>,
    user_ticks: u64,
    system_ticks: u64,
    pub resident_bytes: u64,
}

impl Usage {
    pub fn of(pid: u32) -> Result<Self> {
        let mut threads_ns = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?;
            // A thread may end in between.
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            let ns = text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).context("schedstat of a thread")?;
            threads_ns.insert(task.file_name().to_string_lossy().into_owned(), ns);
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name of the process stands in parentheses and may hold anything; times are fields 14 and 15 (proc(5)).
        let (_, fields) = stat.rsplit_once(')').context("stat has a name")?;
        let field = |number: usize| fields.split_whitespace().nth(number - 3).and_then(|field| field.parse().ok());
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(Self {
            cpu_ns: threads_ns.values().sum(),
            threads_ns,
            user_ticks: field(14).context("utime")?,
            system_ticks: field(15).context("stime")?,
            resident_bytes: kib.context("VmRSS")? * 1024,
        })
    }

    /// Nanoseconds in user and in kernel space since then: exact in sum, split as the ticks were.
    pub fn cpu_since(&self, then: &Self) -> (f64, f64) {
        let total = (self.cpu_ns - then.cpu_ns) as f64;
        let (user, system) = (self.user_ticks - then.user_ticks, self.system_ticks - then.system_ticks);
        let user_share = if user + system == 0 { 1.0 } else { user as f64 / (user + system) as f64 };
        (total * user_share, total * (1.0 - user_share))
    }

    /// Nanoseconds of the thread that worked most since then: under media, a media thread.
    pub fn busiest_since(&self, then: &Self) -> f64 {
        let before = |thread: &str| then.threads_ns.get(thread).copied().unwrap_or(0);
        let worked = self.threads_ns.iter().map(|(thread, ns)| ns.saturating_sub(before(thread)));
        worked.max().unwrap_or(0) as f64
    }
}

/// Under what conditions figures were taken.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    pub commit: String,
    /// Of 1, 5 and 15 minutes, before the first measurement.
    pub load_average: String,
}

impl Machine {
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let git = Command::new("git").args(["describe", "--always", "--dirty"]).output();
        let commit = git.ok().filter(|output| output.status.success());
        Self {
            cpu: model.map_or("unknown", |(_, model)| model).to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            commit: commit.map_or("unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            load_average: load_average(),
        }
    }
}

pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
