//! Recordings as the Egress API and webhooks tell of them.

use livekit_protocol as pb;
use pb::egress_info::{Request, Result as OldResult};
use plenary_model::{Egress, EgressFile, EgressRequest, EgressRequestKind, EgressSource, EgressStatus};
use prost::Message;

use super::signed;

/// A recording with the request it came from, which is left out if it cannot be read.
pub fn egress_info(egress: &Egress) -> pb::EgressInfo {
    let files = file_results(egress);
    // Whoever knows a single result alone looks for it here, whatever was asked for.
    #[allow(deprecated)]
    let result = files.first().cloned().map(OldResult::File);
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
        error_code: error_code(egress.status),
        request: request(&egress.request),
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

/// As HTTP has it.
fn error_code(status: EgressStatus) -> i32 {
    match status {
        EgressStatus::Failed => 500,
        EgressStatus::Aborted => 412,
        EgressStatus::LimitReached => 413,
        EgressStatus::Starting | EgressStatus::Active | EgressStatus::Ending | EgressStatus::Complete => 0,
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

pub(super) fn request(request: &EgressRequest) -> Option<Request> {
    let message = request.message.clone();
    match request.kind {
        EgressRequestKind::Unified => Message::decode(message).ok().map(Request::Egress),
        EgressRequestKind::RoomComposite => Message::decode(message).ok().map(Request::RoomComposite),
        EgressRequestKind::Participant => Message::decode(message).ok().map(Request::Participant),
        EgressRequestKind::TrackComposite => Message::decode(message).ok().map(Request::TrackComposite),
        EgressRequestKind::Track => Message::decode(message).ok().map(Request::Track),
    }
}
