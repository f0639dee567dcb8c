//! The list of bans: of one room at the room's server, of every room at each.

use std::sync::Arc;

use plenary_model::{Ban, BanEntry, Identity, RoomName};

use super::{
    RESTORED_AT_ONCE, Redis, refusal,
    scripts::{BAN, LIFT_BAN, RESTORE_BANS},
    shard::{NamedScript, Shard},
    values::{Answer, ban_place, stored_ban},
    wire,
};
use crate::{BANS_MAX, BANS_PER_ROOM_MAX, Bans, StoreError};

impl Redis {
    pub(super) async fn add_ban(&self, ban: Ban, now_unix_s: u64) -> Result<(), StoreError> {
        let room = ban.room.as_ref();
        let until = ban.until_unix_s.to_string();
        let (banned, before, revoked_until) = match ban.tokens_before_unix_s {
            None => (until, String::new(), String::new()),
            Some(before) => (String::new(), before.to_string(), until),
        };
        let (place, now) = (ban_place(room), now_unix_s.to_string());
        let [all_max, per_room_max] = ban_limits();
        let shards = self.ban_shards(room);
        let (first, others) = shards.split_first().unwrap_or_else(|| unreachable!("there is one at least"));
        let channel = self.bans_channel();
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
            &all_max,
            &per_room_max,
        ];
        let mut answer = self.run_on_bans(first, &BAN, &args.map(str::as_bytes)).await?;
        let entry = wire::ban_entry(&answer.bytes()?)?;
        for shard in others {
            self.restore_bans_at(shard, std::slice::from_ref(&entry), "", now_unix_s).await?;
        }
        Ok(())
    }

    pub(super) async fn remove_ban(&self, identity: Identity, room: Option<RoomName>) -> Result<bool, StoreError> {
        let (place, channel) = (ban_place(room.as_ref()), self.bans_channel());
        let name = room.as_ref().map_or("", RoomName::as_str);
        let shards = self.ban_shards(room.as_ref());
        for (at, shard) in shards.iter().enumerate() {
            let args = [channel.as_bytes(), place.as_bytes(), name.as_bytes(), identity.as_str().as_bytes()];
            // One server may have lost what another has.
            let Some(lifted) = self.run_on_bans(shard, &LIFT_BAN, &args).await?.optional() else { continue };
            let entry = wire::ban_entry(&lifted)?;
            for (_, other) in shards.iter().enumerate().filter(|(other, _)| *other != at) {
                self.restore_bans_at(other, std::slice::from_ref(&entry), "", 0).await?;
            }
            return Ok(true);
        }
        Ok(false)
    }

    pub(super) async fn all_bans(&self, now_unix_s: u64) -> Result<Vec<BanEntry>, StoreError> {
        let [key, _] = self.ban_keys();
        let mut list = redis::cmd("HGETALL");
        list.arg(key);
        let mut lists = Vec::new();
        for shard in &self.shards {
            let stored: Vec<(String, String)> = shard.query("list_bans", &list).await?;
            lists.push(stored.iter().filter_map(|(field, line)| stored_ban(field, line)).collect::<Vec<_>>());
        }
        // What is for every room is kept on each server: what one of them has lost it gets from the others.
        let everywhere = lists.iter().flatten().filter(|entry| entry.room.is_none()).cloned().collect();
        let everywhere = Bans::from_list(everywhere, now_unix_s);
        for (shard, list) in self.shards.iter().zip(&lists) {
            let lost = everywhere.clone().reconcile(list.clone(), now_unix_s);
            self.restore_bans_at(shard, &lost, "", now_unix_s).await?;
        }
        Ok(Bans::from_list(lists.concat(), now_unix_s).entries(now_unix_s))
    }

    pub(super) async fn put_bans_back(&self, lost: Vec<BanEntry>, now_unix_s: u64) -> Result<(), StoreError> {
        for (at, shard) in self.shards.iter().enumerate() {
            let is_kept_here = |entry: &&BanEntry| match &entry.room {
                Some(room) => Arc::ptr_eq(self.place(room).shard, shard),
                None => true,
            };
            let here: Vec<_> = lost.iter().filter(is_kept_here).cloned().collect();
            let (everywhere, of_rooms): (Vec<_>, Vec<_>) = here.into_iter().partition(|entry| entry.room.is_none());
            let channel = self.bans_channel();
            self.restore_bans_at(shard, &of_rooms, &channel, now_unix_s).await?;
            // Those are told of by the first server alone.
            let channel = if at == 0 { channel.as_str() } else { "" };
            self.restore_bans_at(shard, &everywhere, channel, now_unix_s).await?;
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

    pub(super) fn bans_channel(&self) -> String {
        format!("{}bans", self.prefix)
    }

    async fn run_on_bans(&self, shard: &Shard, script: &NamedScript, args: &[&[u8]]) -> Result<Answer, StoreError> {
        let answer = shard.run(script, &self.ban_keys(), args).await?;
        answer.map(|values| Answer(values.into_iter())).map_err(|word| refusal(&word))
    }

    /// Told over this channel, if any.
    async fn restore_bans_at(
        &self,
        shard: &Shard,
        lost: &[BanEntry],
        channel: &str,
        now_unix_s: u64,
    ) -> Result<(), StoreError> {
        let now = now_unix_s.to_string();
        let [all_max, per_room_max] = ban_limits();
        for some in lost.chunks(RESTORED_AT_ONCE) {
            let mut args = vec![now.clone(), all_max.clone(), per_room_max.clone()];
            for entry in some {
                let room = entry.room.as_ref();
                args.extend([channel.to_owned(), ban_place(room), room.map(ToString::to_string).unwrap_or_default()]);
                args.push(entry.identity.to_string());
                args.extend([entry.banned_until_unix_s, entry.tokens_before_unix_s].map(|number| number.to_string()));
                args.extend([entry.revoked_until_unix_s, entry.version].map(|number| number.to_string()));
            }
            let args: Vec<_> = args.iter().map(String::as_bytes).collect();
            self.run_on_bans(shard, &RESTORE_BANS, &args).await?;
        }
        Ok(())
    }
}

fn ban_limits() -> [String; 2] {
    [BANS_MAX, BANS_PER_ROOM_MAX].map(|limit| limit.to_string())
}
