"""Recordings as a host app sees them, from the request to the file, through LiveKit's Python server SDK."""

import json
import pathlib

import pytest
import pytest_asyncio
from livekit import api

from harness import KEY, Server, free_port, until
from test_webhooks import HostApp

# How a Matroska file begins.
EBML = bytes.fromhex("1a45dfa3")
Status = api.EgressStatus


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def directory(tmp_path) -> pathlib.Path:
    return tmp_path / "recordings"


@pytest.fixture
def server(directory, port):
    """Instead of the one of a whole file, since each test has a directory and a host app of its own."""
    running = Server(
        PLENARY__RECORDING__DIRECTORY=str(directory),
        PLENARY__RECORDING__FREE_BYTES_MIN="0",
        PLENARY__WEBHOOK__URLS=f"http://127.0.0.1:{port}/hooks",
        PLENARY__WEBHOOK__API_KEY=KEY,
    )
    yield running
    assert running.stop() == 0, running.log


@pytest_asyncio.fixture
async def host_app(server, port):
    app = await HostApp(port).open()
    yield app
    await app.close()


@pytest_asyncio.fixture
async def egress(server):
    client = server.room_api()
    yield client.egress
    await client.aclose()


async def reaches(egress, egress_id: str, status: Status, within: float = 10) -> api.EgressInfo:
    seen = []

    async def reached():
        (info,) = (await egress.list_egress(api.ListEgressRequest(egress_id=egress_id))).items
        seen[:] = [info]
        return info if info.status == status else None

    try:
        return await until(f"{egress_id} is {Status.Name(status)}", reached, within)
    except AssertionError as late:
        raise AssertionError(f"{late}: {seen}") from None


async def is_recorded(room_api, room: str) -> bool:
    (found,) = (await room_api.list_rooms(api.ListRoomsRequest(names=[room]))).rooms
    return found.active_recording


async def test_a_track_is_recorded_until_it_is_stopped(directory, egress, host_app, join, room):
    ann = await join("ann")
    track = await ann.publish_tone(440)
    ask = api.TrackEgressRequest(
        room_name=room, track_id=track.sid, file=api.DirectFileOutput(filepath="{room_name}/{publisher_identity}")
    )
    started = await egress.start_track_egress(ask)
    assert started.egress_id.startswith("EG_") and started.status == Status.EGRESS_STARTING
    assert (started.room_name, started.track.track_id, started.started_at) == (room, track.sid, 0)
    active = await reaches(egress, started.egress_id, Status.EGRESS_ACTIVE)
    assert active.started_at > 0 and active.ended_at == 0
    (listed,) = (await egress.list_egress(api.ListEgressRequest(room_name=room, active=True))).items
    assert listed.egress_id == started.egress_id
    await until("it has something", lambda: list(directory.glob("EG_*/*.part")))

    stopped = await egress.stop_egress(api.StopEgressRequest(egress_id=started.egress_id))
    assert stopped.status == Status.EGRESS_ENDING
    complete = await reaches(egress, started.egress_id, Status.EGRESS_COMPLETE)
    (result,) = complete.file_results
    assert result.filename == complete.file.filename == f"{room}/ann.webm"
    content = (directory / result.filename).read_bytes()
    assert content.startswith(EBML) and len(content) == result.size
    assert json.loads((directory / started.egress_id / "links.json").read_text()) == [result.filename]
    assert complete.started_at <= result.started_at <= result.ended_at <= complete.ended_at
    assert 0 < result.duration <= complete.ended_at - complete.started_at
    with pytest.raises(api.ServerError) as raised:
        await egress.stop_egress(api.StopEgressRequest(egress_id=started.egress_id))
    assert raised.value.message == "egress with status EGRESS_COMPLETE cannot be stopped"

    def told() -> list[tuple[str, int]]:
        events = [event for event in host_app.events if event.event.startswith("egress_")]
        assert {event.egress_info.egress_id for event in events} <= {started.egress_id}
        return [(event.event, event.egress_info.status) for event in events]

    await until("the host app is told of the end", lambda: told() and told()[-1][0] == "egress_ended")
    assert told() == [
        ("egress_started", Status.EGRESS_STARTING),
        ("egress_updated", Status.EGRESS_ACTIVE),
        ("egress_updated", Status.EGRESS_ENDING),
        ("egress_ended", Status.EGRESS_COMPLETE),
    ]


async def test_those_in_the_room_see_that_it_is_recorded(egress, join, room, room_api):
    ann = await join("ann")
    await ann.publish_tone(440)
    file = api.EncodedFileOutput(filepath="calls/{room_name}")
    ask = api.RoomCompositeEgressRequest(room_name=room, layout="speaker", file_outputs=[file])
    started = await egress.start_room_composite_egress(ask)
    assert [result.filename for result in started.file_results] == [f"calls/{room}.mp4"]
    await reaches(egress, started.egress_id, Status.EGRESS_ACTIVE)
    assert await is_recorded(room_api, room)
    await until("ann sees it", lambda: ann.room.is_recording)
    bob = await join("bob")
    assert bob.room.is_recording
    await egress.update_layout(api.UpdateLayoutRequest(egress_id=started.egress_id, layout="grid"))

    stopped = await egress.stop_egress(api.StopEgressRequest(egress_id=started.egress_id))
    assert stopped.status == Status.EGRESS_ENDING
    await until("ann sees that it is over", lambda: not ann.room.is_recording)
    assert not await is_recorded(room_api, room)


async def test_a_recording_ends_with_its_room(directory, egress, join, room, room_api):
    ann = await join("ann")
    track = await ann.publish_tone(440)
    of_ann = api.ParticipantEgressRequest(room_name=room, identity="ann", file_outputs=[api.EncodedFileOutput()])
    of_track = api.TrackEgressRequest(room_name=room, track_id=track.sid, file=api.DirectFileOutput())
    both = [await egress.start_participant_egress(of_ann), await egress.start_track_egress(of_track)]
    for started in both:
        await reaches(egress, started.egress_id, Status.EGRESS_ACTIVE)
    await until("both have something", lambda: len(list(directory.glob("EG_*/*.part"))) == 2)
    await room_api.delete_room(api.DeleteRoomRequest(room=room))
    for started in both:
        await reaches(egress, started.egress_id, Status.EGRESS_COMPLETE, within=30)


async def test_who_publishes_in_a_room_that_records_itself_is_recorded(directory, egress, join, room, room_api):
    tracks = api.AutoTrackEgress(filepath="{publisher_identity}-{track_source}")
    await room_api.create_room(api.CreateRoomRequest(name=room, egress=api.RoomEgress(tracks=tracks)))
    ann = await join("ann")
    track = await ann.publish_tone(440)

    async def of_room():
        return (await egress.list_egress(api.ListEgressRequest(room_name=room))).items

    (info,) = await until("the track is recorded", of_room)
    assert info.track.track_id == track.sid
    await reaches(egress, info.egress_id, Status.EGRESS_ACTIVE)
    await until("it has something", lambda: list(directory.glob("EG_*/*.part")))
    await room_api.delete_room(api.DeleteRoomRequest(room=room))
    await reaches(egress, info.egress_id, Status.EGRESS_COMPLETE)
    assert (directory / "ann-microphone.webm").read_bytes().startswith(EBML)
