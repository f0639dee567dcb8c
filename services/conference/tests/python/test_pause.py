"""A node that slept beyond its lease and does not know it: the others go on without its people, and it asks before it acts."""

import asyncio

from livekit import api
from livekit.protocol.rtc import SignalResponse

from harness import open_socket, until

NODES = 3
ASLEEP_SECONDS = 15
GHOSTS_GONE_SECONDS = 10


async def test_a_node_that_wakes_after_its_lease_undoes_nothing(cluster, join, room):
    awake, asleep, other = cluster.nodes
    ann = await join("ann", awake)
    # Bare signalling: SDKs would reconnect to the only node they know, and come back by themselves.
    bob = await open_socket(asleep, room, "bob")
    carol = await open_socket(asleep, room, "carol")
    await ann.knows("bob", "carol")
    client = awake.room_api()

    async def listed() -> dict[str, str]:
        answer = await client.room.list_participants(api.ListParticipantsRequest(room=room))
        return {one.identity: one.sid for one in answer.participants}

    try:
        loop = asyncio.get_running_loop()
        slept_from = loop.time()
        asleep.pause()
        for ghost in ("bob", "carol"):
            await ann.misses(ghost, within=GHOSTS_GONE_SECONDS)
        assert set(await listed()) == {"ann"}
        again = await join("bob", other)
        await ann.knows("bob")
        ann.events.clear()
        await asyncio.sleep(max(0.0, slept_from + ASLEEP_SECONDS - loop.time()))
        asleep.wake()
        for socket, who in ((bob, "bob"), (carol, "carol")):
            await until(f"{who}'s old session is over", lambda: is_over(socket), within=5)
        now = await listed()
        assert now == {"ann": ann.me.sid, "bob": again.me.sid}
        assert not [name for name, _ in ann.events if name in ("participant_connected", "participant_disconnected")]
        # The node that slept is as good as the others.
        back = await join("carol", asleep)
        await asyncio.gather(ann.knows("carol"), back.knows("ann", "bob"))
        assert cluster.redis.ask("PING") == "PONG"
    finally:
        asleep.wake()
        await client.aclose()
        await asyncio.gather(bob.close(), carol.close())


async def test_a_nap_within_the_lease_moves_nobody(cluster, join, room):
    awake, asleep, _ = cluster.nodes
    ann, bob = await asyncio.gather(join("ann", awake), join("bob", asleep))
    await asyncio.gather(ann.knows(bob), bob.knows(ann))
    asleep.pause()
    await asyncio.sleep(1.5)
    asleep.wake()
    await bob.me.publish_data("awake")
    await ann.receives("awake")
    for one in (ann, bob):
        assert not [name for name, _ in one.events if name in ("participant_disconnected", "reconnecting")]


async def is_over(socket) -> bool:
    try:
        frame = await asyncio.wait_for(socket.receive(), 0.05)
    except asyncio.TimeoutError:
        return False
    return frame.type.name in ("CLOSE", "CLOSING", "CLOSED") or is_leave(frame.data)


def is_leave(data: bytes) -> bool:
    return SignalResponse.FromString(data).WhichOneof("message") == "leave"
