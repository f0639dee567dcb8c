//! Two links and the datagrams between them, in virtual time.

use std::collections::BTreeSet;

use super::*;

const KEY: &[u8] = b"the cluster's secret, of 32 bytes";

struct Side {
    link: Link,
    keys: ClusterKeys,
    counters: Counters,
    address: SocketAddr,
    changes: Vec<Change>,
    media: Vec<(u32, Vec<u8>)>,
    dropped: Vec<DropReason>,
    /// Numbers given out.
    fresh: u32,
}

struct Pair {
    now: Instant,
    sides: [Side; 2],
    /// Arrival, to whom, from where, what.
    underway: Vec<(Instant, usize, SocketAddr, Vec<u8>)>,
    /// Whether what this side sends gets lost, told by how many it sent.
    loses: [Box<dyn FnMut(u64) -> bool>; 2],
    sent: [u64; 2],
    history: Vec<(usize, Vec<u8>)>,
}

fn router(index: u16) -> RouterId {
    RouterId { node: "ND_x".into(), boot: 1, index }
}

impl Pair {
    fn new() -> Self {
        Self::with_keys([KEY, KEY])
    }

    fn with_keys(keys: [&[u8]; 2]) -> Self {
        let now = Instant::now() + Duration::from_secs(10_000);
        let address = |at: usize| SocketAddr::from(([192, 0, 2, at as u8], 7882));
        let side = |at: usize| {
            let mut link = Link::new(now, router(at as u16), router(1 - at as u16));
            link.set_addresses(vec![address(1 - at)]);
            Side {
                link,
                keys: ClusterKeys::new(&[keys[at].to_vec()]),
                counters: Counters::default(),
                address: address(at),
                changes: Vec::new(),
                media: Vec::new(),
                dropped: Vec::new(),
                fresh: 100 * (1 + at as u32),
            }
        };
        let loses: [Box<dyn FnMut(u64) -> bool>; 2] = [Box::new(|_| false), Box::new(|_| false)];
        Self { now, sides: [side(0), side(1)], underway: Vec::new(), loses, sent: [0; 2], history: Vec::new() }
    }

    fn connected() -> Self {
        let mut pair = Self::new();
        pair.open(0);
        pair.run(200);
        assert!(pair.is_up(), "{:?}", pair.sides[0].changes);
        pair
    }

    fn open(&mut self, at: usize) {
        let now = self.now;
        self.sides[at].link.open(now);
    }

    fn is_up(&self) -> bool {
        self.sides.iter().all(|side| side.link.is_up())
    }

    fn set_active(&mut self) {
        let now = self.now;
        self.sides.iter_mut().for_each(|side| side.link.set_active(now, true));
    }

    /// A packet of which the first bytes say which it is.
    fn send(&mut self, from: usize, number: u32, bytes: usize) {
        let mut packet = number.to_be_bytes().to_vec();
        packet.resize(bytes.max(4), 7);
        let side = &mut self.sides[from];
        side.link.send_media(self.now, Class::Video, 5, &packet, &side.counters).unwrap();
    }

    fn numbers(&self, at: usize) -> BTreeSet<u32> {
        let number = |(_, packet): &(u32, Vec<u8>)| u32::from_be_bytes(packet[..4].try_into().unwrap());
        self.sides[at].media.iter().map(number).collect()
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.step();
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(1);
        let now = self.now;
        let (arrived, underway) = std::mem::take(&mut self.underway).into_iter().partition(|one| one.0 <= now);
        self.underway = underway;
        let arrived: Vec<(Instant, usize, SocketAddr, Vec<u8>)> = arrived;
        for (_, to, from, datagram) in arrived {
            self.sides[to].receive(now, from, datagram);
        }
        for at in 0..2 {
            let side = &mut self.sides[at];
            if side.link.next_deadline().is_some_and(|due| due <= now) {
                side.fresh += 1;
                let fresh = Fresh { session: side.fresh, sequence: side.fresh.into() };
                let change = side.link.handle_timeout(now, &side.keys, fresh, &side.counters);
                side.changes.extend(change);
                let due = side.link.next_deadline();
                assert!(due.is_none_or(|due| due > now), "it wants to be woken at once again and again");
            }
            side.link.flush(now, &side.counters);
            let mut leaves: Vec<_> = side.link.handshakes.drain(..).collect();
            while let Some((remote, run)) = side.link.front() {
                let segment = run.segment_bytes.unwrap_or(run.bytes.len());
                leaves.extend(run.bytes.chunks(segment).map(|datagram| (remote, datagram.to_vec())));
                side.link.pop_front();
            }
            for (_, datagram) in leaves {
                self.sent[at] += 1;
                self.history.push((at, datagram.clone()));
                if !(self.loses[at])(self.sent[at]) {
                    let arrival = now + Duration::from_millis(10);
                    self.underway.push((arrival, 1 - at, self.sides[at].address, datagram));
                }
            }
        }
    }
}

