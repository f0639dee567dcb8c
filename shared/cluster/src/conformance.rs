//! What every implementation must do, as functions over any of them.
//!
//! An implementation's tests call [`conformance_suite!`](crate::conformance_suite) with an expression that makes an empty
//! one (an `Arc`); each behaviour becomes a test of its own. Nothing here waits for time to pass, but changes may take theirs
//! to be heard.

mod egress;
mod outbox;
mod random;

use std::sync::Arc;

use plenary_model::*;

pub use egress::*;
pub use outbox::*;
pub use random::random_operations_keep_the_invariants;

use crate::*;

/// Store and bus of one cluster.
pub trait Cluster: Store + Bus {}

impl<T: Store + Bus> Cluster for T {}

/// One `#[tokio::test]` per behaviour. `$make` makes an empty cluster in an `Arc`. With `outboxes:` before it, it has to tell
/// the destinations [`DESTINATIONS`](crate::conformance::DESTINATIONS).
#[macro_export]
macro_rules! conformance_suite {
    (outboxes: $make:expr) => {
        $crate::conformance_suite! { $make =>
            what_happens_waits_in_its_order_for_every_destination,
            what_nobody_outside_is_told_of_waits_for_nobody,
            rooms_that_record_by_themselves_are_told_of_where_that_begins,
            who_is_replaced_has_left_and_who_never_came_did_not,
            a_room_that_is_deleted_sends_its_people_off_first,
            what_a_store_gets_back_is_not_told_again,
            who_is_removed_with_a_node_has_left,
            an_outbox_has_one_holder_at_a_time,
            what_was_put_off_comes_back_as_far_as_it_was,
            an_outbox_is_bounded_and_the_oldest_go,
            recordings_are_told_of_even_when_the_room_is_gone,
        }
    };
    ($make:expr) => {
        $crate::conformance_suite! { $make =>
            a_room_is_made_once_and_keeps_its_settings,
            creating_again_updates_what_is_given,
            joining_needs_a_room_or_leave_to_make_one,
            every_change_is_numbered_and_heard,
            the_same_seat_again_changes_nothing,
            a_second_session_replaces_the_first,
            coming_back_starts_above_the_last_version,
            generations_never_fall,
            an_old_session_can_neither_write_nor_leave,
            a_version_that_is_not_newer_changes_nothing,
            the_cap_counts_neither_dependents_nor_hidden,
            a_full_room_takes_the_next_session_of_somebody_in_it,
            nobody_becomes_visible_beyond_the_cap,
            rooms_are_listed_by_name_with_their_counts,
            a_deleted_room_is_closed_for_everybody,
            only_an_empty_room_is_deleted_if_empty,
            a_room_made_again_has_another_history,
            a_subscription_outlives_the_room,
            a_slow_subscriber_hears_resync_and_then_goes_on,
            a_request_reaches_the_node_and_its_answer_comes_back,
            a_request_to_nobody_is_refused,
            a_banned_person_is_refused_and_heard_of,
            a_ban_for_every_room_holds_in_every_room,
            a_revocation_refuses_tokens_issued_before,
            a_ban_and_a_revocation_do_not_shadow_each_other,
            bans_end_by_themselves,
            bans_outlive_rooms,
            bans_are_bounded_and_the_old_ones_stay,
            lost_bans_are_put_back_unless_there_is_a_later_word,
            what_is_put_back_is_bounded_too,
            a_slow_listener_to_bans_hears_resync,
            who_left_is_told_from_who_was_lost,
            only_what_is_not_over_is_put_back,
            an_ended_room_is_not_put_back,
            a_lease_is_held_until_it_is_released,
            a_node_hears_where_it_hosts_somebody_without_knowing,
            words_reach_the_other_nodes_of_the_room_in_order,
            a_recording_needs_its_life_of_the_room,
            only_the_last_recorder_writes,
            epochs_grow_over_a_loss_of_the_store,
            a_lost_recording_is_put_back_as_it_was,
            what_nobody_records_is_found,
            a_recording_goes_forward_alone,
            no_change_of_a_recording_overwrites_another,
            a_room_shows_that_it_is_recorded,
            recordings_are_listed_by_room_by_id_and_while_they_go_on,
            recordings_of_a_room_are_bounded_and_those_that_are_over_go,
            random_operations_keep_the_invariants,
        }
    };
    ($make:expr => $($name:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                $crate::conformance::$name($make).await;
            }
        )+
    };
}

pub async fn a_room_is_made_once_and_keeps_its_settings(cluster: Arc<impl Cluster>) {
    let asked = NewRoom { metadata: Some("m".into()), max_participants: Some(5), ..new_room("r", 1) };
    let made = cluster.create(asked).await.unwrap();
    assert_eq!((made.metadata.as_str(), made.max_participants, made.empty_timeout_s), ("m", 5, 300));
    let again = cluster.create(NewRoom { sid: "RM_other".into(), ..new_room("r", 2) }).await.unwrap();
    assert_eq!(again, made, "neither a new sid nor the defaults overwrite what is there");
    assert_eq!(cluster.snapshot(name("r")).await.unwrap().view, 1);
}

pub async fn creating_again_updates_what_is_given(cluster: Arc<impl Cluster>) {
    cluster.create(NewRoom { metadata: Some("m".into()), ..new_room("r", 1) }).await.unwrap();
    let mut heard = cluster.subscribe(name("r")).await.unwrap();
    let updated = cluster.create(NewRoom { empty_timeout_s: Some(7), ..new_room("r", 1) }).await.unwrap();
    assert_eq!((updated.metadata.as_str(), updated.empty_timeout_s), ("m", 7));
    assert_eq!(changes(&mut heard, &cluster).await, [RoomChange::Meta(updated)]);
}

