//! Two people: one joins later and is gone for a while, one shows a screen.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use plenary_composer::{ComposeError, Format, Progress, Settings, compose};
use plenary_model::Source;
use plenary_recording::{
    Frame, VideoCodec,
    session_file::{Epoch, Event, GapReason, StopReason, TrackEnd},
};

use crate::tools::*;

const EPOCH: Epoch = Epoch { number: 7, boot: 0xFEED };
/// Nobody comes for so long, so that sound is cut into two windows while they are there.
const ALONE_MS: u64 = 57_000;
const LENGTH_MS: u64 = 65_000;

/// Ann's flash and beep. The second comes after four cuts of the picture, and its sound is in the second window.
const SIGNALS_MS: [u64; 2] = [60_000, 64_000];
const ANN_VIDEO_ZERO_MS: u64 = 57_120;
const ANN_AUDIO_ZERO_MS: u64 = 57_300;
const BOB_ZERO_MS: u64 = 59_000;
const SCREEN_MS: (u64, u64) = (61_000, 63_000);
const BOB_GAP_MS: (u64, u64) = (62_000, 63_500);

const FPS: u32 = 25;

#[test]
fn a_meeting_is_composed_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    record(directory.path());
    let output = directory.path().join("it's: a [video],.mp4");
    let settings = settings(FPS);

    let work = directory.path().join("it's: a [video],.mp4.work");
    let inode = || {
        let pieces = fs::read_dir(&work).unwrap().map(|entry| entry.unwrap());
        let first = pieces.into_iter().find(|piece| piece.file_name().to_string_lossy().starts_with("piece-00000"));
        first.unwrap().metadata().unwrap().ino()
    };
    // Stopped after three pieces, it goes on with the fourth.
    let cancel = AtomicBool::new(false);
    let mut last = None;
    let stopped = compose(directory.path(), &output, &settings, &cancel, &mut |progress| {
        cancel.store(matches!(progress, Progress::Step { done: 3, .. }), Ordering::Relaxed);
        last = Some(progress);
    });
    assert!(stopped.as_ref().is_err_and(ComposeError::is_cancelled), "{stopped:?}");
    assert!(matches!(last, Some(Progress::Step { done: 3, .. })) && !output.exists());
    let (first, mut kept, mut made) = (inode(), None, Vec::new());
    let composed = compose(directory.path(), &output, &settings, &AtomicBool::new(false), &mut |progress| {
        if let Progress::Step { done, made: now, .. } = progress {
            kept = kept.or((done == 3).then(inode));
            made.push(now);
        }
    });
    assert_eq!(kept, Some(first), "the first piece was rendered again");
    assert!(made[..3] == [false; 3] && made[3..].iter().all(|made| *made), "{made:?}");
    assert!(!work.exists() && output.exists());
    let composed = composed.unwrap();
    assert_eq!((composed.started_us, composed.duration_us), (BEGAN_US, LENGTH_MS * 1000));
    assert_eq!((composed.size, composed.missing), (output.metadata().unwrap().len(), Vec::new()));

    assert_eq!(probe(&output, "stream=codec_name"), ["h264", "aac"]);
    let bytes = fs::read(&output).unwrap();
    let place = |name: &[u8]| bytes.windows(4).position(|window| window == name).unwrap();
    assert!(place(b"moov") < place(b"mdat"), "its index is in front");

    let seen = Seen::of(&output, FPS);
    assert_eq!(seen.frames.len() as u64, LENGTH_MS * u64::from(FPS) / 1000);
    let (left, right, middle) = ((80, 90), (240, 90), (160, 90));
    let (large, first_small, second_small) = ((128, 90), (280, 6), (280, 40));
    for (ms, place, expected) in [
        (30_000, middle, "dark"),
        (58_000, middle, "red"),
        (58_960, left, "red"),
        (59_040, right, "blue"),
        (59_040, left, "red"),
        (60_960, right, "blue"),
        (61_080, large, "lime"),
        (61_080, first_small, "red"),
        (61_080, second_small, "blue"),
        (61_960, second_small, "blue"),
        (62_000, second_small, "dark"),
        (62_960, large, "lime"),
        (62_960, first_small, "red"),
        (63_000, left, "red"),
        (63_000, right, "dark"),
        (63_460, right, "dark"),
        (63_560, right, "blue"),
        (64_960, right, "blue"),
        (64_960, left, "red"),
    ] {
        // The name stands in the middle of a tile without a picture.
        let place = if expected == "dark" && place.1 == 90 { (place.0, 120) } else { place };
        assert_eq!(seen.color(ms, place), expected, "at {ms} ms, {place:?}");
    }
    assert!(has_white(&output, 63_240, (160, 0, 160, 180)), "Bob's tile has his name while his picture is missing");

    let heard = Heard::of(&output);
    for (ms, expected) in
        [(30_000, false), (58_000, false), (58_900, false), (59_100, true), (62_500, true), (64_900, true)]
    {
        let level = heard.level(ms, 440.0);
        assert_eq!(level > 0.02, expected, "Bob's tone at {ms} ms is {level}");
    }
    for signal_ms in SIGNALS_MS {
        let around = signal_ms - 500..signal_ms + 500;
        let (flash, beep) = (seen.flash(around.clone(), left).unwrap(), heard.beep(around).unwrap());
        println!("signal {signal_ms} ms: flash at {flash} ms, beep at {beep} ms");
        assert!(flash.abs_diff(beep) <= 40 && flash.abs_diff(signal_ms) <= 40, "flash {flash} ms, beep {beep} ms");
    }

    let output = directory.path().join("composed.webm");
    let settings = Settings { format: Format::WebM, fps: 5, font: None, ..settings };
    compose(directory.path(), &output, &settings, &AtomicBool::new(false), &mut |_| {}).unwrap();
    assert_eq!(probe(&output, "stream=codec_name"), ["vp9", "opus"]);
    assert!((length(&output) - LENGTH_MS as f64 / 1000.0).abs() < 0.1, "{} s", length(&output));
}

