use std::{io::Cursor, time::Duration};

use matroska_demuxer::{MatroskaFile, TrackType};
use proptest::prelude::*;

use super::*;

pub(crate) fn video(codec: VideoCodec) -> TrackInfo {
    let codec_private = match codec {
        VideoCodec::Vp8 | VideoCodec::Vp9 => Bytes::new(),
        VideoCodec::Av1 => Bytes::from_static(&[0x81, 8, 12, 0]),
        VideoCodec::H264 => Bytes::from_static(&[1, 0x42, 0xC0, 0x1F, 0xFF, 0xE0, 0]),
    };
    let size = |pixels| NonZeroU32::new(pixels).unwrap();
    TrackInfo::Video { codec, width: size(1280), height: size(720), codec_private }
}

pub(crate) fn frame(at_ms: u64, is_key: bool, data: &[u8]) -> Frame {
    Frame { at: Duration::from_millis(at_ms), is_key, data: Bytes::copy_from_slice(data) }
}

/// The header and the clusters as they were given out, and what finishes the file.
pub(crate) fn write(track: &TrackInfo, frames: &[Frame]) -> (Vec<Bytes>, Option<Finish>) {
    let (mut writer, header) = Writer::new(track);
    let mut chunks = vec![header];
    chunks.extend(frames.iter().filter_map(|frame| writer.push(frame)));
    chunks.extend(writer.flush());
    (chunks, writer.finish())
}

pub(crate) fn finished(chunks: &[Bytes], finish: &Finish) -> Vec<u8> {
    let mut file = chunks.concat();
    file.extend_from_slice(&finish.tail);
    for Patch { at, bytes } in &finish.patches {
        let at = usize::try_from(*at).unwrap();
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }
    file
}

pub(crate) fn open(file: &[u8]) -> MatroskaFile<Cursor<&[u8]>> {
    MatroskaFile::open(Cursor::new(file)).unwrap()
}

pub(crate) fn read_back(file: &[u8]) -> Vec<Frame> {
    let mut file = open(file);
    let mut frames = Vec::new();
    let mut next = matroska_demuxer::Frame::default();
    while file.next_frame(&mut next).unwrap() {
        frames.push(frame(next.timestamp, next.is_keyframe.unwrap(), &next.data));
    }
    frames
}

/// As a file holds them.
fn to_milliseconds(frames: &[Frame]) -> Vec<Frame> {
    frames.iter().map(|one| frame(milliseconds(one), one.is_key, &one.data)).collect()
}

/// What a file of sound begins with, byte for byte: a change here is a change of what players and repair of other versions
/// meet.
#[test]
fn a_file_of_sound_is_these_bytes() {
    let (chunks, finish) = write(&TrackInfo::Opus { channels: 2 }, &[frame(0, true, b"one"), frame(20, true, b"two")]);
    let (before, rest) = chunks[0].split_at(52);
    let (space, after) = rest.split_at(3482);
    assert_eq!(
        before.escape_ascii().to_string(),
        b"\x1A\x45\xDF\xA3\x9F\x42\x86\x81\x01\x42\xF7\x81\x01\x42\xF2\x81\x04\x42\xF3\x81\x08\
          \x42\x82\x84webm\x42\x87\x81\x04\x42\x85\x81\x02\
          \x18\x53\x80\x67\x01\xFF\xFF\xFF\xFF\xFF\xFF\xFF\
          \xEC\x4D\x9B\x74"
            .escape_ascii()
            .to_string()
    );
    assert!(space.iter().all(|byte| *byte == 0));
    assert_eq!(
        after.escape_ascii().to_string(),
        b"\x15\x49\xA9\x66\xA6\x2A\xD7\xB1\x83\x0F\x42\x40\x4D\x80\x87Plenary\x57\x41\x87Plenary\
          \xEC\x89\x88\0\0\0\0\0\0\0\0\
          \x16\x54\xAE\x6B\xD0\xAE\xCE\xD7\x81\x01\x73\xC5\x81\x01\x9C\x81\x00\x22\xB5\x9C\x83und\
          \x83\x81\x02\x86\x86A_OPUS\x63\xA2\x93OpusHead\x01\x02\x38\x01\x80\xBB\x00\x00\x00\x00\x00\
          \x56\xAA\x83\x63\x2E\xA0\x56\xBB\x84\x04\xC4\xB4\x00\xE1\x8D\xB5\x88\x40\xE7\x70\0\0\0\0\0\x9F\x81\x02"
            .escape_ascii()
            .to_string()
    );
    assert_eq!(
        &chunks[1..],
        [b"\x1F\x43\xB6\x75\x01\0\0\0\0\0\0\x1C\xE7\x88\0\0\0\0\0\0\0\0\
           \xA3\x87\x81\0\0\x80one\xA3\x87\x81\0\x14\x80two"
            .as_slice()]
    );

    let finish = finish.unwrap();
    assert_eq!(finish.tail, b"\x1D\x53\xBB\x6B\x8E\xBB\x8C\xB3\x81\x00\xB7\x87\xF7\x81\x01\xF1\x82\x0E\x1E".as_slice());
    let expected: [(u64, &[u8]); 6] = [
        (3702, b"\x1C"),
        (
            51,
            b"\x74\xBF\x4D\xBB\x92\x53\xAB\x84\x15\x49\xA9\x66\x53\xAC\x88\0\0\0\0\0\0\x0D\x9E\
              \x4D\xBB\x92\x53\xAB\x84\x16\x54\xAE\x6B\x53\xAC\x88\0\0\0\0\0\0\x0D\xC9\
              \x4D\xBB\x92\x53\xAB\x84\x1C\x53\xBB\x6B\x53\xAC\x88\0\0\0\0\0\0\x0E\x46\
              \xEC\x4D\x57",
        ),
        (3569, b"\x40\x44\0\0\0\0\0\0"), // 40 ms
        (40, b"\x01\0\0\0\0\0\x0E\x59"),
        (48, b"\x11"),
        (3566, b"\x44"),
    ];
    assert_eq!(finish.patches.iter().map(|patch| (patch.at, &patch.bytes[..])).collect::<Vec<_>>(), expected);
}

