//! Floods by somebody who is in the call, with her own keys.

use std::time::Duration;

use plenary_media_core::DropReason;
use plenary_model::{Channel, MediaKind, Target};
use plenary_testkit::{World, seed};
use rtc::rtp;

use super::{SECOND, Scene};

/// Feedback about one stream (RFC 4585 6.1): format, packet type, what follows the SSRCs.
fn feedback(format: u8, kind: u8, media_ssrc: u32, body: &[u8]) -> Vec<u8> {
    let words = 2 + body.len() / 4;
    let mut packet = vec![0x80 | format, kind];
    packet.extend((words as u16).to_be_bytes());
    packet.extend(1_u32.to_be_bytes());
    packet.extend(media_ssrc.to_be_bytes());
    packet.extend(body);
    packet
}

#[test]
fn streams_beyond_the_limit_are_dropped_before_they_are_decrypted() {
    let mut scene = Scene::new(81);
    let mallory = scene.mallory;
    scene.world.publish_audio(mallory);
    scene.world.run_for(SECOND);
    let before = scene.dropped(DropReason::TooManySsrcs);
    scene.under(|world, round| {
        let now = world.now;
        for n in 0..50 {
            let header = rtp::Header {
                version: 2,
                payload_type: 111,
                sequence_number: 1,
                timestamp: 1,
                ssrc: 0x6000_0000 + round * 50 + n,
                ..Default::default()
            };
            let packet = rtp::Packet { header, payload: bytes::Bytes::from_static(b"sound") };
            world.client(mallory).send_rtp(now, packet);
        }
    });
    // A little over a hundred find a place; all that come after are refused.
    let refused = scene.dropped(DropReason::TooManySsrcs) - before;
    assert!((9_800..10_000).contains(&refused), "{refused} of 10,000");
}

#[test]
fn a_nack_storm_gets_its_share_of_repairs_and_no_more() {
    let mut scene = Scene::new(82);
    let (mallory, address) = (scene.mallory, scene.world.client(scene.mallory).subscriber.public);
    let ssrc = scene.world.received(mallory, &scene.video).ssrc;
    let video = scene.video.clone();
    let ordinary = scene.world.counters().bytes_out.get();
    scene.world.run_for(2 * SECOND);
    let ordinary = (scene.world.counters().bytes_out.get() - ordinary) / 2;
    let answered = scene.bytes_to(address);
    let refusals = [DropReason::NackUnknown, DropReason::NackRepeated, DropReason::NackOverBudget];
    let before = refusals.map(|reason| scene.dropped(reason));
    let asked = scene.world.counters().nacks_received.get();
    scene.under(|world, round| {
        let newest = world.received(mallory, &video).packets.keys().next_back().copied().unwrap_or_default() as u16;
        // Every number of the last thousand, as often as it fits; and of a stream nobody has.
        let body: Vec<u8> =
            (0..60_u16).flat_map(|n| [newest.wrapping_sub(17 * n).to_be_bytes(), [0xff; 2]].concat()).collect();
        let now = world.now;
        let ssrc = if round % 10 == 0 { 0xdead_beef } else { ssrc };
        world.client(mallory).send_rtcp(now, Target::Subscriber, &feedback(1, 205, ssrc, &body));
    });
    assert_eq!(scene.world.counters().nacks_received.get() - asked, 200 * 60 * 17);
    for (reason, before) in refusals.into_iter().zip(before) {
        assert!(scene.dropped(reason) > before, "{reason:?}");
    }
    // Half a second's worth at once and then 2 Mb/s, besides what everybody gets.
    let limit = ordinary as usize + 125_000 + 3 * 250_000 + 50_000;
    assert!(*answered.borrow() <= limit, "{} bytes, at most {limit}", answered.borrow());
}

#[test]
fn a_storm_of_keyframe_requests_reaches_the_publisher_as_a_few() {
    let mut scene = Scene::new(83);
    let (mallory, ssrc) = (scene.mallory, scene.world.received(scene.mallory, &scene.video).ssrc);
    let before = scene.world.counters().keyframe_requests.get();
    let asked = scene.world.source(&scene.video.clone()).streams[0].keyframe_requests.len();
    // RFC 5104 4.3.1: the same stream with ever new numbers, as many as fit.
    let entry = |n: u8| [&ssrc.to_be_bytes()[..], &[n, 0, 0, 0]].concat();
    let every: Vec<u8> = (0..100).flat_map(entry).collect();
    scene.under(|world, _| {
        let now = world.now;
        for _ in 0..5 {
            world.client(mallory).send_rtcp(now, Target::Subscriber, &feedback(1, 206, ssrc, &[]));
            world.client(mallory).send_rtcp(now, Target::Subscriber, &feedback(4, 206, 0, &every));
        }
    });
    let sent = scene.world.counters().keyframe_requests.get() - before;
    let heard = scene.world.source(&scene.video.clone()).streams[0].keyframe_requests.len() - asked;
    // One per half second; a hundred thousand were asked for.
    assert!((4..=6).contains(&sent) && heard as u64 <= sent, "{sent} sent, {heard} heard");
}

