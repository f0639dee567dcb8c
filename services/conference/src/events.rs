//! What happens to a node, its rooms and its people: one struct per happening.
//!
//! `emit()` writes the log line and moves the metric together, so that neither is forgotten. Levels: error, somebody
//! must act; warn, we coped, look tomorrow; info, the life of nodes and rooms; debug, the life of a participant.
//! No event carries a token, an SDP or a client's address, and no label comes from outside.

use std::{net::SocketAddr, time::Duration};

use opentelemetry::KeyValue;
use plenary_media_core::PeerEnd;
use plenary_model::{LeaveReason, ParticipantSid, PeerId, RoomName, Target};
use tracing::{debug, error, info, warn};

use crate::{
    config::Listen,
    metrics::{instruments, label},
};

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
pub struct NodeStarted<'a> {
    pub node: &'a str,
    pub http: SocketAddr,
    pub metrics: Listen,
    pub media: &'a [SocketAddr],
    pub media_tcp: Option<SocketAddr>,
    pub media_threads: usize,
    pub tls: bool,
}

impl NodeStarted<'_> {
    pub fn emit(self) {
        info!(
            node = self.node,
            http = %self.http,
            metrics = %self.metrics,
            media = ?self.media,
            media_tcp = ?self.media_tcp,
            media_threads = self.media_threads,
            tls = self.tls,
            version = env!("CARGO_PKG_VERSION"),
            "node started"
        );
    }
}

/// Why a node goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// SIGTERM or SIGINT.
    Signal,
    /// A second one: nobody is waited for.
    SecondSignal,
    /// The HTTP server ended by itself.
    FrontLost,
}

/// The node takes nobody any more and tells its people to go elsewhere.
#[derive(Debug)]
pub struct NodeStopping {
    pub reason: StopReason,
}

impl NodeStopping {
    pub fn emit(self) {
        info!(reason = label(self.reason), "node stopping");
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
pub struct RoomOpened<'a> {
    pub room: &'a RoomName,
}

impl RoomOpened<'_> {
    pub fn emit(self) {
        info!(room = %self.room, "room opened");
        instruments().rooms.add(1, &[]);
    }
}

/// The room left this node, after [`RoomOpened`].
#[derive(Debug)]
pub struct RoomClosed<'a> {
    pub room: &'a RoomName,
    pub reason: LeaveReason,
    pub after: Duration,
}

impl RoomClosed<'_> {
    pub fn emit(self) {
        info!(room = %self.room, reason = label(self.reason), after_s = self.after.as_secs_f64(), "room closed");
        instruments().rooms.add(-1, &[]);
    }
}

/// A session exists and its join response is on its way.
#[derive(Debug)]
pub struct JoinAccepted<'a> {
    pub room: &'a RoomName,
    pub participant: &'a ParticipantSid,
    /// As the client calls itself.
    pub sdk: &'a str,
    pub resumed: bool,
    /// Since the request came in.
    pub after: Duration,
}

impl JoinAccepted<'_> {
    pub fn emit(self) {
        let after_s = self.after.as_secs_f64();
        debug!(
            room = %self.room, participant = %self.participant, sdk = self.sdk, resumed = self.resumed, after_s,
            "join accepted"
        );
        let how = if self.resumed { "resume" } else { "join" };
        instruments().joins.record(after_s, &[KeyValue::new("how", how)]);
        if !self.resumed {
            instruments().participants.add(1, &[]);
        }
    }
}

/// Somebody was turned away at the door. Not emitted by `/rtc/validate`, which only asks again.
#[derive(Debug)]
pub struct JoinRefused {
    /// Out of the closed set of the refusals' own names.
    pub reason: &'static str,
    pub status: u16,
}

impl JoinRefused {
    pub fn emit(self) {
        debug!(reason = self.reason, status = self.status, "join refused");
        instruments().joins_refused.add(1, &[KeyValue::new("reason", self.reason)]);
    }
}

/// A session is over, after [`JoinAccepted`].
#[derive(Debug)]
pub struct ParticipantLeft<'a> {
    pub room: &'a RoomName,
    pub participant: &'a ParticipantSid,
    pub reason: LeaveReason,
    pub after: Duration,
}

impl ParticipantLeft<'_> {
    pub fn emit(self) {
        let reason = label(self.reason);
        debug!(
            room = %self.room, participant = %self.participant, reason, after_s = self.after.as_secs_f64(),
            "participant left"
        );
        instruments().participants.add(-1, &[]);
        instruments().leaves.add(1, &[KeyValue::new("reason", reason)]);
    }
}

/// Media of one transport flows.
#[derive(Debug)]
pub struct PeerConnected<'a> {
    pub participant: &'a ParticipantSid,
    pub peer: PeerId,
    pub target: Target,
    /// Since its first description.
    pub after: Duration,
}

impl PeerConnected<'_> {
    pub fn emit(self) {
        let (after_s, target) = (self.after.as_secs_f64(), label(self.target));
        debug!(participant = %self.participant, peer = %self.peer, target, after_s, "peer connected");
        instruments().peers_connected.record(after_s, &[KeyValue::new("target", target)]);
    }
}

/// A transport is gone.
#[derive(Debug)]
pub struct PeerClosed {
    pub peer: PeerId,
    pub reason: PeerEnd,
    pub after: Duration,
}

impl PeerClosed {
    pub fn emit(self) {
        let reason = label(self.reason);
        debug!(peer = %self.peer, reason, after_s = self.after.as_secs_f64(), "peer closed");
        instruments().peers_closed.add(1, &[KeyValue::new("reason", reason)]);
    }
}

/// Why a signalling socket was shut from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// It stopped reading what we sent.
    SlowReader,
    /// It was still open when its session was over.
    Lingering,
}

/// A signalling socket was shut because its client could not be asked to.
#[derive(Debug)]
pub struct SocketEvicted {
    pub reason: Eviction,
}

impl SocketEvicted {
    pub fn emit(self) {
        let reason = label(self.reason);
        warn!(reason, "socket evicted");
        instruments().sockets_evicted.add(1, &[KeyValue::new("reason", reason)]);
    }
}

/// A fault of ours. It ended one session, one room or one thread, and the line says where to look.
#[derive(Debug)]
pub struct PanicCaught<'a> {
    pub thread: &'a str,
    /// File and line.
    pub place: &'a str,
    pub message: &'a str,
}

impl PanicCaught<'_> {
    pub fn emit(self) {
        error!(thread = self.thread, place = self.place, panic = self.message, "panic caught");
        instruments().panics.add(1, &[]);
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
