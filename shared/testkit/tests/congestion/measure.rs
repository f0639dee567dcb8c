//! A call over a link that changes, and what its subscriber made of it.

use std::{
    collections::BTreeMap,
    fmt::Write,
    time::{Duration, Instant},
};

use plenary_model::TrackSid;
use plenary_testkit::{
    AUDIO_FRAME_INTERVAL, ClientId, ClientOptions, Conditions, Direction, ReceivedStream, Wait, World, seed,
};

use super::{SECOND, ms};

/// One publisher with a microphone and a camera in three layers, one subscriber, and the subscriber's links in turn.
pub struct Scenario {
    pub name: &'static str,
    pub seed: u64,
    pub options: ClientOptions,
    /// Of the camera, low to high.
    pub layers: [u64; 3],
    pub cameras: usize,
    pub stages: Vec<Stage>,
}

/// The subscriber's way down for a while. The way up has the same delay and loses as much.
pub struct Stage {
    pub link: Conditions,
    pub seconds: u64,
    pub right: Right,
}

/// What the subscriber shall get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    Layer(u8),
    Paused,
    /// Several cameras: whatever fills the link.
    Anything,
}

/// What is asked of a stage.
#[derive(Debug, Clone, Copy)]
pub struct Bar {
    pub settled: Duration,
    pub astray: f64,
    pub concealed: f64,
    pub frozen: Duration,
    pub unused: f64,
    /// 95 of 100 packets wait less in the network.
    pub wait: Duration,
}

/// What was measured of a stage.
pub struct Outcome {
    /// Until the right layer came and stayed for a while.
    pub settled: Duration,
    /// Share of the pictures after that which were of a wrong layer.
    pub astray: f64,
    /// Share of audio that came too late or never.
    pub concealed: f64,
    pub freezes: usize,
    /// The longest time without a new picture.
    pub frozen: Duration,
    /// Share of what could have been received and was not, once settled.
    pub unused: f64,
    pub wait: Duration,
    pub waits: Vec<Duration>,
    pub kilobits_per_second: u64,
}

/// For a stage that goes down. A publisher is asked for a key frame of a layer once a second at most, so a switch that must
/// not wait for one can stand still for that long, and for twice that if the key frame is lost in the full queue.
pub const DOWN: Bar = Bar {
    settled: Duration::from_secs(2),
    astray: 0.1,
    concealed: 0.01,
    frozen: ms(2_500),
    unused: 0.2,
    wait: ms(150),
};
/// For one that goes up.
pub const UP: Bar = Bar { settled: Duration::from_secs(15), ..DOWN };

impl Scenario {
    pub fn new(name: &'static str, seed: u64) -> Self {
        Self { name, seed, options: ClientOptions::default(), layers: LAYERS, cameras: 1, stages: Vec::new() }
    }

    pub fn stage(mut self, link: Conditions, seconds: u64, right: Right) -> Self {
        self.stages.push(Stage { link, seconds, right });
        self
    }

    /// Plays the scenario on a link that does no harm for five seconds, and then stage by stage.
    pub fn run(&self) -> (World, Vec<Outcome>) {
        let mut world = World::seeded(seed(self.seed));
        let started = world.now;
        // Handshakes draw lots over when they repeat what is lost. What follows begins at the same time in each run.
        let meet = |world: &mut World, joined: u32| world.run_for((started + joined * 2 * SECOND) - world.now);
        let bob = world.join_connected_with("bob", self.options);
        meet(&mut world, 1);
        let now = world.now;
        world.client(bob).inbox.report_from(now);
        let mut audio = None;
        let mut videos = Vec::new();
        for joined in (2u32..).take(self.cameras) {
            let ann = world.join_connected("ann");
            meet(&mut world, joined);
            let video = world.publish_simulcast(ann);
            world.source(&video).set_rates(&self.layers);
            videos.push(video);
            audio = Some(world.publish_audio(ann));
        }
        let audio = audio.expect("somebody publishes");
        world.subscribe(bob, &[&videos[..], std::slice::from_ref(&audio)].concat());
        // The seed draws where in a picture and in the client's reports a stage begins, too.
        world.run_for(5 * SECOND + ms(seed(self.seed) * 37 % 100));
        let mut starts = Vec::new();
        for stage in &self.stages {
            starts.push(world.now);
            let address = world.client(bob).subscriber.public;
            world.network.set(address, Direction::Down, stage.link);
            let up = Conditions { bits_per_second: None, ..stage.link };
            world.network.set(address, Direction::Up, up);
            world.client(bob).inbox.nack_interval = (2 * stage.link.delay).max(ms(60));
            world.run_for(Duration::from_secs(stage.seconds));
        }
        let outcomes: Vec<_> = starts
            .iter()
            .zip(&self.stages)
            .map(|(start, stage)| self.outcome(&mut world, bob, &audio, &videos, *start, stage))
            .collect();
        self.print(&outcomes);
        (world, outcomes)
    }