#[test]
fn each_codec_is_declared_as_players_know_it() {
    let cases = [
        (video(VideoCodec::Vp8), "webm", "V_VP8"),
        (video(VideoCodec::Vp9), "webm", "V_VP9"),
        (video(VideoCodec::Av1), "webm", "V_AV1"),
        (video(VideoCodec::H264), "matroska", "V_MPEG4/ISO/AVC"),
    ];
    for (info, doc_type, codec_id) in cases {
        let (chunks, finish) = write(&info, &[frame(0, true, b"key")]);
        let bytes = finished(&chunks, &finish.unwrap());
        let file = open(&bytes);
        let [track] = file.tracks() else { panic!("one track") };
        let pixels = track.video().map(|video| (video.pixel_width().get(), video.pixel_height().get()));
        assert_eq!((file.ebml_header().doc_type(), track.codec_id(), pixels), (doc_type, codec_id, Some((1280, 720))));
        assert_eq!(track.track_type(), TrackType::Video);
        let TrackInfo::Video { codec_private, .. } = info else { panic!("video") };
        assert_eq!(track.codec_private().unwrap_or_default(), codec_private);
    }
}

#[test]
fn sound_is_declared_with_its_delay() {
    let (chunks, _) = write(&TrackInfo::Opus { channels: 1 }, &[frame(0, true, b"one")]);
    let bytes = chunks.concat();
    let file = open(&bytes);
    let [track] = file.tracks() else { panic!("one track") };
    assert_eq!((track.track_type(), track.codec_id()), (TrackType::Audio, "A_OPUS"));
    assert_eq!((track.codec_delay(), track.seek_pre_roll()), (Some(6_500_000), Some(80_000_000)));
    let audio = track.audio().unwrap();
    assert_eq!((audio.sampling_frequency(), audio.channels().get()), (48_000.0, 1));
}

#[test]
fn a_live_file_has_no_duration_and_a_finished_one_has() {
    let (chunks, finish) =
        write(&TrackInfo::Opus { channels: 2 }, &[frame(0, true, b"one"), frame(2000, true, b"two")]);
    assert_eq!(open(&chunks.concat()).info().duration(), None);
    assert_eq!(open(&finished(&chunks, &finish.unwrap())).info().duration(), Some(2000.0));
}

#[test]
fn nothing_recorded_finishes_nothing() {
    let (chunks, finish) = write(&TrackInfo::Opus { channels: 2 }, &[]);
    assert_eq!((chunks.len(), finish), (1, None));
}

#[test]
fn a_finished_file_is_jumped_into_at_key_frames() {
    let frames: Vec<_> = (0u64..300).map(|n| frame(n * 33, n % 90 == 0, &n.to_be_bytes())).collect();
    let (chunks, finish) = write(&video(VideoCodec::Vp8), &frames);
    let bytes = finished(&chunks, &finish.unwrap());
    let mut file = open(&bytes);
    file.seek(90 * 33 * 2).unwrap();
    let mut next = matroska_demuxer::Frame::default();
    assert!(file.next_frame(&mut next).unwrap());
    assert_eq!((next.timestamp, next.is_keyframe), (90 * 33 * 2, Some(true)));
}

