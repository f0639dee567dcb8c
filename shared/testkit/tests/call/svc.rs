//! Layers that share one stream: which of them a subscriber gets, and that no picture is broken or left without its end.

use plenary_model::{Quality, TrackSid};
use plenary_testkit::{ClientId, Conditions, Direction, SvcPayload, World, seed};

use super::{SECOND, WISHES, settings};

fn flowing(of_test: u64) -> (World, ClientId, TrackSid) {
    let mut world = World::seeded(seed(of_test));
    let (ann, bob) = (world.join_connected("ann"), world.join_connected("bob"));
    let video = world.publish_svc(ann);
    world.subscribe(bob, std::slice::from_ref(&video));
    world.run_until_received(bob, &video, 10);
    (world, bob, video)
}

fn packets(world: &World, id: ClientId, track: &TrackSid) -> Vec<(u32, bool, SvcPayload)> {
    let received = world.received(id, track).packets.values();
    received.map(|one| (one.timestamp, one.marker, SvcPayload::read(&one.payload).expect("made-up video"))).collect()
}

fn newest_layer(world: &World, id: ClientId, track: &TrackSid) -> u8 {
    packets(world, id, track).last().unwrap().2.spatial
}

/// No gap; every picture is whole and ends with its mark; a layer begins with a key picture, whole from the lowest on.
fn assert_decodable(world: &World, id: ClientId, track: &TrackSid) {
    assert_eq!(world.received(id, track).gaps(), 0);
    let all = packets(world, id, track);
    let mut pictures: Vec<Vec<(u32, bool, SvcPayload)>> = Vec::new();
    for packet in all {
        match pictures.last_mut().filter(|picture| picture[0].0 == packet.0) {
            Some(picture) => picture.push(packet),
            None => pictures.push(vec![packet]),
        }
    }
    // The last one may still be on its way.
    pictures.pop();
    let mut layer = None;
    for picture in pictures {
        let marks: Vec<bool> = picture.iter().map(|(_, marker, _)| *marker).collect();
        assert!(marks.iter().rposition(|mark| *mark) == Some(marks.len() - 1), "{picture:?}");
        assert_eq!(marks.iter().filter(|mark| **mark).count(), 1, "{picture:?}");
        let top = picture.last().unwrap().2.spatial;
        let spatial: Vec<u8> = picture.iter().map(|(_, _, payload)| payload.spatial).collect();
        if picture[0].2.keyframe {
            assert_eq!(spatial, (0..=top).flat_map(|spatial| [spatial; 2]).collect::<Vec<_>>());
        } else {
            assert_eq!((spatial, Some(top)), (vec![top; 2], layer));
        }
        layer = Some(top);
    }
}

#[test]
fn settings_choose_the_layer_and_switches_leave_no_seam() {
    let (mut world, bob, video) = flowing(21);
    world.run_for(3 * SECOND);
    for (settings, layer) in WISHES {
        world.set_settings(bob, &video, settings);
        world.run_for(2 * SECOND);
        assert_eq!(newest_layer(&world, bob, &video), layer, "{settings:?}");
    }
    assert_decodable(&world, bob, &video);
    let requests = world.source(&video).streams[0].keyframe_requests.len();
    assert!((6..=8).contains(&requests), "one for each switch: {requests}");
}

#[test]
fn each_subscriber_gets_its_own_layer_of_the_one_stream() {
    let (mut world, bob, video) = flowing(22);
    let cem = world.join_connected("cem");
    world.subscribe(cem, std::slice::from_ref(&video));
    world.set_settings(cem, &video, settings(Quality::Low, 0, 0));
    world.run_for(4 * SECOND);
    assert_eq!((newest_layer(&world, bob, &video), newest_layer(&world, cem, &video)), (2, 0));
    assert_decodable(&world, bob, &video);
    assert_decodable(&world, cem, &video);
}

#[test]
fn a_narrow_path_gets_a_layer_that_fits() {
    let (mut world, bob, video) = flowing(23);
    world.run_for(3 * SECOND);
    assert_eq!(newest_layer(&world, bob, &video), 2);
    let address = world.client(bob).subscriber.public;
    let narrow = Conditions { bits_per_second: Some(250_000), ..Conditions::default() };
    world.network.set(address, Direction::Down, narrow);
    world.run_for(10 * SECOND);
    assert!(newest_layer(&world, bob, &video) < 2, "layer {}", newest_layer(&world, bob, &video));
}

#[test]
fn a_lossy_way_in_costs_no_picture() {
    let (mut world, bob, video) = flowing(24);
    world.set_settings(bob, &video, settings(Quality::Low, 0, 0));
    world.run_for(2 * SECOND);
    let address = world.client(ClientId(0)).publisher.public;
    world.network.set(address, Direction::Up, Conditions { loss: 0.05, ..Conditions::default() });
    world.run_for(5 * SECOND);
    world.network.set(address, Direction::Up, Conditions::default());
    world.run_for(2 * SECOND);
    let received = world.received(bob, &video);
    assert_eq!(received.gaps(), 0, "what nobody wanted fills its number too");
    let pictures: std::collections::BTreeSet<u16> =
        received.packets.values().filter_map(|one| SvcPayload::read(&one.payload)).map(|one| one.picture_id).collect();
    assert!(pictures.len() > 260, "{} of 270 pictures", pictures.len());
}
