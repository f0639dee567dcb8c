//! What crosses between the nodes of a room besides its records.

use bytes::Bytes;
use plenary_model::*;
use plenary_room_core::notice::{Notice, Request};

use crate::driver::*;

/// Ann on the first node, bob on the second, and nobody on the third.
fn world() -> (World, ParticipantSid, ParticipantSid) {
    let mut world = World::with_nodes(2);
    let ann = world.join("ann");
    let bob = world.seat(1, "bob", |_| {}).unwrap();
    world.welcome(1);
    world.settle();
    world.forget_notices();
    (world, ann, bob)
}

fn data(to: Destination) -> Request {
    Request::Data { message: DataMessage { channel: Channel::Reliable, to, payload: Bytes::from_static(b"hello") } }
}

fn hello() -> Notice {
    Notice::Data { channel: Channel::Reliable, payload: Bytes::from_static(b"hello") }
}

#[test]
fn data_reaches_those_meant_on_other_nodes_and_never_the_sender() {
    let (mut world, ann, bob) = world();
    for to in [Destination::Everybody, Destination::Identities(vec![identity("bob"), identity("ann")])] {
        world.ask(&ann, data(to));
        assert_eq!((world.heard(&ann), world.heard(&bob)), (vec![], vec![hello()]));
    }
    world.ask(&ann, data(Destination::Sids(vec!["PA_nobody".into()])));
    assert_eq!(world.heard(&bob), []);
}

#[test]
fn a_node_that_is_alone_in_the_room_says_nothing() {
    let mut world = World::new();
    let ann = world.join("ann");
    world.ask(&ann, data(Destination::Everybody));
    world.nodes[0].drain();
    assert!(world.nodes[0].words.is_empty());
}

#[test]
fn frames_reach_those_on_other_nodes_who_take_their_stream() {
    let (mut world, ann, bob) = world();
    let packet = Bytes::from_static(b"frame");
    let frame = || Request::DataFrame { track: "DTR_1".into(), packet: packet.clone() };
    world.ask(&ann, frame());
    assert_eq!(world.heard(&bob), []);
    world.ask(&bob, Request::TakeDataTracks { tracks: ["DTR_1".into()].into() });
    world.ask(&ann, frame());
    assert_eq!(world.heard(&bob), [Notice::DataFrame { track: "DTR_1".into(), packet: packet.clone() }]);
}

#[test]
fn a_publisher_hears_of_wishes_on_other_nodes() {
    let (mut world, ann, bob) = world();
    let track = track("TR_1", Source::Camera);
    world.ask(&ann, Request::Publish { tracks: vec![track.clone()] });
    world.forget_notices();
    let sid = track.sid;
    world.ask(&bob, Request::Bound { track: sid.clone() });
    world.ask(&bob, Request::Bound { track: sid.clone() });
    world.ask(&bob, Request::WantBackup { track: sid.clone() });
    let expected = [Notice::TrackSubscribed { track: sid.clone() }, Notice::BackupWanted { track: sid }];
    assert_eq!(world.heard(&ann), expected, "of the first receiver once");
}

#[test]
fn what_somebody_keeps_is_found_from_other_nodes() {
    let (mut world, ann, bob) = world();
    let (key, contents) = (Bytes::from_static(b"key"), Bytes::from_static(b"contents"));
    world.ask(&ann, Request::StoreBlob { request_id: 1, key: key.clone(), contents: contents.clone() });
    for (request_id, owner, asked) in [(2, "ann", &key), (3, "ann", &contents), (4, "nobody", &key)] {
        world.ask(&bob, Request::GetBlob { request_id, owner: identity(owner), key: asked.clone() });
    }
    let answer = |request_id, answer| Notice::Blob { request_id, answer };
    let found = BlobAnswer::Found { key, contents };
    let answers = [answer(4, BlobAnswer::NotFound), answer(2, found), answer(3, BlobAnswer::NotFound)];
    let heard = world.heard(&bob);
    assert_eq!(heard.len(), 3, "{heard:?}");
    assert!(answers.iter().all(|answer| heard.contains(answer)), "{heard:?}");
}

#[test]
fn how_well_somebody_is_connected_is_known_on_other_nodes() {
    let (mut world, ann, bob) = world();
    let quality = QualityScore { quality: ConnectionQuality::Poor, score: 2.0 };
    world.ask(&ann, Request::Quality { quality });
    assert_eq!(world.heard(&bob), [Notice::Quality { changed: vec![(ann, quality)] }]);
}
