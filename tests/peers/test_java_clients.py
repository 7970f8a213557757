"""Kafka's own Java clients, as a program links them, against a broker: see java/Clients.java."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .processes import HERE, BrokerProcess

pytestmark = [pytest.mark.peer, pytest.mark.timeout(180)]

# Those of one line share a virtual machine: starting it costs more than most of them.
SCENARIOS = {
    "records": ("codecs", "large", "seeking", "pausing"),
    "members": ("cooperative", "eager", "commits", "static"),
    "administration": ("topics", "configs", "offsets", "groups", "cluster", "transactions"),
}


@pytest.fixture(scope="session")
def java(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that runs the program, compiled once."""
    classes: Path = tmp_path_factory.mktemp("classes")
    found = subprocess.run(
        ["bash", str(HERE / "kafka.sh"), "classpath"],
        capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    jars = found.stdout.strip()
    compiled = subprocess.run(
        ["javac", "-nowarn", "-cp", jars, "-d", str(classes), str(HERE / "java" / "Clients.java")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert compiled.returncode == 0, compiled.stderr
    return [
        "java", "-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
        "-cp", f"{classes}:{jars}", "Clients",
    ]  # fmt: skip


@pytest.mark.parametrize("subject", SCENARIOS)
def test_java_clients_find_what_they_find_at_apache_kafka(
    file_broker: BrokerProcess, java: list[str], subject: str
) -> None:
    done = subprocess.run(
        [*java, file_broker.bootstrap, *SCENARIOS[subject]],
        capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    ended = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("ok ")]
    assert ended == list(SCENARIOS[subject])
