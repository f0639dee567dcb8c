//! The life of a node.

use std::{net::SocketAddr, time::Duration};

use plenary_model::NodeId;
use tracing::{info, warn};

/// The configuration was read and is sound.
#[derive(Debug)]
pub struct ConfigLoaded<'a> {
    pub source: &'a str,
}

impl ConfigLoaded<'_> {
    pub fn emit(self) {
        info!(source = self.source, "configuration loaded");
    }
}

/// No keys are configured; the one everybody knows is good here.
#[derive(Debug)]
pub struct DevKeysInUse {
    pub http: SocketAddr,
}

impl DevKeysInUse {
    pub fn emit(self) {
        warn!(
            http = %self.http,
            "DEVELOPMENT KEYS IN USE: anybody on this machine can join every room with key `devkey` and secret `secret`"
        );
    }
}

/// All doors are open.
#[derive(Debug)]
pub struct NodeStarted {
    pub node: NodeId,
    pub http: SocketAddr,
}

impl NodeStarted {
    pub fn emit(self) {
        info!(node = %self.node, http = %self.http, version = env!("CARGO_PKG_VERSION"), "node started");
    }
}

/// Where people try it with a browser.
#[derive(Debug)]
pub struct MeetPageOpened {
    pub http: SocketAddr,
    pub tls: bool,
}

impl MeetPageOpened {
    pub fn emit(self) {
        let scheme = if self.tls { "https" } else { "http" };
        info!(url = format!("{scheme}://{}/meet", self.http), "meet page");
    }
}

/// The scrape page is open.
#[derive(Debug)]
pub struct ScrapePageOpened {
    pub address: SocketAddr,
}

impl ScrapePageOpened {
    pub fn emit(self) {
        info!(address = %self.address, "metrics at /metrics");
    }
}

/// Bans can be asked for.
#[derive(Debug)]
pub struct AdminOpened {
    pub address: SocketAddr,
}

impl AdminOpened {
    pub fn emit(self) {
        info!(address = %self.address, "admin endpoint");
    }
}

/// The node's people shall go to the other nodes.
#[derive(Debug)]
pub struct NodeDraining {
    pub deadline: Duration,
}

impl NodeDraining {
    pub fn emit(self) {
        info!(deadline_s = self.deadline.as_secs_f64(), "node draining");
    }
}

/// Everybody has gone, or had to.
#[derive(Debug)]
pub struct NodeDrained {
    /// Sessions that the deadline ended.
    pub left: usize,
    pub after: Duration,
}

impl NodeDrained {
    pub fn emit(self) {
        info!(left = self.left, after_s = self.after.as_secs_f64(), "node drained");
    }
}

/// Somebody with the right to do it had the node drained, or serve again.
#[derive(Debug)]
pub struct DrainAsked<'a> {
    pub what: &'static str,
    /// The key of the token.
    pub by: &'a str,
}

impl DrainAsked<'_> {
    pub fn emit(self) {
        info!(what = self.what, by = self.by, "drain asked");
    }
}

/// The node takes nobody any more and tells its people to go.
#[derive(Debug)]
pub struct NodeStopping;

impl NodeStopping {
    pub fn emit(self) {
        info!("node stopping");
    }
}

/// Everything has ended; the process follows.
#[derive(Debug)]
pub struct NodeStopped {
    pub after: Duration,
}

impl NodeStopped {
    pub fn emit(self) {
        info!(after_s = self.after.as_secs_f64(), "node stopped");
    }
}
