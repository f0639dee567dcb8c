use std::{os::unix::fs::symlink, time::SystemTime};

use plenary_model::Codec;
use tempfile::{TempDir, tempdir};

use super::*;
use crate::recording::{
    Report,
    retention::remove_expired,
    testing::{EPOCH, Fate, FatefulDisk, Meeting, config, frames, started},
};

/// A recording whose recorder died after two and a half seconds.
fn died() -> (TempDir, PathBuf) {
    let root = tempdir().unwrap();
    let fate = Fate::default();
    let mut meeting = Meeting::on(FatefulDisk(fate.clone()), &config(root.path()), "EG_x", Default::default());
    meeting.publish("TR_A", Codec::Opus);
    meeting.steps(125).unwrap();
    meeting.settle();
    fate.panic_next();
    // Whether there is somebody to take it all is a matter of moments.
    let _ = meeting.steps(100);
    assert_eq!(meeting.last_word(), Report::Crashed);
    let directory = root.path().join("EG_x");
    (root, directory)
}

fn part(track: &str) -> String {
    format!("{EPOCH}-{track}-0.webm.part")
}

#[test]
fn what_a_recorder_left_is_repaired_once() {
    let (root, directory) = died();
    assert_eq!(list(root.path()).unwrap()[0].state, State::Interrupted);
    let left = repair_all(root.path(), || {}).unwrap();
    let [Left { path, outcome: Outcome::Repaired(repaired) }] = &left[..] else { panic!("{left:?}") };
    assert_eq!(*path, directory.join(part("TR_A")));
    let whole = directory.join(part("TR_A").strip_suffix(".part").unwrap());
    assert_eq!(frames(&whole) as u64, repaired.frames);
    assert!(repaired.frames >= 50, "{repaired:?}");
    assert!(repair_all(root.path(), || {}).unwrap().is_empty());
    let listed = &list(root.path()).unwrap()[0];
    assert_eq!((listed.state, listed.files.len()), (State::Interrupted, 1));
    assert_eq!(listed.session.as_ref().unwrap().room_name, "../stand\nup");
}

#[test]
fn what_changes_is_left_alone_even_if_its_lock_is_not_seen() {
    let (root, directory) = died();
    let session = directory.join(EPOCH.session_file());
    let [part, other] = ["TR_A", "TR_B"].map(|track| directory.join(part(track)));
    let touch = || File::open(&session).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let write = || fs::OpenOptions::new().append(true).open(&part).unwrap().set_len(1_000_000).unwrap();
    let begin = || fs::write(&other, b"").unwrap();
    let changes: [&dyn Fn(); 3] = [&touch, &write, &begin];
    for change in changes {
        let left = repair_all(root.path(), change).unwrap();
        assert!(!left.is_empty() && left.iter().all(|left| matches!(left.outcome, Outcome::BeingRecorded)), "{left:?}");
    }
    let left = repair_all(root.path(), || {}).unwrap();
    assert!(left.iter().all(|left| matches!(left.outcome, Outcome::Repaired(_) | Outcome::Removed)), "{left:?}");
    repair_all(root.path(), || panic!("nothing is left to wait for")).unwrap();
}

#[test]
fn what_is_being_recorded_is_left_alone() {
    let root = tempdir().unwrap();
    let fate = Fate::default();
    let mut meeting = Meeting::on(FatefulDisk(fate.clone()), &config(root.path()), "EG_x", Default::default());
    meeting.publish("TR_A", Codec::Opus);
    meeting.steps(60).unwrap();
    meeting.settle();
    fate.hang(|| meeting.steps(60).unwrap());
    let left = repair_all(root.path(), || panic!("a lock that is seen says enough")).unwrap();
    assert!(matches!(left[..], [Left { outcome: Outcome::BeingRecorded, .. }]), "{left:?}");
    assert_eq!(list(root.path()).unwrap()[0].state, State::Recording);
    let later = SystemTime::now() + Duration::from_secs(1_000_000);
    assert!(remove_expired(root.path(), Duration::from_secs(1), later).unwrap().is_empty());
    fate.release();
    assert!(meeting.stop().files.iter().all(|end| end.is_complete));
    assert_eq!(list(root.path()).unwrap()[0].state, State::Ended(StopReason::Requested));
}

