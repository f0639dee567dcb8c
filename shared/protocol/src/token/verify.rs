//! Reading tokens. What is not proven here is not believed anywhere.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use secrecy::ExposeSecret;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::{Claims, Issuer, Keys, PublicKey, TOKEN_BYTES_MAX, public_key};

/// Checks tokens against the live keys. The algorithm belongs to the key, never to the token.
#[derive(Clone)]
pub struct Verifier {
    trusted: BTreeMap<String, Trusted>,
    /// Whoever it names may vouch for those whose tokens it refreshes.
    refresh_key: Option<String>,
    leeway: Duration,
    life_max: Duration,
}

#[derive(Clone)]
enum Trusted {
    /// HS256 and nothing else.
    Secrets(Vec<DecodingKey>),
    Public(Issuer),
}

impl Verifier {
    /// `leeway` is how far the clocks of the host application and of this machine may differ.
    pub fn new(keys: &Keys, leeway: Duration) -> Self {
        let decoding = |secret: &secrecy::SecretString| DecodingKey::from_secret(secret.expose_secret().as_bytes());
        let with_secrets = |(key, secrets): (&str, &[secrecy::SecretString])| {
            (key.to_owned(), Trusted::Secrets(secrets.iter().map(decoding).collect()))
        };
        let with_public = |(name, issuer): (&str, &Issuer)| (name.to_owned(), Trusted::Public(issuer.clone()));
        Self {
            trusted: keys.iter().map(with_secrets).chain(keys.issuers().map(with_public)).collect(),
            refresh_key: keys.refresh_key().map(Into::into),
            leeway,
            life_max: Duration::MAX,
        }
    }

    /// Refuses tokens that are good for longer than this from now on. Whoever is revoked is forgotten after as long.
    pub fn with_life_max(self, life_max: Duration) -> Self {
        Self { life_max, ..self }
    }

    /// The claims of a token that a live key signed and whose time it is.
    pub fn verify(&self, token: &str, now_unix_s: u64) -> Result<Claims, TokenError> {
        let Parts { message, signature, header, payload } = Parts::of(token)?;
        let algorithm = header.algorithm()?;
        header.check_extensions()?;
        // Only the issuer is read before the signature is checked: it says whose keys to check with.
        let issuer = unproven_issuer(&payload)?.ok_or(TokenError::UnknownKey)?;
        match self.trusted.get(&issuer).ok_or(TokenError::UnknownKey)? {
            Trusted::Secrets(secrets) => {
                if algorithm != Algorithm::HS256 {
                    return Err(TokenError::Algorithm(public_key::name(algorithm)));
                }
                header.check_type(&["JWT"])?;
                check_signature(message, signature, secrets)?;
            }
            Trusted::Public(issuer) => {
                header.check_type(&["JWT", "at+jwt"])?;
                let keys = issuer.keys.as_deref().ok_or(TokenError::KeysUnavailable)?;
                let candidates = header.candidates(keys, algorithm)?;
                if !candidates.iter().any(|key| key.verifies(message, signature)) {
                    return Err(TokenError::Signature);
                }
                check_audience(&payload, &issuer.audience)?;
            }
        }
        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| TokenError::BadClaims)?;
        self.check_vouching(&claims)?;
        self.check_time(&claims, now_unix_s)?;
        Ok(claims)
    }

    /// Whose keys a refused token would have been checked with, if anybody's: for fetching them again.
    pub fn issuer_of(&self, token: &str) -> Option<String> {
        let issuer = unproven_issuer(&Parts::of(token).ok()?.payload).ok()??;
        matches!(self.trusted.get(&issuer), Some(Trusted::Public(_))).then_some(issuer)
    }

    /// A refresh token outlives neither the trust in its first issuer nor the right to vouch for it.
    fn check_vouching(&self, claims: &Claims) -> Result<(), TokenError> {
        let Some(first) = &claims.vouched_for else { return Ok(()) };
        let vouches = self.refresh_key.as_ref() == Some(&claims.issuer) && self.trusted.contains_key(first);
        if vouches { Ok(()) } else { Err(TokenError::UnknownKey) }
    }

    fn check_time(&self, claims: &Claims, now_unix_s: u64) -> Result<(), TokenError> {
        let leeway_s = self.leeway.as_secs();
        let expires_at = claims.expires_at.ok_or(TokenError::NoExpiry)?;
        if expires_at.saturating_add(leeway_s) < now_unix_s {
            return Err(TokenError::Expired { ago_s: now_unix_s - expires_at, now_unix_s });
        }
        let latest = now_unix_s.saturating_add(self.life_max.as_secs()).saturating_add(leeway_s);
        if expires_at > latest {
            return Err(TokenError::TooLong { limit_s: self.life_max.as_secs() });
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
        let trusted: Vec<_> = self.trusted.keys().collect();
        f.debug_struct("Verifier").field("trusted", &trusted).field("leeway", &self.leeway).finish_non_exhaustive()
    }
}

