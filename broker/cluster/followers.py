"""How far the other brokers follow a term's log, as they tell in their heartbeats."""

from __future__ import annotations

import math

import msgspec

from s3stream.metadata.image import MetadataImage
from s3stream.metadata.records import Position

NEVER = -1


class Follower(msgspec.Struct, frozen=True, array_like=True):
    """end: of the term's log, as it follows it; 0: it knows nothing of this term, -1: not heard.

    heard_ms, caught_up_ms: so long ago; -1: never.
    """

    node_id: int
    end: int
    heard_ms: int
    caught_up_ms: int


class _Heard(msgspec.Struct):
    position: Position
    at: float
    caught_up_at: float | None


class Followers:
    """Of the process that decides, for one term."""

    def __init__(self) -> None:
        self._heard: dict[int, _Heard] = {}

    def told(self, incarnation: int, position: Position, newest: Position, now: float) -> None:
        """newest: of this process's image. now: loop time."""
        heard = self._heard.get(incarnation)
        if heard is None:
            heard = self._heard[incarnation] = _Heard(position, now, None)
        heard.position, heard.at = position, now
        if position >= newest:
            heard.caught_up_at = now

    def of(self, image: MetadataImage, own: int, now: float) -> list[Follower]:
        """Of the live brokers but `own`, an incarnation, by node id; the others are forgotten."""
        live = [one for one in image.live_brokers() if one.incarnation != own]
        known = {one.incarnation for one in live}
        self._heard = {one: heard for one, heard in self._heard.items() if one in known}
        found = []
        for broker in live:
            heard = self._heard.get(broker.incarnation)
            if heard is None:
                found.append(Follower(broker.node_id, -1, NEVER, NEVER))
                continue
            end = heard.position.seq + 1 if heard.position.term == image.term else 0
            found.append(
                Follower(
                    broker.node_id,
                    end,
                    _ago_ms(now, heard.at),
                    NEVER if heard.caught_up_at is None else _ago_ms(now, heard.caught_up_at),
                )
            )
        return found


def _ago_ms(now: float, then: float) -> int:
    return max(math.ceil((now - then) * 1000), 0)
