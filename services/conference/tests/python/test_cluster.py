"""One room over three nodes that share a Redis: what is so on one node is so on all."""

import asyncio
import secrets
import time

import aiohttp
import pytest
import pytest_asyncio
from livekit import api, rtc
from livekit.protocol.rtc import SignalResponse

from harness import free_port, open_socket, until
from media import BLUE, RED
from people import Person


NODES = 3


@pytest_asyncio.fixture
async def apis(cluster):
    clients = [node.room_api() for node in cluster.nodes]
    yield [client.room for client in clients]
    await asyncio.gather(*(client.aclose() for client in clients))


async def test_people_on_different_nodes_know_each_other(join):
    names = ["ann", "bob", "cat"]
    people = await asyncio.gather(*(join(name, at) for at, name in enumerate(names)))
    for one in people:
        await one.knows(*(name for name in names if name != one.identity))
    ann, bob, cat = people
    await asyncio.wait_for(ann.me.set_metadata("own"), 5)
    for other in (bob, cat):
        await until("it is seen", lambda: other.other("ann").metadata == "own")
    await ann.leave()
    for other in (bob, cat):
        (gone,) = await other.event("participant_disconnected")
        assert (gone.identity, gone.disconnect_reason) == ("ann", rtc.DisconnectReason.CLIENT_INITIATED)


async def test_every_node_answers_the_same(join, apis, room):
    await asyncio.gather(*(join(name, at) for at, name in enumerate(["ann", "bob", "cat"])))
    for rooms in apis:
        listed = (await rooms.list_participants(api.ListParticipantsRequest(room=room))).participants
        assert {person.identity for person in listed} == {"ann", "bob", "cat"}
        (found,) = (await rooms.list_rooms(api.ListRoomsRequest(names=[room]))).rooms
        assert found.num_participants == 3
        person = await rooms.get_participant(api.RoomParticipantIdentity(room=room, identity="bob"))
        assert person.identity == "bob"


async def test_a_call_to_any_node_reaches_who_is_on_another(join, apis, room):
    ann, bob = await asyncio.gather(join("ann", 0), join("bob", 1))
    await bob.knows(ann)
    info = await apis[2].update_participant(
        api.UpdateParticipantRequest(room=room, identity="ann", name="Anna", attributes={"role": "chair"})
    )
    assert (info.name, dict(info.attributes)) == ("Anna", {"role": "chair"})
    await until("bob sees it", lambda: bob.other("ann").name == "Anna")
    published = await ann.publish_tone(440)
    await until("bob sees the track", lambda: published.sid in bob.other("ann").track_publications)
    muting = api.MuteRoomTrackRequest(room=room, identity="ann", track_sid=published.sid, muted=True)
    assert (await apis[2].mute_published_track(muting)).track.muted
    await bob.event("track_muted")
    await apis[1].update_room_metadata(api.UpdateRoomMetadataRequest(room=room, metadata="agenda"))
    await until("both see the room's", lambda: ann.room.metadata == bob.room.metadata == "agenda")
    await apis[2].remove_participant(api.RoomParticipantIdentity(room=room, identity="ann"))
    (reason,) = await ann.event("disconnected")
    assert reason == rtc.DisconnectReason.PARTICIPANT_REMOVED
    await bob.misses("ann")
    await apis[0].delete_room(api.DeleteRoomRequest(room=room))
    (reason,) = await bob.event("disconnected")
    assert reason == rtc.DisconnectReason.ROOM_DELETED


async def test_the_same_identity_on_another_node_replaces_the_first_session(join):
    bob = await join("bob", 2)
    first = await join("ann", 0)
    await bob.knows(first)
    second = await join("ann", 1)
    (reason,) = await first.event("disconnected")
    assert reason == rtc.DisconnectReason.DUPLICATE_IDENTITY
    await until("bob knows the second", lambda: bob.other("ann") and bob.other("ann").sid == second.me.sid)


async def test_one_identity_at_all_nodes_at_once_leaves_one_session(cluster, join, apis, room):
    witness = await join("witness", 0)
    for _ in range(10):
        # Bare signalling: an SDK that is told to leave while it connects tells nobody.
        sockets = await asyncio.gather(*(open_socket(node, room, "ann") for node in cluster.nodes))
        left = sockets

        async def one_is_left() -> bool:
            nonlocal left
            left = [one for one in left if not await is_told_to_leave(one)]
            return len(left) == 1

        await until("one is left", one_is_left, within=3)
        listed = (await apis[0].list_participants(api.ListParticipantsRequest(room=room))).participants
        assert sorted(person.identity for person in listed) == ["ann", "witness"]
        await until("it is the one that others see", lambda: witness.other("ann"))
        await asyncio.gather(*(one.close() for one in sockets))