pub async fn joining_needs_a_room_or_leave_to_make_one(cluster: Arc<impl Cluster>) {
    let uninvited = Seat { create: None, ..seat("ann", "PA_1") };
    assert_eq!(cluster.join(name("r"), uninvited.clone()).await, Err(StoreError::NoSuchRoom));
    cluster.join(name("r"), seat("bob", "PA_2")).await.unwrap();
    let joined = cluster.join(name("r"), uninvited).await.unwrap();
    assert_eq!(joined.snapshot.records.len(), 2);
    assert!(joined.snapshot.records.contains(&joined.record));
}

pub async fn every_change_is_numbered_and_heard(cluster: Arc<impl Cluster>) {
    let mut heard = cluster.subscribe(name("r")).await.unwrap();
    let ann = cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap();
    let (view, first) = (ann.snapshot.view, ann.snapshot.seq);
    let changed = newer(&ann.record, |person| person.metadata = "m".into());
    assert_eq!(cluster.put(name("r"), changed.clone()).await, Ok(first + 1));
    let info = RoomInfo { metadata: "room".into(), ..ann.snapshot.room.clone() };
    assert_eq!(cluster.set_meta(name("r"), info.clone()).await, Ok(first + 2));
    assert_eq!(leave(&cluster, &ann.record).await, Ok(first + 3));
    let expected = [
        RoomChange::Put(ann.record.clone()),
        RoomChange::Put(changed),
        RoomChange::Meta(info),
        RoomChange::Removed {
            identity: identity("ann"),
            sid: "PA_1".into(),
            generation: ann.record.generation,
            reason: LeaveReason::ClientInitiated,
        },
    ];
    for (step, change) in (0..).zip(expected) {
        let delta = RoomDelta { view, seq: first + step, change, trace: None };
        assert_eq!(heard.next().await, Some(RoomEvent::Delta(Arc::new(delta))));
    }
    let snapshot = cluster.snapshot(name("r")).await.unwrap();
    assert_eq!((snapshot.seq, snapshot.records.len()), (first + 3, 0));
    assert_eq!(snapshot.room.metadata, "room");
}

pub async fn the_same_seat_again_changes_nothing(cluster: Arc<impl Cluster>) {
    let first = cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap();
    let again = cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap();
    assert_eq!(again, first);
    leave(&cluster, &first.record).await.unwrap();
    let seq = cluster.snapshot(name("r")).await.unwrap().seq;
    assert_eq!(leave(&cluster, &first.record).await, Ok(seq), "a departure that is told twice happens once");
}

pub async fn a_second_session_replaces_the_first(cluster: Arc<impl Cluster>) {
    let first = cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap();
    let first = newer(&first.record, |person| person.version = 40);
    cluster.put(name("r"), first.clone()).await.unwrap();
    let mut heard = cluster.subscribe(name("r")).await.unwrap();
    let second = cluster.join(name("r"), seat("ann", "PA_2")).await.unwrap();
    assert_eq!(second.replaced, Some(first.clone()));
    assert!(second.record.generation > first.generation);
    assert!(second.record.participant.version > first.participant.version);
    assert_eq!(second.snapshot.records, std::slice::from_ref(&second.record));
    assert_eq!(
        changes(&mut heard, &cluster).await,
        [RoomChange::Put(second.record)],
        "one change, not a leave and a join"
    );
}

pub async fn coming_back_starts_above_the_last_version(cluster: Arc<impl Cluster>) {
    cluster.join(name("r"), seat("bob", "PA_0")).await.unwrap();
    let first = cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap();
    let first = newer(&first.record, |person| person.version = 40);
    cluster.put(name("r"), first.clone()).await.unwrap();
    leave(&cluster, &first).await.unwrap();
    let second = cluster.join(name("r"), seat("ann", "PA_2")).await.unwrap();
    assert_eq!(second.replaced, None);
    assert!(second.record.participant.version > 41, "the departure was told as version 41");
}

pub async fn generations_never_fall(cluster: Arc<impl Cluster>) {
    let mut last = 0;
    for round in 0..5 {
        let joined = cluster.join(name("r"), seat("ann", &format!("PA_{round}"))).await.unwrap();
        assert!(joined.record.generation > last);
        last = joined.record.generation;
        if round % 2 == 0 {
            leave(&cluster, &joined.record).await.unwrap();
        }
    }
}

pub async fn an_old_session_can_neither_write_nor_leave(cluster: Arc<impl Cluster>) {
    let first = cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap().record;
    let second = cluster.join(name("r"), seat("ann", "PA_2")).await.unwrap();
    let late = newer(&first, |person| person.version = 99);
    assert_eq!(cluster.put(name("r"), late).await, Err(StoreError::Superseded));
    assert_eq!(leave(&cluster, &first).await, Err(StoreError::Superseded));
    let forged = Record { generation: first.generation, ..(*second.record).clone() };
    assert_eq!(leave(&cluster, &forged).await, Err(StoreError::Superseded));
    assert_eq!(cluster.snapshot(name("r")).await.unwrap(), second.snapshot);
    leave(&cluster, &second.record).await.unwrap();
    let gone = newer(&second.record, |_| {});
    assert_eq!(cluster.put(name("r"), gone).await, Err(StoreError::Superseded), "a write brings nobody back");
}

pub async fn a_version_that_is_not_newer_changes_nothing(cluster: Arc<impl Cluster>) {
    let joined = cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap();
    let newest = newer(&joined.record, |person| person.version = 10);
    let seq = cluster.put(name("r"), newest.clone()).await.unwrap();
    assert_eq!(cluster.put(name("r"), newest.clone()).await, Ok(seq), "repeated");
    let late = newer(&joined.record, |person| person.name = "late".into());
    assert_eq!(cluster.put(name("r"), late).await, Ok(seq), "overtaken");
    assert_eq!(cluster.snapshot(name("r")).await.unwrap().records, [newest]);
}

