//! Floods of every kind, while two people are in a call: each is dropped by its name or answered within bounds, the
//! router holds no more after twice as many, and the call keeps every frame.

mod authenticated;
mod heap;
mod strangers;

use std::{cell::RefCell, net::SocketAddr, rc::Rc, time::Duration};

use plenary_media_core::DropReason;
use plenary_model::TrackSid;
use plenary_testkit::{ClientId, Datagram, Direction, World, seed};

/// Ann sends and bob receives, and know nothing of mallory, who is in the call too.
struct Scene {
    world: World,
    ann: ClientId,
    bob: ClientId,
    mallory: ClientId,
    audio: TrackSid,
    video: TrackSid,
}

impl Scene {
    fn new(of_test: u64) -> Self {
        Self::in_world(World::seeded(seed(of_test)))
    }

    fn in_world(mut world: World) -> Self {
        world.heap = heap::live_bytes;
        let [ann, bob, mallory] = ["ann", "bob", "mallory"].map(|name| world.join_connected(name));
        let (audio, video) = (world.publish_audio(ann), world.publish_video(ann));
        for who in [bob, mallory] {
            world.subscribe(who, &[audio.clone(), video.clone()]);
            world.run_until_received(who, &video, 10);
            world.run_until_received(who, &audio, 10);
        }
        Self { world, ann, bob, mallory, audio, video }
    }

    /// Two seconds of the call with `flood` every ten milliseconds, told which of the two hundred times it is. The router
    /// comes to hold no more by it than by the call alone, and bob misses nothing.
    fn under(&mut self, mut flood: impl FnMut(&mut World, u32)) {
        let quiet = self.grown(|_, _| {}, 0..ROUNDS / 2);
        let start = self.world.now;
        // What maps and queues take once for all, they take in the first half.
        let first = self.grown(&mut flood, 0..ROUNDS / 2);
        let second = self.grown(&mut flood, ROUNDS / 2..ROUNDS);
        assert!(first <= quiet + ONCE_BYTES_MAX, "{first} bytes where the call alone takes {quiet}");
        assert!(second <= quiet + SLACK_BYTES, "{second} bytes, after {first}, where the call alone takes {quiet}");
        self.assert_undisturbed(start);
    }

    /// How much more the router holds after these rounds.
    fn grown(&mut self, mut flood: impl FnMut(&mut World, u32), rounds: std::ops::Range<u32>) -> i64 {
        let before = self.world.router_bytes;
        for round in rounds {
            flood(&mut self.world, round);
            self.world.run_for(Duration::from_millis(10));
        }
        self.world.router_bytes - before
    }

    fn assert_undisturbed(&mut self, start: std::time::Instant) {
        let seconds = (self.world.now - start).as_secs() as usize;
        self.world.run_for(SECOND / 2);
        let (heard, seen) = (self.world.received(self.bob, &self.audio), self.world.received(self.bob, &self.video));
        assert_eq!(heard.gaps(), 0);
        seen.assert_continuous_video();
        assert!(heard.since(start).count() >= 50 * seconds, "{} packets of sound", heard.since(start).count());
        assert!(seen.since(start).count() >= 30 * seconds, "{} packets of video", seen.since(start).count());
        for client in [self.ann, self.bob] {
            for peer in [client.publisher(), client.subscriber()] {
                assert_eq!(self.world.closed(peer), None);
            }
        }
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.world.counters().dropped(reason)
    }

    /// Counts the bytes that go to one address from now on.
    fn bytes_to(&mut self, address: SocketAddr) -> Rc<RefCell<usize>> {
        let bytes = Rc::new(RefCell::new(0));
        let count = Rc::clone(&bytes);
        self.world.network.set_filter(move |datagram| {
            if datagram.direction == Direction::Down && datagram.client == address {
                *count.borrow_mut() += datagram.bytes.len();
            }
            true
        });
        bytes
    }

    /// The last datagram to the router whose first byte is of this kind, seen while two seconds pass.
    fn captured(&mut self, from: SocketAddr, first: std::ops::RangeInclusive<u8>) -> Vec<u8> {
        let found = Rc::new(RefCell::new(None));
        let note = Rc::clone(&found);
        self.world.network.set_filter(move |Datagram { direction, client, bytes }| {
            if *direction == Direction::Up && *client == from && first.contains(&bytes[0]) {
                *note.borrow_mut() = Some(bytes.clone());
            }
            true
        });
        self.world.run_for(6 * SECOND);
        self.world.network.clear_filter();
        found.take().expect("such a datagram was sent")
    }
}

/// An address of nobody's.
fn stranger(number: u32) -> SocketAddr {
    let [_, a, b, c] = number.to_be_bytes();
    SocketAddr::from(([100, a, b, c], 1_024 + (number % 50_000) as u16))
}

const SECOND: Duration = Duration::from_secs(1);
const ROUNDS: u32 = 200;
/// A peer's full lane of repairs (128 KiB) and of the video that waits behind them (512 KiB).
const ONCE_BYTES_MAX: i64 = 640 << 10;
/// Capacities grow in steps, and the call's own steps need not come when it is alone.
const SLACK_BYTES: i64 = 32 << 10;
