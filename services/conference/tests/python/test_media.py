"""Two people without a browser hear and see each other."""

import asyncio

import pytest
from livekit import rtc

from harness import until
from media import BLUE, RED


async def test_each_hears_the_others_tone_with_its_frequency_and_energy(join):
    ann, bob = await asyncio.gather(join("ann"), join("bob"))
    await asyncio.gather(ann.publish_tone(440), bob.publish_tone(660, rms=0.1))
    await asyncio.gather(bob.hears("ann", 440), ann.hears("bob", 660, rms=0.1))


async def test_each_sees_the_others_colour(join):
    ann, bob = await asyncio.gather(join("ann"), join("bob"))
    await asyncio.gather(ann.publish_colour(RED), bob.publish_colour(BLUE))
    await asyncio.gather(bob.sees("ann", RED), ann.sees("bob", BLUE))


async def test_a_late_joiner_hears_and_sees_who_is_there(join):
    ann = await join("ann")
    await asyncio.gather(ann.publish_tone(440), ann.publish_colour(RED))
    bob = await join("bob")
    await asyncio.gather(bob.hears("ann", 440), bob.sees("ann", RED))


async def test_a_muted_microphone_is_marked_and_silent(join):
    ann, bob = await asyncio.gather(join("ann"), join("bob"))
    publication = await ann.publish_tone(440)
    await bob.hears("ann", 440)
    publication.track.mute()
    await bob.event("track_muted")
    await until("bob hears nothing", lambda: bob.ears["ann"].hear().rms < 0.002)
    publication.track.unmute()
    await bob.event("track_unmuted")
    await bob.hears("ann", 440)


async def test_an_unpublished_track_is_gone_and_the_next_one_is_heard(join):
    ann, bob = await asyncio.gather(join("ann"), join("bob"))
    publication = await ann.publish_tone(440)
    await bob.hears("ann", 440)
    await ann.me.unpublish_track(publication.sid)
    await bob.event("track_unpublished")
    await ann.publish_tone(880)
    await bob.hears("ann", 880)


async def test_a_publisher_learns_that_somebody_subscribed(join):
    ann, bob = await asyncio.gather(join("ann"), join("bob"))
    await ann.knows(bob)
    publication = await ann.publish_tone(440)
    await asyncio.wait_for(publication.wait_for_subscription(), 10)


async def test_a_low_quality_is_a_smaller_picture(join):
    ann, bob = await asyncio.gather(join("ann"), join("bob"))
    await ann.publish_colour(RED, width=960, height=540, simulcast=True)
    await bob.sees("ann", RED)
    publication = await until(
        "bob has the publication",
        lambda: next((one for one in bob.other("ann").track_publications.values() if one.subscribed), None),
    )
    publication.set_video_quality(rtc.VideoQuality.VIDEO_QUALITY_LOW)
    await until("the picture is small", lambda: (bob.eyes["ann"].size or (9999,))[0] < 960, 20)
    small = bob.eyes["ann"].size
    publication.set_video_quality(rtc.VideoQuality.VIDEO_QUALITY_HIGH)
    await until("it grows again", lambda: bob.eyes["ann"].size > small, 40)
    assert bob.eyes["ann"].sees(RED)


async def test_without_auto_subscribe_only_what_is_asked_for_arrives(join):
    ann = await join("ann")
    await asyncio.gather(ann.publish_tone(440), ann.publish_colour(RED))
    bob = await join("bob", options={"auto_subscribe": False})
    publications = await until(
        "bob knows both tracks",
        lambda: len(all := list(bob.other("ann").track_publications.values())) == 2 and all,
    )
    next(one for one in publications if one.kind == rtc.TrackKind.KIND_AUDIO).set_subscribed(True)
    await bob.hears("ann", 440)
    assert "ann" not in bob.eyes


async def test_a_speaker_is_reported(join):
    ann, bob = await asyncio.gather(join("ann"), join("bob"))
    await ann.publish_tone(440)
    await bob.event("active_speakers_changed", lambda speakers: [one.identity for one in speakers] == ["ann"])


@pytest.mark.parametrize("single", [True, False])
async def test_both_connection_modes_of_the_client_end_in_a_call(join, single):
    options = {"single_peer_connection": single}
    ann, bob = await asyncio.gather(join("ann", options=options), join("bob", options=options))
    await asyncio.gather(ann.publish_tone(440), bob.publish_tone(660))
    await asyncio.gather(bob.hears("ann", 440), ann.hears("bob", 660))
