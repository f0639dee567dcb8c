//! One Redis server: the connection for commands, the connection that listens, and the scripts.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use redis::{
    AsyncCommands, Client, RedisResult, Script, Value,
    aio::{ConnectionManager, ConnectionManagerConfig, PubSubSink, PubSubStream},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::server::Server;
use crate::{CallOutcome, MissReason, Observation, Observer};

/// See the module.
#[derive(Debug)]
pub(super) struct Shard {
    commands: Commands,
    asks: mpsc::Sender<Ask>,
    listening: JoinHandle<()>,
    observer: Observer,
    /// To say once that it stopped answering and once that it does again.
    failing: AtomicBool,
}

/// The connection for commands. None until Sentinels have named a primary for the first time.
#[derive(Clone, Default)]
struct Commands(Arc<RwLock<Option<ConnectionManager>>>);

/// A script under the name by which its calls are counted.
pub(super) struct NamedScript {
    pub(super) name: &'static str,
    pub(super) script: Script,
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
    pub(super) fn new(url: &str, authority: Option<&[u8]>, observer: Observer) -> RedisResult<Self> {
        let server = Server::new(url, authority)?;
        let commands = Commands::default();
        if let Server::Fixed(client) = &server {
            commands.lead_to(client, RETRIES)?;
        }
        let (asks, waiting) = mpsc::channel(ASKS_WAITING_MAX);
        let (to, told) = (commands.clone(), observer.clone());
        let listener = Listener { server, commands: to, observer: told, asks: waiting, ears: HashMap::new() };
        let listening = tokio::spawn(listener.run());
        Ok(Self { commands, asks, listening, observer, failing: AtomicBool::new(false) })
    }

    /// Runs a script; its answer without the leading `ok`, or the word it gave instead.
    pub(super) async fn run(
        &self,
        script: &NamedScript,
        keys: &[String],
        args: &[&[u8]],
    ) -> Result<Result<Vec<Value>, String>, NoAnswer> {
        let mut invocation = script.script.prepare_invoke();
        for key in keys {
            invocation.key(key);
        }
        for arg in args {
            invocation.arg(*arg);
        }
        let mut commands = self.commands()?;
        let answer = self.answered(script.name, invocation.invoke_async(&mut commands)).await?;
        let Value::Array(mut answer) = answer else { return Err(NoAnswer) };
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
        let mut commands = self.commands()?;
        self.answered("publish", commands.publish(channel, message)).await
    }

    /// How many listen to this channel.
    pub(super) async fn audience(&self, channel: &str) -> Result<u64, NoAnswer> {
        let mut ask = redis::cmd("PUBSUB");
        ask.arg("NUMSUB").arg(channel);
        let (_, count): (String, u64) = self.query("audience", &ask).await?;
        Ok(count)
    }

    /// `name`: what its calls are counted under.
    pub(super) async fn query<T: redis::FromRedisValue>(
        &self,
        name: &'static str,
        command: &redis::Cmd,
    ) -> Result<T, NoAnswer> {
        let mut commands = self.commands()?;
        self.answered(name, command.query_async(&mut commands)).await
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

    fn commands(&self) -> Result<ConnectionManager, NoAnswer> {
        let held = self.commands.0.read().unwrap_or_else(PoisonError::into_inner);
        held.clone().ok_or_else(|| self.fails("no primary is known"))
    }

    /// During an outage calls would wait for the connection without a limit.
    async fn answered<T>(&self, name: &'static str, call: impl Future<Output = RedisResult<T>>) -> Result<T, NoAnswer> {
        let began = Instant::now();
        let answer = timeout(WAIT_MAX, call).await;
        let outcome = match &answer {
            Ok(Ok(_)) => CallOutcome::Answered,
            Ok(Err(_)) => CallOutcome::Failed,
            Err(_) => CallOutcome::TimedOut,
        };
        self.observer.tell(Observation::Called { name, outcome, after: began.elapsed() });
        match answer {
            Ok(Ok(answer)) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("Redis answers again");
                }
                Ok(answer)
            }
            Ok(Err(error)) => Err(self.fails(&error.to_string())),
            Err(_) => Err(self.fails("it did not answer in time")),
        }
    }

    fn fails(&self, why: &str) -> NoAnswer {
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(why, "Redis fails");
        }
        NoAnswer
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Commands {
    /// From here on commands go there.
    fn lead_to(&self, client: &Client, retries: usize) -> RedisResult<()> {
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(retries)
            .set_min_delay(RETRY_MIN)
            .set_max_delay(RETRY_MAX)
            .set_response_timeout(Some(ANSWER_WITHIN))
            .set_connection_timeout(Some(CONNECT_WITHIN));
        let commands = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(commands);
        Ok(())
    }
}

impl std::fmt::Debug for Commands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commands").finish_non_exhaustive()
    }
}

/// The connection that listens: one for all rooms.
struct Listener {
    server: Server,
    commands: Commands,
    observer: Observer,
    asks: mpsc::Receiver<Ask>,
    ears: HashMap<String, Vec<Ear>>,
}

impl Listener {
    async fn run(mut self) {
        let mut pause = RETRY_MIN;
        loop {
            if let Ok((sink, stream)) = self.connect().await {
                pause = RETRY_MIN;
                if self.follow(sink, stream).await.is_none() {
                    return;
                }
            }
            sleep(pause).await;
            pause = pause.saturating_mul(2).min(RETRY_MAX);
        }
    }

    async fn connect(&mut self) -> RedisResult<(PubSubSink, PubSubStream)> {
        // The search ends by itself: each of its steps has a limit.
        let client = self.server.find().await?;
        if let Server::Watched(_) = self.server {
            self.commands.lead_to(&client, RETRIES_OF_A_PRIMARY)?;
        }
        let channels: Vec<_> = self.ears.keys().cloned().collect();
        timeout(CONNECT_WITHIN, subscribed(&client, channels))
            .await
            .unwrap_or_else(|late| Err(std::io::Error::from(late).into()))
    }

    /// Until the connection ends; none once nobody asks any more.
    async fn follow(&mut self, mut sink: PubSubSink, mut stream: PubSubStream) -> Option<()> {
        for ears in self.ears.values_mut() {
            ears.retain_mut(|ear| ear(Heard::Missed));
            for _ in ears {
                self.observer.tell(Observation::Missed { reason: MissReason::Disconnected });
            }
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

async fn subscribed(client: &Client, channels: Vec<String>) -> RedisResult<(PubSubSink, PubSubStream)> {
    let (mut sink, stream) = client.get_async_pubsub().await?.split();
    if !channels.is_empty() {
        sink.subscribe(channels).await?;
    }
    Ok((sink, stream))
}

/// A connection is tried again for as long as the node runs.
const RETRIES: usize = 1_000_000;
/// One to a primary that another may have replaced is given up; the next command, or the next primary, begins anew.
const RETRIES_OF_A_PRIMARY: usize = 5;
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// With the wait for a connection.
const WAIT_MAX: Duration = Duration::from_millis(800);
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Subscriptions that wait for the listening connection.
const ASKS_WAITING_MAX: usize = 1_024;
