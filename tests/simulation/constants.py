"""Bounds that only a large cluster meets, made so small that a short run meets them."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from importlib import import_module
from random import Random
from typing import Any
from unittest.mock import patch


def small_constants(
    rng: Random, *, index_cache_bytes: int | None = None
) -> AbstractContextManager[Any]:
    """Inside, the bounds that were drawn; some are as the product has them.

    index_cache_bytes: not drawn, since a busy reader of many objects needs room for their indexes.
    """
    drawn: list[tuple[str, str, Any]] = [
        ("s3stream.object_writer", "_SLACK_BYTES", rng.choice((0, 0, 4 << 20))),
        ("s3stream.metadata.retire", "DELETE_AT_ONCE", rng.choice((2, 1000))),
        ("s3stream.collector", "DELETE_AT_ONCE", rng.choice((5, 1000))),
        ("s3stream.report", "INLINE_KEYS", rng.choice((3, 30))),
        ("s3stream.uploader", "_GATHERED_AT_ONCE", rng.choice((3, 4096))),
        ("s3stream.takeover", "CHUNK_BYTES", rng.choice((300, 1 << 20))),
        ("s3stream.takeover", "_MARGIN", rng.choice((0, 1, 16))),
        ("wal.survey", "PLAIN_KEYS", rng.choice((4, 15, 10_000))),
        ("wal.format.compose", "STEP_BATCHES", rng.choice((5, 200))),
        ("wal.format.read", "SUFFIX_BYTES", rng.choice((300, 64 << 10))),
    ]
    defaults: list[tuple[Any, str, Any]] = [
        (_class("s3stream.compaction.worker", "WorkerProcess"), "patience_s", 5.0),
        (_function("s3stream.compaction.merge", "merge"), "part_bytes", _kib(rng, 3, 20, 1000)),
        (
            _class("s3stream.collector", "Collector"),
            "candidates_at_most",
            rng.choice((10, 100_000)),
        ),
    ]
    closings = _class("s3stream.handoff", "HandingOver")
    defaults.append((closings, "inline_bytes", rng.choice((200, 1 << 20))))
    if index_cache_bytes is not None:
        reader = _class("s3stream.object_reader", "ObjectReader")
        defaults.append((reader, "index_cache_bytes", index_cache_bytes))
    stack = _Later()
    stack.patches = [patch.object(import_module(m), name, value) for m, name, value in drawn]
    stack.patches += [patch.dict(where.__kwdefaults__, {n: v}) for where, n, v in defaults]
    return stack


class _Later(ExitStack):
    """Enters its parts when it is entered itself."""

    patches: list[AbstractContextManager[Any]]

    def __enter__(self) -> _Later:
        for one in self.patches:
            self.enter_context(one)
        return self


def _function(module: str, name: str) -> Any:
    return getattr(import_module(module), name)


def _class(module: str, name: str) -> Any:
    return _function(module, name).__init__


def _kib(rng: Random, *choices: int) -> int:
    return rng.choice(choices) << 10