async def test_a_cap_holds_under_a_race_through_all_nodes(join, apis, room):
    await apis[0].create_room(api.CreateRoomRequest(name=room, max_participants=5))
    outcomes = await asyncio.gather(
        *(join(f"p{number}", number % 3) for number in range(18)), return_exceptions=True
    )
    seated = [one for one in outcomes if isinstance(one, Person)]
    assert len(seated) == 5, outcomes
    listed = (await apis[1].list_participants(api.ListParticipantsRequest(room=room))).participants
    assert {person.identity for person in listed} == {one.identity for one in seated}


async def test_a_room_that_opened_for_nobody_counts_no_longer(cluster, join, apis, room):
    await apis[0].create_room(api.CreateRoomRequest(name=room, max_participants=1))
    await join("ann", 0)
    fresh = cluster.node()
    with pytest.raises(rtc.ConnectError):
        await join("bob", fresh)
    assert "room opened" in fresh.log
    await until("it is gone", lambda: fresh.metric("plenary_room_active") == 0)
    fresh.stop()


async def test_a_ban_made_at_one_node_holds_at_all(join, apis, room, cluster):
    ann = await join("ann", 1)
    await apis[0].remove_participant(api.RoomParticipantIdentity(room=room, identity="ann", revoke_token_ts=int(time.time()) + 2))
    await ann.event("disconnected", within=1)
    for at in range(3):
        with pytest.raises(rtc.ConnectError):
            await join("ann", at)


async def test_people_on_different_nodes_hear_and_see_each_other(join):
    ann, bob, cat = await asyncio.gather(*(join(name, at) for at, name in enumerate(["ann", "bob", "cat"])))
    await asyncio.gather(
        ann.publish_tone(440), bob.publish_tone(880), ann.publish_colour(RED), cat.publish_colour(BLUE, simulcast=True)
    )
    await asyncio.gather(
        bob.hears("ann", 440), cat.hears("ann", 440), ann.hears("bob", 880), cat.hears("bob", 880),
        bob.sees("ann", RED), cat.sees("ann", RED), ann.sees("cat", BLUE), bob.sees("cat", BLUE),
    )  # fmt: skip


async def test_who_speaks_on_one_node_is_a_speaker_on_another(join):
    ann, bob = await asyncio.gather(join("ann", 0), join("bob", 1))
    await ann.publish_tone(440)
    await bob.hears("ann", 440)
    await bob.event("active_speakers_changed", lambda speakers: [one.identity for one in speakers] == ["ann"])


async def test_who_comes_later_at_another_node_receives_what_is_there(join, apis, room):
    ann = await join("ann", 0)
    published = await ann.publish_colour(RED)
    for at in (1, 2, 0):
        late = await join(f"late-{at}", at)
        await late.sees("ann", RED)
    bob = await join("bob", 1)
    await bob.sees("ann", RED)
    await ann.me.unpublish_track(published.sid)
    await bob.event("track_unpublished")
    await ann.publish_colour(BLUE)
    await bob.sees("ann", BLUE)


async def test_a_node_shows_its_cluster_to_whoever_may_see_it(cluster, join, room):
    seeing = cluster.node(PLENARY__ADMIN__BIND=f"127.0.0.1:{(port := free_port())}")
    ann, bob = await asyncio.gather(join("ann", 0), join("bob", seeing))
    await ann.publish_tone(440)
    await bob.hears("ann", 440)
    url = f"http://127.0.0.1:{port}/admin/v1/node"
    async with aiohttp.ClientSession() as session:
        token = seeing.token("", "operator", room_join=False, room_admin=True, room_create=True)
        async with session.get(url, headers={"Authorization": f"Bearer {token}"}) as response:
            assert response.status == 200
            seen = await response.json()
        async with session.get(url, headers={"Authorization": f"Bearer {seeing.token(room, 'ann')}"}) as response:
            assert response.status == 403
    assert (seen["state"], seen["rooms"], seen["sessions"]) == ("serving", 1, 1)
    assert sum(router["links"] for router in seen["routers"]) == 1
    assert sum(router["pulled_streams"] for router in seen["routers"]) == 1
    assert {other["state"] for other in seen["others"]} == {"serving"}
    assert len(seen["others"]) == 3
    seeing.stop()


async def test_media_goes_on_while_redis_is_away(cluster, join):
    ann, bob = await asyncio.gather(join("ann", 0), join("bob", 1))
    await ann.publish_colour(RED)
    await bob.sees("ann", RED)
    cluster.redis.kill()
    await asyncio.sleep(5)
    await bob.sees("ann", RED)
    cluster.redis.start()
    assert not [name for name, _ in bob.events if name in ("participant_disconnected", "reconnecting")]


