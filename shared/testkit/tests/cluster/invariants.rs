//! What holds at every moment, however links are cut, lose and come back (cluster.md 2.10, I9 and I10): media goes back to
//! nobody, crosses three links at most, and only where it is wanted.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use plenary_model::{Quality, SubscriptionSettings, TrackSid};
use plenary_testkit::{ClientId, Cluster, Conditions, Random, seed};

use super::{SECOND, received};

/// Somebody on each router publishes, and receives what all others publish.
struct Mesh {
    cluster: Cluster,
    random: Random,
    people: Vec<ClientId>,
    /// Where each is published.
    tracks: Vec<(usize, TrackSid)>,
    /// When something was last wanted: by whom, of whom, and which stream of which track.
    wanted: BTreeMap<(usize, usize, TrackSid, u8), Instant>,
    story: Vec<String>,
    seed: u64,
}

impl Mesh {
    fn new(seed: u64, routers: usize) -> Self {
        let mut cluster = Cluster::seeded(seed, routers);
        let people: Vec<_> = (0..routers).map(|at| cluster.join(at, "somebody")).collect();
        let mut tracks: Vec<_> =
            people.iter().zip(0..).map(|(id, at)| (at, cluster.worlds[at].publish_audio(*id))).collect();
        tracks.push((0, cluster.worlds[0].publish_simulcast(people[0])));
        for (at, id) in people.iter().enumerate() {
            for (from, track) in tracks.iter().filter(|(from, _)| *from != at) {
                cluster.subscribe(at, *id, *from, std::slice::from_ref(track));
            }
        }
        let random = Random::seeded(seed);
        let mut mesh = Self { cluster, random, people, tracks, wanted: BTreeMap::new(), story: Vec::new(), seed };
        mesh.run_for(2 * SECOND);
        mesh
    }

    fn pick(&mut self, count: usize) -> usize {
        (self.random.fraction() * count as f64) as usize % count
    }

    /// Something happens to one pair, or somebody wants another layer.
    fn act(&mut self) {
        let routers = self.people.len();
        let one = self.pick(routers);
        let other = (one + 1 + self.pick(routers - 1)) % routers;
        let what = self.pick(7);
        self.story.push(format!("{what} {one}-{other}"));
        match what {
            0 => self.cluster.part(one, other),
            1 => self.cluster.cut(one, other),
            2 | 3 => self.cluster.heal(),
            4 => {
                let loss = self.random.fraction() * 0.1;
                let rough = Conditions { loss, delay: Duration::from_millis(15), ..Conditions::default() };
                self.cluster.set(one, other, rough);
            }
            5 => {
                for _ in 0..3 {
                    self.cluster.part(one, other);
                    self.run_for(3 * SECOND / 10);
                    self.cluster.heal();
                    self.run_for(3 * SECOND / 10);
                }
            }
            _ => {
                let (_, video) = self.tracks.last().expect("there is one").clone();
                let quality = [Quality::Low, Quality::Medium, Quality::High][self.pick(3)];
                let settings = SubscriptionSettings { quality, ..SubscriptionSettings::default() };
                let at = one.max(1);
                self.cluster.worlds[at].set_settings(self.people[at], &video, settings);
            }
        }
        let wait = Duration::from_millis(100 + self.pick(2_500) as u64);
        self.run_for(wait);
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.cluster.now + time;
        while self.cluster.now < end {
            self.cluster.run_for(LOOK_EVERY);
            self.check();
        }
    }

