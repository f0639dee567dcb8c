//! The thread that writes one recording.
//!
//! Whoever has packets gives them to its queue and goes on: what does not fit is dropped there and then, and the file gets a
//! gap `overrun`. The thread takes time from what comes out of the queue: while that is behind, a packet is not late.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Seek, SeekFrom, Write},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use plenary_media_core::{self as media, TapItem};
use plenary_model::TrackSid;
use plenary_recording::{
    Finish, Packet, Patch, Storage,
    recording::{DiskFailure, Ended, FileEnd, Input, Output, Recording, Settings, Tapped},
    repair,
    session_file::{Epoch, Started, StopReason, TrackFile},
};

use super::{Disk, LocalDisk, shelf};
use crate::{
    config,
    events::{NotRecorded, RecordingDiskFailed, RecordingEnded, RecordingOverrun},
};

/// What waits for a disk, per recording. More packets are dropped.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Events (chat, names, mutes) have that much more.
const EVENT_BYTES_MAX: usize = 8 << 20;
/// A disk that takes longer for one operation is too slow to record to.
const OPERATION_MAX: Duration = Duration::from_secs(10);
/// As often as a lease is renewed, so that whoever finds the files knows without a lock that they are written.
const TOUCH_INTERVAL: Duration = Duration::from_secs(1);
/// One that has not come back from it by then is not waited for: a network file system may hang for days.
const STUCK_AFTER: Duration = Duration::from_secs(20);
/// What an entry of the queue takes besides its payload.
const ENTRY_BYTES: usize = 128;

/// What a recording says to whoever started it, from its own thread: it must not be made wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The publisher of this track is to be asked for a key frame.
    KeyframeNeeded(TrackSid),
    /// The last word.
    Ended(Ended),
    /// The last word of a thread that panicked. Its files are left for the next repair.
    Crashed,
}

/// The queue is full, or the recording has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    #[error("the disk does not keep up")]
    QueueFull,
    #[error("the recording has ended")]
    Ended,
}

/// A running recording. When the last of its clones is gone it ends as if the room had.
#[derive(Clone)]
pub struct WriterHandle {
    queue: mpsc::Sender<Queued>,
    queued_bytes: Arc<AtomicUsize>,
    queue_bytes_max: usize,
    /// How many packets were dropped of each track, to be told with the next that fit.
    missed: BTreeMap<TrackSid, u64>,
    disk_time: Arc<DiskTime>,
}

impl fmt::Debug for WriterHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriterHandle").field("missed", &self.missed).finish_non_exhaustive()
    }
}

struct Queued {
    at: Instant,
    bytes: usize,
    what: What,
}

enum What {
    Tapped { tapped: Vec<media::Tapped>, missed: BTreeMap<TrackSid, u64> },
    Input(Input),
}

impl WriterHandle {
    /// What a router's tap gave at `now`, of tracks that were said to have begun. Never waits: what does not fit is dropped, and
    /// its tracks get a gap.
    pub fn try_send(&mut self, now: Instant, tapped: Vec<media::Tapped>) -> Result<(), NotTaken> {
        let bytes = tapped.iter().map(bytes_of).fold(0, usize::saturating_add);
        if let Err(full) = self.reserve(bytes, self.queue_bytes_max) {
            for media::Tapped { track, .. } in tapped {
                let count = self.missed.entry(track).or_default();
                *count = count.saturating_add(1);
            }
            return Err(full);
        }
        let missed = std::mem::take(&mut self.missed);
        self.enqueue(Queued { at: now, bytes, what: What::Tapped { tapped, missed } })
    }