pub async fn the_cap_counts_neither_dependents_nor_hidden(cluster: Arc<impl Cluster>) {
    cluster.create(NewRoom { max_participants: Some(1), ..new_room("r", 1) }).await.unwrap();
    cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap();
    assert_eq!(cluster.join(name("r"), seat("bob", "PA_2")).await, Err(StoreError::Full));
    let exempt: [(&str, Change); 5] = [
        ("hidden", |person| person.permission.hidden = true),
        ("recorder", |person| person.permission.recorder = true),
        ("agent", |person| person.permission.agent = true),
        ("egress kind", |person| person.kind = ParticipantKind::Egress),
        ("agent kind", |person| person.kind = ParticipantKind::Agent),
    ];
    for (who, change) in exempt {
        let joined = cluster.join(name("r"), seat_with(who, &format!("PA_{who}"), change)).await;
        assert_eq!(joined.unwrap().snapshot.room.participants, 1, "{who}");
    }
    assert!(cluster.snapshot(name("r")).await.unwrap().room.active_recording);
    assert_eq!(cluster.join(name("r"), seat("bob", "PA_2")).await, Err(StoreError::Full));
}

pub async fn a_full_room_takes_the_next_session_of_somebody_in_it(cluster: Arc<impl Cluster>) {
    cluster.create(NewRoom { max_participants: Some(1), ..new_room("r", 1) }).await.unwrap();
    cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap();
    let second = cluster.join(name("r"), seat("ann", "PA_2")).await.unwrap();
    leave(&cluster, &second.record).await.unwrap();
    cluster.join(name("r"), seat("bob", "PA_3")).await.unwrap();
}

pub async fn nobody_becomes_visible_beyond_the_cap(cluster: Arc<impl Cluster>) {
    cluster.create(NewRoom { max_participants: Some(1), ..new_room("r", 1) }).await.unwrap();
    let hide: Change = |person| person.permission.hidden = true;
    let hidden = cluster.join(name("r"), seat_with("eve", "PA_1", hide)).await.unwrap().record;
    let ann = cluster.join(name("r"), seat("ann", "PA_2")).await.unwrap().record;
    let shown = newer(&hidden, |person| person.permission.hidden = false);
    assert_eq!(cluster.put(name("r"), shown.clone()).await, Err(StoreError::Full));
    leave(&cluster, &ann).await.unwrap();
    cluster.put(name("r"), shown).await.unwrap();
    assert_eq!(cluster.join(name("r"), seat("bob", "PA_3")).await, Err(StoreError::Full));
}

pub async fn rooms_are_listed_by_name_with_their_counts(cluster: Arc<impl Cluster>) {
    for (room, people) in [("b", 2), ("a", 0), ("c", 1)] {
        cluster.create(new_room(room, 1)).await.unwrap();
        for number in 0..people {
            let publisher = |person: &mut Participant| person.is_publisher = number == 0;
            cluster
                .join(name(room), seat_with(&format!("p{number}"), &format!("PA_{number}"), publisher))
                .await
                .unwrap();
        }
    }
    let listed = |rooms: Vec<RoomInfo>| -> Vec<_> {
        rooms.into_iter().map(|room| (room.name.to_string(), room.participants, room.publishers)).collect()
    };
    let entry = |room: &str, people, publishers| (room.to_owned(), people, publishers);
    let all = listed(cluster.rooms(Vec::new()).await.unwrap());
    assert_eq!(all, [entry("a", 0, 0), entry("b", 2, 1), entry("c", 1, 1)]);
    let some = listed(cluster.rooms(vec![name("c"), name("x"), name("b"), name("c")]).await.unwrap());
    assert_eq!(some, [entry("b", 2, 1), entry("c", 1, 1)]);
}

pub async fn a_deleted_room_is_closed_for_everybody(cluster: Arc<impl Cluster>) {
    let joined = cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap();
    let mut heard = cluster.subscribe(name("r")).await.unwrap();
    cluster.delete(name("r"), LeaveReason::RoomDeleted).await.unwrap();
    assert_eq!(changes(&mut heard, &cluster).await, [RoomChange::Closed { reason: LeaveReason::RoomDeleted }]);
    assert_eq!(cluster.snapshot(name("r")).await, Err(StoreError::NoSuchRoom));
    assert_eq!(cluster.put(name("r"), joined.record.clone()).await, Err(StoreError::NoSuchRoom));
    assert_eq!(leave(&cluster, &joined.record).await, Err(StoreError::NoSuchRoom));
    assert_eq!(cluster.delete(name("r"), LeaveReason::RoomDeleted).await, Err(StoreError::NoSuchRoom));
    assert_eq!(cluster.delete_if_empty(name("r")).await, Err(StoreError::NoSuchRoom));
    assert_eq!(cluster.set_meta(name("r"), joined.snapshot.room).await, Err(StoreError::NoSuchRoom));
}

pub async fn only_an_empty_room_is_deleted_if_empty(cluster: Arc<impl Cluster>) {
    let ann = cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap();
    let recorder: Change = |person| person.permission.recorder = true;
    cluster.join(name("r"), seat_with("rec", "PA_2", recorder)).await.unwrap();
    let mut heard = cluster.subscribe(name("r")).await.unwrap();
    assert_eq!(cluster.delete_if_empty(name("r")).await, Ok(false));
    leave(&cluster, &ann.record).await.unwrap();
    assert_eq!(cluster.delete_if_empty(name("r")).await, Ok(true), "a recorder keeps no room");
    let closed = RoomChange::Closed { reason: LeaveReason::RoomClosed };
    assert_eq!(changes(&mut heard, &cluster).await.last(), Some(&closed));
    assert_eq!(cluster.rooms(Vec::new()).await, Ok(Vec::new()));
}

