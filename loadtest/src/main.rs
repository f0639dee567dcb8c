//! `plenary-loadtest`: starts the real server, fills it with people over real sockets, and prints what it costs.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a report is what this program is for")]

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use plenary_loadtest::{
    floor,
    measure::{self, Plan},
    process::{self, Machine},
    shapes::{SHAPES, SMALLEST, Shape},
    sheet::{Measured, Sheet},
};
use plenary_model::MediaKind;

/// Measures a Plenary server on this machine and prints a capacity sheet.
#[derive(Debug, Parser)]
struct Options {
    /// The server's binary; without it the one of this checkout is built.
    #[arg(long)]
    server: Option<PathBuf>,
    /// Only these, by name, with commas between: shapes, or `joins`. `smallest` is for a quick look.
    #[arg(long, value_delimiter = ',')]
    shapes: Vec<String>,
    /// How long each window is, after everything flows.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// How often everything is measured, each time on a new server.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Media threads of the server, if not its default.
    #[arg(long)]
    media_threads: Option<usize>,
    /// With so many rooms of each shape that the one media thread is this busy, percent of a core; for delays under load.
    #[arg(long)]
    busy: Option<f64>,
    /// JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// Be what the floor is measured with.
    #[arg(long, hide = true)]
    floor_process: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if options.floor_process {
        return floor::forward();
    }
    let named = |name: &str| options.shapes.is_empty() || options.shapes.iter().any(|wanted| wanted == name);
    let mut shapes: Vec<&Shape> = SHAPES.iter().filter(|shape| named(shape.name)).collect();
    shapes.extend(options.shapes.iter().any(|wanted| wanted == SMALLEST.name).then_some(&SMALLEST));
    let with_joins = named("joins");
    let known = |name: &str| name == "joins" || shapes.iter().any(|shape| shape.name == name);
    if let Some(unknown) = options.shapes.iter().find(|name| !known(name)) {
        let names: Vec<_> = SHAPES.iter().map(|shape| shape.name).collect();
        bail!("no shape is called {unknown}; there are {}, joins, smallest", names.join(", "));
    }
    let window = Duration::from_secs_f64(options.seconds);
    let own = std::env::current_exe()?;
    let binary = options.server.map_or_else(build, Ok)?;
    let plan = Plan { binary, media_threads: options.media_threads, window };
    let mut sheet = Sheet {
        machine: Machine::here(),
        load_average_after: String::new(),
        window_s: options.seconds,
        shapes: shapes.iter().map(|shape| Measured::new(shape)).collect(),
        joins_without_media: Vec::new(),
        joins_with_media: Vec::new(),
        subscriptions: Vec::new(),
        arrivals: Vec::new(),
    };
    // Round after round, so that a busy neighbour meets every shape alike.
    for round in 1..=options.repeat {
        for (shape, measured) in shapes.iter().zip(&mut sheet.shapes) {
            eprintln!("{round}/{}: {}", options.repeat, shape.name);
            let forwarding = match options.busy {
                None => measure::forwarding(&plan, shape)?,
                Some(percent) => measure::forwarding_at(&plan, shape, percent)?,
            };
            measured.floors.push(floor::floor(&own, window, &Shape { rooms: forwarding.rooms, ..**shape })?);
            measured.windows.push(forwarding);
        }
        if with_joins {
            eprintln!("{round}/{}: joins", options.repeat);
            sheet.joins_without_media.push(measure::joins(&plan, PEOPLE, None)?);
            sheet.joins_with_media.push(measure::joins(&plan, PEOPLE, Some(MediaKind::Audio))?);
            sheet.subscriptions.push(measure::subscriptions(&plan)?);
            sheet.arrivals.push(measure::arrivals(&plan)?);
        }
    }
    sheet.load_average_after = process::load_average();
    if options.json {
        println!("{}", serde_json::to_string_pretty(&sheet)?);
    } else {
        print!("{}", sheet.tables());
    }
    Ok(())
}

/// What users run: the release build, of the working directory's commit.
fn build() -> Result<PathBuf> {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let status = Command::new(cargo).args(["build", "--release", "--locked", "--bin", "plenary"]).status()?;
    ensure!(status.success(), "the server does not build");
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(2).context("a folder of cargo's")?;
    Ok(target.join("release/plenary"))
}

const PEOPLE: usize = 100;
