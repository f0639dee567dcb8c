//! The directory of all recordings: `<directory>/<recording id>/` holds what `proto/plenary/v1/session.md` lists.
//!
//! Who records holds the lock of the epoch's session file, on a shared directory from any node, and touches it. What has no such
//! lock and stays as it is was left by a process that died, and is repaired. Nothing is touched that is not named as we name things, and no link is followed.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    iter,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Component, Path, PathBuf},
    time::{Duration, SystemTime},
};

use plenary_composer::watch::{Outcome as Answer, REQUEST, RESULT, ResultFile};
use plenary_model::NodeId;
use plenary_recording::{
    RepairError, Repaired, repair,
    session_file::{
        self, Epoch, Event, LINE_BYTES_MAX, Line, MergeError, ReadError, Session, SessionFile, StopReason, TrackFile,
    },
};
use rustix::{
    fs::{Mode, OFlags, openat},
    io::Errno,
};
use serde::de::DeserializeOwned;

/// More of a session file is not read.
const SESSION_BYTES_MAX: u64 = 256 << 20;
/// The first line of one has ids, a name and no more.
const FIRST_BYTES_MAX: u64 = LINE_BYTES_MAX as u64 + 1;
/// So much of its end is read for a list: dozens of ordinary lines, or if these say nothing, one that is as long as may be.
const LAST_BYTES: [u64; 2] = [8 << 10, 2 * FIRST_BYTES_MAX];
/// A file without a whole cluster that is not larger ended within its first one,
const EMPTY_BYTES_MAX: u64 = 1 << 20;
/// and one without a head before that.
const HEADLESS_BYTES_MAX: u64 = 4 << 10;
const ID_BYTES_MAX: usize = 64;
/// So long nothing changes of what nobody records: a recorder touches its session file each second, its lease runs out after 3 s, and
/// its disk takes 10 s for one operation at most.
pub const QUIET: Duration = Duration::from_secs(15);
/// Files beside those of tracks: see `proto/plenary/v1/compose.md`.
pub(super) const COMPOSED: &str = "compose";
/// What the composer calls a video that it was to call nothing else.
const COMPOSED_VIDEOS: [&str; 2] = ["composed.mp4", "composed.webm"];
/// What its answers tell of is known by this name, and a number.
const RENDERED: &str = "rendered";
const RENDERED_EXTENSIONS: [&str; 4] = ["mp4", "webm", "ogg", "mp3"];
/// Of files that are read whole.
const JSON_BYTES_MAX: u64 = 1 << 20;
/// Second names of a recording's files, below the root.
pub(super) const LINKS: &str = "links.json";
pub(super) const NO_LINK: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Where a recording's files are; none if this is no id of one: `EG_` and letters, digits or underscores.
pub fn directory(root: &Path, recording: &str) -> Option<PathBuf> {
    let letters = recording.strip_prefix("EG_")?;
    let is_id = !letters.is_empty()
        && recording.len() <= ID_BYTES_MAX
        && letters.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_id.then(|| root.join(recording))
}

/// A file that was left unfinished.
#[derive(Debug)]
pub struct Left {
    pub path: PathBuf,
    pub outcome: Outcome,
}

#[derive(Debug)]
pub enum Outcome {
    /// It is whole now, and called so.
    Repaired(Repaired),
    /// It ended before its first cluster, so it was removed.
    Removed,
    /// Somebody is writing it.
    BeingRecorded,
    Failed(RepairError),
}

/// Repairs what recorders that died have left, and renames it. Takes a second for some hours of video.
///
/// Who has a lock elsewhere is not seen everywhere, and whether a lease runs not without the store. So if there is something to repair
/// it is looked at again after `wait`, and what has changed by then is being recorded.
///
/// # Errors
/// If the directory cannot be read. What is wrong with one recording's directory or one file is in the outcome.
pub fn repair_all(root: &Path, wait: impl FnOnce()) -> io::Result<Vec<Left>> {
    let before: Vec<_> = recordings(root)?
        .into_iter()
        .map(|(_, directory)| {
            let left = left_by_epoch(&directory).ok();
            (directory, left)
        })
        .collect();
    if before.iter().any(|(_, left)| left.as_ref().is_none_or(|left| !left.is_empty())) {
        wait();
    }
    let mut all = Vec::new();
    for (directory, before) in before {
        let now = left_by_epoch(&directory).ok();
        let is_as_before = |epoch| match (&before, &now) {
            (Some(before), Some(now)) => before.get(&epoch) == now.get(&epoch),
            _ => false,
        };
        match repair_epochs(&directory, is_as_before) {
            Ok(left) => all.extend(left),
            Err(error) => all.push(Left { path: directory, outcome: Outcome::Failed(error.into()) }),
        }
    }
    Ok(all)
}

