//! What happens to a node, its rooms and its people: one struct per happening.
//!
//! `emit()` writes the log line and moves the metric together, so that neither is forgotten. Room and participant are
//! fields of the span around it, not of the event. Levels: error, somebody
//! must act; warn, we coped, look tomorrow; info, the life of nodes and rooms; debug, the life of a participant.
//! No event carries a token, an SDP or a client's address, and no label comes from outside.

mod recording;

use std::{net::SocketAddr, time::Duration};

use opentelemetry::KeyValue;
use plenary_cluster::{Observation, StoreError};
use plenary_media_core::{self as media, PeerEnd};
use plenary_model::{LeaveReason, NodeId, Target, TrackSid};
use plenary_room_core::session;
use tracing::{debug, error, info, trace, warn};

use crate::{
    front::convert::BadFrame,
    keys::FetchError,
    metrics::{instruments, label},
    webhooks::CallFailure,
};

pub use recording::*;

/// The configuration was read and is sound.
#[derive(Debug)]
pub struct ConfigLoaded<'a> {
    pub source: &'a str,
}

impl ConfigLoaded<'_> {
    pub fn emit(self) {
        info!(source = self.source, "configuration loaded");
    }
}

/// No keys are configured; the one everybody knows is good here.
#[derive(Debug)]
pub struct DevKeysInUse {
    pub http: SocketAddr,
}

impl DevKeysInUse {
    pub fn emit(self) {
        warn!(
            http = %self.http,
            "DEVELOPMENT KEYS IN USE: anybody on this machine can join every room with key `devkey` and secret `secret`"
        );
    }
}

/// All doors are open.
#[derive(Debug)]
pub struct NodeStarted {
    pub node: NodeId,
    pub http: SocketAddr,
}

impl NodeStarted {
    pub fn emit(self) {
        info!(node = %self.node, http = %self.http, version = env!("CARGO_PKG_VERSION"), "node started");
    }
}

/// Where people try it with a browser.
#[derive(Debug)]
pub struct MeetPageOpened {
    pub http: SocketAddr,
    pub tls: bool,
}

impl MeetPageOpened {
    pub fn emit(self) {
        let scheme = if self.tls { "https" } else { "http" };
        info!(url = format!("{scheme}://{}/meet", self.http), "meet page");
    }
}

/// The scrape page is open.
#[derive(Debug)]
pub struct ScrapePageOpened {
    pub address: SocketAddr,
}

impl ScrapePageOpened {
    pub fn emit(self) {
        info!(address = %self.address, "metrics at /metrics");
    }
}

/// Bans can be asked for.
#[derive(Debug)]
pub struct AdminOpened {
    pub address: SocketAddr,
}

impl AdminOpened {
    pub fn emit(self) {
        info!(address = %self.address, "admin endpoint");
    }
}

/// The node's people shall go to the other nodes.
#[derive(Debug)]
pub struct NodeDraining {
    pub deadline: Duration,
}

impl NodeDraining {
    pub fn emit(self) {
        info!(deadline_s = self.deadline.as_secs_f64(), "node draining");
    }
}

/// Everybody has gone, or had to.
#[derive(Debug)]
pub struct NodeDrained {
    /// Sessions that the deadline ended.
    pub left: usize,
    pub after: Duration,
}

impl NodeDrained {
    pub fn emit(self) {
        info!(left = self.left, after_s = self.after.as_secs_f64(), "node drained");
    }
}

/// Somebody with the right to do it had the node drained, or serve again.
#[derive(Debug)]
pub struct DrainAsked<'a> {
    pub what: &'static str,
    /// The key of the token.
    pub by: &'a str,
}

impl DrainAsked<'_> {
    pub fn emit(self) {
        info!(what = self.what, by = self.by, "drain asked");
    }
}

/// The node takes nobody any more and tells its people to go.
#[derive(Debug)]
pub struct NodeStopping;

impl NodeStopping {
    pub fn emit(self) {
        info!("node stopping");
    }
}

/// Everything has ended; the process follows.
#[derive(Debug)]
pub struct NodeStopped {
    pub after: Duration,
}

