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
mod taps;
mod trailers;

use std::time::Duration;

use plenary_model::{Quality, SubscriptionSettings, TrackSid};
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

const fn settings(quality: Quality, width: u32, height: u32) -> SubscriptionSettings {
    SubscriptionSettings { disabled: false, quality, width, height, fps: 0, priority: 0 }
}

/// How somebody wants a video in three layers of 180, 360 and 720 lines, and which of them that is.
const WISHES: [(SubscriptionSettings, u8); 6] = [
    (settings(Quality::Low, 0, 0), 0),
    (settings(Quality::High, 0, 0), 2),
    (settings(Quality::Medium, 0, 0), 1),
    (settings(Quality::High, 200, 110), 0),
    (settings(Quality::Low, 600, 330), 1),
    (settings(Quality::Low, 3_840, 2_160), 2),
];