pub async fn a_room_made_again_has_another_history(cluster: Arc<impl Cluster>) {
    cluster.create(new_room("r", 1)).await.unwrap();
    let first = cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap().record;
    cluster.delete(name("r"), LeaveReason::RoomDeleted).await.unwrap();
    cluster.create(new_room("r", 2)).await.unwrap();
    let snapshot = cluster.snapshot(name("r")).await.unwrap();
    assert_eq!((snapshot.view, snapshot.records.len(), snapshot.ended), (2, 0, vec![1]));
    let second = cluster.join(name("r"), seat("ann", "PA_2")).await.unwrap();
    let late = newer(&first, |person| person.version = 99);
    assert_eq!(cluster.put(name("r"), late).await, Err(StoreError::Superseded));
    assert_eq!(cluster.snapshot(name("r")).await.unwrap(), second.snapshot);
}

pub async fn a_subscription_outlives_the_room(cluster: Arc<impl Cluster>) {
    let mut heard = cluster.subscribe(name("r")).await.unwrap();
    for view in [1, 2] {
        cluster.create(new_room("r", view)).await.unwrap();
        let trace = removal().trace;
        let joined = cluster.join(name("r"), Seat { trace: trace.clone(), ..seat("ann", "PA_1") }).await.unwrap();
        let delta = RoomDelta { view, seq: joined.snapshot.seq, change: RoomChange::Put(joined.record), trace };
        assert_eq!(heard.next().await, Some(RoomEvent::Delta(Arc::new(delta))));
        cluster.delete(name("r"), LeaveReason::RoomDeleted).await.unwrap();
        heard.next().await.unwrap();
    }
    cluster.join(name("another"), seat("ann", "PA_1")).await.unwrap();
    assert_eq!(heard.try_next(), None, "other rooms are none of its business");
}

pub async fn a_slow_subscriber_hears_resync_and_then_goes_on(cluster: Arc<impl Cluster>) {
    let mut slow = cluster.subscribe(name("r")).await.unwrap();
    let joined = cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap();
    let mut record = joined.record;
    for _ in 0..MORE_THAN_ANY_QUEUE {
        record = newer(&record, |_| {});
        cluster.put(name("r"), record.clone()).await.unwrap();
    }
    assert_eq!(slow.next().await, Some(RoomEvent::Resync));
    let snapshot = cluster.snapshot(name("r")).await.unwrap();
    cluster.put(name("r"), newer(&record, |_| {})).await.unwrap();
    loop {
        let Some(RoomEvent::Delta(delta)) = slow.next().await else { panic!("one resync is enough") };
        // What was still on its way when the snapshot was read is in it.
        if delta.seq > snapshot.seq {
            assert_eq!((delta.view, delta.seq), (snapshot.view, snapshot.seq + 1), "nothing is missing after it");
            return;
        }
    }
}

pub async fn a_request_reaches_the_node_and_its_answer_comes_back(cluster: Arc<impl Cluster>) {
    let mut inbox = cluster.serve(node("ND_1")).await.unwrap();
    assert_eq!(cluster.serve(node("ND_1")).await.unwrap_err(), BusError::Unavailable, "one receiver at a time");
    let asked = cluster.request(node("ND_1"), removal());
    let answered = async {
        let (request, reply) = inbox.next().await.unwrap();
        assert_eq!(request, removal());
        reply.send(Err(AdminRefusal::NoSuchParticipant)).unwrap();
    };
    assert_eq!(tokio::join!(asked, answered).0, Ok(Err(AdminRefusal::NoSuchParticipant)));
    let asked = cluster.request(node("ND_1"), removal());
    let dropped = async { drop(inbox.next().await) };
    assert_eq!(tokio::join!(asked, dropped).0, Err(BusError::Unavailable));
    drop(inbox);
    cluster.serve(node("ND_1")).await.expect("the place is free again");
}

pub async fn a_request_to_nobody_is_refused(cluster: Arc<impl Cluster>) {
    assert_eq!(cluster.request(node("ND_1"), removal()).await, Err(BusError::NoSuchNode));
    drop(cluster.serve(node("ND_1")).await.unwrap());
    assert_eq!(cluster.request(node("ND_1"), removal()).await, Err(BusError::NoSuchNode));
}

pub async fn a_banned_person_is_refused_and_heard_of(cluster: Arc<impl Cluster>) {
    cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap();
    let mut heard = cluster.subscribe_bans().await.unwrap();
    let ban = ban_of("ann", Some("r"), None, 100);
    cluster.ban(ban.clone(), 10).await.unwrap();
    let told = next_entry(&mut heard).await;
    assert_eq!(cluster.bans(10).await, Ok(vec![told]));
    assert_eq!(bans(&cluster, 10).await, [ban]);
    assert_eq!(cluster.snapshot(name("r")).await.unwrap().records.len(), 1, "ending a session is its node's to do");
    assert_eq!(join_at("ann", "r", Some(u64::MAX), 10, &cluster).await, Err(StoreError::Banned));
    assert_eq!(join_at("ann", "r", None, 10, &cluster).await, Err(StoreError::Banned));
    assert_eq!(join_at("bob", "r", None, 10, &cluster).await, Ok(()));
    assert_eq!(join_at("ann", "other", None, 10, &cluster).await, Ok(()));

    assert_eq!(cluster.lift_ban(identity("ann"), None).await, Ok(false), "that one is for another scope");
    assert_eq!(cluster.lift_ban(identity("ann"), Some(name("r"))).await, Ok(true));
    let lifted = next_entry(&mut heard).await;
    assert_eq!((lifted.banned_until_unix_s, lifted.tokens_before_unix_s, lifted.revoked_until_unix_s), (0, 0, 100));
    assert_eq!(cluster.bans(10).await, Ok(vec![lifted]), "remembered until it would have been over");
    assert_eq!((bans(&cluster, 10).await, cluster.bans(100).await), (Vec::new(), Ok(Vec::new())));
    assert_eq!(cluster.lift_ban(identity("ann"), Some(name("r"))).await, Ok(false));
    assert_eq!(heard.try_next(), None, "what changes nothing is not told");
    assert_eq!(join_at("ann", "r", None, 10, &cluster).await, Ok(()));
}

