//! Whatever browsers send, and files in which there is nothing to see.

use std::{num::NonZeroU16, sync::atomic::AtomicBool};

use bytes::{BufMut, Bytes, BytesMut};
use plenary_composer::{Content, Format, Settings, compose};
use plenary_model::Source;
use plenary_recording::{
    Frame, TrackInfo, VideoCodec,
    session_file::{Epoch, Event, StopReason},
};

use crate::tools::*;

const EPOCH: Epoch = Epoch { number: 1, boot: 1 };
const FPS: u32 = 25;
const LENGTH_MS: u64 = 2_000;
const SIGNAL_MS: u64 = 1_200;

fn flashing(codec: VideoCodec, key_every: u32, color: &str) -> Media {
    let from = SIGNAL_MS as f64 / 1000.0 - 0.001;
    let white = format!("drawbox=color=white:t=fill:enable='between(t,{from},{})'", from + 0.2);
    picture(codec, key_every, &format!("color={color}:s=160x90:r=25:d=2,{white}"))
}

/// Two spatial layers in each frame, of which both say that they are to be shown (VP9 bitstream, annex B). ffmpeg makes no
/// layers that predict from each other; here every frame is a key frame of its layer.
fn svc(mut lower: Media, upper: Media) -> Media {
    for (below, above) in lower.frames.iter_mut().zip(&upper.frames) {
        let mut data = BytesMut::new();
        data.put_slice(&below.data);
        data.put_slice(&above.data);
        // The index: two frames, four bytes for the size of each.
        data.put_u8(0b1101_1001);
        data.put_u32_le(below.data.len() as u32);
        data.put_u32_le(above.data.len() as u32);
        data.put_u8(0b1101_1001);
        below.data = data.freeze();
    }
    Media { info: upper.info, frames: lower.frames }
}

#[test]
fn every_codec_is_seen_and_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::new(directory.path(), EPOCH, 0, None);
    let lower = picture(VideoCodec::Vp9, 1, "color=red:s=80x44:r=25:d=2");
    let people = [
        ("vp8", flashing(VideoCodec::Vp8, 40, "red"), "red"),
        ("vp9", flashing(VideoCodec::Vp9, 40, "lime"), "lime"),
        ("h264", flashing(VideoCodec::H264, 40, "blue"), "blue"),
        ("av1", flashing(VideoCodec::Av1, 40, "yellow"), "yellow"),
        ("svc", svc(lower, flashing(VideoCodec::Vp9, 1, "magenta")), "magenta"),
    ];
    for (who, media, _) in &people {
        recorder.joined(0, who, who);
        recorder.track(0, &format!("TR_V{who}"), who, Source::Camera, media, true);
    }
    let beep = format!("aevalsrc='0.5*sin(2*PI*1000*t)*between(t,{0},{0}+0.2)':s=48000:d=2", SIGNAL_MS as f64 / 1000.0);
    recorder.track(0, "TR_Abeep", "vp8", Source::Microphone, &sound(&beep), true);
    recorder.tell(LENGTH_MS, Event::Stopped { reason: StopReason::Requested });
    recorder.end();

    for (format, codec) in [(Format::Ogg, "opus"), (Format::Mp3, "mp3")] {
        let output = directory.path().join(format!("all.{}", format.extension()));
        let rate = Some(24_000);
        let settings = Settings { format, content: Content::Audio, audio_bits_per_second: rate, ..settings(FPS) };
        compose(directory.path(), &output, &settings, &AtomicBool::new(false), &mut |_| {}).unwrap();
        assert_eq!(probe(&output, "stream=codec_name"), [codec]);
        // Four times as much if nobody asks.
        let rate: u32 = probe(&output, "format=bit_rate")[0].parse().unwrap();
        assert!(rate < 48_000, "{rate} b/s");
        let beep = Heard::of(&output).beep(500..1_900).unwrap();
        assert!(beep.abs_diff(SIGNAL_MS) <= 40, "{codec}: {beep} ms");
    }
    for (format, streams) in [(Format::Mp4, ["h264", "aac"]), (Format::WebM, ["vp9", "opus"])] {
        let output = directory.path().join(format!("all.{}", format.extension()));
        let settings = Settings { format, ..settings(FPS) };
        let composed = compose(directory.path(), &output, &settings, &AtomicBool::new(false), &mut |_| {}).unwrap();
        assert_eq!((composed.missing, composed.duration_us), (Vec::new(), LENGTH_MS * 1000));
        assert_eq!(probe(&output, "stream=codec_name"), streams);
        let (seen, heard) = (Seen::of(&output, FPS), Heard::of(&output));
        assert_eq!(seen.frames.len() as u64, LENGTH_MS * u64::from(FPS) / 1000);
        let beep = heard.beep(500..1_900).unwrap();
        // Three above, two below in the middle.
        let places = [(52, 45), (158, 45), (264, 45), (106, 135), (212, 135)];
        for ((who, _, color), place) in people.iter().zip(places) {
            for ms in [0, 520, 1_160, 1_960] {
                assert_eq!(seen.color(ms, place), *color, "{who} at {ms} ms in {streams:?}");
            }
            let flash = seen.flash(500..1_900, place).unwrap();
            println!("{who} in {}: flash at {flash} ms, beep at {beep} ms", streams[0]);
            assert!(flash.abs_diff(beep) <= 40 && flash.abs_diff(SIGNAL_MS) <= 40, "{who}: {flash} ms and {beep} ms");
        }
    }
}

