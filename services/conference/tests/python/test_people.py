"""Who is there, what is known of them, who may come in and why somebody had to go."""

import asyncio

import pytest
from livekit import api, rtc

from harness import until
from people import Person


async def test_participants_see_each_other_within_five_seconds(join):
    names = ["ann", "bob", "cat", "dan"]
    people = await asyncio.gather(*(join(name) for name in names))
    for one in people:
        await one.knows(*(name for name in names if name != one.identity))


async def test_who_leaves_is_reported_with_the_reason(join):
    ann, bob = await asyncio.gather(join("ann"), join("bob"))
    await bob.knows(ann)
    await ann.leave()
    (gone,) = await bob.event("participant_disconnected")
    assert (gone.identity, gone.disconnect_reason) == ("ann", rtc.DisconnectReason.CLIENT_INITIATED)


async def test_name_metadata_and_attributes_set_by_a_client_reach_everybody(join):
    ann, bob = await asyncio.gather(join("ann"), join("bob"))
    await asyncio.gather(ann.knows(bob), bob.knows(ann))
    # Each waits for the server's response to the request.
    await asyncio.wait_for(ann.me.set_name("Anna"), 5)
    await asyncio.wait_for(ann.me.set_metadata("own"), 5)
    await asyncio.wait_for(ann.me.set_attributes({"hand": "up", "seat": "3"}), 5)
    await asyncio.wait_for(ann.me.set_attributes({"hand": ""}), 5)

    def changed() -> bool:
        seen = bob.other("ann")
        return (seen.name, seen.metadata, dict(seen.attributes)) in (
            ("Anna", "own", {"seat": "3"}),
            ("Anna", "own", {"seat": "3", "hand": ""}),
        )

    await until("bob sees it", changed)


async def test_without_the_grant_a_change_is_refused(join):
    ann, bob = await asyncio.gather(join("ann", can_update_own_metadata=False), join("bob"))
    await bob.knows(ann)
    await asyncio.wait_for(ann.me.set_name("Anna"), 10)
    await ann.me.publish_data("after the attempt")
    await bob.receives("after the attempt")
    assert bob.other("ann").name != "Anna"


async def test_what_the_host_sets_reaches_everybody(join, room_api, room):
    ann, bob = await asyncio.gather(join("ann"), join("bob"))
    await bob.knows(ann)
    request = api.UpdateParticipantRequest(
        room=room, identity="ann", name="Anna", metadata="host", attributes={"role": "chair"}
    )
    info = await room_api.update_participant(request)
    assert (info.name, info.metadata, dict(info.attributes)) == ("Anna", "host", {"role": "chair"})
    await until(
        "bob sees it",
        lambda: (seen := bob.other("ann")) and (seen.name, seen.metadata, seen.attributes.get("role")) == ("Anna", "host", "chair"),
    )
    await room_api.update_room_metadata(api.UpdateRoomMetadataRequest(room=room, metadata="agenda"))
    await until("both see the room's", lambda: ann.room.metadata == bob.room.metadata == "agenda")


async def test_a_deleted_room_ends_without_a_reconnection(join, room_api, room):
    ann, bob = await asyncio.gather(join("ann"), join("bob"))
    await bob.knows(ann)
    await room_api.delete_room(api.DeleteRoomRequest(room=room))
    for one in (ann, bob):
        (reason,) = await one.event("disconnected")
        assert reason == rtc.DisconnectReason.ROOM_DELETED
        assert not [name for name, _ in one.events if name == "reconnecting"]


async def test_a_removed_person_learns_why_and_so_do_the_others(join, room_api, room):
    ann, bob = await asyncio.gather(join("ann"), join("bob"))
    await bob.knows(ann)
    await room_api.remove_participant(api.RoomParticipantIdentity(room=room, identity="ann"))
    (reason,) = await ann.event("disconnected")
    assert reason == rtc.DisconnectReason.PARTICIPANT_REMOVED
    (gone,) = await bob.event("participant_disconnected")
    assert gone.disconnect_reason == rtc.DisconnectReason.PARTICIPANT_REMOVED


async def test_a_second_login_ends_the_first(join):
    first, bob = await asyncio.gather(join("ann"), join("bob"))
    await bob.knows(first)
    await join("ann")
    (reason,) = await first.event("disconnected")
    assert reason == rtc.DisconnectReason.DUPLICATE_IDENTITY
    await bob.knows("ann")


async def test_a_room_knows_when_it_was_created(join, room_api, room):
    made = await room_api.create_room(api.CreateRoomRequest(name=room, metadata="m"))
    ann = await join("ann")
    assert (await ann.room.sid, ann.room.name, ann.room.metadata) == (made.sid, room, "m")
    assert abs(ann.room.creation_time.timestamp() - made.creation_time) < 10


WRONG_TOKENS = {
    "expired": lambda server, room: server.token(room, "ann", ttl_seconds=-3600),
    "without a grant to join": lambda server, room: server.token(room, "ann", room_join=False),
    "of an unknown key": lambda server, room: api.AccessToken("stranger", "secret" * 8)
    .with_identity("ann")
    .with_grants(api.VideoGrants(room_join=True, room=room))
    .to_jwt(),
    "garbage": lambda server, room: "not.a.token",
}


@pytest.mark.parametrize("which", WRONG_TOKENS)
async def test_a_wrong_token_is_a_final_error(server, room, which):
    person = Person("ann")
    with pytest.raises(rtc.ConnectError) as raised:
        await asyncio.wait_for(person.join(server.url, WRONG_TOKENS[which](server, room)), 15)
    assert "401" in raised.value.message


async def test_a_full_room_refuses(join, server, room_api, room):
    await room_api.create_room(api.CreateRoomRequest(name=room, max_participants=1))
    await join("bob")
    person = Person("ann")
    with pytest.raises(rtc.ConnectError) as raised:
        await asyncio.wait_for(person.join(server.url, server.token(room, "ann")), 15)
    assert "max participants" in raised.value.message or "403" in raised.value.message
