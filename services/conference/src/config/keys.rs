//! Where keys come from, what is refused about them, and what happens without any.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use plenary_protocol::token::{
    Algorithm, DEVELOPMENT_KEY, DEVELOPMENT_SECRET, Issuer, KeyError, Keys, PublicKey, PublicKeyError,
};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize};

use super::{ConfigError, Sources, is_loopback, place, read};

/// The one variable that may hold secrets: `id: secret`, several by line or comma.
pub const VARIABLE: &str = "PLENARY_KEYS";

/// Whose tokens are believed, as far as it can be read from files.
#[derive(Debug, Clone, Default)]
pub struct KeySettings {
    pub keys: Keys,
    /// The issuers among them whose keys have to be fetched.
    pub published: Vec<PublishedKeys>,
    /// What was read. When one changes, all of it is read again.
    pub files: Vec<PathBuf>,
}

/// An issuer that publishes its keys (RFC 7517).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedKeys {
    pub issuer: String,
    pub url: Url,
    /// Only keys of this algorithm count.
    pub algorithm: Option<Algorithm>,
    /// Whether its host may have an address that nobody outside reaches.
    pub private_address: bool,
}

/// `[[issuers]]`: somebody who signs tokens with a private key of their own. One of the three sources says with which.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct IssuerTable {
    /// The `iss` of its tokens, to the letter.
    issuer: String,
    /// The one algorithm of its keys. A PEM file does not say, so there it has to be given.
    algorithm: Option<String>,
    public_key_file: Option<PathBuf>,
    jwks_file: Option<PathBuf>,
    jwks_url: Option<String>,
    /// The host of `jwks_url` may have a private address.
    jwks_private_address: bool,
    /// Tokens must be for one of these. Without any, tokens must not be for anybody in particular.
    #[serde(deserialize_with = "one_or_several")]
    audience: Vec<String>,
}

/// The places, none of which replaces another.
pub(super) struct Given<'a> {
    pub table: BTreeMap<String, Vec<SecretString>>,
    pub file: Option<PathBuf>,
    pub environment: Option<&'a str>,
    pub issuers: Vec<IssuerTable>,
    pub refresh_key: Option<String>,
}

/// Where keys are read from, again and again.
#[derive(Clone)]
pub struct KeySource {
    sources: Sources,
    /// Where this server listens: what is not loopback needs keys of its own.
    http: SocketAddr,
}

impl KeySource {
    pub(super) fn new(sources: &Sources, http: SocketAddr) -> Self {
        let of_ours = |(name, _): &(&String, &String)| name.starts_with("PLENARY__") || *name == VARIABLE;
        let environment = sources.environment.iter().filter(of_ours);
        let environment = environment.map(|(name, value)| (name.clone(), value.clone())).collect();
        let (file, overrides) = (sources.file.clone(), sources.overrides.clone());
        Self { sources: Sources { file, environment, overrides }, http }
    }

    /// The keys as the files say now. What else they say is not looked at, as long as it can be read.
    pub fn load(&self) -> Result<KeySettings, ConfigError> {
        let document = read(&self.sources)?;
        let given = Given {
            table: document.keys.0,
            file: document.keys_file,
            environment: self.sources.environment.get(VARIABLE).map(String::as_str),
            issuers: document.issuers,
            refresh_key: document.refresh_key,
        };
        let mut settings = resolve(given, self.http).map_err(|problem| ConfigError {
            place: place(&self.sources),
            key: problem.key(),
            problem: problem.to_string(),
            remedy: problem.remedy().into(),
        })?;
        settings.files.extend(self.sources.file.clone());
        Ok(settings)
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The environment may hold secrets.
        f.debug_struct("KeySource").field("file", &self.sources.file).finish_non_exhaustive()
    }
}

