"""Settings of listeners, connections, requests and the memory that they may take."""

from __future__ import annotations

from .setting import NOT_KAFKAS, Setting
from .types import Between, ConfigType, NonEmpty

NETWORK: tuple[Setting, ...] = (
    Setting(
        "listeners",
        ConfigType.LIST,
        ("PLAINTEXT://127.0.0.1:9092",),
        "Addresses at which clients are accepted: [NAME=]HOST:PORT[@ADVERTISED], or Kafka's"
        " NAME://HOST:PORT. Port 0 takes a free one. Without a name they are PLAINTEXT, PLAINTEXT_2"
        " and so on.",
        NonEmpty(),
        kafka_default=("PLAINTEXT://:9092",),
        reason="Nobody but this machine reaches a broker that was merely tried out.",
        dynamic_in_kafka=True,
    ),
    Setting(
        "advertised.listeners",
        ConfigType.LIST,
        None,
        "Addresses that clients are told, NAME://HOST:PORT each (or HOST:PORT where there is one"
        " listener). Not set: those of `listeners`.",
    ),
    Setting(
        "max.connections",
        ConfigType.INT,
        2**31 - 1,
        "Connections open at once; further ones are refused.",
        Between(1),
        "connections",
        dynamic_in_kafka=True,
    ),
    Setting(
        "max.connections.per.ip",
        ConfigType.INT,
        2**31 - 1,
        "Connections open at once from one address.",
        Between(0),
        "connections",
        dynamic_in_kafka=True,
    ),
    Setting(
        "connections.max.idle.ms",
        ConfigType.LONG,
        600_000,
        "A connection without a request for this long is closed.",
        unit="ms",
    ),
    Setting(
        "socket.request.max.bytes",
        ConfigType.INT,
        104_857_600,
        "Largest request; a connection that announces more is closed.",
        Between(1),
        "bytes",
    ),
    Setting(
        "memory.request.bytes",
        ConfigType.LONG,
        256 << 20,
        "Bound on all requests that are being read or answered at once. Frames are admitted by"
        " their announced length; who finds no room waits.",
        Between(16 << 20),
        "bytes",
        kafka_default=NOT_KAFKAS,
    ),
    Setting(
        "memory.response.bytes",
        ConfigType.LONG,
        128 << 20,
        "Bound on the records of fetch responses from their read until they have left. Who finds no"
        " room waits, or gets less.",
        Between(4 << 20),
        "bytes",
        kafka_default=NOT_KAFKAS,
    ),
    Setting(
        "in.flight.produce.per.connection",
        ConfigType.INT,
        64,
        "Produce requests of one connection that wait for storage at once.",
        Between(1, 10_000),
        "requests",
        kafka_default=NOT_KAFKAS,
    ),
    Setting(
        "max.request.partition.size.limit",
        ConfigType.INT,
        2_000,
        "Partitions that one DescribeTopicPartitions response holds at most.",
        Between(1),
        "partitions",
    ),
    Setting(
        "fetch.max.bytes",
        ConfigType.INT,
        57_671_680,
        "Upper bound on the records of one fetch response, whatever the consumer asks for.",
        Between(1024),
        "bytes",
    ),
    Setting(
        "max.incremental.fetch.session.cache.slots",
        ConfigType.INT,
        1_000,
        "Fetch sessions kept at once.",
        Between(0),
        "sessions",
    ),
)
