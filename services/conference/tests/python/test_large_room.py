"""A room with more people than one media thread takes: the threads share it, and nobody notices."""

import asyncio

import pytest
import pytest_asyncio

from harness import Server, until
from people import Person

PEOPLE_PER_ROUTER = 3
TONES = {"ann": 300, "bob": 400, "cat": 500, "dan": 600, "eve": 700, "fay": 800, "gil": 900, "hal": 1000}
COLOURS = {
    "ann": (200, 40, 40), "bob": (40, 200, 40), "cat": (40, 60, 200), "dan": (200, 200, 40),
    "eve": (200, 40, 200), "fay": (40, 200, 200), "gil": (200, 200, 200), "hal": (40, 40, 40),
}  # fmt: skip


@pytest.fixture(scope="module")
def server():
    environment = {"PLENARY__MEDIA__THREADS": "2", "PLENARY__MEDIA__PEOPLE_PER_ROUTER": str(PEOPLE_PER_ROUTER)}
    running = Server(**environment)
    yield running
    code = running.stop()
    assert code == 0, f"the server ended with {code}:\n{running.log}"


@pytest_asyncio.fixture
async def people(server, room):
    """They join one after the other, so that it is known who is where."""
    people = [Person(name, attentive=False) for name in TONES]
    try:
        for person in people:
            await person.join(server.url, server.token(room, person.identity))
        yield people
    finally:
        await asyncio.gather(*(person.close() for person in people))


def router_of(person: Person) -> str:
    """Two characters in the sid."""
    return person.me.sid[len("PA_") + 12 :][:2]


async def publish(person: Person) -> None:
    await person.publish_tone(TONES[person.identity])
    await person.publish_colour(COLOURS[person.identity])


async def hears_and_sees(person: Person, other: str) -> None:
    async with person.attending(other):
        await asyncio.gather(person.hears(other, TONES[other]), person.sees(other, COLOURS[other]))


def received(person: Person) -> int:
    """Tracks of others."""
    publications = (one for other in person.room.remote_participants.values() for one in other.track_publications.values())
    return sum(one.track is not None for one in publications)


def changes(person: Person) -> list[set[str]]:
    """Who was said to speak at each change. Who speaks on as before is not among them, and who fell silent is not either."""
    return [{one.identity for one in args[0]} for name, args in person.events if name == "active_speakers_changed"]


async def test_eight_people_on_two_media_threads_who_all_publish_hear_see_and_notice_each_other(people):
    routers = [router_of(person) for person in people]
    first, second = routers[0], routers[PEOPLE_PER_ROUTER]
    assert routers == [first] * 3 + [second] * 3 + [first, second] and first != second
    await asyncio.gather(*(publish(person) for person in people))
    for person in people:
        await until(f"{person.identity} receives all", lambda person=person: received(person) == 2 * (len(people) - 1))
    # Each attends to the next, then to the one after that, and so on: seldom has a process ears for all at once.
    for distance in range(1, len(people)):
        others = people[distance:] + people[:distance]
        await asyncio.gather(*(hears_and_sees(one, other.identity) for one, other in zip(people, others)))
    for person in people:
        await until(f"{person.identity} knows who speaks", lambda person=person: set().union(*changes(person)) == set(TONES))
    # Each thread measures those it has or pulls; what one says does not undo what the other said.
    bob = people[1]
    for person in people:
        person.events.clear()
    async with bob.attending("ann"):
        await until("two more seconds", lambda: len(bob.ears["ann"].tenths) > 20)
    for person in people:
        assert set() not in changes(person), f"{person.identity} was told that somebody fell silent"
