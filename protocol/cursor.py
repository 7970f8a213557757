"""Reading and writing one small message field by field, for records that only brokers write.

The hot codecs spell their reads out; here clarity counts. `flexible` chooses between Kafka's two
encodings of strings, bytes and arrays for the whole message.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from protocol import primitives
from protocol.errors import MalformedFrame

_FORMATS = {1: ">b", 2: ">h", 4: ">i", 8: ">q"}


class Reader:
    """Reads from the front; every method raises MalformedFrame when the data ends."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = memoryview(data)
        self._position = 0
        self.flexible = False

    def integer(self, size: int) -> int:
        try:
            (value,) = struct.unpack_from(_FORMATS[size], self._data, self._position)
        except struct.error:
            raise MalformedFrame(f"an int of {size} bytes is cut short") from None
        self._position += size
        return int(value)

    def string(self) -> str:
        value, self._position = primitives.read_string(self._data, self._position, self.flexible)
        return value

    def nullable_string(self) -> str | None:
        value, self._position = primitives.read_nullable_string(
            self._data, self._position, self.flexible
        )
        return value

    def blob(self) -> bytes:
        value = self.nullable_blob()
        if value is None:
            raise MalformedFrame("bytes that may not be null are null")
        return value

    def nullable_blob(self) -> bytes | None:
        view, self._position = primitives.read_nullable_bytes(
            self._data, self._position, self.flexible
        )
        return None if view is None else view.tobytes()

    def count(self) -> int:
        value, self._position = primitives.read_count(self._data, self._position, self.flexible)
        return value

    def nullable_count(self) -> int | None:
        value, self._position = primitives.read_nullable_count(
            self._data, self._position, self.flexible
        )
        return value

    def tags(self) -> Iterator[tuple[int, bytes]]:
        """Tagged fields, read while iterating; none where the message is not flexible."""
        if not self.flexible:
            return
        count, self._position = primitives.read_uvarint(self._data, self._position)
        for _ in range(count):
            tag, self._position = primitives.read_uvarint(self._data, self._position)
            length, self._position = primitives.read_uvarint(self._data, self._position)
            view, self._position = primitives.take(self._data, self._position, length)
            yield tag, view.tobytes()

    def skip_tags(self) -> None:
        for _ in self.tags():
            pass


class Writer:
    """Appends to `out`."""

    def __init__(self, flexible: bool = False) -> None:
        self.out = bytearray()
        self.flexible = flexible

    def integer(self, value: int, size: int) -> None:
        self.out += struct.pack(_FORMATS[size], value)

    def string(self, value: str | None) -> None:
        primitives.write_nullable_string(self.out, value, self.flexible)

    def blob(self, value: bytes | None) -> None:
        primitives.write_count(self.out, -1 if value is None else len(value), self.flexible)
        self.out += value or b""

    def count(self, value: int) -> None:
        """-1 is null."""
        primitives.write_count(self.out, value, self.flexible)

    def tags(self, *tags: tuple[int, bytes]) -> None:
        """Tagged fields in ascending order; nothing where the message is not flexible."""
        if not self.flexible:
            return
        primitives.write_uvarint(self.out, len(tags))
        for tag, value in tags:
            primitives.write_tag(self.out, tag, value)
