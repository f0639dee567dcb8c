//! What was recorded, for whoever operates the service: a list, what is known of one recording, and its files.
//!
//! It takes the grants of a ban of every room. A browser's `<video>` sends no `Authorization` header, and a token in a URL would
//! end up in logs and histories; so a token opens a session, whose name is the cookie. The cookie opens nothing but what can
//! be looked at here, no script can read it, no other site can have it sent, and no other server understands it (cookies
//! ignore ports). The token stays here and is judged again for each request: what ends the token ends the session.
//!
//! A request names a recording and a file by ids that are parsed (`recording::shelf`); no path is made of anything else.

mod told;

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use actix_files::NamedFile;
use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderName, HeaderValue},
    middleware::DefaultHeaders,
    web::{self, Data, Path, ServiceConfig},
};

use super::{
    admin::{answer, scope},
    authorize::{Authorizer, authorization},
    twirp::{Code, TwirpError},
};
use crate::{
    events::{RecordingsOpened, RecordingsUnusable},
    ids,
    recording::shelf,
    tokens::unix_seconds,
};

pub fn configure(config: &mut ServiceConfig) {
    let headers = DefaultHeaders::new()
        .add((header::CACHE_CONTROL, "no-store"))
        .add((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .add((header::REFERRER_POLICY, "no-referrer"))
        // Pages of other servers on this host count as the same site, and could show a film by its address.
        .add((HeaderName::from_static("cross-origin-resource-policy"), "same-origin"));
    config.service(
        web::scope(PATH)
            .wrap(headers)
            .service(web::resource("").route(web::get().to(list_endpoint)))
            .service(
                web::resource("/session").route(web::post().to(open_endpoint)).route(web::delete().to(close_endpoint)),
            )
            .service(web::resource("/{recording}").route(web::get().to(one_endpoint)))
            .service(web::resource("/{recording}/{file}").route(super::get_or_head().to(file_endpoint))),
    );
}

/// Where the recordings are, and who may look at them.
#[derive(Debug)]
pub struct Door {
    authorizer: Data<Authorizer>,
    directory: Option<PathBuf>,
    sessions: Sessions,
}

impl Door {
    pub fn new(authorizer: Data<Authorizer>, directory: Option<PathBuf>) -> Self {
        Self { authorizer, directory, sessions: Sessions::default() }
    }

    /// The directory, for whoever may look: by a token, or by the session that one opened.
    async fn root(&self, request: &HttpRequest) -> Result<PathBuf, TwirpError> {
        let now = unix_seconds();
        let of_session = || self.sessions.authorization(session_name(request)?, now);
        let claims = match authorization(request) {
            Some(own) => self.authorizer.bearer(Some(own), now).await?,
            None => self.authorizer.bearer(of_session().as_deref(), now).await?,
        };
        scope(&claims, None)?;
        self.directory.clone().ok_or_else(|| {
            TwirpError::new(Code::FailedPrecondition, "this node records nothing: recording.directory is not set")
        })
    }
}

/// By the cookie's value. They are of this process and forgotten with it.
#[derive(Debug, Default)]
struct Sessions(Mutex<BTreeMap<String, Session>>);

struct Session {
    /// The header with the token that opened it.
    authorization: String,
    until_unix_s: u64,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("until_unix_s", &self.until_unix_s).finish_non_exhaustive()
    }
}

impl Sessions {
    /// Gives the cookie's value.
    fn open(&self, authorization: String, now_unix_s: u64) -> String {
        let name: String = ids::random::<32>().iter().map(|byte| format!("{byte:02x}")).collect();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, session| now_unix_s < session.until_unix_s);
        if all.len() >= SESSIONS_MAX
            && let Some(oldest) =
                all.iter().min_by_key(|(_, session)| session.until_unix_s).map(|(name, _)| name.clone())
        {
            all.remove(&oldest);
        }
        all.insert(name.clone(), Session { authorization, until_unix_s: now_unix_s.saturating_add(SESSION_LIFE_S) });
        name
    }

    fn authorization(&self, name: &str, now_unix_s: u64) -> Option<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(name).filter(|session| now_unix_s < session.until_unix_s).map(|session| session.authorization.clone())
    }

    fn close(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

async fn open_endpoint(request: HttpRequest, door: Data<Door>) -> HttpResponse {
    answer(async {
        let now = unix_seconds();
        let claims = door.authorizer.bearer(authorization(&request), now).await?;
        scope(&claims, None)?;
        let name = door.sessions.open(authorization(&request).unwrap_or_default().to_owned(), now);
        RecordingsOpened { by: &claims.issuer }.emit();
        Ok(HttpResponse::NoContent().insert_header((header::SET_COOKIE, cookie(&request, &name, ""))).finish())
    })
    .await
}

async fn close_endpoint(request: HttpRequest, door: Data<Door>) -> HttpResponse {
    if let Some(name) = session_name(&request) {
        door.sessions.close(name);
    }
    HttpResponse::NoContent().insert_header((header::SET_COOKIE, cookie(&request, "", "; Max-Age=0"))).finish()
}

async fn list_endpoint(request: HttpRequest, door: Data<Door>) -> HttpResponse {
    answer(async {
        let root = door.root(&request).await?;
        let list = move || {
            let listed = shelf::list(&root)?.into_iter();
            let with_videos = listed.map(|one| {
                let composed = shelf::composed(&root, &one.id);
                (one, composed)
            });
            Ok(told::list(&with_videos.collect::<Vec<_>>()))
        };
        let told = look(&door, list).await?;
        Ok(HttpResponse::Ok().json(told))
    })
    .await
}

async fn one_endpoint(request: HttpRequest, recording: Path<String>, door: Data<Door>) -> HttpResponse {
    answer(async {
        let root = door.root(&request).await?;
        let one = move || {
            let found = shelf::look(&root, &recording)?;
            let composed = shelf::composed(&root, &recording);
            Ok(found.map(|(listed, session)| told::one(&listed, session.as_ref(), &composed)))
        };
        let told = look(&door, one).await?.ok_or_else(|| not_found("no such recording"))?;
        Ok(HttpResponse::Ok().json(told))
    })
    .await
}

async fn file_endpoint(request: HttpRequest, names: Path<(String, String)>, door: Data<Door>) -> HttpResponse {
    answer(async {
        let root = door.root(&request).await?;
        let (recording, name) = names.into_inner();
        let open = move || {
            let file = shelf::open_complete(&root, &recording, &name)?;
            file.map(|(file, name)| NamedFile::from_file(file, name)).transpose()
        };
        let file = look(&door, open).await?.ok_or_else(|| not_found("no such file, or it is not complete yet"))?;
        Ok(file.into_response(&request))
    })
    .await
}

/// Looks on the disk, on a thread that may wait for it.
async fn look<T: Send + 'static>(
    door: &Door,
    what: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, TwirpError> {
    let looked = web::block(what).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    looked.map_err(|error| {
        if let Some(directory) = &door.directory {
            RecordingsUnusable { directory, error: &error }.emit();
        }
        TwirpError::new(Code::Internal, "the recordings cannot be read")
    })
}

fn not_found(what: &'static str) -> TwirpError {
    TwirpError::new(Code::NotFound, what)
}

fn session_name(request: &HttpRequest) -> Option<&str> {
    let cookies = request.headers().get_all(header::COOKIE).filter_map(|value| value.to_str().ok());
    let mut named = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    named.find_map(|(name, value)| (name == COOKIE).then_some(value))
}

/// Gone with the browser at the latest.
fn cookie(request: &HttpRequest, value: &str, more: &str) -> HeaderValue {
    let secure = if request.connection_info().scheme() == "https" { "; Secure" } else { "" };
    let text = format!("{COOKIE}={value}; Path={PATH}; HttpOnly; SameSite=Strict{secure}{more}");
    HeaderValue::try_from(text).expect("made of letters and digits")
}

const PATH: &str = "/admin/v1/recordings";
const COOKIE: &str = "plenary_recordings";
/// A working day; the token may end it sooner.
const SESSION_LIFE_S: u64 = 8 * 60 * 60;
/// The one that began first goes.
const SESSIONS_MAX: usize = 100;
