//! `plenary recordings`: what is on the disk, repairing what a recorder that died has left there, and making a video of it.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, UNIX_EPOCH},
};

use clap::{Args, Subcommand};
use plenary_composer::{Canvas, ComposeError, Content, Format, Layout, Progress};
use plenary_model::NodeId;
use plenary_recording::session_file::TrackFile;

use crate::recording::shelf::{self, Left, Listed, Outcome, State};

#[derive(Debug, Subcommand)]
pub enum RecordingsCommand {
    /// List the recordings: id, room, begin, duration, state, files, and which nodes have others of a recording that moved.
    List(RecordingsDirectory),
    /// Make whole what recorders that died have left. What is being recorded is left alone: what changes within 15 seconds.
    ///
    /// A node does so when it starts.
    Repair(RecordingsDirectory),
    /// Make one video of a recording that has ended, with ffmpeg. Goes on where it was stopped.
    ///
    /// Progress is told on standard error.
    Compose(Box<ComposeArgs>),
}

#[derive(Debug, Args)]
pub struct RecordingsDirectory {
    /// Where the recordings are, instead of `recording.directory`.
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ComposeArgs {
    /// The directory of one recording.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The video, instead of `composed.mp4` (or `.webm`) in that directory.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// By default what the output's name says.
    #[arg(long)]
    format: Option<Format>,
    #[arg(long, default_value_t, value_enum)]
    layout: Layout,
    #[arg(long, default_value_t, value_enum)]
    content: Content,
    /// Show and play nobody but these. May be repeated.
    #[arg(long = "participant", value_name = "IDENTITY")]
    participants: Vec<String>,
    #[arg(long, default_value_t = plenary_composer::Settings::default().canvas.width)]
    width: u32,
    #[arg(long, default_value_t = plenary_composer::Settings::default().canvas.height)]
    height: u32,
    #[arg(long, default_value_t = plenary_composer::Settings::default().fps)]
    fps: u32,
    /// Leave names out of the picture.
    #[arg(long)]
    no_names: bool,
    /// Font file that names are drawn with, instead of an installed one.
    #[arg(long, value_name = "FILE")]
    font: Option<PathBuf>,
    /// Threads of one encoder.
    #[arg(long, default_value_t = plenary_composer::Settings::default().threads)]
    threads: u32,
    /// With less on the disk nothing is rendered, so that recordings have it.
    #[arg(long, value_name = "BYTES", default_value_t = plenary_composer::Settings::default().free_bytes_min)]
    free_bytes_min: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordingsError {
    #[error("no directory: name one, or set recording.directory")]
    NoDirectory,
    #[error("{directory}: {error}", directory = .directory.display())]
    Io { directory: PathBuf, error: io::Error },
    #[error("{directory} was not composed: {error}{log}", directory = .directory.display(), log = with_log(.error))]
    Compose { directory: PathBuf, error: Box<ComposeError> },
}

fn with_log(error: &ComposeError) -> String {
    let log = error.log();
    if log.is_empty() { String::new() } else { format!("; ffmpeg said at its end:\n{log}") }
}

/// What is to be said, and whether all is well.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    pub text: String,
    pub is_well: bool,
}

impl RecordingsCommand {
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::List(place) | Self::Repair(place) => place.directory.as_deref(),
            Self::Compose(args) => Some(&args.directory),
        }
    }

    /// `configured` is where recordings are if the command line does not say so.
    pub fn run(&self, configured: Option<&Path>) -> Result<Told, RecordingsError> {
        let directory = self.directory().or(configured).ok_or(RecordingsError::NoDirectory)?;
        let in_vain = |error| RecordingsError::Io { directory: directory.to_owned(), error };
        match self {
            Self::List(_) => shelf::list(directory).map(|all| listed(&all)).map_err(in_vain),
            Self::Repair(_) => {
                let wait = || thread::sleep(shelf::QUIET);
                shelf::repair_all(directory, wait).map(|all| repaired(&all)).map_err(in_vain)
            }
            Self::Compose(args) => {
                let cancel = plenary_composer::cancelled_by_signals().map_err(in_vain)?;
                args.run(&cancel, &mut |progress| {
                    let _ = writeln!(io::stderr(), "{progress}");
                })
            }
        }
    }
}

