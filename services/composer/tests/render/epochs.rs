//! A meeting that two nodes recorded, one after the other, asked for by a request.

use std::{fs, sync::atomic::AtomicBool};

use plenary_composer::{
    Content, Layout, Settings, compose,
    watch::{Outcome, PROGRESS, REQUEST, RESULT, Request, ResultFile, render_all},
};
use plenary_model::Source;
use plenary_recording::{
    VideoCodec,
    session_file::{Epoch, Event, Predecessor, StopReason},
};

use crate::tools::*;

const FIRST: Epoch = Epoch { number: 3, boot: 0xA };
const SECOND: Epoch = Epoch { number: 4, boot: 0xB };
const FPS: u32 = 10;

#[test]
fn a_meeting_of_two_recorders_is_one_video() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("EG_x");
    fs::create_dir(&directory).unwrap();
    let camera =
        |color: &str, seconds: f64| picture(VideoCodec::Vp8, 40, &format!("color={color}:s=160x90:r=10:d={seconds}"));
    let tone = |seconds: u32| sound(&format!("sine=frequency=440:sample_rate=48000:duration={seconds}"));

    // The first dies after 3 s, in the middle of everything.
    let mut recorder = Recorder::new(&directory, FIRST, 0, None);
    recorder.joined(0, "ann", "Ann");
    recorder.track(0, "TR_Vann", "ann", Source::Camera, &camera("red", 3.0), false);
    recorder.track(0, "TR_Aann", "ann", Source::Microphone, &tone(3), false);
    recorder.end();
    // The second goes on after 5 s. Its clock is two seconds ahead.
    let predecessor = Predecessor { epoch: FIRST, clock_ahead_us: 2_000_000 };
    let mut recorder = Recorder::new(&directory, SECOND, 5_000, Some(predecessor));
    let speaks = |who: &str| Event::Speakers { participants: vec![format!("PA_{who}").into()] };
    recorder.joined(5_000, "ann", "Ann");
    recorder.joined(5_000, "bob", "Bob");
    recorder.track(5_000, "TR_Vann", "ann", Source::Camera, &camera("blue", 4.0), true);
    recorder.track(5_000, "TR_Aann", "ann", Source::Microphone, &tone(4), true);
    recorder.track(5_000, "TR_Vbob", "bob", Source::Camera, &camera("lime", 4.0), true);
    recorder.tell(5_000, speaks("ann"));
    recorder.tell(6_500, speaks("bob"));
    recorder.tell(7_500, Event::Mute { track: "TR_Vbob".into(), muted: true });
    recorder.tell(8_200, Event::Mute { track: "TR_Vbob".into(), muted: false });
    recorder.tell(8_600, Event::ParticipantLeft { participant: "PA_ann".into() });
    recorder.tell(9_000, Event::Stopped { reason: StopReason::RoomEnded });
    recorder.end();

    let path = "videos/two nodes.mp4";
    let (width, height) = (CANVAS.width, CANVAS.height);
    let request =
        Request { output: Some(path.into()), layout: Layout::Speaker, width, height, fps: FPS, ..Request::default() };
    fs::write(directory.join(REQUEST), serde_json::to_vec(&request).unwrap()).unwrap();
    render_all(root.path(), &settings(FPS), &AtomicBool::new(false), &mut |_| {}).unwrap();
    let output = root.path().join(path);
    assert!(!directory.join(REQUEST).exists() && !directory.join(PROGRESS).exists());
    let result: ResultFile = serde_json::from_slice(&fs::read(directory.join(RESULT)).unwrap()).unwrap();
    let complete = Outcome::Complete {
        path: path.into(),
        size: output.metadata().unwrap().len(),
        duration_us: 9_000_000,
        started_us: BEGAN_US,
        ended_us: BEGAN_US + 9_000_000,
        missing: Vec::new(),
    };
    assert_eq!(result.outcome, complete);

    let seen = Seen::of(&output, FPS);
    assert_eq!(seen.frames.len(), 90);
    let (large, small, second_small) = ((128, 150), (280, 4), (280, 44));
    for (ms, place, color) in [
        (0, large, "red"),
        (2_900, large, "red"),
        // Ann was there, and nobody recorded.
        (3_200, large, "dark"),
        (4_900, large, "dark"),
        (5_000, large, "blue"),
        (5_000, small, "lime"),
        (6_400, large, "blue"),
        (6_500, large, "lime"),
        (6_500, small, "blue"),
        (7_400, large, "lime"),
        (7_500, large, "dark"),
        (8_100, large, "dark"),
        (8_200, large, "lime"),
        (8_500, small, "blue"),
        (8_600, small, "lime"),
        (8_900, large, "lime"),
        (8_900, second_small, "lime"),
    ] {
        assert_eq!(seen.color(ms, place), color, "at {ms} ms, {place:?}");
    }
    assert!(has_white(&output, 4_000, (0, 0, 320, 180)), "her name is there meanwhile");
    let heard = Heard::of(&output);
    for (ms, expected) in [(500, true), (2_800, true), (3_200, false), (4_900, false), (5_200, true), (8_400, true)] {
        assert_eq!(heard.level(ms, 440.0) > 0.02, expected, "the tone at {ms} ms is {}", heard.level(ms, 440.0));
    }

    let made = |name: &str, settings: Settings| {
        let output = root.path().join(name);
        let composed = compose(&directory, &output, &settings, &AtomicBool::new(false), &mut |_| {}).unwrap();
        assert!(composed.duration_us == 9_000_000 && (length(&output) - 9.0).abs() < 0.1);
        output
    };
    // The same without one or the other.
    let audio = made("audio.mp4", Settings { content: Content::Audio, ..settings(FPS) });
    assert_eq!(probe(&audio, "stream=codec_name"), ["aac"]);
    let alone = Settings {
        content: Content::Video,
        layout: Layout::SingleSpeaker,
        participants: ["bob".to_owned()].into(),
        names: false,
        ..settings(FPS)
    };
    let video = made("video.mp4", alone);
    assert_eq!(probe(&video, "stream=codec_name"), ["h264"]);
    let seen = Seen::of(&video, FPS);
    for (ms, color) in [(1_000, "dark"), (4_900, "dark"), (5_000, "lime"), (8_100, "dark"), (8_900, "lime")] {
        assert_eq!(seen.color(ms, (160, 90)), color, "at {ms} ms");
    }
    assert!(!has_white(&video, 8_000, (0, 0, 320, 180)), "there are no names");
}
