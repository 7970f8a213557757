"""The task that keeps a broker's history compact: plans, has it merged, and records the result.

    plan -> names drawn -> merged by the runner -> Compacted(removed, added) durable -> plan again

A crash at any point loses nothing: until the record is durable the chain names the old objects, and
the new ones are garbage of their maker. A stream that was trimmed, closed or moved meanwhile is not
touched by the record where it no longer fits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from random import Random

from objectstore.create import Backoff
from objectstore.errors import Corrupt, NotFound, StoreError

from ..control import Compacted, encode_control
from ..fold import object_ranges
from ..object_reader import ObjectReader
from ..references import ObjectNumbers
from ..refs import ObjectRange, ObjectRef
from ..registry import StreamRegistry
from .merge import NewObject
from .plan import (
    CompactionConfig,
    ObjectUse,
    Plan,
    mostly_trimmed,
    object_uses,
    plan_compaction,
    space_amplification,
    without,
)
from .worker import MergeRunner

log = logging.getLogger(__name__)

RETRY_BASE_S = 1.0
RETRY_CAP_S = 600.0


class Compactor:
    """append: puts a control record into the log and returns, durable and folded, with its seq.

    runner: closed with this. put_off_s: seconds that merging has to wait, since an idle broker
    asks the store nothing until its housekeeping, and a busy one has better things to do; a merge
    that was begun is finished.
    """

    def __init__(
        self,
        registry: StreamRegistry,
        numbers: ObjectNumbers,
        reader: ObjectReader,
        runner: MergeRunner,
        config: CompactionConfig,
        *,
        append: Callable[[bytes], Awaitable[int]],
        rng: Random,
        put_off_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._put_off_s = put_off_s
        self._registry = registry
        self._numbers = numbers
        self._reader = reader
        self._runner = runner
        self._config = config
        self._append = append
        self._rng = rng
        self._wake = asyncio.Event()
        # Found damaged or missing: nothing is built on them, and no merge tried again.
        self._corrupt: dict[str, None] = {}
        self._amplification = 1.0
        self.merges = 0
        self.merged_bytes = 0
        self.failures = 0

    def notice(self) -> None:
        """There are new objects, or old ones were trimmed. Cheap; called after each upload."""
        self._wake.set()

    def space_amplification(self) -> float:
        """For the metric: bytes stored for each byte that the open streams still have.

        As of the last look at what there is, which each change of the history asks for.
        """
        return self._amplification

    async def run(self) -> None:
        """Raises Fenced or LogClosed when the log ends; a store's trouble is waited out."""
        backoff = Backoff(self._rng, RETRY_BASE_S)
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                try:
                    while not await self._put_off() and await self.compact_once():
                        backoff = Backoff(self._rng, RETRY_BASE_S)
                except StoreError as error:
                    self.failures += 1
                    log.info("compaction is put off: %s", error)
                    await asyncio.sleep(backoff.next_s(RETRY_CAP_S))
                    self._wake.set()
        finally:
            await self._runner.close()

    async def _put_off(self) -> bool:
        """Wait for as long as merging must; True when something new came meanwhile."""
        while (left_s := self._put_off_s()) > 0:
            try:
                # Not shorter: a wait that rounding leaves would be over at the same instant.
                async with asyncio.timeout(max(left_s, 0.001)):
                    await self._wake.wait()
            except TimeoutError:
                continue
            return True
        return False

    async def compact_once(self) -> bool:
        """One merge; False where there is nothing to do. Raises StoreError."""
        uses = await self._uses()
        self._amplification = space_amplification(uses)
        plan = plan_compaction(uses, self._config)
        if plan is None:
            return False
        names = [
            NewObject(self._registry.incarnation, self._numbers.draw(), self._rng.randbytes(16))
            for _ in plan.outputs
        ]
        try:
            added = await self._merged(plan, names)
        except BaseException:
            self._numbers.settle(name.number for name in names)  # none will ever be referred to
            raise
        if added:
            # Not settled when this fails: the record may be in the log, and become durable yet.
            await self._append(encode_control(Compacted(list(plan.removed), added)))
            self.merges += 1
            self.merged_bytes += sum(output.size_bytes for output in plan.outputs)
            for ref in plan.removed:
                self._reader.forget(ref)
        self._numbers.settle(name.number for name in names)
        return True

    async def _merged(self, plan: Plan, names: list[NewObject]) -> list[ObjectRef]:
        """What was written; [] where the plan does not hold any more."""
        try:
            added = await self._runner.run(list(zip(names, plan.outputs, strict=True)))
            indexes = [await self._reader.index(ref) for ref in added]
        except NotFound as error:
            if not all(ref.key in self._registry.references for ref in plan.removed):
                return []  # trimmed away meanwhile
            # Missing while it is referred to: what else there is goes on being merged.
            missing = [ref.key for ref in plan.removed if ref.key in str(error)]
            if not missing:
                raise
            log.error("compaction leaves an object alone that is missing: %s", error)
            self._corrupt.update(dict.fromkeys(missing))
            return []
        except Corrupt as error:
            damaged = [ref.key for ref in plan.removed if ref.key in str(error)]
            if not damaged:
                raise
            log.error("compaction leaves a damaged object alone: %s", error)
            self._corrupt.update(dict.fromkeys(damaged))
            return []
        for ref, index in zip(added, indexes, strict=True):
            self._registry.learn_index(ref, index)
        return added

    async def _uses(self) -> list[ObjectUse]:
        trimmed: dict[str, list[tuple[int, ObjectRange, int]]] = {}
        for entry in self._registry.entries.values():
            first = mostly_trimmed(entry, self._config.least_trimmed)
            if first is not None:
                cut = (entry.stream_id, first, entry.start_offset)
                trimmed.setdefault(first.object.key, []).append(cut)
        uses = []
        for use in object_uses(self._registry.entries.values()):
            if use.ref.key in self._corrupt:
                continue
            for cut in trimmed.get(use.ref.key, ()):
                use = await self._without_trimmed(use, *cut)
            uses.append(use)
        return uses

    async def _without_trimmed(
        self, use: ObjectUse, stream_id: int, first: ObjectRange, start_offset: int
    ) -> ObjectUse:
        """Without the blocks of a stream's range that lie below its start."""
        try:
            blocks = await self._reader.stream_ranges(use.ref, stream_id)
        except NotFound:
            return use  # merged or trimmed away meanwhile: the record will find out
        except Corrupt as error:
            log.error("compaction leaves a damaged object alone: %s", error)
            self._corrupt[use.ref.key] = None
            return use
        left = [
            one
            for one in blocks
            if one.end_offset > start_offset
            and first.base_offset <= one.base_offset
            and one.end_offset <= first.end_offset
        ]
        rest = object_ranges(use.ref, left)
        if len(rest) != 1 or rest[0].end_offset != first.end_offset:
            return use
        return without(use, stream_id, first, rest[0])