    /// Plays it and holds each stage to its bar.
    pub fn assert(&self, bars: &[Bar]) -> World {
        let (world, outcomes) = self.run();
        let (concealed, wait) = self.whole(&outcomes);
        assert!(concealed <= bars[0].concealed, "audio of {}: {outcomes:?}", self.name);
        assert!(wait <= bars[0].wait, "queue delay {wait:?} of {}: {outcomes:?}", self.name);
        for (at, (outcome, bar)) in outcomes.iter().zip(bars).enumerate() {
            let name = format!("{}, stage {}: {outcome:?}", self.name, at + 1);
            assert!(outcome.settled <= bar.settled, "time to the right layer; {name}");
            assert!(outcome.astray <= bar.astray, "away from the right layer; {name}");
            assert!(outcome.frozen <= bar.frozen, "freezes; {name}");
            assert!(outcome.unused <= bar.unused, "unused capacity; {name}");
            assert!(outcome.wait <= bar.wait, "queue delay; {name}");
        }
        world
    }

    /// Concealment and queue delay of the whole call: one stall at a step down weighs by how long the call goes on.
    fn whole(&self, outcomes: &[Outcome]) -> (f64, Duration) {
        let concealed: f64 = outcomes.iter().zip(&self.stages).map(|(one, of)| one.concealed * of.seconds as f64).sum();
        let seconds: f64 = self.stages.iter().map(|stage| stage.seconds as f64).sum();
        (concealed / seconds, percentile_95(outcomes.iter().flat_map(|one| &one.waits).copied().collect()))
    }

    fn outcome(
        &self,
        world: &mut World,
        bob: ClientId,
        audio: &TrackSid,
        videos: &[TrackSid],
        start: Instant,
        stage: &Stage,
    ) -> Outcome {
        let end = start + Duration::from_secs(stage.seconds);
        let during = |at: &Instant| (start..end).contains(at);
        let pictures: Vec<_> = pictures(world.received(bob, &videos[0])).collect();
        let wrong = |(_, layer): &&(Instant, u8)| match stage.right {
            Right::Layer(right) => *layer != right,
            Right::Paused => true,
            Right::Anything => false,
        };
        let of_stage = || pictures.iter().filter(|(at, _)| during(at));
        let settled = match stage.right {
            Right::Paused => of_stage().next_back().map_or(Duration::ZERO, |(at, _)| *at - start),
            Right::Layer(_) | Right::Anything => {
                let mut right_since = None;
                let stays = of_stage().find_map(|picture| {
                    if wrong(&picture) {
                        right_since = None;
                        return None;
                    }
                    let since = *right_since.get_or_insert(picture.0);
                    (picture.0 - since >= STAYS).then_some(since)
                });
                stays.map_or(Duration::MAX, |since| since - start)
            }
        };
        let after = || of_stage().filter(|(at, _)| *at - start > settled);
        let astray = after().filter(wrong).count() as f64 / after().count().max(1) as f64;

        let (mut freezes, mut frozen) = (0, Duration::ZERO);
        if stage.right != Right::Paused {
            let shown = [start].into_iter().chain(of_stage().map(|(at, _)| *at)).chain([end]);
            let shown: Vec<_> = shown.collect();
            let gaps = shown.windows(2).map(|pair| pair[1] - pair[0]);
            freezes = gaps.clone().filter(|gap| *gap > FREEZE).count();
            frozen = gaps.max().unwrap_or_default();
        }

        let address = world.client(bob).subscriber.public;
        let waits: Vec<Wait> = world.network.waits(address, Direction::Down).to_vec();
        let waits: Vec<_> = waits.iter().filter(|wait| during(&wait.at)).collect();
        let waited: Vec<_> = waits.iter().map(|wait| wait.waited.unwrap_or(Duration::MAX)).collect();

        let tail = end - TAIL.min(end - start);
        let passed = waits.iter().filter(|wait| wait.at >= tail && wait.waited.is_some()).map(|wait| wait.bytes);
        let received = passed.sum::<usize>() as f64 * 8.0 / (end - tail).as_secs_f64();
        let fits = match stage.right {
            Right::Layer(layer) => (self.layers[usize::from(layer)] + AUDIO_RATE) as f64,
            Right::Paused => AUDIO_RATE as f64,
            Right::Anything => stage.link.bits_per_second.unwrap_or_default() as f64,
        };
        Outcome {
            settled,
            astray,
            concealed: concealed(world, bob, audio, stage, start, end),
            freezes,
            frozen,
            unused: (1.0 - received / fits).max(0.0),
            wait: percentile_95(waited.clone()),
            waits: waited,
            kilobits_per_second: (received / 1_000.0) as u64,
        }
    }

