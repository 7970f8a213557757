"""The store contract, for every driver that needs no installation of its own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from objectstore.drivers.file import FileStore
from objectstore.drivers.memory import MemoryStore
from objectstore.store import ObjectStore

from .contract_suite import StoreContract, holding
from .s3_contract import S3Contract


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class TestMemory(StoreContract):
    def opened(self) -> AbstractAsyncContextManager[ObjectStore]:
        return holding(MemoryStore(now_ms))


class TestFile(StoreContract):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.root = tmp_path / "missing" / "store"

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[ObjectStore]:
        store = await FileStore.open(str(self.root), now_ms)
        try:
            yield store
            left = [path.name for path in self.root.rglob(".hw-*")]
            assert left == [], "temporary files are left"
        finally:
            await store.close()


class TestMotoByObstore(S3Contract):
    DRIVER = "obstore"


class TestMotoByAiobotocore(S3Contract):
    DRIVER = "aiobotocore"
