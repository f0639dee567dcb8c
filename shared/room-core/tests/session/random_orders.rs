//! Whatever the order of events, what the wire promises holds.

use std::time::Duration;

use bytes::Bytes;
use plenary_model::*;
use plenary_room_core::{
    notice::{Notice, Request},
    session::{Input, MediaCommand, MediaEvent, Output},
    signal::{About, AddTrack, ClientSignal, Scenario, ServerSignal, SyncState},
};
use proptest::prelude::*;

use crate::driver::*;

#[derive(Debug, Clone)]
enum Step {
    AddTrack(u8),
    Offer,
    Answered { publish: bool },
    OfferNeeded,
    Offered,
    Answer { stale: bool },
    Accepted,
    Connected,
    SocketLost,
    Resumed,
    Metadata(u32),
    Somebody(u8),
    SomebodyGone(u8),
    Subscribe(u8, bool),
    Undecodable(u8, bool),
    BackupWanted,
    AddBackup,
    Demand(bool, Option<u8>),
    Permission { publish: bool, subscribe: bool },
    Data,
    Sync,
    Simulate(u8),
    TransportClosed,
    Move,
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<u8>().prop_map(|cid| Step::AddTrack(cid % 30)),
        Just(Step::Offer),
        any::<bool>().prop_map(|publish| Step::Answered { publish }),
        Just(Step::OfferNeeded),
        Just(Step::Offered),
        any::<bool>().prop_map(|stale| Step::Answer { stale }),
        Just(Step::Accepted),
        Just(Step::Connected),
        Just(Step::SocketLost),
        Just(Step::Resumed),
        (1..u32::MAX).prop_map(Step::Metadata),
        any::<u8>().prop_map(|who| Step::Somebody(who % 4)),
        any::<u8>().prop_map(|who| Step::SomebodyGone(who % 4)),
        (any::<u8>(), any::<bool>()).prop_map(|(who, on)| Step::Subscribe(who % 4, on)),
        (any::<u8>(), any::<bool>()).prop_map(|(who, backup)| Step::Undecodable(who % 4, backup)),
        Just(Step::BackupWanted),
        Just(Step::AddBackup),
        (any::<bool>(), prop::option::of(0..3u8)).prop_map(|(backup, top)| Step::Demand(backup, top)),
        (any::<bool>(), any::<bool>()).prop_map(|(publish, subscribe)| Step::Permission { publish, subscribe }),
        Just(Step::Data),
        Just(Step::Sync),
        (0..6u8).prop_map(Step::Simulate),
        Just(Step::TransportClosed),
        Just(Step::Move),
        (0..3000u16).prop_map(Step::Wait),
    ]
}

/// What the client and the media router have seen so far.
#[derive(Default)]
struct Seen {
    live: bool,
    fresh: bool,
    making: usize,
    out: usize,
    ended: bool,
}

