//! Recordings as the store keeps them.

use plenary_model as model;

use super::{Egress, Read, Unreadable, egress, identity, known, number, room_name};

impl From<&model::Egress> for Egress {
    fn from(from: &model::Egress) -> Self {
        use egress::{OfParticipant, OfTracks, Source, WholeRoom};
        let source = match &from.source {
            model::EgressSource::Room { layout, media } => {
                Source::WholeRoom(WholeRoom { layout: layout.clone(), media: number::<egress::Media, _>(*media) })
            }
            model::EgressSource::Participant { identity, screen_share } => {
                Source::Participant(OfParticipant { identity: identity.to_string(), screen_share: *screen_share })
            }
            model::EgressSource::Tracks { audio, video } => {
                let [audio, video] = [audio, video].map(|track| track.as_ref().map(ToString::to_string));
                Source::Tracks(OfTracks { audio, video })
            }
            model::EgressSource::Track { track } => Source::Track(track.to_string()),
        };
        let output = |output: &model::EgressOutput| egress::Output {
            kind: number::<egress::FileKind, _>(output.kind),
            path: output.path.clone(),
        };
        let file = |file: &model::EgressFile| egress::File {
            path: file.path.clone(),
            started_at_ns: file.started_at_ns,
            ended_at_ns: file.ended_at_ns,
            duration_ns: file.duration_ns,
            bytes: file.bytes,
        };
        Self {
            id: from.id.to_string(),
            room: from.room.to_string(),
            room_sid: from.room_sid.to_string(),
            source: Some(source),
            outputs: from.outputs.iter().map(output).collect(),
            request_kind: number::<egress::RequestKind, _>(from.request.kind),
            request: from.request.message.clone(),
            status: number::<egress::Status, _>(from.status),
            asked_at_ns: from.asked_at_ns,
            started_at_ns: from.started_at_ns,
            ended_at_ns: from.ended_at_ns,
            updated_at_ns: from.updated_at_ns,
            error: from.error.clone(),
            files: from.files.iter().map(file).collect(),
            version: from.version,
        }
    }
}

/// What a newer node asks for and this one does not know must not be taken for something else.
impl TryFrom<Egress> for model::Egress {
    type Error = Unreadable;

    fn try_from(from: Egress) -> Read<Self> {
        use egress::Source;
        let source = match from.source.ok_or(Unreadable)? {
            Source::WholeRoom(room) => model::EgressSource::Room {
                layout: room.layout,
                media: known::<egress::Media, _>(room.media).ok_or(Unreadable)?,
            },
            Source::Participant(of) => {
                model::EgressSource::Participant { identity: identity(&of.identity)?, screen_share: of.screen_share }
            }
            Source::Tracks(of) => {
                model::EgressSource::Tracks { audio: of.audio.map(Into::into), video: of.video.map(Into::into) }
            }
            Source::Track(track) => model::EgressSource::Track { track: track.into() },
        };
        let output = |output: egress::Output| {
            let kind = known::<egress::FileKind, _>(output.kind).ok_or(Unreadable)?;
            Ok(model::EgressOutput { kind, path: output.path })
        };
        let file = |file: egress::File| model::EgressFile {
            path: file.path,
            started_at_ns: file.started_at_ns,
            ended_at_ns: file.ended_at_ns,
            duration_ns: file.duration_ns,
            bytes: file.bytes,
        };
        let kind = known::<egress::RequestKind, _>(from.request_kind).ok_or(Unreadable)?;
        Ok(Self {
            id: from.id.into(),
            room: room_name(&from.room)?,
            room_sid: from.room_sid.into(),
            source,
            outputs: from.outputs.into_iter().map(output).collect::<Read<_>>()?,
            request: model::EgressRequest { kind, message: from.request },
            status: known::<egress::Status, _>(from.status).ok_or(Unreadable)?,
            asked_at_ns: from.asked_at_ns,
            started_at_ns: from.started_at_ns,
            ended_at_ns: from.ended_at_ns,
            updated_at_ns: from.updated_at_ns,
            error: from.error,
            files: from.files.into_iter().map(file).collect(),
            version: from.version,
        })
    }
}
