"""Settings of the streams of one broker."""

from __future__ import annotations

from dataclasses import dataclass, field

from wal.config import WalConfig

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class S3StreamConfig:
    """log_cache_bytes: recent batches in memory, those that await upload among them; producers
    wait before it is full. 256 MiB is four uploads, so that one may be late.
    log_cache_reserve: share of it that only the broker's own writes may take (group offsets and
    the like), so that they go on while producers wait.
    upload_trigger_bytes: 64 MiB is one data object, thus one PUT: as few requests as a multipart
    upload of any size needs for as many bytes, and a short recovery.
    upload_max_objects: WAL objects that await upload; recovery reads the index of each, and
    producers wait at twice as many.
    upload_max_age_s: of the oldest batch that awaits upload.
    adopt_share_bytes: a log object whose streams have so much in it on average is not copied by an
    upload, see `adoption`. Half a block: a reader then fetches twice what it wants at most.
    idle_after_s, housekeeping_s: with no append for the first, what the age alone asks for is put
    off until the second has passed since the last append: an idle broker asks the store nothing.
    busy_bytes_per_s, busy_patience_s: while clients write and read history faster than the first,
    merging waits, but not longer than the second. Half of what merging may read and write.
    data_object_bytes: of one uploaded object; also the size of a multipart part.
    checkpoint_objects: WAL objects from one checkpoint to the next, upload or not; recovery reads
    what came after the last one.
    page_streams, page_bytes: of one index page, at most.
    delta_bytes: changes since the pages were written, at which pages are written anew, unless a
    quarter of the pages is more.
    inline_delta_bytes: a checkpoint's delta above it becomes an object of its own.
    history_ranges: of one index object of a long history; history_keep: newest ranges that stay in
    the stream's entry, where merging may still find them.
    block_cache_bytes: blocks of data objects in memory, for readers of history.
    producer_expiration_ms: a producer silent for as long is forgotten at the next upload.
    """

    log_cache_bytes: int = 256 * MIB
    log_cache_reserve: float = 1 / 8
    upload_trigger_bytes: int = 64 * MIB
    upload_max_objects: int = 1000
    upload_max_age_s: float = 600.0
    adopt_share_bytes: int = 512 << 10
    idle_after_s: float = 10.0
    housekeeping_s: float = 600.0
    busy_bytes_per_s: float = 16.0 * MIB
    busy_patience_s: float = 600.0
    data_object_bytes: int = 64 * MIB
    checkpoint_objects: int = 256
    page_streams: int = 2000
    page_bytes: int = MIB
    delta_bytes: int = MIB
    inline_delta_bytes: int = 256 << 10
    history_ranges: int = 512
    history_keep: int = 256
    block_cache_bytes: int = 64 * MIB
    producer_expiration_ms: int = 86_400_000
    wal: WalConfig = field(default_factory=WalConfig)

    def __post_init__(self) -> None:
        for name in (
            "log_cache_bytes",
            "upload_trigger_bytes",
            "upload_max_objects",
            "adopt_share_bytes",
            "data_object_bytes",
            "checkpoint_objects",
            "page_streams",
            "page_bytes",
            "delta_bytes",
            "history_ranges",
            "producer_expiration_ms",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be above 0")
        if self.busy_bytes_per_s <= 0 or self.busy_patience_s < 0:
            raise ValueError("busy_bytes_per_s must be above 0, busy_patience_s not below")
        if not 0 <= self.log_cache_reserve < 1:
            raise ValueError("log_cache_reserve is a share of the log cache, below 1")
        if self.housekeeping_s < self.idle_after_s:
            raise ValueError("housekeeping_s must not be below idle_after_s")
