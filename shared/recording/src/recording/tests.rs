use std::{
    collections::BTreeMap,
    io::{self, Cursor, Read, Seek, SeekFrom, Write},
};

use plenary_model::{NodeId, RoomSid};

use super::*;
use crate::{
    Frame, Patch, RepairError, Storage,
    matroska::tests::read_back,
    repair,
    session_file::{GapReason, SessionFile},
    testing::{Random, Sender, start},
};

const MS: Duration = Duration::from_millis(1);
const EPOCH: Epoch = Epoch { number: 7, boot: 0xFEED };
const UNIX_US: u64 = 1_764_000_000_000_000;

/// Files in memory, of which one operation fails, half done.
#[derive(Default)]
struct Disk {
    parts: BTreeMap<TrackFile, Part>,
    whole: BTreeMap<TrackFile, Vec<u8>>,
    session: Vec<u8>,
    operations: usize,
    fails_at: Option<usize>,
}

#[derive(Default)]
struct Part {
    bytes: Vec<u8>,
    /// As much as was written before something failed.
    sound: usize,
    is_broken: bool,
}

impl Disk {
    /// Whether the next operation is one that is done.
    fn is_done(&mut self) -> bool {
        self.operations += 1;
        self.fails_at != Some(self.operations)
    }

    fn append(&mut self, file: &TrackFile, bytes: &[u8]) -> bool {
        let is_done = self.is_done();
        let Some(part) = self.parts.get_mut(file).filter(|part| !part.is_broken) else { return true };
        part.bytes.extend(if is_done { bytes } else { &bytes[..bytes.len() / 2] });
        part.is_broken |= !is_done;
        if is_done {
            part.sound = part.bytes.len();
        }
        is_done
    }

    /// Does it, or says that it could not.
    fn perform(&mut self, output: Output) -> (bool, Option<Input>) {
        match output {
            Output::KeyframeNeeded(_) | Output::Ended(_) => (true, None),
            Output::Line(line) => {
                let is_done = self.is_done();
                if is_done {
                    self.session.extend(line);
                }
                (is_done, None)
            }
            Output::Create { file, bytes } => {
                assert!(!self.whole.contains_key(&file));
                assert!(self.parts.insert(file.clone(), Part::default()).is_none(), "{file} is there");
                (self.append(&file, &bytes), None)
            }
            Output::Append { file, bytes } => {
                assert!(self.parts.contains_key(&file), "{file} was not created");
                (self.append(&file, &bytes), None)
            }
            Output::Complete { file, finish, duration } => {
                let mut is_done = self.append(&file, &finish.tail);
                for Patch { at, bytes } in finish.patches {
                    let part = &self.parts[&file];
                    if part.is_broken || !self.is_done() {
                        is_done = false;
                        break;
                    }
                    let at = usize::try_from(at).unwrap();
                    self.parts.get_mut(&file).unwrap().bytes[at..at + bytes.len()].copy_from_slice(&bytes);
                }
                let is_complete = is_done && self.is_done();
                let bytes = self.parts[&file].bytes.len() as u64;
                if is_complete {
                    let part = self.parts.remove(&file).unwrap();
                    self.whole.insert(file.clone(), part.bytes);
                }
                (is_complete, Some(Input::Completed(FileEnd { file, bytes, duration, is_complete })))
            }
        }
    }

    fn told(&self) -> SessionFile {
        SessionFile::read(EPOCH, &self.session).unwrap()
    }
}

/// What repair has in its hands.
struct Memory(Cursor<Vec<u8>>);

