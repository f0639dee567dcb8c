//! Is it there, is it alive, does it take people: `/`, `/healthz`, `/readyz`.
//!
//! Liveness asks nobody outside this process: a store that is down must not have nodes restarted.

use std::{
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web::Data,
};

use super::plain;

/// What only the node knows about itself.
pub trait Health: Send + Sync {
    /// Why nobody can be taken now, if so.
    fn unready(&self) -> Option<Unready>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unready {
    Starting,
    /// Its people are leaving: balancers shall send nobody new and keep the sockets there are.
    Leaving,
}

/// A loop that shows it still turns. Whoever holds it beats at least once a second; it is forgotten when dropped.
#[derive(Debug)]
pub struct Heartbeat(Arc<Pulse>);

#[derive(Debug)]
struct Pulse {
    name: &'static str,
    /// Milliseconds since the first heartbeat of this process.
    last_ms: AtomicU64,
}

impl Heartbeat {
    /// `name` is what `/healthz` says when it stops.
    pub fn start(name: &'static str, now: Instant) -> Self {
        let pulse = Arc::new(Pulse { name, last_ms: AtomicU64::new(since_start_ms(now)) });
        pulses().push(pulse.clone());
        Self(pulse)
    }

    pub fn beat(&self, now: Instant) {
        self.0.last_ms.store(since_start_ms(now), Ordering::Relaxed);
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        pulses().retain(|pulse| !Arc::ptr_eq(pulse, &self.0));
    }
}

/// The loop that has not turned for [`STALLED_AFTER`], if any.
fn stalled(now: Instant) -> Option<&'static str> {
    let silent_ms = |pulse: &Pulse| since_start_ms(now).saturating_sub(pulse.last_ms.load(Ordering::Relaxed));
    let limit_ms = u64::try_from(STALLED_AFTER.as_millis()).unwrap_or(u64::MAX);
    pulses().iter().find(|pulse| silent_ms(pulse) > limit_ms).map(|pulse| pulse.name)
}

/// LiveKit's SDKs warm up a connection here and ask whether the server is reachable; people come with a browser.
pub async fn root_endpoint(request: HttpRequest) -> HttpResponse {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accept.is_some_and(|types| types.contains("text/html")) {
        return HttpResponse::TemporaryRedirect().insert_header((header::LOCATION, "/meet")).finish();
    }
    plain(StatusCode::OK, "OK")
}

pub async fn alive_endpoint() -> HttpResponse {
    match stalled(Instant::now()) {
        None => plain(StatusCode::OK, "alive"),
        Some(name) => plain(StatusCode::SERVICE_UNAVAILABLE, name),
    }
}

pub async fn ready_endpoint(health: Data<dyn Health>) -> HttpResponse {
    match health.unready() {
        None => plain(StatusCode::OK, "ready"),
        Some(Unready::Starting) => plain(StatusCode::SERVICE_UNAVAILABLE, "starting"),
        // HAProxy's disable-on-404 takes a server out of rotation without cutting its connections.
        Some(Unready::Leaving) => plain(StatusCode::NOT_FOUND, "leaving"),
    }
}

const STALLED_AFTER: Duration = Duration::from_secs(5);

/// Touched when loops start and end, and by probes.
fn pulses() -> MutexGuard<'static, Vec<Arc<Pulse>>> {
    static PULSES: Mutex<Vec<Arc<Pulse>>> = Mutex::new(Vec::new());
    PULSES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn since_start_ms(now: Instant) -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(now.saturating_duration_since(*START).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_stops_turning_is_named_until_it_is_gone() {
        let start = Instant::now();
        let heartbeat = Heartbeat::start("test loop", start);
        assert_eq!(stalled(start + STALLED_AFTER), None);
        let later = start + STALLED_AFTER + Duration::from_millis(10);
        assert_eq!(stalled(later), Some("test loop"));
        heartbeat.beat(later);
        assert_eq!(stalled(later), None);
        drop(heartbeat);
        assert_eq!(stalled(later + STALLED_AFTER * 2), None);
    }
}
