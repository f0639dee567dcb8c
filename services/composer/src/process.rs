//! Other people's programs, run so that the calls on this machine do not notice.

use std::{
    collections::VecDeque,
    env, fs,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, SystemTime},
};

/// A run of ffmpeg whose file has not changed for so long is ended, and one of ffprobe that said nothing: it waits for a disk
/// that does not answer, or turns in circles. The longest that it rightly takes to its first frame is decoding from a key frame far before.
pub const STALLED_AFTER: Duration = Duration::from_secs(600);

/// What one program may ask for. Sixteen cameras of 1920×1080 in one picture of 3840×2160 take a quarter of it; a frame for which
/// nothing is left cannot be decoded.
pub const MEMORY_BYTES_MAX: u64 = 4 << 30;

/// Of what a program says at its end.
const TAIL_BYTES: usize = 2048;
const LOOKS_EVERY: Duration = Duration::from_millis(50);
/// Of those that were said and not read yet.
const LINES_MAX: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cancelled")]
    Cancelled,
    #[error("{0} is not installed; on Debian the package `ffmpeg` has it")]
    NotInstalled(&'static str),
    #[error("ffmpeg cannot be run: {0}")]
    Start(io::Error),
    #[error("ffmpeg failed ({status})")]
    Failed { status: ExitStatus, tail: String },
    #[error("ffmpeg was ended, as nothing came of it for {} s", after.as_secs())]
    Stalled { after: Duration, tail: String },
}

impl RunError {
    /// The last that ffmpeg said.
    pub fn tail(&self) -> &str {
        match self {
            Self::Failed { tail, .. } | Self::Stalled { tail, .. } => tail,
            Self::Cancelled | Self::NotInstalled(_) | Self::Start(_) => "",
        }
    }
}

/// Whether `PATH` has both programs.
pub fn installed() -> Result<(), RunError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &&str| env::split_paths(&path).any(|directory| directory.join(program).is_file());
    ["ffmpeg", "ffprobe"]
        .into_iter()
        .find(|program| !is_there(program))
        .map_or(Ok(()), |program| Err(RunError::NotInstalled(program)))
}

/// With the lowest priority there is, for the processor and for the disk, and not all of the memory. Each of these becomes the
/// next, so ending the first ends the program.
pub(crate) fn gently(program: &str) -> Command {
    let mut command = Command::new("nice");
    // Data and not address space, of which each thread sets aside more than it uses.
    let memory = format!("--data={MEMORY_BYTES_MAX}");
    command.args(["-n", "19", "ionice", "-c", "3", "-t", "prlimit", &memory, program]);
    command.stdin(Stdio::null());
    command
}

/// Runs a command that writes `output` to its end, or until `cancel`.
pub(crate) fn run(
    mut command: Command,
    output: &Path,
    stalled_after: Duration,
    cancel: &AtomicBool,
) -> Result<(), RunError> {
    let spawned = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = Running(spawned.map_err(RunError::Start)?);
    let said = child.0.stderr.take().map(|stderr| thread::spawn(move || tail(stderr)));
    let tail = || said.and_then(|said| said.join().ok()).unwrap_or_default();
    // Looks are counted and not time, in which this process may have slept.
    let (mut seen, mut idle) = (None, Duration::ZERO);
    let status = loop {
        if cancel.load(Ordering::Relaxed) {
            return Err(RunError::Cancelled);
        }
        if let Some(status) = child.0.try_wait().map_err(RunError::Start)? {
            break status;
        }
        let now = written(output);
        idle = if now == seen { idle.saturating_add(LOOKS_EVERY) } else { Duration::ZERO };
        seen = now;
        if idle >= stalled_after {
            drop(child);
            return Err(RunError::Stalled { after: stalled_after, tail: tail() });
        }
        thread::sleep(LOOKS_EVERY);
    };
    if status.success() { Ok(()) } else { Err(RunError::Failed { status, tail: tail() }) }
}

