"""An event loop with virtual time, for whole systems in one process, the same every time.

    time       jumps to the next timer when nothing is ready; nothing ever sleeps
    order      the steps of tasks that are ready together run in an order drawn from the seed
               (plain callbacks keep theirs, as asyncio promises)
    nodes      what runs under `NODE` belongs to a node; `crash` drops all of its steps for good,
               `pause` holds them back: its tasks wake up later and know of nothing
    executor   functions run on the loop itself, after a simulated delay
    deadlock   nothing ready and no timer: raises Deadlock with what every task waits for
    trace      a hash over every step (instant, node, coroutine) and over what is `record`ed

Nothing here may depend on hash(), id(), names with counters, or the real clock; nor on when the
garbage collector comes, which ends generators that nobody holds any more: it comes after a number
of steps.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from asyncio import base_events
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from heapq import heappop
from random import Random
from types import CoroutineType
from typing import Any, TypeVar

from .waiting import name_of, places_of

T = TypeVar("T")

NODE: contextvars.ContextVar[str] = contextvars.ContextVar("node", default="")
"""Which simulated process the running code belongs to; "" is the test itself."""

STEPS_AT_ONE_INSTANT = 200_000
STEPS_PER_COLLECTION = 20_000
START_S = 1_000.0
START_MS = 1_750_000_000_000


class Deadlock(Exception):
    """Every task waits, and nothing is left that could wake one."""


class Livelock(Exception):
    """The loop is busy for ever at one instant."""


class SimulatedTask(asyncio.Task[Any]):
    """Remembers its node, so that a crash finds it; hashes by number, so that asyncio's own sets
    of tasks (TaskGroup, all_tasks) have one order in every run."""

    def __init__(self, coro: Any, *, number: int, **kwargs: Any) -> None:
        context = kwargs.get("context")
        self.number = number
        self.node = NODE.get() if context is None else context.get(NODE, "")
        super().__init__(coro, **kwargs)

    def __hash__(self) -> int:
        return self.number


class SimulatedFuture(asyncio.Future[Any]):
    """Hashes by number, as SimulatedTask does."""

    def __init__(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self.number = number
        self.node = NODE.get()
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


class _Generators(weakref.WeakKeyDictionary[Any, None]):
    """The asynchronous generators of a loop, in the order of their beginnings."""

    def add(self, generator: Any) -> None:
        self[generator] = None

    def discard(self, generator: Any) -> None:
        self.pop(generator, None)


class _Selector:
    """What BaseEventLoop asks for I/O; here, where time passes."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Deadlock(f"nothing can happen any more:\n{self._loop.describe_waiting()}")
        if timeout > 0:
            self._loop.jump(timeout)
        return []

    def close(self) -> None:
        pass