impl ComposeArgs {
    fn run(&self, cancel: &AtomicBool, report: &mut dyn FnMut(Progress)) -> Result<Told, RecordingsError> {
        let settings = self.settings();
        let beside = || self.directory.join(format!("composed.{}", settings.format.extension()));
        let output = self.output.clone().unwrap_or_else(beside);
        let composed = plenary_composer::compose(&self.directory, &output, &settings, cancel, report);
        let composed = composed
            .map_err(|error| RecordingsError::Compose { directory: self.directory.clone(), error: Box::new(error) })?;
        let duration = humantime::format_duration(Duration::from_secs(composed.duration_us / 1_000_000));
        let text = format!("{}: {duration}, {} B\n", output.display(), composed.size);
        Ok(Told { text, is_well: true })
    }

    fn settings(&self) -> plenary_composer::Settings {
        let extension = self.output.as_ref().and_then(|path| path.extension());
        let told = Format::ALL.into_iter().find(|format| extension.is_some_and(|one| one == format.extension()));
        let format = self.format.or(told).unwrap_or_default();
        plenary_composer::Settings {
            layout: self.layout,
            format,
            content: if format.has_picture() { self.content } else { Content::Audio },
            participants: self.participants.iter().cloned().collect(),
            canvas: Canvas { width: self.width, height: self.height },
            fps: self.fps,
            threads: self.threads,
            names: !self.no_names,
            font: self.font.clone().or_else(plenary_composer::default_font),
            free_bytes_min: self.free_bytes_min,
            ..plenary_composer::Settings::default()
        }
    }
}

fn listed(all: &[Listed]) -> Told {
    let mut text = String::new();
    for Listed { id, state, session, files, elsewhere } in all {
        let state = match state {
            State::Recording => "recording".to_owned(),
            State::Ended(reason) => format!("ended: {}", words(reason)),
            State::Interrupted if files.iter().any(|(name, _)| name.ends_with(TrackFile::PART)) => {
                "interrupted: to be repaired".to_owned()
            }
            State::Interrupted => "interrupted".to_owned(),
            State::Unreadable(why) => format!("unreadable: {why}"),
        };
        let session = session.as_ref().map_or("room, begin and duration unknown".to_owned(), |session| {
            let began = UNIX_EPOCH.checked_add(Duration::from_micros(session.began_us)).unwrap_or(UNIX_EPOCH);
            // A name may hold anything but control characters, and a damaged file those too.
            format!(
                "room {:?}, {}, {}",
                session.room_name,
                humantime::format_rfc3339_seconds(began),
                humantime::format_duration(Duration::from_secs(session.duration.as_secs())),
            )
        });
        let nodes: Vec<_> = elsewhere.iter().map(|node| node.as_ref().map_or("another node", NodeId::as_str)).collect();
        let rest = if nodes.is_empty() { String::new() } else { format!("; others are at {}", nodes.join(", ")) };
        let _ = writeln!(text, "{id}: {state}; {session}; {} files{rest}", files.len());
        for (name, bytes) in files {
            let _ = writeln!(text, "    {name} {bytes} B");
        }
    }
    let is_well = !all.iter().any(|one| matches!(one.state, State::Unreadable(_)));
    Told { text, is_well }
}

/// As the session file has it, with spaces.
fn words(reason: &impl serde::Serialize) -> String {
    let text = serde_json::to_value(reason).ok().and_then(|value| Some(value.as_str()?.replace('_', " ")));
    text.unwrap_or_default()
}

fn repaired(all: &[Left]) -> Told {
    let (mut text, mut failed, mut whole) = (String::new(), 0usize, 0usize);
    for Left { path, outcome } in all {
        let what = match outcome {
            Outcome::Repaired(repaired) => {
                whole = whole.saturating_add(1);
                format!(
                    "repaired: {} of {} frames, {} torn bytes cut off",
                    humantime::format_duration(Duration::from_millis(
                        u64::try_from(repaired.duration.as_millis()).unwrap_or(u64::MAX)
                    )),
                    repaired.frames,
                    repaired.cut_bytes
                )
            }
            Outcome::Removed => "removed: it ended before its first second was written".to_owned(),
            Outcome::BeingRecorded => "left alone: it is being recorded".to_owned(),
            Outcome::Failed(error) => {
                failed = failed.saturating_add(1);
                format!("failed: {error}")
            }
        };
        let _ = writeln!(text, "{}: {what}", path.display());
    }
    let _ = writeln!(text, "{} unfinished, {whole} repaired, {failed} failed", all.len());
    Told { text, is_well: failed == 0 }
}

#[cfg(test)]
mod tests;
