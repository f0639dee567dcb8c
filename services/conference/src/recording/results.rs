//! The files that somebody asked for, made of those that were recorded. On threads that may wait for a disk.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use plenary_model::{Egress, EgressFile, EgressFileKind, EgressId, EgressSource, EgressStatus, TrackSid};
use plenary_recording::{
    recording::DiskFailure,
    session_file::{self, Epoch, Event, Line, Omission, Predecessor, Session, StopReason, TrackFile},
};

use super::{
    render, retention,
    shelf::{self, Entry, Kind},
};
use crate::{
    config,
    egress::{NAMES_TRIED_MAX, names},
};

/// How a recording ends in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub status: EgressStatus,
    pub error: String,
    pub files: Vec<EgressFile>,
}

impl Outcome {
    fn without_files(status: EgressStatus, error: impl ToString) -> Self {
        Self { status, error: error.to_string(), files: Vec::new() }
    }
}

/// Who recorded before this epoch, as far as there is a session file of it. To be asked when the epoch begins.
pub(super) async fn predecessor(config: config::Recording, id: EgressId, own: Epoch) -> Option<Predecessor> {
    let find = move || {
        let directory = shelf::directory(config.directory.as_deref()?, id.as_str())?;
        let epochs = shelf::entries(&directory).ok()?.into_iter().filter_map(|entry| match entry.kind {
            Kind::Session(epoch) => Some(epoch),
            _ => None,
        });
        let epoch = epochs.filter(|epoch| *epoch < own).max()?;
        let began_us = shelf::read_session(&directory, epoch).ok().map(|session| session.at_us);
        let ahead = began_us.map(|began_us| clock_ahead_us((own, unix_us()), (epoch, began_us)));
        Some(Predecessor { epoch, clock_ahead_us: ahead.unwrap_or_default() })
    };
    tokio::task::spawn_blocking(find).await.ok().flatten()
}

/// How far this node's clock is ahead of that of the node before. An epoch's number is what the store's clock showed in milliseconds
/// when it was claimed, a moment before its session file began: so each file tells how its node's clock stood to that one.
fn clock_ahead_us((own, now_us): (Epoch, u64), (before, began_us): (Epoch, u64)) -> i64 {
    let ahead_of_store = |epoch: Epoch, at_us: u64| i128::from(at_us) - i128::from(epoch.number) * 1_000;
    let ahead = ahead_of_store(own, now_us) - ahead_of_store(before, began_us);
    // A store whose clock was set back counts on from the epoch before.
    let is_counted_on = own.number <= before.number.saturating_add(1);
    if is_counted_on || ahead.unsigned_abs() < CLOCKS_EQUAL_US {
        return 0;
    }
    i64::try_from(ahead).unwrap_or_default()
}

fn unix_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or_default()
}

/// None as long as the files are being made: to be asked again. `waits`: also for what somebody else is still writing.
pub(super) async fn deliver(
    config: config::Recording,
    egress: Arc<Egress>,
    reason: StopReason,
    waits: bool,
) -> Option<Outcome> {
    let delivered = tokio::task::spawn_blocking(move || deliver_now(&config, &egress, reason, waits));
    delivered.await.unwrap_or_else(|_| Some(Outcome::without_files(EgressStatus::Failed, "an error of this server")))
}

fn deliver_now(config: &config::Recording, egress: &Egress, reason: StopReason, waits: bool) -> Option<Outcome> {
    let ending = match reason {
        StopReason::DiskFull => return Some(failed(DiskFailure::Full)),
        StopReason::DiskSlow => return Some(failed(DiskFailure::Slow)),
        StopReason::DiskFailed => return Some(failed(DiskFailure::Failed)),
        StopReason::PermissionDenied => return Some(failed(DiskFailure::PermissionDenied)),
        StopReason::LimitReached => EgressStatus::LimitReached,
        _ => EgressStatus::Complete,
    };
    let root = config.directory.as_deref()?;
    // Asked each second, perhaps for hours: that costs no more than a look at one file.
    if shelf::directory(root, egress.id.as_str()).is_some_and(|directory| render::is_under_way(&directory)) {
        return None;
    }
    let made = Recorded::open(root, &egress.id).and_then(|recorded| match recorded.is_being_written && waits {
        true => Ok(None),
        false => Ok(recorded.deliver(root, egress)?.map(|files| (files, recorded.without_files()))),
    });
    Some(match made {
        Ok(None) => return None,
        Ok(Some((files, why))) if files.is_empty() => Outcome::without_files(EgressStatus::Aborted, why),
        Ok(Some((files, _))) => {
            let error = if ending == EgressStatus::LimitReached { LIMIT_REACHED } else { "" };
            Outcome { status: ending, error: error.to_owned(), files }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Outcome::without_files(EgressStatus::Aborted, NOTHING_PUBLISHED)
        }
        Err(error) => Outcome::without_files(EgressStatus::Failed, error),
    })
}

