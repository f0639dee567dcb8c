//! Who speaks, told as differences.

use plenary_model::*;
use plenary_room_core::{
    notice::{Notice, Request},
    room::Deadline,
};

use crate::driver::*;

#[test]
fn only_changes_are_told_loudest_first() {
    let (mut world, ann, bob) = two_speakers();
    world.levels(&[(&ann, "TR_ann", 0.25), (&bob, "TR_bob", 0.5)]);
    assert_eq!(speakers(&mut world, &ann), [vec![(bob.clone(), 0.5, true), (ann.clone(), 0.25, true)]]);
    world.levels(&[(&ann, "TR_ann", 0.25), (&bob, "TR_bob", 0.5)]);
    assert!(speakers(&mut world, &ann).is_empty(), "nothing new");
    world.levels(&[(&ann, "TR_ann", 0.25), (&bob, "TR_bob", 0.0)]);
    assert_eq!(speakers(&mut world, &ann), [vec![(bob.clone(), 0.0, false)]]);
    world.levels(&[]);
    assert_eq!(speakers(&mut world, &ann), [vec![(ann.clone(), 0.0, false)]], "who is not in the window is silent");
    world.levels(&[]);
    assert!(speakers(&mut world, &ann).is_empty(), "silence is told once");
}

#[test]
fn the_loudest_track_of_somebody_counts() {
    let (mut world, ann, _) = two_speakers();
    world.ask(&ann, publish(vec![track("TR_share", Source::ScreenShareAudio)]));
    world.forget_notices();
    world.levels(&[(&ann, "TR_share", 0.75), (&ann, "TR_ann", 0.25)]);
    assert_eq!(speakers(&mut world, &ann), [vec![(ann.clone(), 0.75, true)]]);
}

#[test]
fn whoever_leaves_speaking_falls_silent_before_being_gone() {
    let (mut world, ann, bob) = two_speakers();
    world.levels(&[(&bob, "TR_bob", 0.5)]);
    world.forget_notices();
    world.ask(&bob, Request::Leave { reason: LeaveReason::ClientInitiated });
    let heard = world.heard(&ann);
    // The driver's client objects if the speaker is unknown by then.
    assert!(matches!(&heard[0], Notice::Speakers { speakers } if speakers[0].0 == bob && !speakers[0].1.active));
    world.levels(&[(&bob, "TR_bob", 0.5)]);
    assert!(speakers(&mut world, &ann).is_empty(), "a late window revives nobody");
}

#[test]
fn a_newcomer_hears_who_speaks_now() {
    let (mut world, ann, bob) = two_speakers();
    world.levels(&[(&ann, "TR_ann", 0.25), (&bob, "TR_bob", 0.5)]);
    let cyd = world.join("cyd");
    assert_eq!(speakers(&mut world, &cyd), [vec![(bob, 0.5, true), (ann, 0.25, true)]]);
}

#[test]
fn muted_unpublished_and_hidden_people_do_not_speak() {
    let (mut world, ann, bob) = two_speakers();
    let eve = world.join_as("eve", |person| person.permission.hidden = true);
    world.ask(&eve, publish(vec![track("TR_eve", Source::Microphone)]));
    world.forget_notices();
    world.levels(&[(&eve, "TR_eve", 0.5), (&ann, "TR_other", 0.5), (&bob, "TR_ann", 0.5)]);
    assert!(speakers(&mut world, &ann).is_empty());
    let muted = Track { muted: true, ..track("TR_ann", Source::Microphone) };
    world.ask(&ann, Request::UpdateTrack { track: muted });
    world.levels(&[(&ann, "TR_ann", 0.5)]);
    assert!(speakers(&mut world, &bob).is_empty());
}

#[test]
fn muting_somebody_who_speaks_shows_in_the_next_window() {
    let (mut world, ann, bob) = two_speakers();
    world.levels(&[(&ann, "TR_ann", 0.5)]);
    world.ask(&ann, Request::UpdateTrack { track: Track { muted: true, ..track("TR_ann", Source::Microphone) } });
    world.forget_notices();
    world.levels(&[(&ann, "TR_ann", 0.5)]);
    assert_eq!(speakers(&mut world, &bob), [vec![(ann, 0.0, false)]]);
}

#[test]
fn a_simulated_speaker_speaks_for_its_time() {
    let (mut world, ann, bob) = two_speakers();
    world.ask(&ann, Request::SimulateSpeaker { seconds: 3 });
    assert_eq!(speakers(&mut world, &bob), [vec![(ann.clone(), 0.9, true)]]);
    world.levels(&[]);
    assert!(speakers(&mut world, &bob).is_empty(), "whatever is measured");
    assert_eq!(world.wait(seconds(2)), []);
    assert_eq!(world.wait(seconds(1)), [Deadline::SimulatedSpeaker]);
    assert_eq!(speakers(&mut world, &bob), [vec![(ann, 0.0, false)]]);
}

#[test]
fn a_simulation_is_bounded_and_ends_with_its_session() {
    let (mut world, ann, bob) = two_speakers();
    world.ask(&ann, Request::SimulateSpeaker { seconds: u32::MAX });
    assert_eq!(world.wait(seconds(60)), [Deadline::SimulatedSpeaker]);
    world.ask(&ann, Request::SimulateSpeaker { seconds: 60 });
    world.ask(&ann, Request::Leave { reason: LeaveReason::ClientInitiated });
    world.forget_notices();
    assert_eq!(world.wait(seconds(70)).into_iter().find(|one| *one == Deadline::SimulatedSpeaker), None);
    assert!(speakers(&mut world, &bob).is_empty());
}

fn two_speakers() -> (World, ParticipantSid, ParticipantSid) {
    let mut world = World::new();
    let (ann, bob) = (world.join("ann"), world.join("bob"));
    world.ask(&ann, publish(vec![track("TR_ann", Source::Microphone)]));
    world.ask(&bob, publish(vec![track("TR_bob", Source::Microphone)]));
    world.wait(seconds(10));
    world.forget_notices();
    (world, ann, bob)
}

fn speakers(world: &mut World, who: &ParticipantSid) -> Vec<Vec<(ParticipantSid, f32, bool)>> {
    let of = |notice: Notice| match notice {
        Notice::Speakers { speakers } => {
            Some(speakers.into_iter().map(|(who, level)| (who, level.level, level.active)).collect())
        }
        _ => None,
    };
    world.heard(who).into_iter().filter_map(of).collect()
}
