//! The secrets that tokens are signed with.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};

/// API keys and their live secrets. It never prints one.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// The first secret of a key signs, all of them verify: that is how a secret is rotated.
    secrets: BTreeMap<String, Vec<SecretString>>,
    development: bool,
}

impl Keys {
    /// No keys: no token is good.
    pub fn new() -> Self {
        Self::default()
    }

    /// The key everybody knows. Whoever uses it answers for nobody else being able to reach the server.
    pub fn development() -> Self {
        let secrets = BTreeMap::from([(DEVELOPMENT_KEY.into(), vec![SecretString::from(DEVELOPMENT_SECRET)])]);
        Self { secrets, development: true }
    }

    /// Adds a live secret to a key. The first one added is the one that signs.
    pub fn add(&mut self, key: &str, secret: SecretString) -> Result<(), KeyError> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX || !key.bytes().all(is_key_byte) {
            return Err(KeyError::BadKey);
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

    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// Whether this is the key everybody knows.
    pub fn is_development(&self) -> bool {
        self.development
    }

    /// The API keys, in order. Not secret.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.secrets.keys().map(String::as_str)
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
}

pub const DEVELOPMENT_KEY: &str = "devkey";
pub const DEVELOPMENT_SECRET: &str = "secret";

/// Shorter secrets can be guessed from one token, away from the server.
pub const SECRET_BYTES_MIN: usize = 32;

const KEY_BYTES_MAX: usize = 128;

/// Every wrong token costs one signature per live secret.
const SECRETS_PER_KEY_MAX: usize = 4;

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
    fn no_secret_is_ever_printed() {
        let mut keys = Keys::new();
        keys.add("api", "0123456789abcdef0123456789abcdef".into()).unwrap();
        let printed = format!("{keys:?} {:?}", Keys::development());
        assert!(!printed.contains("0123456789") && !printed.contains("\"secret\""), "{printed}");
    }
}
