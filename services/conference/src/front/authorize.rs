//! Who may join, and how: the one verdict that the socket and `/rtc/validate` share.
//!
//! It reads the token and the query and knows nothing of rooms; what only the rooms know (full, not found) comes from
//! [`RoomGate`]. Neither token nor query string is ever logged or repeated.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use actix_web::{HttpRequest, HttpResponse, ResponseError, http::StatusCode, http::header, web};
use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use futures_util::future::LocalBoxFuture;
use livekit_protocol::client_info::Capability;
use plenary_cluster::Barred;
use plenary_model::{Identity, InvalidName, NAME_BYTES_MAX, ParticipantKind, ParticipantSid, Permission, RoomName};
use plenary_protocol::token::{Claims, TokenError};

use super::strangers;
use crate::{bans::BanCopy, config::Settings, keys::KeyRing};

/// What only the rooms know about a join.
pub trait RoomGate: Send + Sync {
    /// Whether this ask would find a seat now. It takes none.
    fn admit<'a>(&'a self, ask: &'a JoinAsk) -> LocalBoxFuture<'a, Result<(), Refusal>>;
}

/// A join that the token allows.
#[derive(Debug, Clone, PartialEq)]
pub struct JoinAsk {
    pub room: RoomName,
    pub identity: Identity,
    /// May be empty; clients then show the identity.
    pub name: String,
    pub metadata: String,
    /// The token's, overlaid with the query's.
    pub attributes: BTreeMap<String, String>,
    pub kind: ParticipantKind,
    pub permission: Permission,
    pub resume: Option<ResumeAsk>,
    pub auto_subscribe: bool,
    pub adaptive_stream: bool,
    /// Whether tracks may be paused when bandwidth is short.
    pub allow_pause: bool,
    pub client: Client,
    /// The token itself, for the ones that follow it and for settings of a room it may create.
    pub claims: Claims,
}

/// The client comes back to a session it had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeAsk {
    /// Missing with some old clients: then the identity says which session.
    pub sid: Option<ParticipantSid>,
    /// The wire's `ReconnectReason`.
    pub reason: i32,
}

/// What the client says about itself. The protocols and capabilities change what it gets, and for a few kinds of clients
/// the browser and the system do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    pub sdk: String,
    pub version: String,
    pub os: String,
    pub os_version: String,
    pub device_model: String,
    pub browser: String,
    pub browser_version: String,
    pub protocol: u32,
    pub client_protocol: i32,
    /// Wire numbers.
    pub capabilities: Vec<i32>,
}

/// Whose tokens are believed, and who is kept out whatever their token says.
#[derive(Debug, Clone)]
pub struct Access {
    pub keys: Arc<KeyRing>,
    pub bans: Arc<BanCopy>,
}

impl Access {
    /// With the keys that could be read at the start, and nobody banned.
    pub fn new(settings: &Settings) -> Self {
        Self { keys: KeyRing::new(settings), bans: Arc::default() }
    }
}

/// Reads tokens and join queries against the settings.
#[derive(Debug, Clone)]
pub struct Authorizer {
    access: Access,
    metadata_bytes: usize,
    attributes_bytes: usize,
}

impl Authorizer {
    pub fn new(settings: &Settings, access: Access) -> Self {
        Self {
            access,
            metadata_bytes: settings.limits.metadata_bytes,
            attributes_bytes: settings.limits.attributes_bytes,
        }
    }

    /// The claims of a token in an `Authorization` header.
    pub async fn bearer(&self, authorization: Option<&str>, now_unix_s: u64) -> Result<Claims, Refusal> {
        let token = authorization.and_then(bearer_token).ok_or(Refusal::NoToken)?;
        self.claims(token, now_unix_s).await
    }

    /// What every door asks first: a good token, of somebody who is not banned.
    async fn claims(&self, token: &str, now_unix_s: u64) -> Result<Claims, Refusal> {
        let claims = self.access.keys.verify(token, now_unix_s).await?;
        match self.access.bans.verdict_on(&claims, now_unix_s) {
            Some(Barred::Banned) => Err(Refusal::Banned),
            Some(Barred::Revoked) => Err(Refusal::Revoked),
            None => Ok(claims),
        }
    }

