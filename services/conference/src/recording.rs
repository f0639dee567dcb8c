//! Recordings on the disk: a thread for each that is being made, and what is done with those that are there.
//!
//! What is written is decided in `plenary_recording`. Nothing of a call waits for a disk: what a recording cannot take is
//! dropped and told, and when its disk fails it ends with a reason.

mod chat;
mod disk;
mod recorder;
mod results;
pub mod shelf;
#[cfg(test)]
pub(crate) mod testing;
mod watch;
mod writer;

use std::{
    io,
    path::Path,
    thread,
    time::{Duration, SystemTime},
};

use crate::{
    config,
    events::{LeftRecordingSeen, RecordingExpired, RecordingsUnusable},
};

pub use recorder::{Ask, Recorder, RoomGone, Seen};
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
            match shelf::remove_expired(&directory, retention, SystemTime::now()) {
                Ok(gone) => gone.iter().for_each(|directory| RecordingExpired { directory }.emit()),
                Err(error) => RecordingsUnusable { directory: &directory, error: &error }.emit(),
            }
            thread::sleep(EXPIRY_INTERVAL);
        }
    };
    thread::Builder::new().name("recordings".into()).spawn(tend).map(drop)
}

fn repair(directory: &Path) -> io::Result<()> {
    for left in shelf::repair_all(directory)? {
        LeftRecordingSeen { left }.emit();
    }
    Ok(())
}

/// Retention is hours at least.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(10 * 60);
