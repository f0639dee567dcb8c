"""The room API through LiveKit's Python server SDK, errors included."""

import pytest
from livekit import api

from harness import until
from media import RED


async def test_rooms_are_created_listed_and_deleted(room_api, room):
    made = await room_api.create_room(
        api.CreateRoomRequest(name=room, empty_timeout=60, departure_timeout=30, max_participants=7, metadata="m")
    )
    assert made.sid.startswith("RM_")
    listed = await room_api.list_rooms(api.ListRoomsRequest(names=[room]))
    (found,) = listed.rooms
    assert (found.sid, found.empty_timeout, found.departure_timeout, found.max_participants, found.metadata) == (
        made.sid, 60, 30, 7, "m",
    )  # fmt: skip
    # What the node takes from publishers where the configuration says nothing else.
    codecs = ["video/VP8", "video/H264", "video/VP9", "video/AV1", "audio/opus", "audio/red"]
    for told in (made, found):
        assert [codec.mime for codec in told.enabled_codecs] == codecs
    await room_api.delete_room(api.DeleteRoomRequest(room=room))
    assert not (await room_api.list_rooms(api.ListRoomsRequest(names=[room]))).rooms


async def test_people_are_listed_with_their_tracks(join, room_api, room):
    ann = await join("ann")
    published = await ann.publish_colour(RED)

    async def both():
        people = (await room_api.list_participants(api.ListParticipantsRequest(room=room))).participants
        return people and people[0].tracks and people

    (listed,) = await until("the track is listed", both)
    assert (listed.identity, listed.sid, listed.is_publisher) == ("ann", ann.me.sid, True)
    (track,) = listed.tracks
    assert (track.sid, track.type, track.source) == (published.sid, api.TrackType.VIDEO, api.TrackSource.CAMERA)
    single = await room_api.get_participant(api.RoomParticipantIdentity(room=room, identity="ann"))
    assert single.sid == listed.sid


async def test_a_track_can_be_muted_and_not_unmuted(join, room_api, room):
    ann, bob = await join("ann"), await join("bob")
    published = await ann.publish_tone(440)
    await bob.hears("ann", 440)
    muting = api.MuteRoomTrackRequest(room=room, identity="ann", track_sid=published.sid, muted=True)
    assert (await room_api.mute_published_track(muting)).track.muted
    await bob.event("track_muted")
    muting.muted = False
    with pytest.raises(api.ServerError) as raised:
        await room_api.mute_published_track(muting)
    assert (raised.value.code, raised.value.status) == ("failed_precondition", 412)


async def test_errors_carry_their_codes(server, join, room_api, room):
    async def code(request) -> tuple[str, int]:
        with pytest.raises(api.ServerError) as raised:
            await request
        return raised.value.code, raised.value.status

    missing = ("not_found", 404)
    assert await code(room_api.delete_room(api.DeleteRoomRequest(room=room))) == missing
    assert await code(room_api.list_participants(api.ListParticipantsRequest(room=room))) == missing
    await join("ann")
    nobody = api.RoomParticipantIdentity(room=room, identity="nobody")
    assert await code(room_api.get_participant(nobody)) == missing
    assert await code(room_api.remove_participant(nobody)) == missing
    track = api.MuteRoomTrackRequest(room=room, identity="ann", track_sid="TR_nothing", muted=True)
    assert await code(room_api.mute_published_track(track)) == missing

    stranger = api.LiveKitAPI(server.http, "test-key", "a-secret-that-is-not-the-right-one-at-all")
    assert await code(stranger.room.list_rooms(api.ListRoomsRequest())) == ("unauthenticated", 401)
    await stranger.aclose()
