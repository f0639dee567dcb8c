//! One recording of one room for as long as one process makes it (an epoch): which files there are, what is appended to each and
//! to the session file, and when it ends.
//!
//! It knows no disk. What is to be done there comes out in order, and what became of it comes back in. All of an epoch's
//! wall-clock times count from one reading of that clock, on the monotonic one: setting the clock in the middle of a meeting
//! pulls no two files apart.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod recorded;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use plenary_model::{Codec, ParticipantSid, Source, TrackSid};

use self::recorded::Recorded;
use crate::{
    Container, Finish, Packet, Report, SenderClock,
    session_file::{Epoch, Event, LINE_BYTES_MAX, Line, NotAnId, Omission, Started, StopReason, TrackEnd, TrackFile},
};

/// Tracks that are recorded at a time, backups included. More are refused.
pub const TRACKS_MAX: usize = 1_024;
/// Files of an epoch: publishing again begins another. More are refused.
pub const FILES_MAX: usize = 10_000;
/// A cluster that nothing has closed is given out at this age: what is held back is lost with the process.
pub const CLUSTER_AGE_MAX: Duration = Duration::from_millis(1_500);
/// The disk is too slow when packets had to be dropped again and again for so long,
pub const OVERRUN_MAX: Duration = Duration::from_secs(10);
/// with no more than this between two times.
pub const OVERRUN_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub epoch: Epoch,
    pub started: Started,
    /// Of all its files together. Then it ends as `limit_reached`.
    pub bytes_max: Option<u64>,
    pub duration_max: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Came, was there when the recording began, or has another name now.
    Participant {
        participant: ParticipantSid,
        identity: String,
        name: String,
    },
    ParticipantLeft(ParticipantSid),
    /// A track is recorded from now on. If it was before, and in another codec, it goes on in another file.
    TrackBegan {
        track: TrackSid,
        participant: ParticipantSid,
        source: Source,
        codec: Codec,
    },
    Tapped {
        track: TrackSid,
        tapped: Tapped,
    },
    /// Packets of this track were dropped on their way here because the disk did not keep up.
    Overrun(TrackSid),
    /// A track is not muted when it begins.
    Mute {
        track: TrackSid,
        muted: bool,
    },
    TrackEnded(TrackSid),
    /// Nothing is recorded of a track that is published.
    NotRecorded {
        track: TrackSid,
        participant: ParticipantSid,
        source: Source,
        reason: Omission,
    },
    /// The loudest first; nobody else speaks.
    Speakers(Vec<ParticipantSid>),
    /// `participant` is empty for a message of the server.
    Chat {
        id: String,
        participant: ParticipantSid,
        text: String,
    },
    Stop(StopReason),
    /// Something that was to be done on the disk failed.
    Failed(DiskFailure),
    /// Answers [`Output::Complete`].
    Completed(FileEnd),
}

