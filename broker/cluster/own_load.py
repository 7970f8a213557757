"""What this broker tells of itself: how much it has to do, and whom it does not reach."""

from __future__ import annotations

import asyncio

import msgspec

from .load import Load, LoadMeter
from .reach import Reach


class OwnLoad:
    """Measured when somebody asks: with each heartbeat, or where this process decides."""

    def __init__(self, meter: LoadMeter, reach: Reach) -> None:
        self.reach = reach
        self._meter = meter

    @property
    def is_measured(self) -> bool:
        return self._meter.is_measured

    def __call__(self) -> Load:
        load = self._meter.load(asyncio.get_running_loop().time())
        unreachable = self.reach.unreachable
        return msgspec.structs.replace(load, unreachable=unreachable) if unreachable else load