pub async fn a_ban_for_every_room_holds_in_every_room(cluster: Arc<impl Cluster>) {
    cluster.ban(ban_of("ann", None, None, 100), 10).await.unwrap();
    for room in ["r", "other"] {
        assert_eq!(join_at("ann", room, None, 10, &cluster).await, Err(StoreError::Banned));
    }
    cluster.ban(ban_of("ann", Some("r"), None, 100), 10).await.unwrap();
    assert_eq!(cluster.lift_ban(identity("ann"), None).await, Ok(true));
    assert_eq!(join_at("ann", "r", None, 10, &cluster).await, Err(StoreError::Banned), "the room has its own");
    assert_eq!(join_at("ann", "other", None, 10, &cluster).await, Ok(()));
}

pub async fn a_revocation_refuses_tokens_issued_before(cluster: Arc<impl Cluster>) {
    cluster.ban(ban_of("ann", Some("r"), Some(50), 100), 10).await.unwrap();
    assert_eq!(join_at("ann", "r", Some(49), 10, &cluster).await, Err(StoreError::Revoked));
    assert_eq!(join_at("ann", "r", None, 10, &cluster).await, Err(StoreError::Revoked), "of any age");
    assert_eq!(join_at("ann", "r", Some(50), 10, &cluster).await, Ok(()));
    // The moment never falls, and neither does the end.
    let mut heard = cluster.subscribe_bans().await.unwrap();
    cluster.ban(ban_of("ann", Some("r"), Some(40), 90), 10).await.unwrap();
    let stands = ban_of("ann", Some("r"), Some(50), 100);
    assert_eq!(Bans::from_list(vec![next_entry(&mut heard).await], 10).list(10), std::slice::from_ref(&stands));
    assert_eq!(bans(&cluster, 10).await, [stands]);
    cluster.ban(ban_of("ann", Some("r"), Some(60), 90), 10).await.unwrap();
    assert_eq!(bans(&cluster, 10).await, [ban_of("ann", Some("r"), Some(60), 100)]);
}

pub async fn a_ban_and_a_revocation_do_not_shadow_each_other(cluster: Arc<impl Cluster>) {
    cluster.ban(ban_of("ann", Some("r"), None, 20), 10).await.unwrap();
    cluster.ban(ban_of("ann", Some("r"), Some(50), 100), 10).await.unwrap();
    assert_eq!(join_at("ann", "r", Some(70), 10, &cluster).await, Err(StoreError::Banned));
    assert_eq!(join_at("ann", "r", Some(70), 20, &cluster).await, Ok(()), "the ban is over");
    assert_eq!(join_at("ann", "r", Some(49), 20, &cluster).await, Err(StoreError::Revoked), "the revocation is not");
    assert_eq!(bans(&cluster, 10).await.len(), 2);
    assert_eq!(cluster.lift_ban(identity("ann"), Some(name("r"))).await, Ok(true));
    assert_eq!(bans(&cluster, 10).await, []);
}

pub async fn bans_end_by_themselves(cluster: Arc<impl Cluster>) {
    cluster.ban(ban_of("ann", Some("r"), None, 20), 10).await.unwrap();
    assert_eq!(join_at("ann", "r", None, 19, &cluster).await, Err(StoreError::Banned));
    assert_eq!(join_at("ann", "r", None, 20, &cluster).await, Ok(()));
    assert_eq!(cluster.bans(20).await, Ok(Vec::new()));
    cluster.ban(ban_of("ann", Some("r"), None, 90), 10).await.unwrap();
    cluster.ban(ban_of("ann", Some("r"), None, 30), 10).await.unwrap();
    assert_eq!(join_at("ann", "r", None, 30, &cluster).await, Ok(()), "a ban can be made shorter");
}

pub async fn bans_outlive_rooms(cluster: Arc<impl Cluster>) {
    cluster.ban(ban_of("ann", Some("r"), None, 100), 10).await.unwrap();
    assert_eq!(cluster.snapshot(name("r")).await, Err(StoreError::NoSuchRoom), "a ban makes no room");
    cluster.create(new_room("r", 1)).await.unwrap();
    cluster.delete(name("r"), LeaveReason::RoomDeleted).await.unwrap();
    cluster.create(new_room("r", 2)).await.unwrap();
    assert_eq!(join_at("ann", "r", None, 10, &cluster).await, Err(StoreError::Banned));
}

pub async fn bans_are_bounded_and_the_old_ones_stay(cluster: Arc<impl Cluster>) {
    for number in 0..BANS_PER_ROOM_MAX {
        cluster.ban(ban_of(&format!("p{number}"), Some("r"), None, 20), 10).await.unwrap();
    }
    let beyond = || ban_of("ann", Some("r"), None, 100);
    assert_eq!(cluster.ban(beyond(), 10).await, Err(StoreError::TooManyBans));
    assert_eq!(join_at("p0", "r", None, 10, &cluster).await, Err(StoreError::Banned));
    cluster.ban(ban_of("p0", Some("r"), None, 30), 10).await.expect("one that is known takes no place");
    cluster.ban(ban_of("ann", Some("other"), None, 100), 10).await.expect("other rooms have their own share");
    cluster.ban(beyond(), 20).await.expect("what is over makes place");
    assert_eq!(cluster.lift_ban(identity("p0"), Some(name("r"))).await, Ok(true));
}

