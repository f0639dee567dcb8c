//! Clients that are told to start over on another node.

use std::time::Duration;

use plenary_model::*;
use plenary_room_core::{
    notice::{Notice, Request},
    session::{Input, MediaCommand, MediaEvent, Output, SocketEnd},
    signal::{ClientSignal, ServerSignal},
};

use crate::driver::*;

fn told() -> Driver {
    let mut driver = Driver::active();
    driver.give(Input::Move);
    driver
}

fn left() -> Driver {
    let mut driver = told();
    driver.signal(ClientSignal::Leave { reason: LeaveReason::ClientInitiated, action: LeaveAction::Disconnect });
    driver
}

const LEAVE: ServerSignal = ServerSignal::Leave { reason: LeaveReason::Migration, action: LeaveAction::Reconnect };

#[test]
fn a_fresh_token_comes_before_the_word_to_reconnect_and_nothing_ends() {
    let driver = told();
    assert_eq!(driver.out, [Output::RefreshToken, Output::Send(LEAVE)]);
}

#[test]
fn who_is_told_twice_hears_it_once() {
    let mut driver = told();
    driver.take();
    driver.give(Input::Move);
    assert!(driver.out.is_empty());
}

#[test]
fn media_and_signalling_go_on_until_the_client_closes() {
    let mut driver = told();
    driver.notice(here(vec![person("ann", "PA_ann", vec![camera("TR_a")])]));
    assert_eq!(driver.wanted(), Some(vec!["TR_a".into()]));
    assert!(!driver.commands().iter().any(|command| matches!(command, MediaCommand::Close { .. })));
}

#[test]
fn a_leave_is_a_part_of_the_move() {
    let driver = left();
    assert_eq!(driver.out.last(), Some(&Output::CloseSocket(SocketEnd::Moved)));
    assert_eq!(driver.ended(), None);
    assert!(!driver.asked().iter().any(|asked| matches!(asked, Request::Leave { .. })), "its record stays");
}

#[test]
fn the_next_session_ends_this_one_without_a_word() {
    for mut driver in [told(), left()] {
        driver.take();
        driver.notice(Notice::End { reason: LeaveReason::DuplicateIdentity });
        assert!(driver.sent().is_empty());
        assert_eq!(driver.ended(), Some(LeaveReason::Migration));
    }
}

#[test]
fn who_only_listens_loses_the_socket_after_five_seconds() {
    let mut driver = told();
    driver.wait_alive(Duration::from_millis(4_900));
    assert!(!driver.out.contains(&Output::CloseSocket(SocketEnd::Moved)));
    driver.wait(Duration::from_millis(200));
    assert!(driver.out.contains(&Output::CloseSocket(SocketEnd::Moved)));
    assert_eq!(driver.ended(), None);
}

#[test]
fn who_does_not_come_back_has_left_after_ten_seconds() {
    for mut driver in [told(), left()] {
        driver.wait(Duration::from_millis(9_900));
        assert_eq!(driver.ended(), None);
        driver.wait(Duration::from_millis(200));
        assert_eq!(driver.ended(), Some(LeaveReason::SignalClose));
    }
}

#[test]
fn transports_that_the_client_closes_do_not_end_it() {
    for mut driver in [told(), left()] {
        driver.take();
        driver.media(MediaEvent::Closed { target: Target::Subscriber, reason: LeaveReason::MediaFailure });
        driver.media(MediaEvent::Closed { target: Target::Publisher, reason: LeaveReason::MediaFailure });
        driver.wait(Duration::from_secs(1));
        assert_eq!(driver.ended(), None);
        assert!(!driver.sent().iter().any(|said| matches!(said, ServerSignal::Leave { .. })));
    }
}

#[test]
fn a_resume_is_sent_on() {
    let mut driver = told();
    driver.give(Input::SocketLost);
    driver.take();
    driver.give(Input::Resumed { protocol: 17, ice_servers: Vec::new() });
    let leave = ServerSignal::Leave { reason: LeaveReason::StateMismatch, action: LeaveAction::Reconnect };
    assert_eq!(driver.out, [Output::Send(leave), Output::CloseSocket(SocketEnd::Moved)]);
}

#[test]
fn who_was_still_joining_keeps_its_place_too() {
    let mut driver = Driver::joined();
    driver.give(Input::Move);
    driver.give(Input::SocketLost);
    assert_eq!(driver.ended(), None);
}

#[test]
fn a_decision_about_a_person_on_the_move_stands() {
    let mut driver = told();
    driver.take();
    driver.notice(Notice::End { reason: LeaveReason::ParticipantRemoved });
    let leave = ServerSignal::Leave { reason: LeaveReason::ParticipantRemoved, action: LeaveAction::Disconnect };
    assert_eq!(driver.sent(), [&leave]);
}
