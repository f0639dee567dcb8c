//! Store and bus of a cluster: records in Redis, one script per change, which checks, writes, numbers and publishes it.
//!
//! Rooms are spread over the configured servers by their name's hash. Bans for every room are kept on each of them, so that
//! a join asks one server; requests between nodes travel over the first. Every call ends within a second.

mod requests;
mod shard;
mod wire;

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use aws_lc_rs::digest;
use futures_util::future::BoxFuture;
use plenary_model::{
    Admin, Ban, BanChange, Departed, Identity, LeaveReason, NodeId, NodeInfo, Participant, ParticipantSid, Record,
    RoomDelta, RoomInfo, RoomName, RoomSnapshot,
};
use prost::Message;
use redis::{Script, Value};

use self::{
    requests::Requests,
    shard::{Ear, Heard, NoAnswer, Shard},
};
use crate::{
    AdminReply, BANS_MAX, BANS_PER_ROOM_MAX, Bus, BusError, Inbox, Joined, LEASE_LIFE, Lost, NewRoom, ROOM_LIFE,
    Renewed, Seat, Store, StoreError, Subscription, receive::Subscriber, seats,
};

/// See the module.
#[derive(Debug)]
pub struct Redis {
    shards: Vec<Arc<Shard>>,
    prefix: String,
    requests: Requests,
}

#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// `redis://`, `rediss://` or `redis+unix://`, in the same order on every node: a room's server follows from it.
    pub urls: Vec<String>,
    /// Goes before every key and channel.
    pub prefix: String,
    /// Known to every node: requests without a seal of one of these are not carried out. The first one seals.
    pub keys: Vec<Vec<u8>>,
    /// Told from every other node, also from this one's earlier life.
    pub instance: String,
}

#[derive(Debug, thiserror::Error)]
pub enum RedisConfigError {
    #[error("no Redis URL is given")]
    NoUrl,
    #[error("no cluster key is given")]
    NoKey,
    #[error("the Redis URL cannot be used: {0}")]
    Url(String),
}

impl Redis {
    /// Connects in the background: until it has, calls answer `Unavailable`. Needs a tokio runtime.
    pub fn new(config: RedisConfig) -> Result<Self, RedisConfigError> {
        let RedisConfig { urls, prefix, keys, instance } = config;
        let connect = |url: &String| match Shard::new(url) {
            Ok(shard) => Ok(Arc::new(shard)),
            Err(error) => Err(RedisConfigError::Url(error.to_string())),
        };
        let shards = urls.iter().map(connect).collect::<Result<Vec<_>, _>>()?;
        let first = shards.first().ok_or(RedisConfigError::NoUrl)?.clone();
        let requests = Requests::new(first, &prefix, &keys, &instance).ok_or(RedisConfigError::NoKey)?;
        Ok(Self { shards, prefix, requests })
    }