pub async fn lost_bans_are_put_back_unless_there_is_a_later_word(cluster: Arc<impl Cluster>) {
    let mut heard = cluster.subscribe_bans().await.unwrap();
    let entry = |who: &str, room: Option<&str>, version| BanEntry {
        identity: identity(who),
        room: room.map(name),
        banned_until_unix_s: 100,
        tokens_before_unix_s: 0,
        revoked_until_unix_s: 0,
        version,
    };
    let revoked = BanEntry {
        banned_until_unix_s: 0,
        tokens_before_unix_s: 50,
        revoked_until_unix_s: 100,
        ..entry("bob", Some("r"), 5)
    };
    let lost = vec![entry("ann", Some("r"), 5), entry("ann", None, 5), revoked];
    cluster.restore_bans(lost.clone(), 10).await.unwrap();
    assert_eq!(sorted(cluster.bans(10).await.unwrap()), sorted(lost.clone()));
    let told = [next_entry(&mut heard).await, next_entry(&mut heard).await, next_entry(&mut heard).await];
    assert_eq!(sorted(told.to_vec()), sorted(lost.clone()));
    assert_eq!(join_at("ann", "r", None, 10, &cluster).await, Err(StoreError::Banned));
    assert_eq!(join_at("ann", "other", None, 10, &cluster).await, Err(StoreError::Banned));
    assert_eq!(join_at("bob", "r", Some(49), 10, &cluster).await, Err(StoreError::Revoked));
    assert_eq!(join_at("bob", "r", Some(50), 10, &cluster).await, Ok(()));

    for room in [None, Some(name("r"))] {
        assert_eq!(cluster.lift_ban(identity("ann"), room).await, Ok(true));
        let lifted = next_entry(&mut heard).await;
        assert!(lifted.version > 5);
    }
    let lifted = cluster.bans(10).await.unwrap();
    cluster.restore_bans(lost, 10).await.unwrap();
    assert_eq!(cluster.bans(10).await, Ok(lifted), "a node that did not hear of it brings nothing back");
    assert_eq!(join_at("ann", "r", None, 10, &cluster).await, Ok(()));
    cluster.ban(ban_of("ann", Some("r"), None, 100), 10).await.unwrap();
    assert_eq!(next_entry(&mut heard).await.identity, identity("ann"));
    assert_eq!(heard.try_next(), None, "what is no news is not told");
    assert_eq!(join_at("ann", "r", None, 10, &cluster).await, Err(StoreError::Banned));
}

pub async fn what_is_put_back_is_bounded_too(cluster: Arc<impl Cluster>) {
    let entry = |number| BanEntry {
        identity: identity(&format!("p{number}")),
        room: Some(name("r")),
        banned_until_unix_s: 100,
        tokens_before_unix_s: 0,
        revoked_until_unix_s: 0,
        version: 5,
    };
    cluster.restore_bans((0..=BANS_PER_ROOM_MAX).map(entry).collect(), 10).await.unwrap();
    assert_eq!(cluster.bans(10).await.unwrap().len(), BANS_PER_ROOM_MAX);
    assert_eq!(cluster.lift_ban(identity("p0"), Some(name("r"))).await, Ok(true));
    cluster.ban(ban_of("ann", Some("r"), None, 100), 10).await.expect("what was lifted makes place");
}

pub async fn a_slow_listener_to_bans_hears_resync(cluster: Arc<impl Cluster>) {
    let mut slow = cluster.subscribe_bans().await.unwrap();
    for until in 0..MORE_THAN_ANY_QUEUE as u64 {
        cluster.ban(ban_of("ann", None, None, 100 + until), 10).await.unwrap();
    }
    assert_eq!(slow.next().await, Some(Event::Resync));
    assert_eq!(cluster.lift_ban(identity("ann"), None).await, Ok(true));
    loop {
        match slow.next().await {
            Some(Event::Delta(entry)) if entry.banned_until_unix_s == 0 => return,
            // Still on its way when the others were missed.
            Some(Event::Delta(_)) => {}
            other => panic!("one resync is enough: {other:?}"),
        }
    }
}

pub async fn who_left_is_told_from_who_was_lost(cluster: Arc<impl Cluster>) {
    let ann = cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap().record;
    cluster.join(name("r"), seat("bob", "PA_2")).await.unwrap();
    leave(&cluster, &ann).await.unwrap();
    let reason = LeaveReason::ClientInitiated;
    let gone = Departed { identity: identity("ann"), generation: ann.generation, reason };
    assert_eq!(cluster.snapshot(name("r")).await.unwrap().departed, [gone]);
    let back = cluster.join(name("r"), seat("ann", "PA_3")).await.unwrap();
    assert_eq!(back.snapshot.departed, [], "until they are back");
}

pub async fn only_what_is_not_over_is_put_back(cluster: Arc<impl Cluster>) {
    let left = cluster.join(name("r"), seat("left", "PA_1")).await.unwrap().record;
    leave(&cluster, &left).await.unwrap();
    let replaced = cluster.join(name("r"), seat("ann", "PA_2")).await.unwrap().record;
    cluster.join(name("r"), seat("ann", "PA_3")).await.unwrap();
    let there = cluster.join(name("r"), seat("bob", "PA_4")).await.unwrap().record;
    let unwritten = newer(&there, |person| person.metadata = "m".into());
    let lost = Arc::new(Record {
        generation: there.generation + 1,
        participant: Participant { identity: identity("lost"), sid: "PA_5".into(), ..there.participant.clone() },
        ..(*there).clone()
    });
    let before = cluster.snapshot(name("r")).await.unwrap();
    let records = vec![left, replaced, unwritten.clone(), lost.clone()];
    let known = Lost { view: before.view, seq: before.seq, info: before.room.clone(), records };
    let mut heard = cluster.subscribe(name("r")).await.unwrap();
    let over = cluster.restore(name("r"), known.clone()).await.unwrap();
    assert_eq!(over, ["PA_1".into(), "PA_2".into()]);
    let put_back = [RoomChange::Put(unwritten), RoomChange::Put(lost)];
    assert_eq!(changes(&mut heard, &cluster).await, put_back);
    cluster.restore(name("r"), known).await.unwrap();
    let after = cluster.snapshot(name("r")).await.unwrap();
    assert_eq!((after.view, after.seq), (before.view, before.seq + 2), "what is there is not put back again");
    assert_eq!(after.records.len(), 3);
    let next = cluster.join(name("r"), seat("lost", "PA_6")).await.unwrap();
    assert!(next.record.generation > there.generation + 1, "generations go on above those put back");
}

