//! Whole calls in virtual time, for tests: one [`Router`](plenary_media_core::Router), clients that are PeerConnections of
//! another implementation, and a seeded network between them.
//!
//! Nothing here is shipped. Media is made of numbered bytes instead of pictures, so that a test can say what should have
//! arrived. The other implementation draws its own randomness (keys, credentials); everything else follows the seed.

mod client;
mod cluster;
pub mod light;
mod network;
mod random;
pub mod stage;
mod world;

pub use client::{
    AUDIO_FRAME_INTERVAL, Client, ClientOptions, FrameShape, Inbox, Received, ReceivedStream, SentStream, Source,
    SvcPayload, VIDEO_FRAME_INTERVAL, VideoPayload, vp8,
};
pub use cluster::Cluster;
pub use network::{Bursts, Conditions, Datagram, Direction, LINE_QUEUE_MAX, Network, Wait};
pub use random::{Random, seed};
pub use world::{ClientId, Publication, ROUTER_ADDRESS, World};