async def test_data_crosses_nodes_in_order_and_only_to_those_meant(join):
    ann, bob, cat = await asyncio.gather(*(join(name, at) for at, name in enumerate(["ann", "bob", "cat"])))
    await asyncio.gather(ann.knows(bob, cat), bob.knows(ann), cat.knows(ann))
    texts = [f"{number}" for number in range(200)]
    for text in texts:
        await ann.me.publish_data(text)
    await ann.me.publish_data("for bob", destination_identities=["bob"])
    await ann.me.publish_data("the end")
    for one in (bob, cat):
        await one.receives("the end")
        expected = [*texts, *(["for bob"] if one is bob else []), "the end"]
        assert [packet.data.decode() for packet in one.packets] == expected
        assert {packet.participant.identity for packet in one.packets} == {"ann"}
    assert not ann.packets


async def test_a_node_that_had_left_the_room_is_heard_when_it_is_back(cluster, join):
    ann, bob = await asyncio.gather(join("ann", 0), join("bob", 1))
    await asyncio.gather(ann.knows(bob), bob.knows(ann))
    for number in range(5):
        await bob.me.publish_data(f"{number}")
    await ann.receives("4")
    await bob.leave()
    left = cluster.nodes[1].log.count("room left to other nodes")
    await until("its node leaves too", lambda: cluster.nodes[1].log.count("room left to other nodes") > left, 20)
    again = await join("bob", 1)
    await asyncio.gather(ann.knows(again), again.knows(ann))
    await again.me.publish_data("back")
    await ann.receives("back")


async def test_text_streams_and_calls_cross_nodes(join):
    ann, bob = await asyncio.gather(join("ann", 0), join("bob", 1))
    await asyncio.gather(ann.knows(bob), bob.knows(ann))
    heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def read(reader: rtc.TextStreamReader) -> None:
        heard.set_result(await reader.read_all())

    bob.room.register_text_stream_handler("chat", lambda reader, _: asyncio.create_task(read(reader)))
    text = "word " * 20_000
    await ann.me.send_text(text, topic="chat")
    assert await asyncio.wait_for(heard, 10) == text
    bob.me.register_rpc_method("greet", lambda call: asyncio.sleep(0, f"hello {call.caller_identity}"))
    answer = await ann.me.perform_rpc(destination_identity="bob", method="greet", payload="")
    assert answer == "hello ann"


async def test_people_of_a_node_that_dies_are_back_through_another(cluster, join, room):
    doomed = cluster.node()
    ann, bob = await asyncio.gather(join("ann", 0), join("bob", doomed))
    await asyncio.gather(ann.knows(bob), bob.knows(ann))
    old = bob.me.sid
    doomed.kill()
    # As its SDK would through a load balancer.
    again = await join("bob", 1)
    await until("ann knows the new session", lambda: ann.other("bob") and ann.other("bob").sid == again.me.sid, 5)
    assert again.me.sid != old
    await again.knows(ann)


async def test_ghosts_of_a_node_that_dies_are_gone_within_ten_seconds(cluster, join, apis, room):
    doomed = cluster.node()
    ann, bob = await asyncio.gather(join("ann", 0), join("bob", doomed))
    await ann.knows(bob)
    doomed.kill()
    await ann.misses("bob", within=10)
    (listed,) = (await apis[1].list_participants(api.ListParticipantsRequest(room=room))).participants
    assert listed.identity == "ann"


async def test_a_node_that_leaves_well_says_goodbye_for_its_people(cluster, join):
    leaving = cluster.node()
    ann, bob = await asyncio.gather(join("ann", 0), join("bob", leaving))
    await ann.knows(bob)
    stopped = asyncio.create_task(asyncio.to_thread(leaving.stop))
    await ann.misses("bob", within=5)
    assert await stopped == 0


async def test_rooms_outlive_a_redis_that_is_wiped(cluster, join, apis, room):
    ann, bob = await asyncio.gather(join("ann", 0), join("bob", 1))
    await asyncio.gather(ann.knows(bob), bob.knows(ann))
    assert cluster.redis.ask("FLUSHALL") == "OK"

    async def both() -> bool:
        try:
            listed = (await apis[2].list_participants(api.ListParticipantsRequest(room=room))).participants
        except api.ServerError:
            return False
        return {person.identity for person in listed} == {"ann", "bob"}

    await until("the store knows them again", both, within=5)
    cat = await join("cat", 2)
    await asyncio.gather(cat.knows(ann, bob), ann.knows(cat), bob.knows(cat))
    for one in (ann, bob):
        assert not [name for name, _ in one.events if name in ("participant_disconnected", "reconnecting")]


