//! What is kept no longer goes: a recording's directory, and what was made of it elsewhere below the root.
//!
//! What that is stands in the directory, and a name alone proves nothing: a video goes if it is as long as the composer's answer
//! says, a second name if it leads to one of the recording's files, the composer's work if nobody has its lock. The directories
//! around them stay, as somebody may be about to make another video there.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use plenary_composer::{
    WORK_LOCK,
    watch::{FAILED, Outcome, REQUEST, Request, ResultFile},
    work_of,
};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, statat, unlinkat};

use super::{
    render,
    shelf::{
        COMPOSED, Entry, Kind, LINKS, Lock, NO_LINK, entries, is_rendered, lock, lock_named, place_below, read_json,
        recordings, there, try_lock, video_of_result,
    },
};

/// Writes down that a file of this recording has another name below the root.
pub(super) fn note_link(directory: &Path, path: &str) -> io::Result<()> {
    let mut links = read_json::<Vec<String>>(directory, LINKS)?.unwrap_or_default();
    if links.iter().any(|known| known == path) {
        return Ok(());
    }
    links.push(path.to_owned());
    let written = directory.join(format!("{LINKS}.part"));
    fs::write(&written, serde_json::to_vec_pretty(&links)?)?;
    fs::rename(written, directory.join(LINKS))
}

/// Removes recordings of which nothing has changed for so long, unless somebody records or renders them. Gives the directories
/// that are gone.
///
/// # Errors
/// If the directory cannot be read. What cannot be removed stays until the next time.
pub(super) fn remove_expired(root: &Path, retention: Duration, now: SystemTime) -> io::Result<Vec<PathBuf>> {
    let is_gone = |directory: &PathBuf| {
        let old = |entries: &Vec<Entry>| is_older(directory, entries, retention, now).unwrap_or(false);
        let entries = entries(directory).ok().filter(old);
        entries.is_some_and(|entries| remove(root, directory, &entries).unwrap_or(false))
    };
    Ok(recordings(root)?.into_iter().map(|(_, directory)| directory).filter(is_gone).collect())
}

fn is_older(directory: &Path, entries: &[Entry], age: Duration, now: SystemTime) -> io::Result<bool> {
    let mut newest = fs::metadata(directory)?.modified()?;
    for entry in entries {
        newest = newest.max(fs::symlink_metadata(directory.join(&entry.name))?.modified()?);
    }
    Ok(now.duration_since(newest).is_ok_and(|found| found >= age))
}

/// False if somebody is at work on it. Session files last: without them nobody knows what the rest is.
fn remove(root: &Path, directory: &Path, entries: &[Entry]) -> io::Result<bool> {
    let works = works(root, directory)?;
    // Held to the end, so that nobody begins meanwhile.
    let Some(_locks) = locks(directory, entries, &works)? else { return Ok(false) };
    for work in &works {
        work.remove()?;
    }
    for entry in entries {
        match entry.kind {
            Kind::Composed if video_of_result(&entry.name).is_some() => remove_video(root, directory, &entry.name)?,
            Kind::Links => remove_links(root, directory, entries)?,
            _ => {}
        }
    }
    let (sessions, others): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| matches!(entry.kind, Kind::Session(_)));
    for entry in others.into_iter().chain(sessions) {
        match fs::remove_file(directory.join(&entry.name)) {
            // A video beside the tracks has gone by its answer.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::remove_dir(directory)?;
    Ok(true)
}

/// None if somebody records it, renders it, or is yet to.
fn locks(directory: &Path, entries: &[Entry], works: &[Work]) -> io::Result<Option<Vec<Lock>>> {
    if render::is_under_way(directory) {
        return Ok(None);
    }
    let mut locks = vec![lock_named(directory, REQUEST)?];
    for entry in entries {
        if let Kind::Session(epoch) = entry.kind {
            locks.push(lock(directory, epoch)?);
        }
    }
    for Work { directory, .. } in works {
        let file = openat(directory, WORK_LOCK, NO_LINK | OFlags::NONBLOCK, Mode::empty())?;
        locks.push(try_lock(File::from(file))?);
    }
    let is_anybodys = locks.iter().any(|lock| matches!(lock, Lock::Taken));
    Ok((!is_anybodys).then_some(locks))
}

/// What a composer left behind on its way to a video.
struct Work {
    within: OwnedFd,
    name: OsString,
    directory: OwnedFd,
}

/// Beside the tracks, and where a request says that its video shall be.
fn works(root: &Path, directory: &Path) -> io::Result<Vec<Work>> {
    let mut paths = Vec::new();
    for request in [REQUEST, FAILED] {
        if let Some(Request { output: Some(output), .. }) = read_json(directory, request)?
            && is_rendered(&output)
        {
            paths.push(work_of(&output));
        }
    }
    let own = directory.strip_prefix(root).unwrap_or(directory);
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(COMPOSED) && name.ends_with(".work")) {
            paths.push(own.join(name));
        }
    }
    let works: io::Result<Vec<_>> = paths.iter().map(|path| Work::find(root, path)).collect();
    Ok(works?.into_iter().flatten().collect())
}

