//! The sections of the file, each with its defaults beside it.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use plenary_model::{Codec, MediaKind};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::duration;

/// `[http]`: signalling, the room API, the meet page.
#[derive(Debug, Clone, Serialize)]
pub struct Http {
    pub bind: SocketAddr,
    #[serde(flatten)]
    pub tls: Option<TlsFiles>,
    /// Load balancers: exempt from limits per address.
    pub trusted_proxies: Vec<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TlsFiles {
    #[serde(rename = "tls_cert")]
    pub cert: PathBuf,
    #[serde(rename = "tls_key")]
    pub key: PathBuf,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HttpFile {
    bind: SocketAddr,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    trusted_proxies: Vec<IpAddr>,
}

impl Default for HttpFile {
    fn default() -> Self {
        let bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 7880));
        Self { bind, tls_cert: None, tls_key: None, trusted_proxies: Vec::new() }
    }
}

impl HttpFile {
    pub(super) fn resolve(self) -> Result<Http, &'static str> {
        let tls = match (self.tls_cert, self.tls_key) {
            (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
            (None, None) => None,
            _ => return Err("a certificate and its key belong together"),
        };
        Ok(Http { bind: self.bind, tls, trusted_proxies: self.trusted_proxies })
    }
}

/// `[metrics]`: the scrape page, on a listener of its own.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// `off`, or an address; port 0 takes any free one.
    pub bind: Listen,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { bind: Listen::At(SocketAddr::from((Ipv4Addr::LOCALHOST, 9090))) }
    }
}

/// `[admin]`: bans and drains, on a listener of its own. It asks for tokens like every door, but has no business outside.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// `off`, or an address on loopback or a private network; port 0 takes any free one.
    pub bind: Listen,
}

impl Default for Admin {
    fn default() -> Self {
        Self { bind: Listen::Off }
    }
}

/// A listener that may be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    Off,
    At(SocketAddr),
}

impl FromStr for Listen {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.eq_ignore_ascii_case("off") { Ok(Self::Off) } else { text.parse().map(Self::At) }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|_| de::Error::custom(format!("`{text}` is neither `off` nor an address like 127.0.0.1:9090")))
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// `[media]`: where media flows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Media {
    pub bind: IpAddr,
    /// The first thread's; the others count up. 0 takes any free ports.
    pub udp_port: u16,
    /// One for the node. 0 takes any free port.
    pub tcp_port: u16,
    pub threads: usize,
    /// Of one room on one thread before the next takes part; 0 means no limit.
    pub people_per_router: u32,
    /// The addresses that clients are told.
    pub advertise: Vec<IpAddr>,
}

impl Media {
    pub(super) const THREADS_MAX: usize = 256;

    /// The UDP port of each media thread.
    pub fn udp_ports(&self) -> impl Iterator<Item = u16> + '_ {
        let port = |thread: usize| match self.udp_port {
            0 => 0,
            first => first.saturating_add(u16::try_from(thread).unwrap_or(u16::MAX)),
        };
        (0..self.threads).map(port)
    }
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct MediaFile {
    pub(super) bind: Option<IpAddr>,
    pub(super) udp_port: u16,
    pub(super) tcp_port: u16,
    pub(super) threads: Option<usize>,
    pub(super) people_per_router: u32,
    pub(super) advertise: Vec<IpAddr>,
}

impl Default for MediaFile {
    fn default() -> Self {
        Self {
            bind: None,
            udp_port: 7882,
            tcp_port: 7881,
            threads: None,
            people_per_router: PEOPLE_PER_ROUTER,
            advertise: Vec::new(),
        }
    }
}

/// With a camera each, all seen by all, they are about what a thread can serve.
const PEOPLE_PER_ROUTER: u32 = 50;

/// `[keys]`: id to secret, or to a list of live secrets of which the first signs.
#[derive(Debug, Default)]
pub(super) struct KeyTable(pub(super) BTreeMap<String, Vec<SecretString>>);

