//! The private door to what was recorded: who gets in, and that nothing but recordings comes out.

use std::{fs, os::unix::fs::symlink, path::Path};

use actix_web::{
    App,
    body::BoxBody,
    test::{TestRequest, read_body},
};
use tempfile::{TempDir, tempdir};

use super::*;

const PATH: &str = "/admin/v1/recordings";
const FILE: &str = "1-000000000000feed-TR_A-0.webm";
const SESSION: &str = concat!(
    r#"{"at_us":1764000000000000,"event":"started","version":1,"recording":"EG_x","room":"RM_r","room_name":"stand\nup","node":"ND_n"}"#,
    "\n",
    r#"{"at_us":1764000000500000,"event":"track","file":"1-000000000000feed-TR_A-0.webm","participant":"PA_a","source":"camera","codec":"vp8","zero_us":1764000000400000}"#,
    "\n",
    r#"{"at_us":1764000060000000,"event":"stopped","reason":"requested"}"#,
    "\n"
);

/// A recording `EG_x` with one file of a thousand bytes, and beside it what is none of one's business.
fn recorded() -> TempDir {
    let root = tempdir().unwrap();
    let directory = root.path().join("EG_x");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("1-000000000000feed.session.jsonl"), SESSION).unwrap();
    fs::write(directory.join(FILE), (0..1000).map(|index| index as u8).collect::<Vec<_>>()).unwrap();
    fs::write(directory.join("1-000000000000feed-TR_B-0.webm.part"), b"unfinished").unwrap();
    fs::write(root.path().join("secret"), b"secret").unwrap();
    symlink(root.path().join("secret"), directory.join("composed.mp4")).unwrap();
    root
}

macro_rules! private_doors {
    ($directory:expr) => {{
        let mut settings = settings();
        settings.recording.directory = $directory.map(Path::to_owned);
        let doors = Doors::new(&settings, Access::new(&settings), Arc::new(FakeNode::default()));
        init_service(App::new().configure(move |config| doors.configure_admin(config))).await
    }};
}

fn operator() -> VideoGrant {
    VideoGrant { room_admin: true, room_create: true, ..VideoGrant::default() }
}

fn get(path: &str, video: VideoGrant) -> TestRequest {
    TestRequest::get().uri(path).insert_header((header::AUTHORIZATION, format!("Bearer {}", token(video))))
}

fn cookie(response: &ServiceResponse<BoxBody>) -> String {
    let set = response.headers().get(header::SET_COOKIE).unwrap().to_str().unwrap().to_owned();
    for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/admin/v1/recordings"] {
        assert!(set.contains(part), "{set}");
    }
    set.split(';').next().unwrap().to_owned()
}

#[actix_web::test]
async fn whoever_may_ban_everywhere_sees_what_was_recorded() {
    let root = recorded();
    let app = private_doors!(Some(root.path()));
    for (video, status) in [(joiner(), 403), (admin(), 403), (everything(), 200), (operator(), 200)] {
        let file = format!("{PATH}/EG_x/{FILE}");
        for path in [PATH, "/admin/v1/recordings/EG_x", &file] {
            let response = call_service(&app, get(path, video.clone()).to_request()).await;
            assert_eq!(response.status().as_u16(), status, "{path}");
            assert_eq!(value(&response, header::CACHE_CONTROL), "no-store");
            assert_eq!(value(&response, header::X_CONTENT_TYPE_OPTIONS), "nosniff");
            assert_eq!(value(&response, HeaderName::from_static("cross-origin-resource-policy")), "same-origin");
        }
    }
    let listed: Value = read_body_json(call_service(&app, get(PATH, operator()).to_request()).await).await;
    let [one] = &listed["recordings"].as_array().unwrap()[..] else { panic!("{listed}") };
    assert_eq!((&one["id"], &one["room"], &one["tracks"]), (&json!("EG_x"), &json!("stand\nup"), &json!(2)));
    assert_eq!(one["composed"], json!([]), "a link is not what was composed");
    let one: Value =
        read_body_json(call_service(&app, get("/admin/v1/recordings/EG_x", operator()).to_request()).await).await;
    assert_eq!(one["files"][0]["zero_us"], 1_764_000_000_400_000_u64);
    for path in [PATH, "/admin/v1/recordings/EG_x", &format!("{PATH}/EG_x/{FILE}")] {
        let nobody = TestRequest::get().uri(path).to_request();
        assert_eq!(call_service(&app, nobody).await.status(), StatusCode::UNAUTHORIZED);
    }
}

