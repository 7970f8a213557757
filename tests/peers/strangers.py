"""Many connections that no client would make, from many addresses, until standard input ends.

    python -m tests.peers.strangers PORT COUNT SEED

Each has one kind of bad manners (below) and is opened again when the broker closes it. Prints one
line of JSON when all were opened, and one at the end: how many of each kind were opened, and how
many of them the broker closed.
"""

from __future__ import annotations

import asyncio
import json
import random
import struct
import sys
from collections import Counter
from collections.abc import Awaitable, Callable

# From one address no more than this many: the system has as many ports for each.
PER_ADDRESS = 200
# Opened a second by everybody together.
OPENED_PER_S = 2000.0
# Between a close and the next try of the same stranger.
AGAIN_S = 2.0

_METADATA_ALL = struct.pack(">hhih", 3, 1, 7, -1) + struct.pack(">i", -1)


def framed(frame: bytes) -> bytes:
    return struct.pack(">i", len(frame)) + frame


Conversation = Callable[
    [asyncio.StreamReader, asyncio.StreamWriter, random.Random], Awaitable[None]
]


async def says_nothing(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random
) -> None:
    await reader.read()


async def begins_a_length(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random
) -> None:
    writer.write(b"\x00\x00")
    await reader.read()


async def trickles(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random
) -> None:
    """A produce request of a megabyte, a byte at a time."""
    writer.write(struct.pack(">i", 1 << 20) + struct.pack(">hhih", 0, 9, 1, -1))
    while not reader.at_eof() and not writer.transport.is_closing():
        writer.write(b"\x00")
        await asyncio.sleep(1.0)


async def announces_an_absurd_length(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random
) -> None:
    length = rng.choice((-1, -(2**31), 0x7FFFFFFF, 104_857_601))
    writer.write(struct.pack(">i", length) + bytes(64))
    await reader.read()


async def announces_the_largest_frame(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random
) -> None:
    writer.write(struct.pack(">i", 100 << 20) + bytes(1000))
    await reader.read()


async def sends_garbage(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random
) -> None:
    writer.write(framed(rng.randbytes(rng.randrange(1, 2000))))
    writer.write(rng.randbytes(500))
    await reader.read()


async def claims_a_huge_array(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random
) -> None:
    for key, version in ((3, 1), (0, 9), (1, 11), (8, 2)):
        header = struct.pack(">hhih", key, version, 7, -1)
        writer.write(framed(header + struct.pack(">iii", 0x7FFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF)))
    await reader.read()


async def leaves_in_the_middle(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random
) -> None:
    whole = framed(_METADATA_ALL)
    writer.write(whole[: rng.randrange(5, len(whole))])
    await asyncio.sleep(rng.uniform(0.0, 1.0))
    if rng.randrange(2):
        writer.transport.abort()
    else:
        writer.write_eof()


async def asks_and_does_not_read(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random
) -> None:
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(framed(_METADATA_ALL) * 200)
    await asyncio.sleep(3600)


KINDS: tuple[Conversation, ...] = (
    says_nothing,
    begins_a_length,
    trickles,
    announces_an_absurd_length,
    announces_the_largest_frame,
    sends_garbage,
    claims_a_huge_array,
    leaves_in_the_middle,
    asks_and_does_not_read,
)


class Crowd:
    def __init__(self, port: int, count: int, seed: int) -> None:
        self.port = port
        self.count = count
        self.rng = random.Random(seed)
        self.opened: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.refused = 0
        self.first_time = 0
        self.all_opened = asyncio.Event()
        self._due_s = 0.0

    async def stranger(self, number: int) -> None:
        address = f"127.{1 + number // PER_ADDRESS // 250}.{number // PER_ADDRESS % 250}.9"
        # Most keep their connection; the others would be all that is seen otherwise.
        patient = number % 3 != 0
        kind = KINDS[number // 3 % 3] if patient else KINDS[3 + number // 3 % (len(KINDS) - 3)]
        name = kind.__name__
        rng = random.Random(self.rng.randrange(2**32))
        begun = False
        while True:
            await self._turn()
            try:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", self.port, local_addr=(address, 0)
                )
            except OSError:
                self.refused += 1
                await asyncio.sleep(AGAIN_S)
                continue
            self.opened[name] += 1
            if not begun:
                begun = True
                self.first_time += 1
                if self.first_time == self.count:
                    self.all_opened.set()
            try:
                await kind(reader, writer, rng)
                self.closed[name] += 1
            except OSError:
                self.closed[name] += 1
            finally:
                writer.transport.abort()
            await asyncio.sleep(AGAIN_S)

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        self._due_s = max(self._due_s + 1 / OPENED_PER_S, loop.time())
        await asyncio.sleep(self._due_s - loop.time())

    def told(self) -> str:
        return json.dumps({"opened": self.opened, "closed": self.closed, "refused": self.refused})


async def main(port: int, count: int, seed: int) -> None:
    crowd = Crowd(port, count, seed)
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    loop.add_reader(sys.stdin.fileno(), lambda: ended.done() or ended.set_result(None))
    tasks = [loop.create_task(crowd.stranger(number)) for number in range(count)]
    opened = loop.create_task(crowd.all_opened.wait())
    await asyncio.wait((opened, ended), return_when=asyncio.FIRST_COMPLETED)
    print(crowd.told(), flush=True)
    await ended
    for task in tasks:
        task.cancel()
    opened.cancel()
    await asyncio.wait(tasks)
    print(crowd.told(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:4])))
