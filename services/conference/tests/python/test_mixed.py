"""A browser and a libwebrtc client in one room."""

import asyncio
import json
import pathlib

import pytest_asyncio

from harness import until
from media import RED

BRIDGE = pathlib.Path(__file__).resolve().parent.parent / "browser" / "bridge.js"


class Browser:
    """The page's `window.person`, one JSON line per call."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls) -> "Browser":
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec("node", str(BRIDGE), stdin=pipe, stdout=pipe, limit=1 << 24)
        browser = cls(process)
        await browser._answer()
        return browser

    async def call(self, method: str, *args):
        self._process.stdin.write(json.dumps({"method": method, "args": args}).encode() + b"\n")
        return await self._answer()

    async def reading(self, identity: str, key: str):
        snapshot = await self.call("snapshot")
        return snapshot["people"].get(identity, {}).get("tracks", {}).get(key, {}).get("reading")

    async def close(self) -> None:
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except asyncio.TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _answer(self):
        line = await asyncio.wait_for(self._process.stdout.readline(), 30)
        answer = json.loads(line)
        if "error" in answer:
            raise AssertionError(answer["error"])
        return answer["result"]


@pytest_asyncio.fixture
async def browser():
    running = await Browser.start()
    yield running
    await running.close()


async def test_a_browser_and_a_native_client_hear_see_and_write_to_each_other(browser, join, server, room):
    ann = await join("ann")
    outcome = await browser.call("join", {"url": server.url, "token": server.token(room, "bob")})
    assert outcome == {"joined": True}
    await ann.knows("bob")
    await asyncio.gather(ann.publish_tone(440), ann.publish_colour(RED))
    await browser.call("publishTone", {"frequency": 660})
    await browser.call("publishBoard", {"person": 2})

    async def tone_in_browser():
        reading = await browser.reading("ann", "tone")
        return reading and reading["level"] > -50 and abs(reading["frequency"] - 440) < 8

    await until("the browser hears the tone", tone_in_browser, 20)

    async def colour_in_browser():
        return await browser.call("centreColour", "ann", "colour")

    red = await until("the browser sees the colour", colour_in_browser, 20)
    assert red[0] > 150 and red[1] < 90 and red[2] < 90, red

    def browser_heard() -> bool:
        ear = ann.ears.get("bob")
        return ear is not None and abs(ear.hear().frequency - 660) < 8

    await until("ann hears the browser", browser_heard, 20)
    await until("ann sees the browser", lambda: "bob" in ann.eyes and ann.eyes["bob"].frames > 10, 20)

    await ann.me.publish_data("from ann")
    await browser.call("sendData", {"text": "from bob"})
    await ann.receives("from bob")

    async def received():
        return [one["text"] for one in await browser.call("received")] == ["from ann"]

    await until("the browser receives data", received)
    ann.me.register_rpc_method("reverse", lambda data: data.payload[::-1])
    assert await browser.call("callRpc", "ann", "reverse", "stressed") == {"answer": "desserts"}
