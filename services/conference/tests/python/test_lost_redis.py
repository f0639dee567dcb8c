"""Redis that only one node has lost, that all have lost, or that a node reads too slowly."""

import asyncio
import secrets

import aiohttp
import pytest_asyncio
from livekit import api

from harness import Relay, Server, free_port, until
from media import RED
from people import Person

NODES = 2
# A lease runs for 3 s. The rest is for the machine.
NOTICED_SECONDS = 6


@pytest_asyncio.fixture
async def way(cluster):
    """Between Redis and a third node."""
    relay = await Relay(cluster.redis.port).start()
    yield relay
    relay.close()


@pytest_asyncio.fixture
async def third(cluster, way):
    redis = way.url.replace("ws://", "redis://")
    node = await asyncio.to_thread(lambda: cluster.node(PLENARY__CLUSTER__REDIS=redis))
    cluster.nodes.append(node)
    yield node
    cluster.nodes.remove(node)
    way.accept()
    await asyncio.to_thread(node.stop)


@pytest_asyncio.fixture
async def door(third):
    """Between a person and the third node."""
    relay = await Relay(third.port).start()
    yield relay
    relay.close()


async def ready(node: Server) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"{node.http}/readyz") as answer:
        return answer.status


async def all_ready(cluster) -> list[int]:
    return await asyncio.gather(*(ready(node) for node in cluster.nodes))


async def all_stay_ready_for(seconds: float, cluster) -> None:
    await stays(seconds, lambda: all_ready(cluster), [200] * 3)


async def stays(seconds: float, look, expected) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        assert await look() == expected
        await asyncio.sleep(0.1)


def unmoved(*people: Person) -> bool:
    told = ("participant_disconnected", "reconnecting", "disconnected")
    return not [name for person in people for name, _ in person.events if name in told]


async def test_a_node_that_alone_has_lost_redis_is_not_ready_until_it_has_it_again(cluster, third, way, join, room):
    ann, bob = await asyncio.gather(join("ann", 0), join("bob", third))
    await ann.publish_colour(RED)
    await bob.sees("ann", RED)
    way.refuse()
    await until("it is not ready", lambda: is_not_ready(third), within=NOTICED_SECONDS)
    async with aiohttp.ClientSession() as session, session.get(f"{third.http}/readyz") as answer:
        assert (answer.status, await answer.text()) == (404, "cut off")
    async with aiohttp.ClientSession() as session, session.get(f"{third.http}/healthz") as answer:
        assert answer.status == 200
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{third.http}/rtc/validate?access_token={third.token(room, 'eve')}") as answer:
            assert answer.status == 503, "balancers try another node"
    assert [await ready(node) for node in cluster.nodes[:2]] == [200, 200]
    assert third.metric("plenary_cluster_lease_missed_total") > 0
    way.accept()
    await until("it is ready again", lambda: is_ready(third), within=NOTICED_SECONDS)
    await asyncio.wait_for(ann.me.set_metadata(word := secrets.token_hex(4)), 10)
    await until("bob hears of it", lambda: bob.other("ann") and bob.other("ann").metadata == word)
    await bob.sees("ann", RED)


async def test_the_people_of_a_node_that_alone_has_lost_redis_are_moved_to_others(cluster, third, way, door, join):
    ann, bob = await asyncio.gather(join("ann", 0), join("bob", door))
    await ann.publish_colour(RED)
    await bob.sees("ann", RED)
    before = ann.other("bob").sid
    way.refuse()
    await until("it is not ready", lambda: is_not_ready(third), within=NOTICED_SECONDS)
    # As a balancer does it.
    door.lead_to(cluster.nodes[1].port)
    await until("bob is back", lambda: ann.other("bob") and ann.other("bob").sid != before, within=15)
    await bob.sees("ann", RED)
    # Meanwhile the others close their links to it, and nobody tells it any more that they reach Redis.
    await stays(NOTICED_SECONDS, lambda: ready(third), 404)
    way.accept()
    await until("it is ready again", lambda: is_ready(third), within=NOTICED_SECONDS)


async def test_when_all_have_lost_redis_all_stay_ready(cluster, third, join):
    ann, bob = await asyncio.gather(join("ann", 0), join("bob", third))
    await ann.publish_colour(RED)
    await bob.sees("ann", RED)
    cluster.redis.kill()
    await all_stay_ready_for(2 * NOTICED_SECONDS, cluster)
    await bob.sees("ann", RED)
    cluster.redis.start()
    # They hear of it one after the other.
    await all_stay_ready_for(NOTICED_SECONDS, cluster)
    await until("a call is answered again", lambda: lists(cluster.nodes[0]))
    assert unmoved(ann, bob)


async def test_a_node_without_links_stays_ready_without_redis(third, way):
    way.refuse()
    await until("it has noticed", lambda: third.metric("plenary_cluster_lease_missed_total") >= NOTICED_SECONDS, 20)
    assert await ready(third) == 200