impl Side {
    fn receive(&mut self, now: Instant, from: SocketAddr, mut datagram: Vec<u8>) {
        self.fresh += 1;
        let session = self.fresh;
        let taken = match datagram[0] {
            HELLO => self.keys.hello(&datagram).and_then(|hello| {
                if hello.from != self.link.peer {
                    return Err(DropReason::LinkUnknownRouter);
                }
                self.link.on_hello(now, from, &self.keys, (&hello, &datagram), session)
            }),
            ACCEPT => self
                .keys
                .accept(&datagram)
                .and_then(|accept| self.link.on_accept(now, from, &self.keys, (&accept, &datagram))),
            _ => self.sealed(now, from, &mut datagram),
        };
        self.dropped.extend(taken.err());
        self.changes.extend(self.link.poll_change(now));
    }

    fn sealed(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) -> Result<(), DropReason> {
        let session = session_of(datagram).ok_or(DropReason::LinkMalformed)?;
        let range = self.link.receive(now, from, session, datagram)?;
        for frame in frames(&datagram[range]) {
            let Frame { kind, content } = frame?;
            if kind != Ack::KIND {
                self.link.confirm_later(now);
            }
            match kind {
                MEDIA => self.media.extend(media(content).map(|(stream, packet)| (stream, packet.to_vec()))),
                Ack::KIND => self.link.on_ack(now, session, &Ack::decode(content).unwrap(), &self.counters),
                Ping::KIND => self.link.on_ping(now, &Ping::decode(content).unwrap()),
                Bye::KIND => self.changes.push(self.link.on_bye(LinkEnd::Bye)),
                _ => {}
            }
        }
        Ok(())
    }
}

use prost::Message;

#[test]
fn one_side_asks_and_both_are_up_within_a_round_trip_and_a_half() {
    let mut pair = Pair::new();
    pair.open(0);
    pair.run(32);
    assert!(pair.is_up());
    pair.run(3_000);
    assert_eq!(pair.sides.each_ref().map(|side| side.changes.clone()), [vec![Change::Up], vec![Change::Up]]);
    assert_eq!(pair.sides[0].link.rtt(), Duration::from_millis(20));
    assert!(pair.sides.iter().all(|side| side.dropped.is_empty()));
}

#[test]
fn both_may_ask_at_once() {
    for delay in [0, 3, 9, 11, 15, 21, 40] {
        let mut pair = Pair::new();
        pair.open(0);
        pair.run(delay);
        pair.open(1);
        pair.run(300);
        assert!(pair.is_up(), "{delay} ms apart");
        let [a, b] = pair.sides.each_ref().map(|side| side.link.current.as_ref().unwrap());
        assert_eq!((a.id, b.id), (b.peer_id(), a.peer_id()), "{delay} ms apart: one session");
        pair.send(0, 1, 100);
        pair.send(1, 2, 100);
        pair.run(30);
        assert_eq!((pair.numbers(1), pair.numbers(0)), ([1].into(), [2].into()));
    }
}

#[test]
fn a_lost_hello_or_answer_is_repeated() {
    for lost in 1..4 {
        let mut pair = Pair::new();
        pair.loses = [Box::new(move |sent| sent < lost), Box::new(move |sent| sent < lost)];
        pair.open(0);
        pair.run(4_000);
        assert!(pair.is_up(), "{lost}");
    }
}

#[test]
fn without_the_clusters_key_there_is_no_link() {
    let mut pair = Pair::with_keys([KEY, b"another secret of the same length"]);
    pair.open(0);
    pair.run(5_000);
    assert!(!pair.sides[0].link.is_up() && !pair.sides[1].link.is_up());
    assert_eq!(pair.sent[1], 0, "a stranger is not answered");
    assert!(pair.sides[1].dropped.iter().all(|reason| *reason == DropReason::LinkNotAuthentic));
}

