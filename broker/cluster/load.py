"""How much a broker has to do, as it tells the controller: rates, not counters.

Counters are read a few times in ten seconds and only while somebody wants the rates; a rate is
smoothed over about that time, so that one burst does not look like a load.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

SAMPLE_S = 2.0
# A first rate is wanted soon; a rate over a time in which nobody looked would tell nothing.
FIRST_S = 1.0
STALE_S = 10.0
SMOOTHED_S = 8.0
HOTTEST = 16
# Slower than this is as good as nothing.
NOTHING = 1.0


class PartitionLoad(msgspec.Struct, frozen=True, array_like=True):
    """Bytes of records a second."""

    stream_id: int
    bytes_in: int
    bytes_out: int


class Load(msgspec.Struct, frozen=True):
    """Of one broker. bytes_in, bytes_out, requests: a second, of records that clients sent and got.

    partitions: led. processor: cores in use, 1000 is one. resident_bytes: of the process; 0: not
    known. hottest: most bytes first, `HOTTEST` at most. unreachable: node ids of brokers that do
    not answer this one at their registered address.
    """

    bytes_in: int = 0
    bytes_out: int = 0
    requests: int = 0
    partitions: int = 0
    processor: int = 0
    resident_bytes: int = 0
    hottest: tuple[PartitionLoad, ...] = ()
    unreachable: tuple[int, ...] = ()


class ProcessUse(NamedTuple):
    """processor_s: used since the process began."""

    processor_s: float
    resident_bytes: int


class Counted(NamedTuple):
    """bytes of records of one partition, since it was opened here."""

    stream_id: int
    bytes_in: int
    bytes_out: int


class _Flow:
    __slots__ = ("bytes_in", "bytes_out", "rate_in", "rate_out")

    def __init__(self, bytes_in: int, bytes_out: int) -> None:
        self.bytes_in, self.bytes_out = bytes_in, bytes_out
        self.rate_in = self.rate_out = 0.0


class LoadMeter:
    """requests: received so far. partitions: led. counted: asked only where requests came.

    process: None where nobody can tell.
    """

    def __init__(
        self,
        requests: Callable[[], int],
        partitions: Callable[[], int],
        counted: Callable[[], Iterable[Counted]],
        process: Callable[[], ProcessUse] | None,
    ) -> None:
        self._requests = requests
        self._partitions = partitions
        self._counted = counted
        self._process = process
        self._flows: dict[int, _Flow] = {}
        self._at: float | None = None
        self._requests_before = 0
        self._use_before = ProcessUse(0.0, 0)
        self._request_rate = 0.0
        self._processor_rate = 0.0
        self._load = Load()
        self._measured = False
        self._is_flowing = False

    @property
    def is_measured(self) -> bool:
        """Whether the last sample had one before it to be compared with."""
        return self._measured

    def load(self, now: float) -> Load:
        """As of the last sample, which is made anew where it is old."""
        if self._at is None or now - self._at >= (SAMPLE_S if self._measured else FIRST_S):
            self._sample(now)
        return self._load

    def _sample(self, now: float) -> None:
        requests = self._requests()
        use = self._use_before if self._process is None else self._process()
        is_first = self._at is None or now - self._at > STALE_S
        passed_s = 0.0 if self._at is None or is_first else now - self._at
        came = requests - self._requests_before
        known = self._measured and not is_first
        self._measured = not is_first
        if not is_first:
            self._request_rate = _smooth(self._request_rate, came, passed_s, known)
            used_s = use.processor_s - self._use_before.processor_s
            self._processor_rate = _smooth(self._processor_rate, used_s, passed_s, known)
        # Without a request nothing was written or read: no need to look at every partition.
        if came or is_first or self._is_flowing:
            self._sample_flows(passed_s, known)
        self._at, self._requests_before, self._use_before = now, requests, use
        hottest = sorted(
            (
                PartitionLoad(stream_id, round(flow.rate_in), round(flow.rate_out))
                for stream_id, flow in self._flows.items()
                if flow.rate_in + flow.rate_out >= NOTHING
            ),
            key=lambda one: (-one.bytes_in - one.bytes_out, one.stream_id),
        )
        self._load = Load(
            bytes_in=round(sum(flow.rate_in for flow in self._flows.values())),
            bytes_out=round(sum(flow.rate_out for flow in self._flows.values())),
            requests=round(self._request_rate),
            partitions=self._partitions(),
            processor=round(self._processor_rate * 1000),
            resident_bytes=use.resident_bytes,
            hottest=tuple(hottest[:HOTTEST]),
        )

    def _sample_flows(self, passed_s: float, known: bool) -> None:
        flows: dict[int, _Flow] = {}
        for stream_id, bytes_in, bytes_out in self._counted():
            flow = self._flows.get(stream_id)
            if flow is None:
                if not bytes_in and not bytes_out:
                    continue
                # Opened since the last sample, or this is the first one.
                flow = _Flow(0, 0) if passed_s else _Flow(bytes_in, bytes_out)
            elif bytes_in < flow.bytes_in or bytes_out < flow.bytes_out:
                flow = _Flow(0, 0)  # closed, and opened anew
            if passed_s:
                flow.rate_in = _smooth(flow.rate_in, bytes_in - flow.bytes_in, passed_s, known)
                flow.rate_out = _smooth(flow.rate_out, bytes_out - flow.bytes_out, passed_s, known)
            flow.bytes_in, flow.bytes_out = bytes_in, bytes_out
            flows[stream_id] = flow
        self._flows = flows
        self._is_flowing = any(flow.rate_in or flow.rate_out for flow in flows.values())


def _smooth(before: float, more: float, passed_s: float, known: bool) -> float:
    """known: whether `before` is a rate at all."""
    rate = more / passed_s
    if not known:
        return rate
    after = before + (rate - before) * -math.expm1(-passed_s / SMOOTHED_S)
    return after if after >= NOTHING / 1000 else 0.0
