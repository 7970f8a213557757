"""A script's view of one peer: it asks, and every answer is written down in comparable form."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from protocol.api_versions import SERVED, ApiKey

from .comparable import Names, comparable, error_codes
from .peer import Closed, Connection
from .schema import Values

CLOSED: Values = {"connection": "closed"}
SILENT: Values = {"connection": "open, and no answer"}

Change = Callable[[Values], Values]


@dataclass(frozen=True)
class Exchange:
    """One answer.

    api: None for frames that are no request. case: empty for the valid request of a version;
    otherwise what is special.
    codes: the error codes anywhere in the answer, with 0 left out.
    """

    script: str
    api: ApiKey | None
    version: int
    case: str
    is_error: bool
    answer: Values
    codes: tuple[int, ...]

    @property
    def was_refused(self) -> bool:
        """By an error anywhere in the answer, or by none at all."""
        return bool(self.codes) or self.answer in (CLOSED, SILENT)

    @property
    def api_name(self) -> str:
        return "frames" if self.api is None else self.api.name


def versions(api: ApiKey, first: int = 0, last: int = 99) -> Iterator[int]:
    """Those of an API that are served, oldest first."""
    oldest, newest = SERVED[api]
    if api == ApiKey.PRODUCE:
        oldest = 3
    yield from range(max(oldest, first), min(newest, last) + 1)


class Session:
    """One script at one peer. Topics and groups have names that no other script uses."""

    def __init__(self, port: int, script: str, run: str, names: Names) -> None:
        self.port = port
        self.script = script
        self.prefix = f"{run}-{script.replace('_', '-')}-"
        self.names = names
        self.exchanges: list[Exchange] = []
        self.counted_members = 0
        self._settled = 0
        self._connections: list[Connection] = []
        self._main: Connection | None = None

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def connect(self, client_id: str = "probe") -> Connection:
        connection = Connection(self.port, client_id)
        self._connections.append(connection)
        return connection

    @property
    def connection(self) -> Connection:
        """The one that requests take when no other is named; a new one after a close."""
        if self._main is None:
            self._main = self.connect()
        return self._main

    def name(self, name: str) -> str:
        return self.prefix + name

    # Asking.

    def valid(
        self,
        api: ApiKey,
        version: int,
        body: Values | bytes,
        case: str = "",
        *,
        by: Connection | None = None,
        only: Change | None = None,
        as_version: int | None = None,
    ) -> Values:
        """A request that the peer is to accept; its answer.

        only: leaves the part of the answer that this script is about.
        """
        return self._ask(api, version, body, case, False, by, only, as_version)

    def error(
        self,
        api: ApiKey,
        version: int,
        case: str,
        body: Values | bytes,
        *,
        by: Connection | None = None,
        only: Change | None = None,
        as_version: int | None = None,
    ) -> Values:
        """A request that is to be refused, or in part; its answer."""
        return self._ask(api, version, body, case, True, by, only, as_version)

    def quietly(self, api: ApiKey, version: int, body: Values, by: Connection | None = None) -> Any:
        """A request that only prepares something. Raises AssertionError when it fails."""
        connection = by or self.connection
        connection.send(api, version, body)
        answer = connection.receive()
        assert not error_codes(answer), f"{self.script}: {api.name} v{version}: {answer}"
        return answer

    def finish(
        self,
        by: Connection,
        api: ApiKey,
        version: int,
        case: str,
        *,
        is_error: bool = False,
        only: Change | None = None,
        as_version: int | None = None,
    ) -> Values:
        """Take the answer to a request that was sent on this connection before."""
        try:
            answer = by.receive(as_version)
        except Closed:
            answer = CLOSED
            if by is self._main:
                self._main = None
        self.note(api, version, case, answer, is_error=is_error, only=only)
        return answer

    def note(
        self,
        api: ApiKey | None,
        version: int,
        case: str,
        answer: Values,
        *,
        is_error: bool = False,
        only: Change | None = None,
    ) -> None:
        """Write an answer down."""
        shown = comparable(only(answer) if only else answer, self.names)
        self.exchanges.append(
            Exchange(self.script, api, version, case, is_error, shown, error_codes(answer))
        )

    def _ask(
        self,
        api: ApiKey,
        version: int,
        body: Values | bytes,
        case: str,
        is_error: bool,
        by: Connection | None,
        only: Change | None,
        as_version: int | None,
    ) -> Values:
        connection = by or self.connection
        try:
            connection.send(api, version, body)
        except Closed:
            self.note(api, version, case, CLOSED, is_error=is_error)
            return CLOSED
        return self.finish(
            connection, api, version, case, is_error=is_error, only=only, as_version=as_version
        )

    def error_or_silence(
        self, api: ApiKey, version: int, case: str, body: Values, patience_s: float = 1.0
    ) -> None:
        """A request that Apache Kafka never answers, on a connection of its own."""
        with self.another() as c:
            c.send(api, version, body)
            if c.is_silent(patience_s):
                self.note(api, version, case, SILENT, is_error=True)
            else:
                self.finish(c, api, version, case, is_error=True)

    # What most scripts need.

    def settle(self) -> None:
        """Until the broker acts on all metadata so far, which it takes in order.

        A later change that is seen proves the one before; the second proves that all parts of
        the broker are done with the first.
        """
        for _ in range(2):
            self._settled += 1
            self.topic(f"settled-{self._settled}")

    def topic(self, name: str = "topic", partitions: int = 1, **configs: str) -> tuple[str, UUID]:
        """A new topic that keeps its records; configuration keys with _ for the dots."""
        full = self.name(name)
        settings = {"retention_ms": "-1", **configs}
        answer = self.quietly(
            ApiKey.CREATE_TOPICS,
            7,
            {
                "topics": [
                    {
                        "name": full,
                        "numPartitions": partitions,
                        "replicationFactor": 1,
                        "configs": [
                            {"name": key.replace("_", "."), "value": value}
                            for key, value in settings.items()
                        ],
                    }
                ],
                "timeoutMs": 10_000,
            },
        )
        topic_id: UUID = answer["topics"][0]["topicId"]
        self.names.learn(topic_id, f"id of {full}")
        self.wait_for(full, partitions)
        return full, topic_id

    def wait_for(self, topic: str, partitions: int = 1) -> None:
        """Until the broker leads the partitions of a topic that was just made."""
        asked = [
            {"partitionIndex": i, "currentLeaderEpoch": -1, "timestamp": -1}
            for i in range(partitions)
        ]
        body = {"replicaId": -1, "topics": [{"name": topic, "partitions": asked}]}
        self.until(ApiKey.LIST_OFFSETS, 4, body)

    def until(self, api: ApiKey, version: int, body: Values, pause_s: float = 0.01) -> Values:
        """Ask until there is no error in the answer; that answer."""
        answer: Values = {}
        for _ in range(500):
            self.connection.send(api, version, body)
            answer = self.connection.receive()
            if not error_codes(answer):
                return answer
            time.sleep(pause_s)
        raise AssertionError(f"{self.script}: {api.name} always fails: {answer}")

    @contextmanager
    def another(self, client_id: str = "probe") -> Iterator[Connection]:
        connection = self.connect(client_id)
        yield connection
        connection.close()


Script = Callable[[Session], None]
SCRIPTS: dict[str, Script] = {}
# Those that are put to a Headwater that looks at every record, as Apache Kafka does.
VALIDATING: set[str] = set()


def script(function: Script) -> Script:
    """Register a script; its name is the function's."""
    assert function.__name__ not in SCRIPTS
    SCRIPTS[function.__name__] = function
    return function


def validating_script(function: Script) -> Script:
    """The same, for brokers with `log.validate.records=true`."""
    VALIDATING.add(function.__name__)
    return script(function)