    fn place(&self, room: &RoomName) -> Place<'_> {
        let digest = digest::digest(&digest::SHA256, room.as_str().as_bytes());
        let (tag, _) = digest.as_ref().split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
        let tag = u128::from_be_bytes(*tag);
        let shards = u128::try_from(self.shards.len()).unwrap_or(1).max(1);
        let at = usize::try_from(tag % shards).unwrap_or_default();
        let shard = self.shards.get(at).unwrap_or_else(|| unreachable!("there is one at least"));
        Place { shard, prefix: &self.prefix, tag: format!("{tag:032x}"), name: room.clone() }
    }

    /// Where leases are kept, and over which nodes ask each other.
    fn first(&self) -> &Shard {
        self.shards.first().unwrap_or_else(|| unreachable!("there is one at least"))
    }

    fn lease_keys(&self) -> [String; 3] {
        ["leases", "nodes", "reaped"].map(|kind| format!("{}{kind}", self.prefix))
    }

    async fn run_on_first(&self, script: &Script, args: &[&[u8]]) -> Result<Answer, StoreError> {
        let answer = self.first().run(script, &self.lease_keys(), args).await?;
        answer.map(|values| Answer(values.into_iter())).map_err(|word| refusal(&word))
    }

    async fn remove_people_of(&self, node: &str, reason: LeaveReason) -> Result<(), StoreError> {
        let mut list = redis::cmd("SMEMBERS");
        list.arg(format!("{}hosts:{node}", self.prefix));
        let reason = reason_number(reason);
        for shard in &self.shards {
            let rooms: Vec<Vec<u8>> = shard.query(&list).await?;
            for room in rooms {
                let Some(room) = std::str::from_utf8(&room).ok().and_then(|room| RoomName::try_from(room).ok()) else {
                    continue;
                };
                self.place(&room).run(&REAP, &[node.as_bytes(), reason.as_bytes()]).await?;
            }
        }
        Ok(())
    }

    fn ban_keys(&self) -> [String; 2] {
        [format!("{}bans", self.prefix), format!("{}bans:count", self.prefix)]
    }

    /// The servers that keep a ban: a room's own, or all of them.
    fn ban_shards(&self, room: Option<&RoomName>) -> Vec<&Arc<Shard>> {
        match room {
            Some(room) => vec![self.place(room).shard],
            None => self.shards.iter().collect(),
        }
    }

    /// Bans for every room are told of by the first server alone.
    fn ban_channel(&self, room: Option<&RoomName>, shard: usize) -> String {
        if room.is_some() || shard == 0 { format!("{}bans", self.prefix) } else { String::new() }
    }
}

/// Where a room is kept.
struct Place<'r> {
    shard: &'r Arc<Shard>,
    prefix: &'r str,
    tag: String,
    name: RoomName,
}

impl Place<'_> {
    fn channel(&self) -> String {
        format!("{}{{{}}}", self.prefix, self.tag)
    }

    fn keys(&self) -> Vec<String> {
        let own = ["x", "p", "i", "g", "ended"].map(|kind| format!("{}:{kind}", self.channel()));
        let shared = ["rooms", "generation", "bans", "hosts:"].map(|kind| format!("{}{kind}", self.prefix));
        own.into_iter().chain(shared).collect()
    }

    async fn run(&self, script: &Script, args: &[&[u8]]) -> Result<Answer, StoreError> {
        self.ask(script, args).await?.map_err(|word| refusal(&word))
    }

    /// The script's answer, or the word with which it refuses.
    async fn ask(&self, script: &Script, args: &[&[u8]]) -> Result<Result<Answer, String>, NoAnswer> {
        let channel = self.channel();
        let life_ms = ROOM_LIFE.as_millis().to_string();
        let mut all: Vec<&[u8]> = vec![channel.as_bytes(), self.name.as_str().as_bytes(), life_ms.as_bytes()];
        all.extend_from_slice(args);
        let answer = self.shard.run(script, &self.keys(), &all).await?;
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

/// The values of a script's answer, one after the other.
struct Answer(std::vec::IntoIter<Value>);

impl Answer {
    fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        match self.0.next() {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            _ => Err(StoreError::Unavailable),
        }
    }

    fn optional(&mut self) -> Option<Vec<u8>> {
        match self.0.next() {
            Some(Value::BulkString(bytes)) => Some(bytes),
            _ => None,
        }
    }

    fn array(&mut self) -> Result<Self, StoreError> {
        match self.0.next() {
            Some(Value::Array(values)) => Ok(Self(values.into_iter())),
            _ => Err(StoreError::Unavailable),
        }
    }

    /// Numbers travel as text: Lua's own have 53 bits.
    fn number(&mut self) -> Result<u64, StoreError> {
        let text = self.bytes()?;
        std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()).ok_or(StoreError::Unavailable)
    }

    fn is_one(&mut self) -> bool {
        matches!(self.0.next(), Some(Value::Int(1)))
    }

    fn snapshot(&mut self) -> Result<RoomSnapshot, StoreError> {
        let mut parts = self.array()?;
        let view = parts.bytes()?.try_into().map(u64::from_le_bytes).map_err(|_| StoreError::Unavailable)?;
        let seq = parts.number()?;
        let room = wire::room_info(&parts.bytes()?)?;
        let mut people = parts.array()?;
        let mut records = Vec::new();
        while let Some(bytes) = people.optional() {
            records.push(wire::record(&bytes)?);
        }
        records.sort_unstable_by(|a, b| a.participant.identity.cmp(&b.participant.identity));
        let mut lines = parts.array()?;
        let mut departed = Vec::new();
        while let (Some(who), Some(line)) = (lines.optional(), lines.optional()) {
            departed.extend(stored_departure(&who, &line));
        }
        departed.sort_unstable_by(|a, b| a.identity.cmp(&b.identity));
        let mut views = parts.array()?;
        let mut ended = Vec::new();
        while let Some(view) = views.optional() {
            ended.extend(view.try_into().map(u64::from_le_bytes));
        }
        Ok(RoomSnapshot { view, seq, room, records, departed, ended })
    }

    fn texts(&mut self) -> Result<Vec<String>, StoreError> {
        let mut all = self.array()?;
        let mut texts = Vec::new();
        while let Some(bytes) = all.optional() {
            texts.push(String::from_utf8(bytes).map_err(|_| StoreError::Unavailable)?);
        }
        Ok(texts)
    }
}

