//! The scrape page, on a listener of its own: it is for the operator, not for clients.

use std::net::{SocketAddr, TcpListener};

use actix_web::{App, HttpResponse, HttpServer, dev::Server, web};
use prometheus::{Encoder, Registry, TextEncoder};

/// Where it listens, and the server to be spawned. It binds at once, so that a taken port is an error at the start.
pub fn scrape_server(bind: SocketAddr, registry: &Registry) -> std::io::Result<(SocketAddr, Server)> {
    let listener = TcpListener::bind(bind)?;
    let address = listener.local_addr()?;
    let registry = web::Data::new(registry.clone());
    let server = HttpServer::new(move || {
        App::new().app_data(registry.clone()).route("/metrics", web::get().to(scrape_endpoint))
    });
    let server = server.workers(1).disable_signals().listen(listener)?.run();
    Ok((address, server))
}

async fn scrape_endpoint(registry: web::Data<Registry>) -> HttpResponse {
    let mut page = Vec::new();
    match TextEncoder::new().encode(&registry.gather(), &mut page) {
        Ok(()) => HttpResponse::Ok().content_type(prometheus::TEXT_FORMAT).body(page),
        Err(error) => {
            tracing::warn!(%error, "metrics could not be written");
            HttpResponse::InternalServerError().finish()
        }
    }
}
