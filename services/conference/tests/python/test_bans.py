"""People who are kept out: in the middle of a call, at the door, on their way back, and until it is over."""

import time

import aiohttp
import jwt
import pytest
import pytest_asyncio
from livekit import api, rtc
from livekit.protocol import models as proto_models
from livekit.protocol import rtc as proto

from harness import KEY, SECRET, Server, free_port

HOUR = 3600


@pytest.fixture(scope="module")
def server():
    admin = f"127.0.0.1:{free_port()}"
    running = Server(PLENARY__ADMIN__BIND=admin)
    running.admin = f"http://{admin}/admin/v1"
    yield running
    code = running.stop()
    assert code == 0, f"the server ended with {code}:\n{running.log}"


@pytest_asyncio.fixture
async def http():
    async with aiohttp.ClientSession() as session:
        yield session


def bearer(room: str | None) -> dict:
    """Of somebody who administers a room, or all of them."""
    grants = api.VideoGrants(room_admin=True, room=room) if room else api.VideoGrants(room_admin=True, room_create=True)
    return {"Authorization": f"Bearer {api.AccessToken(KEY, SECRET).with_grants(grants).to_jwt()}"}


@pytest.fixture
def administer(server, http):
    async def call(verb: str, room: str | None, identity: str, **more) -> int:
        body = {"identity": identity, **({"room": room} if room else {}), **more}
        async with http.post(f"{server.admin}/{verb}", json=body, headers=bearer(room)) as answer:
            return answer.status

    return call


@pytest.fixture
def verdict(server, http):
    async def ask(token: str) -> tuple[int, str]:
        async with http.get(f"{server.http}/rtc/validate", params={"access_token": token}) as answer:
            return answer.status, await answer.text()

    return ask


def issued(room: str, identity: str, at: int) -> str:
    video = {"roomJoin": True, "room": room}
    claims = {"iss": KEY, "sub": identity, "nbf": at, "exp": int(time.time()) + HOUR, "video": video}
    return jwt.encode(claims, SECRET, algorithm="HS256")


class Signal:
    """A signalling socket without an SDK, which would hide what the server says."""

    def __init__(self, session: aiohttp.ClientSession, server: Server) -> None:
        self._session, self._server = session, server

    async def open(self, token: str, **query) -> "Signal":
        query = {"access_token": token, "protocol": "16", "sdk": "test", **query}
        self._socket = await self._session.ws_connect(f"{self._server.http}/rtc", params=query)
        return self

    async def refused(self, token: str, **query) -> int:
        with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
            await self.open(token, **query)
        return raised.value.status

    async def hears(self, kind: str):
        async for frame in self._socket:
            said = proto.SignalResponse.FromString(frame.data)
            if said.WhichOneof("message") == kind:
                return getattr(said, kind)
        raise AssertionError(f"the socket closed without {kind}")

    async def ends(self) -> None:
        async for _ in self._socket:
            pass


async def test_a_ban_ends_the_call_for_good(server, join, room, administer, verdict):
    ann, bob = await join("ann"), await join("bob")
    await bob.knows("ann")
    assert await verdict(server.token(room, "ann")) == (200, "success")
    asked = time.monotonic()
    assert await administer("ban", room, "ann", until=int(time.time()) + HOUR) == 204
    (reason,) = await ann.event("disconnected")
    print(f"banned and gone after {time.monotonic() - asked:.3f} s")
    assert reason == rtc.DisconnectReason.PARTICIPANT_REMOVED
    await bob.misses("ann")
    assert "reconnecting" not in [name for name, _ in ann.events]

    assert await verdict(server.token(room, "ann")) == (403, "participant is banned")
    with pytest.raises(rtc.ConnectError):
        await join("ann")
    assert await verdict(server.token(f"{room}-other", "ann")) == (200, "success")
    assert await administer("unban", room, "ann") == 204
    assert await administer("unban", room, "ann") == 404
    await join("ann")
    await bob.knows("ann")