impl NodeStopped {
    pub fn emit(self) {
        info!(after_s = self.after.as_secs_f64(), "node stopped");
    }
}

/// The first session of a room on this node.
#[derive(Debug)]
pub struct RoomOpened;

impl RoomOpened {
    pub fn emit(self) {
        info!("room opened");
        instruments().rooms.add(1, &[]);
    }
}

/// The room is over. [`RoomGone`] follows.
#[derive(Debug)]
pub struct RoomClosed {
    pub reason: LeaveReason,
    pub after: Duration,
}

impl RoomClosed {
    pub fn emit(self) {
        info!(reason = label(self.reason), after_s = self.after.as_secs_f64(), "room closed");
    }
}

/// All of the room's people are on other nodes; this one hosts it no longer. [`RoomGone`] follows.
#[derive(Debug)]
pub struct RoomLeft {
    pub after: Duration,
}

impl RoomLeft {
    pub fn emit(self) {
        info!(after_s = self.after.as_secs_f64(), "room left to other nodes");
    }
}

/// Nothing of the room is here any more, however it ended, after [`RoomOpened`].
#[derive(Debug)]
pub struct RoomGone;

impl RoomGone {
    pub fn emit(self) {
        debug!("room gone");
        instruments().rooms.add(-1, &[]);
    }
}

/// A session exists and its join response is on its way.
#[derive(Debug)]
pub struct JoinAccepted {
    /// Since the request came in.
    pub after: Duration,
}

impl JoinAccepted {
    pub fn emit(self) {
        let after_s = self.after.as_secs_f64();
        debug!(after_s, "join accepted");
        instruments().joins.record(after_s, &[]);
        instruments().participants.add(1, &[]);
    }
}

/// Somebody was turned away at the door. Not emitted by `/rtc/validate`, which only asks again.
#[derive(Debug)]
pub struct JoinRefused {
    /// Out of the closed set of the refusals' own names.
    pub reason: &'static str,
}

impl JoinRefused {
    pub fn emit(self) {
        debug!(reason = self.reason, "join refused");
        instruments().joins_refused.add(1, &[KeyValue::new("reason", self.reason)]);
    }
}

/// A session is over, after [`JoinAccepted`].
#[derive(Debug)]
pub struct ParticipantLeft {
    pub reason: LeaveReason,
    pub after: Duration,
}

impl ParticipantLeft {
    pub fn emit(self) {
        let reason = label(self.reason);
        debug!(reason, after_s = self.after.as_secs_f64(), "participant left");
        instruments().participants.add(-1, &[]);
        instruments().leaves.add(1, &[KeyValue::new("reason", reason)]);
    }
}

/// Media of one transport flows.
#[derive(Debug)]
pub struct PeerConnected {
    pub target: Target,
    /// Since the session began.
    pub after: Duration,
}

impl PeerConnected {
    pub fn emit(self) {
        let (after_s, target) = (self.after.as_secs_f64(), label(self.target));
        debug!(transport = target, after_s, "peer connected");
        instruments().peers_connected.record(after_s, &[KeyValue::new("target", target)]);
    }
}

/// The first media of a track that its publisher sent, or that a subscriber was sent.
#[derive(Debug)]
pub struct FirstPacket<'a> {
    /// In on the publisher's transport, out on a subscriber's.
    pub target: Target,
    pub track: &'a TrackSid,
    /// Since the session began.
    pub after: Duration,
}

impl FirstPacket<'_> {
    pub fn emit(self) {
        debug!(transport = label(self.target), track = %self.track, after_s = self.after.as_secs_f64(), "first packet");
    }
}

/// A transport is gone.
#[derive(Debug)]
pub struct PeerClosed {
    pub target: Target,
    pub why: PeerEnd,
}

impl PeerClosed {
    pub fn emit(self) {
        let reason = label(self.why);
        debug!(transport = label(self.target), reason, "peer closed");
        instruments().peers_closed.add(1, &[KeyValue::new("reason", reason)]);
    }
}

