//! A process that records is killed, a great many times.
//!
//! `PLENARY_KILLS=1000 cargo test -p plenary --lib -- --nocapture killed_loses` has more of them than there are by default,
//! and then ffprobe looks at every file instead of the first dozen.

use std::{
    fmt,
    fs::OpenOptions,
    io::Read,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use plenary_testkit::Random;
use tempfile::TempDir;

use super::*;
use crate::recording::{
    shelf::State,
    testing::{Content, content},
};

const KILLS: &str = "PLENARY_KILLS";
const KILLS_DEFAULT: usize = 36;
const PROBED_DEFAULT: usize = 12;
const AT_ONCE: usize = 12;
/// Of a track, at 50 frames a second.
const FRAMES_LOST_MAX: usize = 100;
const LIFE_MAX_US: u64 = 3_200_000;
/// About as many as are written in that time.
const BYTES_MAX: u64 = 110_000;
/// A cluster is a second of video, and begins with a head.
const CLUSTER_BYTES_MAX: u64 = 20_000;
/// Of a session file.
const FIRST_LINE_BYTES_MAX: u64 = 400;

const DIRECTORY: &str = "PLENARY_RECORDS_TO";
const BYTES: &str = "PLENARY_DIES_AFTER_BYTES";
const RECORDING: &str = "EG_local";
/// In all steps, in all steps, and in all but each [`PAUSE`]th: something is always being finished.
const TRACKS: [&str; 3] = ["TR_A", "TR_V", "TR_S"];
const PAUSE: usize = 10;

/// Not a test by itself: records until it is killed, and says after each step how many there were.
#[test]
#[ignore = "started by a_recorder_that_is_killed_loses_two_seconds_at_most"]
fn records_until_it_is_killed() {
    let Some(root) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let mut meeting = match std::env::var(BYTES) {
        Ok(bytes) => {
            let fate = Fate::dying_after(bytes.parse().unwrap());
            Meeting::on(FatefulDisk(fate), &config(&root), RECORDING, Patience::default())
        }
        Err(_) => Meeting::on(LocalDisk, &config(&root), RECORDING, Patience::default()),
    };
    let [audio, video, screen] = TRACKS;
    meeting.publish(audio, Codec::Opus);
    meeting.publish(video, Codec::Vp8);
    for step in 1usize.. {
        match step % PAUSE {
            1 => meeting.publish(screen, Codec::Vp8),
            0 => meeting.unpublish(screen),
            _ => {}
        }
        thread::sleep(STEP.saturating_sub(meeting.now.elapsed()));
        meeting.steps(1).unwrap();
        std::io::stdout().write_all(format!("{step}\n").as_bytes()).unwrap();
    }
}

#[test]
fn a_recorder_that_is_killed_loses_two_seconds_at_most() {
    let asked: Option<usize> = std::env::var(KILLS).ok().map(|kills| kills.parse().unwrap());
    let kills = asked.unwrap_or(KILLS_DEFAULT);
    let probed_max = asked.map_or(PROBED_DEFAULT, |_| usize::MAX);
    let seed = plenary_testkit::seed(11);
    let mut random = Random::seeded(seed);
    let mut toll = Toll::default();
    while toll.kills < kills {
        let count = AT_ONCE.min(kills - toll.kills);
        let mut recorders: Vec<_> = (0..count).map(|_| Recorder::start(&mut random)).collect();
        recorders.sort_by_key(|recorder| recorder.life);
        let began = Instant::now();
        let dead: Vec<_> = recorders.into_iter().map(|recorder| recorder.kill(began)).collect();
        for dead in &dead {
            let check = Check { root: dead.root.path(), probed_max, when: format!("seed {seed}, {dead}") };
            check.killed(dead, &mut toll);
            check.cut(&mut random, &mut toll);
        }
    }
    writeln!(std::io::stderr(), "{toll}").unwrap();
}

struct Recorder {
    child: Child,
    life: Duration,
    bytes: Option<u64>,
    root: TempDir,
}

struct Dead {
    life: Duration,
    /// After which it killed itself.
    bytes: Option<u64>,
    /// How many steps it said to have sent.
    sent: usize,
    root: TempDir,
}

impl Recorder {
    /// To be killed after some time, or by itself after some bytes.
    fn start(random: &mut Random) -> Self {
        let root = tempdir().unwrap();
        let (life, bytes) = match random.below(2) {
            0 => (Duration::from_micros(random.below(LIFE_MAX_US)), None),
            _ => (Duration::from_micros(LIFE_MAX_US), Some(random.below(BYTES_MAX))),
        };
        let name = "recording::writer::tests::kills::records_until_it_is_killed";
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name, "--ignored", "--nocapture"]).env(DIRECTORY, root.path());
        if let Some(bytes) = bytes {
            command.env(BYTES, bytes.to_string());
        }
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        Self { child, life, bytes, root }
    }

    fn kill(self, began: Instant) -> Dead {
        let Self { mut child, life, bytes, root } = self;
        thread::sleep(life.saturating_sub(began.elapsed()));
        let killed_itself = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        let sent = said.lines().filter_map(|line| line.parse().ok()).next_back().unwrap_or_default();
        Dead { life, bytes: bytes.filter(|_| killed_itself), sent, root }
    }
}

impl fmt::Display for Dead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bytes {
            Some(bytes) => write!(f, "killed after {bytes} bytes"),
            None => write!(f, "killed after {:?}", self.life),
        }
    }
}

#[derive(Default)]
struct Toll {
    kills: usize,
    /// Of them, by themselves.
    at_bytes: usize,
    /// Of a track, in steps.
    lost_max: usize,
    /// By each kill the most of a track, in steps.
    lost_sum: usize,
    cuts: usize,
    files: usize,
    /// Of them, by ffprobe too.
    probed: usize,
    frames: usize,
    /// That ended before their first cluster.
    removed: usize,
}

