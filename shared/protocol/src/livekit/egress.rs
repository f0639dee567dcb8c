//! Recordings as the Egress API and webhooks tell of them.

use livekit_protocol as pb;
use pb::egress_info::{Request, Result as OldResult};
use plenary_model::{Egress, EgressFile, EgressRequest, EgressRequestKind, EgressSource, EgressStatus};
use prost::Message;

use super::signed;

/// A recording with the request it came from, which is left out if it cannot be read.
pub fn egress_info(egress: &Egress) -> pb::EgressInfo {
    let files = file_results(egress);
    let request = request(&egress.request);
    #[allow(deprecated)]
    let result = files.first().filter(|_| asked_the_old_way(request.as_ref())).cloned().map(OldResult::File);
    pb::EgressInfo {
        egress_id: egress.id.to_string(),
        room_id: egress.room_sid.to_string(),
        room_name: egress.room.to_string(),
        source_type: match egress.source {
            EgressSource::Room { .. } => pb::EgressSourceType::Web,
            _ => pb::EgressSourceType::Sdk,
        }
        .into(),
        status: egress_status(egress.status).into(),
        started_at: signed(egress.started_at_ns),
        ended_at: signed(egress.ended_at_ns),
        updated_at: signed(egress.updated_at_ns),
        file_results: files,
        error: egress.error.clone(),
        request,
        result,
        ..pb::EgressInfo::default()
    }
}

pub fn egress_status(status: EgressStatus) -> pb::EgressStatus {
    match status {
        EgressStatus::Starting => pb::EgressStatus::EgressStarting,
        EgressStatus::Active => pb::EgressStatus::EgressActive,
        EgressStatus::Ending => pb::EgressStatus::EgressEnding,
        EgressStatus::Complete => pb::EgressStatus::EgressComplete,
        EgressStatus::Failed => pb::EgressStatus::EgressFailed,
        EgressStatus::Aborted => pb::EgressStatus::EgressAborted,
        EgressStatus::LimitReached => pb::EgressStatus::EgressLimitReached,
    }
}

/// Those that are there, or the names of those that shall be.
fn file_results(egress: &Egress) -> Vec<pb::FileInfo> {
    let file = |file: &EgressFile| pb::FileInfo {
        filename: file.path.clone(),
        location: file.path.clone(),
        started_at: signed(file.started_at_ns),
        ended_at: signed(file.ended_at_ns),
        duration: signed(file.duration_ns),
        size: signed(file.bytes),
    };
    if egress.files.is_empty() {
        let outputs = egress.outputs.iter();
        return outputs.map(|one| pb::FileInfo { filename: one.path.clone(), ..Default::default() }).collect();
    }
    egress.files.iter().map(file).collect()
}

fn request(request: &EgressRequest) -> Option<Request> {
    let message = request.message.clone();
    match request.kind {
        EgressRequestKind::Unified => Message::decode(message).ok().map(Request::Egress),
        EgressRequestKind::RoomComposite => Message::decode(message).ok().map(Request::RoomComposite),
        EgressRequestKind::Participant => Message::decode(message).ok().map(Request::Participant),
        EgressRequestKind::TrackComposite => Message::decode(message).ok().map(Request::TrackComposite),
        EgressRequestKind::Track => Message::decode(message).ok().map(Request::Track),
    }
}

/// Whoever asks with a single output looks for a single result.
#[allow(deprecated)]
fn asked_the_old_way(request: Option<&Request>) -> bool {
    use pb::{room_composite_egress_request, track_composite_egress_request};
    match request {
        Some(Request::RoomComposite(ask)) => {
            matches!(ask.output, Some(room_composite_egress_request::Output::File(_)))
        }
        Some(Request::TrackComposite(ask)) => {
            matches!(ask.output, Some(track_composite_egress_request::Output::File(_)))
        }
        Some(Request::Track(_)) => true,
        _ => false,
    }
}
