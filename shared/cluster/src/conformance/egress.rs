//! Recordings.

use std::sync::Arc;

use plenary_model::*;

use super::{Cluster, emptied, leave, name, new_room, node, seat};
use crate::{egress::EGRESSES_PER_ROOM_MAX, *};

pub async fn a_recording_needs_its_life_of_the_room(cluster: Arc<impl Cluster>) {
    assert_eq!(cluster.start_egress(egress("EG_1", "r")).await, Err(StoreError::NoSuchRoom));
    cluster.create(new_room("r", 1)).await.unwrap();
    let of_another = Egress { room_sid: "RM_before".into(), ..egress("EG_1", "r") };
    assert_eq!(cluster.start_egress(of_another).await, Err(StoreError::NoSuchRoom));
    let asked = egress("EG_1", "r");
    assert_eq!(*cluster.start_egress(asked.clone()).await.unwrap(), asked);
    let again = Egress { error: "a second time".into(), ..asked.clone() };
    assert_eq!(*cluster.start_egress(again).await.unwrap(), asked, "repeated");
    cluster.delete(name("r"), LeaveReason::RoomDeleted).await.unwrap();
    assert_eq!(ids(&cluster, EgressFilter::default()).await, ["EG_1"], "it outlives the room");
}

pub async fn only_the_last_recorder_writes(cluster: Arc<impl Cluster>) {
    let asked = started(&cluster, "EG_1").await;
    let id = || EgressId::from("EG_1");
    let (first, found) = cluster.claim_egress(name("r"), id(), recorder("ND_1", 1)).await.unwrap();
    assert_eq!(found, asked);
    assert!(first.epoch > 1_600_000_000_000, "the time is in it: {}", first.epoch);
    assert_eq!(
        cluster.claim_egress(name("r"), id(), recorder("ND_1", 1)).await,
        Ok((first.clone(), found)),
        "an answer that was lost comes again"
    );
    for other in [recorder("ND_1", 2), recorder("ND_2", 1)] {
        assert_eq!(cluster.claim_egress(name("r"), id(), other).await, Err(StoreError::Egress(EgressRefusal::Held)));
    }
    let active = next(&asked, EgressStatus::Active);
    cluster.put_egress(active.clone(), Some(first.clone())).await.unwrap();
    assert_eq!(*cluster.renew_egress(first.clone()).await.unwrap(), active);
    cluster.release_egress(first.clone()).await.unwrap();
    let listed = cluster.egresses(EgressFilter::default()).await.unwrap();
    assert_eq!((listed[0].epoch, listed[0].is_held), (first.epoch, false));
    assert_eq!(listed[0].recorder, Some(node("ND_1")), "who had it is known");

    let (second, found) = cluster.claim_egress(name("r"), id(), recorder("ND_2", 1)).await.unwrap();
    assert!(second.epoch > first.epoch);
    let listed = cluster.egresses(EgressFilter::default()).await.unwrap();
    assert_eq!((listed[0].epoch, listed[0].is_held), (second.epoch, true));
    assert_eq!(listed[0].recorder, Some(node("ND_2")));
    let late = next(&found, EgressStatus::Failed);
    assert_eq!(cluster.put_egress(late.clone(), Some(first.clone())).await, Err(StoreError::Superseded));
    assert_eq!(cluster.renew_egress(first.clone()).await, Err(StoreError::Superseded));
    assert_eq!(cluster.release_egress(first).await, Err(StoreError::Superseded));
    let ahead = EgressLease { epoch: second.epoch + 1, ..second.clone() };
    assert_eq!(cluster.put_egress(late.clone(), Some(ahead)).await, Err(StoreError::Superseded));
    cluster.put_egress(late, Some(second)).await.unwrap();
    let over = cluster.claim_egress(name("r"), id(), recorder("ND_1", 3)).await;
    assert_eq!(over, Err(StoreError::Egress(EgressRefusal::Over)));
    let nobody = cluster.claim_egress(name("r"), "EG_2".into(), recorder("ND_1", 3)).await;
    assert_eq!(nobody, Err(StoreError::Egress(EgressRefusal::NotThere)));
}

pub async fn epochs_grow_over_a_loss_of_the_store(cluster: Arc<impl Cluster>) {
    started(&cluster, "EG_1").await;
    // A clock that went ahead, in a store that is no more.
    let known_epoch = 9_000_000_000_000;
    let by = Recorder { known_epoch, ..recorder("ND_1", 1) };
    let (lease, _) = cluster.claim_egress(name("r"), "EG_1".into(), by).await.unwrap();
    assert_eq!(lease.epoch, known_epoch + 1);
    cluster.release_egress(lease).await.unwrap();
    let (lease, _) = cluster.claim_egress(name("r"), "EG_1".into(), recorder("ND_1", 2)).await.unwrap();
    assert_eq!(lease.epoch, known_epoch + 2);
}

