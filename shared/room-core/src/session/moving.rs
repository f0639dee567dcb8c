//! A client that was told to start over on another node. All stays as it is until the client itself closes; then its place
//! in the room stays until its next session takes it, so that others see one person throughout.

use std::time::{Duration, Instant};

use plenary_model::{LeaveAction, LeaveReason};

use super::{Output, Session, SocketEnd};
use crate::signal::ServerSignal;

impl Session {
    pub(super) fn on_move(&mut self, now: Instant) {
        if self.told_to_move.is_some() {
            return;
        }
        self.told_to_move = Some(now);
        self.refresh_token();
        self.send_leave(LeaveReason::Migration, LeaveAction::Reconnect);
    }

    /// When a client that only listens is helped on its way, and when one that is gone counts as departed.
    pub(super) fn move_deadline(&self) -> Option<Instant> {
        let patience = if self.link.is_live() { CLOSE_WITHIN } else { RETURN_WITHIN };
        self.told_to_move?.checked_add(patience)
    }

    pub(super) fn on_move_deadline(&mut self, now: Instant) {
        if self.link.is_live() {
            self.set_out(now);
        } else {
            self.finish(LeaveReason::SignalClose, SocketEnd::Ended);
        }
    }

    /// The client's socket ends, and nothing else does.
    pub(super) fn set_out(&mut self, now: Instant) {
        if self.link.is_live() {
            self.outputs.push_back(Output::CloseSocket(SocketEnd::Moved));
            self.link.lose(now);
        }
    }

    /// Too late to come back: its next session is on its way.
    pub(super) fn refuse_resume(&mut self, now: Instant) {
        self.send(ServerSignal::Leave { reason: LeaveReason::StateMismatch, action: LeaveAction::Reconnect });
        self.set_out(now);
    }
}

/// SDKs close by themselves within a second.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Longer than the reconnect of any SDK whose attempts succeed.
const RETURN_WITHIN: Duration = Duration::from_secs(10);
