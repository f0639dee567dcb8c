//! Sockets that are lost and found.

use std::time::Duration;

use plenary_model::*;
use plenary_room_core::{
    notice::Notice,
    session::{Input, MediaCommand, MediaEvent, Output, SocketEnd},
    signal::{ClientSignal, Scenario, ServerSignal, SyncState},
};

use crate::driver::*;

fn resumed(driver: &mut Driver) {
    driver.give(Input::SocketLost);
    driver.take();
    driver.give(Input::Resumed { protocol: 17, ice_servers: Vec::new() });
}

#[test]
fn reconnect_is_the_first_word_and_the_whole_state_follows() {
    let mut driver = Driver::active();
    driver.notice(here(vec![person("ann", "PA_ann", Vec::new()), person("bob", "PA_bob", Vec::new())]));
    driver.give(Input::SocketLost);
    driver.take();
    driver.notice(Notice::Participants { changed: vec![gone("bob", "PA_bob")] });
    assert!(driver.sent().is_empty(), "nobody is there to hear it");
    driver.give(Input::Resumed { protocol: 17, ice_servers: Vec::new() });
    let sent = driver.sent();
    assert!(matches!(sent[0], ServerSignal::Reconnect { .. }));
    assert!(matches!(sent[1], ServerSignal::Update { participants } if participants[0].sid.as_str() == "PA_bob"));
    assert!(matches!(sent[2], ServerSignal::Update { participants }
        if participants.iter().map(|who| who.sid.as_str()).eq(["PA_me", "PA_ann"])));
    assert!(matches!(sent[3], ServerSignal::RoomUpdate { .. }));
    assert!(driver.out.contains(&Output::RefreshToken));
    assert!(driver.commands().contains(&&MediaCommand::MakeOffer { restart_ice: true }));
}

#[test]
fn an_offer_that_was_being_made_when_the_socket_broke_is_overtaken_by_the_restart() {
    let mut driver = Driver::active();
    driver.media(MediaEvent::OfferNeeded);
    driver.wait(Duration::from_millis(20));
    resumed(&mut driver);
    driver.media(MediaEvent::Offered { sdp: "old".into() });
    assert_eq!(driver.last_offer(), None);
    driver.media(MediaEvent::Offered { sdp: "restart".into() });
    assert_eq!(driver.last_offer().unwrap().1, "restart");
}

#[test]
fn a_track_announced_before_the_break_is_confirmed_again() {
    let mut driver = Driver::active();
    let sid = driver.add_track("cam", Source::Camera);
    resumed(&mut driver);
    assert!(
        driver.sent().iter().any(|one| matches!(one, ServerSignal::TrackPublished { track, .. } if track.sid == sid))
    );
}

#[test]
fn the_last_reliable_sequence_is_told() {
    use bytes::Bytes;
    use plenary_room_core::signal::{ClientData, DataKind};
    let mut driver = Driver::active();
    driver.give(Input::Data(ClientData {
        channel: Channel::Reliable,
        kind: DataKind::Ordinary,
        sequence: 41,
        to: Destination::Everybody,
        payload: Bytes::new(),
    }));
    resumed(&mut driver);
    assert!(matches!(driver.sent()[0], ServerSignal::Reconnect { last_message_seq: 41, .. }));
}

#[test]
fn nobody_comes_back_and_the_session_ends_with_its_window() {
    for (media_lives, seconds) in [(true, 60), (false, 5)] {
        let mut driver = Driver::active();
        driver.give(Input::SocketLost);
        if !media_lives {
            driver.media(MediaEvent::Closed { target: Target::Subscriber, reason: LeaveReason::ConnectionTimeout });
        }
        driver.wait(Duration::from_secs(seconds - 1));
        assert_eq!(driver.ended(), None);
        driver.wait(Duration::from_secs(2));
        assert_eq!(driver.ended(), Some(LeaveReason::SignalClose));
    }
}

#[test]
fn a_socket_lost_before_anything_connected_ends_at_once() {
    let mut driver = Driver::joined();
    driver.give(Input::SocketLost);
    assert_eq!(driver.ended(), Some(LeaveReason::SignalClose));
}

#[test]
fn silence_counts_as_a_lost_socket() {
    let mut driver = Driver::active();
    driver.wait(Duration::from_secs(16));
    assert!(driver.out.contains(&Output::CloseSocket(SocketEnd::Silent)));
    assert_eq!(driver.ended(), None, "the client may resume");
    driver.wait(Duration::from_secs(60));
    assert_eq!(driver.ended(), Some(LeaveReason::SignalClose));
}

