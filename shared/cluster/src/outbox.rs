//! What host apps are told of: changes as they wait in the outbox of their room, one outbox for each destination, and what a
//! change comes to.
//!
//! The change itself fills the outboxes, in the same script or under the same lock. Whoever leases one takes its changes
//! out in their order; who dies with a lease is followed by another when it has run out.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest;
use plenary_model::{Egress, EgressStatus, LeaveReason, Participant, ParticipantState, Record, RoomInfo, Track};

/// A change that host apps are told of.
#[derive(Debug, Clone, PartialEq)]
pub struct Happening {
    /// The room right after it. Of one that was recorded only sid and name: it may be gone.
    pub room: RoomInfo,
    pub what: Changed,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Changed {
    Started,
    Finished {
        reason: LeaveReason,
    },
    /// An identity: who held it, and who holds it now.
    Seat {
        before: Option<Arc<Record>>,
        after: Option<Arc<Record>>,
        /// Why whoever held it left, if nobody holds it now.
        reason: LeaveReason,
    },
    /// A recording, right after its change.
    Egress(Arc<Egress>),
}

/// What one message to a host app is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Occurrence {
    RoomStarted,
    RoomFinished {
        reason: LeaveReason,
    },
    /// Media is up.
    Joined {
        who: Participant,
    },
    Left {
        who: Participant,
    },
    /// Left before media was up.
    Aborted {
        who: Participant,
    },
    Published {
        who: Participant,
        track: Track,
    },
    Unpublished {
        who: Participant,
        track: Track,
    },
    EgressStarted {
        egress: Arc<Egress>,
    },
    EgressUpdated {
        egress: Arc<Egress>,
    },
    EgressEnded {
        egress: Arc<Egress>,
    },
}

impl Happening {
    /// In the order in which they are told.
    pub fn occurrences(&self) -> Vec<Occurrence> {
        match &self.what {
            Changed::Started => vec![Occurrence::RoomStarted],
            Changed::Finished { reason } => vec![Occurrence::RoomFinished { reason: *reason }],
            Changed::Egress(egress) => vec![turn(egress.clone())],
            Changed::Seat { before, after, reason } => {
                let [before, after] = [before, after].map(|record| record.as_ref().map(|record| &record.participant));
                let goes_on = after.is_some_and(|after| before.is_some_and(|before| before.sid == after.sid));
                let mut told = Vec::new();
                if let Some(gone) = before.filter(|_| !goes_on) {
                    let reason = if after.is_some() { LeaveReason::DuplicateIdentity } else { *reason };
                    told.extend(end(gone, reason));
                }
                if let Some(after) = after {
                    told.extend(go_on(before.filter(|_| goes_on), after));
                }
                told
            }
        }
    }
}

fn turn(egress: Arc<Egress>) -> Occurrence {
    match egress.status {
        EgressStatus::Starting if egress.version <= FIRST_VERSION => Occurrence::EgressStarted { egress },
        status if status.is_over() => Occurrence::EgressEnded { egress },
        _ => Occurrence::EgressUpdated { egress },
    }
}

fn end(gone: &Participant, leave_reason: LeaveReason) -> Vec<Occurrence> {
    let who = Participant { state: ParticipantState::Disconnected, leave_reason, tracks: Vec::new(), ..gone.clone() };
    let unpublished = |track: &Track| Occurrence::Unpublished { who: who.clone(), track: track.clone() };
    let mut told: Vec<_> = gone.tracks.iter().map(unpublished).collect();
    told.push(if is_active(gone) { Occurrence::Left { who } } else { Occurrence::Aborted { who } });
    told
}

fn go_on(before: Option<&Participant>, after: &Participant) -> Vec<Occurrence> {
    let who = || after.clone();
    let tracks_before = before.map(|before| before.tracks.as_slice()).unwrap_or_default();
    let without = |track: &&Track, others: &[Track]| others.iter().all(|other| other.sid != track.sid);
    let mut told = Vec::new();
    if is_active(after) && !before.is_some_and(is_active) {
        told.push(Occurrence::Joined { who: who() });
    }
    let gone = tracks_before.iter().filter(|track| without(track, &after.tracks));
    told.extend(gone.map(|track| Occurrence::Unpublished { who: who(), track: track.clone() }));
    let new = after.tracks.iter().filter(|track| without(track, tracks_before));
    told.extend(new.map(|track| Occurrence::Published { who: who(), track: track.clone() }));
    told
}

fn is_active(person: &Participant) -> bool {
    person.state == ParticipantState::Active
}

/// The same for two records of a session as long as no host app is told of what lies between them; nothing for a session that
/// has just begun. In digits: nodes that know of no marks take it for more flags.
pub(crate) fn mark(person: &Participant) -> String {
    if !is_active(person) && person.tracks.is_empty() {
        return String::new();
    }
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&[u8::from(is_active(person))]);
    for track in &person.tracks {
        context.update(track.sid.as_str().as_bytes());
        context.update(b"\0");
    }
    context.finish().as_ref().iter().take(MARK_BYTES).map(|byte| format!("{byte:03}")).collect()
}

/// The right to take out of one outbox, for [`OUTBOX_LEASE_LIFE`] since its last use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxLease {
    pub(crate) destination: String,
    pub(crate) server: usize,
    /// Out of `destination` and the room, unique within the server.
    pub(crate) outbox: String,
    pub(crate) token: String,
}

/// Outboxes with something due, which nobody else takes out of now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leased {
    pub outboxes: Vec<OutboxLease>,
    /// Changes that were dropped for this destination since this was last asked, by anybody.
    pub dropped: u64,
}

/// The oldest change of an outbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// Where it stands in its outbox.
    pub entry: String,
    pub since_unix_ms: u64,
    pub happening: Happening,
    /// How many of its occurrences are done with.
    pub told: usize,
    /// How often the next one was tried in vain.
    pub tries: u32,
}

/// The destination that is told of rooms that record by themselves, and of no others.
pub const AUTOMATIC_EGRESS: &str = "egress";

/// How long a lease of an outbox runs without being used.
pub const OUTBOX_LEASE_LIFE: Duration = Duration::from_secs(10);

/// Of what nobody has changed yet.
const FIRST_VERSION: u32 = 1;

/// Changes that wait in one outbox; with more the oldest is dropped.
pub(crate) const OUTBOX_MAX: usize = 1_000;

/// Changes that wait for one destination at one server; with more the oldest of the same room is dropped, or what comes.
pub(crate) const OUTBOXES_MAX: usize = 100_000;

/// Enough to tell the states of a session apart that follow each other.
const MARK_BYTES: usize = 8;
