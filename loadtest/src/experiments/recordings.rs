//! A recorder dies, sleeps, or has no room left on its disk. Two nodes record to one directory what is said at the third, so
//! that one of them can end without whom it records. Every packet says when it was sent, so that what a file holds tells by
//! itself what is missing. EIO, for which a disk has to lie, is a test of the writer.

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use matroska_demuxer::{Frame, MatroskaFile};
use nix::sys::signal::Signal;
use plenary_recording::session_file::{Epoch, Event, Former, SessionFile, StopReason, TrackFile, merge};
use serde_json::{Value, json};

use super::{
    NODES, Plan,
    crashes::{GHOSTS, survivors, told},
    field::Field,
    people::ROOM,
    person::Person,
    processes::Placement,
    report::Findings,
};
use crate::bot::realtime_ns;

/// E13.
pub fn killed(plan: &Plan) -> Result<Findings> {
    let mut room = RecordedRoom::new(plan, &shelf(plan)?)?;
    let (mut toll, mut lost) = (Toll::default(), Vec::new());
    let rounds = if plan.is_short { 1 } else { 10 };
    let whole = repeat(rounds, || {
        let recording = room.record()?;
        let (epoch, at) = recording.held(&room.field)?;
        let killed_ns = realtime_ns();
        room.field.kill(at)?;
        toll.taken_over.push(Some(recording.taken_over(&mut room.field, epoch)?));
        room.field.people.run_for(SPEECH)?;
        let made = recording.stop(&mut room.field)?;
        let [old, new] = made.sessions.as_slice() else { bail!("{} session files", made.sessions.len()) };
        ensure!(stopped(old).is_none(), "who was killed says that it stopped");
        let former = Some(Former { epoch: epoch.number, node: old.started.node.clone() });
        let follows = new.started.predecessor.is_some_and(|before| before.epoch == epoch);
        ensure!(follows && new.started.former == former, "it does not say whom it follows: {:?}", new.started);
        ensure!(stopped(new) == Some(StopReason::Requested), "it stopped as {:?}", stopped(new));
        ensure!(toll.note(&made)? > 0.0, "something was recorded twice");
        lost.extend(made.parts.first().map(|before| seconds(killed_ns - before.ends_ns)));
        room.field.restart(at)?;
        room.settle()
    });
    let mut findings = Findings::default();
    findings.must("killed: recordings that went on elsewhere and are whole", whole.are_well(), whole);
    findings.bounded("lost of what was said before", &mut lost, LOST_S);
    toll.tell(&mut findings);
    survivors(&room.field, &room.elsewhere, &mut findings);
    Ok(findings)
}

/// E14.
pub fn paused(plan: &Plan) -> Result<Findings> {
    let mut room = RecordedRoom::new(plan, &shelf(plan)?)?;
    let mut toll = Toll::default();
    let rounds = if plan.is_short { 1 } else { 3 };
    let whole = repeat(rounds, || {
        let recording = room.record()?;
        let (epoch, at) = recording.held(&room.field)?;
        let asleep = Instant::now();
        room.field.signal(at, Signal::SIGSTOP)?;
        toll.taken_over.push(Some(recording.taken_over(&mut room.field, epoch)?));
        room.field.people.run_for(ASLEEP.saturating_sub(asleep.elapsed()))?;
        let touched = recording.wake(&mut room.field, at)?;
        ensure!(!touched.is_empty(), "it has no files open");
        let foreign: Vec<_> = touched.iter().filter(|name| !name.starts_with(&epoch.to_string())).collect();
        ensure!(foreign.is_empty(), "awake, it has opened {foreign:?}");
        room.field.people.run_for(SPEECH)?;
        let again = recording.open_at(room.field.node(at)?.process.id());
        ensure!(again.is_empty(), "when it has closed them, it opens {again:?}");
        let made = recording.stop(&mut room.field)?;
        let [old, new] = made.sessions.as_slice() else { bail!("{} session files", made.sessions.len()) };
        // It says so late: by the rules of a session file that counts for nothing.
        let is_fenced = old.lines.last().is_some_and(|last| last.at_us > new.at_us);
        ensure!(is_fenced && stopped(old) == Some(StopReason::Moved), "it stopped as {:?}", stopped(old));
        ensure!(stopped(new) == Some(StopReason::Requested), "the next one stopped as {:?}", stopped(new));
        // Both may have what had come for the one that slept.
        toll.note(&made)?;
        room.settle()
    });
    let mut findings = Findings::default();
    let what = format!("asleep for {} s: recordings that went on elsewhere, whole and left alone", ASLEEP.as_secs());
    findings.must(what, whole.are_well(), whole);
    toll.tell(&mut findings);
    survivors(&room.field, &room.elsewhere, &mut findings);
    Ok(findings)
}

