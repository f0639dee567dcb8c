//! The configuration: one file, then the environment, then flags, resolved once into [`Settings`].
//!
//! Everything has a default, so that a node started with nothing runs on loopback. Whatever is wrong is refused at the
//! start, with the place, the key and what to do about it. After the start nothing asks the environment again.

mod cluster;
mod duration;
mod keys;
mod sections;
mod webhook;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use plenary_model::Codec;
use plenary_protocol::token::Keys;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use cluster::Cluster;
pub use keys::{KeySettings, KeySource, PublishedKeys, is_public};
pub use sections::{
    Admin, Codecs, Drain, Http, Limits, Listen, Log, LogFormat, Media, Metrics, Recording, Room, RoomApi, Signal,
    TlsFiles, Turn,
};
pub use webhook::Webhook;

use cluster::ClusterFile;
use keys::IssuerTable;
use sections::{HttpFile, KeyTable, MediaFile, TurnFile};
use webhook::WebhookFile;

/// What the node runs with.
#[derive(Debug, Clone)]
pub struct Settings {
    pub http: Http,
    pub metrics: Metrics,
    pub admin: Admin,
    pub media: Media,
    pub keys: Keys,
    /// The issuers among `keys` whose public keys have to be fetched.
    pub published_keys: Vec<PublishedKeys>,
    /// Files that keys came from.
    pub key_files: Vec<PathBuf>,
    /// For reading the keys again.
    pub key_source: KeySource,
    pub room: Room,
    pub limits: Limits,
    pub signal: Signal,
    pub log: Log,
    pub room_api: RoomApi,
    pub turn: Vec<Turn>,
    pub drain: Drain,
    pub recording: Recording,
    /// None for a node that is alone.
    pub cluster: Option<Cluster>,
    /// None if no host app is told what happens.
    pub webhook: Option<Webhook>,
    /// Where it came from, for the first log line.
    pub source: String,
}

/// Where settings are looked for, besides the defaults.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    /// The environment, as (name, value).
    pub environment: BTreeMap<String, String>,
    /// `section.key` and value, as flags give them.
    pub overrides: Vec<(String, String)>,
}

impl Sources {
    /// The real environment; variables that are not text are skipped.
    pub fn with_environment(mut self) -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        self.environment = std::env::vars_os().filter_map(text).collect();
        self
    }
}

