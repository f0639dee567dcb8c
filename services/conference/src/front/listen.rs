//! Opens the HTTP listener.

use std::{any::Any, net::SocketAddr, sync::Arc, time::Instant};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::{
    App, HttpServer,
    dev::{Extensions, Server, ServerHandle},
    rt::net::TcpStream,
    web::{self, Data},
};

use super::{
    Doors,
    health::{Health, Unready},
    livekit_socket,
    strangers::Strangers,
};
use crate::{
    config::{Listen, Settings},
    edge::ws::SocketHandle,
    events::{AdminOpened, Fault},
    front::authorize::Access,
    node::Shared,
    tls,
};

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("{key}: {address} cannot be used: {error}; choose another address or stop what uses it")]
    Bind { key: &'static str, address: SocketAddr, error: std::io::Error },
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
}

/// What serves now, until the handles, one per listener, stop it.
pub struct Opened {
    pub doors: Vec<ServerHandle>,
    pub http: SocketAddr,
    pub admin: Option<SocketAddr>,
}

/// Binds and serves. Needs a running actix system.
pub fn listen(settings: &Settings, node: Arc<Shared>) -> Result<Opened, ListenError> {
    let access = Access { keys: node.keys.clone(), bans: node.bans.clone() };
    let doors = Doors::new(settings, access, node.clone());
    let private = match settings.admin.bind {
        Listen::Off => None,
        Listen::At(address) => Some(listen_privately(doors.clone(), address)?),
    };
    let strangers = doors.strangers();
    let node = Data::from(node);
    let server = HttpServer::new(move || {
        let node = node.clone();
        doors.app(|config| {
            config.app_data(node).service(web::resource("/rtc").route(web::get().to(livekit_socket::rtc_endpoint)));
        })
    });
    // The node decides when to stop and in which order.
    let server = server
        .disable_signals()
        .shutdown_timeout(GRACE_S)
        .on_connect(move |io, connection| accepted(io, connection, &strangers));

    let address = settings.http.bind;
    let bound = match &settings.http.tls {
        None => server.bind(address),
        Some(files) => server.bind_rustls_0_23(address, tls::server_config(files)?),
    };
    let bound = bound.map_err(|error| ListenError::Bind { key: "http.bind", address, error })?;
    let http = bound.addrs().first().copied().unwrap_or(address);
    let (private, admin) = private.unzip();
    Ok(Opened { doors: [serve(bound.run())].into_iter().chain(private).collect(), http, admin })
}

/// The listener for operators.
fn listen_privately(doors: Doors, address: SocketAddr) -> Result<(ServerHandle, SocketAddr), ListenError> {
    let server = HttpServer::new(move || {
        let doors = doors.clone();
        App::new().configure(move |config| doors.configure_admin(config))
    });
    let server = server.workers(1).disable_signals().shutdown_timeout(GRACE_S);
    let bound = server.bind(address).map_err(|error| ListenError::Bind { key: "admin.bind", address, error })?;
    let address = bound.addrs().first().copied().unwrap_or(address);
    AdminOpened { address }.emit();
    Ok((serve(bound.run()), address))
}

fn serve(running: Server) -> ServerHandle {
    let handle = running.handle();
    actix_web::rt::spawn(async move {
        if let Err(error) = running.await {
            Fault { doing: "serving HTTP", error: &error }.emit();
        }
    });
    handle
}

impl Health for Shared {
    fn unready(&self) -> Option<Unready> {
        Shared::unready(self)
    }
}

/// Keeps with the connection what is needed to count it and to cut it.
fn accepted(io: &dyn Any, connection: &mut Extensions, strangers: &Arc<Strangers>) {
    if let Some(handle) = SocketHandle::of(io) {
        connection.insert(handle);
    }
    if let Some(peer) = tcp(io).and_then(|stream| stream.peer_addr().ok()) {
        connection.insert(strangers.connected(peer.ip(), Instant::now()));
    }
}

/// The TCP connection under whatever was accepted.
pub fn tcp(io: &dyn Any) -> Option<&TcpStream> {
    let under_tls = || io.downcast_ref::<TlsStream<TcpStream>>().map(|stream| stream.get_ref().0);
    io.downcast_ref::<TcpStream>().or_else(under_tls)
}

/// When the doors close, everybody has been told to leave already.
const GRACE_S: u64 = 5;
