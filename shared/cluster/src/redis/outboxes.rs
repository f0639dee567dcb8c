//! What whoever tells host apps does with the outboxes. The scripts of rooms fill them.

use std::time::Duration;

use super::{
    Redis, refusal,
    scripts::{LEASE, OUTBOX},
    values::Answer,
    wire,
};
use crate::{Leased, OUTBOX_LEASE_LIFE, OutboxLease, Reached, StoreError, Waiting};

impl Redis {
    pub(super) fn is_telling(&self) -> bool {
        !self.destinations.is_empty()
    }

    /// Of a destination at any server: which outboxes are due, and what else there is to know of them.
    pub(super) fn outbox_keys(&self, destination: &str) -> [String; 2] {
        ["due", "state"].map(|kind| format!("{}w:{destination}:{kind}", self.prefix))
    }

    pub(super) async fn lease_outboxes_of(&self, destination: &str, most: usize) -> Result<Leased, StoreError> {
        let life_ms = OUTBOX_LEASE_LIFE.as_millis().to_string();
        let mut leased = Leased::default();
        for (server, shard) in self.shards.iter().enumerate() {
            let left = most.saturating_sub(leased.outboxes.len()).to_string();
            let args = [life_ms.as_bytes(), left.as_bytes()];
            let answer = shard.run(&LEASE, &self.outbox_keys(destination), &args).await?;
            let mut answer = answer.map(|values| Answer(values.into_iter())).map_err(|word| refusal(&word))?;
            let mut pairs = answer.texts()?.into_iter();
            while let (Some(outbox), Some(token)) = (pairs.next(), pairs.next()) {
                leased.outboxes.push(OutboxLease { destination: destination.to_owned(), server, outbox, token });
            }
            leased.dropped = leased.dropped.saturating_add(answer.number()?);
        }
        Ok(leased)
    }

    pub(super) async fn next_of_outbox(
        &self,
        lease: &OutboxLease,
        done: String,
    ) -> Result<Option<Waiting>, StoreError> {
        let mut done = done;
        loop {
            let mut answer = self.use_outbox(lease, [&done, "", ""]).await?;
            let Some(entry) = answer.optional() else { return Ok(None) };
            let entry = String::from_utf8(entry).map_err(|_| StoreError::Unavailable)?;
            let (happening, reached) = (answer.bytes()?, answer.bytes()?);
            let Ok(happening) = wire::happening(&happening) else {
                // Nobody of this version can tell it, and what follows must not wait.
                tracing::warn!(entry, "what happened in a room cannot be read");
                done = entry;
                continue;
            };
            let since_unix_ms = entry.split('-').next().and_then(|ms| ms.parse().ok()).unwrap_or_default();
            let reached = read_reached(&reached).filter(|reached| reached.entry == entry);
            let (told, tries) = reached.map_or((0, 0), |reached| (reached.told, reached.tries));
            return Ok(Some(Waiting { entry, since_unix_ms, happening, told, tries }));
        }
    }

    pub(super) async fn put_outbox_off(
        &self,
        lease: &OutboxLease,
        reached: &Reached,
        after: Duration,
    ) -> Result<(), StoreError> {
        let Reached { entry, told, tries } = reached;
        let (after_ms, reached) = (after.as_millis().to_string(), format!("{entry} {told} {tries}"));
        self.use_outbox(lease, ["", &after_ms, &reached]).await.map(drop)
    }

    async fn use_outbox(&self, lease: &OutboxLease, args: [&str; 3]) -> Result<Answer, StoreError> {
        let shard = self.shards.get(lease.server).ok_or(StoreError::Superseded)?;
        let [due, state] = self.outbox_keys(&lease.destination);
        let life_ms = OUTBOX_LEASE_LIFE.as_millis().to_string();
        let [done, after_ms, reached] = args;
        let args = [&lease.token, &life_ms, done, after_ms, reached].map(str::as_bytes);
        let answer = shard.run(&OUTBOX, &[due, state, lease.outbox.clone()], &args).await?;
        answer.map(|values| Answer(values.into_iter())).map_err(|word| refusal(&word))
    }
}

fn read_reached(line: &[u8]) -> Option<Reached> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (entry, told, tries) = (words.next()?, words.next()?, words.next()?);
    Some(Reached { entry: entry.to_owned(), told: told.parse().ok()?, tries: tries.parse().ok()? })
}