/// A client's session description cannot be used.
#[derive(Debug)]
pub struct SdpRefused {
    pub why: media::Refusal,
}

impl SdpRefused {
    pub fn emit(self) {
        debug!(why = %self.why, "description refused");
        instruments().refused.add(1, &[KeyValue::new("what", "sdp"), KeyValue::new("reason", label(&self.why))]);
    }
}

/// A data-channel message is no message.
#[derive(Debug)]
pub struct DataRefused {
    pub why: BadFrame,
}

impl DataRefused {
    pub fn emit(self) {
        debug!(why = %self.why, "data refused");
        instruments().refused.add(1, &[KeyValue::new("what", "data"), KeyValue::new("reason", label(self.why))]);
    }
}

/// A client said something that its session drops without an answer.
#[derive(Debug)]
pub struct SignalDropped {
    pub why: session::Dropped,
}

impl SignalDropped {
    pub fn emit(self) {
        let reason = label(self.why);
        trace!(reason, "signal dropped");
        instruments().refused.add(1, &[KeyValue::new("what", "signal"), KeyValue::new("reason", reason)]);
    }
}

/// A signalling socket was shut because its client could not be asked to.
#[derive(Debug)]
pub struct SocketEvicted {
    /// Out of a closed set.
    pub reason: &'static str,
}

impl SocketEvicted {
    pub fn emit(self) {
        warn!(reason = self.reason, "socket evicted");
        instruments().sockets_evicted.add(1, &[KeyValue::new("reason", self.reason)]);
    }
}

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

/// The keys were read again and are in use.
#[derive(Debug)]
pub struct KeysReloaded {
    pub keys: usize,
    pub issuers: usize,
}

impl KeysReloaded {
    pub fn emit(self) {
        info!(keys = self.keys, issuers = self.issuers, "keys reloaded");
        instruments().keys_reloaded.add(1, &[KeyValue::new("result", "ok")]);
    }
}

/// The keys were read again and cannot be used: those from before stay.
#[derive(Debug)]
pub struct KeysNotReloaded<'a> {
    pub error: &'a (dyn std::error::Error + 'static),
}

impl KeysNotReloaded<'_> {
    pub fn emit(self) {
        error!(error = %self.error, "keys not reloaded, the old ones stay");
        instruments().keys_reloaded.add(1, &[KeyValue::new("result", "error")]);
    }
}

/// An issuer's published keys are in use.
#[derive(Debug)]
pub struct IssuerKeysFetched<'a> {
    pub issuer: &'a str,
    pub keys: usize,
}

impl IssuerKeysFetched<'_> {
    pub fn emit(self) {
        debug!(issuer = self.issuer, keys = self.keys, "issuer keys fetched");
        instruments().issuer_fetches.add(1, &[KeyValue::new("result", "ok")]);
    }
}

/// An issuer's keys could not be fetched; those from before are believed for a while.
#[derive(Debug)]
pub struct IssuerKeysNotFetched<'a> {
    pub issuer: &'a str,
    pub why: &'a FetchError,
    pub again_in: Duration,
}

impl IssuerKeysNotFetched<'_> {
    pub fn emit(self) {
        let again_in_s = self.again_in.as_secs_f64();
        warn!(issuer = self.issuer, why = %self.why, again_in_s, "issuer keys not fetched");
        instruments().issuer_fetches.add(1, &[KeyValue::new("result", label(self.why))]);
    }
}

/// An issuer could not be reached for so long that its old keys are no longer believed: its tokens are refused.
#[derive(Debug)]
pub struct IssuerKeysForgotten<'a> {
    pub issuer: &'a str,
}

impl IssuerKeysForgotten<'_> {
    pub fn emit(self) {
        error!(issuer = self.issuer, "issuer keys are too old to be believed");
    }
}

/// A host app was told.
#[derive(Debug)]
pub struct WebhookTold<'a> {
    pub event: &'a str,
    /// Since it happened.
    pub after: Duration,
}

