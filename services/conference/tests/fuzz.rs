//! Every fuzz target with inputs made up from its corpus, for as many seconds in all as `PLENARY_FUZZ_SECONDS` says.
//!
//! It needs nothing but the ordinary build, so it runs with every run of the tests. It does not see which code an input
//! reaches: `shared/fuzz/run`, with libFuzzer, does.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use plenary_testkit::{Random, seed};

#[test]
#[allow(clippy::disallowed_methods, reason = "how long to go on is a matter of real time")]
#[allow(clippy::print_stdout, reason = "the figures are for reading")]
fn made_up_input_breaks_nothing() {
    let seconds = std::env::var("PLENARY_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let seed = seed(std::process::id().into());
    let targets = [
        plenary_cluster::fuzzing::TARGETS,
        plenary_media_core::fuzzing::TARGETS,
        plenary_protocol::fuzzing::TARGETS,
        plenary_recording::fuzzing::TARGETS,
        plenary::fuzzing::TARGETS,
    ];
    let targets = targets.concat();
    let each = Duration::from_secs(seconds) / u32::try_from(targets.len()).unwrap();
    println!("{} targets for {each:?} each", targets.len());
    for (name, target) in targets {
        let corpus = corpus(name);
        let mut random = Random::seeded(seed);
        let (began, mut executions) = (Instant::now(), 0u64);
        while began.elapsed() < each {
            let input = made_up(&corpus, &mut random);
            if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
                panic!("{name} breaks on {}, PLENARY_SEED={seed}", kept(name, &input).display());
            }
            executions += 1;
        }
        println!("{name:15} {executions:9} executions");
    }
}

fn folder(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fuzz").join(of)
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(folder("corpus").join(name)).expect("it has a corpus");
    let mut paths: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Where the input can be found that broke a target.
fn kept(name: &str, input: &[u8]) -> PathBuf {
    let folder = folder("artifacts").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("made-up");
    std::fs::write(&path, input).unwrap();
    path
}

/// One of the corpus with a few changes.
fn made_up(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = one_of(corpus, random).to_vec();
    for _ in 0..=below(4, random) {
        change(&mut input, corpus, random);
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    let at = below(input.len(), random);
    let end = (at + 1 + below(8, random)).min(input.len());
    match below(7, random) {
        0 if !input.is_empty() => input[at] ^= 1 << below(8, random),
        1 if !input.is_empty() => input[at] = TELLING[below(TELLING.len(), random)],
        2 if !input.is_empty() => input[at] = random.number() as u8,
        3 => input.truncate(at),
        4 => drop(input.drain(at.min(end)..end)),
        5 => {
            let repeated = input[at.min(end)..end].to_vec();
            input.splice(at..at, repeated);
        }
        _ => {
            let other = one_of(corpus, random);
            let from = below(other.len(), random);
            input.truncate(at);
            input.extend_from_slice(&other[from.min(other.len())..]);
        }
    }
}

fn one_of<'a>(corpus: &'a [Vec<u8>], random: &mut Random) -> &'a [u8] {
    &corpus[below(corpus.len(), random)]
}

fn below(end: usize, random: &mut Random) -> usize {
    random.below(end as u64) as usize
}

/// Ends of ranges and what syntaxes give a meaning.
const TELLING: [u8; 12] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b'[', b'\\', b'\n', b':', b'='];
const INPUT_BYTES_MAX: usize = 8_192;
