//! What holds of every plan, whatever a session file says.

use plenary_composer::{
    Canvas, GRID_TILES_MAX, Layout, PIECE_US_MAX, SCENES_MAX, STRIP_TILES_MAX, Span, Spans, WINDOW_US, plan,
};
use plenary_model::{Codec, Source};
use plenary_recording::{
    Container,
    session_file::{Epoch, Event, GapReason, Line, Session, Started, StopReason, Stretch, TrackFile, VERSION},
};
use proptest::prelude::*;

const EPOCH: Epoch = Epoch { number: 1, boot: 1 };
const BEGAN_US: u64 = 1_764_000_000_000_000;
const CANVAS: Canvas = Canvas { width: 1280, height: 720 };
const FPS: u32 = 25;

fn file(number: u8) -> TrackFile {
    TrackFile::new(EPOCH, &format!("TR_{}", number % 30).into(), u32::from(number / 30), Container::WebM).unwrap()
}

fn event() -> impl Strategy<Value = Event> {
    let id = |number: u8| format!("PA_{}", number % 24);
    prop_oneof![
        any::<(u8, String)>().prop_map(move |(who, name)| Event::Participant {
            participant: id(who).into(),
            identity: id(who),
            name,
        }),
        any::<u8>().prop_map(move |who| Event::ParticipantLeft { participant: id(who).into() }),
        any::<(u8, u8, u8, u32)>().prop_map(move |(number, who, source, zero)| Event::Track {
            file: file(number),
            participant: id(who).into(),
            source: [Source::Camera, Source::Microphone, Source::ScreenShare][usize::from(source % 3)],
            codec: if source % 3 == 1 { Codec::Opus } else { Codec::Vp8 },
            zero_us: BEGAN_US - 5_000_000 + u64::from(zero % 900_000_000),
        }),
        any::<(u8, u32, u32)>().prop_map(|(number, from, until)| Event::Gap {
            file: file(number),
            from_us: from.into(),
            until_us: until.into(),
            reason: GapReason::Loss,
        }),
        any::<(u8, bool)>().prop_map(|(number, muted)| Event::Mute { track: file(number).track().clone(), muted }),
        any::<Option<u8>>()
            .prop_map(move |who| Event::Speakers { participants: who.into_iter().map(|who| id(who).into()).collect() }),
    ]
}

fn session(lines: Vec<(u32, Event)>, length_us: u64) -> Session {
    let started = Started {
        version: VERSION,
        recording: "EG_x".into(),
        room: "RM_x".into(),
        room_name: "x".into(),
        node: "ND_x".into(),
        predecessor: None,
        former: None,
    };
    let stretch =
        Stretch { epoch: EPOCH, started, from_us: BEGAN_US, until_us: None, lines_unread: 0, lines_fenced: 0 };
    let at = |offset: u32| BEGAN_US + u64::from(offset) % length_us;
    let mut lines: Vec<_> = lines.into_iter().map(|(offset, event)| Line { at_us: at(offset), event }).collect();
    lines.push(Line { at_us: BEGAN_US + length_us, event: Event::Stopped { reason: StopReason::Requested } });
    lines.sort_by_key(|line| line.at_us);
    Session { stretches: vec![stretch], lines }
}

proptest! {
    #[test]
    fn every_frame_and_every_sample_is_planned_once(
        lines in proptest::collection::vec((any::<u32>(), event()), 0..120),
        spans in proptest::collection::btree_map(any::<u8>(), (0u64..2_000_000, 0u64..800_000_000), 0..200),
        length_us in 1u64..900_000_000,
        layout in prop_oneof![
            Just(Layout::Grid),
            Just(Layout::Speaker),
            Just(Layout::SingleSpeaker),
            Just(Layout::ScreenShareFirst),
        ],
    ) {
        let spans: Spans = spans
            .into_iter()
            .map(|(number, (first_us, more))| (file(number), Span { first_us, last_us: first_us + more }))
            .collect();
        let plan = plan(&session(lines, length_us), &spans, layout, CANVAS, FPS).unwrap();
        let mut next = 0;
        for piece in &plan.pieces {
            prop_assert_eq!(piece.frames.start, next);
            prop_assert!(piece.frames.end > next);
            prop_assert!((piece.frames.end - next) * 1_000_000 / u64::from(FPS) <= PIECE_US_MAX);
            next = piece.frames.end;
            let most = match layout {
                Layout::SingleSpeaker => 1,
                Layout::Speaker => STRIP_TILES_MAX + 1,
                Layout::Grid | Layout::ScreenShareFirst => GRID_TILES_MAX,
            };
            prop_assert!(piece.tiles.len() <= most);
            for tile in &piece.tiles {
                let rect = tile.rect;
                prop_assert!(rect.x + rect.width <= CANVAS.width && rect.y + rect.height <= CANVAS.height);
                prop_assert!(!tile.name.contains(char::is_control));
                let span = tile.picture.as_ref().map(|picture| (spans[&picture.file], picture.seek_us));
                prop_assert!(span.is_none_or(|(span, seek_us)| seek_us <= span.last_us as i64));
            }
        }
        prop_assert_eq!(next, (length_us * u64::from(FPS)).div_ceil(1_000_000));
        let mut next_us = 0;
        for window in &plan.windows {
            prop_assert_eq!(window.from_us, next_us);
            prop_assert!((1..=WINDOW_US).contains(&window.length_us));
            next_us += window.length_us;
            prop_assert!(window.sounds.iter().all(|sound| sound.at_us + sound.length_us <= window.length_us));
        }
        prop_assert_eq!(next_us, length_us);
    }
}

#[test]
fn somebody_who_comes_and_goes_all_day_costs_a_bounded_number_of_pieces() {
    let (who, length_us) = ("PA_ann", 3_600_000_000);
    let participant = |at: u32| match at % 2 {
        0 => Event::Participant { participant: who.into(), identity: who.into(), name: String::new() },
        _ => Event::ParticipantLeft { participant: who.into() },
    };
    let lines = (0..36_000).map(|at| (at * 100_000, participant(at))).collect();
    let plan = plan(&session(lines, length_us), &Spans::new(), Layout::Grid, CANVAS, FPS).unwrap();
    assert!((SCENES_MAX / 4..=SCENES_MAX + 12).contains(&plan.pieces.len()), "{} pieces", plan.pieces.len());
    assert_eq!(plan.pieces[0].frames.start, 0);
    assert!(plan.pieces.windows(2).all(|pair| pair[0].frames.end == pair[1].frames.start));
    assert_eq!(plan.pieces[plan.pieces.len() - 1].frames.end, 3_600 * u64::from(FPS));
}
