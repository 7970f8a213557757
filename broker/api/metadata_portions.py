"""An answer about very many topics, made and encoded in portions: ten thousand topics take seconds,
in which nobody else would be served, and the broker would be taken for a sick one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from broker.request_context import Raw
from objectstore.store import Buffer
from protocol import codec

# In one byte of a compact array's length; and some milliseconds.
MOST_TOPICS = 100
MOST_PARTITIONS = 500


def in_portions(names: Iterable[str], partitions: Callable[[str], int]) -> Iterator[list[str]]:
    """partitions: how many a topic has. A topic is never divided."""
    portion: list[str] = []
    count = 0
    for name in names:
        if portion and (len(portion) >= MOST_TOPICS or count >= MOST_PARTITIONS):
            yield portion
            portion, count = [], 0
        portion.append(name)
        count += partitions(name)
    if portion:
        yield portion


async def encoded_in_portions(responses: Iterable[object], count: int, version: int) -> Raw:
    """The body of one response with the topics of all. responses: alike in all but their topics;
    the last has none. count: of all topics.
    """
    behind = _size_behind_topics(version)
    bodies = []
    for response in responses:
        bodies.append(memoryview(codec.encode_response(response, version)))
        await asyncio.sleep(0)
    empty = bodies.pop()
    length_size = 4 if version < 9 else 1
    topics_at = len(empty) - behind
    length = count.to_bytes(4, "big") if version < 9 else _varint(count + 1)
    pieces: list[Buffer] = [empty[: topics_at - length_size], length]
    pieces += [body[topics_at : len(body) - behind] for body in bodies]
    if behind:
        pieces.append(empty[topics_at:])
    return Raw(pieces)


def _size_behind_topics(version: int) -> int:
    """Authorized operations of the cluster (8-10), an error code (13), tags (9 and on)."""
    operations = 4 if 8 <= version <= 10 else 0
    error = 2 if version >= 13 else 0
    return operations + error + (1 if version >= 9 else 0)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