impl Read for Memory {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Memory {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl Storage for Memory {
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.0.get_mut().truncate(usize::try_from(length).unwrap());
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The frames of a file that was left as it is; none if there is no whole cluster.
fn frames_left(bytes: &[u8]) -> Vec<Frame> {
    let mut memory = Memory(Cursor::new(bytes.to_vec()));
    match repair(&mut memory) {
        Ok(_) => read_back(memory.0.get_ref()),
        Err(RepairError::Empty | RepairError::Headless) => Vec::new(),
        Err(error) => panic!("{error}"),
    }
}

struct Publisher {
    track: TrackSid,
    sender: Sender,
    timestamp: u32,
    pictures: u32,
}

/// A meeting and its recording. Every step takes 20 ms.
struct Meeting {
    began: Instant,
    now: Instant,
    recording: Recording,
    disk: Disk,
    publishers: Vec<Publisher>,
    /// Pictures from one key frame to the next.
    key_every: u32,
    needed: Vec<TrackSid>,
    ended: Option<Ended>,
    /// How many operations there were before somebody ended it.
    operations_before_stop: Option<usize>,
}

impl Meeting {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let began = start();
        let started = Started {
            version: 1,
            recording: "EG_x".into(),
            room: RoomSid::from("RM_r"),
            room_name: "../r".into(),
            node: NodeId::from("ND_n"),
            predecessor: None,
            former: None,
        };
        let mut settings = Settings { epoch: EPOCH, started, bytes_max: None, duration_max: None };
        change(&mut settings);
        let recording = Recording::new(began, UNIX_US, settings);
        let (disk, publishers, needed) = (Disk::default(), Vec::new(), Vec::new());
        Self {
            began,
            now: began,
            recording,
            disk,
            publishers,
            key_every: 25,
            needed,
            ended: None,
            operations_before_stop: None,
        }
    }

    fn handle(&mut self, input: Input) -> Result<(), Refusal> {
        let result = self.recording.handle(self.now, input);
        self.perform();
        result
    }

    fn perform(&mut self) {
        while let Some(output) = self.recording.poll_output() {
            assert_eq!(self.ended, None, "{output:?} after the end");
            match &output {
                Output::KeyframeNeeded(track) => self.needed.push(track.clone()),
                Output::Ended(ended) => self.ended = Some(ended.clone()),
                _ => {}
            }
            let (is_done, answer) = self.disk.perform(output);
            if !is_done {
                let _ = self.recording.handle(self.now, Input::Failed(DiskFailure::Full));
            }
            if let Some(answer) = answer {
                self.recording.handle(self.now, answer).unwrap();
            }
        }
        let first = self.recording.tracks.values().filter_map(Recorded::next_deadline).min();
        assert!(
            first.is_none_or(|first| self.recording.next_deadline().is_some_and(|due| due <= first)),
            "none is missed"
        );
    }

    fn publish(&mut self, track: &str, codec: Codec) -> Result<(), Refusal> {
        let track = TrackSid::from(track);
        self.handle(Input::TrackBegan {
            track: track.clone(),
            participant: ParticipantSid::from("PA_ann"),
            source: if codec == Codec::Opus { Source::Microphone } else { Source::Camera },
            codec,
        })?;
        self.publishers.retain(|publisher| publisher.track != track);
        let sender = Sender::new(codec, self.publishers.len() as u64);
        self.publishers.push(Publisher { track, sender, timestamp: 0, pictures: 0 });
        Ok(())
    }

    /// A frame of each, of video some of them key frames, and of those packets only some.
    fn step(&mut self, mut arrives: impl FnMut(&TrackSid) -> bool) {
        self.now += 20 * MS;
        let mut inputs = Vec::new();
        for Publisher { track, sender, timestamp, pictures } in &mut self.publishers {
            let picture = sender.picture(*pictures % self.key_every == 0);
            *timestamp = timestamp.wrapping_add(if sender.codec == Codec::Opus { 960 } else { 1_800 });
            *pictures += 1;
            for packet in sender.packets(&picture, *timestamp, self.now) {
                if arrives(track) {
                    inputs.push(Input::Tapped { track: track.clone(), tapped: Tapped::Packet(packet) });
                }
            }
        }
        for input in inputs {
            let _ = self.handle(input);
        }
        self.wait(Duration::ZERO);
    }

    fn steps(&mut self, count: u32) {
        (0..count).for_each(|_| self.step(|_| true));
    }

    /// Nothing comes for so long.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(deadline) = self.recording.next_deadline().filter(|deadline| *deadline <= until) {
            self.now = self.now.max(deadline);
            self.recording.handle_timeout(self.now);
            self.perform();
            if self.ended.is_some() {
                break;
            }
        }
        self.now = until;
    }

