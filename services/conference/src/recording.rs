//! Recordings on the disk: a thread for each that is being made, and what is done with those that are there.
//!
//! What is written is decided in `plenary_recording`. Nothing of a call waits for a disk: what a recording cannot take is
//! dropped and told, and when its disk fails it ends with a reason.

pub(crate) mod chat;
mod disk;
mod recorder;
mod render;
mod results;
mod retention;
pub mod shelf;
#[cfg(test)]
pub(crate) mod testing;
mod watch;
mod writer;

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use plenary_composer::{
    self as composer,
    watch::{News, Report as Rendering, render_all},
};

use crate::{
    config,
    events::{
        LeftRecordingSeen, NothingToRenderWith, RecordingExpired, RecordingsUnusable, RenderingFailed, RenderingGoesOn,
        RenderingWaits,
    },
};

pub use recorder::{Ask, Followed, Recorder, Seen, Unseen};
pub use render::check_encoding;
pub use writer::{NotTaken, Report, WriterHandle, start};

use disk::{Disk, LocalDisk};

/// Makes the directory, repairs what the last process left in it and, from then on, removes what is kept no longer: on a thread
/// of its own, for as long as the process lives. Does nothing without a directory.
///
/// # Errors
/// If there is no thread to be had.
pub fn tend(config: &config::Recording) -> io::Result<()> {
    let Some(directory) = config.directory.clone() else { return Ok(()) };
    let retention = config.retention;
    let tend = move || {
        let repaired = LocalDisk.create_directory(&directory).and_then(|()| repair(&directory));
        if let Err(error) = repaired {
            RecordingsUnusable { directory: &directory, error: &error }.emit();
        }
        while !retention.is_zero() {
            match retention::remove_expired(&directory, retention, SystemTime::now()) {
                Ok(gone) => gone.iter().for_each(|directory| RecordingExpired { directory }.emit()),
                Err(error) => RecordingsUnusable { directory: &directory, error: &error }.emit(),
            }
            thread::sleep(EXPIRY_INTERVAL);
        }
    };
    thread::Builder::new().name("recordings".into()).spawn(tend).map(drop)
}

/// Renders what is asked for, one at a time, on a thread of its own, until it is cancelled. Does nothing where that is not wanted.
///
/// # Errors
/// If there is no thread to be had.
pub fn compose(config: &config::Recording, cancel: Arc<AtomicBool>) -> io::Result<()> {
    let Some(directory) = config.directory.clone().filter(|_| config.compose) else { return Ok(()) };
    // It may be installed later, and requests wait a day.
    if let Err(error) = composer::installed() {
        NothingToRenderWith { error: &error }.emit();
    }
    // Recordings come first: they end with less than half of that.
    let free_bytes_min = config.free_bytes_min.saturating_mul(2);
    let settings = composer::Settings { font: composer::default_font(), free_bytes_min, ..Default::default() };
    let compose = move || {
        let mut waits = String::new();
        let mut report = |Rendering { recording, news }: Rendering| match news {
            News::Progress(progress) => RenderingGoesOn { recording: &recording, progress: &progress }.emit(),
            News::Failed { failed, .. } => RenderingFailed { recording: &recording, why: &failed }.emit(),
            // Said at each look.
            News::Waits { waits: why } if why == waits => {}
            News::Waits { waits: why } => {
                RenderingWaits { recording: &recording, why: &why }.emit();
                waits = why;
            }
        };
        while !cancel.load(Ordering::Relaxed) {
            // A directory that cannot be read is told by whoever tends it.
            let _ = render_all(&directory, &settings, &cancel, &mut report);
            thread::sleep(COMPOSE_INTERVAL);
        }
    };
    thread::Builder::new().name("composer".into()).spawn(compose).map(drop)
}

fn repair(directory: &Path) -> io::Result<()> {
    for left in shelf::repair_all(directory, || thread::sleep(shelf::QUIET))? {
        LeftRecordingSeen { left }.emit();
    }
    Ok(())
}

/// Whoever stopped a recording waits for its file.
const COMPOSE_INTERVAL: Duration = Duration::from_secs(1);
/// Retention is hours at least.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(10 * 60);
