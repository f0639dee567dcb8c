//! What happens in a room and to its people.

use std::time::Duration;

use opentelemetry::KeyValue;
use plenary_media_core::{self as media, PeerEnd};
use plenary_model::{LeaveReason, Target, TrackSid};
use plenary_room_core::session;
use tracing::{debug, info, trace, warn};

use crate::{
    front::convert::BadFrame,
    metrics::{instruments, label},
};

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
