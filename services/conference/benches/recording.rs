//! What recording costs, next to its floor: `cargo bench -p plenary --bench recording`.
//!
//! People with a camera of 720p (VP8, 1.5 Mb/s, 30 frames a second) and a microphone (Opus) are recorded in real time. On
//! the clock is the CPU time of the threads that write, kernel included, from what a router's tap gave to whole files; and
//! that of giving it to them. The floor of the same run is writing as many bytes to as many files, a second of a file at
//! once. `TMPDIR` says to which disk. Each file is read afterwards: the run fails if a frame is missing, or a queue was full.
#![allow(clippy::print_stdout, reason = "a report is what this program is for")]

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use plenary::{
    config,
    recording::{self, Report, WriterHandle},
};
use plenary_media_core::{TapItem, Tapped};
use plenary_model::{Codec, Source, TrackSid};
use plenary_recording::{
    recording::{FileEnd, Input},
    session_file::{Epoch, Started, StopReason, VERSION},
};
use plenary_testkit::stage::{Passes, Stopwatch};
use rustix::time::{ClockId, clock_gettime};
use tempfile::tempdir;

fn main() {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("Load: {}; median of {PASSES} passes of {SECONDS} s (min–max)", load.trim());
    println!("Per person, of a core: writing, giving, the floor; memory of the first pass.");
    println!("| recordings × people | writing, % | giving, % | floor, % | writing ÷ floor | people per core | MiB |");
    println!("|---|---|---|---|---|---|---|");
    for (recordings, people) in [(1, 10), (10, 1), (1, 100)] {
        println!("{}", row(recordings, people));
    }
}

fn row(recordings: u32, people: u32) -> String {
    let stopwatch = Stopwatch::calibrated();
    let everybody = f64::from(recordings * people);
    let [mut writing, mut giving, mut floor, mut ratio] = std::array::from_fn(|_| Passes::default());
    let mut memory = None;
    for _ in 0..PASSES {
        [&mut writing, &mut giving, &mut floor, &mut ratio].into_iter().for_each(Passes::start_pass);
        let root = tempdir().expect("a directory");
        let taken = record(root.path(), recordings, people, stopwatch);
        let floor_ns = write(root.path(), &taken.files, stopwatch);
        let percent = |ns: u64| ns as f64 / everybody / f64::from(SECONDS) / 1e7;
        writing.add(percent(taken.writing_ns));
        giving.add(percent(taken.giving_ns));
        floor.add(percent(floor_ns));
        ratio.add(taken.writing_ns as f64 / floor_ns as f64);
        memory.get_or_insert(taken.memory_bytes as f64 / everybody / f64::from(1 << 20));
    }
    let per_core = 100. / writing.median();
    format!(
        "| {recordings} × {people} | {} | {} | {} | {} | {per_core:.0} | {:.2} |",
        writing.show(3),
        giving.show(3),
        floor.show(3),
        ratio.show(1),
        memory.unwrap_or_default()
    )
}

struct Taken {
    writing_ns: u64,
    giving_ns: u64,
    /// By how much the process grew.
    memory_bytes: u64,
    files: Vec<FileEnd>,
}

fn record(root: &Path, recordings: u32, people: u32, stopwatch: Stopwatch) -> Taken {
    let (memory, began, mine) = (resident_bytes(), Instant::now(), Mine::now());
    let mut running: Vec<_> = (0..recordings).map(|number| Running::start(root, number, people, began)).collect();
    let mut giving_ns = 0;
    for tick in 0..SECONDS * TICKS_PER_SECOND {
        let now = began + TICK * tick;
        thread::sleep(now.saturating_duration_since(Instant::now()));
        for (number, one) in (0..).zip(&mut running) {
            for person in 0..people {
                let Some(tick) = tick.checked_sub(begins_at(person + number)) else { continue };
                for batch in due(person, tick) {
                    giving_ns += stopwatch.ns(|| one.writer.try_send(now, batch).expect("the disk keeps up"));
                }
            }
        }
    }
    let memory_bytes = resident_bytes().saturating_sub(memory);
    let end = began + TICK * SECONDS * TICKS_PER_SECOND;
    let files: Vec<_> = running.into_iter().flat_map(|one| one.stop(end)).collect();
    // Threads that gave their last word have nothing left to do.
    let writing_ns = mine.others_ns();
    let mut frames: Vec<_> = files.iter().map(|end| frames(root, end)).collect();
    let mut sent: Vec<_> =
        (0..recordings).flat_map(|one| (0..people).flat_map(move |person| sent(person + one))).collect();
    frames.sort_unstable();
    sent.sort_unstable();
    assert_eq!(frames, sent);
    Taken { writing_ns, giving_ns, memory_bytes, files }
}

struct Running {
    writer: WriterHandle,
    reports: mpsc::Receiver<Report>,
}

impl Running {
    fn start(root: &Path, number: u32, people: u32, now: Instant) -> Self {
        let config =
            config::Recording { directory: Some(root.to_owned()), free_bytes_min: 0, ..config::Recording::default() };
        let started = Started {
            version: VERSION,
            recording: recording_id(number.into()),
            room: "RM_r".into(),
            room_name: "bench".into(),
            node: "ND_n".into(),
            predecessor: None,
            former: None,
        };
        let (report, reports) = mpsc::channel();
        let epoch = Epoch { number: number.into(), boot: 1 };
        let writer = recording::start(&config, epoch, started, move |one| drop(report.send(one))).expect("a thread");
        for person in 0..people {
            for (track, source, codec) in
                [(video(person), Source::Camera, Codec::Vp8), (audio(person), Source::Microphone, Codec::Opus)]
            {
                let participant = format!("PA_{person}").as_str().into();
                writer.tell(now, Input::TrackBegan { track, participant, source, codec }).expect("there is room");
            }
        }
        Self { writer, reports }
    }