async def test_bans_outlive_a_redis_that_is_wiped(cluster, join, apis, room):
    asked = cluster.node(PLENARY__ADMIN__BIND=f"127.0.0.1:{(port := free_port())}")
    operator = {"Authorization": f"Bearer {asked.token(room, 'operator', room_admin=True)}"}
    tokens = {identity: asked.token(room, identity) for identity in ("bob", "eve", "fay")}
    bob = await join("bob", 1)
    await apis[0].remove_participant(
        api.RoomParticipantIdentity(room=room, identity="bob", revoke_token_ts=int(time.time()) + 1)
    )
    await bob.event("disconnected")
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=operator) as session:
        for verb, identity in [("ban", "eve"), ("ban", "fay"), ("unban", "fay")]:
            body = {"identity": identity, "room": room} | ({"until": int(time.time()) + 3600} if verb == "ban" else {})
            async with session.post(f"/admin/v1/{verb}", json=body) as answer:
                assert answer.status == 204, verb

        async def listed() -> set[str]:
            async with session.get("/admin/v1/bans", params={"room": room}) as answer:
                return {one["identity"] for one in (await answer.json())["bans"]}

        assert await listed() == {"bob", "eve"}
        assert cluster.redis.ask("FLUSHALL") == "OK"

        async def back() -> bool:
            return await listed() == {"bob", "eve"}

        await until("Redis has them again", back, within=5)
    # Whoever starts now has what Redis has.
    fresh = cluster.node()
    for identity, status in [("bob", 403), ("eve", 403), ("fay", 200)]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{fresh.http}/rtc/validate", params={"access_token": tokens[identity]}) as answer,
        ):
            assert answer.status == status, identity
    fresh.stop()
    asked.stop()


async def test_people_go_on_talking_and_writing_while_redis_is_away(cluster, join, room):
    """And nothing is lost or said twice when it is back."""
    ann, bob, dan = await asyncio.gather(*(join(name, at) for at, name in enumerate(["ann", "bob", "dan"])))
    # Then each node knows the others.
    await asyncio.gather(ann.publish_colour(RED), bob.publish_colour(BLUE))
    await asyncio.gather(ann.sees("bob", BLUE), bob.sees("ann", RED), dan.sees("ann", RED), dan.sees("bob", BLUE))
    cluster.redis.kill()
    texts = [f"{number}" for number in range(60)]
    for text in texts[:30]:
        await ann.me.publish_data(text)
        await asyncio.sleep(0.1)
    await asyncio.gather(bob.receives("29"), dan.receives("29"))
    await dan.me.publish_data("I hear you")
    await ann.receives("I hear you")
    # More than a datagram takes.
    long = secrets.token_hex(7_000)
    await ann.me.publish_data(long)
    await asyncio.gather(bob.receives(long), dan.receives(long))
    await bob.sees("ann", RED)
    cluster.redis.start()
    for text in texts[30:]:
        await ann.me.publish_data(text)
        await asyncio.sleep(0.1)
    for one in (bob, dan):
        await one.receives("59")
        by_ann = [packet.data.decode() for packet in one.packets if packet.participant.identity == "ann"]
        assert by_ann == [*texts[:30], long, *texts[30:]]
    await asyncio.wait_for(ann.me.set_metadata(secrets.token_hex(4)), 10)
    await until("bob hears of it", lambda: bob.other("ann").metadata == ann.me.metadata, 10)
    cat = await join("cat", 2)
    await asyncio.gather(cat.knows(ann, bob), ann.knows(cat), bob.knows(cat))
    for one in (ann, bob):
        assert not [name for name, _ in one.events if name in ("participant_disconnected", "reconnecting")]


async def test_a_node_that_starts_before_redis_waits_for_it(cluster, join):
    cluster.redis.kill()
    # Returns when the node is ready.
    starting = asyncio.create_task(asyncio.to_thread(cluster.node))
    await asyncio.sleep(2)
    assert not starting.done()
    cluster.redis.start()
    late = await starting
    ann, bob = await asyncio.gather(join("ann", late), join("bob", 0))
    await asyncio.gather(ann.knows(bob), bob.knows(ann))
    assert late.stop() == 0


async def is_told_to_leave(socket: aiohttp.ClientWebSocketResponse) -> bool:
    """Reads what is there."""
    while True:
        try:
            frame = await asyncio.wait_for(socket.receive(), 0.05)
        except asyncio.TimeoutError:
            return False
        if frame.type != aiohttp.WSMsgType.BINARY:
            return True
        if SignalResponse.FromString(frame.data).WhichOneof("message") == "leave":
            return True
