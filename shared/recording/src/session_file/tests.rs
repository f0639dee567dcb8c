use proptest::prelude::*;

use super::*;
use crate::Container;

const FIRST: Epoch = Epoch { number: 5, boot: 0xA };
const SECOND: Epoch = Epoch { number: 7, boot: 0xB };
const THIRD: Epoch = Epoch { number: 9, boot: 0xC };

fn started(at_us: u64, predecessor: Option<(Epoch, i64)>) -> Line {
    let event = Event::Started(Started {
        version: VERSION,
        recording: "EG_x".into(),
        room: "RM_r".into(),
        room_name: "../stand\nup".into(),
        node: "ND_n".into(),
        predecessor: predecessor.map(|(epoch, clock_ahead_us)| Predecessor { epoch, clock_ahead_us }),
        former: None,
    });
    Line { at_us, event }
}

fn file_of(epoch: Epoch) -> TrackFile {
    TrackFile::new(epoch, &"TR_VCa".into(), 0, Container::WebM).unwrap()
}

fn track(at_us: u64, epoch: Epoch, zero_us: u64) -> Line {
    let (participant, source) = ("PA_ann".into(), Source::ScreenShare);
    Line { at_us, event: Event::Track { file: file_of(epoch), participant, source, codec: Codec::Vp8, zero_us } }
}

fn chat(at_us: u64, id: &str) -> Line {
    Line { at_us, event: Event::Chat { id: id.into(), participant: "PA_ann".into(), text: "hi".into() } }
}

fn written(lines: &[Line]) -> Vec<u8> {
    lines.iter().flat_map(Line::encode).collect()
}

fn read(epoch: Epoch, lines: &[Line]) -> SessionFile {
    SessionFile::read(epoch, &written(lines)).unwrap()
}

/// One of each, and the document that describes them.
#[test]
fn lines_are_written_as_the_document_says() {
    let file = file_of(FIRST);
    let events = [
        Event::Participant {
            participant: "PA_ann".into(),
            identity: "ann@example.org".into(),
            name: "Ann \"A\"\n".into(),
        },
        Event::ParticipantLeft { participant: "PA_ann".into() },
        track(0, FIRST, 1_764_000_000_250_000).event,
        Event::TrackZero { file: file.clone(), zero_us: 1_764_000_000_240_000 },
        Event::TrackEnded { file: file.clone(), reason: TrackEnd::CodecChanged },
        Event::Gap { file, from_us: 2_000_000, until_us: 2_300_000, reason: GapReason::Loss },
        Event::NotRecorded {
            track: "TR_VSc".into(),
            participant: "PA_bob".into(),
            source: Source::ScreenShare,
            reason: Omission::Encrypted,
        },
        Event::Mute { track: "TR_AMb".into(), muted: true },
        Event::Speakers { participants: vec!["PA_ann".into(), "PA_bob".into()] },
        Event::Chat { id: "17".into(), participant: "PA_ann".into(), text: "hello".into() },
        Event::Stopped { reason: StopReason::DiskFull },
    ];
    let mut first = started(1_764_000_000_000_000, Some((Epoch { number: 4, boot: 1 }, -1500)));
    if let Event::Started(started) = &mut first.event {
        started.former = Some(Former { epoch: 4, node: "ND_m".into() });
    }
    let mut lines = vec![first];
    lines.extend((1..).zip(events).map(|(n, event)| Line { at_us: 1_764_000_000_000_000 + n, event }));
    let text = String::from_utf8(written(&lines)).unwrap();
    let document = include_str!("../../../../proto/plenary/v1/session.md");
    let example = document.split("```").find_map(|block| block.strip_prefix("jsonl\n")).unwrap();
    assert_eq!(text, example);
    let read = SessionFile::read(FIRST, example.as_bytes()).unwrap();
    assert_eq!((read.lines_unread, &read.lines[..]), (0, &lines[1..]));
}

#[test]
fn a_torn_last_line_is_left_out_wherever_it_is_torn() {
    let lines = [started(10, None), chat(20, "a"), chat(30, "b")];
    let bytes = written(&lines);
    let ends: Vec<_> = lines
        .iter()
        .scan(0, |end, line| {
            *end += line.encode().len();
            Some(*end)
        })
        .collect();
    for cut in 0..=bytes.len() {
        let whole = ends.iter().filter(|end| **end <= cut).count();
        match SessionFile::read(FIRST, &bytes[..cut]) {
            Ok(file) => {
                assert_eq!((file.at_us, &file.lines[..]), (10, &lines[1..whole]));
                assert_eq!(file.lines_unread, usize::from(!ends.contains(&cut)));
            }
            Err(error) => assert_eq!((error, whole), (ReadError::NotBegun, 0)),
        }
    }
}

