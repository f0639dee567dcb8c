"""Fixtures of all files. A file that says `NODES = 3` is about a cluster of so many, others are about a server that is alone."""

import asyncio
import contextlib
import os
import secrets
import sys

import pytest
import pytest_asyncio

from balancer import Balancer
from cluster import Cluster
from harness import Relay, Server
from people import Person


@pytest.fixture(scope="module")
def server(request):
    """What a file is about. A server that is alone must end well when asked to."""
    if size := getattr(request.module, "NODES", None):
        with contextlib.closing(Cluster(size)) as cluster:
            yield cluster
        return
    running = Server()
    yield running
    code = running.stop()
    assert code == 0, f"the server ended with {code}:\n{running.log}"


@pytest.fixture(scope="module")
def cluster(server) -> Cluster:
    """The same in a file that says `NODES`."""
    return server


@pytest.fixture
def room() -> str:
    return f"room-{secrets.token_hex(6)}"


@pytest_asyncio.fixture
async def join(server, room):
    """Makes people who have joined, through the first node unless told where, and sends them home after the test."""
    people: list[Person] = []

    async def joined(
        identity: str, at: int | Server | Relay | Balancer = 0, *, token: str | None = None, options=None, **grants
    ) -> Person:
        door = server.nodes[at] if isinstance(at, int) else at
        person = Person(identity)
        people.append(person)
        return await person.join(door.url, token or server.nodes[0].token(room, identity, **grants), **(options or {}))

    yield joined
    await asyncio.gather(*(person.close() for person in people))


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


def pytest_sessionfinish(session):
    session.config.finished = session


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """The SDK calls into Python from threads of its own to the last; while the interpreter ends that aborts the process."""
    if session := getattr(config, "finished", None):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(session.exitstatus)
