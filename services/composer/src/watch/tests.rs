use plenary_recording::session_file::{Epoch, Line, Started};

use super::*;

const EPOCH: Epoch = Epoch { number: 1, boot: 2 };
const ENDED: [Event; 1] = [Event::Stopped { reason: StopReason::Requested }];

fn recording(root: &Path, name: &str, request: &str, lines: &[Event]) -> PathBuf {
    let directory = root.join(name);
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join(REQUEST), request).unwrap();
    let started = Event::Started(Started {
        version: plenary_recording::session_file::VERSION,
        recording: "EG_x".into(),
        room: "RM_x".into(),
        room_name: "x".into(),
        node: "ND_x".into(),
        predecessor: None,
        former: None,
    });
    let events = std::iter::once(&started).chain(lines);
    let lines = events.enumerate().flat_map(|(at, event)| Line { at_us: at as u64, event: event.clone() }.encode());
    fs::write(directory.join(EPOCH.session_file()), lines.collect::<Vec<_>>()).unwrap();
    directory
}

/// However full the disk of the tests is.
fn roomy() -> Settings {
    Settings { free_bytes_min: 0, ..Settings::default() }
}

fn look(root: &Path, settings: &Settings) -> Vec<News> {
    let mut news = Vec::new();
    render_all(root, settings, &AtomicBool::new(false), &mut |report| news.push(report.news)).unwrap();
    news
}

fn result(directory: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(directory.join(RESULT)).unwrap()).unwrap()
}

#[test]
fn a_recording_that_goes_on_or_moves_or_has_not_begun_waits() {
    let root = tempfile::tempdir().unwrap();
    let going = recording(root.path(), "going", "{}", &[]);
    let moving = recording(root.path(), "moving", "{}", &[Event::Stopped { reason: StopReason::Moved }]);
    let locked = recording(root.path(), "locked", "{}", &ENDED);
    let lock = File::open(locked.join(EPOCH.session_file())).unwrap();
    lock.lock().unwrap();
    let early = root.path().join("early");
    fs::create_dir(&early).unwrap();
    fs::write(early.join(REQUEST), "{}").unwrap();
    assert_eq!(look(root.path(), &roomy()), []);
    for directory in [going, moving, locked, early] {
        assert!(directory.join(REQUEST).exists() && !directory.join(RESULT).exists(), "{directory:?}");
    }
}

#[test]
fn a_recording_that_is_said_to_be_over_waits_for_locks_alone() {
    let root = tempfile::tempdir().unwrap();
    // Which is refused as soon as it is looked at.
    let request = r#"{"ended":true,"width":5}"#;
    let moved = recording(root.path(), "moved", request, &[Event::Stopped { reason: StopReason::Moved }]);
    let died = recording(root.path(), "died", request, &[]);
    let lock = File::open(died.join(EPOCH.session_file())).unwrap();
    lock.lock().unwrap();
    look(root.path(), &roomy());
    assert!(moved.join(RESULT).exists() && died.join(REQUEST).exists() && !died.join(RESULT).exists());
    drop(lock);
    look(root.path(), &roomy());
    assert!(died.join(RESULT).exists());
}