#[test]
fn resuming_onto_dead_transports_means_a_new_session() {
    let mut driver = Driver::active();
    driver.give(Input::SocketLost);
    driver.media(MediaEvent::Closed { target: Target::Subscriber, reason: LeaveReason::ConnectionTimeout });
    driver.take();
    driver.give(Input::Resumed { protocol: 17, ice_servers: Vec::new() });
    assert!(matches!(
        driver.sent()[..],
        [ServerSignal::Leave { reason: LeaveReason::StateMismatch, action: LeaveAction::Reconnect }]
    ));
}

#[test]
fn sync_state_with_a_track_nobody_knows_means_a_new_session() {
    let mut driver = Driver::active();
    let mine = driver.publish("cam", Source::Camera);
    resumed(&mut driver);
    driver.take();
    driver.signal(ClientSignal::SyncState(SyncState { published: vec![mine], ..SyncState::default() }));
    assert_eq!(driver.ended(), None);
    let unknown = SyncState { published: vec!["TR_other".into()], ..SyncState::default() };
    driver.signal(ClientSignal::SyncState(unknown));
    assert_eq!(driver.ended(), Some(LeaveReason::StateMismatch));
}

#[test]
fn sync_state_restores_wishes() {
    let mut driver = Driver::active();
    driver.notice(here(vec![person("ann", "PA_ann", vec![camera("TR_a"), camera("TR_b")])]));
    resumed(&mut driver);
    driver.signal(ClientSignal::SyncState(SyncState {
        subscription: Some((vec!["TR_a".into()], false)),
        disabled: vec!["TR_b".into()],
        ..SyncState::default()
    }));
    let Some(MediaCommand::Want { tracks }) = driver.commands().last().copied() else { panic!() };
    assert!(tracks.len() == 1 && tracks[0].track.as_str() == "TR_b" && tracks[0].settings.disabled);
}

#[test]
fn simulated_faults_do_what_they_say() {
    let end_of = |scenario| {
        let mut driver = Driver::active();
        driver.signal(ClientSignal::Simulate(scenario));
        (driver.ended(), driver.sent().into_iter().cloned().collect::<Vec<_>>())
    };
    let (ended, said) = end_of(Scenario::NodeFailure);
    assert!(ended.is_some() && said.is_empty(), "a node that fails says nothing");
    let (_, said) = end_of(Scenario::ServerLeave);
    let disconnect = LeaveAction::Disconnect;
    assert_eq!(said, [ServerSignal::Leave { reason: LeaveReason::ServerShutdown, action: disconnect }]);
    let (_, said) = end_of(Scenario::LeaveRequestFullReconnect);
    assert!(matches!(said[..], [ServerSignal::Leave { action: LeaveAction::Reconnect, .. }]));
}

#[test]
fn simulated_resume_faults_drop_the_socket_after_or_before_the_messages() {
    let mut driver = Driver::active();
    driver.signal(ClientSignal::Simulate(Scenario::DisconnectSignalOnResume));
    resumed(&mut driver);
    assert!(matches!(driver.out.first(), Some(Output::Send(ServerSignal::Reconnect { .. }))));
    assert_eq!(driver.out.last(), Some(&Output::CloseSocket(SocketEnd::Simulated)));
    let mut driver = Driver::active();
    driver.signal(ClientSignal::Simulate(Scenario::DisconnectSignalOnResumeNoMessages));
    for _ in 0..3 {
        resumed(&mut driver);
        assert_eq!(driver.take(), [Output::CloseSocket(SocketEnd::Simulated)]);
    }
    resumed(&mut driver);
    assert!(matches!(driver.out.first(), Some(Output::Send(ServerSignal::Reconnect { .. }))));
}

#[test]
fn an_offer_that_is_due_while_nobody_is_there_waits_for_the_resume() {
    let mut driver = Driver::active();
    driver.give(Input::SocketLost);
    driver.media(MediaEvent::OfferNeeded);
    driver.wait(Duration::from_secs(1));
    assert!(driver.commands().is_empty());
    driver.give(Input::Resumed { protocol: 17, ice_servers: Vec::new() });
    assert!(driver.commands().contains(&&MediaCommand::MakeOffer { restart_ice: true }));
}
