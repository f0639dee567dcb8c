//! Renders recordings as they end, one at a time. What a recording asks and what it is answered are files in its directory,
//! described in `proto/plenary/v1/compose.md`.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, TryLockError},
    io::{self, Read},
    os::unix::fs::DirBuilderExt,
    path::{Component, Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use plenary_recording::session_file::{Event, Session, StopReason, TrackFile};
use serde::{Deserialize, Serialize};

use crate::{
    ffmpeg::{Content, Format, Settings},
    layout::{Canvas, Layout},
    probe::{ReadSessionError, read_session},
    process::RunError,
    run::{ComposeError, Composed, Progress, Work, make},
};

/// Of all files here.
pub const VERSION: u32 = 1;
/// The wish of a recording; it is there until the answer is.
pub const REQUEST: &str = "compose.json";
/// How far it is.
pub const PROGRESS: &str = "compose.progress.json";
pub const RESULT: &str = "compose.result.json";
/// What a request that failed is called from then on. Renamed back it is tried again.
pub const FAILED: &str = "compose.failed.json";

const REQUEST_BYTES_MAX: u64 = 64 * 1024;
/// A recording whose last epoch did not end in order has ended when for so long nothing was written into its directory:
/// another node would have gone on with it.
const DEAD_AFTER: Duration = Duration::from_secs(600);
/// So many composers in a row may die of one step, say of too little memory, before the next one refuses.
const STARTS_MAX: u32 = 5;

/// What a recording asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Request {
    pub version: u32,
    /// Below the watched directory, where nothing is called so yet; without one it is `composed.mp4` (or `.webm`) beside the tracks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<PathBuf>,
    /// The recording is over, whatever its session says: whoever asks knows.
    pub ended: bool,
    pub format: Format,
    pub layout: Layout,
    pub content: Content,
    /// Identities; empty means everybody.
    pub participants: BTreeSet<String>,
    pub names: bool,
    pub width: u32,
    pub height: u32,
    pub fps: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video_bits_per_second: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_bits_per_second: Option<u32>,
}

impl Default for Request {
    fn default() -> Self {
        let Settings { format, layout, content, participants, names, canvas, fps, .. } = Settings::default();
        let Settings { video_bits_per_second, audio_bits_per_second, .. } = Settings::default();
        let Canvas { width, height } = canvas;
        Self {
            version: VERSION,
            output: None,
            ended: false,
            format,
            layout,
            content,
            participants,
            names,
            width,
            height,
            fps,
            video_bits_per_second,
            audio_bits_per_second,
        }
    }
}

/// How far a rendering is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressFile {
    pub version: u32,
    pub done: usize,
    /// 0 before that is known.
    pub steps: usize,
    /// How many composers in a row have begun without finishing a step, this one included.
    pub starts: u32,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultFile {
    pub version: u32,
    #[serde(flatten)]
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Outcome {
    Complete {
        /// Below the watched directory.
        path: PathBuf,
        /// In bytes.
        size: u64,
        duration_us: u64,
        /// Microseconds since 1970: of the recording, not of the rendering.
        started_us: u64,
        ended_us: u64,
        /// Files that the session names and that are not there or cannot be read.
        #[serde(default)]
        missing: Vec<String>,
    },
    Failed {
        error: Failure,
        /// A sentence, without what ffmpeg says.
        message: String,
        /// The last that ffmpeg said.
        #[serde(default)]
        log: String,
    },
}

/// Why there is no video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// It cannot be read, or asks for what there is not.
    BadRequest,
    /// Its session files cannot be read, or nothing was recorded.
    BadRecording,
    /// Something is called like the output.
    Exists,
    Disk,
    FfmpegFailed,
    /// Nothing came of it for [`STALLED_AFTER`](crate::STALLED_AFTER).
    FfmpegStalled,
    /// It said that all is well, and what it made is not what it was to be.
    FfmpegWrong,
    /// Composers died of it.
    ComposerDied,
}

