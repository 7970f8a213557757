"""What fenced incarnations led gets new leaders, wherever this process decides.

An ended log is read once, and what it held is written as one recovery object of ours; that object's
number is settled when the record that names it is durable, or was given up.
"""

from __future__ import annotations

import asyncio
import logging
from random import Random
from typing import TYPE_CHECKING

from broker.controller.failover import Recovered
from objectstore.create import Backoff
from objectstore.errors import StoreError
from objectstore.store import ObjectStore
from objectstore.wrappers.retry import PATIENT, RetryStore
from protocol.errors import KafkaError
from s3stream.metadata.image import IncarnationState, MetadataImage
from s3stream.metadata.records import Position
from s3stream.node_log import StreamStorage
from s3stream.takeover import recover, write_recovery_object
from wal.errors import LogError
from wal.keys import parse_data_key
from wal.seal import LogEnd

if TYPE_CHECKING:
    from broker.cluster.member import Member

log = logging.getLogger(__name__)

# A log with a fault in it does not heal by itself; the others are not held up by it.
AGAIN_CAP_S = 60.0


class Failovers:
    """store: for reading dead logs, at the priority of the own one."""

    def __init__(
        self, member: Member, storage: StreamStorage, store: ObjectStore, rng: Random
    ) -> None:
        self._member = member
        self._storage = storage
        self._store = store
        self._rng = rng
        self._wanted = asyncio.Event()

    def image_changed(self, old: MetadataImage, new: MetadataImage) -> None:
        """For `Membership.subscribe`."""
        if new.incarnations is not old.incarnations:
            self._wanted.set()

    def wanted(self) -> None:
        """This process decides now: what the one before left unfinished is finished."""
        self._wanted.set()

    async def finish(self) -> None:
        """All that are unfinished, if this process decides. Raises what `Controller` raises."""
        numbers: list[int] = []

        async def recovered(state: IncarnationState, ended: LogEnd) -> Recovered:
            return await self._recover(state, ended, numbers)

        try:
            await self._member.finish_failovers(recovered)
        finally:
            # Named by durable records by now, or given up.
            self._storage.numbers.settle(numbers)

    async def run(self) -> None:
        """Owner's task: for ever."""
        backoff = Backoff(self._rng, 0.2)
        self._wanted.set()
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if not self._member.owns_term or not self._member.image.unended():
                continue
            try:
                await self.finish()
            except (StoreError, LogError, KafkaError) as error:
                if self._member.owns_term:
                    log.error("a failover is not finished: %s", error)
                    self._wanted.set()
                await asyncio.sleep(backoff.next_s(AGAIN_CAP_S))
            else:
                backoff = Backoff(self._rng, 0.2)

    async def _recover(
        self, state: IncarnationState, ended: LogEnd, numbers: list[int]
    ) -> Recovered:
        """Read an ended log once and write down what it held."""
        # Hundreds of reads; one that fails must not make all of them begin again.
        store = RetryStore(self._store, self._rng, PATIENT)
        recovered = await recover(store, state.incarnation, ended.end)
        entries = recovered.entries
        if not entries:
            return Recovered({}, None)
        blobs = await write_recovery_object(recovered, self._storage.object_writer)
        made = (parse_data_key(blob.key) for blob in blobs)
        numbers += [one[1] for one in made if one is not None]
        opened = {one: Position(*entries[one].appointment) for one in sorted(entries)}
        return Recovered(opened, blobs[0])
