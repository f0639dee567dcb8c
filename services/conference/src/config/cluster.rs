//! `[cluster]`: the Redis servers that make this node one of many. Without them it is alone.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

/// What nodes of one cluster have in common.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// In the same order on every node. They may carry passwords.
    pub redis: Vec<SecretString>,
    /// The certificates, as PEM, that are trusted over TLS instead of the machine's.
    pub authority: Option<Vec<u8>>,
    /// Of which the first seals what this node says to others, and all open what others say.
    pub keys: Vec<SecretString>,
    /// Goes before every key and channel, so that several clusters can share a server.
    pub prefix: String,
    /// Media from one thread of this node to one of another, at most; 0 means no limit.
    pub link_bits_per_second: u64,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ClusterFile {
    redis: Vec<SecretString>,
    /// Certificates that are trusted over TLS instead of the machine's.
    redis_ca_file: Option<PathBuf>,
    key: Option<SecretString>,
    /// Where the key stands, for mounted secrets.
    key_file: Option<PathBuf>,
    /// The key before, for as long as some nodes still use it; or the next one, before they do.
    other_key: Option<SecretString>,
    prefix: String,
    link_bits_per_second: u64,
}

impl Default for ClusterFile {
    fn default() -> Self {
        let prefix = "plenary:".into();
        Self {
            redis: Vec::new(),
            redis_ca_file: None,
            key: None,
            key_file: None,
            other_key: None,
            prefix,
            link_bits_per_second: 0,
        }
    }
}

impl fmt::Debug for ClusterFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterFile").field("servers", &self.redis.len()).finish_non_exhaustive()
    }
}

impl ClusterFile {
    /// None for a node that is alone.
    pub(super) fn resolve(self) -> Result<Option<Cluster>, String> {
        let Self { redis, redis_ca_file, key, key_file, other_key, prefix, link_bits_per_second } = self;
        let key = match (key, key_file) {
            (Some(_), Some(_)) => return Err("there are two keys".into()),
            (Some(key), None) => Some(key),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                Some(SecretString::from(text.trim()))
            }
            (None, None) => None,
        };
        if redis.is_empty() {
            return match key {
                None => Ok(None),
                Some(_) => Err("there is a key and no Redis URL".into()),
            };
        }
        let keys: Vec<_> = [key.ok_or("there is no key")?].into_iter().chain(other_key).collect();
        if keys.iter().any(|key| key.expose_secret().len() < KEY_BYTES_MIN) {
            return Err(format!("a key is shorter than {KEY_BYTES_MIN} bytes"));
        }
        let is_tls = redis.iter().any(|url| url.expose_secret().starts_with("rediss"));
        if redis_ca_file.is_some() && !is_tls {
            return Err("there is a redis_ca_file and no URL that begins with rediss".into());
        }
        let authority = redis_ca_file.as_deref().map(certificates).transpose()?;
        Ok(Some(Cluster { redis, authority, keys, prefix, link_bits_per_second }))
    }
}

fn certificates(path: &Path) -> Result<Vec<u8>, String> {
    let wrong = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
    let pem = std::fs::read(path).map_err(|error| wrong(&error))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    // Without one of them nothing would be trusted.
    if all.map_err(|error| wrong(&error))?.is_empty() {
        return Err(wrong(&"there is no certificate in it"));
    }
    Ok(pem)
}

/// As long as the digest it is used with.
const KEY_BYTES_MIN: usize = 32;
