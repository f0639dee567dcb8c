//! Store and bus of a cluster: records in Redis, one script per change, which checks, writes, numbers and publishes it.
//!
//! Rooms are spread over the configured servers by their name's hash. Bans for every room are kept on each of them, so that
//! a join asks one server; requests between nodes travel over the first. Every call ends within a second.

mod bans;
mod egresses;
#[cfg(any(test, feature = "fuzzing"))]
mod fuzz;
mod leases;
mod outboxes;
mod requests;
mod scripts;
mod seal;
mod server;
mod shard;
mod values;
mod wire;
mod words;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_lc_rs::digest;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use plenary_model::{
    Ban, BanEntry, Egress, EgressId, Identity, LeaveReason, NodeId, NodeInfo, ParticipantSid, Record, RoomInfo,
    RoomName, RoomSnapshot, RoomWord,
};
use prost::Message;
use tokio::sync::watch;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::fuzz::read_anything;
use self::{
    requests::Requests,
    scripts::{CREATE, DELETE, FILLING, INFO, JOIN, LEAVE, PUT, RESTORE, SET_META, SNAPSHOT, TOUCH},
    seal::Seal,
    shard::{Ear, Heard, NamedScript, NoAnswer, Shard},
    values::{Answer, Settings, WrittenRecord, flags, reason_number},
    words::{Hearing, Letterboxes},
};
use crate::{
    AdminReply, Bus, BusError, EgressFilter, EgressLease, EgressRefusal, Inbox, Joined, Leased, Lost, MissReason,
    NewRoom, Observation, Observer, OutboxLease, ROOM_LIFE, Reached, Reaped, Recorder, Renewed, Request, Seat, Store,
    StoreError, StoredEgress, Subscription, Waiting,
    receive::{Subscriber, Untold},
};

/// See the module.
#[derive(Debug)]
pub struct Redis {
    shards: Vec<Arc<Shard>>,
    prefix: String,
    seal: Seal,
    requests: Requests,
    letterboxes: Letterboxes,
    observer: Observer,
    /// Whose outboxes changes fill.
    destinations: Vec<String>,
    outboxes_filled: watch::Sender<()>,
}

/// Does not print: it holds secrets.
#[derive(Clone)]
pub struct RedisConfig {
    /// In the same order on every node: a room's server follows from it. `redis://`, `rediss://` (TLS), `redis+unix://`; or
    /// `redis+sentinel://` and `rediss+sentinel://` with a Sentinel's address and the name of the service it watches.
    pub urls: Vec<String>,
    /// The certificates, as PEM, that TLS trusts instead of the machine's.
    pub authority: Option<Vec<u8>>,
    /// Goes before every key and channel.
    pub prefix: String,
    /// Known to every node: requests without a seal of one of these are not carried out. The first one seals.
    pub keys: Vec<Vec<u8>>,
    /// Told from every other node, also from this one's earlier life.
    pub instance: String,
    pub observer: Observer,
    /// Names of those who are told what happens, the same at every node: what happens waits in an outbox for each. With none
    /// nothing waits.
    pub destinations: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum RedisConfigError {
    #[error("no Redis URL is given")]
    NoUrl,
    #[error("no cluster key is given")]
    NoKey,
    /// The URL itself is not repeated: it may hold a password.
    #[error("Redis URL {number} cannot be used: {problem}")]
    Url { number: usize, problem: String },
}

impl Redis {
    /// Connects in the background: until it has, calls answer `Unavailable`. Needs a tokio runtime.
    pub fn new(config: RedisConfig) -> Result<Self, RedisConfigError> {
        let RedisConfig { urls, authority, prefix, keys, instance, observer, destinations } = config;
        let connect = |(number, url): (usize, &String)| match Shard::new(url, authority.as_deref(), observer.clone()) {
            Ok(shard) => Ok(Arc::new(shard)),
            Err(error) => Err(RedisConfigError::Url { number, problem: error.to_string() }),
        };
        let shards = (1..).zip(&urls).map(connect).collect::<Result<Vec<_>, _>>()?;
        let first = shards.first().ok_or(RedisConfigError::NoUrl)?.clone();
        let seal = Seal::new(&keys).ok_or(RedisConfigError::NoKey)?;
        let requests = Requests::new(first, &prefix, seal.clone(), &instance);
        let (letterboxes, outboxes_filled) = (Letterboxes::default(), watch::Sender::default());
        Ok(Self { shards, prefix, seal, requests, letterboxes, observer, destinations, outboxes_filled })
    }

