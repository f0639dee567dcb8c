//! The node: starts everything in order, holds what its threads share, and stops it in order.

mod calls;
pub mod drain;
mod media_metrics;
mod memory;
mod recordings;
mod supervisor;

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use actix::{Actor, Addr, Arbiter};
use actix_web::dev::ServerHandle;
use plenary_cluster::{AUTOMATIC_EGRESS, Bus, InProcess, NewRoom, Observer, Redis, RedisConfig, RoomDefaults, Store};
use plenary_media_core::{Command, DtlsIdentity, Router};
use plenary_model::{LeaveReason, NodeId, NodeState, RoomName};
use plenary_protocol::token::Claims;
use plenary_room_core::{room, session};
use secrecy::ExposeSecret;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

use self::memory::MemoryWatch;
use self::supervisor::{ServeInbox, StartRouters, StopRouters, Supervisor};
use crate::{
    bans::{self, BanCopy},
    config::{self, KeySettings, Settings},
    egress::Egresses,
    events::{self, NodeStarted, NodeStopping},
    front::{self, Opened, convert::ServerIdentity, health::Unready, room_api::ApiError, twirp::TwirpError},
    ids,
    keys::{self, KeyRing},
    lease,
    letters::Letters,
    media_router::{MediaRouterHandle, RouterIndex, Tell},
    metrics::instruments,
    neighbours::{self, Neighbours, slot},
    participant::Shutdown,
    reach::Reach,
    recording,
    rooms::Rooms,
    tokens::unix_ms,
    turn::TurnServers,
    webhooks::{self, Webhooks},
};

/// A media router as everybody else holds it: one address, so that its mailbox bound holds.
pub type RouterHandle = Arc<MediaRouterHandle<Router>>;

/// What the threads of a node share. Fixed after the start but for the routers, which may be rebuilt.
pub struct Shared {
    pub node: NodeId,
    pub store: Arc<dyn Store>,
    pub bus: Arc<dyn Bus>,
    pub keys: Arc<KeyRing>,
    pub bans: Arc<BanCopy>,
    /// The store may have lost something that no break of the bus showed.
    pub store_doubted: Notify,
    pub neighbours: Arc<Neighbours>,
    pub reach: Arc<Reach>,
    pub letters: Arc<Letters>,
    egresses: Arc<Egresses>,
    pub recording: config::Recording,
    /// Tells this process from others that believe to record the same.
    pub boot: u64,
    pub server_identity: Arc<ServerIdentity>,
    pub session_settings: session::Settings,
    pub room_settings: room::Settings,
    pub turn: Arc<TurnServers>,
    pub limits: config::Limits,
    /// The longest that a token can be good for, clocks that differ included: so long a revocation is remembered.
    pub token_life_max: Duration,
    room: config::Room,
    people_per_router: u32,
    /// One registry per room thread; a room name always hashes to the same one.
    rooms: OnceLock<Vec<Addr<Rooms>>>,
    routers: RwLock<Vec<RouterHandle>>,
    rooms_open: AtomicUsize,
    sessions: AtomicUsize,
    recordings: AtomicUsize,
    memory: MemoryWatch,
    phase: watch::Sender<Phase>,
    /// Without others nobody could go anywhere.
    is_alone: bool,
}

/// A node's life, in order but for a drain that is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Serving,
    /// Balancers shall send nobody new; who comes nevertheless is served.
    Draining,
    /// Nobody is taken, and those who are here are moved.
    Leaving,
    /// The drain is over.
    Empty,
    Stopping,
}

impl Phase {
    fn drains(self) -> bool {
        matches!(self, Self::Draining | Self::Leaving)
    }
}

