//! People of one room on different routers: what crosses between them, and what happens when it does not.

mod faults;
mod flow;
mod invariants;
mod letters;
mod narrow;
mod relay;
mod swarm;
mod taps;

use std::time::Duration;

use plenary_media_core::{Event, LinkEnd};
use plenary_model::TrackSid;
use plenary_testkit::{ClientId, Cluster, ReceivedStream, seed};

const SECOND: Duration = Duration::from_secs(1);

/// Ann on the first router publishes, Bob on the second receives.
struct Apart {
    cluster: Cluster,
    ann: ClientId,
    bob: ClientId,
    audio: TrackSid,
    video: TrackSid,
}

impl Apart {
    /// Audio and one video stream flow.
    fn flowing(of_test: u64) -> Self {
        Self::with(of_test, false)
    }

    /// The video has three layers.
    fn simulcast(of_test: u64) -> Self {
        Self::with(of_test, true)
    }

    fn with(of_test: u64, is_simulcast: bool) -> Self {
        let mut cluster = Cluster::seeded(seed(of_test), 2);
        let (ann, bob) = (cluster.join(0, "ann"), cluster.join(1, "bob"));
        let audio = cluster.worlds[0].publish_audio(ann);
        let video =
            if is_simulcast { cluster.worlds[0].publish_simulcast(ann) } else { cluster.worlds[0].publish_video(ann) };
        cluster.subscribe(1, bob, 0, &[audio.clone(), video.clone()]);
        let tracks = [audio.clone(), video.clone()];
        cluster.run_until(5 * SECOND, |cluster| {
            let stream = |track: &TrackSid| received(cluster, 1, bob, track);
            tracks.iter().all(|track| stream(track).is_some_and(|stream| stream.packets.len() >= 10))
        });
        Self { cluster, ann, bob, audio, video }
    }

    fn heard(&self) -> &ReceivedStream {
        self.cluster.worlds[1].received(self.bob, &self.audio)
    }

    fn seen(&self) -> &ReceivedStream {
        self.cluster.worlds[1].received(self.bob, &self.video)
    }

    /// Packets of audio and video that came within the last second.
    fn last_second(&self) -> (usize, usize) {
        let since = self.cluster.now - SECOND;
        (self.heard().since(since).count(), self.seen().since(since).count())
    }

    /// All of both came within the last second: 50 packets, and a packet for each of 30 frames.
    fn assert_flows(&self) {
        let (heard, seen) = self.last_second();
        assert!((49..=51).contains(&heard) && (29..=31).contains(&seen), "{heard} and {seen} packets in a second");
    }

    /// Bytes on the link from the first router to the second in this time.
    fn link_bytes(&mut self, time: Duration) -> u64 {
        let counters = self.cluster.worlds[0].counters();
        let before = counters.link_bytes_out.get();
        self.cluster.run_for(time);
        counters.link_bytes_out.get() - before
    }
}

/// Before a client answered the offer with a track there is no stream of it.
fn received<'c>(cluster: &'c Cluster, at: usize, id: ClientId, track: &TrackSid) -> Option<&'c ReceivedStream> {
    cluster.worlds[at].stream(id, track)
}

/// Which links went up (none) or down, in order.
fn link_events(cluster: &Cluster, at: usize) -> Vec<Option<LinkEnd>> {
    let of_link = |(_, event): &(std::time::Instant, Event)| match event {
        Event::LinkUp { .. } => Some(None),
        Event::LinkDown { why, .. } => Some(Some(*why)),
        _ => None,
    };
    cluster.worlds[at].events.iter().filter_map(of_link).collect()
}