fn failed(failure: DiskFailure) -> Outcome {
    Outcome::without_files(EgressStatus::Failed, failure)
}

/// What there is of a recording.
struct Recorded {
    directory: PathBuf,
    /// Whole ones, in the order in which they were made.
    files: Vec<TrackFile>,
    session: Session,
    /// There is more to come of somebody who recorded before.
    is_being_written: bool,
}

/// When a file begins and ends, by the clock of the recording's first node.
#[derive(Debug, Clone, Copy, Default)]
struct Stretch {
    from_us: u64,
    until_us: u64,
}

impl Recorded {
    /// What a recorder that died left is repaired first.
    fn open(root: &Path, id: &EgressId) -> io::Result<Self> {
        let directory = shelf::directory(root, id.as_str()).ok_or(io::ErrorKind::InvalidInput)?;
        let mut is_being_written = false;
        for left in shelf::repair_recording(&directory)? {
            is_being_written |= matches!(left.outcome, shelf::Outcome::BeingRecorded);
            crate::events::LeftRecordingSeen { left }.emit();
        }
        let (mut files, mut sessions) = (Vec::new(), Vec::new());
        for Entry { kind, .. } in shelf::entries(&directory)? {
            match kind {
                Kind::Whole(file) => files.push(file),
                Kind::Session(epoch) => sessions.extend(shelf::read_session(&directory, epoch).ok()),
                Kind::Part(_) | Kind::Composed | Kind::Links => {}
            }
        }
        files.sort();
        let session = session_file::merge(sessions).map_err(io::Error::other)?;
        Ok(Self { directory, files, session, is_being_written })
    }

    /// None as long as the composer has not answered.
    fn deliver(&self, root: &Path, egress: &Egress) -> io::Result<Option<Vec<EgressFile>>> {
        let mut delivered = Vec::new();
        for (number, output) in egress.outputs.iter().enumerate() {
            match (output.kind, &egress.source) {
                (EgressFileKind::AsPublished, EgressSource::Track { track }) => {
                    delivered.extend(self.link(root, &egress.id, track, &output.path)?);
                }
                _ if self.files.is_empty() => {}
                _ => match render::rendered(root, &self.directory, egress, output, number)? {
                    Some(file) => delivered.push(file),
                    None => return Ok(None),
                },
            }
        }
        Ok(Some(delivered))
    }

    /// Why there is nothing of it, if there is nothing.
    fn without_files(&self) -> &'static str {
        let is_encrypted = |line: &Line| matches!(line.event, Event::NotRecorded { reason: Omission::Encrypted, .. });
        match self.session.lines.iter().any(is_encrypted) {
            true => ALL_ENCRYPTED,
            false => NOTHING_PUBLISHED,
        }
    }

    /// The files of a track under the name that was asked for, or names like it.
    fn link(&self, root: &Path, id: &EgressId, track: &TrackSid, path: &str) -> io::Result<Vec<EgressFile>> {
        let stretches = self.stretches();
        let mut linked = Vec::new();
        for file in self.files.iter().filter(|file| file.track() == track) {
            let from = self.directory.join(file.to_string());
            let path = link_as(root, &from, path, id)?;
            retention::note_link(&self.directory, &path)?;
            let Stretch { from_us, until_us } = stretches.get(file).copied().unwrap_or_default();
            linked.push(EgressFile {
                path,
                started_at_ns: from_us.saturating_mul(1_000),
                ended_at_ns: until_us.saturating_mul(1_000),
                duration_ns: until_us.saturating_sub(from_us).saturating_mul(1_000),
                bytes: fs::metadata(&from)?.len(),
            });
        }
        Ok(linked)
    }

    fn stretches(&self) -> BTreeMap<TrackFile, Stretch> {
        let mut stretches = BTreeMap::new();
        let last_us = self.session.lines.last().map_or(0, |line| line.at_us);
        for line in &self.session.lines {
            match &line.event {
                Event::Track { file, zero_us, .. } => {
                    stretches.insert(file.clone(), Stretch { from_us: *zero_us, until_us: last_us.max(*zero_us) });
                }
                Event::TrackEnded { file, .. } => {
                    if let Some(stretch) = stretches.get_mut(file) {
                        stretch.until_us = line.at_us.max(stretch.from_us);
                    }
                }
                _ => {}
            }
        }
        stretches
    }
}

