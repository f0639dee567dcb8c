//! A small meeting, rendered by the real ffmpeg and looked at with it. Takes seconds; the other tests of this crate run
//! without ffmpeg, by `--lib --test plans`.

#![allow(clippy::print_stdout, reason = "measured figures")]

use std::{
    fs::{self, File},
    num::NonZeroU32,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use plenary_composer::{Canvas, ComposeError, Format, Progress, Settings, compose, default_font};
use plenary_model::{Codec, Source};
use plenary_recording::{
    Container, Frame, TrackInfo, VideoCodec, Writer,
    session_file::{Epoch, Event, GapReason, Line, Started, StopReason, TrackEnd, TrackFile, VERSION},
};

const EPOCH: Epoch = Epoch { number: 7, boot: 0xFEED };
const BEGAN_US: u64 = 1_764_000_000_000_000;
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

const CANVAS: Canvas = Canvas { width: 320, height: 180 };
/// What is looked at is as large.
const SEEN: (usize, usize) = (64, 36);
const FPS: u32 = 25;

#[test]
fn a_meeting_is_composed_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    record(directory.path());
    let output = directory.path().join("it's: a [video],.mp4");
    let settings = Settings { canvas: CANVAS, fps: FPS, font: default_font(), ..Settings::default() };
    assert!(settings.font.is_some(), "ffmpeg's package brings a font");

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
    let (made, mut kept) = (inode(), None);
    compose(directory.path(), &output, &settings, &AtomicBool::new(false), &mut |progress| {
        if let Progress::Step { done: 3, .. } = progress {
            kept = Some(inode());
        }
    })
    .unwrap();
    assert_eq!(kept, Some(made), "the first piece was rendered again");
    assert!(!work.exists() && output.exists());

    let streams = probe(&output, "stream=codec_name");
    assert_eq!(streams, ["h264", "aac"]);
    let bytes = fs::read(&output).unwrap();
    let place = |name: &[u8]| bytes.windows(4).position(|window| window == name).unwrap();
    assert!(place(b"moov") < place(b"mdat"), "its index is in front");

    let frames = look(&output);
    assert_eq!(frames.len() as u64, LENGTH_MS * u64::from(FPS) / 1000);
    let at = |ms: u64, (x, y): (u32, u32)| {
        let frame = &frames[(ms * u64::from(FPS) / 1000) as usize];
        let (x, y) = (x as usize * SEEN.0 / CANVAS.width as usize, y as usize * SEEN.1 / CANVAS.height as usize);
        color(&frame[(y * SEEN.0 + x) * 3..][..3])
    };
    let (left, right, middle) = ((80, 90), (240, 90), (160, 90));
    let (large, first_small, second_small) = ((128, 90), (280, 6), (280, 40));
    for (ms, place, expected) in [
        (30_000, middle, "dark"),
        (58_000, middle, "red"),
        (58_960, left, "red"),
        (59_040, right, "blue"),
        (59_040, left, "red"),
        (60_960, right, "blue"),
        (61_080, large, "green"),
        (61_080, first_small, "red"),
        (61_080, second_small, "blue"),
        (61_960, second_small, "blue"),
        (62_000, second_small, "dark"),
        (62_960, large, "green"),
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
        assert_eq!(at(ms, place), expected, "at {ms} ms, {place:?}");
    }
    assert!(has_white(&output, 63_240, (160, 0, 160, 180)), "Bob's tile has his name while his picture is missing");

    let sound = listen(&output);
    let has_tone = |ms: u64| level(&sound, ms, 440.0) > 0.02;
    for (ms, expected) in
        [(30_000, false), (58_000, false), (58_900, false), (59_100, true), (62_500, true), (64_900, true)]
    {
        assert_eq!(has_tone(ms), expected, "Bob's tone at {ms} ms is {}", level(&sound, ms, 440.0));
    }
    for signal_ms in SIGNALS_MS {
        let flash = (signal_ms - 500..signal_ms + 500)
            .find(|ms| at(*ms, if *ms < 60_500 { left } else { (80, 90) }) == "white");
        let beep = (signal_ms - 500..signal_ms + 500).find(|ms| level(&sound, *ms, 1000.0) > 0.05);
        let (flash, beep) = (flash.unwrap(), beep.unwrap());
        println!("signal {signal_ms} ms: flash at {flash} ms, beep at {beep} ms");
        assert!(flash.abs_diff(beep) <= 40 && flash.abs_diff(signal_ms) <= 40, "flash {flash} ms, beep {beep} ms");
    }

    let output = directory.path().join("composed.webm");
    let settings = Settings { format: Format::WebM, fps: 5, font: None, ..settings };
    compose(directory.path(), &output, &settings, &AtomicBool::new(false), &mut |_| {}).unwrap();
    assert_eq!(probe(&output, "stream=codec_name"), ["vp9", "opus"]);
    let length: f64 = probe(&output, "format=duration")[0].parse().unwrap();
    assert!((length - LENGTH_MS as f64 / 1000.0).abs() < 0.1, "{length} s");
}

