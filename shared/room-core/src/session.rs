//! One participant's session on this node: signalling, negotiation order, publish and subscribe intent, resume window.

mod api;

pub use api::{Deadline, Input, MediaCommand, MediaEvent, Output, Settings, SocketEnd, Start};