/// Gives a file a second name below the root, and says which.
fn link_as(root: &Path, from: &Path, path: &str, id: &EgressId) -> io::Result<String> {
    let inode = fs::metadata(from)?.ino();
    for name in names(path, id) {
        let to = root.join(&name);
        if let Some(parent) = to.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        match fs::hard_link(from, &to) {
            Ok(()) => return Ok(name),
            // Done by whoever died before they could say so.
            Err(_) if fs::symlink_metadata(&to).is_ok_and(|there| there.ino() == inode) => return Ok(name),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{NAMES_TRIED_MAX} files are called like {path}")))
}

/// From a claim to the first line may take a busy node that long, and clocks that are kept by NTP differ by less.
const CLOCKS_EQUAL_US: u128 = 250_000;

const NOTHING_PUBLISHED: &str = "nothing was published while it was recorded";
const ALL_ENCRYPTED: &str = "all that was published while it was recorded was encrypted end to end";
const LIMIT_REACHED: &str = "a limit of this server was reached";

#[cfg(test)]
mod tests {
    use plenary_model::{EgressMedia, Source};
    use plenary_recording::recording::Input;
    use tempfile::tempdir;

    use super::*;
    use crate::recording::testing::{Meeting, config, egress};

    #[test]
    fn why_a_recording_has_no_files_is_said() {
        let secret = |track: &str| Input::NotRecorded {
            track: track.into(),
            participant: "PA_ann".into(),
            source: Source::Camera,
            reason: Omission::Encrypted,
        };
        for (said, error) in [(Vec::new(), NOTHING_PUBLISHED), (vec![secret("TR_1"), secret("TR_2")], ALL_ENCRYPTED)] {
            let root = tempdir().unwrap();
            let meeting = Meeting::local(root.path());
            for input in said {
                meeting.recorder.tell(meeting.now, input).unwrap();
            }
            meeting.stop();
            let room = EgressSource::Room { layout: String::new(), media: EgressMedia::Both };
            let outcome = deliver_now(&config(root.path()), &egress(room), StopReason::Requested, true);
            assert_eq!(outcome, Some(Outcome::without_files(EgressStatus::Aborted, error)));
        }
    }

    #[test]
    fn a_clock_is_told_by_the_stores_and_small_differences_are_none() {
        let epoch = |number: u64| Epoch { number, boot: 1 };
        let (first, second) = (1_000_000, 1_060_000);
        // Lines of files that began 3 ms and 40 ms after their claims.
        let began = |claimed: u64, took: u64, ahead_ms: u64| (claimed + took + ahead_ms) * 1_000;
        let ahead = |own_ms, before_ms| {
            let own = (epoch(second), began(second, 40, own_ms));
            clock_ahead_us(own, (epoch(first), began(first, 3, before_ms)))
        };
        assert_eq!(ahead(0, 0), 0);
        assert_eq!(ahead(0, 200), 0);
        assert_eq!(ahead(3_600_000, 0), 3_600_037_000);
        assert_eq!(ahead(0, 3_600_000), -3_599_963_000);
        let counted_on = (epoch(first + 1), began(second, 40, 0));
        assert_eq!(clock_ahead_us(counted_on, (epoch(first), began(first, 3, 0))), 0);
    }
}