/// All keys given, or the development key where nobody else can reach the server.
pub(super) fn resolve(given: Given<'_>, http: SocketAddr) -> Result<KeySettings, KeysProblem> {
    let mut settings = KeySettings::default();
    let mut pairs: Vec<(String, SecretString)> = Vec::new();
    for (id, secrets) in given.table {
        pairs.extend(secrets.into_iter().map(|secret| (id.clone(), secret)));
    }
    if let Some(path) = given.file {
        let unreadable = |error| KeysProblem::Unreadable { key: "keys_file".into(), path: path.clone(), error };
        let text = std::fs::read_to_string(&path).map_err(unreadable)?;
        pairs.extend(parse(&text).map_err(|line| KeysProblem::Line { place: shown(&path), line })?);
        settings.files.push(path);
    }
    if let Some(text) = given.environment {
        pairs.extend(parse(text).map_err(|line| KeysProblem::Line { place: VARIABLE.into(), line })?);
    }

    let well_known =
        |(id, secret): &(String, SecretString)| id == DEVELOPMENT_KEY && secret.expose_secret() == DEVELOPMENT_SECRET;
    if given.issuers.is_empty() && pairs.iter().all(well_known) {
        // Whoever finds such a server owns it: everybody knows this key.
        if !is_loopback(http) {
            return Err(KeysProblem::None { http });
        }
        settings.keys = Keys::development();
        return Ok(settings);
    }
    for (id, secret) in pairs {
        settings.keys.add(&id, secret).map_err(|error| KeysProblem::Key { id: shown_id(&id), error })?;
    }
    for (number, issuer) in given.issuers.into_iter().enumerate() {
        issuer.add_to(&mut settings, number)?;
    }
    if let Some(id) = given.refresh_key {
        settings.keys.set_refresh_key(&id).map_err(|error| KeysProblem::RefreshKey { id: shown_id(&id), error })?;
    }
    Ok(settings)
}

impl IssuerTable {
    fn add_to(self, settings: &mut KeySettings, number: usize) -> Result<(), KeysProblem> {
        let problem = |member: &'static str, what: IssuerProblem| KeysProblem::Issuer {
            key: format!("issuers[{number}].{member}"),
            what,
        };
        let algorithm = match self.algorithm.as_deref().map(str::parse::<Algorithm>) {
            None => None,
            Some(Ok(Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)) => {
                return Err(problem("algorithm", IssuerProblem::Keys(PublicKeyError::Symmetric)));
            }
            Some(Ok(algorithm)) => Some(algorithm),
            Some(Err(_)) => return Err(problem("algorithm", IssuerProblem::Algorithm)),
        };
        let mut read = |member: &'static str, path: &Path| {
            let file = std::fs::File::open(path).and_then(|file| {
                let mut text = Vec::new();
                std::io::Read::read_to_end(&mut std::io::Read::take(file, FILE_BYTES_MAX), &mut text)?;
                Ok(text)
            });
            let unreadable = |error| KeysProblem::Unreadable {
                key: format!("issuers[{number}].{member}"),
                path: path.into(),
                error,
            };
            settings.files.push(path.into());
            file.map_err(unreadable)
        };
        let keys = match (&self.public_key_file, &self.jwks_file, &self.jwks_url) {
            (Some(path), None, None) => {
                let algorithm = algorithm.ok_or_else(|| problem("algorithm", IssuerProblem::NoAlgorithm))?;
                let text = String::from_utf8_lossy(&read("public_key_file", path)?).into_owned();
                let keys = PublicKey::from_pem(&text, algorithm);
                Some(keys.map_err(|error| problem("public_key_file", IssuerProblem::Keys(error)))?)
            }
            (None, Some(path), None) => {
                let keys = PublicKey::from_jwks(&read("jwks_file", path)?, algorithm);
                Some(keys.map_err(|error| problem("jwks_file", IssuerProblem::Keys(error)))?)
            }
            (None, None, Some(text)) => {
                let (issuer, private_address) = (self.issuer.clone(), self.jwks_private_address);
                let url = published_at(text, private_address).map_err(|what| problem("jwks_url", what))?;
                settings.published.push(PublishedKeys { issuer, url, algorithm, private_address });
                None
            }
            _ => return Err(problem("issuer", IssuerProblem::Sources)),
        };
        let issuer = Issuer { keys, audience: self.audience };
        settings.keys.add_issuer(&self.issuer, issuer).map_err(|error| problem("issuer", IssuerProblem::Name(error)))
    }
}

