"""Settings that make a broker of ours comparable with the Kafka that kafka.sh starts."""

SETTINGS = {
    "offsets.topic.num.partitions": "8",
    "offsets.topic.replication.factor": "1",
    "group.initial.rebalance.delay.ms": "0",
    "num.partitions": "1",
    "auto.create.topics.enable": "true",
}
