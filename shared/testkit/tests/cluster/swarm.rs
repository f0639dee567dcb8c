//! Anything in any order on any kind of way; and when it is over, everybody sees and hears what they want.

use std::{collections::BTreeMap, time::Duration};

use plenary_media_core::Command;
use plenary_model::{Quality, SubscriptionSettings, TrackSid};
use plenary_testkit::{ClientId, Cluster, Conditions, Random, seed};

use super::SECOND;

const ROUTERS: usize = 3;

/// Somebody's wishes, by track: whether it is wanted unpaused.
struct Viewer {
    at: usize,
    id: ClientId,
    wants: BTreeMap<usize, bool>,
}

struct Swarm {
    cluster: Cluster,
    random: Random,
    /// Where it is published, its name, whether it is muted, and whether it is audio.
    tracks: Vec<(usize, TrackSid, bool, bool)>,
    viewers: Vec<Viewer>,
}

impl Swarm {
    fn new(seed: u64) -> Self {
        let mut cluster = Cluster::seeded(seed, ROUTERS);
        let (mut tracks, mut viewers) = (Vec::new(), Vec::new());
        for at in 0..ROUTERS {
            let publisher = cluster.join(at, "publisher");
            tracks.push((at, cluster.worlds[at].publish_audio(publisher), false, true));
            tracks.push((at, cluster.worlds[at].publish_simulcast(publisher), false, false));
            let id = cluster.join(at, "viewer");
            viewers.push(Viewer { at, id, wants: BTreeMap::new() });
        }
        Self { cluster, random: Random::seeded(seed), tracks, viewers }
    }

    fn pick(&mut self, count: usize) -> usize {
        (self.random.fraction() * count as f64) as usize % count
    }

    fn act(&mut self) {
        let (viewer, track) = (self.pick(self.viewers.len()), self.pick(self.tracks.len()));
        let (from, sid, muted, _) = self.tracks[track].clone();
        let Viewer { at, id, wants } = &mut self.viewers[viewer];
        let (at, id) = (*at, *id);
        let other = (at + 1) % ROUTERS;
        match (self.random.fraction() * 10.0) as u32 {
            0..=3 if !wants.contains_key(&track) => {
                wants.insert(track, true);
                self.cluster.subscribe(at, id, from, &[sid]);
            }
            0 if wants.remove(&track).is_some() => self.cluster.worlds[at].unsubscribe(id, &sid),
            1..=4 if wants.contains_key(&track) => {
                let disabled = self.random.chance(0.3);
                let quality = [Quality::Low, Quality::Medium, Quality::High][self.pick(3)];
                let settings = SubscriptionSettings { disabled, quality, ..SubscriptionSettings::default() };
                self.viewers[viewer].wants.insert(track, !disabled);
                self.cluster.worlds[at].set_settings(id, &sid, settings);
            }
            5 => {
                self.tracks[track].2 = !muted;
                self.cluster.worlds[from].command(Command::SetMuted { track: sid, muted: !muted });
            }
            6 => {
                self.cluster.cut(at, other);
                if self.random.chance(0.5) {
                    self.cluster.cut(other, at);
                }
            }
            7 => self.cluster.heal(),
            8 => {
                let (loss, delay) = (self.random.fraction() * 0.2, Duration::from_millis(self.pick(60) as u64));
                let rough = Conditions { loss, delay, jitter: delay / 4, reorder: 0.02, ..Conditions::default() };
                self.cluster.set(at, other, rough);
            }
            _ => {}
        }
        let wait = Duration::from_millis(20 + self.pick(1_500) as u64);
        self.cluster.run_for(wait);
    }

    /// All ways are good again, and nobody does anything.
    fn quiet(&mut self) {
        self.cluster.heal();
        for (from, to) in (0..ROUTERS).flat_map(|from| (0..ROUTERS).map(move |to| (from, to))) {
            self.cluster.set(from, to, Conditions { delay: Duration::from_millis(5), ..Conditions::default() });
        }
        self.cluster.run_for(8 * SECOND);
    }

    fn check(&self, seed: u64) {
        let mut pulled = [0; ROUTERS];
        for Viewer { at, id, wants } in &self.viewers {
            for (track, is_on) in wants {
                let (from, sid, muted, is_audio) = &self.tracks[*track];
                // A frame is up to three packets, by its layer.
                let expected = match (*is_on && !*muted, *is_audio) {
                    (false, _) => 0..=1,
                    (true, true) => 48..=52,
                    (true, false) => 28..=95,
                };
                let stream = self.cluster.worlds[*at].stream(*id, sid);
                let came = stream.map_or(0, |stream| stream.since(self.cluster.now - SECOND).count());
                assert!(expected.contains(&came), "seed {seed}: {sid} at {at}: {came} packets, not {expected:?}");
                pulled[*at] += u64::from(from != at && *is_on);
            }
        }
        let pulls = [0, 1, 2].map(|at| self.cluster.worlds[at].counters().link_pulls.get());
        assert_eq!(pulls, pulled, "seed {seed}: one viewer a router, so one stream for each of its wishes");
    }
}

#[test]
fn whatever_happened_before_everybody_gets_what_they_want_in_the_end() {
    let first = seed(300);
    for seed in first..first + 2 {
        let mut swarm = Swarm::new(seed);
        for _ in 0..25 {
            swarm.act();
        }
        swarm.quiet();
        swarm.check(seed);
    }
}
