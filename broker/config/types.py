"""The types of settings: text to value, value to text, and what values are allowed.

Names, numbers on the wire and messages follow Apache Kafka 4.3.1 (DescribeConfigs, KIP-133 and
KIP-569), because clients show both to people.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

Value = int | float | bool | str | tuple[str, ...] | None


class ConfigType(enum.IntEnum):
    """Kafka's types by their numbers in DescribeConfigs responses."""

    UNKNOWN = 0
    BOOLEAN = 1
    STRING = 2
    INT = 3
    SHORT = 4
    LONG = 5
    DOUBLE = 6
    LIST = 7
    CLASS = 8
    PASSWORD = 9


class Source(enum.IntEnum):
    """Where a value comes from, by the numbers of DescribeConfigs responses."""

    TOPIC = 1
    DYNAMIC_BROKER = 2
    DYNAMIC_DEFAULT_BROKER = 3
    STATIC_BROKER = 4
    DEFAULT = 5
    BROKER_LOGGER = 6


class InvalidValue(ValueError):
    """A value that its key does not allow; the message is the one Kafka would give."""

    def __init__(self, key: str, value: object, why: str) -> None:
        super().__init__(f"Invalid value {value} for configuration {key}: {why}")
        self.key = key
        self.why = why


class Validator(Protocol):
    def check(self, key: str, value: Value) -> None:
        """Raises InvalidValue."""

    def allowed(self) -> str:
        """The allowed values, as a person would be told."""


@dataclass(frozen=True)
class Between:
    """A number from `low` to `high`, both inclusive; None leaves that side open."""

    low: float | None = None
    high: float | None = None

    def check(self, key: str, value: Value) -> None:
        assert isinstance(value, int | float), (key, value)
        if self.low is not None and value < self.low:
            raise InvalidValue(key, value, f"Value must be at least {self.low}")
        if self.high is not None and value > self.high:
            raise InvalidValue(key, value, f"Value must be no more than {self.high}")

    def allowed(self) -> str:
        if self.high is None:
            return f"at least {self.low}"
        return f"{self.low} to {self.high}"


@dataclass(frozen=True)
class BetweenOr:
    """A number from `low` to `high`, or the one `other` value."""

    low: int
    high: int
    other: int

    def check(self, key: str, value: Value) -> None:
        assert isinstance(value, int), (key, value)
        if value != self.other and not self.low <= value <= self.high:
            why = f"Value must be between {self.low} and {self.high} or equal to {self.other}"
            raise InvalidValue(key, value, why)

    def allowed(self) -> str:
        return f"{self.low} to {self.high}, or {self.other}"


@dataclass(frozen=True)
class OneOf:
    """One of these words; for a list, each element is one of them."""

    words: tuple[str, ...]

    def check(self, key: str, value: Value) -> None:
        for word in value if isinstance(value, tuple) else (value,):
            if word not in self.words:
                why = f"String must be one of: {', '.join(self.words)}"
                raise InvalidValue(key, word, why)

    def allowed(self) -> str:
        return ", ".join(self.words)


@dataclass(frozen=True)
class NonEmpty:
    """A text or list that holds something."""

    def check(self, key: str, value: Value) -> None:
        if not value:
            raise InvalidValue(key, "", "must not be empty")

    def allowed(self) -> str:
        return "not empty"


_REPLICA = re.compile(r"\d+:\d+")


@dataclass(frozen=True)
class ThrottledReplicas:
    """`*`, or pairs of partition and broker."""

    def check(self, key: str, value: Value) -> None:
        assert isinstance(value, tuple), (key, value)
        if value == ("*",) or all(_REPLICA.fullmatch(pair) for pair in value):
            return
        why = (
            f"{key} must be the literal '*' or a list of replicas in the following format: "
            "[partitionId]:[brokerId],[partitionId]:[brokerId],..."
        )
        raise InvalidValue(key, f"[{', '.join(value)}]", why)

    def allowed(self) -> str:
        return "*, or partition:broker,partition:broker,..."


_BITS = {ConfigType.SHORT: 16, ConfigType.INT: 32, ConfigType.LONG: 64}
_INTEGER = re.compile(r"[+-]?[0-9]+")
_DOUBLE = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|NaN|[+-]?Infinity")


def parse(key: str, type_: ConfigType, text: str, validator: Validator | None = None) -> Value:
    """The value that `text` stands for. Raises InvalidValue."""
    value = _parse(key, type_, text)
    if validator is not None:
        validator.check(key, value)
    return value


def _parse(key: str, type_: ConfigType, text: str) -> Value:
    trimmed = text.strip()
    if type_ in _BITS:
        limit = 1 << (_BITS[type_] - 1)
        # The length guard keeps a megabyte of digits from becoming a slow big integer.
        if _INTEGER.fullmatch(trimmed) and len(trimmed) < 64 and -limit <= int(trimmed) < limit:
            return int(trimmed)
        raise InvalidValue(key, text, f"Not a number of type {type_.name}")
    if type_ is ConfigType.DOUBLE:
        if _DOUBLE.fullmatch(trimmed):
            return float(trimmed)
        raise InvalidValue(key, text, "Not a number of type DOUBLE")
    if type_ is ConfigType.BOOLEAN:
        if trimmed.lower() not in ("true", "false"):
            why = "Expected value to be either true or false"
            raise InvalidValue(key, text, why)
        return trimmed.lower() == "true"
    if type_ is ConfigType.LIST:
        return unique(word.strip() for word in trimmed.split(",")) if trimmed else ()
    return trimmed


def unique(words: Iterable[str]) -> tuple[str, ...]:
    """The words in their order, each once."""
    return tuple(dict.fromkeys(words))


def render(value: Value) -> str | None:
    """The text by which DescribeConfigs shows a value; None for one that is not set."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
    return str(value)
