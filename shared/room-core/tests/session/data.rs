//! Messages over data channels.

use bytes::Bytes;
use plenary_model::*;
use plenary_room_core::{
    notice::{Notice, Request},
    session::{Dropped, Input, MediaCommand, MediaEvent, Output},
    signal::{ClientData, DataKind},
};

use crate::driver::*;

fn message(sequence: u32) -> ClientData {
    ClientData {
        channel: Channel::Reliable,
        kind: DataKind::Ordinary,
        sequence,
        to: Destination::Everybody,
        payload: Bytes::from_static(b"hi"),
    }
}

fn to_client(driver: &Driver) -> usize {
    driver.commands().iter().filter(|one| matches!(one, MediaCommand::Send { .. })).count()
}

#[test]
fn repeated_reliable_messages_pass_once() {
    let mut driver = Driver::active();
    for sequence in [1, 2, 2, 1, 3, 0, 0] {
        driver.give(Input::Data(message(sequence)));
    }
    assert_eq!(driver.asked().iter().filter(|one| matches!(one, Request::Data { .. })).count(), 5);
    assert_eq!(driver.out.iter().filter(|one| **one == Output::Dropped(Dropped::DataRepeated)).count(), 2);
}

#[test]
fn data_needs_its_permission_and_transcriptions_an_agent() {
    let mut driver = Driver::start(Permission { can_publish_data: false, ..Permission::default() }, Vec::new());
    driver.give(Input::Data(message(1)));
    assert!(driver.out.contains(&Output::Dropped(Dropped::DataNotAllowed)));
    let mut driver = Driver::active();
    driver.give(Input::Data(ClientData { kind: DataKind::Transcription, ..message(1) }));
    assert_eq!(driver.out, [Output::Dropped(Dropped::DataKindNotAllowed)]);
}

#[test]
fn reliable_messages_wait_for_the_channel_and_lossy_ones_do_not() {
    let mut driver = Driver::joined();
    driver.out.clear();
    for channel in [Channel::Reliable, Channel::Lossy, Channel::Reliable] {
        driver.notice(Notice::Data { channel, payload: Bytes::from_static(b"hi") });
    }
    assert_eq!(driver.out, [Output::Dropped(Dropped::DataBeforeOpen)]);
    driver.media(MediaEvent::ChannelOpen { target: Target::Publisher, channel: Channel::Reliable });
    assert_eq!(to_client(&driver), 0, "data to this client goes over its subscriber transport");
    driver.media(MediaEvent::ChannelOpen { target: Target::Subscriber, channel: Channel::Reliable });
    assert_eq!(to_client(&driver), 2);
}

#[test]
fn what_waits_is_bounded() {
    let mut driver = Driver::joined();
    driver.out.clear();
    let payload = Bytes::from(vec![0; 64 * 1024]);
    for _ in 0..100 {
        driver.notice(Notice::Data { channel: Channel::Reliable, payload: payload.clone() });
    }
    assert_eq!(driver.out.len(), 100 - 16, "a mebibyte waits, the rest is dropped by name");
}
