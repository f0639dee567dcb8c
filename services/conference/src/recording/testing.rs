//! Meetings for tests, and a disk that fails when it is told to.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

use bytes::Bytes;
use nix::sys::signal::{Signal, raise};
use plenary_media_core::{TapItem, Tapped};
use plenary_model::{Codec, Egress, EgressRequest, EgressRequestKind, EgressSource, EgressStatus, RoomName, Source};
use plenary_recording::{
    Storage,
    recording::{Ended, Input},
    session_file::{Epoch, Started, VERSION},
};

use super::{
    Disk, LocalDisk, NotTaken, Report, WriterHandle,
    writer::{Patience, start_on},
};
use crate::config;

pub(crate) const EPOCH: Epoch = Epoch { number: 7, boot: 0xFEED };
pub(crate) const STEP: Duration = Duration::from_millis(20);

pub(crate) fn config(root: &Path) -> config::Recording {
    config::Recording { directory: Some(root.to_owned()), free_bytes_min: 0, ..config::Recording::default() }
}

pub(crate) fn started(recording: &str) -> Started {
    Started {
        version: VERSION,
        recording: recording.into(),
        room: "RM_r".into(),
        room_name: "../stand\nup".into(),
        node: "ND_n".into(),
        predecessor: None,
        former: None,
    }
}

/// A recording that has been stopped.
pub(crate) fn egress(source: EgressSource) -> Egress {
    Egress {
        id: "EG_local".into(),
        room: RoomName::try_from("r").unwrap(),
        room_sid: "RM_x".into(),
        source,
        outputs: Vec::new(),
        request: EgressRequest { kind: EgressRequestKind::RoomComposite, message: Default::default() },
        status: EgressStatus::Ending,
        asked_at_ns: 1,
        started_at_ns: 2,
        ended_at_ns: 3,
        updated_at_ns: 3,
        error: String::new(),
        files: Vec::new(),
        version: 1,
    }
}

/// Grey in VP8, 64×36, and more of the same, as libvpx has it. Decoders do not mind what follows.
const KEY_FRAME: &[u8] = b"\x30\x03\x00\x9d\x01\x2a\x40\x00\x24\x00\x39\x05\x00\x01\x1c\x24\x0c\x2c\x2c\x44\x2c\x24\
    \x40\x10\x00\x00\x34\x73\x10\x0a\x80\x1a\x6d\x04\x00\xfe\x68\x00";
const OTHER_FRAME: &[u8] = b"\x11\x03\x00\xe3\xea\x98\x14\x47\xaf\x10\x4f\x4f\xae\x8f\x2f\xe0\xaa\xa0\x1f\xc0\x61\
    \x60\xbf\xd0\x00\x22\x24\x00";

/// Somebody's sound or pictures, one packet each [`STEP`].
pub(crate) struct Publisher {
    track: &'static str,
    codec: Codec,
    pub(crate) sent: u32,
}

impl Publisher {
    fn next(&mut self, received: Instant) -> Tapped {
        let (payload, ticks) = match self.codec {
            Codec::Opus => (vec![0xfc, 1, 2, 3], 960),
            // RFC 7741 4.2, a key frame twice a second.
            _ if self.sent.is_multiple_of(25) => ([&[0x10], KEY_FRAME, &[7; 860]].concat(), 1_800),
            _ => ([&[0x10], OTHER_FRAME, &[7; 270]].concat(), 1_800),
        };
        let item = TapItem::Packet {
            ssrc: 1,
            sequence: self.sent as u16,
            timestamp: self.sent.wrapping_mul(ticks),
            marker: true,
            payload: Bytes::from(payload),
            received,
        };
        self.sent += 1;
        Tapped { track: self.track.into(), item }
    }
}

/// A recorded meeting.
pub(crate) struct Meeting {
    pub(crate) now: Instant,
    pub(crate) recorder: WriterHandle,
    reports: mpsc::Receiver<Report>,
    pub(crate) publishers: Vec<Publisher>,
}