/// One of them, whose lease the caller has: nobody records it.
pub(super) fn repair_recording(directory: &Path) -> io::Result<Vec<Left>> {
    repair_epochs(directory, |_| true)
}

/// Length and last change of the session file and of what is unfinished, of each epoch that nobody has the lock of.
fn left_by_epoch(directory: &Path) -> io::Result<BTreeMap<Epoch, Vec<(u64, SystemTime)>>> {
    let mut left = BTreeMap::new();
    for (epoch, files) in unfinished(directory)? {
        let Lock::Ours(Some(session)) = lock(directory, epoch)? else { continue };
        let parts = files.iter().map(|file| open(&directory.join(file.part()), false));
        let looks = iter::once(Ok(session)).chain(parts).map(|file| {
            let metadata = file?.metadata()?;
            Ok((metadata.len(), metadata.modified()?))
        });
        left.insert(epoch, looks.collect::<io::Result<_>>()?);
    }
    Ok(left)
}

fn unfinished(directory: &Path) -> io::Result<BTreeMap<Epoch, Vec<TrackFile>>> {
    let mut by_epoch: BTreeMap<Epoch, Vec<TrackFile>> = BTreeMap::new();
    for entry in entries(directory)? {
        if let Kind::Part(file) = entry.kind {
            by_epoch.entry(file.epoch()).or_default().push(file);
        }
    }
    Ok(by_epoch)
}

fn repair_epochs(directory: &Path, may_repair: impl Fn(Epoch) -> bool) -> io::Result<Vec<Left>> {
    let mut all = Vec::new();
    for (epoch, files) in unfinished(directory)? {
        // Held until all of the epoch's files are done.
        let lock = lock(directory, epoch);
        for file in files {
            let outcome = match &lock {
                Ok(Lock::Ours(_)) if may_repair(epoch) => repair_file(directory, &file),
                Ok(_) => Outcome::BeingRecorded,
                Err(error) => Outcome::Failed(io::Error::new(error.kind(), error.to_string()).into()),
            };
            all.push(Left { path: directory.join(file.part()), outcome });
        }
    }
    Ok(all)
}

fn repair_file(directory: &Path, file: &TrackFile) -> Outcome {
    let (part, whole) = (directory.join(file.part()), directory.join(file.to_string()));
    let repaired = open(&part, true).map_err(RepairError::from).and_then(|mut open| {
        let length = open.metadata()?.len();
        match repair(&mut open) {
            Err(RepairError::Headless) if length <= HEADLESS_BYTES_MAX => Ok(None),
            Err(RepairError::Empty) if length <= EMPTY_BYTES_MAX => Ok(None),
            other => other.map(Some),
        }
    });
    let renamed = repaired.and_then(|repaired| {
        match repaired {
            None => fs::remove_file(&part)?,
            Some(_) if whole.symlink_metadata().is_ok() => return Err(already_there(&whole).into()),
            Some(_) => fs::rename(&part, &whole)?,
        }
        File::open(directory)?.sync_all()?;
        Ok(repaired)
    });
    match renamed {
        Ok(Some(repaired)) => Outcome::Repaired(repaired),
        Ok(None) => Outcome::Removed,
        Err(error) => Outcome::Failed(error),
    }
}

fn already_there(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, format!("{} is there already", path.display()))
}

/// What is known of a recording.
#[derive(Debug)]
pub struct Listed {
    pub id: String,
    pub state: State,
    /// From its session files, if one can be read.
    pub session: Option<Summary>,
    /// Of its media, by name; unfinished ones end in `.part`.
    pub files: Vec<(String, u64)>,
    /// Who has parts of it that are not here; None for a node whose name is not known.
    pub elsewhere: Vec<Option<NodeId>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Somebody is writing it.
    Recording,
    Ended(StopReason),
    /// Its recorder died. What it left is whole if no file ends in `.part`.
    Interrupted,
    Unreadable(Unreadable),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error(transparent)]
    File(ReadError),
    #[error(transparent)]
    Files(MergeError),
    #[error("cannot be read: {0}")]
    Io(io::ErrorKind),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub room_name: String,
    /// Microseconds since 1970.
    pub began_us: u64,
    /// Until the last thing that its session files tell.
    pub duration: Duration,
}

