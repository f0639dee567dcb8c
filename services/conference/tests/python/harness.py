"""A Plenary of one's own, a relay that fails on demand, and waiting without sleeping."""

import asyncio
import datetime
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import aiohttp
from livekit import api
from livekit.protocol.rtc import SignalResponse

KEY = "test-key"
SECRET = "test-secret-which-is-long-enough-to-be-one"
START_SECONDS = 15
STOP_SECONDS = 10
LOG_SHOWN = 20_000


class Server:
    """A server process on free ports of 127.0.0.1, whose log is kept and which is always ended."""

    def __init__(self, port: int | None = None, program: str = "plenary", **environment: str) -> None:
        self.port = port or free_port()
        self.url = f"ws://127.0.0.1:{self.port}"
        self.http = f"http://127.0.0.1:{self.port}"
        # Only where a test says so; the server then shows its metrics there.
        self.metrics_port = int(environment.get("PLENARY__METRICS__BIND", "off:0").rpartition(":")[2])
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [binary(program)],
            env={
                "PATH": os.environ["PATH"],
                "PLENARY_KEYS": f"{KEY}: {SECRET}",
                "PLENARY__HTTP__BIND": f"127.0.0.1:{self.port}",
                "PLENARY__METRICS__BIND": "off",
                # Zero takes any free port; the server tells its clients which.
                "PLENARY__MEDIA__UDP_PORT": "0",
                "PLENARY__MEDIA__TCP_PORT": "0",
                "PLENARY__LOG__FORMAT": "text",
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        self._wait_until_ready()

    @property
    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-LOG_SHOWN:]

    def token(self, room: str, identity: str, *, ttl_seconds: int = 3600, **grants) -> str:
        grants = {"room_join": True, "room": room, "can_update_own_metadata": True, **grants}
        return (
            api.AccessToken(KEY, SECRET)
            .with_identity(identity)
            .with_ttl(datetime.timedelta(seconds=ttl_seconds))
            .with_grants(api.VideoGrants(**grants))
            .to_jwt()
        )

    def room_api(self) -> api.LiveKitAPI:
        return api.LiveKitAPI(self.http, KEY, SECRET)

    @property
    def nodes(self) -> list["Server"]:
        """Alone, it is a cluster of one."""
        return [self]

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def resident_bytes(self) -> int:
        pages = pathlib.Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """It sleeps, and does not know."""
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all that has these labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as page:
            lines = page.read().decode().splitlines()
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        fits = (line for line in lines if line.split("{")[0].split(" ")[0] == name and all(one in line for one in wanted))
        return sum(float(line.rsplit(" ", 1)[1]) for line in fits)

    def hang_up(self) -> None:
        """Asks it to read its keys again."""
        self._process.send_signal(signal.SIGHUP)

    def terminate(self) -> None:
        """Asks it to end."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float) -> int:
        """Until it has ended; returns its exit code."""
        return self._process.wait(seconds)

    def stop(self) -> int:
        """Asks it to end, makes sure, and returns its exit code."""
        if self.runs:
            self.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._process.returncode

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.runs:
            try:
                with urllib.request.urlopen(f"{self.http}/readyz", timeout=1):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"the server did not start:\n{self.log}")


class Relay:
    """A TCP relay: what a bad network does to signalling, while media goes its own way."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._refusing = False
        self._server: asyncio.Server | None = None
        # What clients say, and what the server hears instead.
        self.misheard: tuple[bytes, bytes] = (b"", b"")

    async def start(self) -> "Relay":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """Resets every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    def refuse(self) -> None:
        """Resets every connection, now and until `accept`."""
        self._refusing = True
        self.cut()

    def accept(self) -> None:
        self._refusing = False

    def lead_to(self, target: int) -> None:
        """Where connections go from now on; those that are open stay."""
        self._target = target

    def close(self) -> None:
        self.refuse()
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, up_writer}
        try:
            await asyncio.gather(_pump(reader, up_writer, self.misheard), _pump(up_reader, writer))
        finally:
            self._writers -= {writer, up_writer}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, misheard=(b"", b"")) -> None:
    said, heard = misheard
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk.replace(said, heard) if said else chunk)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def open_socket(node: Server, room: str, identity: str) -> aiohttp.ClientWebSocketResponse:
    """A person of bare signalling, which does nothing by itself, after its first message."""
    session = aiohttp.ClientSession()
    socket = await session.ws_connect(f"{node.url}/rtc?access_token={node.token(room, identity)}&protocol=16")
    first = SignalResponse.FromString((await asyncio.wait_for(socket.receive(), 5)).data)
    assert first.WhichOneof("message") == "join", first
    return socket


async def until(what: str, probe, within: float = 10, every: float = 0.05):
    """Asks until the answer is truthy and returns it; what it was last is in the error."""
    deadline = asyncio.get_running_loop().time() + within
    while True:
        last = probe()
        if asyncio.iscoroutine(last):
            last = await last
        if last:
            return last
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {within} s: {what}; last: {last!r}")
        await asyncio.sleep(every)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def binary(program: str) -> str:
    if program == "plenary" and (given := os.environ.get("PLENARY_BIN")):
        return given
    root = pathlib.Path(__file__).resolve().parents[4]
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    for profile in ("release", "debug"):
        if (path := target / profile / program).exists():
            return str(path)
    raise RuntimeError(f"no {program} in {target}: `.ci/test build` builds it, or set PLENARY_BIN for plenary")
