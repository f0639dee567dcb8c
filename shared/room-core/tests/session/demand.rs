//! What of its videos the client is asked to send.

use std::time::Duration;

use plenary_model::*;
use plenary_room_core::{
    session::{Input, MediaEvent},
    signal::{ServerSignal, WantedCodec},
};

use crate::driver::*;

const HIGH: Option<Quality> = Some(Quality::High);
const LOW: Option<Quality> = Some(Quality::Low);

/// A session that publishes a camera in two layers, low and high.
fn publisher() -> (Driver, TrackSid) {
    let mut driver = Driver::active();
    let sid = driver.publish("cam", Source::Camera);
    driver.out.clear();
    (driver, sid)
}

fn demand(driver: &mut Driver, track: &TrackSid, top: Option<u8>) {
    driver.media(MediaEvent::Demand { track: track.clone(), top });
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// What was said since this was asked last.
fn told(driver: &mut Driver) -> Vec<Option<Quality>> {
    let told = driver.sent().into_iter().filter_map(|signal| match signal {
        ServerSignal::SubscribedQuality { codecs, .. } => {
            let [WantedCodec { codec, up_to }] = &codecs[..] else { panic!("{codecs:?}") };
            assert_eq!(codec, "vp8");
            Some(*up_to)
        }
        _ => None,
    });
    let told = told.collect();
    driver.out.clear();
    told
}

#[test]
fn a_video_that_nobody_takes_is_sent_for_ten_seconds_only() {
    let (mut driver, _) = publisher();
    driver.wait_alive(seconds(9));
    assert_eq!(told(&mut driver), []);
    driver.wait_alive(seconds(2));
    assert_eq!(told(&mut driver), [None]);
    driver.wait_alive(seconds(30));
    assert_eq!(told(&mut driver), [], "it is said once");
}

#[test]
fn what_is_wanted_whole_needs_no_word() {
    let (mut driver, video) = publisher();
    demand(&mut driver, &video, Some(1));
    driver.wait_alive(seconds(30));
    assert_eq!(told(&mut driver), []);
}

#[test]
fn less_is_asked_for_after_a_while_and_more_at_once() {
    let (mut driver, video) = publisher();
    demand(&mut driver, &video, Some(1));
    driver.wait_alive(seconds(20));
    demand(&mut driver, &video, Some(0));
    driver.wait_alive(Duration::from_millis(4_900));
    assert_eq!(told(&mut driver), []);
    driver.wait_alive(Duration::from_millis(200));
    assert_eq!(told(&mut driver), [LOW]);
    demand(&mut driver, &video, Some(1));
    assert_eq!(told(&mut driver), [HIGH]);
}

#[test]
fn a_wish_that_comes_back_in_time_was_never_gone() {
    let (mut driver, video) = publisher();
    demand(&mut driver, &video, Some(1));
    driver.wait_alive(seconds(20));
    for top in [None, Some(1), Some(0), None, Some(1)] {
        demand(&mut driver, &video, top);
        driver.wait_alive(seconds(2));
    }
    driver.wait_alive(seconds(10));
    assert_eq!(told(&mut driver), []);
}

#[test]
fn a_fall_is_to_what_is_wanted_when_its_time_has_come() {
    let (mut driver, video) = publisher();
    demand(&mut driver, &video, Some(1));
    driver.wait_alive(seconds(20));
    demand(&mut driver, &video, None);
    driver.wait_alive(seconds(3));
    demand(&mut driver, &video, Some(0));
    driver.wait_alive(seconds(3));
    assert_eq!(told(&mut driver), [LOW]);
    driver.wait_alive(seconds(30));
    assert_eq!(told(&mut driver), []);
}

#[test]
fn a_client_that_comes_back_is_told_again() {
    let (mut driver, video) = publisher();
    driver.wait_alive(seconds(11));
    assert_eq!(told(&mut driver), [None]);
    driver.give(Input::SocketLost);
    demand(&mut driver, &video, Some(0));
    assert_eq!(told(&mut driver), []);
    driver.give(Input::Resumed { protocol: 17, ice_servers: Vec::new() });
    assert_eq!(told(&mut driver), [LOW]);
}

#[test]
fn nothing_is_said_of_audio_and_of_what_is_gone() {
    let (mut driver, video) = publisher();
    driver.publish("mic", Source::Microphone);
    driver.media(answered(&[], &[&video]));
    driver.signal(plenary_room_core::signal::ClientSignal::Offer { sdp: "unpublish".into(), id: 3 });
    driver.media(answered(&[], &[&video]));
    driver.out.clear();
    demand(&mut driver, &video, Some(0));
    driver.wait_alive(seconds(30));
    assert_eq!(told(&mut driver), []);
}