    #[allow(clippy::print_stderr, reason = "the figures are for reading")]
    fn print(&self, outcomes: &[Outcome]) {
        let mut text = format!(
            "{}\n  stage   kb/s  right      settled  astray  concealed  freezes  longest  unused  wait p95\n",
            self.name
        );
        for (at, (outcome, stage)) in outcomes.iter().zip(&self.stages).enumerate() {
            let Outcome { settled, astray, concealed, freezes, frozen, unused, wait, kilobits_per_second, .. } =
                outcome;
            let settled =
                if *settled == Duration::MAX { "never".to_owned() } else { format!("{:.2} s", settled.as_secs_f64()) };
            let (right, at) = (format!("{:?}", stage.right), at + 1);
            let wait = if *wait == Duration::MAX { "lost".to_owned() } else { format!("{} ms", wait.as_millis()) };
            writeln!(
                text,
                "  {at:5}  {kilobits_per_second:5}  {right:9}  {settled:>8}  {:4.0} %  {:8.2} %  {freezes:7}  {:4} ms  {:4.0} %  {wait:>8}",
                astray * 100.0,
                concealed * 100.0,
                frozen.as_millis(),
                unused * 100.0,
            )
            .expect("text is written");
        }
        let (concealed, wait) = self.whole(outcomes);
        let wait = if wait == Duration::MAX { "lost".to_owned() } else { format!("{} ms", wait.as_millis()) };
        writeln!(
            text,
            "  whole                                   {:8.2} %                            {wait:>8}",
            concealed * 100.0
        )
        .expect("text is written");
        eprint!("{text}");
    }
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { settled, astray, concealed, frozen, unused, wait, .. } = self;
        write!(
            f,
            "settled {settled:?}, astray {astray:.2}, concealed {concealed:.4}, frozen {frozen:?}, unused {unused:.2}, wait {wait:?}"
        )
    }
}

fn percentile_95(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all.get(all.len() * 95 / 100).copied().unwrap_or_default()
}

/// When each picture could be shown, and of which layer: whole, after all before it, and from a key picture on.
fn pictures(stream: &ReceivedStream) -> impl Iterator<Item = (Instant, u8)> {
    let mut expected = None;
    let (mut broken, mut whole) = (true, false);
    let mut ready: Option<Instant> = None;
    stream.packets.iter().filter_map(move |(index, packet)| {
        if expected.replace(index + 1) != Some(*index) {
            (broken, whole) = (true, false);
        }
        ready = ready.max(Some(packet.at));
        if packet.payload.is_empty() {
            return None;
        }
        let video = packet.video();
        if video.starts_frame {
            broken &= !video.keyframe;
            whole = !broken;
        }
        ready.filter(|_| packet.marker && whole).map(|at| (at, video.layer))
    })
}

/// Share of the microphone's time that a listener did not get: frames that never came, and standstills while the next was
/// still on its way. Plays as clients do: what is late moves the playout back, and afterwards it catches up little by little.
fn concealed(world: &World, bob: ClientId, audio: &TrackSid, stage: &Stage, start: Instant, end: Instant) -> f64 {
    let frame = |payload: &[u8]| u32::from_be_bytes(payload[1..5].try_into().expect("a numbered frame"));
    let packets = world.received(bob, audio).packets.values().map(|packet| (frame(&packet.payload), packet.at));
    let arrived: BTreeMap<u32, Instant> = packets.collect();
    let (first, began) = arrived.first_key_value().expect("some audio came");
    let sent = |number: u32| *began + AUDIO_FRAME_INTERVAL * (number - first);
    // What is still on its way at the end is not lost.
    let number = |at: Instant| {
        first + (at.saturating_duration_since(*began).as_millis() / AUDIO_FRAME_INTERVAL.as_millis()) as u32
    };
    let last = *arrived.last_key_value().expect("some audio came").0;
    let expected = number(start)..number(end - 4 * stage.link.delay - ms(100)).min(last);
    let mut buffered = stage.link.delay + stage.link.jitter + PLAYOUT;
    let mut missed = Duration::ZERO;
    let repaired = 3 * stage.link.delay + ms(100);
    for number in expected.clone() {
        let Some(at) = arrived.get(&number) else {
            missed += AUDIO_FRAME_INTERVAL;
            continue;
        };
        let late = at.saturating_duration_since(sent(number) + buffered);
        if late > repaired.max(LATE_MAX) {
            missed += AUDIO_FRAME_INTERVAL;
        } else {
            missed += late;
            buffered += late;
        }
        buffered = (buffered - CATCH_UP).max(stage.link.delay + stage.link.jitter + PLAYOUT);
    }
    missed.as_secs_f64() / (AUDIO_FRAME_INTERVAL * expected.len().max(1) as u32).as_secs_f64()
}

/// With their headers these need 95, 360 and 1,560 kb/s.
pub const LAYERS: [u64; 3] = [80_000, 330_000, 1_500_000];
/// What a client buffers on a quiet path, how much later may still be waited for, and what it gains back per frame.
const PLAYOUT: Duration = ms(60);
const LATE_MAX: Duration = ms(500);
const CATCH_UP: Duration = Duration::from_micros(50);
/// As the made-up microphone sends it, with headers.
const AUDIO_RATE: u64 = 41_000;
/// A layer that came and went at once is not where a subscriber is.
const STAYS: Duration = Duration::from_secs(3);
/// A picture that stands for longer is noticed.
const FREEZE: Duration = Duration::from_millis(400);
/// The part of a stage in which it must use its link.
const TAIL: Duration = Duration::from_secs(5);
