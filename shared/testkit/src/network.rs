//! A network with loss, delay, jitter, reordering and a rate, in virtual time and by a seed.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, HashMap},
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::Random;

/// What happens to datagrams of one direction of one client.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditions {
    /// Share of datagrams that vanish, each by itself.
    pub loss: f64,
    /// Datagrams that vanish in a row.
    pub bursts: Option<Bursts>,
    pub delay: Duration,
    /// At most this is added to the delay, evenly spread.
    pub jitter: Duration,
    /// Jitter holds back what comes behind too, as one queue does; otherwise datagrams overtake each other by it.
    pub keeps_order: bool,
    /// Share of datagrams that are held back by twice the delay.
    pub reorder: f64,
    /// Share of datagrams that arrive twice.
    pub duplicate: f64,
    /// A bottleneck: what is sent faster waits, and what would wait for longer than [`LINE_QUEUE_MAX`] vanishes.
    pub bits_per_second: Option<u64>,
}

/// Loss with a memory (Gilbert's model): nothing, then everything for a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bursts {
    /// Chance of a datagram to be the first of a burst.
    pub begin: f64,
    /// How many vanish on average.
    pub datagrams: f64,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            loss: 0.0,
            bursts: None,
            delay: Duration::from_millis(10),
            jitter: Duration::ZERO,
            keeps_order: false,
            reorder: 0.0,
            duplicate: 0.0,
            bits_per_second: None,
        }
    }
}

impl Conditions {
    pub fn lossy(loss: f64) -> Self {
        Self { loss, ..Self::default() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From a client.
    Up,
    /// To a client.
    Down,
}

/// On its way. `client` is the client's address as the router sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    pub direction: Direction,
    pub client: SocketAddr,
    pub bytes: Vec<u8>,
}

/// See the module.
pub struct Network {
    seed: u64,
    random: Random,
    /// How often conditions were set.
    sets: u64,
    underway: BinaryHeap<Underway>,
    sent: u64,
    everywhere: Conditions,
    conditions: HashMap<(SocketAddr, Direction), Conditions>,
    lines: HashMap<(SocketAddr, Direction), Line>,
    filter: Option<Box<Filter>>,
}

/// What one direction of one client remembers.
#[derive(Debug, Default)]
struct Line {
    /// Bits that waited for the bottleneck at this time.
    backlog: Option<(Instant, f64)>,
    /// Nothing arrives before this if order is kept.
    last_arrival: Option<Instant>,
    in_burst: bool,
    waits: Vec<Wait>,
    /// From the time when it got conditions of its own: what chance does to others before does not change its fate.
    random: Option<Random>,
}

/// How long a datagram waited for the bottleneck; `None` if it found the queue full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    pub at: Instant,
    pub bytes: usize,
    pub waited: Option<Duration>,
}

impl Line {
    /// Whether this datagram belongs to a burst of losses.
    fn loses(&mut self, bursts: Bursts, random: &mut Random) -> bool {
        let change = if self.in_burst { 1.0 / bursts.datagrams.max(1.0) } else { bursts.begin };
        self.in_burst ^= random.chance(change);
        self.in_burst
    }

    /// When a datagram has passed the bottleneck, unless its queue is full.
    fn pass(&mut self, now: Instant, bytes: usize, rate: f64) -> Option<Instant> {
        let (at, before) = self.backlog.unwrap_or((now, 0.0));
        let left = (before - now.saturating_duration_since(at).as_secs_f64() * rate).max(0.0);
        let bits = left + bytes as f64 * 8.0;
        let waited = Duration::from_secs_f64(bits / rate);
        let fits = waited <= LINE_QUEUE_MAX;
        self.backlog = Some((now, if fits { bits } else { left }));
        self.waits.push(Wait { at: now, bytes, waited: fits.then_some(waited) });
        fits.then(|| now + waited)
    }
}

/// Whether a datagram goes on its way.
type Filter = dyn FnMut(&Datagram) -> bool;

struct Underway {
    at: Instant,
    order: u64,
    datagram: Datagram,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("underway", &self.underway.len()).finish_non_exhaustive()
    }
}

impl Network {
    pub fn seeded(seed: u64) -> Self {
        Self {
            seed,
            random: Random::seeded(seed),
            sets: 0,
            underway: BinaryHeap::new(),
            sent: 0,
            everywhere: Conditions::default(),
            conditions: HashMap::new(),
            lines: HashMap::new(),
            filter: None,
        }
    }

    /// For every direction without conditions of its own.
    pub fn set_everywhere(&mut self, conditions: Conditions) {
        self.everywhere = conditions;
    }

    pub fn set(&mut self, client: SocketAddr, direction: Direction, conditions: Conditions) {
        self.conditions.insert((client, direction), conditions);
        self.sets += 1;
        let random = Random::seeded(self.seed.wrapping_add(self.sets << 32));
        self.lines.entry((client, direction)).or_default().random = Some(random);
    }

    /// Decides over each datagram before chance does.
    pub fn set_filter(&mut self, filter: impl FnMut(&Datagram) -> bool + 'static) {
        self.filter = Some(Box::new(filter));
    }

    pub fn clear_filter(&mut self) {
        self.filter = None;
    }

