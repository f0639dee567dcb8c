//! From a recording's directory to a video: one ffmpeg at a time, and what is done stays done.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use plenary_recording::session_file::TrackFile;
use serde::Serialize;

use crate::{
    ffmpeg::{BadSettings, FONT, Settings, Step, steps},
    plan::plan,
    probe::{ReadSessionError, probe, read_session},
    process::{RunError, ffmpeg},
    timeline::{Spans, TimelineError},
};

const LOCK: &str = "lock";

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
        /// No font was found, so that nobody is called by name.
        nameless: bool,
    },
    Step {
        done: usize,
        steps: usize,
    },
    Done {
        output: PathBuf,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    #[error(transparent)]
    Settings(#[from] BadSettings),
    #[error(transparent)]
    Session(#[from] ReadSessionError),
    #[error("its files cannot be looked at: {0}")]
    Probe(io::Error),
    #[error(transparent)]
    Plan(#[from] TimelineError),
    #[error("{path}: {error}")]
    Disk { path: PathBuf, error: io::Error },
    #[error("another composer is making {0}")]
    Busy(PathBuf),
    #[error(transparent)]
    Run(#[from] RunError),
}

impl ComposeError {
    /// It was asked to stop, and can go on where it stopped.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Run(RunError::Cancelled))
    }
}

/// Renders the recording in `directory` as `output`. What it makes on the way stands in `<output>.work`, which stays until
/// the video is whole: the same call goes on where one that was cancelled, failed or killed had come to.
///
/// Blocks until it is done. Uses about the memory of one ffmpeg.
pub fn compose(
    directory: &Path,
    output: &Path,
    settings: &Settings,
    cancel: &AtomicBool,
    report: &mut dyn FnMut(Progress),
) -> Result<(), ComposeError> {
    settings.check()?;
    let session = read_session(directory)?;
    let media = probe(directory, &session, cancel).map_err(ComposeError::Probe)?;
    if cancel.load(Ordering::Relaxed) {
        return Err(RunError::Cancelled.into());
    }
    let spans: Spans = media.iter().map(|(file, media)| (file.clone(), media.span)).collect();
    let plan = plan(&session, &spans, settings.layout, settings.canvas, settings.fps)?;
    let steps = steps(&plan, &media, settings);
    report(Progress::Planned {
        steps: steps.len(),
        seconds: plan.length_us.div_ceil(1_000_000),
        missing: plan.missing.iter().map(TrackFile::to_string).collect(),
        nameless: settings.font.is_none(),
    });

    let work = Work::open(output, &steps, settings)?;
    for (index, step) in steps.iter().enumerate() {
        work.make(step, cancel)?;
        report(Progress::Step { done: index + 1, steps: steps.len() });
    }
    if let Some(video) = steps.last() {
        work.finish(&video.output, output)?;
    }
    report(Progress::Done { output: output.to_owned() });
    Ok(())
}

/// The directory of one rendering, ours alone as long as this lives.
struct Work {
    directory: PathBuf,
    _lock: File,
}

impl Work {
    fn open(output: &Path, steps: &[Step], settings: &Settings) -> Result<Self, ComposeError> {
        let mut name = OsString::from(output.file_name().unwrap_or_default());
        name.push(".work");
        let directory = output.with_file_name(name);
        let disk = |error| ComposeError::Disk { path: directory.clone(), error };
        fs::create_dir_all(&directory).map_err(disk)?;
        let lock = File::create(directory.join(LOCK)).map_err(disk)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ComposeError::Busy(output.to_owned())),
            Err(TryLockError::Error(error)) => return Err(disk(error)),
        }
        // Left by a rendering that was killed, whose ffmpeg may still write, or by one with other settings.
        let kept: BTreeSet<&str> = steps.iter().map(|step| step.output.as_str()).chain([LOCK]).collect();
        for entry in fs::read_dir(&directory).map_err(disk)? {
            let entry = entry.map_err(disk)?;
            if !entry.file_name().to_str().is_some_and(|name| kept.contains(name)) {
                fs::remove_file(entry.path()).map_err(disk)?;
            }
        }
        if let Some(font) = &settings.font {
            // Under a name that means nothing in a filter.
            fs::copy(font, directory.join(FONT)).map_err(|error| ComposeError::Disk { path: font.clone(), error })?;
        }
        Ok(Self { directory, _lock: lock })
    }

    /// Unless it is there. It gets its name when it is whole.
    fn make(&self, step: &Step, cancel: &AtomicBool) -> Result<(), ComposeError> {
        let whole = self.directory.join(&step.output);
        if whole.exists() {
            return Ok(());
        }
        for (name, text) in &step.texts {
            let path = self.directory.join(name);
            fs::write(&path, text).map_err(|error| ComposeError::Disk { path, error })?;
        }
        let part = format!("{}.part", step.output);
        let made = ffmpeg(&self.directory, &step.args, &part, cancel);
        let part = self.directory.join(part);
        let ended = match made {
            Ok(()) => rename_whole(&part, &whole),
            Err(error) => {
                let _ = fs::remove_file(part);
                Err(error.into())
            }
        };
        for (name, _) in &step.texts {
            let _ = fs::remove_file(self.directory.join(name));
        }
        ended
    }

    fn finish(self, video: &str, output: &Path) -> Result<(), ComposeError> {
        rename_whole(&self.directory.join(video), output)?;
        fs::remove_dir_all(&self.directory).map_err(|error| ComposeError::Disk { path: self.directory, error })
    }
}

/// A name stands for a whole file, also after a loss of power.
fn rename_whole(from: &Path, to: &Path) -> Result<(), ComposeError> {
    let renamed = File::open(from).and_then(|file| file.sync_all()).and_then(|()| fs::rename(from, to));
    renamed.map_err(|error| ComposeError::Disk { path: to.to_owned(), error })
}