#[test]
fn rtcp_of_every_kind_makes_no_more_answers_than_silence_does() {
    let mut scene = Scene::new(84);
    let (mallory, ssrc) = (scene.mallory, scene.world.received(scene.mallory, &scene.video).ssrc);
    let addresses = {
        let client = scene.world.client(mallory);
        [client.publisher.public, client.subscriber.public]
    };
    // Reports with all the blocks they can have, a bye, a description, application data and feedback on 65,535 packets.
    let block = [ssrc.to_be_bytes(), [0xff; 4], [0xff; 4], [0; 4], [0; 4], [0; 4]].concat();
    let mut report = vec![0x80 | 31, 201];
    report.extend((1 + 31 * 6_u16).to_be_bytes());
    report.extend(1_u32.to_be_bytes());
    report.extend(block.repeat(31));
    let twcc = [&[0, 0, 0xff, 0xff, 0, 0, 1, 0][..], &[0x1f, 0xff].repeat(9)[..], &[0, 0]].concat();
    let kinds = [
        report,
        vec![0x81, 203, 0, 1, 0, 0, 0, 9],
        vec![0x81, 202, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0],
        vec![0x80, 204, 0, 2, 0, 0, 0, 9, b'n', b'a', b'm', b'e'],
        feedback(15, 205, ssrc, &twcc),
        feedback(15, 206, 0, b"REMB\x01\xff\xff\xff\0\0\0\x09"),
    ];
    for address in addresses {
        let quiet = scene.bytes_to(address);
        scene.world.run_for(4 * SECOND);
        let answered = scene.bytes_to(address);
        // Three and a half seconds in all.
        scene.under(|world, _| {
            let now = world.now;
            for kind in &kinds {
                for target in [Target::Publisher, Target::Subscriber] {
                    world.client(mallory).send_rtcp(now, target, kind);
                }
            }
        });
        let (quiet, answered) = (*quiet.borrow(), *answered.borrow());
        assert!(answered <= quiet + 5_000, "{answered} bytes where silence makes {quiet}");
    }
}

#[test]
fn a_flood_of_data_is_dropped_or_slowed_down() {
    let mut scene = Scene::in_world(World::with_data_limit(seed(85), 100_000));
    let mallory = scene.mallory;
    let before = scene.dropped(DropReason::TooMuchData);
    let start = scene.world.now;
    for _ in 0..200 {
        let now = scene.world.now;
        for _ in 0..4 {
            scene.world.client(mallory).send_data(now, Channel::Lossy, &[7; 10_000]);
        }
        scene.world.client(mallory).send_data(now, Channel::Reliable, &[8; 10_000]);
        scene.world.run_for(Duration::from_millis(10));
    }
    assert!(scene.dropped(DropReason::TooMuchData) > before);
    let passed_on: usize = scene
        .world
        .events
        .iter()
        .map(|(_, event)| match event {
            plenary_media_core::Event::Data { payload, .. } => payload.len(),
            _ => 0,
        })
        .sum();
    assert!(passed_on <= 100_000 * 4, "{passed_on} bytes in two seconds");
    scene.assert_undisturbed(start);
}

#[test]
fn a_socket_that_takes_nothing_holds_a_bounded_queue_and_the_call_goes_on_after_it() {
    let mut scene = Scene::new(86);
    let more: Vec<_> = (0..15).map(|_| scene.world.announce(scene.ann, MediaKind::Video, &["q", "h", "f"])).collect();
    scene.world.offer_publisher(scene.ann);
    scene.world.subscribe(scene.bob, &more);
    scene.world.run_for(20 * SECOND);
    scene.world.is_stalled = true;
    let held: Vec<_> = (0..4).map(|_| scene.grown(|_, _| {}, 0..100)).collect();
    assert!(scene.dropped(DropReason::QueueFull) > 0, "{held:?}");
    assert!(held[3] < 64 << 10, "the queues are full by then: {held:?}");
    scene.world.is_stalled = false;
    let start = scene.world.now;
    scene.world.run_for(3 * SECOND);
    let seen = scene.world.received(scene.bob, &scene.video).since(start + SECOND).count();
    assert!(seen >= 58, "{seen} packets in the two seconds after the first");
    assert_eq!(scene.world.closed(scene.bob.subscriber()), None);
}
