//! Tells host apps what happens in rooms, as LiveKit's webhooks.
//!
//! The changes themselves put what happened into outboxes of the store, one for each room and URL (`shared/cluster`). A node
//! leases a few that are due, tells what is in each in its order, and puts off what is not taken. So a host app that is slow
//! or away holds up nothing but what it is told, and what a dead node had leased another one tells. A message may
//! come twice, under the same id.

mod call;
mod message;

pub use self::call::CallFailure;

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, digest};
use futures_util::future::join_all;
use plenary_cluster::{OUTBOX_LEASE_LIFE, OutboxLease, Reached, Store, Waiting};
use plenary_model::Codec;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use self::call::{CALL_WITHIN, Caller};
use crate::{
    config::Webhook,
    events::{WebhookFailed, WebhookGivenUp, WebhookTold, WebhooksBehind, WebhooksDropped},
    keys::KeyRing,
    tokens::unix_ms,
};

/// Under which names the store shall keep what each URL is told. Nodes that are configured alike have the same.
pub fn destinations(webhook: &Webhook) -> impl Iterator<Item = String> {
    webhook.urls.iter().map(|url| {
        let digest = digest(&SHA256, url.as_str().as_bytes());
        digest.as_ref().iter().take(NAME_BYTES).map(|byte| format!("{byte:02x}")).collect()
    })
}

/// All that this node tells.
#[derive(Debug)]
pub struct Webhooks {
    stopping: watch::Sender<bool>,
    tellers: Vec<JoinHandle<()>>,
}

impl Webhooks {
    /// Needs a running runtime.
    pub fn start(
        webhook: &Webhook,
        store: &Arc<dyn Store>,
        keys: &Arc<KeyRing>,
        codecs: &[Codec],
    ) -> Result<Self, CallFailure> {
        let stopping = watch::Sender::new(false);
        let tellers = destinations(webhook).zip(&webhook.urls).enumerate().map(|(place, (name, url))| {
            let teller = Teller {
                store: store.clone(),
                caller: Caller::new(url.clone(), keys.clone(), webhook.api_key.clone())?,
                codecs: codecs.to_vec(),
                name,
                place,
                is_failing: AtomicBool::new(false),
                behind_ms: AtomicU64::new(0),
            };
            Ok(tokio::spawn(Arc::new(teller).run(stopping.subscribe())))
        });
        let tellers = tellers.collect::<Result<_, _>>()?;
        Ok(Self { stopping, tellers })
    }

    /// Tells what is due, for this long at most. What is left is told by other nodes, or after the next start if Redis keeps it.
    pub async fn finish(self, within: Duration) {
        self.stopping.send_replace(true);
        let stops = self.tellers.iter().map(JoinHandle::abort_handle).collect::<Vec<_>>();
        if timeout(within, join_all(self.tellers)).await.is_err() {
            stops.iter().for_each(|teller| teller.abort());
        }
    }
}

/// Tells one host app.
struct Teller {
    store: Arc<dyn Store>,
    caller: Caller,
    codecs: Vec<Codec>,
    /// Of its outboxes.
    name: String,
    /// In the configuration.
    place: usize,
    /// To warn once that it does not take what it is told.
    is_failing: AtomicBool,
    /// The age of the oldest that was tried since this was last looked at.
    behind_ms: AtomicU64,
}

impl Teller {
    async fn run(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        let mut filled = self.store.outboxes_filled();
        let mut tellings = JoinSet::new();
        loop {
            let stops = *stopping.borrow_and_update();
            filled.mark_unchanged();
            let leases = self.lease(OUTBOXES_AT_ONCE.saturating_sub(tellings.len())).await;
            if stops && leases.is_empty() && tellings.is_empty() {
                return;
            }
            for lease in leases {
                tellings.spawn(self.clone().empty(lease));
            }
            tokio::select! {
                _ = filled.changed() => {}
                Some(_) = tellings.join_next() => {}
                stops = stopping.changed() => if stops.is_err() { return },
                () = sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    /// None where the store does not answer, which others report.
    async fn lease(&self, most: usize) -> Vec<OutboxLease> {
        let by = Duration::from_millis(self.behind_ms.swap(0, Ordering::Relaxed));
        WebhooksBehind { destination: self.place, by }.emit();
        if most == 0 {
            return Vec::new();
        }
        let leased = self.store.lease_outboxes(&self.name, most).await.unwrap_or_default();
        WebhooksDropped { host: self.caller.host(), changes: leased.dropped }.emit();
        leased.outboxes
    }

    /// Until the outbox is empty, or what it holds is not taken. Whatever else ends it, the lease runs out and somebody goes on.
    async fn empty(self: Arc<Self>, lease: OutboxLease) {
        let mut done = None;
        loop {
            let asked = Instant::now();
            let Ok(Some(waiting)) = self.store.next_happening(lease.clone(), done.take()).await else { return };
            match self.tell(&waiting, asked + OUTBOX_LEASE_LIFE).await {
                ControlFlow::Continue(()) => done = Some(waiting.entry),
                ControlFlow::Break((reached, after)) => {
                    let _ = self.store.put_off(lease, reached, after).await;
                    return;
                }
            }
        }
    }

    async fn tell(&self, waiting: &Waiting, until: Instant) -> ControlFlow<(Reached, Duration)> {
        let mut tries = waiting.tries;
        for (told, occurrence) in waiting.happening.occurrences().iter().enumerate().skip(waiting.told) {
            let reached = |tries| Reached { entry: waiting.entry.clone(), told, tries };
            // Nobody else must be telling it while this call is under way.
            if Instant::now() + CALL_WITHIN > until {
                return ControlFlow::Break((reached(tries), Duration::ZERO));
            }
            let message = message::event(waiting, occurrence, &self.codecs);
            let outcome = self.caller.call(&message).await;
            let age_ms = unix_ms().saturating_sub(waiting.since_unix_ms);
            self.behind_ms.fetch_max(age_ms, Ordering::Relaxed);
            let (event, host, age) = (message.event.as_str(), self.caller.host(), Duration::from_millis(age_ms));
            match outcome {
                Ok(()) => {
                    self.is_failing.store(false, Ordering::Relaxed);
                    WebhookTold { event, after: age }.emit();
                }
                Err(why) => match again_in(why, age, tries) {
                    Some(again_in) => {
                        let is_news = !self.is_failing.swap(true, Ordering::Relaxed);
                        WebhookFailed { event, host, why: &why, again_in, is_news }.emit();
                        return ControlFlow::Break((reached(tries.saturating_add(1)), again_in));
                    }
                    None => WebhookGivenUp { event, id: &message.id, host, why: &why }.emit(),
                },
            }
            tries = 0;
        }
        ControlFlow::Continue(())
    }
}

/// When what happened so long ago, and was tried so often before, is tried again. None if it is given up.
fn again_in(why: CallFailure, age: Duration, tries: u32) -> Option<Duration> {
    let pause = PAUSE_MIN.saturating_mul(1u32.checked_shl(tries).unwrap_or(u32::MAX));
    (why.may_pass() && age < TELL_WITHIN).then_some(pause.min(PAUSE_MAX))
}

/// Outboxes of one host app that a node empties at a time; so many messages are on the way to it at once.
const OUTBOXES_AT_ONCE: usize = 16;

/// What other nodes left behind is found so soon, and what was put off begun so late.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A host app that takes nothing of a room for so long is not told of it any more.
const TELL_WITHIN: Duration = Duration::from_secs(60 * 60);

const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A name shall tell a handful of URLs apart.
const NAME_BYTES: usize = 6;

#[cfg(test)]
mod tests;
