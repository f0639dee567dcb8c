//! The private listener: how the node sees its cluster, whether it takes people, and who is kept out, said by whoever
//! operates the service.
//!
//! It speaks JSON and asks for the same tokens as the room API. A ban of one room takes `roomAdmin` of that room; a ban
//! of every room takes `roomAdmin` together with `roomCreate`, the grant that can end any room, and so does a drain. Every
//! change leaves a line in the log with the key that asked for it.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Json, Query, ServiceConfig},
};
use plenary_model::{Ban, Identity, RoomName};
use plenary_protocol::token::Claims;
use serde::{Deserialize, Serialize};

use super::{
    authorize::{Authorizer, authorization},
    room_api::{ApiError, NodeView, RoomApi, RoomCall, RoomReply},
    twirp::{Code, TwirpError},
};
use crate::{
    events::{BansChanged, DrainAsked},
    metrics::label,
    tokens::unix_seconds,
};

pub fn configure(config: &mut ServiceConfig) {
    config
        .service(web::resource("/admin/v1/node").route(web::get().to(node_endpoint)))
        .service(web::resource("/admin/v1/bans").route(web::get().to(list_endpoint)))
        .service(web::resource("/admin/v1/ban").route(web::post().to(ban_endpoint)))
        .service(web::resource("/admin/v1/unban").route(web::post().to(unban_endpoint)))
        .service(web::resource("/admin/v1/drain").route(web::post().to(drain_endpoint)))
        .service(web::resource("/admin/v1/undrain").route(web::post().to(undrain_endpoint)));
}

