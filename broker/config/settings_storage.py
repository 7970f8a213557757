"""Settings of the store, the write-ahead log, uploads, caches, compaction and collection."""

from __future__ import annotations

from .setting import NOT_KAFKAS, Setting
from .types import Between, ConfigType, NonEmpty, OneOf, Validator, Value

MIB = 1 << 20


def _ours(
    key: str,
    type_: ConfigType,
    default: Value,
    meaning: str,
    validator: Validator | None = None,
    unit: str = "",
) -> Setting:
    return Setting(key, type_, default, meaning, validator, unit, kafka_default=NOT_KAFKAS)


STORAGE: tuple[Setting, ...] = (
    _ours(
        "store",
        ConfigType.STRING,
        "file://./headwater-data",
        "Where everything durable lives: memory:, file:///path, s3://bucket/prefix, and what else"
        " the drivers know.",
        NonEmpty(),
    ),
    _ours(
        "create.bucket",
        ConfigType.BOOLEAN,
        False,
        "Make the bucket when it does not exist.",
    ),
    _ours(
        "s3.driver",
        ConfigType.STRING,
        "obstore",
        "Library that talks to s3:// stores.",
        OneOf(("obstore", "aiobotocore")),
    ),
    _ours(
        "s3.endpoint",
        ConfigType.STRING,
        None,
        "URL of an S3-compatible store. Not set: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the "
        "profile's, else AWS.",
    ),
    _ours(
        "s3.region",
        ConfigType.STRING,
        None,
        "Region of the bucket. Not set: AWS_REGION, AWS_DEFAULT_REGION, the profile's, else"
        " us-east-1.",
    ),
    _ours(
        "s3.path.style",
        ConfigType.BOOLEAN,
        None,
        "Name the bucket in the path, not in the host name. Not set: where an endpoint is given.",
    ),
    _ours(
        "storage.request.timeout.ms",
        ConfigType.INT,
        10_000,
        "Longest wait for one small request to the store; large bodies get more.",
        Between(100),
        "ms",
    ),
    _ours(
        "storage.connect.timeout.ms",
        ConfigType.INT,
        2_000,
        "Longest wait for a connection to the store.",
        Between(50),
        "ms",
    ),
    _ours(
        "storage.connections",
        ConfigType.INT,
        64,
        "Requests to the store in flight at once.",
        Between(1, 10_000),
        "requests",
    ),
    _ours(
        "wal.window",
        ConfigType.INT,
        8,
        "Write-ahead log objects in flight at once; fixed for a log when it is begun.",
        Between(1, 64),
        "objects",
    ),
    _ours(
        "wal.object.max.bytes",
        ConfigType.INT,
        8 * MIB,
        "A write-ahead log object with so many bytes of records is written at once.",
        Between(64 << 10, 64 * MIB),
        "bytes",
    ),
    _ours(
        "wal.latency.target.ms",
        ConfigType.INT,
        100,
        "Wanted time from a record's arrival to its acknowledgement, where the budget of PUTs"
        " allows it.",
        Between(1, 60_000),
        "ms",
    ),
    _ours(
        "wal.put.budget.per.second",
        ConfigType.DOUBLE,
        None,
        "PUTs a second that small write-ahead log objects may cost on average. Not set: 5 on"
        " stores that bill for requests, no bound on files, memory and custom endpoints.",
        Between(0.01),
        "requests/s",
    ),
    _ours(
        "log.cache.bytes",
        ConfigType.LONG,
        256 * MIB,
        "Bound on recent records kept in memory, those not yet uploaded among them; producers"
        " wait when it is reached.",
        Between(16 * MIB),
        "bytes",
    ),
    _ours(
        "upload.trigger.bytes",
        ConfigType.LONG,
        64 * MIB,
        "So many bytes in the write-ahead log start an upload.",
        Between(MIB),
        "bytes",
    ),
    _ours(
        "upload.trigger.age.ms",
        ConfigType.LONG,
        600_000,
        "A write-ahead log object of this age starts an upload.",
        Between(1_000),
        "ms",
    ),
    _ours(
        "upload.trigger.objects",
        ConfigType.INT,
        1_000,
        "So many write-ahead log objects start an upload; at twice as many producers wait.",
        Between(8),
        "objects",
    ),
    _ours(
        "large.batch.bytes",
        ConfigType.INT,
        4 * MIB,
        "A larger batch is written to an object of its own, so that no other partition waits"
        " behind it.",
        Between(64 << 10, 64 * MIB),
        "bytes",
    ),
    _ours(
        "cache.dir",
        ConfigType.STRING,
        None,
        "Directory of the disk cache; it may be deleted at any time. Not set: headwater in the"
        " user's cache directory, and none for a store in files.",
    ),
    _ours(
        "cache.disk.bytes",
        ConfigType.LONG,
        1024 * MIB,
        "Bound on the disk cache; 0 for none.",
        Between(0),
        "bytes",
    ),
    _ours(
        "cache.memory.bytes",
        ConfigType.LONG,
        128 * MIB,
        "Bound on blocks read from the store that are kept in memory.",
        Between(16 * MIB),
        "bytes",
    ),
    _ours(
        "compaction.budget.bytes.per.second",
        ConfigType.LONG,
        32 * MIB,
        "Bytes a second that merging objects may read and write; 0 switches it off.",
        Between(0),
        "bytes/s",
    ),
    _ours(
        "compaction.stream.object.bytes",
        ConfigType.LONG,
        64 * MIB,
        "A partition with so many bytes in mixed objects gets objects of its own.",
        Between(MIB),
        "bytes",
    ),
    _ours(
        "collector.round.interval.ms",
        ConfigType.LONG,
        600_000,
        "Least time between two rounds that delete objects nothing refers to.",
        Between(1_000),
        "ms",
    ),
)