    /// Anything but packets. Never waits.
    pub fn tell(&self, now: Instant, input: Input) -> Result<(), NotTaken> {
        let text = match &input {
            Input::Chat { text, .. } => text.len(),
            Input::Speakers(participants) => participants.len().saturating_mul(ENTRY_BYTES),
            _ => 0,
        };
        let most = match input {
            Input::Stop(_) => usize::MAX,
            _ => self.queue_bytes_max.saturating_add(EVENT_BYTES_MAX),
        };
        let bytes = ENTRY_BYTES.saturating_add(text);
        self.reserve(bytes, most)?;
        self.enqueue(Queued { at: now, bytes, what: What::Input(input) })
    }

    /// [`Report::Ended`] follows when all files are complete.
    pub fn stop(&self, now: Instant, reason: StopReason) -> Result<(), NotTaken> {
        self.tell(now, Input::Stop(reason))
    }

    /// The disk does not come back from an operation. The thread cannot say so: it waits there itself, perhaps for ever.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        self.disk_time.taken(now) > STUCK_AFTER
    }

    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.queued_bytes.load(Ordering::Relaxed) == 0
    }

    fn reserve(&self, bytes: usize, most: usize) -> Result<(), NotTaken> {
        let before = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > most {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(NotTaken::QueueFull);
        }
        Ok(())
    }

    fn enqueue(&self, queued: Queued) -> Result<(), NotTaken> {
        self.queue.send(queued).map_err(|mpsc::SendError(queued)| {
            self.queued_bytes.fetch_sub(queued.bytes, Ordering::Relaxed);
            NotTaken::Ended
        })
    }
}

fn bytes_of(tapped: &media::Tapped) -> usize {
    match &tapped.item {
        TapItem::Packet { payload, .. } => payload.len().saturating_add(ENTRY_BYTES),
        TapItem::Report { .. } => ENTRY_BYTES,
    }
}

/// Begins an epoch of a recording below the configured directory. Everything that goes wrong on the disk, at the start
/// too, is told by [`Report::Ended`].
///
/// # Errors
/// If there is no thread to be had.
pub fn start(
    config: &config::Recording,
    epoch: Epoch,
    started: Started,
    report: impl FnMut(Report) + Send + 'static,
) -> io::Result<WriterHandle> {
    start_on(LocalDisk, config, Patience::default(), epoch, started, report)
}

/// How long and how much a recording waits for its disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(super) queue_bytes_max: usize,
    pub(super) operation_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { queue_bytes_max: QUEUE_BYTES_MAX, operation_max: OPERATION_MAX }
    }
}

/// [`start`] on a disk of another kind.
pub(super) fn start_on<D: Disk>(
    disk: D,
    config: &config::Recording,
    patience: Patience,
    epoch: Epoch,
    started: Started,
    report: impl FnMut(Report) + Send + 'static,
) -> io::Result<WriterHandle> {
    let (queue, from_queue) = mpsc::channel();
    let (queued_bytes, disk_time) = (Arc::new(AtomicUsize::new(0)), Arc::new(DiskTime::new(Instant::now())));
    let (now, unix) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let unix_us = u64::try_from(unix.as_micros()).unwrap_or_default();
    let writer = Writer {
        disk,
        recording: started.recording.clone(),
        directory: config.directory.as_deref().and_then(|root| shelf::directory(root, &started.recording)),
        config: config.clone(),
        operation_max: patience.operation_max,
        queue: from_queue,
        queued_bytes: Arc::clone(&queued_bytes),
        session: None,
        files: BTreeMap::new(),
        has_new_names: false,
        now,
        disk_time: Arc::clone(&disk_time),
        reporter: Reporter { report },
    };
    let settings = Settings {
        epoch,
        started,
        bytes_max: Some(config.bytes_max).filter(|most| *most > 0),
        duration_max: Some(config.duration_max).filter(|most| !most.is_zero()),
    };
    thread::Builder::new().name("recording".into()).spawn(move || writer.run(unix_us, settings))?;
    let queue_bytes_max = patience.queue_bytes_max;
    Ok(WriterHandle { queue, queued_bytes, queue_bytes_max, missed: BTreeMap::new(), disk_time })
}

