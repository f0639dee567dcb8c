"""A fault of ours in one session, one room, one media thread or one recorder: who notices, and how they come back.

The server is built with the feature `fault-injection`: it panics where a client's attribute says.
"""

import asyncio
import contextlib
import pathlib
import time

import pytest
import pytest_asyncio
from livekit import api

from harness import Relay, Server, until
from people import Person
from test_recorded_tracks import session, status

# What an SDK may take to find the way back on a busy machine.
BACK_SECONDS = 10
# Longer than a lost room keeps places for those who may come back.
FORGOTTEN_SECONDS = 20

# Rooms are spread over media threads by a hash of their names. Were these two on one, the bystanders would notice.
ROOM, ELSEWHERE = "isolation-a", "isolation-b"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def server(recordings):
    running = Server(
        program="plenary-faults",
        PLENARY__MEDIA__THREADS="2",
        PLENARY__RECORDING__DIRECTORY=str(recordings),
        PLENARY__RECORDING__FREE_BYTES_MIN="0",
        PLENARY__RECORDING__COMPOSE="false",
    )
    yield running
    code = running.stop()
    assert code == 0, f"the server ended with {code}:\n{running.log}"


@pytest_asyncio.fixture
async def egress(server):
    client = server.room_api()
    yield client.egress
    await client.aclose()


@pytest_asyncio.fixture
async def calls(server):
    """Ann, bob and cat in one room, dan and eve in another; all hear each other."""
    people = {name: Person(name) for name in ("ann", "bob", "cat", "dan", "eve")}
    ann, bob, cat, dan, eve = people.values()
    try:
        for person in people.values():
            room = ELSEWHERE if person in (dan, eve) else ROOM
            await person.join(server.url, server.token(room, person.identity))
        await asyncio.gather(*(people[name].publish_tone(tone) for name, tone in TONES.items()))
        await hear_each_other(ann, bob, cat)
        await hear_each_other(dan, eve)
        for person in people.values():
            person.events.clear()
            for ear in person.ears.values():
                ear.mark()
        yield ann, bob, cat, dan, eve
    finally:
        for person in people.values():
            await person.close()


async def test_a_fault_in_a_session_is_that_sessions_alone(server, calls):
    ann, bob, cat, dan, eve = calls
    before = bob.other("ann").sid
    fault = await provoke(ann, "participant")
    await back(ann, fault)
    await until("bob sees ann's new session", lambda: (seen := bob.other("ann")) and seen.sid != before)
    await hear_each_other(ann, bob, cat)
    await undisturbed((bob, "cat"), (cat, "bob"), (dan, "eve"), (eve, "dan"))
    assert "ended by a fault" in server.log and "what=\"participant\"" in server.log


async def test_a_fault_in_a_room_is_that_rooms_alone_and_forgets_who_does_not_come_back(server, calls, egress, recordings):
    ann, bob, cat, dan, eve = calls
    ask = api.RoomCompositeEgressRequest(room_name=ROOM, file_outputs=[api.EncodedFileOutput()])
    id = (await egress.start_room_composite_egress(ask)).egress_id
    relay = await Relay(server.port).start()
    gil = await Person("gil").join(relay.url, server.token(ROOM, "gil"))
    try:
        await asyncio.gather(*(one.knows(gil) for one in (ann, bob, cat)))
        # His session outlives his socket, and the room's end ends it.
        relay.refuse()
        fault = await provoke(ann, "room")
        await asyncio.gather(*(back(one, fault) for one in (ann, bob, cat)))
        await hear_each_other(ann, bob, cat)
        anew = {one.me.sid for one in (ann, bob, cat)}
        await until("what they publish anew is recorded", lambda: anew <= published(recordings / id))
        await egress.stop_egress(api.StopEgressRequest(egress_id=id))
        await asyncio.gather(*(one.misses("gil", FORGOTTEN_SECONDS) for one in (ann, bob, cat)))
        await undisturbed((dan, "eve"), (eve, "dan"))
    finally:
        relay.close()
        await gil.close()


