"""Kafka's message schemas read as data: plain dictionaries to bytes and back.

On purpose not the codec of the broker: a fault that encoder and decoder share would never show.
Field names are those of Kafka's schema files in camel case (`topicId`); fields that a dictionary
leaves out take the schema's default. Null, empty and absent stay apart.
"""

from __future__ import annotations

import functools
import struct
import warnings
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from kafka.protocol.schemas import load_json

_INTEGERS = {
    "bool": "?", "int8": "b", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I",
    "int64": "q", "float64": "d",
}  # fmt: skip
_EVER = 0x7FFF
Values = dict[str, Any]


@dataclass(frozen=True)
class Versions:
    """Both ends inclusive; none at all when the first is above the last."""

    first: int
    last: int

    def __contains__(self, version: int) -> bool:
        return self.first <= version <= self.last


@dataclass(frozen=True)
class Field:
    """One field; `kind` without the brackets of an array."""

    name: str
    kind: str
    is_array: bool
    versions: Versions
    nullable: Versions
    tagged: Versions
    tag: int
    default: Any
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Message:
    """A request or response in all its versions."""

    name: str
    versions: Versions
    flexible: Versions
    fields: tuple[Field, ...]


@dataclass
class _Reader:
    data: memoryview
    at: int = 0
    unknown_tags: list[int] = field(default_factory=list)

    def take(self, size: int) -> memoryview:
        if size < 0 or self.at + size > len(self.data):
            raise ValueError(f"{size} bytes at {self.at} of {len(self.data)}")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, kind: str) -> Any:
        code = ">" + _INTEGERS[kind]
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@functools.cache
def message(name: str) -> Message:
    """name: of the schema file, for instance `FetchRequest`."""
    with warnings.catch_warnings():
        # It reads its files by a function that is to go.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            schema = load_json(name)
        except FileNotFoundError:
            schema = load_json(name, package="protocol.schemas")
    return Message(
        name,
        _versions(schema["validVersions"]),
        _versions(schema["flexibleVersions"]),
        tuple(_field(each) for each in schema["fields"]),
    )


def encode(schema: Message, version: int, values: Values) -> bytes:
    """Raises KeyError for a value that no field of any version has."""
    out = bytearray()
    _write_struct(out, schema.fields, version, version in schema.flexible, values)
    return bytes(out)


def decode(schema: Message, version: int, body: bytes) -> Values:
    """Raises ValueError: bytes missing, left over, or tags that the schema does not know."""
    reader = _Reader(memoryview(body))
    values = _read_struct(reader, schema.fields, version, version in schema.flexible)
    if reader.at != len(body) or reader.unknown_tags:
        left = len(body) - reader.at
        raise ValueError(f"{schema.name} v{version}: {left} left over, {reader.unknown_tags}")
    return values


def _versions(text: str) -> Versions:
    if text == "none":
        return Versions(1, 0)
    first, dash, last = text.rstrip("+").partition("-")
    return Versions(int(first), _EVER if text.endswith("+") else int(last if dash else first))


def _field(raw: dict[str, Any]) -> Field:
    kind = raw["type"]
    is_array = kind.startswith("[]")
    kind = kind.removeprefix("[]")
    fields = tuple(_field(each) for each in raw.get("fields", ()))
    name = raw["name"]
    # TopicId, but also ISRNodes: the first word small.
    return Field(
        name[0].lower() + name[1:],
        kind,
        is_array,
        _versions(raw["versions"]),
        _versions(raw.get("nullableVersions", "none")),
        _versions(raw.get("taggedVersions", "none")),
        raw.get("tag", -1),
        _default(kind, is_array, fields, raw.get("default")),
        fields,
    )


def _default(kind: str, is_array: bool, fields: tuple[Field, ...], given: Any) -> Any:
    if given == "null":
        return None
    if is_array:
        return []
    if fields:
        return {}
    if kind == "bool":
        return str(given).lower() == "true"
    if kind in _INTEGERS:
        return int(str(given).strip() or "0", 0) if given is not None else 0
    if kind == "uuid":
        return UUID(int=0)
    return b"" if kind in ("bytes", "records") else str(given or "")


