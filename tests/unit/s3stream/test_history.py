"""Long histories: their older ranges lie in index objects, and nobody who reads can tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objectstore.errors import Corrupt, NotFound
from protocol.record_batch import parse_header
from s3stream.config import S3StreamConfig
from s3stream.control import Archived, Report, decode_control
from s3stream.entries import StreamEntry, Tally
from s3stream.history import decode_history, digest, encode_history, read_history, summary
from s3stream.index_pages import decode_entries, encode_entries
from s3stream.refs import ObjectRange, ObjectRef
from s3stream.report import Reporter, held_keys
from s3stream.stream import Stream
from tests.simulation.loop import SimulatedLoop
from tests.simulation.store import SimulatedStore
from wal.format import Kind, decode_header

from .log_rig import SMALL, Life, living, make_entry, offsets, open_new, read_all, run, take_over

SHORT = replace(SMALL, history_ranges=4, history_keep=2, checkpoint_objects=10**6)


def ranges(count: int, *, first: int = 0) -> list[ObjectRange]:
    found = []
    for n in range(first, first + count):
        ref = ObjectRef(f"data/00/1-{n}", bytes([n % 256]) * 16, 1000 + n, 900, 50)
        one = ObjectRange(
            ref, 10 * n, 10 * n + 10, 500 + n, 10, 2, 0, 3, 5000 - n, 10 * n + 4, bytes([n] * 16)
        )
        found.append(one)
    return found


@asynccontextmanager
async def long_history(
    loop: SimulatedLoop, uploads: int = 20, config: S3StreamConfig = SHORT
) -> AsyncIterator[tuple[Life, SimulatedStore, Stream]]:
    """One stream, uploaded after every batch of three records; nothing is in memory."""
    async with living(loop, config) as (life, store):
        stream = (await open_new(life, [1]))[1]
        for n in range(uploads):
            await stream.append(make_entry(stream, records=3, timestamp=1000 + 10 * n))
            await life.storage.uploader.upload()
        life.storage.cache.shrink(0)
        yield life, store, stream


def check(entry: StreamEntry) -> None:
    """Nothing is missing, nothing is there twice."""
    both = [*entry.history, *entry.ranges]
    assert both[0].base_offset <= entry.start_offset
    assert [one.end_offset for one in both] == [
        *(one.base_offset for one in both[1:]),
        entry.next_offset,
    ]
    live = Tally()
    for one in both:
        live.add(one)
    assert live == entry.live
    assert decode_entries(encode_entries([entry]), "k")[0] == [entry]


@given(st.integers(1, 40), st.integers(0, 5))
def test_what_is_in_an_index_object_comes_back(count: int, first: int) -> None:
    some = ranges(count, first=first)
    assert decode_history(encode_history(7, some), "k") == (7, some)


def test_a_damaged_history_is_found() -> None:
    body = encode_history(7, ranges(5))
    for position in range(0, len(body), 7):
        for changed in (body[:position], body[:position] + b"\xc1" + body[position + 1 :]):
            try:
                decode_history(changed, "k")
            except Corrupt as error:
                assert "k:" in str(error)
    with pytest.raises(Corrupt, match="gap"):
        decode_history(encode_history(7, [*ranges(1), *ranges(1, first=2)]), "k")
    with pytest.raises(Corrupt, match="none"):
        decode_history(encode_history(7, []), "k")


def test_a_summary_is_what_the_ranges_are_together() -> None:
    some = ranges(4)
    ref = ObjectRef("data/11/1-9", bytes(16), 77, 0, 0)
    whole = summary(ref, some)
    assert (whole.object, whole.base_offset, whole.end_offset) == (ref, 0, 40)
    assert (whole.max_timestamp, whole.max_timestamp_offset) == (5000, 4)
    one, other = Tally(), Tally()
    one.add(whole)
    for each in some:
        other.add(each)
    assert one == other
    assert digest(some) != digest(some[1:]) != digest([])


def test_a_long_history_is_read_from_its_first_batch_on_and_from_anywhere() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with long_history(loop) as (_, _, stream):
            entry = stream.entry
            assert len(entry.history) == 4 and len(entry.ranges) <= 6
            check(entry)
            assert offsets([memoryview(await read_all(stream))]) == [
                (3 * n, 3 * n + 2) for n in range(20)
            ]
            for at in range(60):
                batches = await stream.fetch(at, 60, 1)
                assert offsets(batches)[0] == (at - at % 3, at - at % 3 + 2)
            # Across the end of an index object, and from the last one into what is in line.
            assert offsets(await stream.fetch(9, 60, 1 << 20))[-1] == (57, 59)

    run(body)


def test_look_ups_by_time_go_into_index_objects() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with long_history(loop) as (_, store, stream):
            before = store.requests["get"]
            for n in (19, 18, 11, 5, 0):
                found = await stream.find_batch_by_timestamp(1000 + 10 * n)
                assert found is not None and parse_header(found).base_offset == 3 * n
            assert await stream.find_batch_by_timestamp(5000) is None
            assert store.requests["get"] > before
            newest = await stream.max_timestamp()
            assert newest is not None and newest[:2] == (1190, 59)

    run(body)


def test_the_newest_timestamp_is_found_when_the_summary_names_one_that_was_trimmed() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop, SHORT) as (life, _):
            stream = (await open_new(life, [1]))[1]
            for n in range(12):
                await stream.append(make_entry(stream, timestamp=5000 if n == 0 else 1000 - n))
                await life.storage.uploader.upload()
            life.storage.cache.shrink(0)
            assert len(stream.entry.history) == 2
            await stream.trim(1)
            newest = await stream.max_timestamp()
            assert newest is not None and newest[:2] == (999, 1)
            assert await stream.find_batch_by_timestamp(2000) is None
            found = await stream.find_batch_by_timestamp(990)
            assert found is not None and parse_header(found).base_offset == 1

    run(body)


def test_trimming_goes_into_an_index_object_and_a_shorter_one_takes_its_place() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with long_history(loop) as (life, store, stream):
            entry = stream.entry
            first = entry.history[0]
            gone = (await stream.history_of(first))[0].object.key
            await stream.trim(4)
            assert entry.history[0] == first
            check(entry)
            await life.storage.checkpointer.write()
            assert life.storage.archiver.shortened == 1
            assert (entry.history[0].base_offset, entry.history[0].end_offset) == (3, 12)
            assert entry.trimmed.record_count == 3
            check(entry)
            assert offsets(await stream.fetch(4, 60, 1 << 20))[0] == (3, 5)
            held = life.storage.references()
            assert first.object.key not in held and entry.history[0].object.key in held
            await stream.trim(12)
            assert entry.history[0].base_offset == 12 and entry.trimmed.record_count == 12
            check(entry)
            await stream.trim(60)
            assert not entry.history and not entry.ranges
            assert entry.live == Tally() and entry.trimmed == entry.total
            assert gone in [info.key async for info in store.inner.list("data/")]

    run(body)


def test_a_long_history_is_taken_over_and_goes_on() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with long_history(loop) as (life, store, stream):
            await stream.trim(5)
            await stream.append(make_entry(stream, records=3))
            whole = await read_all(stream)
            await life.kill()
            second, opened = await take_over(store, 1, 2, loop, SHORT)
            taken = opened[1]
            assert taken.entry.history == stream.entry.history
            assert await read_all(taken) == whole
            check(taken.entry)
            for _ in range(6):
                await taken.append(make_entry(taken, records=3))
                await second.storage.uploader.upload()
            assert len(taken.entry.history) > len(stream.entry.history)
            check(taken.entry)
            whole = await read_all(taken)
            await second.kill()
            third, opened = await take_over(store, 2, 3, loop, SHORT)
            assert await read_all(opened[1]) == whole
            await third.kill()

    run(body)


def test_a_report_names_what_index_objects_name_and_those_that_were_let_go_once_more() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with long_history(loop) as (life, store, stream):
            reports: list[Report] = []

            async def append(record: bytes) -> int:
                report = decode_control(record, "k")
                assert isinstance(report, Report)
                reports.append(report)
                return await life.storage.append_control(record)

            storage = life.storage
            reporter = Reporter(
                storage.registry,
                storage.reader,
                storage.object_writer,
                append=append,
                next_seq=lambda: storage.wal.next_seq,
            )
            every: list[ObjectRange] = []
            for index in stream.entry.history:
                every += [index, *await stream.history_of(index)]
            keys = {one.object.key for one in every}

            async def answered(number: int) -> set[str]:
                await reporter.answer(number)
                return {*await held_keys(store, reports[-1])}

            assert keys <= await answered(1)
            await stream.trim(60)
            assert keys <= await answered(2)
            assert not keys & await answered(3)
            assert storage.registry.references.histories(sorted(keys)) == []

    run(body)


def test_ranges_that_were_merged_or_trimmed_meanwhile_are_not_archived() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop, SHORT) as (life, _):
            stream = (await open_new(life, [1]))[1]
            for _ in range(5):
                await stream.append(make_entry(stream))
                await life.storage.uploader.upload()
            writer, written = life.storage.object_writer, asyncio.Event()
            write_blob = writer.write_blob

            async def trimmed_meanwhile(kind: Kind, body: bytes):  # type: ignore[no-untyped-def]
                blob = await write_blob(kind, body)
                if kind is Kind.HISTORY and not written.is_set():
                    written.set()
                    await stream.trim(1)
                return blob

            writer.write_blob = trimmed_meanwhile  # type: ignore[method-assign]
            await stream.append(make_entry(stream))
            await life.storage.uploader.upload()
            assert written.is_set()
            assert not stream.entry.history and stream.entry.start_offset == 1
            check(stream.entry)
            for _ in range(2):
                await stream.append(make_entry(stream))
                await life.storage.uploader.upload()
            assert len(stream.entry.history) == 1
            check(stream.entry)

    run(body)


def test_ranges_that_merging_may_still_join_stay_until_they_are_very_many() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop, SHORT) as (life, _):
            streams = await open_new(life, [1, 2])
            counts = []
            for _ in range(30):
                for one in streams.values():
                    await one.append(make_entry(one))
                await life.storage.uploader.upload()
                counts.append(len(streams[1].entry.ranges))
            # 4 + 2 would do for objects of its own.
            assert max(counts) == 4 * (4 + 2)
            assert streams[1].entry.history
            check(streams[1].entry)

    run(body)


def test_adopted_log_objects_wait_for_merging_too() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop, replace(SHORT, adopt_share_bytes=1000)) as (life, _):
            stream = (await open_new(life, [1]))[1]
            counts = []
            for _ in range(30):
                await stream.append(make_entry(stream, value=bytes(2000)))
                await life.storage.uploader.upload()
                counts.append(len(stream.entry.ranges))
            assert life.storage.uploader.adopted_objects == 30
            assert max(counts) == 4 * (4 + 2) and stream.entry.history
            life.storage.cache.shrink(0)
            assert len(await read_all(stream)) > 30 * 2000
            check(stream.entry)

    run(body)


def test_an_index_object_that_is_another_streams_or_not_as_told_is_refused() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with long_history(loop) as (_, store, stream):
            index = stream.entry.history[0]
            assert len(await read_history(store, index, 1)) == 4
            with pytest.raises(Corrupt, match="not the history"):
                await read_history(store, index, 2)
            with pytest.raises(NotFound):
                await read_history(
                    store, summary(ObjectRef("data/x", bytes(16), 9, 0, 0), ranges(1)), 1
                )
            header = decode_header(await store.get(index.object.key), index.object.key)
            assert header.kind is Kind.HISTORY

    run(body)


def test_a_checkpoint_does_not_grow_with_the_history() -> None:
    async def sizes(loop: SimulatedLoop, config: S3StreamConfig) -> Sequence[int]:
        async with long_history(loop, 60, config) as (_, _, stream):
            return len(encode_entries([stream.entry])), len(stream.entry.ranges)

    in_line = run(lambda loop: sizes(loop, replace(SHORT, history_ranges=1000)))
    archived = run(lambda loop: sizes(loop, SHORT))
    assert in_line[1] == 60 and archived[1] <= 6
    assert archived[0] < in_line[0] / 2


def test_the_record_says_what_was_replaced() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop, SHORT) as (life, _):
            stream = (await open_new(life, [1]))[1]
            told: list[Archived] = []
            append = life.storage.archiver._append

            async def watched(record: bytes) -> int:
                control = decode_control(record, "k")
                assert isinstance(control, Archived)
                told.append(control)
                return await append(record)

            life.storage.archiver._append = watched
            for _ in range(6):
                await stream.append(make_entry(stream))
                before = list(stream.entry.ranges)
                await life.storage.uploader.upload()
            (control,) = told
            (one,) = control.archived
            assert (one.stream_id, one.count) == (1, 4)
            assert one.digest == digest(before[:4])
            assert stream.entry.history == [one.index]

    run(body)