fn check(driver: &mut Driver, seen: &mut Seen, expected_answer: Option<&dyn Fn(&ServerSignal) -> bool>) {
    let outputs = driver.take();
    let mut answered = expected_answer.is_none();
    for output in &outputs {
        assert!(!seen.ended, "{output:?} after the end");
        match output {
            Output::Send(signal) => {
                assert!(seen.live, "{signal:?} to nobody");
                let leave = matches!(signal, ServerSignal::Leave { .. });
                if std::mem::take(&mut seen.fresh) {
                    assert!(
                        leave || matches!(signal, ServerSignal::Reconnect { .. } | ServerSignal::Join(_)),
                        "{signal:?}"
                    );
                }
                answered |= leave || expected_answer.is_some_and(|expected| expected(signal));
            }
            Output::Media(MediaCommand::Want { tracks }) => {
                let names: std::collections::HashSet<_> = tracks.iter().map(|one| &one.shown).collect();
                assert_eq!(names.len(), tracks.len(), "a track is received in one codec at a time");
            }
            Output::Ask(Request::Publish { tracks }) => {
                assert!(tracks.iter().all(|track| !track.mime.is_empty()), "nobody hears of what has no section");
            }
            Output::Media(MediaCommand::MakeOffer { .. }) => seen.making += 1,
            Output::CloseSocket(_) => {
                assert!(std::mem::take(&mut seen.live), "closed twice");
                answered = true;
            }
            Output::End(_) => {
                assert!(!seen.live, "ended without closing the socket");
                seen.ended = true;
            }
            _ => {}
        }
    }
    let offers = outputs.iter().filter(|one| matches!(one, Output::Send(ServerSignal::Offer { .. }))).count();
    seen.out += offers;
    assert!(seen.out <= 1, "two offers are out");
    assert!(answered, "a request of the client was not answered: {outputs:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold_in_any_order(steps in prop::collection::vec(step(), 1..80)) {
        let mut driver = Driver::joined();
        let mut seen = Seen { live: true, fresh: true, ..Seen::default() };
        check(&mut driver, &mut seen, None);
        let mut announced: Vec<(TrackSid, String)> = Vec::new();
        let newest = |announced: &[(TrackSid, String)]| announced.last().map_or("TR_none".into(), |(sid, _)| sid.clone());
        let engine = |sid: &TrackSid, backup: bool| if backup { sid.backup() } else { sid.clone() };
        for step in steps {
            if seen.ended {
                break;
            }
            let live = seen.live;
            match step {
                Step::AddTrack(cid) if live => {
                    let cid = format!("c{cid}");
                    let codecs = vec![("vp9".into(), cid.clone()), ("vp8".into(), String::new())];
                    driver.signal(ClientSignal::AddTrack(AddTrack { codecs, ..add_track(&cid, Source::Camera) }));
                    for signal in driver.sent() {
                        if let ServerSignal::TrackPublished { track, .. } = signal {
                            announced.push((track.sid.clone(), cid.clone()));
                        }
                    }
                    let answer = |signal: &ServerSignal| match signal {
                        ServerSignal::TrackPublished { cid: echoed, .. } => *echoed == cid,
                        ServerSignal::RequestResponse { about: About::AddTrack { cid: echoed, .. }, .. } => *echoed == cid,
                        _ => false,
                    };
                    check(&mut driver, &mut seen, Some(&answer));
                }
                Step::Metadata(id) if live => {
                    driver.signal(ClientSignal::UpdateMetadata {
                        request_id: id,
                        name: "n".into(),
                        metadata: String::new(),
                        attributes: Default::default(),
                    });
                    let answer = move |signal: &ServerSignal| {
                        matches!(signal, ServerSignal::RequestResponse { request_id, .. } if *request_id == id)
                    };
                    check(&mut driver, &mut seen, Some(&answer));
                }
                Step::Offer if live => driver.signal(ClientSignal::Offer { sdp: "o".into(), id: 1 }),
                Step::Answered { publish } => {
                    let backups: Vec<_> = announced.iter().map(|(sid, cid)| (sid.backup(), cid.clone())).collect();
                    let published: Vec<_> =
                        announced.iter().chain(&backups).map(|(sid, cid)| (sid, cid.as_str())).collect();
                    let gone: Vec<_> = announced.iter().map(|(sid, _)| sid).collect();
                    let event = if publish { answered(&published, &[]) } else { answered(&[], &gone) };
                    driver.media(event);
                }
                Step::OfferNeeded => driver.media(MediaEvent::OfferNeeded),
                // A router says Offered once for each MakeOffer.
                Step::Offered if seen.making > 0 => {
                    seen.making -= 1;
                    driver.media(MediaEvent::Offered { sdp: "o".into() });
                }
                Step::Answer { stale } if live => {
                    driver.signal(ClientSignal::Answer { sdp: "a".into(), id: if stale { 999 } else { 0 } });
                    let applied = driver.commands().iter().any(|one| matches!(one, MediaCommand::Answer { .. }));
                    if applied {
                        seen.out = 0;
                    }
                }
                Step::Accepted => driver.media(MediaEvent::Accepted),
                Step::Connected => driver.media(MediaEvent::Connected { target: Target::Subscriber }),
                Step::SocketLost if live => {
                    seen.live = false;
                    seen.out = 0;
                    driver.give(Input::SocketLost);
                }
                Step::Resumed if !live => {
                    (seen.live, seen.fresh) = (true, true);
                    seen.out = 0;
                    driver.give(Input::Resumed { protocol: 17, ice_servers: Vec::new() });
                }
                Step::Somebody(who) => {
                    let codec = |mime: &str, mid: &str| TrackCodec {
                        mime: mime.into(),
                        mid: mid.into(),
                        cid: String::new(),
                        layers: Vec::new(),
                        layer_mode: LayerMode::Unused,
                    };
                    let backup = if who % 2 == 0 { "1" } else { "" };
                    let codecs = vec![codec("video/VP9", "0"), codec("video/VP8", backup)];
                    let track = Track { mime: "video/VP9".into(), codecs, ..camera(&format!("TR_{who}")) };
                    driver.notice(here(vec![person(&format!("p{who}"), &format!("PA_{who}"), vec![track])]));
                }
                Step::SomebodyGone(who) => {
                    let changed = vec![gone(&format!("p{who}"), &format!("PA_{who}"))];
                    driver.notice(Notice::Participants { changed });
                }
                Step::Subscribe(who, subscribe) if live => {
                    driver.signal(ClientSignal::Subscription { tracks: vec![format!("TR_{who}").into()], subscribe });
                }
                Step::Undecodable(who, backup) => {
                    driver.media(MediaEvent::Undecodable { track: engine(&format!("TR_{who}").into(), backup) });
                }
                Step::BackupWanted => driver.notice(Notice::BackupWanted { track: newest(&announced) }),
                Step::AddBackup if live => {
                    let codecs = vec![("vp8".into(), "backup".into())];
                    let existing = Some(newest(&announced));
                    driver.signal(ClientSignal::AddTrack(AddTrack { codecs, existing, ..add_track("backup", Source::Camera) }));
                    let answer = |signal: &ServerSignal| {
                        matches!(signal, ServerSignal::TrackPublished { .. } | ServerSignal::RequestResponse { .. })
                    };
                    check(&mut driver, &mut seen, Some(&answer));
                }
                Step::Demand(backup, top) => {
                    driver.media(MediaEvent::Demand { track: engine(&newest(&announced), backup), top });
                }
                Step::Permission { publish, subscribe } => driver.notice(own_changed(Permission {
                    can_publish: publish,
                    can_subscribe: subscribe,
                    ..Permission::default()
                })),
                Step::Data => driver.notice(Notice::Data { channel: Channel::Reliable, payload: Bytes::from_static(b"x") }),
                Step::Sync if live => driver.signal(ClientSignal::SyncState(SyncState::default())),
                Step::Simulate(which) if live => driver.signal(ClientSignal::Simulate(match which {
                    0 => Scenario::NodeFailure,
                    1 => Scenario::ServerLeave,
                    2 => Scenario::DisconnectSignalOnResume,
                    3 => Scenario::DisconnectSignalOnResumeNoMessages,
                    4 => Scenario::SpeakerUpdate { seconds: 1 },
                    _ => Scenario::SubscriberBandwidth { bits_per_second: 1 },
                })),
                Step::TransportClosed => {
                    driver.media(MediaEvent::Closed { target: Target::Publisher, reason: LeaveReason::MediaFailure });
                }
                Step::Move => driver.give(Input::Move),
                Step::Wait(ms) => driver.wait(Duration::from_millis(ms.into())),
                _ => {}
            }
            check(&mut driver, &mut seen, None);
        }
    }
}