    fn stop(&mut self) -> Ended {
        if self.ended.is_none() {
            self.operations_before_stop = Some(self.disk.operations);
            self.handle(Input::Stop(StopReason::Requested)).unwrap();
        }
        self.ended.clone().expect("the end is the answer to the last completion")
    }

    fn events(&self) -> Vec<Event> {
        self.disk.told().lines.into_iter().map(|line| line.event).collect()
    }
}

fn file(track: &str, number: u32, container: Container) -> TrackFile {
    TrackFile::new(EPOCH, &TrackSid::from(track), number, container).unwrap()
}

#[test]
fn a_key_frame_is_asked_for_where_none_came_for_half_a_minute() {
    let mut meeting = Meeting::new();
    meeting.key_every = 3_000;
    meeting.publish("TR_VC", Codec::Vp8).unwrap();
    meeting.publish("TR_AM", Codec::Opus).unwrap();
    meeting.steps(1_500);
    assert_eq!(meeting.needed.len(), 1, "the first of all");
    meeting.steps(3_010);
    assert_eq!(meeting.needed, vec![TrackSid::from("TR_VC"); 3], "at 30 and 90 s, with one at 60");
}

#[test]
fn a_meeting_becomes_a_file_per_track_and_a_story() {
    let mut meeting = Meeting::new();
    let ann = ParticipantSid::from("PA_ann");
    let participant = Input::Participant { participant: ann.clone(), identity: "ann".into(), name: "Ann\n".into() };
    meeting.handle(participant).unwrap();
    meeting.publish("TR_VC", Codec::Vp8).unwrap();
    meeting.publish("TR_AM", Codec::Red).unwrap();
    meeting.publishers[1].sender.codec = Codec::Opus;
    meeting.publish("TR_VH", Codec::H264).unwrap();
    meeting.steps(150);
    meeting.handle(Input::Mute { track: "TR_AM".into(), muted: true }).unwrap();
    meeting.handle(Input::Mute { track: "TR_AM".into(), muted: true }).unwrap();
    meeting.handle(Input::Speakers(vec![ann.clone()])).unwrap();
    let chat = Input::Chat { id: "1".into(), participant: ann.clone(), text: "hello".into() };
    meeting.handle(chat).unwrap();
    meeting.handle(Input::TrackEnded("TR_VC".into())).unwrap();
    meeting.handle(Input::ParticipantLeft(ann)).unwrap();
    let ended = meeting.stop();

    assert_eq!(ended.reason, StopReason::Requested);
    let files =
        [file("TR_VC", 0, Container::WebM), file("TR_AM", 0, Container::WebM), file("TR_VH", 0, Container::Matroska)];
    assert_eq!(ended.files.iter().map(|end| &end.file).collect::<Vec<_>>(), files.iter().collect::<Vec<_>>());
    for end in &ended.files {
        let bytes = &meeting.disk.whole[&end.file];
        assert!(end.is_complete);
        assert_eq!((end.bytes, end.duration), (bytes.len() as u64, 3_000 * MS));
        let frames = read_back(bytes);
        // Sound's and a key frame's packets end with the next one's, or with the track.
        assert_eq!(frames.len(), 150, "{}", end.file);
        assert_eq!(frames.last().unwrap().at, 2_980 * MS);
    }
    assert_eq!(meeting.needed, [TrackSid::from("TR_VC"), TrackSid::from("TR_VH")]);
    let events = meeting.events();
    let zero_us = UNIX_US + 20_000;
    let began = |file: &TrackFile, source, codec| Event::Track {
        file: file.clone(),
        participant: "PA_ann".into(),
        source,
        codec,
        zero_us,
    };
    for event in [
        began(&files[0], Source::Camera, Codec::Vp8),
        began(&files[1], Source::Camera, Codec::Opus),
        began(&files[2], Source::Camera, Codec::H264),
        Event::TrackEnded { file: files[0].clone(), reason: TrackEnd::Unpublished },
        Event::TrackEnded { file: files[1].clone(), reason: TrackEnd::Stopped },
        Event::Mute { track: "TR_AM".into(), muted: true },
    ] {
        assert_eq!(events.iter().filter(|one| **one == event).count(), 1, "{event:?} in {events:?}");
    }
    assert_eq!(events.len(), 12, "{events:?}");
    assert_eq!(events.last(), Some(&Event::Stopped { reason: StopReason::Requested }));
    assert_eq!(meeting.disk.told().lines.last().unwrap().at_us, UNIX_US + 3_000_000);
}