/// E15.
pub fn disk_full(plan: &Plan) -> Result<Findings> {
    let shelf = shelf(plan)?;
    // It goes away with the namespace.
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", DISK_SIZE, "none"]).arg(&shelf).status()?;
    ensure!(mounted.success(), "nothing can be mounted");
    let mut room = RecordedRoom::new(plan, &shelf)?;
    let mut lost = Vec::new();
    let rounds = if plan.is_short { 1 } else { 3 };
    let failed = repeat(rounds, || {
        let recording = room.record()?;
        let filler = shelf.join("filler");
        let full_ns = room.field.people.meanwhile(|| fill(&filler))?;
        let over = recording.until(&mut room.field, |status| status == "EGRESS_FAILED")?;
        ensure!(text(&over, "error")? == "the disk is full", "{over}");
        room.field.people.run_for(Duration::from_secs(1))?;
        room.settle()?;
        let made = room.field.people.meanwhile(|| recording.read())?;
        let [part] = made.parts.as_slice() else { bail!("{} files", made.parts.len()) };
        lost.push(seconds(full_ns - part.ends_ns));
        // The next one has room again.
        Ok(fs::remove_file(filler)?)
    });
    let mut findings = Findings::default();
    findings.must("disk full: recordings that say so, and have a file that plays", failed.are_well(), failed);
    findings.bounded("lost of what was said before", &mut lost, LOST_S);
    survivors(&room.field, &[], &mut findings);
    Ok(findings)
}

/// Two nodes that record what the people of the third say.
struct RecordedRoom {
    field: Field,
    shelf: PathBuf,
    /// Who was not on the third at first.
    elsewhere: Vec<usize>,
    track: String,
}

impl RecordedRoom {
    fn new(plan: &Plan, shelf: &Path) -> Result<Self> {
        let mut field = Field::with(plan, Placement::InTurn, |at, node| {
            node.recordings = (at != SPEAKER).then(|| shelf.to_owned());
        })?;
        field.fill(PEOPLE)?;
        let there = field.on(SPEAKER);
        let speaker = there.first().and_then(|at| field.people.all.get(*at)).context("somebody on the third node")?;
        let ask = json!({ "room": ROOM, "identity": speaker.identity });
        let info = field.call(SPEAKER, "GetParticipant", &ask)?;
        let track = info.pointer("/tracks/0").context("a track")?;
        let elsewhere = (0..PEOPLE).filter(|at| !there.contains(at)).collect();
        Ok(Self { track: text(track, "sid")?.to_owned(), shelf: shelf.to_owned(), elsewhere, field })
    }

    /// Begins a recording, and lets people speak until there is something in it to lose.
    fn record(&mut self) -> Result<Recording> {
        let Self { field, shelf, track, .. } = self;
        // The speaker's own node has nowhere to record to.
        let ask = json!({ "room_name": ROOM, "track_id": track, "file": { "filepath": "{track_id}" } });
        let started = field.call_egress(SPEAKER + 1, "StartTrackEgress", &ask)?;
        let id = text(&started, "egress_id")?.to_owned();
        let recording = Recording { directory: shelf.join(&id), id };
        recording.until(field, |status| status == "EGRESS_ACTIVE")?;
        let begun = field.people.run_until(PATIENCE, |_| recording.is_written_after(None))?;
        ensure!(begun.is_some(), "{} has no file", recording.id);
        // A fault comes at any moment of what is written once a second.
        let more = Duration::from_millis(field.people.random.below(1_000));
        field.people.run_for(SPEECH + more)?;
        Ok(recording)
    }

    /// Until everybody is there, is shown the same, and has heard since now whom they listen to.
    fn settle(&mut self) -> Result<()> {
        let now_ns = realtime_ns();
        let hears = |one: &Person| one.is_here() && one.ears.values().all(|ear| ear.last_ns > now_ns);
        let settled = self.field.people.run_until(GHOSTS, |people| people.all.iter().all(hears) && people.agree())?;
        ensure!(settled.is_some(), "not everybody hears everybody: {}", told(&self.field));
        Ok(())
    }
}

/// Of one track.
struct Recording {
    id: String,
    directory: PathBuf,
}

