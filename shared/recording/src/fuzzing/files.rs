//! What is read from the disk: the files of a recording under repair, and what its session files say.

use std::{
    io::{self, Cursor, Read, Seek, SeekFrom, Write},
    num::NonZeroU32,
};

use bytes::Bytes;

use crate::{
    RepairError, Repaired, Storage, TrackInfo, VideoCodec, Writer,
    matroska::{head, id, unsigned},
    session_file::{Epoch, Event, Line, SessionFile, merge},
};

/// Any bytes as the file of a track. The first one says what stands before the others: nothing, or what files of sound or of
/// pictures begin with, of which most is space that means nothing.
pub(super) fn repair(input: &[u8]) {
    let Some((&opening, rest)) = input.split_first() else { return };
    let (codec, pixels, codec_private) = (VideoCodec::Vp8, NonZeroU32::MIN, Bytes::new());
    let opening = match opening % 3 {
        0 => Bytes::new(),
        1 => Writer::new(&TrackInfo::Opus { channels: 2 }).1,
        _ => Writer::new(&TrackInfo::Video { codec, width: pixels, height: pixels, codec_private }).1,
    };
    let before = [&opening[..], rest].concat();
    match repaired(&before) {
        (after, Err(_)) => assert_eq!(after, before, "left as it was"),
        (after, Ok(once)) => {
            assert!(once.is_changed || after == before);
            check_finished(&after);
            let (same, again) = repaired(&after);
            assert_eq!(same, after, "repaired once more");
            assert_eq!(again.unwrap(), Repaired { cut_bytes: 0, is_changed: false, ..once });
        }
    }
}

fn repaired(bytes: &[u8]) -> (Vec<u8>, Result<Repaired, RepairError>) {
    let mut file = InMemory { file: Cursor::new(bytes.to_vec()), bytes_read: 0 };
    let result = crate::repair(&mut file);
    // The opening and the index once each, the clusters through a window that goes forward.
    assert!(file.bytes_read <= 4 * bytes.len() + (16 << 10), "{} bytes of {} are read", file.bytes_read, bytes.len());
    (file.file.into_inner(), result)
}

/// As readers go through it: elements that fill the segment, and places in it where there is what is said to be there.
fn check_finished(file: &[u8]) {
    let [(_, ebml), (id::SEGMENT, segment)] = elements(file)[..] else { panic!("a header and a segment") };
    let inside = elements(segment);
    let [(id::SEEK_HEAD, seek_head), (id::VOID, _), (id::INFO, _), (id::TRACKS, _), clusters @ .., (id::CUES, cues)] =
        &inside[..]
    else {
        panic!("after a header of {} bytes: {:x?}", ebml.len(), inside.iter().map(|(id, _)| id).collect::<Vec<_>>());
    };
    assert!(clusters.iter().all(|(id, _)| *id == id::CLUSTER));
    let at = |position: &[u8]| {
        let from = usize::try_from(unsigned(position)).unwrap();
        head(&segment[from..]).expect("an element").id
    };
    for (_, seek) in elements(seek_head) {
        let [(id::SEEK_ID, what), (id::SEEK_POSITION, position)] = elements(seek)[..] else { panic!("{seek:x?}") };
        assert_eq!(u64::from(at(position)), unsigned(what));
    }
    for (_, point) in elements(cues) {
        let [(id::CUE_TIME, _), (id::CUE_TRACK_POSITIONS, track)] = elements(point)[..] else { panic!("{point:x?}") };
        let [_, (id::CUE_CLUSTER_POSITION, position)] = elements(track)[..] else { panic!("{track:x?}") };
        assert_eq!(at(position), id::CLUSTER);
    }
}

/// With nothing between them and nothing behind.
fn elements(mut bytes: &[u8]) -> Vec<(u32, &[u8])> {
    let mut elements = Vec::new();
    while !bytes.is_empty() {
        let head = head(bytes).expect("an element");
        let (element, behind) = bytes[head.bytes..].split_at_checked(head.size as usize).expect("the whole element");
        elements.push((head.id, element));
        bytes = behind;
    }
    elements
}

struct InMemory {
    file: Cursor<Vec<u8>>,
    bytes_read: usize,
}

impl Read for InMemory {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read(into)?;
        self.bytes_read += bytes;
        Ok(bytes)
    }
}

impl Write for InMemory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for InMemory {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Storage for InMemory {
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.get_mut().truncate(usize::try_from(length).unwrap());
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Any bytes as the session files of one recording: epochs 1, 2 and so on of boot 1, with a zero byte between two.
pub(super) fn session_files(input: &[u8]) {
    let mut files = Vec::new();
    for (number, bytes) in (1..).zip(input.split(|byte| *byte == 0)) {
        let epoch = Epoch { number, boot: 1 };
        let Ok(file) = SessionFile::read(epoch, bytes) else { continue };
        let ends = bytes.iter().filter(|byte| **byte == b'\n').count();
        assert!(file.lines.len() + file.lines_unread <= ends, "a line for each end but the first");
        let first = Line { at_us: file.at_us, event: Event::Started(file.started.clone()) };
        let written: Vec<u8> = [&first].into_iter().chain(&file.lines).flat_map(Line::encode).collect();
        let read = SessionFile::read(epoch, &written);
        assert_eq!(read, Ok(SessionFile { lines_unread: 0, ..file.clone() }), "as we write it");
        files.push(file);
    }
    let lines: usize = files.iter().map(|file| file.lines.len()).sum();
    let merged = merge(files.iter().rev().cloned().collect());
    assert_eq!(merged, merge(files), "in whatever order they come");
    let Ok(session) = merged else { return };
    let fenced: usize = session.stretches.iter().map(|stretch| stretch.lines_fenced).sum();
    assert!(session.lines.len() + fenced <= lines);
    assert!(session.lines.is_sorted_by_key(|line| line.at_us));
    assert!(!session.lines.iter().any(|line| matches!(line.event, Event::TrackZero { .. })));
}
