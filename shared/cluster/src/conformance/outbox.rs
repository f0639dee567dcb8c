//! What waits for host apps.

use std::{sync::Arc, time::Duration};

use plenary_model::*;

use super::{Cluster, leave, name, new_room, newer, node, seat};
use crate::{outbox::OUTBOX_MAX, *};

/// Whom the clusters of these tests tell.
pub const DESTINATIONS: [&str; 3] = ["one", "two", AUTOMATIC_EGRESS];

/// Of those who is told of everything.
pub(super) const OF_EVERYTHING: [&str; 2] = ["one", "two"];

pub async fn what_happens_waits_in_its_order_for_every_destination(cluster: Arc<impl Cluster>) {
    let filled = cluster.outboxes_filled();
    let joined = cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap();
    assert!(filled.has_changed().unwrap());
    let active = put(&cluster, &joined.record, |person| person.state = ParticipantState::Active).await;
    let published = put(&cluster, &active, |person| person.tracks = vec![track("TR_1"), track("TR_2")]).await;
    let renamed = put(&cluster, &published, |person| person.name = "Ann".into()).await;
    let muted = put(&cluster, &renamed, |person| person.tracks[1].muted = true).await;
    let replaced = put(&cluster, &muted, |person| person.tracks = vec![track("TR_2"), track("TR_3")]).await;
    leave(&cluster, &replaced).await.unwrap();
    assert_eq!(cluster.delete_if_empty(name("r")).await, Ok(true));
    for destination in OF_EVERYTHING {
        let (waiting, told) = emptied(&cluster, destination).await;
        let expected = [
            "room_started",
            "ann joined",
            "ann published TR_1",
            "ann published TR_2",
            "ann unpublished TR_1",
            "ann published TR_3",
            "ann unpublished TR_2",
            "ann unpublished TR_3",
            "ann left ClientInitiated",
            "room_finished RoomClosed",
        ];
        assert_eq!(told, expected);
        let rooms: Vec<_> =
            waiting.iter().map(|one| (one.happening.room.sid.as_str(), one.happening.room.participants)).collect();
        assert_eq!(rooms, [("RM_r", 0), ("RM_r", 1), ("RM_r", 1), ("RM_r", 1), ("RM_r", 0), ("RM_r", 0)]);
        assert!(waiting.iter().all(|one| one.since_unix_ms > 1_600_000_000_000), "{waiting:?}");
        assert_eq!(
            waiting[1].happening.what,
            Changed::Seat {
                before: Some(joined.record.clone()),
                after: Some(active.clone()),
                reason: LeaveReason::Unknown,
            }
        );
    }
}

pub async fn what_nobody_outside_is_told_of_waits_for_nobody(cluster: Arc<impl Cluster>) {
    let ann = cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap();
    assert_eq!(emptied(&cluster, "one").await.1, ["room_started"]);
    cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap();
    cluster.create(NewRoom { metadata: Some("m".into()), ..new_room("r", 1) }).await.unwrap();
    cluster.set_meta(name("r"), RoomInfo { metadata: "n".into(), ..ann.snapshot.room.clone() }).await.unwrap();
    put(&cluster, &ann.record, |person| person.metadata = "m".into()).await;
    cluster.touch(name("r")).await.unwrap();
    let late = newer(&ann.record, |person| person.state = ParticipantState::Active);
    cluster.put(name("r"), late).await.unwrap();
    assert_eq!(cluster.lease_outboxes("one", 9).await, Ok(Leased::default()));
    assert_eq!(cluster.lease_outboxes("three", 9).await, Ok(Leased::default()), "nobody of that name is told");
}