    /// The verdict on a join, from the header and the query string alone.
    pub async fn join(&self, authorization: Option<&str>, query: &str, now_unix_s: u64) -> Result<JoinAsk, Refusal> {
        let query = JoinQuery::parse(query)?;
        // Browsers cannot set headers on a WebSocket; everybody else sends the header alone.
        let token = authorization.and_then(bearer_token).or(query.text("access_token")).ok_or(Refusal::NoToken)?;
        let claims = self.claims(token, now_unix_s).await?;
        if !claims.video.room_join {
            return Err(Refusal::JoinNotGranted);
        }
        let room = match claims.video.room.as_str() {
            "" => return Err(Refusal::NoRoom),
            name => RoomName::try_from(name).map_err(Refusal::RoomName)?,
        };
        let identity = match claims.identity() {
            None => return Err(Refusal::NoIdentity),
            Some(name) => Identity::try_from(name).map_err(Refusal::Identity)?,
        };
        if query.text("join_request").is_some() {
            return Err(Refusal::SinglePeerConnection);
        }
        let permission = claims.permission();
        let mut attributes = claims.attributes.clone();
        if let Some(own) = query.text("attributes") {
            if !permission.can_update_metadata {
                return Err(Refusal::AttributesNotGranted);
            }
            attributes.extend(decode_attributes(own)?);
        }
        self.check_sizes(&claims, &attributes)?;
        Ok(JoinAsk {
            name: claims.name.clone(),
            metadata: claims.metadata.clone(),
            kind: claims.kind,
            resume: query.resume(),
            auto_subscribe: query.switch("auto_subscribe", true),
            adaptive_stream: query.switch("adaptive_stream", false),
            // A frozen tile for want of bandwidth is for clients that ask for it; the others keep the smallest layer.
            allow_pause: query.switch("subscriber_allow_pause", false),
            client: query.client(),
            room,
            identity,
            attributes,
            permission,
            claims,
        })
    }

    fn check_sizes(&self, claims: &Claims, attributes: &BTreeMap<String, String>) -> Result<(), Refusal> {
        if claims.name.len() > NAME_BYTES_MAX {
            return Err(Refusal::TooLarge("the participant's name"));
        }
        if claims.metadata.len() > self.metadata_bytes {
            return Err(Refusal::TooLarge("metadata"));
        }
        let bytes = attributes.iter().map(|(key, value)| key.len().saturating_add(value.len()));
        if bytes.fold(0, usize::saturating_add) > self.attributes_bytes {
            return Err(Refusal::TooLarge("attributes"));
        }
        Ok(())
    }
}

/// The verdict on this request, whichever of the two doors it came to.
pub async fn authorize_join(
    request: &HttpRequest,
    authorizer: &Authorizer,
    now_unix_s: u64,
) -> Result<JoinAsk, Refusal> {
    let ask = authorizer.join(authorization(request), request.query_string(), now_unix_s).await?;
    strangers::is_known(request);
    Ok(ask)
}

/// The `Authorization` header as text.
pub fn authorization(request: &HttpRequest) -> Option<&str> {
    request.headers().get(header::AUTHORIZATION)?.to_str().ok()
}

/// Why somebody may not join: status and text of the answer, and by [`Refusal::reason`] the log field and metric label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no token: send it as bearer or as access_token")]
    NoToken,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("permissions denied: the token does not grant roomJoin")]
    JoinNotGranted,
    #[error("permissions denied: attributes need canUpdateOwnMetadata")]
    AttributesNotGranted,
    #[error("no room name: the token names no room")]
    NoRoom,
    #[error("room name {0}")]
    RoomName(InvalidName),
    #[error("identity cannot be empty")]
    NoIdentity,
    #[error("identity {0}")]
    Identity(InvalidName),
    #[error("{0} exceeds its limit")]
    TooLarge(&'static str),
    #[error("{0} cannot be read")]
    BadQuery(&'static str),
    /// Clients take a 404 without the text about rooms as "not here" and join with two PeerConnections.
    #[error("joining with a single PeerConnection is not served here")]
    SinglePeerConnection,
    /// JavaScript clients look for this very text.
    #[error("requested room does not exist")]
    RoomNotFound,
    #[error("the room is to be recorded: {0}")]
    CannotRecord(Cow<'static, str>),
    #[error("room has exceeded its max participants")]
    RoomFull,
    /// 403 ends a client's reconnecting, as 401 does.
    #[error("participant is banned")]
    Banned,
    #[error("the token has been revoked")]
    Revoked,
    #[error("too many requests without a valid token from this address")]
    TooManyStrangers,
    #[error("this node takes nobody now: {0}")]
    NodeUnavailable(&'static str),
}

impl Refusal {
    pub fn status(&self) -> u16 {
        match self {
            Self::NoToken | Self::JoinNotGranted | Self::AttributesNotGranted => 401,
            Self::Token(error) => error.http_status(),
            Self::NoRoom | Self::RoomName(_) | Self::NoIdentity | Self::Identity(_) => 400,
            Self::TooLarge(_) | Self::BadQuery(_) | Self::CannotRecord(_) => 400,
            Self::SinglePeerConnection | Self::RoomNotFound => 404,
            Self::RoomFull | Self::Banned | Self::Revoked => 403,
            Self::TooManyStrangers => 429,
            Self::NodeUnavailable(_) => 503,
        }
    }

    /// One word out of a closed set.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::Token(error) => error.reason(),
            Self::JoinNotGranted => "join_not_granted",
            Self::AttributesNotGranted => "attributes_not_granted",
            Self::NoRoom | Self::RoomName(_) => "room_name",
            Self::NoIdentity | Self::Identity(_) => "identity",
            Self::TooLarge(_) => "too_large",
            Self::BadQuery(_) => "bad_query",
            Self::SinglePeerConnection => "single_peer_connection",
            Self::RoomNotFound => "room_not_found",
            Self::CannotRecord(_) => "cannot_record",
            Self::RoomFull => "room_full",
            Self::Banned => "banned",
            Self::Revoked => "revoked",
            Self::TooManyStrangers => "too_many_strangers",
            Self::NodeUnavailable(_) => "node_unavailable",
        }
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.status_code()).content_type("text/plain; charset=utf-8").body(self.to_string())
    }
}

