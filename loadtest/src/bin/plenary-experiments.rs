//! `plenary-experiments`: breaks a cluster in every way that the design names, and prints what became of the calls on it.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a report is what this program is for")]

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use plenary_loadtest::{
    experiments::{EXPERIMENTS, Experiment, HEAD, Outcome, Plan, can_enclose, enclosed},
    process::Machine,
};

/// Runs failure experiments with three nodes, Redis and HAProxy on this machine. Fails if something is wrong that no
/// machine excuses; times are printed.
#[derive(Debug, Parser)]
struct Options {
    /// The server's binary.
    #[arg(long, default_value = "target/release/plenary")]
    server: PathBuf,
    /// Only these, by name, with commas between.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The quick ones, with fewer people and rounds.
    #[arg(long)]
    short: bool,
    /// On loopback, where nothing can be cut, even if network namespaces could be made.
    #[arg(long)]
    loopback: bool,
    /// A folder in which to keep what the processes write.
    #[arg(long)]
    logs: Option<PathBuf>,
    /// For what people draw by lot; the time without it.
    #[arg(long, env = "PLENARY_SEED")]
    seed: Option<u64>,
    /// In a network of its own already.
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    if let Some(unknown) = options.only.iter().find(|name| !EXPERIMENTS.iter().any(|one| one.id == name.as_str())) {
        let names: Vec<_> = EXPERIMENTS.iter().map(|one| one.id).collect();
        bail!("no experiment is called {unknown}; there are {}", names.join(", "));
    }
    if !options.inside && !options.loopback {
        if can_enclose() {
            let arguments: Vec<String> = std::env::args().skip(1).chain(["--inside".to_owned()]).collect();
            let status = enclosed(&arguments)?;
            return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        eprintln!("no network namespaces here: on loopback, without the experiments that cut something");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let seed = options.seed.unwrap_or(now);
    let binary = options.server.canonicalize().with_context(|| format!("{}", options.server.display()))?;
    // Inside, `/run` is in memory and goes away with this process.
    let folder = if options.inside { tempfile::tempdir_in("/run")? } else { tempfile::tempdir()? };
    let kept = options.logs.as_deref().unwrap_or(folder.path()).to_owned();
    let plan = Plan::new(binary, kept, options.inside, options.short, seed);
    let machine = Machine::here();
    eprintln!("PLENARY_SEED={seed}; {}, {} cores, Linux {}", machine.cpu, machine.cores, machine.kernel);
    let wanted = |one: &&Experiment| match options.only.as_slice() {
        [] => !options.short || one.is_quick,
        names => names.iter().any(|name| name == one.id),
    };
    let outcomes: Vec<_> = EXPERIMENTS.iter().filter(wanted).map(|one| run(one, &plan)).collect();
    print!("{HEAD}{}", outcomes.iter().map(Outcome::rows).collect::<String>());
    let wrong: Vec<_> = outcomes.iter().filter(|one| !one.is_correct()).map(|one| one.id).collect();
    if wrong.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("wrong: {}", wrong.join(", "));
    Ok(ExitCode::FAILURE)
}

fn run(experiment: &Experiment, plan: &Plan) -> Outcome {
    eprintln!("{}: {}", experiment.id, experiment.fault);
    let outcome = experiment.run(plan);
    eprint!("{}", outcome.rows());
    eprintln!("{} load average {}", experiment.id, outcome.conditions);
    if let Some(why) = outcome.failure() {
        eprintln!("{why}");
    }
    outcome
}
