"""Missing a broker, feeding those who follow, waiting for a place in the log."""

from __future__ import annotations

import asyncio

import pytest

from broker.cluster.detector import Detector, judge
from broker.cluster.feed import KEPT_BYTES, LogFeed
from broker.cluster.messages import LogObject, LogObjects, ReadTheBucket
from broker.cluster.positions import Positions
from s3stream.metadata.image import (
    EMPTY_IMAGE,
    BrokerRegistration,
    IncarnationState,
    MetadataImage,
    changed,
)
from s3stream.metadata.persistent_map import PersistentMap
from s3stream.metadata.records import Endpoint, Position
from tests.simulation.loop import SimulatedLoop

TIMEOUT_S = 4.0
HEARTBEAT_S = 0.5


@pytest.mark.parametrize(
    ("silent_s", "few_s", "fence", "doubtful", "reassert"),
    [
        ({1: 0.5, 2: 0.5}, 0.0, [], [], False),
        # One of two is missed: the other is half of them.
        ({1: 0.5, 2: 1.0}, 0.0, [], [2], True),
        ({1: 0.5, 2: 4.0}, 0.0, [2], [], True),
        # All are missed: perhaps it is we who are cut off.
        ({1: 4.5, 2: 4.5}, 3.5, [], [1, 2], False),
        ({1: 6.0, 2: 6.0}, 5.9, [], [1, 2], False),
        ({1: 7.0, 2: 7.0}, 6.0, [1, 2], [], False),
        ({1: 1.0}, 0.0, [], [1], False),
        ({1: 6.0}, 6.0, [1], [], False),
        # Fewer than half are heard.
        ({1: 0.1, 2: 4.5, 3: 4.5}, 4.0, [], [2, 3], False),
        ({1: 0.1, 2: 0.1, 3: 4.5, 4: 4.5}, 0.0, [3, 4], [], True),
        ({}, 0.0, [], [], False),
    ],
)
def test_who_is_missed_is_fenced_by_one_that_hears_the_others(
    silent_s: dict[int, float],
    few_s: float,
    fence: list[int],
    doubtful: list[int],
    reassert: bool,
) -> None:
    assert judge(silent_s, TIMEOUT_S, 1.0, few_s) == (fence, doubtful, reassert)


def image_of(*incarnations: int) -> MetadataImage:
    """Incarnation n is that of node n."""
    where = (Endpoint("PLAINTEXT", "h", 1),)
    return changed(
        EMPTY_IMAGE,
        brokers=PersistentMap(
            (n, BrokerRegistration(n, n, b"p", where, None, False, None)) for n in incarnations
        ),
        incarnations=PersistentMap(
            (n, IncarnationState(n, n, 4, False, None, None)) for n in incarnations
        ),
    )


class Watched:
    """A detector of incarnation 0, with what it decides."""

    def __init__(self, image: MetadataImage, gone: tuple[int, ...] = ()) -> None:
        self.image = image
        self.fenced: list[tuple[float, int]] = []
        self.asserted = 0
        self.asserted_at: list[float] = []
        self.gone = gone
        self.detector = Detector(
            0,
            TIMEOUT_S,
            HEARTBEAT_S,
            lambda: self.image,
            fence=self._fence,
            assert_term=self._assert,
            is_gone=self._is_gone,
        )

    async def _fence(self, incarnations: list[int]) -> None:
        now = asyncio.get_running_loop().time()
        self.fenced += [(now, one) for one in incarnations]
        brokers = self.image.brokers.without(*incarnations)
        self.image = changed(self.image, brokers=brokers)

    async def _assert(self) -> None:
        self.asserted += 1
        self.asserted_at.append(asyncio.get_running_loop().time())

    async def _is_gone(self, broker: BrokerRegistration) -> bool:
        return broker.incarnation in self.gone

    async def run(self, heard: tuple[int, ...], seconds: float) -> None:
        running = asyncio.create_task(self.detector.run())
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.5)
            for one in heard:
                self.detector.heard(one)
        running.cancel()
        await asyncio.wait([running])


