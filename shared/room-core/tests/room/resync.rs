//! Holes in the history, other histories, and writes that were lost.

use std::{sync::Arc, time::Duration};

use plenary_cluster::Store;
use plenary_model::*;
use plenary_room_core::{
    notice::Request,
    room::{Input, RecordChange},
};

use crate::driver::*;

#[test]
fn a_hole_is_healed_by_one_snapshot() {
    let mut world = World::with_nodes(2);
    let (ann, bob) = (world.join("ann"), world.join("bob"));
    world.seat(1, "cyd", |_| {}).unwrap();
    drop(world.next_delta(0));
    for who in ["dan", "eve", "fay"] {
        world.seat(1, who, |_| {}).unwrap();
    }
    world.forget_notices();
    while world.hear(0) {}
    assert_eq!(world.nodes[0].rereads_seen, 1, "single flight");
    assert!(world.heard(&ann).is_empty(), "nothing is told out of order");
    assert!(world.reread(0));
    let heard = people(&world.heard(&bob));
    assert_eq!(heard.iter().map(Vec::len).collect::<Vec<_>>(), [4], "one notice for the whole difference");
    assert_eq!(world.nodes[0].rereads_seen, 1);
}

#[test]
fn who_is_missing_from_a_snapshot_is_gone() {
    let mut world = World::with_nodes(2);
    let ann = world.join("ann");
    world.seat(1, "bob", |_| {}).unwrap();
    world.welcome(1);
    world.settle();
    world.forget_notices();
    let bob = world.nodes[1].clients.keys().next().unwrap().clone();
    world.handle(1, Input::Ask { who: bob, what: Request::Leave { reason: LeaveReason::ClientInitiated } });
    world.write(1);
    drop(world.next_delta(0));
    world.resync(0);
    let heard = people(&world.heard(&ann)).concat();
    assert!(matches!(heard.as_slice(), [gone] if is_gone(gone)));
}

#[test]
fn who_is_lost_stays_until_it_is_put_back_or_given_up() {
    let mut world = World::with_nodes(2);
    let ann = world.join("ann");
    for who in ["bob", "cyd"] {
        world.seat(1, who, |_| {}).unwrap();
        world.welcome(1);
    }
    world.settle();
    world.forget_notices();
    let whole = world.stored_snapshot();
    let mut lost = whole.clone();
    lost.seq += 1;
    lost.records.retain(|record| record.participant.identity == identity("ann"));
    world.handle(0, Input::Snapshot(lost.clone()));
    assert!(world.heard(&ann).is_empty(), "nobody knows yet whether they left");
    let mut one_back = whole;
    one_back.seq += 2;
    one_back.records.retain(|record| record.participant.identity != identity("cyd"));
    world.handle(0, Input::Snapshot(one_back.clone()));
    assert!(world.heard(&ann).is_empty());
    world.now += Duration::from_secs(6);
    one_back.seq += 1;
    world.handle(0, Input::Snapshot(one_back));
    let heard = people(&world.heard(&ann)).concat();
    assert!(matches!(heard.as_slice(), [gone] if is_gone(gone) && gone.identity == identity("cyd")));
}

