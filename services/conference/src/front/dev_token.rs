//! `POST /dev/token`: a token for whoever tries the meet page on their own machine.
//!
//! It exists only while the development key is in use, and answers only this machine: the peer's address must be
//! loopback and no proxy in between, the Host header must name loopback (or a page could reach it by a name that
//! resolves to 127.0.0.1), and so must the Origin, because these doors let every origin read.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderName},
        uri::Authority,
    },
    web::{Data, Json},
};
use plenary_model::{Identity, RoomName};
use plenary_protocol::token::{Claims, DEVELOPMENT_KEY, VideoGrant};
use serde::Deserialize;

use super::{not_found_endpoint, plain};
use crate::{config::Recording, keys::KeyRing, tokens::unix_seconds};

#[derive(Debug, Deserialize)]
pub struct Ask {
    room: String,
    identity: String,
    #[serde(default)]
    name: String,
}

pub async fn dev_token_endpoint(
    request: HttpRequest,
    keys: Data<KeyRing>,
    recording: Data<Recording>,
    ask: Option<Json<Ask>>,
) -> HttpResponse {
    if !keys.is_development() || !is_of_this_machine(&request) {
        return not_found_endpoint().await;
    }
    let Some(Json(ask)) = ask else {
        return plain(StatusCode::BAD_REQUEST, "send {\"room\", \"identity\", \"name\"} as JSON");
    };
    let (Ok(room), Ok(identity)) = (RoomName::try_from(&*ask.room), Identity::try_from(&*ask.identity)) else {
        return plain(StatusCode::BAD_REQUEST, "room and identity have 1 to 256 bytes without control characters");
    };
    let claims = Claims {
        issuer: DEVELOPMENT_KEY.into(),
        subject: Some(identity.to_string()),
        expires_at: Some(unix_seconds().saturating_add(LIFE_S)),
        name: ask.name,
        video: VideoGrant {
            room_join: true,
            room: room.to_string(),
            can_update_own_metadata: Some(true),
            room_record: recording.directory.is_some(),
            ..VideoGrant::default()
        },
        ..Claims::default()
    };
    match keys.mint_for_development(&claims) {
        Some(Ok(token)) => HttpResponse::Ok()
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .json(serde_json::json!({ "token": token, "room": room.as_str() })),
        Some(Err(_)) => plain(StatusCode::BAD_REQUEST, "the name is too long"),
        None => not_found_endpoint().await,
    }
}

fn is_of_this_machine(request: &HttpRequest) -> bool {
    let header = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let from_here = request.peer_addr().is_some_and(|peer| peer.ip().to_canonical().is_loopback());
    let proxied =
        request.headers().contains_key(header::X_FORWARDED_FOR) || request.headers().contains_key(header::FORWARDED);
    let host_is_here = header(header::HOST).is_some_and(names_loopback);
    let origin_is_here = match (request.headers().contains_key(header::ORIGIN), header(header::ORIGIN)) {
        (false, _) => true,
        (true, origin) => {
            origin.and_then(|origin| origin.split_once("://")).is_some_and(|(_, host)| names_loopback(host))
        }
    };
    from_here && !proxied && host_is_here && origin_is_here
}

/// Whether `host[:port]` can only be this machine.
fn names_loopback(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

const LIFE_S: u64 = 6 * 60 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_cannot_be_rebound_are_loopback() {
        for here in ["localhost", "localhost:7880", "LOCALHOST:1", "127.0.0.1:7880", "127.1.2.3", "[::1]:7880", "[::1]"]
        {
            assert!(names_loopback(here), "{here}");
        }
        for elsewhere in [
            "",
            ":7880",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "[::2]:7880",
            "evil.example:80@127.0.0.1",
            "0.0.0.0:7880",
            "localhost/..",
            "foo localhost",
        ] {
            assert!(!names_loopback(elsewhere), "{elsewhere}");
        }
    }
}
