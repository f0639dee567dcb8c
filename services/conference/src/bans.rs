//! This node's copy of the bans: asked by every door and every session, kept current by the bus.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use plenary_cluster::{Bans, Barred, Event, StoreError};
use plenary_model::{BanChange, Identity, RoomName};
use plenary_protocol::token::Claims;

use crate::{
    events::StoreFailed,
    node::Shared,
    rooms::{EnforceBans, host_strays},
    tokens::unix_seconds,
};

/// Who is kept out, as far as this node has heard.
#[derive(Debug, Default)]
pub struct BanCopy(RwLock<Bans>);

impl BanCopy {
    /// Whether this person may be here with a token of that age.
    pub fn verdict(
        &self,
        identity: &Identity,
        room: Option<&RoomName>,
        issued_unix_s: Option<u64>,
        now_unix_s: u64,
    ) -> Option<Barred> {
        let bans = self.0.read().unwrap_or_else(PoisonError::into_inner);
        bans.verdict(identity, room, issued_unix_s, now_unix_s)
    }

    /// The same for whoever carries these claims, whatever they are for. Who has no name cannot be banned.
    pub fn verdict_on(&self, claims: &Claims, now_unix_s: u64) -> Option<Barred> {
        let identity = Identity::try_from(claims.identity()?).ok()?;
        let room = RoomName::try_from(claims.video.room.as_str()).ok();
        self.verdict(&identity, room.as_ref(), claims.issued(), now_unix_s)
    }

    pub fn replace(&self, bans: Bans) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = bans;
    }

    fn apply(&self, change: &BanChange) {
        let mut bans = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // The store has the same limits: it cannot have accepted what has no place here, and what is over makes place.
        let _ = bans.apply(change, unix_seconds());
    }
}

/// Keeps the copy current and ends what a ban forbids, for as long as the node runs. Subscribed before the list is read,
/// so that nothing falls between.
pub async fn follow(shared: Arc<Shared>) {
    loop {
        if let Ok(mut heard) = shared.bus.subscribe_bans().await {
            loop {
                if let Err(error) = look(&shared).await {
                    StoreFailed { error }.emit();
                    tokio::time::sleep(RETRY_AFTER).await;
                    continue;
                }
                let mut next = heard.next().await;
                while let Some(Event::Delta(change)) = &next {
                    shared.bans.apply(change);
                    if let BanChange::Set(ban) = &**change {
                        enforce(&shared, ban.room.clone());
                    }
                    next = heard.next().await;
                }
                if next.is_none() {
                    break;
                }
            }
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// The bus skipped something, or is about to begin: the store may be another one, or an earlier one, than it was.
async fn look(shared: &Shared) -> Result<(), StoreError> {
    let list = shared.store.bans(unix_seconds()).await?;
    shared.bans.replace(Bans::from_list(list, unix_seconds()));
    enforce(shared, None);
    host_strays(shared).await
}

/// The copy is current: sessions it forbids, in one room or in all, end.
fn enforce(shared: &Shared, room: Option<RoomName>) {
    match room {
        Some(room) => shared.rooms_for(&room).do_send(EnforceBans { room: Some(room.clone()) }),
        None => shared.room_threads().for_each(|rooms| rooms.do_send(EnforceBans { room: None })),
    }
}

const RETRY_AFTER: Duration = Duration::from_millis(500);
