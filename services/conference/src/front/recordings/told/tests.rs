use plenary_recording::session_file::{Epoch, Session, SessionFile, merge};
use serde_json::{Value, json};

use super::*;
use crate::recording::shelf::{State, Summary};

const ANN: &str = r#""participant":"PA_ann","identity":"ann","name":"Ann""#;

/// A session of one node after another, each with these lines after its first.
fn session(epochs: &[(u64, &[&str])]) -> Session {
    let file = |(number, (at_us, lines)): (usize, &(u64, &[&str]))| {
        let epoch = Epoch { number: number as u64 + 1, boot: 0xFEED };
        let started = format!(
            r#"{{"at_us":{at_us},"event":"started","version":1,"recording":"EG_x","room":"RM_r","room_name":"standup","node":"ND_n"}}"#
        );
        let text = [&[started.as_str()], *lines].concat().join("\n") + "\n";
        SessionFile::read(epoch, text.as_bytes()).unwrap()
    };
    merge(epochs.iter().enumerate().map(file).collect()).unwrap()
}

fn told(session: &Session, files: &[(&str, u64)]) -> Value {
    told_with(session, files, &Composed::default())
}

fn told_with(session: &Session, files: &[(&str, u64)], composed: &Composed) -> Value {
    let listed = Listed {
        id: "EG_x".into(),
        state: State::Interrupted,
        session: Some(Summary { room_name: "standup".into(), began_us: 1_000, duration: Default::default() }),
        files: files.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect(),
        elsewhere: vec![Some("ND_m".into()), None],
    };
    one(&listed, Some(session), composed)
}

