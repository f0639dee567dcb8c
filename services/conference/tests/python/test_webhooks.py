"""What a host app is told of what happens in rooms, checked by the SDK's own receiver."""

import asyncio
import pathlib

import pytest
import pytest_asyncio
from aiohttp import web
from livekit import api

from cluster import Cluster
from harness import KEY, SECRET, Server, free_port, open_socket, until


class HostApp:
    """Takes what it is told in order, unless told not to."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._receiver = api.WebhookReceiver(api.TokenVerifier(KEY, SECRET))
        self._runner: web.AppRunner | None = None
        self.events: list[api.WebhookEvent] = []
        # Statuses of the next answers.
        self.refusals: list[int] = []
        self.refused = 0
        # Nothing is answered until this is set.
        self.answering = asyncio.Event()
        self.answering.set()
        # The ports of those who wait for an answer.
        self.waiting: set[int] = set()

    async def open(self) -> "HostApp":
        app = web.Application()
        app.router.add_post("/hooks", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        return self

    async def close(self) -> None:
        self.answering.set()
        await self._runner.cleanup()

    def told(self, room: str) -> list[str]:
        return [in_words(event) for event in self.events if event.room.name == room]

    async def is_told(self, room: str, last: str, within: float = 10) -> list[str]:
        """Up to and with this."""
        await until(f"the host app is told {last}", lambda: last in self.told(room), within)
        return self.told(room)

    async def _take(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/webhook+json"
        event = self._receiver.receive(await request.text(), request.headers["Authorization"])
        port = request.transport.get_extra_info("peername")[1]
        self.waiting.add(port)
        await self.answering.wait()
        self.waiting.discard(port)
        if self.refusals:
            self.refused += 1
            return web.Response(status=self.refusals.pop(0))
        self.events.append(event)
        return web.Response()


def in_words(event: api.WebhookEvent) -> str:
    return f"{event.event} {event.participant.identity}".strip()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def server(request, port, tmp_path):
    """Instead of the one of a whole file, since each test has a host app of its own. As large as the test says."""
    told = {
        "PLENARY__WEBHOOK__URLS": f"http://127.0.0.1:{port}/hooks",
        "PLENARY__WEBHOOK__API_KEY": KEY,
        "PLENARY__RECORDING__DIRECTORY": str(tmp_path),
        "PLENARY__RECORDING__FREE_BYTES_MIN": "0",
        "PLENARY__RECORDING__COMPOSE": "false",
    }
    size = getattr(request, "param", 1)
    running = Cluster(size, **told) if size > 1 else Server(**told, PLENARY__METRICS__BIND=f"127.0.0.1:{free_port()}")
    yield running
    running.close() if size > 1 else running.stop()


@pytest_asyncio.fixture
async def host_app(server, port):
    app = await HostApp(port).open()
    yield app
    await app.close()


async def test_a_call_is_told_in_its_order(host_app, join, room, room_api, server):
    ann = await join("ann")
    await ann.publish_tone(440)
    bob = await join("bob")
    await host_app.is_told(room, "participant_joined bob")
    await bob.leave()
    await host_app.is_told(room, "participant_left bob")
    await ann.leave()
    await host_app.is_told(room, "participant_left ann")
    await room_api.delete_room(api.DeleteRoomRequest(room=room))
    assert await host_app.is_told(room, "room_finished") == [
        "room_started",
        "participant_joined ann",
        "track_published ann",
        "participant_joined bob",
        "participant_left bob",
        "track_unpublished ann",
        "participant_left ann",
        "room_finished",
    ]
    assert len({event.id for event in host_app.events}) == 8
    started, joined, published, *_, unpublished, left, finished = host_app.events
    assert started.room.sid == finished.room.sid and started.room.sid.startswith("RM_")
    assert started.created_at <= finished.created_at
    assert joined.participant.state == api.ParticipantInfo.State.ACTIVE
    assert (published.track.sid, published.track.source) == (unpublished.track.sid, api.TrackSource.MICROPHONE)
    assert published.track.mime_type in ("audio/red", "audio/opus")
    assert left.participant.disconnect_reason == api.DisconnectReason.CLIENT_INITIATED
    assert left.participant.sid == joined.participant.sid
    assert server.metric("plenary_webhook_delay_seconds_count") == 8


async def test_what_is_not_taken_is_told_again_in_its_order(host_app, room, room_api, server):
    host_app.refusals = [500, 503]
    await room_api.create_room(api.CreateRoomRequest(name=room))
    await host_app.is_told(room, "room_started")
    assert host_app.refused == 2
    # It is down while more happens.
    await host_app.close()
    socket = await open_socket(server, room, "ann")
    await socket.close()
    await room_api.delete_room(api.DeleteRoomRequest(room=room))
    await until("it was tried", lambda: server.metric("plenary_webhook_failures_total", reason="unreachable") > 0)
    await host_app.open()
    assert await host_app.is_told(room, "room_finished") == [
        "room_started",
        "participant_connection_aborted ann",
        "room_finished",
    ]
    assert server.metric("plenary_webhook_dropped_total") == 0


async def test_a_node_that_ends_tells_that_its_rooms_and_recordings_do(host_app, join, room, server):
    ann = await join("ann")
    await ann.publish_tone(440)
    await host_app.is_told(room, "track_published ann")
    client = server.room_api()
    asked = api.RoomCompositeEgressRequest(room_name=room, file_outputs=[api.EncodedFileOutput(filepath="x")])
    started = await client.egress.start_room_composite_egress(asked)
    await client.aclose()

    def told(event: str) -> list[api.EgressInfo]:
        return [one.egress_info for one in host_app.events if one.event == event]

    active = api.EgressStatus.EGRESS_ACTIVE
    await until("it is recorded", lambda: active in [one.status for one in told("egress_updated")])
    assert await asyncio.to_thread(server.stop) == 0
    assert host_app.told(room)[-2:] == ["participant_left ann", "room_finished"]
    # Its files are there, and nobody is left to say what becomes of them.
    (ended,) = told("egress_ended")
    assert (ended.egress_id, ended.status) == (started.egress_id, api.EgressStatus.EGRESS_FAILED)
    assert ended.error == "this server stopped before its files were made" and ended.error_code == 500


@pytest.mark.parametrize("server", [3], indirect=True)
async def test_another_node_tells_what_a_dead_one_was_about_to(host_app, room, server):
    host_app.answering.clear()
    # Bare signalling: SDKs would try to come back to the node that is gone.
    sockets = [await open_socket(node, room, name) for node, name in zip(server.nodes, ["ann", "bob"])]
    await until("somebody tells it", lambda: host_app.waiting)
    (teller,) = (node for node in server.nodes if host_app.waiting & ports_of(node.pid))
    teller.kill()
    others = [node for node in server.nodes if node is not teller]
    host_app.answering.set()
    for socket in sockets:
        await socket.close()
    client = others[0].room_api()
    try:
        # What the dead node hosted is removed by another; until then the room would lose them with itself.
        async def is_empty() -> bool:
            listed = await client.room.list_participants(api.ListParticipantsRequest(room=room))
            return not listed.participants

        await until("everybody has left", is_empty)
        await client.room.delete_room(api.DeleteRoomRequest(room=room))
        told = await host_app.is_told(room, "room_finished", within=20)
    finally:
        await client.aclose()
    # The first one may have been taken from the dead node too.
    once = list(dict(zip((event.id for event in host_app.events), told)).values())
    assert once[0] == "room_started" and once[-1] == "room_finished"
    assert sorted(once[1:-1]) == ["participant_connection_aborted ann", "participant_connection_aborted bob"]


@pytest.mark.parametrize("server", [2], indirect=True)
async def test_a_room_ends_whose_node_died_and_to_which_nobody_came_back(host_app, room, server):
    dying, _ = server.nodes
    client = dying.room_api()
    await client.room.create_room(api.CreateRoomRequest(name=room, empty_timeout=3))
    await client.aclose()
    await open_socket(dying, room, "ann")
    dying.kill()
    told = await host_app.is_told(room, "room_finished", within=30)
    assert told == ["room_started", "participant_connection_aborted ann", "room_finished"]


def ports_of(pid: int) -> set[int]:
    """From which a process has TCP connections."""
    links = (entry for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir())
    targets = [str(link.readlink()) for link in links if link.is_symlink()]
    inodes = {target[8:-1] for target in targets if target.startswith("socket:[")}
    rows = [line.split() for line in pathlib.Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[9] in inodes}
