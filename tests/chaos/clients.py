"""Client processes: started with the cluster's addresses, ended in good order, read at any time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.peers.processes import HERE, ROOT

from . import history
from .client_settings import JAVA_CONSUMER, JAVA_PRODUCER
from .history import ClientHistory

ENDS_WITHIN_S = 180.0
RDKAFKA, AIOKAFKA, JAVA = "librdkafka", "aiokafka", "java"
KINDS = (RDKAFKA, AIOKAFKA, JAVA)
_MODULES = {RDKAFKA: "tests.chaos.client_rdkafka", AIOKAFKA: "tests.chaos.client_aio"}


class Client:
    """group: "" for a producer. told: what its process writes."""

    def __init__(
        self, name: str, kind: str, group: str, process: subprocess.Popen[bytes], told: Path
    ) -> None:
        self.name = name
        self.kind = kind
        self.group = group
        self.process = process
        self._told = told
        self._read_bytes = 0
        self._history = ClientHistory(name, group, spreads=kind != JAVA)
        self._ahead_s = time.time() - time.monotonic()

    def history(self) -> ClientHistory:
        """As of now; the same object every time, read on."""
        with self._told.open("rb") as file:
            file.seek(self._read_bytes)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        lines: Iterable[str] = whole.decode(errors="replace").splitlines()
        if self.kind == JAVA:
            lines = (json.dumps(one) for one in history.java_events(lines, self._ahead_s))
        history.add_events(self._history, lines)
        return self._history


class Load:
    """For each kind of client a producer and a group that reads everything; the group of librdkafka
    has two members, so that it rebalances.
    """

    def __init__(
        self, bootstrap: str, topic: str, directory: Path, kinds: Sequence[str], pause_s: float
    ) -> None:
        self.topic = topic
        self.clients: list[Client] = []
        self._bootstrap = bootstrap
        self._directory = directory
        for kind in kinds:
            self._start(kind, f"{kind}-1", group=kind)
            if kind == RDKAFKA:
                self._start(kind, f"{kind}-2", group=kind)
        for kind in kinds:
            self._start(kind, f"{kind}-producer", pause_s=pause_s)

    def histories(self) -> list[ClientHistory]:
        return [one.history() for one in self.clients]

    def done(self) -> dict[str, int]:
        """Records that each producer was told of, and that each group was given."""
        found: dict[str, int] = {}
        for one in self.clients:
            history = one.history()
            name = f"group {one.group}" if one.group else one.name
            count = len(history.delivered) if one.group else len(history.acknowledged)
            found[name] = found.get(name, 0) + count
        return found

    def finish(self) -> None:
        """Ends the producers first, and waits until groups have read what they sent."""
        self._end([one for one in self.clients if not one.group])
        acknowledged = sum(len(one.acknowledged) for one in self.histories())
        deadline = time.monotonic() + ENDS_WITHIN_S
        # A group that never gets there is the checker's finding, not an exception.
        while self._fewest_delivered() < acknowledged and time.monotonic() < deadline:
            time.sleep(0.2)
        self._end([one for one in self.clients if one.group])

    def kill(self) -> None:
        for one in self.clients:
            if one.process.poll() is None:
                one.process.kill()
            one.process.wait()

    def _fewest_delivered(self) -> int:
        places: dict[str, set[tuple[int, int]]] = {}
        for one in self.histories():
            if one.group:
                seen = {(given.partition, given.offset) for given in one.delivered}
                places.setdefault(one.group, set()).update(seen)
        return min(map(len, places.values()))

    def _end(self, clients: Sequence[Client]) -> None:
        for one in clients:
            one.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + ENDS_WITHIN_S
        for one in clients:
            try:
                one.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                one.process.kill()  # its history has no end: that is noted
                one.process.wait()

    def _start(self, kind: str, name: str, group: str = "", pause_s: float = 0.0) -> None:
        told, log = self._directory / f"{name}.jsonl", self._directory / f"{name}.log"
        if kind == JAVA:
            command = self._java_command(name, group, pause_s)
        else:
            given = {
                "bootstrap": self._bootstrap, "topic": self.topic, "history": str(told),
                "name": name, "group": group, "pause_s": pause_s, "assignor": "range",
            }  # fmt: skip
            what = "consume" if group else "produce"
            command = [sys.executable, "-m", _MODULES[kind], what, json.dumps(given)]
        with told.open("ab") as out, log.open("ab") as err:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=out if kind == JAVA else err, stderr=err,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            )  # fmt: skip
        self.clients.append(Client(name, kind, group, process, told))

    def _java_command(self, name: str, group: str, pause_s: float) -> list[str]:
        settings = self._directory / f"{name}.properties"
        config: dict[str, Any] = JAVA_CONSUMER if group else JAVA_PRODUCER
        settings.write_text("".join(f"{key}={value}\n" for key, value in config.items()))
        classpath = subprocess.run(
            ["bash", str(HERE / "kafka.sh"), "classpath"],
            check=True, capture_output=True, text=True, timeout=900,
        ).stdout.strip()  # fmt: skip
        tool = "VerifiableConsumer" if group else "VerifiableProducer"
        command = [
            "java", "-Xmx128m", "-XX:TieredStopAtLevel=1",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", classpath,
            f"org.apache.kafka.tools.{tool}", "--bootstrap-server", self._bootstrap,
            "--topic", self.topic, "--command-config", str(settings),
        ]  # fmt: skip
        if group:
            return [*command, "--group-id", group, "--verbose", "--session-timeout", "10000"]
        # 1 stands for its name: it takes numbers only.
        return [*command, "--throughput", str(max(1, int(2 / pause_s))), "--value-prefix", "1"]


def have_java() -> bool:
    return shutil.which("java") is not None
