"""A room with more people than one media thread takes: the threads share it, and nobody notices."""

import asyncio

import pytest
import pytest_asyncio

from harness import Server, until
from people import Person

ROOM = "large"
PEOPLE_PER_ROUTER = 3
PEOPLE = ("ann", "bob", "cat", "dan", "eve", "fay", "gil", "hal")
# One on each thread.
TONES = {"ann": 440, "dan": 880}
COLOURS = {"ann": (200, 30, 30), "dan": (30, 30, 200)}


@pytest.fixture(scope="module")
def server():
    environment = {"PLENARY__MEDIA__THREADS": "2", "PLENARY__MEDIA__PEOPLE_PER_ROUTER": str(PEOPLE_PER_ROUTER)}
    running = Server(**environment)
    yield running
    code = running.stop()
    assert code == 0, f"the server ended with {code}:\n{running.log}"


@pytest_asyncio.fixture
async def people(server):
    """They join one after the other, so that it is known who is where."""
    people = [Person(name) for name in PEOPLE]
    try:
        for person in people:
            await person.join(server.url, server.token(ROOM, person.identity))
        yield people
    finally:
        for person in people:
            await person.close()


def router_of(person: Person) -> str:
    """Two characters in the sid."""
    return person.me.sid[len("PA_") + 12 :][:2]


async def test_people_on_two_media_threads_hear_see_and_notice_each_other(server, people):
    routers = [router_of(person) for person in people]
    first, second = routers[0], routers[PEOPLE_PER_ROUTER]
    assert routers == [first] * 3 + [second] * 3 + [first, second] and first != second
    publishers = [one for one in people if one.identity in TONES]
    for one in publishers:
        await one.publish_tone(TONES[one.identity])
        await one.publish_colour(COLOURS[one.identity])
    pairs = [(one, other.identity) for one in people for other in publishers if one is not other]
    await asyncio.gather(*(one.hears(other, TONES[other]) for one, other in pairs))
    await asyncio.gather(*(one.sees(other, COLOURS[other]) for one, other in pairs))

    def speakers(one: Person) -> set[str]:
        changes = [args[0] for name, args in one.events if name == "active_speakers_changed"]
        return {speaker.identity for speaker in changes[-1]} if changes else set()

    for one in people:
        await until(f"{one.identity} knows who speaks", lambda one=one: speakers(one) == set(TONES))
    # Each thread measures those it has or pulls; what one says does not undo what the other said.
    for one in people:
        one.events.clear()
    ear = people[1].ears["ann"]
    ear.mark()
    await until("two more seconds", lambda: len(ear.tenths) > 20)
    for one in people:
        assert speakers(one) in (set(), set(TONES)), f"{one.identity} was told that somebody fell silent"
