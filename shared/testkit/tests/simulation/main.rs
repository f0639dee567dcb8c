//! A cluster in virtual time: nodes whose rooms are the real cores, a store that behaves like Redis, people who come and go, and
//! faults drawn from a seed. See `cluster.md` 2.10 for the invariants by their numbers (I1 to I14).
//!
//! `PLENARY_SEED` runs one seed and prints its history; `PLENARY_SIMULATIONS` says how many are run, from 0 on.

mod check;
mod faults;
mod node;
mod people;
mod redis;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use world::World;

#[test]
#[allow(clippy::print_stderr, reason = "a failed run says its seed and its history")]
#[allow(clippy::disallowed_methods, reason = "the figure is simulations per minute of real time")]
fn whatever_fails_nodes_and_store_agree_in_the_end() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("PLENARY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PLENARY_SIMULATIONS").unwrap_or(SIMULATIONS),
    };
    let (started, count) = (Instant::now(), seeds.end - seeds.start);
    let mut totals = faults::Totals::default();
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| run(World::new(seed)))) {
            Ok(happened) => totals.add(happened),
            Err(panic) => {
                eprintln!("PLENARY_SEED={seed}");
                // The same again, written down.
                let _ = catch_unwind(AssertUnwindSafe(|| run(World::telling(seed))));
                std::panic::resume_unwind(panic);
            }
        }
    }
    let per_minute = count as f64 * 60.0 / started.elapsed().as_secs_f64();
    eprintln!("{count} simulations, {per_minute:.0} a minute; {totals}");
    assert!(count < 50 || totals.is_full(), "something never happens: {totals}");
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 0..SEEDS_COMPARED {
        let histories = [0; 2].map(|_| {
            let mut world = World::recording(seed);
            world.run_with_faults();
            world.heal();
            world.run_quiet();
            world.digest()
        });
        assert_eq!(histories[0], histories[1], "PLENARY_SEED={seed}");
    }
}

fn run(mut world: World) -> faults::Totals {
    world.run_with_faults();
    world.heal();
    world.run_quiet();
    world.totals
}

/// In every run of the tests.
const SIMULATIONS: u64 = 2_000;
/// Twice each.
const SEEDS_COMPARED: u64 = 20;
