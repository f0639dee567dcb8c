//! The room's own facts, its emptiness and its end.

use plenary_cluster::Store;
use plenary_model::*;
use plenary_room_core::{
    notice::Request,
    room::{Deadline, RecordChange},
};

use crate::driver::*;

#[test]
fn a_room_nobody_joins_closes_after_its_empty_timeout() {
    let mut world = World::new();
    world.room(|new| new.empty_timeout_s = Some(10));
    assert_eq!(world.wait(seconds(9)), []);
    assert_eq!(world.nodes[0].closed, None);
    assert_eq!(world.wait(seconds(1)), [Deadline::EmptyTimeout]);
    assert_eq!(world.nodes[0].closed, Some(LeaveReason::RoomClosed));
    assert_eq!(done(world.store.rooms(Vec::new())), Ok(Vec::new()));
}

#[test]
fn a_room_closes_its_departure_timeout_after_the_last_person() {
    let mut world = World::new();
    let (ann, bob) = (world.join("ann"), world.join("bob"));
    world.ask(&ann, leave());
    world.wait(seconds(100));
    assert_eq!(world.nodes[0].closed, None, "bob is still there");
    world.ask(&bob, leave());
    world.wait(seconds(19));
    assert_eq!(world.nodes[0].closed, None);
    world.wait(seconds(1));
    assert_eq!(world.nodes[0].closed, Some(LeaveReason::RoomClosed));
}

#[test]
fn somebody_who_comes_back_in_time_keeps_the_room() {
    let mut world = World::new();
    let ann = world.join("ann");
    world.ask(&ann, leave());
    world.wait(seconds(15));
    world.join("ann");
    world.wait(seconds(100));
    assert_eq!(world.nodes[0].closed, None);
}

#[test]
fn dependents_keep_no_room_and_are_told_of_its_end() {
    let mut world = World::new();
    let ann = world.join("ann");
    let recorder = world.join_as("rec", |person| person.permission.recorder = true);
    let agent = world.join_as("agent", |person| person.kind = ParticipantKind::Agent);
    world.ask(&ann, leave());
    world.wait(seconds(20));
    assert_eq!(world.nodes[0].closed, Some(LeaveReason::RoomClosed));
    assert_eq!([&recorder, &agent].map(|who| world.client(who).ended), [Some(LeaveReason::RoomClosed); 2]);
}

#[test]
fn a_hidden_person_keeps_the_room() {
    let mut world = World::new();
    world.join_as("eve", |person| person.permission.hidden = true);
    world.wait(seconds(1000));
    assert_eq!(world.nodes[0].closed, None);
}

#[test]
fn a_lost_request_to_close_is_repeated() {
    let mut world = World::new();
    world.room(|new| new.empty_timeout_s = Some(10));
    world.now += seconds(10);
    for _ in 0..3 {
        let room = &mut world.nodes[0].room;
        assert_eq!(room.next_deadline(), Some((world.now, Deadline::EmptyTimeout)));
        room.handle_timeout(world.now);
        world.nodes[0].drain();
        assert_eq!(world.nodes[0].writes.pop_front(), Some(RecordChange::CloseIfEmpty));
        assert!(world.nodes[0].writes.is_empty());
        world.now += seconds(5);
    }
}

#[test]
fn a_join_that_overtakes_the_closing_lives_on_in_the_next_room() {
    let mut world = World::new();
    let ann = world.join("ann");
    world.ask(&ann, leave());
    assert_eq!(done(world.store.delete_if_empty(name())), Ok(true));
    let bob = world.seat(0, "bob", |_| {}).unwrap();
    world.welcome(0);
    let old_room = world.client(&bob).room.sid.clone();
    world.settle();
    assert_eq!(world.client(&bob).ended, None);
    assert_eq!(world.nodes[0].closed, None);
    assert_ne!(world.client(&bob).room.sid, old_room, "told of the new room");
    let cyd = world.join("cyd");
    assert_eq!(world.client(&cyd).others.len(), 1);
    world.check_agreement("second life");
}

