"""Keys that change while the server runs."""

import datetime

import aiohttp
import pytest
from livekit import api

from harness import Server, until

OLD, NEW = "an-old-secret-which-is-long-enough-to-be-one", "a-new-secret-which-is-long-enough-to-be-one"


@pytest.fixture
def keys_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"host: {OLD}\n")
    return path


@pytest.fixture
def server(keys_file):
    running = Server(PLENARY__KEYS_FILE=str(keys_file))
    yield running
    assert running.stop() == 0


def token(secret: str) -> str:
    grants = api.VideoGrants(room_join=True, room="r")
    minted = api.AccessToken("host", secret).with_identity("ann").with_grants(grants)
    return minted.with_ttl(datetime.timedelta(minutes=5)).to_jwt()


async def status(server: Server, secret: str) -> int:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{server.http}/rtc/validate", params={"access_token": token(secret)}) as answer:
            return answer.status


async def test_keys_are_read_again_when_asked_or_changed_and_kept_when_unusable(server, keys_file):
    assert (await status(server, OLD), await status(server, NEW)) == (200, 401)

    async def is_good(secret: str) -> bool:
        return await status(server, secret) == 200

    keys_file.write_text(f"host: {NEW}\nhost: {OLD}\n")
    server.hang_up()
    await until("the new secret is good after SIGHUP", lambda: is_good(NEW))
    assert await is_good(OLD), "while a secret is rotated both are good"

    keys_file.write_text("host without a secret")
    await until("the log says why nothing changed", lambda: "keys not reloaded" in server.log)
    assert str(keys_file) in server.log
    assert await is_good(NEW) and await is_good(OLD)

    keys_file.write_text(f"host: {NEW}\n")
    await until("a change is noticed without a signal", lambda: is_not_good(server, OLD))
    assert await is_good(NEW)
    assert OLD not in server.log and NEW not in server.log


async def is_not_good(server: Server, secret: str) -> bool:
    return await status(server, secret) == 401
