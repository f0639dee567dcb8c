//! Reading tokens. What is not proven here is not believed anywhere.

use std::{collections::BTreeMap, fmt, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use secrecy::ExposeSecret;
use serde::{Deserialize, de::IgnoredAny};

use super::{Claims, Keys, TOKEN_BYTES_MAX};

/// Checks tokens against the live secrets. The algorithm belongs to the key, never to the token.
#[derive(Clone)]
pub struct Verifier {
    keys: BTreeMap<String, Vec<DecodingKey>>,
    leeway: Duration,
}

impl Verifier {
    /// `leeway` is how far the clocks of the host application and of this machine may differ.
    pub fn new(keys: &Keys, leeway: Duration) -> Self {
        let decoding = |secret: &secrecy::SecretString| DecodingKey::from_secret(secret.expose_secret().as_bytes());
        let keys = keys.iter().map(|(key, secrets)| (key.to_owned(), secrets.iter().map(decoding).collect())).collect();
        Self { keys, leeway }
    }

    /// The claims of a token that a live secret signed and whose time it is.
    pub fn verify(&self, token: &str, now_unix_s: u64) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLarge);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
        check_header(&decoded(header)?)?;

        let payload = decoded(payload)?;
        // Only the issuer is read before the signature is checked: it says which secret to check with.
        let Unproven { iss } = serde_json::from_slice(&payload).map_err(|_| TokenError::Malformed)?;
        let secrets = iss.and_then(|issuer| self.keys.get(&issuer)).ok_or(TokenError::UnknownKey)?;
        check_signature(message, signature, secrets)?;

        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| TokenError::BadClaims)?;
        self.check_time(&claims, now_unix_s)?;
        Ok(claims)
    }

    fn check_time(&self, claims: &Claims, now_unix_s: u64) -> Result<(), TokenError> {
        let leeway_s = self.leeway.as_secs();
        let expires_at = claims.expires_at.ok_or(TokenError::NoExpiry)?;
        if expires_at.saturating_add(leeway_s) < now_unix_s {
            return Err(TokenError::Expired { ago_s: now_unix_s - expires_at, now_unix_s });
        }
        match claims.not_before {
            Some(at) if at > now_unix_s.saturating_add(leeway_s) => {
                Err(TokenError::NotYetValid { in_s: at - now_unix_s, now_unix_s })
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.keys.keys().collect();
        f.debug_struct("Verifier").field("keys", &keys).field("leeway", &self.leeway).finish()
    }
}

/// Why a token was refused. The texts go to clients: they name no part of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("invalid token: it is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLarge,
    #[error("invalid token: it is not a JSON Web Token")]
    Malformed,
    #[error("invalid token: algorithm {0} is not accepted, sign with HS256")]
    Algorithm(&'static str),
    #[error("invalid token: its header asks for something this server does not do")]
    Header,
    #[error("invalid API key: this server does not know the issuer of the token")]
    UnknownKey,
    #[error("invalid token: the signature does not match the secret of its API key")]
    Signature,
    #[error("invalid token: a claim is not what it should be")]
    BadClaims,
    #[error("invalid token: it has no expiry (exp)")]
    NoExpiry,
    #[error("invalid token: it expired {ago_s} s ago (server time {now_unix_s})")]
    Expired { ago_s: u64, now_unix_s: u64 },
    #[error("invalid token: it is not valid for another {in_s} s (server time {now_unix_s})")]
    NotYetValid { in_s: u64, now_unix_s: u64 },
}

impl TokenError {
    /// The status a client sees: 401 whatever is wrong, which every SDK takes as final.
    pub const fn http_status(&self) -> u16 {
        401
    }

    /// The name of the reason in logs and metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge => "token_too_large",
            Self::Malformed => "token_malformed",
            Self::Algorithm(_) => "token_algorithm",
            Self::Header => "token_header",
            Self::UnknownKey => "token_key_unknown",
            Self::Signature => "token_signature",
            Self::BadClaims => "token_claims",
            Self::NoExpiry => "token_no_expiry",
            Self::Expired { .. } => "token_expired",
            Self::NotYetValid { .. } => "token_not_yet_valid",
        }
    }
}

/// LiveKit's; the clocks of hosts are often a little off.
pub const DEFAULT_LEEWAY: Duration = Duration::from_secs(60);

/// What is looked at in a header. `kid`, `jku`, `x5u` and the rest are not: no part of a token chooses its key.
#[derive(Deserialize)]
struct TokenHeader {
    alg: String,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    crit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Unproven {
    #[serde(default)]
    iss: Option<String>,
}

fn check_header(header: &[u8]) -> Result<(), TokenError> {
    let TokenHeader { alg, typ, crit } = serde_json::from_slice(header).map_err(|_| TokenError::Malformed)?;
    if alg != "HS256" {
        return Err(TokenError::Algorithm(algorithm_name(&alg)));
    }
    // RFC 7515 4.1.11: what is critical and not understood refuses the token.
    let of_another_type = typ.is_some_and(|typ| !typ.eq_ignore_ascii_case("JWT"));
    if of_another_type || crit.is_some() { Err(TokenError::Header) } else { Ok(()) }
}

/// A name out of our own table, so that no text of the sender comes back or reaches a log.
fn algorithm_name(alg: &str) -> &'static str {
    const KNOWN: [&str; 14] = [
        "none", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512",
        "EdDSA", "ES256K",
    ];
    KNOWN.into_iter().find(|known| known.eq_ignore_ascii_case(alg)).unwrap_or("of that name")
}

/// The library compares in constant time.
fn check_signature(message: &str, signature: &str, secrets: &[DecodingKey]) -> Result<(), TokenError> {
    for secret in secrets {
        match crypto::verify(signature, message.as_bytes(), secret, Algorithm::HS256) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(_) => return Err(TokenError::Malformed),
        }
    }
    Err(TokenError::Signature)
}

fn decoded(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)
}