#[actix_web::test]
async fn a_token_opens_a_session_that_the_browser_can_show_instead() {
    let root = recorded();
    let app = private_doors!(Some(root.path()));
    let bearer = |video| (header::AUTHORIZATION, format!("Bearer {}", token(video)));
    let open =
        |video| TestRequest::post().uri("/admin/v1/recordings/session").insert_header(bearer(video)).to_request();
    let refused = call_service(&app, open(admin())).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert!(!refused.headers().contains_key(header::SET_COOKIE));

    let (one, other) = (call_service(&app, open(operator())).await, call_service(&app, open(operator())).await);
    assert_eq!(one.status(), StatusCode::NO_CONTENT);
    let (one, other) = (cookie(&one), cookie(&other));
    assert_ne!(one, other);
    assert!(!one.contains('.'), "the token is no part of it: {one}");
    let show = |cookies: String| {
        TestRequest::get().uri("/admin/v1/recordings/EG_x").insert_header((header::COOKIE, cookies)).to_request()
    };
    assert_eq!(call_service(&app, show(format!("a=b; {one}; c"))).await.status(), StatusCode::OK);
    for wrong in [String::new(), "plenary_recordings=".into(), format!("{one}0"), format!("x{one}"), one.to_uppercase()]
    {
        assert_eq!(call_service(&app, show(wrong.clone())).await.status(), StatusCode::UNAUTHORIZED, "{wrong}");
    }
    for (method, path) in [("GET", "/admin/v1/bans"), ("POST", "/admin/v1/drain"), ("GET", "/admin/v1/node")] {
        let request = TestRequest::with_uri(path).method(method.parse().unwrap());
        let request = request.insert_header((header::COOKIE, one.clone())).to_request();
        assert_eq!(call_service(&app, request).await.status(), StatusCode::UNAUTHORIZED, "{path} takes tokens only");
    }

    let close = TestRequest::delete().uri("/admin/v1/recordings/session").insert_header((header::COOKIE, one.clone()));
    let closed = call_service(&app, close.to_request()).await;
    assert_eq!(cookie(&closed), "plenary_recordings=");
    assert_eq!(call_service(&app, show(one)).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(call_service(&app, show(other)).await.status(), StatusCode::OK);
}

#[actix_web::test]
async fn what_ends_the_token_ends_its_session() {
    let root = recorded();
    let mut settings = settings();
    settings.recording.directory = Some(root.path().to_owned());
    let access = Access::new(&settings);
    let doors = Doors::new(&settings, access.clone(), Arc::new(FakeNode::default()));
    let app = init_service(App::new().configure(move |config| doors.configure_admin(config))).await;
    let bearer = (header::AUTHORIZATION, format!("Bearer {}", token(operator())));
    let open = TestRequest::post().uri("/admin/v1/recordings/session").insert_header(bearer).to_request();
    let cookie = cookie(&call_service(&app, open).await);
    let show = || TestRequest::get().uri(PATH).insert_header((header::COOKIE, cookie.clone())).to_request();
    assert_eq!(call_service(&app, show()).await.status(), StatusCode::OK);
    let (now, mut bans) = (unix_seconds(), plenary_cluster::Bans::default());
    let ban = Ban { identity: identity("ann"), room: None, tokens_before_unix_s: None, until_unix_s: now + 60 };
    bans.set(ban, now, 0).unwrap();
    access.bans.reconcile(bans.entries(now), now);
    assert_eq!(call_service(&app, show()).await.status(), StatusCode::FORBIDDEN);
}

#[actix_web::test]
async fn a_file_comes_in_the_parts_that_are_asked_for() {
    let root = recorded();
    let app = private_doors!(Some(root.path()));
    let path = format!("{PATH}/EG_x/{FILE}");
    let whole = call_service(&app, get(&path, operator()).to_request()).await;
    assert_eq!(value(&whole, header::CONTENT_TYPE), "video/webm");
    assert_eq!(value(&whole, header::ACCEPT_RANGES), "bytes");
    let tag = value(&whole, header::ETAG).to_owned();
    assert_eq!(read_body(whole).await.len(), 1000);
    let part = |range: &str, if_range: &str| {
        let request = get(&path, operator()).insert_header((header::RANGE, range.to_owned()));
        request.insert_header((header::IF_RANGE, if_range.to_owned())).to_request()
    };
    for (range, said, first, bytes) in [
        ("bytes=0-9", "bytes 0-9/1000", 0_u8, 10),
        ("bytes=990-", "bytes 990-999/1000", 222, 10),
        ("bytes=-1", "bytes 999-999/1000", 231, 1),
        ("bytes=500-100000", "bytes 500-999/1000", 244, 500),
    ] {
        let response = call_service(&app, part(range, &tag)).await;
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(value(&response, header::CONTENT_RANGE), said);
        let body = read_body(response).await;
        assert_eq!((body[0], body.len()), (first, bytes), "{range}");
    }
    for range in ["bytes=1000-", "bytes=9-5", "bytes=a-b"] {
        let response = call_service(&app, part(range, &tag)).await;
        assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE, "{range}");
    }
    let changed = call_service(&app, part("bytes=0-9", "\"another\"")).await;
    assert_eq!(changed.status(), StatusCode::OK, "the file is another one than the rest that they have");
}

