"""Which brokers the controller misses, and when it fences them (PROTOCOL 8.5). Clocks suspect here;
they decide nothing: a fencing is a record, and a log is ended by its seal.

    a heartbeat is missed             a record a second, if at least half of the others are heard:
                                      who sees such records does not end this term; and its address
                                      is asked: if it refuses, twice, its process is gone: fenced
    silent for the session time-out   fenced, if half of the others are heard
    half as long again since fewer    fenced in any case: had the others done without us, our term
    than half were heard              would be sealed by now, and the record fails

Who says that it gets no answers is as silent as it is deaf: it will suspect us, as we would it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, NamedTuple

from protocol.errors import ErrorCode, KafkaError
from s3stream.metadata.image import BrokerRegistration, MetadataImage

log = logging.getLogger(__name__)

REASSERT_S = 1.0
# Between two questions whether a process is gone; one refusal could be a listener that is late.
PROBE_S = 0.25
REFUSALS = 2
# In heartbeats: one that is just late is not missed.
MISSED = 2.0
# A loop that is later than this, in session time-outs, serves nobody, however well its thread
# tells of it.
WORST_LAG = 2.0


class Verdict(NamedTuple):
    """fence: at once. doubtful: if they are gone. reassert: say that the term goes on."""

    fence: list[int]
    doubtful: list[int]
    reassert: bool


def hears_few(silent_s: Mapping[int, float], missed_s: float) -> bool:
    """Whether fewer than half of the others are heard."""
    heard = sum(silent < missed_s for silent in silent_s.values())
    return bool(silent_s) and (heard * 2 < len(silent_s) or heard == 0)


def judge(
    silent_s: Mapping[int, float], session_timeout_s: float, missed_s: float, few_s: float
) -> Verdict:
    """silent_s: for each other live incarnation, how long it has not been heard. missed_s: so long
    that a heartbeat was missed. few_s: for how long fewer than half have been heard.
    """
    missing = [one for one, silent in silent_s.items() if silent >= missed_s]
    most = bool(missing) and not hears_few(silent_s, missed_s)
    fence: list[int] = []
    doubtful: list[int] = []
    for one in sorted(missing):
        late = silent_s[one] >= session_timeout_s
        spared = not most and few_s < session_timeout_s * 1.5
        (fence if late and not spared else doubtful).append(one)
    return Verdict(fence, doubtful, most)


class _Probe:
    """Whether one that is missed is gone: how often in a row its address has refused."""

    def __init__(self) -> None:
        self.refusals = 0
        self.task: asyncio.Task[bool] | None = None
        self._next_at = 0.0

    def is_due(self, now: float) -> bool:
        """Takes in what the last question has brought."""
        if self.task is not None:
            if not self.task.done():
                return False
            self.refusals = self.refusals + 1 if self.task.result() else 0
            self.task, self._next_at = None, now + PROBE_S
        return now >= self._next_at

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()


class Detector:
    """Of one term. fence, assert_term: decisions. is_gone: whether a broker's address refuses."""

    def __init__(
        self,
        own_incarnation: int,
        session_timeout_s: float,
        heartbeat_s: float,
        image: Callable[[], MetadataImage],
        *,
        fence: Callable[[list[int]], Awaitable[None]],
        assert_term: Callable[[], Awaitable[None]],
        is_gone: Callable[[BrokerRegistration], Coroutine[Any, Any, bool]],
    ) -> None:
        self._own = own_incarnation
        self._session_timeout_s = session_timeout_s
        self._missed_s = min(MISSED * heartbeat_s, session_timeout_s / 2)
        self._image = image
        self._fence = fence
        self._assert_term = assert_term
        self._is_gone = is_gone
        self._heard_at: dict[int, float] = {}
        self._changed = asyncio.Event()
        self._asserted_at = -REASSERT_S
        self._few_since: float | None = None
        self._probes: dict[int, _Probe] = {}

    def heard(self, incarnation: int, lag_s: float = 0.0, deaf_s: float = 0.0) -> None:
        """lag_s: how late its loop is. deaf_s: for how long it has had no answer, where it misses
        one.
        """
        if lag_s < WORST_LAG * self._session_timeout_s:
            as_of = asyncio.get_running_loop().time() - deaf_s
            self._heard_at[incarnation] = max(self._heard_at.get(incarnation, as_of), as_of)

    def silent_s(self, incarnation: int) -> float | None:
        """How long it has not been heard; None: it is not watched."""
        heard_at = self._heard_at.get(incarnation)
        return None if heard_at is None else asyncio.get_running_loop().time() - heard_at

    def image_changed(self) -> None:
        """Brokers may have come or gone."""
        self._changed.set()

    async def run(self) -> None:
        """Owner's task: for ever. A cluster of one broker has no timer here."""
        try:
            await self._run()
        finally:
            for probe in self._probes.values():
                probe.cancel()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            silent = self._silences(loop.time())
            if not silent:
                await self._changed.wait()
                continue
            wake_in_s = self._next_look_s(silent)
            due = loop.time() + wake_in_s
            try:
                async with asyncio.timeout(wake_in_s):
                    await self._changed.wait()
            except TimeoutError:
                pass
            late_s = loop.time() - due
            if late_s > self._session_timeout_s / 8:
                # We slept, and what was sent meanwhile is not read yet: our silence, not theirs.
                for one in self._heard_at:
                    self._heard_at[one] += late_s
            # After a change too: brokers that come and go must not hide one that is silent.
            await self._act(self._silences(loop.time()))

    def _silences(self, now: float) -> dict[int, float]:
        live = [b.incarnation for b in self._image().live_brokers() if b.incarnation != self._own]
        # Who is new to us has been heard now: it just registered, or we just began.
        self._heard_at = {one: self._heard_at.get(one, now) for one in live}
        return {one: now - at for one, at in self._heard_at.items()}

    def _next_look_s(self, silent: Mapping[int, float]) -> float:
        """Until the next bound that a silence reaches, or the next question."""
        bounds = (self._missed_s, self._session_timeout_s)
        waits = [bound - one for one in silent.values() for bound in bounds if bound - one > 0.001]
        if any(one >= self._missed_s for one in silent.values()):
            waits.append(min(PROBE_S, self._session_timeout_s / 8))
        return max(min(waits, default=REASSERT_S / 2), 0.01)

    async def _act(self, silent: dict[int, float]) -> None:
        now = asyncio.get_running_loop().time()
        few = hears_few(silent, self._missed_s)
        self._few_since = (self._few_since or now) if few else None
        # Not since they were heard last: our last record, of when we heard enough, spared us.
        few_s = 0.0 if self._few_since is None else now - self._few_since
        verdict = judge(silent, self._session_timeout_s, self._missed_s, few_s)
        try:
            if verdict.fence:
                await self._fence_all(verdict.fence, f"not heard for {self._session_timeout_s:g} s")
            if verdict.reassert and now - self._asserted_at >= REASSERT_S:
                # Before anything that takes time: who misses us counts these.
                self._asserted_at = now
                await self._assert_term()
            gone = self._gone(verdict.doubtful)
            if gone:
                await self._fence_all(gone, "their addresses refuse connections")
        except KafkaError as error:
            if error.code is not ErrorCode.NOT_CONTROLLER:
                log.warning("fencing waits: %s", error)
            await asyncio.sleep(REASSERT_S / 2)

    async def _fence_all(self, incarnations: list[int], why: str) -> None:
        names = [self._name(one) for one in incarnations]
        log.warning("brokers %s are fenced: %s", names, why)
        await self._fence(incarnations)

    def _gone(self, doubtful: list[int]) -> list[int]:
        """Those whose addresses have refused often enough by now; asks the others, in tasks: one
        that does not answer at all takes a second to tell it.
        """
        now = asyncio.get_running_loop().time()
        for one in [one for one in self._probes if one not in doubtful]:
            self._probes.pop(one).cancel()
        for one in doubtful:
            probe = self._probes.setdefault(one, _Probe())
            broker = self._image().broker_of(one)
            if broker is not None and probe.is_due(now):
                probe.task = asyncio.create_task(self._is_gone(broker), name="is-gone")
                probe.task.add_done_callback(lambda _: self._changed.set())
        return [one for one in doubtful if self._probes[one].refusals >= REFUSALS]

    def _name(self, incarnation: int) -> str:
        broker = self._image().broker_of(incarnation)
        return f"{'?' if broker is None else broker.node_id} (incarnation {incarnation})"
