"""Record batches of format v2: their header, and what a client may append.

The public face of `protocol.batch_header` and `protocol.produced_batch`.
"""

from __future__ import annotations

from protocol.batch_header import (
    CODEC_GZIP,
    CODEC_LZ4,
    CODEC_MASK,
    CODEC_NONE,
    CODEC_SNAPPY,
    CODEC_ZSTD,
    CONTROL_BIT,
    CREATE_TIME,
    DELETE_HORIZON_BIT,
    HEADER_SIZE,
    LOG_APPEND_TIME,
    LOG_APPEND_TIME_BIT,
    LOG_OVERHEAD,
    MAGIC,
    NO_TIMESTAMP,
    TRANSACTIONAL_BIT,
    BatchHeader,
    Buffer,
    assign,
    clear_log_append_time,
    crc_ok,
    iter_headers,
    parse_header,
    seal_crc,
    set_log_append_time,
)
from protocol.produced_batch import (
    RefusedBatch,
    check_produced,
    check_timestamps,
    invalid_timestamps,
    timestamp_fault,
)

__all__ = [
    "CODEC_GZIP",
    "CODEC_LZ4",
    "CODEC_MASK",
    "CODEC_NONE",
    "CODEC_SNAPPY",
    "CODEC_ZSTD",
    "CONTROL_BIT",
    "CREATE_TIME",
    "DELETE_HORIZON_BIT",
    "HEADER_SIZE",
    "LOG_APPEND_TIME",
    "LOG_APPEND_TIME_BIT",
    "LOG_OVERHEAD",
    "MAGIC",
    "NO_TIMESTAMP",
    "TRANSACTIONAL_BIT",
    "BatchHeader",
    "Buffer",
    "RefusedBatch",
    "assign",
    "check_produced",
    "check_timestamps",
    "clear_log_append_time",
    "crc_ok",
    "invalid_timestamps",
    "iter_headers",
    "parse_header",
    "seal_crc",
    "set_log_append_time",
    "timestamp_fault",
]
