"""A planned move between two live logs: what each side holds, whoever dies in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from objectstore.errors import Corrupt
from objectstore.store import ObjectStore
from objectstore.wrappers.retry import PATIENT, RetryStore
from s3stream.handoff import HandoffRef
from s3stream.metadata.records import BlobRef
from s3stream.object_writer import ObjectWriter
from s3stream.stream import Stream
from s3stream.takeover import SourceRef, recover, write_recovery_object
from tests.simulation.loop import SimulatedLoop
from tests.simulation.store import FAIR, ROUGH, SimulatedStore, Weather
from wal import end_log, wal_log
from wal.keys import parse_data_key

from .log_rig import SMALL, WINDOW, Life, begin, flat, make_entry, offsets, open_new, read_all, run

TINY = replace(
    SMALL,
    log_cache_bytes=64 << 10,
    upload_trigger_bytes=6 << 10,
    upload_max_objects=10,
    data_object_bytes=8 << 10,
    checkpoint_objects=4,
    page_streams=2,
    page_bytes=1 << 10,
    delta_bytes=400,
    inline_delta_bytes=300,
)


@dataclass
class World:
    """Some lives on one bucket. expected: what was acknowledged, by stream."""

    loop: SimulatedLoop
    store: ObjectStore
    lives: dict[int, Life] = field(default_factory=dict)
    expected: dict[int, bytes] = field(default_factory=dict)
    epoch: int = 0
    moves: int = 0

    def begin(self, incarnation: int, config=SMALL) -> Life:  # type: ignore[no-untyped-def]
        life = self.lives[incarnation] = begin(self.store, incarnation, self.loop, config)
        return life

    async def append(self, stream: Stream, count: int = 1, value: bytes = b"v" * 200) -> None:
        for _ in range(count):
            entry = make_entry(stream, value=value)
            await stream.append(entry)
            known = self.expected.get(stream.stream_id, b"")
            self.expected[stream.stream_id] = known + bytes(entry.buffer)

    async def hand_over(self, source: int, *stream_ids: int) -> HandoffRef:
        move = self.moves
        self.moves += 1
        told = await self.lives[source].storage.hand_over({move: list(stream_ids)})
        return HandoffRef(source, move, told[move])

    async def receive(
        self, target: int, ref: HandoffRef | SourceRef | None, *stream_ids: int
    ) -> dict[int, Stream]:
        self.epoch += 1
        wanted = [(one, self.epoch, (0, self.epoch, one)) for one in stream_ids]
        opened = await self.lives[target].storage.open_streams(wanted, ref)
        return {one.stream_id: one for one in opened}

    async def fail_over(self, dead: int, target: int) -> SourceRef:
        """The log of `dead` is ended and read."""
        life = self.lives.pop(dead)
        if not life.task.done():
            await life.kill()
        rng = Random(dead)
        end = await end_log(self.store, wal_log(dead), WINDOW, b"p%d" % target, rng)
        recovered = await recover(self.store, dead, end.end)
        numbers = self.lives[target].storage.numbers
        blobs = await write_recovery_object(
            recovered, ObjectWriter(self.store, target, numbers, rng=rng)
        )
        made = (parse_data_key(one.key) for one in blobs)
        numbers.settle([one[1] for one in made if one is not None])
        return SourceRef(dead, blobs[0])

    async def check(self, *streams: Stream) -> None:
        for stream in streams:
            assert await read_all(stream) == self.expected.get(stream.stream_id, b"")
            sums = stream.entry
            assert sums.total.batch_count == sums.live.batch_count + sums.trimmed.batch_count


def play(body: Callable[[World], Awaitable[None]], seed: int = 1, weather: Weather = FAIR) -> None:
    async def main(loop: SimulatedLoop) -> None:
        store = SimulatedStore(loop, Random(seed), weather)
        world = World(loop, RetryStore(store, Random(seed), PATIENT))
        try:
            await body(world)
        finally:
            for life in world.lives.values():
                await life.kill()

    run(main, seed)


def test_a_moved_stream_goes_on_where_it_was_with_all_that_it_held() -> None:
    async def body(world: World) -> None:
        old, new = world.begin(1), world.begin(2)
        streams = await open_new(old, [1, 2, 3])
        for stream in streams.values():
            await world.append(stream, 5)
        producing = make_entry(streams[1], producer_id=7, producer_epoch=0, base_sequence=3)
        await streams[1].append(producing)
        world.expected[1] += bytes(producing.buffer)
        before = streams[1].entry.producers[7]
        ref = await world.hand_over(1, 1, 2)
        moved = await world.receive(2, ref, 1, 2)
        await world.check(*moved.values())
        assert moved[1].entry.producers[7] == before
        for stream in moved.values():
            await world.append(stream, 3)
        await world.append(streams[3], 3)
        await world.check(*moved.values(), streams[3])
        assert old.storage.stream(1) is None and new.storage.stream(1) is moved[1]

    play(body)


def test_the_old_log_names_what_it_told_until_it_drops_the_streams() -> None:
    async def body(world: World) -> None:
        old = world.begin(1)
        world.begin(2)
        streams = await open_new(old, [1, 2])
        await world.append(streams[1], 2)
        ref = await world.hand_over(1, 1, 2)
        held = old.storage.references()
        assert ref.contents.key in held
        assert {one.object.key for one in streams[1].entry.ranges} <= held
        await old.storage.drop_streams([1])
        assert ref.contents.key in old.storage.references()
        await old.storage.drop_streams([2])
        assert ref.contents.key not in old.storage.references()

    play(body)


def test_asked_again_the_old_log_tells_the_same_closing() -> None:
    async def body(world: World) -> None:
        old = world.begin(1)
        streams = await open_new(old, [1])
        await world.append(streams[1], 2)
        first = await old.storage.hand_over({5: [1]})
        next_seq = old.storage.wal.next_seq
        assert await old.storage.hand_over({5: [1]}) == first
        assert old.storage.wal.next_seq == next_seq

    play(body)


def test_moves_at_the_same_time_share_one_log_object() -> None:
    async def body(world: World) -> None:
        old = world.begin(1)
        world.begin(2)
        world.begin(3)
        streams = await open_new(old, [1, 2])
        await world.append(streams[1], 2)
        await world.append(streams[2], 2)
        told = await old.storage.hand_over({5: [1], 6: [2]})
        assert told[5] == told[6]
        one = await world.receive(2, HandoffRef(1, 5, told[5]), 1)
        two = await world.receive(3, HandoffRef(1, 6, told[6]), 2)
        await world.check(one[1], two[2])

    play(body)


def test_entries_that_are_long_go_into_an_object_of_their_own() -> None:
    async def body(world: World) -> None:
        old = world.begin(1)
        world.begin(2)
        old.storage.handing_over.inline_bytes = 10
        streams = await open_new(old, [1])
        await world.append(streams[1], 4)
        ref = await world.hand_over(1, 1)
        assert ref.contents.key.startswith("data/")
        assert old.storage.numbers.lowest_unsettled > 0
        moved = await world.receive(2, ref, 1)
        await world.check(moved[1])
        recovered = await world.fail_over(1, 2)
        assert recovered.incarnation == 1

    play(body)


def test_batches_on_their_way_at_the_closing_are_in_what_moves() -> None:
    async def body(world: World) -> None:
        old = world.begin(1)
        world.begin(2)
        streams = await open_new(old, [1])
        entries = [make_entry(streams[1], value=b"x")]
        waiting = [streams[1].append(entries[0])]
        for _ in range(9):
            entries.append(make_entry(streams[1], value=b"x"))
            waiting.append(streams[1].append(entries[-1]))
        ref = await world.hand_over(1, 1)
        assert all(one.done() for one in waiting)
        world.expected[1] = b"".join(bytes(one.buffer) for one in entries)
        moved = await world.receive(2, ref, 1)
        await world.check(moved[1])

    play(body)


def test_a_trim_on_its_way_at_the_closing_is_in_what_moves() -> None:
    async def body(world: World) -> None:
        old = world.begin(1)
        world.begin(2)
        streams = await open_new(old, [1])
        await world.append(streams[1], 6)
        trimmed = streams[1].trim(4)
        ref = await world.hand_over(1, 1)
        assert trimmed.done()
        moved = await world.receive(2, ref, 1)
        assert moved[1].start_offset == 4

    play(body)


def test_a_stream_that_is_not_open_is_not_handed_over() -> None:
    async def body(world: World) -> None:
        old = world.begin(1)
        await open_new(old, [1])
        await world.hand_over(1, 1)
        with pytest.raises(Corrupt, match="stream 1"):
            await world.hand_over(1, 1)

    play(body)


def test_the_source_of_a_cancelled_move_opens_anew_and_goes_on() -> None:
    async def body(world: World) -> None:
        old = world.begin(1, TINY)
        streams = await open_new(old, [1])
        await world.append(streams[1], 30)
        ref = await world.hand_over(1, 1)
        # Uploads and checkpoints go on meanwhile without touching it.
        other = (await open_new(old, [2]))[2]
        await world.append(other, 40)
        again = (await world.receive(1, None, 1))[1]
        assert ref.contents.key not in old.storage.references()
        await world.append(again, 10)
        await world.check(again, other)
        world.begin(3, TINY)
        source = await world.fail_over(1, 3)
        found = await world.receive(3, source, 1, 2)
        await world.check(*found.values())

    play(body)


@pytest.mark.parametrize("uploads", [0, 20])
def test_an_old_leader_that_dies_after_its_closing_holds_nothing_up(uploads: int) -> None:
    async def body(world: World) -> None:
        old = world.begin(1, TINY)
        world.begin(2, TINY)
        streams = await open_new(old, [1, 2])
        await world.append(streams[1], 8)
        ref = await world.hand_over(1, 1)
        await world.append(streams[2], uploads)
        source = await world.fail_over(1, 2)
        # From the closing, or from what its failover found: both tell the same.
        moved = await world.receive(2, ref, 1)
        await world.check(moved[1])
        world.begin(3, TINY)
        as_recovered = await world.receive(3, source, 1)
        await world.check(as_recovered[1])

    play(body)


@pytest.mark.parametrize("more", [0, 3, 30])
def test_a_new_leader_that_dies_after_its_opening_leaves_the_stream_in_its_log(more: int) -> None:
    async def body(world: World) -> None:
        old = world.begin(1, TINY)
        world.begin(2, TINY)
        streams = await open_new(old, [1, 2])
        await world.append(streams[1], 8)
        ref = await world.hand_over(1, 1)
        moved = await world.receive(2, ref, 1)
        await world.append(moved[1], more)
        world.begin(3, TINY)
        source = await world.fail_over(2, 3)
        third = await world.receive(3, source, 1)
        await world.check(third[1])
        await world.append(third[1], 3)
        await world.check(third[1])

    play(body)


def test_a_new_leader_that_dies_before_its_opening_leaves_it_to_the_next() -> None:
    async def body(world: World) -> None:
        old = world.begin(1, TINY)
        world.begin(2, TINY)
        streams = await open_new(old, [1])
        await world.append(streams[1], 8)
        ref = await world.hand_over(1, 1)
        world.begin(3, TINY)
        await world.fail_over(2, 3)
        third = await world.receive(3, ref, 1)
        await world.append(third[1], 3)
        await world.check(third[1])

    play(body)


@pytest.mark.parametrize("weather", [FAIR, ROUGH], ids=["fair", "rough"])
@pytest.mark.parametrize("seed", range(12))
def test_streams_that_move_again_and_again_are_always_whole(seed: int, weather: Weather) -> None:
    """Moves, cancelled moves, deaths in the middle, under uploads, merges of pages and trims."""

    async def body(world: World) -> None:
        rng = Random(seed)
        for incarnation in (1, 2, 3):
            world.begin(incarnation, TINY)
            life = world.lives[incarnation].storage
            life.handing_over.inline_bytes = rng.choice((10, 100_000))
        at: dict[int, int] = {}
        streams = await open_new(world.lives[1], range(1, 7))
        at.update(dict.fromkeys(streams, 1))
        next_incarnation = 4
        for _ in range(25):
            busy = [
                asyncio.ensure_future(world.append(one, rng.randrange(4), b"z" * 150))
                for one in streams.values()
            ]
            if rng.random() < 0.5:
                await asyncio.gather(*busy)
            source = rng.choice(sorted(set(at.values())))
            target = rng.choice([one for one in sorted(world.lives) if one != source])
            chosen = [one for one in sorted(at) if at[one] == source and rng.random() < 0.6]
            await asyncio.gather(*busy)
            if not chosen:
                continue
            ref = await world.hand_over(source, *chosen)
            what = rng.random()
            recovered: SourceRef | HandoffRef | None = ref
            if what < 0.15:
                target, recovered = source, None  # cancelled
            elif what < 0.3:
                dead = source
                heir = rng.choice([one for one in sorted(world.lives) if one != dead])
                world.begin(next_incarnation, TINY)
                next_incarnation += 1
                left = await world.fail_over(dead, heir)
                rest = [one for one in sorted(at) if at[one] == dead and one not in chosen]
                streams.update(await world.receive(heir, left, *rest))
                at.update(dict.fromkeys(rest, heir))
                if rng.random() < 0.5:
                    recovered = left
            streams.update(await world.receive(target, recovered, *chosen))
            at.update(dict.fromkeys(chosen, target))
            if source in world.lives and target != source and rng.random() < 0.7:
                await world.lives[source].storage.drop_streams(chosen)
            await asyncio.sleep(rng.choice((0.0, 0.5, 4.0)))
        await world.check(*streams.values())

    play(body, seed, weather)


def test_a_closing_found_under_another_move_is_refused() -> None:
    async def body(world: World) -> None:
        old = world.begin(1)
        world.begin(2)
        streams = await open_new(old, [1])
        await world.append(streams[1], 1)
        ref = await world.hand_over(1, 1)
        with pytest.raises(Corrupt, match="no closing record of move 9"):
            await world.receive(2, HandoffRef(1, 9, BlobRef(*ref.contents)), 1)

    play(body)


def test_offsets_go_on_without_a_gap_across_the_move() -> None:
    async def body(world: World) -> None:
        old = world.begin(1)
        world.begin(2)
        streams = await open_new(old, [1])
        await world.append(streams[1], 3)
        moved = (await world.receive(2, await world.hand_over(1, 1), 1))[1]
        await world.append(moved, 3)
        batches = await moved.fetch(0, moved.high_watermark, 1 << 20)
        assert offsets(batches) == [(n, n) for n in range(6)] and flat(batches)
        assert moved.entry.leader_epochs == [(0, 0), (1, 3)]

    play(body)