/// A new room's settings as the scripts take them.
struct Settings {
    sid: String,
    view: [u8; 8],
    created: String,
    /// Which of the four that follow the caller named.
    given: String,
    metadata: String,
    empty: String,
    departure: String,
    cap: String,
}

impl From<NewRoom> for Settings {
    fn from(new: NewRoom) -> Self {
        let given = [
            new.metadata.is_some(),
            new.empty_timeout_s.is_some(),
            new.departure_timeout_s.is_some(),
            new.max_participants.is_some(),
        ];
        let defaults = new.defaults;
        Self {
            sid: new.sid.to_string(),
            view: new.view.to_le_bytes(),
            created: new.now_unix_ms.to_string(),
            given: given.map(|one| if one { '1' } else { '0' }).iter().collect(),
            metadata: new.metadata.unwrap_or_default(),
            empty: new.empty_timeout_s.unwrap_or(defaults.empty_timeout_s).to_string(),
            departure: new.departure_timeout_s.unwrap_or(defaults.departure_timeout_s).to_string(),
            cap: new.max_participants.unwrap_or(defaults.max_participants).to_string(),
        }
    }
}

/// A record as the scripts take it.
struct WrittenRecord<'r> {
    record: &'r Record,
    generation: String,
    version: String,
    flags: String,
    bytes: Vec<u8>,
}

impl<'r> From<&'r Record> for WrittenRecord<'r> {
    fn from(record: &'r Record) -> Self {
        let person = &record.participant;
        Self {
            record,
            generation: record.generation.to_string(),
            version: person.version.to_string(),
            flags: flags(person),
            bytes: wire::Record::from(record).encode_to_vec(),
        }
    }
}

impl WrittenRecord<'_> {
    fn args(&self) -> [&[u8]; 7] {
        let person = &self.record.participant;
        [
            person.identity.as_str().as_bytes(),
            person.sid.as_str().as_bytes(),
            self.generation.as_bytes(),
            self.version.as_bytes(),
            self.flags.as_bytes(),
            self.record.node.as_str().as_bytes(),
            &self.bytes,
        ]
    }
}

/// What the scripts count somebody as: counted, publisher, recorder, dependent.
fn flags(person: &Participant) -> String {
    let counted = seats::is_counted(person);
    let all = [counted, counted && person.is_publisher, seats::is_recorder(person), seats::is_dependent(person)];
    all.map(|one| if one { '1' } else { '0' }).iter().collect()
}

fn ban_place(room: Option<&RoomName>) -> String {
    room.map_or_else(|| ":".to_owned(), |room| format!("{}:{room}", room.as_str().len()))
}