pub async fn a_lost_recording_is_put_back_as_it_was(cluster: Arc<impl Cluster>) {
    cluster.create(new_room("r", 1)).await.unwrap();
    let lost = Egress { version: 7, ..next(&egress("EG_1", "r"), EgressStatus::Active) };
    let epoch = 9_000_000_000_000;
    let by = Recorder { known_epoch: epoch, ..recorder("ND_1", 1) };
    cluster.restore_egress(lost.clone(), by).await.unwrap();
    cluster.restore_egress(Egress { version: 1, ..lost.clone() }, recorder("ND_2", 1)).await.unwrap();
    let listed = cluster.egresses(EgressFilter::default()).await.unwrap();
    let stored = StoredEgress { egress: Arc::new(lost.clone()), epoch, recorder: Some(node("ND_1")), is_held: true };
    assert_eq!(listed, [stored], "the first word stands");
    let other = cluster.claim_egress(name("r"), "EG_1".into(), recorder("ND_2", 1)).await;
    assert_eq!(other, Err(StoreError::Egress(EgressRefusal::Held)));
    assert!(cluster.snapshot(name("r")).await.unwrap().room.active_recording);
    let lease = EgressLease { room: name("r"), id: "EG_1".into(), epoch };
    assert_eq!(*cluster.renew_egress(lease.clone()).await.unwrap(), lost, "its recorder goes on");
    cluster.put_egress(next(&lost, EgressStatus::Ending), Some(lease)).await.unwrap();
}

pub async fn what_nobody_records_is_found(cluster: Arc<impl Cluster>) {
    let unheld = async |most| {
        let found = cluster.unheld_egresses(most).await.unwrap();
        found.iter().map(|one| (one.egress.id.to_string(), one.epoch)).collect::<Vec<_>>()
    };
    for room in ["r", "s"] {
        cluster.create(new_room(room, 1)).await.unwrap();
        cluster.start_egress(egress(&format!("EG_{room}"), room)).await.unwrap();
    }
    let ids =
        |found: Vec<(String, u64)>| found.into_iter().map(|(id, _)| id).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(ids(unheld(9).await), ["EG_r".into(), "EG_s".into()].into());
    assert_eq!(unheld(1).await.len(), 1);
    let (lease, asked) = cluster.claim_egress(name("r"), "EG_r".into(), recorder("ND_1", 1)).await.unwrap();
    assert_eq!(unheld(9).await, [("EG_s".to_owned(), 0)]);
    cluster.put_egress(next(&egress("EG_s", "s"), EgressStatus::Aborted), None).await.unwrap();
    assert_eq!(unheld(9).await, [], "one is over");
    cluster.release_egress(lease.clone()).await.unwrap();
    assert_eq!(unheld(9).await, [("EG_r".to_owned(), lease.epoch)]);
    cluster.renew_egress(lease.clone()).await.unwrap();
    assert_eq!(unheld(9).await, []);
    cluster.release_egress(lease.clone()).await.unwrap();
    cluster.put_egress(next(&asked, EgressStatus::Failed), Some(lease)).await.unwrap();
    assert_eq!(unheld(9).await, []);
}

pub async fn a_recording_goes_forward_alone(cluster: Arc<impl Cluster>) {
    cluster.create(new_room("r", 1)).await.unwrap();
    for (number, from) in (0..).zip(EgressStatus::ALL) {
        for (other, to) in (0..).zip(EgressStatus::ALL) {
            let id = format!("EG_{number}_{other}");
            let stored = Egress { status: from, ..egress(&id, "r") };
            cluster.restore_egress(stored.clone(), recorder("ND_1", 1)).await.unwrap();
            let expected = if from.may_become(to) { Ok(()) } else { Err(StoreError::Egress(EgressRefusal::Over)) };
            assert_eq!(cluster.put_egress(next(&stored, to), None).await, expected, "{from:?} to {to:?}");
        }
    }
}

