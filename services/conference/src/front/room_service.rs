//! LiveKit's room API, and the door to its Egress API: who may call what, and what it means in the model's words.

use actix_web::{
    HttpRequest, HttpResponse,
    http::Method,
    web::{self, Bytes, Data, Path, ServiceConfig},
};
use livekit_protocol as pb;
use plenary_model::{
    Admin, Channel, Destination, Identity, NAME_BYTES_MAX, ParticipantSid, ParticipantUpdate, RoomName, TrackSid,
};
use plenary_protocol::{
    livekit,
    token::{Claims, VideoGrant},
};
use prost::Message;
use tokio::time::timeout;

use super::{
    authorize::{Authorizer, authorization},
    egress,
    room_api::{ApiError, CreateRoom, RoomApi, RoomCall, RoomReply},
    strangers,
    twirp::{Code, Format, TwirpError, deadline},
};
use crate::{events::BansChanged, tokens::unix_seconds};

pub fn configure(config: &mut ServiceConfig) {
    config.service(web::resource("/twirp/{service}/{method}").to(twirp_endpoint));
}

async fn twirp_endpoint(
    request: HttpRequest,
    path: Path<(String, String)>,
    body: Bytes,
    authorizer: Data<Authorizer>,
    rooms: Data<dyn RoomApi>,
) -> HttpResponse {
    let (service, method) = path.into_inner();
    let answer = async {
        if request.method() != Method::POST {
            return Err(TwirpError::new(Code::BadRoute, "calls are POST"));
        }
        match service.as_str() {
            ROOM_SERVICE | EGRESS => {}
            other if NOT_SERVED.contains(&other) => {
                return Err(TwirpError::new(Code::Unimplemented, "this server does not have that service"));
            }
            _ => return Err(TwirpError::new(Code::BadRoute, "no such service")),
        }
        let format = Format::of(&request)?;
        let claims = authorizer.bearer(authorization(&request), unix_seconds()).await?;
        strangers::is_known(&request);
        let call = Call { format, body: &body, claims: &claims, rooms: &**rooms };
        let carried_out = async {
            match service.as_str() {
                EGRESS => call.carry_out_egress(&method).await,
                _ => call.carry_out(&method).await,
            }
        };
        let outcome = timeout(deadline(&request), carried_out).await;
        outcome.unwrap_or_else(|_| Err(ApiError::Timeout.into()))
    };
    answer.await.unwrap_or_else(|error| error.response())
}

/// One call and who makes it.
pub(super) struct Call<'a> {
    pub(super) format: Format,
    pub(super) body: &'a [u8],
    claims: &'a Claims,
    pub(super) rooms: &'a dyn RoomApi,
}

pub(super) type Answer = Result<HttpResponse, TwirpError>;