impl Recording {
    /// What is told of it, once it is so.
    fn until(&self, field: &mut Field, is_so: impl Fn(&str) -> bool) -> Result<Value> {
        let begun = Instant::now();
        loop {
            // A busy node may say that it does not reach Redis, and is asked again.
            let listed = field.call_egress(SPEAKER, "ListEgress", &json!({ "egress_id": self.id }));
            let told = listed.as_ref().ok().and_then(|listed| listed.pointer("/items/0"));
            if let Some(told) = told
                && is_so(text(told, "status")?)
            {
                return Ok(told.clone());
            }
            ensure!(begun.elapsed() < PATIENCE, "still {listed:?}");
            field.people.run_for(LOOK_EVERY)?;
        }
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// In order.
    fn epochs(&self) -> Vec<Epoch> {
        let mut epochs: Vec<_> = self.names().iter().filter_map(|name| Epoch::of_session_file(name)).collect();
        epochs.sort();
        epochs
    }

    /// Whether a later epoch has a file of the track.
    fn is_written_after(&self, epoch: Option<Epoch>) -> bool {
        let names = self.names();
        let mut files = names.iter().map(|name| name.strip_suffix(TrackFile::PART).unwrap_or(name));
        files.any(|name| name.parse::<TrackFile>().is_ok_and(|file| Some(file.epoch()) > epoch))
    }

    /// The epoch, and the node that has its files open.
    fn held(&self, field: &Field) -> Result<(Epoch, usize)> {
        let epoch = *self.epochs().last().context("a session file")?;
        let has_it = |at: &usize| {
            field.node(*at).is_ok_and(|node| self.open_at(node.process.id()).contains(&epoch.session_file()))
        };
        Ok((epoch, (0..NODES).find(has_it).context("a node that records")?))
    }

    /// Its files that a process has open.
    fn open_at(&self, process: u32) -> BTreeSet<String> {
        let links = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
        let paths = links.filter_map(|link| fs::read_link(link.path()).ok());
        let own = paths.filter(|path| path.parent() == Some(&self.directory));
        own.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
    }

    /// How long it took until another node wrote the track, for whom this is still an active recording.
    fn taken_over(&self, field: &mut Field, epoch: Epoch) -> Result<Duration> {
        let taken_over = field.people.run_until(TAKEN_OVER_WITHIN, |_| self.is_written_after(Some(epoch)))?;
        self.until(field, |status| status == "EGRESS_ACTIVE")?;
        taken_over.with_context(|| format!("no other node records after {} s", TAKEN_OVER_WITHIN.as_secs()))
    }

    /// Wakes a node; which files it has open then, until it has none.
    fn wake(&self, field: &mut Field, at: usize) -> Result<BTreeSet<String>> {
        let Field { people, nodes, .. } = field;
        let (node, _) = nodes.get(at).context("a node")?;
        people.meanwhile(|| {
            let process = node.process.id();
            // It may close them faster than anybody can look.
            let mut touched = self.open_at(process);
            node.process.signal(Signal::SIGCONT)?;
            let awake = Instant::now();
            loop {
                let names = self.open_at(process);
                if names.is_empty() {
                    return Ok(touched);
                }
                ensure!(awake.elapsed() < PATIENCE, "awake, it goes on with {names:?}");
                touched.extend(names);
                sleep(Duration::from_millis(1));
            }
        })
    }

    /// Its files are whole then, all of them results, and nobody's.
    fn stop(&self, field: &mut Field) -> Result<Made> {
        field.call_egress(SPEAKER, "StopEgress", &json!({ "egress_id": self.id }))?;
        let over = self.until(field, |status| !["EGRESS_ACTIVE", "EGRESS_ENDING"].contains(&status))?;
        ensure!(text(&over, "status")? == "EGRESS_COMPLETE", "{over}");
        let made = field.people.meanwhile(|| self.read())?;
        let results = over.get("file_results").and_then(Value::as_array).map_or(0, Vec::len);
        ensure!(results == made.parts.len(), "{} files, and of these results: {over}", made.parts.len());
        let processes: Vec<_> = field.nodes.iter().map(|(node, _)| node.process.id()).collect();
        let is_nobodys = |_: &_| processes.iter().all(|process| self.open_at(*process).is_empty());
        ensure!(field.people.run_until(PATIENCE, is_nobodys)?.is_some(), "somebody has a file of it open");
        Ok(made)
    }

    fn read(&self) -> Result<Made> {
        let mut sessions = Vec::new();
        for epoch in self.epochs() {
            let session = SessionFile::read(epoch, &fs::read(self.directory.join(epoch.session_file()))?)?;
            ensure!(session.lines_unread == 0, "{epoch} has {} lines that cannot be read", session.lines_unread);
            sessions.push(session);
        }
        let unfinished: Vec<_> = self.names().into_iter().filter(|name| name.ends_with(TrackFile::PART)).collect();
        ensure!(unfinished.is_empty(), "not finished: {unfinished:?}");
        let mut parts = Vec::new();
        for line in merge(sessions.clone())?.lines {
            if let Event::Track { file, .. } = line.event {
                let path = self.directory.join(file.to_string());
                parts.push(play(&path).with_context(|| file.to_string())?);
            }
        }
        Ok(Made { sessions, parts })
    }
}

/// What there is of a recording.
struct Made {
    /// By epochs.
    sessions: Vec<SessionFile>,
    parts: Vec<Part>,
}

/// One file: when its first and its last packet were sent.
struct Part {
    begins_ns: i64,
    ends_ns: i64,
}

/// Reads it as a player does.
fn play(path: &Path) -> Result<Part> {
    let mut file = MatroskaFile::open(File::open(path)?)?;
    let (mut frame, mut sent_ns) = (Frame::default(), Vec::new());
    while file.next_frame(&mut frame)? {
        sent_ns.push(i64::from_be_bytes(*frame.data.last_chunk().context("a frame with a time")?));
    }
    ensure!(sent_ns.is_sorted_by(|one, next| one < next), "packets are there twice, or not in their order");
    let mut command = Command::new("ffprobe");
    command.args(["-v", "warning", "-count_frames", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"]);
    let played = command.arg(path).output().context("ffprobe, of the package ffmpeg")?;
    let complaint = String::from_utf8_lossy(&played.stderr);
    ensure!(played.status.success() && complaint.is_empty(), "{complaint}");
    let decoded = String::from_utf8_lossy(&played.stdout);
    ensure!(decoded.trim() == sent_ns.len().to_string(), "{} of {} frames play", decoded.trim(), sent_ns.len());
    let [begins_ns, .., ends_ns] = *sent_ns else { bail!("hardly anything is in it") };
    Ok(Part { begins_ns, ends_ns })
}

/// As the last line of an epoch says.
fn stopped(session: &SessionFile) -> Option<StopReason> {
    match session.lines.last()?.event {
        Event::Stopped { reason } => Some(reason),
        _ => None,
    }
}

/// What faults did to recordings that went on elsewhere.
#[derive(Default)]
struct Toll {
    taken_over: Vec<Option<Duration>>,
    gaps_s: Vec<f64>,
}

impl Toll {
    /// The gap, in seconds.
    fn note(&mut self, made: &Made) -> Result<f64> {
        let [before, after] = made.parts.as_slice() else { bail!("{} files", made.parts.len()) };
        ensure!(seconds(after.ends_ns - after.begins_ns) > 1.0, "not much was recorded afterwards");
        let gap_s = seconds(after.begins_ns - before.ends_ns);
        self.gaps_s.push(gap_s);
        Ok(gap_s)
    }

    fn tell(mut self, findings: &mut Findings) {
        findings.back_after("until another node writes the track", &self.taken_over, 5.0, 5.0);
        findings.bounded("gap between the two files", &mut self.gaps_s, GAP_S);
    }
}

/// How many rounds went well, and what was wrong in the first one that did not, which is the last.
struct Rounds {
    well: usize,
    of: usize,
    wrong: String,
}

fn repeat(of: usize, mut round: impl FnMut() -> Result<()>) -> Rounds {
    for well in 0..of {
        if let Err(error) = round() {
            return Rounds { well, of, wrong: format!(": {error:#}") };
        }
    }
    Rounds { well: of, of, wrong: String::new() }
}

impl Rounds {
    fn are_well(&self) -> bool {
        self.well == self.of
    }
}

impl fmt::Display for Rounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}{}", self.well, self.of, self.wrong)
    }
}

/// Takes all the room that a disk has left; when it was gone.
fn fill(path: &Path) -> Result<i64> {
    let mut filler = File::create(path)?;
    loop {
        match filler.write(&[0; 4_096]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(realtime_ns()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Where recordings lie.
fn shelf(plan: &Plan) -> Result<PathBuf> {
    Ok(tempfile::tempdir_in(&plan.folder)?.keep().canonicalize()?)
}

fn text<'v>(value: &'v Value, name: &str) -> Result<&'v str> {
    value.get(name).and_then(Value::as_str).with_context(|| format!("{name} in {value}"))
}

fn seconds(ns: i64) -> f64 {
    ns as f64 / 1e9
}

/// The node of those who are recorded.
const SPEAKER: usize = 0;
const PEOPLE: usize = 6;
const SPEECH: Duration = Duration::from_secs(2);
const ASLEEP: Duration = Duration::from_secs(10);
/// A lease runs for 3 s and is looked for each second; the rest is for the machine.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(6);
/// What a recorder may lose of a file that it cannot end.
const LOST_S: f64 = 2.0;
/// A take-over, and the packets since the last that the one before wrote.
const GAP_S: f64 = 6.0;
const DISK_SIZE: &str = "size=2m";
/// For everything that has no limit of its own.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);