#[test]
fn another_codec_goes_on_in_another_file_and_the_same_one_in_the_same() {
    let mut meeting = Meeting::new();
    meeting.publish("TR_V", Codec::Vp8).unwrap();
    meeting.steps(50);
    meeting.publish("TR_V", Codec::H264).unwrap();
    meeting.steps(50);
    // The publisher's stream begins anew.
    meeting.publish("TR_V", Codec::H264).unwrap();
    meeting.publishers[0].sender.ssrc = 2;
    meeting.steps(50);
    meeting.handle(Input::TrackEnded("TR_V".into())).unwrap();
    meeting.publish("TR_V", Codec::Vp8).unwrap();
    meeting.steps(50);
    let files: Vec<_> = meeting.stop().files.into_iter().map(|end| end.file).collect();
    let expected =
        [(0, Container::WebM), (1, Container::Matroska), (2, Container::WebM)].map(|(n, kind)| file("TR_V", n, kind));
    assert_eq!(files, expected);
    assert_eq!(files.iter().map(|file| read_back(&meeting.disk.whole[file]).len()).collect::<Vec<_>>(), [50, 100, 50]);
    let ends: Vec<_> = meeting
        .events()
        .into_iter()
        .filter_map(|event| if let Event::TrackEnded { reason, .. } = event { Some(reason) } else { None })
        .collect();
    assert_eq!(ends, [TrackEnd::CodecChanged, TrackEnd::Unpublished, TrackEnd::Stopped]);
}

#[test]
fn nothing_is_held_back_for_long() {
    for codec in [Codec::Vp8, Codec::Opus] {
        let mut meeting = Meeting::new();
        meeting.publish("TR_x", codec).unwrap();
        meeting.steps(10);
        let part = |meeting: &Meeting| frames_left(&meeting.disk.parts.values().next().unwrap().bytes).len();
        assert_eq!(part(&meeting), 0);
        meeting.wait(CLUSTER_AGE_MAX);
        assert_eq!(part(&meeting), 10, "{codec:?}");
        for _ in 0..300 {
            meeting.steps(1);
            let sent = meeting.publishers[0].pictures as usize;
            // As many frames as are sent in the longest time.
            assert!(sent - part(&meeting) <= 75, "{sent}");
        }
    }
}

#[test]
fn sound_and_pictures_of_one_person_follow_one_clock() {
    let mut meeting = Meeting::new();
    for (track, codec) in [("TR_A", Codec::Opus), ("TR_V", Codec::Vp8)] {
        meeting.publish(track, codec).unwrap();
    }
    meeting.steps(50);
    // Both say that what has arrived last was made at the same time, the one 80 ms after the other said so.
    let ntp = 5u64 << 32;
    for (at, track) in ["TR_A", "TR_V"].into_iter().enumerate() {
        let rtp = meeting.publishers[at].timestamp;
        meeting.now += if at == 0 { Duration::ZERO } else { 80 * MS };
        let tapped = Tapped::Report { ntp, rtp, received: meeting.now };
        meeting.handle(Input::Tapped { track: track.into(), tapped }).unwrap();
    }
    meeting.stop();
    let mut zeros: BTreeMap<_, u64> = BTreeMap::new();
    for event in meeting.events() {
        if let Event::Track { file, zero_us, .. } | Event::TrackZero { file, zero_us } = event {
            zeros.insert(file, zero_us);
        }
    }
    let zeros: Vec<_> = zeros.into_values().collect();
    assert_eq!((zeros.len(), zeros[0]), (2, zeros[1]));
}

#[test]
fn holes_are_told_by_their_cause() {
    let mut meeting = Meeting::new();
    meeting.publish("TR_A", Codec::Opus).unwrap();
    meeting.steps(50);
    meeting.step(|_| false);
    meeting.steps(50);
    meeting.step(|_| false);
    meeting.handle(Input::Overrun("TR_A".into())).unwrap();
    meeting.steps(50);
    meeting.stop();
    let gaps: Vec<_> = meeting
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Gap { from_us, until_us, reason, .. } => Some((from_us, until_us, reason)),
            _ => None,
        })
        .collect();
    assert_eq!(gaps, [(980_000, 1_020_000, GapReason::Loss), (2_000_000, 2_040_000, GapReason::Overrun)]);
}