    fn place(&self, room: &RoomName) -> Place<'_> {
        let digest = digest::digest(&digest::SHA256, room.as_str().as_bytes());
        let (tag, _) = digest.as_ref().split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
        let tag = u128::from_be_bytes(*tag);
        let shards = u128::try_from(self.shards.len()).unwrap_or(1).max(1);
        let at = usize::try_from(tag % shards).unwrap_or_default();
        let shard = self.shards.get(at).unwrap_or_else(|| unreachable!("there is one at least"));
        Place { shard, cluster: self, tag: format!("{tag:032x}"), name: room.clone() }
    }

    /// Where leases are kept, and over which nodes ask each other.
    fn first(&self) -> &Shard {
        self.shards.first().unwrap_or_else(|| unreachable!("there is one at least"))
    }

    /// Tells a subscriber what it reads in each message.
    fn ear<T: Send + Sync + 'static, M: IntoIterator<Item = T>>(
        &self,
        subscriber: Arc<Subscriber<T>>,
        mut read: impl FnMut(&[u8]) -> wire::Read<M> + Send + 'static,
    ) -> Ear {
        let observer = self.observer.clone();
        let missed = move |reason| observer.tell(Observation::Missed { reason });
        Box::new(move |heard| match heard {
            Heard::Message(bytes) => match read(bytes) {
                Ok(told) => told.into_iter().all(|one| match subscriber.tell(&Arc::new(one)) {
                    Ok(()) => true,
                    Err(Untold::QueueFull) => {
                        missed(MissReason::QueueFull);
                        true
                    }
                    Err(Untold::Gone) => false,
                }),
                // What cannot be read here may be readable in the store, which says it in another way.
                Err(wire::Unreadable) => {
                    missed(MissReason::Unreadable);
                    subscriber.tell_missed()
                }
            },
            Heard::Missed => subscriber.tell_missed(),
            Heard::Check => subscriber.listens(),
        })
    }
}

/// Where a room is kept.
struct Place<'r> {
    shard: &'r Arc<Shard>,
    cluster: &'r Redis,
    tag: String,
    name: RoomName,
}

impl Place<'_> {
    fn channel(&self) -> String {
        format!("{}{{{}}}", self.cluster.prefix, self.tag)
    }

    fn words_channel(&self) -> String {
        format!("{}:words", self.channel())
    }

    fn keys(&self) -> Vec<String> {
        let own = ["x", "p", "i", "g", "ended", "e", "e:recorders"].map(|kind| format!("{}:{kind}", self.channel()));
        let shared =
            ["rooms", "generation", "bans", "hosts:", "seated", "egresses", "egresses:changed", "egresses:unheld"];
        let shared = shared.map(|kind| format!("{}{kind}", self.cluster.prefix));
        let outboxes = self.cluster.destinations.iter().flat_map(|destination| {
            let [due, state] = self.cluster.outbox_keys(destination);
            [due, state, format!("{}:w:{destination}", self.channel())]
        });
        own.into_iter().chain(shared).chain(outboxes).collect()
    }

    async fn run(&self, script: &NamedScript, args: &[&[u8]]) -> Result<Answer, StoreError> {
        self.ask(script, args).await?.map_err(|word| refusal(&word))
    }

    /// The script's answer, or the word with which it refuses.
    async fn ask(&self, script: &NamedScript, args: &[&[u8]]) -> Result<Result<Answer, String>, NoAnswer> {
        let channel = self.channel();
        let life_ms = ROOM_LIFE.as_millis().to_string();
        let mut all: Vec<&[u8]> = vec![channel.as_bytes(), self.name.as_str().as_bytes(), life_ms.as_bytes()];
        all.extend_from_slice(args);
        let answer = self.shard.run(script, &self.keys(), &all).await?;
        if FILLING.contains(&script.name) {
            self.cluster.outboxes_filled.send_replace(());
        }
        Ok(answer.map(|values| Answer(values.into_iter())))
    }
}

