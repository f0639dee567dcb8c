//! What happens to a node, its rooms and its people: one struct per happening.
//!
//! `emit()` writes the log line and moves the metric together, so that neither is forgotten. Room and participant are
//! fields of the span around it, not of the event. Levels: error, somebody
//! must act; warn, we coped, look tomorrow; info, the life of nodes and rooms; debug, the life of a participant.
//! No event carries a token, an SDP or a client's address, and no label comes from outside.

mod cluster;
mod keys;
mod node;
mod people;
mod recording;
mod webhooks;

use opentelemetry::KeyValue;
use tracing::error;

use crate::metrics::instruments;

pub use self::{cluster::*, keys::*, node::*, people::*, recording::*, webhooks::*};

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
