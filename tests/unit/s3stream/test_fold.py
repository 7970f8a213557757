"""One stream's durable state, step by step."""

from __future__ import annotations

import pytest

from objectstore.errors import Corrupt
from s3stream import fold
from s3stream.entries import AbortedTransaction, StreamEntry, Tally
from s3stream.refs import ObjectRange, ObjectRef, add_sums
from wal.format import ControlMarker, LargeBatchRef, ProducerUpdate, StreamRange


def ref(name: str) -> ObjectRef:
    return ObjectRef(name, bytes(16), 1000, 80, 20)


def piece(base: int, end: int, epoch: int = 0, time: int = 0, **more: object) -> StreamRange:
    """Batches of one record each; the sum of [base, end) is the sum of its offsets plus one."""
    total = sum(range(base + 1, end + 1)).to_bytes(16, "big")
    count = end - base
    made = StreamRange(1, base, end, 0, 0, 10 * count, count, count, epoch, time, base, total)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def opened(epoch: int = 0) -> StreamEntry:
    entry = StreamEntry(1, epoch, (0, 0, 0))
    fold.lead(entry, epoch, (0, 0, 0))
    return entry


def written(*ends: int) -> StreamEntry:
    """One log object up to each of `ends`."""
    entry = opened()
    for n, end in enumerate(ends):
        fold.append(entry, ref(f"wal/{n}"), [piece(entry.next_offset, end)])
    return entry


def uploaded(name: str, *pieces: StreamRange) -> list[ObjectRange]:
    return fold.object_ranges(ref(name), pieces)


def names(entry: StreamEntry) -> list[str]:
    return [one.object.key for one in entry.ranges]


def check_sums(entry: StreamEntry) -> None:
    assert add_sums(entry.live.sum, entry.trimmed.sum) == entry.total.sum
    live = Tally()
    for one in entry.ranges:
        live.add(one)
    assert live == entry.live


def test_neighbouring_ranges_of_one_object_become_one() -> None:
    entry = opened()
    fold.append(entry, ref("wal/0"), [piece(0, 2, time=5), piece(2, 5, 1, time=9), piece(5, 6, 1)])
    (one,) = entry.ranges
    assert (one.base_offset, one.end_offset, one.size_bytes, one.record_count) == (0, 6, 60, 6)
    assert (one.first_leader_epoch, one.last_leader_epoch) == (0, 1)
    assert (one.max_timestamp, one.max_timestamp_offset) == (9, 2)
    assert int.from_bytes(one.sum, "big") == 21
    assert entry.leader_epochs == [(0, 0), (1, 2)]
    check_sums(entry)


@pytest.mark.parametrize(
    "bad", [piece(4, 6), piece(6, 7), piece(5, 6, epoch=-1)], ids=["overlap", "hole", "epoch"]
)
def test_a_log_that_contradicts_the_stream_is_corrupt(bad: StreamRange) -> None:
    entry = written(5)
    with pytest.raises(Corrupt, match=r"wal/9: stream 1"):
        fold.append(entry, ref("wal/9"), [bad])


def test_an_epoch_that_wrote_nothing_leaves_no_entry() -> None:
    entry = opened(1)
    fold.lead(entry, 2, (0, 0, 1))
    assert entry.leader_epochs == [(2, 0)]
    fold.append(entry, ref("wal/0"), [piece(0, 3, 2)])
    fold.lead(entry, 5, (0, 0, 2))
    assert entry.leader_epochs == [(2, 0), (5, 3)]
    with pytest.raises(Corrupt, match="opened at epoch 4 after 5"):
        fold.lead(entry, 4, (0, 0, 3))


def test_an_opening_asked_for_again_leaves_the_start_of_its_epoch() -> None:
    entry = opened(1)
    fold.append(entry, ref("wal/0"), [piece(0, 3, 1)])
    fold.lead(entry, 1, (0, 0, 1))
    assert entry.leader_epochs == [(1, 0)]


def test_trimming_keeps_the_epoch_of_the_new_start() -> None:
    entry = opened()
    fold.append(entry, ref("wal/0"), [piece(0, 3), piece(3, 6, 4), piece(6, 9, 7)])
    fold.trim(entry, 4)
    assert entry.leader_epochs == [(4, 4), (7, 6)]
    fold.trim(entry, 9)
    assert entry.leader_epochs == [(7, 9)]
    with pytest.raises(Corrupt, match="beyond its end"):
        fold.trim(entry, 10)


