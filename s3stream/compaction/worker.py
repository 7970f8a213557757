"""The process in which objects are merged: started on demand, ended when idle.

    parent -> child   one frame a job, {job}
    child  -> parent  one frame an answer, {refs} or {error}

A frame is a u32 length and msgpack. The child ends when its standard input does, so it cannot
outlive the broker, however that ends. It is a process because merging is checksums and parsing of
everything that the broker stores: within the broker it would delay every request.

`InProcessRunner` does the same work on the caller's loop, for the memory store (which no other
process can open) and for the simulation.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random, SystemRandom
from typing import IO

import msgspec

from objectstore.errors import Corrupt, NotFound, StoreError, StoreUnavailable
from objectstore.open import open_store
from objectstore.settings import StoreSettings
from objectstore.store import ObjectStore

from ..refs import ObjectRange, ObjectRef
from .budget import Budget, BudgetStore
from .merge import NewObject, merge
from .plan import CompactionConfig, Output

_LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = 256 << 20
# The child's loop and libraries are up in a fraction of it, on a machine that is not in trouble.
KILL_AFTER_S = 5.0
# A merge may take so long, beside a multiple of the time that its bytes need by the budget.
PATIENCE_S = 3600.0
SLACK = 20

_ROOT = str(Path(__file__).resolve().parents[2])
_START = "import sys; sys.path.insert(0, sys.argv[1]); from s3stream.compaction.worker import main"


class _NewName(msgspec.Struct, array_like=True, frozen=True):
    incarnation: int
    number: int
    write_id: bytes


class _Job(msgspec.Struct, array_like=True, frozen=True):
    uri: str
    settings: dict[str, str | float | int | bool | None]
    requests_per_s: float
    bytes_per_s: float
    outputs: list[tuple[_NewName, list[tuple[int, ObjectRange]]]]


class _Answer(msgspec.Struct, array_like=True, frozen=True):
    """error: name of its class, "" where all went well. taken: an object's key was another's."""

    refs: list[ObjectRef]
    error: str = ""
    message: str = ""


class MergeRunner(ABC):
    """Where merges are done."""

    @abstractmethod
    async def run(self, work: Sequence[tuple[NewObject, Output]]) -> list[ObjectRef]:
        """Write the outputs; a reference for each. One call at a time.

        Raises NotFound (a source is gone: plan again), Corrupt (a source is not what it was), or
        another StoreError (try again later). After an error, none of the names is used again.
        """

    @abstractmethod
    async def close(self) -> None:
        """Ends what is under way. Idempotent."""


class InProcessRunner(MergeRunner):
    def __init__(self, store: ObjectStore, config: CompactionConfig, *, rng: Random) -> None:
        self._store = BudgetStore(store, Budget(config.requests_per_s, config.bytes_per_s))
        self._rng = rng

    async def run(self, work: Sequence[tuple[NewObject, Output]]) -> list[ObjectRef]:
        return await _merge_all(self._store, work, self._rng)

    async def close(self) -> None:
        """Whoever called `run` cancels it."""


class WorkerProcess(MergeRunner):
    """uri, settings: as for `open_store`; credentials come from the environment.

    patience_s: beyond what the budget needs; a child that is not done by then is ended.
    """

    def __init__(
        self,
        uri: str,
        settings: StoreSettings,
        config: CompactionConfig,
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._patience_s = patience_s
        self._uri = uri
        self._settings = settings
        self._config = config
        self._process: asyncio.subprocess.Process | None = None
        self._leaving: asyncio.subprocess.Process | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._busy = False
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Of the child that runs now."""
        return self._process.pid if self._process is not None else None

    async def run(self, work: Sequence[tuple[NewObject, Output]]) -> list[ObjectRef]:
        assert not self._busy, "one call at a time"
        if self._closed:
            raise StoreUnavailable("compaction: the worker was closed")
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        self._busy = True
        try:
            answer = await self._ask(work)
        except BaseException:
            # Cancelled, or the child died: whatever it was writing is given up.
            await self._end(kill=True)
            raise
        finally:
            self._busy = False
        self._idle = asyncio.get_running_loop().call_later(self._config.idle_exit_s, self._hang_up)
        if answer.error:
            raise _ERRORS.get(answer.error, StoreUnavailable)(answer.message)
        return answer.refs

    async def close(self) -> None:
        self._closed = True
        if self._idle is not None:
            self._idle.cancel()
        await self._end(kill=self._busy)

    async def _ask(self, work: Sequence[tuple[NewObject, Output]]) -> _Answer:
        process = await self._started()
        assert process.stdin is not None and process.stdout is not None
        job = _Job(
            self._uri,
            {name: getattr(self._settings, name) for name in _SETTINGS},
            self._config.requests_per_s,
            self._config.bytes_per_s,
            [
                (_NewName(new.incarnation, new.number, new.write_id), list(output.ranges))
                for new, output in work
            ],
        )
        body = msgspec.msgpack.encode(job)
        copied_bytes = 2 * sum(output.size_bytes for _, output in work)
        patience_s = self._patience_s + SLACK * copied_bytes / self._config.bytes_per_s
        try:
            async with asyncio.timeout(patience_s):
                process.stdin.write(_LENGTH.pack(len(body)) + body)
                await process.stdin.drain()
                (size,) = _LENGTH.unpack(await process.stdout.readexactly(_LENGTH.size))
                if size > MAX_FRAME_BYTES:
                    raise StoreUnavailable(f"compaction: an answer of {size} bytes from the worker")
                return msgspec.msgpack.decode(await process.stdout.readexactly(size), type=_Answer)
        except TimeoutError as error:
            # Hangs, or meets a store that is away: both are begun again, later.
            raise StoreUnavailable(
                f"compaction: no answer from the worker in {patience_s:.0f} s"
            ) from error
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.MsgspecError) as error:
            raise StoreUnavailable(f"compaction: the worker process died ({error})") from error

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        await self._end(kill=False)
        try:
            # -P: what lies in the current directory must not shadow our packages.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-c",
                f"{_START}; main()",
                _ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # the terminal's Ctrl-C is the broker's to handle
            )
        except OSError as error:
            raise StoreUnavailable(f"compaction: no worker process: {error}") from error
        return self._process

    def _hang_up(self) -> None:
        """Idle for long enough: the child ends with its input."""
        self._idle = None
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._leaving, self._process = self._process, None

    async def _end(self, *, kill: bool) -> None:
        for process in (self._leaving, self._process):
            if process is not None:
                await _end_process(process, kill=kill)
        self._leaving = self._process = None