impl Shared {
    fn new(settings: &Settings, node: NodeId, store: Arc<dyn Store>, bus: Arc<dyn Bus>) -> Self {
        let identity = ServerIdentity {
            node_id: node.to_string(),
            region: String::new(),
            sif_trailer: ids::random::<SIF_TRAILER_BYTES>().to_vec(),
            codecs: settings.room.codecs.clone().into(),
        };
        Self {
            neighbours: Arc::new(Neighbours::new(node.clone())),
            reach: Arc::default(),
            letters: Arc::new(Letters::new(bus.clone())),
            egresses: Egresses::new(store.clone(), node.clone()).into(),
            recording: settings.recording.clone(),
            boot: ids::seed(),
            node,
            store,
            bus,
            keys: KeyRing::new(settings),
            bans: Arc::default(),
            store_doubted: Notify::new(),
            server_identity: Arc::new(identity),
            session_settings: session_settings(settings),
            room_settings: room::Settings {
                remote_unmute: settings.room_api.remote_unmute,
                counts_interval: COUNTS_INTERVAL,
                metadata_bytes_max: settings.limits.metadata_bytes,
                attributes_bytes_max: settings.limits.attributes_bytes,
            },
            turn: Arc::new(TurnServers::new(&settings.turn)),
            limits: settings.limits.clone(),
            token_life_max: settings.signal.token_life_max.saturating_add(settings.signal.token_leeway),
            room: settings.room.clone(),
            people_per_router: settings.media.people_per_router,
            rooms: OnceLock::new(),
            routers: RwLock::new(Vec::new()),
            rooms_open: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
            recordings: AtomicUsize::new(0),
            memory: MemoryWatch::new(settings.limits.memory_percent),
            phase: watch::Sender::new(Phase::Starting),
            is_alone: settings.cluster.is_none(),
        }
    }

    /// The registry that holds this room, if anybody does.
    pub fn rooms_for(&self, room: &RoomName) -> &Addr<Rooms> {
        let threads = self.rooms.get().expect("set before the doors open");
        &threads[slot(room, threads.len())]
    }

    /// Every registry.
    pub fn room_threads(&self) -> impl Iterator<Item = &Addr<Rooms>> {
        self.rooms.get().into_iter().flatten()
    }

    /// Where the media of the next of a room goes. `people`: how many of the room a router has.
    pub fn router_for(&self, room: &RoomName, people: impl Fn(RouterIndex) -> u32) -> RouterHandle {
        let routers = self.routers.read().unwrap_or_else(PoisonError::into_inner);
        let people: Vec<_> = routers.iter().map(|router| people(router.index)).collect();
        routers[neighbours::place(room, &people, self.people_per_router)].clone()
    }

    /// The router that a room begins with.
    pub fn own_router(&self, room: &RoomName) -> RouterHandle {
        let routers = self.routers.read().unwrap_or_else(PoisonError::into_inner);
        routers[slot(room, routers.len())].clone()
    }

    /// A router of this node, if it lives.
    pub fn router_at(&self, index: RouterIndex) -> Option<RouterHandle> {
        let routers = self.routers.read().unwrap_or_else(PoisonError::into_inner);
        routers.get(usize::from(index)).filter(|router| router.addr.connected()).cloned()
    }

    /// Tells every router which others there are, and what to tell them of this node.
    pub fn introduce_routers(&self) {
        let routers = self.routers.read().unwrap_or_else(PoisonError::into_inner);
        for (at, router) in routers.iter().enumerate() {
            let neighbours = Command::SetNeighbours { routers: self.neighbours.of_router(at) };
            let reach = Command::SetReachesStore { reaches: self.reach.has_store() };
            // A router that is so far behind hears of the next change.
            let _ = router.addr.try_send(Tell(neighbours)).and_then(|()| router.addr.try_send(Tell(reach)));
        }
    }

    /// Why nobody shall be sent here now.
    pub fn unready(&self) -> Option<Unready> {
        match *self.phase.borrow() {
            Phase::Draining => Some(Unready::Leaving),
            _ => self.turns_away(),
        }
    }