def test_an_uploaded_range_leaves_when_its_last_batch_is_trimmed() -> None:
    entry = written(5, 10)
    fold.upload(entry, uploaded("data/0", piece(0, 10)))
    fold.append(entry, ref("wal/2"), [piece(10, 20)])
    assert fold.trim(entry, 9) == []
    gone = fold.trim(entry, 10)
    assert [one.object.key for one in gone] == ["data/0"]
    assert int.from_bytes(entry.trimmed.sum, "big") == 55
    check_sums(entry)
    # A range that awaits upload stays until the upload that leaves it out.
    assert fold.trim(entry, 20) == []
    assert names(entry) == ["wal/2"]
    removed, added = fold.upload(entry, [])
    assert ([one.object.key for one in removed], added) == (["wal/2"], [])
    assert entry.live == Tally() and entry.uploaded_to == 20
    check_sums(entry)


def test_an_upload_takes_the_place_of_the_tail_and_no_more() -> None:
    entry = written(5, 10, 15)
    removed, added = fold.upload(entry, uploaded("data/0", piece(0, 7), piece(7, 10)))
    assert [one.object.key for one in removed] == ["wal/0", "wal/1"]
    assert [one.object.key for one in added] == ["data/0"]
    assert names(entry) == ["data/0", "wal/2"]
    assert entry.uploaded_to == 10
    assert [one.object.key for one in entry.tail()] == ["wal/2"]
    check_sums(entry)


def test_an_upload_in_two_objects_is_one_exchange() -> None:
    entry = written(5, 10)
    both = uploaded("data/0", piece(0, 5)) + uploaded("data/1", piece(5, 10))
    fold.upload(entry, both)
    assert names(entry) == ["data/0", "data/1"]
    check_sums(entry)


def test_an_upload_that_holds_something_else_is_corrupt() -> None:
    wrong = piece(0, 10)
    wrong.sum = (56).to_bytes(16, "big")
    with pytest.raises(Corrupt, match="data/0: does not hold what stream 1 has from 0 to 10"):
        fold.upload(written(5, 10), uploaded("data/0", wrong))
    with pytest.raises(Corrupt, match="leaves out 0"):
        fold.upload(written(5, 10), uploaded("data/0", piece(5, 10)))
    with pytest.raises(Corrupt, match="does not hold"):
        fold.upload(written(5, 10), uploaded("data/0", piece(0, 7)))


@pytest.mark.parametrize("start", range(21))
def test_a_trim_while_an_upload_is_under_way_keeps_the_sums(start: int) -> None:
    entry = written(5, 10, 15, 20)
    added = uploaded("data/0", piece(0, 5), piece(5, 10)) + uploaded("data/1", piece(10, 15))
    fold.trim(entry, start)
    fold.upload(entry, added)
    expected = ["data/0"] * (start < 10) + ["data/1"] * (start < 15) + ["wal/3"] * (start < 20)
    assert names(entry) == expected
    check_sums(entry)
    fold.trim(entry, 20)
    fold.upload(entry, [])
    assert entry.live == Tally() and entry.ranges == []
    check_sums(entry)


def test_an_upload_does_not_touch_a_stream_that_was_closed_or_had_it_already() -> None:
    entry = written(5)
    entry.closed = True
    assert fold.upload(entry, uploaded("data/0", piece(0, 5))) == ([], [])
    entry.closed = False
    fold.upload(entry, uploaded("data/1", piece(0, 5)))
    assert fold.upload(entry, uploaded("data/0", piece(0, 5))) == ([], [])
    assert names(entry) == ["data/1"]


def test_compaction_replaces_only_what_the_stream_still_has() -> None:
    entry = written(5, 10, 15)
    fold.upload(entry, uploaded("data/0", piece(0, 5)))
    fold.upload(entry, uploaded("data/1", piece(5, 10)))
    merged = uploaded("data/9", piece(0, 5), piece(5, 10))
    assert fold.compact(entry, frozenset({"data/0"}), merged) == ([], [])
    gone, kept = fold.compact(entry, frozenset({"data/0", "data/1"}), merged)
    assert ([one.object.key for one in gone], kept) == (["data/0", "data/1"], merged)
    assert names(entry) == ["data/9", "wal/2"]
    check_sums(entry)


@pytest.mark.parametrize("start", range(11))
def test_a_trim_while_a_compaction_is_under_way_keeps_the_sums(start: int) -> None:
    entry = written(5, 10)
    fold.upload(entry, uploaded("data/0", piece(0, 5)))
    fold.upload(entry, uploaded("data/1", piece(5, 10)))
    fold.trim(entry, start)
    fold.compact(entry, frozenset({"data/0", "data/1"}), uploaded("data/9", piece(0, 10)))
    assert names(entry) == (["data/9"] if start < 10 else [])
    check_sums(entry)


