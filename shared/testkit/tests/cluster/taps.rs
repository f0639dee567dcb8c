//! A recording on another node than the track's.

use plenary_media_core::{Command, TapItem};
use plenary_model::TrackSid;
use plenary_testkit::{Cluster, seed};

use super::SECOND;

/// Packets of a track that a router tapped since this was asked last.
fn tapped(cluster: &mut Cluster, at: usize, track: &TrackSid) -> usize {
    let tapped = std::mem::take(&mut cluster.worlds[at].tapped);
    tapped.iter().filter(|one| one.track == *track && matches!(one.item, TapItem::Packet { .. })).count()
}

#[test]
fn a_tap_takes_a_track_of_another_router_that_nobody_else_wants_there_and_goes_on_after_a_cut() {
    let mut cluster = Cluster::seeded(seed(140), 2);
    let ann = cluster.join(0, "ann");
    let (sound, picture) = (cluster.worlds[0].publish_audio(ann), cluster.worlds[0].publish_simulcast(ann));
    for track in [&sound, &picture] {
        let command = Command::Tap { track: track.clone(), from: Some(cluster.id(0)) };
        cluster.worlds[1].command(command);
    }
    cluster.run_for(5 * SECOND);
    tapped(&mut cluster, 1, &sound);
    cluster.run_for(2 * SECOND);
    assert_eq!(cluster.sent(0).len(), 2, "the highest layer crosses, and no other: {:?}", cluster.sent(0));
    let heard = tapped(&mut cluster, 1, &sound);
    assert!((98..=102).contains(&heard), "{heard} in two seconds");
    cluster.part(0, 1);
    cluster.run_for(5 * SECOND);
    assert!(tapped(&mut cluster, 1, &sound) <= 2);
    cluster.heal();
    cluster.run_for(5 * SECOND);
    tapped(&mut cluster, 1, &picture);
    cluster.run_for(2 * SECOND);
    let seen = tapped(&mut cluster, 1, &picture);
    assert!(seen >= 60, "{seen} in two seconds");
    for track in [&sound, &picture] {
        cluster.worlds[1].command(Command::Untap { track: track.clone() });
    }
    cluster.run_for(5 * SECOND);
    assert!(cluster.sent(0).is_empty(), "nothing crosses for nobody");
}
