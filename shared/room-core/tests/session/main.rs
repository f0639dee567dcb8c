//! The session core by behaviour, on virtual time.
#![allow(clippy::disallowed_methods, reason = "one reading of the clock starts virtual time")]

mod backup;
mod data;
mod data_tracks;
mod demand;
mod driver;
mod moving;
mod negotiating;
mod publishing;
mod random_orders;
mod resuming;
mod subscribing;