impl Store for Redis {
    fn create(&self, room: NewRoom) -> BoxFuture<'_, Result<RoomInfo, StoreError>> {
        Box::pin(async move {
            let place = self.place(&room.name);
            let Settings { sid, view, created, given, metadata, empty, departure, cap } = room.into();
            let args: [&[u8]; 8] = [
                sid.as_bytes(),
                &view,
                created.as_bytes(),
                given.as_bytes(),
                metadata.as_bytes(),
                empty.as_bytes(),
                departure.as_bytes(),
                cap.as_bytes(),
            ];
            Ok(wire::room_info(&place.run(&CREATE, &args).await?.bytes()?)?)
        })
    }

    fn join(&self, room: RoomName, seat: Seat) -> BoxFuture<'_, Result<Joined, StoreError>> {
        Box::pin(async move {
            let place = self.place(&room);
            let Seat { participant, node, issued_unix_s, now_unix_s, create } = seat;
            let participant_bytes = wire::Participant::from(&participant).encode_to_vec();
            let identity = participant.identity.as_str();
            let bans = [Some(&room), None].map(|place| format!("{}{identity}", ban_place(place)));
            let may_create: &[u8] = if create.is_some() { b"1" } else { b"0" };
            let [here, everywhere] = &bans;
            let (version, issued, now) = (
                participant.version.to_string(),
                issued_unix_s.unwrap_or_default().to_string(),
                now_unix_s.to_string(),
            );
            let flags = flags(&participant);
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
                may_create,
            ];
            let new = create.map(Settings::from);
            if let Some(Settings { sid, view, created, metadata, empty, departure, cap, .. }) = &new {
                args.extend([sid.as_bytes(), view, created.as_bytes(), metadata.as_bytes()]);
                args.extend([empty.as_bytes(), departure.as_bytes(), cap.as_bytes()]);
            }
            let mut answer = place.run(&JOIN, &args).await?;
            let record = wire::record(&answer.bytes()?)?;
            let replaced = answer.optional().map(|bytes| wire::record(&bytes)).transpose()?;
            Ok(Joined { record, replaced, snapshot: answer.snapshot()? })
        })
    }

    fn put(&self, room: RoomName, record: Arc<Record>) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move { self.place(&room).run(&PUT, &WrittenRecord::from(&*record).args()).await?.number() })
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
                    let listed: Vec<Vec<u8>> = shard.query(&list).await?;
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
                let written: Vec<_> = batch.iter().map(|record| WrittenRecord::from(&**record)).collect();
                let mut args: Vec<&[u8]> = vec![&view, seq.as_bytes(), info.sid.as_str().as_bytes()];
                args.extend([created.as_bytes(), info.metadata.as_bytes()]);
                args.extend([empty.as_bytes(), departure.as_bytes(), cap.as_bytes()]);
                args.extend(written.iter().flat_map(WrittenRecord::args));
                let ended = place.run(&RESTORE, &args).await?.texts()?;
                over.extend(ended.into_iter().map(ParticipantSid::from));
            }
            Ok(over)
        })
    }

    fn renew(&self, node: NodeInfo) -> BoxFuture<'_, Result<Renewed, StoreError>> {
        Box::pin(async move {
            let life_ms = LEASE_LIFE.as_millis().to_string();
            let info = wire::NodeInfo::from(&node).encode_to_vec();
            let args = [node.node.as_str().as_bytes(), life_ms.as_bytes(), &info];
            let mut answer = self.run_on_first(&RENEW, &args).await?;
            let was_held = answer.is_one();
            let mut infos = answer.array()?;
            let mut nodes = Vec::new();
            while let Some(bytes) = infos.optional() {
                nodes.push(wire::decode::<wire::NodeInfo>(&bytes)?.into());
            }
            Ok(Renewed { was_held, nodes })
        })
    }

    fn release(&self, node: NodeId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.remove_people_of(node.as_str(), LeaveReason::ServerShutdown).await?;
            self.run_on_first(&RELEASE, &[node.as_str().as_bytes()]).await.map(drop)
        })
    }

    fn reap(&self) -> BoxFuture<'_, Result<Vec<NodeId>, StoreError>> {
        Box::pin(async move {
            let patience_ms = REAP_PATIENCE.as_millis().to_string();
            let dead = self.run_on_first(&EXPIRED, &[patience_ms.as_bytes()]).await?.texts()?;
            for node in &dead {
                self.remove_people_of(node, LeaveReason::ConnectionTimeout).await?;
                let mut done = redis::cmd("ZREM");
                done.arg(&self.lease_keys()[2]).arg(node);
                let _: i64 = self.first().query(&done).await?;
            }
            Ok(dead.into_iter().map(NodeId::from).collect())
        })
    }

    fn ban(&self, ban: Ban, now_unix_s: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let room = ban.room.as_ref();
            let until = ban.until_unix_s.to_string();
            let (banned, before, revoked_until) = match ban.tokens_before_unix_s {
                None => (until, String::new(), String::new()),
                Some(before) => (String::new(), before.to_string(), until),
            };
            let (place, now) = (ban_place(room), now_unix_s.to_string());
            let limits = [BANS_MAX, BANS_PER_ROOM_MAX].map(|limit| limit.to_string());
            let [all_max, per_room_max] = &limits;
            for (at, shard) in self.ban_shards(room).into_iter().enumerate() {
                let channel = self.ban_channel(room, at);
                let name = room.map_or("", RoomName::as_str);
                let args = [
                    channel.as_str(),
                    &place,
                    name,
                    ban.identity.as_str(),
                    &banned,
                    &before,
                    &revoked_until,
                    &now,
                    all_max,
                    per_room_max,
                ];
                shard.run(&BAN, &self.ban_keys(), &args.map(str::as_bytes)).await?.map_err(|word| refusal(&word))?;
            }
            Ok(())
        })
    }

    fn lift_ban(&self, identity: Identity, room: Option<RoomName>) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let place = ban_place(room.as_ref());
            let told = BanChange::Lifted { identity: identity.clone(), room: room.clone() };
            let told = wire::BanChange::from(&told).encode_to_vec();
            let mut lifted = false;
            for (at, shard) in self.ban_shards(room.as_ref()).into_iter().enumerate() {
                let channel = self.ban_channel(room.as_ref(), at);
                let args = [channel.as_bytes(), place.as_bytes(), identity.as_str().as_bytes(), &told];
                let answer = shard.run(&LIFT_BAN, &self.ban_keys(), &args).await?.map_err(|word| refusal(&word))?;
                lifted |= Answer(answer.into_iter()).is_one();
            }
            Ok(lifted)
        })
    }

    fn bans(&self, now_unix_s: u64) -> BoxFuture<'_, Result<Vec<Ban>, StoreError>> {
        Box::pin(async move {
            let [key, _] = self.ban_keys();
            let mut list = redis::cmd("HGETALL");
            list.arg(key);
            let mut bans = Vec::new();
            for shard in &self.shards {
                let stored: Vec<(String, String)> = shard.query(&list).await?;
                bans.extend(stored.iter().filter_map(|(field, line)| stored_bans(field, line)).flatten());
            }
            bans.retain(|ban| ban.until_unix_s > now_unix_s);
            let key = |ban: &Ban| (ban.identity.clone(), ban.room.clone(), ban.tokens_before_unix_s);
            bans.sort_unstable_by_key(key);
            // Those for every room are kept everywhere.
            bans.dedup();
            Ok(bans)
        })
    }
}

