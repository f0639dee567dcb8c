//! Whose tokens are believed: API keys with their secrets, and issuers with their public keys.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};

use super::PublicKey;

/// API keys with their live secrets, and issuers with their public keys. It never prints a secret.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// The first secret of a key signs, all of them verify: that is how a secret is rotated.
    secrets: BTreeMap<String, Vec<SecretString>>,
    issuers: BTreeMap<String, Issuer>,
    /// The API key that signs refresh tokens for issuers whose private key is not ours.
    refresh_key: Option<String>,
    development: bool,
}

/// Somebody whose tokens are checked with public keys.
#[derive(Debug, Clone, Default)]
pub struct Issuer {
    /// `None` until they have been fetched for the first time.
    pub keys: Option<Vec<PublicKey>>,
    /// A token has to be for one of these. If there is none, it must not be for anybody in particular.
    pub audience: Vec<String>,
}

impl Keys {
    /// No keys: no token is good.
    pub fn new() -> Self {
        Self::default()
    }

    /// The key everybody knows. Whoever uses it answers for nobody else being able to reach the server.
    pub fn development() -> Self {
        let secrets = BTreeMap::from([(DEVELOPMENT_KEY.into(), vec![SecretString::from(DEVELOPMENT_SECRET)])]);
        Self { secrets, development: true, ..Self::default() }
    }

    /// Adds a live secret to a key. The first one added is the one that signs.
    pub fn add(&mut self, key: &str, secret: SecretString) -> Result<(), KeyError> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX || !key.bytes().all(is_key_byte) {
            return Err(KeyError::BadKey);
        }
        if self.issuers.contains_key(key) {
            return Err(KeyError::Twice);
        }
        if is_public(secret.expose_secret()) {
            return Err(KeyError::PublicSecret);
        }
        if secret.expose_secret().len() < SECRET_BYTES_MIN {
            return Err(KeyError::ShortSecret);
        }
        let secrets = self.secrets.entry(key.into()).or_default();
        if secrets.len() >= SECRETS_PER_KEY_MAX {
            return Err(KeyError::TooManySecrets);
        }
        secrets.push(secret);
        Ok(())
    }

    /// Adds somebody whose tokens are checked with public keys; `name` is the tokens' `iss`, to the letter.
    pub fn add_issuer(&mut self, name: &str, issuer: Issuer) -> Result<(), KeyError> {
        if name.is_empty() || name.len() > ISSUER_BYTES_MAX || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(KeyError::BadIssuer);
        }
        if self.secrets.contains_key(name) || self.issuers.contains_key(name) {
            return Err(KeyError::Twice);
        }
        self.issuers.insert(name.into(), issuer);
        Ok(())
    }

    /// Replaces the public keys of an issuer that was added. Nothing happens if it was not.
    pub fn set_public_keys(&mut self, issuer: &str, keys: Option<Vec<PublicKey>>) {
        if let Some(issuer) = self.issuers.get_mut(issuer) {
            issuer.keys = keys;
        }
    }

    /// Lets an API key sign refresh tokens for the issuers whose private key is not ours.
    pub fn set_refresh_key(&mut self, key: &str) -> Result<(), KeyError> {
        if !self.secrets.contains_key(key) {
            return Err(KeyError::NoRefreshKey);
        }
        self.refresh_key = Some(key.into());
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty() && self.issuers.is_empty()
    }

    /// Whether this is the key everybody knows.
    pub fn is_development(&self) -> bool {
        self.development
    }

    /// The API keys, in order. Not secret.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.secrets.keys().map(String::as_str)
    }

    /// How many live secrets an API key has.
    pub fn live_secrets(&self, key: &str) -> usize {
        self.secrets.get(key).map_or(0, Vec::len)
    }

    /// Those with public keys, by name.
    pub fn issuers(&self) -> impl Iterator<Item = (&str, &Issuer)> {
        self.issuers.iter().map(|(name, issuer)| (name.as_str(), issuer))
    }

    pub fn refresh_key(&self) -> Option<&str> {
        self.refresh_key.as_deref()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &[SecretString])> {
        self.secrets.iter().map(|(key, secrets)| (key.as_str(), secrets.as_slice()))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("an API key has 1 to {KEY_BYTES_MAX} letters, digits, dots, dashes or underscores")]
    BadKey,
    #[error("a secret has at least {SECRET_BYTES_MIN} bytes, for instance from `openssl rand -base64 32`")]
    ShortSecret,
    #[error("a key has at most {SECRETS_PER_KEY_MAX} live secrets")]
    TooManySecrets,
    /// Everybody may read a public key, so everybody could sign with it.
    #[error("this is a public key, not a secret: configure it under [[issuers]]")]
    PublicSecret,
    #[error("an issuer has 1 to {ISSUER_BYTES_MAX} printable ASCII characters without spaces")]
    BadIssuer,
    #[error("it is configured twice: an issuer has either secrets or public keys, in one place")]
    Twice,
    #[error("refresh tokens are signed with the secret of an API key, and there is none of this name")]
    NoRefreshKey,
}

