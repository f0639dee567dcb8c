//! Every instrument of the node, by its OpenTelemetry name.
//!
//! Events move the counters and histograms (`events.rs`). What happens per packet is never reported here one by one:
//! threads count in plain atomics of their own and register how to read them ([`observe`]); the scrape adds them up.
//! Labels come from closed sets, never from rooms, identities, addresses or URLs.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter, ObservableCounter, UpDownCounter},
};

/// What events move. Read-only after the start.
#[derive(Debug)]
pub struct Instruments {
    pub rooms: UpDownCounter<i64>,
    pub participants: UpDownCounter<i64>,
    pub joins: Histogram<f64>,
    pub joins_refused: Counter<u64>,
    pub leaves: Counter<u64>,
    pub peers_connected: Histogram<f64>,
    pub peers_closed: Counter<u64>,
    pub sockets_evicted: Counter<u64>,
    pub refused: Counter<u64>,
    pub store_failures: Counter<u64>,
    pub redis_commands: Histogram<f64>,
    pub redis_missed: Counter<u64>,
    pub leases_missed: Counter<u64>,
    pub nodes_reaped: Counter<u64>,
    pub words_missed: Counter<u64>,
    pub words_dropped: Counter<u64>,
    pub words_carried: Counter<u64>,
    pub resumes_refused: Counter<u64>,
    pub links_up: Counter<u64>,
    pub links_down: Counter<u64>,
    pub bans_changed: Counter<u64>,
    pub keys_reloaded: Counter<u64>,
    pub issuer_fetches: Counter<u64>,
    pub webhooks_told: Histogram<f64>,
    pub webhooks_failed: Counter<u64>,
    pub webhooks_dropped: Counter<u64>,
    pub webhooks_age: Gauge<f64>,
    pub recordings: UpDownCounter<i64>,
    pub recordings_begun: Counter<u64>,
    pub recording_bytes: Counter<u64>,
    pub recordings_ended: Counter<u64>,
    pub recording_overruns: Counter<u64>,
    pub panics: Counter<u64>,
    pub http_duration: Histogram<f64>,
    pub http_active: UpDownCounter<i64>,
    _observed: Vec<ObservableCounter<u64>>,
}

/// The instruments of this process. Before telemetry is set up they lead nowhere, for good: set it up first.
pub fn instruments() -> &'static Instruments {
    static INSTRUMENTS: OnceLock<Instruments> = OnceLock::new();
    INSTRUMENTS.get_or_init(|| Instruments::new(&opentelemetry::global::meter("plenary")))
}