#[test]
fn a_request_that_cannot_be_served_is_answered_with_its_reason_and_set_aside() {
    let root = tempfile::tempdir().unwrap();
    for (name, request, error, message) in [
        ("a", r#"{"output":"../x.mp4"}"#, "bad_request", "below the watched directory"),
        ("b", r#"{"output":"/x.mp4"}"#, "bad_request", "below the watched directory"),
        ("c", r#"{"output":"x.webm"}"#, "bad_request", "ends in .mp4"),
        ("d", r#"{"output":"a/1-0000000000000002-TR_x-0.webm","format":"webm"}"#, "bad_request", "ends in .webm"),
        ("e", "no JSON", "bad_request", "cannot be read"),
        ("f", r#"{"width":5}"#, "bad_request", "width and height"),
        ("g", r#"{"version":2}"#, "bad_request", "version 2"),
        ("h", r#"{"layuot":"grid"}"#, "bad_request", "unknown field"),
        ("i", "{}", "bad_recording", "no session file"),
    ] {
        let directory = recording(root.path(), name, request, &ENDED);
        if error == "bad_recording" {
            fs::write(directory.join(EPOCH.session_file()), "{}\n").unwrap();
            quiet(&directory);
        }
        let news = look(root.path(), &roomy());
        let [News::Failed { failed, .. }] = &news[..] else { panic!("{name}: {news:?}") };
        assert!(failed.contains(message), "{name}: {failed}");
        let result = result(&directory);
        assert_eq!(
            (result["version"].as_u64(), &result["state"], &result["error"]),
            (Some(1), &"failed".into(), &error.into())
        );
        assert_eq!(result["message"].as_str(), Some(&**failed));
        assert_eq!(fs::read_to_string(directory.join(FAILED)).unwrap(), request);
        assert!(!directory.join(REQUEST).exists() && !directory.join(PROGRESS).exists());
        assert_eq!(look(root.path(), &roomy()), [], "is not tried again");
    }
}

/// Nothing has been written there for a while.
fn quiet(directory: &Path) {
    let long_ago = SystemTime::now() - 2 * DEAD_AFTER;
    for entry in fs::read_dir(directory).unwrap() {
        File::options().append(true).open(entry.unwrap().path()).unwrap().set_modified(long_ago).unwrap();
    }
}

#[test]
fn what_composers_die_of_is_refused_after_a_while() {
    let root = tempfile::tempdir().unwrap();
    let directory = recording(root.path(), "a", "{}", &ENDED);
    let starts = |starts| {
        write(&directory.join(PROGRESS), &ProgressFile { version: VERSION, done: 3, steps: 9, starts }).unwrap();
    };
    // It waits for space, and such a start is taken back.
    let settings = Settings { free_bytes_min: u64::MAX, ..Settings::default() };
    starts(STARTS_MAX - 1);
    for _ in 0..3 {
        let news = look(root.path(), &settings);
        assert!(matches!(&news[..], [News::Waits { waits }] if waits.contains("MiB are free")), "{news:?}");
        assert!(directory.join(REQUEST).exists());
    }
    starts(STARTS_MAX);
    assert!(matches!(&look(root.path(), &settings)[..], [News::Failed { .. }]));
    assert_eq!(result(&directory)["error"], "composer_died");
}

#[test]
fn what_another_composer_works_on_is_left_to_it() {
    let root = tempfile::tempdir().unwrap();
    let directory = recording(root.path(), "a", "no JSON", &ENDED);
    let other = lock(&directory.join(REQUEST)).unwrap().unwrap();
    assert_eq!(look(root.path(), &roomy()), []);
    drop(other);
    assert_eq!(look(root.path(), &roomy()).len(), 1);
}

/// What the page on it shows is what is read and written.
#[test]
fn the_documented_files_are_these() {
    let page = include_str!("../../../../proto/plenary/v1/compose.md");
    let blocks: Vec<_> = page.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let [request, progress, complete, failed] = blocks[..] else { panic!("{} blocks", blocks.len()) };
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();

    let read: Request = serde_json::from_str(request).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), value(request));
    let unset = Request { output: read.output.clone(), participants: read.participants.clone(), ..Request::default() };
    assert_eq!(read, unset, "it shows the defaults");
    let read: ProgressFile = serde_json::from_str(progress).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), value(progress));
    for text in [complete, failed] {
        let read: ResultFile = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), value(text));
    }
    for failure in [
        Failure::BadRequest,
        Failure::BadRecording,
        Failure::Exists,
        Failure::Disk,
        Failure::FfmpegFailed,
        Failure::FfmpegStalled,
        Failure::FfmpegWrong,
        Failure::ComposerDied,
    ] {
        let name = serde_json::to_value(failure).unwrap();
        assert!(page.contains(&format!("| `{}` |", name.as_str().unwrap())), "{name}");
    }
}
