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
    let moved = concat!(
        r#"{"at_us":1,"event":"started","version":1,"recording":"EG_moved","room":"RM_r","room_name":"r","node":"ND_b","#,
        r#""former":{"epoch":0,"node":"ND_a"}}"#,
        "\n",
        r#"{"at_us":2,"event":"stopped","reason":"moved"}"#,
        "\n",
    );
    for (id, session) in [("EG_bad", "{}\n"), ("EG_begun", ""), ("EG_moved", moved)] {
        std::fs::create_dir(root.path().join(id)).unwrap();
        if !session.is_empty() {
            std::fs::write(root.path().join(id).join("1-000000000000feed.session.jsonl"), session).unwrap();
        }
    }
    let told = RecordingsCommand::List(directory(root.path())).run(None).unwrap();
    let lines: Vec<_> = told.text.lines().collect();
    assert!(!told.is_well, "one cannot be read");
    assert_eq!(lines.len(), 4, "{}", told.text);
    assert_eq!(
        lines[0],
        "EG_bad: unreadable: does not begin with a whole `started` line; room, begin and duration unknown; 0 files"
    );
    // A name forges no line.
    assert!(lines[1].starts_with(r#"EG_local: ended: requested; room "../stand\nup", 20"#), "{}", lines[1]);
    assert!(lines[1].ends_with("Z, 2s; 1 files"), "{}", lines[1]);
    assert!(lines[2].starts_with("    7-000000000000feed-TR_A-0.webm "), "{}", lines[2]);
    assert_eq!(
        lines[3],
        r#"EG_moved: ended: moved; room "r", 1970-01-01T00:00:00Z, 0s; 0 files; others are at ND_a, another node"#
    );
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

/// Of `plenary recordings compose`, with a canvas that takes little time.
fn compose(words: &[&str]) -> ComposeArgs {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: ComposeArgs,
    }
    let quick = ["--width", "160", "--height", "90", "--fps", "5", "--free-bytes-min", "0"];
    let words = ["compose"].iter().chain(words).chain(&quick);
    <Line as clap::Parser>::parse_from(words).args
}

#[test]
fn a_recording_is_composed_when_it_has_ended() {
    let root = tempdir().unwrap();
    let mut meeting = Meeting::local(root.path());
    meeting.publish("TR_A", Codec::Opus);
    meeting.publish("TR_V", Codec::Vp8);
    meeting.steps(100).unwrap();
    meeting.settle();
    let directory = root.path().join("EG_local");
    let output = root.path().join("meeting.webm");
    let args = compose(&[directory.to_str().unwrap(), "--output", output.to_str().unwrap()]);
    let mut told = Vec::new();
    let mut run = || args.run(&AtomicBool::new(false), &mut |progress| told.push(progress.to_string()));
    let error = run().unwrap_err().to_string();
    assert!(error.ends_with("EG_local was not composed: it is being recorded"), "{error}");
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1, "nothing was begun");
    meeting.stop();
    let said = run().unwrap();
    assert!(said.is_well && said.text.starts_with(&format!("{}: 2s, ", output.display())), "{}", said.text);
    assert!(std::fs::read(&output).unwrap().starts_with(b"\x1a\x45\xdf\xa3"), "its name says WebM");
    assert!(told.len() > 2 && told[0].starts_with("3 s in "), "{told:?}");
}

#[test]
fn what_a_video_is_to_be_is_told_by_options() {
    let settings = |words: &[&str]| compose(&[&["x"], words].concat()).settings();
    let plain = settings(&[]);
    assert_eq!((plain.format, plain.layout, plain.names), (Format::Mp4, Layout::ScreenShareFirst, true));
    assert_eq!(settings(&["--format", "webm", "--output", "x.mp4"]).format, Format::WebM);
    let told = settings(&["--layout", "single-speaker", "--content", "video", "--participant", "ann", "--no-names"]);
    assert_eq!((told.layout, told.content, told.names), (Layout::SingleSpeaker, Content::Video, false));
    assert_eq!(told.participants, ["ann".to_owned()].into());
}