fn refusal(word: &str) -> StoreError {
    match word {
        "no room" => StoreError::NoSuchRoom,
        "full" => StoreError::Full,
        "superseded" => StoreError::Superseded,
        "banned" => StoreError::Banned,
        "revoked" => StoreError::Revoked,
        "too many" => StoreError::TooManyBans,
        "no egress" => StoreError::Egress(EgressRefusal::NotThere),
        "too many egresses" => StoreError::Egress(EgressRefusal::TooMany),
        "held" => StoreError::Egress(EgressRefusal::Held),
        "changed" => StoreError::Egress(EgressRefusal::Changed),
        "over" => StoreError::Egress(EgressRefusal::Over),
        _ => StoreError::Unavailable,
    }
}

impl From<NoAnswer> for StoreError {
    fn from(_: NoAnswer) -> Self {
        Self::Unavailable
    }
}

impl From<NoAnswer> for BusError {
    fn from(_: NoAnswer) -> Self {
        Self::Unavailable
    }
}

impl From<wire::Unreadable> for StoreError {
    fn from(_: wire::Unreadable) -> Self {
        Self::Unavailable
    }
}

impl Store for Redis {
    fn create(&self, room: NewRoom) -> BoxFuture<'_, Result<RoomInfo, StoreError>> {
        Box::pin(async move {
            let place = self.place(&room.name);
            let Settings { sid, view, created, given, metadata, empty, departure, cap, auto } = room.into();
            let args: [&[u8]; 9] = [
                sid.as_bytes(),
                &view,
                created.as_bytes(),
                given.as_bytes(),
                metadata.as_bytes(),
                empty.as_bytes(),
                departure.as_bytes(),
                cap.as_bytes(),
                &auto,
            ];
            Ok(wire::room_info(&place.run(&CREATE, &args).await?.bytes()?)?)
        })
    }

    fn join(&self, room: RoomName, seat: Seat) -> BoxFuture<'_, Result<Joined, StoreError>> {
        Box::pin(async move {
            let place = self.place(&room);
            let Seat { participant, node, issued_unix_s, now_unix_s, create, trace } = seat;
            let participant_bytes = wire::Participant::from(&participant).encode_to_vec();
            let identity = participant.identity.as_str();
            let bans = [Some(&room), None].map(|place| format!("{}{identity}", values::ban_place(place)));
            let may_create: &[u8] = if create.is_some() { b"1" } else { b"0" };
            let [here, everywhere] = &bans;
            let (version, issued, now) = (
                participant.version.to_string(),
                issued_unix_s.unwrap_or_default().to_string(),
                now_unix_s.to_string(),
            );
            let flags = flags(&participant, self.is_telling());
            let mut args: Vec<&[u8]> = vec![
                identity.as_bytes(),
                participant.sid.as_str().as_bytes(),
                flags.as_bytes(),
                node.as_str().as_bytes(),
                version.as_bytes(),
                &participant_bytes,
                issued.as_bytes(),
                now.as_bytes(),
                here.as_bytes(),
                everywhere.as_bytes(),
                trace.as_deref().unwrap_or_default().as_bytes(),
                may_create,
            ];
            let new = create.map(Settings::from);
            if let Some(Settings { sid, view, created, metadata, empty, departure, cap, auto, .. }) = &new {
                args.extend([sid.as_bytes(), view, created.as_bytes(), metadata.as_bytes()]);
                args.extend([empty.as_bytes(), departure.as_bytes(), cap.as_bytes(), auto]);
            }
            let mut answer = place.run(&JOIN, &args).await?;
            let record = wire::record(&answer.bytes()?)?;
            let replaced = answer.optional().map(|bytes| wire::record(&bytes)).transpose()?;
            Ok(Joined { record, replaced, snapshot: answer.snapshot()? })
        })
    }

    fn put(&self, room: RoomName, record: Arc<Record>) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let written = WrittenRecord::new(&record, self.is_telling());
            self.place(&room).run(&PUT, &written.args()).await?.number()
        })
    }

    fn leave(
        &self,
        room: RoomName,
        identity: Identity,
        sid: ParticipantSid,
        generation: u64,
        reason: LeaveReason,
    ) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let (generation, reason) = (generation.to_string(), reason_number(reason));
            let args = [identity.as_str(), sid.as_str(), &generation, &reason].map(str::as_bytes);
            self.place(&room).run(&LEAVE, &args).await?.number()
        })
    }

    fn set_meta(&self, room: RoomName, info: RoomInfo) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let numbers = [info.empty_timeout_s, info.departure_timeout_s, info.max_participants]
                .map(|number| number.to_string());
            let [empty, departure, cap] = &numbers;
            let args = [info.metadata.as_str(), empty, departure, cap].map(str::as_bytes);
            self.place(&room).run(&SET_META, &args).await?.number()
        })
    }

    fn snapshot(&self, room: RoomName) -> BoxFuture<'_, Result<RoomSnapshot, StoreError>> {
        Box::pin(async move { self.place(&room).run(&SNAPSHOT, &[]).await?.snapshot() })
    }

    fn rooms(&self, names: Vec<RoomName>) -> BoxFuture<'_, Result<Vec<RoomInfo>, StoreError>> {
        Box::pin(async move {
            let mut names = names;
            if names.is_empty() {
                let mut list = redis::cmd("ZRANGE");
                list.arg(format!("{}rooms", self.prefix)).arg(0).arg(-1);
                for shard in &self.shards {
                    let listed: Vec<Vec<u8>> = shard.query("list_rooms", &list).await?;
                    let named = |bytes: &Vec<u8>| RoomName::try_from(std::str::from_utf8(bytes).ok()?).ok();
                    names.extend(listed.iter().filter_map(named));
                }
            }
            names.sort_unstable();
            names.dedup();
            let mut found = Vec::new();
            for some in names.chunks(LISTED_AT_ONCE) {
                let read = some.iter().map(async |name| match self.place(name).run(&INFO, &[]).await {
                    Ok(mut answer) => Ok(Some(wire::room_info(&answer.bytes()?)?)),
                    Err(StoreError::NoSuchRoom) => Ok(None),
                    Err(error) => Err(error),
                });
                for info in futures_util::future::join_all(read).await {
                    found.extend(info?);
                }
            }
            Ok(found)
        })
    }

    fn delete(&self, room: RoomName, reason: LeaveReason) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let reason = reason_number(reason);
            self.place(&room).run(&DELETE, &[reason.as_bytes(), b"0"]).await.map(drop)
        })
    }

    fn delete_if_empty(&self, room: RoomName) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let reason = reason_number(LeaveReason::RoomClosed);
            match self.place(&room).ask(&DELETE, &[reason.as_bytes(), b"1"]).await? {
                Ok(_) => Ok(true),
                Err(word) if word == "occupied" => Ok(false),
                Err(word) => Err(refusal(&word)),
            }
        })
    }

    fn touch(&self, room: RoomName) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.place(&room).run(&TOUCH, &[]).await.map(drop) })
    }

    fn restore(&self, room: RoomName, lost: Lost) -> BoxFuture<'_, Result<Vec<ParticipantSid>, StoreError>> {
        Box::pin(async move {
            let place = self.place(&room);
            let Lost { view, seq, info, records } = lost;
            let (view, seq) = (view.to_le_bytes(), seq.to_string());
            let numbers = [
                info.created_at_ms.to_string(),
                info.empty_timeout_s.to_string(),
                info.departure_timeout_s.to_string(),
                info.max_participants.to_string(),
            ];
            let [created, empty, departure, cap] = &numbers;
            let mut over = Vec::new();
            // The room is put back even if nobody of ours is in it.
            let batches = records.chunks(RESTORED_AT_ONCE).chain(records.is_empty().then_some(&[][..]));
            for batch in batches {
                let written: Vec<_> =
                    batch.iter().map(|record| WrittenRecord::new(record, self.is_telling())).collect();
                let mut args: Vec<&[u8]> = vec![&view, seq.as_bytes(), info.sid.as_str().as_bytes()];
                args.extend([created.as_bytes(), info.metadata.as_bytes()]);
                args.extend([empty.as_bytes(), departure.as_bytes(), cap.as_bytes(), &info.auto_egress]);
                args.extend(written.iter().flat_map(WrittenRecord::args));
                let ended = place.run(&RESTORE, &args).await?.texts()?;
                over.extend(ended.into_iter().map(ParticipantSid::from));
            }
            Ok(over)
        })
    }

    fn renew(&self, node: NodeInfo) -> BoxFuture<'_, Result<Renewed, StoreError>> {
        Box::pin(self.renew_lease(node))
    }

    fn release(&self, node: NodeId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.release_lease(node))
    }

    fn strays(&self, node: NodeId, open: Vec<RoomName>) -> BoxFuture<'_, Result<Vec<RoomName>, StoreError>> {
        Box::pin(self.strays_of(node, open))
    }

    fn reap(&self) -> BoxFuture<'_, Result<Reaped, StoreError>> {
        Box::pin(self.reap_dead())
    }

    fn ban(&self, ban: Ban, now_unix_s: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.add_ban(ban, now_unix_s))
    }

    fn lift_ban(&self, identity: Identity, room: Option<RoomName>) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(self.remove_ban(identity, room))
    }

    fn bans(&self, now_unix_s: u64) -> BoxFuture<'_, Result<Vec<BanEntry>, StoreError>> {
        Box::pin(self.all_bans(now_unix_s))
    }

    fn restore_bans(&self, lost: Vec<BanEntry>, now_unix_s: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.put_bans_back(lost, now_unix_s))
    }

    fn lease_outboxes(&self, destination: &str, most: usize) -> BoxFuture<'_, Result<Leased, StoreError>> {
        let destination = destination.to_owned();
        Box::pin(async move { self.lease_outboxes_of(&destination, most).await })
    }

    fn next_happening(
        &self,
        lease: OutboxLease,
        done: Option<String>,
    ) -> BoxFuture<'_, Result<Option<Waiting>, StoreError>> {
        Box::pin(async move { self.next_of_outbox(&lease, done.unwrap_or_default()).await })
    }

    fn put_off(&self, lease: OutboxLease, reached: Reached, after: Duration) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.put_outbox_off(&lease, &reached, after).await })
    }

    fn start_egress(&self, egress: Egress) -> BoxFuture<'_, Result<Arc<Egress>, StoreError>> {
        Box::pin(async move { self.keep_egress(&egress, None).await })
    }

    fn claim_egress(
        &self,
        room: RoomName,
        id: EgressId,
        by: Recorder,
    ) -> BoxFuture<'_, Result<(EgressLease, Arc<Egress>), StoreError>> {
        Box::pin(async move { self.make_recorder(room, id, by).await })
    }

    fn renew_egress(&self, lease: EgressLease) -> BoxFuture<'_, Result<Arc<Egress>, StoreError>> {
        Box::pin(async move { self.renew_recorder(&lease).await })
    }

    fn release_egress(&self, lease: EgressLease) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.release_recorder(&lease).await })
    }

    fn put_egress(&self, egress: Egress, lease: Option<EgressLease>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.change_egress(&egress, lease.as_ref()).await })
    }

    fn restore_egress(&self, egress: Egress, by: Recorder) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.keep_egress(&egress, Some(&by)).await.map(drop) })
    }

    fn unheld_egresses(&self, most: usize) -> BoxFuture<'_, Result<Vec<StoredEgress>, StoreError>> {
        Box::pin(async move { self.list_unheld(most).await })
    }

    fn egresses(&self, filter: EgressFilter) -> BoxFuture<'_, Result<Vec<StoredEgress>, StoreError>> {
        Box::pin(async move { self.list_egresses(&filter).await })
    }

    fn outboxes_filled(&self) -> watch::Receiver<()> {
        self.outboxes_filled.subscribe()
    }
}

