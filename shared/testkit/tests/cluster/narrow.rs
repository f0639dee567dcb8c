//! Links that do not carry all that is wanted: what goes, what stays, and what comes back.

use std::time::{Duration, Instant};

use plenary_model::TrackSid;
use plenary_testkit::{ClientId, Cluster, Conditions, seed};

use super::SECOND;

/// So many on the first router send a microphone and three layers of a camera, which Bob on the second would have whole.
const PUBLISHERS: usize = 4;
const LAYERS_BPS: [u64; 3] = [150_000, 500_000, 1_700_000];

struct Crowd {
    cluster: Cluster,
    bob: ClientId,
    audio: Vec<TrackSid>,
    video: Vec<TrackSid>,
    /// What the link takes while nothing holds it back.
    wanted_bps: u64,
    /// Ann on the first has a camera of the second.
    ann: ClientId,
    back: TrackSid,
}

impl Crowd {
    fn watched(of_test: u64) -> Self {
        let mut cluster = Cluster::seeded(seed(of_test), 2);
        let (bob, ann, cam) = (cluster.join(1, "bob"), cluster.join(0, "ann"), cluster.join(1, "cam"));
        let back = cluster.worlds[1].publish_simulcast(cam);
        cluster.worlds[1].source(&back).set_rates(&LAYERS_BPS);
        let (mut audio, mut video) = (Vec::new(), Vec::new());
        for number in 0..PUBLISHERS {
            let id = cluster.join(0, &format!("person{number}"));
            audio.push(cluster.worlds[0].publish_audio(id));
            let camera = cluster.worlds[0].publish_simulcast(id);
            cluster.worlds[0].source(&camera).set_rates(&LAYERS_BPS);
            video.push(camera);
        }
        cluster.subscribe(0, ann, 1, std::slice::from_ref(&back));
        cluster.subscribe(1, bob, 0, &[audio.clone(), video.clone()].concat());
        cluster.run_for(6 * SECOND);
        let mut crowd = Self { cluster, bob, audio, video, wanted_bps: 0, ann, back };
        crowd.wanted_bps = crowd.link_bps(3 * SECOND);
        assert_eq!(crowd.layers(), [2; PUBLISHERS], "everybody is seen at their best");
        crowd
    }

    fn link_bps(&mut self, time: Duration) -> u64 {
        let counters = self.cluster.worlds[0].counters();
        let before = counters.link_bytes_out.get();
        self.cluster.run_for(time);
        (counters.link_bytes_out.get() - before) * 8 / time.as_secs()
    }

    fn narrow(&mut self, bits_per_second: Option<u64>) {
        let delay = Duration::from_millis(5);
        self.cluster.set(0, 1, Conditions { delay, bits_per_second, ..Conditions::default() });
    }

    /// Which layer of each camera came last, by its size; -1 is none within a second.
    fn layers(&self) -> [i32; PUBLISHERS] {
        std::array::from_fn(|at| {
            let seen = self.cluster.worlds[1].received(self.bob, &self.video[at]);
            seen.since(self.cluster.now - SECOND).last().map_or(-1, |packet| packet.video().layer.into())
        })
    }

    /// The share of audio packets that were sent in this stretch and never came, over all microphones.
    fn audio_lost(&self, from: Instant, to: Instant) -> f64 {
        let (mut came, mut missing) = (0, 0);
        for track in &self.audio {
            let packets = &self.cluster.worlds[1].received(self.bob, track).packets;
            let numbers: Vec<u64> =
                packets.iter().filter(|(_, one)| (from..to).contains(&one.at)).map(|(n, _)| *n).collect();
            let (first, last) = (numbers[0], numbers[numbers.len() - 1]);
            came += numbers.len() as u64;
            missing += (last - first + 1) - packets.range(first..=last).count() as u64;
        }
        missing as f64 / (came + missing) as f64
    }

    fn longest_silence(&self, from: Instant) -> Duration {
        let longest = |track: &TrackSid| {
            let mut at: Vec<_> =
                self.cluster.worlds[1].received(self.bob, track).since(from).map(|one| one.at).collect();
            at.sort_unstable();
            at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(Duration::MAX)
        };
        self.audio.iter().map(longest).max().unwrap_or(Duration::MAX)
    }
}

