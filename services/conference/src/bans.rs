//! This node's copy of the bans: asked by every door and every session, kept current by the bus.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use plenary_cluster::{Bans, Barred, Event, StoreError};
use plenary_model::{BanEntry, Identity, RoomName};
use plenary_protocol::token::Claims;

use crate::{
    events::{BansPutBack, StoreFailed},
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

    /// The store was read. Gives back what it has lost.
    pub fn reconcile(&self, stored: Vec<BanEntry>, now_unix_s: u64) -> Vec<BanEntry> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).reconcile(stored, now_unix_s)
    }

    fn apply(&self, entry: &BanEntry) {
        // The store has the same limits: it cannot have accepted what has no place here, and what is over makes place.
        let _ = self.0.write().unwrap_or_else(PoisonError::into_inner).apply(entry, unix_seconds());
    }
}

/// Keeps the copy current and ends what a ban forbids, for as long as the node runs. Subscribed before the list is read,
/// so that nothing falls between.
pub async fn follow(shared: Arc<Shared>) {
    loop {
        if let Ok(mut heard) = shared.bus.subscribe_bans().await {
            'listening: loop {
                if let Err(error) = look(&shared).await {
                    StoreFailed { error }.emit();
                    tokio::time::sleep(RETRY_AFTER).await;
                    continue;
                }
                loop {
                    tokio::select! {
                        event = heard.next() => match event {
                            Some(Event::Delta(entry)) => {
                                shared.bans.apply(&entry);
                                enforce(&shared, entry.room.clone());
                            }
                            Some(Event::Resync) => break,
                            None => break 'listening,
                        },
                        () = shared.store_doubted.notified() => break,
                    }
                }
            }
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// The bus skipped something, or is about to begin: the store may be another one, or an earlier one, than it was. What it lost of
/// the bans is put back.
async fn look(shared: &Shared) -> Result<(), StoreError> {
    let now_unix_s = unix_seconds();
    let lost = shared.bans.reconcile(shared.store.bans(now_unix_s).await?, now_unix_s);
    enforce(shared, None);
    if !lost.is_empty() {
        BansPutBack { bans: lost.len() }.emit();
        shared.store.restore_bans(lost, now_unix_s).await?;
    }
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
