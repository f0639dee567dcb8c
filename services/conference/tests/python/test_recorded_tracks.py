"""Recordings that host apps ask for: what is published is on disk when they are over, and plays."""

import asyncio
import json
import pathlib
import subprocess

import pytest
import pytest_asyncio
from livekit import api, rtc

from harness import Server, until

FRAMES_PER_SECOND_MIN = 5


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def server(recordings):
    running = Server(
        PLENARY__RECORDING__DIRECTORY=str(recordings), PLENARY__RECORDING__FREE_BYTES_MIN="0"
    )
    yield running
    assert running.stop() == 0, running.log


@pytest_asyncio.fixture
async def egress(server):
    client = server.room_api()
    yield client.egress
    await client.aclose()


async def status(egress, id: str, *wanted: int, within: float = 10) -> api.EgressInfo:
    async def reached():
        found = (await egress.list_egress(api.ListEgressRequest(egress_id=id))).items
        return found and found[0].status in wanted and found[0]

    return await until(f"{id} is one of {[api.EgressStatus.Name(one) for one in wanted]}", reached, within)


def probe(file: pathlib.Path) -> dict:
    """What ffprobe says of the only stream of a file, all frames counted."""
    told = subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-show_format", "-of", "json", str(file)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert told.returncode == 0 and not told.stderr, f"{file}: {told.stderr}"
    told = json.loads(told.stdout)
    [stream] = told["streams"]
    return {**stream, "seconds": float(told["format"]["duration"])}


def session(directory: pathlib.Path) -> list[dict]:
    [file] = directory.glob("*.session.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize(
    "codec, name, ending",
    [(rtc.VideoCodec.VP8, "vp8", "webm"), (rtc.VideoCodec.H264, "h264", "mkv"), (rtc.VideoCodec.VP9, "vp9", "webm")],
)
async def test_a_track_is_a_file_under_the_name_that_was_asked_for(join, egress, room, recordings, codec, name, ending):
    ann = await join("ann")
    track = await ann.publish_colour((200, 30, 30), codec=codec)
    ask = api.TrackEgressRequest(
        room_name=room, track_id=track.sid, file=api.DirectFileOutput(filepath="{room_name}/{publisher_identity}")
    )
    started = await egress.start_track_egress(ask)
    assert started.status == api.EgressStatus.EGRESS_STARTING and started.room_name == room
    await status(egress, started.egress_id, api.EgressStatus.EGRESS_ACTIVE)
    await until("everybody is told", lambda: ann.room.is_recording)
    await asyncio.sleep(4)
    stopped = await egress.stop_egress(api.StopEgressRequest(egress_id=started.egress_id))
    assert stopped.status == api.EgressStatus.EGRESS_ENDING
    over = await status(egress, started.egress_id, api.EgressStatus.EGRESS_COMPLETE)
    await until("everybody is told", lambda: not ann.room.is_recording)
    [result] = over.file_results
    assert result.filename == f"{room}/ann.{ending}"
    file = recordings / result.filename
    assert result.size == file.stat().st_size
    seen = probe(file)
    assert seen["codec_name"] == name
    assert 3 < seen["seconds"] < 7 and abs(result.duration / 1e9 - seen["seconds"]) < 1
    assert int(seen["nb_read_frames"]) > FRAMES_PER_SECOND_MIN * seen["seconds"]
    told = session(recordings / started.egress_id)
    events = [line["event"] for line in told if line["event"] != "track_zero"]
    assert events == ["started", "participant", "track", "track_ended", "stopped"]
    assert told[0]["room_name"] == room and told[1]["identity"] == "ann" and told[-1]["reason"] == "requested"


async def test_a_recording_ends_when_its_track_does(join, egress, room, recordings):
    ann = await join("ann")
    track = await ann.publish_tone(440)
    ask = api.TrackEgressRequest(room_name=room, track_id=track.sid, file=api.DirectFileOutput(filepath="{track_id}"))
    started = await egress.start_track_egress(ask)
    await status(egress, started.egress_id, api.EgressStatus.EGRESS_ACTIVE)
    await asyncio.sleep(3)
    await ann.me.unpublish_track(track.sid)
    over = await status(egress, started.egress_id, api.EgressStatus.EGRESS_COMPLETE, within=20)
    seen = probe(recordings / over.file_results[0].filename)
    assert seen["codec_name"] == "opus" and 2 < seen["seconds"] < 6
    assert session(recordings / started.egress_id)[-1]["reason"] == "source_ended"


async def test_what_is_called_alike_stands_beside_each_other(join, egress, room, recordings):
    ann = await join("ann")
    track = await ann.publish_tone(440)
    names, ids = [], []
    for _ in range(2):
        ask = api.TrackEgressRequest(room_name=room, track_id=track.sid, file=api.DirectFileOutput(filepath=f"{room}/x"))
        started = await egress.start_track_egress(ask)
        await status(egress, started.egress_id, api.EgressStatus.EGRESS_ACTIVE)
        await asyncio.sleep(2)
        await egress.stop_egress(api.StopEgressRequest(egress_id=started.egress_id))
        over = await status(egress, started.egress_id, api.EgressStatus.EGRESS_COMPLETE)
        names += [result.filename for result in over.file_results]
        ids.append(started.egress_id)
    assert names == [f"{room}/x.webm", f"{room}/x-{ids[1]}.webm"]
    assert all(probe(recordings / name)["codec_name"] == "opus" for name in names)