#[test]
fn audio_is_unharmed_on_a_link_with_a_third_of_what_is_wanted() {
    let mut crowd = Crowd::watched(401);
    let capacity = crowd.wanted_bps * 3 / 10;
    let start = crowd.cluster.now;
    crowd.narrow(Some(capacity));
    crowd.cluster.run_for(2 * SECOND);
    let settled = crowd.cluster.now;
    crowd.cluster.run_for(58 * SECOND);
    let end = crowd.cluster.now;
    let counters = crowd.cluster.worlds[0].counters();
    let (lost, settled_lost) = (crowd.audio_lost(start, end), crowd.audio_lost(settled, end));
    let silence = crowd.longest_silence(settled);
    let told = format!(
        "{capacity} of {} bits/s: audio lost {:.3} %, after two seconds {:.3} %, longest silence then {silence:?}, {} cuts",
        crowd.wanted_bps,
        lost * 100.0,
        settled_lost * 100.0,
        counters.link_cuts.get()
    );
    assert!(lost < 0.005 && settled_lost < 0.001, "{told}");
    // A search for more fills the queue, which is 300 ms long.
    assert!(silence < SECOND * 2 / 5, "{told}");
    assert!(crowd.layers().iter().all(|layer| *layer >= 0), "everybody is still seen: {:?}", crowd.layers());
    // A search for more may fall into these seconds.
    let sent = crowd.link_bps(5 * SECOND);
    assert!(sent <= capacity * 6 / 5, "what is sent fits: {sent} of {capacity}");
    assert!(counters.link_withheld.get() > 0);
    assert!(counters.link_cuts.get() < 12, "it does not try again and again: {told}");
}

#[test]
fn thumbnails_go_before_audio_and_layers_come_back() {
    let mut crowd = Crowd::watched(402);
    // Room for the microphones and two or three thumbnails.
    crowd.narrow(Some(600_000));
    crowd.cluster.run_for(4 * SECOND);
    let shed = crowd.cluster.now;
    crowd.cluster.run_for(3 * SECOND);
    assert!(crowd.layers().iter().all(|layer| *layer <= 0), "{:?}", crowd.layers());
    let lost = crowd.audio_lost(shed, crowd.cluster.now);
    // What a search for more costs in these seconds, if there is one.
    assert!(lost < 0.02, "{lost} of the audio is missing");
    crowd.narrow(None);
    crowd.cluster.run_until(60 * SECOND, |cluster| {
        let counters = cluster.worlds[0].counters();
        counters.link_withheld.get() == 0
    });
    crowd.cluster.run_for(4 * SECOND);
    assert_eq!(crowd.layers(), [2; PUBLISHERS]);
}

#[test]
fn a_cap_is_kept_without_anything_being_lost() {
    let mut cluster = Cluster::capped(seed(405), 2, 2_000_000);
    let (ann, bob) = (cluster.join(0, "ann"), cluster.join(1, "bob"));
    let cameras = [(); 3].map(|()| cluster.worlds[0].publish_simulcast(ann));
    for camera in &cameras {
        cluster.worlds[0].source(camera).set_rates(&LAYERS_BPS);
    }
    cluster.subscribe(1, bob, 0, &cameras);
    cluster.run_for(5 * SECOND);
    let counters = cluster.worlds[0].counters();
    let before = counters.link_bytes_out.get();
    cluster.run_for(10 * SECOND);
    let bits = (counters.link_bytes_out.get() - before) * 8 / 10;
    assert!((1_000_000..2_200_000).contains(&bits), "{bits}");
    assert_eq!((counters.link_cuts.get(), counters.link_lost.get()), (0, 0));
    for camera in &cameras {
        let seen = cluster.worlds[1].received(bob, camera);
        assert!(seen.since(cluster.now - SECOND).count() >= 29, "a lower layer instead of none");
    }
}

#[test]
fn a_hop_that_loses_but_can_be_repaired_sheds_nothing() {
    let mut crowd = Crowd::watched(403);
    let lossy = Conditions { loss: 0.1, delay: Duration::from_millis(15), ..Conditions::default() };
    crowd.cluster.set(0, 1, lossy);
    crowd.cluster.run_for(20 * SECOND);
    let counters = crowd.cluster.worlds[0].counters();
    assert_eq!((counters.link_cuts.get(), counters.link_withheld.get()), (0, 0));
    assert_eq!(crowd.layers(), [2; PUBLISHERS]);
}

#[test]
fn only_the_way_that_is_narrow_carries_less() {
    let mut crowd = Crowd::watched(404);
    let capacity = crowd.wanted_bps / 2;
    crowd.narrow(Some(capacity));
    crowd.cluster.run_for(15 * SECOND);
    assert!(crowd.cluster.worlds[0].counters().link_cuts.get() > 0);
    assert_eq!(crowd.cluster.worlds[1].counters().link_cuts.get(), 0);
    let back = crowd.cluster.worlds[0].received(crowd.ann, &crowd.back).since(crowd.cluster.now - SECOND).last();
    assert_eq!(back.map(|packet| packet.video().layer), Some(2));
}
