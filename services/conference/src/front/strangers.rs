//! Limits on connections that have not proven who they are.
//!
//! What keeps a stranger out must not keep out an office behind one address, a balancer or a load test: a connection
//! stops counting the moment a valid token came over it, and loopback and the configured proxies never count.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use actix_web::{
    Error, HttpRequest, ResponseError,
    body::{BoxBody, EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
};

use super::authorize::Refusal;
use crate::config::Limits;

/// Who is at the door without a name, by address.
#[derive(Debug)]
pub struct Strangers {
    open_max: u32,
    per_second: f64,
    exempt: Vec<IpAddr>,
    /// Held for a few instructions, by HTTP threads alone.
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    addresses: HashMap<IpAddr, Address>,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Address {
    open: u32,
    tokens: f64,
    filled: Instant,
}

impl Strangers {
    pub fn new(limits: &Limits, proxies: &[IpAddr]) -> Self {
        Self {
            open_max: limits.strangers_open_per_ip,
            per_second: f64::from(limits.strangers_per_second_per_ip),
            exempt: proxies.iter().map(IpAddr::to_canonical).collect(),
            table: Mutex::default(),
        }
    }

    /// A new connection. Keep the visitor with it: what is open is counted by what is kept.
    pub fn connected(self: &Arc<Self>, peer: IpAddr, now: Instant) -> Visitor {
        let peer = peer.to_canonical();
        let counted = !peer.is_loopback() && !self.exempt.contains(&peer);
        let welcome = !counted || self.enter(block(peer), now);
        let strangers = (counted && welcome).then(|| self.clone());
        Visitor { address: block(peer), strangers, welcome, known: AtomicBool::new(!counted) }
    }

    fn enter(&self, address: IpAddr, now: Instant) -> bool {
        let mut table = self.lock();
        if table.addresses.len() >= ADDRESSES_MAX && !table.addresses.contains_key(&address) {
            table.sweep(self.per_second, now);
            if table.addresses.len() >= ADDRESSES_MAX {
                // So many addresses at once are one attacker; whoever is known already is not kept out.
                return false;
            }
        }
        let new = || Address { open: 0, tokens: self.per_second, filled: now };
        let entry = table.addresses.entry(address).or_insert_with(new);
        entry.refill(self.per_second, now);
        if entry.open >= self.open_max || entry.tokens < 1.0 {
            return false;
        }
        entry.open += 1;
        entry.tokens -= 1.0;
        true
    }

    /// One more request over a connection that has proven nothing.
    fn asks(&self, address: IpAddr, now: Instant) -> bool {
        let mut table = self.lock();
        let Some(entry) = table.addresses.get_mut(&address) else { return true };
        entry.refill(self.per_second, now);
        let allowed = entry.tokens >= 1.0;
        if allowed {
            entry.tokens -= 1.0;
        }
        allowed
    }