    /// Why whoever comes now is not taken.
    pub fn turns_away(&self) -> Option<Unready> {
        match *self.phase.borrow() {
            Phase::Starting => Some(Unready::Starting),
            Phase::Serving | Phase::Draining if self.reach.is_cut_off(Instant::now()) => Some(Unready::CutOff),
            Phase::Serving | Phase::Draining => self.memory.is_short().then_some(Unready::Overloaded),
            Phase::Leaving | Phase::Empty | Phase::Stopping => Some(Unready::Leaving),
        }
    }

    /// As the other nodes hear of it.
    pub fn state(&self) -> NodeState {
        match self.unready() {
            None => NodeState::Serving,
            Some(Unready::Leaving) => NodeState::Draining,
            Some(Unready::Starting | Unready::Overloaded | Unready::CutOff) => NodeState::Full,
        }
    }

    /// Has the node's people go to the others, if there are any. True if that is under way or done.
    fn drain(&self) -> bool {
        self.turn_phase(Phase::Serving, Phase::Draining);
        self.egresses.hand_over(true);
        let phase = *self.phase.borrow();
        phase.drains() || phase == Phase::Empty
    }

    /// Takes people again. Who was told to go goes. True if the node serves.
    fn undrain(&self) -> bool {
        for drained in [Phase::Draining, Phase::Leaving, Phase::Empty] {
            self.turn_phase(drained, Phase::Serving);
        }
        self.egresses.hand_over(false);
        *self.phase.borrow() == Phase::Serving
    }

    fn turn_phase(&self, from: Phase, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let turns = *phase == from;
            if turns {
                *phase = to;
            }
            turns
        });
    }

    pub fn may_create(&self, claims: &Claims) -> bool {
        self.room.auto_create || claims.video.room_create
    }

    /// The room a join or a call may make, with what its token configures. Refused if that is to be recorded and cannot be.
    pub fn new_room(&self, name: RoomName, claims: &Claims) -> Result<NewRoom, TwirpError> {
        // A configuration that cannot be read configures nothing; the token is otherwise good.
        let asked = claims.room_configuration().ok().flatten().unwrap_or_default();
        let number = |value: u32| (value > 0).then_some(value);
        let auto_egress = front::egress::kept(asked.egress.as_ref(), &name)?;
        if !auto_egress.is_empty() {
            self.can_record()?;
        }
        Ok(NewRoom {
            auto_egress,
            metadata: (!asked.metadata.is_empty()).then_some(asked.metadata),
            empty_timeout_s: number(asked.empty_timeout),
            departure_timeout_s: number(asked.departure_timeout),
            max_participants: number(asked.max_participants),
            ..self.blank_room(name)
        })
    }

    /// Whether somebody makes recordings: this node or another.
    pub fn can_record(&self) -> Result<(), ApiError> {
        let can = self.recording.directory.is_some() || self.neighbours.others_record();
        can.then_some(()).ok_or(ApiError::NothingRecorded)
    }

    fn blank_room(&self, name: RoomName) -> NewRoom {
        let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        let cap = match (self.room.max_participants, self.limits.participants_per_room) {
            (0, limit) | (limit, 0) => limit,
            (room, limit) => room.min(limit),
        };
        NewRoom {
            name,
            sid: ids::room(),
            view: ids::seed(),
            now_unix_ms: unix_ms(),
            metadata: None,
            empty_timeout_s: None,
            departure_timeout_s: None,
            max_participants: None,
            auto_egress: Default::default(),
            defaults: RoomDefaults {
                empty_timeout_s: seconds(self.room.empty_timeout),
                departure_timeout_s: seconds(self.room.departure_timeout),
                max_participants: cap,
            },
        }
    }

    /// Counts a room that opens here; false where the node has as many as it may.
    pub fn room_opens(&self) -> bool {
        let limit = usize::try_from(self.limits.rooms).unwrap_or(usize::MAX);
        let counted = self.rooms_open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
            (limit == 0 || open < limit).then_some(open.saturating_add(1))
        });
        counted.is_ok()
    }

    fn has_place_for_a_room(&self) -> bool {
        let limit = usize::try_from(self.limits.rooms).unwrap_or(usize::MAX);
        limit == 0 || self.rooms_open.load(Ordering::Relaxed) < limit
    }

    fn rooms_occupied(&self) -> bool {
        self.sessions.load(Ordering::Relaxed) > 0
    }

    /// Counts a session until what this gives back is dropped.
    pub fn session_opens(self: &Arc<Self>) -> SessionCounted {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        SessionCounted(self.clone())
    }

    pub fn room_closed(&self) {
        self.rooms_open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a recording until what this gives back is dropped.
    pub fn recording_opens(self: &Arc<Self>) -> RecordingCounted {
        self.recordings.fetch_add(1, Ordering::Relaxed);
        instruments().recordings.add(1, &[]);
        RecordingCounted(self.clone())
    }

    pub fn is_alone(&self) -> bool {
        self.is_alone
    }
}