pub async fn no_change_of_a_recording_overwrites_another(cluster: Arc<impl Cluster>) {
    let asked = started(&cluster, "EG_1").await;
    let (lease, _) = cluster.claim_egress(name("r"), "EG_1".into(), recorder("ND_1", 1)).await.unwrap();
    let active = next(&asked, EgressStatus::Active);
    cluster.put_egress(active.clone(), Some(lease.clone())).await.unwrap();
    cluster.put_egress(active.clone(), Some(lease.clone())).await.expect("repeated");
    let stopped = next(&active, EgressStatus::Ending);
    cluster.put_egress(stopped.clone(), None).await.unwrap();
    let unaware = Egress { error: "one file is missing".into(), ..next(&active, EgressStatus::Active) };
    assert_eq!(cluster.put_egress(unaware, Some(lease.clone())).await, Err(StoreError::Egress(EgressRefusal::Changed)));
    let ahead = Egress { version: stopped.version + 2, ..stopped.clone() };
    assert_eq!(cluster.put_egress(ahead, Some(lease.clone())).await, Err(StoreError::Egress(EgressRefusal::Changed)));
    assert_eq!(*cluster.renew_egress(lease).await.unwrap(), stopped, "the recorder hears that it is stopped");
    assert_eq!(cluster.put_egress(egress("EG_2", "r"), None).await, Err(StoreError::Egress(EgressRefusal::NotThere)));
}

pub async fn a_room_shows_that_it_is_recorded(cluster: Arc<impl Cluster>) {
    let ann = cluster.join(name("r"), seat("ann", "PA_1")).await.unwrap();
    let mut heard = cluster.subscribe(name("r")).await.unwrap();
    let one = cluster.start_egress(egress("EG_1", "r")).await.unwrap();
    let two = cluster.start_egress(egress("EG_2", "r")).await.unwrap();
    assert!(!cluster.snapshot(name("r")).await.unwrap().room.active_recording);
    let mut shown = Vec::new();
    for (egress, status) in [(&one, EgressStatus::Active), (&two, EgressStatus::Active)] {
        cluster.put_egress(next(egress, status), None).await.unwrap();
        shown.push(cluster.snapshot(name("r")).await.unwrap().room.active_recording);
    }
    for egress in [one, two] {
        let active = next(&egress, EgressStatus::Active);
        cluster.put_egress(next(&active, EgressStatus::Ending), None).await.unwrap();
        shown.push(cluster.snapshot(name("r")).await.unwrap().room.active_recording);
    }
    assert_eq!(shown, [true, true, true, false], "until the last of them ends");
    leave(&cluster, &ann.record).await.unwrap();
    let told: Vec<_> = super::changes(&mut heard, &cluster).await;
    let meta = |change: &RoomChange| match change {
        RoomChange::Meta(info) => Some((info.active_recording, info.has_active_egress)),
        _ => None,
    };
    assert_eq!(told.iter().filter_map(meta).collect::<Vec<_>>(), [(true, true), (false, false)], "and told once each");

    cluster.delete(name("r"), LeaveReason::RoomDeleted).await.unwrap();
    let of_before = Egress { status: EgressStatus::Active, ..egress("EG_3", "r") };
    cluster.restore_egress(of_before, recorder("ND_1", 1)).await.unwrap();
    cluster.create(NewRoom { sid: "RM_next".into(), ..new_room("r", 2) }).await.unwrap();
    let three = Egress { status: EgressStatus::Active, ..egress("EG_3", "r") };
    cluster.put_egress(next(&three, EgressStatus::Active), None).await.unwrap();
    assert!(!cluster.snapshot(name("r")).await.unwrap().room.active_recording, "that was an earlier life");
}

pub async fn recordings_are_listed_by_room_by_id_and_while_they_go_on(cluster: Arc<impl Cluster>) {
    for room in ["r", "s"] {
        cluster.create(new_room(room, 1)).await.unwrap();
    }
    for (id, room, asked_at_ns) in [("EG_c", "r", 1), ("EG_b", "s", 2), ("EG_a", "r", 3)] {
        cluster.start_egress(Egress { asked_at_ns, ..egress(id, room) }).await.unwrap();
    }
    let last = Egress { asked_at_ns: 3, ..egress("EG_a", "r") };
    cluster.put_egress(next(&last, EgressStatus::Aborted), None).await.unwrap();
    let room = |room: &str| EgressFilter { room: Some(name(room)), ..EgressFilter::default() };
    let id = |id: &str| EgressFilter { id: Some(id.into()), ..EgressFilter::default() };
    for (filter, expected) in [
        (EgressFilter::default(), vec!["EG_c", "EG_b", "EG_a"]),
        (EgressFilter { active: true, ..EgressFilter::default() }, vec!["EG_c", "EG_b"]),
        (room("r"), vec!["EG_c", "EG_a"]),
        (EgressFilter { active: true, ..room("r") }, vec!["EG_c"]),
        (room("t"), vec![]),
        (id("EG_b"), vec!["EG_b"]),
        (EgressFilter { room: Some(name("r")), ..id("EG_b") }, vec![]),
        (id("EG_x"), vec![]),
    ] {
        assert_eq!(ids(&cluster, filter.clone()).await, expected, "{filter:?}");
    }
}

