//! The floor of the sheet, once, small: the bare process forwards everything to everybody in the room and to nobody else.

use std::{path::Path, time::Duration};

use plenary_loadtest::{
    floor::floor,
    shapes::{SMALLEST, Shape},
};

#[test]
fn the_floor_forwards_everything_within_its_room() {
    let program = Path::new(env!("CARGO_BIN_EXE_plenary-loadtest"));
    let seen = floor(program, Duration::from_secs(1), &Shape { rooms: 2, ..SMALLEST }).expect("it forwards");
    // A test machine that leaves a process no time cuts the window where it likes.
    assert!((50.0..150.0).contains(&seen.delivered_percent), "{seen:#?}");
    assert!(seen.run_mean >= 1.0 && seen.user_us + seen.system_us > 0.0, "{seen:#?}");
}
