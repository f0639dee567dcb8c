//! The fuzz targets of what nodes read from Redis; see `plenary_media_core::fuzzing`.

use crate::redis;

/// What is done with an input.
pub type Body = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: &[(&str, Body)] = &[("cluster", redis::read_anything)];

#[cfg(test)]
#[allow(clippy::print_stderr, reason = "the input is shown when the test fails")]
mod tests {
    use super::*;

    #[test]
    fn every_kept_input_is_quiet() {
        let corpora = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        for (name, target) in TARGETS {
            target(&[]);
            let mut kept = 0;
            for entry in std::fs::read_dir(corpora.join(name)).expect("it has a corpus") {
                let path = entry.unwrap().path();
                eprintln!("{}", path.display());
                target(&std::fs::read(path).unwrap());
                kept += 1;
            }
            assert!(kept > 0, "{name} has a first input");
        }
    }
}
