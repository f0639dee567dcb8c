//! Recordings, beside the room that they are of.

use std::{collections::BTreeSet, sync::Arc};

use plenary_model::{Egress, EgressId, EgressStatus, RoomName};
use prost::Message;

use super::{
    Redis, refusal,
    scripts::{EGRESS_CLAIM, EGRESS_LIST, EGRESS_PUT, EGRESS_RENEW, EGRESS_START, EGRESS_UNHELD},
    values::Answer,
    wire,
};
use crate::{EGRESS_LEASE_LIFE, EgressFilter, EgressLease, Recorder, StoreError, StoredEgress};

impl Redis {
    /// With a recorder it was lost, and that one goes on under the epoch it knows.
    pub(super) async fn keep_egress(&self, egress: &Egress, by: Option<&Recorder>) -> Result<Arc<Egress>, StoreError> {
        let bytes = wire::Egress::from(egress).encode_to_vec();
        let (version, status) = (egress.version.to_string(), status(egress.status));
        let epoch = by.map_or(0, |by| by.known_epoch).to_string();
        let node = by.map_or("", |by| by.node.as_str());
        let life = by.map(|by| by.life.to_string()).unwrap_or_default();
        let life_ms = lease_ms();
        let args: [&[u8]; 9] = [
            egress.id.as_str().as_bytes(),
            egress.room_sid.as_str().as_bytes(),
            status.as_bytes(),
            version.as_bytes(),
            epoch.as_bytes(),
            node.as_bytes(),
            life.as_bytes(),
            life_ms.as_bytes(),
            &bytes,
        ];
        read(&mut self.place(&egress.room).run(&EGRESS_START, &args).await?)
    }

    pub(super) async fn make_recorder(
        &self,
        room: RoomName,
        id: EgressId,
        by: Recorder,
    ) -> Result<(EgressLease, Arc<Egress>), StoreError> {
        let (life, known, life_ms) = (by.life.to_string(), by.known_epoch.to_string(), lease_ms());
        let args = [id.as_str(), by.node.as_str(), &life, &known, &life_ms].map(str::as_bytes);
        let mut answer = self.place(&room).run(&EGRESS_CLAIM, &args).await?;
        let epoch = answer.number()?;
        let egress = read(&mut answer)?;
        Ok((EgressLease { room, id, epoch }, egress))
    }

    pub(super) async fn renew_recorder(&self, lease: &EgressLease) -> Result<Arc<Egress>, StoreError> {
        read(&mut self.set_lease(lease, &lease_ms()).await?)
    }

    pub(super) async fn release_recorder(&self, lease: &EgressLease) -> Result<(), StoreError> {
        self.set_lease(lease, "0").await.map(drop)
    }

    async fn set_lease(&self, lease: &EgressLease, life_ms: &str) -> Result<Answer, StoreError> {
        let epoch = lease.epoch.to_string();
        let args = [lease.id.as_str(), &epoch, life_ms].map(str::as_bytes);
        self.place(&lease.room).run(&EGRESS_RENEW, &args).await
    }

    pub(super) async fn change_egress(&self, egress: &Egress, lease: Option<&EgressLease>) -> Result<(), StoreError> {
        let bytes = wire::Egress::from(egress).encode_to_vec();
        let epoch = lease.map(|lease| lease.epoch.to_string()).unwrap_or_default();
        let (version, status) = (egress.version.to_string(), status(egress.status));
        let args: [&[u8]; 5] =
            [egress.id.as_str().as_bytes(), epoch.as_bytes(), version.as_bytes(), status.as_bytes(), &bytes];
        self.place(&egress.room).run(&EGRESS_PUT, &args).await.map(drop)
    }

    pub(super) async fn list_unheld(&self, most: usize) -> Result<Vec<StoredEgress>, StoreError> {
        let keys = [format!("{}:unheld", self.egresses_key()), self.egresses_key()];
        let mut unheld = Vec::new();
        for shard in &self.shards {
            let most = most.saturating_sub(unheld.len()).to_string();
            let answer = shard.run(&EGRESS_UNHELD, &keys, &[most.as_bytes()]).await?;
            let mut answer = answer.map(|values| Answer(values.into_iter())).map_err(|word| refusal(&word))?;
            let mut pairs = answer.texts()?.into_iter();
            while let (Some(room), Some(id)) = (pairs.next(), pairs.next()) {
                let Ok(room) = RoomName::try_from(room.as_str()) else { continue };
                unheld.extend(self.list_egresses_of(&room, &id).await?);
            }
        }
        unheld.retain(|one| !one.is_held && !one.egress.status.is_over());
        Ok(unheld)
    }

    pub(super) async fn list_egresses(&self, filter: &EgressFilter) -> Result<Vec<StoredEgress>, StoreError> {
        let rooms = match (&filter.room, &filter.id) {
            (Some(room), _) => BTreeSet::from([room.clone()]),
            (None, Some(id)) => self.rooms_by_index("HGET", &[id.as_str()]).await?,
            (None, None) => self.rooms_by_index("HVALS", &[]).await?,
        };
        let id = filter.id.as_ref().map_or("", EgressId::as_str);
        let mut all = Vec::new();
        for room in rooms {
            all.extend(self.list_egresses_of(&room, id).await?);
        }
        all.retain(|one| filter.holds(&one.egress));
        all.sort_by_key(|one| one.egress.asked_at_ns);
        Ok(all)
    }

    /// All of a room, or one.
    async fn list_egresses_of(&self, room: &RoomName, id: &str) -> Result<Vec<StoredEgress>, StoreError> {
        let mut stored = self.place(room).run(&EGRESS_LIST, &[id.as_bytes()]).await?.array()?;
        let mut all = Vec::new();
        while let [Some(egress), Some(epoch), Some(node), Some(held)] = [(); 4].map(|()| stored.optional()) {
            // What a newer node began and this one cannot read is listed by that one.
            let Ok(egress) = wire::egress(&egress) else { continue };
            let [epoch, node] = [epoch, node].map(|text| String::from_utf8(text).unwrap_or_default());
            let recorder = (node != "-").then(|| node.into());
            let epoch = epoch.parse().map_err(|_| StoreError::Unavailable)?;
            all.push(StoredEgress { egress: Arc::new(egress), epoch, recorder, is_held: held == b"1" });
        }
        Ok(all)
    }

    fn egresses_key(&self) -> String {
        format!("{}egresses", self.prefix)
    }

    /// Rooms that something was recorded of, at any server.
    async fn rooms_by_index(&self, command: &'static str, fields: &[&str]) -> Result<BTreeSet<RoomName>, StoreError> {
        let mut look = redis::cmd(command);
        look.arg(self.egresses_key()).arg(fields);
        let mut rooms = BTreeSet::new();
        for shard in &self.shards {
            let found = match fields {
                [] => shard.query("list_egress_rooms", &look).await?,
                _ => shard.query::<Option<String>>("find_egress_room", &look).await?.into_iter().collect::<Vec<_>>(),
            };
            rooms.extend(found.iter().filter_map(|room| RoomName::try_from(room.as_str()).ok()));
        }
        Ok(rooms)
    }
}

fn read(answer: &mut Answer) -> Result<Arc<Egress>, StoreError> {
    Ok(Arc::new(wire::egress(&answer.bytes()?)?))
}

/// As the scripts compare them.
fn status(status: EgressStatus) -> String {
    i32::from(wire::egress::Status::from(status)).to_string()
}

fn lease_ms() -> String {
    EGRESS_LEASE_LIFE.as_millis().to_string()
}
