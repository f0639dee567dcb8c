//! What both sides are told about their media.

use std::{cell::RefCell, rc::Rc};

use plenary_model::MediaKind;
use plenary_testkit::{Direction, World, seed};

use super::{Pair, SECOND, ms};

#[test]
fn transport_feedback_comes_every_fifty_milliseconds_from_the_first_packet() {
    let mut world = World::seeded(seed(31));
    let ann = world.join_connected("ann");
    let start = world.now;
    let video = world.publish_simulcast(ann);
    world.run_for(3 * SECOND);
    let sent: u32 = world.source(&video).streams.iter().map(|stream| stream.packets).sum();
    let feedback = &world.client(ann).transport_feedback;
    let first = feedback.first().expect("feedback came").0 - start;
    // 50 ms, the way there and the way back, and the first frame's wait.
    assert!(first < ms(120), "after {first:?}");
    assert!((50..=60).contains(&feedback.len()), "{} in three seconds", feedback.len());
    for pair in feedback.windows(2) {
        let apart = pair[1].0 - pair[0].0;
        assert!(apart >= ms(45) && apart < ms(110), "{apart:?} apart");
    }
    let told: u32 = feedback.iter().map(|(_, packets)| u32::from(*packets)).sum();
    assert!(told <= sent && told + 30 > sent, "{told} of {sent}");
}

#[test]
fn arrivals_are_told_as_they_came_however_late_they_are_read() {
    let mut world = World::seeded(seed(35));
    let ann = world.join_connected("ann");
    let audio = world.publish_audio(ann);
    world.run_for(SECOND);
    world.client(ann).arrivals_us.clear();
    world.reads_every = ms(70);
    world.run_for(3 * SECOND);
    let client = world.client(ann);
    assert!(client.arrivals_us.len() > 100, "{} arrivals told", client.arrivals_us.len());
    for pair in client.arrivals_us.windows(2) {
        let apart = pair[1] - pair[0];
        assert!((19_000..=21_000).contains(&apart), "sent 20 ms apart, told {apart} µs");
    }
    let (_, report) = world.source(&audio).streams[0].reports.last().unwrap();
    assert!(report.jitter < 48, "{} samples of jitter on an even network", report.jitter);
}

#[test]
fn publishers_get_receiver_reports_and_subscribers_sender_reports_on_the_publishers_clock() {
    let mut pair = Pair::flowing(32);
    pair.world.run_for(10 * SECOND);
    for (track, rate) in [(&pair.audio, 48_000.0), (&pair.video, 90_000.0)] {
        let reports = pair.world.source(track).streams[0].reports.clone();
        assert!((9..=12).contains(&reports.len()), "{} receiver reports", reports.len());
        assert!(reports.iter().all(|(_, report)| report.total_lost == 0 && report.fraction_lost == 0));
        let (_, last) = reports.last().unwrap();
        assert!(last.last_sender_report != 0, "{last:?}");

        let stream = pair.world.received(pair.bob, track);
        assert!((3..=5).contains(&stream.sender_reports.len()), "{} sender reports", stream.sender_reports.len());
        let (at, report) = stream.sender_reports.last().unwrap();
        // A packet that arrives with the report was made about as long ago as the report was.
        let packet = stream.packets.values().find(|packet| packet.at >= *at).unwrap();
        let apart = f64::from(packet.timestamp.wrapping_sub(report.rtp_time).cast_signed()) / rate;
        assert!(apart.abs() < 0.06, "{apart} s between {track}'s report and its packets");
        let (_, first) = stream.sender_reports.first().unwrap();
        let ntp = (report.ntp_time - first.ntp_time) as f64 / f64::from(1u32 << 31) / 2.0;
        let rtp = f64::from(report.rtp_time.wrapping_sub(first.rtp_time)) / rate;
        assert!((ntp - rtp).abs() < 0.002, "{ntp} s by the clock, {rtp} s by the samples");
    }
}

#[test]
fn keyframe_requests_of_many_become_few() {
    let Pair { mut world, bob, video, .. } = Pair::flowing(33);
    let cem = world.join_connected("cem");
    world.subscribe(cem, std::slice::from_ref(&video));
    world.run_until_received(cem, &video, 1);
    world.run_for(SECOND);
    let before = world.source(&video).streams[0].keyframe_requests.len();
    for _ in 0..60 {
        for id in [bob, cem] {
            let ssrc = world.received(id, &video).ssrc;
            world.client(id).inbox.request_keyframe(ssrc);
        }
        world.run_for(ms(50));
    }
    let asked = world.source(&video).streams[0].keyframe_requests[before..].to_vec();
    assert!((6..=7).contains(&asked.len()), "{} in three seconds, at most one per 500 ms", asked.len());
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= ms(499)));
}

#[test]
fn what_is_said_about_many_streams_fits_into_datagrams() {
    let mut world = World::seeded(seed(34));
    let (ann, bob) = (world.join_connected("ann"), world.join_connected("bob"));
    let largest = Rc::new(RefCell::new(0));
    let note = Rc::clone(&largest);
    world.network.set_filter(move |datagram| {
        if datagram.direction == Direction::Down {
            let mut largest = note.borrow_mut();
            *largest = datagram.bytes.len().max(*largest);
        }
        true
    });
    let tracks: Vec<_> = (0..30).map(|_| world.announce(ann, MediaKind::Video, &["q", "h", "f"])).collect();
    world.offer_publisher(ann);
    world.subscribe(bob, &tracks);
    world.run_for(5 * SECOND);
    assert!(*largest.borrow() <= 1_200, "{} bytes", largest.borrow());
    for track in &tracks {
        assert!(world.source(track).streams.iter().all(|stream| !stream.reports.is_empty()), "reports about {track}");
        assert!(!world.received(bob, track).sender_reports.is_empty(), "reports of {track}");
    }
}
