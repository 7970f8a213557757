"""What a node shows of its own state to `broker.cluster.wellness`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .memory_pool import MemoryPool

if TYPE_CHECKING:
    from s3stream.block_cache import BlockCache
    from s3stream.node_log import StreamStorage


class NodeSymptoms:
    """serving: whether the start is finished. storage, blocks: None until they are there."""

    def __init__(
        self,
        serving: Callable[[], bool],
        storage: Callable[[], StreamStorage | None],
        blocks: Callable[[], BlockCache | None],
        pool: MemoryPool,
    ) -> None:
        self._serving = serving
        self._storage = storage
        self._blocks = blocks
        self._pool = pool

    @property
    def is_serving(self) -> bool:
        return self._serving()

    @property
    def oldest_put_s(self) -> float:
        storage = self._storage()
        return 0.0 if storage is None else storage.wal.oldest_put_s

    @property
    def waits_for_memory(self) -> object | None:
        return self._pool.next_waiting

    @property
    def disk_call(self) -> object | None:
        blocks = self._blocks()
        disk = None if blocks is None else blocks.disk
        return None if disk is None else disk.oldest_call

    async def ask_store(self) -> None:
        storage = self._storage()
        if storage is not None:
            await storage.confirm()
