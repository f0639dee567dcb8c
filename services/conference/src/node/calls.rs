//! The room API and the join door's questions, answered from the store and by the node that hosts whoever is meant.

use std::{
    collections::BTreeSet,
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use futures_util::future::LocalBoxFuture;
use plenary_cluster::{Bans, BusError, EgressFilter, EgressRefusal, NewRoom, Request, StoreError};
use plenary_model::{
    Admin, Ban, Codec, Destination, Identity, LeaveReason, NodeId, ParticipantKind, RoomName, RoomSnapshot,
};
use tokio::time::timeout;

use super::{RouterHandle, Shared};
use crate::{
    front::{
        authorize::{JoinAsk, Refusal, RoomGate},
        health::Unready,
        room_api::{ApiError, CreateRoom, NodeView, RoomApi, RoomCall, RoomReply, RouterView},
    },
    rooms::HostRoom,
    telemetry,
    tokens::unix_seconds,
};

impl RoomApi for Shared {
    fn call(&self, call: RoomCall) -> LocalBoxFuture<'_, Result<RoomReply, ApiError>> {
        Box::pin(async move { timeout(CALL_WITHIN, self.carry_out(call)).await.unwrap_or(Err(ApiError::Timeout)) })
    }

    fn codecs(&self) -> &[Codec] {
        &self.server_identity.codecs
    }
}

impl RoomGate for Shared {
    fn admit<'a>(&'a self, ask: &'a JoinAsk) -> LocalBoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async move {
            if let Some(why) = self.turns_away() {
                return Err(Refusal::NodeUnavailable(why.name()));
            }
            match self.store.snapshot(ask.room.clone()).await {
                Ok(snapshot) if is_full_for(&snapshot, ask) => Err(Refusal::RoomFull),
                Ok(_) => Ok(()),
                Err(StoreError::NoSuchRoom) if !self.may_create(&ask.claims) => Err(Refusal::RoomNotFound),
                Err(StoreError::NoSuchRoom) if !self.has_place_for_a_room() => {
                    Err(Refusal::NodeUnavailable("it has as many rooms as it may"))
                }
                Err(StoreError::NoSuchRoom) => {
                    let new = self.new_room(ask.room.clone(), &ask.claims);
                    new.map(drop).map_err(|why| Refusal::CannotRecord(why.message))
                }
                Err(_) => Err(Refusal::NodeUnavailable("the store did not answer")),
            }
        })
    }
}

