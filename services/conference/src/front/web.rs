//! The meet page and, for operators, the recordings page, out of the binary. No path of the file system is ever made from
//! a request.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, EntityTag, Header, IfNoneMatch},
    middleware::{Compress, DefaultHeaders},
    web::{self as routes, Path, ServiceConfig},
};
use rust_embed::{EmbeddedFile, RustEmbed};

/// Only what a browser loads; notes and tools in the folder stay out.
#[derive(RustEmbed)]
#[folder = "web/"]
#[include = "*.html"]
#[include = "*.css"]
#[include = "*.js"]
#[include = "*.mjs"]
#[include = "*.svg"]
#[include = "*.png"]
#[include = "*.ico"]
#[include = "*.webmanifest"]
struct Page;

pub fn configure(config: &mut ServiceConfig) {
    config.service(
        routes::scope("/meet")
            .wrap(Compress::default())
            .wrap(headers(POLICY, PERMISSIONS))
            .route("", super::get_or_head().to(index_endpoint))
            .route("/", super::get_or_head().to(index_endpoint))
            .route("/{file:.+}", super::get_or_head().to(file_endpoint)),
    );
}

/// The recordings page. It shares its looks with the meet page, so all of both is under `/web`.
pub fn configure_recordings(config: &mut ServiceConfig) {
    let index = || super::get_or_head().to(recordings_endpoint);
    config.service(
        routes::scope("/recordings")
            .wrap(Compress::default())
            .wrap(headers(RECORDINGS_POLICY, RECORDINGS_PERMISSIONS))
            .route("", index())
            .route("/", index()),
    );
    config.service(
        routes::scope("/web")
            .wrap(Compress::default())
            .wrap(headers(RECORDINGS_POLICY, RECORDINGS_PERMISSIONS))
            .route("/{file:.+}", super::get_or_head().to(any_file_endpoint)),
    );
}

fn headers(policy: &'static str, permissions: &'static str) -> DefaultHeaders {
    DefaultHeaders::new()
        .add((header::CONTENT_SECURITY_POLICY, policy))
        .add((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .add((header::REFERRER_POLICY, "no-referrer"))
        .add((header::HeaderName::from_static("permissions-policy"), permissions))
}

async fn index_endpoint(request: HttpRequest) -> HttpResponse {
    serve(&request, "index.html")
}

async fn file_endpoint(request: HttpRequest, file: Path<String>) -> HttpResponse {
    // Where that page leads is not here.
    if file.starts_with(RECORDINGS) {
        return HttpResponse::NotFound().finish();
    }
    serve(&request, &file)
}

async fn any_file_endpoint(request: HttpRequest, file: Path<String>) -> HttpResponse {
    serve(&request, &file)
}

async fn recordings_endpoint(request: HttpRequest) -> HttpResponse {
    serve(&request, "recordings/index.html")
}

fn serve(request: &HttpRequest, name: &str) -> HttpResponse {
    let Some(EmbeddedFile { data, metadata }) = Page::get(name) else {
        return HttpResponse::NotFound().finish();
    };
    // Weak, because the same file goes out compressed or not.
    let digest: String = metadata.sha256_hash().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let tag = EntityTag::new_weak(digest);
    let unchanged = match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Items(known)) => known.iter().any(|one| one.weak_eq(&tag)),
        Ok(IfNoneMatch::Any) | Err(_) => false,
    };
    let mut answer = if unchanged { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    // Names of files do not change with their contents, so a browser asks each time and is told "the same".
    answer.insert_header((header::ETAG, tag)).insert_header((header::CACHE_CONTROL, "no-cache"));
    if unchanged {
        return answer.finish();
    }
    let kind = metadata.mimetype();
    let text = kind.starts_with("text/") || kind.ends_with("javascript");
    let kind = if text { format!("{kind}; charset=utf-8") } else { kind.to_owned() };
    answer.content_type(kind).body(data.into_owned())
}

/// Nothing inline, nothing foreign but signalling, which may be on another host.
const POLICY: &str = "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data: blob:; \
                      media-src 'self' blob: mediastream:; style-src 'self'; script-src 'self'; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const RECORDINGS: &str = "recordings/";

/// Its forms are sent by script.
const RECORDINGS_POLICY: &str = "default-src 'none'; connect-src 'self'; img-src 'self'; media-src 'self'; \
                                 style-src 'self'; script-src 'self'; frame-ancestors 'none'; base-uri 'none'; \
                                 form-action 'none'";

const RECORDINGS_PERMISSIONS: &str = "camera=(), microphone=(), display-capture=(), fullscreen=(self), autoplay=(self), \
                                      geolocation=(), payment=(), usb=()";

const PERMISSIONS: &str = "camera=(self), microphone=(self), display-capture=(self), fullscreen=(self), autoplay=(self), \
                           speaker-selection=(self), screen-wake-lock=(self), geolocation=(), payment=(), usb=()";