/// What a tap brings of a track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tapped {
    Packet(Packet),
    /// A sender report: at `ntp`, 32.32 fixed point on the publisher's clock, the stream stood at `rtp`.
    Report {
        ntp: u64,
        rtp: u32,
        received: Instant,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DiskFailure {
    #[error("the disk is full")]
    Full,
    #[error("the disk is too slow")]
    Slow,
    #[error("permission denied")]
    PermissionDenied,
    #[error("the disk failed")]
    Failed,
}

impl From<DiskFailure> for StopReason {
    fn from(failure: DiskFailure) -> Self {
        match failure {
            DiskFailure::Full => Self::DiskFull,
            DiskFailure::Slow => Self::DiskSlow,
            DiskFailure::PermissionDenied => Self::PermissionDenied,
            DiskFailure::Failed => Self::DiskFailed,
        }
    }
}

/// What is to be done, in this order. A file is called [`TrackFile::part`] until it is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A file that is not there yet begins with these bytes.
    Create { file: TrackFile, bytes: Bytes },
    /// One write at the end of the file.
    Append { file: TrackFile, bytes: Bytes },
    /// The file is finished and gets its name. To be answered by [`Input::Completed`], whatever came of it.
    Complete { file: TrackFile, finish: Finish, duration: Duration },
    /// One write at the end of the epoch's session file.
    Line(Vec<u8>),
    /// The publisher is to be asked for one, see [`crate::Output::KeyframeNeeded`].
    KeyframeNeeded(TrackSid),
    /// The last one.
    Ended(Ended),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub reason: StopReason,
    /// In the order in which they were completed.
    pub files: Vec<FileEnd>,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEnd {
    pub file: TrackFile,
    pub bytes: u64,
    pub duration: Duration,
    /// Otherwise it is left for [`repair`](crate::repair()).
    pub is_complete: bool,
}

/// What was not taken. Nothing else has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the track's id {0}")]
    NotAnId(#[from] NotAnId),
    #[error("more than {TRACKS_MAX} tracks")]
    TooManyTracks,
    #[error("more than {FILES_MAX} files")]
    TooManyFiles,
    #[error("no such track is recorded")]
    UnknownTrack,
    #[error("a line of more than {LINE_BYTES_MAX} bytes")]
    LineTooLong,
    #[error("the recording has ended")]
    Ended,
}

/// See [`Input`] and [`Output`] for all that can happen. After each input, [`poll_output`](Self::poll_output) until there is
/// nothing.
#[derive(Debug)]
pub struct Recording {
    settings: Settings,
    tracks: BTreeMap<TrackSid, Recorded>,
    /// Not after the first deadline of a track: what follows a packet must not cost a look at all tracks.
    due: Option<Instant>,
    /// One per publisher, so that sound and pictures keep the lip sync that they were sent with.
    clocks: BTreeMap<ParticipantSid, SenderClock>,
    /// Files of each track so far.
    numbers: BTreeMap<TrackSid, u32>,
    files_begun: usize,
    overrun: Option<Overrun>,
    stopping: Option<StopReason>,
    completing: BTreeSet<TrackFile>,
    ended: Vec<FileEnd>,
    out: Out,
}

/// Times at which packets were dropped, with short pauses.
#[derive(Debug, Clone, Copy)]
struct Overrun {
    first: Instant,
    last: Instant,
}

/// What is to be done, and the time that all of it has in common.
#[derive(Debug)]
struct Out {
    began: Instant,
    began_us: u64,
    now: Instant,
    queue: VecDeque<Output>,
    bytes: u64,
}

impl Recording {
    /// `unix_us` is what the wall clock shows at `now`, in microseconds since 1970.
    pub fn new(now: Instant, unix_us: u64, settings: Settings) -> Self {
        let out = Out { began: now, began_us: unix_us, now, queue: VecDeque::new(), bytes: 0 };
        let mut recording = Self {
            settings,
            tracks: BTreeMap::new(),
            due: None,
            clocks: BTreeMap::new(),
            numbers: BTreeMap::new(),
            files_begun: 0,
            overrun: None,
            stopping: None,
            completing: BTreeSet::new(),
            ended: Vec::new(),
            out,
        };
        // The names in it are short: they were checked where they came from.
        let _ = recording.out.line(Event::Started(recording.settings.started.clone()));
        recording
    }

    /// `now` is when it happened. While much waits, that is earlier than it is.
    pub fn handle(&mut self, now: Instant, input: Input) -> Result<(), Refusal> {
        self.out.now = self.out.now.max(now);
        let result = match input {
            Input::Completed(file) => {
                self.completed(file);
                Ok(())
            }
            _ if self.stopping.is_some() => Err(Refusal::Ended),
            Input::Stop(reason) => {
                self.stop(reason);
                Ok(())
            }
            Input::Failed(failure) => {
                self.stop(failure.into());
                Ok(())
            }
            Input::TrackBegan { track, participant, source, codec } => self.begin(track, participant, source, codec),
            Input::TrackEnded(track) => self.end(&track, TrackEnd::Unpublished),
            Input::Tapped { track, tapped } => self.tapped(&track, tapped),
            Input::Overrun(track) => self.overrun(&track),
            Input::Mute { track, muted } => self.mute(track, muted),
            Input::Participant { participant, identity, name } => {
                self.out.line(Event::Participant { participant, identity, name })
            }
            Input::ParticipantLeft(participant) => {
                self.clocks.remove(&participant);
                self.out.line(Event::ParticipantLeft { participant })
            }
            Input::NotRecorded { track, participant, source, reason } => {
                self.out.line(Event::NotRecorded { track, participant, source, reason })
            }
            Input::Speakers(participants) => self.out.line(Event::Speakers { participants }),
            Input::Chat { id, participant, text } => self.out.line(Event::Chat { id, participant, text }),
        };
        self.keep_limits();
        result
    }

    /// To be called at the [deadline](Self::next_deadline), if nothing that came before waits to be handled.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.out.now = self.out.now.max(now);
        for recorded in self.tracks.values_mut() {
            recorded.advance(&mut self.out);
        }
        self.due = self.tracks.values().filter_map(Recorded::next_deadline).min();
        self.keep_limits();
    }

    /// May be early by as much as a track has done since.
    pub fn next_deadline(&self) -> Option<Instant> {
        let end = self.settings.duration_max.and_then(|most| self.out.began.checked_add(most));
        [self.due, end.filter(|_| self.stopping.is_none())].into_iter().flatten().min()
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.queue.pop_front()
    }

    fn begin(
        &mut self,
        track: TrackSid,
        participant: ParticipantSid,
        source: Source,
        codec: Codec,
    ) -> Result<(), Refusal> {
        let codec = if codec == Codec::Red { Codec::Opus } else { codec };
        let before = self.tracks.get(&track);
        if before.is_some_and(|before| before.codec() == codec) {
            return Ok(());
        }
        if before.is_none() && self.tracks.len() >= TRACKS_MAX {
            return Err(Refusal::TooManyTracks);
        }
        if self.files_begun >= FILES_MAX {
            return Err(Refusal::TooManyFiles);
        }
        let number = self.numbers.get(&track).copied().unwrap_or_default();
        let container = if codec == Codec::H264 { Container::Matroska } else { Container::WebM };
        let file = TrackFile::new(self.settings.epoch, &track, number, container)?;
        let is_muted = before.is_some_and(|before| before.is_muted);
        if before.is_some() {
            self.end(&track, TrackEnd::CodecChanged)?;
        }
        self.numbers.insert(track.clone(), number.saturating_add(1));
        self.files_begun = self.files_begun.saturating_add(1);
        let mut recorded = Recorded::new(file, participant, source, codec, is_muted);
        recorded.advance(&mut self.out);
        self.due = earliest(self.due, recorded.next_deadline());
        self.tracks.insert(track, recorded);
        Ok(())
    }

    fn tapped(&mut self, track: &TrackSid, tapped: Tapped) -> Result<(), Refusal> {
        let recorded = self.tracks.get_mut(track).ok_or(Refusal::UnknownTrack)?;
        let input = match tapped {
            Tapped::Packet(packet) => crate::Input::Packet(packet),
            Tapped::Report { ntp, rtp, received } => {
                let participant = recorded.participant();
                // Somebody who left may have had tracks for a moment longer.
                if self.clocks.len() > TRACKS_MAX {
                    self.clocks.retain(|one, _| one == participant);
                }
                let clock = self.clocks.entry(participant.clone()).or_default();
                crate::Input::Report(Report { timestamp: rtp, at: clock.local(ntp, received) })
            }
        };
        recorded.handle(input, &mut self.out);
        self.due = earliest(self.due, recorded.next_deadline());
        Ok(())
    }

    fn overrun(&mut self, track: &TrackSid) -> Result<(), Refusal> {
        let now = self.out.now;
        let goes_on = self.overrun.filter(|before| now.saturating_duration_since(before.last) <= OVERRUN_PAUSE);
        let first = goes_on.map_or(now, |before| before.first);
        self.overrun = Some(Overrun { first, last: now });
        self.tracks.get_mut(track).ok_or(Refusal::UnknownTrack)?.overrun(now);
        Ok(())
    }

    fn mute(&mut self, track: TrackSid, muted: bool) -> Result<(), Refusal> {
        let recorded = self.tracks.get_mut(&track).ok_or(Refusal::UnknownTrack)?;
        if recorded.is_muted != muted {
            recorded.is_muted = muted;
            self.out.line(Event::Mute { track, muted })?;
        }
        Ok(())
    }

    fn end(&mut self, track: &TrackSid, reason: TrackEnd) -> Result<(), Refusal> {
        let recorded = self.tracks.remove(track).ok_or(Refusal::UnknownTrack)?;
        self.completing.extend(recorded.close(reason, &mut self.out));
        Ok(())
    }

    fn keep_limits(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let age = self.out.now.saturating_duration_since(self.out.began);
        let is_too_long = self.settings.duration_max.is_some_and(|most| age >= most);
        let is_too_large = self.settings.bytes_max.is_some_and(|most| self.out.bytes >= most);
        let overrun = self.overrun.map(|overrun| overrun.last.saturating_duration_since(overrun.first));
        if is_too_long || is_too_large {
            self.stop(StopReason::LimitReached);
        } else if overrun.is_some_and(|overrun| overrun >= OVERRUN_MAX) {
            self.stop(StopReason::DiskSlow);
        }
    }

    fn stop(&mut self, reason: StopReason) {
        self.stopping = Some(reason);
        self.due = None;
        for recorded in std::mem::take(&mut self.tracks).into_values() {
            self.completing.extend(recorded.close(TrackEnd::Stopped, &mut self.out));
        }
        self.conclude();
    }

    fn completed(&mut self, file: FileEnd) {
        if self.completing.remove(&file.file) {
            self.ended.push(file);
            self.conclude();
        }
    }

    /// The end, once every file has come to its own.
    fn conclude(&mut self) {
        if let Some(reason) = self.stopping
            && self.completing.is_empty()
        {
            let _ = self.out.line(Event::Stopped { reason });
            self.out.queue.push_back(Output::Ended(Ended { reason, files: std::mem::take(&mut self.ended) }));
        }
    }
}

impl Out {
    fn line(&mut self, event: Event) -> Result<(), Refusal> {
        let line = Line { at_us: self.unix_us(self.now), event }.encode();
        if line.len() > LINE_BYTES_MAX {
            return Err(Refusal::LineTooLong);
        }
        self.count(line.len());
        self.queue.push_back(Output::Line(line));
        Ok(())
    }

    fn create(&mut self, file: &TrackFile, bytes: Bytes) {
        self.count(bytes.len());
        self.queue.push_back(Output::Create { file: file.clone(), bytes });
    }

    fn append(&mut self, file: &TrackFile, bytes: Bytes) {
        self.count(bytes.len());
        self.queue.push_back(Output::Append { file: file.clone(), bytes });
    }

    fn count(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    fn unix_us(&self, at: Instant) -> u64 {
        match at.checked_duration_since(self.began) {
            Some(after) => self.began_us.saturating_add(microseconds(after)),
            None => self.began_us.saturating_sub(microseconds(self.began.saturating_duration_since(at))),
        }
    }
}

fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    [one, other].into_iter().flatten().min()
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
