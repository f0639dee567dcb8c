//! Coming, being seen, being replaced, going.

use plenary_model::*;
use plenary_room_core::{
    notice::{Notice, Request},
    room::Input,
};

use crate::driver::*;

#[test]
fn a_newcomer_is_welcomed_with_everybody_else_and_the_others_hear_of_it() {
    let mut world = World::new();
    let ann = world.join("ann");
    assert!(world.client(&ann).others.is_empty());
    let bob = world.join("bob");
    let known: Vec<_> = world.client(&bob).others.keys().cloned().collect();
    assert_eq!(known, [identity("ann")]);
    let heard = people(&world.heard(&ann));
    assert_eq!(heard.len(), 1);
    assert_eq!(*heard[0][0], world.stored_one("bob").participant);
    assert_eq!(people(&world.heard(&bob)), Vec::<Vec<_>>::new(), "nothing of the welcome is told again");
    world.check_agreement("after two joins");
}

#[test]
fn a_delta_that_overtakes_its_join_is_neither_lost_nor_doubled() {
    let mut world = World::new();
    let ann = world.join("ann");
    let bob = world.seat(0, "bob", |_| {}).unwrap();
    let cyd = world.seat(0, "cyd", |_| {}).unwrap();
    // Both deltas come home before either session is registered.
    assert!(world.hear(0) && world.hear(0));
    world.welcome(0);
    world.welcome(0);
    world.settle();
    for who in [&ann, &bob, &cyd] {
        assert_eq!(world.client(who).others.len(), 2, "{who}");
    }
    world.check_agreement("deltas first");
}

#[test]
fn a_join_that_overtakes_its_delta_is_neither_lost_nor_doubled() {
    let mut world = World::new();
    let ann = world.join("ann");
    world.forget_notices();
    let bob = world.seat(0, "bob", |_| {}).unwrap();
    world.seat(0, "cyd", |_| {}).unwrap();
    world.welcome(0);
    world.welcome(0);
    assert_eq!(world.client(&bob).others.len(), 1, "cyd's delta is still on its way");
    world.settle();
    world.check_agreement("joins first");
    assert_eq!(people(&world.heard(&ann)).concat().len(), 2);
}

#[test]
fn a_welcome_counts_the_newcomer() {
    let mut world = World::new();
    world.room(|_| {});
    let ann = world.seat(0, "ann", |_| {}).unwrap();
    world.welcome(0);
    assert!(world.hear(0), "its own delta is still on its way");
    assert_eq!(world.client(&ann).room.participants, 1);
}

#[test]
fn a_burst_of_joins_is_one_notice() {
    let mut world = World::new();
    let ann = world.join("ann");
    world.forget_notices();
    for at in 0..10 {
        world.seat(0, &format!("p{at}"), |_| {}).unwrap();
    }
    let burst = (0..10).map(|_| world.next_delta(0).unwrap()).collect();
    world.burst(burst);
    let heard = people(&world.heard(&ann));
    assert_eq!(heard.iter().map(Vec::len).collect::<Vec<_>>(), [10]);
}

#[test]
fn whoever_comes_and_goes_within_a_burst_is_never_mentioned() {
    let mut world = World::new();
    let ann = world.join("ann");
    world.forget_notices();
    world.seat(0, "bob", |_| {}).unwrap();
    let bob = world.stored_one("bob");
    let (identity, sid) = (bob.participant.identity.clone(), bob.participant.sid.clone());
    let leaving =
        plenary_cluster::Store::leave(&*world.store, name(), identity, sid, bob.generation, LeaveReason::Unknown);
    done(leaving).unwrap();
    let burst = (0..2).map(|_| world.next_delta(0).unwrap()).collect();
    world.burst(burst);
    assert!(people(&world.heard(&ann)).is_empty());
}

