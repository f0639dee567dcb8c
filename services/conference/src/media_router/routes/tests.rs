use actix::prelude::*;
use plenary_model::{Channel, ParticipantSid, PeerId};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    super::tests::{Probe, levels},
    *,
};

const PEER: PeerId = PeerId(1);

#[actix::test]
async fn a_closed_peer_is_heard_once_and_then_forgotten() {
    let mut world = World::new();
    assert!(world.routes.dispatch(Event::Connected { peer: PEER }).is_none());
    assert!(world.routes.dispatch(Event::Closed { peer: PEER, why: PeerEnd::IceTimeout }).is_none());
    assert!(world.routes.dispatch(Event::Connected { peer: PEER }).is_none());
    assert!(matches!(world.heard.recv().await, Some(Event::Connected { .. })));
    assert!(matches!(world.heard.recv().await, Some(Event::Closed { why: PeerEnd::IceTimeout, .. })));
    assert!(world.heard.try_recv().is_err());
    assert_eq!(world.counters.lost(IoLoss::EventUnrouted), 1);
    assert!(world.routes.peers.is_empty() && world.routes.rooms.is_empty());
}

#[actix::test]
async fn a_peer_whose_session_has_ended_is_closed() {
    let mut world = World::new();
    // Its address is still kept, as a room does; what counts is that it has stopped.
    end(&world.session).await;
    let command = world.routes.dispatch(Event::Connected { peer: PEER });
    assert!(matches!(command, Some(Command::Close { peer: PEER })));
    assert!(world.routes.peers.is_empty());
}

#[actix::test]
async fn a_session_that_does_not_keep_up_loses_lossy_data_and_then_its_peer() {
    let mut world = World::new();
    // The session runs on this thread and gets no turn while we do not await.
    for _ in 0..EVENTS_PENDING_MAX {
        assert!(world.routes.dispatch(data(Channel::Reliable)).is_none());
    }
    assert!(world.routes.dispatch(data(Channel::Lossy)).is_none());
    assert_eq!(world.counters.lost(IoLoss::LossyDataDropped), 1);
    let command = world.routes.dispatch(data(Channel::Reliable));
    assert!(matches!(command, Some(Command::Close { peer: PEER })));
    assert_eq!(world.counters.lost(IoLoss::EventsOverrun), 1);
    for _ in 0..EVENTS_PENDING_MAX {
        assert!(matches!(world.heard.recv().await, Some(Event::Data { .. })));
    }
    assert!(matches!(world.heard.recv().await, Some(Event::Closed { why: PeerEnd::SlowReceiver, .. })));
}

#[actix::test]
async fn a_session_that_catches_up_goes_on() {
    let mut world = World::new();
    for _ in 0..3 {
        for _ in 0..EVENTS_PENDING_MAX {
            assert!(world.routes.dispatch(data(Channel::Reliable)).is_none());
        }
        for _ in 0..EVENTS_PENDING_MAX {
            world.heard.recv().await.unwrap();
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(world.counters.lost(IoLoss::EventsOverrun), 0);
}

#[actix::test]
async fn an_id_in_use_is_not_opened_again() {
    let mut world = World::new();
    let room = levels().0;
    let (late, mut heard) = Probe::start();
    assert!(!world.routes.open(PEER, "PA_bob".into(), late.downgrade().recipient(), room.downgrade().recipient()));
    assert!(matches!(heard.recv().await, Some(Event::Closed { why: PeerEnd::Fault, .. })));
    assert!(world.routes.dispatch(Event::Connected { peer: PEER }).is_none());
    assert!(matches!(world.heard.recv().await, Some(Event::Connected { .. })), "the first keeps its route");
}

#[actix::test]
async fn a_room_that_does_not_keep_up_misses_windows_of_levels() {
    let mut world = World::new();
    for _ in 0..LEVELS_PENDING_MAX + 3 {
        world.routes.dispatch(measured(&["ann"]));
    }
    assert_eq!(world.counters.lost(IoLoss::LevelsDropped), 3);
    for _ in 0..LEVELS_PENDING_MAX {
        assert_eq!(world.levels.recv().await.unwrap(), ["PA_ann"]);
    }
}

#[actix::test]
async fn the_room_of_a_recorded_track_hears_it_once_though_nobody_of_it_is_here() {
    let mut world = World::new();
    let both = || measured(&["ann", "cid"]);
    world.routes.dispatch(both());
    assert_eq!(world.levels.recv().await.unwrap(), ["PA_ann"], "nobody here has to do with cid");
    for track in ["TR_ann", "TR_cid"] {
        world.routes.record(track.into(), world.room.downgrade().recipient());
    }
    world.routes.dispatch(both());
    assert_eq!(world.levels.recv().await.unwrap(), ["PA_ann", "PA_cid"]);
    world.routes.stop_record(&"TR_cid".into());
    world.routes.dispatch(both());
    assert_eq!(world.levels.recv().await.unwrap(), ["PA_ann"]);
}

#[actix::test]
async fn after_a_room_was_lost_the_next_hears_what_is_recorded_before_its_people_are_back() {
    let mut world = World::new();
    world.routes.record("TR_ann".into(), world.room.downgrade().recipient());
    end(&world.room).await;
    let (next, mut levels) = levels();
    let next = || next.downgrade().recipient();
    world.routes.record("TR_ann".into(), next());
    assert!(world.routes.open(PeerId(2), "PA_bob".into(), world.session.downgrade().recipient(), next()));
    world.routes.dispatch(measured(&["ann", "bob"]));
    assert_eq!(levels.recv().await.unwrap(), ["PA_ann", "PA_bob"]);
}

struct World {
    routes: Routes,
    session: Addr<Probe<Event>>,
    heard: UnboundedReceiver<Event>,
    levels: UnboundedReceiver<Vec<String>>,
    counters: Arc<IoCounters>,
    room: Addr<Probe<Vec<String>>>,
}

impl World {
    /// With one open peer.
    fn new() -> Self {
        let counters = Arc::new(IoCounters::default());
        let mut routes = Routes::new(RouterIndex::new(0).unwrap(), Default::default(), Arc::clone(&counters));
        let (session, heard) = Probe::start();
        let (room, levels) = levels();
        assert!(routes.open(PEER, sid(), session.downgrade().recipient(), room.downgrade().recipient()));
        Self { routes, session, heard, levels, counters, room }
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct End;

async fn end<T: Send + Unpin + 'static>(probe: &Addr<Probe<T>>) {
    probe.do_send(End);
    while probe.connected() {
        tokio::task::yield_now().await;
    }
}

impl<T: Send + Unpin + 'static> Handler<End> for Probe<T> {
    type Result = ();

    fn handle(&mut self, End: End, ctx: &mut actix::Context<Self>) {
        ctx.stop();
    }
}

fn sid() -> ParticipantSid {
    "PA_ann".into()
}

/// How loud each of these is on the one track they have.
fn measured(people: &[&str]) -> Event {
    let level = |name: &&str| TrackLevel {
        participant: format!("PA_{name}").into(),
        track: format!("TR_{name}").into(),
        level: 0.1,
        active: true,
    };
    Event::Levels { levels: people.iter().map(level).collect() }
}

fn data(channel: Channel) -> Event {
    Event::Data { peer: PEER, channel, payload: Default::default() }
}
