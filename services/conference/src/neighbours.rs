//! Which nodes there are, and where the media routers of a room are: this node's own and the others'.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use plenary_media_core::{Neighbour, RouterId};
use plenary_model::{NodeId, NodeInfo, ParticipantSid, RoomName, RouterInfo};

use crate::ids;

/// Written by the supervisor and the lease, read by every session that wants a track.
#[derive(Debug)]
pub struct Neighbours {
    own: NodeId,
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    routers: Vec<RouterInfo>,
    nodes: BTreeMap<NodeId, NodeInfo>,
}

/// Where somebody's tracks are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// On the router where they are wanted.
    Here,
    Elsewhere(RouterId),
    /// On a node that this one has not heard of yet.
    Unknown,
}

impl Neighbours {
    pub fn new(own: NodeId) -> Self {
        Self { own, known: RwLock::default() }
    }

    /// A router of this node was built, or built anew.
    pub fn set_own(&self, index: usize, router: RouterInfo) {
        let routers = &mut self.write().routers;
        match routers.get_mut(index) {
            Some(place) => *place = router,
            None => routers.push(router),
        }
    }

    pub fn own_routers(&self) -> Vec<RouterInfo> {
        self.read().routers.clone()
    }

    /// Who lives. True if that has changed.
    pub fn replace(&self, nodes: Vec<NodeInfo>) -> bool {
        let others = nodes.into_iter().filter(|info| info.node != self.own);
        let others: BTreeMap<_, _> = others.map(|info| (info.node.clone(), info)).collect();
        let known = &mut self.write().nodes;
        let changed = *known != others;
        *known = others;
        changed
    }

    /// Where this publisher's tracks are, seen from the room's router on this node.
    pub fn host(&self, publisher: &ParticipantSid, room: &RoomName) -> Host {
        let Some(node) = ids::host_of(publisher).filter(|node| *node != self.own) else { return Host::Here };
        let known = self.read();
        let routers = known.nodes.get(&node).map(|info| info.routers.as_slice()).unwrap_or_default();
        let at = slot(room, routers.len());
        match (routers.get(at), u16::try_from(at)) {
            (Some(router), Ok(index)) => Host::Elsewhere(RouterId { node, boot: router.boot, index }),
            _ => Host::Unknown,
        }
    }

    /// The other nodes that live.
    pub fn others(&self) -> Vec<NodeInfo> {
        self.read().nodes.values().cloned().collect()
    }

    /// Every router but this one of our own.
    pub fn of_router(&self, own: usize) -> Vec<Neighbour> {
        let known = self.read();
        let ours = [(&self.own, known.routers.as_slice())];
        let theirs = known.nodes.iter().map(|(node, info)| (node, info.routers.as_slice()));
        let mut all = Vec::new();
        for (node, routers) in ours.into_iter().chain(theirs) {
            for (index, router) in (0u16..).zip(routers) {
                if *node != self.own || usize::from(index) != own {
                    let id = RouterId { node: node.clone(), boot: router.boot, index };
                    all.push(Neighbour { id, addresses: router.addresses.clone() });
                }
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

#[cfg(test)]
mod tests {
    use plenary_model::NodeState;

    use super::*;

    fn router(boot: u64) -> RouterInfo {
        RouterInfo { boot, addresses: vec!["192.0.2.1:7882".parse().unwrap()] }
    }

    fn node(node: &NodeId, boots: &[u64]) -> NodeInfo {
        let routers = boots.iter().copied().map(router).collect();
        NodeInfo { node: node.clone(), version: String::new(), state: NodeState::Serving, routers }
    }

    #[test]
    fn a_publisher_is_found_by_its_sid() {
        let (own, other) = (ids::node(), ids::node());
        let neighbours = Neighbours::new(own.clone());
        let room = RoomName::try_from("r").unwrap();
        let away = ids::participant(&other);
        assert_eq!(neighbours.host(&ids::participant(&own), &room), Host::Here);
        assert_eq!(neighbours.host(&away, &room), Host::Unknown);
        assert!(neighbours.replace(vec![node(&own, &[1]), node(&other, &[7, 8, 9])]));
        let index = slot(&room, 3);
        let id = RouterId { node: other.clone(), boot: 7 + index as u64, index: index as u16 };
        assert_eq!(neighbours.host(&away, &room), Host::Elsewhere(id));
        assert!(!neighbours.replace(vec![node(&other, &[7, 8, 9])]), "of itself it need not be told");
        assert!(neighbours.replace(vec![node(&other, &[7, 8])]));
    }

    #[test]
    fn a_router_is_told_of_all_others() {
        let (own, other) = (ids::node(), ids::node());
        let neighbours = Neighbours::new(own.clone());
        neighbours.set_own(0, router(1));
        neighbours.set_own(1, router(2));
        neighbours.set_own(1, router(3));
        neighbours.replace(vec![node(&other, &[9])]);
        let told = |at| neighbours.of_router(at).into_iter().map(|one| (one.id.node, one.id.boot)).collect::<Vec<_>>();
        let mut expected = vec![(own, 3), (other, 9)];
        expected.sort_unstable_by_key(|(_, boot)| *boot);
        assert_eq!(told(0), expected);
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
