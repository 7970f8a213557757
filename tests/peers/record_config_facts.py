"""Ask an Apache Kafka about configurations and keep its answers for the unit tests.

    python -m tests.peers.record_config_facts PORT     (a fresh node with node id 1)

Writes tests/unit/broker/config/kafka_4_3_1.json: the configurations of a fresh topic and of the
broker, and a script of requests with the answers, which the unit tests put to our own handlers.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

from kafka.protocol.admin import (
    CreateTopicsRequest,
    CreateTopicsResponse,
    DescribeConfigsRequest,
    DescribeConfigsResponse,
)

from tests.unit.broker.config.exchanges import Ask, answer_rows, build_request, config_row

FACTS = Path(__file__).parents[1] / "unit" / "broker" / "config" / "kafka_4_3_1.json"
TOPIC, BROKER, LOGGER, METRICS, GROUP = 2, 4, 8, 16, 32
SET, DELETE, APPEND, SUBTRACT = range(4)
FACTS_TOPIC = "facts"


class Peer:
    """One blocking connection. An answer that does not come raises TimeoutError."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._next = 0

    def ask(self, request: Any, response_class: Any, version: int) -> Any:
        self._next += 1
        request.API_VERSION = version
        request.with_header(correlation_id=self._next, client_id="facts")
        self._socket.sendall(request.encode(version=version, header=True, framed=True))
        (size,) = struct.unpack(">i", self._exactly(4))
        data = self._exactly(size)
        flexible = response_class.flexible_version_q(version)
        return response_class.decode(data[5 if flexible else 4 :], version=version)

    def _exactly(self, size: int) -> bytes:
        out = b""
        while len(out) < size:
            part = self._socket.recv(size - len(out))
            if not part:
                raise ConnectionError("closed by the peer")
            out += part
        return out


TOPIC_VALUES = [
    ("nokey", "1"),
    ("retention.ms", "abc"),
    ("retention.ms", "-2"),
    ("retention.ms", ""),
    ("retention.ms", " 5000 "),
    ("retention.ms", "+5"),
    ("retention.ms", "1_000"),
    ("retention.ms", "0x10"),
    ("retention.bytes", "-5"),
    ("max.message.bytes", "-1"),
    ("max.message.bytes", "99999999999"),
    ("cleanup.policy", "wipe"),
    ("cleanup.policy", ""),
    ("cleanup.policy", "delete,delete"),
    ("cleanup.policy", "compact,delete"),
    ("compression.type", "brotli"),
    ("compression.type", "ZSTD"),
    ("compression.gzip.level", "0"),
    ("compression.gzip.level", "10"),
    ("compression.lz4.level", "0"),
    ("compression.zstd.level", "23"),
    ("message.timestamp.type", "createtime"),
    ("preallocate", "yes"),
    ("preallocate", "TRUE"),
    ("min.cleanable.dirty.ratio", "2"),
    ("min.cleanable.dirty.ratio", "x"),
    ("min.cleanable.dirty.ratio", "5e-1"),
    ("min.cleanable.dirty.ratio", "NaN"),
    ("segment.bytes", "100"),
    ("segment.ms", "0"),
    ("segment.jitter.ms", "-1"),
    ("segment.index.bytes", "3"),
    ("index.interval.bytes", "-1"),
    ("flush.messages", "0"),
    ("flush.ms", "-1"),
    ("file.delete.delay.ms", "-1"),
    ("delete.retention.ms", "-1"),
    ("min.compaction.lag.ms", "-1"),
    ("max.compaction.lag.ms", "0"),
    ("min.insync.replicas", "0"),
    ("remote.storage.enable", "true"),
    ("remote.log.copy.disable", "true"),
    ("remote.log.delete.on.disable", "true"),
    ("local.retention.ms", "5"),
    ("local.retention.bytes", "-3"),
    ("leader.replication.throttled.replicas", "x"),
    ("leader.replication.throttled.replicas", "*"),
    ("leader.replication.throttled.replicas", "0:1,1:2"),
    ("follower.replication.throttled.replicas", "none"),
    ("message.format.version", "3.0"),
    ("internal.segment.bytes", "2000000"),
]
BROKER_VALUES = [
    ("num.partitions", "3"),
    ("node.id", "3"),
    ("log.retention.hours", "1"),
    ("group.initial.rebalance.delay.ms", "5"),
    ("log.retention.ms", "abc"),
    ("log.retention.ms", "5000"),
    ("message.max.bytes", "-1"),
    ("log.segment.bytes", "1"),
    ("compression.type", "gzip"),
    ("compression.type", "brotli"),
    ("unclean.leader.election.enable", "true"),
    ("min.insync.replicas", "2"),
    ("producer.id.expiration.ms", "0"),
]