/// For how long the thread has been at the disk, for those who look at it from outside.
#[derive(Debug)]
struct DiskTime {
    origin: Instant,
    /// Since the origin; [`Self::IDLE`] while it waits for something to do.
    operation_began_ms: AtomicU64,
}

impl DiskTime {
    const IDLE: u64 = u64::MAX;

    /// From the first moment on it is at the disk.
    fn new(origin: Instant) -> Self {
        Self { origin, operation_began_ms: AtomicU64::new(0) }
    }

    fn begin(&self, now: Instant) {
        let since = now.saturating_duration_since(self.origin).as_millis();
        self.operation_began_ms.store(u64::try_from(since).unwrap_or_default(), Ordering::Relaxed);
    }

    fn idle(&self) {
        self.operation_began_ms.store(Self::IDLE, Ordering::Relaxed);
    }

    fn taken(&self, now: Instant) -> Duration {
        match self.operation_began_ms.load(Ordering::Relaxed) {
            Self::IDLE => Duration::ZERO,
            began => now.saturating_duration_since(self.origin).saturating_sub(Duration::from_millis(began)),
        }
    }
}

struct Writer<D: Disk, R: FnMut(Report)> {
    disk: D,
    recording: String,
    /// None if the recording's id is none, or recordings are off.
    directory: Option<PathBuf>,
    config: config::Recording,
    operation_max: Duration,
    queue: mpsc::Receiver<Queued>,
    queued_bytes: Arc<AtomicUsize>,
    session: Option<SessionFile<D::File>>,
    files: BTreeMap<TrackFile, OpenFile<D::File>>,
    /// Files were created or renamed since the directory was synced.
    has_new_names: bool,
    /// What the queue has come to.
    now: Instant,
    disk_time: Arc<DiskTime>,
    reporter: Reporter<R>,
}

struct SessionFile<F> {
    file: F,
    /// Of whole lines.
    bytes: u64,
    is_dirty: bool,
}

struct OpenFile<F> {
    file: F,
    /// Something that was to be written or synced may not be there. It is repaired in the end instead of finished.
    is_broken: bool,
    is_dirty: bool,
}

struct Reporter<R: FnMut(Report)> {
    report: R,
}

impl<R: FnMut(Report)> Drop for Reporter<R> {
    fn drop(&mut self) {
        if thread::panicking() {
            (self.report)(Report::Crashed);
        }
    }
}

