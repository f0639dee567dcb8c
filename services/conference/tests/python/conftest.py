import secrets

import pytest
import pytest_asyncio

from harness import Relay, Server
from people import Person


@pytest.fixture(scope="module")
def server():
    """One server per file; it must end well when asked to."""
    running = Server()
    yield running
    code = running.stop()
    assert code == 0, f"the server ended with {code}:\n{running.log}"


@pytest.fixture
def room() -> str:
    return f"room-{secrets.token_hex(6)}"


@pytest_asyncio.fixture
async def join(server, room):
    """Makes people who have joined, and sends them home after the test."""
    people: list[Person] = []

    async def joined(identity: str, url: str | None = None, token: str | None = None, options=None, **grants) -> Person:
        person = Person(identity)
        people.append(person)
        return await person.join(url or server.url, token or server.token(room, identity, **grants), **(options or {}))

    yield joined
    for person in people:
        await person.close()


@pytest_asyncio.fixture
async def relay(server):
    """Between a person and the server."""
    between = await Relay(server.port).start()
    yield between
    between.close()


@pytest_asyncio.fixture
async def room_api(server):
    client = server.room_api()
    yield client.room
    await client.aclose()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows what its server said."""
    report = yield
    server = getattr(item, "funcargs", {}).get("server")
    if report.failed and server is not None:
        report.sections.append(("the server's log", server.log))
    return report
