"""Losing the signalling socket, the session or the server, and finding the way back."""

import asyncio

import pytest
from livekit import rtc
from livekit.rtc import SimulateScenarioKind

from harness import Server, until
from media import RED

BACK_SECONDS = 10


@pytest.fixture
def pair(join, relay):
    """Ann behind the relay and Bob, who hear each other."""

    async def both():
        ann, bob = await asyncio.gather(join("ann", relay), join("bob"))
        await asyncio.gather(ann.publish_tone(440), bob.publish_tone(660))
        await hear(ann, bob)
        return ann, bob

    return both


async def hear(ann, bob):
    await asyncio.gather(bob.hears("ann", 440), ann.hears("bob", 660))


async def test_a_cut_socket_resumes_without_a_gap_in_the_sound(pair, relay):
    ann, bob = await pair()
    sid, track = ann.me.sid, next(iter(ann.me.track_publications))
    ann.ears["bob"].mark()
    bob.ears["ann"].mark()
    relay.cut()
    await ann.event("reconnected", within=BACK_SECONDS)
    heard = (ann.ears["bob"], bob.ears["ann"])
    await until("two more seconds", lambda: all(len(ear.tenths) > 20 for ear in heard))
    for ear in heard:
        loudness = "".join("." if rms < 0.1 else "#" for rms in ear.tenths)
        assert "...." not in loudness, f"silent tenths: {loudness}"
    assert (ann.me.sid, next(iter(ann.me.track_publications))) == (sid, track)
    assert not [name for name, _ in bob.events if name == "participant_disconnected"]
    await hear(ann, bob)


async def test_data_and_new_tracks_work_after_a_resume(pair, relay):
    ann, bob = await pair()
    relay.cut()
    await ann.event("reconnected", within=BACK_SECONDS)
    await ann.me.publish_data("still here")
    await bob.receives("still here")
    await bob.me.publish_data("me too")
    await ann.receives("me too")
    await ann.publish_colour(RED)
    await bob.sees("ann", RED)


async def test_who_left_meanwhile_is_reported(pair, relay, join):
    ann, _ = await pair()
    cat = await join("cat")
    await ann.knows(cat)
    relay.refuse()
    await ann.event("reconnecting", within=20)
    await cat.leave()
    await join("dan")
    relay.accept()
    await ann.event("reconnected", within=20)
    await ann.misses("cat")
    await ann.knows("bob", "dan")


@pytest.mark.parametrize(
    "scenario",
    [SimulateScenarioKind.SIMULATE_FULL_RECONNECT, SimulateScenarioKind.SIMULATE_DISCONNECT_SIGNAL_ON_RESUME],
)
async def test_a_full_reconnect_is_back_in_time_with_its_tracks(pair, scenario):
    ann, bob = await pair()
    before = bob.other("ann").sid
    await ann.room.simulate_scenario(scenario)
    await ann.event("reconnected", within=BACK_SECONDS)
    if scenario == SimulateScenarioKind.SIMULATE_FULL_RECONNECT:
        publication, previous = await ann.event("local_track_republished", within=BACK_SECONDS)
        assert publication.sid != previous
        await until("bob sees the new session", lambda: (seen := bob.other("ann")) and seen.sid != before)
    await hear(ann, bob)


async def test_a_lost_session_is_made_anew(pair):
    ann, bob = await pair()
    before = bob.other("ann").sid
    await ann.room.simulate_scenario(SimulateScenarioKind.SIMULATE_NODE_FAILURE)
    # The server closes the socket without a word and has forgotten the session when the client resumes.
    await until(
        "bob sees the new session",
        lambda: (seen := bob.other("ann")) and seen.sid != before and seen.track_publications,
        20,
    )
    await hear(ann, bob)


async def test_a_server_that_sends_somebody_away_is_obeyed(pair):
    ann, bob = await pair()
    await ann.room.simulate_scenario(SimulateScenarioKind.SIMULATE_SERVER_LEAVE)
    (reason,) = await ann.event("disconnected")
    assert reason == rtc.DisconnectReason.SERVER_SHUTDOWN
    await bob.misses("ann")


async def test_after_a_crash_of_the_server_everybody_finds_each_other_again(join, room):
    first = Server()
    try:
        ann, bob = await asyncio.gather(join("ann", first), join("bob", first))
        await asyncio.gather(ann.publish_tone(440), bob.publish_tone(660))
        await hear(ann, bob)
        await asyncio.to_thread(first.kill)
        second = await asyncio.to_thread(Server, first.port)
    except BaseException:
        first.kill()
        raise
    try:
        for one in (ann, bob):
            await one.event("reconnected", within=30)
        await asyncio.gather(ann.knows(bob), bob.knows(ann))
        await asyncio.gather(bob.hears("ann", 440, within=30), ann.hears("bob", 660, within=30))
    finally:
        await asyncio.gather(ann.close(), bob.close())
        await asyncio.to_thread(second.stop)
