"""A recording that outlives the node that made it: nodes of one cluster with one directory for recordings."""

import asyncio
import contextlib
import pathlib
import re

import pytest
import pytest_asyncio
from livekit import api

from cluster import Cluster
from harness import until
from media import BLUE, RED
from test_recorded_tracks import probe, status

Status = api.EgressStatus


@pytest.fixture
def recordings(tmp_path) -> pathlib.Path:
    return tmp_path / "recordings"


@pytest.fixture
def server(recordings):
    """Two nodes, instead of those of a whole file, since each test ends or pauses one."""
    directory = {"PLENARY__RECORDING__DIRECTORY": str(recordings), "PLENARY__RECORDING__FREE_BYTES_MIN": "0"}
    with contextlib.closing(Cluster(2, **directory)) as cluster:
        yield cluster


@pytest_asyncio.fixture
async def egress(server):
    client = server.nodes[0].room_api()
    yield client.egress
    await client.aclose()


async def recorded_there(egress, join, room, server) -> str:
    """A recording of everybody, made by the second node, where most is published; ann is at the first."""
    ann, bob = await join("ann", 0), await join("bob", 1)
    await ann.publish_colour(RED)
    await bob.publish_colour(BLUE)
    await bob.publish_tone(440)
    await ann.sees("bob", BLUE)
    ask = api.RoomCompositeEgressRequest(room_name=room, file_outputs=[api.EncodedFileOutput()])
    started = (await egress.start_room_composite_egress(ask)).egress_id
    await status(egress, started, Status.EGRESS_ACTIVE)
    assert claims(server, 0) == [] and len(claims(server, 1)) == 1
    await asyncio.sleep(1.5)
    return started


def claims(server, node: int) -> list[tuple[int, str]]:
    """Epochs under which a node has recorded, and how far the recording was."""
    found = re.findall(r'recording claimed .*epoch=(\d+) status="(\w+)"', server.nodes[node].log)
    return [(int(epoch), how_far) for epoch, how_far in found]


def files(directory: pathlib.Path, epoch: int) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in directory.glob(f"{epoch}-*")}


async def is_taken_over(egress, recordings, server, started: str) -> tuple[int, int]:
    """By the first node, which records what is still published. The epochs of both."""
    began = asyncio.get_running_loop().time()
    await until("the first node goes on", lambda: claims(server, 0), within=15)
    print(f"taken over after {asyncio.get_running_loop().time() - began:.1f} s")
    [(first, _)], [(second, how_far)] = claims(server, 1), claims(server, 0)
    assert first < second and how_far == "active"
    tracks = f"{second}-*-TR_*"
    await until("it records", lambda: list((recordings / started).glob(tracks)), within=15)
    await asyncio.sleep(2)
    await status(egress, started, Status.EGRESS_ACTIVE)
    return first, second


async def test_another_node_goes_on_when_the_recorders_dies(egress, join, recordings, room, server):
    started = await recorded_there(egress, join, room, server)
    server.nodes[1].kill()
    first, second = await is_taken_over(egress, recordings, server, started)
    await egress.stop_egress(api.StopEgressRequest(egress_id=started))
    directory = recordings / started
    await until("its files are whole", lambda: not list(directory.glob("*.part")), within=15)
    # bob is gone with his node.
    [of_ann] = [name for name in files(directory, second) if "-TR_" in name]
    assert probe(directory / of_ann)["seconds"] > 1
    before = [name for name in files(directory, first) if "-TR_" in name]
    assert len(before) == 3 and all(probe(directory / name)["seconds"] > 0.5 for name in before)


async def test_a_recorder_that_slept_writes_nothing_into_what_follows(egress, join, recordings, room, server):
    started = await recorded_there(egress, join, room, server)
    server.nodes[1].pause()
    first, second = await is_taken_over(egress, recordings, server, started)
    directory = recordings / started
    asleep = files(directory, first)
    server.nodes[1].wake()
    await until("it hears of it", lambda: "recording left to another node" in server.nodes[1].log)
    assert len(claims(server, 1)) == 1
    await until("its files are whole", lambda: not list(directory.glob(f"{first}-*.part")))
    # What it had in hand it may still write, into its own.
    assert {name.removesuffix(".part") for name in asleep} == set(files(directory, first))
    await status(egress, started, Status.EGRESS_ACTIVE)
    await egress.stop_egress(api.StopEgressRequest(egress_id=started))
    await until("the other's are whole", lambda: not list(directory.glob(f"{second}-*.part")))


async def test_a_recording_goes_on_when_redis_forgets_it(egress, join, recordings, room, server):
    started = await recorded_there(egress, join, room, server)
    server.redis.ask("FLUSHALL")

    async def is_known() -> bool:
        found = (await egress.list_egress(api.ListEgressRequest(room_name=room))).items
        return [(info.egress_id, info.status) for info in found] == [(started, Status.EGRESS_ACTIVE)]

    await until("its recorder puts it back", is_known)
    client = server.nodes[0].room_api()

    async def is_shown() -> bool:
        rooms = (await client.room.list_rooms(api.ListRoomsRequest(names=[room]))).rooms
        return bool(rooms) and rooms[0].active_recording

    await until("its room shows it", is_shown)
    await client.aclose()
    assert len(claims(server, 1)) == 1 and claims(server, 0) == []
    stopped = await egress.stop_egress(api.StopEgressRequest(egress_id=started))
    assert stopped.status == Status.EGRESS_ENDING
    await until("its files are whole", lambda: not list((recordings / started).glob("*.part")))


async def test_a_node_that_ends_leaves_its_recordings_to_another_first(egress, join, recordings, room, server):
    started = await recorded_there(egress, join, room, server)
    leaving = server.nodes[1]
    leaving.terminate()
    first, second = await is_taken_over(egress, recordings, server, started)
    assert leaving.wait(10) == 0
    assert "recording left to another node" in leaving.log
    directory = recordings / started
    assert not list(directory.glob(f"{first}-*.part"))
    await egress.stop_egress(api.StopEgressRequest(egress_id=started))
    await until("the other's are whole", lambda: not list(directory.glob(f"{second}-*.part")))
