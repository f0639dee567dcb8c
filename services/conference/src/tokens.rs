//! Refresh tokens: what keeps a client's way back open.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use plenary_model::Participant;
use plenary_protocol::token::Claims;

use crate::keys::KeyRing;

/// Mints the tokens of one session: its own claims as they are now, never wider.
#[derive(Debug, Clone)]
pub struct Refresher {
    keys: Arc<KeyRing>,
    claims: Claims,
}

impl Refresher {
    pub fn new(keys: Arc<KeyRing>, claims: Claims) -> Self {
        Self { keys, claims }
    }

    /// `None` where the token cannot be made (metadata larger than a token, an issuer whose private key is not ours and no
    /// refresh key, a key that is no longer configured); the client keeps the one it has.
    pub fn token(&mut self, own: &Participant) -> Option<String> {
        self.claims.name.clone_from(&own.name);
        self.claims.metadata.clone_from(&own.metadata);
        self.claims.attributes.clone_from(&own.attributes);
        self.claims.set_permission(&own.permission);
        self.keys.refresh(&self.claims, unix_seconds()).ok()
    }
}

pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// For what a recording says of itself.
pub fn unix_ns() -> u64 {
    unix_ms().saturating_mul(1_000_000)
}

pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