impl Meeting {
    pub(crate) fn on<D: Disk>(disk: D, config: &config::Recording, recording: &str, patience: Patience) -> Self {
        let (report, reports) = mpsc::channel();
        let report = move |one| drop(report.send(one));
        let recorder = start_on(disk, config, patience, EPOCH, started(recording), report).unwrap();
        Self { now: Instant::now(), recorder, reports, publishers: Vec::new() }
    }

    pub(crate) fn local(root: &Path) -> Self {
        Self::on(LocalDisk, &config(root), "EG_local", Patience::default())
    }

    pub(crate) fn publish(&mut self, track: &'static str, codec: Codec) {
        self.publishers.push(Publisher { track, codec, sent: 0 });
        let source = if codec == Codec::Opus { Source::Microphone } else { Source::Camera };
        let participant = "PA_ann".into();
        let _ = self.recorder.tell(self.now, Input::TrackBegan { track: track.into(), participant, source, codec });
    }

    pub(crate) fn unpublish(&mut self, track: &str) {
        self.publishers.retain(|publisher| publisher.track != track);
        let _ = self.recorder.tell(self.now, Input::TrackEnded(track.into()));
    }

    /// As fast as it goes.
    pub(crate) fn steps(&mut self, count: u32) -> Result<(), NotTaken> {
        let mut result = Ok(());
        for _ in 0..count {
            self.now += STEP;
            let tapped = self.publishers.iter_mut().map(|publisher| publisher.next(self.now)).collect();
            result = result.and(self.recorder.try_send(self.now, tapped));
        }
        result
    }

    /// Returns when all that was sent but the last has been written.
    pub(crate) fn settle(&self) {
        while !self.recorder.is_idle() {
            std::thread::yield_now();
        }
    }

    pub(crate) fn stop(self) -> Ended {
        // It may have ended of itself.
        let _ = self.recorder.stop(self.now, plenary_recording::session_file::StopReason::Requested);
        self.ended()
    }