impl Call<'_> {
    async fn carry_out(&self, method: &str) -> Answer {
        match method {
            "CreateRoom" => self.create_room().await,
            "ListRooms" => self.list_rooms().await,
            "DeleteRoom" => self.delete_room().await,
            "ListParticipants" => self.list_participants().await,
            "GetParticipant" => self.get_participant().await,
            "RemoveParticipant" => self.remove_participant().await,
            "MutePublishedTrack" => self.mute_track().await,
            "UpdateParticipant" => self.update_participant().await,
            "UpdateSubscriptions" => self.update_subscriptions().await,
            "SendData" => self.send_data().await,
            "UpdateRoomMetadata" => self.update_room_metadata().await,
            "PerformRpc" | "ForwardParticipant" | "MoveParticipant" => {
                Err(TwirpError::new(Code::Unimplemented, "this server does not do that"))
            }
            _ => Err(TwirpError::new(Code::BadRoute, "no such method")),
        }
    }

    async fn create_room(&self) -> Answer {
        let ask: pb::CreateRoomRequest = self.format.read(self.body)?;
        self.needs(|grant| grant.room_create)?;
        if !ask.agents.is_empty() {
            return Err(egress::not_done("agents of a new room"));
        }
        let given = |value: u32| (value > 0).then_some(value);
        let name = RoomName::try_from(&*ask.name).map_err(|error| invalid(format!("room name {error}")))?;
        // Better refused than a recording that never was.
        let auto_egress = egress::kept(ask.egress.as_ref(), &name)?;
        let create = CreateRoom {
            name,
            auto_egress,
            metadata: (!ask.metadata.is_empty()).then_some(ask.metadata),
            empty_timeout_s: given(ask.empty_timeout),
            departure_timeout_s: given(ask.departure_timeout),
            max_participants: given(ask.max_participants),
        };
        self.room(RoomCall::CreateRoom(create)).await
    }

    async fn list_rooms(&self) -> Answer {
        let ask: pb::ListRoomsRequest = self.format.read(self.body)?;
        self.needs(|grant| grant.room_list)?;
        // A name that cannot be is the name of no room.
        let names = ask.names.iter().filter_map(|name| RoomName::try_from(&**name).ok()).collect();
        let names = (!ask.names.is_empty()).then_some(names);
        match self.rooms.call(RoomCall::ListRooms { names }).await? {
            RoomReply::Rooms(rooms) => {
                let codecs = self.rooms.codecs();
                let rooms = rooms.iter().map(|info| livekit::room(info, codecs)).collect();
                Ok(self.format.write(&pb::ListRoomsResponse { rooms }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn delete_room(&self) -> Answer {
        let ask: pb::DeleteRoomRequest = self.format.read(self.body)?;
        self.needs(|grant| grant.room_create)?;
        let room = RoomName::try_from(&*ask.room).map_err(|_| ApiError::NoSuchRoom)?;
        self.rooms.call(RoomCall::DeleteRoom { room }).await?;
        Ok(self.format.write(&pb::DeleteRoomResponse {}))
    }

    async fn update_room_metadata(&self) -> Answer {
        let ask: pb::UpdateRoomMetadataRequest = self.format.read(self.body)?;
        let room = self.administered(&ask.room)?;
        self.room(RoomCall::SetMetadata { room, metadata: ask.metadata }).await
    }

    async fn list_participants(&self) -> Answer {
        let ask: pb::ListParticipantsRequest = self.format.read(self.body)?;
        let room = self.administered(&ask.room)?;
        match self.rooms.call(RoomCall::ListParticipants { room }).await? {
            RoomReply::Participants(people) => {
                let participants = people.iter().map(|one| livekit::participant_info(one)).collect();
                Ok(self.format.write(&pb::ListParticipantsResponse { participants }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn get_participant(&self) -> Answer {
        let ask: pb::RoomParticipantIdentity = self.format.read(self.body)?;
        let room = self.administered(&ask.room)?;
        self.participant(RoomCall::GetParticipant { room, identity: identity(&ask.identity)? }).await
    }

    async fn remove_participant(&self) -> Answer {
        let ask: pb::RoomParticipantIdentity = self.format.read(self.body)?;
        let room = self.administered(&ask.room)?;
        let identity = identity(&ask.identity)?;
        let remove = Admin::Remove { identity: identity.clone() };
        match u64::try_from(ask.revoke_token_ts) {
            // LiveKit's server leaves the token as it is, and so do its users expect.
            Ok(0) => drop(self.admin(room, remove).await?),
            Ok(issued_before_unix_s) => {
                let span = tracing::info_span!("revoke", room = %room, participant = %identity);
                let revoke = RoomCall::Revoke { room: room.clone(), identity, issued_before_unix_s };
                self.rooms.call(revoke).await?;
                span.in_scope(|| BansChanged { what: "revoked", by: &self.claims.issuer, until_unix_s: None }.emit());
                // Their session may have ended by it already, and whoever is not there has lost their token all the same.
                match self.rooms.call(RoomCall::Admin { room, what: remove }).await {
                    Ok(_) | Err(ApiError::NoSuchParticipant | ApiError::NoSuchRoom) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(_) => return Err(ApiError::BadTime.into()),
        }
        Ok(self.format.write(&pb::RemoveParticipantResponse {}))
    }

    async fn mute_track(&self) -> Answer {
        let ask: pb::MuteRoomTrackRequest = self.format.read(self.body)?;
        let room = self.administered(&ask.room)?;
        let track = TrackSid::from(ask.track_sid);
        let mute = Admin::Mute { identity: identity(&ask.identity)?, track: track.clone(), muted: ask.muted };
        match self.admin(room, mute).await? {
            RoomReply::Participant(publisher) => {
                let track = publisher.tracks.iter().find(|one| one.sid == track).ok_or(ApiError::NoSuchTrack)?;
                Ok(self.format.write(&pb::MuteRoomTrackResponse { track: Some(livekit::track_info(track)) }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn update_participant(&self) -> Answer {
        let ask: pb::UpdateParticipantRequest = self.format.read(self.body)?;
        let room = self.administered(&ask.room)?;
        if ask.name.len() > NAME_BYTES_MAX {
            return Err(invalid("the name is too long"));
        }
        let given = |text: String| (!text.is_empty()).then_some(text);
        let update = ParticipantUpdate {
            name: given(ask.name),
            metadata: given(ask.metadata),
            attributes: ask.attributes.into_iter().collect(),
            permission: ask.permission.as_ref().map(livekit::permission_from),
        };
        let update = Admin::Update { identity: identity(&ask.identity)?, update };
        self.participant(RoomCall::Admin { room, what: update }).await
    }

    async fn update_subscriptions(&self) -> Answer {
        let ask: pb::UpdateSubscriptionsRequest = self.format.read(self.body)?;
        let room = self.administered(&ask.room)?;
        let of_people = ask.participant_tracks.into_iter().flat_map(|one| one.track_sids);
        let tracks = ask.track_sids.into_iter().chain(of_people).map(TrackSid::from).collect();
        let subscribe = Admin::Subscribe { identity: identity(&ask.identity)?, tracks, subscribe: ask.subscribe };
        self.admin(room, subscribe).await?;
        Ok(self.format.write(&pb::UpdateSubscriptionsResponse {}))
    }

    async fn send_data(&self) -> Answer {
        let ask: pb::SendDataRequest = self.format.read(self.body)?;
        let room = self.administered(&ask.room)?;
        if !matches!(ask.nonce.len(), 0 | NONCE_BYTES) {
            return Err(invalid("a nonce has 16 bytes"));
        }
        let channel = match pb::data_packet::Kind::try_from(ask.kind) {
            Ok(pb::data_packet::Kind::Reliable) => Channel::Reliable,
            Ok(pb::data_packet::Kind::Lossy) => Channel::Lossy,
            Err(_) => return Err(invalid("kind is RELIABLE or LOSSY")),
        };
        let to = destination(&ask)?;
        let payload = data_packet(ask);
        if payload.len() > plenary_media_core::MESSAGE_BYTES_MAX {
            return Err(invalid("the message is too large"));
        }
        self.admin(room, Admin::Send { channel, to, payload }).await?;
        Ok(self.format.write(&pb::SendDataResponse {}))
    }

    async fn room(&self, call: RoomCall) -> Answer {
        match self.rooms.call(call).await? {
            RoomReply::Room(info) => Ok(self.format.write(&livekit::room(&info, self.rooms.codecs()))),
            other => Err(unexpected(&other)),
        }
    }

    async fn participant(&self, call: RoomCall) -> Answer {
        match self.rooms.call(call).await? {
            RoomReply::Participant(one) => Ok(self.format.write(&livekit::participant_info(&one))),
            other => Err(unexpected(&other)),
        }
    }

    async fn admin(&self, room: RoomName, what: Admin) -> Result<RoomReply, TwirpError> {
        Ok(self.rooms.call(RoomCall::Admin { room, what }).await?)
    }

    pub(super) fn needs(&self, grant: impl Fn(&VideoGrant) -> bool) -> Result<(), TwirpError> {
        if grant(&self.claims.video) { Ok(()) } else { Err(denied()) }
    }

    /// The room of a call, which has to be the one that the token administers.
    fn administered(&self, room: &str) -> Result<RoomName, TwirpError> {
        self.needs(|grant| grant.room_admin && !room.is_empty() && grant.room == room)?;
        RoomName::try_from(room).map_err(|_| ApiError::NoSuchRoom.into())
    }
}

/// LiveKit's own answer; its SDKs know it.
fn denied() -> TwirpError {
    TwirpError::new(Code::Unauthenticated, "permissions denied")
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> TwirpError {
    TwirpError::new(Code::InvalidArgument, message)
}

/// A reply of another kind than the call's is a fault of ours.
pub(super) fn unexpected(reply: &RoomReply) -> TwirpError {
    tracing::error!(reply = crate::metrics::label(reply), "reply does not fit its call");
    ApiError::Fault.into()
}

/// Who cannot be named is nobody here.
fn identity(text: &str) -> Result<Identity, TwirpError> {
    Identity::try_from(text).map_err(|_| ApiError::NoSuchParticipant.into())
}

#[allow(deprecated)]
fn destination(ask: &pb::SendDataRequest) -> Result<Destination, TwirpError> {
    if !ask.destination_identities.is_empty() {
        let named: Result<Vec<_>, _> =
            ask.destination_identities.iter().map(|one| Identity::try_from(&**one)).collect();
        return named.map(Destination::Identities).map_err(|error| invalid(format!("a destination identity {error}")));
    }
    if !ask.destination_sids.is_empty() {
        return Ok(Destination::Sids(ask.destination_sids.iter().map(|one| ParticipantSid::from(&**one)).collect()));
    }
    Ok(Destination::Everybody)
}

/// The message as every receiver gets it: from the server, so without a sender.
#[allow(deprecated)]
fn data_packet(ask: pb::SendDataRequest) -> Bytes {
    let user = pb::UserPacket {
        payload: ask.data,
        destination_sids: ask.destination_sids,
        destination_identities: ask.destination_identities.clone(),
        topic: ask.topic,
        nonce: ask.nonce,
        ..pb::UserPacket::default()
    };
    let packet = pb::DataPacket {
        kind: ask.kind,
        destination_identities: ask.destination_identities,
        value: Some(pb::data_packet::Value::User(user)),
        ..pb::DataPacket::default()
    };
    packet.encode_to_vec().into()
}

const ROOM_SERVICE: &str = "livekit.RoomService";
const EGRESS: &str = "livekit.Egress";

/// What SDKs can ask for and this server does not have.
const NOT_SERVED: [&str; 7] = [
    "livekit.Ingress",
    "livekit.SIP",
    "livekit.AgentDispatchService",
    "livekit.AgentService",
    "livekit.Connector",
    "livekit.CloudAgent",
    "livekit.PhoneNumberService",
];

const NONCE_BYTES: usize = 16;