    fn leave(&self, address: IpAddr, proven: bool) {
        if let Some(entry) = self.lock().addresses.get_mut(&address) {
            entry.open = entry.open.saturating_sub(1);
            if proven {
                entry.tokens = (entry.tokens + 1.0).min(self.per_second);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Forgets whoever is gone and has its full allowance again. A full walk, so once a second at most.
    fn sweep(&mut self, per_second: f64, now: Instant) {
        if self.swept.is_some_and(|last| now.saturating_duration_since(last) < SWEEP_INTERVAL) {
            return;
        }
        self.swept = Some(now);
        self.addresses.retain(|_, entry| {
            entry.refill(per_second, now);
            entry.open > 0 || entry.tokens < per_second
        });
    }
}

impl Address {
    fn refill(&mut self, per_second: f64, now: Instant) {
        let passed_s = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed_s * per_second).min(per_second);
        self.filled = now;
    }
}

/// One connection, as long as it lives.
#[derive(Debug)]
pub struct Visitor {
    address: IpAddr,
    strangers: Option<Arc<Strangers>>,
    welcome: bool,
    known: AtomicBool,
}

impl Visitor {
    /// A valid token came over this connection.
    pub fn is_known(&self) {
        if !self.known.swap(true, Ordering::Relaxed)
            && let Some(strangers) = &self.strangers
        {
            strangers.leave(self.address, true);
        }
    }

    fn may_ask(&self, now: Instant) -> bool {
        let known = self.known.load(Ordering::Relaxed);
        self.welcome && (known || self.strangers.as_ref().is_none_or(|strangers| strangers.asks(self.address, now)))
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        if !self.known.load(Ordering::Relaxed)
            && let Some(strangers) = &self.strangers
        {
            strangers.leave(self.address, false);
        }
    }
}

/// Remembers that whoever sent this request has a valid token.
pub fn is_known(request: &HttpRequest) {
    if let Some(visitor) = request.conn_data::<Visitor>() {
        visitor.is_known();
    }
}

/// Turns away strangers that come too often.
pub async fn limit<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B, BoxBody>>, Error> {
    if request.conn_data::<Visitor>().is_none_or(|visitor| visitor.may_ask(Instant::now())) {
        return Ok(next.call(request).await?.map_into_left_body());
    }
    Ok(request.into_response(Refusal::TooManyStrangers.error_response()).map_into_right_body())
}

/// IPv6 hands out whole /64s, so that is what one stranger has.
fn block(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// About 6 MB of table.
const ADDRESSES_MAX: usize = 65_536;

const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn strangers(open: u32, per_second: u32) -> Arc<Strangers> {
        let limits =
            Limits { strangers_open_per_ip: open, strangers_per_second_per_ip: per_second, ..Limits::default() };
        Arc::new(Strangers::new(&limits, &["192.0.2.1".parse().unwrap()]))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn open_connections_are_limited_per_address_until_they_close() {
        let (strangers, now) = (strangers(2, 50), Instant::now());
        let first = strangers.connected(ip("203.0.113.1"), now);
        let second = strangers.connected(ip("203.0.113.1"), now);
        assert!(first.may_ask(now) && second.may_ask(now));
        assert!(!strangers.connected(ip("203.0.113.1"), now).may_ask(now), "one too many");
        assert!(strangers.connected(ip("203.0.113.2"), now).may_ask(now), "another address");
        drop(second);
        assert!(strangers.connected(ip("203.0.113.1"), now).may_ask(now), "room again");
    }

    #[test]
    fn whoever_proves_itself_counts_no_more() {
        let (strangers, now) = (strangers(2, 3), Instant::now());
        let office: Vec<_> = (0..100)
            .map(|_| {
                let visitor = strangers.connected(ip("203.0.113.1"), now);
                assert!(visitor.welcome);
                visitor.is_known();
                visitor.is_known();
                visitor
            })
            .collect();
        assert!(office.iter().all(|visitor| (0..10).all(|_| visitor.may_ask(now))));
        drop(office);
        assert_eq!(strangers.lock().addresses[&ip("203.0.113.1")].open, 0);
    }

    #[test]
    fn a_stranger_comes_back_at_the_rate_and_no_faster() {
        let (strangers, start) = (strangers(1000, 50), Instant::now());
        let admitted = |now| (0..200).filter(|_| strangers.connected(ip("203.0.113.1"), now).welcome).count();
        assert_eq!(admitted(start), 50);
        assert_eq!(admitted(start + Duration::from_millis(500)), 25);
        let visitor = strangers.connected(ip("203.0.113.1"), start + Duration::from_secs(2));
        let asked = (0..200).filter(|_| visitor.may_ask(start + Duration::from_secs(2))).count();
        assert_eq!(asked, 49, "guessing tokens over one connection is no way around");
    }

    #[test]
    fn loopback_and_proxies_are_exempt_and_v6_counts_by_block() {
        let (strangers, now) = (strangers(1, 1), Instant::now());
        for exempt in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "192.0.2.1", "::ffff:192.0.2.1"] {
            let visitors: Vec<_> = (0..5).map(|_| strangers.connected(ip(exempt), now)).collect();
            assert!(visitors.iter().all(|visitor| visitor.may_ask(now)), "{exempt}");
        }
        let _first = strangers.connected(ip("2001:db8:1:2::1"), now);
        assert!(!strangers.connected(ip("2001:db8:1:2:ffff::2"), now).welcome);
        assert!(strangers.connected(ip("2001:db8:1:3::1"), now).welcome);
    }

    #[test]
    fn the_table_does_not_grow_without_bound() {
        let (strangers, now) = (strangers(1, 1), Instant::now());
        let strange = |number: u32| IpAddr::from(number.wrapping_add(0x0500_0000).to_be_bytes());
        for number in 0..70_000 {
            let _ = strangers.connected(strange(number), now);
        }
        assert_eq!(strangers.lock().addresses.len(), ADDRESSES_MAX);
        assert!(strangers.connected(ip("203.0.113.9"), now + Duration::from_secs(5)).welcome, "idle ones make room");
    }
}
