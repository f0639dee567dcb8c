//! What sessions ask of their room.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use plenary_model::*;
use plenary_room_core::{
    notice::{Announce, BlobAnswer, Notice, Request},
    room::Input,
};

use crate::driver::*;

#[test]
fn a_publication_reaches_the_others_when_its_delta_comes_home() {
    let mut world = World::new();
    let (ann, bob) = (world.join("ann"), world.join("bob"));
    world.forget_notices();
    world.handle(0, Input::Ask { who: ann.clone(), what: publish(vec![track("TR_1", Source::Camera)]) });
    let own = own_changes(&world.heard(&ann));
    assert!(matches!(own.as_slice(), [(own, Announce::No)] if own.is_publisher && own.tracks.len() == 1));
    assert!(world.heard(&bob).is_empty(), "not before the store has it");
    world.settle();
    let heard = people(&world.heard(&bob)).concat();
    assert_eq!(heard.len(), 1);
    assert_eq!(*heard[0], world.stored_one("ann").participant);
    world.check_agreement("published");
}

#[test]
fn changes_build_on_the_newest_truth_while_a_write_is_out() {
    let mut world = World::new();
    let ann = world.join("ann");
    let ask = |what| Input::Ask { who: ann.clone(), what };
    world.handle(0, ask(Request::BecameActive));
    world.handle(0, ask(publish(vec![track("TR_1", Source::Camera)])));
    world.handle(0, ask(publish(vec![track("TR_2", Source::Microphone)])));
    world.handle(0, ask(Request::Unpublish { tracks: vec!["TR_1".into()] }));
    assert_eq!(world.nodes[0].writes.len(), 4);
    world.settle();
    let stored = world.stored_one("ann");
    assert_eq!(stored.participant.state, ParticipantState::Active);
    let tracks: Vec<_> = stored.participant.tracks.iter().map(|track| track.sid.to_string()).collect();
    assert_eq!(tracks, ["TR_2"]);
    world.check_agreement("four writes");
}

#[test]
fn nothing_is_written_for_what_changes_nothing() {
    let mut world = World::new();
    let ann = world.join("ann");
    world.ask(&ann, Request::BecameActive);
    world.forget_notices();
    let version = world.stored_one("ann").participant.version;
    world.ask(&ann, Request::BecameActive);
    world.ask(&ann, Request::Unpublish { tracks: vec!["TR_9".into()] });
    world.ask(&ann, Request::UpdateTrack { track: track("TR_9", Source::Camera) });
    assert_eq!(world.stored_one("ann").participant.version, version);
    assert!(world.heard(&ann).is_empty());
}

#[test]
fn a_publisher_without_tracks_is_none() {
    let mut world = World::new();
    let ann = world.join("ann");
    world.ask(&ann, publish(vec![track("TR_1", Source::Camera)]));
    assert!(world.stored_one("ann").participant.is_publisher);
    world.ask(&ann, Request::Unpublish { tracks: vec!["TR_1".into()] });
    assert!(!world.stored_one("ann").participant.is_publisher);
}

#[test]
fn a_changed_track_gets_a_newer_version_even_from_a_standing_clock() {
    let mut world = World::new();
    let ann = world.join("ann");
    let camera = track("TR_1", Source::Camera);
    world.ask(&ann, publish(vec![camera.clone()]));
    world.ask(&ann, Request::UpdateTrack { track: Track { muted: true, ..camera.clone() } });
    let stored = world.stored_one("ann").participant.tracks[0].clone();
    assert!(stored.muted && stored.version > camera.version);
}

#[test]
fn tracks_that_are_no_longer_allowed_are_not_published() {
    let mut world = World::new();
    let ann = world.join_as("ann", |person| person.permission.can_publish_sources = vec![Source::Microphone]);
    let bob = world.join_as("bob", |person| person.permission.can_publish = false);
    world.ask(&ann, publish(vec![track("TR_1", Source::Camera), track("TR_2", Source::Microphone)]));
    world.ask(&bob, publish(vec![track("TR_3", Source::Microphone)]));
    let sids = |who| world.stored_one(who).participant.tracks.iter().map(|one| one.sid.to_string()).collect::<Vec<_>>();
    assert_eq!(sids("ann"), ["TR_2"]);
    assert!(sids("bob").is_empty());
}

