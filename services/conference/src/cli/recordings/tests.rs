use plenary_model::Codec;
use tempfile::tempdir;

use super::*;
use crate::recording::testing::Meeting;

fn directory(path: &Path) -> RecordingsDirectory {
    RecordingsDirectory { directory: Some(path.to_owned()) }
}

#[test]
fn a_list_says_what_there_is_on_lines_of_its_own() {
    let root = tempdir().unwrap();
    let mut meeting = Meeting::local(root.path());
    meeting.publish("TR_A", Codec::Opus);
    meeting.steps(100).unwrap();
    meeting.stop();
    for (id, session) in [("EG_bad", "{}\n"), ("EG_begun", "")] {
        std::fs::create_dir(root.path().join(id)).unwrap();
        if !session.is_empty() {
            std::fs::write(root.path().join(id).join("1-000000000000feed.session.jsonl"), session).unwrap();
        }
    }
    let told = RecordingsCommand::List(directory(root.path())).run(None).unwrap();
    let lines: Vec<_> = told.text.lines().collect();
    assert!(!told.is_well, "one cannot be read");
    assert_eq!(lines.len(), 3, "{}", told.text);
    assert_eq!(
        lines[0],
        "EG_bad: unreadable: does not begin with a whole `started` line; room, begin and duration unknown; 0 files"
    );
    // A name forges no line.
    assert!(lines[1].starts_with(r#"EG_local: ended: requested; room "../stand\nup", 20"#), "{}", lines[1]);
    assert!(lines[1].ends_with("Z, 2s; 1 files"), "{}", lines[1]);
    assert!(lines[2].starts_with("    7-000000000000feed-TR_A-0.webm "), "{}", lines[2]);
}

#[test]
fn a_repair_says_what_became_of_each_and_whether_all_is_well() {
    let root = tempdir().unwrap();
    let recording = root.path().join("EG_x");
    std::fs::create_dir(&recording).unwrap();
    let repair = || RecordingsCommand::Repair(directory(root.path())).run(None).unwrap();
    assert_eq!(repair(), Told { text: "0 unfinished, 0 repaired, 0 failed\n".into(), is_well: true });
    std::fs::write(recording.join("7-000000000000feed-TR_a-0.webm.part"), b"").unwrap();
    std::fs::write(recording.join("7-000000000000feed-TR_b-0.webm.part"), [7; 5_000]).unwrap();
    let told = repair();
    assert!(!told.is_well && told.text.contains("TR_a-0.webm.part: removed"), "{}", told.text);
    assert!(told.text.contains("TR_b-0.webm.part: failed: no file of a recording"), "{}", told.text);
    assert!(told.text.ends_with("2 unfinished, 0 repaired, 1 failed\n"), "{}", told.text);
}

#[test]
fn the_command_line_s_directory_goes_before_the_configured_one() {
    let (one, other) = (tempdir().unwrap(), tempdir().unwrap());
    std::fs::create_dir(other.path().join("EG_x")).unwrap();
    std::fs::write(other.path().join("EG_x/1-000000000000feed-TR_a-0.webm"), b"").unwrap();
    let list = |place: Option<&Path>| {
        let place = RecordingsDirectory { directory: place.map(Into::into) };
        RecordingsCommand::List(place).run(Some(other.path()))
    };
    assert_eq!(list(Some(one.path())).unwrap().text, "");
    assert!(list(None).unwrap().text.starts_with("EG_x"));
    let missing = one.path().join("missing");
    let error = list(Some(&missing)).unwrap_err().to_string();
    assert!(error.contains("missing: No such file"), "{error}");
    let nowhere = RecordingsCommand::List(RecordingsDirectory { directory: None }).run(None).unwrap_err();
    assert_eq!(nowhere.to_string(), "no directory: name one, or set recording.directory");
}