impl Shared {
    /// Of a node that is alone nothing is left.
    async fn end_own_rooms(&self) {
        if !self.is_alone {
            return;
        }
        for room in self.store.rooms(Vec::new()).await.unwrap_or_default() {
            // Its own timeout may have been quicker.
            let _ = self.store.delete(room.name, LeaveReason::ServerShutdown).await;
        }
    }
}

/// One session of this node.
pub struct SessionCounted(Arc<Shared>);

impl Drop for SessionCounted {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One recording of this node.
pub struct RecordingCounted(Arc<Shared>);

impl Drop for RecordingCounted {
    fn drop(&mut self) {
        self.0.recordings.fetch_sub(1, Ordering::Relaxed);
        instruments().recordings.add(-1, &[]);
    }
}

/// A running node.
pub struct Node {
    shared: Arc<Shared>,
    supervisor: Addr<Supervisor>,
    doors: Vec<ServerHandle>,
    /// End with the node.
    tasks: Vec<JoinHandle<()>>,
    reload_keys: Arc<Notify>,
    /// Outlive everybody of whom something is to be told.
    webhooks: Option<Webhooks>,
    /// What is being rendered goes on at the next start.
    cancel_compose: Arc<AtomicBool>,
    drain_deadline: Duration,
    /// Keep their threads alive; dropping one does not stop it.
    arbiters: Vec<Arbiter>,
    pub http: SocketAddr,
    /// Where bans are asked for, if anywhere.
    pub admin: Option<SocketAddr>,
}

impl Node {
    /// Binds every port before it returns, so that an error names what is taken. Needs a running actix system.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let node = ids::node();
        let (store, bus) = cluster(&settings, &node)?;
        let shared = Arc::new(Shared::new(&settings, node, store, bus));
        let supervisor = Supervisor::new(&settings, DtlsIdentity::generate()?, shared.clone()).start();
        supervisor.send(StartRouters).await??;
        let arbiters: Vec<_> = (0..room_threads()).map(|_| Arbiter::new()).collect();
        let rooms = arbiters.iter().map(|arbiter| {
            let shared = shared.clone();
            Rooms::start_in_arbiter(&arbiter.handle(), move |_| Rooms::new(shared))
        });
        if shared.rooms.set(rooms.collect()).is_err() {
            unreachable!("a node starts once");
        }
        let Settings { keys, published_keys: published, key_files: files, key_source, .. } = settings.clone();
        shared.keys.replace(KeySettings { keys, published, files: files.clone() })?;
        let codecs = &shared.server_identity.codecs;
        let start = |webhook| Webhooks::start(webhook, &shared.store, &shared.keys, codecs);
        let webhooks = settings.webhook.as_ref().map(start).transpose()?;
        let reload_keys = Arc::new(Notify::new());
        let serving = serve(shared.clone(), supervisor.clone());
        let mut tasks = vec![
            tokio::spawn(keys::watch(key_source, files, shared.keys.clone(), reload_keys.clone())),
            tokio::spawn(bans::follow(shared.clone())),
            tokio::spawn(lease::hold(shared.clone())),
            tokio::spawn(drain::carry(shared.clone(), settings.drain.clone())),
        ];
        recording::tend(&settings.recording)?;
        let cancel_compose = Arc::new(AtomicBool::new(false));
        recording::compose(&settings.recording, cancel_compose.clone())?;
        if settings.recording.directory.is_some() {
            shared.egresses.record(Arc::new(recordings::NodeRecorder(Arc::downgrade(&shared))));
        }
        let Opened { doors, http, admin } = front::listen(&settings, shared.clone())?;
        NodeStarted { node: shared.node.clone(), http }.emit();
        if serving.await.is_none() {
            // Until Redis is there nobody is sent here, and the node waits for it.
            let (shared, supervisor) = (shared.clone(), supervisor.clone());
            tasks.push(tokio::spawn(async move {
                while serve(shared.clone(), supervisor.clone()).await.is_none() {
                    tokio::time::sleep(SERVE_AGAIN_AFTER).await;
                }
            }));
        }
        let drain_deadline = settings.drain.deadline;
        Ok(Self {
            shared,
            supervisor,
            doors,
            tasks,
            reload_keys,
            webhooks,
            cancel_compose,
            drain_deadline,
            arbiters,
            http,
            admin,
        })
    }

