"""Producer states against Kafka's rules, told once more as plainly as possible."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.partition.producer_state import (
    MAX_SEQUENCE,
    ProducerStates,
    SequencedBatch,
    last_sequence_of,
)
from protocol.errors import ErrorCode, KafkaError

EXPIRATION_MS = 1000


@dataclass
class Model:
    """What a log knows of one producer: (first, last sequence, base offset) of its batches."""

    epoch: int
    batches: list[tuple[int, int, int]] = field(default_factory=list)
    last_ms: int = 0

    def outcome(self, epoch: int, first: int, last: int) -> int | ErrorCode | None:
        """A duplicate's base offset, an error, or None for a batch that is to be appended."""
        if epoch < self.epoch:
            return ErrorCode.INVALID_PRODUCER_EPOCH
        if epoch > self.epoch:
            return None if first == 0 else ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
        for known_first, known_last, base in self.batches[-5:]:
            if (known_first, known_last) == (first, last):
                return base
        newest = self.batches[-1][1]
        if first == (0 if newest == MAX_SEQUENCE else newest + 1):
            return None
        return ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


STEP = st.tuples(
    st.integers(1, 3),  # producer
    st.sampled_from([0, 0, 0, 1, -1]),  # epoch, against the newest
    st.sampled_from(["next", "next", "next", "again", "gap", "zero", "far"]),
    st.integers(1, 4),  # records
    st.sampled_from([1, 1, 1, 10, 600, 1500]),  # milliseconds until then
)


@settings(max_examples=300)
@given(st.lists(STEP, max_size=60), st.sampled_from([0, MAX_SEQUENCE - 5]))
def test_any_history_gets_kafkas_answers(
    steps: list[tuple[int, int, str, int, int]], begin: int
) -> None:
    states = ProducerStates(EXPIRATION_MS)
    model: dict[int, Model] = {}
    now_ms, offset = 10_000, 0
    for producer, epoch_step, which, count, pause_ms in steps:
        now_ms += pause_ms
        known = model.get(producer)
        if known is not None and now_ms - known.last_ms >= EXPIRATION_MS:
            del model[producer]
            known = None
        epoch = max(0, (known.epoch if known else 5) + epoch_step)
        first = begin
        if known is not None:
            at = {"again": -min(len(known.batches), 1 + count), "far": 0}.get(which, -1)
            first, last, _ = known.batches[at]
            if which not in ("again", "far"):
                first = (last + 1) & MAX_SEQUENCE
            else:
                count = ((last - first) & MAX_SEQUENCE) + 1
            first = {"gap": (first + 1) & MAX_SEQUENCE, "zero": 0}.get(which, first)
        last = last_sequence_of(first, count)
        expected = known.outcome(epoch, first, last) if known is not None else None
        duplicate = states.duplicate_of(producer, epoch, first, last, now_ms)
        if isinstance(expected, ErrorCode):
            assert duplicate is None
            with pytest.raises(KafkaError) as caught:
                states.check(producer, epoch, first, now_ms)
            assert caught.value.code is expected
        elif expected is not None:
            assert duplicate is not None and duplicate.base_offset == expected
        else:
            assert duplicate is None
            states.check(producer, epoch, first, now_ms)
            batch = SequencedBatch(first, last, offset, offset + count - 1, now_ms, None)
            states.record(producer, epoch, batch)
            if known is None or known.epoch != epoch:
                known = model[producer] = Model(epoch)
            known.batches.append((first, last, offset))
            known.last_ms = now_ms
            offset += count
    states.expire(now_ms)
    alive = {p for p, m in model.items() if now_ms - m.last_ms < EXPIRATION_MS}
    assert {entry.producer_id for entry in states.entries()} == alive


def test_sequences_wrap_to_zero() -> None:
    assert last_sequence_of(MAX_SEQUENCE, 1) == MAX_SEQUENCE
    assert last_sequence_of(MAX_SEQUENCE, 2) == 0
    assert last_sequence_of(MAX_SEQUENCE - 1, 5) == 2


def test_an_epoch_without_batches_starts_at_zero() -> None:
    states = ProducerStates(EXPIRATION_MS)
    states.record(1, 0, SequencedBatch(0, 0, 0, 0, 0, None))
    back = states.undo(1)
    states.record(1, 1, SequencedBatch(0, 3, 1, 4, 0, None))
    with pytest.raises(KafkaError):
        states.check(1, 0, 1, 1)
    back()
    states.check(1, 0, 1, 1)
    assert states.duplicate_of(1, 1, 0, 3, 1) is None
    assert states.duplicate_of(1, 0, 0, 0, 1) is not None


def test_what_is_undone_of_an_unknown_producer_leaves_nothing() -> None:
    states = ProducerStates(EXPIRATION_MS)
    back = states.undo(1)
    states.record(1, 3, SequencedBatch(7, 7, 0, 0, 0, None))
    back()
    assert len(states) == 0
    states.check(1, 0, 40, 0)
