//! TURN servers that clients are told of, with credentials of their own that end by themselves.
//!
//! The credentials are coturn's `use-auth-secret`: the user name is `<unix seconds of expiry>:<user>`, the password the
//! base64 of its HMAC-SHA1 under the shared secret (draft-uberti-behave-turn-rest-00). Nothing is asked of the TURN
//! server, and it asks nothing of us.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use plenary_model::{IceServer, ParticipantSid};
use secrecy::ExposeSecret;

use crate::config::Turn;

/// The configured servers, ready to issue credentials.
#[derive(Debug, Default)]
pub struct TurnServers(Vec<TurnServer>);

#[derive(Debug)]
struct TurnServer {
    urls: Vec<String>,
    key: hmac::Key,
    ttl: Duration,
}

impl TurnServers {
    pub fn new(turn: &[Turn]) -> Self {
        let server = |turn: &Turn| TurnServer {
            urls: turn.urls.clone(),
            key: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, turn.secret.expose_secret().as_bytes()),
            ttl: turn.ttl,
        };
        Self(turn.iter().map(server).collect())
    }

    /// For one session, good from now for each server's time to live.
    pub fn credentials(&self, user: &ParticipantSid, now_unix_s: u64) -> Vec<IceServer> {
        let issue = |server: &TurnServer| {
            let username = format!("{}:{user}", now_unix_s.saturating_add(server.ttl.as_secs()));
            let credential = BASE64_STANDARD.encode(hmac::sign(&server.key, username.as_bytes()));
            IceServer { urls: server.urls.clone(), username, credential }
        };
        self.0.iter().map(issue).collect()
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    /// The password was computed with `openssl dgst -sha1 -hmac`.
    #[test]
    fn credentials_are_what_coturn_computes() {
        let turn = Turn {
            urls: vec!["turn:turn.example.com:3478".into()],
            secret: SecretString::from("north"),
            ttl: Duration::from_secs(600),
        };
        let servers = TurnServers::new(&[turn]);
        let [server] = &servers.credentials(&"PA_x".into(), 1_000)[..] else { panic!("one server") };
        assert_eq!(server.urls, ["turn:turn.example.com:3478"]);
        assert_eq!(
            (server.username.as_str(), server.credential.as_str()),
            ("1600:PA_x", "4OqclH/u24RkaGu6liGOeiR34rg=")
        );
        assert!(!format!("{servers:?}").contains("north"), "secrets stay out of logs");
    }
}
