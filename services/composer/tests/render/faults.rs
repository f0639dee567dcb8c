//! The program as it is run, when something else than the meeting goes wrong.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use plenary_composer::watch::{FAILED, Failure, Outcome, PROGRESS, ProgressFile, REQUEST, RESULT, ResultFile};
use plenary_recording::session_file::{Epoch, Event, StopReason};

use crate::tools::*;

fn recording(root: &Path) -> PathBuf {
    asking(root, "EG_x", r#"{"width":160,"height":90,"fps":5}"#)
}

/// Somebody joins each second, and nobody sends anything.
fn asking(root: &Path, id: &str, request: &str) -> PathBuf {
    let directory = root.join(id);
    fs::create_dir(&directory).unwrap();
    let mut recorder = Recorder::new(&directory, Epoch { number: 1, boot: 1 }, 0, None);
    for second in 0..6 {
        recorder.joined(second * 1_000, &format!("p{second}"), &format!("Person {second}"));
    }
    recorder.tell(6_000, Event::Stopped { reason: StopReason::Requested });
    recorder.end();
    fs::write(directory.join(REQUEST), request).unwrap();
    directory
}

fn composer(root: &Path, path: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plenary-composer"));
    command.arg(root).args(["--json", "--once", "--free-bytes-min", "0"]).env("PATH", path);
    command
}

fn real_path() -> String {
    std::env::var("PATH").unwrap()
}

fn result(directory: &Path) -> Outcome {
    serde_json::from_slice::<ResultFile>(&fs::read(directory.join(RESULT)).unwrap()).unwrap().outcome
}

#[test]
fn what_ffmpeg_does_wrong_has_a_name() {
    for (script, failure, logged) in [
        // Which ffmpeg 5.1 does after a file without a frame.
        ("for last; do :; done; : > \"$last\"", Failure::FfmpegWrong, ""),
        ("exit 0", Failure::FfmpegWrong, ""),
        ("echo it is broken >&2; exit 187", Failure::FfmpegFailed, "it is broken"),
        ("kill -9 $$", Failure::FfmpegFailed, ""),
    ] {
        let root = tempfile::tempdir().unwrap();
        let directory = recording(root.path());
        let programs = tempfile::tempdir().unwrap();
        let ffmpeg = programs.path().join("ffmpeg");
        fs::write(&ffmpeg, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&ffmpeg, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", programs.path().display(), real_path());
        assert!(composer(root.path(), &path).stdout(Stdio::null()).status().unwrap().success());
        let Outcome::Failed { error, message, log } = result(&directory) else { panic!("{script}") };
        assert_eq!((error, &*log), (failure, logged), "{script}: {message}");
        assert!(message.contains("piece-00000"), "{message}");
        assert!(directory.join(FAILED).exists() && !directory.join(REQUEST).exists());
        assert!(!directory.join("composed.mp4").exists());
    }
}

#[test]
fn without_ffmpeg_requests_wait() {
    let root = tempfile::tempdir().unwrap();
    let directory = recording(root.path());
    let out = composer(root.path(), "/nowhere").output().unwrap();
    let told = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success() && told.contains("ffmpeg is not installed"), "{told}");
    assert!(directory.join(REQUEST).exists() && !directory.join(RESULT).exists());
}

#[test]
fn a_composer_that_was_killed_is_taken_over_from() {
    let root = tempfile::tempdir().unwrap();
    let directory = recording(root.path());
    let mut child = composer(root.path(), &real_path()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let third = lines.map_while(Result::ok).find(|line| line.contains(r#""done":3"#));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(third.is_some());
    let progress: ProgressFile = serde_json::from_slice(&fs::read(directory.join(PROGRESS)).unwrap()).unwrap();
    assert!(progress.done >= 3 && progress.starts == 0, "{progress:?}");
    assert!(directory.join(REQUEST).exists() && !directory.join(RESULT).exists());

    let out = composer(root.path(), &real_path()).output().unwrap();
    let steps: Vec<bool> = String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["made"].as_bool())
        .collect();
    assert!(steps.len() == progress.steps && steps[..3] == [false; 3] && steps[steps.len() - 1], "{steps:?}");
    assert!(matches!(result(&directory), Outcome::Complete { duration_us: 6_000_000, .. }));
    assert!(!directory.join(PROGRESS).exists());
    assert_eq!(Seen::of(&directory.join("composed.mp4"), 5).frames.len(), 30);
}

#[test]
fn a_video_is_known_for_its_own_and_no_other_is_replaced() {
    let root = tempfile::tempdir().unwrap();
    let request = r#"{"output":"x.mp4","width":160,"height":90,"fps":5}"#;
    let (output, work) = (root.path().join("x.mp4"), root.path().join("x.mp4.work"));
    let look = || assert!(composer(root.path(), &real_path()).stdout(Stdio::null()).status().unwrap().success());
    let inode = || fs::metadata(&output).unwrap().ino();

    // It cannot say what it has made.
    let first = asking(root.path(), "EG_1", request);
    let blocked = first.join(format!("{RESULT}.part"));
    fs::create_dir(&blocked).unwrap();
    look();
    assert!(first.join(REQUEST).exists() && !first.join(RESULT).exists());
    let own = inode();
    // Of another recording that asks for the same, meanwhile.
    let second = asking(root.path(), "EG_0", &request.replace("5}", "4}"));
    look();
    assert!(matches!(result(&second), Outcome::Failed { error: Failure::Exists, .. }));
    fs::remove_dir(blocked).unwrap();
    look();
    assert!(matches!(result(&first), Outcome::Complete { path, .. } if path == Path::new("x.mp4")));
    assert_eq!((inode(), work.exists(), first.join(REQUEST).exists()), (own, false, false));

    // File systems count time in milliseconds, of which this takes few.
    let ask_again = |at| {
        fs::write(first.join(REQUEST), request).unwrap();
        fs::File::options().append(true).open(first.join(REQUEST)).unwrap().set_modified(at).unwrap();
    };
    // It was killed when it had said so.
    fs::create_dir(&work).unwrap();
    ask_again(SystemTime::now() - Duration::from_secs(60));
    look();
    assert!(matches!(result(&first), Outcome::Complete { .. }));
    assert_eq!((inode(), work.exists(), first.join(REQUEST).exists()), (own, false, false));

    // Asked for anew it is refused as anybody else is, and leaves nothing.
    ask_again(SystemTime::now() + Duration::from_secs(1));
    look();
    assert!(matches!(result(&first), Outcome::Failed { error: Failure::Exists, .. }));
    assert_eq!((inode(), work.exists()), (own, false));
}