/// Who, and where; without a room everywhere.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BanAsk {
    identity: String,
    #[serde(default)]
    room: Option<String>,
    /// Unix seconds.
    until: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UnbanAsk {
    identity: String,
    #[serde(default)]
    room: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListAsk {
    #[serde(default)]
    room: Option<String>,
}

#[derive(Debug, Serialize)]
struct BanTold {
    identity: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<String>,
    /// Only tokens issued before this; otherwise every token.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_issued_before: Option<u64>,
    until: u64,
}

/// How the node sees itself and its cluster. Takes the grants of a ban of every room.
async fn node_endpoint(request: HttpRequest, authorizer: Data<Authorizer>, rooms: Data<dyn RoomApi>) -> HttpResponse {
    answer(async {
        let claims = authorizer.bearer(authorization(&request), unix_seconds()).await?;
        scope(&claims, None)?;
        match rooms.call(RoomCall::DescribeNode).await? {
            RoomReply::Node(view) => Ok(HttpResponse::Ok().json(told(&view))),
            _ => Err(ApiError::Fault.into()),
        }
    })
    .await
}

fn told(view: &NodeView) -> serde_json::Value {
    let routers = view.routers.iter().map(|router| {
        serde_json::json!({
            "transports": router.transports,
            "tracks": router.tracks,
            "subscriptions": router.subscriptions,
            "links": router.links,
            "link_rtt_us": router.link_rtt_us,
            "pulled_streams": router.pulled_streams,
            "wanted_tracks": router.wanted_tracks,
            "withheld_streams": router.withheld_streams,
        })
    });
    let others = view.others.iter().map(|other| {
        let addresses: Vec<_> = other.routers.iter().map(|router| &router.addresses).collect();
        let (node, state) = (other.node.as_str(), label(other.state));
        serde_json::json!({ "node": node, "version": other.version, "state": state, "routers": addresses })
    });
    serde_json::json!({
        "node": view.node.as_str(),
        "version": env!("CARGO_PKG_VERSION"),
        "state": view.unready.unwrap_or("serving"),
        "rooms": view.rooms,
        "sessions": view.sessions,
        "routers": routers.collect::<Vec<_>>(),
        "others": others.collect::<Vec<_>>(),
    })
}

async fn ban_endpoint(
    request: HttpRequest,
    ask: Option<Json<BanAsk>>,
    authorizer: Data<Authorizer>,
    rooms: Data<dyn RoomApi>,
) -> HttpResponse {
    answer(async {
        let claims = authorizer.bearer(authorization(&request), unix_seconds()).await?;
        let BanAsk { identity, room, until } = ask.ok_or_else(|| unreadable("{\"identity\", \"room\", \"until\"}"))?.0;
        let (identity, room) = (identity_of(&identity)?, scope(&claims, room)?);
        let span = tracing::info_span!("ban", room = room.as_ref().map(RoomName::as_str), participant = %identity);
        rooms.call(RoomCall::Ban { room, identity, until_unix_s: until }).await?;
        span.in_scope(|| BansChanged { what: "banned", by: &claims.issuer, until_unix_s: Some(until) }.emit());
        Ok(HttpResponse::NoContent().finish())
    })
    .await
}

async fn unban_endpoint(
    request: HttpRequest,
    ask: Option<Json<UnbanAsk>>,
    authorizer: Data<Authorizer>,
    rooms: Data<dyn RoomApi>,
) -> HttpResponse {
    answer(async {
        let claims = authorizer.bearer(authorization(&request), unix_seconds()).await?;
        let UnbanAsk { identity, room } = ask.ok_or_else(|| unreadable("{\"identity\", \"room\"}"))?.0;
        let (identity, room) = (identity_of(&identity)?, scope(&claims, room)?);
        let span = tracing::info_span!("unban", room = room.as_ref().map(RoomName::as_str), participant = %identity);
        rooms.call(RoomCall::LiftBan { room, identity }).await?;
        span.in_scope(|| BansChanged { what: "lifted", by: &claims.issuer, until_unix_s: None }.emit());
        Ok(HttpResponse::NoContent().finish())
    })
    .await
}

async fn list_endpoint(
    request: HttpRequest,
    ask: Option<Query<ListAsk>>,
    authorizer: Data<Authorizer>,
    rooms: Data<dyn RoomApi>,
) -> HttpResponse {
    answer(async {
        let claims = authorizer.bearer(authorization(&request), unix_seconds()).await?;
        let ListAsk { room } = ask.ok_or_else(|| unreadable("no query, or a room"))?.into_inner();
        match rooms.call(RoomCall::ListBans { room: scope(&claims, room)? }).await? {
            RoomReply::Bans(bans) => {
                let bans: Vec<_> = bans.into_iter().map(BanTold::from).collect();
                Ok(HttpResponse::Ok().json(serde_json::json!({ "bans": bans })))
            }
            _ => Err(ApiError::Fault.into()),
        }
    })
    .await
}

async fn drain_endpoint(request: HttpRequest, authorizer: Data<Authorizer>, rooms: Data<dyn RoomApi>) -> HttpResponse {
    answer(ask_of_node(&request, &authorizer, &**rooms, RoomCall::Drain, "drain")).await
}

async fn undrain_endpoint(
    request: HttpRequest,
    authorizer: Data<Authorizer>,
    rooms: Data<dyn RoomApi>,
) -> HttpResponse {
    answer(ask_of_node(&request, &authorizer, &**rooms, RoomCall::Undrain, "undrain")).await
}

async fn ask_of_node(
    request: &HttpRequest,
    authorizer: &Authorizer,
    rooms: &dyn RoomApi,
    call: RoomCall,
    what: &'static str,
) -> Result<HttpResponse, TwirpError> {
    let claims = authorizer.bearer(authorization(request), unix_seconds()).await?;
    scope(&claims, None)?;
    rooms.call(call).await?;
    DrainAsked { what, by: &claims.issuer }.emit();
    Ok(HttpResponse::NoContent().finish())
}

/// The room that is meant, if these claims may decide there.
pub(super) fn scope(claims: &Claims, room: Option<String>) -> Result<Option<RoomName>, TwirpError> {
    let grant = &claims.video;
    let allowed = grant.room_admin
        && match &room {
            Some(room) => grant.room == *room,
            None => grant.room_create,
        };
    if !allowed {
        let needed = if room.is_some() { "roomAdmin of that room" } else { "roomAdmin and roomCreate" };
        return Err(TwirpError::new(Code::PermissionDenied, format!("the token needs {needed}")));
    }
    let name = room.map(|room| RoomName::try_from(room.as_str())).transpose();
    name.map_err(|error| TwirpError::new(Code::InvalidArgument, format!("room {error}")))
}

fn identity_of(text: &str) -> Result<Identity, TwirpError> {
    Identity::try_from(text).map_err(|error| TwirpError::new(Code::InvalidArgument, format!("identity {error}")))
}

fn unreadable(wanted: &str) -> TwirpError {
    TwirpError::new(Code::Malformed, format!("send {wanted}, times in Unix seconds"))
}

/// Errors as the room API writes them.
pub(super) async fn answer(outcome: impl Future<Output = Result<HttpResponse, TwirpError>>) -> HttpResponse {
    outcome.await.unwrap_or_else(|error| error.response())
}

impl From<Ban> for BanTold {
    fn from(ban: Ban) -> Self {
        Self {
            identity: ban.identity.to_string(),
            room: ban.room.map(|room| room.to_string()),
            tokens_issued_before: ban.tokens_before_unix_s,
            until: ban.until_unix_s,
        }
    }
}

/// Two names and a number.
pub const BODY_BYTES_MAX: usize = 4096;
