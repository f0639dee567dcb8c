//! The load tool against the whole server, once, small: everybody connects over real sockets and everything sent arrives.

use std::{path::PathBuf, time::Duration};

use plenary_loadtest::{
    measure::{Plan, forwarding},
    shapes::SMALLEST,
};

#[test]
fn everything_sent_arrives_at_a_load_that_is_none() {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_plenary"));
    let plan = Plan { binary, media_threads: None, window: Duration::from_secs(3) };
    let seen = forwarding(&plan, &SMALLEST).expect("everybody receives everything");
    // A test machine that leaves a process no time may overflow a socket, and cuts the window where it likes.
    assert!(seen.lost_percent < 1.0 || seen.dropped_by_bot > 0, "{seen:#?}");
    assert!(seen.delivered_percent > 50.0, "{seen:#?}");
    assert!(seen.packets_in_per_s > 0.0 && seen.packets_out_per_s > 0.0, "the server counts them: {seen:#?}");
    assert!(seen.user_us + seen.system_us > 0.0 && seen.resident_mib > 0.0, "{seen:#?}");
    assert!(seen.run_mean >= 1.0 && seen.delay_p50_ms > 0.0, "{seen:#?}");
}
