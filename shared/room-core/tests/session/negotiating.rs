//! Joining, and who may offer when.

use std::{sync::Arc, time::Duration};

use plenary_model::*;
use plenary_room_core::{
    notice::{Notice, Request},
    session::{Dropped, MediaCommand, MediaEvent, Output, SocketEnd},
    signal::{ClientSignal, ServerSignal},
};

use crate::driver::*;

#[test]
fn a_join_opens_with_join_then_token_then_the_subscriber_offer() {
    let ann = Arc::new(person("ann", "PA_ann", vec![camera("TR_a")]));
    let driver = Driver::start(Permission::default(), vec![ann]);
    assert!(matches!(&driver.out[..], [
        Output::Send(ServerSignal::Join(join)),
        Output::RefreshToken,
        Output::Media(MediaCommand::Open { target: Target::Subscriber, open_channels: true, .. }),
        Output::Media(MediaCommand::Want { tracks }),
        Output::Media(MediaCommand::MakeOffer { restart_ice: false }),
    ] if join.subscriber_primary && join.others.len() == 1 && tracks.len() == 1));
}

#[test]
fn who_may_not_subscribe_has_the_publisher_transport_as_primary() {
    let mut driver = Driver::start(Permission { can_subscribe: false, ..Permission::default() }, Vec::new());
    assert!(driver.commands().is_empty(), "no subscriber transport and no offer");
    driver.signal(ClientSignal::Offer { sdp: "o".into(), id: 1 });
    assert!(matches!(driver.commands()[0], MediaCommand::Open { target: Target::Publisher, open_channels: false, .. }));
    driver.media(MediaEvent::Connected { target: Target::Publisher });
    assert!(driver.asked().contains(&&Request::BecameActive));
}

#[test]
fn becoming_active_is_said_once() {
    let mut driver = Driver::joined();
    driver.connect();
    driver.media(MediaEvent::Connected { target: Target::Subscriber });
    assert_eq!(driver.asked().iter().filter(|one| ***one == Request::BecameActive).count(), 1);
}

#[test]
fn a_client_that_never_connects_is_told_to_leave() {
    let mut driver = Driver::joined();
    driver.media(MediaEvent::Offered { sdp: "o".into() });
    let id = driver.last_offer().unwrap().0;
    driver.signal(ClientSignal::Answer { sdp: "a".into(), id });
    driver.media(MediaEvent::Accepted);
    driver.wait_alive(Duration::from_secs(61));
    assert_eq!(driver.ended(), Some(LeaveReason::JoinFailure));
    assert!(
        driver.sent().iter().any(|one| matches!(one, ServerSignal::Leave { reason: LeaveReason::JoinFailure, .. }))
    );
}

#[test]
fn an_update_leaves_before_the_offer_that_carries_its_track() {
    let mut driver = Driver::active();
    driver.notice(here(vec![person("ann", "PA_ann", vec![camera("TR_a")])]));
    driver.media(MediaEvent::OfferNeeded);
    driver.wait(Duration::from_millis(20));
    driver.media(MediaEvent::Offered { sdp: "with track".into() });
    let at = |wanted: fn(&ServerSignal) -> bool| driver.sent().iter().position(|signal| wanted(signal)).unwrap();
    let update = at(|signal| matches!(signal, ServerSignal::Update { .. }));
    let offer = at(|signal| matches!(signal, ServerSignal::Offer { .. }));
    assert!(update < offer);
}

#[test]
fn at_most_one_offer_is_out_and_changes_meanwhile_become_one() {
    let mut driver = Driver::active();
    driver.media(MediaEvent::OfferNeeded);
    driver.wait(Duration::from_millis(20));
    driver.media(MediaEvent::Offered { sdp: "1".into() });
    let first = driver.last_offer().unwrap().0;
    for _ in 0..5 {
        driver.media(MediaEvent::OfferNeeded);
        driver.wait(Duration::from_millis(50));
    }
    assert_eq!(driver.commands().iter().filter(|one| matches!(one, MediaCommand::MakeOffer { .. })).count(), 1);
    driver.signal(ClientSignal::Answer { sdp: "a".into(), id: first });
    driver.media(MediaEvent::Accepted);
    driver.wait(Duration::from_millis(50));
    assert_eq!(driver.commands().iter().filter(|one| matches!(one, MediaCommand::MakeOffer { .. })).count(), 2);
}

