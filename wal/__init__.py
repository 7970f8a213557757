"""The durable, fenced log on conditional creates."""

from .config import WalConfig
from .durable_future import DurableFuture
from .errors import Fenced, HoleInLog, LogClosed, LogError, TrimmedAway
from .format import (
    BatchEntry,
    ControlMarker,
    Kind,
    LargeBatchRef,
    ObjectHeader,
    ObjectIndex,
    ProducerUpdate,
    StreamRange,
    compose,
    compose_blob,
)
from .keys import LogName, meta_log, wal_log
from .recovery import LogObject, read_tail
from .seal import LogEnd, end_log, read_end
from .writer import DurableObject, LogWriter

__all__ = [
    "BatchEntry",
    "ControlMarker",
    "DurableFuture",
    "DurableObject",
    "Fenced",
    "HoleInLog",
    "Kind",
    "LargeBatchRef",
    "LogClosed",
    "LogEnd",
    "LogError",
    "LogName",
    "LogObject",
    "LogWriter",
    "ObjectHeader",
    "ObjectIndex",
    "ProducerUpdate",
    "StreamRange",
    "TrimmedAway",
    "WalConfig",
    "compose",
    "compose_blob",
    "end_log",
    "meta_log",
    "read_end",
    "read_tail",
    "wal_log",
]