#[test]
fn what_ended_before_its_first_cluster_is_removed_and_what_is_damaged_stays() {
    let (root, directory) = died();
    let begun = fs::read(directory.join(part("TR_A"))).unwrap();
    fs::write(directory.join(part("TR_empty")), b"").unwrap();
    fs::write(directory.join(part("TR_cut")), &begun[..1_000]).unwrap();
    fs::write(directory.join(part("TR_short")), &begun[..3_800]).unwrap();
    fs::write(directory.join(part("TR_damaged")), [7; 5_000]).unwrap();
    fs::write(directory.join(part("TR_A").strip_suffix(".part").unwrap()), b"there already").unwrap();
    let mut outcomes = BTreeMap::new();
    for Left { path, outcome } in repair_all(root.path(), || {}).unwrap() {
        let name = path.file_name().unwrap().to_str().unwrap().split('-').nth(2).unwrap().to_owned();
        assert_eq!(matches!(outcome, Outcome::Removed), !path.exists());
        outcomes.insert(name, outcome);
    }
    assert!(matches!(outcomes["TR_A"], Outcome::Failed(RepairError::Io(_))), "{outcomes:?}");
    assert!(matches!(outcomes["TR_damaged"], Outcome::Failed(RepairError::Headless)), "{outcomes:?}");
    for track in ["TR_empty", "TR_cut", "TR_short"] {
        assert!(matches!(outcomes[track], Outcome::Removed), "{outcomes:?}");
    }
}

#[test]
fn no_link_is_followed_and_no_other_name_touched() {
    let (root, directory) = died();
    let elsewhere = tempdir().unwrap();
    let precious = elsewhere.path().join(part("TR_A"));
    fs::copy(directory.join(part("TR_A")), &precious).unwrap();
    let before = fs::read(&precious).unwrap();
    symlink(&precious, directory.join(part("TR_link"))).unwrap();
    symlink(elsewhere.path(), root.path().join("EG_link")).unwrap();
    for name in ["notes.txt", "x.webm.part", "07-000000000000feed-TR_a-0.webm.part"] {
        fs::write(directory.join(name), b"ours is not this").unwrap();
    }
    fs::create_dir(root.path().join("other")).unwrap();
    fs::copy(&precious, root.path().join("other").join(part("TR_A"))).unwrap();
    assert_eq!(repair_all(root.path(), || {}).unwrap().len(), 1);
    assert_eq!(list(root.path()).unwrap().len(), 1);
    let later = SystemTime::now() + Duration::from_secs(1_000_000);
    assert!(remove_expired(root.path(), Duration::from_secs(1), later).unwrap().is_empty(), "notes are there");
    assert!(directory.join("notes.txt").exists() && root.path().join("other").join(part("TR_A")).exists());
    assert_eq!(fs::read(&precious).unwrap(), before);
}

#[test]
fn only_complete_files_of_the_recording_itself_are_opened() {
    let (root, directory) = died();
    let open = |recording: &str, name: &str| open_complete(root.path(), recording, name).unwrap().is_some();
    let whole = part("TR_A").strip_suffix(".part").unwrap().to_owned();
    assert!(!open("EG_x", &part("TR_A")) && !open("EG_x", &whole), "it is not complete");
    repair_all(root.path(), || {}).unwrap();
    assert!(open("EG_x", &whole));
    for name in COMPOSED_VIDEOS {
        assert!(!open("EG_x", name));
        fs::write(directory.join(name), b"x").unwrap();
        assert!(open("EG_x", name));
    }
    fs::write(root.path().join("secret"), b"x").unwrap();
    fs::write(directory.join("secret.webm"), b"x").unwrap();
    symlink(root.path().join("secret"), directory.join(part("TR_link").strip_suffix(".part").unwrap())).unwrap();
    symlink(&directory, root.path().join("EG_link")).unwrap();
    fs::create_dir(directory.join(part("TR_dir").strip_suffix(".part").unwrap())).unwrap();
    let pipe = directory.join(part("TR_pipe").strip_suffix(".part").unwrap());
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
    for (recording, name) in [
        ("EG_x", "secret.webm".to_owned()),
        ("EG_x", "../secret".to_owned()),
        ("EG_x", format!("../EG_x/{whole}")),
        ("EG_x", format!("./{whole}")),
        ("EG_x", format!("{whole}\0")),
        ("EG_x", format!("{EPOCH}.session.jsonl")),
        ("EG_x", part("TR_link").replace(".part", "")),
        ("EG_x", part("TR_dir").replace(".part", "")),
        ("EG_x", part("TR_pipe").replace(".part", "")),
        ("EG_x", String::new()),
        ("EG_link", whole.clone()),
        ("EG_none", whole.clone()),
        ("../EG_x", whole.clone()),
        ("EG_x/../EG_x", whole.clone()),
        ("", whole.clone()),
    ] {
        assert!(!open(recording, &name), "{recording} {name}");
    }
    assert!(look(root.path(), "EG_link").unwrap().is_none());
    assert!(look(root.path(), "EG_none").unwrap().is_none());
    assert!(look(root.path(), "../EG_x").unwrap().is_none());
    let (listed, session) = look(root.path(), "EG_x").unwrap().unwrap();
    assert_eq!(listed.files.len(), 1, "{listed:?}");
    assert_eq!(session.unwrap().stretches.len(), 1);
}