impl<'de> Deserialize<'de> for KeyTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Secrets {
            One(String),
            Several(Vec<String>),
        }
        // The library's message could repeat a secret, so it is replaced by one of ours.
        let table: BTreeMap<String, Secrets> = BTreeMap::deserialize(deserializer)
            .map_err(|_| de::Error::custom("a key is an id with a secret in quotes, or with a list of secrets"))?;
        let secrets = |secrets| match secrets {
            Secrets::One(one) => vec![SecretString::from(one)],
            Secrets::Several(several) => several.into_iter().map(SecretString::from).collect(),
        };
        Ok(Self(table.into_iter().map(|(id, given)| (id, secrets(given))).collect()))
    }
}

/// `[room]`: what a room gets that was not created with settings of its own.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Room {
    /// Whether joining makes the room; otherwise somebody has to create it first.
    pub auto_create: bool,
    /// How long a room that nobody has joined yet stays.
    #[serde(with = "duration")]
    pub empty_timeout: Duration,
    /// How long a room stays after the last person left.
    #[serde(with = "duration")]
    pub departure_timeout: Duration,
    /// 0 means no limit.
    pub max_participants: u32,
    /// What publishers may send, the preferred codec first.
    pub codecs: Codecs,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            auto_create: true,
            empty_timeout: Duration::from_secs(300),
            departure_timeout: Duration::from_secs(20),
            max_participants: 0,
            codecs: Codecs(Codec::ALL.to_vec()),
        }
    }
}

/// Each at most once; a video codec and Opus at least, without which no SDK can publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codecs(Vec<Codec>);

impl AsRef<[Codec]> for Codecs {
    fn as_ref(&self) -> &[Codec] {
        &self.0
    }
}

impl From<Codecs> for Vec<Codec> {
    fn from(codecs: Codecs) -> Self {
        codecs.0
    }
}

impl<'de> Deserialize<'de> for Codecs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut codecs = Vec::new();
        for name in Vec::<String>::deserialize(deserializer)? {
            let codec = Codec::ALL.into_iter().find(|codec| codec.name() == name);
            let codec = codec.ok_or_else(|| {
                let known = Codec::ALL.map(Codec::name).join(", ");
                de::Error::custom(format!("`{name}` is none of {known}"))
            })?;
            if codecs.contains(&codec) {
                return Err(de::Error::custom(format!("`{name}` stands there twice")));
            }
            codecs.push(codec);
        }
        if !codecs.contains(&Codec::Opus) || !codecs.iter().any(|codec| codec.kind() == MediaKind::Video) {
            return Err(de::Error::custom("opus and at least one video codec have to be among them"));
        }
        Ok(Self(codecs))
    }
}

impl Serialize for Codecs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|codec| codec.name()))
    }
}

/// `[signal]`: timers of the signalling connection.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Signal {
    /// How often clients shall ping.
    #[serde(with = "duration")]
    pub ping_interval: Duration,
    /// Silence after which a socket counts as lost.
    #[serde(with = "duration")]
    pub ping_timeout: Duration,
    /// From join until the primary transport must be connected.
    #[serde(with = "duration")]
    pub join_timeout: Duration,
    /// How long a session without a socket stays while its media lives.
    #[serde(with = "duration")]
    pub resume_window: Duration,
    /// How long it stays when media is gone too.
    #[serde(with = "duration")]
    pub detached_timeout: Duration,
    /// How long an offer waits for its answer.
    #[serde(with = "duration")]
    pub negotiation_timeout: Duration,
    /// How far the clock of the host application may be off.
    #[serde(with = "duration")]
    pub token_leeway: Duration,
    /// A token that is good for longer is refused; a revoked one is remembered for as long. More: 401.
    #[serde(with = "duration")]
    pub token_life_max: Duration,
}