/// Keys come over TLS, or from this machine; from a private network only where that was meant.
fn published_at(text: &str, private_address: bool) -> Result<Url, IssuerProblem> {
    let url = Url::parse(text).map_err(|_| IssuerProblem::Url)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(IssuerProblem::UrlSecret);
    }
    let host = url.host_str().ok_or(IssuerProblem::Url)?;
    let address: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    let on_loopback = host == "localhost" || address.is_some_and(|ip| ip.to_canonical().is_loopback());
    match url.scheme() {
        "https" => {}
        "http" if on_loopback => {}
        "http" => return Err(IssuerProblem::Unencrypted),
        _ => return Err(IssuerProblem::Url),
    }
    if address.is_some_and(|ip| !on_loopback && !private_address && !is_public(ip)) {
        return Err(IssuerProblem::PrivateAddress);
    }
    Ok(url)
}

/// Whether an address is somebody's on the public internet: not private, link-local (where clouds serve credentials),
/// loopback, shared, unspecified or multicast.
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let shared = first == 100 && (64..128).contains(&second);
            let reserved = first == 0 || first >= 240 || (first == 198 && (18..20).contains(&second));
            let local = v4.is_private() || v4.is_link_local() || v4.is_loopback() || v4.is_multicast();
            !(local || shared || reserved)
        }
        // Global unicast is 2000::/3, and nothing else is (RFC 4291 2.4); 6to4 and NAT64 could hide a private one.
        IpAddr::V6(v6) => {
            let [first, ..] = v6.segments();
            (0x2000..0x4000).contains(&first) && first != 0x2002
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum KeysProblem {
    #[error("no API keys are configured and {http} can be reached from other machines")]
    None { http: SocketAddr },
    #[error("{} cannot be read: {error}", path.display())]
    Unreadable { key: String, path: PathBuf, error: std::io::Error },
    #[error("line {line} of {place} is not `id: secret`")]
    Line { place: String, line: usize },
    #[error("key {id}: {error}")]
    Key { id: String, error: KeyError },
    #[error("{id}: {error}")]
    RefreshKey { id: String, error: KeyError },
    #[error("{what}")]
    Issuer { key: String, what: IssuerProblem },
}

/// What is wrong with an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IssuerProblem {
    #[error("{0}")]
    Name(KeyError),
    #[error("it needs exactly one of public_key_file, jwks_file and jwks_url")]
    Sources,
    #[error("a PEM file does not say what its key is for")]
    NoAlgorithm,
    #[error("no such algorithm")]
    Algorithm,
    #[error("{0}")]
    Keys(PublicKeyError),
    #[error("it is not an https URL")]
    Url,
    #[error("plain http is for loopback only: whoever sits in between could give us keys")]
    Unencrypted,
    #[error("it has a user name or a password in it, which would be logged")]
    UrlSecret,
    #[error("its address is private")]
    PrivateAddress,
}

impl KeysProblem {
    pub fn key(&self) -> String {
        match self {
            Self::None { .. } | Self::Key { .. } => "keys".into(),
            Self::Line { .. } => "keys_file".into(),
            Self::RefreshKey { .. } => "refresh_key".into(),
            Self::Unreadable { key, .. } | Self::Issuer { key, .. } => key.clone(),
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
            Self::RefreshKey { .. } => "name an API key of [keys], keys_file or PLENARY_KEYS",
            Self::Issuer { what, .. } => match what {
                IssuerProblem::Name(_) => "write what the tokens say in `iss`",
                IssuerProblem::Sources => "say where its public keys are",
                IssuerProblem::NoAlgorithm | IssuerProblem::Algorithm => {
                    "choose one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA"
                }
                IssuerProblem::Keys(_) => "give the issuer's public keys, and the algorithm it signs with",
                IssuerProblem::Url | IssuerProblem::Unencrypted | IssuerProblem::UrlSecret => {
                    "write it as https://host/path"
                }
                IssuerProblem::PrivateAddress => "set jwks_private_address = true if that is meant",
            },
        }
    }
}

fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Names {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Names::deserialize(deserializer)? {
        Names::One(name) => vec![name],
        Names::Several(names) => names,
    })
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

/// Of a file of public keys no more is read than this.
const FILE_BYTES_MAX: u64 = 256 * 1024;