pub async fn recordings_of_a_room_are_bounded_and_those_that_are_over_go(cluster: Arc<impl Cluster>) {
    cluster.create(new_room("r", 1)).await.unwrap();
    for number in 0..EGRESSES_PER_ROOM_MAX {
        cluster.start_egress(egress(&format!("EG_{number}"), "r")).await.unwrap();
    }
    assert_eq!(cluster.start_egress(egress("EG_more", "r")).await, Err(StoreError::Egress(EgressRefusal::TooMany)));
    cluster.put_egress(next(&egress("EG_7", "r"), EgressStatus::Aborted), None).await.unwrap();
    cluster.start_egress(egress("EG_more", "r")).await.unwrap();
    let left = ids(&cluster, EgressFilter::default()).await;
    assert_eq!(left.len(), EGRESSES_PER_ROOM_MAX);
    assert!(!left.contains(&"EG_7".to_owned()) && left.contains(&"EG_more".to_owned()));
    assert_eq!(cluster.start_egress(egress("EG_again", "r")).await, Err(StoreError::Egress(EgressRefusal::TooMany)));
}

pub async fn recordings_are_told_of_even_when_the_room_is_gone(cluster: Arc<impl Cluster>) {
    let asked = started(&cluster, "EG_1").await;
    let active = next(&asked, EgressStatus::Active);
    cluster.put_egress(active.clone(), None).await.unwrap();
    cluster.put_egress(active.clone(), None).await.unwrap();
    let arranged = Egress { updated_at_ns: 5, ..next(&active, EgressStatus::Active) };
    cluster.put_egress(arranged.clone(), None).await.unwrap();
    cluster.delete(name("r"), LeaveReason::RoomDeleted).await.unwrap();
    let ending = next(&arranged, EgressStatus::Ending);
    cluster.put_egress(ending.clone(), None).await.unwrap();
    let complete = next(&ending, EgressStatus::Complete);
    cluster.put_egress(complete.clone(), None).await.unwrap();
    cluster.restore_egress(egress("EG_2", "r"), recorder("ND_1", 1)).await.unwrap();
    for destination in super::outbox::OF_EVERYTHING {
        let (waiting, told) = emptied(&cluster, destination).await;
        let expected = [
            "room_started",
            "EG_1 started",
            "EG_1 updated Active",
            "EG_1 updated Active",
            "room_finished RoomDeleted",
            "EG_1 updated Ending",
            "EG_1 ended Complete",
        ];
        assert_eq!(told, expected);
        let last = waiting.last().unwrap();
        assert_eq!(last.happening.what, Changed::Egress(Arc::new(complete.clone())));
        assert_eq!(last.happening.room.sid, complete.room_sid);
    }
}

/// Of the room `r`, which is made for it.
async fn started(cluster: &Arc<impl Cluster>, id: &str) -> Arc<Egress> {
    cluster.create(new_room("r", 1)).await.unwrap();
    cluster.start_egress(egress(id, "r")).await.unwrap()
}

async fn ids(cluster: &Arc<impl Cluster>, filter: EgressFilter) -> Vec<String> {
    let listed = cluster.egresses(filter).await.unwrap();
    listed.iter().map(|one| one.egress.id.to_string()).collect()
}

fn next(egress: &Egress, status: EgressStatus) -> Egress {
    Egress { status, version: egress.version + 1, ..egress.clone() }
}

fn recorder(on: &str, life: u64) -> Recorder {
    Recorder { node: node(on), life, known_epoch: 0 }
}

/// Of the first life of a room made by [`new_room`].
pub fn egress(id: &str, room: &str) -> Egress {
    Egress {
        id: id.into(),
        room: name(room),
        room_sid: format!("RM_{room}").into(),
        source: EgressSource::Room { layout: "grid".into(), media: EgressMedia::Both },
        outputs: vec![EgressOutput { kind: EgressFileKind::Mp4, path: "r/meeting.mp4".into() }],
        request: EgressRequest { kind: EgressRequestKind::RoomComposite, message: b"\x0a\x01r".to_vec().into() },
        status: EgressStatus::Starting,
        asked_at_ns: 1_800_000_000_000_000_000,
        started_at_ns: 0,
        ended_at_ns: 0,
        updated_at_ns: 1_800_000_000_000_000_000,
        error: String::new(),
        files: Vec::new(),
        version: 1,
    }
}