    fn stop(self, now: Instant) -> Vec<FileEnd> {
        self.writer.stop(now, StopReason::Requested).expect("it is running");
        match self.reports.iter().last() {
            Some(Report::Ended(ended)) if ended.reason == StopReason::Requested => ended.files,
            other => panic!("{other:?}"),
        }
    }
}

fn video(person: u32) -> TrackSid {
    format!("TR_V{person}").as_str().into()
}

fn audio(person: u32) -> TrackSid {
    format!("TR_A{person}").as_str().into()
}

/// Not everybody at once.
fn begins_at(person: u32) -> u32 {
    person % (TICKS_PER_FRAME * TICKS_PER_SOUND)
}

/// Pictures and stretches of sound.
fn sent(person: u32) -> [u32; 2] {
    [TICKS_PER_FRAME, TICKS_PER_SOUND].map(|ticks| (SECONDS * TICKS_PER_SECOND - begins_at(person)).div_ceil(ticks))
}

/// What arrives from somebody in a tick, as a router's turn gives it.
fn due(person: u32, tick: u32) -> impl Iterator<Item = Vec<Tapped>> {
    let frame = tick.is_multiple_of(TICKS_PER_FRAME).then(|| {
        let number = tick / TICKS_PER_FRAME;
        (0..PACKETS_PER_FRAME).map(|part| tapped(video(person), video_packet(number, part))).collect()
    });
    let sound = tick.is_multiple_of(TICKS_PER_SOUND).then(|| {
        let number = tick / TICKS_PER_SOUND;
        let payload = [&[0xfc][..], &[7; SOUND_BYTES]].concat();
        vec![tapped(audio(person), (number, number.wrapping_mul(960), false, payload))]
    });
    frame.into_iter().chain(sound)
}

/// Sequence number, timestamp, marker and payload (RFC 7741 4.2, with 15 bits of picture id, and 4.3).
fn video_packet(frame: u32, part: u32) -> (u32, u32, bool, Vec<u8>) {
    let is_key = frame.is_multiple_of(FRAMES_PER_KEY);
    let start = if part == 0 { 0x90 } else { 0x80 };
    let descriptor = [start, 0x80, 0x80 | (frame >> 8) as u8, frame as u8];
    let head: &[u8] = match part {
        0 if is_key => &[0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x00, 0x05, 0xd0, 0x02],
        0 => &[0x11, 0, 0],
        _ => &[],
    };
    let payload = [&descriptor[..], head, &[7; PACKET_BYTES]].concat();
    (frame * PACKETS_PER_FRAME + part, frame.wrapping_mul(3_000), part + 1 == PACKETS_PER_FRAME, payload)
}

fn tapped(track: TrackSid, (sequence, timestamp, marker, payload): (u32, u32, bool, Vec<u8>)) -> Tapped {
    let (sequence, payload, received) = (sequence as u16, Bytes::from(payload), Instant::now());
    Tapped { track, item: TapItem::Packet { ssrc: 1, sequence, timestamp, marker, payload, received } }
}

/// How many frames are in a file, by a reader that is not ours.
fn frames(root: &Path, end: &FileEnd) -> u32 {
    assert!(end.is_complete, "{end:?}");
    let path = root.join(recording_id(end.file.epoch().number)).join(end.file.to_string());
    let mut file =
        matroska_demuxer::MatroskaFile::open(File::open(path).expect("it is there")).expect("it can be read");
    let mut next = matroska_demuxer::Frame::default();
    (0..).take_while(|_| file.next_frame(&mut next).expect("it can be read")).count() as u32
}

/// The floor: nanoseconds of writing as much.
fn write(root: &Path, files: &[FileEnd], stopwatch: Stopwatch) -> u64 {
    let bytes: Vec<_> = files.iter().map(|end| vec![7; end.bytes.div_ceil(SECONDS.into()) as usize]).collect();
    stopwatch.ns(|| {
        let create = |number: usize| File::create(root.join(number.to_string())).expect("it can be written");
        let mut files: Vec<_> = (0..bytes.len()).map(create).collect();
        for _ in 0..SECONDS {
            for (file, bytes) in files.iter_mut().zip(&bytes) {
                file.write_all(bytes).expect("there is room");
            }
        }
    })
}

fn recording_id(number: u64) -> String {
    format!("EG_{number}")
}

/// CPU time of the process and, of it, of this thread.
struct Mine {
    process: Duration,
    thread: Duration,
}

impl Mine {
    fn now() -> Self {
        let read = |clock| {
            let time = clock_gettime(clock);
            Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
        };
        Self { process: read(ClockId::ProcessCPUTime), thread: read(ClockId::ThreadCPUTime) }
    }

    /// Of all other threads, since then.
    fn others_ns(&self) -> u64 {
        let now = Self::now();
        (now.process - self.process).saturating_sub(now.thread - self.thread).as_nanos() as u64
    }
}

fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("resident pages");
    pages * rustix::param::page_size() as u64
}

const PASSES: usize = 3;
const SECONDS: u32 = 10;
const TICKS_PER_SECOND: u32 = 300;
const TICK: Duration = Duration::from_nanos(1_000_000_000 / TICKS_PER_SECOND as u64);
const TICKS_PER_FRAME: u32 = 10;
const TICKS_PER_SOUND: u32 = 6;
const FRAMES_PER_KEY: u32 = 90;
/// 1.5 Mb/s.
const PACKETS_PER_FRAME: u32 = 6;
const PACKET_BYTES: usize = 1_037;
/// 32 kb/s.
const SOUND_BYTES: usize = 79;