impl Default for Signal {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(5),
            ping_timeout: Duration::from_secs(15),
            join_timeout: Duration::from_secs(60),
            resume_window: Duration::from_secs(60),
            detached_timeout: Duration::from_secs(5),
            negotiation_timeout: Duration::from_secs(15),
            token_leeway: Duration::from_secs(60),
            token_life_max: Duration::from_secs(7 * 24 * 60 * 60),
        }
    }
}

impl Signal {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        // Clients are told whole seconds, and one family of SDKs dies of an interval of none.
        if self.ping_interval < Duration::from_secs(1) {
            return Err("ping_interval is shorter than a second");
        }
        if self.ping_timeout <= self.ping_interval {
            return Err("ping_timeout is not longer than ping_interval");
        }
        Ok(())
    }
}

/// `[drain]`: how a node of a cluster empties itself before it ends, by SIGTERM or on demand.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// How long whoever still comes is served: balancers learn late that they shall send nobody.
    #[serde(with = "duration")]
    pub accept_for: Duration,
    /// From its begin until whoever is left is cut off.
    #[serde(with = "duration")]
    pub deadline: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { accept_for: Duration::from_secs(5), deadline: Duration::from_secs(60) }
    }
}

/// `[limits]`: what one client, room or node may use. What happens at each stands beside it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections per IP (IPv6: per /64) that have not proven who they are. More: 429.
    pub strangers_open_per_ip: u32,
    /// New ones per second. More: 429.
    pub strangers_per_second_per_ip: u32,
    /// Body of an HTTP request. More: 413.
    pub http_body_bytes: usize,
    /// One signal frame. More: the socket is closed.
    pub signal_frame_bytes: usize,
    /// Signal messages in ten seconds, sustained. Sixteen candidates count as one. More: the socket is closed.
    pub signal_messages_per_10s: u32,
    /// The same in a burst.
    pub signal_messages_burst: u32,
    /// More: the description is refused and the socket closed.
    pub sdp_sections: usize,
    pub sdp_bytes: usize,
    /// Tracks of one participant. More: LIMIT_EXCEEDED.
    pub tracks_per_participant: usize,
    /// Tracks announced and not yet seen in an SDP. More: LIMIT_EXCEEDED.
    pub tracks_pending: usize,
    /// More: LIMIT_EXCEEDED, or 400 at the door.
    pub metadata_bytes: usize,
    pub attributes_bytes: usize,
    /// What one client may send on data channels, sustained; 0 means no limit. More: lossy dropped, reliable slowed down.
    pub data_bytes_per_second: u64,
    /// 0 means no limit. More: 403.
    pub participants_per_room: u32,
    /// 0 means no limit. More: 503.
    pub rooms: u32,
    /// Share of the machine's memory above which nobody new is taken: 503.
    pub memory_percent: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            strangers_open_per_ip: 100,
            strangers_per_second_per_ip: 50,
            http_body_bytes: 10 << 20,
            signal_frame_bytes: 2 << 20,
            signal_messages_per_10s: 200,
            signal_messages_burst: 400,
            sdp_sections: 512,
            sdp_bytes: 1 << 20,
            tracks_per_participant: 50,
            tracks_pending: 20,
            metadata_bytes: 512 << 10,
            attributes_bytes: 64 << 10,
            data_bytes_per_second: 8_000_000,
            participants_per_room: 0,
            rooms: 0,
            memory_percent: 85,
        }
    }
}

