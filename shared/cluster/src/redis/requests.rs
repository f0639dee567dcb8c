//! Requests between nodes and their replies: sealed with the cluster's key, so that who can write to Redis cannot pass for
//! a node.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use plenary_model::{AdminRefusal, NodeId, Participant};
use tokio::{
    sync::{OnceCell, mpsc, oneshot},
    time::timeout,
};

use super::{
    seal::Seal,
    shard::{Heard, NoAnswer, Shard},
    wire::{Command, Message, Reply, message, reply::Outcome},
};
use crate::{AdminReply, Ask, BusError, Inbox, Request};

/// See the module.
#[derive(Debug)]
pub(super) struct Requests {
    shard: Arc<Shard>,
    prefix: String,
    seal: Seal,
    /// Where replies to this node's requests arrive.
    own_channel: String,
    listens: OnceCell<()>,
    waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<Reply>>>>,
    next: AtomicU64,
    /// Where requests to the nodes go that are served here: one, outside of tests.
    served: Mutex<HashMap<NodeId, Desk>>,
}

/// Whose inbox it is may change: one that was dropped makes place for the next.
type Desk = Arc<Mutex<mpsc::Sender<Ask>>>;

impl Requests {
    pub(super) fn new(shard: Arc<Shard>, prefix: &str, seal: Seal, instance: &str) -> Self {
        Self {
            shard,
            prefix: prefix.to_owned(),
            seal,
            own_channel: format!("{prefix}replies:{instance}"),
            listens: OnceCell::new(),
            waiting: Arc::default(),
            next: AtomicU64::new(1),
            served: Mutex::default(),
        }
    }

    pub(super) async fn ask(&self, to: &NodeId, request: Request) -> Result<AdminReply, BusError> {
        self.listens.get_or_try_init(|| self.listen_for_replies()).await?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, reply) = oneshot::channel();
        let waits = Waits { number, waiting: &self.waiting };
        lock(&self.waiting).insert(number, sender);
        let command = message::What::Command(Command::new(&request));
        let message = Message { number, reply_to: self.own_channel.clone(), what: Some(command) };
        let channel = self.channel_of(to);
        if self.shard.publish(&channel, &self.seal.close(&channel, &message)).await? == 0 {
            return Err(BusError::NoSuchNode);
        }
        let reply = timeout(REPLY_WITHIN, reply).await.map_err(|_| BusError::Timeout)?;
        drop(waits);
        read_reply(reply.map_err(|_| BusError::Unavailable)?)
    }

    pub(super) async fn serve(&self, node: &NodeId) -> Result<Inbox, BusError> {
        let channel = self.channel_of(node);
        let (asks, inbox) = Inbox::pair();
        if let Some(desk) = lock(&self.served).get(node) {
            let mut held = lock(desk);
            if !held.is_closed() {
                return Err(BusError::Unavailable);
            }
            *held = asks;
            return Ok(inbox);
        }
        if self.shard.audience(&channel).await? > 0 {
            return Err(BusError::Unavailable);
        }
        let desk = Arc::new(Mutex::new(asks));
        lock(&self.served).insert(node.clone(), desk.clone());
        let server = Server { shard: self.shard.clone(), seal: self.seal.clone(), desk, seen: Seen::default() };
        let listens = self.shard.listen(channel.clone(), server.ear(channel)).await;
        if listens.is_err() {
            lock(&self.served).remove(node);
        }
        listens?;
        Ok(inbox)
    }

    fn channel_of(&self, node: &NodeId) -> String {
        format!("{}node:{node}", self.prefix)
    }

    async fn listen_for_replies(&self) -> Result<(), NoAnswer> {
        let (seal, waiting, channel) = (self.seal.clone(), self.waiting.clone(), self.own_channel.clone());
        let ear = Box::new(move |heard: Heard<'_>| {
            if let Heard::Message(bytes) = heard
                && let Ok(Message { number, what: Some(message::What::Reply(reply)), .. }) = seal.open(&channel, bytes)
                && let Some(asker) = lock(&waiting).remove(&number)
            {
                // The asker may have given up.
                let _ = asker.send(reply);
            }
            true
        });
        self.shard.listen(self.own_channel.clone(), ear).await
    }
}

/// Nobody waits for this reply any more once it is dropped.
struct Waits<'w> {
    number: u64,
    waiting: &'w Mutex<HashMap<u64, oneshot::Sender<Reply>>>,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        lock(self.waiting).remove(&self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Carries requests to this node's inbox, and what it answers back.
struct Server {
    shard: Arc<Shard>,
    seal: Seal,
    desk: Desk,
    seen: Seen,
}