    fn check(&mut self) {
        let now = self.cluster.now;
        for at in 0..self.people.len() {
            for (of, track, streams) in self.cluster.wanted(at) {
                for stream in (0..8).filter(|stream| streams & 1 << stream != 0) {
                    self.wanted.insert((at, of, track.clone(), stream), now);
                }
            }
        }
        let mut ways: BTreeMap<TrackSid, Vec<(usize, usize)>> = BTreeMap::new();
        for from in 0..self.people.len() {
            for (to, track, streams) in self.cluster.sent(from) {
                for stream in (0..8).filter(|stream| streams & 1 << stream != 0) {
                    let wanted = self.wanted.get(&(to, from, track.clone(), stream));
                    let stale = wanted.map(|at| now - *at);
                    assert!(
                        stale.is_some_and(|stale| stale <= STALE),
                        "{}: {track} {from} to {to}: {stale:?}",
                        self.told()
                    );
                }
                if streams > 0 {
                    ways.entry(track).or_default().push((from, to));
                }
            }
        }
        for (home, track) in &self.tracks {
            let Some(ways) = ways.get(track) else { continue };
            assert!(ways.iter().all(|(_, to)| to != home), "{}: {track} comes back: {ways:?}", self.told());
            let longest = longest(ways, *home, self.people.len());
            assert!(longest <= 3, "{}: {track} crosses {longest} links: {ways:?}", self.told());
        }
    }

    fn told(&self) -> String {
        format!("PLENARY_SEED={}, {}", self.seed, self.story.join(", "))
    }
}

/// How many links a packet crosses at most that begins here; more than there are routers if it goes in a circle.
fn longest(ways: &[(usize, usize)], from: usize, left: usize) -> usize {
    if left == 0 {
        return 1;
    }
    let next = ways.iter().filter(|(at, _)| *at == from);
    next.map(|(_, to)| 1 + longest(ways, *to, left - 1)).max().unwrap_or(0)
}

#[test]
fn media_goes_back_to_nobody_and_only_where_it_is_wanted() {
    let count = std::env::var("PLENARY_SIMULATIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(4);
    let first = seed(500);
    for seed in first..first + count {
        let mut mesh = Mesh::new(seed, 3 + seed as usize % 2);
        for _ in 0..12 {
            mesh.act();
        }
        mesh.cluster.heal();
        let routers = mesh.people.len();
        for (from, to) in (0..routers).flat_map(|from| (0..routers).map(move |to| (from, to))) {
            mesh.cluster.set(from, to, Conditions { delay: Duration::from_millis(5), ..Conditions::default() });
        }
        mesh.run_for(6 * SECOND);
        assert_eq!(flowing_poorly(&mesh), Vec::<String>::new(), "{}", mesh.told());
        for (home, track) in &mesh.tracks {
            let straight = |(from, sent): (usize, Vec<(usize, TrackSid, u8)>)| {
                sent.iter().all(|(_, sid, _)| sid != track || from == *home)
            };
            let sent = (0..routers).map(|from| (from, mesh.cluster.sent(from)));
            assert!(sent.into_iter().all(straight), "{}: {track} is still relayed", mesh.told());
        }
    }
}

#[test]
fn while_any_one_pair_is_cut_everybody_hears_and_sees_everybody() {
    let first = seed(600);
    for seed in first..first + 2 {
        let mut mesh = Mesh::new(seed, 3);
        for (one, other) in [(0, 1), (1, 2), (2, 0), (1, 0), (0, 2), (2, 1)] {
            mesh.story.push(format!("{one}-{other}"));
            mesh.cluster.cut(one, other);
            if mesh.random.chance(0.5) {
                mesh.cluster.cut(other, one);
            }
            mesh.run_for(4 * SECOND);
            assert_eq!(flowing_poorly(&mesh), Vec::<String>::new(), "{}", mesh.told());
            mesh.cluster.heal();
            let healed = Duration::from_millis(mesh.pick(2_500) as u64);
            mesh.run_for(healed);
        }
    }
}

/// Who lacks some of what they want of the last second.
fn flowing_poorly(mesh: &Mesh) -> Vec<String> {
    let since = mesh.cluster.now - SECOND;
    let mut lacking = Vec::new();
    for (at, id) in mesh.people.iter().enumerate() {
        for (from, track) in mesh.tracks.iter().filter(|(from, _)| *from != at) {
            let came = received(&mesh.cluster, at, *id, track).map_or(0, |stream| stream.since(since).count());
            // A frame is three packets at most, 30 in a second.
            if !(28..=95).contains(&came) {
                lacking.push(format!("{came} packets of {track} from {from} to {at}"));
            }
        }
    }
    lacking
}

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The word that something is not wanted any more may be lost, and is repeated after half a second.
const STALE: Duration = Duration::from_secs(1);
