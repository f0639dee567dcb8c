//! Renders recordings as they end, one at a time.
//!
//! A recording asks by a file [`REQUEST`] in its directory. When the video stands under its name, the request is removed;
//! if it cannot be made, the request is renamed to [`FAILED`], with the reason in it, and left to people.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use plenary_recording::session_file::{Event, Session, StopReason};
use serde::{Deserialize, Serialize};

use crate::{
    ffmpeg::{Format, Settings},
    layout::{Canvas, Layout},
    probe::read_session,
    run::{ComposeError, Progress, compose},
};

pub const REQUEST: &str = "compose.json";
pub const FAILED: &str = "compose.failed.json";

/// A recording whose last epoch did not end in order has ended when for so long nothing was written into its directory.
const DEAD_AFTER: Duration = Duration::from_secs(3600);

/// What a recording asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Below the watched directory; without one it is `composed.mp4` (or `.webm`) beside the tracks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<PathBuf>,
    #[serde(default)]
    pub layout: Layout,
    #[serde(default)]
    pub format: Format,
    #[serde(default = "Request::width")]
    pub width: u32,
    #[serde(default = "Request::height")]
    pub height: u32,
    #[serde(default = "Request::fps")]
    pub fps: u32,
    /// Written by the composer: why there is no video.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Request {
    fn width() -> u32 {
        Settings::default().canvas.width
    }

    fn height() -> u32 {
        Settings::default().canvas.height
    }

    fn fps() -> u32 {
        Settings::default().fps
    }
}

