"""Names of objects."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from wal.keys import (
    LogName,
    data_key,
    meta_log,
    parse_data_key,
    parse_log,
    parse_snapshot_key,
    probe_key,
    snapshot_key,
    wal_log,
)

NUMBERS = st.integers(0, 2**64 - 1)


@given(NUMBERS, NUMBERS)
def test_names_are_read_back(log_id: int, seq: int) -> None:
    for log in (wal_log(log_id), meta_log(log_id)):
        assert log.seq_of(log.key(seq)) == seq
        assert parse_log(log.key(seq)) == parse_log(log.end_key) == log
        assert log.seq_of(log.end_key) is None
    assert parse_data_key(data_key(log_id, seq)) == (log_id, seq)
    assert parse_snapshot_key(snapshot_key(log_id, seq)) == (log_id, seq)


@given(st.lists(NUMBERS, min_size=2, max_size=6))
def test_byte_order_is_numeric_order_and_end_is_last(seqs: list[int]) -> None:
    log = wal_log(3)
    assert [log.seq_of(key) for key in sorted(map(log.key, seqs))] == sorted(seqs)
    assert all(log.key(seq) < log.end_key for seq in seqs)


@given(st.text(max_size=60))
def test_foreign_names_are_no_names(text: str) -> None:
    log = wal_log(1)
    for key in (text, log.prefix + text, "data/" + text, "meta/snapshot/" + text):
        seq = log.seq_of(key)
        assert seq is None or log.key(seq) == key
        pair = parse_data_key(key)
        assert pair is None or key.endswith("/" + data_key(*pair).split("/")[2])
        found = parse_log(key)
        assert found is None or key.startswith(found.prefix)


def test_known_names() -> None:
    assert LogName("wal", 7).key(42) == "wal/00000000000000000007/00000000000000000042"
    assert meta_log(0).end_key == "meta/00000000000000000000/end"
    assert wal_log(1).seq_of("wal/00000000000000000001/99999999999999999999") is None
    assert parse_log("meta/snapshot/00000000000000000001-00000000000000000002") is None
    assert probe_key(Random(1)) != probe_key(Random(2))


def test_data_keys_are_spread() -> None:
    assert len({data_key(1, n).split("/")[1] for n in range(2000)}) > 200