/// The query of a join. Empty fragments are skipped (the Go SDK writes `&&`), of repeated names the first counts.
struct JoinQuery(BTreeMap<String, String>);

impl JoinQuery {
    fn parse(query: &str) -> Result<Self, Refusal> {
        let pairs =
            web::Query::<Vec<(String, String)>>::from_query(query).map_err(|_| Refusal::BadQuery("the query"))?;
        let mut members = BTreeMap::new();
        for (name, value) in pairs.into_inner() {
            members.entry(name).or_insert(value);
        }
        Ok(Self(members))
    }

    /// A member that is there and not empty.
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    fn switch(&self, name: &str, default: bool) -> bool {
        match self.text(name) {
            Some("1" | "true" | "TRUE" | "True") => true,
            Some("0" | "false" | "FALSE" | "False") => false,
            _ => default,
        }
    }

    fn number<T: std::str::FromStr + Default>(&self, name: &str) -> T {
        self.text(name).and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    fn resume(&self) -> Option<ResumeAsk> {
        let sid = self.text("sid").map(ParticipantSid::from);
        self.switch("reconnect", false).then(|| ResumeAsk { sid, reason: self.number("reconnect_reason") })
    }

    fn client(&self) -> Client {
        // A description of any length would end up in logs.
        let brief = |name: &str| self.text(name).unwrap_or_default().chars().take(DESCRIPTION_CHARS_MAX).collect();
        let known = |name: &str| Capability::from_str_name(name.trim()).map(|capability| capability as i32);
        Client {
            sdk: brief("sdk"),
            version: brief("version"),
            os: brief("os"),
            os_version: brief("os_version"),
            device_model: brief("device_model"),
            browser: brief("browser"),
            browser_version: brief("browser_version"),
            protocol: self.number("protocol"),
            client_protocol: self.number("client_protocol"),
            capabilities: self
                .text("capabilities")
                .into_iter()
                .flat_map(|all| all.split(','))
                .filter_map(known)
                .collect(),
        }
    }
}

const DESCRIPTION_CHARS_MAX: usize = 64;

fn bearer_token(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

/// base64url, padded or not, of a JSON map of texts.
fn decode_attributes(text: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let engine = GeneralPurpose::new(&URL_SAFE, LENIENT);
    let json = engine.decode(text).map_err(|_| Refusal::BadQuery("attributes"))?;
    serde_json::from_slice(&json).map_err(|_| Refusal::BadQuery("attributes"))
}

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{URL_SAFE as PADDED, URL_SAFE_NO_PAD as UNPADDED};
    use futures_util::FutureExt;
    use plenary_cluster::Bans;
    use plenary_model::Ban;
    use plenary_protocol::token::{Minter, VideoGrant};

    use super::*;
    use crate::config::{Settings, Sources};

    const NOW: u64 = 1_800_000_000;

    fn claims() -> Claims {
        Claims {
            issuer: "devkey".into(),
            subject: Some("ann".into()),
            expires_at: Some(NOW + 60),
            video: VideoGrant { room_join: true, room: "standup".into(), ..VideoGrant::default() },
            ..Claims::default()
        }
    }

    fn join(claims: &Claims, rest: &str) -> Result<JoinAsk, Refusal> {
        let settings = Settings::load(&Sources::default()).unwrap();
        let token = Minter::new(&settings.keys).mint(claims).unwrap();
        let doors = Authorizer::new(&settings, Access::new(&settings));
        at_once(doors.join(None, &format!("access_token={token}{rest}"), NOW))
    }

    /// No keys have to be fetched here.
    fn at_once<T>(verdict: impl Future<Output = T>) -> T {
        verdict.now_or_never().expect("nothing to wait for")
    }

    #[test]
    fn the_query_of_a_browser_is_understood() {
        let rest = "&auto_subscribe=0&sdk=js&version=2.23.0&protocol=17&client_protocol=2&adaptive_stream=1\
                    &browser=Chrome&os=Linux&capabilities=CAP_PACKET_TRAILER,CAP_NOVEL,CAP_COMPRESSION_DEFLATE_RAW";
        let ask = join(&claims(), rest).unwrap();
        assert_eq!((ask.room.as_str(), ask.identity.as_str(), ask.name.as_str()), ("standup", "ann", ""));
        assert!(!ask.auto_subscribe && ask.adaptive_stream && !ask.allow_pause && ask.resume.is_none());
        assert_eq!((ask.client.protocol, ask.client.client_protocol), (17, 2));
        assert_eq!(ask.client.capabilities, [1, 2]);
        assert_eq!((ask.client.sdk.as_str(), ask.client.browser.as_str()), ("js", "Chrome"));
    }

    #[test]
    fn stray_fragments_of_a_query_do_no_harm() {
        let ask = join(&claims(), "&&&sdk=go&&protocol=17&=&novel&protocol=99&").unwrap();
        assert_eq!((ask.client.protocol, ask.client.sdk.as_str()), (17, "go"));
        assert!(ask.auto_subscribe, "subscribing is the default");
        assert_eq!(join(&claims(), "&protocol=-5&client_protocol=x").unwrap().client.protocol, 0);
    }

    #[test]
    fn a_resume_names_its_session_or_relies_on_the_identity() {
        let ask = join(&claims(), "&reconnect=1&sid=PA_abc&reconnect_reason=3").unwrap();
        assert_eq!(ask.resume, Some(ResumeAsk { sid: Some(ParticipantSid::from("PA_abc")), reason: 3 }));
        let ask = join(&claims(), "&reconnect=true").unwrap();
        assert_eq!(ask.resume, Some(ResumeAsk { sid: None, reason: 0 }));
        assert_eq!(join(&claims(), "&reconnect=0&sid=PA_abc").unwrap().resume, None);
    }

    #[test]
    fn the_header_is_taken_before_the_query() {
        let settings = Settings::load(&Sources::default()).unwrap();
        let token = Minter::new(&settings.keys).mint(&claims()).unwrap();
        let doors = Authorizer::new(&settings, Access::new(&settings));
        let join = |header: Option<&str>, query: &str| at_once(doors.join(header, query, NOW));
        assert!(join(Some(&format!("Bearer {token}")), "access_token=nonsense").is_ok());
        assert!(join(Some(&format!("bearer  {token}")), "").is_ok());
        assert!(join(Some("Basic YWxhZGRpbjpvcGVu"), &format!("access_token={token}")).is_ok());
        assert_eq!(join(Some("Bearer "), ""), Err(Refusal::NoToken));
        assert_eq!(join(None, "access_token="), Err(Refusal::NoToken));
        assert_eq!(at_once(doors.bearer(Some("Bearer x"), NOW)), Err(Refusal::Token(TokenError::Malformed)));
    }

    #[test]
    fn every_refusal_has_the_status_that_clients_expect() {
        let video = |change: fn(&mut VideoGrant)| {
            let mut claims = claims();
            change(&mut claims.video);
            claims
        };
        let cases = [
            (video(|grant| grant.room_join = false), "", 401),
            (video(|grant| grant.room.clear()), "", 400),
            (video(|grant| grant.room = "x".repeat(257)), "", 400),
            (video(|grant| grant.room = "a\nb".into()), "", 400),
            (Claims { subject: None, ..claims() }, "", 400),
            (Claims { subject: Some("x".repeat(257)), ..claims() }, "", 400),
            (Claims { name: "x".repeat(257), ..claims() }, "", 400),
            (Claims { expires_at: Some(NOW - 61), ..claims() }, "", 401),
            (claims(), "&attributes=e30", 401),
            (video(|grant| grant.can_update_own_metadata = Some(true)), "&attributes=!", 400),
            (video(|grant| grant.can_update_own_metadata = Some(true)), "&attributes=W10", 400),
            (claims(), "&join_request=abc", 404),
        ];
        for (claims, rest, status) in cases {
            let refusal = join(&claims, rest).unwrap_err();
            assert_eq!(refusal.status(), status, "{refusal} {rest}");
            assert_eq!(refusal.status_code().as_u16(), status);
        }
        assert_eq!(Refusal::RoomNotFound.status(), 404);
        assert_eq!(Refusal::RoomFull.status(), 403);
    }

    #[test]
    fn a_ban_stands_in_every_door_and_against_refreshed_tokens() {
        let settings = Settings::load(&Sources::default()).unwrap();
        let access = Access::new(&settings);
        let doors = Authorizer::new(&settings, access.clone());
        let minter = Minter::new(&settings.keys);
        let verdict = |claims: &Claims| {
            let token = minter.mint(claims).unwrap();
            let join = at_once(doors.join(None, &format!("access_token={token}"), NOW)).map(drop);
            let resume = at_once(doors.join(None, &format!("access_token={token}&reconnect=1"), NOW)).map(drop);
            let call = at_once(doors.bearer(Some(&format!("Bearer {token}")), NOW)).map(drop);
            assert_eq!((&join, &join), (&resume, &call), "one verdict");
            join
        };
        let (mut stored, mut last) = (Bans::default(), None);
        let mut ban = |room: Option<&str>, tokens_before_unix_s| {
            let (identity, room) = (Identity::try_from("ann").unwrap(), room.map(|room| room.try_into().unwrap()));
            if let Some(last) = last.replace(room.clone()) {
                stored.lift(&identity, &last, 0);
            }
            let ban = Ban { identity, room, tokens_before_unix_s, until_unix_s: NOW + 1 };
            stored.set(ban, NOW, 0).unwrap();
            assert_eq!(access.bans.reconcile(stored.entries(NOW), NOW), []);
        };
        ban(Some("standup"), None);
        assert_eq!(verdict(&claims()), Err(Refusal::Banned));
        assert_eq!(verdict(&Claims { subject: Some("bob".into()), ..claims() }), Ok(()));
        ban(Some("another"), None);
        assert_eq!(verdict(&claims()), Ok(()));
        ban(None, None);
        assert_eq!(verdict(&claims()), Err(Refusal::Banned));

        ban(Some("standup"), Some(NOW - 10));
        let issued = |at: u64| Claims { not_before: Some(at), ..claims() };
        assert_eq!(verdict(&issued(NOW - 11)), Err(Refusal::Revoked));
        assert_eq!(verdict(&claims()), Err(Refusal::Revoked), "an age that is not said protects nobody");
        assert_eq!(verdict(&issued(NOW - 10)), Ok(()));
        let refreshed = |at: u64| {
            let token = minter.refresh(&issued(at), NOW).unwrap();
            at_once(doors.join(None, &format!("access_token={token}"), NOW)).map(drop)
        };
        assert_eq!(refreshed(NOW - 11), Err(Refusal::Revoked), "a new token of an old session is an old token");
        assert_eq!(refreshed(NOW - 10), Ok(()));
        assert_eq!((Refusal::Banned.status(), Refusal::Revoked.status()), (403, 403));
    }

    #[test]
    fn attributes_of_the_query_overlay_those_of_the_token() {
        let mut claims = claims();
        claims.attributes = BTreeMap::from([("a".into(), "token".into()), ("b".into(), "token".into())]);
        claims.video.can_update_own_metadata = Some(true);
        for engine in [&PADDED, &UNPADDED] {
            let ask = join(&claims, &format!("&attributes={}", engine.encode(r#"{"a":"query?>"}"#))).unwrap();
            assert_eq!(ask.attributes["a"], "query?>");
            assert_eq!(ask.attributes["b"], "token");
        }
        let large = format!("&attributes={}", UNPADDED.encode(format!(r#"{{"a":"{}"}}"#, "x".repeat(64 << 10))));
        assert_eq!(join(&claims, &large), Err(Refusal::TooLarge("attributes")));
    }
}
