//! One transport with its role: a client's publisher or subscriber PeerConnection.

use std::time::Instant;

use plenary_model::{ParticipantSid, PeerId};
use rustc_hash::FxHashMap;

use super::{
    publisher::{Publisher, Route},
    subscriber::Subscriber,
};
use crate::{
    DropReason, Transmit,
    egress::{EgressQueue, Pacer},
    session_description::ReceiveSection,
    transport::Transport,
};

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) participant: ParticipantSid,
    pub(super) transport: Transport,
    pub(super) role: Role,
    /// Sealed media for this client.
    pub(super) egress: EgressQueue,
    pub(super) pacer: Pacer,
    /// It is offered no UDP candidates.
    pub(super) tcp_only: bool,
    /// It stands in the router's line of those who have media to send.
    pub(super) is_ready: bool,
}

#[derive(Debug)]
pub(super) enum Role {
    Publisher(Box<Publisher>),
    Subscriber(Box<Subscriber>),
}

impl Peer {
    /// Whether there is something to send now. What has no way is dropped.
    pub(super) fn can_send(&mut self) -> bool {
        if self.transport.remote().is_none() {
            self.egress = EgressQueue::default();
        }
        self.is_ready = self.egress.front(self.pacer.allowance()).is_some();
        self.is_ready
    }

    pub(super) fn front(&self) -> Option<Transmit<'_>> {
        let (run, path) = self.egress.front(self.pacer.allowance()).zip(self.transport.remote())?;
        Some(Transmit { path, bytes: run.bytes, segment_bytes: run.segment_bytes })
    }

    /// What [`front`](Self::front) showed has left.
    pub(super) fn pop_front(&mut self, now: Instant) {
        let Self { egress, pacer, role, .. } = self;
        let departed = |sequence| {
            if let Role::Subscriber(subscriber) = role {
                subscriber.departed(now, sequence);
            }
        };
        let bytes = egress.pop_front(pacer.allowance(), departed);
        pacer.spend(bytes);
    }

    /// If something waits for the pacer alone: until when.
    pub(super) fn hold(&mut self) -> Option<Instant> {
        if self.egress.is_empty() {
            return None;
        }
        self.pacer.hold()
    }

    pub(super) fn publisher_section(&self, route: Route) -> Option<&ReceiveSection> {
        match &self.role {
            Role::Publisher(publisher) => publisher.section(route),
            Role::Subscriber(_) => None,
        }
    }
}

/// The peers of a router: by id for commands, by slot on the packet path.
#[derive(Debug, Default)]
pub(super) struct Peers {
    /// Behind pointers, so that room for more costs next to nothing.
    slots: Vec<Option<Box<Peer>>>,
    free: Vec<usize>,
    by_id: FxHashMap<PeerId, usize>,
}

impl Peers {
    pub(super) fn insert(&mut self, peer: Peer) {
        let id = peer.id;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len().saturating_sub(1)
        });
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(Box::new(peer));
            self.by_id.insert(id, slot);
        }
    }

    pub(super) fn remove(&mut self, id: PeerId) -> Option<(usize, Box<Peer>)> {
        let slot = self.by_id.remove(&id)?;
        let peer = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        Some((slot, peer))
    }

    pub(super) fn slot(&self, id: PeerId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn get_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.at(self.slot(id)?)
    }

    pub(super) fn publisher(&mut self, id: PeerId) -> Result<&mut Publisher, DropReason> {
        match &mut self.get_mut(id).ok_or(DropReason::UnknownAddress)?.role {
            Role::Publisher(publisher) => Ok(publisher),
            Role::Subscriber(_) => Err(DropReason::UnknownStream),
        }
    }

    pub(super) fn get(&self, slot: usize) -> Option<&Peer> {
        self.slots.get(slot)?.as_deref()
    }

    pub(super) fn at(&mut self, slot: usize) -> Option<&mut Peer> {
        self.slots.get_mut(slot)?.as_deref_mut()
    }

    /// The slots in use.
    pub(super) fn slots(&self) -> impl Iterator<Item = usize> {
        self.by_id.values().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
}
