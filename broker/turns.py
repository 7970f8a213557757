"""Requests that are handled at one go take turns, address by address, a few in each round of the
event loop: whoever asks much, over however many connections, keeps nobody else waiting for long,
and new connections are accepted in between.

An address that has nothing waiting when it asks goes before those that always have; one place of
each round is theirs all the same.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

# A request for all metadata takes about a millisecond.
PER_ROUND = 2

_Waiting = OrderedDict[str, deque[asyncio.Future[None]]]


class Turns:
    """per_round: so many requests are begun before the loop looks at its sockets again."""

    def __init__(self, per_round: int = PER_ROUND) -> None:
        assert per_round >= 2, per_round
        self._per_round = per_round
        self._begun = 0
        # By address, the one whose turn is next comes first: those that came since they had
        # nothing waiting, and those that have had a turn meanwhile and wait still.
        self._fresh: _Waiting = OrderedDict()
        self._steady: _Waiting = OrderedDict()
        self._loop = asyncio.get_running_loop()

    def try_take(self) -> bool:
        """Begin at once; False: `wait`."""
        if self._begun >= self._per_round or self._fresh or self._steady:
            return False
        if not self._begun:
            self._loop.call_soon(self._next_round)
        self._begun += 1
        return True

    async def wait(self, owner: str) -> None:
        """Until it is the turn of `owner`, a client's address. Only after `try_take` said no."""
        turn: asyncio.Future[None] = self._loop.create_future()
        queue = self._fresh.get(owner)
        if queue is None:
            queue = self._steady.get(owner)
        if queue is None:
            queue = self._fresh[owner] = deque()
        queue.append(turn)
        await turn

    def _next_round(self) -> None:
        self._begun = 0
        self._begin_one(self._steady)
        while self._begun < self._per_round and (self._fresh or self._steady):
            self._begin_one(self._fresh or self._steady)
        if self._begun:
            self._loop.call_soon(self._next_round)

    def _begin_one(self, waiting: _Waiting) -> None:
        if not waiting:
            return
        owner, queue = waiting.popitem(last=False)
        turn = queue.popleft()
        if queue:
            self._steady[owner] = queue
        if not turn.done():  # else its connection was closed
            turn.set_result(None)
            self._begun += 1
