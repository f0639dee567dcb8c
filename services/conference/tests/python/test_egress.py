"""The Egress API through LiveKit's Python server SDK, where nothing is recorded: what is refused, and under which name."""

import aiohttp
import pytest
import pytest_asyncio
from livekit import api, rtc

from harness import KEY, SECRET

NOTHING_RECORDED = ("failed_precondition", 412, "this server records nothing: recording.directory is not set")
FILE = api.EncodedFileOutput(filepath="{room_name}-{time}")


@pytest_asyncio.fixture
async def egress(server):
    client = server.room_api()
    yield client.egress
    await client.aclose()


async def refusal(call) -> tuple[str, int, str]:
    with pytest.raises(api.ServerError) as raised:
        await call
    return raised.value.code, raised.value.status, raised.value.message


async def test_every_start_says_that_nothing_is_recorded_here(egress, join, room):
    ann = await join("ann")
    track = await ann.publish_tone(440)
    unified = api.StartEgressRequest(
        room_name=room, template=api.TemplateSource(layout="grid"), outputs=[api.Output(file=api.FileOutput())]
    )
    for call in (
        egress.start_room_composite_egress(api.RoomCompositeEgressRequest(room_name=room, file_outputs=[FILE])),
        egress.start_participant_egress(
            api.ParticipantEgressRequest(room_name=room, identity="ann", file_outputs=[FILE])
        ),
        egress.start_track_composite_egress(
            api.TrackCompositeEgressRequest(room_name=room, audio_track_id=track.sid, file_outputs=[FILE])
        ),
        egress.start_track_egress(
            api.TrackEgressRequest(room_name=room, track_id=track.sid, file=api.DirectFileOutput())
        ),
        egress.start_egress(unified),
    ):
        assert await refusal(call) == NOTHING_RECORDED


async def test_a_room_that_shall_record_itself_is_not_made(room_api, room):
    asked = api.RoomEgress(room=api.RoomCompositeEgressRequest(file_outputs=[FILE]))
    assert await refusal(room_api.create_room(api.CreateRoomRequest(name=room, egress=asked))) == NOTHING_RECORDED
    assert not (await room_api.list_rooms(api.ListRoomsRequest(names=[room]))).rooms


async def test_a_token_that_has_its_room_recorded_makes_none(server, room_api, room):
    def token(egress: api.RoomEgress) -> str:
        grants = api.VideoGrants(room_join=True, room=room)
        made = api.AccessToken(KEY, SECRET).with_identity("ann").with_grants(grants)
        return made.with_room_config(api.RoomConfiguration(egress=egress)).to_jwt()

    async def answer(asked: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{server.http}/rtc/validate?access_token={asked}") as response:
                return response.status, await response.text()

    s3 = api.EncodedFileOutput(filepath="x", s3=api.S3Upload(bucket="b", access_key="a", secret="hidden"))
    to_s3 = token(api.RoomEgress(participant=api.AutoParticipantEgress(file_outputs=[s3])))
    of_tracks = token(api.RoomEgress(tracks=api.AutoTrackEgress(filepath="x")))
    said = "the room is to be recorded: "
    assert await answer(to_s3) == (400, f"{said}S3 uploads: not supported by this server")
    assert await answer(of_tracks) == (400, said + NOTHING_RECORDED[2])
    with pytest.raises(rtc.ConnectError):
        await rtc.Room().connect(server.url, of_tracks)
    assert not (await room_api.list_rooms(api.ListRoomsRequest(names=[room]))).rooms

    # What it configures is of the room that it makes.
    await room_api.create_room(api.CreateRoomRequest(name=room))
    assert (await answer(of_tracks))[0] == 200
    ann = rtc.Room()
    await ann.connect(server.url, of_tracks)
    await ann.disconnect()


async def test_what_this_server_cannot_record_is_refused_by_name(egress, room):
    def everybody(**outputs):
        return egress.start_room_composite_egress(api.RoomCompositeEgressRequest(room_name=room, **outputs))

    s3 = api.EncodedFileOutput(filepath="x", s3=api.S3Upload(bucket="b", access_key="a", secret="hidden"))
    for call, named in (
        (egress.start_web_egress(api.WebEgressRequest(url="https://x", file_outputs=[FILE])), "recording of web pages"),
        (everybody(stream_outputs=[api.StreamOutput(urls=["rtmp://x/y"])]), "stream outputs"),
        (everybody(segment_outputs=[api.SegmentedFileOutput(filename_prefix="x")]), "segment outputs"),
        (everybody(image_outputs=[api.ImageOutput(capture_interval=5)]), "image outputs"),
        (everybody(file_outputs=[s3]), "S3 uploads"),
        (everybody(file_outputs=[FILE], custom_base_url="https://x"), "custom_base_url"),
        (
            egress.start_track_egress(
                api.TrackEgressRequest(room_name=room, track_id="TR_x", websocket_url="wss://x/y")
            ),
            "websocket_url",
        ),
        (egress.update_stream(api.UpdateStreamRequest(egress_id="EG_x", add_output_urls=["rtmp://x"])), "stream outputs"),
    ):
        assert await refusal(call) == ("unimplemented", 501, f"{named}: not supported by this server")


async def test_what_is_missing_is_named(egress, room):
    for call, field in (
        (egress.start_room_composite_egress(api.RoomCompositeEgressRequest(file_outputs=[FILE])), "room_name"),
        (egress.start_room_composite_egress(api.RoomCompositeEgressRequest(room_name=room)), "output"),
        (egress.start_participant_egress(api.ParticipantEgressRequest(room_name=room, file_outputs=[FILE])), "identity"),
        (egress.start_track_egress(api.TrackEgressRequest(room_name=room, file=api.DirectFileOutput())), "track_id"),
    ):
        assert await refusal(call) == ("invalid_argument", 400, f"request has missing or invalid field: {field}")


async def test_there_is_nothing_to_list_or_to_stop(egress, room):
    assert not (await egress.list_egress(api.ListEgressRequest(room_name=room))).items
    assert not (await egress.list_egress(api.ListEgressRequest(active=True))).items
    unknown = ("not_found", 404, "egress does not exist")
    assert await refusal(egress.stop_egress(api.StopEgressRequest(egress_id="EG_x"))) == unknown
    assert await refusal(egress.update_layout(api.UpdateLayoutRequest(egress_id="EG_x", layout="grid"))) == unknown


async def test_recording_needs_its_grant(server):
    stranger = api.LiveKitAPI(server.http, token=server.token("r", "ann", room_admin=True, room_create=True))
    refused = await refusal(stranger.egress.list_egress(api.ListEgressRequest()))
    assert refused == ("unauthenticated", 401, "permissions denied")
    await stranger.aclose()