impl Work {
    /// None for what is no composer's.
    fn find(root: &Path, path: &Path) -> io::Result<Option<Self>> {
        let Some((within, name)) = place_below(root, path)? else { return Ok(None) };
        let Some(directory) = there(openat(&within, name, NO_LINK | OFlags::DIRECTORY, Mode::empty()))? else {
            return Ok(None);
        };
        let lock = there(statat(&directory, WORK_LOCK, AtFlags::SYMLINK_NOFOLLOW))?;
        Ok(lock.is_some_and(|lock| is_file(&lock)).then(|| Self { within, name: name.to_owned(), directory }))
    }

    /// The composer makes no directories in it.
    fn remove(&self) -> io::Result<()> {
        let found: Result<Vec<_>, _> = Dir::read_from(&self.directory)?.collect();
        for entry in found? {
            if ![c".", c".."].contains(&entry.file_name()) {
                unlinkat(&self.directory, entry.file_name(), AtFlags::empty())?;
            }
        }
        Ok(unlinkat(&self.within, &self.name, AtFlags::REMOVEDIR)?)
    }
}

fn remove_video(root: &Path, directory: &Path, result: &str) -> io::Result<()> {
    match read_json(directory, result)? {
        Some(ResultFile { outcome: Outcome::Complete { path, size, .. }, .. }) if is_rendered(&path) => {
            remove_file(root, &path, |found| u64::try_from(found.st_size) == Ok(size))
        }
        _ => Ok(()),
    }
}

fn remove_links(root: &Path, directory: &Path, entries: &[Entry]) -> io::Result<()> {
    let mut own = BTreeSet::new();
    for entry in entries.iter().filter(|entry| matches!(entry.kind, Kind::Whole(_))) {
        let metadata = fs::symlink_metadata(directory.join(&entry.name))?;
        own.insert((metadata.dev(), metadata.ino()));
    }
    for path in read_json::<Vec<PathBuf>>(directory, LINKS)?.unwrap_or_default() {
        remove_file(root, &path, |found| own.contains(&(found.st_dev, found.st_ino)))?;
    }
    Ok(())
}

fn remove_file(root: &Path, path: &Path, is_ours: impl Fn(&Stat) -> bool) -> io::Result<()> {
    let Some((within, name)) = place_below(root, path)? else { return Ok(()) };
    match there(statat(&within, name, AtFlags::SYMLINK_NOFOLLOW))? {
        Some(found) if is_file(&found) && is_ours(&found) => Ok(unlinkat(&within, name, AtFlags::empty())?),
        _ => Ok(()),
    }
}

fn is_file(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::RegularFile
}