#[test]
fn a_disk_that_does_not_keep_up_ends_it_in_time_and_one_that_stalls_once_does_not() {
    let seconds = |times: &[u64]| {
        let mut meeting = Meeting::new();
        meeting.publish("TR_A", Codec::Opus).unwrap();
        for at in times {
            let until = meeting.began + Duration::from_secs(*at);
            meeting.wait(until - meeting.now);
            let _ = meeting.handle(Input::Overrun("TR_A".into()));
        }
        meeting.ended.map(|ended| ended.reason)
    };
    assert_eq!(seconds(&[1, 2, 30, 31, 60]), None);
    assert_eq!(seconds(&[1, 5, 9]), None);
    assert_eq!(seconds(&[1, 5, 9, 11]), Some(StopReason::DiskSlow));
}

#[test]
fn what_is_too_long_or_too_large_ends() {
    let mut meeting = Meeting::with(|settings| settings.duration_max = Some(Duration::from_secs(2)));
    meeting.publish("TR_A", Codec::Opus).unwrap();
    meeting.steps(10);
    meeting.wait(Duration::from_secs(5));
    assert_eq!(
        meeting.ended.clone().map(|ended| (ended.reason, ended.files.len())),
        Some((StopReason::LimitReached, 1))
    );
    assert_eq!(meeting.disk.told().lines.last().unwrap().at_us, UNIX_US + 2_000_000);
    assert_eq!(meeting.recording.next_deadline(), None);
    assert_eq!(meeting.publish("TR_B", Codec::Opus), Err(Refusal::Ended));

    let mut meeting = Meeting::with(|settings| settings.bytes_max = Some(100_000));
    meeting.publish("TR_V", Codec::Vp8).unwrap();
    meeting.steps(2_000);
    let ended = meeting.stop();
    assert_eq!(ended.reason, StopReason::LimitReached);
    let bytes = ended.files[0].bytes + meeting.disk.session.len() as u64;
    assert!((100_000..150_000).contains(&bytes), "{bytes}");
}

#[test]
fn what_cannot_be_recorded_is_refused_by_name() {
    let mut meeting = Meeting::new();
    for name in ["../../x", "TR_../x", ""] {
        assert_eq!(meeting.publish(name, Codec::Vp8), Err(Refusal::NotAnId(NotAnId)), "{name}");
    }
    for track in 0..TRACKS_MAX {
        meeting.publish(&format!("TR_{track}"), Codec::Opus).unwrap();
    }
    assert_eq!(meeting.publish("TR_more", Codec::Opus), Err(Refusal::TooManyTracks));
    let unknown = TrackSid::from("TR_more");
    assert_eq!(meeting.handle(Input::TrackEnded(unknown.clone())), Err(Refusal::UnknownTrack));
    assert_eq!(meeting.handle(Input::Mute { track: unknown, muted: true }), Err(Refusal::UnknownTrack));
    let chat = |text| Input::Chat { id: "1".into(), participant: "".into(), text };
    assert_eq!(meeting.handle(chat("\u{1}".repeat(50_000))), Err(Refusal::LineTooLong));
    assert_eq!(meeting.handle(chat("a".repeat(65_535))), Ok(()));

    let mut refused = None;
    for n in 0..2 * FILES_MAX {
        refused = meeting.publish("TR_0", if n % 2 == 0 { Codec::Vp8 } else { Codec::Vp9 }).err();
        if refused.is_some() {
            break;
        }
    }
    assert_eq!(refused, Some(Refusal::TooManyFiles));
    assert_eq!(meeting.stop().reason, StopReason::Requested);
    assert_eq!(meeting.disk.told().lines_unread, 0);
}

