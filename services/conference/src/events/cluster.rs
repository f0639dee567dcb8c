//! What happens between nodes, and with what they share.

use opentelemetry::KeyValue;
use plenary_cluster::{Observation, StoreError};
use plenary_media_core::{self as media};
use plenary_model::NodeId;
use tracing::{debug, info, warn};

use crate::metrics::{instruments, label};

/// A room could not be read or written.
#[derive(Debug)]
pub struct StoreFailed {
    pub error: StoreError,
}

impl StoreFailed {
    pub fn emit(self) {
        warn!(error = %self.error, "store failed");
        instruments().store_failures.add(1, &[KeyValue::new("reason", label(self.error))]);
    }
}

/// A media router of ours and another one hear each other.
#[derive(Debug)]
pub struct LinkUp<'a> {
    pub router: &'a media::RouterId,
}

impl LinkUp<'_> {
    pub fn emit(self) {
        let media::RouterId { node, index, .. } = self.router;
        info!(%node, router = index, "link up");
        instruments().links_up.add(1, &[]);
    }
}

/// They do not any more. What was wanted of it is still wanted.
#[derive(Debug)]
pub struct LinkDown<'a> {
    pub router: &'a media::RouterId,
    pub why: media::LinkEnd,
}

impl LinkDown<'_> {
    pub fn emit(self) {
        let media::RouterId { node, index, .. } = self.router;
        match self.why {
            media::LinkEnd::Idle => info!(%node, router = index, "link closed, nothing is asked over it"),
            why => warn!(%node, router = index, ?why, "link down"),
        }
        instruments().links_down.add(1, &[KeyValue::new("reason", label(self.why))]);
    }
}

/// Whether the tracks of another router can be had, by any way. Without one its people and those here are deaf to each other.
#[derive(Debug)]
pub struct RouterReached<'a> {
    pub router: &'a media::RouterId,
    pub is_reached: bool,
}

impl RouterReached<'_> {
    pub fn emit(self) {
        let media::RouterId { node, index, .. } = self.router;
        if self.is_reached {
            info!(%node, router = index, "media can be had from there again");
        } else {
            warn!(%node, router = index, "no way to the media there");
        }
    }
}

/// This node gives way to another that it cannot exchange media with: people of a room go there.
#[derive(Debug)]
pub struct RoomGivesWay {
    pub people: usize,
}

impl RoomGivesWay {
    pub fn emit(self) {
        warn!(people = self.people, "people move to where more of their room are");
    }
}

/// Words for the other nodes of a room, if any, that will not be said: they would be late, or too many wait.
#[derive(Debug)]
pub struct WordsDropped {
    pub words: usize,
}

impl WordsDropped {
    pub fn emit(self) {
        if self.words > 0 {
            debug!(words = self.words, "words for other nodes dropped");
            instruments().words_dropped.add(u64::try_from(self.words).unwrap_or(u64::MAX), &[]);
        }
    }
}

/// The other nodes of a room were told something over links, since Redis was away.
#[derive(Debug)]
pub struct WordsCarried {
    pub nodes: usize,
}

impl WordsCarried {
    pub fn emit(self) {
        debug!(nodes = self.nodes, "words for other nodes carried over links");
        instruments().words_carried.add(1, &[]);
    }
}

/// Somebody came back for a session that is not here, and was told to start over.
#[derive(Debug)]
pub struct ResumeRefused {
    /// It is another node's: a balancer could have known by the sid.
    pub is_misrouted: bool,
}

impl ResumeRefused {
    pub fn emit(self) {
        let reason = if self.is_misrouted { "misrouted" } else { "gone" };
        debug!(reason, "resume refused");
        instruments().resumes_refused.add(1, &[KeyValue::new("reason", reason)]);
    }
}

/// What another node said of a room was lost on the way: data messages among it, perhaps.
#[derive(Debug)]
pub struct WordsMissed;

impl WordsMissed {
    pub fn emit(self) {
        warn!("what other nodes said of the room was missed");
        instruments().words_missed.add(1, &[]);
    }
}

/// Nodes died, and this one removed their people from the store.
#[derive(Debug)]
pub struct NodesReaped {
    pub nodes: Vec<NodeId>,
}

impl NodesReaped {
    pub fn emit(self) {
        warn!(nodes = ?self.nodes, "nodes are dead; their people were removed");
        instruments().nodes_reaped.add(u64::try_from(self.nodes.len()).unwrap_or(u64::MAX), &[]);
    }
}

/// The store had lost what this node knows of bans, revocations and their ends.
#[derive(Debug)]
pub struct BansPutBack {
    pub bans: usize,
}

impl BansPutBack {
    pub fn emit(self) {
        warn!(bans = self.bans, "bans that the store had lost are put back");
    }
}

/// Somebody was kept out, or let in again, by whoever holds this key.
#[derive(Debug)]
pub struct BansChanged<'a> {
    /// Out of a closed set.
    pub what: &'static str,
    /// The issuer of the token that asked for it.
    pub by: &'a str,
    /// The last moment of it, in Unix seconds.
    pub until_unix_s: Option<u64>,
}

impl BansChanged<'_> {
    pub fn emit(self) {
        info!(what = self.what, by = self.by, until_unix_s = self.until_unix_s, "bans changed");
        instruments().bans_changed.add(1, &[KeyValue::new("what", self.what)]);
    }
}

/// The store did not hear that this node lives; the next second brings another chance.
#[derive(Debug)]
pub struct LeaseNotRenewed;

impl LeaseNotRenewed {
    pub fn emit(self) {
        debug!("lease not renewed");
        instruments().leases_missed.add(1, &[]);
    }
}

/// What the cluster says of Redis. It logs by itself, and only what changes: a command is no news.
pub fn of_redis(observation: Observation) {
    match observation {
        Observation::Called { name, outcome, after } => {
            let labels = [KeyValue::new("command", name), KeyValue::new("outcome", label(outcome))];
            instruments().redis_commands.record(after.as_secs_f64(), &labels);
        }
        Observation::Missed { reason } => {
            instruments().redis_missed.add(1, &[KeyValue::new("reason", label(reason))]);
        }
    }
}
