"""An ordinary client (kafka-python), as the wrappers use it; nothing in it knows Headwater."""

from __future__ import annotations

import ast
import logging
import re
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
        print(f"headwater {command}: {_words(error)}", file=sys.stderr)
        return exit_status.FAILED


def _words(error: BaseException) -> str:
    """One line. Of a refused request the client shows all that was sent and answered."""
    text = str(error) or type(error).__name__
    refused = re.match(r"(\[Error \d+\] )?(\w+)Error: Request '", text)
    if refused is None:
        return text
    told = re.search(r"error_message=('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")", text)
    name = re.sub(r"(?<!^)(?=[A-Z])", " ", refused[2]).lower()
    return f"{name}: {ast.literal_eval(told[1])}" if told else name


def pairs(option: str, texts: list[str]) -> list[tuple[str, str]]:
    """NAME=VALUE each. Raises ValueError."""
    found = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValueError(f"{option} {text}: write NAME=VALUE")
        found.append((name, value))
    return found