async def _end_process(process: asyncio.subprocess.Process, *, kill: bool) -> None:
    if process.stdin is not None:
        process.stdin.close()
    if not kill:
        try:
            async with asyncio.timeout(KILL_AFTER_S):
                await process.wait()
        except TimeoutError:
            pass
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


_SETTINGS = StoreSettings.__dataclass_fields__.keys()
_ERRORS: dict[str, type[StoreError]] = {"NotFound": NotFound, "Corrupt": Corrupt}


async def _merge_all(
    store: ObjectStore, work: Sequence[tuple[NewObject, Output]], rng: Random
) -> list[ObjectRef]:
    refs = []
    for new, output in work:
        ref = await merge(store, output, new, rng=rng)
        if ref is None:
            raise StoreUnavailable(f"{new.key}: taken by another's object")
        refs.append(ref)
    return refs


# The child


def main() -> None:
    """Entry point of the child: answers jobs from standard input until it ends."""
    with suppress(OSError):
        os.nice(10)
    asyncio.run(serve(sys.stdin.buffer, sys.stdout.buffer, SystemRandom(), _now_ms))


async def serve(
    asked: IO[bytes], answered: IO[bytes], rng: Random, now_ms: Callable[[], int]
) -> None:
    """All jobs are for one store: that of the first."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), asked)
    store: ObjectStore | None = None
    job_task: asyncio.Task[list[ObjectRef]] | None = None
    try:
        while True:
            try:
                (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                job = msgspec.msgpack.decode(await reader.readexactly(size), type=_Job)
            except asyncio.IncompleteReadError:
                return
            if store is None:
                settings = StoreSettings(**job.settings)  # type: ignore[arg-type]
                store = await open_store(
                    job.uri, settings=settings, rng=rng, now_ms=now_ms, make_directory=False
                )
            budgeted = BudgetStore(store, Budget(job.requests_per_s, job.bytes_per_s))
            work = [
                (NewObject(new.incarnation, new.number, new.write_id), Output(tuple(ranges)))
                for new, ranges in job.outputs
            ]
            job_task = asyncio.create_task(_merge_all(budgeted, work, rng))
            answer = await _answer(job_task, reader)
            if answer is None:
                return
            body = msgspec.msgpack.encode(answer)
            answered.write(_LENGTH.pack(len(body)) + body)
            answered.flush()
    finally:
        if job_task is not None and not job_task.done():
            job_task.cancel()
            await asyncio.gather(job_task, return_exceptions=True)
        if store is not None:
            await store.close()


async def _answer(
    job: asyncio.Task[list[ObjectRef]], reader: asyncio.StreamReader
) -> _Answer | None:
    """None: the parent went away meanwhile, or hung up."""
    # The parent sends nothing while a job runs, so bytes or their end mean that it is gone.
    gone = asyncio.ensure_future(reader.read(1))
    await asyncio.wait([job, gone], return_when=asyncio.FIRST_COMPLETED)
    if not job.done():
        return None
    gone.cancel()
    with suppress(asyncio.CancelledError):
        await gone
    try:
        return _Answer(job.result())
    except StoreError as error:
        return _Answer([], type(error).__name__, str(error))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
