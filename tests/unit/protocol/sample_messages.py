"""Messages of any API and version with every field filled, drawn from a seed."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

_RANGES = {"int8": 7, "int16": 15, "int32": 31, "int64": 63}


def filled(message_class: Any, version: int, rng: random.Random) -> Any:
    """A request or response of kafka-python with a value in each field of this version."""
    message = message_class(version=version)
    _fill(message, message_class._struct, version, rng)
    return message


def _fill(item: Any, schema: Any, version: int, rng: random.Random) -> None:
    for field in schema._fields:
        if field.for_version_q(version):
            setattr(item, field.name, _value(field, version, rng))


def _value(field: Any, version: int, rng: random.Random) -> Any:
    if field.nullable_for_version_q(version) and rng.random() < 0.3:
        return None
    if field.is_array():
        return [_single(field.array_of, version, rng) for _ in range(rng.randrange(3))]
    return _single(field, version, rng)


def _single(field: Any, version: int, rng: random.Random) -> Any:
    if field.is_struct():
        item = field.data_class(version=version)
        _fill(item, field, version, rng)
        return item
    kind = field.type_str
    if kind in _RANGES:
        # Away from the defaults, so that tagged fields are written.
        return rng.randrange(2, 2 ** _RANGES[kind] - 1)
    if kind == "uint16":
        return rng.randrange(2, 2**16)
    if kind == "bool":
        return not field.default
    if kind == "float64":
        return rng.random() + 1.0
    if kind == "uuid":
        return UUID(int=rng.getrandbits(128) | 1)
    if kind == "bitfield":
        return {rng.randrange(3, 12)}
    if kind in ("bytes", "records"):
        return rng.randbytes(rng.choice((0, 1, 200)))
    return "".join(rng.choice("abcä€") for _ in range(rng.choice((1, 5, 130))))
