"""Both peers started, every script put to both, and what came of it."""

from __future__ import annotations

import os
import random
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.peers.processes import HERE, PEERS_HOME, BrokerProcess

from . import scripts as _scripts  # noqa: F401  registers them
from .compare import Finding, compare, run_script
from .differences import Difference
from .server_settings import SETTINGS
from .session import SCRIPTS, VALIDATING, Exchange


@dataclass
class Outcome:
    """One script at both peers. failure: why one of them did not come to its end."""

    kafka: list[Exchange] = field(default_factory=list)
    headwater: list[Exchange] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    used: frozenset[Difference] = frozenset()
    failure: str = ""


@dataclass
class Run:
    """All scripts, by name."""

    outcomes: dict[str, Outcome]

    @property
    def kafka(self) -> list[Exchange]:
        return [each for outcome in self.outcomes.values() for each in outcome.kafka]

    @property
    def headwater(self) -> list[Exchange]:
        return [each for outcome in self.outcomes.values() for each in outcome.headwater]

    @property
    def used(self) -> frozenset[Difference]:
        return frozenset().union(*(outcome.used for outcome in self.outcomes.values()))


@contextmanager
def kafka_node() -> Iterator[int]:
    """An Apache Kafka of our own on a port that nobody uses; the port."""
    port = _unused_port()
    script = str(HERE / "kafka.sh")
    env = {**os.environ, "KAFKA_HEAP": "-Xmx512m"}
    try:
        subprocess.run(
            ["bash", script, "start", str(port)],
            check=True, env=env, stdout=subprocess.DEVNULL, timeout=600,
        )  # fmt: skip
        yield port
    finally:
        subprocess.run(["bash", script, "stop", str(port)], check=False, env=env, timeout=60)


def _unused_port() -> int:
    """Of which the next is free too: the controller's."""
    # `kafka.sh start` takes a node that has the port already for the one that was asked for.
    for _ in range(100):
        port = random.randrange(30_000, 32_700)
        if (PEERS_HOME / "kafka" / f"node-{port}").exists():
            continue
        try:
            for each in (port, port + 1):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", each))
        except OSError:
            continue
        return port
    raise AssertionError("no free port")


@contextmanager
def headwater(directory: Path, **more: str) -> Iterator[int]:
    """A broker of ours on a fresh store; its port. more: settings, with _ for the dots."""
    settings = {**SETTINGS, **{key.replace("_", "."): value for key, value in more.items()}}
    directory.mkdir(exist_ok=True)
    broker = BrokerProcess(f"file://{directory}/data", directory, settings=settings).start()
    try:
        yield broker.port
    finally:
        broker.kill()


@contextmanager
def both_headwaters(directory: Path) -> Iterator[tuple[int, int]]:
    """One that judges batches by their headers, and one that looks at every record."""
    with (
        headwater(directory / "plain") as plain,
        headwater(directory / "validating", log_validate_records="true") as validating,
    ):
        yield plain, validating


def run_all(kafka_port: int, plain_port: int, validating_port: int) -> Run:
    run = f"d{random.randrange(16**4):04x}"
    outcomes: dict[str, Outcome] = {}
    for name in SCRIPTS:
        outcome = outcomes[name] = Outcome()
        headwater_port = validating_port if name in VALIDATING else plain_port
        for port, peer in ((kafka_port, "Apache Kafka"), (headwater_port, "Headwater")):
            try:
                exchanges = run_script(name, port, run)
            except Exception as error:
                outcome.failure = f"{name} failed at {peer}: {error!r}"
                break
            if port == kafka_port:
                outcome.kafka = exchanges
            else:
                outcome.headwater = exchanges
        if not outcome.failure:
            compared = compare(outcome.kafka, outcome.headwater)
            outcome.findings, outcome.used = compared.findings, compared.used
    return Run(outcomes)
