"""A log of which much is left below its trim: the survey reads its end, and says the same."""

from __future__ import annotations

import asyncio
from random import Random
from unittest.mock import patch

import pytest

import wal.survey
from objectstore.drivers.memory import MemoryStore
from wal.format import Kind, compose, compose_blob
from wal.keys import wal_log
from wal.recovery import read_tail
from wal.seal import end_log
from wal.survey import Survey, survey

WINDOW = 4
LOG = wal_log(3)


class Listed(MemoryStore):
    """rows: given by LISTs so far."""

    rows = 0

    async def list(self, prefix: str, start_after: str = ""):  # type: ignore[no-untyped-def]
        async for row in super().list(prefix, start_after):
            self.rows += 1
            yield row


def filled(rng: Random, length: int) -> Listed:
    """A log whose trim follows its end; below it some objects stay. Near its end there may be a
    hole with data behind it, and seals.
    """
    store = Listed(lambda: 0)
    trims: list[int] = []
    hole = length - rng.randint(1, WINDOW) if rng.random() < 0.5 else length
    for seq in range(length):
        if trims and rng.random() < 0.9:
            trims.append(trims[-1])
        else:
            trims.append(max(0, min(seq, hole) - rng.randint(3, 30)))
        trims[seq] = max(trims[seq], trims[seq - 1] if seq else 0)
    trim = trims[min(hole, length) - 1]
    often = rng.choice((0.05, 0.5, 1.0))
    for seq in range(length):
        if seq == hole or (seq < trim and rng.random() > often):
            continue
        checkpoint = trims[seq] or None
        durable = max(trims[seq], min(seq, hole) - rng.randint(0, 2))
        chunks, _, _ = compose(
            Kind.LOG, 3, seq, trims[seq], max(0, durable), checkpoint, WINDOW,
            rng.randbytes(16), [], [b"x"],
        )  # fmt: skip
        store.put_now(LOG.key(seq), chunks)
    for seq in range(length, length + rng.choice((0, 0, WINDOW))):
        chunks, _ = compose_blob(Kind.SEAL, 3, seq, rng.randbytes(16), b"maker")
        store.put_now(LOG.key(seq), chunks)
    return store


def surveyed(store: Listed, page_keys: int) -> Survey:
    with patch.object(wal.survey, "PLAIN_KEYS", page_keys):
        return asyncio.run(survey(store, LOG))


@pytest.mark.parametrize("seed", range(60))
def test_a_survey_from_near_the_end_says_what_one_from_the_beginning_says(seed: int) -> None:
    rng = Random(seed)
    store = filled(rng, rng.randint(5, 400))
    whole, near = surveyed(store, 1 << 30), surveyed(store, rng.choice((3, 10, 50)))
    assert near.newest == whole.newest and near.seals == whole.seals
    assert (near.begin, near.first_missing) == (whole.begin, whole.first_missing)
    from_trim = {seq: size for seq, size in whole.sizes.items() if seq >= whole.begin}
    assert {seq: size for seq, size in near.sizes.items() if seq >= near.begin} == from_trim


@pytest.mark.parametrize("seed", range(20))
def test_a_tail_with_much_below_its_trim_is_read_and_ended_as_any(seed: int) -> None:
    rng = Random(seed)
    store = filled(rng, 300)
    tails = []
    for page_keys in (1 << 30, 10):
        with patch.object(wal.survey, "PLAIN_KEYS", page_keys):
            tails.append([one.seq for one in asyncio.run(read_tail(store, LOG, None))])
    assert tails[0] == tails[1] != []
    with patch.object(wal.survey, "PLAIN_KEYS", 10):
        end = asyncio.run(end_log(store, LOG, WINDOW, b"other", rng))
    assert end.end >= tails[0][-1] + 1


def test_what_lies_below_the_trim_is_not_listed() -> None:
    store = Listed(lambda: 0)
    for seq in range(5000):
        trim = max(0, seq - 20)
        chunks, _, _ = compose(
            Kind.LOG, 3, seq, trim, seq, trim or None, WINDOW, bytes(16), [], [b"x"]
        )
        store.put_now(LOG.key(seq), chunks)
    assert surveyed(store, 100).first_missing == 5000
    assert store.rows < 400