impl Settings {
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let document = read(sources)?;
        let place = place(sources);
        let at = |key: &'static str, problem: &str, remedy: &'static str| ConfigError {
            place: place.clone(),
            key: key.into(),
            problem: problem.into(),
            remedy: remedy.into(),
        };
        let http =
            document.http.resolve().map_err(|problem| at("http.tls_cert", problem, "give both files or none"))?;
        let media = resolve_media(document.media, &http)
            .map_err(|problem| at("media", problem, "choose other ports or fewer threads"))?;
        let key_source = KeySource::new(sources, http.bind);
        let KeySettings { keys, published, files } = key_source.load()?;
        document.signal.check().map_err(|problem| at("signal", problem, "correct these durations"))?;
        let recording = document.recording.check();
        recording.map_err(|problem| at("recording", problem, "correct it, or remove it to get the default"))?;
        let turn: Result<Vec<_>, _> = document.turn.into_iter().map(TurnFile::resolve).collect();
        let turn = turn.map_err(|problem| at("turn", &problem, "give urls and either secret or secret_file"))?;
        let cluster = document.cluster.resolve();
        let cluster = cluster
            .map_err(|problem| at("cluster", &problem, "give redis, a list of URLs, and either key or key_file"))?;
        let webhook = document.webhook.resolve(&keys);
        let webhook = webhook.map_err(|problem| at("webhook", &problem, "give urls and the api_key that signs"))?;
        Ok(Self {
            http,
            metrics: document.metrics,
            admin: document.admin,
            media,
            keys,
            published_keys: published,
            key_files: files,
            key_source,
            room: document.room,
            limits: document.limits,
            signal: document.signal,
            log: document.log,
            room_api: document.room_api,
            turn,
            drain: document.drain,
            recording: document.recording,
            cluster,
            webhook,
            source: place,
        })
    }

    /// Which codecs publishers may send, in a sentence.
    pub fn explain_codecs(&self) -> String {
        let names = |codecs: &[Codec]| codecs.iter().map(|codec| codec.name()).collect::<Vec<_>>().join(", ");
        let taken = self.room.codecs.as_ref();
        let left_out: Vec<_> = Codec::ALL.into_iter().filter(|codec| !taken.contains(codec)).collect();
        let refused =
            if left_out.is_empty() { "none is refused".into() } else { format!("refused: {}", names(&left_out)) };
        format!("codecs from publishers, the preferred first: {}; {refused}\n", names(taken))
    }

    /// Whose tokens are believed, in sentences, a line each.
    pub fn explain_keys(&self) -> String {
        let refreshed = match self.keys.refresh_key() {
            Some(key) => format!("refresh tokens signed by {key}"),
            None => "no refresh tokens (set refresh_key to an API key)".into(),
        };
        let mut lines: Vec<String> = self
            .keys
            .ids()
            .map(|id| match (self.keys.is_development(), self.keys.live_secrets(id)) {
                (true, _) => format!("key {id}: HS256, the development key, on loopback only"),
                (false, 1) => format!("key {id}: HS256, one secret"),
                (false, live) => format!("key {id}: HS256, {live} live secrets, of which the first signs"),
            })
            .collect();
        for (name, issuer) in self.keys.issuers() {
            let source = match (self.published_keys.iter().find(|one| one.issuer == name), &issuer.keys) {
                (Some(published), _) => {
                    let only =
                        published.algorithm.map_or("each key's own algorithm".into(), |one| format!("{one:?} only"));
                    format!("{only}, keys fetched from {}", published.url)
                }
                (None, keys) => {
                    let described = keys.iter().flatten().map(|key| match key.id() {
                        Some(id) => format!("{:?} (kid {id:?})", key.algorithm()),
                        None => format!("{:?}", key.algorithm()),
                    });
                    described.collect::<Vec<_>>().join(", ")
                }
            };
            let audience = match issuer.audience.as_slice() {
                [] => "tokens must not name an audience".into(),
                names => format!("audience {}", names.join(" or ")),
            };
            lines.push(format!("issuer {name}: {source}; {audience}; {refreshed}"));
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Every setting as a line of TOML. Of the keys only the names.
    pub fn print(&self) -> String {
        let sections = serde_json::json!({
            "http": self.http, "metrics": self.metrics, "admin": self.admin, "media": self.media, "room": self.room,
            "limits": self.limits, "signal": self.signal, "log": self.log, "room_api": self.room_api,
            "drain": self.drain, "recording": self.recording,
        });
        let mut lines = Vec::new();
        collect_lines(String::new(), &sections, &mut lines);
        let hint = if self.keys.is_development() { "[development key]" } else { "[redacted]" };
        lines.extend(self.keys.ids().map(|id| format!("keys.\"{id}\" = \"{hint}\"\n")));
        lines.extend(self.turn.iter().map(|turn| format!("# [[turn]] urls = {:?}, secret = [redacted]\n", turn.urls)));
        lines.push(match &self.cluster {
            None => "# cluster.redis is not set: this node is alone\n".into(),
            Some(Cluster { redis, authority, prefix, link_bits_per_second, .. }) => {
                let servers = redis.len();
                let trust = if authority.is_some() { ", trusting redis_ca_file" } else { "" };
                format!(
                    "cluster.prefix = {prefix:?}\ncluster.link_bits_per_second = {link_bits_per_second}\n\
                     # cluster.redis = [redacted], {servers} of them{trust}; cluster.key = [redacted]\n"
                )
            }
        });
        lines.push(match &self.webhook {
            None => "# webhook.urls is not set: no host app is told\n".into(),
            Some(webhook) => {
                let hosts = webhook.hosts().collect::<Vec<_>>().join(", ");
                format!("# webhook.api_key = {:?}, webhook.urls = [redacted], at {hosts}\n", webhook.api_key)
            }
        });
        lines.push(format!("# {}", self.explain_codecs()));
        lines.extend(self.explain_keys().lines().map(|line| format!("# {line}\n")));
        lines.concat()
    }
}

/// What is wrong, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {key}: {problem}; {remedy}")]
pub struct ConfigError {
    pub place: String,
    pub key: String,
    pub problem: String,
    pub remedy: String,
}

/// The file as it is written, before anything is resolved.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Document {
    http: HttpFile,
    metrics: Metrics,
    admin: Admin,
    media: MediaFile,
    #[serde(skip_serializing)]
    keys: KeyTable,
    keys_file: Option<PathBuf>,
    /// Issuers with public keys.
    issuers: Vec<IssuerTable>,
    /// The API key that signs refresh tokens for them.
    refresh_key: Option<String>,
    room: Room,
    limits: Limits,
    signal: Signal,
    log: Log,
    room_api: RoomApi,
    drain: Drain,
    recording: Recording,
    #[serde(skip_serializing)]
    turn: Vec<TurnFile>,
    #[serde(skip_serializing)]
    cluster: ClusterFile,
    #[serde(skip_serializing)]
    webhook: WebhookFile,
}

fn read(sources: &Sources) -> Result<Document, ConfigError> {
    let from_config = |error: config::ConfigError| explain(error, sources);
    let mut builder = config::Config::builder();
    if let Some(path) = &sources.file {
        check_readable(path)?;
        builder = builder.add_source(config::File::from(path.as_path()).format(config::FileFormat::Toml));
    }
    builder = builder.add_source(environment(sources)?);
    for (key, value) in &sources.overrides {
        builder = builder.set_override(key.as_str(), typed(key, value)).map_err(from_config)?;
    }
    builder.build().and_then(config::Config::try_deserialize).map_err(from_config)
}

fn check_readable(path: &Path) -> Result<(), ConfigError> {
    std::fs::File::open(path).map(|_| ()).map_err(|error| ConfigError {
        place: path.display().to_string(),
        key: "--config".into(),
        problem: error.to_string(),
        remedy: "name a TOML file that can be read".into(),
    })
}

