"""HAProxy before the nodes of a cluster, with the configuration that Plenary ships."""

import os
import pathlib
import subprocess
import tempfile
import time
import urllib.request

from harness import LOG_SHOWN, Server, free_port

SHIPPED = pathlib.Path(__file__).resolve().parents[4] / "deploy/haproxy/haproxy.cfg"
PLACED = "balance hash var(txn.room)"


class Balancer:
    """`in_turn` changes its one line, so that the people of a room part."""

    def __init__(self, nodes: list[Server], in_turn: bool = False) -> None:
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}"
        self.http = f"http://127.0.0.1:{self.port}"
        text = SHIPPED.read_text()
        assert text.count(PLACED) == 1
        self._config = tempfile.NamedTemporaryFile("w", suffix=".cfg")
        self._config.write(text.replace(PLACED, "balance roundrobin") if in_turn else text)
        self._config.flush()
        self._environment = {
            "PATH": f"{os.environ['PATH']}:/usr/sbin",
            "PLENARY_BIND": f"127.0.0.1:{self.port}",
            **{f"PLENARY_NODE{at}": f"127.0.0.1:{node.port}" for at, node in enumerate(nodes, 1)},
        }
        self._log = tempfile.TemporaryFile()
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["haproxy", "-f", self._config.name],
            env=self._environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
        )  # fmt: skip
        deadline = time.monotonic() + 10
        while not self.answers():
            assert time.monotonic() < deadline and self._process.poll() is None, f"HAProxy did not start:\n{self.log}"
            time.sleep(0.05)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.http}/healthz", timeout=1):
                return True
        except OSError:
            return False

    def uses(self, node: int) -> bool:
        """Whether it sends requests there, the first being 1, by what it logs of some that have no room."""
        before = len(self._whole_log())
        for _ in range(6):
            self.answers()
        return f"nodes/node{node} " in self._whole_log()[before:]

    @property
    def log(self) -> str:
        return self._whole_log()[-LOG_SHOWN:]

    def close(self) -> None:
        self.kill()
        self._config.close()

    def _whole_log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")


def checked() -> str:
    """What HAProxy has to say against the file as it is shipped."""
    ran = subprocess.run(
        ["haproxy", "-c", "-q", "-f", str(SHIPPED)],
        env={"PATH": f"{os.environ['PATH']}:/usr/sbin"}, capture_output=True, text=True, timeout=10,
    )  # fmt: skip
    return ran.stdout + ran.stderr if ran.returncode or ran.stderr else ""