impl Server {
    fn ear(mut self, channel: String) -> super::Ear {
        Box::new(move |heard| {
            if let Heard::Message(bytes) = heard
                && let Ok(message) = self.seal.open(&channel, bytes)
            {
                self.hear(message);
            }
            true
        })
    }

    fn hear(&mut self, message: Message) {
        let Message { number, reply_to, what: Some(message::What::Command(command)) } = message else { return };
        if !self.seen.is_new(&reply_to, number) {
            return;
        }
        let Ok(request) = command.into_model() else {
            return self.reply(number, reply_to, outcome(Outcome::Unavailable));
        };
        let (sender, answer) = oneshot::channel();
        let taken = lock(&self.desk).try_send((request, sender));
        match taken {
            Ok(()) => {
                let (shard, seal) = (self.shard.clone(), self.seal.clone());
                tokio::spawn(async move {
                    let answer = answer.await.map_or_else(|_| outcome(Outcome::Unavailable), written_reply);
                    send_reply(&shard, &seal, number, reply_to, answer).await;
                });
            }
            Err(mpsc::error::TrySendError::Full(_)) => self.reply(number, reply_to, outcome(Outcome::Unavailable)),
            Err(mpsc::error::TrySendError::Closed(_)) => self.reply(number, reply_to, outcome(Outcome::NoSuchNode)),
        }
    }

    fn reply(&self, number: u64, reply_to: String, reply: Reply) {
        let (shard, seal) = (self.shard.clone(), self.seal.clone());
        tokio::spawn(async move { send_reply(&shard, &seal, number, reply_to, reply).await });
    }
}

async fn send_reply(shard: &Shard, seal: &Seal, number: u64, reply_to: String, reply: Reply) {
    let message = Message { number, reply_to: String::new(), what: Some(message::What::Reply(reply)) };
    // The asker's own time limit covers the loss of a reply.
    let _ = shard.publish(&reply_to, &seal.close(&reply_to, &message)).await;
}

fn outcome(outcome: Outcome) -> Reply {
    Reply { outcome: outcome.into(), participant: None, version: 0 }
}

fn written_reply(answer: AdminReply) -> Reply {
    match answer {
        Ok(person) => Reply {
            version: person.as_ref().map_or(0, |person| person.version),
            participant: person.map(|person| (&*person).into()),
            ..outcome(Outcome::Done)
        },
        Err(AdminRefusal::NoSuchRoom) => outcome(Outcome::NoSuchRoom),
        Err(AdminRefusal::NoSuchParticipant) => outcome(Outcome::NoSuchParticipant),
        Err(AdminRefusal::NoSuchTrack) => outcome(Outcome::NoSuchTrack),
        Err(AdminRefusal::RemoteUnmuteDisabled) => outcome(Outcome::RemoteUnmuteDisabled),
        Err(AdminRefusal::TooLarge) => outcome(Outcome::TooLarge),
    }
}

fn read_reply(reply: Reply) -> Result<AdminReply, BusError> {
    Ok(match Outcome::try_from(reply.outcome).unwrap_or(Outcome::Unavailable) {
        Outcome::Done => {
            let person = reply.participant.map(|person| person.into_model(reply.version)).transpose();
            Ok(person.map_err(|_| BusError::Unavailable)?.map(Arc::<Participant>::new))
        }
        Outcome::NoSuchRoom => Err(AdminRefusal::NoSuchRoom),
        Outcome::NoSuchParticipant => Err(AdminRefusal::NoSuchParticipant),
        Outcome::NoSuchTrack => Err(AdminRefusal::NoSuchTrack),
        Outcome::RemoteUnmuteDisabled => Err(AdminRefusal::RemoteUnmuteDisabled),
        Outcome::TooLarge => Err(AdminRefusal::TooLarge),
        Outcome::Unavailable => return Err(BusError::Unavailable),
        Outcome::NoSuchNode => return Err(BusError::NoSuchNode),
    })
}

/// The last requests, so that one that is played back is carried out once.
#[derive(Debug, Default)]
struct Seen {
    known: HashSet<(String, u64)>,
    order: VecDeque<(String, u64)>,
}

impl Seen {
    fn is_new(&mut self, asker: &str, number: u64) -> bool {
        let request = (asker.to_owned(), number);
        if !self.known.insert(request.clone()) {
            return false;
        }
        self.order.push_back(request);
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

/// How long a node may think about a request.
const REPLY_WITHIN: Duration = Duration::from_secs(5);
const SEEN_MAX: usize = 8_192;
