//! Media from one to others: what arrives, and that it looks as one encoder made it.

use plenary_media_core::{Command, Event};
use plenary_testkit::{World, seed};

use super::{Pair, SECOND, ms};

#[test]
fn audio_and_video_flow_from_one_publisher_to_three_subscribers() {
    let mut world = World::seeded(seed(1));
    let ann = world.join_connected("ann");
    let others = ["bob", "cem", "dan"].map(|name| world.join_connected(name));
    let (audio, video) = (world.publish_audio(ann), world.publish_video(ann));
    for other in others {
        world.subscribe(other, &[audio.clone(), video.clone()]);
    }
    world.run_for(3 * SECOND);
    for other in others {
        let heard = world.received(other, &audio);
        assert_eq!(heard.gaps(), 0);
        assert!(heard.packets.len() > 140, "{} of 150", heard.packets.len());
        let first = &heard.packets.values().next().unwrap().payload;
        let first = u32::from_be_bytes(first[1..5].try_into().unwrap());
        for (packet, frame) in heard.packets.values().zip(first..) {
            assert_eq!(packet.payload_type, 111);
            assert_eq!(packet.payload[..5], [&b"A"[..], &frame.to_be_bytes()].concat());
        }
        let seen = world.received(other, &video);
        seen.assert_continuous_video();
        assert!(seen.packets.len() > 85, "{} of 90", seen.packets.len());
        assert!(seen.packets.values().all(|packet| packet.payload_type == 96));
        assert_eq!(seen.stream_id, format!("PA_0|{video}"));
        assert_eq!(seen.packets.values().next().unwrap().mid.as_deref(), Some(seen.mid.as_str()));
        assert_eq!(world.client(other).inbox.undescribed, Default::default());
    }
    let first_in = world.count_events(|event| matches!(event, Event::FirstPacketIn { .. }));
    let first_out = world.count_events(|event| matches!(event, Event::FirstPacketOut { .. }));
    assert_eq!((first_in, first_out), (2, 6));
}

#[test]
fn late_subscriber_gets_a_keyframe_request_and_starts_at_a_keyframe() {
    let Pair { mut world, video, .. } = Pair::flowing(2);
    world.run_for(2 * SECOND);
    let cem = world.join_connected("cem");
    let before = world.source(&video).streams[0].keyframe_requests.len();
    let asked_at = world.now;
    world.subscribe(cem, std::slice::from_ref(&video));
    world.run_until_received(cem, &video, 1);
    assert!(world.now - asked_at < ms(200), "after {:?}", world.now - asked_at);
    assert_eq!(world.source(&video).streams[0].keyframe_requests.len(), before + 1);
    world.run_for(SECOND);
    world.received(cem, &video).assert_continuous_video();
    assert_eq!(world.source(&video).streams[0].keyframe_requests.len(), before + 1, "one request is enough");
}

#[test]
fn mute_stops_and_unmute_resumes_with_a_keyframe() {
    let mut pair = Pair::flowing(3);
    for track in [pair.audio.clone(), pair.video.clone()] {
        pair.world.command(Command::SetMuted { track, muted: true });
    }
    pair.world.run_for(ms(100));
    let muted = pair.received();
    pair.world.run_for(2 * SECOND);
    assert_eq!(pair.received(), muted);
    let keyframes = pair.world.source(&pair.video).streams[0].keyframes;

    let unmuted = pair.world.now;
    for track in [pair.audio.clone(), pair.video.clone()] {
        pair.world.command(Command::SetMuted { track, muted: false });
    }
    pair.world.run_for(SECOND);
    let (audio, video) = pair.received();
    assert!(audio > muted.0 + 40 && video > muted.1 + 20, "{muted:?} and then {audio}, {video}");
    let (heard, seen) = (pair.world.received(pair.bob, &pair.audio), pair.world.received(pair.bob, &pair.video));
    assert_eq!(heard.gaps(), 0);
    seen.assert_continuous_video();
    assert!(seen.since(unmuted).next().unwrap().video().keyframe);
    assert_eq!(pair.world.source(&pair.video).streams[0].keyframes, keyframes + 1);
}

#[test]
fn nobody_is_asked_for_keyframes_while_nobody_can_use_them() {
    let mut pair = Pair::flowing(4);
    pair.world.source(&pair.video.clone()).streams[0].active = false;
    let ssrc = pair.world.received(pair.bob, &pair.video).ssrc;
    pair.world.client(pair.bob).inbox.request_keyframe(ssrc);
    pair.world.run_for(SECOND);
    pair.world.command(Command::SetMuted { track: pair.video.clone(), muted: true });
    pair.world.run_for(SECOND);
    let asked = pair.world.source(&pair.video).streams[0].keyframe_requests.len();
    assert!(asked > 0);
    pair.world.run_for(5 * SECOND);
    assert_eq!(pair.world.source(&pair.video).streams[0].keyframe_requests.len(), asked);
}

#[test]
fn audio_levels_are_told_while_somebody_speaks_and_once_when_they_stop() {
    let mut pair = Pair::flowing(5);
    let levels = |world: &World| -> Vec<(f32, bool)> {
        let told = world.events.iter().filter_map(|(_, event)| match event {
            Event::Levels { levels } => Some(levels),
            _ => None,
        });
        told.flatten().map(|level| (level.level, level.active)).collect()
    };
    assert!(levels(&pair.world).iter().all(|(_, active)| !active));
    pair.world.source(&pair.audio.clone()).level_db = 6;
    pair.world.events.clear();
    pair.world.run_for(2 * SECOND);
    let speaking = levels(&pair.world);
    assert!((4..=5).contains(&speaking.len()), "{speaking:?}");
    assert_eq!(speaking.last(), Some(&(0.5, true)));

    pair.world.source(&pair.audio.clone()).paused = true;
    pair.world.run_for(SECOND);
    pair.world.events.clear();
    pair.world.run_for(5 * SECOND);
    assert_eq!(levels(&pair.world), [], "silence is told once");
}
