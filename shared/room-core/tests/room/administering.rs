//! What the room API asks.

use bytes::Bytes;
use plenary_model::*;
use plenary_room_core::notice::{Announce, Notice, Request};

use crate::driver::*;

#[test]
fn removing_ends_the_session_and_the_record() {
    let mut world = World::new();
    let (ann, bob) = (world.join("ann"), world.join("bob"));
    world.forget_notices();
    assert_eq!(world.admin(Admin::Remove { identity: identity("bob") }), Ok(None));
    assert_eq!(world.client(&bob).ended, Some(LeaveReason::ParticipantRemoved));
    let heard = people(&world.heard(&ann)).concat();
    assert_eq!(heard.iter().map(|one| one.leave_reason).collect::<Vec<_>>(), [LeaveReason::ParticipantRemoved]);
    assert_eq!(world.stored().len(), 1);
    let again = world.admin(Admin::Remove { identity: identity("bob") });
    assert_eq!(again, Err(AdminRefusal::NoSuchParticipant));
}

#[test]
fn a_record_of_this_node_without_a_session_can_be_removed() {
    let mut world = World::new();
    world.join("ann");
    world.seat(0, "ghost", |_| {}).unwrap();
    world.settle();
    assert_eq!(world.admin(Admin::Remove { identity: identity("ghost") }), Ok(None));
    assert_eq!(world.stored().len(), 1);
}

#[test]
fn only_people_of_this_node_are_administered_here() {
    let mut world = World::with_nodes(2);
    world.join("ann");
    world.seat(1, "bob", |_| {}).unwrap();
    world.welcome(1);
    world.settle();
    let bob = || identity("bob");
    for ask in [
        Admin::Remove { identity: bob() },
        Admin::Mute { identity: bob(), track: "TR_1".into(), muted: true },
        Admin::Update { identity: bob(), update: ParticipantUpdate::default() },
        Admin::Subscribe { identity: bob(), tracks: Vec::new(), subscribe: true },
    ] {
        assert_eq!(world.admin(ask), Err(AdminRefusal::NoSuchParticipant));
    }
    world.check_agreement("nothing happened");
}

#[test]
fn muting_reaches_the_publisher_and_everybody() {
    let mut world = World::new();
    let (ann, bob) = (world.join("ann"), world.join("bob"));
    world.ask(&ann, publish(vec![track("TR_1", Source::Microphone)]));
    let before = world.stored_one("ann").participant.tracks[0].version;
    world.forget_notices();
    let mute = |muted| Admin::Mute { identity: identity("ann"), track: "TR_1".into(), muted };
    let reply = world.admin(mute(true)).unwrap().expect("the participant comes back");
    assert!(reply.tracks[0].muted && reply.tracks[0].version > before);
    let heard = world.heard(&ann);
    assert_eq!(heard[0], Notice::MuteTrack { track: "TR_1".into(), muted: true });
    assert!(matches!(own_changes(&heard).as_slice(), [(_, Announce::Yes)]));
    assert!(people(&world.heard(&bob)).concat()[0].tracks[0].muted);
    // Muted already: the answer is the same and nobody is told again.
    assert!(world.admin(mute(true)).unwrap().expect("as before").tracks[0].muted);
    assert!(world.heard(&ann).is_empty() && world.heard(&bob).is_empty());
    assert_eq!(world.admin(mute(false)), Err(AdminRefusal::RemoteUnmuteDisabled));
    let unknown = Admin::Mute { identity: identity("ann"), track: "TR_9".into(), muted: true };
    assert_eq!(world.admin(unknown), Err(AdminRefusal::NoSuchTrack));
}

#[test]
fn updating_is_announced_to_the_client_and_the_others() {
    let mut world = World::new();
    let (ann, bob) = (world.join("ann"), world.join("bob"));
    world.forget_notices();
    let update = ParticipantUpdate { name: Some("Ann".into()), metadata: Some("m".into()), ..Default::default() };
    let reply = world.admin(Admin::Update { identity: identity("ann"), update }).unwrap().unwrap();
    assert_eq!((reply.name.as_str(), reply.metadata.as_str()), ("Ann", "m"));
    let own = own_changes(&world.heard(&ann));
    assert!(matches!(own.as_slice(), [(own, Announce::Yes)] if *own == reply));
    assert_eq!(people(&world.heard(&bob)).concat(), [reply]);
}