/// All recordings, by id.
///
/// # Errors
/// If the directory cannot be read.
pub fn list(root: &Path) -> io::Result<Vec<Listed>> {
    let look = |(id, directory): (String, PathBuf)| match entries(&directory) {
        // Not one line could be written.
        Ok(entries) if entries.is_empty() => None,
        Ok(entries) => Some(list_one(id, &directory, entries, read_ends).0),
        Err(error) => Some(Listed {
            id,
            state: State::Unreadable(Unreadable::Io(error.kind())),
            session: None,
            files: Vec::new(),
            elsewhere: Vec::new(),
        }),
    };
    Ok(recordings(root)?.into_iter().filter_map(look).collect())
}

/// One recording, with all that its session files tell if they can be read. None if there is none of that id.
///
/// # Errors
/// If its directory cannot be read.
pub fn look(root: &Path, recording: &str) -> io::Result<Option<(Listed, Option<Session>)>> {
    let Some(directory) = directory(root, recording) else { return Ok(None) };
    match directory.symlink_metadata() {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let entries = entries(&directory)?;
    if entries.is_empty() {
        return Ok(None);
    }
    Ok(Some(list_one(recording.to_owned(), &directory, entries, read_session)))
}

/// What the composer made of a recording, or is to make.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Composed {
    /// By name.
    pub videos: Vec<Video>,
    pub is_awaited: bool,
}

/// One file with everybody in it, or as it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Video {
    /// For [`open_complete`]: of two ids of ours, and never where it is.
    pub name: String,
    pub file_name: String,
    pub bytes: u64,
}

/// Empty for what cannot be read: the recording itself says so.
pub fn composed(root: &Path, recording: &str) -> Composed {
    let mut composed = Composed::default();
    let entries = directory(root, recording).map(|directory| entries(&directory));
    for Entry { name, .. } in entries.into_iter().flatten().flatten() {
        composed.is_awaited |= name == REQUEST;
        let name = video_of_result(&name).unwrap_or(name);
        let is_video = COMPOSED_VIDEOS.contains(&&*name) || name.starts_with(RENDERED);
        if is_video
            && let Ok(Some((file, file_name))) = open_complete(root, recording, &name)
            && let Ok(metadata) = file.metadata()
        {
            composed.videos.push(Video { name, file_name, bytes: metadata.len() });
        }
    }
    composed
}

/// `rendered` for `compose.result.json`, `rendered-0` for `compose.result.0.json`.
pub(super) fn video_of_result(result: &str) -> Option<String> {
    let number = result.strip_prefix("compose.result")?.strip_suffix(".json")?;
    match number.strip_prefix('.') {
        None => number.is_empty().then(|| RENDERED.to_owned()),
        Some(number) => number.parse::<u32>().is_ok().then(|| format!("{RENDERED}-{number}")),
    }
}

fn result_of_video(name: &str) -> Option<String> {
    match name.strip_prefix(RENDERED)?.strip_prefix('-') {
        None => (name == RENDERED).then(|| RESULT.to_owned()),
        Some(number) => number.parse::<u32>().is_ok().then(|| format!("compose.result.{number}.json")),
    }
}

/// Opens a media file that is complete, or what was composed, and says what it is called. None for what is not named as these
/// are and for what is no file; no link is followed to it.
///
/// # Errors
/// If it is there and cannot be opened.
pub fn open_complete(root: &Path, recording: &str, name: &str) -> io::Result<Option<(File, String)>> {
    let Some(directory) = directory(root, recording) else { return Ok(None) };
    if COMPOSED_VIDEOS.contains(&name) || name.parse::<TrackFile>().is_ok() {
        return Ok(open_below(&directory, Path::new(name))?.map(|file| (file, name.to_owned())));
    }
    let Some(result) = result_of_video(name) else { return Ok(None) };
    let Some(ResultFile { outcome: Answer::Complete { path, .. }, .. }) = read_json(&directory, &result)? else {
        return Ok(None);
    };
    let is_beside = directory.strip_prefix(root).is_ok_and(|own| path.starts_with(own));
    let Some(file_name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(None) };
    if is_beside || !is_rendered(&path) {
        return Ok(None);
    }
    Ok(open_below(root, &path)?.map(|file| (file, file_name.to_owned())))
}

