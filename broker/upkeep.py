"""What keeps the bucket in order behind the clients' backs: merging, reports, rounds of deletion.

    uploads, trims -> compactor -> Compacted in the log
    RoundBegun in the image -> this incarnation's report in its log
    something became garbage -> a round, at the earliest after the interval, where we decide

Nothing here has a timer while nothing changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from random import Random

from objectstore.create import Backoff
from objectstore.errors import Corrupt, NotFound, StoreError, StoreUnavailable
from objectstore.settings import StoreSettings
from objectstore.store import ObjectStore
from protocol.errors import KafkaError
from s3stream.collector import Collector, RoundLog, Rounds
from s3stream.compaction import CompactionConfig
from s3stream.compaction.compactor import Compactor
from s3stream.compaction.worker import InProcessRunner, MergeRunner, WorkerProcess
from s3stream.errors import StreamError
from s3stream.metadata.image import MetadataImage
from s3stream.node_log import StreamStorage
from s3stream.report import Reporter
from wal.errors import LogError
from wal.parallel import first_error

from .config import BrokerConfig

log = logging.getLogger(__name__)

# Who still has not answered then delays that round until it is abandoned; the next one asks anew.
REPORT_ATTEMPTS = 10
REPORT_RETRY_BASE_S = 1.0
REPORT_RETRY_CAP_S = 60.0


class _Rounds:
    """The controller, for rounds: a term that is over is the store's trouble to a round."""

    def __init__(self, controller: RoundLog) -> None:
        self._controller = controller

    @property
    def image(self) -> MetadataImage:
        return self._controller.image

    async def begin_round(self) -> int:
        try:
            return await self._controller.begin_round()
        except KafkaError as error:
            raise StoreUnavailable(f"no round can begin: {error}") from error

    async def end_round(self, number: int, *, abandoned: bool) -> None:
        try:
            await self._controller.end_round(number, abandoned=abandoned)
        except KafkaError as error:
            raise StoreUnavailable(f"round {number} cannot be ended: {error}") from error


class Upkeep:
    """decides: whether this process owns the controller's term now.

    history_changes: how often objects were added or left; whoever decides hears of it.
    runner: where merges are done; None: not at all. store: the bucket at a low priority, for
    rounds; None: that of `storage`.
    """

    def __init__(
        self,
        storage: StreamStorage,
        rounds: RoundLog,
        config: BrokerConfig,
        *,
        runner: MergeRunner | None,
        decides: Callable[[], bool],
        rng: Random,
        store: ObjectStore | None = None,
    ) -> None:
        self._decides = decides
        self._rng = rng
        self._image_changed = asyncio.Event()
        self._round = rounds.image.rounds.open
        if self._round is not None:
            self._image_changed.set()
        self.reporter = Reporter(
            storage.registry,
            storage.reader,
            storage.object_writer,
            append=storage.append_control,
            next_seq=lambda: storage.wal.next_seq,
        )
        self.collector = Collector(store or storage.store, _Rounds(rounds), rng=rng)
        self.rounds = Rounds(
            self.collector, interval_s=config.int("collector.round.interval.ms") / 1000, rng=rng
        )
        self.history_changes = 0
        self.compactor: Compactor | None = None
        if runner is not None:
            self.compactor = Compactor(
                storage.registry,
                storage.numbers,
                storage.reader,
                runner,
                compaction_config(config),
                append=storage.append_control,
                rng=rng,
                put_off_s=storage.merge_put_off_s,
            )
        storage.on_history = self._history_changed

    def image_changed(self, old: MetadataImage, new: MetadataImage) -> None:
        """For `Controller.subscribe`."""
        if new.rounds.open is not None and new.rounds.open != old.rounds.open:
            self._round = new.rounds.open
            self._image_changed.set()
        if new.unended() != old.unended() or new.streams is not old.streams:
            self.rounds.wanted()

    async def run(self) -> None:
        """Owner's task: until it is cancelled. Raises Corrupt, and for bugs."""
        parts = asyncio.create_task(self._run_parts(), name="upkeep-parts")
        try:
            await asyncio.wait([parts])
        finally:
            # Not in this task: an error that a part meets while it is cancelled would take the
            # place of the cancellation, and nobody could tell.
            if not parts.done():
                parts.cancel()
                await asyncio.wait([parts])
            error = None if parts.cancelled() else parts.exception()
        if error is not None and not isinstance(error, LogError | StreamError):
            raise error
        # The log ended under us. Its writer says so, and why, better than we could.
        await asyncio.get_running_loop().create_future()

    async def _run_parts(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._report(), name="reports")
                tasks.create_task(self.rounds.run(self._decides), name="rounds")
                if self.compactor is not None:
                    tasks.create_task(self.compactor.run(), name="compactor")
        except BaseExceptionGroup as group:
            raise first_error(group) from None

    async def _report(self) -> None:
        while True:
            await self._image_changed.wait()
            self._image_changed.clear()
            backoff = Backoff(self._rng, REPORT_RETRY_BASE_S)
            for _ in range(REPORT_ATTEMPTS):
                if self._round is None:
                    break
                try:
                    await self.reporter.answer(self._round)
                    break
                except (Corrupt, NotFound) as error:
                    # What a damaged index object names is not known, so no report can be whole.
                    log.error("nothing can be deleted until this is mended: %s", error)
                    break
                except StoreError as error:
                    log.info("the report to a round of deletion is put off: %s", error)
                    await asyncio.sleep(backoff.next_s(REPORT_RETRY_CAP_S))

    def _history_changed(self) -> None:
        """An upload, a merge or a trim: objects came, and others are not needed any more."""
        self.history_changes += 1
        self.rounds.wanted()
        if self.compactor is not None:
            self.compactor.notice()


def compaction_config(config: BrokerConfig) -> CompactionConfig:
    own_bytes = config.int("compaction.stream.object.bytes")
    return CompactionConfig(
        own_object_bytes=own_bytes,
        own_object_max_bytes=4 * own_bytes,
        bytes_per_s=float(max(1, config.int("compaction.budget.bytes.per.second"))),
    )


def merge_runner(
    config: BrokerConfig,
    store: ObjectStore,
    *,
    uri: str | None,
    settings: StoreSettings | None,
    rng: Random,
) -> MergeRunner | None:
    """uri, settings: of a store that another process can open too; None: merge in this one."""
    if config.int("compaction.budget.bytes.per.second") == 0:
        return None
    compaction = compaction_config(config)
    if uri is None or settings is None or uri.startswith("memory:"):
        return InProcessRunner(store, compaction, rng=rng)
    return WorkerProcess(uri, settings, compaction)