impl Instruments {
    fn new(meter: &Meter) -> Self {
        let seconds_within = |boundaries: [f64; 10], name: &'static str, description: &'static str| {
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(description);
            histogram.with_boundaries(boundaries.to_vec()).build()
        };
        let seconds = |name, description| seconds_within(SECONDS_BOUNDARIES, name, description);
        let counter = |name: &'static str, unit: &'static str, description: &'static str| {
            meter.u64_counter(name).with_unit(unit).with_description(description).build()
        };
        let level = |name: &'static str, unit: &'static str, description: &'static str| {
            meter.i64_up_down_counter(name).with_unit(unit).with_description(description).build()
        };
        Self {
            rooms: level("plenary.room.active", "{room}", "Rooms open on this node"),
            participants: level("plenary.participant.active", "{participant}", "Sessions on this node"),
            joins: seconds("plenary.join.duration", "From the join request to the join response"),
            joins_refused: counter("plenary.join.failures", "{join}", "Joins refused, by reason"),
            leaves: counter("plenary.participant.left", "{participant}", "Sessions ended, by reason"),
            peers_connected: seconds("plenary.peer.connect.duration", "From the first description to connected media"),
            peers_closed: counter("plenary.peer.closed", "{peer}", "Transports ended, by reason"),
            sockets_evicted: counter(
                "plenary.ws.evicted",
                "{socket}",
                "Signalling sockets shut by the server, by reason",
            ),
            refused: counter("plenary.signal.refused", "{message}", "What clients said and was not taken, by reason"),
            links_up: counter("plenary.link.up", "{link}", "Links to other media routers that came up"),
            links_down: counter(
                "plenary.link.down",
                "{link}",
                "Links to other media routers that went down, by reason",
            ),
            words_missed: counter("plenary.cluster.missed", "{gap}", "Times that words of other nodes were missed"),
            redis_commands: seconds_within(
                REDIS_BOUNDARIES,
                "plenary.redis.command.duration",
                "Scripts and commands to Redis, by name and outcome",
            ),
            redis_missed: counter(
                "plenary.redis.missed",
                "{subscription}",
                "Subscriptions that may have missed something and read what is stored again, by reason",
            ),
            leases_missed: counter(
                "plenary.cluster.lease.missed",
                "{renewal}",
                "Renewals of this node's lease that the store did not confirm",
            ),
            words_dropped: counter(
                "plenary.cluster.dropped",
                "{word}",
                "Words for other nodes that were late or too many and are not said",
            ),
            words_carried: counter(
                "plenary.cluster.carried",
                "{message}",
                "Messages for the other nodes of a room that went over links, since Redis was away",
            ),
            resumes_refused: counter(
                "plenary.resume.refused",
                "{resume}",
                "Resumes of sessions that are not on this node, by reason",
            ),
            nodes_reaped: counter("plenary.cluster.reaped", "{node}", "Dead nodes whose people this one removed"),
            store_failures: counter(
                "plenary.store.failures",
                "{call}",
                "Reads and writes of rooms that failed, by reason",
            ),
            bans_changed: counter(
                "plenary.bans.changed",
                "{change}",
                "Bans, revocations and their ends, as asked for here",
            ),
            keys_reloaded: counter(
                "plenary.keys.reloads",
                "{reload}",
                "Readings of the keys after the start, by result",
            ),
            issuer_fetches: counter("plenary.keys.fetches", "{fetch}", "Fetches of issuers' keys, by result"),
            webhooks_told: seconds("plenary.webhook.delay", "From a change to when a host app had been told"),
            webhooks_failed: counter("plenary.webhook.failures", "{message}", "Tries to tell a host app, by reason"),
            webhooks_dropped: counter("plenary.webhook.dropped", "{change}", "What host apps are not told, by reason"),
            webhooks_age: meter
                .f64_gauge("plenary.webhook.queue.age")
                .with_unit("s")
                .with_description("The oldest change that this node last tried to tell, by the URL's place in the list")
                .build(),
            recordings: level(
                "plenary.recording.active",
                "{recording}",
                "Recordings that this node makes, or whose files it makes",
            ),
            recording_bytes: counter("plenary.recording.bytes", "By", "Files of tracks that were completed here"),
            recordings_begun: counter(
                "plenary.recording.begun",
                "{recording}",
                "Recordings that this node began, or went on with",
            ),
            recordings_ended: counter(
                "plenary.recording.ended",
                "{recording}",
                "Recordings that ended here, by reason",
            ),
            recording_overruns: counter(
                "plenary.recording.overruns",
                "{packet}",
                "Packets that no recording has since its disk did not keep up",
            ),
            panics: counter(
                "plenary.panics",
                "{panic}",
                "Faults of ours that ended a session, a room, a recorder or a thread",
            ),
            http_duration: seconds("http.server.request.duration", "HTTP requests, by route, method and status"),
            http_active: level("http.server.active_requests", "{request}", "HTTP requests in progress"),
            _observed: Observed::ALL.iter().map(|observed| observable(meter, *observed)).collect(),
        }
    }
}

/// What is counted in plain atomics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Observed {
    /// Labels `direction` and `kind`.
    RtpPackets,
    /// Bytes on the wire; labels `direction` and `kind`.
    RtpIo,
    RtpLost,
    NacksSent,
    PlisSent,
    /// Received and refused without an answer; label `reason`.
    MediaDrops,
    /// Lost between the core and the kernel; label `reason`.
    IoLosses,
    /// A message found a full mailbox; label `actor`.
    MailboxFull,
    /// Sealed datagrams between routers; label `direction`.
    LinkPackets,
    /// Their bytes; label `direction`.
    LinkIo,
    LinkRetransmitted,
    LinkLost,
    LinkCuts,
}

impl Observed {
    const ALL: [Self; 13] = [
        Self::RtpPackets,
        Self::RtpIo,
        Self::RtpLost,
        Self::NacksSent,
        Self::PlisSent,
        Self::MediaDrops,
        Self::IoLosses,
        Self::MailboxFull,
        Self::LinkPackets,
        Self::LinkIo,
        Self::LinkRetransmitted,
        Self::LinkLost,
        Self::LinkCuts,
    ];