#[test]
fn what_a_later_plenary_writes_spoils_nothing() {
    let mut bytes = written(&[started(10, None)]);
    bytes.extend(b"{\"at_us\":20,\"event\":\"hologram\",\"depth\":[1,{}]}\n");
    bytes.extend(b"{\"at_us\":30,\"event\":\"mute\",\"track\":\"TR_a\",\"muted\":true,\"by\":\"PA_bob\"}\n");
    bytes.extend(b"{\"at_us\":40,\"event\":\"stopped\",\"reason\":\"bored\"}\n");
    let file = SessionFile::read(FIRST, &bytes).unwrap();
    let events: Vec<_> = file.lines.into_iter().map(|line| line.event).collect();
    let mute = Event::Mute { track: "TR_a".into(), muted: true };
    assert_eq!((events, file.lines_unread), (vec![mute, Event::Stopped { reason: StopReason::Unknown }], 0));
}

#[test]
fn a_newer_version_is_refused_by_its_number() {
    let Line { event: Event::Started(newer), .. } = started(10, None) else { panic!("started") };
    let line = Line { at_us: 10, event: Event::Started(Started { version: VERSION + 1, ..newer }) };
    assert_eq!(SessionFile::read(FIRST, &line.encode()), Err(ReadError::Newer { version: VERSION + 1 }));
}

#[test]
fn damaged_and_foreign_lines_are_counted_and_cost_no_other() {
    let mut bytes = written(&[started(10, None)]);
    bytes.extend([0; 100]);
    bytes.extend(b"\n\xFF\xFE\n{}\nnull\n");
    bytes.extend(b"{\"at_us\":20,\"event\":\"track_ended\",\"file\":\"../../etc/passwd\",\"reason\":\"stopped\"}\n");
    bytes.extend(track(20, SECOND, 20).encode());
    bytes.extend(started(20, None).encode());
    bytes.extend(chat(20, &"x".repeat(LINE_BYTES_MAX)).encode());
    bytes.extend(chat(30, "a").encode());
    let file = SessionFile::read(FIRST, &bytes).unwrap();
    assert_eq!((file.lines, file.lines_unread), (vec![chat(30, "a")], 8));
}

#[test]
fn epochs_become_one_timeline_by_the_first_clock() {
    // The second node's clock is 1,000 µs ahead of the first's, the third's 300 behind the second's.
    let first = read(FIRST, &[started(10_000, None), track(10_100, FIRST, 10_050), chat(11_000, "a")]);
    let second =
        read(SECOND, &[started(21_000, Some((FIRST, 1000))), track(21_100, SECOND, 21_050), chat(22_000, "b")]);
    let third = read(THIRD, &[started(30_700, Some((SECOND, -300))), chat(31_700, "c")]);
    let session = merge(vec![third, first, second]).unwrap();
    let spans: Vec<_> = session.stretches.iter().map(|one| (one.epoch, one.from_us, one.until_us)).collect();
    let expected = [(FIRST, 10_000, Some(20_000)), (SECOND, 20_000, Some(30_000)), (THIRD, 30_000, None)];
    assert_eq!(spans, expected);
    assert_eq!(
        session.lines,
        [
            track(10_100, FIRST, 10_050),
            chat(11_000, "a"),
            track(20_100, SECOND, 20_050),
            chat(21_000, "b"),
            chat(31_000, "c")
        ]
    );
}

#[test]
fn what_a_paused_node_writes_after_its_successor_began_is_left_out() {
    let lines = [
        started(10_000, None),
        track(10_000, FIRST, 10_000),
        chat(19_999, "in time"),
        chat(20_000, "late"),
        Line { at_us: 20_001, event: Event::TrackZero { file: file_of(FIRST), zero_us: 1 } },
        Line { at_us: 20_002, event: Event::Stopped { reason: StopReason::Requested } },
    ];
    let second = read(SECOND, &[started(20_000, Some((FIRST, 0)))]);
    let session = merge(vec![read(FIRST, &lines), second]).unwrap();
    assert_eq!(session.lines, [track(10_000, FIRST, 10_000), chat(19_999, "in time")]);
    assert_eq!(session.stretches.iter().map(|one| one.lines_fenced).collect::<Vec<_>>(), [3, 0]);
}

#[test]
fn an_epoch_is_fenced_by_every_newer_one() {
    // The newest began before the one in between, whose clock it measured.
    let first = read(FIRST, &[started(10, None), chat(25, "first")]);
    let second = read(SECOND, &[started(30, Some((FIRST, 0))), chat(31, "second")]);
    let third = read(THIRD, &[started(20, Some((SECOND, 0))), chat(40, "third")]);
    assert_eq!(merge(vec![first, second, third]).unwrap().lines, [chat(40, "third")]);
}