/// `[[turn]]`: a TURN server that clients are told of. Its secret is the server's own (coturn: `static-auth-secret`).
#[derive(Debug, Clone)]
pub struct Turn {
    /// `turn:host:port?transport=udp`, `turns:host:port` and the like (RFC 7065).
    pub urls: Vec<String>,
    pub secret: SecretString,
    /// How long credentials are good; a client gets fresh ones whenever it reconnects.
    pub ttl: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TurnFile {
    urls: Vec<String>,
    #[serde(default)]
    secret: Option<SecretString>,
    /// Where the secret stands, for mounted secrets.
    #[serde(default)]
    secret_file: Option<PathBuf>,
    #[serde(default = "turn_ttl", with = "duration")]
    ttl: Duration,
}

impl fmt::Debug for TurnFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnFile").field("urls", &self.urls).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

impl TurnFile {
    pub(super) fn resolve(self) -> Result<Turn, String> {
        let is_turn = |url: &String| url.starts_with("turn:") || url.starts_with("turns:");
        if self.urls.is_empty() || !self.urls.iter().all(is_turn) {
            return Err("urls are not turn: or turns: URLs".into());
        }
        if self.ttl < TURN_TTL_MIN {
            return Err("ttl is shorter than a minute".into());
        }
        let secret = match (self.secret, self.secret_file) {
            (Some(secret), None) => secret,
            (None, Some(path)) => {
                let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                SecretString::from(text.trim())
            }
            _ => return Err("there is no secret, or two".into()),
        };
        if secret.expose_secret().is_empty() {
            return Err("the secret is empty".into());
        }
        Ok(Turn { urls: self.urls, secret, ttl: self.ttl })
    }
}

/// Longer than most meetings: a relayed call ends with its credentials unless the client reconnected meanwhile.
fn turn_ttl() -> Duration {
    Duration::from_secs(4 * 60 * 60)
}

const TURN_TTL_MIN: Duration = Duration::from_secs(60);

/// `[recording]`: nothing is recorded without a directory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recording {
    /// Where each recording gets a directory of its own. In a cluster, one that all nodes share lets another node go on.
    pub directory: Option<PathBuf>,
    /// Recordings end when the file system has less left.
    pub free_bytes_min: u64,
    /// How often what was written is made to survive a loss of power. A process that dies loses nothing that was written.
    #[serde(with = "duration")]
    pub sync_interval: Duration,
    /// All files that one recording has at one node; 0 means no limit. Then it ends.
    pub bytes_max: u64,
    /// One recording at one node; `0s` means no limit. Then it ends.
    #[serde(with = "duration")]
    pub duration_max: Duration,
    /// Whether this node renders what is asked for as one file, at the lowest priority, with ffmpeg. `plenary-composer` does the same
    /// elsewhere.
    pub compose: bool,
    /// How long a recording is kept after its last change; `0s` means for ever.
    #[serde(with = "duration")]
    pub retention: Duration,
}

impl Default for Recording {
    fn default() -> Self {
        Self {
            directory: None,
            free_bytes_min: 1 << 30,
            sync_interval: Duration::from_secs(5),
            bytes_max: 0,
            duration_max: Duration::ZERO,
            compose: true,
            retention: Duration::ZERO,
        }
    }
}

impl Recording {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.directory.as_ref().is_some_and(|directory| !directory.is_absolute()) {
            return Err("directory is not an absolute path");
        }
        // Each one may take the disk a while, and what comes from the call waits behind it.
        if self.sync_interval < Duration::from_secs(1) {
            return Err("sync_interval is shorter than a second");
        }
        if !self.retention.is_zero() && self.retention < RETENTION_MIN {
            return Err("retention is shorter than an hour");
        }
        Ok(())
    }
}

/// Whoever renders a recording needs it for a while.
const RETENTION_MIN: Duration = Duration::from_secs(60 * 60);

/// `[log]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    /// Levels by module, as `tracing` writes them.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        // The actor and media crates report through `log` at levels of their own.
        Self {
            format: LogFormat::Auto,
            filter: "info,actix=warn,rtc=warn,sctp_proto=warn,dimpl=warn,opentelemetry=warn,hyper=warn,reqwest=warn"
                .into(),
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    Json,
    Text,
}

/// `[room_api]`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoomApi {
    /// Whether a host application may switch on somebody's microphone.
    pub remote_unmute: bool,
}
