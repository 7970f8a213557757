"""Committed offsets: commit, fetch, delete, expire.

Deciding reads the latest state, answering the durable one. Which group may do what:
- commit: members of the current generation; anybody (generation -1) while the group is empty;
- expire: KIP-211, and with an expiry of its own whatever a commit of version 2 to 4 asked for.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence

from broker.coordinator.classic_group import ClassicGroup, GroupState
from broker.coordinator.config import GroupConfig
from broker.coordinator.messages import CommitRequest, FetchedOffset
from broker.coordinator.records import Record
from broker.coordinator.state import DurableState, LatestState
from protocol.errors import ErrorCode, KafkaError
from protocol.internal_records import GroupMetadataKey, OffsetCommitKey, OffsetCommitValue

PartitionErrors = dict[str, list[tuple[int, ErrorCode]]]


class Offsets:
    """groups: the groups in memory, of the same shard."""

    def __init__(
        self,
        config: GroupConfig,
        durable: DurableState,
        latest: LatestState,
        groups: dict[str, ClassicGroup],
        now_ms: Callable[[], int],
    ) -> None:
        self._config = config
        self._durable = durable
        self._latest = latest
        self._groups = groups
        self._now_ms = now_ms

    # Commit

    def validate_commit(self, request: CommitRequest) -> ClassicGroup | None:
        """The group that commits, None if the commit creates it. Raises KafkaError."""
        group = self._groups.get(request.group_id)
        if group is None:
            if request.generation < 0:
                return None
            raise KafkaError(
                ErrorCode.GROUP_ID_NOT_FOUND
                if request.knows_missing_group
                else ErrorCode.ILLEGAL_GENERATION
            )
        empty = group.is_in(GroupState.EMPTY)
        if request.generation < 0 and empty:
            return group
        if request.generation >= 0 or request.member_id or request.instance_id is not None:
            group.validate_member(request.member_id, request.instance_id)
            if request.generation != group.generation:
                raise KafkaError(ErrorCode.ILLEGAL_GENERATION)
        elif not empty:
            raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)
        if group.is_in(GroupState.COMPLETING_REBALANCE):
            raise KafkaError(ErrorCode.REBALANCE_IN_PROGRESS)
        return group

    def commit(self, request: CommitRequest) -> tuple[PartitionErrors, list[Record]]:
        """The answer by topic in the request's order, and the records that make it true."""
        now_ms = self._now_ms()
        expires_ms = -1 if request.retention_ms == -1 else now_ms + request.retention_ms
        answer: PartitionErrors = {}
        records: list[Record] = []
        for topic in request.topics:
            errors = answer.setdefault(topic.name, [])
            for partition in topic.partitions:
                metadata = partition.metadata or ""
                if _utf16_length(metadata) > self._config.offset_metadata_max_bytes:
                    errors.append((partition.index, ErrorCode.OFFSET_METADATA_TOO_LARGE))
                    continue
                errors.append((partition.index, ErrorCode.NONE))
                key = OffsetCommitKey(
                    group=request.group_id, topic=topic.name, partition=partition.index
                )
                value = OffsetCommitValue(
                    offset=partition.offset,
                    leader_epoch=partition.leader_epoch if partition.leader_epoch >= 0 else -1,
                    metadata=metadata,
                    commit_timestamp=now_ms,
                    expire_timestamp=expires_ms,
                    topic_id=topic.topic_id,
                )
                records.append((key, value))
        return answer, records

    # Fetch

    def fetch(
        self, group_id: str, topic: str, topic_id: uuid.UUID | None, partitions: Sequence[int]
    ) -> list[FetchedOffset]:
        """Durable offsets, -1 where there is none.

        topic_id: what the client thinks the topic is, None if it goes by name. An offset
        of another topic of that name is none.
        """
        found = []
        for index in partitions:
            value = self._durable.offset(group_id, (topic, index))
            if value is None or _is_another(value.topic_id, topic_id):
                found.append(FetchedOffset(index))
            else:
                found.append(_fetched(index, value))
        return found

    def fetch_all(self, group_id: str) -> dict[str, list[FetchedOffset]]:
        """All durable offsets of a group, by topic; empty for an unknown group."""
        found: dict[str, list[FetchedOffset]] = {}
        for (topic, index), value in self._durable.offsets.get(group_id, {}).items():
            found.setdefault(topic, []).append(_fetched(index, value))
        return found

    # Delete

    def delete(
        self, group_id: str, topics: Iterable[tuple[str, Sequence[int]]]
    ) -> tuple[PartitionErrors, list[Record]]:
        """Raises KafkaError: GROUP_ID_NOT_FOUND; NON_EMPTY_GROUP, members of another protocol."""
        group = self._groups.get(group_id)
        if group is None:
            raise group_not_found(group_id)
        if not group.is_in(GroupState.EMPTY) and not group.uses_consumer_protocol:
            raise KafkaError(ErrorCode.NON_EMPTY_GROUP)
        answer: PartitionErrors = {}
        records: list[Record] = []
        for topic, partitions in topics:
            errors = answer.setdefault(topic, [])
            subscribed = group.is_subscribed(topic)
            for index in partitions:
                if subscribed:
                    errors.append((index, ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC))
                    continue
                errors.append((index, ErrorCode.NONE))
                if self._latest.offset(group_id, (topic, index)) is not None:
                    records.append((OffsetCommitKey(group_id, topic, index), None))
        return answer, records

    def delete_group(self, group_id: str) -> list[Record]:
        """Tombstones for all that is known of an empty group.

        Raises KafkaError: GROUP_ID_NOT_FOUND, NON_EMPTY_GROUP.
        """
        group = self._groups.get(group_id)
        if group is None:
            raise group_not_found(group_id)
        if not group.is_in(GroupState.EMPTY):
            raise KafkaError(ErrorCode.NON_EMPTY_GROUP)
        records: list[Record] = [
            (OffsetCommitKey(group_id, topic, index), None)
            for topic, index in self._latest.offsets(group_id)
        ]
        records.append((GroupMetadataKey(group_id), None))
        return records

    def delete_topics(self, group_ids: Iterable[str], topics: dict[str, uuid.UUID]) -> list[Record]:
        """Tombstones for the groups' offsets of deleted topics, by name and the id each had."""
        records: list[Record] = []
        for group_id in group_ids:
            for (topic, index), value in self._latest.offsets(group_id).items():
                deleted = topics.get(topic)
                # An offset of a newer topic of the same name stays.
                if deleted is not None and value.topic_id in (None, deleted):
                    records.append((OffsetCommitKey(group_id, topic, index), None))
        return records

    # Expire

    def expired(self, group_id: str) -> list[Record]:
        """Tombstones for what has expired, and for the group when nothing is left of it."""
        group = self._groups[group_id]
        offsets = self._latest.offsets(group_id)
        since = self._expires_since(group)
        records: list[Record] = []
        if offsets and since is None:
            return records
        now_ms = self._now_ms()
        for (topic, index), value in offsets.items():
            assert since is not None
            if group.is_subscribed(topic):
                continue
            if value.expire_timestamp != -1:
                over = now_ms >= value.expire_timestamp
            else:
                over = now_ms - since(value) >= self._config.offsets_retention_ms
            if over:
                records.append((OffsetCommitKey(group_id, topic, index), None))
        # Who was just given a member id is about to join with it.
        nobody = group.is_in(GroupState.EMPTY) and not group.pending_join
        if len(records) == len(offsets) and nobody:
            records.append((GroupMetadataKey(group_id), None))
        return records

    def _expires_since(self, group: ClassicGroup) -> Callable[[OffsetCommitValue], int] | None:
        """From when on the retention of the group's offsets counts; None: not at all."""
        if group.protocol_type is None:
            return _committed_at
        if group.is_in(GroupState.EMPTY):
            became_empty_ms = group.state_timestamp_ms
            # Old records do not say when the group became empty.
            return _committed_at if became_empty_ms == -1 else lambda _value: became_empty_ms
        knows_topics = group.uses_consumer_protocol and group.subscribed_topics is not None
        return _committed_at if knows_topics and group.is_in(GroupState.STABLE) else None


def group_not_found(group_id: str) -> KafkaError:
    return KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, f"Group {group_id} not found.")


def _committed_at(value: OffsetCommitValue) -> int:
    return value.commit_timestamp


def _fetched(index: int, value: OffsetCommitValue) -> FetchedOffset:
    return FetchedOffset(index, value.offset, value.leader_epoch, value.metadata)


def _is_another(known: uuid.UUID | None, asked: uuid.UUID | None) -> bool:
    return known is not None and asked is not None and known != asked


def _utf16_length(text: str) -> int:
    return len(text) + sum(character > "\uffff" for character in text)