/// Gives every line that a command says, until `cancel`. How it ends does not matter.
pub(crate) fn lines(
    mut command: Command,
    stalled_after: Duration,
    cancel: &AtomicBool,
    mut each: impl FnMut(&str),
) -> Result<(), RunError> {
    let spawned = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = Running(spawned.map_err(RunError::Start)?);
    let (sender, lines) = mpsc::sync_channel(LINES_MAX);
    if let Some(stdout) = child.0.stdout.take() {
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
    }
    let mut idle = Duration::ZERO;
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Err(RunError::Cancelled);
        }
        match lines.recv_timeout(LOOKS_EVERY) {
            Ok(line) => {
                each(&line);
                idle = Duration::ZERO;
            }
            Err(RecvTimeoutError::Timeout) => idle = idle.saturating_add(LOOKS_EVERY),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        if idle >= stalled_after {
            return Err(RunError::Stalled { after: stalled_after, tail: String::new() });
        }
    }
}

/// Changes whenever something is written.
fn written(path: &Path) -> Option<(u64, SystemTime)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
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
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = gently("sh");
        command.args(["-c", script]);
        command
    }

    fn run_shell(script: &str, stalled_after: Duration) -> Result<(), RunError> {
        run(shell(script), Path::new("/nowhere"), stalled_after, &AtomicBool::new(false))
    }

    #[test]
    fn the_tail_is_the_last_of_a_long_log() {
        let log: String = (0..10_000).map(|line| format!("line {line}\n")).collect();
        let tail = tail(log.as_bytes());
        assert!(tail.ends_with("line 9999") && tail.len() <= TAIL_BYTES && tail.len() > TAIL_BYTES / 2);
    }

    #[test]
    fn what_fails_says_what_it_said_last() {
        let failed = run_shell("echo first >&2; echo it is broken >&2; exit 3", STALLED_AFTER).unwrap_err();
        assert!(matches!(&failed, RunError::Failed { status, .. } if status.code() == Some(3)), "{failed}");
        assert!(failed.tail().ends_with("it is broken"));
    }

    #[test]
    fn memory_is_limited() {
        let mut limits = Vec::new();
        lines(shell("ulimit -d"), STALLED_AFTER, &AtomicBool::new(false), |line| limits.push(line.to_owned())).unwrap();
        assert_eq!(limits, [(MEMORY_BYTES_MAX / 1024).to_string()]);
    }

    #[test]
    fn what_writes_nothing_is_ended() {
        // `exec`, so that there is no other process to end.
        let ended = run_shell("echo reading >&2; exec sleep 600", Duration::from_millis(300)).unwrap_err();
        assert!(matches!(ended, RunError::Stalled { .. }), "{ended}");
        assert_eq!(ended.tail(), "reading");
    }

    #[test]
    fn what_writes_all_the_time_is_not_ended() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("output");
        let mut command = shell("for i in 1 2 3 4 5 6 7 8; do sleep 0.2; echo $i >> output; done");
        command.current_dir(directory.path());
        run(command, &output, Duration::from_secs(1), &AtomicBool::new(false)).unwrap();
        assert_eq!(fs::read_to_string(output).unwrap().lines().count(), 8);
    }

    #[test]
    fn lines_come_to_their_end_or_to_a_stall() {
        let heard = |script: &str, stalled_after| {
            let mut heard = Vec::new();
            let ended =
                lines(shell(script), stalled_after, &AtomicBool::new(false), |line| heard.push(line.to_owned()));
            (heard, ended.map_err(|error| error.to_string()))
        };
        let all: Vec<_> = (1..=3000).map(|line| line.to_string()).collect();
        assert_eq!(heard("seq 3000; exit 3", STALLED_AFTER), (all, Ok(())));
        let (said, ended) = heard("echo 1; exec sleep 600", Duration::from_millis(300));
        assert_eq!(said, ["1"]);
        assert!(ended.unwrap_err().contains("nothing came of it"));
    }

    #[test]
    fn what_is_cancelled_before_it_ends_says_so() {
        let ended = run(shell("exec sleep 600"), Path::new("/nowhere"), STALLED_AFTER, &AtomicBool::new(true));
        assert!(matches!(ended, Err(RunError::Cancelled)), "{ended:?}");
    }
}
