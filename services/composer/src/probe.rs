//! What of a recording is on disk.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader},
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
};

use plenary_recording::session_file::{Epoch, Event, MergeError, ReadError, Session, SessionFile, TrackFile, merge};

use crate::{ffmpeg::Media, process, timeline::Span};

/// Far more than a day of a large meeting.
const SESSION_BYTES_MAX: u64 = 256 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ReadSessionError {
    #[error("cannot read the recording's directory: {0}")]
    Io(#[from] io::Error),
    #[error("session file {name} {error}")]
    File { name: String, error: ReadError },
    #[error("session file {name} is larger than {SESSION_BYTES_MAX} bytes")]
    TooLarge { name: String },
    #[error(transparent)]
    Merge(#[from] MergeError),
}

/// All session files of a directory as one. Those that were not begun are left out, as nothing belongs to them.
pub fn read_session(directory: &Path) -> Result<Session, ReadSessionError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(epoch) = Epoch::of_session_file(&name) else { continue };
        if entry.metadata()?.len() > SESSION_BYTES_MAX {
            return Err(ReadSessionError::TooLarge { name });
        }
        match SessionFile::read(epoch, &fs::read(entry.path())?) {
            Ok(file) => files.push(file),
            Err(ReadError::NotBegun) => {}
            Err(error) => return Err(ReadSessionError::File { name, error }),
        }
    }
    Ok(merge(files)?)
}

/// Looks at every file that the session names; those that are not there or hold no frame are left out. One that was never
/// finished is read as far as it goes.
pub(crate) fn probe(
    directory: &Path,
    session: &Session,
    cancel: &AtomicBool,
) -> Result<BTreeMap<TrackFile, Media>, io::Error> {
    let directory = directory.canonicalize()?;
    let mut found = BTreeMap::new();
    for line in &session.lines {
        let Event::Track { file, .. } = &line.event else { continue };
        if cancel.load(Ordering::Relaxed) {
            break;
        }
        let paths = [file.to_string(), file.part()].map(|name| directory.join(name));
        let path = paths.into_iter().find(|path| fs::symlink_metadata(path).is_ok_and(|one| one.is_file()));
        if let Some(path) = path
            && let Some(span) = span(&path)?
        {
            found.insert(file.clone(), Media { path, span });
        }
    }
    Ok(found)
}

/// Reads the time of every packet: a file that was never finished does not say how long it is.
fn span(path: &Path) -> io::Result<Option<Span>> {
    let mut url = std::ffi::OsString::from("file:");
    url.push(path);
    let mut child = process::gently("ffprobe")
        .args(["-v", "quiet", "-protocol_whitelist", "file", "-f", "matroska"])
        .args(["-show_entries", "packet=pts_time", "-of", "csv=p=0", "-i"])
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut span: Option<Span> = None;
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines().map_while(Result::ok)) {
        let Some(us) = microseconds(line.trim_end_matches(',')) else { continue };
        let span = span.get_or_insert(Span { first_us: us, last_us: us });
        span.first_us = span.first_us.min(us);
        span.last_us = span.last_us.max(us);
    }
    if process::is_not_installed(child.wait()?) {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "ffprobe is not there; on Debian the package `ffmpeg` has it",
        ));
    }
    Ok(span)
}

/// Of a decimal number of seconds. Opus begins before zero by what its decoder needs to get going: that is none to hear.
fn microseconds(seconds: &str) -> Option<u64> {
    let seconds: f64 = seconds.parse().ok()?;
    // Saturates, and what is no number is zero.
    Some((seconds * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::microseconds;

    #[test]
    fn times_of_packets_are_read_as_ffprobe_prints_them() {
        let table = [("0.000000", Some(0)), ("-0.007000", Some(0)), ("12.345678", Some(12_345_678)), ("N/A", None)];
        for (text, us) in table {
            assert_eq!(microseconds(text), us, "{text}");
        }
    }
}