/// None for the line that stands for everybody forgotten.
fn stored_departure(who: &[u8], line: &[u8]) -> Option<Departed> {
    let identity = Identity::try_from(std::str::from_utf8(who).ok()?).ok()?;
    let mut numbers = std::str::from_utf8(line).ok()?.split(' ').skip(1);
    let generation = numbers.next()?.parse().ok()?;
    let reason = wire::leave_reason(numbers.next()?.parse().ok()?);
    Some(Departed { identity, generation, reason })
}

/// A ban and a revocation as they are kept together; none if it cannot be read.
fn stored_bans(field: &str, line: &str) -> Option<impl Iterator<Item = Ban> + use<>> {
    let (length, rest) = field.split_once(':')?;
    let (room, who) = match length {
        "" => (None, rest),
        length => {
            let (room, who) = rest.split_at_checked(length.parse().ok()?)?;
            (Some(RoomName::try_from(room).ok()?), who)
        }
    };
    let identity = Identity::try_from(who).ok()?;
    let mut numbers = line.split(' ').map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    let (banned_until, before, revoked_until) = (next()?, next()?, next()?);
    let ban = move |tokens_before_unix_s, until_unix_s| Ban {
        identity: identity.clone(),
        room: room.clone(),
        tokens_before_unix_s,
        until_unix_s,
    };
    let both = [(None, banned_until), (Some(before), revoked_until)];
    Some(both.into_iter().filter(|(_, until)| *until > 0).map(move |(before, until)| ban(before, until)))
}

