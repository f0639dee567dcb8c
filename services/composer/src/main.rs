//! Renders recorded meetings as they end and ask for it, one at a time.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "progress is its output")]

use std::{path::PathBuf, sync::atomic::Ordering, thread, time::Duration};

use anyhow::Context;
use clap::Parser;
use plenary_composer::{
    Settings, cancelled_by_signals, default_font,
    watch::{News, Report, render_all},
};

const LOOKS_EVERY: Duration = Duration::from_secs(5);

/// Renders recordings as one video each, when they have ended and ask for it by a file `compose.json`.
#[derive(Parser)]
#[command(name = "plenary-composer", version)]
struct Cli {
    /// The directory of all recordings: `recording.directory` of the nodes.
    root: PathBuf,
    /// Render what is there and leave.
    #[arg(long)]
    once: bool,
    /// Tell what happens as JSON, one object per line.
    #[arg(long)]
    json: bool,
    /// Font file that names are drawn with, instead of an installed one.
    #[arg(long)]
    font: Option<PathBuf>,
    /// Threads of one encoder.
    #[arg(long, default_value_t = Settings::default().threads)]
    threads: u32,
    /// With less on the disk nothing is rendered, so that recordings have it.
    #[arg(long, value_name = "BYTES", default_value_t = Settings::default().free_bytes_min)]
    free_bytes_min: u64,
}

fn main() -> anyhow::Result<()> {
    let Cli { root, once, json, font, threads, free_bytes_min } = Cli::parse();
    let cancel = cancelled_by_signals()?;
    let settings = Settings { threads, font: font.or_else(default_font), free_bytes_min, ..Settings::default() };
    settings.check()?;
    let mut last = String::new();
    let mut tell = |report: Report| {
        let line = if json { serde_json::to_string(&report).unwrap_or_default() } else { said(&report) };
        // Who waits says so at each look.
        if line != last {
            println!("{line}");
            last = line;
        }
    };
    while !cancel.load(Ordering::Relaxed) {
        render_all(&root, &settings, &cancel, &mut tell).with_context(|| format!("watching {}", root.display()))?;
        if once {
            break;
        }
        // Woken by a signal, or by time.
        thread::park_timeout(LOOKS_EVERY);
    }
    Ok(())
}

fn said(Report { recording, news }: &Report) -> String {
    let news = match news {
        News::Progress(progress) => progress.to_string(),
        News::Waits { waits } => format!("waits: {waits}"),
        News::Failed { failed, log } if log.is_empty() => format!("failed: {failed}"),
        News::Failed { failed, log } => format!("failed: {failed}; ffmpeg said at its end:\n{log}"),
    };
    format!("{}: {news}", recording.display())
}
