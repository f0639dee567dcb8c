//! The HTTP doors: health, signalling, the room API and the meet page; for operators bans, drains and recordings.
//!
//! They decode, check who asks, and encode. What is asked goes to traits that the node implements, so that every door
//! can be tried without a node behind it. No query string is ever logged: browsers carry their token there.

pub mod admin;
pub mod authorize;
pub mod convert;
pub mod cors;
pub mod dev_token;
pub mod egress;
pub mod health;
mod listen;
pub mod livekit_socket;
mod quirks;
pub mod recordings;
pub mod room_api;
pub mod room_service;
pub mod strangers;
pub mod trace;
pub mod twirp;
pub mod twirp_json;
pub mod validate;
pub mod web;

pub use self::listen::{ListenError, Opened, listen, tcp};

use std::sync::Arc;

use actix_web::{
    App, Error, HttpResponse,
    body::MessageBody,
    dev::{ServiceFactory, ServiceRequest, ServiceResponse},
    guard,
    http::{StatusCode, header},
    middleware::{NormalizePath, TrailingSlash, from_fn},
    web::{self as routes, Data, PayloadConfig, ServiceConfig},
};

use self::{
    authorize::{Access, Authorizer, RoomGate},
    health::Health,
    room_api::RoomApi,
    strangers::Strangers,
};
use crate::{
    config::{Recording, Settings},
    keys::KeyRing,
};

/// What the doors need of the node, and what they keep between requests. Shared by all HTTP threads.
#[derive(Clone)]
pub struct Doors {
    authorizer: Data<Authorizer>,
    strangers: Data<Strangers>,
    keys: Data<KeyRing>,
    rooms: Data<dyn RoomApi>,
    gate: Data<dyn RoomGate>,
    health: Data<dyn Health>,
    recording: Data<Recording>,
    recordings: Data<recordings::Door>,
    http_body_bytes: usize,
}

impl Doors {
    pub fn new<N: RoomApi + RoomGate + Health + 'static>(settings: &Settings, access: Access, node: Arc<N>) -> Self {
        let keys = Data::from(access.keys.clone());
        let authorizer = Data::new(Authorizer::new(settings, access));
        Self {
            keys,
            strangers: Data::new(Strangers::new(&settings.limits, &settings.http.trusted_proxies)),
            rooms: Data::from(node.clone() as Arc<dyn RoomApi>),
            gate: Data::from(node.clone() as Arc<dyn RoomGate>),
            health: Data::from(node as Arc<dyn Health>),
            recording: Data::new(settings.recording.clone()),
            recordings: Data::new(recordings::Door::new(authorizer.clone(), settings.recording.directory.clone())),
            authorizer,
            http_body_bytes: settings.limits.http_body_bytes,
        }
    }

    /// What accepts connections tells it about each.
    pub fn strangers(&self) -> Arc<Strangers> {
        self.strangers.clone().into_inner()
    }

    /// Every route but the signalling socket, which whoever calls this adds.
    pub fn configure(&self, config: &mut ServiceConfig) {
        config
            .app_data(self.authorizer.clone())
            .app_data(self.keys.clone())
            .app_data(self.rooms.clone())
            .app_data(self.gate.clone())
            .app_data(self.health.clone())
            .app_data(self.recording.clone())
            .app_data(PayloadConfig::new(self.http_body_bytes))
            .service(routes::resource("/").route(get_or_head().to(health::root_endpoint)))
            .service(routes::resource("/healthz").route(get_or_head().to(health::alive_endpoint)))
            .service(routes::resource("/readyz").route(get_or_head().to(health::ready_endpoint)))
            .service(routes::resource("/rtc/validate").route(get_or_head().to(validate::validate_endpoint)))
            .service(routes::resource("/dev/token").route(routes::post().to(dev_token::dev_token_endpoint)))
            .configure(room_service::configure)
            .configure(web::configure);
    }

    /// The routes of the private listener.
    pub fn configure_admin(&self, config: &mut ServiceConfig) {
        config
            .app_data(self.authorizer.clone())
            .app_data(self.rooms.clone())
            .app_data(self.recordings.clone())
            .app_data(PayloadConfig::new(admin::BODY_BYTES_MAX))
            .configure(admin::configure)
            .configure(recordings::configure)
            .configure(web::configure_recordings);
    }

    /// The whole application of one HTTP thread; `signalling` adds the socket's route.
    pub fn app<F: FnOnce(&mut ServiceConfig)>(
        &self,
        signalling: F,
    ) -> App<
        impl ServiceFactory<
            ServiceRequest,
            Config = (),
            Response = ServiceResponse<impl MessageBody + use<F>>,
            Error = Error,
            InitError = (),
        > + use<F>,
    > {
        // The last one wrapped is the first one asked: headers for browsers are on every answer, refusals included.
        App::new()
            .app_data(self.strangers.clone())
            .configure(signalling)
            .configure(|config| self.configure(config))
            .default_service(routes::to(not_found_endpoint))
            .wrap(from_fn(strangers::limit))
            .wrap(from_fn(trace::observe))
            // Clients append to a URL that may end in a slash already.
            .wrap(NormalizePath::new(TrailingSlash::MergeOnly))
            .wrap(from_fn(cors::allow_every_origin))
    }
}

impl std::fmt::Debug for Doors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doors").field("http_body_bytes", &self.http_body_bytes).finish_non_exhaustive()
    }
}

fn get_or_head() -> actix_web::Route {
    routes::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// Empty on purpose: what a text says could be taken for the refusal of a room.
async fn not_found_endpoint() -> HttpResponse {
    HttpResponse::NotFound().finish()
}

/// A short text that no cache keeps.
fn plain(status: StatusCode, text: &'static str) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .content_type("text/plain; charset=utf-8")
        .body(text)
}

#[cfg(test)]
mod tests;