def script() -> list[Ask]:
    """The requests, in order; later ones see what earlier ones changed."""
    topic = FACTS_TOPIC

    def one(key: str, operation: int, value: str | None) -> list[list[Any]]:
        return [[TOPIC, topic, [[key, operation, value]]]]

    asks = [Ask("incremental", one(k, SET, v), validate_only=True) for k, v in TOPIC_VALUES]
    look = Ask("describe", [[TOPIC, topic, ["cleanup.policy"]]])
    replicas = "leader.replication.throttled.replicas"
    look_replicas = Ask("describe", [[TOPIC, topic, [replicas]]])
    asks += [
        Ask(
            "incremental",
            [
                [
                    TOPIC,
                    topic,
                    [["min.compaction.lag.ms", 0, "100"], ["max.compaction.lag.ms", 0, "50"]],
                ]
            ],
            validate_only=True,
        ),
        Ask(
            "incremental",
            [[TOPIC, topic, [["retention.ms", 0, "a"], ["segment.ms", 0, "0"], ["nokey", 0, "1"]]]],
            validate_only=True,
        ),
        Ask("incremental", one("nokey", DELETE, None)),
        Ask("incremental", one("retention.ms", DELETE, "x")),
        Ask("incremental", one("retention.ms", SET, None)),
        Ask("incremental", [[TOPIC, topic, [["retention.ms", 0, None], ["segment.ms", 2, None]]]]),
        Ask("incremental", one("retention.ms", 9, "1")),
        Ask("incremental", [[TOPIC, topic, [["retention.ms", 0, "1"], ["retention.ms", 1, "2"]]]]),
        Ask("incremental", one("retention.ms", APPEND, "1")),
        Ask("incremental", one("retention.ms", SUBTRACT, "1")),
        Ask("incremental", one("nokey", APPEND, "1")),
        Ask("incremental", one("cleanup.policy", APPEND, "delete")),
        look,
        Ask("incremental", one("cleanup.policy", APPEND, "delete,wipe")),
        Ask("incremental", one("cleanup.policy", SUBTRACT, "compact,foo")),
        look,
        Ask("incremental", one("cleanup.policy", SUBTRACT, "delete")),
        look,
        Ask("incremental", one(replicas, APPEND, "0:1")),
        Ask("incremental", one(replicas, APPEND, "0:1,1:1")),
        look_replicas,
        Ask("incremental", one(replicas, SUBTRACT, "0:1")),
        look_replicas,
        Ask("incremental", [[TOPIC, topic, []]]),
        Ask("incremental", [[TOPIC, "nope", [["retention.ms", 0, "1"]]]]),
        Ask("incremental", [[TOPIC, "", [["retention.ms", 0, "1"]]]]),
        Ask("incremental", [[TOPIC, "bad name", [["retention.ms", 0, "1"]]]]),
        Ask("incremental", one("retention.ms", SET, "1") + one("segment.ms", SET, "1")),
        Ask(
            "incremental",
            [
                [TOPIC, "nope", [["retention.ms", 0, "1"]]],
                [BROKER, "", [["message.max.bytes", 0, "2000000"]]],
            ],
        ),
        Ask("incremental", [[0, "x", [["a", 0, "1"]]], [3, "x", [["a", 0, "1"]]]]),
        Ask("alter", [[TOPIC, topic, [["segment.ms", "5000"]]]]),
        Ask("describe", [[TOPIC, topic, ["retention.ms", "segment.ms", "cleanup.policy"]]]),
        Ask("alter", [[TOPIC, topic, [["segment.ms", None], ["retention.ms", None]]]]),
        Ask("alter", [[TOPIC, topic, [["segment.ms", "1"], ["segment.ms", "2"]]]]),
        Ask("alter", [[TOPIC, topic, [["nokey", "2"]]]]),
        Ask("alter", [[TOPIC, topic, [["retention.ms", "abc"]]]]),
        Ask("alter", [[TOPIC, "nope", [["segment.ms", "1"]]]]),
        Ask("alter", [[TOPIC, topic, []]], validate_only=True),
        Ask("describe", [[TOPIC, topic, ["segment.ms"]]]),
        Ask("alter", [[TOPIC, topic, []]]),
        Ask("describe", [[TOPIC, topic, ["segment.ms"]]]),
        Ask("alter", [[0, "x", []]]),
        Ask("alter", [[LOGGER, "1", [["root", "INFO"]]]]),
    ]
    for key, value in BROKER_VALUES:
        asks += [
            Ask("incremental", [[BROKER, name, [[key, SET, value]]]], validate_only=True)
            for name in ("1", "")
        ]
        asks.append(Ask("alter", [[BROKER, "1", [[key, value]]]], validate_only=True))
    keys = ["log.retention.ms", "log.retention.minutes", "log.retention.hours", "message.max.bytes"]
    looks = [
        Ask("describe", [[BROKER, "", None]]),
        Ask("describe", [[BROKER, "1", keys]]),
        Ask("describe", [[TOPIC, topic, ["retention.ms", "max.message.bytes"]]]),
    ]
    change = [["log.retention.ms", 0, "7000"], ["message.max.bytes", 0, "1234567"]]
    own = [["log.retention.ms", 0, "8000"], ["message.max.bytes", 0, "1234568"]]
    asks += [
        Ask("incremental", [[BROKER, "1", [["num.partitions", DELETE, None]]]], validate_only=True),
        Ask("incremental", [[BROKER, "", [["min.insync.replicas", DELETE, None]]]]),
        Ask("incremental", [[BROKER, "1", [["min.insync.replicas", DELETE, None]]]]),
        Ask("incremental", [[BROKER, "7", [["message.max.bytes", 0, "2000000"]]]]),
        Ask("incremental", [[BROKER, "x", [["message.max.bytes", 0, "2000000"]]]]),
        Ask("alter", [[BROKER, "7", [["message.max.bytes", "2000000"]]]]),
        Ask("incremental", [[BROKER, "", change]]),
        *looks,
        Ask("incremental", [[BROKER, "1", own], [TOPIC, topic, [["max.message.bytes", 0, "77"]]]]),
        *looks,
        Ask("alter", [[BROKER, "1", []]]),
        Ask("alter", [[BROKER, "", []]]),
        *looks,
        Ask("incremental", [[LOGGER, "1", [["root", SET, "LOUD"]]]]),
        Ask("incremental", [[LOGGER, "1", [["root", DELETE, None]]]]),
        Ask("incremental", [[LOGGER, "1", [["root", APPEND, "INFO"]]]]),
        Ask("incremental", [[LOGGER, "1", [["kafka.nope", SET, "INFO"]]]]),
        Ask("incremental", [[LOGGER, "2", [["root", SET, "INFO"]]]]),
        Ask("incremental", [[LOGGER, "", [["root", SET, "INFO"]]]]),
        Ask("incremental", [[LOGGER, "1", [["root", SET, "WARN"]]]]),
        Ask("describe", [[LOGGER, "1", ["root"]]]),
        Ask("incremental", [[METRICS, "", [["interval.ms", SET, "5000"]]]]),
        Ask("incremental", [[METRICS, "cm", [["x", SET, "5000"]]]]),
        Ask("incremental", [[GROUP, "", [["consumer.session.timeout.ms", SET, "50000"]]]]),
        Ask("incremental", [[GROUP, "g", [["x", SET, "50000"]]]]),
    ]
    asks += [
        Ask("describe", [[kind, name, None]])
        for kind, name in (
            (BROKER, "7"), (BROKER, "x"), (LOGGER, ""), (LOGGER, "2"), (LOGGER, "x"), (METRICS, ""),
            (METRICS, "cm"), (GROUP, ""), (GROUP, "g"), (TOPIC, "nope"), (TOPIC, ""),
            (TOPIC, "bad name"), (0, "a"), (3, "a"),
        )
    ]  # fmt: skip
    asks += [
        Ask("describe", [[TOPIC, topic, ["flush.ms", "nokey"]], [TOPIC, topic, ["flush.ms"]]]),
        Ask("describe", [[TOPIC, "nope", None], [TOPIC, topic, ["preallocate"]]], version=1),
        Ask("list", [], version=0),
        *(
            Ask("list", kinds)
            for kinds in ([], [2], [2, 4, 8], [16, 32], [3], [0], [2, 99], [2, 2])
        ),
    ]
    return asks


