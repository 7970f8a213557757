"""The metadata log of a bucket that may lack any object: read as far as nothing is missing.

The newest snapshot that can be read is the beginning. Where the `end` of a term is missing that is
not the last, it ended at a seal of the next one's owner, if one stands at the first place without a
record.
"""

from __future__ import annotations

from dataclasses import dataclass

from broker.verify.fault import Fault
from objectstore.errors import Corrupt, NotFound
from objectstore.store import ObjectStore
from s3stream.metadata.image import EMPTY_IMAGE, MetadataImage
from s3stream.metadata.records import TermBegun, decode_record
from s3stream.metadata.snapshot import SnapshotName, read_snapshot
from s3stream.metadata.tail import fold
from wal.format import Kind, read_header, read_index
from wal.keys import LogName, meta_log, snapshot_key
from wal.parallel import each_of
from wal.seal import read_end, read_seal

from .survey import Listed

HEADERS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class ReadMetadata:
    """image: the cluster as of the last record that could be read. fault: why it stops there,
    though there is more; None: nothing more is there. unread: keys of records beyond.
    """

    image: MetadataImage
    fault: str | None
    unread: tuple[str, ...]


async def read_metadata(store: ObjectStore, listed: Listed) -> ReadMetadata:
    """Raises Fault where not even the beginning can be read."""
    image, term, next_seq, faults = await _beginning(store, listed)
    fault: str | None = None
    while True:
        log = meta_log(term)
        image, next_seq, fault = await _read_term(store, listed, log, image, next_seq)
        end = await _end_of(store, listed, log, next_seq)
        if fault is None and end == next_seq:
            term, next_seq = term + 1, 0
            continue
        if fault is None and end is not None:
            fault = f"{log.key(next_seq)}: missing, though the log goes on"
        break
    if not image.cluster_id:
        raise Fault(
            "nothing to start from: neither meta/0/0 nor a snapshot can be read "
            f"({'; '.join([*faults, *([fault] if fault else [])]) or 'there is none'})"
        )
    unread = await _beyond(store, listed, term, next_seq)
    if fault is None and unread:
        fault = f"{log.key(next_seq)}: missing, though {unread[-1]} is there"
    return ReadMetadata(image, fault, tuple(unread))


async def _beginning(
    store: ObjectStore, listed: Listed
) -> tuple[MetadataImage, int, int, list[str]]:
    """(image, term, next sequence, snapshots that could not be read)."""
    faults: list[str] = []
    for term, seq in reversed(listed.snapshots):
        name = SnapshotName(snapshot_key(term, seq), term, seq)
        try:
            return await read_snapshot(store, name), term, seq + 1, faults
        except (Corrupt, NotFound) as error:
            faults.append(str(error))
    return EMPTY_IMAGE, 0, 0, faults


async def _read_term(
    store: ObjectStore, listed: Listed, log: LogName, image: MetadataImage, next_seq: int
) -> tuple[MetadataImage, int, str | None]:
    """(image, first sequence not folded, what is wrong there)."""
    bound = (await read_end_or_none(store, listed, log))[0]
    while bound is None or next_seq < bound:
        key = log.key(next_seq)
        size = listed.sizes.get(key)
        if size is None:
            return image, next_seq, None
        try:
            if (await read_header(store, key)).kind is not Kind.LOG:
                return image, next_seq, None  # a seal
            index = await read_index(store, key, size)
            image = fold(image, log, next_seq, index.controls)
        except (Corrupt, NotFound) as error:
            return image, next_seq, str(error)
        next_seq += 1
    return image, next_seq, None


async def _end_of(store: ObjectStore, listed: Listed, log: LogName, next_seq: int) -> int | None:
    """Where the log ended; -1: beyond `next_seq`, nobody knows where. None: it did not."""
    end, _ = await read_end_or_none(store, listed, log)
    if end is not None:
        return end
    if not any(term > log.log_id for term in listed.terms):
        return None
    return next_seq if await _is_end(store, log, next_seq) else -1


async def _is_end(store: ObjectStore, log: LogName, seq: int) -> bool:
    """Whether there is a seal by the process that owned the next term. One by anybody else may
    have been put into a hole.
    """
    following = meta_log(log.log_id + 1).key(0)
    try:
        seal = await read_seal(store, log, seq)
        async for info in store.list(following):
            index = await read_index(store, following, info.size_bytes)
            for control in index.controls[:1]:
                record = decode_record(control, following)
                return isinstance(record, TermBegun) and record.process == seal.maker
    except (Corrupt, NotFound):
        pass
    return False


async def read_end_or_none(
    store: ObjectStore, listed: Listed, log: LogName
) -> tuple[int | None, bytes]:
    """(end, its maker); None where there is none, or it cannot be read."""
    if log not in listed.ends:
        return None, b""
    try:
        found = await read_end(store, log)
    except Corrupt:
        return None, b""
    return (None, b"") if found is None else (found.end, found.maker)


async def _beyond(store: ObjectStore, listed: Listed, term: int, next_seq: int) -> list[str]:
    """Records that lie behind what was read; seals are none."""
    behind = [
        log.key(seq)
        for log in sorted(listed.logs)
        if log.family == "meta" and log.log_id >= term
        for seq in listed.logs[log]
        if (log.log_id, seq) >= (term, next_seq)
    ]
    behind += [snapshot_key(*place) for place in listed.snapshots if place > (term, next_seq)]

    async def is_seal(key: str) -> bool:
        try:
            return (await read_header(store, key)).kind is Kind.SEAL
        except (Corrupt, NotFound):
            return False

    seals = await each_of(is_seal, behind, HEADERS_AT_ONCE)
    return [key for key, seal in zip(behind, seals, strict=True) if not seal]
