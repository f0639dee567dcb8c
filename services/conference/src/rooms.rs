//! The rooms of one room thread: room name → its actor, started on the first join, gone after the last person.
//!
//! A room name hashes to one thread, so a room and its participants never cross threads among themselves.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, MessageResult, ResponseFuture};
use futures_util::future::join_all;
use plenary_cluster::StoreError;
use plenary_model::{EgressId, NodeId, ParticipantSid, RoomName};

use crate::{
    egress::Held,
    events::PanicCaught,
    heartbeat::{BEAT_INTERVAL, Heartbeat},
    node::{Shared, drain::Seats},
    participant::{Participant, Shutdown},
    recording::{Ask, Recorder},
    room::{Find, Follow, Host, Join, Room, Unfollow},
};

/// The registry of one room thread.
pub struct Rooms {
    shared: Arc<Shared>,
    rooms: HashMap<RoomName, Addr<Room>>,
    /// Recordings of these rooms that this node makes, with their epochs.
    recorders: BTreeMap<(EgressId, u64), Addr<Recorder>>,
    heartbeat: Heartbeat,
}

/// Seat somebody in a room of this thread.
#[derive(Message)]
#[rtype(result = "()")]
pub struct JoinRoom {
    pub room: RoomName,
    pub join: Join,
}

/// Host a room that nobody has joined yet, or that lost everybody with their node.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct HostRoom(pub RoomName);

/// The rooms that are open here. From [`host_strays`].
#[derive(Debug, Message)]
#[rtype(result = "Vec<RoomName>")]
struct OpenRooms;

/// The session of somebody who comes back.
#[derive(Message)]
#[rtype(result = "Option<Addr<Participant>>")]
pub struct FindSession {
    pub room: RoomName,
    pub find: Find,
}

/// The actor of a room, if it is open here.
#[derive(Message)]
#[rtype(result = "Option<Addr<Room>>")]
pub struct FindRoom(pub RoomName);

/// Record what this node has claimed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct StartRecording(pub Held);

/// To the recorder of one recording, if it is here.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ToRecorder {
    pub recording: EgressId,
    pub ask: Ask,
}

/// Open the room, whether or not it has people here, and tell a recorder of it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct FollowRoom {
    pub room: RoomName,
    pub follow: Follow,
}

/// Undoes [`FollowRoom`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct UnfollowRoom {
    pub room: RoomName,
    pub unfollow: Unfollow,
}

/// A media router died; whose media was there starts over.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct RouterLost;

/// The node's lease had run out: others may have taken its people for gone, or the store lost them.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Lapsed;

/// The node cannot exchange media with some others: of rooms that they have more people of, those who are here shall go there.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Parted(pub Arc<BTreeMap<NodeId, Instant>>);

/// The room takes nobody any more; it only finishes what it owes the store.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct RoomClosing {
    pub name: RoomName,
    pub room: Addr<Room>,
}

/// The node's bans have changed: sessions they forbid end, in one room or in all. From whoever keeps the copy.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct EnforceBans {
    pub room: Option<RoomName>,
}

/// Who is served in the rooms of this thread. From whoever empties the node.
#[derive(Debug, Message)]
#[rtype(result = "Vec<Seats>")]
pub struct Count;

/// The same of one room.
#[derive(Debug, Message)]
#[rtype(result = "Seats")]
pub struct CountRoom;

/// These shall start over on another node.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct MovePeople {
    pub room: RoomName,
    pub people: Vec<ParticipantSid>,
}

/// A room's death notice.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct RoomEnded {
    pub name: RoomName,
    pub crashed: bool,
    /// It left people in the store. Whoever does not come back must be removed from there, by the next room of the name.
    pub deserted: bool,
}

/// The store may say that this node hosts people in rooms that are not open here: those who left while nobody could hear it, and
/// everybody who was here when a store was as it is since it went back. Once open, the rooms remove them.
pub async fn host_strays(shared: &Shared) -> Result<(), StoreError> {
    let open = join_all(shared.room_threads().map(|rooms| rooms.send(OpenRooms))).await;
    let open = open.into_iter().flatten().flatten().collect();
    for room in shared.store.strays(shared.node.clone(), open).await? {
        shared.rooms_for(&room).do_send(HostRoom(room));
    }
    Ok(())
}

impl Rooms {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            rooms: HashMap::new(),
            recorders: BTreeMap::new(),
            heartbeat: Heartbeat::start("room thread", Instant::now()),
        }
    }

    fn open(&mut self, name: &RoomName, ctx: &mut Context<Self>) -> Addr<Room> {
        if let Some(room) = self.rooms.get(name).filter(|room| room.connected()) {
            return room.clone();
        }
        let room = Room::new(name.clone(), self.shared.clone(), ctx.address().downgrade()).start();
        self.rooms.insert(name.clone(), room.clone());
        room
    }
}

impl Actor for Rooms {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(BEAT_INTERVAL, |rooms, _| rooms.heartbeat.beat(Instant::now()));
    }
}

impl Handler<JoinRoom> for Rooms {
    type Result = ();

    fn handle(&mut self, JoinRoom { room, join }: JoinRoom, ctx: &mut Self::Context) {
        // A room that stops between here and its mailbox answers by dropping the reply, which reads as unavailable.
        self.open(&room, ctx).do_send(join);
    }
}

impl Handler<HostRoom> for Rooms {
    type Result = ();

    fn handle(&mut self, HostRoom(room): HostRoom, ctx: &mut Self::Context) {
        self.open(&room, ctx).do_send(Host);
    }
}

