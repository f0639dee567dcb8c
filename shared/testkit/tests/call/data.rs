//! Messages on data channels.

use plenary_media_core::{Command, DropReason, Event, PeerEnd};
use plenary_model::{Channel, PeerId};
use plenary_testkit::{ClientOptions, Datagram, Direction, World, seed};

use super::{Pair, SECOND};

fn heard(world: &World, from: PeerId, on: Channel) -> Vec<Vec<u8>> {
    let heard = world.events.iter().filter_map(|(_, event)| match event {
        Event::Data { peer, channel, payload } if *peer == from && *channel == on => Some(payload.to_vec()),
        _ => None,
    });
    heard.collect()
}

#[test]
fn messages_go_both_ways_on_every_channel() {
    let mut world = World::seeded(seed(41));
    let (ann, bob) = (world.join_connected("ann"), world.join_connected("bob"));
    for peer in [ann.publisher(), ann.subscriber(), bob.publisher(), bob.subscriber()] {
        let open = |event: &Event| matches!(event, Event::ChannelOpen { peer: of, .. } if *of == peer);
        assert_eq!(world.count_events(open), 3, "{peer}");
    }
    let now = world.now;
    for channel in [Channel::Reliable, Channel::Lossy, Channel::DataTrack] {
        let message = format!("{channel:?}").into_bytes();
        world.client(ann).send_data(now, channel, &message);
        world.run_for(SECOND / 5);
        assert_eq!(heard(&world, ann.publisher(), channel), std::slice::from_ref(&message));
        world.send_data(&[bob.subscriber(), ann.subscriber()], channel, &message);
        world.run_for(SECOND / 5);
        for id in [ann, bob] {
            assert_eq!(world.client(id).messages(channel), std::slice::from_ref(&message));
        }
        // The primary connection of somebody who may not subscribe is the publisher's.
        world.send_data(&[bob.publisher()], channel, &message);
        world.run_for(SECOND / 5);
        assert_eq!(world.client(bob).messages(channel).len(), 2);
    }
}

#[test]
fn reliable_messages_of_every_size_arrive_in_order() {
    let mut world = World::seeded(seed(42));
    let ann = world.join_connected("ann");
    let sizes = [0, 1, 1_199, 1_200, 16_384, 65_535];
    for size in sizes {
        world.send_data(&[ann.subscriber()], Channel::Reliable, &vec![size as u8; size]);
        let now = world.now;
        world.client(ann).send_data(now, Channel::Reliable, &vec![size as u8; size.max(1)]);
    }
    world.run_for(2 * SECOND);
    let down: Vec<usize> = world.client(ann).messages(Channel::Reliable).iter().map(Vec::len).collect();
    assert_eq!(down, sizes);
    let up: Vec<usize> = heard(&world, ann.publisher(), Channel::Reliable).iter().map(Vec::len).collect();
    assert_eq!(up, sizes.map(|size| size.max(1)));
}

#[test]
fn messages_over_the_limit_are_dropped_by_name() {
    let mut world = World::seeded(seed(43));
    let ann = world.join_connected("ann");
    world.send_data(&[ann.subscriber()], Channel::Reliable, &vec![1; 65_536]);
    world.run_for(SECOND);
    assert_eq!(world.counters().dropped(DropReason::MessageTooLarge), 1);
    assert!(world.client(ann).messages(Channel::Reliable).is_empty());
    assert_eq!(world.closed(ann.subscriber()), None);
}

#[test]
fn a_message_for_a_channel_that_is_not_open_is_dropped_by_name() {
    let mut world = World::seeded(seed(44));
    let ann = world.join_with("ann", ClientOptions::default());
    world.send_data(&[ann.subscriber()], Channel::Reliable, b"early");
    assert_eq!(world.counters().dropped(DropReason::UnknownChannel), 1);
}

#[test]
fn a_slow_receiver_loses_lossy_messages_first_and_is_closed_for_reliable_ones() {
    let Pair { mut world, ann, bob, audio, .. } = Pair::flowing(45);
    let cem = world.join_connected("cem");
    world.subscribe(cem, std::slice::from_ref(&audio));
    let deaf = world.client(bob).subscriber.public;
    world.network.set_filter(move |datagram: &Datagram| {
        // What travels in DTLS is lost; checks and media arrive.
        let is_dtls = (20..=63).contains(&datagram.bytes[0]);
        !(is_dtls && datagram.client == deaf && datagram.direction == Direction::Down)
    });
    for _ in 0..200 {
        world.send_data(&[bob.subscriber(), cem.subscriber()], Channel::Lossy, &[7; 15_000]);
        world.run_for(SECOND / 100);
    }
    assert!(world.counters().dropped(DropReason::LossyBacklog) > 0);
    assert_eq!(world.closed(bob.subscriber()), None, "lossy messages end nobody");
    let mut sent = 0;
    while world.closed(bob.subscriber()).is_none() {
        sent += 1;
        assert!(sent < 10_000, "the backlog has a limit");
        world.send_data(&[bob.subscriber(), cem.subscriber()], Channel::Reliable, &[8; 15_000]);
        world.run_for(SECOND / 100);
    }
    assert_eq!(world.closed(bob.subscriber()), Some(PeerEnd::SlowReceiver));
    world.run_for(SECOND);
    assert_eq!(world.client(cem).messages(Channel::Reliable).len(), sent, "others are not held up");
    assert_eq!(world.received(cem, &audio).gaps(), 0);
    world.command(Command::Close { peer: ann.publisher() });
}
