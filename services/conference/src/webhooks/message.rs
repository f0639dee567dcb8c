//! What happened as LiveKit's `WebhookEvent`.

use aws_lc_rs::digest;
use livekit_protocol as pb;
use plenary_cluster::{Occurrence, Waiting};
use plenary_model::{Codec, Egress, LeaveReason};
use plenary_protocol::livekit;

pub(super) fn event(waiting: &Waiting, occurrence: &Occurrence, codecs: &[Codec]) -> pb::WebhookEvent {
    let created_at = i64::try_from(waiting.since_unix_ms / 1000).unwrap_or(i64::MAX);
    let (event, who, track, ended) = match occurrence {
        Occurrence::RoomStarted => ("room_started", None, None, None),
        Occurrence::RoomFinished { reason } => ("room_finished", None, None, Some(*reason)),
        Occurrence::Joined { who } => ("participant_joined", Some(who), None, None),
        Occurrence::Left { who } => ("participant_left", Some(who), None, None),
        Occurrence::Aborted { who } => ("participant_connection_aborted", Some(who), None, None),
        Occurrence::Published { who, track } => ("track_published", Some(who), Some(track), None),
        Occurrence::Unpublished { who, track } => ("track_unpublished", Some(who), Some(track), None),
        Occurrence::EgressStarted { egress } => return of_egress("egress_started", egress, created_at),
        Occurrence::EgressUpdated { egress } => return of_egress("egress_updated", egress, created_at),
        Occurrence::EgressEnded { egress } => return of_egress("egress_ended", egress, created_at),
    };
    let room = &waiting.happening.room;
    let subjects = [
        event,
        room.sid.as_str(),
        who.map(|who| who.sid.as_str()).unwrap_or_default(),
        track.map(|track| track.sid.as_str()).unwrap_or_default(),
    ];
    pb::WebhookEvent {
        event: event.to_owned(),
        id: id(subjects),
        created_at,
        room: Some(livekit::room(room, codecs)),
        participant: who.map(livekit::participant_info),
        track: track.map(livekit::track_info),
        room_end_reason: ended.map_or(pb::RoomEndReason::RoomEndUnknown, end_reason).into(),
        ..pb::WebhookEvent::default()
    }
}

fn of_egress(event: &str, egress: &Egress, created_at: i64) -> pb::WebhookEvent {
    let version = egress.version.to_string();
    pb::WebhookEvent {
        event: event.to_owned(),
        id: id([event, egress.room_sid.as_str(), egress.id.as_str(), &version]),
        created_at,
        egress_info: Some(livekit::egress_info(egress)),
        ..pb::WebhookEvent::default()
    }
}

/// The same for the same occurrence, whoever tells it and however often: each happens once to its subjects.
fn id(subjects: [&str; 4]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for subject in subjects {
        context.update(subject.as_bytes());
        context.update(b"\0");
    }
    let digest = context.finish();
    digest.as_ref().iter().take(ID_BYTES).fold("EV_".to_owned(), |id, byte| id + &format!("{byte:02x}"))
}

fn end_reason(reason: LeaveReason) -> pb::RoomEndReason {
    match reason {
        LeaveReason::RoomDeleted => pb::RoomEndReason::RoomEndApiDelete,
        LeaveReason::RoomClosed => pb::RoomEndReason::RoomEndIdleTimeout,
        LeaveReason::ServerShutdown => pb::RoomEndReason::RoomEndServerShutdown,
        _ => pb::RoomEndReason::RoomEndUnknown,
    }
}

/// Ids of different occurrences never meet by chance.
const ID_BYTES: usize = 12;
