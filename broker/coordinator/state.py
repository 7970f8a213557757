"""What `__consumer_offsets` says: the durable state, and the state once all is written.

`DurableState.replay` is the only code that changes durable state, and it sees nothing but
records, in log order: at loading, and when an append has become durable. `LatestState` lays the
appended, not yet durable records over it, for who decides what to write next; who answers what
is there reads `DurableState` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from broker.coordinator.records import Key, Record, Value
from protocol.internal_records import (
    GroupMetadataKey,
    GroupMetadataValue,
    OffsetCommitKey,
    OffsetCommitValue,
)

TopicPartition = tuple[str, int]


class DurableState:
    """Groups and committed offsets as the durable records give them.

    groups: a group without a metadata record (one that only commits offsets) has None. It stays
    when its last offset goes; only a tombstone of the group removes it.
    offsets: per group, never an empty mapping.
    """

    def __init__(self) -> None:
        self.groups: dict[str, GroupMetadataValue | None] = {}
        self.offsets: dict[str, dict[TopicPartition, OffsetCommitValue]] = {}

    def replay(self, key: Key, value: Value | None) -> None:
        if isinstance(key, GroupMetadataKey):
            if value is None:
                self.groups.pop(key.group, None)
            else:
                assert isinstance(value, GroupMetadataValue), value
                self.groups[key.group] = value
            return
        where = (key.topic, key.partition)
        if value is not None:
            assert isinstance(value, OffsetCommitValue), value
            self.groups.setdefault(key.group)
            self.offsets.setdefault(key.group, {})[where] = value
            return
        offsets = self.offsets.get(key.group)
        if offsets is not None:
            offsets.pop(where, None)
            if not offsets:
                del self.offsets[key.group]

    def offset(self, group_id: str, where: TopicPartition) -> OffsetCommitValue | None:
        offsets = self.offsets.get(group_id)
        return None if offsets is None else offsets.get(where)

    def records(self) -> Iterator[Record]:
        """The fewest records whose replay gives this state (but groups that nothing names)."""
        for group_id, metadata in self.groups.items():
            if metadata is not None:
                yield GroupMetadataKey(group=group_id), metadata
        for group_id, offsets in self.offsets.items():
            for (topic, partition), value in offsets.items():
                yield OffsetCommitKey(group=group_id, topic=topic, partition=partition), value


class LatestState:
    """The durable state with the appended records over it, as if they were durable already.

    Each change carries the sequence number of its append: the newest append of a key wins, and
    leaves the overlay when it is durable.
    """

    def __init__(self, durable: DurableState) -> None:
        self._durable = durable
        self._groups: dict[str, tuple[int, bool]] = {}
        self._offsets: dict[str, dict[TopicPartition, tuple[int, OffsetCommitValue | None]]] = {}

    def apply(self, sequence: int, records: Iterable[Record]) -> None:
        for key, value in records:
            if isinstance(key, GroupMetadataKey):
                self._groups[key.group] = (sequence, value is not None)
                continue
            assert value is None or isinstance(value, OffsetCommitValue), value
            if value is not None and not self.has_group(key.group):
                self._groups[key.group] = (sequence, True)
            changes = self._offsets.setdefault(key.group, {})
            changes[key.topic, key.partition] = (sequence, value)

    def settle(self, sequence: int, records: Iterable[Record]) -> None:
        """Forget what the append laid over: its records are durable now."""
        for key, _value in records:
            change = self._groups.get(key.group)
            if change is not None and change[0] == sequence:
                del self._groups[key.group]
            if isinstance(key, OffsetCommitKey):
                where = (key.topic, key.partition)
                changes = self._offsets.get(key.group, {})
                if where in changes and changes[where][0] == sequence:
                    del changes[where]
                    if not changes:
                        del self._offsets[key.group]

    def rebuild(self, pending: Iterable[tuple[int, list[Record]]]) -> None:
        """Lay over exactly these appends: one between them is known never to be in the log."""
        self._groups.clear()
        self._offsets.clear()
        for sequence, records in pending:
            self.apply(sequence, records)

    def has_group(self, group_id: str) -> bool:
        change = self._groups.get(group_id)
        return group_id in self._durable.groups if change is None else change[1]

    def group_ids(self) -> list[str]:
        ids = dict.fromkeys(self._durable.groups) | dict.fromkeys(self._groups)
        return [group_id for group_id in ids if self.has_group(group_id)]

    def offset(self, group_id: str, where: TopicPartition) -> OffsetCommitValue | None:
        change = self._offsets.get(group_id, {}).get(where)
        return self._durable.offset(group_id, where) if change is None else change[1]

    def offsets(self, group_id: str) -> dict[TopicPartition, OffsetCommitValue]:
        """All of the group's offsets; a copy."""
        merged = dict(self._durable.offsets.get(group_id, {}))
        for where, (_sequence, value) in self._offsets.get(group_id, {}).items():
            if value is None:
                merged.pop(where, None)
            else:
                merged[where] = value
        return merged
