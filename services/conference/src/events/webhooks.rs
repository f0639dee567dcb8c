//! What happens when host apps are told.

use std::time::Duration;

use opentelemetry::KeyValue;
use tracing::{debug, error, warn};

use crate::{
    metrics::{instruments, label},
    webhooks::CallFailure,
};

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
