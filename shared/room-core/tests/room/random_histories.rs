//! Two nodes, one history, everything late, some of it lost: in the end everybody was told the truth.

use plenary_cluster::Store;
use std::time::Duration;

use plenary_model::*;
use plenary_room_core::{
    notice::Request,
    room::{AdminAsk, Input},
};
use proptest::prelude::*;

use crate::driver::*;

#[derive(Debug, Clone)]
enum Step {
    Seat { node: usize, who: u8, shape: u8 },
    Welcome(usize),
    Hear { node: usize, count: u8 },
    Lose(usize),
    Repeat(usize),
    Write(usize),
    Reread(usize),
    Resync(usize),
    Ask { node: usize, which: u8, what: u8 },
    Admin { node: usize, who: u8, what: u8 },
    Delete,
    Wait(u8),
    Poll(usize),
    Watch(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..NODES;
    prop_oneof![
        4 => (node(), 0..PEOPLE, 0..8u8).prop_map(|(node, who, shape)| Step::Seat { node, who, shape }),
        4 => node().prop_map(Step::Welcome),
        6 => (node(), 1..5u8).prop_map(|(node, count)| Step::Hear { node, count }),
        1 => node().prop_map(Step::Lose),
        1 => node().prop_map(Step::Repeat),
        6 => node().prop_map(Step::Write),
        2 => node().prop_map(Step::Reread),
        1 => node().prop_map(Step::Resync),
        6 => (node(), any::<u8>(), 0..7u8).prop_map(|(node, which, what)| Step::Ask { node, which, what }),
        3 => (node(), 0..PEOPLE, 0..4u8).prop_map(|(node, who, what)| Step::Admin { node, who, what }),
        1 => Just(Step::Delete),
        1 => (0..40u8).prop_map(Step::Wait),
        4 => node().prop_map(Step::Poll),
        1 => (node(), any::<bool>()).prop_map(|(node, watches)| Step::Watch(node, watches)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 768, ..ProptestConfig::default() })]

    #[test]
    fn what_everybody_was_told_is_what_the_store_has(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::with_nodes(NODES);
        let mut last = vec![None; NODES];
        for step in steps {
            take(&mut world, &mut last, step);
        }
        for at in 0..NODES {
            while !world.nodes[at].joined.is_empty() {
                open(&mut world, at);
                world.welcome(at);
            }
        }
        world.settle();
        // A subscriber that lost the last word hears it from the bus as a resync.
        for at in 0..NODES {
            if world.nodes[at].live().next().is_some() || world.nodes[at].watcher.is_some() {
                world.resync(at);
            }
        }
        world.settle();
        // A session seated in a life of the room that nobody here saw learns it from its first write.
        speak(&mut world);
        // By now whoever the store may have lost, since two lives of the room went by unseen, is given up, and no ghost stays.
        world.wait(Duration::from_secs(10));
        world.check_agreement("in the end");
    }
}

fn take(world: &mut World, last: &mut [Option<Input>], step: Step) {
    match step {
        Step::Seat { node, who, shape } => {
            open(world, node);
            let shape = |person: &mut Participant| match shape {
                0 => person.permission.hidden = true,
                1 => person.kind = ParticipantKind::Agent,
                _ => {}
            };
            world.seat(node, &format!("p{who}"), shape).unwrap();
        }
        Step::Welcome(node) => {
            open(world, node);
            world.welcome(node);
        }
        Step::Hear { node, count } => {
            for _ in 0..count {
                let Some(input) = world.next_delta(node) else { break };
                last[node] = Some(input.clone());
                // Without polling: the next one may come on top.
                world.handle_unpolled(node, input);
            }
        }
        Step::Lose(node) => drop(world.next_delta(node)),
        Step::Repeat(node) => {
            if let Some(input) = last[node].clone() {
                world.handle(node, input);
            }
        }
        Step::Write(node) => drop(world.write(node)),
        Step::Reread(node) => drop(world.reread(node)),
        Step::Resync(node) => {
            if done(world.store.snapshot(name())).is_ok() {
                world.resync(node);
            }
        }
        Step::Ask { node, which, what } => {
            let live: Vec<_> = world.nodes[node].live().map(|(sid, _)| sid.clone()).collect();
            let Some(who) = live.get(usize::from(which) % live.len().max(1)).cloned() else { return };
            let sid = format!("TR_{who}_{}", which % 3);
            let what = match what {
                0 => Request::BecameActive,
                1 | 2 => publish(vec![track(&sid, Source::Camera)]),
                3 => Request::Unpublish { tracks: vec![sid.as_str().into()] },
                4 => Request::UpdateTrack { track: Track { muted: which % 2 == 0, ..track(&sid, Source::Camera) } },
                5 => {
                    let metadata = Some(which.to_string());
                    Request::UpdateMetadata { name: None, metadata, attributes: Default::default() }
                }
                _ => {
                    let reason = LeaveReason::ClientInitiated;
                    world.nodes[node].drain();
                    world.nodes[node].clients.get_mut(&who).unwrap().ended = Some(reason);
                    Request::Leave { reason }
                }
            };
            world.handle_unpolled(node, Input::Ask { who, what });
        }
        Step::Admin { node, who, what } => {
            let identity = identity(&format!("p{who}"));
            // The other node would be asked for the other's people; an orphan is a join that is still on its way.
            let here = world.nodes[node].live().any(|(_, client)| client.own.identity == identity);
            if !here {
                return;
            }
            let what = match what {
                0 => Admin::Remove { identity },
                hidden => {
                    let permission = Some(Permission { hidden: hidden == 1, ..writer() });
                    let update = ParticipantUpdate { permission, ..ParticipantUpdate::default() };
                    Admin::Update { identity, update }
                }
            };
            world.handle_unpolled(node, Input::Admin(AdminAsk { number: 0, what }));
        }
        Step::Delete => drop(done(world.store.delete(name(), LeaveReason::RoomDeleted))),
        Step::Wait(count) => world.now += seconds(count.into()),
        Step::Watch(node, watches) => {
            open(world, node);
            world.watch(node, watches);
        }
        Step::Poll(node) => {
            if world.nodes[node].closed.is_none() {
                world.nodes[node].room.handle_timeout(world.now);
                world.nodes[node].drain();
            }
        }
    }
}

fn writer() -> Permission {
    Permission { can_update_metadata: true, ..Permission::default() }
}

/// Every session writes something.
fn speak(world: &mut World) {
    for at in 0..NODES {
        let live: Vec<_> = world.nodes[at].live().map(|(sid, _)| sid.clone()).collect();
        for who in live {
            let metadata = Some(format!("last words of {who}"));
            let what = Request::UpdateMetadata { name: None, metadata, attributes: Default::default() };
            world.handle(at, Input::Ask { who, what });
        }
    }
    world.settle();
}

/// A room that closed is opened anew by the next join.
fn open(world: &mut World, at: usize) {
    world.nodes[at].drain();
    if world.nodes[at].closed.is_some() {
        world.reopen(at);
    }
}

const NODES: usize = 2;
const PEOPLE: u8 = 4;
