"""Which brokers the controller misses, and when it fences them (PROTOCOL 8.5). Clocks suspect here;
they decide nothing: a fencing is a record, and a log is ended by its seal.

    silent for half the session time-out   a record a second, if at least half of the others are
                                           heard: who sees the log grow does not end this term
    silent for the session time-out        fenced, if half of the others are heard, or if its
                                           process is gone (its address refuses)
    half as long again                     fenced in any case: had the others done without us,
                                           our term would be sealed by now, and the record fails
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from protocol.errors import ErrorCode, KafkaError
from s3stream.metadata.image import BrokerRegistration, MetadataImage

log = logging.getLogger(__name__)

REASSERT_S = 1.0
# A loop that is later than this, in session time-outs, serves nobody, however well its thread
# tells of it.
WORST_LAG = 2.0


class Verdict(NamedTuple):
    """fence: at once. doubtful: if their processes are gone. reassert: our term goes on."""

    fence: list[int]
    doubtful: list[int]
    reassert: bool


def judge(silent_s: Mapping[int, float], session_timeout_s: float) -> Verdict:
    """silent_s: for each other live incarnation, how long it has not been heard."""
    missing = [one for one, silent in silent_s.items() if silent >= session_timeout_s / 2]
    heard = len(silent_s) - len(missing)
    most = bool(missing) and heard * 2 >= len(silent_s) and heard > 0
    fence, doubtful = [], []
    for one in sorted(missing):
        silent = silent_s[one]
        if silent >= session_timeout_s * (1.0 if most else 1.5):
            fence.append(one)
        elif silent >= session_timeout_s:
            doubtful.append(one)
    return Verdict(fence, doubtful, most)


class Detector:
    """Of one term. fence, assert_term: decisions. is_gone: whether a broker's address refuses."""

    def __init__(
        self,
        own_incarnation: int,
        session_timeout_s: float,
        image: Callable[[], MetadataImage],
        *,
        fence: Callable[[list[int]], Awaitable[None]],
        assert_term: Callable[[], Awaitable[None]],
        is_gone: Callable[[BrokerRegistration], Awaitable[bool]],
    ) -> None:
        self._own = own_incarnation
        self._session_timeout_s = session_timeout_s
        self._image = image
        self._fence = fence
        self._assert_term = assert_term
        self._is_gone = is_gone
        self._heard_at: dict[int, float] = {}
        self._changed = asyncio.Event()
        self._asserted_at = -REASSERT_S

    def heard(self, incarnation: int, lag_s: float = 0.0) -> None:
        if lag_s < WORST_LAG * self._session_timeout_s:
            self._heard_at[incarnation] = asyncio.get_running_loop().time()

    def silent_s(self, incarnation: int) -> float | None:
        """How long it has not been heard; None: it is not watched."""
        heard_at = self._heard_at.get(incarnation)
        return None if heard_at is None else asyncio.get_running_loop().time() - heard_at

    def image_changed(self) -> None:
        """Brokers may have come or gone."""
        self._changed.set()

    async def run(self) -> None:
        """Owner's task: for ever. A cluster of one broker has no timer here."""
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
        """Until the next bound that a silence reaches."""
        bounds = [self._session_timeout_s * share for share in (0.5, 1.0, 1.5)]
        waits = [bound - one for one in silent.values() for bound in bounds if bound - one > 0.001]
        if any(one >= bounds[0] for one in silent.values()):
            waits.append(REASSERT_S / 2)
        return max(min(waits, default=REASSERT_S / 2), 0.01)

    async def _act(self, silent: dict[int, float]) -> None:
        verdict = judge(silent, self._session_timeout_s)
        fence = list(verdict.fence)
        for one in verdict.doubtful:
            broker = self._image().broker_of(one)
            if broker is not None and await self._is_gone(broker):
                fence.append(one)
        try:
            if fence:
                log.warning(
                    "brokers %s have not been heard for %.1f s: fenced",
                    [self._name(one) for one in fence],
                    self._session_timeout_s,
                )
                await self._fence(fence)
            elif verdict.reassert:
                now = asyncio.get_running_loop().time()
                if now - self._asserted_at >= REASSERT_S:
                    self._asserted_at = now
                    await self._assert_term()
        except KafkaError as error:
            if error.code is not ErrorCode.NOT_CONTROLLER:
                log.warning("fencing waits: %s", error)
            await asyncio.sleep(REASSERT_S / 2)

    def _name(self, incarnation: int) -> str:
        broker = self._image().broker_of(incarnation)
        return f"{'?' if broker is None else broker.node_id} (incarnation {incarnation})"