    pub fn send(&mut self, now: Instant, datagram: Datagram) {
        if self.filter.as_mut().is_some_and(|filter| !filter(&datagram)) {
            return;
        }
        let key = (datagram.client, datagram.direction);
        let conditions = self.conditions.get(&key).copied().unwrap_or(self.everywhere);
        let line = self.lines.entry(key).or_default();
        // Out for as long as the line itself is asked.
        let mut own = line.random.take();
        let random = own.as_mut().unwrap_or(&mut self.random);
        let mut copies = if random.chance(conditions.loss) { 0 } else { 1 };
        if copies > 0 && conditions.bursts.is_some_and(|bursts| line.loses(bursts, random)) {
            copies = 0;
        }
        if copies > 0 && random.chance(conditions.duplicate) {
            copies = 2;
        }
        for _ in 0..copies {
            let mut at = now;
            if let Some(rate) = conditions.bits_per_second {
                let Some(passed) = line.pass(now, datagram.bytes.len(), rate.max(1) as f64) else { break };
                at = passed;
            }
            at += conditions.delay + conditions.jitter.mul_f64(random.fraction());
            if conditions.keeps_order {
                at = line.last_arrival.map_or(at, |last| at.max(last));
                line.last_arrival = Some(at);
            }
            if random.chance(conditions.reorder) {
                at += conditions.delay * 2;
            }
            self.sent += 1;
            self.underway.push(Underway { at, order: self.sent, datagram: datagram.clone() });
        }
        line.random = own;
    }

    /// What went to the bottleneck of this direction.
    pub fn waits(&self, client: SocketAddr, direction: Direction) -> &[Wait] {
        self.lines.get(&(client, direction)).map_or(&[], |line| &line.waits)
    }

    pub fn next_arrival(&self) -> Option<Instant> {
        self.underway.peek().map(|next| next.at)
    }

    /// The next datagram that has arrived by now.
    pub fn receive(&mut self, now: Instant) -> Option<Datagram> {
        self.next_arrival().filter(|at| *at <= now)?;
        self.underway.pop().map(|next| next.datagram)
    }
}

impl Ord for Underway {
    /// The earliest is the greatest, since the heap gives out its greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Underway {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Underway {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Underway {}

/// How much a limited line lets wait.
pub const LINE_QUEUE_MAX: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(mark: u8) -> Datagram {
        Datagram { direction: Direction::Up, client: ([10, 0, 0, 1], 5000).into(), bytes: vec![mark; 1_000] }
    }

    fn arrivals(seed: u64, conditions: Conditions) -> Vec<(Duration, u8)> {
        let (mut network, start) = (Network::seeded(seed), Instant::now());
        network.set_everywhere(conditions);
        for mark in 0..200 {
            network.send(start + Duration::from_millis(u64::from(mark)), datagram(mark));
        }
        let mut arrived = Vec::new();
        while let Some(at) = network.next_arrival() {
            arrived.push((at - start, network.receive(at).unwrap().bytes[0]));
        }
        arrived
    }

    #[test]
    fn the_same_seed_gives_the_same_arrivals() {
        let conditions = Conditions {
            loss: 0.1,
            jitter: Duration::from_millis(5),
            reorder: 0.1,
            duplicate: 0.1,
            ..Conditions::default()
        };
        let arrived = arrivals(7, conditions);
        assert_eq!(arrived, arrivals(7, conditions));
        assert_ne!(arrived, arrivals(8, conditions));
        assert!(arrived.is_sorted_by_key(|(at, _)| *at));
        assert!(!arrived.is_sorted_by_key(|(_, mark)| *mark), "some overtook others");
    }

    #[test]
    fn order_is_kept_where_a_queue_jitters() {
        let jitter = Duration::from_millis(300);
        let arrived = arrivals(3, Conditions { jitter, keeps_order: true, ..Conditions::default() });
        assert!(arrived.is_sorted_by_key(|(_, mark)| *mark));
        assert!(arrived.iter().any(|(at, mark)| *at > Duration::from_millis(u64::from(*mark) + 250)));
    }

    #[test]
    fn bursts_lose_datagrams_in_a_row() {
        let bursts = Some(Bursts { begin: 0.02, datagrams: 10.0 });
        let arrived = arrivals(2, Conditions { bursts, ..Conditions::default() });
        let gaps: Vec<_> = arrived.windows(2).map(|pair| pair[1].1 - pair[0].1 - 1).filter(|gap| *gap > 0).collect();
        let lost: u32 = gaps.iter().map(|gap| u32::from(*gap)).sum();
        assert!(lost > 10 && lost >= 4 * gaps.len() as u32, "{gaps:?}");
    }

    #[test]
    fn a_rate_spaces_datagrams_and_a_full_line_drops() {
        let arrived = arrivals(1, Conditions { bits_per_second: Some(800_000), ..Conditions::default() });
        assert_eq!(arrived[0].0, Duration::from_millis(20));
        assert!(arrived.windows(2).all(|pair| pair[1].0 - pair[0].0 >= Duration::from_millis(10)));
        assert!(arrived.len() < 60, "800 kb/s for 200 ms and a queue of 300 ms");
    }
}