#[test]
fn what_the_composer_answers_leads_to_its_video_and_nowhere_else() {
    let (root, directory) = died();
    let answer = |result: &str, path: &str| {
        let (path, missing) = (path.into(), Vec::new());
        let outcome = Answer::Complete { path, size: 1, duration_us: 1, started_us: 1, ended_us: 2, missing };
        let complete = serde_json::to_vec(&ResultFile { version: 1, outcome }).unwrap();
        fs::write(directory.join(result), complete).unwrap();
    };
    fs::create_dir(root.path().join("calls")).unwrap();
    fs::write(root.path().join("calls/standup.mp4"), b"video").unwrap();
    fs::write(root.path().join("plenary.toml"), b"secret").unwrap();
    symlink(root.path().join("calls"), root.path().join("elsewhere")).unwrap();
    symlink(root.path().join("plenary.toml"), root.path().join("calls/link.mp4")).unwrap();
    fs::create_dir(root.path().join("directory.mp4")).unwrap();
    assert_eq!(composed(root.path(), "EG_x"), Composed::default());
    fs::write(directory.join(REQUEST), b"{}").unwrap();
    assert!(composed(root.path(), "EG_x").is_awaited);

    for path in [
        "plenary.toml",
        "../standup.mp4",
        "calls/../calls/standup.mp4",
        "/etc/passwd.mp4",
        "elsewhere/standup.mp4",
        "calls/link.mp4",
        "calls/nothing.mp4",
        "calls/standup.mp4/x.mp4",
        "directory.mp4",
        "calls/standup\0.mp4",
        "",
    ] {
        answer("compose.result.0.json", path);
        assert_eq!(composed(root.path(), "EG_x").videos, [], "{path}");
        assert!(open_complete(root.path(), "EG_x", "rendered-0").unwrap().is_none(), "{path}");
    }
    answer("compose.result.0.json", "calls/standup.mp4");
    answer("compose.result.x.json", "calls/standup.mp4");
    fs::write(directory.join("composed.webm"), b"beside").unwrap();
    answer("compose.result.json", "EG_x/composed.webm");
    let video = |name: &str, file_name: &str, bytes| Video { name: name.into(), file_name: file_name.into(), bytes };
    let expected = [video("rendered-0", "standup.mp4", 5), video("composed.webm", "composed.webm", 6)];
    assert_eq!(composed(root.path(), "EG_x").videos, expected);
    for name in
        ["rendered", "rendered-1", "rendered-x", "rendered-", "rendered-+0", "renderedx", "compose.result.0.json"]
    {
        assert!(open_complete(root.path(), "EG_x", name).unwrap().is_none(), "{name}");
    }
    fs::write(directory.join("compose.result.0.json"), b"{").unwrap();
    assert!(open_complete(root.path(), "EG_x", "rendered-0").unwrap().is_none());
}

#[test]
fn a_list_says_of_long_session_files_what_reading_them_whole_does() {
    let root = tempdir().unwrap();
    let directory = root.path().join("EG_x");
    fs::create_dir(&directory).unwrap();
    let write = |epoch: Epoch, lines: &[Line]| {
        let text: Vec<u8> = lines.iter().flat_map(Line::encode).collect();
        fs::write(directory.join(epoch.session_file()), text).unwrap();
    };
    let at = |at_us: u64, event: Event| Line { at_us, event };
    let chat = |at_us: u64, bytes: usize| {
        at(at_us, Event::Chat { id: String::new(), participant: "".into(), text: "x".repeat(bytes) })
    };
    let began = at(1_000, Event::Started(started("EG_x")));
    let hours = (0..5_000).map(|n| chat(2_000 + n, 20)).collect::<Vec<_>>();
    let file: TrackFile = format!("{EPOCH}-TR_A-0.webm").parse().unwrap();
    let zeros: Vec<_> = (0..500).map(|n| at(8_000 + n, Event::TrackZero { file: file.clone(), zero_us: n })).collect();
    let stopped = [at(9_000, Event::Stopped { reason: StopReason::RoomEnded })];
    let cases: [&[&[Line]]; 6] = [
        &[&hours, &stopped],
        &[&hours],
        &[&hours, &[chat(8_000, 200_000)]],
        &[&hours, &zeros],
        &[&hours, &[chat(8_000, LINE_BYTES_MAX + 1), chat(8_001, LINE_BYTES_MAX), chat(8_002, LINE_BYTES_MAX + 1)]],
        &[],
    ];
    let later = Epoch { number: EPOCH.number + 1, ..EPOCH };
    for (number, case) in cases.into_iter().enumerate() {
        write(
            EPOCH,
            &[std::slice::from_ref(&began)].iter().chain(case).copied().flatten().cloned().collect::<Vec<_>>(),
        );
        for goes_on in [false, true] {
            if goes_on {
                write(later, &[at(20_000, Event::Started(started("EG_x"))), chat(21_000, 20)]);
            }
            let [listed] = &list(root.path()).unwrap()[..] else { panic!("one was to be") };
            let (whole, _) = look(root.path(), "EG_x").unwrap().unwrap();
            assert_eq!((listed.state, &listed.session), (whole.state, &whole.session), "{number}, {goes_on}");
        }
        fs::remove_file(directory.join(later.session_file())).unwrap();
    }
}