class SimulatedLoop(base_events.BaseEventLoop):
    """seed: of everything that the loop decides. shuffle: draw the order of ready tasks from it.

    executor_delay_s: bounds of what a function in an executor takes.
    on_step: called before each step of a task with its node and the places (see `places`, outermost
    first) that it is suspended at. It may crash or pause the node: then the step does not happen,
    or later.
    """

    _ready: deque[Any]  # of asyncio.Handle, whose inner parts typeshed does not tell
    _scheduled: list[Any]
    _asyncgens: Any

    def __init__(
        self,
        seed: int,
        *,
        shuffle: bool = True,
        executor_delay_s: tuple[float, float] = (0.0, 0.002),
        on_step: Callable[[str, tuple[str, ...]], None] | None = None,
    ) -> None:
        super().__init__()
        self.rng = Random(seed)
        self.on_record: Callable[[float, str], None] | None = None
        self.steps = 0
        self._numbered = 0
        self.unhandled: list[dict[str, Any]] = []
        self.skew_ms: dict[str, int] = {}
        self._now_s = START_S
        self._busy_steps = 0
        self._shuffle = shuffle
        self.executor_delay_s = executor_delay_s
        self._on_step = on_step
        self._held: dict[str, list[Any]] = {}
        self._crashed: set[str] = set()
        self._troubled = False  # somebody crashed or was paused, ever
        self._graveyard: list[Any] = []  # tasks and generators of crashed nodes
        self._asyncgens = _Generators()
        self._begun_by: dict[int, str] = {}  # nodes, by the ids of their generators
        self._collect_at = STEPS_PER_COLLECTION
        self._hash = blake2b(digest_size=16)
        self._clock_resolution = 1e-9
        self._selector = _Selector(self)
        self.set_task_factory(self._make_task)
        self.set_exception_handler(lambda _, context: self._note_unhandled(context))

    # Time.

    def time(self) -> float:
        return self._now_s

    def now_ms(self) -> int:
        """Wall clock of the running node, with its skew."""
        skew = self.skew_ms.get(NODE.get(), 0)
        return START_MS + round((self._now_s - START_S) * 1000) + skew

    def jump(self, seconds: float) -> None:
        due = self._scheduled[0]._when if self._scheduled else self._now_s + seconds
        self._now_s = max(self._now_s, min(due, self._now_s + seconds + 1e-6))
        self._busy_steps = 0

    # Faults of nodes.

    def crash(self, node: str) -> None:
        """Drop the node's tasks as `kill -9` would: no `finally`, no `except` of theirs runs."""
        assert node, "the test itself cannot crash"
        assert NODE.get() != node, "a node is crashed from outside"
        self._crashed.add(node)
        self._troubled = True
        self._held.pop(node, None)
        self._graveyard += [task for task in self._all_tasks() if task.node == node]
        self.record(f"crash {node}")

    def pause(self, node: str, for_s: float | None = None) -> None:
        """Hold the node's steps back, for a time or until `resume`; its timers are late then."""
        assert node and node not in self._crashed, node
        self._held.setdefault(node, [])
        self._troubled = True
        self.record(f"pause {node}")
        if for_s is not None:
            self.call_later(for_s, self.resume, node, context=contextvars.Context())

    def resume(self, node: str) -> None:
        held = self._held.pop(node, None)
        if held is not None:
            self._ready.extend(held)
            self.record(f"resume {node}")

    def is_crashed(self, node: str) -> bool:
        return node in self._crashed

    def is_paused(self, node: str) -> bool:
        return node in self._held

    # Running.

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run to the end, clean up, raise what nobody handled."""
        collects = gc.isenabled()
        gc.disable()
        gc.freeze()  # so that it looks at what this run made, and no further
        try:
            asyncio.set_event_loop(self)
            result = self.run_until_complete(main)
            self._bury(self._graveyard)
            self._cancel_rest()
        finally:
            asyncio.set_event_loop(None)
            self._bury(self._all_tasks())
            self.close()
            gc.unfreeze()
            if collects:
                gc.enable()
        if self.unhandled:
            first = self.unhandled[0]
            error = first.get("exception")
            told = f"{first.get('message')}: {error!r} {first.get('task')} {first.get('asyncgen')}"
            raise AssertionError(f"unhandled in the loop: {told}") from error
        return result

    def record(self, event: str) -> None:
        """Add what happened to the trace."""
        self._hash.update(f"{self._now_s!r} {event}\n".encode())
        if self.on_record is not None:
            self.on_record(self._now_s, event)

    @property
    def trace(self) -> str:
        """Hash over all steps so far: equal for equal runs."""
        return self._hash.hexdigest()

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()

        def call() -> None:
            if future.cancelled():
                return
            try:
                result = func(*args)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call_later(self.rng.uniform(*self.executor_delay_s), call)
        return future

    async def connect_read_pipe(self, protocol_factory: Any, pipe: Any) -> tuple[Any, Any]:
        """pipe: a `processes.Pipe`."""
        await asyncio.sleep(0)
        protocol = protocol_factory()
        transport = asyncio.ReadTransport()
        protocol.connection_made(transport)
        pipe.connect(protocol)
        return transport, protocol

    def _all_tasks(self) -> list[SimulatedTask]:
        """In one order in every run: asyncio has those of former loops in the same set."""
        tasks = [task for task in asyncio.all_tasks(self) if isinstance(task, SimulatedTask)]
        return sorted(tasks, key=lambda task: task.number)

    def describe_waiting(self) -> str:
        lines = []
        for task in self._all_tasks():
            if task.node not in self._crashed:
                places = " > ".join(places_of(task.get_coro(), everywhere=True)[-4:])
                lines.append(f"  [{task.node}] {name_of(task.get_coro())}: {places}")
        return "\n".join(sorted(lines)) or "  (no task is left)"

    def _note_unhandled(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        cut = isinstance(error, RuntimeError) and "asynchronous generator is already" in str(error)
        if cut and self._crashed:
            return  # a listing that a crash cut in the middle of a step cannot be closed
        owner = context.get("task") or context.get("future")
        if getattr(owner, "node", "") not in self._crashed:
            self.unhandled.append(context)

    # What BaseEventLoop needs of a loop.

    def _process_events(self, event_list: list[Any]) -> None:
        """Before each round: take due timers in, hold back, shuffle, and note what will run."""
        end = self._now_s + self._clock_resolution
        while self._scheduled and self._scheduled[0]._when < end:
            handle = heappop(self._scheduled)
            handle._scheduled = False
            self._ready.append(handle)
        handles = [handle for handle in self._ready if not handle._cancelled]
        if self._shuffle and len(handles) > 1:
            self._shuffle_tasks(handles)
        self._ready = deque()  # what a crash or resume in `on_step` adds runs in the next round
        for handle in handles:
            if not self._troubled or self._may_run(handle):
                self._note(handle)
        if self._troubled:
            handles = [handle for handle in handles if self._may_run(handle, hold=True)]
        self._ready.extendleft(reversed(handles))
        self.steps += len(handles)
        if self.steps >= self._collect_at:
            self._collect_at = self.steps + STEPS_PER_COLLECTION
            gc.collect()
        self._busy_steps += len(handles)
        if self._busy_steps > STEPS_AT_ONE_INSTANT:
            raise Livelock(f"busy at one instant:\n{self.describe_waiting()}")

    def _write_to_self(self) -> None:
        pass

    def _may_run(self, handle: Any, hold: bool = False) -> bool:
        """hold: keep it for later if its node is paused."""
        node = handle._context.get(NODE, "")
        if node in self._crashed:
            return False
        held = self._held.get(node)
        if held is None:
            return True
        if hold:
            held.append(handle)
        return False

    def _shuffle_tasks(self, handles: list[Any]) -> None:
        places = [i for i, handle in enumerate(handles) if _task_of(handle) is not None]
        steps = [handles[i] for i in places]
        self.rng.shuffle(steps)
        for place, step in zip(places, steps, strict=True):
            handles[place] = step

    def _note(self, handle: Any) -> None:
        task = _task_of(handle)
        if task is None:
            name = getattr(handle._callback, "__qualname__", type(handle._callback).__name__)
            self.record(name)
            return
        coro = task.get_coro()
        node = task.node if isinstance(task, SimulatedTask) else ""
        self.record(f"{node} {name_of(coro)}")
        if self._on_step is not None and node:
            places = places_of(coro)
            if places:
                self._on_step(node, places)

    def create_future(self) -> asyncio.Future[Any]:
        self._numbered += 1
        return SimulatedFuture(self._numbered, self)

    def _make_task(self, loop: Any, coro: Any, **kwargs: Any) -> SimulatedTask:
        self._numbered += 1
        return SimulatedTask(coro, number=self._numbered, loop=loop, **kwargs)

    def _asyncgen_firstiter_hook(self, agen: Any) -> None:
        # Weak references to a generator are gone before its end is told of; its id is not.
        self._begun_by[id(agen)] = NODE.get()
        super()._asyncgen_firstiter_hook(agen)  # type: ignore[misc]

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        """Nobody holds it any more: its `finally` runs soon, if its node lives."""
        node = self._begun_by.pop(id(agen), "")
        if node in self._crashed:
            self._graveyard.append(agen)
        elif not self.is_closed():
            context = contextvars.Context()
            context.run(NODE.set, node)
            self.call_soon(self._close_generator, agen, context=context)

    def _close_generator(self, agen: Any) -> None:
        self.create_task(agen.aclose())

    def _cancel_rest(self) -> None:
        rest: list[asyncio.Task[Any]] = [
            task for task in self._all_tasks() if task.node not in self._crashed
        ]
        for node in list(self._held):
            self.resume(node)
        for task in rest:
            task.cancel()
        self.run_until_complete(self._until_ended(rest))
        for generator in list(self._asyncgens):
            if generator.ag_running:  # of a crashed node, in the middle of a step: buried below
                self._asyncgens.discard(generator)
        self.run_until_complete(self.shutdown_asyncgens())

    async def _until_ended(self, tasks: list[asyncio.Task[Any]]) -> None:
        """But for those whose node is crashed by another, as a process ends its child."""
        for _ in range(10_000):
            left = [
                task
                for task in tasks
                if not task.done() and getattr(task, "node", "") not in self._crashed
            ]
            if not left:
                return
            await asyncio.wait(left, timeout=0.1)
        raise Deadlock(f"tasks do not end when they are cancelled:\n{self.describe_waiting()}")

    @staticmethod
    def _bury(dead: Sequence[Any]) -> None:
        # Their `finally` blocks run here, once nobody can see what they do.
        for task in dead:
            if not isinstance(task, SimulatedTask):
                continue
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coro = task.get_coro()
            for _ in range(20):
                try:
                    if isinstance(coro, CoroutineType):
                        coro.close()
                    break
                except (RuntimeError, asyncio.CancelledError, Exception):
                    continue


@contextmanager
def on_node(node: str) -> Iterator[None]:
    """What is started inside belongs to `node`."""
    token = NODE.set(node)
    try:
        yield
    finally:
        NODE.reset(token)


def start_on(node: str, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task of that node, started from outside."""
    with on_node(node):
        return asyncio.get_running_loop().create_task(coro)


async def settled(waitable: Awaitable[T]) -> T | BaseException:
    """The result, or the error as a value."""
    try:
        return await waitable
    except Exception as error:
        return error


def _task_of(handle: Any) -> asyncio.Task[Any] | None:
    owner = getattr(handle._callback, "__self__", None)
    return owner if isinstance(owner, asyncio.Task) else None
