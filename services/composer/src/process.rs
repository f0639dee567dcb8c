//! Other people's programs, run so that the calls on this machine do not notice.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io::{self, Read},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

/// Of what a program says at its end.
const TAIL_BYTES: usize = 2048;
const CANCEL_CHECKED_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cancelled")]
    Cancelled,
    #[error("ffmpeg is not there; on Debian the package `ffmpeg` has it")]
    NotInstalled,
    #[error("ffmpeg cannot be started: {0}")]
    Start(io::Error),
    #[error("ffmpeg failed ({status}) and said at its end:\n{tail}")]
    Failed { status: ExitStatus, tail: String },
}

/// With the lowest priority there is. `nice` becomes the program, so ending the one ends the other.
pub(crate) fn gently(program: &str) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "19", program]);
    command
}

/// How `nice` says so.
pub(crate) fn is_not_installed(status: ExitStatus) -> bool {
    status.code() == Some(127)
}

/// Runs ffmpeg to its end, or until `cancel`.
pub(crate) fn ffmpeg(directory: &Path, args: &[OsString], output: &str, cancel: &AtomicBool) -> Result<(), RunError> {
    let mut command = gently("ffmpeg");
    command.args(args).arg(output).current_dir(directory);
    let mut child = Running(
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(RunError::Start)?,
    );
    let said = child.0.stderr.take().map(|stderr| thread::spawn(move || tail(stderr)));
    let status = loop {
        if cancel.load(Ordering::Relaxed) {
            return Err(RunError::Cancelled);
        }
        match child.0.try_wait().map_err(RunError::Start)? {
            Some(status) => break status,
            None => thread::sleep(CANCEL_CHECKED_EVERY),
        }
    };
    if status.success() {
        return Ok(());
    }
    if is_not_installed(status) {
        return Err(RunError::NotInstalled);
    }
    let tail = said.and_then(|said| said.join().ok()).unwrap_or_default();
    Err(RunError::Failed { status, tail })
}

/// Does not outlive its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The last of what can be read, however much that is.
fn tail(mut from: impl Read) -> String {
    let (mut tail, mut buffer) = (VecDeque::with_capacity(2 * TAIL_BYTES), [0; TAIL_BYTES]);
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        tail.extend(buffer.iter().take(read));
        tail.drain(..tail.len().saturating_sub(TAIL_BYTES));
    }
    String::from_utf8_lossy(tail.make_contiguous()).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn the_tail_is_the_last_of_a_long_log() {
        let log: String = (0..10_000).map(|line| format!("line {line}\n")).collect();
        let tail = tail(log.as_bytes());
        assert!(tail.ends_with("line 9999") && tail.len() <= TAIL_BYTES && tail.len() > TAIL_BYTES / 2);
    }

    #[test]
    fn what_is_cancelled_before_it_ends_says_so() {
        let cancel = AtomicBool::new(true);
        let ended = ffmpeg(Path::new("/"), &["-version".into()], "x", &cancel);
        assert!(matches!(ended, Err(RunError::Cancelled | RunError::Start(_))), "{ended:?}");
    }
}
