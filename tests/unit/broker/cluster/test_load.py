"""What a broker tells of its load: rates that are true, at no cost while nothing happens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.cluster.load import FIRST_S, HOTTEST, SAMPLE_S, Counted, Load, LoadMeter, ProcessUse


class Machine:
    """Counters that a test turns."""

    def __init__(self) -> None:
        self.requests = 0
        self.partitions: dict[int, list[int]] = {}
        self.use = ProcessUse(0.0, 1 << 20)
        self.looks = 0
        self.now = 100.0
        self.meter = LoadMeter(
            lambda: self.requests, lambda: len(self.partitions), self.counted, lambda: self.use
        )

    def counted(self) -> Iterator[Counted]:
        self.looks += 1
        for stream_id, (bytes_in, bytes_out) in self.partitions.items():
            yield Counted(stream_id, bytes_in, bytes_out)

    def work(self, seconds: float, **rates: dict[int, int]) -> Load:
        """rates: into, out; bytes a second, by stream."""
        end = self.now + seconds
        while self.now < end:
            self.now += SAMPLE_S
            self.requests += round(10 * SAMPLE_S)
            for side, name in enumerate(("into", "out")):
                for stream_id, rate in rates.get(name, {}).items():
                    self.partitions[stream_id][side] += round(rate * SAMPLE_S)
            self.use = ProcessUse(self.use.processor_s + SAMPLE_S / 2, 2 << 20)
            self.meter.load(self.now)
        return self.meter.load(self.now)


def test_steady_work_is_told_as_it_is() -> None:
    machine = Machine()
    machine.partitions = {7: [0, 0], 9: [0, 0], 11: [0, 0]}
    machine.meter.load(machine.now)
    load = machine.work(60, into={7: 1000, 9: 50}, out={7: 3000})
    assert (load.bytes_in, load.bytes_out, load.requests) == (1050, 3000, 10)
    assert (load.partitions, load.processor, load.resident_bytes) == (3, 500, 2 << 20)
    assert [one.stream_id for one in load.hottest] == [7, 9], "the hottest first, idle ones not"
    assert (load.hottest[0].bytes_in, load.hottest[0].bytes_out) == (1000, 3000)


def test_the_first_rate_is_the_whole_rate_and_not_a_part_of_it() -> None:
    machine = Machine()
    machine.partitions = {7: [1 << 30, 0]}
    assert machine.meter.load(machine.now).bytes_in == 0, "what was before counts for nothing"
    assert not machine.meter.is_measured
    machine.partitions[7][0] += 5000
    machine.requests += 5
    machine.now += FIRST_S
    assert machine.meter.load(machine.now).bytes_in == 5000
    assert machine.meter.is_measured


def test_after_a_time_in_which_nobody_looked_it_begins_anew() -> None:
    machine = Machine()
    machine.partitions = {7: [0, 0]}
    machine.meter.load(machine.now)
    machine.work(20, into={7: 100})
    machine.partitions[7][0] += 1 << 40
    machine.requests += 1
    machine.now += 3600
    machine.meter.load(machine.now)
    assert not machine.meter.is_measured
    machine.partitions[7][0] += 400
    machine.requests += 1
    machine.now += FIRST_S
    assert machine.meter.load(machine.now).bytes_in == 400


def test_partitions_are_looked_at_only_while_something_comes_or_goes() -> None:
    machine = Machine()
    machine.partitions = {7: [0, 0]}
    machine.meter.load(machine.now)
    machine.work(10, into={7: 100})
    for _ in range(1000):
        machine.now += SAMPLE_S
        machine.meter.load(machine.now)
    looks = machine.looks
    for _ in range(100):
        machine.now += SAMPLE_S
        load = machine.meter.load(machine.now)
    assert machine.looks == looks
    assert (load.bytes_in, load.requests, load.hottest) == (0, 0, ())


def test_a_partition_that_was_closed_and_opened_anew_counts_from_there() -> None:
    machine = Machine()
    machine.partitions = {7: [0, 0]}
    machine.meter.load(machine.now)
    machine.work(30, into={7: 1000})
    machine.partitions[7] = [0, 0]
    load = machine.work(30, into={7: 1000})
    assert 900 <= load.bytes_in <= 1000


@given(st.dictionaries(st.integers(0, 99), st.integers(1, 10_000), min_size=1))
def test_the_hottest_are_the_hottest_and_few(rates: dict[int, int]) -> None:
    machine = Machine()
    machine.partitions = {stream_id: [0, 0] for stream_id in rates}
    machine.meter.load(machine.now)
    load = machine.work(4, into=rates)
    told = [one.bytes_in for one in load.hottest]
    assert told == sorted(rates.values(), reverse=True)[:HOTTEST]
    assert load.bytes_in == pytest.approx(sum(rates.values()), abs=len(rates))
