"""Copying a cluster's bucket; see the package for the order, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from broker.cut import Plan, cut
from broker.cut.settle import MAKER
from broker.cut.survey import list_bucket
from broker.verify.fault import Fault
from objectstore.create import found_write_id
from objectstore.errors import NotFound
from objectstore.store import ObjectInfo, ObjectStore
from wal.keys import DATA_PREFIX, WAL_PREFIX, meta_log
from wal.parallel import each_of
from wal.seal import read_end

from .copying import Copying
from .withheld import WithWithheld

META_PREFIX = "meta/"
FIRST_KEY = meta_log(0).key(0)
SMALL_BYTES = 1 << 20
SMALL_AT_ONCE = 32
LARGE_AT_ONCE = 4
# Each copies what came since the one before, so the second is short.
PASSES = 20

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Cloned:
    """as_of_ms: the source's clock when its metadata was listed for the last time; what it
    acknowledged before is in the copy. kept: what the copy holds.
    """

    as_of_ms: int
    objects: int
    size_bytes: int
    skipped: int
    kept: Plan


async def clone(
    source: ObjectStore,
    target: ObjectStore,
    rng: Random,
    now_ms: Callable[[], int],
    *,
    on_progress: OnProgress = lambda done, of: None,
) -> Cloned:
    """on_progress: called with bytes done and bytes known of.

    Raises Fault where the source holds no cluster or the target holds another, StoreError. May be
    called again after that, or after a crash: what is there is not copied again.
    """
    return await _Cloning(source, target, rng, now_ms, on_progress).run()


class _Cloning:
    def __init__(
        self,
        source: ObjectStore,
        target: ObjectStore,
        rng: Random,
        now_ms: Callable[[], int],
        on_progress: OnProgress,
    ) -> None:
        self._source = source
        self._target = target
        self._rng = rng
        self._now_ms = now_ms
        self._on_progress = on_progress
        self._copying = Copying(source, target, rng)
        self._there: dict[str, int] = {}
        self._done: set[str] = set()
        self._done_bytes = self._known_bytes = 0
        self._copied = self._copied_bytes = self._skipped = 0

    async def run(self) -> Cloned:
        try:
            first = await self._source.get(FIRST_KEY)
        except NotFound:
            raise Fault("no cluster: there is no meta/0/0 in the source") from None
        if await found_write_id(self._target, FIRST_KEY) is not None:
            raise Fault(
                "the target holds a cluster already, perhaps a finished clone; it is left as it "
                "is. Choose an empty target"
            )
        async for info in self._target.list(""):
            self._there[info.key] = info.size_bytes
        as_of_ms = await self._source.date_ms()
        if not await self._is_being_settled():
            as_of_ms = await self._copy_everything()
        kept = await cut(WithWithheld(self._target, FIRST_KEY, first), self._rng, self._now_ms)
        await self._copying.copy(ObjectInfo(FIRST_KEY, len(first), 0))
        return Cloned(as_of_ms, self._copied, self._copied_bytes, self._skipped, kept)

    async def _is_being_settled(self) -> bool:
        """An earlier run had copied everything, and has begun to end logs."""
        listed = await list_bucket(self._target)
        for log in listed.ends:
            if log.family == "meta":
                end = await read_end(self._target, log)
                if end is not None and end.maker.startswith(MAKER):
                    return True
        return False

    async def _copy_everything(self) -> int:
        for _ in range(PASSES):
            as_of_ms = await self._source.date_ms()
            # In this order: what is listed later was there when what refers to it was written.
            metadata = [one for one in await self._new(META_PREFIX) if one.key != FIRST_KEY]
            logs = await self._new(WAL_PREFIX)
            data = await self._new(DATA_PREFIX)
            self._known_bytes += sum(one.size_bytes for one in [*metadata, *logs, *data])
            vanished = 0
            for some in (data, logs, metadata):
                vanished += await self._copy_all(some)
            if not vanished:
                return as_of_ms
        raise Fault(
            f"the source deletes objects faster than {PASSES} passes could copy them: the copy is "
            "not whole, and no broker starts on it. Raise collector.round.interval.ms of the "
            "source's brokers, or stop them, and run this again: it goes on where it was"
        )

    async def _new(self, prefix: str) -> list[ObjectInfo]:
        return [info async for info in self._source.list(prefix) if info.key not in self._done]

    async def _copy_all(self, some: list[ObjectInfo]) -> int:
        """How many were gone before they could be read."""
        vanished = 0

        async def one(info: ObjectInfo) -> None:
            nonlocal vanished
            try:
                if await self._copying.is_there(info, self._there.get(info.key)):
                    self._skipped += 1
                else:
                    await self._copying.copy(info)
                    self._copied += 1
                    self._copied_bytes += info.size_bytes
                self._done.add(info.key)
            except NotFound:
                vanished += 1
            self._done_bytes += info.size_bytes
            self._on_progress(self._done_bytes, self._known_bytes)

        small = [one for one in some if one.size_bytes <= SMALL_BYTES]
        large = [one for one in some if one.size_bytes > SMALL_BYTES]
        await each_of(one, small, SMALL_AT_ONCE)
        await each_of(one, large, LARGE_AT_ONCE)
        return vanished
