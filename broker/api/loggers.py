"""The BROKER_LOGGER resource: levels of the process's loggers, changed until it ends."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from protocol.errors import ErrorCode, KafkaError

ROOT = "root"
# Kafka's names of levels; Python has no TRACE.
LEVELS: Mapping[str, int] = {
    "TRACE": 5,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "ERROR": logging.ERROR,
    "FATAL": logging.CRITICAL,
}


class Loggers(Protocol):
    def levels(self) -> Mapping[str, str]:
        """Level in force of every logger, by Kafka's names of levels."""

    def set_level(self, name: str, level: str | None) -> None:
        """level None: as its parent's."""


class PythonLoggers:
    """Those of the logging module."""

    def levels(self) -> Mapping[str, str]:
        known = logging.root.manager.loggerDict
        names = sorted(n for n, logger in known.items() if isinstance(logger, logging.Logger))
        return {
            ROOT: _name_of(logging.root.level),
            **{name: _name_of(logging.getLogger(name).getEffectiveLevel()) for name in names},
        }

    def set_level(self, name: str, level: str | None) -> None:
        logger = logging.root if name == ROOT else logging.getLogger(name)
        logger.setLevel(logging.NOTSET if level is None else LEVELS[level])


def _name_of(level: int) -> str:
    """The coarsest of Kafka's names that lets everything through that `level` does."""
    fitting = [name for name, number in LEVELS.items() if number <= level]
    return fitting[-1] if fitting else "TRACE"


def check_logger_changes(
    loggers: Loggers, entries: Sequence[tuple[str, int, str | None]]
) -> dict[str, str | None]:
    """New level by logger, None for its parent's. Raises KafkaError, and then nothing changes."""
    known = loggers.levels()
    levels: dict[str, str | None] = {}
    for name, operation, level in entries:
        if operation not in (0, 1):
            if operation not in (2, 3):
                raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
            word = "APPEND" if operation == 2 else "SUBTRACT"
            raise KafkaError(
                ErrorCode.INVALID_REQUEST,
                f"{word} operation is not allowed for the BROKER_LOGGER resource",
            )
        if name not in known:
            raise KafkaError(ErrorCode.INVALID_CONFIG, f"Logger {name} does not exist!")
        if operation == 1 and name == ROOT:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST,
                "Removing the log level of the root logger is not allowed",
            )
        if operation == 0 and level not in LEVELS:
            raise KafkaError(
                ErrorCode.INVALID_CONFIG,
                f"Cannot set the log level of {name} to {level} as it is not a supported log "
                f"level. Valid log levels are {', '.join(sorted(LEVELS))}",
            )
        levels[name] = level if operation == 0 else None
    return levels
