"""Nodes of one cluster and the Redis between them."""

import subprocess
import tempfile
import time

from harness import Server, free_port

# Nodes end at once unless a test is about how they do.
PROMPT = {"PLENARY__DRAIN__ACCEPT_FOR": "0s", "PLENARY__DRAIN__DEADLINE": "1s"}
CLUSTER_KEY = "a cluster key for tests, which is long enough"


class RedisServer:
    """A redis-server of one's own on 127.0.0.1, which forgets everything when it stops unless told to append."""

    def __init__(self, appends: bool = False, *arguments: str) -> None:
        self._arguments = arguments
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._directory = tempfile.TemporaryDirectory()
        self._appends = "yes" if appends else "no"
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--appendonly", self._appends, "--dir", self._directory.name, *self._arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 10
        while self.ask("PING") != "PONG":
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.02)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def ask(self, *command: str) -> str:
        asked = subprocess.run(
            ["redis-cli", "-p", str(self.port), *command], capture_output=True, text=True, timeout=10
        )
        return asked.stdout.strip()

    def close(self) -> None:
        self.kill()
        self._directory.cleanup()


class Cluster:
    """Nodes that share a Redis, each with its own address."""

    def __init__(self, size: int, **environment: str) -> None:
        self.redis = RedisServer()
        self._environment = environment
        self.nodes = [self.node() for _ in range(size)]

    def node(self, port: int | None = None, **environment: str) -> Server:
        common = {
            "PLENARY__CLUSTER__REDIS": self.redis.url,
            "PLENARY__CLUSTER__KEY": CLUSTER_KEY,
            "PLENARY__METRICS__BIND": f"127.0.0.1:{free_port()}",
        }
        return Server(port, **{**common, **PROMPT, **self._environment, **environment})

    def close(self) -> None:
        for node in self.nodes:
            node.stop()
        self.redis.close()

    @property
    def log(self) -> str:
        return "\n".join(f"--- node {at}\n{node.log}" for at, node in enumerate(self.nodes))


