"""A planned move between two live logs: the closing side tells, the opening side reads.

    old log    HandedOver   the streams are closed; what they held, in line or in one object
    new log    Received     they are open here; names where the closing tells it

Both sides hold what was told: the old log until it drops the streams, since nobody else may know
of the new leader's opening yet; the new one until a checkpoint of its own repeats it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from objectstore.errors import Corrupt
from objectstore.store import ObjectStore
from wal.durable_future import DurableFuture
from wal.format import Kind, read_blob, read_index
from wal.keys import WAL_PREFIX

from .control import HandedOver, decode_control, encode_control
from .entries import StreamEntry
from .index_pages import decode_entries, encode_entries
from .metadata.records import BlobRef
from .object_writer import ObjectWriter, WrittenBlob
from .registry import Source, StreamRegistry

# Beyond it the entries go into an object of their own: one request more, for both sides.
INLINE_BYTES = 1 << 20
# State that changes while it is written as an object is written anew; then it goes in line.
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class HandoffRef:
    """Where the closing of a live log tells of streams. contents: see `Received`."""

    incarnation: int
    move: int
    contents: BlobRef


class HandingOver:
    """The closing side.

    append: puts a control record into the log, at once. settled: waits until no control record is
    on its way. inline_bytes: longer entries go into an object.
    """

    def __init__(
        self,
        registry: StreamRegistry,
        writer: ObjectWriter,
        *,
        append: Callable[[bytes], DurableFuture],
        settled: Callable[[], Awaitable[None]],
        inline_bytes: int = INLINE_BYTES,
    ) -> None:
        self._registry = registry
        self._writer = writer
        self._append = append
        self._settled = settled
        self.inline_bytes = inline_bytes

    async def close(self, moves: Mapping[int, Sequence[int]]) -> None:
        """One closing record for each move, all in one log object; durable when this returns.

        moves: stream ids, which take no batches any more and have none on its way, by number.
        Raises Corrupt (one is not open here), Fenced, LogClosed.
        """
        written: dict[int, tuple[bytes, WrittenBlob]] = {}
        for attempt in range(ATTEMPTS + 1):
            # What is told is what the fold will have made of all records before this one.
            await self._settled()
            bodies = {
                move: encode_closing(self._registry.entries, ids) for move, ids in moves.items()
            }
            large = [
                move
                for move, body in bodies.items()
                if len(body) > self.inline_bytes
                and not (move in written and written[move][0] == body)
            ]
            if not large or attempt == ATTEMPTS:
                break
            for move in large:
                blob = await self._writer.write_blob(Kind.DELTA, bodies[move])
                if move in written:
                    self._writer.numbers.settle([written[move][1].number])  # given up
                written[move] = (bodies[move], blob)
        # No await since the entries were encoded.
        done = []
        for move, ids in moves.items():
            ends = [(one, self._registry.entries[one].next_offset) for one in sorted(ids)]
            known = written.get(move)
            if known is not None and known[0] == bodies[move]:
                record = HandedOver(move, ends, entries_ref=known[1].ref)
            else:
                record = HandedOver(move, ends, bodies[move])
            done.append(self._append(encode_control(record)))
        # Crashed before this is durable: the streams are ours still, and failover hands them on.
        for future in done:
            await future
        self._writer.numbers.settle([blob.number for _, blob in written.values()])


def encode_closing(entries: Mapping[int, StreamEntry], stream_ids: Iterable[int]) -> bytes:
    """What the streams hold at this moment. Raises Corrupt where one is not held or closed."""
    chosen = []
    for stream_id in sorted(stream_ids):
        entry = entries.get(stream_id)
        if entry is None or entry.closed:
            raise Corrupt(f"stream {stream_id} is to be handed over, but is not open here")
        chosen.append(entry)
    return encode_entries(chosen)


async def read_contents(store: ObjectStore, ref: HandoffRef, wanted: Iterable[int]) -> Source:
    """The entries of the streams asked for, as the closing told them.

    Raises Corrupt, NotFound, or what else the store raises.
    """
    key, write_id, size_bytes = ref.contents
    if key.startswith(WAL_PREFIX):
        index = await read_index(store, key, size_bytes, write_id)
        body = memoryview(_closing_in(index.controls, key, ref.move).entries)
    else:
        body = (await read_blob(store, key, Kind.DELTA, write_id)).body
    told = {entry.stream_id: entry for entry in decode_entries(body, key)[0]}
    found = {one: told[one] for one in sorted(wanted) if one in told}
    return Source(ref.incarnation, found, (key,))


def _closing_in(controls: Iterable[bytes], key: str, move: int) -> HandedOver:
    for record in controls:
        control = decode_control(record, key)
        if isinstance(control, HandedOver) and control.move == move:
            return control
    raise Corrupt(f"{key}: no closing record of move {move} in it")