#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("the request cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("the output is not below the watched directory")]
    Outside,
    #[error("{0}")]
    Disk(#[from] io::Error),
    #[error(transparent)]
    Compose(#[from] ComposeError),
}

/// What happened to a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    pub recording: PathBuf,
    #[serde(flatten)]
    pub news: News,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum News {
    Progress(Progress),
    Failed { failed: String },
}

/// Renders what has ended and asks for it, until there is no such recording or it is cancelled. `settings` has what no
/// request decides.
pub fn render_all(
    root: &Path,
    settings: &Settings,
    cancel: &AtomicBool,
    report: &mut dyn FnMut(Report),
) -> io::Result<()> {
    let mut directories: Vec<_> = fs::read_dir(root)?
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .filter(|path| path.join(REQUEST).is_file())
        .collect();
    directories.sort();
    for directory in directories {
        if cancel.load(Ordering::Relaxed) {
            break;
        }
        // An unreadable session is a reason to fail; that of a recording that goes on is not.
        if read_session(&directory).is_ok_and(|session| !has_ended(&session, &directory)) {
            continue;
        }
        let mut tell = |news| report(Report { recording: directory.clone(), news });
        match render(root, &directory, settings, cancel, &mut |progress| tell(News::Progress(progress))) {
            Ok(()) => fs::remove_file(directory.join(REQUEST))?,
            Err(RequestError::Compose(error)) if error.is_cancelled() => break,
            // Its own composer will end the matter.
            Err(RequestError::Compose(ComposeError::Busy(_))) => {}
            Err(error) => {
                set_aside(&directory, &error.to_string())?;
                tell(News::Failed { failed: error.to_string() });
            }
        }
    }
    Ok(())
}

fn render(
    root: &Path,
    directory: &Path,
    settings: &Settings,
    cancel: &AtomicBool,
    report: &mut dyn FnMut(Progress),
) -> Result<(), RequestError> {
    let request: Request = serde_json::from_slice(&fs::read(directory.join(REQUEST))?)?;
    let output = match &request.output {
        None => directory.join(format!("composed.{}", request.format.extension())),
        Some(path) => below(root, path).ok_or(RequestError::Outside)?,
    };
    if let Some(parent) = output.parent() {
        fs::create_dir_all(parent)?;
    }
    let settings = Settings {
        layout: request.layout,
        format: request.format,
        canvas: Canvas { width: request.width, height: request.height },
        fps: request.fps,
        ..settings.clone()
    };
    Ok(compose(directory, &output, &settings, cancel, report)?)
}

/// `None` of a path that is absolute, goes up or has no file name.
fn below(root: &Path, path: &Path) -> Option<PathBuf> {
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    (is_plain && path.file_name().is_some()).then(|| root.join(path))
}

fn has_ended(session: &Session, directory: &Path) -> bool {
    let last = session.lines.iter().rfind(|line| !matches!(line.event, Event::Unknown));
    match last.map(|line| &line.event) {
        Some(Event::Stopped { reason }) => *reason != StopReason::Moved,
        _ => is_quiet(directory),
    }
}

fn is_quiet(directory: &Path) -> bool {
    let modified = |entry: fs::DirEntry| entry.metadata().and_then(|data| data.modified()).ok();
    let newest = fs::read_dir(directory).into_iter().flatten().filter_map(|entry| modified(entry.ok()?)).max();
    newest.is_some_and(|newest| SystemTime::now().duration_since(newest).is_ok_and(|age| age >= DEAD_AFTER))
}

fn set_aside(directory: &Path, error: &str) -> io::Result<()> {
    let request = fs::read(directory.join(REQUEST))?;
    let mut request: serde_json::Map<_, _> = serde_json::from_slice(&request).unwrap_or_default();
    request.insert("error".to_owned(), error.into());
    fs::write(directory.join(FAILED), serde_json::to_vec_pretty(&request)?)?;
    fs::remove_file(directory.join(REQUEST))
}

#[cfg(test)]
mod tests {
    use plenary_recording::session_file::{Epoch, Line, Started, VERSION};

    use super::*;

    const EPOCH: Epoch = Epoch { number: 1, boot: 2 };

    fn recording(root: &Path, name: &str, request: &str, lines: &[Event]) -> PathBuf {
        let directory = root.join(name);
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join(REQUEST), request).unwrap();
        let started = Event::Started(Started {
            version: VERSION,
            recording: "EG_x".into(),
            room: "RM_x".into(),
            room_name: "x".into(),
            node: "ND_x".into(),
            predecessor: None,
        });
        let events = std::iter::once(&started).chain(lines);
        let lines = events.enumerate().flat_map(|(at, event)| Line { at_us: at as u64, event: event.clone() }.encode());
        fs::write(directory.join(EPOCH.session_file()), lines.collect::<Vec<_>>()).unwrap();
        directory
    }

    fn failures(root: &Path) -> Vec<String> {
        let mut failed = Vec::new();
        let mut report = |report: Report| {
            if let News::Failed { failed: reason } = report.news {
                failed.push(reason);
            }
        };
        render_all(root, &Settings::default(), &AtomicBool::new(false), &mut report).unwrap();
        failed
    }

    #[test]
    fn a_recording_that_goes_on_or_moves_waits() {
        let root = tempfile::tempdir().unwrap();
        let going = recording(root.path(), "going", "{}", &[]);
        let moving = recording(root.path(), "moving", "{}", &[Event::Stopped { reason: StopReason::Moved }]);
        assert_eq!(failures(root.path()), Vec::<String>::new());
        assert!(going.join(REQUEST).exists() && moving.join(REQUEST).exists());
    }

    #[test]
    fn a_request_that_cannot_be_served_is_set_aside_with_its_reason() {
        let root = tempfile::tempdir().unwrap();
        let ended = [Event::Stopped { reason: StopReason::Requested }];
        for (name, request, reason) in [
            ("a", r#"{"output":"../x.mp4"}"#, "not below"),
            ("b", r#"{"output":"/x.mp4"}"#, "not below"),
            ("c", "no JSON", "cannot be read"),
            ("d", r#"{"width":5}"#, "width and height"),
        ] {
            let directory = recording(root.path(), name, request, &ended);
            let failed = failures(root.path());
            assert!(failed.len() == 1 && failed[0].contains(reason), "{failed:?}");
            assert!(fs::read_to_string(directory.join(FAILED)).unwrap().contains(reason));
            assert!(!directory.join(REQUEST).exists());
            assert_eq!(failures(root.path()), Vec::<String>::new(), "is not tried again");
        }
    }
}
