"""A strict decoder of request bodies, compiled from kafka-python's schemas.

kafka-python's own decoder is made for a client that trusts its broker: it takes null for any
string or array, lets a string end beyond the message, reads varints of any length, and copies
the rest of the message at each tagged section. Fed by strangers that costs quadratic time and
leaves None where a handler expects a list. So the schemas and the message classes are
kafka-python's, and the reading is ours:

- what may not be null is not null;
- no string, array or tag reaches beyond the body; an array is refused at once when it has more
  elements than bytes are left, so work and memory are linear in what was really sent;
- every field of the schema is set, also one that this version lacks: to a fresh default, never
  to the mutable default that kafka-python shares among all messages.

One flat function for a struct and version is generated on first use. Neighbouring fixed-size
fields are read by one unpack.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any
from uuid import UUID

from protocol.errors import MalformedFrame
from protocol.primitives import (
    read_count,
    read_nullable_bytes,
    read_nullable_count,
    read_nullable_string,
    read_string,
    read_topic_id,
    read_uvarint,
    take,
)

Decoder = Callable[[memoryview, int], tuple[Any, int]]


def read_bytes(data: memoryview, position: int, compact: bool) -> tuple[bytes, int]:
    view, position = read_nullable_bytes(data, position, compact)
    if view is None:
        raise MalformedFrame("bytes that may not be null are null")
    return bytes(view), position


def read_nullable_copy(data: memoryview, position: int, compact: bool) -> tuple[bytes | None, int]:
    view, position = read_nullable_bytes(data, position, compact)
    return (None if view is None else bytes(view)), position


_READERS: dict[str, Any] = {
    "MalformedFrame": MalformedFrame,
    "UUID": UUID,
    "read_bytes": read_bytes,
    "read_count": read_count,
    "read_nullable_bytes": read_nullable_copy,
    "read_nullable_count": read_nullable_count,
    "read_nullable_string": read_nullable_string,
    "read_records": read_nullable_bytes,
    "read_string": read_string,
    "read_topic_id": read_topic_id,
    "read_uvarint": read_uvarint,
    "take": take,
}


class _Source:
    """The lines of one generated function, and the objects that they name."""

    def __init__(self, flexible: bool, version: int) -> None:
        self.flexible = flexible
        self.version = version
        self.lines: list[str] = []
        self.names: dict[str, Any] = dict(_READERS)

    def emit(self, depth: int, line: str) -> None:
        self.lines.append("    " * depth + line)

    def bind(self, value: Any) -> str:
        name = f"_x{len(self.names)}"
        self.names[name] = value
        return name


def compile_decoder(schema: Any, message_class: Any, version: int, flexible: bool) -> Decoder:
    """A function (data, position) -> (message, next position).

    schema: kafka-python's StructField; message_class: what to build, None for the schema's own.
    The function raises MalformedFrame or, at the end of the data, struct.error or IndexError.
    """
    source = _Source(flexible, version)
    source.emit(0, "def decode(data, pos):")
    _emit_struct(source, schema, message_class or schema.data_class, 1)
    source.emit(1, "return obj, pos")
    code = compile("\n".join(source.lines), f"<decoder of {schema.name} v{version}>", "exec")
    exec(code, source.names)
    decoder: Decoder = source.names["decode"]
    return decoder


def _emit_struct(source: _Source, schema: Any, data_class: Any, depth: int) -> None:
    name = source.bind(data_class)
    version = source.version
    source.emit(depth, f"obj = object.__new__({name})")
    source.emit(depth, f"obj._version = {version}")
    source.emit(depth, "obj.tags = obj.unknown_tags = None")
    if hasattr(data_class, "API_KEY"):
        source.emit(depth, "obj._header = obj._min_version = obj._max_version = None")
    present = schema.untagged_fields(version)
    for field in schema._fields:
        if field not in present:
            source.emit(depth, f"obj.{field.name} = {_default(source, field)}")
    run: list[Any] = []
    for field in present:
        if field.is_batchable():
            run.append(field)
            continue
        _emit_fixed(source, run, depth)
        run = []
        _emit_variable(source, field, depth, source.flexible)
    _emit_fixed(source, run, depth)
    if source.flexible:
        _emit_tags(source, schema.tagged_fields(version)._fields, depth)


def _default(source: _Source, field: Any) -> str:
    default = field.default
    # A list is written as a display, so that every message gets one of its own.
    return "[]" if default == [] else source.bind(default)


def _emit_fixed(source: _Source, run: list[Any], depth: int) -> None:
    if not run:
        return
    layout = struct.Struct(">" + "".join(field._type.fmt for field in run))
    targets = ", ".join(f"obj.{field.name}" for field in run)
    source.emit(depth, f"{targets}, = {source.bind(layout.unpack_from)}(data, pos)")
    source.emit(depth, f"pos += {layout.size}")


def _emit_variable(source: _Source, field: Any, depth: int, compact: bool) -> None:
    target = f"obj.{field.name}"
    nullable = field.nullable_for_version_q(source.version)
    if field.is_array():
        source.emit(depth, _count_line(nullable, compact))
        source.emit(depth, "if count is None:")
        source.emit(depth + 1, f"{target} = None")
        source.emit(depth, "else:")
        source.emit(depth + 1, "items = []")
        source.emit(depth + 1, "for _ in range(count):")
        source.emit(depth + 2, _element_line(source, field.array_of, compact))
        source.emit(depth + 2, "items.append(item)")
        source.emit(depth + 1, f"{target} = items")
    elif field.is_struct():
        inner = source.bind(compile_decoder(field, None, source.version, source.flexible))
        if nullable:
            # KIP-893: one signed byte in front, negative for null.
            source.emit(depth, "pos += 1")
            source.emit(depth, "if data[pos - 1] > 127:")
            source.emit(depth + 1, f"{target} = None")
            source.emit(depth, "else:")
            source.emit(depth + 1, f"{target}, pos = {inner}(data, pos)")
        else:
            source.emit(depth, f"{target}, pos = {inner}(data, pos)")
    else:
        reader = _simple_reader(field, nullable, compact)
        source.emit(depth, f"{target}, pos = {reader}")


def _count_line(nullable: bool, compact: bool) -> str:
    reader = "read_nullable_count" if nullable else "read_count"
    return f"count, pos = {reader}(data, pos, {compact})"


def _element_line(source: _Source, element: Any, compact: bool) -> str:
    if element.is_struct():
        inner = source.bind(compile_decoder(element, None, source.version, source.flexible))
        return f"item, pos = {inner}(data, pos)"
    if element.is_batchable():
        layout = struct.Struct(">" + element._type.fmt)
        unpack = source.bind(layout.unpack_from)
        return f"item = {unpack}(data, pos)[0]; pos += {layout.size}"
    return f"item, pos = {_simple_reader(element, False, compact)}"


def _simple_reader(field: Any, nullable: bool, compact: bool) -> str:
    if field.type_str == "uuid":
        return "read_topic_id(data, pos)"
    if field.type_str == "records":
        return f"read_records(data, pos, {compact})"
    kind = {"string": "string", "bytes": "bytes"}[field.type_str]
    return f"read_{'nullable_' if nullable else ''}{kind}(data, pos, {compact})"


def _emit_tags(source: _Source, known: list[Any], depth: int) -> None:
    source.emit(depth, "if data[pos] == 0:")
    source.emit(depth + 1, "pos += 1")
    source.emit(depth, "else:")
    depth += 1
    source.emit(depth, "tags, pos = read_uvarint(data, pos)")
    source.emit(depth, "for _ in range(tags):")
    depth += 1
    source.emit(depth, "tag, pos = read_uvarint(data, pos)")
    source.emit(depth, "size, pos = read_uvarint(data, pos)")
    branch = "if"
    for field in known:
        source.emit(depth, f"{branch} tag == {field.tag}:")
        source.emit(depth + 1, "start = pos")
        if field.is_batchable():
            _emit_fixed(source, [field], depth + 1)
        else:
            _emit_variable(source, field, depth + 1, True)
        source.emit(depth + 1, "if pos - start != size:")
        source.emit(depth + 2, "raise MalformedFrame(f'tag {tag} has {size} bytes')")
        branch = "elif"
    if known:
        source.emit(depth, "else:")
        depth += 1
    source.emit(depth, "_value, pos = take(data, pos, size)")
