//! The room core by behaviour, on virtual time, over the in-process store.
#![allow(clippy::disallowed_methods, reason = "one reading of the clock starts virtual time")]

mod administering;
mod driver;
mod lifecycle;
mod membership;
mod random_histories;
mod requests;
mod resync;
mod speakers;
mod words;