#[test]
fn nothing_replayed_changes_anything() {
    let mut pair = Pair::connected();
    for number in 0..20 {
        pair.send(0, number, 1_000);
        pair.run(10);
    }
    pair.run(50);
    let (sessions, media) =
        (pair.sides.each_ref().map(|side| side.link.current.as_ref().unwrap().id), pair.sides[1].media.len());
    // What has not arrived yet would be no replay.
    while !pair.underway.is_empty() {
        pair.step();
    }
    let stranger: SocketAddr = "198.51.100.66:666".parse().unwrap();
    let sent = pair.sent;
    for (from, datagram) in pair.history.clone() {
        let now = pair.now;
        pair.sides[1 - from].receive(now, stranger, datagram.clone());
        pair.sides[from].receive(now, stranger, datagram);
    }
    assert_eq!(pair.sides.each_ref().map(|side| side.link.handshakes.len()), [0, 0], "no answer to a replay");
    pair.run(40);
    assert_eq!(pair.sides.each_ref().map(|side| side.link.current.as_ref().unwrap().id), sessions);
    assert_eq!(pair.sides[1].media.len(), media);
    assert!(pair.sent[0] - sent[0] < 10 && pair.sides.iter().all(|side| side.link.remote != Some(stranger)));
}

#[test]
fn authentic_datagrams_from_elsewhere_move_the_link() {
    let mut pair = Pair::connected();
    pair.sides[0].address = "192.0.2.77:9".parse().unwrap();
    pair.send(0, 1, 100);
    pair.run(20);
    assert_eq!(pair.sides[1].link.remote, Some(pair.sides[0].address));
}

#[test]
fn small_packets_share_a_datagram_and_large_ones_have_their_own() {
    let mut pair = Pair::connected();
    let before = pair.sent[0];
    (0..10).for_each(|number| pair.send(0, number, 100));
    pair.step();
    assert_eq!(pair.sent[0] - before, 1);
    (10..20).for_each(|number| pair.send(0, number, 1_200));
    pair.step();
    assert_eq!(pair.sent[0] - before, 11);
    pair.run(20);
    assert_eq!(pair.numbers(1).len(), 20);
    let side = &mut pair.sides[0];
    let too_long = side.link.send_media(pair.now, Class::Video, 1, &[0; 1_500], &side.counters);
    assert_eq!(too_long, Err(DropReason::MessageTooLarge));
}

/// A share of datagrams of both directions gets lost; every loss has the same chance.
fn residual_loss(share: f64, seed: u64) -> f64 {
    let mut pair = Pair::connected();
    let chance = |mut state: u64| -> Box<dyn FnMut(u64) -> bool> {
        Box::new(move |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) as f64) / f64::from(1u32 << 31) < share
        })
    };
    pair.loses = [chance(seed), chance(seed ^ 0xffff)];
    pair.set_active();
    let count = 5_000;
    for number in 0..count {
        pair.send(0, number, 1_000);
        pair.run(2);
    }
    pair.run(700);
    1.0 - pair.numbers(1).len() as f64 / f64::from(count)
}

#[test]
fn what_is_lost_is_repaired() {
    for (share, limit) in [(0.0, 0.0), (0.01, 0.001), (0.05, 0.005), (0.1, 0.02)] {
        let seed = 11;
        let residual = residual_loss(share, seed);
        assert!(residual <= limit, "seed {seed}: {residual} of {share}");
    }
}

#[test]
fn silence_makes_it_suspect_then_forgotten_and_it_comes_back() {
    let mut pair = Pair::connected();
    pair.set_active();
    pair.run(3_000);
    let lost = std::rc::Rc::new(std::cell::Cell::new(true));
    pair.loses = [0, 1].map(|_| -> Box<dyn FnMut(u64) -> bool> {
        let lost = std::rc::Rc::clone(&lost);
        Box::new(move |_| lost.get())
    });
    pair.sides.iter_mut().for_each(|side| side.changes.clear());
    pair.run(750);
    let down = vec![Change::Down(LinkEnd::Silent)];
    assert_eq!(pair.sides.each_ref().map(|side| side.changes.clone()), [down.clone(), down]);
    pair.run(2_500);
    assert!(pair.sides.iter().all(|side| side.changes.last() == Some(&Change::Forgotten(None))));
    assert!(pair.sides.iter().all(|side| side.link.current.is_none()));
    lost.set(false);
    pair.open(0);
    pair.run(1_100);
    assert!(pair.is_up());
}