@pytest.mark.parametrize("start", range(11))
def test_a_compaction_may_leave_out_what_lies_below_the_start_and_nothing_else(start: int) -> None:
    entry = written(4, 10, 12)
    fold.upload(entry, uploaded("data/0", piece(0, 4), piece(4, 10)))
    fold.upload(entry, uploaded("data/1", piece(10, 12)))
    both, rest = frozenset({"data/0", "data/1"}), uploaded("data/9", piece(4, 10), piece(10, 12))
    fold.trim(entry, start)
    if start < 4:
        with pytest.raises(Corrupt, match="data/9"):
            fold.compact(entry, both, rest)
        return
    fold.compact(entry, both, rest)
    assert names(entry) == ["data/9"]
    assert entry.live == Tally.of(rest)
    check_sums(entry)


# Producers and transactions


def batch(sequence: int, offset: int, time: int = 0) -> tuple[int, int, int, int, int]:
    return (sequence, sequence, offset, offset, time)


def producing(entry: StreamEntry, *updates: ProducerUpdate, markers: object = ()) -> None:
    base = entry.next_offset
    one = piece(base, base + 10, producers=list(updates), markers=list(markers))  # type: ignore[call-overload]
    fold.append(entry, ref(f"wal/{base}"), [one])


def test_the_last_five_batches_of_a_producer_are_kept_over_objects() -> None:
    entry = opened()
    producing(entry, ProducerUpdate(7, 0, [batch(n, n) for n in range(4)], last_timestamp=5))
    producing(entry, ProducerUpdate(7, 0, [batch(n, n) for n in (4, 5)], last_timestamp=9))
    state = entry.producers[7]
    assert [one[0] for one in state.batches] == [1, 2, 3, 4, 5]
    assert state.last_timestamp == 9
    producing(entry, ProducerUpdate(7, 1, [batch(0, 20)]))
    assert (state.epoch, [one[2] for one in state.batches]) == (1, [20])
    producing(entry, ProducerUpdate(7, 1, [batch(0, 30)], reset=True))
    assert [one[2] for one in state.batches] == [30]


def test_silent_producers_are_forgotten_but_not_in_a_transaction() -> None:
    entry = opened()
    producing(entry, ProducerUpdate(1, 0, [], last_timestamp=10))
    producing(entry, ProducerUpdate(2, 0, [], txn_first_offset=12, last_timestamp=10))
    producing(entry, ProducerUpdate(3, 0, [], last_timestamp=20))
    assert fold.forget_producers(entry, 20)
    assert sorted(entry.producers) == [2, 3]
    assert not fold.forget_producers(entry, 20)


def test_a_transaction_stays_open_over_objects_until_its_marker() -> None:
    entry = opened()
    producing(entry, ProducerUpdate(7, 0, [batch(0, 3)], txn_first_offset=3))
    producing(entry, ProducerUpdate(7, 0, [batch(1, 12)], txn_first_offset=12))
    producing(entry, ProducerUpdate(8, 0, [batch(0, 25)], txn_first_offset=25))
    assert entry.first_open_transaction() == 3
    abort = ControlMarker(31, 7, 0, 4, False, 3)
    producing(entry, ProducerUpdate(7, 0, [batch(2, 35)], txn_first_offset=35), markers=[abort])
    assert entry.aborted == [AbortedTransaction(7, 3, 31)]
    assert entry.producers[7].txn_first_offset == 35
    assert entry.producers[7].coordinator_epoch == 4
    assert entry.first_open_transaction() == 25
    commit = ControlMarker(41, 8, 1, 4, True, 25)
    producing(entry, ProducerUpdate(8, 1, []), markers=[commit])
    assert entry.producers[8].txn_first_offset == -1
    assert (entry.producers[8].epoch, entry.producers[8].batches) == (1, [])
    assert len(entry.aborted) == 1
    fold.trim(entry, 32)
    assert entry.aborted == []


def test_a_large_batch_is_remembered_until_it_is_uploaded() -> None:
    entry = opened()
    reference = LargeBatchRef("data/large", bytes(16), 5000)
    fold.append(entry, ref("wal/0"), [piece(0, 1, reference=reference)])
    assert [one.reference for one in entry.large] == [reference]
    fold.append(entry, ref("wal/1"), [piece(1, 2)])
    fold.upload(entry, uploaded("data/0", piece(0, 2)))
    assert entry.large == []