async def test_neither_a_resume_nor_a_refreshed_token_leads_back(server, http, room, administer, verdict):
    token = server.token(room, "ann")
    socket = await Signal(http, server).open(token)
    sid = (await socket.hears("join")).participant.sid
    refreshed = await socket.hears("refresh_token")
    assert await verdict(refreshed) == (200, "success")

    assert await administer("ban", room, "ann", until=int(time.time()) + HOUR) == 204
    leave = await socket.hears("leave")
    assert (leave.reason, leave.action) == (
        proto_models.DisconnectReason.PARTICIPANT_REMOVED,
        proto.LeaveRequest.Action.DISCONNECT,
    )
    assert not leave.can_reconnect
    await socket.ends()
    for way_back in (token, refreshed):
        assert await Signal(http, server).refused(way_back, reconnect="1", sid=sid) == 403
        assert await Signal(http, server).refused(way_back) == 403
        assert await verdict(way_back) == (403, "participant is banned")


async def test_a_removal_can_revoke_the_tokens_so_far(server, http, room, room_api, verdict):
    now = int(time.time())
    socket = await Signal(http, server).open(issued(room, "ann", now - 10))
    await socket.hears("join")
    refreshed = await socket.hears("refresh_token")
    await room_api.remove_participant(
        api.RoomParticipantIdentity(room=room, identity="ann", revoke_token_ts=now)
    )
    assert (await socket.hears("leave")).reason == proto_models.DisconnectReason.PARTICIPANT_REMOVED
    refused = (403, "the token has been revoked")
    assert await verdict(issued(room, "ann", now - 10)) == refused
    assert await verdict(issued(room, "ann", now - 1)) == refused
    assert await verdict(refreshed) == refused, "it was made after the moment, for a token from before"
    assert await verdict(issued(room, "bob", now - 10)) == (200, "success")
    again = await Signal(http, server).open(issued(room, "ann", now))
    await again.hears("join")

    # Nobody has to be there for it.
    nobody = api.RoomParticipantIdentity(room=room, identity="nobody", revoke_token_ts=now)
    await room_api.remove_participant(nobody)
    assert await verdict(issued(room, "nobody", now - 1)) == refused


async def test_a_plain_removal_leaves_the_token_as_it_is(join, room, room_api):
    ann = await join("ann")
    await room_api.remove_participant(api.RoomParticipantIdentity(room=room, identity="ann"))
    assert await ann.event("disconnected") == (rtc.DisconnectReason.PARTICIPANT_REMOVED,)
    await join("ann")


async def test_a_ban_from_every_room_ends_all_of_them(server, join, room, administer, verdict, http):
    other = f"{room}-other"
    here, there = await join("ann"), await join("ann", token=server.token(other, "ann"))
    assert await administer("ban", None, "ann", until=int(time.time()) + HOUR) == 204
    for ann in (here, there):
        assert await ann.event("disconnected") == (rtc.DisconnectReason.PARTICIPANT_REMOVED,)
    assert await verdict(server.token(f"{room}-third", "ann")) == (403, "participant is banned")
    async with http.get(f"{server.admin}/bans", headers=bearer(None)) as answer:
        listed = (await answer.json())["bans"]
    assert any(ban["identity"] == "ann" and "room" not in ban for ban in listed)
    assert await administer("unban", None, "ann") == 204


async def test_a_ban_must_end_and_begin_in_time(room, administer):
    now = int(time.time())
    for until in (0, now - 1, now + 400 * 24 * HOUR, now * 1000):
        assert await administer("ban", room, "ann", until=until) == 400, until


async def test_the_log_says_who_was_banned_and_shows_no_token(server, room, administer):
    assert await administer("ban", room, "ann", until=int(time.time()) + HOUR) == 204
    assert "bans changed" in server.log and "eyJ" not in server.log
