"""What a stream can answer, beside the errors of the store and of the log."""

from __future__ import annotations


class StreamError(Exception):
    """Base of the errors below."""


class OffsetOutOfRange(StreamError):
    """The offset lies below the stream's start or above its high watermark."""

    def __init__(self, stream_id: int, offset: int, start_offset: int, end_offset: int) -> None:
        super().__init__(
            f"stream {stream_id}: offset {offset} is outside [{start_offset}, {end_offset}]"
        )
        self.stream_id = stream_id
        self.offset = offset


class StreamClosed(StreamError):
    """The stream takes no more appends here: it was closed, dropped, or its log has ended."""