#[test]
fn a_session_welcomed_within_a_burst_hears_only_what_came_after() {
    let mut world = World::new();
    world.join("ann");
    world.seat(0, "bob", |_| {}).unwrap();
    let cyd = world.seat(0, "cyd", |_| {}).unwrap();
    world.seat(0, "dan", |_| {}).unwrap();
    let (bobs, cyds, dans) = (world.next_delta(0), world.next_delta(0), world.next_delta(0));
    let joined = world.nodes[0].joined.remove(1).unwrap();
    let inputs = [bobs, cyds, Some(Input::Joined { record: joined.record }), dans];
    world.burst(inputs.into_iter().flatten().collect());
    // The driver's clients object to anything told twice; who is dan but nobody of the welcome.
    let heard = people(&world.heard(&cyd)).concat();
    assert_eq!(heard.iter().map(|one| one.identity.to_string()).collect::<Vec<_>>(), ["dan"]);
    assert_eq!(world.client(&cyd).others.len(), 3);
}

#[test]
fn leaving_is_told_with_its_reason() {
    let mut world = World::new();
    let (ann, bob) = (world.join("ann"), world.join("bob"));
    world.ask(&bob, publish(vec![track("TR_1", Source::Camera)]));
    world.forget_notices();
    let version = world.client(&bob).own.version;
    world.ask(&bob, Request::Leave { reason: LeaveReason::ClientInitiated });
    let heard = people(&world.heard(&ann)).concat();
    let [gone] = heard.as_slice() else { panic!("{heard:?}") };
    assert_eq!((&gone.sid, gone.state), (&bob, ParticipantState::Disconnected));
    assert_eq!(gone.leave_reason, LeaveReason::ClientInitiated);
    assert!(gone.tracks.is_empty() && gone.version > version);
    assert_eq!(world.stored().len(), 1);
}

#[test]
fn a_session_lost_without_a_word_leaves_the_store_once() {
    let mut world = World::new();
    world.join("ann");
    let bob = world.join("bob");
    world.handle(0, Input::SessionLost { who: bob.clone(), reason: LeaveReason::SignalClose });
    world.handle(0, Input::SessionLost { who: bob.clone(), reason: LeaveReason::SignalClose });
    world.handle(0, Input::Ask { who: bob, what: Request::Leave { reason: LeaveReason::ClientInitiated } });
    assert_eq!(world.nodes[0].writes.len(), 1);
}

#[test]
fn the_next_session_of_an_identity_ends_the_first_and_replaces_its_record() {
    let mut world = World::new();
    let ann = world.join("ann");
    let first = world.join("bob");
    world.ask(&first, publish(vec![track("TR_1", Source::Camera)]));
    world.forget_notices();
    let second = world.join("bob");
    assert_eq!(world.client(&first).ended, Some(LeaveReason::DuplicateIdentity));
    let heard = people(&world.heard(&ann)).concat();
    let [replaced] = heard.as_slice() else { panic!("one record replaces the other: {heard:?}") };
    assert_eq!((&replaced.sid, replaced.tracks.len()), (&second, 0));
    // The old session's last word comes late.
    world.handle(0, Input::Ask { who: first, what: Request::Leave { reason: LeaveReason::DuplicateIdentity } });
    assert!(world.nodes[0].writes.is_empty());
    world.check_agreement("after the replacement");
}

#[test]
fn a_session_superseded_before_it_is_registered_is_welcomed_and_ended() {
    let mut world = World::new();
    world.join("ann");
    let first = world.seat(0, "bob", |_| {}).unwrap();
    let second = world.seat(0, "bob", |_| {}).unwrap();
    world.settle();
    world.welcome(0);
    assert_eq!(world.client(&first).ended, Some(LeaveReason::DuplicateIdentity));
    world.welcome(0);
    assert_eq!(world.client(&second).ended, None);
    world.check_agreement("only the second stays");
}

#[test]
fn joins_that_arrive_in_the_wrong_order_leave_the_newer_session() {
    let mut world = World::new();
    world.join("ann");
    let (first, second) = (world.seat(0, "bob", |_| {}).unwrap(), world.seat(0, "bob", |_| {}).unwrap());
    world.nodes[0].joined.swap(0, 1);
    world.welcome(0);
    world.welcome(0);
    assert_eq!(world.client(&first).ended, Some(LeaveReason::DuplicateIdentity));
    world.settle();
    assert_eq!(world.client(&second).ended, None);
    world.check_agreement("wrong order");
}