impl Shared {
    async fn carry_out(&self, call: RoomCall) -> Result<RoomReply, ApiError> {
        match call {
            RoomCall::CreateRoom(create) => self.create(create).await,
            RoomCall::ListRooms { names } => {
                let names = match names {
                    // To the store an empty list means all; to the caller it means none.
                    Some(names) if names.is_empty() => return Ok(RoomReply::Rooms(Vec::new())),
                    names => names.unwrap_or_default(),
                };
                Ok(RoomReply::Rooms(self.store.rooms(names).await?))
            }
            RoomCall::DeleteRoom { room } => {
                self.store.delete(room, LeaveReason::RoomDeleted).await?;
                Ok(RoomReply::Done)
            }
            RoomCall::SetMetadata { room, metadata } => {
                if metadata.len() > self.limits.metadata_bytes {
                    return Err(ApiError::TooLarge);
                }
                let mut info = self.store.snapshot(room.clone()).await?.room;
                info.metadata = metadata;
                self.store.set_meta(room, info.clone()).await?;
                Ok(RoomReply::Room(info))
            }
            RoomCall::ListParticipants { room } => {
                let records = self.store.snapshot(room).await?.records;
                let people = records.iter().map(|record| record.participant.clone().into());
                Ok(RoomReply::Participants(people.collect()))
            }
            RoomCall::GetParticipant { room, identity } => {
                let snapshot = self.store.snapshot(room).await?;
                let record = snapshot.records.iter().find(|record| record.participant.identity == identity);
                record
                    .map(|one| RoomReply::Participant(one.participant.clone().into()))
                    .ok_or(ApiError::NoSuchParticipant)
            }
            RoomCall::Admin { room, what } => self.administer(room, what).await,
            RoomCall::Revoke { room, identity, issued_before_unix_s: before } => {
                let now_unix_s = unix_seconds();
                let life_s = self.token_life_max.as_secs();
                // A moment far ahead would refuse tokens that nobody has thought of yet.
                if before > now_unix_s.saturating_add(life_s) {
                    return Err(ApiError::BadTime);
                }
                let until_unix_s = before.max(now_unix_s).saturating_add(life_s);
                let ban = Ban { identity, room: Some(room), tokens_before_unix_s: Some(before), until_unix_s };
                self.store.ban(ban, now_unix_s).await?;
                Ok(RoomReply::Done)
            }
            RoomCall::Ban { room, identity, until_unix_s } => {
                let now_unix_s = unix_seconds();
                if until_unix_s <= now_unix_s || until_unix_s > now_unix_s.saturating_add(BAN_LIFE_MAX.as_secs()) {
                    return Err(ApiError::BadTime);
                }
                let ban = Ban { identity, room, tokens_before_unix_s: None, until_unix_s };
                self.store.ban(ban, now_unix_s).await?;
                Ok(RoomReply::Done)
            }
            RoomCall::StartEgress(ask) => {
                self.can_record()?;
                self.egresses.start(ask).await.map(RoomReply::Egress)
            }
            RoomCall::StopEgress { egress } => self.egresses.stop(&egress).await.map(RoomReply::Egress),
            RoomCall::UpdateLayout { egress, layout } => {
                self.egresses.update_layout(&egress, &layout).await.map(RoomReply::Egress)
            }
            RoomCall::ListEgress { room, egress: id, active } => {
                self.egresses.list(EgressFilter { room, id, active }).await.map(RoomReply::Egresses)
            }
            RoomCall::Drain if self.is_alone => Err(ApiError::Alone),
            RoomCall::Drain => self.drain().then_some(RoomReply::Done).ok_or(ApiError::Unavailable),
            RoomCall::Undrain => self.undrain().then_some(RoomReply::Done).ok_or(ApiError::Unavailable),
            RoomCall::LiftBan { room, identity } => match self.store.lift_ban(identity, room).await? {
                true => Ok(RoomReply::Done),
                false => Err(ApiError::NoSuchBan),
            },
            RoomCall::DescribeNode => Ok(RoomReply::Node(self.describe())),
            RoomCall::ListBans { room } => {
                let now_unix_s = unix_seconds();
                let mut bans = Bans::from_list(self.store.bans(now_unix_s).await?, now_unix_s).list(now_unix_s);
                bans.retain(|ban| room.is_none() || ban.room == room);
                Ok(RoomReply::Bans(bans))
            }
        }
    }

    fn describe(&self) -> NodeView {
        let routers = self.routers.read().unwrap_or_else(PoisonError::into_inner);
        let router = |router: &RouterHandle| {
            let counters = &router.counters;
            RouterView {
                transports: counters.peers.get(),
                tracks: counters.tracks.get(),
                subscriptions: counters.subscriptions.get(),
                links: counters.links.get(),
                link_rtt_us: counters.link_rtt_us.get(),
                pulled_streams: counters.link_pulls.get(),
                wanted_tracks: counters.link_wants.get(),
                withheld_streams: counters.link_withheld.get(),
            }
        };
        NodeView {
            node: self.node.clone(),
            unready: self.unready().map(Unready::name),
            rooms: self.rooms_open.load(Ordering::Relaxed),
            sessions: self.sessions.load(Ordering::Relaxed),
            routers: routers.iter().map(router).collect(),
            others: self.neighbours.others(),
        }
    }