#[test]
fn what_eight_people_publish_in_a_burst_is_one_offer_and_another_burst_waits_for_its_answer() {
    let mut driver = Driver::active();
    let burst = |driver: &mut Driver, name: &str| {
        for number in 0..8 {
            let track = camera(&format!("TR_{name}{number}"));
            driver.notice(here(vec![person(&format!("{name}{number}"), &format!("PA_{name}{number}"), vec![track])]));
            driver.media(MediaEvent::OfferNeeded);
            driver.wait(Duration::from_millis(2));
        }
        driver.wait(Duration::from_millis(20));
    };
    let answer = |driver: &mut Driver| {
        let id = driver.last_offer().unwrap().0;
        driver.signal(ClientSignal::Answer { sdp: "a".into(), id });
        driver.media(MediaEvent::Accepted);
        driver.wait(Duration::from_secs(1));
    };
    // How many tracks were wanted when each offer was asked for.
    let carried = |driver: &Driver| {
        let mut wanted = 0;
        let mut carried = Vec::new();
        for command in driver.commands() {
            match command {
                MediaCommand::Want { tracks } => wanted = tracks.len(),
                MediaCommand::MakeOffer { .. } => carried.push(wanted),
                _ => {}
            }
        }
        carried
    };
    burst(&mut driver, "ann");
    assert_eq!(carried(&driver), [8]);
    driver.media(MediaEvent::Offered { sdp: "1".into() });
    burst(&mut driver, "bob");
    driver.wait(Duration::from_secs(3));
    assert_eq!(carried(&driver), [8], "the client has not answered yet");
    answer(&mut driver);
    assert_eq!(carried(&driver), [8, 16]);
    driver.media(MediaEvent::Offered { sdp: "2".into() });
    answer(&mut driver);
    assert_eq!(carried(&driver), [8, 16], "there is nothing more to offer");
}

#[test]
fn a_stale_answer_is_dropped_and_zero_means_unknown() {
    let mut driver = Driver::joined();
    driver.media(MediaEvent::Offered { sdp: "o".into() });
    let id = driver.last_offer().unwrap().0;
    driver.signal(ClientSignal::Answer { sdp: "stale".into(), id: id + 1 });
    assert!(!driver.commands().iter().any(|one| matches!(one, MediaCommand::Answer { .. })));
    driver.signal(ClientSignal::Answer { sdp: "mine".into(), id: 0 });
    assert!(driver.commands().iter().any(|one| matches!(one, MediaCommand::Answer { sdp } if sdp == "mine")));
    driver.take();
    driver.signal(ClientSignal::Answer { sdp: "again".into(), id });
    assert!(driver.commands().is_empty(), "an answer counts once");
}

#[test]
fn an_offer_that_is_never_answered_ends_in_a_full_reconnect() {
    let mut driver = Driver::joined();
    driver.media(MediaEvent::Offered { sdp: "o".into() });
    driver.wait_alive(Duration::from_secs(16));
    assert_eq!(driver.ended(), Some(LeaveReason::StateMismatch));
    assert!(driver.sent().iter().any(|one| matches!(one, ServerSignal::Leave { action: LeaveAction::Reconnect, .. })));
}

#[test]
fn offers_of_the_client_are_answered_in_order_with_their_ids() {
    let mut driver = Driver::active();
    for id in 1..=3 {
        driver.signal(ClientSignal::Offer { sdp: format!("o{id}"), id });
    }
    let offers =
        |driver: &Driver| driver.commands().iter().filter(|one| matches!(one, MediaCommand::Offer { .. })).count();
    for done in 1..=3 {
        assert_eq!(offers(&driver), done, "the next one waits for the answer");
        driver.media(answered(&[], &[]));
    }
    let ids: Vec<_> = driver
        .sent()
        .iter()
        .filter_map(|one| if let ServerSignal::Answer { id, .. } = one { Some(*id) } else { None })
        .collect();
    assert_eq!(ids, [1, 2, 3]);
}

