//! The HTTP doors: health, signalling, the room API and the meet page.

pub mod authorize;
pub mod room_api;
