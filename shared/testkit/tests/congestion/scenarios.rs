use std::time::Duration;

use plenary_media_core::Event;
use plenary_testkit::{Bursts, ClientOptions, Conditions};

use super::{
    link,
    measure::{
        Bar, DOWN,
        Right::{Anything, Layer, Paused},
        Scenario, UP,
    },
    ms,
};

/// Where the queue is full before feedback can speak of it, and few packets come after it in the stage: whatever the queue
/// holds, while the whole scenario is held to the bar.
const FULL: Bar = Bar { wait: Duration::MAX, ..DOWN };

#[test]
fn a_link_that_narrows_and_widens_is_followed() {
    Scenario::new("4 Mb/s → 500 kb/s → 150 kb/s → 4 Mb/s", 201)
        .stage(link(4_000), 20, Layer(2))
        .stage(link(500), 20, Layer(1))
        .stage(link(150), 20, Layer(0))
        .stage(link(4_000), 25, Layer(2))
        .assert(&[UP, DOWN, DOWN, UP]);
}

#[test]
fn where_no_layer_fits_video_is_paused_and_audio_goes_on() {
    let mut scenario = Scenario::new("4 Mb/s → 110 kb/s → 4 Mb/s with pausing", 202)
        .stage(link(4_000), 10, Layer(2))
        .stage(link(110), 60, Paused)
        .stage(link(4_000), 25, Layer(2));
    scenario.options = ClientOptions { allows_pause: true, ..scenario.options };
    // At the end of the pause the picture stands until the path is known to be wide again.
    scenario.assert(&[UP, FULL, Bar { frozen: UP.settled, ..UP }]);
}

#[test]
fn where_no_layer_fits_and_none_may_be_paused_audio_goes_on() {
    // Video that does not fit and may not go is tried again and again, below what audio needs.
    let down = Bar { settled: ms(2_500), unused: 0.4, ..FULL };
    Scenario::new("4 Mb/s → 110 kb/s without pausing", 203)
        .stage(link(4_000), 10, Layer(2))
        .stage(link(110), 60, Layer(0))
        .assert(&[UP, down]);
}

#[test]
fn random_loss_takes_no_layer_away() {
    for (percent, seed) in [(2, 204), (5, 205), (10, 206), (20, 207)] {
        let lossy = Conditions { loss: f64::from(percent) / 100.0, ..link(4_000) };
        Scenario::new(["2 % loss", "5 % loss", "10 % loss", "20 % loss"][(seed - 204) as usize], seed)
            .stage(lossy, 60, Layer(2))
            // At 20 % both ways the client may ask for a key frame and its repairs more than once.
            .assert(&[Bar { frozen: if percent < 20 { UP.frozen } else { Duration::from_secs(8) }, ..UP }]);
    }
}

#[test]
fn bursts_of_loss_are_survived() {
    let bursts = Some(Bursts { begin: 0.005, datagrams: 8.0 });
    Scenario::new("bursts of 8, 4 %", 208).stage(Conditions { bursts, ..link(4_000) }, 60, Layer(2)).assert(&[UP]);
}

#[test]
fn jitter_is_not_taken_for_congestion() {
    let jitter = Conditions { jitter: ms(300), keeps_order: true, ..link(4_000) };
    Scenario::new("300 ms of jitter", 209).stage(jitter, 40, Layer(2)).assert(&[UP]);
}

#[test]
fn reordering_is_not_taken_for_loss() {
    let reorder = Conditions { reorder: 0.05, ..link(4_000) };
    Scenario::new("5 % out of order", 210).stage(reorder, 30, Layer(2)).assert(&[UP]);
}

#[test]
fn long_round_trips_are_followed_too() {
    for (name, rtt, seed) in [("RTT 50 ms", 50, 211), ("RTT 200 ms", 200, 212), ("RTT 400 ms", 400, 213)] {
        let at = |rate| Conditions { delay: ms(rtt / 2), ..link(rate) };
        let down = if rtt > 50 { FULL } else { DOWN };
        Scenario::new(name, seed)
            .stage(at(4_000), 20, Layer(2))
            .stage(at(500), 20, Layer(1))
            .stage(at(4_000), 25, Layer(2))
            .assert(&[UP, down, UP]);
    }
}

#[test]
fn several_tiles_fill_a_link() {
    for (name, rate, seed) in [("four tiles, 2.8 Mb/s", 2_800, 214), ("four tiles, 1 Mb/s", 1_050, 215)] {
        let mut scenario = Scenario::new(name, seed).stage(link(rate), 60, Anything);
        // Steps small enough to fill either link to some 85 %.
        (scenario.cameras, scenario.layers) = (4, [80_000, 300_000, 800_000]);
        scenario.assert(&[UP]);
    }
}

#[test]
fn quality_scores_follow_what_gets_through() {
    let lossy = Conditions { loss: 0.15, ..link(4_000) };
    let (world, _) = Scenario::new("15 % loss → 500 kb/s → 4 Mb/s", 216)
        .stage(lossy, 30, Layer(2))
        .stage(link(500), 30, Layer(1))
        .stage(link(4_000), 40, Layer(2))
        .run();
    let seconds_left = |at: std::time::Instant| (world.now - at).as_secs();
    let score = |event: &Event| if let Event::Quality { score, .. } = event { Some(*score) } else { None };
    let told: Vec<_> = world.events.iter().filter_map(|(at, event)| Some((seconds_left(*at), score(event)?))).collect();
    let last_before = |left: u64| told.iter().rev().find(|(at, _)| *at >= left).map(|(_, score)| *score);
    assert_eq!(told.iter().find(|(at, _)| *at >= 100), None, "a good link is no news: {told:?}");
    assert!(last_before(70).is_some_and(|score| score < 3.1), "loss is heard: {told:?}");
    assert!(last_before(40).is_some_and(|score| (2.9..4.0).contains(&score)), "a quarter of the picture: {told:?}");
    assert!(last_before(0).is_some_and(|score| score > 4.0), "and well again: {told:?}");
}