/// Writes what a recorder would have.
fn record(directory: &Path) {
    let flash = |signal_ms: u64, zero_ms: u64| {
        let from = (signal_ms - zero_ms) as f64 / 1000.0;
        format!("between(t,{:.3},{:.3})", from - 0.001, from + 0.199)
    };
    let signals = |zero_ms| SIGNALS_MS.map(|ms| flash(ms, zero_ms)).join("+");
    let picture = |color: &str, size: &str, seconds: f64, more: &str| {
        let source = format!("color={color}:s={size}:r=25:d={seconds}{more}");
        let codec = ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "300k", "-g", "40"];
        frames(directory, &source, &codec)
    };
    let sound = |source: &str| frames(directory, source, &["-c:a", "libopus", "-b:a", "64k"]);

    let white = format!(",drawbox=color=white:t=fill:enable='{}'", signals(ANN_VIDEO_ZERO_MS));
    let ann = picture("red", "320x180", 7.88, &white);
    let beep = format!("aevalsrc='0.5*sin(2*PI*1000*t)*({})':s=48000:d=7.7", signals(ANN_AUDIO_ZERO_MS));
    let ann_sound = sound(&beep);
    // Behind the gap Bob's picture has another size and shape.
    let (gap, after) = (BOB_GAP_MS.0 - BOB_ZERO_MS, BOB_GAP_MS.1 - BOB_ZERO_MS);
    let mut bob = picture("blue", "320x180", gap as f64 / 1000.0, "");
    let later = picture("blue", "160x160", 1.5, "");
    bob.extend(later.into_iter().map(|frame| Frame { at: frame.at + Duration::from_millis(after), ..frame }));
    let bob_sound = sound("sine=frequency=440:sample_rate=48000:duration=6");
    // Nothing moves on it, so there is one frame.
    let screen = picture("lime", "640x480", 0.04, "");

    let names = [("ann", "Ann \"A\"\n%{pts}:x='1'\\;[out]"), ("bob", "محمد علي %{localtime}")];
    let [ann_name, bob_name] = names.map(|(id, name)| Event::Participant {
        participant: format!("PA_{id}").into(),
        identity: id.to_owned(),
        name: name.to_owned(),
    });
    let mut lines = vec![(
        0,
        Event::Started(Started {
            version: VERSION,
            recording: "EG_x".into(),
            room: "RM_r".into(),
            room_name: "room".into(),
            node: "ND_n".into(),
            predecessor: None,
        }),
    )];
    lines.push((ALONE_MS, ann_name));
    let track = |sid: &str, who: &str, source, zero_ms: u64, frames: &[Frame]| {
        let is_sound = source == Source::Microphone;
        let file = TrackFile::new(EPOCH, &sid.into(), 0, Container::WebM).unwrap();
        write(&directory.join(file.to_string()), is_sound, frames, sid != "TR_VCbob");
        let codec = if is_sound { Codec::Opus } else { Codec::Vp8 };
        let zero_us = BEGAN_US + zero_ms * 1000;
        (zero_ms, Event::Track { file, participant: who.into(), source, codec, zero_us })
    };
    lines.push(track("TR_VCann", "PA_ann", Source::Camera, ANN_VIDEO_ZERO_MS, &ann));
    lines.push(track("TR_AMann", "PA_ann", Source::Microphone, ANN_AUDIO_ZERO_MS, &ann_sound));
    lines.push((BOB_ZERO_MS, bob_name));
    lines.push(track("TR_VCbob", "PA_bob", Source::Camera, BOB_ZERO_MS, &bob));
    lines.push(track("TR_AMbob", "PA_bob", Source::Microphone, BOB_ZERO_MS, &bob_sound));
    lines.push(track("TR_VSann", "PA_ann", Source::ScreenShare, SCREEN_MS.0, &screen));
    let file = |sid: &str| TrackFile::new(EPOCH, &sid.into(), 0, Container::WebM).unwrap();
    lines.push((SCREEN_MS.1, Event::TrackEnded { file: file("TR_VSann"), reason: TrackEnd::Unpublished }));
    let (from_us, until_us) = (gap * 1000, after * 1000);
    lines.push((BOB_GAP_MS.1, Event::Gap { file: file("TR_VCbob"), from_us, until_us, reason: GapReason::Loss }));
    lines.push((LENGTH_MS, Event::Stopped { reason: StopReason::Requested }));
    let lines = lines.into_iter().flat_map(|(ms, event)| Line { at_us: BEGAN_US + ms * 1000, event }.encode());
    fs::write(directory.join(EPOCH.session_file()), lines.collect::<Vec<_>>()).unwrap();
}

