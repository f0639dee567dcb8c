//! The composer's command line.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "progress is its output")]

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use plenary_composer::{
    Canvas, Format, Layout, Progress, Settings, compose, default_font,
    watch::{News, Report, render_all},
};
use serde::Serialize;

const LOOKS_EVERY: Duration = Duration::from_secs(5);

/// Renders recorded meetings as one video each.
#[derive(Parser)]
#[command(name = "plenary-composer", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Tell progress as JSON, one object per line.
    #[arg(long, global = true)]
    json: bool,
    /// Font file that names are drawn with, instead of an installed one.
    #[arg(long, global = true)]
    font: Option<PathBuf>,
    /// Threads of one encoder.
    #[arg(long, global = true, default_value_t = 2)]
    threads: u32,
}

#[derive(Subcommand)]
enum Command {
    /// Render the recording in a directory; goes on where it was stopped.
    Compose(Compose),
    /// Render recordings below a directory when they have ended and ask for it by a file `compose.json`.
    Watch {
        root: PathBuf,
        /// Render what is there and leave.
        #[arg(long)]
        once: bool,
    },
}

#[derive(Args)]
struct Compose {
    directory: PathBuf,
    /// The video; `composed.mp4` or `.webm` in the directory without it.
    #[arg(long)]
    output: Option<PathBuf>,
    #[arg(long, default_value = "screen-share-first")]
    layout: LayoutArg,
    #[arg(long, default_value = "mp4")]
    format: FormatArg,
    #[arg(long, default_value_t = 1280)]
    width: u32,
    #[arg(long, default_value_t = 720)]
    height: u32,
    #[arg(long, default_value_t = 25)]
    fps: u32,
}

#[derive(Clone, Copy, ValueEnum)]
enum LayoutArg {
    Grid,
    Speaker,
    ScreenShareFirst,
}

#[derive(Clone, Copy, ValueEnum)]
enum FormatArg {
    Mp4,
    Webm,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let cancel = cancelled_by_signals()?;
    let settings = Settings { threads: cli.threads, font: cli.font.or_else(default_font), ..Settings::default() };
    match cli.command {
        Command::Compose(asked) => one(&asked, settings, &cancel, cli.json),
        Command::Watch { root, once } => watch(&root, once, &settings, &cancel, cli.json),
    }
}

fn one(asked: &Compose, settings: Settings, cancel: &AtomicBool, json: bool) -> anyhow::Result<()> {
    let settings = Settings {
        layout: match asked.layout {
            LayoutArg::Grid => Layout::Grid,
            LayoutArg::Speaker => Layout::Speaker,
            LayoutArg::ScreenShareFirst => Layout::ScreenShareFirst,
        },
        format: match asked.format {
            FormatArg::Mp4 => Format::Mp4,
            FormatArg::Webm => Format::WebM,
        },
        canvas: Canvas { width: asked.width, height: asked.height },
        fps: asked.fps,
        ..settings
    };
    let beside = || asked.directory.join(format!("composed.{}", settings.format.extension()));
    let output = asked.output.clone().unwrap_or_else(beside);
    let mut report = |progress: Progress| tell(json, &progress, || said(&progress));
    compose(&asked.directory, &output, &settings, cancel, &mut report)
        .with_context(|| format!("{} was not composed", asked.directory.display()))
}

fn watch(root: &Path, once: bool, settings: &Settings, cancel: &AtomicBool, json: bool) -> anyhow::Result<()> {
    let mut report = |report: Report| {
        tell(json, &report, || match &report.news {
            News::Progress(progress) => format!("{}: {}", report.recording.display(), said(progress)),
            News::Failed { failed } => format!("{}: failed: {failed}", report.recording.display()),
        });
    };
    while !cancel.load(Ordering::Relaxed) {
        render_all(root, settings, cancel, &mut report).with_context(|| format!("watching {}", root.display()))?;
        if once {
            break;
        }
        // Woken by the signals' thread, or by time.
        thread::park_timeout(LOOKS_EVERY);
    }
    Ok(())
}

fn tell(json: bool, value: &impl Serialize, text: impl FnOnce() -> String) {
    println!("{}", if json { serde_json::to_string(value).unwrap_or_default() } else { text() });
}

fn said(progress: &Progress) -> String {
    match progress {
        Progress::Planned { steps, seconds, missing, nameless } => {
            let missing =
                if missing.is_empty() { String::new() } else { format!("; not there: {}", missing.join(", ")) };
            let nameless = if *nameless {
                "; no font is installed (fonts-dejavu-core has one), so there are no names"
            } else {
                ""
            };
            format!("{seconds} s in {steps} steps{missing}{nameless}")
        }
        Progress::Step { done, steps } => format!("{done} / {steps}"),
        Progress::Done { output } => format!("done: {}", output.display()),
    }
}

/// True after SIGINT or SIGTERM; the calling thread is woken.
fn cancelled_by_signals() -> anyhow::Result<Arc<AtomicBool>> {
    use tokio::signal::unix::{SignalKind, signal};

    let cancel = Arc::new(AtomicBool::new(false));
    let (flag, caller) = (Arc::clone(&cancel), thread::current());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        flag.store(true, Ordering::Relaxed);
        caller.unpark();
    })?;
    Ok(cancel)
}
