"""What strangers and members do to the doors, while two people hear each other: nothing grows, and nobody else notices."""

import asyncio
import base64
import contextlib
import gzip
import os
import secrets
import socket
import urllib.error
import urllib.request

import pytest_asyncio
from livekit import api

from harness import until

MIB = 1 << 20


@pytest_asyncio.fixture
async def bystanders(join):
    """Ann and bob. Afterwards neither has missed anything."""
    ann, bob = await asyncio.gather(join("ann"), join("bob"))
    await asyncio.gather(ann.publish_tone(440), bob.publish_tone(660))
    await asyncio.gather(bob.hears("ann", 440), ann.hears("bob", 660))
    ears = [ann.ears["bob"], bob.ears["ann"]]
    for person, ear in zip((ann, bob), ears, strict=True):
        person.events.clear()
        ear.mark()
    yield ann, bob
    await until("three seconds of sound", lambda: all(len(ear.tenths) > 30 for ear in ears))
    for ear in ears:
        loudness = "".join("." if rms < 0.1 else "#" for rms in ear.tenths)
        assert "...." not in loudness, f"silent tenths: {loudness}"
    for person in (ann, bob):
        seen = {name for name, _ in person.events}
        assert not {"reconnecting", "reconnected", "disconnected"} & seen


async def test_a_compressed_body_that_swells_beyond_the_limit_is_refused(server, bystanders):
    # In a thread, as whatever else takes long here: the bystanders' sound comes from this process.
    bomb = await asyncio.to_thread(lambda: gzip.compress(b'{"names":["' + b"x" * (200 * MIB) + b'"]}', 1))
    assert len(bomb) < 2 * MIB

    def call() -> int:
        request = urllib.request.Request(
            f"{server.http}/twirp/livekit.RoomService/ListRooms",
            bomb,
            {
                "Authorization": f"Bearer {server.token('any', 'admin', room_list=True)}",
                "Content-Type": "application/json",
                "Content-Encoding": "gzip",
            },
        )
        try:
            with urllib.request.urlopen(request) as response:
                return response.status
        except urllib.error.HTTPError as error:
            return error.code

    async def bombs() -> None:
        for _ in range(10):
            assert set(await asyncio.gather(*(asyncio.to_thread(call) for _ in range(4)))) == {413}

    await leaves_the_server_as_large_as_before(server, bombs)


async def test_ten_thousand_idle_sockets_are_let_go_and_keep_nobody_out(server, bystanders, join):
    ann, bob = bystanders
    descriptors = f"/proc/{server.pid}/fd"
    ordinary = len(os.listdir(descriptors))

    async def held() -> int:
        return len(await asyncio.to_thread(os.listdir, descriptors))

    def connect() -> list[socket.socket]:
        return [socket.create_connection(("127.0.0.1", server.port)) for _ in range(IDLE_SOCKETS)]

    async def idle() -> None:
        sockets = await asyncio.to_thread(connect)
        try:
            most = await held()
            print(f"{len(sockets)} connected, the server had {most} descriptors")
            assert most > IDLE_SOCKETS // 2, "they are idle at the same time"
            cat = await join("cat")
            await asyncio.gather(cat.knows(ann, bob), bob.knows(cat))
            await cat.leave()

            async def gone() -> bool:
                return await held() < ordinary + 100

            # No request within five seconds, and the door hangs up.
            await until("they are gone", gone, 30, every=0.5)
        finally:
            await asyncio.to_thread(lambda: [one.close() for one in sockets])

    await leaves_the_server_as_large_as_before(server, idle)


async def test_a_socket_that_is_not_read_is_cut_and_costs_the_others_nothing(server, bystanders, room, room_api):
    ann, _ = bystanders
    mallory = await silent_socket(server, room)
    await ann.knows("mallory")
    before = server.resident_bytes()
    with contextlib.closing(mallory):
        for number in range(10_000):
            metadata = f"{number} " + "m" * 20_000
            await room_api.update_room_metadata(api.UpdateRoomMetadataRequest(room=room, metadata=metadata))
            if "slow_consumer" in server.log:
                break
            # The store answers before the room has told its people; a room that falls behind tells the last word alone.
            await asyncio.sleep(0.002)
        assert "slow_consumer" in server.log
    assert server.resident_bytes() - before < QUEUES_MAX
    await until("ann has the newest", lambda: ann.room.metadata == metadata)


async def leaves_the_server_as_large_as_before(server, attack) -> None:
    """What allocators keep for good they take the first times."""
    sizes = [server.resident_bytes()]
    for _ in range(4):
        await attack()
        sizes.append(server.resident_bytes())
    said = ", ".join(f"{size / MIB:.0f}" for size in sizes)
    print(f"resident MiB, before and after each time: {said}")
    assert sizes[-1] - max(sizes[1:-1]) < GROWTH_MAX, said


async def silent_socket(server, room: str) -> socket.socket:
    """Upgrades, offering compression that would be a bomb's way in, and reads nothing but the answer to that."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(one, ("127.0.0.1", server.port))
    token = server.token(room, "mallory")
    await loop.sock_sendall(
        one,
        f"GET /rtc?access_token={token}&protocol=15&auto_subscribe=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
        f"Sec-WebSocket-Key: {base64.b64encode(secrets.token_bytes(16)).decode()}\r\n\r\n".encode(),
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += await loop.sock_recv(one, 1)
    assert head.startswith(b"HTTP/1.1 101"), head
    assert b"sec-websocket-extensions" not in head.lower()
    return one


GROWTH_MAX = 24 * MIB

# A mailbox and a backlog full of messages of 20 kB, shared with those that wait for others.
QUEUES_MAX = 64 * MIB

# Or what the server's descriptors allow, of which it keeps two for each connection.
IDLE_SOCKETS = min(10_000, os.sysconf("SC_OPEN_MAX") // 2 - 500)
