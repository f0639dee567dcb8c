//! One Redis server: the connection for commands, the connection that listens, and the scripts.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::StreamExt;
use redis::{
    AsyncCommands, Client, IntoConnectionInfo, RedisResult, Script, Value,
    aio::{ConnectionManager, ConnectionManagerConfig, PubSubSink, PubSubStream},
    io::tcp::TcpSettings,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Shard {
    commands: ConnectionManager,
    asks: mpsc::Sender<Ask>,
    listening: JoinHandle<()>,
    /// To say once that it stopped answering and once that it does again.
    failing: AtomicBool,
}

/// What somebody who listens is told; the answer says whether they still do.
pub(super) enum Heard<'a> {
    Message(&'a [u8]),
    /// Something may have been missed.
    Missed,
    /// Nothing; whoever does not listen any more is forgotten.
    Check,
}

/// Called where nothing may wait.
pub(super) type Ear = Box<dyn FnMut(Heard<'_>) -> bool + Send>;

struct Ask {
    channel: String,
    ear: Ear,
    /// Answered once Redis has confirmed the subscription.
    listening: oneshot::Sender<()>,
}

/// Redis did not answer in time, or not what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoAnswer;

impl Shard {
    /// Connects in the background, and again for as long as it lives.
    pub(super) fn new(url: &str) -> RedisResult<Self> {
        let info = url.into_connection_info()?;
        let client = Client::open(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(RETRIES)
            .set_min_delay(RETRY_MIN)
            .set_max_delay(RETRY_MAX)
            .set_response_timeout(Some(ANSWER_WITHIN))
            .set_connection_timeout(Some(CONNECT_WITHIN));
        let commands = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        let (asks, waiting) = mpsc::channel(ASKS_WAITING_MAX);
        let listening = tokio::spawn(Listener { client, asks: waiting, ears: HashMap::new() }.run());
        Ok(Self { commands, asks, listening, failing: AtomicBool::new(false) })
    }

    /// Runs a script; its answer without the leading `ok`, or the word it gave instead.
    pub(super) async fn run(
        &self,
        script: &Script,
        keys: &[String],
        args: &[&[u8]],
    ) -> Result<Result<Vec<Value>, String>, NoAnswer> {
        let mut invocation = script.prepare_invoke();
        for key in keys {
            invocation.key(key);
        }
        for arg in args {
            invocation.arg(*arg);
        }
        let mut commands = self.commands.clone();
        let Value::Array(mut answer) = self.answered(invocation.invoke_async(&mut commands)).await? else {
            return Err(NoAnswer);
        };
        if answer.is_empty() {
            return Err(NoAnswer);
        }
        let values = answer.split_off(1);
        match answer.pop() {
            Some(Value::BulkString(word)) if word == b"ok" => Ok(Ok(values)),
            Some(Value::BulkString(word)) => Ok(Err(String::from_utf8_lossy(&word).into_owned())),
            _ => Err(NoAnswer),
        }
    }

    /// How many heard it.
    pub(super) async fn publish(&self, channel: &str, message: &[u8]) -> Result<u64, NoAnswer> {
        let mut commands = self.commands.clone();
        self.answered(commands.publish(channel, message)).await
    }

    /// How many listen to this channel.
    pub(super) async fn audience(&self, channel: &str) -> Result<u64, NoAnswer> {
        let mut commands = self.commands.clone();
        let mut ask = redis::cmd("PUBSUB");
        ask.arg("NUMSUB").arg(channel);
        let (_, count): (String, u64) = self.answered(ask.query_async(&mut commands)).await?;
        Ok(count)
    }

    pub(super) async fn query<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, NoAnswer> {
        let mut commands = self.commands.clone();
        self.answered(command.query_async(&mut commands)).await
    }

    /// Hears everything that is published on a channel after this returns.
    pub(super) async fn listen(&self, channel: String, ear: Ear) -> Result<(), NoAnswer> {
        let (listening, confirmed) = oneshot::channel();
        let asked = async {
            self.asks.send(Ask { channel, ear, listening }).await.map_err(|_| NoAnswer)?;
            confirmed.await.map_err(|_| NoAnswer)
        };
        timeout(WAIT_MAX, asked).await.unwrap_or(Err(NoAnswer))
    }

    /// During an outage calls would wait for the connection without a limit.
    async fn answered<T>(&self, call: impl Future<Output = RedisResult<T>>) -> Result<T, NoAnswer> {
        let why = match timeout(WAIT_MAX, call).await {
            Ok(Ok(answer)) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("Redis answers again");
                }
                return Ok(answer);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it did not answer in time".to_owned(),
        };
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(%why, "Redis fails");
        }
        Err(NoAnswer)
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// The connection that listens: one for all rooms.
struct Listener {
    client: Client,
    asks: mpsc::Receiver<Ask>,
    ears: HashMap<String, Vec<Ear>>,
}

impl Listener {
    async fn run(mut self) {
        let mut pause = RETRY_MIN;
        loop {
            let channels: Vec<_> = self.ears.keys().cloned().collect();
            if let Ok(Ok((sink, stream))) = timeout(CONNECT_WITHIN, connect(&self.client, channels)).await {
                pause = RETRY_MIN;
                if self.follow(sink, stream).await.is_none() {
                    return;
                }
            }
            sleep(pause).await;
            pause = pause.saturating_mul(2).min(RETRY_MAX);
        }
    }

    /// Until the connection ends; none once nobody asks any more.
    async fn follow(&mut self, mut sink: PubSubSink, mut stream: PubSubStream) -> Option<()> {
        for ears in self.ears.values_mut() {
            ears.retain_mut(|ear| ear(Heard::Missed));
        }
        let mut tick = interval(CHECK_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = stream.next() => {
                    let Some(message) = message else { return Some(()) };
                    if let Some(ears) = self.ears.get_mut(message.get_channel_name()) {
                        ears.retain_mut(|ear| ear(Heard::Message(message.get_payload_bytes())));
                    }
                }
                ask = self.asks.recv() => {
                    let Ask { channel, ear, listening } = ask?;
                    let is_new = !self.ears.contains_key(&channel);
                    // Known before it is confirmed: if the connection breaks here, the next one subscribes.
                    self.ears.entry(channel.clone()).or_default().push(ear);
                    if is_new && !matches!(timeout(ANSWER_WITHIN, sink.subscribe(channel)).await, Ok(Ok(()))) {
                        return Some(());
                    }
                    // The asker may have given up.
                    let _ = listening.send(());
                }
                _ = tick.tick() => {
                    if !matches!(timeout(ANSWER_WITHIN, sink.ping::<Value>()).await, Ok(Ok(_))) {
                        return Some(());
                    }
                    self.forget_deaf(&mut sink).await;
                }
            }
        }
    }

    async fn forget_deaf(&mut self, sink: &mut PubSubSink) {
        let mut empty = Vec::new();
        for (channel, ears) in &mut self.ears {
            ears.retain_mut(|ear| ear(Heard::Check));
            if ears.is_empty() {
                empty.push(channel.clone());
            }
        }
        self.ears.retain(|_, ears| !ears.is_empty());
        if !empty.is_empty() {
            // If this fails the connection is about to end, and the next one does not subscribe to them.
            let _ = timeout(ANSWER_WITHIN, sink.unsubscribe(empty)).await;
        }
    }
}

async fn connect(client: &Client, channels: Vec<String>) -> RedisResult<(PubSubSink, PubSubStream)> {
    let (mut sink, stream) = client.get_async_pubsub().await?.split();
    if !channels.is_empty() {
        sink.subscribe(channels).await?;
    }
    Ok((sink, stream))
}

/// A connection is tried again for as long as the node runs.
const RETRIES: usize = 1_000_000;
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// With the wait for a connection.
const WAIT_MAX: Duration = Duration::from_millis(800);
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Subscriptions that wait for the listening connection.
const ASKS_WAITING_MAX: usize = 1_024;
