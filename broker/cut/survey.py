"""Everything that a bucket holds, by one LIST: which logs, up to where, and which terms."""

from __future__ import annotations

from dataclasses import dataclass, field

from objectstore.store import ObjectStore
from wal.keys import LogName, parse_data_key, parse_log, parse_snapshot_key


@dataclass(slots=True)
class Listed:
    """sizes: bytes, by key. logs: of each log its sequences, whatever lies there; ends: those with
    an `end`. snapshots: (term, seq), oldest first. makers: incarnations that keys speak of.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    logs: dict[LogName, list[int]] = field(default_factory=dict)
    ends: set[LogName] = field(default_factory=set)
    snapshots: list[tuple[int, int]] = field(default_factory=list)
    makers: set[int] = field(default_factory=set)

    @property
    def incarnations(self) -> list[int]:
        """Those whose logs have left anything, in order."""
        return sorted(log.log_id for log in self.logs if log.family == "wal")

    @property
    def terms(self) -> list[int]:
        """Those that keys speak of, in order."""
        terms = {log.log_id for log in self.logs if log.family == "meta"}
        return sorted(terms | {term for term, _ in self.snapshots})


async def list_bucket(store: ObjectStore) -> Listed:
    """Keys that are none of ours are passed by."""
    found = Listed()
    async for info in store.list(""):
        found.sizes[info.key] = info.size_bytes
        log = parse_log(info.key)
        if log is not None:
            sequences = found.logs.setdefault(log, [])
            seq = log.seq_of(info.key)
            if seq is None:
                found.ends.add(log)
            else:
                sequences.append(seq)
            if log.family == "wal":
                found.makers.add(log.log_id)
            continue
        snapshot = parse_snapshot_key(info.key)
        if snapshot is not None:
            found.snapshots.append(snapshot)
            continue
        data = parse_data_key(info.key)
        if data is not None:
            found.makers.add(data[0])
    return found
