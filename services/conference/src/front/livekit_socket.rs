//! The signalling door: `GET /rtc`, dual-PeerConnection mode.
//!
//! The upgrade is answered only when the session exists, so that a refusal can be an HTTP status, which is what SDKs
//! act on.

use std::{sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, web};
use plenary_cluster::StoreError;
use plenary_model::{LeaveAction, LeaveReason, RoomName, RoomSnapshot};
use plenary_room_core::{session::UnfitCodecs, signal::ServerSignal};
use tokio::{sync::oneshot, time::timeout};
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{
    authorize::{Authorizer, JoinAsk, Refusal, ResumeAsk, authorize_join},
    quirks::unfit_codecs,
};
use crate::{
    edge::{
        ToEdge,
        ws::{self, Upgrade},
    },
    events::{JoinRefused, ResumeRefused},
    ids,
    node::Shared,
    participant::Resumption,
    reach,
    room::{Client, Find, Join},
    rooms::{FindSession, JoinRoom},
    tokens::unix_seconds,
};

/// The upgrade to signalling.
pub async fn rtc_endpoint(
    request: HttpRequest,
    body: web::Payload,
    shared: web::Data<Shared>,
    authorizer: web::Data<Authorizer>,
) -> Result<HttpResponse, actix_web::Error> {
    if !asks_for_websocket(&request) {
        return Ok(HttpResponse::NotFound().finish());
    }
    let shared = shared.into_inner();
    let span = tracing::info_span!("join", room = tracing::field::Empty, participant = tracing::field::Empty);
    let admitted = async {
        let admitted = admit(&request, &shared, &authorizer).await;
        admitted.inspect_err(|refusal| JoinRefused { reason: refusal.reason() }.emit())
    };
    let upgrade = admitted.instrument(span).await?;
    ws::open(&request, body, upgrade, shared.server_identity.clone(), shared.limits.signal_frame_bytes)
}

/// A session for this socket, or the one word it hears instead.
async fn admit(
    request: &HttpRequest,
    shared: &Arc<Shared>,
    authorizer: &Authorizer,
) -> Result<Result<Upgrade, ToEdge>, Refusal> {
    let verdict = authorize_join(request, authorizer, unix_seconds());
    let ask = verdict.instrument(tracing::info_span!("authorize")).await?;
    let span = tracing::Span::current();
    span.record("room", ask.room.as_str());
    span.record("participant", ask.identity.as_str());
    match ask.resume.clone() {
        Some(resume) => Ok(resumed(shared, ask, resume).await),
        None => {
            let user_agent = request.headers().get(actix_web::http::header::USER_AGENT);
            let unfit = unfit_codecs(&ask.client, user_agent.and_then(|value| value.to_str().ok()).unwrap_or_default());
            join(shared, ask, unfit).await.map(Ok)
        }
    }
}

async fn join(shared: &Arc<Shared>, ask: JoinAsk, unfit: UnfitCodecs) -> Result<Upgrade, Refusal> {
    if let Some(why) = shared.turns_away() {
        return Err(Refusal::NodeUnavailable(why.name()));
    }
    if gives_way(shared, &ask.room).await {
        return Err(Refusal::NodeUnavailable("more of the room are on a node that is out of reach"));
    }
    let create = shared.may_create(&ask.claims).then(|| shared.new_room(ask.room.clone(), &ask.claims)).transpose();
    // Who may not make a room may join it.
    let (create, not_made) = create.map_or_else(|why| (None, Some(why)), |create| (create, None));
    let client = Client {
        protocol: ask.client.protocol,
        client_protocol: ask.client.client_protocol,
        capabilities: ask.client.capabilities,
        auto_subscribe: ask.auto_subscribe,
        adaptive_stream: ask.adaptive_stream,
        allow_pause: ask.allow_pause,
        unfit,
    };
    // From here on the session's claims are the token's with what the query added.
    let claims = plenary_protocol::token::Claims { attributes: ask.attributes, ..ask.claims };
    let (reply, answer) = oneshot::channel();
    let trace = tracing::Span::current().context();
    let join = Join { identity: ask.identity, claims, client, create, trace, reply };
    let rooms = shared.rooms_for(&ask.room);
    rooms.do_send(JoinRoom { room: ask.room, join });
    match timeout(JOIN_WITHIN, answer).await {
        Ok(Ok(Ok(participant))) => Ok(Upgrade { participant, resumption: None }),
        Ok(Ok(Err(StoreError::NoSuchRoom))) => {
            Err(not_made.map_or(Refusal::RoomNotFound, |why| Refusal::CannotRecord(why.message)))
        }
        Ok(Ok(Err(StoreError::Full))) => Err(Refusal::RoomFull),
        Ok(Ok(Err(StoreError::Banned))) => Err(Refusal::Banned),
        Ok(Ok(Err(StoreError::Revoked))) => Err(Refusal::Revoked),
        Ok(
            Ok(Err(StoreError::Superseded | StoreError::TooManyBans | StoreError::Egress(_) | StoreError::Unavailable))
            | Err(_),
        )
        | Err(_) => Err(Refusal::NodeUnavailable("the room did not answer")),
    }
}

/// Whether people of this room are elsewhere and whoever came here could not hear them.
async fn gives_way(shared: &Shared, room: &RoomName) -> bool {
    let parted = shared.reach.parted();
    if parted.is_empty() {
        return false;
    }
    // The room may not be open here, and is not to be opened for this.
    let Ok(Ok(RoomSnapshot { records, .. })) = timeout(JOIN_WITHIN, shared.store.snapshot(room.clone())).await else {
        return false;
    };
    reach::gives_way(&shared.node, records.iter().map(|record| &record.node), &parted).is_some()
}

/// Back to its session, or told to start over: a new session is what every SDK can do.
async fn resumed(shared: &Arc<Shared>, ask: JoinAsk, resume: ResumeAsk) -> Result<Upgrade, ToEdge> {
    let is_misrouted = resume.sid.as_ref().and_then(ids::host_of).is_some_and(|(node, _)| node != shared.node);
    let find = Find { identity: ask.identity, sid: resume.sid };
    let found = shared.rooms_for(&ask.room).send(FindSession { room: ask.room, find });
    match timeout(JOIN_WITHIN, found).await {
        Ok(Ok(Some(participant))) => {
            Ok(Upgrade { participant, resumption: Some(Resumption { protocol: ask.client.protocol }) })
        }
        _ => {
            ResumeRefused { is_misrouted }.emit();
            let leave = ServerSignal::Leave { reason: LeaveReason::StateMismatch, action: LeaveAction::Reconnect };
            Err(ToEdge::Signal(Box::new(leave)))
        }
    }
}

fn asks_for_websocket(request: &HttpRequest) -> bool {
    let upgrade = request.headers().get(actix_web::http::header::UPGRADE);
    upgrade.and_then(|value| value.to_str().ok()).is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
}

/// Longer than any store should take; clients give up at about the same time.
const JOIN_WITHIN: Duration = Duration::from_secs(5);
