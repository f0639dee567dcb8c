//! The keys in use: read by every door, replaced while people join, and fetched where issuers publish theirs.
//!
//! Readers take one `Arc` and never wait for a writer that does more than swap it. No request waits for a fetch longer
//! than [`WAIT_MAX`], and no request starts one that the schedule does not allow.

mod fetch;
mod schedule;
mod watch;

pub use self::{
    fetch::{FetchError, Fetcher},
    schedule::{Asked, Schedule, Timing},
    watch::watch,
};

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak},
    time::{Duration, Instant},
};

use plenary_protocol::token::{Claims, Keys, MintError, Minter, PublicKey, TokenError, Verifier};
use tokio::{
    sync::{Notify, watch as latest},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    config::{KeySettings, PublishedKeys, Settings},
    events::{IssuerKeysFetched, IssuerKeysForgotten, IssuerKeysNotFetched},
};

/// Checks and signs with the keys of the moment.
#[derive(Debug)]
pub struct KeyRing {
    current: RwLock<Arc<Current>>,
    /// Those that publish their keys, by name. Locked before `current` where both are.
    published: Mutex<BTreeMap<String, Following>>,
    leeway: Duration,
    life_max: Duration,
    timing: Timing,
}

#[derive(Debug)]
struct Current {
    keys: Keys,
    verifier: Verifier,
    minter: Minter,
}

/// An issuer whose keys are fetched for as long as this lives.
#[derive(Debug)]
struct Following {
    issuer: Arc<Published>,
    task: JoinHandle<()>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Published {
    settings: PublishedKeys,
    schedule: Mutex<Schedule>,
    /// The schedule has something new to say.
    asked: Notify,
    /// How many fetches have ended.
    fetches: latest::Sender<u64>,
}

impl KeyRing {
    /// The keys that could be read; [`KeyRing::replace`] begins to fetch the others.
    pub fn new(settings: &Settings) -> Arc<Self> {
        Self::with_timing(settings, Timing::default())
    }

    pub fn with_timing(settings: &Settings, timing: Timing) -> Arc<Self> {
        let (leeway, life_max) = (settings.signal.token_leeway, settings.signal.token_life_max);
        Arc::new(Self {
            current: RwLock::new(Arc::new(Current::new(settings.keys.clone(), leeway, life_max))),
            published: Mutex::default(),
            leeway,
            life_max,
            timing,
        })
    }

    /// These keys from now on. What was fetched from issuers that stay as they are is kept. Needs a running runtime.
    pub fn replace(self: &Arc<Self>, settings: KeySettings) -> Result<(), FetchError> {
        let KeySettings { mut keys, published, .. } = settings;
        let mut before = self.published();
        let fetchers: Result<Vec<_>, _> = published.iter().map(Fetcher::new).collect();
        let fetchers = fetchers?;
        let old = self.current();
        let mut after = BTreeMap::new();
        for (settings, fetcher) in published.into_iter().zip(fetchers) {
            let name = settings.issuer.clone();
            let following = match before.remove(&name).filter(|one| one.issuer.settings == settings) {
                Some(unchanged) => {
                    let fetched = old.keys.issuers().find(|(one, _)| *one == name);
                    keys.set_public_keys(&name, fetched.and_then(|(_, issuer)| issuer.keys.clone()));
                    unchanged
                }
                None => self.follow(settings, fetcher),
            };
            after.insert(name, following);
        }
        *before = after;
        self.set(keys);
        Ok(())
    }

    /// The claims of a good token. Keys that are not known yet may have been published meanwhile.
    pub async fn verify(&self, token: &str, now_unix_s: u64) -> Result<Claims, TokenError> {
        let current = self.current();
        let verdict = current.verifier.verify(token, now_unix_s);
        if !matches!(verdict, Err(TokenError::UnknownKid | TokenError::KeysUnavailable)) {
            return verdict;
        }
        let issuer = current.verifier.issuer_of(token);
        let Some(issuer) = issuer.and_then(|name| Some(self.published().get(&name)?.issuer.clone())) else {
            return verdict;
        };
        if !issuer.fetched_again().await {
            return verdict;
        }
        self.current().verifier.verify(token, now_unix_s)
    }