impl<D: Disk, R: FnMut(Report)> Writer<D, R> {
    fn run(mut self, unix_us: u64, settings: Settings) {
        let epoch = settings.epoch;
        let mut core = Recording::new(self.now, unix_us, settings);
        if let Err(error) = self.open(epoch) {
            self.fail(&mut core, &error);
        }
        let mut next_sync = after(Instant::now(), self.config.sync_interval);
        let mut next_touch = after(Instant::now(), TOUCH_INTERVAL);
        while !self.perform(&mut core) {
            let next = next_sync.min(next_touch);
            let due = core.next_deadline().map_or(next, |deadline| deadline.min(next));
            self.disk_time.idle();
            match self.queue.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(queued) => self.take(&mut core, queued),
                Err(RecvTimeoutError::Timeout) => {
                    self.now = self.now.max(Instant::now());
                    core.handle_timeout(self.now);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let _ = core.handle(self.now, Input::Stop(StopReason::RoomEnded));
                }
            }
            if Instant::now() >= next_sync {
                let began = self.begin();
                let synced = self.sync();
                self.judge(&mut core, began, synced);
                next_sync = after(Instant::now(), self.config.sync_interval);
            }
            if Instant::now() >= next_touch {
                let began = self.begin();
                if let Some(session) = &self.session {
                    // Where it cannot be, the lock alone says that somebody records.
                    let _ = self.disk.touch(&session.file);
                }
                self.judge(&mut core, began, Ok(()));
                next_touch = after(Instant::now(), TOUCH_INTERVAL);
            }
        }
    }

    fn open(&mut self, epoch: Epoch) -> io::Result<()> {
        let directory = self.directory()?;
        self.disk.create_directory(&directory)?;
        self.check_floor()?;
        let file = self.disk.create_locked(&directory.join(epoch.session_file()))?;
        self.has_new_names = true;
        self.session = Some(SessionFile { file, bytes: 0, is_dirty: false });
        Ok(())
    }

    fn directory(&self) -> io::Result<PathBuf> {
        let none = || io::Error::new(io::ErrorKind::InvalidInput, "no directory, or an id that names none");
        self.directory.clone().ok_or_else(none)
    }

    fn check_floor(&mut self) -> io::Result<()> {
        let free = self.disk.free_bytes(&self.directory()?)?;
        if free < self.config.free_bytes_min { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn take(&mut self, core: &mut Recording, queued: Queued) {
        let Queued { at, bytes, what } = queued;
        self.now = self.now.max(at);
        match what {
            // Refused are tracks that have just ended, and what comes after the end.
            What::Tapped { tapped, missed } => {
                for (track, packets) in missed {
                    RecordingOverrun { packets }.emit();
                    let _ = core.handle(at, Input::Overrun(track));
                }
                for tapped in tapped {
                    let _ = core.handle(at, input(tapped));
                }
            }
            What::Input(input) => {
                if let Err(refusal) = core.handle(at, input) {
                    NotRecorded { refusal }.emit();
                }
            }
        }
        if core.next_deadline().is_some_and(|deadline| deadline <= at) {
            core.handle_timeout(at);
        }
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Does what there is to do. True at the end of the recording.
    fn perform(&mut self, core: &mut Recording) -> bool {
        while let Some(output) = core.poll_output() {
            let began = self.begin();
            let done = match output {
                Output::KeyframeNeeded(track) => {
                    (self.reporter.report)(Report::KeyframeNeeded(track));
                    continue;
                }
                Output::Line(line) => self.line(&line),
                Output::Create { file, bytes } => self.create(file, &bytes),
                Output::Append { file, bytes } => self.append(&file, &bytes),
                Output::Complete { file, finish, duration } => {
                    let (end, done) = self.complete(file, &finish, duration);
                    let _ = core.handle(self.now, Input::Completed(end));
                    done
                }
                Output::Ended(ended) => {
                    self.close();
                    RecordingEnded { recording: &self.recording, ended: &ended }.emit();
                    (self.reporter.report)(Report::Ended(ended));
                    return true;
                }
            };
            self.judge(core, began, done);
        }
        false
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        // That it could not be opened was told.
        let Some(session) = &mut self.session else { return Ok(()) };
        session.is_dirty = true;
        let written = session.file.write_all(line);
        match &written {
            Ok(()) => session.bytes = session.bytes.saturating_add(line.len() as u64),
            // Half a line would spoil the next one.
            Err(_) => {
                let cut = session.file.truncate(session.bytes);
                if cut.and_then(|()| session.file.seek(SeekFrom::Start(session.bytes))).is_err() {
                    self.session = None;
                }
            }
        }
        written
    }

    fn create(&mut self, name: TrackFile, bytes: &[u8]) -> io::Result<()> {
        let path = self.directory()?.join(name.part());
        let mut file = self.disk.create(&path)?;
        self.has_new_names = true;
        let written = file.write_all(bytes);
        self.files.insert(name, OpenFile { file, is_broken: written.is_err(), is_dirty: true });
        written
    }

    fn append(&mut self, name: &TrackFile, bytes: &[u8]) -> io::Result<()> {
        let Some(open) = self.files.get_mut(name).filter(|open| !open.is_broken) else { return Ok(()) };
        open.is_dirty = true;
        let written = open.file.write_all(bytes);
        open.is_broken = written.is_err();
        written
    }

    fn complete(&mut self, name: TrackFile, finish: &Finish, duration: Duration) -> (FileEnd, io::Result<()>) {
        let mut end = FileEnd { file: name, bytes: 0, duration: Duration::ZERO, is_complete: false };
        // That it could not be created was told.
        let Some(mut open) = self.files.remove(&end.file) else { return (end, Ok(())) };
        let mut done = if open.is_broken { Ok(()) } else { finish_file(&mut open.file, finish) };
        end.duration = duration;
        let mut is_whole = done.is_ok() && !open.is_broken;
        if !is_whole && let Ok(repaired) = repair(&mut open.file) {
            end.duration = repaired.duration;
            is_whole = true;
        }
        end.bytes = open.file.seek(SeekFrom::End(0)).unwrap_or_default();
        if is_whole {
            let named = self.name(&end.file);
            end.is_complete = named.is_ok();
            done = done.and(named);
        }
        (end, done)
    }

    fn name(&mut self, file: &TrackFile) -> io::Result<()> {
        let directory = self.directory()?;
        self.disk.rename(&directory.join(file.part()), &directory.join(file.to_string()))?;
        self.has_new_names = true;
        Ok(())
    }

    /// What was written until now survives a loss of power, unless the disk says otherwise.
    fn sync(&mut self) -> io::Result<()> {
        let mut result = Ok(());
        for open in self.files.values_mut().filter(|open| open.is_dirty && !open.is_broken) {
            open.is_dirty = false;
            let synced = open.file.sync();
            open.is_broken = synced.is_err();
            result = result.and(synced);
        }
        if let Some(session) = self.session.as_mut().filter(|session| session.is_dirty) {
            session.is_dirty = false;
            result = result.and(session.file.sync());
        }
        if std::mem::take(&mut self.has_new_names) {
            let directory = self.directory()?;
            result = result.and(self.disk.sync_directory(&directory));
        }
        result.and(self.check_floor())
    }

    fn begin(&self) -> Instant {
        let now = Instant::now();
        self.disk_time.begin(now);
        now
    }

    fn judge(&self, core: &mut Recording, began: Instant, done: io::Result<()>) {
        let too_long = || io::Error::from(io::ErrorKind::TimedOut);
        let is_slow = began.elapsed() > self.operation_max;
        if let Err(error) = done.and_then(|()| if is_slow { Err(too_long()) } else { Ok(()) }) {
            self.fail(core, &error);
        }
    }

    fn fail(&self, core: &mut Recording, error: &io::Error) {
        let failure = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                DiskFailure::Full
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => DiskFailure::PermissionDenied,
            io::ErrorKind::TimedOut => DiskFailure::Slow,
            _ => DiskFailure::Failed,
        };
        // Once it ends, more of the same is told by the files that are not complete.
        if core.handle(self.now, Input::Failed(failure)).is_ok() {
            RecordingDiskFailed { recording: &self.recording, failure, error }.emit();
        }
    }

    /// Nothing that fails now can be told any more.
    fn close(&mut self) {
        self.files.clear();
        if self.session.is_some() {
            let _ = self.sync();
        }
        self.session = None;
    }
}

fn finish_file(file: &mut impl Storage, finish: &Finish) -> io::Result<()> {
    file.write_all(&finish.tail)?;
    // The index is there before anything points to it.
    file.sync()?;
    for Patch { at, bytes } in &finish.patches {
        file.seek(SeekFrom::Start(*at))?;
        file.write_all(bytes)?;
    }
    file.sync()
}

fn input(tapped: media::Tapped) -> Input {
    let media::Tapped { track, item } = tapped;
    let tapped = match item {
        TapItem::Packet { ssrc, sequence, timestamp, marker, payload, received } => {
            Tapped::Packet(Packet { ssrc, sequence, timestamp, marker, payload, received })
        }
        TapItem::Report { ntp, rtp, received } => Tapped::Report { ntp, rtp, received },
    };
    Input::Tapped { track, tapped }
}

fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now)
}