#[test]
fn who_was_there_and_what_each_file_lacks_is_told() {
    const FILE: &str = "1-000000000000feed-TR_A-0.webm";
    let track = format!(
        r#"{{"at_us":2000,"event":"track","file":"{FILE}","participant":"PA_ann","source":"screen_share","codec":"vp8","zero_us":2500}}"#
    );
    let gap =
        format!(r#"{{"at_us":3000,"event":"gap","file":"{FILE}","from_us":200,"until_us":300,"reason":"overrun"}}"#);
    let end = format!(r#"{{"at_us":5000,"event":"track_ended","file":"{FILE}","reason":"unpublished"}}"#);
    let came = format!(r#"{{"at_us":1500,"event":"participant",{ANN}}}"#);
    let session = session(&[(
        1_000,
        &[
            &came,
            &track,
            &gap,
            r#"{"at_us":3100,"event":"mute","track":"TR_A","muted":true}"#,
            r#"{"at_us":3900,"event":"chat","id":"1","participant":"PA_ann","text":"<b>hi</b>"}"#,
            r#"{"at_us":3950,"event":"chat","id":"2","participant":"","text":"from the server"}"#,
            r#"{"at_us":4000,"event":"mute","track":"TR_A","muted":false}"#,
            &end,
            r#"{"at_us":6000,"event":"participant_left","participant":"PA_ann"}"#,
        ],
    )]);
    let told = told(&session, &[(FILE, 7), ("1-000000000000feed-TR_B-0.webm.part", 8)]);
    assert_eq!(
        told["people"],
        json!([{ "identity": "ann", "name": "Ann", "stays": [{ "from_us": 1500, "until_us": 6000 }] }])
    );
    assert_eq!(
        told["files"],
        json!([{
            "file": FILE, "state": "complete", "bytes": 7, "identity": "ann", "name": "Ann",
            "source": "screen_share", "codec": "vp8", "zero_us": 2500, "ended_us": 5000, "end": "unpublished",
            "gaps": [{ "from_us": 200, "until_us": 300, "reason": "overrun" }],
            "muted": [{ "from_us": 3100, "until_us": 4000 }],
        }])
    );
    assert_eq!(told["chat"][0], json!({ "at_us": 3900, "identity": "ann", "name": "Ann", "text": "<b>hi</b>" }));
    assert_eq!((&told["chat"][1]["name"], &told["chat"][1]["identity"]), (&json!(""), &json!("")));
    assert_eq!((&told["tracks"], &told["bytes"], &told["left_out"]), (&json!(2), &json!(15), &json!(0)));
    assert_eq!(told["strays"], json!(["1-000000000000feed-TR_B-0.webm.part"]));
}

#[test]
fn a_file_that_is_written_or_lost_is_told_as_such() {
    let track = |name: &str| {
        format!(
            r#"{{"at_us":2000,"event":"track","file":"{name}","participant":"PA_x","source":"camera","codec":"h264","zero_us":1}}"#
        )
    };
    let (one, other) = ("1-000000000000feed-TR_A-0.mkv", "1-000000000000feed-TR_B-0.mkv");
    let session = session(&[(1_000, &[&track(one), &track(other)])]);
    let told = told(&session, &[("1-000000000000feed-TR_A-0.mkv.part", 7)]);
    let states: Vec<_> = told["files"].as_array().unwrap().iter().map(|file| &file["state"]).collect();
    assert_eq!(states, ["unfinished", "missing"]);
    assert_eq!(told["files"][0]["name"], "", "nobody said who it was");
}

#[test]
fn what_another_node_says_anew_goes_on_and_the_rest_ends() {
    let ann = |at_us: u64, sid: &str| {
        format!(r#"{{"at_us":{at_us},"event":"participant","participant":"{sid}","identity":"ann","name":"Ann"}}"#)
    };
    let bob = r#"{"at_us":1200,"event":"participant","participant":"PA_bob","identity":"bob","name":"Bob"}"#;
    let muted = r#"{"at_us":1300,"event":"mute","track":"TR_A","muted":true}"#;
    let session = session(&[
        (1_000, &[&ann(1_100, "PA_1"), bob, muted]),
        (5_000_000, &[&ann(5_100_000, "PA_1")]),
        (60_000_000, &[&ann(70_000_000, "PA_2")]),
    ]);
    let told = told(&session, &[]);
    assert_eq!(
        told["people"],
        json!([
            { "identity": "ann", "name": "Ann", "stays": [
                { "from_us": 1_100, "until_us": 60_000_000 }, { "from_us": 70_000_000, "until_us": null },
            ] },
            { "identity": "bob", "name": "Bob", "stays": [{ "from_us": 1_200, "until_us": 5_000_000 }] },
        ])
    );
    assert_eq!(told["epochs"], 3);
}

#[test]
fn more_than_is_told_is_counted() {
    let text = "x".repeat(200 << 10);
    let chat: Vec<_> = (0..50)
        .map(|number| {
            format!(r#"{{"at_us":{},"event":"chat","id":"{number}","participant":"","text":"{text}"}}"#, 2_000 + number)
        })
        .collect();
    let people: Vec<_> = (0..PEOPLE_MAX + 3)
        .map(|number| {
            format!(
                r#"{{"at_us":3000,"event":"participant","participant":"PA_{number}","identity":"{number}","name":""}}"#
            )
        })
        .collect();
    let lines: Vec<_> = chat.iter().chain(&people).map(String::as_str).collect();
    let told = told(&session(&[(1_000, &lines)]), &[]);
    let told_chat = told["chat"].as_array().unwrap().len();
    assert!(told_chat * text.len() <= CHAT_BYTES_MAX && told_chat >= 40, "{told_chat}");
    assert_eq!(told["people"].as_array().unwrap().len(), PEOPLE_MAX);
    assert_eq!(told["left_out"], json!(50 - told_chat + 3));
}

#[test]
fn what_was_composed_is_told_by_the_name_that_opens_it() {
    let video = Video { name: "rendered-0".into(), file_name: "standup.mp4".into(), bytes: 9 };
    let composed = Composed { videos: vec![video], is_awaited: true };
    let told = told_with(&session(&[(1_000, &[])]), &[], &composed);
    assert_eq!(told["composed"], json!([{ "file": "rendered-0", "name": "standup.mp4", "bytes": 9 }]));
    assert_eq!(told["elsewhere"], json!(["ND_m", null]));
    assert_eq!((&told["composing"], &told["bytes"], &told["tracks"]), (&json!(true), &json!(9), &json!(0)));
}