/// Whether the composer may have called a video so.
pub(super) fn is_rendered(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    RENDERED_EXTENSIONS.contains(&extension)
}

/// What stands in a small file of a recording's directory. None if it cannot be understood, or is not there.
pub(super) fn read_json<T: DeserializeOwned>(directory: &Path, name: &str) -> io::Result<Option<T>> {
    let Some(file) = open_below(directory, Path::new(name))? else { return Ok(None) };
    let mut text = Vec::new();
    file.take(JSON_BYTES_MAX).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text).ok())
}

/// A file below this directory, by no link and through none.
fn open_below(directory: &Path, path: &Path) -> io::Result<Option<File>> {
    let Some((place, name)) = place_below(directory, path)? else { return Ok(None) };
    // A pipe that somebody put there would hold up whoever opens it.
    let Some(file) = there(openat(&place, name, NO_LINK | OFlags::NONBLOCK, Mode::empty()))? else { return Ok(None) };
    let file = File::from(file);
    Ok(file.metadata()?.is_file().then_some(file))
}

/// The directory that something below this one is in, reached through no link, and what it is called there.
pub(super) fn place_below<'a>(directory: &Path, path: &'a Path) -> io::Result<Option<(OwnedFd, &'a OsStr)>> {
    // Anything but names leads elsewhere.
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Ok(None);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let flags = NO_LINK | OFlags::DIRECTORY;
    let walk = || {
        let mut place = rustix::fs::open(directory, flags, Mode::empty())?;
        for part in parent {
            place = openat(&place, part, flags, Mode::empty())?;
        }
        Ok(place)
    };
    Ok(there(walk())?.map(|place| (place, name)))
}