    /// The token that keeps a session's way back open, where this server can sign one.
    pub fn refresh(&self, claims: &Claims, now_unix_s: u64) -> Result<String, MintError> {
        self.current().minter.refresh(claims, now_unix_s)
    }

    /// Signs with the key everybody knows, as long as that one is in use.
    pub fn mint_for_development(&self, claims: &Claims) -> Option<Result<String, MintError>> {
        let current = self.current();
        current.keys.is_development().then(|| current.minter.mint(claims))
    }

    /// Signs what is no access token: these claims and no others.
    pub fn sign(&self, claims: &Claims) -> Result<String, MintError> {
        self.current().minter.mint(claims)
    }

    pub fn is_development(&self) -> bool {
        self.current().keys.is_development()
    }

    fn follow(self: &Arc<Self>, settings: PublishedKeys, fetcher: Fetcher) -> Following {
        let issuer = Arc::new(Published {
            settings,
            schedule: Mutex::new(Schedule::new(Instant::now(), self.timing)),
            asked: Notify::new(),
            fetches: latest::Sender::new(0),
        });
        let task = tokio::spawn(issuer.clone().keep_fetched(Arc::downgrade(self), fetcher));
        Following { issuer, task }
    }

    /// Keys that came, or are too old to be believed, from somebody who may have been replaced meanwhile.
    fn set_published(&self, from: &Arc<Published>, fetched: Option<Vec<PublicKey>>) {
        let published = self.published();
        let name = &from.settings.issuer;
        if published.get(name).is_some_and(|one| Arc::ptr_eq(&one.issuer, from)) {
            let mut keys = self.current().keys.clone();
            keys.set_public_keys(name, fetched);
            self.set(keys);
        }
    }

    fn set(&self, keys: Keys) {
        let current = Arc::new(Current::new(keys, self.leeway, self.life_max));
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
    }

    fn current(&self) -> Arc<Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn published(&self) -> MutexGuard<'_, BTreeMap<String, Following>> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    fn new(keys: Keys, leeway: Duration, life_max: Duration) -> Self {
        let verifier = Verifier::new(&keys, leeway).with_life_max(life_max);
        Self { minter: Minter::new(&keys), verifier, keys }
    }
}

impl Published {
    /// Fetches when the schedule says so, for as long as the ring lives.
    async fn keep_fetched(self: Arc<Self>, ring: Weak<KeyRing>, fetcher: Fetcher) {
        loop {
            let wait = self.schedule().next_deadline().saturating_duration_since(Instant::now());
            let _ = timeout(wait, self.asked.notified()).await;
            let now = Instant::now();
            if self.schedule().expire(now) {
                let Some(ring) = ring.upgrade() else { return };
                ring.set_published(&self, None);
                IssuerKeysForgotten { issuer: &self.settings.issuer }.emit();
            }
            if !self.schedule().begin(now) {
                continue;
            }
            let outcome = fetcher.fetch().await;
            let Some(ring) = ring.upgrade() else { return };
            let now = Instant::now();
            match outcome {
                Ok(keys) => {
                    IssuerKeysFetched { issuer: &self.settings.issuer, keys: keys.len() }.emit();
                    ring.set_published(&self, Some(keys));
                    self.schedule().succeeded(now);
                }
                Err(why) => {
                    let again_in = self.schedule().failed(now);
                    IssuerKeysNotFetched { issuer: &self.settings.issuer, why: &why, again_in }.emit();
                }
            }
            self.fetches.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Whether it is worth looking again: a fetch has ended since, or was allowed and ended in time.
    async fn fetched_again(&self) -> bool {
        let mut fetches = self.fetches.subscribe();
        match self.schedule().ask(Instant::now()) {
            Asked::TooSoon => return false,
            Asked::InFlight => {}
            Asked::Fetch => self.asked.notify_one(),
        }
        timeout(WAIT_MAX, fetches.changed()).await.is_ok_and(|changed| changed.is_ok())
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The longest that a request waits for keys to be fetched.
pub const WAIT_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