    const fn describe(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::RtpPackets => ("plenary.rtp.packets", "{packet}", "RTP packets"),
            Self::RtpIo => ("plenary.rtp.io", "By", "Bytes of RTP"),
            Self::RtpLost => ("plenary.rtp.lost", "{packet}", "RTP packets that publishers sent and that never came"),
            Self::NacksSent => ("plenary.nack.sent", "{request}", "Packets asked for again"),
            Self::PlisSent => ("plenary.pli.sent", "{request}", "Keyframes asked for"),
            Self::MediaDrops => ("plenary.media.drops", "{packet}", "Packets refused without an answer"),
            Self::IoLosses => ("plenary.media.io.losses", "{event}", "What the sockets lost, delayed or refused"),
            Self::MailboxFull => ("plenary.actor.mailbox.full", "{message}", "Messages that found a full mailbox"),
            Self::LinkPackets => ("plenary.link.packets", "{packet}", "Datagrams between media routers"),
            Self::LinkIo => ("plenary.link.io", "By", "Bytes between media routers"),
            Self::LinkRetransmitted => ("plenary.link.retransmitted", "{packet}", "Datagrams sent again to a router"),
            Self::LinkLost => ("plenary.link.lost", "{packet}", "Datagrams that no router confirmed in time"),
            Self::LinkCuts => {
                ("plenary.link.cuts", "{cut}", "Times that a link was given less, since it did not get through")
            }
        }
    }
}

/// Registers how to read a counter that some thread keeps. Counters with the same labels are added up. A counter stays
/// registered when its thread is gone, because a total never falls.
pub fn observe(observed: Observed, labels: &[(&'static str, String)], read: impl Fn() -> u64 + Send + Sync + 'static) {
    let labels: Labels = labels.to_vec();
    registry().entry(observed).or_default().entry(labels).or_default().push(Box::new(read));
}

type Labels = Vec<(&'static str, String)>;
type Readers = BTreeMap<Labels, Vec<Box<dyn Fn() -> u64 + Send + Sync>>>;

/// Touched at the start of threads and by the scrape, never by whoever counts.
fn registry() -> MutexGuard<'static, BTreeMap<Observed, Readers>> {
    static REGISTRY: Mutex<BTreeMap<Observed, Readers>> = Mutex::new(BTreeMap::new());
    // Readers change nothing, so a panic among them leaves the registry whole.
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

fn observable(meter: &Meter, observed: Observed) -> ObservableCounter<u64> {
    let (name, unit, description) = observed.describe();
    let read_all = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<u64>| {
        for (labels, readers) in registry().get(&observed).into_iter().flatten() {
            let total = readers.iter().map(|read| read()).fold(0, u64::wrapping_add);
            let labels: Vec<KeyValue> = labels.iter().map(|(key, value)| KeyValue::new(*key, value.clone())).collect();
            observer.observe(total, &labels);
        }
    };
    meter.u64_observable_counter(name).with_unit(unit).with_description(description).with_callback(read_all).build()
}

/// A closed enum's value as a label: `SignalClose` reads `signal_close`.
pub fn label(value: impl std::fmt::Debug) -> String {
    let debug = format!("{value:?}");
    let word = debug.split(['(', ' ', '{']).next().unwrap_or_default();
    let mut label = String::with_capacity(word.len() + 4);
    for letter in word.chars() {
        if letter.is_ascii_uppercase() && !label.is_empty() {
            label.push('_');
        }
        label.push(letter.to_ascii_lowercase());
    }
    label
}

/// From a local answer to a client that waits its ten seconds.
const SECONDS_BOUNDARIES: [f64; 10] = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// From the same machine to a call that is given up after 0.8 s.
const REDIS_BOUNDARIES: [f64; 10] = [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 0.8];

#[cfg(test)]
mod tests {
    use plenary_model::LeaveReason;

    use super::*;

    #[test]
    fn reasons_become_plain_labels() {
        assert_eq!(label(LeaveReason::SignalClose), "signal_close");
        assert_eq!(label(LeaveReason::Unknown), "unknown");
        assert_eq!(label(Some("payload that must not leak")), "some");
    }
}
