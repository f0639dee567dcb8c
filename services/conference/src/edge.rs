//! A client's signalling socket as its `Participant` sees it.
//!
//! The edge decodes, forwards and writes; it keeps no session state, so that it can be lost, replaced or swapped for
//! another implementation without the session noticing more than a lost socket.

pub mod ws;

use std::fmt::Debug;

use plenary_room_core::{session::SocketEnd, signal::ServerSignal};

/// What a participant may do with its client's socket.
pub trait Edge: Debug + Send {
    /// Queues one message without waiting.
    fn send(&self, message: ToEdge) -> Result<(), EdgeFull>;
    /// Cuts the socket from outside: the only way to be rid of a client that stopped reading.
    fn evict(&self);
}

/// To the client, in order.
#[derive(Debug, Clone)]
pub enum ToEdge {
    Signal(Box<ServerSignal>),
    RefreshToken(String),
    /// Write what is queued, then close.
    Close(SocketEnd),
}

/// The socket's queue is full or gone; the message comes back.
#[derive(Debug)]
pub struct EdgeFull(pub ToEdge);

/// Tells sockets of one participant apart, so that a late word of a replaced one is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EdgeId(pub u64);
