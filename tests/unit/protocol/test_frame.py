from __future__ import annotations

import struct
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import MalformedFrame
from protocol.frame import FrameReader


def framed(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


def take_all(reader: FrameReader) -> list[memoryview]:
    frames: list[memoryview] = []
    while True:
        if reader.announced is not None:
            reader.admit()
        frame = reader.next_frame()
        if frame is None:
            return frames
        frames.append(frame)


def feed(reader: FrameReader, data: bytes, sizes: list[int]) -> list[memoryview]:
    """Receive `data` in pieces of the given sizes, as far as the reader's buffers take them."""
    frames: list[memoryview] = []
    position, turn = 0, 0
    while position < len(data):
        buffer = reader.get_buffer()
        assert len(buffer) > 0
        n = min(len(buffer), sizes[turn % len(sizes)], len(data) - position)
        turn += 1
        buffer[:n] = data[position : position + n]
        reader.received(n)
        position += n
        frames += take_all(reader)
    return frames


@given(
    st.lists(st.integers(0, 700), max_size=12),
    st.lists(st.integers(1, 300), min_size=1, max_size=6),
    st.sampled_from([4, 16, 64, 256]),
)
def test_frames_come_out_whole_and_in_order_however_they_were_cut(
    lengths: list[int], sizes: list[int], scratch_bytes: int
) -> None:
    bodies = [bytes((i + j) % 251 for j in range(length)) for i, length in enumerate(lengths)]
    reader = FrameReader(1000, scratch_bytes)
    frames = feed(reader, b"".join(map(framed, bodies)), sizes)
    assert [bytes(frame) for frame in frames] == bodies
    assert reader.pending_bytes == 0


@given(st.binary(max_size=400), st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_arbitrary_bytes_raise_nothing_but_malformed_frame(data: bytes, sizes: list[int]) -> None:
    reader = FrameReader(100, 16)
    try:
        frames = feed(reader, data, sizes)
    except MalformedFrame:
        return
    assert sum(4 + len(frame) for frame in frames) <= len(data)


@pytest.mark.parametrize("length", [-1, -(2**31), 101, 2**31 - 1])
def test_a_length_out_of_bounds_is_malformed(length: int) -> None:
    reader = FrameReader(100)
    reader.get_buffer()[:4] = struct.pack(">i", length)
    reader.received(4)
    with pytest.raises(MalformedFrame):
        _ = reader.announced
    with pytest.raises(MalformedFrame):
        reader.next_frame()


def test_a_bad_length_does_not_take_away_the_whole_frame_before_it() -> None:
    reader = FrameReader(100)
    data = framed(b"good") + struct.pack(">i", -5)
    reader.get_buffer()[: len(data)] = data
    reader.received(len(data))
    reader.admit()
    frame = reader.next_frame()
    assert frame is not None and bytes(frame) == b"good"
    with pytest.raises(MalformedFrame):
        reader.next_frame()


def test_a_frame_is_announced_before_it_gets_memory() -> None:
    reader = FrameReader(1 << 30, 64)
    reader.get_buffer()[:4] = struct.pack(">i", 1 << 29)
    reader.received(4)
    assert reader.announced == 1 << 29
    assert reader.next_frame() is None
    assert reader.pending_bytes == 4


def test_a_large_frame_is_received_into_its_own_memory() -> None:
    reader = FrameReader(1 << 20, 64)
    reader.get_buffer()[:6] = struct.pack(">i", 1000) + b"ab"
    reader.received(6)
    reader.admit()
    buffer = reader.get_buffer()
    assert len(buffer) == 998
    buffer[:] = bytes(998)
    reader.received(998)
    frame = reader.next_frame()
    assert frame is not None and frame.obj is buffer.obj
    assert bytes(frame[:3]) == b"ab\x00"


def test_small_frames_share_no_memory_with_each_other_or_with_scratch() -> None:
    reader = FrameReader(1000, 256)
    data = framed(b"first") + framed(b"other")
    scratch = reader.get_buffer()
    scratch[: len(data)] = data
    reader.received(len(data))
    one, two = take_all(reader)
    assert one.obj is not two.obj and one.obj is not scratch.obj
    scratch[:] = bytes(len(scratch))
    one[:] = b"FIRST"
    assert bytes(two) == b"other" and not one.readonly


@given(
    st.lists(st.lists(st.integers(0, 300), max_size=5), min_size=2, max_size=4),
    st.lists(st.integers(1, 90), min_size=1, max_size=6),
    st.integers(0, 2**32),
)
def test_readers_that_share_scratch_do_not_mix_what_they_receive(
    lengths: list[list[int]], sizes: list[int], seed: int
) -> None:
    rng = Random(seed)  # hypothesis' own may say "nothing came" for ever
    scratch = bytearray(64)
    bodies = [[bytes([n + 1]) * length for length in each] for n, each in enumerate(lengths)]
    left = [b"".join(map(framed, each)) for each in bodies]
    readers = [FrameReader(1000, scratch) for _ in bodies]
    frames: list[list[bytes]] = [[] for _ in bodies]
    turn = 0
    while any(left):
        which = rng.choice([n for n, data in enumerate(left) if data])
        reader = readers[which]
        buffer = reader.get_buffer()
        if rng.random() < 0.2:
            continue  # the system call brought nothing
        n = min(len(buffer), sizes[turn % len(sizes)], len(left[which]))
        turn += 1
        buffer[:n] = left[which][:n]
        left[which] = left[which][n:]
        reader.received(n)
        # Not all that was received is always taken at once.
        if rng.random() < 0.5 or reader.pending_bytes > 32:
            frames[which] += [bytes(frame) for frame in take_all(reader)]
        reader.put_aside()
    for which, reader in enumerate(readers):
        frames[which] += [bytes(frame) for frame in take_all(reader)]
    assert frames == bodies


def test_a_large_frame_is_writable_memory_of_exactly_its_size() -> None:
    size = (5 << 20) + 3
    reader = FrameReader(size)
    body = Random(1).randbytes(size)
    [frame] = feed(reader, framed(body), [1 << 20])
    assert (len(frame), frame.nbytes, frame.readonly) == (size, size, False)
    assert frame == body
    frame[:2] = b"ok"


def test_a_reader_that_is_given_up_keeps_nothing() -> None:
    for received in (framed(b"x" * 5000)[:3000], b"\x00\x00\x00\x05abc", b"\x00\x00"):
        reader = FrameReader(10_000, bytearray(4096))
        feed(reader, received, [100])
        reader.put_aside()
        reader.give_up()
        assert reader.pending_bytes == reader.filled_bytes == 0
        assert reader.next_frame() is None
        assert len(reader.get_buffer()) == 4096
