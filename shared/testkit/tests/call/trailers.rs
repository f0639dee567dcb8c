//! What publishers append to frames, for subscribers that take it off and for others.

use plenary_model::{MediaKind, Quality, TrackSid};
use plenary_testkit::{ClientId, ClientOptions, Direction, World, seed};

use super::{SECOND, ms, repair::lose_next, settings};

/// A number of a frame, 7 (livekit/client-sdk-js `src/frameMetadata/frameMetadata.ts`).
const TRAILER: [u8; 11] = [!2, !4, !0, !0, !0, !7, !11, b'L', b'K', b'T', b'S'];
const TAKES: ClientOptions = ClientOptions { takes_trailers: true, ..PLAIN };
const PLAIN: ClientOptions = ClientOptions {
    decodes_vp8: true,
    decodes_vp9: true,
    changes_codecs: false,
    has_rtx: true,
    sends_nacks: false,
    has_transport_feedback: true,
    allows_pause: false,
    takes_trailers: false,
};

/// Announces that the track's frames end in trailers, and has them do so.
fn append_trailers(world: &mut World, track: &TrackSid) {
    world.announcement(track).trailers = true;
    for stream in &mut world.source(track).streams {
        stream.trailer = TRAILER.to_vec();
    }
}

fn with_trailers(of_test: u64, rids: &[&'static str]) -> (World, ClientId, TrackSid) {
    let mut world = World::seeded(seed(of_test));
    let ann = world.join_connected("ann");
    let video = world.announce(ann, MediaKind::Video, rids);
    append_trailers(&mut world, &video);
    world.offer_publisher(ann);
    (world, ann, video)
}

/// How many packets came with a trailer and how many without, and that those are the ends of frames.
fn count(world: &World, id: ClientId, track: &TrackSid) -> (usize, usize) {
    let packets = &world.received(id, track).packets;
    let with = packets.values().filter(|packet| packet.payload.ends_with(&TRAILER)).count();
    (with, packets.len() - with)
}

#[test]
fn who_cannot_take_a_trailer_off_gets_none() {
    for rids in [&[][..], &["q", "h", "f"]] {
        let (mut world, _, video) = with_trailers(90, rids);
        let (bob, carol) = (world.join_connected_with("bob", PLAIN), world.join_connected_with("carol", TAKES));
        for id in [bob, carol] {
            world.subscribe(id, std::slice::from_ref(&video));
        }
        world.run_for(3 * SECOND);
        let (with, without) = count(&world, carol, &video);
        let frames = world.received(carol, &video).packets.values().filter(|packet| packet.marker).count();
        assert_eq!(with, frames, "at the end of each frame");
        assert!(with > 60, "{with}");
        assert_eq!(count(&world, bob, &video), (0, with + without));
        let (carols, bobs) = (&world.received(carol, &video).packets, &world.received(bob, &video).packets);
        for (hers, his) in carols.values().zip(bobs.values()) {
            assert_eq!(hers.video().frame, his.video().frame);
            let hers = hers.payload.strip_suffix(&TRAILER).unwrap_or(&hers.payload);
            assert_eq!(hers.get(6..), his.payload.get(6..), "all but the counters, which are their own");
        }
        world.received(bob, &video).assert_continuous_video();
    }
}

#[test]
fn a_repair_has_no_trailer_either() {
    for has_rtx in [true, false] {
        let (mut world, _, video) = with_trailers(91, &[]);
        let bob = world.join_connected_with("bob", ClientOptions { has_rtx, ..PLAIN });
        world.subscribe(bob, std::slice::from_ref(&video));
        world.run_until_received(bob, &video, 10);
        let ssrc = world.received(bob, &video).ssrc;
        let lost = lose_next(&mut world, Direction::Down, ssrc);
        world.run_for(ms(200));
        let lost = lost.borrow().expect("a packet was lost");
        world.client(bob).inbox.request_packets(ssrc, &[lost]);
        world.run_for(ms(200));
        let seen = world.received(bob, &video);
        assert_eq!((seen.gaps(), seen.repaired_over_rtx()), (0, usize::from(has_rtx)));
        // Pictures are of one packet here: the one that was lost had a trailer.
        let (with, without) = count(&world, bob, &video);
        assert_eq!(with, 0);
        assert!(without > 10);
        assert_eq!(world.counters().retransmitted.get(), 1);
    }
}

#[test]
fn each_layer_of_a_picture_loses_its_own() {
    let mut world = World::seeded(seed(92));
    let ann = world.join_connected("ann");
    let video = world.announce_svc(ann);
    append_trailers(&mut world, &video);
    world.offer_publisher(ann);
    let (bob, carol) = (world.join_connected_with("bob", PLAIN), world.join_connected_with("carol", TAKES));
    for id in [bob, carol] {
        world.subscribe(id, std::slice::from_ref(&video));
    }
    world.run_for(2 * SECOND);
    // The lowest of three does not end the publisher's picture, and its packets have no mark.
    for wish in [settings(Quality::High, 0, 0), settings(Quality::Low, 0, 0)] {
        for id in [bob, carol] {
            world.set_settings(id, &video, wish);
        }
        world.run_for(2 * SECOND);
    }
    let (with, without) = count(&world, carol, &video);
    let pictures = world.received(carol, &video).packets.values().filter(|packet| packet.marker).count();
    assert!(
        with == without && with > pictures && pictures > 100,
        "{with} in {pictures} pictures, {without} before them"
    );
    assert_eq!(count(&world, bob, &video), (0, with + without));
}

#[test]
fn nothing_is_taken_from_a_track_that_announced_none() {
    let mut world = World::seeded(seed(93));
    let ann = world.join_connected("ann");
    let video = world.announce(ann, MediaKind::Video, &[]);
    append_trailers(&mut world, &video);
    world.announcement(&video).trailers = false;
    world.offer_publisher(ann);
    let bob = world.join_connected_with("bob", PLAIN);
    world.subscribe(bob, std::slice::from_ref(&video));
    world.run_for(SECOND);
    assert!(count(&world, bob, &video).0 > 20);
}