#[test]
fn a_session_on_another_node_supersedes_as_well() {
    let mut world = World::with_nodes(2);
    let first = world.join("bob");
    let second = world.seat(1, "bob", |_| {}).unwrap();
    world.welcome(1);
    world.settle();
    assert_eq!(world.client(&first).ended, Some(LeaveReason::DuplicateIdentity));
    assert_eq!(world.client(&second).ended, None);
    assert!(world.nodes[0].writes.is_empty(), "the record is another node's now");
    world.check_agreement("moved");
}

#[test]
fn hidden_people_are_in_nobodys_list_but_hear_everything() {
    let mut world = World::new();
    let ann = world.join("ann");
    world.forget_notices();
    let eve = world.join_as("eve", |person| person.permission.hidden = true);
    let bob = world.join("bob");
    assert!(world.client(&bob).others.contains_key(&identity("ann")));
    assert!(!world.client(&bob).others.contains_key(&identity("eve")));
    assert_eq!(world.client(&eve).others.len(), 2);
    world.ask(&eve, Request::Leave { reason: LeaveReason::ClientInitiated });
    let heard = people(&world.heard(&ann)).concat();
    assert_eq!(heard.iter().map(|one| one.identity.to_string()).collect::<Vec<_>>(), ["bob"]);
}

#[test]
fn becoming_hidden_looks_like_leaving_and_back() {
    let mut world = World::new();
    let (ann, bob) = (world.join("ann"), world.join("bob"));
    for (hidden, known) in [(true, false), (false, true)] {
        let permission = Some(Permission { hidden, ..Permission::default() });
        let update = ParticipantUpdate { permission, ..ParticipantUpdate::default() };
        world.admin(Admin::Update { identity: identity("bob"), update }).unwrap();
        assert_eq!(world.client(&ann).others.contains_key(&identity("bob")), known);
    }
    assert_eq!(world.client(&bob).ended, None);
    world.check_agreement("visible again");
}

#[test]
fn a_removal_by_somebody_else_ends_the_session_here() {
    for (reason, told) in [
        (LeaveReason::ParticipantRemoved, LeaveReason::ParticipantRemoved),
        (LeaveReason::ConnectionTimeout, LeaveReason::StateMismatch),
    ] {
        let mut world = World::new();
        let ann = world.join("ann");
        let record = world.stored_one("ann");
        let leave = plenary_cluster::Store::leave(
            &*world.store,
            name(),
            identity("ann"),
            ann.clone(),
            record.generation,
            reason,
        );
        done(leave).unwrap();
        world.settle();
        assert_eq!(world.client(&ann).ended, Some(told));
    }
}

#[test]
fn notices_of_the_room_reach_a_session_only_after_its_welcome() {
    let mut world = World::new();
    let ann = world.seat(0, "ann", |_| {}).unwrap();
    // Nobody is registered: asks and levels are ignored, not queued.
    world.handle(0, Input::Ask { who: ann.clone(), what: Request::BecameActive });
    world.levels(&[(&ann, "TR_1", 1.0)]);
    world.welcome(0);
    assert!(!world.client(&ann).notices.iter().any(|notice| matches!(notice, Notice::OwnChanged { .. })));
}

#[test]
fn joins_before_the_first_snapshot_wait_for_it() {
    let mut world = World::new();
    let ann = world.seat(0, "ann", |_| {}).unwrap();
    let joined = world.nodes[0].joined.pop_front().unwrap();
    world.handle(0, Input::Joined { record: joined.record });
    assert!(world.nodes[0].clients.is_empty());
    world.handle(0, Input::Snapshot(joined.snapshot));
    assert!(world.client(&ann).others.is_empty());
    world.settle();
    world.check_agreement("cold join");
}