#[derive(Debug, thiserror::Error)]
enum RenderError {
    #[error("the request cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("the request has version {0}, and this composer knows {VERSION}")]
    Version(u32),
    #[error("the output is no path below the watched directory that ends in .{}", .0.extension())]
    Output(Format),
    #[error("{0}")]
    Disk(#[from] io::Error),
    #[error("{STARTS_MAX} composers in a row have died of it")]
    Died,
    #[error(transparent)]
    Compose(#[from] ComposeError),
}

impl RenderError {
    fn failure(&self) -> Failure {
        match self {
            Self::Unreadable(_) | Self::Version(_) | Self::Output(_) | Self::Compose(ComposeError::Settings(_)) => {
                Failure::BadRequest
            }
            Self::Died => Failure::ComposerDied,
            Self::Disk(_) => Failure::Disk,
            Self::Compose(error) => match error {
                ComposeError::Session(ReadSessionError::Io(_)) => Failure::Disk,
                ComposeError::Session(_) | ComposeError::Plan(_) => Failure::BadRecording,
                ComposeError::Run(RunError::Stalled { .. })
                | ComposeError::Step { error: RunError::Stalled { .. }, .. } => Failure::FfmpegStalled,
                ComposeError::Run(_) | ComposeError::Step { .. } => Failure::FfmpegFailed,
                ComposeError::Wrong { .. } => Failure::FfmpegWrong,
                ComposeError::Exists(_) => Failure::Exists,
                _ => Failure::Disk,
            },
        }
    }

    /// It may be otherwise soon.
    fn is_passing(&self) -> bool {
        let Self::Compose(error) = self else { return false };
        matches!(
            error,
            ComposeError::Busy(_)
                | ComposeError::Space { .. }
                | ComposeError::Session(ReadSessionError::BeingRecorded)
                | ComposeError::Run(RunError::NotInstalled(_))
        )
    }
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
    /// Tried again when asked again.
    Waits {
        waits: String,
    },
    Failed {
        failed: String,
        log: String,
    },
}

/// Renders what has ended and asks for it, each once, until it is cancelled. `settings` has what no request decides.
///
/// # Errors
/// If the directory cannot be read.
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
        if !has_ended(&directory) {
            continue;
        }
        let mut tell = |news| report(Report { recording: directory.clone(), news });
        // What cannot be answered must not keep the others from it.
        if let Err(error) = answer(root, &directory, settings, cancel, &mut tell) {
            tell(News::Waits { waits: error.to_string() });
        }
    }
    Ok(())
}

fn answer(
    root: &Path,
    directory: &Path,
    settings: &Settings,
    cancel: &AtomicBool,
    report: &mut dyn FnMut(News),
) -> io::Result<()> {
    let request = directory.join(REQUEST);
    // Two composers of one directory share the work. Who comes late may find that it was done.
    let _lock = match lock(&request)? {
        Some(lock) if request.is_file() => lock,
        _ => return Ok(()),
    };
    let (outcome, left) = match render(root, directory, settings, cancel, report) {
        Ok((outcome, work)) => (outcome, Some(work)),
        Err(RenderError::Compose(error)) if error.is_cancelled() => return Ok(()),
        Err(error) if error.is_passing() => {
            report(News::Waits { waits: error.to_string() });
            return Ok(());
        }
        Err(error) => {
            let (message, log) = match &error {
                RenderError::Compose(compose) => (error.to_string(), compose.log().to_owned()),
                _ => (error.to_string(), String::new()),
            };
            report(News::Failed { failed: message.clone(), log: log.clone() });
            (Outcome::Failed { error: error.failure(), message, log }, None)
        }
    };
    // In this order: whoever finds no request finds its result, and whoever finds one with its video knows it for theirs.
    write(&directory.join(RESULT), &ResultFile { version: VERSION, outcome })?;
    match left {
        Some(work) => {
            work.remove().map_err(io::Error::other)?;
            fs::remove_file(request)?;
        }
        None => fs::rename(request, directory.join(FAILED))?,
    }
    remove_if_there(&directory.join(PROGRESS))
}

fn render(
    root: &Path,
    directory: &Path,
    settings: &Settings,
    cancel: &AtomicBool,
    report: &mut dyn FnMut(News),
) -> Result<(Outcome, Work), RenderError> {
    let request = read_request(directory)?;
    let path = request.output.clone().or_else(|| {
        let name = format!("composed.{}", request.format.extension());
        Some(Path::new(directory.file_name()?).join(name))
    });
    let path = path.filter(|path| is_output(path, request.format)).ok_or(RenderError::Output(request.format))?;
    let output = root.join(&path);
    if let Some(parent) = output.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    let replaces = request.output.is_none();
    if !replaces && let Some(outcome) = said_before(directory, &path, &output) {
        return Ok((outcome, Work::open(&output)?));
    }
    let settings = Settings {
        layout: request.layout,
        format: request.format,
        content: request.content,
        participants: request.participants,
        canvas: Canvas { width: request.width, height: request.height },
        fps: request.fps,
        video_bits_per_second: request.video_bits_per_second,
        audio_bits_per_second: request.audio_bits_per_second,
        names: request.names,
        replaces,
        ..settings.clone()
    };
    let mut progress = Starts::begin(directory)?;
    let made = make(directory, &output, &settings, cancel, &mut |news| {
        progress.tell(&news);
        report(News::Progress(news));
    });
    if made.is_err() {
        progress.take_back();
    }
    let (Composed { started_us, duration_us, size, missing }, work) = made?;
    let missing = missing.iter().map(TrackFile::to_string).collect();
    let ended_us = started_us.saturating_add(duration_us);
    Ok((Outcome::Complete { path, size, duration_us, started_us, ended_us, missing }, work))
}

