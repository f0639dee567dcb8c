//! Media from one to others: what arrives, and that it looks as one encoder made it.

use std::time::Duration;

use plenary_testkit::{World, seed};

#[test]
fn audio_and_video_flow_from_one_publisher_to_three_subscribers() {
    let mut world = World::seeded(seed(1));
    let ann = world.join_connected("ann");
    let others = ["bob", "cem", "dan"].map(|name| world.join_connected(name));
    let (audio, video) = (world.publish_audio(ann), world.publish_video(ann));
    for other in others {
        world.subscribe(other, &[audio.clone(), video.clone()]);
    }
    world.run_for(Duration::from_secs(3));
    for other in others {
        let heard = world.received(other, &audio);
        assert_eq!(heard.gaps(), 0);
        assert!(heard.packets.len() > 140, "{} of 150", heard.packets.len());
        assert!(heard.packets.values().all(|packet| packet.payload_type == 111));
        let seen = world.received(other, &video);
        seen.assert_continuous_video();
        assert!(seen.packets.len() > 85, "{} of 90", seen.packets.len());
    }
}
