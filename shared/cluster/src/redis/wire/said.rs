//! What nodes ask of each other and say to each other.

use plenary_model as model;

use super::{
    Channel, Command, Destination, Read, Unreadable, channel, command, destination, identity, number, room_name, trace,
    words,
};
use crate::Request;

impl Command {
    pub(in crate::redis) fn new(request: &Request) -> Self {
        use command::{Mute, Send, Subscribe, Update, What};
        let what = match &request.what {
            model::Admin::Remove { identity } => What::Remove(identity.to_string()),
            model::Admin::Mute { identity, track, muted } => {
                What::Mute(Mute { identity: identity.to_string(), track: track.to_string(), muted: *muted })
            }
            model::Admin::Update { identity, update } => What::Update(Update {
                identity: identity.to_string(),
                name: update.name.clone(),
                metadata: update.metadata.clone(),
                attributes: update.attributes.clone(),
                permission: update.permission.as_ref().map(Into::into),
            }),
            model::Admin::Subscribe { identity, tracks, subscribe } => What::Subscribe(Subscribe {
                identity: identity.to_string(),
                tracks: tracks.iter().map(ToString::to_string).collect(),
                subscribe: *subscribe,
            }),
            model::Admin::Send { channel, to, payload } => What::Send(Send {
                channel: number::<Channel, _>(*channel),
                to: Some(to.into()),
                payload: payload.clone(),
            }),
        };
        let trace_parent = request.trace.clone().unwrap_or_default();
        Self { room: request.room.to_string(), trace_parent, what: Some(what) }
    }

    pub(in crate::redis) fn into_model(self) -> Read<Request> {
        use command::What;
        let room = room_name(&self.room)?;
        let what = match self.what.ok_or(Unreadable)? {
            What::Remove(who) => model::Admin::Remove { identity: identity(&who)? },
            What::Mute(mute) => {
                model::Admin::Mute { identity: identity(&mute.identity)?, track: mute.track.into(), muted: mute.muted }
            }
            What::Update(update) => model::Admin::Update {
                identity: identity(&update.identity)?,
                update: model::ParticipantUpdate {
                    name: update.name,
                    metadata: update.metadata,
                    attributes: update.attributes,
                    permission: update.permission.map(Into::into),
                },
            },
            What::Subscribe(ask) => model::Admin::Subscribe {
                identity: identity(&ask.identity)?,
                tracks: ask.tracks.into_iter().map(Into::into).collect(),
                subscribe: ask.subscribe,
            },
            What::Send(send) => model::Admin::Send {
                channel: channel(send.channel),
                to: send.to.ok_or(Unreadable)?.try_into()?,
                payload: send.payload,
            },
        };
        Ok(Request { room, what, trace: trace(self.trace_parent) })
    }
}

impl From<&model::Destination> for Destination {
    fn from(from: &model::Destination) -> Self {
        use destination::Kind;
        let (kind, names) = match from {
            model::Destination::Everybody => (Kind::Everybody, Vec::new()),
            model::Destination::Identities(all) => (Kind::Identities, all.iter().map(ToString::to_string).collect()),
            model::Destination::Sids(all) => (Kind::Sids, all.iter().map(ToString::to_string).collect()),
        };
        Self { kind: kind.into(), names }
    }
}

impl TryFrom<Destination> for model::Destination {
    type Error = Unreadable;

    fn try_from(from: Destination) -> Read<Self> {
        use destination::Kind;
        // What a newer node means by another kind must not reach everybody.
        Ok(match Kind::try_from(from.kind).map_err(|_| Unreadable)? {
            Kind::Everybody => Self::Everybody,
            Kind::Identities => Self::Identities(from.names.iter().map(|one| identity(one)).collect::<Read<_>>()?),
            Kind::Sids => Self::Sids(from.names.into_iter().map(Into::into).collect()),
        })
    }
}

impl From<&model::RoomWord> for words::Word {
    fn from(word: &model::RoomWord) -> Self {
        use words::word::What;
        let what = match word {
            model::RoomWord::Data { message } => What::Data(command::Send {
                channel: number::<Channel, _>(message.channel),
                to: Some((&message.to).into()),
                payload: message.payload.clone(),
            }),
            model::RoomWord::DataFrame { track, packet } => {
                What::DataFrame(words::DataFrame { track: track.to_string(), packet: packet.clone() })
            }
            model::RoomWord::Bound { track } => What::Bound(track.to_string()),
            model::RoomWord::BackupWanted { track } => What::BackupWanted(track.to_string()),
            model::RoomWord::Quality { who, quality } => What::Quality(words::Quality {
                who: who.to_string(),
                quality: match quality.quality {
                    model::ConnectionQuality::Lost => 0,
                    model::ConnectionQuality::Poor => 1,
                    model::ConnectionQuality::Good => 2,
                    model::ConnectionQuality::Excellent => 3,
                },
                score: quality.score,
            }),
            model::RoomWord::GetBlob { asker, request_id, owner, key } => What::GetBlob(words::GetBlob {
                asker: asker.to_string(),
                request_id: *request_id,
                owner: owner.to_string(),
                key: key.clone(),
            }),
            model::RoomWord::Blob { asker, request_id, answer } => {
                let (key, contents) = match answer {
                    model::BlobAnswer::Found { key, contents } => (key.clone(), Some(contents.clone())),
                    _ => Default::default(),
                };
                What::Blob(words::Blob { asker: asker.to_string(), request_id: *request_id, contents, key })
            }
        };
        Self { what: Some(what) }
    }
}

impl words::Word {
    pub(in crate::redis) fn into_model(self) -> Read<model::RoomWord> {
        use words::word::What;
        Ok(match self.what.ok_or(Unreadable)? {
            What::Data(send) => model::RoomWord::Data {
                message: model::DataMessage {
                    channel: channel(send.channel),
                    to: send.to.ok_or(Unreadable)?.try_into()?,
                    payload: send.payload,
                },
            },
            What::DataFrame(frame) => model::RoomWord::DataFrame { track: frame.track.into(), packet: frame.packet },
            What::Bound(track) => model::RoomWord::Bound { track: track.into() },
            What::BackupWanted(track) => model::RoomWord::BackupWanted { track: track.into() },
            What::Quality(words::Quality { who, quality, score }) => {
                let quality = match quality {
                    0 => model::ConnectionQuality::Lost,
                    1 => model::ConnectionQuality::Poor,
                    2 => model::ConnectionQuality::Good,
                    _ => model::ConnectionQuality::Excellent,
                };
                model::RoomWord::Quality { who: who.into(), quality: model::QualityScore { quality, score } }
            }
            What::GetBlob(ask) => model::RoomWord::GetBlob {
                asker: ask.asker.into(),
                request_id: ask.request_id,
                owner: identity(&ask.owner)?,
                key: ask.key,
            },
            What::Blob(words::Blob { asker, request_id, contents, key }) => {
                let answer = match contents {
                    Some(contents) => model::BlobAnswer::Found { key, contents },
                    None => model::BlobAnswer::NotFound,
                };
                model::RoomWord::Blob { asker: asker.into(), request_id, answer }
            }
        })
    }
}
