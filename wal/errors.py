"""What a log can tell its owner or its reader, beside the errors of the store."""

from __future__ import annotations

from .keys import LogName


class LogError(Exception):
    """Base of the errors below."""


class Fenced(LogError):
    """Another process has ended this log, or is ending it: its writer must stop serving.

    seq: where the foreign object was met, at or after the durable prefix.
    maker: who made it (opaque bytes; empty where that could not be read).
    """

    def __init__(self, log: LogName, seq: int, maker: bytes) -> None:
        super().__init__(f"{log}: fenced at {seq} by {maker.decode('utf-8', 'replace') or '?'}")
        self.log = log
        self.seq = seq
        self.maker = maker


class HoleInLog(LogError):
    """An object that must be there is not. Nothing after it may be read; an operator must look."""

    def __init__(self, log: LogName, seq: int, why: str) -> None:
        super().__init__(f"{log.key(seq)}: missing, though {why}; refusing to read past it")
        self.log = log
        self.seq = seq


class TrimmedAway(LogError):
    """The reader's place lies below the log's trim: it must start from a checkpoint or snapshot."""

    def __init__(self, log: LogName, seq: int, trim: int) -> None:
        super().__init__(f"{log}: {seq} was asked for, but the log begins at {trim}")
        self.log = log
        self.seq = seq
        self.trim = trim


class LogClosed(LogError):
    """This writer was closed or dropped; what was pending may or may not be in the log."""