#[test]
fn own_metadata_is_announced_to_its_own_client() {
    let mut world = World::new();
    let ann = world.join_as("ann", |person| {
        person.name = "Ann".into();
        person.attributes = BTreeMap::from([("hand".into(), "up".into()), ("team".into(), "red".into())]);
    });
    world.forget_notices();
    let attributes = BTreeMap::from([("hand".into(), String::new()), ("mood".into(), "good".into())]);
    world.ask(&ann, Request::UpdateMetadata { name: None, metadata: Some("m".into()), attributes });
    let own = own_changes(&world.heard(&ann));
    let [(own, Announce::Yes)] = own.as_slice() else { panic!("{own:?}") };
    assert_eq!((own.name.as_str(), own.metadata.as_str()), ("Ann", "m"));
    let expected = BTreeMap::from([("mood".to_owned(), "good".to_owned()), ("team".to_owned(), "red".to_owned())]);
    assert_eq!(own.attributes, expected);
}

#[test]
fn metadata_beyond_the_limits_or_without_permission_is_ignored() {
    let mut world = World::new();
    let ann = world.join("ann");
    let bob = world.join_as("bob", |person| person.permission.can_update_metadata = false);
    let before = world.stored();
    let change = |name: usize, metadata: usize, attribute: usize| Request::UpdateMetadata {
        name: (name > 0).then(|| "n".repeat(name)),
        metadata: Some("m".repeat(metadata)),
        attributes: BTreeMap::from([("a".to_owned(), "b".repeat(attribute))]),
    };
    for refused in [change(NAME_BYTES_MAX + 1, 1, 1), change(1, 65, 1), change(1, 1, 32)] {
        world.ask(&ann, refused);
    }
    world.ask(&bob, change(1, 1, 1));
    assert_eq!(world.stored(), before);
    world.ask(&ann, change(NAME_BYTES_MAX, 64, 31));
    assert_ne!(world.stored(), before, "what just fits passes");
}

#[test]
fn data_goes_to_everybody_but_its_sender() {
    let mut world = World::new();
    let (ann, bob) = (world.join("ann"), world.join("bob"));
    let eve = world.join_as("eve", |person| person.permission.hidden = true);
    let dan = world.join_as("dan", |person| person.state = ParticipantState::Joining);
    world.forget_notices();
    world.ask(&ann, data(Destination::Everybody));
    assert_eq!([received(&mut world, &ann), received(&mut world, &bob)], [0, 1]);
    assert_eq!(received(&mut world, &eve), 1, "hidden people listen");
    assert_eq!(received(&mut world, &dan), 0, "not there yet");
}

#[test]
fn who_watches_hears_what_is_said_to_everybody_and_who_is_there_and_speaks() {
    let mut world = World::new();
    let ann = world.join("ann");
    world.ask(&ann, Request::BecameActive);
    world.ask(&ann, publish(vec![track("TR_1", Source::Microphone)]));
    world.levels(&[(&ann, "TR_1", 0.5)]);
    world.watch(0, true);
    world.settle();
    let heard = |world: &mut World| std::mem::take(&mut world.nodes[0].watcher.as_mut().unwrap().notices);
    let [Notice::Participants { changed }, Notice::Speakers { speakers }] = &heard(&mut world)[..] else { panic!() };
    assert_eq!((changed[0].sid.clone(), changed[0].tracks.len(), speakers[0].0.clone()), (ann.clone(), 1, ann.clone()));
    world.ask(&ann, data(Destination::Everybody));
    world.ask(&ann, data(Destination::Identities(vec![identity("ann")])));
    assert!(matches!(heard(&mut world)[..], [Notice::Data { .. }]));
    world.ask(&ann, Request::Leave { reason: LeaveReason::ClientInitiated });
    let all = heard(&mut world);
    assert_eq!(people(&all).len(), 1);
    assert!(matches!(&all[0], Notice::Speakers { speakers } if !speakers[0].1.active));
    // Nothing comes any more; the driver would panic.
    world.watch(0, false);
    world.join("bob");
}

#[test]
fn data_goes_to_named_people_once() {
    let mut world = World::new();
    let (ann, bob, cyd) = (world.join("ann"), world.join("bob"), world.join("cyd"));
    world.forget_notices();
    let named = [identity("bob"), identity("bob"), identity("ann"), identity("nobody")];
    world.ask(&ann, data(Destination::Identities(named.to_vec())));
    assert_eq!([&ann, &bob, &cyd].map(|who| received(&mut world, who)), [0, 1, 0]);
    world.ask(&ann, data(Destination::Sids(vec![cyd.clone(), cyd.clone()])));
    assert_eq!([&ann, &bob, &cyd].map(|who| received(&mut world, who)), [0, 0, 1]);
    world.ask(&ann, data(Destination::Identities(Vec::new())));
    assert_eq!([&ann, &bob, &cyd].map(|who| received(&mut world, who)), [0, 0, 0]);
}

