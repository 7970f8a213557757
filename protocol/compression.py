"""The four codecs of record batches, with a bound on what comes out.

    gzip    RFC 1952, several members allowed
    snappy  xerial's framing: magic 82 "SNAPPY" 00, version and least version int32 (1, 1), then
            blocks of int32 length and raw snappy; unframed raw snappy is read too
    lz4     the LZ4 frame format, blocks of 64 KiB, each independent of the one before
    zstd    the Zstandard frame format

Kafka's Java clients write snappy in xerial's framing, librdkafka without; both must be read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Final

import cramjam

from protocol.batch_header import (
    CODEC_GZIP,
    CODEC_LZ4,
    CODEC_NONE,
    CODEC_SNAPPY,
    CODEC_ZSTD,
    Buffer,
)

DEFAULT_LIMIT_BYTES: Final = 256 * 1024 * 1024

_XERIAL_MAGIC: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER: Final = _XERIAL_MAGIC + struct.pack(">ii", 1, 1)
_XERIAL_BLOCK_BYTES: Final = 32 * 1024
# Three bytes of snappy stand for 64 bytes at most.
_SNAPPY_MOST_RATIO: Final = 22
_LENGTH = struct.Struct(">i")

# Magic; version 1 with independent blocks and no checksums; 64 KiB blocks; header checksum.
_LZ4_HEADER: Final = b"\x04\x22\x4d\x18\x60\x40\x82"
_LZ4_BLOCK_BYTES: Final = 64 * 1024
_LZ4_LENGTH = struct.Struct("<I")
_LZ4_STORED: Final = 0x80000000
_LZ4_FIRST_HIGH_LEVEL: Final = 3

# Kafka's defaults: the library's own for gzip, the fast one for lz4, 3 for zstd.
_DEFAULT_LEVEL: Final = {CODEC_GZIP: 6, CODEC_LZ4: 1, CODEC_ZSTD: 3}


class BadCompression(ValueError):
    """The compressed bytes cannot be expanded, or expand beyond the bound."""


def compress(codec: int, data: Buffer, level: int | None = None) -> bytes:
    """Compress with a codec id of the batch attributes. Raises ValueError: an unknown codec.

    level: as the codec counts; None is Kafka's default. Snappy has none.
    """
    if codec == CODEC_NONE:
        return bytes(data)
    if codec == CODEC_SNAPPY:
        return _compress_xerial(data)
    if codec not in _DEFAULT_LEVEL:
        raise ValueError(f"unknown codec {codec}")
    chosen = _DEFAULT_LEVEL[codec] if level is None else level
    if codec == CODEC_GZIP:
        packer = zlib.compressobj(chosen, zlib.DEFLATED, 31)
        return packer.compress(data) + packer.flush()
    if codec == CODEC_LZ4:
        return _compress_lz4(data, chosen)
    return bytes(cramjam.zstd.compress(bytes(data), level=chosen))


def decompress(codec: int, data: Buffer, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> Buffer:
    """Expand; never allocates much more than `limit_bytes`. Without a codec, `data` itself.

    Raises BadCompression: damaged, or longer than the limit. ValueError: an unknown codec.
    """
    if codec == CODEC_NONE:
        return data
    if codec == CODEC_GZIP:
        return _expand_gzip(data, limit_bytes)
    if codec == CODEC_SNAPPY:
        return _expand_snappy(bytes(data), limit_bytes)
    if codec == CODEC_LZ4:
        return _expand_into(cramjam.lz4.decompress_into, bytes(data), limit_bytes)
    if codec == CODEC_ZSTD:
        return _expand_into(cramjam.zstd.decompress_into, bytes(data), limit_bytes)
    raise ValueError(f"unknown codec {codec}")


def _compress_xerial(data: Buffer) -> bytes:
    view = memoryview(data)
    out = bytearray(_XERIAL_HEADER)
    for position in range(0, len(view), _XERIAL_BLOCK_BYTES):
        block = bytes(
            cramjam.snappy.compress_raw(bytes(view[position : position + _XERIAL_BLOCK_BYTES]))
        )
        out += _LENGTH.pack(len(block))
        out += block
    return bytes(out)


def _expand_snappy(data: bytes, limit_bytes: int) -> Buffer:
    if not data.startswith(_XERIAL_MAGIC):
        return _expand_raw_snappy(data, limit_bytes)
    out = bytearray()
    position = len(_XERIAL_HEADER)
    while position < len(data):
        try:
            (length,) = _LENGTH.unpack_from(data, position)
        except struct.error:
            raise BadCompression("a snappy block has no length") from None
        position += _LENGTH.size
        if not 0 <= length <= len(data) - position:
            raise BadCompression(f"a snappy block of {length} bytes is cut short")
        out += _expand_raw_snappy(data[position : position + length], limit_bytes - len(out))
        position += length
    return out


def _expand_raw_snappy(block: bytes, limit_bytes: int) -> bytes:
    try:
        length = cramjam.snappy.decompress_raw_len(block)
        # The length is the sender's word: believe no more than the format can expand to.
        if length > min(limit_bytes, _SNAPPY_MOST_RATIO * len(block)):
            raise BadCompression(f"snappy of {len(block)} bytes says it expands to {length}")
        return bytes(cramjam.snappy.decompress_raw(block))
    except cramjam.DecompressionError as error:
        raise BadCompression(f"snappy: {error}") from None


def _expand_gzip(data: Buffer, limit_bytes: int) -> bytes:
    out = bytearray()
    rest: Buffer = data
    try:
        while len(rest):
            member = zlib.decompressobj(31)
            out += member.decompress(rest, limit_bytes - len(out) + 1)
            if len(out) > limit_bytes:
                raise BadCompression("gzip expands beyond the limit")
            if not member.eof:
                raise BadCompression("gzip is cut short")
            rest = member.unused_data
    except zlib.error as error:
        raise BadCompression(f"gzip: {error}") from None
    return bytes(out)


def _expand_into(
    expand: Callable[[bytes, bytearray], int], data: bytes, limit_bytes: int
) -> Buffer:
    """Expand into buffers that grow up to the limit: the formats need not say how much comes."""
    size = min(max(4 * len(data), 4096), limit_bytes)
    while True:
        # One byte more than may come, so that a full buffer is told from an exact fit.
        room = bytearray(size + 1)
        try:
            length = expand(data, room)
        except (cramjam.DecompressionError, ValueError) as error:
            # The library's only sign that the buffer, not the data, is at fault.
            if "whole buffer" not in str(error):
                raise BadCompression(f"{error}") from None
            length = size + 1
        if length <= size:
            del room[length:]
            return room
        if size >= limit_bytes:
            raise BadCompression("expands beyond the limit")
        size = min(4 * size, limit_bytes)


def _compress_lz4(data: Buffer, level: int) -> bytes:
    """A frame of independent blocks: Java's reader refuses linked ones, which cramjam writes."""
    view = memoryview(data)
    out = bytearray(_LZ4_HEADER)
    for position in range(0, len(view), _LZ4_BLOCK_BYTES):
        plain = bytes(view[position : position + _LZ4_BLOCK_BYTES])
        block = _lz4_block(plain, level)
        if len(block) < len(plain):
            out += _LZ4_LENGTH.pack(len(block))
            out += block
        else:
            out += _LZ4_LENGTH.pack(len(plain) | _LZ4_STORED)
            out += plain
    out += _LZ4_LENGTH.pack(0)
    return bytes(out)


def _lz4_block(plain: bytes, level: int) -> bytes:
    if level < _LZ4_FIRST_HIGH_LEVEL:
        return bytes(cramjam.lz4.compress_block(plain, store_size=False))
    return bytes(
        cramjam.lz4.compress_block(
            plain, store_size=False, mode="high_compression", compression=level
        )
    )
