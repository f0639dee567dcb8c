//! Where API keys come from, and what happens without any.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use plenary_protocol::token::{DEVELOPMENT_KEY, DEVELOPMENT_SECRET, KeyError, Keys};
use secrecy::{ExposeSecret, SecretString};

use super::is_loopback;

/// The one variable that may hold secrets: `id: secret`, several by line or comma.
pub const VARIABLE: &str = "PLENARY_KEYS";

/// The three places, none of which replaces another.
pub struct Given<'a> {
    pub table: BTreeMap<String, Vec<SecretString>>,
    pub file: Option<PathBuf>,
    pub environment: Option<&'a str>,
}

/// All keys given, or the development key where nobody else can reach the server.
pub fn resolve(given: Given<'_>, http: SocketAddr) -> Result<Keys, KeysProblem> {
    let mut pairs: Vec<(String, SecretString)> = Vec::new();
    for (id, secrets) in given.table {
        pairs.extend(secrets.into_iter().map(|secret| (id.clone(), secret)));
    }
    if let Some(path) = given.file {
        let text =
            std::fs::read_to_string(&path).map_err(|error| KeysProblem::Unreadable { path: path.clone(), error })?;
        pairs.extend(parse(&text).map_err(|line| KeysProblem::Line { place: shown(&path), line })?);
    }
    if let Some(text) = given.environment {
        pairs.extend(parse(text).map_err(|line| KeysProblem::Line { place: VARIABLE.into(), line })?);
    }

    let well_known =
        |(id, secret): &(String, SecretString)| id == DEVELOPMENT_KEY && secret.expose_secret() == DEVELOPMENT_SECRET;
    if pairs.is_empty() || pairs.iter().all(well_known) {
        // Whoever finds such a server owns it: everybody knows this key.
        return if is_loopback(http) { Ok(Keys::development()) } else { Err(KeysProblem::None { http }) };
    }
    let mut keys = Keys::new();
    for (id, secret) in pairs {
        keys.add(&id, secret).map_err(|error| KeysProblem::Key { id: shown_id(&id), error })?;
    }
    Ok(keys)
}

#[derive(Debug, thiserror::Error)]
pub enum KeysProblem {
    #[error("no API keys are configured and {http} can be reached from other machines")]
    None { http: SocketAddr },
    #[error("{} cannot be read: {error}", path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("line {line} of {place} is not `id: secret`")]
    Line { place: String, line: usize },
    #[error("key {id}: {error}")]
    Key { id: String, error: KeyError },
}

impl KeysProblem {
    pub fn key(&self) -> &'static str {
        match self {
            Self::None { .. } | Self::Key { .. } => "keys",
            Self::Unreadable { .. } | Self::Line { .. } => "keys_file",
        }
    }

    pub fn remedy(&self) -> &'static str {
        match self {
            Self::None { .. } => {
                "set PLENARY_KEYS=\"id: secret\", or bind to 127.0.0.1 to try it with the development key"
            }
            Self::Unreadable { .. } => "name a file this user can read",
            Self::Line { .. } => "write one `id: secret` per line",
            Self::Key { .. } => "choose another one",
        }
    }
}

/// `id: secret` by line or comma; `#` begins a comment line. The error is the number of the line, never its text.
fn parse(text: &str) -> Result<Vec<(String, SecretString)>, usize> {
    let mut pairs = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for entry in line.split(',').map(str::trim).filter(|entry| !entry.is_empty() && !entry.starts_with('#')) {
            let (id, secret) = entry.split_once(':').ok_or(number + 1)?;
            pairs.push((id.trim().to_owned(), SecretString::from(secret.trim())));
        }
    }
    Ok(pairs)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A misplaced secret may stand where the id should: only what looks like an id is repeated.
fn shown_id(id: &str) -> String {
    if id.len() <= 32 { format!("{id:?}") } else { "(too long to be one)".into() }
}
