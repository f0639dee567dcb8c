//! From a recording's directory to a video: one ffmpeg at a time, and what is done stays done.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fmt,
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use plenary_recording::session_file::TrackFile;
use serde::Serialize;

use crate::{
    ffmpeg::{BadSettings, Content, FONT, Settings, Step, steps},
    plan::plan,
    probe::{Defect, ReadSessionError, probe, read_session, verify},
    process::{RunError, STALLED_AFTER, gently, installed, run},
    timeline::{Spans, TimelineError, keep_only},
};

/// Who has the lock of this file of a [work directory](work_of) makes the video.
pub const WORK_LOCK: &str = "lock";

/// How far it is; as JSON, a line for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "progress", rename_all = "snake_case")]
pub enum Progress {
    Planned {
        /// Pieces of picture, stretches of sound, and one that joins them.
        steps: usize,
        seconds: u64,
        /// Files that are not there or cannot be read.
        missing: Vec<String>,
        /// There should be names in the picture, and no font was found.
        nameless: bool,
    },
    Step {
        done: usize,
        steps: usize,
        /// Now, and not by a composer before.
        made: bool,
    },
    Done {
        output: PathBuf,
    },
}

/// In words.
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Planned { steps, seconds, missing, nameless } => {
                write!(f, "{seconds} s in {steps} steps")?;
                if !missing.is_empty() {
                    write!(f, "; not there or not readable: {}", missing.join(", "))?;
                }
                if *nameless {
                    write!(f, "; no font is installed (fonts-dejavu-core has one), so there are no names")?;
                }
                Ok(())
            }
            Self::Step { done, steps, .. } => write!(f, "{done} / {steps}"),
            Self::Done { output } => write!(f, "done: {}", output.display()),
        }
    }
}

/// What came of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composed {
    /// Microseconds since 1970, by the clock of the node that recorded first.
    pub started_us: u64,
    pub duration_us: u64,
    /// In bytes.
    pub size: u64,
    /// Files that are not there or cannot be read.
    pub missing: Vec<TrackFile>,
}

#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    #[error(transparent)]
    Settings(#[from] BadSettings),
    #[error(transparent)]
    Session(#[from] ReadSessionError),
    #[error(transparent)]
    Plan(#[from] TimelineError),
    #[error("{path}: {error}")]
    Disk { path: PathBuf, error: io::Error },
    #[error("another composer is making {0}")]
    Busy(PathBuf),
    #[error("there is a file {0} already")]
    Exists(PathBuf),
    #[error("only {} MiB are free", free_bytes >> 20)]
    Space { free_bytes: u64 },
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("{step}: {error}")]
    Step { step: String, error: RunError },
    #[error("ffmpeg ended well, but {step} is not what it was to be: {defect}")]
    Wrong { step: String, defect: Defect },
}

impl ComposeError {
    /// It was asked to stop, and can go on where it stopped.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Run(RunError::Cancelled))
    }

    /// The last that ffmpeg said.
    pub fn log(&self) -> &str {
        match self {
            Self::Step { error, .. } => error.tail(),
            _ => "",
        }
    }
}

/// Renders the recording in `directory` as `output`. What it makes on the way stands in [`work_of`] that, which stays until
/// the video is whole: the same call goes on where one that was cancelled, failed or killed had come to. Every file that
/// ffmpeg makes is looked at before it counts.
///
/// Blocks until it is done. Uses about the memory of one ffmpeg.
pub fn compose(
    directory: &Path,
    output: &Path,
    settings: &Settings,
    cancel: &AtomicBool,
    report: &mut dyn FnMut(Progress),
) -> Result<Composed, ComposeError> {
    let (composed, work) = make(directory, output, settings, cancel, report)?;
    work.remove()?;
    Ok(composed)
}