#[test]
fn too_much_metadata_is_refused() {
    let mut world = World::new();
    world.join("ann");
    let too_large = [
        ParticipantUpdate { name: Some("n".repeat(NAME_BYTES_MAX + 1)), ..Default::default() },
        ParticipantUpdate { metadata: Some("m".repeat(65)), ..Default::default() },
        ParticipantUpdate { attributes: [("a".to_owned(), "b".repeat(32))].into(), ..Default::default() },
    ];
    for update in too_large {
        let outcome = world.admin(Admin::Update { identity: identity("ann"), update });
        assert_eq!(outcome, Err(AdminRefusal::TooLarge));
    }
}

#[test]
fn withdrawing_publish_unpublishes() {
    let mut world = World::new();
    let (ann, bob) = (world.join("ann"), world.join("bob"));
    world.ask(&ann, publish(vec![track("TR_1", Source::Camera), track("TR_2", Source::Microphone)]));
    let permit = |permission| {
        let update = ParticipantUpdate { permission: Some(permission), ..Default::default() };
        Admin::Update { identity: identity("ann"), update }
    };
    let sources = vec![Source::Microphone];
    let reply =
        world.admin(permit(Permission { can_publish_sources: sources, ..Permission::default() })).unwrap().unwrap();
    assert_eq!(reply.tracks.iter().map(|track| track.sid.to_string()).collect::<Vec<_>>(), ["TR_2"]);
    let reply = world.admin(permit(Permission { can_publish: false, ..Permission::default() })).unwrap().unwrap();
    assert!(reply.tracks.is_empty() && !reply.is_publisher);
    assert!(world.client(&bob).others[&identity("ann")].tracks.is_empty());
    // The session's own clean-up comes after.
    world.ask(&ann, Request::Unpublish { tracks: vec!["TR_1".into(), "TR_2".into()] });
    world.check_agreement("publish withdrawn");
}

#[test]
fn nobody_is_shown_beyond_the_cap() {
    let mut world = World::new();
    world.room(|new| new.max_participants = Some(1));
    world.join("ann");
    let eve = world.join_as("eve", |person| person.permission.hidden = true);
    let update = ParticipantUpdate { permission: Some(Permission::default()), ..Default::default() };
    let outcome = world.admin(Admin::Update { identity: identity("eve"), update });
    assert_eq!(outcome, Err(AdminRefusal::TooLarge));
    assert_eq!(world.client(&eve).ended, None);
    world.check_agreement("eve stays hidden");
}

#[test]
fn subscriptions_are_handed_to_the_session() {
    let mut world = World::new();
    let ann = world.join("ann");
    world.forget_notices();
    let tracks = vec![TrackSid::from("TR_1")];
    let ask = Admin::Subscribe { identity: identity("ann"), tracks: tracks.clone(), subscribe: false };
    assert_eq!(world.admin(ask), Ok(None));
    assert_eq!(world.heard(&ann), [Notice::SetSubscription { tracks, subscribe: false }]);
}

#[test]
fn the_server_can_send_to_everybody_or_to_some() {
    let mut world = World::new();
    let (ann, eve) = (world.join("ann"), world.join_as("eve", |person| person.permission.hidden = true));
    world.forget_notices();
    let send = |to| Admin::Send { channel: Channel::Lossy, to, payload: Bytes::from_static(b"x") };
    let heard = [Notice::Data { channel: Channel::Lossy, payload: Bytes::from_static(b"x") }];
    assert_eq!(world.admin(send(Destination::Everybody)), Ok(None));
    assert_eq!(world.heard(&ann), heard);
    assert_eq!(world.heard(&eve), heard, "hidden people too");
    world.admin(send(Destination::Identities(vec![identity("ann")]))).unwrap();
    assert_eq!(world.heard(&ann), heard);
    assert!(world.heard(&eve).is_empty());
}

#[test]
fn a_room_without_a_snapshot_knows_nothing() {
    let mut world = World::new();
    let outcome = world.admin(Admin::Remove { identity: identity("ann") });
    assert_eq!(outcome, Err(AdminRefusal::NoSuchRoom));
}