#[test]
fn deleting_a_room_ends_everybody() {
    let mut world = World::new();
    let (ann, bob) = (world.join("ann"), world.join("bob"));
    done(world.store.delete(name(), LeaveReason::RoomDeleted)).unwrap();
    world.settle();
    assert_eq!([&ann, &bob].map(|who| world.client(who).ended), [Some(LeaveReason::RoomDeleted); 2]);
    assert_eq!(world.nodes[0].closed, Some(LeaveReason::RoomDeleted));
    assert_eq!(world.nodes[0].room.next_deadline(), None);
}

#[test]
fn metadata_is_told_at_once() {
    let mut world = World::new();
    let ann = world.join("ann");
    world.wait(seconds(10));
    world.forget_notices();
    for text in ["one", "two"] {
        set_metadata(&mut world, text);
        let told = rooms(&world.heard(&ann));
        assert_eq!(told.iter().map(|room| room.metadata.as_str()).collect::<Vec<_>>(), [text]);
        assert_eq!(told[0].participants, 1);
    }
}

#[test]
fn recording_shows_at_once_while_a_recorder_is_here() {
    let mut world = World::new();
    let ann = world.join("ann");
    world.join("bob");
    for shape in [(|person| person.kind = ParticipantKind::Egress) as fn(&mut Participant), |person| {
        person.permission.recorder = true;
    }] {
        let recorder = world.join_as("rec", shape);
        assert!(world.client(&ann).room.active_recording);
        world.ask(&recorder, leave());
        assert!(!world.client(&ann).room.active_recording);
    }
}

#[test]
fn recording_shows_at_once_while_a_recording_is_active() {
    let mut world = World::new();
    let ann = world.join("ann");
    let mut egress = Egress {
        id: "EG_1".into(),
        room: name(),
        room_sid: world.client(&ann).room.sid.clone(),
        source: EgressSource::Room { layout: String::new(), media: EgressMedia::Both },
        outputs: Vec::new(),
        request: EgressRequest { kind: EgressRequestKind::RoomComposite, message: Default::default() },
        status: EgressStatus::Starting,
        asked_at_ns: 1,
        started_at_ns: 0,
        ended_at_ns: 0,
        updated_at_ns: 1,
        error: String::new(),
        files: Vec::new(),
        version: 1,
    };
    done(world.store.start_egress(egress.clone())).unwrap();
    for (status, is_shown) in [(EgressStatus::Active, true), (EgressStatus::Ending, false)] {
        world.forget_notices();
        egress = Egress { status, version: egress.version + 1, ..egress };
        done(world.store.put_egress(egress.clone(), None)).unwrap();
        world.settle();
        let told: Vec<_> = rooms(&world.heard(&ann)).iter().map(|room| room.active_recording).collect();
        assert_eq!(told, [is_shown]);
        let bob = world.join("bob");
        assert_eq!(world.client(&bob).room.active_recording, is_shown, "to whoever comes later too");
        world.ask(&bob, leave());
    }
}

#[test]
fn counts_go_out_at_most_once_an_interval() {
    let mut world = World::new();
    let ann = world.join("ann");
    world.wait(seconds(10));
    world.forget_notices();
    let others: Vec<_> = (0..5).map(|at| world.join(&format!("p{at}"))).collect();
    let told: Vec<_> = rooms(&world.heard(&ann)).iter().map(|room| room.participants).collect();
    assert_eq!(told, [2], "the first change at once, the rest later");
    assert_eq!(world.wait(seconds(5)), [Deadline::Counts]);
    let told: Vec<_> = rooms(&world.heard(&ann)).iter().map(|room| room.participants).collect();
    assert_eq!(told, [6]);
    assert_eq!(world.client(&others[0]).room.participants, 6);
    world.wait(seconds(5));
    world.ask(&others[0], publish(vec![track("TR_1", Source::Camera)]));
    assert_eq!(world.client(&ann).room.publishers, 1);
}

#[test]
fn dependents_and_hidden_people_are_not_counted() {
    let mut world = World::new();
    let ann = world.join("ann");
    world.join_as("eve", |person| person.permission.hidden = true);
    world.join_as("agent", |person| person.permission.agent = true);
    world.join_as("rec", |person| person.kind = ParticipantKind::Egress);
    world.wait(seconds(10));
    assert_eq!(world.client(&ann).room.participants, 1);
    let stored = done(world.store.rooms(Vec::new())).unwrap();
    assert_eq!(world.client(&ann).room, stored[0], "the store counts alike");
}