pub async fn rooms_that_record_by_themselves_are_told_of_where_that_begins(cluster: Arc<impl Cluster>) {
    let auto_egress = bytes::Bytes::from_static(b"what is asked");
    let records = || NewRoom { auto_egress: auto_egress.clone(), ..new_room("s", 2) };
    cluster.create(new_room("r", 1)).await.unwrap();
    cluster.create(NewRoom { auto_egress: auto_egress.clone(), ..new_room("r", 1) }).await.unwrap();
    cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap();
    let bob = Seat { create: Some(records()), ..seat("bob", "PA_2") };
    let bob = cluster.join(name("s"), bob).await.unwrap();
    let published = newer(&bob.record, |person| person.tracks = vec![track("TR_1")]);
    cluster.put(name("s"), published).await.unwrap();
    let recorded = super::egress("EG_1", "s");
    cluster.start_egress(recorded).await.unwrap();
    let (waiting, told) = emptied(&cluster, AUTOMATIC_EGRESS).await;
    assert_eq!(told, ["room_started", "bob published TR_1"], "neither of those that are made, nor of other rooms");
    assert!(waiting.iter().all(|one| one.happening.room.auto_egress == auto_egress));

    let before = cluster.snapshot(name("s")).await.unwrap();
    assert_eq!(before.room.auto_egress, auto_egress);
    let meta = cluster.set_meta(name("s"), RoomInfo { auto_egress: bytes::Bytes::new(), ..before.room.clone() }).await;
    meta.unwrap();
    assert_eq!(cluster.snapshot(name("s")).await.unwrap().room.auto_egress, auto_egress, "as it was made");
    cluster.delete(name("s"), LeaveReason::RoomDeleted).await.unwrap();
    assert_eq!(emptied(&cluster, AUTOMATIC_EGRESS).await.1.last().unwrap(), "room_finished RoomDeleted");
    let lost = Lost { view: 9, seq: 1, info: before.room, records: Vec::new() };
    cluster.restore(name("s"), lost).await.unwrap();
    assert_eq!(cluster.snapshot(name("s")).await.unwrap().room.auto_egress, auto_egress, "put back with the room");
}

pub async fn who_is_replaced_has_left_and_who_never_came_did_not(cluster: Arc<impl Cluster>) {
    let first = cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap().record;
    put(&cluster, &first, |person| {
        person.state = ParticipantState::Active;
        person.tracks = vec![track("TR_1")];
    })
    .await;
    cluster.join(name("r"), seat("ann", "PA_2")).await.unwrap();
    let third = cluster.join(name("r"), seat("ann", "PA_3")).await.unwrap().record;
    leave(&cluster, &third).await.unwrap();
    let (waiting, told) = emptied(&cluster, "one").await;
    let expected = [
        "room_started",
        "ann joined",
        "ann published TR_1",
        "ann unpublished TR_1",
        "ann left DuplicateIdentity",
        "ann aborted DuplicateIdentity",
        "ann aborted ClientInitiated",
    ];
    assert_eq!(told, expected);
    let sids: Vec<_> = waiting.iter().flat_map(|one| one.happening.occurrences()).filter_map(whose).collect();
    assert_eq!(sids, ["PA_1", "PA_1", "PA_1", "PA_1", "PA_2", "PA_3"].map(ParticipantSid::from));
}

pub async fn a_room_that_is_deleted_sends_its_people_off_first(cluster: Arc<impl Cluster>) {
    let ann = cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap().record;
    put(&cluster, &ann, |person| person.state = ParticipantState::Active).await;
    cluster.delete(name("r"), LeaveReason::RoomDeleted).await.unwrap();
    cluster.create(new_room("r", 2)).await.unwrap();
    let (waiting, told) = emptied(&cluster, "one").await;
    assert_eq!(
        told,
        ["room_started", "ann joined", "ann left RoomDeleted", "room_finished RoomDeleted", "room_started"]
    );
    assert!(waiting.iter().skip(2).all(|one| one.happening.room.participants == 0));
}

pub async fn what_a_store_gets_back_is_not_told_again(cluster: Arc<impl Cluster>) {
    let ann = cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap();
    let known = put(&cluster, &ann.record, |person| person.state = ParticipantState::Active).await;
    emptied(&cluster, "one").await;
    // As after a failover to a copy that was behind.
    let known = newer(&known, |person| person.tracks = vec![track("TR_1")]);
    let RoomSnapshot { view, seq, room: info, .. } = ann.snapshot;
    let lost = Lost { view, seq: seq + 9, info, records: vec![known.clone()] };
    cluster.restore(name("r"), lost).await.unwrap();
    assert_eq!(cluster.lease_outboxes("one", 9).await, Ok(Leased::default()));
    put(&cluster, &known, |person| person.tracks.push(track("TR_2"))).await;
    assert_eq!(emptied(&cluster, "one").await.1, ["ann published TR_2"]);
}