def _write_struct(
    out: bytearray, fields: tuple[Field, ...], version: int, flexible: bool, values: Values
) -> None:
    unknown = set(values) - {each.name for each in fields}
    if unknown:
        raise KeyError(f"no such fields: {sorted(unknown)}")
    tagged: list[tuple[int, bytes]] = []
    for each in fields:
        if version not in each.versions:
            continue
        value = values.get(each.name, each.default)
        if version not in each.tagged:
            _write(out, each, version, flexible, value)
        elif each.name in values:
            part = bytearray()
            _write(part, each, version, flexible, value)
            tagged.append((each.tag, bytes(part)))
    if flexible:
        out += varint(len(tagged))
        for tag, content in sorted(tagged):
            out += varint(tag) + varint(len(content)) + content


def _write(out: bytearray, each: Field, version: int, flexible: bool, value: Any) -> None:
    if not each.is_array:
        _write_one(out, each, version, flexible, value)
        return
    _write_length(out, flexible, "i", None if value is None else len(value))
    for item in value or ():
        _write_one(out, each, version, flexible, item)


def _write_one(out: bytearray, each: Field, version: int, flexible: bool, value: Any) -> None:
    if each.fields:
        if version in each.nullable and not each.is_array:
            out += b"\xff" if value is None else b"\x01"
        if value is not None:
            _write_struct(out, each.fields, version, flexible, value)
    elif each.kind in _INTEGERS:
        out += struct.pack(">" + _INTEGERS[each.kind], value)
    elif each.kind == "uuid":
        out += value.bytes
    else:
        content = value.encode() if isinstance(value, str) else value
        length = None if content is None else len(content)
        _write_length(out, flexible, "h" if each.kind == "string" else "i", length)
        out += content or b""


def _write_length(out: bytearray, flexible: bool, code: str, length: int | None) -> None:
    if flexible:
        out += varint(0 if length is None else length + 1)
    else:
        out += struct.pack(">" + code, -1 if length is None else length)


def _read_struct(
    reader: _Reader, fields: tuple[Field, ...], version: int, flexible: bool
) -> Values:
    values: Values = {}
    tagged: dict[int, Field] = {}
    for each in fields:
        if version not in each.versions:
            continue
        if version in each.tagged:
            tagged[each.tag] = each
            values[each.name] = None if each.fields and not each.is_array else each.default
        else:
            values[each.name] = _read(reader, each, version, flexible)
    if flexible:
        for _ in range(reader.varint()):
            tag, size = reader.varint(), reader.varint()
            content = _Reader(reader.take(size), 0, reader.unknown_tags)
            if tag in tagged:
                values[tagged[tag].name] = _read(content, tagged[tag], version, flexible)
            else:
                reader.unknown_tags.append(tag)
    return values


def _read(reader: _Reader, each: Field, version: int, flexible: bool) -> Any:
    if not each.is_array:
        return _read_one(reader, each, version, flexible)
    count = _read_length(reader, flexible, "int32")
    if count is None:
        return None
    return [_read_one(reader, each, version, flexible) for _ in range(count)]


def _read_one(reader: _Reader, each: Field, version: int, flexible: bool) -> Any:
    if each.fields:
        if version in each.nullable and not each.is_array and reader.number("int8") < 0:
            return None
        return _read_struct(reader, each.fields, version, flexible)
    if each.kind in _INTEGERS:
        return reader.number(each.kind)
    if each.kind == "uuid":
        return UUID(bytes=bytes(reader.take(16)))
    length = _read_length(reader, flexible, "int16" if each.kind == "string" else "int32")
    if length is None:
        return None
    content = bytes(reader.take(length))
    return content.decode() if each.kind == "string" else content


def _read_length(reader: _Reader, flexible: bool, kind: str) -> int | None:
    length = reader.varint() - 1 if flexible else reader.number(kind)
    return None if length < 0 else int(length)