async def test_no_password_and_no_key_of_a_cluster_is_shown(cluster, room):
    password, key = secrets.token_hex(8), f"a-key-for-this-test-alone-{secrets.token_hex(8)}"
    cluster.redis.ask("ACL", "SETUSER", "someone", "on", f">{password}", "~*", "&*", "+@all")
    admin = free_port()
    node = cluster.node(
        PLENARY__CLUSTER__REDIS=f"redis://someone:{password}@127.0.0.1:{cluster.redis.port}",
        PLENARY__CLUSTER__KEY=key,
        PLENARY__CLUSTER__PREFIX="alone:",
        PLENARY__ADMIN__BIND=f"127.0.0.1:{admin}",
        PLENARY__LOG__FILTER="info,plenary=trace,plenary_cluster=trace,redis=trace",
    )
    ann = Person("ann")
    try:
        await ann.join(node.url, node.token(room, "ann"))
        assert node.metric("plenary_redis_command_duration_seconds_count", command="join", outcome="answered") == 1
        cluster.redis.ask("ACL", "SETUSER", "someone", "resetpass", ">another")
        cluster.redis.ask("CLIENT", "KILL", "USER", "someone")
        failed = lambda: node.metric("plenary_redis_command_duration_seconds_count", outcome="failed")  # noqa: E731
        await until("it is let in no more", failed)
        token = node.token("", "operator", room_join=False, room_admin=True, room_create=True)
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
            async with session.get(f"http://127.0.0.1:{node.metrics_port}/metrics") as page:
                shown = await page.text()
            async with session.get(f"http://127.0.0.1:{admin}/admin/v1/node") as page:
                shown += await page.text()
            async with session.get(f"http://127.0.0.1:{admin}/admin/v1/bans") as page:
                shown += await page.text()
    finally:
        await ann.close()
        node.stop()
        cluster.redis.ask("ACL", "DELUSER", "someone")
    assert "Redis fails" in node.log
    assert password not in node.log + shown
    assert key not in node.log + shown


async def test_a_node_that_reads_too_slowly_is_cut_off_and_reads_anew(cluster, third, join, room):
    ann, bob = await asyncio.gather(join("ann", 0), join("bob", third))
    await asyncio.gather(ann.knows(bob), bob.knows(ann))
    cluster.redis.ask("CONFIG", "SET", "client-output-buffer-limit", "pubsub 64kb 64kb 1")
    client = cluster.nodes[0].room_api()
    try:
        before = third.metric("plenary_redis_missed_total", reason="disconnected")
        third.pause()
        for number in range(40):
            big = f"{number} ".ljust(300_000, "x")
            await client.room.update_room_metadata(api.UpdateRoomMetadataRequest(room=room, metadata=big))
        third.wake()
        await until("its connection was cut", lambda: third.metric("plenary_redis_missed_total", reason="disconnected") > before)
        await until("it knows the last word", lambda: bob.room.metadata.startswith("39 "))
        await client.room.update_room_metadata(api.UpdateRoomMetadataRequest(room=room, metadata="and goes on"))
        await until("it hears the next", lambda: bob.room.metadata == "and goes on")
        assert not [args for name, args in ann.events if name == "participant_disconnected"]
    finally:
        third.wake()
        cluster.redis.ask("CONFIG", "SET", "client-output-buffer-limit", "pubsub 32mb 8mb 60")
        await client.aclose()


async def is_not_ready(node: Server) -> bool:
    return await ready(node) == 404


async def is_ready(node: Server) -> bool:
    return await ready(node) == 200


async def lists(node: Server) -> bool:
    client = node.room_api()
    try:
        await client.room.list_rooms(api.ListRoomsRequest())
        return True
    except api.ServerError:
        return False
    finally:
        await client.aclose()


async def test_a_redis_that_went_back_in_time_is_told_what_happened_since(cluster, join, room):
    rooms = [node.room_api() for node in cluster.nodes[:2]]
    truth = {"ann": "after", "bob": "", "cat": ""}
    ann, bob, dan = await asyncio.gather(
        join("ann", 0), join("bob", 1), join("dan", 1)
    )
    await asyncio.gather(ann.knows(bob, dan), bob.knows(ann, dan))
    await asyncio.wait_for(ann.me.set_metadata("before"), 5)
    assert cluster.redis.ask("SAVE") == "OK"
    await asyncio.wait_for(ann.me.set_metadata("after"), 5)
    await dan.leave()
    await asyncio.gather(ann.misses("dan"), bob.misses("dan"))
    cat = await join("cat", 0)
    await asyncio.gather(ann.knows(cat), bob.knows(cat))
    await until("bob has seen it", lambda: bob.other("ann").metadata == "after")
    # It starts from what it saved.
    cluster.redis.kill()
    cluster.redis.start()
    try:

        async def as_it_is() -> bool:
            for client in rooms:
                try:
                    listed = await client.room.list_participants(api.ListParticipantsRequest(room=room))
                except api.ServerError:
                    return False
                if {one.identity: one.metadata for one in listed.participants} != truth:
                    return False
            return True

        # Whom the dump says is served by a node that does not is removed some seconds later.
        await until("Redis knows what is so", as_it_is, 20)
        # And the history goes on for everybody.
        eve = await join("eve", 1)
        await asyncio.gather(*(one.knows("eve") for one in (ann, bob, cat)), eve.knows(ann, bob, cat))
        await asyncio.wait_for(bob.me.set_metadata("news"), 10)
        await until("all hear of it", lambda: all(one.other("bob").metadata == "news" for one in (ann, cat, eve)))
        gone = "participant_disconnected"
        told = {args[0].identity for one in (ann, bob, cat) for name, args in one.events if name == gone}
        assert told <= {"dan"}
    finally:
        await asyncio.gather(*(client.aclose() for client in rooms))
