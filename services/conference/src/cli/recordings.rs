//! `plenary recordings`: what is on the disk, and repairing what a recorder that died has left there.

use std::{
    fmt::Write,
    io,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use clap::{Args, Subcommand};

use plenary_recording::session_file::TrackFile;

use crate::recording::shelf::{self, Left, Listed, Outcome, State};

#[derive(Debug, Subcommand)]
pub enum RecordingsCommand {
    /// List the recordings: id, room, begin, duration, state, files.
    List(RecordingsDirectory),
    /// Make whole what recorders that died have left. What is being recorded is left alone.
    ///
    /// A node does so when it starts.
    Repair(RecordingsDirectory),
}

#[derive(Debug, Args)]
pub struct RecordingsDirectory {
    /// Where the recordings are, instead of `recording.directory`.
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordingsError {
    #[error("no directory: name one, or set recording.directory")]
    NoDirectory,
    #[error("{directory}: {error}", directory = .directory.display())]
    Io { directory: PathBuf, error: io::Error },
}

/// What is to be said, and whether all is well.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    pub text: String,
    pub is_well: bool,
}

impl RecordingsCommand {
    pub fn directory(&self) -> Option<&Path> {
        let (Self::List(place) | Self::Repair(place)) = self;
        place.directory.as_deref()
    }

    /// `configured` is where recordings are if the command line does not say so.
    pub fn run(&self, configured: Option<&Path>) -> Result<Told, RecordingsError> {
        let directory = self.directory().or(configured).ok_or(RecordingsError::NoDirectory)?;
        let in_vain = |error| RecordingsError::Io { directory: directory.to_owned(), error };
        match self {
            Self::List(_) => shelf::list(directory).map(|all| listed(&all)).map_err(in_vain),
            Self::Repair(_) => shelf::repair_all(directory).map(|all| repaired(&all)).map_err(in_vain),
        }
    }
}

fn listed(all: &[Listed]) -> Told {
    let mut text = String::new();
    for Listed { id, state, session, files } in all {
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
        let _ = writeln!(text, "{id}: {state}; {session}; {} files", files.len());
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
