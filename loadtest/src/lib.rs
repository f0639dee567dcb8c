//! Real people, as far as a server can tell: signalling, ICE, DTLS and SRTP over loopback, and what serving them costs.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "it runs in real time")]

mod bot;
mod channels;
mod crowd;
mod datagrams;
pub mod experiments;
pub mod floor;
mod http;
mod leg;
pub mod measure;
pub mod process;
mod reception;
mod rtcp;
mod server;
pub mod shapes;
pub mod sheet;
mod signal;
