//! What happens to the keys that tokens are judged by.

use std::time::Duration;

use opentelemetry::KeyValue;
use tracing::{debug, error, info, warn};

use crate::{
    keys::FetchError,
    metrics::{instruments, label},
};

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