pub async fn an_ended_room_is_not_put_back(cluster: Arc<impl Cluster>) {
    let joined = cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap();
    cluster.touch(name("r")).await.unwrap();
    cluster.delete(name("r"), LeaveReason::RoomDeleted).await.unwrap();
    let RoomSnapshot { view, seq, room: info, .. } = joined.snapshot;
    let known = Lost { view, seq, info, records: vec![joined.record] };
    assert_eq!(cluster.restore(name("r"), known.clone()).await, Err(StoreError::NoSuchRoom));
    assert_eq!(cluster.touch(name("r")).await, Err(StoreError::NoSuchRoom));
    cluster.create(new_room("r", 2)).await.unwrap();
    assert_eq!(cluster.restore(name("r"), known).await, Ok(vec!["PA_1".into()]), "nor into the room's next life");
    assert_eq!(cluster.snapshot(name("r")).await.unwrap().records.len(), 0);
}

pub async fn a_lease_is_held_until_it_is_released(cluster: Arc<impl Cluster>) {
    let info = |id: &str, state| NodeInfo {
        node: node(id),
        version: "1".into(),
        state,
        routers: vec![RouterInfo { boot: 7, addresses: vec!["192.0.2.1:7882".parse().unwrap()] }],
        records: true,
    };
    let (first, second) = (info("ND_1", NodeState::Serving), info("ND_2", NodeState::Serving));
    let renewed = cluster.renew(first.clone()).await.unwrap();
    assert_eq!(renewed, Renewed { was_held: false, nodes: vec![first.clone()] });
    let mut both = cluster.renew(second.clone()).await.unwrap().nodes;
    both.sort_unstable_by(|a, b| a.node.cmp(&b.node));
    assert_eq!(both, [first, second.clone()]);
    let draining = info("ND_1", NodeState::Draining);
    assert!(cluster.renew(draining.clone()).await.unwrap().was_held);
    assert_eq!(cluster.reap().await, Ok(Reaped::default()), "everybody lives");
    let joined = cluster.join(name("r"), Seat { node: node("ND_2"), ..seat("ann", "PA_1") }).await.unwrap();
    cluster.join(name("r"), seat("bob", "PA_2")).await.unwrap();
    let mut heard = cluster.subscribe(name("r")).await.unwrap();
    cluster.release(node("ND_2")).await.unwrap();
    let removed = RoomChange::Removed {
        identity: identity("ann"),
        sid: "PA_1".into(),
        generation: joined.record.generation,
        reason: LeaveReason::ServerShutdown,
    };
    assert_eq!(changes(&mut heard, &cluster).await, [removed], "nobody is left behind");
    assert_eq!(cluster.renew(draining.clone()).await.unwrap().nodes, [draining]);
    assert!(!cluster.renew(second).await.unwrap().was_held);
}

pub async fn a_node_hears_where_it_hosts_somebody_without_knowing(cluster: Arc<impl Cluster>) {
    let at = |room: &str, who: &str, id: &str| {
        let create = Some(new_room(room, 1));
        Seat { node: node(id), create, ..seat(who, &format!("PA_{room}_{who}")) }
    };
    let ann = cluster.join(name("r"), at("r", "ann", "ND_1")).await.unwrap().record;
    cluster.join(name("r"), at("r", "bob", "ND_2")).await.unwrap();
    cluster.join(name("s"), at("s", "ann", "ND_1")).await.unwrap();
    assert_eq!(cluster.strays(node("ND_1"), Vec::new()).await, Ok(vec![name("r"), name("s")]));
    assert_eq!(cluster.strays(node("ND_1"), vec![name("s")]).await, Ok(vec![name("r")]));
    assert_eq!(cluster.strays(node("ND_3"), Vec::new()).await, Ok(Vec::new()));
    leave(&cluster, &ann).await.unwrap();
    for _ in 0..2 {
        assert_eq!(cluster.strays(node("ND_1"), vec![name("s")]).await, Ok(Vec::new()));
    }
    cluster.join(name("r"), at("r", "cat", "ND_1")).await.unwrap();
    assert_eq!(cluster.strays(node("ND_1"), vec![name("s")]).await, Ok(vec![name("r")]), "the hint is there again");
    cluster.delete(name("r"), LeaveReason::RoomDeleted).await.unwrap();
    assert_eq!(cluster.strays(node("ND_1"), vec![name("s")]).await, Ok(Vec::new()));
}

pub async fn words_reach_the_other_nodes_of_the_room_in_order(cluster: Arc<impl Cluster>) {
    let [mut own, mut other] =
        [cluster.hear(name("r"), node("ND_1")).await.unwrap(), cluster.hear(name("r"), node("ND_2")).await.unwrap()];
    let mut elsewhere = cluster.hear(name("another"), node("ND_2")).await.unwrap();
    let bytes = |text: &'static [u8]| bytes::Bytes::from_static(text);
    let data = |to, payload| RoomWord::Data { message: DataMessage { channel: Channel::Reliable, to, payload } };
    let quality = QualityScore { quality: ConnectionQuality::Poor, score: 2.5 };
    let (asker, key) = (ParticipantSid::from("PA_1"), bytes(b"key"));
    let found = BlobAnswer::Found { key: key.clone(), contents: bytes(b"") };
    let words = vec![
        data(Destination::Everybody, bytes(b"hello")),
        data(Destination::Identities(vec![identity("ann")]), bytes(b"\xff\0")),
        RoomWord::DataFrame { track: "DTR_1".into(), packet: bytes(b"frame") },
        RoomWord::Bound { track: "TR_1".into() },
        RoomWord::BackupWanted { track: "TR_1".into() },
        RoomWord::Quality { who: "PA_1".into(), quality },
        RoomWord::GetBlob { asker: asker.clone(), request_id: 7, owner: identity("bob"), key },
        RoomWord::Blob { asker: asker.clone(), request_id: 7, answer: found },
        RoomWord::Blob { asker, request_id: 8, answer: BlobAnswer::NotFound },
    ];
    let (first, rest) = words.split_at(1);
    cluster.say(name("r"), node("ND_1"), 1, first.to_vec()).await.unwrap();
    cluster.say(name("r"), node("ND_1"), 2, rest.to_vec()).await.unwrap();
    for word in words {
        assert_eq!(other.next().await, Some(Event::Delta(Arc::new(word))));
    }
    let last = RoomWord::Bound { track: "TR_2".into() };
    cluster.say(name("r"), node("ND_2"), 1, vec![last.clone()]).await.unwrap();
    assert_eq!(own.next().await, Some(Event::Delta(Arc::new(last))), "and nothing of its own before");
    assert_eq!(elsewhere.try_next(), None);
}

