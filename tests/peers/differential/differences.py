"""Where Headwater's answers are meant to differ from Apache Kafka's, and why.

`docs/compatibility.md` is made from this table; an entry that no request meets fails the test.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.api_versions import ApiKey

ALL = (0, 99)


@dataclass(frozen=True)
class Difference:
    """paths: fields of the answer, with all that is in them; [] stands for every element.

    api: None for all. case: a pattern over the names of the cases.
    """

    api: ApiKey | None
    versions: tuple[int, int]
    paths: tuple[str, ...]
    reason: str
    case: str = "*"


# Apache Kafka answers these from hash maps, in an order that says nothing.
UNORDERED: frozenset[ApiKey] = frozenset(
    {
        ApiKey.PRODUCE,
        ApiKey.LIST_OFFSETS,
        ApiKey.METADATA,
        ApiKey.DELETE_RECORDS,
        ApiKey.DELETE_TOPICS,
        ApiKey.DELETE_GROUPS,
        ApiKey.DESCRIBE_GROUPS,
        ApiKey.DESCRIBE_CONFIGS,
        ApiKey.ALTER_CONFIGS,
        ApiKey.INCREMENTAL_ALTER_CONFIGS,
        ApiKey.ELECT_LEADERS,
        ApiKey.DESCRIBE_LOG_DIRS,
        ApiKey.UPDATE_FEATURES,
    }
)

TRANSACTIONS = "Transactions are not served yet, and refused at once."

DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        ApiKey.PRODUCE,
        ALL,
        ("responses[].partitionResponses[]",),
        TRANSACTIONS + " Kafka takes a batch without producer, and asks its coordinator of others.",
        "transactional batch*",
    ),
    Difference(
        ApiKey.PRODUCE,
        ALL,
        ("",),
        "Kafka never answers a partition without record set; Headwater: INVALID_RECORD.",
        "null records",
    ),
    Difference(
        ApiKey.PRODUCE,
        (8, 13),
        ("responses[].partitionResponses[].recordErrors",),
        "Timestamps are judged by the batch's header, which tells the first record's and the "
        "newest only; log.validate.records=true looks at each.",
        "timestamp in the past",
    ),
    Difference(
        ApiKey.DESCRIBE_PRODUCERS,
        ALL,
        ("topics[].partitions[].activeProducers[].lastTimestamp",),
        "The broker's time of the last batch. Kafka tells the timestamp in the batch, so that a "
        "producer of old records is forgotten before its time.",
        "",
    ),
    Difference(
        ApiKey.INIT_PRODUCER_ID,
        ALL,
        ("errorCode", "producerId", "producerEpoch"),
        TRANSACTIONS + " Clients take the code for final.",
        "transactional id",
    ),
    Difference(
        ApiKey.FIND_COORDINATOR,
        ALL,
        ("errorCode", "errorMessage", "nodeId", "host", "port", "coordinators[]"),
        TRANSACTIONS + " Clients take the code for final.",
        "transaction",
    ),
    Difference(
        ApiKey.OFFSET_COMMIT,
        ALL,
        ("topics",),
        "A topic that the request names in two places is answered in one.",
        "a topic twice",
    ),
    Difference(
        ApiKey.DESCRIBE_QUORUM,
        (2, 2),
        ("nodes[].listeners[]",),
        "The controller is a broker and has no listener of its own.",
    ),
    Difference(
        ApiKey.DESCRIBE_LOG_DIRS,
        (4, 5),
        ("results[].totalBytes", "results[].usableBytes"),
        "An object store has no size: -1, unknown.",
    ),
    Difference(
        ApiKey.API_VERSIONS,
        (3, 4),
        ("supportedFeatures", "supportedFeatures[]", "finalizedFeatures", "finalizedFeatures[]"),
        "Kafka's features name its own metadata format, transactions and group protocols, none "
        "of which is served here; Headwater's one is the level of what its brokers write.",
    ),
    Difference(
        ApiKey.DESCRIBE_CONFIGS,
        ALL,
        ("results[].configs[].documentation",),
        "The same meaning in other words.",
        "documentation",
    ),
    Difference(
        ApiKey.FETCH,
        (13, 18),
        ("responses[].partitions[].errorCode", "responses[].partitions[].abortedTransactions"),
        "UNKNOWN_TOPIC_ID for the id of a deleted topic, as outside of sessions. Kafka's session "
        "remembers the name, and says UNKNOWN_TOPIC_OR_PARTITION, or INCONSISTENT_TOPIC_ID once "
        "another topic has it.",
        "a session goes on *id",
    ),
    Difference(
        ApiKey.FETCH,
        (16, 18),
        ("nodeEndpoints",),
        "Kafka leaves the leader's address out for followers, of which there are none here.",
        "a replica that is none",
    ),
    Difference(
        ApiKey.ALTER_CONFIGS,
        ALL,
        ("",),
        "Kafka never answers a request that names a resource twice; Headwater: INVALID_REQUEST.",
        "a resource twice",
    ),
    Difference(
        ApiKey.METADATA,
        ALL,
        ("topics[]",),
        "A topic that the request creates is in the answer. Kafka makes it behind the answer's "
        "back and says UNKNOWN_TOPIC_OR_PARTITION at first.",
        "creation wanted",
    ),
    Difference(
        ApiKey.METADATA,
        (12, 13),
        ("errorCode", "brokers", "clusterId", "controllerId", "topics[]"),
        "UNKNOWN_TOPIC_ID for a topic without name and id, where Kafka fails unforeseen.",
        "neither id nor name",
    ),
    Difference(
        ApiKey.DESCRIBE_TOPIC_PARTITIONS,
        ALL,
        ("topics[].errorCode", "topics[].topicAuthorizedOperations"),
        "INVALID_TOPIC_EXCEPTION for the empty name, where Kafka fails unforeseen.",
        "empty name",
    ),
    Difference(
        ApiKey.CREATE_TOPICS,
        (7, 7),
        ("topics[].topicId",),
        "No id for a topic that is not made; Kafka draws one and drops it.",
        "validate only",
    ),
    Difference(
        ApiKey.CREATE_TOPICS,
        ALL,
        ("topics[]",),
        "Any positive replication factor is taken, since the store keeps the copies; the answer "
        "repeats it, and metadata names one replica, the leader.",
        "replication factor 3",
    ),
    Difference(
        ApiKey.CREATE_TOPICS,
        ALL,
        ("topics[]",),
        "Compacted topics are not served yet, and refused at once.",
        "cleanup.policy=compact*",
    ),
    Difference(
        ApiKey.FETCH,
        ALL,
        ("responses[].partitions[].records[]",),
        "Recompressed by another build of the same codec: same records, other bytes.",
        "zstd topic before version 10",
    ),
)