pub const DEVELOPMENT_KEY: &str = "devkey";
pub const DEVELOPMENT_SECRET: &str = "secret";

/// Shorter secrets can be guessed from one token, away from the server.
pub const SECRET_BYTES_MIN: usize = 32;

const KEY_BYTES_MAX: usize = 128;

const ISSUER_BYTES_MAX: usize = 512;

/// Every wrong token costs one signature per live secret.
const SECRETS_PER_KEY_MAX: usize = 4;

/// Whether a secret is somebody's public key, as PEM or as JSON Web Key.
fn is_public(secret: &str) -> bool {
    let text = secret.trim_start();
    text.starts_with("-----BEGIN") || (text.starts_with('{') && text.contains("\"kty\""))
}

fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_secrets_and_odd_keys_are_refused() {
        let mut keys = Keys::new();
        let long = || SecretString::from("x".repeat(SECRET_BYTES_MIN));
        assert_eq!(keys.add("api", "x".repeat(SECRET_BYTES_MIN - 1).into()), Err(KeyError::ShortSecret));
        assert_eq!(keys.add(DEVELOPMENT_KEY, DEVELOPMENT_SECRET.into()), Err(KeyError::ShortSecret));
        for key in ["", "a b", "a:b", "ключ", &"k".repeat(KEY_BYTES_MAX + 1)] {
            assert_eq!(keys.add(key, long()), Err(KeyError::BadKey), "{key}");
        }
        assert!(keys.is_empty());
        for _ in 0..SECRETS_PER_KEY_MAX {
            assert_eq!(keys.add("api", long()), Ok(()));
        }
        assert_eq!(keys.add("api", long()), Err(KeyError::TooManySecrets));
    }

    #[test]
    fn a_public_key_is_no_secret_and_nobody_has_both() {
        let mut keys = Keys::new();
        let pem = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n";
        let jwk = r#" {"kty":"RSA","n":"0123456789","e":"AQAB"}"#;
        for public in [pem, jwk] {
            assert_eq!(keys.add("api", public.into()), Err(KeyError::PublicSecret));
        }
        assert_eq!(keys.set_refresh_key("api"), Err(KeyError::NoRefreshKey));
        keys.add("api", "x".repeat(SECRET_BYTES_MIN).into()).unwrap();
        assert_eq!(keys.set_refresh_key("api"), Ok(()));
        assert_eq!(keys.add_issuer("api", Issuer::default()), Err(KeyError::Twice));
        keys.add_issuer("idp", Issuer::default()).unwrap();
        assert_eq!(keys.add("idp", "x".repeat(SECRET_BYTES_MIN).into()), Err(KeyError::Twice));
        for odd in ["", "a b", "a\nb", &"x".repeat(ISSUER_BYTES_MAX + 1)] {
            assert_eq!(keys.add_issuer(odd, Issuer::default()), Err(KeyError::BadIssuer), "{odd}");
        }
    }

    #[test]
    fn no_secret_is_ever_printed() {
        let mut keys = Keys::new();
        keys.add("api", "0123456789abcdef0123456789abcdef".into()).unwrap();
        let printed = format!("{keys:?} {:?}", Keys::development());
        assert!(!printed.contains("0123456789") && !printed.contains("\"secret\""), "{printed}");
    }
}