fn reason_number(reason: LeaveReason) -> String {
    i32::from(wire::LeaveReason::from(reason)).to_string()
}

impl Bus for Redis {
    fn subscribe(&self, room: RoomName) -> BoxFuture<'_, Result<Subscription, BusError>> {
        Box::pin(async move {
            let place = self.place(&room);
            let (ear, subscription) = ear(|bytes| wire::room_delta(bytes) as wire::Read<RoomDelta>);
            place.shard.listen(place.channel(), ear).await?;
            Ok(subscription)
        })
    }

    fn subscribe_bans(&self) -> BoxFuture<'_, Result<Subscription<BanChange>, BusError>> {
        Box::pin(async move {
            let (subscriber, subscription) = Subscriber::pair();
            let subscriber = Arc::new(subscriber);
            for shard in &self.shards {
                let ear = ear_of(subscriber.clone(), wire::ban_change);
                shard.listen(format!("{}bans", self.prefix), ear).await?;
            }
            Ok(subscription)
        })
    }

    fn request(&self, to: NodeId, room: RoomName, ask: Admin) -> BoxFuture<'_, Result<AdminReply, BusError>> {
        Box::pin(async move { self.requests.ask(&to, &room, &ask).await })
    }

    fn serve(&self, node: NodeId) -> BoxFuture<'_, Result<Inbox, BusError>> {
        Box::pin(async move { self.requests.serve(&node).await })
    }
}

fn ear<T: Send + Sync + 'static>(read: impl Fn(&[u8]) -> wire::Read<T> + Send + 'static) -> (Ear, Subscription<T>) {
    let (subscriber, subscription) = Subscriber::pair();
    (ear_of(Arc::new(subscriber), read), subscription)
}

fn ear_of<T: Send + Sync + 'static>(
    subscriber: Arc<Subscriber<T>>,
    read: impl Fn(&[u8]) -> wire::Read<T> + Send + 'static,
) -> Ear {
    Box::new(move |heard| match heard {
        Heard::Message(bytes) => match read(bytes) {
            Ok(message) => subscriber.tell(&Arc::new(message)),
            // What cannot be read here may be readable in the store, which says it in another way.
            Err(wire::Unreadable) => subscriber.tell_missed(),
        },
        Heard::Missed => subscriber.tell_missed(),
        Heard::Check => subscriber.listens(),
    })
}

/// A script with what goes before it.
macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = [$($file:literal),+];)+) => {
        $($(#[$doc])* static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!($(include_str!(concat!("redis/scripts/", $file, ".lua"))),+)));)+
    };
}

scripts! {
    CREATE = ["encode", "prelude", "create"];
    JOIN = ["encode", "prelude", "join"];
    PUT = ["encode", "prelude", "put"];
    LEAVE = ["encode", "prelude", "leave"];
    SET_META = ["encode", "prelude", "set_meta"];
    SNAPSHOT = ["encode", "prelude", "snapshot"];
    INFO = ["encode", "prelude", "info"];
    DELETE = ["encode", "prelude", "delete"];
    TOUCH = ["encode", "prelude", "touch"];
    RESTORE = ["encode", "prelude", "restore"];
    REAP = ["encode", "prelude", "reap"];
    RENEW = ["encode", "renew"];
    RELEASE = ["encode", "release"];
    EXPIRED = ["encode", "expired"];
    BAN = ["encode", "ban"];
    LIFT_BAN = ["encode", "lift_ban"];
}

/// Whoever began to remove a dead node's people has this long to finish.
const REAP_PATIENCE: Duration = Duration::from_secs(5);

/// Records that are put back at once.
const RESTORED_AT_ONCE: usize = 100;

/// Rooms that a list reads at once.
const LISTED_AT_ONCE: usize = 500;
