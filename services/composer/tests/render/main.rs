//! Small meetings, rendered by the real ffmpeg and looked at with it. Takes half a minute; the other tests of this crate run
//! without ffmpeg, by `--lib --test plans`.

#![allow(clippy::print_stdout, reason = "measured figures")]

mod codecs;
mod epochs;
mod faults;
mod meeting;
mod tools;