/// None for what is not there, and for what leads elsewhere.
pub(super) fn there<T>(found: Result<T, Errno>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::INVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn list_one(
    id: String,
    directory: &Path,
    entries: Vec<Entry>,
    read: fn(&Path, Epoch) -> Result<SessionFile, Unreadable>,
) -> (Listed, Option<Session>) {
    let (mut files, mut sessions, mut unread) = (Vec::new(), Vec::new(), None);
    let mut is_recording = false;
    for Entry { name, bytes, kind } in entries {
        match kind {
            Kind::Composed | Kind::Links => {}
            Kind::Whole(_) | Kind::Part(_) => files.push((name, bytes)),
            Kind::Session(epoch) => {
                is_recording |= matches!(lock(directory, epoch), Ok(Lock::Taken));
                match read(directory, epoch) {
                    Ok(session) => sessions.push(session),
                    Err(error) => unread = Some(error),
                }
            }
        }
    }
    let merged = session_file::merge(sessions).map_err(|error| unread.unwrap_or(Unreadable::Files(error)));
    let has_parts = files.iter().any(|(name, _)| name.ends_with(TrackFile::PART));
    let state = match &merged {
        _ if is_recording => State::Recording,
        Err(error) => State::Unreadable(*error),
        Ok(session) => match session.lines.last() {
            Some(Line { event: Event::Stopped { reason }, .. }) if !has_parts => State::Ended(*reason),
            _ => State::Interrupted,
        },
    };
    let session = merged.ok();
    let elsewhere = session.as_ref().map(Session::elsewhere).unwrap_or_default();
    (Listed { id, state, session: session.as_ref().and_then(Summary::of), files, elsewhere }, session)
}

pub(super) fn read_session(directory: &Path, epoch: Epoch) -> Result<SessionFile, Unreadable> {
    let read = || {
        let mut bytes = Vec::new();
        let file = open(&directory.join(epoch.session_file()), false)?;
        file.take(SESSION_BYTES_MAX).read_to_end(&mut bytes).map(|_| bytes)
    };
    let bytes = read().map_err(|error: io::Error| Unreadable::Io(error.kind()))?;
    SessionFile::read(epoch, &bytes).map_err(Unreadable::File)
}

/// The beginning and the end of a session file, which say all that a list does: hours of a meeting are megabytes.
fn read_ends(directory: &Path, epoch: Epoch) -> Result<SessionFile, Unreadable> {
    let tell = |error: io::Error| Unreadable::Io(error.kind());
    let file = open(&directory.join(epoch.session_file()), false).map_err(tell)?;
    for last in LAST_BYTES {
        let (bytes, is_all) = ends(&file, last).map_err(tell)?;
        let read = SessionFile::read(epoch, &bytes).map_err(Unreadable::File)?;
        let says_when = |line: &Line| !matches!(line.event, Event::TrackZero { .. });
        if is_all || read.lines.iter().any(says_when) {
            return Ok(read);
        }
    }
    read_session(directory, epoch)
}

/// The first line and whole lines of so many bytes at the end, and whether that is all there is.
fn ends(file: &File, last: u64) -> io::Result<(Vec<u8>, bool)> {
    let (mut bytes, mut end) = (Vec::new(), Vec::new());
    let mut file = BufReader::new(file);
    file.rewind()?;
    let first = file.by_ref().take(FIRST_BYTES_MAX).read_until(b'\n', &mut bytes)? as u64;
    let from = file.seek(SeekFrom::End(0))?.saturating_sub(last).max(first);
    file.seek(SeekFrom::Start(from))?;
    if from > first {
        file.by_ref().take(last).skip_until(b'\n')?;
    }
    file.take(last).read_to_end(&mut end)?;
    bytes.append(&mut end);
    Ok((bytes, from == first))
}

impl Summary {
    fn of(session: &Session) -> Option<Self> {
        let first = session.stretches.first()?;
        let last_us = session.lines.last().map_or(first.from_us, |line| line.at_us);
        Some(Self {
            room_name: first.started.room_name.clone(),
            began_us: first.from_us,
            duration: Duration::from_micros(last_us.saturating_sub(first.from_us)),
        })
    }
}

pub(super) enum Lock {
    /// Until it is dropped.
    Ours(Option<File>),
    Taken,
}

/// Nobody records an epoch of which there is no session file: that is the first file of all.
pub(super) fn lock(directory: &Path, epoch: Epoch) -> io::Result<Lock> {
    lock_named(directory, &epoch.session_file())
}

/// Of what is not there nobody has the lock.
pub(super) fn lock_named(directory: &Path, name: &str) -> io::Result<Lock> {
    let file = match open(&directory.join(name), false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lock::Ours(None)),
        Err(error) => return Err(error),
    };
    try_lock(file)
}

pub(super) fn try_lock(file: File) -> io::Result<Lock> {
    match file.try_lock() {
        Ok(()) => Ok(Lock::Ours(Some(file))),
        Err(TryLockError::WouldBlock) => Ok(Lock::Taken),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn open(path: &Path, writes: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(writes).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path)
}

/// The directories that are recordings, by id.
pub(super) fn recordings(root: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let Ok(id) = entry.file_name().into_string() else { continue };
        if let Some(directory) = directory(root, &id)
            && entry.file_type()?.is_dir()
        {
            found.push((id, directory));
        }
    }
    found.sort();
    Ok(found)
}

pub(super) struct Entry {
    pub name: String,
    pub bytes: u64,
    pub kind: Kind,
}

pub(super) enum Kind {
    Session(Epoch),
    Whole(TrackFile),
    /// Asked of the composer, or made by it.
    Composed,
    Links,
    Part(TrackFile),
}

/// The files that are named as ours are, by name.
pub(super) fn entries(directory: &Path) -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let (stem, is_part) = name.strip_suffix(TrackFile::PART).map_or((&*name, false), |stem| (stem, true));
        let kind = match (Epoch::of_session_file(&name), stem.parse::<TrackFile>()) {
            (Some(epoch), _) => Kind::Session(epoch),
            (None, Ok(file)) if is_part => Kind::Part(file),
            (None, Ok(file)) => Kind::Whole(file),
            (None, Err(_)) if name.starts_with(COMPOSED) => Kind::Composed,
            (None, Err(_)) if stem == LINKS => Kind::Links,
            (None, Err(_)) => continue,
        };
        let metadata = entry.metadata()?;
        if metadata.is_file() {
            found.push(Entry { bytes: metadata.len(), name, kind });
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}