fn read_request(directory: &Path) -> Result<Request, RenderError> {
    let mut text = Vec::new();
    File::open(directory.join(REQUEST))?.take(REQUEST_BYTES_MAX).read_to_end(&mut text)?;
    let request: Request = serde_json::from_slice(&text)?;
    if request.version == VERSION { Ok(request) } else { Err(RenderError::Version(request.version)) }
}

/// The answer of a composer that was killed before it could take the request away, if the video is there: it is newer than the
/// request.
fn said_before(directory: &Path, path: &Path, output: &Path) -> Option<Outcome> {
    let modified = |name| fs::metadata(directory.join(name)).and_then(|data| data.modified()).ok();
    if modified(RESULT)? < modified(REQUEST)? || output.symlink_metadata().is_err() {
        return None;
    }
    let answer: ResultFile = serde_json::from_slice(&fs::read(directory.join(RESULT)).ok()?).ok()?;
    Some(answer.outcome).filter(|said| matches!(said, Outcome::Complete { path: of, .. } if of == path))
}

/// Neither absolute nor going up, called as a video is called and not as a file of a recording.
fn is_output(path: &Path, format: Format) -> bool {
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_called_so = path.extension().is_some_and(|extension| extension == format.extension());
    is_plain && is_called_so && name.parse::<TrackFile>().is_err()
}

/// Keeps account of composers that died, in the file that says how far it is.
struct Starts {
    path: PathBuf,
    now: ProgressFile,
}

impl Starts {
    fn begin(directory: &Path) -> Result<Self, RenderError> {
        let path = directory.join(PROGRESS);
        let before: Option<ProgressFile> = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let starts = before.map_or(0, |before| before.starts);
        if starts >= STARTS_MAX {
            return Err(RenderError::Died);
        }
        let now = ProgressFile { version: VERSION, done: 0, steps: 0, starts: starts + 1 };
        write(&path, &now)?;
        Ok(Self { path, now })
    }

    fn tell(&mut self, progress: &Progress) {
        match progress {
            Progress::Planned { steps, .. } => self.now.steps = *steps,
            Progress::Step { done, steps, made } => {
                let starts = if *made { 0 } else { self.now.starts };
                self.now = ProgressFile { done: *done, steps: *steps, starts, ..self.now };
            }
            Progress::Done { .. } => return,
        }
        // Nothing depends on it but what people see, and after the next step it is tried again.
        let _ = write(&self.path, &self.now);
    }

    /// This one did not die.
    fn take_back(&mut self) {
        self.now.starts = self.now.starts.saturating_sub(1);
        let _ = write(&self.path, &self.now);
    }
}

fn has_ended(directory: &Path) -> bool {
    match read_session(directory) {
        Ok(session) if says_so(&session) => true,
        Err(ReadSessionError::BeingRecorded) => false,
        // Perhaps it has not begun yet.
        Ok(_) | Err(_) => read_request(directory).is_ok_and(|request| request.ended) || is_quiet(directory),
    }
}

fn says_so(session: &Session) -> bool {
    let last = session.lines.iter().rfind(|line| !matches!(line.event, Event::Unknown));
    matches!(last.map(|line| &line.event), Some(Event::Stopped { reason }) if *reason != StopReason::Moved)
}

fn is_quiet(directory: &Path) -> bool {
    let modified = |entry: fs::DirEntry| entry.metadata().and_then(|data| data.modified()).ok();
    let newest = fs::read_dir(directory).into_iter().flatten().filter_map(|entry| modified(entry.ok()?)).max();
    newest.is_some_and(|newest| SystemTime::now().duration_since(newest).is_ok_and(|age| age >= DEAD_AFTER))
}

/// None if somebody has it, or the file is gone.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A reader finds what was there before or all of it, also after a loss of power.
fn write(path: &Path, content: &impl Serialize) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    fs::write(&part, serde_json::to_vec_pretty(content)?)?;
    File::open(&part)?.sync_all()?;
    fs::rename(&part, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