/// Why a token was refused. The texts go to clients: they name no part of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("invalid token: it is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLarge,
    #[error("invalid token: it is not a JSON Web Token")]
    Malformed,
    #[error("invalid token: algorithm {0} is not the one of its issuer's key")]
    Algorithm(&'static str),
    #[error("invalid token: its header asks for something this server does not do")]
    Header,
    #[error("invalid API key: this server does not know the issuer of the token")]
    UnknownKey,
    /// Worth fetching the issuer's keys again.
    #[error("invalid token: its issuer has no key of this id (kid)")]
    UnknownKid,
    #[error("invalid token: its issuer has several keys, so it has to name one (kid)")]
    NoKid,
    /// Not the token's fault.
    #[error("the keys of the token's issuer are not known yet, try again")]
    KeysUnavailable,
    #[error("invalid token: the signature does not match the key of its issuer")]
    Signature,
    #[error("invalid token: it is not for this server (aud)")]
    Audience,
    #[error("invalid token: a claim is not what it should be")]
    BadClaims,
    #[error("invalid token: it has no expiry (exp)")]
    NoExpiry,
    #[error("invalid token: it is good for longer than {limit_s} s")]
    TooLong { limit_s: u64 },
    #[error("invalid token: it expired {ago_s} s ago (server time {now_unix_s})")]
    Expired { ago_s: u64, now_unix_s: u64 },
    #[error("invalid token: it is not valid for another {in_s} s (server time {now_unix_s})")]
    NotYetValid { in_s: u64, now_unix_s: u64 },
}

impl TokenError {
    /// The status a client sees: 401 whatever is wrong with the token, which every SDK takes as final.
    pub const fn http_status(&self) -> u16 {
        match self {
            Self::KeysUnavailable => 503,
            _ => 401,
        }
    }

    /// The name of the reason in logs and metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge => "token_too_large",
            Self::Malformed => "token_malformed",
            Self::Algorithm(_) => "token_algorithm",
            Self::Header => "token_header",
            Self::UnknownKey => "token_key_unknown",
            Self::UnknownKid => "token_kid_unknown",
            Self::NoKid => "token_kid_missing",
            Self::KeysUnavailable => "token_keys_unavailable",
            Self::Signature => "token_signature",
            Self::Audience => "token_audience",
            Self::BadClaims => "token_claims",
            Self::NoExpiry => "token_no_expiry",
            Self::TooLong { .. } => "token_too_long",
            Self::Expired { .. } => "token_expired",
            Self::NotYetValid { .. } => "token_not_yet_valid",
        }
    }
}

/// LiveKit's; the clocks of hosts are often a little off.
pub const DEFAULT_LEEWAY: Duration = Duration::from_secs(60);

/// A token, taken apart and decoded, nothing of it proven.
struct Parts<'a> {
    message: &'a str,
    signature: &'a str,
    header: TokenHeader,
    payload: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLarge);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
        let header = serde_json::from_slice(&decoded(header)?).map_err(|_| TokenError::Malformed)?;
        // Whatever is not base64url can be nobody's signature.
        decoded(signature)?;
        Ok(Self { message, signature, header, payload: decoded(payload)? })
    }
}

/// What is looked at in a header. `jku`, `x5u`, `jwk` and the rest are not; `kid` finds a key among those of the issuer.
#[derive(Deserialize)]
struct TokenHeader {
    alg: String,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    kid: Option<Value>,
    #[serde(default)]
    crit: Option<IgnoredAny>,
}

impl TokenHeader {
    fn algorithm(&self) -> Result<Algorithm, TokenError> {
        Algorithm::from_str(&self.alg).map_err(|_| TokenError::Algorithm(algorithm_name(&self.alg)))
    }

    /// RFC 7515 4.1.11: what is critical and not understood refuses the token.
    fn check_extensions(&self) -> Result<(), TokenError> {
        if self.crit.is_some() { Err(TokenError::Header) } else { Ok(()) }
    }

    fn check_type(&self, known: &[&str]) -> Result<(), TokenError> {
        let is_known = |typ: &String| known.iter().any(|known| typ.eq_ignore_ascii_case(known));
        if self.typ.as_ref().is_none_or(is_known) { Ok(()) } else { Err(TokenError::Header) }
    }

    /// The keys that may have signed this: of the name the token gives, and of the algorithm it claims.
    fn candidates<'a>(&self, keys: &'a [PublicKey], algorithm: Algorithm) -> Result<Vec<&'a PublicKey>, TokenError> {
        let kid = match &self.kid {
            None => None,
            Some(Value::String(kid)) => Some(kid.as_str()),
            Some(_) => return Err(TokenError::Header),
        };
        let named: Vec<_> = keys.iter().filter(|key| kid.is_none() || key.id().is_none() || key.id() == kid).collect();
        if named.is_empty() {
            return Err(TokenError::UnknownKid);
        }
        let candidates: Vec<_> = named.into_iter().filter(|key| key.algorithm() == algorithm).collect();
        match candidates.len() {
            0 => Err(TokenError::Algorithm(public_key::name(algorithm))),
            1..=public_key::UNNAMED_KEYS_MAX => Ok(candidates),
            _ => Err(TokenError::NoKid),
        }
    }
}

fn unproven_issuer(payload: &[u8]) -> Result<Option<String>, TokenError> {
    #[derive(Deserialize)]
    struct Unproven {
        #[serde(default)]
        iss: Option<String>,
    }
    let Unproven { iss } = serde_json::from_slice(payload).map_err(|_| TokenError::Malformed)?;
    Ok(iss)
}

/// RFC 7519 4.1.3: `aud` is one name or several, and whoever is not among them refuses the token.
fn check_audience(payload: &[u8], ours: &[String]) -> Result<(), TokenError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Names {
        One(String),
        Several(Vec<String>),
    }
    #[derive(Deserialize)]
    struct Audience {
        #[serde(default)]
        aud: Option<Names>,
    }
    let Audience { aud } = serde_json::from_slice(payload).map_err(|_| TokenError::BadClaims)?;
    let names = match aud {
        None => Vec::new(),
        Some(Names::One(name)) => vec![name],
        Some(Names::Several(names)) => names,
    };
    let meant = if ours.is_empty() { names.is_empty() } else { names.iter().any(|name| ours.contains(name)) };
    if meant { Ok(()) } else { Err(TokenError::Audience) }
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
