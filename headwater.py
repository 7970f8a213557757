"""Headwater embedded in a Python program: a broker for tests, in a process of its own.

    from headwater import EmbeddedBroker

    with EmbeddedBroker() as broker:
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)

Its records live in memory and are gone with it. This module imports nothing but the standard
library, and the child process gets an import path of its own: a project that has packages named
`broker` or `protocol` keeps them, and the broker keeps its own.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

__all__ = ["EmbeddedBroker", "EmbeddedBrokerFailed"]

# -I: neither the current directory nor PYTHONPATH nor the user's own packages are looked into.
_CHILD = (
    "import sys\n"
    "root = sys.argv[1]\n"
    "if root not in sys.path: sys.path.insert(0, root)\n"
    "from broker.embedded import main\n"
    "sys.exit(main(sys.argv[2:]))\n"
)
_READY = "headwater is ready: kafka "


class EmbeddedBrokerFailed(RuntimeError):
    """The broker did not start; the message holds what it said."""


class EmbeddedBroker:
    """A broker on the memory store, at a free port of 127.0.0.1. Use it as a context manager.

    settings: any key that `headwater config` prints. The broker differs from the defaults in one
    of them: `group.initial.rebalance.delay.ms` is 0, since tests do not like to wait.
    It ends with this process, however that ends.
    """

    def __init__(
        self, settings: Mapping[str, str] | None = None, *, start_timeout_s: float = 30.0
    ) -> None:
        self._settings = dict(settings or {})
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._addresses: tuple[str, str] | None = None

    @property
    def bootstrap_servers(self) -> str:
        """HOST:PORT, for any Kafka client."""
        return self._started()[0]

    @property
    def http_address(self) -> str:
        """HOST:PORT of /healthz, /readyz and /metrics."""
        return self._started()[1]

    @property
    def pid(self) -> int:
        """Process id of the broker."""
        if self._process is None:
            raise EmbeddedBrokerFailed("the broker is not running: use `with EmbeddedBroker()`")
        return self._process.pid

    def _started(self) -> tuple[str, str]:
        if self._addresses is None:
            raise EmbeddedBrokerFailed("the broker is not running: use `with EmbeddedBroker()`")
        return self._addresses

    def __enter__(self) -> EmbeddedBroker:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when clients are served. Raises EmbeddedBrokerFailed."""
        if self._process is not None:
            raise EmbeddedBrokerFailed("the broker is running already")
        root = str(Path(__file__).resolve().parent)
        settings = [f"{key}={value}" for key, value in self._settings.items()]
        with tempfile.TemporaryFile() as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _CHILD, root, *settings],
                # The child ends when this pipe does: with us, even if we are killed.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                # Ctrl-C is for the test; the broker is told by the pipe.
                start_new_session=True,
            )
            try:
                self._addresses = _parse_ready(self._read_line())
            except BaseException as error:
                self.kill()
                if not isinstance(error, EmbeddedBrokerFailed):
                    raise
                errors.seek(0)
                said = errors.read().decode("utf-8", "replace").strip()
                raise EmbeddedBrokerFailed(f"{error}\n{said}".strip()) from None

    def _read_line(self) -> str:
        assert self._process is not None and self._process.stdout is not None
        out = self._process.stdout.fileno()
        deadline = time.monotonic() + self._start_timeout_s
        line = b""
        while not line.endswith(b"\n"):
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([out], [], [], left_s)[0]:
                raise EmbeddedBrokerFailed(
                    f"the broker is not ready after {self._start_timeout_s:g} s"
                )
            data = os.read(out, 4096)
            if not data:
                raise EmbeddedBrokerFailed("the broker ended before it was ready")
            line += data
        return line.decode()

    def stop(self, timeout_s: float = 8.0) -> None:
        """Ends the broker; does nothing where it has ended."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pass
        self.kill()

    def kill(self) -> None:
        """Ends the broker at once, as `kill -9` does."""
        process, self._process = self._process, None
        self._addresses = None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _parse_ready(line: str) -> tuple[str, str]:
    if not line.startswith(_READY):
        raise EmbeddedBrokerFailed(f"unexpected words of the broker: {line.strip()}")
    words = line.split()
    return words[4], words[6]