#[test]
fn whoever_was_welcomed_with_passing_counts_is_put_right() {
    let mut world = World::new();
    let ann = world.join("ann");
    let bob = world.join("bob");
    let cyd = world.join("cyd");
    world.ask(&cyd, leave());
    world.wait(seconds(10));
    assert_eq!([&ann, &bob].map(|who| world.client(who).room.participants), [2, 2]);
    let dan = world.join("dan");
    let eve = world.join("eve");
    world.ask(&dan, leave());
    world.wait(seconds(5));
    assert_eq!([&ann, &eve].map(|who| world.client(who).room.participants), [3, 3]);
}

fn set_metadata(world: &mut World, metadata: &str) {
    let room = done(world.store.snapshot(name())).unwrap().room;
    done(world.store.set_meta(name(), RoomInfo { metadata: metadata.into(), ..room })).unwrap();
    world.settle();
}

fn leave() -> Request {
    Request::Leave { reason: LeaveReason::ClientInitiated }
}

/// A fault ends a room without a word to the store.
#[test]
fn people_whom_a_lost_room_left_behind_may_come_back_and_are_removed_if_they_do_not() {
    let mut world = World::new();
    for who in ["ann", "bob", "cyd"] {
        world.join(who);
    }
    world.reopen(0);
    let ann = world.join("ann");
    assert_eq!(world.client(&ann).others.len(), 2, "they may be on their way");
    assert!(!world.wait(seconds(7)).contains(&Deadline::Orphans));
    world.join("bob");
    assert!(world.wait(seconds(1)).contains(&Deadline::Orphans));
    assert_eq!(world.stored().keys().cloned().collect::<Vec<_>>(), [identity("ann"), identity("bob")]);
    world.check_agreement("after the patience");
}

#[test]
fn a_lost_room_to_which_nobody_comes_back_closes() {
    let mut world = World::new();
    world.join("ann");
    world.reopen(0);
    world.resync(0);
    world.wait(seconds(10));
    assert!(world.stored().is_empty());
    world.wait(seconds(20));
    assert_eq!(world.nodes[0].closed, Some(LeaveReason::RoomClosed));
}

#[test]
fn whoever_is_just_joining_was_not_left_behind() {
    let mut world = World::new();
    world.seat(0, "ann", |_| {}).unwrap();
    world.seat(0, "bob", |_| {}).unwrap();
    world.welcome(0);
    world.wait(seconds(5));
    world.welcome(0);
    world.settle();
    assert!(!world.wait(seconds(20)).contains(&Deadline::Orphans));
    world.check_agreement("after the patience");
}

#[test]
fn a_node_whose_people_have_left_leaves_the_room_to_the_others() {
    let mut world = World::with_nodes(2);
    let ann = world.join("ann");
    let bob = world.seat(1, "bob", |_| {}).unwrap();
    world.welcome(1);
    world.settle();
    world.ask(&ann, Request::Leave { reason: LeaveReason::ClientInitiated });
    world.wait(seconds(9));
    assert_eq!(world.nodes[0].unattended, 0, "she may come back");
    world.wait(seconds(2));
    assert_eq!((world.nodes[0].unattended, world.nodes[1].unattended), (1, 0));
    world.ask(&bob, Request::Leave { reason: LeaveReason::ClientInitiated });
    let before = world.nodes[0].unattended;
    world.wait(seconds(15));
    assert_eq!(world.nodes[0].unattended, before, "a room without anybody is not left but closed");
}

#[test]
fn a_node_that_watches_stays_in_the_room_without_people() {
    let mut world = World::with_nodes(2);
    world.join("ann");
    let bob = world.seat(1, "bob", |_| {}).unwrap();
    world.welcome(1);
    world.watch(1, true);
    world.settle();
    world.ask(&bob, Request::Leave { reason: LeaveReason::ClientInitiated });
    world.wait(seconds(60));
    assert_eq!(world.nodes[1].unattended, 0);
    world.watch(1, false);
    world.wait(seconds(11));
    assert_eq!(world.nodes[1].unattended, 1);
}