impl Handler<OpenRooms> for Rooms {
    type Result = MessageResult<OpenRooms>;

    fn handle(&mut self, OpenRooms: OpenRooms, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.rooms.keys().cloned().collect())
    }
}

impl Handler<FindSession> for Rooms {
    type Result = ResponseFuture<Option<Addr<Participant>>>;

    fn handle(&mut self, FindSession { room, find }: FindSession, _: &mut Self::Context) -> Self::Result {
        let room = self.rooms.get(&room).cloned();
        Box::pin(async move { room?.send(find).await.ok().flatten() })
    }
}

impl Handler<FindRoom> for Rooms {
    type Result = Option<Addr<Room>>;

    fn handle(&mut self, FindRoom(name): FindRoom, _: &mut Self::Context) -> Self::Result {
        self.rooms.get(&name).filter(|room| room.connected()).cloned()
    }
}

impl Handler<StartRecording> for Rooms {
    type Result = ();

    fn handle(&mut self, StartRecording(held): StartRecording, _: &mut Self::Context) {
        self.recorders.retain(|_, recorder| recorder.connected());
        let key = (held.egress.id.clone(), held.epoch);
        self.recorders.insert(key, Recorder::new(self.shared.clone(), held).start());
    }
}

impl Handler<ToRecorder> for Rooms {
    type Result = ();

    fn handle(&mut self, ToRecorder { recording, ask }: ToRecorder, _: &mut Self::Context) {
        let recorder = match ask {
            Ask::Fence { epoch } => self.recorders.get(&(recording, epoch)),
            // Whoever had it before is about to be fenced.
            _ => self
                .recorders
                .range((recording.clone(), 0)..=(recording, u64::MAX))
                .next_back()
                .map(|(_, newest)| newest),
        };
        if let Some(recorder) = recorder {
            recorder.do_send(ask);
        }
    }
}

impl Handler<FollowRoom> for Rooms {
    type Result = ();

    fn handle(&mut self, FollowRoom { room, follow }: FollowRoom, ctx: &mut Self::Context) {
        let room = self.open(&room, ctx);
        room.do_send(Host);
        room.do_send(follow);
    }
}

impl Handler<UnfollowRoom> for Rooms {
    type Result = ();

    fn handle(&mut self, UnfollowRoom { room, unfollow }: UnfollowRoom, _: &mut Self::Context) {
        if let Some(room) = self.rooms.get(&room) {
            room.do_send(unfollow);
        }
    }
}

impl Handler<RouterLost> for Rooms {
    type Result = ();

    fn handle(&mut self, RouterLost: RouterLost, _: &mut Self::Context) {
        self.rooms.values().for_each(|room| room.do_send(RouterLost));
    }
}

impl Handler<RoomClosing> for Rooms {
    type Result = ();

    fn handle(&mut self, RoomClosing { name, room }: RoomClosing, _: &mut Self::Context) {
        if self.rooms.get(&name) == Some(&room) {
            self.rooms.remove(&name);
        }
    }
}

impl Handler<EnforceBans> for Rooms {
    type Result = ();

    fn handle(&mut self, ask: EnforceBans, _: &mut Self::Context) {
        let meant = |(name, _): &(&RoomName, &Addr<Room>)| ask.room.as_ref().is_none_or(|room| room == *name);
        for (_, room) in self.rooms.iter().filter(meant) {
            room.do_send(ask.clone());
        }
    }
}

impl Handler<Count> for Rooms {
    type Result = ResponseFuture<Vec<Seats>>;

    fn handle(&mut self, Count: Count, _: &mut Self::Context) -> Self::Result {
        let rooms: Vec<_> = self.rooms.values().map(|room| room.send(CountRoom)).collect();
        // A room that ends meanwhile has nobody.
        Box::pin(async move { join_all(rooms).await.into_iter().flatten().collect() })
    }
}

impl Handler<MovePeople> for Rooms {
    type Result = ();

    fn handle(&mut self, wave: MovePeople, _: &mut Self::Context) {
        if let Some(room) = self.rooms.get(&wave.room) {
            room.do_send(wave);
        }
    }
}

impl Handler<Lapsed> for Rooms {
    type Result = ();

    fn handle(&mut self, Lapsed: Lapsed, _: &mut Self::Context) {
        self.rooms.values().for_each(|room| room.do_send(Lapsed));
    }
}

impl Handler<Parted> for Rooms {
    type Result = ();

    fn handle(&mut self, parted: Parted, _: &mut Self::Context) {
        self.rooms.values().for_each(|room| room.do_send(parted.clone()));
    }
}

impl Handler<RoomEnded> for Rooms {
    type Result = ();

    fn handle(&mut self, RoomEnded { name, crashed, deserted }: RoomEnded, ctx: &mut Self::Context) {
        if crashed {
            PanicCaught { what: "room" }.emit();
        }
        // The name may have been opened anew while the notice was on its way.
        if self.rooms.get(&name).is_some_and(|room| !room.connected()) {
            self.rooms.remove(&name);
        }
        if deserted {
            self.open(&name, ctx).do_send(Host);
        }
    }
}

impl Handler<Shutdown> for Rooms {
    type Result = ();

    fn handle(&mut self, Shutdown { reconnect }: Shutdown, _: &mut Self::Context) {
        for room in self.rooms.values() {
            room.do_send(Shutdown { reconnect });
        }
        for recorder in self.recorders.values() {
            recorder.do_send(Shutdown { reconnect });
        }
    }
}

/// Joins and look-ups that may wait; they come by awaited sends, which carry their own deadline.
const MAILBOX: usize = 1024;
