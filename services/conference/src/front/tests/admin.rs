//! The private listener: who may keep whom out of where.

use actix_web::App;

use super::*;

macro_rules! private_doors {
    ($node:expr) => {{
        let doors = Doors::new(&settings(), Access::new(&settings()), $node.clone());
        init_service(App::new().configure(move |config| doors.configure_admin(config))).await
    }};
}

fn post(path: &str, video: VideoGrant, body: Value) -> TestRequest {
    let bearer = (header::AUTHORIZATION, format!("Bearer {}", token(video)));
    TestRequest::post().uri(path).insert_header(bearer).set_json(body)
}

fn every_room() -> VideoGrant {
    VideoGrant { room_admin: true, room_create: true, ..VideoGrant::default() }
}

#[actix_web::test]
async fn bans_are_set_listed_and_lifted() {
    let node = Arc::new(FakeNode::default());
    let app = private_doors!(node);
    let one = json!({ "identity": "ann", "room": "standup", "until": 9 });
    let all = json!({ "identity": "ann", "until": 9 });
    for (request, status) in [
        (post("/admin/v1/ban", admin(), one), 204),
        (post("/admin/v1/ban", every_room(), all), 204),
        (post("/admin/v1/unban", admin(), json!({ "identity": "ann", "room": "standup" })), 204),
    ] {
        assert_eq!(call_service(&app, request.to_request()).await.status().as_u16(), status);
    }
    let bearer = (header::AUTHORIZATION, format!("Bearer {}", token(admin())));
    let list = TestRequest::get().uri("/admin/v1/bans?room=standup").insert_header(bearer);
    let told: Value = read_body_json(call_service(&app, list.to_request()).await).await;
    let expected = json!({ "identity": "ann", "room": "standup", "tokens_issued_before": 7, "until": 9 });
    assert_eq!(told, json!({ "bans": [expected] }));
    let (ann, standup) = (identity("ann"), Some(name("standup")));
    assert_eq!(
        *node.calls.lock().unwrap(),
        [
            RoomCall::Ban { room: standup.clone(), identity: ann.clone(), until_unix_s: 9 },
            RoomCall::Ban { room: None, identity: ann.clone(), until_unix_s: 9 },
            RoomCall::LiftBan { room: standup.clone(), identity: ann },
            RoomCall::ListBans { room: standup },
        ]
    );
}

#[actix_web::test]
async fn a_ban_takes_the_right_over_what_it_closes() {
    let node = Arc::new(FakeNode::default());
    let app = private_doors!(node);
    let everything_but = VideoGrant { room_admin: false, ..everything() };
    let create_alone = VideoGrant { room_create: true, ..VideoGrant::default() };
    let one_room = || json!({ "identity": "ann", "room": "standup", "until": 9 });
    let all_rooms = || json!({ "identity": "ann", "until": 9 });
    let other_room = json!({ "identity": "ann", "room": "other", "until": 9 });
    let no_room = json!({ "identity": "ann", "room": "", "until": 9 });
    let nobody = json!({ "identity": "", "room": "standup", "until": 9 });
    let unsaid = json!({ "identity": "ann", "room": "standup" });
    let misspelt = json!({ "identity": "ann", "rooms": "standup", "until": 9 });
    for (video, body, status, code) in [
        (joiner(), one_room(), 403, "permission_denied"),
        (everything_but, one_room(), 403, "permission_denied"),
        (admin(), all_rooms(), 403, "permission_denied"),
        (create_alone, all_rooms(), 403, "permission_denied"),
        (admin(), other_room, 403, "permission_denied"),
        (every_room(), one_room(), 403, "permission_denied"),
        (VideoGrant { room_admin: true, ..VideoGrant::default() }, no_room, 400, "invalid_argument"),
        (admin(), nobody, 400, "invalid_argument"),
        (admin(), unsaid, 400, "malformed"),
        (admin(), misspelt, 400, "malformed"),
    ] {
        let response = call_service(&app, post("/admin/v1/ban", video, body.clone()).to_request()).await;
        assert_eq!(response.status().as_u16(), status, "{body}");
        assert_eq!(read_body_json::<Value, _>(response).await["code"], code, "{body}");
    }
    let no_token = TestRequest::post().uri("/admin/v1/ban").set_json(one_room());
    assert_eq!(call_service(&app, no_token.to_request()).await.status(), StatusCode::UNAUTHORIZED);
    assert!(node.calls.lock().unwrap().is_empty());

    *node.refuses.lock().unwrap() = Some(ApiError::NoSuchBan);
    let unban = post("/admin/v1/unban", admin(), json!({ "identity": "ann", "room": "standup" }));
    assert_eq!(call_service(&app, unban.to_request()).await.status(), StatusCode::NOT_FOUND);
}

#[actix_web::test]
async fn a_drain_takes_the_right_over_every_room() {
    let node = Arc::new(FakeNode::default());
    let app = private_doors!(node);
    for path in ["/admin/v1/drain", "/admin/v1/undrain"] {
        for (video, status) in [(joiner(), 403), (admin(), 403), (every_room(), 204)] {
            let response = call_service(&app, post(path, video, Value::Null).to_request()).await;
            assert_eq!(response.status().as_u16(), status, "{path}");
        }
        let no_token = TestRequest::post().uri(path).to_request();
        assert_eq!(call_service(&app, no_token).await.status(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(*node.calls.lock().unwrap(), [RoomCall::Drain, RoomCall::Undrain]);
    *node.refuses.lock().unwrap() = Some(ApiError::Alone);
    let drain = post("/admin/v1/drain", every_room(), Value::Null);
    assert_eq!(call_service(&app, drain.to_request()).await.status(), StatusCode::PRECONDITION_FAILED);
}

#[actix_web::test]
async fn the_public_doors_do_not_lead_there() {
    let node = Arc::new(FakeNode::default());
    let app = doors!(node);
    for path in ["/admin/v1/ban", "/admin/v1/unban", "/admin/v1/bans", "/admin/v1/drain", "/admin/v1/undrain"] {
        let body = json!({ "identity": "ann", "until": 9 });
        assert_eq!(
            call_service(&app, post(path, every_room(), body).to_request()).await.status(),
            StatusCode::NOT_FOUND
        );
    }
}
