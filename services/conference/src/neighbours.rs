//! Which nodes there are, on which of this node's media routers somebody's media goes, and on whose it is found.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{PoisonError, RwLock},
    time::Instant,
};

use plenary_cluster::LEASE_LIFE;
use plenary_media_core::{Neighbour, RouterId};
use plenary_model::{NodeId, NodeInfo, ParticipantSid, RoomName, RouterInfo};

use crate::{ids, media_router::RouterIndex};

/// Written by the supervisor and the lease, read by every session that wants a track.
#[derive(Debug)]
pub struct Neighbours {
    own: NodeId,
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    routers: Vec<OwnRouter>,
    nodes: BTreeMap<NodeId, NodeInfo>,
    /// When each of them was last listed.
    listed: BTreeMap<NodeId, Instant>,
}

#[derive(Debug, Clone)]
pub struct OwnRouter {
    /// As other nodes know it.
    pub info: RouterInfo,
    /// Where the others of this node reach it, whatever lies between this machine and the addresses that clients are told.
    pub local: Vec<SocketAddr>,
}

/// Where somebody's tracks are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// On the router where they are wanted.
    Here,
    Elsewhere(RouterId),
    /// On a node, or one of its routers, that this one has not heard of yet.
    Unknown,
}

impl Neighbours {
    pub fn new(own: NodeId) -> Self {
        Self { own, known: RwLock::default() }
    }

    /// A router of this node was built, or built anew.
    pub fn set_own(&self, index: usize, router: OwnRouter) {
        let routers = &mut self.write().routers;
        match routers.get_mut(index) {
            Some(place) => *place = router,
            None => routers.push(router),
        }
    }

    pub fn own_routers(&self) -> Vec<RouterInfo> {
        self.read().routers.iter().map(|router| router.info.clone()).collect()
    }

    /// Who lives. True if that has changed. Whoever is not listed stays for a lease's life: a store that was wiped lists
    /// only who has said so since, and links to the others shall stand.
    pub fn replace(&self, now: Instant, nodes: Vec<NodeInfo>) -> bool {
        let Known { nodes: known, listed, .. } = &mut *self.write();
        let before = known.clone();
        for info in nodes.into_iter().filter(|info| info.node != self.own) {
            listed.insert(info.node.clone(), now);
            known.insert(info.node.clone(), info);
        }
        listed.retain(|_, at| now.saturating_duration_since(*at) < LEASE_LIFE);
        known.retain(|node, _| listed.contains_key(node));
        *known != before
    }

    /// The store was away, and who is not listed now may not have come to it yet.
    pub fn keep(&self, now: Instant) {
        self.write().listed.values_mut().for_each(|at| *at = now);
    }

    /// Where this publisher's tracks are, seen from a router of this node.
    pub fn host(&self, publisher: &ParticipantSid, here: RouterIndex) -> Host {
        let Some((node, router)) = ids::host_of(publisher) else { return Host::Here };
        if node == self.own && router == here {
            return Host::Here;
        }
        let (known, at) = (self.read(), usize::from(router));
        let info = if node == self.own {
            known.routers.get(at).map(|router| &router.info)
        } else {
            known.nodes.get(&node).and_then(|info| info.routers.get(at))
        };
        match (info.map(|info| info.boot), u16::try_from(at)) {
            (Some(boot), Ok(index)) => Host::Elsewhere(RouterId { node, boot, index }),
            _ => Host::Unknown,
        }
    }

    /// Where a node takes what concerns a room.
    pub fn router_of(&self, node: &NodeId, room: &RoomName) -> Option<RouterId> {
        let known = self.read();
        let routers = &known.nodes.get(node)?.routers;
        let at = slot(room, routers.len());
        Some(RouterId { node: node.clone(), boot: routers.get(at)?.boot, index: u16::try_from(at).ok()? })
    }

    /// The other nodes that live.
    pub fn others(&self) -> Vec<NodeInfo> {
        self.read().nodes.values().cloned().collect()
    }

    pub fn others_record(&self) -> bool {
        self.read().nodes.values().any(|node| node.records)
    }

