"""An incarnation's answer to a round of deletion: what it held, written into its own log.

It names what this incarnation referred to at any moment since its last report, what of its own log
is on its way, and the lowest number of its own objects that is not settled. All are taken in one
step, so that an object is always in one of them; it counts once the record is durable.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from objectstore.errors import Corrupt
from objectstore.store import ObjectStore
from wal.format import Kind, read_blob
from wal.keys import wal_log
from wal.parallel import each_of

from .control import Report, encode_control
from .object_reader import ObjectReader
from .object_writer import ObjectWriter
from .refs import ObjectRange
from .registry import StreamRegistry

INLINE_KEYS = 500
READS_AT_ONCE = 8


class Reporter:
    """append: puts a control record into the log and returns, durable and folded, with its seq.

    next_seq: of the log; the writer's.
    """

    def __init__(
        self,
        registry: StreamRegistry,
        reader: ObjectReader,
        writer: ObjectWriter,
        *,
        append: Callable[[bytes], Awaitable[int]],
        next_seq: Callable[[], int],
    ) -> None:
        self._registry = registry
        self._reader = reader
        self._writer = writer
        self._append = append
        self._next_seq = next_seq
        self._answered = -1

    async def answer(self, round_number: int) -> None:
        """Report to that round, once; durable when it returns. One call at a time.

        Raises Fenced or LogClosed, or what reading an index object of a history raises; trouble
        with writing is waited out.
        """
        if round_number <= self._answered:
            return
        number, keys = self._registry.references.begin_report()
        # They may have been listed, and be adopted and trimmed past before this report is read.
        own_log = wal_log(self._registry.incarnation)
        on_its_way = range(self._registry.folded_seq + 1, self._next_seq())
        keys.update(own_log.key(seq) for seq in on_its_way)
        lowest_unsettled = self._writer.numbers.lowest_unsettled
        held = sorted(keys | await self._named_by_histories(keys))
        record = Report(round_number, lowest_unsettled, held)
        numbers: list[int] = []
        if len(held) > INLINE_KEYS:
            blob = await self._writer.write_blob(Kind.REPORT, msgspec.msgpack.encode(held))
            numbers.append(blob.number)
            record = Report(round_number, lowest_unsettled, [], blob.ref)
        await self._append(encode_control(record))
        self._answered = round_number
        self._registry.references.report_durable(number)
        # Only this round reads it, and it was not there when the round listed its candidates.
        self._writer.numbers.settle(numbers)

    async def _named_by_histories(self, keys: set[str]) -> set[str]:
        """What the index objects among the keys name: it is held as long as they are."""

        async def read(one: tuple[int, ObjectRange]) -> set[str]:
            stream_id, index = one
            ranges = await self._reader.history(index, stream_id)
            return {found.object.key for found in ranges}

        histories = self._registry.references.histories(sorted(keys))
        return set().union(*await each_of(read, histories, READS_AT_ONCE))


async def held_keys(store: ObjectStore, report: Report) -> list[str]:
    """What a report names, in line or not. Raises NotFound, Corrupt."""
    if report.held_ref is None:
        return report.held
    key, write_id, _ = report.held_ref
    blob = await read_blob(store, key, Kind.REPORT, write_id)
    try:
        further = msgspec.msgpack.decode(blob.body, type=list[str])
    except msgspec.MsgspecError as error:
        raise Corrupt(f"{key}: unreadable report: {error}") from error
    return [*report.held, *further]