    /// Reads the keys again, from the files and variables they came from.
    pub fn reload_keys(&self) {
        self.reload_keys.notify_one();
    }

    /// Has everybody go to the other nodes, if there are any. True once they have or their time is up, false if somebody
    /// undid it.
    pub async fn drain(&self) -> bool {
        if self.shared.is_alone {
            return true;
        }
        let mut phase = self.shared.phase.subscribe();
        self.shared.drain();
        phase.wait_for(|phase| !phase.drains()).await.is_ok_and(|phase| *phase != Phase::Serving)
    }

    /// Tells everybody to leave, waits until they have heard it, then closes the doors.
    pub async fn stop(self) {
        NodeStopping.emit();
        self.shared.phase.send_replace(Phase::Stopping);
        if !self.shared.is_alone {
            self.shared.egresses.hand_over(true);
        }
        for task in &self.tasks {
            task.abort();
        }
        for rooms in self.shared.room_threads() {
            rooms.do_send(Shutdown { reconnect: false });
        }
        let all_gone = async {
            while self.shared.rooms_occupied() {
                tokio::time::sleep(STOP_POLL).await;
            }
        };
        // Whoever does not read cannot hold up the others.
        let _ = tokio::time::timeout(GOODBYE_WITHIN, all_gone).await;
        for door in &self.doors {
            door.stop(true).await;
        }
        self.shared.egresses.finish(RECORDINGS_END_WITHIN).await;
        let all_written = async {
            while self.shared.recordings.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(STOP_POLL).await;
            }
        };
        let _ = tokio::time::timeout(WRITE_LAST_WITHIN, all_written).await;
        self.cancel_compose.store(true, Ordering::Relaxed);
        // If this fails the lease runs out by itself.
        let _ = self.shared.store.release(self.shared.node.clone()).await;
        if let Some(webhooks) = self.webhooks {
            self.shared.end_own_rooms().await;
            webhooks.finish(self.drain_deadline.min(TELL_LAST_WITHIN)).await;
        }
        let _ = self.supervisor.send(StopRouters).await;
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
    }
}

/// The node takes what others ask of it, and people. None while the bus is away.
async fn serve(shared: Arc<Shared>, supervisor: Addr<Supervisor>) -> Option<()> {
    let inbox = shared.bus.serve(shared.node.clone()).await.ok()?;
    supervisor.do_send(ServeInbox(inbox));
    shared.turn_phase(Phase::Starting, Phase::Serving);
    Some(())
}

