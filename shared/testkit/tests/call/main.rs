//! The media engine against independent clients over a made-up network, one file per side of its work.

mod data;
mod feedback;
mod flow;
mod hostile;
mod layers;
mod leaving;
mod negotiating;
mod paths;
mod repair;
mod svc;

use std::time::Duration;

use plenary_model::TrackSid;
use plenary_testkit::{ClientId, World, seed};

/// One who publishes audio and a single video stream, and one who receives both.
struct Pair {
    world: World,
    ann: ClientId,
    bob: ClientId,
    audio: TrackSid,
    video: TrackSid,
}

impl Pair {
    fn flowing(of_test: u64) -> Self {
        let mut world = World::seeded(seed(of_test));
        let (ann, bob) = (world.join_connected("ann"), world.join_connected("bob"));
        let (audio, video) = (world.publish_audio(ann), world.publish_video(ann));
        world.subscribe(bob, &[audio.clone(), video.clone()]);
        world.run_until_received(bob, &video, 10);
        world.run_until_received(bob, &audio, 10);
        Self { world, ann, bob, audio, video }
    }

    fn received(&self) -> (usize, usize) {
        let count = |track| self.world.received(self.bob, track).packets.len();
        (count(&self.audio), count(&self.video))
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
