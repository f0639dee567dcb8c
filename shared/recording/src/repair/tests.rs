use std::io::Cursor;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    Frame, TrackInfo, VideoCodec, Writer,
    matroska::tests::{finished, frame, frames, open, read_back, tracks, video, write},
};

/// A file in memory whose process dies once this many bytes were written; cutting costs one.
struct Mortal {
    file: Cursor<Vec<u8>>,
    left: usize,
}

impl Mortal {
    fn spend(&mut self, wanted: usize) -> io::Result<usize> {
        let spent = wanted.min(self.left);
        self.left -= spent;
        if spent == 0 && wanted > 0 { Err(io::Error::other("killed")) } else { Ok(spent) }
    }
}

impl Read for Mortal {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.file.read(into)
    }
}

impl Seek for Mortal {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Write for Mortal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.spend(bytes.len())?;
        self.file.write_all(&bytes[..written])?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Storage for Mortal {
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.spend(1)?;
        self.file.get_mut().truncate(usize::try_from(length).unwrap());
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const IMMORTAL: usize = usize::MAX;

fn repaired(file: &[u8], life: usize) -> (Vec<u8>, Result<Repaired, RepairError>) {
    let mut file = Mortal { file: Cursor::new(file.to_vec()), left: life };
    let result = repair(&mut file);
    (file.file.into_inner(), result)
}

/// Five clusters of video, the last with a step back in time.
fn five_clusters() -> (Vec<Bytes>, crate::Finish, Vec<Frame>) {
    let mut frames: Vec<_> = (0u64..14).map(|n| frame(n * 100, n % 3 == 0, &n.to_be_bytes())).collect();
    frames.push(frame(1290, false, b"late"));
    let (chunks, finish) = write(&video(VideoCodec::Vp8), &frames);
    assert_eq!(chunks.len(), 6);
    (chunks, finish.unwrap(), frames)
}

/// What a repair of that many clusters ends in.
fn of_clusters(chunks: &[Bytes], clusters: usize) -> Vec<u8> {
    let (mut writer, header) = Writer::new(&video(VideoCodec::Vp8));
    let whole = read_back(&chunks[..=clusters].concat());
    let rewritten: Vec<_> = [header].into_iter().chain(whole.iter().filter_map(|frame| writer.push(frame))).collect();
    finished(&rewritten, &writer.finish().unwrap())
}

/// Where each chunk ends.
fn ends(chunks: &[Bytes]) -> Vec<usize> {
    chunks
        .iter()
        .scan(0, |end, chunk| {
            *end += chunk.len();
            Some(*end)
        })
        .collect()
}

#[test]
fn cut_at_every_byte_a_file_keeps_its_whole_clusters() {
    let (chunks, finish, _) = five_clusters();
    let ends = ends(&chunks);
    let expected: Vec<_> = (1..=5).map(|clusters| of_clusters(&chunks, clusters)).collect();
    for (clusters, file) in (1..).zip(&expected) {
        assert_eq!(read_back(file), read_back(&chunks[..=clusters].concat()));
    }
    // What is cut is once a live file, once a finished one.
    for file in [chunks.concat(), finished(&chunks, &finish)] {
        for cut in 0..=file.len() {
            let (repaired, result) = repaired(&file[..cut], IMMORTAL);
            let whole = ends[1..].iter().filter(|end| **end <= cut).count();
            if whole == 0 {
                assert!(matches!(result, Err(RepairError::Headless | RepairError::Empty)), "at {cut}: {result:?}");
                assert_eq!(repaired, file[..cut], "left as it was");
            } else {
                assert!(result.is_ok(), "at {cut}: {result:?}");
                assert_eq!(repaired, expected[whole - 1], "at {cut}");
            }
        }
    }
}

#[test]
fn a_repair_killed_at_any_byte_is_done_by_the_next() {
    let (chunks, finish, _) = five_clusters();
    let ends = ends(&chunks);
    let mut kills = 0;
    for (file, is_live) in [(chunks.concat(), true), (finished(&chunks, &finish), false)] {
        for cut in [ends[1], ends[3], ends[3] + 1, ends[4] - 1, ends[5], file.len() - 1] {
            let whole = ends[1..].iter().filter(|end| **end <= cut).count();
            let expected = of_clusters(&chunks, whole);
            for life in 0.. {
                let (killed, result) = repaired(&file[..cut], life);
                let again = repaired(&killed, IMMORTAL).0;
                assert_eq!(again, expected, "cut at {cut}, killed after {life} bytes");
                // A finished file that lost its end points to what is not there, until it was made a live one (10 bytes)
                // and cut.
                if is_live || life > 11 {
                    let frames = frames_until_torn(&killed);
                    assert!(frames.starts_with(&read_back(&expected)), "cut at {cut}, killed after {life} bytes");
                }
                match result {
                    Ok(_) => break,
                    Err(RepairError::Io(_)) => kills += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    assert!(kills > 1000, "{kills}");
}

/// As a player that does not care how a file ends.
fn frames_until_torn(file: &[u8]) -> Vec<Frame> {
    let mut file = matroska_demuxer::MatroskaFile::open(Cursor::new(file)).unwrap();
    let mut frames = Vec::new();
    let mut next = matroska_demuxer::Frame::default();
    while let Ok(true) = file.next_frame(&mut next) {
        frames.push(frame(next.timestamp, next.is_keyframe.unwrap(), &next.data));
    }
    frames
}

#[test]
fn finishing_killed_at_any_byte_is_done_by_a_repair() {
    let (chunks, finish, frames) = five_clusters();
    let expected = finished(&chunks, &finish);
    let steps: usize = finish.tail.len() + finish.patches.iter().map(|patch| patch.bytes.len()).sum::<usize>();
    for life in 0..=steps {
        let mut file = Mortal { file: Cursor::new(chunks.concat()), left: life };
        let _ = file.seek(SeekFrom::End(0)).and_then(|_| file.write_all(&finish.tail));
        let _ = write_patches(&mut file, &finish.patches);
        let killed = file.file.into_inner();
        assert_eq!(frames_until_torn(&killed), frames, "killed after {life} bytes");
        assert_eq!(repaired(&killed, IMMORTAL).0, expected, "killed after {life} bytes");
    }
}

#[test]
fn a_finished_file_is_left_alone() {
    let (chunks, finish, frames) = five_clusters();
    let file = finished(&chunks, &finish);
    let (same, result) = repaired(&file, 0);
    let expected = Repaired {
        duration: Duration::from_millis(1400),
        frames: frames.len() as u64,
        cut_bytes: 0,
        is_changed: false,
    };
    assert_eq!((same, result.unwrap()), (file, expected));
}

#[test]
fn a_damaged_cluster_costs_itself_only() {
    let (chunks, ..) = five_clusters();
    let ends = ends(&chunks);
    // Pages that a machine lost power before writing are zero.
    let mut middle = chunks.concat();
    middle[ends[2] + 22..ends[3]].fill(0);
    let (file, result) = repaired(&middle, IMMORTAL);
    assert_eq!(result.unwrap().frames, 15 - 3);
    assert_eq!(file[..ends[5]][ends[3]..], middle[ends[3]..]);
    assert_eq!(open(&file).info().duration(), Some(1400.0));

    let mut last = chunks.concat();
    last[ends[4] + 30..].fill(0);
    assert_eq!(repaired(&last, IMMORTAL).0, of_clusters(&chunks, 4));
}

#[test]
fn hours_behind_a_damaged_byte_are_not_cut_off() {
    let (chunks, ..) = five_clusters();
    let mut file = chunks.concat();
    let at = file.len() as u64;
    file.resize(file.len() + usize::try_from(TORN_BYTES_MAX).unwrap() + 1, 0);
    let mut file = Mortal { file: Cursor::new(file), left: 0 };
    assert!(matches!(repair(&mut file), Err(RepairError::DamagedInside { at: found }) if found == at));
}

#[test]
fn what_is_not_a_recording_is_not_touched() {
    for bytes in [&b""[..], b"\x1A\x45\xDF\xA3", b"not at all", &[0xFF; 9000]] {
        let (same, result) = repaired(bytes, 0);
        assert!(matches!(result, Err(RepairError::Headless)), "{result:?}");
        assert_eq!(same, bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_recording_cut_anywhere_keeps_its_whole_clusters(
        track in tracks(), frames in frames(1..120), cut: prop::sample::Index, life in 0usize..400,
    ) {
        let (chunks, _) = write(&track, &frames);
        let (file, ends) = (chunks.concat(), ends(&chunks));
        let cut = cut.index(file.len() + 1);
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let once = repaired(&file[..cut], IMMORTAL);
        if whole < 2 {
            prop_assert!(once.1.is_err());
            return Ok(());
        }
        prop_assert_eq!(read_back(&once.0), read_back(&chunks[..whole].concat()));
        prop_assert_eq!(&repaired(&once.0, 0).0, &once.0);
        prop_assert_eq!(repaired(&repaired(&file[..cut], life).0, IMMORTAL).0, once.0);
    }

    #[test]
    fn damage_of_any_kind_ends_in_a_result(
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut: prop::sample::Index,
    ) {
        let (chunks, finish, _) = five_clusters();
        let mut file = finished(&chunks, &finish);
        let ends = ends(&chunks);
        for (at, byte) in hits {
            // The Void is three quarters of this file, and nothing in it matters.
            let at = at.index(file.len() - 3400);
            file[if at > 100 { at + 3400 } else { at }] = byte;
        }
        file.truncate(ends[0] + cut.index(file.len() - ends[0]));
        let (once, result) = repaired(&file, IMMORTAL);
        if result.is_ok() {
            prop_assert_eq!(&repaired(&once, 0).0, &once);
        } else {
            prop_assert_eq!(once, file);
        }
    }
}

#[test]
fn the_scan_reads_little_of_a_long_recording() {
    struct Counting {
        file: Cursor<Vec<u8>>,
        read: usize,
    }
    impl Read for Counting {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let bytes = self.file.read(into)?;
            self.read += bytes;
            Ok(bytes)
        }
    }
    impl Seek for Counting {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.file.seek(to)
        }
    }
    impl Write for Counting {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.file.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    impl Storage for Counting {
        fn truncate(&mut self, length: u64) -> io::Result<()> {
            self.file.get_mut().truncate(usize::try_from(length).unwrap());
            Ok(())
        }

        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let picture = vec![7; 40_000];
    let frames: Vec<_> = (0..600).map(|n| frame(n * 33, n % 100 == 0, &picture)).collect();
    let (chunks, _) = write(&video(VideoCodec::Vp8), &frames);
    let mut file = Counting { file: Cursor::new(chunks.concat()), read: 0 };
    let bytes = file.file.get_ref().len();
    assert_eq!(repair(&mut file).unwrap().frames, 600);
    assert!(file.read < bytes / 5, "{} of {bytes}", file.read);
}

#[test]
fn sound_is_repaired_as_pictures_are() {
    let frames: Vec<_> = (0..120).map(|n| frame(n * 20, true, b"sound")).collect();
    let (chunks, finish) = write(&TrackInfo::Opus { channels: 2 }, &frames);
    let mut file = chunks.concat();
    file.extend_from_slice(&chunks[1][..40]);
    let (repaired, result) = repaired(&file, IMMORTAL);
    assert_eq!(repaired, finished(&chunks, &finish.unwrap()));
    assert_eq!(result.unwrap().cut_bytes, 40);
}