/// What is true of rooms, and who hears of it: in this process for a node that is alone.
fn cluster(settings: &Settings, node: &NodeId) -> anyhow::Result<(Arc<dyn Store>, Arc<dyn Bus>)> {
    // Of a cluster any node may record what happens at this one.
    let is_recorded = settings.recording.directory.is_some() || settings.cluster.is_some();
    let records = is_recorded.then(|| AUTOMATIC_EGRESS.to_owned());
    let destinations: Vec<_> = settings.webhook.iter().flat_map(webhooks::destinations).chain(records).collect();
    let Some(config::Cluster { redis, authority, keys, prefix, .. }) = &settings.cluster else {
        let alone = Arc::new(if destinations.is_empty() { InProcess::new() } else { InProcess::telling(destinations) });
        return Ok((alone.clone(), alone));
    };
    let config = RedisConfig {
        urls: redis.iter().map(|url| url.expose_secret().to_owned()).collect(),
        authority: authority.clone(),
        prefix: prefix.clone(),
        keys: keys.iter().map(|key| key.expose_secret().as_bytes().to_vec()).collect(),
        instance: node.to_string(),
        observer: Observer::new(events::of_redis),
        destinations,
    };
    let redis = Arc::new(Redis::new(config)?);
    Ok((redis.clone(), redis))
}

pub(crate) fn session_settings(settings: &Settings) -> session::Settings {
    let (signal, limits) = (&settings.signal, &settings.limits);
    session::Settings {
        ping_interval: signal.ping_interval,
        ping_timeout: signal.ping_timeout,
        join_timeout: signal.join_timeout,
        resume_window: signal.resume_window,
        detached_timeout: signal.detached_timeout,
        negotiation_timeout: signal.negotiation_timeout,
        offer_debounce: OFFER_DEBOUNCE,
        quality_interval: QUALITY_INTERVAL,
        refresh_interval: REFRESH_INTERVAL,
        announced_timeout: ANNOUNCED_TIMEOUT,
        not_found_timeout: NOT_FOUND_TIMEOUT,
        codecs: settings.room.codecs.clone().into(),
        tracks_max: limits.tracks_per_participant,
        announced_max: limits.tracks_pending,
        metadata_bytes_max: limits.metadata_bytes,
        attributes_bytes_max: limits.attributes_bytes,
        name_bytes_max: plenary_model::NAME_BYTES_MAX,
        messages_per_window: limits.signal_messages_per_10s,
        messages_window: Duration::from_secs(10),
        messages_burst: limits.signal_messages_burst,
    }
}

/// Rooms are light next to media: one thread for every four cores.
fn room_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(4))
}

/// Clients know a server-made frame by this many bytes at its end.
const SIF_TRAILER_BYTES: usize = 16;

const COUNTS_INTERVAL: Duration = Duration::from_secs(5);
const QUALITY_INTERVAL: Duration = Duration::from_secs(5);
const REFRESH_INTERVAL: Duration = Duration::from_secs(5 * 60);
const OFFER_DEBOUNCE: Duration = Duration::from_millis(20);
const ANNOUNCED_TIMEOUT: Duration = Duration::from_secs(30);
const NOT_FOUND_TIMEOUT: Duration = Duration::from_secs(60);

const SERVE_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// How long people get to hear that the node is leaving.
const GOODBYE_WITHIN: Duration = Duration::from_secs(3);
/// How long recordings get to finish their files. What is not whole by then is repaired after the next start.
const WRITE_LAST_WITHIN: Duration = Duration::from_secs(5);
/// How long host apps get to hear the last.
const TELL_LAST_WITHIN: Duration = Duration::from_secs(3);
/// How long recordings get to be handed over, or to become files.
const RECORDINGS_END_WITHIN: Duration = Duration::from_secs(3);
const STOP_POLL: Duration = Duration::from_millis(20);