#[actix_web::test]
async fn nothing_but_complete_files_of_recordings_is_served() {
    let root = recorded();
    let app = private_doors!(Some(root.path()));
    for (recording, file) in [
        ("EG_x", "1-000000000000feed-TR_B-0.webm.part"),
        ("EG_x", "1-000000000000feed-TR_B-0.webm"),
        ("EG_x", "1-000000000000feed.session.jsonl"),
        ("EG_x", "composed.mp4"),
        ("EG_x", "composed.webm"),
        ("EG_x", "%2e%2e%2fsecret"),
        ("EG_x", "..%2fsecret"),
        ("EG_x", "..%5csecret"),
        ("EG_x", "%00"),
        ("EG_x", "%ff"),
        ("EG_x%2f..", "secret"),
        ("%2e%2e", "secret"),
        ("..", "secret"),
        (".", "secret"),
        ("EG_none", FILE),
        ("EG_x%00", FILE),
        ("eg_x", FILE),
        ("", "secret"),
    ] {
        let path = format!("{PATH}/{recording}/{file}");
        let response = call_service(&app, get(&path, operator()).to_request()).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        let body = read_body(response).await;
        assert!(!body.windows(6).any(|bytes| bytes == b"secret"), "{path}");
    }
    for path in ["EG_none", "..", "%2e%2e", "secret", "EG_x%2f"] {
        let response = call_service(&app, get(&format!("{PATH}/{path}"), operator()).to_request()).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

#[actix_web::test]
async fn without_a_directory_it_says_so() {
    let app = private_doors!(None::<&Path>);
    let response = call_service(&app, get(PATH, operator()).to_request()).await;
    assert_eq!(response.status(), StatusCode::PRECONDITION_FAILED);
    let app = private_doors!(Some(Path::new("/nowhere/at/all")));
    let response = call_service(&app, get(PATH, operator()).to_request()).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!String::from_utf8_lossy(&read_body(response).await).contains("nowhere"), "paths are for the log");
}

#[actix_web::test]
async fn the_recordings_page_is_served_strictly_and_privately() {
    let app = private_doors!(None::<&Path>);
    for uri in ["/recordings", "/recordings/"] {
        let response = call_service(&app, TestRequest::get().uri(uri).to_request()).await;
        assert_eq!(response.status(), StatusCode::OK, "{uri}");
        let policy = value(&response, header::CONTENT_SECURITY_POLICY);
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"));
        assert!(policy.contains("frame-ancestors 'none'") && policy.contains("form-action 'none'"));
        let page = String::from_utf8(read_body(response).await.to_vec()).unwrap();
        for file in page.split('"').filter(|text| text.starts_with("/web/")) {
            let response = call_service(&app, TestRequest::get().uri(file).to_request()).await;
            assert_eq!(response.status(), StatusCode::OK, "{file}");
        }
    }
    let node = Arc::new(FakeNode::default());
    let public = doors!(node);
    for uri in [PATH, "/admin/v1/recordings/session", "/recordings", "/web/style.css", "/meet/recordings/index.html"] {
        let response = call_service(&public, get(uri, operator()).to_request()).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{uri}");
    }
}