pub async fn who_is_removed_with_a_node_has_left(cluster: Arc<impl Cluster>) {
    cluster.join(name("r"), Seat { node: node("ND_2"), ..seat("ann", "PA_1") }).await.unwrap();
    let other = cluster.join(name("r"), seat("bob", "PA_2")).await.unwrap();
    cluster.release(node("ND_2")).await.unwrap();
    assert_eq!(emptied(&cluster, "one").await.1, ["room_started", "ann aborted ServerShutdown"]);
    assert_eq!(cluster.snapshot(name("r")).await.unwrap().records, [other.record]);
}

pub async fn an_outbox_has_one_holder_at_a_time(cluster: Arc<impl Cluster>) {
    for room in ["r", "s", "t"] {
        cluster.create(new_room(room, 1)).await.unwrap();
    }
    let mut leases = cluster.lease_outboxes("one", 2).await.unwrap().outboxes;
    assert_eq!(leases.len(), 2);
    leases.extend(cluster.lease_outboxes("one", 2).await.unwrap().outboxes);
    assert_eq!(leases.len(), 3, "whoever asks next gets the rest");
    assert_eq!(cluster.lease_outboxes("one", 2).await, Ok(Leased::default()));
    assert_eq!(
        cluster.lease_outboxes("two", 9).await.unwrap().outboxes.len(),
        3,
        "destinations do not wait for each other"
    );
    let mut rooms = Vec::new();
    for lease in &leases {
        let waiting = cluster.next_happening(lease.clone(), None).await.unwrap().unwrap();
        let again = cluster.next_happening(lease.clone(), None).await.unwrap().unwrap();
        assert_eq!(again, waiting, "what is not done with stays");
        rooms.push(waiting.happening.room.name.clone());
        assert_eq!(cluster.next_happening(lease.clone(), Some(waiting.entry)).await, Ok(None));
    }
    rooms.sort_unstable();
    assert_eq!(rooms, ["r", "s", "t"].map(name));
    for lease in leases {
        assert_eq!(
            cluster.next_happening(lease, None).await,
            Err(StoreError::Superseded),
            "an empty one is given back"
        );
    }
}

pub async fn what_was_put_off_comes_back_as_far_as_it_was(cluster: Arc<impl Cluster>) {
    let ann = cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap().record;
    let first = only(&cluster).await;
    let started = cluster.next_happening(first.clone(), None).await.unwrap().unwrap();
    assert_eq!((started.told, started.tries), (0, 0));
    let reached = Reached { entry: started.entry.clone(), told: 1, tries: 3 };
    cluster.put_off(first.clone(), reached.clone(), Duration::ZERO).await.unwrap();
    assert_eq!(cluster.next_happening(first.clone(), None).await, Err(StoreError::Superseded), "it was given back");
    assert_eq!(cluster.put_off(first, reached, Duration::ZERO).await, Err(StoreError::Superseded));
    leave(&cluster, &ann).await.unwrap();
    let second = only(&cluster).await;
    let again = cluster.next_happening(second.clone(), None).await.unwrap().unwrap();
    assert_eq!(again, Waiting { told: 1, tries: 3, ..started });
    let next = cluster.next_happening(second.clone(), Some(again.entry)).await.unwrap().unwrap();
    assert_eq!((next.told, next.tries), (0, 0), "that was about the one before");
    let later = Reached { entry: next.entry, told: 0, tries: 1 };
    cluster.put_off(second, later, Duration::from_secs(3600)).await.unwrap();
    cluster.create(NewRoom { sid: "RM_2".into(), ..new_room("r", 2) }).await.unwrap();
    cluster.delete(name("r"), LeaveReason::RoomDeleted).await.unwrap();
    assert_eq!(cluster.lease_outboxes("one", 9).await, Ok(Leased::default()), "nor do later changes overtake it");
}