/// As [`compose`], for whoever has yet to say that it is done: as long as `Work` is there, the same call knows the file of that
/// name from somebody else's.
pub(crate) fn make(
    directory: &Path,
    output: &Path,
    settings: &Settings,
    cancel: &AtomicBool,
    report: &mut dyn FnMut(Progress),
) -> Result<(Composed, Work), ComposeError> {
    settings.check()?;
    if !settings.replaces && inode(output).is_some() && !work_of(output).exists() {
        return Err(ComposeError::Exists(output.to_owned()));
    }
    let mut session = read_session(directory)?;
    if !settings.participants.is_empty() {
        keep_only(&mut session, &settings.participants);
    }
    let work = Work::open(output)?;
    work.check_space(settings)?;
    installed()?;
    let absolute = directory.canonicalize().map_err(ReadSessionError::Io)?;
    let media = probe(&absolute, &session, cancel)?;
    let spans: Spans = media.iter().map(|(file, media)| (file.clone(), media.span)).collect();
    let plan = plan(&session, &spans, settings.layout, settings.canvas, settings.fps)?;
    let steps = steps(&plan, &media, settings);
    report(Progress::Planned {
        steps: steps.len(),
        seconds: plan.length_us.div_ceil(1_000_000),
        missing: plan.missing.iter().map(TrackFile::to_string).collect(),
        nameless: settings.names && settings.content != Content::Audio && settings.font.is_none(),
    });

    let video = steps.last().map(|step| step.output.as_str()).unwrap_or_default();
    if !settings.replaces
        && let Some(there) = inode(output)
        && inode(&work.directory.join(video)) != Some(there)
    {
        // Unless this is what somebody else left who was killed when their video had its name, it is of no use any more.
        if !work.has(there)? {
            work.remove()?;
        }
        return Err(ComposeError::Exists(output.to_owned()));
    }
    work.prepare(&steps, settings)?;
    for (index, step) in steps.iter().enumerate() {
        let made = work.make(step, settings, cancel)?;
        report(Progress::Step { done: index + 1, steps: steps.len(), made });
    }
    let size = work.name(video, output, settings.replaces)?;
    report(Progress::Done { output: output.to_owned() });
    let started_us = session.stretches.first().map_or(0, |stretch| stretch.from_us);
    Ok((Composed { started_us, duration_us: plan.length_us, size, missing: plan.missing }, work))
}

/// Where stands what is made on the way to this video, until it is whole.
pub fn work_of(output: &Path) -> PathBuf {
    let mut name = OsString::from(output.file_name().unwrap_or_default());
    name.push(".work");
    output.with_file_name(name)
}

/// The directory of one rendering, ours alone as long as this lives.
pub(crate) struct Work {
    directory: PathBuf,
    _lock: File,
}

