"""Admission of request frames: memory is reserved by the announced length before a byte is read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable


class Ticket:
    """A place in a queue. granted: called, once, when the reservation has been made."""

    __slots__ = ("granted", "owner", "queue", "size_bytes")

    def __init__(self, owner: str, size_bytes: int, granted: Callable[[], None]) -> None:
        self.owner = owner
        self.size_bytes = size_bytes
        self.granted = granted
        self.queue: OrderedDict[Ticket, None] | None = None


_Queue = OrderedDict[Ticket, None]

# A client's first request asks for versions or metadata: a hundred bytes or two. So few are worth
# less than the connection itself.
FIRST_BYTES = 1024


def request_memory(limit_bytes: int) -> MemoryPool:
    """All that requests may take: three quarters for those who are known."""
    strangers = limit_bytes // 4
    return MemoryPool(limit_bytes - strangers, strangers=MemoryPool(strangers), elastic=True)


class MemoryPool:
    """A bound on the bytes of frames that are being received or answered.

    - An address's share is an eighth of the bound. Where the pool is `elastic` it may hold more for
      as long as it leaves at least as much free for all others: half of the bound while it is
      alone, a third beside one of its kind, and from seven on each has its eighth.
    - One frame larger than an eighth may be held in the whole broker at a time, and while it waits
      for room no middling frame goes before it.
    - Frames of at most `small_bytes` may also use a reserve that larger ones never take, of the
      whole and of their address's share, so that heartbeats go on while producers wait.
    - A connection of which no request was answered yet receives into a part of its own,
      `strangers`, where its first frame is larger than one that a client begins with: whoever
      announces much and sends little takes nothing from those who are known. A frame that came
      whole waits for its place like all others.

    Who waits is served first come first served: small, middling and large frames apart, and those
    that their address's share holds back apart from all others. So a release looks at who can go
    now and at one more of each sort, however many wait.
    """

    def __init__(
        self,
        limit_bytes: int,
        small_bytes: int = 16 * 1024,
        strangers: MemoryPool | None = None,
        *,
        elastic: bool = False,
    ) -> None:
        assert limit_bytes > 0, limit_bytes
        self.strangers = strangers
        self.elastic = elastic
        self.limit_bytes = limit_bytes
        self.small_bytes = small_bytes
        self.reserve_bytes = max(limit_bytes // 16, 64 * small_bytes)
        self.share_bytes = max(limit_bytes // 8, small_bytes)
        self.small_share_bytes = self.share_bytes + max(self.reserve_bytes // 8, 8 * small_bytes)
        self.used_bytes = 0
        self._small_used_bytes = 0
        self.waiting = 0
        self._held: dict[str, int] = {}
        self._large_held = False
        self._small: _Queue = OrderedDict()
        self._middling: _Queue = OrderedDict()
        self._large: _Queue = OrderedDict()
        # Of one address, small or not: those that wait for its own share.
        self._by_share: dict[tuple[str, bool], _Queue] = {}
        self._admitting = False
        self._closed = False

    @property
    def next_waiting(self) -> object | None:
        """Who waits for room in the whole, and is next; None: nobody does."""
        for queue in (self._small, self._middling, self._large):
            if queue:
                return next(iter(queue))
        return None

    def try_reserve(self, owner: str, size_bytes: int) -> bool:
        """Take `size_bytes` for `owner` (a client's address); False when it has to wait."""
        if not self.waiting:
            # Nobody is there to be let past.
            fits = self._has_room(size_bytes) and self._within_share(owner, size_bytes)
            if fits:
                self._take(owner, size_bytes)
            return fits
        if self._queue_for(size_bytes) or self._is_held_back(owner, size_bytes):
            return False
        if not self._has_room(size_bytes):
            return False
        self._take(owner, size_bytes)
        return True

    def wait(self, owner: str, size_bytes: int, granted: Callable[[], None]) -> Ticket:
        """Reserve `size_bytes` as soon as they are there, then call `granted`."""
        ticket = Ticket(owner, size_bytes, granted)
        self.waiting += 1
        self._enqueue(ticket)
        # Nothing may be held at all any more, so that no release would come.
        self._admit()
        return ticket

    def forget(self, ticket: Ticket) -> None:
        """It waits no longer, and was not granted."""
        if ticket.queue is None:
            return
        self._dequeue(ticket)
        self.waiting -= 1
        # It may have stood before others.
        self._admit()

    def release(self, owner: str, size_bytes: int) -> None:
        """Give back what was reserved."""
        self.used_bytes -= size_bytes
        assert self.used_bytes >= 0, self.used_bytes
        if size_bytes <= self.small_bytes:
            self._small_used_bytes -= size_bytes
        if size_bytes > self.share_bytes:
            self._large_held = False
        else:
            left = self._held[owner] - size_bytes
            assert left >= 0, (owner, left)
            if left:
                self._held[owner] = left
            else:
                del self._held[owner]
            if self.waiting:
                self._requeue(owner, small=True)
                self._requeue(owner, small=False)
        if self.waiting:
            self._admit()

    def for_frame(self, size_bytes: int, *, known: bool) -> MemoryPool:
        """Where a frame is received to; known: a request of its connection was answered."""
        if known or self.strangers is None or size_bytes <= FIRST_BYTES:
            return self
        return self.strangers

    def close(self) -> None:
        """Nothing more is read: whoever waits is never granted."""
        self._closed = True
        if self.strangers is not None:
            self.strangers.close()

    def _admit(self) -> None:
        """Let in who can go now."""
        if self._admitting or self._closed:
            return  # if `granted` released something, the loop below looks at it
        self._admitting = True
        try:
            while self._admit_one():
                pass
        finally:
            self._admitting = False

    def _admit_one(self) -> bool:
        for queue in (self._small, self._large, self._middling):
            while queue:
                ticket = next(iter(queue))
                if not self._has_room(ticket.size_bytes):
                    break
                self._dequeue(ticket)
                if not self._within_share(ticket.owner, ticket.size_bytes):
                    self._enqueue(ticket)
                    continue
                self.waiting -= 1
                self._take(ticket.owner, ticket.size_bytes)
                ticket.granted()
                return True
        return False

    def _requeue(self, owner: str, *, small: bool) -> None:
        """Those of an address whose share has room again wait for the whole."""
        queue = self._by_share.get((owner, small))
        if queue is None:
            return
        room = self._room_of(owner, small)
        while queue and (ticket := next(iter(queue))).size_bytes <= room:
            room -= ticket.size_bytes
            self._dequeue(ticket)
            self._put(self._queue_for(ticket.size_bytes), ticket)

    def _enqueue(self, ticket: Ticket) -> None:
        size_bytes = ticket.size_bytes
        if self._is_held_back(ticket.owner, size_bytes):
            key = (ticket.owner, size_bytes <= self.small_bytes)
            self._put(self._by_share.setdefault(key, OrderedDict()), ticket)
        else:
            self._put(self._queue_for(size_bytes), ticket)

    def _put(self, queue: _Queue, ticket: Ticket) -> None:
        queue[ticket] = None
        ticket.queue = queue

    def _dequeue(self, ticket: Ticket) -> None:
        queue = ticket.queue
        assert queue is not None
        ticket.queue = None
        del queue[ticket]
        key = (ticket.owner, ticket.size_bytes <= self.small_bytes)
        if not queue and self._by_share.get(key) is queue:
            del self._by_share[key]

    def _queue_for(self, size_bytes: int) -> _Queue:
        if size_bytes <= self.small_bytes:
            return self._small
        return self._middling if size_bytes <= self.share_bytes else self._large

    def _has_room(self, size_bytes: int) -> bool:
        after = self.used_bytes + size_bytes
        if size_bytes <= self.small_bytes:
            # The second: one frame beyond the whole bound may be held.
            return (
                after <= self.limit_bytes + self.reserve_bytes
                or self._small_used_bytes + size_bytes <= self.reserve_bytes
            )
        if size_bytes <= self.share_bytes:
            return after <= self.limit_bytes and (self._large_held or not self._large)
        return not self._large_held and (self.used_bytes == 0 or after <= self.limit_bytes)

    def _room_of(self, owner: str, small: bool) -> int:
        """How much more an address may take.

        Who waits for this holds something, so its own release is where to look again.
        """
        held = self._held.get(owner, 0)
        room = (self.small_share_bytes if small else self.share_bytes) - held
        if self.elastic:
            # With so much more it holds what it leaves free.
            room = max(room, (self.limit_bytes - self.used_bytes - held) // 2)
        return room

    def _is_held_back(self, owner: str, size_bytes: int) -> bool:
        """By its address's share, or by those of the same address that are."""
        if size_bytes > self.share_bytes:
            return False
        waiting = (owner, size_bytes <= self.small_bytes) in self._by_share
        return waiting or not self._within_share(owner, size_bytes)

    def _within_share(self, owner: str, size_bytes: int) -> bool:
        if size_bytes > self.share_bytes:
            return True
        return size_bytes <= self._room_of(owner, size_bytes <= self.small_bytes)

    def _take(self, owner: str, size_bytes: int) -> None:
        self.used_bytes += size_bytes
        if size_bytes <= self.small_bytes:
            self._small_used_bytes += size_bytes
        if size_bytes > self.share_bytes:
            self._large_held = True
        else:
            self._held[owner] = self._held.get(owner, 0) + size_bytes