impl WebhookTold<'_> {
    pub fn emit(self) {
        debug!(event = self.event, after_s = self.after.as_secs_f64(), "host app told");
        instruments().webhooks_told.record(self.after.as_secs_f64(), &[]);
    }
}

/// A host app could not be told; it is tried again.
#[derive(Debug)]
pub struct WebhookFailed<'a> {
    pub event: &'a str,
    /// The host of the URL, of which the rest may be secret.
    pub host: &'a str,
    pub why: &'a CallFailure,
    pub again_in: Duration,
    /// Whether it took what it was told before.
    pub is_news: bool,
}

impl WebhookFailed<'_> {
    pub fn emit(self) {
        let (again_in_s, why) = (self.again_in.as_secs_f64(), self.why);
        if self.is_news {
            warn!(event = self.event, host = self.host, %why, again_in_s, "host app not told yet");
        } else {
            debug!(event = self.event, host = self.host, %why, again_in_s, "host app not told yet");
        }
        instruments().webhooks_failed.add(1, &[KeyValue::new("reason", label(self.why))]);
    }
}

/// A host app is not told of this: it refused it, or did not take it for too long.
#[derive(Debug)]
pub struct WebhookGivenUp<'a> {
    pub event: &'a str,
    pub id: &'a str,
    pub host: &'a str,
    pub why: &'a CallFailure,
}

impl WebhookGivenUp<'_> {
    pub fn emit(self) {
        error!(event = self.event, id = self.id, host = self.host, why = %self.why, "host app not told");
        instruments().webhooks_failed.add(1, &[KeyValue::new("reason", label(self.why))]);
        instruments().webhooks_dropped.add(1, &[KeyValue::new("reason", "given_up")]);
    }
}

/// More waited for a host app than may.
#[derive(Debug)]
pub struct WebhooksDropped<'a> {
    pub host: &'a str,
    pub changes: u64,
}

impl WebhooksDropped<'_> {
    pub fn emit(self) {
        if self.changes > 0 {
            error!(host = self.host, changes = self.changes, "too much waits for a host app, the oldest was dropped");
            instruments().webhooks_dropped.add(self.changes, &[KeyValue::new("reason", "queue_full")]);
        }
    }
}

/// How far behind this node is with telling a host app.
#[derive(Debug)]
pub struct WebhooksBehind {
    /// The URL's place in the configuration.
    pub destination: usize,
    pub by: Duration,
}

impl WebhooksBehind {
    pub fn emit(self) {
        let destination = i64::try_from(self.destination).unwrap_or(i64::MAX);
        instruments().webhooks_age.record(self.by.as_secs_f64(), &[KeyValue::new("destination", destination)]);
    }
}

/// A fault of ours, at the moment it happens, whoever catches it.
#[derive(Debug)]
pub struct Panicked<'a> {
    pub thread: &'a str,
    /// File and line.
    pub place: &'a str,
    pub message: &'a str,
}

impl Panicked<'_> {
    pub fn emit(self) {
        error!(thread = self.thread, place = self.place, panic = self.message, "panicked");
    }
}

/// What a fault of ours ended: one session, one room or one thread.
#[derive(Debug)]
pub struct PanicCaught {
    /// Out of a closed set.
    pub what: &'static str,
}

impl PanicCaught {
    pub fn emit(self) {
        error!(what = self.what, "ended by a fault");
        instruments().panics.add(1, &[KeyValue::new("what", self.what)]);
    }
}

/// A media thread ended by a fault and could not be started again; the next attempt follows.
#[derive(Debug)]
pub struct RouterNotRebuilt {
    pub error: String,
}

impl RouterNotRebuilt {
    pub fn emit(self) {
        error!(error = self.error, "media router not rebuilt");
    }
}

/// Something that has to work did not, and nothing more specific says so.
#[derive(Debug)]
pub struct Fault<'a> {
    /// What was being done, a constant.
    pub doing: &'static str,
    pub error: &'a (dyn std::error::Error + 'static),
}

impl Fault<'_> {
    pub fn emit(self) {
        error!(doing = self.doing, error = %self.error, "fault");
    }
}
