"""What the tests with real peers share: one MinIO for the session, brokers on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .processes import BrokerProcess, Minio

StartBroker = Callable[..., BrokerProcess]


@pytest.fixture(scope="session")
def minio() -> Iterator[Minio]:
    server = Minio().start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def file_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """A broker on the embedded store, shared by tests that only use topics of their own."""
    directory: Path = tmp_path_factory.mktemp("broker")
    broker = BrokerProcess(f"file://{directory}/data", directory).start()
    try:
        yield broker
    finally:
        broker.kill()


@pytest.fixture
def start_broker(tmp_path: Path) -> Iterator[StartBroker]:
    """Starts brokers of the test's own; they end with it."""
    started: list[BrokerProcess] = []

    def start(store: str | None = None, **options: object) -> BrokerProcess:
        broker = BrokerProcess(store or f"file://{tmp_path}/data", tmp_path, **options)  # type: ignore[arg-type]
        started.append(broker)
        return broker.start()

    yield start
    for broker in started:
        broker.kill()