#[test]
fn nobody_hears_from_somebody_before_hearing_of_them() {
    let mut world = World::new();
    let ann = world.join("ann");
    world.forget_notices();
    let bob = world.seat(0, "bob", |_| {}).unwrap();
    let (delta, joined) = (world.next_delta(0).unwrap(), world.nodes[0].joined.pop_front().unwrap());
    let ask = Input::Ask { who: bob, what: data(Destination::Everybody) };
    world.burst(vec![delta, Input::Joined { record: joined.record }, ask]);
    let heard = world.heard(&ann);
    let at = |which: fn(&Notice) -> bool| heard.iter().position(which).expect("it was told");
    assert!(at(|one| matches!(one, Notice::Participants { .. })) < at(|one| matches!(one, Notice::Data { .. })));
}

#[test]
fn a_publisher_hears_once_that_somebody_receives_its_track() {
    let mut world = World::new();
    let (ann, bob, cyd) = (world.join("ann"), world.join("bob"), world.join("cyd"));
    let eve = world.join_as("eve", |person| person.permission.hidden = true);
    world.ask(&ann, publish(vec![track("TR_1", Source::Camera)]));
    world.forget_notices();
    let bound = || Request::Bound { track: "TR_1".into() };
    let expected = Notice::TrackSubscribed { track: "TR_1".into() };
    world.ask(&eve, bound());
    assert!(world.heard(&ann).is_empty(), "hidden people do not show");
    world.ask(&bob, bound());
    assert_eq!(world.heard(&ann), std::slice::from_ref(&expected));
    world.ask(&cyd, bound());
    world.ask(&cyd, Request::Bound { track: "TR_9".into() });
    assert!(world.heard(&ann).is_empty());
    // A track that is published anew is a new track.
    world.ask(&ann, Request::Unpublish { tracks: vec!["TR_1".into()] });
    world.ask(&ann, publish(vec![track("TR_1", Source::Camera)]));
    world.forget_notices();
    world.ask(&bob, bound());
    assert_eq!(world.heard(&ann), [expected]);
}

#[test]
fn data_frames_reach_those_who_take_their_stream() {
    let mut world = World::new();
    let (ann, bob, cyd) = (world.join("ann"), world.join("bob"), world.join("cyd"));
    world.ask(&ann, Request::UpdateDataTracks { tracks: vec![data_track("DTR_1")] });
    assert_eq!(world.stored_one("ann").participant.data_tracks, [data_track("DTR_1")]);
    world.ask(&bob, Request::TakeDataTracks { tracks: BTreeSet::from(["DTR_1".into()]) });
    world.forget_notices();
    let packet = Bytes::from_static(b"packet");
    let frame = || Request::DataFrame { track: "DTR_1".into(), packet: packet.clone() };
    world.ask(&ann, frame());
    let expected = Notice::DataFrame { track: "DTR_1".into(), packet: packet.clone() };
    assert_eq!(world.heard(&bob), [expected]);
    assert!(world.heard(&cyd).is_empty());
    world.ask(&bob, Request::TakeDataTracks { tracks: BTreeSet::new() });
    world.ask(&ann, frame());
    assert!(world.heard(&bob).is_empty());
}

#[test]
fn who_may_not_publish_data_has_no_stream_of_it() {
    let mut world = World::new();
    let ann = world.join_as("ann", |person| person.permission.can_publish_data = false);
    world.ask(&ann, Request::UpdateDataTracks { tracks: vec![data_track("DTR_1")] });
    assert!(world.stored_one("ann").participant.data_tracks.is_empty());
}