#[test]
fn a_short_outage_needs_no_new_session() {
    let mut pair = Pair::connected();
    pair.set_active();
    pair.run(3_000);
    let session = pair.sides[0].link.current.as_ref().unwrap().id;
    let now_sent = pair.sent;
    let until = [now_sent[0] + 12, now_sent[1] + 12];
    pair.loses = [Box::new(move |sent| sent < until[0]), Box::new(move |sent| sent < until[1])];
    pair.run(900);
    assert!(pair.sides[0].changes.contains(&Change::Down(LinkEnd::Silent)));
    pair.run(1_000);
    assert!(pair.is_up());
    assert_eq!(pair.sides[0].link.current.as_ref().unwrap().id, session);
}

#[test]
fn one_way_counts_as_cut() {
    let mut pair = Pair::connected();
    pair.set_active();
    pair.run(3_000);
    pair.loses[0] = Box::new(|_| true);
    pair.run(900);
    assert_eq!(pair.sides[1].changes.last(), Some(&Change::Down(LinkEnd::Silent)));
    assert_eq!(pair.sides[0].changes.last(), Some(&Change::Down(LinkEnd::Unheard)), "who is not heard knows");
}

#[test]
fn keys_change_every_hour_and_nothing_is_lost_by_it() {
    let mut pair = Pair::connected();
    pair.run(500);
    let session = pair.sides[0].link.current.as_ref().unwrap().id;
    for _ in 0..3_599 {
        // Time passes quietly: a ping each second.
        pair.now += Duration::from_millis(980);
        pair.underway.iter_mut().for_each(|one| one.0 += Duration::from_millis(980));
        pair.run(20);
    }
    for number in 0..2_000 {
        pair.send(0, number, 500);
        pair.send(1, number, 500);
        pair.run(1);
    }
    pair.run(100);
    assert_ne!(pair.sides[0].link.current.as_ref().unwrap().id, session);
    assert_eq!(pair.sides.each_ref().map(|side| side.changes.len()), [1, 1], "it was up all the time");
    assert_eq!((pair.numbers(0).len(), pair.numbers(1).len()), (2_000, 2_000));
    pair.run(5_000);
    assert!(pair.sides.iter().all(|side| side.link.previous.is_none()), "old keys are forgotten");
}

#[test]
fn a_goodbye_ends_it_at_once() {
    let mut pair = Pair::connected();
    let now = pair.now;
    let side = &mut pair.sides[0];
    side.link.send_control(now, &Bye {}, &side.counters);
    pair.run(15);
    assert_eq!(pair.sides[1].changes.last(), Some(&Change::Forgotten(Some(LinkEnd::Bye))));
}

#[test]
fn who_did_not_hear_that_it_is_closed_hears_it_again() {
    for is_lost in [false, true] {
        let mut pair = Pair::connected();
        pair.run(1_500);
        let lost = pair.sent[0] + u64::from(is_lost);
        pair.loses[0] = Box::new(move |sent| sent == lost);
        let now = pair.now;
        let change = pair.sides[0].link.close(now);
        assert_eq!(change, Change::Forgotten(Some(LinkEnd::Idle)));
        // The other side's next ping is answered.
        pair.run(if is_lost { 1_100 } else { 15 });
        assert_eq!(pair.sides[1].changes.last(), Some(&Change::Forgotten(Some(LinkEnd::Bye))), "lost: {is_lost}");
        let sent = pair.sent;
        pair.run(5_000);
        assert_eq!(pair.sent, sent, "then both are silent");
        assert!(pair.sides[0].link.previous.is_none());
        pair.open(1);
        pair.run(32);
        assert!(pair.is_up());
    }
}

#[test]
fn both_may_close_at_once() {
    let mut pair = Pair::connected();
    let (now, sent) = (pair.now, pair.sent);
    pair.sides.iter_mut().for_each(|side| assert_eq!(side.link.close(now), Change::Forgotten(Some(LinkEnd::Idle))));
    pair.run(1_000);
    assert_eq!(pair.sent, sent.map(|sent| sent + 1), "a goodbye is not answered");
}

#[test]
fn a_stalled_socket_bounds_what_waits() {
    let mut pair = Pair::connected();
    for number in 0..10_000 {
        pair.send(0, number, 1_200);
    }
    let full = pair.sides[0].counters.dropped(DropReason::QueueFull);
    assert!(full > 9_000, "{full} of 12 MB were refused, not kept");
}