    /// Every router but this one of our own.
    pub fn of_router(&self, own: usize) -> Vec<Neighbour> {
        let known = self.read();
        let mut all = Vec::new();
        let ours = known.routers.iter().map(|router| (router.info.boot, &router.local));
        for (index, (boot, addresses)) in (0u16..).zip(ours).filter(|(index, _)| usize::from(*index) != own) {
            let id = RouterId { node: self.own.clone(), boot, index };
            all.push(Neighbour { id, addresses: addresses.clone() });
        }
        for (node, info) in &known.nodes {
            for (index, router) in (0u16..).zip(&info.routers) {
                let id = RouterId { node: node.clone(), boot: router.boot, index };
                all.push(Neighbour { id, addresses: router.addresses.clone() });
            }
        }
        all
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which of so many threads a room belongs to: the same on every node (FNV-1a).
pub fn slot(room: &RoomName, slots: usize) -> usize {
    let hash = room
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    // The low bits of this hash alone are not spread well.
    let spread = (hash ^ (hash >> 32)) % u64::try_from(slots.max(1)).unwrap_or(1);
    usize::try_from(spread).unwrap_or_default()
}

/// On which of a node's routers the next of a room goes, from how many of the room each has: they fill up in turn from the
/// room's own, so that as few as can be take part. When all are full it is the one with the fewest. 0 is no limit.
pub fn place(room: &RoomName, people: &[u32], limit: u32) -> usize {
    let own = slot(room, people.len());
    let in_turn = || people.iter().enumerate().cycle().skip(own).take(people.len());
    let free = in_turn().find(|(_, count)| limit == 0 || **count < limit);
    free.or_else(|| in_turn().min_by_key(|(_, count)| **count)).map_or(own, |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use plenary_model::NodeState;

    use super::*;

    fn router(boot: u64) -> RouterInfo {
        RouterInfo { boot, addresses: vec!["192.0.2.1:7882".parse().unwrap()] }
    }

    fn own(boot: u64) -> OwnRouter {
        OwnRouter { info: router(boot), local: vec!["127.0.0.1:7882".parse().unwrap()] }
    }

    fn node(node: &NodeId, boots: &[u64]) -> NodeInfo {
        let routers = boots.iter().copied().map(router).collect();
        NodeInfo { node: node.clone(), version: String::new(), state: NodeState::Serving, routers, records: false }
    }

    fn index(number: u16) -> RouterIndex {
        RouterIndex::new(number).unwrap()
    }

    #[test]
    fn a_publisher_is_found_by_its_sid() {
        let (own_node, other, now) = (ids::node(), ids::node(), Instant::now());
        let neighbours = Neighbours::new(own_node.clone());
        let here = |sid: &ParticipantSid| neighbours.host(sid, index(1));
        let (ours, beside) = (ids::participant(&own_node, index(1)), ids::participant(&own_node, index(0)));
        let away = ids::participant(&other, index(2));
        assert_eq!((here(&ours), here(&beside), here(&away)), (Host::Here, Host::Unknown, Host::Unknown));
        neighbours.set_own(0, own(4));
        assert!(neighbours.replace(now, vec![node(&own_node, &[1]), node(&other, &[7, 8, 9])]));
        let elsewhere = |node: &NodeId, boot, index| Host::Elsewhere(RouterId { node: node.clone(), boot, index });
        assert_eq!(here(&beside), elsewhere(&own_node, 4, 0));
        assert_eq!(here(&away), elsewhere(&other, 9, 2));
        assert!(!neighbours.replace(now, vec![node(&other, &[7, 8, 9])]), "of itself it need not be told");
        assert!(neighbours.replace(now, vec![node(&other, &[7, 8])]));
        assert_eq!(here(&away), Host::Unknown);
    }

    #[test]
    fn a_node_that_is_not_listed_stays_for_as_long_as_a_lease() {
        let (own, other, third) = (ids::node(), ids::node(), ids::node());
        let neighbours = Neighbours::new(own);
        let begin = Instant::now();
        neighbours.replace(begin, vec![node(&other, &[1]), node(&third, &[2])]);
        assert!(!neighbours.replace(begin + LEASE_LIFE / 2, vec![node(&third, &[2])]), "it may have been forgotten");
        assert_eq!(neighbours.others().len(), 2);
        assert!(neighbours.replace(begin + LEASE_LIFE, vec![node(&third, &[2])]));
        assert_eq!(neighbours.others(), [node(&third, &[2])]);
        let back = begin + 20 * LEASE_LIFE;
        neighbours.keep(back);
        assert!(!neighbours.replace(back, vec![]), "nobody could say so while the store was away");
        assert!(neighbours.replace(back + LEASE_LIFE, vec![]));
    }

    #[test]
    fn a_router_is_told_of_all_others() {
        let (this, other) = (ids::node(), ids::node());
        let neighbours = Neighbours::new(this.clone());
        neighbours.set_own(0, own(1));
        neighbours.set_own(1, own(2));
        neighbours.set_own(1, own(3));
        neighbours.replace(Instant::now(), vec![node(&other, &[9])]);
        let told = neighbours.of_router(0).into_iter().map(|one| (one.id.node, one.id.boot, one.addresses));
        let expected = [(this, 3, own(3).local), (other, 9, router(9).addresses)];
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_room_fills_its_own_router_before_the_next() {
        let room = RoomName::try_from("standup").unwrap();
        let mut people = [0; 3];
        let own = slot(&room, 3);
        let mut next = || {
            let at = place(&room, &people, 2);
            people[at] += 1;
            (at + 3 - own) % 3
        };
        assert_eq!([(); 9].map(|()| next()), [0, 0, 1, 1, 2, 2, 0, 1, 2]);
        let mut left = [2; 3];
        left[own] = 1;
        assert_eq!(place(&room, &left, 2), own, "a place that is free again");
        left[own] = 900;
        assert_eq!(place(&room, &left, 0), own, "no limit");
    }

    #[test]
    fn a_room_has_the_same_thread_on_every_node_and_in_every_version() {
        let rooms = ["isolation-a", "isolation-b", "isolation-c", "standup"];
        let slots = rooms.map(|room| slot(&RoomName::try_from(room).unwrap(), 2));
        assert_eq!(slots, [1, 0, 1, 1]);
    }

    #[test]
    fn rooms_spread_over_threads() {
        for threads in [2, 3, 8] {
            let mut counts = vec![0; threads];
            for number in 0..1_000 {
                counts[slot(&RoomName::try_from(format!("room-{number}").as_str()).unwrap(), threads)] += 1;
            }
            assert!(counts.iter().all(|count| *count > 700 / threads), "{counts:?}");
        }
    }
}