pub async fn an_outbox_is_bounded_and_the_oldest_go(cluster: Arc<impl Cluster>) {
    let turns = OUTBOX_MAX / 2 + 5;
    for turn in 0..turns {
        let view = turn as u64 + 1;
        cluster.create(NewRoom { sid: format!("RM_{turn}").into(), ..new_room("r", view) }).await.unwrap();
        cluster.delete(name("r"), LeaveReason::RoomDeleted).await.unwrap();
    }
    let Leased { outboxes, dropped } = cluster.lease_outboxes("one", 9).await.unwrap();
    assert_eq!((outboxes.len(), dropped), (1, 10));
    assert_eq!(cluster.lease_outboxes("one", 9).await.unwrap().dropped, 0, "said once");
    let mut sids = Vec::new();
    let mut done = None;
    while let Some(waiting) = cluster.next_happening(outboxes[0].clone(), done.take()).await.unwrap() {
        sids.push(waiting.happening.room.sid.to_string());
        done = Some(waiting.entry);
    }
    assert_eq!(sids.len(), OUTBOX_MAX);
    assert_eq!(sids.first().map(String::as_str), Some("RM_5"));
    cluster.create(new_room("s", 1)).await.unwrap();
    assert_eq!(cluster.lease_outboxes("one", 9).await.unwrap().dropped, 0);
}

/// All that is due, outbox by outbox, and in words.
pub(super) async fn emptied(cluster: &Arc<impl Cluster>, destination: &str) -> (Vec<Waiting>, Vec<String>) {
    let mut waiting = Vec::new();
    for lease in cluster.lease_outboxes(destination, 9).await.unwrap().outboxes {
        let mut done = None;
        while let Some(next) = cluster.next_happening(lease.clone(), done.take()).await.unwrap() {
            done = Some(next.entry.clone());
            waiting.push(next);
        }
    }
    let told = waiting.iter().flat_map(|one| one.happening.occurrences()).map(|one| in_words(&one)).collect();
    (waiting, told)
}

async fn only(cluster: &Arc<impl Cluster>) -> OutboxLease {
    let mut leases = cluster.lease_outboxes("one", 9).await.unwrap().outboxes;
    assert_eq!(leases.len(), 1);
    leases.remove(0)
}

async fn put(cluster: &Arc<impl Cluster>, record: &Record, change: impl FnOnce(&mut Participant)) -> Arc<Record> {
    let record = newer(record, change);
    cluster.put(name("r"), record.clone()).await.unwrap();
    record
}

fn in_words(occurrence: &Occurrence) -> String {
    let of = |who: &Participant, what: &str| format!("{} {what}", who.identity);
    match occurrence {
        Occurrence::RoomStarted => "room_started".into(),
        Occurrence::RoomFinished { reason } => format!("room_finished {reason:?}"),
        Occurrence::Joined { who } => of(who, "joined"),
        Occurrence::Left { who } => of(who, &format!("left {:?}", who.leave_reason)),
        Occurrence::Aborted { who } => of(who, &format!("aborted {:?}", who.leave_reason)),
        Occurrence::Published { who, track } => of(who, &format!("published {}", track.sid)),
        Occurrence::Unpublished { who, track } => of(who, &format!("unpublished {}", track.sid)),
        Occurrence::EgressStarted { egress } => format!("{} started", egress.id),
        Occurrence::EgressUpdated { egress } => format!("{} updated {:?}", egress.id, egress.status),
        Occurrence::EgressEnded { egress } => format!("{} ended {:?}", egress.id, egress.status),
    }
}

fn whose(occurrence: Occurrence) -> Option<ParticipantSid> {
    match occurrence {
        Occurrence::RoomStarted
        | Occurrence::RoomFinished { .. }
        | Occurrence::EgressStarted { .. }
        | Occurrence::EgressUpdated { .. }
        | Occurrence::EgressEnded { .. } => None,
        Occurrence::Joined { who }
        | Occurrence::Left { who }
        | Occurrence::Aborted { who }
        | Occurrence::Published { who, .. }
        | Occurrence::Unpublished { who, .. } => Some(who.sid),
    }
}

fn track(sid: &str) -> Track {
    Track {
        sid: sid.into(),
        kind: MediaKind::Audio,
        source: Source::Microphone,
        name: String::new(),
        muted: false,
        width: 0,
        height: 0,
        simulcast: false,
        stream: String::new(),
        mime: "audio/opus".into(),
        mid: String::new(),
        codecs: Vec::new(),
        layers: Vec::new(),
        encryption: Encryption::None,
        disable_red: false,
        audio_features: Vec::new(),
        trailer_features: Vec::new(),
        backup_codec_policy: BackupCodecPolicy::PreferRegression,
        version: Version::default(),
    }
}