/// Writes what a recorder would have.
fn record(directory: &Path) {
    let flash = |signal_ms: u64, zero_ms: u64| {
        let from = (signal_ms - zero_ms) as f64 / 1000.0;
        format!("between(t,{:.3},{:.3})", from - 0.001, from + 0.199)
    };
    let signals = |zero_ms| SIGNALS_MS.map(|ms| flash(ms, zero_ms)).join("+");
    let vp8 = |color: &str, size: &str, seconds: f64, more: &str| {
        picture(VideoCodec::Vp8, 40, &format!("color={color}:s={size}:r=25:d={seconds}{more}"))
    };

    let white = format!(",drawbox=color=white:t=fill:enable='{}'", signals(ANN_VIDEO_ZERO_MS));
    let ann = vp8("red", "320x180", 7.88, &white);
    let ann_sound = sound(&format!("aevalsrc='0.5*sin(2*PI*1000*t)*({})':s=48000:d=7.7", signals(ANN_AUDIO_ZERO_MS)));
    // Behind the gap Bob's picture has another size and shape.
    let (gap, after) = (BOB_GAP_MS.0 - BOB_ZERO_MS, BOB_GAP_MS.1 - BOB_ZERO_MS);
    let mut bob = vp8("blue", "320x180", gap as f64 / 1000.0, "");
    let later = vp8("blue", "160x160", 1.5, "").frames;
    bob.frames.extend(later.into_iter().map(|frame| Frame { at: frame.at + Duration::from_millis(after), ..frame }));
    let bob_sound = sound("sine=frequency=440:sample_rate=48000:duration=6");
    // Nothing moves on it, so there is one frame.
    let screen = vp8("lime", "640x480", 0.04, "");

    let mut recorder = Recorder::new(directory, EPOCH, 0, None);
    recorder.joined(ALONE_MS, "ann", "Ann \"A\"\n%{pts}:x='1'\\;[out]");
    recorder.track(ANN_VIDEO_ZERO_MS, "TR_VCann", "ann", Source::Camera, &ann, true);
    recorder.track(ANN_AUDIO_ZERO_MS, "TR_AMann", "ann", Source::Microphone, &ann_sound, true);
    recorder.joined(BOB_ZERO_MS, "bob", "محمد علي %{localtime}");
    let bob_file = recorder.track(BOB_ZERO_MS, "TR_VCbob", "bob", Source::Camera, &bob, false);
    recorder.track(BOB_ZERO_MS, "TR_AMbob", "bob", Source::Microphone, &bob_sound, true);
    let file = recorder.track(SCREEN_MS.0, "TR_VSann", "ann", Source::ScreenShare, &screen, true);
    recorder.tell(SCREEN_MS.1, Event::TrackEnded { file, reason: TrackEnd::Unpublished });
    let (from_us, until_us) = (gap * 1000, after * 1000);
    recorder.tell(BOB_GAP_MS.1, Event::Gap { file: bob_file, from_us, until_us, reason: GapReason::Loss });
    recorder.tell(LENGTH_MS, Event::Stopped { reason: StopReason::Requested });
    recorder.end();
}