async def test_a_fault_in_a_media_thread_is_its_rooms_alone(server, calls):
    ann, bob, cat, dan, eve = calls
    fault = await provoke(ann, "media_router")
    await asyncio.gather(*(back(one, fault) for one in (ann, bob, cat)))
    await hear_each_other(ann, bob, cat)
    await undisturbed((dan, "eve"), (eve, "dan"))


async def test_a_fault_in_a_recorder_is_heard_by_nobody_and_its_recording_goes_on(calls, egress, recordings):
    ann, bob, cat, *_ = calls
    [track] = ann.me.track_publications
    ask = api.TrackEgressRequest(room_name=ROOM, track_id=track, file=api.DirectFileOutput())
    id = (await egress.start_track_egress(ask)).egress_id
    await until("it is recorded", lambda: list((recordings / id).glob("*.part")))
    await provoke(ann, "recorder")
    await until("it is recorded again", lambda: len(list((recordings / id).glob("*-TR_*"))) == 2)
    await undisturbed((ann, "bob"), (bob, "ann"), (cat, "ann"))
    await egress.stop_egress(api.StopEgressRequest(egress_id=id))
    over = await status(egress, id, api.EgressStatus.EGRESS_COMPLETE)
    before, after = sorted(over.file_results, key=lambda file: file.started_at)
    gap = (after.started_at - before.ended_at) / 1e9
    print(f"gap {gap:.2f} s")
    assert gap >= 0 and after.duration > 0


@pytest_asyncio.fixture
async def spread():
    """One room on two media threads: ann and bob on one, cat and dan on the other; all hear each other."""
    environment = {"PLENARY__MEDIA__THREADS": "2", "PLENARY__MEDIA__PEOPLE_PER_ROUTER": "2"}
    server = Server(program="plenary-faults", **environment)
    people = [Person(name) for name in ("ann", "bob", "cat", "dan")]
    try:
        for person in people:
            await person.join(server.url, server.token(ROOM, person.identity))
        await asyncio.gather(*(one.publish_tone(TONES[one.identity]) for one in people))
        await hear_each_other(*people)
        for person in people:
            person.events.clear()
            for ear in person.ears.values():
                ear.mark()
        yield people
    finally:
        for person in people:
            await person.close()
        server.stop()


async def test_a_fault_in_one_of_a_rooms_media_threads_only_silences_its_people_for_the_others(spread):
    ann, bob, cat, dan = spread
    fault = await provoke(ann, "media_router")
    await asyncio.gather(*(back(one, fault) for one in (ann, bob)))
    await hear_each_other(*spread)
    await undisturbed((cat, "dan"), (dan, "cat"))


def published(recording: pathlib.Path) -> set[str]:
    """By whom there is a track in the only epoch."""
    return {line["participant"] for line in session(recording) if line["event"] == "track"}


async def provoke(person: Person, what: str) -> float:
    """When it was."""
    now = time.monotonic()
    # The answer may die with who should give it.
    with contextlib.suppress(Exception):
        await asyncio.wait_for(person.me.set_attributes({"plenary.fault": what}), 1)
    return now


async def back(person: Person, fault: float) -> None:
    """By the SDK's own doing, in a new session with its track."""
    await person.event("reconnected", within=BACK_SECONDS)
    await person.event("local_track_republished", within=BACK_SECONDS)
    print(f"{person.identity} is back {time.monotonic() - fault:.1f} s after the fault")


async def undisturbed(*pairs: tuple[Person, str]) -> None:
    """They heard each other all the time, and were told of nothing but others."""
    ears = [person.ears[other] for person, other in pairs]
    await until("two more seconds", lambda: all(len(ear.tenths) > 20 for ear in ears))
    for (person, other), ear in zip(pairs, ears, strict=True):
        loudness = "".join("." if rms < 0.1 else "#" for rms in ear.tenths)
        assert "...." not in loudness, f"{person.identity} hears {other} with silent tenths: {loudness}"
        seen = [name for name, _ in person.events]
        assert not {"reconnecting", "reconnected", "disconnected", "connection_state_changed"} & set(seen), seen


async def hear_each_other(*people: Person) -> None:
    await asyncio.gather(
        *(one.hears(other.identity, TONES[other.identity]) for one in people for other in people if one is not other)
    )


TONES = {"ann": 440, "bob": 660, "cat": 880, "dan": 550, "eve": 770}
