//! Which nodes live, and what is done about those that do not.

use std::collections::BTreeSet;

use plenary_model::{LeaveReason, NodeId, NodeInfo, RoomName};
use prost::Message;

use super::{
    Redis, refusal,
    scripts::{EXPIRED, HOSTED, REAP, RELEASE, RENEW, UNLEASED},
    shard::{NamedScript, NoAnswer, Shard},
    values::{Answer, reason_number},
    wire,
};
use crate::{LEASE_LIFE, REAP_PATIENCE, Reaped, Renewed, StoreError, UNLEASED_PATIENCE};

impl Redis {
    pub(super) async fn renew_lease(&self, node: NodeInfo) -> Result<Renewed, StoreError> {
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
    }

    pub(super) async fn release_lease(&self, node: NodeId) -> Result<(), StoreError> {
        self.remove_people_of(node.as_str(), LeaveReason::ServerShutdown).await?;
        self.run_on_first(&RELEASE, &[node.as_str().as_bytes()]).await.map(drop)
    }

    pub(super) async fn strays_of(&self, node: NodeId, open: Vec<RoomName>) -> Result<Vec<RoomName>, StoreError> {
        let open: BTreeSet<_> = open.into_iter().collect();
        let mut strays = Vec::new();
        for shard in &self.shards {
            for room in self.hosted_by(node.as_str(), shard).await? {
                if !open.contains(&room) && self.place(&room).run(&HOSTED, &[node.as_str().as_bytes()]).await?.is_one()
                {
                    strays.push(room);
                }
            }
        }
        strays.sort_unstable();
        Ok(strays)
    }

    pub(super) async fn reap_dead(&self) -> Result<Reaped, StoreError> {
        let patience_ms = [REAP_PATIENCE, UNLEASED_PATIENCE].map(|patience| patience.as_millis().to_string());
        let mut answer = self.run_on_first(&EXPIRED, &patience_ms.each_ref().map(|ms| ms.as_bytes())).await?;
        let (mut dead, alive) = (answer.texts()?, answer.texts()?);
        dead.extend(self.unleased(&alive).await?);
        dead.sort_unstable();
        dead.dedup();
        let mut deserted = Vec::new();
        for node in &dead {
            deserted.extend(self.remove_people_of(node, LeaveReason::ConnectionTimeout).await?);
            let mut done = redis::cmd("ZREM");
            done.arg(&self.lease_keys()[2]).arg(node);
            let _: i64 = self.first().query("reaped", &done).await?;
        }
        Ok(Reaped { nodes: dead.into_iter().map(NodeId::from).collect(), deserted })
    }

    fn lease_keys(&self) -> [String; 4] {
        ["leases", "nodes", "reaped", "seated"].map(|kind| format!("{}{kind}", self.prefix))
    }

    async fn run_on_first(&self, script: &NamedScript, args: &[&[u8]]) -> Result<Answer, StoreError> {
        let answer = self.first().run(script, &self.lease_keys(), args).await?;
        answer.map(|values| Answer(values.into_iter())).map_err(|word| refusal(&word))
    }

    /// Where this node may host somebody, by the hints that a server keeps.
    async fn hosted_by(&self, node: &str, shard: &Shard) -> Result<Vec<RoomName>, NoAnswer> {
        let mut list = redis::cmd("SMEMBERS");
        list.arg(format!("{}hosts:{node}", self.prefix));
        let rooms: Vec<Vec<u8>> = shard.query("list_hosted", &list).await?;
        Ok(rooms.iter().filter_map(|room| RoomName::try_from(std::str::from_utf8(room).ok()?).ok()).collect())
    }

    /// The rooms that nobody is left in.
    async fn remove_people_of(&self, node: &str, reason: LeaveReason) -> Result<Vec<RoomName>, StoreError> {
        let reason = reason_number(reason);
        let mut deserted = Vec::new();
        for shard in &self.shards {
            for room in self.hosted_by(node, shard).await? {
                if self.place(&room).run(&REAP, &[node.as_bytes(), reason.as_bytes()]).await?.is_one() {
                    deserted.push(room);
                }
            }
            let mut done = redis::cmd("ZREM");
            done.arg(self.seated_key()).arg(node);
            let _: i64 = shard.query("unseated", &done).await?;
        }
        Ok(deserted)
    }

    /// Who hosts people at the servers that keep no leases, and was long seen without one. `alive` have one.
    async fn unleased(&self, alive: &[String]) -> Result<Vec<String>, StoreError> {
        let patience_ms = UNLEASED_PATIENCE.as_millis().to_string();
        let args: Vec<_> = [&patience_ms].into_iter().chain(alive).map(|arg| arg.as_bytes()).collect();
        let mut dead = Vec::new();
        for shard in self.shards.iter().skip(1) {
            let answer = shard.run(&UNLEASED, &[self.seated_key()], &args).await?;
            dead.extend(answer.map(|values| Answer(values.into_iter())).map_err(|word| refusal(&word))?.texts()?);
        }
        Ok(dead)
    }

    fn seated_key(&self) -> String {
        format!("{}seated", self.prefix)
    }
}