def main(port: int) -> None:
    peer = Peer(port)
    new = CreateTopicsRequest.CreatableTopic(
        name=FACTS_TOPIC, num_partitions=1, replication_factor=1, assignments=[], configs=[]
    )
    peer.ask(
        CreateTopicsRequest(topics=[new], timeout_ms=5000, validate_only=False),
        CreateTopicsResponse,
        7,
    )
    time.sleep(1)
    resource = DescribeConfigsRequest.DescribeConfigsResource
    described = peer.ask(
        DescribeConfigsRequest(
            resources=[
                resource(resource_type=kind, resource_name=name, configuration_keys=None)
                for kind, name in ((TOPIC, FACTS_TOPIC), (BROKER, "1"))
            ],
            include_synonyms=True,
            include_documentation=False,
        ),
        DescribeConfigsResponse,
        4,
    )
    topic_rows, broker_rows = (
        sorted((config_row(row) for row in result.configs), key=lambda row: str(row["name"]))
        for result in described.results
    )
    for row in broker_rows:
        # What this node was started with (paths among it) is no fact about Kafka.
        row["default"] = next((s[1] for s in row["synonyms"] if s[2] == 5), None)
        for key in ("value", "source", "synonyms"):
            del row[key]
    exchanges = []
    for ask in script():
        request, response_class, version = build_request(ask)
        answer = answer_rows(ask, peer.ask(request, response_class, version))
        exchanges.append({**ask.as_json(), "answer": answer})
        if ask.api in ("alter", "incremental") and not ask.validate_only:
            time.sleep(0.7)  # until the broker has applied the change
    facts = {"topic": topic_rows, "broker": broker_rows}
    lines = [f'"{name}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]"
             for name, rows in {**facts, "exchanges": exchanges}.items()]  # fmt: skip
    FACTS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{FACTS}: {len(topic_rows)} + {len(broker_rows)} rows, {len(exchanges)} exchanges")


if __name__ == "__main__":
    main(int(sys.argv[1]))