#[test]
fn the_zero_known_best_counts() {
    let zero = |at_us, zero_us| Line { at_us, event: Event::TrackZero { file: file_of(FIRST), zero_us } };
    let lines = [started(10, None), track(20, FIRST, 500), zero(30, 480), zero(40, 470)];
    assert_eq!(merge(vec![read(FIRST, &lines)]).unwrap().lines, [track(20, FIRST, 470)]);
}

#[test]
fn without_its_predecessors_file_an_epoch_is_measured_by_the_one_before() {
    let first = read(FIRST, &[started(1000, None)]);
    let third = read(THIRD, &[started(3500, Some((SECOND, 500))), chat(3600, "c")]);
    assert_eq!(merge(vec![first, third]).unwrap().lines, [chat(3100, "c")]);
}

#[test]
fn parts_that_are_elsewhere_are_known_by_who_came_after_and_before() {
    let by = |node: &str, epoch: Epoch, former: Option<(Epoch, &str)>, lines: &[Line]| {
        let mut file = read(epoch, &[&[started(epoch.number, None)], lines].concat());
        file.started.node = node.into();
        file.started.former = former.map(|(epoch, node)| Former { epoch: epoch.number, node: node.into() });
        file
    };
    let elsewhere = |files: Vec<SessionFile>| {
        let nodes = merge(files).unwrap().elsewhere();
        nodes.iter().map(|node| node.as_ref().map_or("?", |node| node.as_str()).to_owned()).collect::<Vec<_>>()
    };
    let moved = [Line { at_us: 1_000, event: Event::Stopped { reason: StopReason::Moved } }];
    let stopped = [Line { at_us: 1_000, event: Event::Stopped { reason: StopReason::Requested } }];
    let first = |lines| by("ND_a", FIRST, None, lines);
    let second = |lines| by("ND_b", SECOND, Some((FIRST, "ND_a")), lines);
    let third = || by("ND_a", THIRD, Some((SECOND, "ND_b")), &stopped);
    assert_eq!(elsewhere(vec![first(&moved), second(&moved), third()]), [""; 0], "all are here");
    assert_eq!(elsewhere(vec![first(&moved)]), ["?"]);
    assert_eq!(elsewhere(vec![first(&stopped)]), [""; 0]);
    assert_eq!(elsewhere(vec![second(&moved)]), ["ND_a", "?"]);
    assert_eq!(elsewhere(vec![first(&moved), third()]), ["ND_b"]);
    assert_eq!(elsewhere(vec![second(&stopped), third()]), ["ND_a"]);
    let again = by("ND_a", THIRD, Some((SECOND, "ND_a")), &stopped);
    assert_eq!(elsewhere(vec![first(&moved), again]), [""; 0], "it had nothing of it");
    let after_lost = read(THIRD, &[started(3_500, Some((SECOND, 0)))]);
    assert_eq!(elsewhere(vec![first(&moved), after_lost]), ["?"], "the file of a predecessor was lost");
}

#[test]
fn recordings_are_not_mixed() {
    let Line { event: Event::Started(other), .. } = started(10, None) else { panic!("started") };
    let line = Line { at_us: 10, event: Event::Started(Started { recording: "EG_y".into(), ..other }) };
    let files = vec![read(FIRST, &[started(10, None)]), read(SECOND, &[line])];
    assert_eq!(merge(files), Err(MergeError::SeveralRecordings));
    assert_eq!(merge(Vec::new()), Err(MergeError::NoFile));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_stays_on_its_line(name: String, text: String, at_us: u64) {
        let lines = [
            started(0, None),
            Line { at_us, event: Event::Participant { participant: "PA_a".into(), identity: text.clone(), name } },
            Line { at_us, event: Event::Chat { id: "1".into(), participant: "".into(), text } },
        ];
        let bytes = written(&lines);
        prop_assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 3);
        prop_assert_eq!(&read(FIRST, &lines).lines[..], &lines[1..]);
    }

    #[test]
    fn any_bytes_are_read_and_merged(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), at_us: u64, ahead in any::<i64>(), zero_us: u64,
    ) {
        let mut first = written(&[started(u64::MAX, None), track(at_us, FIRST, zero_us)]);
        first.extend(bytes);
        let second = read(SECOND, &[started(at_us, Some((FIRST, ahead))), track(at_us, SECOND, zero_us)]);
        let third = read(THIRD, &[started(at_us, Some((SECOND, ahead)))]);
        let session = merge(vec![SessionFile::read(FIRST, &first).unwrap(), second, third]).unwrap();
        prop_assert!(session.lines.is_sorted_by_key(|line| line.at_us));
    }
}
