//! Nodes as the others of their cluster see them.

use std::net::SocketAddr;

use crate::NodeId;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    pub node: NodeId,
    /// Plenary's version, for people to read.
    pub version: String,
    pub state: NodeState,
    /// By index.
    pub routers: Vec<RouterInfo>,
    /// Whether it makes recordings.
    pub records: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum NodeState {
    #[default]
    Serving,
    /// Its people are leaving.
    Draining,
    /// It takes nobody new.
    Full,
}

/// One media router of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterInfo {
    /// Another one for each time the router was built.
    pub boot: u64,
    /// Where other routers reach it, by UDP.
    pub addresses: Vec<SocketAddr>,
}