impl fmt::Display for Toll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, at_bytes, lost_max, lost_sum, cuts, files, probed, frames, removed } = self;
        let ms = STEP.as_millis() as usize;
        let (most, mean) = (ms * lost_max, ms * lost_sum / kills);
        write!(f, "{kills} kills, {at_bytes} of them after a number of bytes, and {cuts} files cut at any byte: ")?;
        write!(f, "lost at most {most} ms, on average {mean} ms; {removed} files without a frame removed; ")?;
        write!(f, "{files} files and {frames} frames read, {probed} files by ffprobe too, none refused")
    }
}

struct Check<'a> {
    root: &'a Path,
    probed_max: usize,
    when: String,
}

impl Check<'_> {
    fn killed(&self, dead: &Dead, toll: &mut Toll) {
        let when = &self.when;
        toll.removed += self.repair().iter().filter(|outcome| matches!(outcome, Outcome::Removed)).count();
        let listed = shelf::list(self.root).unwrap().pop();
        let mut kept = [0; TRACKS.len()];
        if let Some(listed) = listed {
            assert!(matches!(listed.state, State::Interrupted | State::Unreadable(_)), "{when}: {:?}", listed.state);
            let is_in_first_line = dead.bytes.is_some_and(|bytes| bytes < FIRST_LINE_BYTES_MAX);
            assert!(listed.session.is_some() || dead.sent == 0 || is_in_first_line, "{when}");
            for (name, _) in &listed.files {
                let track = TRACKS.iter().position(|track| name.contains(track)).unwrap();
                kept[track] += self.whole(&self.directory().join(name), toll);
            }
        }
        let lost = [dead.sent, dead.sent, dead.sent - dead.sent / PAUSE]
            .into_iter()
            .zip(kept)
            .map(|(sent, kept)| sent.saturating_sub(kept))
            .max()
            .unwrap_or_default();
        assert!(lost <= FRAMES_LOST_MAX, "{when}: {kept:?} of {}", dead.sent);
        toll.kills += 1;
        toll.at_bytes += usize::from(dead.bytes.is_some());
        toll.lost_max = toll.lost_max.max(lost);
        toll.lost_sum += lost;
    }

    /// One of the files that are whole now, cut at any byte.
    fn cut(&self, random: &mut Random, toll: &mut Toll) {
        let Some(listed) = shelf::list(self.root).unwrap().pop().filter(|listed| !listed.files.is_empty()) else {
            return;
        };
        let (name, bytes) = &listed.files[random.below(listed.files.len() as u64) as usize];
        let path = self.directory().join(name);
        let length = random.below(bytes + 1);
        OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
        fs::rename(&path, self.directory().join(format!("{name}.part"))).unwrap();
        match self.repair().as_slice() {
            [Outcome::Removed] => toll.removed += 1,
            [Outcome::Repaired(repaired)] => {
                assert!(repaired.cut_bytes <= CLUSTER_BYTES_MAX, "{}: {name} cut at {length}: {repaired:?}", self.when);
                self.whole(&path, toll);
            }
            other => panic!("{}: {name} cut at {length}: {other:?}", self.when),
        }
        toll.cuts += 1;
    }

    fn directory(&self) -> PathBuf {
        self.root.join(RECORDING)
    }

    fn repair(&self) -> Vec<Outcome> {
        let outcomes: Vec<_> =
            shelf::repair_all(self.root, || {}).unwrap().into_iter().map(|left| left.outcome).collect();
        let is_well = |outcome: &_| matches!(outcome, Outcome::Repaired(_) | Outcome::Removed);
        assert!(outcomes.iter().all(is_well), "{}: {outcomes:?}", self.when);
        outcomes
    }

    /// How many frames are in a file, on which all its readers agree.
    fn whole(&self, path: &Path, toll: &mut Toll) -> usize {
        let when = format!("{}: {}", self.when, path.display());
        let theirs = content(path);
        let frames = theirs.times.len();
        let expected: Vec<_> = (0..frames as u32).map(|frame| STEP * frame).collect();
        assert!(frames > 0, "{when}");
        assert_eq!(theirs.times, expected, "{when}");
        let ours = repair(&mut OpenOptions::new().read(true).write(true).open(path).unwrap()).unwrap();
        assert_eq!((ours.frames, ours.duration, ours.is_changed), (frames as u64, theirs.duration, false), "{when}");
        if toll.probed < self.probed_max {
            probe(path, &theirs, &when);
            toll.probed += 1;
        }
        toll.files += 1;
        toll.frames += frames;
        frames
    }
}

/// ffprobe finds, decodes and times the same, and has nothing to say about it.
fn probe(path: &Path, content: &Content, when: &str) {
    let probed = Command::new("ffprobe")
        .args(["-v", "warning", "-threads", "1", "-count_frames", "-show_packets"])
        .args(["-show_entries", "packet=pts_time:stream=nb_read_frames", "-of", "csv=p=0"])
        .arg(path)
        .output()
        .expect("ffprobe is installed by .ci/install-test-tools");
    let (said, complaint) = (String::from_utf8(probed.stdout).unwrap(), String::from_utf8_lossy(&probed.stderr));
    assert!(probed.status.success() && complaint.is_empty(), "{when}: {complaint}");
    // It shows what a decoder gives out, to the millisecond.
    let delay_ms = (content.delay.as_secs_f64() * 1_000.).round();
    let shown = |time: &Duration| format!("{:.6}\n", (time.as_millis() as f64 - delay_ms) / 1_000.);
    let expected: String = content.times.iter().map(shown).collect();
    assert_eq!(said, format!("{expected}{}\n", content.times.len()), "{when}");
}