async fn next_entry(heard: &mut Subscription<BanEntry>) -> BanEntry {
    match heard.next().await {
        Some(Event::Delta(entry)) => (*entry).clone(),
        other => panic!("{other:?}"),
    }
}

/// What holds of what is stored.
async fn bans(cluster: &Arc<impl Cluster>, now_unix_s: u64) -> Vec<Ban> {
    Bans::from_list(cluster.bans(now_unix_s).await.unwrap(), now_unix_s).list(now_unix_s)
}

fn sorted(mut entries: Vec<BanEntry>) -> Vec<BanEntry> {
    entries.sort_unstable_by_key(|entry| (entry.identity.clone(), entry.room.clone()));
    entries
}

fn ban_of(who: &str, room: Option<&str>, tokens_before_unix_s: Option<u64>, until_unix_s: u64) -> Ban {
    Ban { identity: identity(who), room: room.map(name), tokens_before_unix_s, until_unix_s }
}

/// Whether a token of this age gets in now. Whoever does leaves again.
async fn join_at(
    who: &str,
    room: &str,
    issued_unix_s: Option<u64>,
    now_unix_s: u64,
    cluster: &Arc<impl Cluster>,
) -> Result<(), StoreError> {
    let create = Some(NewRoom { name: name(room), ..new_room(room, 1) });
    let seat = Seat { issued_unix_s, now_unix_s, create, ..seat(who, &format!("PA_{who}_{now_unix_s}")) };
    let record = cluster.join(name(room), seat).await?.record;
    let (person, reason) = (&record.participant, LeaveReason::ClientInitiated);
    cluster.leave(name(room), person.identity.clone(), person.sid.clone(), record.generation, reason).await?;
    Ok(())
}

type Change = fn(&mut Participant);

/// Everything up to the newest change of the room.
async fn changes(heard: &mut Subscription, cluster: &Arc<impl Cluster>) -> Vec<RoomChange> {
    let newest = cluster.snapshot(name("r")).await.map(|snapshot| snapshot.seq);
    let mut all = Vec::new();
    loop {
        let Some(RoomEvent::Delta(delta)) = heard.next().await else { panic!("nothing was missed") };
        all.push(delta.change.clone());
        if Ok(delta.seq) == newest || matches!(delta.change, RoomChange::Closed { .. }) {
            return all;
        }
    }
}

async fn leave(cluster: &Arc<impl Cluster>, record: &Record) -> Result<u64, StoreError> {
    let person = &record.participant;
    let (identity, sid) = (person.identity.clone(), person.sid.clone());
    cluster.leave(name("r"), identity, sid, record.generation, LeaveReason::ClientInitiated).await
}

fn newer(record: &Record, change: impl FnOnce(&mut Participant)) -> Arc<Record> {
    let mut record = record.clone();
    record.participant.version += 1;
    change(&mut record.participant);
    Arc::new(record)
}

/// In a room named `r`, which is made if it is not there, at the node `ND_1`.
pub fn seat(who: &str, sid: &str) -> Seat {
    seat_with(who, sid, |_| {})
}

fn seat_with(who: &str, sid: &str, change: impl FnOnce(&mut Participant)) -> Seat {
    let mut participant = Participant {
        sid: sid.into(),
        identity: identity(who),
        name: String::new(),
        metadata: String::new(),
        attributes: Default::default(),
        state: ParticipantState::Joined,
        kind: ParticipantKind::Standard,
        permission: Permission::default(),
        tracks: Vec::new(),
        audience: plenary_model::Audience::default(),
        data_tracks: Vec::new(),
        joined_at_ms: 0,
        version: 1,
        is_publisher: false,
        leave_reason: LeaveReason::Unknown,
        client_protocol: 1,
        capabilities: Vec::new(),
    };
    change(&mut participant);
    let create = Some(new_room("r", 1));
    Seat { participant, node: node("ND_1"), issued_unix_s: None, now_unix_s: 1, create, trace: None }
}

pub fn new_room(room: &str, view: u64) -> NewRoom {
    NewRoom {
        name: name(room),
        sid: format!("RM_{room}").into(),
        view,
        now_unix_ms: 1,
        metadata: None,
        empty_timeout_s: None,
        departure_timeout_s: None,
        max_participants: None,
        auto_egress: Default::default(),
        defaults: RoomDefaults { empty_timeout_s: 300, departure_timeout_s: 20, max_participants: 0 },
    }
}

fn removal() -> Request {
    let trace = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    Request { room: name("r"), what: Admin::Remove { identity: identity("ann") }, trace }
}

pub fn name(room: &str) -> RoomName {
    RoomName::try_from(room).unwrap()
}

pub fn identity(who: &str) -> Identity {
    Identity::try_from(who).unwrap()
}

pub fn node(id: &str) -> NodeId {
    id.into()
}

const MORE_THAN_ANY_QUEUE: usize = 4 * receive::DELTAS_WAITING_MAX;
