"""Checkpoints: the exact state of a log's streams, written so that the log before can go.

    as of D      entries are encoded, in one step, as they are after object D
    pages, delta written as objects where they are too large to go in line
    record       appended to the log; durable in object C > D
    trim         to behind what is uploaded, never above C

Recovery reads the newest record and folds the objects after D. Live and recovered state cannot
differ: both come from the same entries and the same fold.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from wal.format import Kind

from .archive import Archiver
from .config import S3StreamConfig
from .control import Checkpoint, encode_control
from .entries import PageRef
from .index_pages import Part, delta_limit_bytes, encode_entries, rewrite
from .metadata.records import BlobRef
from .object_writer import ObjectWriter
from .registry import StreamRegistry, pages_of


class Checkpointer:
    """append: puts a control record into the log and returns, durable and folded, with its seq.

    set_trim: the log writer's. archiver: has its turn before each checkpoint.
    """

    def __init__(
        self,
        registry: StreamRegistry,
        writer: ObjectWriter,
        config: S3StreamConfig,
        *,
        append: Callable[[bytes], Awaitable[int]],
        set_trim: Callable[[int, int], None],
        archiver: Archiver | None = None,
    ) -> None:
        self._registry = registry
        self._writer = writer
        self._config = config
        self._append = append
        self._set_trim = set_trim
        self._archiver = archiver
        # Of the last checkpoint begun: `registry.changed` is relative to them.
        self._pages: list[PageRef] = []

    async def write(self) -> None:
        """One at a time, by one owner. Raises Fenced or LogClosed; trouble is waited out."""
        if self._archiver is not None:
            await self._archiver.run_once()
        registry = self._registry
        config = self._config
        as_of = registry.folded_seq
        uploaded = registry.uploaded_seq
        numbers: list[int] = []
        delta = self._encode_delta()
        pages = self._pages
        if len(delta) > delta_limit_bytes(pages, config.delta_bytes):
            # In the same step as `as_of`: what changes from now on belongs to the next delta.
            pages, parts = rewrite(
                pages,
                registry.entries,
                registry.changed,
                streams=config.page_streams,
                size_bytes=config.page_bytes,
            )
            changed, registry.changed = registry.changed, {}
            delta = b""
            # Crashed before the record is durable: the pages are garbage, settled with their maker.
            try:
                pages += [await self._write_page(part, numbers) for part in parts]
            except BaseException:
                # Cancelled, and a closing broker writes one more: to it these are changes still.
                registry.changed = changed | registry.changed
                raise
            pages.sort(key=_low)
            self._pages = pages
        delta_ref: BlobRef | None = None
        if len(delta) > config.inline_delta_bytes:
            blob = await self._writer.write_blob(Kind.DELTA, delta)
            numbers.append(blob.number)
            delta_ref = blob.ref
            delta = b""
        record = Checkpoint(as_of, uploaded, list(pages), delta, delta_ref)
        seq = await self._append(encode_control(record))
        self._writer.numbers.settle(numbers)
        # Not above what this record says to be uploaded: the objects after it are still the data.
        self._set_trim(uploaded + 1, seq)

    async def _write_page(self, part: Part, numbers: list[int]) -> PageRef:
        written = await self._writer.write_blob(Kind.PAGE, part.body)
        numbers.append(written.number)
        ref = written.ref
        return PageRef(ref.key, ref.write_id, ref.size_bytes, part.low, part.high)

    def adopt_pages(self) -> None:
        """After the registry was restored from a checkpoint."""
        self._pages = pages_of(self._registry.checkpoint)

    def _encode_delta(self) -> bytes:
        entries = self._registry.entries
        changed = sorted(self._registry.changed)
        return encode_entries(
            (entries[one] for one in changed if one in entries),
            [one for one in changed if one not in entries],
        )


def _low(page: PageRef) -> int:
    return page.low