@pytest.mark.parametrize(
    ("brokers", "heard", "gone", "fenced", "after_s"),
    [
        ((0, 1, 2), (1,), (), [2], 4.0),
        ((0, 1), (), (), [1], 7.0),
        ((0, 1), (), (1,), [1], 1.0),
        ((0, 1, 2), (1, 2), (), [], 0.0),
        ((0,), (), (), [], 0.0),
    ],
)
def test_a_silent_broker_is_fenced_in_time_and_no_other(
    brokers: tuple[int, ...],
    heard: tuple[int, ...],
    gone: tuple[int, ...],
    fenced: list[int],
    after_s: float,
) -> None:
    loop = SimulatedLoop(1)

    async def main() -> None:
        watched = Watched(image_of(*brokers), gone)
        began = loop.time()
        await watched.run(heard, 12.0)
        assert [one for _, one in watched.fenced] == fenced
        for at, _ in watched.fenced:
            assert after_s <= at - began < after_s + 0.6
        assert bool(watched.asserted) == (len(heard) == 1), "said while one of two was missed"
        assert watched.asserted_at[:1] == [began + 1.0] or not watched.asserted, "at once"

    loop.run(main())


def test_brokers_that_come_and_go_hide_no_silent_one() -> None:
    loop = SimulatedLoop(1)

    async def main() -> None:
        watched = Watched(image_of(0, 1, 2))
        running = asyncio.create_task(watched.detector.run())
        for _ in range(100):
            await asyncio.sleep(0.1)
            watched.detector.heard(1)
            watched.detector.image_changed()
        assert [one for _, one in watched.fenced] == [2]
        running.cancel()

    loop.run(main())


def test_who_slept_itself_does_not_take_it_for_the_silence_of_others() -> None:
    loop = SimulatedLoop(1)

    async def main() -> None:
        watched = Watched(image_of(0, 1, 2))
        running = asyncio.create_task(watched.detector.run())
        await asyncio.sleep(1)
        # As a loop that stalled: timers fire late, and what was sent is read after them.
        loop.jump(30.0)
        await asyncio.sleep(0.1)
        assert watched.fenced == []
        running.cancel()

    loop.run(main())


def test_a_broker_whose_loop_is_stuck_is_not_heard_however_its_heartbeats_come() -> None:
    loop = SimulatedLoop(1)

    async def main() -> None:
        watched = Watched(image_of(0, 1, 2))
        running = asyncio.create_task(watched.detector.run())
        for _ in range(20):
            await asyncio.sleep(0.5)
            watched.detector.heard(1)
            watched.detector.heard(2, lag_s=9.0)
        assert [one for _, one in watched.fenced] == [2]
        running.cancel()

    loop.run(main())


def test_a_follower_is_given_what_it_lacks_and_waits_for_what_comes() -> None:
    loop = SimulatedLoop(1)

    async def main() -> None:
        feed = LogFeed()
        feed.term = 3
        feed.add(0, [b"a"])
        feed.add(1, [b"b", b"c"])
        assert await feed.after(3, 0, 1.0) == LogObjects(
            [LogObject(0, [b"a"]), LogObject(1, [b"b", b"c"])]
        )
        assert await feed.after(3, 2, 1.0) == LogObjects([])
        waiting = asyncio.create_task(feed.after(3, 2, 60.0))
        await asyncio.sleep(1)
        feed.add(2, [b"d"])
        assert await waiting == LogObjects([LogObject(2, [b"d"])])
        assert await feed.after(2, 0, 1.0) == ReadTheBucket(), "of another term"
        assert await feed.after(3, 9, 1.0) == ReadTheBucket(), "beyond what there is"
        feed.add(3, [bytes(KEPT_BYTES)])
        feed.add(4, [b"e"])
        assert await feed.after(3, 1, 1.0) == ReadTheBucket(), "not kept any more"
        late = asyncio.create_task(feed.after(3, 5, 60.0))
        await asyncio.sleep(1)
        feed.close()
        assert await late == LogObjects([])

    loop.run(main())


def test_a_place_in_the_log_is_waited_for() -> None:
    loop = SimulatedLoop(1)

    async def main() -> None:
        positions = Positions()
        at = changed(EMPTY_IMAGE, position=Position(1, 5, 0))
        waiting = asyncio.create_task(positions.reached(Position(1, 4, 9), 10.0))
        beyond = asyncio.create_task(positions.reached(Position(2, 0, 0), 1.0))
        await asyncio.sleep(0)
        positions.image_changed(EMPTY_IMAGE, at)
        await waiting
        await positions.reached(Position(1, 5, 0), 0.0)
        with pytest.raises(TimeoutError):
            await beyond

    loop.run(main())
