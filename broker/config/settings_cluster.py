"""Settings of a node and of its place in the cluster."""

from __future__ import annotations

from .setting import NOT_KAFKAS, Setting
from .types import Between, ConfigType, OneOf

CLUSTER: tuple[Setting, ...] = (
    Setting(
        "node.id",
        ConfigType.INT,
        None,
        "Number of this node in the cluster. Not set: the metadata log gives a free one.",
        Between(0),
    ),
    Setting(
        "take.over",
        ConfigType.BOOLEAN,
        False,
        "Take the node id over from a process that is alive and answers at its address. One that"
        " does not answer is replaced without this.",
        kafka_default=NOT_KAFKAS,
    ),
    Setting(
        "broker.rack",
        ConfigType.STRING,
        None,
        "Rack or availability zone of this node, told to clients. A partition is read by consumers"
        " of each rack from a broker there.",
    ),
    Setting(
        "replica.selector.class",
        ConfigType.STRING,
        "org.apache.kafka.common.replica.RackAwareReplicaSelector",
        "Whether a consumer that tells its rack is sent to the broker that serves reads there"
        " (RackAwareReplicaSelector), or reads from the leader wherever it is (LeaderSelector).",
        OneOf(
            (
                "org.apache.kafka.common.replica.RackAwareReplicaSelector",
                "org.apache.kafka.common.replica.LeaderSelector",
            )
        ),
        kafka_default=None,
        reason="Any broker can read a partition's objects, so that reading in one's own rack costs"
        " nothing; and only where brokers have racks does it mean anything.",
    ),
    Setting(
        "broker.session.timeout.ms",
        ConfigType.INT,
        3_000,
        "A broker that the controller has not heard for this long is fenced.",
        Between(100),
        "ms",
        kafka_default=9_000,
        reason="No record has to be copied to move a partition, so suspecting a broker early is"
        " cheap, and a dead one keeps clients waiting for less time.",
    ),
    Setting(
        "broker.heartbeat.interval.ms",
        ConfigType.INT,
        500,
        "A broker tells the controller so often that it is there.",
        Between(10),
        "ms",
        kafka_default=2_000,
        reason="The session time-out is shorter too, and one lost heartbeat must not count.",
    ),
    Setting(
        "inter.broker.listener.name",
        ConfigType.STRING,
        None,
        "Name of the listener by which brokers reach each other; the same on all of them. Not set:"
        " the first one.",
    ),
    Setting(
        "auto.leader.rebalance.enable",
        ConfigType.BOOLEAN,
        True,
        "Move leaderships by themselves: a broker that comes is given its share, and brokers that"
        " have too much to do are relieved. Off, only `headwater balance`, draining and failover"
        " move them.",
    ),
    Setting(
        "leader.imbalance.check.interval.seconds",
        ConfigType.LONG,
        60,
        "So often the loads that brokers tell are looked at, and a few leaderships moved at most;"
        " never while no broker has a load that matters.",
        Between(1),
        "s",
        kafka_default=300,
        reason="A move copies nothing, and takes a fraction of a second.",
    ),
    Setting(
        "leader.imbalance.per.broker.percentage",
        ConfigType.INT,
        20,
        "So far above the mean of all brokers, in bytes in, bytes out, requests, processor or"
        " partitions, a broker has too much.",
        Between(1),
        "%",
        kafka_default=NOT_KAFKAS,
    ),
    Setting(
        "http",
        ConfigType.STRING,
        "127.0.0.1:9180",
        "Address of /healthz, /readyz and /metrics, as HOST:PORT.",
        kafka_default=NOT_KAFKAS,
    ),
    Setting(
        "log.level",
        ConfigType.STRING,
        "info",
        "Least level of the lines that the broker writes about itself.",
        OneOf(("debug", "info", "warning", "error")),
        kafka_default=NOT_KAFKAS,
    ),
)
