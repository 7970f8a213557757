"""An ordinary client (kafka-python), as the wrappers use it; nothing in it knows Headwater."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from kafka.errors import KafkaError

from . import exit_status


def guarded(command: str, act: Callable[[], int]) -> int:
    """Runs `act`; an error of the client becomes one line and FAILED."""
    # The client retries, and tells of each attempt; what matters comes as an exception.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    try:
        return act()
    except (KafkaError, OSError, ValueError, AssertionError) as error:
        words = str(error) or type(error).__name__
        print(f"headwater {command}: {words}", file=sys.stderr)
        return exit_status.FAILED


def pairs(option: str, texts: list[str]) -> list[tuple[str, str]]:
    """NAME=VALUE each. Raises ValueError."""
    found = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValueError(f"{option} {text}: write NAME=VALUE")
        found.append((name, value))
    return found