#[test]
fn a_blob_is_had_by_its_owner_and_key_until_its_owner_leaves() {
    let mut world = World::new();
    let (ann, bob) = (world.join("ann"), world.join("bob"));
    let (key, contents) = (Bytes::from_static(b"schema"), Bytes::from_static(b"fields"));
    world.forget_notices();
    let store = |bytes: usize| {
        let contents = if bytes == 0 { contents.clone() } else { vec![7; bytes].into() };
        Request::StoreBlob { request_id: 1, key: if bytes == 0 { key.clone() } else { vec![1].into() }, contents }
    };
    let get = |owner: &str, key: &Bytes| Request::GetBlob { request_id: 2, owner: identity(owner), key: key.clone() };
    for (ask, answer) in [
        (store(0), BlobAnswer::Stored { key: key.clone() }),
        (store(0), BlobAnswer::Duplicate),
        (store(64_000), BlobAnswer::TooLarge),
    ] {
        world.ask(&ann, ask);
        assert_eq!(world.heard(&ann), [Notice::Blob { request_id: 1, answer }]);
    }
    let found = BlobAnswer::Found { key: key.clone(), contents: contents.clone() };
    for (ask, answer) in [
        (get("ann", &key), found),
        (get("ann", &Bytes::from_static(b"other")), BlobAnswer::NotFound),
        (get("bob", &key), BlobAnswer::NotFound),
        (get("nobody", &key), BlobAnswer::NotFound),
    ] {
        world.ask(&bob, ask);
        assert_eq!(world.heard(&bob), [Notice::Blob { request_id: 2, answer }]);
    }
    world.ask(&ann, Request::Leave { reason: LeaveReason::ClientInitiated });
    world.forget_notices();
    world.ask(&bob, get("ann", &key));
    assert_eq!(world.heard(&bob), [Notice::Blob { request_id: 2, answer: BlobAnswer::NotFound }]);
}

fn data_track(sid: &str) -> DataTrack {
    DataTrack {
        sid: sid.into(),
        handle: 3,
        name: "position".into(),
        encryption: Encryption::None,
        format: Bytes::new(),
    }
}

fn data(to: Destination) -> Request {
    let payload = Bytes::from_static(b"hello");
    Request::Data { message: DataMessage { channel: Channel::Reliable, to, payload } }
}

fn received(world: &mut World, who: &ParticipantSid) -> usize {
    let notices = world.heard(who);
    notices.iter().filter(|notice| matches!(notice, Notice::Data { .. })).count()
}

#[test]
fn a_change_of_quality_is_told_to_everybody_and_to_whoever_joins_later() {
    let mut world = World::new();
    let (ann, bob) = (world.join("ann"), world.join("bob"));
    world.forget_notices();
    let measured = |quality, score| Request::Quality { quality: QualityScore { quality, score } };
    let told = |world: &mut World, who: &ParticipantSid| {
        let heard = world.heard(who);
        let quality = |one: &Notice| if let Notice::Quality { changed } = one { Some(changed.clone()) } else { None };
        heard.iter().filter_map(quality).flatten().map(|(who, measured)| (who, measured.score)).collect::<Vec<_>>()
    };
    world.ask(&ann, measured(ConnectionQuality::Good, 3.5));
    assert_eq!(told(&mut world, &ann), [(ann.clone(), 3.5)]);
    assert_eq!(told(&mut world, &bob), [(ann.clone(), 3.5)]);
    world.forget_notices();
    world.ask(&ann, measured(ConnectionQuality::Good, 3.4));
    assert_eq!(told(&mut world, &bob), [], "the class is the same");
    let cid = world.join("cid");
    assert_eq!(told(&mut world, &cid), [(ann.clone(), 3.4)]);
    world.ask(&ann, Request::Leave { reason: LeaveReason::ClientInitiated });
    let dan = world.join("dan");
    assert_eq!(told(&mut world, &dan), []);
}

#[test]
fn whoever_is_hidden_hears_of_its_quality_alone() {
    let mut world = World::new();
    let spy = world.join_as("spy", |person| person.permission.hidden = true);
    let bob = world.join("bob");
    world.forget_notices();
    let quality = QualityScore { quality: ConnectionQuality::Poor, score: 2.0 };
    world.ask(&spy, Request::Quality { quality });
    assert!(matches!(world.heard(&spy).as_slice(), [Notice::Quality { .. }]));
    assert!(world.heard(&bob).is_empty());
}

#[test]
fn the_wish_for_a_backup_reaches_the_publisher_and_nobody_else() {
    let mut world = World::new();
    let (ann, bob) = (world.join("ann"), world.join("bob"));
    world.ask(&ann, publish(vec![track("TR_1", Source::Camera)]));
    world.forget_notices();
    world.ask(&bob, Request::WantBackup { track: "TR_1".into() });
    assert_eq!(world.heard(&ann), [Notice::BackupWanted { track: "TR_1".into() }]);
    world.ask(&bob, Request::WantBackup { track: "TR_2".into() });
    world.ask(&ann, Request::Unpublish { tracks: vec!["TR_1".into()] });
    world.forget_notices();
    world.ask(&bob, Request::WantBackup { track: "TR_1".into() });
    assert!(world.heard(&ann).is_empty() && world.heard(&bob).is_empty());
}