    async fn create(&self, create: CreateRoom) -> Result<RoomReply, ApiError> {
        if create.metadata.as_ref().is_some_and(|metadata| metadata.len() > self.limits.metadata_bytes) {
            return Err(ApiError::TooLarge);
        }
        if !create.auto_egress.is_empty() {
            self.can_record()?;
        }
        let name = create.name.clone();
        if !self.has_place_for_a_room() && self.store.snapshot(name.clone()).await.is_err() {
            return Err(ApiError::TooManyRooms);
        }
        let new = NewRoom {
            metadata: create.metadata,
            empty_timeout_s: create.empty_timeout_s,
            departure_timeout_s: create.departure_timeout_s,
            max_participants: create.max_participants,
            auto_egress: create.auto_egress,
            ..self.blank_room(create.name)
        };
        let info = self.store.create(new).await?;
        // Somebody has to close it if nobody comes.
        self.rooms_for(&name).do_send(HostRoom(name.clone()));
        Ok(RoomReply::Room(info))
    }

    async fn administer(&self, room: RoomName, what: Admin) -> Result<RoomReply, ApiError> {
        let snapshot = self.store.snapshot(room.clone()).await?;
        let nodes = match named(&what) {
            Some(identity) => {
                let host = host_of(&snapshot, identity).ok_or(ApiError::NoSuchParticipant)?;
                BTreeSet::from([host])
            }
            None => snapshot.records.iter().map(|record| record.node.clone()).collect(),
        };
        let mut reply = RoomReply::Done;
        for node in nodes {
            let trace = telemetry::trace_parent(&tracing::Span::current());
            let request = Request { room: room.clone(), what: what.clone(), trace };
            if let Some(participant) = self.bus.request(node, request).await?? {
                reply = RoomReply::Participant(participant);
            }
        }
        Ok(reply)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSuchRoom => Self::NoSuchRoom,
            StoreError::TooManyBans => Self::TooManyBans,
            StoreError::Egress(EgressRefusal::NotThere) => Self::NoSuchEgress,
            StoreError::Egress(EgressRefusal::TooMany) => Self::TooManyEgresses,
            StoreError::Full
            | StoreError::Superseded
            | StoreError::Banned
            | StoreError::Revoked
            | StoreError::Egress(EgressRefusal::Held | EgressRefusal::Changed | EgressRefusal::Over) => Self::Fault,
            StoreError::Unavailable => Self::Unavailable,
        }
    }
}

impl From<BusError> for ApiError {
    fn from(error: BusError) -> Self {
        match error {
            BusError::Timeout => Self::Timeout,
            BusError::NoSuchNode | BusError::Unavailable => Self::Unavailable,
        }
    }
}

/// The one person an instruction is about.
fn named(what: &Admin) -> Option<&Identity> {
    match what {
        Admin::Remove { identity }
        | Admin::Mute { identity, .. }
        | Admin::Update { identity, .. }
        | Admin::Subscribe { identity, .. } => Some(identity),
        Admin::Send { to: Destination::Everybody | Destination::Identities(_) | Destination::Sids(_), .. } => None,
    }
}

fn host_of(snapshot: &RoomSnapshot, identity: &Identity) -> Option<NodeId> {
    snapshot.records.iter().find(|record| record.participant.identity == *identity).map(|record| record.node.clone())
}

/// Whether the store would refuse this join for want of seats; whoever replaces an older session has one.
fn is_full_for(snapshot: &RoomSnapshot, ask: &JoinAsk) -> bool {
    let cap = snapshot.room.max_participants;
    let uncounted = ask.permission.hidden
        || ask.permission.recorder
        || ask.permission.agent
        || matches!(ask.kind, ParticipantKind::Agent | ParticipantKind::Egress);
    cap > 0 && !uncounted && snapshot.room.participants >= cap && host_of(snapshot, &ask.identity).is_none()
}

/// Nobody is kept out for longer without being asked about again.
const BAN_LIFE_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

const CALL_WITHIN: Duration = Duration::from_secs(5);