impl Bus for Redis {
    fn subscribe(&self, room: RoomName) -> BoxFuture<'_, Result<Subscription, BusError>> {
        Box::pin(async move {
            let place = self.place(&room);
            let (subscriber, subscription) = Subscriber::pair();
            let ear = self.ear(Arc::new(subscriber), |bytes| wire::room_delta(bytes).map(Some));
            place.shard.listen(place.channel(), ear).await?;
            Ok(subscription)
        })
    }

    fn subscribe_bans(&self) -> BoxFuture<'_, Result<Subscription<BanEntry>, BusError>> {
        Box::pin(async move {
            let (subscriber, subscription) = Subscriber::pair();
            let subscriber = Arc::new(subscriber);
            for shard in &self.shards {
                let ear = self.ear(subscriber.clone(), |bytes| wire::ban_entry(bytes).map(Some));
                shard.listen(self.bans_channel(), ear).await?;
            }
            Ok(subscription)
        })
    }

    fn hear(&self, room: RoomName, node: NodeId) -> BoxFuture<'_, Result<Subscription<RoomWord>, BusError>> {
        Box::pin(async move {
            let place = self.place(&room);
            let (subscriber, subscription) = Subscriber::pair();
            let (subscriber, hearing) = (Arc::new(subscriber), Arc::new(Mutex::new(Hearing::new(&node))));
            let letterbox = self.ear(subscriber.clone(), words::of_letters(hearing.clone()));
            self.letterboxes.add(place.words_channel(), letterbox);
            let ear = self.ear(subscriber, words::of_bus(hearing, self.seal.clone(), place.words_channel()));
            place.shard.listen(place.words_channel(), ear).await?;
            Ok(subscription)
        })
    }

    fn say(
        &self,
        room: RoomName,
        node: NodeId,
        number: u64,
        words: Vec<RoomWord>,
    ) -> BoxFuture<'_, Result<u64, BusError>> {
        Box::pin(async move {
            let place = self.place(&room);
            let words = words::words(&node, number, &words);
            let channel = place.words_channel();
            Ok(place.shard.publish(&channel, &self.seal.close(&channel, &words)).await?)
        })
    }

    fn letter(&self, room: &RoomName, node: &NodeId, number: u64, words: &[RoomWord]) -> Option<Bytes> {
        let words = Some(words::words(node, number, words));
        Some(wire::Letter { room: room.to_string(), words }.encode_to_vec().into())
    }

    fn read_letter(&self, letter: &[u8]) {
        let room = wire::decode::<wire::Letter>(letter).and_then(|letter| wire::room_name(&letter.room));
        match room {
            Ok(room) => self.letterboxes.put(&self.place(&room).words_channel(), letter),
            Err(wire::Unreadable) => self.observer.tell(Observation::Missed { reason: MissReason::Unreadable }),
        }
    }

    fn request(&self, to: NodeId, request: Request) -> BoxFuture<'_, Result<AdminReply, BusError>> {
        Box::pin(async move { self.requests.ask(&to, request).await })
    }

    fn serve(&self, node: NodeId) -> BoxFuture<'_, Result<Inbox, BusError>> {
        Box::pin(async move { self.requests.serve(&node).await })
    }
}

/// Records, or bans, that are put back at once.
const RESTORED_AT_ONCE: usize = 100;

/// Rooms that a list reads at once.
const LISTED_AT_ONCE: usize = 500;