/// Some seconds in which all kinds of things happen, from a seed.
fn wild_meeting(seed: u64, fails_at: Option<usize>) -> Meeting {
    let mut random = Random(seed);
    let mut meeting = Meeting::new();
    meeting.disk.fails_at = fails_at;
    let codecs = [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1, Codec::Opus, Codec::Opus];
    for _ in 0..300 {
        if meeting.ended.is_some() {
            break;
        }
        let track = format!("TR_{}", random.below(4));
        let sid = TrackSid::from(&*track);
        let _ = match random.below(60) {
            0..3 => meeting.publish(&track, codecs[random.below(6) as usize]),
            3 => {
                meeting.publishers.retain(|publisher| publisher.track != sid);
                meeting.handle(Input::TrackEnded(sid))
            }
            4 => meeting.handle(Input::Mute { track: sid, muted: random.percent(50) }),
            5 => meeting.handle(Input::Chat { id: "1".into(), participant: "PA_b".into(), text: "\n{}".into() }),
            6 => meeting.handle(Input::Overrun(sid)),
            7 => {
                let (ntp, rtp, received) = (random.number(), random.number() as u32, meeting.now);
                meeting.handle(Input::Tapped { track: sid, tapped: Tapped::Report { ntp, rtp, received } })
            }
            8 => meeting.handle(Input::ParticipantLeft("PA_ann".into())),
            9 => {
                meeting.wait(Duration::from_millis(random.below(3_000)));
                Ok(())
            }
            10 => {
                meeting.publishers.iter_mut().for_each(|publisher| publisher.sender.ssrc += 1);
                Ok(())
            }
            _ => Ok(()),
        };
        let loss = random.below(10);
        meeting.step(|_| !random.percent(loss));
    }
    meeting.stop();
    meeting
}

#[test]
fn whatever_happens_every_file_is_whole_and_told() {
    for seed in 0..40 {
        let meeting = wild_meeting(seed, None);
        let ended = meeting.ended.as_ref().unwrap();
        assert!(meeting.disk.parts.is_empty() && ended.files.iter().all(|end| end.is_complete), "seed {seed}");
        assert_eq!(ended.files.len(), meeting.disk.whole.len());
        let told = meeting.disk.told();
        assert_eq!(told.lines_unread, 0);
        for (file, bytes) in &meeting.disk.whole {
            let frames = read_back(bytes);
            assert!(frames[0].is_key && frames.is_sorted_by_key(|frame| frame.at), "seed {seed}, {file}");
            let begins =
                told.lines.iter().filter(|line| matches!(&line.event, Event::Track { file: one, .. } if one == file));
            let ends = told
                .lines
                .iter()
                .filter(|line| matches!(&line.event, Event::TrackEnded { file: one, .. } if one == file));
            assert_eq!((begins.count(), ends.count()), (1, 1), "seed {seed}, {file}");
        }
        assert!(matches!(told.lines.last().unwrap().event, Event::Stopped { .. }));
    }
}

#[test]
fn after_a_failure_of_any_operation_all_that_was_written_before_can_be_read() {
    let seed = 3;
    let meeting = wild_meeting(seed, None);
    let (operations, before_stop) = (meeting.disk.operations, meeting.operations_before_stop.unwrap());
    assert!(before_stop > 100, "{before_stop}");
    for fails_at in 1..=operations {
        let meeting = wild_meeting(seed, Some(fails_at));
        let ended = meeting.ended.as_ref().unwrap();
        let reason = if fails_at <= before_stop { StopReason::DiskFull } else { StopReason::Requested };
        assert_eq!(ended.reason, reason, "operation {fails_at} of seed {seed}");
        assert_eq!(ended.files.iter().filter(|end| !end.is_complete).count(), meeting.disk.parts.len());
        for (file, part) in &meeting.disk.parts {
            let before = frames_left(&part.bytes[..part.sound]);
            assert!(frames_left(&part.bytes).starts_with(&before), "{file}, operation {fails_at} of seed {seed}");
        }
        for bytes in meeting.disk.whole.values() {
            assert!(!read_back(bytes).is_empty());
        }
        match SessionFile::read(EPOCH, &meeting.disk.session) {
            Ok(told) => assert_eq!(told.lines_unread, 0),
            // Its first line was what failed.
            Err(_) => assert_eq!(fails_at, 1),
        }
    }
}