#[test]
fn a_client_gone_wild_with_offers_starts_over() {
    let mut driver = Driver::active();
    for id in 1..=20 {
        driver.signal(ClientSignal::Offer { sdp: "o".into(), id });
    }
    assert_eq!(driver.ended(), Some(LeaveReason::StateMismatch));
}

#[test]
fn pings_of_both_kinds_are_answered() {
    let mut driver = Driver::active();
    driver.signal(ClientSignal::Ping { timestamp_ms: 5 });
    driver.signal(ClientSignal::PingReq { timestamp_ms: 6, rtt_ms: 1 });
    assert!(matches!(
        driver.sent()[..],
        [ServerSignal::Pong { timestamp_ms: 5 }, ServerSignal::PongResp { last_ping_timestamp_ms: 6 },]
    ));
}

#[test]
fn a_leaving_client_hears_no_leave() {
    let mut driver = Driver::active();
    driver.signal(ClientSignal::Leave { reason: LeaveReason::ClientInitiated, action: LeaveAction::Disconnect });
    assert!(matches!(
        driver.out[..],
        [
            Output::Ask(Request::Leave { reason: LeaveReason::ClientInitiated }),
            Output::CloseSocket(SocketEnd::Left),
            Output::End(LeaveReason::ClientInitiated),
        ]
    ));
}

#[test]
fn the_room_ends_a_session_with_the_action_its_reason_asks_for() {
    let cases = [
        (LeaveReason::DuplicateIdentity, LeaveAction::Disconnect),
        (LeaveReason::ParticipantRemoved, LeaveAction::Disconnect),
        (LeaveReason::RoomDeleted, LeaveAction::Disconnect),
        (LeaveReason::StateMismatch, LeaveAction::Reconnect),
    ];
    for (reason, expected) in cases {
        let mut driver = Driver::active();
        driver.notice(Notice::End { reason });
        assert!(matches!(driver.sent()[..], [ServerSignal::Leave { reason: said, action }]
            if *said == reason && *action == expected));
        assert_eq!(driver.ended(), Some(reason));
    }
}

#[test]
fn too_many_messages_end_the_session_and_nothing_follows() {
    let mut driver = Driver::active();
    for _ in 0..500 {
        driver.signal(ClientSignal::Ping { timestamp_ms: 0 });
    }
    assert_eq!(driver.sent().iter().filter(|one| matches!(one, ServerSignal::Pong { .. })).count(), 400 - 1);
    assert!(driver.out.contains(&Output::Dropped(Dropped::TooManyMessages)));
    assert!(driver.out.contains(&Output::CloseSocket(SocketEnd::TooManyMessages)));
    assert!(matches!(driver.out.last(), Some(Output::End(_))));
}

#[test]
fn who_trickles_hundreds_of_candidates_at_once_may_still_speak() {
    let mut driver = Driver::active();
    // As many as were seen of one client whose process joined ten times at once, and twice that.
    for _ in 0..3 * 594 {
        driver.signal(ClientSignal::Trickle { target: Target::Publisher, bytes: 200 });
    }
    driver.signal(ClientSignal::Ping { timestamp_ms: 1 });
    assert!(matches!(driver.sent()[..], [ServerSignal::Pong { .. }]));
    assert_eq!(driver.ended(), None);
}

#[test]
fn a_flood_of_candidates_ends_the_session() {
    let mut driver = Driver::active();
    for _ in 0..16 * 500 {
        driver.signal(ClientSignal::Trickle { target: Target::Publisher, bytes: 200 });
    }
    assert!(driver.out.contains(&Output::CloseSocket(SocketEnd::TooManyMessages)));
    assert_eq!(driver.ended(), Some(LeaveReason::StateMismatch));
}

#[test]
fn a_dead_transport_with_a_living_socket_means_a_new_session() {
    let mut driver = Driver::active();
    driver.media(MediaEvent::Closed { target: Target::Subscriber, reason: LeaveReason::ConnectionTimeout });
    assert!(matches!(driver.sent()[..], [ServerSignal::Leave { action: LeaveAction::Reconnect, .. }]));
    assert_eq!(driver.ended(), Some(LeaveReason::ConnectionTimeout));
}
