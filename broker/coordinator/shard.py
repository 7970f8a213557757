"""One partition of `__consumer_offsets`: its state, its log, its groups.

Everything durable goes one way: a handler decides, its records are appended, and when the log
says that they are durable `DurableState.replay` takes them in, in log order. Loading replays the
same records from the log, so a recovered shard equals the one that wrote them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from broker.coordinator.classic_group import ClassicGroup
from broker.coordinator.config import GroupConfig
from broker.coordinator.log import CoordinatorLog
from broker.coordinator.membership import Membership
from broker.coordinator.offsets import Offsets
from broker.coordinator.rebalance import Rebalances, Write
from broker.coordinator.records import Key, Record, decode_record, encode_record
from broker.coordinator.state import DurableState, LatestState
from broker.coordinator.timers import Timers
from protocol.errors import ErrorCode, KafkaError

log = logging.getLogger(__name__)

# A tombstone has about 100 bytes, a batch at most 1 MiB.
_BATCH_RECORDS = 1_000


@dataclass(slots=True)
class _Append:
    """answered: resolves to None when durable, to the error when it never will be."""

    sequence: int
    records: list[Record]
    written: asyncio.Future[int]
    done: Callable[[KafkaError | None], None] | None
    answered: asyncio.Future[KafkaError | None]
    since_s: float


class Shard:
    """loaded: it may be asked; closed: it never may again."""

    def __init__(
        self,
        config: GroupConfig,
        partition_log: CoordinatorLog,
        now_ms: Callable[[], int],
        rng: random.Random,
    ) -> None:
        self._config = config
        self._log = partition_log
        self._now_ms = now_ms
        self._pending: deque[_Append] = deque()
        self._settled = asyncio.Event()
        self._sequence = 0
        self.loaded = False
        self.closed = False
        self.durable = DurableState()
        # The durable state is that of the log below this offset.
        self.end_offset = partition_log.log_start_offset
        self.latest = LatestState(self.durable)
        self.timers = Timers(lambda: self.stalled)
        self._rebalances = Rebalances(config, self.timers, now_ms, lambda write: self.append(write))
        self.groups = self._rebalances.groups
        self.members = Membership(config, self._rebalances, now_ms, rng)
        self.offsets = Offsets(config, self.durable, self.latest, self.groups, now_ms)

    # Loading and closing

    async def load(self) -> None:
        """Replay the partition from its start to its high watermark.

        Raises KafkaError: it cannot be read now.
        """
        offset = self._log.log_start_offset
        while offset < self._log.high_watermark:
            records, next_offset = await self._log.read(offset)
            assert next_offset > offset, (offset, next_offset)
            for record in records:
                known = decode_record(record.key, record.value)
                if known is not None:
                    self.durable.replay(*known)
            offset = self.end_offset = next_offset
            # Reads of cached batches may not suspend: a long log must not hold the loop.
            await asyncio.sleep(0)
        if self.closed:
            return
        self.loaded = True
        for group_id in self.durable.groups:
            self._reconcile(group_id)
        self._settled.set()

    async def ready(self) -> None:
        """Until it is loaded or closed."""
        await self._settled.wait()

    def close(self) -> None:
        """The partition is led elsewhere, or the broker ends: everybody has to look anew.

        Records on their way may still become durable; whoever leads next will read them.
        """
        self.closed = True
        self.loaded = False
        self._settled.set()
        for group_id in list(self.groups):
            self._rebalances.drop(group_id, ErrorCode.NOT_COORDINATOR)
        self.timers.clear()
        while self._pending:
            self._pending.popleft().answered.set_result(KafkaError(ErrorCode.NOT_COORDINATOR))

    # Appending

    @property
    def stalled(self) -> bool:
        """The log has not answered for so long that clients may be stuck behind it."""
        if not self._pending:
            return False
        age_s = asyncio.get_running_loop().time() - self._pending[0].since_s
        return age_s * 1000 >= self._config.append_stall_ms

    def append(self, write: Write) -> asyncio.Future[KafkaError | None]:
        """Append as one batch. The future tells when it is durable; nobody may cancel it."""
        assert write.records and self.loaded
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[KafkaError | None] = loop.create_future()
        try:
            written = self._log.append([encode_record(key, value) for key, value in write.records])
        except KafkaError as error:
            self._settle_failure(write.records, write.done, answered, error)
            return answered
        self._sequence += 1
        append = _Append(self._sequence, write.records, written, write.done, answered, loop.time())
        self._pending.append(append)
        self.latest.apply(append.sequence, write.records)
        for group_id in _groups_of(write.records):
            self._reconcile(group_id)
        written.add_done_callback(self._on_written)
        return answered

    def _on_written(self, future: asyncio.Future[int]) -> None:
        """Take in all that the log has answered, in log order, whichever answer came first."""
        if not future.cancelled():
            # Looked at even if we are closed and nobody waits for it.
            future.exception()
        stalled = self.stalled
        moved = False
        while self._pending and self._pending[0].written.done():
            append = self._pending.popleft()
            moved = True
            error = _error_of(append.written)
            if error is None:
                for key, value in append.records:
                    self.durable.replay(key, value)
                self.end_offset = append.written.result() + len(append.records)
                self.latest.settle(append.sequence, append.records)
                if append.done is not None:
                    append.done(None)
                append.answered.set_result(None)
            else:
                log.warning("__consumer_offsets: %d records lost: %s", len(append.records), error)
                self.latest.rebuild((a.sequence, a.records) for a in self._pending)
                self._settle_failure(append.records, append.done, append.answered, error)
        if moved and stalled and not self.closed:
            self.timers.resume()

    def _settle_failure(
        self,
        records: list[Record],
        done: Callable[[KafkaError | None], None] | None,
        answered: asyncio.Future[KafkaError | None],
        error: KafkaError,
    ) -> None:
        for group_id in _groups_of(records):
            self._reconcile(group_id)
        if done is not None:
            done(error)
        answered.set_result(error)

    def _reconcile(self, group_id: str) -> None:
        """Have the group in memory exactly if it is there once all appended is durable."""
        if self.latest.has_group(group_id) == (group_id in self.groups):
            return
        if group_id in self.groups:
            self._rebalances.drop(group_id, ErrorCode.COORDINATOR_NOT_AVAILABLE)
            return
        metadata = self.durable.groups.get(group_id)
        if metadata is None:
            self.groups[group_id] = ClassicGroup(group_id, self._now_ms())
        else:
            self._rebalances.adopt(ClassicGroup.from_metadata(group_id, metadata))

    async def confirm(self) -> None:
        """Raises KafkaError: somebody else may lead, with newer offsets than ours."""
        await self._log.confirm()

    async def written(self, answered: asyncio.Future[KafkaError | None]) -> None:
        """Wait until the append is durable, for as long as a commit may take.

        Raises KafkaError: it failed, or REQUEST_TIMED_OUT; then it may still become durable.
        """
        timeout_s = self._config.offset_commit_timeout_ms / 1000
        # Not wait_for(): the append is not ours to cancel.
        await asyncio.wait((answered,), timeout=timeout_s)
        if not answered.done():
            raise KafkaError(ErrorCode.REQUEST_TIMED_OUT)
        error = answered.result()
        if error is not None:
            raise error

    async def settled(self) -> None:
        """Wait until what is appended by now is durable. Raises KafkaError: as `written`.

        Who answers "it is gone" or "this is the newest" tells of an earlier append.
        """
        if self._pending:
            try:
                await self.written(self._pending[-1].answered)
            except KafkaError as error:
                # That append failed: it is settled. Only a timeout leaves us unknowing.
                if error.code in (ErrorCode.REQUEST_TIMED_OUT, ErrorCode.NOT_COORDINATOR):
                    raise

    # Housekeeping

    def expired(self, group_ids: Iterable[str]) -> list[Record]:
        """Tombstones for expired offsets, and for the groups that are empty with them."""
        records: list[Record] = []
        for group_id in group_ids:
            if group_id in self.groups:
                records.extend(self.offsets.expired(group_id))
        return records

    def append_all(self, records: list[Record]) -> asyncio.Future[KafkaError | None]:
        """Append in as many batches as it takes; the future is that of the last one.

        Only for records that need not become durable together.
        """
        assert records
        for begin in range(0, len(records), _BATCH_RECORDS):
            answered = self.append(Write(records[begin : begin + _BATCH_RECORDS]))
        return answered

    def live_records(self) -> list[tuple[bytes, bytes]]:
        """Key and value of every record that says something still."""
        live: list[tuple[bytes, bytes]] = []
        for key, value in self.durable.records():
            key_bytes, value_bytes = encode_record(key, value)
            assert value_bytes is not None
            live.append((key_bytes, value_bytes))
        return live


def _groups_of(records: list[Record]) -> list[str]:
    keys: list[Key] = [key for key, _value in records]
    return list(dict.fromkeys(key.group for key in keys))


def _error_of(written: asyncio.Future[int]) -> KafkaError | None:
    if written.cancelled():
        return KafkaError(ErrorCode.NOT_COORDINATOR, detail="the partition was closed")
    error = written.exception()
    if error is None or isinstance(error, KafkaError):
        return error
    # Our own fault, or the partition's: nobody can tell what is in the log now.
    return KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, detail=f"the log failed: {error!r}")