impl Work {
    pub(crate) fn open(output: &Path) -> Result<Self, ComposeError> {
        let directory = work_of(output);
        let disk = |error| ComposeError::Disk { path: directory.clone(), error };
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(disk(error)),
            _ => {}
        }
        let lock = File::create(directory.join(WORK_LOCK)).map_err(disk)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ComposeError::Busy(output.to_owned())),
            Err(TryLockError::Error(error)) => return Err(disk(error)),
        }
        Ok(Self { directory, _lock: lock })
    }

    pub(crate) fn remove(self) -> Result<(), ComposeError> {
        fs::remove_dir_all(&self.directory).map_err(|error| ComposeError::Disk { path: self.directory, error })
    }

    /// Recordings that go on at the same place must not end because of this one.
    fn check_space(&self, settings: &Settings) -> Result<(), ComposeError> {
        let disk = |error: rustix::io::Errno| ComposeError::Disk { path: self.directory.clone(), error: error.into() };
        let space = rustix::fs::statvfs(&self.directory).map_err(disk)?;
        let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
        if free_bytes >= settings.free_bytes_min { Ok(()) } else { Err(ComposeError::Space { free_bytes }) }
    }

    fn has(&self, file: (u64, u64)) -> Result<bool, ComposeError> {
        let entries = fs::read_dir(&self.directory);
        let mut entries = entries.map_err(|error| ComposeError::Disk { path: self.directory.clone(), error })?;
        Ok(entries.any(|entry| entry.is_ok_and(|entry| inode(&entry.path()) == Some(file))))
    }

    /// Keeps what is of use to these steps and nothing else.
    fn prepare(&self, steps: &[Step], settings: &Settings) -> Result<(), ComposeError> {
        let disk = |error| ComposeError::Disk { path: self.directory.clone(), error };
        // Left by a rendering that was killed, whose ffmpeg may still write, or by one with other settings.
        let kept: BTreeSet<&str> = steps.iter().map(|step| step.output.as_str()).chain([WORK_LOCK]).collect();
        for entry in fs::read_dir(&self.directory).map_err(disk)? {
            let entry = entry.map_err(disk)?;
            if !entry.file_name().to_str().is_some_and(|name| kept.contains(name)) {
                fs::remove_file(entry.path()).map_err(disk)?;
            }
        }
        if let Some(font) = &settings.font {
            // Under a name that means nothing in a filter.
            let copied = fs::copy(font, self.directory.join(FONT));
            copied.map_err(|error| ComposeError::Disk { path: font.clone(), error })?;
        }
        Ok(())
    }

    /// Unless it is there, which it gives false for. It gets its name when it is whole.
    fn make(&self, step: &Step, settings: &Settings, cancel: &AtomicBool) -> Result<bool, ComposeError> {
        let whole = self.directory.join(&step.output);
        if whole.exists() {
            return Ok(false);
        }
        self.check_space(settings)?;
        for (name, text) in &step.texts {
            let path = self.directory.join(name);
            fs::write(&path, text).map_err(|error| ComposeError::Disk { path, error })?;
        }
        let name = format!("{}.part", step.output);
        let part = self.directory.join(&name);
        let mut command = gently("ffmpeg");
        command.args(&step.args).arg(&name).current_dir(&self.directory);
        let made = run(command, &part, STALLED_AFTER, cancel);
        let ended = made.map_err(|error| failed(step, error)).and_then(|()| {
            self.look(step, &part, cancel)?;
            rename_whole(&part, &whole)
        });
        if ended.is_err() {
            let _ = fs::remove_file(part);
        }
        for (name, _) in &step.texts {
            let _ = fs::remove_file(self.directory.join(name));
        }
        ended.map(|()| true)
    }

    fn look(&self, step: &Step, part: &Path, cancel: &AtomicBool) -> Result<(), ComposeError> {
        let verdict = verify(part, &step.products, cancel).map_err(|error| failed(step, error))?;
        verdict.map_err(|defect| ComposeError::Wrong { step: step.output.clone(), defect })
    }

    /// Gives the size of the video.
    fn name(&self, video: &str, output: &Path, replaces: bool) -> Result<u64, ComposeError> {
        let disk = |error| ComposeError::Disk { path: output.to_owned(), error };
        let video = self.directory.join(video);
        if replaces {
            rename_whole(&video, output)?;
        } else {
            // A second name instead of another one: nothing is replaced, and by the first one it is known again.
            match fs::hard_link(&video, output) {
                Err(_) if inode(output).is_some_and(|there| inode(&video) == Some(there)) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    // All that is here is ours, and of no use under another name.
                    let _ = fs::remove_dir_all(&self.directory);
                    return Err(ComposeError::Exists(output.to_owned()));
                }
                linked => linked.map_err(disk)?,
            }
        }
        Ok(fs::metadata(output).map_err(disk)?.len())
    }
}

/// What a file is known by, whatever it is called; none if there is no such file.
fn inode(path: &Path) -> Option<(u64, u64)> {
    let there = fs::symlink_metadata(path).ok()?;
    Some((there.dev(), there.ino()))
}

/// Says in which of a rendering's steps it was.
fn failed(step: &Step, error: RunError) -> ComposeError {
    match error {
        RunError::Cancelled => error.into(),
        error => ComposeError::Step { step: step.output.clone(), error },
    }
}

/// A name stands for a whole file, also after a loss of power.
/// For nobody's eyes but those that a recording's own files are for.
fn rename_whole(from: &Path, to: &Path) -> Result<(), ComposeError> {
    let finish = |file: File| {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.sync_all()
    };
    let renamed = File::open(from).and_then(finish).and_then(|()| fs::rename(from, to));
    renamed.map_err(|error| ComposeError::Disk { path: to.to_owned(), error })
}