fn frames(directory: &Path, source: &str, codec: &[&str]) -> Vec<Frame> {
    let path = directory.join("input.webm");
    let made = Command::new("ffmpeg")
        .args(["-nostdin", "-loglevel", "error", "-y", "-f", "lavfi", "-i", source])
        .args(codec)
        .args(["-threads", "1", "-f", "webm"])
        .arg(&path)
        .status()
        .expect("ffmpeg is installed by .ci/install-test-tools");
    assert!(made.success(), "{source}");
    let mut file = matroska_demuxer::MatroskaFile::open(File::open(&path).unwrap()).unwrap();
    let (mut frames, mut read) = (Vec::new(), matroska_demuxer::Frame::default());
    while file.next_frame(&mut read).unwrap() {
        frames.push(Frame {
            at: Duration::from_millis(read.timestamp),
            is_key: read.is_keyframe.unwrap_or(true),
            data: std::mem::take(&mut read.data).into(),
        });
    }
    fs::remove_file(path).unwrap();
    frames
}

/// One that is not finished is what a killed recorder leaves.
fn write(path: &Path, is_sound: bool, frames: &[Frame], is_finished: bool) {
    let size = |pixels| NonZeroU32::new(pixels).unwrap();
    let track = if is_sound {
        TrackInfo::Opus { channels: 1 }
    } else {
        let codec_private = bytes::Bytes::new();
        TrackInfo::Video { codec: VideoCodec::Vp8, width: size(320), height: size(180), codec_private }
    };
    let (mut writer, header) = Writer::new(&track);
    let mut bytes = header.to_vec();
    for frame in frames {
        bytes.extend(writer.push(frame).into_iter().flatten());
    }
    if !is_finished {
        bytes.extend(writer.flush().into_iter().flatten());
        let part = format!("{}.part", path.file_name().unwrap().to_str().unwrap());
        fs::write(path.with_file_name(part), bytes).unwrap();
        return;
    }
    let finish = writer.finish().unwrap();
    bytes.extend(finish.tail);
    for patch in finish.patches {
        let at = patch.at as usize;
        bytes[at..at + patch.bytes.len()].copy_from_slice(&patch.bytes);
    }
    fs::write(path, bytes).unwrap();
}

fn probe(path: &Path, entries: &str) -> Vec<String> {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-show_entries", entries, "-of", "default=nw=1:nk=1"]).arg(path);
    let told = command.output().unwrap();
    String::from_utf8(told.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn decoded(path: &Path, before: &[&str], after: &[&str]) -> Vec<u8> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "error"]).args(before).arg("-i").arg(file_url(path)).args(after).arg("-");
    let out = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(out.status.success());
    out.stdout
}

fn file_url(path: &Path) -> PathBuf {
    format!("file:{}", path.display()).into()
}

/// Every frame, small.
fn look(path: &Path) -> Vec<Vec<u8>> {
    let scale = format!("scale={}:{}:flags=neighbor", SEEN.0, SEEN.1);
    let all = decoded(path, &[], &["-vf", &scale, "-vsync", "passthrough", "-pix_fmt", "rgb24", "-f", "rawvideo"]);
    all.chunks_exact(SEEN.0 * SEEN.1 * 3).map(<[u8]>::to_vec).collect()
}

fn has_white(path: &Path, ms: u64, (x, y, width, height): (u32, u32, u32, u32)) -> bool {
    let at = format!("{}.{:03}", ms / 1000, ms % 1000);
    let crop = format!("crop={width}:{height}:{x}:{y}");
    let after = ["-frames:v", "1", "-vf", &crop, "-pix_fmt", "rgb24", "-f", "rawvideo"];
    decoded(path, &["-ss", &at], &after).chunks_exact(3).any(|pixel| pixel.iter().all(|part| *part > 180))
}

fn color(pixel: &[u8]) -> &'static str {
    let is_high = |part: u8| part > 170;
    let is_low = |part: u8| part < 80;
    match pixel {
        [r, g, b] if is_high(*r) && is_high(*g) && is_high(*b) => "white",
        [r, g, b] if is_high(*r) && is_low(*g) && is_low(*b) => "red",
        [r, g, b] if is_low(*r) && is_high(*g) && is_low(*b) => "green",
        [r, g, b] if is_low(*r) && is_low(*g) && is_high(*b) => "blue",
        [r, g, b] if is_low(*r) && is_low(*g) && is_low(*b) => "dark",
        _ => "else",
    }
}

/// 48 kHz, one channel.
fn listen(path: &Path) -> Vec<f32> {
    let bytes = decoded(path, &[], &["-ac", "1", "-ar", "48000", "-f", "f32le"]);
    bytes.chunks_exact(4).map(|sample| f32::from_le_bytes(sample.try_into().unwrap())).collect()
}

/// Amplitude of a tone in the 10 ms around a moment.
fn level(sound: &[f32], ms: u64, hertz: f32) -> f32 {
    let from = (ms * 48 - 240) as usize;
    let Some(window) = sound.get(from..from + 480) else { return 0.0 };
    let (mut re, mut im) = (0.0, 0.0);
    for (index, sample) in window.iter().enumerate() {
        let angle = std::f32::consts::TAU * hertz * index as f32 / 48_000.0;
        re += sample * angle.cos();
        im += sample * angle.sin();
    }
    (re * re + im * im).sqrt() * 2.0 / 480.0
}