#[test]
fn a_node_puts_back_its_own_people_and_the_room_when_the_store_lost_them() {
    let mut world = World::with_nodes(2);
    let ann = world.join("ann");
    world.seat(1, "bob", |_| {}).unwrap();
    world.welcome(1);
    world.settle();
    let mut lost = world.stored_snapshot();
    lost.seq += 1;
    lost.records.clear();
    world.handle(0, Input::Snapshot(lost.clone()));
    let put_back = |world: &World| match world.nodes[0].writes.back() {
        Some(RecordChange::Restore { view, seq, records, .. }) => {
            let who: Vec<_> = records.iter().map(|record| record.participant.identity.clone()).collect();
            (*view, *seq, who)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(put_back(&world), (lost.view, lost.seq, vec![identity("ann")]), "only its own");
    world.nodes[0].writes.clear();
    world.handle(0, Input::Lapsed);
    assert_eq!(put_back(&world), (lost.view, lost.seq, vec![identity("ann")]));
    assert_eq!(world.client(&ann).ended, None);
}

#[test]
fn what_a_later_look_does_not_show_was_lost_with_its_history() {
    let mut world = World::with_nodes(2);
    let ann = world.join("ann");
    world.settle();
    world.forget_notices();
    let stored = world.stored_snapshot();
    let put = |number: u64, who: &str| {
        let mut record = (*world.stored_one("ann")).clone();
        record.participant = person(who, &format!("PA_{who}"));
        record.node = "ND_1".into();
        let seq = stored.seq + number;
        let delta = RoomDelta { view: stored.view, seq, change: RoomChange::Put(Arc::new(record)), trace: None };
        Input::Delta(Arc::new(delta))
    };
    // The store loses bob, who was not heard of, and cyd; then it gives their numbers to others.
    let (lost, next, last) = (put(2, "cyd"), put(1, "dan"), put(2, "eve"));
    world.handle(0, lost);
    world.handle(0, Input::Reading);
    world.handle(0, Input::Snapshot(stored));
    world.handle(0, next);
    let heard = people(&world.heard(&ann)).concat();
    assert_eq!(heard.iter().map(|person| person.identity.as_str()).collect::<Vec<_>>(), ["dan"]);
    world.handle(0, last);
    let heard = people(&world.heard(&ann)).concat();
    assert_eq!(heard.iter().map(|person| person.identity.as_str()).collect::<Vec<_>>(), ["eve"]);
}

#[test]
fn deltas_that_the_snapshot_knows_are_dropped() {
    let mut world = World::with_nodes(2);
    let ann = world.join("ann");
    world.seat(1, "bob", |_| {}).unwrap();
    world.forget_notices();
    world.resync(0);
    while world.hear(0) {}
    assert_eq!(people(&world.heard(&ann)).len(), 1);
    world.resync(0);
    assert!(world.heard(&ann).is_empty(), "the same snapshot again says nothing");
    assert_eq!(world.nodes[0].rereads_seen, 0);
}

#[test]
fn an_old_snapshot_takes_nothing_back() {
    let mut world = World::new();
    let ann = world.join("ann");
    let old = done(world.store.snapshot(name())).unwrap();
    world.join("bob");
    world.forget_notices();
    world.handle(0, Input::Snapshot(old));
    assert!(world.heard(&ann).is_empty());
    world.check_agreement("after an old snapshot");
}

#[test]
fn a_store_that_went_back_is_told_what_is_known() {
    let mut world = World::with_nodes(2);
    world.join("ann");
    let old = done(world.store.snapshot(name())).unwrap();
    world.seat(1, "bob", |_| {}).unwrap();
    while world.hear(0) {}
    world.nodes[0].writes.clear();
    world.handle(0, Input::Snapshot(old.clone()));
    let Some(RecordChange::Restore { view, seq, records, .. }) = world.nodes[0].writes.back() else {
        panic!("{:?}", world.nodes[0].writes)
    };
    assert_eq!(*view, old.view);
    assert!(*seq > old.seq, "the history goes on from here");
    assert_eq!(records.len(), 1, "its own");
}

#[test]
fn changes_between_a_snapshot_and_its_arrival_are_applied_after_it() {
    let mut world = World::with_nodes(2);
    world.join("ann");
    world.seat(1, "bob", |_| {}).unwrap();
    drop(world.next_delta(0));
    world.seat(1, "cyd", |_| {}).unwrap();
    world.hear(0);
    let snapshot = done(world.store.snapshot(name())).unwrap();
    world.seat(1, "dan", |_| {}).unwrap();
    world.hear(0);
    world.handle(0, Input::Snapshot(snapshot));
    assert_eq!(world.nodes[0].clients.values().next().unwrap().others.len(), 3);
    assert_eq!(world.nodes[0].rereads_seen, 1);
}

#[test]
fn more_changes_than_may_wait_are_read_again() {
    let mut world = World::with_nodes(2);
    let ann = world.join("ann");
    world.seat(1, "bob", |_| {}).unwrap();
    world.welcome(1);
    while world.hear(1) {}
    drop(world.next_delta(0));
    let bob = world.nodes[1].clients.keys().next().unwrap().clone();
    let mut snapshot = None;
    for at in 0..1500 {
        let metadata = Some(format!("m{at}"));
        let what = Request::UpdateMetadata { name: None, metadata, attributes: Default::default() };
        world.handle(1, Input::Ask { who: bob.clone(), what });
        world.write(1);
        world.hear(0);
        world.hear(1);
        if at == 10 {
            snapshot = Some(done(world.store.snapshot(name())).unwrap());
        }
    }
    assert_eq!(world.nodes[0].rereads_seen, 1);
    world.nodes[0].rereads = 0;
    world.handle(0, Input::Snapshot(snapshot.unwrap()));
    assert_eq!(world.nodes[0].rereads_seen, 2, "what did not fit is read again");
    world.settle();
    assert_eq!(world.client(&ann).others[&identity("bob")].metadata, "m1499");
    assert_eq!(world.nodes[0].rereads_seen, 2);
}

#[test]
fn a_room_made_anew_behind_our_back_ends_old_sessions_and_keeps_new_ones() {
    let mut world = World::new();
    let ann = world.join("ann");
    done(world.store.delete(name(), LeaveReason::RoomDeleted)).unwrap();
    drop(world.next_delta(0));
    let bob = world.seat(0, "bob", |_| {}).unwrap();
    world.welcome(0);
    world.settle();
    assert_eq!(world.client(&ann).ended, Some(LeaveReason::StateMismatch));
    assert_eq!(world.client(&bob).ended, None);
    world.check_agreement("another view");
}

#[test]
fn one_late_word_of_an_older_history_costs_one_snapshot() {
    let mut world = World::new();
    world.join("ann");
    let change = RoomChange::Closed { reason: LeaveReason::RoomDeleted };
    let delta = RoomDelta { view: 1, seq: 7, change, trace: None };
    world.handle(0, Input::Delta(delta.into()));
    world.settle();
    assert!((1..=2).contains(&world.nodes[0].rereads_seen));
    world.check_agreement("the old view is over");
}

#[test]
fn a_removal_of_an_older_generation_is_ignored() {
    let mut world = World::new();
    let ann = world.join("ann");
    let first = world.join("bob");
    world.join("bob");
    let snapshot = done(world.store.snapshot(name())).unwrap();
    let change = RoomChange::Removed {
        identity: identity("bob"),
        sid: first,
        generation: 1,
        reason: LeaveReason::DuplicateIdentity,
    };
    let delta = RoomDelta { view: snapshot.view, seq: snapshot.seq + 1, change, trace: None };
    world.handle(0, Input::Delta(delta.into()));
    assert_eq!(world.client(&ann).others.len(), 1);
}

#[test]
fn a_lost_write_is_repeated() {
    let mut world = World::new();
    let ann = world.join("ann");
    world.handle(0, Input::Ask { who: ann.clone(), what: publish(vec![track("TR_1", Source::Camera)]) });
    world.nodes[0].writes.clear();
    world.handle(0, Input::WriteFailed { who: ann });
    world.settle();
    assert_eq!(world.stored_one("ann").participant.tracks.len(), 1);
    world.check_agreement("written in the end");
}

#[test]
fn a_write_that_is_always_refused_ends_the_session() {
    let mut world = World::new();
    let ann = world.join("ann");
    world.handle(0, Input::Ask { who: ann.clone(), what: Request::BecameActive });
    let mut puts = 0;
    while let Some(change) = world.nodes[0].writes.pop_front() {
        match change {
            RecordChange::Put(_) => puts += 1,
            removal => {
                world.nodes[0].writes.push_back(removal);
                break;
            }
        }
        assert!(puts < 20, "it never gives up");
        world.handle(0, Input::WriteFailed { who: ann.clone() });
        world.reread(0);
    }
    assert_eq!(puts, 4, "once and three times again");
    assert_eq!(world.client(&ann).ended, Some(LeaveReason::StateMismatch));
    world.settle();
    assert!(world.stored().is_empty());
}

#[test]
fn a_session_whose_seat_is_gone_starts_over() {
    let mut world = World::new();
    world.join("bob");
    let ann = world.seat(0, "ann", |_| {}).unwrap();
    let record = world.stored_one("ann");
    // Seated and unseated before the room knew: its first write tells.
    done(world.store.leave(name(), identity("ann"), ann.clone(), record.generation, LeaveReason::Unknown)).unwrap();
    while world.hear(0) {}
    world.welcome(0);
    assert_eq!(world.client(&ann).ended, None);
    world.ask(&ann, Request::BecameActive);
    assert_eq!(world.client(&ann).ended, Some(LeaveReason::StateMismatch));
    world.check_agreement("without ann");
}