#[test]
fn what_cannot_be_decoded_is_a_name_and_spoils_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::new(directory.path(), EPOCH, 0, None);
    let red = |seconds: u32| picture(VideoCodec::Vp8, 40, &format!("color=red:s=160x90:r=25:d={seconds}"));
    recorder.joined(0, "whole", "whole");
    recorder.track(0, "TR_Vwhole", "whole", Source::Camera, &red(3), true);
    // From its second key frame on there is nothing but noise.
    let noise = Bytes::from_static(&[0xF1; 300]);
    let mut torn = red(3);
    torn.frames.iter_mut().skip(40).for_each(|frame| frame.data = noise.clone());
    recorder.joined(0, "torn", "torn");
    recorder.track(0, "TR_Vtorn", "torn", Source::Camera, &torn, true);
    let rubbish = [VideoCodec::Vp8, VideoCodec::Vp9].map(|codec| {
        let mut media = picture(codec, 40, "color=red:s=160x90:r=25:d=3");
        media.frames.iter_mut().for_each(|frame| frame.data = noise.clone());
        let who = format!("{codec:?}");
        recorder.joined(0, &who, &who);
        recorder.track(0, &format!("TR_V{who}"), &who, Source::Camera, &media, true)
    });
    let mut hiss = sound("sine=frequency=440:sample_rate=48000:duration=3");
    hiss.frames.iter_mut().skip(20).for_each(|frame| frame.data = noise.clone());
    recorder.track(0, "TR_Ahiss", "torn", Source::Microphone, &hiss, true);
    // Which cuts the picture after that key frame.
    recorder.joined(2_000, "late", "late");
    recorder.tell(3_000, Event::Stopped { reason: StopReason::Requested });
    recorder.end();

    let output = directory.path().join("composed.mp4");
    let composed = compose(directory.path(), &output, &settings(10), &AtomicBool::new(false), &mut |_| {}).unwrap();
    // ffmpeg knows without a picture what one of VP8 would be like, and not one of VP9.
    assert_eq!(composed.missing, rubbish[1..]);
    let seen = Seen::of(&output, 10);
    assert_eq!(seen.frames.len(), 30);
    for (ms, place, color) in [
        (500, (80, 20), "red"),
        (500, (240, 20), "red"),
        (500, (80, 170), "dark"),
        (500, (240, 170), "dark"),
        (2_500, (52, 20), "red"),
        (2_500, (158, 20), "dark"),
        (2_500, (264, 20), "dark"),
        (2_500, (106, 170), "dark"),
        (2_500, (212, 170), "dark"),
        (2_900, (52, 20), "red"),
    ] {
        assert_eq!(seen.color(ms, place), color, "at {ms} ms, {place:?}");
    }
    assert!(has_white(&output, 2_500, (106, 0, 106, 90)), "the torn one has a name");
    assert!(Heard::of(&output).level(200, 440.0) > 0.02);
}

#[test]
fn a_picture_that_is_too_large_is_a_name() {
    const SIDE: NonZeroU16 = NonZeroU16::new(15_872).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::new(directory.path(), EPOCH, 0, None);
    // Red in so many pixels, as a key frame says (RFC 6386 9.1); the rest of it is as long as a decoder asks for.
    let grow = |frame: &mut Frame| {
        let side = SIDE.get().to_le_bytes();
        let tail = [0; 6_000];
        frame.data = [&frame.data[..6], &side, &side, &frame.data[10..], &tail].concat().into();
    };
    let red = || picture(VideoCodec::Vp8, 1, "color=red:s=160x90:r=5:d=3");
    let (mut large, mut grown) = (red(), red());
    large.frames.iter_mut().for_each(grow);
    if let TrackInfo::Video { width, height, .. } = &mut large.info {
        (*width, *height) = (SIDE.into(), SIDE.into());
    }
    grown.frames.iter_mut().skip(5).for_each(grow);
    let files = [("large", large), ("grown", grown)].map(|(who, media)| {
        recorder.joined(0, who, who);
        recorder.track(0, &format!("TR_V{who}"), who, Source::Camera, &media, true)
    });
    // Which cuts the picture.
    recorder.joined(2_000, "late", "late");
    recorder.tell(3_000, Event::Stopped { reason: StopReason::Requested });
    recorder.end();

    let output = directory.path().join("composed.mp4");
    let composed = compose(directory.path(), &output, &settings(5), &AtomicBool::new(false), &mut |_| {}).unwrap();
    assert_eq!(composed.missing, files[..1]);
    let seen = Seen::of(&output, 5);
    for (ms, place, color) in [
        (400, (80, 60), "dark"),
        (400, (240, 60), "red"),
        // Its last picture stays.
        (1_600, (240, 60), "red"),
        (2_600, (80, 20), "dark"),
        (2_600, (240, 20), "dark"),
    ] {
        assert_eq!(seen.color(ms, place), color, "at {ms} ms, {place:?}");
    }
    assert!(has_white(&output, 2_600, (160, 0, 160, 90)), "the one that grew has a name");
}