#[test]
fn video_begins_clusters_with_key_frames_and_sound_each_second() {
    let times = |info: &TrackInfo, frames: &[Frame]| -> Vec<u64> {
        let (chunks, _) = write(info, frames);
        chunks[1..].iter().map(|cluster| u64::from_be_bytes(*cluster[14..].first_chunk().unwrap())).collect()
    };
    let pictures: Vec<_> = (0u64..100).map(|n| frame(n * 33, n % 40 == 0, b"picture")).collect();
    assert_eq!(times(&video(VideoCodec::Vp8), &pictures), [0, 31 * 33, 40 * 33, 71 * 33, 80 * 33]);
    let sound: Vec<_> = (0u64..100).map(|n| frame(n * 20, true, b"sound")).collect();
    assert_eq!(times(&TrackInfo::Opus { channels: 1 }, &sound), [0, 1000]);
}

#[test]
fn a_stream_of_key_frames_is_not_a_write_for_each() {
    let frames: Vec<_> = (0u64..1000).map(|n| frame(n * 10, true, b"key")).collect();
    let (chunks, _) = write(&video(VideoCodec::Vp8), &frames);
    assert_eq!(chunks.len() - 1, 50);
}

#[test]
fn a_large_frame_is_a_cluster_of_its_own() {
    let large = vec![7; CLUSTER_BYTES_MAX + 1];
    let frames = [frame(0, true, b"a"), frame(10, false, &large), frame(20, false, b"b")];
    let (chunks, finish) = write(&video(VideoCodec::Vp8), &frames);
    assert_eq!(chunks.len() - 1, 3);
    assert_eq!(read_back(&finished(&chunks, &finish.unwrap())), frames);
}

#[test]
fn what_is_held_back_in_a_pause_can_be_had() {
    let (mut writer, header) = Writer::new(&TrackInfo::Opus { channels: 1 });
    assert_eq!(writer.push(&frame(0, true, b"last words")), None);
    let cluster = writer.flush().unwrap();
    assert_eq!(read_back(&[header, cluster].concat()), [frame(0, true, b"last words")]);
    assert_eq!(writer.flush(), None);
}

pub(crate) fn tracks() -> impl Strategy<Value = TrackInfo> {
    prop_oneof![
        (1u8..3).prop_map(|channels| TrackInfo::Opus { channels }),
        prop_oneof![Just(VideoCodec::Vp8), Just(VideoCodec::Vp9), Just(VideoCodec::Av1), Just(VideoCodec::H264)]
            .prop_map(video),
    ]
}

/// Frames that mostly follow each other, with pauses, steps back and frames that fill a cluster.
pub(crate) fn frames(count: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<Frame>> {
    let step_us = prop_oneof![20 => 0i64..40_000, 2 => -50_000i64..0, 1 => 0i64..90_000_000, 1 => -3_000_000i64..0];
    let bytes = prop_oneof![20 => 1usize..300, 1 => CLUSTER_BYTES_MAX - 100..CLUSTER_BYTES_MAX + 100];
    let one = (step_us, prop::bool::weighted(0.1), bytes, any::<u8>());
    proptest::collection::vec(one, count).prop_map(|steps| {
        let mut at_us = 0u64;
        let next = |(step_us, is_key, bytes, byte)| {
            at_us = at_us.saturating_add_signed(step_us);
            Frame { at: Duration::from_micros(at_us), is_key, data: vec![byte; bytes].into() }
        };
        steps.into_iter().map(next).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn another_reader_finds_the_same_frames(track in tracks(), frames in frames(1..200)) {
        let (chunks, finish) = write(&track, &frames);
        let expected = to_milliseconds(&frames);
        prop_assert_eq!(read_back(&chunks.concat()), expected.clone());
        prop_assert_eq!(read_back(&finished(&chunks, &finish.unwrap())), expected);
    }

    #[test]
    fn clusters_keep_their_limits(track in tracks(), frames in frames(1..200)) {
        for cluster in &write(&track, &frames).0[1..] {
            let one = [&write(&track, &[]).0[0][..], cluster].concat();
            let inside = read_back(&one);
            let first = inside[0].at;
            prop_assert!(inside.iter().all(|one| one.at.abs_diff(first) < Duration::from_millis(CLUSTER_MS_MAX)));
            prop_assert!(inside.len() == 1 || cluster.len() <= CLUSTER_BYTES_MAX + 16);
        }
    }
}
