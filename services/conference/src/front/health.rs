//! Is it there, is it alive, does it take people: `/`, `/healthz`, `/readyz`.
//!
//! Liveness asks nobody outside this process: a store that is down must not have nodes restarted.

use std::time::Instant;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web::Data,
};

use super::plain;
use crate::heartbeat;

/// What only the node knows about itself.
pub trait Health: Send + Sync {
    /// Why nobody can be taken now, if so.
    fn unready(&self) -> Option<Unready>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unready {
    Starting,
    /// Too little memory is left for anybody new.
    Overloaded,
    /// Redis does not answer this node, and answers others.
    CutOff,
    /// Its people are leaving: balancers shall send nobody new and keep the sockets there are.
    Leaving,
}

impl Unready {
    /// The one word that probes and refused clients read.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Overloaded => "overloaded",
            Self::CutOff => "cut off",
            Self::Leaving => "leaving",
        }
    }
}

/// LiveKit's SDKs warm up a connection here and ask whether the server is reachable; people come with a browser.
pub async fn root_endpoint(request: HttpRequest) -> HttpResponse {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accept.is_some_and(|types| types.contains("text/html")) {
        return HttpResponse::TemporaryRedirect().insert_header((header::LOCATION, "/meet")).finish();
    }
    plain(StatusCode::OK, "OK")
}

pub async fn alive_endpoint() -> HttpResponse {
    match heartbeat::stalled(Instant::now()) {
        None => plain(StatusCode::OK, "alive"),
        Some(name) => plain(StatusCode::SERVICE_UNAVAILABLE, name),
    }
}

pub async fn ready_endpoint(health: Data<dyn Health>) -> HttpResponse {
    match health.unready() {
        None => plain(StatusCode::OK, "ready"),
        Some(why @ (Unready::Starting | Unready::Overloaded)) => plain(StatusCode::SERVICE_UNAVAILABLE, why.name()),
        // HAProxy's disable-on-404 takes a server out of rotation without cutting its connections.
        Some(why @ (Unready::Leaving | Unready::CutOff)) => plain(StatusCode::NOT_FOUND, why.name()),
    }
}
