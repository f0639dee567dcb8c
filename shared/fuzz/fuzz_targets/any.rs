//! libFuzzer around the target that `FUZZ_TARGET` names.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let all = [
        plenary_cluster::fuzzing::TARGETS,
        plenary_media_core::fuzzing::TARGETS,
        plenary_protocol::fuzzing::TARGETS,
        plenary_recording::fuzzing::TARGETS,
        plenary::fuzzing::TARGETS,
    ];
    let chosen = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = all.concat().into_iter().find(|(name, _)| *name == chosen);
    found.unwrap_or_else(|| panic!("FUZZ_TARGET={chosen} names no target")).1
});

fuzz_target!(|input: &[u8]| TARGET(input));
