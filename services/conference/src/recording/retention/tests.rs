use std::os::unix::fs::symlink;

use plenary_composer::watch::RESULT;
use plenary_model::Codec;
use tempfile::{TempDir, tempdir};

use super::*;
use crate::recording::testing::{EPOCH, Meeting};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A recording of one track that has ended.
fn ended() -> (TempDir, PathBuf) {
    let root = tempdir().unwrap();
    let mut meeting = Meeting::local(root.path());
    meeting.publish("TR_A", Codec::Opus);
    meeting.steps(60).unwrap();
    meeting.stop();
    let directory = root.path().join("EG_local");
    (root, directory)
}

fn track() -> String {
    format!("{EPOCH}-TR_A-0.webm")
}

/// What has gone when it was kept for a day, a month later.
fn gone(root: &TempDir) -> Vec<PathBuf> {
    remove_expired(root.path(), DAY, SystemTime::now() + 30 * DAY).unwrap()
}

fn answer(directory: &Path, name: &str, path: &str, size: u64) {
    let outcome =
        Outcome::Complete { path: path.into(), size, duration_us: 1, started_us: 1, ended_us: 2, missing: vec![] };
    fs::write(directory.join(name), serde_json::to_vec(&ResultFile { version: 1, outcome }).unwrap()).unwrap();
}

fn ask(directory: &Path, name: &str, output: &str) {
    let request = Request { output: Some(output.into()), ..Request::default() };
    fs::write(directory.join(name), serde_json::to_vec(&request).unwrap()).unwrap();
}

/// As a composer leaves it that was killed.
fn work(path: &Path) {
    fs::create_dir_all(path).unwrap();
    for name in [WORK_LOCK, "piece-00000-0123456789abcdef.mkv", "font"] {
        fs::write(path.join(name), b"x").unwrap();
    }
}

fn files_below(path: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => found.append(&mut files_below(&entry.path())),
            false => drop(found.insert(entry.path())),
        }
    }
    found
}

#[test]
fn a_recording_is_kept_as_long_as_asked_for() {
    let (root, directory) = ended();
    let now = SystemTime::now();
    assert!(remove_expired(root.path(), 2 * DAY, now + DAY).unwrap().is_empty());
    assert_eq!(remove_expired(root.path(), DAY, now + 2 * DAY).unwrap(), [directory]);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn all_that_was_made_of_a_recording_goes_with_it() {
    let (root, directory) = ended();
    let calls = root.path().join("calls");
    fs::create_dir(&calls).unwrap();
    fs::write(calls.join("standup.mp4"), b"video").unwrap();
    answer(&directory, "compose.result.0.json", "calls/standup.mp4", 5);
    fs::write(directory.join("composed.webm"), b"beside").unwrap();
    answer(&directory, RESULT, "EG_local/composed.webm", 6);
    for name in ["ann.webm", "calls/ann.webm"] {
        fs::hard_link(directory.join(track()), root.path().join(name)).unwrap();
        note_link(&directory, name).unwrap();
        note_link(&directory, name).unwrap();
    }
    ask(&directory, FAILED, "calls/sound.ogg");
    work(&calls.join("sound.ogg.work"));
    work(&directory.join("composed.mp4.work"));
    assert_eq!(gone(&root), [directory]);
    assert_eq!(files_below(root.path()), BTreeSet::new());
}

#[test]
fn what_only_has_the_name_of_something_that_was_made_stays() {
    let (root, directory) = ended();
    let elsewhere = tempdir().unwrap();
    work(&elsewhere.path().join("x.mp4.work"));
    fs::write(elsewhere.path().join("x.mp4"), b"video").unwrap();
    symlink(elsewhere.path(), root.path().join("link")).unwrap();
    symlink(elsewhere.path().join("x.mp4"), root.path().join("link.mp4")).unwrap();
    symlink(elsewhere.path().join("x.mp4.work"), root.path().join("y.mp4.work")).unwrap();
    for name in ["replaced.mp4", "notes.txt", "ann.webm"] {
        fs::write(root.path().join(name), b"somebody's").unwrap();
    }
    fs::create_dir(root.path().join("z.mp4.work")).unwrap();
    fs::write(root.path().join("z.mp4.work/notes.txt"), b"no composer's").unwrap();
    let up = format!("../{}/x.mp4", elsewhere.path().file_name().unwrap().display());
    for (number, (path, size)) in
        [("link/x.mp4", 5), ("link.mp4", 5), ("replaced.mp4", 9), ("notes.txt", 10), (&up, 5)].iter().enumerate()
    {
        answer(&directory, &format!("compose.result.{number}.json"), path, *size);
    }
    answer(&directory, "compose.result.x.json", "replaced.mp4", 10);
    ask(&directory, REQUEST, "y.mp4");
    ask(&directory, FAILED, "z.mp4");
    let asked = File::open(directory.join(REQUEST)).unwrap();
    asked.set_modified(SystemTime::now() - 2 * DAY).unwrap();
    note_link(&directory, "ann.webm").unwrap();
    note_link(&directory, "gone.webm").unwrap();
    let (mut expected, outside) = (files_below(root.path()), files_below(elsewhere.path()));
    expected.retain(|path| !path.starts_with(&directory));
    assert_eq!(gone(&root), std::slice::from_ref(&directory));
    assert_eq!(files_below(root.path()), expected);
    assert_eq!(files_below(elsewhere.path()), outside);
}

#[test]
fn what_is_rendered_or_is_to_be_stays() {
    let (root, directory) = ended();
    let output = root.path().join("calls/standup.mp4.work");
    work(&output);
    ask(&directory, REQUEST, "calls/standup.mp4");
    assert!(gone(&root).is_empty(), "a composer may yet come");
    let request = File::open(directory.join(REQUEST)).unwrap();
    request.set_modified(SystemTime::now() - 2 * DAY).unwrap();
    request.lock().unwrap();
    assert!(gone(&root).is_empty(), "it is at work");
    request.unlock().unwrap();
    let lock = File::open(output.join(WORK_LOCK)).unwrap();
    lock.lock().unwrap();
    assert!(gone(&root).is_empty(), "another is, without a request");
    assert!(directory.join(track()).exists() && output.join("font").exists());
    drop(lock);
    assert_eq!(gone(&root), [directory]);
    assert!(!output.exists());
}
