//! Begins what rooms record by themselves: everybody from the beginning on, each who joins, each track that is published.
//!
//! What a room records by itself stands with it, and what happens in such rooms waits in an outbox of the store, as what host apps
//! are told does. So it begins whichever node made the change, however soon that died; and once, as its id follows from
//! what it is of.

use std::{sync::Arc, time::Duration};

use livekit_protocol as pb;
use plenary_cluster::{AUTOMATIC_EGRESS, EgressFilter, Leased, Occurrence, OutboxLease, Reached, Waiting};
use plenary_model::{EgressId, EgressSource, Participant, ParticipantKind, RoomInfo, RoomSnapshot};
use prost::Message;
use tokio::time::sleep;

use super::{EgressAsk, Egresses};
use crate::{
    events::{AutoEgressFailed, AutoEgressesDropped},
    front::{
        egress::{of_room, of_what_is_published, of_who_joins},
        room_api::ApiError,
    },
    ids,
};

/// The store does not answer.
struct Later;

pub(super) async fn begin(egresses: Arc<Egresses>) {
    let mut filled = egresses.store.outboxes_filled();
    loop {
        filled.mark_unchanged();
        let leased = egresses.store.lease_outboxes(AUTOMATIC_EGRESS, OUTBOXES_AT_ONCE).await;
        let Leased { outboxes, dropped } = leased.unwrap_or_default();
        AutoEgressesDropped { changes: dropped }.emit();
        let is_idle = outboxes.is_empty();
        for lease in outboxes {
            egresses.empty(lease).await;
        }
        if is_idle {
            tokio::select! {
                _ = filled.changed() => {}
                () = sleep(LOOK_INTERVAL) => {}
            }
        }
    }
}

impl Egresses {
    async fn empty(&self, lease: OutboxLease) {
        let mut done = None;
        while let Ok(Some(waiting)) = self.store.next_happening(lease.clone(), done.take()).await {
            match self.begin_what_follows(&waiting).await {
                Ok(()) => done = Some(waiting.entry),
                Err(Later) => {
                    let reached = Reached { entry: waiting.entry, told: 0, tries: waiting.tries.saturating_add(1) };
                    // If this fails it is due when the lease has run out.
                    let _ = self.store.put_off(lease, reached, PAUSE).await;
                    return;
                }
            }
        }
    }

    async fn begin_what_follows(&self, waiting: &Waiting) -> Result<(), Later> {
        let room = &waiting.happening.room;
        // Who made the room has read it.
        let Ok(automatic) = pb::RoomEgress::decode(room.auto_egress.clone()) else { return Ok(()) };
        for occurrence in waiting.happening.occurrences() {
            let (asked, kind, sid) = match &occurrence {
                Occurrence::RoomStarted => (of_room(&automatic, &room.name), "room", ""),
                Occurrence::Joined { who } if is_recorded(who) => {
                    (of_who_joins(&automatic, &room.name, &who.identity), "participant", who.sid.as_str())
                }
                Occurrence::Published { who, track } if is_recorded(who) => {
                    let sid = track.sid.as_str();
                    (of_what_is_published(&automatic, &room.name, sid), "track", sid)
                }
                _ => continue,
            };
            let begun = match asked {
                Some(Ok(ask)) => self.begin_one(room, ids::egress_of([room.sid.as_str(), kind, sid]), ask).await,
                Some(Err(refusal)) => {
                    AutoEgressFailed { room: &room.name, kind, why: &refusal.message }.emit();
                    Ok(())
                }
                None => Ok(()),
            };
            match begun {
                // What was to be recorded may be gone.
                Ok(()) | Err(ApiError::NoSuchRoom | ApiError::NoSuchTrack) => {}
                Err(ApiError::Unavailable) => return Err(Later),
                Err(error) => AutoEgressFailed { room: &room.name, kind, why: &error.to_string() }.emit(),
            }
        }
        Ok(())
    }

    async fn begin_one(&self, room: &RoomInfo, id: EgressId, ask: EgressAsk) -> Result<(), ApiError> {
        let snapshot = self.store.snapshot(ask.room.clone()).await?;
        if snapshot.room.sid != room.sid || !is_there(&ask.source, &snapshot) {
            return Ok(());
        }
        if let EgressSource::Participant { .. } = &ask.source {
            let filter = EgressFilter { room: Some(ask.room.clone()), active: true, ..EgressFilter::default() };
            // Who comes back before the recording of them is over is in that one.
            if self.list(filter).await?.iter().any(|one| one.source == ask.source && one.room_sid == room.sid) {
                return Ok(());
            }
        }
        self.start_as(id, ask, snapshot).await.map(drop)
    }
}

fn is_recorded(who: &Participant) -> bool {
    !who.permission.hidden && !who.permission.recorder && who.kind != ParticipantKind::Egress
}

fn is_there(source: &EgressSource, snapshot: &RoomSnapshot) -> bool {
    match source {
        EgressSource::Participant { identity, .. } => {
            snapshot.records.iter().any(|record| record.participant.identity == *identity)
        }
        _ => true,
    }
}

/// Of rooms that record by themselves; the next ones are looked for when these are empty.
const OUTBOXES_AT_ONCE: usize = 16;

/// What other nodes left behind is found so soon.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