fn environment(sources: &Sources) -> Result<config::Environment, ConfigError> {
    let ours: config::Map<String, String> = sources
        .environment
        .iter()
        .filter(|(name, _)| name.starts_with("PLENARY__"))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    // Names of variables lose their case on the way, and API keys have one.
    if let Some(name) = ours.keys().find(|name| name.starts_with("PLENARY__KEYS__")) {
        return Err(ConfigError {
            place: "environment".into(),
            key: name.clone(),
            problem: "API keys cannot be names of variables".into(),
            remedy: format!("set {}=\"id: secret\" instead", keys::VARIABLE),
        });
    }
    let source = config::Environment::with_prefix("PLENARY").separator("__").try_parsing(true).list_separator(",");
    let source = LISTS.iter().fold(source, |source, key| source.with_list_parse_key(key));
    Ok(source.source(Some(ours)))
}

/// The settings that are lists, which environment and flags write with commas.
const LISTS: [&str; 5] = ["http.trusted_proxies", "media.advertise", "room.codecs", "cluster.redis", "webhook.urls"];

/// Flags are text; the library reads numbers and switches out of it by itself, lists it does not.
fn typed(key: &str, value: &str) -> config::Value {
    if LISTS.contains(&key) {
        let items: Vec<String> =
            value.split(',').map(str::trim).filter(|one| !one.is_empty()).map(Into::into).collect();
        return items.into();
    }
    value.into()
}

fn explain(error: config::ConfigError, sources: &Sources) -> ConfigError {
    let (place_of, key, problem) = match &error {
        config::ConfigError::At { error, origin, key } => (origin.clone(), key.clone(), error.to_string()),
        config::ConfigError::Type { origin, key, .. } => (origin.clone(), key.clone(), error.to_string()),
        config::ConfigError::FileParse { uri, cause } => (uri.clone(), None, cause.to_string()),
        _ => (None, None, error.to_string()),
    };
    ConfigError {
        place: place_of.unwrap_or_else(|| place(sources)),
        key: key.unwrap_or_else(|| "contents".into()),
        problem: problem.lines().next().unwrap_or_default().to_owned(),
        remedy: "correct it, or remove it to get the default (`plenary check-config --print` lists all)".into(),
    }
}

fn place(sources: &Sources) -> String {
    let mut places = Vec::new();
    places.extend(sources.file.as_ref().map(|file| file.display().to_string()));
    let from_environment = |name: &String| name.starts_with("PLENARY__") || name == keys::VARIABLE;
    places.extend(sources.environment.keys().any(from_environment).then(|| "environment".to_owned()));
    places.extend((!sources.overrides.is_empty()).then(|| "flags".to_owned()));
    if places.is_empty() { "defaults".into() } else { places.join(" + ") }
}

fn resolve_media(file: MediaFile, http: &Http) -> Result<Media, &'static str> {
    let on_loopback = http.bind.ip().is_loopback();
    let everywhere = if on_loopback { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    let bind = file.bind.unwrap_or(IpAddr::V4(everywhere));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = file.threads.unwrap_or(cores.saturating_sub(1)).max(1);
    if threads > Media::THREADS_MAX {
        return Err("more media threads than one node can use");
    }
    let last = usize::from(file.udp_port).saturating_add(threads).saturating_sub(1);
    if file.udp_port != 0 && last > usize::from(u16::MAX) {
        return Err("the UDP ports, one per thread counted up from udp_port, do not fit below 65536");
    }
    let advertise = match file.advertise {
        given if !given.is_empty() => given,
        _ if !bind.is_unspecified() => vec![bind],
        _ if on_loopback => [vec![IpAddr::V4(Ipv4Addr::LOCALHOST)], interface_addresses(bind)].concat(),
        _ => interface_addresses(bind),
    };
    if advertise.is_empty() {
        return Err("this machine has no address to advertise; set media.advertise");
    }
    let MediaFile { udp_port, tcp_port, people_per_router, .. } = file;
    Ok(Media { bind, udp_port, tcp_port, threads, people_per_router, advertise })
}

/// The addresses of this machine that somebody else could reach, of the families that `bind` listens on.
fn interface_addresses(bind: IpAddr) -> Vec<IpAddr> {
    let reachable = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => bind.is_ipv6() && !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    let found = if_addrs::get_if_addrs().unwrap_or_default();
    found.into_iter().map(|one| one.ip()).filter(reachable).take(ADVERTISED_MAX).collect()
}

/// Each is a candidate in every answer.
const ADVERTISED_MAX: usize = 16;

fn collect_lines(prefix: String, value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                collect_lines(path, member, lines);
            }
        }
        Value::Null => lines.push(format!("# {prefix} is not set\n")),
        // A JSON scalar and a flat JSON array are TOML as they stand.
        plain => lines.push(format!("{prefix} = {plain}\n")),
    }
}

/// Whether only this machine can reach the address.
pub fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests;