    pub(crate) fn ended(self) -> Ended {
        match self.last_word() {
            Report::Ended(ended) => ended,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn last_word(self) -> Report {
        let Self { recorder, reports, .. } = self;
        let last = reports.iter().last().expect("a recording has a last word");
        drop(recorder);
        last
    }
}

/// What becomes of operations, of all disks that are made of it.
#[derive(Clone, Default)]
pub(crate) struct Fate {
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    operations: usize,
    /// With what the system says then.
    fails_at: Option<(usize, i32)>,
    panics_at: Option<usize>,
    bytes_until_death: Option<usize>,
    hangs: bool,
    is_hanging: bool,
    syncs: usize,
}

impl Fate {
    pub(crate) fn failing(at: usize, errno: i32) -> Self {
        let fate = Self::default();
        fate.change(|state| state.fails_at = Some((at, errno)));
        fate
    }

    pub(crate) fn panicking(at: usize) -> Self {
        let fate = Self::default();
        fate.change(|state| state.panics_at = Some(at));
        fate
    }

    /// The process is killed when it has written so many bytes, in the middle of a write or not.
    pub(crate) fn dying_after(bytes: usize) -> Self {
        let fate = Self::default();
        fate.change(|state| state.bytes_until_death = Some(bytes));
        fate
    }

    pub(crate) fn fail_next(&self, errno: i32) {
        self.change(|state| state.fails_at = Some((state.operations + 1, errno)));
    }

    pub(crate) fn panic_next(&self) {
        self.change(|state| state.panics_at = Some(state.operations + 1));
    }

    pub(crate) fn operations(&self) -> usize {
        self.change(|state| state.operations)
    }

    /// The next operation does not return before [`release`](Self::release). Gives back when one is there.
    pub(crate) fn hang(&self, until: impl FnOnce()) {
        self.change(|state| state.hangs = true);
        until();
        self.wait(|state| state.is_hanging);
    }

    pub(crate) fn release(&self) {
        self.change(|state| state.hangs = false);
    }

    pub(crate) fn wait_for_syncs(&self, count: usize) {
        self.wait(|state| state.syncs >= count);
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (state, changed) = &*self.state;
        let result = change(&mut state.lock().unwrap_or_else(PoisonError::into_inner));
        changed.notify_all();
        result
    }

    fn wait(&self, until: impl Fn(&State) -> bool) {
        let (state, changed) = &*self.state;
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(changed.wait_while(state, |state| !until(state)).unwrap_or_else(PoisonError::into_inner));
    }

    fn operation(&self) -> io::Result<()> {
        let state = self.change(|state| {
            state.operations += 1;
            state.is_hanging = state.hangs;
            (state.operations, state.fails_at, state.panics_at)
        });
        self.wait(|state| !state.hangs);
        match state {
            (now, Some((at, errno)), _) if now == at => Err(io::Error::from_raw_os_error(errno)),
            (now, _, Some(at)) if now == at => panic!("on purpose"),
            _ => Ok(()),
        }
    }

    /// How many of so many bytes are the last that are written, if they are.
    fn last_bytes(&self, wanted: usize) -> Option<usize> {
        self.change(|state| {
            let left = state.bytes_until_death?;
            state.bytes_until_death = Some(left.saturating_sub(wanted));
            (left < wanted).then_some(left)
        })
    }
}

pub(crate) struct FatefulDisk(pub(crate) Fate);

pub(crate) struct FatefulFile {
    file: File,
    fate: Fate,
}

impl Disk for FatefulDisk {
    type File = FatefulFile;

    fn create_directory(&mut self, path: &Path) -> io::Result<()> {
        self.0.operation()?;
        LocalDisk.create_directory(path)
    }

    fn create(&mut self, path: &Path) -> io::Result<FatefulFile> {
        self.0.operation()?;
        Ok(FatefulFile { file: LocalDisk.create(path)?, fate: self.0.clone() })
    }

    fn create_locked(&mut self, path: &Path) -> io::Result<FatefulFile> {
        self.0.operation()?;
        Ok(FatefulFile { file: LocalDisk.create_locked(path)?, fate: self.0.clone() })
    }

    /// At any moment: no operation that can be told by its number.
    fn touch(&mut self, file: &FatefulFile) -> io::Result<()> {
        LocalDisk.touch(&file.file)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.operation()?;
        LocalDisk.rename(from, to)
    }

    fn sync_directory(&mut self, path: &Path) -> io::Result<()> {
        self.0.operation()?;
        LocalDisk.sync_directory(path)
    }

    fn free_bytes(&mut self, path: &Path) -> io::Result<u64> {
        self.0.operation()?;
        LocalDisk.free_bytes(path)
    }
}

impl Read for FatefulFile {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.file.read(into)
    }
}

impl Write for FatefulFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.fate.operation() {
            self.file.write_all(&bytes[..bytes.len() / 2])?;
            return Err(error);
        }
        if let Some(last) = self.fate.last_bytes(bytes.len()) {
            self.file.write_all(&bytes[..last])?;
            raise(Signal::SIGKILL)?;
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for FatefulFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.fate.operation()?;
        self.file.seek(to)
    }
}

impl Storage for FatefulFile {
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.fate.operation()?;
        self.file.truncate(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.fate.operation()?;
        self.fate.change(|state| state.syncs += 1);
        self.file.sync()
    }
}

/// What is in a file, by a reader that is not ours.
pub(crate) struct Content {
    /// When each frame is shown.
    pub(crate) times: Vec<Duration>,
    pub(crate) duration: Duration,
    /// What a decoder gives out before that.
    pub(crate) delay: Duration,
}

pub(crate) fn content(path: &Path) -> Content {
    let mut file = matroska_demuxer::MatroskaFile::open(File::open(path).unwrap())
        .unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
    assert_eq!(file.info().timestamp_scale().get(), 1_000_000, "milliseconds");
    let duration = Duration::from_secs_f64(file.info().duration().expect("a finished file has one") / 1_000.);
    let delay = Duration::from_nanos(file.tracks()[0].codec_delay().unwrap_or_default());
    let mut next = matroska_demuxer::Frame::default();
    let times =
        std::iter::from_fn(|| file.next_frame(&mut next).unwrap().then(|| Duration::from_millis(next.timestamp)));
    Content { times: times.collect(), duration, delay }
}

pub(crate) fn frames(path: &Path) -> usize {
    content(path).times.len()
}
